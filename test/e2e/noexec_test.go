package e2e

import "testing"

// On a node that mounts the kubelet's directory noexec, directories are seeded and lines come; only the
// application's own programs in a shared directory do not start there, as docs/sharing.md says.
func TestNoexec(t *testing.T) {
	ns := namespace(t)
	bed.all.Run(t, "sh", "-ec", "mount --rbind /var/lib/kubelet /var/lib/kubelet; mount -o remount,bind,noexec /var/lib/kubelet")
	t.Cleanup(func() { bed.all.Run(t, "umount", "-l", "/var/lib/kubelet") })
	apply(t, ns, `
apiVersion: v1
kind: Pod
metadata: {name: noexec, annotations: {log-bridge.dev/files: /var/log/app/app.log}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
  - name: app
    image: log-bridge.test/rotator:1
    command:
    - sh
    - -c
    - |
      cat /var/log/app/README
      echo "#!/bin/sh" > /var/log/app/program
      chmod 755 /var/log/app/program
      /var/log/app/program 2>/dev/null
      echo status $?
      echo line > /var/log/app/app.log
`)
	equalLines(t, lines(t, "the line", atLeast(1), "-n", ns, "noexec", "-c", "log-bridge"), []string{"line"})
	equalLines(t, lines(t, "the application's words", atLeast(2), "-n", ns, "noexec", "-c", "app"), []string{"read me", "status 126"})
	kubectl(t, "-n", ns, "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/noexec", "--timeout=180s")
}
