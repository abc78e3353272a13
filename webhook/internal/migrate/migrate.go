// Package migrate turns the configuration of similar products into that of log-bridge.
//
// In: manifests, or objects of a cluster. Out: for each workload that a similar product serves, a patch of its pod template; for each
// configuration that selects pods by labels, a rule for the values of the chart; and a sentence for each thing that has no
// equivalent. The package is pure: it calls nothing and keeps nothing.
//
// What is known:
//
//   - the tailer webhook of kube-logging: tailer.go
//   - the tailing-sidecar operator of SumoLogic: tailingsidecar.go
//   - a container that runs tail(1) on a shared volume: tail.go
package migrate

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/finding"
	"github.com/log-bridge/log-bridge/webhook/internal/inject"
	"github.com/log-bridge/log-bridge/webhook/internal/manifest"
)

// Result is what becomes of a set of objects.
type Result struct {
	Changes []Change
	Rules   []Rule
}

// Change is what becomes of one workload.
type Change struct {
	// Object is its kind and name, such as Deployment/web; Kind is its kind alone.
	Object, Kind, Namespace string
	// From are the products that served it.
	From []string
	// Annotations are those of the pod template to set, with their prefix.
	Annotations map[string]string
	// Remove are annotations of the other product, Containers and InitContainers the names of its containers.
	Remove                     []string
	Containers, InitContainers []string
	// Without says what has no equivalent, and what to do.
	Without []string
}

