package e2e

import (
	"strings"
	"testing"
)

// Where containers share a process namespace, a process of the application has the sidecar's user. It sees that the sidecar is there,
// and can even kill it; but it sees nothing of its volumes, neither while it runs nor in the moment in which it
// is started again.
func TestSharedProcessNamespace(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, `
apiVersion: v1
kind: ConfigMap
metadata: {name: spy}
data:
  spy.py: |
    import os, signal, subprocess, time
    open('/app/app.log', 'a').write('one\n')

    def sidecars():
        found = []
        for pid in filter(str.isdigit, os.listdir('/proc')):
            try:
                if open('/proc/' + pid + '/comm').read() == 'log-bridge\n':
                    found.append(pid)
            except OSError:
                pass
        return found

    def seen(pid, ways):
        found = []
        for way in ways:
            try:
                os.close(os.open('/proc/' + pid + '/' + way, os.O_RDONLY))
                found.append(way)
            except OSError:
                pass
        return ' '.join(found)

    ways = ['root', 'cwd', 'exe', 'environ', 'mem', 'ns/mnt']
    other = subprocess.Popen(['sleep', '3600'])
    time.sleep(1)
    print('of its own:', seen(str(other.pid), ways), flush=True)
    old = sidecars()
    print('of the sidecar:', len(old), seen(old[0], ways + ['root/log-bridge']), flush=True)
    os.kill(int(old[0]), signal.SIGKILL)
    won, end, rounds = 0, 0, 0
    while not end or time.monotonic() < end:
        for pid in os.listdir('/proc'):
            if seen(pid, ['root/log-bridge']):
                won += 1
        rounds += 1
        if not end and rounds % 50 == 0 and set(sidecars()) - set(old):
            end = time.monotonic() + 2
    print('while it starts:', won, flush=True)
    time.sleep(3600)
---
apiVersion: v1
kind: Pod
metadata: {name: shared, annotations: {log-bridge.dev/files: /app/app.log}}
spec:
  shareProcessNamespace: true
  terminationGracePeriodSeconds: 1
  securityContext: {runAsUser: 4321, runAsGroup: 4321}
  volumes: [{name: spy, configMap: {name: spy}}]
  containers:
  - name: app
    image: ghcr.io/log-bridge/python-app-log:1.0
    command: [python3, /spy/spy.py]
    volumeMounts: [{name: spy, mountPath: /spy}]
`)
	equalLines(t, lines(t, "what the spy saw", atLeast(3), "-n", ns, "shared", "-c", "app"), []string{
		"of its own: root cwd exe environ mem ns/mnt",
		"of the sidecar: 1 ",
		"while it starts: 0",
	})
	if out := kubectl(t, "-n", ns, "get", "pod", "shared", "-o", "jsonpath={.status.initContainerStatuses[0].restartCount}"); strings.TrimSpace(out) != "1" {
		t.Errorf("the sidecar was started again %q times, want 1", out)
	}
	kubectl(t, "-n", ns, "exec", "shared", "-c", "app", "--", "sh", "-c", "echo two >> /app/app.log")
	equalLines(t, lines(t, "the line after the start", atLeast(1), "-n", ns, "shared", "-c", "log-bridge"), []string{"two"})
	// What closes that moment: the program can be executed and not read.
	id := sidecarID(t, ns, "shared")
	mode, err := output(command(bed.cluster, "exec", "--name", clusterName(), "--", "sh", "-c",
		`stat -L -c %a /proc/$(ctr -n k8s.io tasks list | awk -v id=`+id+` '$1 == id {print $2}')/exe`))
	if err != nil || strings.TrimSpace(mode) != "111" {
		t.Errorf("the sidecar's program has mode %q, want 111: %v", mode, err)
	}
}
