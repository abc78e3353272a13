package follow_test

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/log-bridge/log-bridge/sidecar/internal/checkpoint"
	"github.com/log-bridge/log-bridge/sidecar/internal/follow"
	"golang.org/x/sys/unix"
)

// The scenarios here need what the scripts of the program do not have: a clock that the test
// moves, thousands of files, limits of the process, or a look at one sweep.

// stage is a sidecar that has a directory app/logs.
type stage struct {
	*sidecar
	t    *testing.T
	logs string
	out  []byte // so far
}

func newStage(t *testing.T, events bool, entries ...string) *stage {
	t.Helper()
	dir := open(t.TempDir())
	s := &stage{sidecar: newSidecar(dir, entries...), t: t, logs: filepath.Join(dir, "root/app/logs")}
	s.events = events
	must(os.MkdirAll(s.logs, 0o755))
	t.Cleanup(func() {
		s.sidecar.out.resume()
		s.end()
		s.sidecar.out.close()
	})
	return s
}

// bothWays runs a test with events and with polling.
func bothWays(t *testing.T, f func(t *testing.T, events bool)) {
	t.Run("events", func(t *testing.T) { f(t, true) })
	t.Run("polling", func(t *testing.T) { f(t, false) })
}

func (s *stage) path(name string) string { return filepath.Join(s.logs, name) }

func (s *stage) append(name, text string) {
	s.t.Helper()
	f, err := os.OpenFile(s.path(name), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	must(err)
	defer f.Close()
	_, err = f.WriteString(text)
	must(err)
}

// rest lets the sidecar come to rest and returns all that it delivered so far.
func (s *stage) rest(idle time.Duration) string {
	s.t.Helper()
	if err := s.sidecar.rest(idle); err != nil {
		s.t.Fatal(err)
	}
	return s.delivered()
}

func (s *stage) delivered() string {
	s.out = append(s.out, s.sidecar.out.collect()...)
	return string(s.out)
}

func (s *stage) want(have, want string) {
	s.t.Helper()
	if have == want {
		return
	}
	h, w := strings.SplitAfter(have, "\n"), strings.SplitAfter(want, "\n")
	i := 0
	for i < len(h) && i < len(w) && h[i] == w[i] {
		i++
	}
	line := func(l []string) string {
		if i < len(l) {
			return short(l[i])
		}
		return "the end"
	}
	s.t.Fatalf("have %d bytes, want %d; the first difference is in line %d\nhave %s\nwant %s\nthe sidecar's words:\n%s", len(have), len(want), i+1, line(h), line(w), s.words.String())
}

// TestA6: an inode number that was used again while the sidecar was down is another file.
func TestA6_numberUsedAgain(t *testing.T) {
	s := newStage(t, true, "app:/logs/app.log")
	s.append("app.log", "one\n")
	s.start()
	s.want(s.rest(0), "one\n")
	s.end()
	number := func() uint64 {
		var st unix.Stat_t
		must(unix.Stat(s.path("app.log"), &st))
		return st.Ino
	}
	before := number()
	for range 100 {
		must(os.Remove(s.path("app.log")))
		s.append("app.log", "two\n")
		if number() == before {
			s.start()
			s.want(s.rest(0), "one\ntwo\n")
			return
		}
	}
	t.Skip("this file system does not use inode numbers again")
}

// TestC5: there is no timeout for an unfinished line: it comes when it is finished, once.
func TestC5_unfinishedForADay(t *testing.T) {
	bothWays(t, func(t *testing.T, events bool) {
		s := newStage(t, events, "app:/logs/app.log")
		s.start()
		s.append("app.log", "one\nunfin")
		s.want(s.rest(time.Minute), "one\n")
		s.now = s.now.Add(24 * time.Hour)
		s.want(s.rest(time.Minute), "one\n")
		s.append("app.log", "ished\n")
		s.want(s.rest(0), "one\nunfinished\n")
	})
}

// TestC6: a line of 64 MiB takes no more memory than one of 64 KiB.
func TestC6_hugeLine(t *testing.T) {
	s := newStage(t, true, "app:/logs/app.log")
	f, err := os.Create(s.path("app.log"))
	must(err)
	defer f.Close()
	const size = 64 << 20
	sum := crc32.NewIEEE()
	w := io.MultiWriter(f, sum)
	for piece := bytes.Repeat([]byte("0123456789abcdef"), 1<<12); ; {
		_, err := w.Write(piece)
		must(err)
		if n, _ := f.Seek(0, io.SeekCurrent); n >= size {
			break
		}
	}
	_, err = w.Write([]byte("\nnext\n"))
	must(err)
	s.start()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	if err := s.sidecar.rest(0); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
		t.Errorf("%d bytes were allocated", grown)
	}
	out := s.sidecar.out.collect()
	if have := crc32.ChecksumIEEE(out); have != sum.Sum32() {
		t.Errorf("have %d bytes with checksum %08x, want %d with %08x", len(out), have, size+6, sum.Sum32())
	}
}

