// Package survey checks a cluster with the permissions of the person who asks:
// annotated pods and workloads, the webhook, its certificates, and whether it injects
// a pod.
//
// In: the way to a cluster and a namespace, or all of them. Out: a Report of findings,
// each with its number. Nothing in the cluster is changed: the one object that is
// sent, the probe, is a dry run. A missing permission is a finding too; what
// cannot be checked for another reason is an error in the Report.
package survey

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/finding"
	"github.com/log-bridge/log-bridge/webhook/internal/inject"
	"github.com/log-bridge/log-bridge/webhook/internal/manifest"
	"github.com/log-bridge/log-bridge/webhook/internal/rules"
)

// Options say what to check.
type Options struct {
	// Rest is the way to the cluster.
	Rest *rest.Config
	// Namespace to check; empty is all.
	Namespace string
	// Inject is how the webhook would decide.
	Inject inject.Config
	// Patience is how long the probe is tried again.
	Patience time.Duration
	// Plan are rules that may replace those of the cluster; nil is none. Then the survey checks only what
	// these rules would make of pods.
	Plan *rules.Set
}

// Report is what was found.
type Report struct {
	// Objects are those with findings, in the order seen.
	Objects []Object
	// Injected and Bare count annotated pods with and without the sidecar.
	Injected, Bare int
	// Rules are those of the cluster or of the plan, in their order; then those that are gone.
	Rules []Rule
	// Outcome is that of the probe.
	Outcome Outcome
	// Errors are the parts that could not be checked. Without them, the report is
	// whole, but for what the person may not see (LB0809).
	Errors []error
}

// Object is one object with its findings.
type Object struct {
	// Namespace is empty for an object of the cluster.
	Namespace string
	// Name is the kind and the name, such as Deployment/web.
	Name string
	// More is how many other objects of the same owner have the same findings.
	More     int
	Findings []finding.Finding
}

// Mistaken says whether something does not work.
func (o Object) Mistaken() bool {
	return len(finding.Mistakes(o.Findings)) > 0
}

// survey is one run. Its methods run one after the other.
type survey struct {
	Options
	Report
	api dynamic.Interface
	// selectors are the namespaceSelectors of the webhooks that are registered.
	selectors []labels.Selector
	// spaces are the labels of the namespaces that were read; nil if one cannot be read.
	spaces map[string]labels.Set
	// rules are those of the cluster or of the plan; nil if they are not known.
	rules *rules.Set
	// groups finds the Object that represents others of its owner.
	groups map[string]int
}

// Look makes the survey. The error is for a cluster that cannot be asked at all.
func Look(ctx context.Context, o Options) (Report, error) {
	config := Quiet(o.Rest)
	api, err := dynamic.NewForConfig(config)
	if err != nil {
		return Report{}, fmt.Errorf("client for the cluster: %w", err)
	}
	s := &survey{Options: o, api: api, spaces: map[string]labels.Set{}, rules: o.Plan, groups: map[string]int{}}
	s.Rest = config
	if s.rules == nil {
		s.rules = &rules.Set{}
	}
	at := s.webhooks(ctx)
	if s.rules != nil {
		for _, r := range s.rules.Rules {
			s.rule(r.Name)
		}
	}
	if s.Plan != nil {
		s.pods(ctx)
		return s.Report, nil
	}
	for _, kind := range workloads {
		s.workloads(ctx, kind)
	}
	s.pods(ctx)
	s.tryWebhook(ctx, at)
	return s.Report, nil
}

// Quiet is a copy of a configuration that prints no warnings of the API server, which
// would be about our probe, and that may ask faster than a controller should.
func Quiet(config *rest.Config) *rest.Config {
	config = rest.CopyConfig(config)
	config.WarningHandler = rest.NoWarnings{}
	config.QPS, config.Burst = 50, 100
	return config
}

// workloads are the kinds that make pods.
var workloads = []schema.GroupVersionResource{
	{Group: "apps", Version: "v1", Resource: "deployments"},
	{Group: "apps", Version: "v1", Resource: "statefulsets"},
	{Group: "apps", Version: "v1", Resource: "daemonsets"},
	{Group: "apps", Version: "v1", Resource: "replicasets"},
	{Group: "batch", Version: "v1", Resource: "jobs"},
	{Group: "batch", Version: "v1", Resource: "cronjobs"},
	{Version: "v1", Resource: "replicationcontrollers"},
}

var (
	pods       = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	services   = schema.GroupVersionResource{Version: "v1", Resource: "services"}
	namespaces = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	hooks      = schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingwebhookconfigurations"}
)

// page is how many objects are asked for at a time.
const page = 500

