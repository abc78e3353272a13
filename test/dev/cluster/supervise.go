package main

import (
	"bytes"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// A supervisor starts programs, starts them again when they end, and collects every process of the node that has ended,
// as its first process must.
type supervisor struct {
	mu    sync.Mutex
	ended map[int]chan syscall.WaitStatus // of programs that run, by process id
	ends  map[string]int                  // how often a component has ended
}

func newSupervisor() *supervisor {
	s := &supervisor{ended: map[int]chan syscall.WaitStatus{}, ends: map[string]int{}}
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	go func() {
		for range children {
			s.collect()
		}
	}()
	return s
}

func (s *supervisor) collect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if ended := s.ended[pid]; ended != nil {
			delete(s.ended, pid)
			ended <- status
		}
	}
}

// start runs a program with the input and its output appended to a log; the channel gets its end.
func (s *supervisor) start(input, logName string, args ...string) (<-chan syscall.WaitStatus, error) {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return nil, err
	}
	in, err := os.Open(input)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	out, err := os.OpenFile(logPath(logName), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	// Not package os/exec: it would wait for the process as well.
	s.mu.Lock()
	defer s.mu.Unlock()
	pid, err := syscall.ForkExec(path, args, &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{in.Fd(), out.Fd(), out.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	ended := make(chan syscall.WaitStatus, 1)
	s.ended[pid] = ended
	return ended, nil
}

// run keeps a component running.
func (s *supervisor) run(c component) {
	go func() {
		for {
			how := ""
			ended, err := s.start(os.DevNull, c.name, append([]string{c.name}, c.args...)...)
			if err != nil {
				how = err.Error()
			} else {
				status := <-ended
				how = fmt.Sprintf("%s ended, exit status %d, signal %d", c.name, status.ExitStatus(), status.Signal())
			}
			log.Printf("%s; restarting it", how)
			s.mu.Lock()
			s.ends[c.name]++
			s.mu.Unlock()
			time.Sleep(time.Second)
		}
	}()
}

// importImage gives containerd an image.
func (s *supervisor) importImage(archive string) error {
	ended, err := s.start(archive, "import", "ctr", "--namespace=k8s.io", "images", "import", "-")
	if err != nil {
		return fmt.Errorf("import an image: %w", err)
	}
	if status := <-ended; status != 0 {
		return fmt.Errorf("import an image: ctr failed:\n%s", tail("import"))
	}
	return nil
}

// await polls a check until it holds. It gives up when the component to blame keeps ending, or after three minutes.
func (s *supervisor) await(c check) error {
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		err := c.try()
		if err == nil {
			return nil
		}
		s.mu.Lock()
		ends := s.ends[c.blame]
		s.mu.Unlock()
		if ends > 4 {
			return fmt.Errorf("%s ended %d times; the end of its log:\n%s", c.blame, ends, tail(c.blame))
		}
		if time.Now().After(end) {
			return fmt.Errorf("timed out after three minutes waiting until %s: %w; the end of the log of %s:\n%s", c.what, err, c.blame, tail(c.blame))
		}
	}
}

func logPath(name string) string { return filepath.Join(logDir, name+".log") }

// tail returns the last lines of a log.
func tail(name string) string {
	data, err := os.ReadFile(logPath(name))
	if err != nil {
		return err.Error()
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-15):], nil))
}
