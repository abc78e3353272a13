// Package podgen makes random pods for tests.
//
// In: a seed. Out: the JSON of a pod whose annotations, volumes and mounts make the
// injection take each of its ways and refuse for each of its reasons. The same seed makes
// the same pod.
package podgen

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/randfill"
)

type gen struct{ *rand.Rand }

// Plain is a pod of fields that the API server mostly accepts.
func Plain(seed uint64) []byte {
	text, err := json.Marshal(pod(seed, 0))
	if err != nil {
		panic(err)
	}
	return text
}

// Pod is a pod whose every field is set at times, to whatever its type can hold, fields
// that no Kubernetes has included.
func Pod(seed uint64) []byte {
	text, err := json.Marshal(pod(seed, 0.5))
	if err != nil {
		panic(err)
	}
	var object map[string]any
	if err := json.Unmarshal(text, &object); err != nil {
		panic(err)
	}
	gen{rand.New(rand.NewPCG(seed, 1))}.unknown(object)
	text, err = json.Marshal(object)
	if err != nil {
		panic(err)
	}
	return text
}

// pod fills all fields with the probability wild.
func pod(seed uint64, wild float64) *corev1.Pod {
	g := gen{rand.New(rand.NewPCG(seed, 0))}
	pod := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}}
	fill := randfill.NewWithSeed(int64(seed)).NilChance(0.8).NumElements(1, 2).MaxDepth(12).Funcs(
		func(q *resource.Quantity, c randfill.Continue) {
			*q = *resource.NewQuantity(int64(c.Uint32()), resource.BinarySI)
		},
		func(t *metav1.Time, c randfill.Continue) { *t = metav1.Unix(int64(c.Uint32()), 0) },
		func(*metav1.FieldsV1, randfill.Continue) {},
		func(s *string, c randfill.Continue) { *s = fmt.Sprintf("s%d", c.Uint32()) },
	)
	if g.chance(wild) {
		fill.Fill(pod)
	}
	pod.Status = corev1.PodStatus{}
	g.containers(pod, wild, fill)
	g.volumes(pod)
	g.security(pod)
	g.resources(pod)
	pod.Annotations = g.annotations(pod)
	return pod
}

func (g gen) chance(p float64) bool { return g.Float64() < p }

func pick[T any](g gen, from ...T) T { return from[g.IntN(len(from))] }

// some keeps a few of a list, at least one.
func some[T any](g gen, from ...T) []T {
	g.Shuffle(len(from), func(i, j int) { from[i], from[j] = from[j], from[i] })
	return from[:1+g.IntN(min(4, len(from)))]
}

func (g gen) containers(pod *corev1.Pod, wild float64, fill *randfill.Filler) {
	make := func(names ...string) []corev1.Container {
		var all []corev1.Container
		for _, name := range names {
			var c corev1.Container
			if g.chance(wild / 2) {
				fill.Fill(&c)
			}
			c.Name, c.Image = name, "image-of-"+name
			c.VolumeMounts, c.VolumeDevices, c.Env, c.EnvFrom = nil, nil, nil, nil
			c.TerminationMessagePath, c.SecurityContext, c.RestartPolicy = "", nil, nil
			c.Resources = corev1.ResourceRequirements{}
			all = append(all, c)
		}
		return all
	}
	pod.Spec.EphemeralContainers = nil
	pod.Spec.Containers = make(some(g, "app", "web", "worker", "log-bridge-seed-app", "a23456789-b23456789-c23456789-d23456789-e23456789-f23456789-123")...)
	pod.Spec.InitContainers = nil
	if g.chance(0.4) {
		pod.Spec.InitContainers = make(some(g, "init", "migrate", "proxy")...)
		if g.chance(0.5) {
			always := corev1.ContainerRestartPolicyAlways
			pod.Spec.InitContainers[0].RestartPolicy = &always
		}
	}
	if g.chance(0.02) {
		pod.Spec.Containers[0].Name = "log-bridge"
	}
	pod.Spec.OS = nil
	if g.chance(0.02) {
		pod.Spec.OS = &corev1.PodOS{Name: corev1.Windows}
	}
}

