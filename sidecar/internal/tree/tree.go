// Package tree finds and opens files as a container sees them.
//
// In come a container's name and the configuration's roots and views, then paths
// and patterns in the container's eyes; out come nodes: existing things with
// the place where the sidecar finds them. A link is resolved the way the container
// would resolve it, and never leads out of what the views show. Nothing but a
// regular file is ever opened, and opening never blocks and never follows a link
// that was put in place of a file after it was looked at.
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
	views []view // deepest prefix first
}

// view says that what the container sees at prefix is found in dir. Beneath
// root nothing is followed out of: for a folder of a volume, root is the volume.
type view struct {
	prefix, dir string
}

// real is where the view shows p, which prefix covers.
func (v view) real(p string) string {
	rest := strings.Trim(p[len(v.prefix):], "/")
	if rest == "" {
		return v.dir
	}
	return join(v.dir, rest)
}

// join is path.Join for what is clean.
func join(dir, name string) string {
	if dir == "/" {
		return "/" + name
	}
	return dir + "/" + name
}

// New makes the tree of one container.
func New(container string, c contract.Config) *Tree {
	t := &Tree{}
	for _, v := range c.Views {
		if v.Container == container {
			t.views = append(t.views, view{prefix: v.Path, dir: v.Dir})
		}
	}
	for _, r := range c.Roots {
		t.views = append(t.views, view{prefix: "/", dir: filepath.Join(r, container)})
	}
	slices.SortStableFunc(t.views, func(a, b view) int { return cmp.Compare(len(b.prefix), len(a.prefix)) })
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
	// base is the directory that Real is opened beneath.
	base string
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

// LinkError is a link that leads to what the sidecar cannot or may not see.
type LinkError struct {
	Path   string // the link, as the container names it
	Target string // what it finally names, as the container would resolve it
}

// Error is a sentence with the remedy.
func (e *LinkError) Error() string {
	switch e.Target {
	case "/dev/stdout", "/dev/stderr", "/proc/self/fd/1", "/proc/self/fd/2", "/dev/fd/1", "/dev/fd/2":
		return fmt.Sprintf("%s is a link to %s: the application's own output, which kubectl logs shows without log-bridge", e.Path, e.Target)
	}
	return fmt.Sprintf("%s is a link to %s, which is in no volume that log-bridge shares; name that file in %s", e.Path, e.Target, contract.Prefix+contract.KeyFiles)
}

// Dirs are the directories of the sidecar that hold what it sees of the container.
func (t *Tree) Dirs() []string {
	var dirs []string
	for _, v := range t.views {
		dirs = append(dirs, v.dir)
	}
	return dirs
}

// covering are the views that decide what is at p: the deepest that cover it.
// Several have the same prefix only where several roots are given.
func (t *Tree) covering(p string) []view {
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
	return slices.ContainsFunc(t.views, func(v view) bool { return v.prefix != p && contract.Covers(p, v.prefix) })
}

// lstat looks at p without following a link in its last component.
func (t *Tree) lstat(p string) (Node, error) {
	err := error(unix.ENOENT)
	for _, v := range t.covering(p) {
		real := v.real(p)
		var st unix.Stat_t
		if e := ignoringEINTR(func() error { return unix.Lstat(real, &st) }); e != nil {
			if err == unix.ENOENT {
				err = e
			}
			continue
		}
		base := v.dir
		if real == base && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			base = filepath.Dir(base) // one file of a volume, mounted by subPath
		}
		return node(p, real, base, &st), nil
	}
	return Node{}, &os.PathError{Op: "stat", Path: p, Err: err}
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
	linked := false
	for links := 0; len(rest) > 0; {
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
			return Node{}, err
		}
		if n.Mode&unix.S_IFMT != unix.S_IFLNK {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return Node{}, &os.PathError{Op: "resolve", Path: p, Err: unix.ELOOP}
		}
		target, err := os.Readlink(n.Real)
		if err != nil {
			return Node{}, &os.PathError{Op: "readlink", Path: next, Err: errors.Unwrap(err)}
		}
		linked = true
		if path.IsAbs(target) {
			at = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	n.Path, n.linked = p, linked
	return n, nil
}

// Open opens a regular file for reading. The error for anything else says what it
// is. Where a component was swapped for a link since the node was found, the
// kernel refuses (ELOOP).
func (n Node) Open() (fd int, err error) { return n.open(unix.O_RDONLY) }

// OpenToPunch opens a regular file for reading and writing, which freeing its blocks
// requires.
func (n Node) OpenToPunch() (fd int, err error) { return n.open(unix.O_RDWR) }

func (n Node) open(flags int) (int, error) {
	if !n.IsRegular() {
		return -1, fmt.Errorf("%s is %s, not a file", n.Path, n.Kind())
	}
	fd, err := openBeneath(n.base, n.Real, flags|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: n.Path, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return -1, fmt.Errorf("%s is not a file any more", n.Path)
	}
	return fd, nil
}

// openBeneath opens real, which lies beneath base, following no link beneath it.
func openBeneath(base, real string, flags int) (int, error) {
	flags |= unix.O_CLOEXEC
	dir, err := retry(func() (int, error) {
		return unix.Open(base, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return -1, err
	}
	rel := strings.Trim(strings.TrimPrefix(real, base), "/")
	if rel == "" {
		rel = "."
	}
	how := unix.OpenHow{Flags: uint64(flags), Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := retry(func() (int, error) { return unix.Openat2(dir, rel, &how) })
	if err != unix.ENOSYS && err != unix.EPERM && err != unix.EINVAL {
		unix.Close(dir)
		return fd, err
	}
	// Old kernels lack openat2, and some seccomp profiles answer EPERM instead of
	// ENOSYS: walk by hand, a component at a time.
	for parts := strings.Split(rel, "/"); ; parts = parts[1:] {
		f := unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC
		if len(parts) == 1 {
			f = flags
		}
		next, err := retry(func() (int, error) { return unix.Openat(dir, parts[0], f|unix.O_NOFOLLOW, 0) })
		unix.Close(dir)
		if err != nil || len(parts) == 1 {
			return next, err
		}
		dir = next
	}
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

// At is the node of something in a directory that a Glob named, as the sidecar names it.
func At(real string) (Node, error) {
	var st unix.Stat_t
	if err := ignoringEINTR(func() error { return unix.Lstat(real, &st) }); err != nil {
		return Node{}, &os.PathError{Op: "stat", Path: real, Err: err}
	}
	return node(real, real, path.Dir(real), &st), nil
}

func node(p, real, base string, st *unix.Stat_t) Node {
	return Node{Path: p, Real: real, Mode: st.Mode, Uid: st.Uid, Dev: uint64(st.Dev), Ino: st.Ino, Size: st.Size, Changed: st.Ctim.Nano(), base: base} //nolint:unconvert // Dev is 32 bits wide on some architectures
}
