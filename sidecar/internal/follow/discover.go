package follow

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/sidecar/internal/checkpoint"
	"github.com/log-bridge/log-bridge/sidecar/internal/tree"
	"golang.org/x/sys/unix"
)

// look finds the files that the sources match now, opens new ones, notes which lost
// their name, and watches the directories. Where nothing tells that the last look would
// find anything else now, it is not made again.
func (f *Follower) look(now time.Time) {
	f.lastLook = now
	if !f.stale && f.settled && now.Sub(f.lastFullLook) < fullLookEvery && f.dirsAreAsBefore() {
		f.order()
		return
	}
	asked := f.stale // by an event, or at the start
	f.stale, f.crowded, f.young, f.lastFullLook = false, false, false, now
	for again := true; again; {
		f.round++
		f.settled, f.young = true, false
		clear(f.alias)
		f.refused = 0
		begun := time.Now()
		f.begun, f.wasHidden = begun.UnixNano(), f.hidden
		for name, d := range f.dirs {
			d.before, d.beforeAll = d.found.changed, d.at-d.found.changed >= int64(d.found.age())
			was := d.found.inode
			d.found, d.at = stampOf(name), f.begun // before it is listed, lest a change in between go unseen
			if d.found.inode != was {
				d.before, d.beforeAll = 0, false // that look listed another directory
			}
		}
		holder := f.holders()
		for i := range f.sources {
			src := &f.sources[i]
			found := src.tree.Glob(src.Pattern, func(n tree.Node) { f.found(src, n, holder, now) })
			for _, err := range found.Errs {
				if errors.Is(err, unix.EMFILE) {
					f.limit = max(16, len(f.open)-4)
					f.makeRoom()
					f.settled, f.crowded = false, true
					continue
				}
				f.sayFound(src, err)
			}
			f.settled = f.settled && !found.Linked
			for name, node := range found.Dirs {
				if f.dirs[name] == nil {
					f.dirs[name] = &dir{}
				}
				f.dirs[name].node, f.dirs[name].round = node, f.round
			}
		}
		for _, x := range f.open {
			if x.named && x.round != f.round {
				f.lostName(x, now)
			}
		}
		if lost := f.lostParked(); lost || f.hidden || f.closed != nil && !f.looked || len(f.closed) >= f.forgetAt {
			f.findRotated(now)
		}
		f.findMissed(f.gaps(holder), now)
		f.order()
		// A file made after the look and before the watch would be missed.
		again = f.watch()
		f.settled = f.settled && !f.hidden && f.dirsTell(begun)
	}
	f.young = f.young && asked
	// What was made until now is told by what is found; the clock that dates files is late by a tick.
	if !slices.ContainsFunc(f.open, func(x *file) bool { return x.unkept }) {
		_ = f.store.SeenAt(f.begun - int64(stampAge))
	}
	f.looked = true
	if f.first {
		f.first = false
		f.dirty = true
	}
}

// dir is a directory in which the sources were looked for.
type dir struct {
	node  tree.Node
	found stamp // what it was at the last look
	at    int64 // when that look began, in ns since 1970
	// before is when it had last changed at the look before that, 0 if there was none; what has that time of
	// birth was there already if beforeAll.
	before    int64
	beforeAll bool
	watched   stamp  // what it was when a watch was asked for; none: it has no watch
	round     uint64 // number of the last look that came by
}

// A stamp is another one when anything was made, removed or renamed in a directory, or when
// the path leads to another directory.
type stamp struct {
	inode
	changed int64 // change time (st_ctim) in ns since 1970
}

// stampOf is the stamp of a directory, or of the one that a link leads to; none if it cannot be had. It only
// tells that something changed: what is listed and opened then is reached without following links.
func stampOf(name string) stamp {
	var st unix.Stat_t
	if unix.Stat(name, &st) != nil {
		return stamp{}
	}
	return stamp{inode{uint64(st.Dev), st.Ino}, st.Ctim.Nano()} //nolint:unconvert // Dev is 32 bits wide on some architectures
}

func (f *Follower) dirsAreAsBefore() bool {
	for name, d := range f.dirs {
		if stampOf(name) != d.found {
			return false
		}
	}
	return true
}

