package e2e

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/log-bridge/log-bridge/test/helpers/testbed"
)

// hooks are webhooks of webhook/internal/testwebhooks that run inside the node for one test.
type hooks struct {
	port, ca string

	mu     sync.Mutex
	called map[string]int // by path
}

func startHooks(t *testing.T) *hooks {
	t.Helper()
	program := compile(t, "webhook/internal/testwebhooks")
	h := &hooks{called: map[string]int{}}
	said, _ := testbed.Beside(t, bed.all.Inside(program), 2, func(path string) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.called[path]++
	})
	h.port, h.ca = said[0], said[1]
	return h
}

func (h *hooks) calls(path string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.called[path]
}

// configure registers a webhook for one namespace, until the test ends: the chart's own
// configuration with another address, so that its policies, timeout and conditions are those
// that are tested. Several are called in the order of their names.
func (h *hooks) configure(t *testing.T, name, ns, path string, set ...string) {
	t.Helper()
	h.configureAgain(t, "IfNeeded", name, ns, path, set...)
}

// configureAgain also says whether a webhook that is not ours is asked again after others.
func (h *hooks) configureAgain(t *testing.T, reinvocation, name, ns, path string, set ...string) {
	t.Helper()
	args := []string{"template", "log-bridge", filepath.Join(bed.top, "charts/log-bridge"), "--show-only", "templates/mutatingwebhookconfiguration.yaml"}
	for _, s := range set {
		args = append(args, "--set", s)
	}
	text, err := output(command(bed.helm, args...))
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := yaml.Unmarshal([]byte(text), &config); err != nil {
		t.Fatal(err)
	}
	config["metadata"] = map[string]any{"name": name}
	hook := config["webhooks"].([]any)[0].(map[string]any)
	hook["clientConfig"] = map[string]any{"url": "https://127.0.0.1:" + h.port + path, "caBundle": h.ca}
	hook["namespaceSelector"] = map[string]any{"matchLabels": map[string]any{"kubernetes.io/metadata.name": ns}}
	if !slices.Contains([]string{"/works", "/panics", "/slow", "/429", "/503"}, path) {
		// Webhooks other than ours see all pods.
		delete(hook, "matchConditions")
		hook["reinvocationPolicy"] = reinvocation
		hook["name"] = strings.TrimPrefix(path, "/") + ".example.com"
	}
	manifest, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	cmd := command(bed.kubectl, "--kubeconfig", bed.kubeconfig, "apply", "-f", "-")
	cmd.Stdin = strings.NewReader(string(manifest))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Cleanup(func() {
		if _, err := tryKubectl("delete", "mutatingwebhookconfiguration", name, "--ignore-not-found"); err != nil {
			t.Error(err)
		}
	})
}

// post sends a pod to the API server unchanged, byte for byte, as a dry run. It returns
// the pod that the API server would make, or the error.
func post(t *testing.T, ns, pod string) (string, error) {
	t.Helper()
	cmd := command(bed.kubectl, "--kubeconfig", bed.kubeconfig, "create", "--raw", "/api/v1/namespaces/"+ns+"/pods?dryRun=All", "-f", "-")
	cmd.Stdin = strings.NewReader(pod)
	return output(cmd)
}

// asked is a small pod as JSON, with one environment variable and, where it is annotated, our
// annotation.
func asked(annotated bool, value string) string {
	annotations := ""
	if annotated {
		annotations = `,"annotations":{"log-bridge.dev/files":"/app/app.log"}`
	}
	return `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"` + annotations + `},"spec":{"containers":[{"name":"app","image":"x","env":[{"name":"A","value":"` + value + `"}]}]}}`
}

// names of the init containers, and of the containers behind a bar, of a pod's JSON.
func containerNames(t *testing.T, pod string) string {
	t.Helper()
	var p struct {
		Spec struct {
			InitContainers, Containers []struct{ Name string }
		}
	}
	if err := json.Unmarshal([]byte(pod), &p); err != nil {
		t.Fatalf("%v: %.500s", err, pod)
	}
	var all []string
	for _, c := range p.Spec.InitContainers {
		all = append(all, c.Name)
	}
	all = append(all, "|")
	for _, c := range p.Spec.Containers {
		all = append(all, c.Name)
	}
	return strings.Join(all, " ")
}

