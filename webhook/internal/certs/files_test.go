package certs

import (
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// writePair puts a serving certificate into a directory in the kubelet's way: a new
// directory, and a link that is swapped.
func writePair(t *testing.T, dir string, at time.Time) *certificate {
	t.Helper()
	ca, err := newAuthority(at)
	if err != nil {
		t.Fatal(err)
	}
	c, err := ca.issue([]string{dnsName}, at)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	folder, err := os.MkdirTemp(dir, "..")
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"tls.crt": {Type: "CERTIFICATE", Bytes: c.Leaf.Raw},
		"tls.key": {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(filepath.Join(folder, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	swap := filepath.Join(dir, "..data_tmp")
	if err := os.Symlink(filepath.Base(folder), swap); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(swap, filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	now := start
	f := NewFiles(dir, slog.New(slog.NewTextHandler(io.Discard, nil)), func() time.Time { return now })
	serves := func(want *certificate) {
		t.Helper()
		f.read()
		have, err := f.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		if !have.Leaf.Equal(want.Leaf) {
			t.Error("another certificate is served than the one in the directory")
		}
	}
	if err := f.Ready(); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("Ready without files: %v", err)
	}
	if _, err := f.GetCertificate(nil); err == nil {
		t.Error("a certificate without files")
	}

	first := writePair(t, dir, now)
	serves(first)
	if err := f.Ready(); err != nil {
		t.Error(err)
	}

	second := writePair(t, dir, now)
	serves(second)

	// A pair that does not match, as between the writes of a hand, changes nothing.
	key := filepath.Join(dir, "..data", "tls.key")
	good, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(key, foreignKey(t), 0o600); err != nil {
		t.Fatal(err)
	}
	serves(second)
	if err := f.Ready(); err != nil {
		t.Errorf("the former certificate is still good: %v", err)
	}
	if err := os.WriteFile(key, good, 0o600); err != nil {
		t.Fatal(err)
	}

	now = now.Add(certificateLife)
	if err := f.Ready(); err == nil || !strings.Contains(err.Error(), "renew it") {
		t.Errorf("Ready with an expired certificate: %v", err)
	}
	third := writePair(t, dir, now)
	serves(third)
	if err := f.Ready(); err != nil {
		t.Error(err)
	}
}
