package follow

import (
	"bytes"
	"path"
	"time"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/sidecar/internal/cursor"
	"github.com/log-bridge/log-bridge/sidecar/internal/scan"
	"github.com/log-bridge/log-bridge/sidecar/internal/tree"
	"golang.org/x/sys/unix"
)

// smallest is the size in bytes from which on equal content is proof that one file is the copy of another.
const smallest = cursor.Window

// hold is why nothing of a file is delivered.
type hold struct {
	original *file // whose copy it seems to be; nil after a restart, until it is judged
	since    time.Time
	sizeThen int64
	// missed says that the file was taken for a generation that came and went between two scans.
	missed bool
}

// isHeld decides whether a file of which nothing is delivered is held. ending says that nothing will change any more.
func (f *Follower) isHeld(x *file, now time.Time, ending bool) bool {
	if x.Offset > 0 || x.origin == own || x.origin == copied {
		return false
	}
	size, ok := x.size()
	if ok {
		size = cursor.DataEnd(x, size, f.buf)
	}
	if !ok || size == 0 {
		f.release(x, undecided)
		return false
	}
	if x.missed && f.isCopyOfFinished(x, size, now, ending) {
		return true
	}
	others, q := f.compare(x, size)
	q.held, q.ending = now.Sub(x.since), ending
	if x.original == nil {
		q.held = 0
	}
	v, of := judge(q)
	switch v {
	case later:
		for i, k := range others {
			if q.others[i].like != unlike && !q.others[i].intact {
				k.ready = true
			}
		}
		return true
	case aCopy:
		if x.original == nil {
			x.since = now
		}
		x.original = others[of]
		if x.origin != held {
			x.origin = held
			f.record.keep(x)
		}
		return true
	case itself:
	}
	if f.knownByItsPast(x, size) {
		return x.Offset == size
	}
	f.release(x, own)
	return false
}

// release ends the holding of a file.
func (f *Follower) release(x *file, o origin) {
	x.original, x.origin = nil, o
}

// compare compares a file of size bytes with all that it may be a copy of.
func (f *Follower) compare(x *file, size int64) (others []*file, q question) {
	q.size = size
	compared := map[*file]bool{x: true}
	add := func(k *file) {
		if compared[k] || k.original == x { // of two, only one waits for the other
			return
		}
		compared[k] = true
		c := comparison{waitsFor: k == x.original, named: k.presence == named}
		if k.place.Container == x.place.Container {
			c.like = looksLikeCopyOf(x.node.Real, k.node.Real)
			if c.like == unlike && k.older(x) {
				// A backup may have been copied before the original was renamed.
				c.like = looksLikeCopyOf(x.node.Real, k.place.Path)
			}
		}
		if c.like == unlike && (c.waitsFor || x.original == nil && x.origin == held) {
			c.like = likely // one of them was renamed since
		}
		if c.like == unlike {
			return
		}
		if c.intact = k.Intact(k); c.intact {
			c.same = x.beginsAs(k, size) && x.endsWithin(k, size)
		}
		others, q.others = append(others, k), append(q.others, c)
	}
	f.index.originals(x, add)
	if x.original != nil {
		add(x.original)
	} else if x.origin == held {
		for _, k := range f.index.open {
			add(k)
		}
	}
	return others, q
}

// sameName says whether two places have the same name, perhaps in different directories: a copy may have been moved with
// the directory that it was made in.
func sameName(a, b contract.Place) bool {
	return a.Container == b.Container && path.Base(a.Path) == path.Base(b.Path)
}

