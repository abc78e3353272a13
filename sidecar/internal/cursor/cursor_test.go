package cursor

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// memory is a File in memory.
type memory struct {
	data     []byte
	size     int64 // if it is more than the data: the rest is one hole
	sparse   bool  // pages of nothing but NULs are holes as well
	modified int64
	fail     error
	reads    int64 // bytes
	before   func(off int64)
}

func (m *memory) Pread(p []byte, off int64) (int, error) {
	if m.before != nil {
		m.before(off)
	}
	if m.fail != nil {
		return 0, m.fail
	}
	size := max(m.size, int64(len(m.data)))
	n := int(max(0, min(int64(len(p)), size-off)))
	clear(p[:n])
	if off < int64(len(m.data)) {
		copy(p[:n], m.data[off:])
	}
	m.reads += int64(n)
	return n, nil
}

func (m *memory) Stat() (size, modified int64, err error) {
	return max(m.size, int64(len(m.data))), m.modified, m.fail
}

func (m *memory) Data(at int64) (int64, error) {
	const page = 4096
	for at < int64(len(m.data)) {
		end := min((at/page+1)*page, int64(len(m.data)))
		if !m.sparse || indexData(m.data[at/page*page:end]) >= 0 {
			return at, nil
		}
		at = end
	}
	return 0, unix.ENXIO
}

// after is a Cursor that has delivered the first n bytes of a file.
func after(f File, n int) *Cursor {
	c := &Cursor{}
	buf := make([]byte, Buffer)
	_ = c.Start(f)
	m, _ := f.Pread(buf[:n], 0)
	c.Advance(buf[:m])
	return c
}

// TestNext: what comes next, from the bytes at an offset.
func TestNext(t *testing.T) {
	long := strings.Repeat("x", 2*Block)
	nuls := strings.Repeat("\x00", 1000)
	for _, test := range []struct {
		story     string
		file      string // when delivered bytes of it were read
		delivered int
		now       string // what it is by now
		cut       bool
		emptied   bool
		want      Kind
		data      string
		end       int64
	}{
		{"nothing is there", "", 0, "", false, false, Wait, "", 0},
		{"a whole line", "", 0, "one\n", false, false, Deliver, "one\n", 0},
		{"whole lines, and the beginning of another", "", 0, "one\ntwo\nthr", false, false, Deliver, "one\ntwo\n", 0},
		{"an unfinished line waits for its end", "one\n", 4, "one\ntw", false, false, Wait, "", 0},
		{"what is new comes, and what is delivered does not", "one\n", 4, "one\ntwo\n", false, false, Deliver, "two\n", 0},
		{"space that is allocated ahead is not written yet", "one\n", 4, "one\ntwo\n" + nuls, false, false, Deliver, "two\n", 0},
		{"and waits", "one\n", 4, "one\n" + nuls, false, false, Wait, "", 0},
		{"NULs before a line are part of it", "one\n", 4, "one\n\x00\x00two\n", false, false, Deliver, "\x00\x00two\n", 0},
		{"the file is shorter than what was delivered", "one\ntwo\n", 8, "one\n", false, false, Truncated, "", 0},
		{"it begins with something else", "one\ntwo\n", 8, "1\n", false, false, Truncated, "", 0},
		{"it has grown again, with other bytes before the offset", "one\ntwo\n", 8, "three\nfour\nfive\n", false, false, Truncated, "", 0},
		{"nothing is delivered, and it begins with something else", "one", 0, "two\n", false, false, Truncated, "", 0},
		{"after a truncation, NULs are a hole that its writer left", "", 0, nuls + "two\n", false, true, Moved, "", 0},
		{"nothing but that hole is there", "", 0, nuls, false, true, Wait, "", 0},
		{"a line that was ended for want of a writer is ended by its own newline", "one", 3, "one\ntwo\n", true, false, Moved, "", 0},
		{"or goes on as a line of its own", "one", 3, "one more\n", true, false, Deliver, " more\n", 0},
		{"a line that does not fit", "one\n", 4, "one\n" + long + "\ntwo\n", false, false, LongLine, "", int64(4 + len(long) + 1)},
		{"a line that does not fit waits for its end as well", "one\n", 4, "one\n" + long, false, false, Wait, "", 0},
		{"the last whole line that fits", "", 0, "one\n" + long, false, false, Deliver, "one\n", 0},
	} {
		c := after(&memory{data: []byte(test.file)}, test.delivered)
		c.Cut, c.Emptied = test.cut, test.emptied
		have := c.Next(&memory{data: []byte(test.now)}, make([]byte, Buffer))
		if have.Kind != test.want || string(have.Data) != test.data || have.End != test.end {
			t.Errorf("%s: have %d, %.40q, %d; want %d, %.40q, %d", test.story, have.Kind, have.Data, have.End, test.want, test.data, test.end)
		}
	}
}

