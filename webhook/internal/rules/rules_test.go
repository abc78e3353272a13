package rules_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/log-bridge/log-bridge/webhook/internal/finding"
	"github.com/log-bridge/log-bridge/webhook/internal/inject"
	"github.com/log-bridge/log-bridge/webhook/internal/rules"
)

var config = inject.Config{Version: "1.2.3", Image: "log-bridge:1", Resources: inject.DefaultResources()}

func parse(t *testing.T, text string) *rules.Set {
	t.Helper()
	set, findings := rules.Parse(context.Background(), []byte(text), config)
	if len(findings) > 0 {
		t.Fatalf("%s: %v", text, findings)
	}
	return set
}

// What a rule may not say, and the number of the finding.
func TestParse(t *testing.T) {
	const fine = "podSelector: {matchLabels: {app: x}}, annotations: {files: /a/x.log}"
	many := strings.Builder{}
	for i := range rules.MaxRules + 1 {
		fmt.Fprintf(&many, "{name: r%d, %s}, ", i, fine)
	}
	for _, test := range []struct{ rules, want string }{
		{"", ""},
		{"{name: a, " + fine + "}", ""},
		{"{name: a, namespaceSelector: {matchExpressions: [{key: team, operator: In, values: [x]}]}, annotations: {format: json, size-limit: 1Gi, seed: false, run-as-user: 1000000}}", ""},
		{"{name: a, podSelector: {matchLabels: {app: x}}, annotations: {files: '*:/a/*.log, app:/b.log', stderr-files: '{*:/c,*:/d}/e.log'}}", ""},
		{"1", "LB0901"},
		{"{name: a, selector: {}, " + fine + "}", "LB0901"},
		{"{name: a, podSelector: {matchLabels: {app: x}}, annotations: {files: [/a]}}", "LB0901"},
		{"{name: A, " + fine + "}", "LB0902"},
		{"{" + fine + "}", "LB0902"},
		{"{name: a, " + fine + "}, {name: a, podSelector: {matchLabels: {app: z}}, annotations: {files: /a/x.log}}", "LB0902"},
		{"{name: a, annotations: {files: /a/x.log}}", "LB0903"},
		{"{name: a, podSelector: {}, namespaceSelector: {}, annotations: {files: /a/x.log}}", "LB0903"},
		{"{name: a, podSelector: {matchExpressions: [{key: app, operator: Is}]}, annotations: {files: /a/x.log}}", "LB0904"},
		{"{name: a, podSelector: {matchLabels: {'a b': x}}, annotations: {files: /a/x.log}}", "LB0904"},
		{"{name: a, podSelector: {matchLabels: {app: x}}}", "LB0905"},
		{"{name: a, podSelector: {matchLabels: {app: x}}, annotations: {fils: /a/x.log}}", "LB0905"},
		{"{name: a, podSelector: {matchLabels: {app: x}}, annotations: {files: x.log}}", "LB0905"},
		{"{name: a, podSelector: {matchLabels: {app: x}}, annotations: {files: '*:/etc/*.conf'}}", "LB0905"},
		{"{name: a, podSelector: {matchLabels: {app: x}}, annotations: {files: /a/x.log, inject: true}}", "LB0905"},
		{"{name: a, podSelector: {matchLabels: {app: x}}, annotations: {log-bridge.dev/files: /a/x.log}}", "LB0905"},
		{"{name: a, podSelector: {matchLabels: {app: x}}, annotations: {format: xml}}", "LB0905"},
		{many.String(), "LB0906"},
		{"{name: a, " + fine + "}, {name: b, " + fine + "}", "LB0907"},
		{"{name: a, podSelector: {matchLabels: {app: x}}, annotations: {format: json}}, {name: b, " + fine + "}", ""},
	} {
		_, findings := rules.Parse(context.Background(), []byte("rules: ["+test.rules+"]"), config)
		have := ""
		for _, f := range findings {
			have += string(f.Code) + " "
		}
		if strings.TrimSpace(have) != test.want {
			t.Errorf("%.200s: have %s(%v), want %s", test.rules, have, findings, test.want)
		}
	}
}

const several = `rules:
- {name: tomcat, podSelector: {matchLabels: {app: tomcat}}, annotations: {files: /usr/local/tomcat/logs/*.log, format: json}}
- {name: other, podSelector: {matchLabels: {app: tomcat}}, namespaceSelector: {matchLabels: {team: a}}, annotations: {files: /x/logs/*.log}}
- {name: every, podSelector: {matchLabels: {app: many}}, annotations: {files: '*:/data/x.log'}}
- {name: worker, podSelector: {matchLabels: {app: tomcat}}, namespaceSelector: {matchLabels: {team: b}}, annotations: {files: 'worker:/x/logs/*.log'}}
- {name: defaults, namespaceSelector: {matchLabels: {team: shop}}, annotations: {format: json, size-limit: 1Gi}}
`

