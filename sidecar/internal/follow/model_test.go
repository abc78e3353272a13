package follow_test

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/log-bridge/log-bridge/sidecar/internal/follow"
)

// A model of log files says which records a Follower has to deliver while a program is played. Its rooms:
// program_test.go (what is done, random or written down), world_test.go (the files it is done to),
// sidecar_test.go (a Follower that can be killed), oracle_test.go (what has to come out, and what is excused),
// shrink_test.go (making a failing program small). Here they are played together.

// game is a program that is being played.
type game struct {
	*world
	*oracle
	sidecar *sidecar
}

// play plays a program in a new directory below base. small is a directory on a small file
// system for the checkpoint, or empty. The error says what is not as the oracle wants it.
func play(base, small string, events bool, p program) (g *game, err error) {
	dir, err := os.MkdirTemp(base, "play")
	must(err)
	must(os.Chmod(dir, 0o755))
	defer os.RemoveAll(dir)
	s := newSidecar(dir, p.patterns...)
	s.events, s.pipe, s.user = events, p.piped, p.rights
	if small != "" {
		s.state, err = os.MkdirTemp(small, "play")
		must(err)
		must(os.Chmod(s.state, 0o777))
		defer os.RemoveAll(s.state)
	}
	w := newWorld(filepath.Join(s.root, "app"), p.setting)
	g = &game{world: w, oracle: newOracle(w, func() bool { return s.busy != nil }), sidecar: s}
	defer func() {
		for _, l := range w.logs {
			w.closeHandle(l)
		}
		s.out.resume()
		s.end()
		s.out.close()
	}()
	g.start()
	for i, st := range p.steps {
		w.step = i + 1
		if err := g.do(st); err != nil {
			return g, err
		}
		if err := g.collect(); err != nil {
			return g, err
		}
	}
	w.step = len(p.steps) + 1
	return g, g.finish()
}

// do does one step.
func (g *game) do(st step) error {
	s := g.sidecar
	if s.busy != nil {
		switch st.kind {
		case rest, term, start, overflow, pass, stall, resume, shred, swap, copyUnderLoad, slowOpen, slowList:
			g.tell("resume")
			if err := s.wait(); err != nil {
				return fmt.Errorf("Sweep: %w", err)
			}
		}
	}
	switch st.kind {
	case rest:
		if st.flags.has(idle) {
			return g.rest(idleFor)
		}
		return g.rest(0)
	case stall:
		if s.f != nil && g.piped {
			g.tell("stall")
			s.stall()
			g.forgotten()
		}
	case resume:
	case kill:
		return g.kill(st.flags.has(midway), st.flags.has(torn))
	case term:
		return g.term(false)
	case start:
		g.start()
	case overflow:
		if s.f != nil && s.watcher != nil {
			g.tell("overflow")
			s.watcher.lost = true
		}
	case shred:
		return g.shred(g.logs[st.log], st.n, func() error {
			// With a name that is followed, it is a log that was overwritten.
			if x := g.names[g.rotated(g.logs[st.log], st.n)]; st.flags.has(seen) && g.mind(x).known && !g.follows(x) {
				return g.rest(0)
			}
			return nil
		})
	case swap:
		g.swapped = true
		return g.swap(st.n, func() error {
			if s.f == nil || !st.flags.has(seen) {
				return nil
			}
			g.misses()
			if err := s.rest(0); err != nil {
				return fmt.Errorf("Sweep: %w", err)
			}
			return g.collect()
		})
	case copyUnderLoad:
		return g.copyUnderLoad(g.logs[st.log], st.n, st.size)
	case slowOpen, slowList:
		return g.slow(st)
	case fill:
		g.fill()
	case free:
		g.free()
	case pass:
		if s.f == nil {
			return nil
		}
		g.tell("two minutes pass")
		if err := g.rest(0); err != nil {
			return err
		}
		time.Sleep(follow.StampAge) // so that later looks may rely on the directories' stamps
		s.now = s.now.Add(2 * time.Minute)
		if err := g.rest(idleFor); err != nil {
			return err
		}
		g.quiet()
	default:
		g.act(st)
	}
	return nil
}

// idleFor is longer than any wait of the Follower between two looks.
const idleFor = 6 * time.Second

// start starts the sidecar if it is down.
func (g *game) start() {
	if g.sidecar.f != nil {
		return
	}
	g.tell("start")
	g.sidecar.start()
	g.started()
}

