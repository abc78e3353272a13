package follow

import (
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// Tests do much in a moment.
func init() {
	stampAge = 20 * time.Millisecond // more than a tick of the kernel's clock
	if tellsApart() {
		stampAge = 0
	}
}

// tellsApart says whether the kernel gives another change time to what follows a stat(2), however
// soon.
func tellsApart() bool {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		return false
	}
	defer os.RemoveAll(dir)
	before := stampOf(dir)
	for i := range 20 {
		if os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), nil, 0o600) != nil {
			return false
		}
		now := stampOf(dir)
		if now == before {
			return false
		}
		before = now
	}
	return true
}
