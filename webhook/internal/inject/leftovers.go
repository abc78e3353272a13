package inject

import (
	"io"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/finding"
)

// leftovers are the parts of an earlier injection in a pod of which the sidecar is gone, as
// in a copy without its init containers.
type leftovers struct {
	volume *corev1.Volume
	mounts []leftover
}

type leftover struct {
	source source
	mount  corev1.VolumeMount
}

// takeOut sets the leftovers of an injection aside. Those that the new one would make again
// just so are kept; of others checkLeftovers tells, since nothing can be removed.
func (p *planner) takeOut() {
	i := slices.IndexFunc(p.whole.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == contract.Volume && v.EmptyDir != nil })
	if i < 0 || !p.hasStatus() {
		return
	}
	// Only what changes is copied; the pod that was given must stay as it is.
	pod := *p.whole
	p.left.volume = &p.whole.Spec.Volumes[i]
	pod.Spec.Volumes = slices.Delete(slices.Clone(pod.Spec.Volumes), i, i+1)
	pod.Spec.Containers, pod.Spec.InitContainers = slices.Clone(pod.Spec.Containers), slices.Clone(pod.Spec.InitContainers)
	p.pod, p.all = &pod, nil
	ours := func(m corev1.VolumeMount) bool { return m.Name == contract.Volume }
	for _, s := range p.sources() {
		if !slices.ContainsFunc(s.VolumeMounts, ours) {
			continue
		}
		for _, m := range s.VolumeMounts {
			if ours(m) {
				p.left.mounts = append(p.left.mounts, leftover{s, m})
			}
		}
		s.VolumeMounts = slices.DeleteFunc(slices.Clone(s.VolumeMounts), ours)
	}
}

// same says whether a volume has a size limit, or has none.
func same(dir *corev1.EmptyDirVolumeSource, limit *resource.Quantity) bool {
	if dir.SizeLimit == nil || limit == nil {
		return dir.SizeLimit == limit
	}
	return dir.SizeLimit.Cmp(*limit) == 0
}

// checkLeftovers refuses leftovers that do not fit what the annotations say now: a stale
// mount would be a directory where a file is wanted, or lead nowhere that is followed.
func (p *planner) checkLeftovers() {
	if p.left.volume == nil {
		return
	}
	const remedy finding.Words = "; take all parts of log-bridge out of the manifest, or make the copy from the template that the pod came from"
	if dir := p.left.volume.EmptyDir; dir.Medium != corev1.StorageMediumDefault || !same(dir, p.set.sizeLimit) {
		limit := "none"
		if dir.SizeLimit != nil {
			limit = dir.SizeLimit.String()
		}
		p.found.Add(finding.LeftoversDiffer, "the volume %s is of an earlier injection and has another medium or sizeLimit (%s) than %s says now%s", contract.Volume, limit, annotation(contract.KeySizeLimit), remedy)
	}
	planned := map[int]map[string]corev1.VolumeMount{}
	for _, a := range p.mounts {
		by := map[string]corev1.VolumeMount{}
		for _, m := range a.mounts {
			by[m.MountPath] = m
		}
		planned[p.byName[a.source.Name]] = by
	}
	for _, l := range p.left.mounts {
		m, ok := planned[p.byName[l.source.Name]][l.mount.MountPath]
		if !ok || !equality.Semantic.DeepEqual(m, l.mount) {
			p.found.Add(finding.LeftoversDiffer, "container %s mounts the volume %s of an earlier injection at %s (%s), which the annotations do not ask for now%s",
				l.source.Name, contract.Volume, l.mount.MountPath, l.mount.SubPath, remedy)
		}
	}
}

// checkParts finds what is missing of an injection whose sidecar is there: a container that
// was replaced by one without our mounts has no log lines, and a mount of something that the
// sidecar does not make becomes an empty directory.
func (p *planner) checkParts() {
	var args []string
	for _, c := range p.pod.Spec.InitContainers {
		if c.Name == contract.Container && len(c.Args) > 0 {
			for _, arg := range c.Args[1:] {
				args = append(args, strings.ReplaceAll(arg, "$$", "$"))
			}
			break
		}
	}
	tail, err := contract.ParseTail(args, io.Discard)
	if err != nil {
		return // of another version, perhaps
	}
	const remedy finding.Words = "; take all parts of log-bridge out of the manifest, or make the pod from its template"
	made := map[string]bool{}
	for _, place := range slices.Concat(tail.Files, tail.Dirs, tail.Seeded) {
		made[place.Container+place.Path] = true
	}
	mounted, seeded := map[string]bool{}, map[string]bool{}
	for _, s := range p.sources() {
		switch {
		case s.Name == contract.Container:
			continue
		case isSeeder(s.Container):
			for _, arg := range s.Command[2:] {
				seeded[strings.ReplaceAll(arg, "$$", "$")] = true
			}
			continue
		}
		for _, m := range s.VolumeMounts {
			if m.Name != contract.Volume {
				continue
			}
			mounted[m.SubPath] = true
			if !made[m.SubPath] {
				p.found.Add(finding.LeftoversDiffer, "container %s mounts the volume %s at %s (%q), which the sidecar of this pod does not make%s", s.Name, contract.Volume, m.MountPath, m.SubPath, remedy)
			}
		}
	}
	for _, place := range slices.Concat(tail.Files, tail.Dirs, tail.Seeded) {
		if !mounted[place.Container+place.Path] {
			p.found.Add(finding.LeftoversDiffer, "the sidecar follows %s, but no container mounts that from the volume %s any more%s", place, contract.Volume, remedy)
		}
	}
	for _, place := range tail.Seeded {
		if !seeded[path.Join(contract.Root, place.Container)+place.Path] {
			p.found.Add(finding.LeftoversDiffer, "the container that fills %s with what the image has there is gone%s", place, remedy)
		}
	}
}

// isSeeder recognises our seeding containers in an injected pod.
func isSeeder(c *corev1.Container) bool {
	return strings.HasPrefix(c.Name, contract.SeedContainerPrefix) && len(c.Command) > 1 && c.Command[0] == seedBinary && c.Command[1] == "seed"
}

// checkNames refuses a pod that uses our names for something else, and one in which
// there is nothing to name.
func (p *planner) checkNames() {
	if len(p.pod.Spec.Containers) == 0 {
		p.found.Add(finding.UnknownContainer, "the pod has no container")
	}
	volume := p.left.volume != nil
	for _, v := range p.pod.Spec.Volumes {
		if v.Name == contract.Volume {
			volume = true
			p.found.Add(finding.VolumeNameTaken, "the pod already has a volume named %s that log-bridge did not make; rename it, or take the log-bridge.dev annotations away", contract.Volume)
		}
	}
	for _, s := range p.sources() {
		if s.Name == contract.Container {
			p.found.Add(finding.ContainerNameTaken, "the pod already has a container named %s that log-bridge did not make; rename it, or take the log-bridge.dev annotations away", contract.Container)
		}
		if volume {
			continue
		}
		// Without us the API server refuses such a pod. With us the volume would be there, and
		// the container would have the sidecar's offsets.
		if slices.ContainsFunc(s.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == contract.Volume }) ||
			slices.ContainsFunc(s.VolumeDevices, func(d corev1.VolumeDevice) bool { return d.Name == contract.Volume }) {
			p.found.Add(finding.VolumeMounted, "container %s mounts a volume named %s, which the pod does not have and log-bridge adds for itself; take that mount away", s.Name, contract.Volume)
		}
	}
}
