package follow

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/log-bridge/log-bridge/sidecar/internal/cursor"
)

// TestCopyOfPast: of which files it is said that they are copies of what was delivered, however it was delivered.
func TestCopyOfPast(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var log []byte
	for i := range 4000 {
		log = fmt.Appendf(log, "%06d %s\n", i, bytes.Repeat([]byte("x"), random.IntN(120)))
	}
	for _, length := range []int{40, 300, 5000, len(log)} {
		x := &file{}
		var tr trail
		var anchor []byte
		for at := 0; at < length; {
			n := min(length-at, 1+random.IntN(20_000))
			tr.add(anchor, int64(at), log[at:at+n])
			anchor = cursor.Last(anchor, log[at:at+n])
			at += n
		}
		if len(tr.marks) > maxMarks {
			t.Fatalf("%d marks", len(tr.marks))
		}
		p := past{bytes.Clone(log[:min(length, 256)]), anchor, int64(length), tr, 0}
		like := func(content []byte) (int64, bool) {
			name := filepath.Join(t.TempDir(), "copy")
			if err := os.WriteFile(name, content, 0o644); err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			x.fd = int(f.Fd())
			return x.isCopyOfPast(&p, int64(len(content)), likely)
		}
		for _, size := range []int{length, length - length/10, length / 2, length - 1, 30} {
			if n, ok := like(log[:size]); !ok && (size >= 512 || size <= 256) || ok && n != int64(size) {
				t.Errorf("%d of %d bytes: have %d, %v", size, length, n, ok)
			}
		}
		if n, ok := like(append(bytes.Clone(log[:length]), "and more\n"...)); !ok || n != int64(length) {
			t.Errorf("%d bytes and more: have %d, %v", length, n, ok)
		}
		for _, at := range []int{0, length / 3} {
			other := bytes.Clone(log[:length])
			for i := at; i < min(at+length/4+1, length); i++ {
				other[i] = '-'
			}
			if _, ok := like(other[:length-length/20]); ok {
				t.Errorf("%d bytes, others from %d on, are a copy", length, at)
			}
		}
	}
}
