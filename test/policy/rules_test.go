package policy

import (
	"context"
	"fmt"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"sigs.k8s.io/yaml"
)

// The policy reports a pod of a rule if the API server would ask the rule's webhook about it, the pod
// has no files of its own, and it has no sidecar. The pods are all combinations of what matters for
// that.
func TestPolicyOfRules(t *testing.T) {
	const values = "rules: [{name: tomcat, podSelector: {matchLabels: {app: tomcat}}, annotations: {files: /logs/*.log}}]"
	policy := compile(t, policies(t, values)["log-bridge-rules"])
	var configuration admissionv1.MutatingWebhookConfiguration
	if err := yaml.UnmarshalStrict([]byte(rendered(t, "mutatingwebhookconfiguration.yaml", values)), &configuration); err != nil {
		t.Fatal(err)
	}
	webhook := conditions(cel.NewConditionCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion())), configuration.Webhooks[0].MatchConditions)

	kind, resource := schema.GroupVersionKind{Version: "v1", Kind: "Pod"}, schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	reported, asked := 0, 0
	for _, annotations := range []map[string]any{
		nil,
		{"other/files": "/x"},
		{"log-bridge.dev/format": "json"},
		{"log-bridge.dev/inject": "false"},
		{"log-bridge.dev/inject": " false\n"},
		{"log-bridge.dev/inject": "true"},
		{"log-bridge.dev/files": "/x"},
		{"log-bridge.dev/stderr-files": "/x"},
		{"log-bridge.dev/files": "/x", "log-bridge.dev/inject": "false"},
		{"kubernetes.io/config.mirror": "x"},
	} {
		for _, init := range []any{nil, []any{}, []any{map[string]any{"name": "other", "restartPolicy": "Always"}}, []any{map[string]any{"name": "log-bridge", "restartPolicy": "Always"}}, []any{map[string]any{"name": "log-bridge"}}} {
			for _, os := range []map[string]any{{}, {"os": map[string]any{"name": "linux"}}, {"os": map[string]any{"name": "windows"}}, {"nodeSelector": map[string]any{"kubernetes.io/os": "windows"}}, {"nodeSelector": map[string]any{"a": "b"}}} {
				spec := map[string]any{"containers": []any{map[string]any{"name": "app", "image": "i"}}}
				for k, v := range os {
					spec[k] = v
				}
				if init != nil {
					spec["initContainers"] = init
				}
				metadata := map[string]any{"name": "p"}
				if annotations != nil {
					metadata["annotations"] = annotations
				}
				pod := map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
				match := webhook.Match(context.Background(), attributes(pod, kind, resource), nil, nil)
				if match.Error != nil {
					t.Fatal(match.Error)
				}
				want := match.Matches && annotations["log-bridge.dev/files"] == nil && annotations["log-bridge.dev/stderr-files"] == nil &&
					!strings.Contains(fmt.Sprint(init), "log-bridge") && !strings.Contains(fmt.Sprint(os), "windows")
				if match.Matches {
					asked++
				}
				sentences := says(t, policy, pod)
				if (len(sentences) > 0) != want {
					t.Errorf("%v: the policy says %q, want a sentence: %v", pod, sentences, want)
				}
				for _, s := range sentences {
					reported++
					if !strings.Contains(s, "without the sidecar") || len(s) > 512 {
						t.Errorf("it says %q", s)
					}
				}
			}
		}
	}
	if reported == 0 || asked == 10*5*5 {
		t.Errorf("%d pods are reported, about %d of %d the webhook is asked: too few to compare", reported, asked, 10*5*5)
	}
}
