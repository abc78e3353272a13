package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// A file in /tmp, on a node that protects sticky directories as most do: the whole directory is
// shared, since not even root could open another user's file there for creation.
func TestStickyDirectory(t *testing.T) {
	ns := namespace(t)
	sysctl(t, "/proc/sys/fs/protected_regular", "2")
	apply(t, ns, `
apiVersion: v1
kind: Pod
metadata:
  name: sticky
  annotations: {log-bridge.dev/files: /tmp/app.log}
spec:
  restartPolicy: Never
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    command: [sh, -ec, 'echo one >> /tmp/app.log; mv /tmp/app.log /tmp/app.log.1; echo two >> /tmp/app.log; stat -c %a /tmp']
    securityContext: {runAsUser: 1234}
`)
	equalLines(t, lines(t, "two lines", atLeast(2), "-n", ns, "sticky", "-c", "log-bridge"), []string{"one", "two"})
	if out := kubectl(t, "-n", ns, "logs", "sticky", "-c", "app"); !strings.HasPrefix(out, "3777") && !strings.HasPrefix(out, "1777") {
		t.Errorf("/tmp has mode %q, want it sticky and writable for all", out)
	}
}

// sysctl sets a kernel setting for the rest of the test.
func sysctl(t *testing.T, file, value string) {
	t.Helper()
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(file, old, 0); err != nil {
			t.Error(err)
		}
	})
}

func atLeast(n int) func([]string) bool { return func(got []string) bool { return len(got) >= n } }

// Files that only their owner may read: the sidecar is the same user where the pod says which,
// says what to do where it does not, and does as run-as-user says.
func TestPrivateFiles(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	for _, pod := range []struct{ name, annotations, context string }{
		{"known", "", "securityContext: {runAsUser: 4321}"},
		{"group", "", "securityContext: {runAsUser: 4321, runAsGroup: 77, fsGroup: 2000}"},
		{"root-by-image", "", ""},
		{"root-told", `log-bridge.dev/run-as-user: "0", `, ""},
	} {
		apply(t, ns, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata:
  name: %s
  annotations: {%slog-bridge.dev/files: "/var/log/app/app.log"}
spec:
  terminationGracePeriodSeconds: 1
  %s
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    command: [sh, -ec, 'umask 077; echo private > /var/log/app/app.log; exec sleep 3600']
`, pod.name, pod.annotations, pod.context))
	}
	for _, name := range []string{"known", "group", "root-told"} {
		equalLines(t, lines(t, "the line of "+name, atLeast(1), "-n", ns, name, "-c", "log-bridge"), []string{"private"})
	}
	got := lines(t, "the sentence", atLeast(1), "-n", ns, "root-by-image", "-c", "log-bridge")
	want := `log-bridge: app:/var/log/app/app.log has mode 0600 and belongs to user 0; log-bridge runs as user 41932 and cannot read it; retrying. Have the application create it readable by others (umask 022)`
	equalLines(t, got, []string{want})
}

// What the image has in a log directory is there as before: files, links, directories and their modes.
func TestSeededDirectory(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	const show = `cd /var/log/app; find . | sort; readlink link; cat old/app.log.0 README; stat -c '%A %n' README old/app.log.0`
	pod := func(name, annotation string) string {
		return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, annotations: {%s}}
spec:
  restartPolicy: Never
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    command: [sh, -ec, "%s; echo new >> old/app.log.0"]
`, name, annotation, show)
	}
	apply(t, ns, pod("before", ""))
	apply(t, ns, pod("after", "log-bridge.dev/files: /var/log/app/**/*.log*"))
	want := lines(t, "what the image has", atLeast(8), "-n", ns, "before", "-c", "app")
	equalLines(t, lines(t, "what the injected pod has", atLeast(8), "-n", ns, "after", "-c", "app"), want)
	// Only what this pod appended to a seeded file is a log line.
	equalLines(t, lines(t, "the appended line", atLeast(1), "-n", ns, "after", "-c", "log-bridge"), []string{"new"})
}

