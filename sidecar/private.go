package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// keepPrivate makes this process one that no other of its user may look into, unless that has CAP_SYS_PTRACE. Where containers
// share a process namespace (shareProcessNamespace, hostPID), a process of the application's user could otherwise
// read our volumes and offsets through /proc/PID/root, cwd and fd, and attach to us (ptrace). See
// "dumpable" in prctl(2) and ptrace(2). Of what is ours in /proc/self nothing is closed to us.
//
// execve(2) makes a process dumpable again, so from its start to this call it is not private; but the image's program
// may be executed and not read, and such a process is never dumpable.
func keepPrivate() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("protect /proc/self from other processes of this user: %w", err)
	}
	return nil
}
