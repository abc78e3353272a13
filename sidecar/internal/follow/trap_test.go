package follow_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// trapped calls run on a thread of its own, which the kernel stops (seccomp_unotify(2)) when it is about to open a file
// called name, or, if that is "", to list the directory dir: for as long as it takes to do something, once.
// So what was found under a name is another thing by the time it is opened, however fast the machine is.
func trapped(dir, name string, do func(), run func() error) error {
	listeners, result := make(chan int, 1), make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its filter
		fd, err := listen(unix.SYS_OPENAT2, unix.SYS_OPENAT, unix.SYS_GETDENTS64)
		must(err)
		listeners <- fd
		result <- run()
	}()
	fd := <-listeners
	defer unix.Close(fd)
	for sprung := false; ; {
		select {
		case err := <-result:
			return err
		default:
		}
		fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, _ := unix.Poll(fds[:], 1); n <= 0 || fds[0].Revents&unix.POLLIN == 0 {
			continue
		}
		// struct seccomp_notif and struct seccomp_notif_resp of linux/seccomp.h.
		var call struct {
			id         uint64
			pid, flags uint32
			nr         int32
			arch       uint32
			ip         uint64
			args       [6]uint64
		}
		const receive, send, goOn = 0xc0502100, 0xc0182101, 1
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), receive, uintptr(unsafe.Pointer(&call))); errno != 0 {
			continue // interrupted, or the call is gone
		}
		if !sprung && springs(call.nr, call.args, dir, name) {
			sprung = true
			do()
		}
		answer := struct {
			id    uint64
			value int64
			error int32
			flags uint32
		}{id: call.id, flags: goOn}
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), send, uintptr(unsafe.Pointer(&answer)))
	}
}

// springs says whether a call is the one to stop. Its arguments are addresses in this process.
func springs(nr int32, args [6]uint64, dir, name string) bool {
	if nr == unix.SYS_GETDENTS64 {
		at, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", int32(args[0])))
		return name == "" && err == nil && at == dir
	}
	address := uintptr(args[1])
	return name != "" && filepath.Base(unix.BytePtrToString(*(**byte)(unsafe.Pointer(&address)))) == name
}

// listen makes the kernel ask for leave before each of some calls of this thread. It returns the descriptor to
// answer on.
func listen(calls ...uint32) (int, error) {
	const (
		load  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		ret   = unix.BPF_RET | unix.BPF_K
		// of linux/seccomp.h
		setFilter   = 1
		newListener = 1 << 3
		ask         = 0x7fc00000
		allow       = 0x7fff0000
	)
	filter := []unix.SockFilter{{Code: load, K: 0}} // the number of the call
	for _, nr := range calls {
		filter = append(filter, unix.SockFilter{Code: equal, K: nr, Jf: 1}, unix.SockFilter{Code: ret, K: ask})
	}
	filter = append(filter, unix.SockFilter{Code: ret, K: allow})
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return -1, err
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, setFilter, newListener, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return -1, fmt.Errorf("seccomp: %w", errno)
	}
	return int(fd), nil
}
