package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/log-bridge/log-bridge/sidecar/contract"
)

// dryRun asks the API server what it would make of a manifest, and returns what
// kubectl printed, warnings too.
func dryRun(t *testing.T, ns, manifest string, more ...string) string {
	t.Helper()
	cmd := command(bed.kubectl, append([]string{"--kubeconfig", bed.kubeconfig, "-n", ns, "create", "--dry-run=server", "-f", "-"}, more...)...)
	cmd.Stdin = strings.NewReader(manifest)
	// A refusal is in the output.
	out, _ := cmd.CombinedOutput()
	return string(out)
}

// workload is a manifest of a kind, with annotations of its own and of its template.
func workload(kind, outer, inner string) string {
	version := "apps/v1"
	if strings.HasSuffix(kind, "Job") {
		version = "batch/v1"
	}
	template := fmt.Sprintf("template: {metadata: {labels: {a: b}, annotations: %s}, spec: {restartPolicy: RESTART, containers: [{name: app, image: x}]}}", inner)
	selector := "selector: {matchLabels: {a: b}}, "
	restart := "Always"
	switch kind {
	case "StatefulSet":
		selector += "serviceName: x, "
	case "Job":
		selector, restart = "", "Never"
	case "CronJob":
		selector, restart = "", "Never"
		template = `schedule: "0 0 * * *", jobTemplate: {spec: {` + template + "}}"
	}
	template = strings.Replace(template, "RESTART", restart, 1)
	return fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata: {name: x, annotations: %s}\nspec: {%s%s}\n", version, kind, outer, selector, template)
}

// A mistake in an annotation is reported at kubectl apply of any workload. It needs no
// webhook.
func TestMistakeReportedAtApply(t *testing.T) {
	ns := namespace(t)
	webhookDown(t)
	for _, kind := range []string{"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob"} {
		out := dryRun(t, ns, workload(kind, "{}", "{log-bridge.dev/files: app.log}"))
		if !strings.Contains(out, `Warning: `) || !strings.Contains(out, `log-bridge.dev/files: "app.log" is not the path of a file; write an absolute path`) {
			t.Errorf("%s with a mistake: kubectl printed\n%s", kind, out)
		}
		out = dryRun(t, ns, workload(kind, "{log-bridge.dev/files: /app/app.log}", "{}"))
		place := "spec.template"
		if kind == "CronJob" {
			place = "spec.jobTemplate.spec.template"
		}
		if !strings.Contains(out, "log-bridge.dev/files is on the "+kind+" itself, where it has no effect; move it to "+place+".metadata.annotations") {
			t.Errorf("%s with the annotation in the wrong place: kubectl printed\n%s", kind, out)
		}
		out = dryRun(t, ns, workload(kind, "{log-bridge.dev/files: /app/app.log}", "{log-bridge.dev/files: /app/app.log}"))
		if strings.Contains(out, "Warning") || !strings.Contains(out, "created") {
			t.Errorf("%s without a mistake: kubectl printed\n%s", kind, out)
		}
	}
	for annotations, want := range map[string]string{
		`{log-bridge.dev/file: /app/app.log}`:                                      "log-bridge.dev/file: unknown annotation",
		`{log-bridge.dev/files: " ,\n"}`:                                           "log-bridge.dev/files names no file",
		`{log-bridge.dev/stderr-files: "/app/app.log,../x"}`:                       `log-bridge.dev/stderr-files: "../x" is not the path`,
		`{log-bridge.dev/files: "app:/app/../app.log"}`:                            "is not the path of a file",
		`{log-bridge.dev/files: /app/}`:                                            "is not the path of a file",
		`{log-bridge.dev/files: /a, log-bridge.dev/mount: folder}`:                 `log-bridge.dev/mount: "folder" is not one of auto, file, directory`,
		`{log-bridge.dev/files: /a, log-bridge.dev/seed: "yes"}`:                   `log-bridge.dev/seed: "yes" is not one of true, false`,
		`{log-bridge.dev/files: /a, log-bridge.dev/size-limit: "0"}`:               `log-bridge.dev/size-limit: "0" is not a positive quantity`,
		`{log-bridge.dev/files: /a, log-bridge.dev/cpu-request: -5m}`:              `log-bridge.dev/cpu-request: "-5m" is not a quantity of zero or more`,
		`{log-bridge.dev/files: /a, log-bridge.dev/cpu-request: "0"}`:              "",
		`{log-bridge.dev/files: /a, log-bridge.dev/cpu-limit: lots}`:               `log-bridge.dev/cpu-limit: "lots" is not a positive quantity`,
		`{log-bridge.dev/files: /a, log-bridge.dev/run-as-user: root}`:             `log-bridge.dev/run-as-user: "root" is not a numeric ID`,
		`{log-bridge.dev/files: /a, log-bridge.dev/run-as-user: "-0"}`:             `log-bridge.dev/run-as-user: "-0" is not a numeric ID`,
		`{log-bridge.dev/files: /a, log-bridge.dev/memory-limit: 1e999999999}`:     `log-bridge.dev/memory-limit: "1e999999999" is not a positive quantity`,
		`{log-bridge.dev/files: '/a\b'}`:                                           "is not the path of a file",
		`{log-bridge.dev/files: /a, log-bridge.dev/inject: "no"}`:                  `log-bridge.dev/inject: "no" is not one of true, false`,
		`{log-bridge.dev/files: "/a.log,\n app : /b/*.log ,\n/c/**/[a-z]?.log"}`:   "",
		`{log-bridge.dev/files: "/with:colon", log-bridge.dev/memory-limit: 64Mi}`: "",
		// The webhook leaves these alone, so there must be no warning.
		`{log-bridge.dev/files: app.log, log-bridge.dev/inject: "false"}`: "",
		`{log-bridge.dev/mount: folder}`:                                  "",
	} {
		out := dryRun(t, ns, workload("Deployment", "{}", annotations))
		if want == "" && strings.Contains(out, "Warning") || !strings.Contains(out, want) || !strings.Contains(out, "created") {
			t.Errorf("%s: want a warning %q, kubectl printed\n%s", annotations, want, out)
		}
	}
}

