package follow

import (
	"io"

	"github.com/log-bridge/log-bridge/sidecar/internal/checkpoint"
	"github.com/log-bridge/log-bridge/sidecar/internal/cursor"
	"golang.org/x/sys/unix"
)

// handle is an open file; fd is -1 while it is closed. It is a cursor.File.
type handle struct{ fd int }

// Pread reads at off, with one read(2).
func (h handle) Pread(p []byte, off int64) (int, error) {
	p = cursor.Readable(p, off)
	for {
		n, err := unix.Pread(h.fd, p, off)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}

// ReadAt is Pread as io.ReaderAt has it.
func (h handle) ReadAt(p []byte, off int64) (int, error) {
	n, err := h.Pread(p, off)
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

// Stat is the size in bytes and the time of the last write in ns since 1970.
func (h handle) Stat() (size, modified int64, err error) {
	st, err := h.stat()
	return st.Size, st.Mtim.Nano(), err
}

// Data is the first position from at on that is in no hole.
func (h handle) Data(at int64) (int64, error) { return unix.Seek(h.fd, at, unix.SEEK_DATA) }

// stat is fstat(2).
func (h handle) stat() (st unix.Stat_t, err error) {
	for {
		if err = unix.Fstat(h.fd, &st); err != unix.EINTR {
			return st, err
		}
	}
}

// size is that of the file in bytes; ok is false if it cannot be had.
func (h handle) size() (size int64, ok bool) {
	size, _, err := h.Stat()
	return size, err == nil
}

// modified is when the file was last written, in ns since 1970; 0 if that cannot be had.
func (h handle) modified() int64 {
	_, modified, err := h.Stat()
	if err != nil {
		return 0
	}
	return modified
}

// writer is what is known of others that have a file open for writing.
type writer int

const (
	unknown writer = iota
	none
	some
)

// writers asks the kernel whether anybody has the file open for writing: a read lease is granted only if nobody has.
// Only the owner of a file may ask.
func (h handle) writers() writer {
	_, err := unix.FcntlInt(uintptr(h.fd), unix.F_SETLEASE, unix.F_RDLCK)
	switch err {
	case nil:
		_, _ = unix.FcntlInt(uintptr(h.fd), unix.F_SETLEASE, unix.F_UNLCK)
		return none
	case unix.EAGAIN:
		return some
	}
	return unknown
}

// ident reads what tells a file from every other.
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