// What becomes of a pod: the annotations that it gets, or why it is left alone.
func TestPod(t *testing.T) {
	set := parse(t, several)
	for name, test := range map[string]struct {
		rule, pod string
		reason    inject.Reason
		code      finding.Code
		added     string // keys and values that the operations add, of ours but for the status
		status    string
	}{
		"a pod that knows nothing of log-bridge": {"tomcat", "metadata: {labels: {app: tomcat}}\nspec: {containers: [{name: t, image: i}]}", "", "",
			"files=/usr/local/tomcat/logs/*.log format=json", `"rule":{"name":"tomcat","annotations":["files","format"]}`},
		"its own annotations win, key by key": {"tomcat", "metadata: {labels: {app: tomcat}, annotations: {log-bridge.dev/format: raw}}\nspec: {containers: [{name: t, image: i}]}", "", "",
			"files=/usr/local/tomcat/logs/*.log", `"rule":{"name":"tomcat","annotations":["files"]}`},
		"other labels":                         {"tomcat", "metadata: {labels: {app: x}}\nspec: {containers: [{name: t, image: i}]}", rules.Unmeant, "", "", ""},
		"a rule that is not there":             {"no", "metadata: {labels: {app: x}}\nspec: {containers: [{name: t, image: i}]}", rules.Unknown, "LB0912", "", ""},
		"a container that is not there":        {"worker", "metadata: {labels: {app: tomcat}}\nspec: {containers: [{name: t, image: i}]}", rules.Misfit, "LB0910", "", ""},
		"inject false":                         {"tomcat", "metadata: {labels: {app: tomcat}, annotations: {log-bridge.dev/inject: 'false'}}\nspec: {containers: [{name: t, image: i}]}", inject.Declined, "", "", ""},
		"defaults, and a pod that asks":        {"defaults", "metadata: {annotations: {log-bridge.dev/files: /a/x.log, log-bridge.dev/size-limit: 2Gi}}\nspec: {containers: [{name: t, image: i}]}", "", "", "format=json", `"rule":{"name":"defaults","annotations":["format"]}`},
		"defaults, and a pod that does not":    {"defaults", "spec: {containers: [{name: t, image: i}]}", rules.Unmeant, "", "", ""},
		"a mistake of the pod's own":           {"defaults", "metadata: {annotations: {log-bridge.dev/files: x.log}}\nspec: {containers: [{name: t, image: i}]}", rules.Misfit, "LB0910", "", ""},
		"any container":                        {"every", "metadata: {labels: {app: many}}\nspec: {containers: [{name: a, image: i}, {name: b, image: i}]}", "", "", "files=a:/data/x.log\nb:/data/x.log", `"entry":"b:/data/x.log"`},
		"any container that can have the file": {"every", "metadata: {labels: {app: many}}\nspec: {volumes: [{name: v, emptyDir: {}}], containers: [{name: a, image: i, volumeMounts: [{name: v, mountPath: /data, readOnly: true}]}, {name: b, image: i, volumeMounts: [{name: v, mountPath: /data}]}]}", "", "", "files=b:/data/x.log", ""},
		"no container that can have the file":  {"every", "metadata: {labels: {app: many}}\nspec: {volumes: [{name: v, emptyDir: {}}], containers: [{name: a, image: i, volumeMounts: [{name: v, mountPath: /data, readOnly: true}]}]}", rules.Misfit, "LB0910", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var pod corev1.Pod
			if err := yaml.UnmarshalStrict([]byte(test.pod), &pod); err != nil {
				t.Fatal(err)
			}
			before := pod.DeepCopy()
			result := set.Pod(context.Background(), test.rule, &pod, config)
			if fmt.Sprint(*before) != fmt.Sprint(pod) {
				t.Error("the pod was changed")
			}
			if len(result.Mistakes()) > 0 || result.LeftAlone != test.reason {
				t.Fatalf("left alone: %q, want %q; findings %v", result.LeftAlone, test.reason, result.Findings)
			}
			if test.code != "" && (len(result.Findings) != 1 || result.Findings[0].Code != test.code || result.Findings[0].Severity() != finding.Warning) {
				t.Errorf("findings %v, want the warning %s", result.Findings, test.code)
			}
			var added []string
			status := ""
			for _, op := range result.Operations {
				key, ok := strings.CutPrefix(op.Path, "/metadata/annotations/log-bridge.dev~1")
				switch {
				case ok && key == "status":
					status = op.Value.(string)
				case ok:
					added = append(added, fmt.Sprint(key, "=", op.Value))
				}
			}
			if have := strings.Join(added, " "); have != test.added {
				t.Errorf("added %q, want %q", have, test.added)
			}
			if !strings.Contains(status, test.status) {
				t.Errorf("status %s, want %s", status, test.status)
			}
		})
	}
}

