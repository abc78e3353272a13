package follow

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/log-bridge/log-bridge/sidecar/internal/checkpoint"
	"github.com/log-bridge/log-bridge/sidecar/internal/emit"
	"golang.org/x/sys/unix"
)

const (
	// blockSize is the most that is written before the offset is kept, in bytes: what
	// may come twice after SIGKILL. It is one pipe's default capacity.
	blockSize = 64 << 10
	// turn is the most that one file delivers before the next one is served, in
	// bytes, unless a single line is longer; what it looks at without delivering it counts too.
	turn = 1 << 20
	// leastStep is what a step counts at the least, in bytes, so that a file that is truncated again and
	// again ends its turn as well.
	leastStep = 16 << 10
	// leastGap is the size of a hole within a line from which on it is left out, in bytes: nobody wrote it, and
	// it may be larger than anything that can be delivered.
	leastGap = 1 << 20
)

// serve delivers what a file has, at most one turn. It returns how many bytes it
// delivered. The file stays ready if there may be more. An error is one of the
// output; errors of the file are said, and the file is tried again later.
func (f *Follower) serve(x *file, now time.Time) (delivered int64, err error) {
	if f.heldAsCopy(x, now, f.ending) {
		x.ready, x.behind = false, false
		return 0, nil
	}
	for spent := int64(0); spent < turn; {
		n, looked, again, err := f.step(x, now)
		delivered += n
		spent += max(n, looked, leastStep)
		if n > 0 {
			x.grew = now
		}
		if err != nil {
			return delivered, err
		}
		f.reclaim(x, now)
		if !again {
			x.ready, x.behind = false, false
			break
		}
		if x.before != nil && x.before.behind {
			break // a truncation came to light, and a copy that goes first
		}
	}
	return delivered, nil
}

// step delivers one block of whole lines, or one line that is longer. looked is how many bytes it
// looked at without delivering any; again says that there may be more.
func (f *Follower) step(x *file, now time.Time) (delivered, looked int64, again bool, err error) {
	if x.startBefore > 0 {
		f.findStart(x)
		return 0, turn, true, nil
	}
	// The anchor and the new bytes come with one read, so that no truncation can
	// come between them unseen.
	back := len(x.Anchor)
	buf := f.buf[:back+blockSize]
	n, err := x.pread(buf, x.Offset-int64(back))
	if err != nil {
		f.readFailed(x, err)
		return 0, 0, false, nil
	}
	x.failed = false
	if n < back || !bytes.Equal(buf[:back], x.Anchor) || x.Offset == 0 && !bytes.HasPrefix(buf[:n], x.Head) {
		return 0, 0, f.truncated(x, now), nil
	}
	if n > back && x.atHole(buf[back]) {
		looked, again = f.skipHole(x)
		return 0, looked, again, nil
	}
	if x.Flags&checkpoint.Cut != 0 && n > back {
		// The line was ended for want of a writer. If one came and ends it, that is
		// done already.
		x.Flags &^= checkpoint.Cut
		if buf[back] == '\n' {
			x.advance(buf[back : back+1])
			f.keep(x)
			return 0, 0, true, nil
		}
	}
	data := buf[back:n]
	atEnd := n < len(buf)
	// Space that is allocated ahead of the data reads as NULs: not yet written.
	data = trimNULs(data)
	if len(x.Head) < checkpoint.Window && x.Offset == 0 {
		// Known before it is delivered, to recognize a copy of an unread file.
		x.Head = append(x.Head[:0], data[:min(len(data), checkpoint.Window)]...)
	}
	end := bytes.LastIndexByte(data, '\n') + 1
	if end == 0 && !atEnd {
		return f.longLine(x)
	}
	if atEnd {
		x.left = x.gone() || x.moved
		x.end, x.solid = x.Offset+int64(n-back), x.Offset+int64(len(data))
		x.scan = x.solid
	}
	if end == 0 {
		return 0, 0, false, nil
	}
	data = data[:end]
	// A truncation while the read went on may have left old bytes before new
	// ones. If it did, the beginning has changed now.
	if check := min(back+end, checkpoint.Window); !x.holds(buf[:check], x.Offset-int64(back)) {
		return 0, 0, true, nil
	}
	out, err := f.sink(x).Lines(x.Container, x.Path, data)
	if err != nil {
		// Only whole lines count as delivered.
		out = bytes.LastIndexByte(data[:out], '\n') + 1
	}
	f.delivered(x, data[:out])
	return int64(out), 0, !atEnd, err
}

