package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A hierarchy is one mounted tree of cgroups. Of version 1 there is one for each controller or set of controllers, of
// version 2 a single one.
type hierarchy struct {
	mount       string
	controllers string // the mount option of version 1, such as "cpu,cpuacct" or "name=systemd"; "" means version 2
}

// hierarchies returns those of version 1 where there are any that control something, else the one of version 2.
func hierarchies() ([]hierarchy, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var v1, v2 []hierarchy
	controls := false
	for lines := bufio.NewScanner(file); lines.Scan(); {
		// 36 35 98:0 /root /mount options… - type source super,options (see proc(5))
		before, after, _ := strings.Cut(lines.Text(), " - ")
		fields, super := strings.Fields(before), strings.Fields(after)
		if len(fields) < 5 || len(super) < 3 {
			continue
		}
		switch mount := fields[4]; super[0] {
		case "cgroup2":
			v2 = append(v2, hierarchy{mount: mount})
		case "cgroup":
			var controllers []string
			for _, option := range strings.Split(super[2], ",") {
				if named := strings.HasPrefix(option, "name="); named || isController(option) {
					controllers = append(controllers, option)
					controls = controls || !named
				}
			}
			h := hierarchy{mount: mount, controllers: strings.Join(controllers, ",")}
			if !slices.ContainsFunc(v1, func(known hierarchy) bool { return known.controllers == h.controllers }) {
				v1 = append(v1, h)
			}
		}
	}
	if controls {
		return v1, nil
	}
	if len(v2) == 0 {
		return nil, errors.New("no cgroups are mounted on this machine; mount them at /sys/fs/cgroup")
	}
	return v2[:1], nil
}

func isController(option string) bool {
	return slices.Contains([]string{"cpuset", "cpu", "cpuacct", "blkio", "memory", "devices", "freezer",
		"net_cls", "perf_event", "net_prio", "hugetlb", "pids", "rdma", "misc"}, option)
}

// makeCgroups makes the cgroups that the node will see as the roots of all cgroups.
func makeCgroups(id string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		dir := filepath.Join(h.mount, id)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make a cgroup: %w", err)
		}
		if h.controllers == "" {
			if err := enableControllers(h.mount); err != nil {
				return err
			}
		}
		if slices.Contains(strings.Split(h.controllers, ","), "cpuset") {
			// A new cpuset is empty, and nothing can join it.
			for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
				value, err := os.ReadFile(filepath.Join(h.mount, file))
				if err == nil {
					err = os.WriteFile(filepath.Join(dir, file), value, 0)
				}
				if err != nil {
					return fmt.Errorf("fill a cpuset: %w", err)
				}
			}
		}
	}
	return nil
}

// enableControllers lets the children of a cgroup of version 2 use each controller that the cgroup itself has.
func enableControllers(dir string) error {
	has, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("read the cgroup controllers: %w", err)
	}
	for _, controller := range strings.Fields(string(has)) {
		// One at a time: the kernel refuses all when it refuses one, and the kubelet names those it misses.
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0)
	}
	return nil
}

// joinCgroups moves the calling process into them.
func joinCgroups(id string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		if err := os.WriteFile(filepath.Join(h.mount, id, "cgroup.procs"), []byte("0"), 0); err != nil {
			return fmt.Errorf("join a cgroup: %w", err)
		}
	}
	return nil
}

// mountCgroups mounts what a cgroup namespace shows of the host's hierarchies, where programs look for them.
func mountCgroups(all []hierarchy) error {
	const root = "/sys/fs/cgroup"
	const flags = syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC
	if len(all) == 1 && all[0].controllers == "" {
		if err := syscall.Mount("cgroup2", root, "cgroup2", flags, ""); err != nil {
			return fmt.Errorf("mount cgroup2: %w", err)
		}
		// A cgroup may have processes or controlled children, not both, unless it is the machine's root.
		init := filepath.Join(root, "init")
		if err := os.Mkdir(init, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(init, "cgroup.procs"), []byte("0"), 0); err != nil {
			return fmt.Errorf("join a cgroup: %w", err)
		}
		return enableControllers(root)
	}
	if err := syscall.Mount("cgroup", root, "tmpfs", flags, "mode=755"); err != nil {
		return fmt.Errorf("mount a tmpfs at %s: %w", root, err)
	}
	for _, h := range all {
		name, option := strings.TrimPrefix(h.controllers, "name="), h.controllers
		if name != h.controllers {
			option = "none," + option
		}
		dir := filepath.Join(root, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if err := syscall.Mount("cgroup", dir, "cgroup", flags, option); err != nil {
			return fmt.Errorf("mount cgroup %s: %w", option, err)
		}
		for _, controller := range strings.Split(name, ",") {
			if controller != name {
				if err := os.Symlink(name, filepath.Join(root, controller)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// removeCgroups removes them and all below. The kernel may count a process that has just ended for a moment longer.
func removeCgroups(id string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		root := filepath.Join(h.mount, id)
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			var dirs []string
			_ = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
				if err == nil && entry.IsDir() {
					dirs = append(dirs, path)
				}
				return nil
			})
			if len(dirs) == 0 {
				break
			}
			slices.Reverse(dirs) // children first
			var last error
			for _, dir := range dirs {
				if err := syscall.Rmdir(dir); err != nil && !errors.Is(err, syscall.ENOENT) {
					last = fmt.Errorf("remove the cgroup %s: %w", dir, err)
				}
			}
			if last != nil && time.Now().After(end) {
				return last
			}
		}
	}
	return nil
}
