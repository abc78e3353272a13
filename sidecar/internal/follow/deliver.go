package follow

import (
	"bytes"
	"time"

	"github.com/log-bridge/log-bridge/sidecar/internal/cursor"
	"github.com/log-bridge/log-bridge/sidecar/internal/emit"
)

// leastStep is what a step counts at the least, in bytes, so that a file that is truncated again and again ends its
// turn as well.
const leastStep = 16 << 10

var newline = []byte("\n")

// serve delivers what a file has, at most one turn. It returns how many bytes it delivered. The file stays ready if
// there may be more. An error is one of the output; errors of the file are said, and the file is tried again later.
func (f *Follower) serve(x *file, now time.Time) (delivered int64, err error) {
	if f.isHeld(x, now, f.ending) {
		x.ready, x.pending = false, false
		return 0, nil
	}
	for spent := int64(0); spent < cursor.Turn; {
		n, read, again, err := f.step(x, now)
		delivered += n
		spent += max(n, read, leastStep)
		if n > 0 {
			x.grew = now
		}
		if err != nil {
			return delivered, err
		}
		f.reclaim(x, now)
		if !again {
			x.ready, x.pending = false, false
			break
		}
		if !x.log.first(x) {
			break // a truncation came to light, and a copy that goes first
		}
	}
	return delivered, nil
}

// step does what the cursor says. read is how many bytes it read without delivering any; again says that there may be
// more.
func (f *Follower) step(x *file, now time.Time) (delivered, read int64, again bool, err error) {
	s := x.Next(x, f.buf)
	x.failed = false
	if s.AtEnd {
		x.left = x.presence == rotated || x.moved
	}
	switch s.Kind {
	case cursor.Wait:
		return 0, s.Read, false, nil
	case cursor.Again:
		return 0, s.Read, true, nil
	case cursor.Moved:
		f.record.keep(x)
		return 0, s.Read, true, nil
	case cursor.Truncated:
		return 0, s.Read, f.truncated(x, now), nil
	case cursor.Failed:
		f.readFailed(x, s.Err)
		return 0, s.Read, false, nil
	case cursor.LongLine:
		n, whole, err := x.Line(x, s.End, f.buf, f.put(x))
		if err == nil && whole {
			f.delivered(x, n, 1)
		}
		return n, s.Read, true, err
	case cursor.Deliver:
	}
	out, err := f.sink(x).Lines(x.place.Container, x.place.Path, s.Data)
	if err != nil {
		// Only whole lines count as delivered.
		out = bytes.LastIndexByte(s.Data[:out], '\n') + 1
	}
	if data := s.Data[:out]; out > 0 {
		if x.origin != copied {
			x.trail.add(x.Anchor, x.Offset, data)
		}
		x.Advance(data)
		lines := 0
		if f.cfg.Stats > 0 {
			lines = bytes.Count(data, newline)
		}
		f.delivered(x, int64(out), lines)
	}
	return int64(out), 0, !s.AtEnd, err
}

// delivered keeps the offset after n bytes that were delivered.
func (f *Follower) delivered(x *file, n int64, lines int) {
	f.record.keep(x)
	f.stats.Bytes += n
	if f.cfg.Stats > 0 {
		f.stats.Lines += int64(lines)
	}
}

// flush delivers an unfinished last line and ends it. again is true if there are whole lines first.
func (f *Follower) flush(x *file) (again bool, err error) {
	n, again, err := x.Flush(x, f.buf, f.put(x))
	if err == nil && x.Cut {
		f.delivered(x, n, 1)
	}
	return again, err
}

// put gives pieces of a line to the sink of a file.
func (f *Follower) put(x *file) cursor.Put {
	return func(piece []byte, first, last bool) error {
		return f.sink(x).Piece(x.place.Container, x.place.Path, piece, first, last)
	}
}

// sink is where a file's lines go.
func (f *Follower) sink(x *file) *emit.Sink {
	if x.stderr {
		return f.stderr
	}
	return f.stdout
}

// truncated decides where a file goes on whose delivered bytes are gone. It returns whether there may be something to
// read.
func (f *Follower) truncated(x *file, now time.Time) bool {
	loss, size, err := x.Loss(x)
	if err != nil {
		f.readFailed(x, err)
		return false
	}
	if x.origin == copied {
		// Overwritten, perhaps by the next copy: judged again.
		f.restart(x)
		place := x.place
		place.Path = x.node.Path
		f.index.relabel(x, x.src, place)
		f.record.keep(x)
		return false
	}
	if loss == cursor.NoText {
		switch {
		case x.left, x.doubted && (x.presence == rotated || x.moved):
			x.doubted = false
			// An earlier generation that was read to its end and is overwritten is done, as by shred(1).
			if err := x.StartAt(x, size); err != nil {
				f.readFailed(x, err)
				return false
			}
			f.record.keep(x)
			return true
		case !x.doubted && !f.ending && x.ReadTo(x.Offset):
			// It may have lost its name just now.
			x.doubted, f.when.stale = true, true
			return false
		}
	}
	x.doubted = false
	f.stats.Truncations++
	if loss == cursor.Shrunk {
		f.say.Say("%s was truncated from %s to %s; continuing at its new end", x.place, emit.Size(x.Offset), emit.Size(size))
		x.trail, x.upTo = trail{}, 0
		if err := x.CutTo(x, size); err != nil {
			f.readFailed(x, err)
			return false
		}
	} else {
		inCopy := f.recoverFromCopy(x, now)
		f.settleCopies(x)
		x.remember(inCopy)
		f.restart(x)
	}
	f.judgeAgain()
	f.record.keep(x)
	return true
}

// restart forgets what was delivered of a file: it is another one from its first byte on.
func (f *Follower) restart(x *file) {
	x.Restart()
	f.release(x, undecided)
	x.trail, x.upTo, x.emptyAt = trail{}, 0, nowish()
}
