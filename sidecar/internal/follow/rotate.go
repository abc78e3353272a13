package follow

import (
	"bytes"
	"cmp"
	"os"
	"path"
	"slices"
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

// findRotated looks, after a restart, for files of the checkpoint that have lost
// their name meanwhile: in the watched directories, by identity.
func (f *Follower) findRotated(dirs map[string]bool, now time.Time) {
	wanted := map[uint64]bool{}
	for _, c := range f.closed {
		wanted[c.Ino] = c.Flags&checkpoint.Done == 0
	}
	for dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if !e.Type().IsRegular() {
				continue
			}
			real := dir + "/" + e.Name()
			var st unix.Stat_t
			if unix.Lstat(real, &st) != nil || !wanted[st.Ino] || f.inode[inode{uint64(st.Dev), st.Ino}] != nil { //nolint:unconvert // Dev is 32 bits wide on some architectures
				continue
			}
			f.adopt(real, nil, "", func(c *file) bool { return c.Flags&checkpoint.Done == 0 }, now)
		}
	}
}

// holdersBefore adds, after a restart, the newest generation of each name that the
// checkpoint knows.
func (f *Follower) holdersBefore(holder map[string]*file) {
	for _, c := range f.closed {
		name := c.Container + ":" + c.Path
		if old := holder[name]; c.Flags&checkpoint.Copy == 0 && c.Path != "" && (old == nil || c.Birth > old.Birth) {
			holder[name] = c
		}
	}
}

// findMissed looks for generations of a name that came and went between two looks, or
// while the sidecar was down: siblings of the name, born after the newest generation
// that is known. old is that generation.
func (f *Follower) findMissed(name string, old *file, now time.Time) {
	if old.named && old.Container+":"+old.Path == name {
		return // nothing happened to the name
	}
	src, real := old.src, old.node.Real
	if !f.looked {
		if src = f.sourceOf(old.Container); src == nil {
			return
		}
		dir, err := src.tree.Resolve(path.Dir(old.Path))
		if err != nil {
			return
		}
		real = path.Join(dir.Real, path.Base(old.Path))
	}
	for _, real := range siblings(real) {
		// Two files born in one tick of the kernel's clock (4 ms) have the same birth time.
		f.adopt(real, src, old.Path, func(c *file) bool { return c.Birth > old.Birth || c.Birth == old.Birth && c.Birth != 0 }, now)
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
		switch x.writers() {
		case some:
			continue
		case unknown:
			if now.Sub(x.grew) < quietFor {
				continue
			}
		case none:
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
		f.closed = slices.DeleteFunc(f.closed, func(c *file) bool { return c == x })
		if err := f.store.Free(x.pair); err != nil {
			f.say.Once("checkpoint", "%v", err)
		}
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
