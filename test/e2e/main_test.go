// Package e2e holds the tests on a real Kubernetes: test/cluster starts it, both
// images are built from their Dockerfiles, the chart is installed with Helm, and
// kubectl is what a user would type. They run as root on Debian and are skipped, with
// the reason, elsewhere.
package e2e

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// A wait ends at the latest after this. It is long, since a machine may be slow, and only
// a test that fails waits for it.
const patience = 3 * time.Minute

// images are what the tests build and load: tag, Dockerfile, context, relative to the
// top of the repository.
var images = []struct{ tag, file, context string }{
	{"ghcr.io/log-bridge/log-bridge:test", "Dockerfile.sidecar", "."},
	{"ghcr.io/log-bridge/log-bridge-webhook:test", "Dockerfile.webhook", "."},
	{"ghcr.io/log-bridge/python-app-log:1.0", "examples/python-app-log/Dockerfile", "examples/python-app-log"},
	{"ghcr.io/log-bridge/examples:1.0", "examples/image/Dockerfile", "examples/image"},
	{"docker.io/library/busybox:1.36", "test/e2e/testdata/busybox/Dockerfile", "test/e2e/testdata/busybox"},
	{"log-bridge.test/rotator:1", "test/e2e/testdata/rotator/Dockerfile", "test/e2e/testdata/rotator"},
	{"log-bridge.test/shellless:1", "test/e2e/testdata/shellless/Dockerfile", "test/e2e/testdata/shellless"},
}

// bed is what all tests share.
var bed struct {
	skip string // why there is no cluster
	top  string // of the repository
	dir  string // for files of this run
	// programs
	cluster, kubectl, helm string
	kubeconfig             string
	plain                  string // a pod created before the chart was installed, as JSON
}

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	flag.Parse() // for testing.Short
	if bed.skip = whyNot(); bed.skip != "" {
		return m.Run(), nil
	}
	if bed.top, err = filepath.Abs("../.."); err != nil {
		return 0, err
	}
	if bed.dir, err = os.MkdirTemp("", "log-bridge-e2e-"); err != nil {
		return 0, err
	}
	defer os.RemoveAll(bed.dir)

	bed.cluster = filepath.Join(bed.dir, "cluster")
	if _, err := output(command("go", "build", "-C", filepath.Join(bed.top, "test/cluster"), "-o", bed.cluster, ".")); err != nil {
		return 0, err
	}
	for name, path := range map[string]*string{"kubectl": &bed.kubectl, "helm": &bed.helm} {
		out, err := output(command(bed.cluster, "tool", name))
		if err != nil {
			return 0, err
		}
		*path = strings.TrimSpace(out)
	}
	stop, err := startCluster()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if err := loadImages(); err != nil {
		return 0, err
	}
	if err := plainPod(); err != nil {
		return 0, err
	}
	if err := install(); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// whyNot says why the machine can have no cluster.
func whyNot() string {
	if os.Geteuid() != 0 {
		return "the tests on a real cluster run as root only"
	}
	if _, err := os.Stat("/etc/debian_version"); err != nil {
		return "the tests on a real cluster run on Debian only"
	}
	if testing.Short() {
		return "the tests on a real cluster are not short"
	}
	return ""
}

// clusterName is the name of the tests' cluster. Another one lets two runs live side by side.
func clusterName() string {
	return cmp.Or(os.Getenv("E2E_CLUSTER"), "e2e")
}

// killSidecar ends a container's process with SIGKILL, from the node.
func killSidecar(t *testing.T, id string) {
	t.Helper()
	if out, err := output(command(bed.cluster, "exec", "--name", clusterName(), "--", "ctr", "-n", "k8s.io", "tasks", "kill", "-s", "SIGKILL", id)); err != nil {
		t.Fatal(err, out)
	}
}

// startCluster starts a cluster that ends when the returned function is called, and also
// when this process dies: it ends with its stdin.
func startCluster() (stop func() error, err error) {
	cmd := command(bed.cluster, "up", "--foreground", "--name", clusterName())
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	bed.kubeconfig = strings.TrimSpace(line)
	stop = func() error {
		stdin.Close()
		_, _ = io.Copy(io.Discard, stdout)
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("take the cluster down: %w", err)
		}
		return nil
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the cluster did not start: %w", err), stop())
	}
	return stop, nil
}

// loadImages builds the images and gives them to the cluster.
func loadImages() error {
	var tars []string
	for i, image := range images {
		tar := filepath.Join(bed.dir, fmt.Sprintf("image-%d.tar", i))
		cmd := command(bed.cluster, "build", "--file", filepath.Join(bed.top, image.file), "--tag", image.tag, "--output", tar, filepath.Join(bed.top, image.context))
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("build %s: %w", image.tag, err)
		}
		tars = append(tars, tar)
	}
	_, err := output(command(bed.cluster, append([]string{"load", "--name", clusterName()}, tars...)...))
	return err
}