// each calls see with each object of a kind. A list that expires between two pages is
// gone on with where the API server says.
func (s *survey) each(ctx context.Context, kind schema.GroupVersionResource, namespace string, options metav1.ListOptions, see func(*unstructured.Unstructured) error) error {
	options.Limit = page
	for {
		list, err := s.api.Resource(kind).Namespace(namespace).List(ctx, options)
		if goOn := continueOf(err); options.Continue != "" && goOn != "" {
			options.Continue = goOn
			continue
		}
		if err != nil {
			return fmt.Errorf("list %s: %w", kind.Resource, err)
		}
		for i := range list.Items {
			if err := see(&list.Items[i]); err != nil {
				return err
			}
		}
		if options.Continue = list.GetContinue(); options.Continue == "" {
			return nil
		}
	}
}

// continueOf is the token with which an expired list can be gone on with.
func continueOf(err error) string {
	var status apierrors.APIStatus
	if apierrors.IsResourceExpired(err) && errors.As(err, &status) {
		return status.Status().Continue
	}
	return ""
}

// find adds findings of an object.
func (s *survey) find(namespace, name string, findings ...finding.Finding) {
	if len(findings) > 0 {
		s.Objects = append(s.Objects, Object{Namespace: namespace, Name: name, Findings: findings})
	}
}

// forbidden takes an error that is about the person's rights for a finding about an
// object; every other one goes into the report's errors.
func (s *survey) forbidden(err error, namespace, name, lost string) {
	switch {
	case err == nil:
	case apierrors.IsForbidden(err):
		s.find(namespace, name, finding.New(finding.NotPermitted, "%s: %v", lost, err))
	default:
		s.Errors = append(s.Errors, err)
	}
}

// workloads looks at the workloads of a kind that no other object controls.
func (s *survey) workloads(ctx context.Context, kind schema.GroupVersionResource) {
	err := s.each(ctx, kind, s.Namespace, metav1.ListOptions{}, func(object *unstructured.Unstructured) error {
		if metav1.GetControllerOf(object) != nil || !mentions(object) {
			return nil
		}
		text, err := object.MarshalJSON()
		if err != nil {
			return fmt.Errorf("read %s: %w", kind.Resource, err)
		}
		found, err := manifest.Read(text).Pods()
		if err != nil {
			return fmt.Errorf("read %s of namespace %s: %w", kind.Resource, object.GetNamespace(), err)
		}
		for _, p := range found {
			result := p.Decide(ctx, s.Inject)
			if result.Err != nil {
				return result.Err
			}
			found := inject.Misplaced(p.Outer, p.Pod.Annotations)
			found.Merge(result.List)
			s.find(object.GetNamespace(), p.Object, loud(found.Findings)...)
		}
		return nil
	})
	if err != nil {
		s.Errors = append(s.Errors, err)
	}
}

// mentions says whether an annotation of ours is on a workload or its pod template. Most
// have none, and need not be taken apart.
func mentions(object *unstructured.Unstructured) bool {
	has := func(path ...string) bool {
		annotations, _, _ := unstructured.NestedMap(object.Object, path...)
		for key := range annotations {
			if strings.HasPrefix(key, contract.Prefix) {
				return true
			}
		}
		return false
	}
	return has("metadata", "annotations") || has("spec", "template", "metadata", "annotations") ||
		has("spec", "jobTemplate", "spec", "template", "metadata", "annotations")
}

// hasVolume says whether a pod has a volume with the name of ours.
func hasVolume(object *unstructured.Unstructured) bool {
	volumes, _, _ := unstructured.NestedFieldNoCopy(object.Object, "spec", "volumes")
	list, _ := volumes.([]any)
	return slices.ContainsFunc(list, func(v any) bool {
		fields, _ := v.(map[string]any)
		return fields["name"] == contract.Volume
	})
}

// loud leaves out notes: in a whole cluster nobody asked for explanations.
func loud(findings []finding.Finding) []finding.Finding {
	return slices.DeleteFunc(findings, func(f finding.Finding) bool { return f.Severity() == finding.Note })
}

// pods looks at the pods that run or will run; what has ended can no longer be helped.
func (s *survey) pods(ctx context.Context) {
	err := s.each(ctx, pods, s.Namespace, metav1.ListOptions{FieldSelector: "status.phase!=Succeeded,status.phase!=Failed"}, func(object *unstructured.Unstructured) error {
		ours := mentions(object) || hasVolume(object)
		if !ours && (s.rules == nil || len(s.rules.Rules) == 0) {
			return nil
		}
		var pod corev1.Pod
		if err := decode(object, &pod); err != nil {
			return err
		}
		leftOut := s.leftOut(ctx, pod.Namespace)
		findings := s.rulesOf(ctx, &pod, leftOut)
		if s.Plan == nil && ours {
			findings = append(s.pod(ctx, &pod, leftOut), findings...)
		}
		s.group(&pod, findings)
		return nil
	})
	if err != nil {
		s.Errors = append(s.Errors, err)
	}
}

