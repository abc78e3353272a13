package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/resource"
	"k8s.io/client-go/kubernetes"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/finding"
	"github.com/log-bridge/log-bridge/webhook/internal/inject"
)

// annotating is what the user asks of annotate.
type annotating struct {
	name      string
	set       map[string]string // without the prefix; an empty value removes the annotation
	discover  bool
	undo      bool
	yes       bool
	dryServer bool
	wait      time.Duration
}

func (o *options) annotate() *cobra.Command {
	var a annotating
	dry := ""
	c := &cobra.Command{
		Use:   "annotate TYPE/NAME [KEY=VALUE…]",
		Short: "Annotate a workload, follow its rollout, and print the first lines of its files",
		Long: `Sets annotations of log-bridge on the pod template of a workload. It shows the change and its effect, asks, follows the rollout, and
prints the first lines, or why none came. KEY is an annotation without the prefix, such as files; KEY= removes it.`,
		Example: `  kubectl log-bridge annotate deployment/shop files=/var/log/shop/*.log
  kubectl log-bridge annotate deployment/shop --from-discovery
  kubectl log-bridge annotate deployment/shop --undo`,
		Args: cobra.MinimumNArgs(1),
	}
	o.looks(c)
	c.Flags().BoolVar(&a.discover, "from-discovery", false, "set what discover finds in a running pod")
	c.Flags().BoolVar(&a.undo, "undo", false, "remove all annotations of log-bridge")
	c.Flags().BoolVarP(&a.yes, "yes", "y", false, "do not ask")
	c.Flags().StringVar(&dry, "dry-run", "", "\"server\": only show the change, and what the API server says to it")
	c.Flags().DurationVar(&a.wait, "rollout-timeout", 5*time.Minute, "how long to wait for the rollout")
	c.RunE = func(c *cobra.Command, args []string) error {
		if dry != "" && dry != "server" {
			return fmt.Errorf("--dry-run=%s is unknown; use --dry-run=server", dry)
		}
		a.name, a.dryServer, a.set = args[0], dry != "", map[string]string{}
		for _, arg := range args[1:] {
			key, value, ok := strings.Cut(arg, "=")
			key = strings.TrimPrefix(key, contract.Prefix)
			if !ok {
				return fmt.Errorf("%q is not KEY=VALUE, such as files=/app/app.log", arg)
			}
			if !slices.ContainsFunc(contract.Annotations, func(a contract.Annotation) bool { return a.Key == key && key != contract.KeyStatus }) {
				return fmt.Errorf("log-bridge has no annotation %q; see docs/annotations.md", key)
			}
			a.set[key] = value
		}
		if ways := count(len(a.set) > 0, a.discover, a.undo); ways != 1 {
			return errors.New("say what to set: KEY=VALUE, --from-discovery or --undo, one of them")
		}
		ctx, stop := untilSignal(c.Context())
		defer stop()
		return o.annotateWorkload(ctx, a)
	}
	return c
}

func count(all ...bool) (n int) {
	for _, b := range all {
		if b {
			n++
		}
	}
	return n
}