// dirsTell says whether the stamps that a look took will be others after any change since. begun is
// when it took them, by the wall clock.
func (f *Follower) dirsTell(begun time.Time) bool {
	for name, d := range f.dirs {
		if d.found == (stamp{}) || begun.UnixNano()-d.found.changed < int64(d.found.age()) {
			f.young = true
			return false
		}
		if !tellsChanges(name) {
			return false
		}
	}
	return true
}

// age is the age from which on a stamp tells.
func (s stamp) age() time.Duration {
	if s.changed%1e9 == 0 {
		return coarseStampAge
	}
	return stampAge
}

// found takes note of a match.
func (f *Follower) found(src *source, n tree.Node, holder map[contract.Place]*file, now time.Time) {
	if !n.IsRegular() {
		if n.Mode&unix.S_IFMT != unix.S_IFDIR || !src.IsGlob() {
			about := src.Container + ":" + n.Path
			f.say.Once(about, "%s is %s, not a file; it is not followed", about, n.Kind())
		}
		return
	}
	if x := f.inode[inode{n.Dev, n.Ino}]; x != nil {
		f.known(x, src, n)
		return
	}
	if f.stillParked(n) {
		f.settled = false
		return
	}
	f.makeRoom()
	fd, opened, err := n.Open()
	if errors.Is(err, unix.EMFILE) {
		// The rest of the program has more descriptors than was thought. Some are for looking into
		// directories.
		f.limit = max(16, len(f.open)-4)
		f.makeRoom()
		fd, opened, err = n.Open()
	}
	if errors.Is(err, unix.EMFILE) {
		f.settled, f.crowded = false, true
		f.say.Once("descriptors", "there are more files than the %d that log-bridge may have open; the others wait until those are delivered", f.limit)
		return
	}
	place := contract.Place{Container: src.Container, Path: n.Path}
	about := place.String()
	if errors.Is(err, fs.ErrPermission) {
		f.settled = false
		f.refused++
		if !f.lasts(about) {
			return
		}
		remedy := fmt.Sprintf("The annotation %s: \"%d\" would make log-bridge run as that user", contract.Prefix+contract.KeyRunAsUser, n.Uid)
		if n.Uid == 0 {
			remedy = "Let the application make it readable for others (umask 022)"
		}
		f.say.Once(about, "%s has mode %04o and belongs to user %d, so user %d, which log-bridge runs as, cannot read it; it is tried again. %s",
			about, n.Mode&0o7777, n.Uid, os.Getuid(), remedy)
		return
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) {
		f.settled = false // renamed, deleted or replaced since it was found, which the next look sees
		return
	}
	if err != nil {
		f.sayFound(src, err)
		return
	}
	f.say.Forget(about)
	delete(f.denied, about)
	// Another file may have got the name since: what is followed is what was opened.
	if opened.Dev != n.Dev || opened.Ino != n.Ino {
		f.settled = false
	}
	n = opened
	if x := f.inode[inode{n.Dev, n.Ino}]; x != nil {
		unix.Close(fd)
		f.known(x, src, n)
		return
	}
	x, err := f.take(src, n, fd)
	if err != nil {
		unix.Close(fd)
		f.sayFound(src, err)
		return
	}
	if x == nil {
		f.settled = false // its writer may go on
		unix.Close(fd)
		return
	}
	x.grew = now
	if old := holder[place]; old != nil && old != x {
		f.stats.Rotations++
	}
	f.name(x, src, n)
}

// known notes that a look found an open file as n.
func (f *Follower) known(x *file, src *source, n tree.Node) {
	if x.round == f.round {
		f.alias[n.Real] = x // another name of a file that this look already found
		return
	}
	f.name(x, src, n)
}

// name gives an open file the name by which a look found it.
func (f *Follower) name(x *file, src *source, n tree.Node) {
	x.round = f.round
	if x.named && x.node.Real == n.Real && x.Path == n.Path {
		return
	}
	if f.real[x.node.Real] == x {
		delete(f.real, x.node.Real)
	}
	moved := x.Path != n.Path
	if x.node.Real != n.Real {
		x.ready = true // events until now may have told of a name that nobody knew
	}
	x.named, x.node = true, n
	f.real[n.Real] = x
	if x.Flags&checkpoint.Copy != 0 {
		return // its lines are those of its original
	}
	x.src, x.Container, x.Path = src, src.Container, n.Path
	x.moved = x.moved || moved && x.Offset > 0
	if moved && x.Offset > 0 {
		f.keep(x)
	}
}

