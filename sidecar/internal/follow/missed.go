package follow

import (
	"path"
	"slices"
	"strings"
	"time"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/sidecar/internal/checkpoint"
	"github.com/log-bridge/log-bridge/sidecar/internal/scan"
	"github.com/log-bridge/log-bridge/sidecar/internal/tree"
)

// findRotated searches for files that were closed unfinished and have lost their name since: in the watched directories,
// by identity. After a restart, and whenever twice as many are known as were left the last time, it then walks all that
// the sidecar sees of the containers, and forgets the files that are nowhere any more. One that may not be read is
// searched for again by the next scan.
func (s *scanning) findRotated(lost bool) {
	walk := !s.last.once || s.index.count >= s.limits.forgetAt
	if s.index.count == 0 || !lost && !s.result.hidden && !walk {
		s.result.hidden = false
		return
	}
	s.result.hidden = false
	missing := func(c *file) bool { return c.presence != parked }
	exists := map[*file]bool{}
	visit := func(d *tree.Dir, name string) {
		n, err := d.Lookup(name)
		if err != nil || !slices.ContainsFunc(s.index.closed[n.Ino], missing) {
			return
		}
		// One that may not be read exists as well.
		st, err := d.Statx(name)
		wanted := false
		for _, c := range s.index.closed[n.Ino] {
			if missing(c) && (err != nil || st.Ino == c.Ino && checkpoint.BirthOf(&st) == c.Birth) {
				exists[c] = true
				wanted = wanted || c.presence != finished || n.Size > max(c.Offset, c.rest.size)
			}
		}
		if wanted {
			s.adopt(n, nil, "", func(c *file) bool { return true })
		}
	}
	s.scanner.Dirs(func(d *tree.Dir) {
		scan.Files(d, func(name string) { visit(d, name) })
	})
	if !walk || s.index.count == 0 {
		return
	}
	if _, all := scan.Walk(s.scanner.Roots(), scan.WalkMost, visit); !all {
		return
	}
	var gone []*file
	for _, list := range s.index.closed {
		for _, c := range list {
			if missing(c) && !exists[c] && (c.presence == finished || !s.last.once) {
				gone = append(gone, c)
			}
		}
	}
	for _, c := range gone {
		s.forget(c)
	}
	s.limits.forgetAt = max(forgetLeast, 2*s.index.count)
}

// holders are the newest generations of each name that are known: those that have it, or had it last, in this process
// or before a restart.
func (f *Follower) holders() map[contract.Place]*file {
	holders := map[contract.Place]*file{}
	add := func(x *file) {
		if x.place.Path == "" || x.origin == copied || x.origin == held {
			return
		}
		for _, name := range x.names() {
			has := func(x *file) bool { return x.presence == named && x.place == name }
			if old := holders[name]; old == nil || !has(old) && (has(x) || x.Birth > old.Birth) {
				holders[name] = x
			}
		}
	}
	for _, x := range f.index.open {
		add(x)
	}
	f.index.known(add)
	return holders
}

// A gap is where generations of a name may be missing: those that were born under it after it was last seen with the
// newest one that is known, and were renamed since.
type gap struct {
	name  contract.Place
	since int64     // the earliest birth, in ns since 1970
	after bool      // since itself is too early
	until int64     // the latest birth, 0: there is none
	at    tree.Node // where it was, if it was
	here  bool      // it is there
	// numbered says that only a name with a digit is that of a generation: none is known, and the log may be at its
	// first.
	numbered bool
}

// fits says whether a file that was born then may fill the gap. Two that were born in one tick of the kernel's clock
// (4 ms) have the same time of birth.
func (g gap) fits(birth int64) bool {
	return birth != 0 && (g.until == 0 || birth <= g.until) && (birth > g.since || birth == g.since && !g.after)
}

