package prepare

import (
	"bufio"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"golang.org/x/sys/unix"
)

// SeedList is the name, in contract.SeedDir, of the list of seeded files.
const SeedList = "seeded"

// seedMarks is the name, in contract.SeedDir, of the list of directories that are seeded to the end.
const seedMarks = "done"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Seeder copies what an image has in a directory to a directory that will be mounted over
// it.
type Seeder struct {
	// Limit is the most that is copied, in bytes.
	Limit int64
	// Say reports what could not be copied exactly.
	Say func(format string, args ...any)

	from   string
	dev    uint64
	copied int64
	list   *os.File // nil by hand
}

// Seed copies what the directory from has, its files, links and modes, to the new
// directory to. If an earlier run finished that, it does nothing: the directory may hold what
// the application wrote since. If from does not exist, to is made empty, for any user
// to write.
//
// A finished directory is known by a mark where no application can write one. That it exists is no
// sign: for a container that mounts it earlier, the kubelet makes an empty one. Such a directory is
// moved aside. By hand, without a contract.SeedDir, a directory that exists is left alone.
//
// It follows no link (but from may be one), crosses no mount, and leaves out what this
// user may not read. Files appear in to all at once, after they were listed with
// their checksum, so that the sidecar ships none of their bytes.
func (s *Seeder) Seed(from, to string) error {
	syscall.Umask(0)
	dir := seedDirOf(to)
	if _, err := os.Lstat(to); err == nil && (dir == "" || marked(dir, to)) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o777); err != nil {
		return err
	}
	tmp := filepath.Join(filepath.Dir(to), ".log-bridge-"+fileName(filepath.Base(to)))
	if dir != "" {
		tmp = filepath.Join(dir, fileName(strings.ReplaceAll(strings.TrimPrefix(to, "/"), "/", "_")))
		list, err := os.OpenFile(filepath.Join(dir, SeedList), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
		if err != nil {
			return fmt.Errorf("open the list of seeded files: %w", err)
		}
		defer list.Close()
		s.list = list
	}
	// A run that was killed may have left a part.
	if err := os.RemoveAll(tmp); err != nil {
		return fmt.Errorf("remove leftovers of an earlier run: %w", err)
	}
	real, err := filepath.EvalSymlinks(from)
	var st os.FileInfo
	if err == nil {
		st, err = os.Stat(real)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := mkdir(tmp, 0o777|fs.ModeSetgid|stickyBit(from)); err != nil {
			return err
		}
	case err != nil:
		return err
	case !st.IsDir():
		return fmt.Errorf("%s is not a directory in the image; add it to %s%s as a file with mount: %s, or set %s%s to false",
			from, contract.Prefix, contract.KeyFiles, contract.MountFile, contract.Prefix, contract.KeySeed)
	default:
		s.from, s.dev = real, st.Sys().(*syscall.Stat_t).Dev
		// The sidecar, of another user, reads by the group of the setgid directory.
		if err := s.dir(real, tmp, st.Mode().Perm()|st.Mode()&fs.ModeSticky|fs.ModeSetgid|0o050); err != nil {
			os.RemoveAll(tmp)
			return err
		}
		s.own(real, tmp, st.Sys().(*syscall.Stat_t))
	}
	if err := s.put(tmp, to); err != nil {
		return fmt.Errorf("move the copy into place: %w", err)
	}
	if dir == "" {
		return nil
	}
	if err := mark(dir, to); err != nil {
		// Where the disk is full, each further run would otherwise put one more copy aside.
		_ = os.Rename(to, tmp)
		return fmt.Errorf("mark the finished copy: %w", err)
	}
	return nil
}

// fileName shortens a name to what Linux accepts for a file, with something before it. Two names
// stay two.
func fileName(name string) string {
	const longest = 200
	if len(name) <= longest {
		return name
	}
	// Nobody gains from a collision: all names are of one pod. The packages of a cryptographic hash are 200 KB.
	sum := fnv.New128a()
	sum.Write([]byte(name))
	return hex.EncodeToString(sum.Sum(nil))
}

