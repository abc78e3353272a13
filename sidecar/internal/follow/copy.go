package follow

import (
	"bytes"
	"path"
	"strings"
	"time"

	"github.com/log-bridge/log-bridge/sidecar/internal/checkpoint"
	"golang.org/x/sys/unix"
)

// A rotation by copytruncate copies a file and then truncates it. What was not
// delivered before the truncation is in the copy alone, and what was delivered must
// not come again where the copy has a name that a source matches. Copies are
// known by their content, so that no rotation need be configured:
//
//   - A new file whose name extends that of a followed one, and whose bytes are the
//     first bytes of that file, is held: nothing of it is delivered until it
//     differs (then it is a log of its own) or its original is truncated.
//   - When a file is truncated, a file with the same head and the same anchor at the
//     same offset is the copy: it is delivered from there on.

// likeness says how much a name looks like that of a copy.
type likeness int

const (
	unlike likeness = iota
	// perhaps is app-2.log for app.log: a copy, or a log beside it.
	perhaps
	// likely is app.log.1 or app.log-20260102 for app.log.
	likely
)

// heldFor is how long a file that is only perhaps a copy is held.
const heldFor = 2 * time.Second

// looksLikeCopyOf compares the names of a file and of its possible original.
func looksLikeCopyOf(name, original string) likeness {
	name, original = path.Base(name), path.Base(original)
	if rest, ok := strings.CutPrefix(name, original); ok && rest != "" {
		if rest[0] == '.' || rest[0] == '-' || rest[0] == '_' {
			return likely
		}
		return unlike
	}
	ext := path.Ext(original)
	stem := strings.TrimSuffix(original, ext)
	if len(name) > len(original) && stem != "" && strings.HasPrefix(name, stem) && strings.HasSuffix(name, ext) {
		return perhaps
	}
	return unlike
}

// heldAsCopy decides whether a file of which nothing is delivered is held. ending says
// that this is the last look at it.
func (f *Follower) heldAsCopy(x *file, now time.Time, ending bool) bool {
	if x.Offset > 0 || x.Flags&checkpoint.Copy != 0 || x.own {
		return false
	}
	st, err := x.stat()
	if err != nil || st.Size == 0 {
		x.original = nil
		return false
	}
	if x.missed {
		switch f.likeFinished(x, st.Size) {
		case likely:
			f.settle(x)
			return true
		case perhaps:
			if x.held.IsZero() || st.Size != x.heldSize {
				x.held, x.heldSize = now, st.Size
			}
			if !ending && now.Sub(x.held) < heldFor {
				return true
			}
		case unlike:
		}
		x.missed, x.held = false, time.Time{}
	}
	var original *file
	wait := false
	for _, k := range f.open {
		if k == x || k.original == x {
			continue // of two, only one waits for the other
		}
		like := unlike
		if k.Container == x.Container {
			like = looksLikeCopyOf(x.node.Real, k.node.Real)
			if like == unlike && k.older(x, st.Size) {
				// A backup may have been copied before the original was renamed.
				like = looksLikeCopyOf(x.node.Real, k.Path)
			}
		}
		if like == unlike && (k == x.original || x.original == nil && x.Flags&checkpoint.Held != 0) {
			like = likely // one of them was renamed since
		}
		if like == unlike {
			continue
		}
		if !k.intact() {
			// Truncated, and not yet noticed: that comes first, since it looks for
			// the copy. When it is done x is judged again.
			k.ready, wait = true, true
			continue
		}
		if original != nil || !x.headOf(k, st.Size) || !x.endsWithin(k, st.Size) {
			continue
		}
		if x.original == nil {
			x.held = now
		}
		wentAway := k == x.original && !k.named // with all of its bytes: no log beside it
		switch {
		case like == perhaps && (ending || now.Sub(x.held) >= heldFor && !wentAway):
			continue
		case ending && st.Size < checkpoint.Window:
			// A few bytes may well be the same in two logs.
			continue
		}
		original = k
	}
	switch {
	case wait:
		return true
	case original == nil && f.knownByItsPast(x, st.Size):
		return x.Offset == st.Size
	case original != nil:
		x.original = original
		if x.Flags&checkpoint.Held == 0 {
			x.Flags |= checkpoint.Held
			f.keep(x)
		}
		return true
	}
	x.original, x.own = nil, true
	x.Flags &^= checkpoint.Held
	return false
}

// likeFinished compares a file of size bytes, which is taken for a generation that was missed, with those of its name that are
// finished: likely is that it is a copy of one, as logrotate's renamecopy makes it; perhaps, that it becomes one.
func (f *Follower) likeFinished(x *file, size int64) likeness {
	like := unlike
	for _, c := range f.closed {
		if c.Flags&checkpoint.Done == 0 || c.place() != x.place() || size > c.Offset || c.Offset == 0 || len(c.Head) == 0 {
			continue
		}
		switch {
		case !x.holds(c.Head[:min(size, int64(len(c.Head)))], 0):
		case size < c.Offset:
			like = max(like, perhaps)
		case x.holds(c.Anchor, size-int64(len(c.Anchor))):
			return likely
		}
	}
	return like
}

