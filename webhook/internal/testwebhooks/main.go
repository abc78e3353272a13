// Command testwebhooks serves the admission webhooks that the tests on a real cluster need beside
// the installed one: ours with faults, and those of other people.
//
// It is run inside the node, where the API server reaches it by 127.0.0.1. It prints one
// line with its port and one with its certificate (PEM in base64), then the path of each
// request as it comes in. It ends with its standard input.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/big"
	"net"
	"net/http"
	"os"
	"reflect"
	"slices"
	"time"

	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"

	"github.com/log-bridge/log-bridge/webhook/internal/admit"
	"github.com/log-bridge/log-bridge/webhook/internal/inject"
	"github.com/log-bridge/log-bridge/webhook/internal/server"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "hooks:", err)
		os.Exit(1)
	}
}

func run() error {
	certificate, ca, err := selfSigned()
	if err != nil {
		return err
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate}})
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		return err
	}
	fmt.Printf("%s\n%s\n", port, base64.StdEncoding.EncodeToString(ca))

	mux := http.NewServeMux()
	for path, decide := range map[string]admit.Decide{
		"/works":  works,
		"/panics": func(context.Context, *corev1.Pod) inject.Result { panic("a defect") },
		// Later than any timeout.
		"/slow":        func(context.Context, *corev1.Pod) inject.Result { select {} },
		"/foreign":     foreign,
		"/openshift":   openshift,
		"/old-types":   oldTypes,
		"/first":       copies(0, false),
		"/native":      copies(0, true),
		"/second":      copies(1, false),
		"/removes":     removes,
		"/first-image": firstImage,
	} {
		handler := server.NewReviews(admit.Handler(decide, slog.New(slog.NewTextHandler(os.Stderr, nil)), admit.Counter()), server.MaxBody, time.Hour, server.TurnedAway())
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			fmt.Println(path)
			handler.ServeHTTP(w, r)
		})
	}
	// What the server answers where it is too busy to decide.
	for path, status := range map[string]int{"/429": http.StatusTooManyRequests, "/503": http.StatusServiceUnavailable} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			fmt.Println(path)
			w.Header().Set("Retry-After", "1")
			http.Error(w, "too many reviews at once", status)
		})
	}
	httpServer := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0) // not Shutdown: the slow ones never end
	}()
	return httpServer.Serve(listener)
}

func works(ctx context.Context, pod *corev1.Pod) inject.Result {
	return inject.Pod(ctx, pod, inject.Config{Version: "test", Image: "ghcr.io/log-bridge/log-bridge:test", Resources: inject.DefaultResources()})
}

// foreign puts a native sidecar and a container before all others, and a volume, an
// annotation and a mount into each container, as meshes and secret injectors do.
func foreign(_ context.Context, pod *corev1.Pod) inject.Result {
	const name = "foreign"
	if slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == name }) {
		return inject.Result{LeftAlone: inject.Already}
	}
	container := func(name string) corev1.Container {
		return corev1.Container{Name: name, Image: "log-bridge.test/rotator:1", Command: []string{"sh", "-c", "trap exit TERM; echo hello; while true; do sleep 1; done"}}
	}
	always := corev1.ContainerRestartPolicyAlways
	proxy := container("foreign-proxy")
	proxy.RestartPolicy = &always
	once := container(name)
	once.Command = []string{"true"}

	mount := corev1.VolumeMount{Name: name, MountPath: "/etc/foreign"}
	annotations := map[string]string{"example.com/foreign": "yes"}
	maps.Copy(annotations, pod.Annotations)
	volume := corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}
	return inject.Result{Operations: []jsonpatch.Operation{
		jsonpatch.NewOperation("add", "/metadata/annotations", annotations),
		jsonpatch.NewOperation("add", "/spec/volumes", append(pod.Spec.Volumes, volume)),
		jsonpatch.NewOperation("add", "/spec/initContainers", append([]corev1.Container{proxy}, withMount(pod.Spec.InitContainers, mount)...)),
		jsonpatch.NewOperation("add", "/spec/containers", append([]corev1.Container{once}, withMount(pod.Spec.Containers, mount)...)),
	}}
}

