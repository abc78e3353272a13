package rules

import (
	"context"
	"maps"
	"slices"
	"strings"

	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/finding"
	"github.com/log-bridge/log-bridge/webhook/internal/inject"
)

// Reasons to leave a pod alone that only rules have, beside those of package inject.
const (
	Misfit   inject.Reason = "rule-does-not-fit"    // the rule asks for what this pod cannot have
	Unknown  inject.Reason = "rule-unknown"         // the file has no such rule, or not yet
	Unmeant  inject.Reason = "rule-does-not-select" // the rule has other labels now
	Overlaps inject.Reason = "other-rule"           // an earlier rule has decided
)

// maxTries is how many containers are tried one by one for an entry of any container.
const maxTries = 16

// Pod decides about a pod for which the API server has called on account of a rule. Nothing in
// the Result refuses the pod: the person who creates it knows nothing of the rule.
func (s *Set) Pod(ctx context.Context, name string, pod *corev1.Pod, c inject.Config) inject.Result {
	r := s.Get(name)
	if r == nil {
		return alone(Unknown, finding.RuleUnknown, "the webhook has no rule %s, or does not know it yet, so this pod is left unchanged; create the pod again one minute after you create the rule", name)
	}
	if status, ok := inject.Injected(pod); ok {
		if status.Rule != nil && status.Rule.Name != name {
			return alone(Overlaps, finding.RulesOverlap, "rule %s selects this pod too, but the earlier rule %s has injected it", name, status.Rule.Name)
		}
		// The webhook for annotated pods comes last, and restores what others have dropped.
		return inject.Result{LeftAlone: inject.Already}
	}
	if !r.pods.Matches(labels.Set(pod.Labels)) || !r.Files() && !inject.Asks(pod.Annotations) {
		return inject.Result{LeftAlone: Unmeant}
	}
	result := r.apply(ctx, pod, c)
	if result.Err != nil || len(result.Mistakes()) == 0 {
		return result
	}
	return r.misfit(pod, result)
}

// Soften makes of a refusal the admission of a pod as it is.
func Soften(name string, refusal inject.Result) inject.Result {
	if len(refusal.Mistakes()) == 0 {
		return refusal
	}
	return (&Rule{Name: name}).misfit(&corev1.Pod{}, refusal)
}

func (r *Rule) misfit(pod *corev1.Pod, refusal inject.Result) inject.Result {
	outcome := "the pod does not get the sidecar from it"
	if inject.Asks(pod.Annotations) {
		outcome = "only its own annotations count"
	}
	mistakes := refusal.Mistakes()
	more := finding.Words("")
	if n := len(mistakes) + refusal.MoreMistakes - 1; n > 0 {
		more = finding.Say(" (and %d more)", n)
	}
	return alone(Misfit, finding.RuleDoesNotFit, "rule %s does not fit this pod, so %s: %s%s", r.Name, outcome, mistakes[0], more)
}

func alone(reason inject.Reason, code finding.Code, format string, args ...any) inject.Result {
	return inject.Result{LeftAlone: reason, List: finding.Of(finding.New(code, format, args...))}
}

// apply decides about a pod with the annotations of the rule beneath its own.
func (r *Rule) apply(ctx context.Context, pod *corev1.Pod, c inject.Config) inject.Result {
	added, varying := r.missing(pod, nil)
	result := r.with(ctx, pod, added, c)
	if !varying || result.Err != nil || len(result.Mistakes()) == 0 || len(pod.Spec.Containers) > maxTries {
		return result
	}
	// An entry of any container leaves out those that cannot have it, such as one that mounts
	// the path read-only.
	fits := map[string]bool{}
	for _, container := range pod.Spec.Containers {
		only := map[string]bool{container.Name: true}
		added, _ := r.missing(pod, only)
		one := r.with(ctx, pod, added, c)
		if one.Err != nil {
			return one
		}
		fits[container.Name] = len(one.Mistakes()) == 0
	}
	added, _ = r.missing(pod, fits)
	if again := r.with(ctx, pod, added, c); again.Err != nil || len(again.Mistakes()) == 0 {
		return again
	}
	return result
}

// missing are the annotations that the pod gets, by key without the prefix. An entry of any
// container is written out for each container of the pod; varying says that there is one. fits
// are the containers that count, nil is all.
func (r *Rule) missing(pod *corev1.Pod, fits map[string]bool) (added map[string]string, varying bool) {
	added = map[string]string{}
	for key, v := range r.Annotations {
		if _, own := pod.Annotations[contract.Prefix+key]; own {
			continue
		}
		added[key] = string(v)
		if !slices.Contains(entryKeys, key) {
			continue
		}
		list, err := entries(v)
		if err != nil || !slices.ContainsFunc(list, func(e contract.Entry) bool { return e.Container == placeholder }) {
			continue
		}
		varying = true
		var all []string
		for _, e := range list {
			if e.Container != placeholder {
				all = append(all, e.String())
				continue
			}
			for _, container := range pod.Spec.Containers {
				if fits == nil || fits[container.Name] {
					e.Container = container.Name
					all = append(all, e.String())
				}
			}
		}
		added[key] = strings.Join(all, "\n")
	}
	return added, varying
}

// with decides about a pod that has the annotations too.
func (r *Rule) with(ctx context.Context, pod *corev1.Pod, added map[string]string, c inject.Config) inject.Result {
	keys := slices.Sorted(maps.Keys(added))
	annotated := *pod
	annotated.Annotations = maps.Clone(pod.Annotations)
	if annotated.Annotations == nil {
		annotated.Annotations = map[string]string{}
	}
	var ops []jsonpatch.Operation
	for _, key := range keys {
		annotated.Annotations[contract.Prefix+key] = added[key]
		ops = append(ops, jsonpatch.NewOperation("add", inject.Pointer("metadata", "annotations", contract.Prefix+key), added[key]))
	}
	if len(pod.Annotations) == 0 {
		ops = append([]jsonpatch.Operation{jsonpatch.NewOperation("add", "/metadata/annotations", map[string]string{})}, ops...)
	}
	c.Rule = &inject.Rule{Name: r.Name, Annotations: keys}
	result := inject.Pod(ctx, &annotated, c)
	if len(result.Operations) > 0 {
		result.Operations = append(ops, result.Operations...)
	}
	return result
}