// rest lets the sidecar come to rest, and checks that all whole lines are out.
func (g *game) rest(idle time.Duration) error {
	if g.sidecar.f == nil {
		return nil
	}
	g.tell("rest %v", idle)
	g.mayEnd(false)
	g.looked()
	begun := time.Now()
	if err := g.sidecar.rest(idle); err != nil {
		return fmt.Errorf("Sweep: %w", err)
	}
	g.looked()
	g.rested = true
	if err := g.collect(); err != nil {
		return err
	}
	return g.rests(idle, begun)
}

// copyUnderLoad copies a log, writes more of it, which the sidecar delivers before it knows of the copy,
// and truncates it.
func (g *game) copyUnderLoad(l *log, n, size int) error {
	s, x := g.sidecar, g.names[l.path()]
	if s.f == nil || x == nil || !g.mind(x).known || !g.mayCopy(l, false) {
		return nil
	}
	g.copy(l, false)
	g.write(l, n, size, true, false)
	s.f.Changed(g.path(l.path()), false)
	if err := s.sweepDeaf(); err != nil {
		return fmt.Errorf("Sweep: %w", err)
	}
	if err := g.collect(); err != nil {
		return err
	}
	g.truncate(x, 0)
	return nil
}

// slow lets the sidecar come to rest, and does something to a log at the moment at which the sidecar
// opens its file, or the directory in which it is; at the end, if it opens neither.
func (g *game) slow(st step) error {
	if g.sidecar.f == nil {
		return nil
	}
	name := ""
	if st.kind == slowOpen {
		l := g.logs[st.log]
		name = l.name
		if x := g.names[l.path()]; x == nil || g.mind(x).known {
			g.rotate(l, true, true) // so that there is something to open
			g.write(l, 1, 10, true, false)
		}
	}
	// What is opened is not known yet, whatever the oracle thinks that a look finds.
	minds, newest := map[*inode]mind{}, maps.Clone(g.newest)
	for _, x := range g.inodes {
		minds[x] = *g.mind(x)
	}
	done := false
	g.mayEnd(false)
	g.looked()
	err := trapped(g.path("logs"), name, func() {
		done = true
		for x, m := range minds {
			g.mind(x).known, g.mind(x).lost = m.known, m.lost
		}
		g.newest = newest
		g.moves()
		g.tell("the sidecar opens %s, and meanwhile", cmp.Or(name, "the directory"))
		g.act(meanwhile(st))
	}, func() error { return g.sidecar.rest(0) })
	if err != nil {
		return fmt.Errorf("Sweep: %w", err)
	}
	if !done {
		g.act(meanwhile(st))
	}
	return g.rest(0)
}

// collect takes what came out.
func (g *game) collect() error { return g.take(g.sidecar.out.collect()) }

// kill is the end of a life by SIGKILL, before the last record of the checkpoint was written
// (midway) or while it was (torn).
func (g *game) kill(midway, torn bool) error {
	s := g.sidecar
	if s.f == nil {
		return nil
	}
	g.tell("kill")
	stalled := s.busy != nil
	before, err := os.ReadFile(s.checkpoint())
	must(err)
	if midway && !stalled {
		s.now = s.now.Add(300 * time.Millisecond) // so that it looks
		if _, _, err := s.sweep(); err != nil {
			return fmt.Errorf("Sweep: %w", err)
		}
		if !g.swapped { // else nothing may tell that there is something to look at
			g.looked()
		}
		after, err := os.ReadFile(s.checkpoint())
		must(err)
		s.kill()
		midway = !bytes.Equal(before, after) && s.loseLast(torn)
	} else {
		s.kill()
		midway = stalled
	}
	if err := g.collect(); err != nil {
		return err
	}
	g.killed(midway)
	return nil
}

// term is the end of a life by SIGTERM, perhaps of the last one.
func (g *game) term(last bool) error {
	if g.sidecar.f == nil {
		return nil
	}
	g.tell("term")
	g.ends()
	if err := g.sidecar.drain(); err != nil {
		return fmt.Errorf("Drain: %w", err)
	}
	if err := g.collect(); err != nil {
		return err
	}
	if err := g.ended(); err != nil {
		return err
	}
	if last {
		return g.order() // what a next life might do is not asked any more
	}
	g.stopped()
	return nil
}

