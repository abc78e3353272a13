package follow

import (
	"hash/crc32"
	"slices"

	"github.com/log-bridge/log-bridge/sidecar/internal/cursor"
)

// A trail is what is remembered of the bytes that were delivered of a file, within a bound: checksums of those before
// some offsets. By it a copy of them is known when they are in the file no more.
type trail struct {
	// marks are at the multiples of spacing, so that the bytes behind the last one are a small part of all.
	marks   []mark
	spacing int64
	// ends are the last offsets up to which something was delivered at once: a copying program often ends there.
	ends [8]mark
	next int
}

// mark is the checksum of the bytes before an offset, cursor.Window at the most.
type mark struct {
	at  int64
	sum uint32
}

const (
	maxMarks     = 32
	firstSpacing = 512
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// add notes that data, which starts at off and follows before, was delivered.
func (t *trail) add(before []byte, off int64, data []byte) {
	t.spacing = max(t.spacing, firstSpacing)
	end := off + int64(len(data))
	for at := (off/t.spacing + 1) * t.spacing; at <= end; at = (at/t.spacing + 1) * t.spacing {
		if len(t.marks) == maxMarks {
			t.spacing *= 2
			t.marks = slices.DeleteFunc(t.marks, func(m mark) bool { return m.at%t.spacing != 0 })
			if at%t.spacing != 0 {
				continue
			}
		}
		t.marks = append(t.marks, markAt(before, off, data, at))
	}
	t.end(markAt(before, off, data, end))
}

// begin notes that everything up to an offset was delivered, and what is before it.
func (t *trail) begin(before []byte, at int64) {
	if at > 0 && len(t.marks) == 0 {
		t.end(markAt(before, at, nil, at))
	}
}

// end notes a mark at which delivering ended for a while.
func (t *trail) end(m mark) {
	t.ends[t.next] = m
	t.next = (t.next + 1) % len(t.ends)
}

// markAt is the mark at an offset within data or at its end.
func markAt(before []byte, off int64, data []byte, at int64) mark {
	n := int(at - off)
	if n >= cursor.Window {
		return mark{at, crc32.Checksum(data[n-cursor.Window:n], castagnoli)}
	}
	before = before[max(0, len(before)+n-cursor.Window):]
	return mark{at, crc32.Update(crc32.Checksum(before, castagnoli), castagnoli, data[:n])}
}

// memory is what is remembered of a file.
type memory struct {
	trail trail  // of what was delivered since it was truncated
	pasts []past // what it held before
}

// past is what a file held before it was truncated, as far as it is remembered.
type past struct {
	head, anchor []byte
	offset       int64
	trail        trail
	// inCopy is the size of the copy from which the rest was delivered, in bytes; 0 without one. Another copy that is no longer
	// holds nothing else.
	inCopy int64
}

// maxPasts is how many truncations back that is.
const maxPasts = 2

// remember keeps what was delivered of a file that was truncated, of which inCopy bytes are in the copy that its rest is
// delivered from.
func (x *file) remember(inCopy int64) {
	if x.origin == copied || x.Offset == 0 {
		return
	}
	if len(x.pasts) == maxPasts {
		x.pasts = slices.Delete(x.pasts, 0, 1)
	}
	x.pasts = append(x.pasts, past{slices.Clone(x.Head), slices.Clone(x.Anchor), x.Offset, x.trail, inCopy})
	x.trail = trail{}
}

// isCopyOfPast says whether x, of size bytes, is a copy of what a file held before it was truncated, and up to where
// that was delivered. like is how much its name is that of a copy: where that says little, more must be the same.
func (x *file) isCopyOfPast(p *past, size int64, like likeness) (delivered int64, ok bool) {
	if !cursor.Holds(x, p.head[:min(size, int64(len(p.head)))], 0) {
		return 0, false
	}
	if size >= p.offset {
		return max(p.offset, min(size, p.inCopy)), cursor.Holds(x, p.anchor, p.offset-int64(len(p.anchor)))
	}
	if size <= int64(len(p.head)) {
		return size, like == likely
	}
	last := int64(0)
	for _, m := range slices.Concat(p.trail.marks, p.trail.ends[:]) {
		if m.at == 0 || m.at > size {
			continue
		}
		var buf [cursor.Window]byte
		n := min(m.at, cursor.Window)
		if read, err := x.Pread(buf[:n], m.at-n); err != nil || int64(read) < n || crc32.Checksum(buf[:n], castagnoli) != m.sum {
			return 0, false
		}
		last = max(last, m.at)
	}
	return size, last >= size/2
}