// What a failure of the webhook leads to is the failurePolicy's to decide, whatever it is that
// fails; and a pod without the annotation never notices.
//
// The API server takes requests of up to 3 MiB. One that is near to it is injected like any
// other. A request of more than 7 MiB, which the webhook's library does not read, reaches it all
// the same: in the review that the API server writes, each < takes six bytes.
func TestFailurePolicy(t *testing.T) {
	ns := namespace(t, "log-bridge.dev/inject=false") // keeps the installed webhook out
	h := startHooks(t)
	down := &hooks{port: "1", ca: h.ca}
	plain := asked(false, "x")
	before, err := post(t, ns, plain)
	if err != nil {
		t.Fatal(err)
	}
	const unchanged, with = "| app", "log-bridge | app"
	if names := containerNames(t, before); names != unchanged {
		t.Fatalf("without a webhook: containers %s", names)
	}

	for _, policy := range []string{"Ignore", "Fail"} {
		for _, c := range []struct {
			name  string
			hooks *hooks
			path  string
			pod   string
		}{
			{"down", down, "/works", asked(true, "x")},
			{"slow", h, "/slow", asked(true, "x")},
			{"panics", h, "/panics", asked(true, "x")},
			{"busy", h, "/429", asked(true, "x")},
			{"unavailable", h, "/503", asked(true, "x")},
			{"7 MiB", h, "/works", asked(true, strings.Repeat("<", 5<<18))},
		} {
			t.Run(policy+" "+c.name, func(t *testing.T) {
				called := c.hooks.calls(c.path)
				c.hooks.configure(t, "test-failure-policy", ns, c.path, "webhook.failurePolicy="+policy)
				// The API server hears of it a moment later. Until then all pods are as before, or
				// as with the configuration before this one.
				eventually(t, "a failed call", func() (bool, string) {
					ignored := failOpen(t)
					made, err := post(t, ns, c.pod)
					came := c.hooks == down || c.hooks.calls(c.path) > called
					switch {
					case policy == "Fail" && err != nil && !strings.Contains(err.Error(), `failed calling webhook "inject.log-bridge.dev"`):
						t.Fatalf("refused, but not for the failed call: %.2000s", err)
					case policy == "Fail":
						return err != nil && came, "admitted, or no call came"
					case err != nil:
						t.Fatalf("refused in spite of failurePolicy Ignore: %.2000s", err)
					case containerNames(t, made) != unchanged:
						t.Fatalf("made %s, want the pod as it was", containerNames(t, made))
					}
					return failOpen(t) > ignored && came, "no failed call is counted, or none came"
				})
				called = c.hooks.calls(c.path)
				if made, err := post(t, ns, plain); err != nil || containerNames(t, made) != unchanged {
					t.Errorf("a pod without the annotation: %.2000s %v", made, err)
				}
				if now := c.hooks.calls(c.path); now != called {
					t.Errorf("a pod without the annotation was sent to the webhook")
				}
			})
		}
		// The same configuration with a webhook that works.
		t.Run(policy+" works", func(t *testing.T) {
			h.configure(t, "test-failure-policy", ns, "/works", "webhook.failurePolicy="+policy)
			eventually(t, "injection", func() (bool, string) {
				made, err := post(t, ns, asked(true, "x"))
				return err == nil && containerNames(t, made) == with, fmt.Sprintf("%.2000s %v", made, err)
			})
			// What is around the value takes less than 1 KiB.
			made, err := post(t, ns, asked(true, strings.Repeat("x", 3<<20-1<<10)))
			if err != nil || containerNames(t, made) != with {
				t.Errorf("a pod of nearly 3 MiB: %.2000s %v", made, err)
			}
			if _, err := post(t, ns, asked(true, strings.Repeat("x", 3<<20))); err == nil || !strings.Contains(err.Error(), "limit is 3145728") {
				t.Errorf("a pod of more than 3 MiB: %.2000s; the API server is said to take none", fmt.Sprint(err))
			}
		})
	}
}

