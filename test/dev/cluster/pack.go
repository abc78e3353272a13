package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// runPack makes the image of a Dockerfile whose last stage is from scratch, of programs that are built already: what
// its other stages would have built. That takes no right and no base image, and the image holds the same bytes that
// lie beside it.
func runPack(flags *flag.FlagSet, args []string) error {
	file := flags.String("file", "Dockerfile", "the Dockerfile")
	tag := flags.String("tag", "", "name and tag of the image")
	output := flags.String("output", "", "the archive to write")
	platform := flags.String("platform", "linux/"+runtime.GOARCH, "what the image is for")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if *tag == "" || *output == "" || flags.NArg() != 1 {
		return errors.New("pack: give --tag NAME:TAG, --output IMAGE-TAR and one directory, that of the programs")
	}
	system, arch, _ := strings.Cut(*platform, "/")
	if system != "linux" || arch == "" {
		return fmt.Errorf("pack: --platform %q; give one such as linux/amd64", *platform)
	}
	i, err := lastStage(*file, flags.Arg(0))
	if err != nil {
		return fmt.Errorf("pack: %s: %w", *file, err)
	}
	i.name, i.arch = *tag, arch
	return i.write(*output)
}

// lastStage reads the instructions after the last FROM. What is copied from another stage is taken from the directory, by
// its last name.
func lastStage(dockerfile, folder string) (image, error) {
	text, err := os.Open(dockerfile)
	if err != nil {
		return image{}, err
	}
	defer text.Close()
	var i image
	base := ""
	for lines := bufio.NewScanner(text); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		word, rest, _ := strings.Cut(line, " ")
		rest = strings.TrimSpace(rest)
		fields := strings.Fields(rest)
		switch word = strings.ToUpper(word); {
		case line == "" || strings.HasPrefix(line, "#"):
		case word == "FROM":
			i, base = image{}, rest
			i.config.Env = []string{searchPath}
			i.config.WorkingDir = "/"
		case base != "scratch":
			// of another stage
		case word == "COPY" && len(fields) >= 3 && strings.HasPrefix(fields[0], "--from="):
			e := entry{path: fields[len(fields)-1], file: filepath.Join(folder, path.Base(fields[len(fields)-2]))}
			for _, option := range fields[1 : len(fields)-2] {
				mode, ok := strings.CutPrefix(option, "--chmod=")
				if e.mode, err = strconv.ParseInt(mode, 8, 64); !ok || err != nil {
					return i, fmt.Errorf("COPY has %q, which pack does not support; it supports --from and --chmod", option)
				}
			}
			if _, err := os.Stat(e.file); err != nil {
				return i, err
			}
			i.entries = append(i.entries, e)
		case word == "ENV" && len(fields) == 1 && strings.Contains(rest, "="):
			i.config.Env = append(i.config.Env, rest)
		case word == "USER" && len(fields) == 1:
			i.config.User = rest
		case word == "ENTRYPOINT" && json.Unmarshal([]byte(rest), &i.config.Entrypoint) == nil:
		default:
			return i, fmt.Errorf("the last stage has %q, which pack does not support; it supports COPY --from --chmod, ENV KEY=VALUE, USER and ENTRYPOINT [\"…\"]", line)
		}
	}
	if base != "scratch" {
		return i, fmt.Errorf("the last stage is from %q; only one from scratch can be packed", base)
	}
	return i, nil
}