// fill fills the disk of the checkpoint.
func (g *game) fill() {
	if g.full || !strings.Contains(g.sidecar.state, "/small/") {
		return
	}
	g.tell("fill the checkpoint's disk")
	f, err := os.Create(g.filling())
	must(err)
	defer f.Close()
	for b := make([]byte, 4096); err == nil; _, err = f.Write(b) {
	}
	g.full, g.wasFull, g.failed = true, true, true
}

// free makes room on it again.
func (g *game) free() {
	if g.full {
		g.tell("free the checkpoint's disk")
		must(os.Remove(g.filling()))
		g.full = false
	}
}

func (g *game) filling() string { return filepath.Join(g.sidecar.state, "filling") }

// finish ends a program: writers go, time passes, SIGTERM comes. Then all is out.
func (g *game) finish() error {
	g.tell("the end")
	s := g.sidecar
	if s.busy != nil {
		if err := s.wait(); err != nil {
			return fmt.Errorf("Sweep: %w", err)
		}
	}
	for _, l := range g.logs {
		g.finishCopy(l)
		g.closeHandle(l)
	}
	for _, x := range g.inodes {
		if !x.readable && len(x.names) > 0 {
			g.chmod(x, true)
		}
	}
	g.start()
	for range 2 {
		if err := g.rest(idleFor); err != nil {
			return err
		}
		s.now = s.now.Add(2 * time.Minute)
	}
	if err := g.rest(idleFor); err != nil {
		return err
	}
	followed := 0
	for _, x := range g.inodes {
		// A copy is held open as long as its original may be truncated.
		if g.follows(x) || x.copyOf != nil && len(x.names) > 0 {
			followed++
		}
	}
	if open := openFiles(g.app); len(open) > followed {
		return fmt.Errorf("%d files are open, %d have a name that is followed: %s", len(open), followed, strings.Join(open, " "))
	}
	return g.term(true)
}

// run plays the programs of the seeds from first on, and reports the first that fails,
// made as small as it can be made.
func run(t *testing.T, a *account, base, small string, events bool, first uint64, until func(played int) bool) {
	t.Helper()
	played := 0
	for ; !until(played); played++ {
		seed := first + uint64(played)
		p := generate(seed)
		g, err := play(base, small, events, p)
		if err != nil {
			report(t, base, small, events, p, g, fmt.Errorf("seed %d: %w", seed, err))
			return
		}
		a.add(g.oracle)
	}
	t.Logf("%d programs, seeds %d to %d", played, first, first+uint64(played)-1)
}

// report makes a failing program small and tells it. g is the game that was lost the first time, and failure what was
// wrong.
func report(t *testing.T, base, small string, events bool, p program, g *game, failure error) {
	t.Helper()
	first, always := failure, ""
	p = shrink(p, func(p program) bool {
		again, err := play(base, small, events, p)
		if err != nil {
			g, failure = again, err
		}
		return err != nil
	})
	if _, err := play(base, small, events, p); err == nil {
		always = "\nIt does not fail each time, so it depends on the time.\n"
	}
	var last []string
	for _, l := range g.last {
		last = append(last, short(l))
	}
	t.Errorf("%v\n%v\n%s\nAs a test, this is testdata/program/NAME.txt, with a first line that says what it shows:\n\n# \n%s\nWhat happened:\n%s\n\nthe sidecar's words:\n%s\nlast lines of the output:\n%s",
		first, failure, always, p, strings.Join(g.trace, "\n"), g.sidecar.words.String(), strings.Join(last, "\n"))
}

func short(line string) string {
	if len(line) > 120 {
		return fmt.Sprintf("%s… (%d bytes)", line[:120], len(line))
	}
	return line
}

// asked is the program that the environment variable MODEL asks for: a seed, or a file.
func asked(t *testing.T) (p program, ok bool) {
	v := os.Getenv("MODEL")
	if v == "" {
		return p, false
	}
	if seed, err := strconv.ParseUint(v, 10, 64); err == nil {
		return generate(seed), true
	}
	text, err := os.ReadFile(v)
	if err == nil {
		p, err = parse(string(text))
	}
	if err != nil {
		t.Fatalf("MODEL=%s: %v; write the seed of a program, or the name of its file", v, err)
	}
	return p, true
}

// programs is how many programs TestModel plays on each file system, with events and with
// polling.
const programs = 350

