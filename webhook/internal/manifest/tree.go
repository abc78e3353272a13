package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	yaml3 "go.yaml.in/yaml/v3"
)

// root is the document's top node, which keeps comments and order.
func (d *document) root() (*yaml3.Node, error) {
	if d.tree == nil {
		if d.json {
			tree, err := decode(d.text)
			if err != nil {
				return nil, err
			}
			d.tree = &yaml3.Node{Kind: yaml3.DocumentNode, Content: []*yaml3.Node{tree}}
		} else {
			d.tree = &yaml3.Node{}
			if err := yaml3.Unmarshal(bytes.ReplaceAll(d.text, dos, unix), d.tree); err != nil {
				return nil, err
			}
		}
		resolve(d.tree)
	}
	return d.tree.Content[0], nil
}

// The ends of lines.
var unix, dos = []byte("\n"), []byte("\r\n")

func (d *document) bytes() ([]byte, error) {
	if d.tree == nil {
		return d.text, nil
	}
	text, err := d.encode()
	if bytes.Contains(d.text, dos) {
		text = bytes.ReplaceAll(text, unix, dos)
	}
	return text, err
}

func (d *document) encode() ([]byte, error) {
	var b bytes.Buffer
	if d.json {
		encodeJSON(&b, d.tree.Content[0], indentOf(d.text), "\n")
		return b.Bytes(), nil
	}
	// The encoder writes no marker before the first document it is given.
	if i := bytes.Index(d.text, []byte("---")); i >= 0 && (i == 0 || d.text[i-1] == '\n') && len(bytes.TrimSpace(onlyContent(d.text[:i]))) == 0 {
		b.WriteString("---\n")
	}
	e := yaml3.NewEncoder(&b)
	e.SetIndent(2)
	if compact(d.tree) {
		e.CompactSeqIndent()
	}
	if err := e.Encode(d.tree); err != nil {
		return nil, err
	}
	return b.Bytes(), e.Close()
}

// onlyContent is a text without lines that are comments or directives.
func onlyContent(text []byte) []byte {
	return bytes.Join(slices.DeleteFunc(bytes.Split(text, []byte("\n")), func(line []byte) bool {
		return bytes.HasPrefix(line, []byte("#")) || bytes.HasPrefix(line, []byte("%"))
	}), []byte("\n"))
}

// compact says whether the items of a list stand under the key of the list, rather
// than two spaces to the right.
func compact(n *yaml3.Node) bool {
	for i, c := range n.Content {
		if n.Kind == yaml3.MappingNode && i%2 == 1 && c.Kind == yaml3.SequenceNode && c.Style&yaml3.FlowStyle == 0 && c.Line > 0 && len(c.Content) > 0 {
			return c.Column == n.Content[i-1].Column
		}
	}
	for _, c := range n.Content {
		if len(c.Content) > 0 && has(c) {
			return compact(c)
		}
	}
	return true
}

// has says whether there is a block list in a mapping somewhere in n.
func has(n *yaml3.Node) bool {
	for i, c := range n.Content {
		if n.Kind == yaml3.MappingNode && i%2 == 1 && c.Kind == yaml3.SequenceNode && c.Style&yaml3.FlowStyle == 0 && c.Line > 0 && len(c.Content) > 0 || has(c) {
			return true
		}
	}
	return false
}

// resolve puts a copy in the place of each alias and merge key, so that an addition to
// one container does not appear in another that shares its text.
func resolve(n *yaml3.Node) {
	for i, c := range n.Content {
		if c.Kind == yaml3.AliasNode {
			n.Content[i] = clone(c.Alias)
		}
		resolve(n.Content[i])
		n.Content[i].Anchor = ""
	}
	if n.Kind != yaml3.MappingNode {
		return
	}
	var content, merged []*yaml3.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		if key, value := n.Content[i], n.Content[i+1]; key.Tag != "!!merge" {
			content = append(content, key, value)
		} else if value.Kind == yaml3.MappingNode {
			merged = append(merged, value)
		} else {
			merged = append(merged, value.Content...)
		}
	}
	n.Content = content
	for _, m := range merged {
		for i := 0; i+1 < len(m.Content); i += 2 {
			if child(n, m.Content[i].Value) < 0 {
				n.Content = append(n.Content, m.Content[i], m.Content[i+1])
			}
		}
	}
}

func clone(n *yaml3.Node) *yaml3.Node {
	c := *n
	c.Anchor, c.Content = "", nil
	for _, child := range n.Content {
		c.Content = append(c.Content, clone(child))
	}
	return &c
}

// child is the index of a key's value in a mapping, or -1.
func child(n *yaml3.Node, key string) int {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return i + 1
		}
	}
	return -1
}

