package runtimes

const collectorImage = "log-bridge.test/collector:1"
