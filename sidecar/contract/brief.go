package contract

import "unicode/utf8"

// MaxQuote is how many bytes of a user's text a message quotes at most.
const MaxQuote = 128

// Brief is the beginning of a text, as a message may quote it: at most MaxQuote bytes,
// and an ellipsis where something was cut.
func Brief(s string) string { return Cut(s, MaxQuote) }

// Cut shortens a text to at most n bytes, and adds an ellipsis where something was cut.
// It cuts between two characters.
func Cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
