package runtimes

import (
	"encoding/json"
	"testing"

	"github.com/log-bridge/log-bridge/test/testbed"
)

const collectorImage = "log-bridge.test/collector:1"

// A record is one that the OpenTelemetry Collector has printed.
type record struct {
	Body       string
	Attributes map[string]string // of the record and of its resource
}

// collected are the records in the output of test/tools/collector.
func collected(t *testing.T, output string) (records []record) {
	t.Helper()
	type value struct{ StringValue string }
	type attributes []struct {
		Key   string
		Value value
	}
	for _, line := range testbed.SplitLines(output) {
		var batch struct {
			ResourceLogs []struct {
				Resource  struct{ Attributes attributes }
				ScopeLogs []struct {
					LogRecords []struct {
						Body       value
						Attributes attributes
					}
				}
			}
		}
		if json.Unmarshal([]byte(line), &batch) != nil {
			continue // its own words
		}
		for _, resource := range batch.ResourceLogs {
			for _, scope := range resource.ScopeLogs {
				for _, r := range scope.LogRecords {
					all := map[string]string{}
					for _, list := range []attributes{resource.Resource.Attributes, r.Attributes} {
						for _, a := range list {
							all[a.Key] = a.Value.StringValue
						}
					}
					records = append(records, record{r.Body.StringValue, all})
				}
			}
		}
	}
	return records
}
