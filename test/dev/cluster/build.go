package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// standIns are made from this machine in the place of public base images.
var standIns = map[string]func() (image, error){
	"busybox": busyboxImage,
	"debian":  debianImage,
	"golang":  golangImage,
	"python":  pythonImage,
}

type words []string

func (w *words) String() string         { return strings.Join(*w, " ") }
func (w *words) Set(value string) error { *w = append(*w, value); return nil }

// runBuild builds an image with buildah, without a registry, a daemon or a change to the machine's own images.
func runBuild(ctx context.Context, flags *flag.FlagSet, args []string) error {
	file := flags.String("file", "Dockerfile", "the Dockerfile")
	tag := flags.String("tag", "", "name and tag of the image")
	output := flags.String("output", "", "the archive to write")
	platform := flags.String("platform", "linux/"+runtime.GOARCH, "what the image is for")
	var buildArgs words
	flags.Var(&buildArgs, "build-arg", "KEY=VALUE of an ARG; may be repeated")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if *tag == "" || *output == "" || flags.NArg() != 1 {
		return errors.New("build: give --tag NAME:TAG, --output IMAGE-TAR and one directory, the context")
	}
	if os.Geteuid() != 0 {
		return errors.New("build: must be run as root; use sudo")
	}
	folder := flags.Arg(0)
	if err := installPackages([]need{buildah}); err != nil {
		return err
	}
	cache, err := cacheDir()
	if err != nil {
		return err
	}
	release, err := lock(filepath.Join(cache, "images"), time.Hour)
	if err != nil {
		return err
	}
	defer release()
	done := step("Building %s from %s", *tag, *file)
	b, err := newBuilder(cache)
	if err != nil {
		return err
	}
	defer b.close()

	command := []string{"bud", "--quiet", "--isolation=chroot", "--layers", "--pull-never", "--platform=" + *platform, "--file=" + *file, "--tag=" + *tag,
		// Debian's buildah needs it as an argument to use it in a FROM.
		"--build-arg=BUILDPLATFORM=linux/" + runtime.GOARCH}
	bases, err := basesOf(*file, buildArgs)
	if err != nil {
		return err
	}
	for arg, base := range bases {
		name, err := b.standIn(ctx, base)
		if err != nil {
			return err
		}
		if base == "golang" {
			mounts, err := goMounts(ctx, folder)
			if err != nil {
				return err
			}
			command = append(command, mounts...)
		}
		say("  the base image %s is made from this machine", base)
		command = append(command, "--build-arg="+arg+"="+name)
	}
	for _, arg := range buildArgs {
		command = append(command, "--build-arg="+arg)
	}
	if err := b.buildah(ctx, append(command, folder)...); err != nil {
		return fmt.Errorf("build %s: %w", *tag, err)
	}
	temp := *output + ".new"
	os.Remove(temp)
	if err := b.buildah(ctx, "push", "--quiet", *tag, "docker-archive:"+temp+":"+*tag); err != nil {
		return fmt.Errorf("write %s: %w", *output, err)
	}
	if err := os.Rename(temp, *output); err != nil {
		return err
	}
	done()
	return nil
}

var (
	argLine = regexp.MustCompile(`^(?i:ARG)\s+(\w+)=(\S+)`)
	anyFrom = regexp.MustCompile(`^(?i:FROM)\s`)
)

// basesOf returns the ARGs before the first FROM of a Dockerfile whose default is an image that has a stand-in, and
// the name of the stand-in. One that the caller sets is none.
func basesOf(file string, buildArgs []string) (map[string]string, error) {
	dockerfile, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer dockerfile.Close()
	bases := map[string]string{}
	lines := bufio.NewScanner(dockerfile)
	for lines.Scan() && !anyFrom.MatchString(lines.Text()) {
		match := argLine.FindStringSubmatch(lines.Text())
		if match == nil {
			continue
		}
		reference, _, _ := strings.Cut(strings.Trim(match[2], `"'`), "@")
		base, _, _ := strings.Cut(path.Base(reference), ":")
		if standIns[base] != nil {
			bases[match[1]] = base
		}
	}
	for _, arg := range buildArgs {
		name, _, _ := strings.Cut(arg, "=")
		delete(bases, name)
	}
	return bases, lines.Err()
}

