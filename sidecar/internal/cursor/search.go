package cursor

import (
	"bytes"
	"math"

	"golang.org/x/sys/unix"
)

// A file may hold much that is no line: space that is allocated ahead of the data, holes of exbibytes, a line without
// an end. What follows goes over it at most a turn at a time, skips holes without reading them, and remembers where it
// was, so that no byte is read twice for nothing.

// search is how far a file was searched for what comes next.
type search struct {
	scan  int64 // what is searched for is not between Offset and here
	solid int64 // from here to scan there were only NULs
	end   int64 // of the file when it was last read up to there; from solid on there were only NULs
	// since is when the file had last been written, in ns since 1970, when the search began at solid; check
	// is the same at the last check.
	since, check int64
}

// zeros are compared with a piece at a time, which is faster than byte by byte.
var zeros [4096]byte

// trimNULs is p without the NULs at its end.
func trimNULs(p []byte) []byte {
	for len(p) >= len(zeros) && bytes.Equal(p[len(p)-len(zeros):], zeros[:]) {
		p = p[:len(p)-len(zeros)]
	}
	return bytes.TrimRight(p, "\x00")
}

// indexData is the index of the first byte that is not NUL, or -1.
func indexData(p []byte) int {
	at := 0
	for len(p)-at >= len(zeros) && bytes.Equal(p[at:at+len(zeros)], zeros[:]) {
		at += len(zeros)
	}
	for ; at < len(p); at++ {
		if p[at] != 0 {
			return at
		}
	}
	return -1
}

// indexNewline is the index of the first newline, or -1.
func indexNewline(p []byte) int { return bytes.IndexByte(p, '\n') }

// find looks in a file, from Offset on, for what index finds, at most a turn. It returns where that is, or -1 and what
// is to be done: Wait at the end of the file, else Again.
func (c *Cursor) find(f File, buf []byte, index func([]byte) int) (at int64, s Step) {
	s.Kind = Again
	c.solid, c.scan = max(c.solid, c.Offset), max(c.scan, c.Offset)
	piece := buf[:Block]
	if c.solid < c.scan {
		// NULs are written to from their beginning, as a rule: that is read again.
		want := min(Block, c.scan-c.solid)
		n, err := f.Pread(piece[:want], c.solid)
		if err != nil {
			return -1, Step{Kind: Failed, Err: err}
		}
		s.Read += int64(n)
		size, _, err := f.Stat()
		if int64(n) < want || indexData(piece[:n]) >= 0 || err != nil || size < c.scan {
			c.scan = c.solid
		}
	}
	if c.scan == c.solid {
		_, c.since, _ = f.Stat()
	}
	for s.Read < Turn {
		n, err := f.Pread(piece, c.scan)
		if err != nil {
			return -1, Step{Kind: Failed, Err: err}
		}
		s.Read += int64(n)
		if i := index(piece[:n]); i >= 0 {
			return c.scan + int64(i), s
		}
		data := trimNULs(piece[:n])
		if len(data) > 0 {
			c.solid = c.scan + int64(len(data))
		}
		c.scan += int64(n)
		if n < len(piece) {
			c.end = c.scan
			s.Kind, s.AtEnd = Wait, true
			return -1, s
		}
		if len(data) == 0 {
			c.scan = dataFrom(f, c.scan)
		}
	}
	return -1, s
}

// Unsettled says whether NULs that were searched may have been written to elsewhere than at their beginning: then they
// are searched again, once it has no writer. It is for the check of all files; last says that there will not be another.
func (c *Cursor) Unsettled(f File, last bool) bool {
	if c.solid >= c.scan {
		return false
	}
	_, now, _ := f.Stat()
	again := now != c.since && (now == c.check || last)
	if again {
		c.scan = c.solid
	}
	c.check = now
	return again
}

// atHole says whether what comes next, with the byte next, is a hole: a writer without O_APPEND went on at its old
// position after truncate(0), and its new lines follow.
func (c *Cursor) atHole(f File, next byte) bool {
	return next == 0 && indexData(c.Anchor) < 0 && c.wasEmptied(f)
}

