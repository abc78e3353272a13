package follow

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/sidecar/internal/scan"
	"github.com/log-bridge/log-bridge/sidecar/internal/tree"
	"golang.org/x/sys/unix"
)

// scanned is what the last scan said.
type scanned struct {
	first   bool // there was none, neither in this process nor in an earlier one
	once    bool // there was one in this process
	full    time.Time
	round   uint64 // its number
	settled bool   // another one finds something else only if a directory has changed
	hidden  bool   // a rotated file may not be read
	crowded bool   // it found files for which there is no descriptor
	faulty  bool   // it met what it cannot search or open
	refused int    // files and directories that it may not read
}

// scanning is one scan.
type scanning struct {
	*Follower
	now     time.Time
	begun   int64                    // in ns since 1970, by the clock of this machine
	holders map[contract.Place]*file // the newest generations before it
	slipped []contract.Place         // names whose file had lost them when it was to be opened
	result  scanned
}

// adopt opens a file that has no followed name, and follows it if ok says so of its record. It is known from the
// checkpoint, or, with a source, a generation of the file at path.
func (s *scanning) adopt(n tree.Node, src *scan.Source, path string, ok func(*file) bool) {
	if !n.IsRegular() || s.index.byInode[inodeOf(n)] != nil {
		return
	}
	s.makeRoom()
	fd, n, err := n.Open()
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EMFILE) {
		done := func(c *file) bool { return c.presence == finished && c.at == inodeOf(n) && c.rest.size == n.Size }
		s.result.hidden = s.result.hidden || !slices.ContainsFunc(s.index.closed[n.Ino], done)
		return
	}
	if err != nil {
		return
	}
	var x *file
	id, err := ident(fd)
	known := s.index.find(id)
	switch {
	case err != nil || s.index.byInode[inodeOf(n)] != nil: // another file has the name by now, one that is open
	case known.isDone(fd):
	case known != nil:
		if src := s.scanner.SourceOf(known.place.Container); src != nil && ok(&file{Ident: id, handle: handle{fd}}) {
			n.Path = known.place.Path
			x, _ = s.take(src, n, fd)
		}
	case src != nil && ok(&file{Ident: id, handle: handle{fd}}):
		n.Path = path
		if x, _ = s.take(src, n, fd); x != nil {
			s.stats.Rotations++
		}
	}
	if x == nil {
		unix.Close(fd)
		return
	}
	x.pending, x.grew = true, s.now
	x.missed = known == nil
}

// take makes an open descriptor a followed file: one that is known from before, or a new one. Its name is n.Path, in the
// container of src.
func (f *Follower) take(src *scan.Source, n tree.Node, fd int) (*file, error) {
	id, err := ident(fd)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.Path, err)
	}
	place := contract.Place{Container: src.Container, Path: n.Path}
	x := f.index.find(id)
	if x == nil {
		x = &file{Ident: id, handle: handle{fd}, stderr: src.Stderr, record: record{pair: f.record.store.Alloc()}}
		if err := f.begin(x, src, n); err != nil {
			return nil, fmt.Errorf("%s: %w", n.Path, err)
		}
	}
	x.Ident, x.rest = id, rest{} // it may go on
	if x.origin != copied || x.place.Path == "" {
		x.place = place
	}
	f.index.opened(x, fd, inodeOf(n), src, n)
	x.trail.begin(x.Anchor, x.Offset)
	x.ready = true
	x.Reopen()
	f.record.keep(x)
	return x, nil
}

// isDone says whether a known file, which is open as fd, is finished and has nothing new; nil is not. It notes how the file
// is now.
func (x *file) isDone(fd int) bool {
	if x == nil || x.presence != finished {
		return false
	}
	st, err := handle{fd}.stat()
	if err != nil || st.Size != x.Offset && (st.Size != x.rest.size || st.Mtim.Nano() != x.rest.modified) {
		return false
	}
	x.rest = restOf(&st)
	return true
}

// begin sets where following a new file begins.
func (f *Follower) begin(x *file, src *scan.Source, n tree.Node) error {
	switch {
	case f.last.first && f.outlives(n.Real):
		if err := x.StartAtEnd(x); err != nil {
			return err
		}
	default:
		if size, ok := f.seededSize(x, src, n); ok {
			if err := x.StartAt(x, size); err != nil {
				return err
			}
		}
	}
	if x.Offset > 0 {
		x.origin = own
		return nil
	}
	err := x.Start(x)
	if len(x.Head) == 0 {
		x.emptyAt = nowish()
	}
	return err
}

// nowish is a time from which on files are born, in ns since 1970: the kernel's clock for them is late by a tick.
func nowish() int64 { return time.Now().Add(-tick).UnixNano() }

// tick is the longest tick of that clock, with 100 of them in a second.
const tick = 10 * time.Millisecond

// outlives says whether a file is on a volume that outlives the pod.
func (f *Follower) outlives(real string) bool {
	return slices.ContainsFunc(f.cfg.FromEnd, func(dir string) bool { return contract.Covers(dir, real) })
}

// seededSize is how much of a new file was copied into it from the image, in bytes: that is no log of this pod.
func (f *Follower) seededSize(x *file, src *scan.Source, n tree.Node) (size int64, ok bool) {
	if !slices.ContainsFunc(f.cfg.Seeded, func(p contract.Place) bool {
		return p.Container == src.Container && contract.Covers(filepath.Join(f.cfg.Roots[0], p.Container, p.Path), n.Real)
	}) {
		return 0, false
	}
	seeded, ok := f.seeded.Of(f.cfg.Roots[0], src.Container, x.Ino)
	return seeded.Size, ok && seeded.Is(x)
}
