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

{{/* Whether a rule names files: (dict "rule" RULE). Otherwise it has defaults for annotated pods. */}}
{{- define "log-bridge.ruleFiles" -}}
{{- if or (hasKey .rule.annotations "files") (hasKey .rule.annotations "stderr-files") -}}true{{- end -}}
{{- end -}}

{{/* Whether there is a policy that reports pods of rules: there must be such a rule. */}}
{{- define "log-bridge.rulesPolicy" -}}
{{- if and (include "log-bridge.policies" .) .Values.admissionPolicies.missingSidecar -}}
{{- range .Values.rules -}}{{- include "log-bridge.ruleFiles" (dict "rule" .) -}}{{- end -}}
{{- end -}}
{{- end -}}

{{/* What a rule selects, without the excluded namespaces: (dict "rule" RULE "root" $). */}}
{{- define "log-bridge.ruleSelectors" -}}
{{- $namespaces := .rule.namespaceSelector | default dict -}}
{{ include "log-bridge.namespaceSelector" .root }}
    {{- with $namespaces.matchExpressions }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $namespaces.matchLabels }}
  matchLabels:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- with .rule.podSelector }}
objectSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The pods that the webhook leaves alone although a rule selects them, as a CEL expression. */}}
{{- define "log-bridge.notDeclined" -}}
!has(object.metadata.annotations) || !('kubernetes.io/config.mirror' in object.metadata.annotations)
&& !('log-bridge.dev/inject' in object.metadata.annotations && object.metadata.annotations['log-bridge.dev/inject'].trim() == 'false')
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
