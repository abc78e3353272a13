package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/log-bridge/log-bridge/test/helpers/podgen"
)

// Whatever the API server accepts without our annotations, it accepts with them: either
// injected, with no lower QoS class, or refused by our webhook with a numbered message.
func TestRandomPodsAreAccepted(t *testing.T) {
	ns := namespace(t)
	const pods = 200
	plain, annotated := podList(t, pods, true), podList(t, pods, false)
	valid, _ := judge(t, ns, plain)
	accepted, said := judge(t, ns, annotated)
	injected, guaranteed := 0, 0
	rank := map[string]int{"BestEffort": 0, "Burstable": 1, "Guaranteed": 2}
	for name, pod := range accepted {
		if !strings.Contains(pod, `"log-bridge.dev/status"`) {
			continue
		}
		injected++
		if was, is := qosClass(t, valid[name]), qosClass(t, pod); rank[is] < rank[was] {
			t.Errorf("%s: its QoS class was %s and is %s", name, was, is)
		} else if was == "Guaranteed" {
			guaranteed++
		}
	}
	for _, line := range said {
		switch {
		case strings.Contains(line, `admission webhook "inject.log-bridge.dev" denied the request`):
			if !strings.Contains(line, "[LB") {
				t.Errorf("refused without a numbered sentence: %s", line)
			}
		case slices.ContainsFunc(slices.Collect(maps.Keys(valid)), func(name string) bool { return strings.Contains(line, `"`+name+`"`) }):
			t.Errorf("accepted without our annotations, and with them the API server says: %s", line)
		}
	}
	if refused := strings.Count(strings.Join(said, "\n"), "denied the request"); len(accepted)+refused < len(valid) {
		t.Errorf("of %d valid pods %d were accepted and %d refused; the API server said:\n%s", len(valid), len(accepted), refused, strings.Join(said, "\n"))
	}
	t.Logf("%d of %d pods are valid, %d of them were injected", len(valid), pods, injected)
	if injected < pods/4 || guaranteed < 10 {
		t.Errorf("%d of %d pods were injected, %d of them are Guaranteed; the generator no longer tests it", injected, pods, guaranteed)
	}
}

// qosClass is what the API server found of a pod; nothing of one that it did not make.
func qosClass(t *testing.T, pod string) string {
	t.Helper()
	if pod == "" {
		return ""
	}
	var p corev1.Pod
	if err := json.Unmarshal([]byte(pod), &p); err != nil {
		t.Fatal(err)
	}
	return string(p.Status.QOSClass)
}

// podList is a list of random pods, with or without our annotations.
func podList(t *testing.T, n int, plain bool) string {
	t.Helper()
	var items []any
	for seed := range n {
		var pod map[string]any
		if err := json.Unmarshal(podgen.Plain(uint64(seed)), &pod); err != nil {
			t.Fatal(err)
		}
		metadata := pod["metadata"].(map[string]any)
		metadata["name"] = fmt.Sprintf("pod-%d", seed)
		if plain {
			delete(metadata, "annotations")
		}
		items = append(items, pod)
	}
	text, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "List", "items": items})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// judge lets the API server judge a list of pods. It returns the pods that it would
// have made, by name, as JSON, and a line for each of the others.
func judge(t *testing.T, ns, list string) (made map[string]string, said []string) {
	t.Helper()
	cmd := command(bed.kubectl, "--kubeconfig", bed.kubeconfig, "-n", ns, "create", "--dry-run=server", "-o", "json", "-f", "-")
	cmd.Stdin = strings.NewReader(list)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	var stdout strings.Builder
	cmd.Stdout = &stdout
	_ = cmd.Run() // it fails where one pod is refused
	out := stdout.String()
	made = map[string]string{}
	for d := json.NewDecoder(strings.NewReader(out)); ; {
		var text json.RawMessage
		err := d.Decode(&text)
		if errors.Is(err, io.EOF) {
			break
		}
		var pod struct {
			Metadata struct{ Name string }
		}
		if err == nil {
			err = json.Unmarshal(text, &pod)
		}
		if err != nil {
			t.Fatalf("kubectl create: %v\n%s%s", err, out, stderr.String())
		}
		made[pod.Metadata.Name] = string(text)
	}
	for line := range strings.SplitSeq(stderr.String(), "\n") {
		// The others are details of the line above them, and warnings.
		if strings.HasPrefix(line, "Error from server") || strings.HasPrefix(line, "The Pod ") {
			said = append(said, line)
		}
	}
	return made, said
}
