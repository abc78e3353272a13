package follow

import "testing"

// TestIsGeneration: which names a rotation may have given.
func TestIsGeneration(t *testing.T) {
	for name, want := range map[string]bool{
		"app.log":                     false, // it is the log itself
		"app.log.1":                   true,
		"app.log-20260102":            true,
		"app.log_20260102":            true,
		"app.log00001":                true,
		"app.log.old":                 true,
		"app.logs":                    false,
		"app-1.log":                   false,
		"app.log.1.gz":                false,
		"app.log.pid":                 false,
		"app.log.2026-01-02.1":        true,
		"app.log.1.7z.0000":           true, // told by its first bytes, if at all
		"other.log.1":                 false,
		"app.log.20260102T030405.678": true,
	} {
		if have := isGeneration("app.log", name); have != want {
			t.Errorf("%s: have %v, want %v", name, have, want)
		}
	}
}

// TestMadeOf: which name another is made of.
func TestMadeOf(t *testing.T) {
	for name, want := range map[string]string{
		"app.log.1.sha256": "app.log.1", "app.log.1": "", "app.log.2026-01-02.1": "", "app.log.csv": "app.log", "app": "", ".hidden": "", "app.": "",
	} {
		if have := madeOf(name); have != want {
			t.Errorf("%s: have %q, want %q", name, have, want)
		}
	}
}

// TestFits: what was born under a name since it was last seen fills its gap, and nothing else.
func TestFits(t *testing.T) {
	for _, test := range []struct {
		story string
		gap   gap
		birth int64
		want  bool
	}{
		{"born since", gap{since: 100}, 101, true},
		{"in the same tick, when the clock had not moved on at the look", gap{since: 100}, 100, true},
		{"in the same tick, and it was there at the look", gap{since: 100, after: true}, 100, false},
		{"born before: another log beside it", gap{since: 100}, 99, false},
		{"born before the one that has the name", gap{since: 100, until: 200}, 200, true},
		{"born after the one that has the name", gap{since: 100, until: 200}, 201, false},
		{"no birth is known", gap{since: 100}, 0, false},
		{"no birth is known of any file", gap{}, 0, false},
	} {
		if have := test.gap.fits(test.birth); have != test.want {
			t.Errorf("%s: have %v, want %v", test.story, have, test.want)
		}
	}
}

// TestOriginals: each name that looksLikeCopyOf accepts as that of an original is among the few that originals gives.
func TestOriginals(t *testing.T) {
	names := []string{"app.log", "app.log.1", "app.log-20260102", "app.log_1", "app-2.log", "app", "app1", "app.1", "app.2.log", "a", "a.b", "messages", "messages1",
		"messages-1.txt", ".log", ".log.1", "x.tar.gz", "x-1.tar.gz", "log.", "log.1."}
	for _, name := range names {
		given := map[string]bool{}
		originals("/logs/"+name, func(o string) { given[o] = true })
		for _, o := range names {
			if like := looksLikeCopyOf(name, o); like != unlike && !given[o] {
				t.Errorf("%s may be a copy of %s, which is not given", name, o)
			}
		}
		if len(given) > 2*len(name) {
			t.Errorf("%s: %d names", name, len(given))
		}
	}
}

// TestUnnumbered: to which log the generations that a glob matches belong.
func TestUnnumbered(t *testing.T) {
	for name, want := range map[string]string{
		"/logs/app.log": "/logs/app.log", "/logs/app.log.1": "/logs/app.log", "/logs/app.log-20260102": "/logs/app.log",
		"/logs/app.log.2026-01-02.1": "/logs/app.log", "/logs/app_1": "/logs/app", "/logs/1": "/logs/1", "/1.2/3": "/1.2/3",
	} {
		if have := unnumbered(name); have != want {
			t.Errorf("%s: have %s, want %s", name, have, want)
		}
	}
}
