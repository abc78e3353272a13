package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// nodeVerb is the verb of the process that supervises a node. Only up starts it, as the first process of new
// namespaces.
const nodeVerb = "node"

// The files that it finds open.
const (
	socketFile   = 3 + iota // on which the machine reaches the API server
	reportFile              // a pipe for reports
	lifelineFile            // a pipe whose end means that up has died
)

// bridge is the network device that the pods hang on, in the node's own network.
const bridge = "cni0"

// A node is what the supervising process has to know.
type node struct {
	Name   string
	Dir    string // of the cluster, as the machine sees it
	Cgroup string // id of its cgroups
	Kube   string // the program that is all of Kubernetes
	Inside bool   // the cgroup namespace has been entered
}

// A report is one line of JSON to up; exactly one of its fields is set.
type report struct {
	Step  string // what begins now
	Error string // why the node gives up
	Ready bool
}

func runNode(ctx context.Context, args []string) error {
	var n node
	if len(args) != 1 || os.Getpid() != 1 {
		return fmt.Errorf("only up starts %s", nodeVerb)
	}
	if err := json.Unmarshal([]byte(args[0]), &n); err != nil {
		return err
	}
	reports := os.NewFile(reportFile, "reports")
	// When up has died, nothing listens, and the lifeline ends too.
	tell := func(r report) { _ = json.NewEncoder(reports).Encode(r) }
	err := n.run(ctx, tell)
	if err != nil {
		tell(report{Error: err.Error()})
	}
	return err
}

func (n node) run(ctx context.Context, tell func(report)) error {
	if !n.Inside {
		return n.enterCgroups()
	}
	for _, file := range []int{socketFile, reportFile, lifelineFile} {
		syscall.CloseOnExec(file)
	}
	// As the first process of its namespace it takes all others with it when it ends.
	go func() {
		detach := make([]byte, 1)
		if _, err := io.ReadFull(os.NewFile(lifelineFile, "lifeline"), detach); err != nil {
			os.Exit(1)
		}
	}()
	socket, err := net.FileListener(os.NewFile(socketFile, "socket"))
	if err != nil {
		return fmt.Errorf("take over the socket: %w", err)
	}
	if err := n.mount(); err != nil {
		return err
	}
	// What ps and pidof call this process; it was executed as /proc/self/exe.
	if err := os.WriteFile("/proc/self/comm", []byte("cluster-node"), 0); err != nil {
		return err
	}
	if err := syscall.Sethostname([]byte(n.Name)); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	if err := network(); err != nil {
		return err
	}
	if err := os.Setenv("PATH", nodePath); err != nil {
		return err
	}
	s := newSupervisor()

	tell(report{Step: "Starting etcd, the API server and containerd"})
	for _, c := range []component{containerd, etcd, apiserver} {
		s.run(c)
	}
	if err := s.await(dialCheck("containerd answers", "containerd", "unix", "/run/containerd/containerd.sock")); err != nil {
		return err
	}
	if err := s.importImage(pauseFile); err != nil {
		return err
	}
	if err := s.await(dialCheck("etcd answers", "etcd", "tcp", "127.0.0.1:2379")); err != nil {
		return err
	}
	if err := s.await(fileCheck("the API server has a certificate", "kube-apiserver", certificate)); err != nil {
		return err
	}
	go forward(socket)
	token, err := os.ReadFile(tokenFile)
	if err != nil {
		return err
	}
	api, err := newAPI("127.0.0.1:"+apiPort, certificate, string(token))
	if err != nil {
		return err
	}
	checks := api.checks(n.Name)
	if err := s.await(checks[0]); err != nil {
		return err
	}

	tell(report{Step: "Starting the kubelet, the scheduler, the controllers and the service proxy"})
	for _, c := range []component{kubelet(n.Name), controllerManager, scheduler, proxy} {
		s.run(c)
	}
	checks = append(checks[1:], dialCheck("the API server answers at its service address", "kube-proxy", "tcp", serviceAddress+":443"))
	for _, check := range checks {
		if err := s.await(check); err != nil {
			return err
		}
	}
	tell(report{Ready: true})
	<-ctx.Done()
	return nil
}

