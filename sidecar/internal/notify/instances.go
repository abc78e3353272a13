package notify

import (
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/log-bridge/log-bridge/sidecar/contract"
)

// Manners say how to share instances with others of the user.
//
// The kernel counts instances of inotify by user on the whole node: 128 for each, by default
// (fs.inotify.max_user_instances), and a process that asks for one more gets EMFILE. The sidecar can do without, by polling;
// an application often cannot. So where the sidecar's user is the application's too, it keeps its
// instance only while some are left.
//
// The kernel does not say how many are left. The sidecar finds out by taking a few more for a moment, some 20 µs. An
// application that asks in that very moment could miss one only where fewer than the reserve were left anyway.
type Manners struct {
	// Reserve is how many instances stay free for others. 0 takes what there is.
	Reserve int
	// Keep is the mean time after which a holder finds out whether the reserve is still there, Retry that after which
	// one without finds out whether twice the reserve is. After a fault it is Keep. They vary by half, so that sidecars that start
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

// sparing makes a watcher, unless fewer than more further instances could be had then. Closing an instance may take the
// kernel a while, which the caller, at the start of a pod, is not kept waiting for.
func sparing(more int, open func(dir string) (fd int, err error)) (*Watcher, error) {
	w, err := newWatcher(open)
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
	open    func(dir string) (fd int, err error)
	lost    chan struct{}
	end     chan struct{}
}

// Change is a new watcher, or none and the reason.
type Change struct {
	Watcher *Watcher
	Err     error
}

// New makes a Source and the first watcher, if one can be had; the error says why not. Later ones come by Changes. open
// opens a directory that the watcher is given by name, without following links; O_PATH will do.
func New(m Manners, open func(dir string) (fd int, err error)) (*Source, Change) {
	changes := make(chan Change)
	s := &Source{Changes: changes, open: open, lost: make(chan struct{}, 1), end: make(chan struct{})}
	w, err := sparing(m.Reserve, open)
	go s.run(m, w != nil, changes)
	return s, Change{w, err}
}

// Lost says that the watcher handed out last broke and is closed. Another will come.
func (s *Source) Lost() {
	select {
	case s.lost <- struct{}{}:
	default:
	}
}

// Close ends the changes. The watcher is the caller's to close.
func (s *Source) Close() { close(s.end) }

// run finds out from time to time whether to hold an instance.
func (s *Source) run(m Manners, holds bool, changes chan<- Change) {
	retry := m.Retry
	for {
		wait := retry
		if holds {
			wait = m.Keep
		}
		timer := time.NewTimer(wait/2 + rand.N(wait))
		due := timer.C
		if holds && m.Reserve == 0 {
			due = nil // nothing would make it give the instance back
		}
		select {
		case <-s.end:
			timer.Stop()
			return
		case <-s.lost:
			timer.Stop()
			holds, retry = false, m.Keep
			continue
		case <-due:
		}
		var c Change
		if holds {
			if c.Err = spare(m.Reserve); !errors.Is(c.Err, ErrReserve) {
				continue
			}
		} else if c.Watcher, c.Err = sparing(2*m.Reserve, s.open); c.Err != nil {
			continue
		}
		holds, retry = c.Watcher != nil, m.Retry
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
