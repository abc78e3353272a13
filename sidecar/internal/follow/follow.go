// Package follow follows log files: each line that an application appends is
// delivered once, in order per file, across rotation, truncation and restarts.
//
// In come sources (what to follow), a checkpoint and events that something
// changed; out go blocks of whole lines to a sink. A Follower does its work in
// Sweep, a plain function of the file system and the time that it is given: it
// starts no goroutine, sleeps nowhere, and holds no line in memory. The file itself
// is the buffer.
//
// The files of the package: follow.go (the sweep), discover.go (which files there
// are), park.go (more of them than descriptors), rotate.go (generations of a name and
// their end), copy.go (copies that a truncation follows), trail.go (what is remembered of
// delivered bytes, to know copies by), read.go (delivering bytes, truncation), search.go (finding the next
// line in whatever a file holds), reclaim.go (freeing what is delivered), file.go (one file).
package follow

import (
	"bytes"
	"slices"
	"time"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/sidecar/internal/checkpoint"
	"github.com/log-bridge/log-bridge/sidecar/internal/emit"
	"github.com/log-bridge/log-bridge/sidecar/internal/prepare"
	"github.com/log-bridge/log-bridge/sidecar/internal/say"
	"github.com/log-bridge/log-bridge/sidecar/internal/tree"
	"golang.org/x/sys/unix"
)

// How long the sweep waits, at the most, before it looks again. Events end a wait;
// these are for what events do not tell.
const (
	// lookEvery is the time between two looks for files where events tell of changes:
	// permission changes elsewhere on the path, mounts and lost events.
	lookEvery = 5 * time.Second
	// youngEvery is the time after which a look is made again if a directory changed so shortly before it that
	// what was made at the same time may have been missed.
	youngEvery = 250 * time.Millisecond
	// fullLookEvery is the time after which a look is made although no directory has changed:
	// somebody may have mounted something over a file.
	fullLookEvery = 10 * time.Minute
	// checkMin and checkMax bound the time between two checks of all open files where there
	// are events, pollMin and pollMax where there are none. In between it is a part of the time in
	// which nothing happened, 1/idlePart: what is written after a second comes within an
	// eighth of one, and what is idle costs little.
	checkMin = 2 * time.Second
	checkMax = lookEvery
	pollMin  = 10 * time.Millisecond
	pollMax  = time.Second
	idlePart = 8
	// goneEvery is the time between two checks where a file without a name is open, which
	// may be where no watch is.
	goneEvery = 250 * time.Millisecond
	// busyWait is how long a file that was written a moment ago is left alone, so
	// that lines come in batches; busyIf is the time since the last delivery up
	// to which a file counts as busy.
	busyWait = 5 * time.Millisecond
	busyIf   = busyWait + time.Millisecond
	// lookGap is the least time between two looks that events ask for, and lookGapEach
	// is added to it for each open file: a look at many files must not come often.
	lookGap     = 2 * time.Millisecond
	lookGapEach = 50 * time.Microsecond
	// syncEvery is the time between two syncs of a checkpoint that has changed.
	syncEvery = 5 * time.Second
	// quietFor is how long a rotated file whose writers nobody tells must be quiet
	// before it counts as finished.
	quietFor = 60 * time.Second
)

// stampAge is the age from which on a directory's change time can be told from that of a change now:
// some ticks of the kernel's clock.
var stampAge = 100 * time.Millisecond

// coarseStampAge is the same where change times are whole seconds, as on ext4 with small inodes.
const coarseStampAge = 3 * time.Second

// Watcher asks for events of the directories it is given, by the names that Changed is then told. Package
// notify has one.
type Watcher interface {
	Add(dir string) error
	Remove(dir string) error
}

// source is a pattern to follow.
type source struct {
	contract.Entry
	stderr bool
	tree   *tree.Tree
}