// An image whose log is a link to its stdout, as with nginx: it keeps working, and the sidecar
// says that there is nothing to deliver.
func TestLinkToStdout(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, `
apiVersion: v1
kind: Pod
metadata: {name: linked, annotations: {log-bridge.dev/files: /var/log/web/*.log}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    command: [sh, -ec, 'echo to-stdout > /var/log/web/access.log; echo to-file > /var/log/web/error.log; exec sleep 3600']
`)
	equalLines(t, lines(t, "the application's stdout", atLeast(1), "-n", ns, "linked", "-c", "app"), []string{"to-stdout"})
	got := lines(t, "the file's line and the sentence", atLeast(2), "-n", ns, "linked", "-c", "log-bridge")
	text := strings.Join(got, "\n")
	if len(got) != 2 || !strings.Contains(text, "to-file") || !strings.Contains(text, "app:/var/log/web/access.log is a link to /dev/stdout, the application's own output") {
		t.Errorf("have:\n%s", text)
	}
}

// An application and its sidecar are killed, in turn, with each way of sharing: nothing is missing and
// the files stay bound.
func TestRestarts(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, `
apiVersion: v1
kind: Pod
metadata:
  name: restarting
  annotations: {log-bridge.dev/format: prefix, log-bridge.dev/files: "/data/shared.log,/var/log/app/directory.log,/srv/file.log"}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: data, emptyDir: {}}]
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    volumeMounts: [{name: data, mountPath: /data}]
    command:
    - sh
    - -ec
    - |
      n=$(cat /data/n 2>/dev/null || echo 0); n=$((n+1)); echo $n > /data/n
      for f in /data/shared.log /var/log/app/directory.log /srv/file.log; do echo "start $n" >> $f; done
      while [ ! -e /data/end$n ]; do usleep 50000; done
`)
	want := map[string]int{}
	start := func(n int) {
		t.Helper()
		for _, file := range []string{"/data/shared.log", "/var/log/app/directory.log", "/srv/file.log"} {
			want[fmt.Sprintf("app:%s start %d", file, n)] = 1
		}
		var have map[string]int
		eventually(t, fmt.Sprintf("the lines of start %d", n), func() (bool, string) {
			have = map[string]int{}
			for _, previous := range []string{"--previous=true", "--previous=false"} {
				out, _ := tryKubectl("logs", "-n", ns, "restarting", "-c", "log-bridge", previous)
				for line := range strings.Lines(out) {
					have[strings.TrimSuffix(line, "\n")]++
				}
			}
			for line := range want {
				if have[line] == 0 {
					return false, fmt.Sprint(have)
				}
			}
			return true, ""
		})
		for line, times := range have {
			if want[line] != times {
				t.Errorf("%q came %d times, want %d", line, times, want[line])
			}
		}
	}
	start(1)
	kubectl(t, "exec", "-n", ns, "restarting", "-c", "app", "--", "touch", "/data/end1")
	start(2)
	id := sidecarID(t, ns, "restarting")
	killSidecar(t, id)
	eventually(t, "a new sidecar container", func() (bool, string) { now := sidecarID(t, ns, "restarting"); return now != "" && now != id, now })
	kubectl(t, "exec", "-n", ns, "restarting", "-c", "app", "--", "touch", "/data/end2")
	start(3)
}

// A pod is deleted while it writes: what it wrote before it ended is all there, with each way of
// sharing. It pauses now and then, so that the kubelet does not rotate the sidecar's log (10 MiB) meanwhile:
// kubectl logs -f may miss the end of a rotated one.
func TestDeletedUnderLoad(t *testing.T) {
	t.Parallel()
	for way, file := range map[string]string{"volume": "/data/app.log", "directory": "/var/log/app/app.log", "file": "/srv/app.log"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			ns := namespace(t)
			apply(t, ns, strings.ReplaceAll(`
apiVersion: v1
kind: Pod
metadata: {name: loaded, annotations: {log-bridge.dev/files: FILE}}
spec:
  terminationGracePeriodSeconds: 30
  volumes: [{name: data, emptyDir: {}}]
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    volumeMounts: [{name: data, mountPath: /data}]
    command:
    - sh
    - -c
    - |
      trap 'echo "last $i" >> FILE; exit 0' TERM
      i=0; while true; do i=$((i+1)); echo "line $i" >> FILE; [ $((i % 1000)) != 0 ] || sleep 0.1; done
`, "FILE", file))
			eventually(t, "the first line", func() (bool, string) {
				out, err := tryKubectl("-n", ns, "logs", "loaded", "-c", "log-bridge", "--limit-bytes=100")
				return err == nil && out != "", fmt.Sprint(out, err)
			})
			stream := follow(t, "-n", ns, "loaded", "-c", "log-bridge")
			n, last := 0, ""
			for line := range stream {
				if n++; n == 2000 {
					kubectl(t, "delete", "pod", "-n", ns, "loaded", "--wait=false")
				}
				if last = line; strings.HasPrefix(line, "last ") {
					break
				}
				if line != fmt.Sprintf("line %d", n) {
					t.Fatalf("line %d: have %q", n, line)
				}
			}
			// The signal may come between counting a line and writing it.
			if last != fmt.Sprintf("last %d", n-1) && last != fmt.Sprintf("last %d", n) {
				t.Errorf("the last line of %d is %q", n, last)
			}
		})
	}
}

