package discovery_test

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/discovery"
)

func pod(annotations map[string]string) *corev1.Pod {
	p := &corev1.Pod{Spec: corev1.PodSpec{
		Containers: []corev1.Container{
			{Name: "app", Image: "i", VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}},
			{Name: "worker", Image: "i"},
		},
		Volumes: []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
	}}
	p.Annotations = annotations
	return p
}

// file is a file that anybody may read, and that a program appends to.
func file(path string) contract.Seen {
	return contract.Seen{Path: path, Program: "java", Append: true, Size: 100, Mode: 0o644, Content: contract.Text}
}

func closed(path string) contract.Seen {
	f := file(path)
	f.Program, f.Append = "", false
	return f
}

// What is a log, and by which entry, is said by the file and by those beside it.
func TestEntries(t *testing.T) {
	for what, c := range map[string]struct {
		files []contract.Seen
		want  string // the entries, and how they rotate
	}{
		"a file that is open to append":               {[]contract.Seen{file("/srv/output")}, "/srv/output"},
		"rotation numbers what it leaves":             {[]contract.Seen{file("/a/app.log"), closed("/a/app.log.1"), closed("/a/app.log.2.gz")}, "/a/app.log rename"},
		"rotation dates what it leaves":               {[]contract.Seen{file("/a/app.log"), closed("/a/app.log-20261127")}, "/a/app.log rename"},
		"a name with the date of today":               {[]contract.Seen{closed("/t/catalina.2026-11-26.log"), file("/t/catalina.2026-11-27.log")}, "/t/catalina.*.log dates"},
		"a date at the end of a name that is no file": {[]contract.Seen{file("/t/access_log.2026-11-27")}, "/t/access_log.* dates"},
		"a name with the hour":                        {[]contract.Seen{file("/t/app-2026112713.log")}, "/t/app-*.log dates"},
		"two logs":                                    {[]contract.Seen{file("/a/b.log"), file("/a/a.log")}, "/a/a.log, /a/b.log"},
		"a closed file that is named as a log":        {[]contract.Seen{closed("/a/app.log")}, "/a/app.log"},
		"a closed file below a directory log":         {[]contract.Seen{closed("/var/log/x/y")}, "/var/log/x/y"},
		"a name with special characters":              {[]contract.Seen{file("/a/x[1]*.log"), file(`/a/y\z.log`)}, `/a/x[[]1][*].log, /a/y?z.log`},
		"nothing":                                     {nil, ""},
	} {
		var have []string
		for _, l := range discovery.Judge(pod(nil), "app", c.files).Logs {
			have = append(have, strings.TrimSpace(l.Path+" "+l.Rotates))
		}
		if strings.Join(have, ", ") != c.want {
			t.Errorf("%s: have %q, want %q", what, strings.Join(have, ", "), c.want)
		}
		for _, l := range have {
			path, _, _ := strings.Cut(l, " ")
			if _, err := contract.ParseEntry(path); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
}

// What is no log is left out, with the reason.
func TestLeftOut(t *testing.T) {
	binary := file("/a/b.log")
	binary.Content = contract.Binary
	database := file("/a/store")
	database.ReadWrite, database.Append = true, false
	still := file("/a/store")
	still.Append = false
	for what, c := range map[string]struct {
		file contract.Seen
		want string
	}{
		"compressed":                    {closed("/a/app.log.1.gz"), "compressed"},
		"a pid file":                    {file("/run/app.pid"), "its name ends in .pid"},
		"a journal of SQLite":           {file("/a/x.db-wal"), "its name ends in .db-wal"},
		"binary":                        {binary, "binary"},
		"a cache":                       {file("/a/cache/x.log"), "in a directory named cache"},
		"open for reading and writing":  {database, "as a database does"},
		"open for writing, and no more": {still, "did not grow"},
		"closed":                        {closed("/a/notes"), "nothing has it open"},
	} {
		found := discovery.Judge(pod(nil), "app", []contract.Seen{c.file})
		if len(found.Logs) != 0 || len(found.Left) != 1 || !strings.Contains(found.Left[0].Why, c.want) {
			t.Errorf("%s: %+v, want %q", what, found, c.want)
		}
	}
}

// The annotations fit: the container is named where it is not the default one, the user where nobody else may read, the directory
// where a file alone could not be renamed; what is bridged is not named again.
func TestAnnotations(t *testing.T) {
	private := file("/srv/app.log")
	private.Mode, private.Uid = 0o600, 999
	renamed := file("/srv/app.log")
	renamed.Rotated = contract.Renamed
	inVolume := renamed
	inVolume.Path = "/data/app.log"
	for what, c := range map[string]struct {
		pod       *corev1.Pod
		container string
		file      contract.Seen
		want      map[string]string
	}{
		"the default container":  {pod(nil), "app", file("/srv/app.log"), map[string]string{"files": "/srv/app.log"}},
		"another container":      {pod(nil), "worker", file("/srv/app.log"), map[string]string{"files": "worker:/srv/app.log"}},
		"a private file":         {pod(nil), "app", private, map[string]string{"files": "/srv/app.log", "run-as-user": "999"}},
		"rotated by renaming":    {pod(nil), "app", renamed, map[string]string{"files": "/srv/app.log", "mount": "directory"}},
		"the same in a volume":   {pod(nil), "app", inVolume, map[string]string{"files": "/data/app.log"}},
		"bridged already":        {pod(map[string]string{"log-bridge.dev/files": "/srv/*.log"}), "app", file("/srv/app.log"), nil},
		"another one is bridged": {pod(map[string]string{"log-bridge.dev/files": "/srv/x.log"}), "app", file("/srv/app.log"), map[string]string{"files": "/srv/x.log,/srv/app.log"}},
	} {
		found := discovery.Judge(c.pod, c.container, []contract.Seen{c.file})
		if fmt.Sprint(found.Annotations) != fmt.Sprint(c.want) {
			t.Errorf("%s: %v, want %v", what, found.Annotations, c.want)
		}
		if len(found.Annotations) > 1 && len(found.Why) == 0 {
			t.Errorf("%s: no reason for %v", what, found.Annotations)
		}
	}
}

// What log-bridge would refuse is said with its number.
func TestRefused(t *testing.T) {
	p := pod(nil)
	p.Spec.Containers[0].VolumeMounts[0].ReadOnly = true
	found := discovery.Judge(p, "app", []contract.Seen{file("/data/app.log")})
	if !slices.ContainsFunc(found.Why, func(s string) bool { return strings.Contains(s, "mistake LB") }) {
		t.Errorf("%q", found.Why)
	}
}

// FuzzJudge: whatever the application calls its files, an entry that is suggested is one that log-bridge accepts and that
// matches the file.
func FuzzJudge(f *testing.F) {
	for _, s := range []string{"/a/app.log", "/a/x[1]*.log.2026-11-27", "/a,b.log", "/a/{b}.log", "/a\nb.log", "/\xff.log", "/a/\u202eb.log"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if name != path.Clean(name) || !path.IsAbs(name) || name == "/" || strings.Contains(name, "\x00") {
			return // no path of a file
		}
		for _, l := range discovery.Judge(pod(nil), "app", []contract.Seen{file(name)}).Logs {
			if entries, err := contract.ParseEntries(l.Path); err != nil || len(entries) != 1 {
				t.Errorf("%q: %q: %v, %v", name, l.Path, entries, err)
			}
		}
	})
}