// TestB13: truncations at any moment of a read: each line that comes is one that was
// written, none comes twice, and those of one time between two truncations come in order.
func TestB13_truncatedWhileRead(t *testing.T) {
	s := newStage(t, false, "app:/logs/app.log")
	s.start()
	const rounds = 400
	line := func(round, n int) string {
		body := fmt.Sprintf("%d.%d:%s", round, n, strings.Repeat(filling, (round+n)%40))
		return fmt.Sprintf("<%s#%08x>\n", body, crc32.Checksum([]byte(body), castagnoli))
	}
	var writer sync.WaitGroup
	writer.Add(1)
	ended := make(chan struct{})
	go func() {
		defer writer.Done()
		defer close(ended)
		f, err := os.OpenFile(s.path("app.log"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
		must(err)
		defer f.Close()
		for round := range rounds {
			for n := 0; n < 20*(1+round%7); n++ {
				_, err := f.WriteString(line(round, n))
				must(err)
			}
			if round < rounds-1 {
				must(f.Truncate(0))
			}
		}
	}()
	for more := true; more; {
		select {
		case <-ended:
			more = false
		default:
		}
		wait, _, err := s.sweep()
		must(err)
		s.now = s.now.Add(wait)
	}
	writer.Wait()
	out := s.rest(time.Second)
	seen := map[string]bool{}
	last := [2]int{-1, -1}
	for have := range strings.Lines(out) {
		var at [2]int
		if _, err := fmt.Sscanf(have, "<%d.%d:", &at[0], &at[1]); err != nil || have != line(at[0], at[1]) {
			t.Fatalf("nobody wrote this line: %q", have)
		}
		if seen[have] {
			t.Fatalf("twice: %q", have)
		}
		seen[have] = true
		if slices.Compare(at[:], last[:]) < 0 {
			t.Fatalf("%q after %v", have, last)
		}
		last = at
	}
	// The last round was not truncated.
	for n := 0; n < 20*(1+(rounds-1)%7); n++ {
		if !seen[line(rounds-1, n)] {
			t.Errorf("missing: %q", line(rounds-1, n))
		}
	}
}

// TestF14: a directory is replaced by a link out, and the log that was in it is truncated, before anything is
// looked for again: no copy is looked for where the link leads.
func TestF14_directoryOfACopySwapped(t *testing.T) {
	s := newStage(t, true, "app:/logs/*/app.log")
	s.watches = quietWatcher{}
	other := filepath.Join(filepath.Dir(s.root), "other")
	must(os.Mkdir(other, 0o755))
	must(os.WriteFile(filepath.Join(other, "private"), []byte("SECRET\n"), 0o644))
	must(os.Mkdir(s.path("d"), 0o755))
	s.append("d/app.log", "S")
	s.start()
	s.want(s.rest(0), "")
	must(os.Rename(s.path("d"), s.path("was")))
	must(os.Symlink(other, s.path("d")))
	must(os.Truncate(s.path("was/app.log"), 0))
	s.f.Changed(s.path("d/app.log"), false)
	for range 3 {
		_, _, err := s.sweep()
		must(err)
	}
	s.want(s.delivered(), "")
}

// TestF5: the watching breaks, and begins again: lines come meanwhile and after.
func TestF5_watchingBreaks(t *testing.T) {
	s := newStage(t, true, "app:/logs/*.log")
	s.start()
	s.append("a.log", "one\n")
	s.want(s.rest(0), "one\n")
	s.f.Watch(nil)
	s.append("b.log", "two\n")
	s.want(s.rest(2*time.Second), "one\ntwo\n")
	s.append("a.log", "three\n")
	s.want(s.rest(2*time.Second), "one\ntwo\nthree\n")
	s.watcher.close()
	*s.watcher = *newWatcher() // it has no watches
	s.f.Watch(s.watcher)
	s.want(s.rest(0), "one\ntwo\nthree\n")
	s.append("a.log", "four\n")
	s.append("c.log", "five\n")
	s.want(s.rest(0), "one\ntwo\nthree\nfour\nfive\n")
}

// TestB14: an earlier generation that is overwritten before it is deleted, as by shred(1), is done: nothing of it
// comes. That holds for one without a followed name, and for one that a glob matches.
func TestB14_shredded(t *testing.T) {
	for _, entry := range []string{"app:/logs/app.log", "app:/logs/app.log*"} {
		s := newStage(t, true, entry)
		s.start()
		want := strings.Repeat("a line of the application\n", 1000)
		s.append("app.log", want)
		s.want(s.rest(0), want)
		keep, err := os.OpenFile(s.path("app.log"), os.O_WRONLY, 0) // so that it is not finished
		must(err)
		defer keep.Close()
		must(os.Rename(s.path("app.log"), s.path("app.log.1")))
		s.append("app.log", "next\n")
		want += "next\n"
		s.want(s.rest(0), want)
		for size := len(want) / 4; size <= 28<<10; size += 7 << 10 {
			_, err := keep.WriteAt(bytes.Repeat([]byte("\x01\n"), size/2), 0)
			must(err)
			s.want(s.rest(3*time.Second), want)
		}
		must(os.Remove(s.path("app.log.1")))
		s.append("app.log", "last\n")
		s.want(s.rest(3*time.Second), want+"last\n")
	}
}

// TestB6: a copy that ends before what was delivered, and that is first seen after the truncation, is known by what was
// delivered; so is that of the truncation before.
func TestB6_copyOfWhatWasDelivered(t *testing.T) {
	for _, rounds := range []int{1, 2} {
		t.Run(fmt.Sprint(rounds), func(t *testing.T) {
			s := newStage(t, true, "app:/logs/app.log*")
			s.watches = quietWatcher{}
			s.start()
			s.append("app.log", "begun\n")
			want := "begun\n"
			s.want(s.rest(6*time.Second), want)
			must(os.Truncate(s.path("app.log"), 0))
			// tell lets the lines be delivered without a look for files.
			tell := func(lines string) {
				s.append("app.log", lines)
				s.f.Changed(s.path("app.log"), false)
				for range 4 {
					_, _, err := s.sweep()
					must(err)
				}
				want += lines
				s.want(s.delivered(), want)
			}
			for round := range rounds {
				var lines strings.Builder
				for i := range 3000 {
					fmt.Fprintf(&lines, "line %d of round %d\n", i, round)
				}
				tell(lines.String())
				copied, err := os.ReadFile(s.path("app.log"))
				must(err)
				tell(fmt.Sprintf("after the copy %d was made\n", round))
				must(os.WriteFile(s.path(fmt.Sprintf("app.log.%d", rounds-round)), copied, 0o644))
				must(os.Truncate(s.path("app.log"), 0))
				tell(fmt.Sprintf("after truncation %d\n", round))
			}
			s.want(s.rest(12*time.Second), want)
			s.append("app.log", "last\n")
			s.want(s.rest(12*time.Second), want+"last\n")
		})
	}
}

// TestF1: a file that is unreadable only for a moment causes no message; one that stays unreadable causes one.
func TestF1_unreadableForAMoment(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	s := newStage(t, true, "app:/logs/*.log")
	s.user = nobody
	s.start()
	s.append("a.log", "one\n")
	must(os.Chmod(s.path("a.log"), 0o600))
	s.want(s.rest(0), "")
	must(os.Chmod(s.path("a.log"), 0o644))
	s.want(s.rest(6*time.Second), "one\n")
	if s.words.Len() > 0 {
		t.Errorf("it said %s", s.words.String())
	}
	s.append("b.log", "two\n")
	must(os.Chmod(s.path("b.log"), 0o600))
	s.want(s.rest(12*time.Second), "one\n")
	if n := strings.Count(s.words.String(), "cannot read it"); n != 1 {
		t.Errorf("it said %d times that it cannot read: %s", n, s.words.String())
	}
}

// limitFiles sets how many descriptors this process may have beside those it has: n, and the gaps below the highest one.
func limitFiles(t *testing.T, n int) (left int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	must(err)
	highest := 0 // what the kernel counts: earlier tests may have left gaps below it
	for _, fd := range fds {
		number, err := strconv.Atoi(fd.Name())
		must(err)
		highest = max(highest, number)
	}
	var old unix.Rlimit
	must(unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
	must(unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(highest + 1 + n), Max: old.Max}))
	t.Cleanup(func() { must(unix.Setrlimit(unix.RLIMIT_NOFILE, &old)) })
	return highest + 1 + n - len(fds)
}

// numbered are names of n files.
func numbered(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("%05d.log", i))
	}
	return names
}

