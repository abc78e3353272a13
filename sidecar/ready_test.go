package main

import (
	"io"
	"sync"
	"testing"
)

// TestReadyAsksMeanwhile: those who ask whether tail is ready do not keep it from saying so.
func TestReadyAsksMeanwhile(t *testing.T) {
	state := t.TempDir()
	var asking sync.WaitGroup
	end := make(chan struct{})
	for range 4 {
		asking.Go(func() {
			for {
				select {
				case <-end:
					return
				default:
					_, _ = announced(state)
				}
			}
		})
	}
	for range 500 {
		lock, err := announce(state)
		if err != nil {
			t.Error(err)
			break
		}
		if err := ready([]string{"--state", state}, io.Discard); err != nil {
			t.Error(err)
		}
		lock.Close()
	}
	close(end)
	asking.Wait()
}
