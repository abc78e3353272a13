package charts

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"

	"sigs.k8s.io/yaml"
)

func withValues(t *testing.T, values string) (string, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, []byte(values), 0o666); err != nil {
		t.Fatal(err)
	}
	return helm(t, "template", "log-bridge", "log-bridge", "--namespace", "logging", "--kube-version", "1.36.0", "--values", file)
}

// Each rule is an entry before that for annotated pods, which differs in its selectors and
// path alone; the webhook gets the rules in their order.
func TestRules(t *testing.T) {
	rendered, err := withValues(t, `rules:
- name: tomcat
  namespaceSelector: {matchLabels: {team: legacy}, matchExpressions: [{key: tier, operator: Exists}]}
  podSelector: {matchLabels: {app: tomcat}}
  annotations: {files: /logs/*.log, run-as-user: 1000000, seed: false}
- name: defaults
  namespaceSelector: {matchLabels: {team: shop}}
  annotations: {format: json}
`)
	if err != nil {
		t.Fatal(err)
	}
	all := objects(t, rendered)
	hooks := get[admissionv1.MutatingWebhookConfiguration](t, all, "MutatingWebhookConfiguration/log-bridge").Webhooks
	var names []string
	for _, h := range hooks {
		names = append(names, h.Name)
	}
	if !slices.Equal(names, []string{"tomcat.rules.log-bridge.dev", "defaults.rules.log-bridge.dev", "inject.log-bridge.dev"}) {
		t.Fatalf("webhooks %v", names)
	}
	tomcat, defaults, ours := hooks[0], hooks[1], hooks[2]
	if *tomcat.ClientConfig.Service.Path != "/rules/tomcat" || tomcat.ObjectSelector.MatchLabels["app"] != "tomcat" || len(tomcat.MatchConditions) != 1 {
		t.Errorf("tomcat: %+v", tomcat)
	}
	if defaults.ObjectSelector != nil || len(defaults.MatchConditions) != 2 {
		t.Errorf("defaults: %+v", defaults)
	}
	for i, h := range []admissionv1.MutatingWebhook{tomcat, defaults} {
		n := len(ours.NamespaceSelector.MatchExpressions)
		if h.NamespaceSelector.MatchLabels["team"] != []string{"legacy", "shop"}[i] || len(h.NamespaceSelector.MatchExpressions) != n+1-i {
			t.Errorf("%s: namespaceSelector %v", h.Name, h.NamespaceSelector)
		}
		h.NamespaceSelector.MatchLabels, h.NamespaceSelector.MatchExpressions = nil, h.NamespaceSelector.MatchExpressions[:n]
		h.Name, h.ClientConfig.Service.Path, h.ObjectSelector, h.MatchConditions = ours.Name, ours.ClientConfig.Service.Path, nil, ours.MatchConditions
		a, _ := yaml.Marshal(h)
		b, _ := yaml.Marshal(ours)
		if string(a) != string(b) {
			t.Errorf("a rule's entry differs from that for annotated pods:\n%s\n%s", a, b)
		}
	}
	text := get[corev1.ConfigMap](t, all, "ConfigMap/log-bridge-rules").Data["rules.yaml"]
	for _, want := range []string{`run-as-user: "1000000"`, `seed: "false"`, "name: defaults"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

// What helm refuses of rules, and the part of its sentence that names the problem.
func TestRulesRefused(t *testing.T) {
	for rules, want := range map[string]string{
		"{podSelector: {matchLabels: {a: b}}, annotations: {files: /x.log}}":                                                                               "name",
		"{name: A_b, podSelector: {matchLabels: {a: b}}, annotations: {files: /x.log}}":                                                                    "name",
		"{name: a, annotations: {files: /x.log}}":                                                                                                          "has no selector",
		"{name: a, podSelector: {matchLabels: {a: b}}, annotations: {files: x.log}}":                                                                       "files",
		"{name: a, podSelector: {matchLabels: {a: b}}, annotations: {fils: /x.log}}":                                                                       "fils",
		"{name: a, podSelector: {matchLabels: {a: b}}, annotations: {format: xml}}":                                                                        "format",
		"{name: a, podSelector: {labels: {a: b}}, annotations: {files: /x.log}}":                                                                           "labels",
		"{name: a, podSelector: {matchLabels: {a: b}}, annotations: {files: /x}}, {name: a, podSelector: {matchLabels: {a: c}}, annotations: {files: /x}}": "two rules have the name a",
	} {
		if _, err := withValues(t, "rules: ["+rules+"]"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", rules, err, want)
		}
	}
}
