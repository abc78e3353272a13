{{/* Rules that the schema accepts and that cannot be used. */}}
{{- define "log-bridge.checkRules" -}}
{{- $names := dict -}}
{{- range .Values.rules -}}
{{- if hasKey $names .name -}}
{{- fail (printf "rules: two rules have the name %s; give each rule a unique name" .name) -}}
{{- end -}}
{{- $_ := set $names .name true -}}
{{- $selects := false -}}
{{- range $selector := list (.namespaceSelector | default dict) (.podSelector | default dict) -}}
{{- if or $selector.matchLabels $selector.matchExpressions -}}{{- $selects = true -}}{{- end -}}
{{- end -}}
{{- if not $selects -}}
{{- fail (printf "rules: rule %s has no selector, so it would select every pod of the cluster; set its namespaceSelector or podSelector" .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The rules as the webhook reads them: the values of annotations are strings, as on a pod. */}}
{{- define "log-bridge.rules" -}}
{{- $rules := list -}}
{{- range .Values.rules -}}
{{- $annotations := dict -}}
{{- range $key, $value := .annotations -}}
{{- $_ := set $annotations $key (kindIs "float64" $value | ternary (printf "%.0f" $value) (toString $value)) -}}
{{- end -}}
{{- $rules = append $rules (set (deepCopy .) "annotations" $annotations) -}}
{{- end -}}
{{- toYaml (dict "rules" $rules) -}}
{{- end -}}
