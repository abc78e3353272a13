package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The comment above a key of values.yaml is its description. Four phrases in it go into
// the schema too, so that they are written once: "One of: a, b." lists the values,
// "From 1 to 30." bounds a number, "Quantity." is a Kubernetes quantity or
// nothing, and "Free form." is an object or a list that the chart hands on as it
// is. Everything else has the type of its default, and keys that are not in
// values.yaml are refused.

// value is one key of values.yaml.
type value struct {
	key, doc string
	usual    any
	// keys are those of an object that is not of free form.
	keys []*value

	oneOf    []string
	from, to *int
	quantity bool
	free     bool
}

// read reads values.yaml.
func read(text []byte) (*value, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("is not a mapping")
	}
	root := &value{}
	return root, root.readKeys(doc.Content[0], "")
}

func (v *value) readKeys(mapping *yaml.Node, path string) error {
	for i := 0; i < len(mapping.Content); i += 2 {
		key, node := mapping.Content[i], mapping.Content[i+1]
		child := &value{key: key.Value}
		where := path + key.Value
		// A blank line ends a comment that is about more than the key.
		comment := key.HeadComment[strings.LastIndex(key.HeadComment, "\n\n")+1:]
		for line := range strings.Lines(comment) {
			child.doc += " " + strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "#"))
		}
		if child.doc = strings.TrimSpace(child.doc); child.doc == "" {
			return fmt.Errorf("line %d: %s has no comment above it", key.Line, where)
		}
		if err := child.readPhrases(); err != nil {
			return fmt.Errorf("line %d: %s: %w", key.Line, where, err)
		}
		if err := node.Decode(&child.usual); err != nil {
			return fmt.Errorf("%s: %w", where, err)
		}
		if child.usual == nil {
			return fmt.Errorf("line %d: %s has no default; write one, so that its type is known", key.Line, where)
		}
		if node.Kind == yaml.MappingNode && !child.free {
			if err := child.readKeys(node, where+"."); err != nil {
				return err
			}
		}
		v.keys = append(v.keys, child)
	}
	return nil
}

var (
	oneOf  = regexp.MustCompile(`One of: ([^.]+)\.`)
	fromTo = regexp.MustCompile(`From (\d+) to (\d+)\.`)
)

func (v *value) readPhrases() error {
	if m := oneOf.FindStringSubmatch(v.doc); m != nil {
		for word := range strings.SplitSeq(m[1], ",") {
			v.oneOf = append(v.oneOf, strings.Trim(strings.TrimSpace(word), `"`))
		}
	}
	if m := fromTo.FindStringSubmatch(v.doc); m != nil {
		from, err1 := strconv.Atoi(m[1])
		to, err2 := strconv.Atoi(m[2])
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		v.from, v.to = &from, &to
	}
	v.quantity = strings.Contains(v.doc, "Quantity.")
	v.free = strings.Contains(v.doc, "Free form.")
	return nil
}

// schema is the JSON schema of the value.
func (v *value) schema() map[string]any {
	s := map[string]any{}
	if v.doc != "" {
		s["description"] = v.doc
	}
	switch usual := v.usual.(type) {
	case bool:
		s["type"] = "boolean"
	case int:
		s["type"] = "integer"
	case string:
		s["type"] = "string"
	case []any:
		s["type"] = "array"
		if v.key == "rules" {
			s["items"], s["maxItems"] = ruleSchema(), 200
		}
		if len(usual) > 0 && !v.free {
			s["items"] = (&value{usual: usual[0]}).schema()
		}
	default:
		s["type"] = "object"
		if !v.free {
			properties := map[string]any{}
			for _, child := range v.keys {
				properties[child.key] = child.schema()
			}
			s["properties"] = properties
			s["additionalProperties"] = false
		}
	}
	if v.oneOf != nil {
		s["enum"] = v.oneOf
	}
	if v.from != nil {
		s["minimum"], s["maximum"] = *v.from, *v.to
	}
	if v.quantity {
		s["type"] = []string{"string", "number"}
		s["pattern"] = `^([0-9]+(\.[0-9]+)?(m|k|[KMGTPE]i?)?)?$`
	}
	return s
}

// table is the table of the chart's README.
func (v *value) table() string { return "| Value | Default | Meaning |\n|---|---|---|\n" + v.rows("") }

// jsonSchema is values.schema.json.
func (v *value) jsonSchema() ([]byte, error) {
	schema := v.schema()
	schema["$schema"] = "http://json-schema.org/draft-07/schema#"
	// Helm hands this to every chart that is a dependency of another.
	schema["properties"].(map[string]any)["global"] = map[string]any{"type": "object"}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(schema); err != nil {
		return nil, fmt.Errorf("values.schema.json: %w", err)
	}
	return out.Bytes(), nil
}

// rows are the lines of the table below the value: an object's own, if it is one
// of the chart's, then those of its keys.
func (v *value) rows(path string) string {
	var out strings.Builder
	for _, child := range v.keys {
		name := path + child.key
		if child.keys != nil {
			fmt.Fprintf(&out, "| **`%s`** | | %s |\n", name, cell(child.doc))
			out.WriteString(child.rows(name + "."))
			continue
		}
		// A default that was decoded from YAML can be encoded.
		usual, _ := json.Marshal(child.usual)
		fmt.Fprintf(&out, "| `%s` | `%s` | %s |\n", name, usual, cell(child.doc))
	}
	return out.String()
}
