package inject

import (
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/log-bridge/log-bridge/sidecar/contract"
)

// pod is a pod and what is found in it by name. It answers questions and decides nothing; what
// takes long to find is found when it is first asked for.
type pod struct {
	*corev1.Pod
	// sources are the containers whose files can be followed.
	sources []source

	byName   map[string]int // among the sources
	byVolume map[string]int
	mounts   map[string]*mountIndex
	writers  map[string][]writing
	vars     map[string]*variables
}

// source is a container of the user.
type source struct {
	*corev1.Container
	init  bool
	index int
}

func newPod(of *corev1.Pod) *pod {
	p := &pod{
		Pod:     of,
		sources: make([]source, 0, len(of.Spec.Containers)+len(of.Spec.InitContainers)),
		mounts:  map[string]*mountIndex{},
		vars:    map[string]*variables{},
	}
	for i := range of.Spec.Containers {
		p.sources = append(p.sources, source{Container: &of.Spec.Containers[i], index: i})
	}
	for i := range of.Spec.InitContainers {
		p.sources = append(p.sources, source{Container: &of.Spec.InitContainers[i], init: true, index: i})
	}
	p.byName = make(map[string]int, len(p.sources))
	for i, s := range p.sources {
		if _, twice := p.byName[s.Name]; !twice {
			p.byName[s.Name] = i
		}
	}
	return p
}

func (p *pod) source(name string) (source, bool) {
	i, ok := p.byName[name]
	if !ok {
		return source{}, false
	}
	return p.sources[i], true
}

// named are the containers of some entries, in the pod's order.
func (p *pod) named(entries ...contract.Entry) []source {
	names := map[string]bool{}
	for _, e := range entries {
		names[e.Container] = true
	}
	return slices.DeleteFunc(slices.Clone(p.sources), func(s source) bool { return !names[s.Name] })
}

func annotation(key string) string { return contract.Prefix + key }

// ourKeys are a pod's annotation keys of our domain, sorted so that findings
// come in the same order each time.
func ourKeys(of *corev1.Pod) []string {
	var keys []string
	for k := range of.Annotations {
		if strings.HasPrefix(k, contract.Prefix) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}

// volume finds a volume by name. One that is not there is a claim template of a
// StatefulSet whose manifest is checked before it has pods.
func (p *pod) volume(name string) *corev1.Volume {
	if p.byVolume == nil {
		p.byVolume = make(map[string]int, len(p.Spec.Volumes))
		for i, v := range p.Spec.Volumes {
			if _, twice := p.byVolume[v.Name]; !twice {
				p.byVolume[v.Name] = i
			}
		}
	}
	i, ok := p.byVolume[name]
	if !ok {
		return nil
	}
	return &p.Spec.Volumes[i]
}

// hasSiblings says whether other pods may well write the same volume: those of the
// same controller, unless the volume is the pod's own by construction.
func (p *pod) hasSiblings(v *corev1.Volume) bool {
	owner := metav1.GetControllerOfNoCopy(p)
	if owner == nil || v == nil {
		return false
	}
	switch {
	case owner.Kind == "StatefulSet" && v.PersistentVolumeClaim != nil:
		return !strings.HasSuffix(v.PersistentVolumeClaim.ClaimName, "-"+p.Name)
	case owner.Kind == "DaemonSet" && v.HostPath != nil:
		return false
	}
	return true
}

// mountsOf are those of a container.
func (p *pod) mountsOf(s source) *mountIndex {
	if m, ok := p.mounts[s.Name]; ok {
		return m
	}
	m := newMountIndex(s.VolumeMounts)
	p.mounts[s.Name] = m
	return m
}

// writing is a mount by which a container can write to a volume.
type writing struct {
	source source
	top    string // of the volume
	at     string
}

// writings are those of each volume, in the pod's order.
func (p *pod) writings(volume string) []writing {
	if p.writers == nil {
		p.writers = map[string][]writing{}
		for _, s := range p.sources {
			for _, m := range s.VolumeMounts {
				if !m.ReadOnly && m.SubPathExpr == "" {
					p.writers[m.Name] = append(p.writers[m.Name], writing{s, path.Join("/", m.SubPath), mountPath(m)})
				}
			}
		}
	}
	return p.writers[volume]
}
func (p *pod) variablesOf(s source) *variables {
	if v, ok := p.vars[s.Name]; ok {
		return v
	}
	v := &variables{all: s.Env, by: make(map[string][]int, len(s.Env)), refer: map[int]reference{}}
	for i, e := range s.Env {
		v.by[e.Name] = append(v.by[e.Name], i)
	}
	p.vars[s.Name] = v
	return v
}

// allLimit says whether each container has a limit of a resource.
func (p *pod) allLimit(name corev1.ResourceName) bool {
	for _, c := range p.sources {
		if q, ok := c.Resources.Limits[name]; !ok || q.IsZero() {
			return false
		}
	}
	return true
}

// guaranteed says whether the pod has the QoS class Guaranteed: each container has
// limits of cpu and memory, and requests, if any, equal to them.
func (p *pod) guaranteed() bool {
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		if !p.allLimit(name) {
			return false
		}
		for _, c := range p.sources {
			if q, ok := c.Resources.Requests[name]; ok && q.Cmp(c.Resources.Limits[name]) != 0 {
				return false
			}
		}
	}
	return true
}

// podNonRoot says whether the pod as a whole forbids root.
func (p *pod) podNonRoot() bool {
	sc := p.Spec.SecurityContext
	return sc != nil && sc.RunAsNonRoot != nil && *sc.RunAsNonRoot
}

func (p *pod) podIDs() (user, group *int64) {
	if sc := p.Spec.SecurityContext; sc != nil {
		return sc.RunAsUser, sc.RunAsGroup
	}
	return nil, nil
}

// user is the user that a container runs as; nil is that of its image.
func (p *pod) user(c *corev1.Container) *int64 {
	if c.SecurityContext != nil && c.SecurityContext.RunAsUser != nil {
		return c.SecurityContext.RunAsUser
	}
	user, _ := p.podIDs()
	return user
}

func (p *pod) group(c *corev1.Container) *int64 {
	if c.SecurityContext != nil && c.SecurityContext.RunAsGroup != nil {
		return c.SecurityContext.RunAsGroup
	}
	_, group := p.podIDs()
	return group
}

// nonRoot says whether the kubelet refuses to start a container as root.
func (p *pod) nonRoot(c *corev1.Container) bool {
	if c.SecurityContext != nil && c.SecurityContext.RunAsNonRoot != nil {
		return *c.SecurityContext.RunAsNonRoot
	}
	return p.podNonRoot()
}

// startsAgain says whether the kubelet may start a container a second time.
func (p *pod) startsAgain(c *corev1.Container) bool {
	if c.RestartPolicy != nil && *c.RestartPolicy != corev1.ContainerRestartPolicyNever || len(c.RestartPolicyRules) > 0 {
		return true
	}
	return c.RestartPolicy == nil && p.Spec.RestartPolicy != corev1.RestartPolicyNever
}
