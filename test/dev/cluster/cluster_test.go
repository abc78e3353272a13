package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test binary be the program itself, so that the tests run what was just compiled.
func TestMain(m *testing.M) {
	if os.Getenv("LOG_BRIDGE_CLUSTER_TEST") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestCluster runs a cluster three times: it starts and works, and ends by down after its first process was
// killed, by the death of the up that stays in the foreground, and by the end of that up's stdin. Nothing is left each time.
func TestCluster(t *testing.T) {
	needRootOnDebian(t)
	state := t.TempDir()
	const name = "cluster-test"
	c, err := newCluster(name, state)
	if err != nil {
		t.Fatal(err)
	}
	run := func(verb string, args ...string) string {
		t.Helper()
		return output(t, program(append([]string{verb, "--name=" + name, "--state=" + state}, args...)...))
	}
	t.Cleanup(func() { run("down") })
	before := machine(t)
	nothingIsLeft := func(t *testing.T, r record) {
		t.Helper()
		if r.Node.alive() {
			t.Errorf("process %d is still there", r.Node.PID)
		}
		if left := processesIn(t, c.id()); len(left) > 0 {
			t.Errorf("processes are left: %s", left)
		}
		if left := cgroupsNamed(t, c.id()); len(left) > 0 {
			t.Errorf("cgroups are left: %s", left)
		}
		if left, _ := filepath.Glob(filepath.Join(state, "*")); len(left) > 0 {
			t.Errorf("files are left: %s", left)
		}
		compare(t, before, machine(t))
	}

	t.Run("up twice and after a crash", func(t *testing.T) {
		config := strings.TrimSpace(run("up"))
		if want := run("kubeconfig"); config != strings.TrimSpace(want) {
			t.Errorf("up printed %q, kubeconfig %q", config, want)
		}
		first, err := c.running()
		if err != nil {
			t.Fatal(err)
		}
		run("up")
		if again, _ := c.running(); again != first {
			t.Errorf("the second up made another cluster: have %v, want %v", again, first)
		}

		// A component that is killed is started again.
		run("exec", "sh", "-c", "kill -9 $(pidof kube-apiserver)")
		run("up")
		if again, _ := c.running(); again != first {
			t.Errorf("up after the API server was killed made another cluster: have %v, want %v", again, first)
		}

		if len(processesIn(t, c.id())) < 8 {
			t.Errorf("processes of the cluster: have %s, want at least its eight own", processesIn(t, c.id()))
		}
		if err := syscall.Kill(first.Node.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		await(t, "all its processes have ended", func() error {
			if left := processesIn(t, c.id()); len(left) > 0 {
				return fmt.Errorf("still there: %s", left)
			}
			return nil
		})
		run("up")
		second, err := c.running()
		if err != nil {
			t.Fatal(err)
		}
		run("down")
		nothingIsLeft(t, second)
		run("down")
	})

	t.Run("pods and the death of up", func(t *testing.T) {
		up, _ := foreground(t, name, state)
		r, err := c.running()
		if err != nil {
			t.Fatal(err)
		}
		if out, err := program("up", "--name="+name, "--state="+state).CombinedOutput(); err == nil || !strings.Contains(string(out), "another process is using") {
			t.Errorf("up beside one in the foreground: have %v, %s; want a refusal", err, out)
		}
		pods(t, c, run)
		if err := up.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		up.Wait()
		await(t, "all its processes have ended", func() error {
			if left := processesIn(t, c.id()); len(left) > 0 {
				return fmt.Errorf("still there: %s", left)
			}
			return nil
		})
		run("down")
		nothingIsLeft(t, r)
	})

	t.Run("the end of stdin", func(t *testing.T) {
		also := t.TempDir()
		up, stdin := foreground(t, name, state, "--also="+also)
		r, err := c.running()
		if err != nil {
			t.Fatal(err)
		}
		stdin.Close()
		if err := up.Wait(); err != nil {
			t.Errorf("up --foreground, after its stdin ended: %v", err)
		}
		nothingIsLeft(t, r)
		if exists(also) {
			t.Errorf("up --also=%s, after its stdin ended: the directory is still there", also)
		}
	})
}

// pods makes sure of what the tests of log-bridge rely on.
func pods(t *testing.T, c cluster, run func(verb string, args ...string) string) {
	kubectlPath := strings.TrimSpace(output(t, program("tool", "kubectl")))
	kubectl := func(args ...string) *exec.Cmd {
		return exec.Command(kubectlPath, append([]string{"--kubeconfig=" + c.path("kubeconfig")}, args...)...)
	}
	context := t.TempDir()
	write(t, filepath.Join(context, "Dockerfile"), `ARG BUSYBOX=docker.io/library/busybox:1.37
FROM ${BUSYBOX}
COPY --chmod=0644 page /www/index.html
RUN test -s /www/index.html
USER 65532:65532
`)
	write(t, filepath.Join(context, "page"), "a page\n")
	archive := filepath.Join(context, "image.tar")
	output(t, program("build", "--file="+filepath.Join(context, "Dockerfile"), "--tag=example.test/pod:1", "--output="+archive, context))
	if loaded := run("load", archive); loaded != "example.test/pod:1\n" {
		t.Errorf("load: have %q, want the name of the image", loaded)
	}

	apply := kubectl("apply", "-f", "-")
	apply.Stdin = strings.NewReader(`
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: web
    image: example.test/pod:1
    command: [sh, -c, 'echo started; exec httpd -f -p 8080 -h /www']
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  restartPolicy: Never
  containers:
  - name: client
    image: example.test/pod:1
    command: [sh, -c]
    args:
    - |
      # The service proxy learns of the pod when it does: until then, no answer is no mistake.
      until page=$(wget -q -O - http://$WEB_SERVICE_HOST/ 2>&1); do sleep 0.1; done
      echo "$page"
      nc -w 5 $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT </dev/null && echo the API server is there
      test -s /var/run/secrets/kubernetes.io/serviceaccount/token && echo a token is there
`)
	output(t, apply)
	output(t, kubectl("wait", "--for=condition=Ready", "--timeout=60s", "pod/web"))
	output(t, kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s", "pod/client"))
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"logs", "web"}, "started\n"},
		{[]string{"logs", "--follow", "client"}, "a page\nthe API server is there\na token is there\n"},
		{[]string{"exec", "web", "--", "id", "-u"}, "65532\n"},
		{[]string{"get", "--raw", "/api/v1/namespaces/default/services/web:80/proxy/"}, "a page\n"},
	} {
		if have := output(t, kubectl(test.args...)); have != test.want {
			t.Errorf("kubectl %s: have %q, want %q", strings.Join(test.args, " "), have, test.want)
		}
	}
	if have := output(t, kubectl("describe", "pod", "web")); !strings.Contains(have, "Started") || strings.Contains(have, "DNS") {
		t.Errorf("kubectl describe pod web: want an event that it has started and none about DNS; have %s", have)
	}

	forward := kubectl("port-forward", "pod/web", ":8080")
	stdout, err := forward.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := forward.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		forward.Process.Kill()
		forward.Wait()
	}()
	busybox, err := busyboxPath()
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("kubectl port-forward: %v", err)
	}
	// "Forwarding from 127.0.0.1:34567 -> 8080"
	if have := output(t, exec.Command(busybox, "wget", "-q", "-O", "-", "http://"+strings.Fields(line)[2])); have != "a page\n" {
		t.Errorf("through kubectl port-forward: have %q, want %q", have, "a page\n")
	}
}

