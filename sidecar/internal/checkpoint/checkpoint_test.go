package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// record makes a record that differs for each n.
func record(n int) Record {
	window := bytes.Repeat([]byte{byte(n)}, Window)
	return Record{
		Ident: Ident{Dev: 1, Ino: uint64(100 + n), Birth: int64(n) * 1e9, Gen: uint32(n)},
		Flags: Flags(n), Container: "app", Path: "/var/log/app.log", Offset: int64(1000 + n), Began: int64(n),
		Head: window, Anchor: window,
	}
}

func open(t *testing.T, dir string) (*Store, map[int]Record) {
	t.Helper()
	s, records, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, records
}

// reopen closes a store and reads what it kept.
func reopen(t *testing.T, s *Store, dir string) (*Store, map[int]Record) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, dir)
}

func put(t *testing.T, s *Store, pair int, r Record) {
	t.Helper()
	if err := s.Put(pair, &r); err != nil {
		t.Fatal(err)
	}
}

func equal(t *testing.T, have, want map[int]Record) {
	t.Helper()
	if !reflect.DeepEqual(have, want) {
		t.Errorf("have %+v\nwant %+v", have, want)
	}
}

func TestRecordsAreKept(t *testing.T) {
	dir := t.TempDir()
	s, records := open(t, dir)
	if !s.First() || len(records) > 0 {
		t.Errorf("a new checkpoint: first %v, records %v", s.First(), records)
	}
	a, b := s.Alloc(), s.Alloc()
	put(t, s, a, record(1))
	put(t, s, b, record(2))
	put(t, s, a, record(3))
	put(t, s, a, record(4))
	if s, _ = reopen(t, s, dir); !s.First() {
		t.Error("a scan was completed, although nobody said so")
	}
	if err := s.Scanned(); err != nil || s.First() {
		t.Errorf("a scan is completed: first %v, %v", s.First(), err)
	}
	s, records = reopen(t, s, dir)
	equal(t, records, map[int]Record{a: record(4), b: record(2)})
	if s.First() {
		t.Error("an old checkpoint: first")
	}
	// The next record goes to the older slot, also after a restart.
	put(t, s, a, record(5))
	damage(t, dir, a, 0)
	damage(t, dir, b, 1)
	_, records = reopen(t, s, dir)
	if r := records[a]; !reflect.DeepEqual(r, record(4)) && !reflect.DeepEqual(r, record(5)) {
		t.Errorf("have %+v, want one of the last two records", r)
	}
}

// damage overwrites a slot.
func damage(t *testing.T, dir string, pair, slot int) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "checkpoint"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(bytes.Repeat([]byte{0xee}, SlotSize), int64(2*pair+slot)*SlotSize); err != nil {
		t.Fatal(err)
	}
}

func TestFree(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	a, b := s.Alloc(), s.Alloc()
	put(t, s, a, record(1))
	put(t, s, b, record(2))
	if err := s.Free(a); err != nil {
		t.Fatal(err)
	}
	s, records := reopen(t, s, dir)
	equal(t, records, map[int]Record{b: record(2)})
	if c := s.Alloc(); c != a {
		t.Errorf("have pair %d, want the free one, %d", c, a)
	}
	// The file does not grow for as long as pairs are given back.
	size := func() int64 {
		st, err := os.Stat(filepath.Join(dir, "checkpoint"))
		if err != nil {
			t.Fatal(err)
		}
		return st.Size()
	}
	before := size()
	for n := range 1000 {
		put(t, s, a, record(n+1))
		if err := s.Free(a); err != nil {
			t.Fatal(err)
		}
		if c := s.Alloc(); c != a {
			t.Fatalf("have pair %d, want %d", c, a)
		}
	}
	if size() != before {
		t.Errorf("the file grew from %d to %d bytes", before, size())
	}
}

