package inject_test

import (
	"encoding/json"
	"fmt"
	"io"
	"path"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/component-helpers/resource"
	psa "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/test/helpers/podgen"
	"github.com/log-bridge/log-bridge/webhook/internal/finding"
	"github.com/log-bridge/log-bridge/webhook/internal/inject"
)

// TestRandomPods holds what is promised to the user against random pods.
func TestRandomPods(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	restricted := func(pod *corev1.Pod) bool {
		results := evaluator.EvaluatePod(psa.LevelVersion{Level: psa.LevelRestricted, Version: psa.LatestVersion()}, &pod.ObjectMeta, &pod.Spec)
		return policy.AggregateCheckResults(results).Allowed
	}
	seen := map[string]int{}
	for seed := range uint64(1500) {
		before := podgen.Pod(seed)
		var pod, untouched corev1.Pod
		decode(t, before, &pod)
		decode(t, before, &untouched)
		r := inject.Pod(t.Context(), &pod, config())
		promised(t, r)
		if !reflect.DeepEqual(pod, untouched) {
			t.Errorf("seed %d: the pod given to inject was changed", seed)
		}
		for _, f := range r.Findings {
			if f.Text() == "" {
				t.Errorf("seed %d: %s without a sentence", seed, f.Code)
			}
			seen[string(f.Code)]++
		}
		if len(r.Operations) == 0 {
			seen["not injected"]++
			continue
		}
		seen["injected"]++
		for _, s := range r.Shares {
			seen[string(s.Way)]++
		}

		for _, op := range r.Operations {
			if op.Operation != "add" {
				t.Errorf("seed %d: operation %s of %s, want additions only", seed, op.Operation, op.Path)
			}
		}
		text := apply(t, before, r)
		var after corev1.Pod
		decode(t, text, &after)
		for what, err := range map[string]error{
			"something was changed, not added": keeps(before, text),
			"containers":                       uniqueAndShort(&after),
			"arguments":                        argumentsMean(&after, r),
			"resources":                        budget(&pod, &after),
			"token":                            tokenless(&after),
		} {
			if err != nil {
				t.Errorf("seed %d: %s: %v", seed, what, err)
			}
		}
		if restricted(&pod) {
			seen["restricted"]++
			if !restricted(&after) {
				t.Errorf("seed %d: the pod was restricted and is no longer", seed)
			}
		}
		if again := inject.Pod(t.Context(), &after, config()); again.LeftAlone != inject.Already || len(again.Findings) > 0 {
			t.Errorf("seed %d: a second time: left alone %q, %v", seed, again.LeftAlone, again.Findings)
		}
		copied(t, seed, text)
		mended(t, seed, text)
		// Another webhook comes after us and puts its own parts before ours.
		foreign := corev1.Container{Name: "foreign", VolumeMounts: []corev1.VolumeMount{{Name: "foreign", MountPath: "/etc/foreign"}}}
		after.Spec.InitContainers = append([]corev1.Container{foreign}, after.Spec.InitContainers...)
		foreign.Name = "foreign-too"
		after.Spec.Containers = append([]corev1.Container{foreign}, after.Spec.Containers...)
		after.Spec.Volumes = append([]corev1.Volume{{Name: "foreign"}}, after.Spec.Volumes...)
		if again := inject.Pod(t.Context(), &after, config()); again.LeftAlone != inject.Already || len(again.Findings) > 0 {
			t.Errorf("seed %d: after another webhook: left alone %q, %v", seed, again.LeftAlone, again.Findings)
		}
		if t.Failed() {
			t.Logf("seed %d: %s", seed, before)
			return
		}
	}
	// The generator must reach what is to be tested.
	for _, what := range []string{"injected", "not injected", "restricted", "volume", "directory", "file", "LB0201", "LB0301", "LB0302", "LB0305", "LB0312", "LB0401", "LB0410"} {
		if seen[what] < 10 {
			t.Errorf("%q came %d times among the random pods; the generator no longer tests it", what, seen[what])
		}
	}
	t.Log(seen)
}

