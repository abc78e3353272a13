package libraries

import (
	"os"
	"path/filepath"
	"testing"
)

// logger is the command line of a program of Debian that logs what others write, or nil. feeder is a program that writes
// n lines to stdout.
func logger(t *testing.T, name, feeder, at, n string) []string {
	t.Helper()
	dir := filepath.Dir(at)
	// "$1" feeds, "$2" is the log's directory and "$3" the number of lines.
	fed := func(program, script string) []string {
		need(t, program)
		return []string{"sh", "-c", `"$0" feed - "$3" | ` + script, feeder, at, dir, n}
	}
	switch name {
	case "svlogd":
		// Beside its logs it has a configuration there: the size in bytes, and how many old files it keeps.
		if err := os.WriteFile(filepath.Join(dir, "config"), []byte("s1000000\nn100\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		return fed("/usr/bin/svlogd", `svlogd "$2"`)
	case "multilog":
		return fed("/usr/bin/multilog", `multilog s1000000 n100 "$2"`)
	case "s6-log":
		return fed("/usr/bin/s6-log", `s6-log n100 s1000000 "$2"`)
	case "rotatelogs-n":
		return fed("/usr/bin/rotatelogs", `rotatelogs -n 10 "$1" 1M`)
	case "rotatelogs-t":
		return fed("/usr/bin/rotatelogs", `rotatelogs -t "$1" 1M`)
	case "rotatelogs-L":
		return fed("/usr/bin/rotatelogs", `rotatelogs -L "$1" "$2/app.%Y%m%d%H%M%S" 1`)
	case "cronolog":
		return fed("/usr/bin/cronolog", `cronolog "$2/app-%H%M%S.log" || [ $? = 3 ]`) // its end of input
	case "supervisor", "supervisor-0":
		backups := "100"
		if name == "supervisor-0" {
			backups = "0" // it begins its only file again
		}
		need(t, "/usr/bin/supervisord")
		// The last line of the program ends supervisord, its parent.
		state := t.TempDir()
		config := filepath.Join(state, "supervisord.conf")
		text := "[supervisord]\nnodaemon=true\nuser=root\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile=" + state + "/pid\n" +
			"[program:app]\ncommand=sh -c '\"" + feeder + "\" feed - " + n + "; sleep 1; kill $PPID'\nautorestart=false\nstartsecs=0\n" +
			"redirect_stderr=true\nstdout_logfile=" + at + "\nstdout_logfile_maxbytes=1000000\nstdout_logfile_backups=" + backups + "\n"
		if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return []string{"supervisord", "--configuration", config}
	}
	return nil
}
