// Package look finds the files that a container writes, from another container that shares its process namespace.
//
// In comes which container, and how long to watch. Out come facts, one line of JSON for each file (contract.Looked,
// contract.Seen); which of them are logs is judged elsewhere. Only /proc and the container's own tree are read, and nothing
// is changed. Everything in the tree is reached as package tree reaches it, so no link leads out of it.
package look

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/sidecar/internal/tree"
	"golang.org/x/sys/unix"
)

// Options say what to look at.
type Options struct {
	// Container is the runtime's ID of the container, for pods whose containers share a process namespace. If it is empty, the
	// container is that of process 1.
	Container string
	// Since is the time, in seconds since 1970, after which a closed file must have changed to be listed: the start of the
	// container.
	Since int64
	// Watch is how long to watch what grows and rotates.
	Watch time.Duration
	// Proc is where proc(5) is mounted.
	Proc string
}

// Bounds, because the container's files are not ours: how many files are listed, how many entries of directories are looked at,
// and how deep directories may be nested.
const (
	maxFiles   = 2000
	maxEntries = 500_000
	maxDepth   = 64
)

// file is a file and what is known of it so far.
type file struct {
	contract.Seen
	ino, dev uint64
}

// looker is one look at one container.
type looker struct {
	Options
	contract.Looked
	tree    *tree.Tree
	files   []*file
	known   map[string]bool
	entries int
}

// Container looks at a container and writes what it finds.
func Container(o Options, w io.Writer) error {
	l := &looker{Options: o, known: map[string]bool{}}
	processes, err := l.processes()
	if err != nil {
		return err
	}
	if len(processes) == 0 {
		return errors.New("the container has no process; it may have ended")
	}
	l.describe(processes[0])
	root := fmt.Sprintf("%s/%d/root", o.Proc, l.PID)
	if _, err := os.Stat(root + "/."); errors.Is(err, os.ErrPermission) {
		l.Denied = true
		return l.write(w)
	}
	l.tree = tree.New("", contract.Config{Views: []contract.View{{Place: contract.Place{Path: "/"}, Dir: root}}})
	for _, pid := range processes {
		l.open(pid)
	}
	for _, d := range l.tree.Dirs() {
		l.walk(d, "/", 0)
	}
	time.Sleep(o.Watch)
	for _, f := range l.files {
		l.again(f)
	}
	return l.write(w)
}

// processes are those of the container, its first one first.
func (l *looker) processes() ([]int, error) {
	all, err := numbers(l.Proc)
	if err != nil {
		return nil, err
	}
	if l.Container == "" {
		// All processes of the namespace are the container's, apart from ours: it is in containers of its own.
		ours, _ := os.Readlink(l.Proc + "/self/ns/mnt")
		return slices.DeleteFunc(all, func(pid int) bool {
			ns, err := os.Readlink(fmt.Sprintf("%s/%d/ns/mnt", l.Proc, pid))
			return err == nil && ns == ours && pid != 1
		}), nil
	}
	return slices.DeleteFunc(all, func(pid int) bool {
		groups, err := os.ReadFile(fmt.Sprintf("%s/%d/cgroup", l.Proc, pid))
		return err != nil || !bytes.Contains(groups, []byte(l.Container))
	}), nil
}

// numbers are the names in a directory of proc(5) that are numbers: processes, or descriptors.
func numbers(dir string) (all []int, err error) {
	d, err := tree.New("", contract.Config{Views: []contract.View{{Place: contract.Place{Path: "/"}, Dir: dir}}}).Dirs()[0].OpenDir()
	if err != nil {
		return nil, err
	}
	defer d.Close()
	err = d.Each(func(name string, _ tree.Kind) {
		if n, err := strconv.Atoi(name); err == nil {
			all = append(all, n)
		}
	})
	slices.Sort(all)
	return all, err
}

// describe takes over what anybody may know of the first process.
func (l *looker) describe(pid int) {
	l.PID = pid
	status, _ := os.ReadFile(fmt.Sprintf("%s/%d/status", l.Proc, pid))
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		words := strings.Fields(value)
		switch {
		case key == "Uid" && len(words) > 1:
			l.Uid, _ = strconv.Atoi(words[1])
		case key == "Gid" && len(words) > 1:
			l.Gid, _ = strconv.Atoi(words[1])
		case key == "CapPrm" && len(words) == 1:
			l.Caps = strings.TrimLeft(words[0], "0")
		}
	}
}