// Whatever the sidecar's own parser takes, the policy takes too.
func TestPolicyIsNotStricter(t *testing.T) {
	ns := namespace(t)
	for _, entry := range []string{"/a", "//a", "/./a", "/a..b/..c", "/a b", "/ä", "a:/b", "a-1 :  /b", `/"x".log`, "a\u00a0:\u2003/b", "/dev/shm/x", "/a'b", "/[[]x", "/a/.b", "/...", "/a:b"} {
		if _, err := contract.ParseEntries(entry); err != nil {
			t.Errorf("%q is no good example: %v", entry, err)
		}
		out := dryRun(t, ns, workload("Deployment", "{}", fmt.Sprintf("{log-bridge.dev/files: %q}", entry)))
		if strings.Contains(out, "Warning") || !strings.Contains(out, "created") {
			t.Errorf("%q: kubectl printed\n%s", entry, out)
		}
	}
}

// One value makes the warning a refusal, and even then what was there before can be
// deleted, labelled and scaled.
func TestPolicyDenies(t *testing.T) {
	ns := namespace(t)
	bad := strings.Replace(workload("Deployment", "{}", "{log-bridge.dev/files: app.log}"), "spec: {", "spec: {replicas: 0, ", 1)
	apply(t, ns, bad)
	patch := func(actions string) {
		kubectl(t, "patch", "validatingadmissionpolicybinding", "log-bridge-mistakes", "--type=merge", "--patch", `{"spec":{"validationActions":[`+actions+`]}}`)
	}
	patch(`"Deny"`)
	t.Cleanup(func() { patch(`"Warn"`) })
	eventually(t, "a refusal", func() (bool, string) {
		out := dryRun(t, ns, strings.Replace(bad, "name: x", "name: other", 1))
		return strings.Contains(out, "denied request: log-bridge.dev/files") && !strings.Contains(out, "created"), out
	})
	kubectl(t, "-n", ns, "label", "deployment", "x", "still=possible")
	kubectl(t, "-n", ns, "scale", "deployment", "x", "--replicas=0")
	kubectl(t, "-n", ns, "delete", "deployment", "x", "--cascade=foreground", "--timeout=60s")
}