// Another webhook, before or after ours, adds containers, a volume and mounts, also to the
// sidecar. Ours is asked again after it; the pod has one sidecar, and its line is there once.
func TestOtherWebhooks(t *testing.T) {
	h := startHooks(t)
	for _, c := range []struct{ name, config, containers string }{
		{"before", "a-foreign", "log-bridge log-bridge-seed-app foreign-proxy | foreign app"},
		{"after", "z-foreign", "foreign-proxy log-bridge log-bridge-seed-app | foreign app"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ns := namespace(t)
			h.configure(t, c.config, ns, "/foreign")
			eventually(t, "the other webhook", func() (bool, string) {
				made, err := post(t, ns, asked(false, "x"))
				return err == nil && containerNames(t, made) == "foreign-proxy | foreign app", fmt.Sprint(made, err)
			})
			apply(t, ns, `
apiVersion: v1
kind: Pod
metadata: {name: meshed, annotations: {log-bridge.dev/files: "app:/var/log/app/app.log,app:/srv/file.log"}}
spec:
  restartPolicy: Never
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    command: [sh, -ec, 'cat /var/log/app/README; echo one > /var/log/app/app.log; echo two > /srv/file.log']
`)
			got := lines(t, "two lines", atLeast(2), "-n", ns, "meshed", "-c", "log-bridge")
			if text := strings.Join(got, " "); text != "one two" && text != "two one" {
				t.Errorf("have %q, want the lines one and two", got)
			}
			pod := kubectl(t, "-n", ns, "get", "pod", "meshed", "-o", "json")
			if names := containerNames(t, pod); names != c.containers {
				t.Errorf("containers %s, want %s", names, c.containers)
			}
			if n := strings.Count(pod, `"mountPath": "/etc/foreign"`); n < 2 {
				t.Errorf("the other webhook's mount is there %d times:\n%s", n, pod)
			}
			kubectl(t, "-n", ns, "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/meshed", "--timeout=180s")
			if c.name == "after" {
				eventually(t, "our webhook's second look", func() (bool, string) {
					out := kubectl(t, "-n", "log-bridge", "logs", "-l", "app.kubernetes.io/component=webhook", "--tail=-1")
					for line := range strings.Lines(out) {
						if strings.Contains(line, `"namespace":"`+ns+`"`) && strings.Contains(line, `"reason":"already-injected"`) {
							return true, ""
						}
					}
					return false, out
				})
			}
		})
	}
}

// A webhook with old Kubernetes types drops restartPolicy from our sidecar. Our second call puts it
// back, so that the pod runs; after one that is asked again too, nothing can be done, and the API
// server, the policy, the check and the probe say what is the matter.
func TestOldTypes(t *testing.T) {
	h := startHooks(t)
	const pods = `
apiVersion: v1
kind: Pod
metadata: {name: emptydir, annotations: {log-bridge.dev/files: /logs/app.log}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  volumes: [{name: logs, emptyDir: {}}]
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    command: [sh, -c, 'echo line > /logs/app.log']
    volumeMounts: [{name: logs, mountPath: /logs}]
---
apiVersion: v1
kind: Pod
metadata: {name: file, annotations: {log-bridge.dev/files: "/srv/app.log,/var/log/app/app.log"}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    command: [sh, -c, 'echo line > /srv/app.log']
`
	emptydir, file, _ := strings.Cut(pods, "---")
	// Somebody else's native sidecar shows whether the webhook is at work. The pod itself has a
	// restartPolicy too.
	const native = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"native"},"spec":{"initContainers":[{"name":"native","image":"x","restartPolicy":"Always"}],"containers":[{"name":"app","image":"x"}]}}`
	works := func(ns string) {
		t.Helper()
		eventually(t, "the other webhook", func() (bool, string) {
			made, err := post(t, ns, native)
			return err == nil && strings.Count(made, `"restartPolicy":"Always"`) == 1, fmt.Sprint(made, err)
		})
	}

	t.Run("once", func(t *testing.T) {
		ns := namespace(t)
		h.configureAgain(t, "Never", "z-old-types", ns, "/old-types")
		works(ns)
		// kubectl prints a warning that comes twice only once.
		if out := apply(t, ns, pods); !strings.Contains(out, "another webhook dropped restartPolicy of container log-bridge") {
			t.Errorf("no warning:\n%s", out)
		}
		for _, pod := range []string{"emptydir", "file"} {
			equalLines(t, lines(t, "the line", atLeast(1), "-n", ns, pod, "-c", "log-bridge"), []string{"line"})
			kubectl(t, "-n", ns, "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/"+pod, "--timeout=180s")
		}
	})
	t.Run("always", func(t *testing.T) {
		ns := namespace(t)
		h.configureAgain(t, "IfNeeded", "z-old-types", ns, "/old-types")
		works(ns)
		if out := dryRun(t, ns, file); !strings.Contains(out, "may not be set for init containers without restartPolicy=Always") {
			t.Errorf("docs/troubleshooting.md has other words than the API server:\n%s", out)
		}
		if out := apply(t, ns, emptydir); !strings.Contains(out, "the sidecar of this pod is an ordinary init container") {
			t.Errorf("the policy does not tell:\n%s", out)
		}
		told(t, ns, 1, "Pod/emptydir: has mistakes\n  mistake LB0710: ", "probe: has mistakes\n  mistake LB0822: another admission webhook drops restartPolicy")
	})
}

// A platform that gives each container a user of the namespace, as OpenShift does, before our
// webhook or after it: files that only this user may read are read.
func TestAssignedUsers(t *testing.T) {
	h := startHooks(t)
	for _, config := range []string{"a-openshift", "z-openshift"} {
		t.Run(config, func(t *testing.T) {
			ns := namespace(t, "pod-security.kubernetes.io/enforce=restricted")
			h.configure(t, config, ns, "/openshift")
			const strict = `
