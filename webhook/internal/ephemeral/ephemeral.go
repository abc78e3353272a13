// Package ephemeral runs the sidecar's image in an ephemeral container beside a container of a running pod.
//
// An ephemeral container cannot be removed from its pod again, only its process ends. It asks for nothing that the container
// beside it does not have: the same user, the same or no capabilities, no volumes.
package ephemeral

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/log-bridge/log-bridge/sidecar/contract"
)

// Prefix begins the names of our ephemeral containers.
const Prefix = contract.Container + "-"

// Runner starts ephemeral containers.
type Runner struct {
	Rest  *rest.Config
	API   kubernetes.Interface
	Image string
	// Patience is how long to wait until a container runs. Pulling the image is part of that.
	Patience time.Duration
}

// Container is an ephemeral container that was started.
type Container struct {
	Namespace, Pod, Name string
	target               string // the container that it looks into
	runner               *Runner
}

// Target is a container of a running pod.
type Target struct {
	Pod       *corev1.Pod
	Container string
	// User is the user and group that its first process runs as, where that was found out; nil if it was not.
	User *User
}

// User is a user and a group.
type User struct{ UID, GID int64 }

// Status is the target's status; nil if the kubelet has none yet.
func (t Target) Status() *corev1.ContainerStatus {
	for _, all := range [][]corev1.ContainerStatus{t.Pod.Status.ContainerStatuses, t.Pod.Status.InitContainerStatuses} {
		for i := range all {
			if all[i].Name == t.Container {
				return &all[i]
			}
		}
	}
	return nil
}

func (t Target) spec() *corev1.Container {
	for _, all := range [][]corev1.Container{t.Pod.Spec.Containers, t.Pod.Spec.InitContainers} {
		for i := range all {
			if all[i].Name == t.Container {
				return &all[i]
			}
		}
	}
	return nil
}

// Runs is an error that says why nothing can look into the target; nil if it runs.
func (t Target) Runs() error {
	status := t.Status()
	switch {
	case t.spec() == nil:
		return fmt.Errorf("pod %s has no container %q", t.Pod.Name, t.Container)
	case t.Pod.DeletionTimestamp != nil:
		return fmt.Errorf("pod %s is being deleted", t.Pod.Name)
	case status == nil || status.State.Running == nil:
		why := "it has not started yet"
		if status != nil && status.State.Waiting != nil {
			why = status.State.Waiting.Reason
		}
		if status != nil && status.State.Terminated != nil {
			why = fmt.Sprintf("%s, exit code %d", status.State.Terminated.Reason, status.State.Terminated.ExitCode)
		}
		return fmt.Errorf("container %s of pod %s does not run (%s), so its files cannot be seen; try again while it runs", t.Container, t.Pod.Name, why)
	}
	return nil
}

// SharesProcesses says whether process 1 that an ephemeral container sees is another one than the target's.
func (t Target) SharesProcesses() bool {
	return t.Pod.Spec.HostPID || t.Pod.Spec.ShareProcessNamespace != nil && *t.Pod.Spec.ShareProcessNamespace
}

// ID is the runtime's ID of the target, without the name of the runtime.
func (t Target) ID() string {
	if status := t.Status(); status != nil {
		_, id, _ := strings.Cut(status.ContainerID, "://")
		return id
	}
	return ""
}

// Known is the user that the target's process runs as, as far as the pod tells; nil if it does not. sure says that the group is known,
// too: the image decides about it if nobody else does.
func (t Target) Known() (user *User, sure bool) {
	if t.User != nil {
		return t.User, true
	}
	if status := t.Status(); status != nil && status.User != nil && status.User.Linux != nil {
		return &User{UID: status.User.Linux.UID, GID: status.User.Linux.GID}, true
	}
	var uid, gid *int64
	if p := t.Pod.Spec.SecurityContext; p != nil {
		uid, gid = p.RunAsUser, p.RunAsGroup
	}
	if c := t.spec().SecurityContext; c != nil {
		uid, gid = cmp.Or(c.RunAsUser, uid), cmp.Or(c.RunAsGroup, gid)
	}
	switch {
	case uid == nil:
		return nil, false
	case gid == nil:
		return &User{UID: *uid}, false
	}
	return &User{UID: *uid, GID: *gid}, true
}