func needRootOnDebian(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a cluster can be started by root only; run the tests as root")
	}
	if _, err := os.Stat("/etc/debian_version"); err != nil {
		t.Skip("the cluster's container runtime is taken from Debian, which this is not")
	}
}

func program(args ...string) *exec.Cmd {
	command := exec.Command("/proc/self/exe", args...)
	command.Env = append(os.Environ(), "LOG_BRIDGE_CLUSTER_TEST=1")
	return command
}

func output(t *testing.T, command *exec.Cmd) string {
	t.Helper()
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(command.Args, " "), err, out, stderr.String())
	}
	return string(out)
}

// foreground returns once the cluster is up.
func foreground(t *testing.T, name, state string, more ...string) (up *exec.Cmd, stdin io.Closer) {
	up = program(append([]string{"up", "--foreground", "--name=" + name, "--state=" + state}, more...)...)
	up.Stderr = t.Output()
	stdin, err := up.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := up.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := up.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		up.Process.Kill()
		up.Wait()
	})
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatalf("up --foreground ended before the cluster was ready: %v", err)
	}
	return up, stdin
}

// processesIn returns the processes of the machine that are in cgroups of that id.
func processesIn(t *testing.T, id string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	var processes []string
	for _, file := range files {
		if data, err := os.ReadFile(file); err == nil && strings.Contains(string(data), "/"+id) {
			name, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "comm"))
			processes = append(processes, filepath.Base(filepath.Dir(file))+" "+strings.TrimSpace(string(name)))
		}
	}
	return processes
}

func cgroupsNamed(t *testing.T, id string) []string {
	t.Helper()
	all, err := hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, h := range all {
		if path := filepath.Join(h.mount, id); exists(path) {
			found = append(found, path)
		}
	}
	return found
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// machine returns what a cluster might change on the machine, by kind.
func machine(t *testing.T) map[string][]string {
	t.Helper()
	facts := map[string][]string{}
	lines := func(kind, text string) { facts[kind] = append(facts[kind], strings.Split(text, "\n")...) }
	read := func(kind, path string) {
		if data, err := os.ReadFile(path); err == nil {
			lines(kind, path+": "+strings.TrimSpace(string(data)))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	lines("mount", string(mounts))
	for _, dir := range []string{"/sys/class/net", "/run", "/var/lib", "/var/log", "/var/run", "/etc", "/opt", "/etc/cni", "/run/netns", "/run/containerd"} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		for _, entry := range entries {
			lines("entry", filepath.Join(dir, entry.Name()))
		}
	}
	read("file", "/etc/hosts")
	for name := range tunables {
		read("kernel setting", "/proc/sys/"+name)
	}
	for _, name := range []string{"net/ipv4/ip_forward", "net/ipv4/conf/all/route_localnet", "kernel/hostname"} {
		read("kernel setting", "/proc/sys/"+name)
	}
	rules, err := exec.Command("iptables-save").Output()
	if err == nil {
		counters := regexp.MustCompile(`(?m)^#.*\n| \[\d+:\d+\]$`)
		lines("firewall rule", counters.ReplaceAllString(string(rules), ""))
	}
	return facts
}

func compare(t *testing.T, before, after map[string][]string) {
	t.Helper()
	for kind, have := range after {
		for _, fact := range have {
			if !slices.Contains(before[kind], fact) {
				t.Errorf("a %s is there that was not there before: %s", kind, fact)
			}
		}
		for _, fact := range before[kind] {
			if !slices.Contains(have, fact) {
				t.Errorf("a %s is gone: %s", kind, fact)
			}
		}
	}
}

func await(t *testing.T, what string, try func() error) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("waited a minute in vain until %s: %v", what, err)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
