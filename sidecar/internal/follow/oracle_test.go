package follow_test

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/log-bridge/log-bridge/sidecar/internal/follow"
)

// An oracle says which records have to come out of the sidecar, from what happens in the world
// and from when the sidecar looks, stops and is killed.
//
// What it asks for, of every record that it has no reason to excuse: it comes out; it comes out
// once, except for what a kill may repeat; records of one file come in order; generations of a name
// come one after another. Whenever the sidecar comes to rest, all whole lines that exist are out.
type oracle struct {
	*world
	stalled func() bool // the sidecar waits for its reader

	minds  map[*inode]*mind
	fates  map[*record]*fate
	unseen map[*era]bool     // the truncation before it: a hole that is smaller than a block cannot be told from data
	newest map[*log]*inode   // the generation of each name that the sidecar knows
	torn   map[string]reason // pieces of records that may come

	budget, repeated int64 // bytes that may come again, and that did
	longest          int64 // line that came out
	place            int

	swapped   bool // the directory of the logs was away, and no time has passed since
	rested    bool // the sidecar came to rest in this life
	blind     bool // the directory of the logs was away at the last scan
	full      bool // the checkpoint's disk is
	wasFull   bool // in this life
	failed    bool // records may not have been written, and no time has passed since
	forgetful bool // it was full in an earlier life, so that it cannot be told what the sidecar knows

	left []byte   // the beginning of a line that came out
	last []string // lines of the output
}

// mind is what the sidecar may know of a file.
type mind struct {
	known    bool    // it has the file open
	closed   bool    // the file was closed while its directory was away
	closedAt int64   // and had this size then
	finished bool    // the file was quiet for so long that it was closed
	recorded bool    // the file is in the checkpoint
	seen     bool    // it has seen bytes of this era
	ever     bool    // or of any
	lost     reason  // why it cannot know of the file any more
	cut      bool    // to a part, and the sidecar has not seen that: what comes then may be taken for what was cut
	doubted  reason  // why a copy may be taken for a file of its own
	sizes    []int64 // of a copy that may be taken for a file of its own, as it grew
	empty    bool    // it was seen to be empty in this era
	aged     bool    // it was there for so long, also by the clock that dates files, that a scan could note that
	parted   bool    // the sidecar was down after the file was copied
	passed   bool    // an earlier life could not know of it, and noted that it had seen all until then
}

// fate is what came of a record, and what may have come of it.
type fate struct {
	at    *inode // where it can still be read; nil where nowhere
	came  int    // how often it came out
	place int    // where it came first

	unnoted bool // it came while the checkpoint may not have been written

	lose   reason // why it need not come
	repeat reason // why it may come more than once
	end    reason // why its line may be ended although it is unfinished
	tear   reason // why only a part of it may come
	order  reason // why it may come before what an earlier generation held
}

func newOracle(w *world, stalled func() bool) *oracle {
	o := &oracle{world: w, stalled: stalled, minds: map[*inode]*mind{}, fates: map[*record]*fate{}, unseen: map[*era]bool{}, newest: map[*log]*inode{}, torn: map[string]reason{}}
	w.witness = o
	return o
}

func (o *oracle) mind(x *inode) *mind {
	m := o.minds[x]
	if m == nil {
		m = &mind{}
		o.minds[x] = m
	}
	return m
}

// fate of a record that was written.
func (o *oracle) fate(r *record) *fate { return o.fates[r] }

// What happens in the world.

func (o *oracle) wrote(x *inode, r *record) {
	f, m := &fate{at: x, lose: o.mind(x).lost}, o.mind(x)
	if m.cut {
		excuse(&f.lose, cutShort)
	}
	o.fates[r] = f
}

func (o *oracle) renames(x *inode) { o.orphan(x) }
func (o *oracle) loses(x *inode)   { o.orphan(x) }

func (o *oracle) lost(x *inode) {
	if len(x.names) == 0 && !o.mind(x).known {
		o.gone(x, shortLived)
	}
}

