package inject

import (
	"encoding/json"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/log-bridge/log-bridge/sidecar/contract"
)

// What an injection adds to a pod, and how to recognize it: all questions of this kind are here.

// Status is the JSON value of the status annotation.
type Status struct {
	Version string `json:"version"`
	// Release is the chart's release that injected, as NAMESPACE/NAME.
	Release string `json:"release,omitempty"`
	// Rule is the rule that selected the pod; nil where the pod's own annotations are all.
	Rule    *Rule    `json:"rule,omitempty"`
	Entries []Share  `json:"entries"`
	Notes   []string `json:"notes,omitempty"`
}

// Rule is a rule of the administrator, as the status names it.
type Rule struct {
	Name string `json:"name"`
	// Annotations are the keys, without the prefix, that the pod has from the rule.
	Annotations []string `json:"annotations,omitempty"`
}

// Injected is the status of a pod that has our parts already; false for any other.
func Injected(pod *corev1.Pod) (Status, bool) {
	if !injected(pod) {
		return Status{}, false
	}
	return statusOf(pod), true
}

// by names who wrote the status, for a log. Anybody can write one, so it is cut.
func (s Status) by() string {
	text := strings.TrimSpace(s.Release + " " + s.Version)
	return text[:min(len(text), 200)]
}

// injected recognizes our own work: after a second call of the API server, in a
// copy of a running pod, or in the output of `inject`. The status annotation alone
// is not enough, since it may have been copied without the rest.
func injected(pod *corev1.Pod) bool {
	return hasStatus(pod) && slices.ContainsFunc(pod.Spec.InitContainers, isSidecar)
}

// statusOf is what an earlier injection wrote; zero if it cannot be read.
func statusOf(pod *corev1.Pod) Status {
	var s Status
	// A text that is larger than we write is not ours. Three bytes of it could become a
	// hundred of memory.
	text := pod.Annotations[annotation(contract.KeyStatus)]
	if len(text) > MaxAnnotations || strings.Count(text, ",") > 32*contract.MaxEntries || json.Unmarshal([]byte(text), &s) != nil {
		return Status{}
	}
	return s
}

func hasStatus(pod *corev1.Pod) bool {
	_, ok := pod.Annotations[annotation(contract.KeyStatus)]
	return ok
}

// Sidecar is the init container of a pod that has the sidecar's name; nil without one.
func Sidecar(pod *corev1.Pod) *corev1.Container {
	i := slices.IndexFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == contract.Container })
	if i < 0 {
		return nil
	}
	return &pod.Spec.InitContainers[i]
}

// isSidecar recognizes our sidecar by more than its name.
func isSidecar(c corev1.Container) bool {
	return c.Name == contract.Container &&
		slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return isOurs(m) && m.MountPath == contract.Root })
}

// StaysUp says whether an init container is a sidecar to Kubernetes: the kubelet starts the next
// container without waiting for its end.
func StaysUp(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// IsSeederName says whether a container has a seeding container's name.
func IsSeederName(name string) bool { return strings.HasPrefix(name, contract.SeedContainerPrefix) }

// isSeeder recognizes our seeding containers by more than their names.
func isSeeder(c *corev1.Container) bool {
	return IsSeederName(c.Name) && len(c.Command) > 1 && c.Command[0] == seedBinary && c.Command[1] == seedCommand
}

// isOurs says whether a mount is of the log-bridge volume.
func isOurs(m corev1.VolumeMount) bool { return m.Name == contract.Volume }

// mountsOurs says whether a container mounts the log-bridge volume.
func mountsOurs(c *corev1.Container) bool { return slices.ContainsFunc(c.VolumeMounts, isOurs) }

// ourVolume is the index of the log-bridge volume, of the kind that we add; -1 without one.
func ourVolume(pod *corev1.Pod) int {
	return slices.IndexFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == contract.Volume && v.EmptyDir != nil })
}

// SidecarGone says whether a pod has what an injection adds but for the sidecar: another webhook
// removed it, or the pod is a copy of an injected one without its init containers. Where
// files are mounted the application then finds empty directories.
func SidecarGone(pod *corev1.Pod) bool {
	if Sidecar(pod) != nil || ourVolume(pod) < 0 {
		return false
	}
	return hasStatus(pod) || slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool {
		return slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool {
			return isOurs(m) && m.SubPath == c.Name+m.MountPath
		})
	})
}

// Original is a pod without what an injection added: as its creator sent it, but for what others and the
// API server added. The rule is the one that the status names, whose annotations are left out too; nil
// without one. A pod without an injection is returned as it is.
func Original(pod *corev1.Pod) (*corev1.Pod, *Rule) {
	if !injected(pod) {
		return pod, nil
	}
	rule := statusOf(pod).Rule
	original := pod.DeepCopy()
	delete(original.Annotations, annotation(contract.KeyStatus))
	if rule != nil {
		for _, key := range rule.Annotations {
			delete(original.Annotations, annotation(key))
		}
	}
	spec := &original.Spec
	spec.InitContainers = slices.DeleteFunc(spec.InitContainers, func(c corev1.Container) bool { return c.Name == contract.Container || isSeeder(&c) })
	spec.Volumes = slices.DeleteFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Name == contract.Volume })
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			containers[i].VolumeMounts = slices.DeleteFunc(containers[i].VolumeMounts, isOurs)
		}
	}
	return original, rule
}
