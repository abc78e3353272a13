package rules

import (
	"context"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/finding"
	"github.com/log-bridge/log-bridge/webhook/internal/inject"
)

// Decision is what all rules together make of a pod.
type Decision struct {
	// Selecting are the rules that select the pod, in their order. Of a pod that the webhook leaves
	// alone whatever the rules say, there are none.
	Selecting []*Rule
	// By is the rule that decides; nil if none fits.
	By *Rule
	// Misfits are the findings of the rules before that which do not fit, by name.
	Misfits map[string]finding.Finding
	// Annotations are ours that the pod would have, without the prefix: its own and the rule's.
	Annotations map[string]string
	// Err is why the context ended.
	Err error
}

// Decide does for a pod that nothing was added to what the API server's calls do one after the other.
// namespace are the labels of its namespace, which is not excluded.
func (s *Set) Decide(ctx context.Context, namespace labels.Set, pod *corev1.Pod, c inject.Config) Decision {
	d := Decision{Annotations: Own(pod.Annotations), Misfits: map[string]finding.Finding{}}
	for _, r := range s.Rules {
		if !r.Selects(namespace, pod.Labels, pod.Annotations) {
			continue
		}
		if d.By != nil {
			d.Selecting = append(d.Selecting, r)
			continue
		}
		result := s.Pod(ctx, r.Name, pod, c)
		switch {
		case result.Err != nil:
			d.Err = result.Err
			return d
		case result.LeftAlone == Misfit:
			d.Misfits[r.Name] = result.Findings[0]
		case result.LeftAlone != "":
			return d
		default:
			d.By = r
			for _, op := range result.Operations {
				key, ok := strings.CutPrefix(op.Path, inject.Pointer("metadata", "annotations", contract.Prefix))
				if value, text := op.Value.(string); ok && text && key != contract.KeyStatus {
					d.Annotations[key] = value
				}
			}
		}
		d.Selecting = append(d.Selecting, r)
	}
	return d
}

// Own are the annotations of ours that some annotations have, without the prefix. The status is
// none of them: the webhook writes it.
func Own(of map[string]string) map[string]string {
	own := map[string]string{}
	for name, value := range of {
		if key, ours := strings.CutPrefix(name, contract.Prefix); ours && key != contract.KeyStatus {
			own[key] = value
		}
	}
	return own
}
