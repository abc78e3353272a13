package follow

import (
	"bytes"
	"math"

	"golang.org/x/sys/unix"
)

// A file may hold much that is no line: space that is allocated ahead of the data, holes of exbibytes, a
// line without an end. What follows goes over it at most a turn at a time, skips holes without reading
// them, and remembers where it was, so that no byte is read twice for nothing.

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

// search looks in a file behind Offset for what find finds, at most a turn. It returns where that is, or -1;
// how many bytes it read; and whether it is worth going on.
func (f *Follower) search(x *file, find func([]byte) int) (at, looked int64, more bool) {
	x.solid, x.scan = max(x.solid, x.Offset), max(x.scan, x.Offset)
	piece := f.buf[:blockSize]
	if x.solid < x.scan {
		// NULs are written to from their beginning, as a rule: that is looked at again.
		n, err := x.pread(piece[:min(blockSize, x.scan-x.solid)], x.solid)
		if err != nil {
			f.readFailed(x, err)
			return -1, 0, false
		}
		looked += int64(n)
		if int64(n) < min(blockSize, x.scan-x.solid) || indexData(piece[:n]) >= 0 || x.size() < x.scan {
			x.scan = x.solid
		}
	}
	if x.scan == x.solid {
		x.since = x.modified()
	}
	for looked < turn {
		n, err := x.pread(piece, x.scan)
		if err != nil {
			f.readFailed(x, err)
			return -1, looked, false
		}
		looked += int64(n)
		if i := find(piece[:n]); i >= 0 {
			return x.scan + int64(i), looked, true
		}
		data := trimNULs(piece[:n])
		if len(data) > 0 {
			x.solid = x.scan + int64(len(data))
		}
		x.scan += int64(n)
		if n < len(piece) {
			x.end = x.scan
			return -1, looked, false
		}
		if len(data) == 0 {
			x.scan = x.dataFrom(x.scan)
		}
	}
	return -1, looked, true
}

// writtenSince says whether NULs that were searched may have been written to elsewhere than at their
// beginning: then they are searched again, once nobody writes. It is for the check of all files; ending
// says that there will not be another.
func (x *file) writtenSince(ending bool) bool {
	if x.solid >= x.scan {
		return false
	}
	now := x.modified()
	again := now != x.since && (now == x.check || ending)
	if again {
		x.scan = x.solid
	}
	x.check = now
	return again
}

// dataFrom is the first position from at on that is not in a hole; the end of the file, if there is no such
// position.
func (x *file) dataFrom(at int64) int64 {
	to, err := unix.Seek(x.fd, at, unix.SEEK_DATA)
	switch err {
	case nil:
		return max(at, to)
	case unix.ENXIO:
		return max(at, x.size())
	}
	return at // the file system does not tell
}

// dataBefore is the last position up to end that has no hole before it.
func (x *file) dataBefore(end int64) int64 {
	hole := func(at int64) bool {
		to, err := unix.Seek(x.fd, at, unix.SEEK_DATA)
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

// size is that of the file, in bytes; 0 if it cannot be had.
func (x *file) size() int64 {
	st, err := x.stat()
	if err != nil {
		return 0
	}
	return st.Size
}

// readable is as much of p as can be read at off: the kernel refuses what would end beyond the largest
// offset.
func readable(p []byte, off int64) []byte {
	return p[:min(int64(len(p)), math.MaxInt64-off)]
}

// findStart looks for the last whole line before x.startBefore, at most a turn: the file is followed from
// its end. What other pods wrote before this one is not ours, and a line still being written is.
func (f *Follower) findStart(x *file) {
	if !x.intact() {
		x.startBefore = 0 // it was truncated: what it holds now is new
		return
	}
	start := int64(0)
	for looked := int64(0); ; {
		if x.startBefore = x.dataBefore(x.startBefore); x.startBefore == 0 {
			break
		}
		if looked >= turn {
			return
		}
		piece := f.buf[:min(blockSize, x.startBefore)]
		from := x.startBefore - int64(len(piece))
		n, err := x.pread(piece, from)
		if err != nil {
			f.readFailed(x, err)
			x.ready = false
			return
		}
		if n < len(piece) {
			x.startBefore = 0 // truncated just now
			return
		}
		if i := bytes.LastIndexByte(piece, '\n'); i >= 0 {
			start = from + int64(i) + 1
			break
		}
		looked += int64(n)
		x.startBefore = from
	}
	x.startBefore = 0
	x.Offset, x.scan, x.solid = start, start, start
	if err := f.startsHere(x); err != nil {
		f.readFailed(x, err)
		return
	}
	f.keep(x)
}