// copied takes our containers out of an injected pod, as a copy without its init containers has
// it, and checks that they are put back where they were, and that nothing else is touched.
func copied(t *testing.T, seed uint64, text []byte) {
	t.Helper()
	var whole map[string]any
	if err := json.Unmarshal(text, &whole); err != nil {
		t.Fatal(err)
	}
	spec := whole["spec"].(map[string]any)
	all := spec["initContainers"].([]any)
	spec["initContainers"] = slices.DeleteFunc(slices.Clone(all), func(c any) bool {
		m := c.(map[string]any)
		command, _ := m["command"].([]any)
		return m["name"] == contract.Container || len(command) > 1 && command[0] == "/log-bridge/.bin/log-bridge"
	})
	without, err := json.Marshal(whole)
	if err != nil {
		t.Fatal(err)
	}
	var pod, untouched corev1.Pod
	decode(t, without, &pod)
	decode(t, without, &untouched)
	r := inject.Pod(t.Context(), &pod, config())
	if !reflect.DeepEqual(pod, untouched) {
		t.Errorf("seed %d: the copied pod given to inject was changed", seed)
	}
	var want, have corev1.Pod
	decode(t, text, &want)
	decode(t, apply(t, without, r), &have)
	if !reflect.DeepEqual(have, want) {
		t.Errorf("seed %d: a copy without our containers is not as before: %v", seed, r.Findings)
	}
}

func decode(t testing.TB, text []byte, into *corev1.Pod) {
	t.Helper()
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatal(err)
	}
}

// keeps says what of a JSON value is not in another, which may have more.
func keeps(before, after []byte) error {
	var a, b any
	if err := json.Unmarshal(before, &a); err != nil {
		return err
	}
	if err := json.Unmarshal(after, &b); err != nil {
		return err
	}
	return kept("", a, b)
}

func kept(at string, before, after any) error {
	switch at {
	case "/metadata/annotations/log-bridge.dev/status":
		return nil
	case "/metadata/annotations/cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes":
		if b, ok := after.(string); ok && strings.HasPrefix(b, before.(string)) {
			return nil
		}
	}
	switch a := before.(type) {
	case map[string]any:
		b, _ := after.(map[string]any)
		for k, v := range a {
			if err := kept(at+"/"+k, v, b[k]); err != nil {
				return err
			}
		}
		return nil
	case []any:
		// What was there is there in its order; between may stand what was added.
		b, _ := after.([]any)
		next := 0
		for i, v := range a {
			var err error
			for {
				if next == len(b) {
					return fmt.Errorf("%s/%d is gone or changed (%w)", at, i, err)
				}
				next++
				if err = kept(fmt.Sprintf("%s/%d", at, i), v, b[next-1]); err == nil {
					break
				}
			}
		}
		return nil
	}
	if !reflect.DeepEqual(before, after) {
		return fmt.Errorf("%s: %v became %v", at, before, after)
	}
	return nil
}

// uniqueAndShort checks rules of the API server for names and mount paths, and that our
// containers come first.
func uniqueAndShort(pod *corev1.Pod) error {
	if pod.Spec.InitContainers[0].Name != contract.Container {
		return fmt.Errorf("the first init container is %s", pod.Spec.InitContainers[0].Name)
	}
	names := map[string]bool{}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if names[c.Name] || len(c.Name) > 63 {
			return fmt.Errorf("name %s is there twice or too long", c.Name)
		}
		names[c.Name] = true
		ours := map[string]bool{}
		for _, m := range c.VolumeMounts {
			if m.Name != contract.Volume {
				continue
			}
			for _, other := range c.VolumeMounts {
				if other.Name != contract.Volume && path.Clean(other.MountPath) == m.MountPath {
					return fmt.Errorf("container %s: %s hides volume %s", c.Name, m.MountPath, other.Name)
				}
			}
			if ours[m.MountPath] || strings.Contains(m.MountPath, ":") || path.Clean(m.MountPath) != m.MountPath || strings.HasPrefix(m.SubPath, "/") {
				return fmt.Errorf("container %s: mount %+v", c.Name, m)
			}
			ours[m.MountPath] = true
		}
	}
	return nil
}

