package manifest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	yaml3 "go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/api/resource"
)

// readable refuses a document that two programs could read in two ways, or a part of which
// would be passed over. The errors are sentences with lines of the whole stream.
func (d *document) readable() error {
	if !utf8.Valid(d.text) {
		line := d.line
		for text := range bytes.Lines(d.text) {
			if line++; !utf8.Valid(text) {
				break
			}
		}
		return fmt.Errorf("line %d is not UTF-8; save the file as UTF-8", line)
	}
	var tree, next yaml3.Node
	decoder := yaml3.NewDecoder(bytes.NewReader(d.text))
	switch err := decoder.Decode(&tree); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return d.notYAML(err)
	}
	if err := decoder.Decode(&next); !errors.Is(err, io.EOF) {
		line := d.line + 1
		if m := yamlError.FindStringSubmatch(fmt.Sprint(err)); len(m) > 0 && m[1] != "" {
			n, _ := strconv.Atoi(m[1]) // this one is counted from 0, and 0 left out
			line += n
		}
		return fmt.Errorf("line %d: unexpected content after the end of the document; remove it, or precede it with ---", line)
	}
	return d.twice(&tree)
}

// twice refuses a key that is there twice in a mapping: one of the two would be ignored.
func (d *document) twice(n *yaml3.Node) error {
	if n.Kind == yaml3.MappingNode {
		first := map[string]int{}
		for i := 0; i < len(n.Content); i += 2 {
			key := n.Content[i]
			if line, ok := first[key.Value]; ok && key.Kind == yaml3.ScalarNode && key.Tag != "!!merge" {
				return fmt.Errorf("line %d: duplicate key %s (first on line %d); remove one", d.line+key.Line, key.Value, d.line+line)
			}
			first[key.Value] = key.Line
		}
	}
	for _, c := range n.Content {
		if err := d.twice(c); err != nil {
			return err
		}
	}
	return nil
}

// yamlError is how the YAML libraries begin a message.
var yamlError = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// lineOf is about the line of the stream that a message of a YAML library means, and the rest of
// the message. A message without a line is about the first one.
func (d *document) lineOf(err error) (line int, rest string) {
	line = 1
	m := yamlError.FindStringSubmatch(err.Error())
	if len(m) == 0 {
		return d.line + line, err.Error()
	}
	if m[1] != "" {
		line, _ = strconv.Atoi(m[1])
	}
	return d.line + line, err.Error()[len(m[0]):]
}

// notYAML makes a sentence of an error of a YAML library, with what is usual at fault.
func (d *document) notYAML(err error) error {
	line, rest := d.lineOf(err)
	if strings.Contains(rest, "cannot start any token") {
		at := d.line
		for text := range bytes.Lines(d.text) {
			at++
			if rest := bytes.TrimLeft(text, " "); len(rest) > 0 && rest[0] == '\t' {
				return fmt.Errorf("line %d begins with a tab; indent YAML with spaces", at)
			}
		}
	}
	if bytes.Contains(d.text, []byte("{{")) {
		rest += "; it looks like a template; render it first, for example with helm template"
	}
	return fmt.Errorf("this is not YAML (near line %d): %s", line, rest)
}

// wrongType makes a sentence of what encoding/json says of a value that has another type
// than Kubernetes wants there.
func wrongType(err error, pod any, where []string) error {
	at := strings.Join(where, ".")
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return cmp.Or(wrongQuantity(at, pod), err)
	}
	if wrong.Field != "" {
		at = strings.TrimPrefix(at+"."+wrong.Field, ".")
	}
	is := map[string]string{"object": "a mapping", "array": "a list", "bool": "true or false", "string": "a string", "number": "a number"}[strings.Fields(wrong.Value)[0]]
	remedy, wanted := "", "a number"
	switch wrong.Type.Kind() {
	case reflect.String:
		wanted = "a string"
		if is == "a number" || is == "true or false" {
			remedy = "; put it in quotes"
		}
	case reflect.Bool:
		wanted = "true or false"
	case reflect.Slice:
		wanted = "a list"
	case reflect.Struct, reflect.Map:
		wanted = "a mapping"
	}
	return fmt.Errorf("%s is %s, but must be %s%s", at, is, wanted, remedy)
}

// wrongQuantity finds the first quantity that is none. What the decoder says of it names
// neither the place nor the value.
func wrongQuantity(at string, v any) error {
	switch v := v.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			below := strings.TrimPrefix(at+"."+key, ".")
			amounts, _ := v[key].(map[string]any)
			if key == "limits" || key == "requests" {
				for _, name := range slices.Sorted(maps.Keys(amounts)) {
					if _, err := resource.ParseQuantity(fmt.Sprint(amounts[name])); err != nil {
						return fmt.Errorf("%s.%s: %q is not a quantity; write one such as 100m or 64Mi", below, name, fmt.Sprint(amounts[name]))
					}
				}
			}
			if err := wrongQuantity(below, v[key]); err != nil {
				return err
			}
		}
	case []any:
		for _, item := range v {
			if err := wrongQuantity(at, item); err != nil {
				return err
			}
		}
	}
	return nil
}
