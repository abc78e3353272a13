package charts

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
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

// A rule with files has a binding of the policy that reports its pods, with the selectors of its
// webhook; it never denies. One without files needs none, and without rules there is no such policy.
func TestRulesPolicy(t *testing.T) {
	const rules = `rules:
- name: tomcat
  namespaceSelector: {matchLabels: {team: legacy}, matchExpressions: [{key: tier, operator: Exists}]}
  podSelector: {matchLabels: {app: tomcat}}
  annotations: {files: /logs/*.log}
- name: errors
  podSelector: {matchExpressions: [{key: app, operator: In, values: [a, b]}]}
  annotations: {stderr-files: /logs/*.log}
- name: defaults
  namespaceSelector: {matchLabels: {team: shop}}
  annotations: {format: json}
`
	for values, want := range map[string][]string{
		rules: {"errors", "tomcat"},
		rules + "admissionPolicies: {missingSidecar: Deny}":     {"errors", "tomcat"},
		rules + `admissionPolicies: {missingSidecar: ""}`:       nil,
		"rules:" + rules[strings.LastIndex(rules, "\n- name"):]: nil,
	} {
		rendered, err := withValues(t, values)
		if err != nil {
			t.Fatal(err)
		}
		all := objects(t, rendered)
		if _, ok := all["ValidatingAdmissionPolicy/log-bridge-rules"]; ok != (want != nil) {
			t.Errorf("there is a policy: %v, want %v\n%s", ok, want != nil, values)
		}
		var have []string
		for key := range all {
			if name, ok := strings.CutPrefix(key, "ValidatingAdmissionPolicyBinding/log-bridge-rule-"); ok {
				have = append(have, name)
			}
		}
		slices.Sort(have)
		if !slices.Equal(have, want) {
			t.Errorf("bindings %v, want %v\n%s", have, want, values)
		}
		hooks := get[admissionv1.MutatingWebhookConfiguration](t, all, "MutatingWebhookConfiguration/log-bridge").Webhooks
		for _, name := range have {
			spec := get[admissionv1.ValidatingAdmissionPolicyBinding](t, all, "ValidatingAdmissionPolicyBinding/log-bridge-rule-"+name).Spec
			hook := hooks[slices.IndexFunc(hooks, func(h admissionv1.MutatingWebhook) bool { return h.Name == name+".rules.log-bridge.dev" })]
			if !reflect.DeepEqual(spec.MatchResources, &admissionv1.MatchResources{NamespaceSelector: hook.NamespaceSelector, ObjectSelector: hook.ObjectSelector}) {
				t.Errorf("the binding of %s selects %+v, its webhook %+v, %+v", name, spec.MatchResources, hook.NamespaceSelector, hook.ObjectSelector)
			}
			if spec.PolicyName != "log-bridge-rules" || !slices.Equal(spec.ValidationActions, []admissionv1.ValidationAction{admissionv1.Warn, admissionv1.Audit}) {
				t.Errorf("%s: %+v", name, spec)
			}
		}
	}
}

// Rules under GitOps: two renders are equal, so that nothing changes without a change of the values.
func TestRulesRenderAlike(t *testing.T) {
	var values strings.Builder
	values.WriteString("rules:\n")
	for i := range 50 {
		fmt.Fprintf(&values, "- {name: r%d, namespaceSelector: {matchLabels: {a: one, b: two, c: three}}, podSelector: {matchLabels: {app: a%d}}, annotations: {files: /a/x.log, format: json, seed: false, size-limit: 1Gi}}\n", i, i)
	}
	first, err := withValues(t, values.String())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		again, err := withValues(t, values.String())
		if err != nil {
			t.Fatal(err)
		}
		if again != first {
			t.Fatal("two renders of the same values differ")
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

var update = flag.Bool("update", false, "write the objects of docs/rules.md as the chart renders them")

// docs/rules.md shows the objects of a rule for those who write them by hand: they are what the chart
// renders for the first example of the page, without labels and with the namespace of the page.
func TestRulesByHand(t *testing.T) {
	const page = "../docs/rules.md"
	bytes, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	text := string(bytes)
	_, values, _ := strings.Cut(text, "```yaml\n# values.yaml\n")
	values, _, ok := strings.Cut(values, "```\n")
	if !ok {
		t.Fatal("the page has no values.yaml")
	}
	show := func(values string, templates ...string) string {
		t.Helper()
		file := filepath.Join(t.TempDir(), "values.yaml")
		if err := os.WriteFile(file, []byte(values), 0o666); err != nil {
			t.Fatal(err)
		}
		args := []string{"template", "log-bridge", "log-bridge", "--namespace", "log-bridge", "--kube-version", "1.36.0", "--values", file}
		for _, name := range templates {
			args = append(args, "--show-only", "templates/"+name+".yaml")
		}
		rendered, err := helm(t, args...)
		if err != nil {
			t.Fatal(err)
		}
		return regexp.MustCompile(`(?m)^  labels:\n(    .*\n)+`).ReplaceAllString(rendered, "")
	}
	documents := strings.Split(show(values, "mutatingwebhookconfiguration", "rules", "validatingadmissionpolicy", "validatingadmissionpolicybinding"), "---\n")
	var parts []string
	for _, want := range []string{"MutatingWebhookConfiguration\nmetadata:\n  name: log-bridge\n", "ConfigMap\nmetadata:\n  name: log-bridge-rules\n", "ValidatingAdmissionPolicy\nmetadata:\n  name: log-bridge-rules\n", "ValidatingAdmissionPolicyBinding\nmetadata:\n  name: log-bridge-rule-tomcat\n"} {
		i := slices.IndexFunc(documents, func(d string) bool { return strings.Contains(d, "kind: "+want) })
		if i < 0 {
			t.Fatalf("no %s", want)
		}
		d := regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(documents[i], "")
		if before, _, ok := strings.Cut(d, "  - name: inject.log-bridge.dev\n"); ok {
			d = before + "  - name: inject.log-bridge.dev\n    # and so on, as it is\n"
		}
		parts = append(parts, strings.TrimSpace(d)+"\n")
	}
	defaults := show("rules: [{name: a, podSelector: {matchLabels: {a: b}}, annotations: {format: json}}]", "mutatingwebhookconfiguration")
	_, defaults, _ = strings.Cut(defaults, "      - name: asks\n")
	defaults, _, ok = strings.Cut(defaults, "  - name: inject.log-bridge.dev\n")
	if !ok {
		t.Fatal("a rule without files has no further matchCondition")
	}
	want := text
	for marker, block := range map[string]string{"rendered": strings.Join(parts, "---\n"), "rendered defaults": "- name: asks\n" + strings.ReplaceAll("\n"+defaults, "\n      ", "\n")[1:]} {
		before, rest, ok := strings.Cut(want, "<!-- begin: "+marker+" -->\n")
		_, after, ok2 := strings.Cut(rest, "<!-- end: "+marker+" -->\n")
		if !ok || !ok2 {
			t.Fatalf("the page has no markers %q", marker)
		}
		want = before + "<!-- begin: " + marker + " -->\n```yaml\n" + block + "```\n<!-- end: " + marker + " -->\n" + after
	}
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	if text != want {
		t.Error("docs/rules.md does not show what the chart renders: go test ./charts -run TestRulesByHand -update")
	}
}
