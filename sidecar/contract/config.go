package contract

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// Format is how lines are written to stdout.
type Format string

// The formats.
const (
	Raw      Format = "raw"    // the bytes as written
	Prefixed Format = "prefix" // CONTAINER:PATH and a space before each line
	JSON     Format = "json"   // one object a line
)

// Place is a path in a container.
type Place struct {
	Container string
	Path      string
}

// String is the place as it is written: CONTAINER:PATH.
func (p Place) String() string { return p.Container + ":" + p.Path }

// View says where the sidecar finds what a container sees at a path: a user's
// volume, mounted whole in the sidecar, or a directory of it.
type View struct {
	Place
	// Dir is absolute, in the sidecar's file system.
	Dir string
}

// String is the view as it is written: CONTAINER:PATH=DIR.
func (v View) String() string { return v.Place.String() + "=" + v.Dir }

// Config is everything that `log-bridge tail` is told to do.
type Config struct {
	// Roots hold a tree for each container: Root/CONTAINER/path. The first holds the
	// state and is where Files and Dirs are made. Default: Root.
	Roots []string
	// State is the directory of the checkpoint; default: StateDir of the first root.
	State string
	// Views come before the roots: a path that a view covers is looked for there
	// only, and the deepest view that covers it wins.
	Views []View
	// FromEnd lists directories, as the sidecar sees them, that outlive the pod: a
	// file below it that exists when the sidecar first starts is followed from its
	// end as it is then.
	FromEnd []string
	// Files are made, empty and writable by anybody, before ready succeeds.
	Files []Place
	// Dirs are made, with DirMode, before ready succeeds.
	Dirs []Place
	// Seeded are directories that a seeding container will make; their parents
	// are made before ready succeeds.
	Seeded []Place
	// Format of the lines on stdout and stderr.
	Format Format
	// Reclaim frees the blocks of delivered bytes of files in the first root.
	Reclaim bool
	// Grace is how long the draining after SIGTERM may take; 0 is as long as it
	// takes (the kubelet's SIGKILL then is the end).
	Grace time.Duration
	// Stats is the time between two lines on stderr that report what was delivered; 0 is
	// never.
	Stats time.Duration
	// Attached says that a person reads the output of a program that is started once, beside the containers of a running pod: it
	// ends when its standard input closes, and writes nothing but the lines.
	Attached bool
	// Stdout and Stderr are the sources whose lines go there. At least one exists.
	Stdout []Entry
	Stderr []Entry
}

// StatePath is where the state is kept.
func (c Config) StatePath() string {
	if c.State != "" {
		return c.State
	}
	return filepath.Join(c.Roots[0], StateDir)
}

// What is said between `tail --attached` and the program that attaches to it: a question, as often as needed, its answer, and then go.
const (
	AttachedQuestion = '\n'
	AttachedAnswer   = 0
	AttachedGo       = 'g'
)

// Args are the arguments behind the word `tail` that ParseTail reads back. Only
// what differs from the default is written.
func (c Config) Args() []string {
	var args []string
	add := func(name, value string) { args = append(args, "--"+name+"="+value) }
	if len(c.Roots) != 1 || c.Roots[0] != Root {
		for _, r := range c.Roots {
			add("root", r)
		}
	}
	if c.State != "" {
		add("state", c.State)
	}
	for _, v := range c.Views {
		add("view", v.String())
	}
	for _, d := range c.FromEnd {
		add("from-end", d)
	}
	for _, p := range c.Files {
		add("file", p.String())
	}
	for _, p := range c.Dirs {
		add("dir", p.String())
	}
	for _, p := range c.Seeded {
		add("seeded", p.String())
	}
	if c.Format != Raw && c.Format != "" {
		add("format", string(c.Format))
	}
	if c.Reclaim {
		args = append(args, "--reclaim")
	}
	if c.Grace != 0 {
		add("grace", c.Grace.String())
	}
	if c.Stats != 0 {
		add("stats", c.Stats.String())
	}
	if c.Attached {
		args = append(args, "--attached")
	}
	for _, e := range c.Stderr {
		add("stderr", e.String())
	}
	for _, e := range c.Stdout {
		args = append(args, e.String())
	}
	return args
}

