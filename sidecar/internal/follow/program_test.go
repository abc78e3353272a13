package follow_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
)

// A program is a sequence of what applications, rotations and the end of processes do to log
// files and to the sidecar, and the setting it is played in. It is either random or written
// down: each file in testdata/program is one, in the form that String writes.
type program struct {
	setting
	steps []step
}

// setting is what a program is played in.
type setting struct {
	patterns  []string
	all       bool // the names of rotated files match too
	piped     bool
	rights    user
	naming    naming
	ownOffset bool // writers without O_APPEND
}

// step is one step of a program. What it does to what depends on the state it finds, so that
// a program remains one when steps are taken out of it.
type step struct {
	kind  kind
	log   int // of which log
	n     int // how many, or which one
	size  int // of each record, in bytes
	flags flags
}

// naming is what rotated files are called.
type naming int

const (
	byNumber     naming = iota // NAME.1, and the others move up
	byDate                     // NAME-DATE
	byUnderscore               // NAME_DATE
	byDigits                   // NAMEDATE
)

type kind int

const (
	write kind = iota
	bulk       // becomes write
	rest
	rotate
	reopen
	copyFile
	finishCopy
	truncate
	cut
	remove
	replace
	gzip
	hardlink
	chmod
	moveOut
	moveDir
	stall
	resume
	kill
	term
	start
	overflow
	fill
	free
	pass
	tickClock
	allocate
	sparse
	hugeHole
	shred
	copyUnderLoad
	copyMore
	copyAs
	rotateOut
	foreign
	swap
	slowOpen
	slowList
	kinds
)

// flags say how a step is done.
type flags uint

const (
	unfinished flags = 1 << iota // the last line has no newline yet
	keep                         // the writer keeps the file open
	idle                         // until nothing has happened for a while
	letGo                        // the writer closes its file
	create                       // a new file is made at once
	half                         // the first half
	midway                       // before the checkpoint is written
	torn                         // while it is
	seen                         // the sidecar looks in between
	keepSize                     // the size of the file does not change
)

var flagNames = []string{"unfinished", "keep", "idle", "let-go", "create", "half", "midway", "torn", "seen", "keep-size"}

// operation is what a kind of step is called, how often it comes, and what random numbers make
// of it.
type operation struct {
	name   string
	weight int
	aLog   bool // it is done to one of the logs
	draw   func(st *step, b, c uint32)
	off    string // why it is not in the mix, unless MODEL_WITH has its name
}

