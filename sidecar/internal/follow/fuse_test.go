package follow_test

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// oddFS is a file system (FUSE) that does what no disk does in a test: its attributes are
// stale, its reads fail. It has one directory with one file, app/logs/app.log.
type oddFS struct {
	dev *os.File

	mu      sync.Mutex
	data    []byte
	size    int64 // that stat(2) tells, -1: the true one
	failure unix.Errno
	number  uint64 // of the file; it counts up when a server forgets it
}

const (
	oddRoot = 1
	oddApp  = 2
	oddLogs = 3
	oddFile = 10
)

// newOddFS mounts one. It tells the root's directory.
func newOddFS(t *testing.T) (*oddFS, string) {
	t.Helper()
	at := filepath.Join(t.TempDir(), "odd")
	if os.Getuid() != 0 {
		t.Skip("only root can mount a file system")
	}
	// Not blocking, so that Close ends a Read: and with the last descriptor the kernel ends
	// whatever still waits for an answer.
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skipf("open /dev/fuse: %v", err)
	}
	mount(t, "odd", at, "fuse", "fd="+strconv.Itoa(fd)+",rootmode=40000,user_id=0,group_id=0,allow_other")
	// Only now, since before it is mounted a read is refused.
	o := &oddFS{dev: os.NewFile(uintptr(fd), "/dev/fuse"), size: -1, number: oddFile}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		o.serve()
	}()
	t.Cleanup(func() {
		o.dev.Close()
		<-ended
	})
	return o, at
}

// set changes the file system.
func (o *oddFS) set(change func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change()
}

// serve answers the kernel until the file system is unmounted (linux/fuse.h).
func (o *oddFS) serve() {
	defer o.dev.Close() // then nobody waits for an answer
	le := binary.LittleEndian
	buf := make([]byte, 1<<17)
	for {
		n, err := o.dev.Read(buf)
		if errors.Is(err, unix.ENOENT) {
			continue // the request was taken back
		}
		if err != nil || n < 40 {
			return
		}
		opcode, unique, node, body := le.Uint32(buf[4:]), le.Uint64(buf[8:]), le.Uint64(buf[16:]), buf[40:n]
		answer, errno, silent := o.answer(opcode, node, body)
		if silent {
			continue
		}
		out := le.AppendUint32(nil, uint32(16+len(answer)))
		out = le.AppendUint32(out, uint32(-int32(errno)))
		out = le.AppendUint64(out, unique)
		out = append(out, answer...)
		if _, err := o.dev.Write(out); err != nil && !errors.Is(err, unix.ENOENT) {
			return
		}
	}
}

func (o *oddFS) answer(opcode uint32, node uint64, body []byte) (answer []byte, errno unix.Errno, silent bool) {
	const (
		lookup, forget, getattr, open, read, release, flush, init, opendir, readdir, releasedir, interrupt, batchForget = 1, 2, 3, 14, 15, 18, 25, 26, 27, 28, 29, 36, 42
	)
	le := binary.LittleEndian
	o.mu.Lock()
	defer o.mu.Unlock()
	children := map[uint64]map[string]uint64{oddRoot: {"app": oddApp}, oddApp: {"logs": oddLogs}, oddLogs: {"app.log": o.number}}
	switch opcode {
	case init:
		out := make([]byte, 64)
		le.PutUint32(out, 7)
		le.PutUint32(out[4:], 31)
		le.PutUint32(out[20:], 1<<16) // max_write
		return out, 0, false
	case lookup:
		child, ok := children[node][strings.TrimRight(string(body), "\x00")]
		if !ok {
			return nil, unix.ENOENT, false
		}
		out := make([]byte, 40) // valid for no time
		le.PutUint64(out, child)
		return append(out, o.attr(child)...), 0, false
	case getattr:
		if node >= oddFile && node != o.number {
			return nil, unix.ESTALE, false
		}
		return append(make([]byte, 16), o.attr(node)...), 0, false
	case open:
		out := make([]byte, 16)
		le.PutUint32(out[8:], 1) // FOPEN_DIRECT_IO: each read comes here
		return out, 0, false
	case opendir:
		return make([]byte, 16), 0, false
	case read:
		if node != o.number {
			return nil, unix.ESTALE, false
		}
		if o.failure != 0 {
			return nil, o.failure, false
		}
		from := min(le.Uint64(body[8:]), uint64(len(o.data)))
		to := min(from+uint64(le.Uint32(body[16:])), uint64(len(o.data)))
		return o.data[from:to], 0, false
	case readdir:
		if le.Uint64(body[8:]) > 0 {
			return nil, 0, false
		}
		var out []byte
		for name, child := range children[node] {
			out = le.AppendUint64(out, child)
			out = le.AppendUint64(out, 1)
			out = le.AppendUint32(out, uint32(len(name)))
			out = le.AppendUint32(out, o.mode(child)>>12)
			out = append(out, name...)
			out = append(out, make([]byte, (8-len(name)%8)%8)...)
		}
		return out, 0, false
	case release, releasedir, flush:
		return nil, 0, false
	case forget, batchForget, interrupt:
		return nil, 0, true
	}
	return nil, unix.ENOSYS, false
}

