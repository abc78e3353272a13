package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"

	"github.com/log-bridge/log-bridge/sidecar/internal/prepare"
	"github.com/log-bridge/log-bridge/sidecar/internal/say"
)

// seed copies what this container's image has in directories to the directories that the application's container will
// mount over them.
func seed(args []string, stdout io.Writer, words *say.Sayer) error {
	fs := flag.NewFlagSet("seed", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	limit := fs.Int64("limit", 1<<30, "the most to copy, in `BYTES`")
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(stdout, "Usage: log-bridge seed [flags] FROM TO [FROM TO]…\n\nCopies the contents of the directory FROM to the new directory TO.\n\nFlags:")
		fs.SetOutput(stdout)
		fs.PrintDefaults()
		return err
	case err != nil:
		return fmt.Errorf("seed: %w; log-bridge seed --help lists the flags", err)
	case fs.NArg() == 0 || fs.NArg()%2 != 0:
		return errors.New("seed takes pairs of directories; run log-bridge seed FROM TO")
	}
	s := prepare.Seeder{Limit: *limit, Say: words.Say}
	for pair := fs.Args(); len(pair) > 0; pair = pair[2:] {
		for _, dir := range pair[:2] {
			if !filepath.IsAbs(dir) {
				return fmt.Errorf("seed: %q is not an absolute path", dir)
			}
		}
		if err := s.Seed(filepath.Clean(pair[0]), filepath.Clean(pair[1])); err != nil {
			return fmt.Errorf("seed %s: %w", pair[0], err)
		}
	}
	return nil
}
