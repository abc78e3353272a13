// Package policy compares the chart's policies with the webhook. The one that reports mistakes, by
// generated annotations; the one that reports pods of rules, by generated pods: with the API server's own evaluation of policies, and with the webhook's program.
// It is a Go module of its own, so that the product does not depend on the API server.
//
// HELM names the program, as for the tests of the chart; without one the tests are skipped.
package policy

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	apiservercel "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"sigs.k8s.io/yaml"
)

const top = "../.."

// mistakes is the policy of the chart, compiled as the API server does.
func mistakes(t *testing.T) validating.Validator {
	t.Helper()
	return compile(t, policies(t, "")["log-bridge-mistakes"])
}

// rendered is one template of the chart with some values.
func rendered(t *testing.T, template, values string) string {
	t.Helper()
	helm := os.Getenv("HELM")
	if helm == "" {
		t.Skip("no HELM, which names the program; make test does")
	}
	home := t.TempDir()
	file := filepath.Join(home, "values.yaml")
	if err := os.WriteFile(file, []byte(values), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(helm, "template", "log-bridge", top+"/charts/log-bridge", "--values", file, "--show-only", "templates/"+template)
	cmd.Env = append(os.Environ(), "HELM_CONFIG_HOME="+home, "HELM_CACHE_HOME="+home, "HELM_DATA_HOME="+home, "KUBECONFIG="+filepath.Join(home, "none"))
	text, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// policies are those of the chart, by name.
func policies(t *testing.T, values string) map[string]admissionv1.ValidatingAdmissionPolicySpec {
	t.Helper()
	all := map[string]admissionv1.ValidatingAdmissionPolicySpec{}
	for doc := range strings.SplitSeq(rendered(t, "validatingadmissionpolicy.yaml", values), "\n---\n") {
		var policy admissionv1.ValidatingAdmissionPolicy
		if err := yaml.UnmarshalStrict([]byte(doc), &policy); err != nil {
			t.Fatal(err)
		}
		all[policy.Name] = policy.Spec
	}
	return all
}

func compile(t *testing.T, spec admissionv1.ValidatingAdmissionPolicySpec) validating.Validator {
	t.Helper()
	compiler, err := cel.NewCompositedCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	if err != nil {
		t.Fatal(err)
	}
	with := cel.OptionalVariableDeclarations{HasAuthorizer: true}
	var variables []cel.NamedExpressionAccessor
	for _, v := range spec.Variables {
		variables = append(variables, &validating.Variable{Name: v.Name, Expression: v.Expression})
	}
	compiler.CompileAndStoreVariables(variables, with, environment.StoredExpressions)
	var rules, messages []cel.ExpressionAccessor
	for _, v := range spec.Validations {
		rules = append(rules, &validating.ValidationCondition{Expression: v.Expression, Message: v.Message, Reason: v.Reason})
		messages = append(messages, &validating.MessageExpressionCondition{MessageExpression: v.MessageExpression})
	}
	fail := admissionv1.Fail // an error of the policy is one of the test
	var matcher matchconditions.Matcher
	if len(spec.MatchConditions) > 0 {
		matcher = conditions(compiler, spec.MatchConditions)
	}
	return validating.NewValidator(compiler.CompileCondition(rules, with, environment.StoredExpressions), matcher,
		compiler.CompileCondition(nil, with, environment.StoredExpressions),
		compiler.CompileCondition(messages, cel.OptionalVariableDeclarations{}, environment.StoredExpressions), &fail, nil)
}

func conditions(compiler cel.ConditionCompiler, of []admissionv1.MatchCondition) matchconditions.Matcher {
	var expressions []cel.ExpressionAccessor
	for _, c := range of {
		expressions = append(expressions, &matchconditions.MatchCondition{Name: c.Name, Expression: c.Expression})
	}
	fail := admissionv1.Fail
	return matchconditions.NewMatcher(compiler.CompileCondition(expressions, cel.OptionalVariableDeclarations{HasAuthorizer: true}, environment.StoredExpressions), &fail, "policy", "validate", "test")
}

// deployment has annotations on its pod template.
func deployment(name string, annotations map[string]string) map[string]any {
	inner := map[string]any{}
	for k, v := range annotations {
		inner[k] = v
	}
	return map[string]any{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": name}, "spec": map[string]any{
		"template": map[string]any{"metadata": map[string]any{"annotations": inner}, "spec": map[string]any{
			"containers": []any{map[string]any{"name": "app", "image": "i"}, map[string]any{"name": "a-1", "image": "i"}}}}}}
}

// says are the messages of the policy about an object.
func says(t *testing.T, policy validating.Validator, object map[string]any) []string {
	t.Helper()
	kind := schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}
	resource := schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	if object["kind"] == "Pod" {
		kind, resource = schema.GroupVersionKind{Version: "v1", Kind: "Pod"}, schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	}
	result := policy.Validate(context.Background(), resource, attributes(object, kind, resource), nil, nil, apiservercel.RuntimeCELCostBudget, nil)
	var all []string
	for _, d := range result.Decisions {
		if d.Evaluation == validating.EvalError {
			t.Fatalf("%v: %s", object, d.Message)
		}
		if d.Action == validating.ActionDeny {
			all = append(all, d.Message)
		}
	}
	return all
}

