package follow_test

import (
	"slices"
	"time"
)

// shrink makes a failing program as small as it can: it takes steps away for as long as the program
// fails, first the end and then ever smaller pieces, and then makes those that are left simpler. It
// gives up after a minute, since a program may fail slowly.
func shrink(p program, fails func(program) bool) program {
	end := time.Now().Add(time.Minute)
	try := func(steps []step) bool {
		less := program{p.setting, steps}
		if time.Now().After(end) || !fails(less) {
			return false
		}
		p = less
		return true
	}
	for n := (len(p.steps) + 1) / 2; n > 0 && time.Now().Before(end); {
		shorter := false
		for at := 0; at+n <= len(p.steps) && time.Now().Before(end); {
			if try(slices.Concat(p.steps[:at], p.steps[at+n:])) {
				shorter = true
			} else {
				at += n
			}
		}
		if n == 1 && !shorter {
			break
		}
		n = max(1, n/2)
	}
	for i := range p.steps {
		for _, simpler := range simpler(p.steps[i]) {
			steps := slices.Clone(p.steps)
			steps[i] = simpler
			try(steps)
		}
	}
	return p
}

// simpler are steps that do the same with less.
func simpler(st step) (all []step) {
	add := func(change func(*step)) {
		less := st
		if change(&less); less != st {
			all = append(all, less)
		}
	}
	for f := flags(1); f != 0 && f <= st.flags; f <<= 1 {
		add(func(s *step) { s.flags &^= f })
	}
	add(func(s *step) { s.size = 0 })
	add(func(s *step) { s.n = min(s.n, 1) })
	add(func(s *step) { s.n, s.size, s.flags = min(s.n, 1), 0, 0 })
	return all
}
