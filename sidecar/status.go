package main

import (
	"fmt"
	"io"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/sidecar/internal/checkpoint"
	"github.com/log-bridge/log-bridge/sidecar/internal/tree"
)

// status prints a line for each file that a running tail with the same arguments follows: its entry, how many bytes of it were
// delivered, and how many are left, from the checkpoint. `kubectl log-bridge status` runs it beside tail, as the same user.
func status(args []string, stdout io.Writer) error {
	cfg, err := contract.ParseTail(args, stdout)
	if err != nil {
		return fmt.Errorf("status: %w", err)
	}
	records, err := checkpoint.Read(cfg.StatePath())
	if err != nil {
		return fmt.Errorf("status: %w", err)
	}
	for _, r := range records {
		if r.Flags&(checkpoint.Done|checkpoint.Copy|checkpoint.Held) != 0 {
			continue
		}
		// A rotated file has another name now, or none.
		n, err := tree.New(r.Container, cfg).Resolve(r.Path)
		if err != nil || n.Ino != r.Ino {
			continue
		}
		fmt.Fprintf(stdout, contract.StatusLine, r.Offset, max(n.Size-r.Offset, 0), contract.Entry{Container: r.Container, Pattern: r.Path})
	}
	return nil
}
