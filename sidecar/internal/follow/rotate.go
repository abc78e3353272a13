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
	if f.looked && len(f.closed) < f.forgetAt || len(f.closed) == 0 || !f.walk(visit) {
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

// walk calls visit for each regular file that the sidecar sees. It returns false if it did not
// see all.
func (f *Follower) walk(visit func(d *tree.Dir, name string)) bool {
	walked := map[string]bool{}
	var todo []tree.Node
	for _, src := range f.sources {
		for _, root := range src.tree.Dirs() {
			if !walked[root.Real] {
				walked[root.Real] = true
				todo = append(todo, root)
			}
		}
	}
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

// A gap is where generations of a name may be missing: those that were born after the newest one
// that is known.
type gap struct {
	name  contract.Place
	since int64     // birth of the newest generation, in ns
	at    tree.Node // where it was, if it was
	first bool      // none is known: they were born since the sidecar first started
}

// gaps are the names to which something happened since the last look, and those of which no
// generation was known.
func (f *Follower) gaps(holder map[contract.Place]*file) (gaps []gap) {
	for name, x := range holder {
		if x.round != f.round || x.place() != name { // else it still has the name
			gaps = append(gaps, gap{name, x.Birth, x.node, false})
		}
	}
	since := f.store.Birth()
	for i := range f.sources {
		src := &f.sources[i]
		if name := (contract.Place{Container: src.Container, Path: src.Pattern}); !src.IsGlob() && holder[name] == nil {
			gaps = append(gaps, gap{name, since, tree.Node{}, true})
		}
	}
	for _, x := range f.open {
		if x.round == f.round && x.Birth >= since && x.src.IsGlob() && x.current() && holder[x.place()] == nil {
			gaps = append(gaps, gap{x.place(), since, tree.Node{}, true})
		}
	}
	return gaps
}

// findMissed looks for generations of names that came and went between two looks, or
// while the sidecar was down: siblings of the name. Each directory is listed once.
func (f *Follower) findMissed(gaps []gap, now time.Time) {
	type missed struct {
		dir   tree.Node
		names map[string][]string // what may be generations, by the name
		gaps  map[string]gap
	}
	dirs := map[string]*missed{}
	for _, g := range gaps {
		n, ok := f.placeOf(g)
		if !ok {
			continue
		}
		dir, base := n.Parent(), path.Base(n.Real)
		m := dirs[dir.Real]
		if m == nil {
			m = &missed{dir, map[string][]string{}, map[string]gap{}}
			dirs[dir.Real] = m
		}
		m.gaps[base] = g
	}
	for _, m := range dirs {
		d, err := m.dir.OpenDir()
		if err != nil {
			continue
		}
		f.eachFile(d, func(name string) {
			for i := range len(name) {
				base := name[:i]
				if g, ok := m.gaps[base]; ok && isGeneration(base, name) && !slices.Contains(m.names[base], name) {
					// Without a digit it neither counts generations nor dates them: the log may be at its first.
					if !g.first || strings.ContainsAny(name[i:], "0123456789") {
						m.names[base] = append(m.names[base], name)
					}
				}
			}
		})
		for base, names := range m.names {
			g := m.gaps[base]
			slices.SortFunc(names, byAge)
			for _, name := range names {
				n, err := d.Lookup(name)
				if err != nil {
					continue
				}
				// Two files born in one tick of the kernel's clock (4 ms) have the same birth time.
				f.adopt(n, f.sourceOf(g.name.Container), g.name.Path, func(c *file) bool { return c.Birth >= g.since && c.Birth != 0 }, now)
			}
		}
		d.Close()
	}
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
		if ok(f.closed[known]) {
			if src := f.sourceOf(f.closed[known].Container); src != nil {
				n.Path = f.closed[known].Path
				x, _ = f.take(src, n, fd)
			}
		}
	case src != nil && ok(&file{Record: checkpoint.Record{Ident: id}}):
		n.Path = path
		x, _ = f.take(src, n, fd)
		f.stats.Rotations++
	}
	if x == nil {
		unix.Close(fd)
		return
	}
	x.behind, x.grew = true, now
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
		if !x.gone() || x.ready || x.failed || x.fd < 0 {
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
