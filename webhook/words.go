package main

import (
	"fmt"
	"io"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/log-bridge/log-bridge/sidecar/contract"
)

// say writes one line for people. Manifests, the names of files and what a cluster says are texts of strangers; the
// line stays one, and shows what it holds (contract.Line), so that they cannot forge another.
func say(w io.Writer, format string, args ...any) {
	fmt.Fprintln(w, contract.Line(fmt.Sprintf(format, args...)))
}

// jsonLines passes on lines of JSON, as log/slog writes them, with what deceives in a terminal (contract.Deceives)
// written by its number, which means the same to a program. slog does so with the control
// characters of ASCII only. Such characters occur in JSON within strings alone.
type jsonLines struct{ w io.Writer }

// Write takes whole lines.
func (j jsonLines) Write(lines []byte) (int, error) {
	out := make([]byte, 0, len(lines))
	for rest := lines; len(rest) > 0; {
		r, n := utf8.DecodeRune(rest)
		switch {
		case r == '\n' || !contract.Deceives(r):
			out = append(out, rest[:n]...)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		rest = rest[n:]
	}
	if _, err := j.w.Write(out); err != nil {
		return 0, err
	}
	return len(lines), nil
}
