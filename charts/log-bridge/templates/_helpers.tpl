{{/* The name of the objects: that of the release, with log-bridge in it. */}}
{{- define "log-bridge.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains "log-bridge" .Release.Name -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-log-bridge" .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The name of the Service and of the Secret. */}}
{{- define "log-bridge.webhook" -}}
{{- include "log-bridge.fullname" . -}}-webhook
{{- end -}}

{{/* What selects the webhook's pods. */}}
{{- define "log-bridge.selector" -}}
{{ include "log-bridge.instance" . }}
app.kubernetes.io/component: webhook
{{- end -}}

{{- define "log-bridge.instance" -}}
app.kubernetes.io/name: log-bridge
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "log-bridge.labels" -}}
{{ include "log-bridge.selector" . }}
{{ include "log-bridge.commonLabels" . }}
{{- end -}}

{{/* Labels of everything but the webhook: its Service must not select these pods. */}}
{{- define "log-bridge.testLabels" -}}
{{ include "log-bridge.instance" . }}
app.kubernetes.io/component: test
{{ include "log-bridge.commonLabels" . }}
{{- end -}}

{{- define "log-bridge.prePullSelector" -}}
{{ include "log-bridge.instance" . }}
app.kubernetes.io/component: pre-pull
{{- end -}}

{{- define "log-bridge.prePullLabels" -}}
{{ include "log-bridge.prePullSelector" . }}
{{ include "log-bridge.commonLabels" . }}
{{- end -}}

{{- define "log-bridge.commonLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* An image: (dict "image" .Values.image "chart" .Chart). */}}
{{- define "log-bridge.image" -}}
{{- if .image.digest -}}
{{- .image.repository }}@{{ .image.digest -}}
{{- else -}}
{{- .image.repository }}:{{ .image.tag | default .chart.AppVersion -}}
{{- end -}}
{{- end -}}

{{- define "log-bridge.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "log-bridge.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{/*
The Secret that is mounted, or that the webhook maintains. Each mode has its own, so that
changing the mode deletes nothing that another mode created.
*/}}
{{- define "log-bridge.secret" -}}
{{- if eq .Values.certificates.mode "provided" -}}
{{- .Values.certificates.provided.secretName -}}
{{- else if eq .Values.certificates.mode "cert-manager" -}}
{{- include "log-bridge.webhook" . -}}-tls
{{- else -}}
{{- include "log-bridge.webhook" . -}}
{{- end -}}
{{- end -}}

{{/* The namespaces that are excluded by name, as JSON. */}}
{{- define "log-bridge.excludedNamespaces" -}}
{{- $own := ternary (list .Release.Namespace) list .Values.webhook.excludeOwnNamespace -}}
{{- concat (.Values.webhook.excludedNamespaces | default list) $own | uniq | toJson -}}
{{- end -}}

{{/* Whether there is a helm test: in an excluded namespace it would always fail. */}}
{{- define "log-bridge.helmTest" -}}
{{- with .Values.helmTest.namespace -}}
{{- if not (has . (include "log-bridge.excludedNamespaces" $ | fromJsonArray)) -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{/* The namespaces in which pods are injected. */}}
{{- define "log-bridge.namespaceSelector" -}}
namespaceSelector:
  matchExpressions:
    {{- with include "log-bridge.excludedNamespaces" . | fromJsonArray }}
    - key: kubernetes.io/metadata.name
      operator: NotIn
      values: {{ toJson . }}
    {{- end }}
    - key: log-bridge.dev/inject
      operator: NotIn
      values: ["false"]
{{- end -}}

{{/* Whether the cluster supports ValidatingAdmissionPolicy v1. */}}
{{- define "log-bridge.policies" -}}
{{- if semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version -}}true{{- end -}}
{{- end -}}

{{/* Values that contradict each other. */}}
{{- define "log-bridge.check" -}}
{{- include "log-bridge.checkRules" . -}}
{{- with .Values.certificates -}}
{{- if eq .mode "provided" -}}
{{- if not .provided.secretName -}}
{{- fail "certificates.mode is provided, so certificates.provided.secretName must name the Secret with tls.crt and tls.key" -}}
{{- end -}}
{{- if and (not .provided.caBundle) (not (omit $.Values.webhook.annotations "admissions.enforcer/disabled")) -}}
{{- fail "certificates.mode is provided, so certificates.provided.caBundle must contain the CA certificate, or webhook.annotations must have something else fill it in" -}}
{{- end -}}
{{- else if or .provided.secretName .provided.caBundle -}}
{{- fail (printf "certificates.provided is set, but certificates.mode is %s; set certificates.mode to provided, or leave certificates.provided empty" .mode) -}}
{{- end -}}
{{- if and .certManager.issuerName (ne .mode "cert-manager") -}}
{{- fail (printf "certificates.certManager.issuerName is set, but certificates.mode is %s; set certificates.mode to cert-manager, or leave the issuer empty" .mode) -}}
{{- end -}}
{{- end -}}
{{- with .Values.webhook -}}
{{- if and .hostNetwork (eq (int .port) 10250) -}}
{{- fail "webhook.hostNetwork is on and webhook.port is 10250, which the kubelet uses on every node; set webhook.port to one that is free, such as 10260" -}}
{{- end -}}
{{- $ports := list (int .port) (int .healthPort) -}}
{{- if .metricsPort -}}{{- $ports = append $ports (int .metricsPort) -}}{{- end -}}
{{- if ne (len $ports) (len (uniq $ports)) -}}
{{- fail (printf "webhook.port, webhook.healthPort and webhook.metricsPort must differ; they are %s" ($ports | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.webhook.clientNames (not .Values.webhook.clientCA) -}}
{{- fail "webhook.clientNames is set without webhook.clientCA, so no client certificate would be required; set webhook.clientCA" -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.from) -}}
{{- fail "networkPolicy.enabled is true, but networkPolicy.from is empty, so no API server could call the webhook; name the API servers in networkPolicy.from" -}}
{{- end -}}
{{- if and .Values.prePull.enabled (eq .Values.image.pullPolicy "Always") -}}
{{- fail "prePull.enabled is true, but with image.pullPolicy Always each pod asks the registry anyway; set image.pullPolicy to IfNotPresent, or prePull.enabled to false" -}}
{{- end -}}
{{- if not .Values.webhook.metricsPort -}}
{{- range $part := list "serviceMonitor" "prometheusRule" "dashboard" -}}
{{- if (index $.Values.monitoring $part).enabled -}}
{{- fail (printf "monitoring.%s.enabled is true, but webhook.metricsPort is 0, so there are no metrics; set webhook.metricsPort to 8080, or monitoring.%s.enabled to false" $part $part) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.podDisruptionBudget.enabled (eq (int .Values.webhook.replicas) 1) (eq .Values.webhook.failurePolicy "Fail") -}}
{{- fail "webhook.failurePolicy is Fail with one replica: whenever it restarts, no annotated pod can be created; set webhook.replicas to 2 or more, or webhook.failurePolicy to Ignore" -}}
{{- end -}}
{{- if and (not .Values.serviceAccount.create) (not .Values.serviceAccount.name) (eq .Values.certificates.mode "self") -}}
{{- fail "serviceAccount.create is false and serviceAccount.name is empty, so the account default of the namespace would get the webhook's permissions; set serviceAccount.name" -}}
{{- end -}}
{{- end -}}
