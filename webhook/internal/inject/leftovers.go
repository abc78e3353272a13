package inject

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/finding"
)

// leftovers are the parts of an earlier injection in a pod whose sidecar is gone, as
// in a copy without its init containers.
type leftovers struct {
	volume *corev1.Volume
	mounts []leftover
}

type leftover struct {
	source source
	mount  corev1.VolumeMount
}

// setAside takes the leftovers of an injection out of the pod. Those that the new one would make
// again just so are kept; checkLeftovers reports others, since nothing can be removed.
func setAside(in *corev1.Pod) (*pod, leftovers) {
	var left leftovers
	i := ourVolume(in)
	if i < 0 || !hasStatus(in) {
		return newPod(in), left
	}
	// Only what changes is copied; the pod that was given must stay as it is.
	rest := *in
	left.volume = &in.Spec.Volumes[i]
	rest.Spec.Volumes = slices.Delete(slices.Clone(rest.Spec.Volumes), i, i+1)
	rest.Spec.Containers, rest.Spec.InitContainers = slices.Clone(rest.Spec.Containers), slices.Clone(rest.Spec.InitContainers)
	p := newPod(&rest)
	for _, s := range p.sources {
		if !mountsOurs(s.Container) {
			continue
		}
		for _, m := range s.VolumeMounts {
			if isOurs(m) {
				left.mounts = append(left.mounts, leftover{s, m})
			}
		}
		s.VolumeMounts = slices.DeleteFunc(slices.Clone(s.VolumeMounts), isOurs)
	}
	return p, left
}

// startOver is how a pod gets rid of parts that do not fit.
const startOver finding.Words = "; remove all parts of log-bridge from the manifest, or create the pod from its template"

// same says whether a volume has a size limit, or has none.
func same(dir *corev1.EmptyDirVolumeSource, limit *resource.Quantity) bool {
	if dir.SizeLimit == nil || limit == nil {
		return dir.SizeLimit == limit
	}
	return dir.SizeLimit.Cmp(*limit) == 0
}

// checkLeftovers refuses leftovers that do not fit what the annotations say now: a stale
// mount would be a directory where a file is wanted, or lead nowhere that is followed.
func checkLeftovers(p *pod, set settings, plan plan, left leftovers) (found finding.List) {
	if left.volume == nil {
		return found
	}
	if dir := left.volume.EmptyDir; dir.Medium != corev1.StorageMediumDefault || !same(dir, set.sizeLimit) {
		limit := "none"
		if dir.SizeLimit != nil {
			limit = dir.SizeLimit.String()
		}
		found.Add(finding.LeftoversDiffer, "the log-bridge volume is left from an earlier injection, and its medium or sizeLimit (%s) differs from what %s says now%s", limit, annotation(contract.KeySizeLimit), startOver)
	}
	planned := map[int]map[string]corev1.VolumeMount{}
	for _, a := range plan.mounts {
		by := map[string]corev1.VolumeMount{}
		for _, m := range a.mounts {
			by[m.MountPath] = m
		}
		planned[p.byName[a.source.Name]] = by
	}
	for _, l := range left.mounts {
		m, ok := planned[p.byName[l.source.Name]][l.mount.MountPath]
		if !ok || !equality.Semantic.DeepEqual(m, l.mount) {
			found.Add(finding.LeftoversDiffer, "container %s mounts the log-bridge volume at %s (%s), which is left from an earlier injection and not what the annotations ask for now%s",
				l.source.Name, l.mount.MountPath, l.mount.SubPath, startOver)
		}
	}
	return found
}

// checkNames refuses a pod that uses our names for something else, and one in which
// there is nothing to name.
func checkNames(p *pod, left leftovers) (found finding.List) {
	if len(p.Spec.Containers) == 0 {
		found.Add(finding.UnknownContainer, "the pod has no containers")
	}
	volume := left.volume != nil
	for _, v := range p.Spec.Volumes {
		if v.Name == contract.Volume {
			volume = true
			found.Add(finding.VolumeNameTaken, "the pod already has a volume named %s that log-bridge did not add; rename it, or remove the log-bridge.dev annotations", contract.Volume)
		}
	}
	for _, s := range p.sources {
		if s.Name == contract.Container {
			found.Add(finding.ContainerNameTaken, "the pod already has a container named %s that log-bridge did not add; rename it, or remove the log-bridge.dev annotations", contract.Container)
		}
		if volume {
			continue
		}
		// Without us the API server refuses such a pod. With us the volume would be there, and
		// the container would have the sidecar's offsets.
		if mountsOurs(s.Container) ||
			slices.ContainsFunc(s.VolumeDevices, func(d corev1.VolumeDevice) bool { return d.Name == contract.Volume }) {
			found.Add(finding.VolumeMounted, "container %s mounts a volume named %s, a name that is reserved for log-bridge; remove the mount", s.Name, contract.Volume)
		}
	}
	return found
}
