// Package tree finds and opens files as a container sees them.
//
// In come a container's name and the configuration's roots and views, then paths
// and patterns in the container's eyes; out come nodes: existing things with
// the place where the sidecar finds them. A link is resolved the way the container
// would resolve it, and never leads out of what the views show. Nothing but a
// regular file is ever opened, and opening never blocks. Whatever is looked at,
// listed or opened is reached from a descriptor of its view's directory, and no
// link is followed on the way: an application may replace any file and directory
// below it by a link at any moment.
package tree

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"golang.org/x/sys/unix"
)

// Tree is the file system of one container, as far as the sidecar can see it. It
// holds no open files; use it from one goroutine.
type Tree struct {
	views []*view // deepest prefix first
}

// view says that what the container sees at prefix is found in dir.
type view struct {
	prefix, dir string
	// volume is the volume's directory if dir is a directory of a volume: others may
	// write there, so the way to dir never leaves it. Else it is empty.
	volume string
}

// newView makes a view of dir, as the configuration names it.
func newView(prefix, dir string) *view {
	v := &view{prefix: prefix, dir: dir}
	if rest, ok := strings.CutPrefix(dir, contract.VolumesRoot+"/"); ok {
		if name, _, ok := strings.Cut(rest, "/"); ok {
			v.volume = join(contract.VolumesRoot, name)
		}
	}
	return v
}

// open opens what is at rel below the view's directory, "" for that itself. No link
// below the directory is followed.
func (v *view) open(rel string, flags int) (int, error) {
	flags |= unix.O_CLOEXEC
	if rel == "" {
		return v.openDir(flags &^ unix.O_NOFOLLOW)
	}
	dir, err := v.openDir(unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(dir)
	return openat(dir, rel, flags, unix.RESOLVE_NO_SYMLINKS)
}

// openDir opens the view's directory; it is a file where one file of a volume is mounted.
func (v *view) openDir(flags int) (int, error) {
	if v.volume == "" {
		return retry(func() (int, error) { return unix.Open(v.dir, flags, 0) })
	}
	volume, err := retry(func() (int, error) {
		return unix.Open(v.volume, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return -1, err
	}
	defer unix.Close(volume)
	return openat(volume, v.dir[len(v.volume)+1:], flags, 0)
}

// openat opens rel below a directory, which no part of it leaves. resolve says what else is
// refused, as in openat2(2).
func openat(dir int, rel string, flags int, resolve uint64) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags), Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | resolve}
	fd, err := retry(func() (int, error) { return unix.Openat2(dir, rel, &how) })
	if err != unix.ENOSYS && err != unix.EPERM && err != unix.EINVAL {
		return fd, err
	}
	// Old kernels lack openat2, and some seccomp profiles answer EPERM instead of
	// ENOSYS: walk by hand, a component at a time, through no link at all.
	at := dir
	for parts := strings.Split(rel, "/"); ; parts = parts[1:] {
		f := unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC
		if len(parts) == 1 {
			f = flags
		}
		fd, err := retry(func() (int, error) { return unix.Openat(at, parts[0], f|unix.O_NOFOLLOW, 0) })
		if at != dir {
			unix.Close(at)
		}
		if err != nil || len(parts) == 1 {
			return fd, err
		}
		at = fd
	}
}

// real is where the view shows p, which prefix covers.
func (v *view) real(p string) string { return join(v.dir, v.rel(p)) }

// rel is p below the view's directory, "" for the directory itself.
func (v *view) rel(p string) string { return strings.Trim(p[len(v.prefix):], "/") }

// join is path.Join for what is clean.
func join(dir, name string) string {
	switch {
	case name == "":
		return dir
	case dir == "":
		return name
	case dir == "/":
		return "/" + name
	}
	return dir + "/" + name
}

// New makes the tree of one container.
func New(container string, c contract.Config) *Tree {
	t := &Tree{}
	for _, v := range c.Views {
		if v.Container == container {
			t.views = append(t.views, newView(v.Path, v.Dir))
		}
	}
	for _, r := range c.Roots {
		t.views = append(t.views, newView("/", filepath.Join(r, container)))
	}
	slices.SortStableFunc(t.views, func(a, b *view) int { return cmp.Compare(len(b.prefix), len(a.prefix)) })
	return t
}

