package follow

import (
	"path/filepath"
	"time"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"golang.org/x/sys/unix"
)

const (
	// reclaimStep is the least that is freed at once, in bytes.
	reclaimStep = 8 << 20
	// reclaimKeep is what stays before the offset, in bytes: the anchor, and some
	// lines for who looks into the file.
	reclaimKeep = 64 << 10
	// reclaimHead is what stays at the beginning of the file, in bytes: the head that
	// tells the file from others is in it.
	reclaimHead = 4 << 10
	// reclaimAlign is what the end of the freed range is rounded down to, in bytes: a
	// large page, so that file systems free whole blocks.
	reclaimAlign = 64 << 10
)

// freed is what was freed of a file.
type freed struct {
	upTo  int64 // up to here the blocks are freed
	never bool  // freeing them is not possible
}

// reclaim frees the disk blocks of delivered bytes of a file of the shared emptyDir. The
// file keeps its size, and everybody's offsets in it stay as they are; what was freed
// reads as NULs. Nothing is freed that a restart would need: the checkpoint is synced
// first. Nor is anything that was in the file before it was followed, such as what an image or
// another pod put there. The bytes that are still in the pipe are copies and do not change.
func (f *Follower) reclaim(x *file, now time.Time) {
	end := (x.Offset - reclaimKeep) / reclaimAlign * reclaimAlign
	from := max(x.upTo, x.Began, reclaimHead)
	if !f.cfg.Reclaim || x.never || end-from < reclaimStep {
		return
	}
	name := x.place.String()
	root, err := filepath.Abs(filepath.Join(f.cfg.Roots[0], x.place.Container))
	if err == nil {
		var real string
		if real, err = filepath.Abs(x.node.Real); err == nil && !contract.Covers(root, real) {
			x.never = true
			f.say.Once("reclaim "+name, "%s: %s%s has no effect: the file is on another volume, not on log-bridge's emptyDir", name, contract.Prefix, contract.KeyReclaim)
			return
		}
	}
	if err == nil {
		err = f.record.syncNow(now)
	}
	if err != nil {
		f.say.Once("sync", "%v", err)
		return
	}
	if err := x.punch(from, end); err != nil {
		x.never = true
		f.say.Once("reclaim "+name, "%s: %s%s cannot free blocks: %v", name, contract.Prefix, contract.KeyReclaim, err)
		return
	}
	f.stats.Reclaimed += end - from
	x.upTo = end
}

// punch frees the blocks of [from, to). It opens the file again, for writing, and checks
// that it is still the same.
func (x *file) punch(from, to int64) error {
	fd, opened, err := x.node.OpenToPunch()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// Its number is its own while it is open.
	st, err := x.stat()
	if err != nil {
		return err
	}
	if opened.Dev != uint64(st.Dev) || opened.Ino != st.Ino { //nolint:unconvert // Dev is 32 bits wide on some architectures
		return nil // renamed since it was last looked for; the next look finds it
	}
	for {
		err = unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, from, to-from)
		if err != unix.EINTR {
			return err
		}
	}
}
