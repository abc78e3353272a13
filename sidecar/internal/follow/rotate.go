package follow

import (
	"cmp"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/sidecar/internal/checkpoint"
	"github.com/log-bridge/log-bridge/sidecar/internal/tree"
	"golang.org/x/sys/unix"
)

// lostName notes that no source matches a file any more: it was renamed or deleted.
// It stays open, and is followed until nobody can append to it.
func (f *Follower) lostName(x *file, now time.Time) {
	x.named, x.behind, x.ready = false, true, true
	x.grew = now
	if f.real[x.node.Real] == x {
		delete(f.real, x.node.Real)
	}
}

// order lets the generations of each name follow one another: the oldest goes first,
// and the one that has the name last.
func (f *Follower) order() {
	earlier := false
	for _, x := range f.open {
		x.before = nil
		earlier = earlier || !x.current()
	}
	if !earlier {
		return
	}
	generations := map[contract.Place][]*file{}
	for _, x := range f.open {
		if x.original == nil { // else it is held, and nobody waits for it
			generations[x.place()] = append(generations[x.place()], x)
		}
	}
	for _, g := range generations {
		slices.SortStableFunc(g, func(a, b *file) int {
			if a.current() != b.current() {
				if b.current() {
					return -1
				}
				return 1
			}
			if a.Birth != b.Birth {
				return cmp.Compare(a.Birth, b.Birth)
			}
			// Born in one tick of the clock: the earlier one was left earlier.
			return cmp.Compare(a.modified(), b.modified())
		})
		for i := 1; i < len(g); i++ {
			g[i].before = g[i-1]
			g[i-1].behind = g[i-1].behind || g[i-1].ready
		}
	}
}

// place is the name that a file has, or had last.
func (x *file) place() contract.Place { return contract.Place{Container: x.Container, Path: x.Path} }

// current says whether a file has its name now, rather than being an earlier generation
// or a copy of one.
func (x *file) current() bool { return x.named && x.Flags&checkpoint.Copy == 0 }

// findRotated looks for files that were closed unfinished and have lost their name since:
// in the watched directories, by identity. After a restart, and whenever twice as many are known as
// were left the last time, it then walks all that the sidecar sees of the containers, and forgets the
// files that are nowhere any more. One that may not be read is looked for again at the next look.
func (f *Follower) findRotated(now time.Time) {
	f.hidden = false
	missing := map[uint64][]*file{} // by their inode number, which another file may have by now
	exists := map[*file]bool{}
	for _, c := range f.closed {
		if f.parked[inode{c.node.Dev, c.node.Ino}] != c {
			missing[c.Ino] = append(missing[c.Ino], c)
		}
	}
	visit := func(d *tree.Dir, name string) {
		n, err := d.Lookup(name)
		if err != nil || missing[n.Ino] == nil {
			return
		}
		// One that may not be read exists as well.
		st, err := d.Statx(name)
		here := false
		for _, c := range missing[n.Ino] {
			if err != nil || st.Ino == c.Ino && checkpoint.BirthOf(&st) == c.Birth {
				here, exists[c] = true, true
			}
		}
		if here {
			f.adopt(n, nil, "", func(c *file) bool { return c.Flags&checkpoint.Done == 0 }, now)
		}
	}
	for _, known := range f.dirs {
		if d, err := known.node.OpenDir(); err == nil {
			f.eachFile(d, func(name string) { visit(d, name) })
			d.Close()
		}
	}
	if f.looked && len(f.closed) < f.forgetAt || len(f.closed) == 0 || !f.walk(f.roots(), visit) {
		return
	}
	for _, c := range slices.Clone(f.closed) {
		gone := slices.Contains(missing[c.Ino], c) && !exists[c]
		if gone && (c.Flags&checkpoint.Done != 0 || !f.looked) {
			f.forget(c)
		}
	}
	f.forgetAt = max(forgetLeast, 2*len(f.closed))
}

// eachFile calls visit with the names in a directory that may be those of regular files, each at least once. A
// name that is given while the directory is listed may be missing in the list, so that is made again.
func (f *Follower) eachFile(d *tree.Dir, visit func(name string)) {
	for range 3 {
		before := d.Changed()
		if err := d.Each(func(name string, kind tree.Kind) {
			if kind == tree.File || kind == tree.Unknown {
				visit(name)
			}
		}); err != nil || d.Changed() == before {
			return
		}
	}
}