// TestNextFails: an error of reading is passed on, and changes nothing.
func TestNextFails(t *testing.T) {
	c := after(&memory{data: []byte("one\n")}, 4)
	if s := c.Next(&memory{fail: unix.EIO}, make([]byte, Buffer)); s.Kind != Failed || !errors.Is(s.Err, unix.EIO) || c.Offset != 4 {
		t.Errorf("have %+v at %d", s, c.Offset)
	}
}

// TestNextAgain: old bytes before new ones, which a truncation during the read may leave, are not delivered.
func TestNextAgain(t *testing.T) {
	m := &memory{data: []byte("one\ntwo\n")}
	c := after(&memory{data: []byte("one\n")}, 4)
	reads := 0
	m.before = func(int64) {
		if reads++; reads == 2 {
			m.data = []byte("1\n2\n3\n4\n")
		}
	}
	if s := c.Next(m, make([]byte, Buffer)); s.Kind != Again {
		t.Errorf("have %+v", s)
	}
	if s := c.Next(m, make([]byte, Buffer)); s.Kind != Truncated {
		t.Errorf("then %+v", s)
	}
}

// TestNextInTurns: however large a hole or a line is, one call reads at most a turn, and a hole is not read.
func TestNextInTurns(t *testing.T) {
	for story, m := range map[string]*memory{
		"a hole of 4 EiB":            {data: []byte("one\n"), size: 1 << 62},
		"a line without an end":      {data: append([]byte("one\n"), bytes.Repeat([]byte("x"), 8*Turn)...)},
		"NULs that are really there": {data: append([]byte("one\n"), make([]byte, 8*Turn)...)},
	} {
		c := after(m, 4)
		for calls := 0; ; calls++ {
			m.reads = 0
			s := c.Next(m, make([]byte, Buffer))
			if m.reads > Turn+3*Buffer {
				t.Errorf("%s: %d bytes were read in one call", story, m.reads)
			}
			if s.Kind == Wait {
				break
			}
			if s.Kind != Again || calls > 20 {
				t.Fatalf("%s: have %+v", story, s)
			}
		}
		m.reads = 0
		c.Next(m, make([]byte, Buffer))
		if m.reads > 4*Buffer {
			t.Errorf("%s: %d bytes were read again for nothing", story, m.reads)
		}
	}
}

// TestLoss: what a truncation means.
func TestLoss(t *testing.T) {
	lines := strings.Repeat("0123456789 a line\n", 100)
	random := "\x01\x8e\x93\x02" + strings.Repeat("\xfe\x03", 1000)
	for _, test := range []struct {
		story, file, now string
		want             Loss
	}{
		{"nothing is left", lines, "", Emptied},
		{"a part is left, as long as a head or longer", lines, lines[:900], Shrunk},
		{"a part is left that is shorter than a head: it may be a new beginning", lines, lines[:100], Emptied},
		{"it begins with something else", lines, "another\n", Emptied},
		{"it is longer, and begins with something else", lines, strings.Repeat("another\n", 1000), Emptied},
		{"it is written over with what is no text", lines, random + random, NoText},
		{"what is no text is shorter than what was there: a new file", lines, random[:100], Emptied},
		{"NULs are no evidence that a head is the same", strings.Repeat("\x00", 900) + lines, strings.Repeat("\x00", 400), Emptied},
		{"nor that it is no text", lines, strings.Repeat("\x00", 4000), Emptied},
	} {
		c := after(&memory{data: []byte(test.file)}, len(test.file))
		have, size, err := c.Loss(&memory{data: []byte(test.now)})
		if have != test.want || size != int64(len(test.now)) || err != nil {
			t.Errorf("%s: have %d, %d, %v; want %d", test.story, have, size, err, test.want)
		}
	}
}