// gone notes that the sidecar cannot read a file any more.
func (o *oracle) gone(x *inode, why reason) {
	excuse(&o.mind(x).lost, why)
	o.orphan(x)
	for _, f := range o.fates {
		// With it goes what was to be taken from a copy of it when its truncation came to light.
		if f.came == 0 && (f.at == x || f.at != nil && f.at.copyOf == x && !o.follows(f.at)) {
			excuse(&f.lose, why)
		}
	}
}

// orphan notes that nothing tells the copies of a file, which the sidecar did not meet
// while it could compare them, from files that nobody saw.
func (o *oracle) orphan(x *inode) {
	for _, c := range o.inodes {
		if c.copyOf == x && (o.mind(x).lost != none || !o.mind(c).known && (o.all || c.of != x.era)) {
			o.doubt(c, firstCopy)
		}
	}
}

// doubt notes that a copy may be taken for a file of its own.
func (o *oracle) doubt(c *inode, why reason) {
	excuse(&o.mind(c).doubted, why)
	for _, r := range c.copied {
		excuse(&o.fate(r).repeat, why)
		excuse(&o.fate(r).end, why)
	}
	defer func() { o.mind(c).sizes = append(o.mind(c).sizes, c.size) }()
	for _, r := range c.of.records {
		if cut := c.size - r.offset; cut > 0 && cut < int64(len(r.text)) {
			o.torn[r.text[:cut]], o.torn[r.text[cut:]] = why, why // copied by half
			for _, size := range o.mind(c).sizes {
				if from := size - r.offset; from > 0 && from < cut {
					o.torn[r.text[from:cut]] = why // in more than two goes
				}
			}
		}
	}
}

func (o *oracle) copied(c *inode, finished bool) {
	x := c.copyOf
	// Which of two that nobody saw is the original, births must tell, and only two that can
	// be read can be compared.
	switch {
	case o.mind(x).known:
	case !x.readable:
		o.doubt(c, firstCopy)
	case c.birth == x.birth:
		o.doubt(c, oneTick)
	}
	if !o.follows(c) && small(c) && c.lines == 0 {
		o.doubt(c, smallCopy) // where it is taken for a generation that came and went
	}
	if finished && o.mind(c).doubted != none {
		o.doubt(c, o.mind(c).doubted)
	}
}

// small says whether a copy holds too little to be certain that it is one. NULs are no evidence.
func small(c *inode) bool {
	return !slices.ContainsFunc(c.copied, func(r *record) bool { return r.end() >= 256 })
}

func (o *oracle) cuts(x *inode, size int64) {
	o.tears(x)
	for _, c := range o.inodes {
		if c.copyOf == x {
			o.doubt(c, cutShort)
		}
	}
	// The remaining lines may come again, and what is written before the sidecar has
	// seen the cut may be taken for them.
	for _, r := range x.era.records {
		if o.fate(r).at != x {
			continue
		}
		if f := o.fate(r); r.end() >= size {
			// Nothing is taken from a copy where something is left.
			f.at = nil
			if f.came == 0 {
				excuse(&f.lose, cutShort)
			}
		} else {
			excuse(&o.fate(r).repeat, cutShort)
		}
	}
	o.mind(x).cut = true
}

// tears notes that a long line may be under way in a file that is being truncated.
func (o *oracle) tears(x *inode) {
	for _, r := range x.era.records {
		if o.stalled() {
			excuse(&o.fate(r).tear, unread)
		}
	}
}

func (o *oracle) empties(x *inode) {
	o.tears(x)
	delivered := int64(0)
	for _, r := range x.era.records {
		o.destroy(x, r)
		if o.fate(r).came > 0 {
			delivered = r.end()
		}
	}
	for _, c := range o.inodes {
		if c.copyOf != x || c.of != x.era {
			continue
		}
		m := o.mind(c)
		switch {
		case !o.mind(x).seen:
			o.doubt(c, firstCopy) // at most its head can be compared with what is known of the original
		case !anyCopy.on() && (m.parted && c.data < delivered || o.stalled() && !m.known && c.data < x.data):
			o.doubt(c, unmetCopy) // more than it holds may have been delivered before it was met
		}
	}
}

