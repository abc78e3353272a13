package follow_test

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/log-bridge/log-bridge/sidecar/internal/follow"
)

// TestContinuesOldCheckpoint: what an earlier version wrote is continued without a lost or a
// repeated line. The directory holds its checkpoint, the files as it was killed, and their inode
// numbers then.
func TestContinuesOldCheckpoint(t *testing.T) {
	bothWays(t, func(t *testing.T, events bool) {
		const old = "testdata/checkpoint-LB01"
		s := newStage(t, events, "app:/logs/err.log", "app:/logs/app.log", "app:/logs/g*.log*", "app:/logs/cut.log")
		today := map[uint64]string{} // by the inode number of old
		numbers, err := os.ReadFile(filepath.Join(old, "inodes"))
		must(err)
		var names []string
		for line := range strings.Lines(string(numbers)) {
			var ino uint64
			var name string
			_, err := fmt.Sscan(line, &ino, &name)
			must(err)
			today[ino] = name
			names = append(names, name)
		}
		// Made in the order of their generations, as they were.
		slices.SortFunc(names, func(a, b string) int { return strings.Compare(order(a), order(b)) })
		for _, name := range names {
			data, err := os.ReadFile(filepath.Join(old, "logs", name))
			must(err)
			must(os.WriteFile(s.path(name), data, 0o644))
		}
		data, err := os.ReadFile(filepath.Join(old, "checkpoint"))
		must(err)
		// The layout as that version had it: magic, crc of all that follows it, seq, dev, ino, birth, gen.
		le := binary.LittleEndian
		const slot = 1024
		for at := 0; at < len(data); at += slot {
			b := data[at : at+slot]
			if string(b[:4]) != "10BL" {
				t.Fatalf("slot %d is not of that version", at/slot)
			}
			f, err := os.Open(s.path(today[le.Uint64(b[24:])]))
			must(err)
			id, err := follow.Ident(int(f.Fd()))
			must(err)
			f.Close()
			le.PutUint64(b[16:], id.Dev)
			le.PutUint64(b[24:], id.Ino)
			le.PutUint64(b[32:], uint64(id.Birth))
			le.PutUint32(b[40:], id.Gen)
			le.PutUint32(b[4:], crc32.Checksum(b[8:], crc32.MakeTable(crc32.Castagnoli)))
		}
		must(os.WriteFile(filepath.Join(s.state, "checkpoint"), data, 0o600))

		s.start()
		s.want(s.rest(0), "")
		s.append("app.log", "ished\n")     // it was unfinished
		s.append("cut.log", "\ncut two\n") // its last line was ended by us
		s.append("g.log", "g three\n")     // g.log.1 was held as its copy
		s.append("gh.log", "gh newer\n")   // it was truncated; gh.log.1 is the copy
		s.append("err.log", "err two\n")
		must(os.Rename(s.path("app.log"), s.path("app.log.2")))
		s.append("app.log", "app four\n")
		if err := s.sidecar.rest(0); err != nil {
			t.Fatal(err)
		}
		s.want(strings.Join(sorted(s.delivered()), ""),
			strings.Join(sorted("app unfinished\ncut two\ng three\ngh newer\nerr two\napp four\n"), ""))
		must(os.Truncate(s.path("g.log"), 0))
		s.append("g.log", "g four\n")
		if err := s.sidecar.rest(0); err != nil {
			t.Fatal(err)
		}
		s.want(strings.Join(sorted(s.delivered()), ""),
			strings.Join(sorted("app unfinished\ncut two\ng three\ngh newer\nerr two\napp four\ng four\n"), ""))
	})
}

// order is when a file was made beside the others of its name: a rotated one was there first, a copy last.
func order(name string) string {
	if name == "app.log.1" {
		return "app.log"
	}
	if name == "app.log" {
		return "app.log.x"
	}
	return name
}
