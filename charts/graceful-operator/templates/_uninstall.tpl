{{- define "graceful.uninstall" -}}
Uninstalling the operator ends no pod. It leaves:
- the GracefulApps, their Deployments, Services and pods, which serve on;
{{- if .Values.tokens.enabled }}
- the Secret {{ include "graceful.tokenSecret" . }}, whose keys an operator that comes back needs to drain the pods that know them;
{{- end }}
- a PodDisruptionBudget an app, which makes `kubectl drain` wait for an operator that is gone;
- the finalizer graceful.dev/drain, which makes the deletion of a GracefulApp (and of its namespace) wait likewise.
To release all of them, without draining anything:
  kubectl delete poddisruptionbudgets -A -l app.kubernetes.io/managed-by=graceful-operator
  kubectl get gracefulapps -A --no-headers -o custom-columns=NS:.metadata.namespace,NAME:.metadata.name |
    while read -r ns name; do kubectl patch gracefulapp -n "$ns" "$name" --type merge -p '{"metadata":{"finalizers":null}}'; done
And this note{{ if .Values.tokens.enabled }}; once none of their pods is left, the keys{{ end }}:
{{- if .Values.tokens.enabled }}
  kubectl delete secret -n {{ .Release.Namespace }} {{ include "graceful.tokenSecret" . }}
{{- end }}
  kubectl delete configmap -n {{ .Release.Namespace }} {{ include "graceful.name" . }}-uninstalled-leaves
{{- end -}}
