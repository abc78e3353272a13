package tree

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"golang.org/x/sys/unix"
)

// grow makes files in a new directory: "path" (its content is its path), "path/" a directory,
// "path -> target" a link, "path |" a FIFO.
func grow(t *testing.T, things ...string) (root string) {
	t.Helper()
	root = t.TempDir()
	for _, thing := range things {
		name, target, isLink := strings.Cut(thing, " -> ")
		name, isFIFO := strings.CutSuffix(name, " |")
		real := filepath.Join(root, name)
		var err error
		switch {
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(real, 0o755)
		default:
			err = os.MkdirAll(filepath.Dir(real), 0o755)
			switch {
			case isLink:
				err = errors.Join(err, os.Symlink(strings.ReplaceAll(target, "ROOT", root), real))
			case isFIFO:
				err = errors.Join(err, unix.Mkfifo(real, 0o644))
			default:
				err = errors.Join(err, os.WriteFile(real, []byte(name), 0o644))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// read is what a node's descriptor holds.
func read(fd int) string {
	defer unix.Close(fd)
	var b [200]byte
	n, err := unix.Read(fd, b[:])
	return string(b[:max(n, 0)]) + fmt.Sprint(err)[:0]
}

func TestResolve(t *testing.T) {
	root := grow(t,
		"app/logs/a.log", "app/data/real/x.log", "web/logs/secret", "outside",
		"app/logs/absolute.log -> /data/real/x.log", "app/logs/relative.log -> ../data/real/x.log",
		"app/logs/chain.log -> absolute.log", "app/logs/dir -> /data/real", "app/logs/dots.log -> ../../../../data/real/x.log",
		"app/logs/dot.log -> ./././a.log", "app/logs/up.log -> ../logs/../logs/a.log",
		"app/logs/loop -> loop", "app/logs/a-loop -> b-loop", "app/logs/b-loop -> a-loop",
		"app/logs/proc -> /proc/self/environ", "app/logs/other -> /../web/logs/secret", "app/logs/out -> ../../outside",
		"app/logs/host -> ROOT/outside", "app/logs/dead -> nothing", "app/logs/stdout -> /dev/stdout",
		"app/logs/fifo |", "app/logs/empty/",
		"volume/v.log", "volume/sub/s.log", "app/mnt/hidden.log", "app/logs/to-volume -> /mnt/v.log", "volume/back.log -> /logs/a.log",
	)
	tr := New("app", contract.Config{
		Roots: []string{root},
		Views: []contract.View{{Place: contract.Place{Container: "app", Path: "/mnt"}, Dir: filepath.Join(root, "volume")},
			{Place: contract.Place{Container: "app", Path: "/deep/down"}, Dir: filepath.Join(root, "volume/sub")}},
	})
	for _, test := range []struct{ path, want string }{
		{"/logs/a.log", "app/logs/a.log"},
		{"/logs/absolute.log", "app/data/real/x.log"},
		{"/logs/relative.log", "app/data/real/x.log"},
		{"/logs/chain.log", "app/data/real/x.log"},
		{"/logs/dir/x.log", "app/data/real/x.log"},
		{"/logs/dots.log", "app/data/real/x.log"},
		{"/logs/dot.log", "app/logs/a.log"},
		{"/logs/up.log", "app/logs/a.log"},
		{"/mnt/v.log", "volume/v.log"},
		{"/mnt/sub/s.log", "volume/sub/s.log"},
		{"/deep/down/s.log", "volume/sub/s.log"},
		{"/logs/to-volume", "volume/v.log"},
		{"/mnt/back.log", "app/logs/a.log"},
		{"/mnt/hidden.log", "no such file or directory"}, // the volume is mounted over it
		{"/logs/none", "no such file or directory"},
		{"/logs/a.log/x", "not a directory"},
		{"/logs/loop", "too many levels of symbolic links"},
		{"/logs/a-loop", "too many levels of symbolic links"},
		{"/logs/proc", "/logs/proc is a link to /proc/self/environ, which is not in a volume that log-bridge shares; add that file to log-bridge.dev/files"},
		{"/logs/other", "/logs/other is a link to /web/logs/secret, which is not in a volume that log-bridge shares; add that file to log-bridge.dev/files"},
		{"/logs/out", "/logs/out is a link to /outside, which is not in a volume that log-bridge shares; add that file to log-bridge.dev/files"},
		{"/logs/host", "is a link to " + root + "/outside, which is not in a volume"},
		{"/logs/dead", "/logs/dead is a link to /logs/nothing, which is not in a volume that log-bridge shares; add that file to log-bridge.dev/files"},
		{"/logs/stdout", "/logs/stdout is a link to /dev/stdout, the application's own output, which kubectl logs already shows"},
	} {
		n, err := tr.Resolve(test.path)
		if err != nil {
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: have %v, want %s", test.path, err, test.want)
			}
			continue
		}
		have, _ := filepath.Rel(root, n.Real)
		if have != test.want || n.Path != test.path {
			t.Errorf("%s: have %s (%s), want %s", test.path, have, n.Path, test.want)
		}
		fd, _, err := n.Open()
		if err != nil {
			t.Errorf("%s: %v", test.path, err)
			continue
		}
		if held := read(fd); held != test.want {
			t.Errorf("%s: opened %s, want %s", test.path, held, test.want)
		}
	}
	for path, kind := range map[string]string{"/logs/fifo": "a FIFO", "/logs/empty": "a directory", "/logs/a.log": "a file", "/": "a directory", "/deep": "a directory"} {
		n, err := tr.Resolve(path)
		if err != nil || n.Kind() != kind {
			t.Errorf("%s: have %s, %v, want %s", path, n.Kind(), err, kind)
		}
		if n.IsRegular() {
			continue
		}
		if _, _, err := n.Open(); err == nil || !strings.Contains(err.Error(), kind) {
			t.Errorf("%s was opened, or %v", path, err)
		}
	}
}

func TestGlob(t *testing.T) {
	root := grow(t,
		"app/top.log", "app/logs/a.log", "app/logs/b.log", "app/logs/c.txt", "app/logs/.hidden.log", "app/logs/[x].log", "app/logs/a.log.1", "app/logs/a.log.gz",
		"app/logs/deep/a.log", "app/logs/deep/down/a.log", "app/logs/.git/a.log", "app/logs/folder.log/", "app/logs/fifo.log |",
		"app/real/r.log", "app/logs/link -> /real", "app/logs/out.log -> /etc/passwd",
		"volume/v.log", "volume/sub/s.log",
	)
	tr := New("app", contract.Config{
		Roots: []string{root},
		Views: []contract.View{{Place: contract.Place{Container: "app", Path: "/mnt/vol"}, Dir: filepath.Join(root, "volume")}},
	})
	linked := []string{"/logs/**", "/logs/*/a.log", "/logs/link/*.log", "/logs/l*/r.log", "/logs/link/none.log"}
	for _, test := range []struct{ pattern, want, dirs string }{
		{"/logs/a.log", "/logs/a.log", "app/logs"},
		{"/logs/*.log", "/logs/[x].log /logs/a.log /logs/b.log /logs/fifo.log /logs/folder.log", "app/logs"},
		{"/logs/?.log", "/logs/a.log /logs/b.log", "app/logs"},
		{"/logs/[ab].log", "/logs/a.log /logs/b.log", "app/logs"},
		{"/logs/[!a].log", "/logs/b.log", "app/logs"},
		{"/logs/[^a].log", "/logs/b.log", "app/logs"},
		{"/logs/[[]x].log", "/logs/[x].log", "app/logs"},
		{"/logs/a.log*", "/logs/a.log /logs/a.log.1", "app/logs"},
		{"/logs/a.log.gz", "/logs/a.log.gz", "app/logs"}, // named by the user
		{"/logs/.*.log", "/logs/.hidden.log", "app/logs"},
		{"/*/a.log", "/logs/a.log", "app"},
		{"/*.log", "/top.log", "app"},
		{"/**/a.log", "/logs/a.log /logs/deep/a.log /logs/deep/down/a.log", "app app/logs app/logs/deep app/logs/deep/down app/logs/folder.log app/real volume volume/sub"},
		{"/logs/**", "/logs/[x].log /logs/a.log /logs/a.log.1 /logs/b.log /logs/c.txt /logs/deep/a.log /logs/deep/down/a.log /logs/fifo.log /logs/link", "app/logs app/logs/deep app/logs/deep/down app/logs/folder.log"},
		{"/logs/**/down/*.log", "/logs/deep/down/a.log", ""},
		{"/logs/*/a.log", "/logs/deep/a.log", ""},
		{"/logs/link/*.log", "/logs/link/r.log", "app/real"},
		{"/logs/l*/r.log", "/logs/link/r.log", ""},
		{"/mnt/vol/*.log", "/mnt/vol/v.log", "volume"},
		{"/mnt/**/*.log", "/mnt/vol/sub/s.log /mnt/vol/v.log", ""},
		{"/m*/vol/v.log", "/mnt/vol/v.log", ""},
		{"/none/there/*.log", "", "app"},
		{"/logs/none/x.log", "", "app/logs"},
		{"/logs/link/none.log", "", "app/real"},
		{"/mnt/vol/none/x.log", "", "volume"},
	} {
		var have, dirs []string
		found := tr.Glob(test.pattern, func(n Node) { have = append(have, n.Path) }, func(error) {})
		for _, d := range found.Dirs {
			d, _ := filepath.Rel(root, d.Real)
			dirs = append(dirs, d)
		}
		slices.Sort(have)
		slices.Sort(dirs)
		if strings.Join(have, " ") != test.want {
			t.Errorf("%s:\nhave %s\nwant %s", test.pattern, strings.Join(have, " "), test.want)
		}
		if linked := slices.Contains(linked, test.pattern); found.Linked != linked {
			t.Errorf("%s: a link is on the way: have %v, want %v", test.pattern, found.Linked, linked)
		}
		if test.dirs != "" {
			// A change in each of these may change the result.
			for d := range strings.SplitSeq(test.dirs, " ") {
				if !slices.Contains(dirs, d) {
					t.Errorf("%s: watched are %s, want %s", test.pattern, dirs, test.dirs)
					break
				}
			}
		}
	}
	var faults []error
	tr.Glob("/logs/*.log", func(Node) {}, func(err error) { faults = append(faults, err) })
	if len(faults) != 1 || !strings.Contains(faults[0].Error(), "/logs/out.log is a link to /etc/passwd") {
		t.Errorf("errors: have %v, want the link out", faults)
	}
}

// TestTwoRoots: with several roots a name may be found in each.
func TestTwoRoots(t *testing.T) {
	one, two := grow(t, "app/logs/a.log"), grow(t, "app/logs/a.log", "app/logs/b.log")
	tr := New("app", contract.Config{Roots: []string{one, two}})
	for path, want := range map[string]string{"/logs/a.log": one, "/logs/b.log": two} {
		n, err := tr.Resolve(path)
		if err != nil || !strings.HasPrefix(n.Real, want+"/") {
			t.Errorf("%s: have %s, %v, want it in %s", path, n.Real, err, want)
		}
	}
	n := 0
	if tr.Glob("/logs/*.log", func(Node) { n++ }, func(error) {}); n != 2 {
		t.Errorf("have %d files, want 2", n)
	}
}

// TestWatchesWhatIsMissing: while a file or a directory is missing, the directory whose change brings it is
// watched, in whichever volume that is.
func TestWatchesWhatIsMissing(t *testing.T) {
	root := grow(t, "one/logs/", "two/")
	tr := New("app", contract.Config{Views: []contract.View{
		{Place: contract.Place{Container: "app", Path: "/srv/app.log"}, Dir: root + "/one/app.log"},
		{Place: contract.Place{Container: "app", Path: "/srv/deep/b.log"}, Dir: root + "/one/none/of/these/b.log"},
		{Place: contract.Place{Container: "app", Path: "/data"}, Dir: root + "/two/data"},
		{Place: contract.Place{Container: "app", Path: "/logs"}, Dir: root + "/one/logs"},
	}})
	for pattern, want := range map[string]string{
		"/srv/app.log":      "/one",
		"/srv/*.log":        "/one",
		"/srv/deep/b.log":   "/one",
		"/data/app.log":     "/two",
		"/data/**/*.log":    "/two",
		"/logs/app.log":     "/one/logs",
		"/logs/new/app.log": "/one/logs",
	} {
		found := tr.Glob(pattern, func(n Node) { t.Errorf("%s: found %s", pattern, n.Path) }, func(err error) { t.Errorf("%s: %v", pattern, err) })
		if dirs := slices.Collect(maps.Keys(found.Dirs)); !slices.Equal(dirs, []string{root + want}) {
			t.Errorf("%s: watches %s, want %s", pattern, dirs, root+want)
		}
	}
}

// TestF14: what was a file when it was looked at, and is something else when it is opened, is
// refused, and nothing blocks.
func TestF14_swapped(t *testing.T) {
	root := grow(t, "app/logs/a.log", "app/logs/sub/b.log", "secret/b.log", "secret/a.log")
	tr := New("app", contract.Config{Roots: []string{root}})
	logs := filepath.Join(root, "app/logs")
	swaps := []struct {
		what, path string
		swap       func() error
		want       error
	}{
		{"a link out", "/logs/a.log", func() error {
			return errors.Join(os.Remove(logs+"/a.log"), os.Symlink(root+"/secret/a.log", logs+"/a.log"))
		}, unix.ELOOP},
		{"a link within", "/logs/a.log", func() error {
			return errors.Join(os.Remove(logs+"/a.log"), os.Symlink("sub/b.log", logs+"/a.log"))
		}, unix.ELOOP},
		{"a directory that became a link", "/logs/sub/b.log", func() error {
			return errors.Join(os.Rename(logs+"/sub", logs+"/old"), os.Symlink(root+"/secret", logs+"/sub"))
		}, unix.ELOOP},
		{"gone", "/logs/a.log", func() error { return os.Remove(logs + "/a.log") }, unix.ENOENT},
		{"a FIFO", "/logs/a.log", func() error {
			return errors.Join(os.Remove(logs+"/a.log"), unix.Mkfifo(logs+"/a.log", 0o644))
		}, nil},
		{"a directory", "/logs/a.log", func() error {
			return errors.Join(os.Remove(logs+"/a.log"), os.Mkdir(logs+"/a.log", 0o755))
		}, nil},
	}
	for _, s := range swaps {
		must(t, os.RemoveAll(logs))
		must(t, os.MkdirAll(logs+"/sub", 0o755))
		must(t, os.WriteFile(logs+"/a.log", nil, 0o644))
		must(t, os.WriteFile(logs+"/sub/b.log", nil, 0o644))
		n, err := tr.Resolve(s.path)
		must(t, err)
		must(t, s.swap())
		inTime(t, func() {
			fd, _, err := n.Open()
			if err == nil {
				t.Errorf("%s: opened %q", s.what, read(fd))
			} else if s.want != nil && !errors.Is(err, s.want) && !errors.Is(err, unix.ENOTDIR) {
				t.Errorf("%s: have %v, want %v", s.what, err, s.want)
			}
		})
	}
}

// TestF14: the directory that held a node is reached without a link, and one that is open stays the one it
// was, whatever happens to its name.
func TestF14_directorySwapped(t *testing.T) {
	root := grow(t, "app/logs/sub/a.log", "secret/a.log", "secret/b.log")
	tr := New("app", contract.Config{Roots: []string{root}})
	n, err := tr.Resolve("/logs/sub/a.log")
	must(t, err)
	d, err := n.Parent().OpenDir()
	must(t, err)
	defer d.Close()
	logs := filepath.Join(root, "app/logs")
	must(t, os.Rename(logs+"/sub", logs+"/old"))
	must(t, os.Symlink(root+"/secret", logs+"/sub"))
	var names []string
	must(t, d.Each(func(name string, _ Kind) { names = append(names, name) }))
	if len(names) != 1 || names[0] != "a.log" {
		t.Errorf("the open directory holds %s, want a.log", names)
	}
	if was, err := d.Lookup("a.log"); err != nil || was.Ino != n.Ino {
		t.Errorf("looked up: have %d, %v, want %d", was.Ino, err, n.Ino)
	}
	if child, err := d.Lookup("a.log"); err == nil {
		if fd, _, err := child.Open(); err == nil {
			t.Errorf("opened %q by the name of a link", read(fd))
		}
	}
	if d, err := n.Parent().OpenDir(); err == nil {
		t.Error("a link was followed to list a directory")
		d.Close()
	}
	if _, err := tr.Resolve("/logs/sub/b.log"); err == nil {
		t.Error("a link out was followed")
	}
	found := tr.Glob("/logs/**/*.log", func(n Node) {
		if !strings.HasPrefix(n.Real, logs+"/old/") {
			t.Errorf("found %s", n.Real)
		}
	}, func(error) {})
	for dir := range found.Dirs {
		if !strings.HasPrefix(dir, logs) {
			t.Errorf("watched is %s", dir)
		}
	}
}

// What is opened tells what it is: another file may have got the name since the node was found.
func TestOpenedIsNotWhatWasFound(t *testing.T) {
	root := grow(t, "app/a.log")
	n, err := New("app", contract.Config{Roots: []string{root}}).Resolve("/a.log")
	must(t, err)
	must(t, os.Rename(root+"/app/a.log", root+"/app/a.log.1"))
	must(t, os.WriteFile(root+"/app/a.log", []byte("new"), 0o644))
	fd, opened, err := n.Open()
	must(t, err)
	defer unix.Close(fd)
	var st unix.Stat_t
	must(t, unix.Fstat(fd, &st))
	if opened.Ino != st.Ino || opened.Ino == n.Ino || opened.Size != 3 {
		t.Errorf("have %d of %d bytes, want %d; found was %d", opened.Ino, opened.Size, st.Ino, n.Ino)
	}
}

// TestDirectoryOfAVolume: the way to a directory of a volume does not leave the volume, though links within it are
// followed, as the kubelet does.
func TestDirectoryOfAVolume(t *testing.T) {
	root := grow(t, "volume/real/a.log", "volume/within -> real", "volume/out -> ../other", "volume/far -> ROOT/other", "other/a.log")
	for name, want := range map[string]bool{"real": true, "within": true, "out": false, "far": false} {
		v := &view{prefix: "/", dir: filepath.Join(root, "volume", name), volume: filepath.Join(root, "volume")}
		fd, err := v.open("a.log", unix.O_RDONLY)
		if err == nil {
			unix.Close(fd)
		}
		if (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if v := newView("/", contract.VolumesRoot+"/data/a/b"); v.volume != contract.VolumesRoot+"/data" {
		t.Errorf("the volume is %q", v.volume)
	}
	if v := newView("/", contract.VolumesRoot+"/data"); v.volume != "" {
		t.Errorf("the volume is %q", v.volume)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// inTime ends a test that hangs.
func inTime(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("it blocks")
	}
}

// TestWithoutOpenat2: an old kernel lacks openat2(2), and some seccomp profiles answer EPERM:
// the same files are opened, the same links refused.
func TestWithoutOpenat2(t *testing.T) {
	for _, answer := range []unix.Errno{unix.ENOSYS, unix.EPERM} {
		t.Run(answer.Error(), func(t *testing.T) {
			done := make(chan error, 1)
			go func() {
				runtime.LockOSThread() // never unlocked: the thread ends with its filter
				if err := forbid(unix.SYS_OPENAT2, answer); err != nil {
					done <- err
					return
				}
				var how unix.OpenHow
				if _, err := unix.Openat2(unix.AT_FDCWD, "/", &how); err != answer {
					done <- fmt.Errorf("openat2 answers %w, want %w", err, answer)
					return
				}
				done <- nil
				defer close(done)
				TestResolve(t)
				TestGlob(t)
			}()
			if err := <-done; err != nil {
				t.Skipf("a system call cannot be taken away here: %v", err)
			}
			<-done
		})
	}
}

// forbid makes a system call of this thread fail.
func forbid(call uint32, answer unix.Errno) error {
	const (
		load  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		ret   = unix.BPF_RET | unix.BPF_K
		// of linux/seccomp.h
		modeFilter = 2
		errno      = 0x00050000
		allow      = 0x7fff0000
	)
	filter := []unix.SockFilter{
		{Code: load, K: 0}, // the number of the call
		{Code: equal, K: call, Jf: 1},
		{Code: ret, K: errno | uint32(answer)},
		{Code: ret, K: allow},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return unix.Prctl(unix.PR_SET_SECCOMP, modeFilter, uintptr(unsafe.Pointer(&prog)), 0, 0)
}

// TestUnreadableDirectory: what may not be listed is an error beside what is found.
func TestUnreadableDirectory(t *testing.T) {
	if os.Getuid() == 0 {
		// Root may list everything: as another user on a thread of its own.
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread()
			root := grow(t, "app/logs/a.log", "app/shut/b.log")
			for d := root; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
				must(t, os.Chmod(d, 0o755))
			}
			must(t, os.Chmod(filepath.Join(root, "app/shut"), 0o700))
			must(t, unix.Setfsuid(65534))
			unreadable(t, root)
		}()
		<-done
		return
	}
	root := grow(t, "app/logs/a.log", "app/shut/b.log")
	must(t, os.Chmod(filepath.Join(root, "app/shut"), 0))
	t.Cleanup(func() { os.Chmod(filepath.Join(root, "app/shut"), 0o700) })
	unreadable(t, root)
}

func unreadable(t *testing.T, root string) {
	n := 0
	var faults []error
	New("app", contract.Config{Roots: []string{root}}).Glob("/**/*.log", func(Node) { n++ }, func(err error) { faults = append(faults, err) })
	if n != 1 || len(faults) == 0 || !errors.Is(faults[0], os.ErrPermission) {
		t.Errorf("have %d files and %v, want one and a refusal", n, faults)
	}
}
