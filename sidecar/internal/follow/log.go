package follow

import (
	"cmp"
	"path"
	"slices"

	"github.com/log-bridge/log-bridge/sidecar/contract"
)

// log is a name and its open generations, the oldest first. The one that has the name is the last one.
type log struct {
	name        contract.Place
	generations []*file
}

// logName is the name of the log that a file belongs to. With a glob, the generations of a log have names that the
// glob matches as well.
func (x *file) logName() contract.Place {
	if x.src != nil && x.src.IsGlob() {
		return contract.Place{Container: x.place.Container, Path: unnumbered(x.place.Path)}
	}
	return x.place
}

// names are that of a file and that of its log, if it is another one: with a glob a generation has its own, and its log's
// leads to those that have moved elsewhere.
func (x *file) names() []contract.Place {
	if name := x.logName(); name != x.place {
		return []contract.Place{x.place, name}
	}
	return []contract.Place{x.place}
}

// first says whether x may be served: no earlier generation of its log has something that was not read yet.
func (l *log) first(x *file) bool {
	for _, g := range l.generations {
		if g == x {
			return true
		}
		if g.pending {
			return false
		}
	}
	return true
}

// sort puts the generations in order.
func (l *log) sort() {
	if len(l.generations) < 2 {
		return
	}
	upward := l.countsUpward()
	slices.SortStableFunc(l.generations, func(a, b *file) int {
		if last := l.isLast(a); last != l.isLast(b) {
			if last {
				return 1
			}
			return -1
		}
		// Born in one tick of the clock: the earlier one was left earlier.
		if order := cmp.Or(cmp.Compare(a.Birth, b.Birth), cmp.Compare(a.modified(), b.modified())); order != 0 {
			return order
		}
		return byAge(path.Base(a.node.Real), path.Base(b.node.Real), upward)
	})
}

// isLast says whether x has the log's name now.
func (l *log) isLast(x *file) bool { return x.current() && (x.place == l.name || !x.src.IsGlob()) }

// countsUpward says whether higher numbers are given to later generations, going by those whose births differ.
func (l *log) countsUpward() bool {
	up, down := 0, 0
	for i, a := range l.generations {
		for _, b := range l.generations[i+1:] {
			m, n := counter(a.node.Real), counter(b.node.Real)
			if m < 0 || n < 0 || m == n || a.Birth == b.Birth {
				continue
			}
			if m < n == (a.Birth < b.Birth) {
				up++
			} else {
				down++
			}
		}
	}
	return up > down
}
