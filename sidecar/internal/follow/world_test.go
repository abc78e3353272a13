package follow_test

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// world is the file system that a program acts on: two logs with their writers and rotations, and
// what is known of each file because it was done here. It knows nothing of the sidecar. Who wants to
// know what happens is a witness.
//
// A record is <FILE.NUMBER:filling#CHECKSUM>, with the number of the file (inode) that it was
// first written to. A line holds one or more records; an unfinished line none or
// more. So each piece of output tells where it belongs, and whether it is whole.
type world struct {
	setting
	witness witness
	app     string // directory of the container
	logs    [2]*log
	names   map[string]*inode // by path in app
	inodes  []*inode
	byText  map[string]*record
	byName  map[string]*record // FILE.NUMBER
	step    int
	trace   []string
}

// witness is told what happens in a world.
type witness interface {
	// wrote: a record was added to a file.
	wrote(x *inode, r *record)
	// renames: a file is about to have another name.
	renames(x *inode)
	// loses: a file is about to lose a name; lost: it has lost it.
	loses(x *inode)
	lost(x *inode)
	// copied: what a copy holds has changed; finished says that only its rest was added.
	copied(c *inode, finished bool)
	// cuts: a file is about to be cut to size, of more than nothing.
	cuts(x *inode, size int64)
	// shreds: what is in a file is about to be overwritten.
	shreds(x *inode)
	// empties: a file is about to be truncated; emptied: it was, and has a new era.
	empties(x *inode)
	emptied(x *inode, before *era)
}

// record is one record.
type record struct {
	text     string
	newline  bool // one was written after it
	file     *inode
	number   int
	era      *era
	offset   int64 // in its file
	nuls     int64 // that may come before it: space that was allocated and not written
	within   bool  // it was written into NULs, elsewhere than at their beginning
	complete int   // number of the step after which its line was whole, 0 before
}

// end is the offset of what follows a record's text.
func (r *record) end() int64 { return r.offset + int64(len(r.text)) }

// era is what a file holds between two truncations.
type era struct {
	file    *inode
	begun   int // number of the step
	records []*record
}

// inode is one file, whatever its names are.
type inode struct {
	id       int
	log      *log
	birth    int64
	names    []string
	size     int64
	data     int64 // end of what was written; what follows it reads as NULs
	era      *era  // now
	readable bool
	handles  int // writers that have it open

	allocated bool // there is, or was, space that is not written
	aside     bool // it has, or had, other names that are followed: its generations are not known by one name
	late      bool // it could not be read for a while

	copyOf  *inode
	copied  []*record // what a copy holds
	lines   int       // how many of them in whole lines
	of      *era      // and of which era of its original
	partial bool      // it is still being copied
}

// log is a name that an application logs to.
type log struct {
	name    string // of the file in the directory logs
	eras    []*era
	handle  *os.File
	to      *inode // that handle writes to
	serial  int    // of the last dated name
	out     int    // and of the last one in another directory
	copying *inode
}

func newWorld(app string, s setting) *world {
	w := &world{setting: s, app: app, names: map[string]*inode{}, byText: map[string]*record{}, byName: map[string]*record{}}
	must(os.MkdirAll(w.path("logs"), 0o755))
	must(os.MkdirAll(w.path("old"), 0o755))
	w.logs = [2]*log{{name: "a.log"}, {name: "b.log"}}
	return w
}

func (w *world) tell(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%3d %s", w.step, fmt.Sprintf(format, args...)))
}

func (w *world) path(name string) string { return filepath.Join(w.app, name) }

// path is a log's path in app.
func (l *log) path() string { return "logs/" + l.name }

// has says whether one of a file's names is directly in a directory.
func (x *inode) has(dir string) bool {
	return slices.ContainsFunc(x.names, func(n string) bool { return path.Dir(n) == dir })
}

// follows says whether one of a file's names is one that the sidecar follows.
func (w *world) follows(x *inode) bool { return slices.ContainsFunc(x.names, w.matches) }

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

