package manifest_test

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/diff"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	"sigs.k8s.io/yaml"

	"github.com/log-bridge/log-bridge/test/helpers/podgen"
	"github.com/log-bridge/log-bridge/webhook/internal/inject"
	"github.com/log-bridge/log-bridge/webhook/internal/manifest"
)

// TestApply: the additions to a text mean what the same patch means to the API server,
// however the pod is written and wherever it stands.
func TestApply(t *testing.T) {
	injected := 0
	for seed := range uint64(150) {
		var pod map[string]any
		if err := json.Unmarshal(podgen.Pod(seed), &pod); err != nil {
			t.Fatal(err)
		}
		pod["apiVersion"], pod["kind"] = "v1", "Pod"
		var object any = pod
		switch seed % 3 {
		case 1:
			object = map[string]any{"apiVersion": "batch/v1", "kind": "CronJob", "spec": map[string]any{"jobTemplate": map[string]any{"spec": map[string]any{"template": pod}}}}
		case 2:
			object = map[string]any{"apiVersion": "v1", "kind": "List", "items": []any{map[string]any{"apiVersion": "v1", "kind": "Secret"}, pod}}
		}
		asJSON, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		asYAML, err := yaml.JSONToYAML(asJSON)
		if err != nil {
			t.Fatal(err)
		}
		for form, text := range map[string][]byte{"JSON": asJSON, "YAML": asYAML, "YAML in braces": append([]byte("# JSON is YAML too.\n---\n"), asJSON...)} {
			stream := manifest.Read(text)
			pods, err := stream.Pods()
			if err != nil || len(pods) != 1 {
				t.Fatalf("seed %d, %s: %d pods, %v", seed, form, len(pods), err)
			}
			r := inject.Pod(t.Context(), pods[0].Pod, inject.Config{Image: "s"})
			if err := pods[0].Apply(r.Operations); err != nil {
				t.Fatalf("seed %d, %s: %v", seed, form, err)
			}
			have, err := stream.Bytes()
			if err != nil {
				t.Fatalf("seed %d, %s: %v", seed, form, err)
			}
			if len(r.Operations) == 0 {
				if strings.TrimSpace(string(have)) != strings.TrimSpace(string(text)) {
					t.Fatalf("seed %d, %s: nothing was to be changed:\n%s", seed, form, diff.Diff("have", have, "want", text))
				}
				continue
			}
			injected++
			prefix := []string{"", "/spec/jobTemplate/spec/template", "/items/1"}[seed%3]
			for i := range r.Operations {
				r.Operations[i].Path = prefix + r.Operations[i].Path
			}
			if same(t, patched(t, asJSON, r), have) {
				continue
			}
			t.Fatalf("seed %d, %s: the text means something else than the patch:\n%s", seed, form, have)
		}
	}
	if injected < 60 {
		t.Errorf("%d of 450 texts were changed; the generator no longer tests it", injected)
	}
}

// TestStyles: however a manifest is written, what stands in it means the same after an
// addition, also to kubectl, for which a plain y is a truth value.
func TestStyles(t *testing.T) {
	text, err := os.ReadFile("testdata/styles.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"as it stands":           text,
		"line ends of DOS":       bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")),
		"with a byte order mark": append([]byte("\ufeff"), text...),
	} {
		stream := manifest.Read(text)
		pods, err := stream.Pods()
		if err != nil || len(pods) != 1 {
			t.Fatalf("%s: %d pods, %v", name, len(pods), err)
		}
		r := inject.Pod(t.Context(), pods[0].Pod, inject.Config{Image: "s"})
		if err := pods[0].Apply(r.Operations); err != nil || len(r.Operations) == 0 {
			t.Fatalf("%s: %d operations, %v", name, len(r.Operations), err)
		}
		have, err := stream.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		asJSON, err := yaml.YAMLToJSON(text)
		if err != nil {
			t.Fatal(err)
		}
		if !same(t, patched(t, asJSON, r), have) {
			t.Errorf("%s: the text means something else than the patch:\n%s", name, have)
		}
		if n := bytes.Count(have, []byte("\n")); bytes.Contains(text, []byte("\r")) && bytes.Count(have, []byte("\r\n")) != n {
			t.Errorf("%s: of %d lines %d end so", name, n, bytes.Count(have, []byte("\r\n")))
		}
	}
}

