module github.com/log-bridge/log-bridge/test/cluster

go 1.26.0
