package notify

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
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
	w, err := newWatcher(open)
	must(t, err)
	t.Cleanup(w.Close)
	return w
}

// take waits until path was reported.
func take(t *testing.T, w *Watcher, path string) (seen []string) {
	t.Helper()
	late := time.After(30 * time.Second)
	for !slices.Contains(seen, path) {
		select {
		case e := <-w.Events:
			w.Take(e, func(path string, _ bool) { seen = append(seen, path) })
		case err := <-w.Faults:
			t.Fatal(err)
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

// TestNames: a directory with two names is reported under both, and still under one when the other is gone.
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

// TestWrites: while writes are not reported, names are.
func TestWrites(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(dir+"/a", 0o755))
	touch(t, dir+"/a/x")
	w := watcher(t)
	must(t, w.Add(dir+"/a"))
	if !w.Writes(false) || !w.deaf {
		t.Fatal("writes are still reported")
	}
	touch(t, dir+"/a/x")
	touch(t, dir+"/a/y")
	if seen := take(t, w, dir+"/a/y"); slices.Contains(seen, dir+"/a/x") {
		t.Errorf("have %s, want no write", seen)
	}
	must(t, os.Remove(dir+"/a/y"))
	take(t, w, dir+"/a/y")
	if !w.Writes(true) {
		t.Fatal("the watch was lost")
	}
	touch(t, dir+"/a/x")
	take(t, w, dir+"/a/x")
}

// TestWritesOfALostDirectory: a directory whose writes cannot be reported again is no longer watched, and can be added
// again.
func TestWritesOfALostDirectory(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(dir+"/a/b", 0o755))
	touch(t, dir+"/a/b/x")
	w := watcher(t)
	must(t, w.Add(dir+"/a/b"))
	w.Writes(false)
	must(t, os.Rename(dir+"/a", dir+"/away"))
	if w.Writes(true) {
		t.Fatal("it is said to be watched")
	}
	must(t, os.Rename(dir+"/away", dir+"/a"))
	must(t, w.Add(dir+"/a/b"))
	touch(t, dir+"/a/b/x")
	take(t, w, dir+"/a/b/x")
}

// TestSwapped: a name that another directory has by now is reported for that one.
func TestSwapped(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(dir+"/a", 0o755))
	must(t, os.Mkdir(dir+"/b", 0o755))
	w := watcher(t)
	must(t, w.Add(dir))
	must(t, w.Add(dir+"/a"))
	must(t, w.Add(dir+"/b"))
	must(t, unix.Renameat2(unix.AT_FDCWD, dir+"/a", unix.AT_FDCWD, dir+"/b", unix.RENAME_EXCHANGE))
	// As a caller does at each look, until the watches of the old names have ended.
	for n := 0; ; n++ {
		must(t, w.Add(dir+"/a"))
		must(t, w.Add(dir+"/b"))
		x, y := fmt.Sprintf("%s/a/%d", dir, n), fmt.Sprintf("%s/b/%d", dir, n)
		touch(t, x)
		touch(t, y)
		last := fmt.Sprintf("%s/%d", dir, n)
		touch(t, last)
		if seen := take(t, w, last); slices.Contains(seen, x) && slices.Contains(seen, y) {
			break
		}
		if n == 1000 {
			t.Fatal("they are not watched under their new names")
		}
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
			case e := <-w.Events:
				w.Take(e, func(string, bool) {})
			case err := <-w.Faults:
				if !errors.Is(err, fsnotify.ErrEventOverflow) {
					t.Fatal(err)
				}
			default:
			}
		default:
			_ = w.Add(a)
		}
	}
	for name, of := range w.byName {
		if !slices.Contains(of.names, name) || w.byPath[of.path] != of || w.byInode[of.inode] != of {
			t.Errorf("%s is not found in every way: %+v", name, of)
		}
	}
	for _, path := range w.fs.WatchList() {
		if w.byPath[path] == nil {
			t.Errorf("fsnotify knows %s, which is forgotten here; given to it again, it could panic", path)
		}
	}
	must(t, w.Add(dir))
	touch(t, dir+"/end")
	take(t, w, dir+"/end")
}

// TestGuard: a defect of the library is an error.
func TestGuard(t *testing.T) {
	if err := guard(func() error { panic("a defect") }); err == nil {
		t.Error("it was taken for success")
	}
}

// TestLost: after a fault another watcher comes.
func TestLost(t *testing.T) {
	s, first := New(Manners{Keep: time.Millisecond, Retry: time.Hour}, open)
	defer s.Close()
	must(t, first.Err)
	first.Watcher.Close()
	s.Lost()
	select {
	case c := <-s.Changes:
		must(t, c.Err)
		defer c.Watcher.Close()
		must(t, c.Watcher.Add(t.TempDir()))
	case <-time.After(30 * time.Second):
		t.Fatal("none came")
	}
}