// TestModel is row G of the list of scenarios.
func TestModel(t *testing.T) {
	a := audited(t)
	programs := programs
	if testing.Short() {
		programs /= 10
	}
	eachPlace(t, places[:3], func(t *testing.T, dir, small string, events bool) {
		name := crc32.ChecksumIEEE([]byte(t.Name())) // other programs for each, but the same ones each time
		run(t, a, dir, small, events, uint64(name)<<32, func(played int) bool { return played >= programs })
	})
}

// audited returns an account that is told, and judged, when a test has ended.
func audited(t *testing.T) *account {
	a := &account{}
	t.Cleanup(func() {
		if a.programs == 0 {
			return
		}
		t.Log(a)
		if !t.Failed() {
			if err := a.judge(); err != nil {
				t.Error(err)
			}
		}
	})
	return a
}

// TestPrograms plays the programs that are written down: those that failed once.
func TestPrograms(t *testing.T) {
	files, err := filepath.Glob("testdata/program/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no programs in testdata/program: %v", err)
	}
	eachPlace(t, places[:3], func(t *testing.T, dir, small string, events bool) {
		for _, name := range files {
			text, err := os.ReadFile(name)
			must(err)
			p, err := parse(string(text))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if again, err := parse(p.String()); err != nil || again.String() != p.String() {
				t.Errorf("%s: another program when it is written and read: %v", name, err)
			}
			if g, err := play(dir, small, events, p); err != nil {
				t.Errorf("%s: %v\n%s\n%s", name, err, strings.Join(g.trace, "\n"), g.sidecar.words.String())
			}
		}
	})
}

// TestProgramText: what is written down of a program is the program.
func TestProgramText(t *testing.T) {
	for seed := range uint64(500) {
		p := generate(seed)
		again, err := parse(p.String())
		if err != nil {
			t.Fatal(err)
		}
		if have, want := fmt.Sprintf("%+v", again), fmt.Sprintf("%+v", p); have != want {
			t.Fatalf("seed %d\nhave %s\nwant %s", seed, have, want)
		}
	}
	for _, wrong := range []string{"", "write a", "follow app:/logs/*.log\nwrite", "follow app:/logs/*.log\nwrite c", "follow app:/logs/*.log\nwrite a loudly", "follow app:/logs/*.log\nfly", "follow app:/logs/*.log\noutput"} {
		if _, err := parse(wrong); err == nil {
			t.Errorf("no error for %q", wrong)
		}
	}
}

// TestTorture plays programs with new seeds on all file systems, for as long as the
// environment variable TORTURE says.
func TestTorture(t *testing.T) {
	v := os.Getenv("TORTURE")
	if v == "" && os.Getenv("MODEL") == "" {
		t.Skip("TORTURE is not set; TORTURE=10m tortures the Follower for ten minutes")
	}
	long, err := time.ParseDuration(cmp.Or(v, "0"))
	if err != nil {
		t.Fatalf("TORTURE=%s: write a duration, such as 10m", v)
	}
	workers := min(runtime.GOMAXPROCS(0), 2*len(places))
	flag.Set("test.parallel", strconv.Itoa(workers))
	share := long * time.Duration(workers) / time.Duration(2*len(places))
	first := uint64(time.Now().UnixNano())
	a := audited(t)
	eachPlace(t, places, func(t *testing.T, dir, small string, events bool) {
		end := time.Now().Add(share)
		name := crc32.ChecksumIEEE([]byte(t.Name())) // other programs for each
		run(t, a, dir, small, events, first^uint64(name)<<32, func(int) bool { return time.Now().After(end) })
	})
}

// eachPlace calls f for each file system, with events and with polling, or plays the one
// program that is asked for.
func eachPlace(t *testing.T, places []place, f func(t *testing.T, dir, small string, events bool)) {
	for _, p := range places {
		for _, events := range []bool{true, false} {
			t.Run(p.name+"/"+map[bool]string{true: "events", false: "polling"}[events], func(t *testing.T) {
				// Before others play: a program that is started, such as mkfs, has for an instant
				// all that is open here, and so the lock on a checkpoint that is being given up.
				dir, small := p.make(t, t.TempDir()), ""
				if os.Getuid() == 0 {
					small = tmpfs(t, filepath.Join(t.TempDir(), "small"), "64k")
				}
				t.Parallel()
				if p, ok := asked(t); ok {
					if g, err := play(dir, small, events, p); err != nil {
						report(t, dir, small, events, p, g, err)
					}
					return
				}
				f(t, dir, small, events)
			})
		}
	}
}