// forgetLeast is how many closed files are remembered before those that are gone are forgotten.
const forgetLeast = 64

// walkMost is the most that is walked through after a restart: a volume of the user's may
// hold millions of files that are not ours to follow.
const walkMost = 100_000

// roots are the directories that hold what the sidecar sees.
func (f *Follower) roots() (roots []tree.Node) {
	seen := map[string]bool{}
	for _, src := range f.sources {
		for _, root := range src.tree.Dirs() {
			if !seen[root.Real] {
				seen[root.Real] = true
				roots = append(roots, root)
			}
		}
	}
	return roots
}

// walk calls visit for each regular file beneath some directories. It returns false if it did not
// see all.
func (f *Follower) walk(todo []tree.Node, visit func(d *tree.Dir, name string)) bool {
	for seen := 0; len(todo) > 0; {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		d, err := at.OpenDir()
		switch {
		case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP):
			continue
		case err != nil:
			return false
		}
		err = d.Each(func(name string, kind tree.Kind) {
			if seen++; seen > walkMost {
				return
			}
			if kind == tree.Unknown {
				if n, err := d.Lookup(name); err == nil && n.IsDir() {
					kind = tree.Directory
				}
			}
			if kind == tree.Directory {
				todo = append(todo, at.Child(name))
				return
			}
			if kind != tree.Other {
				visit(d, name)
			}
		})
		d.Close()
		if err != nil || seen > walkMost {
			return false
		}
	}
	return true
}

// forget frees the record of a closed file that is gone.
func (f *Follower) forget(x *file) {
	f.closed = slices.DeleteFunc(f.closed, func(c *file) bool { return c == x })
	if err := f.store.Free(x.pair); err != nil {
		f.say.Once("checkpoint", "%v", err)
	}
}

// holders are the newest generations of each name that are known: those that have it, or
// had it last, in this process or before a restart.
func (f *Follower) holders() map[contract.Place]*file {
	clear(f.holder)
	for _, files := range [][]*file{f.open, f.closed} {
		for _, x := range files {
			if x.Path == "" || x.Flags&(checkpoint.Copy|checkpoint.Held) != 0 {
				continue
			}
			name := x.place()
			if old := f.holder[name]; old == nil || !old.named && (x.named || x.Birth > old.Birth) {
				f.holder[name] = x
			}
		}
	}
	return f.holder
}

// A gap is where generations of a name may be missing: those that were born under it after it was last seen
// with the newest one that is known, and were renamed since.
type gap struct {
	name  contract.Place
	since int64     // the earliest birth, in ns since 1970
	after bool      // since itself is too early
	until int64     // the latest birth, 0: there is none
	at    tree.Node // where it was, if it was
	first bool      // none is known: they were born since the sidecar first started
}

// fits says whether a file that was born then may fill the gap. Two that were born in one tick of the kernel's clock
// (4 ms) have the same time of birth.
func (g gap) fits(birth int64) bool {
	return birth != 0 && (g.until == 0 || birth <= g.until) && (birth > g.since || birth == g.since && !g.after)
}

// gaps are the names to which something happened since the last look, and those of which no
// generation was known.
func (f *Follower) gaps(holder map[contract.Place]*file) (gaps []gap) {
	for name, x := range holder {
		if x.round == f.round && x.place() == name {
			// It still has the name. Those that were before it may be missing if not all could be noted.
			if left := f.store.Left(); !f.looked && left > 0 && x.Birth > left && f.datedHere(name) {
				gaps = append(gaps, gap{name: name, since: left, until: x.Birth, at: x.node})
			}
			continue
		}
		g := gap{name: name, since: x.Birth, at: x.node}
		gaps = append(gaps, f.sinceLastLook(g))
	}
	since := f.store.Birth()
	for i := range f.sources {
		src := &f.sources[i]
		if name := (contract.Place{Container: src.Container, Path: src.Pattern}); !src.IsGlob() && holder[name] == nil {
			gaps = append(gaps, f.sinceLastLook(gap{name: name, since: since, first: true}))
		}
	}
	for _, x := range f.open {
		if x.round == f.round && x.Birth >= since && x.src.IsGlob() && x.current() && holder[x.place()] == nil {
			gaps = append(gaps, f.sinceLastLook(gap{name: x.place(), since: since, first: true}))
		}
	}
	return gaps
}

