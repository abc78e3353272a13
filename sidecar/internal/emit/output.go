package emit

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// ErrClosed says that nothing reads any more (EPIPE).
var ErrClosed = errors.New("the output is closed: nothing is reading the lines any more")

// ErrLate says that the deadline has passed and the reader has not taken everything.
var ErrLate = errors.New("the output was not read to its end in time")

// pipeBuf is what a pipe that poll(2) calls writable takes without blocking, in
// bytes: PIPE_BUF of pipe(7).
const pipeBuf = 4096

// output is a descriptor, written to such that a deadline can end the wait for a slow
// reader.
//
// For that, a pipe is opened again, non-blocking, and left to the runtime's poller; the
// other processes that have the descriptor see no change. Where the pipe belongs to
// another user that is denied: then it is asked before each write, and given no more than
// it has room for.
type output struct {
	own      *os.File // opened again, or nil
	fd       int      // else
	ask      bool     // poll before each write, and write at most pipeBuf
	deadline atomic.Int64
	writing  atomic.Bool
	wake     [2]int // a pipe: a byte in it ends a poll, after the deadline was set
}

func newOutput(f *os.File) *output {
	o := &output{fd: -1}
	// Not f.Fd(), which would put a descriptor that we share into blocking mode.
	if conn, err := f.SyscallConn(); err == nil {
		_ = conn.Control(func(fd uintptr) { o.fd = int(fd) })
	}
	var st unix.Stat_t
	if unix.Fstat(o.fd, &st) == nil {
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFIFO:
			grow(o.fd)
			fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", o.fd), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
			if err == nil {
				o.own = os.NewFile(uintptr(fd), f.Name())
				return o
			}
			o.ask = true
		case unix.S_IFSOCK:
			o.ask = true
		case unix.S_IFREG: // has no reader to wait for
			o.wake = [2]int{-1, -1}
			return o
		}
	}
	// Without it, a wait notices a new deadline when the reader takes something.
	if unix.Pipe2(o.wake[:], unix.O_NONBLOCK|unix.O_CLOEXEC) != nil {
		o.wake = [2]int{-1, -1}
	}
	return o
}

// pipeSize is what a pipe is asked to hold, in bytes. With the usual 64 KiB the reader waits for us while we
// read the next block, and we for it: half as long again to catch up (measured). What is in the pipe at our end
// the container runtime has to read in ten seconds, so it is no more than that.
const pipeSize = 256 << 10

// grow enlarges a smaller pipe. The kernel may refuse it to a user who has many; that costs time only.
func grow(fd int) {
	if size, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0); err == nil && size < pipeSize {
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, pipeSize)
	}
}

// setDeadline ends a write that still waits for the reader at t; any goroutine may call it.
func (o *output) setDeadline(t time.Time) {
	if o.own != nil {
		_ = o.own.SetWriteDeadline(t)
		return
	}
	o.deadline.Store(t.UnixNano())
	_, _ = unix.Write(o.wake[1], []byte{0}) // full is as good
}

// write writes all of p and says how much of it went out.
func (o *output) write(p []byte) (int, error) {
	o.writing.Store(true)
	defer o.writing.Store(false)
	if o.own != nil {
		n, err := o.own.Write(p)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			err = ErrLate
		case errors.Is(err, unix.EPIPE):
			err = ErrClosed
		}
		return n, err
	}
	done := 0
	for done < len(p) {
		part := p[done:]
		if o.ask {
			if err := o.wait(); err != nil {
				return done, err
			}
			part = part[:min(len(part), pipeBuf)]
		}
		n, err := unix.Write(o.fd, part)
		done += max(n, 0)
		switch err {
		case nil, unix.EINTR:
		case unix.EAGAIN:
			if err := o.wait(); err != nil {
				return done, err
			}
		case unix.EPIPE:
			return done, ErrClosed
		default:
			return done, fmt.Errorf("write lines: %w", err)
		}
	}
	return done, nil
}

// wait waits until the descriptor can be written to, or the deadline.
func (o *output) wait() error {
	for {
		ms := -1
		if d := o.deadline.Load(); d != 0 {
			left := time.Until(time.Unix(0, d))
			if left <= 0 {
				return ErrLate
			}
			ms = int(left.Milliseconds()) + 1
		}
		fds := [2]unix.PollFd{{Fd: int32(o.fd), Events: unix.POLLOUT}, {Fd: int32(o.wake[0]), Events: unix.POLLIN}}
		_, err := unix.Poll(fds[:], ms)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("wait for the reader of the output: %w", err)
		}
		if fds[1].Revents != 0 {
			var b [8]byte
			_, _ = unix.Read(o.wake[0], b[:])
		}
		// The write reports a closed pipe.
		if fds[0].Revents != 0 {
			return nil
		}
	}
}