// wasEmptied says whether a file that has nothing but NULs up to its offset was truncated: it was seen to be, or the
// NULs are a hole.
func (c *Cursor) wasEmptied(f File) bool {
	if c.Emptied {
		return true
	}
	at, err := f.Data(c.Offset)
	return err == nil && at > c.Offset
}

// skipHole sets the offset of a truncated file after the NULs that it begins with.
func (c *Cursor) skipHole(f File, buf []byte) Step {
	at, s := c.find(f, buf, indexData)
	if at < 0 {
		return s
	}
	if err := c.StartAt(f, at); err != nil {
		return Step{Kind: Failed, Err: err}
	}
	s.Kind = Moved
	return s
}

// dataFrom is the first position from at on that is not in a hole; the end of the file, if there is no such position.
func dataFrom(f File, at int64) int64 {
	to, err := f.Data(at)
	switch err {
	case nil:
		return max(at, to)
	case unix.ENXIO:
		size, _, _ := f.Stat()
		return max(at, size)
	}
	return at // the file system does not report it
}

// dataBefore is the last position up to end that has no hole before it.
func dataBefore(f File, end int64) int64 {
	hole := func(at int64) bool {
		to, err := f.Data(at)
		return err == unix.ENXIO || err == nil && to >= end
	}
	if end == 0 || !hole(end-1) {
		return end
	}
	// The hole goes up to end: where it begins is found by halving.
	before, in := int64(-1), end-1
	for in-before > 1 {
		if at := before + (in-before)/2; hole(at) {
			in = at
		} else {
			before = at
		}
	}
	return in
}

// DataEnd is the end of what is in a file of the given size besides NULs at its end, which may be space that is allocated
// ahead of the data. It searches at most a turn, backwards.
func DataEnd(f File, size int64, buf []byte) int64 {
	piece := buf[:Window] // that is enough for most
	for read := 0; read < Turn && size > 0; piece = buf[:Block] {
		if size = dataBefore(f, size); size == 0 {
			break
		}
		piece = piece[:min(int64(len(piece)), size)]
		n, err := f.Pread(piece, size-int64(len(piece)))
		if err != nil || n < len(piece) {
			break
		}
		data := trimNULs(piece)
		size -= int64(len(piece) - len(data))
		if len(data) > 0 {
			break
		}
		read += n
	}
	return size
}

// Readable is as much of p as can be read at off: the kernel refuses what would end beyond the largest offset.
func Readable(p []byte, off int64) []byte { return p[:min(int64(len(p)), math.MaxInt64-off)] }

// findStart searches for the last whole line before startBefore, at most a turn: the file is followed from its end. What
// other pods wrote before this one is not ours, and a line still being written is.
func (c *Cursor) findStart(f File, buf []byte) Step {
	if !c.Intact(f) {
		c.startBefore = 0 // it was truncated: what it holds now is new
		return Step{Kind: Again}
	}
	start := int64(0)
	for read := int64(0); ; {
		if c.startBefore = dataBefore(f, c.startBefore); c.startBefore == 0 {
			break
		}
		if read >= Turn {
			return Step{Kind: Again, Read: read}
		}
		piece := buf[:min(Block, c.startBefore)]
		from := c.startBefore - int64(len(piece))
		n, err := f.Pread(piece, from)
		if err != nil {
			return Step{Kind: Failed, Err: err}
		}
		if n < len(piece) {
			c.startBefore = 0 // truncated just now
			return Step{Kind: Again}
		}
		if i := bytes.LastIndexByte(piece, '\n'); i >= 0 {
			start = from + int64(i) + 1
			break
		}
		read += int64(n)
		c.startBefore = from
	}
	c.startBefore = 0
	if err := c.StartAt(f, start); err != nil {
		return Step{Kind: Failed, Err: err}
	}
	return Step{Kind: Moved}
}
