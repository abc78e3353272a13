package contract

import (
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// hostile are names that try to pass for more than a name.
var hostile = []string{
	"x\nlog-bridge: the checkpoint is writable again", "\x1b[2J\x1b[31m", "\r\x08\x7f\x00\t",
	"\u0085\u009b31m", "\u2028\u2029", "\u202egol.\u2066x\u2069", "app\u200b.log\ufeff", "\u00ad\u034f\u061c\u3164\uffa0\u115f",
	"\U000e0041\U0001d173", "\xff\xfe\xc3", "\xc2", "\xed\xa0\x80", "\"", `\`, `a\nb`, " ", "\ufffd",
}

func TestOrdinaryNamesAreAsTheyAre(t *testing.T) {
	for _, name := range []string{"/app/app.log", "/app/my app.log", "/журнал/日誌.log", "/app/naïve-ñ-ß-π.log", `/a\b"c'd.log`, "/app/❤️.log", "/app/سجل.log", "/a\u00a0b", "/\ue0b0", ""} {
		if have := Line(name); have != name {
			t.Errorf("Line(%q) is %q", name, have)
		}
	}
	for name, want := range map[string]string{
		"/日誌/a.log":             "/日誌/a.log",
		`/a\b"c`:                `/a\b"c`,
		"/my app/a.log":         `"/my app/a.log"`,
		"/my \"app\"\\/a.log":   `"/my \"app\"\\/a.log"`,
		"/x\nlog-bridge: y\xff": `"/x\nlog-bridge: y\xff"`,
		"/\x1b[2J\u202e\u009b":  `"/\x1b[2J\u202e\u009b"`,
	} {
		if have := Word(name); have != want {
			t.Errorf("Word(%q): have %s, want %s", name, have, want)
		}
	}
}

// Unicode's own lists of what reorders or hides text are covered.
func TestDeceives(t *testing.T) {
	for r := rune(0); r <= unicode.MaxRune; r++ {
		hides := unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp, unicode.Bidi_Control, unicode.Other_Default_Ignorable_Code_Point)
		if hides && !Deceives(r) {
			t.Errorf("%U does not deceive", r)
		}
		if Deceives(r) && unicode.In(r, unicode.Letter, unicode.Number, unicode.Punct, unicode.Symbol, unicode.Zs) && !unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r) {
			t.Errorf("%U, which is shown, deceives", r)
		}
	}
}

func FuzzText(f *testing.F) {
	for _, s := range hostile {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		line, word := Line(text), Word(text)
		for _, s := range []string{line, word} {
			if !utf8.ValidString(s) || strings.ContainsFunc(s, Deceives) {
				t.Errorf("of %q comes %q", text, s)
			}
		}
		if Line(line) != line {
			t.Errorf("Line of a line: %q becomes %q", line, Line(line))
		}
		if text != "" && text[0] != '"' {
			have := word
			if word[0] == '"' {
				var err error
				if have, err = strconv.Unquote(word); err != nil {
					t.Fatalf("%s cannot be read back: %v", word, err)
				}
			} else if strings.Contains(word, " ") {
				t.Errorf("%q is more than one word", word)
			}
			if have != text {
				t.Errorf("have %q, want %q", have, text)
			}
		}
	})
}
