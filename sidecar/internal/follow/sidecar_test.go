package follow_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/sidecar/internal/checkpoint"
	"github.com/log-bridge/log-bridge/sidecar/internal/emit"
	"github.com/log-bridge/log-bridge/sidecar/internal/follow"
	"github.com/log-bridge/log-bridge/sidecar/internal/say"
	"github.com/log-bridge/log-bridge/sidecar/internal/scan"
	"golang.org/x/sys/unix"
)

// sidecar is a Follower in a file system of its own, with a clock that the test moves, and
// a reader that it can stop. It can be killed.
type sidecar struct {
	root, state string // directories
	entries     []contract.Entry
	reclaim     bool
	events      bool         // inotify, else polling
	watches     scan.Watcher // instead of those of inotify, if any
	pipe        bool         // the output is a pipe, else a file
	user        user         // whose rights the Follower has

	now   time.Time
	out   output
	words bytes.Buffer

	f       *follow.Follower // nil while it is down
	store   *checkpoint.Store
	sink    *emit.Sink
	watcher *watcher
	flowing bool       // no event of a write is told
	busy    chan error // of a sweep that waits for the reader
}

// user is whose rights the Follower has when the tests run as root.
type user int

const (
	self     user = iota
	nobody        // may read what its mode lets everybody read; may ask for leases
	stranger      // nobody who may not ask whether others write a file
)