// add is the operation "add" of JSON Patch (RFC 6902).
func add(n *yaml3.Node, path []string, value *yaml3.Node) error {
	key := strings.NewReplacer("~1", "/", "~0", "~").Replace(path[0])
	switch n.Kind {
	case yaml3.MappingNode:
		i := child(n, key)
		switch {
		case len(path) > 1 && i < 0:
			return fmt.Errorf("there is no %s", key)
		case len(path) > 1:
			return add(n.Content[i], path[1:], value)
		case i >= 0:
			value.HeadComment, value.LineComment, value.FootComment = n.Content[i].HeadComment, n.Content[i].LineComment, n.Content[i].FootComment
			n.Content[i] = value
		default:
			block(n)
			n.Content = append(n.Content, &yaml3.Node{Kind: yaml3.ScalarNode, Tag: "!!str", Value: key}, value)
		}
		return nil
	case yaml3.SequenceNode:
		if key == "-" && len(path) == 1 {
			block(n)
			n.Content = append(n.Content, value)
			return nil
		}
		i, err := strconv.Atoi(key)
		if err != nil || i < 0 || i > len(n.Content) || i == len(n.Content) && len(path) > 1 {
			return fmt.Errorf("there is no item %s", key)
		}
		if len(path) > 1 {
			return add(n.Content[i], path[1:], value)
		}
		block(n)
		n.Content = slices.Insert(n.Content, i, value)
		return nil
	}
	return errors.New("nothing can be added to a scalar")
}

// block gives a node in braces or brackets lines of its own: with an addition it would
// be too long to be read. A comment after the closing brace moves before its content.
func block(n *yaml3.Node) {
	if n.Style&yaml3.FlowStyle == 0 {
		return
	}
	n.Style &^= yaml3.FlowStyle
	if n.LineComment != "" && len(n.Content) > 0 {
		n.Content[0].HeadComment, n.LineComment = n.LineComment, ""
	}
}

// ordered is the tree of a Go value's JSON form, keys in the order of its fields.
// Empty resources are left out: their type always writes them.
func ordered(value any) (*yaml3.Node, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	n, err := decode(text)
	if err == nil {
		dropEmptyResources(n)
	}
	return n, err
}

func dropEmptyResources(n *yaml3.Node) {
	if n.Kind == yaml3.MappingNode {
		if i := child(n, "resources"); i > 0 && len(n.Content[i].Content) == 0 {
			n.Content = slices.Delete(n.Content, i-1, i+1)
		}
	}
	for _, c := range n.Content {
		dropEmptyResources(c)
	}
}

// decode reads JSON into a tree.
func decode(text []byte) (*yaml3.Node, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return decodeValue(d)
}

func decodeValue(d *json.Decoder) (*yaml3.Node, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch t := token.(type) {
	case json.Delim:
		n := &yaml3.Node{Kind: yaml3.MappingNode, Tag: "!!map"}
		if t == '[' {
			n = &yaml3.Node{Kind: yaml3.SequenceNode, Tag: "!!seq"}
		}
		for d.More() {
			c, err := decodeValue(d)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, c)
		}
		if len(n.Content) == 0 {
			n.Style = yaml3.FlowStyle // {} and [] have no block form
		}
		_, err := d.Token()
		return n, err
	case json.Number:
		tag := "!!int"
		if strings.ContainsAny(t.String(), ".eE") {
			tag = "!!float"
		}
		return &yaml3.Node{Kind: yaml3.ScalarNode, Tag: tag, Value: t.String()}, nil
	case bool:
		return &yaml3.Node{Kind: yaml3.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(t)}, nil
	case string:
		// Unlike SetString, Encode puts y, no and on into quotes: to kubectl they are
		// truth values.
		n := &yaml3.Node{}
		return n, n.Encode(t)
	}
	return &yaml3.Node{Kind: yaml3.ScalarNode, Tag: "!!null", Value: "null"}, nil
}

// indentOf is the indentation that a JSON text has; empty for one line.
func indentOf(text []byte) string {
	_, rest, ok := bytes.Cut(text, []byte("\n"))
	if !ok {
		return ""
	}
	return string(rest[:len(rest)-len(bytes.TrimLeft(rest, " \t"))])
}

// encodeJSON writes a tree that decode made, in lines if there is an indentation.
func encodeJSON(b *bytes.Buffer, n *yaml3.Node, indent, line string) {
	if n.Kind == yaml3.ScalarNode {
		if n.Tag == "!!str" {
			e := json.NewEncoder(b)
			e.SetEscapeHTML(false)
			_ = e.Encode(n.Value) // a string always has a JSON form, and a buffer takes it
			b.Truncate(b.Len() - 1)
		} else {
			b.WriteString(n.Value)
		}
		return
	}
	brackets, colon := "[]", ":"
	if n.Kind == yaml3.MappingNode {
		brackets = "{}"
	}
	if indent != "" {
		colon = ": "
	}
	b.WriteByte(brackets[0])
	for i, c := range n.Content {
		switch {
		case n.Kind == yaml3.MappingNode && i%2 == 1:
			b.WriteString(colon)
		case i > 0:
			b.WriteByte(',')
			fallthrough
		default:
			if indent != "" {
				b.WriteString(line + indent)
			}
		}
		encodeJSON(b, c, indent, line+indent)
	}
	if indent != "" && len(n.Content) > 0 {
		b.WriteString(line)
	}
	b.WriteByte(brackets[1])
}
