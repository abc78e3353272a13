package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/log-bridge/log-bridge/sidecar/contract"
)

// TestBench measures what only a real cluster can show, and writes it as Markdown into the file
// that the environment variable BENCH names. `make bench` runs it.
func TestBench(t *testing.T) {
	page := os.Getenv("BENCH")
	if page == "" {
		t.Skip("BENCH names no file; make bench sets it")
	}
	ns := namespace(t)
	text := benchStart(t, ns) + benchAdmission(t, ns)
	t.Log("\n" + text)
	if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// benchStart compares how long a pod takes from its sandbox to its application, with and without the
// sidecar, in turn.
func benchStart(t *testing.T, ns string) string {
	took := map[bool][]time.Duration{}
	for round := range 7 {
		for _, bridged := range []bool{false, true} {
			name := fmt.Sprintf("start-%d-%v", round, bridged)
			annotations := "{}"
			if bridged {
				annotations = "{log-bridge.dev/files: /srv/app.log}"
			}
			apply(t, ns, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, annotations: %s}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    command: [sh, -c, 'echo started; exec sleep 3600']
`, name, annotations))
			line := lines(t, "the first line", atLeast(1), "-n", ns, name, "-c", "app", "--timestamps")[0]
			stamp, _, _ := strings.Cut(line, " ")
			started, err := time.Parse(time.RFC3339Nano, stamp)
			if err != nil {
				t.Fatal(err)
			}
			if round > 0 { // the first pulls in what is not in the page cache yet
				took[bridged] = append(took[bridged], started.Sub(sandboxMade(t, ns, name)))
			}
			kubectl(t, "-n", ns, "delete", "pod", name)
		}
	}
	var added []time.Duration
	for i := range took[true] {
		added = append(added, took[true][i]-took[false][i])
	}
	show := func(of []time.Duration) string {
		s := slices.Sorted(slices.Values(of))
		return fmt.Sprintf("%.2f (%.2f–%.2f)", s[len(s)/2].Seconds(), s[0].Seconds(), s[len(s)-1].Seconds())
	}
	return "### From sandbox to application\n\nOn a real kubelet, pods in turn without and with the sidecar, by the runtime's time stamps. Median and range, in seconds.\n\n" +
		"| | s |\n|---|---|\n| without | " + show(took[false]) + " |\n| with the sidecar | " + show(took[true]) + " |\n| added, pair by pair | " + show(added) + " |\n\nGoal: at most 0.5 added.\n\n"
}

// sandboxMade is when containerd made a pod's sandbox.
func sandboxMade(t *testing.T, ns, pod string) time.Time {
	t.Helper()
	ctr := func(args ...string) string {
		out, err := output(command(bed.cluster, append([]string{"exec", "--name", clusterName(), "--", "ctr", "-n", "k8s.io", "containers"}, args...)...))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out)
	}
	id := ctr("list", "-q", fmt.Sprintf(`labels."io.kubernetes.pod.name"==%s,labels."io.kubernetes.pod.namespace"==%s,labels."io.cri-containerd.kind"==sandbox`, pod, ns))
	var info struct{ CreatedAt time.Time }
	if err := json.Unmarshal([]byte(ctr("info", id)), &info); err != nil {
		t.Fatal(err)
	}
	return info.CreatedAt
}

// benchAdmission creates 100 annotated pods a second as server-side dry runs, and then some without
// the annotation.
func benchAdmission(t *testing.T, ns string) string {
	api := directly(t)
	create := func(ctx context.Context, annotations map[string]string) error {
		return api.Create(ctx, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, GenerateName: "load-", Annotations: annotations},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "x"}}},
		}, client.DryRunAll)
	}
	const seconds, rate = 20, 100
	var wg sync.WaitGroup
	var mu sync.Mutex
	var trouble error
	begun := time.Now()
	for n := range seconds * rate {
		time.Sleep(time.Until(begun.Add(time.Duration(n) * time.Second / rate)))
		wg.Go(func() {
			if err := create(t.Context(), map[string]string{contract.Prefix + contract.KeyFiles: "/app/app.log"}); err != nil {
				mu.Lock()
				trouble = err
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	took := time.Since(begun)
	if trouble != nil {
		t.Fatal(trouble)
	}
	durations, rss := webhookFigures(t, ns)
	if len(durations) < seconds*rate {
		t.Fatalf("the webhook has logged %d decisions, want %d", len(durations), seconds*rate)
	}
	slices.Sort(durations)
	at := func(share float64) float64 { return durations[int(share*float64(len(durations)))].Seconds() * 1000 }

	calls := webhookCalls(t)
	const plain = 200
	for range plain {
		if err := create(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
	none := webhookCalls(t) - calls
	return fmt.Sprintf("### Admission through a real API server\n\n%d annotated pods in %.0f s, as server-side dry runs over TLS, two replicas. The times are those that the webhook logs for its decisions.\n\n"+
		"| | |\n|---|---|\n| a decision, median | %.2f ms |\n| 99th percentile | %.2f ms |\n| memory of a webhook pod (RSS), the larger of the two | %.1f MiB |\n| calls of the webhook for %d pods without the annotation, by the API server's count | %d |\n\n"+
		"Goal: under 5 ms, under 40 MiB, no call.\n\n",
		seconds*rate, took.Seconds(), at(0.5), at(0.99), rss/(1<<20), plain, none)
}

// webhookFigures are how long the webhook's decisions about pods of a namespace took, and the memory of
// its pods in bytes, the larger of them.
func webhookFigures(t *testing.T, ns string) (durations []time.Duration, rss float64) {
	t.Helper()
	for _, pod := range strings.Fields(kubectl(t, "-n", "log-bridge", "get", "pods", "-l", "app.kubernetes.io/component=webhook", "-o", "jsonpath={.items[*].metadata.name}")) {
		for line := range strings.Lines(kubectl(t, "-n", "log-bridge", "logs", pod)) {
			var decision struct{ Msg, Namespace, Duration string }
			if json.Unmarshal([]byte(line), &decision) != nil || decision.Namespace != ns || decision.Duration == "" {
				continue
			}
			if d, err := time.ParseDuration(decision.Duration); err == nil {
				durations = append(durations, d)
			}
		}
		text := kubectl(t, "get", "--raw", "/api/v1/namespaces/log-bridge/pods/"+pod+":8080/proxy/metrics")
		if m := regexp.MustCompile(`(?m)^process_resident_memory_bytes (\S+)$`).FindStringSubmatch(text); m != nil {
			n, _ := strconv.ParseFloat(m[1], 64)
			rss = max(rss, n)
		}
	}
	return durations, rss
}
