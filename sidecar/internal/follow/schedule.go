package follow

import "time"

// How long a sweep waits, at the most, before it scans or checks again. Events end a wait; these are for what events do
// not tell.
const (
	// scanEvery is the time between two scans if events report changes: permission changes elsewhere on the path,
	// mounts and lost events.
	scanEvery = 5 * time.Second
	// youngEvery is the time after which a scan is repeated if a directory changed so shortly before it that what was
	// made at the same time may have been missed.
	youngEvery = 250 * time.Millisecond
	// fullScanEvery is the time after which a scan is made although no directory has changed: somebody may have
	// mounted something over a file.
	fullScanEvery = 10 * time.Minute
	// checkMin and checkMax bound the time between two checks of all open files where there are events, pollMin and
	// pollMax where there are none. In between it is a part of the time in which nothing happened, 1/idlePart: what is
	// written after a second comes within an eighth of one, and what is idle costs little.
	checkMin = 2 * time.Second
	checkMax = scanEvery
	pollMin  = 10 * time.Millisecond
	pollMax  = time.Second
	idlePart = 8
	// rotatedEvery is the time between two checks where a file without a name is open, which may be where no watch is.
	rotatedEvery = 250 * time.Millisecond
	// scanGap is the least time between two scans that events ask for, and scanGapEach is added to it for each open
	// file: a scan of many files must not come often.
	scanGap     = 2 * time.Millisecond
	scanGapEach = 50 * time.Microsecond
	// syncEvery is the time between two syncs of a checkpoint that has changed.
	syncEvery = 5 * time.Second
	// quietFor is how long a rotated file whose writers nobody tells must be quiet before it counts as finished.
	quietFor = 60 * time.Second
)

// Wait says what is to be done until the next Sweep.
type Wait struct {
	// For is the longest wait; 0 is none.
	For time.Duration
	// Deaf asks not to let an event end the wait: the next lines are gathered.
	Deaf bool
	// Flowing says that events of writes are of no use until there is a Wait without it: lines flow, and all files are
	// read when For has passed. Other events end the wait.
	Flowing bool
}

// schedule is what it depends on when the next scan and the next check come.
type schedule struct {
	pace                       // how lines have been coming
	scanned, checked time.Time // the last scan, and the last check of all open files
	stale            bool      // an event asks for a scan
	young            bool      // the last scan may have missed what happened just before it
	polled           bool      // events do not tell everything
	rotated          bool      // a file without a name is open
	open             int       // number of open files
}

// scanDue says whether it is time for a scan, because of the time that passed or because of an event.
func (s schedule) scanDue(now time.Time) (byTime, byEvent bool) {
	since := now.Sub(s.scanned)
	return since >= s.scanAfter(now), s.stale && since >= s.gap()
}

// checkDue says whether it is time to check all open files.
func (s schedule) checkDue(now time.Time) bool { return now.Sub(s.checked) >= s.checkAfter(now) }

// wait says how long there is nothing to do if no file is ready.
func (s schedule) wait(now time.Time) time.Duration {
	if s.stale {
		return s.gap()
	}
	return min(s.checkAfter(now), s.scanAfter(now))
}

func (s schedule) gap() time.Duration { return scanGap + time.Duration(s.open)*scanGapEach }

func (s schedule) scanAfter(now time.Time) time.Duration {
	switch {
	case s.polled:
		return s.patience(now, pollMin, pollMax)
	case s.young:
		return youngEvery
	}
	return scanEvery
}

func (s schedule) checkAfter(now time.Time) time.Duration {
	switch {
	case s.polled:
		return s.patience(now, pollMin, pollMax)
	case s.rotated:
		return rotatedEvery
	}
	return s.patience(now, checkMin, checkMax)
}

// patience is 1/idlePart of the time in which nothing happened, within bounds.
func (s schedule) patience(now time.Time, least, most time.Duration) time.Duration {
	return min(max(now.Sub(s.grew)/idlePart, least), most)
}
