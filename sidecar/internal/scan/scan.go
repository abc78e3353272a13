// Package scan finds the files that patterns match, and what tells that a scan may find something else.
//
// In come patterns, and a Watcher; out come the matches and the faults of each scan, one at a time, and its Result. A
// Scanner knows nothing of what is in a file.
package scan

import (
	"errors"
	"slices"
	"time"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/sidecar/internal/tree"
	"golang.org/x/sys/unix"
)

// Watcher asks for events of the directories it is given, by their names. Package notify has one.
type Watcher interface {
	Add(dir string) error
	Remove(dir string) error
}

// Source is a pattern to find files by.
type Source struct {
	contract.Entry
	Stderr bool
	Tree   *tree.Tree
}

// Scanner scans. Use it from one goroutine.
type Scanner struct {
	sources []Source
	watcher Watcher // nil: no events
	dirs    map[string]*dir
	was     map[string]inode // the directories that paths led to before
	round   uint64           // number of the scan
}

// New makes a Scanner of a configuration.
func New(c contract.Config, w Watcher) *Scanner {
	s := &Scanner{watcher: w, dirs: map[string]*dir{}, was: map[string]inode{}}
	trees := map[string]*tree.Tree{}
	add := func(entries []contract.Entry, stderr bool) {
		for _, e := range entries {
			if trees[e.Container] == nil {
				trees[e.Container] = tree.New(e.Container, c)
			}
			s.sources = append(s.sources, Source{Entry: e, Stderr: stderr, Tree: trees[e.Container]})
		}
	}
	add(c.Stdout, false)
	add(c.Stderr, true)
	return s
}

// Sources are the patterns.
func (s *Scanner) Sources() []Source { return s.sources }

// SourceOf is a pattern of a container, or nil.
func (s *Scanner) SourceOf(container string) *Source {
	i := slices.IndexFunc(s.sources, func(src Source) bool { return src.Container == container })
	if i < 0 {
		return nil
	}
	return &s.sources[i]
}

// Result is what a scan says beside its matches.
type Result struct {
	// Begun is when it began, in ns since 1970, by the clock of this machine.
	Begun int64
	// Settled says that another scan would find the same as long as Changed says no.
	Settled bool
	// Young says that a directory changed so shortly before that what changed at the same time may have been missed.
	Young bool
}

// Scan calls match with each file, directory or other thing that a source matches, and fault with what cannot be
// searched. A thing may match more than once.
func (s *Scanner) Scan(match func(*Source, tree.Node), fault func(*Source, error)) Result {
	s.round++
	r := Result{Begun: time.Now().UnixNano(), Settled: true}
	for name, d := range s.dirs {
		if !d.disturbed {
			d.before, d.beforeAll = d.found.changed, d.at-d.found.changed >= int64(d.found.age())
		}
		was := d.found.inode
		d.found, d.at = stampOf(name), r.Begun // before it is listed, lest a change in between go unseen
		if d.found.inode != was {
			d.before, d.beforeAll = 0, false // that scan listed another directory
			s.lost(name, was)
		}
	}
	for i := range s.sources {
		src := &s.sources[i]
		found := src.Tree.Glob(src.Pattern, func(n tree.Node) { match(src, n) }, func(err error) {
			r.Settled = false
			fault(src, err)
		})
		r.Settled = r.Settled && !found.Linked
		for name, node := range found.Dirs {
			if s.dirs[name] == nil {
				s.dirs[name] = &dir{}
			}
			s.dirs[name].node, s.dirs[name].round = node, s.round
		}
	}
	for name, d := range s.dirs {
		d.disturbed = stampOf(name) != d.found
		switch {
		case d.round != s.round:
		case d.found == (stamp{}), r.Begun-d.found.changed < int64(d.found.age()):
			r.Settled, r.Young = false, true
		case !TellsChanges(name):
			r.Settled = false
		}
	}
	return r
}

// Changed says whether a directory has changed since the last scan.
func (s *Scanner) Changed() bool {
	for name, d := range s.dirs {
		if stampOf(name) != d.found {
			return true
		}
	}
	return false
}

// LastChange is when a directory had last changed at the scan before the last one, in ns since 1970; 0 if that scan
// did not list it. all says that everything with that time of birth was there already. A scan during which the directory
// changed does not count.
func (s *Scanner) LastChange(dir string) (at int64, all bool) {
	if d := s.dirs[dir]; d != nil {
		return d.before, d.beforeAll
	}
	return 0, false
}

