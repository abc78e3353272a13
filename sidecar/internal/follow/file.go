package follow

import (
	"bytes"
	"io"
	"time"

	"github.com/log-bridge/log-bridge/sidecar/internal/checkpoint"
	"github.com/log-bridge/log-bridge/sidecar/internal/tree"
	"golang.org/x/sys/unix"
)

// file is one followed file: an inode, whatever its names are at the moment.
//
// It holds no lines: what is not delivered stays in the file itself, and only
// offsets are kept.
type file struct {
	checkpoint.Record
	pair int       // in the checkpoint
	src  *source   // that found it
	node tree.Node // where it was last found
	fd   int       // -1 while it is closed

	named bool   // it was found under a name that a source matches at the last look
	round uint64 // number of that look

	ready bool // it may have bytes that are not delivered
	search
	// startBefore is where the search for the place to begin at has come to, backwards; 0: there is none.
	startBefore int64

	// before is the generation that had this file's name before it; its bytes go
	// out first. behind says that a file was not read to its end since it lost
	// its name.
	before *file
	behind bool

	// original is the file whose copy this one seems to be; while it is set, nothing is
	// delivered. held is since when. own says that it is certainly no copy.
	original *file
	held     time.Time
	heldSize int64 // then
	own      bool

	trail trail  // of what was delivered since it was truncated
	pasts []past // what it held before

	// moved says that it was renamed since it was first followed: nobody begins it anew.
	moved bool
	// left says that it was read to its end since it lost its name.
	left bool
	// missed says that it was taken for a generation that came and went between two looks.
	missed bool

	reclaimed  int64 // up to here the blocks are freed
	keepBlocks bool  // freeing them is not possible
	changed    int64 // the change time when it was parked

	unkept bool // the checkpoint could not take its record
	failed bool // it could not be read the last time

	grew time.Time // when it last had something to deliver, or lost its name
}

// window returns the last up to checkpoint.Window bytes of old followed by added.
func window(old, added []byte) []byte {
	if len(added) >= checkpoint.Window {
		return append(old[:0], added[len(added)-checkpoint.Window:]...)
	}
	if cut := len(old) + len(added) - checkpoint.Window; cut > 0 {
		old = old[:copy(old, old[cut:])]
	}
	return append(old, added...)
}

// advance notes that data, which starts at Offset, is delivered.
func (x *file) advance(data []byte) {
	if x.Offset < checkpoint.Window && x.Offset <= int64(len(x.Head)) {
		at := int(x.Offset)
		x.Head = append(x.Head[:at], data[:min(len(data), checkpoint.Window-at)]...)
	}
	if x.src != nil && x.src.IsGlob() {
		x.trail.add(x.Anchor, x.Offset, data)
	}
	x.Anchor = window(x.Anchor, data)
	x.Offset += int64(len(data))
}

// restart forgets what was delivered: the file is another from its first byte on.
func (x *file) restart() {
	x.Offset, x.Began, x.reclaimed, x.startBefore = 0, 0, 0, 0
	x.search, x.trail = search{}, trail{}
	x.Head, x.Anchor = x.Head[:0], x.Anchor[:0]
	x.Flags = x.Flags&^checkpoint.Cut | checkpoint.Emptied
}

// pread reads at off, with one read(2): a second one might see the file after a truncation,
// and its bytes would not belong to those of the first. Fewer than asked for is the end
// of the file.
func (x *file) pread(p []byte, off int64) (int, error) {
	p = readable(p, off)
	for {
		n, err := unix.Pread(x.fd, p, off)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}

// ReadAt is pread as io.ReaderAt has it.
func (x *file) ReadAt(p []byte, off int64) (int, error) {
	n, err := x.pread(p, off)
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

// stat is fstat(2) of the open file.
func (x *file) stat() (st unix.Stat_t, err error) {
	for {
		if err = unix.Fstat(x.fd, &st); err != unix.EINTR {
			return st, err
		}
	}
}

// modified is when the file was last written (st_mtim), in ns since 1970; 0 if that cannot be had.
func (x *file) modified() int64 {
	st, err := x.stat()
	if err != nil {
		return 0
	}
	return st.Mtim.Nano()
}

// holds says whether the file has exactly want at off.
func (x *file) holds(want []byte, off int64) bool {
	var buf [checkpoint.Window]byte
	n, err := x.pread(buf[:len(want)], off)
	return err == nil && bytes.Equal(buf[:n], want)
}

// writer is what is known of others that have a file open for writing.
type writer int

const (
	unknown writer = iota
	none
	some
)

// writers asks the kernel whether anybody has the file open for writing: a read
// lease is granted only if nobody has. Only the owner of a file may ask.
func (x *file) writers() writer {
	_, err := unix.FcntlInt(uintptr(x.fd), unix.F_SETLEASE, unix.F_RDLCK)
	switch err {
	case nil:
		_, _ = unix.FcntlInt(uintptr(x.fd), unix.F_SETLEASE, unix.F_UNLCK)
		return none
	case unix.EAGAIN:
		return some
	}
	return unknown
}

// ident reads what tells the file from every other.
func ident(fd int) (checkpoint.Ident, error) {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_BTIME, &st)
	if err != nil {
		var old unix.Stat_t
		if err := unix.Fstat(fd, &old); err != nil {
			return checkpoint.Ident{}, err
		}
		return checkpoint.Ident{Dev: uint64(old.Dev), Ino: old.Ino}, nil //nolint:unconvert // Dev is 32 bits wide on some architectures
	}
	id := checkpoint.Ident{Dev: unix.Mkdev(st.Dev_major, st.Dev_minor), Ino: st.Ino}
	id.Birth = checkpoint.BirthOf(&st)
	// Two files with one inode number born in one tick of the clock differ by this.
	if gen, err := unix.IoctlGetUint32(fd, fsIocGetVersion); err == nil {
		id.Gen = gen
	}
	return id, nil
}

// fsIocGetVersion is FS_IOC_GETVERSION of linux/fs.h on 64-bit architectures.
const fsIocGetVersion = 0x80087601