// as calls f with the rights of a user. It is an operating system thread that has them.
func (u user) as(f func()) {
	if u == self || os.Getuid() != 0 {
		f()
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const id = 65534
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var before, caps [2]unix.CapUserData
	must(unix.Capget(&hdr, &before[0]))
	caps = before
	// What setfsuid(2) takes away it also gives back; the lease is our own matter.
	if u == stranger {
		caps[0].Effective &^= 1 << unix.CAP_LEASE
	}
	must(unix.Capset(&hdr, &caps[0]))
	must(unix.Setfsgid(id))
	must(unix.Setfsuid(id))
	defer func() {
		must(unix.Setfsuid(0))
		must(unix.Setfsgid(0))
		must(unix.Capset(&hdr, &before[0]))
	}()
	f()
}

// must ends a test that cannot go on because its own surroundings fail.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

func newSidecar(dir string, entries ...string) *sidecar {
	s := &sidecar{root: filepath.Join(dir, "root"), state: filepath.Join(dir, "state"), now: time.Unix(1e9, 0)}
	must(os.MkdirAll(s.root, 0o755))
	must(os.MkdirAll(s.state, 0o777))
	must(os.Chmod(s.state, 0o777))
	for _, e := range entries {
		entry, err := contract.ParseEntry(e)
		must(err)
		s.entries = append(s.entries, entry)
	}
	s.out.name = filepath.Join(dir, "out")
	return s
}

// start begins a life of the sidecar.
func (s *sidecar) start() {
	out := s.out.open(s.pipe)
	s.user.as(func() {
		store, records, err := checkpoint.Open(s.state)
		// A parallel test that reads /proc/self/fd holds for an instant, with its lock, what was just closed here.
		for end := time.Now().Add(time.Minute); errors.Is(err, checkpoint.ErrLocked) && time.Now().Before(end); time.Sleep(time.Millisecond) {
			store, records, err = checkpoint.Open(s.state)
		}
		must(err)
		s.store = store
		s.sink = emit.NewSink(out, contract.Raw)
		o := follow.Options{
			Config: contract.Config{Roots: []string{s.root}, State: s.state, Format: contract.Raw, Stdout: s.entries, Reclaim: s.reclaim},
			Store:  store, Records: records, Say: say.New(&s.words, false), Stdout: s.sink, Stderr: s.sink,
		}
		switch {
		case s.watches != nil:
			o.Watcher = s.watches
		case s.events:
			s.watcher = newWatcher()
			o.Watcher = s.watcher
		}
		s.f, s.flowing = follow.New(o), false
	})
}

// end ends a life, whatever the Follower knows.
func (s *sidecar) end() {
	if s.f == nil {
		return
	}
	if s.busy != nil {
		must(s.wait())
	}
	s.f.Close()
	must(s.store.Close())
	if s.watcher != nil {
		s.watcher.close()
		s.watcher = nil
	}
	s.f = nil
	s.out.close()
}

// sweep tells the Follower of what happened, and lets it sweep once. It says how long the
// Follower wants to wait, and whether anything had happened.
func (s *sidecar) sweep() (wait time.Duration, news bool, err error) {
	s.now = s.now.Add(time.Nanosecond) // time never stops
	before := s.f.Stats().Bytes
	if s.watcher != nil {
		news = s.watcher.tell(s.f, !s.flowing)
	}
	var w follow.Wait
	s.user.as(func() { w, err = s.f.Sweep(s.now) })
	s.flowing = w.Flowing
	return w.For, news || s.f.Stats().Bytes != before, err
}

// sweepDeaf lets the Follower sweep once without telling it of what happened.
func (s *sidecar) sweepDeaf() (err error) {
	s.now = s.now.Add(time.Nanosecond)
	var w follow.Wait
	s.user.as(func() { w, err = s.f.Sweep(s.now) })
	s.flowing = w.Flowing
	return err
}

// errRestless is a Follower that finds something to do for ever.
var errRestless = errors.New("the Follower does not come to rest")

// rest sweeps until there is nothing more to do. Time passes only as the Follower asks for
// it: short waits, and while nothing happens idle. Where there are no events, the longest
// wait between two polls is the least.
func (s *sidecar) rest(idle time.Duration) error {
	const short = 50 * time.Millisecond
	if !s.events {
		idle = max(idle, 1200*time.Millisecond)
	}
	var quiet time.Duration
	for range 10_000 {
		wait, news, err := s.sweep()
		if err != nil {
			return err
		}
		if news || wait == 0 || wait < short && s.events {
			quiet = 0
		} else if quiet >= idle {
			return nil
		} else {
			quiet += wait
		}
		s.now = s.now.Add(wait)
	}
	return errRestless
}

// drain is the end of a life by SIGTERM.
func (s *sidecar) drain() (err error) {
	s.user.as(func() { err = s.f.Drain(s.now, func(int64) error { return nil }) })
	if err == nil {
		s.end()
	}
	return err
}

// stall stops the reader and begins a sweep, which from then on may wait for it.
func (s *sidecar) stall() {
	s.out.stop()
	s.busy = make(chan error, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _, err := s.sweep()
		s.busy <- err
	}()
	// From here on the Follower's part is done, or it waits for the reader.
	for end := time.Now().Add(time.Minute); !s.out.full(); time.Sleep(50 * time.Microsecond) {
		select {
		case <-ended:
			return
		default:
		}
		if time.Now().After(end) {
			panic("a sweep neither ends nor fills the pipe")
		}
	}
}

// wait lets the reader go on, and waits for the end of the sweep that waits for it.
func (s *sidecar) wait() error {
	s.out.resume()
	select {
	case err := <-s.busy:
		s.busy = nil
		return err
	case <-time.After(time.Minute):
		panic("a sweep does not end")
	}
}

// kill is the end of a life by SIGKILL: nothing is written any more, and files are closed.
// It returns how many bytes were cut off from a line.
func (s *sidecar) kill() {
	if s.busy != nil {
		// What the checkpoint has while a write waits is what a kill leaves.
		left, err := os.ReadFile(s.checkpoint())
		must(err)
		s.sink.SetDeadline(time.Unix(1, 0))
		if err := <-s.busy; err == nil {
			s.busy = nil // it had just come to its end
			s.end()
			return
		}
		s.busy = nil
		s.end()
		must(os.WriteFile(s.checkpoint(), left, 0o600))
		return
	}
	s.end()
}

// loseLast takes the last record out of the checkpoint, or a part of it: what a kill before
// or in the middle of writing it leaves. It does nothing to a pair with one record.
func (s *sidecar) loseLast(torn bool) bool {
	b, err := os.ReadFile(s.checkpoint())
	must(err)
	const slot = checkpoint.SlotSize
	seq := func(i int) uint64 {
		if len(b) < (i+1)*slot {
			return 0
		}
		return binary.LittleEndian.Uint64(b[i*slot+8:])
	}
	last := 0
	for i := range len(b) / slot {
		if seq(i) > seq(last) {
			last = i
		}
	}
	if seq(last^1) == 0 {
		return false
	}
	from, to := last*slot, (last+1)*slot
	if torn {
		from += slot / 2
	}
	clear(b[from:to])
	// In its place: on a full disk there is none for another file.
	f, err := os.OpenFile(s.checkpoint(), os.O_WRONLY, 0)
	must(err)
	_, err = f.WriteAt(b[from:to], int64(from))
	must(errors.Join(err, f.Close()))
	return true
}

func (s *sidecar) checkpoint() string { return filepath.Join(s.state, "checkpoint") }

// output is what the sidecar writes to, and its reader.
type output struct {
	name string // of the file that is the output where it is no pipe

	mu      sync.Mutex
	got     []byte
	file    *os.File
	ends    [2]*os.File // of the pipe
	stopped bool
	done    chan struct{}
}

// open returns the writing end of a new output.
func (o *output) open(pipe bool) *os.File {
	o.close()
	if !pipe {
		var err error
		o.file, err = os.OpenFile(o.name, os.O_RDWR|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
		must(err)
		return o.file
	}
	var p [2]int
	must(unix.Pipe2(p[:], unix.O_CLOEXEC))
	must(unix.SetNonblock(p[0], true))
	must(unix.Fchmod(p[1], 0o666)) // the Follower opens it again
	o.ends = [2]*os.File{os.NewFile(uintptr(p[0]), "read"), os.NewFile(uintptr(p[1]), "write")}
	o.stopped, o.done = false, make(chan struct{})
	go o.read(o.ends[0], o.done)
	return o.ends[1]
}

// read takes what comes out of the pipe until its end, or until it is closed.
func (o *output) read(r *os.File, done chan struct{}) {
	defer close(done)
	conn, err := r.SyscallConn()
	must(err)
	for {
		// Waiting for something to read is not reading.
		err := conn.Read(func(fd uintptr) bool {
			var pfd = [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			n, err := unix.Poll(pfd[:], 0)
			return err == nil && n > 0
		})
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		o.mu.Lock()
		if o.stopped {
			o.mu.Unlock()
			time.Sleep(100 * time.Microsecond)
			continue
		}
		end := o.take()
		o.mu.Unlock()
		if end {
			return
		}
	}
}

// take takes all that is in the pipe. It says whether its writers are gone.
func (o *output) take() bool {
	if o.ends[0] == nil {
		return true
	}
	conn, err := o.ends[0].SyscallConn()
	must(err)
	var buf [64 << 10]byte
	end := false
	must(conn.Control(func(fd uintptr) {
		for {
			n, err := unix.Read(int(fd), buf[:])
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return
			}
			if n == 0 {
				end = true
				return
			}
			o.got = append(o.got, buf[:n]...)
		}
	}))
	return end
}

// collect returns what has come since it was last called.
func (o *output) collect() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ends[0] != nil && !o.stopped {
		o.take()
	}
	if o.file != nil {
		o.takeFile()
	}
	got := o.got
	o.got = nil
	return got
}

func (o *output) takeFile() {
	st, err := o.file.Stat()
	must(err)
	b := make([]byte, st.Size())
	_, err = o.file.ReadAt(b, 0)
	must(err)
	o.got = append(o.got, b...)
	must(o.file.Truncate(0)) // the Follower appends
}

func (o *output) stop() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.take()
	o.stopped = true
}

