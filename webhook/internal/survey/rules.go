package survey

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/log-bridge/log-bridge/webhook/internal/finding"
	"github.com/log-bridge/log-bridge/webhook/internal/inject"
	"github.com/log-bridge/log-bridge/webhook/internal/rules"
)

// Rule is what a rule selects, and what its pods run with. Pods that have ended do not count.
type Rule struct {
	Name string
	// Gone: there is no such rule, or not in the plan; pods still run with it.
	Gone bool
	// Namespaces are those of the pods that it selects, sorted.
	Namespaces []string
	// Selected are the pods that it selects. With, Restart and Misfit are parts of them.
	Selected int
	// With are those that run as the rule says now. Of one that is gone, all that run with it.
	With int
	// Restart are those that would run differently if they were created again.
	Restart int
	// Misfit are those that the rule does not fit.
	Misfit int
	// Earlier are those about which an earlier rule decides.
	Earlier int
}

// ofRule is the end of the name of a rule's webhook in the chart's MutatingWebhookConfiguration.
const ofRule = ".rules.log-bridge.dev"

var configMaps = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}

// registered reads the rules of a release, unless the survey has a plan, and compares them with the
// webhooks that the API server calls.
func (s *survey) registered(ctx context.Context, conf *admissionv1.MutatingWebhookConfiguration, namespace string) {
	called := map[string]bool{}
	for _, w := range conf.Webhooks {
		if name, ok := strings.CutSuffix(w.Name, ofRule); ok {
			called[name] = true
		}
	}
	if s.Plan != nil || len(called) == 0 {
		return
	}
	s.rules = nil
	name := conf.Name + "-rules"
	object, err := s.api.Resource(configMaps).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		s.forbidden(fmt.Errorf("read ConfigMap %s: %w", name, err), namespace, "ConfigMap/"+name, "cannot check which pods the rules select")
		return
	}
	text := ""
	if err == nil {
		text, _, _ = unstructured.NestedString(object.Object, "data", "rules.yaml")
	}
	set, findings := rules.Parse(ctx, []byte(text), s.Inject)
	if len(finding.Mistakes(findings)) == 0 {
		s.rules = set
		known := map[string]bool{}
		for _, r := range set.Rules {
			known[r.Name] = true
			if !called[r.Name] {
				findings = append(findings, finding.New(finding.RuleNotRegistered, "rule %s: MutatingWebhookConfiguration %s has no webhook %s for it, so the API server never asks; run helm upgrade, or add the webhook", r.Name, conf.Name, r.Name+ofRule))
			}
		}
		for _, name := range slices.Sorted(maps.Keys(called)) {
			if !known[name] {
				findings = append(findings, finding.New(finding.RuleNotRegistered, "rule %s: MutatingWebhookConfiguration %s has a webhook for it, but the ConfigMap has no such rule, so its pods are left alone; run helm upgrade, or add the rule", name, conf.Name))
			}
		}
	}
	s.find(namespace, "ConfigMap/"+name, loud(findings)...)
}

// rulesOf looks at what the rules make of a pod, and finds what is different about it now.
func (s *survey) rulesOf(ctx context.Context, pod *corev1.Pod, leftOut bool) []finding.Finding {
	if s.rules == nil {
		return nil
	}
	original, ran := inject.Original(pod)
	var d rules.Decision
	if leftOut || len(s.rules.Rules) == 0 {
		d.Annotations = rules.Own(original.Annotations)
	} else {
		namespace, known := s.labels(ctx, pod.Namespace)
		if !known {
			return nil
		}
		if d = s.rules.Decide(ctx, namespace, original, s.Inject); d.Err != nil {
			s.Errors = append(s.Errors, d.Err)
			return nil
		}
	}
	var findings []finding.Finding
	by, with := "", ""
	if d.By != nil {
		by = d.By.Name
	}
	if ran != nil {
		with = ran.Name
	}
	same := by == with && (by == "" || maps.Equal(d.Annotations, rules.Own(pod.Annotations)))
	for _, selecting := range d.Selecting {
		r := s.rule(selecting.Name)
		r.Selected++
		if i, ok := slices.BinarySearch(r.Namespaces, pod.Namespace); !ok {
			r.Namespaces = slices.Insert(r.Namespaces, i, pod.Namespace)
		}
		misfit, does := d.Misfits[selecting.Name]
		switch {
		case does:
			r.Misfit++
			findings = append(findings, misfit)
		case selecting != d.By:
			r.Earlier++
		case same:
			r.With++
		default:
			r.Restart++
		}
	}
	if with != "" && s.rules.Get(with) == nil {
		r := s.rule(with)
		r.Gone = true
		r.With++
	}
	switch {
	case same:
	case by == "":
		findings = append(findings, finding.New(finding.RestartForRule, "the pod runs with rule %s, which does not decide about it any more; restart its workload to undo the rule", with))
	case with == "":
		findings = append(findings, finding.New(finding.RestartForRule, "rule %s selects the pod, which was created without it; restart its workload", by))
	case by != with:
		findings = append(findings, finding.New(finding.RestartForRule, "the pod runs with rule %s, and rule %s decides about it now; restart its workload", with, by))
	default:
		findings = append(findings, finding.New(finding.RestartForRule, "the pod runs with rule %s as it was before a change; restart its workload", by))
	}
	return findings
}

// rule is the row of the report about a rule.
func (s *survey) rule(name string) *Rule {
	i := slices.IndexFunc(s.Rules, func(r Rule) bool { return r.Name == name })
	if i < 0 {
		i = len(s.Rules)
		s.Rules = append(s.Rules, Rule{Name: name})
	}
	return &s.Rules[i]
}

// labels are those of a namespace; false if they cannot be read, which is reported once.
func (s *survey) labels(ctx context.Context, name string) (labels.Set, bool) {
	if set, asked := s.spaces[name]; asked {
		return set, set != nil
	}
	s.spaces[name] = nil
	object, err := s.api.Resource(namespaces).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		s.forbidden(fmt.Errorf("read namespace %s: %w", name, err), "", "Namespace/"+name, "cannot check whether log-bridge excludes the namespace, and which rules select its pods")
		return nil, false
	}
	set := labels.Set{}
	maps.Copy(set, object.GetLabels())
	s.spaces[name] = set
	return set, true
}
