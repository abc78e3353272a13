package follow

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/sidecar/internal/say"
	"github.com/log-bridge/log-bridge/sidecar/internal/scan"
	"github.com/log-bridge/log-bridge/sidecar/internal/tree"
	"golang.org/x/sys/unix"
)

// scan finds the files that the sources match now, opens new ones, notes which lost their name, and watches the
// directories. It is skipped if nothing suggests that its result would change.
func (f *Follower) scan(now time.Time) {
	f.when.scanned = now
	changed := f.when.stale || f.scanner.Changed()
	if !changed && f.last.settled && now.Sub(f.last.full) < fullScanEvery {
		return
	}
	f.when.renamed = f.when.renamed || changed
	asked := f.when.stale // by an event, or at the start
	f.when.stale = false
	for again := true; again; {
		s := &scanning{Follower: f, now: now, holders: f.holders(), result: f.last}
		young := false
		again, young = s.run()
		f.when.young = young && asked
		s.result.full, s.result.once = now, true
		f.last = s.result
	}
	// What was made until now is told by what is found; the clock that dates files is late by a tick.
	if f.last.first {
		f.last.first = false
		f.record.dirty = true
		if err := f.record.store.Scanned(); err != nil {
			f.say.Once("checkpoint", "%v", err)
		}
	}
}

// run makes the scan. again says that a watch is new: what was made after the scan and before it would be missed. young
// is as in scan.Result.
func (s *scanning) run() (again, young bool) {
	s.result.round++
	s.result.settled, s.result.crowded, s.result.faulty, s.result.refused = true, false, false, 0
	clear(s.index.aliases)
	r := s.scanner.Scan(s.found, s.fault)
	s.begun = r.Begun
	for _, x := range s.index.open {
		if x.presence == named && x.round != s.result.round {
			s.index.unnamed(x)
			x.pending, x.ready, x.grew = true, true, s.now
		}
		x.ready = x.ready || x.doubted
	}
	lost := s.lostParked()
	s.findRotated(lost)
	s.findMissed(s.gaps())
	s.index.sort()
	w := s.scanner.Rewatch()
	s.when.polled = w.Polled
	if w.Short {
		s.say.Once("watches", "user %d has no inotify watches left on this node; polling files as well, so lines arrive up to a second later. The node's sysctl fs.inotify.max_user_watches sets the limit for each user", os.Getuid())
	}
	// Where nothing is watched, only a scan sees that a parked file changes.
	s.result.settled = s.result.settled && r.Settled && !s.result.hidden && len(s.index.parked) == 0
	if len(s.record.unkept) == 0 && !s.result.faulty {
		_ = s.record.store.SeenAt(s.begun - int64(scan.StampAge))
	}
	return w.Added, r.Young
}

// lostParked says whether a parked file was not found by this scan: it lost its name, or was deleted.
func (s *scanning) lostParked() bool {
	lost := false
	for _, x := range s.index.parked {
		if x.round != s.result.round {
			s.index.lost(x)
			lost = true
		}
	}
	return lost
}

// fault takes note of what cannot be searched.
func (s *scanning) fault(src *scan.Source, err error) {
	s.result.settled, s.result.faulty = false, true
	if errors.Is(err, unix.EMFILE) {
		s.lowerLimit()
		s.result.crowded = true
		return
	}
	if s.faults.search(src, err, s.now) {
		s.result.refused++
	}
}

