package follow

import (
	"testing"
	"time"
)

// TestSchedule: how long a sweep waits where no file is ready, and what is due after that.
func TestSchedule(t *testing.T) {
	now := time.Unix(1e9, 0)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	calm := schedule{scanned: now, checked: now, pace: pace{grew: ago(time.Hour)}}
	with := func(change func(*schedule)) schedule { s := calm; change(&s); return s }
	for _, test := range []struct {
		story string
		s     schedule
		want  time.Duration
	}{
		{"nothing has happened for long: the next scan", calm, scanEvery},
		{"something happened a moment ago: the next check of all files", with(func(s *schedule) { s.grew = now }), checkMin},
		{"the time without news grows, and so does the time to the next check", with(func(s *schedule) { s.grew = ago(24 * time.Second) }), 3 * time.Second},
		{"a file without a name is open", with(func(s *schedule) { s.rotated = true }), rotatedEvery},
		{"the last scan may have missed what happened just before it", with(func(s *schedule) { s.young = true }), youngEvery},
		{"an event asks for a scan", with(func(s *schedule) { s.stale = true }), scanGap},
		{"the same with a thousand files, whose scan takes longer", with(func(s *schedule) { s.stale, s.open = true, 1000 }), scanGap + 50*time.Millisecond},
		{"events do not tell everything", with(func(s *schedule) { s.polled = true }), pollMax},
		{"the same a moment after the last news", with(func(s *schedule) { s.polled, s.grew = true, now }), pollMin},
		{"the same eighty milliseconds later", with(func(s *schedule) { s.polled, s.grew = true, ago(800*time.Millisecond) }), 100 * time.Millisecond},
	} {
		have := test.s.wait(now)
		if have != test.want {
			t.Errorf("%s: have %v, want %v", test.story, have, test.want)
		}
		// Then something is due, and not before.
		due := func(at time.Time) bool {
			byTime, byEvent := test.s.scanDue(at)
			return byTime || byEvent || test.s.checkDue(at)
		}
		if !test.s.polled && due(now.Add(have-1)) {
			t.Errorf("%s: something is due before %v", test.story, have)
		}
		if at := now.Add(have + have/7 + 1); !due(at) {
			t.Errorf("%s: nothing is due after %v", test.story, have)
		}
	}
}
