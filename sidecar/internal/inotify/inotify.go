// Package inotify gives tail the watcher that it hears changes by, and gives it back where others need it.
//
// The kernel counts instances of inotify by user on the whole node: 128 for each, by default
// (fs.inotify.max_user_instances), and who asks for one more gets EMFILE. The sidecar can do without, by polling;
// an application often cannot. So where the sidecar's user is the application's too, it keeps its
// instance only while some are left.
//
// How many are left the kernel tells nobody. It is found out by taking a few more for a moment, usually some 30 µs. An
// application that asks in that very moment could miss one only where few were left anyway.
package inotify

import (
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"

	"github.com/log-bridge/log-bridge/sidecar/contract"
)

// Manners say how to share instances with others of the user.
type Manners struct {
	// Reserve is how many instances stay free for others. 0 takes what there is.
	Reserve int
	// Keep is the mean time after which a holder finds out whether the reserve is still there, Retry that after which
	// one without finds out whether twice the reserve is. They vary by half, so that sidecars that start
	// together do not give way together.
	Keep, Retry time.Duration
}

// Usual are the manners of a sidecar on a node.
func Usual() Manners {
	m := Manners{Keep: time.Minute, Retry: 10 * time.Minute}
	if Shared() {
		m.Reserve = 8
	}
	return m
}

// Shared says whether others may have this process's instances counted with theirs: it does not run as the image's
// own user, or it runs in a user namespace, whose instances count for the user who made it, which on a node
// is root.
func Shared() bool {
	mapped, err := os.ReadFile("/proc/self/uid_map")
	return os.Getuid() != contract.User || err != nil || !slices.Equal(strings.Fields(string(mapped)), []string{"0", "0", "4294967295"})
}

// ErrReserve says that an instance could be had, and is left to others.
var ErrReserve = errors.New("left to the application")

// open makes a watcher, unless fewer than more further instances could be had then. Closing an instance may take the
// kernel a while, which the caller, at the start of a pod, is not kept waiting for.
func open(more int) (*fsnotify.Watcher, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	if err := spare(more); err != nil {
		go w.Close()
		return nil, err
	}
	return w, nil
}

// spare takes n instances for a moment.
func spare(n int) error {
	fds := make([]int, 0, n)
	defer func() {
		go func() {
			for _, fd := range fds {
				unix.Close(fd)
			}
		}()
	}()
	for range n {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
		if errors.Is(err, unix.EMFILE) {
			return ErrReserve
		}
		if err != nil {
			return err
		}
		fds = append(fds, fd)
	}
	return nil
}

// Source is where the watcher comes from. Use it from one goroutine.
type Source struct {
	// Changes hands over a new watcher, or nil where the one handed out before is to be closed. Err says
	// why there is none.
	Changes <-chan Change
	end     chan struct{}
}

// Change is a new watcher, or none and the reason.
type Change struct {
	Watcher *fsnotify.Watcher
	Err     error
}

// New makes a Source and the first watcher, if one can be had; the error says why not. Later ones come by Changes.
func New(m Manners) (*Source, Change) {
	changes := make(chan Change)
	s := &Source{Changes: changes, end: make(chan struct{})}
	w, err := open(m.Reserve)
	go s.run(m, w != nil, changes)
	return s, Change{w, err}
}

// Close ends the changes. The watcher is the caller's to close.
func (s *Source) Close() { close(s.end) }

// run finds out from time to time whether to hold an instance.
func (s *Source) run(m Manners, holds bool, changes chan<- Change) {
	for {
		wait := m.Retry
		if holds {
			wait = m.Keep
			if m.Reserve == 0 {
				return // nothing would make it give the instance back
			}
		}
		select {
		case <-s.end:
			return
		case <-time.After(wait/2 + rand.N(wait)):
		}
		var c Change
		if holds {
			if c.Err = spare(m.Reserve); !errors.Is(c.Err, ErrReserve) {
				continue
			}
		} else if c.Watcher, c.Err = open(2 * m.Reserve); c.Err != nil {
			continue
		}
		holds = c.Watcher != nil
		select {
		case <-s.end:
			if c.Watcher != nil {
				c.Watcher.Close()
			}
			return
		case changes <- c:
		}
	}
}
