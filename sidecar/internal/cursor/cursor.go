// Package cursor reads one log file from an offset: it says what is to be delivered next, and finds what is no
// line, such as holes, space that is allocated ahead, and truncations.
//
// In come a file's bytes; out come steps. A Cursor writes nothing, knows no names and keeps no time. It holds no
// line either: what is not delivered stays in the file itself.
package cursor

import (
	"bytes"
	"strings"

	"github.com/log-bridge/log-bridge/sidecar/internal/checkpoint"
)

const (
	// Window is how many bytes of a file's beginning, and before the offset, show whether it is still the same file.
	Window = checkpoint.Window
	// Block is the most that is delivered at once, in bytes: what may come twice after SIGKILL. It is one pipe's
	// default capacity.
	Block = 64 << 10
	// Turn is the most that one file reads before the next one is served, in bytes, unless a single line is longer.
	Turn = 1 << 20
	// Buffer is the size of the scratch memory that a Cursor reads into, in bytes: the anchor, a block, a newline, and
	// what is read again.
	Buffer = Window + Block + 1 + Window
)

// File is what a Cursor reads.
type File interface {
	// Pread reads at an offset, with one read(2): a second one might see the file after a truncation. Fewer bytes
	// than asked for are the end of the file.
	Pread(p []byte, off int64) (int, error)
	// Stat is the size in bytes and the time of the last write (st_mtim) in ns since 1970.
	Stat() (size, modified int64, err error)
	// Data is the first position from at on that is in no hole (lseek(2), SEEK_DATA). The error is ENXIO if there is
	// none, and another one if the file system does not report it.
	Data(at int64) (int64, error)
}

// Cursor is how far a file is delivered. Its zero value is the beginning of a file.
type Cursor struct {
	Offset int64  // first byte not delivered
	Began  int64  // where following began: what is before it was never delivered
	Head   []byte // first bytes of the file, at most Window; they are known before anything is delivered
	Anchor []byte // the bytes before Offset, at most Window
	// Cut says that the last byte delivered was our own newline after an unfinished line.
	Cut bool
	// Emptied says that the file was truncated: NULs before its first new byte are a hole.
	Emptied bool

	search
	// startBefore is where the search for the place to begin at has come to, backwards; 0: there is none.
	startBefore int64
}

// Kind is what a Step asks for.
type Kind int

// The kinds.
const (
	// Wait: nothing whole is there. Ask again when the file has changed.
	Wait Kind = iota
	// Again: not found yet, or the file changed while it was read. Ask again, after other files had their turn.
	Again
	// Deliver: Data are whole lines at Offset. Call Advance when they are out.
	Deliver
	// LongLine: a line that does not fit into the buffer goes from Offset to End. Line reads it.
	LongLine
	// Moved: Offset is after something that is no line, such as a hole. Keep it.
	Moved
	// Truncated: what was delivered is not in the file any more. Loss says more.
	Truncated
	// Failed: the file cannot be read.
	Failed
)

// Step is what comes next.
type Step struct {
	Kind  Kind
	Data  []byte // lies in the scratch memory
	End   int64
	Read  int64 // bytes that were read without delivering them; they count towards a turn
	AtEnd bool  // the file was read to its end
	Err   error
}

// Next says what comes next. It reads into buf, which has the size Buffer.
func (c *Cursor) Next(f File, buf []byte) Step {
	if c.startBefore > 0 {
		return c.findStart(f, buf)
	}
	// The anchor and the new bytes come with one read, so that no truncation can come between them unseen.
	back := len(c.Anchor)
	again := spare(buf)
	buf = buf[:back+Block]
	n, err := f.Pread(buf, c.Offset-int64(back))
	if err != nil {
		return Step{Kind: Failed, Err: err}
	}
	if n < back || !bytes.Equal(buf[:back], c.Anchor) || c.Offset == 0 && !bytes.HasPrefix(buf[:n], c.Head) {
		return Step{Kind: Truncated}
	}
	if n > back && c.atHole(f, buf[back]) {
		return c.skipHole(f, buf)
	}
	if c.Cut && n > back {
		// The line was ended because it had no writer. If one came and ends it, that is done already.
		c.Cut = false
		if buf[back] == '\n' {
			c.Advance(buf[back : back+1])
			return Step{Kind: Moved}
		}
	}
	atEnd := n < len(buf)
	// Space that is allocated ahead of the data reads as NULs: not yet written.
	data := trimNULs(buf[back:n])
	if len(c.Head) < Window && c.Offset == 0 {
		c.Head = append(c.Head[:0], data[:min(len(data), Window)]...)
	}
	end := bytes.LastIndexByte(data, '\n') + 1
	if end == 0 && !atEnd {
		return c.longLine(f, buf)
	}
	if atEnd {
		c.end, c.solid = c.Offset+int64(n-back), c.Offset+int64(len(data))
		c.scan = c.solid
	}
	if end == 0 {
		return Step{Kind: Wait, AtEnd: true}
	}
	// A truncation while the read went on may have left old bytes before new ones. If it did, the beginning has
	// changed now.
	if check := min(back+end, Window); !holds(f, buf[:check], c.Offset-int64(back), again) {
		return Step{Kind: Again}
	}
	return Step{Kind: Deliver, Data: data[:end], AtEnd: atEnd}
}

// Advance notes that data, which begins at Offset, is delivered.
func (c *Cursor) Advance(data []byte) {
	if len(data) == 0 {
		return
	}
	if c.Offset < Window && c.Offset <= int64(len(c.Head)) {
		at := int(c.Offset)
		c.Head = append(c.Head[:at], data[:min(len(data), Window-at)]...)
	}
	c.Anchor = Last(c.Anchor, data)
	c.Offset += int64(len(data))
	c.Cut = false
}

