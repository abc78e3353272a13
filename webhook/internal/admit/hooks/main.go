// Command hooks serves the admission webhooks that the tests on a real cluster need beside
// the installed one: ours with faults, and those of other people.
//
// It is run inside the node, where the API server reaches it by 127.0.0.1. It prints one
// line with its port and one with its certificate (PEM in base64), then the path of each
// request as it comes in. It ends with its standard input.
package main

import (
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
	"slices"
	"time"

	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"

	"github.com/log-bridge/log-bridge/webhook/internal/admit"
	"github.com/log-bridge/log-bridge/webhook/internal/inject"
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
		"/panics": func(*corev1.Pod) inject.Result { panic("a defect") },
		// Later than any timeout.
		"/slow":      func(*corev1.Pod) inject.Result { select {} },
		"/foreign":   foreign,
		"/openshift": openshift,
	} {
		handler := admit.Handler(decide, slog.New(slog.NewTextHandler(os.Stderr, nil)), admit.Counter())
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
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0) // not server.Shutdown: the slow ones never end
	}()
	return server.Serve(listener)
}

func works(pod *corev1.Pod) inject.Result {
	return inject.Pod(pod, inject.Config{Version: "test", Image: "ghcr.io/log-bridge/log-bridge:test", Resources: inject.DefaultResources()})
}

// foreign puts a native sidecar and a container before all others, and a volume, an
// annotation and a mount into each container, as meshes and secret injectors do.
func foreign(pod *corev1.Pod) inject.Result {
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

func withMount(containers []corev1.Container, mount corev1.VolumeMount) []corev1.Container {
	containers = slices.Clone(containers)
	for i := range containers {
		containers[i].VolumeMounts = append(slices.Clone(containers[i].VolumeMounts), mount)
	}
	return containers
}

// openshift gives containers without a user one from the namespace's range.
func openshift(pod *corev1.Pod) inject.Result {
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
