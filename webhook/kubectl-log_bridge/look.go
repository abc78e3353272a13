package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/ephemeral"
)

// sight is what `log-bridge look` found in a container.
type sight struct {
	contract.Looked
	Files []contract.Seen
}

// lookInto runs `log-bridge look` beside a container. If nothing tells the user of the container's process, a first look finds it out.
func lookInto(ctx context.Context, r *ephemeral.Runner, t *ephemeral.Target, watch time.Duration) (sight, error) {
	for try := 0; ; try++ {
		found, err := lookOnce(ctx, r, *t, watch)
		if err != nil || !found.Denied {
			return found, err
		}
		user := &ephemeral.User{UID: int64(found.Uid), GID: int64(found.Gid)}
		if known, _ := t.Known(); try > 0 || known != nil && *known == *user {
			return sight{}, fmt.Errorf("the kernel does not show the files of container %s to another container of its user %d: process %d has the capabilities %s; "+
				"look into it with a container that has them, such as kubectl debug --profile=sysadmin", t.Container, found.Uid, found.PID, orNone(found.Caps))
		}
		t.User = user
	}
}

func orNone(caps string) string {
	if caps == "" {
		return "none, but it is protected (prctl(2), PR_SET_DUMPABLE)"
	}
	return "0x" + caps
}

func lookOnce(ctx context.Context, r *ephemeral.Runner, t ephemeral.Target, watch time.Duration) (sight, error) {
	args := []string{"look", "--watch=" + watch.String()}
	if s := t.Status(); s != nil && s.State.Running != nil {
		args = append(args, "--since="+strconv.FormatInt(s.State.Running.StartedAt.Unix(), 10))
	}
	if t.SharesProcesses() {
		args = append(args, "--container="+t.ID())
	}
	c, err := r.Start(ctx, t, "look", false, args...)
	if err != nil {
		return sight{}, err
	}
	out, err := c.Output(ctx)
	if err != nil {
		return sight{}, err
	}
	return parseSight(out)
}

// parseSight reads the lines that `log-bridge look` prints. Its names are the application's.
func parseSight(out []byte) (found sight, err error) {
	for n, line := range bytes.Split(bytes.TrimSpace(out), []byte("\n")) {
		if n == 0 {
			if err := json.Unmarshal(line, &found.Looked); err != nil {
				return sight{}, fmt.Errorf("the image does not print what this version expects (%.80q); use the image of the same version", strings.TrimSpace(string(line)))
			}
			continue
		}
		var f contract.Seen
		if err := json.Unmarshal(line, &f); err != nil {
			return sight{}, fmt.Errorf("line %d of log-bridge look: %w", n+1, err)
		}
		found.Files = append(found.Files, f)
	}
	return found, nil
}
