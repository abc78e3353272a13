package follow

import (
	"path"
	"slices"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/sidecar/internal/checkpoint"
	"github.com/log-bridge/log-bridge/sidecar/internal/scan"
	"github.com/log-bridge/log-bridge/sidecar/internal/tree"
)

// inode finds an open file; its number is not used again while it is open.
type inode struct{ dev, ino uint64 }

func inodeOf(n tree.Node) inode { return inode{n.Dev, n.Ino} }

// index holds all known files, and finds them. It alone changes the presence of a file, its queue, and what finds it.
type index struct {
	open    []*file                 // those with a descriptor, in no order
	byInode map[inode]*file         // the same
	byName  map[string]*file        // those that have a name, also parked ones, by where they were last found
	aliases map[string]*file        // open ones by the other names that the last scan found
	bases   map[string][]*file      // open ones by the last part of the names that they have, or had
	logs    map[contract.Place]*log // queues of the open ones
	parked  map[inode]*file
	closed  map[uint64][]*file // those without a descriptor, by inode number, which another file may have by now
	count   int                // of the closed ones
	gone    []*file            // the last ones that were finished and deleted: their copies may still come
}

// mostGone bounds what is remembered of deleted files.
const mostGone = 16

// indexed is where the index has a file.
type indexed struct {
	slot  int   // in open
	at    inode // while it is open or parked
	bases [2]string
	alias string // another name, as the sidecar sees it, by which a scan found it as well; the last one
}

func newIndex() *index {
	return &index{
		byInode: map[inode]*file{}, byName: map[string]*file{}, aliases: map[string]*file{}, bases: map[string][]*file{},
		logs: map[contract.Place]*log{}, parked: map[inode]*file{}, closed: map[uint64][]*file{},
	}
}

// addClosed adds a file of the checkpoint.
func (i *index) addClosed(x *file) {
	i.closed[x.Ino] = append(i.closed[x.Ino], x)
	i.count++
}

// removeClosed removes a file that has no descriptor.
func (i *index) removeClosed(x *file) {
	list := i.closed[x.Ino]
	at := slices.Index(list, x)
	if at < 0 {
		return
	}
	i.count--
	if list = slices.Delete(list, at, at+1); len(list) == 0 {
		delete(i.closed, x.Ino)
	} else {
		i.closed[x.Ino] = list
	}
	if i.parked[x.at] == x {
		delete(i.parked, x.at)
	}
}

// forget removes a file without a descriptor that exists no more.
func (i *index) forget(x *file) {
	i.removeClosed(x)
	if i.gone = append(i.gone, x); len(i.gone) > mostGone {
		i.gone = slices.Delete(i.gone, 0, 1)
	}
}

// known calls visit with all files without a descriptor, also deleted ones.
func (i *index) known(visit func(*file)) {
	for _, x := range i.gone {
		visit(x)
	}
	for _, list := range i.closed {
		for _, x := range list {
			visit(x)
		}
	}
}

// find is the file without a descriptor that an identity tells, or nil.
func (i *index) find(id checkpoint.Ident) *file {
	for _, c := range i.closed[id.Ino] {
		if c.Same(id) {
			return c
		}
	}
	return nil
}

// opened takes note of a descriptor for a file. It has no name yet.
func (i *index) opened(x *file, fd int, at inode, src *scan.Source, n tree.Node) {
	i.removeClosed(x)
	x.handle, x.presence, x.at, x.src = handle{fd}, rotated, at, src
	x.slot = len(i.open)
	i.open = append(i.open, x)
	i.byInode[at] = x
	i.move(x, n)
	i.join(x)
}

// move notes where a file was found.
func (i *index) move(x *file, n tree.Node) {
	if i.byName[x.node.Real] == x {
		delete(i.byName, x.node.Real)
	}
	x.node = n
	i.rebase(x)
}

// found notes that a scan found an open file by another name as well.
func (i *index) found(x *file, real string) {
	i.aliases[real] = x
	x.alias = real
}

// named notes that a scan found an open file as n.
func (i *index) named(x *file, n tree.Node) {
	i.move(x, n)
	x.presence = named
	i.byName[n.Real] = x
}

// relabel gives the lines of an open file another name.
func (i *index) relabel(x *file, src *scan.Source, place contract.Place) {
	if x.src == src && x.place == place {
		return
	}
	i.leave(x)
	x.src, x.place = src, place
	i.join(x)
	i.rebase(x)
}

// unnamed notes that no source matches an open file any more.
func (i *index) unnamed(x *file) {
	x.presence = rotated
	if i.byName[x.node.Real] == x {
		delete(i.byName, x.node.Real)
	}
}

// close notes that a file has no descriptor any more, and is in another presence.
func (i *index) close(x *file, p presence) {
	last := i.open[len(i.open)-1]
	i.open[x.slot], last.slot = last, x.slot
	i.open = i.open[:len(i.open)-1]
	delete(i.byInode, x.at)
	i.leave(x)
	i.bare(x)
	if i.byName[x.node.Real] == x && p != parked {
		delete(i.byName, x.node.Real)
	}
	x.fd, x.presence, x.turns = -1, p, turns{grew: x.grew}
	i.addClosed(x)
	if p == parked {
		i.parked[x.at] = x
		i.byName[x.node.Real] = x
	}
}

// lost notes that a parked file was not found by a scan.
func (i *index) lost(x *file) {
	delete(i.parked, x.at)
	if i.byName[x.node.Real] == x {
		delete(i.byName, x.node.Real)
	}
	x.presence = away
}

// join puts an open file into its log's queue. It is in order only after sort.
func (i *index) join(x *file) {
	name := x.logName()
	l := i.logs[name]
	if l == nil {
		l = &log{name: name}
		i.logs[name] = l
	}
	l.generations = append(l.generations, x)
	x.log = l
}

func (i *index) leave(x *file) {
	l := x.log
	l.generations = slices.DeleteFunc(l.generations, func(g *file) bool { return g == x })
	if len(l.generations) == 0 {
		delete(i.logs, l.name)
	}
	x.log = nil
}

// sort puts the generations of each log in order.
func (i *index) sort() {
	for _, l := range i.logs {
		l.sort()
	}
}

// rebase makes an open file be found by the last parts of its names.
func (i *index) rebase(x *file) {
	bases := [2]string{path.Base(x.node.Real), path.Base(x.place.Path)}
	if bases == x.bases {
		return
	}
	i.bare(x)
	x.bases = bases
	i.bases[bases[0]] = append(i.bases[bases[0]], x)
	if bases[1] != bases[0] {
		i.bases[bases[1]] = append(i.bases[bases[1]], x)
	}
}

// bare makes it be found by none.
func (i *index) bare(x *file) {
	for _, base := range x.bases {
		if list := slices.DeleteFunc(i.bases[base], func(o *file) bool { return o == x }); len(list) > 0 {
			i.bases[base] = list
		} else {
			delete(i.bases, base)
		}
	}
	x.bases = [2]string{}
}

// originals calls visit with the open files of which x may be a copy, going by their names, each at least once.
func (i *index) originals(x *file, visit func(*file)) {
	originals(x.node.Real, func(name string) {
		for _, k := range i.bases[name] {
			visit(k)
		}
	})
}
