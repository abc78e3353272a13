// Package emit writes lines to stdout and stderr. In come blocks of whole lines, and
// long lines in pieces; out go the same bytes, or with a prefix, or as JSON objects. A
// line is never mixed with another.
package emit

import (
	"bytes"
	"os"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/log-bridge/log-bridge/sidecar/contract"
)

// Sink is an output. Use it from one goroutine, but for SetDeadline and Writing.
type Sink struct {
	out    *output
	format contract.Format
	buf    []byte // formatted lines
	prefix []byte // of the long line under way
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
	done := 0
	s.buf = s.buf[:0]
	for rest := p; len(rest) > 0; {
		i := bytes.IndexByte(rest, '\n')
		line := rest[:i]
		rest = rest[i+1:]
		if s.format == contract.JSON {
			s.buf = appendObject(s.buf, container, path, line, false)
		} else {
			s.buf = append(appendPrefix(s.buf, container, path), line...)
			s.buf = append(s.buf, '\n')
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
	switch s.format {
	case contract.JSON:
		// A piece may end within a character: keep its bytes for the next one.
		p = append(s.prefix, bytes.TrimSuffix(p, []byte("\n"))...)
		s.prefix = nil
		if !last {
			n := wholeRunes(p)
			s.prefix = bytes.Clone(p[n:])
			p = p[:n]
		}
		s.buf = appendObject(s.buf[:0], container, path, p, !last)
		_, err := s.out.write(s.buf)
		return err
	case contract.Prefixed:
		if first {
			if _, err := s.out.write(appendPrefix(nil, container, path)); err != nil {
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

func appendPrefix(b []byte, container, path string) []byte {
	b = append(b, container...)
	b = append(b, ':')
	b = append(b, path...)
	return append(b, ' ')
}

// appendObject appends one JSON object and a newline. cut says that the line goes on in
// the next object.
func appendObject(b []byte, container, path string, line []byte, cut bool) []byte {
	b = append(b, `{"container":"`...)
	b = append(b, container...)
	b = append(b, `","file":"`...)
	b = EscapeJSON(b, []byte(path))
	b = append(b, `","line":"`...)
	b = EscapeJSON(b, line)
	b = append(b, '"')
	if cut {
		b = append(b, `,"cut":true`...)
	}
	return append(b, "}\n"...)
}

// EscapeJSON appends p as the inside of a JSON string. Bytes that are not UTF-8, which
// JSON cannot carry, become U+FFFD.
func EscapeJSON(b, p []byte) []byte {
	for len(p) > 0 {
		// Most of a line is as it is in JSON.
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
			if r == utf8.RuneError && n == 1 {
				b = append(b, "\\ufffd"...)
			} else {
				b = append(b, p[:n]...)
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

// Size formats a number of bytes for a sentence: 12 bytes, 3.4 MiB.
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