// each appends a line to each file, and returns the lines sorted.
func (s *stage) each(names []string, what string) (lines []string) {
	for _, name := range names {
		line := name + " " + what + "\n"
		s.append(name, line)
		lines = append(lines, line)
	}
	return lines
}

func sorted(text string) []string { return slices.Sorted(strings.Lines(text)) }

// TestF2: more files than descriptors: the idle ones are parked, every line comes once.
func TestF2_moreFilesThanDescriptors(t *testing.T) {
	bothWays(t, func(t *testing.T, events bool) {
		left := limitFiles(t, 80)
		s := newStage(t, events, "app:/logs/*.log")
		s.start()
		names := numbered(left + 170)
		want := s.each(names, "one")
		s.want(strings.Join(sorted(s.rest(6*time.Second)), ""), strings.Join(want, ""))
		want = append(want, s.each(names, "two")...)
		slices.Sort(want)
		s.want(strings.Join(sorted(s.rest(6*time.Second)), ""), strings.Join(want, ""))
		if open := openFiles(s.logs); len(open) > left {
			t.Errorf("%d files are open", len(open))
		}
		// A parked file is rotated, and written to under both names.
		must(os.Rename(s.path(names[0]), s.path(names[0]+".1")))
		s.append(names[0]+".1", "late\n")
		s.append(names[0], "new\n")
		want = append(want, "late\n", "new\n")
		slices.Sort(want)
		s.want(strings.Join(sorted(s.rest(6*time.Second)), ""), strings.Join(want, ""))
	})
}

