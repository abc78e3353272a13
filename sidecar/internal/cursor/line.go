package cursor

import "bytes"

// leastGap is the size of a hole within a line from which on it is skipped, in bytes: nobody wrote it, and it may be
// larger than anything that can be delivered.
const leastGap = 1 << 20

// Put takes a piece of a line; first and last say which piece it is. An error is one of the output.
type Put func(piece []byte, first, last bool) error

// longLine searches for the end of a line that is longer than a block. Nothing of it is kept in memory, and nothing is
// delivered before its newline is in the file, so that no other file waits for the rest of it.
func (c *Cursor) longLine(f File, buf []byte) Step {
	at, s := c.find(f, buf, indexNewline)
	if at >= 0 {
		s.Kind, s.End = LongLine, at+1
	}
	return s
}

// Line hands on the line from Offset to end, in pieces, and moves Offset after it. whole is false if the file was
// truncated meanwhile: what is out is ended then.
func (c *Cursor) Line(f File, end int64, buf []byte, put Put) (delivered int64, whole bool, err error) {
	delivered, whole, err = c.pieces(f, end, buf, put)
	if err == nil && !whole {
		c.scan, c.solid = c.Offset, c.Offset
	}
	return delivered, whole, err
}

// Flush hands on an unfinished last line, and ends it. again is true if there are whole lines first.
func (c *Cursor) Flush(f File, buf []byte, put Put) (delivered int64, again bool, err error) {
	if c.solid <= c.Offset || !Holds(f, c.Anchor, c.Offset-int64(len(c.Anchor))) {
		return 0, false, nil // there is none, or it was truncated
	}
	piece := buf[:min(Block, c.solid-c.Offset)]
	n, err := f.Pread(piece, c.Offset)
	if err != nil || n < len(piece) || c.atHole(f, piece[0]) {
		return 0, false, nil //nolint:nilerr // the next read reports it; here it is not a line
	}
	if bytes.IndexByte(piece, '\n') >= 0 {
		return 0, true, nil
	}
	delivered, whole, err := c.pieces(f, c.solid, buf, func(piece []byte, first, last bool) error {
		if last {
			piece = append(piece, '\n') // the buffer has room for it
		}
		return put(piece, first, last)
	})
	c.Cut = err == nil && whole
	return delivered, false, err
}

// pieces hands on the bytes from Offset to end, without holes of leastGap or more, and moves Offset to end. whole is
// false if the file was truncated under them; then Offset stays.
func (c *Cursor) pieces(f File, end int64, buf []byte, put Put) (delivered int64, whole bool, err error) {
	var tail [Window]byte
	again := spare(buf)
	seen := append(tail[:0], c.Anchor...) // the bytes before at
	for at, first, gap := c.Offset, true, false; at < end; {
		// As in Next: what was seen comes with the same read, and once more after it.
		back := len(seen)
		buf := buf[:back+int(min(Block, end-at))]
		n, err := f.Pread(buf, at-int64(back))
		if err != nil || n <= back || !bytes.Equal(buf[:back], seen) || !holds(f, seen, at-int64(back), again) {
			if !first { // the next line is a line of its own
				err := put([]byte("\n"), false, true)
				return delivered, false, err
			}
			return delivered, false, nil
		}
		piece := buf[back:n]
		data := indexData(piece)
		to := at + int64(max(data, 0)) // the next byte to deliver
		if data < 0 {
			to = min(dataFrom(f, at+int64(len(piece))), end)
		}
		if gap = to-at >= leastGap || gap && to > at; gap {
			seen = append(seen[:0], zeros[:Window]...)
			at = to
			continue
		}
		if data >= 0 {
			piece = trimNULs(piece) // what follows may be a hole
		}
		seen = Last(seen, piece)
		at += int64(len(piece))
		if err := put(piece, first, at == end); err != nil {
			return delivered, false, err
		}
		first = false
		delivered += int64(len(piece))
	}
	c.Anchor = append(c.Anchor[:0], seen...)
	c.Offset, c.Cut = end, false
	return delivered, true, nil
}