// TestPieces: long lines, and unfinished ones at the end.
func TestPieces(t *testing.T) {
	long := strings.Repeat("0123456789", 20_000)
	var out bytes.Buffer
	var marks []string
	put := func(piece []byte, first, last bool) error {
		out.Write(piece)
		marks = append(marks, fmt.Sprint(first, last))
		return nil
	}
	m := &memory{data: []byte("one\n" + long + "\ntwo")}
	c := after(m, 4)
	buf := make([]byte, Buffer)
	s := c.Next(m, buf)
	if s.Kind != LongLine {
		t.Fatalf("have %+v", s)
	}
	n, whole, err := c.Line(m, s.End, buf, put)
	if out.String() != long+"\n" || n != int64(len(long)+1) || !whole || err != nil || c.Offset != s.End {
		t.Errorf("have %d bytes, %d, %v, %v, at %d", out.Len(), n, whole, err, c.Offset)
	}
	if marks[0] != "true false" || marks[len(marks)-1] != "false true" {
		t.Errorf("the pieces are marked %v", marks)
	}
	out.Reset()
	if s := c.Next(m, buf); s.Kind != Wait || !s.AtEnd {
		t.Fatalf("have %+v", s)
	}
	if n, again, err := c.Flush(m, buf, put); out.String() != "two\n" || n != 3 || again || err != nil || !c.Cut {
		t.Errorf("have %q, %d, %v, %v", out.String(), n, again, err)
	}
	out.Reset()
	if n, again, err := c.Flush(m, buf, put); out.Len() > 0 || n != 0 || again || err != nil {
		t.Errorf("again: have %q, %d, %v, %v", out.String(), n, again, err)
	}

	// Whole lines that came since are whole lines.
	m.data = append(m.data, " and\nthree\nfo"...)
	c.Next(m, buf)
	c.solid = int64(len(m.data))
	if n, again, err := c.Flush(m, buf, put); n != 0 || !again || err != nil {
		t.Errorf("have %q, %d, %v, %v", out.String(), n, again, err)
	}

	// A hole within a line is left out.
	m = &memory{data: append(append([]byte("a"), make([]byte, 3<<20)...), "b\n"...), sparse: true}
	c, out = &Cursor{}, bytes.Buffer{}
	for s = c.Next(m, buf); s.Kind == Again; s = c.Next(m, buf) {
	}
	if _, whole, err := c.Line(m, s.End, buf, put); strings.ReplaceAll(out.String(), "\x00", "") != "ab\n" || out.Len() > 3*4096 || !whole || err != nil {
		t.Errorf("have %d bytes, %v, %v", out.Len(), whole, err)
	}

	// A truncation in the middle ends what is out.
	m = &memory{data: []byte(long + "\n")}
	c, out = &Cursor{}, bytes.Buffer{}
	s = c.Next(m, buf)
	if _, whole, err := c.Line(m, s.End, buf, func(piece []byte, first, last bool) error {
		m.data = nil
		return put(piece, first, last)
	}); whole || err != nil || !bytes.HasSuffix(out.Bytes(), []byte("\n")) || out.Len() != Block+1 || c.Offset != 0 {
		t.Errorf("have %d bytes, %v, %v, at %d", out.Len(), whole, err, c.Offset)
	}
}

// TestHasMore: what was written to space that was allocated ahead is more, although the size is as before.
func TestHasMore(t *testing.T) {
	m := &memory{data: append([]byte("one\n"), make([]byte, 100)...)}
	buf := make([]byte, Buffer)
	c := after(m, 4)
	c.Next(m, buf)
	if c.HasMore(m, buf) {
		t.Error("there is more")
	}
	copy(m.data[4:], "two\n")
	if !c.HasMore(m, buf) {
		t.Error("there is nothing more")
	}
}

// TestStartAtEnd: following begins after the last whole line, over any hole, and a line that is being written comes whole.
func TestStartAtEnd(t *testing.T) {
	buf := make([]byte, Buffer)
	for _, test := range []struct {
		file string
		want int64
	}{
		{"", 0}, {"one", 0}, {"one\n", 4}, {"one\ntwo", 4}, {"one\n" + strings.Repeat("x", 3*Turn), 4},
	} {
		m := &memory{data: []byte(test.file)}
		c := &Cursor{}
		if err := c.StartAtEnd(m); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			c.Next(m, buf)
		}
		if c.Offset != test.want || c.Began != test.want {
			t.Errorf("%.20q of %d: have %d, began %d", test.file, len(test.file), c.Offset, c.Began)
		}
	}
}

// TestDataEnd: where the NULs at the end of a file begin.
func TestDataEnd(t *testing.T) {
	for want, m := range map[int64]*memory{
		0:  {},
		3:  {data: []byte("one")},
		4:  {data: append([]byte("one\n"), make([]byte, 500_000)...)},
		10: {data: append([]byte("123456789\n"), make([]byte, 300)...), size: 1 << 50},
	} {
		size, _, _ := m.Stat()
		if have := DataEnd(m, size, make([]byte, Buffer)); have != want {
			t.Errorf("have %d, want %d", have, want)
		}
	}
}

// FuzzNext delivers a file that grows in two steps, and gets its whole lines.
func FuzzNext(f *testing.F) {
	f.Add([]byte("one\ntwo\n"), []byte("three\nfo"))
	f.Add([]byte("\x00\x00\n"), []byte("\n\n\x00"))
	f.Add(bytes.Repeat([]byte("x"), Block+10), []byte("\ny\n"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		m := &memory{data: bytes.Clone(a)}
		c := &Cursor{}
		var out bytes.Buffer
		buf := make([]byte, Buffer)
		read := func() {
			for range 10_000 {
				switch s := c.Next(m, buf); s.Kind {
				case Wait:
					return
				case Deliver:
					out.Write(s.Data)
					c.Advance(s.Data)
				case LongLine:
					if _, whole, err := c.Line(m, s.End, buf, func(p []byte, _, _ bool) error { out.Write(p); return nil }); !whole || err != nil {
						t.Fatal(whole, err)
					}
				case Again, Moved:
				case Truncated, Failed:
					t.Fatalf("have %+v", s)
				}
			}
			t.Fatal("it does not end")
		}
		read()
		m.data = append(m.data, b...)
		m.modified++
		c.Unsettled(m, true)
		read()
		all := m.data[:bytes.LastIndexByte(m.data, '\n')+1]
		if have := out.Bytes(); !bytes.Equal(have, all) && len(all) < leastGap {
			t.Errorf("have %q, want %q", have, all)
		}
	})
}