// TestF2: when the kernel refuses descriptors, what cannot be opened is said and tried again,
// and what is open goes on.
func TestF2_EMFILE(t *testing.T) {
	bothWays(t, func(t *testing.T, events bool) {
		s := newStage(t, events, "app:/logs/*.log")
		s.start()
		s.append("a.log", "one\n")
		s.want(s.rest(0), "one\n")
		limitFiles(t, 8)
		var taken []int
		for {
			fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				break
			}
			taken = append(taken, fd)
		}
		give := func() {
			unix.Close(taken[0])
			taken = taken[1:]
		}
		give()
		s.append("b.log", "b\n")
		s.append("a.log", "two\n")
		fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		must(err)
		s.want(s.rest(6*time.Second), "one\ntwo\n")
		unix.Close(fd)
		for len(taken) > 0 {
			give()
		}
		s.want(s.rest(6*time.Second), "one\ntwo\nb\n")
	})
}

// TestF3: 5,000 files that are all written at once, rotated, and written again.
func TestF3_thousandsOfFiles(t *testing.T) {
	bothWays(t, func(t *testing.T, events bool) {
		s := newStage(t, events, "app:/logs/*.log")
		s.start()
		names := numbered(5000)
		want := s.each(names, "one")
		s.want(strings.Join(sorted(s.rest(0)), ""), strings.Join(want, ""))
		var memory runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&memory)
		want = append(want, s.each(names, "two")...)
		for _, name := range names[:100] {
			must(os.Rename(s.path(name), s.path(name+".1")))
		}
		want = append(want, s.each(names, "three")...)
		slices.Sort(want)
		s.want(strings.Join(sorted(s.rest(time.Second)), ""), strings.Join(want, ""))
		grown := memory.HeapAlloc
		runtime.GC()
		runtime.ReadMemStats(&memory)
		if memory.HeapAlloc > grown+8<<20 {
			t.Errorf("the heap grew from %d to %d bytes", grown, memory.HeapAlloc)
		}
		if err := s.drain(); err != nil {
			t.Fatal(err)
		}
		s.start()
		s.want(strings.Join(sorted(s.rest(6*time.Second)), ""), strings.Join(want, ""))
	})
}

// TestF4: one file with much to deliver beside 299 with a line each: after at most 1 MiB of
// whole lines of one file, or one longer line, the next file is served.
func TestF4_fairness(t *testing.T) {
	for what, line := range map[string]string{"short lines": strings.Repeat("x", 159) + "\n", "a long line": strings.Repeat("x", 3<<20) + "\n"} {
		t.Run(what, func(t *testing.T) {
			s := newStage(t, true, "app:/logs/*.log")
			s.start()
			s.append("00000.log", strings.Repeat(line, max(1, 10<<20/len(line))))
			s.each(numbered(300)[1:], "one")
			bound := max(1<<20+64<<10, len(line))
			since, waiting := 0, 299
			for rounds := 0; waiting > 0; rounds++ {
				if rounds > 1000 {
					t.Fatalf("%d files are never served", waiting)
				}
				_, _, err := s.sweep()
				must(err)
				for have := range bytes.Lines(s.sidecar.out.collect()) {
					if have[0] == 'x' {
						since += len(have)
					} else {
						since, waiting = 0, waiting-1
					}
					if since > bound {
						t.Fatalf("%d bytes of one file while %d others wait, want at most %d", since, waiting, bound)
					}
				}
			}
		})
	}
}

// deafWatcher has no watches to give.
type deafWatcher struct{}

func (deafWatcher) Add(string) error    { return unix.ENOSPC }
func (deafWatcher) Remove(string) error { return errors.New("not watched") }

// TestF5: no watch is to be had (fs.inotify.max_user_watches): the same lines come by polling.
func TestF5_noWatches(t *testing.T) {
	s := newStage(t, false, "app:/logs/*.log")
	s.watches = deafWatcher{}
	s.start()
	s.append("a.log", "one\n")
	s.want(s.rest(0), "one\n")
	must(os.Rename(s.path("a.log"), s.path("a.log.1")))
	s.append("a.log.1", "two\n")
	s.append("a.log", "three\n")
	s.want(s.rest(0), "one\ntwo\nthree\n")
	if n := strings.Count(s.words.String(), "has no inotify watches left on this node; polling files as well, so lines arrive up to a second later. The node's sysctl fs.inotify.max_user_watches "); n != 1 {
		t.Errorf("said %d times: %s", n, s.words.String())
	}
}

