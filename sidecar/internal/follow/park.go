package follow

import (
	"slices"

	"github.com/log-bridge/log-bridge/sidecar/internal/checkpoint"
	"github.com/log-bridge/log-bridge/sidecar/internal/tree"
	"golang.org/x/sys/unix"
)

// Every followed file stays open, so that it can be read to its end whatever happens to
// its name. Where there are more files than descriptors, those that are delivered whole
// are parked: closed, and opened again when their change time says that something
// happened.

// maxOpen is the most files that are open, if the process may have so many.
const maxOpen = 16384

// openLimit is how many files may be open.
func openLimit() int {
	var limit unix.Rlimit
	// Some descriptors are for the rest of the program.
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil || limit.Cur > maxOpen+64 {
		return maxOpen
	}
	return max(16, int(limit.Cur)-64)
}

// makeRoom parks the files that were idle for longest, while the limit is reached. Where none
// is delivered whole, the limit is exceeded until the kernel refuses.
func (f *Follower) makeRoom() {
	for len(f.open) >= f.limit && f.parkOne() {
	}
}

func (f *Follower) parkOne() bool {
	var idle *file
	for _, x := range f.open {
		if x.named && !x.ready && x.original == nil && x.before == nil && (idle == nil || x.grew.Before(idle.grew)) {
			idle = x
		}
	}
	if idle == nil {
		return false
	}
	st, err := idle.stat()
	if err != nil || st.Size != idle.Offset {
		idle.ready = true // its turn comes first
		return false
	}
	at := inode{idle.node.Dev, idle.node.Ino}
	f.close(idle)
	idle.changed = st.Ctim.Nano()
	f.parked[at] = idle
	f.real[idle.node.Real] = idle
	return true
}

// stillParked says whether a match is a parked file to which nothing happened.
func (f *Follower) stillParked(n tree.Node) bool {
	x := f.parked[inode{n.Dev, n.Ino}]
	if x == nil || n.Changed != x.changed || n.Size != x.Offset {
		return false
	}
	x.round, x.node = f.round, n
	return true
}

// unpark opens a parked file again, of which an event told.
func (f *Follower) unpark(x *file) {
	f.makeRoom()
	fd, n, err := x.node.Open()
	if err != nil {
		f.stale = true
		return
	}
	if id, err := ident(fd); err != nil || !id.Same(x.Ident) {
		unix.Close(fd)
		f.stale = true
		return
	}
	f.closed = slices.DeleteFunc(f.closed, func(c *file) bool { return c == x })
	f.opened(x, fd, inode{n.Dev, n.Ino})
	x.named = true
}

// opened takes an open descriptor for a file.
func (f *Follower) opened(x *file, fd int, at inode) {
	x.fd, x.ready, x.search = fd, true, search{}
	delete(f.parked, at)
	f.open = append(f.open, x)
	f.inode[at] = x
}

// lostParked says whether a parked file was not found at this look: it lost its name, or
// was deleted.
func (f *Follower) lostParked() bool {
	lost := false
	for at, x := range f.parked {
		if x.round != f.round {
			delete(f.parked, at)
			if f.real[x.node.Real] == x {
				delete(f.real, x.node.Real)
			}
			lost = lost || x.Flags&checkpoint.Done == 0
		}
	}
	return lost
}