func attributes(object map[string]any, kind schema.GroupVersionKind, resource schema.GroupVersionResource) *admission.VersionedAttributes {
	u := &unstructured.Unstructured{Object: object}
	record := admission.NewAttributesRecord(u, nil, kind, "default", u.GetName(), resource, "", admission.Create, &metav1.CreateOptions{}, false, nil)
	return &admission.VersionedAttributes{Attributes: record, VersionedObject: u, VersionedKind: kind}
}

// refused are the objects that the webhook would refuse, by name.
func refused(t *testing.T, objects []map[string]any) map[string]string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "kubectl-log_bridge")
	build := exec.Command("go", "build", "-o", program, "./webhook/kubectl-log_bridge")
	build.Dir = top
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var text strings.Builder
	for _, o := range objects {
		b, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		text.Write(b)
		text.WriteByte('\n')
	}
	cmd := exec.Command(program, "check", "-f", "-")
	cmd.Stdin = strings.NewReader(text.String())
	out, err := cmd.Output()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() > 1 {
		t.Fatalf("%v\n%s", err, out)
	}
	all := map[string]string{}
	name := ""
	for line := range strings.Lines(string(out)) {
		switch rest, mistaken := strings.CutSuffix(line, ": has mistakes\n"); {
		case mistaken:
			_, name, _ = strings.Cut(rest, "Deployment/")
			all[name] = ""
		case !strings.HasPrefix(line, " "):
			name = ""
		case name != "":
			all[name] += line
		}
	}
	return all
}

