package inject

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// mountIndex holds the volume mounts of one container by their paths, so that the cost of many
// entries in a pod of many mounts is their sum and not their product.
type mountIndex struct {
	all  []corev1.VolumeMount
	at   []string // the clean path of each
	by   map[string]int
	sort []int // indices, by path
	sum  []int // lengths of the sorted paths so far
}

func newMountIndex(of []corev1.VolumeMount) *mountIndex {
	m := &mountIndex{all: of, by: make(map[string]int, len(of)), sum: []int{0}}
	for i, mount := range of {
		at := mountPath(mount)
		m.at = append(m.at, at)
		// Of two at one path, which the API server refuses, the first one counts.
		if _, twice := m.by[at]; !twice {
			m.by[at] = i
			m.sort = append(m.sort, i)
		}
	}
	slices.SortFunc(m.sort, func(a, b int) int { return strings.Compare(m.at[a], m.at[b]) })
	for _, i := range m.sort {
		m.sum = append(m.sum, m.sum[len(m.sum)-1]+len(m.at[i])+8)
	}
	return m
}

// covering is the deepest mount that covers a path.
func (m *mountIndex) covering(of string) (corev1.VolumeMount, bool) {
	for dir := of; ; {
		if i, ok := m.by[dir]; ok {
			return m.all[i], true
		}
		if dir == "/" {
			return corev1.VolumeMount{}, false
		}
		dir = parent(dir)
	}
}

// parent is the directory of a clean absolute path.
func parent(p string) string {
	if i := strings.LastIndexByte(p, '/'); i > 0 {
		return p[:i]
	}
	return "/"
}

// beneath are the mounts within a directory, without one at it, in the order of their
// paths: a part of m.sort. weight is the length of their paths together.
func (m *mountIndex) beneath(dir string) (indices []int, weight int) {
	prefix := strings.TrimSuffix(dir, "/") + "/"
	first := func(than string) int {
		i, _ := slices.BinarySearchFunc(m.sort, than, func(i int, than string) int { return strings.Compare(m.at[i], than) })
		return i
	}
	from, to := first(prefix), first(strings.TrimSuffix(prefix, "/")+"0") // '0' comes after '/'
	if dir == "/" {
		to = len(m.sort)
		if from < to && m.at[m.sort[from]] == "/" {
			from++
		}
	}
	return m.sort[from:to], m.sum[to] - m.sum[from]
}