// shreds notes that what was not read of a file never can be.
func (o *oracle) shreds(x *inode) {
	o.tears(x)
	for _, f := range o.fates {
		if f.at == x {
			f.at = nil
			if f.came == 0 {
				excuse(&f.lose, overwritten)
			}
		}
	}
	for _, c := range o.inodes {
		if c.copyOf == x {
			o.doubt(c, overwritten)
		}
	}
}

func (o *oracle) emptied(x *inode, before *era) {
	o.unseen[x.era] = !o.mind(x).ever || o.unseen[before] && !slices.ContainsFunc(before.records, func(r *record) bool { return o.fate(r).came > 0 })
	o.mind(x).seen, o.mind(x).empty = false, false
}

// destroy notes that a record is not in its file any more. It may be in a copy.
func (o *oracle) destroy(x *inode, r *record) {
	f := o.fate(r)
	if f.at != x {
		return
	}
	f.at = nil
	if f.came > 0 {
		return
	}
	if (o.mind(x).seen || emptyFirst.on() && o.mind(x).empty) && r.complete > 0 {
		for _, c := range o.inodes {
			if c.copyOf == x && slices.Contains(c.copied[:c.lines], r) && c.has("logs") && x.has("logs") {
				f.at = c
				return
			}
		}
	}
	excuse(&f.lose, unread)
}

// What happens to the sidecar.

// started notes that a life of the sidecar begins.
func (o *oracle) started() { o.rested, o.swapped = false, false }

// stopped notes that the sidecar has no file open any more.
func (o *oracle) stopped() {
	for _, x := range o.inodes {
		m := o.mind(x)
		m.passed = m.passed || !m.known && (o.blind && x.aside || x.log != nil && o.newest[x.log] == nil && !o.exact(x.log))
		if c := x.copyOf; c != nil && !m.known && c.log != nil && (o.names[c.log.path()] != c || x.of != c.era && !m.aged) {
			o.doubt(x, unmetCopy) // made just before, it counts as a generation that was missed
		}
		m.known, m.parted = false, x.copyOf != nil
		if !m.recorded || o.wasFull {
			m.seen, m.ever = false, false
			o.unseen[x.era] = true // nobody knows any more that it was truncated
		}
		if len(x.names) == 0 {
			o.gone(x, compressed)
		}
	}
	for _, l := range o.logs {
		if h := o.newest[l]; h != nil && !o.mind(h).recorded {
			delete(o.newest, l)
		}
	}
	if o.wasFull {
		// What was delivered while the checkpoint could not be written comes again.
		for r, f := range o.fates {
			if f.unnoted || f.came > 0 && !o.mind(r.file).recorded {
				excuse(&f.repeat, noCheckpoint)
			}
		}
		for _, c := range o.inodes {
			if c.copyOf != nil {
				o.doubt(c, noCheckpoint)
			}
		}
		o.forgetful = true
		o.wasFull = o.full
	}
}

// killed notes that the sidecar was killed, between writing a block and noting it (midway) or not.
func (o *oracle) killed(midway bool) {
	if midway {
		o.budget += max(64<<10, o.longest)
	}
	if len(o.left) > 0 {
		o.tell("a line was cut off after %d bytes", len(o.left))
		o.budget += int64(len(o.left))
		o.left = nil
	}
	o.stopped()
}

// ends notes that the sidecar is about to deliver what there is and to end.
func (o *oracle) ends() {
	o.mayEnd(true)
	for _, x := range o.inodes {
		if x.copyOf != nil && small(x) {
			o.doubt(x, smallCopy) // a few bytes may well be the same in two logs: better twice than not at all
		}
	}
	o.looked()
}

// ended checks, when a life has ended by itself, that all is out.
func (o *oracle) ended() error {
	if len(o.left) > 0 {
		return fmt.Errorf("the output ends within a line: %.100q", o.left)
	}
	return o.check(func(x *inode, r *record) bool { return true })
}

