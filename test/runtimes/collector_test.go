package runtimes

import (
	"encoding/json"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/log-bridge/log-bridge/test/helpers/testbed"
)

const collectorImage = "log-bridge.test/collector:1"

// A record is one that the OpenTelemetry Collector has printed.
type record struct {
	Body       string
	Attributes map[string]string // of the record and of its resource
}

// collected are the records in the output of test/dev/tools/collector.
func collected(t *testing.T, output string) (records []record) {
	t.Helper()
	type value struct{ StringValue string }
	type attributes []struct {
		Key   string
		Value value
	}
	for _, line := range testbed.SplitLines(output) {
		var batch struct {
			ResourceLogs []struct {
				Resource  struct{ Attributes attributes }
				ScopeLogs []struct {
					LogRecords []struct {
						Body       value
						Attributes attributes
					}
				}
			}
		}
		if json.Unmarshal([]byte(line), &batch) != nil {
			continue // its own words
		}
		for _, resource := range batch.ResourceLogs {
			for _, scope := range resource.ScopeLogs {
				for _, r := range scope.LogRecords {
					all := map[string]string{}
					for _, list := range []attributes{resource.Resource.Attributes, r.Attributes} {
						for _, a := range list {
							all[a.Key] = a.Value.StringValue
						}
					}
					records = append(records, record{r.Body.StringValue, all})
				}
			}
		}
	}
	return records
}

// A collector on the node finds the delivered lines, and says where they come from.
func TestCollector(t *testing.T) {
	ns := startPod(t)
	write(t, ns, text(oddLines()))
	bed.Apply(t, ns, read(t, "testdata/collector/collector.yaml"))
	var lines []string
	testbed.Eventually(t, "the last line", func() (bool, string) {
		out, err := bed.Try("-n", ns, "logs", "collector")
		if err != nil {
			return false, err.Error()
		}
		lines = nil
		for _, r := range collected(t, out) {
			if container := r.Attributes["k8s.container.name"]; container != "log-bridge" {
				t.Fatalf("a line of the container %q: %.200q", container, r.Body)
			}
			if r.Attributes["k8s.pod.name"] == "app" && r.Attributes["k8s.namespace.name"] == ns {
				lines = append(lines, r.Body)
			}
		}
		return slices.Contains(lines, "last"), out
	})
	compare(t, "OpenTelemetry Collector", lines, "v0.160.0")
}

// What examples/fluentd says is tested without fluentd: the API server accepts its objects, and its expressions match the
// names and lines that a node has.
func TestFluentdExample(t *testing.T) {
	ns := startPod(t)
	write(t, ns, text(oddLines()))
	bed.Lines(t, "the last line", func(have []string) bool { return slices.Contains(have, "last") }, "-n", ns, "app", "-c", "log-bridge")
	manifest := read(t, filepath.Join(bed.Top, "examples/fluentd/fluentd.yaml"))
	bed.Apply(t, ns, manifest, "--dry-run=server")

	setting := func(name string) string {
		t.Helper()
		found := regexp.MustCompile(`(?m)^\s*` + name + ` (.*)$`).FindStringSubmatch(manifest)
		if found == nil {
			t.Fatalf("examples/fluentd/fluentd.yaml has no line %q", name+" …")
		}
		return found[1]
	}
	expressions := regexp.MustCompile(`(?m)^\s*expression /(.*)/$`).FindAllStringSubmatch(manifest, -1)
	if len(expressions) != 2 {
		t.Fatalf("examples/fluentd/fluentd.yaml has %d expressions, want one for lines and one for names", len(expressions))
	}
	line, name := regexp.MustCompile(expressions[0][1]), regexp.MustCompile(strings.ReplaceAll(expressions[1][1], `\/`, "/"))

	files := strings.Fields(bed.Run(t, "sh", "-c", "ls "+setting("path")))
	at := slices.IndexFunc(files, func(file string) bool { return strings.Contains(file, "_"+ns+"_") })
	if at < 0 {
		t.Fatalf("the path %s does not find the pod's file; it finds %q", setting("path"), files)
	}
	have := map[string]string{}
	for i, value := range name.FindStringSubmatch(files[at]) {
		have[name.SubexpNames()[i]] = value
	}
	if have["pod"] != "app" || have["namespace"] != ns || have["container"] != "log-bridge" {
		t.Errorf("of the name %s: have %v", files[at], have)
	}
	whole := ""
	var lines []string
	for _, record := range testbed.SplitLines(bed.Run(t, "cat", files[at])) {
		match := line.FindStringSubmatch(record)
		if match == nil {
			t.Fatalf("the expression %s does not match the line %.100q", line, record)
		}
		whole += match[line.SubexpIndex("log")]
		if match[line.SubexpIndex(setting("partial_key"))] != setting("partial_value") {
			lines, whole = append(lines, whole), ""
		}
	}
	testbed.EqualLines(t, lines, contents(t, files[at]))

	// Each file that the configuration names is in a volume.
	mounts := regexp.MustCompile(`mountPath: ([^\s,}]+)`).FindAllStringSubmatch(manifest, -1)
	for _, file := range []string{setting("path"), setting("pos_file")} {
		if !slices.ContainsFunc(mounts, func(m []string) bool { return strings.HasPrefix(file, m[1]+"/") }) {
			t.Errorf("no volume holds %s", file)
		}
	}
}
