// Package checkpoint keeps what a restart must know of each followed file: which
// file it is, and up to where its lines are delivered.
//
// The file is an array of pairs of slots of SlotSize bytes. A record is written to the
// older slot of its pair with a higher sequence number and a checksum, so that a
// torn or damaged slot leaves the record before it; what cannot be read is as if it
// had never been written, so that lines are shipped again rather than skipped.
// Records are written with pwrite(2): a store into a mapped file would kill the
// sidecar with SIGBUS when the disk is full. The page cache survives the end of a
// container; Sync is for the end of a node.
package checkpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// SlotSize is the size of a slot in bytes; a record takes two.
const SlotSize = 1024

// Window is how many bytes of a file's head, and before its offset, a record
// keeps.
const Window = 256

// Ident distinguishes a file from every other, also from one that gets its inode number
// after it is deleted.
type Ident struct {
	Dev   uint64 // st_dev: may change when the node reboots
	Ino   uint64 // st_ino
	Birth int64  // birth time in ns since 1970, 0 where the file system has none
	Gen   uint32 // inode generation, 0 if the file system has none
}

// BirthOf is the time of birth that statx(2) reported, as in Ident.
func BirthOf(st *unix.Statx_t) int64 {
	if st.Mask&unix.STATX_BTIME == 0 {
		return 0
	}
	return st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
}

// Same says whether both name the same file. A device number is compared only
// where there is no birth time, since a reboot may change it.
func (i Ident) Same(o Ident) bool {
	return i.Ino == o.Ino && i.Birth == o.Birth && i.Gen == o.Gen && (i.Birth != 0 || i.Dev == o.Dev)
}

// Flags say what else is known of a file.
type Flags uint8

// The flags.
const (
	// Done: rotated away and read to its end. Kept so that it is not shipped
	// again under a new name.
	Done Flags = 1 << iota
	// Copy: the content is that of another file; only what that file lost by a
	// truncation was shipped from it.
	Copy
	// Cut: the last byte delivered was our own newline after an unfinished line.
	Cut
	// Stderr: its lines go to stderr.
	Stderr
	// Emptied: it was truncated, and NULs before its first new byte are a hole.
	Emptied
	// Held: nothing of it is delivered, since its content is the beginning of another
	// file's.
	Held
)

// Record is what is known of one file.
type Record struct {
	Ident
	Flags     Flags
	Container string // as in contract.Entry
	Path      string // as the container last named it; empty when too long to keep
	Offset    int64  // first byte not delivered
	Began     int64  // where following began: what is before it was never delivered
	Head      []byte // first bytes of the file, at most Window
	Anchor    []byte // the bytes before Offset, at most Window
}

// Store is the checkpoint file. Use it from one goroutine.
type Store struct {
	f     *os.File
	seq   uint64
	slots int   // pairs in the file
	free  []int // pairs without a record
	first bool
	mark  string // the name of the mark of a first scan that was not completed
	birth int64
	seen  *os.File // whose date SeenAt sets; nil: it cannot be had
	left  int64
	buf   [SlotSize]byte
	turn  []byte // for each pair, which slot is written next
}

const (
	magic   = 0x4c42_3031 // "LB01"; another layout gets another number
	header  = 60          // bytes before the container, see encode
	trailer = 8           // bytes at the end of the slot
	maxPath = SlotSize - header - 2*Window - trailer
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrLocked says that another sidecar has the state.
var ErrLocked = errors.New("another log-bridge is using this state; give each its own --state")

// Open opens or makes the checkpoint in dir and returns the records in it, each with
// its pair number. Damaged slots are passed over.
func Open(dir string) (*Store, map[int]Record, error) {
	name := filepath.Join(dir, "checkpoint")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open the checkpoint: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if err == unix.EWOULDBLOCK {
			return nil, nil, fmt.Errorf("%s: %w", name, ErrLocked)
		}
		return nil, nil, fmt.Errorf("lock the checkpoint: %w", err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file; delete it", name)
	}
	if err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("open the checkpoint: %w", err)
	}
	s := &Store{f: f, mark: filepath.Join(dir, "first"), birth: birth(f)}
	if s.first, err = s.isFirst(st.Size()); err != nil {
		f.Close()
		return nil, nil, err
	}
	s.openSeen(filepath.Join(dir, "seen"))
	return s, s.read(st.Size()), nil
}

