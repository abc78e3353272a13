package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// peer is a program that follows files, run as its users run it.
type peer struct {
	name string
	argv func(s *site) []string
	env  []string
}

// site is a directory with files to follow.
type site struct {
	dir   string
	files []string
}

// newSite makes a directory with n empty files, as the sidecar and the others expect them.
func newSite(base string, n int) (*site, error) {
	dir, err := os.MkdirTemp(base, "site")
	if err != nil {
		return nil, err
	}
	s := &site{dir: dir}
	if err := errors.Join(os.Chmod(dir, 0o777), os.MkdirAll(filepath.Join(dir, "root/app"), 0o755)); err != nil {
		return nil, err
	}
	for i := range n {
		name := filepath.Join(dir, "root/app", fmt.Sprintf("%03d.log", i))
		if err := os.WriteFile(name, nil, 0o644); err != nil {
			return nil, err
		}
		s.files = append(s.files, name)
	}
	return s, nil
}

func (s *site) remove() { os.RemoveAll(s.dir) }

// process is a peer that runs.
type process struct {
	cmd     *exec.Cmd
	out     *os.File // reading end of its stdout
	started time.Time
	limit   *time.Timer
}

// start runs a peer. Its stdout is a pipe as a container runtime makes it, which blocks.
func start(p peer, s *site) (*process, error) {
	argv := p.argv(s)
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, err
	}
	out, in := os.NewFile(uintptr(fds[0]), "out"), os.NewFile(uintptr(fds[1]), "in")
	defer in.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), p.env...)
	cmd.Stdout = in
	// A peer ends with the benchmark, however that ends. It is the user that the sidecar's image
	// names, since the kernel counts inotify instances by user.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Getuid() == 0 {
		const user = 41932
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: user, Gid: user}
		// A container runtime gives stdout to the container's user, too.
		if err := in.Chown(user, user); err != nil {
			return nil, err
		}
	}
	q := &process{cmd: cmd, out: out, started: time.Now()}
	if err := cmd.Start(); err != nil {
		out.Close()
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	// A peer that loses lines would let its reader wait forever.
	q.limit = time.AfterFunc(longest, func() { _ = cmd.Process.Kill() })
	return q, nil
}

// longest is the most that a peer may run.
const longest = 3 * time.Minute

// end ends the process, if it still runs, and returns the CPU time, user and system, that
// the kernel has counted for it.
func (q *process) end(signal syscall.Signal) time.Duration {
	go q.discard()
	q.wait(signal)
	q.out.Close()
	return q.cmd.ProcessState.UserTime() + q.cmd.ProcessState.SystemTime()
}

// wait sends a signal, unless it is 0, and waits for the end. Somebody has to read the output.
func (q *process) wait(signal syscall.Signal) {
	if signal != 0 {
		_ = q.cmd.Process.Signal(signal)
	}
	stop := time.AfterFunc(time.Minute, func() { _ = q.cmd.Process.Kill() })
	defer stop.Stop()
	defer q.limit.Stop()
	_ = q.cmd.Wait()
}

func (q *process) discard() {
	buf := make([]byte, 1<<16)
	for {
		if n, err := unix.Read(int(q.out.Fd()), buf); n <= 0 && err != unix.EINTR {
			return
		}
	}
}

// read reads the output until n bytes came.
func (q *process) read(n int64, buf []byte) error {
	fd := int(q.out.Fd())
	for n > 0 {
		m, err := unix.Read(fd, buf)
		if m <= 0 && err != unix.EINTR {
			return fmt.Errorf("%s: its output ended %d bytes early (%w)", filepath.Base(q.cmd.Path), n, err)
		}
		n -= int64(max(m, 0))
	}
	return nil
}

// cpu is what the process has used so far, to the nanosecond.
func (q *process) cpu() (sum time.Duration) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", q.cmd.Process.Pid))
	for _, name := range tasks {
		b, _ := os.ReadFile(name)
		first, _, _ := strings.Cut(string(b), " ")
		ns, _ := strconv.ParseInt(first, 10, 64)
		sum += time.Duration(ns)
	}
	return sum
}

// memory is a line of smaps_rollup, such as Rss or Pss, or of status, such as VmHWM, the most
// that Rss was, in KiB. (The kernel's ru_maxrss counts what the process was before it
// became the program, too.)
func (q *process) memory(what string) int64 {
	for _, file := range []string{"smaps_rollup", "status"} {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", q.cmd.Process.Pid, file))
		for line := range bytes.Lines(b) {
			if rest, ok := bytes.CutPrefix(line, []byte(what+":")); ok {
				n, _ := strconv.ParseInt(strings.Fields(string(rest))[0], 10, 64)
				return n
			}
		}
	}
	return 0
}