func (o *oddFS) mode(node uint64) uint32 {
	if node >= oddFile {
		return unix.S_IFREG | 0o644
	}
	return unix.S_IFDIR | 0o755
}

func (o *oddFS) attr(node uint64) []byte {
	le := binary.LittleEndian
	out := make([]byte, 88)
	le.PutUint64(out, node)
	if node >= oddFile {
		size := o.size
		if size < 0 {
			size = int64(len(o.data))
		}
		le.PutUint64(out[8:], uint64(size))
	}
	le.PutUint32(out[60:], o.mode(node))
	le.PutUint32(out[64:], 1)
	return out
}

func newOddStage(t *testing.T) (*oddFS, *stage) {
	o, at := newOddFS(t)
	s := newStage(t, true, "app:/logs/app.log") // there are events, but the file system has none
	s.root = at
	return o, s
}

// TestB12: a network file system tells a size from before the last lines: what can be read
// counts, nothing is taken for a truncation, nothing comes again.
func TestB12_staleSize(t *testing.T) {
	o, s := newOddStage(t)
	o.set(func() { o.data = []byte("one\n") })
	s.start()
	s.want(s.rest(time.Second), "one\n")
	o.set(func() { o.data, o.size = []byte("one\ntwo\n"), 8 })
	s.want(s.rest(time.Second), "one\ntwo\n")
	for _, stale := range []int64{4, 1, 0} {
		o.set(func() { o.size = stale })
		s.want(s.rest(10*time.Second), "one\ntwo\n")
	}
	o.set(func() { o.data, o.size = []byte("one\ntwo\nthree\n"), 4 })
	s.want(s.rest(10*time.Second), "one\ntwo\nthree\n")
	if n := s.f.Stats().Truncations; n != 0 {
		t.Errorf("%d truncations", n)
	}
}

// TestF2: a file that cannot be read for a while (EIO) is named once, tried again, and goes on
// where it was.
func TestF2_EIO(t *testing.T) {
	o, s := newOddStage(t)
	o.set(func() { o.data = []byte("one\n") })
	s.start()
	s.want(s.rest(time.Second), "one\n")
	o.set(func() { o.data, o.failure = []byte("one\ntwo\n"), unix.EIO })
	s.want(s.rest(time.Minute), "one\n")
	if n := strings.Count(s.words.String(), "app:/logs/app.log cannot be read (input/output error); keeping its offset and retrying"); n != 1 {
		t.Errorf("said %d times: %s", n, s.words.String())
	}
	o.set(func() { o.failure = 0 })
	s.want(s.rest(time.Second), "one\ntwo\n")
}

// TestF2: a server forgets an open file (ESTALE), and has it again under a new number: it is
// opened by its name, and nothing is skipped.
func TestF2_ESTALE(t *testing.T) {
	o, s := newOddStage(t)
	o.set(func() { o.data = []byte("one\n") })
	s.start()
	s.want(s.rest(time.Second), "one\n")
	o.set(func() { o.number, o.data = oddFile+1, []byte("two\n") })
	s.want(s.rest(10*time.Second), "one\ntwo\n")
	o.set(func() { o.data = append(o.data, "three\n"...) })
	s.want(s.rest(time.Second), "one\ntwo\nthree\n")
}