// TestD4: whatever is cut, torn or flipped in the slot that was written last, the record before
// it is there, and nothing else is.
func TestD4_torn(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	pair := s.Alloc()
	put(t, s, pair, record(1))
	put(t, s, pair, record(2))
	s.Close()
	name := filepath.Join(dir, "checkpoint")
	before, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	s, _ = open(t, dir)
	put(t, s, pair, record(3))
	s.Close()
	after, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	try := func(what string, at int, b []byte, want Record) {
		t.Helper()
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, records, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if !reflect.DeepEqual(records, map[int]Record{pair: want}) {
			t.Fatalf("%s at byte %d: have %+v, want offset %d", what, at, records, want.Offset)
		}
	}
	first := -1 // changed byte
	for i := range after {
		if before[i] != after[i] {
			if first < 0 {
				first = i / SlotSize * SlotSize
			}
		}
	}
	for n := range SlotSize {
		// A write that was torn after n bytes. Behind the record both are zeros.
		torn := bytes.Clone(before)
		copy(torn[first:], after[first:first+n])
		want := record(2)
		if bytes.Equal(torn, after) {
			want = record(3)
		}
		try("torn", n, torn, want)
		flipped := bytes.Clone(after)
		flipped[first+n] ^= 1 << (n % 8)
		try("flipped", n, flipped, record(2))
	}
	for n := first; n < first+SlotSize; n++ {
		// Cut, so that the rest reads as zeros.
		b := after[:n]
		if first > 0 {
			try("cut", n, b, record(2))
		}
	}
	try("whole", 0, after, record(3))
}

// TestD4_foreign: a file that is no checkpoint, or of another version, is as if there were
// none, but it does not count as the first start: then files that outlive the pod would be
// followed from their end.
func TestD4_foreign(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	pair := s.Alloc()
	put(t, s, pair, record(1))
	if err := s.Scanned(); err != nil {
		t.Fatal(err)
	}
	s.Close()
	name := filepath.Join(dir, "checkpoint")
	ours, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	other := bytes.Clone(ours)
	binary.LittleEndian.PutUint32(other, magic+1)
	for what, b := range map[string][]byte{
		"another version": other, "one byte": {1}, "text": []byte(strings.Repeat("a line of a log\n", 500)),
		"zeros": make([]byte, 5*SlotSize), "half a slot": ours[:SlotSize/2], "garbage": bytes.Repeat([]byte{0xa5, 0x31}, 3000),
	} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, records, err := Open(dir)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if len(records) > 0 || s.First() {
			t.Errorf("%s: records %v, first %v", what, records, s.First())
		}
		pair := s.Alloc()
		put(t, s, pair, record(9))
		s, records = reopen(t, s, dir)
		equal(t, records, map[int]Record{pair: record(9)})
		s.Close()
	}
}

func TestWhatCannotBeOpened(t *testing.T) {
	for what, make := range map[string]func(name string) error{
		"a FIFO":       func(name string) error { return unix.Mkfifo(name, 0o600) },
		"a directory":  func(name string) error { return os.Mkdir(name, 0o700) },
		"a link":       func(name string) error { return os.Symlink("/etc/passwd", name) },
		"a dead link":  func(name string) error { return os.Symlink("elsewhere", name) },
		"no directory": func(name string) error { return os.Remove(filepath.Dir(name)) },
	} {
		dir := filepath.Join(t.TempDir(), "state")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := make(filepath.Join(dir, "checkpoint")); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Open(dir); err == nil || errors.Is(err, ErrLocked) {
			t.Errorf("%s: have %v, want an error of its own", what, err)
		}
	}
}

// TestD11: one state, one sidecar.
func TestD11(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	if _, _, err := Open(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("the second one: have %v, want %v", err, ErrLocked)
	}
	s.Close()
	open(t, dir)
}

func TestNowhere(t *testing.T) {
	s := Nowhere()
	r := record(1)
	if err := errors.Join(s.Put(s.Alloc(), &r), s.Sync(), s.Free(0), s.Close()); err != nil || s.First() {
		t.Errorf("%v, first %v", err, s.First())
	}
}

