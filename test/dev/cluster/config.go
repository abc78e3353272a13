package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Addresses are the same in every cluster, because each has a network of its own.
const (
	podNetwork     = "10.244.0.0/16"
	nodeAddress    = "10.244.0.1" // the bridge that all pods hang on
	serviceNetwork = "10.96.0.0/16"
	serviceAddress = "10.96.0.1" // of the service named kubernetes
	apiPort        = "6443"
)

// The node's own view of the directories that the configuration names.
const (
	configDir = "/var/lib/kubernetes"
	logDir    = "/var/log"
	// The API server makes its certificate itself, for the name localhost and the addresses above, and signs it with
	// a key that it forgets. So the file serves as the authority's as well.
	certificate = configDir + "/pki/apiserver.crt"
	tokenFile   = configDir + "/admin.token"
	pauseFile   = configDir + "/pause.tar"
)

// nodePath is where the node looks for programs.
const nodePath = configDir + "/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

const pauseName = "localhost/log-bridge-cluster/pause:1"

// users are the identities that Kubernetes' own RBAC rules are written for: name, group.
func users(name string) map[string][2]string {
	return map[string][2]string{
		"admin":                   {"kubernetes-admin", "system:masters"},
		"kube-controller-manager": {"system:kube-controller-manager", ""},
		"kube-proxy":              {"system:kube-proxy", ""},
		"kube-scheduler":          {"system:kube-scheduler", ""},
		"kubelet":                 {"system:node:" + name, "system:nodes"},
	}
}

// writeConfig writes what the components read, and returns the administrator's token.
func writeConfig(dir, name string) (token string, err error) {
	files := map[string]string{
		"containerd.toml":      containerdConfig,
		"cni/cluster.conflist": cniConfig,
		"kubelet.yaml":         kubeletConfig,
		"kube-proxy.yaml":      fmt.Sprintf(kubeProxyConfig, name),
		"resolv.conf":          "",
	}
	var tokens strings.Builder
	for file, user := range users(name) {
		secret := rand.Text()
		fmt.Fprintf(&tokens, "%s,%s,%s,%q\n", secret, user[0], user[0], user[1])
		files[file+".kubeconfig"] = kubeconfig(name, "https://127.0.0.1:"+apiPort, "certificate-authority: "+certificate, secret)
		if file == "admin" {
			token = secret
		}
	}
	files["tokens.csv"] = tokens.String()
	files[filepath.Base(tokenFile)] = token
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return "", err
	}
	files["service-accounts.key"] = string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))

	// What the API server shows to a webhook that asks who calls: a certificate that is its own authority.
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "kube-apiserver-webhooks"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, IsCA: true, BasicConstraintsValid: true}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return "", err
	}
	files["webhooks.crt"] = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed}))
	files["admission.yaml"] = admissionConfig
	files["webhooks.kubeconfig"] = webhooksConfig

	for file, content := range files {
		path := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return "", err
		}
	}
	return token, nil
}

const admissionConfig = `apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: MutatingAdmissionWebhook
  configuration:
    apiVersion: apiserver.config.k8s.io/v1
    kind: WebhookAdmissionConfiguration
    kubeConfigFile: ` + configDir + `/webhooks.kubeconfig
`

// A user is chosen by the name of the Service that is called.
const webhooksConfig = `apiVersion: v1
kind: Config
users:
- name: "*.svc"
  user:
    client-certificate: ` + configDir + `/webhooks.crt
    client-key: ` + configDir + `/service-accounts.key
`

