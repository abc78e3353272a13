package follow

import (
	"slices"
	"time"
)

// finishRotated closes the files without a name that are delivered whole and that nobody can append to any more.
func (f *Follower) finishRotated(now time.Time) error {
	if f.count(); !f.when.rotated {
		return nil
	}
	for _, x := range slices.Clone(f.index.open) {
		if x.presence != rotated || x.ready || x.failed || x.doubted || x.missed && !x.since.IsZero() {
			continue
		}
		if x.original != nil {
			// A copy that was deleted is of no use as long as its original is whole.
			if st, err := x.stat(); err == nil && st.Nlink == 0 && x.original.isOpen() && x.original.Intact(x.original) {
				f.finish(x, false)
			}
			continue
		}
		switch x.writers() {
		case some:
			continue
		case unknown:
			if now.Sub(x.grew) < quietFor {
				continue
			}
		case none:
		}
		// What came after it is found by what is known of it.
		if f.when.stale || !f.when.scanned.Equal(now) {
			f.scan(now)
			if x.presence != rotated || x.ready {
				continue
			}
		}
		// A last line may have been written before the writer went.
		if x.HasMore(x, f.buf) {
			x.ready = true
			continue
		}
		again, err := f.flush(x)
		if err != nil {
			return err
		}
		if again {
			x.ready = true
			continue
		}
		for _, c := range slices.Clone(f.index.open) {
			if c != x && c.Offset == 0 && c.original == nil {
				f.isHeld(c, now, false) // while there is something to compare it with
			}
		}
		st, err := x.stat()
		f.finish(x, err == nil && st.Nlink > 0)
	}
	return nil
}

// finish ends the following of a file. exists says that it still has a name, so that it may be met again.
func (f *Follower) finish(x *file, exists bool) {
	f.settleCopies(x)
	f.judgeAgain()
	if st, err := x.stat(); err == nil {
		x.rest = restOf(&st)
	}
	f.close(x, finished)
	if !exists {
		f.forget(x)
		return
	}
	f.record.keep(x)
}

// count brings what the schedule knows of the files up to date.
func (f *Follower) count() {
	f.when.open = len(f.index.open)
	f.when.rotated = slices.ContainsFunc(f.index.open, func(x *file) bool { return x.presence == rotated })
}
