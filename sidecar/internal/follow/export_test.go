package follow

import (
	"time"

	"github.com/log-bridge/log-bridge/sidecar/internal/scan"
)

// StampAge is scan.StampAge in tests, which do much in a moment: more than a tick of the kernel's clock.
const StampAge = 20 * time.Millisecond

func init() { scan.StampAge = StampAge }

// Ident is ident, for a test that gives an old checkpoint the files of today.
var Ident = ident
