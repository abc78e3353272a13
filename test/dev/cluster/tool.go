package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// A tool is a program that is compiled once from a pinned Go module, and kept in the cache under a key made of
// everything that it is compiled from.
type tool struct {
	name   string
	module string // directory in the checkout
	pkg    string
	also   []string // further names of the program
	flags  []string
	words  string // said while it is compiled
}

// The versions that the modules pin, for the programs to report.
const (
	kubernetesVersion = "v1.36.3"
	helmVersion       = "v4.3.1"
	helm3Version      = "v3.22.0"
)

var kube = tool{
	name: "kube", module: "test/dev/cluster/kube", pkg: ".",
	also:  []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet"},
	words: "Kubernetes " + kubernetesVersion + " and etcd, which takes about 13 minutes of CPU time",
	flags: []string{"-ldflags=-s -w" +
		" -X k8s.io/component-base/version.gitVersion=" + kubernetesVersion +
		" -X k8s.io/client-go/pkg/version.gitVersion=" + kubernetesVersion},
}

var tools = []tool{
	kube,
	{
		name: "helm", module: "test/dev/tools/helm", pkg: "helm.sh/helm/v4/cmd/helm",
		words: "Helm " + helmVersion + ", which takes about 4 minutes of CPU time",
		flags: []string{"-ldflags=-s -w -X helm.sh/helm/v4/internal/version.version=" + helmVersion},
	},
	{name: "collector", module: "test/dev/tools/collector", pkg: ".", words: "a log collector, which takes about 4 minutes of CPU time", flags: []string{"-ldflags=-s -w"}},
	{
		name: "helm3", module: "test/dev/tools/helm3", pkg: "helm.sh/helm/v3/cmd/helm",
		words: "Helm " + helm3Version + ", which takes about 4 minutes of CPU time",
		flags: []string{"-ldflags=-s -w -X helm.sh/helm/v3/internal/version.version=" + helm3Version},
	},
	{name: "golangci-lint", module: "test/dev/tools/lint", pkg: "github.com/golangci/golangci-lint/v2/cmd/golangci-lint", words: "golangci-lint, which takes some minutes of CPU time"},
}

// toolPath returns the path of a compiled tool, by any of its names.
func toolPath(ctx context.Context, name string) (string, error) {
	if name == "busybox" {
		return busyboxPath()
	}
	for _, t := range tools {
		if t.name == name || slices.Contains(t.also, name) {
			dir, err := t.build(ctx)
			return filepath.Join(dir, name), err
		}
	}
	return "", fmt.Errorf("tool: unknown tool %q; use kubectl, helm, helm3, collector, golangci-lint or busybox", name)
}

// build returns the directory that holds the tool, after compiling it if need be.
func (t tool) build(ctx context.Context) (string, error) {
	root, err := checkout()
	if err != nil {
		return "", err
	}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	module := filepath.Join(root, t.module)
	key, err := t.key(module)
	if err != nil {
		return "", fmt.Errorf("find what %s is made of: %w", t.name, err)
	}
	dir := filepath.Join(cache, t.name+"-"+key)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	release, err := lock(filepath.Join(cache, t.name), time.Hour)
	if err != nil {
		return "", err
	}
	defer release()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	done := step("Compiling %s. This happens once", t.words)
	// Also those of an interrupted build.
	older, err := filepath.Glob(filepath.Join(cache, t.name+"-*"))
	if err != nil {
		return "", err
	}
	for _, path := range older {
		if err := os.RemoveAll(path); err != nil {
			return "", err
		}
	}
	temp := dir + ".new"
	args := append([]string{"build", "-trimpath", "-o", filepath.Join(temp, t.name)}, t.flags...)
	command := exec.CommandContext(ctx, "go", append(args, t.pkg)...)
	// On a signal, unlike SIGKILL, it ends its compilers too.
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	command.Dir = module
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	command.Stdout, command.Stderr = os.Stderr, os.Stderr
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("compile %s: %w", t.name, err)
	}
	if err := t.link(temp); err != nil {
		return "", err
	}
	if err := os.Rename(temp, dir); err != nil {
		return "", err
	}
	done()
	return dir, nil
}

// link gives the program its further names.
func (t tool) link(dir string) error {
	for _, name := range t.also {
		if err := os.Symlink(t.name, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// key names everything that the tool is compiled from: the module's two files name its dependencies to the byte.
func (t tool) key(module string) (string, error) {
	version, err := exec.Command("go", "env", "GOVERSION", "GOARCH").Output()
	if err != nil {
		return "", fmt.Errorf("run go env: %w", err)
	}
	files := []string{filepath.Join(module, "go.mod"), filepath.Join(module, "go.sum")}
	if t.pkg == "." {
		sources, err := filepath.Glob(filepath.Join(module, "*.go"))
		if err != nil {
			return "", err
		}
		files = append(files, sources...)
	}
	hash := sha256.New()
	fmt.Fprintln(hash, t.pkg, t.also, t.flags, string(version))
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(hash, filepath.Base(file), len(data))
		hash.Write(data)
	}
	return fmt.Sprintf("%x", hash.Sum(nil))[:12], nil
}

// checkout finds the directory of the repository, from the current directory upward.
func checkout() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		_, err := os.Stat(filepath.Join(dir, "test/dev/cluster/kube/main.go"))
		if err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if !errors.Is(err, fs.ErrNotExist) || parent == dir {
			return "", errors.New("the current directory is not in a checkout of log-bridge; change to one, because programs are compiled from it")
		}
		dir = parent
	}
}