apiVersion: v1
kind: Pod
metadata: {name: assigned, annotations: {log-bridge.dev/files: "/var/log/app/app.log,/srv/file.log"}}
spec:
  restartPolicy: Never
  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}, fsGroup: 1000680000}
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    command: [sh, -ec, 'umask 077; id -u; echo one > /var/log/app/app.log; echo two > /srv/file.log; echo three > /var/log/app/new.log; stat -c %a /var/log/app/app.log']
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
`
			eventually(t, "the platform's user", func() (bool, string) {
				out := dryRun(t, ns, strict, "--output=jsonpath={.spec.initContainers[*].securityContext.runAsUser}")
				return out == "1000680000 1000680000", out
			})
			apply(t, ns, strict)
			got := lines(t, "two lines", atLeast(2), "-n", ns, "assigned", "-c", "log-bridge")
			if text := strings.Join(got, " "); text != "one two" && text != "two one" {
				t.Errorf("have %q, want the lines one and two", got)
			}
			equalLines(t, lines(t, "the application's words", atLeast(2), "-n", ns, "assigned", "-c", "app"), []string{"1000680000", "600"})
		})
	}
}

// Another webhook, called after ours, adds a container with copies of the application's mounts
// before the sidecar, or before the seeding container. The kubelet makes root's directories for it
// where nothing is yet, also in place of a file. The application sees what it would have seen
// without us: what its image has, and nothing of what that container wrote.
func TestMountedBefore(t *testing.T) {
	h := startHooks(t)
	for _, c := range []struct{ name, containers, sees string }{
		{"first", "copies log-bridge log-bridge-seed-app | app", "strange.log directory"},
		{"native", "copies log-bridge log-bridge-seed-app | app", "strange.log directory"},
		{"second", "log-bridge copies log-bridge-seed-app | app", "strange.log regular empty file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ns := namespace(t)
			h.configure(t, "z-"+c.name, ns, "/"+c.name)
			const manifest = `