var operations = [kinds]operation{
	write: {"write", 40, true, func(st *step, b, c uint32) {
		st.n, st.size = 1+int(b%4), int(c>>8)%60
		if c%16 == 0 {
			st.size = int(c>>8) % 5000
		}
		st.flags = when(unfinished, c%5 == 0) | when(keep, c%7 == 0)
	}, ""},
	bulk: {"bulk", 3, true, func(st *step, b, c uint32) {
		st.kind = write
		switch b % 8 {
		case 0, 1: // one long line
			st.n, st.size = 1, 50_000+int(c%150_000)
		case 2, 3: // many short ones
			st.n, st.size = 500, int(c%100)
		case 4: // more than one turn
			st.n, st.size, st.flags = 60+int(c%30), 15_000+int(c%15_000), when(unfinished, c%5 == 0)
		default: // more than one block, and than the pipe holds
			st.n, st.size, st.flags = 20+int(c%30), 5_000+int(c%5_000), when(unfinished, c%5 == 0)
		}
	}, ""},
	rest:       {"rest", 22, false, func(st *step, b, c uint32) { st.flags = when(idle, b%4 == 0) }, ""},
	rotate:     {"rotate", 8, true, func(st *step, b, c uint32) { st.flags = when(letGo, b%3 == 0) | when(create, c%3 == 0) }, ""},
	reopen:     {"reopen", 5, true, func(st *step, b, c uint32) { st.flags = when(letGo, b%2 != 0) }, ""},
	copyFile:   {"copy", 5, true, func(st *step, b, c uint32) { st.flags = when(half, b%3 == 0) }, ""},
	finishCopy: {"finish-copy", 3, true, nothing, ""},
	truncate:   {"truncate", 5, true, nothing, ""},
	cut:        {"cut", 1, true, which, ""},
	remove:     {"remove", 2, true, func(st *step, b, c uint32) { st.flags = when(letGo, b%2 == 0) }, ""},
	replace:    {"replace", 2, true, func(st *step, b, c uint32) { st.n = int(b % 5) }, ""},
	gzip:       {"gzip", 2, true, which, ""},
	hardlink:   {"link", 2, true, func(st *step, b, c uint32) { st.n = int(b % 3) }, ""},
	chmod:      {"chmod", 2, true, nothing, ""},
	moveOut:    {"move-out", 1, true, which, ""},
	moveDir:    {"move-directory", 1, false, nothing, ""},
	stall:      {"stall", 4, false, nothing, ""},
	resume:     {"resume", 3, false, nothing, ""},
	kill:       {"kill", 5, false, func(st *step, b, c uint32) { st.flags = when(midway, b%3 == 1) | when(torn, b%3 == 1 && c%2 == 0) }, ""},
	term:       {"term", 3, false, nothing, ""},
	start:      {"start", 5, false, nothing, ""},
	overflow:   {"overflow", 1, false, nothing, ""},
	fill:       {"fill", 1, false, nothing, ""},
	free:       {"free", 3, false, nothing, ""},
	pass:       {"pass", 1, false, nothing, ""},
	tickClock:  {"tick", 3, false, nothing, ""},
	// Space that is allocated ahead of the data, or left out, reads as NULs.
	allocate: {"allocate", 3, true, func(st *step, b, c uint32) { st.size, st.flags = 1+int(b%200_000), when(keepSize, c%4 == 0) }, ""},
	sparse:   {"sparse", 1, true, func(st *step, b, c uint32) { st.size = 1 + int(b%3_000_000) }, ""},
	hugeHole: {"huge-sparse", 1, true, nothing, ""},
	shred: {"shred", 2, true, func(st *step, b, c uint32) { st.n, st.flags = int(b%840), when(seen, c%2 == 0) },
		"the follower takes a shredded file for one that was truncated, and delivers what it was overwritten with"},
	// Lines come between the copying and the truncation, and the sidecar hears of them but not of the copy.
	copyUnderLoad: {"copy-under-load", 3, true, func(st *step, b, c uint32) { st.n, st.size = 1+int(b%20), int(c%200) },
		"the follower takes a copy for a log of its own if later lines were delivered before it met the copy"},
	copyMore: {"copy-more", 3, true, nothing, ""},
	copyAs: {"copy-as", 2, true, func(st *step, b, c uint32) { st.n, st.flags = int(b%4), when(half, c%2 == 0) },
		"the follower takes a copy for a log of its own if its name does not resemble that of its original"},
	rotateOut: {"rotate-out", 2, true, func(st *step, b, c uint32) { st.flags = when(letGo, b%3 == 0) | when(create, c%3 != 0) }, ""},
	foreign: {"foreign", 3, true, func(st *step, b, c uint32) { st.n = int(b % 4) },
		"the follower takes every file that is called like a generation for one"},
	// The directory is swapped for another one, or for a link, and back.
	swap: {"swap", 2, false, func(st *step, b, c uint32) { st.n, st.flags = int(b%4), when(seen, c%3 != 0) }, ""},
	// While the sidecar opens a file, or its directory, something happens to the file.
	slowOpen: {"slow-open", 3, true, func(st *step, b, c uint32) { st.n = int(b % meanwhiles) }, ""},
	slowList: {"slow-list", 3, true, func(st *step, b, c uint32) { st.n = int(b % meanwhiles) }, ""},
}

// meanwhile is what happens while the sidecar opens something, for the n of a step.
func meanwhile(st step) step {
	return []step{
		{kind: rotate, log: st.log, flags: create},
		{kind: rotate, log: st.log},
		{kind: replace, log: st.log, n: 2},
		{kind: remove, log: st.log},
		{kind: write, log: st.log, n: 2},
	}[st.n%meanwhiles]
}

const meanwhiles = 5

// A promise is something that the oracle asks for if it is not off.
type promise int

const (
	elsewhere promise = iota
	suffixes
	emptyFirst
	anyCopy
	rewatched
	promises
)

var promised = [promises]struct {
	name string
	off  string // why it is not asked for, unless MODEL_WITH has its name
}{
	// A generation is found in another directory too, of those that the sidecar sees.
	elsewhere: {"elsewhere", ""},
	// A generation is found if anything is appended to its name: a date with an underscore, or digits alone.
	suffixes: {"suffixes", ""},
	// A log that was empty when it was last looked at is delivered from its copy.
	emptyFirst: {"empty-first", ""},
	// What is made in a directory that was away for a moment, while the follower looks, comes at once.
	rewatched: {"rewatched", ""},
	// A copy is known whatever was delivered before it was met.
	anyCopy: {"any-copy", "the follower knows a copy only if it is as long as what was delivered, or was met before"},
}

// isOn says whether MODEL_WITH, a list of names with commas or "all", turns something on that is off.
func isOn(name, off string) bool {
	with := os.Getenv("MODEL_WITH")
	return off == "" || with == "all" || slices.Contains(strings.Split(with, ","), name)
}

func (p promise) on() bool { return isOn(promised[p].name, promised[p].off) }

// often is how often a kind of step comes.
func (k kind) often() int {
	if o := operations[k]; isOn(o.name, o.off) {
		return o.weight
	}
	return 0
}

func nothing(*step, uint32, uint32)      {}
func which(st *step, b uint32, _ uint32) { st.n = int(b % 840) }

func when(f flags, yes bool) flags {
	if yes {
		return f
	}
	return 0
}

func (f flags) has(one flags) bool { return f&one != 0 }

// namings are those of random programs. byDigits is not in it: the follower takes no copy of such a name for one.
var namings = []naming{byNumber, byNumber, byNumber, byDate, byDate, byUnderscore}