// Read returns the records of a checkpoint that another process keeps, without changing anything.
func Read(dir string) ([]Record, error) {
	name := filepath.Join(dir, "checkpoint")
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("read the checkpoint: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the checkpoint: %w", err)
	}
	s := &Store{f: f}
	return slices.Collect(maps.Values(s.read(st.Size()))), nil
}

// read reads the records of a file of this size in bytes, and notes its pairs.
func (s *Store) read(size int64) map[int]Record {
	s.slots = int((size + 2*SlotSize - 1) / (2 * SlotSize))
	s.turn = make([]byte, s.slots)
	records := map[int]Record{}
	var pair [2 * SlotSize]byte
	for i := range s.slots {
		clear(pair[:])
		if _, err := s.f.ReadAt(pair[:], int64(i)*int64(len(pair))); err != nil && err != io.EOF {
			continue // unreadable is as if it had never been written
		}
		a, seqA, okA := decode(pair[:SlotSize])
		b, seqB, okB := decode(pair[SlotSize:])
		s.seq = max(s.seq, seqA, seqB)
		switch {
		case okA && (!okB || seqA > seqB):
			s.turn[i] = 1
		case okB:
			a, okA = b, true
		}
		if !okA || a.Ident == (Ident{}) {
			s.free = append(s.free, i)
			continue
		}
		records[i] = a
	}
	return records
}

// Nowhere is a store that keeps nothing, for where no checkpoint can be made. It does
// not claim to be the first start, since a restart must not skip what it cannot know.
func Nowhere() *Store { return &Store{birth: math.MaxInt64} }

// Once is a store that keeps nothing, for a program that is started once, so this is its first start.
func Once() *Store { return &Store{birth: math.MaxInt64, first: true} }

func birth(f *os.File) int64 {
	var st unix.Statx_t
	if unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_BTIME, &st) != nil || BirthOf(&st) == 0 {
		return math.MaxInt64
	}
	return BirthOf(&st)
}

// Birth is when the checkpoint was made: the sidecar's first start, in ns since 1970 of the
// clock that stamps files. If the file system has none, or nothing is kept, it is the end
// of all times.
func (s *Store) Birth() int64 { return s.birth }

// Left is the time of the last SeenAt before the checkpoint was opened, in ns since 1970; 0 if it is not known.
func (s *Store) Left() int64 { return s.left }

// openSeen opens the file whose date is that of the last SeenAt. It is not the checkpoint, which every record dates.
func (s *Store) openSeen(name string) {
	const flags = os.O_RDWR | unix.O_NOFOLLOW | unix.O_NONBLOCK
	f, err := os.OpenFile(name, flags, 0)
	if err == nil {
		if st, err := f.Stat(); err == nil {
			s.left = st.ModTime().UnixNano()
		}
	} else if f, err = os.OpenFile(name, flags|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return
	}
	s.seen = f
}

// SeenAt notes that until t, in ns since 1970, the sidecar saw what happened.
func (s *Store) SeenAt(t int64) error {
	if s.seen == nil {
		return nil
	}
	times := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(t)}
	if err := unix.UtimesNanoAt(int(s.seen.Fd()), "", times[:], unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("set the time of %s: %w", s.seen.Name(), err)
	}
	return nil
}

// First says whether no scan was completed before: it is the sidecar's first start, or an earlier one was killed
// within its first scan.
func (s *Store) First() bool { return s.first }

// isFirst makes the mark of a first scan where there was no checkpoint, and says whether there is one.
func (s *Store) isFirst(size int64) (bool, error) {
	if size > 0 {
		var st unix.Stat_t
		return unix.Lstat(s.mark, &st) == nil, nil
	}
	f, err := os.OpenFile(s.mark, os.O_CREATE|os.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return false, fmt.Errorf("open the checkpoint: %w", err)
	}
	return true, f.Close()
}

// Scanned notes that a scan is completed and everything that it found is kept.
func (s *Store) Scanned() error {
	if !s.first {
		return nil
	}
	if s.first = false; s.mark == "" {
		return nil
	}
	if err := s.Sync(); err != nil {
		return err
	}
	if err := os.Remove(s.mark); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("sync the checkpoint: %w", err)
	}
	// The node may end at any time: then the mark must not be back.
	dir, err := os.Open(filepath.Dir(s.mark))
	if err != nil {
		return fmt.Errorf("sync the checkpoint: %w", err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("sync the checkpoint: %w", err)
	}
	return nil
}

// Alloc returns a pair without a record.
func (s *Store) Alloc() int {
	if n := len(s.free); n > 0 {
		i := s.free[n-1]
		s.free = s.free[:n-1]
		return i
	}
	s.slots++
	s.turn = append(s.turn, 0)
	return s.slots - 1
}

