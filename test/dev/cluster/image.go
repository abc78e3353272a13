package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// An image is a container image of one layer that is made of files of this machine. The same files always
// make the same image, to the byte.
type image struct {
	name    string // repository and tag
	arch    string // processor; that of this machine if empty
	config  imageConfig
	entries []entry
}

type imageConfig struct {
	Env        []string
	Entrypoint []string
	Cmd        []string
	WorkingDir string
	User       string `json:",omitempty"`
}

// An entry is a directory, a link or a copy of a file.
type entry struct {
	path string // in the image
	mode int64  // permission bits: of a directory; of a file, 0 for those it has on this machine
	link string // where a link points to
	file string // the file of this machine that is copied
	text string // or else the content
}

// write writes the image in the form that docker save has and that all others read.
func (i image) write(path string) error {
	layer, err := os.CreateTemp(filepath.Dir(path), "layer")
	if err != nil {
		return err
	}
	defer os.Remove(layer.Name())
	defer layer.Close()
	hash := sha256.New()
	if err := writeLayer(io.MultiWriter(layer, hash), i.entries); err != nil {
		return fmt.Errorf("write the layer of %s: %w", i.name, err)
	}
	size, err := layer.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if _, err := layer.Seek(0, io.SeekStart); err != nil {
		return err
	}
	diffID := fmt.Sprintf("%x", hash.Sum(nil))
	config, err := json.Marshal(map[string]any{
		"architecture": cmp.Or(i.arch, runtime.GOARCH),
		"os":           "linux",
		"config":       i.config,
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + diffID}},
		"history":      []any{map[string]any{"created_by": "log-bridge test/dev/cluster"}}, // buildah wants one for each layer
	})
	if err != nil {
		return err
	}
	configName := fmt.Sprintf("%x.json", sha256.Sum256(config))
	manifest, err := json.Marshal([]any{map[string]any{
		"Config": configName, "RepoTags": []string{i.name}, "Layers": []string{diffID + ".tar"},
	}})
	if err != nil {
		return err
	}
	file, err := os.Create(path + ".new")
	if err != nil {
		return err
	}
	defer file.Close()
	archive := tar.NewWriter(file)
	for _, part := range []struct {
		name    string
		size    int64
		content io.Reader
	}{
		{diffID + ".tar", size, layer},
		{configName, int64(len(config)), bytes.NewReader(config)},
		{"manifest.json", int64(len(manifest)), bytes.NewReader(manifest)},
	} {
		if err := archive.WriteHeader(&tar.Header{Name: part.name, Mode: 0o644, Size: part.size}); err != nil {
			return err
		}
		if _, err := io.Copy(archive, part.content); err != nil {
			return err
		}
	}
	if err := errors.Join(archive.Close(), file.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func writeLayer(w io.Writer, entries []entry) error {
	layer := tar.NewWriter(w)
	made := map[string]bool{".": true}
	var add func(entry) error
	add = func(e entry) error {
		e.path = strings.TrimPrefix(e.path, "/")
		if made[e.path] {
			return nil
		}
		if parent := filepath.Dir(e.path); !made[parent] {
			if err := add(entry{path: parent, mode: 0o755}); err != nil {
				return err
			}
		}
		made[e.path] = true
		header := &tar.Header{Name: e.path, ModTime: time.Unix(0, 0)}
		switch {
		case e.link != "":
			header.Typeflag, header.Linkname, header.Mode = tar.TypeSymlink, e.link, 0o777
		case e.mode != 0 && e.file == "":
			header.Typeflag, header.Name, header.Mode = tar.TypeDir, e.path+"/", e.mode
		case e.file != "":
			file, err := os.Open(e.file)
			if err != nil {
				return err
			}
			defer file.Close()
			info, err := file.Stat()
			if err != nil {
				return err
			}
			// The time too: Python compares it with the one in its compiled files.
			header.Mode, header.Size, header.ModTime = cmp.Or(e.mode, int64(info.Mode().Perm())), info.Size(), info.ModTime()
			if err := layer.WriteHeader(header); err != nil {
				return err
			}
			_, err = io.Copy(layer, file)
			return err
		default:
			header.Mode, header.Size = 0o644, int64(len(e.text))
			if err := layer.WriteHeader(header); err != nil {
				return err
			}
			_, err := io.WriteString(layer, e.text)
			return err
		}
		return layer.WriteHeader(header)
	}
	for _, e := range entries {
		if err := add(e); err != nil {
			return err
		}
	}
	return layer.Close()
}

const searchPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// busyboxEntries are a small system: a shell and its usual commands, users and a directory for temporary files.
func busyboxEntries() ([]entry, error) {
	busybox, err := busyboxPath()
	if err != nil {
		return nil, err
	}
	commands, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("ask busybox for its commands: %w", err)
	}
	entries := []entry{
		{path: "/bin/busybox", file: busybox},
		{path: "/etc/passwd", text: "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"},
		{path: "/etc/group", text: "root:x:0:\nnogroup:x:65534:\n"},
		{path: "/root", mode: 0o700},
		{path: "/tmp", mode: 0o1777},
	}
	for _, command := range strings.Fields(string(commands)) {
		entries = append(entries, entry{path: "/bin/" + command, link: "busybox"})
	}
	return entries, nil
}