// argumentsMean reads the sidecar's arguments as the kubelet and the sidecar do, and
// compares them with what was asked for.
func argumentsMean(pod *corev1.Pod, r inject.Result) error {
	sidecar := pod.Spec.InitContainers[0]
	var args []string
	for _, arg := range sidecar.Args[1:] {
		args = append(args, kubeletExpands(arg, sidecar.Env))
	}
	c, err := contract.ParseTail(args, io.Discard)
	if err != nil {
		return fmt.Errorf("%q: %w", args, err)
	}
	var want, have []string
	for _, s := range r.Shares {
		want = append(want, s.Entry)
	}
	for _, e := range slices.Concat(c.Stdout, c.Stderr) {
		have = append(have, e.String())
	}
	if !slices.Equal(have, want) {
		return fmt.Errorf("follows %q, want %q", have, want)
	}
	// Each file and directory that a container mounts from our volume is one that will be
	// there: created by the sidecar or by a seeding container.
	made := map[string]bool{}
	for _, p := range slices.Concat(c.Files, c.Dirs, c.Seeded) {
		made[p.Container+p.Path] = true
	}
	for _, container := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if container.Name == contract.Container || strings.HasPrefix(container.Name, contract.SeedContainerPrefix) && len(container.Command) > 1 && container.Command[1] == "seed" {
			continue
		}
		for _, m := range container.VolumeMounts {
			if m.Name == contract.Volume && !made[m.SubPath] {
				return fmt.Errorf("container %s mounts %s, which nobody makes", container.Name, m.SubPath)
			}
		}
	}
	// Each view is of a volume that the sidecar mounts, with the variables it needs.
	for _, v := range c.Views {
		if !slices.ContainsFunc(sidecar.VolumeMounts, func(m corev1.VolumeMount) bool { return contract.Covers(m.MountPath, v.Dir) && m.ReadOnly }) {
			return fmt.Errorf("view %s is of no volume of the sidecar", v)
		}
	}
	return nil
}

// kubeletExpands is the rule for $(VAR) in arguments as the Kubernetes documentation
// gives it, written from there and not from package inject.
func kubeletExpands(text string, env []corev1.EnvVar) string {
	values := map[string]string{}
	for _, v := range env {
		values[v.Name] = expandWith(v.Value, values)
		if v.ValueFrom != nil {
			values[v.Name] = "from-" + v.Name
		}
	}
	return expandWith(text, values)
}

func expandWith(text string, values map[string]string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '$' || i+1 == len(text) {
			b.WriteByte(text[i])
			continue
		}
		i++
		switch end := strings.IndexByte(text[i:], ')'); {
		case text[i] == '$':
			b.WriteByte('$')
		case text[i] == '(' && end > 0:
			name := text[i+1 : i+end]
			if v, ok := values[name]; ok {
				b.WriteString(v)
			} else {
				b.WriteString("$(" + name + ")")
			}
			i += end
		default:
			b.WriteString("$" + text[i:i+1])
		}
	}
	return b.String()
}

// budget checks QoS class, limits and requests.
func budget(before, after *corev1.Pod) error {
	if a, b := qos(before), qos(after); b < a {
		return fmt.Errorf("QoS class %d became %d", a, b)
	}
	sidecar := after.Spec.InitContainers[0].Resources
	if err := ephemeral(before, after, sidecar); err != nil {
		return err
	}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		request, requested := sidecar.Requests[name]
		limit, limited := sidecar.Limits[name]
		if before.Spec.Resources == nil && !requested {
			return fmt.Errorf("no %s request: %+v", name, sidecar)
		}
		if requested && limited && request.Cmp(limit) > 0 {
			return fmt.Errorf("%s request above its limit: %+v", name, sidecar)
		}
		all := before.Spec.Resources == nil
		for _, c := range slices.Concat(before.Spec.InitContainers, before.Spec.Containers) {
			_, ok := c.Resources.Limits[name]
			all = all && ok
		}
		if all && !limited {
			return fmt.Errorf("every container has a %s limit, the sidecar has none", name)
		}
	}
	return nil
}

// ephemeral checks that a pod's ephemeral-storage limit grows by what the kubelet keeps of the
// sidecar's log, and that a pod without one gets none.
func ephemeral(before, after *corev1.Pod, sidecar corev1.ResourceRequirements) error {
	const name = corev1.ResourceEphemeralStorage
	a, limited := resource.PodLimits(before, resource.PodResourcesOptions{})[name]
	b, still := resource.PodLimits(after, resource.PodResourcesOptions{})[name]
	own, has := sidecar.Limits[name]
	if limited != still || limited != has {
		return fmt.Errorf("ephemeral-storage limit: the pod had one: %v, has one: %v, the sidecar: %v", limited, still, has)
	}
	if !limited {
		return nil
	}
	a.Add(own)
	if log := apiresource.MustParse("60Mi"); own.Cmp(log) < 0 || a.Cmp(b) != 0 {
		return fmt.Errorf("the sidecar's ephemeral-storage limit is %s, and the pod's %s, want the sum %s", own.String(), b.String(), a.String())
	}
	if request, ok := sidecar.Requests[name]; !ok || request.Cmp(own) >= 0 {
		return fmt.Errorf("ephemeral-storage request %s of a limit of %s; the API server takes the limit if there is none", request.String(), own.String())
	}
	return nil
}