// Options are what a Follower is made of.
type Options struct {
	Config  contract.Config
	Store   *checkpoint.Store
	Records map[int]checkpoint.Record // as Open returned them
	Stdout  *emit.Sink
	Stderr  *emit.Sink
	Say     *say.Sayer
	Watcher Watcher // nil: no events, everything is polled
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
	cfg     contract.Config
	sources []source
	store   *checkpoint.Store
	stdout  *emit.Sink
	stderr  *emit.Sink
	say     *say.Sayer
	watcher Watcher
	buf     []byte
	stats   Stats

	open     []*file          // the files with an open descriptor
	turns    []*file          // open at the beginning of a round of turns
	inode    map[inode]*file  // the same, by number
	real     map[string]*file // the same, by where they were last found
	alias    map[string]*file // the same, by their other names at the last look
	closed   []*file          // finished, parked, or from the checkpoint and not yet found
	parked   map[inode]*file  // of the closed, those that may be opened again
	forgetAt int              // how many closed ones ask for a look at which of them still exist
	limit    int              // on len(open)
	first    bool             // no look before this one, in this process or an earlier one
	looked   bool             // a look has been made in this process
	ending   bool             // draining
	seeded   prepare.SeedLists

	holder  map[contract.Place]*file // newest generations, as this look found them
	dirs    map[string]*dir          // the directories of the sources, by name
	polled  bool                     // some directory has no watch
	round   uint64                   // number of the look
	stale   bool                     // something changed that asks for a look
	settled bool                     // what the last look found changes only if a directory does
	denied  map[string]time.Time     // what may not be read, and since which look
	refused int                      // files and directories that this look may not read
	hidden  bool                     // a rotated file may not be read
	// wasHidden says the same of the look before.
	wasHidden bool
	crowded   bool  // the last look found files for which there is no descriptor
	young     bool  // the last look found a directory that has changed just before
	begun     int64 // when the look began, in ns since 1970

	lastLook, lastFullLook, lastCheck, lastSync, lastGrowth, lastTold time.Time
	dirty                                                             bool // the checkpoint has changed since lastSync
	keepFailed                                                        bool
}

// inode finds an open file; its number is not used again while it is open.
type inode struct{ dev, ino uint64 }

// New makes a Follower. The first Sweep finds the files.
func New(o Options) *Follower {
	f := &Follower{
		cfg: o.Config, store: o.Store, stdout: o.Stdout, stderr: o.Stderr, say: o.Say, watcher: o.Watcher,
		buf:   make([]byte, checkpoint.Window+blockSize),
		inode: map[inode]*file{}, real: map[string]*file{}, alias: map[string]*file{}, dirs: map[string]*dir{},
		parked: map[inode]*file{}, limit: openLimit(), forgetAt: forgetLeast,
		holder: map[contract.Place]*file{}, denied: map[string]time.Time{},
		first: o.Store.First(), stale: true,
	}
	trees := map[string]*tree.Tree{}
	add := func(entries []contract.Entry, stderr bool) {
		for _, e := range entries {
			if trees[e.Container] == nil {
				trees[e.Container] = tree.New(e.Container, o.Config)
			}
			f.sources = append(f.sources, source{Entry: e, stderr: stderr, tree: trees[e.Container]})
		}
	}
	add(o.Config.Stdout, false)
	add(o.Config.Stderr, true)
	for pair, r := range o.Records {
		f.closed = append(f.closed, &file{Record: r, pair: pair, fd: -1})
	}
	return f
}

// Stats are the counts so far.
func (f *Follower) Stats() Stats { return f.stats }

// Tell says how much is delivered and how much is not, once in each Config.Stats and only if something
// has changed.
func (f *Follower) Tell(now time.Time) {
	if f.cfg.Stats == 0 || now.Sub(f.lastTold) < f.cfg.Stats {
		return
	}
	f.lastTold = now
	// The names and units are those of metrics, for programs to read.
	f.say.Once("stats", "stats: delivered_bytes=%d delivered_lines=%d waiting_bytes=%d files=%d unreadable_files=%d rotations=%d truncations=%d reclaimed_bytes=%d",
		f.stats.Bytes, f.stats.Lines, f.Left(), len(f.open)+len(f.parked), f.refused, f.stats.Rotations, f.stats.Truncations, f.stats.Reclaimed)
}

