{{- /* What the policies of admission.yaml share. docs/adr/0010-children-are-guarded-without-names.md has the reasons. */ -}}

{{- /* Who may: the operator's account and those of the value, as a list in CEL, which reads strings as JSON has them. */ -}}
{{- define "graceful.guard.operators" -}}
{{- $self := printf "system:serviceaccount:%s:%s" .Release.Namespace (include "graceful.serviceAccount" .) -}}
{{- prepend (.Values.admissionPolicy.operators | default list) $self | toJson -}}
{{- end -}}

{{- /* A condition: the request is by somebody else. */ -}}
{{- define "graceful.guard.others" -}}
- name: by-others
  expression: >-
    !(request.userInfo.username in {{ include "graceful.guard.operators" . }}) &&
    !request.userInfo.?groups.orValue([]).exists(group, group in {{ .Values.admissionPolicy.operators | default list | toJson }})
{{- end -}}

{{- /* A condition: the label was there before. Without it an object is nobody's, and may be given to an app. */ -}}
{{- define "graceful.guard.ours" -}}
- name: ours
  expression: oldObject.metadata.?labels[?'graceful.dev/app'].hasValue()
{{- end -}}

{{- /* A variable: with its namespace everything goes. */ -}}
{{- define "graceful.guard.terminating" -}}
- name: terminating
  expression: namespaceObject.?metadata.?deletionTimestamp.hasValue()
{{- end -}}

{{- /* Variables of objects that carry our label: the app, and both words that kubectl needs to find it. */ -}}
{{- define "graceful.guard.app" -}}
- name: app
  expression: oldObject.metadata.?labels[?'graceful.dev/app'].orValue('')
- name: where
  expression: oldObject.metadata.namespace + ' ' + variables.app
{{- end -}}

{{- /* The end of a refusal: what to do when there is no operator. Takes the Deployment's namespace and name in CEL. */ -}}
{{- define "graceful.guard.breakGlass" -}}
'. Where no operator runs, this takes the Deployment out of its hands: kubectl label deployment -n ' + {{ .namespace }} + ' ' +
{{ .deployment }} + ' graceful.dev/app-'
{{- end -}}

{{- define "graceful.guard.metadata" -}}
metadata:
  name: {{ include "graceful.name" .root }}-{{ .name }}
  labels: {{- include "graceful.labels" .root | nindent 4 }}
{{- end -}}

{{- define "graceful.guard.binding" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
{{ include "graceful.guard.metadata" . }}
spec:
  policyName: {{ include "graceful.name" .root }}-{{ .name }}
  validationActions: [Deny]
  {{- $selector := deepCopy .root.Values.admissionPolicy.namespaceSelector }}
  {{- with .root.Values.watchNamespaces }}
  {{- $named := dict "key" "kubernetes.io/metadata.name" "operator" "In" "values" . }}
  {{- $selector = set $selector "matchExpressions" (append ($selector.matchExpressions | default list) $named) }}
  {{- end }}
  {{- with $selector }}
  matchResources:
    namespaceSelector: {{- toYaml . | nindent 6 }}
  {{- end }}
{{- end -}}
