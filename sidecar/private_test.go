package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// dropCapabilities makes this process one without capabilities, as a container of log-bridge's has none.
func dropCapabilities() {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}

// spy tries to look into the process whose number is its argument, and prints a line for each way that is open.
func spy() {
	dropCapabilities()
	pid, err := strconv.Atoi(os.Args[1])
	if err != nil {
		fmt.Println(err)
		os.Exit(2)
	}
	proc := "/proc/" + os.Args[1] + "/"
	for _, name := range []string{"root", "cwd"} {
		if _, err := os.ReadDir(proc + name + "/"); err == nil {
			fmt.Println(name)
		}
	}
	for _, name := range []string{"environ", "maps", "mem", "io"} {
		if f, err := os.Open(proc + name); err == nil {
			if _, err := f.Read(make([]byte, 1)); err == nil || name == "mem" {
				fmt.Println(name)
			}
		}
	}
	for _, name := range []string{"exe", "fd/1", "ns/mnt"} {
		if _, err := os.Readlink(proc + name); err == nil {
			fmt.Println(name)
		}
	}
	if fd, err := unix.PidfdOpen(pid, 0); err == nil {
		if _, err := unix.PidfdGetfd(fd, 1, 0); err == nil {
			fmt.Println("pidfd_getfd")
		}
	}
	if err := unix.PtraceSeize(pid); err == nil {
		fmt.Println("ptrace")
	}
}

// idle is a process like any other.
func idle() {
	dropCapabilities()
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// TestNoOtherProcessInspectsIt: where containers share a process namespace, the application's processes have the sidecar's user. They
// may signal it, and that is all.
func TestNoOtherProcessInspectsIt(t *testing.T) {
	users := []int{os.Getuid()}
	if os.Getuid() == 0 {
		users = append(users, nobodyID)
	}
	for _, user := range users {
		t.Run(fmt.Sprint("user ", user), func(t *testing.T) {
			as := func(name string, args ...string) *exec.Cmd {
				cmd := exec.Command(name, args...)
				cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
				if user != os.Getuid() {
					cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(user), Gid: uint32(user)}
				}
				cmd.Dir = "/"
				return cmd
			}
			open := func(pid int) []string {
				out, err := as("spy", strconv.Itoa(pid)).CombinedOutput()
				if err != nil {
					t.Fatalf("spy: %v: %s", err, out)
				}
				return strings.Fields(string(out))
			}
			// What is seen of another process shows that the spy can see.
			other := as("idle")
			in, err := other.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := other.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := other.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				in.Close()
				_ = other.Wait()
			}()
			if _, err := out.Read(make([]byte, 5)); err != nil {
				t.Fatal(err)
			}
			if have := strings.Join(open(other.Process.Pid), " "); !strings.HasPrefix(have, "root cwd environ maps mem io exe fd/1 ns/mnt") {
				t.Fatalf("of an ordinary process the spy sees only %q", have)
			}

			dir := t.TempDir()
			for d := dir; d != filepath.Clean(os.TempDir()) && d != "/"; d = filepath.Dir(d) {
				if err := os.Chmod(d, 0o777); err != nil {
					t.Fatal(err)
				}
			}
			tail := as("log-bridge-without-capabilities", "tail", "--root", dir, "--seeded", "app:/logs", "app:/app.log")
			var words strings.Builder
			tail.Stderr = &words
			pipe, err := tail.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := tail.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = tail.Process.Kill()
				_ = tail.Wait()
			}()
			if out, err := exec.Command("log-bridge", "ready", "--state", filepath.Join(dir, ".log-bridge"), "--timeout", wait.String()).CombinedOutput(); err != nil && user == 0 {
				t.Fatalf("ready: %v: %s", err, out)
			}
			// It does its work, whose parts use /proc/self: a pipe that is opened once more, and the copy for seeding.
			if err := os.MkdirAll(filepath.Join(dir, "app"), 0o777); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "app/app.log"), []byte("one\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			line := make([]byte, 4)
			if _, err := io.ReadFull(pipe, line); err != nil || string(line) != "one\n" {
				t.Fatalf("have %q, %v; it says %s", line, err, &words)
			}
			if st, err := os.Stat(filepath.Join(dir, ".bin/log-bridge")); err != nil || st.Size() == 0 {
				t.Errorf("the copy for seeding: %v", err)
			}
			if open := open(tail.Process.Pid); len(open) > 0 {
				t.Errorf("a process of user %d looks into the sidecar by %q", user, open)
			}
		})
	}
}
