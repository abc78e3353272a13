package follow

import "time"

// A rotation by copytruncate copies a file and then truncates it. What was not delivered before the truncation is in
// the copy alone, and what was delivered must not come again where the copy has a name that a source matches. Copies
// are known by their content, so that no rotation need be configured:
//
//   - A new file whose name extends that of a followed one, and whose bytes are the first bytes of that file, is held:
//     nothing of it is delivered until it differs (then it is a log of its own) or its original is truncated.
//   - When a file is truncated, a file with the same head and the same anchor at the same offset is the copy: it is
//     delivered from there on.
//   - What was delivered of a file is remembered by checksums after it was truncated, so that a copy that is found
//     only then is known as well.

// heldFor is how long a file that is only perhaps a copy is held.
const heldFor = 2 * time.Second

// comparison is how a file of which nothing is delivered compares with another one.
type comparison struct {
	like   likeness // of the names
	intact bool     // what was delivered of the other one is still in it
	same   bool     // the file begins as the other one does, and its end is at the same place in it
	// waitsFor says that the file is held as the other's copy already, and named that the other one has a name.
	waitsFor, named bool
}

// question is what the origin of a file depends on.
type question struct {
	size   int64         // in bytes
	held   time.Duration // for how long it has been held already
	ending bool          // nothing will change any more
	others []comparison
}

// verdict is the answer.
type verdict int

const (
	// itself: the file is a log of its own, unless it is a copy of what is in no file any more.
	itself verdict = iota
	// aCopy: the file may be a copy, and is held.
	aCopy
	// later: another file was truncated, which comes first, since it looks for its copy.
	later
)

// judge says whether a file may be the copy of another one, and of which: its index in q.others.
func judge(q question) (v verdict, of int) {
	for i, c := range q.others {
		switch {
		case c.like == unlike:
			continue
		case !c.intact:
			return later, i
		case v == aCopy || !c.same:
			continue
		case c.like == perhaps && (q.ending || q.held >= heldFor && !(c.waitsFor && !c.named)):
			// They begin alike for too long, unless the other one was rotated with all of its bytes: no log beside it.
			continue
		case q.ending && q.size < smallest:
			// A few bytes may well be the same in two logs.
			continue
		}
		v, of = aCopy, i
	}
	return v, of
}
