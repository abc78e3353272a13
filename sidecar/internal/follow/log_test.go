package follow

import (
	"slices"
	"testing"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/sidecar/internal/checkpoint"
	"github.com/log-bridge/log-bridge/sidecar/internal/scan"
	"github.com/log-bridge/log-bridge/sidecar/internal/tree"
)

// TestOrder: in which order the generations of a log are served.
func TestOrder(t *testing.T) {
	place := contract.Place{Container: "app", Path: "/logs/app.log"}
	src := &scan.Source{Entry: contract.Entry{Container: "app", Pattern: place.Path}}
	type generation struct {
		name  string
		birth int64
		is    presence
		copy  bool
	}
	for _, test := range []struct {
		story string
		files []generation
		want  []string
	}{
		{"by birth, and the one that has the name last", []generation{{"app.log", 1, named, false}, {"app.log.1", 3, rotated, false}, {"app.log.2", 2, rotated, false}},
			[]string{"app.log.2", "app.log.1", "app.log"}},
		{"a copy goes before its original", []generation{{"app.log", 1, named, false}, {"app.log.1", 2, named, true}}, []string{"app.log.1", "app.log"}},
		{"of two of one tick, the higher number is the older one", []generation{{"app.log.1", 1, rotated, false}, {"app.log.2", 1, rotated, false}},
			[]string{"app.log.2", "app.log.1"}},
		{"unless the others are numbered upward", []generation{{"app.log.4", 2, rotated, false}, {"app.log.3", 2, rotated, false}, {"app.log.2", 1, rotated, false}},
			[]string{"app.log.2", "app.log.3", "app.log.4"}},
		{"dates of one tick", []generation{{"app.log-20260102", 1, rotated, false}, {"app.log-20260101", 1, rotated, false}}, []string{"app.log-20260101", "app.log-20260102"}},
	} {
		i := newIndex()
		for n, g := range test.files {
			x := &file{Ident: checkpoint.Ident{Ino: uint64(n + 1), Birth: g.birth}, place: place}
			if g.copy {
				x.origin = copied
			}
			node := tree.Node{Real: "/logs/" + g.name, Dev: 1, Ino: uint64(n + 1)}
			i.opened(x, -1, inodeOf(node), src, node)
			if g.is == named {
				i.named(x, node)
			}
		}
		i.sort()
		var have []string
		for _, x := range i.logs[place].generations {
			have = append(have, x.node.Real[len("/logs/"):])
		}
		if !slices.Equal(have, test.want) {
			t.Errorf("%s: have %v, want %v", test.story, have, test.want)
		}
		// Only the first that is not read to its end is served.
		l := i.logs[place]
		for n, x := range l.generations {
			if !l.first(x) {
				t.Errorf("%s: %s has to wait", test.story, have[n])
			}
		}
		l.generations[0].pending = true
		for n, x := range l.generations[1:] {
			if l.first(x) {
				t.Errorf("%s: %s does not wait", test.story, have[n+1])
			}
		}
	}
}

// TestIndex: a file is found by all that finds it while it is open, and by nothing after it is closed.
func TestIndex(t *testing.T) {
	i := newIndex()
	src := &scan.Source{Entry: contract.Entry{Container: "app", Pattern: "/logs/*"}}
	var files []*file
	for n := range 10 {
		name := "/logs/" + string(rune('a'+n)) + ".log"
		x := &file{Ident: checkpoint.Ident{Ino: uint64(n + 1)}, place: contract.Place{Container: "app", Path: name}}
		node := tree.Node{Real: name, Dev: 1, Ino: uint64(n + 1)}
		i.opened(x, -1, inodeOf(node), src, node)
		i.named(x, node)
		files = append(files, x)
	}
	for n, x := range files {
		if i.byName[x.node.Real] != x || i.byInode[x.at] != x || len(i.bases[string(rune('a'+n))+".log"]) != 1 {
			t.Errorf("%s is not found", x.node.Real)
		}
		i.close(x, finished)
		if i.byName[x.node.Real] != nil || i.byInode[x.at] != nil || len(i.bases[string(rune('a'+n))+".log"]) != 0 || x.log != nil {
			t.Errorf("%s is still found", x.node.Real)
		}
		if i.find(x.Ident) != x || len(i.open) != len(files)-n-1 || i.count != n+1 {
			t.Errorf("%s is not remembered", x.node.Real)
		}
		for slot, o := range i.open {
			if o.slot != slot {
				t.Errorf("%s is in slot %d, and says %d", o.node.Real, slot, o.slot)
			}
		}
	}
	if len(i.logs) != 0 {
		t.Errorf("logs are left: %v", i.logs)
	}
}
