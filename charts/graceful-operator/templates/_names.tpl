{{- /* The release's own name, with the chart's unless it says so already. */ -}}
{{- define "graceful.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "graceful.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "graceful.name" .) -}}
{{- end -}}

{{- define "graceful.tokenSecret" -}}
{{- include "graceful.name" . }}-drain-keys
{{- end -}}

{{- define "graceful.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "graceful.labels" -}}
{{ include "graceful.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}