// Rule is what becomes of a configuration that selects pods: a rule for the values of the chart.
type Rule struct {
	// Object is the kind and name of the configuration.
	Object            string                `json:"-"`
	Name              string                `json:"name"`
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`
	PodSelector       *metav1.LabelSelector `json:"podSelector,omitempty"`
	// Annotations are without the prefix.
	Annotations map[string]string `json:"annotations"`
	Without     []string          `json:"-"`
}

// Convert reads manifests. The error is for a text that is no manifest.
func Convert(ctx context.Context, text []byte) (Result, error) {
	var r Result
	configs, err := configsIn(text)
	if err != nil {
		return r, err
	}
	for i := range configs {
		if rule, ok := configs[i].rule(); ok {
			r.Rules = append(r.Rules, rule)
		}
	}
	type name struct{ object, namespace string }
	var named []name
	if err := objects(text, func(u unstructured.Unstructured) {
		named = append(named, name{u.GetKind() + "/" + u.GetName(), u.GetNamespace()})
	}); err != nil {
		return r, err
	}
	pods, err := manifest.Read(text).Pods()
	if err != nil {
		return r, err
	}
	for _, p := range pods {
		// The pods come in the order of their objects.
		for len(named) > 0 && named[0].object != p.Object {
			named = named[1:]
		}
		if len(named) == 0 {
			break
		}
		namespace := named[0].namespace
		named = named[1:]
		if p.Pod == nil {
			continue
		}
		kind, _, _ := strings.Cut(p.Object, "/")
		m := &migration{pod: p.Pod, Change: Change{Object: p.Object, Kind: kind, Namespace: namespace}}
		m.tailer()
		m.tailingSidecar(configs)
		m.tails()
		if len(m.From) == 0 {
			continue
		}
		m.finish(ctx)
		r.Changes = append(r.Changes, m.Change)
	}
	return r, nil
}

// migration is the change of one pod as it grows.
type migration struct {
	Change
	pod     *corev1.Pod
	entries []contract.Entry
	apart   bool // each file had a container of its own
}

// from notes that a product serves the pod.
func (m *migration) from(product string) {
	if !slices.Contains(m.From, product) {
		m.From = append(m.From, product)
	}
}

func (m *migration) without(format string, args ...any) {
	m.Without = append(m.Without, fmt.Sprintf(format, args...))
}

// follow adds an entry, once.
func (m *migration) follow(container, file string) {
	e := contract.Entry{Container: container, Pattern: path.Clean(file)}
	if container == m.first() {
		e.Container = ""
	}
	if !slices.Contains(m.entries, e) {
		m.entries = append(m.entries, e)
	}
}

// first is the container that an entry without a container means once the others are gone.
func (m *migration) first() string {
	if name := m.pod.Annotations["kubectl.kubernetes.io/default-container"]; name != "" {
		return name
	}
	for _, c := range m.pod.Spec.Containers {
		if !slices.Contains(m.Containers, c.Name) {
			return c.Name
		}
	}
	return ""
}

// finish sets the annotations, and asks log-bridge what it makes of the pod with them.
func (m *migration) finish(ctx context.Context) {
	if len(m.entries) == 0 {
		return // Without says why
	}
	if m.apart && len(m.entries) > 1 {
		m.without("each file had a container of its own; log-bridge has one for all. To tell the lines apart, set %s%s to prefix or json", contract.Prefix, contract.KeyFormat)
	}
	var words []string
	if have := m.pod.Annotations[contract.Prefix+contract.KeyFiles]; have != "" {
		words = append(words, have)
	}
	first := m.first()
	for _, e := range m.entries {
		if e.Container == first {
			e.Container = "" // it became the first one when containers were removed
		}
		words = append(words, e.String())
	}
	m.Annotations = map[string]string{contract.Prefix + contract.KeyFiles: strings.Join(words, ",")}
	after := m.pod.DeepCopy()
	gone := func(names []string) func(corev1.Container) bool {
		return func(c corev1.Container) bool { return slices.Contains(names, c.Name) }
	}
	after.Spec.Containers = slices.DeleteFunc(after.Spec.Containers, gone(m.Containers))
	after.Spec.InitContainers = slices.DeleteFunc(after.Spec.InitContainers, gone(m.InitContainers))
	after.Annotations = maps.Clone(after.Annotations)
	if after.Annotations == nil {
		after.Annotations = map[string]string{}
	}
	for _, key := range m.Remove {
		delete(after.Annotations, key)
	}
	maps.Copy(after.Annotations, m.Annotations)
	for _, f := range inject.Pod(ctx, after, inject.Config{Version: "migrate", Image: "log-bridge", Resources: inject.DefaultResources()}).Findings {
		if f.Severity() != finding.Note {
			m.without("%s %s: %s", f.Severity(), f.Code, f.Text())
		}
	}
}

// Patch is a strategic-merge patch of the workload.
func (c Change) Patch() map[string]any {
	annotations := map[string]any{}
	for key, value := range c.Annotations {
		annotations[key] = value
	}
	for _, key := range c.Remove {
		annotations[key] = nil
	}
	pod := map[string]any{"metadata": map[string]any{"annotations": annotations}}
	spec := map[string]any{}
	remove := func(list string, names []string) {
		var all []any
		for _, name := range names {
			all = append(all, map[string]any{"name": name, "$patch": "delete"})
		}
		if len(all) > 0 {
			spec[list] = all
		}
	}
	remove("containers", c.Containers)
	remove("initContainers", c.InitContainers)
	if len(spec) > 0 {
		pod["spec"] = spec
	}
	for _, key := range slices.Backward(templatePath(c.Kind)) {
		pod = map[string]any{key: pod}
	}
	return pod
}

// templatePath is where a kind has its pod template.
func templatePath(kind string) []string {
	switch kind {
	case "Pod":
		return nil
	case "CronJob":
		return []string{"spec", "jobTemplate", "spec", "template"}
	}
	return []string{"spec", "template"}
}

// mounted is a container of the pod that mounts a volume so that it sees a path of it, other than those that are to go; and the path
// as it sees it.
func (m *migration) mounted(volume, inVolume string) (container, file string, ok bool) {
	for _, c := range slices.Concat(m.pod.Spec.Containers, m.pod.Spec.InitContainers) {
		if slices.Contains(m.Containers, c.Name) || slices.Contains(m.InitContainers, c.Name) {
			continue
		}
		for _, mount := range c.VolumeMounts {
			below := path.Clean("/" + mount.SubPath)
			if mount.Name == volume && mount.SubPathExpr == "" && contract.Covers(below, inVolume) {
				return c.Name, path.Join(mount.MountPath, strings.TrimPrefix(inVolume, below)), true
			}
		}
	}
	return "", "", false
}

// objects calls visit with each object of a text, also those in lists.
func objects(text []byte, visit func(unstructured.Unstructured)) error {
	docs, err := decode(text)
	if err != nil {
		return err
	}
	for _, doc := range docs {
		u := unstructured.Unstructured{Object: doc}
		if items, ok, _ := unstructured.NestedSlice(doc, "items"); ok {
			for _, item := range items {
				if object, ok := item.(map[string]any); ok {
					visit(unstructured.Unstructured{Object: object})
				}
			}
			continue
		}
		visit(u)
	}
	return nil
}

func sorted[V any](m map[string]V) []string {
	return slices.SortedFunc(maps.Keys(m), cmp.Compare[string])
}
