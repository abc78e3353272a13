package notify

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(dir string) (int, error) {
	return unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
}

func watcher(t *testing.T) *Watcher {
	t.Helper()
	w, err := New(open)
	must(t, err)
	t.Cleanup(w.Close)
	return w
}

// take waits until path was told of.
func take(t *testing.T, w *Watcher, path string) (seen []string) {
	t.Helper()
	late := time.After(30 * time.Second)
	for !slices.Contains(seen, path) {
		select {
		case _, ok := <-w.Ready:
			if !ok {
				t.Fatalf("the watching is over: %v", w.Err())
			}
			w.Take(func(path string, _ bool) { seen = append(seen, path) }, func() { t.Error("lost") })
		case <-late:
			t.Fatalf("nothing was told of %s, but of %s", path, seen)
		}
	}
	return seen
}

func touch(t *testing.T, path string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte("x\n"), 0o644))
}

// TestNames: a directory with two names is told of under both, and goes on under one when the other goes.
func TestNames(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(dir+"/a", 0o755))
	w := watcher(t)
	must(t, w.Add(dir+"/a"))
	must(t, w.Add(dir+"/./a"))
	touch(t, dir+"/a/x")
	if seen := take(t, w, dir+"/a/x"); !slices.Contains(seen, dir+"/./a/x") {
		t.Errorf("have %s, want both names", seen)
	}
	must(t, w.Remove(dir+"/a"))
	touch(t, dir+"/a/y")
	if seen := take(t, w, dir+"/./a/y"); slices.Contains(seen, dir+"/a/y") {
		t.Errorf("have %s, want one name", seen)
	}
}

// TestSwapped: a name that another directory has by now is told of for that one.
func TestSwapped(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(dir+"/a", 0o755))
	must(t, os.Mkdir(dir+"/b", 0o755))
	w := watcher(t)
	must(t, w.Add(dir))
	must(t, w.Add(dir+"/a"))
	must(t, w.Add(dir+"/b"))
	must(t, unix.Renameat2(unix.AT_FDCWD, dir+"/a", unix.AT_FDCWD, dir+"/b", unix.RENAME_EXCHANGE))
	must(t, w.Add(dir+"/a"))
	must(t, w.Add(dir+"/b"))
	take(t, w, dir+"/b")
	must(t, w.Add(dir+"/a"))
	must(t, w.Add(dir+"/b"))
	touch(t, dir+"/a/x")
	touch(t, dir+"/b/y")
	seen := take(t, w, dir+"/b/y")
	if !slices.Contains(seen, dir+"/a/x") {
		t.Errorf("have %s, want a/x too", seen)
	}
	must(t, os.Symlink("a", dir+"/link"))
	if w.Add(dir+"/link") == nil {
		t.Error("a link was followed")
	}
}

// TestAnything: whatever happens to directories and their names, watching them fails at the most.
func TestAnything(t *testing.T) {
	dir := t.TempDir()
	w := watcher(t)
	name := func() string { return filepath.Join(dir, fmt.Sprint(rand.N(4))) }
	for range 20_000 {
		switch a, b := name(), name(); rand.N(8) {
		case 0:
			_ = os.Mkdir(a, 0o755)
		case 1:
			_ = os.Remove(a)
		case 2:
			_ = os.Rename(a, b)
		case 3:
			_ = unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
		case 4:
			_ = w.Remove(a)
		case 5:
			select {
			case <-w.Ready:
				w.Take(func(string, bool) {}, func() {})
			default:
			}
		default:
			_ = w.Add(a)
		}
	}
	for name, wd := range w.watch {
		if !slices.Contains(w.names[wd], name) {
			t.Errorf("%s has watch %d, which has the names %s", name, wd, w.names[wd])
		}
	}
	must(t, w.Add(dir))
	touch(t, dir+"/end")
	take(t, w, dir+"/end")
}

// TestFault: a fault ends the watching, and is told.
func TestFault(t *testing.T) {
	w := watcher(t)
	dir := t.TempDir()
	must(t, w.Add(dir))
	touch(t, dir+"/x")
	<-w.Ready
	null, err := os.Open(os.DevNull)
	must(t, err)
	defer null.Close()
	must(t, w.control(func(fd int) error { return unix.Dup3(int(null.Fd()), fd, unix.O_CLOEXEC) }))
	w.Take(func(string, bool) {}, func() {})
	select {
	case _, ok := <-w.Ready:
		if ok || w.Err() == nil {
			t.Errorf("there is something to take: %v; the fault is %v", ok, w.Err())
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it does not end")
	}
	if err := w.Add(dir); err == nil {
		t.Error("a directory was added after the end")
	}
}
