module github.com/log-bridge/log-bridge/test/dev/cluster

go 1.26.0