// context is the security context that lets a process look into the target. The kernel asks for the same user, and for
// the target's capabilities at least (ptrace(2), PTRACE_MODE_READ_FSCREDS).
func (t Target) context() *corev1.SecurityContext {
	no, yes := false, true
	c := &corev1.SecurityContext{
		AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes, RunAsNonRoot: &yes,
		Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
	of := t.spec().SecurityContext
	if of != nil {
		c.SeccompProfile, c.SELinuxOptions, c.AppArmorProfile = of.SeccompProfile, of.SELinuxOptions, of.AppArmorProfile
	}
	user, _ := t.Known()
	if user == nil {
		return c // our image's own user, which may at least read which one the target has
	}
	c.RunAsUser, c.RunAsGroup = &user.UID, &user.GID
	if user.UID != 0 {
		return c
	}
	// Only root's process has the capabilities of its container.
	c.RunAsNonRoot = nil
	c.Capabilities = nil
	if of != nil {
		c.Capabilities = of.Capabilities
		if of.Privileged != nil && *of.Privileged {
			c.Privileged, c.AllowPrivilegeEscalation = of.Privileged, nil
		}
	}
	return c
}

// Start adds an ephemeral container that runs our program with these arguments, and waits until it runs or has ended.
// With stdin, it ends when the connection of Attach does.
func (r *Runner) Start(ctx context.Context, t Target, purpose string, stdin bool, args ...string) (*Container, error) {
	if err := t.Runs(); err != nil {
		return nil, err
	}
	c := &Container{Namespace: t.Pod.Namespace, Pod: t.Pod.Name, Name: Prefix + purpose + "-" + rand.String(5), target: t.Container, runner: r}
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"ephemeralContainers": []corev1.EphemeralContainer{{
		EphemeralContainerCommon: corev1.EphemeralContainerCommon{
			Name: c.Name, Image: r.Image, Args: args, Stdin: stdin, StdinOnce: stdin, SecurityContext: t.context(),
			TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		},
		TargetContainerName: t.Container,
	}}}})
	if err != nil {
		return nil, err
	}
	_, err = r.API.CoreV1().Pods(c.Namespace).Patch(ctx, c.Pod, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "ephemeralcontainers")
	if err != nil {
		return nil, refused(err, t.Pod)
	}
	return c, c.wait(ctx)
}

// refused says why no ephemeral container may be added, and what to do instead.
func refused(err error, pod *corev1.Pod) error {
	const instead = "or name the files yourself in the annotation " + contract.Prefix + contract.KeyFiles
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Errorf("pod %s is gone", pod.Name)
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "PodSecurity"):
		return fmt.Errorf("the Pod Security level of namespace %s refuses an ephemeral container, although it asks for no more than the container that it looks into: %w; ask the administrator of the namespace, %s", pod.Namespace, err, instead)
	case apierrors.IsForbidden(err):
		return fmt.Errorf("an ephemeral container is needed to see the files, and you may not add one: ask for the verb patch on pods/ephemeralcontainers in namespace %s, %s (%w)", pod.Namespace, instead, err)
	}
	return fmt.Errorf("add an ephemeral container to pod %s: %w", pod.Name, err)
}