// take makes an open descriptor a followed file: one that is known from before, or
// a new one. It returns nil where the file is finished and has nothing new.
func (f *Follower) take(src *source, n tree.Node, fd int) (*file, error) {
	id, err := ident(fd)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.Path, err)
	}
	var x *file
	for i, c := range f.closed {
		if c.Same(id) {
			if c.Flags&checkpoint.Done != 0 {
				var st unix.Stat_t
				if unix.Fstat(fd, &st) == nil && st.Size == c.Offset {
					return nil, nil
				}
				c.Flags &^= checkpoint.Done
			}
			x = c
			f.closed = slices.Delete(f.closed, i, i+1)
			break
		}
	}
	if x == nil {
		x = &file{pair: f.store.Alloc()}
		if src.stderr {
			x.Flags |= checkpoint.Stderr
		}
		x.fd = fd
		if f.first && f.outlives(n.Real) {
			if err := f.startAtEnd(x); err != nil {
				return nil, fmt.Errorf("%s: %w", n.Path, err)
			}
		} else if err := f.startAfterSeed(x, src, n, id); err != nil {
			return nil, fmt.Errorf("%s: %w", n.Path, err)
		}
		if x.Offset == 0 {
			// Known before anything is delivered, to recognize a copy made until then.
			x.Head = make([]byte, checkpoint.Window)
			m, err := x.pread(x.Head, 0)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", n.Path, err)
			}
			x.Head = bytes.TrimRight(x.Head[:m], "\x00")
		}
	}
	x.Ident, x.src, x.node = id, src, n
	x.Container, x.Path = src.Container, n.Path
	f.opened(x, fd, inode{n.Dev, n.Ino})
	f.keep(x)
	return x, nil
}

// outlives says whether a file is on a volume that outlives the pod.
func (f *Follower) outlives(real string) bool {
	return slices.ContainsFunc(f.cfg.FromEnd, func(dir string) bool { return contract.Covers(dir, real) })
}

// startAfterSeed sets the offset of a new file behind what was copied into it from
// the image: that is no log of this pod.
func (f *Follower) startAfterSeed(x *file, src *source, n tree.Node, id checkpoint.Ident) error {
	if !slices.ContainsFunc(f.cfg.Seeded, func(p contract.Place) bool {
		return p.Container == src.Container && contract.Covers(filepath.Join(f.cfg.Roots[0], p.Container, p.Path), n.Real)
	}) {
		return nil
	}
	seeded, ok := f.seeded.Of(f.cfg.Roots[0], src.Container, id.Ino)
	if !ok || !seeded.Is(x) {
		return nil
	}
	x.Offset = seeded.Size
	return f.startsHere(x)
}

// startAtEnd lets a file be followed from its end as it is now. Where its last whole line ends is looked
// for when it is served.
func (f *Follower) startAtEnd(x *file) error {
	st, err := x.stat()
	if err != nil {
		return err
	}
	x.Offset, x.startBefore = st.Size, st.Size
	return f.startsHere(x)
}

// startsHere reads the head and the anchor of a file that is followed from Offset.
func (f *Follower) startsHere(x *file) error {
	x.Began = x.Offset
	x.Head = make([]byte, min(checkpoint.Window, x.Offset))
	if _, err := x.pread(x.Head, 0); err != nil {
		return err
	}
	return f.anchorAt(x)
}

// lasts says whether something may not be read for longer than a moment: an application may make a file and then give it
// its mode.
func (f *Follower) lasts(about string) bool {
	const moment, most = time.Second, 1000
	since, ok := f.denied[about]
	if !ok {
		if len(f.denied) >= most {
			clear(f.denied)
		}
		f.denied[about] = f.lastLook
		return false
	}
	return f.lastLook.Sub(since) >= moment
}

// sayFound says, once, why something that a source names is not followed.
func (f *Follower) sayFound(src *source, err error) {
	f.settled = false
	var link *tree.LinkError
	var at *os.PathError
	switch {
	case errors.As(err, &link):
		f.say.Once(src.Container+":"+link.Path, "%s:%v", src.Container, err)
	case errors.Is(err, fs.ErrPermission) && errors.As(err, &at):
		f.refused++
		if !f.lasts(src.Container + ":" + at.Path) {
			return
		}
		f.say.Once(src.Container+":"+at.Path, "%s:%s cannot be searched by user %d, which log-bridge runs as (permission denied); it is tried again. The annotation %s sets that user",
			src.Container, at.Path, os.Getuid(), contract.Prefix+contract.KeyRunAsUser)
	case errors.As(err, &at):
		f.say.Once(src.Container+":"+at.Path, "%s:%s: %v; it is tried again", src.Container, at.Path, at.Err)
	default:
		f.say.Once(src.Container+":"+err.Error(), "%s:%v", src.Container, err)
	}
}

