{{- define "gwanmun.fullname" -}}
{{- if contains "gwanmun" .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-gwanmun" (.Release.Name | trunc 44 | trimSuffix "-") -}}
{{- end -}}
{{- end }}

{{- /* What tells this installation from others of a cluster: labels of what it makes, and its Lease. */ -}}
{{- define "gwanmun.instance" -}}
{{- printf "%s.%s" .Release.Namespace .Release.Name -}}
{{- end }}

{{- define "gwanmun.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "gwanmun.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name has to be set where serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- /* What selects the controllers' pods; it can never change. */ -}}
{{- define "gwanmun.selector" -}}
app.kubernetes.io/name: gwanmun
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: controller
{{- end }}

{{- define "gwanmun.labels" -}}
{{ include "gwanmun.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* repository:tag or repository@digest of an image, from (dict "image" .Values.image "chart" .Chart). */ -}}
{{- define "gwanmun.image" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository (default .chart.AppVersion .image.tag) -}}
{{- end -}}
{{- end }}

{{- define "gwanmun.issuing" -}}
{{- if and .Values.tls.enabled .Values.tls.certManager.enabled -}}true{{- end -}}
{{- end }}

{{- /* Rights in every namespace that is looked at. */ -}}
{{- define "gwanmun.rules" -}}
# Read what traffic is made of. Secrets: certificates, which Gateways name in any namespace that grants it.
- apiGroups: [""]
  resources: [configmaps, secrets, services]
  verbs: [get, list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
- apiGroups: [gateway.networking.k8s.io]
  resources: [backendtlspolicies, gateways, grpcroutes, httproutes, listenersets, referencegrants, tcproutes, tlsroutes, udproutes]
  verbs: [get, list, watch]
- apiGroups: [gwanmun.dev, kgateway.dev]
  resources: [backends]
  verbs: [get, list, watch]
- apiGroups: [inference.networking.k8s.io]
  resources: [inferencepools]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
# Say in statuses what became of it.
- apiGroups: [gateway.networking.k8s.io]
  resources:
    - backendtlspolicies/status
    - gateways/status
    - grpcroutes/status
    - httproutes/status
    - listenersets/status
    - tcproutes/status
    - tlsroutes/status
    - udproutes/status
  verbs: [patch]
- apiGroups: [gwanmun.dev, kgateway.dev]
  resources: [backends/status]
  verbs: [patch]
- apiGroups: [inference.networking.k8s.io]
  resources: [inferencepools/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
# Run the proxies of each Gateway; watch, as what somebody deletes is to be made again at once.
- apiGroups: [""]
  resources: [configmaps, serviceaccounts, services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
# Where they are not wanted any more, those that were made have to go.
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
# Their certificates; those that were made have to go where cert-manager's are not wanted any more.
- apiGroups: [cert-manager.io]
  resources: [certificates]
  verbs: [{{ if include "gwanmun.issuing" . }}get, list, watch, create, patch, delete{{ else }}get, list, watch, delete{{ end }}]
{{- end }}

{{- /* Where a cluster is asked that has no Prometheus Operator, its kinds are left out; the notes say so. */ -}}
{{- define "gwanmun.noOperator" -}}
{{- if and (lookup "v1" "Namespace" "" "kube-system") (not (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1")) -}}true{{- end -}}
{{- end }}

{{- define "gwanmun.monitoring" -}}
{{- if and .Values.metrics.enabled .Values.metrics.serviceMonitor.enabled -}}true{{- end -}}
{{- end }}