// isCopyOfFinished compares a file of size bytes, which is taken for a generation that was missed, with those of its
// name that are finished: it may be a copy of one, as logrotate's renamecopy makes it, or become one.
func (f *Follower) isCopyOfFinished(x *file, size int64, now time.Time, ending bool) bool {
	like, whole := unlike, false
	f.index.known(func(c *file) {
		if c.presence != finished || !sameName(c.place, x.place) || size > c.Offset || c.Offset == 0 || len(c.Head) == 0 {
			return
		}
		switch {
		case !cursor.Holds(x, c.Head[:min(size, int64(len(c.Head)))], 0):
		case size < c.Offset:
			_, same := x.isCopyOfPast(&past{c.Head, c.Anchor, c.Offset, c.trail, 0}, size, likely)
			like, whole = max(like, perhaps), whole || same
		case cursor.Holds(x, c.Anchor, size-int64(len(c.Anchor))):
			like = likely
		}
	})
	switch like {
	case likely:
		f.settle(x)
		return true
	case perhaps:
		if x.since.IsZero() || size != x.sizeThen {
			x.since, x.sizeThen = now, size
		}
		if !ending && now.Sub(x.since) < heldFor {
			return true
		}
		if whole {
			f.settle(x) // it is what was delivered, as far as that is remembered
			return true
		}
	case unlike:
	}
	x.hold = hold{original: x.original}
	return false
}

// knownByItsPast settles a file that is a copy of what another one held before it was truncated: what was delivered of
// that is not delivered again, and what was not is.
func (f *Follower) knownByItsPast(x *file, size int64) (known bool) {
	f.index.originals(x, func(k *file) {
		if known || k == x || len(k.pasts) == 0 || k.place.Container != x.place.Container {
			return
		}
		like := looksLikeCopyOf(x.node.Real, k.node.Real)
		if like == unlike {
			return
		}
		for i := range k.pasts {
			p := &k.pasts[i]
			delivered, ok := x.isCopyOfPast(p, size, like)
			switch {
			case !ok:
				continue
			case delivered == size:
				f.settle(x)
			default:
				x.stderr = k.stderr
				x.continues(p.head, p.anchor, delivered)
				f.index.relabel(x, x.src, k.place)
				x.log.sort()
				f.record.keep(x)
			}
			known = true
			return
		}
	})
	return known
}

// older says whether x was there before y, so that y may be its copy. Of several that were born in one tick of the clock,
// or whose births are not known, the largest was, so that they are in one order: none waits for itself.
func (x *file) older(y *file) bool {
	if x.Birth != y.Birth {
		return x.Birth < y.Birth
	}
	own, ok := x.size()
	other, also := y.size()
	return ok && also && (own > other || own == other && x.pair < y.pair)
}

// beginsAs says whether x, of size bytes, begins as k begins. NULs are no evidence.
func (x *file) beginsAs(k *file, size int64) bool {
	return x.sameAt(k, 0, min(size, cursor.Window))
}

// endsWithin says whether the last of the size bytes of x are at the same place in k.
func (x *file) endsWithin(k *file, size int64) bool {
	at := max(0, size-cursor.Window)
	return x.sameAt(k, at, size-at)
}

// sameAt says whether x has the same n bytes at an offset as k, but for NULs at their end in x.
func (x *file) sameAt(k *file, at, n int64) bool {
	var buf [cursor.Window]byte
	m, err := x.Pread(buf[:n], at)
	return err == nil && int64(m) == n && cursor.Holds(k, bytes.TrimRight(buf[:n], "\x00"), at)
}