func (o *output) resume() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stopped = false
}

// full says whether a write to the pipe would wait.
func (o *output) full() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	conn, err := o.ends[1].SyscallConn()
	must(err)
	var n int
	must(conn.Control(func(fd uintptr) {
		var pfd = [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, err = unix.Poll(pfd[:], 0)
		must(err)
	}))
	return n == 0
}

// close ends an output. What is in it can still be collected.
func (o *output) close() {
	o.mu.Lock()
	if o.file != nil {
		o.takeFile()
		o.file.Close()
		o.file = nil
	}
	if o.ends[0] != nil {
		o.take()
	}
	r, w, done := o.ends[0], o.ends[1], o.done
	o.ends, o.stopped = [2]*os.File{}, false
	o.mu.Unlock()
	if r != nil {
		r.Close()
		w.Close()
		<-done
	}
}

// watcher is inotify as fsnotify uses it, but asked from the test's own thread: what has
// happened is known at once, and nothing comes by itself.
type watcher struct {
	fd   int
	path map[int]string
	wd   map[string]int
	lost bool // the queue is to overflow
}

func newWatcher() *watcher {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	must(err)
	return &watcher{fd: fd, path: map[int]string{}, wd: map[string]int{}}
}

func (w *watcher) close() { unix.Close(w.fd) }

