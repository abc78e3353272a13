module github.com/log-bridge/log-bridge

go 1.26.0
