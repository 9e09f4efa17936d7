{{/* What the names of all objects begin with: the release's name. */}}
{{- define "pillion.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Labels of an object's pods, by which they are found; takes (list . "registry"). */}}
{{- define "pillion.podLabels" -}}
app.kubernetes.io/name: {{ include "pillion.name" (first .) }}-{{ last . }}
app.kubernetes.io/part-of: pillion
{{- end -}}

{{/* Labels of an object; takes (list . "registry"). */}}
{{- define "pillion.labels" -}}
{{ include "pillion.podLabels" . }}
app.kubernetes.io/managed-by: {{ (first .).Release.Service }}
helm.sh/chart: {{ (first .).Chart.Name }}-{{ (first .).Chart.Version }}
{{- end -}}

{{- define "pillion.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "pillion.initImage" -}}
{{ .Values.image.initRepository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "pillion.registryUrl" -}}
{{- if .Values.registry.url -}}
{{ .Values.registry.url }}
{{- else if .Values.registry.enabled -}}
https://{{ include "pillion.name" . }}-registry.{{ .Release.Namespace }}:15010
{{- else -}}
{{ fail "registry.enabled is false: say registry.url, where the registry is" }}
{{- end -}}
{{- end -}}

{{/* Every container of the mesh: no root, no capability, nothing to write to but volumes. */}}
{{- define "pillion.securityContext" -}}
runAsUser: 1337
runAsGroup: 1337
runAsNonRoot: true
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* What every pod of the mesh has in common. */}}
{{- define "pillion.podDefaults" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{/*
The contents of all Secrets, in base64, as YAML: caCrt, token, registryCrt, registryKey, webhookCrt, webhookKey. From the Secrets that
are there, else made now, once in a rendering: what is made is kept in the values for the templates that ask later.
*/}}
{{- define "pillion.certificates" -}}
{{- if not .Values.made -}}
{{- $name := include "pillion.name" . -}}
{{- $namespace := .Release.Namespace -}}
{{- $registry := lookup "v1" "Secret" $namespace (printf "%s-registry" $name) -}}
{{- $client := lookup "v1" "Secret" $namespace (printf "%s-registry-client" $name) -}}
{{- $webhook := lookup "v1" "Secret" $namespace (printf "%s-webhook" $name) -}}
{{- if and $registry $client $webhook -}}
{{- $_ := set .Values "made" (dict
  "caCrt" (index $client.data "ca.crt") "token" $registry.data.token
  "registryCrt" (index $registry.data "tls.crt") "registryKey" (index $registry.data "tls.key")
  "webhookCrt" (index $webhook.data "tls.crt") "webhookKey" (index $webhook.data "tls.key")) -}}
{{- else -}}
{{- $days := int .Values.certificates.days -}}
{{- $ca := genCA "pillion" $days -}}
{{- $made := dict "caCrt" ($ca.Cert | b64enc) "token" (randAlphaNum 64 | b64enc) -}}
{{- range $component := list "registry" "webhook" -}}
{{- $service := printf "%s-%s" $name $component -}}
{{- $host := printf "%s.%s" $service $namespace -}}
{{- $names := list $service $host (printf "%s.svc" $host) (printf "%s.svc.cluster.local" $host) "localhost" -}}
{{- $pair := genSignedCert (printf "%s.svc" $host) nil $names $days $ca -}}
{{- $_ := set $made (printf "%sCrt" $component) ($pair.Cert | b64enc) -}}
{{- $_ := set $made (printf "%sKey" $component) ($pair.Key | b64enc) -}}
{{- end -}}
{{- $_ := set .Values "made" $made -}}
{{- end -}}
{{- end -}}
{{ .Values.made | toYaml }}
{{- end -}}
