package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/log-bridge/log-bridge/sidecar/contract"
)

// plugin runs `kubectl log-bridge` with a kubeconfig, and returns its output and its exit code.
func plugin(t *testing.T, kubeconfig string, args ...string) (string, int) {
	t.Helper()
	cmd := pluginCommand(t, kubeconfig, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// pluginCommand is `kubectl log-bridge …`, with the plugin compiled and in the PATH.
func pluginCommand(t *testing.T, kubeconfig string, args ...string) *exec.Cmd {
	t.Helper()
	dir := filepath.Dir(compile(t, "webhook/kubectl-log_bridge"))
	cmd := command(bed.kubectl, append([]string{"log-bridge"}, append(args, "--kubeconfig", kubeconfig)...)...)
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	return cmd
}

// told waits until the check of a namespace reports all of this, and ends with that exit code.
func told(t *testing.T, ns string, code int, want ...string) string {
	t.Helper()
	last := ""
	eventually(t, fmt.Sprintf("the check to tell %q and end with %d", want, code), func() (bool, string) {
		out, exit := plugin(t, bed.kubeconfig, "check", "--cluster", "-n", ns)
		last = out
		for _, words := range want {
			if !strings.Contains(out, words) {
				return false, fmt.Sprint(exit, "\n", out)
			}
		}
		return exit == code, fmt.Sprint(exit, "\n", out)
	})
	return last
}

// What is wrong with pods and workloads is found in the cluster, each with its number.
func TestCheckFindsPods(t *testing.T) {
	ns := namespace(t)
	apply(t, ns, `
apiVersion: v1
kind: Pod
metadata: {name: good, annotations: {log-bridge.dev/files: /srv/app.log}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: app, image: log-bridge.test/rotator:1, command: [sleep, "3600"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: bare}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: app, image: log-bridge.test/rotator:1, command: [sleep, "3600"]}]
`)
	kubectl(t, "-n", ns, "wait", "pod/good", "--for=condition=Ready", "--timeout=180s")
	if out := told(t, ns, 0, "pods with the sidecar: 1, annotated without: 0; the webhook injects\n"); strings.Contains(out, "LB") {
		t.Errorf("nothing is wrong, but the check tells:\n%s", out)
	}

	kubectl(t, "-n", ns, "annotate", "pod", "bare", "log-bridge.dev/files=/srv/app.log")
	apply(t, ns, strings.Replace(workload("Deployment", "{log-bridge.dev/files: /srv/app.log}", "{}"), "spec: {", "spec: {replicas: 0, ", 1))
	told(t, ns, 1, "namespace "+ns+": Pod/bare: has mistakes\n  mistake LB0701: ", "namespace "+ns+": Deployment/x: has mistakes\n  mistake LB0601: ",
		"pods with the sidecar: 1, annotated without: 1; the webhook injects\n")
	kubectl(t, "-n", ns, "delete", "pod/bare", "deployment/x", "--timeout=60s")

	// Injected pods whose sidecar does not run. The webhook leaves them as they are, since they have
	// its parts.
	injected := kubectl(t, "-n", ns, "get", "pod", "good", "-o", "yaml")
	image := kubectl(t, "-n", ns, "get", "pod", "good", "-o", `jsonpath={.spec.initContainers[?(@.name=="`+contract.Container+`")].image}`)
	without := func(name, old, now string) {
		text := strings.NewReplacer("name: good\n", "name: "+name+"\n", old, now).Replace(injected)
		for _, field := range []string{"  uid: ", "  resourceVersion: ", "  nodeName: "} {
			before, rest, _ := strings.Cut(text, "\n"+field)
			_, after, _ := strings.Cut(rest, "\n")
			text = before + "\n" + after
		}
		text, _, _ = strings.Cut(text, "\nstatus:\n")
		apply(t, ns, text)
	}
	without("unpulled", "image: "+image+"\n", "image: 127.0.0.1:1/none:1\n")
	told(t, ns, 1, "Pod/unpulled: has mistakes\n  mistake LB0703: node ", "cannot pull 127.0.0.1:1/none:1, so the application does not start: ")
	kubectl(t, "-n", ns, "delete", "pod/unpulled", "--grace-period=0", "--force")
	without("crashing", "    - tail\n", "    - tail\n    - --no-such-flag\n")
	told(t, ns, 1, "Pod/crashing: has mistakes\n  mistake LB0704: container log-bridge does not run: ")
	kubectl(t, "-n", ns, "delete", "pod/crashing", "--grace-period=0", "--force")

	// A namespace that is left out.
	kubectl(t, "label", "namespace", ns, "log-bridge.dev/inject=false")
	apply(t, ns, `
apiVersion: v1
kind: Pod
metadata: {name: out, annotations: {log-bridge.dev/files: /srv/app.log}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: app, image: log-bridge.test/rotator:1, command: [sleep, "3600"]}]
`)
	told(t, ns, 0, "Pod/out: has warnings\n  warning LB0702: ", "the webhook was not tried")
}

// A webhook that is gone or broken is found, with failurePolicy: Ignore, which lets every pod pass
// without a word.
func TestCheckFindsWebhook(t *testing.T) {
	ns := namespace(t)
	told(t, ns, 0, "the webhook injects")
	if out, code := plugin(t, bed.kubeconfig, "probe", "-n", ns); code != 0 || !strings.Contains(out, "namespace "+ns+": the webhook injects\n") {
		t.Errorf("probe: exit code %d:\n%s", code, out)
	}

	t.Run("gone", func(t *testing.T) {
		webhookDown(t)
		told(t, ns, 1, "namespace log-bridge: Service/log-bridge-webhook: has mistakes\n  mistake LB0805: there is no webhook pod", "mistake LB0807: ", "the webhook does not inject")
		if out, code := plugin(t, bed.kubeconfig, "probe", "-n", ns, "--timeout", "1s"); code != 1 || !strings.Contains(out, "LB0807") {
			t.Errorf("probe: exit code %d:\n%s", code, out)
		}
	})

	t.Run("gone, and pods are not made without it", func(t *testing.T) {
		patch := func(policy string) {
			kubectl(t, "patch", "mutatingwebhookconfiguration", "log-bridge", "--type=json", "--patch", `[{"op":"replace","path":"/webhooks/0/failurePolicy","value":"`+policy+`"}]`)
		}
		t.Cleanup(func() { patch("Ignore") })
		patch("Fail")
		webhookDown(t)
		told(t, ns, 1, "mistake LB0807: an annotated pod cannot be created: ", "failed calling webhook")
	})

	t.Run("without its permissions and its caBundle", func(t *testing.T) {
		t.Cleanup(func() { reinstall(t) })
		// Nothing repairs the caBundle now, and the pods say what is missing.
		kubectl(t, "delete", "clusterrolebinding", "log-bridge")
		kubectl(t, "patch", "mutatingwebhookconfiguration", "log-bridge", "--type=json", "--patch", `[{"op":"remove","path":"/webhooks/0/clientConfig/caBundle"}]`)
		told(t, ns, 1, "MutatingWebhookConfiguration/log-bridge: has mistakes\n  mistake LB0802: ", "the webhook does not inject")
		kubectl(t, "-n", "log-bridge", "rollout", "restart", "deployment/log-bridge")
		told(t, ns, 1, "warning LB0806: it is not ready: there is no serving certificate yet: read MutatingWebhookConfiguration log-bridge: ")
	})

	t.Run("not installed", func(t *testing.T) {
		t.Cleanup(func() { reinstall(t) })
		kubectl(t, "delete", "mutatingwebhookconfiguration", "log-bridge")
		told(t, ns, 1, "MutatingWebhookConfigurations: has mistakes\n  mistake LB0801: ", "the webhook does not inject")
	})
}

// reinstall brings the chart's objects back, and waits until the API server calls the webhook again.
func reinstall(t *testing.T) {
	t.Helper()
	if err := install(); err != nil {
		t.Fatal(err)
	}
	injected(t, "default", "after the installation")
}

// The rights that docs/check.md lists are enough, and without them the check says what it could not
// look at.
func TestCheckRights(t *testing.T) {
	ns := namespace(t)
	page, err := os.ReadFile(filepath.Join(bed.top, "docs/check.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, roles, _ := strings.Cut(string(page), "```yaml\n")
	roles, _, _ = strings.Cut(roles, "```")
	probes := strings.LastIndex(roles, "---\n")
	apply(t, "log-bridge", roles[:probes])
	apply(t, "default", roles[probes:])
	t.Cleanup(func() {
		kubectl(t, "-n", "default", "delete", "role/log-bridge-check", "rolebinding/log-bridge-check", "--ignore-not-found")
		kubectl(t, "delete", "clusterrole/log-bridge-check", "clusterrolebinding/log-bridge-check", "--ignore-not-found")
		kubectl(t, "-n", "log-bridge", "delete", "role/log-bridge-check", "rolebinding/log-bridge-check", "--ignore-not-found")
	})
	account := func(name string) (kubeconfig string) {
		kubectl(t, "-n", ns, "create", "serviceaccount", name)
		kubeconfig = filepath.Join(bed.dir, name+".kubeconfig")
		text, err := os.ReadFile(bed.kubeconfig)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(kubeconfig, text, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{
			{"config", "set-credentials", name, "--token=" + kubectl(t, "-n", ns, "create", "token", name)},
			{"config", "set-context", "--current", "--user=" + name, "--namespace=" + ns},
		} {
			if _, err := output(command(bed.kubectl, append(args, "--kubeconfig", kubeconfig)...)); err != nil {
				t.Fatal(err)
			}
		}
		return kubeconfig
	}

	reader := account("reader")
	kubectl(t, "create", "clusterrolebinding", "log-bridge-check", "--clusterrole=log-bridge-check", "--serviceaccount="+ns+":reader")
	kubectl(t, "-n", "log-bridge", "create", "rolebinding", "log-bridge-check", "--role=log-bridge-check", "--serviceaccount="+ns+":reader")
	kubectl(t, "-n", "default", "create", "rolebinding", "log-bridge-check", "--role=log-bridge-check", "--serviceaccount="+ns+":reader")
	eventually(t, "a check with the documented rights", func() (bool, string) {
		// Other tests' pods may have findings of their own.
		out, code := plugin(t, reader, "check", "--cluster", "--all-namespaces")
		return code != 2 && !strings.Contains(out, "LB0809") && !strings.Contains(out, "not checked") && strings.Contains(out, "the webhook injects"), fmt.Sprint(code, "\n", out)
	})
	// In another namespace, it may not do the dry run.
	if out, code := plugin(t, reader, "check", "--cluster"); code != 0 || !strings.Contains(out, "namespace "+ns+": probe: has warnings\n  warning LB0809: ") {
		t.Errorf("exit code %d:\n%s", code, out)
	}

	// A user who may do everything in their own namespace: the dry run there is enough.
	owner := account("owner")
	kubectl(t, "-n", ns, "create", "rolebinding", "owner", "--clusterrole=admin", "--serviceaccount="+ns+":owner")
	eventually(t, "a check by the owner of a namespace", func() (bool, string) {
		out, code := plugin(t, owner, "check", "--cluster")
		return code == 0 && strings.Contains(out, "MutatingWebhookConfigurations: has warnings\n  warning LB0809: ") && strings.Contains(out, "the webhook injects"), fmt.Sprint(code, "\n", out)
	})

	// Somebody who may nothing does not hear that all is well.
	nobody := account("nobody")
	if out, code := plugin(t, nobody, "check", "--cluster"); code != 2 || !strings.Contains(out, "not checked: list pods: ") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}
