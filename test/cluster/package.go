package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// A need is a program from Debian: the package is installed only where none of the files exists, because the
// program may well have come from elsewhere (Docker brings its own containerd).
type need struct {
	pkg   string
	files []string
}

var (
	busybox = need{"busybox-static", []string{"/usr/bin/busybox", "/bin/busybox"}}
	python  = need{"python3", []string{"/usr/bin/python3"}}
	buildah = need{"buildah", []string{"/usr/bin/buildah"}}

	nodePackages = []need{
		{"containerd", []string{"/usr/bin/containerd", "/usr/local/bin/containerd"}},
		{"runc", []string{"/usr/sbin/runc", "/usr/bin/runc", "/usr/local/bin/runc", "/usr/local/sbin/runc"}},
		{"containernetworking-plugins", []string{"/usr/lib/cni/bridge"}},
		{"iptables", []string{"/usr/sbin/iptables", "/sbin/iptables"}},
		{"iproute2", []string{"/usr/sbin/ip", "/sbin/ip", "/bin/ip"}},
		busybox,
	}
)

// path returns the file that fulfils the need, or "".
func (n need) path() string {
	for _, file := range n.files {
		if _, err := os.Stat(file); err == nil && (n.pkg != busybox.pkg || isStatic(file)) {
			return file
		}
	}
	return ""
}

// isStatic: Debian's package busybox, which may be installed instead, needs libraries that no image has.
func isStatic(file string) bool {
	data, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	program, err := elf.NewFile(bytes.NewReader(data))
	return err == nil && !slices.ContainsFunc(program.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

// installPackages installs those that are missing.
func installPackages(needs []need) error {
	var missing []string
	for _, n := range needs {
		if n.path() == "" {
			missing = append(missing, n.pkg)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	list := strings.Join(missing, " ")
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("these Debian packages are missing, and there is no apt-get to install them: %s", list)
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("these Debian packages are missing; install them: apt-get install %s", list)
	}
	done := step("Installing the Debian packages %s", list)
	err := aptGet(append([]string{"install", "--yes", "--no-install-recommends"}, missing...)...)
	if err != nil {
		// The list of packages may never have been read, or be too old.
		if err = aptGet("update"); err == nil {
			err = aptGet(append([]string{"install", "--yes", "--no-install-recommends"}, missing...)...)
		}
	}
	if err != nil {
		return fmt.Errorf("install Debian packages: %w", err)
	}
	done()
	for _, n := range needs {
		if n.path() == "" {
			return fmt.Errorf("the package %s is installed, but none of its files is there: %s", n.pkg, strings.Join(n.files, ", "))
		}
	}
	return nil
}

func aptGet(args ...string) error {
	command := exec.Command("apt-get", append([]string{"--quiet", "--quiet"}, args...)...)
	command.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := command.CombinedOutput(); err != nil {
		return errors.New("apt-get " + args[0] + ": " + err.Error() + "\n" + string(out))
	}
	return nil
}
