package follow

import (
	"testing"
	"time"
)

// TestJudge: whether a file of which nothing is delivered may be a copy of another one.
func TestJudge(t *testing.T) {
	same := comparison{like: likely, intact: true, same: true, named: true}
	with := func(change func(*comparison)) comparison { c := same; change(&c); return c }
	perhapsSame := with(func(c *comparison) { c.like = perhaps })
	for _, test := range []struct {
		story string
		q     question
		want  verdict
		of    int
	}{
		{"there is nothing like it", question{size: 1000}, itself, 0},
		{"app.log.1 holds what app.log begins with", question{size: 1000, others: []comparison{same}}, aCopy, 0},
		{"however long that goes on", question{size: 1000, held: time.Hour, others: []comparison{same}}, aCopy, 0},
		{"its content is another", question{size: 1000, others: []comparison{with(func(c *comparison) { c.same = false })}}, itself, 0},
		{"its name is like none", question{size: 1000, others: []comparison{with(func(c *comparison) { c.like = unlike })}}, itself, 0},
		{"the original was truncated, which nobody has seen", question{size: 1000, others: []comparison{with(func(c *comparison) { c.intact = false })}}, later, 0},
		{"one whose name is unlike was truncated", question{size: 1000, others: []comparison{with(func(c *comparison) { c.like, c.intact = unlike, false })}}, itself, 0},
		{"a copy of the first of two", question{size: 1000, others: []comparison{same, same}}, aCopy, 0},
		{"a copy of the second", question{size: 1000, others: []comparison{with(func(c *comparison) { c.same = false }), same}}, aCopy, 1},
		{"a truncation comes first, whatever else it is like", question{size: 1000, others: []comparison{same, with(func(c *comparison) { c.intact = false })}}, later, 1},
		{"app-2.log begins as app.log does", question{size: 1000, others: []comparison{perhapsSame}}, aCopy, 0},
		{"for too long: two logs that begin alike", question{size: 1000, held: heldFor, others: []comparison{perhapsSame}}, itself, 0},
		{"unless the other one was rotated meanwhile", question{size: 1000, held: heldFor, others: []comparison{with(func(c *comparison) { c.like, c.waitsFor, c.named = perhaps, true, false })}}, aCopy, 0},
		{"the pod ends, and the whole of it is the same", question{size: 1000, ending: true, others: []comparison{same}}, aCopy, 0},
		{"the pod ends, and a few bytes are the same", question{size: smallest - 1, ending: true, others: []comparison{same}}, itself, 0},
		{"the pod ends, and only perhaps it is a copy", question{size: 1000, ending: true, others: []comparison{perhapsSame}}, itself, 0},
	} {
		if have, of := judge(test.q); have != test.want || have != itself && of != test.of {
			t.Errorf("%s: have %d of %d, want %d of %d", test.story, have, of, test.want, test.of)
		}
	}
}