// generate makes the random program of a seed.
func generate(seed uint64) program {
	r := rand.New(rand.NewPCG(seed, 1))
	p := program{setting: setting{piped: r.IntN(3) > 0, rights: user(r.IntN(4) % 3), naming: namings[r.IntN(len(namings))], ownOffset: r.IntN(5) == 0}}
	switch r.IntN(4) {
	case 0:
		p.patterns = []string{"app:/logs/a.log", "app:/logs/b.log"}
	case 1:
		p.patterns = []string{"app:/logs/*.log"}
	case 2:
		p.patterns = []string{"app:/logs/*.log*"}
	case 3:
		p.patterns = []string{"app:/**/*.log", "app:/logs/a.log"}
	}
	p.all = matchesAll(p.patterns)
	sum := 0
	for k := range kinds {
		sum += k.often()
	}
	p.steps = make([]step, 10+r.IntN(70))
	for i := range p.steps {
		n, k := r.IntN(sum), kind(0)
		for ; n >= k.often(); k++ {
			n -= k.often()
		}
		st := step{kind: k, log: int(r.Uint32() % 2)}
		if !operations[k].aLog {
			st.log = 0
		}
		operations[k].draw(&st, r.Uint32(), r.Uint32())
		p.steps[i] = st
	}
	return p
}

func matchesAll(patterns []string) bool { return slices.Contains(patterns, "app:/logs/*.log*") }

// The words of a setting, in the order of the values they name.
var (
	outputNames = []string{"file", "pipe"}
	userNames   = []string{"self", "nobody", "stranger"}
	rotateNames = []string{"numbered", "dated", "underscore", "digits"}
	writerNames = []string{"append", "own-offset"}
)

func number(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// String is a program's text: the setting, one word a line with its value, and then a line for each step:
//
//	follow app:/logs/*.log
//	output pipe
//	user self
//	rotated numbered
//	writers append
//	write a n=2 size=17 unfinished
//	rest idle
func (p program) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "follow %s\noutput %s\nuser %s\nrotated %s\nwriters %s\n", strings.Join(p.patterns, " "), outputNames[number(p.piped)],
		userNames[p.rights], rotateNames[p.naming], writerNames[number(p.ownOffset)])
	for _, st := range p.steps {
		fmt.Fprintln(&b, st)
	}
	return b.String()
}

func (st step) String() string {
	words := []string{operations[st.kind].name}
	if operations[st.kind].aLog {
		words = append(words, string(rune('a'+st.log)))
	}
	if st.n != 0 {
		words = append(words, fmt.Sprintf("n=%d", st.n))
	}
	if st.size != 0 {
		words = append(words, fmt.Sprintf("size=%d", st.size))
	}
	for i, name := range flagNames {
		if st.flags.has(1 << i) {
			words = append(words, name)
		}
	}
	return strings.Join(words, " ")
}

// parse reads what String writes, and comments: lines that begin with #.
func parse(text string) (p program, err error) {
	at := 0
	for line := range strings.Lines(text) {
		at++
		words := strings.Fields(line)
		if len(words) == 0 || words[0][0] == '#' {
			continue
		}
		fail := func(word string) error {
			return fmt.Errorf("line %d: %q is not known in %q", at, word, strings.TrimSpace(line))
		}
		pick := func(names []string) int {
			if len(words) != 2 || !slices.Contains(names, words[1]) {
				err = fmt.Errorf("line %d: write %s and one of %s", at, words[0], strings.Join(names, ", "))
				return 0
			}
			return slices.Index(names, words[1])
		}
		switch words[0] {
		case "follow":
			p.patterns = words[1:]
			p.all = matchesAll(p.patterns)
		case "output":
			p.piped = pick(outputNames) == 1
		case "user":
			p.rights = user(pick(userNames))
		case "rotated":
			p.naming = naming(pick(rotateNames))
		case "writers":
			p.ownOffset = pick(writerNames) == 1
		default:
			k := slices.IndexFunc(operations[:], func(o operation) bool { return o.name == words[0] })
			if k < 0 || kind(k) == bulk {
				return p, fail(words[0])
			}
			st := step{kind: kind(k)}
			words = words[1:]
			if operations[k].aLog {
				if len(words) == 0 || words[0] != "a" && words[0] != "b" {
					return p, fmt.Errorf("line %d: write a or b after %s", at, operations[k].name)
				}
				st.log, words = int(words[0][0]-'a'), words[1:]
			}
			for _, word := range words {
				name, value, _ := strings.Cut(word, "=")
				switch i := slices.Index(flagNames, word); {
				case i >= 0:
					st.flags |= 1 << i
				case name == "n":
					st.n, err = strconv.Atoi(value)
				case name == "size":
					st.size, err = strconv.Atoi(value)
				default:
					return p, fail(word)
				}
			}
			p.steps = append(p.steps, st)
		}
		if err != nil {
			return p, err
		}
	}
	if len(p.patterns) == 0 {
		return p, fmt.Errorf("nothing is followed; write follow app:/logs/*.log")
	}
	return p, nil
}
