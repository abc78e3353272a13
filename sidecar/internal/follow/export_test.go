package follow

import "time"

// StampAge is stampAge in tests, which do much in a moment: more than a tick of the kernel's clock.
const StampAge = 20 * time.Millisecond

func init() { stampAge = StampAge }

// Ident is ident, for a test that gives an old checkpoint the files of today.
var Ident = ident
