package follow_test

import (
	"strings"
	"testing"
	"time"
)

// adding notes which directories are to be watched.
type adding struct{ dirs map[string]bool }

func (a adding) Add(dir string) error    { a.dirs[dir] = true; return nil }
func (a adding) Remove(dir string) error { delete(a.dirs, dir); return nil }

// TestWatcherGoesAndComes: where the Watcher is taken away, files are polled, and another one is asked for all watches
// again.
func TestWatcherGoesAndComes(t *testing.T) {
	s := newStage(t, false, "app:/logs/*.log")
	first, second := adding{map[string]bool{}}, adding{map[string]bool{}}
	s.watches = first
	s.start()
	s.append("a.log", "one\n")
	s.want(s.rest(0), "one\n")
	if len(first.dirs) == 0 {
		t.Skip("no watches are asked for on this file system")
	}
	// wait is how long the Follower waits after an hour in which nothing happened.
	wait := func() time.Duration {
		t.Helper()
		for range 10 {
			w, _, err := s.sweep()
			must(err)
			if w > time.Second/2 {
				return w
			}
			s.now = s.now.Add(time.Hour)
		}
		t.Fatal("the Follower does not come to rest")
		return 0
	}
	if have := wait(); have <= time.Second {
		t.Errorf("with watches it waits %v, want more than a poll's second", have)
	}
	s.f.Watch(nil)
	if have := wait(); have > time.Second {
		t.Errorf("without watches it waits %v, want at most a second", have)
	}
	s.append("a.log", "two\n")
	s.want(s.rest(0), "one\ntwo\n")
	s.f.Watch(second)
	if have := wait(); have <= time.Second {
		t.Errorf("with watches again it waits %v, want more than a poll's second", have)
	}
	for dir := range first.dirs {
		if !second.dirs[dir] {
			t.Errorf("no watch of %s is asked for again; have %v", dir, second.dirs)
		}
	}
	if words := s.words.String(); strings.Contains(words, "watch") {
		t.Errorf("it says %s", words)
	}
}
