package e2e

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/log-bridge/log-bridge/sidecar/contract"
)

// While the webhook is rolled out, 50 annotated pods are created each second (as server-side
// dry runs): none of them comes out without the sidecar, and the API server counts no call
// that it gave up.
func TestRolloutUnderLoad(t *testing.T) {
	ns := namespace(t)
	api := directly(t)
	injected(t, ns, "before")
	before := failOpen(t)

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var mu sync.Mutex
	var bare, total int
	var trouble []string
	create := func() {
		without, err := annotatedDryRun(ctx, api, ns)
		mu.Lock()
		defer mu.Unlock()
		if ctx.Err() != nil {
			return
		}
		total++
		if err != nil {
			trouble = append(trouble, err.Error())
		} else if without {
			bare++
		}
	}
	var load sync.WaitGroup
	load.Go(func() {
		tick := time.NewTicker(time.Second / 50)
		defer tick.Stop()
		begun := time.Now()
		for made := 0; ; {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			// A busy machine drops ticks; what was due is made up for.
			for ; made < int(time.Since(begun).Seconds()*50); made++ {
				load.Go(create)
			}
		}
	})
	start := time.Now()
	kubectl(t, "-n", "log-bridge", "rollout", "restart", "deployment/log-bridge")
	kubectl(t, "-n", "log-bridge", "rollout", "status", "deployment/log-bridge", "--timeout=120s")
	// The old pods are still ending: the load continues until they are gone.
	eventually(t, "two pods", func() (bool, string) {
		out := kubectl(t, "-n", "log-bridge", "get", "pods", "-l", "app.kubernetes.io/component=webhook", "-o", "name")
		return len(regexp.MustCompile(`pod/`).FindAllString(out, -1)) == 2, out
	})
	took := time.Since(start)
	cancel()
	load.Wait()

	t.Logf("%d pods in %.1f s", total, took.Seconds())
	if bare > 0 || len(trouble) > 0 {
		t.Errorf("of %d pods, %d came without the sidecar and %d were refused: %v", total, bare, len(trouble), trouble[:min(len(trouble), 3)])
	}
	if n := failOpen(t) - before; n != 0 {
		t.Errorf("the API server gave up %d calls of the webhook", n)
	}
	if total < 200 {
		t.Errorf("only %d pods were created, too few to show anything", total)
	}
}

// directly is a client of the API server for many requests, with no limit of its own.
func directly(t *testing.T) client.Client {
	t.Helper()
	ctrllog.SetLogger(logr.Discard())
	config, err := clientcmd.BuildConfigFromFlags("", bed.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	api, err := client.New(config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return api
}

// annotatedDryRun creates an annotated pod as a server-side dry run, and says whether it comes without the sidecar.
func annotatedDryRun(ctx context.Context, api client.Client, ns string) (bare bool, err error) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, GenerateName: "load-", Annotations: map[string]string{contract.Prefix + contract.KeyFiles: "/app/app.log"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "x"}}},
	}
	err = api.Create(ctx, pod, client.DryRunAll)
	return !slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == contract.Container }), err
}

// failOpen is how many calls of our webhooks have failed and were ignored, as the API server counts them.
func failOpen(t *testing.T) int { return apiServerCounts(t, "fail_open_count") }

// webhookCalls is how often the API server has called our webhooks and got an answer.
func webhookCalls(t *testing.T) int { return apiServerCounts(t, "request_total") }

// apiServerCounts is the sum of one of the API server's metrics of admission webhooks, for the webhook of annotated
// pods and those of rules.
func apiServerCounts(t *testing.T, metric string) int {
	t.Helper()
	metrics := kubectl(t, "get", "--raw", "/metrics")
	sum := 0
	for _, line := range regexp.MustCompile(`(?m)^apiserver_admission_webhook_`+metric+`\{.*name="[^"]*\.log-bridge\.dev".*\} (\S+)$`).FindAllStringSubmatch(metrics, -1) {
		n, err := strconv.ParseFloat(line[1], 64)
		if err != nil {
			t.Fatal(fmt.Errorf("%s: %w", line[0], err))
		}
		sum += int(n)
	}
	return sum
}
