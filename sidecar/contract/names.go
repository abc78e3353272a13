// Package contract is the agreement between the webhook, which writes a
// sidecar into a pod, and the sidecar, which runs there: the names both use,
// the table of annotations, the grammar of an entry, and the sidecar's command
// line in both directions (Config to arguments, arguments to Config).
//
// It is the only package that both programs import, so it uses the standard
// library alone. Everything here is a value or a pure function.
package contract

import "path"

// Names of things in a pod.
const (
	// Prefix is what each of our annotations starts with.
	Prefix = "log-bridge.dev/"
	// Container is the name of the sidecar container.
	Container = "log-bridge"
	// Volume is the name of the emptyDir volume that a pod gets.
	Volume = "log-bridge"
	// SeedContainerPrefix, with the application container's name behind it, names a
	// seeding init container. Kubernetes allows 63 characters; a longer name is
	// shortened by the webhook.
	SeedContainerPrefix = "log-bridge-seed-"
)

// User is the numeric user and group of the sidecar's image, as its Dockerfile says: where neither the pod nor an
// annotation says otherwise, the sidecar runs as this user, and nobody else does.
const User = 41932

// Where things are in the sidecar's file system.
const (
	// Root is where the emptyDir is mounted, in the sidecar and in the seeding
	// containers. What container C sees as /var/log/x.log is at Root/C/var/log/x.log.
	Root = "/log-bridge"
	// VolumesRoot is where the user's own volumes are mounted, read-only and whole:
	// VolumesRoot/NAME. They are not mounted inside Root because the runtime would
	// leave mount points of root in the emptyDir, and not inside one another because
	// a mount point cannot be made inside a read-only mount. Views say where a
	// container sees them.
	VolumesRoot = "/log-bridge-volumes"
	// StateDir, a directory of the root, holds the checkpoint and the ready file. No
	// container name starts with a dot, so it cannot collide with a container's tree.
	StateDir = ".log-bridge"
	// BinDir, a directory of the root, holds the sidecar's copy of itself, which the
	// seeding containers run.
	BinDir = ".bin"
	// BinName is the name of that copy.
	BinName = "log-bridge"
	// ReadableProgram is a second copy of the sidecar's program in its image. The first, which
	// the container runs, may be executed but not read: the kernel lets no other process
	// of the same user look into such a process, from its very start.
	ReadableProgram = "/bin/log-bridge.readable"
	// TokenDir, a directory of the root, stays empty. It is mounted where the API
	// server would otherwise mount a service-account token.
	TokenDir = ".token"
	// SeedDir, a directory at the top of a seeded container's tree (Root/C/SeedDir), holds
	// what a seeding container is still copying and its list of the files it
	// seeded. Application containers mount only directories beside it; the sidecar
	// never follows a file in it.
	SeedDir = ".log-bridge"
	// TokenPath is where the ServiceAccount admission plugin mounts the token,
	// unless the container has a mount of its own there.
	TokenPath = "/var/run/secrets/kubernetes.io/serviceaccount"
)

// DirMode is the mode of a directory that the sidecar makes for an application
// directory: writable for any user, setgid so that new files carry a group the
// sidecar can read, and sticky where the directory is sticky everywhere.
// The bits are those of chmod(2), not of io/fs.
func DirMode(dir string) uint32 {
	if Sticky(dir) {
		return 0o3777
	}
	return 0o2777
}

// Sticky says whether a directory is sticky by convention. With the usual
// fs.protected_regular, opening a file of another owner with O_CREAT directly in
// such a directory is denied, even to root; so no file is mounted there.
func Sticky(dir string) bool {
	switch path.Clean(dir) {
	case "/tmp", "/var/tmp":
		return true
	}
	return false
}
