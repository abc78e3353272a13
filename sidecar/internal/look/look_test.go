package look_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/sidecar/internal/look"
)

// node is a proc(5) with one process, whose root is a directory of the test.
type node struct {
	t          *testing.T
	proc, root string
	fds        int
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{t: t, proc: t.TempDir(), root: t.TempDir()}
	n.write(n.proc+"/1/status", "Name:\tapp\nUid:\t7\t1000\t7\t7\nGid:\t7\t1001\t7\t7\nCapPrm:\t00000000a80425fb\n")
	n.write(n.proc+"/1/comm", "app\n")
	n.write(n.proc+"/1/cgroup", "0::/kubepods/pod1/abc\n")
	if err := os.Symlink(n.root, n.proc+"/1/root"); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *node) write(name, text string) {
	n.t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		n.t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		n.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		n.t.Fatal(err)
	}
}

// opened lets the process have a path open, with these flags in octal.
func (n *node) opened(path, flags string) {
	n.t.Helper()
	n.fds++
	n.write(fmt.Sprintf("%s/1/fdinfo/%d", n.proc, n.fds), "pos:\t0\nflags:\t"+flags+"\nmnt_id:\t1\n")
	if err := os.MkdirAll(n.proc+"/1/fd", 0o755); err != nil {
		n.t.Fatal(err)
	}
	if err := os.Symlink(path, fmt.Sprintf("%s/1/fd/%d", n.proc, n.fds)); err != nil {
		n.t.Fatal(err)
	}
}

// look looks, and reads what is printed.
func (n *node) look(o look.Options) (contract.Looked, map[string]contract.Seen) {
	n.t.Helper()
	o.Proc = n.proc
	var out bytes.Buffer
	if err := look.Container(o, &out); err != nil {
		n.t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var looked contract.Looked
	strict(n.t, lines[0], &looked)
	seen := map[string]contract.Seen{}
	for _, line := range lines[1:] {
		var f contract.Seen
		strict(n.t, line, &f)
		seen[f.Path] = f
	}
	return looked, seen
}

// strict reads a line that has no other field than those of the contract.
func strict(t *testing.T, line string, to any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
}

const never = 1 << 40 // no closed file has changed since

// What is open for writing is found, with what it holds and who has it; what is open for reading, deleted, no file, or the
// kernel's is not.
func TestOpenFiles(t *testing.T) {
	n := newNode(t)
	for name, text := range map[string]string{"/srv/a.log": "one\n", "/srv/e.log": "", "/srv/db": "x\x00y", "/srv/r.log": "x", "/dev/null": "x", "/srv/quo\"te\n.log": "x"} {
		n.write(n.root+name, text)
	}
	n.opened("/srv/a.log", "0102001") // O_WRONLY|O_APPEND|O_LARGEFILE
	n.opened("/srv/e.log", "01")
	n.opened("/srv/db", "02")
	n.opened("/srv/r.log", "0")
	n.opened("/srv/quo\"te\n.log", "01")
	n.opened("/srv/gone.log (deleted)", "01")
	n.opened("socket:[1]", "02")
	n.opened("/dev/null", "01")
	looked, seen := n.look(look.Options{Since: never})
	if looked != (contract.Looked{PID: 1, Uid: 1000, Gid: 1001, Caps: "a80425fb"}) {
		t.Errorf("%+v", looked)
	}
	if len(seen) != 4 {
		t.Errorf("%v", seen)
	}
	if f := seen["/srv/a.log"]; f.Program != "app" || !f.Append || f.ReadWrite || f.Size != 4 || f.Content != contract.Text || f.Mode != 0o644 {
		t.Errorf("%+v", f)
	}
	if f := seen["/srv/e.log"]; f.Append || f.Content != contract.Empty {
		t.Errorf("%+v", f)
	}
	if f := seen["/srv/db"]; !f.ReadWrite || f.Content != contract.Binary {
		t.Errorf("%+v", f)
	}
	if _, ok := seen["/srv/quo\"te\n.log"]; !ok {
		t.Error("a name with a quote and a newline is missing")
	}
}

// What was closed is found if it has changed since the container started, below all directories but the kernel's.
func TestClosedFiles(t *testing.T) {
	n := newNode(t)
	for _, name := range []string{"/x.log", "/a/b/c/y.log", "/proc/z.log", "/sys/z.log", "/dev/shm/z.log"} {
		n.write(n.root+name, "x")
	}
	if _, seen := n.look(look.Options{}); len(seen) != 2 || seen["/x.log"].Program != "" || seen["/a/b/c/y.log"].Path == "" {
		t.Errorf("%v", seen)
	}
	if _, seen := n.look(look.Options{Since: never}); len(seen) != 0 {
		t.Errorf("%v", seen)
	}
}

// While it watches, it sees what grows, and how a log rotates.
func TestWatch(t *testing.T) {
	n := newNode(t)
	for _, name := range []string{"grows", "renamed", "truncated", "still"} {
		n.write(n.root+"/"+name, "12345\n")
	}
	done := make(chan error, 1)
	time.AfterFunc(200*time.Millisecond, func() {
		n.write(n.root+"/grows", "678\n")
		err := os.Rename(n.root+"/renamed", n.root+"/renamed.1")
		n.write(n.root+"/renamed", "1\n")
		done <- errorsOf(err, os.Truncate(n.root+"/truncated", 2))
	})
	_, seen := n.look(look.Options{Watch: time.Second})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		grew    int64
		rotated contract.Rotation
	}{"/grows": {4, ""}, "/renamed": {2, contract.Renamed}, "/truncated": {2, contract.Truncated}, "/still": {}} {
		if f := seen[name]; f.Grew != want.grew || f.Rotated != want.rotated {
			t.Errorf("%s grew by %d, %q; want %d, %q", name, f.Grew, f.Rotated, want.grew, want.rotated)
		}
	}
}

func errorsOf(all ...error) error {
	for _, err := range all {
		if err != nil {
			return err
		}
	}
	return nil
}

// No link leads out of the container.
func TestLinksStayInside(t *testing.T) {
	n := newNode(t)
	outside := t.TempDir()
	n.write(outside+"/secret.log", "x")
	if err := os.Symlink(outside, n.root+"/link"); err != nil {
		t.Fatal(err)
	}
	n.opened("/link/secret.log", "01")
	n.opened("/../../"+outside+"/secret.log", "01")
	if _, seen := n.look(look.Options{}); len(seen) != 0 {
		t.Errorf("%v", seen)
	}
}

// A container that shares its process namespace is known by its ID.
func TestContainerID(t *testing.T) {
	n := newNode(t)
	n.write(n.root+"/x.log", "x")
	if looked, seen := n.look(look.Options{Container: "abc"}); looked.PID != 1 || len(seen) != 1 {
		t.Errorf("%+v, %v", looked, seen)
	}
	if err := look.Container(look.Options{Proc: n.proc, Container: "other"}, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "no process") {
		t.Errorf("a container that is not there: %v", err)
	}
}