// gaps are the names to which something happened since the last scan, and those of which no generation was known.
func (s *scanning) gaps() (gaps []gap) {
	store := s.record.store
	for name, x := range s.holders {
		switch {
		case x.round != s.result.round || x.place != name:
			gaps = append(gaps, s.sinceLastScan(gap{name: name, since: x.Birth, at: x.node}))
		case !s.last.once && store.Left() > 0 && x.Birth > store.Left() && s.datedHere(name):
			// It still has the name. Those that were before it may be missing if not all could be noted.
			g := gap{name: name, since: store.Left(), until: x.Birth, at: x.node, numbered: x.emptyAt != 0}
			if x.emptyAt != 0 {
				g.until = 0
			}
			gaps = append(gaps, g)
		case x.emptyAt != 0:
			// It was found empty. What it held meanwhile may be in a copy alone.
			gaps = append(gaps, s.sinceLeft(gap{name: name, since: max(x.Birth, x.emptyAt), at: x.node, here: true, numbered: true}))
		}
	}
	for _, x := range s.index.open {
		if x.Offset > 0 || len(x.Head) > 0 {
			x.emptyAt = 0
		}
	}
	since := store.Birth()
	// No scan searched for generations of a name that only a glob matches, before it was found.
	appeared := func(name contract.Place) {
		if s.holders[name] == nil {
			gaps = append(gaps, s.sinceLeft(gap{name: name, since: since, numbered: true}))
		}
	}
	for i := range s.scanner.Sources() {
		src := &s.scanner.Sources()[i]
		if name := (contract.Place{Container: src.Container, Path: src.Pattern}); !src.IsGlob() && s.holders[name] == nil {
			gaps = append(gaps, s.sinceLastScan(gap{name: name, since: since, numbered: true}))
		}
	}
	for _, x := range s.index.open {
		if x.round != s.result.round || x.Birth < since || !x.src.IsGlob() || !x.current() || x.moved {
			continue // what was beside one that was moved was found there
		}
		for _, name := range x.names() {
			appeared(name)
		}
	}
	for _, name := range s.slipped {
		appeared(name)
	}
	return gaps
}

// sinceLastScan makes a gap smaller: what was there at the scan before, which also searched for it if the name was
// nobody's then, does not fill it.
func (s *scanning) sinceLastScan(g gap) gap {
	g = s.sinceLeft(g)
	if !s.last.once || s.last.hidden {
		return g // there was no such scan, or it could not open all that it found
	}
	if n, ok := s.placeOf(g); ok {
		if before, all := s.scanner.LastChange(n.Parent().Real); before >= g.since && before > 0 {
			g.since, g.after = before, all
		}
	}
	return g
}

// sinceLeft makes a gap smaller: what was there when an earlier process scanned last does not fill it.
func (s *scanning) sinceLeft(g gap) gap {
	if left := s.record.store.Left(); left > g.since && s.datedHere(g.name) {
		g.since = left
	}
	return g
}

// datedHere says whether the files of a name are dated by the clock of this machine.
func (s *scanning) datedHere(name contract.Place) bool {
	n, ok := s.placeOf(gap{name: name})
	return ok && scan.TellsChanges(n.Parent().Real)
}

// placeOf is where a name is, or would be.
func (s *scanning) placeOf(g gap) (n tree.Node, ok bool) {
	if g.here {
		return g.at, true
	}
	src := s.scanner.SourceOf(g.name.Container)
	if src == nil {
		return n, false
	}
	if n, err := src.Tree.Resolve(g.name.Path); err == nil && n.Real != "" {
		return n, true
	}
	// Nobody has the name.
	dir, err := src.Tree.Resolve(path.Dir(g.name.Path))
	switch {
	case err != nil:
		return n, false
	case dir.Real != "":
		return dir.Child(path.Base(g.name.Path)), true
	}
	return g.at, g.at.Real != "" // one file of a volume: its directory is not the container's
}

// missed are the gaps of a directory, and what may fill them, by the name.
type missed struct {
	dir   tree.Node
	gaps  map[string]gap
	found map[string][]candidate
}

// candidate is a file that may be a generation.
type candidate struct {
	dir  tree.Node
	name string
}

