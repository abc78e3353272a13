// Package emit writes lines to stdout and stderr. In come blocks of whole lines, and
// long lines in pieces; out go the same bytes, or with a prefix, or as JSON objects. A
// line is never mixed with another.
package emit

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/log-bridge/log-bridge/sidecar/contract"
)

// Sink is an output. Use it from one goroutine, but for SetDeadline and Writing.
type Sink struct {
	out    *output
	format contract.Format
	buf    []byte // formatted lines
	of     contract.Place
	before []byte // what comes before each line of that place, up to its text
	rest   []byte // of a long line: the beginning of a character whose end is in its next piece
}

// flushAt is how many formatted bytes are gathered before a write.
const flushAt = 64 << 10

// NewSink makes a sink on an open file, which stays open.
func NewSink(f *os.File, format contract.Format) *Sink {
	return &Sink{out: newOutput(f), format: format}
}

// SetDeadline ends a write that still waits for the reader at t, with ErrLate. Any
// goroutine may call it.
func (s *Sink) SetDeadline(t time.Time) { s.out.setDeadline(t) }

// Writing says whether a write is under way; if it is for long, the reader takes nothing. Any goroutine
// may call it.
func (s *Sink) Writing() bool { return s.out.writing.Load() }

// Lines writes a block of whole lines: each ends with a newline. It returns how many
// bytes of p are out; after an error that may end within a line.
func (s *Sink) Lines(container, path string, p []byte) (int, error) {
	if s.format == contract.Raw {
		return s.out.write(p)
	}
	s.lineOf(container, path)
	done := 0
	s.buf = s.buf[:0]
	for rest := p; len(rest) > 0; {
		i := bytes.IndexByte(rest, '\n')
		line := rest[:i]
		rest = rest[i+1:]
		if s.format == contract.JSON {
			s.appendObject(line, false)
		} else {
			s.buf = append(append(append(s.buf, s.before...), line...), '\n')
		}
		if len(s.buf) >= flushAt || len(rest) == 0 {
			if _, err := s.out.write(s.buf); err != nil {
				return done, err
			}
			s.buf, done = s.buf[:0], len(p)-len(rest)
		}
	}
	return done, nil
}

// Piece writes a part of a line that is too long for a block; first and last say
// which part it is. The last one ends with a newline, the others hold none.
func (s *Sink) Piece(container, path string, p []byte, first, last bool) error {
	s.lineOf(container, path)
	switch s.format {
	case contract.JSON:
		// A piece may end within a character: keep its bytes for the next one.
		p = append(s.rest, bytes.TrimSuffix(p, []byte("\n"))...)
		s.rest = nil
		if !last {
			n := wholeRunes(p)
			s.rest = bytes.Clone(p[n:])
			p = p[:n]
		}
		s.buf = s.buf[:0]
		s.appendObject(p, !last)
		_, err := s.out.write(s.buf)
		return err
	case contract.Prefixed:
		if first {
			if _, err := s.out.write(s.before); err != nil {
				return err
			}
		}
	}
	_, err := s.out.write(p)
	return err
}

// wholeRunes is the length of p without a character that is cut off at its end.
func wholeRunes(p []byte) int {
	for i := len(p) - 1; i >= 0 && i > len(p)-utf8.UTFMax; i-- {
		if utf8.RuneStart(p[i]) {
			if !utf8.FullRune(p[i:]) {
				return i
			}
			break
		}
	}
	return len(p)
}

// lineOf makes before that of a place. A path is chosen by a stranger: in the format prefix it is one word, so that
// it ends where it seems to, and nothing in it looks like another line.
func (s *Sink) lineOf(container, path string) {
	if of := (contract.Place{Container: container, Path: path}); of != s.of || s.before == nil {
		s.of = of
		switch s.format {
		case contract.Prefixed:
			s.before = append(s.before[:0], contract.Line(container)+":"+contract.Word(path)+" "...)
		case contract.JSON:
			s.before = append(s.before[:0], `{"container":"`...)
			s.before = EscapeJSON(s.before, []byte(container))
			s.before = append(s.before, `","file":"`...)
			s.before = EscapeJSON(s.before, []byte(path))
			s.before = append(s.before, `","line":"`...)
		}
	}
}

// appendObject appends one JSON object and a newline to buf. cut says that the line continues in
// the next object.
func (s *Sink) appendObject(line []byte, cut bool) {
	s.buf = EscapeJSON(append(s.buf, s.before...), line)
	s.buf = append(s.buf, '"')
	if cut {
		s.buf = append(s.buf, `,"cut":true`...)
	}
	s.buf = append(s.buf, "}\n"...)
}

// EscapeJSON appends p as the inside of a JSON string. Bytes that are not UTF-8, which
// JSON cannot carry, become U+FFFD. What deceives in a terminal (contract.Deceives) is written by its
// number, which means the same to a program.
func EscapeJSON(b, p []byte) []byte {
	for len(p) > 0 {
		// Most of a line is the same in JSON.
		n := 0
		for n < len(p) && plain[p[n]] {
			n++
		}
		b, p = append(b, p[:n]...), p[n:]
		if len(p) == 0 {
			break
		}
		switch c := p[0]; {
		case c == '"' || c == '\\':
			b, p = append(b, '\\', c), p[1:]
		case c == '\t':
			b, p = append(b, `\t`...), p[1:]
		case c == '\r':
			b, p = append(b, `\r`...), p[1:]
		case c == '\n':
			b, p = append(b, `\n`...), p[1:]
		case c < utf8.RuneSelf:
			b, p = append(b, `\u00`...), p[1:]
			b = append(b, "0123456789abcdef"[c>>4], "0123456789abcdef"[c&15])
		default:
			r, n := utf8.DecodeRune(p)
			switch {
			case r == utf8.RuneError && n == 1:
				b = append(b, "\\ufffd"...)
			case !contract.Deceives(r):
				b = append(b, p[:n]...)
			case r > 0xffff:
				high, low := utf16.EncodeRune(r)
				b = fmt.Appendf(b, `\u%04x\u%04x`, high, low)
			default:
				b = fmt.Appendf(b, `\u%04x`, r)
			}
			p = p[n:]
		}
	}
	return b
}

// plain are the bytes that are the same in a JSON string: ASCII but quotes, backslashes and
// control characters.
var plain = func() (t [256]bool) {
	for c := ' '; c < 0x7f; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// Size formats a number of bytes for a message: 12 bytes, 3.4 MiB.
func Size(n int64) string {
	if n < 1024 {
		return strconv.FormatInt(n, 10) + " bytes"
	}
	f, i := float64(n)/1024, 0
	for f >= 1024 && i < 3 {
		f, i = f/1024, i+1
	}
	return strconv.FormatFloat(f, 'f', 1, 64) + " " + []string{"KiB", "MiB", "GiB", "TiB"}[i]
}
