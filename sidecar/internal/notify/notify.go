// Package notify reports changes in directories, with fsnotify (inotify), and shares the kernel's instances of it with
// others of the same user.
//
// In come directories, by the names that the caller has for them; out come the names of what changed in them. Events only
// save time: a caller that misses one finds the change at its next poll.
//
// An application may rename, replace and link its directories while they are watched, so none is watched by its path.
// The caller opens it, and fsnotify gets a path of the open descriptor (/proc/self/fd/N), which nobody can redirect.
// One directory may have several names: the kernel has one watch for it, and changes are reported under each name.
package notify

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// backlog is how many events wait in memory at most. The kernel keeps more.
const backlog = 512

// Watcher watches directories. It is for one goroutine.
type Watcher struct {
	// Events has what happened; give each to Take. Faults says that events were lost (fsnotify.ErrEventOverflow), or why
	// the watcher is of no more use.
	Events <-chan fsnotify.Event
	Faults <-chan error

	open func(dir string) (fd int, err error)
	fs   *fsnotify.Watcher
	fd   int  // of its inotify instance, -1 if it was not found
	deaf bool // to writes
	// The watches, found in three ways. byPath has every path that fsnotify knows, and perhaps some that it has
	// dropped. fsnotify 1.10.1 panics if a path that it knows comes to mean another directory that it watches, so
	// a path that is in byPath is never given to it again.
	byName  map[string]*watch
	byPath  map[string]*watch
	byInode map[inode]*watch
	turn    int // of the number for the next path
}

type watch struct {
	path  string // as fsnotify knows it
	inode inode
	names []string
}

type inode struct{ dev, ino uint64 }

// newWatcher makes a Watcher. open opens a directory by its name, without following links; O_PATH will do.
func newWatcher(open func(dir string) (fd int, err error)) (*Watcher, error) {
	before := instances()
	fs, err := fsnotify.NewBufferedWatcher(backlog)
	if err != nil {
		return nil, err
	}
	fd := -1
	if added := slices.DeleteFunc(instances(), func(fd int) bool { return slices.Contains(before, fd) }); len(added) == 1 {
		fd = added[0]
	}
	faults := make(chan error, 1)
	go hear(fs.Errors, faults)
	return &Watcher{
		Events: fs.Events, Faults: faults, open: open, fs: fs, fd: fd,
		byName: map[string]*watch{}, byPath: map[string]*watch{}, byInode: map[inode]*watch{},
	}, nil
}

// hear passes on what fsnotify says went wrong. It must be heard at any time: fsnotify 1.10.1 holds its lock while it says that
// a directory that moved was deleted before it could end its watch, and Add and Remove would wait for the lock.
// That one (EINVAL) is no fault.
func hear(from <-chan error, to chan<- error) {
	for err := range from {
		if errors.Is(err, unix.EINVAL) {
			continue
		}
		select {
		case to <- err:
		default: // one is enough
		}
	}
}

// Close ends the watching. It may take the kernel a while.
func (w *Watcher) Close() { _ = w.fs.Close() }

// Add watches a directory. If the name is that of another directory by now, that one is watched instead.
func (w *Watcher) Add(dir string) error {
	fd, err := w.open(dir)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	id := inode{st.Dev, st.Ino}
	if have := w.byName[dir]; have != nil {
		if have.inode == id {
			return nil
		}
		w.unname(have, dir)
	}
	watched := w.byInode[id]
	if watched == nil {
		path, err := w.register(fd)
		if err != nil {
			return err
		}
		watched = &watch{path: path, inode: id}
		w.byPath[path], w.byInode[id] = watched, watched
	}
	watched.names = append(watched.names, dir)
	w.byName[dir] = watched
	return nil
}

// firstPath is the lowest number for paths of descriptors. Those of open files are below it as a rule.
const firstPath = 128

// register gives fsnotify a path of a descriptor that it does not know, and returns it. The path means the directory only
// until this returns; the kernel's watch is for the directory itself.
func (w *Watcher) register(fd int) (string, error) {
	numbers := 2*len(w.byPath) + 256 // low ones: the kernel has a table up to the highest
	for {
		w.turn = (w.turn + 1) % numbers
		at, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, firstPath+w.turn)
		if err != nil {
			return "", err
		}
		path := fds + strconv.Itoa(at)
		if w.byPath[path] != nil {
			unix.Close(at)
			continue
		}
		err = guard(func() error { return w.fs.Add(path) })
		unix.Close(at)
		return path, err
	}
}

