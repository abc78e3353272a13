package admit_test

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/log-bridge/log-bridge/sidecar/contract"
)

// TestAnswersCannotBeForged: the API server passes the sentences on to terminals, in errors, warnings and events. Whatever a
// pod calls things, each is one line that shows what it holds.
func TestAnswersCannotBeForged(t *testing.T) {
	s := serve(t, decide)
	random := rand.New(rand.NewPCG(5, 5))
	pieces := []string{"a", "/", ":", " ", "\n", "\r\t", "\x1b[2J", "\u009b31m", "\u2028", "\u202e", "\u200b", "\U000e0041", "*", "\nWarning: forged"}
	name := func() string {
		var b strings.Builder
		for range 1 + random.IntN(5) {
			b.WriteString(pieces[random.IntN(len(pieces))])
		}
		return b.String()
	}
	refused, warned, shown := 0, 0, 0
	for range 500 {
		pod := map[string]any{
			"metadata": map[string]any{"name": name(), "annotations": map[string]any{
				"log-bridge.dev/files":   []string{"/var/log/" + name(), name() + ":/a", "/app/\u202e" + "gol.log"}[random.IntN(3)],
				"log-bridge.dev/seed":    "false",
				"log-bridge.dev/reclaim": []string{"true", name()}[random.IntN(2)],
			}},
			"spec": map[string]any{
				"containers": []any{
					map[string]any{"name": name(), "image": "x", "volumeMounts": []any{map[string]any{"name": "v", "mountPath": "/var/log/" + name()}}},
					map[string]any{"name": name(), "image": "x", "securityContext": map[string]any{"runAsUser": 7}},
				},
				"volumes": []any{map[string]any{"name": "v", "persistentVolumeClaim": map[string]any{"claimName": name()}}},
			},
		}
		if random.IntN(3) == 0 {
			pod["metadata"].(map[string]any)["annotations"].(map[string]any)["log-bridge.dev/"+name()] = name()
		}
		text, err := json.Marshal(pod)
		if err != nil {
			t.Fatal(err)
		}
		a := s.ask(t, string(text))
		sentences := a.Warnings
		warned += len(a.Warnings)
		if !a.Allowed {
			refused++
			sentences = append(sentences, a.Result.Message)
		}
		for _, sentence := range sentences {
			if strings.ContainsFunc(sentence, contract.Deceives) {
				t.Errorf("of %s comes %q", text, sentence)
			}
			if strings.Contains(sentence, `\x1b[2J`) || strings.Contains(sentence, `\u202e`) {
				shown++
			}
		}
	}
	if refused < 100 || warned < 10 || shown < 50 {
		t.Errorf("only %d were refused, %d warnings given, and %d showed what is hidden", refused, warned, shown)
	}
}