// older says whether x was there before y, a file of size bytes, so that y may be its copy.
// Of two that were born in one tick of the clock, or whose births are not known, only one
// may be a copy of the other.
func (x *file) older(y *file, size int64) bool {
	if x.Birth != y.Birth {
		return x.Birth < y.Birth
	}
	st, err := x.stat()
	return err == nil && (st.Size > size || st.Size == size && x.pair < y.pair)
}

// intact says whether what was delivered of a file is still in it, going by its head and
// anchor.
func (x *file) intact() bool {
	return x.holds(x.Head, 0) && x.holds(x.Anchor, x.Offset-int64(len(x.Anchor)))
}

// headOf says whether x, of size bytes, begins as k begins.
func (x *file) headOf(k *file, size int64) bool {
	var head [checkpoint.Window]byte
	n, err := k.pread(head[:min(size, checkpoint.Window)], 0)
	return err == nil && int64(n) == min(size, checkpoint.Window) && x.holds(head[:n], 0)
}

// endsWithin says whether the last of the size bytes of x are at the same place in k.
func (x *file) endsWithin(k *file, size int64) bool {
	var a, b [checkpoint.Window]byte
	at := max(0, size-checkpoint.Window)
	n, err := x.pread(a[:min(size, checkpoint.Window)], at)
	if err != nil {
		return false
	}
	m, err := k.pread(b[:n], at)
	return err == nil && bytes.Equal(a[:n], b[:m])
}

// recoverFromCopy looks, when x was truncated, for the copy that was made of it, and lets
// what is not delivered of the old x be delivered from there first.
func (f *Follower) recoverFromCopy(x *file, now time.Time) {
	if len(x.Head) == 0 {
		return // nothing was ever seen in it
	}
	// Of several copies the longest has the most that is not delivered.
	var copies []*file
	var best *file
	var most int64 = -1
	judge := func(c *file) bool {
		size, ok := c.isCopyOf(x)
		if ok {
			copies = append(copies, c)
			if size > most {
				best, most = c, size
			}
		}
		return ok
	}
	// Those that are held are open, wherever their directory was moved to.
	for _, c := range f.open {
		if c != x && c.Container == x.Container && c.Offset == 0 && !c.own {
			judge(c)
		}
	}
	if d, err := x.node.Parent().OpenDir(); err == nil {
		f.eachFile(d, func(name string) {
			n, err := d.Lookup(name)
			if err != nil || !n.IsRegular() || n.Size < x.Offset || f.inode[inode{n.Dev, n.Ino}] != nil {
				return
			}
			fd, n, err := n.Open()
			if err != nil {
				return
			}
			if f.inode[inode{n.Dev, n.Ino}] != nil || !judge(&file{fd: fd, node: n, pair: -1}) {
				unix.Close(fd)
			}
		})
		d.Close()
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
			n.Path = x.Path
			var err error
			if c, err = f.take(x.src, n, fd); c == nil || err != nil {
				unix.Close(fd)
				continue
			}
		}
		c.Flags |= checkpoint.Copy | x.Flags&checkpoint.Stderr
		c.Path, c.Offset, c.Began, c.search = x.Path, x.Offset, x.Offset, search{}
		c.Head, c.Anchor = append(c.Head[:0], x.Head...), append(c.Anchor[:0], x.Anchor...)
		c.original, c.ready, c.behind, c.grew = nil, true, true, now
		f.keep(c)
	}
	if best != nil {
		f.order()
	}
}

// isCopyOf says whether x has the content that the original had before it was truncated, up
// to the offset at least, and the size of x.
func (x *file) isCopyOf(original *file) (size int64, ok bool) {
	st, err := x.stat()
	return st.Size, err == nil && st.Size >= original.Offset && x.holds(original.Head, 0) && x.holds(original.Anchor, original.Offset-int64(len(original.Anchor)))
}

// beginsLike says whether x begins as the original did, as far as that is known.
func (x *file) beginsLike(original *file) bool {
	st, err := x.stat()
	n := min(st.Size, int64(len(original.Head)))
	return err == nil && n > 0 && x.holds(original.Head[:n], 0)
}

// judgeAnew serves again what waits, perhaps as a copy, for a truncation to come to light.
func (f *Follower) judgeAnew() {
	for _, c := range f.open {
		if c.Offset == 0 && !c.own {
			c.ready = true
		}
	}
}

// settleCopies ends the holding of files whose original was truncated or is finished: what
// is not the copy that was recovered from is a copy of what was delivered.
func (f *Follower) settleCopies(original *file) {
	for _, c := range f.open {
		// After a restart it is only known that it was held, and not whose copy it was.
		unknown := c.original == nil && c.Flags&checkpoint.Held != 0 && c.Container == original.Container && c.beginsLike(original)
		if c.original != original && !unknown || c.Flags&checkpoint.Copy != 0 {
			continue
		}
		f.settle(c)
	}
}

// settle notes that all of a file is a copy of what was delivered.
func (f *Follower) settle(c *file) {
	st, err := c.stat()
	if err != nil {
		return
	}
	c.original = nil
	c.Flags |= checkpoint.Copy
	c.Offset, c.search = st.Size, search{}
	if err := f.startsHere(c); err != nil {
		f.readFailed(c, err)
	}
	f.keep(c)
}