// firstImage gives the first init container another image, whichever that is.
func firstImage(_ context.Context, pod *corev1.Pod) inject.Result {
	const image = "example.com/other:1"
	if len(pod.Spec.InitContainers) == 0 || pod.Spec.InitContainers[0].Image == image {
		return inject.Result{LeftAlone: inject.Already}
	}
	return inject.Result{Operations: []jsonpatch.Operation{jsonpatch.NewOperation("replace", "/spec/initContainers/0/image", image)}}
}

func withMount(containers []corev1.Container, mount corev1.VolumeMount) []corev1.Container {
	containers = slices.Clone(containers)
	for i := range containers {
		containers[i].VolumeMounts = append(slices.Clone(containers[i].VolumeMounts), mount)
	}
	return containers
}

// openshift gives containers without a user one from the namespace's range.
func openshift(_ context.Context, pod *corev1.Pod) inject.Result {
	id := int64(1000680000)
	var ops []jsonpatch.Operation
	for list, containers := range map[string][]corev1.Container{"containers": pod.Spec.Containers, "initContainers": pod.Spec.InitContainers} {
		for i, c := range containers {
			sc := &corev1.SecurityContext{}
			if c.SecurityContext != nil {
				sc = c.SecurityContext.DeepCopy()
			}
			if sc.RunAsUser == nil {
				sc.RunAsUser = &id
				ops = append(ops, jsonpatch.NewOperation("add", fmt.Sprintf("/spec/%s/%d/securityContext", list, i), sc))
			}
		}
	}
	if sc := pod.Spec.SecurityContext; sc == nil || sc.FSGroup == nil {
		ops = append(ops, jsonpatch.NewOperation("add", "/spec/securityContext", corev1.PodSecurityContext{FSGroup: &id}))
	}
	if len(ops) == 0 {
		return inject.Result{LeftAlone: inject.Already}
	}
	return inject.Result{Operations: ops}
}

// oldTypes answers with init containers as a webhook with types of Kubernetes 1.27 has them after it
// decoded and encoded them, whether there is anything to change or not.
func oldTypes(_ context.Context, pod *corev1.Pod) inject.Result {
	containers := slices.Clone(pod.Spec.InitContainers)
	for i := range containers {
		containers[i].RestartPolicy = nil
	}
	if reflect.DeepEqual(containers, pod.Spec.InitContainers) {
		return inject.Result{LeftAlone: inject.Already}
	}
	return inject.Result{Operations: []jsonpatch.Operation{jsonpatch.NewOperation("replace", "/spec/initContainers", containers)}}
}

// copies puts a container with the mounts of the application among the init containers, as
// injectors of secrets do so that the application finds in its volumes what they write.
func copies(at int, native bool) admit.Decide {
	return func(_ context.Context, pod *corev1.Pod) inject.Result {
		inits := pod.Spec.InitContainers
		if len(inits) < at || slices.ContainsFunc(inits, func(c corev1.Container) bool { return c.Name == "copies" }) {
			return inject.Result{LeftAlone: inject.Already}
		}
		c := corev1.Container{Name: "copies", Image: "log-bridge.test/rotator:1", VolumeMounts: pod.Spec.Containers[0].VolumeMounts,
			Command: []string{"sh", "-c", "echo strange > /var/log/app/strange.log; ls /var/log/app; stat -c %F /srv/file.log"}}
		if native {
			always := corev1.ContainerRestartPolicyAlways
			c.RestartPolicy = &always
			c.Command[2] += "; trap exit TERM; while true; do sleep 1; done"
		}
		if len(inits) == 0 {
			return inject.Result{Operations: []jsonpatch.Operation{jsonpatch.NewOperation("add", "/spec/initContainers", []corev1.Container{c})}}
		}
		return inject.Result{Operations: []jsonpatch.Operation{jsonpatch.NewOperation("add", fmt.Sprintf("/spec/initContainers/%d", at), c)}}
	}
}

// removes takes our sidecar out whenever it sees it.
func removes(_ context.Context, pod *corev1.Pod) inject.Result {
	at := slices.IndexFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == "log-bridge" })
	if at < 0 {
		return inject.Result{LeftAlone: inject.Already}
	}
	return inject.Result{Operations: []jsonpatch.Operation{jsonpatch.NewOperation("remove", fmt.Sprintf("/spec/initContainers/%d", at), nil)}}
}

// selfSigned makes a certificate for 127.0.0.1 that is its own authority.
func selfSigned() (tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, ca, nil
}
