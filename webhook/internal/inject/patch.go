package inject

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/finding"
)

// safeToEvict lists volumes that do not keep the cluster autoscaler from moving a
// pod. Without our volume in it, a pod that could be moved no longer could.
const safeToEvict = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"

// statusOperations write the annotations. They come first, so that they are all that is read of a patch cut short.
func statusOperations(in *corev1.Pod, shares []Share, found finding.List, c Config) []jsonpatch.Operation {
	status := Status{Version: c.Version, Release: c.Release, Rule: c.Rule, Entries: shares}
	size := 0
	for i, f := range found.Findings {
		if size += len(f.String()); size > finding.MaxMessage {
			status.Notes = append(status.Notes, fmt.Sprintf("and %d more", len(found.Findings)+found.MoreOthers-i))
			break
		}
		status.Notes = append(status.Notes, f.String())
	}
	var text strings.Builder
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false) // it is read by people
	if err := e.Encode(status); err != nil {
		panic(err) // strings and booleans always have a JSON form
	}
	ops := []jsonpatch.Operation{add(Pointer("metadata", "annotations", annotation(contract.KeyStatus)), strings.TrimSpace(text.String()))}
	// Without it kubectl would still take the first container, but say so each time,
	// now that there are two.
	if _, ok := in.Annotations[defaultContainer]; !ok {
		ops = append(ops, add(Pointer("metadata", "annotations", defaultContainer), in.Spec.Containers[0].Name))
	}
	listed := in.Annotations[safeToEvict]
	if !slices.Contains(strings.Split(listed, ","), contract.Volume) {
		if listed != "" {
			listed += ","
		}
		ops = append(ops, add(Pointer("metadata", "annotations", safeToEvict), listed+contract.Volume))
	}
	return ops
}

// partOperations add the parts.
//
// Operations are written by hand, each an addition, against the pod as the API
// server holds it. A patch made from our decoded pod would drop each field that is
// newer than our copy of the Kubernetes types.
func partOperations(in *corev1.Pod, set settings, plan plan, left leftovers, added []corev1.Container) (ops []jsonpatch.Operation) {
	volume := corev1.Volume{Name: contract.Volume, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: set.sizeLimit}}}
	if left.volume == nil { // else it is ours already
		ops = append(ops, appended("/spec/volumes", len(in.Spec.Volumes), []corev1.Volume{volume})...)
	}

	// Mounts of init containers come before the insertion, which moves their index.
	for _, a := range plan.mounts {
		list, has := "containers", in.Spec.Containers
		if a.source.init {
			list, has = "initContainers", in.Spec.InitContainers
		}
		there := map[string]bool{}
		for _, l := range left.mounts {
			if l.source.init == a.source.init && l.source.index == a.source.index {
				there[l.mount.MountPath] = true
			}
		}
		missing := slices.DeleteFunc(slices.Clone(a.mounts), func(m corev1.VolumeMount) bool { return there[m.MountPath] })
		ops = append(ops, appended(fmt.Sprintf("/spec/%s/%d/volumeMounts", list, a.source.index), len(has[a.source.index].VolumeMounts), missing)...)
	}

	if len(in.Spec.InitContainers) == 0 {
		return append(ops, add("/spec/initContainers", added))
	}
	for i, c := range added {
		ops = append(ops, add(fmt.Sprintf("/spec/initContainers/%d", i), c))
	}
	return ops
}

// appended adds items to a list, which it creates if the pod has none.
func appended[T any](path string, have int, items []T) []jsonpatch.Operation {
	if have == 0 && len(items) > 0 {
		return []jsonpatch.Operation{add(path, items)}
	}
	var ops []jsonpatch.Operation
	for _, item := range items {
		ops = append(ops, add(path+"/-", item))
	}
	return ops
}

func add(path string, value any) jsonpatch.Operation {
	return jsonpatch.NewOperation("add", path, value)
}

// escapes are those of a JSON pointer. Creating it for each part took a fifth of an admission.
var escapes = strings.NewReplacer("~", "~0", "/", "~1")

// Pointer is a JSON pointer (RFC 6901).
func Pointer(parts ...string) string {
	var b strings.Builder
	for _, part := range parts {
		b.WriteString("/" + escapes.Replace(part))
	}
	return b.String()
}