// Free erases the record of a pair, so that it can be used again.
func (s *Store) Free(pair int) error {
	s.free = append(s.free, pair)
	return s.Put(pair, &Record{})
}

// Put writes a record. After an error the pair may hold the record before.
func (s *Store) Put(pair int, r *Record) error {
	if s.f == nil {
		return nil
	}
	s.seq++
	encode(s.buf[:], r, s.seq)
	at := int64(2*pair)*SlotSize + int64(s.turn[pair])*SlotSize
	if _, err := s.f.WriteAt(s.buf[:], at); err != nil {
		return fmt.Errorf("write the checkpoint: %w", err)
	}
	s.turn[pair] ^= 1
	return nil
}

// Sync makes what was put survive the end of the node.
func (s *Store) Sync() error {
	if s.f == nil {
		return nil
	}
	if err := unix.Fdatasync(int(s.f.Fd())); err != nil {
		return fmt.Errorf("sync the checkpoint: %w", err)
	}
	return nil
}

// Close gives the lock up.
func (s *Store) Close() error {
	if s.f == nil {
		return nil
	}
	if s.seen != nil {
		s.seen.Close()
	}
	return s.f.Close()
}

// encode fills a slot. Layout, little-endian: magic, crc of all behind it, seq, dev,
// ino, birth, gen, offset, flags, container length, path length, head
// length, anchor length, then container, path, head and anchor. The last 8 bytes are
// one more than began, so that a slot of a version without it has 0 there.
func encode(slot []byte, r *Record, seq uint64) {
	clear(slot)
	le := binary.LittleEndian
	path := r.Path
	if len(r.Container)+len(path) > maxPath {
		path = ""
	}
	b := le.AppendUint32(slot[:0], magic)
	b = le.AppendUint32(b, 0)
	b = le.AppendUint64(b, seq)
	b = le.AppendUint64(b, r.Dev)
	b = le.AppendUint64(b, r.Ino)
	b = le.AppendUint64(b, uint64(r.Birth))
	b = le.AppendUint32(b, r.Gen)
	b = le.AppendUint64(b, uint64(r.Offset))
	b = append(b, byte(r.Flags), byte(len(r.Container)))
	b = le.AppendUint16(b, uint16(len(path)))
	b = le.AppendUint16(b, uint16(len(r.Head)))
	b = le.AppendUint16(b, uint16(len(r.Anchor)))
	b = append(b, r.Container...)
	b = append(b, path...)
	b = append(b, r.Head...)
	_ = append(b, r.Anchor...)
	le.PutUint64(slot[SlotSize-trailer:], uint64(r.Began)+1)
	le.PutUint32(slot[4:], crc32.Checksum(slot[8:SlotSize], castagnoli))
}

// decode reads a slot; ok is false for anything that encode did not write.
func decode(slot []byte) (r Record, seq uint64, ok bool) {
	le := binary.LittleEndian
	if len(slot) != SlotSize || le.Uint32(slot) != magic || le.Uint32(slot[4:]) != crc32.Checksum(slot[8:], castagnoli) {
		return Record{}, 0, false
	}
	seq = le.Uint64(slot[8:])
	r.Dev, r.Ino = le.Uint64(slot[16:]), le.Uint64(slot[24:])
	r.Birth, r.Gen = int64(le.Uint64(slot[32:])), le.Uint32(slot[40:])
	r.Offset = int64(le.Uint64(slot[44:]))
	r.Flags = Flags(slot[52])
	nc, np := int(slot[53]), int(le.Uint16(slot[54:]))
	nh, na := int(le.Uint16(slot[56:])), int(le.Uint16(slot[58:]))
	rest := slot[60:]
	if r.Offset < 0 || nh > Window || na > Window || int64(na) > r.Offset || nc+np+nh+na > len(rest) {
		return Record{}, 0, false
	}
	take := func(n int) (b []byte) { b, rest = rest[:n:n], rest[n:]; return b }
	r.Container, r.Path = string(take(nc)), string(take(np))
	r.Head, r.Anchor = append([]byte(nil), take(nh)...), append([]byte(nil), take(na)...)
	r.Began = r.Offset // a version without the trailer did not record it
	if len(rest) >= trailer {
		if began := int64(le.Uint64(slot[SlotSize-trailer:])) - 1; began >= 0 && began <= r.Offset {
			r.Began = began
		}
	}
	return r, seq, true
}