// wait waits until the container runs or has ended.
func (c *Container) wait(ctx context.Context) error {
	pause := 200 * time.Millisecond
	last := "the kubelet has not reported it yet"
	for end := time.Now().Add(c.runner.Patience); ; pause = min(2*pause, 2*time.Second) {
		status, pod, err := c.status(ctx)
		if err != nil {
			return err
		}
		if status != nil {
			switch w := status.State.Waiting; {
			case w == nil:
				return nil
			case slices.Contains([]string{"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}, w.Reason):
				return fmt.Errorf("the image %s cannot be pulled on node %s (%s); name another one with --image", c.runner.Image, pod.Spec.NodeName, w.Message)
			case slices.Contains([]string{"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}, w.Reason):
				if err := (Target{Pod: pod, Container: c.target}).Runs(); err != nil || strings.Contains(w.Message, "is not running") {
					return fmt.Errorf("container %s of pod %s ended meanwhile; try again while it runs", c.target, c.Pod)
				}
				return fmt.Errorf("ephemeral container %s cannot start: %s", c.Name, w.Message)
			default:
				last = strings.TrimSpace(w.Reason + " " + w.Message)
			}
		}
		if time.Now().After(end) {
			return fmt.Errorf("ephemeral container %s does not run after %v (%s); its node may be busy, so try again with a longer --timeout", c.Name, c.runner.Patience, last)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

func (c *Container) status(ctx context.Context) (*corev1.ContainerStatus, *corev1.Pod, error) {
	pod, err := c.runner.API.CoreV1().Pods(c.Namespace).Get(ctx, c.Pod, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil, fmt.Errorf("pod %s ended meanwhile", c.Pod)
	case err != nil:
		return nil, nil, fmt.Errorf("get pod %s: %w", c.Pod, err)
	}
	for i := range pod.Status.EphemeralContainerStatuses {
		if s := &pod.Status.EphemeralContainerStatuses[i]; s.Name == c.Name {
			return s, pod, nil
		}
	}
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed || pod.DeletionTimestamp != nil {
		return nil, nil, fmt.Errorf("pod %s ended meanwhile", c.Pod)
	}
	return nil, pod, nil
}

// maxOutput bounds what Output keeps. The container beside ours is not ours.
const maxOutput = 16 << 20

// Output is what the container writes until it ends.
func (c *Container) Output(ctx context.Context) ([]byte, error) {
	stream, err := c.runner.API.CoreV1().Pods(c.Namespace).GetLogs(c.Pod, &corev1.PodLogOptions{Container: c.Name, Follow: true}).Stream(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the output of ephemeral container %s: %w", c.Name, err)
	}
	defer stream.Close()
	var out bytes.Buffer
	if _, err := io.Copy(&out, io.LimitReader(stream, maxOutput)); err != nil {
		return nil, fmt.Errorf("read the output of ephemeral container %s: %w", c.Name, err)
	}
	status, _, err := c.status(ctx)
	if err != nil {
		return nil, err
	}
	if status != nil && status.State.Terminated != nil && status.State.Terminated.ExitCode != 0 {
		return nil, fmt.Errorf("ephemeral container %s failed: %s", c.Name, strings.TrimSpace(status.State.Terminated.Message))
	}
	return out.Bytes(), nil
}

// Attach connects to the container's output until it ends or the context does, which closes its standard input.
func (c *Container) Attach(ctx context.Context, stdout, stderr io.Writer) error {
	request := c.runner.API.CoreV1().RESTClient().Post().Resource("pods").Namespace(c.Namespace).Name(c.Pod).SubResource("attach").
		VersionedParams(&corev1.PodAttachOptions{Container: c.Name, Stdin: true, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	exec, err := executor(c.runner.Rest, request.URL())
	if err != nil {
		return err
	}
	in, end := io.Pipe()
	defer end.Close()
	stop := context.AfterFunc(ctx, func() { end.Close() })
	defer stop()
	// The stream outlives the context by what its end brings: the lines that were written before standard input closed.
	lasting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lingers, cancel) })()
	answers := &greeter{to: stdout, first: make(chan struct{})}
	go greet(ctx, end, answers.first)
	err = exec.StreamWithContext(lasting, remotecommand.StreamOptions{Stdin: in, Stdout: answers, Stderr: stderr})
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return nil
	}
	if apierrors.IsForbidden(err) {
		return fmt.Errorf("you may not attach to containers: ask for the verb create on pods/attach in namespace %s (%w)", c.Namespace, err)
	}
	return err
}

// greet asks the program until it answers, and then lets it begin: what it wrote before the connection was complete would
// be lost.
func greet(ctx context.Context, to io.Writer, answered <-chan struct{}) {
	for {
		if _, err := to.Write([]byte{contract.AttachedQuestion}); err != nil {
			return
		}
		select {
		case <-answered:
			_, _ = to.Write([]byte{contract.AttachedGo}) // the stream reports a broken connection
			return
		case <-ctx.Done():
			return
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// greeter takes the answers from the beginning of the output.
type greeter struct {
	to    io.Writer
	first chan struct{}
	heard bool // one answer
	begun bool // all answers
}

// Write passes on what is no answer.
func (g *greeter) Write(p []byte) (int, error) {
	rest := p
	for !g.begun && len(rest) > 0 {
		if rest[0] != contract.AttachedAnswer {
			g.begun = true
			break
		}
		if rest = rest[1:]; !g.heard {
			g.heard = true
			close(g.first)
		}
	}
	if len(rest) > 0 {
		if _, err := g.to.Write(rest); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// executor speaks WebSocket, and SPDY where the API server or a proxy before it does not, as kubectl does.
func executor(config *rest.Config, url *url.URL) (remotecommand.Executor, error) {
	spdy, err := remotecommand.NewSPDYExecutor(config, "POST", url)
	if err != nil {
		return nil, err
	}
	socket, err := remotecommand.NewWebSocketExecutor(config, "GET", url.String())
	if err != nil {
		return nil, err
	}
	return remotecommand.NewFallbackExecutor(socket, spdy, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
}

// lingers is how long to wait for the end of a container whose standard input was closed.
const lingers = 2 * time.Second
