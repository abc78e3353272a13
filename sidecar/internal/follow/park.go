package follow

import (
	"github.com/log-bridge/log-bridge/sidecar/internal/tree"
	"golang.org/x/sys/unix"
)

// Every followed file stays open, so that it can be read to its end whatever happens to its name. Where there are more
// files than descriptors, those that are delivered whole are parked: closed, and opened again when their change time
// says that something happened.

// limits are on what is open and remembered.
type limits struct {
	open     int // files at the most
	forgetAt int // how many closed files ask for a search for which of them still exist
}

// maxOpen is the most files that are open, if the process may have so many.
const maxOpen = 16384

// forgetLeast is how many closed files are remembered before those that are gone are forgotten.
const forgetLeast = 64

// openLimit is how many files may be open.
func openLimit() int {
	var limit unix.Rlimit
	// Some descriptors are for the rest of the program.
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil || limit.Cur > maxOpen+64 {
		return maxOpen
	}
	return max(16, int(limit.Cur)-64)
}

// lowerLimit notes that the kernel refuses another descriptor.
func (f *Follower) lowerLimit() {
	f.limits.open = max(16, len(f.index.open)-4)
	f.makeRoom()
}

// makeRoom parks the files that were idle for longest, while the limit is reached. Where none is delivered whole, the
// limit is exceeded until the kernel refuses.
func (f *Follower) makeRoom() {
	for len(f.index.open) >= f.limits.open && f.parkOne() {
	}
}

func (f *Follower) parkOne() bool {
	var idle *file
	for _, x := range f.index.open {
		if x.presence == named && !x.ready && x.original == nil && x.log.generations[0] == x && (idle == nil || x.grew.Before(idle.grew)) {
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
	idle.rest = restOf(&st)
	f.close(idle, parked)
	return true
}

// stillParked says whether a match is a parked file to which nothing happened.
func (f *Follower) stillParked(n tree.Node, round uint64) bool {
	x := f.index.parked[inodeOf(n)]
	if x == nil || n.Changed != x.rest.changed || n.Size != x.Offset {
		return false
	}
	x.round, x.node = round, n
	return true
}

// unpark opens a parked file again, of which an event told.
func (f *Follower) unpark(x *file) {
	f.makeRoom()
	fd, n, err := x.node.Open()
	if err != nil {
		f.when.stale = true
		return
	}
	if id, err := ident(fd); err != nil || !id.Same(x.Ident) {
		unix.Close(fd)
		f.when.stale = true
		return
	}
	src := x.src
	f.index.opened(x, fd, inodeOf(n), src, n)
	f.index.named(x, n)
}

// rest is what a finished file was when it was closed: its size in bytes, and the times of its last write and of its
// last change in ns since 1970.
type rest struct{ size, modified, changed int64 }

func restOf(st *unix.Stat_t) rest { return rest{st.Size, st.Mtim.Nano(), st.Ctim.Nano()} }

// close closes a file's descriptor; its record is kept.
func (f *Follower) close(x *file, p presence) {
	if !x.isOpen() {
		return
	}
	unix.Close(x.fd)
	f.index.close(x, p)
}

// readFailed says that a file cannot be read; it is tried again at the next scan.
func (f *Follower) readFailed(x *file, err error) {
	x.failed = true
	f.say.Once(x.place.String(), "%s cannot be read (%v); keeping its offset and retrying", x.place, err)
	if err == unix.ESTALE {
		f.close(x, away) // the server forgot the handle: the next scan opens it by name
	}
}

// forget frees the record of a closed file that is gone.
func (f *Follower) forget(x *file) {
	f.index.forget(x)
	f.record.free(x)
}
