// Package runtimes follows a delivered line through whatever may come after the sidecar's stdout: each container runtime with
// each of its logging drivers, and a collector that takes the lines off a node. What it measures is the table in
// docs/runtimes.md, and a test fails where the two differ.
//
// All of it runs inside the node of test/dev/cluster: Kubernetes' own containerd, and beside it Docker, Podman, journald and
// rsyslogd from Debian. So the kernel ends all of it with the node, whatever happens to the test.
package runtimes

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/log-bridge/log-bridge/test/helpers/testbed"
)

const (
	bridgeImage = "ghcr.io/log-bridge/log-bridge:test"
	appImage    = "log-bridge.test/app:1"
)

// bed is what all tests share.
var bed struct {
	*testbed.Bed
	skip      string // why there is no cluster
	collector string // a program
}

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "runtimes:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	flag.Parse() // for testing.Short
	if bed.skip = testbed.WhyNot(); bed.skip != "" {
		return m.Run(), nil
	}
	// Another name lets two runs live side by side.
	if bed.Bed, err = testbed.Start(cmp.Or(os.Getenv("RUNTIMES_CLUSTER"), "runtimes")); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, bed.Stop()) }()
	if err := bed.Packages("systemd", "rsyslog", "podman", "conmon", "crun", "docker.io", "docker-compose"); err != nil {
		return 0, err
	}
	collector, err := bed.Tool("collector")
	if err != nil {
		return 0, err
	}
	bed.collector = collector
	err = bed.Load(
		testbed.Image{Tag: bridgeImage, File: "Dockerfile.sidecar", Context: "."},
		testbed.Image{Tag: "ghcr.io/log-bridge/log-bridge-webhook:test", File: "Dockerfile.webhook", Context: "."},
		testbed.Image{Tag: appImage, File: "test/runtimes/testdata/app/Dockerfile", Context: "test/runtimes/testdata/app"},
		testbed.Image{Tag: collectorImage, File: "test/runtimes/testdata/collector/Dockerfile", Context: filepath.Dir(collector)},
	)
	if err != nil {
		return 0, err
	}
	if err := bed.Install(); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// need skips a test where there is no cluster.
func need(t *testing.T) {
	t.Helper()
	if bed.skip != "" {
		t.Skip(bed.skip)
	}
}
