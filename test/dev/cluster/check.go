package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// A check is something that a usable cluster fulfils.
type check struct {
	what  string // as in "waited until …"
	blame string // the component whose log says why it does not
	try   func() error
}

func dialCheck(what, blame, network, address string) check {
	return check{what, blame, func() error {
		connection, err := net.DialTimeout(network, address, time.Second)
		if err != nil {
			return err
		}
		return connection.Close()
	}}
}

func fileCheck(what, blame, path string) check {
	return check{what, blame, func() error {
		_, err := os.Stat(path)
		return err
	}}
}

// An api is a way to the API server, as administrator.
type api struct {
	address string
	token   string
	client  *http.Client
}

func newAPI(address, certificate, token string) (api, error) {
	pem, err := os.ReadFile(certificate)
	if err != nil {
		return api{}, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return api{}, fmt.Errorf("%s contains no certificate", certificate)
	}
	return api{address: address, token: token, client: &http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "localhost"}},
	}}, nil
}

func (a api) get(path string, into any) error {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "https://"+a.address+path, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+a.token)
	answer, err := a.client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s: %.3000s", path, answer.Status, body)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(body, into)
}

// checks returns what must hold for a pod to start, in the order in which it comes true.
func (a api) checks(name string) []check {
	exists := func(path string) func() error {
		return func() error { return a.get(path, nil) }
	}
	return []check{
		{"the API server is ready", "kube-apiserver", exists("/readyz")},
		{"the node is ready", "kubelet", func() error { return a.nodeReady(name) }},
		{"the default service account exists", "kube-controller-manager", exists("/api/v1/namespaces/default/serviceaccounts/default")},
		{"pods can be given the API server's certificate", "kube-controller-manager", exists("/api/v1/namespaces/default/configmaps/kube-root-ca.crt")},
	}
}

func (a api) nodeReady(name string) error {
	var node struct {
		Spec struct {
			Taints []struct{ Key string }
		}
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := a.get("/api/v1/nodes/"+name, &node); err != nil {
		return err
	}
	ready := errors.New("it has no condition Ready yet")
	for _, condition := range node.Status.Conditions {
		if condition.Type == "Ready" {
			ready = nil
			if condition.Status != "True" {
				ready = errors.New(condition.Message)
			}
		}
	}
	// The controller that takes it away needs a moment.
	if ready == nil && len(node.Spec.Taints) > 0 {
		ready = fmt.Errorf("it is tainted with %s", node.Spec.Taints[0].Key)
	}
	return ready
}
