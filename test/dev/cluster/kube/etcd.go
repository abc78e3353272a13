package main

import (
	"fmt"
	"net/url"
	"time"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/embed"
)

// newEtcdCommand is an etcd of one member that never waits for the disk: a test cluster is made
// again rather than recovered.
func newEtcdCommand() *cobra.Command {
	var dir, client, peer string
	command := &cobra.Command{
		Use:          "etcd",
		Short:        "An etcd of one member, without fsync",
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(command *cobra.Command, _ []string) error {
			config := embed.NewConfig()
			config.Dir = dir
			config.UnsafeNoFsync = true
			config.LogLevel = "warn"
			clientURL, err := url.Parse(client)
			if err != nil {
				return fmt.Errorf("--listen-client-url: %w", err)
			}
			peerURL, err := url.Parse(peer)
			if err != nil {
				return fmt.Errorf("--listen-peer-url: %w", err)
			}
			config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{*clientURL}, []url.URL{*clientURL}
			config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{*peerURL}, []url.URL{*peerURL}
			config.InitialCluster = config.InitialClusterFromName(config.Name)
			etcd, err := embed.StartEtcd(config)
			if err != nil {
				return fmt.Errorf("start etcd: %w", err)
			}
			defer etcd.Close()
			select {
			case <-etcd.Server.ReadyNotify():
			case <-time.After(time.Minute):
				return fmt.Errorf("etcd is not ready after a minute")
			}
			return <-etcd.Err()
		},
	}
	command.Flags().StringVar(&dir, "data-dir", "etcd", "folder of the database")
	command.Flags().StringVar(&client, "listen-client-url", "http://127.0.0.1:2379", "where clients connect")
	command.Flags().StringVar(&peer, "listen-peer-url", "http://127.0.0.1:2380", "where other members would connect")
	return command
}