// open adds the files that a process has open for writing.
func (l *looker) open(pid int) {
	dir := fmt.Sprintf("%s/%d", l.Proc, pid)
	descriptors, err := numbers(dir + "/fd")
	if err != nil {
		if pid != l.PID && errors.Is(err, os.ErrPermission) {
			l.Hidden++
		}
		return
	}
	program, _ := os.ReadFile(dir + "/comm")
	for _, fd := range descriptors {
		info, err := os.ReadFile(fmt.Sprintf("%s/fdinfo/%d", dir, fd))
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(info), "flags:")
		line, _, _ := strings.Cut(rest, "\n")
		flags, _ := strconv.ParseInt(strings.TrimSpace(line), 8, 64)
		if flags&unix.O_ACCMODE == unix.O_RDONLY || flags&unix.O_PATH != 0 {
			continue
		}
		name, err := os.Readlink(fmt.Sprintf("%s/fd/%d", dir, fd))
		if err != nil || !path.IsAbs(name) {
			continue // a pipe or a socket
		}
		l.add(name, func(f *file) {
			f.Program = strings.TrimSpace(string(program))
			f.Append = flags&unix.O_APPEND != 0
			f.ReadWrite = flags&unix.O_ACCMODE == unix.O_RDWR
		})
	}
}

// add lists the file at a path, if it is one. A deleted file has a name that does not exist.
func (l *looker) add(name string, tell func(*file)) {
	if l.known[name] || !l.room() || kernels(name) {
		return
	}
	node, err := l.tree.Resolve(name)
	if err != nil || !node.IsRegular() {
		return
	}
	f := &file{Seen: contract.Seen{Path: name}}
	if tell != nil {
		tell(f)
	}
	l.known[name] = true
	l.read(f, node)
	l.files = append(l.files, f)
}

func (l *looker) room() bool {
	l.More = l.More || len(l.files) >= maxFiles || l.entries >= maxEntries
	return len(l.files) < maxFiles
}

// kernels says whether the kernel's own file systems are mounted there.
func kernels(name string) bool {
	return contract.Covers("/proc", name) || contract.Covers("/sys", name) || contract.Covers("/dev", name)
}

// walk adds the files below a directory that have changed since the container started.
func (l *looker) walk(dir tree.Node, name string, depth int) {
	if depth > maxDepth || l.entries > maxEntries || kernels(name) {
		return
	}
	d, err := dir.OpenDir()
	if err != nil {
		return
	}
	defer d.Close()
	var below []string
	// An error in the middle leaves the rest of this directory out.
	_ = d.Each(func(entry string, kind tree.Kind) {
		if l.entries++; l.entries > maxEntries {
			return
		}
		if kind == tree.Directory || kind == tree.Unknown {
			below = append(below, entry)
		}
		if kind == tree.File || kind == tree.Unknown {
			if n, err := d.Lookup(entry); err == nil && n.IsRegular() && n.Changed/1e9 >= l.Since {
				l.add(path.Join(name, entry), nil)
			}
		}
	})
	for _, entry := range below {
		l.walk(dir.Child(entry), path.Join(name, entry), depth+1)
	}
}

// read fills in what is at a file's name now.
func (l *looker) read(f *file, n tree.Node) {
	f.Size, f.Uid, f.ino, f.dev = n.Size, n.Uid, n.Ino, n.Dev
	f.Mode, f.Modified, f.Content = n.Mode&0o7777, n.Changed/1e9, contract.Unreadable
	fd, opened, err := n.Open()
	if err != nil {
		return
	}
	defer unix.Close(fd)
	f.Size, f.ino, f.dev = opened.Size, opened.Ino, opened.Dev
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil {
		f.Gid, f.Modified = st.Gid, st.Mtim.Sec
	}
	var head [1024]byte
	switch m, err := unix.Pread(fd, head[:], 0); {
	case err != nil:
	case m == 0:
		f.Content = contract.Empty
	case isText(head[:m]):
		f.Content = contract.Text
	default:
		f.Content = contract.Binary
	}
}

// isText says whether bytes could be lines of a log. Terminal colours are text, and so are 8-bit encodings.
func isText(p []byte) bool {
	for _, c := range p {
		if c < ' ' && !(c >= '\a' && c <= '\r') && c != 0x1b {
			return false
		}
	}
	return true
}

// again looks at a file a second time, for what happened meanwhile.
func (l *looker) again(f *file) {
	n, err := l.tree.Resolve(f.Path)
	if err != nil || !n.IsRegular() {
		return
	}
	before := *f
	l.read(f, n)
	switch {
	case f.ino != before.ino || f.dev != before.dev:
		f.Rotated, f.Grew = contract.Renamed, f.Size
	case f.Size < before.Size:
		f.Rotated, f.Grew = contract.Truncated, f.Size
	default:
		f.Grew = f.Size - before.Size
	}
}
