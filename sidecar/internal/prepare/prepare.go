// Package prepare makes what must exist before the application's containers start:
// the files and directories that they mount, and, in a seeding container, the copy of what
// the image has in such a directory.
package prepare

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/log-bridge/log-bridge/sidecar/contract"
)

// Make makes the files and directories of a configuration in its first root, the state's
// directory, and, if a seeding container is to run, the copy of this program for it. What an
// earlier start created is left alone: a container may have it mounted, and a file that is
// replaced would be lost to it.
//
// The state directory shows whether there was an earlier start: no other container has it
// mounted. What is in the way at the first start comes from a container that runs before the
// sidecar and mounts what the application mounts: the kubelet created directories for it, owned by
// root, even where files belong. They are moved aside and reported with say.
//
// It sets the process's umask to 0: any user of the pod must be able to write.
func Make(cfg contract.Config, say func(format string, args ...any)) error {
	syscall.Umask(0)
	if len(cfg.Files)+len(cfg.Dirs)+len(cfg.Seeded) > 0 {
		if err := makeTrees(cfg, say); err != nil {
			return err
		}
	}
	// Last: a start that is killed before this is followed by another first one. Nothing has
	// mounted anything by then, because `ready` waits for this directory.
	if err := os.MkdirAll(cfg.StatePath(), 0o700); err != nil {
		return fmt.Errorf("create the state directory: %w", err)
	}
	return nil
}

func makeTrees(cfg contract.Config, say func(format string, args ...any)) error {
	if err := os.MkdirAll(cfg.Roots[0], 0o755); err != nil {
		return fmt.Errorf("create the shared directory: %w", err)
	}
	// os.Root keeps links that an application put into its directories from leading out.
	root, err := os.OpenRoot(cfg.Roots[0])
	if err != nil {
		return fmt.Errorf("open the shared directory: %w", err)
	}
	defer root.Close()
	_, err = os.Lstat(cfg.StatePath())
	first := errors.Is(err, fs.ErrNotExist)
	for _, container := range containers(cfg) {
		if !first {
			if err := makeTree(root, container, container, cfg); err != nil {
				return err
			}
			continue
		}
		// As it is checked, and as it is made, the kubelet may make something there once more.
		if ours(root, container, cfg) && makeTree(root, container, container, cfg) == nil {
			continue
		}
		// No container's name begins with a dot.
		fresh := ".new-" + container
		if err := root.RemoveAll(fresh); err != nil {
			return fmt.Errorf("remove leftovers of an earlier start: %w", err)
		}
		if err := makeTree(root, fresh, container, cfg); err != nil {
			return err
		}
		if err := put(root, fresh, container, say); err != nil {
			return fmt.Errorf("move the files and directories of container %s into place: %w", container, err)
		}
	}
	if len(cfg.Seeded) > 0 {
		if err := copySelf(root); err != nil {
			return fmt.Errorf("copy log-bridge for the seeding container: %w", err)
		}
	}
	return nil
}

// containers are those for which something is to be made, each once.
func containers(cfg contract.Config) []string {
	var names []string
	for _, p := range slices.Concat(cfg.Files, cfg.Dirs, cfg.Seeded) {
		if !slices.Contains(names, p.Container) {
			names = append(names, p.Container)
		}
	}
	return names
}

// ours says whether a tree that is there before the first start can be gone on with, as by hand:
// its directories are ours, and nothing is there but files where files are to be.
func ours(root *os.Root, container string, cfg contract.Config) bool {
	there := func(name string) (fs.FileInfo, bool) {
		st, err := root.Lstat(name)
		return st, !errors.Is(err, fs.ErrNotExist)
	}
	if _, ok := there(container); !ok {
		return false
	}
	for _, p := range slices.Concat(cfg.Files, cfg.Dirs, cfg.Seeded) {
		if p.Container != container {
			continue
		}
		name := path.Join(container, p.Path)
		if st, ok := there(name); ok && (st == nil || !st.Mode().IsRegular() || !slices.Contains(cfg.Files, p)) {
			return false
		}
		for above := path.Dir(name); above != "."; above = path.Dir(above) {
			st, ok := there(above)
			if ok && (st == nil || !st.IsDir() || int(st.Sys().(*syscall.Stat_t).Uid) != os.Geteuid()) {
				return false
			}
		}
	}
	return true
}

