package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/resource"
	"k8s.io/client-go/kubernetes"

	"github.com/log-bridge/log-bridge/sidecar/contract"
)

// selection says which pods a command is about: names, a selector, or all.
type selection struct {
	args     []string
	selector string
	all      bool // namespaces
}

// workload is pods with the same template, of which one is enough to look at.
type workload struct {
	// Name is TYPE/NAME of what one would change, such as deployment/cart.
	Name      string
	Namespace string
	// Kind and Bare are its kind and its name alone.
	Kind, Bare string
	Pods       []*corev1.Pod
}

// running is the pod to look at: the oldest that runs and is ready, since it has written most; nil if none runs.
func (w *workload) running() *corev1.Pod {
	var best *corev1.Pod
	rank := func(p *corev1.Pod) int {
		ready := slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		})
		switch {
		case p.DeletionTimestamp != nil || p.Status.Phase != corev1.PodRunning:
			return 0
		case !ready:
			return 1
		}
		return 2
	}
	for _, p := range w.Pods {
		if rank(p) > 0 && (best == nil || rank(p) > rank(best) || rank(p) == rank(best) && p.CreationTimestamp.Before(&best.CreationTimestamp)) {
			best = p
		}
	}
	return best
}

// workloads are those that the selection names, in the order of their names.
func (o *options) workloads(ctx context.Context, api kubernetes.Interface, s selection) ([]*workload, error) {
	namespace, _, err := o.kube.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return nil, err
	}
	if s.all {
		namespace = ""
	}
	var pods []corev1.Pod
	list := func(namespace, selector string) error {
		page, err := api.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector, Limit: 500})
		for ; err == nil; page, err = api.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector, Limit: 500, Continue: page.Continue}) {
			if pods = append(pods, page.Items...); page.Continue == "" {
				return nil
			}
		}
		return fmt.Errorf("list pods: %w", err)
	}
	if len(s.args) == 0 {
		if err := list(namespace, s.selector); err != nil {
			return nil, err
		}
		return group(pods), nil
	}
	if s.selector != "" || s.all {
		return nil, errors.New("names and a selector (-l, -A) exclude each other; use one of them")
	}
	for _, arg := range s.args {
		if !strings.Contains(arg, "/") {
			arg = "pods/" + arg
		}
		found := resource.NewBuilder(o.kube).Unstructured().NamespaceParam(namespace).DefaultNamespace().
			ResourceTypeOrNameArgs(false, arg).Flatten().Do()
		infos, err := found.Infos()
		if err != nil {
			return nil, err
		}
		for _, info := range infos {
			object, ok := info.Object.(*unstructured.Unstructured)
			if !ok {
				return nil, fmt.Errorf("%s: unexpected %T", arg, info.Object)
			}
			if object.GetKind() == "Pod" {
				var pod corev1.Pod
				if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &pod); err != nil {
					return nil, fmt.Errorf("%s: %w", arg, err)
				}
				pods = append(pods, pod)
				continue
			}
			selector, err := selectorOf(object)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", arg, err)
			}
			before := len(pods)
			if err := list(object.GetNamespace(), selector); err != nil {
				return nil, err
			}
			if len(pods) == before {
				return nil, fmt.Errorf("%s has no pods now; start it and try again", arg)
			}
		}
	}
	return group(pods), nil
}

// selectorOf is the selector of a workload.
func selectorOf(object *unstructured.Unstructured) (string, error) {
	raw, ok, _ := unstructured.NestedMap(object.Object, "spec", "selector")
	if !ok {
		return "", fmt.Errorf("a %s has no selector for pods; name a pod of it", object.GetKind())
	}
	var s metav1.LabelSelector
	if _, labelled := raw["matchLabels"]; labelled || raw["matchExpressions"] != nil {
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(raw, &s); err != nil {
			return "", err
		}
	} else { // a ReplicationController or a Service
		s.MatchLabels, _, _ = unstructured.NestedStringMap(object.Object, "spec", "selector")
	}
	selector, err := metav1.LabelSelectorAsSelector(&s)
	if err != nil {
		return "", err
	}
	return selector.String(), nil
}

// group puts pods of one owner together.
func group(pods []corev1.Pod) []*workload {
	byName := map[string]*workload{}
	var all []*workload
	for i := range pods {
		p := &pods[i]
		kind, name := ownerOf(p)
		key := p.Namespace + "/" + kind + "/" + name
		w := byName[key]
		if w == nil {
			w = &workload{Name: strings.ToLower(kind) + "/" + name, Namespace: p.Namespace, Kind: kind, Bare: name}
			byName[key] = w
			all = append(all, w)
		}
		if !slices.ContainsFunc(w.Pods, func(q *corev1.Pod) bool { return q.Name == p.Name }) {
			w.Pods = append(w.Pods, p)
		}
	}
	slices.SortFunc(all, func(a, b *workload) int {
		return strings.Compare(a.Namespace+"\x00"+a.Name, b.Namespace+"\x00"+b.Name)
	})
	return all
}

// ownerOf is what a person would edit to change a pod. The name of a Deployment or CronJob is that
// of the ReplicaSet or Job between, without its last part.
func ownerOf(p *corev1.Pod) (kind, name string) {
	owner := metav1.GetControllerOf(p)
	if owner == nil {
		return "Pod", p.Name
	}
	parent, _, cut := cutLast(owner.Name)
	switch {
	case owner.Kind == "ReplicaSet" && cut && p.Labels["pod-template-hash"] != "" && strings.HasSuffix(owner.Name, "-"+p.Labels["pod-template-hash"]):
		return "Deployment", parent
	case owner.Kind == "Job" && cut && isNumber(strings.TrimPrefix(owner.Name, parent+"-")) && len(owner.Name)-len(parent) > 8:
		return "CronJob", parent
	}
	return owner.Kind, owner.Name
}

func cutLast(s string) (before, after string, ok bool) {
	if i := strings.LastIndexByte(s, '-'); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}

func isNumber(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// applications are the containers of a pod that are not ours.
func applications(p *corev1.Pod) (names []string) {
	for _, c := range p.Spec.Containers {
		names = append(names, c.Name)
	}
	for _, c := range p.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways && c.Name != contract.Container {
			names = append(names, c.Name)
		}
	}
	return names
}