// delivered keeps the offset behind data, which was delivered.
func (f *Follower) delivered(x *file, data []byte) {
	if len(data) == 0 {
		return
	}
	x.advance(data)
	x.Flags &^= checkpoint.Cut
	f.keep(x)
	f.stats.Bytes += int64(len(data))
	f.countLines(data)
}

// longLine looks for the end of a line that is longer than a block and writes it in
// pieces. Nothing of it is kept in memory, and nothing is written before its
// newline is in the file, so that no other file waits for the rest of it.
func (f *Follower) longLine(x *file) (delivered, looked int64, again bool, err error) {
	at, looked, again := f.search(x, indexNewline)
	if at < 0 {
		return 0, looked, again, nil
	}
	end := at + 1
	var tail [checkpoint.Window]byte
	seen := append(tail[:0], x.Anchor...) // the bytes before at
	first, gap := true, false
	for at = x.Offset; at < end; {
		// As in step: what was seen comes with the same read, and once more after it.
		back := len(seen)
		buf := f.buf[:back+int(min(blockSize, end-at))]
		n, err := x.pread(buf, at-int64(back))
		if err != nil || n <= back || !bytes.Equal(buf[:back], seen) || !x.holds(seen, at-int64(back)) {
			// The file was truncated under the line. What is out is ended, so that
			// the next line is a line of its own.
			if !first {
				if err := f.sink(x).Piece(x.Container, x.Path, []byte("\n"), false, true); err != nil {
					return delivered, looked, false, err
				}
			}
			x.scan, x.solid = x.Offset, x.Offset
			return delivered, looked, true, nil
		}
		piece := buf[back:n]
		data := indexData(piece)
		to := at + int64(max(data, 0)) // the next byte to deliver
		if data < 0 {
			to = min(x.dataFrom(at+int64(len(piece))), end)
		}
		if gap = to-at >= leastGap || gap && to > at; gap {
			seen = append(seen[:0], zeros[:checkpoint.Window]...)
			at = to
			continue
		}
		if data >= 0 {
			piece = trimNULs(piece) // what follows may be a hole
		}
		if err := f.sink(x).Piece(x.Container, x.Path, piece, first, at+int64(len(piece)) == end); err != nil {
			return delivered, looked, false, err
		}
		first = false
		seen = window(seen, piece)
		at += int64(len(piece))
		delivered += int64(len(piece))
	}
	// The whole line is out: keep the offset behind it.
	x.Anchor = append(x.Anchor[:0], seen...)
	x.Offset = end
	x.Flags &^= checkpoint.Cut
	f.keep(x)
	f.stats.Bytes += delivered
	f.countLines(newline)
	return delivered, looked, true, nil
}

// flush delivers an unfinished last line and ends it.
func (f *Follower) flush(x *file) error {
	if !x.holds(x.Anchor, x.Offset-int64(len(x.Anchor))) {
		return nil // truncated: what was unfinished is gone
	}
	var next [1]byte
	if n, err := x.pread(next[:], x.Offset); err == nil && n == 1 && x.atHole(next[0]) {
		return nil // there is nothing else yet
	}
	end := x.solid // it was searched to its end
	for first := true; x.Offset < end; first = false {
		piece := f.buf[:min(blockSize, end-x.Offset)]
		n, err := x.pread(piece, x.Offset)
		if err != nil || n < len(piece) || !x.holds(x.Anchor, x.Offset-int64(len(x.Anchor))) {
			// Truncated meanwhile. What is out is ended, so that the next line is a
			// line of its own.
			if first {
				return nil
			}
			return f.sink(x).Piece(x.Container, x.Path, []byte("\n"), false, true)
		}
		if bytes.IndexByte(piece, '\n') >= 0 && first {
			return nil // overwritten: it is no unfinished line any more
		}
		last := x.Offset+int64(n) == end
		out := piece
		if last {
			out = append(out[:n:n], '\n')
		}
		if err := f.sink(x).Piece(x.Container, x.Path, out, first, last); err != nil {
			return err
		}
		x.advance(piece)
		f.stats.Bytes += int64(n)
		if last {
			x.Flags |= checkpoint.Cut
			f.keep(x)
			f.countLines(newline)
		}
	}
	return nil
}

