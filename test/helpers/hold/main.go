// Command hold is a client that does harm: it opens connections with TLS, sends the same bytes on each,
// and holds them, until its standard input ends.
//
//	hold ADDRESS CONNECTIONS TEXT SIZE
//
// sends TEXT, in which \r\n are written so, and SIZE spaces after it. It prints a line when all are open; one that the
// server has closed again counts.
package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// atOnce is how many connections are made at the same time.
const atOnce = 50

// patience is how long a connection may take for its handshake, and to take what is sent: a server need not read it.
const patience = 3 * time.Second

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "hold:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 4 {
		return fmt.Errorf("want ADDRESS CONNECTIONS TEXT SIZE, have %q", args)
	}
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	size, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	text := append([]byte(strings.ReplaceAll(args[2], `\r\n`, "\r\n")), bytes.Repeat([]byte(" "), size)...)
	conns := make([]net.Conn, n)
	var mu sync.Mutex
	var trouble error
	var all sync.WaitGroup
	turn := make(chan bool, atOnce)
	for i := range conns {
		turn <- true
		all.Go(func() {
			defer func() { <-turn }()
			plain, err := net.DialTimeout("tcp", args[0], patience)
			if err != nil {
				mu.Lock()
				trouble = err
				mu.Unlock()
				return
			}
			conns[i] = plain
			_ = plain.SetDeadline(time.Now().Add(patience))
			conn := tls.Client(plain, &tls.Config{InsecureSkipVerify: true})
			if conn.Handshake() == nil {
				_, _ = conn.Write(text)
			}
		})
	}
	all.Wait()
	if trouble != nil {
		return trouble
	}
	fmt.Println("held")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return nil
}
