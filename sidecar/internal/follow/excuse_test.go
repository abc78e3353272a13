package follow_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
)

// What the oracle excuses, why, and how much of it there may be: an oracle that excuses everything finds
// nothing.

// A reason excuses something. Each is told to the user.
type reason int

const (
	none reason = iota
	shortLived
	unread
	compressed
	severalFirst
	movedFirst
	silent
	cutShort
	unmetCopy
	strangeCopy
	oneTick
	firstCopy
	smallCopy
	noCheckpoint
	lastLine
	unreadable
	twoFiles
	stillWritten
	overwritten
	reasons
)

// told is what a run calls each reason, and where docs/delivery.md explains it.
var told = [reasons]struct{ name, docs string }{
	none:         {"none", ""},
	shortLived:   {"short-lived", "**A file that lives for less than an instant.**"},
	unread:       {"unread", "**Truncated before it was read.**"},
	compressed:   {"compressed", "**Compressed and deleted while the sidecar was down.**"},
	severalFirst: {"several-first", "**Several rotations before the first scan.**"},
	movedFirst:   {"moved-first", "**Moved before the first scan.**"},
	silent:       {"silent", "**A rotated file whose writer is silent for a minute.**"},
	cutShort:     {"cut-short", "**Truncated, but not to zero.**"},
	unmetCopy:    {"unmet-copy", "**Copied, appended to and truncated while the sidecar is down.**"},
	strangeCopy:  {"strange-copy", "**A copy that cannot be compared.**"},
	oneTick:      {"one-tick", "**Several rotations in one tick of the kernel's clock**"},
	firstCopy:    {"first-copy", "**Filled, copied and truncated before the first scan.**"},
	smallCopy:    {"small-copy", "**A small copy at the end of the pod.**"},
	noCheckpoint: {"no-checkpoint", "**A checkpoint that cannot be written.**"},
	lastLine:     {"last-line", "A last line without a newline waits for its rest."},
	unreadable:   {"unreadable", "**A file that cannot be read when it is rotated.**"},
	twoFiles:     {"two-files", "With a glob that matches both names, they are two files."},
	overwritten:  {"overwritten", "**Overwriting.**"},
	stillWritten: {"still-written", "What a file held when it was rotated comes before"},
}

func (r reason) String() string { return told[r].name }

// excuse sets a reason where there is none yet.
func excuse(which *reason, why reason) {
	if *which == none {
		*which = why
	}
}

// excused are the ways in which a record may be excused.
var excused = []struct {
	what string
	why  func(*record, *fate) reason
}{
	{"lost", func(_ *record, f *fate) reason { return f.lose }},
	{"repeated", func(_ *record, f *fate) reason { return f.repeat }},
	{"ended", func(r *record, f *fate) reason {
		if r.newline {
			return none
		}
		return f.end
	}},
	{"torn", func(_ *record, f *fate) reason { return f.tear }},
	{"disordered", func(_ *record, f *fate) reason { return f.order }},
}

// account counts what the oracles of many programs excused. It may be used by several goroutines.
type account struct {
	mu                sync.Mutex
	programs, records int
	excused           map[string]int // by way and reason
	free              int            // records that may neither be lost nor repeated
	unasked           int            // records that did not come, and nothing excuses that
}

// add counts what an oracle excused in a program that was played to its end.
func (a *account) add(o *oracle) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.excused == nil {
		a.excused = map[string]int{}
	}
	a.programs++
	for r, f := range o.fates {
		a.records++
		a.free += number(f.lose == none && f.repeat == none)
		for _, e := range excused {
			if why := e.why(r, f); why != none {
				a.excused[e.what+" "+why.String()]++
			}
		}
		a.unasked += number(f.came == 0 && f.lose == none)
	}
}

// String is the share of the records for each way and reason.
func (a *account) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d programs, %d records; excused:\n", a.programs, a.records)
	for _, e := range excused {
		for r := none + 1; r < reasons; r++ {
			if n := a.excused[e.what+" "+r.String()]; n > 0 {
				fmt.Fprintf(&b, "  %-10s %-14s %7d %7.3f %%\n", e.what, r, n, a.share(n))
			}
		}
	}
	fmt.Fprintf(&b, "  neither lost nor repeated is excused: %.1f %%\n", a.share(a.free))
	return b.String()
}

// share of the records, in per cent.
func (a *account) share(n int) float64 { return 100 * float64(n) / float64(a.records) }

// enough is how many programs have to be played before shares mean something.
const enough = 1000

// most is the largest share of the records that may be excused in each way and for each reason, in per cent. It is
// about one and a half times what thousands of random programs show, so that an excuse that is widened by mistake, or a mix of programs in
// which nothing is asked for any more, does not go unnoticed. What is not in it may not be excused.
var most = map[string]float64{
	"lost short-lived":         14,
	"lost unread":              15.5,
	"lost compressed":          0.8,
	"lost several-first":       14,
	"lost moved-first":         0.1,
	"lost silent":              0.4,
	"lost cut-short":           3,
	"lost overwritten":         0.8,
	"repeated cut-short":       1.9,
	"repeated unmet-copy":      0.55,
	"repeated strange-copy":    7.5,
	"repeated one-tick":        3,
	"repeated first-copy":      3.5,
	"repeated small-copy":      1.6,
	"repeated no-checkpoint":   5.5,
	"repeated overwritten":     0.8,
	"ended cut-short":          0.2,
	"ended unmet-copy":         0.2,
	"ended strange-copy":       0.2,
	"ended one-tick":           0.2,
	"ended first-copy":         0.2,
	"ended small-copy":         0.2,
	"ended no-checkpoint":      0.2,
	"ended last-line":          0.9,
	"ended overwritten":        0.2,
	"torn unread":              0.6,
	"disordered strange-copy":  4.5,
	"disordered one-tick":      1,
	"disordered unreadable":    0.2,
	"disordered two-files":     12,
	"disordered still-written": 23,
}

// leastFree is the least share of records for which neither loss nor repetition is excused, in per cent.
const leastFree = 50

// judge says what was excused more than it may be.
func (a *account) judge() error {
	if a.unasked > 0 {
		return fmt.Errorf("%d records did not come although nothing excuses that, and the oracle did not ask for them", a.unasked)
	}
	if a.programs < enough {
		return nil
	}
	var errs []error
	for which, n := range a.excused {
		if share := a.share(n); share > most[which] {
			errs = append(errs, fmt.Errorf("%s: excused for %.3f %% of the records, which is more than %.3f %%: the oracle may have become too lenient", which, share, most[which]))
		}
	}
	if share := a.share(a.free); share < leastFree {
		errs = append(errs, fmt.Errorf("only %.1f %% of the records may neither be lost nor repeated, which is less than %d %%: the oracle may have become too lenient", share, leastFree))
	}
	return errors.Join(errs...)
}

// TestReasons: docs/delivery.md explains everything that the oracle excuses.
func TestReasons(t *testing.T) {
	docs, err := os.ReadFile("../../../docs/delivery.md")
	must(err)
	for r := none + 1; r < reasons; r++ {
		if told[r].docs == "" || !bytes.Contains(docs, []byte(told[r].docs)) {
			t.Errorf("docs/delivery.md does not explain %s, which the oracle excuses: %q is missing", r, told[r].docs)
		}
	}
}