// The user's own init container makes the file under the subPath that is shared.
func TestInitContainerMakesTheFile(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, `
apiVersion: v1
kind: Pod
metadata: {name: made, annotations: {log-bridge.dev/files: /srv/app.log}}
spec:
  restartPolicy: Never
  volumes: [{name: data, emptyDir: {}}]
  initContainers:
  - name: make
    image: log-bridge.test/rotator:1
    volumeMounts: [{name: data, mountPath: /data}]
    command: [sh, -ec, 'mkdir -p /data/logs; touch /data/logs/$NAME.log']
    env: [{name: NAME, value: one}]
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    env: [{name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
    volumeMounts:
    - {name: data, mountPath: /srv/app.log, subPath: logs/one.log}
    command: [sh, -ec, 'echo $POD >> /srv/app.log']
`)
	equalLines(t, lines(t, "the line", atLeast(1), "-n", ns, "made", "-c", "log-bridge"), []string{"made"})
}

// Quotas, LimitRanges and resources of the pod as a whole: the pod is admitted, runs, and keeps
// its QoS class.
func TestResources(t *testing.T) {
	t.Parallel()
	const quota = `
apiVersion: v1
kind: ResourceQuota
metadata: {name: all}
spec: {hard: {limits.cpu: "4", limits.memory: 4Gi, requests.cpu: "4", requests.memory: 4Gi}}
---`
	const limitRange = `
apiVersion: v1
kind: LimitRange
metadata: {name: usual}
spec: {limits: [{type: Container, default: {cpu: 500m, memory: 256Mi}, defaultRequest: {cpu: 50m, memory: 64Mi}, max: {cpu: "1", memory: 512Mi}, min: {cpu: 1m, memory: 4Mi}}]}
---`
	for _, c := range []struct{ name, rules, pod, resources, class string }{
		{"guaranteed under a quota", quota, "", "{limits: {cpu: 100m, memory: 64Mi}}", "Guaranteed"},
		{"burstable under a quota", quota, "", "{limits: {cpu: 100m, memory: 64Mi}, requests: {cpu: 10m, memory: 32Mi}}", "Burstable"},
		{"nothing under a LimitRange", limitRange, "", "{}", "Burstable"},
		{"guaranteed under both", quota + limitRange, "", "{limits: {cpu: 100m, memory: 64Mi}}", "Guaranteed"},
		{"nothing at all", "", "", "{}", "Burstable"},
		{"guaranteed by resources of the pod", "", "resources: {limits: {cpu: 200m, memory: 128Mi}, requests: {cpu: 200m, memory: 128Mi}}", "{limits: {cpu: 200m, memory: 128Mi}}", "Guaranteed"},
		{"limits of the pod alone", "", "resources: {limits: {cpu: 200m, memory: 128Mi}}", "{}", "Guaranteed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ns := namespace(t)
			apply(t, ns, c.rules+fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: paid, annotations: {log-bridge.dev/files: "/srv/file.log,/var/log/app/app.log"}}
spec:
  restartPolicy: Never
  %s
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    command: [sh, -ec, 'echo paid >> /srv/file.log; echo paid >> /var/log/app/app.log']
    resources: %s
`, c.pod, c.resources))
			equalLines(t, lines(t, "both lines", atLeast(2), "-n", ns, "paid", "-c", "log-bridge"), []string{"paid", "paid"})
			if class := kubectl(t, "-n", ns, "get", "pod", "paid", "-o", "jsonpath={.status.qosClass}"); class != c.class {
				t.Errorf("the pod's QoS class is %s, want %s", class, c.class)
			}
		})
	}
}

// A LimitRange whose minimum the sidecar does not meet refuses the pod, and an annotation helps.
func TestLimitRangeMinimum(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, `
apiVersion: v1
kind: LimitRange
metadata: {name: large}
spec: {limits: [{type: Container, min: {cpu: 50m}}]}
`)
	pod := func(annotations string) string {
		return "apiVersion: v1\nkind: Pod\nmetadata: {name: x, annotations: {" + annotations + "}}\nspec: {containers: [{name: app, image: x, resources: {requests: {cpu: 100m}}}]}\n"
	}
	for annotations, want := range map[string]string{
		"":                               "created",
		"log-bridge.dev/files: /app.log": "minimum cpu usage per Container is 50m, but request is 5m",
		"log-bridge.dev/files: /app.log, log-bridge.dev/cpu-request: 50m": "created",
	} {
		eventually(t, "the LimitRange to count", func() (bool, string) {
			out := dryRun(t, ns, pod(annotations))
			return strings.Contains(out, want), out
		})
	}
}

// Volumes of the user: a claim with subPathExpr, whose directory the user's own init container makes, a
// volume mounted in another, and a directory of the node, of which older lines are not repeated.
func TestVolumes(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	host := "/var/lib/" + ns // in the node; it goes with the cluster
	kubectl(t, "create", "-f", writeFile(t, fmt.Sprintf(`
apiVersion: v1
kind: PersistentVolume
metadata: {name: %s}
spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], storageClassName: "", claimRef: {namespace: %s, name: kept}, hostPath: {path: %s/claim, type: DirectoryOrCreate}}
`, ns, ns, host)))
	t.Cleanup(func() { kubectl(t, "delete", "pv", ns, "--wait=false") })
	const pod = `
apiVersion: v1
kind: Pod
metadata:
  name: %s
  annotations:
    log-bridge.dev/format: prefix
    log-bridge.dev/files: "%s"
spec:
  restartPolicy: Never
  volumes:
  - {name: kept, persistentVolumeClaim: {claimName: kept}}
  - {name: node, hostPath: {path: ` + "%s" + `/host, type: DirectoryOrCreate}}
  - {name: outer, emptyDir: {}}
  - {name: inner, emptyDir: {}}
  initContainers:
  - name: make
    image: log-bridge.test/rotator:1
    volumeMounts: [{name: kept, mountPath: /kept}]
    env: [{name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
    command: [sh, -ec, 'mkdir -p /kept/logs; touch /kept/logs/$POD.log']
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    env: [{name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}, {name: FILE, value: $(POD).log}]
    volumeMounts:
    - {name: kept, mountPath: /srv/app.log, subPathExpr: logs/$(FILE)}
    - {name: node, mountPath: /node}
    - {name: outer, mountPath: /data}
    - {name: inner, mountPath: /data/logs/inner}
    command: [sh, -ec, 'for f in /srv/app.log /node/node.log /data/logs/outer.log /data/logs/inner/deep/inner.log; do mkdir -p $(dirname $f); echo $POD >> $f; done']
---
`
	apply(t, ns, `
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: kept}
spec: {accessModes: [ReadWriteOnce], storageClassName: "", volumeName: `+ns+`, resources: {requests: {storage: 1Gi}}}
---`+strings.Replace(fmt.Sprintf(pod, "older", "/unused", host), "annotations:", "annotations:\n    log-bridge.dev/inject: 'false'", 1))
	kubectl(t, "-n", ns, "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/older", "--timeout=180s")
	apply(t, ns, fmt.Sprintf(pod, "newer", "/srv/app.log,/node/*.log,/data/**/*.log", host))
	got := lines(t, "four lines", atLeast(4), "-n", ns, "newer", "-c", "log-bridge")
	slices.Sort(got)
	equalLines(t, got, []string{"app:/data/logs/inner/deep/inner.log newer", "app:/data/logs/outer.log newer", "app:/node/node.log newer", "app:/srv/app.log newer"})
}

// writeFile is the name of a file with a text.
func writeFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "manifest.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// An init container, a native sidecar and two containers are followed, each of another user, with
// each way of sharing. Each sees its own files only.
func TestSeveralContainersAndUsers(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	container := func(name string, user int, more string) string {
		return fmt.Sprintf(`
  - name: %s
    image: log-bridge.test/rotator:1
    securityContext: {runAsUser: %d, runAsGroup: %d}
    volumeMounts: [{name: data, mountPath: /data}]
    command: [sh, -ec, 'for f in /srv/file.log /var/log/app/directory.log /data/%s.log; do echo "$(id -u) %s" >> $f; done; cat /var/log/app/README >&2%s']`, name, user, user, name, name, more)
	}
	var entries []string
	for _, name := range []string{"first", "side", "one", "two"} {
		entries = append(entries, name+":/srv/file.log", name+":/var/log/app/*.log", name+":/data/"+name+".log")
	}
	apply(t, ns, `
apiVersion: v1
kind: Pod
metadata:
  name: several
  annotations: {log-bridge.dev/format: prefix, log-bridge.dev/files: "`+strings.Join(entries, ",")+`"}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  volumes: [{name: data, emptyDir: {}}]
  initContainers:`+container("first", 1001, "")+container("side", 1002, "; exec sleep 3600")+"\n    restartPolicy: Always\n  containers:"+container("one", 1003, "")+container("two", 0, "")+"\n")
	var want []string
	for name, user := range map[string]int{"first": 1001, "side": 1002, "one": 1003, "two": 0} {
		for _, file := range []string{"/srv/file.log", "/var/log/app/directory.log", "/data/" + name + ".log"} {
			want = append(want, fmt.Sprintf("%s:%s %d %s", name, file, user, name))
		}
		if out := kubectlEventually(t, "-n", ns, "logs", "several", "-c", name); out != "read me\n" {
			t.Errorf("%s says %q, want what its image's README has", name, out)
		}
	}
	got := lines(t, "twelve lines", atLeast(12), "-n", ns, "several", "-c", "log-bridge")
	slices.Sort(got)
	slices.Sort(want)
	equalLines(t, got, want)
}

// kubectlEventually is the first output of kubectl that is not empty.
func kubectlEventually(t *testing.T, args ...string) string {
	t.Helper()
	var out string
	eventually(t, "kubectl "+strings.Join(args, " "), func() (bool, string) {
		var err error
		out, err = tryKubectl(args...)
		return err == nil && out != "", fmt.Sprint(out, err)
	})
	return out
}

// An image without a shell, or anything else but its program: what it has in its log directory is
// there, and its lines come.
func TestImageWithoutShell(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, `
apiVersion: v1
kind: Pod
metadata: {name: bare, annotations: {log-bridge.dev/files: /var/log/app/app.log}}
spec:
  restartPolicy: Never
  containers:
  - name: app
    image: log-bridge.test/shellless:1
    command: [/busybox, cp, /var/log/app/link, /var/log/app/app.log]
    securityContext: {readOnlyRootFilesystem: true}
`)
	equalLines(t, lines(t, "the line", atLeast(1), "-n", ns, "bare", "-c", "log-bridge"), []string{"of the image"})
}

// The containers that are added have no token of the service account; the application keeps its own.
func TestNoToken(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	const where = "/var/run/secrets/kubernetes.io/serviceaccount"
	apply(t, ns, `
apiVersion: v1
kind: Pod
metadata: {name: trusted, annotations: {log-bridge.dev/files: "/var/log/app/app.log"}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    command: [sh, -ec, 'test -s `+where+`/token; echo trusted > /var/log/app/app.log; exec sleep 3600']
`)
	equalLines(t, lines(t, "the line", atLeast(1), "-n", ns, "trusted", "-c", "log-bridge"), []string{"trusted"})
	var pod corev1.Pod
	if err := json.Unmarshal([]byte(kubectl(t, "-n", ns, "get", "pod", "trusted", "-o", "json")), &pod); err != nil {
		t.Fatal(err)
	}
	if len(pod.Spec.InitContainers) != 2 {
		t.Fatalf("%d init containers, want the sidecar and one that seeds", len(pod.Spec.InitContainers))
	}
	for _, c := range pod.Spec.InitContainers {
		for _, m := range c.VolumeMounts {
			if strings.HasPrefix(m.Name, "kube-api-access") {
				t.Errorf("container %s mounts %s at %s", c.Name, m.Name, m.MountPath)
			}
		}
	}
	// The sidecar has no shell, but its process can be inspected from the node.
	id := sidecarID(t, ns, "trusted")
	listed, err := output(command(bed.cluster, "exec", "--name", clusterName(), "--", "sh", "-c",
		`ls -A /proc/$(ctr -n k8s.io tasks list | awk -v id=`+id+` '$1 == id {print $2}')/root`+where))
	if err != nil || listed != "" {
		t.Errorf("the sidecar sees %q at %s: %v", listed, where, err)
	}
}

// A copy of an injected pod, as kubectl debug makes it: with all that was added it is left as it is,
// without its init containers it is given them again.
func TestCopiedPod(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, `
apiVersion: v1
kind: Pod
metadata: {name: original, annotations: {log-bridge.dev/files: "/srv/file.log,/var/log/app/app.log"}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    command: [sh, -ec, 'echo line >> /srv/file.log; echo line >> /var/log/app/app.log; exec sleep 3600']
`)
	want := []string{"line", "line"}
	equalLines(t, lines(t, "both lines", atLeast(2), "-n", ns, "original", "-c", "log-bridge"), want)
	names := containerNames(t, kubectl(t, "-n", ns, "get", "pod", "original", "-o", "json"))
	const image = "--set-image=app=log-bridge.test/rotator:1"
	debug := func(copied string, flags ...string) string {
		cmd := command(bed.kubectl, append([]string{"--kubeconfig", bed.kubeconfig, "-n", ns, "debug", "original", "--copy-to=" + copied}, flags...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	for copied, flags := range map[string][]string{
		"whole":   {"--keep-annotations=true", image},
		"without": {"--keep-annotations=true", "--keep-init-containers=false", image},
		"default": {image},
	} {
		if out := debug(copied, flags...); strings.Contains(out, "sidecar") {
			t.Errorf("%s: kubectl debug printed\n%s", copied, out)
		}
		equalLines(t, lines(t, "both lines of the copy "+copied, atLeast(2), "-n", ns, copied, "-c", "log-bridge"), want)
		if have := containerNames(t, kubectl(t, "-n", ns, "get", "pod", copied, "-o", "json")); have != names {
			t.Errorf("%s: containers %s, want %s", copied, have, names)
		}
	}
	// Without annotations and init containers nobody can give it the sidecar again.
	// The flags that drop things count only where a container is added.
	debug("bare", "--keep-init-containers=false", "--profile=general", "--image=log-bridge.test/rotator:1", "--", "sleep", "3600")
	told(t, ns, 1, "Pod/bare: has mistakes\n  mistake LB0720: ")
	const words = "the sidecar of this pod was removed"
	if out := dryRun(t, ns, `
apiVersion: v1
kind: Pod
metadata: {name: bare-again}
spec:
  volumes: [{name: log-bridge, emptyDir: {}}]
  containers: [{name: app, image: x, volumeMounts: [{name: log-bridge, mountPath: /srv/file.log, subPath: app/srv/file.log}]}]
`); !strings.Contains(out, words) || !strings.Contains(out, "created") {
		t.Errorf("a copy without the sidecar: kubectl printed\n%s", out)
	}
}

// A container starts again. What it finds of its earlier life is, with each way of sharing, what
// docs/sharing.md says; without us it is nothing, but on a volume of the pod's own.
func TestRestartFinds(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	var containers strings.Builder
	files := map[string]string{"without": "", "file": "/srv/app.log", "directory": "/var/log/app/app.log", "volume": "/data/app.log"}
	var entries []string
	for _, name := range slices.Sorted(maps.Keys(files)) {
		dir := "/var/log/app"
		if file := files[name]; file != "" {
			dir = path.Dir(file)
			entries = append(entries, name+":"+file)
		}
		mount := ""
		if name == "volume" {
			mount = "\n    volumeMounts: [{name: data, mountPath: /data}]"
		}
		fmt.Fprintf(&containers, `
  - name: %s
    image: log-bridge.test/rotator:1%s
    command:
    - sh
    - -ec
    - |
      cd %s
      echo "finds: pid $(test -e app.pid && echo yes || echo no), log $(test -s app.log && echo yes || echo no), edits $(cat README 2>/dev/null | grep -c edited || true)"
      echo $$ > app.pid; echo line >> app.log; echo edited >> README
      exec sleep 3600`, name, mount, dir)
	}
	apply(t, ns, `
apiVersion: v1
kind: Pod
metadata: {name: restarting, annotations: {log-bridge.dev/files: "`+strings.Join(entries, ",")+`"}}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: data, emptyDir: {}}]
  containers:`+containers.String())
	for container, want := range map[string]string{
		"without":   "finds: pid no, log no, edits 0",
		"file":      "finds: pid no, log yes, edits 0",
		"directory": "finds: pid yes, log yes, edits 1",
		"volume":    "finds: pid yes, log yes, edits 1",
	} {
		first := lines(t, "the first start of "+container, atLeast(1), "-n", ns, "restarting", "-c", container)
		equalLines(t, first, []string{"finds: pid no, log no, edits 0"})
		killSidecar(t, containerID(t, ns, "restarting", container))
		var again []string
		eventually(t, "the second start of "+container, func() (bool, string) {
			count := kubectl(t, "-n", ns, "get", "pod", "restarting", "-o", `jsonpath={.status.containerStatuses[?(@.name=="`+container+`")].restartCount}`)
			if count != "1" {
				return false, count
			}
			out, err := tryKubectl("-n", ns, "logs", "restarting", "-c", container)
			again = strings.Split(strings.TrimSpace(out), "\n")
			return err == nil && strings.Contains(out, "finds"), out
		})
		equalLines(t, again, []string{want})
	}
}

// containerID is that of a container that runs.
func containerID(t *testing.T, ns, pod, container string) string {
	t.Helper()
	id := kubectl(t, "-n", ns, "get", "pod", pod, "-o", `jsonpath={.status.containerStatuses[?(@.name=="`+container+`")].containerID}`)
	return strings.TrimPrefix(id, "containerd://")
}

// What inject prints runs where no webhook is, and a webhook that sees it leaves it as it is.
func TestInjectedManifest(t *testing.T) {
	t.Parallel()
	ns := namespace(t, "log-bridge.dev/inject=false")
	program := compile(t, "webhook/kubectl-log_bridge")
	const manifest = `
apiVersion: v1
kind: Pod
metadata: {name: offline, annotations: {log-bridge.dev/files: "/srv/file.log,/var/log/app/app.log"}}
spec:
  restartPolicy: Never
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    command: [sh, -ec, 'echo line >> /srv/file.log; echo line >> /var/log/app/app.log']
`
	made, err := output(command(program, "inject", "--image", "ghcr.io/log-bridge/log-bridge:test", "-f", writeFile(t, manifest)))
	if err != nil {
		t.Fatal(err)
	}
	apply(t, ns, made)
	equalLines(t, lines(t, "both lines", atLeast(2), "-n", ns, "offline", "-c", "log-bridge"), []string{"line", "line"})
	inNamespace := kubectl(t, "-n", ns, "get", "pod", "offline", "-o", "json")

	kubectl(t, "label", "namespace", ns, "log-bridge.dev/inject-")
	eventually(t, "the webhook's look", func() (bool, string) {
		out := dryRun(t, ns, strings.Replace(manifest, "name: offline", "name: asks", 1), "--output=json")
		return strings.HasPrefix(out, "{") && containerNames(t, out) == containerNames(t, inNamespace), out
	})
	out := dryRun(t, ns, strings.Replace(made, "name: offline", "name: again", 1), "--output=json")
	if !strings.HasPrefix(out, "{") || containerNames(t, out) != containerNames(t, inNamespace) {
		t.Errorf("with the webhook: %s", out)
	}
}

// TestGlobs: classes and alternatives mean the same to the webhook, which mounts the volumes below them, and to the
// sidecar.
func TestGlobs(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, `
apiVersion: v1
kind: Pod
metadata:
  name: globs
  annotations:
    log-bridge.dev/format: prefix
    log-bridge.dev/files: '/data/[!x]*/app.log, /srv/{a,b/{c,d}}.log'
spec:
  restartPolicy: Never
  volumes: [{name: foo, emptyDir: {}}, {name: xray, emptyDir: {}}]
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    volumeMounts: [{name: foo, mountPath: /data/foo}, {name: xray, mountPath: /data/xray}]
    command: [sh, -ec, 'for f in /data/foo/app.log /data/xray/app.log /srv/a.log /srv/b/c.log /srv/b/d.log /srv/b/e.log; do mkdir -p $(dirname $f); echo line >> $f; done']
`)
	got := lines(t, "four lines", atLeast(4), "-n", ns, "globs", "-c", "log-bridge")
	slices.Sort(got)
	equalLines(t, got, []string{"app:/data/foo/app.log line", "app:/srv/a.log line", "app:/srv/b/c.log line", "app:/srv/b/d.log line"})
}
