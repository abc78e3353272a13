package contract

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// File names, annotations and the messages of a cluster are text that strangers choose. In a terminal, a
// newline in it looks like one of our lines, an escape sequence rewrites what is there, and characters
// that reorder or hide text make one name look like another. Line and Word make such text harmless.

// Deceives says whether a character is not shown as itself: control characters (C0, DEL and C1),
// line separators, and those that reorder text or show nothing. Spaces and letters of all
// scripts are ordinary, and so are selectors that only choose how a character is drawn.
func Deceives(r rune) bool {
	switch {
	case r < ' ', r >= 0x7f && r < 0xa0:
		return true
	case r < 0xad:
		return false
	case r < 0x2000:
		switch r {
		case 0xad, 0x34f, 0x61c, 0x115f, 0x1160, 0x17b4, 0x17b5, 0x180e: // soft hyphen, joiners, fillers, Arabic letter mark
			return true
		}
		return false
	}
	switch {
	case r >= 0x200b && r <= 0x200f, // zero width, left-to-right and right-to-left marks
		r >= 0x2028 && r <= 0x202e,            // line and paragraph separators, embeddings and overrides
		r >= 0x2060 && r <= 0x206f,            // word joiner, isolates
		r == 0x3164, r == 0xfeff, r == 0xffa0, // fillers, byte order mark
		r >= 0xfff0 && r <= 0xfffb,                                 // interlinear annotation
		r >= 0x1d173 && r <= 0x1d17a,                               // musical formatting
		r >= 0xe0000 && r <= 0xe00ff, r >= 0xe01f0 && r <= 0xe0fff: // tags; what is between chooses how a character is drawn
		return true
	}
	return false
}

// Line is text that stays within one line and shows what it holds: what deceives, and bytes that are not
// UTF-8, are written as in a Go string, such as \n, \x1b or \u202e. It is for people to read, and
// leaves backslashes and quotes as they are.
func Line(text string) string {
	if harmless(text) {
		return text
	}
	var b strings.Builder
	escape(&b, text, "")
	return b.String()
}

// Word is text as one word, which programs can read back: as it is, or, if it holds a space or what Line
// would change, as a Go string in double quotes. Of text that is to be read back,
// none may begin with a double quote; a path never does.
func Word(text string) string {
	if harmless(text) && !strings.Contains(text, " ") {
		return text
	}
	var b strings.Builder
	b.WriteByte('"')
	escape(&b, text, `"\`)
	b.WriteByte('"')
	return b.String()
}

func harmless(text string) bool {
	for i, r := range text {
		if Deceives(r) {
			return false
		}
		if r == utf8.RuneError && !strings.HasPrefix(text[i:], "\uFFFD") {
			return false
		}
	}
	return true
}

// escape writes text such that it is harmless, with a backslash before the characters of special.
func escape(b *strings.Builder, text, special string) {
	for len(text) > 0 {
		r, n := utf8.DecodeRuneInString(text)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(b, `\x%02x`, text[0])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < utf8.RuneSelf && Deceives(r):
			fmt.Fprintf(b, `\x%02x`, r)
		case r > 0xffff && Deceives(r):
			fmt.Fprintf(b, `\U%08x`, r)
		case Deceives(r):
			fmt.Fprintf(b, `\u%04x`, r)
		default:
			if strings.ContainsRune(special, r) {
				b.WriteByte('\\')
			}
			b.WriteRune(r)
		}
		text = text[n:]
	}
}