// watch makes the watched directories be those that this look came by. It says whether a watch is new.
func (f *Follower) watch() (added bool) {
	f.polled = f.watcher == nil
	for name, d := range f.dirs {
		if d.round != f.round {
			if d.watched != (stamp{}) {
				_ = f.watcher.Remove(name) // it may have gone with its directory
			}
			delete(f.dirs, name)
			continue
		}
		if f.watcher == nil {
			continue
		}
		at := stampOf(name)
		if at == d.watched && at != (stamp{}) {
			continue
		}
		// A directory that was removed, or moved away and back, has lost its watch, and
		// another stamp, so each that has one is added again; where there is a watch this does
		// nothing.
		if !tellsChanges(name) {
			f.polled = true
			continue
		}
		if err := f.watcher.Add(name); err != nil {
			f.polled = true
			if errors.Is(err, unix.ENOSPC) {
				f.say.Once("watches", "user %d has no inotify watch left on this node; files are polled as well, so lines come up to a second later. The sysctl fs.inotify.max_user_watches of the node is how many each user has", os.Getuid())
			}
			continue
		}
		added = added || at.inode != d.watched.inode
		d.watched = at
	}
	return added
}

// tellsChanges says whether the kernel tells of every change in a directory, and stamps it: not on
// network file systems, where others write.
func tellsChanges(dir string) bool {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return false
	}
	switch uint32(st.Type) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.OVERLAYFS_SUPER_MAGIC,
		unix.F2FS_SUPER_MAGIC, unix.RAMFS_MAGIC, 0x2fc12fc1 /* zfs */, 0xca451a4e /* bcachefs */ :
		return true
	}
	return false
}

// isGeneration says whether a rotation may have given name to an earlier generation of base: it is the name with
// something appended, but neither that of a compressed file nor of one of the small files that programs keep beside a log.
func isGeneration(base, name string) bool {
	rest, ok := strings.CutPrefix(name, base)
	if !ok || rest == "" || !strings.ContainsRune(".-_0123456789", rune(rest[0])) || tree.Compressed(name) {
		return false
	}
	switch rest {
	case ".lck", ".lock", ".pid", ".tmp", ".swp", ".part", ".pos", ".offset", ".idx":
		return false
	}
	return true
}

// madeOf is the name of which a name may be the checksum, the signature or the compressed form: that without a last
// part that is a word, such as app.log.1 for app.log.1.sha256. It is empty where there is no such part.
func madeOf(name string) string {
	i := strings.LastIndexByte(name, '.')
	if i <= 0 || i+1 == len(name) || name[i+1] >= '0' && name[i+1] <= '9' {
		return ""
	}
	return name[:i]
}

// isPacked says whether content is that of a compressed file, by its first bytes.
func isPacked(head []byte) bool {
	for _, magic := range []string{
		"\x1f\x8b", "\x1f\x9d", "BZh", "\xfd7zXZ\x00", "\x28\xb5\x2f\xfd", "\x04\x22\x4d\x18", "\x5d\x00\x00", "LZIP", "\x89LZO\x00",
		"PK\x03\x04", "7z\xbc\xaf\x27\x1c", "LRZI", "\xff\x06\x00\x00sNaPpY",
	} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return true
		}
	}
	return false
}

// byAge compares the names of generations: the older one comes first, as far as names tell.
func byAge(a, b string) int {
	if i, j := counter(a), counter(b); i >= 0 && j >= 0 {
		return cmp.Compare(j, i)
	}
	return cmp.Compare(a, b)
}

// counter is the number at the end of app.log.2, which counts rotations, -1 for other
// names: app.log-20260102 or app.log.20260102 ends with a date.
func counter(name string) int {
	digits := name[strings.LastIndexByte(name, '.')+1:]
	n, err := strconv.Atoi(digits)
	if err != nil || n < 0 || len(digits) > 4 {
		return -1
	}
	return n
}
