package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The examples, each as a user applies it: the manifest of its directory, unchanged. The Python
// example is TestPythonStory.
var examples = map[string]func(t *testing.T, ns string){
	"rename-rotation":        exampleRenameRotation,
	"logrotate-copytruncate": exampleCopytruncate,
	"nginx":                  exampleNginx,
	"job":                    exampleJob,
	"cronjob":                exampleCronJob,
	"two-containers":         exampleTwoContainers,
	"existing-claim":         exampleExistingClaim,
	"reclaim":                exampleReclaim,
}

func TestExamples(t *testing.T) {
	t.Parallel()
	needCluster(t)
	for name, story := range examples {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := namespace(t)
			if out := kubectl(t, "apply", "-n", ns, "-f", manifest(t, name)); strings.Contains(out, "Warning") {
				t.Errorf("kubectl apply warns:\n%s", out)
			}
			story(t, ns)
		})
	}
}

// manifest is the one manifest of an example.
func manifest(t *testing.T, example string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(bed.top, "examples", example, "*.yaml"))
	if err != nil || len(found) != 1 {
		t.Fatalf("examples/%s: want one manifest, have %q, %v", example, found, err)
	}
	return found[0]
}

// Each example has a test here, and a README of a few lines.
func TestExamplesAreDescribed(t *testing.T) {
	top := "../../examples"
	dirs, err := os.ReadDir(top)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		name := dir.Name()
		text, err := os.ReadFile(filepath.Join(top, name, "README.md"))
		if lines := strings.Count(string(text), "\n"); err != nil || lines < 5 || lines > 15 {
			t.Errorf("examples/%s/README.md: want 5 to 15 lines, have %d, %v", name, lines, err)
		}
		switch name {
		case "rule":
			continue // TestRules
		case "image", "python-app-log", "docker-compose", "fluentd":
			continue // test/runtimes tests the last two
		}
		if examples[name] == nil {
			t.Errorf("examples/%s has no test", name)
		}
	}
}

func exampleRenameRotation(t *testing.T, ns string) {
	got := lines(t, "the lines of five files", atLeast(5*50+1), "-n", ns, "deploy/rename-rotation", "-c", "log-bridge")
	equalLines(t, got, numbered("INFO [main] dev.example.Shop - order", len(got)))
	eventually(t, "a compressed file", func() (bool, string) {
		out := kubectl(t, "exec", "-n", ns, "deploy/rename-rotation", "-c", "app", "--", "ls", "/var/log/shop")
		return strings.Contains(out, ".gz\n"), out
	})
}

// What logrotate left in a file is in kubectl logs, once and in order; what no file holds was written
// between its copying and its truncating.
func exampleCopytruncate(t *testing.T, ns string) {
	var rotated []string
	eventually(t, "three rotations", func() (bool, string) {
		out, err := tryKubectl("exec", "-n", ns, "deploy/logrotate-copytruncate", "-c", "app", "--", "sh", "-c",
			"cd /logs; test -e app.log.3 && cat $(ls -r app.log.?)")
		rotated = strings.Split(strings.TrimSuffix(out, "\n"), "\n")
		return err == nil, fmt.Sprint(out, err)
	})
	slices.SortFunc(rotated, func(a, b string) int { return lineNumber(t, a) - lineNumber(t, b) })
	rotated = slices.Compact(rotated)
	last := lineNumber(t, rotated[len(rotated)-1])
	got := lines(t, fmt.Sprintf("line %d", last), func(got []string) bool {
		return slices.ContainsFunc(got, func(line string) bool { return lineNumber(t, line) >= last })
	}, "-n", ns, "deploy/logrotate-copytruncate", "-c", "log-bridge")
	for i := range got[1:] {
		if a, b := lineNumber(t, got[i]), lineNumber(t, got[i+1]); a >= b {
			t.Fatalf("line %d comes before line %d", a, b)
		}
	}
	for _, line := range rotated {
		if !slices.Contains(got, line) {
			t.Errorf("%q is in a rotated file and was not delivered", line)
		}
	}
}

// lineNumber is the number of "line 7".
func lineNumber(t *testing.T, line string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimPrefix(line, "line "))
	if err != nil {
		t.Fatalf("not a line: %q", line)
	}
	return n
}

func exampleNginx(t *testing.T, ns string) {
	requests := lines(t, "requests", atLeast(3), "-n", ns, "deploy/nginx", "-c", "nginx")
	errors := lines(t, "errors", atLeast(3), "-n", ns, "deploy/nginx", "-c", "log-bridge")
	for i := range 3 {
		if want := fmt.Sprintf(`192.0.2.1 - - "GET /page-%d HTTP/1.1" 404`, i+1); requests[i] != want {
			t.Errorf("request %d: have %q, want %q", i+1, requests[i], want)
		}
		if want := fmt.Sprintf(`[error] open() "/usr/share/nginx/html/page-%d" failed (2: No such file or directory)`, i+1); errors[i] != want {
			t.Errorf("error %d: have %q, want %q", i+1, errors[i], want)
		}
	}
	if link := kubectl(t, "exec", "-n", ns, "deploy/nginx", "-c", "nginx", "--", "readlink", "/var/log/nginx/access.log"); link != "/dev/stdout\n" {
		t.Errorf("access.log is a link to %q, want /dev/stdout as in the image", link)
	}
}

