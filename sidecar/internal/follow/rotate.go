package follow

import (
	"bytes"
	"cmp"
	"errors"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

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
	generations := map[string][]*file{}
	for _, x := range f.open {
		x.before = nil
		if x.original != nil {
			continue // held, and nobody waits for it
		}
		key := x.Container + ":" + x.Path
		generations[key] = append(generations[key], x)
	}
	for _, g := range generations {
		if len(g) < 2 {
			continue
		}
		slices.SortStableFunc(g, func(a, b *file) int {
			if a.current() != b.current() {
				if b.current() {
					return -1
				}
				return 1
			}
			return cmp.Compare(a.Birth, b.Birth)
		})
		for i := 1; i < len(g); i++ {
			g[i].before = g[i-1]
			g[i-1].behind = g[i-1].behind || g[i-1].ready
		}
	}
}

// current says whether a file has its name now, rather than being an earlier generation
// or a copy of one.
func (x *file) current() bool { return x.named && x.Flags&checkpoint.Copy == 0 }

// findRotated looks for files that were closed unfinished and have lost their name since:
// in the watched directories, by identity. After a restart it then walks all that the
// sidecar sees of the containers, and forgets the files that are nowhere any more.
func (f *Follower) findRotated(dirs map[string]bool, now time.Time) {
	closed := map[uint64]bool{} // by inode number: false once it is found
	for _, c := range f.closed {
		closed[c.Ino] = true
	}
	visit := func(real string) {
		var st unix.Stat_t
		if unix.Lstat(real, &st) != nil || !closed[st.Ino] {
			return
		}
		closed[st.Ino] = false
		f.adopt(real, nil, "", func(c *file) bool { return c.Flags&checkpoint.Done == 0 }, now)
	}
	for dir := range dirs {
		for _, e := range f.list(dir) {
			if e.Type().IsRegular() {
				visit(dir + "/" + e.Name())
			}
		}
	}
	if f.looked || len(f.closed) == 0 || !f.walk(visit) {
		return
	}
	for _, c := range slices.Clone(f.closed) {
		if closed[c.Ino] {
			f.forget(c)
		}
	}
}

// walkMost is the most that is walked through after a restart: a volume of the user's may
// hold millions of files that are not ours to follow.
const walkMost = 100_000

// walk calls visit for each regular file that the sidecar sees. It returns false if it did not
// see all.
func (f *Follower) walk(visit func(real string)) bool {
	errFull := errors.New("too many files")
	walked := map[string]bool{}
	n := 0
	for _, src := range f.sources {
		for _, root := range src.tree.Dirs() {
			if walked[root] {
				continue
			}
			walked[root] = true
			err := filepath.WalkDir(root, func(real string, e fs.DirEntry, err error) error {
				if n++; n > walkMost {
					return errFull
				}
				if err == nil && e.Type().IsRegular() {
					visit(real)
				}
				return err
			})
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return false
			}
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
func (f *Follower) holders() map[string]*file {
	holder := make(map[string]*file, len(f.open))
	for _, files := range [][]*file{f.open, f.closed} {
		for _, x := range files {
			if x.Path == "" || x.Flags&checkpoint.Copy != 0 {
				continue
			}
			name := x.Container + ":" + x.Path
			if old := holder[name]; old == nil || !old.named && (x.named || x.Birth > old.Birth) {
				holder[name] = x
			}
		}
	}
	return holder
}

// unheld are the names of which no generation is known: those that entries name, and those that
// this look has found. What came and went of them did so since the sidecar first started.
func (f *Follower) unheld(holder map[string]*file) map[string]*file {
	var names map[string]*file
	note := func(src *source, path, real string) {
		name := src.Container + ":" + path
		if holder[name] != nil {
			return
		}
		if names == nil {
			names = map[string]*file{}
		}
		names[name] = &file{Record: checkpoint.Record{Ident: checkpoint.Ident{Birth: f.store.Birth()}}, node: tree.Node{Real: real}}
	}
	for i := range f.sources {
		if src := &f.sources[i]; !src.IsGlob() {
			note(src, src.Pattern, "")
		}
	}
	for _, x := range f.open {
		if x.round == f.round && x.current() {
			note(x.src, x.Path, x.node.Real)
		}
	}
	return names
}

// findMissed looks for generations of a name that came and went between two looks, or
// while the sidecar was down: siblings of the name, born after the newest generation
// that is known. old is that generation.
func (f *Follower) findMissed(name string, old *file, now time.Time) {
	container, name, _ := strings.Cut(name, ":")
	src := f.sourceOf(container)
	if src == nil {
		return
	}
	n, err := src.tree.Resolve(name)
	if err != nil {
		// Nobody has the name.
		if n, err = src.tree.Resolve(path.Dir(name)); err != nil {
			return
		}
		switch {
		case n.Real != "":
			n.Real = path.Join(n.Real, path.Base(name))
		case old.node.Real != "":
			n.Real = old.node.Real // one file of a volume: its directory is not the container's
		default:
			return
		}
	}
	for _, real := range f.siblings(n.Real) {
		if old.Ino == 0 && !strings.ContainsAny(real[len(n.Real):], "0123456789") {
			continue // the first generation of a log has only just been found: what is beside it need not be one
		}
		// Two files born in one tick of the kernel's clock (4 ms) have the same birth time.
		f.adopt(real, src, name, func(c *file) bool { return c.Birth > old.Birth || c.Birth == old.Birth && c.Birth != 0 }, now)
	}
}

// adopt opens a file that has no followed name, and follows it if ok says so of its
// record. It is known from the checkpoint, or, with a source, a generation of the file
// at path.
func (f *Follower) adopt(real string, src *source, path string, ok func(*file) bool, now time.Time) {
	n, err := tree.At(real)
	if err != nil || f.inode[inode{n.Dev, n.Ino}] != nil {
		return
	}
	fd, err := n.Open()
	if err != nil {
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
	for _, x := range slices.Clone(f.open) {
		if x.named || x.ready || x.fd < 0 {
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
		if !f.lastLook.Equal(now) {
			f.look(now)
			if x.named || x.ready {
				continue
			}
		}
		// A last line may have been written before the writer went.
		st, err := x.stat()
		if err == nil && f.unread(x, st.Size) {
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

// unread says whether a file holds a whole line that is not delivered.
func (f *Follower) unread(x *file, size int64) bool {
	if size <= x.Offset {
		return size < x.Offset
	}
	for at := max(x.Offset, x.scan); at < size; {
		n, err := x.pread(f.buf[:blockSize], at)
		if err != nil || n == 0 {
			return false
		}
		if bytes.IndexByte(f.buf[:n], '\n') >= 0 {
			return true
		}
		at += int64(n)
	}
	return false
}

// finish ends the following of a file. exists says that it still has a name, so
// that it may be met again.
func (f *Follower) finish(x *file, exists bool) {
	f.settleCopies(x)
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
