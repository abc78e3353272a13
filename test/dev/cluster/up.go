package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// up returns once the cluster can be used; with foreground, once it has been taken down again.
func (c cluster) up(ctx context.Context, foreground bool) error {
	if os.Geteuid() != 0 {
		return errors.New("up: must be run as root, because it creates namespaces and cgroups; use sudo")
	}
	// A cluster in the foreground belongs to the process that holds this lock.
	release, err := lock(c.dir, 0)
	if err != nil {
		return fmt.Errorf("%w; wait for it, or choose another --name", err)
	}
	defer release()
	if foreground {
		// The process that started this, usually a test, may die at any time, and stdin ends with it. So may the readers of
		// stdout and stderr, and a message that nobody reads must not end this program before it has cleaned up.
		signal.Ignore(syscall.SIGPIPE)
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			cancel()
		}()
	}
	if err := installPackages(nodePackages); err != nil {
		return err
	}
	program, err := toolPath(ctx, kube.name)
	if err != nil {
		return err
	}
	if r, err := c.running(); err == nil && !foreground && r.Kube == program {
		err := c.healthy(r)
		if err == nil {
			say("The cluster %q is already running.", c.name)
			fmt.Println(c.path("kubeconfig"))
			return nil
		}
		say("The cluster %q is running but broken: %v. Restarting it.", c.name, err)
	}
	if err := c.remove(); err != nil {
		return err
	}

	done := step("Starting the cluster %q", c.name)
	n, err := c.start(program)
	if err == nil {
		err = n.awaitReady(ctx)
	}
	if err == nil {
		n.record.Ready = true
		err = c.publish(n.record)
	}
	if err == nil && !foreground {
		err = n.detach()
	}
	if err != nil {
		return errors.Join(err, c.remove())
	}
	done()
	fmt.Println(c.path("kubeconfig"))
	if foreground {
		err := n.awaitEnd(ctx)
		done := step("Taking the cluster %q down", c.name)
		defer done()
		return errors.Join(err, c.remove())
	}
	return nil
}

// down takes the cluster down, whatever state it is in.
func (c cluster) down() error {
	if os.Geteuid() != 0 {
		return errors.New("down: must be run as root; use sudo")
	}
	// An up that stays in the foreground holds the lock, and lets it go when its node has died.
	if r, err := c.readRecord(); err == nil {
		if err := r.Node.kill(); err != nil {
			return err
		}
	}
	release, err := lock(c.dir, time.Minute)
	if err != nil {
		return err
	}
	defer release()
	if _, err := os.Stat(c.dir); errors.Is(err, fs.ErrNotExist) {
		say("There is no cluster %q.", c.name)
		return c.remove()
	}
	done := step("Taking the cluster %q down", c.name)
	defer done()
	return c.remove()
}

// remove ends the node's processes, with which the kernel ends its namespaces and everything in them, and removes what
// then remains. Nothing of it is an error when it is not there.
func (c cluster) remove() error {
	if r, err := c.readRecord(); err == nil {
		if err := r.Node.kill(); err != nil {
			return err
		}
	}
	if err := removeCgroups(c.id()); err != nil {
		return err
	}
	if err := os.RemoveAll(c.dir); err != nil {
		return fmt.Errorf("remove the cluster's files: %w", err)
	}
	// Fails, and shall, while other clusters have files there.
	os.Remove(filepath.Dir(c.dir))
	return nil
}

// publish lets other processes use the cluster.
func (c cluster) publish(r record) error {
	pem, err := os.ReadFile(c.certificate())
	if err != nil {
		return err
	}
	config := kubeconfig(c.name, "https://"+r.Address, authorityData(pem), r.Token)
	if err := writeAtomically(c.path("kubeconfig"), []byte(config), 0o600); err != nil {
		return err
	}
	return c.writeRecord(r)
}

// certificate is the API server's, as the machine sees it.
func (c cluster) certificate() string { return c.path("lib/kubernetes/pki/apiserver.crt") }

