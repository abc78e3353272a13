// Package follow follows log files: each line that an application appends is delivered once, in order per file, across
// rotation, truncation and restarts.
//
// In come what to follow, a checkpoint, and events that something changed; out go blocks of whole lines to a sink. A
// Follower does its work in Sweep, a plain function of the file system and the time that it is given: it starts no
// goroutine, sleeps nowhere, and holds no line in memory. The file itself is the buffer.
//
// The files of the package, each calling only those after it: follow.go (the sweep), finish.go (the end of a rotated
// file), scanning.go (what a scan finds), missed.go (generations that no scan found), deliver.go (delivering bytes,
// truncation), reclaim.go (freeing what is delivered), copy.go (copies that a truncation follows), take.go (beginning to
// follow a file), trail.go (what is remembered of delivered bytes, to know copies by), park.go (more files than
// descriptors), record.go (the checkpoint), index.go (all known files), log.go (the generations of one name),
// generation.go (one file), handle.go (its descriptor). Pure decisions are in names.go (what names say of rotation),
// origin.go (copies), schedule.go (when), pace.go (how long lines are gathered for) and, for what comes next in a file, in package cursor.
package follow

import (
	"slices"
	"time"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/sidecar/internal/checkpoint"
	"github.com/log-bridge/log-bridge/sidecar/internal/cursor"
	"github.com/log-bridge/log-bridge/sidecar/internal/emit"
	"github.com/log-bridge/log-bridge/sidecar/internal/prepare"
	"github.com/log-bridge/log-bridge/sidecar/internal/say"
	"github.com/log-bridge/log-bridge/sidecar/internal/scan"
)

// Options are what a Follower is made of.
type Options struct {
	Config  contract.Config
	Store   *checkpoint.Store
	Records map[int]checkpoint.Record // as Open returned them
	Stdout  *emit.Sink
	Stderr  *emit.Sink
	Say     *say.Sayer
	Watcher scan.Watcher // nil: no events, everything is polled
}

// Stats counts since the start.
type Stats struct {
	Bytes       int64 // delivered
	Lines       int64 // delivered; counted only where Config.Stats asks for it
	Truncations int64
	Rotations   int64
	Reclaimed   int64 // bytes whose blocks were freed
}

// Follower follows the files of a configuration. Use it from one goroutine.
type Follower struct {
	cfg    contract.Config
	stdout *emit.Sink
	stderr *emit.Sink
	say    *say.Sayer
	stats  Stats
	seeded prepare.SeedLists

	index   *index
	scanner *scan.Scanner
	record  *recorder
	last    scanned   // what the last scan said
	faults  *faults   // what is said of things that cannot be followed
	wide    elsewhere // searching for generations in other directories
	limits  limits    // on what is open and remembered
	when    schedule  // when the next scan and the next check come
	buf     []byte    // scratch memory of the file that is being served, for the time of one step
	turns   []*file   // scratch memory of serveAll
	told    time.Time // when Tell last said something
	ending  bool      // draining
}

// New makes a Follower. The first Sweep finds the files.
func New(o Options) *Follower {
	f := &Follower{
		cfg: o.Config, stdout: o.Stdout, stderr: o.Stderr, say: o.Say,
		index: newIndex(), scanner: scan.New(o.Config, o.Watcher),
		record: &recorder{store: o.Store, say: o.Say, unkept: map[*file]bool{}},
		faults: &faults{say: o.Say, denied: map[string]time.Time{}},
		limits: limits{open: openLimit(), forgetAt: forgetLeast},
		buf:    make([]byte, cursor.Buffer),
	}
	f.last.first, f.when.stale = o.Store.First(), true
	for pair, r := range o.Records {
		f.index.addClosed(fileOf(pair, &r))
	}
	return f
}

// Stats are the counts so far.
func (f *Follower) Stats() Stats { return f.stats }

// Tell says how much is delivered and how much is not, once in each Config.Stats and only if something has changed.
func (f *Follower) Tell(now time.Time) {
	if f.cfg.Stats == 0 || now.Sub(f.told) < f.cfg.Stats {
		return
	}
	f.told = now
	// The names and units are those of metrics, for programs to read.
	f.say.Once("stats", "stats: delivered_bytes=%d delivered_lines=%d waiting_bytes=%d files=%d unreadable_files=%d rotations=%d truncations=%d reclaimed_bytes=%d",
		f.stats.Bytes, f.stats.Lines, f.Left(), len(f.index.open)+len(f.index.parked), f.last.refused, f.stats.Rotations, f.stats.Truncations, f.stats.Reclaimed)
}

// Changed notes an event: the thing at path, as the sidecar names it, was written, or (other) made, removed, renamed or
// changed in its permissions.
func (f *Follower) Changed(path string, other bool) {
	f.when.stale, f.when.renamed = f.when.stale || other, f.when.renamed || other
	if x := f.index.byName[path]; x != nil {
		if !x.isOpen() {
			f.unpark(x)
		}
		x.ready = true
		return
	}
	if x := f.index.aliases[path]; x != nil && x.isOpen() {
		x.ready = true
		return
	}
	// It may be a rotated file under its new name.
	for _, x := range f.index.open {
		if x.presence == rotated {
			x.ready = true
		}
	}
}