// TestUnreadable: what cannot be understood is told in a sentence that says where, and what
// to do.
func TestUnreadable(t *testing.T) {
	const pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec:\n  containers:\n  - name: app\n"
	for _, c := range []struct{ name, text, want string }{
		{"a tab", "a: b\n---\nc:\n\td: e\n", "document 2: line 4 begins with a tab; indent YAML with spaces"},
		{"another encoding", "a: b\nc: caf\xe9\n", "line 2 is not UTF-8; save the file as UTF-8"},
		{"UTF-16", "\xff\xfea\x00:\x00 \x00b\x00\n\x00", "line 1 is not UTF-8; save the file as UTF-8"},
		{"a template", "a: {{ .Values.x }}\nb: {{- c }}\n", "this is not YAML (near line 1): did not find expected node content; it looks like a template; render it first, for example with helm template"},
		{"broken far below", strings.Repeat("a: b\n---\n", 10) + "a: [\n", "document 11: this is not YAML (near line 21): did not find expected node content"},
		{"a key twice", pod + "    image: a\n    image: b\n", "line 8: duplicate key image (first on line 7); remove one"},
		{"a key twice, far below", "a: b\n---\n" + pod + "  containers: []\n", "document 2: line 9: duplicate key containers (first on line 7); remove one"},
		{"a key twice in JSON", "{\"a\": 1,\n\"a\": 2}", "line 2: duplicate key a (first on line 1); remove one"},
		{"something behind the end", "a: b\n...\nc: d\n", "line 3: unexpected content after the end of the document; remove it, or precede it with ---"},
		{"something behind JSON", `{"a": "b"} c`, "line 1: unexpected content after the end of the document; remove it, or precede it with ---"},
		{"a list", "- a\n", "this is not a Kubernetes object; it must be a mapping with apiVersion and kind"},
		{"a number for a string", pod + "    env: [{name: A, value: 5}]\n", "Pod/x: spec.containers.env.value is a number, but must be a string; put it in quotes"},
		{"a string for a number", pod + "    ports: [{containerPort: '80'}]\n", "Pod/x: spec.containers.ports.containerPort is a string, but must be a number"},
		{"a list for a mapping", "apiVersion: batch/v1\nkind: Job\nmetadata: {name: x}\nspec: {template: [a]}", "Job/x: spec.template is a list, but must be a mapping"},
		{"a mapping for a list", strings.Replace(pod, "- name: app", "  name: app", 1), "Pod/x: spec.containers is a mapping, but must be a list"},
		{"a truth value for a string", strings.Replace(pod, "app", "on", 1), "Pod/x: spec.containers.name is true or false, but must be a string; put it in quotes"},
		{"no quantity", pod + "    resources: {limits: {cpu: much}}\n", `Pod/x: spec.containers.resources.limits.cpu: "much" is not a quantity; write one such as 100m or 64Mi`},
		{"a number for an annotation", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x, annotations: {a: 5}}\nspec: {template: {}}", "Deployment/x: annotation a: the value 5 is not a string; put it in quotes"},
	} {
		_, err := manifest.Read([]byte(c.text)).Pods()
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: said\n  %v\nwant\n  %s", c.name, err, c.want)
		}
	}
}

func patched(t *testing.T, text []byte, r inject.Result) []byte {
	t.Helper()
	ops, err := json.Marshal(r.Operations)
	if err != nil {
		t.Fatal(err)
	}
	patch, err := jsonpatch.DecodePatch(ops)
	if err != nil {
		t.Fatal(err)
	}
	out, err := patch.Apply(text)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// same compares two texts by their meaning; a container without resources may say so or
// not.
func same(t *testing.T, a, b []byte) bool {
	t.Helper()
	var of [2]any
	for i, text := range [][]byte{a, b} {
		if err := yaml.Unmarshal(text, &of[i]); err != nil {
			t.Fatalf("%v:\n%s", err, text)
		}
		withoutEmpty(of[i])
	}
	return reflect.DeepEqual(of[0], of[1])
}

func withoutEmpty(v any) {
	switch v := v.(type) {
	case map[string]any:
		if r, ok := v["resources"].(map[string]any); ok && len(r) == 0 {
			delete(v, "resources")
		}
		for _, c := range v {
			withoutEmpty(c)
		}
	case []any:
		for _, c := range v {
			withoutEmpty(c)
		}
	}
}

// FuzzRead: no text makes the reading panic, and what is read and not changed comes out
// as it was.
func FuzzRead(f *testing.F) {
	for _, text := range []string{"", "---", "%YAML 1.1\n---\na: b\n...\n", "{}{}", "a: |\n ---\n---\nb", "- &a [*a]", "kind: List\nitems: [null, 5]", "{a: b", "\xff", "apiVersion: v1\nkind: Pod\nspec:"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		stream := manifest.Read([]byte(text))
		if _, err := stream.Pods(); err != nil {
			return
		}
		out, err := stream.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		if have := string(out); strings.HasPrefix(strings.TrimSpace(text), "{") {
			if strings.Join(strings.Fields(have), "") != strings.Join(strings.Fields(text), "") {
				t.Errorf("%q became %q", text, have)
			}
		} else if have != text && have != text+"\n" {
			t.Errorf("%q became %q", text, have)
		}
	})
}
