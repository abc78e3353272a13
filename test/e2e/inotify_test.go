package e2e

import (
	"strings"
	"testing"
)

// The kernel counts inotify instances by user on the whole node. An application that needs all of its user's has them,
// although its sidecar, of the same user, was there first: the sidecar gives its own back, says so, and continues
// by polling. Another pod, whose user its image decides, does not notice.
func TestInotifyIsLeftToTheApplication(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, `
apiVersion: v1
kind: ConfigMap
metadata: {name: greedy}
data:
  greedy.py: |
    import ctypes, resource, time
    wanted = int(open('/proc/sys/fs/inotify/max_user_instances').read())
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    libc = ctypes.CDLL(None, use_errno=True)
    def log(line):
        with open('/app/app.log', 'a') as f:
            f.write(line + '\n')
    log('one')
    have, said = 0, False
    while have < wanted:
        if libc.inotify_init1(0) >= 0:
            have += 1
            continue
        if not said:
            said = True
            print('at once nearly all:', wanted - have <= 9, flush=True)
        time.sleep(0.1)
    print('in the end all', flush=True)
    log('two')
    time.sleep(3600)
---
apiVersion: v1
kind: Pod
metadata: {name: greedy, annotations: {log-bridge.dev/files: /app/app.log}}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {runAsUser: 43210}
  volumes: [{name: greedy, configMap: {name: greedy}}]
  containers:
  - name: app
    image: ghcr.io/log-bridge/python-app-log:1.0
    command: [python3, /greedy/greedy.py]
    volumeMounts: [{name: greedy, mountPath: /greedy}]
---
apiVersion: v1
kind: Pod
metadata: {name: other, annotations: {log-bridge.dev/files: /app/app.log}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: app
    image: ghcr.io/log-bridge/python-app-log:1.0
    command: [sh, -c, 'echo one >> /app/app.log; exec sleep 3600']
`)
	equalLines(t, lines(t, "all instances", atLeast(2), "-n", ns, "greedy", "-c", "app"), []string{"at once nearly all: True", "in the end all"})
	said := lines(t, "both lines and the sentence", atLeast(3), "-n", ns, "greedy", "-c", "log-bridge")
	equalLines(t, said, []string{"one", "log-bridge: the last inotify instances of user 43210 on this node are left to the application; polling files instead, so lines arrive up to a second later. The node's sysctl fs.inotify.max_user_instances sets the limit for each user", "two"})
	if out := strings.Join(lines(t, "the line of the other pod", atLeast(1), "-n", ns, "other", "-c", "log-bridge"), "\n"); out != "one" {
		t.Errorf("the other pod's sidecar says %q", out)
	}
}