const annotatedPod = `
apiVersion: v1
kind: Pod
metadata: {name: x, annotations: {log-bridge.dev/files: /app/app.log}}
spec: {containers: [{name: app, image: x}]}
`

// An annotated pod without the sidecar is reported, with a message that says whose fault it is.
func TestMissingSidecarReported(t *testing.T) {
	ns := namespace(t)
	const words = "was admitted without the sidecar"
	if out := dryRun(t, ns, annotatedPod); strings.Contains(out, words) || !strings.Contains(out, "created") {
		t.Errorf("with the webhook: kubectl printed\n%s", out)
	}
	before := failOpen(t)
	webhookDown(t)
	eventually(t, "the warning", func() (bool, string) {
		out := dryRun(t, ns, annotatedPod)
		return strings.Contains(out, "Warning: ") && strings.Contains(out, words) && strings.Contains(out, "deployment/log-bridge in namespace log-bridge") && strings.Contains(out, "created"), out
	})
	if failOpen(t) == before {
		t.Error("the API server did not count the call that it gave up; TestRolloutUnderLoad relies on that")
	}
	declined := strings.Replace(annotatedPod, "/app/app.log}", `/app/app.log, log-bridge.dev/inject: "false"}`, 1)
	if out := dryRun(t, ns, declined); strings.Contains(out, "Warning") || !strings.Contains(out, "created") {
		t.Errorf("a pod that declined: kubectl printed\n%s", out)
	}
}

// injected waits until the API server trusts the webhook and gets its patch.
func injected(t *testing.T, ns, when string) {
	t.Helper()
	eventually(t, "injection "+when, func() (bool, string) {
		out := dryRun(t, ns, annotatedPod, "--output=jsonpath={.spec.initContainers[*].name}")
		return out == contract.Container, out
	})
}

// The certificates mend themselves: an emptied caBundle, an emptied Secret, and a
// deleted one once Helm has brought it back.
func TestCertificatesMended(t *testing.T) {
	ns := namespace(t)
	injected(t, ns, "before")
	authority := func() string {
		return kubectl(t, "-n", "log-bridge", "get", "secret", "log-bridge-webhook", "--output", `jsonpath={.data.ca\.crt}`)
	}
	first := authority()

	kubectl(t, "patch", "mutatingwebhookconfiguration", "log-bridge", "--type=json", "--patch", `[{"op":"remove","path":"/webhooks/0/clientConfig/caBundle"}]`)
	injected(t, ns, "after the caBundle was emptied")

	kubectl(t, "-n", "log-bridge", "patch", "secret", "log-bridge-webhook", "--type=json", "--patch", `[{"op":"remove","path":"/data"}]`)
	eventually(t, "the Secret to be filled", func() (bool, string) { now := authority(); return now == first, now })
	injected(t, ns, "after the Secret was emptied")

	kubectl(t, "-n", "log-bridge", "delete", "secret", "log-bridge-webhook")
	eventually(t, "the webhook to say so", func() (bool, string) {
		out := kubectl(t, "-n", "log-bridge", "logs", "-l", "app.kubernetes.io/component=webhook", "--tail=-1")
		return strings.Contains(out, "secret log-bridge/log-bridge-webhook is missing"), out
	})
	injected(t, ns, "while the Secret is gone")
	kubectl(t, "-n", "log-bridge", "rollout", "restart", "deployment/log-bridge")
	kubectl(t, "-n", "log-bridge", "rollout", "status", "deployment/log-bridge", "--timeout=180s")
	injected(t, ns, "by pods that started without the Secret")
	if err := install(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the Secret to be filled again", func() (bool, string) { now := authority(); return now != "", now })
	injected(t, ns, "with the Secret again")
}