func (o *options) annotateWorkload(ctx context.Context, a annotating) error {
	_, api, err := o.client()
	if err != nil {
		return err
	}
	namespace, _, err := o.kube.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return err
	}
	infos, err := resource.NewBuilder(o.kube).Unstructured().NamespaceParam(namespace).DefaultNamespace().ResourceTypeOrNameArgs(false, a.name).Flatten().Do().Infos()
	if err != nil {
		return err
	}
	if len(infos) != 1 {
		return fmt.Errorf("%s names %d objects; name one workload, such as deployment/shop", a.name, len(infos))
	}
	info := infos[0]
	object, ok := info.Object.(*unstructured.Unstructured)
	if !ok {
		return fmt.Errorf("%s: unexpected %T", a.name, info.Object)
	}
	pod, err := templateOf(object)
	if err != nil {
		return err
	}
	if a.discover {
		if a.set, err = o.discoverFor(ctx, api, a.name); err != nil {
			return err
		}
	}
	if a.undo {
		for key := range pod.Annotations {
			if name, ours := strings.CutPrefix(key, contract.Prefix); ours {
				a.set[name] = ""
			}
		}
	}
	change := o.showChange(pod, a.set)
	if len(change) == 0 {
		say(o.Out, "%s has these annotations already; nothing is to be done", a.name)
		return nil
	}
	if mistaken := o.showEffect(ctx, pod, change); mistaken {
		return errProblem
	}
	patch, err := json.Marshal(patchOf(object.GetKind(), change))
	if err != nil {
		return err
	}
	// The server's policies, quotas and other webhooks have their say here; warnings are printed as they come.
	helper := resource.NewHelper(info.Client, info.Mapping).DryRun(true)
	if _, err := helper.Patch(info.Namespace, info.Name, types.StrategicMergePatchType, patch, nil); err != nil {
		return fmt.Errorf("the API server refuses the change: %w", err)
	}
	if a.dryServer {
		say(o.Out, "The API server accepts the change (dry run).")
		return nil
	}
	if !a.yes && !o.confirmed(fmt.Sprintf("Change %s in namespace %s, which replaces its pods?", a.name, info.Namespace)) {
		return errors.New("nothing was changed")
	}
	changed, err := resource.NewHelper(info.Client, info.Mapping).Patch(info.Namespace, info.Name, types.StrategicMergePatchType, patch, nil)
	if err != nil {
		return err
	}
	say(o.Out, "%s is changed; undo it with: kubectl log-bridge annotate %s --undo -n %s", a.name, a.name, info.Namespace)
	now, ok := changed.(*unstructured.Unstructured)
	if !ok || !slices.Contains([]string{"Deployment", "StatefulSet", "DaemonSet"}, object.GetKind()) {
		say(o.Out, "It takes effect for pods that are created from now on.")
		return nil
	}
	if err := o.rollout(ctx, info, now.GetGeneration(), a.wait); err != nil {
		return err
	}
	if a.undo {
		return nil
	}
	return o.firstLines(ctx, api, now)
}

// templateOf is a pod as a workload makes it.
func templateOf(object *unstructured.Unstructured) (*corev1.Pod, error) {
	path := []string{"spec", "template"}
	switch object.GetKind() {
	case "Pod":
		return nil, errors.New("the annotations of a pod count when it is created; annotate its workload, or create the pod again with them")
	case "CronJob":
		path = []string{"spec", "jobTemplate", "spec", "template"}
	case "Job":
		return nil, errors.New("the template of a Job cannot be changed; create the Job again with the annotations")
	}
	raw, ok, err := unstructured.NestedMap(object.Object, path...)
	if err != nil || !ok {
		return nil, fmt.Errorf("a %s has no pod template; name a workload such as deployment/shop", object.GetKind())
	}
	var pod corev1.Pod
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(raw, &pod); err != nil {
		return nil, err
	}
	pod.Namespace = object.GetNamespace()
	return &pod, nil
}

// discoverFor is what discover finds for a workload, without the prefix.
func (o *options) discoverFor(ctx context.Context, api kubernetes.Interface, name string) (map[string]string, error) {
	r, err := o.runner()
	if err != nil {
		return nil, err
	}
	workloads, err := o.workloads(ctx, api, selection{args: []string{name}})
	if err != nil {
		return nil, err
	}
	set := map[string]string{}
	for _, w := range workloads {
		say(o.ErrOut, "looking into a pod of %s …", w.Name)
		d := look(ctx, r, w, "", defaultWatch)
		for _, problem := range d.Problems {
			say(o.ErrOut, "%s: %s", w.Name, problem)
		}
		for key, value := range d.Annotations {
			set[strings.TrimPrefix(key, contract.Prefix)] = value
		}
	}
	if len(set) == 0 {
		return nil, fmt.Errorf("no logs of %s were found that are not bridged already; see kubectl log-bridge discover %s -o wide", name, name)
	}
	return set, nil
}

// showChange prints what changes, and returns it with the prefix; nil removes.
func (o *options) showChange(pod *corev1.Pod, set map[string]string) map[string]any {
	change := map[string]any{}
	for _, key := range slices.Sorted(maps.Keys(set)) {
		name, value := contract.Prefix+key, set[key]
		old, has := pod.Annotations[name]
		if has && old == value || !has && value == "" {
			continue
		}
		if has {
			say(o.Out, "- %s: %s", name, quoted(old))
		}
		change[name] = nil
		if value != "" {
			change[name] = value
			say(o.Out, "+ %s: %s", name, quoted(value))
		}
	}
	return change
}