// Last returns the last up to Window bytes of old followed by added. It reuses old's memory.
func Last(old, added []byte) []byte {
	if len(added) >= Window {
		return append(old[:0], added[len(added)-Window:]...)
	}
	if cut := len(old) + len(added) - Window; cut > 0 {
		old = old[:copy(old, old[cut:])]
	}
	return append(old, added...)
}

// Holds says whether a file has exactly want, at most Window bytes, at an offset.
func Holds(f File, want []byte, off int64) bool {
	return holds(f, want, off, make([]byte, len(want)))
}

// holds is Holds with memory to read into.
func holds(f File, want []byte, off int64, into []byte) bool {
	n, err := f.Pread(into[:len(want)], off)
	return err == nil && bytes.Equal(into[:n], want)
}

// spare is the end of the scratch memory, for what is read again.
func spare(buf []byte) []byte { return buf[Buffer-Window : Buffer] }

// Intact says whether what was delivered is still in the file, going by its head and its anchor.
func (c *Cursor) Intact(f File) bool {
	return Holds(f, c.Head, 0) && Holds(f, c.Anchor, c.Offset-int64(len(c.Anchor)))
}

// Start reads the head of a file of which nothing is delivered, so that a copy made until then can be known.
func (c *Cursor) Start(f File) error {
	head := make([]byte, Window)
	n, err := f.Pread(head, 0)
	c.Head = bytes.TrimRight(head[:max(n, 0)], "\x00")
	return err
}

// StartAt sets the offset, and takes what is before it for somebody else's.
func (c *Cursor) StartAt(f File, off int64) error {
	c.Offset, c.Began, c.search = off, off, search{}
	head := make([]byte, min(Window, off))
	n, err := f.Pread(head, 0)
	c.Head = head[:max(n, 0)]
	if err != nil {
		return err
	}
	return c.anchorAt(f)
}

// StartAtEnd sets the offset to the end of the file. Next then goes back to where its last whole line ends.
func (c *Cursor) StartAtEnd(f File) error {
	size, _, err := f.Stat()
	if err != nil {
		return err
	}
	c.startBefore = size
	return c.StartAt(f, size)
}

// Restart forgets what was delivered: the file is another one from its first byte on.
func (c *Cursor) Restart() {
	*c = Cursor{Head: c.Head[:0], Anchor: c.Anchor[:0], Emptied: true}
}

// CutTo notes that the file was truncated to a part of itself, which was delivered, and continues at its new end.
func (c *Cursor) CutTo(f File, size int64) error {
	head, began := bytes.Clone(c.Head), min(c.Began, size)
	c.Restart()
	c.Head = append(c.Head, head...)
	c.Offset, c.Began = size, began
	return c.anchorAt(f)
}

// anchorAt reads the anchor of a new offset.
func (c *Cursor) anchorAt(f File) error {
	n := min(Window, c.Offset)
	c.Anchor = append(c.Anchor[:0], make([]byte, n)...)
	m, err := f.Pread(c.Anchor, c.Offset-n)
	c.Anchor = c.Anchor[:max(m, 0)]
	if int64(m) < n {
		c.Restart() // it shrank again
	}
	return err
}

// Reopen forgets how far the file was searched: it may have changed while it was closed.
func (c *Cursor) Reopen() { c.search = search{} }

// Left is how many bytes of a file of the given size are not delivered.
func (c *Cursor) Left(size int64) int64 {
	if size == c.end {
		size = c.solid // only NULs follow
	}
	return max(0, size-c.Offset)
}

// HasMore says whether a file that was read to its end has anything else by now. The file may have the size that it had
// then: what was allocated ahead is written to from its beginning.
func (c *Cursor) HasMore(f File, buf []byte) bool {
	size, _, err := f.Stat()
	if err != nil {
		return false
	}
	if size != c.end || c.Unsettled(f, true) {
		return true
	}
	n, err := f.Pread(buf[:Block], c.solid)
	return err == nil && indexData(buf[:n]) >= 0
}

// ReadTo says whether the file was read to its end when it had the given size.
func (c *Cursor) ReadTo(size int64) bool { return size == c.end }

// Loss is what happened to a file whose delivered bytes are gone.
type Loss int

// The losses.
const (
	// Emptied: it begins again.
	Emptied Loss = iota
	// Shrunk: what is left of it was delivered.
	Shrunk
	// NoText: all of it was written over with what is no text, as shred(1) does.
	NoText
)

// Loss says what happened to a file for which Next said Truncated, and the size that it has now.
func (c *Cursor) Loss(f File) (l Loss, size int64, err error) {
	size, _, err = f.Stat()
	if err != nil {
		return Emptied, 0, err
	}
	switch {
	case size >= c.Offset && !Holds(f, c.Head, 0) && isNoText(f):
		return NoText, size, nil
	case size < c.Offset && size >= Window && indexData(c.Head) >= 0 && Holds(f, c.Head, 0):
		// With less than a whole head left it may as well be a new beginning, and counts as one: lines may come
		// twice then, but none is missing. NULs are no evidence: a hole may be at the beginning again and again.
		return Shrunk, size, nil
	}
	return Emptied, size, nil
}

// isNoText says whether a file begins with bytes that are in no text, as random ones do.
func isNoText(f File) bool {
	var head [Window]byte
	n, err := f.Pread(head[:], 0)
	return err == nil && bytes.ContainsFunc(head[:n], func(r rune) bool {
		return r < ' ' && !strings.ContainsRune("\x00\t\n\r\f\x1b", r) // NULs are no evidence
	})
}