// sinceLastLook makes a gap smaller: what was there at the look before, which also looked for it if the name was nobody's
// then, does not fill it.
func (f *Follower) sinceLastLook(g gap) gap {
	switch {
	case !f.looked && f.datedHere(g.name):
		g.since = max(g.since, f.store.Left())
	case f.looked && !f.wasHidden: // else that look could not open all that it found
		if n, ok := f.placeOf(g); ok {
			if d := f.dirs[n.Parent().Real]; d != nil && d.before >= g.since {
				g.since, g.after = d.before, d.beforeAll
			}
		}
	}
	return g
}

// datedHere says whether the files of a name are dated by the clock of this machine.
func (f *Follower) datedHere(name contract.Place) bool {
	n, ok := f.placeOf(gap{name: name})
	return ok && tellsChanges(n.Parent().Real)
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

// findMissed looks for generations of names that came and went between two looks, or
// while the sidecar was down: in the directory of the name and, after a restart, in all that the sidecar
// sees of the container. Each directory is listed once.
func (f *Follower) findMissed(gaps []gap, now time.Time) {
	dirs := map[string]*missed{}
	for _, g := range gaps {
		n, ok := f.placeOf(g)
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
		f.eachFile(d, func(name string) {
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
		if !f.looked {
			f.findElsewhere(m)
		}
		for base, found := range m.found {
			slices.SortFunc(found, func(a, b candidate) int { return byAge(a.name, b.name) })
			for _, c := range slices.Compact(found) {
				f.fill(m.gaps[base], c, now)
			}
		}
	}
}

// mayBe notes a name that may be that of a generation. It says whether it is.
func (m *missed) mayBe(name string, dir tree.Node) (yes bool) {
	for i := 1; i < len(name); i++ {
		base := name[:i]
		g, ok := m.gaps[base]
		// Without a digit it neither counts generations nor dates them: the log may be at its first.
		if ok && isGeneration(base, name) && (!g.first || strings.ContainsAny(name[i:], "0123456789")) {
			m.found[base] = append(m.found[base], candidate{dir, name})
			yes = true
		}
	}
	return yes
}

// findElsewhere looks for generations in other directories than that of their log, as logrotate's olddir. One that
// has a log of the same name is left to that.
func (f *Follower) findElsewhere(m *missed) {
	walked := map[string]bool{}
	for _, g := range m.gaps {
		src := f.sourceOf(g.name.Container)
		if g.first || src == nil || walked[src.Container] {
			continue
		}
		walked[src.Container] = true
		f.walk(src.tree.Dirs(), func(d *tree.Dir, name string) {
			if d.Node().Real == m.dir.Real {
				return
			}
			for i := 1; i < len(name); i++ {
				if g, ok := m.gaps[name[:i]]; ok && g.name.Container == src.Container {
					if _, err := d.Lookup(name[:i]); err != nil {
						m.mayBe(name, d.Node())
					}
					return
				}
			}
		})
	}
}

// fill follows a candidate if it is a generation that fills a gap.
func (f *Follower) fill(g gap, c candidate, now time.Time) {
	d, err := c.dir.OpenDir()
	if err != nil {
		return
	}
	defer d.Close()
	n, err := d.Lookup(c.name)
	if err != nil {
		return
	}
	f.adopt(n, f.sourceOf(g.name.Container), g.name.Path, func(c *file) bool {
		if !g.fits(c.Birth) {
			return false
		}
		var head [16]byte
		m, err := c.pread(head[:], 0)
		return err != nil || !isPacked(head[:m])
	}, now)
}

// placeOf is where a name is, or would be.
func (f *Follower) placeOf(g gap) (n tree.Node, ok bool) {
	src := f.sourceOf(g.name.Container)
	if src == nil {
		return n, false
	}
	if n, err := src.tree.Resolve(g.name.Path); err == nil && n.Real != "" {
		return n, true
	}
	// Nobody has the name.
	dir, err := src.tree.Resolve(path.Dir(g.name.Path))
	switch {
	case err != nil:
		return n, false
	case dir.Real != "":
		return dir.Child(path.Base(g.name.Path)), true
	}
	return g.at, g.at.Real != "" // one file of a volume: its directory is not the container's
}

// adopt opens a file that has no followed name, and follows it if ok says so of its
// record. It is known from the checkpoint, or, with a source, a generation of the file
// at path.
func (f *Follower) adopt(n tree.Node, src *source, path string, ok func(*file) bool, now time.Time) {
	if !n.IsRegular() || f.inode[inode{n.Dev, n.Ino}] != nil {
		return
	}
	f.makeRoom()
	fd, n, err := n.Open()
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EMFILE) {
		f.hidden = true
		return
	}
	if err != nil {
		return
	}
	if f.inode[inode{n.Dev, n.Ino}] != nil {
		unix.Close(fd) // another file has the name by now, one that is open
		return
	}
	id, err := ident(fd)
	known := slices.IndexFunc(f.closed, func(c *file) bool { return c.Same(id) })
	var x *file
	switch {
	case err != nil:
	case known >= 0:
		if c := f.closed[known]; ok(&file{Record: c.Record, fd: fd}) {
			if src := f.sourceOf(f.closed[known].Container); src != nil {
				n.Path = f.closed[known].Path
				x, _ = f.take(src, n, fd)
			}
		}
	case src != nil && ok(&file{Record: checkpoint.Record{Ident: id}, fd: fd}):
		n.Path = path
		x, _ = f.take(src, n, fd)
		f.stats.Rotations++
	}
	if x == nil {
		unix.Close(fd)
		return
	}
	x.behind, x.grew = true, now
	x.missed = known < 0
}

// sourceOf finds a source of a container, for a file of the checkpoint.
func (f *Follower) sourceOf(container string) *source {
	for i := range f.sources {
		if f.sources[i].Container == container {
			return &f.sources[i]
		}
	}
	return nil
}

// finishGone closes the files without a name that are delivered whole and that
// nobody can append to any more.
func (f *Follower) finishGone(now time.Time) error {
	if !slices.ContainsFunc(f.open, (*file).gone) {
		return nil
	}
	for _, x := range slices.Clone(f.open) {
		if !x.gone() || x.ready || x.failed || x.missed && !x.held.IsZero() || x.fd < 0 {
			continue
		}
		if x.original != nil {
			// A copy that was deleted is of no use as long as its original is whole.
			if st, err := x.stat(); err == nil && st.Nlink == 0 && x.original.fd >= 0 && x.original.intact() {
				f.finish(x, false)
			}
			continue
		}
		switch x.writers() {
		case some:
			continue
		case unknown:
			if now.Sub(x.grew) < quietFor {
				continue
			}
		case none:
		}
		// What came after it is found by what is known of it.
		if f.stale || !f.lastLook.Equal(now) {
			f.look(now)
			if x.named || x.ready {
				continue
			}
		}
		// A last line may have been written before the writer went.
		st, err := x.stat()
		if err == nil && (st.Size != x.end || x.writtenSince(true)) {
			x.ready = true
			continue
		}
		if err := f.flush(x); err != nil {
			return err
		}
		for _, c := range f.open {
			if c != x && c.Offset == 0 && c.original == nil {
				f.heldAsCopy(c, now, false) // while there is something to compare it with
			}
		}
		f.finish(x, err == nil && st.Nlink > 0)
	}
	return nil
}

// gone says that no source matches a file any more.
func (x *file) gone() bool { return !x.named }

// finish ends the following of a file. exists says that it still has a name, so
// that it may be met again.
func (f *Follower) finish(x *file, exists bool) {
	f.settleCopies(x)
	f.judgeAnew()
	f.close(x)
	if !exists {
		f.forget(x)
		return
	}
	x.Flags |= checkpoint.Done
	f.keep(x)
}

// close closes a file's descriptor; its record is kept.
func (f *Follower) close(x *file) {
	if x.fd < 0 {
		return
	}
	unix.Close(x.fd)
	x.fd, x.named, x.ready, x.behind = -1, false, false, false
	f.open = slices.DeleteFunc(f.open, func(o *file) bool { return o == x })
	for key, o := range f.inode {
		if o == x {
			delete(f.inode, key)
		}
	}
	if f.real[x.node.Real] == x {
		delete(f.real, x.node.Real)
	}
	f.closed = append(f.closed, x)
}
