package inject

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/log-bridge/log-bridge/sidecar/contract"
)

// Bounds of what is said about one pod. The pod's text is anybody's, and a sentence reaches
// the API server, the log, events and the status annotation.
const (
	// MaxMessage is how many bytes all sentences of one answer have at most.
	MaxMessage = 8 << 10
	// MaxSentence is how many bytes one sentence has at most.
	MaxSentence = 1 << 10
	// MaxFindings is how many findings of mistakes are kept, and how many of others.
	MaxFindings = 50
	// maxListed is how many names a sentence lists at most.
	maxListed = 8
)

// words are a part of a sentence that is not a text of the user, or is one in which
// those are cut already.
type words string

// say writes a sentence, or a part of one. Strings of the pod are quoted in part: each is
// at most contract.MaxQuote bytes long.
func say(format string, args ...any) words {
	for i, arg := range args {
		switch v := arg.(type) {
		case words, error:
		case string:
			args[i] = contract.Brief(v)
		case fmt.Stringer:
			args[i] = contract.Brief(v.String())
		}
	}
	return words(fmt.Sprintf(format, args...))
}

// sentence is say, as an error.
func sentence(format string, args ...any) error { return errors.New(string(say(format, args...))) }

// list writes the first names of many.
func list(names []string) words {
	var b strings.Builder
	for i, name := range names {
		if i == maxListed {
			b.WriteString(fmt.Sprintf(" and %d more", len(names)-i))
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(contract.Brief(name))
	}
	return words(b.String())
}

// printable writes what is no letter, digit, mark, punctuation, symbol or blank as Go
// does in quotes: a line break or a terminal's command in a name must not forge a line.
func printable(s string) string {
	i := strings.IndexFunc(s, func(r rune) bool { return !strconv.IsPrint(r) })
	if i < 0 {
		return s
	}
	var b strings.Builder
	b.WriteString(s[:i])
	for _, r := range s[i:] {
		if strconv.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRune(r)
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}

// NewFinding is a finding whose text is printable and at most MaxSentence long, whatever
// it quotes.
func NewFinding(code Code, text string) Finding {
	return Finding{Code: code, Text: contract.Cut(printable(contract.Cut(text, MaxSentence)), MaxSentence)}
}

// say finds something, in the words of the function say.
func (p *planner) say(code Code, format string, args ...any) {
	p.find(code, string(say(format, args...)))
}

// Join writes sentences one after the other, at most MaxMessage bytes: the first ones, and
// how many more there are. more counts those that are not among them.
func Join(findings []Finding, more int) string {
	// As many as the bytes of the last words.
	const room = MaxMessage - 32
	var b strings.Builder
	for i, f := range findings {
		text := f.String()
		if b.Len()+len("; ")+len(text) > room {
			more += len(findings) - i
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(text)
	}
	if more > 0 {
		b.WriteString(fmt.Sprintf("; and %d more", more))
	}
	return b.String()
}
