package inject

import (
	"path"
	"slices"
	"strings"
	"unicode"

	"github.com/log-bridge/log-bridge/sidecar/contract"
	"github.com/log-bridge/log-bridge/webhook/internal/finding"
)

// checkRestart warns where a directory that is shared as a whole may hold more than logs. Without
// us, a container that starts again begins with the directory of its image; with us, it finds
// what it left, and a pid file or the file of a socket may keep it from starting. Nothing tells
// the sidecar early enough that a container starts again (docs/sharing.md says what was tried).
func checkRestart(p *pod, set settings, s source, dir string) (found finding.List) {
	if holdsLogs(dir) || !p.startsAgain(s.Container) {
		return found
	}
	remedy := finding.Say("write the logs to a directory of their own, such as %s/logs", dir)
	glob := func(e contract.Entry) bool {
		return e.Container == s.Name && e.IsGlob() && contract.Covers(dir, e.Dir())
	}
	globs := slices.ContainsFunc(set.files, glob) || slices.ContainsFunc(set.stderrFiles, glob)
	if set.mount == contract.MountDirectory && !globs && !contract.Sticky(dir) {
		remedy = finding.Say("remove %s, so that only the log is shared", annotation(contract.KeyMount))
	}
	found.Add(finding.DirectoryOutlivesRestart, "%s of container %s is shared as a whole, so all files in it survive a container restart, including PID files, locks and sockets; keep those elsewhere, such as in /run, or %s", dir, s.Name, remedy)
	return found
}

// holdsLogs says whether a directory is for logs by its name, or lies in one: a word of it is
// log or the like. It is more lenient than inLogDirectory, which decides how auto shares.
func holdsLogs(dir string) bool {
	words := strings.FieldsFunc(strings.ToLower(dir), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	return slices.ContainsFunc(words, func(word string) bool {
		return slices.Contains([]string{"log", "logs", "logfile", "logfiles", "logging"}, word)
	})
}

// namesLogs says whether a glob matches nothing but logs, going by the last part of it.
func namesLogs(pattern string) bool {
	switch base := path.Base(pattern); path.Ext(base) {
	case ".out", ".err":
		return true
	default:
		return holdsLogs(base)
	}
}
