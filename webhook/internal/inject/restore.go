package inject

import (
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/finding"
)

// restore decides about a pod that has our parts: what another webhook dropped from them is put
// back, and parts that no longer belong together are refused.
func restore(in *corev1.Pod) Result {
	found := checkEdited(in)
	found.Merge(checkParts(newPod(in)))
	found.Merge(checkOrder(in))
	r := Result{By: statusOf(in).by(), List: found}
	if found.Mistaken() {
		return r
	}
	ops, f := dropped(in)
	r.Merge(f)
	if r.Operations, r.Mended = ops, len(ops) > 0; !r.Mended {
		r.LeftAlone = Already
	}
	return r
}

// checkEdited warns where the annotations of an injected pod were edited, as in a
// manifest that was taken from a running pod: the sidecar's arguments stay what they
// were.
func checkEdited(in *corev1.Pod) (found finding.List) {
	status := statusOf(in)
	var wants []contract.Entry
	for _, key := range []string{contract.KeyFiles, contract.KeyStderrFiles} {
		value, ok := in.Annotations[annotation(key)]
		if !ok {
			continue
		}
		entries, err := contract.ParseEntries(value)
		if err != nil {
			return found
		}
		wants = append(wants, entries...)
	}
	if len(wants) == 0 {
		return found
	}
	// An entry without a container is one of any: another webhook may have put its own
	// container before the one that was the first.
	var has []string
	exact, anyContainer := map[string]bool{}, map[string]bool{}
	for _, s := range status.Entries {
		has = append(has, s.Entry)
		exact[s.Entry] = true
		_, pattern, _ := strings.Cut(s.Entry, ":")
		anyContainer[pattern] = true
	}
	same := true
	wanted, wantedOfAny := map[string]bool{}, map[string]bool{}
	for _, e := range wants {
		wanted[e.String()] = true
		if e.Container == "" {
			wantedOfAny[e.Pattern] = true
			same = same && anyContainer[e.Pattern]
		} else {
			same = same && exact[e.String()]
		}
	}
	for _, s := range status.Entries {
		_, pattern, _ := strings.Cut(s.Entry, ":")
		same = same && (wanted[s.Entry] || wantedOfAny[pattern])
	}
	if !same {
		found.Add(finding.AnnotationsEdited, "the pod already has a sidecar that follows %s, not what the annotations say now; remove all parts of log-bridge from the manifest, or edit the template that the pod comes from", finding.Names(has))
	}
	return found
}

// checkParts finds what is missing of an injection whose sidecar is there: a container that
// was replaced by one without our mounts has no log lines, and a mount of something that the
// sidecar does not make becomes an empty directory.
func checkParts(p *pod) (found finding.List) {
	args := literal(Sidecar(p.Pod).Args, 1)
	tail, err := contract.ParseTail(args, io.Discard)
	if err != nil {
		return found // of another version, perhaps
	}
	made := map[string]bool{}
	for _, place := range slices.Concat(tail.Files, tail.Dirs, tail.Seeded) {
		made[place.Container+place.Path] = true
	}
	mounted, seeded := map[string]bool{}, map[string]bool{}
	for _, s := range p.sources {
		switch {
		case s.Name == contract.Container:
			continue
		case isSeeder(s.Container):
			for _, arg := range literal(s.Command, 2) {
				seeded[arg] = true
			}
			continue
		}
		for _, m := range s.VolumeMounts {
			if !isOurs(m) {
				continue
			}
			mounted[m.SubPath] = true
			if !made[m.SubPath] {
				found.Add(finding.LeftoversDiffer, "container %s mounts the log-bridge volume at %s (%q), which this pod's sidecar does not create%s", s.Name, m.MountPath, m.SubPath, startOver)
			}
		}
	}
	for _, place := range slices.Concat(tail.Files, tail.Dirs, tail.Seeded) {
		if !mounted[place.Container+place.Path] {
			found.Add(finding.LeftoversDiffer, "the sidecar follows %s, but no container mounts it from the log-bridge volume any more%s", place, startOver)
		}
	}
	for _, place := range tail.Seeded {
		if !seeded[path.Join(contract.Root, place.Container)+place.Path] {
			found.Add(finding.LeftoversDiffer, "the seeding container of %s is missing%s", place, startOver)
		}
	}
	return found
}

// checkOrder finds containers that another webhook, called after us, has put before the sidecar
// with mounts of our volume. The kubelet makes an empty directory for each mount that it does
// not find, also where a file belongs. The sidecar puts those aside for the application; but
// the container itself saw them.
func checkOrder(in *corev1.Pod) (found finding.List) {
	inits := in.Spec.InitContainers
	ours := slices.IndexFunc(inits, func(c corev1.Container) bool { return c.Name == contract.Container })
	for _, c := range inits[:ours] {
		switch {
		case !mountsOurs(&c):
		case IsSeederName(c.Name):
			found.Add(finding.SeededBeforeSidecar, "seeding container %s comes before %s, which provides its program, so the pod would never start; make the webhook that reorders init containers keep their order", c.Name, contract.Container)
		default:
			found.Add(finding.MountedBeforeSidecar, "init container %s mounts the log-bridge volume but starts before %s: it sees empty directories, and the application does not see what it writes there; add it after %[2]s, or without these mounts", c.Name, contract.Container)
		}
	}
	return found
}

// dropped restores the fields of our containers that another webhook has dropped between
// our first call and this one.
//
// A webhook that answers with a pod which it decoded and encoded again loses each field
// that is newer than its copy of the Kubernetes types. Two of ours are newer than the
// containers themselves: restartPolicy of init containers (1.28), without which the
// sidecar is an ordinary init container, which the application waits for forever, or
// which the API server refuses for its lifecycle; and seccompProfile (1.19), which Pod
// Security restricted asks for.
//
// A field that is there with another value was set on purpose, and stays.
func dropped(in *corev1.Pod) (ops []jsonpatch.Operation, found finding.List) {
	for i, c := range in.Spec.InitContainers {
		sidecar := isSidecar(c)
		if !sidecar && !isSeeder(&c) {
			continue
		}
		var fields []string
		put := func(value any, parts ...string) {
			fields = append(fields, parts[len(parts)-1])
			ops = append(ops, add(Pointer(append([]string{"spec", "initContainers", fmt.Sprint(i)}, parts...)...), value))
		}
		if sidecar && c.RestartPolicy == nil {
			put(corev1.ContainerRestartPolicyAlways, "restartPolicy")
		}
		if sc := c.SecurityContext; sc != nil && sc.SeccompProfile == nil {
			put(restricted().SeccompProfile, "securityContext", "seccompProfile")
		}
		if len(fields) > 0 {
			found.Add(finding.FieldsDropped, "another webhook dropped %s of container %s because its Kubernetes types are too old; log-bridge restores it, but update that webhook", finding.Words(strings.Join(fields, " and ")), c.Name)
		}
	}
	return ops, found
}
