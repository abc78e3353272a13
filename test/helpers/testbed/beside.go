package testbed

import (
	"bufio"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// Beside runs a program that prints a number of lines when it is ready, and ends when its standard input does: when end
// is called, or with the test. tell gets each further line.
func Beside(t testing.TB, cmd *exec.Cmd, lines int, tell func(line string)) (said []string, end func()) {
	t.Helper()
	var log strings.Builder
	cmd.Stderr = &log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out := bufio.NewScanner(stdout)
	for len(said) < lines && out.Scan() {
		said = append(said, out.Text())
	}
	var reader sync.WaitGroup
	reader.Go(func() {
		for out.Scan() {
			tell(out.Text())
		}
	})
	end = sync.OnceFunc(func() {
		stdin.Close()
		reader.Wait()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the log of %s:\n%s", cmd.Path, log.String())
		}
	})
	t.Cleanup(end)
	if len(said) < lines {
		end()
		t.Fatalf("%s did not start", cmd.Path)
	}
	return said, end
}
