{{- define "demo-backend.name" -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "demo-backend.labels" -}}
app.kubernetes.io/name: {{ include "demo-backend.name" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{/* PORT:APP_PORT/PROTOCOL */}}
{{- define "demo-backend.meshPorts" -}}
{{ .Values.service.port }}:{{ .Values.port }}{{ with .Values.mesh.protocol }}/{{ . }}{{ end }}
{{- end -}}