// enterCgroups makes the node's cgroups the roots of all that this process and its children will see. The kernel does so
// for one thread only; a program that is executed by that thread has no other.
func (n node) enterCgroups() error {
	runtime.LockOSThread()
	if err := joinCgroups(n.Cgroup); err != nil {
		return err
	}
	if err := syscall.Unshare(syscall.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("enter a cgroup namespace: %w", err)
	}
	n.Inside = true
	args, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return fmt.Errorf("execute this program again: %w", syscall.Exec("/proc/self/exe", []string{"cluster", nodeVerb, string(args)}, os.Environ()))
}

// tunables are the kernel settings that the kubelet wants to have, and otherwise sets, for the whole machine.
var tunables = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

// mount gives the node its own view of the file system: the machine's, but for the directories that its programs write to.
func (n node) mount() error {
	cgroups, err := hierarchies()
	if err != nil {
		return err
	}
	program := filepath.Join(n.Dir, "lib/kubernetes/bin", kube.name)
	if err := os.WriteFile(program, nil, 0o755); err != nil {
		return err
	}
	const plain = syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
		data                 string
	}{
		// Nothing that is mounted from here on shows on the machine.
		{"none", "/", "", syscall.MS_REC | syscall.MS_PRIVATE, ""},
		{"proc", "/proc", "proc", plain, ""},
		{"sysfs", "/sys", "sysfs", plain, ""},
		{"tmpfs", "/run", "tmpfs", syscall.MS_NOSUID | syscall.MS_NODEV, "mode=755"},
		// The file, not its directory: it can then be started also after it was removed from the cache.
		{n.Kube, program, "", syscall.MS_BIND, ""},
		{filepath.Join(n.Dir, "log"), logDir, "", syscall.MS_BIND, ""},
		// Last, since it may hide the sources of the others.
		{filepath.Join(n.Dir, "lib"), "/var/lib", "", syscall.MS_BIND | syscall.MS_REC, ""},
		// Volumes that ask for it may propagate mounts between containers and the node.
		{"none", "/", "", syscall.MS_REC | syscall.MS_SHARED, ""},
	} {
		if err := syscall.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s at %s: %w", m.source, m.target, err)
		}
	}
	if err := mountCgroups(cgroups); err != nil {
		return err
	}
	for name, value := range tunables {
		file := filepath.Join("/run/tunables", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		if err := syscall.Mount(file, filepath.Join("/proc/sys", name), "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("cover /proc/sys/%s: %w", name, err)
		}
	}
	return nil
}

// network makes the bridge that the pods will hang on, and sends to it what has no other way: addresses of services need
// some route before iptables can replace them.
func network() error {
	for _, line := range []string{
		"link set lo up",
		"link add " + bridge + " type bridge",
		"address add " + nodeAddress + "/16 dev " + bridge,
		"link set " + bridge + " up",
		"route add default dev " + bridge,
	} {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", line, err, out)
		}
	}
	return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0)
}

// forward connects the machine with the API server: the socket was opened outside of the node's network and stays there.
func forward(socket net.Listener) {
	for {
		outside, err := socket.Accept()
		if err != nil {
			log.Printf("accept a connection: %v", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		go func() {
			if err := connect(outside); err != nil {
				log.Printf("a connection to the API server: %v", err)
			}
		}()
	}
}

// connect passes bytes between a connection and the API server, until both have said all.
func connect(outside net.Conn) error {
	inside, err := net.Dial("tcp", "127.0.0.1:"+apiPort)
	if err != nil {
		return errors.Join(err, outside.Close())
	}
	answered := make(chan error)
	go func() { answered <- stream(outside, inside) }()
	sent := stream(inside, outside)
	return errors.Join(sent, <-answered, inside.Close(), outside.Close())
}

func stream(to, from net.Conn) error {
	_, err := io.Copy(to, from)
	return errors.Join(err, to.(*net.TCPConn).CloseWrite())
}
