package runtimes

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/log-bridge/log-bridge/test/helpers/testbed"
)

var dockerReady sync.Once

// docker starts the daemon, on the node's containerd and without a network for containers, and returns the command of its client.
func docker(t *testing.T) []string {
	t.Helper()
	need(t)
	client := []string{"docker", "--host", "unix:///run/docker.sock"}
	config := filepath.Join(bed.Dir, "docker.json")
	if err := os.WriteFile(config, []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	daemon(t, "dockerd", "docker.service", func() bool { return bed.Inside(append(client, "version")...).Run() == nil },
		"dockerd", "--config-file", config, "--host", "unix:///run/docker.sock",
		"--data-root", "/var/lib/docker", "--exec-root", "/run/docker", "--pidfile", "/run/docker.pid",
		"--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false", "--userland-proxy=false")
	dockerReady.Do(func() {
		for _, image := range []string{bridgeImage, appImage} {
			bed.Run(t, slices.Concat(client, []string{"load", "--input", bed.Archive(image)})...)
		}
	})
	return client
}

// journald runs beside the other daemons, with a limit of lines that a test reaches on any machine.
func journald(t *testing.T) {
	t.Helper()
	need(t)
	bed.Run(t, "sh", "-c", "mkdir -p /run/systemd/journald.conf.d && printf '[Journal]\nRateLimitIntervalSec=5s\nRateLimitBurst=200\nForwardToSyslog=no\n' > /run/systemd/journald.conf.d/test.conf")
	daemon(t, "journald", "", exists("/run/systemd/journal/socket"), "sh", "-c", "exec $(ls /lib/systemd/systemd-journald /usr/lib/systemd/systemd-journald 2>/dev/null | head -n 1)")
}

// journal returns the messages of a container.
func journal(t *testing.T, container string) (lines []string) {
	t.Helper()
	part := ""
	for _, entry := range testbed.SplitLines(bed.Run(t, "journalctl", "--all", "--output=json", "CONTAINER_NAME="+container)) {
		var fields struct {
			Message json.RawMessage `json:"MESSAGE"`
			Partial string          `json:"CONTAINER_PARTIAL_MESSAGE"`
		}
		if err := json.Unmarshal([]byte(entry), &fields); err != nil {
			t.Fatalf("journalctl: %v: %.200q", err, entry)
		}
		var message string
		if err := json.Unmarshal(fields.Message, &message); err != nil {
			// What is not text is a list of bytes.
			var numbers []int
			if err := json.Unmarshal(fields.Message, &numbers); err != nil {
				t.Fatalf("journalctl: %v: %.200q", err, entry)
			}
			for _, n := range numbers {
				message += string([]byte{byte(n)})
			}
		}
		part += strings.TrimSuffix(message, "\n")
		if fields.Partial == "" {
			lines, part = append(lines, part), ""
		}
	}
	return lines
}

// rsyslogd receives at a socket of its own, with its own limits.
func rsyslogd(t *testing.T) {
	t.Helper()
	need(t)
	config := filepath.Join(bed.Dir, "rsyslog.conf")
	err := os.WriteFile(config, []byte(`
module(load="imuxsock" SysSock.Use="off")
input(type="imuxsock" Socket="/run/syslog.sock" RateLimit.Interval="0")
template(name="line" type="string" string="%syslogtag% %msg%\n")
action(type="omfile" file="/var/log/syslog-lines.log" template="line")
`), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	bed.Run(t, "mkdir", "-p", "/var/spool/rsyslog")
	daemon(t, "rsyslogd", "", exists("/run/syslog.sock"), "rsyslogd", "-n", "-i", "/run/rsyslogd.pid", "-f", config)
}

// syslogLines are what rsyslogd wrote of a container.
func syslogLines(t *testing.T, container string) (lines []string) {
	t.Helper()
	text, _ := os.ReadFile(log("syslog-lines")) // which comes with the first line
	for _, line := range testbed.SplitLines(string(text)) {
		// "container[123]: " and one more space, which for rsyslogd is the beginning of the message.
		if tag, message, _ := strings.Cut(line, ":  "); strings.HasPrefix(tag, container+"[") {
			lines = append(lines, message)
		}
	}
	return lines
}

// fluentd starts a receiver of fluentd's Forward protocol.
func fluentd(t *testing.T) {
	t.Helper()
	need(t)
	config := filepath.Join(bed.Dir, "fluentd.yaml")
	err := os.WriteFile(config, []byte(`
receivers: {fluent_forward: {endpoint: "unix:///run/fluentd.sock"}}
exporters: {stdout: {}}
service:
  telemetry: {metrics: {level: none}, logs: {level: warn}}
  pipelines: {logs: {receivers: [fluent_forward], exporters: [stdout]}}
`), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	daemon(t, "fluentd", "", exists("/run/fluentd.sock"), bed.collector, "--config", config)
}

// fluentdLines are what the receiver got of a container.
func fluentdLines(t *testing.T, container string) (lines []string) {
	t.Helper()
	for _, r := range fluentdRecords(t, container) {
		lines = append(lines, r.Body)
	}
	return lines
}

func fluentdRecords(t *testing.T, container string) []record {
	t.Helper()
	return slices.DeleteFunc(collected(t, read(t, log("fluentd"))), func(r record) bool { return r.Attributes["container_name"] != "/"+container })
}

// gelf starts a receiver of GELF over UDP.
func gelf(t *testing.T) {
	t.Helper()
	daemon(t, "gelf", "", func() bool { data, _ := os.ReadFile(log("gelf")); return strings.Contains(string(data), "listening") },
		bed.collector, "gelf", "127.0.0.1:12201")
}

// gelfLines are what the receiver got of a container.
func gelfLines(t *testing.T, container string) (lines []string) {
	t.Helper()
	for _, line := range testbed.SplitLines(read(t, log("gelf"))) {
		var message struct {
			Short     string `json:"short_message"`
			Container string `json:"_container_name"`
		}
		if json.Unmarshal([]byte(line), &message) == nil && message.Container == container {
			lines = append(lines, message.Short)
		}
	}
	return lines
}

// A driver is one of Docker's logging drivers.
type driver struct {
	name    string
	options []string
	start   func(*testing.T)                  // what receives, or nil
	lines   func(*testing.T, string) []string // what arrived of a container
}

func drivers(client []string) []driver {
	logs := func(t *testing.T, container string) []string {
		return testbed.SplitLines(bed.Run(t, slices.Concat(client, []string{"logs", container})...))
	}
	return []driver{
		{"json-file", nil, nil, logs},
		{"local", nil, nil, logs},
		{"journald", nil, journald, journal},
		{"syslog", []string{"--log-opt", "syslog-address=unixgram:///run/syslog.sock", "--log-opt", "tag={{.Name}}"}, rsyslogd, syslogLines},
		{"fluentd", []string{"--log-opt", "fluentd-address=unix:///run/fluentd.sock"}, fluentd, fluentdLines},
		{"gelf", []string{"--log-opt", "gelf-address=udp://127.0.0.1:12201"}, gelf, gelfLines},
	}
}

func driverNamed(t *testing.T, client []string, name string) driver {
	all := drivers(client)
	d := all[slices.IndexFunc(all, func(d driver) bool { return d.name == name })]
	if d.start != nil {
		d.start(t)
	}
	return d
}

// bridge starts our image with the driver.
func (d driver) bridge(t *testing.T, client []string, f folder, container string, options ...string) {
	t.Helper()
	f.bridge(t, client, container, slices.Concat([]string{"--log-driver", d.name}, d.options, options)...)
	bed.Run(t, "sh", "-c", strings.Join(client, " ")+" inspect --format '{{.State.Pid}}' "+container+" > "+pidFile(container))
}

// await waits for a line of a container.
func (d driver) await(t *testing.T, container, line string) (lines []string) {
	t.Helper()
	testbed.Eventually(t, fmt.Sprintf("the line %q", line), func() (bool, string) {
		lines = d.lines(t, container)
		return slices.Contains(lines, line), text(lines)
	})
	return lines
}

// awaitLater writes lines until one of them arrives: the first ones may be lost.
func (d driver) awaitLater(t *testing.T, f folder, container string) {
	t.Helper()
	n := 0
	testbed.Eventually(t, "a line after the receiver went on", func() (bool, string) {
		n++
		f.write(t, "later "+strconv.Itoa(n)+"\n")
		have := d.lines(t, container)
		return strings.HasPrefix(have[len(have)-1], "later"), have[len(have)-1]
	})
}

func TestDockerDrivers(t *testing.T) {
	client := docker(t)
	version := bed.Run(t, slices.Concat(client, []string{"version", "--format", "{{.Server.Version}}"})...)
	for _, d := range drivers(client) {
		t.Run(d.name, func(t *testing.T) {
			if d.start != nil {
				d.start(t)
			}
			f := newFolder(t)
			d.bridge(t, client, f, "odd-"+d.name)
			f.write(t, text(oddLines()))
			lines := d.await(t, "odd-"+d.name, "last")
			compare(t, "Docker, `"+d.name+"`", lines, version)
			switch d.name {
			case "journald":
				logs := testbed.SplitLines(bed.Run(t, slices.Concat(client, []string{"logs", "odd-journald"})...))
				testbed.EqualLines(t, logs, slices.DeleteFunc(lines, func(line string) bool { return line == "" }))
			case "fluentd":
				for _, r := range fluentdRecords(t, "odd-fluentd") {
					if part := strings.HasPrefix(r.Body, "long<") || strings.HasPrefix(r.Body, "x"); part != (r.Attributes["partial_message"] == "true") {
						t.Errorf("the record %.20q has partial_message %q", r.Body, r.Attributes["partial_message"])
					}
				}
			}
		})
	}
}

// In the format json, control characters, empty lines and spaces pass through the drivers that change them.
func TestJSONThroughDrivers(t *testing.T) {
	client := docker(t)
	for _, name := range []string{"syslog", "gelf"} {
		t.Run(name, func(t *testing.T) {
			d, f := driverNamed(t, client, name), newFolder(t)
			container := "json-" + name
			f.format = "json"
			d.bridge(t, client, f, container)
			want := slices.DeleteFunc(oddLines(), func(line string) bool { return line == long || strings.Contains(line, "\xff") })
			f.write(t, text(want))
			var have []string
			testbed.Eventually(t, "the last line", func() (bool, string) {
				have = nil
				for _, object := range d.lines(t, container) {
					var line struct{ Line string }
					if err := json.Unmarshal([]byte(object), &line); err != nil {
						t.Fatalf("%v: %q", err, object)
					}
					have = append(have, line.Line)
				}
				return slices.Contains(have, "last"), text(have)
			})
			testbed.EqualLines(t, have, want)
		})
	}
}

// While the daemon is stopped, the sidecar waits, and nothing is lost.
func TestDockerStopped(t *testing.T) {
	client := docker(t)
	d, f := driverNamed(t, client, "json-file"), newFolder(t)
	d.bridge(t, client, f, "stands")
	stop(t, "dockerd")
	want := testbed.Numbered("line", 1, 50_000)
	f.write(t, text(want))
	awaitWritten(t, "stands", fullPipe)
	goOn(t, "dockerd")
	testbed.EqualLines(t, d.await(t, "stands", want[len(want)-1]), want)
}

// Without limits json-file keeps all; with limits, and local always, the oldest lines go.
func TestDockerLimits(t *testing.T) {
	client := docker(t)
	for _, name := range []string{"json-file", "local"} {
		t.Run(name, func(t *testing.T) {
			d, f := driverNamed(t, client, name), newFolder(t)
			d.bridge(t, client, f, "limit-"+name, "--log-opt", "max-size=100k", "--log-opt", "max-file=2")
			all := append(testbed.Numbered("line", 1, 20_000), "last")
			f.write(t, text(all))
			have := d.await(t, "limit-"+name, "last")
			if len(have) > 200<<10/len("line 1") {
				t.Errorf("%d lines are in two files of 100 kB", len(have))
			}
			testbed.EqualLines(t, have, all[len(all)-len(have):])
		})
	}
}

// A blocked receiver makes the daemon and so the sidecar wait, unless mode=non-blocking drops lines instead.
func TestReceiverBlocked(t *testing.T) {
	client := docker(t)
	for _, test := range []struct{ driver, receiver string }{{"syslog", "rsyslogd"}, {"fluentd", "fluentd"}} {
		for _, mode := range []string{"blocking", "non-blocking"} {
			t.Run(test.driver+" "+mode, func(t *testing.T) {
				d, f := driverNamed(t, client, test.driver), newFolder(t)
				container := test.driver + "-" + mode
				options := []string{"--log-opt", "mode=" + mode}
				if mode == "non-blocking" {
					options = append(options, "--log-opt", "max-buffer-size=64k")
				}
				d.bridge(t, client, f, container, options...)
				f.write(t, "first\n")
				d.await(t, container, "first")
				stop(t, test.receiver)
				want := testbed.Numbered(strings.Repeat("x", 100), 1, 20_000)
				f.write(t, text(want))
				if mode == "blocking" {
					// The daemon takes about 1 MB into its memory.
					awaitWritten(t, container, 1_000_000)
					goOn(t, test.receiver)
					f.write(t, "last\n")
					testbed.EqualLines(t, d.await(t, container, "last"), slices.Concat([]string{"first"}, want, []string{"last"}))
					return
				}
				awaitWritten(t, container, len(text(want)))
				goOn(t, test.receiver)
				d.awaitLater(t, f, container)
				have := slices.DeleteFunc(d.lines(t, container), func(line string) bool { return !strings.HasPrefix(line, "x") })
				t.Logf("%d of %d lines arrived", len(have), len(want))
				if len(have) >= len(want) {
					t.Errorf("all of %d lines arrived, and docs/runtimes.md says that some are dropped", len(want))
				}
			})
		}
	}
}

// GELF goes over UDP: what a blocked receiver has no room for is lost.
func TestGELFReceiverBlocked(t *testing.T) {
	client := docker(t)
	d, f := driverNamed(t, client, "gelf"), newFolder(t)
	d.bridge(t, client, f, "udp")
	f.write(t, "first\n")
	d.await(t, "udp", "first")
	stop(t, "gelf")
	want := testbed.Numbered(strings.Repeat("x", 100), 1, 2000)
	f.write(t, text(want))
	testbed.Eventually(t, "the kernel to drop packets of the receiver", func() (bool, string) {
		sockets := bed.Run(t, "cat", "/proc/net/udp")
		for _, line := range testbed.SplitLines(sockets) {
			// "sl local_address … drops"; 2FA9 is port 12201.
			fields := strings.Fields(line)
			if strings.HasSuffix(fields[1], ":2FA9") && fields[len(fields)-1] != "0" {
				return true, ""
			}
		}
		return false, sockets
	})
	goOn(t, "gelf")
	d.awaitLater(t, f, "udp")
	arrived := slices.DeleteFunc(d.lines(t, "udp"), func(line string) bool { return !strings.HasPrefix(line, "x") })
	t.Logf("%d of %d lines arrived", len(arrived), len(want))
	if len(arrived) >= len(want) {
		t.Errorf("all of %d lines arrived, and docs/runtimes.md says that some are lost", len(want))
	}
}

// journald drops what a unit says beyond its rate limit, and says how much that was.
func TestJournaldRateLimit(t *testing.T) {
	client := docker(t)
	d, f := driverNamed(t, client, "journald"), newFolder(t)
	d.bridge(t, client, f, "rate")
	f.write(t, text(testbed.Numbered("line", 1, 10_000)))
	n, suppressed := 0, ""
	// journald says it with the first message after the interval.
	testbed.Eventually(t, "journald to say what it suppressed", func() (bool, string) {
		n++
		f.write(t, "later "+strconv.Itoa(n)+"\n")
		out, err := testbed.Output(bed.Inside("journalctl", "--output=cat", "_COMM=systemd-journal", "--grep", "Suppressed .* messages from docker.service"))
		suppressed = out
		return err == nil, out
	})
	arrived := slices.DeleteFunc(d.lines(t, "rate"), func(line string) bool { return !strings.HasPrefix(line, "line ") })
	t.Logf("%d of 10000 lines arrived; journald says: %s", len(arrived), suppressed)
	if len(arrived) >= 10_000 {
		t.Error("all lines arrived, and docs/runtimes.md says that some are dropped")
	}
}