// each is every container of the pod.
func each(pod *corev1.Pod) []*corev1.Container {
	var all []*corev1.Container
	for i := range pod.Spec.Containers {
		all = append(all, &pod.Spec.Containers[i])
	}
	for i := range pod.Spec.InitContainers {
		all = append(all, &pod.Spec.InitContainers[i])
	}
	return all
}

var dirs = []string{"/app", "/app/data", "/var/log", "/var/log/app", "/var/log2", "/tmp", "/data", "/data/logs", "/run/app", "/var/run/app", "/a$(b)", "/d=/e", "/", "/usr/local/app"}

func (g gen) volumes(pod *corev1.Pod) {
	kinds := []func() corev1.VolumeSource{
		func() corev1.VolumeSource {
			return corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}
		},
		func() corev1.VolumeSource {
			return corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}}
		},
		func() corev1.VolumeSource {
			return corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "c"}}}
		},
		func() corev1.VolumeSource {
			return corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{Spec: corev1.PersistentVolumeClaimSpec{
				AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}}}}}}
		},
	}
	if g.chance(0.2) {
		kinds = append(kinds, func() corev1.VolumeSource {
			return corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/h"}}
		})
	}
	pod.Spec.Volumes = nil
	var names []string
	for i := range g.IntN(4) {
		v := corev1.Volume{Name: fmt.Sprintf("v%d", i), VolumeSource: pick(g, kinds...)()}
		if g.chance(0.01) {
			v.Name = "log-bridge"
		}
		names = append(names, v.Name)
		pod.Spec.Volumes = append(pod.Spec.Volumes, v)
	}
	for _, c := range each(pod) {
		if g.chance(0.3) {
			c.Env = []corev1.EnvVar{
				{Name: "POD", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
				{Name: "DIR", Value: pick(g, "x/$(POD)", "y$$(POD)", "z", "$(OTHER)", "$")},
			}
		}
		if g.chance(0.05) {
			c.EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "c"}}}}
		}
		if len(names) == 0 || g.chance(0.3) {
			continue
		}
		for _, dir := range some(g, append([]string(nil), dirs...)...) {
			m := corev1.VolumeMount{Name: pick(g, names...), MountPath: dir + pick(g, "", "", "/"), ReadOnly: g.chance(0.1)}
			switch g.IntN(5) {
			case 0:
				m.SubPath = pick(g, "sub", "a/b", "$(POD)", "x$")
			case 1:
				m.SubPathExpr = pick(g, "$(POD)", "$(DIR)/logs", "$$(POD)", "a$(", "$(DIR)$(POD)")
			}
			c.VolumeMounts = append(c.VolumeMounts, m)
		}
	}
}

func (g gen) security(pod *corev1.Pod) {
	yes, no := true, false
	ids := func() *int64 {
		if g.chance(0.5) {
			return nil
		}
		id := pick[int64](g, 0, 1000, 1000680000)
		return &id
	}
	pod.Spec.HostNetwork, pod.Spec.HostPID, pod.Spec.HostIPC = g.chance(0.05), false, false
	pod.Spec.SecurityContext = nil
	strict := g.chance(0.4)
	profile := &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}
	inherited := g.chance(0.5)
	if strict && inherited {
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: &yes, SeccompProfile: profile}
	} else if strict {
		pod.Spec.SecurityContext = nil
	} else if g.chance(0.5) {
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ids(), RunAsGroup: ids(), FSGroup: ids(), RunAsNonRoot: pick(g, nil, &yes, &no)}
	}
	for _, c := range each(pod) {
		if c.Lifecycle, c.LivenessProbe, c.ReadinessProbe, c.StartupProbe, c.Ports = nil, nil, nil, nil, nil; strict {
			user := int64(1000)
			c.SecurityContext = &corev1.SecurityContext{AllowPrivilegeEscalation: &no, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}, RunAsUser: pick(g, nil, &user)}
			if !inherited {
				c.SecurityContext.RunAsNonRoot, c.SecurityContext.SeccompProfile = &yes, profile
			}
		} else if g.chance(0.5) {
			c.SecurityContext = &corev1.SecurityContext{RunAsUser: ids(), RunAsGroup: ids(), RunAsNonRoot: pick(g, nil, &yes, &no)}
			if g.chance(0.3) {
				c.SecurityContext.Capabilities = &corev1.Capabilities{Drop: []corev1.Capability{"NET_RAW"}, Add: []corev1.Capability{"SYS_TIME"}}
			}
		}
	}
}

