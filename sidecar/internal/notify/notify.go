// Package notify tells of changes in directories (inotify).
//
// In come directories, by the names that the caller has for them; out come the names of
// what changed in them. A directory is watched through a descriptor that the caller opens, so
// no link is followed. One directory may have several names: the kernel has one watch
// for it, and each name is told.
//
// This is our own rather than a library: a watch is known by its number and not by a name
// that an application may give to another directory, and a fault ends the watching and not the program.
package notify

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// Watcher watches directories. Add, Remove and Take are for one goroutine.
type Watcher struct {
	// Ready has a value when there is something to Take. It is closed when the watching is over: by Close, or
	// by a fault, which Err tells.
	Ready chan struct{}

	open  func(dir string) (fd int, err error)
	file  *os.File
	names map[int][]string // of the directories, by the number of the watch
	watch map[string]int   // the other way round
	taken chan struct{}    // what was ready was taken
	done  chan struct{}    // closed by Close
	err   error            // written before Ready is closed
	buf   []byte
}

// events are what is asked for.
const events = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE | unix.IN_MODIFY | unix.IN_ATTRIB |
	unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR

// New makes a Watcher. open opens a directory by its name; O_PATH will do.
func New(open func(dir string) (fd int, err error)) (*Watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	w := &Watcher{
		Ready: make(chan struct{}), open: open, file: os.NewFile(uintptr(fd), "inotify"),
		names: map[int][]string{}, watch: map[string]int{},
		taken: make(chan struct{}), done: make(chan struct{}), buf: make([]byte, 32<<10),
	}
	go w.wait()
	return w, nil
}

// wait tells, through Ready, whenever there are events, and waits until they are taken.
func (w *Watcher) wait() {
	defer close(w.Ready)
	conn, err := w.file.SyscallConn()
	for err == nil {
		var failed error
		err = conn.Read(func(fd uintptr) bool {
			var n int
			n, failed = unix.IoctlGetInt(int(fd), unix.TIOCINQ)
			return n > 0 || failed != nil
		})
		if err = errors.Join(err, failed); err != nil {
			break
		}
		select {
		case w.Ready <- struct{}{}:
		case <-w.done:
			return
		}
		select {
		case <-w.taken:
		case <-w.done:
			return
		}
	}
	w.err = err
}

// Err is why the watching is over, once Ready is closed.
func (w *Watcher) Err() error { return w.err }

// Close ends the watching.
func (w *Watcher) Close() {
	select {
	case <-w.done:
	default:
		close(w.done)
		w.file.Close()
	}
}

// control calls f with the descriptor, unless it is closed.
func (w *Watcher) control(f func(fd int) error) error {
	conn, err := w.file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := conn.Control(func(fd uintptr) { failed = f(int(fd)) }); err != nil {
		return err
	}
	return failed
}

// Add watches a directory. If the name is that of another directory by now, that is watched instead.
func (w *Watcher) Add(dir string) error {
	at, err := w.open(dir)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	var wd int
	err = w.control(func(fd int) (err error) {
		wd, err = unix.InotifyAddWatch(fd, "/proc/self/fd/"+strconv.Itoa(at), events)
		return err
	})
	if err != nil {
		return err
	}
	if old, ok := w.watch[dir]; ok {
		if old == wd {
			return nil
		}
		_ = w.Remove(dir)
	}
	w.watch[dir] = wd
	w.names[wd] = append(w.names[wd], dir)
	return nil
}

// Remove watches a directory no longer under this name.
func (w *Watcher) Remove(dir string) error {
	wd, ok := w.watch[dir]
	if !ok {
		return nil
	}
	delete(w.watch, dir)
	w.names[wd] = slices.DeleteFunc(w.names[wd], func(name string) bool { return name == dir })
	if len(w.names[wd]) > 0 {
		return nil
	}
	delete(w.names, wd)
	return w.control(func(fd int) error {
		_, err := unix.InotifyRmWatch(fd, uint32(wd))
		return err // it may have gone with its directory
	})
}

// forget forgets a watch that the kernel has ended, or that is for a directory that has moved.
func (w *Watcher) forget(wd int) {
	for _, name := range w.names[wd] {
		delete(w.watch, name)
	}
	delete(w.names, wd)
}

// takeMost is how many bytes of events Take reads at the most, for an application that makes events faster than
// they are taken.
const takeMost = 1 << 20

// Take calls changed for each event that there is: with the path of what changed, and whether something else
// happened to it than that it was written. lost is called if events were lost.
func (w *Watcher) Take(changed func(path string, other bool), lost func()) {
	for total := 0; total < takeMost; {
		n := 0
		err := w.control(func(fd int) (err error) {
			n, err = unix.Read(fd, w.buf)
			return err
		})
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			break // nothing more; a fault shows in wait
		}
		total += n
		w.tell(w.buf[:n], changed, lost)
	}
	select {
	case w.taken <- struct{}{}:
	case <-w.done:
	}
}

// tell goes over events: struct inotify_event of inotify(7).
func (w *Watcher) tell(b []byte, changed func(path string, other bool), lost func()) {
	for len(b) >= unix.SizeofInotifyEvent {
		wd, mask := int(int32(binary.NativeEndian.Uint32(b))), binary.NativeEndian.Uint32(b[4:])
		end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
		if end > len(b) {
			return
		}
		name := b[unix.SizeofInotifyEvent:end]
		b = b[end:]
		if i := bytes.IndexByte(name, 0); i >= 0 {
			name = name[:i]
		}
		if mask&unix.IN_Q_OVERFLOW != 0 {
			lost()
			continue
		}
		if mask&unix.IN_IGNORED == 0 {
			for _, dir := range w.names[wd] {
				if len(name) > 0 {
					dir += "/" + string(name)
				}
				changed(dir, mask&unix.IN_MODIFY == 0)
			}
		}
		switch {
		case mask&unix.IN_MOVE_SELF != 0:
			// Its names are wrong now. If it still has one, that is added again.
			if w.names[wd] != nil {
				_ = w.control(func(fd int) error {
					_, err := unix.InotifyRmWatch(fd, uint32(wd))
					return err
				})
			}
			w.forget(wd)
		case mask&(unix.IN_IGNORED|unix.IN_DELETE_SELF|unix.IN_UNMOUNT) != 0:
			w.forget(wd)
		}
	}
}
