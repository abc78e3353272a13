module github.com/log-bridge/log-bridge/test/dev/bench

go 1.26.0

require (
	github.com/nxadm/tail v1.4.11
	golang.org/x/sys v0.49.0
)

require (
	github.com/fsnotify/fsnotify v1.6.0 // indirect
	gopkg.in/tomb.v1 v1.0.0-20141024135613-dd632973f1e7 // indirect
)