// pieces are put together at random. They are what was once understood in two ways, and what is
// like it.
var (
	blanks     = []string{"", "", "", " ", "\t", "\u00a0", "\u2003", "\u0085", "\v", "\u200b", "\r", "\u3000", "\u1680", "\ufeff"}
	starts     = []string{"/", "/", "/", "//", "/./", "", "app:", "app:/", "a-1:/", "app :/", "app\u00a0: /", "APP:/", "-:/", "app::/", ":/", "app/b:/", "app:\u00a0/"}
	names      = []string{"{a,b}.log", "{a", "b}", "[{]a", "{x,/y}/z", "a", "app.log", `"x".log`, `"`, `""`, "'x'", "..", ".", "...", "a..b", "*", "**", "[a-z]", "[[]x", "[", "[!a]", `a\b`, `\`, "a:b", "ä", "日本", "{x}", "$(A)", "$$", "a b", "dev/stdout", "proc/1", "\u202e", "<", "log/x", "\u00a0", "\u200b", "tmp/x", "dev/shm/x", "etc/passwd"}
	between    = []string{"/", "/", "//", ""}
	ends       = []string{"", "", "", "/", "/..", "\n", ","}
	quantities = []string{"64Mi", "100m", "1", "1Gi", "0", "-1", "+5", "1e3", "1E3", "1E", "1Ei", "1e999999999", "1e-999999999", "1e+99", "1e100", "1.5Gi", "0.000000000000000000001", "64m", "64 Mi", "1e", "e3", ".5", "5.", "",
		"1.e5", "1_000", "0x10", "١", "1e003", "9999999999999999999999999999", strings.Repeat("1", 64), strings.Repeat("1", 65), "0." + strings.Repeat("0", 61) + "1", strings.Repeat("9", 5000), "1ki", "1k", "1n", "Inf", "NaN"}
	ids   = []string{"0", "-0", "+0", "+5", "5", "007", "2147483647", "2147483648", "99999999999999999999", "1e3", "root", "", "0x5", "٣", "1_0", "--1"}
	words = []string{"auto", "file", "directory", "raw", "json", "prefix", "true", "false", "TRUE", "yes", "", "true,", "'true'", "0"}
)

func one(r *rand.Rand, of []string) string { return of[r.IntN(len(of))] }

func generated(r *rand.Rand) map[string]string {
	entries := func() string {
		var all []string
		for range 1 + r.IntN(3)*r.IntN(2) {
			e := one(r, blanks) + one(r, starts)
			for n := range 1 + r.IntN(3) {
				if n > 0 {
					e += one(r, between)
				}
				e += one(r, names)
			}
			all = append(all, e+one(r, ends)+one(r, blanks))
		}
		return strings.Join(all, one(r, []string{",", "\n", ", ", ",,", "\r\n", ";"}))
	}
	all := map[string]string{"log-bridge.dev/files": entries()}
	if r.IntN(2) == 0 {
		all["log-bridge.dev/files"] = "/x"
	}
	for _, s := range []struct {
		keys, of []string
	}{
		{[]string{"size-limit", "cpu-request", "cpu-limit", "memory-request", "memory-limit"}, quantities},
		{[]string{"run-as-user", "run-as-group"}, ids},
		{[]string{"mount", "format", "seed", "reclaim", "inject"}, words},
	} {
		if r.IntN(3) == 0 {
			all["log-bridge.dev/"+one(r, s.keys)] = one(r, blanks) + one(r, s.of) + one(r, blanks)
		}
	}
	switch r.IntN(20) {
	case 0:
		all["log-bridge.dev/stderr-files"] = entries()
	case 1:
		all["log-bridge.dev/"+one(r, []string{"Files", "file", "", "x"})] = "/x"
	case 2:
		delete(all, "log-bridge.dev/files")
	}
	return all
}

// TestPolicyIsNotStricter: the webhook refuses what the policy reports, and most of what the webhook
// refuses because of an annotation alone, the policy reports.
func TestPolicyIsNotStricter(t *testing.T) {
	policy := mistakes(t)
	r := rand.New(rand.NewPCG(1, 2))
	all := []map[string]string{
		{"log-bridge.dev/files": `/"x".log`},
		{"log-bridge.dev/files": "app\u00a0:/x"},
		{"log-bridge.dev/files": "/x", "log-bridge.dev/run-as-user": "-0"},
		{"log-bridge.dev/files": "/x", "log-bridge.dev/memory-limit": " 1e3\u00a0"},
	}
	for range 4000 {
		all = append(all, generated(r))
	}
	var objects []map[string]any
	for i, annotations := range all {
		objects = append(objects, deployment(fmt.Sprintf("d%d", i), annotations))
	}
	wrong := refused(t, objects)
	told, by := 0, map[string]int{}
	for i, o := range objects {
		name := fmt.Sprintf("d%d", i)
		sentences := says(t, policy, o)
		why, isWrong := wrong[name]
		if len(sentences) > 0 && !isWrong {
			t.Errorf("%q: the policy says %q, and the webhook takes it", all[i], sentences)
		}
		if len(sentences) > 0 {
			told++
		} else if isWrong {
			by[why]++
		}
		for _, s := range sentences {
			if len(s) > 1024 {
				t.Errorf("a sentence of %d bytes: %.200s…", len(s), s)
			}
		}
	}
	t.Logf("%d pods, %d refused, %d told", len(all), len(wrong), told)
	if told < len(wrong)/2 || len(wrong) < len(all)/5 || len(wrong) > len(all)*9/10 {
		t.Errorf("of %d pods %d are refused, and %d of these are told: too few to compare", len(all), len(wrong), told)
	}
}

// TestPolicyIsBounded: a value costs the API server no more than its length, and a message quotes a
// part of it only. It ends within the API server's budget for the cost of a policy.
func TestPolicyIsBounded(t *testing.T) {
	policy := mistakes(t)
	long := strings.Repeat("9", 20_000)
	for key, values := range map[string][]string{
		"size-limit":   {"1e999999999", "1e-999999999", "1." + long + "e999999999", long},
		"cpu-limit":    {"1E+999999999", long + "Mi", "1e2147483647"},
		"run-as-user":  {long + "x"},
		"mount":        {long},
		"stderr-files": {long, "/" + long + "/../x"},
	} {
		for _, value := range values {
			sentences := says(t, policy, deployment("d", map[string]string{"log-bridge.dev/files": "/x", "log-bridge.dev/" + key: value}))
			if len(sentences) == 0 {
				t.Errorf("%s: %.40s is not told", key, value)
			}
			for _, s := range sentences {
				if len(s) > 512 {
					t.Errorf("%s: a sentence of %d bytes", key, len(s))
				}
			}
		}
	}
}