// TestF10: a full disk makes the checkpoint fail, not the sidecar: it says so once, lines go
// on, and when there is space again it is written again.
func TestF10_checkpointDiskFull(t *testing.T) {
	s := newStage(t, true, "app:/logs/*.log")
	s.state = tmpfs(t, filepath.Join(t.TempDir(), "small"), "16k")
	must(os.WriteFile(filepath.Join(s.state, "filling"), make([]byte, 16<<10), 0o600))
	s.start()
	names := numbered(30)
	want := s.each(names, "one")
	s.want(strings.Join(sorted(s.rest(0)), ""), strings.Join(want, ""))
	if n := strings.Count(s.words.String(), "no space left on device; lines are still delivered, but a restart of the sidecar would repeat them"); n != 1 {
		t.Errorf("said %d times: %s", n, s.words.String())
	}
	must(os.Remove(filepath.Join(s.state, "filling")))
	must(unix.Mount("", s.state, "", unix.MS_REMOUNT, "size=1m"))
	want = append(want, s.each(names, "two")...)
	slices.Sort(want)
	s.want(strings.Join(sorted(s.rest(0)), ""), strings.Join(want, ""))
	if !strings.Contains(s.words.String(), "the checkpoint is writable again") {
		t.Errorf("not said that it is writable again: %s", s.words.String())
	}
	s.end()
	s.start()
	s.want(strings.Join(sorted(s.rest(0)), ""), strings.Join(want, ""))
}

// TestRotatedForEver: a log is rotated thousands of times, and only the last generations stay: what is
// remembered of those that went is forgotten.
func TestRotatedForEver(t *testing.T) {
	bothWays(t, func(t *testing.T, events bool) {
		s := newStage(t, events, "app:/logs/app.log")
		s.start()
		var want strings.Builder
		for n := range 1000 {
			line := fmt.Sprintf("generation %d\n", n)
			want.WriteString(line)
			s.append("app.log", line)
			s.rest(0)
			if n > 0 {
				must(os.Rename(s.path("app.log.1"), s.path("app.log.2")))
			}
			must(os.Rename(s.path("app.log"), s.path("app.log.1")))
		}
		s.want(s.rest(6*time.Second), want.String())
		st, err := os.Stat(s.checkpoint())
		must(err)
		if most := int64(200 * 2 * checkpoint.SlotSize); st.Size() > most {
			t.Errorf("the checkpoint has %d bytes, want at most %d", st.Size(), most)
		}
	})
}

// records are what the checkpoint holds, by path.
func (s *stage) records() map[string]checkpoint.Record {
	s.t.Helper()
	dir := s.t.TempDir()
	b, err := os.ReadFile(s.checkpoint())
	must(err)
	must(os.WriteFile(filepath.Join(dir, "checkpoint"), b, 0o600))
	store, records, err := checkpoint.Open(dir)
	must(err)
	defer store.Close()
	byPath := map[string]checkpoint.Record{}
	for r := range maps.Values(records) {
		byPath[r.Path] = r
	}
	return byPath
}