// Node is something that exists.
type Node struct {
	// Path is how the container names it; where a link was followed, the name of
	// the link.
	Path string
	// Real is where the sidecar finds it, links resolved.
	Real string
	// Mode, Uid, Dev and Ino are as in stat(2).
	Mode uint32
	Uid  uint32
	Dev  uint64
	Ino  uint64
	// Size is in bytes; Changed is the change time (st_ctim) in ns since 1970.
	Size    int64
	Changed int64
	// view and rel are how it is reached: rel is below the view's directory.
	view *view
	rel  string
	// target is where a link leads.
	target string
	// linked says that a link leads from Path to Real.
	linked bool
}

// Kind is the file type in words, for messages.
func (n Node) Kind() string {
	switch n.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return "a file"
	case unix.S_IFDIR:
		return "a directory"
	case unix.S_IFIFO:
		return "a FIFO"
	case unix.S_IFSOCK:
		return "a socket"
	}
	return "a device"
}

// IsRegular says whether it is a regular file.
func (n Node) IsRegular() bool { return n.Mode&unix.S_IFMT == unix.S_IFREG }

// IsDir says whether it is a directory.
func (n Node) IsDir() bool { return n.Mode&unix.S_IFMT == unix.S_IFDIR }

// LinkError is a link that leads to what the sidecar cannot or may not see.
type LinkError struct {
	Path   string // the link, as the container names it
	Target string // what it finally names, as the container would resolve it
}

// Error is a message with the remedy.
func (e *LinkError) Error() string {
	switch e.Target {
	case "/dev/stdout", "/dev/stderr", "/proc/self/fd/1", "/proc/self/fd/2", "/dev/fd/1", "/dev/fd/2":
		return fmt.Sprintf("%s is a link to %s, the application's own output, which kubectl logs already shows", e.Path, e.Target)
	}
	return fmt.Sprintf("%s is a link to %s, which is not in a volume that log-bridge shares; add that file to %s", e.Path, e.Target, contract.Prefix+contract.KeyFiles)
}

// Dirs are the directories of the sidecar that hold what it sees of the container.
func (t *Tree) Dirs() []Node {
	var dirs []Node
	for _, v := range t.views {
		dirs = append(dirs, Node{Path: v.prefix, Real: v.dir, view: v})
	}
	return dirs
}

// covering are the views that decide what is at p: the deepest that cover it.
// Several have the same prefix only where several roots are given.
func (t *Tree) covering(p string) []*view {
	for i, v := range t.views {
		if contract.Covers(v.prefix, p) {
			j := i + 1
			for j < len(t.views) && t.views[j].prefix == v.prefix {
				j++
			}
			return t.views[i:j]
		}
	}
	return nil
}

// above says whether p is an ancestor of some view's prefix: a directory that the
// container has, though the sidecar may find nothing there.
func (t *Tree) above(p string) bool {
	return slices.ContainsFunc(t.views, func(v *view) bool { return v.prefix != p && contract.Covers(p, v.prefix) })
}

// lstat looks at p without following a link in its last component. A link in another one is ELOOP.
func (t *Tree) lstat(p string) (Node, error) {
	err := error(unix.ENOENT)
	for _, v := range t.covering(p) {
		n := Node{Path: p, Real: v.real(p), view: v, rel: v.rel(p)}
		e := n.look()
		if e == nil {
			return n, nil
		}
		if err == unix.ENOENT {
			err = e
		}
	}
	return Node{}, &os.PathError{Op: "stat", Path: p, Err: err}
}

