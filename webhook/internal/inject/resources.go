package inject

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/finding"
)

// Limits that are chosen where the pod needs one and nobody said which. With a
// lower cpu limit the start of a pod gets slow, since the next container waits for
// the sidecar: 5m kept it for 4.4 s, 100m for 1.1 s.
var (
	neededCPU       = resource.MustParse("100m")
	neededMemory    = resource.MustParse("64Mi")
	neededEphemeral = resource.MustParse("60Mi")
)

// seededEphemeral is added to the ephemeral-storage limit where directories are seeded:
// our program, which is copied too, takes 5 MiB of it, and what an image holds in a
// directory of logs is small as a rule. How much it is cannot be known here.
var seededEphemeral = resource.MustParse("64Mi")

// ask is what is known about one resource of the sidecar.
type ask struct {
	name                   corev1.ResourceName
	requestKey, limitKey   string
	request, limit         *resource.Quantity // of annotations
	usualRequest, usualCap resource.Quantity  // of the administrator; zero is none
	neededCap              resource.Quantity
}

// sidecarResources are the sidecar's requests and limits.
//
// Requests are always set, since an HPA gives up on a pod that has a container
// without; except in a pod with resources of its own, whose containers must not ask
// for more than it has. A limit is set where every container of the pod has one,
// since a quota then asks for it of each.
func sidecarResources(p *pod, set settings, seeds bool, usual Resources) (r corev1.ResourceRequirements, found finding.List) {
	pod := p.Spec.Resources
	wholePod := pod != nil && len(pod.Requests)+len(pod.Limits) > 0
	if wholePod {
		found.Add(finding.PodHasResources, "the pod has pod-level resources, so the sidecar shares them and has no requests of its own")
	}
	guaranteed := !wholePod && p.guaranteed()

	for _, a := range []ask{
		{corev1.ResourceCPU, contract.KeyCPURequest, contract.KeyCPULimit, set.cpuRequest, set.cpuLimit,
			usual.CPURequest, usual.CPULimit, neededCPU},
		{corev1.ResourceMemory, contract.KeyMemoryRequest, contract.KeyMemoryLimit, set.memoryRequest, set.memoryLimit,
			usual.MemoryRequest, usual.MemoryLimit, neededMemory},
	} {
		found.Merge(compare(a, guaranteed))
		request, limit := a.request, a.limit
		switch {
		case wholePod:
			// What annotations ask for is the user's own reckoning.
		case guaranteed:
			request, limit = a.same()
		default:
			request, limit = a.usual(p.allLimit(a.name))
		}
		put(&r.Requests, a.name, request)
		put(&r.Limits, a.name, limit)
	}
	ephemeral, f := ephemeral(p, set, seeds, usual)
	found.Merge(f)
	put(&r.Requests, corev1.ResourceEphemeralStorage, ephemeral.request)
	put(&r.Limits, corev1.ResourceEphemeralStorage, ephemeral.limit)
	return r, found
}

// compare refuses quantities of annotations that contradict each other or the pod.
func compare(a ask, guaranteed bool) (found finding.List) {
	if a.request == nil {
		return found
	}
	given := finding.Say("%s: %s", annotation(a.requestKey), a.request)
	switch {
	case a.limit == nil && guaranteed && a.request.IsZero():
		found.Add(finding.GuaranteedLost, "%s would cost the pod its QoS class Guaranteed, for which requests must equal limits above zero; raise it or remove it", given)
	case a.limit == nil:
	case a.request.Cmp(*a.limit) > 0:
		found.Add(finding.RequestAboveLimit, "%s is more than the limit of %s in %s; raise the limit or lower the request", given, a.limit, annotation(a.limitKey))
	case guaranteed && a.request.Cmp(*a.limit) != 0:
		found.Add(finding.GuaranteedLost, "%s is less than the limit of %s in %s, so the pod would lose its QoS class Guaranteed; make them equal", given, a.limit, annotation(a.limitKey))
	}
	return found
}

