// Package charts tests the chart as Helm renders it. The program is the one that the
// environment variable HELM names, else the one on the PATH; without one the tests are
// skipped. HELM3 names one of Helm 3, which is compared with it. make test provides both.
package charts

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"

	"github.com/log-bridge/log-bridge/sidecar/contract"
)

func helm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	program := os.Getenv("HELM")
	if program == "" {
		var err error
		if program, err = exec.LookPath("helm"); err != nil {
			t.Skip("no helm: put it on the PATH or name it in HELM; make test does")
		}
	}
	return helmOf(t, program, args...)
}

func helmOf(t *testing.T, program string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(program, args...)
	// Nothing of the person who runs the tests goes in: no plugin, no cluster.
	home := t.TempDir()
	cmd.Env = append(os.Environ(), "HELM_CONFIG_HOME="+home, "HELM_CACHE_HOME="+home, "HELM_DATA_HOME="+home, "KUBECONFIG="+filepath.Join(home, "none"))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("helm %s: %w\n%s", strings.Join(args, " "), err, &stderr)
	}
	return stdout.String(), nil
}

// template renders the chart. Each set is an argument of --set.
func template(t *testing.T, sets ...string) (string, error) {
	t.Helper()
	args := []string{"template", "log-bridge", "log-bridge", "--namespace", "logging", "--kube-version", "1.36.0"}
	for _, s := range sets {
		args = append(args, "--set", s)
	}
	return helm(t, args...)
}

// objects are the rendered documents, each checked against the type of its kind: a
// field that Kubernetes does not know fails the test.
func objects(t *testing.T, rendered string) map[string]any {
	t.Helper()
	all := map[string]any{}
	for doc := range strings.SplitSeq(rendered, "\n---\n") {
		var head struct {
			Kind     string
			Metadata struct {
				Name, Namespace string
				Annotations     map[string]string
			}
		}
		if err := yaml.Unmarshal([]byte(doc), &head); err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		var object any
		namespaced := true
		switch head.Kind {
		case "":
			continue
		case "Deployment":
			object = &appsv1.Deployment{}
		case "DaemonSet":
			object = &appsv1.DaemonSet{}
		case "Pod":
			object = &corev1.Pod{}
		case "ConfigMap":
			object = &corev1.ConfigMap{}
		case "Service":
			object = &corev1.Service{}
		case "ServiceAccount":
			object = &corev1.ServiceAccount{}
		case "Secret":
			object = &corev1.Secret{}
		case "NetworkPolicy":
			object = &networkingv1.NetworkPolicy{}
		case "PodDisruptionBudget":
			object = &policyv1.PodDisruptionBudget{}
		case "Role":
			object = &rbacv1.Role{}
		case "RoleBinding":
			object = &rbacv1.RoleBinding{}
		case "ClusterRole":
			object, namespaced = &rbacv1.ClusterRole{}, false
		case "ClusterRoleBinding":
			object, namespaced = &rbacv1.ClusterRoleBinding{}, false
		case "MutatingWebhookConfiguration":
			object, namespaced = &admissionv1.MutatingWebhookConfiguration{}, false
		case "ValidatingAdmissionPolicy":
			object, namespaced = &admissionv1.ValidatingAdmissionPolicy{}, false
		case "ValidatingAdmissionPolicyBinding":
			object, namespaced = &admissionv1.ValidatingAdmissionPolicyBinding{}, false
		case "Certificate", "Issuer":
			object = &map[string]any{}
		case "ServiceMonitor", "PrometheusRule":
			// test/prometheus knows their types.
			object = &map[string]any{}
		default:
			t.Fatalf("kind %q is new here; say how it is checked", head.Kind)
		}
		if err := yaml.UnmarshalStrict([]byte(doc), object); err != nil {
			t.Fatalf("%s %s: %v", head.Kind, head.Metadata.Name, err)
		}
		if head.Metadata.Annotations["helm.sh/hook"] == "test" {
			head.Kind = "test " + head.Kind
		}
		// The role of the test is where its pod would be made; TestHelmTest looks there.
		elsewhere := head.Kind == "test Role" || head.Kind == "test RoleBinding"
		if !elsewhere && (head.Metadata.Namespace == "logging") != namespaced {
			t.Errorf("%s %s: namespace %q", head.Kind, head.Metadata.Name, head.Metadata.Namespace)
		}
		name := head.Kind + "/" + head.Metadata.Name
		if all[name] != nil {
			t.Errorf("%s is rendered twice", name)
		}
		all[name] = object
	}
	return all
}

