package follow_test

import (
	"bytes"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/log-bridge/log-bridge/sidecar/internal/follow"
)

// A program is a random sequence of what applications, rotations and the end of processes
// do to log files and to the sidecar. A model says which records had to come out.
//
// A record is <FILE.NUMBER:filling#CHECKSUM>, with the number of the file (inode) that it was
// first written to. A line holds one or more records; an unfinished line none or
// more. So each piece of output tells where it belongs, and whether it is whole.
//
// What the model promises, for every record that was not destroyed before the sidecar could
// read it: it comes out; it comes out once, except for what a kill may repeat; records
// of one file come in order; generations of a name come one after another. Whenever
// the sidecar comes to rest, all whole lines that exist are out.

// step is one step of a program. What it does to what depends on the state it finds, so that
// a program stays one when steps are taken out of it.
type step struct {
	kind    kind
	a, b, c uint32
}

type kind int

const (
	write kind = iota
	bulk
	rest
	rotate
	reopen
	copyFile
	finishCopy
	truncate
	cut
	remove
	replace
	gzip
	hardlink
	chmod
	moveOut
	moveDir
	stall
	resume
	kill
	term
	start
	overflow
	fill
	pass
	tickClock
	kinds
)

var weights = [kinds]int{write: 40, bulk: 3, rest: 22, rotate: 8, reopen: 5, copyFile: 5, finishCopy: 3, truncate: 5, cut: 1, remove: 2, replace: 2,
	gzip: 2, hardlink: 2, chmod: 2, moveOut: 1, moveDir: 1, stall: 4, resume: 3, kill: 5, term: 3, start: 5, overflow: 1, fill: 1, pass: 1, tickClock: 3}

// setting is what a program is played in.
type setting struct {
	patterns  []string
	all       bool // the names of rotated files match too
	piped     bool
	rights    user
	dated     bool // rotated files are called NAME-DATE, not NAME.1
	ownOffset bool // writers without O_APPEND
}

func generate(seed uint64) (setting, []step) {
	r := rand.New(rand.NewPCG(seed, 1))
	s := setting{piped: r.IntN(3) > 0, rights: user(r.IntN(4) % 3), dated: r.IntN(3) == 0, ownOffset: r.IntN(5) == 0}
	switch r.IntN(4) {
	case 0:
		s.patterns = []string{"app:/logs/a.log", "app:/logs/b.log"}
	case 1:
		s.patterns = []string{"app:/logs/*.log"}
	case 2:
		s.patterns, s.all = []string{"app:/logs/*.log*"}, true
	case 3:
		s.patterns = []string{"app:/**/*.log", "app:/logs/a.log"}
	}
	sum := 0
	for _, w := range weights {
		sum += w
	}
	steps := make([]step, 10+r.IntN(70))
	for i := range steps {
		n, k := r.IntN(sum), kind(0)
		for ; n >= weights[k]; k++ {
			n -= weights[k]
		}
		steps[i] = step{k, r.Uint32(), r.Uint32(), r.Uint32()}
	}
	return s, steps
}

// record is one record, as the model knows it.
type record struct {
	text     string
	newline  bool // one was written behind it
	file     *inode
	number   int
	era      *era
	offset   int64  // in its file, or in the copy that it is now in
	complete int    // number of the step after which its line was whole, 0 before
	at       *inode // where it can still be read; nil where nowhere

	came      int  // how often it came out
	place     int  // where it came first
	mayCut    bool // its line may have been ended although it was not
	mayLose   bool
	mayRepeat bool
	mayTear   bool // its file was truncated while a long line was under way
}

// era is what a file holds between two truncations.
type era struct {
	file    *inode
	begun   int  // number of the step
	unseen  bool // the truncation before it: a hole that is smaller than a block cannot be told from data
	records []*record
}

// inode is one file, whatever its names are.
type inode struct {
	id       int
	log      *log
	birth    int64
	names    []string
	size     int64
	era      *era // now
	readable bool
	handles  int // writers that have it open

	aside    bool // it has, or had, other names that are followed: its generations are not known by one name
	late     bool // it could not be read for a while
	known    bool // the sidecar has it open
	finished bool // it was quiet for so long that it was closed
	recorded bool // it is in the checkpoint
	seen     bool // the sidecar has seen bytes of this era
	ever     bool // or of any
	lost     bool // the sidecar cannot know of it any more
	cut      bool // to a part, and the sidecar has not seen that: what comes then may be taken for what was cut
	copyOf   *inode
	copied   []*record // what a copy holds
	lines    int       // how many of them in whole lines
	of       *era      // and of which era of its original
	partial  bool      // it is still being copied
	doubted  bool      // it may be taken for a file of its own
	parted   bool      // the sidecar was down after it was copied
}

// log is a name that an application logs to.
type log struct {
	name    string // of the file in the directory logs
	eras    []*era
	handle  *os.File
	to      *inode // that handle writes to
	serial  int
	copying *inode
	holder  *inode // newest generation that the sidecar knows
}

// world is a program that is being played.
type world struct {
	setting
	*sidecar
	dir     string
	app     string // directory of the container
	logs    [2]*log
	names   map[string]*inode // by path in app
	inodes  []*inode
	byText  map[string]*record
	byName  map[string]*record // FILE.NUMBER
	torn    map[string]bool    // pieces of records that may come
	budget  int64              // bytes that may be repeated
	spent   int64
	longest int64 // line that came out
	place   int
	step    int
	rested  bool // the sidecar came to rest in this life
	full    bool // the checkpoint's disk is
	dirty   bool // and was, in this life
	failed  bool // records could not be written, and no time has passed since
	unsure  bool // or in an earlier one, so that it cannot be told what the sidecar knows
	left    []byte
	trace   []string
	last    []string // lines of the output
}

