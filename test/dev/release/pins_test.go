// Package release tests the inputs of a release: what the scripts and the workflow take from elsewhere.
package release

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// unpinned are the references to images that have no digest, and why. A digest is never made up: it comes from the
// registry, by
//
//	docker buildx imagetools inspect golang:1.26.8-bookworm --format '{{.Manifest.Digest}}'
//
// or from Renovate, which writes it behind the tag (renovate.json).
var unpinned = map[string]string{
	".github/workflows/ci.yaml: docker.io/library/debian:12":                notTheRelease,
	"Dockerfile.sidecar: golang:1.26.8-bookworm":                            notKnown,
	"Dockerfile.webhook: golang:1.26.8-bookworm":                            notKnown,
	"examples/image/Dockerfile: debian:12-slim":                             notKnown,
	"examples/python-app-log/Dockerfile: python:3.13-slim":                  notKnown,
	"test/e2e/testdata/busybox/Dockerfile: busybox:1.36":                    onlyTests,
	"test/e2e/testdata/rotator/Dockerfile: busybox:1.36":                    onlyTests,
	"test/e2e/testdata/shellless/Dockerfile: busybox:1.36":                  onlyTests,
	"test/runtimes/testdata/app/Dockerfile: docker.io/library/busybox:1.37": onlyTests,
}

const (
	notKnown      = "no registry could be asked when it was written; the images of a release are not made with it (test/dev/release/dist.sh)"
	notTheRelease = "no registry could be asked when it was written; the job may read the repository, and nothing else"
	onlyTests     = "the tests make it from the machine, and pull nothing"
)

// root is the top of the repository.
const root = "../../.."

// tracked are the files that git knows whose path matches.
func tracked(t *testing.T, pattern string) (files []string) {
	t.Helper()
	cmd := exec.Command("git", "ls-files")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("not a checkout of git: %v", err)
	}
	match := regexp.MustCompile(pattern)
	for line := range strings.Lines(string(out)) {
		if file := strings.TrimSpace(line); match.MatchString(file) {
			files = append(files, file)
		}
	}
	return files
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var (
	arg    = regexp.MustCompile(`(?im)^ARG\s+(\w+)=(\S+)`)
	from   = regexp.MustCompile(`(?im)^FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?`)
	digest = regexp.MustCompile(`@sha256:[0-9a-f]{64}$`)
)

// Each base image of a Dockerfile has a digest, or is an exception with its reason.
func TestBaseImages(t *testing.T) {
	files := tracked(t, `(^|/)Dockerfile[^/]*$`)
	if len(files) < 4 {
		t.Fatalf("only %d Dockerfiles: %v", len(files), files)
	}
	used := map[string]bool{}
	for _, file := range files {
		text := read(t, file)
		defaults, stages := map[string]string{}, []string{"scratch"}
		for _, m := range arg.FindAllStringSubmatch(text, -1) {
			defaults[m[1]] = m[2]
		}
		for _, m := range from.FindAllStringSubmatch(text, -1) {
			image := os.Expand(m[1], func(name string) string { return defaults[name] })
			known := slices.Contains(stages, image)
			stages = append(stages, m[2])
			if known || digest.MatchString(image) {
				continue
			}
			reference := file + ": " + image
			if unpinned[reference] == "" {
				t.Errorf("%s has no digest; write it behind the tag, or say in test/dev/release/pins_test.go why there is none", reference)
			}
			used[reference] = true
		}
	}
	for reference := range unpinned {
		if !used[reference] && !strings.HasPrefix(reference, ".github/") {
			t.Errorf("%s is an exception that nothing needs; take it away", reference)
		}
	}
}

// Each action of a workflow is that of a commit, with its version after it. A job with more rights than reading runs on the
// machine itself, in no image that somebody else could exchange; the images of the others are pinned, or exceptions.
func TestActions(t *testing.T) {
	files := tracked(t, `^\.github/workflows/`)
	if len(files) == 0 {
		t.Fatal("no workflows")
	}
	pinned := regexp.MustCompile(`^([\w-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+|\./\.github/workflows/[\w-]+\.yaml)$`)
	image := regexp.MustCompile(`^\s+(?:image|container): *(\S+)$`)
	for _, file := range files {
		text := read(t, file)
		writes := regexp.MustCompile(`(?m)^\s+[\w-]+: write\b`).MatchString(text)
		for i, line := range strings.Split(text, "\n") {
			_, use, found := strings.Cut(line, "uses: ")
			if found && !pinned.MatchString(use) {
				t.Errorf("%s:%d: %s is not pinned; write OWNER/NAME@COMMIT # vX.Y.Z", file, i+1, use)
			}
			if writes && regexp.MustCompile(`--privileged|^\s+(container|image):`).MatchString(line) {
				t.Errorf("%s:%d: a workflow with a right to write runs in an image: %s", file, i+1, strings.TrimSpace(line))
			}
			if m := image.FindStringSubmatch(line); m != nil && !digest.MatchString(m[1]) && unpinned[file+": "+m[1]] == "" {
				t.Errorf("%s:%d: %s has no digest; write it after the tag, or say in test/dev/release/pins_test.go why there is none", file, i+1, m[1])
			}
		}
	}
}

// Renovate sees every module and every Dockerfile, and pins what it finds.
func TestRenovate(t *testing.T) {
	var config struct {
		Extends     []string
		IgnorePaths *[]string
		Enabled     *bool
	}
	if err := json.Unmarshal([]byte(read(t, "renovate.json")), &config); err != nil {
		t.Fatal(err)
	}
	// Without its own ignorePaths it has those of config:recommended, among them **/test/**.
	if config.IgnorePaths == nil || len(*config.IgnorePaths) > 0 || config.Enabled != nil {
		t.Error("it passes over files: ignorePaths must be there and empty")
	}
	for _, preset := range []string{"docker:pinDigests", "helpers:pinGitHubActionDigests"} {
		if !slices.Contains(config.Extends, preset) {
			t.Errorf("it does not extend %s", preset)
		}
	}
}

// What is signed is what is documented, and all of it is made or pushed by the scripts.
func TestProvenanceIsSigned(t *testing.T) {
	workflow, script, page := read(t, ".github/workflows/release.yaml"), read(t, "test/dev/release/dist.sh"), read(t, "docs/releasing.md")
	for _, part := range []string{"provenance.json", "SHA256SUMS", "cdx.json"} {
		for name, text := range map[string]string{"the workflow": workflow, "dist.sh": script, "docs/releasing.md": page} {
			if !strings.Contains(text, part) {
				t.Errorf("%s knows nothing of %s", name, part)
			}
		}
	}
	for _, kind := range []string{"cyclonedx", "slsaprovenance1"} {
		if want := fmt.Sprintf("--type %s ", kind); !strings.Contains(workflow, "attest --yes "+want) || !strings.Contains(page, "verify-attestation "+want) {
			t.Errorf("an attestation %s is not made, or not verified in docs/releasing.md", kind)
		}
	}
}
