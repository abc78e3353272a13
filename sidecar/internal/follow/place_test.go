package follow_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMain gives the tests mounts of their own, which end with them however they end.
func TestMain(m *testing.M) {
	const inside = "LOG_BRIDGE_TEST_MOUNTS"
	switch {
	case os.Getuid() != 0:
	case os.Getenv(inside) != "":
		must(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	default:
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Args[0] = os.Args[0]
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
		runtime.LockOSThread() // Pdeathsig is about the thread
		err := cmd.Run()
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			panic(err)
		}
		os.Exit(cmd.ProcessState.ExitCode()) // -1, for a signal, is a failure too
	}
	os.Exit(m.Run())
}

// place is a file system to play on.
type place struct {
	name string
	make func(t *testing.T, dir string) string // makes it below dir, says where
}

// places are the file systems that emptyDirs are made on. The first three need nothing but
// root.
var places = []place{
	{"disk", func(t *testing.T, dir string) string { return open(dir) }},
	{"tmpfs", func(t *testing.T, dir string) string { return tmpfs(t, filepath.Join(dir, "tmpfs"), "1g") }},
	{"overlay", func(t *testing.T, dir string) string {
		at := filepath.Join(dir, "overlay")
		for _, d := range []string{"lower", "upper", "work"} {
			must(os.Mkdir(filepath.Join(dir, d), 0o755))
		}
		return mount(t, "overlay", at, "overlay", fmt.Sprintf("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", dir, dir, dir))
	}},
	{"xfs", func(t *testing.T, dir string) string { return image(t, dir, "xfs", "-q") }},
	{"btrfs", func(t *testing.T, dir string) string { return image(t, dir, "btrfs", "-q") }},
}

// open lets other users reach a temporary directory.
func open(dir string) string {
	for d := dir; d != filepath.Clean(os.TempDir()) && d != "/"; d = filepath.Dir(d) {
		must(os.Chmod(d, 0o755))
	}
	return dir
}

func tmpfs(t *testing.T, at, size string) string {
	return mount(t, "tmpfs", at, "tmpfs", "size="+size)
}

func mount(t *testing.T, source, at, kind, options string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can mount a file system")
	}
	must(os.Mkdir(at, 0o755))
	if err := unix.Mount(source, at, kind, 0, options); err != nil {
		t.Fatalf("mount %s: %v", kind, err)
	}
	t.Cleanup(func() { must(unix.Unmount(at, unix.MNT_DETACH)) })
	open(filepath.Dir(at))
	return at
}

// image mounts a file system made in a file.
func image(t *testing.T, dir, kind string, args ...string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can mount a file system")
	}
	file, at := filepath.Join(dir, "image"), filepath.Join(dir, kind)
	must(os.WriteFile(file, nil, 0o600))
	must(os.Truncate(file, 2<<30))
	must(os.Mkdir(at, 0o755))
	for _, cmd := range []*exec.Cmd{
		exec.Command("mkfs."+kind, append(args, file)...),
		exec.Command("mount", "-o", "loop", file, at),
	} {
		if errors.Is(cmd.Err, exec.ErrNotFound) {
			t.Skipf("%v; apt-get install xfsprogs btrfs-progs", cmd.Err)
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
	}
	t.Cleanup(func() { must(unix.Unmount(at, unix.MNT_DETACH)) })
	return open(at)
}
