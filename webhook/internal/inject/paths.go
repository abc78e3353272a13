package inject

import (
	"cmp"
	"slices"

	"github.com/log-bridge/log-bridge/sidecar/contract"
)

// paths are sorted, clean and absolute.
type paths []string

// topmost keeps of some directories those that lie in no other of them, sorted.
func topmost(dirs []string) paths {
	slices.SortFunc(dirs, func(a, b string) int { return cmp.Compare(a+"/", b+"/") })
	var top []string
	for _, d := range dirs {
		if len(top) == 0 || !contract.Covers(top[len(top)-1], d) {
			top = append(top, d)
		}
	}
	slices.Sort(top)
	return top
}

// covering is the path that is of or lies above it.
func (p paths) covering(of string) (string, bool) {
	for dir := of; ; dir = parent(dir) {
		if _, ok := slices.BinarySearch(p, dir); ok {
			return dir, true
		}
		if dir == "/" {
			return "", false
		}
	}
}

// within is a path that lies beneath dir.
func (p paths) within(dir string) (string, bool) {
	i, _ := slices.BinarySearch(p, dir+"/")
	if i < len(p) && contract.Covers(dir, p[i]) {
		return p[i], true
	}
	return "", false
}