func (w *watcher) Add(dir string) error {
	wd, err := unix.InotifyAddWatch(w.fd, dir, unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_MOVED_FROM|unix.IN_MODIFY|
		unix.IN_ATTRIB|unix.IN_MOVE_SELF|unix.IN_DELETE|unix.IN_DELETE_SELF)
	if err != nil {
		return err
	}
	w.path[wd], w.wd[dir] = dir, wd
	return nil
}

func (w *watcher) Remove(dir string) error {
	wd, ok := w.wd[dir]
	if !ok {
		return errors.New("not watched")
	}
	w.forget(wd)
	_, err := unix.InotifyRmWatch(w.fd, uint32(wd))
	return err
}

func (w *watcher) forget(wd int) {
	delete(w.wd, w.path[wd])
	delete(w.path, wd)
}

// tell tells the Follower of all that has happened. It says whether anything has.
func (w *watcher) tell(f *follow.Follower, writes bool) bool {
	news := false
	var buf [64 << 10]byte
	for {
		n, err := unix.Read(w.fd, buf[:])
		if err == unix.EINTR {
			continue
		}
		if n <= 0 || err != nil {
			break
		}
		for b := buf[:n]; len(b) > 0; {
			e := (*unix.InotifyEvent)(unsafe.Pointer(&b[0]))
			name := string(bytes.TrimRight(b[unix.SizeofInotifyEvent:][:e.Len], "\x00"))
			b = b[unix.SizeofInotifyEvent+e.Len:]
			if w.lost {
				continue
			}
			if e.Mask&unix.IN_Q_OVERFLOW != 0 {
				f.Lost()
				news = true
				continue
			}
			dir, ok := w.path[int(e.Wd)]
			if !ok {
				continue
			}
			switch {
			case e.Mask&(unix.IN_IGNORED|unix.IN_UNMOUNT) != 0:
				w.forget(int(e.Wd))
				continue
			case e.Mask&unix.IN_DELETE_SELF != 0:
				w.forget(int(e.Wd))
			case e.Mask&unix.IN_MOVE_SELF != 0:
				_, _ = unix.InotifyRmWatch(w.fd, uint32(e.Wd))
				w.forget(int(e.Wd))
			}
			if name != "" {
				dir += "/" + name
			}
			if !writes && e.Mask == unix.IN_MODIFY {
				continue
			}
			f.Changed(dir, e.Mask&^uint32(unix.IN_MODIFY) != 0)
			news = true
		}
	}
	if w.lost {
		w.lost = false
		f.Lost()
		news = true
	}
	return news
}

// openFiles are the descriptors of this process for files below a directory.
func openFiles(dir string) (names []string) {
	fds, err := os.ReadDir("/proc/self/fd")
	must(err)
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, dir+"/") {
			names = append(names, to)
		}
	}
	return names
}