// mended drops from an injected pod what a webhook with old Kubernetes types drops, and checks that
// a second call puts all of it back.
func mended(t *testing.T, seed uint64, text []byte) {
	t.Helper()
	var whole map[string]any
	if err := json.Unmarshal(text, &whole); err != nil {
		t.Fatal(err)
	}
	containers := whole["spec"].(map[string]any)["initContainers"].([]any)
	for _, c := range containers {
		m := c.(map[string]any)
		command, _ := m["command"].([]any)
		if m["name"] != contract.Container && !(len(command) > 1 && command[0] == "/log-bridge/.bin/log-bridge") {
			continue
		}
		delete(m, "restartPolicy")
		delete(m["securityContext"].(map[string]any), "seccompProfile")
	}
	dropped, err := json.Marshal(whole)
	if err != nil {
		t.Fatal(err)
	}
	var pod, want, have corev1.Pod
	decode(t, dropped, &pod)
	r := inject.Pod(t.Context(), &pod, config())
	promised(t, r)
	if !r.Mended || len(r.Findings) == 0 || r.Findings[0].Code != finding.FieldsDropped {
		t.Errorf("seed %d: mended %v, said %v", seed, r.Mended, r.Findings)
	}
	decode(t, text, &want)
	decode(t, apply(t, dropped, r), &have)
	if !reflect.DeepEqual(have, want) {
		t.Errorf("seed %d: what another webhook dropped is not put back: %v", seed, r.Operations)
	}
}

// qos is 0 for BestEffort, 1 for Burstable, 2 for Guaranteed, from the documentation of
// Kubernetes.
func qos(pod *corev1.Pod) int {
	if r := pod.Spec.Resources; r != nil {
		if len(r.Requests)+len(r.Limits) > 0 {
			return 1 // the generator makes no Guaranteed ones of this kind
		}
	}
	any, all := false, true
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			limit, limited := c.Resources.Limits[name]
			request, requested := c.Resources.Requests[name]
			any = any || !limit.IsZero() || !request.IsZero() // zero counts as none
			all = all && limited && (!requested || request.Cmp(limit) == 0)
		}
	}
	switch {
	case all:
		return 2
	case any:
		return 1
	}
	return 0
}

// A BestEffort pod becomes Burstable by the sidecar's requests and its memory limit, and stays what it
// is without them, as docs/sharing.md says.
func TestBestEffort(t *testing.T) {
	plain := []byte(`{"metadata":{"annotations":{"log-bridge.dev/files":"/app/app.log"}},"spec":{"containers":[{"name":"app","image":"x"}]}}`)
	zero := []byte(strings.Replace(string(plain), `"}}`, `","log-bridge.dev/cpu-request":"0","log-bridge.dev/memory-request":"0"}}`, 1))
	without := config()
	without.Resources.MemoryLimit = apiresource.Quantity{}
	for _, c := range []struct {
		pod    []byte
		config inject.Config
		class  int
	}{{plain, config(), 1}, {plain, without, 1}, {zero, config(), 1}, {zero, without, 0}} {
		var pod, after corev1.Pod
		decode(t, c.pod, &pod)
		decode(t, apply(t, c.pod, inject.Pod(t.Context(), &pod, c.config)), &after)
		if class := qos(&after); class != c.class {
			t.Errorf("QoS class %d, want %d: %+v", class, c.class, after.Spec.InitContainers[0].Resources)
		}
	}
}

// tokenless checks that no container of ours would be given a token.
func tokenless(pod *corev1.Pod) error {
	for _, c := range pod.Spec.InitContainers {
		if c.Name != contract.Container && !(len(c.Command) > 1 && c.Command[0] == "/log-bridge/.bin/log-bridge") {
			continue
		}
		if !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool {
			return m.MountPath == contract.TokenPath && m.SubPath == contract.TokenDir && m.ReadOnly
		}) {
			return fmt.Errorf("container %s would get a token", c.Name)
		}
	}
	return nil
}
