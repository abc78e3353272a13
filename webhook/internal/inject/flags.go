package inject

import (
	"errors"
	"flag"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Flags adds the flags of all commands that decide about pods. Version and the default of Image are the program's.
func (c *Config) Flags(fs *flag.FlagSet) {
	fs.StringVar(&c.Image, "image", c.Image, "the sidecar's `IMAGE`")
	fs.Func("image-pull-policy", "`Always`, IfNotPresent or Never, for the sidecar's image (default: Kubernetes' own)", func(s string) error {
		switch p := corev1.PullPolicy(s); p {
		case "", corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever:
			c.PullPolicy = p
			return nil
		}
		return errors.New("use Always, IfNotPresent or Never")
	})
	c.Resources = DefaultResources()
	QuantityFlag(fs, &c.Resources.CPURequest, "cpu-request", "the sidecar's CPU request, unless an annotation sets it")
	QuantityFlag(fs, &c.Resources.CPULimit, "cpu-limit", "the sidecar's CPU limit")
	QuantityFlag(fs, &c.Resources.MemoryRequest, "memory-request", "the sidecar's memory request")
	QuantityFlag(fs, &c.Resources.MemoryLimit, "memory-limit", "the sidecar's memory limit")
	QuantityFlag(fs, &c.Resources.EphemeralRequest, "ephemeral-storage-request", "the sidecar's ephemeral-storage request, in a pod where a container has such a limit or each has such a request")
	QuantityFlag(fs, &c.Resources.EphemeralLimit, "ephemeral-storage-limit", "the sidecar's ephemeral-storage limit, in a pod where a container has such a limit")
	fs.Func("stats", "how often the sidecar reports on stderr what it delivered (`DURATION`, default 0s: never)", func(s string) error {
		d, err := time.ParseDuration(s)
		if err != nil || d < 0 {
			return errors.New("use a duration such as 1m, or 0s for never")
		}
		c.Stats = d
		return nil
	})
	QuantityFlag(fs, &c.SeedLimit, "seed-limit", "maximum number of bytes to copy from an image into a log directory; none: the sidecar's default")
}

// QuantityFlag adds a flag of a Kubernetes quantity; empty is none.
func QuantityFlag(fs *flag.FlagSet, to *resource.Quantity, name, text string) {
	usual := "none"
	if !to.IsZero() {
		usual = to.String()
	}
	fs.Func(name, text+" (`QUANTITY`, default "+usual+")", func(s string) error {
		if s == "" {
			*to = resource.Quantity{}
			return nil
		}
		q, err := ParseQuantity(s)
		if err != nil || q.Sign() <= 0 {
			return errors.New("use a positive quantity, such as 64Mi or 100m, or nothing")
		}
		*to = q
		return nil
	})
}
