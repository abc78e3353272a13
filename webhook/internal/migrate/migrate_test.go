package migrate_test

import (
	"strings"
	"testing"

	"github.com/log-bridge/log-bridge/webhook/internal/migrate"
)

// The commands that follow files and do nothing else, by what becomes of them. The scripts of the plugin show whole results.
func TestTailCommands(t *testing.T) {
	for command, want := range map[string]string{
		`[tail, -F, /log/x.log]`:                           "/srv/x.log",
		`[tail, -f, /log/x.log, /log/y.log]`:               "/srv/x.log,/srv/y.log",
		`[/usr/bin/tail, -n, "+1", --follow=name, /log/x]`: "/srv/x",
		`[busybox, tail, -n+1, -F, /log/x]`:                "/srv/x",
		`[sh, -c, tail -n 5 -s 1 -F /log/x]`:               "/srv/x",
		`[bash, -ec, exec tail -qF /log/../log/x]`:         "/srv/x",
		`[tail, /log/x]`:                                   "", // it does not follow
		`[tail, -F, x]`:                                    "",
		`[tail, -f, /dev/null]`:                            "",
		`[sh, -c, "tail -F /log/x | grep y"]`:              "",
		`[sh, -c, "touch /log/x; tail -F /log/x"]`:         "",
		`[sh, -c]`:      "",
		`[cat, /log/x]`: "",
	} {
		r, err := migrate.Convert(t.Context(), []byte(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  volumes: [{name: v, emptyDir: {}}]
  containers:
  - {name: app, image: i, volumeMounts: [{name: v, mountPath: /srv}]}
  - {name: follower, image: i, command: `+command+`, volumeMounts: [{name: v, mountPath: /log}]}
`))
		have := ""
		for _, c := range r.Changes {
			have += c.Annotations["log-bridge.dev/files"]
		}
		if err != nil || have != want {
			t.Errorf("%s: %q, %v; want %q", command, have, err, want)
		}
	}
}

// Several workloads of one name in different namespaces are told apart.
func TestNamespaces(t *testing.T) {
	const pod = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","namespace":"NS","annotations":{"sidecar.logging-extensions.banzaicloud.io/tail":"/x.log"}},"spec":{"containers":[{"name":"a","image":"i"}]}}`
	text := `{"apiVersion":"v1","kind":"List","items":[` + strings.ReplaceAll(pod, "NS", "one") + `,` + strings.ReplaceAll(pod, "NS", "two") + `]}`
	r, err := migrate.Convert(t.Context(), []byte(text))
	if err != nil || len(r.Changes) != 2 || r.Changes[0].Namespace != "one" || r.Changes[1].Namespace != "two" {
		t.Errorf("%+v, %v", r.Changes, err)
	}
}

func FuzzConvert(f *testing.F) {
	f.Add("apiVersion: v1\nkind: Pod\nmetadata: {name: p, annotations: {tailing-sidecar: 'a:b:c;d:/e;f'}}\nspec: {containers: [{name: a, args: [sh, -c, tail -F /x]}]}")
	f.Add("apiVersion: tailing-sidecar.sumologic.com/v1\nkind: TailingSidecarConfig\nspec: {podSelector: {}, configs: {a: {path: 1}}}")
	f.Add(`{"apiVersion":"v1","kind":"List","items":[null,1,{"kind":"Pod"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		r, err := migrate.Convert(t.Context(), []byte(text))
		if err != nil {
			return
		}
		for _, c := range r.Changes {
			_ = c.Patch()
		}
	})
}