// TestF17: reclaim frees the blocks of delivered bytes while the writer appends: the disk use
// stays bounded, the size, the writer and the reader are undisturbed, and nothing is
// freed that a restart would need.
func TestF17_reclaim(t *testing.T) {
	for _, p := range places[:3] {
		t.Run(p.name, func(t *testing.T) {
			s := newStage(t, true, "app:/logs/app.log")
			s.root = p.make(t, t.TempDir())
			s.logs = filepath.Join(s.root, "app/logs")
			must(os.MkdirAll(s.logs, 0o755))
			s.reclaim = true
			s.start()
			f, err := os.OpenFile(s.path("app.log"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
			must(err)
			defer f.Close()
			line := func(n int) string { return fmt.Sprintf("%07d %s\n", n, strings.Repeat("x", 1015)) }
			var st unix.Stat_t
			written, delivered := 0, 0
			most := int64(0)
			for range 48 {
				for range 2 << 10 { // 2 MiB
					_, err := f.WriteString(line(written))
					must(err)
					written++
				}
				must(s.sidecar.rest(0))
				for have := range bytes.Lines(s.sidecar.out.collect()) {
					if string(have) != line(delivered) {
						t.Fatalf("line %d: have %.40q…", delivered, have)
					}
					delivered++
				}
				must(unix.Fstat(int(f.Fd()), &st))
				if st.Size != int64(written)<<10 {
					t.Fatalf("the file has %d bytes, want %d", st.Size, written<<10)
				}
				most = max(most, st.Blocks*512)
				// Where the first hole ends is not behind what the checkpoint has delivered.
				hole, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_HOLE)
				must(err)
				if hole < st.Size {
					end, err := unix.Seek(int(f.Fd()), hole, unix.SEEK_DATA)
					must(err)
					if kept := s.records()["/logs/app.log"].Offset; end > kept {
						t.Fatalf("freed up to %d, delivered up to %d", end, kept)
					}
				}
			}
			if delivered != written {
				t.Errorf("%d of %d lines came", delivered, written)
			}
			if most > 32<<20 {
				t.Errorf("the file had %d bytes on the disk, want at most 32 MiB", most)
			}
			// A restart goes on where it was; so does a truncation.
			s.sidecar.kill()
			_, err = f.WriteString("after the restart\n")
			must(err)
			s.start()
			s.want(s.rest(0), "after the restart\n")
			must(f.Truncate(0))
			_, err = f.WriteString("after the truncation\n")
			must(err)
			s.want(s.rest(0), "after the restart\nafter the truncation\n")
		})
	}
}

// TestF18: what waits in the pipe while blocks are freed comes as it was.
func TestF18_reclaimWhileStdoutIsBlocked(t *testing.T) {
	s := newStage(t, true, "app:/logs/app.log")
	s.reclaim, s.pipe = true, true
	s.start()
	var want strings.Builder
	for n := range 40 << 10 {
		fmt.Fprintf(&want, "%07d %s\n", n, strings.Repeat("x", 503))
	}
	s.append("app.log", want.String())
	for range 20 {
		s.stall()
		must(s.wait())
	}
	s.want(s.rest(0), want.String())
	if s.f.Stats().Reclaimed == 0 {
		t.Error("nothing was freed")
	}
}

// TestF17: if blocks cannot be freed, a message says so once, and lines are still delivered.
func TestF17_reclaimRefused(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	s := newStage(t, true, "app:/logs/app.log")
	s.reclaim, s.user = true, nobody
	s.start()
	want := strings.Repeat(strings.Repeat("x", 1023)+"\n", 20<<10)
	s.append("app.log", want)
	s.want(s.rest(6*time.Second), want)
	if n := strings.Count(s.words.String(), "app:/logs/app.log: log-bridge.dev/reclaim cannot free blocks"); n != 1 {
		t.Errorf("said %d times: %q", n, s.words.String())
	}
}

// TestIdle: nothing happens, nothing is done: with events a sweep asks for seconds of rest.
func TestIdle(t *testing.T) {
	s := newStage(t, true, "app:/logs/*.log")
	s.start()
	s.each(numbered(300), "one")
	s.rest(6 * time.Second)
	for range 20 {
		wait, news, err := s.sweep()
		must(err)
		if news || wait < time.Second && wait > 0 {
			t.Fatalf("an idle sweep asks for %v, news %v", wait, news)
		}
		s.now = s.now.Add(wait)
	}
}

// TestLook: a scan without a cause finds every change that no event reported, also where the
// looks before it found that only a change of a directory would be news.
func TestLook(t *testing.T) {
	tests := []struct {
		name, entry    string
		before, change func(s *stage)
	}{
		{"a new file", "app:/logs/*.log", nil, func(s *stage) { s.append("b.log", "two\n") }},
		{"in a new directory", "app:/logs/**/*.log", nil, func(s *stage) {
			must(os.Mkdir(s.path("deep"), 0o755))
			s.append("deep/b.log", "two\n")
		}},
		{"in a directory deep down", "app:/logs/**/*.log", func(s *stage) { must(os.MkdirAll(s.path("deep/down"), 0o755)) }, func(s *stage) {
			s.append("deep/down/b.log", "two\n")
		}},
		{"a file that was missing", "app:/logs/none/b.log", nil, func(s *stage) {
			must(os.Mkdir(s.path("none"), 0o755))
			s.append("none/b.log", "two\n")
		}},
		{"a file in place of the file", "app:/logs/a.log", nil, func(s *stage) {
			must(os.Remove(s.path("a.log")))
			s.append("a.log", "two\n")
		}},
		{"a file moved over the file", "app:/logs/a.log", nil, func(s *stage) {
			s.append("new", "two\n")
			must(os.Rename(s.path("new"), s.path("a.log")))
		}},
		{"a directory in place of the directory", "app:/logs/*.log", nil, func(s *stage) {
			must(os.Rename(s.logs, s.logs+".old"))
			must(os.Mkdir(s.logs, 0o755))
			s.append("a.log", "two\n")
		}},
		{"a directory above in place of that", "app:/logs/deep/down/*.log", func(s *stage) { must(os.MkdirAll(s.path("deep/down"), 0o755)) }, func(s *stage) {
			must(os.MkdirAll(s.path("other/down"), 0o755))
			s.append("other/down/b.log", "two\n")
			must(os.Rename(s.path("deep"), s.path("old")))
			must(os.Rename(s.path("other"), s.path("deep")))
		}},
		{"a link to another file", "app:/logs/current", func(s *stage) { must(os.Symlink("a.log", s.path("current"))) }, func(s *stage) {
			s.append("b.log", "two\n")
			must(os.Symlink("b.log", s.path("link")))
			must(os.Rename(s.path("link"), s.path("current")))
		}},
		{"a link that leads on, in another directory", "app:/logs/*.log", func(s *stage) {
			must(os.MkdirAll(s.path("deep/down"), 0o755))
			must(os.Symlink("deep/link", s.path("l.log")))
			must(os.Symlink("down/b.log", s.path("deep/link")))
			s.append("deep/down/b.log", "")
		}, func(s *stage) {
			s.append("deep/c.log", "two\n")
			must(os.Symlink("c.log", s.path("deep/next")))
			must(os.Rename(s.path("deep/next"), s.path("deep/link")))
		}},
		{"a link to another directory", "app:/logs/current/*.log", func(s *stage) {
			must(os.MkdirAll(s.path("one"), 0o755))
			must(os.Symlink("one", s.path("current")))
			s.append("one/b.log", "")
		}, func(s *stage) {
			must(os.Mkdir(s.path("two"), 0o755))
			s.append("two/b.log", "two\n")
			must(os.Symlink("two", s.path("link")))
			must(os.Rename(s.path("link"), s.path("current")))
		}},
		{"where a link led nowhere", "app:/logs/*/b.log", func(s *stage) { must(os.Symlink("deep/two", s.path("current"))) }, func(s *stage) {
			must(os.MkdirAll(s.path("deep/two"), 0o755))
			s.append("deep/two/b.log", "two\n")
		}},
		{"another container, beneath a root that is a link", "other:/*.log", func(s *stage) {
			must(os.Rename(s.root, s.root+".real"))
			must(os.Symlink(s.root+".real", s.root))
		}, func(s *stage) {
			must(os.Mkdir(filepath.Join(s.root, "other"), 0o755))
			s.append("../../other/b.log", "two\n")
		}},
		{"a file in place of a FIFO", "app:/logs/*.log", func(s *stage) { must(unix.Mkfifo(s.path("b.log"), 0o644)) }, func(s *stage) {
			must(os.Remove(s.path("b.log")))
			s.append("b.log", "two\n")
		}},
		{"a file that may be read now", "app:/logs/*.log", func(s *stage) {
			s.append("b.log", "two\n")
			must(os.Chmod(s.path("b.log"), 0))
		}, func(s *stage) { must(os.Chmod(s.path("b.log"), 0o644)) }},
		{"a directory that may be searched now", "app:/logs/**/*.log", func(s *stage) {
			must(os.Mkdir(s.path("deep"), 0o755))
			s.append("deep/b.log", "two\n")
			must(os.Chmod(s.path("deep"), 0))
		}, func(s *stage) { must(os.Chmod(s.path("deep"), 0o755)) }},
		{"more of a file that had been finished", "app:/logs/a.log*", func(s *stage) {
			s.append("a.log.1", "")
			s.rest(6 * time.Second)
			must(os.Rename(s.path("a.log.1"), s.path("old")))
			s.rest(2 * time.Minute) // it is finished: nobody tells whether it has a writer
			must(os.Rename(s.path("old"), s.path("a.log.1")))
		}, func(s *stage) { s.append("a.log.1", "two\n") }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, events bool) {
				s := newStage(t, events, "app:/logs/a.log", test.entry)
				s.user = nobody
				if events {
					s.watches = quietWatcher{}
				}
				s.append("a.log", "one\n")
				s.start()
				s.want(s.rest(0), "one\n")
				if test.before != nil {
					test.before(s)
				}
				time.Sleep(follow.StampAge) // until the directories' stamps can be told from others
				s.want(s.rest(20*time.Second), "one\n")
				test.change(s)
				s.want(s.rest(11*time.Second), "one\ntwo\n")
			})
		})
	}
}

