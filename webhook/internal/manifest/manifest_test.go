package manifest_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/diff"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	"sigs.k8s.io/yaml"

	"github.com/log-bridge/log-bridge/test/podgen"
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
			r := inject.Pod(pods[0].Pod, inject.Config{Image: "s"})
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
