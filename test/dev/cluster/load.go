package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// enter returns the command line that runs a command inside the node.
func (c cluster) enter(args ...string) ([]string, error) {
	r, err := c.running()
	if err != nil {
		return nil, err
	}
	return append([]string{"nsenter", "--target=" + strconv.Itoa(r.Node.PID), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--",
		"env", "PATH=" + nodePath, "KUBECONFIG=" + configDir + "/admin.kubeconfig"}, args...), nil
}

// exec becomes a command inside the node.
func (c cluster) exec(args []string) error {
	if len(args) == 0 {
		return errors.New("exec: give a command, such as: ctr -n k8s.io containers list")
	}
	line, err := c.enter(args...)
	if err != nil {
		return err
	}
	path, err := exec.LookPath(line[0])
	if err != nil {
		return err
	}
	return fmt.Errorf("execute nsenter: %w", syscall.Exec(path, line, os.Environ()))
}

// load gives images to containerd, and returns once the kubelet can find them.
func (c cluster) load(archives []string) error {
	if len(archives) == 0 {
		return errors.New("load: give image archives, as written by build or docker save")
	}
	for _, archive := range archives {
		done := step("Loading %s", archive)
		file, err := os.Open(archive)
		if err != nil {
			return fmt.Errorf("load: %w", err)
		}
		defer file.Close()
		line, err := c.enter("ctr", "--namespace=k8s.io", "images", "import", "-")
		if err != nil {
			return err
		}
		command := exec.Command(line[0], line[1:]...)
		command.Stdin = file
		out, err := command.CombinedOutput()
		if err != nil {
			return fmt.Errorf("load %s: %w: %s", archive, err, out)
		}
		// "unpacking NAME (sha256:…)...done"
		var names []string
		for _, l := range strings.Split(string(out), "\n") {
			if words := strings.Fields(l); len(words) > 1 && words[0] == "unpacking" {
				names = append(names, words[1])
			}
		}
		if len(names) == 0 {
			return fmt.Errorf("load %s: it contains no named image: %s", archive, out)
		}
		if err := c.awaitImages(names); err != nil {
			return err
		}
		done()
		fmt.Println(strings.Join(names, "\n"))
	}
	return nil
}

// awaitImages waits until the part of containerd that the kubelet talks to has noticed the images, which it marks with a
// label. A pod that starts earlier would wait ten seconds for its next attempt.
func (c cluster) awaitImages(names []string) error {
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		line, err := c.enter("ctr", "--namespace=k8s.io", "images", "list", "--quiet", `labels."io.cri-containerd.image"==managed`)
		if err != nil {
			return err
		}
		out, err := exec.Command(line[0], line[1:]...).Output()
		if err != nil {
			return fmt.Errorf("list the images: %w", err)
		}
		noticed := strings.Fields(string(out))
		missing := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(noticed, name) })
		if len(missing) == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("containerd did not find these images within a minute: %s", strings.Join(missing, ", "))
		}
	}
}