// recoverFromCopy searches, when x was truncated, for the copy that was made of it, and lets what is not delivered of
// the old x be delivered from there first. It returns the size of the copy, in bytes; 0 if there is none.
func (f *Follower) recoverFromCopy(x *file, now time.Time) (size int64) {
	if len(bytes.Trim(x.Head, "\x00")) == 0 && len(bytes.Trim(x.Anchor, "\x00")) == 0 {
		return 0 // nothing was ever seen in it, or nothing that is evidence
	}
	// Of several copies the longest has the most that is not delivered.
	var copies []*file
	var best *file
	var most int64 = -1
	judge := func(c *file) bool {
		size, ok := c.size()
		ok = ok && size >= x.Offset && cursor.Holds(c, x.Head, 0) && cursor.Holds(c, x.Anchor, x.Offset-int64(len(x.Anchor)))
		if ok {
			copies = append(copies, c)
			if size > most {
				best, most = c, size
			}
		}
		return ok
	}
	// Those that are held are open, wherever their directory was moved to.
	for _, c := range f.index.open {
		if c != x && c.place.Container == x.place.Container && c.Offset == 0 && c.origin != own {
			judge(c)
		}
	}
	visit := func(d *tree.Dir, name string) {
		n, err := d.Lookup(name)
		if err != nil || !n.IsRegular() || n.Size < x.Offset || f.index.byInode[inodeOf(n)] != nil {
			return
		}
		fd, n, err := n.Open()
		if err != nil {
			return
		}
		id, err := ident(fd)
		if err != nil || f.index.byInode[inodeOf(n)] != nil || f.index.find(id).isDone(fd) || !judge(&file{handle: handle{fd}, node: n, record: record{pair: -1}}) {
			unix.Close(fd)
		}
	}
	parent := x.node.Parent()
	if d, err := parent.OpenDir(); err == nil {
		scan.Files(d, func(name string) { visit(d, name) })
		d.Close()
	}
	if best == nil && x.src != nil {
		// It may have been made in another directory.
		scan.Walk(x.src.Tree.Dirs(), elsewhereAlways, func(d *tree.Dir, name string) {
			if d.Node().Real != parent.Real && x.mayHaveCopy(name) {
				visit(d, name)
			}
		})
	}
	for _, c := range copies {
		switch {
		case c.pair >= 0 && c != best:
			c.original = x // settled with the others
			continue
		case c.pair < 0 && c != best:
			unix.Close(c.fd)
			continue
		case c.pair < 0:
			n, fd := c.node, c.fd
			n.Path = x.place.Path
			var err error
			if c, err = f.take(x.src, n, fd); err != nil {
				unix.Close(fd)
				continue
			}
		}
		c.stderr = x.stderr
		c.continues(x.Head, x.Anchor, x.Offset)
		f.index.relabel(c, c.src, x.place)
		c.ready, c.pending, c.grew = true, true, now
		f.record.keep(c)
	}
	if best != nil && x.log != nil {
		x.log.sort()
	}
	return max(most, 0)
}

// mayHaveCopy says whether a name looks like that of a copy of x, which may have been made while x had another name.
func (x *file) mayHaveCopy(name string) bool {
	return max(looksLikeCopyOf(name, x.node.Real), looksLikeCopyOf(name, x.place.Path), looksLikeCopyOf(name, x.alias)) == likely
}

// continues makes c the copy of a file of which everything up to offset is delivered.
func (x *file) continues(head, anchor []byte, offset int64) {
	x.origin, x.original = copied, nil
	x.Cursor = cursor.Cursor{Offset: offset, Began: offset, Head: append(x.Head[:0], head...), Anchor: append(x.Anchor[:0], anchor...)}
}

// judgeAgain serves again what waits, perhaps as a copy, for a truncation to come to light.
func (f *Follower) judgeAgain() {
	for _, c := range f.index.open {
		if c.Offset == 0 && c.origin != own {
			c.ready = true
		}
	}
}

// settleCopies ends the holding of files whose original was truncated or is finished: what is not the copy that was
// recovered from is a copy of what was delivered.
func (f *Follower) settleCopies(original *file) {
	for _, c := range f.index.open {
		if c.origin != held && c.original != original {
			continue
		}
		// After a restart it is only known that it was held, and not whose copy it was.
		unknown := c.original == nil && c.place.Container == original.place.Container && c.beginsLike(original)
		if c.original != original && !unknown || c.origin == copied {
			continue
		}
		f.settle(c)
	}
}

// beginsLike says whether x begins as the original did, as far as that is known.
func (x *file) beginsLike(original *file) bool {
	size, ok := x.size()
	n := min(size, int64(len(original.Head)))
	return ok && n > 0 && cursor.Holds(x, original.Head[:n], 0)
}

// settle notes that all of a file is a copy of what was delivered.
func (f *Follower) settle(c *file) {
	size, ok := c.size()
	if !ok {
		return
	}
	c.original, c.origin = nil, copied
	if err := c.StartAt(c, size); err != nil {
		f.readFailed(c, err)
	}
	f.record.keep(c)
}