// lost notes that a path leads to a directory no more.
func (s *Scanner) lost(name string, was inode) {
	const most = 1000
	if was == (inode{}) {
		return
	}
	if len(s.was) >= most {
		clear(s.was)
	}
	s.was[name] = was
}

// Was says whether d is the directory that a path led to before it led to another one, or to none.
func (s *Scanner) Was(name string, d *tree.Dir) bool {
	dev, ino := d.Inode()
	return ino != 0 && s.was[name] == inode{dev, ino}
}

// dir is a directory that a scan came by.
type dir struct {
	node  tree.Node
	found stamp // what it was at the last scan
	at    int64 // when that scan began, in ns since 1970
	// disturbed says that it changed during that scan, which may have missed what was renamed meanwhile.
	disturbed bool
	// before is when it had last changed at the scan before that, 0 if there was none; what has that time of
	// birth was there already if beforeAll.
	before    int64
	beforeAll bool
	watched   stamp  // what it was when a watch was asked for; none: it has no watch
	round     uint64 // number of the last scan that came by
}

// A stamp is another one when anything was made, removed or renamed in a directory, or when the path leads to another
// directory.
type stamp struct {
	inode
	changed int64 // change time (st_ctim) in ns since 1970
}

type inode struct{ dev, ino uint64 }

// stampOf is the stamp of a directory, or of the one that a link leads to; none if it cannot be had. It only tells
// that something changed: what is listed and opened then is reached without following links.
func stampOf(name string) stamp {
	var st unix.Stat_t
	if unix.Stat(name, &st) != nil {
		return stamp{}
	}
	return stamp{inode{uint64(st.Dev), st.Ino}, st.Ctim.Nano()} //nolint:unconvert // Dev is 32 bits wide on some architectures
}

// StampAge is the age from which on a directory's change time can be told from that of a change now: some ticks of
// the kernel's clock. Tests shorten it.
var StampAge = 100 * time.Millisecond

// coarseStampAge is the same where change times are whole seconds, as on ext4 with small inodes.
const coarseStampAge = 3 * time.Second

// age is the age from which on a stamp tells.
func (s stamp) age() time.Duration {
	if s.changed%1e9 == 0 {
		return coarseStampAge
	}
	return StampAge
}

// TellsChanges says whether the kernel reports every change in a directory, and stamps it by its own clock: not on
// network file systems, where others write.
func TellsChanges(dir string) bool {
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

// Watch makes the Scanner ask another Watcher for events; nil is none. All watches are asked for again.
func (s *Scanner) Watch(w Watcher) {
	s.watcher = w
	for _, d := range s.dirs {
		d.watched = stamp{}
	}
}

// OpenDir opens one of the directories that a Watcher is given, for nothing but to watch it. No link is followed.
func (s *Scanner) OpenDir(name string) (fd int, err error) {
	d := s.dirs[name]
	if d == nil {
		return -1, unix.ENOENT
	}
	return d.node.OpenToWatch()
}

// Watches is what became of asking for watches.
type Watches struct {
	Added  bool // one is new: what was made after the scan and before it is not told
	Polled bool // some directory has no watch
	Short  bool // because the user has none left
}

// Rewatch makes the watched directories be those that the last scan came by.
func (s *Scanner) Rewatch() Watches {
	w := Watches{Polled: s.watcher == nil}
	// A watch belongs to an inode, whatever its names are: it goes before the same directory is watched by another
	// name, and takes the watch by that name with it.
	removed := map[inode]bool{}
	for name, d := range s.dirs {
		if d.round == s.round {
			continue
		}
		if d.watched != (stamp{}) && s.watcher != nil {
			_ = s.watcher.Remove(name) // it may have gone with its directory
			removed[d.watched.inode] = true
		}
		if d.found != (stamp{}) {
			s.lost(name, d.found.inode)
		}
		delete(s.dirs, name)
	}
	if s.watcher == nil {
		return w
	}
	for name, d := range s.dirs {
		if removed[d.watched.inode] {
			d.watched = stamp{}
		}
		at := stampOf(name)
		if at == d.watched && at != (stamp{}) {
			continue
		}
		// A directory that was removed, or moved away and back, has lost its watch, and has another stamp, so each
		// that has one is added again; where there is a watch this does nothing.
		if !TellsChanges(name) {
			w.Polled = true
			continue
		}
		if err := s.watcher.Add(name); err != nil {
			w.Polled, w.Short = true, w.Short || errors.Is(err, unix.ENOSPC)
			continue
		}
		// What was made after the listing, and before the watch was there again, is told by the change time.
		w.Added = w.Added || at.inode != d.watched.inode || stampOf(name) != d.found
		d.watched = at
	}
	return w
}