// pod looks at one pod as the webhook would, were it made now.
func (s *survey) pod(ctx context.Context, pod *corev1.Pod, leftOut bool) []finding.Finding {
	result := inject.Pod(ctx, pod, s.Inject)
	findings := loud(result.Findings)
	switch {
	case result.LeftAlone == inject.Already, result.Mended:
		s.Injected++
		// log-bridge restores fields only at creation, so a running pod does not benefit.
		findings = slices.DeleteFunc(findings, func(f finding.Finding) bool { return f.Code == finding.FieldsDropped })
		findings = append(findings, ordinary(pod)...)
		findings = append(findings, containers(pod)...)
	case inject.SidecarGone(pod):
		if result.LeftAlone != inject.NotAsked {
			s.Bare++
		}
		findings = append(findings, finding.New(finding.SidecarRemoved, "the sidecar of the pod was removed, so kubectl logs does not show its files, and the application finds empty directories where they are mounted; keep the init container %s, which another webhook removed, or which was lost when the pod was copied", contract.Container))
	case result.LeftAlone != "":
	case len(result.Mistakes()) > 0:
		// Creating it again would not help: it would be refused.
		s.Bare++
	case leftOut:
		s.Bare++
		findings = append(findings, finding.New(finding.NamespaceExcluded, "the pod has %s, but log-bridge excludes namespace %s; include the namespace, or remove the annotation", contract.Prefix+contract.KeyFiles, pod.Namespace))
	default:
		s.Bare++
		findings = append(findings, finding.New(finding.PodWithoutSidecar, "the pod was created at %s without the sidecar, so kubectl logs does not show its files; delete it, so that its controller creates it again", pod.CreationTimestamp.UTC().Format(time.RFC3339)))
	}
	return findings
}

// group adds findings of a pod, together with those of the other pods of its owner.
func (s *survey) group(pod *corev1.Pod, findings []finding.Finding) {
	if len(findings) == 0 {
		return
	}
	// Of a hundred replicas one is enough to read.
	group := pod.Namespace + "/" + pod.Name
	if owner := metav1.GetControllerOf(pod); owner != nil {
		group = string(owner.UID)
	}
	for _, f := range findings {
		group += " " + string(f.Code)
	}
	if i, ok := s.groups[group]; ok {
		s.Objects[i].More++
		return
	}
	s.groups[group] = len(s.Objects)
	s.find(pod.Namespace, "Pod/"+pod.Name, findings...)
}

// ordinary finds a sidecar that is an ordinary init container.
func ordinary(pod *corev1.Pod) []finding.Finding {
	if c := inject.Sidecar(pod); c != nil && !inject.StaysUp(c) {
		return []finding.Finding{finding.New(finding.SidecarIsOrdinary, "container %s is an ordinary init container, so the application waits for it forever, because another admission webhook dropped its restartPolicy; update that webhook, then delete the pod", c.Name)}
	}
	return nil
}

// containers finds what keeps our containers from running.
func containers(pod *corev1.Pod) []finding.Finding {
	var all []finding.Finding
	for _, c := range pod.Status.InitContainerStatuses {
		if c.Name != contract.Container && !inject.IsSeederName(c.Name) || c.State.Waiting == nil {
			continue
		}
		reason, words := finding.Words(c.State.Waiting.Reason), finding.Words(c.State.Waiting.Message)
		switch reason {
		case "", "ContainerCreating", "PodInitializing":
			continue
		case "ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError", "RegistryUnavailable", "SignatureValidationFailed":
			// A seeding container runs the application's image, which is not ours to keep.
			if c.Name == contract.Container {
				all = append(all, finding.New(finding.ImageNotPulled, "node %s cannot pull %s, so the application does not start: %s: %s", finding.Words(pod.Spec.NodeName), finding.Words(c.Image), reason, words))
			}
		default:
			all = append(all, finding.New(finding.ContainerNotRunning, "container %s does not run: %s: %s; see kubectl logs -n %s %s -c %s --previous", c.Name, reason, words, pod.Namespace, finding.Words(pod.Name), c.Name))
		}
	}
	return all
}

// leftOut says whether every webhook leaves a namespace alone. Someone who may not read
// namespaces gets the findings of the pod as if it were not excluded.
func (s *survey) leftOut(ctx context.Context, name string) bool {
	if len(s.selectors) == 0 {
		return false
	}
	set, known := s.labels(ctx, name)
	return known && !slices.ContainsFunc(s.selectors, func(selector labels.Selector) bool { return selector.Matches(set) })
}

func decode(object *unstructured.Unstructured, into any) error {
	text, err := object.MarshalJSON()
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		return fmt.Errorf("read %s %s: %w", object.GetKind(), object.GetName(), err)
	}
	return nil
}

// ours is the webhook's name in the chart's MutatingWebhookConfiguration.
const ours = "inject.log-bridge.dev"

// hook is our webhook in a configuration; false if it is not one of ours.
func hook(conf *admissionv1.MutatingWebhookConfiguration) (admissionv1.MutatingWebhook, bool) {
	i := slices.IndexFunc(conf.Webhooks, func(w admissionv1.MutatingWebhook) bool { return w.Name == ours })
	if i < 0 {
		return admissionv1.MutatingWebhook{}, false
	}
	return conf.Webhooks[i], true
}
