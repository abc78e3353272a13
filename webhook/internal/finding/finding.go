// Package finding has what log-bridge reports about pods, manifests, rules and clusters. A Finding has
// a Code, which docs/findings.md explains, and a sentence that says what is wrong, where, and what
// to do about it.
//
// Sentences quote text that strangers choose, and reach terminals, logs, events and annotations.
// New is the only way to make a Finding; it keeps the sentence to one harmless line of bounded length.
package finding

import (
	"fmt"
	"slices"
	"strings"

	"github.com/log-bridge/log-bridge/sidecar/contract"
)

const (
	// MaxMessage is how many bytes all sentences of one answer have at most.
	MaxMessage = 8 << 10
	// MaxSentence is how many bytes one sentence has at most.
	MaxSentence = 1 << 10
	// MaxFindings is how many mistakes a List keeps, and how many other findings.
	MaxFindings = 50
)

// Severity is what a finding leads to.
type Severity string

// The severities.
const (
	// Mistake: the pod is refused until it is put right. In a cluster: something does
	// not work.
	Mistake Severity = "mistake"
	// Warning: the pod is admitted; something will probably not be as wanted.
	Warning Severity = "warning"
	// Note: how things are, for the reader of `check`.
	Note Severity = "note"
)

// Code numbers a kind of finding.
type Code string

// Row documents a Code.
type Row struct {
	Code     Code
	Severity Severity
	// Title is the problem in a few words.
	Title string
	// Remedy is the fix.
	Remedy string
}

var severities = func() map[Code]Severity {
	all := map[Code]Severity{}
	for _, row := range Table {
		all[row.Code] = row.Severity
	}
	return all
}()

// Finding is one thing to report.
type Finding struct {
	Code Code
	text string
}

// New makes a finding. It writes the sentence as Say does.
func New(code Code, format string, args ...any) Finding {
	text := contract.Cut(string(Say(format, args...)), MaxSentence)
	return Finding{Code: code, text: contract.Cut(contract.Line(text), MaxSentence)}
}

// Text is the sentence: what is wrong, where, and the remedy. It is one line.
func (f Finding) Text() string { return f.text }

// String is the sentence followed by its number.
func (f Finding) String() string { return f.text + " [" + string(f.Code) + "]" }

// Severity of the finding.
func (f Finding) Severity() Severity {
	if s, ok := severities[f.Code]; ok {
		return s
	}
	return Mistake
}

// Mistakes are those of some findings that are mistakes.
func Mistakes(of []Finding) []Finding {
	return slices.DeleteFunc(slices.Clone(of), func(f Finding) bool { return f.Severity() != Mistake })
}

// List gathers findings about one pod: each once, the first MaxFindings mistakes, and as
// many others. The zero List is empty.
type List struct {
	// Findings are in the order in which they were added.
	Findings []Finding
	// MoreMistakes and MoreOthers count those that are not among the Findings.
	MoreMistakes, MoreOthers int

	kept             map[Finding]bool
	mistakes, others int // among the findings
}

// Of is a list of some findings.
func Of(all ...Finding) List {
	var l List
	l.Append(all...)
	return l
}

// Add makes a finding, as New does, and adds it.
func (l *List) Add(code Code, format string, args ...any) { l.Append(New(code, format, args...)) }

// Append adds findings.
func (l *List) Append(all ...Finding) {
	for _, f := range all {
		if l.kept[f] {
			continue
		}
		kept, more := &l.others, &l.MoreOthers
		if f.Severity() == Mistake {
			kept, more = &l.mistakes, &l.MoreMistakes
		}
		if *kept == MaxFindings {
			*more++
			continue
		}
		*kept++
		if l.kept == nil {
			l.kept = map[Finding]bool{}
		}
		l.kept[f] = true
		l.Findings = append(l.Findings, f)
	}
}

// Merge adds another list.
func (l *List) Merge(other List) {
	l.Append(other.Findings...)
	l.MoreMistakes += other.MoreMistakes
	l.MoreOthers += other.MoreOthers
}

// Mistaken says whether there is a mistake.
func (l *List) Mistaken() bool { return l.mistakes > 0 }

// Full says that one more mistake would only be counted, so that its sentence need not be
// found.
func (l *List) Full() bool { return l.mistakes == MaxFindings }

// Mistakes are the findings for which a pod is refused.
func (l List) Mistakes() []Finding { return Mistakes(l.Findings) }

// Refusal is one text of at most MaxMessage bytes with the sentences of the mistakes; empty
// if there is none.
func (l List) Refusal() string {
	mistakes := l.Mistakes()
	if len(mistakes) == 0 {
		return ""
	}
	return Join(mistakes, l.MoreMistakes)
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
