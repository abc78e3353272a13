package libraries

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"gopkg.in/natefinch/lumberjack.v2"
)

// rotator is lumberjack as most programs have it; its least size is 1 MB.
func rotator(file string) *lumberjack.Logger {
	return &lumberjack.Logger{Filename: file, MaxSize: 1}
}

// feed writes the lines to stdout, for programs that log what they read.
func feed(_ string, count int) error {
	for i := range count {
		if _, err := fmt.Println(line(i + 1)); err != nil {
			return err
		}
		time.Sleep(time.Millisecond) // some of these programs rotate each second
	}
	return nil
}

// goWriters are the libraries of Go. The test binary runs itself as one of them.
var goWriters = map[string]func(file string, count int) error{
	"feed": feed,
	"lumberjack": func(file string, count int) error {
		out := rotator(file)
		defer out.Close()
		for i := range count {
			if _, err := out.Write([]byte(line(i+1) + "\n")); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}
		return nil
	},
	"zap": func(file string, count int) error {
		encoder := zapcore.NewConsoleEncoder(zapcore.EncoderConfig{MessageKey: "message"})
		log := zap.New(zapcore.NewCore(encoder, zapcore.AddSync(rotator(file)), zap.InfoLevel))
		for i := range count {
			log.Info(line(i + 1))
		}
		return log.Sync()
	},
}

// line is a line of about 1,000 bytes that has nothing in common with the others: a file that is truncated and grows again is
// noticed by the bytes before the offset.
func line(i int) string {
	return fmt.Sprintf("line %d %.990s", i, strings.Repeat(strconv.Itoa(i), 990))
}

// beWriter is what the test binary does as a writer: LIBRARY FILE COUNT.
func beWriter(args []string) error {
	count, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	return goWriters[args[0]](args[1], count)
}
