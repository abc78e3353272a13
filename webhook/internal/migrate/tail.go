package migrate

import (
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/log-bridge/log-bridge/sidecar/contract"
)

// tails finds containers that do nothing but run tail(1) on files of a volume that they share with another container, as the
// documentation of Kubernetes shows ("Using a sidecar container with the logging agent").
func (m *migration) tails() {
	for _, list := range []struct {
		all  []corev1.Container
		gone *[]string
	}{{m.pod.Spec.Containers, &m.Containers}, {m.pod.Spec.InitContainers, &m.InitContainers}} {
		for _, c := range list.all {
			files, fromEnd, ok := tailOf(slices.Concat(c.Command, c.Args))
			if !ok {
				continue
			}
			*list.gone = append(*list.gone, c.Name)
			if m.tailed(c, files) {
				m.from("a container that runs tail")
				if fromEnd {
					m.without("container %s begins ten lines before the end of a file, or as its -n says; log-bridge begins at the start of files in an emptyDir, and at the end of those on a volume that outlives the pod", c.Name)
				}
				continue
			}
			*list.gone = slices.DeleteFunc(*list.gone, func(name string) bool { return name == c.Name })
		}
	}
}

// tailed follows the files of a tail container as another container sees them. It returns false, and says why, if one cannot be.
func (m *migration) tailed(c corev1.Container, files []string) bool {
	type place struct{ container, file string }
	var places []place
	for _, file := range files {
		volume, inVolume, ok := inVolume(c, file)
		if !ok {
			m.from("a container that runs tail")
			m.without("container %s follows %s, which is in no volume, so no other container writes it; the container stays", c.Name, file)
			return false
		}
		container, seen, ok := m.mounted(volume, inVolume)
		if !ok {
			m.from("a container that runs tail")
			m.without("container %s follows %s of the volume %s, which no other container mounts there; the container stays", c.Name, file, volume)
			return false
		}
		places = append(places, place{container, seen})
	}
	for _, p := range places {
		m.follow(p.container, p.file)
	}
	return true
}

// inVolume is the volume that a container mounts over a path, and the path in it.
func inVolume(c corev1.Container, file string) (volume, in string, ok bool) {
	best := ""
	for _, mount := range c.VolumeMounts {
		at := path.Clean(mount.MountPath)
		if mount.SubPathExpr == "" && contract.Covers(at, file) && len(at) >= len(best) {
			best, volume, ok = at, mount.Name, true
			in = path.Join("/", mount.SubPath, strings.TrimPrefix(file, at))
		}
	}
	return volume, in, ok
}

// tailOf are the files of a command that follows files with tail(1), and does nothing else.
func tailOf(words []string) (files []string, fromEnd, ok bool) {
	if len(words) >= 3 && isShell(words[0]) && strings.HasPrefix(words[1], "-") && strings.HasSuffix(words[1], "c") {
		script := strings.TrimSpace(words[2])
		// Anything but one simple command may do more than to follow.
		if strings.ContainsAny(script, ";&|$`<>(){}\"'\\#\n") {
			return nil, false, false
		}
		words = strings.Fields(script)
	}
	if len(words) > 0 && words[0] == "exec" {
		words = words[1:]
	}
	if len(words) > 0 && path.Base(words[0]) == "busybox" {
		words = words[1:]
	}
	if len(words) == 0 || path.Base(words[0]) != "tail" {
		return nil, false, false
	}
	follows := false
	fromEnd = true
	words = words[1:]
	for i := 0; i < len(words); i++ {
		word := words[i]
		switch {
		case word == "--follow" || strings.HasPrefix(word, "--follow="):
			follows = true
		case strings.HasPrefix(word, "--lines=") || strings.HasPrefix(word, "--bytes="):
			_, value, _ := strings.Cut(word, "=")
			fromEnd = !strings.HasPrefix(value, "+")
		case strings.HasPrefix(word, "--"):
		case len(word) > 1 && (word[0] == '-' || word[0] == '+'):
			letters := strings.TrimLeft(word, "-")
			follows = follows || strings.ContainsAny(letters, "fF")
			if at := strings.IndexAny(letters, "nc"); at >= 0 {
				value := letters[at+1:]
				if value == "" && i+1 < len(words) {
					i++
					value = words[i]
				}
				fromEnd = !strings.HasPrefix(value, "+")
			} else if strings.HasSuffix(letters, "s") && i+1 < len(words) {
				i++ // how long it sleeps
			}
		case contract.Covers("/dev", path.Clean(word)):
			return nil, false, false // tail -f /dev/null waits for nothing
		case path.IsAbs(word):
			files = append(files, path.Clean(word))
		default:
			return nil, false, false // relative to a directory that nobody knows
		}
	}
	return files, fromEnd, follows && len(files) > 0
}

func isShell(word string) bool {
	return slices.Contains([]string{"sh", "bash", "ash", "dash"}, path.Base(word))
}
