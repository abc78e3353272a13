package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// After it is told to end, serve is no longer ready, goes on answering for as long as
// requests may still come, and then ends by itself.
func TestServe(t *testing.T) {
	dir := t.TempDir()
	end := certificate(t, dir)
	hook, health, metrics := freePort(t), freePort(t), freePort(t)
	ctx, tellToEnd := context.WithCancel(t.Context())
	defer tellToEnd()
	var log buffer
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"serve", "--cert-dir", dir, "--port", hook, "--health-port", health, "--metrics-port", metrics,
			"--image", "registry.example/sidecar:7", "--shutdown-delay", "2s"}, io.Discard, &log)
	}()
	poll(t, &log, "ready", func() bool { code, _ := get("http://localhost:" + health + "/readyz"); return code == http.StatusOK })

	if answer := review(t, hook); !strings.Contains(answer, `"allowed":true`) || !strings.Contains(answer, `"patchType":"JSONPatch"`) {
		t.Errorf("answer %s, want a patch", answer)
	}
	_, text := get("http://localhost:" + metrics + "/metrics")
	for _, want := range []string{
		`log_bridge_injections_total{reason="",result="injected"} 1`,
		`log_bridge_injections_total{reason="panic",result="failed"} 0`,
		fmt.Sprintf("log_bridge_certificate_expiration_timestamp_seconds %v", float64(end.Unix())),
		`controller_runtime_webhook_requests_total{code="200",webhook="/mutate-pods"} 1`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s among the metrics:\n%s", want, text)
		}
	}

	tellToEnd()
	poll(t, &log, "no longer ready", func() bool {
		code, _ := get("http://localhost:" + health + "/readyz")
		return code == http.StatusServiceUnavailable
	})
	if code, _ := get("http://localhost:" + health + "/healthz"); code != http.StatusOK {
		t.Errorf("/healthz says %d while the last requests are answered; the kubelet would kill the pod", code)
	}
	if answer := review(t, hook); !strings.Contains(answer, `"allowed":true`) {
		t.Errorf("answer %s after it was told to end, want a patch", answer)
	}
	select {
	case code := <-ended:
		if code != exitOK {
			t.Errorf("exit code %d; log:\n%s", code, &log)
		}
	case <-time.After(time.Minute):
		t.Fatalf("serve did not end; log:\n%s", &log)
	}
}

// A port that is taken ends the whole program, with a sentence.
func TestServeFails(t *testing.T) {
	dir := t.TempDir()
	certificate(t, dir)
	taken, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	var stderr buffer
	code := run(t.Context(), []string{"serve", "--cert-dir", dir, "--port", freePort(t), "--health-port", port, "--metrics-port", "0"}, io.Discard, &stderr)
	if code != exitTrouble || !strings.Contains(stderr.String(), "address already in use") {
		t.Errorf("exit code %d:\n%s", code, &stderr)
	}
}

// buffer is a log that may be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func poll(t *testing.T, log *buffer, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not %s; log:\n%s", what, log)
		}
	}
}

func get(url string) (int, string) {
	resp, err := http.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text)
}

func review(t *testing.T, port string) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	resp, err := client.Post("https://localhost:"+port+"/mutate-pods", "application/json", strings.NewReader(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview",
		"request":{"uid":"u","kind":{"version":"v1","kind":"Pod"},"operation":"CREATE","object":{"metadata":{"annotations":{"log-bridge.dev/files":"/app/app.log"}},"spec":{"containers":[{"name":"app"}]}}}}`))
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return fmt.Sprint(string(text), err)
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// certificate writes tls.crt and tls.key as a Secret holds them, and says when it ends.
func certificate(t *testing.T, dir string) time.Time {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"tls.crt": {Type: "CERTIFICATE", Bytes: cert}, "tls.key": {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return template.NotAfter
}