func render(t *testing.T, sets ...string) map[string]any {
	t.Helper()
	rendered, err := template(t, sets...)
	if err != nil {
		t.Fatal(err)
	}
	return objects(t, rendered)
}

func names(all map[string]any) []string {
	var names []string
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func get[T any](t *testing.T, all map[string]any, name string) *T {
	t.Helper()
	object, ok := all[name].(*T)
	if !ok {
		t.Fatalf("no %s; there are %v", name, names(all))
	}
	return object
}

func TestLint(t *testing.T) {
	if _, err := helm(t, "lint", "--strict", "log-bridge"); err != nil {
		t.Error(err)
	}
}

// Each way to install the chart makes the objects that it should, the same each time.
func TestObjects(t *testing.T) {
	always := []string{"Deployment/log-bridge", "MutatingWebhookConfiguration/log-bridge", "PodDisruptionBudget/log-bridge", "ConfigMap/log-bridge-rules",
		"Service/log-bridge-webhook", "ServiceAccount/log-bridge",
		"ValidatingAdmissionPolicy/log-bridge-mistakes", "ValidatingAdmissionPolicy/log-bridge-missing-sidecar",
		"ValidatingAdmissionPolicyBinding/log-bridge-mistakes", "ValidatingAdmissionPolicyBinding/log-bridge-missing-sidecar",
		"test Pod/log-bridge-test", "test ServiceAccount/log-bridge-test", "test Role/log-bridge-test", "test RoleBinding/log-bridge-test"}
	for name, test := range map[string]struct{ sets, more []string }{
		"self": {nil, []string{"ClusterRole/log-bridge", "ClusterRoleBinding/log-bridge", "Role/log-bridge", "RoleBinding/log-bridge", "Secret/log-bridge-webhook",
			"ValidatingAdmissionPolicy/log-bridge-own-configuration", "ValidatingAdmissionPolicyBinding/log-bridge-own-configuration"}},
		"cert-manager": {[]string{"certificates.mode=cert-manager"}, []string{"Certificate/log-bridge-webhook", "Certificate/log-bridge-webhook-ca",
			"Issuer/log-bridge-webhook-ca", "Issuer/log-bridge-webhook-selfsigned"}},
		"cert-manager, own issuer": {[]string{"certificates.mode=cert-manager", "certificates.certManager.issuerName=corporate", "certificates.certManager.issuerKind=ClusterIssuer"},
			[]string{"Certificate/log-bridge-webhook"}},
		"everything optional": {[]string{"certificates.mode=cert-manager", "certificates.certManager.issuerName=corporate", "prePull.enabled=true", "monitoring.serviceMonitor.enabled=true",
			"monitoring.prometheusRule.enabled=true", "monitoring.dashboard.enabled=true", "networkPolicy.enabled=true", "networkPolicy.from[0].ipBlock.cidr=10.0.0.0/28", "webhook.clientCA=PEM"},
			[]string{"NetworkPolicy/log-bridge", "ConfigMap/log-bridge-client-ca", "Certificate/log-bridge-webhook", "DaemonSet/log-bridge-pre-pull", "ServiceMonitor/log-bridge", "PrometheusRule/log-bridge", "ConfigMap/log-bridge-dashboard"}},
		"provided": {[]string{"certificates.mode=provided", "certificates.provided.secretName=mine", "certificates.provided.caBundle=PEM"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			first, err := template(t, test.sets...)
			if err != nil {
				t.Fatal(err)
			}
			second, err := template(t, test.sets...)
			if err != nil {
				t.Fatal(err)
			}
			if first != second {
				t.Error("two renders differ")
			}
			want := slices.Sorted(slices.Values(slices.Concat(always, test.more)))
			if have := names(objects(t, first)); !slices.Equal(have, want) {
				t.Errorf("objects:\nhave %v\nwant %v", have, want)
			}
		})
	}
}

func TestOtherReleaseName(t *testing.T) {
	rendered, err := helm(t, "template", "logs", "log-bridge", "--namespace", "logging", "--kube-version", "1.36.0")
	if err != nil {
		t.Fatal(err)
	}
	all := objects(t, rendered)
	deployment := get[appsv1.Deployment](t, all, "Deployment/logs-log-bridge")
	for _, want := range []string{"--service=logs-log-bridge-webhook", "--cert-secret=logs-log-bridge-webhook", "--webhook-configuration=logs-log-bridge", "--namespace=logging"} {
		if !slices.Contains(deployment.Spec.Template.Spec.Containers[0].Args, want) {
			t.Errorf("no argument %s", want)
		}
	}
	get[corev1.Secret](t, all, "Secret/logs-log-bridge-webhook")
	get[corev1.Service](t, all, "Service/logs-log-bridge-webhook")
	get[admissionv1.MutatingWebhookConfiguration](t, all, "MutatingWebhookConfiguration/logs-log-bridge")
}

func TestConfiguration(t *testing.T) {
	hook := get[admissionv1.MutatingWebhookConfiguration](t, render(t), "MutatingWebhookConfiguration/log-bridge").Webhooks[0]
	if *hook.FailurePolicy != admissionv1.Ignore || *hook.TimeoutSeconds != 5 || *hook.ReinvocationPolicy != admissionv1.IfNeededReinvocationPolicy || *hook.SideEffects != admissionv1.SideEffectClassNone {
		t.Errorf("failurePolicy %s, timeoutSeconds %d, reinvocationPolicy %s, sideEffects %s", *hook.FailurePolicy, *hook.TimeoutSeconds, *hook.ReinvocationPolicy, *hook.SideEffects)
	}
	if hook.ClientConfig.CABundle != nil {
		t.Error("a caBundle is rendered, which would overwrite the webhook's own at each upgrade")
	}
	rule := hook.Rules[0]
	if len(hook.Rules) != 1 || !slices.Equal(rule.Operations, []admissionv1.OperationType{"CREATE"}) || !slices.Equal(rule.Resources, []string{"pods"}) {
		t.Errorf("rules: %v", hook.Rules)
	}
	want := "has(object.metadata.annotations) && object.metadata.annotations.exists(k, k.startsWith('" + contract.Prefix + "'))"
	if len(hook.MatchConditions) != 1 || hook.MatchConditions[0].Expression != want {
		t.Errorf("matchConditions: have %v, want %s", hook.MatchConditions, want)
	}
	selector := fmt.Sprint(hook.NamespaceSelector.MatchExpressions)
	if selector != "[{kubernetes.io/metadata.name NotIn [kube-system logging]} {log-bridge.dev/inject NotIn [false]}]" {
		t.Errorf("namespaceSelector: %s", selector)
	}
}

func TestCaBundle(t *testing.T) {
	all := render(t, "certificates.mode=provided", "certificates.provided.secretName=mine", "certificates.provided.caBundle=PEM")
	hook := get[admissionv1.MutatingWebhookConfiguration](t, all, "MutatingWebhookConfiguration/log-bridge").Webhooks[0]
	if string(hook.ClientConfig.CABundle) != "PEM" {
		t.Errorf("caBundle %q", hook.ClientConfig.CABundle)
	}
	pod := get[appsv1.Deployment](t, all, "Deployment/log-bridge").Spec.Template.Spec
	if len(pod.Volumes) != 2 || pod.Volumes[0].Secret.SecretName != "mine" {
		t.Errorf("volumes: %v", pod.Volumes)
	}
	conf := get[admissionv1.MutatingWebhookConfiguration](t, render(t, "certificates.mode=cert-manager"), "MutatingWebhookConfiguration/log-bridge")
	if have := conf.Annotations["cert-manager.io/inject-ca-from"]; have != "logging/log-bridge-webhook" {
		t.Errorf("cert-manager.io/inject-ca-from: %q", have)
	}
}

// The webhook may do what its certificates need, and nothing else.
func TestPermissions(t *testing.T) {
	all := render(t)
	for name, want := range map[string]string{
		"Role/log-bridge":        "[{[get update] [] [secrets] [log-bridge-webhook] []}]",
		"ClusterRole/log-bridge": "[{[get patch] [admissionregistration.k8s.io] [mutatingwebhookconfigurations] [log-bridge] []}]",
	} {
		var rules []rbacv1.PolicyRule
		switch role := all[name].(type) {
		case *rbacv1.Role:
			rules = role.Rules
		case *rbacv1.ClusterRole:
			rules = role.Rules
		}
		if have := fmt.Sprint(rules); have != want {
			t.Errorf("%s: have %s, want %s", name, have, want)
		}
	}
	if secret := get[corev1.Secret](t, all, "Secret/log-bridge-webhook"); len(secret.Data)+len(secret.StringData) > 0 {
		t.Error("the Secret is rendered with data, which would overwrite the webhook's own at each upgrade")
	}
}

func TestDeployment(t *testing.T) {
	deployment := get[appsv1.Deployment](t, render(t), "Deployment/log-bridge")
	if *deployment.Spec.Replicas != 2 || deployment.Spec.Strategy.RollingUpdate.MaxUnavailable.IntValue() != 0 {
		t.Error("an update may leave no replica serving")
	}
	pod := deployment.Spec.Template.Spec
	c := pod.Containers[0]
	security := c.SecurityContext
	if !*pod.SecurityContext.RunAsNonRoot || pod.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault ||
		*security.AllowPrivilegeEscalation || !*security.ReadOnlyRootFilesystem || !slices.Equal(security.Capabilities.Drop, []corev1.Capability{"ALL"}) {
		t.Error("the pod does not meet Pod Security restricted")
	}
	if *pod.AutomountServiceAccountToken || c.VolumeMounts[0].MountPath != contract.TokenPath || pod.Volumes[0].Projected == nil {
		t.Error("the token is not the projected one")
	}
	for _, spread := range pod.TopologySpreadConstraints {
		if spread.WhenUnsatisfiable != corev1.ScheduleAnyway {
			t.Errorf("the spread over %s is not soft", spread.TopologyKey)
		}
	}
	if c.Image != "ghcr.io/log-bridge/log-bridge-webhook:0.1.0" || !slices.Contains(c.Args, "--image=ghcr.io/log-bridge/log-bridge:0.1.0") {
		t.Errorf("image %s, arguments %q: not those of the appVersion", c.Image, c.Args)
	}
	pinned := get[appsv1.Deployment](t, render(t, "image.digest=sha256:aa", "webhook.image.digest=sha256:bb", "image.tag=x"), "Deployment/log-bridge").Spec.Template.Spec.Containers[0]
	if pinned.Image != "ghcr.io/log-bridge/log-bridge-webhook@sha256:bb" || !slices.Contains(pinned.Args, "--image=ghcr.io/log-bridge/log-bridge@sha256:aa") {
		t.Errorf("image %s, arguments %q: not those of the digests", pinned.Image, pinned.Args)
	}
}

// The program takes every argument that the chart gives it, and its defaults for the
// sidecar are those of the chart.
func TestArguments(t *testing.T) {
	program := filepath.Join(t.TempDir(), "log-bridge-webhook")
	if out, err := exec.Command("go", "build", "-o", program, "../webhook").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	help := func(args []string) string {
		args = append(slices.Clone(args), "--help")
		for i, arg := range args {
			// The kubelet puts it in.
			args[i] = strings.ReplaceAll(arg, "$(MEMORY_LIMIT)", "134217728")
		}
		out, err := exec.Command(program, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("log-bridge-webhook %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	for _, sets := range [][]string{nil, {"certificates.mode=cert-manager"}, {"sidecar.resources.limits=null", "image.pullPolicy="}, {"sidecar.stats=1m"}, {"webhook.http2=true", "webhook.clientCA=PEM", "webhook.clientNames={a,b}"}} {
		help(get[appsv1.Deployment](t, render(t, sets...), "Deployment/log-bridge").Spec.Template.Spec.Containers[0].Args)
	}
	help(get[corev1.Pod](t, render(t), "test Pod/log-bridge-test").Spec.Containers[0].Args)
	prePull := get[appsv1.DaemonSet](t, render(t, "prePull.enabled=true"), "DaemonSet/log-bridge-pre-pull").Spec.Template.Spec
	if _, err := contract.ParseTail(prePull.Containers[0].Args[1:], io.Discard); err != nil {
		t.Errorf("the sidecar does not take the arguments of the pre-pull: %v", err)
	}
	text := help([]string{"serve"})
	for _, arg := range get[appsv1.Deployment](t, render(t), "Deployment/log-bridge").Spec.Template.Spec.Containers[0].Args {
		name, value, _ := strings.Cut(arg, "=")
		if !strings.HasSuffix(name, "-request") && !strings.HasSuffix(name, "-limit") {
			continue
		}
		if value == "" {
			value = "none"
		}
		_, of, _ := strings.Cut(text, "\n  "+name[1:]+" ")
		of, _, _ = strings.Cut(of, "\n  -")
		if !strings.Contains(of, "default "+value+")") {
			t.Errorf("%s: the chart's default is %s, the program's is told as:%s", name, value, of)
		}
	}
}

// The policy that reports mistakes early has the same words as the contract.
func TestPolicyKnowsTheContract(t *testing.T) {
	policy := get[admissionv1.ValidatingAdmissionPolicy](t, render(t), "ValidatingAdmissionPolicy/log-bridge-mistakes")
	variables := map[string]string{}
	for _, v := range policy.Spec.Variables {
		variables[v.Name] = v.Expression
	}
	var known, words, quantities, numbers, entries []string
	for _, a := range contract.Annotations {
		known = append(known, "'"+a.Key+"'")
		list := a.Values
		switch a.Kind {
		case contract.Bool:
			list = []string{"true", "false"}
			fallthrough
		case contract.Enum:
			words = append(words, "'"+a.Name()+"': ['"+strings.Join(list, "', '")+"']")
		case contract.Quantity, contract.Request:
			quantities = append(quantities, "'"+a.Key+"'")
			// The policy knows by the name that a request may be zero.
			if strings.HasSuffix(a.Key, "-request") != (a.Kind == contract.Request) {
				t.Errorf("%s is of kind %v", a.Key, a.Kind)
			}
		case contract.ID:
			numbers = append(numbers, "'"+a.Key+"'")
		case contract.Entries:
			entries = append(entries, "'"+a.Name()+"'")
		}
	}
	for name, want := range map[string][]string{"known": known, "words": words, "quantities": quantities, "wrongNumbers": numbers, "files": entries} {
		// What is between the first brackets, or braces for the map.
		text := variables[name]
		text, _, _ = strings.Cut(text[strings.IndexAny(text, "[{")+1:], map[bool]string{true: "}", false: "]"}[name == "words"])
		have := strings.Split(text, ", '")
		if name == "words" {
			have = strings.Split(strings.TrimSuffix(text, "]"), "],")
		}
		for i, s := range have {
			have[i] = strings.Trim(s, "' \n]")
		}
		for i, s := range want {
			want[i] = strings.Trim(s, "' \n]")
		}
		slices.Sort(have)
		slices.Sort(want)
		if !slices.Equal(have, want) {
			t.Errorf("%s:\nhave %q\nwant %q", name, have, want)
		}
	}
}

// What cannot be meant is refused with a message.
func TestRefused(t *testing.T) {
	for set, want := range map[string]string{
		"replicas=3":                                                    "additional properties 'replicas' not allowed",
		"webhook.replica=3":                                             "additional properties 'replica' not allowed",
		"webhook.replicas=two":                                          "got string, want integer",
		"webhook.failurePolicy=ignore":                                  "value must be one of 'Ignore', 'Fail'",
		"webhook.timeoutSeconds=31":                                     "maximum: got 31, want 30",
		"sidecar.resources.limits.memory=lots":                          "does not match pattern",
		"certificates.mode=helm":                                        "value must be one of 'self', 'cert-manager', 'provided'",
		"certificates.mode=provided":                                    "certificates.provided.secretName must name the Secret",
		"certificates.provided.secretName=x":                            "certificates.provided is set, but certificates.mode is self",
		"certificates.certManager.issuerName=x":                         "certificates.certManager.issuerName is set, but certificates.mode is self",
		"certificates.mode=provided,certificates.provided.secretName=x": "certificates.provided.caBundle must contain the CA certificate",
		"webhook.hostNetwork=true":                                      "which the kubelet uses on every node",
		"webhook.healthPort=8080":                                       "must differ; they are 10250, 8080, 8080",
		"webhook.replicas=1,webhook.failurePolicy=Fail":                 "no annotated pod can be created",
		"prePull.enabled=true,image.pullPolicy=Always":                  "set image.pullPolicy to IfNotPresent",
		"monitoring.dashboard.enabled=true,webhook.metricsPort=0":       "monitoring.dashboard.enabled is true, but webhook.metricsPort is 0",
		"monitoring.serviceMonitor.enabled=true,webhook.metricsPort=0":  "monitoring.serviceMonitor.enabled is true, but webhook.metricsPort is 0",
		"serviceAccount.create=false":                                   "set serviceAccount.name",
		"webhook.clientNames={apiserver}":                               "webhook.clientNames is set without webhook.clientCA",
		"networkPolicy.enabled=true":                                    "name the API servers in networkPolicy.from",
	} {
		t.Run(set, func(t *testing.T) {
			if _, err := template(t, set); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("have %v, want %q", err, want)
			}
		})
	}
}

// Only the webhook's own pods answer for it, whatever else the release runs.
func TestSelectors(t *testing.T) {
	all := render(t, "prePull.enabled=true")
	service := get[corev1.Service](t, all, "Service/log-bridge-webhook")
	budget := get[policyv1.PodDisruptionBudget](t, all, "PodDisruptionBudget/log-bridge")
	daemons := get[appsv1.DaemonSet](t, all, "DaemonSet/log-bridge-pre-pull")
	selected := func(selector, of map[string]string) bool {
		return labels.SelectorFromSet(selector).Matches(labels.Set(of))
	}
	for name, of := range map[string]map[string]string{
		"the webhook": get[appsv1.Deployment](t, all, "Deployment/log-bridge").Spec.Template.Labels,
		"pre-pull":    daemons.Spec.Template.Labels,
		"helm test":   get[corev1.Pod](t, all, "test Pod/log-bridge-test").Labels,
	} {
		for what, selector := range map[string]map[string]string{"Service": service.Spec.Selector, "PodDisruptionBudget": budget.Spec.Selector.MatchLabels} {
			if selected(selector, of) != (name == "the webhook") {
				t.Errorf("%s and the pods of %s: selected %v", what, name, selected(selector, of))
			}
		}
		if selected(daemons.Spec.Selector.MatchLabels, of) != (name == "pre-pull") {
			t.Errorf("DaemonSet and the pods of %s: selected %v", name, !selected(daemons.Spec.Selector.MatchLabels, of))
		}
	}
}

// helm test may create pods in the namespace that it tries, for as long as it runs, and
// nothing else. A namespace that is left out has none: the test could only fail there.
func TestHelmTest(t *testing.T) {
	all := render(t)
	role := get[rbacv1.Role](t, all, "test Role/log-bridge-test")
	if have := fmt.Sprint(role.Rules); have != "[{[create] [] [pods] [] []}]" || role.Namespace != "default" {
		t.Errorf("namespace %s, rules: %s", role.Namespace, have)
	}
	for _, sets := range []string{"webhook.excludedNamespaces={kube-system,default}", "helmTest.namespace=logging", "helmTest.namespace="} {
		for name := range render(t, sets) {
			if strings.HasPrefix(name, "test ") {
				t.Errorf("%s: %s is rendered, though the namespace is left out", sets, name)
			}
		}
	}
	get[rbacv1.Role](t, render(t, "helmTest.namespace=logging", "webhook.excludeOwnNamespace=false"), "test Role/log-bridge-test")
}

// The namespaces that are left out, by the webhook and by the policies alike.
func TestNamespaces(t *testing.T) {
	for sets, want := range map[string]string{
		"enabled=true": "kube-system logging",
		"webhook.excludedNamespaces={kube-system,logging}":                  "kube-system logging",
		"webhook.excludeOwnNamespace=false":                                 "kube-system",
		"webhook.excludedNamespaces=null,webhook.excludeOwnNamespace=false": "",
	} {
		all := render(t, sets)
		selectors := []*metav1.LabelSelector{get[admissionv1.MutatingWebhookConfiguration](t, all, "MutatingWebhookConfiguration/log-bridge").Webhooks[0].NamespaceSelector}
		for _, policy := range []string{"mistakes", "missing-sidecar"} {
			selectors = append(selectors, get[admissionv1.ValidatingAdmissionPolicy](t, all, "ValidatingAdmissionPolicy/log-bridge-"+policy).Spec.MatchConstraints.NamespaceSelector)
		}
		for _, s := range selectors {
			have := ""
			for _, e := range s.MatchExpressions {
				if e.Key == "kubernetes.io/metadata.name" {
					have = strings.Join(e.Values, " ")
				}
			}
			if have != want {
				t.Errorf("%s: left out are %q, want %q", sets, have, want)
			}
		}
	}
}

// The policy compares every field that a webhook configuration has, but for the caBundle: a field that
// Kubernetes adds one day must be added to it.
func TestPolicyComparesAllFields(t *testing.T) {
	policy := get[admissionv1.ValidatingAdmissionPolicy](t, render(t, "serviceAccount.name=own"), "ValidatingAdmissionPolicy/log-bridge-own-configuration")
	text := policy.Spec.Validations[0].Expression
	fields := func(of any, prefix string) {
		kind := reflect.TypeOf(of)
		for i := range kind.NumField() {
			name, _, _ := strings.Cut(kind.Field(i).Tag.Get("json"), ",")
			if name == "clientConfig" || name == "caBundle" {
				continue
			}
			if !strings.Contains(text, "w."+prefix+name+" == o."+prefix+name) && !strings.Contains(text, "w."+prefix+"?"+name+" == o."+prefix+"?"+name) {
				t.Errorf("%s%s is not compared", prefix, name)
			}
		}
	}
	fields(admissionv1.MutatingWebhook{}, "")
	fields(admissionv1.WebhookClientConfig{}, "clientConfig.")
	if want := "request.userInfo.username == 'system:serviceaccount:logging:own'"; policy.Spec.MatchConditions[0].Expression != want {
		t.Errorf("it is about %s, want %s", policy.Spec.MatchConditions[0].Expression, want)
	}
	for name := range render(t, "certificates.mode=cert-manager") {
		if strings.HasSuffix(name, "own-configuration") {
			t.Errorf("%s is rendered, though the account may change nothing", name)
		}
	}
}

// The NetworkPolicy lets in who is named, and the probes; where the webhook connects to nothing, it lets nothing out.
func TestNetworkPolicy(t *testing.T) {
	policy := func(sets ...string) networkingv1.NetworkPolicySpec {
		return get[networkingv1.NetworkPolicy](t, render(t, append(sets, "networkPolicy.enabled=true", "networkPolicy.from[0].ipBlock.cidr=10.0.0.0/28")...), "NetworkPolicy/log-bridge").Spec
	}
	ports := func(spec networkingv1.NetworkPolicySpec) string {
		var all []string
		for _, rule := range spec.Ingress {
			all = append(all, fmt.Sprint(rule.Ports[0].Port.String(), " ", len(rule.From)))
		}
		return strings.Join(all, ", ")
	}
	self := policy()
	if have := ports(self); have != "webhook 1, health 0" || len(self.PolicyTypes) != 1 {
		t.Errorf("in: %s; types %v", have, self.PolicyTypes)
	}
	if self.PodSelector.MatchLabels["app.kubernetes.io/component"] != "webhook" {
		t.Errorf("it is for %v", self.PodSelector)
	}
	more := policy("networkPolicy.metricsFrom[0].podSelector.matchLabels.app=prometheus", "networkPolicy.to[0].ipBlock.cidr=10.96.0.1/32")
	if have := ports(more); have != "webhook 1, health 0, metrics 1" || len(more.PolicyTypes) != 2 || len(more.Egress) != 1 {
		t.Errorf("in: %s; types %v; out: %v", have, more.PolicyTypes, more.Egress)
	}
	if given := policy("certificates.mode=cert-manager"); len(given.PolicyTypes) != 2 || len(given.Egress) != 0 {
		t.Errorf("types %v; out: %v", given.PolicyTypes, given.Egress)
	}
}

// Each alert links to a heading that says what to do.
func TestRunbooks(t *testing.T) {
	page, err := os.ReadFile("../docs/runbooks.md")
	if err != nil {
		t.Fatal(err)
	}
	rules := *get[map[string]any](t, render(t, "monitoring.prometheusRule.enabled=true"), "PrometheusRule/log-bridge")
	text, err := yaml.Marshal(rules["spec"])
	if err != nil {
		t.Fatal(err)
	}
	var spec struct {
		Groups []struct {
			Rules []struct {
				Alert       string
				Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(text, &spec); err != nil {
		t.Fatal(err)
	}
	alerts := []string{}
	for _, r := range spec.Groups[0].Rules {
		alerts = append(alerts, r.Alert)
		if want := "https://github.com/log-bridge/log-bridge/blob/main/docs/runbooks.md#" + strings.ToLower(r.Alert); r.Annotations["runbook_url"] != want {
			t.Errorf("%s links to %s, want %s", r.Alert, r.Annotations["runbook_url"], want)
		}
	}
	headings := []string{}
	for line := range strings.Lines(string(page)) {
		if heading, ok := strings.CutPrefix(line, "## "); ok {
			headings = append(headings, strings.TrimSpace(heading))
		}
	}
	if !slices.Equal(alerts, headings) {
		t.Errorf("alerts   %v\nheadings %v", alerts, headings)
	}
}

// Helm 3 makes the same of the chart as Helm 4, and refuses the same.
func TestHelm3(t *testing.T) {
	helm3 := os.Getenv("HELM3")
	if helm3 == "" {
		t.Skip("no HELM3, which names a program of Helm 3; make test does")
	}
	if version, err := helmOf(t, helm3, "version", "--short"); err != nil || !strings.HasPrefix(version, "v3.") {
		t.Fatalf("HELM3 is %s, %v", version, err)
	}
	if version, err := helm(t, "version", "--short"); err != nil || !strings.HasPrefix(version, "v4.") {
		t.Fatalf("HELM is %s, %v", version, err)
	}
	for _, sets := range []string{
		"enabled=true",
		"certificates.mode=cert-manager",
		"certificates.mode=provided,certificates.provided.secretName=mine,certificates.provided.caBundle=PEM",
		"prePull.enabled=true,monitoring.serviceMonitor.enabled=true,monitoring.prometheusRule.enabled=true,monitoring.dashboard.enabled=true",
		"webhook.hostNetwork=true,webhook.port=10260,webhook.replicas=0,webhook.metricsPort=0,podDisruptionBudget.enabled=false,commonLabels.team=logs,fullnameOverride=bridge",
		"certificates.mode=provided",
		"webhook.hostNetwork=true",
		"webhook.replica=3",
	} {
		args := []string{"template", "log-bridge", "log-bridge", "--namespace", "logging", "--kube-version", "1.36.0", "--set", sets}
		four, err4 := helm(t, args...)
		three, err3 := helmOf(t, helm3, args...)
		if (err3 == nil) != (err4 == nil) || sorted(three) != sorted(four) {
			t.Errorf("%s: Helm 3: %v\n%s\nHelm 4: %v\n%s", sets, err3, three, err4, four)
		}
	}
	if _, err := helmOf(t, helm3, "lint", "--strict", "log-bridge"); err != nil {
		t.Error(err)
	}
}

// sorted are the documents in the order of their text: the versions of Helm differ in theirs.
func sorted(rendered string) string {
	docs := strings.Split(strings.TrimSpace(rendered), "\n---\n")
	for i := range docs {
		docs[i] = strings.TrimSpace(strings.TrimPrefix(docs[i], "---\n"))
	}
	slices.Sort(docs)
	return strings.Join(docs, "\n---\n")
}

// A key that the chart does not know is an error at every level, but in what it hands on as it is.
func TestSchemaIsClosed(t *testing.T) {
	text, err := os.ReadFile("log-bridge/values.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	closed := 0
	var walk func(path string, of map[string]any)
	walk = func(path string, of map[string]any) {
		properties, _ := of["properties"].(map[string]any)
		doc, _ := of["description"].(string)
		switch {
		case of["type"] != "object" || path == ".global":
		case of["additionalProperties"] == false:
			closed++
		case !strings.Contains(doc, "Free form."):
			t.Errorf("%s takes any key", path)
		}
		for name, child := range properties {
			walk(path+"."+name, child.(map[string]any))
		}
	}
	walk("", schema)
	if closed < 15 {
		t.Errorf("only %d objects are closed", closed)
	}
}

// What makes two renders differ, or a render depend on the cluster, is not in the templates: Argo CD
// would see a change for ever.
func TestNothingRandom(t *testing.T) {
	files, err := filepath.Glob("log-bridge/templates/*")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d templates, %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // a directory
		}
		for _, word := range []string{"lookup", "genSignedCert", "genCA", "genSelfSignedCert", "genPrivateKey", "rand", "uuidv4", "now", "APIVersions"} {
			if regexp.MustCompile(`\{\{[^}]*\b` + word).Match(text) {
				t.Errorf("%s uses %s", file, word)
			}
		}
	}
}

// Before Kubernetes 1.30 there are no admission policies, and from then on there are.
func TestPoliciesByVersion(t *testing.T) {
	for version, want := range map[string]bool{"1.29.0": false, "1.29.15": false, "v1.29.9-gke.1341000": false, "1.30.0": true, "v1.30.4-eks-a737599": true, "1.36.3": true} {
		rendered, err := helm(t, "template", "log-bridge", "log-bridge", "--namespace", "logging", "--kube-version", version)
		if err != nil {
			t.Errorf("%s: %v", version, err)
			continue
		}
		all := objects(t, rendered)
		for _, name := range []string{"ValidatingAdmissionPolicy/log-bridge-mistakes", "ValidatingAdmissionPolicyBinding/log-bridge-missing-sidecar"} {
			if (all[name] != nil) != want {
				t.Errorf("Kubernetes %s: %s is rendered: %v, want %v", version, name, all[name] != nil, want)
			}
		}
		get[appsv1.Deployment](t, all, "Deployment/log-bridge")
	}
	if _, err := helm(t, "template", "log-bridge", "log-bridge", "--kube-version", "1.28.9"); err == nil {
		t.Error("the chart installs on Kubernetes 1.28, which has no native sidecars")
	}
}

// As a dependency the chart is given values that are not its own.
func TestDependency(t *testing.T) {
	if _, err := template(t, "global.registry=example", "enabled=true"); err != nil {
		t.Error(err)
	}
}
