package main

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A cluster is a name and the one directory that holds everything it keeps on disk:
//
//	record       the process that it lives in
//	kubeconfig   for its administrator
//	lib, log     what the node sees as /var/lib and /var/log
type cluster struct {
	name string
	dir  string
}

var clusterName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

func newCluster(name, state string) (cluster, error) {
	if !clusterName.MatchString(name) {
		return cluster{}, fmt.Errorf("--name %q: use at most 32 lower-case letters, digits and dashes", name)
	}
	state, err := filepath.Abs(state)
	if err != nil {
		return cluster{}, fmt.Errorf("--state: %w", err)
	}
	return cluster{name: name, dir: filepath.Join(state, name)}, nil
}

func (c cluster) path(elem ...string) string {
	return filepath.Join(append([]string{c.dir}, elem...)...)
}

// id differs from that of any other cluster on the machine, also of one with the same name in another directory.
func (c cluster) id() string {
	return fmt.Sprintf("log-bridge-cluster-%s-%x", c.name, sha256.Sum256([]byte(c.dir)))[:len("log-bridge-cluster--")+len(c.name)+8]
}

// A record says which process a cluster lives in, and how to use it.
type record struct {
	Node    process
	Kube    string // the program that it runs
	Address string // where the machine reaches the API server
	Token   string // of the administrator
	Ready   bool   // up has seen it work
}

func (c cluster) readRecord() (record, error) {
	var r record
	data, err := os.ReadFile(c.path("record"))
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	return r, err
}

func (c cluster) writeRecord(r record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return writeAtomically(c.path("record"), data, 0o600)
}

// running returns the record of a cluster that can be used.
func (c cluster) running() (record, error) {
	r, err := c.readRecord()
	if err != nil || !r.Node.alive() || !r.Ready {
		return record{}, fmt.Errorf("the cluster %q is not running; start it with: cluster up --name %s", c.name, c.name)
	}
	return r, nil
}

// A process is a process id together with the moment the process began, because the kernel gives
// an id to another process some time after its owner has ended.
type process struct {
	PID   int
	Start string // field 22 of /proc/PID/stat, in clock ticks since boot
	Boot  string // the kernel's random id of this boot
}

func processOf(pid int) (process, error) {
	_, start, err := processStat(pid)
	if err != nil {
		return process{}, err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return process{}, fmt.Errorf("read the boot id: %w", err)
	}
	return process{PID: pid, Start: start, Boot: strings.TrimSpace(string(boot))}, nil
}

func processStat(pid int) (state, start string, err error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", "", err
	}
	// The second field is the command's name in parentheses and may itself hold spaces and parentheses.
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	return fields[0], fields[19], nil
}

// alive is false for a zombie: the first process of a PID namespace becomes one only after all others in it are gone.
func (p process) alive() bool {
	if p.PID == 0 {
		return false
	}
	now, err := processOf(p.PID)
	if err != nil || now != p {
		return false
	}
	state, _, err := processStat(p.PID)
	return err == nil && state != "Z" && state != "X"
}

// kill ends the process, if it is alive, and returns once it is gone.
func (p process) kill() error {
	if !p.alive() {
		return nil
	}
	// The handle stays with the process it was made for, which the check below makes sure of.
	handle, err := os.FindProcess(p.PID)
	if err != nil {
		return fmt.Errorf("find process %d: %w", p.PID, err)
	}
	defer func() { _ = handle.Release() }()
	for end := time.Now().Add(time.Minute); p.alive(); time.Sleep(20 * time.Millisecond) {
		if err := handle.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("kill process %d: %w", p.PID, err)
		}
		if time.Now().After(end) {
			return fmt.Errorf("process %d is still there a minute after SIGKILL", p.PID)
		}
	}
	return nil
}

// cacheDir holds what is dear to make and survives a cluster: compiled programs and image layers.
func cacheDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a directory for the cache: %w; set XDG_CACHE_HOME", err)
	}
	dir := filepath.Join(base, "log-bridge")
	return dir, os.MkdirAll(dir, 0o755)
}

// lock takes the machine-wide lock of that name, waiting for its present holder for at most the given time. It is a socket
// in the abstract name space: that leaves no file, and the kernel releases it when this process ends, however it ends.
func lock(name string, patience time.Duration) (release func(), err error) {
	start := time.Now()
	for said := false; ; time.Sleep(50 * time.Millisecond) {
		socket, err := net.Listen("unix", "@log-bridge/"+name)
		if err == nil {
			return func() { _ = socket.Close() }, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
		waited := time.Since(start)
		if waited >= patience {
			return nil, fmt.Errorf("another process is using %s", name)
		}
		if !said && waited > time.Second {
			said = true
			say("Waiting for another process that uses %s.", name)
		}
	}
}

// writeAtomically lets readers see the old content or the new one, never a part.
func writeAtomically(path string, data []byte, mode os.FileMode) error {
	temp := path + ".new"
	if err := os.WriteFile(temp, data, mode); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

// step says what takes a while; done says how long it took.
func step(format string, args ...any) (done func()) {
	say(format+" …", args...)
	start := time.Now()
	return func() { say("  done in %.1f s", time.Since(start).Seconds()) }
}