// showEffect prints how the files will be shared, and what is wrong with the annotations.
func (o *options) showEffect(ctx context.Context, pod *corev1.Pod, change map[string]any) (mistaken bool) {
	after := pod.DeepCopy()
	if after.Annotations == nil {
		after.Annotations = map[string]string{}
	}
	for key, value := range change {
		if text, ok := value.(string); ok {
			after.Annotations[key] = text
		} else {
			delete(after.Annotations, key)
		}
	}
	r := inject.Pod(ctx, after, inject.Config{Version: version, Image: "log-bridge", Resources: inject.DefaultResources()})
	for _, s := range r.Shares {
		say(o.Out, "  %s", s.Entry)
		say(o.Out, "    %s: %s", s.Way, s.Explain())
	}
	for _, f := range r.Findings {
		say(o.Out, "  %s %s: %s", f.Severity(), f.Code, f.Text())
	}
	return len(finding.Mistakes(r.Findings)) > 0
}

// rollout waits until all pods of a workload are as its template says.
func (o *options) rollout(ctx context.Context, info *resource.Info, generation int64, wait time.Duration) error {
	say(o.Out, "waiting for the rollout …")
	for end := time.Now().Add(wait); ; {
		object, err := resource.NewHelper(info.Client, info.Mapping).Get(info.Namespace, info.Name)
		if err != nil {
			return err
		}
		u, ok := object.(*unstructured.Unstructured)
		if !ok {
			return fmt.Errorf("unexpected %T", object)
		}
		done, state := rolledOut(u, generation)
		if done {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("the rollout is not complete after %v (%s); see kubectl describe %s/%s -n %s", wait, state, strings.ToLower(u.GetKind()), u.GetName(), u.GetNamespace())
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// rolledOut says whether a workload's controller is done with a generation.
func rolledOut(u *unstructured.Unstructured, generation int64) (done bool, state string) {
	number := func(path ...string) int64 {
		n, _, _ := unstructured.NestedInt64(u.Object, path...)
		return n
	}
	want, updated, ready := number("spec", "replicas"), number("status", "updatedReplicas"), number("status", "readyReplicas")
	total := number("status", "replicas")
	if u.GetKind() == "DaemonSet" {
		want, updated, ready = number("status", "desiredNumberScheduled"), number("status", "updatedNumberScheduled"), number("status", "numberReady")
		total = want
	}
	state = fmt.Sprintf("%d of %d pods updated, %d ready", updated, want, ready)
	return number("status", "observedGeneration") >= generation && updated == want && ready == want && total == want, state
}

// firstLinesWait is how long to wait for the first lines of a pod.
const firstLinesWait = 30 * time.Second

// firstLines prints the first lines that the sidecar of a pod of the workload delivers, or why there are none.
func (o *options) firstLines(ctx context.Context, api kubernetes.Interface, object *unstructured.Unstructured) error {
	selector, err := selectorOf(object)
	if err != nil {
		return err
	}
	list, err := api.CoreV1().Pods(object.GetNamespace()).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return err
	}
	var pod *corev1.Pod
	for i := range list.Items {
		p := &list.Items[i]
		if p.DeletionTimestamp == nil && (pod == nil || pod.CreationTimestamp.Before(&p.CreationTimestamp)) {
			pod = p
		}
	}
	switch {
	case pod == nil:
		say(o.Out, "It has no pods now; the lines come when one starts.")
		return nil
	case inject.Sidecar(pod) == nil:
		return fmt.Errorf("pod %s started without the sidecar; kubectl log-bridge check --cluster -n %s says why", pod.Name, pod.Namespace)
	}
	say(o.Out, "The first lines of pod %s (kubectl logs -n %s %s -c %s):", pod.Name, pod.Namespace, pod.Name, contract.Container)
	most, bytesMost := int64(10), int64(64<<10)
	for end := time.Now().Add(firstLinesWait); ; {
		stream, err := api.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{Container: contract.Container, TailLines: &most, LimitBytes: &bytesMost}).Stream(ctx)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(stream)
		stream.Close()
		if err != nil {
			return err
		}
		if len(bytes.TrimSpace(text)) > 0 {
			for line := range strings.Lines(string(text)) {
				say(o.Out, "  %s", strings.TrimSuffix(line, "\n"))
			}
			return nil
		}
		if time.Now().After(end) {
			say(o.Out, "  none came in %v: the application has written none since it started. See what it writes: kubectl log-bridge discover %s -n %s", firstLinesWait, pod.Name, pod.Namespace)
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}