// act does a step that is one of the world's.
func (w *world) act(st step) {
	l := w.logs[st.log]
	x := w.names[l.path()]
	switch st.kind {
	case write:
		w.write(l, st.n, st.size, !st.flags.has(unfinished), st.flags.has(keep))
	case rotate:
		w.rotate(l, st.flags.has(letGo), st.flags.has(create))
	case reopen:
		w.tell("reopen %s", l.name)
		w.closeHandle(l)
		if !st.flags.has(letGo) {
			w.open(l)
		}
	case copyFile:
		w.copy(l, st.flags.has(half))
	case finishCopy:
		w.finishCopy(l)
	case truncate:
		if x != nil {
			w.finishCopy(l)
			w.truncate(x, 0)
		}
	case cut:
		if x != nil && len(x.era.records) > 1 && x.log != nil && !w.ownOffset {
			if r := x.era.records[st.n%len(x.era.records)]; r.newline {
				w.truncate(x, r.end()+1)
			}
		}
	case remove:
		w.unlink(l.path())
		if st.flags.has(letGo) {
			w.closeHandle(l)
		}
	case replace:
		w.replace(l, st.n)
	case gzip:
		if name := w.rotated(l, st.n); name != "" {
			w.tell("gzip %s", name)
			must(os.WriteFile(w.path(name+".gz"), []byte("compressed\n"), 0o644))
			w.unlink(name)
		}
	case hardlink:
		w.link(l, fmt.Sprintf("logs/link%d.log", st.n))
	case chmod:
		if x != nil && w.rights != self {
			w.chmod(x, !x.readable)
		}
	case moveOut:
		if name := w.rotated(l, st.n); name != "" {
			to := fmt.Sprintf("old/%s-%d", path.Base(name), w.step)
			w.tell("mv %s %s", name, to)
			w.rename(name, to)
		}
	case moveDir:
		w.moveDir()
	case tickClock:
		tick()
	case allocate:
		w.allocate(l, int64(st.size), st.flags.has(keepSize))
	case sparse:
		w.extend(l, int64(st.size))
	case hugeHole:
		w.extend(l, 1<<42)
	case copyMore:
		w.copyRest(l, true)
	case copyAs:
		w.copyTo(l, fmt.Sprintf([]string{"logs/%s.bak", "logs/bak-%s", "logs/%s~", "logs/copy.%s"}[st.n%4], l.name), st.flags.has(half))
	case rotateOut:
		w.rotateOut(l, st.flags.has(letGo), st.flags.has(create))
	case foreign:
		w.foreign(l, st.n)
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const filling = "abcdefghijklmnopqrstuvwxyz0123456789"

// write writes n records of a log, each a line but for the last, which may stay unfinished.
func (w *world) write(l *log, n, fill int, finished, keep bool) {
	x, f := l.to, l.handle
	if f == nil {
		if keep || w.ownOffset {
			w.open(l)
			x, f = l.to, l.handle
		} else {
			x = w.current(l)
			var err error
			f, err = os.OpenFile(w.path(l.path()), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
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
	gap := int64(0)
	if x.allocated {
		gap = max(0, at-x.data)
	}
	for i := range n {
		r := &record{file: x, number: len(w.byText), era: x.era, offset: at + int64(len(b)), newline: i < n-1 || finished}
		if i == 0 {
			r.nuls = gap
		}
		r.within = at > x.data && at < x.size
		body := fmt.Sprintf("%d.%d:%s", x.id, r.number, strings.Repeat(filling, fill/len(filling)+1)[:fill])
		r.text = fmt.Sprintf("<%s#%08x>", body, crc32.Checksum([]byte(body), castagnoli))
		w.byText[body], w.byName[fmt.Sprintf("%d.%d", x.id, r.number)] = r, r
		x.era.records = append(x.era.records, r)
		b = append(b, r.text...)
		if r.newline {
			b = append(b, '\n')
		}
		w.witness.wrote(x, r)
	}
	_, err := f.Write(b)
	must(err)
	x.data = at + int64(len(b))
	x.size = max(x.size, x.data)
	whole := x.era.records
	if !finished {
		whole = whole[:len(whole)-1]
	}
	if finished || n > 1 {
		for _, r := range slices.Backward(whole) {
			if r.complete > 0 {
				break
			}
			r.complete = w.step
		}
	}
	w.tell("write %d records, %d bytes at %d to file %d (%s)%s", n, len(b), at, x.id, strings.Join(x.names, " "), map[bool]string{false: ", unfinished"}[finished])
}

// current is the file that has a log's name; it is made where there is none.
func (w *world) current(l *log) *inode {
	name := l.path()
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

// add notes a new file.
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
	f, err := os.OpenFile(w.path(l.path()), flags, 0)
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
	w.witness.loses(x)
	delete(w.names, name)
	x.names = slices.DeleteFunc(x.names, func(n string) bool { return n == name })
	w.witness.lost(x)
}

func (w *world) rename(from, to string) {
	must(os.Rename(w.path(from), w.path(to)))
	if w.names[to] != nil {
		w.lose(to)
	}
	x := w.names[from]
	w.witness.renames(x)
	delete(w.names, from)
	w.names[to] = x
	x.names[slices.Index(x.names, from)] = to
}

// link gives a log another name, or takes it away.
func (w *world) link(l *log, name string) {
	if x := w.names[l.path()]; x != nil && w.names[name] == nil {
		w.tell("link logs/%s %s", l.name, name)
		must(os.Link(w.path(l.path()), w.path(name)))
		x.names = append(x.names, name)
		x.aside = true
		w.names[name] = x
	} else if w.names[name] != nil {
		w.unlink(name)
	}
}

// moveDir moves the directory of the logs away and makes it again.
func (w *world) moveDir() {
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
}

// rotate renames a log and the generations before it.
func (w *world) rotate(l *log, letGo, create bool) {
	if w.names[l.path()] == nil {
		return
	}
	w.tell("rotate %s", l.name)
	w.shift(l)
	w.rename(l.path(), w.rotatedName(l))
	if letGo {
		w.closeHandle(l)
	}
	if create {
		w.current(l)
	}
}

// shift makes room for the newest rotated name.
func (w *world) shift(l *log) {
	if w.naming != byNumber {
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
	switch w.naming {
	case byDate:
		return fmt.Sprintf("logs/%s-202601%02d", l.name, l.serial)
	case byUnderscore:
		return fmt.Sprintf("logs/%s_202601%02d", l.name, l.serial)
	case byDigits:
		return fmt.Sprintf("logs/%s202601%02d", l.name, l.serial)
	}
	return fmt.Sprintf("logs/%s.1", l.name)
}

// rotateOut renames a log to a name in another directory.
func (w *world) rotateOut(l *log, letGo, create bool) {
	if w.names[l.path()] == nil {
		return
	}
	l.out++
	to := fmt.Sprintf("old/%s.%d", l.name, l.out)
	w.tell("mv %s %s", l.path(), to)
	w.rename(l.path(), to)
	if letGo {
		w.closeHandle(l)
	}
	if create {
		w.current(l)
	}
}

// largest is the size of the largest file that is copied.
const largest = 64 << 20

// allocate has the file system make room for what a log may hold.
func (w *world) allocate(l *log, n int64, keepSize bool) {
	x := w.names[l.path()]
	if x == nil || l.copying != nil || !x.readable || x.size > largest {
		return
	}
	f, err := os.OpenFile(w.path(l.path()), os.O_WRONLY, 0)
	must(err)
	defer f.Close()
	mode := uint32(0)
	if keepSize {
		mode = unix.FALLOC_FL_KEEP_SIZE
	}
	if err := unix.Fallocate(int(f.Fd()), mode, x.size, n); err != nil {
		w.tell("allocate %d bytes of file %d: %v", n, x.id, err)
		return
	}
	w.tell("allocate %d bytes of file %d after %d, keep size %v", n, x.id, x.size, keepSize)
	x.allocated = true // a writer may go there whatever the size is
	if !keepSize {
		x.size += n
	}
}

// extend leaves a hole at the end of a log.
func (w *world) extend(l *log, n int64) {
	x := w.names[l.path()]
	if x == nil || l.copying != nil || x.size > largest {
		return
	}
	w.tell("extend file %d from %d by a hole of %d", x.id, x.size, n)
	must(os.Truncate(w.path(l.path()), x.size+n))
	x.size += n
	x.allocated = true
}

// shred overwrites a rotated file and then removes it. between is called before it is removed.
func (w *world) shred(l *log, n int, between func() error) error {
	name := w.rotated(l, n)
	x := w.names[name]
	if x == nil || x.handles > 0 || len(x.names) > 1 || x.size > largest || l.copying == x {
		return nil
	}
	w.tell("shred %s: file %d, %d bytes", name, x.id, x.size)
	w.witness.shreds(x)
	// A line now and then, as random bytes have.
	garbage := bytes.Repeat([]byte("garbage, garbage\x00\xff\n"), int(x.size)/10+1)
	f, err := os.OpenFile(w.path(name), os.O_WRONLY, 0)
	must(err)
	_, err = f.Write(garbage[:x.size])
	must(err)
	f.Close()
	if err := between(); err != nil {
		return err
	}
	w.unlink(name)
	return nil
}

// foreign makes, beside a log, a file that is none of its generations, although it is called like one.
func (w *world) foreign(l *log, n int) {
	old := w.rotated(l, n)
	text := "foreign\n"
	name := l.path() + ".csv" // another log of the application
	switch n {
	case 1:
		name = l.path() + ".1.sha256"
	case 2: // compressed, which its first bytes say
		name, text = l.path()+".2.lzo", "\x89LZO\x00\r\n\x1a\nforeign\n"
	case 3: // an old generation, unpacked by somebody who wants to read it
		x := w.names[old]
		if x == nil || x.size == 0 || x.size > largest {
			return
		}
		b, err := os.ReadFile(w.path(old))
		must(err)
		name, text = l.path()+".2-unpacked", string(b)
	}
	if w.matches(name) || w.names[name] != nil {
		return
	}
	w.tell("write to %s, which is foreign", name)
	flags := os.O_WRONLY | os.O_CREATE | os.O_APPEND
	if n == 3 {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(w.path(name), flags, 0o644)
	must(err)
	defer f.Close()
	_, err = f.WriteString(text)
	must(err)
}

// swap puts another directory, or a link, in the place of the directory of the logs, and that back in its
// place. between is called while it is away.
func (w *world) swap(n int, between func() error) error {
	logs, away, other := w.path("logs"), w.path("away"), w.path("other")
	w.tell("swap logs, %d", n)
	for _, x := range w.inodes {
		x.aside = x.aside || x.has("logs")
	}
	switch n {
	case 0: // made again and removed
		must(os.Mkdir(other, 0o755))
		must(os.Rename(logs, away))
		must(os.Rename(other, logs))
	case 1: // a link to it
		must(os.Rename(logs, away))
		must(os.Symlink("away", logs))
	case 2, 3: // a link out of the container
		out := filepath.Join(filepath.Dir(filepath.Dir(w.app)), "secret")
		must(os.MkdirAll(out, 0o755))
		for _, name := range []string{"a.log", "b.log", "a.log.1", "b.log.1"} {
			must(os.WriteFile(filepath.Join(out, name), []byte("secret\nsecret\n"), 0o644))
		}
		to := "../../secret"
		if n == 3 {
			to = out
		}
		must(os.Rename(logs, away))
		must(os.Symlink(to, logs))
	}
	err := between()
	must(os.RemoveAll(logs))
	must(os.Rename(away, logs))
	return err
}

// rotated picks a rotated file of a log.
func (w *world) rotated(l *log, n int) string {
	var names []string
	for name := range w.names {
		if rest, ok := strings.CutPrefix(name, l.path()); ok && rest != "" {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	return names[n%len(names)]
}

// copy begins, or does, the copy of a log that a truncation may follow.
func (w *world) copy(l *log, half bool) {
	if w.mayCopy(l, half) {
		w.shift(l)
		w.copyTo(l, w.rotatedName(l), half)
	}
}

func (w *world) mayCopy(l *log, half bool) bool {
	x := w.names[l.path()]
	return x != nil && x.size > 0 && x.size <= largest && l.copying == nil && !(half && x.size > x.data)
}

func (w *world) copyTo(l *log, to string, half bool) {
	if !w.mayCopy(l, half) || w.names[to] != nil {
		return
	}
	x := w.names[l.path()]
	b, err := os.ReadFile(w.path(l.path()))
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
	c.copyOf, c.of, c.size, c.data, c.partial = x, x.era, int64(len(b)), min(x.data, int64(len(b))), half
	w.tell("cp logs/%s %s: file %d of %d, %d bytes, born %v after it", l.name, to, c.id, x.id, len(b), time.Duration(c.birth-x.birth))
	w.copyHolds(c, false)
	if half {
		l.copying = c
	}
}

// copyHolds notes what a copy holds.
func (w *world) copyHolds(c *inode, finished bool) {
	c.copied, c.lines = nil, 0
	for _, r := range c.copyOf.era.records {
		if r.end() > c.data {
			break
		}
		c.copied = append(c.copied, r)
		if r.complete > 0 && !c.partial {
			c.lines = len(c.copied)
		}
	}
	w.witness.copied(c, finished)
}

// finishCopy copies the rest.
func (w *world) finishCopy(l *log) { w.copyRest(l, false) }

// copyRest copies the rest, or half of it.
func (w *world) copyRest(l *log, half bool) {
	c := l.copying
	l.copying = nil
	x := w.names[l.path()]
	if c == nil || len(c.names) == 0 || x != c.copyOf || x.size < c.size {
		return
	}
	b, err := os.ReadFile(w.path(l.path()))
	must(err)
	if half {
		b = b[:(c.size+x.size)/2]
		l.copying = c
	}
	f, err := os.OpenFile(w.path(c.names[0]), os.O_WRONLY|os.O_APPEND, 0)
	must(err)
	_, err = f.Write(b[c.size:])
	must(err)
	f.Close()
	c.size, c.data, c.partial = int64(len(b)), int64(len(b)), half
	w.copyHolds(c, true)
	w.tell("copy the rest: file %d of %d, %d bytes", c.id, x.id, len(b))
}

// truncate cuts a file.
func (w *world) truncate(x *inode, size int64) {
	w.tell("truncate file %d from %d to %d", x.id, x.size, size)
	must(os.Truncate(w.path(x.names[0]), size))
	if size >= x.size {
		return
	}
	if size > 0 {
		for _, l := range w.logs {
			if l.copying != nil && l.copying.copyOf == x {
				l.copying = nil // the program that copies has lost its place
			}
		}
		w.witness.cuts(x, size)
		x.era.records = slices.DeleteFunc(x.era.records, func(r *record) bool { return r.end() >= size })
	} else {
		w.witness.empties(x)
		before := x.era
		x.era = &era{file: x, begun: w.step}
		if x.log != nil {
			x.log.eras = append(x.log.eras, x.era)
		}
		w.witness.emptied(x, before)
	}
	x.size, x.data = size, size
	x.allocated = x.allocated && size > 0
}

// replace puts a new file in the place of a log.
func (w *world) replace(l *log, n int) {
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
		w.write(l, n, 20, true, false)
	}
	w.closeHandle(l)
	w.tell("mv %s %s", tmp, l.path())
	w.rename(tmp, l.path())
}

func (w *world) chmod(x *inode, readable bool) {
	w.tell("chmod file %d readable=%v", x.id, readable)
	must(os.Chmod(w.path(x.names[0]), map[bool]os.FileMode{true: 0o644, false: 0}[readable]))
	x.readable, x.late = readable, true
}

// birth is when a file was born, in ns.
func birth(name string) int64 {
	var st unix.Statx_t
	must(unix.Statx(unix.AT_FDCWD, name, 0, unix.STATX_BTIME, &st))
	return st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
}

// tick waits until the kernel's clock for file times is ahead of all stamps that it gave.
func tick() {
	var begun, now unix.Timespec
	must(unix.ClockGettime(unix.CLOCK_REALTIME, &begun)) // finer stamps are given, too
	for now.Nano() <= begun.Nano() {
		time.Sleep(100 * time.Microsecond)
		must(unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now))
	}
}