// Flags declares the flags of `tail` on fs; they write to the returned Config.
// Usage texts are those of `log-bridge tail --help`.
func Flags(fs *flag.FlagSet) *Config {
	c := &Config{Format: Raw}
	each := func(name, usage string, add func(string) error) { fs.Func(name, usage, add) }
	each("root", "`DIR` with a tree for each container, DIR/CONTAINER/path; repeatable, the first contains the state (default "+Root+")", func(s string) error {
		if s == "" {
			return errors.New("is empty; name a directory")
		}
		c.Roots = append(c.Roots, s)
		return nil
	})
	fs.StringVar(&c.State, "state", "", "`DIR` for the offsets (default "+StateDir+" in the first root)")
	each("view", "`CONTAINER:PATH=DIR`: what the container sees at PATH is in DIR; repeatable", func(s string) error {
		// DIR is absolute, so a path may hold a lone "=".
		left, dir, ok := strings.Cut(s, "=/")
		if !ok {
			return errors.New("write CONTAINER:PATH=/DIR")
		}
		p, err := parsePlace(left)
		if err != nil {
			return err
		}
		c.Views = append(c.Views, View{Place: p, Dir: path.Clean("/" + dir)})
		return nil
	})
	each("from-end", "`DIR` that outlives the pod: at the first start, files in it are followed from their end; repeatable", func(s string) error {
		if !strings.HasPrefix(s, "/") {
			return errors.New("is not an absolute path")
		}
		c.FromEnd = append(c.FromEnd, path.Clean(s))
		return nil
	})
	places := func(name, usage string, to *[]Place) {
		each(name, usage, func(s string) error {
			p, err := parsePlace(s)
			if err == nil {
				*to = append(*to, p)
			}
			return err
		})
	}
	places("file", "`CONTAINER:PATH` of a file to create, writable by any user; repeatable", &c.Files)
	places("dir", "`CONTAINER:PATH` of a directory to create, writable by any user; repeatable", &c.Dirs)
	places("seeded", "`CONTAINER:PATH` of a directory that log-bridge seed will create; repeatable", &c.Seeded)
	each("format", "`FORMAT` of the lines: raw, prefix or json (default raw)", func(s string) error {
		switch c.Format = Format(s); c.Format {
		case Raw, Prefixed, JSON:
			return nil
		}
		return errors.New("write raw, prefix or json")
	})
	fs.BoolVar(&c.Reclaim, "reclaim", false, "free the disk blocks of delivered bytes")
	fs.DurationVar(&c.Grace, "grace", 0, "how long draining may take after SIGTERM; 0: no limit")
	fs.DurationVar(&c.Stats, "stats", 0, "how often to report on stderr what was delivered, such as 1m; 0: never")
	fs.BoolVar(&c.Attached, "attached", false, "end when standard input closes, and keep no offsets")
	each("stderr", "`CONTAINER:PATTERN` whose lines go to stderr; repeatable", func(s string) error {
		e, err := parseSource(s)
		if err == nil {
			c.Stderr = append(c.Stderr, e)
		}
		return err
	})
	return c
}

// ParseTail reads the arguments behind the word `tail`. It returns flag.ErrHelp
// after it wrote the help text to usage. Other errors are messages for the user.
func ParseTail(args []string, usage io.Writer) (Config, error) {
	fs := flag.NewFlagSet("tail", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	c := Flags(fs)
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(usage, "Usage: log-bridge tail [flags] CONTAINER:PATTERN…\n\nFollows the files found at ROOT/CONTAINER/PATTERN and writes their lines to stdout.\n\nFlags:")
		fs.SetOutput(usage)
		fs.PrintDefaults()
		return Config{}, err
	case err != nil:
		return Config{}, fmt.Errorf("%w; log-bridge tail --help lists the flags", err)
	}
	for _, arg := range fs.Args() {
		e, err := parseSource(arg)
		if err != nil {
			return Config{}, err
		}
		c.Stdout = append(c.Stdout, e)
	}
	if len(c.Stdout)+len(c.Stderr) == 0 {
		return Config{}, errors.New("nothing to follow; name at least one CONTAINER:PATTERN, such as app:/app/app.log")
	}
	if c.Grace < 0 {
		return Config{}, fmt.Errorf("--grace %v is negative; write a duration such as 25s", c.Grace)
	}
	if c.Stats < 0 {
		return Config{}, fmt.Errorf("--stats %v is negative; write a duration such as 1m", c.Stats)
	}
	if len(c.Roots) == 0 {
		c.Roots = []string{Root}
	}
	return *c, nil
}

// parseSource reads a CONTAINER:PATTERN argument.
func parseSource(s string) (Entry, error) {
	e, err := ParseEntry(s)
	if err == nil && e.Container == "" {
		err = fmt.Errorf("%q names no container; write CONTAINER:%s", s, e.Pattern)
	}
	return e, err
}

// parsePlace reads a CONTAINER:/path that is not a pattern.
func parsePlace(s string) (Place, error) {
	name, p, ok := strings.Cut(s, ":")
	if !ok || !isLabel(name) || !strings.HasPrefix(p, "/") || path.Clean(p) != p {
		return Place{}, fmt.Errorf("%q is not CONTAINER:/absolute/path", s)
	}
	return Place{Container: name, Path: p}, nil
}
