module github.com/log-bridge/log-bridge/test/libraries

go 1.26.0

require (
	go.uber.org/zap v1.28.0
	gopkg.in/natefinch/lumberjack.v2 v2.2.1
)

require go.uber.org/multierr v1.10.0 // indirect