func kubeconfig(name, server, authority, token string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: %[1]s
  cluster:
    server: %[2]s
    tls-server-name: localhost
    %[3]s
users:
- name: %[1]s
  user:
    token: %[4]s
contexts:
- name: %[1]s
  context:
    cluster: %[1]s
    user: %[1]s
current-context: %[1]s
`, name, server, authority, token)
}

func authorityData(certificate []byte) string {
	return "certificate-authority-data: " + base64.StdEncoding.EncodeToString(certificate)
}

// A component is one long-running program of the node; its output goes to logDir.
type component struct {
	name string
	args []string
}

var (
	containerd = component{"containerd", []string{"--config=" + configDir + "/containerd.toml"}}

	etcd = component{"etcd", []string{"--data-dir=/var/lib/etcd"}}

	apiserver = component{"kube-apiserver", []string{
		"--advertise-address=" + nodeAddress,
		"--allow-privileged",
		"--authorization-mode=Node,RBAC",
		"--cert-dir=" + configDir + "/pki",
		"--admission-control-config-file=" + configDir + "/admission.yaml",
		"--enable-admission-plugins=NodeRestriction",
		// Webhooks are called at their pods' addresses, without a detour over kube-proxy and its delay.
		"--enable-aggregator-routing",
		"--etcd-servers=http://127.0.0.1:2379",
		"--kubelet-preferred-address-types=InternalIP",
		"--secure-port=" + apiPort,
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + configDir + "/service-accounts.key",
		"--service-account-signing-key-file=" + configDir + "/service-accounts.key",
		"--service-cluster-ip-range=" + serviceNetwork,
		"--token-auth-file=" + configDir + "/tokens.csv",
	}}

	controllerManager = component{"kube-controller-manager", []string{
		"--kubeconfig=" + configDir + "/kube-controller-manager.kubeconfig",
		"--leader-elect=false",
		"--root-ca-file=" + certificate,
		"--service-account-private-key-file=" + configDir + "/service-accounts.key",
		"--use-service-account-credentials",
	}}

	scheduler = component{"kube-scheduler", []string{
		"--kubeconfig=" + configDir + "/kube-scheduler.kubeconfig",
		"--leader-elect=false",
	}}

	proxy = component{"kube-proxy", []string{"--config=" + configDir + "/kube-proxy.yaml"}}
)

func kubelet(name string) component {
	return component{"kubelet", []string{
		"--config=" + configDir + "/kubelet.yaml",
		"--hostname-override=" + name,
		"--kubeconfig=" + configDir + "/kubelet.kubeconfig",
		"--node-ip=" + nodeAddress,
	}}
}

const containerdConfig = `version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
# It would create a directory in /opt.
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "` + pauseName + `"
# Without the capability SYS_RESOURCE a process cannot lower its OOM score, and no sandbox would start.
restrict_oom_score_adj = true
# A profile would be loaded into the kernel and stay there.
disable_apparmor = true
tolerate_missing_hugetlb_controller = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "` + configDir + `/cni"
`

const cniConfig = `{
  "cniVersion": "1.0.0",
  "name": "cluster",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "` + bridge + `",
      "isGateway": true,
      "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "` + podNetwork + `"}]],
        "routes": [{"dst": "0.0.0.0/0"}]
      }
    }
  ]
}
`

// The name server is the node itself, where nobody listens: a look-up fails at once, instead of after
// a timeout, and pods get no warning that there is no DNS.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: true}
  webhook: {enabled: false}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
clusterDNS: [` + nodeAddress + `]
clusterDomain: cluster.local
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
# How full the machine is says nothing about the cluster, and an image that was removed could not be pulled again.
enforceNodeAllocatable: []
evictionHard: {memory.available: 10Mi, nodefs.available: 1%, nodefs.inodesFree: 1%, imagefs.available: 1%}
imageGCHighThresholdPercent: 100
failCgroupV1: false
failSwapOn: false
makeIPTablesUtilChains: false
oomScoreAdj: 0
resolvConf: ` + configDir + `/resolv.conf
serializeImagePulls: false
volumePluginDir: /var/lib/kubelet/volume-plugins
`

// All traffic to services is masqueraded: then the answer of a pod on the same bridge comes back through the node also
// where the kernel does not pass bridged packets to iptables (module br_netfilter).
const kubeProxyConfig = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: ` + configDir + `/kube-proxy.kubeconfig}
clusterCIDR: ` + podNetwork + `
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
hostnameOverride: %s
iptables: {localhostNodePorts: false, masqueradeAll: true, minSyncPeriod: 100ms}
mode: iptables
oomScoreAdj: 0
`
