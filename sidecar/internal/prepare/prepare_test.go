package prepare

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/log-bridge/log-bridge/sidecar/contract"
)

// A container that mounts the application's files before the sidecar starts may be started again at
// any moment of the first start, and the kubelet then makes its directories again. Once the
// sidecar is done, the file is a file.
func TestMadeAgainMeanwhile(t *testing.T) {
	aside := 0
	for range 200 {
		top := t.TempDir()
		file := filepath.Join(top, "app/srv/app.log")
		cfg := contract.Config{Roots: []string{top},
			Files: []contract.Place{{Container: "app", Path: "/srv/app.log"}},
			Dirs:  []contract.Place{{Container: "app", Path: "/var/log"}},
		}
		done := make(chan struct{})
		var kubelet sync.WaitGroup
		kubelet.Go(func() {
			for {
				// It stops at what is no directory, as the kubelet does at what is there.
				_ = os.MkdirAll(file, 0o777)
				select {
				case <-done:
					return
				default:
				}
			}
		})
		err := Make(cfg, func(string, ...any) { aside++ })
		close(done)
		kubelet.Wait()
		if err != nil {
			t.Fatal(err)
		}
		if st, err := os.Lstat(file); err != nil || !st.Mode().IsRegular() {
			t.Fatalf("%v %v; want a file", st, err)
		}
		if _, err := os.Lstat(filepath.Join(top, ".new-app")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("what was made aside is still there: %v", err)
		}
		// A later start recognizes it.
		if err := Make(cfg, func(format string, args ...any) { t.Errorf(format, args...) }); err != nil {
			t.Error(err)
		}
	}
	if aside == 0 {
		t.Error("nothing was ever in the way, so this has shown nothing")
	}
}
