package tree

import (
	"encoding/binary"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir is an open directory: what it holds is looked at and opened through its descriptor, whatever
// happens to the path that led to it. Use it from one goroutine.
type Dir struct {
	node Node
	fd   int
	buf  []byte
}

// Kind is the type of a directory's entry, as far as the directory tells.
type Kind int

// The kinds.
const (
	Unknown Kind = iota
	File
	Directory
	Other
)

// Parent is the directory that holds a node. What is known of the directory itself is only where it is.
func (n Node) Parent() Node {
	if n.rel == "" {
		// One file of a volume, mounted by subPath, or the directory above a root.
		v := newView(path.Dir(n.view.prefix), path.Dir(n.view.dir))
		return Node{Path: v.prefix, Real: v.dir, view: v}
	}
	rel := path.Dir(n.rel)
	if rel == "." {
		rel = ""
	}
	return Node{Path: path.Dir(n.Path), Real: join(n.view.dir, rel), view: n.view, rel: rel}
}

// Child is where name would be in a directory. How the container names it is left open.
func (n Node) Child(name string) Node {
	real := join(n.Real, name)
	return Node{Real: real, view: n.view, rel: strings.TrimPrefix(real[len(n.view.dir):], "/")}
}

// OpenDir opens a directory.
func (n Node) OpenDir() (*Dir, error) {
	fd, err := n.view.open(n.rel, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	return &Dir{node: n, fd: fd}, nil
}

// OpenToWatch opens a directory for nothing but its descriptor.
func (n Node) OpenToWatch() (fd int, err error) {
	return n.view.open(n.rel, unix.O_PATH|unix.O_DIRECTORY)
}

// Node is where the directory is.
func (d *Dir) Node() Node { return d.node }

// Close closes it.
func (d *Dir) Close() { unix.Close(d.fd) }

// Each calls visit with the entries of the directory, in no order, a few at a time, so that memory does not
// grow with their number.
func (d *Dir) Each(visit func(name string, kind Kind)) error {
	if d.buf == nil {
		d.buf = make([]byte, 16<<10)
	}
	if _, err := unix.Seek(d.fd, 0, unix.SEEK_SET); err != nil {
		return err
	}
	for {
		n, err := retry(func() (int, error) { return unix.Getdents(d.fd, d.buf) })
		if err != nil || n <= 0 {
			return err
		}
		// struct linux_dirent64: ino and off of 8 bytes, reclen of 2, type of 1, then the name.
		for b := d.buf[:n]; len(b) > 19; {
			length := binary.NativeEndian.Uint16(b[16:])
			name, kind := b[19:length], Unknown
			for i, c := range name {
				if c == 0 {
					name = name[:i]
					break
				}
			}
			switch b[18] {
			case unix.DT_REG:
				kind = File
			case unix.DT_DIR:
				kind = Directory
			case unix.DT_LNK, unix.DT_FIFO, unix.DT_SOCK, unix.DT_CHR, unix.DT_BLK:
				kind = Other
			}
			b = b[length:]
			if s := string(name); s != "." && s != ".." {
				visit(s, kind)
			}
		}
	}
}

// Changed is when something was last made, renamed or removed in the directory: its change time, in ns
// since 1970. It is 0 if that cannot be had.
func (d *Dir) Changed() int64 {
	var st unix.Stat_t
	if ignoringEINTR(func() error { return unix.Fstat(d.fd, &st) }) != nil {
		return 0
	}
	return st.Ctim.Nano()
}

// Inode is the directory's identity, whatever its path is; 0, 0 if that cannot be had.
func (d *Dir) Inode() (dev, ino uint64) {
	var st unix.Stat_t
	if ignoringEINTR(func() error { return unix.Fstat(d.fd, &st) }) != nil {
		return 0, 0
	}
	return uint64(st.Dev), st.Ino //nolint:unconvert // Dev is 32 bits wide on some architectures
}

// Lookup looks at a name in the directory, without following a link.
func (d *Dir) Lookup(name string) (Node, error) {
	n := d.node.Child(name)
	var st unix.Stat_t
	if err := ignoringEINTR(func() error { return unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) }); err != nil {
		return Node{}, err
	}
	n.is(&st)
	return n, nil
}

// Statx is statx(2) of a name in the directory, for its number and its birth, without following a link. It needs no
// right to read the file.
func (d *Dir) Statx(name string) (st unix.Statx_t, err error) {
	err = ignoringEINTR(func() error {
		return unix.Statx(d.fd, name, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_INO|unix.STATX_BTIME, &st)
	})
	return st, err
}