// healthy makes sure once more that a cluster works that has worked before.
func (c cluster) healthy(r record) error {
	api, err := newAPI(r.Address, c.certificate(), r.Token)
	if err != nil {
		return err
	}
	for _, check := range api.checks(c.name) {
		// A component that has just died is started again within seconds.
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
			err := check.try()
			if err == nil {
				break
			}
			if time.Now().After(end) {
				return fmt.Errorf("timed out after half a minute waiting until %s: %w", check.what, err)
			}
		}
	}
	return nil
}

// A startedNode is the supervising process, seen from up.
type startedNode struct {
	record   record
	ended    chan struct{}
	reports  *os.File
	lifeline *os.File // when this end of the pipe is closed, also by this process's death, the node ends
}

// start starts the supervising process in new namespaces.
func (c cluster) start(program string) (startedNode, error) {
	var none startedNode
	for _, dir := range []string{"lib/kubernetes/bin", "log"} {
		if err := os.MkdirAll(c.path(dir), 0o755); err != nil {
			return none, err
		}
	}
	if err := kube.link(c.path("lib/kubernetes/bin")); err != nil {
		return none, err
	}
	token, err := writeConfig(c.path("lib/kubernetes"), c.name)
	if err != nil {
		return none, fmt.Errorf("write the configuration: %w", err)
	}
	pause, err := pauseImage()
	if err == nil {
		err = pause.write(c.path("lib/kubernetes", filepath.Base(pauseFile)))
	}
	if err != nil {
		return none, fmt.Errorf("make the pause image: %w", err)
	}
	if err := makeCgroups(c.id()); err != nil {
		return none, err
	}
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return none, err
	}
	defer func() { _ = socket.Close() }()
	socketFile, err := socket.(*net.TCPListener).File()
	if err != nil {
		return none, err
	}
	defer socketFile.Close()
	reports, reportsWriter, err := os.Pipe()
	if err != nil {
		return none, err
	}
	defer reportsWriter.Close()
	lifelineReader, lifeline, err := os.Pipe()
	if err != nil {
		return none, err
	}
	defer lifelineReader.Close()
	output, err := os.Create(c.path("log/node.log"))
	if err != nil {
		return none, err
	}
	defer output.Close()

	arg, err := json.Marshal(node{Name: c.name, Dir: c.dir, Cgroup: c.id(), Kube: program})
	if err != nil {
		return none, err
	}
	command := exec.Command("/proc/self/exe", nodeVerb, string(arg))
	command.Stdout, command.Stderr = output, output
	command.ExtraFiles = []*os.File{socketFile, reportsWriter, lifelineReader}
	command.Dir = "/"
	command.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
	}
	if err := command.Start(); err != nil {
		return none, fmt.Errorf("start the node: %w", err)
	}
	n := startedNode{ended: make(chan struct{}), reports: reports, lifeline: lifeline}
	n.record = record{Kube: program, Address: socket.Addr().String(), Token: token}
	n.record.Node, err = processOf(command.Process.Pid)
	go func() {
		_ = command.Wait() // however it died
		close(n.ended)
	}()
	if err != nil {
		return none, fmt.Errorf("the node exited at once: %w", err)
	}
	return n, c.writeRecord(n.record)
}

// awaitReady passes the node's reports on until it is ready.
func (n startedNode) awaitReady(ctx context.Context) error {
	defer n.reports.Close()
	reports := make(chan report)
	go func() {
		defer close(reports)
		for decoder := json.NewDecoder(n.reports); ; {
			var r report
			if decoder.Decode(&r) != nil {
				return
			}
			select {
			case reports <- r:
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case r, open := <-reports:
			switch {
			case !open:
				return errors.New("the node exited during its start")
			case r.Error != "":
				return errors.New(r.Error)
			case r.Ready:
				return nil
			}
			say("  %s …", r.Step)
		case <-ctx.Done():
			return errors.New("interrupted")
		}
	}
}

// detach lets the node outlive this process.
func (n startedNode) detach() error {
	_, err := n.lifeline.Write([]byte{1})
	return err
}

// awaitEnd returns when it is time to take the node down, which is well, or when the node dies, which is not.
func (n startedNode) awaitEnd(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-n.ended:
		return errors.New("the node's first process was killed, and the cluster with it")
	}
}