// goMounts lets a golang stand-in use the machine's Go and its caches, so that it needs no network and compiles only what
// has changed.
func goMounts(ctx context.Context, folder string) ([]string, error) {
	download := exec.CommandContext(ctx, "go", "mod", "download")
	download.Dir = folder
	if out, err := download.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("download the Go modules of %s: %w: %s", folder, err, out)
	}
	out, err := exec.Command("go", "env", "GOROOT", "GOMODCACHE", "GOCACHE").Output()
	if err != nil {
		return nil, fmt.Errorf("run go env: %w", err)
	}
	dirs := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(dirs) != 3 {
		return nil, fmt.Errorf("go env: want three directories, got %q", out)
	}
	return []string{
		"--volume=" + dirs[0] + ":/usr/local/go:ro",
		"--volume=" + dirs[1] + ":/go/pkg/mod",
		"--volume=" + dirs[2] + ":/root/.cache/go-build",
	}, nil
}

// A builder is buildah with a storage of its own, in the cache.
type builder struct {
	storage string
	run     string
}

// storageLimit is the size at which the storage is emptied rather than sorted out. Every changed source adds layers.
const storageLimit = 4 << 30

func newBuilder(cache string) (builder, error) {
	b := builder{storage: filepath.Join(cache, "images")}
	var size int64
	err := filepath.WalkDir(b.storage, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if info, err := d.Info(); err == nil {
			size += info.Size()
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return b, err
	}
	if size > storageLimit {
		if err := os.RemoveAll(b.storage); err != nil {
			return b, err
		}
	}
	if err := os.MkdirAll(b.storage, 0o700); err != nil {
		return b, err
	}
	// What is mounted is recorded here, and every call has mounts of its own.
	b.run, err = os.MkdirTemp("", "log-bridge-build")
	return b, err
}

func (b builder) close() { os.RemoveAll(b.run) }

// buildah runs in process and mount namespaces of its own, so that it leaves no process and no mount when it is killed.
func (b builder) buildah(ctx context.Context, args ...string) error {
	// It keeps a cache in the directory of the machine's own images, wherever its storage is.
	const own = "/var/lib/containers"
	if err := os.Mkdir(own, 0o755); err == nil {
		defer os.Remove(own)
	}
	all := append([]string{"--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
		"sh", "-c", "mount -t tmpfs none " + own + ` && exec buildah "$@"`, "buildah", "--root=" + b.storage, "--runroot=" + b.run}, args...)
	command := exec.CommandContext(ctx, "unshare", all...)
	command.Stdout, command.Stderr = io.Discard, os.Stderr
	// The signal comes when the thread ends that starts the process, and main's does not end before the process does.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return command.Run()
}

// standIn returns the name in the storage of a base image, after making it if need be.
func (b builder) standIn(ctx context.Context, base string) (string, error) {
	i, err := standIns[base]()
	if err != nil {
		return "", fmt.Errorf("make a stand-in for the image %s: %w", base, err)
	}
	archive := filepath.Join(b.run, base+".tar")
	i.name = "localhost/log-bridge-stand-in/" + base + ":latest"
	if err := i.write(archive); err != nil {
		return "", err
	}
	defer os.Remove(archive)
	data, err := os.ReadFile(archive)
	if err != nil {
		return "", err
	}
	// buildah recognises a layer that it has, but reads the archive twice to do so.
	sum := fmt.Sprintf("%x", sha256.Sum256(data))
	known := filepath.Join(b.storage, base+".sum")
	if have, err := os.ReadFile(known); err == nil && string(have) == sum {
		return i.name, nil
	}
	if err := b.buildah(ctx, "pull", "--quiet", "docker-archive:"+archive); err != nil {
		return "", fmt.Errorf("store a stand-in for the image %s: %w", base, err)
	}
	return i.name, os.WriteFile(known, []byte(sum), 0o644)
}