func busyboxImage() (image, error) {
	entries, err := busyboxEntries()
	return image{config: imageConfig{Env: []string{searchPath}, Cmd: []string{"sh"}}, entries: entries}, err
}

// golangImage is an image to compile in. Go itself is not part of it: build mounts the machine's.
func golangImage() (image, error) {
	entries, err := busyboxEntries()
	if err != nil {
		return image{}, err
	}
	version, err := exec.Command("go", "env", "GOVERSION").Output()
	if err != nil {
		return image{}, fmt.Errorf("run go env: %w", err)
	}
	return image{config: imageConfig{
		Env: []string{
			// Another Go makes another image, and layers that were compiled by the former are not taken from the cache.
			"GOLANG_VERSION=" + strings.TrimPrefix(strings.TrimSpace(string(version)), "go"),
			"PATH=/go/bin:/usr/local/go/bin:" + strings.TrimPrefix(searchPath, "PATH="),
			"GOPATH=/go",
			"GOTOOLCHAIN=local",
			// The modules are in the machine's cache, checked when they came there.
			"GOPROXY=off",
			"GOSUMDB=off",
		},
		Cmd:        []string{"sh"},
		WorkingDir: "/go",
	}, entries: entries}, nil
}

// pythonImage holds Debian's Python with its standard library.
func pythonImage() (image, error) {
	if err := installPackages([]need{python}); err != nil {
		return image{}, err
	}
	entries, err := busyboxEntries()
	if err != nil {
		return image{}, err
	}
	program, err := filepath.EvalSymlinks(python.path())
	if err != nil {
		return image{}, err
	}
	objects := []string{program}
	entries = append(entries,
		entry{path: program, file: program},
		entry{path: "/usr/bin/python3", link: program},
		entry{path: "/usr/local/bin/python3", link: program},
		entry{path: "/usr/local/bin/python", link: program})
	library := filepath.Join("/usr/lib", filepath.Base(program))
	err = filepath.WalkDir(library, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			switch name := d.Name(); {
			case name == "test", name == "idlelib", name == "tkinter", name == "ensurepip", strings.HasPrefix(name, "config-"):
				return fs.SkipDir
			}
		case d.Type().IsRegular():
			entries = append(entries, entry{path: path, file: path})
			if strings.HasSuffix(path, ".so") {
				objects = append(objects, path)
			}
		}
		return nil
	})
	if err != nil {
		return image{}, fmt.Errorf("list Python's library: %w", err)
	}
	libraries, err := sharedLibraries(objects)
	if err != nil {
		return image{}, err
	}
	for _, library := range libraries {
		entries = append(entries, entry{path: library, file: library})
	}
	return image{config: imageConfig{Env: []string{searchPath}, Cmd: []string{"python3"}}, entries: entries}, nil
}

// debianImage is a small system with Debian's logrotate, which Debian's own small image would have to install.
func debianImage() (image, error) {
	if err := installPackages([]need{logrotate}); err != nil {
		return image{}, err
	}
	entries, err := busyboxEntries()
	if err != nil {
		return image{}, err
	}
	libraries, err := sharedLibraries([]string{logrotate.path()})
	if err != nil {
		return image{}, err
	}
	for _, file := range append(libraries, logrotate.path()) {
		entries = append(entries, entry{path: file, file: file})
	}
	return image{config: imageConfig{Env: []string{searchPath}, Cmd: []string{"sh"}}, entries: entries}, nil
}

// sharedLibraries returns the paths at which the dynamic linker finds what the objects need, and its own.
func sharedLibraries(objects []string) ([]string, error) {
	out, err := exec.Command("ldd", objects...).Output()
	if err != nil {
		return nil, fmt.Errorf("run ldd: %w", err)
	}
	var libraries []string
	for _, line := range strings.Split(string(out), "\n") {
		// "	libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)" or "	/lib64/ld-linux-x86-64.so.2 (0x…)"
		for _, word := range strings.Fields(line) {
			if strings.HasPrefix(line, "\t") && strings.HasPrefix(word, "/") {
				libraries = append(libraries, word)
			}
		}
	}
	return libraries, nil
}

// pauseImage is what holds a pod's namespaces open: a shell, which collects the processes that pods with a common process
// namespace leave behind.
func pauseImage() (image, error) {
	busybox, err := busyboxPath()
	return image{
		name:    pauseName,
		config:  imageConfig{Entrypoint: []string{"/busybox", "sh", "-c", "trap 'exit 0' TERM INT; while :; do sleep 86400 & wait $!; done"}},
		entries: []entry{{path: "/busybox", file: busybox}},
	}, err
}