func (w *world) tell(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%3d %s", w.step, fmt.Sprintf(format, args...)))
}

func (w *world) path(name string) string { return filepath.Join(w.app, name) }

// play plays a program in a new directory below base. state is a directory on a small file
// system for the checkpoint, or empty. The error says what is not as the model wants it.
func play(base, small string, events bool, s setting, steps []step) (w *world, err error) {
	dir, err := os.MkdirTemp(base, "play")
	must(err)
	must(os.Chmod(dir, 0o755))
	defer os.RemoveAll(dir)
	w = &world{setting: s, sidecar: newSidecar(dir, s.patterns...), dir: dir, names: map[string]*inode{}, byText: map[string]*record{}, torn: map[string]bool{}, byName: map[string]*record{}}
	w.events, w.pipe, w.user = events, s.piped, s.rights
	if small != "" {
		w.state, err = os.MkdirTemp(small, "play")
		must(err)
		must(os.Chmod(w.state, 0o777))
		defer os.RemoveAll(w.state)
	}
	w.app = filepath.Join(w.root, "app")
	must(os.MkdirAll(w.path("logs"), 0o755))
	must(os.MkdirAll(w.path("old"), 0o755))
	w.logs = [2]*log{{name: "a.log"}, {name: "b.log"}}
	defer func() {
		for _, l := range w.logs {
			w.closeHandle(l)
		}
		w.out.resume()
		w.end()
		w.out.close()
	}()
	w.start()
	for i, st := range steps {
		w.step = i + 1
		if err := w.do(st); err != nil {
			return w, err
		}
		if err := w.collect(); err != nil {
			return w, err
		}
	}
	w.step = len(steps) + 1
	return w, w.finish()
}

