// Command collector plays the systems that take log lines off a node: an OpenTelemetry Collector with the receivers
// that the tests need, and a receiver of GELF made of Graylog's own library. It prints a record a line, as JSON.
//
//	collector --config FILE         the OpenTelemetry Collector
//	collector gelf UDP-ADDRESS      a receiver of GELF
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/Graylog2/go-gelf/gelf"
	"github.com/open-telemetry/opentelemetry-collector-contrib/receiver/filelogreceiver"
	"github.com/open-telemetry/opentelemetry-collector-contrib/receiver/fluentforwardreceiver"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/provider/fileprovider"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
	"go.opentelemetry.io/collector/otelcol"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/service/telemetry/otelconftelemetry"
)

func main() {
	var err error
	if len(os.Args) > 1 && os.Args[1] == "gelf" {
		err = receiveGELF(os.Args[2:])
	} else {
		err = collect()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "collector:", err)
		os.Exit(1)
	}
}

func collect() error {
	return otelcol.NewCommand(otelcol.CollectorSettings{
		BuildInfo: component.BuildInfo{Command: "collector", Description: "the collector of the tests", Version: "test"},
		Factories: factories,
		ConfigProviderSettings: otelcol.ConfigProviderSettings{ResolverSettings: confmap.ResolverSettings{
			DefaultScheme:     "file",
			ProviderFactories: []confmap.ProviderFactory{fileprovider.NewFactory()},
		}},
	}).Execute()
}

func factories() (otelcol.Factories, error) {
	receivers, err := otelcol.MakeFactoryMap[receiver.Factory](filelogreceiver.NewFactory(), fluentforwardreceiver.NewFactory())
	if err != nil {
		return otelcol.Factories{}, err
	}
	exporters, err := otelcol.MakeFactoryMap[exporter.Factory](stdoutExporter())
	return otelcol.Factories{Receivers: receivers, Exporters: exporters, Telemetry: otelconftelemetry.NewFactory()}, err
}

// stdoutExporter prints what arrives, a batch a line.
func stdoutExporter() exporter.Factory {
	print := func(_ context.Context, logs plog.Logs) error {
		batch, err := new(plog.JSONMarshaler).MarshalLogs(logs)
		if err != nil {
			return err
		}
		_, err = os.Stdout.Write(append(batch, '\n'))
		return err
	}
	create := func(ctx context.Context, settings exporter.Settings, config component.Config) (exporter.Logs, error) {
		return exporterhelper.NewLogs(ctx, settings, config, print)
	}
	return exporter.NewFactory(component.MustNewType("stdout"), func() component.Config { return &struct{}{} },
		exporter.WithLogs(create, component.StabilityLevelStable))
}

func receiveGELF(args []string) error {
	if len(args) != 1 {
		return errors.New("gelf: want a UDP address")
	}
	messages, err := gelf.NewReader(args[0])
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "listening at", messages.Addr())
	for {
		message, err := messages.ReadMessage()
		if err != nil {
			return err
		}
		// Unlike package json, this has the additional fields, such as the container's name.
		var out bytes.Buffer
		if err := message.MarshalJSONBuf(&out); err != nil {
			return err
		}
		out.WriteByte('\n')
		if _, err := os.Stdout.Write(out.Bytes()); err != nil {
			return err
		}
	}
}
