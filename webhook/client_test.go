package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// With --client-ca only who shows a certificate of that authority is served, and with --client-names only one of these
// names. Ready it is all the same, for the kubelet has none.
func TestClientCA(t *testing.T) {
	dir := t.TempDir()
	certificate(t, dir)
	ours, file := clientCertificate(t, "kube-apiserver")
	foreign, _ := clientCertificate(t, "kube-apiserver")
	for names, served := range map[string]bool{"": true, "other,kube-apiserver": true, "other": false} {
		hook, health := freePort(t), freePort(t)
		var log buffer
		ended := make(chan int, 1)
		stop := startServe(t, ended, &log, "--cert-dir", dir, "--port", hook, "--health-port", health, "--metrics-port", "0",
			"--shutdown-delay", "0s", "--client-ca", file, "--client-names", names)
		poll(t, &log, "ready", func() bool { code, _ := get("http://localhost:" + health + "/readyz"); return code == http.StatusOK })
		ask := func(certificates ...tls.Certificate) error {
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: certificates}}}
			resp, err := client.Get("https://localhost:" + hook + "/")
			if err == nil {
				resp.Body.Close()
			}
			return err
		}
		if err := ask(); err == nil {
			t.Errorf("names %q: served without a certificate", names)
		}
		if err := ask(foreign); err == nil {
			t.Errorf("names %q: served with the certificate of another authority", names)
		}
		if err := ask(ours); (err == nil) != served {
			t.Errorf("names %q: %v", names, err)
		}
		stop()
		if code := <-ended; code != exitOK {
			t.Errorf("exit code %d", code)
		}
		if !served && !strings.Contains(log.String(), "is not one of") {
			t.Errorf("the log does not say why:\n%s", &log)
		}
	}
}

// What cannot be meant ends with a sentence.
func TestServeRefuses(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certificate(t, dir)
	for args, want := range map[string]string{
		"--review-timeout 0s":               "set it to the webhook's timeoutSeconds",
		"--connections 0":                   "set 1 or more",
		"--client-names a":                  "without --client-ca",
		"--memory lots":                     "use a positive quantity",
		"--client-ca " + empty:              "contains no certificate",
		"--client-ca " + empty + "-missing": "no such file",
	} {
		var stderr buffer
		code := run(t.Context(), append([]string{"serve", "--cert-dir", dir, "--port", freePort(t), "--health-port", freePort(t)}, strings.Fields(args)...), io.Discard, &stderr)
		if code != exitTrouble || !strings.Contains(stderr.String(), want) {
			t.Errorf("%s: exit code %d, want %q:\n%s", args, code, want, &stderr)
		}
	}
}

// startServe starts serve and returns what tells it to end; its exit code comes on ended.
func startServe(t *testing.T, ended chan<- int, log *buffer, args ...string) context.CancelFunc {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	go func() { ended <- run(ctx, append([]string{"serve"}, args...), io.Discard, log) }()
	return cancel
}

// clientCertificate makes a certificate that is its own authority, and a file that holds it.
func clientCertificate(t *testing.T, name string) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}
