package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Files serves the certificate in a directory, tls.crt and tls.key as a Secret of type
// kubernetes.io/tls mounts them, and reads it again when it changes. Who writes the
// Secret, cert-manager or a person, also maintains the caBundle.
//
// It polls: the kubelet itself takes up to a minute to bring a change, and a
// watch would take one of the few inotify instances that a user has on a node.
// Its methods may be called from any goroutine; Run once.
type Files struct {
	dir string
	log *slog.Logger
	now func() time.Time

	mu        sync.Mutex
	cert, key []byte
	serving   *tls.Certificate
	trouble   error
}

// NewFiles reads the directory for the first time, which may fail: Ready tells. A nil
// clock means time.Now.
func NewFiles(dir string, log *slog.Logger, now func() time.Time) *Files {
	if now == nil {
		now = time.Now
	}
	f := &Files{dir: dir, log: log, now: now}
	f.read()
	return f
}

// Run reads the directory again and again until ctx is done. It returns nil.
func (f *Files) Run(ctx context.Context) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			f.read()
		}
	}
}

// read takes over what is in the directory where it differs from what is served. A
// certificate that cannot be used leaves the former one in place.
func (f *Files) read() {
	f.mu.Lock()
	defer f.mu.Unlock()
	cert, err1 := os.ReadFile(filepath.Join(f.dir, "tls.crt"))
	key, err2 := os.ReadFile(filepath.Join(f.dir, "tls.key"))
	err := errors.Join(err1, err2)
	if err == nil && f.serving != nil && bytes.Equal(cert, f.cert) && bytes.Equal(key, f.key) {
		f.trouble = nil
		return
	}
	var pair tls.Certificate
	if err == nil {
		// Between the two reads the kubelet may have swapped the directory; then the two do
		// not match, and the next time they do.
		pair, err = tls.X509KeyPair(cert, key)
	}
	if err != nil {
		if f.trouble == nil || f.trouble.Error() != err.Error() {
			f.log.Warn("certificates: will try again", "directory", f.dir, "error", err)
		}
		f.trouble = err
		return
	}
	f.cert, f.key, f.serving, f.trouble = cert, key, &pair, nil
	f.log.Info("serving certificate read", "directory", f.dir, "names", pair.Leaf.DNSNames, "notAfter", pair.Leaf.NotAfter)
}

// GetCertificate is for tls.Config.
func (f *Files) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.serving == nil {
		return nil, fmt.Errorf("there is no serving certificate in %s: %w", f.dir, f.trouble)
	}
	return f.serving, nil
}

// Ready is nil while the certificate is valid, otherwise a sentence.
func (f *Files) Ready() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.serving == nil:
		return fmt.Errorf("there is no serving certificate in %s: %w", f.dir, f.trouble)
	case !valid(f.serving.Leaf, f.now()):
		leaf := f.serving.Leaf
		return fmt.Errorf("the serving certificate in %s is not valid now (from %s to %s); renew it", f.dir, leaf.NotBefore.Format(time.RFC3339), leaf.NotAfter.Format(time.RFC3339))
	}
	return nil
}