// countLines counts those in what was delivered.
func (f *Follower) countLines(data []byte) {
	if f.cfg.Stats > 0 {
		f.stats.Lines += int64(bytes.Count(data, newline))
	}
}

var newline = []byte("\n")

// Changed notes an event: the thing at path, as the sidecar names it, was written,
// or (other) made, removed, renamed or changed in its permissions.
func (f *Follower) Changed(path string, other bool) {
	if other {
		f.stale = true
	}
	if x := f.real[path]; x != nil {
		if x.fd < 0 {
			f.unpark(x)
		}
		x.ready = true
		return
	}
	if x := f.alias[path]; x != nil && x.fd >= 0 {
		x.ready = true
		return
	}
	// It may be a rotated file under its new name.
	for _, x := range f.open {
		if !x.named {
			x.ready = true
		}
	}
}

// Watch makes the Follower use another watcher from now on; nil is to poll.
func (f *Follower) Watch(w Watcher) {
	f.watcher, f.polled = w, f.polled || w == nil
	for _, d := range f.dirs {
		d.watched = stamp{}
	}
	f.Lost()
}

// OpenDir opens one of the directories that a Watcher is given, for nothing but to watch it. No link is followed.
func (f *Follower) OpenDir(name string) (fd int, err error) {
	d := f.dirs[name]
	if d == nil {
		return -1, unix.ENOENT
	}
	return d.node.OpenToWatch()
}

// Lost notes that events were lost: everything is looked at again.
func (f *Follower) Lost() {
	f.stale = true
	f.readyAll()
}

func (f *Follower) readyAll() {
	for _, x := range f.open {
		x.ready = true
	}
}

// Wait says what is to be done until the next Sweep.
type Wait struct {
	// For is the longest wait; 0 is none.
	For time.Duration
	// Deaf asks not to let an event end the wait: a busy file's next lines are
	// gathered.
	Deaf bool
}

// Sweep looks for files if there is reason to, and delivers what they have, each
// ready file at most one turn. now must not run backwards; its absolute value is not
// used. An error is one of the output, and the end: what was delivered is in the
// checkpoint.
func (f *Follower) Sweep(now time.Time) (Wait, error) {
	if f.lastGrowth.IsZero() {
		f.lastGrowth = now.Add(-busyIf) // the first sweep: an application is about to begin
	}
	due := now.Sub(f.lastLook) >= f.lookAfter(now)
	if due || f.stale && now.Sub(f.lastLook) >= f.lookGap() {
		f.look(now)
	}
	if due || now.Sub(f.lastCheck) >= f.checkAfter(now) {
		f.lastCheck = now
		for _, x := range f.open {
			x.writtenSince(false)
		}
		f.readyAll()
		f.keepAgain()
	}
	delivered, err := f.serveAll(now)
	if err != nil {
		return Wait{}, err
	}
	if err := f.finishGone(now); err != nil {
		return Wait{}, err
	}
	f.sync(now)
	busy := delivered > 0 && now.Sub(f.lastGrowth) < busyIf
	if delivered > 0 {
		f.stale = f.stale || f.crowded // those that are delivered whole make room
		f.lastGrowth = now
	}
	switch {
	case f.someReady():
		return Wait{}, nil
	case busy:
		for _, x := range f.open {
			x.ready = x.ready || x.grew.Equal(now)
		}
		return Wait{For: busyWait, Deaf: true}, nil
	case f.stale:
		return Wait{For: f.lookGap()}, nil
	}
	return Wait{For: min(f.checkAfter(now), f.lookAfter(now))}, nil
}