// rests checks that all whole lines are out when the sidecar has come to rest: after idle, if
// nothing happens for that long. It began to do so at a time by the clock that dates files.
func (o *oracle) rests(idle time.Duration, begun time.Time) error {
	o.failed = o.full || o.failed && idle == 0
	if !o.failed {
		for r, f := range o.fates {
			f.unnoted = f.unnoted && !o.mind(r.file).known
		}
	}
	for _, x := range o.inodes {
		if m := o.mind(x); m.known {
			m.recorded = m.recorded || !o.full && (!o.failed || idle > 0)
			m.seen = m.seen || x.data > 0
			m.empty = x.data == 0
			m.ever = m.ever || m.seen
			m.cut = false
		}
	}
	for _, x := range o.inodes {
		o.mind(x).aged = o.mind(x).aged || idle > 0 && begun.Sub(time.Unix(0, x.birth)) >= follow.StampAge
	}
	o.swapped = o.swapped && idle == 0
	return o.check(func(x *inode, r *record) bool {
		// Events report what happens in the directory. For everything else, time must pass.
		// What was searched and held only NULs is searched again after a while.
		return r.complete > 0 && (idle > 0 || !r.within && !x.aside && x.has("logs") && (!o.swapped || rewatched.on()))
	})
}

// quiet notes that nothing has happened for longer than a rotated file whose writers nobody tells is
// followed.
func (o *oracle) quiet() {
	for _, x := range o.inodes {
		if o.rights == stranger && x.handles > 0 && !o.follows(x) {
			o.mind(x).known, o.mind(x).finished = false, true
			o.gone(x, silent)
		}
	}
	o.forgotten()
}

// looked notes what the sidecar knows when it has looked around.
func (o *oracle) looked() {
	o.blind = false
	for _, x := range o.inodes {
		o.meet(x)
	}
	for _, l := range o.logs {
		if x := o.names[l.path()]; x != nil && o.mind(x).known {
			o.newest[l] = x
		}
	}
	o.forgotten()
}

// moves notes that something is renamed while the sidecar looks, so that it may not find the files that
// nobody writes, and may end their lines.
func (o *oracle) moves() {
	for _, x := range o.inodes {
		if n := len(x.era.records); n > 0 && (x.handles == 0 || o.rights == stranger) {
			excuse(&o.fate(x.era.records[n-1]).end, lastLine)
		}
	}
}

// misses notes that the sidecar looks while the directory of the logs is away. It finishes the files
// that nobody writes. One that is back is opened again if it has grown since.
func (o *oracle) misses() {
	o.moves()
	o.blind = true
	for _, x := range o.inodes {
		if m := o.mind(x); x.handles == 0 && (m.known || m.recorded && !o.rested) {
			m.known, m.closed, m.closedAt = false, true, x.size
		}
		if x.copyOf != nil {
			o.doubt(x, strangeCopy)
		}
	}
}

// forgotten notes that the sidecar has finished what is gone.
func (o *oracle) forgotten() {
	for _, l := range o.logs {
		if h := o.newest[l]; h != nil && len(h.names) == 0 && (!o.mind(h).known || h.handles == 0) {
			delete(o.newest, l)
		}
	}
}

// meet decides whether the sidecar knows of a file when it has looked around.
func (o *oracle) meet(x *inode) {
	m := o.mind(x)
	if m.known {
		return
	}
	if m.finished && !o.follows(x) {
		o.gone(x, silent)
		return
	}
	within := x.has("logs") || elsewhere.on() && len(x.names) > 0
	switch {
	case m.closed && (x.size == m.closedAt || o.swapped) && o.follows(x):
		return
	case x.readable && o.follows(x):
	case x.readable && m.recorded && within && !o.rested && !m.closed:
		// It was followed, and has another name since the sidecar was down.
	case x.readable && within && x.copyOf == nil && o.missed(x):
	case o.follows(x): // it may become readable
		return
	case x.readable && within && x.copyOf != nil:
		return // it is taken for what its original held
	case !within:
		o.gone(x, movedFirst)
		return
	default:
		o.gone(x, severalFirst)
		return
	}
	m.known, m.lost, m.closed = true, none, false
}

