package inject

import (
	"fmt"
	"slices"
	"strings"

	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/finding"
)

// mend puts back the fields of our containers that another webhook has dropped between
// our first call and this one.
//
// A webhook that answers with a pod which it decoded and encoded again loses each field
// that is newer than its copy of the Kubernetes types. Two of ours are newer than the
// containers themselves: restartPolicy of init containers (1.28), without which the
// sidecar is an ordinary init container, for whose end the application waits for ever or
// which the API server refuses for its lifecycle; and seccompProfile (1.19), which Pod
// Security restricted asks for.
//
// A field that is there with another value was set on purpose, and stays.
func (p *planner) mend() []jsonpatch.Operation {
	var ops []jsonpatch.Operation
	for i, c := range p.pod.Spec.InitContainers {
		sidecar := isSidecar(c)
		if !sidecar && !isSeeder(&c) {
			continue
		}
		var dropped []string
		put := func(value any, parts ...string) {
			dropped = append(dropped, parts[len(parts)-1])
			ops = append(ops, add(pointer(append([]string{"spec", "initContainers", fmt.Sprint(i)}, parts...)...), value))
		}
		if sidecar && c.RestartPolicy == nil {
			put(corev1.ContainerRestartPolicyAlways, "restartPolicy")
		}
		if sc := c.SecurityContext; sc != nil && sc.SeccompProfile == nil {
			put(restricted().SeccompProfile, "securityContext", "seccompProfile")
		}
		if len(dropped) > 0 {
			p.found.Add(finding.FieldsDropped, "another webhook dropped %s of container %s, since its Kubernetes types are too old; log-bridge puts it back, but update that webhook", finding.Words(strings.Join(dropped, " and ")), c.Name)
		}
	}
	return ops
}

// isSidecar recognises our sidecar in an injected pod.
func isSidecar(c corev1.Container) bool {
	return c.Name == contract.Container &&
		slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == contract.Volume && m.MountPath == contract.Root })
}
