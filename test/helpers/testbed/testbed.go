// Package testbed is what the tests on a real Kubernetes have in common: a cluster of test/dev/cluster that ends with the
// test process, images built from their Dockerfiles, the chart installed with Helm, and kubectl, which is what a user
// would type. They run as root on Debian and are skipped, with the reason, elsewhere.
package testbed

import (
	"bufio"
	"context"
	"errors"
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

// Patience is how long a wait takes at most. It is long, since a machine may be slow, and only a test that fails waits
// for it.
const Patience = 3 * time.Minute

// An Image is built and given to the cluster.
type Image struct {
	Tag, File, Context string // file and context relative to the top of the repository, or absolute
}

// Bed is a running cluster. Its methods that take a test fail it.
type Bed struct {
	Name       string // of the cluster
	Top        string // of the repository
	Dir        string // for files of this run; the node sees it too
	Log        string // the directory that the node sees as /var/log
	Kubeconfig string
	// programs; Cluster is that of test/dev/cluster
	Cluster, Kubectl, Helm string

	up     *exec.Cmd
	stdin  io.Closer
	stdout io.Reader
}

// WhyNot says why the machine can have no cluster, or nothing.
func WhyNot() string {
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

// Start starts a cluster that ends with Stop, and also when this process dies: it ends with its stdin. The test's directory
// is two levels below the top of the repository.
func Start(name string) (b *Bed, err error) {
	b = &Bed{Name: name}
	if b.Top, err = filepath.Abs("../.."); err != nil {
		return nil, err
	}
	if b.Dir, err = os.MkdirTemp("", "log-bridge-"+name+"-"); err != nil {
		return nil, err
	}
	if err := b.start(); err != nil {
		return nil, errors.Join(err, b.Stop())
	}
	return b, nil
}

func (b *Bed) start() error {
	b.Cluster = filepath.Join(b.Dir, "cluster")
	if _, err := Output(exec.Command("go", "build", "-C", filepath.Join(b.Top, "test/dev/cluster"), "-o", b.Cluster, ".")); err != nil {
		return err
	}
	var err error
	if b.Kubectl, err = b.Tool("kubectl"); err != nil {
		return err
	}
	if b.Helm, err = b.Tool("helm"); err != nil {
		return err
	}
	b.up = exec.Command(b.Cluster, "up", "--foreground", "--also", b.Dir, "--name", b.Name)
	b.up.Stderr = os.Stderr
	if b.stdin, err = b.up.StdinPipe(); err != nil {
		return err
	}
	if b.stdout, err = b.up.StdoutPipe(); err != nil {
		return err
	}
	if err := b.up.Start(); err != nil {
		b.up = nil
		return err
	}
	line, err := bufio.NewReader(b.stdout).ReadString('\n')
	if err != nil {
		return fmt.Errorf("the cluster did not start: %w", err)
	}
	b.Kubeconfig = strings.TrimSpace(line)
	log, err := Output(exec.Command(b.Cluster, "logs", "--name", b.Name))
	b.Log = strings.TrimSpace(log)
	return err
}

// Stop takes the cluster down and removes the files.
func (b *Bed) Stop() error {
	defer os.RemoveAll(b.Dir)
	if b.up == nil {
		return nil
	}
	b.stdin.Close()
	_, _ = io.Copy(io.Discard, b.stdout)
	if err := b.up.Wait(); err != nil {
		return fmt.Errorf("take the cluster down: %w", err)
	}
	return nil
}

// Tool returns the path of a program that test/dev/cluster compiles once.
func (b *Bed) Tool(name string) (string, error) {
	cmd := exec.Command(b.Cluster, "tool", name)
	cmd.Dir = b.Top
	out, err := Output(cmd)
	return strings.TrimSpace(out), err
}

// Packages installs Debian packages where they are missing.
func (b *Bed) Packages(names ...string) error {
	_, err := Output(exec.Command(b.Cluster, append([]string{"install"}, names...)...))
	return err
}

// Build builds an image and returns the path of its archive.
func (b *Bed) Build(image Image) (string, error) {
	archive := b.Archive(image.Tag)
	at := func(path string) string {
		if filepath.IsAbs(path) {
			return path
		}
		return filepath.Join(b.Top, path)
	}
	cmd := exec.Command(b.Cluster, "build", "--file", at(image.File), "--tag", image.Tag, "--output", archive, at(image.Context))
	cmd.Dir, cmd.Stderr = b.Top, os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build %s: %w", image.Tag, err)
	}
	return archive, nil
}

// Archive is the path of the archive of an image that was built.
func (b *Bed) Archive(tag string) string {
	return filepath.Join(b.Dir, strings.NewReplacer("/", "-", ":", "-").Replace(tag)+".tar")
}

// Load builds images and gives them to the cluster.
func (b *Bed) Load(images ...Image) error {
	archives, errs := make([]string, len(images)), make([]error, len(images))
	var building sync.WaitGroup
	for i, image := range images {
		building.Go(func() { archives[i], errs[i] = b.Build(image) })
	}
	building.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	_, err := Output(exec.Command(b.Cluster, append([]string{"load", "--name", b.Name}, archives...)...))
	return err
}

// Install installs the chart, with images of the tag test.
func (b *Bed) Install() error {
	_, err := Output(exec.Command(b.Helm, "upgrade", "--install", "log-bridge", filepath.Join(b.Top, "charts/log-bridge"),
		"--namespace", "log-bridge", "--create-namespace", "--kubeconfig", b.Kubeconfig,
		"--set", "image.tag=test", "--set", "webhook.image.tag=test", "--wait", "--timeout", "3m"))
	if err != nil {
		pods, _ := b.Try("-n", "log-bridge", "describe", "pods")
		logs, _ := b.Try("-n", "log-bridge", "logs", "-l", "app.kubernetes.io/name=log-bridge", "--tail=50")
		return fmt.Errorf("install the chart: %w\n%s\n%s", err, pods, logs)
	}
	return nil
}

// Inside returns a command that runs inside the node.
func (b *Bed) Inside(args ...string) *exec.Cmd {
	return exec.Command(b.Cluster, append([]string{"exec", "--name", b.Name, "--"}, args...)...)
}

// Run runs a command inside the node and returns its stdout.
func (b *Bed) Run(t testing.TB, args ...string) string {
	t.Helper()
	out, err := Output(b.Inside(args...))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// K runs kubectl.
func (b *Bed) K(t testing.TB, args ...string) string {
	t.Helper()
	out, err := b.Try(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Try runs kubectl, which may fail.
func (b *Bed) Try(args ...string) (string, error) {
	return Output(exec.Command(b.Kubectl, append([]string{"--kubeconfig", b.Kubeconfig}, args...)...))
}

// Apply applies a manifest and returns what kubectl printed, warnings too.
func (b *Bed) Apply(t testing.TB, namespace, manifest string, more ...string) string {
	t.Helper()
	cmd := exec.Command(b.Kubectl, append([]string{"--kubeconfig", b.Kubeconfig, "-n", namespace, "apply", "-f", "-"}, more...)...)
	cmd.Stdin = strings.NewReader(manifest)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl apply: %v\n%s", err, out)
	}
	return string(out)
}

// Namespace makes a namespace for a test and deletes it afterwards. Where the test has failed, it first logs what is in
// there.
func (b *Bed) Namespace(t testing.TB, labels ...string) string {
	t.Helper()
	name := strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))
	name = strings.Trim(name[:min(len(name), 60)], "-")
	b.K(t, "create", "namespace", name)
	t.Cleanup(func() {
		if t.Failed() {
			for _, args := range [][]string{
				{"get", "pods", "-o", "wide"}, {"get", "events", "--sort-by=.lastTimestamp"}, {"describe", "pods"},
			} {
				out, _ := b.Try(append([]string{"-n", name}, args...)...)
				t.Logf("kubectl %s:\n%s", strings.Join(args, " "), out)
			}
		}
		if _, err := b.Try("delete", "namespace", name, "--wait=false"); err != nil {
			t.Error(err)
		}
		if _, err := b.Try("-n", name, "delete", "pods", "--all", "--grace-period=0", "--force"); err != nil {
			t.Error(err)
		}
	})
	for _, l := range labels {
		b.K(t, "label", "namespace", name, l)
	}
	// Pods are refused until their service account exists.
	Eventually(t, "the service account default", func() (bool, string) {
		_, err := b.Try("-n", name, "get", "serviceaccount", "default")
		return err == nil, fmt.Sprint(err)
	})
	return name
}

// Lines runs kubectl logs until its lines satisfy ok.
func (b *Bed) Lines(t testing.TB, what string, ok func([]string) bool, args ...string) []string {
	t.Helper()
	var got []string
	Eventually(t, what, func() (bool, string) {
		out, err := b.Try(append([]string{"logs"}, args...)...)
		if err != nil {
			return false, err.Error()
		}
		got = SplitLines(out)
		return ok(got), out
	})
	return got
}

// Follow starts kubectl logs -f and returns its lines; it ends with the test.
func (b *Bed) Follow(t testing.TB, args ...string) <-chan string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	cmd := exec.CommandContext(ctx, b.Kubectl, append([]string{"--kubeconfig", b.Kubeconfig, "logs", "-f"}, args...)...)
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

// Output runs a command and returns its stdout; the error has its stderr.
func Output(cmd *exec.Cmd) (string, error) {
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w\n%s%s", strings.Join(cmd.Args, " "), err, out, stderr.String())
	}
	return string(out), nil
}

// Eventually polls until ok, ever less often, and fails with the last state.
func Eventually(t testing.TB, what string, ok func() (bool, string)) {
	t.Helper()
	end := time.Now().Add(Patience)
	for pause := 100 * time.Millisecond; ; pause = min(pause*5/4, time.Second) {
		good, state := ok()
		if good {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("waited %v for %s; have:\n%.3000s", Patience, what, state)
		}
		time.Sleep(pause)
	}
}

// SplitLines returns the lines of a text that ends with a newline.
func SplitLines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// EqualLines fails unless have is exactly want.
func EqualLines(t testing.TB, have, want []string) {
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
			t.Fatalf("line %d of %d (want %d): have %.200q, want %.200q", i+1, len(have), len(want), h, w)
		}
	}
}

// Numbered are the lines "prefix first" to "prefix last".
func Numbered(prefix string, first, last int) []string {
	var all []string
	for i := first; i <= last; i++ {
		all = append(all, fmt.Sprintf("%s %d", prefix, i))
	}
	return all
}