// look fills in what is at the node's place now.
func (n *Node) look() error {
	fd, err := n.view.open(n.rel, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := ignoringEINTR(func() error { return unix.Fstat(fd, &st) }); err != nil {
		return err
	}
	n.is(&st)
	if n.Mode&unix.S_IFMT != unix.S_IFLNK {
		return nil
	}
	var target [unix.PathMax]byte
	m, err := retry(func() (int, error) { return unix.Readlinkat(fd, "", target[:]) })
	n.target = string(target[:max(m, 0)])
	return err
}

// is takes over what fstat(2) tells.
func (n *Node) is(st *unix.Stat_t) {
	n.Mode, n.Uid, n.Dev, n.Ino = st.Mode, st.Uid, uint64(st.Dev), st.Ino //nolint:unconvert // Dev is 32 bits wide on some architectures
	n.Size, n.Changed = st.Size, st.Ctim.Nano()
}

// maxLinks is how many links one path may go through, as in the kernel.
const maxLinks = 40

// Resolve finds what is at p, following links as the container would. The kernel
// could follow them, but it would leave the tree by an absolute target, and
// with fs.protected_symlinks it refuses links of other users in sticky directories.
func (t *Tree) Resolve(p string) (Node, error) {
	at, rest := "/", strings.Split(strings.Trim(p, "/"), "/")
	n, err := t.lstat("/")
	if err != nil {
		n = Node{Path: "/", Mode: unix.S_IFDIR} // there may be views deeper down
	}
	linked, whole := false, true
	for links := 0; len(rest) > 0; {
		if whole && t.inView(at, rest) {
			// Most paths have no link, and are looked at at once.
			whole = false
			full := join(at, strings.Join(rest, "/"))
			switch m, err := t.lstat(full); {
			case err == nil && m.Mode&unix.S_IFMT != unix.S_IFLNK:
				m.Path, m.linked = p, linked
				return m, nil
			case errors.Is(err, unix.ENOENT) && !linked && !t.above(full):
				return Node{}, err
			}
		}
		name := rest[0]
		rest = rest[1:]
		if name == "" || name == "." {
			continue
		}
		if name == ".." {
			at = path.Dir(at)
			if len(rest) == 0 {
				rest = []string{"."}
			}
			n, _ = t.lstat(at)
			continue
		}
		next := join(at, name)
		n, err = t.lstat(next)
		if errors.Is(err, unix.ENOENT) && t.above(next) {
			n, err = Node{Path: next, Mode: unix.S_IFDIR}, nil
		}
		if err != nil {
			if linked && errors.Is(err, unix.ENOENT) {
				return Node{}, &LinkError{Path: p, Target: path.Join(append([]string{next}, rest...)...)}
			}
			if errors.Is(err, unix.ELOOP) {
				// A directory on the way was replaced by a link just now.
				err = &os.PathError{Op: "stat", Path: next, Err: unix.ENOENT}
			}
			return Node{}, err
		}
		if n.Mode&unix.S_IFMT != unix.S_IFLNK {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return Node{}, &os.PathError{Op: "resolve", Path: p, Err: unix.ELOOP}
		}
		linked, whole = true, true
		if path.IsAbs(n.target) {
			at = "/"
		}
		rest = append(strings.Split(n.target, "/"), rest...)
	}
	n.Path, n.linked = p, linked
	return n, nil
}

// inView says whether one view shows at and all the rest of a path below it.
func (t *Tree) inView(at string, rest []string) bool {
	for _, name := range rest {
		if name == "" || name == "." || name == ".." {
			return false
		}
	}
	here, there := t.covering(at), t.covering(join(at, strings.Join(rest, "/")))
	return len(there) == 1 && len(here) == 1 && here[0] == there[0]
}

// Open opens a regular file for reading, and tells what was opened: since the node was found,
// another file may have got its name. The error for anything else says what it
// is. Where a component was swapped for a link, the kernel refuses (ELOOP).
func (n Node) Open() (fd int, opened Node, err error) { return n.open(unix.O_RDONLY) }

// OpenToPunch opens a regular file for reading and writing, which freeing its blocks
// requires.
func (n Node) OpenToPunch() (fd int, opened Node, err error) { return n.open(unix.O_RDWR) }

func (n Node) open(flags int) (int, Node, error) {
	if !n.IsRegular() {
		return -1, n, fmt.Errorf("%s is %s, not a regular file", n.Path, n.Kind())
	}
	fd, err := n.view.open(n.rel, flags|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return -1, n, &os.PathError{Op: "open", Path: n.Path, Err: err}
	}
	var st unix.Stat_t
	if err := ignoringEINTR(func() error { return unix.Fstat(fd, &st) }); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return -1, n, fmt.Errorf("%s is no longer a regular file", n.Path)
	}
	n.is(&st)
	return fd, n, nil
}

// retry calls f again while a signal interrupts it: the runtime preempts goroutines
// with signals, and some file systems (FUSE, NFS) then answer EINTR.
func retry(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if err != unix.EINTR {
			return n, err
		}
	}
}

func ignoringEINTR(f func() error) error {
	_, err := retry(func() (int, error) { return 0, f() })
	return err
}