func (s *stage) copy(from, to string) {
	s.t.Helper()
	b, err := os.ReadFile(s.path(from))
	must(err)
	must(os.WriteFile(s.path(to), b, 0o644))
}

// TestCopyAndOriginalAlike: a log is copied and renamed before anything of it is seen, both in one tick of
// the clock, so that nothing tells which of the two is the copy. Its writer goes on, and nothing is lost.
func TestCopyAndOriginalAlike(t *testing.T) {
	s := newStage(t, true, "app:/logs/a.log")
	s.user = stranger
	s.start()
	tick()
	s.append("a.log", "one\ntwo\n")
	s.copy("a.log", "a.log-20260101")
	must(os.Rename(s.path("a.log"), s.path("a.log-20260102")))
	s.append("a.log", "")
	s.want(s.rest(6*time.Second), "one\ntwo\n")
	s.append("a.log-20260102", "three\n")
	if have := s.rest(6 * time.Second); !strings.HasSuffix(have, "three\n") {
		t.Errorf("have %q, want the third line", have)
	}
}

// TestCopyOfWhatWasTruncated: a copy that is known to be one is renamed, and another one is made, which
// nothing asks the sidecar to look at. The log goes on, and is truncated while the sidecar is down.
// Neither copy is delivered.
func TestCopyOfWhatWasTruncated(t *testing.T) {
	bothWays(t, func(t *testing.T, events bool) {
		s := newStage(t, events, "app:/logs/a.log")
		s.start()
		s.append("a.log", "one\n")
		tick()
		s.copy("a.log", "a.log.1")
		s.want(s.rest(0), "one\n")
		must(os.Rename(s.path("a.log.1"), s.path("a.log.2")))
		tick()
		s.copy("a.log", "a.log.1")
		s.append("a.log", "two\n")
		s.want(s.rest(0), "one\ntwo\n")
		s.end()
		must(os.Truncate(s.path("a.log"), 0))
		s.start()
		s.want(s.rest(6*time.Second), "one\ntwo\n")
	})
}

