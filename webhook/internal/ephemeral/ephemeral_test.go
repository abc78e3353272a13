package ephemeral

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func to[T any](v T) *T { return &v }

func target(pod *corev1.PodSecurityContext, container *corev1.SecurityContext) Target {
	return Target{Container: "app", Pod: &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p"},
		Spec:       corev1.PodSpec{SecurityContext: pod, Containers: []corev1.Container{{Name: "app", SecurityContext: container}}},
		Status:     corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: "app", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}},
	}}
}

// The ephemeral container has the user of the container that it looks into, and no capability that that has not.
func TestSecurityContext(t *testing.T) {
	const before, none = `"allowPrivilegeEscalation":false,"capabilities":{"drop":["ALL"]},"readOnlyRootFilesystem":true,`, `"runAsNonRoot":true`
	as := func(uid, gid int) string {
		return fmt.Sprintf(`%s"runAsGroup":%d,%s,"runAsUser":%d`, before, gid, none, uid)
	}
	reported := target(nil, nil)
	reported.Pod.Status.ContainerStatuses[0].User = &corev1.ContainerUser{Linux: &corev1.LinuxContainerUser{UID: 101, GID: 102}}
	found := target(nil, nil)
	found.User = &User{UID: 7, GID: 8}
	for what, c := range map[string]struct {
		target Target
		want   string
	}{
		"nothing tells the user":   {target(nil, nil), before + none},
		"the pod's user":           {target(&corev1.PodSecurityContext{RunAsUser: to(int64(5)), RunAsGroup: to(int64(6))}, nil), as(5, 6)},
		"the container's user":     {target(&corev1.PodSecurityContext{RunAsUser: to(int64(5))}, &corev1.SecurityContext{RunAsUser: to(int64(9))}), as(9, 0)},
		"what the kubelet reports": {reported, as(101, 102)},
		"what a look found":        {found, as(7, 8)},
		"root with the default capabilities": {target(nil, &corev1.SecurityContext{RunAsUser: to(int64(0))}),
			`"allowPrivilegeEscalation":false,"readOnlyRootFilesystem":true,"runAsGroup":0,"runAsUser":0`},
		"root with fewer": {target(nil, &corev1.SecurityContext{RunAsUser: to(int64(0)), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"NET_RAW"}}}),
			`"allowPrivilegeEscalation":false,"capabilities":{"drop":["NET_RAW"]},"readOnlyRootFilesystem":true,"runAsGroup":0,"runAsUser":0`},
		"privileged": {target(nil, &corev1.SecurityContext{RunAsUser: to(int64(0)), Privileged: to(true)}),
			`"privileged":true,"readOnlyRootFilesystem":true,"runAsGroup":0,"runAsUser":0`},
		"privileged, but not root": {target(nil, &corev1.SecurityContext{RunAsUser: to(int64(3)), Privileged: to(true)}), as(3, 0)},
	} {
		have, err := json.Marshal(c.target.context())
		// Fields come in the order of their declaration; the test compares them sorted.
		var fields map[string]any
		if err != nil || json.Unmarshal(have, &fields) != nil {
			t.Fatal(err)
		}
		sorted, _ := json.Marshal(fields)
		if string(sorted) != "{"+c.want+"}" {
			t.Errorf("%s:\nhave %s\nwant {%s}", what, sorted, c.want)
		}
	}
}

// Why nothing can look into a container.
func TestRuns(t *testing.T) {
	waits := target(nil, nil)
	waits.Pod.Status.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}
	ended := target(nil, nil)
	ended.Pod.Status.ContainerStatuses[0].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Error", ExitCode: 3}}
	unknown := target(nil, nil)
	unknown.Container = "other"
	deleted := target(nil, nil)
	deleted.Pod.DeletionTimestamp = &metav1.Time{}
	for want, c := range map[string]Target{
		"":                               target(nil, nil),
		"CrashLoopBackOff":               waits,
		"Error, exit code 3":             ended,
		`pod p has no container "other"`: unknown,
		"pod p is being deleted":         deleted,
	} {
		err := c.Runs()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// Why a container may not be added is said with the permission that is missing.
func TestRefused(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "shop"}}
	pods := schema.GroupResource{Resource: "pods"}
	for want, err := range map[string]error{
		"pod p is gone": apierrors.NewNotFound(pods, "p"),
		"ask for the verb patch on pods/ephemeralcontainers in namespace shop": apierrors.NewForbidden(pods, "p", errors.New("no")),
		"the Pod Security level of namespace shop":                             apierrors.NewForbidden(pods, "p", errors.New(`violates PodSecurity "restricted:latest"`)),
		"add an ephemeral container to pod p: other":                           errors.New("other"),
	} {
		if have := refused(err, pod); !strings.Contains(have.Error(), want) {
			t.Errorf("%v, want %q", have, want)
		}
	}
}

// The answers at the beginning of the output are not passed on, however they come; everything after them is.
func TestGreeter(t *testing.T) {
	for _, pieces := range [][]string{{"\x00one\n\x00two"}, {"\x00", "\x00\x00", "one\n", "\x00two"}, {"\x00o", "ne\n\x00two"}} {
		var out bytes.Buffer
		g := &greeter{to: &out, first: make(chan struct{})}
		for _, p := range pieces {
			if n, err := g.Write([]byte(p)); n != len(p) || err != nil {
				t.Fatal(n, err)
			}
		}
		select {
		case <-g.first:
		default:
			t.Errorf("%q: no answer was heard", pieces)
		}
		if out.String() != "one\n\x00two" {
			t.Errorf("%q: %q", pieces, out.String())
		}
	}
}

// It asks until there is an answer, since a question may come before the other end is there, and then says once to go.
func TestGreet(t *testing.T) {
	in, end := io.Pipe()
	answered := make(chan struct{})
	go greet(t.Context(), end, answered)
	said := make([]byte, 3)
	if _, err := io.ReadFull(in, said[:2]); err != nil || string(said[:2]) != "\n\n" {
		t.Fatalf("%q, %v", said, err)
	}
	close(answered)
	late := time.AfterFunc(time.Minute, func() { in.Close() })
	defer late.Stop()
	for said[2] != 'g' {
		if _, err := in.Read(said[2:]); err != nil {
			t.Fatal(err)
		}
	}
}
