package inject

import (
	"maps"
	"slices"
	"strings"

	"github.com/log-bridge/log-bridge/sidecar/contract"
)

// Misplaced finds our annotations on a workload itself (outer), where they do nothing:
// Kubernetes does not hand them on to its pods. Tools that put annotations on
// everything also put them where they count (inner).
func Misplaced(outer, inner map[string]string) []Finding {
	var all []Finding
	for _, key := range slices.Sorted(maps.Keys(outer)) {
		if len(all) == MaxFindings {
			break
		}
		if _, inside := inner[key]; strings.HasPrefix(key, contract.Prefix) && !inside {
			all = append(all, NewFinding(LB0601, contract.Brief(key)+" is on the workload itself and does nothing there; move it to the annotations of the pod template"))
		}
	}
	return all
}
