package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"time"
)

const (
	// authorityName is the common name of every authority; by it those of other
	// replicas are distinguished from foreign ones in a caBundle.
	authorityName = "log-bridge webhook CA"
	// authorityLife and certificateLife run from the making to the end.
	authorityLife   = 365 * 24 * time.Hour
	certificateLife = 30 * 24 * time.Hour
	// backdate is how far before its making a certificate begins, so that nothing
	// happens when clocks differ or one jumps back by less.
	backdate = 24 * time.Hour
)

// authority is a CA certificate with its key.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// certificate is a serving certificate and who signed it.
type certificate struct {
	tls.Certificate
	by authority
}

// is says whether two authorities are the same.
func (a authority) is(b authority) bool { return a.cert.Equal(b.cert) }

// valid says whether now lies in the life of c.
func valid(c *x509.Certificate, now time.Time) bool {
	return !now.Before(c.NotBefore) && now.Before(c.NotAfter)
}

// fresh says whether c is valid and has more than a third of its life ahead.
func fresh(c *x509.Certificate, now time.Time) bool {
	return valid(c, now) && c.NotAfter.Sub(now) > c.NotAfter.Sub(c.NotBefore)/3
}

// lasts says whether c needs no successor yet. One that ends with its authority
// gets none: it would end at the same time.
func (c *certificate) lasts(now time.Time) bool {
	return fresh(c.Leaf, now) || valid(c.Leaf, now) && c.Leaf.NotAfter.Equal(c.by.cert.NotAfter)
}

// newAuthority makes an authority.
func newAuthority(now time.Time) (authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, fmt.Errorf("create a CA: %w", err)
	}
	// No serial number: crypto/x509 chooses a random one, as it derives the key id
	// that tells authorities of one name apart.
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: authorityName},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(authorityLife),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return authority{}, fmt.Errorf("create a CA: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return authority{}, fmt.Errorf("create a CA: %w", err)
	}
	return authority{cert, key}, nil
}

// issue signs a serving certificate for the names. It ends with the authority at
// the latest.
func (a authority) issue(names []string, now time.Time) (*certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("create a serving certificate: %w", err)
	}
	end := now.Add(certificateLife)
	if end.After(a.cert.NotAfter) {
		end = a.cert.NotAfter
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "log-bridge webhook"},
		DNSNames:    names,
		NotBefore:   now.Add(-backdate),
		NotAfter:    end,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("create a serving certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("create a serving certificate: %w", err)
	}
	return &certificate{tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, a}, nil
}

// encodeCerts writes certificates as PEM, in order.
func encodeCerts(list []*x509.Certificate) []byte {
	var out bytes.Buffer
	for _, c := range list {
		// A write to a bytes.Buffer does not fail.
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	return out.Bytes()
}

// certsOf are the certificates of authorities, in order.
func certsOf(list []authority) []*x509.Certificate {
	certs := make([]*x509.Certificate, len(list))
	for i, a := range list {
		certs[i] = a.cert
	}
	return certs
}

// encodeKeys writes keys as PEM, in order.
func encodeKeys(list []authority) ([]byte, error) {
	var out bytes.Buffer
	for _, a := range list {
		der, err := x509.MarshalPKCS8PrivateKey(a.key)
		if err != nil {
			return nil, fmt.Errorf("encode the key of a CA: %w", err)
		}
		_ = pem.Encode(&out, &pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	return out.Bytes(), nil
}

// decodeCerts reads the certificates in PEM text and passes over what is none. It
// never returns nil.
func decodeCerts(text []byte) []*x509.Certificate {
	list := []*x509.Certificate{}
	for block := range blocks(text) {
		if c, err := x509.ParseCertificate(block); err == nil {
			list = append(list, c)
		}
	}
	return list
}

// decode reads what encodeCerts and encodeKeys wrote. A certificate without its
// key and a key without its certificate are passed over: a hand in the Secret
// must not stop us, and an authority that cannot sign is of no use.
func decode(certs, keys []byte) []authority {
	var list []authority
	for _, cert := range decodeCerts(certs) {
		for block := range blocks(keys) {
			key, err := x509.ParsePKCS8PrivateKey(block)
			if err != nil {
				continue
			}
			if key, ok := key.(*ecdsa.PrivateKey); ok && cert.IsCA && key.PublicKey.Equal(cert.PublicKey) {
				list = append(list, authority{cert, key})
				break
			}
		}
	}
	return list
}

// blocks yields the content of each PEM block.
func blocks(text []byte) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for {
			var block *pem.Block
			if block, text = pem.Decode(text); block == nil || !yield(block.Bytes) {
				return
			}
		}
	}
}
