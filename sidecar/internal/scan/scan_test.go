package scan

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/sidecar/internal/tree"
)

// stage is a container's /logs, and a Scanner of a pattern.
type stage struct {
	t    *testing.T
	logs string
	s    *Scanner
	w    *watches
}

// watches notes which directories are watched, by inode, as the kernel does.
type watches struct {
	byName map[string]inode
	fail   error
}

func (w *watches) Add(dir string) error {
	if w.fail != nil {
		return w.fail
	}
	w.byName[dir] = stampOf(dir).inode
	return nil
}

// Remove takes the watch of the directory away, by all of its names.
func (w *watches) Remove(dir string) error {
	gone := w.byName[dir]
	for name, at := range w.byName {
		if at == gone {
			delete(w.byName, name)
		}
	}
	return nil
}

func newStage(t *testing.T, pattern string) *stage {
	t.Helper()
	root := t.TempDir()
	s := &stage{t: t, logs: filepath.Join(root, "app", "logs"), w: &watches{byName: map[string]inode{}}}
	if err := os.MkdirAll(s.logs, 0o755); err != nil {
		t.Fatal(err)
	}
	entry, err := contract.ParseEntry("app:" + pattern)
	if err != nil {
		t.Fatal(err)
	}
	s.s = New(contract.Config{Roots: []string{root}, Stdout: []contract.Entry{entry}}, s.w)
	age := StampAge
	StampAge = 20 * time.Millisecond
	t.Cleanup(func() { StampAge = age })
	return s
}

func (s *stage) file(name string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.logs, name), nil, 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) scan() (found []string, r Result) {
	r = s.s.Scan(func(_ *Source, n tree.Node) { found = append(found, filepath.Base(n.Path)) }, func(_ *Source, err error) {
		found = append(found, "fault")
	})
	slices.Sort(found)
	return found, r
}

// TestScan: a scan finds what matches, says when another one would find the same, and notices a change.
func TestScan(t *testing.T) {
	s := newStage(t, "/logs/*.log")
	s.file("a.log")
	s.file("b.txt")
	found, r := s.scan()
	if !slices.Equal(found, []string{"a.log"}) || r.Settled || !r.Young {
		t.Errorf("just after a change: have %v, %+v", found, r)
	}
	time.Sleep(2 * StampAge)
	found, r = s.scan()
	if !slices.Equal(found, []string{"a.log"}) || !r.Settled && TellsChanges(s.logs) || r.Young {
		t.Errorf("later: have %v, %+v", found, r)
	}
	if s.s.Changed() {
		t.Error("nothing has changed")
	}
	s.file("c.log")
	if !s.s.Changed() {
		t.Error("something has changed")
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(s.logs, "d.log")); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * StampAge)
	if found, r = s.scan(); !slices.Equal(found, []string{"a.log", "c.log", "fault"}) || r.Settled {
		t.Errorf("with a link that leads out: have %v, %+v", found, r)
	}
}

// TestLastChange: what was there at the scan before the last one, unless the directory changed during that scan.
func TestLastChange(t *testing.T) {
	s := newStage(t, "/logs/*.log")
	s.file("a.log")
	changed := func() int64 { return stampOf(s.logs).changed }
	s.scan()
	if at, _ := s.s.LastChange(s.logs); at != 0 {
		t.Errorf("before the first scan: have %d", at)
	}
	time.Sleep(2 * StampAge)
	s.scan()
	first := changed()
	s.scan()
	if at, all := s.s.LastChange(s.logs); at != first || !all {
		t.Errorf("have %d, %v; want %d", at, all, first)
	}
	time.Sleep(2 * StampAge)
	s.file("b.log")
	time.Sleep(2 * StampAge)
	// This one is disturbed: c.log is made while it goes on.
	s.s.Scan(func(_ *Source, n tree.Node) { s.file("c.log") }, func(*Source, error) {})
	s.scan()
	if at, _ := s.s.LastChange(s.logs); at != first {
		t.Errorf("after a scan that was disturbed: have %d, want %d", at, first)
	}
	second := changed()
	s.scan()
	if at, _ := s.s.LastChange(s.logs); at != second {
		t.Errorf("after one that was not: have %d, want %d", at, second)
	}
}

// TestRewatch: the directories of the last scan are watched, by the name that they have then, and no others.
func TestRewatch(t *testing.T) {
	s := newStage(t, "/*/*.log")
	if !TellsChanges(s.logs) {
		t.Skip("no watches are asked for on this file system")
	}
	s.file("a.log")
	s.scan()
	if w := s.s.Rewatch(); !w.Added || w.Polled || s.w.byName[s.logs] == (inode{}) {
		t.Errorf("have %+v, %v", w, s.w.byName)
	}
	s.scan()
	if w := s.s.Rewatch(); w.Added {
		t.Error("again: a watch is new")
	}
	// The same directory by another name: the watch by the old one goes first.
	old := s.logs
	s.logs = filepath.Join(filepath.Dir(old), "moved")
	if err := os.Rename(old, s.logs); err != nil {
		t.Fatal(err)
	}
	s.scan()
	s.s.Rewatch()
	if s.w.byName[s.logs] == (inode{}) || s.w.byName[old] != (inode{}) {
		t.Errorf("after a move, watched are %v", s.w.byName)
	}
	// Without a Watcher, and with one that refuses, everything is polled.
	s.s.Watch(nil)
	if w := s.s.Rewatch(); !w.Polled || w.Added {
		t.Errorf("without a Watcher: have %+v", w)
	}
	s.w.fail = os.ErrPermission
	s.s.Watch(s.w)
	if w := s.s.Rewatch(); !w.Polled || w.Short {
		t.Errorf("with one that refuses: have %+v", w)
	}
}

// TestWalk: the walk comes by everything, follows no link, and ends where it is told to.
func TestWalk(t *testing.T) {
	s := newStage(t, "/logs/*.log")
	for i := range 10 {
		s.file(strconv.Itoa(i))
	}
	deep := filepath.Join(s.logs, "x", "y")
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(deep, "z"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(s.logs, filepath.Join(deep, "round")); err != nil {
		t.Fatal(err)
	}
	var have []string
	visit := func(_ *tree.Dir, name string) { have = append(have, name) }
	if n, all := Walk(s.s.Roots(), WalkMost, visit); !all || len(have) != 11 || n != 15 {
		t.Errorf("have %v of %d, all is %v", have, n, all)
	}
	have = nil
	if _, all := Walk(s.s.Roots(), 5, visit); all || len(have) > 5 {
		t.Errorf("with a bound of 5: have %v, all is %v", have, all)
	}
}