func TestSelects(t *testing.T) {
	set := parse(t, several)
	asks := map[string]string{"log-bridge.dev/files": "/x.log"}
	for _, test := range []struct {
		rule           string
		namespace, pod map[string]string
		own            map[string]string
		want           bool
	}{
		{"tomcat", nil, map[string]string{"app": "tomcat"}, nil, true},
		{"other", nil, map[string]string{"app": "tomcat"}, nil, false},
		{"other", map[string]string{"team": "a"}, map[string]string{"app": "tomcat"}, nil, true},
		{"defaults", map[string]string{"team": "shop"}, nil, nil, false},
		{"defaults", map[string]string{"team": "shop"}, nil, asks, true},
		{"defaults", nil, nil, asks, false},
	} {
		if have := set.Get(test.rule).Selects(test.namespace, test.pod, test.own); have != test.want {
			t.Errorf("%+v: have %v", test, have)
		}
	}
}

// The file is read again when it changes; a broken one leaves the rules as they are.
func TestStore(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rules.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	write(several)
	ctx, cancel := context.WithCancel(context.Background())
	s := rules.NewStore(ctx, file, config, slog.New(slog.NewTextHandler(io.Discard, nil)))
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	defer func() {
		cancel()
		<-done
	}()
	wait := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("not within a minute: ", what)
			}
		}
	}
	if n := len(s.Set().Rules); n != 5 || s.Broken() {
		t.Fatalf("%d rules, broken %v", n, s.Broken())
	}
	write("rules: [{name: x}]")
	wait("a broken file is noticed", s.Broken)
	if s.Set().Get("tomcat") == nil {
		t.Error("a broken file took the rules away")
	}
	write("rules: []")
	wait("a good file is read", func() bool { return !s.Broken() && len(s.Set().Rules) == 0 })
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	wait("a missing file is noticed", s.Broken)
}

// manyRules are n rules, of which only the last selects the pod.
func manyRules(n int) (set *rules.Set, last string, pod *corev1.Pod) {
	var text strings.Builder
	text.WriteString("rules:\n")
	for i := range n {
		fmt.Fprintf(&text, "- {name: r%d, podSelector: {matchLabels: {app: a%d}}, annotations: {files: /usr/local/tomcat/logs/*.log}}\n", i, i)
	}
	set, _ = rules.Parse(context.Background(), []byte(text.String()), config)
	pod = &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "t", Image: "i"}}}}
	pod.Labels = map[string]string{"app": fmt.Sprintf("a%d", n-1)}
	return set, fmt.Sprintf("r%d", n-1), pod
}

// A decision does not cost more with many rules. Memory is counted, since it does not depend on the machine.
func TestManyRulesCostNothing(t *testing.T) {
	cost := func(n int) float64 {
		set, name, pod := manyRules(n)
		return testing.AllocsPerRun(50, func() {
			if r := set.Pod(context.Background(), name, pod, config); len(r.Operations) == 0 {
				t.Fatal(r)
			}
		})
	}
	if one, many := cost(1), cost(rules.MaxRules); many > one*1.05 {
		t.Errorf("a decision costs %.0f allocations with %d rules, and %.0f with one", many, rules.MaxRules, one)
	}
}

func BenchmarkRule(b *testing.B) {
	set, name, pod := manyRules(rules.MaxRules)
	for b.Loop() {
		if r := set.Pod(context.Background(), name, pod, config); len(r.Operations) == 0 {
			b.Fatal(r)
		}
	}
}

// A pod that an earlier rule has bridged stays as it is, and a warning (LB0911) names both rules.
func TestOverlap(t *testing.T) {
	set := parse(t, several)
	always := corev1.ContainerRestartPolicyAlways
	pod := &corev1.Pod{Spec: corev1.PodSpec{
		InitContainers: []corev1.Container{{Name: "log-bridge", RestartPolicy: &always, VolumeMounts: []corev1.VolumeMount{{Name: "log-bridge", MountPath: "/log-bridge"}}}},
		Containers:     []corev1.Container{{Name: "t", Image: "i"}},
	}}
	pod.Labels = map[string]string{"app": "tomcat"}
	pod.Annotations = map[string]string{"log-bridge.dev/status": `{"version":"1","rule":{"name":"tomcat"},"entries":[]}`}
	result := set.Pod(context.Background(), "other", pod, config)
	if result.LeftAlone != rules.Overlaps || len(result.Findings) != 1 || result.Findings[0].Code != finding.RulesOverlap ||
		!strings.Contains(result.Findings[0].Text(), "rule other") || !strings.Contains(result.Findings[0].Text(), "rule tomcat") {
		t.Errorf("%+v", result)
	}
	if result := set.Pod(context.Background(), "tomcat", pod, config); result.LeftAlone != inject.Already || len(result.Findings) > 0 {
		t.Errorf("the rule's own pod: %+v", result)
	}
}