// TestFoundAtTheEndOfAnother: a file that is found when another is finished is delivered at once.
func TestFoundAtTheEndOfAnother(t *testing.T) {
	s := newStage(t, true, "app:/logs/a.log", "app:/logs/b.log")
	s.watches = quietWatcher{}
	s.append("b.log", "one\n")
	writer, err := os.OpenFile(s.path("b.log"), os.O_WRONLY|os.O_APPEND, 0)
	must(err)
	defer writer.Close()
	s.start()
	s.want(s.rest(0), "one\n")
	must(os.Remove(s.path("b.log")))
	s.want(s.rest(6*time.Second), "one\n")
	must(writer.Close())
	s.append("a.log", "two\n")
	for range 10 {
		wait, _, err := s.sweep()
		must(err)
		if slices.Contains(openFiles(s.logs), s.path("a.log")) && wait > 0 && s.delivered() == "one\n" {
			t.Fatalf("the file is found, and the next sweep is to be in %v", wait)
		}
		s.now = s.now.Add(wait)
	}
	s.want(s.delivered(), "one\ntwo\n")
}

// TestBornInOneTick: of generations that were born in one tick of the kernel's clock, the one that was left
// first comes first, although their names count upwards.
func TestBornInOneTick(t *testing.T) {
	s := newStage(t, true, "app:/logs/app.log")
	s.start()
	s.want(s.rest(0), "")
	tick()
	s.append("app.log", "one\n")
	must(os.Rename(s.path("app.log"), s.path("app.log.1")))
	s.append("app.log", "two\n")
	tick()
	s.append("app.log", "three\n")
	must(os.Rename(s.path("app.log"), s.path("app.log.2")))
	s.append("app.log", "four\n")
	s.want(s.rest(0), "one\ntwo\nthree\nfour\n")
}

// stream appends a line every 10 ms for a time, and lets the sidecar sweep as it asks for. It returns how the lines went
// out: the number of sweeps, and the longest wait while they flowed.
func (s *stage) stream(name string, first, lines int) (sweeps int, longest time.Duration) {
	s.t.Helper()
	due := s.now
	for i := range lines {
		for s.now = s.now.Add(10 * time.Millisecond); !due.After(s.now); sweeps++ {
			wait, news, err := s.sweep()
			must(err)
			if s.flowing {
				longest = max(longest, wait)
			}
			due = s.now.Add(wait)
			if wait > 0 && !s.flowing && !news {
				break
			}
		}
		s.append(name, fmt.Sprintf("%s %d\n", name, first+i))
		if !s.flowing {
			due = s.now // the event
		}
	}
	return sweeps, longest
}

// TestFlow: lines that keep coming are gathered, though no event reports them; a rotation ends that at once, and so
// does silence.
func TestFlow(t *testing.T) {
	bothWays(t, func(t *testing.T, events bool) {
		s := newStage(t, events, "app:/logs/*.log")
		s.start()
		s.append("a.log", "")
		s.rest(6 * time.Second)
		sweeps, longest := s.stream("a.log", 0, 500)
		if !s.flowing || longest > 200*time.Millisecond || sweeps > 150 {
			t.Errorf("flows %v, %d sweeps for 500 lines, the longest wait %v", s.flowing, sweeps, longest)
		}
		if have := strings.Count(s.delivered(), "\n"); have < 480 {
			t.Errorf("have %d lines, want 480 at least", have)
		}
		// A new log is read at once, and so is what the other has until then.
		s.append("b.log", "b.log 0\n")
		s.now = s.now.Add(5 * time.Millisecond)
		if events {
			for range 3 {
				_, _, err := s.sweep()
				must(err)
				s.now = s.now.Add(5 * time.Millisecond)
			}
			if have := s.delivered(); s.flowing || strings.Count(have, "\n") != 501 || !strings.HasSuffix(have, "b.log 0\n") {
				t.Errorf("flows %v, have %d lines, want all", s.flowing, strings.Count(have, "\n"))
			}
		}
		s.stream("a.log", 500, 300)
		must(os.Rename(s.path("a.log"), s.path("a.log.1")))
		s.stream("a.log", 800, 300)
		if !s.flowing {
			t.Error("the lines do not flow again")
		}
		have := s.rest(2 * time.Second)
		if s.flowing {
			t.Error("silence flows")
		}
		want := strings.Builder{}
		for i := range 1100 {
			fmt.Fprintf(&want, "a.log %d\n", i)
		}
		s.want(strings.Replace(have, "b.log 0\n", "", 1), want.String())
		// A truncation: what is written just before the next one must not wait.
		must(os.Truncate(s.path("a.log"), 0))
		s.stream("a.log", 1100, 300)
		if s.flowing {
			t.Error("the lines of a log that is truncated flow")
		}
		s.rest(2 * time.Second)
		if have := strings.Count(s.delivered(), "\n"); have != 1401 {
			t.Errorf("have %d lines, want 1401", have)
		}
	})
}
