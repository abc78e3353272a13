package follow

import (
	"time"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/sidecar/internal/checkpoint"
	"github.com/log-bridge/log-bridge/sidecar/internal/cursor"
	"github.com/log-bridge/log-bridge/sidecar/internal/scan"
	"github.com/log-bridge/log-bridge/sidecar/internal/tree"
)

// presence is where a file is. The index changes it.
type presence int

const (
	// away: known, but not open. It is from the checkpoint and not found yet, or its handle was lost.
	away presence = iota
	// named: open, and a source matched its name at the last scan.
	named
	// rotated: open, and no source matches its name any more. It is followed until nobody can append to it.
	rotated
	// parked: closed because descriptors ran out. It has a name, and is opened again when something happens to it.
	parked
	// finished: rotated and delivered whole. It is remembered so that it is not delivered again under a new name.
	finished
)

// origin says whose lines a file holds. copy.go changes it.
type origin int

const (
	// undecided: nothing of it is delivered, and nobody has judged it.
	undecided origin = iota
	// own: a log of its own.
	own
	// held: its content is the beginning of another file's, so nothing of it is delivered.
	held
	// copied: a copy. What its original lost by a truncation is delivered from it, and nothing else.
	copied
)

// file is one followed file: an inode, whatever its names are at the moment. In the sense of log rotation it is a
// generation of a log.
type file struct {
	checkpoint.Ident
	cursor.Cursor
	handle

	presence presence
	origin   origin
	place    contract.Place // the name of its lines: its own last one, or its original's
	src      *scan.Source   // that found it; nil while it is away
	node     tree.Node      // where it was last found
	stderr   bool           // its lines go to stderr
	log      *log           // its queue, while it is open
	round    uint64         // number of the last scan that found it
	emptyAt  int64          // when it was found empty, in ns since 1970, if that is since the last scan or it is so still

	turns
	hold
	memory
	record
	freed
	indexed
	rest rest // while it is finished or parked
}

// turns is what the sweep knows of a file.
type turns struct {
	ready bool // it may have bytes that are not delivered
	// pending says that it was not read to its end since it was found or lost its name: later generations wait.
	pending bool
	failed  bool      // it could not be read the last time
	grew    time.Time // when it last had something to deliver, or lost its name
	// moved says that it was renamed since it was first followed, and left that it was read to its end since then:
	// nobody begins it again.
	moved, left bool
	doubted     bool // it seems to be overwritten, and a scan is to say whether it still has its name
}

// current says whether a file has its name now, rather than being an earlier generation or a copy of one.
func (x *file) current() bool { return x.presence == named && x.origin != copied }

// isOpen says whether it has a descriptor.
func (x *file) isOpen() bool { return x.fd >= 0 }
