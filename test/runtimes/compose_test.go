package runtimes

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/log-bridge/log-bridge/test/helpers/testbed"
)

// Two plain containers that share a volume, as in examples/docker-compose: log-bridge is started first and stopped last, and
// every line of the file is in its log.
func TestDockerCompose(t *testing.T) {
	client := docker(t)
	// The example's tag is that of the next release, and there is no registry to find another.
	version := regexp.MustCompile(`(?m)^appVersion: (.*)$`).FindStringSubmatch(read(t, filepath.Join(bed.Top, "charts/log-bridge/Chart.yaml")))
	if version == nil {
		t.Fatal("charts/log-bridge/Chart.yaml has no appVersion")
	}
	for image, tag := range map[string]string{bridgeImage: "ghcr.io/log-bridge/log-bridge:" + version[1], appImage: "busybox:1.37"} {
		bed.Run(t, slices.Concat(client, []string{"tag", image, tag})...)
	}
	// The test's daemon has no network for containers.
	override := filepath.Join(bed.Dir, "override.yaml")
	if err := os.WriteFile(override, []byte("services: {app: {network_mode: none}, log-bridge: {network_mode: none}}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	compose := func(args ...string) string {
		t.Helper()
		command := []string{"docker-compose", "--host", "unix:///run/docker.sock", "--project-name", "example",
			"--file", filepath.Join(bed.Top, "examples/docker-compose/docker-compose.yaml"), "--file", override}
		return bed.Run(t, slices.Concat(command, args)...)
	}
	t.Cleanup(func() { compose("down", "--volumes", "--timeout", "1") })
	compose("up", "--detach")
	testbed.Eventually(t, "two lines", func() (bool, string) {
		logs := compose("logs", "--no-color", "log-bridge")
		return strings.Contains(logs, "| line 2\n"), logs
	})
	compose("stop")
	container := strings.TrimSpace(compose("ps", "--quiet", "log-bridge"))
	have := bed.Run(t, slices.Concat(client, []string{"logs", container})...)
	want := bed.Run(t, "cat", "/var/lib/docker/volumes/example_logs/_data/app.log")
	testbed.EqualLines(t, testbed.SplitLines(have), testbed.SplitLines(want))

	// Started again, it continues where it was.
	compose("start")
	next := len(testbed.SplitLines(want)) + 1
	testbed.Eventually(t, "a line after the restart", func() (bool, string) {
		have = bed.Run(t, slices.Concat(client, []string{"logs", container})...)
		return len(testbed.SplitLines(have)) >= next, have
	})
	compose("stop")
	have = bed.Run(t, slices.Concat(client, []string{"logs", container})...)
	want = bed.Run(t, "cat", "/var/lib/docker/volumes/example_logs/_data/app.log")
	testbed.EqualLines(t, testbed.SplitLines(have), testbed.SplitLines(want))
}
