package main

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestBasesOf(t *testing.T) {
	for _, test := range []struct {
		what       string
		dockerfile string
		buildArgs  []string
		want       map[string]string
	}{
		{"a name with a tag", "ARG GOLANG=golang:1.26.8-bookworm\nFROM ${GOLANG}\n", nil, map[string]string{"GOLANG": "golang"}},
		{"a registry, a folder, quotes and a digest", "arg PY=\"registry.test:5000/library/python:3@sha256:aa\"\nFROM $PY\n", nil, map[string]string{"PY": "python"}},
		{"two, below a comment", "# bases\nARG A=busybox\nARG B=golang\nFROM $A\nFROM $B\n", nil, map[string]string{"A": "busybox", "B": "golang"}},
		{"one that is no base but has a default", "ARG VERSION=dev\nFROM scratch\n", nil, map[string]string{}},
		{"one below the first FROM is not for a FROM", "FROM scratch\nARG GOLANG=golang\n", nil, map[string]string{}},
		{"one that the caller sets", "ARG GOLANG=golang\nFROM ${GOLANG}\n", []string{"GOLANG=example.test/go"}, map[string]string{}},
	} {
		file := filepath.Join(t.TempDir(), "Dockerfile")
		write(t, file, test.dockerfile)
		have, err := basesOf(file, test.buildArgs)
		if err != nil || !maps.Equal(have, test.want) {
			t.Errorf("%s: have %v, %v; want %v", test.what, have, err, test.want)
		}
	}
}

// The same files make the same image, also at another time: layers built on it are found in the cache again.
func TestImageIsReproducible(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "file"), "text\n")
	i := image{name: "example.test/image:1", entries: []entry{
		{path: "/bin/tool", file: filepath.Join(dir, "file")},
		{path: "/bin/other", link: "tool"},
		{path: "/tmp", mode: 0o1777},
		{path: "/etc/hosts", text: "127.0.0.1 localhost\n"},
	}}
	var archives [2][]byte
	for n := range archives {
		path := filepath.Join(dir, "image.tar")
		if err := i.write(path); err != nil {
			t.Fatal(err)
		}
		var err error
		if archives[n], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("two writes of one image differ")
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 {
		t.Errorf("want the file and the archive in the folder; have %v, %v", left, err)
	}
}

func TestClusterNames(t *testing.T) {
	for name, good := range map[string]bool{
		"demo": true, "e2e": true, "a-1": true, strings.Repeat("a", 32): true,
		"": false, "Demo": false, "-a": false, "a-": false, "a/b": false, "a.b": false, strings.Repeat("a", 33): false,
	} {
		if _, err := newCluster(name, t.TempDir()); (err == nil) != good {
			t.Errorf("--name %q: have error %v, want one: %t", name, err, !good)
		}
	}
}

// An image that is packed is what the last stage of the project's own Dockerfiles says, of programs that are there.
func TestPack(t *testing.T) {
	folder := t.TempDir()
	for _, program := range []string{"log-bridge", "log-bridge-webhook"} {
		write(t, filepath.Join(folder, program), "the program\n")
	}
	for file, want := range map[string]image{
		"Dockerfile.sidecar": {
			config: imageConfig{Env: []string{searchPath, "GOMAXPROCS=1"}, Entrypoint: []string{"/bin/log-bridge"}, WorkingDir: "/", User: "41932:41932"},
			entries: []entry{
				{path: "/bin/log-bridge", mode: 0o111, file: filepath.Join(folder, "log-bridge")},
				{path: "/bin/log-bridge.readable", mode: 0o555, file: filepath.Join(folder, "log-bridge")},
			},
		},
		"Dockerfile.webhook": {
			config:  imageConfig{Env: []string{searchPath}, Entrypoint: []string{"/bin/log-bridge-webhook"}, WorkingDir: "/", User: "65532:65532"},
			entries: []entry{{path: "/bin/log-bridge-webhook", file: filepath.Join(folder, "log-bridge-webhook")}},
		},
	} {
		have, err := lastStage(filepath.Join("../../..", file), folder)
		if err != nil || !reflect.DeepEqual(have, want) {
			t.Errorf("%s: have %+v, %v; want %+v", file, have, err, want)
		}
	}
	for text, want := range map[string]string{
		"FROM scratch\nRUN true\n":                            `the last stage has "RUN true"`,
		"FROM scratch\nCOPY here /there\n":                    `the last stage has "COPY here /there"`,
		"FROM scratch\nCOPY --from=b /bin/absent /bin/x\n":    "no such file",
		"FROM scratch\nCOPY --from=b --link /x /y\n":          `COPY has "--link"`,
		"FROM scratch\nUSER 1\nFROM busybox\n":                `is from "busybox"`,
		"FROM scratch\nENTRYPOINT /bin/sh\n":                  `the last stage has "ENTRYPOINT /bin/sh"`,
		"FROM golang AS build\nRUN true\nFROM scratch AS x\n": `is from "scratch AS x"`,
	} {
		file := filepath.Join(t.TempDir(), "Dockerfile")
		write(t, file, text)
		if _, err := lastStage(file, folder); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: have %v, want %q", text, err, want)
		}
	}
}