// findMissed searches for generations of names that came and went between two scans, or while the sidecar was down: in
// the directory of the name, and in all that the sidecar sees of the container. Each directory is listed once.
func (s *scanning) findMissed(gaps []gap) {
	dirs := map[string]*missed{}
	for _, g := range gaps {
		n, ok := s.placeOf(g)
		if !ok {
			continue
		}
		dir, base := n.Parent(), path.Base(n.Real)
		m := dirs[dir.Real]
		if m == nil {
			m = &missed{dir, map[string]gap{}, map[string][]candidate{}}
			dirs[dir.Real] = m
		}
		m.gaps[base] = g
	}
	for _, m := range dirs {
		d, err := m.dir.OpenDir()
		if err != nil {
			continue
		}
		names := map[string]bool{}
		scan.Files(d, func(name string) {
			if m.mayBe(name, m.dir) {
				names[name] = true
			}
		})
		for name := range names {
			// A checksum of a generation is none, nor is its compressed form.
			if of := madeOf(name); of != "" && names[of] {
				for base := range m.found {
					m.found[base] = slices.DeleteFunc(m.found[base], func(c candidate) bool { return c.name == name })
				}
			}
		}
		d.Close()
		s.findElsewhere(m)
		for base, found := range m.found {
			slices.SortFunc(found, func(a, b candidate) int { return byAge(a.name, b.name, false) })
			for _, c := range slices.Compact(found) {
				s.fill(m.gaps[base], c)
			}
		}
	}
}

// mayBe notes a name that may be that of a generation. It says whether it is.
func (m *missed) mayBe(name string, dir tree.Node) (yes bool) {
	for i := 1; i < len(name); i++ {
		base := name[:i]
		g, ok := m.gaps[base]
		if ok && isGeneration(base, name) && (!g.numbered || strings.ContainsAny(name[i:], "0123456789")) {
			m.found[base] = append(m.found[base], candidate{dir, name})
			yes = true
		}
	}
	return yes
}

// elsewhere bounds the search for generations in other directories than that of their log.
type elsewhere struct {
	ended time.Time     // when the last one ended
	took  time.Duration // how long it took
}

// elsewhereAlways is how many names are always searched through. For more, such a search takes at most
// 1/elsewherePart of the time.
const (
	elsewhereAlways = 2000
	elsewherePart   = 20
)

// findElsewhere searches for generations in other directories than that of their log, as logrotate's olddir. One that
// has a log of the same name is left to that.
func (s *scanning) findElsewhere(m *missed) {
	walked := map[string]bool{}
	for _, g := range m.gaps {
		src := s.scanner.SourceOf(g.name.Container)
		if g.here || src == nil || walked[src.Container] {
			continue
		}
		walked[src.Container] = true
		begun := time.Now()
		most := elsewhereAlways
		if !s.last.once || begun.Sub(s.wide.ended) >= elsewherePart*s.wide.took {
			most = scan.WalkMost
		}
		scan.Walk(src.Tree.Dirs(), most, func(d *tree.Dir, name string) {
			if d.Node().Real == m.dir.Real {
				return
			}
			for i := 1; i < len(name); i++ {
				if g, ok := m.gaps[name[:i]]; ok && g.name.Container == src.Container {
					// The log itself may have moved there, or its directory has, where it had a successor already.
					if n, err := d.Lookup(name[:i]); err != nil || inodeOf(n) == inodeOf(g.at) || s.scanner.Was(m.dir.Real, d) {
						m.mayBe(name, d.Node())
					}
					return
				}
			}
		})
		s.wide = elsewhere{time.Now(), time.Since(begun)}
	}
}

// fill follows a candidate if it is a generation that fills a gap.
func (s *scanning) fill(g gap, c candidate) {
	d, err := c.dir.OpenDir()
	if err != nil {
		return
	}
	defer d.Close()
	n, err := d.Lookup(c.name)
	if err != nil {
		return
	}
	s.adopt(n, s.scanner.SourceOf(g.name.Container), g.name.Path, func(c *file) bool {
		if !g.fits(c.Birth) {
			return false
		}
		var head [16]byte
		m, err := c.Pread(head[:], 0)
		return err != nil || !isPacked(head[:m])
	})
}