// install installs the chart twice, as an upgrade does.
func install() error {
	for range 2 {
		_, err := output(command(bed.helm, "upgrade", "--install", "log-bridge", filepath.Join(bed.top, "charts/log-bridge"),
			"--namespace", "log-bridge", "--create-namespace", "--kubeconfig", bed.kubeconfig,
			"--set", "image.tag=test", "--set", "webhook.image.tag=test", "--wait", "--timeout", "3m"))
		if err != nil {
			pods, _ := output(command(bed.kubectl, "--kubeconfig", bed.kubeconfig, "-n", "log-bridge", "describe", "pods"))
			logs, _ := output(command(bed.kubectl, "--kubeconfig", bed.kubeconfig, "-n", "log-bridge", "logs", "-l", "app.kubernetes.io/name=log-bridge", "--tail=50"))
			return fmt.Errorf("install the chart: %w\n%s\n%s", err, pods, logs)
		}
	}
	return nil
}

func command(name string, args ...string) *exec.Cmd { return exec.Command(name, args...) }

// output runs a command and returns its stdout; the error has its stderr.
func output(cmd *exec.Cmd) (string, error) {
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w\n%s%s", strings.Join(cmd.Args, " "), err, out, stderr.String())
	}
	return string(out), nil
}

// needCluster skips a test where there is no cluster.
func needCluster(t *testing.T) {
	t.Helper()
	if bed.skip != "" {
		t.Skip(bed.skip)
	}
}

// kubectl runs kubectl and fails the test if it fails.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := tryKubectl(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func tryKubectl(args ...string) (string, error) {
	return output(command(bed.kubectl, append([]string{"--kubeconfig", bed.kubeconfig}, args...)...))
}

// apply applies a manifest and returns what kubectl printed, warnings too.
func apply(t *testing.T, namespace, manifest string) string {
	t.Helper()
	cmd := command(bed.kubectl, "--kubeconfig", bed.kubeconfig, "-n", namespace, "apply", "-f", "-")
	cmd.Stdin = strings.NewReader(manifest)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl apply: %v\n%s", err, out)
	}
	return string(out)
}

// namespace makes a namespace for a test and deletes it afterwards. Where the test
// has failed, it first logs what is in there.
func namespace(t *testing.T, labels ...string) string {
	t.Helper()
	needCluster(t)
	name := strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))
	name = strings.Trim(name[:min(len(name), 60)], "-")
	kubectl(t, "create", "namespace", name)
	t.Cleanup(func() {
		if t.Failed() {
			for _, args := range [][]string{
				{"get", "pods", "-o", "wide"}, {"get", "events", "--sort-by=.lastTimestamp"}, {"describe", "pods"},
			} {
				out, _ := tryKubectl(append([]string{"-n", name}, args...)...)
				t.Logf("kubectl %s:\n%s", strings.Join(args, " "), out)
			}
		}
		if _, err := tryKubectl("delete", "namespace", name, "--wait=false"); err != nil {
			t.Error(err)
		}
		if _, err := tryKubectl("-n", name, "delete", "pods", "--all", "--grace-period=0", "--force"); err != nil {
			t.Error(err)
		}
	})
	for _, l := range labels {
		kubectl(t, "label", "namespace", name, l)
	}
	// Pods are refused until their service account exists.
	eventually(t, "the service account default", func() (bool, string) {
		_, err := tryKubectl("-n", name, "get", "serviceaccount", "default")
		return err == nil, fmt.Sprint(err)
	})
	return name
}

// eventually polls until ok, and fails with the last state.
func eventually(t *testing.T, what string, ok func() (bool, string)) {
	t.Helper()
	end := time.Now().Add(patience)
	for {
		good, state := ok()
		if good {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("waited %v for %s; have:\n%s", patience, what, state)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// lines runs kubectl logs until its lines satisfy ok.
func lines(t *testing.T, what string, ok func([]string) bool, args ...string) []string {
	t.Helper()
	var got []string
	eventually(t, what, func() (bool, string) {
		out, err := tryKubectl(append([]string{"logs"}, args...)...)
		if err != nil {
			return false, err.Error()
		}
		got = strings.Split(strings.TrimSuffix(out, "\n"), "\n")
		if out == "" {
			got = nil
		}
		return ok(got), out
	})
	return got
}

// equalLines fails unless have is exactly want.
func equalLines(t *testing.T, have, want []string) {
	t.Helper()
	for i := range max(len(have), len(want)) {
		h, w := "(nothing)", "(nothing)"
		if i < len(have) {
			h = have[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if h != w {
			t.Fatalf("line %d of %d (want %d): have %q, want %q", i+1, len(have), len(want), h, w)
		}
	}
}

// numbered are the lines "prefix 1" to "prefix n".
func numbered(prefix string, n int) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("%s %d", prefix, i+1))
	}
	return all
}

// follow starts kubectl logs -f and returns its lines; it ends with the test.
func follow(t *testing.T, args ...string) <-chan string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	cmd := exec.CommandContext(ctx, bed.kubectl, append([]string{"--kubeconfig", bed.kubeconfig, "logs", "-f"}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	found := make(chan string)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(found)
		for s := bufio.NewScanner(out); s.Scan(); {
			select {
			case found <- s.Text():
			case <-ctx.Done():
				return
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		_ = cmd.Wait()
	})
	return found
}