// exact says whether a log is followed by its name, and not by a glob alone.
func (o *oracle) exact(l *log) bool { return slices.Contains(o.patterns, "app:/"+l.path()) }

// missed says whether a file is a generation of a log that came and went unseen.
func (o *oracle) missed(x *inode) bool {
	l := x.log
	if l == nil || x.late || o.mind(x).passed {
		return false
	}
	now, before := o.names[l.path()], o.newest[l]
	if before == nil && o.forgetful {
		return false
	}
	if before == nil && (now == nil || now.aside || !now.readable) && !o.exact(l) {
		return false // nothing tells the name
	}
	if before != nil && (before == now || before.aside || x.birth < before.birth) {
		return false
	}
	return slices.ContainsFunc(x.names, func(n string) bool {
		rest, ok := strings.CutPrefix(path.Base(n), l.name)
		return ok && rest != "" && (path.Dir(n) == "logs" || elsewhere.on() && o.names[path.Join(path.Dir(n), l.name)] == nil) && (rest[0] == '.' || rest[0] == '-' || suffixes.on())
	})
}

// mayEnd notes which unfinished lines the sidecar may end now: where nobody writes a file
// that has lost its name, or, at its own end, any file.
func (o *oracle) mayEnd(ending bool) {
	for _, x := range o.inodes {
		if (ending || !o.follows(x)) && (x.handles == 0 || o.rights == stranger) {
			if n := len(x.era.records); n > 0 {
				excuse(&o.fate(x.era.records[n-1]).end, lastLine)
			}
		}
		if n := len(x.copied); n > 0 {
			excuse(&o.fate(x.copied[n-1]).end, lastLine)
		}
		if k := x.copyOf; k != nil && (!o.mind(k).known && !k.readable || k.aside) {
			o.doubt(x, strangeCopy) // it cannot be compared, or its name does not look like that of its original
		}
	}
}

// What came out.

// check checks that all records that must be out are out.
func (o *oracle) check(must func(*inode, *record) bool) error {
	for _, x := range o.inodes {
		for _, r := range slices.Concat(x.era.records, x.copied) {
			f := o.fate(r)
			if f.at != x || f.came > 0 || f.lose != none || !(o.mind(x).known || x.copyOf != nil) || !must(x, r) {
				continue
			}
			if r.complete == 0 && (x.handles > 0 || o.rights == stranger || x.copyOf != nil || o.step == 0) {
				continue // unfinished
			}
			if c := x.copyOf; c != nil && !c.readable && !o.mind(c).known {
				continue // its truncation comes to light when it may be read again
			}
			m := o.mind(x)
			return fmt.Errorf("missing: record %d, %d bytes, at %d of file %d (%s), written known=%v recorded=%v readable=%v size=%d",
				r.number, len(r.text), r.offset, x.id, strings.Join(x.names, " "), m.known, m.recorded, x.readable, x.size)
		}
	}
	return nil
}

// take checks each line of what came out.
func (o *oracle) take(out []byte) error {
	o.mayEnd(false)
	got := append(o.left, out...)
	for {
		i := bytes.IndexByte(got, '\n')
		if i < 0 {
			break
		}
		if err := o.line(string(got[:i])); err != nil {
			return err
		}
		got = got[i+1:]
	}
	o.left = bytes.Clone(got)
	return nil
}

