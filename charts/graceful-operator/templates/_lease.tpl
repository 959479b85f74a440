{{- /*
Whether every operator of this release that runs leads by the lease: "true", or nothing where one does not or nobody can tell. Asked of the cluster: the
Deployment has the mark of the lease, and so has each of the release's pods, those that are ending included. `helm template` and a first install see
neither, and say nothing.
*/ -}}
{{- define "graceful.allHaveLease" -}}
{{- $mark := "graceful.dev/operator-lease" -}}
{{- $deployment := lookup "apps/v1" "Deployment" .Release.Namespace (include "graceful.name" .) | default dict -}}
{{- $all := hasKey (dig "spec" "template" "metadata" "annotations" dict $deployment) $mark -}}
{{- range (lookup "v1" "Pod" .Release.Namespace "").items -}}
  {{- $labels := dig "metadata" "labels" dict . -}}
  {{- $ours := and (eq (dig "app.kubernetes.io/name" "" $labels) $.Chart.Name) (eq (dig "app.kubernetes.io/instance" "" $labels) $.Release.Name) -}}
  {{- if and $ours (not (hasKey (dig "metadata" "annotations" dict .) $mark)) -}}
    {{- $all = false -}}
  {{- end -}}
{{- end -}}
{{- if $all -}}true{{- end -}}
{{- end -}}