func (g gen) resources(pod *corev1.Pod) {
	pod.Spec.Resources = nil
	if g.chance(0.1) {
		pod.Spec.Resources = &corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")}}
	}
	list := func() corev1.ResourceList {
		r := corev1.ResourceList{}
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
			if g.chance(0.5) {
				r[name] = resource.MustParse(pick(g, "1", "2", "500", "1Gi"))
			}
		}
		return r
	}
	guaranteed := g.chance(0.3)
	for _, c := range each(pod) {
		if guaranteed {
			c.Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourceMemory: resource.MustParse("1Gi")}
			c.Resources.Requests = c.Resources.Limits.DeepCopy()
			continue
		}
		c.Resources.Limits, c.Resources.Requests = list(), list()
		if g.chance(0.2) {
			c.Resources.Limits["example.com/gpu"], c.Resources.Requests["example.com/gpu"] = resource.MustParse("1"), resource.MustParse("1")
		}
		for name, q := range c.Resources.Requests {
			if limit, ok := c.Resources.Limits[name]; ok && q.Cmp(limit) > 0 {
				c.Resources.Requests[name] = limit
			}
		}
	}
}

func (g gen) annotations(pod *corev1.Pod) map[string]string {
	a := map[string]string{"example.com/other": "kept"}
	if g.chance(0.3) {
		a["cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"] = pick(g, "cache", "v0,v1", "log-bridge", "")
	}
	if g.chance(0.3) {
		a["kubectl.kubernetes.io/default-container"] = pick(g, "app", "web", "log-bridge", "absent")
	}
	entries := func() string {
		text := ""
		for range 1 + g.IntN(4) {
			if g.chance(0.4) {
				text += pick(g, each(pod)...).Name + ":"
			} else if g.chance(0.02) {
				text += "absent:"
			}
			text += pick(g, dirs...) + pick(g, "/app.log", "/*.log", "/**/*.log", "/logs/x.log", "/[a-z]*", "/[!x]*/app.log", "/{a,b}.log", "/[{]x[}].log", "/$(x).log", "/$$", "", "/deep/er/x") + pick(g, ",", "\n", " , ")
		}
		return text
	}
	if !g.chance(0.05) {
		a["log-bridge.dev/files"] = entries()
	}
	if g.chance(0.2) {
		a["log-bridge.dev/stderr-files"] = entries()
	}
	for _, setting := range [][]string{
		{"mount", "auto", "file", "directory", "x"}, {"seed", "true", "false", "0"}, {"format", "raw", "prefix", "json"}, {"reclaim", "true", "false"},
		{"size-limit", "1Gi", "0"}, {"cpu-request", "10m", "1"}, {"cpu-limit", "200m", "10m"}, {"memory-request", "32Mi"}, {"memory-limit", "64Mi", "8Mi"},
		{"run-as-user", "0", "1000"}, {"run-as-group", "0", "1000", "x"}, {"inject", "true", "false"}, {"status", "{}", "x"}, {"fiels", "/x"},
	} {
		if g.chance(0.06) {
			a["log-bridge.dev/"+setting[0]] = pick(g, setting[1:]...)
		}
	}
	return a
}

// unknown adds fields that no Kubernetes has.
func (g gen) unknown(object map[string]any) {
	spec := object["spec"].(map[string]any)
	spec["futureField"] = map[string]any{"a": []any{1, "b", nil}}
	for _, list := range []string{"containers", "initContainers", "volumes"} {
		items, _ := spec[list].([]any)
		for _, item := range items {
			if m := item.(map[string]any); g.chance(0.5) {
				m["futureField"] = "kept"
			}
		}
	}
}
