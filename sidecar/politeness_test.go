package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/sidecar/internal/notify"
)

// What TestApplicationGetsItsInstances plays with: so many sidecars of one user who has so many instances.
const (
	crowd   = 20
	limit   = 24
	reserve = 8
)

// politely is a sidecar with a short mind.
func politely() {
	manners = func() notify.Manners {
		return notify.Manners{Reserve: reserve, Keep: 200 * time.Millisecond, Retry: 400 * time.Millisecond}
	}
	main()
}

// TestApplicationGetsItsInstances: many sidecars and an application of one user, who has few instances of inotify. The application
// gets some at once, and in the end all of them; the sidecars poll meanwhile, say so, and go back to watching
// when it is over. All lines come.
func TestApplicationGetsItsInstances(t *testing.T) {
	if !canHideInotify() {
		t.Skip("user namespaces are not allowed here, so the limit cannot be lowered")
	}
	cmd := exec.Command("crowded-node", t.TempDir())
	id := func(host int) []syscall.SysProcIDMap {
		return []syscall.SysProcIDMap{{ContainerID: 0, HostID: host, Size: 1}}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: id(os.Getuid()), GidMappings: id(os.Getgid()), Pdeathsig: syscall.SIGKILL}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	} else {
		t.Logf("%s", out)
	}
}

// crowdedNode is the test, in a user namespace of its own.
func crowdedNode() {
	if err := crowded(os.Args[1]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func crowded(dir string) (err error) {
	if err := os.WriteFile("/proc/sys/user/max_inotify_instances", fmt.Append(nil, limit), 0); err != nil {
		return err
	}
	type sidecar struct {
		*exec.Cmd
		dir        string
		out, words bytes.Buffer
	}
	var all []*sidecar
	defer func() {
		for _, s := range all {
			_ = s.Process.Signal(syscall.SIGTERM)
		}
		want := ""
		for i := range written {
			want += fmt.Sprintln("line", i)
		}
		for i, s := range all {
			if e := s.Wait(); err == nil && e != nil {
				err = fmt.Errorf("sidecar %d: %w: %s", i, e, &s.words)
			}
			if err == nil && s.out.String() != want {
				err = fmt.Errorf("sidecar %d: have %q, want %q", i, &s.out, want)
			}
			fmt.Print("sidecar ", i, ":\n", &s.words)
		}
	}()
	for i := range crowd {
		s := &sidecar{dir: filepath.Join(dir, fmt.Sprint(i))}
		s.Cmd = exec.Command("log-bridge-politely", "tail", "--root", s.dir, "--dir", "app:/logs", "app:/logs/app.log")
		s.Stdout, s.Stderr = &s.out, &s.words
		s.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := s.Start(); err != nil {
			return err
		}
		all = append(all, s)
		if out, err := exec.Command("log-bridge", "ready", "--state", filepath.Join(s.dir, contract.StateDir)).CombinedOutput(); err != nil {
			return fmt.Errorf("ready: %w: %s", err, out)
		}
	}
	holders := func() (n int) {
		for _, s := range all {
			fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", s.Process.Pid))
			for _, fd := range fds {
				if to, _ := os.Readlink(fd); strings.Contains(to, "inotify") {
					n++
					break
				}
			}
		}
		return n
	}
	write := func() error {
		for _, s := range all {
			f, err := os.OpenFile(filepath.Join(s.dir, "app/logs/app.log"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
			if err != nil {
				return err
			}
			fmt.Fprintln(f, "line", written)
			f.Close()
		}
		written++
		return nil
	}
	if err := write(); err != nil {
		return err
	}
	before := holders()
	fmt.Println(before, "of", crowd, "sidecars have an instance of", limit)
	if before == 0 || before > limit-reserve {
		return fmt.Errorf("%d sidecars have an instance, want 1 to %d", before, limit-reserve)
	}
	// An application that needs some has them, although the sidecars were first. It is patient for as long as
	// they need to find out whether others are left, which takes some for a moment.
	var mine []int
	take := func(n int) error {
		return poll(func() (bool, error) {
			for len(mine) < n {
				fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
				if err == unix.EMFILE {
					return false, nil
				}
				if err != nil {
					return false, err
				}
				mine = append(mine, fd)
			}
			return true, nil
		})
	}
	for _, n := range []int{reserve, limit} {
		if err := take(n); err != nil {
			return fmt.Errorf("the application has %d instances, wants %d: %w", len(mine), n, err)
		}
		fmt.Println("the application has", len(mine), "and the sidecars", holders())
		if err := write(); err != nil {
			return err
		}
	}
	for _, fd := range mine {
		unix.Close(fd)
	}
	if err := poll(func() (bool, error) { return holders() > 0, nil }); err != nil {
		return fmt.Errorf("no sidecar has an instance again: %w", err)
	}
	return write()
}

// written counts the lines of each sidecar's application.
var written int

func TestWithoutEvents(t *testing.T) {
	for _, test := range []struct {
		err  error
		want string
	}{
		{unix.EMFILE, `^user \d+ has no inotify instances left on this node; polling files instead, .* fs\.inotify\.max_user_instances `},
		{notify.ErrReserve, `^the last inotify instances of user \d+ on this node are left to the application; .* fs\.inotify\.max_user_instances `},
		{unix.ENOSYS, `^cannot watch files for changes \(function not implemented\); polling them instead`},
	} {
		if have := withoutEvents(test.err); !regexp.MustCompile(test.want).MatchString(have) {
			t.Errorf("%v: have %s", test.err, have)
		}
	}
}

// The program recognizes the user of the image as its own.
func TestUserOfTheImage(t *testing.T) {
	text, err := os.ReadFile("../Dockerfile.sidecar")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("\nUSER %d:%d\n", contract.User, contract.User); !strings.Contains(string(text), want) {
		t.Errorf("Dockerfile.sidecar lacks %q", want)
	}
	if !strings.Contains(string(text), "--chmod=0555 /out/log-bridge "+contract.ReadableProgram+"\n") {
		t.Errorf("Dockerfile.sidecar does not make %s", contract.ReadableProgram)
	}
}
