{{/* What the operator does with apps, in whatever namespaces; and no more: no wildcards, no exec, no Secret. */}}
{{- define "graceful.rules" -}}
# The apps, and the finalizer on them.
- apiGroups: [graceful.dev]
  resources: [gracefulapps]
  verbs: [get, list, watch, patch]
- apiGroups: [graceful.dev]
  resources: [gracefulapps/status]
  verbs: [patch]
# A Deployment per revision.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
# Scaled by this subresource alone: an admission that changes what it sees of a Deployment cannot touch the template there.
- apiGroups: [apps]
  resources: [deployments/scale]
  verbs: [get, patch]
# Pods are routed, drained and deleted. Created by dry runs alone: whether admission leaves them the labels that their ReplicaSet knows them by. (It is no
# more than creating Deployments allows; without it that question is not asked.)
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, patch, delete]
# The managed Service; the user's own are read, to find those that route to draining pods, and their selectors changed where spec.adopt wants it.
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
# Read before a pod is told to close: its Services must have let go of it. Written while one lingers behind a Service with externalTrafficPolicy Local.
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, create, patch, delete]
# Of apps with a gate: whether somebody is let in to it.
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [list]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# Before a Deployment is adopted: whether somebody else scales it.
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [list]
# Whether a namespace terminates.
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{- define "graceful.subjects" -}}
- kind: ServiceAccount
  name: {{ include "graceful.serviceAccount" . }}
  namespace: {{ .Release.Namespace }}
{{- end -}}
