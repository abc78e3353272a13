package follow

import (
	"testing"
	"time"
)

// TestPace: how long lines are gathered for. Each row is a stream that goes on for a while: a sweep comes when the
// gathering of the one before has passed, or with the next line if there was none.
func TestPace(t *testing.T) {
	const line = 160 // bytes
	for _, test := range []struct {
		story   string
		every   time.Duration // between two lines
		lasting time.Duration
		change  func(*pace) // before each sweep
		flows   bool
		gather  time.Duration
	}{
		{story: "the first line is delivered at once", every: time.Hour, lasting: 1, gather: 0},
		{story: "so is one after a second of silence", every: time.Second, lasting: 10 * time.Second, gather: 0},
		{story: "so are ten lines a second", every: 100 * time.Millisecond, lasting: 10 * time.Second, gather: 0},
		{story: "a burst is gathered for a moment", every: time.Millisecond, lasting: 100 * time.Millisecond, gather: busyWait},
		{story: "a hundred lines a second do not flow yet", every: 10 * time.Millisecond, lasting: 400 * time.Millisecond, gather: 0},
		{story: "they flow", every: 10 * time.Millisecond, lasting: 800 * time.Millisecond, flows: true, gather: 90 * time.Millisecond},
		{story: "they have been flowing for long", every: 10 * time.Millisecond, lasting: 5 * time.Second, flows: true, gather: gatherMax},
		{story: "so have a thousand a second", every: time.Millisecond, lasting: 5 * time.Second, flows: true, gather: gatherMax},
		{story: "of ten thousand, 64 KiB come sooner", every: 100 * time.Microsecond, lasting: 5 * time.Second, flows: true, gather: 41 * time.Millisecond},
		{story: "of a million still sooner", every: time.Microsecond, lasting: 5 * time.Second, flows: true, gather: busyWait},
		{story: "names change all the time", every: 10 * time.Millisecond, lasting: 5 * time.Second, change: func(p *pace) { p.renamed = true }, gather: 0},
		{story: "a file was truncated", every: time.Millisecond, lasting: 5 * time.Second, change: func(p *pace) { p.truncated = true }, gather: busyWait},
	} {
		start := time.Unix(1e9, 0)
		p := pace{grew: start.Add(-busyIf), since: start}
		lines := 0
		for now := start; now.Sub(start) <= test.lasting; {
			due := int(now.Sub(start)/test.every) + 1
			if test.change != nil {
				test.change(&p)
			}
			p = p.next(now, int64(due-lines)*line)
			lines = due
			now = now.Add(max(p.gather, test.every))
		}
		if near := max(test.gather/10, time.Millisecond/10); p.flows != test.flows || p.gather < test.gather-near || p.gather > test.gather+near {
			t.Errorf("%s: flows %v, gathered for %v, want %v, %v", test.story, p.flows, p.gather, test.flows, test.gather)
		}
	}
}

// TestPaceEnds: what ends a flow, and what does not.
func TestPaceEnds(t *testing.T) {
	now := time.Unix(1e9, 0)
	flowing := pace{grew: now, since: now.Add(-time.Minute), flows: true, gather: gatherMax}
	for _, test := range []struct {
		story string
		after time.Duration
		bytes int64
		p     pace
		flows bool
	}{
		{"a gathering that brought lines", gatherMax, 1000, flowing, true},
		{"one that brought none, once", gatherMax, 0, flowing, true},
		{"silence", 2 * gatherMax, 0, flowing, false},
		{"lines after silence", 2 * gatherMax, 1000, flowing, false},
		{"no line in a short gathering of a fast stream", busyWait, 0, pace{grew: now, since: flowing.since, flows: true, gather: busyWait}, true},
		{"a change of a name", time.Millisecond, 0, pace{grew: now, since: flowing.since, flows: true, gather: gatherMax, renamed: true}, false},
		{"a truncation", gatherMax, 1000, pace{grew: now, since: flowing.since, flows: true, gather: gatherMax, truncated: true}, false},
	} {
		if p := test.p.next(now.Add(test.after), test.bytes); p.flows != test.flows || !p.flows && p.gather != 0 {
			t.Errorf("%s: flows %v, gathered for %v, want %v", test.story, p.flows, p.gather, test.flows)
		}
	}
}
