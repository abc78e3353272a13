package inject

import (
	"path"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/log-bridge/log-bridge/sidecar/contract"
)

// The kubelet expands $(VAR) in the arguments of a container. Programs must get paths unchanged, so
// arguments are written and read only in this file.

// arguments are the sidecar's. Only the expression of a view is left for the kubelet to expand.
func (p plan) arguments() []string {
	args := []string{"tail"}
	for _, v := range p.views.list {
		dir := escape(path.Join(contract.VolumesRoot, v.volume, v.subPath))
		if v.expr != "" {
			dir += "/" + v.expr
		}
		one := contract.View{Place: contract.Place{Container: v.Container, Path: escape(v.Path)}, Dir: dir}
		args = append(args, contract.Config{Views: []contract.View{one}}.Args()...)
	}
	for _, arg := range p.tail.Args() {
		args = append(args, escape(arg))
	}
	return args
}

// seedCommand is the command of our program that a seeding container runs.
const seedCommand = "seed"

// seedArguments are the command of the seeding container of an addition.
func (a addition) seedArguments(limit resource.Quantity) []string {
	args := []string{seedBinary, seedCommand}
	if !limit.IsZero() {
		args = append(args, "--limit="+strconv.FormatInt(limit.Value(), 10))
	}
	for _, dir := range a.seeded {
		args = append(args, escape(dir), escape(path.Join(contract.Root, a.source.Name)+dir))
	}
	return args
}

// escape writes a text such that the kubelet's expansion gives it back.
func escape(s string) string { return strings.ReplaceAll(s, "$", "$$") }

// literal are the arguments of a container from the nth on, as the program gets them if the
// kubelet has nothing to expand.
func literal(args []string, n int) []string {
	var all []string
	for _, arg := range args[min(n, len(args)):] {
		all = append(all, strings.ReplaceAll(arg, "$$", "$"))
	}
	return all
}
