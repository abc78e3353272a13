package inject_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/rogpeppe/go-internal/txtar"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/log-bridge/log-bridge/webhook/internal/inject"
)

var update = flag.Bool("update", false, "write the results into testdata")

func config() inject.Config {
	return inject.Config{Version: "1.2.3", Image: "ghcr.io/log-bridge/log-bridge:1.2.3", Resources: inject.DefaultResources()}
}

// TestGolden runs one example per file: the pod that comes in, and the pod that leaves
// (out.yaml) or the messages (said). Each pod that leaves goes through a second
// time, which must change nothing.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples in testdata: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			have := map[string]string{}
			for _, f := range ar.Files {
				have[f.Name] = string(f.Data)
			}
			in, ok := have["in.yaml"]
			if !ok {
				t.Fatal("there is no in.yaml")
			}
			seen := map[string]string{}
			out, said := admit(t, toJSON(t, in))
			if out != nil {
				seen["out.yaml"] = toYAML(t, out)
				again, said := admit(t, out)
				if again != nil {
					t.Errorf("a second time it is changed again (%s):\n%s", said, diff.Diff("once", []byte(toYAML(t, out)), "twice", []byte(toYAML(t, again))))
				}
			}
			if said != "" {
				seen["said"] = said
			}
			if *update {
				ar.Files = []txtar.File{{Name: "in.yaml", Data: []byte(in)}}
				for _, name := range []string{"said", "out.yaml"} {
					if seen[name] != "" {
						ar.Files = append(ar.Files, txtar.File{Name: name, Data: []byte(seen[name])})
					}
				}
				if err := os.WriteFile(file, txtar.Format(ar), 0o666); err != nil {
					t.Fatal(err)
				}
				return
			}
			for _, name := range []string{"said", "out.yaml"} {
				if want := have[name]; want != seen[name] {
					t.Errorf("%s differs:\n%s", name, diff.Diff("want", []byte(want), "have", []byte(seen[name])))
				}
				delete(have, name)
			}
			delete(have, "in.yaml")
			for name := range have {
				t.Errorf("nothing uses %s", name)
			}
		})
	}
}

// admit gives the pod after the patch, nil if there was none, and what was said.
func admit(t *testing.T, pod []byte) (out []byte, said string) {
	t.Helper()
	var typed corev1.Pod
	if err := json.Unmarshal(pod, &typed); err != nil {
		t.Fatal(err)
	}
	r := inject.Pod(t.Context(), &typed, config())
	var lines strings.Builder
	if r.LeftAlone != "" {
		lines.WriteString("left alone: " + string(r.LeftAlone) + "\n")
	}
	for _, f := range r.Findings {
		lines.WriteString(string(f.Severity()) + ": " + f.String() + "\n")
	}
	if len(r.Operations) == 0 {
		return nil, lines.String()
	}
	return apply(t, pod, r), lines.String()
}

// apply does what the API server does with a patch.
func apply(t testing.TB, pod []byte, r inject.Result) []byte {
	t.Helper()
	text, err := json.Marshal(r.Operations)
	if err != nil {
		t.Fatal(err)
	}
	patch, err := jsonpatch.DecodePatch(text)
	if err != nil {
		t.Fatal(err)
	}
	out, err := patch.Apply(pod)
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return out
}

func toJSON(t *testing.T, text string) []byte {
	t.Helper()
	b, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func toYAML(t *testing.T, b []byte) string {
	t.Helper()
	y, err := yaml.JSONToYAML(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(y)
}
