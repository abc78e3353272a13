// Package e2e holds the tests on a real Kubernetes: test/dev/cluster starts it, both
// images are built from their Dockerfiles, the chart is installed with Helm, and
// kubectl is what a user would type. They run as root on Debian and are skipped, with
// the reason, elsewhere.
package e2e

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"sync"
	"testing"

	"github.com/log-bridge/log-bridge/test/helpers/testbed"
)

const patience = testbed.Patience

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
	all  *testbed.Bed
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
	if bed.skip = testbed.WhyNot(); bed.skip != "" {
		return m.Run(), nil
	}
	all, err := testbed.Start(clusterName())
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, all.Stop()) }()
	bed.all, bed.top, bed.dir = all, all.Top, all.Dir
	bed.cluster, bed.kubectl, bed.helm, bed.kubeconfig = all.Cluster, all.Kubectl, all.Helm, all.Kubeconfig

	var wanted []testbed.Image
	for _, image := range images {
		wanted = append(wanted, testbed.Image{Tag: image.tag, File: image.file, Context: image.context})
	}
	if err := all.Load(wanted...); err != nil {
		return 0, err
	}
	if err := plainPod(); err != nil {
		return 0, err
	}
	if err := install(); err != nil {
		return 0, err
	}
	// Tests that stay in namespaces of their own are parallel. They mostly wait for the kubelet.
	if err := flag.Set("test.parallel", "4"); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// install installs the chart twice, as an upgrade does.
func install() error {
	if err := bed.all.Install(); err != nil {
		return err
	}
	return bed.all.Install()
}

// clusterName is the name of the tests' cluster. Another one lets two runs live side by side.
func clusterName() string {
	return cmp.Or(os.Getenv("E2E_CLUSTER"), "e2e")
}

// compiled are the programs that compile has compiled.
var compiled struct {
	mu   sync.Mutex
	done map[string]bool
}

// compile compiles a main package of the repository, once in a run, and returns its program. It runs in the node too.
func compile(t *testing.T, pkg string) (program string) {
	t.Helper()
	compiled.mu.Lock()
	defer compiled.mu.Unlock()
	program = filepath.Join(bed.dir, "programs", path.Base(pkg))
	if compiled.done[pkg] {
		return program
	}
	cmd := command("go", "build", "-C", bed.top, "-o", program, "./"+pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if _, err := output(cmd); err != nil {
		t.Fatal(err)
	}
	if compiled.done == nil {
		compiled.done = map[string]bool{}
	}
	compiled.done[pkg] = true
	return program
}

// killSidecar ends a container's process with SIGKILL, from the node.
func killSidecar(t *testing.T, id string) {
	t.Helper()
	if out, err := output(command(bed.cluster, "exec", "--name", clusterName(), "--", "ctr", "-n", "k8s.io", "tasks", "kill", "-s", "SIGKILL", id)); err != nil {
		t.Fatal(err, out)
	}
}

func command(name string, args ...string) *exec.Cmd { return exec.Command(name, args...) }

func output(cmd *exec.Cmd) (string, error) { return testbed.Output(cmd) }

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
	return bed.all.K(t, args...)
}

func tryKubectl(args ...string) (string, error) { return bed.all.Try(args...) }

// apply applies a manifest and returns what kubectl printed, warnings too.
func apply(t *testing.T, namespace, manifest string) string {
	t.Helper()
	return bed.all.Apply(t, namespace, manifest)
}

// namespace makes a namespace for a test and deletes it afterwards.
func namespace(t *testing.T, labels ...string) string {
	t.Helper()
	needCluster(t)
	return bed.all.Namespace(t, labels...)
}

func eventually(t *testing.T, what string, ok func() (bool, string)) {
	t.Helper()
	testbed.Eventually(t, what, ok)
}

// lines runs kubectl logs until its lines satisfy ok.
func lines(t *testing.T, what string, ok func([]string) bool, args ...string) []string {
	t.Helper()
	return bed.all.Lines(t, what, ok, args...)
}

func equalLines(t *testing.T, have, want []string) {
	t.Helper()
	testbed.EqualLines(t, have, want)
}

// numbered are the lines "prefix 1" to "prefix n".
func numbered(prefix string, n int) []string { return testbed.Numbered(prefix, 1, n) }

// follow starts kubectl logs -f and returns its lines; it ends with the test.
func follow(t *testing.T, args ...string) <-chan string {
	t.Helper()
	return bed.all.Follow(t, args...)
}
