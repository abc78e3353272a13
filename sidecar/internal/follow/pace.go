package follow

import "time"

// Lines that come one by one are delivered one by one, at once; those that keep coming are gathered, because each wake-up
// costs more than a line does.
const (
	// busyWait is how long lines are gathered that came within busyIf of the ones before.
	busyWait = 5 * time.Millisecond
	busyIf   = busyWait + time.Millisecond
	// Lines flow when they have come for flowAfter without a pause of flowPause. From then on they are gathered for
	// 1/idlePart of the time for which they have been flowing, at most gatherMax, and at most until about gatherBytes
	// have come: what is rotated fast must be read fast.
	flowAfter   = 500 * time.Millisecond
	flowPause   = 50 * time.Millisecond
	gatherMax   = 200 * time.Millisecond
	gatherBytes = 64 << 10
)

// pace is how lines have been coming.
type pace struct {
	grew  time.Time // the last delivery
	since time.Time // since when lines have come without a pause
	// flows says that lines flow, and gather how long they are gathered for.
	flows  bool
	gather time.Duration
	// A change of a name may be the beginning of a rotation, during which there is little time to read what was
	// written last: lines are not taken to flow. Nor are they once a file was truncated, because what is written before
	// the next truncation and not read by then may be gone.
	renamed, truncated bool
}

// next is the pace after a sweep that delivered n bytes. Until the next sweep, gather has to pass; if lines do not flow,
// that is 0 or busyWait.
func (p pace) next(now time.Time, n int64) pace {
	pause := now.Sub(p.grew)
	if p.renamed || p.truncated || pause > p.gather+flowPause {
		p.since, p.flows = now, false
	}
	if n == 0 {
		if !p.flows {
			p.gather = 0
		}
		p.renamed = false
		return p
	}
	flowed := now.Sub(p.since)
	p.grew, p.renamed, p.flows = now, false, flowed >= flowAfter
	switch {
	case p.flows:
		full := time.Duration(float64(pause) * gatherBytes / float64(n))
		p.gather = max(min(flowed/idlePart, gatherMax, full), busyWait)
	case pause < busyIf:
		p.gather = busyWait
	default:
		p.gather = 0
	}
	return p
}
