package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A need is a program from Debian: the package is installed only where none of the files exists, because the
// program may well have come from elsewhere (Docker brings its own containerd).
type need struct {
	pkg   string
	files []string
}

var (
	python    = need{"python3", []string{"/usr/bin/python3"}}
	buildah   = need{"buildah", []string{"/usr/bin/buildah"}}
	logrotate = need{"logrotate", []string{"/usr/sbin/logrotate"}}

	nodePackages = []need{
		{"containerd", []string{"/usr/bin/containerd", "/usr/local/bin/containerd"}},
		{"runc", []string{"/usr/sbin/runc", "/usr/bin/runc", "/usr/local/bin/runc", "/usr/local/sbin/runc"}},
		{"containernetworking-plugins", []string{"/usr/lib/cni/bridge"}},
		{"iptables", []string{"/usr/sbin/iptables", "/sbin/iptables"}},
		{"iproute2", []string{"/usr/sbin/ip", "/sbin/ip", "/bin/ip"}},
	}

	// otherPackages are programs that tests run, inside a node beside Kubernetes or on the machine.
	otherPackages = []need{
		{"podman", []string{"/usr/bin/podman"}},
		{"conmon", []string{"/usr/bin/conmon"}},
		{"crun", []string{"/usr/bin/crun"}},
		{"docker.io", []string{"/usr/sbin/dockerd", "/usr/bin/dockerd"}},
		{"docker-compose", []string{"/usr/bin/docker-compose"}},
		{"rsyslog", []string{"/usr/sbin/rsyslogd"}},
		{"xfsprogs", []string{"/usr/sbin/mkfs.xfs", "/sbin/mkfs.xfs"}},
		{"btrfs-progs", []string{"/usr/bin/mkfs.btrfs", "/usr/sbin/mkfs.btrfs", "/sbin/mkfs.btrfs"}},
		{"systemd", []string{"/lib/systemd/systemd-journald", "/usr/lib/systemd/systemd-journald"}},
	}
)

// installOthers installs packages that tests name.
func installOthers(names []string) error {
	if len(names) == 0 {
		return errors.New("install: give names of Debian packages, such as podman")
	}
	var needs []need
	for _, name := range names {
		i := slices.IndexFunc(otherPackages, func(n need) bool { return n.pkg == name })
		if i < 0 {
			return fmt.Errorf("install: no package %q in the list otherPackages of test/dev/cluster/package.go", name)
		}
		needs = append(needs, otherPackages[i])
	}
	return installPackages(needs)
}

// path returns the file that fulfils the need, or "".
func (n need) path() string {
	for _, file := range n.files {
		if _, err := os.Stat(file); err == nil {
			return file
		}
	}
	return ""
}

// busyboxPath returns a static busybox, which images can be made of. Most machines have the package busybox for their start,
// which is not static. So busybox-static, which would take its place, is unpacked into the cache rather than installed.
func busyboxPath() (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "busybox-static")
	find := func() string {
		for _, file := range []string{"/usr/bin/busybox", filepath.Join(dir, "usr/bin/busybox"), filepath.Join(dir, "bin/busybox")} {
			if isStatic(file) {
				return file
			}
		}
		return ""
	}
	if file := find(); file != "" {
		return file, nil
	}
	release, err := lock(dir, time.Hour)
	if err != nil {
		return "", err
	}
	defer release()
	if file := find(); file != "" {
		return file, nil
	}
	done := step("Fetching the Debian package busybox-static")
	temp, err := os.MkdirTemp("", "log-bridge-busybox")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	if err := aptGetFresh(temp, "download", "busybox-static"); err != nil {
		return "", fmt.Errorf("fetch a Debian package: %w", err)
	}
	packages, err := filepath.Glob(filepath.Join(temp, "*.deb"))
	if err != nil || len(packages) != 1 {
		return "", fmt.Errorf("apt-get download: want one package, have %q", packages)
	}
	if out, err := exec.Command("dpkg-deb", "--extract", packages[0], dir+".new").CombinedOutput(); err != nil {
		return "", fmt.Errorf("unpack busybox-static: %w: %s", err, out)
	}
	if err := errors.Join(os.RemoveAll(dir), os.Rename(dir+".new", dir)); err != nil {
		return "", err
	}
	done()
	file := find()
	if file == "" {
		return "", fmt.Errorf("no static busybox is in %s", dir)
	}
	return file, nil
}

// isStatic reports whether a file is a program that needs no shared libraries.
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
	// Two that run at once would find apt-get's own locks taken.
	release, err := lock("packages", time.Hour)
	if err != nil {
		return err
	}
	defer release()
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
	if err := aptGetFresh("/", append([]string{"install", "--yes", "--no-install-recommends"}, missing...)...); err != nil {
		return fmt.Errorf("install Debian packages: %w", err)
	}
	done()
	for _, n := range needs {
		if n.path() == "" {
			return fmt.Errorf("the package %s is installed, but none of its files exists: %s", n.pkg, strings.Join(n.files, ", "))
		}
	}
	return nil
}

// aptGetFresh tries once more with a new list of packages: the machine's may never have been read, or be too old.
func aptGetFresh(dir string, args ...string) error {
	if aptGet(dir, args...) == nil {
		return nil
	}
	if err := aptGet(dir, "update"); err != nil {
		return err
	}
	return aptGet(dir, args...)
}

func aptGet(dir string, args ...string) error {
	command := exec.Command("apt-get", append([]string{"--quiet", "--quiet"}, args...)...)
	command.Dir = dir
	// The last two keep packages from starting the machine's services, with systemd and without.
	command.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "SYSTEMD_OFFLINE=1", "RUNLEVEL=1")
	if out, err := command.CombinedOutput(); err != nil {
		return errors.New("apt-get " + args[0] + ": " + err.Error() + "\n" + string(out))
	}
	return nil
}