// put gives the copy its name, and what has the name another one beside it: anybody may rename
// in the directory above, and a container that still runs may have it mounted.
func (s *Seeder) put(from, to string) error {
	const tries = 100 // such a container may be restarted meanwhile, and the name is taken again
	var err error
	for n := 1; n <= tries; n++ {
		if _, err = os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
			// rename(2) replaces an empty directory, and no other.
			if err = os.Rename(from, to); err == nil {
				return nil
			}
			continue
		}
		aside := filepath.Join(filepath.Dir(to), fmt.Sprintf(".log-bridge-aside-%d", n))
		if _, err = os.Lstat(aside); err == nil {
			continue
		}
		if err = os.Rename(to, aside); err == nil {
			s.Say("%s was created for another container that mounts it earlier; moved it to %s, so the application sees the files of its image", to, aside)
		}
	}
	return cmp.Or(err, fs.ErrExist)
}

// marked says whether an earlier run finished a directory.
func marked(dir, to string) bool {
	text, err := os.ReadFile(filepath.Join(dir, seedMarks))
	return err == nil && slices.Contains(strings.Split(string(text), "\n"), strconv.Quote(to))
}

// mark notes that a directory is finished. The newline before it ends what a killed run may have left.
func mark(dir, to string) error {
	f, err := os.OpenFile(filepath.Join(dir, seedMarks), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString("\n" + strconv.Quote(to) + "\n")
	return errors.Join(err, f.Close())
}

func stickyBit(dir string) fs.FileMode {
	if contract.Sticky(dir) {
		return fs.ModeSticky
	}
	return 0
}

// mkdir makes a directory; chmod, since mkdir(2) knows no setgid bit.
func mkdir(name string, mode fs.FileMode) error {
	if err := os.Mkdir(name, 0o700); err != nil {
		return err
	}
	return os.Chmod(name, mode)
}

// dir copies the directory from, with everything in it, to the new directory to.
func (s *Seeder) dir(from, to string, mode fs.FileMode) error {
	entries, err := os.ReadDir(from)
	if errors.Is(err, fs.ErrPermission) {
		s.Say("skipped %s: this user may not read it", from)
		err = nil
	}
	if err != nil {
		return err
	}
	// Writable for us until it is filled.
	if err := mkdir(to, 0o700|mode&fs.ModeSetgid); err != nil {
		return err
	}
	for _, e := range entries {
		if err := s.entry(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return os.Chmod(to, mode)
}

// entry copies one thing.
func (s *Seeder) entry(from, to string) error {
	st, err := os.Lstat(from)
	if err != nil {
		return err
	}
	sys := st.Sys().(*syscall.Stat_t)
	switch mode := st.Mode(); {
	case mode.IsDir() && sys.Dev != s.dev:
		s.Say("skipped %s: something else is mounted there", from)
		return nil
	case mode.IsDir():
		// A nested directory keeps the group and the setgid bit that it inherits.
		if err := s.dir(from, to, mode.Perm()|mode&fs.ModeSticky|fs.ModeSetgid); err != nil {
			return err
		}
	case mode&fs.ModeSymlink != 0:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		if err := os.Symlink(target, to); err != nil {
			return err
		}
		s.own(from, to, sys)
		return nil
	case mode.IsRegular():
		if mode&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
			s.Say("%s is copied without its set-user-ID or set-group-ID bit", from)
		}
		if n, err := unix.Lgetxattr(from, "security.capability", nil); err == nil && n > 0 {
			s.Say("%s is copied without its file capabilities", from)
		}
		if err := s.file(from, to, mode.Perm()); err != nil {
			return err
		}
	default:
		s.Say("skipped %s: it is a %s", from, mode.Type())
		return nil
	}
	s.own(from, to, sys)
	times := []unix.Timespec{unix.Timespec(sys.Atim), unix.Timespec(sys.Mtim)}
	_ = unix.UtimesNanoAt(unix.AT_FDCWD, to, times, unix.AT_SYMLINK_NOFOLLOW)
	return nil
}

// own gives a copy to the owner of what was copied: an image whose program begins as root and
// goes on as another user has log directories of that other user. Only root may do so;
// where this is the application's own user, the copy is its own already. The group stays
// the one that the directory hands down, by which the sidecar reads, unless the image's group
// may write.
func (s *Seeder) own(from, to string, st *syscall.Stat_t) {
	if os.Geteuid() != 0 {
		return
	}
	group := -1
	if st.Mode&0o020 != 0 && st.Mode&syscall.S_IFMT != syscall.S_IFLNK {
		group = int(st.Gid)
	}
	if st.Uid == 0 && group <= 0 {
		return
	}
	if err := os.Lchown(to, int(st.Uid), group); err != nil {
		s.Say("%s belongs to user %d in the image, but its copy belongs to this user: %v", from, st.Uid, err)
		return
	}
	// chown(2) may take the setgid bit away.
	if now, err := os.Lstat(to); err == nil && now.IsDir() {
		_ = os.Chmod(to, now.Mode().Perm()|now.Mode()&fs.ModeSticky|fs.ModeSetgid)
	}
}

// file copies one file and lists it.
func (s *Seeder) file(from, to string, mode fs.FileMode) error {
	in, err := os.Open(from)
	if errors.Is(err, fs.ErrPermission) {
		s.Say("skipped %s: this user may not read it", from)
		return nil
	}
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	sum := crc32.New(castagnoli)
	n, err := io.Copy(io.MultiWriter(out, sum), io.LimitReader(in, s.Limit-s.copied+1))
	if err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	if s.copied += n; s.copied > s.Limit {
		return fmt.Errorf("%s holds more than %d bytes, the most that is copied; set %s%s to \"false\" if the application does not need these files of its image, or raise the chart value sidecar.seedLimit",
			s.from, s.Limit, contract.Prefix, contract.KeySeed)
	}
	if err := out.Chmod(mode); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(out.Fd()), &st); err != nil {
		return err
	}
	if s.list != nil {
		if _, err := fmt.Fprintf(s.list, "%d %d %08x\n", st.Ino, n, sum.Sum32()); err != nil {
			return fmt.Errorf("list the seeded files: %w", err)
		}
	}
	return out.Close()
}

// Seeded is what a file held when it was seeded.
type Seeded struct {
	Size int64
	Sum  uint32 // CRC-32C
}

// SeedLists reads the lists of seeded files, each again only when it has changed. The
// zero value is ready; use it from one goroutine.
type SeedLists struct {
	lists map[string]seedList
}

type seedList struct {
	size   int64
	seeded map[uint64]Seeded
}

// Of says what was seeded into a file of a container, by its inode number. What is not a
// line of the list is passed over: the application's user wrote it.
func (l *SeedLists) Of(root, container string, ino uint64) (Seeded, bool) {
	name := filepath.Join(root, container, contract.SeedDir, SeedList)
	st, err := os.Lstat(name)
	if err != nil || !st.Mode().IsRegular() {
		return Seeded{}, false
	}
	// A list only grows.
	if l.lists[name].seeded == nil || l.lists[name].size != st.Size() {
		if l.lists == nil {
			l.lists = map[string]seedList{}
		}
		l.lists[name] = seedList{size: st.Size(), seeded: readSeeded(name)}
	}
	s, ok := l.lists[name].seeded[ino]
	return s, ok
}

func readSeeded(name string) map[uint64]Seeded {
	seeded := map[uint64]Seeded{}
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return seeded
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if len(words) != 3 {
			continue
		}
		ino, e1 := strconv.ParseUint(words[0], 10, 64)
		size, e2 := strconv.ParseInt(words[1], 10, 64)
		sum, e3 := strconv.ParseUint(words[2], 16, 32)
		if e1 == nil && e2 == nil && e3 == nil && size >= 0 {
			seeded[ino] = Seeded{Size: size, Sum: uint32(sum)}
		}
	}
	return seeded
}

// Is says whether a file still begins with what was seeded.
func (s Seeded) Is(r io.ReaderAt) bool {
	sum := crc32.New(castagnoli)
	n, err := io.Copy(sum, io.NewSectionReader(r, 0, s.Size))
	return err == nil && n == s.Size && sum.Sum32() == s.Sum
}
