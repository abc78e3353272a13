package main

import "github.com/log-bridge/log-bridge/sidecar/contract"

// ruleSchema is the JSON schema of one item of the value rules. What it accepts is still
// the program's to judge.
func ruleSchema() map[string]any {
	object := func(properties map[string]any, required ...string) map[string]any {
		s := map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
		if required != nil {
			s["required"] = required
		}
		return s
	}
	text := map[string]any{"type": "string"}
	texts := map[string]any{"type": "array", "items": text}
	selector := object(map[string]any{
		"matchLabels": map[string]any{"type": "object", "additionalProperties": text},
		"matchExpressions": map[string]any{"type": "array", "items": object(map[string]any{
			"key": text, "operator": map[string]any{"enum": []string{"In", "NotIn", "Exists", "DoesNotExist"}}, "values": texts,
		}, "key", "operator")},
	})
	annotations := map[string]any{}
	for _, a := range contract.Annotations {
		switch {
		case a.Key == contract.KeyInject || a.Key == contract.KeyStatus:
		case a.Kind == contract.Entries:
			annotations[a.Key] = map[string]any{"type": "string", "pattern": `^[\s,]*(\{|/|[^/]*:\s*/)`}
		case a.Kind == contract.Enum:
			annotations[a.Key] = map[string]any{"enum": a.Values}
		case a.Kind == contract.Bool:
			annotations[a.Key] = map[string]any{"enum": []any{"true", "false", true, false}}
		default:
			annotations[a.Key] = map[string]any{"type": []string{"string", "integer"}}
		}
	}
	keys := object(annotations)
	keys["minProperties"] = 1
	return object(map[string]any{
		"name":              map[string]any{"type": "string", "maxLength": 63, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
		"namespaceSelector": selector,
		"podSelector":       selector,
		"annotations":       keys,
	}, "name", "annotations")
}
