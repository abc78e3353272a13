package inject

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/finding"
)

// tellOrder finds containers that another webhook, called after us, has put before the sidecar
// with mounts of our volume. The kubelet makes an empty directory for each mount that it does
// not find, also where a file belongs. The sidecar puts those aside for the application; but
// the container itself saw them.
func (p *planner) tellOrder() {
	inits := p.pod.Spec.InitContainers
	ours := slices.IndexFunc(inits, func(c corev1.Container) bool { return c.Name == contract.Container })
	for _, c := range inits[:ours] {
		switch {
		case !mounts(c):
		case strings.HasPrefix(c.Name, contract.SeedContainerPrefix):
			p.found.Add(finding.SeededBeforeSidecar, "init container %s comes before %s, which gives it its program, so the pod would never start; have the webhook that changed their order keep it", c.Name, contract.Container)
		default:
			p.found.Add(finding.MountedBeforeSidecar, "init container %s starts before %s and mounts its volume while nothing is in it: it sees empty directories, and the application does not see what it writes there; have it added after %[2]s, or without these mounts", c.Name, contract.Container)
		}
	}
}

// mounts says whether a container mounts our volume.
func mounts(c corev1.Container) bool {
	return slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == contract.Volume })
}

// SidecarGone says whether a pod has what an injection adds but for the sidecar: another webhook
// removed it, or the pod is a copy of an injected one without its init containers. Where
// files are mounted the application then finds empty directories.
func SidecarGone(pod *corev1.Pod) bool {
	if slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == contract.Container }) ||
		!slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == contract.Volume && v.EmptyDir != nil }) {
		return false
	}
	_, status := pod.Annotations[annotation(contract.KeyStatus)]
	return status || slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool {
		return slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool {
			return m.Name == contract.Volume && m.SubPath == c.Name+m.MountPath
		})
	})
}
