package inject

import (
	"maps"
	"slices"
	"strings"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/finding"
)

// Misplaced finds our annotations on a workload itself (outer), where they do nothing:
// Kubernetes does not hand them on to its pods. Tools that put annotations on
// everything also put them where they count (inner).
func Misplaced(outer, inner map[string]string) finding.List {
	var all finding.List
	for _, key := range slices.Sorted(maps.Keys(outer)) {
		if _, inside := inner[key]; strings.HasPrefix(key, contract.Prefix) && !inside {
			all.Add(finding.AnnotationOnWorkload, "%s is on the workload itself, where it has no effect; move it to the annotations of the pod template", key)
		}
	}
	return all
}