// found takes note of a match.
func (s *scanning) found(src *scan.Source, n tree.Node) {
	if !n.IsRegular() {
		if !n.IsDir() || !src.IsGlob() {
			about := src.Container + ":" + n.Path
			s.say.Once(about, "%s is %s, not a regular file; not following it", about, n.Kind())
		}
		return
	}
	if x := s.index.byInode[inodeOf(n)]; x != nil {
		s.known(x, src, n)
		return
	}
	if s.stillParked(n, s.result.round) {
		return
	}
	s.makeRoom()
	fd, opened, err := n.Open()
	if errors.Is(err, unix.EMFILE) {
		// The rest of the program has more descriptors than was thought. Some are for searching directories.
		s.lowerLimit()
		fd, opened, err = n.Open()
	}
	place := contract.Place{Container: src.Container, Path: n.Path}
	switch {
	case err == nil:
	case errors.Is(err, unix.EMFILE):
		s.result.settled, s.result.crowded = false, true
		s.say.Once("descriptors", "more files match than the %d that log-bridge may keep open; the others wait until those are delivered", s.limits.open)
		return
	case errors.Is(err, fs.ErrPermission):
		s.result.settled = false
		s.result.refused++
		s.faults.open(place, n, s.now)
		return
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ELOOP):
		// Renamed, deleted or replaced since it was found, which the next scan sees.
		s.result.settled, s.slipped = false, append(s.slipped, place)
		return
	default:
		s.fault(src, err)
		return
	}
	s.faults.forget(place)
	// Another file may have got the name since: what is followed is what was opened.
	if inodeOf(opened) != inodeOf(n) {
		s.result.settled = false
	}
	n = opened
	if x := s.index.byInode[inodeOf(n)]; x != nil {
		unix.Close(fd)
		s.known(x, src, n)
		return
	}
	x, err := s.take(src, n, fd)
	if err != nil {
		unix.Close(fd)
		s.fault(src, err)
		return
	}
	x.grew = s.now
	// After a restart the generations of a log come in the order of their birth, also with a glob.
	x.pending = !s.last.once
	if old := s.holders[place]; old != nil && old != x {
		s.stats.Rotations++
	}
	s.name(x, src, n)
	// What earlier generations hold by now comes first, also of those whose writer went on after they were read.
	if x.log.isLast(x) {
		for _, g := range x.log.generations {
			if g != x {
				g.pending, g.ready = true, true
			}
		}
	}
}

// known notes that a scan found an open file as n.
func (s *scanning) known(x *file, src *scan.Source, n tree.Node) {
	if x.round == s.result.round {
		s.index.found(x, n.Real)
		return
	}
	s.name(x, src, n)
}

// name gives an open file the name by which a scan found it.
func (s *scanning) name(x *file, src *scan.Source, n tree.Node) {
	x.round = s.result.round
	place := contract.Place{Container: src.Container, Path: n.Path}
	if x.presence == named && x.node.Real == n.Real && x.place == place {
		return
	}
	moved := x.place != place && x.Offset > 0
	if x.node.Real != n.Real {
		x.ready = true // events until now may have been about a name that was unknown
	}
	s.index.named(x, n)
	if x.origin == copied {
		return // its lines are those of its original
	}
	s.index.relabel(x, src, place)
	if moved {
		x.moved = true
		s.record.keep(x)
	}
}

// faults says, once, why things that sources name are not followed.
type faults struct {
	say    *say.Sayer
	denied map[string]time.Time // what may not be read, and since which scan
}

// lasts says whether something may not be read for longer than a moment: an application may make a file and then give
// it its mode.
func (f *faults) lasts(about string, now time.Time) bool {
	const moment, most = time.Second, 1000
	since, ok := f.denied[about]
	if !ok {
		if len(f.denied) >= most {
			clear(f.denied)
		}
		f.denied[about] = now
		return false
	}
	return now.Sub(since) >= moment
}

// open says that a file may not be opened.
func (f *faults) open(place contract.Place, n tree.Node, now time.Time) {
	about := place.String()
	if !f.lasts(about, now) {
		return
	}
	remedy := fmt.Sprintf("Set the annotation %s: \"%d\" to run log-bridge as that user", contract.Prefix+contract.KeyRunAsUser, n.Uid)
	if n.Uid == 0 {
		remedy = "Have the application create it readable by others (umask 022)"
	}
	f.say.Once(about, "%s has mode %04o and belongs to user %d; log-bridge runs as user %d and cannot read it; retrying. %s",
		about, n.Mode&0o7777, n.Uid, os.Getuid(), remedy)
}

// forget ends what was said about a file.
func (f *faults) forget(place contract.Place) {
	f.say.Forget(place.String())
	delete(f.denied, place.String())
}

// search says what cannot be searched, and whether that is because a permission is missing.
func (f *faults) search(src *scan.Source, err error, now time.Time) (refused bool) {
	var link *tree.LinkError
	var at *os.PathError
	switch {
	case errors.As(err, &link):
		f.say.Once(src.Container+":"+link.Path, "%s:%v", src.Container, err)
	case errors.Is(err, fs.ErrPermission) && errors.As(err, &at):
		if about := src.Container + ":" + at.Path; f.lasts(about, now) {
			f.say.Once(about, "%s cannot be searched by user %d, which log-bridge runs as (permission denied); retrying. Set another user with the annotation %s",
				about, os.Getuid(), contract.Prefix+contract.KeyRunAsUser)
		}
		return true
	case errors.As(err, &at):
		f.say.Once(src.Container+":"+at.Path, "%s:%s: %v; retrying", src.Container, at.Path, at.Err)
	default:
		f.say.Once(src.Container+":"+err.Error(), "%s:%v", src.Container, err)
	}
	return false
}