apiVersion: v1
kind: Pod
metadata: {name: mounted, annotations: {log-bridge.dev/files: "/var/log/app/*.log,/srv/file.log"}}
spec:
  restartPolicy: Never
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    command: [sh, -ec, 'ls /var/log/app; cat /var/log/app/README; stat -c "%F %a" /srv/file.log; echo one > /var/log/app/app.log; echo two > /srv/file.log']
`
			eventually(t, "the other webhook", func() (bool, string) {
				out := dryRun(t, ns, manifest, "--output=json")
				return strings.Contains(out, `"name": "copies"`), out
			})
			out := apply(t, ns, manifest)
			if warns := strings.Contains(out, "log-bridge: init container copies mounts the log-bridge volume but starts before log-bridge"); warns != (c.name != "second") {
				t.Errorf("kubectl apply printed\n%s", out)
			}
			equalLines(t, lines(t, "what the application sees", atLeast(5), "-n", ns, "mounted", "-c", "app"), []string{"README", "link", "old", "read me", "regular empty file 666"})
			// Between the sidecar and the seeding container, what it writes has the name of a log of the
			// application, and may be delivered as such.
			of := func(all []string) []string {
				return slices.DeleteFunc(own(all), func(line string) bool { return c.name == "second" && line == "strange" })
			}
			got := lines(t, "two lines", func(got []string) bool { return len(of(got)) >= 2 }, "-n", ns, "mounted", "-c", "log-bridge")
			if text := strings.Join(of(got), " "); text != "one two" && text != "two one" {
				t.Errorf("have %q, want the lines one and two", got)
			}
			saying := "-c=log-bridge"
			words := "a container that starts before log-bridge has the mounts of container app"
			if c.name == "second" {
				saying, words = "-c=log-bridge-seed-app", "/log-bridge/app/var/log/app was created for another container"
			}
			if said := kubectl(t, "-n", ns, "logs", "mounted", saying); strings.Count(said, words) != 1 {
				t.Errorf("%s said\n%s", saying, said)
			}
			if sees := strings.Join(lines(t, "what the other container sees", atLeast(2), "-n", ns, "mounted", "-c", "copies"), " "); sees != c.sees {
				t.Errorf("the other container sees %s, want %s", sees, c.sees)
			}
			if names := containerNames(t, kubectl(t, "-n", ns, "get", "pod", "mounted", "-o", "json")); names != c.containers {
				t.Errorf("containers %s, want %s", names, c.containers)
			}
			kubectl(t, "-n", ns, "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/mounted", "--timeout=180s")
		})
	}
}

// own leaves out the sidecar's own words.
func own(all []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(line string) bool { return strings.HasPrefix(line, "log-bridge: ") })
}

// Another webhook removes the sidecar and leaves the mounts, each time. The policy and the check say
// that it was removed, and not that no webhook answered.
func TestSidecarRemoved(t *testing.T) {
	ns := namespace(t)
	h := startHooks(t)
	h.configure(t, "z-removes", ns, "/removes")
	pod := func(name, files string) string {
		return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, annotations: {log-bridge.dev/files: %s}}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: data, emptyDir: {}}]
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    volumeMounts: [{name: data, mountPath: /data}]
    command: [sh, -c, 'stat -c %%F /srv/file.log; exec sleep 3600']
`, name, files)
	}
	const words = "Warning: Validation failed for ValidatingAdmissionPolicy 'log-bridge-missing-sidecar' with binding 'log-bridge-missing-sidecar': the sidecar of this pod was removed"
	for name, files := range map[string]string{"file": "/srv/file.log", "volume": "/data/app.log"} {
		eventually(t, "the sidecar's removal and the warning", func() (bool, string) {
			out := dryRun(t, ns, pod(name, files))
			return strings.Contains(out, words) && !strings.Contains(out, "no log-bridge webhook answered"), out
		})
		apply(t, ns, pod(name, files))
		if names := containerNames(t, kubectl(t, "-n", ns, "get", "pod", name, "-o", "json")); names != "| app" {
			t.Errorf("containers %s, want the sidecar to be gone", names)
		}
	}
	// This is what makes it worth a warning.
	equalLines(t, lines(t, "what the application finds", atLeast(1), "-n", ns, "file", "-c", "app"), []string{"directory"})
	told(t, ns, 1, "Pod/file: has mistakes\n  mistake LB0720: ", "Pod/volume: has mistakes\n  mistake LB0720: ", "annotated without: 2")
}

// TestFirstInitContainerPatched: a webhook that patches the first init container, whatever it is, hits the sidecar.
// docs/compatibility.md says so; the application's own init container stays as it was.
func TestFirstInitContainerPatched(t *testing.T) {
	h := startHooks(t)
	ns := namespace(t)
	h.configure(t, "zz-first-image", ns, "/first-image")
	out := dryRun(t, ns, `
apiVersion: v1
kind: Pod
metadata: {name: x, annotations: {log-bridge.dev/files: /srv/app.log}}
spec:
  initContainers: [{name: setup, image: log-bridge.test/rotator:1, command: ["true"]}]
  containers: [{name: app, image: log-bridge.test/rotator:1, command: [sleep, "3600"]}]
`, `--output=jsonpath={range .spec.initContainers[*]}{.name}={.image} {end}`)
	if want := "log-bridge=example.com/other:1 setup=log-bridge.test/rotator:1 "; !strings.HasSuffix(out, want) {
		t.Errorf("have %q, want %q", out, want)
	}
	if h.calls("/first-image") == 0 {
		t.Error("the webhook was not called")
	}
}