// quantities are a request and a limit; nil is none.
type quantities struct{ request, limit *resource.Quantity }

// ephemeral is the request and the limit of ephemeral storage.
//
// The kubelet adds up the limits of all containers that have one and evicts a pod that
// uses more than the sum: its writable layers, its emptyDirs and the logs of all its
// containers. The sidecar's log is a copy of what the application wrote, so it needs a
// limit of its own or it lives at the application's expense. In a pod without any such
// limit ours would become that of the whole pod. Resources of the pod as a whole do not
// include ephemeral storage.
//
// Without a request of ours the API server would take the limit for it.
func ephemeral(p *pod, set settings, seeds bool, usual Resources) (r quantities, found finding.List) {
	const name = corev1.ResourceEphemeralStorage
	a := ask{name, contract.KeyEphemeralRequest, contract.KeyEphemeralLimit, set.ephemeralRequest, set.ephemeralLimit,
		usual.EphemeralRequest, usual.EphemeralLimit, neededEphemeral}
	found.Merge(compare(a, false))
	limited, requested := false, true
	for _, c := range p.sources {
		_, has := c.Resources.Limits[name]
		limited = limited || has
		_, has = c.Resources.Requests[name]
		requested = requested && has
	}
	if !limited {
		if a.limit != nil {
			found.Add(finding.EphemeralLimitWithoutEffect, "%s has no effect: no container of the pod has an ephemeral-storage limit, so the sidecar's would become the limit of the whole pod; remove it", annotation(a.limitKey))
		}
		if requested && a.request == nil && !a.usualRequest.IsZero() {
			a.request = &a.usualRequest
		}
		return quantities{request: a.request}, found
	}
	if seeds {
		for _, q := range []*resource.Quantity{&a.usualCap, &a.neededCap} {
			if !q.IsZero() {
				*q = q.DeepCopy()
				q.Add(seededEphemeral)
			}
		}
	}
	r.request, r.limit = a.usual(true)
	found.Add(finding.EphemeralLimitAdded, "a container of the pod has an ephemeral-storage limit, so the sidecar gets one of %s for its log, which adds to the pod's limit", r.limit)
	return r, found
}

// same is one quantity for both, as the QoS class Guaranteed wants.
func (a ask) same() (request, limit *resource.Quantity) {
	switch {
	case a.limit != nil:
		return a.limit, a.limit
	case a.request != nil:
		return a.request, a.request
	}
	_, limit = a.usual(true)
	return limit, limit
}

// usual fills in what annotations leave open. A chosen quantity gives way to one
// that the user wrote.
func (a ask) usual(needed bool) (request, limit *resource.Quantity) {
	request, limit = a.request, a.limit
	if request == nil && !a.usualRequest.IsZero() {
		request = &a.usualRequest
	}
	if limit == nil {
		switch {
		case !a.usualCap.IsZero():
			limit = &a.usualCap
		case needed:
			limit = &a.neededCap
		}
	}
	if request != nil && limit != nil && request.Cmp(*limit) > 0 {
		if a.limit != nil {
			return limit, limit
		}
		return request, request
	}
	return request, limit
}

func put(list *corev1.ResourceList, name corev1.ResourceName, q *resource.Quantity) {
	if q == nil {
		return
	}
	if *list == nil {
		*list = corev1.ResourceList{}
	}
	(*list)[name] = q.DeepCopy()
}

// computeOnly copies requests and limits of cpu and memory. Devices and claims stay
// with the application.
func computeOnly(of corev1.ResourceRequirements) corev1.ResourceRequirements {
	var r corev1.ResourceRequirements
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		if q, ok := of.Requests[name]; ok {
			put(&r.Requests, name, &q)
		}
		if q, ok := of.Limits[name]; ok {
			put(&r.Limits, name, &q)
		}
	}
	return r
}
