package finding

import (
	"errors"
	"fmt"
	"strings"

	"github.com/log-bridge/log-bridge/sidecar/contract"
)

// maxListed is how many names a sentence lists at most.
const maxListed = 8

// Words are a part of a sentence that quotes no foreign text, or in which it is cut already.
type Words string

// Say writes a sentence, or a part of one. Of each string among the arguments it quotes the
// beginning, at most contract.MaxQuote bytes; Words, errors and other findings it leaves whole.
func Say(format string, args ...any) Words {
	for i, arg := range args {
		switch v := arg.(type) {
		case Words, Finding, error:
		case string:
			args[i] = contract.Brief(v)
		case fmt.Stringer:
			args[i] = contract.Brief(v.String())
		}
	}
	return Words(fmt.Sprintf(format, args...))
}

// Sentence is Say, as an error.
func Sentence(format string, args ...any) error { return errors.New(string(Say(format, args...))) }

// Names writes the first of some names, and how many more there are.
func Names(names []string) Words {
	var b strings.Builder
	for i, name := range names {
		if i == maxListed {
			b.WriteString(fmt.Sprintf(" and %d more", len(names)-i))
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(contract.Brief(name))
	}
	return Words(b.String())
}