// fds is the directory of this process's descriptors.
const fds = "/proc/self/fd/"

// Remove ends the watching of a directory under this name.
func (w *Watcher) Remove(dir string) error {
	if have := w.byName[dir]; have != nil {
		w.unname(have, dir)
	}
	return nil
}

func (w *Watcher) unname(from *watch, dir string) {
	delete(w.byName, dir)
	from.names = slices.DeleteFunc(from.names, func(name string) bool { return name == dir })
	if len(from.names) == 0 {
		w.forget(from)
	}
}

// forget ends a watch.
func (w *Watcher) forget(ended *watch) {
	for _, name := range ended.names {
		delete(w.byName, name)
	}
	delete(w.byPath, ended.path)
	delete(w.byInode, ended.inode)
	// An error is that fsnotify has dropped it, with its directory.
	_ = guard(func() error { return w.fs.Remove(ended.path) })
}

// guard makes an error of a panic: no defect of a library may end the sidecar.
func guard(f func() error) (err error) {
	defer func() {
		if trouble := recover(); trouble != nil {
			err = fmt.Errorf("fsnotify: %v", trouble)
		}
	}()
	return f()
}

// Writes says whether writes are reported, as they are at first; everything else always is. A caller that reads all files
// soon anyway saves a wake-up for each. What was written before they are reported again is not reported. It returns false
// if a watch was lost: then all directories are to be added again.
func (w *Watcher) Writes(on bool) bool {
	if on != w.deaf || w.fd < 0 {
		return true
	}
	w.deaf = !on
	mask := uint32(names)
	if on {
		mask = unix.IN_MODIFY | unix.IN_MASK_ADD
	}
	whole := true
	for _, at := range w.byInode {
		if w.remask(at, mask) != nil && on {
			w.forget(at)
			whole = false
		}
	}
	return whole
}

// names is what fsnotify asks the kernel for, but for writes.
const names = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ATTRIB

// remask makes a watch report something else. fsnotify has no function for that, but the kernel takes it of the
// descriptor: one directory has one watch.
func (w *Watcher) remask(at *watch, mask uint32) error {
	fd, err := w.open(at.names[0])
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if at.inode != (inode{st.Dev, st.Ino}) {
		return unix.ESTALE
	}
	_, err = unix.InotifyAddWatch(w.fd, fds+strconv.Itoa(fd), mask)
	return err
}

// instances are the descriptors of this process's inotify instances.
func instances() (fds []int) {
	dir, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil
	}
	for _, e := range dir {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && to == "anon_inode:inotify" {
			if fd, err := strconv.Atoi(e.Name()); err == nil {
				fds = append(fds, fd)
			}
		}
	}
	return fds
}

// Take calls changed for an event of Events and for those that wait behind it: with the path of what changed, and whether
// something else happened to it than a write.
func (w *Watcher) Take(e fsnotify.Event, changed func(path string, other bool)) {
	for range backlog {
		w.report(e, changed)
		var ok bool
		select {
		case e, ok = <-w.Events:
			if !ok {
				return
			}
		default:
			return
		}
	}
	w.report(e, changed)
}

func (w *Watcher) report(e fsnotify.Event, changed func(path string, other bool)) {
	path, name, inside := e.Name, "", false
	if i := strings.IndexByte(strings.TrimPrefix(path, fds), '/'); i >= 0 {
		path, name, inside = path[:len(fds)+i], path[len(fds)+i:], true
	}
	of := w.byPath[path]
	if of == nil {
		return // of a watch that has ended
	}
	for _, dir := range of.names {
		changed(dir+name, e.Op&^fsnotify.Write != 0)
	}
	// The directory itself is gone, or has another name now. If one of its names is still right, that is added again.
	if !inside && e.Op&(fsnotify.Remove|fsnotify.Rename) != 0 {
		w.forget(of)
	}
}