// readFailed says that a file cannot be read; it is tried again at the next look.
func (f *Follower) readFailed(x *file, err error) {
	x.failed = true
	f.say.Once(x.Container+":"+x.Path, "%s:%s cannot be read (%v); its offset is kept, and it is tried again", x.Container, x.Path, err)
	if err == unix.ESTALE {
		f.close(x) // the server forgot the handle: the next look opens it by name
	}
}

// truncated decides where a file goes on whose anchor is not where it was. It
// returns whether there may be something to read.
func (f *Follower) truncated(x *file, now time.Time) bool {
	st, err := x.stat()
	if err != nil {
		f.readFailed(x, err)
		return false
	}
	name := fmt.Sprintf("%s:%s", x.Container, x.Path)
	if x.Flags&checkpoint.Copy != 0 {
		// Overwritten, perhaps by the next copy: judged anew.
		x.Flags &^= checkpoint.Copy
		x.own = false
		x.Path = x.node.Path
		x.restart()
		f.keep(x)
		return false
	}
	if x.left && st.Size >= x.Offset && !x.holds(x.Head, 0) && x.isNoText() {
		// An earlier generation that was read to its end and is overwritten is done, as by shred(1).
		x.Offset, x.search = st.Size, search{}
		if err := f.startsHere(x); err != nil {
			f.readFailed(x, err)
			return false
		}
		f.keep(x)
		return true
	}
	// NULs are no evidence: a hole may be at the beginning of a file again and again.
	cut := st.Size < x.Offset && st.Size >= checkpoint.Window && len(bytes.TrimRight(x.Head, "\x00")) > 0 && x.holds(x.Head, 0)
	if !cut {
		f.recoverFromCopy(x, now)
		f.settleCopies(x)
	}
	switch {
	case cut:
		// Shrunk in place: what is left was delivered. (With less than a whole head
		// left it may as well be a new beginning, and is taken for one: lines may come
		// twice then, but none is missing.)
		f.say.Say("%s was cut from %s to %s; going on at its new end", name, emit.Size(x.Offset), emit.Size(st.Size))
		head, began := bytes.Clone(x.Head), min(x.Began, st.Size)
		x.restart()
		x.Head = append(x.Head, head...)
		x.Offset, x.Began = st.Size, began
		if err := f.anchorAt(x); err != nil {
			f.readFailed(x, err)
			return false
		}
	default:
		x.remember()
		x.restart()
	}
	f.judgeAnew()
	f.stats.Truncations++
	f.keep(x)
	return true
}

// isNoText says whether a file begins with bytes that are in no text, as random ones do.
func (x *file) isNoText() bool {
	var head [checkpoint.Window]byte
	n, err := x.pread(head[:], 0)
	return err == nil && bytes.ContainsFunc(head[:n], func(r rune) bool {
		return r < ' ' && !strings.ContainsRune("\t\n\r\f\x1b", r)
	})
}

// anchorAt reads the anchor of a new offset.
func (f *Follower) anchorAt(x *file) error {
	n := min(checkpoint.Window, x.Offset)
	x.Anchor = append(x.Anchor[:0], make([]byte, n)...)
	m, err := x.pread(x.Anchor, x.Offset-n)
	x.Anchor = x.Anchor[:m]
	if int64(m) < n {
		x.restart() // it shrank again
	}
	return err
}

// atHole says whether what comes next, with the byte next, is a hole: a writer without O_APPEND went
// on at its old position after truncate(0), and the new lines stand behind it.
func (x *file) atHole(next byte) bool {
	return next == 0 && len(bytes.TrimRight(x.Anchor, "\x00")) == 0 && x.emptied()
}

// emptied says whether a file that has nothing but NULs up to its offset was truncated: it
// was seen to be, or the NULs are a hole.
func (x *file) emptied() bool {
	if x.Flags&checkpoint.Emptied != 0 {
		return true
	}
	at, err := unix.Seek(x.fd, x.Offset, unix.SEEK_DATA)
	return err == nil && at > x.Offset
}

// skipHole sets the offset of a truncated file behind the NULs that it begins with. again is false where
// there is nothing else yet.
func (f *Follower) skipHole(x *file) (looked int64, again bool) {
	at, looked, again := f.search(x, indexData)
	if at < 0 {
		return looked, again
	}
	x.Offset, x.search = at, search{}
	if err := f.startsHere(x); err != nil {
		f.readFailed(x, err)
		return looked, false
	}
	f.keep(x)
	return looked, true
}
