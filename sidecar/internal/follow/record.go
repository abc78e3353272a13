package follow

import (
	"time"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/sidecar/internal/checkpoint"
	"github.com/log-bridge/log-bridge/sidecar/internal/cursor"
	"github.com/log-bridge/log-bridge/sidecar/internal/say"
)

// record is where a file is in the checkpoint.
type record struct {
	pair   int
	unkept bool // the checkpoint could not take it
}

// recorder writes what a restart must know into the checkpoint.
type recorder struct {
	store  *checkpoint.Store
	say    *say.Sayer
	dirty  bool // the checkpoint has changed since it was synced
	failed bool
	unkept map[*file]bool
	synced time.Time
	out    checkpoint.Record // scratch memory
}

// flags are what a record says of a file beside its offset.
func (x *file) flags() (f checkpoint.Flags) {
	set := func(flag checkpoint.Flags, yes bool) {
		if yes {
			f |= flag
		}
	}
	set(checkpoint.Done, x.presence == finished)
	set(checkpoint.Copy, x.origin == copied)
	set(checkpoint.Held, x.origin == held)
	set(checkpoint.Cut, x.Cut)
	set(checkpoint.Stderr, x.stderr)
	set(checkpoint.Emptied, x.Emptied)
	return f
}

// fileOf makes a file of a record.
func fileOf(pair int, r *checkpoint.Record) *file {
	has := func(flag checkpoint.Flags) bool { return r.Flags&flag != 0 }
	x := &file{
		Ident:  r.Ident,
		Cursor: cursor.Cursor{Offset: r.Offset, Began: r.Began, Head: r.Head, Anchor: r.Anchor, Cut: has(checkpoint.Cut), Emptied: has(checkpoint.Emptied)},
		handle: handle{fd: -1}, place: contract.Place{Container: r.Container, Path: r.Path},
		stderr: has(checkpoint.Stderr), record: record{pair: pair},
	}
	if r.Offset == 0 && len(r.Head) == 0 {
		x.emptyAt = 1 // some time before now
	}
	switch {
	case has(checkpoint.Copy):
		x.origin = copied
	case has(checkpoint.Held):
		x.origin = held
	case r.Offset > 0:
		x.origin = own
	}
	if has(checkpoint.Done) {
		x.presence = finished
	}
	return x
}

// keep writes a file's record. If that fails the sidecar goes on: a restart then delivers again what it cannot know to
// be delivered.
func (r *recorder) keep(x *file) {
	r.dirty = true
	r.out = checkpoint.Record{
		Ident: x.Ident, Flags: x.flags(), Container: x.place.Container, Path: x.place.Path,
		Offset: x.Offset, Began: x.Began, Head: x.Head, Anchor: x.Anchor,
	}
	err := r.store.Put(x.pair, &r.out)
	if x.unkept = err != nil; x.unkept {
		r.unkept[x] = true
	} else {
		delete(r.unkept, x)
	}
	if (err != nil) != r.failed {
		r.failed = err != nil
		if err != nil {
			r.say.Say("%v; lines are still delivered, but a restart of the sidecar would repeat them", err)
		} else {
			r.say.Say("the checkpoint is writable again")
		}
	}
}

// keepAgain writes the records that could not be written.
func (r *recorder) keepAgain() {
	for x := range r.unkept {
		r.keep(x)
	}
}

// free gives up a file's record.
func (r *recorder) free(x *file) {
	delete(r.unkept, x)
	if err := r.store.Free(x.pair); err != nil {
		r.say.Once("checkpoint", "%v", err)
	}
}

// syncNow makes the records survive the end of the node.
func (r *recorder) syncNow(now time.Time) error {
	r.synced, r.dirty = now, false
	return r.store.Sync()
}

// sync does so now and then.
func (r *recorder) sync(now time.Time) {
	if !r.dirty || now.Sub(r.synced) < syncEvery {
		return
	}
	if err := r.syncNow(now); err != nil {
		r.say.Once("sync", "%v", err)
	}
}