// Watch makes the Follower use another watcher from now on; nil is to poll.
func (f *Follower) Watch(w scan.Watcher) {
	f.scanner.Watch(w)
	f.when.polled = f.when.polled || w == nil
	f.Lost()
}

// OpenDir opens one of the directories that a Watcher is given, for nothing but to watch it. No link is followed.
func (f *Follower) OpenDir(name string) (fd int, err error) { return f.scanner.OpenDir(name) }

// Lost notes that events were lost: everything is scanned and read again.
func (f *Follower) Lost() {
	f.when.stale = true
	f.readyAll()
}

func (f *Follower) readyAll() {
	for _, x := range f.index.open {
		x.ready = true
	}
}

// Sweep scans for files if there is reason to, and delivers what they have, each ready file at most one turn. now must
// not run backwards; its absolute value is not used. An error is one of the output, and the end: what was delivered is
// in the checkpoint.
func (f *Follower) Sweep(now time.Time) (Wait, error) {
	if f.when.grew.IsZero() {
		f.when.grew, f.when.since = now.Add(-busyIf), now // the first sweep: an application is about to begin
	}
	f.count()
	byTime, byEvent := f.when.scanDue(now)
	if byTime || byEvent {
		f.scan(now)
	}
	if byTime || f.when.checkDue(now) {
		f.when.checked = now
		for _, x := range f.index.open {
			x.Unsettled(x, false)
		}
		f.readyAll()
		f.record.keepAgain()
	}
	if f.when.flows {
		f.readyAll()
	}
	delivered, err := f.serveAll(now)
	if err != nil {
		return Wait{}, err
	}
	if err := f.finishRotated(now); err != nil {
		return Wait{}, err
	}
	f.record.sync(now)
	f.when.stale = f.when.stale || delivered > 0 && f.last.crowded // those that are delivered whole make room
	flowed := f.when.flows
	f.when.truncated = f.stats.Truncations > 0
	f.when.pace = f.when.next(now, delivered)
	if flowed && !f.when.flows {
		f.readyAll() // when events report writes again: for what has come since
	}
	f.count()
	return f.wait(now), nil
}

// wait says what is to be done until the next sweep.
func (f *Follower) wait(now time.Time) Wait {
	gather := f.when.gather
	if f.when.stale {
		gather = min(gather, f.when.gap())
	}
	switch {
	case f.someReady():
		return Wait{Flowing: f.when.flows}
	case f.when.flows:
		return Wait{For: gather, Flowing: true}
	case gather > 0:
		for _, x := range f.index.open {
			x.ready = x.ready || x.grew.Equal(now)
		}
		return Wait{For: gather, Deaf: true}
	}
	return Wait{For: f.when.wait(now)}
}

// serveAll gives each ready file a turn.
func (f *Follower) serveAll(now time.Time) (delivered int64, err error) {
	f.turns = append(f.turns[:0], f.index.open...)
	for _, x := range f.turns {
		if x.isOpen() && x.ready && x.log.first(x) {
			n, err := f.serve(x, now)
			delivered += n
			if err != nil {
				return delivered, err
			}
		}
	}
	return delivered, nil
}

func (f *Follower) someReady() bool {
	return slices.ContainsFunc(f.index.open, func(x *file) bool { return x.ready })
}

// Drain delivers everything that the files hold at the end of the pod, unfinished last lines too. left is called now and
// then with the number of bytes still to come; an error of it ends the draining.
func (f *Follower) Drain(now time.Time, left func(int64) error) error {
	f.when.stale = true
	f.scan(now)
	for _, x := range f.index.open {
		x.Unsettled(x, true)
	}
	f.readyAll()
	f.ending = true
	drain := func() error {
		for more := true; more; more = f.someReady() {
			if _, err := f.serveAll(now); err != nil {
				return err
			}
			if err := left(f.Left()); err != nil {
				return err
			}
		}
		return nil
	}
	if err := drain(); err != nil {
		return err
	}
	for _, x := range slices.Clone(f.index.open) {
		// The applications have ended before the sidecar is told to. Where one is proven to go on, the sidecar alone is
		// being restarted, and will find the line finished.
		for x.isOpen() && x.original == nil && x.writers() != some {
			// Whole lines that have come since are whole lines.
			if x.HasMore(x, f.buf) {
				x.ready = true
				if err := drain(); err != nil {
					return err
				}
			}
			again, err := f.flush(x)
			if err != nil {
				return err
			}
			if !again {
				break
			}
			x.ready = true
			if err := drain(); err != nil {
				return err
			}
		}
	}
	if f.record.dirty {
		if err := f.record.syncNow(now); err != nil {
			f.say.Say("%v", err)
		}
	}
	return nil
}

// Left is how many bytes the files hold that are not delivered.
func (f *Follower) Left() int64 {
	var left int64
	for _, x := range f.index.open {
		if size, ok := x.size(); ok && x.original == nil {
			left += x.Left(size)
		}
	}
	return left
}

// Close closes the files. It does not close the checkpoint.
func (f *Follower) Close() {
	for len(f.index.open) > 0 {
		f.close(f.index.open[0], away)
	}
}