// makeTree makes, at a name of the root, what one container is to have.
func makeTree(root *os.Root, at, container string, cfg contract.Config) error {
	for _, p := range cfg.Files {
		if p.Container != container {
			continue
		}
		if err := makeFile(root, path.Join(at, p.Path)); err != nil {
			return fmt.Errorf("create the file %s: %w", p, err)
		}
	}
	for _, p := range cfg.Dirs {
		if p.Container != container {
			continue
		}
		if err := makeDir(root, path.Join(at, p.Path), contract.DirMode(p.Path)); err != nil {
			return fmt.Errorf("create the directory %s: %w", p, err)
		}
	}
	for _, p := range cfg.Seeded {
		if p.Container != container {
			continue
		}
		// The seeding container runs as the application's user and makes the directory
		// itself, so that it belongs to that user.
		if err := makeDir(root, path.Join(at, path.Dir(p.Path)), 0o2777); err != nil {
			return fmt.Errorf("create the parent directory of %s: %w", p, err)
		}
		if err := makeDir(root, path.Join(at, contract.SeedDir), 0o2777); err != nil {
			return fmt.Errorf("create the directory for seeding %s: %w", p, err)
		}
	}
	return nil
}

// put gives a tree its name. What has the name is renamed, which anybody may do in an
// emptyDir, no matter who owns it; it is not deleted, because a container that still runs may
// have it mounted.
func put(root *os.Root, from, to string, say func(format string, args ...any)) error {
	const tries = 100 // such a container may be restarted meanwhile, and the name is taken again
	for n := 1; ; n++ {
		_, err := root.Lstat(to)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			// rename(2) replaces an empty directory, and no other.
			if err = root.Rename(from, to); err == nil || n >= tries {
				return err
			}
			continue
		case err != nil:
			return err
		case n >= tries:
			return fmt.Errorf("something else keeps creating it")
		}
		aside := fmt.Sprintf(".aside-%d-%s", n, to)
		if _, err := root.Lstat(aside); err == nil {
			continue
		}
		if err := root.Rename(to, aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("move the existing one to %s: %w", aside, err)
		} else if err == nil {
			say("a container that starts before log-bridge has the mounts of container %s; moved what the kubelet created for it to %s in the volume, so container %s sees its own files", to, aside, to)
		}
	}
}

// makeFile makes an empty file that any user may write and its owner, the sidecar, read.
func makeFile(root *os.Root, name string) error {
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err == nil {
		return f.Close()
	}
	st, statErr := root.Lstat(name)
	switch {
	case !errors.Is(err, fs.ErrExist):
		return err
	case statErr != nil:
		return statErr
	case !st.Mode().IsRegular():
		return fmt.Errorf("something else has this name (%s)", st.Mode().Type())
	}
	return nil
}

// makeDir makes a directory with exactly the mode, given as chmod(2) takes it.
func makeDir(root *os.Root, name string, mode uint32) error {
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	if err := root.Mkdir(name, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	m := fs.FileMode(mode & 0o777)
	if mode&0o2000 != 0 {
		m |= fs.ModeSetgid
	}
	if mode&0o1000 != 0 {
		m |= fs.ModeSticky
	}
	err := root.Chmod(name, m)
	if errors.Is(err, fs.ErrPermission) {
		// Of another owner: a directory of an earlier start, or a parent of one.
		return nil
	}
	return err
}

// copySelf puts a copy of this program where the seeding containers mount it. A copy
// that a seeding container is running cannot be written to, so it is replaced whole.
func copySelf(root *os.Root) error {
	if err := makeDir(root, contract.BinDir, 0o755); err != nil {
		return err
	}
	self, err := os.Open("/proc/self/exe")
	if errors.Is(err, fs.ErrPermission) {
		self, err = os.Open(contract.ReadableProgram)
	}
	if err != nil {
		return err
	}
	defer self.Close()
	name := path.Join(contract.BinDir, contract.BinName)
	if err := root.Remove(name + ".new"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := root.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, self); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return root.Rename(name+".new", name)
}

// seedDirOf finds the directory for what is still being copied and for the list of seeded
// files: the nearest one of that name above to. Without one, as by hand, it is empty.
func seedDirOf(to string) string {
	for dir := filepath.Dir(to); ; dir = filepath.Dir(dir) {
		if st, err := os.Lstat(filepath.Join(dir, contract.SeedDir)); err == nil && st.IsDir() {
			return filepath.Join(dir, contract.SeedDir)
		}
		if dir == filepath.Dir(dir) {
			return ""
		}
	}
}
