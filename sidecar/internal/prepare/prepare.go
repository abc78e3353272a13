// Package prepare makes what must exist before the application's containers start:
// the files and folders that they mount, and, in a seeding container, the copy of what
// the image has in such a folder.
package prepare

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/log-bridge/log-bridge/sidecar/contract"
)

// Make makes the state's folder, the files and folders of a configuration in its first
// root, and, if a seeding container is to run, the copy of this program for it. What is
// there already, after a restart, is left as it is: a container may have it mounted,
// and a file that is replaced would be lost to it.
//
// It sets the process's umask to 0: any user of the pod must be able to write.
func Make(cfg contract.Config) error {
	syscall.Umask(0)
	if err := os.MkdirAll(cfg.StatePath(), 0o700); err != nil {
		return fmt.Errorf("make the state's folder: %w", err)
	}
	if len(cfg.Files)+len(cfg.Dirs)+len(cfg.Seeded) == 0 {
		return nil
	}
	// os.Root keeps links that an application put into its folders from leading out.
	root, err := os.OpenRoot(cfg.Roots[0])
	if err != nil {
		return fmt.Errorf("open the shared folder: %w", err)
	}
	defer root.Close()
	for _, p := range cfg.Files {
		if err := makeFile(root, p); err != nil {
			return fmt.Errorf("make the file %s: %w", p, err)
		}
	}
	for _, p := range cfg.Dirs {
		if err := makeDir(root, inRoot(p), contract.DirMode(p.Path)); err != nil {
			return fmt.Errorf("make the folder %s: %w", p, err)
		}
	}
	for _, p := range cfg.Seeded {
		// The seeding container runs as the application's user and makes the folder
		// itself, so that it belongs to that user.
		if err := makeDir(root, path.Dir(inRoot(p)), 0o2777); err != nil {
			return fmt.Errorf("make the folder above %s: %w", p, err)
		}
		if err := makeDir(root, path.Join(p.Container, contract.SeedDir), 0o2777); err != nil {
			return fmt.Errorf("make the folder for seeding %s: %w", p, err)
		}
	}
	if len(cfg.Seeded) > 0 {
		if err := copySelf(root); err != nil {
			return fmt.Errorf("copy log-bridge for the seeding container: %w", err)
		}
	}
	return nil
}

// inRoot is where a place is, relative to the root.
func inRoot(p contract.Place) string { return path.Join(p.Container, strings.TrimPrefix(p.Path, "/")) }

// makeFile makes an empty file that any user may write and its owner, the sidecar, read.
func makeFile(root *os.Root, p contract.Place) error {
	name := inRoot(p)
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
		return fmt.Errorf("there is %s of that name", st.Mode().Type())
	}
	return nil
}

// makeDir makes a folder with exactly the mode, given as chmod(2) takes it.
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
		// Of another owner: a folder of an earlier start, or a parent of one.
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

// seedDirOf finds the folder for what is still being copied and for the list of seeded
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