func exampleJob(t *testing.T, ns string) {
	kubectl(t, "-n", ns, "wait", "--for=condition=complete", "job/report", "--timeout=180s")
	equalLines(t, lines(t, "1,000 rows", atLeast(1000), "-n", ns, "job/report", "-c", "log-bridge"), numbered("row", 1000))
}

func exampleCronJob(t *testing.T, ns string) {
	kubectl(t, "-n", ns, "create", "job", "--from=cronjob/nightly", "now")
	kubectl(t, "-n", ns, "wait", "--for=condition=complete", "job/now", "--timeout=180s")
	got := lines(t, "three lines", atLeast(3), "-n", ns, "job/now", "-c", "log-bridge")
	// stdout and stderr reach kubectl logs by two pipes, in no certain order.
	slices.Sort(got)
	equalLines(t, got, []string{"no new mail", "the nightly run begins", "the nightly run ends"})
}

func exampleTwoContainers(t *testing.T, ns string) {
	both := func(got []string) bool {
		text := "\n" + strings.Join(got, "\n") + "\n"
		return strings.Contains(text, "\nweb:/srv/app.log request 3\n") && strings.Contains(text, "\nworker:/srv/app.log task 3\n")
	}
	got := lines(t, "three lines of each", both, "-n", ns, "deploy/two-containers", "-c", "log-bridge")
	for _, want := range []string{"web:/srv/app.log request", "worker:/srv/app.log task"} {
		of := slices.DeleteFunc(slices.Clone(got), func(line string) bool { return !strings.HasPrefix(line, want+" ") })
		equalLines(t, of, numbered(want, len(of)))
		got = slices.DeleteFunc(got, func(line string) bool { return strings.HasPrefix(line, want+" ") })
	}
	if len(got) > 0 {
		t.Errorf("lines of neither container: %q", got)
	}
}

// The second pod's sidecar shows the second pod's lines only, from the first one on.
func exampleExistingClaim(t *testing.T, ns string) {
	volume := "examples-" + ns
	apply(t, ns, fmt.Sprintf(`
apiVersion: v1
kind: PersistentVolume
metadata: {name: %s}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: ""
  claimRef: {namespace: %s, name: existing-claim}
  hostPath: {path: /var/lib/%s, type: DirectoryOrCreate}
`, volume, ns, volume))
	t.Cleanup(func() {
		// The claim's pods come first: a volume in use is kept.
		for _, args := range [][]string{
			{"-n", ns, "delete", "deployment/existing-claim", "--cascade=foreground", "--timeout=60s"},
			{"-n", ns, "delete", "pvc/existing-claim", "--timeout=60s"},
			{"delete", "pv", volume, "--timeout=60s"},
		} {
			if _, err := tryKubectl(args...); err != nil {
				t.Error(err)
			}
		}
		if out, err := output(command(bed.cluster, "exec", "--name", clusterName(), "--", "rm", "-rf", "/var/lib/"+volume)); err != nil {
			t.Error(err, out)
		}
	})
	pod := func() (name string, got []string) {
		kubectl(t, "rollout", "status", "-n", ns, "deployment/existing-claim", "--timeout=180s")
		got = lines(t, "three lines", atLeast(3), "-n", ns, "deploy/existing-claim", "-c", "log-bridge")
		name, _, _ = strings.Cut(got[0], " ")
		equalLines(t, got, numbered(name+" line", len(got)))
		return name, got
	}
	first, _ := pod()
	kubectl(t, "rollout", "restart", "-n", ns, "deployment/existing-claim")
	second, got := pod()
	if first == second {
		t.Errorf("both pods are named %s", first)
	}
	file := kubectl(t, "exec", "-n", ns, "deploy/existing-claim", "-c", "app", "--", "cat", "/data/logs/app.log")
	if !strings.HasPrefix(file, first+" line 1\n") || !strings.Contains(file, strings.Join(got, "\n")+"\n") {
		t.Errorf("the volume does not hold the lines of both pods, have:\n%s", file)
	}
}

// The file grows beyond 16 MiB and takes less than half of it on the disk.
func exampleReclaim(t *testing.T, ns string) {
	kubectl(t, "rollout", "status", "-n", ns, "deployment/reclaim", "--timeout=180s")
	eventually(t, "blocks that were freed", func() (bool, string) {
		out := kubectl(t, "exec", "-n", ns, "deploy/reclaim", "-c", "app", "--", "stat", "-c", "%s %b", "/srv/app.log")
		var size, blocks int64
		if _, err := fmt.Sscan(out, &size, &blocks); err != nil {
			t.Fatalf("%q: %v", out, err)
		}
		return size > 16<<20 && blocks*512 < size/2, fmt.Sprintf("size %d, on the disk %d", size, blocks*512)
	})
	got := lines(t, "lines", atLeast(2), "-n", ns, "deploy/reclaim", "-c", "log-bridge", "--tail=100")
	for i := range got[1:] {
		if a, b := firstNumber(got[i]), firstNumber(got[i+1]); a+1 != b {
			t.Errorf("line %d is followed by line %d", a, b)
		}
	}
	// The application is none the worse for it, and the pod is not evicted.
	if phase := kubectl(t, "get", "pods", "-n", ns, "-o", "jsonpath={.items[*].status.phase}"); phase != "Running" {
		t.Errorf("the pod is %s", phase)
	}
}

// firstNumber is the number that a line begins with, -1 if it begins with none.
func firstNumber(line string) int {
	n, err := strconv.Atoi(strings.Fields(line + " x")[0])
	if err != nil {
		return -1
	}
	return n
}