// do does one step.
func (w *world) do(st step) error {
	l := w.logs[st.a%uint32(len(w.logs))]
	if w.busy != nil {
		switch st.kind {
		case rest, term, start, overflow, pass, stall, resume:
			w.tell("resume")
			if err := w.wait(); err != nil {
				return fmt.Errorf("Sweep: %w", err)
			}
		}
	}
	switch st.kind {
	case write:
		n := 1 + int(st.b%4)
		fill := int(st.c>>8) % 60
		if st.c%16 == 0 {
			fill = int(st.c>>8) % 5000
		}
		return w.write(l, n, fill, st.c%5 != 0, st.c%7 == 0)
	case bulk:
		switch st.b % 8 {
		case 0, 1: // one long line
			return w.write(l, 1, 50_000+int(st.c%150_000), true, false)
		case 2, 3: // many short ones
			return w.write(l, 500, int(st.c%100), true, false)
		case 4: // more than one turn
			return w.write(l, 60+int(st.c%30), 15_000+int(st.c%15_000), st.c%5 != 0, false)
		default: // more than one block, and than the pipe holds
			return w.write(l, 20+int(st.c%30), 5_000+int(st.c%5_000), st.c%5 != 0, false)
		}
	case rest:
		idle := time.Duration(0)
		if st.b%4 == 0 {
			idle = 6 * time.Second
		}
		return w.rest(idle)
	case rotate:
		return w.rotate(l, st.b%3 == 0, st.c%3 == 0)
	case reopen:
		w.tell("reopen %s", l.name)
		w.closeHandle(l)
		if st.b%2 == 0 {
			w.open(l)
		}
	case copyFile:
		w.copy(l, st.b%3 == 0)
	case finishCopy:
		w.finishCopy(l)
	case truncate:
		if x := w.names["logs/"+l.name]; x != nil {
			w.finishCopy(l)
			w.truncate(x, 0)
		}
	case cut:
		if x := w.names["logs/"+l.name]; x != nil && len(x.era.records) > 1 && x.log != nil && w.whole(x) {
			if r := x.era.records[int(st.b)%len(x.era.records)]; r.newline {
				w.truncate(x, r.offset+int64(len(r.text))+1)
			}
		}
	case remove:
		w.unlink("logs/" + l.name)
		if st.b%2 == 0 {
			w.closeHandle(l)
		}
	case replace:
		return w.replace(l, int(st.b%5))
	case gzip:
		if name := w.rotated(l, st.b); name != "" {
			w.tell("gzip %s", name)
			must(os.WriteFile(w.path(name+".gz"), []byte("compressed\n"), 0o644))
			w.unlink(name)
		}
	case hardlink:
		name := fmt.Sprintf("logs/link%d.log", st.b%3)
		if x := w.names["logs/"+l.name]; x != nil && w.names[name] == nil {
			w.tell("link logs/%s %s", l.name, name)
			must(os.Link(w.path("logs/"+l.name), w.path(name)))
			x.names = append(x.names, name)
			x.aside = true
			w.names[name] = x
		} else if w.names[name] != nil {
			w.unlink(name)
		}
	case chmod:
		if x := w.names["logs/"+l.name]; x != nil && w.user != self {
			w.chmod(x, !x.readable)
		}
	case moveOut:
		if name := w.rotated(l, st.b); name != "" {
			to := fmt.Sprintf("old/%s-%d", path.Base(name), w.step)
			w.tell("mv %s %s", name, to)
			w.rename(name, to)
		}
	case moveDir:
		to := fmt.Sprintf("logs-%d", w.step)
		w.tell("mv logs %s; mkdir logs", to)
		must(os.Rename(w.path("logs"), w.path(to)))
		must(os.Mkdir(w.path("logs"), 0o755))
		for name, x := range w.names {
			if rest, ok := strings.CutPrefix(name, "logs/"); ok {
				delete(w.names, name)
				w.names[to+"/"+rest] = x
				x.names[slices.Index(x.names, name)] = to + "/" + rest
				x.aside = true
			}
		}
	case stall:
		if w.f != nil && w.piped {
			w.tell("stall")
			w.stall()
			w.forgotten()
		}
	case kill:
		return w.kill(st.b%3, st.c%2 == 0)
	case term:
		return w.term()
	case start:
		w.start()
	case overflow:
		if w.f != nil && w.watcher != nil {
			w.tell("overflow")
			w.watcher.lost = true
		}
	case fill:
		w.fill()
	case pass:
		if w.f != nil {
			w.tell("two minutes pass")
			if err := w.rest(0); err != nil {
				return err
			}
			time.Sleep(follow.StampAge) // so that later looks may rely on the directories' stamps
			w.now = w.now.Add(2 * time.Minute)
			if err := w.rest(6 * time.Second); err != nil {
				return err
			}
			for _, x := range w.inodes {
				if w.user == stranger && x.handles > 0 && !slices.ContainsFunc(x.names, w.matches) {
					x.known, x.finished = false, true
					w.gone(x) // quiet for long, and nobody tells its writers
				}
			}
			w.forgotten()
		}
	case tickClock:
		tick()
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const filling = "abcdefghijklmnopqrstuvwxyz0123456789"

// write writes n records of a log, each a line but for the last, which may stay unfinished,
// or be written in two goes.
func (w *world) write(l *log, n, fill int, finished, keep bool) error {
	x, f := l.to, l.handle
	if f == nil {
		if keep || w.ownOffset {
			w.open(l)
			x, f = l.to, l.handle
		} else {
			x = w.current(l)
			var err error
			f, err = os.OpenFile(w.path("logs/"+l.name), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
			must(err)
			defer f.Close()
		}
	}
	var b []byte
	at := x.size
	if w.ownOffset {
		pos, err := f.Seek(0, 1)
		must(err)
		at = pos
	}
	for i := range n {
		r := &record{file: x, number: len(w.byText), era: x.era, at: x, offset: at + int64(len(b)), newline: i < n-1 || finished}
		body := fmt.Sprintf("%d.%d:%s", x.id, r.number, strings.Repeat(filling, fill/len(filling)+1)[:fill])
		r.text = fmt.Sprintf("<%s#%08x>", body, crc32.Checksum([]byte(body), castagnoli))
		if len(x.era.records) > 0 {
			// A line that was cut may go on, as a line of its own.
			r.mayCut = false
		}
		w.byText[body], w.byName[fmt.Sprintf("%d.%d", x.id, r.number)] = r, r
		x.era.records = append(x.era.records, r)
		b = append(b, r.text...)
		if r.newline {
			b = append(b, '\n')
		}
		r.mayLose = x.lost || x.cut
	}
	if _, err := f.Write(b); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	x.size = at + int64(len(b))
	if finished {
		for _, r := range slices.Backward(x.era.records) {
			if r.complete > 0 {
				break
			}
			r.complete = w.step
		}
	} else if n > 1 {
		for _, r := range slices.Backward(x.era.records[:len(x.era.records)-1]) {
			if r.complete > 0 {
				break
			}
			r.complete = w.step
		}
	}
	w.tell("write %d records, %d bytes at %d to file %d (%s)%s", n, len(b), at, x.id, strings.Join(x.names, " "), map[bool]string{false: ", unfinished"}[finished])
	return nil
}

// current is the file that has a log's name; it is made where there is none.
func (w *world) current(l *log) *inode {
	name := "logs/" + l.name
	if x := w.names[name]; x != nil {
		return x
	}
	f, err := os.OpenFile(w.path(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	must(err)
	must(f.Chmod(0o644))
	f.Close()
	x := w.add(name, l)
	w.tell("create %s: file %d", name, x.id)
	return x
}

// add makes the model of a new file.
func (w *world) add(name string, l *log) *inode {
	x := &inode{id: len(w.inodes), log: l, birth: birth(w.path(name)), names: []string{name}, readable: true}
	x.era = &era{file: x, begun: w.step}
	if l != nil {
		l.eras = append(l.eras, x.era)
	}
	w.names[name] = x
	w.inodes = append(w.inodes, x)
	return x
}

// open lets a log's writer open its file and keep it open.
func (w *world) open(l *log) {
	w.closeHandle(l)
	x := w.current(l)
	flags := os.O_WRONLY | os.O_APPEND
	if w.ownOffset {
		flags = os.O_WRONLY
	}
	f, err := os.OpenFile(w.path("logs/"+l.name), flags, 0)
	must(err)
	_, err = f.Seek(x.size, 0)
	must(err)
	l.handle, l.to = f, x
	x.handles++
	w.tell("open file %d", x.id)
}

func (w *world) closeHandle(l *log) {
	if l.handle != nil {
		l.handle.Close()
		l.to.handles--
		l.handle, l.to = nil, nil
	}
}

// unlink takes a name away.
func (w *world) unlink(name string) {
	if w.names[name] == nil {
		return
	}
	w.tell("rm %s", name)
	must(os.Remove(w.path(name)))
	w.lose(name)
}

// lose notes that a name is gone.
func (w *world) lose(name string) {
	x := w.names[name]
	w.orphan(x)
	delete(w.names, name)
	x.names = slices.DeleteFunc(x.names, func(n string) bool { return n == name })
	if len(x.names) == 0 && !x.known {
		w.gone(x)
	}
}

// gone notes that the sidecar cannot read a file any more.
func (w *world) gone(x *inode) {
	x.lost = true
	w.orphan(x)
	for _, r := range w.byText {
		if r.at == x && r.came == 0 {
			r.mayLose = true
		}
	}
}

// orphan notes that nothing tells the copies of a file, which the sidecar did not meet
// while it could compare them, from files that nobody saw.
func (w *world) orphan(x *inode) {
	for _, c := range w.inodes {
		if c.copyOf == x && (x.lost || !c.known && (w.all || c.of != x.era)) {
			w.doubt(c)
		}
	}
}

// doubt notes that a copy may be taken for a file of its own.
func (w *world) doubt(c *inode) {
	c.doubted = true
	for _, r := range c.copied {
		r.mayRepeat, r.mayCut = true, true
	}
	for _, r := range c.of.records {
		if cut := c.size - r.offset; cut > 0 && cut < int64(len(r.text)) {
			w.torn[r.text[:cut]], w.torn[r.text[cut:]] = true, true // copied by half
		}
	}
}

func (w *world) rename(from, to string) {
	must(os.Rename(w.path(from), w.path(to)))
	if w.names[to] != nil {
		w.lose(to)
	}
	x := w.names[from]
	w.orphan(x)
	delete(w.names, from)
	w.names[to] = x
	x.names[slices.Index(x.names, from)] = to
}

// rotate renames a log and the generations before it.
func (w *world) rotate(l *log, letGo, create bool) error {
	name := "logs/" + l.name
	if w.names[name] == nil {
		return nil
	}
	w.tell("rotate %s", l.name)
	w.shift(l)
	w.rename(name, w.rotatedName(l))
	if letGo {
		w.closeHandle(l)
	}
	if create {
		w.current(l)
	}
	return nil
}

// shift makes room for the newest rotated name.
func (w *world) shift(l *log) {
	if w.dated {
		l.serial++
		return
	}
	for i := 3; i > 0; i-- {
		from := fmt.Sprintf("logs/%s.%d", l.name, i)
		if w.names[from] == nil {
			continue
		}
		if i == 3 {
			w.unlink(from)
		} else {
			w.rename(from, fmt.Sprintf("logs/%s.%d", l.name, i+1))
		}
	}
}

func (w *world) rotatedName(l *log) string {
	if w.dated {
		return fmt.Sprintf("logs/%s-202601%02d", l.name, l.serial)
	}
	return fmt.Sprintf("logs/%s.1", l.name)
}

// rotated picks a rotated file of a log.
func (w *world) rotated(l *log, n uint32) string {
	var names []string
	for name := range w.names {
		if rest, ok := strings.CutPrefix(name, "logs/"+l.name); ok && rest != "" {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	return names[int(n)%len(names)]
}

// copy begins, or does, the copy of a log that a truncation may follow.
func (w *world) copy(l *log, half bool) {
	x := w.names["logs/"+l.name]
	if x == nil || x.size == 0 || l.copying != nil {
		return
	}
	w.shift(l)
	to := w.rotatedName(l)
	b, err := os.ReadFile(w.path("logs/" + l.name))
	must(err)
	if half {
		b = b[:len(b)/2]
	}
	f, err := os.OpenFile(w.path(to), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	must(err)
	must(f.Chmod(0o644))
	_, err = f.Write(b)
	must(err)
	f.Close()
	c := w.add(to, nil)
	c.copyOf, c.of, c.size, c.partial = x, x.era, int64(len(b)), half
	w.tell("cp logs/%s %s: file %d of %d, %d bytes, born %v after it", l.name, to, c.id, x.id, len(b), time.Duration(c.birth-x.birth))
	w.copyHolds(c)
	if half {
		l.copying = c
	}
}

// copyHolds notes what a copy holds.
func (w *world) copyHolds(c *inode) {
	x := c.copyOf
	c.copied, c.lines = nil, 0
	for _, r := range x.era.records {
		if r.offset+int64(len(r.text)) > c.size {
			break
		}
		c.copied = append(c.copied, r)
		if r.complete > 0 && !c.partial {
			c.lines = len(c.copied)
		}
	}
	// Which of two that nobody saw is the original, births must tell, and only two that can
	// be read can be compared.
	if !x.known && (c.birth == x.birth || !x.readable) {
		w.doubt(c)
	}
}

// finishCopy copies the rest.
func (w *world) finishCopy(l *log) {
	c := l.copying
	l.copying = nil
	x := w.names["logs/"+l.name]
	if c == nil || len(c.names) == 0 || x != c.copyOf || x.size < c.size {
		return
	}
	b, err := os.ReadFile(w.path("logs/" + l.name))
	must(err)
	f, err := os.OpenFile(w.path(c.names[0]), os.O_WRONLY|os.O_APPEND, 0)
	must(err)
	_, err = f.Write(b[c.size:])
	must(err)
	f.Close()
	c.size, c.partial = int64(len(b)), false
	w.copyHolds(c)
	if c.doubted {
		w.doubt(c)
	}
	w.tell("copy the rest: file %d of %d, %d bytes", c.id, x.id, len(b))
}

// whole says whether all of a file was written since its truncation without a hole.
func (w *world) whole(x *inode) bool { return !w.ownOffset }

// truncate cuts a file.
func (w *world) truncate(x *inode, size int64) {
	w.tell("truncate file %d from %d to %d", x.id, x.size, size)
	must(os.Truncate(w.path(x.names[0]), size))
	if size >= x.size {
		return
	}
	for _, r := range x.era.records {
		r.mayTear = r.mayTear || w.busy != nil
	}
	if size > 0 {
		for _, c := range w.inodes {
			if c.copyOf == x {
				w.doubt(c)
			}
		}
		for _, l := range w.logs {
			if l.copying != nil && l.copying.copyOf == x {
				l.copying = nil // the program that copies has lost its place
			}
		}
		// The remaining lines may come again, and what is written before the sidecar has
		// seen the cut may be taken for them.
		for _, r := range x.era.records {
			if r.at != x {
				continue
			}
			if r.offset+int64(len(r.text)) >= size {
				w.destroy(x, r)
			} else {
				r.mayRepeat = true
			}
		}
		x.era.records = slices.DeleteFunc(x.era.records, func(r *record) bool { return r.offset+int64(len(r.text)) >= size })
		x.cut = true
	} else {
		delivered := int64(0)
		for _, r := range x.era.records {
			w.destroy(x, r)
			if r.came > 0 {
				delivered = r.offset + int64(len(r.text))
			}
		}
		for _, c := range w.inodes {
			// More than it holds may have been delivered before it was met.
			unmet := c.parted && c.size < delivered || w.busy != nil && !c.known && c.size < x.size
			if c.copyOf == x && c.of == x.era && (!x.seen || unmet) {
				w.doubt(c) // at most its head can be compared with what is known of the original
			}
		}
		x.era = &era{file: x, begun: w.step, unseen: !x.ever || x.era.unseen && !slices.ContainsFunc(x.era.records, func(r *record) bool { return r.came > 0 })}
		if x.log != nil {
			x.log.eras = append(x.log.eras, x.era)
		}
		x.seen = false
	}
	x.size = size
}

// destroy notes that a record is not in its file any more. It may be in a copy.
func (w *world) destroy(x *inode, r *record) {
	if r.at != x {
		return
	}
	r.at = nil
	if r.came > 0 {
		return
	}
	if x.seen && r.complete > 0 {
		for _, c := range w.inodes {
			if c.copyOf == x && slices.Contains(c.copied[:c.lines], r) && slices.ContainsFunc(c.names, func(n string) bool {
				return path.Dir(n) == "logs"
			}) && slices.ContainsFunc(x.names, func(n string) bool { return path.Dir(n) == "logs" }) {
				r.at = c
				return
			}
		}
	}
	r.mayLose = true
}

// replace puts a new file in the place of a log.
func (w *world) replace(l *log, n int) error {
	const tmp = "logs/.new"
	f, err := os.OpenFile(w.path(tmp), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	must(err)
	must(f.Chmod(0o644))
	f.Close()
	x := w.add(tmp, l)
	w.closeHandle(l)
	handle, err := os.OpenFile(w.path(tmp), os.O_WRONLY|os.O_APPEND, 0)
	must(err)
	l.handle, l.to = handle, x
	x.handles++
	if n > 0 {
		if err := w.write(l, n, 20, true, false); err != nil {
			return err
		}
	}
	w.closeHandle(l)
	w.tell("mv %s logs/%s", tmp, l.name)
	w.rename(tmp, "logs/"+l.name)
	return nil
}

func (w *world) chmod(x *inode, readable bool) {
	w.tell("chmod file %d readable=%v", x.id, readable)
	must(os.Chmod(w.path(x.names[0]), map[bool]os.FileMode{true: 0o644, false: 0}[readable]))
	x.readable, x.late = readable, true
}

// fill fills the disk of the checkpoint, or frees it.
func (w *world) fill() {
	if !strings.Contains(w.state, "/small/") {
		return
	}
	name := filepath.Join(w.state, "filling")
	if w.full {
		w.tell("free the checkpoint's disk")
		must(os.Remove(name))
		w.full = false
		return
	}
	w.tell("fill the checkpoint's disk")
	f, err := os.Create(name)
	must(err)
	defer f.Close()
	for b := make([]byte, 4096); err == nil; _, err = f.Write(b) {
	}
	w.full, w.dirty = true, true
}

// start starts the sidecar if it is down.
func (w *world) start() {
	if w.f != nil {
		return
	}
	w.tell("start")
	w.sidecar.start()
	w.rested = false
}

// stopped notes that the sidecar has no file open any more.
func (w *world) stopped() {
	for _, x := range w.inodes {
		x.known, x.parted = false, x.copyOf != nil
		if !x.recorded || w.dirty {
			x.seen, x.ever = false, false
			x.era.unseen = true // nobody knows any more that it was truncated
		}
		if len(x.names) == 0 {
			w.gone(x)
		}
	}
	for _, l := range w.logs {
		if l.holder != nil && !l.holder.recorded {
			l.holder = nil
		}
	}
	if w.dirty {
		// What was delivered while the checkpoint could not be written comes again.
		for _, r := range w.byText {
			r.mayRepeat = true
		}
		for _, c := range w.inodes {
			if c.copyOf != nil {
				w.doubt(c)
			}
		}
		w.unsure = true
		w.dirty = w.full
	}
}

func (w *world) kill(how uint32, torn bool) error {
	if w.f == nil {
		return nil
	}
	w.tell("kill, %d", how)
	stalled, midway := w.busy != nil, false
	before, err := os.ReadFile(w.checkpoint())
	must(err)
	if how == 1 && !stalled {
		w.now = w.now.Add(300 * time.Millisecond) // so that it looks
		if _, _, err := w.sweep(); err != nil {
			return fmt.Errorf("Sweep: %w", err)
		}
		w.looked()
		after, err := os.ReadFile(w.checkpoint())
		must(err)
		w.sidecar.kill()
		if !bytes.Equal(before, after) && w.loseLast(torn) {
			midway = true
		}
	} else {
		w.sidecar.kill()
		midway = stalled
	}
	if err := w.collect(); err != nil {
		return err
	}
	if midway {
		w.budget += max(64<<10, w.longest)
	}
	if len(w.left) > 0 {
		w.tell("a line was cut off after %d bytes", len(w.left))
		w.budget += int64(len(w.left))
		w.left = nil
	}
	w.stopped()
	return nil
}

func (w *world) term() error {
	if w.f == nil {
		return nil
	}
	w.tell("term")
	w.markCuts(true)
	for _, x := range w.inodes {
		if x.copyOf != nil && x.size < 256 {
			w.doubt(x) // a few bytes may well be the same in two logs: better twice than not at all
		}
	}
	w.looked()
	if err := w.drain(); err != nil {
		return fmt.Errorf("Drain: %w", err)
	}
	if err := w.collect(); err != nil {
		return err
	}
	if len(w.left) > 0 {
		return fmt.Errorf("the output ends within a line: %.100q", w.left)
	}
	err := w.check(func(x *inode, r *record) bool { return true })
	w.stopped()
	return err
}

// matches says whether a name is one that the sidecar follows.
func (w *world) matches(name string) bool {
	base := path.Base(name)
	if strings.HasPrefix(base, ".") || strings.HasSuffix(base, ".gz") {
		return false
	}
	for _, p := range w.patterns {
		p = strings.TrimPrefix(p, "app:/")
		dir := path.Dir(p)
		if ok, _ := path.Match(path.Base(p), base); ok && (dir == path.Dir(name) || dir == "**") {
			return true
		}
	}
	return false
}

// meet decides whether the sidecar knows of a file when it has looked around.
func (w *world) meet(x *inode) {
	if x.known {
		return
	}
	if x.finished && !slices.ContainsFunc(x.names, w.matches) {
		w.gone(x)
		return
	}
	within := slices.ContainsFunc(x.names, func(n string) bool { return path.Dir(n) == "logs" })
	switch {
	case x.readable && slices.ContainsFunc(x.names, w.matches):
	case x.readable && x.recorded && within && !w.rested:
		// It was followed, and has another name since the sidecar was down.
	case x.readable && within && x.copyOf == nil && w.missed(x):
	default:
		if !slices.ContainsFunc(x.names, w.matches) {
			w.gone(x)
		}
		return
	}
	x.known, x.lost = true, false
}

// missed says whether a file is a generation of a log that came and went unseen.
func (w *world) missed(x *inode) bool {
	l := x.log
	if l == nil || x.late {
		return false
	}
	now := w.names["logs/"+l.name]
	if l.holder == nil && w.unsure {
		return false
	}
	if l.holder == nil && (now == nil || now.aside || !now.readable) && !slices.Contains(w.patterns, "app:/logs/"+l.name) {
		return false // nothing tells the name
	}
	if l.holder != nil && (l.holder == now || l.holder.aside || x.birth < l.holder.birth) {
		return false
	}
	return slices.ContainsFunc(x.names, func(n string) bool {
		rest, ok := strings.CutPrefix(n, "logs/"+l.name)
		return ok && rest != "" && (rest[0] == '.' || rest[0] == '-')
	})
}

// looked notes what the sidecar knows when it has looked around.
func (w *world) looked() {
	for _, x := range w.inodes {
		w.meet(x)
	}
	for _, l := range w.logs {
		if x := w.names["logs/"+l.name]; x != nil && x.known {
			l.holder = x
		}
	}
	w.forgotten()
}

// forgotten notes that the sidecar has finished what is gone.
func (w *world) forgotten() {
	for _, l := range w.logs {
		if h := l.holder; h != nil && len(h.names) == 0 && (!h.known || h.handles == 0) {
			l.holder = nil
		}
	}
}

// rest lets the sidecar come to rest, and checks that all whole lines are out.
func (w *world) rest(idle time.Duration) error {
	if w.f == nil {
		return nil
	}
	w.tell("rest %v", idle)
	w.markCuts(false)
	w.looked()
	if err := w.sidecar.rest(idle); err != nil {
		return fmt.Errorf("Sweep: %w", err)
	}
	w.looked()
	w.rested = true
	if err := w.collect(); err != nil {
		return err
	}
	w.failed = w.full || w.failed && idle == 0
	for _, x := range w.inodes {
		if x.known {
			x.recorded = x.recorded || !w.full && (!w.failed || idle > 0)
			x.seen = x.seen || x.size > 0
			x.ever = x.ever || x.seen
			x.cut = false
		}
	}
	return w.check(func(x *inode, r *record) bool {
		// Events tell of what happens in the directory. For the rest time must pass.
		return r.complete > 0 && (idle > 0 || !x.aside && slices.ContainsFunc(x.names, func(n string) bool { return path.Dir(n) == "logs" }))
	})
}

// markCuts notes which unfinished lines the sidecar may end now: where nobody writes a file
// that has lost its name, or, at its own end, any file.
func (w *world) markCuts(ending bool) {
	for _, x := range w.inodes {
		if (ending || !slices.ContainsFunc(x.names, w.matches)) && (x.handles == 0 || w.user == stranger) {
			if n := len(x.era.records); n > 0 {
				x.era.records[n-1].mayCut = true
			}
		}
		if n := len(x.copied); n > 0 {
			x.copied[n-1].mayCut = true
		}
		if k := x.copyOf; k != nil && (!k.known && !k.readable || k.aside) {
			w.doubt(x) // it cannot be compared, or its name does not look like that of its original
		}
	}
}

// check checks that all records that must be out are out.
func (w *world) check(must func(*inode, *record) bool) error {
	for _, x := range w.inodes {
		for _, r := range slices.Concat(x.era.records, x.copied) {
			if r.at != x || r.came > 0 || r.mayLose || !(x.known || x.copyOf != nil) || !must(x, r) {
				continue
			}
			if r.complete == 0 && (x.handles > 0 || w.user == stranger || x.copyOf != nil || w.step == 0) {
				continue // unfinished
			}
			return fmt.Errorf("missing: record %d, %d bytes, at %d of file %d (%s), written %s", r.number, len(r.text), r.offset, x.id, strings.Join(x.names, " "), x.describe())
		}
	}
	return nil
}

func (x *inode) describe() string {
	return fmt.Sprintf("known=%v recorded=%v readable=%v size=%d", x.known, x.recorded, x.readable, x.size)
}

// collect takes what came out, and checks each line.
func (w *world) collect() error {
	w.markCuts(false)
	got := append(w.left, w.out.collect()...)
	for {
		i := bytes.IndexByte(got, '\n')
		if i < 0 {
			break
		}
		if err := w.line(string(got[:i])); err != nil {
			return err
		}
		got = got[i+1:]
	}
	w.left = bytes.Clone(got)
	return nil
}

// line checks one line of the output.
func (w *world) line(line string) error {
	w.last = append(w.last, line)
	if len(w.last) > 12 {
		w.last = w.last[1:]
	}
	w.longest = max(w.longest, int64(len(line)+1))
	if line == "" {
		return errors.New("an empty line, which nobody wrote")
	}
	var before *record
	holeless := strings.TrimLeft(line, "\x00")
	hole := len(line) - len(holeless)
	line = holeless
	for rest := line; rest != ""; {
		name, _, _ := strings.Cut(strings.TrimPrefix(rest, "<"), ":")
		if r := w.byName[name]; w.torn[rest] || r != nil && r.mayTear && len(rest) < len(r.text) && strings.HasPrefix(r.text, rest) {
			return nil
		}
		if rest[0] != '<' && before == nil {
			for piece := range w.torn {
				rest = strings.TrimPrefix(rest, piece)
			}
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
		r := w.byText[body]
		if r == nil {
			return fmt.Errorf("a record that nobody wrote: %.200q", body)
		}
		if hole > 0 && !r.mayLose && !r.mayRepeat && (!r.era.unseen || hole > 4096) {
			return fmt.Errorf("%d NULs before record %d of file %d", hole, r.number, r.file.id)
		}
		hole = 0
		w.place++
		if r.came++; r.came == 1 {
			r.place = w.place
		} else if !r.mayRepeat {
			w.spent += int64(len(r.text))
			if r.newline {
				w.spent++
			}
			if w.spent > w.budget {
				return fmt.Errorf("repeated: record %d of file %d, came %d times; %d bytes repeated, %d allowed", r.number, r.file.id, r.came, w.spent, w.budget)
			}
		}
		if before != nil && (before.file != r.file || before.era != r.era || before.newline || before.number > r.number) {
			return fmt.Errorf("one line of records that are not one line: %d of file %d, then %d of file %d", before.number, before.file.id, r.number, r.file.id)
		}
		before = r
	}
	if before == nil {
		return fmt.Errorf("a line of %d NULs", hole)
	}
	if !before.newline && !before.mayCut {
		return fmt.Errorf("an unfinished line was ended after record %d of file %d", before.number, before.file.id)
	}
	return nil
}

// finish ends a program: writers go, time passes, SIGTERM comes. Then all is out.
func (w *world) finish() error {
	w.tell("the end")
	if w.busy != nil {
		if err := w.wait(); err != nil {
			return fmt.Errorf("Sweep: %w", err)
		}
	}
	for _, l := range w.logs {
		w.finishCopy(l)
		w.closeHandle(l)
	}
	for _, x := range w.inodes {
		if !x.readable && len(x.names) > 0 {
			w.chmod(x, true)
		}
	}
	w.start()
	for range 2 {
		if err := w.rest(6 * time.Second); err != nil {
			return err
		}
		w.now = w.now.Add(2 * time.Minute)
	}
	if err := w.rest(6 * time.Second); err != nil {
		return err
	}
	followed := 0
	for _, x := range w.inodes {
		// A copy is held open as long as its original may be truncated.
		if slices.ContainsFunc(x.names, w.matches) || x.copyOf != nil && len(x.names) > 0 {
			followed++
		}
	}
	if open := openFiles(w.app); len(open) > followed {
		return fmt.Errorf("%d files are open, %d have a name that is followed: %s", len(open), followed, strings.Join(open, " "))
	}
	if err := w.term(); err != nil {
		return err
	}
	return w.order()
}

// order checks that the records of each file came in order, and each generation after the
// one before.
func (w *world) order() error {
	for _, l := range w.logs {
		var before []*record // of earlier eras
		for _, e := range l.eras {
			var last *record
			for _, r := range e.records {
				if r.came == 0 || r.mayRepeat {
					continue
				}
				if last != nil && r.place < last.place {
					return fmt.Errorf("out of order: record %d of file %d came before %d", r.number, r.file.id, last.number)
				}
				last = r
				for _, b := range before {
					if !w.all && !r.file.aside && !b.file.aside && !b.file.late && b.place > r.place && b.complete > 0 && !b.mayCut && b.complete < e.begun && (b.file == r.file || b.file.birth < r.file.birth) {
						return fmt.Errorf("out of order: record %d of the new generation, file %d, came before %d of file %d", r.number, r.file.id, b.number, b.file.id)
					}
				}
			}
			if last != nil {
				// The latest of an era stands for all of it: within it they are in order.
				for _, r := range slices.Backward(e.records) {
					if r.came > 0 && !r.mayRepeat && r.complete > 0 {
						before = append(before, r)
						break
					}
				}
			}
		}
	}
	return nil
}

// run plays the programs of the seeds from first on, and reports the first that fails,
// made as small as it can be made.
func run(t *testing.T, base, small string, events bool, first uint64, until func(played int) bool) {
	t.Helper()
	played := 0
	for ; !until(played); played++ {
		seed := first + uint64(played)
		s, steps := generate(seed)
		_, err := play(base, small, events, s, steps)
		if err != nil {
			report(t, base, small, events, seed, nil, err)
			return
		}
	}
	t.Logf("%d programs, seeds %d to %d", played, first, first+uint64(played)-1)
}

// report makes a failing program small, unless it is told which steps to keep, and tells it.
// failure is what was wrong the first time.
func report(t *testing.T, base, small string, events bool, seed uint64, keep []int, failure error) {
	t.Helper()
	s, all := generate(seed)
	if keep == nil {
		for i := range all {
			keep = append(keep, i)
		}
		keep = shrink(keep, func(keep []int) bool {
			_, err := play(base, small, events, s, pick(all, keep))
			return err != nil
		})
	}
	w, err := play(base, small, events, s, pick(all, keep))
	if err == nil {
		if failure != nil {
			t.Errorf("seed %d: %v\n\nIt did not fail when it was played again, so it depends on the time; MODEL=%d plays it", seed, failure, seed)
		}
		return
	}
	var which []string
	for _, i := range keep {
		which = append(which, strconv.Itoa(i))
	}
	var last []string
	for _, l := range w.last {
		last = append(last, short(l))
	}
	t.Errorf("%v\n\nreplay: MODEL=%d/%s go test -run '%s' ./sidecar/internal/follow\n\nsetting: %+v\n%s\n\nthe sidecar's words:\n%s\nlast lines of the output:\n%s",
		err, seed, strings.Join(which, ","), t.Name(), s, strings.Join(w.trace, "\n"), w.words.String(), strings.Join(last, "\n"))
}

func short(line string) string {
	if len(line) > 120 {
		return fmt.Sprintf("%s… (%d bytes)", line[:120], len(line))
	}
	return line
}

func pick(all []step, keep []int) (steps []step) {
	for _, i := range keep {
		if i < len(all) {
			steps = append(steps, all[i])
		}
	}
	return steps
}

// shrink takes steps away for as long as the program fails: first the end, then pieces.
// It gives up after a while, since a program may fail slowly.
func shrink(keep []int, fails func([]int) bool) []int {
	end := time.Now().Add(time.Minute)
	for n := (len(keep) + 1) / 2; n > 0 && time.Now().Before(end); {
		shorter := false
		for at := 0; at+n <= len(keep) && time.Now().Before(end); {
			less := slices.Concat(keep[:at], keep[at+n:])
			if fails(less) {
				keep, shorter = less, true
			} else {
				at += n
			}
		}
		if n == 1 && !shorter {
			break
		}
		n = max(1, n/2)
	}
	return keep
}

// replayed is the program that the environment variable MODEL asks for, SEED or
// SEED/STEP,STEP,….
func replayed(t *testing.T) (seed uint64, keep []int, ok bool) {
	v := os.Getenv("MODEL")
	if v == "" {
		return 0, nil, false
	}
	n, steps, _ := strings.Cut(v, "/")
	seed, err := strconv.ParseUint(n, 10, 64)
	if err != nil {
		t.Fatalf("MODEL=%s: write a seed, or SEED/STEP,STEP,…", v)
	}
	for part := range strings.SplitSeq(steps, ",") {
		if i, err := strconv.Atoi(part); err == nil {
			keep = append(keep, i)
		}
	}
	return seed, keep, true
}

// programs is how many programs TestModel plays on each file system, with events and with
// polling.
const programs = 350

// TestModel is row G of the list of scenarios.
func TestModel(t *testing.T) {
	eachPlace(t, places[:3], func(t *testing.T, dir, small string, events bool) {
		name := crc32.ChecksumIEEE([]byte(t.Name())) // other programs for each, but the same ones each time
		run(t, dir, small, events, uint64(name)<<32, func(played int) bool { return played >= programs })
	})
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
	eachPlace(t, places, func(t *testing.T, dir, small string, events bool) {
		end := time.Now().Add(share)
		name := crc32.ChecksumIEEE([]byte(t.Name())) // other programs for each
		run(t, dir, small, events, first^uint64(name)<<32, func(int) bool { return time.Now().After(end) })
	})
}

// eachPlace calls f for each file system, with events and with polling, or replays the one
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
				if seed, keep, ok := replayed(t); ok {
					report(t, dir, small, events, seed, keep, nil)
					return
				}
				f(t, dir, small, events)
			})
		}
	}
}