// line checks one line of the output.
func (o *oracle) line(line string) error {
	o.last = append(o.last, line)
	if len(o.last) > 12 {
		o.last = o.last[1:]
	}
	o.longest = max(o.longest, int64(len(line)+1))
	if line == "" {
		return errors.New("an empty line, which nobody wrote")
	}
	var before *record
	nuls := 0
	for rest := line; rest != ""; {
		n := len(rest)
		rest = strings.TrimLeft(rest, "\x00")
		if nuls = n - len(rest); rest == "" {
			break
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(rest, "<"), ":")
		if r := o.byName[name]; o.torn[rest] != none || r != nil && o.fate(r).tear != none && len(rest) < len(r.text) && strings.HasPrefix(r.text, rest) {
			return nil
		}
		if rest[0] != '<' && before == nil {
			longest := ""
			for piece := range o.torn {
				if strings.HasPrefix(rest, piece) && len(piece) > len(longest) {
					longest = piece
				}
			}
			rest = rest[len(longest):]
		}
		end := strings.IndexByte(rest, '>')
		if rest[0] != '<' || end < 0 {
			return fmt.Errorf("not a record: %.200q of the line %.200q", rest, line)
		}
		body, sum, ok := strings.Cut(rest[1:end], "#")
		if have := fmt.Sprintf("%08x", crc32.Checksum([]byte(body), castagnoli)); !ok || sum != have {
			return fmt.Errorf("a damaged record: %.200q, checksum %s", rest[:end+1], have)
		}
		rest = rest[end+1:]
		r := o.byText[body]
		if r == nil {
			return fmt.Errorf("a record that nobody wrote: %.200q", body)
		}
		f := o.fate(r)
		if int64(nuls) > r.nuls && f.lose == none && f.repeat == none && (!o.unseen[r.era] || nuls > 4096) {
			return fmt.Errorf("%d NULs before record %d of file %d, after which %d were allocated", nuls, r.number, r.file.id, r.nuls)
		}
		nuls = 0
		f.unnoted = f.unnoted || o.full || o.failed
		o.place++
		if f.came++; f.came == 1 {
			f.place = o.place
		} else if f.repeat == none {
			o.repeated += int64(len(r.text))
			if r.newline {
				o.repeated++
			}
			if o.repeated > o.budget {
				return fmt.Errorf("repeated: record %d of file %d, came %d times; %d bytes repeated, %d allowed", r.number, r.file.id, f.came, o.repeated, o.budget)
			}
		}
		if before != nil && (before.file != r.file || before.era != r.era || before.newline || before.number > r.number) {
			return fmt.Errorf("one line of records that are not one line: %d of file %d, then %d of file %d", before.number, before.file.id, r.number, r.file.id)
		}
		before = r
	}
	if nuls > 0 {
		for r, f := range o.fates {
			if f.tear != none && r.nuls >= int64(nuls) {
				return nil // it was truncated while what is before that record was being delivered
			}
		}
		return fmt.Errorf("a line that ends with %d NULs", nuls)
	}
	if !before.newline && o.fate(before).end == none {
		return fmt.Errorf("an unfinished line was ended after record %d of file %d", before.number, before.file.id)
	}
	return nil
}

// order checks that the records of each file came in order, and each generation after the
// one before.
func (o *oracle) order() error {
	for _, l := range o.logs {
		var before []*record // of earlier eras
		for _, e := range l.eras {
			var last *record
			for _, r := range e.records {
				f := o.fate(r)
				if f.came == 0 || f.repeat != none {
					continue
				}
				if last != nil && f.place < o.fate(last).place {
					return fmt.Errorf("out of order: record %d of file %d came before %d", r.number, r.file.id, last.number)
				}
				last = r
				for _, b := range before {
					why := o.unordered(b, e)
					excuse(&f.order, why)
					if why == none && o.fate(b).place > f.place {
						return fmt.Errorf("out of order: record %d of the new generation, file %d, came before %d of file %d", r.number, r.file.id, b.number, b.file.id)
					}
				}
			}
			if last != nil {
				// The latest of an era is enough: within it they are in order.
				for _, r := range slices.Backward(e.records) {
					if f := o.fate(r); f.came > 0 && f.repeat == none && r.complete > 0 {
						before = append(before, r)
						break
					}
				}
			}
		}
	}
	return nil
}

// unordered says why a record need not come before those of a later era.
func (o *oracle) unordered(r *record, later *era) reason {
	switch {
	case o.all:
		return twoFiles
	case r.complete >= later.begun || o.fate(r).end != none:
		return stillWritten
	case o.mind(r.file).finished:
		return silent // it went on after it had been closed
	case later.file.aside || r.file.aside:
		return strangeCopy
	case r.file.late:
		return unreadable
	case r.file != later.file && r.file.birth >= later.file.birth:
		return oneTick
	}
	return none
}
