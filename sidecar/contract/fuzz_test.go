package contract

import (
	"errors"
	"flag"
	"io"
	"reflect"
	"strings"
	"testing"
)

// FuzzArguments: what ParseTail reads, Args writes such that it reads back the same. The
// fuzzer's text is arguments, one a line.
func FuzzArguments(f *testing.F) {
	f.Add("app:/app/app.log")
	f.Add("--root=/a\n--root=/b\n--state=/s\n--format=json\n--reclaim\n--grace=25s\n--stderr=app:/e.log\nweb:/var/log/**/*.log")
	f.Add("--view=app:/data=/volumes/data\n--from-end=/volumes/data\n--file=app:/app/app.log\n--dir=app:/var/log\n--seeded=app:/srv/log\napp:/x")
	f.Add("--grace=-1s\napp:/x")
	f.Add("--view=app:/a=b=/c\n--\napp:/x")
	f.Add("--root=\n--state=\napp:/x")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseTail(strings.Split(text, "\n"), io.Discard)
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		if err != nil {
			if len(err.Error()) < 10 {
				t.Errorf("%q: %q is no sentence", text, err)
			}
			return
		}
		args := c.Args()
		again, err := ParseTail(args, io.Discard)
		if err != nil || !reflect.DeepEqual(again, c) {
			t.Errorf("%q\nargs %q\nhave %+v, %v\nwant %+v", text, args, again, err, c)
		}
	})
}