// TestLongPath: a path that does not fit is left out; everything else is kept.
func TestLongPath(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, dir)
	fits, long := record(1), record(2)
	fits.Path = "/" + strings.Repeat("x", maxPath-len(fits.Container)-1)
	long.Path = fits.Path + "x"
	long.Container = strings.Repeat("c", 63)
	a, b := s.Alloc(), s.Alloc()
	put(t, s, a, fits)
	put(t, s, b, long)
	_, records := reopen(t, s, dir)
	long.Path = ""
	equal(t, records, map[int]Record{a: fits, b: long})
}

// TestBeforeBegan: a slot of a version that did not note where following began: it counts as begun where
// it was left, because it is unknown what was delivered of the bytes before.
func TestBeforeBegan(t *testing.T) {
	var slot [SlotSize]byte
	want := record(7)
	encode(slot[:], &want, 1)
	clear(slot[SlotSize-8:])
	binary.LittleEndian.PutUint32(slot[4:], crc32.Checksum(slot[8:], castagnoli))
	have, _, ok := decode(slot[:])
	if want.Began = want.Offset; !ok || !reflect.DeepEqual(have, want) {
		t.Errorf("have %+v, %v, want %+v", have, ok, want)
	}
}

func TestSame(t *testing.T) {
	file := Ident{Dev: 1, Ino: 2, Birth: 3, Gen: 4}
	for _, test := range []struct {
		other Ident
		want  bool
		why   string
	}{
		{Ident{Dev: 1, Ino: 2, Birth: 3, Gen: 4}, true, "the same"},
		{Ident{Dev: 9, Ino: 2, Birth: 3, Gen: 4}, true, "the node was rebooted"},
		{Ident{Dev: 1, Ino: 3, Birth: 3, Gen: 4}, false, "another inode"},
		{Ident{Dev: 1, Ino: 2, Birth: 9, Gen: 4}, false, "its number was used again"},
		{Ident{Dev: 1, Ino: 2, Birth: 3, Gen: 9}, false, "in the same tick of the clock"},
	} {
		if have := file.Same(test.other); have != test.want {
			t.Errorf("%s: have %v", test.why, have)
		}
	}
	unborn := Ident{Dev: 1, Ino: 2}
	if !unborn.Same(unborn) || unborn.Same(Ident{Dev: 2, Ino: 2}) {
		t.Error("without a birth time the device counts")
	}
}

// FuzzDecode: no slot makes decode fail otherwise than by saying so, and what it accepts is
// what encode writes.
func FuzzDecode(f *testing.F) {
	var slot [SlotSize]byte
	for n := range 3 {
		r := record(n)
		encode(slot[:], &r, uint64(n))
		f.Add(bytes.Clone(slot[:]), n == 1)
	}
	f.Add([]byte{}, true)
	f.Add(bytes.Repeat([]byte{0xff}, SlotSize), true)
	f.Fuzz(func(t *testing.T, b []byte, signed bool) {
		if signed && len(b) == SlotSize {
			// Past the checksum, to what a bug or a clever writer may have left.
			binary.LittleEndian.PutUint32(b, magic)
			binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b[8:], castagnoli))
		}
		r, seq, ok := decode(b)
		if !ok {
			return
		}
		if r.Offset < 0 || len(r.Head) > Window || len(r.Anchor) > Window || int64(len(r.Anchor)) > r.Offset {
			t.Fatalf("accepted: %+v", r)
		}
		var again [SlotSize]byte
		encode(again[:], &r, seq)
		r2, seq2, ok := decode(again[:])
		if r2.Path == "" {
			r.Path = ""
		}
		if !ok || seq2 != seq || !reflect.DeepEqual(r, r2) {
			t.Errorf("have %+v, %d, %v\nwant %+v, %d", r2, seq2, ok, r, seq)
		}
	})
}

// FuzzOpen: no file makes Open fail, and whatever it holds, records can be kept in it.
func FuzzOpen(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, 3*SlotSize+7))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "checkpoint"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, records := open(t, dir)
		pair := s.Alloc()
		put(t, s, pair, record(7))
		want := maps.Clone(records)
		want[pair] = record(7)
		_, have := reopen(t, s, dir)
		equal(t, have, want)
	})
}