// serveAll gives each ready file a turn.
func (f *Follower) serveAll(now time.Time) (delivered int64, err error) {
	f.turns = append(f.turns[:0], f.open...)
	for _, x := range f.turns {
		if x.ready && !(x.before != nil && x.before.behind) {
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
	return slices.ContainsFunc(f.open, func(x *file) bool { return x.ready })
}

func (f *Follower) lookGap() time.Duration {
	return lookGap + time.Duration(len(f.open))*lookGapEach
}

func (f *Follower) lookAfter(now time.Time) time.Duration {
	if f.polled {
		return f.pollAfter(now)
	}
	if f.young {
		return youngEvery
	}
	return lookEvery
}

func (f *Follower) checkAfter(now time.Time) time.Duration {
	if f.polled {
		return f.pollAfter(now)
	}
	if slices.ContainsFunc(f.open, (*file).gone) {
		return goneEvery
	}
	return f.patience(now, checkMin, checkMax)
}

func (f *Follower) pollAfter(now time.Time) time.Duration { return f.patience(now, pollMin, pollMax) }

// patience is 1/idlePart of the time in which nothing happened, within bounds.
func (f *Follower) patience(now time.Time, least, most time.Duration) time.Duration {
	return min(max(now.Sub(f.lastGrowth)/idlePart, least), most)
}

// Drain delivers everything that the files hold at the end of the pod, unfinished
// last lines too. left is called now and then with the number of bytes still to come;
// an error of it ends the draining.
func (f *Follower) Drain(now time.Time, left func(int64) error) error {
	f.stale = true
	f.look(now)
	for _, x := range f.open {
		x.writtenSince(true)
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
	for _, x := range f.open {
		// The applications have ended before the sidecar is told to. Where one is
		// proven to go on, the sidecar alone is being restarted, and will find
		// the line finished.
		if x.original != nil || x.writers() == some {
			continue
		}
		// Whole lines that have come since are whole lines.
		if st, err := x.stat(); err == nil && st.Size != x.end {
			x.ready = true
			if err := drain(); err != nil {
				return err
			}
		}
		if err := f.flush(x); err != nil {
			return err
		}
	}
	if f.dirty {
		if err := f.store.Sync(); err != nil {
			f.say.Say("%v", err)
		}
	}
	return nil
}

// Left is how many bytes the files hold that are not delivered.
func (f *Follower) Left() int64 {
	var left int64
	for _, x := range f.open {
		if st, err := x.stat(); err == nil && x.original == nil {
			if st.Size == x.end {
				st.Size = x.solid // nothing but NULs is behind it
			}
			left += max(0, st.Size-x.Offset)
		}
	}
	return left
}

// sink is where a file's lines go.
func (f *Follower) sink(x *file) *emit.Sink {
	if x.Flags&checkpoint.Stderr != 0 {
		return f.stderr
	}
	return f.stdout
}

// keep writes a file's record. If that fails the sidecar goes on: a restart then
// delivers again what it cannot know to be delivered.
func (f *Follower) keep(x *file) {
	f.dirty = true
	err := f.store.Put(x.pair, &x.Record)
	x.unkept = err != nil
	if (err != nil) != f.keepFailed {
		f.keepFailed = err != nil
		if err != nil {
			f.say.Say("%v; lines go on, but a restart of the sidecar would repeat them", err)
		} else {
			f.say.Say("the checkpoint can be written again")
		}
	}
}

// keepAgain writes the records that could not be written.
func (f *Follower) keepAgain() {
	for _, x := range f.open {
		if x.unkept {
			f.keep(x)
		}
	}
}

func (f *Follower) sync(now time.Time) {
	if !f.dirty || now.Sub(f.lastSync) < syncEvery {
		return
	}
	f.lastSync, f.dirty = now, false
	if err := f.store.Sync(); err != nil {
		f.say.Once("sync", "%v", err)
	}
}

// Close closes the files. It does not close the checkpoint.
func (f *Follower) Close() {
	for len(f.open) > 0 {
		f.close(f.open[0])
	}
}
