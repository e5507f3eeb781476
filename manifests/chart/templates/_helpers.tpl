{{/* Labels of every object; what the user adds does not replace ours. */}}
{{- define "zerotrust.labels" -}}
{{ toYaml (merge (dict "app.kubernetes.io/part-of" "zerotrust-operator") .Values.commonLabels) }}
{{- end }}

{{- define "zerotrust.annotations" -}}
{{- with .Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Annotations of what stays at an uninstall: docs/guides/uninstall.md. */}}
{{- define "zerotrust.annotations-kept" -}}
{{- $kept := dict "helm.sh/resource-policy" "keep" }}
{{- if .Values.argocd }}
{{- $_ := set $kept "argocd.argoproj.io/sync-options" "Prune=false,Delete=false" }}
{{- end }}
annotations:
  {{- toYaml (merge $kept .Values.commonAnnotations) | nindent 2 }}
{{- end }}

{{- define "zerotrust.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{/* The namespaces that rights hold in, as JSON; "" stands for the whole cluster. */}}
{{- define "zerotrust.rights-namespace" -}}
{{ .Values.namespaces | empty | ternary (list "") (append .Values.namespaces .Release.Namespace | uniq) | toJson }}
{{- end }}
{{- define "zerotrust.rights-default" -}}
{{ .Values.namespaces | empty | ternary (list "") (list "default") | toJson }}
{{- end }}

{{/* Where pods of one of the two run: takes root, name and values. */}}
{{- define "zerotrust.placement" -}}
{{- $labels := dict "matchLabels" (dict "app.kubernetes.io/name" .name) }}
{{- $apart := dict "topologyKey" "kubernetes.io/hostname" "labelSelector" $labels }}
{{- $rule := dict }}
{{- if eq .values.antiAffinity "required" }}
{{- $rule = dict "requiredDuringSchedulingIgnoredDuringExecution" (list $apart) }}
{{- else if eq .values.antiAffinity "preferred" }}
{{- $weighed := dict "weight" 100 "podAffinityTerm" $apart }}
{{- $rule = dict "preferredDuringSchedulingIgnoredDuringExecution" (list $weighed) }}
{{- end }}
{{- $affinity := deepCopy .values.affinity }}
{{- with $rule }}
{{- $affinity = merge $affinity (dict "podAntiAffinity" .) }}
{{- end }}
{{- with $affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      {{- toYaml $labels | nindent 6 }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Metadata of a pod of one of the two: takes name and values. */}}
{{- define "zerotrust.pod-metadata" -}}
labels:
  {{- toYaml (merge (dict "app.kubernetes.io/name" .name) .values.podLabels) | nindent 2 }}
{{- with .values.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* What a container of ours may do: nothing but run. */}}
{{- define "zerotrust.container-security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Options of both processes, as arguments. */}}
{{- define "zerotrust.arguments" -}}
- --log-format=json
{{- if ne .Values.logLevel "INFO" }}
- --log-level={{ .Values.logLevel }}
{{- end }}
{{- end }}

{{/* Environment of both processes. */}}
{{- define "zerotrust.watched" -}}
{{- with .Values.namespaces }}
- name: ZEROTRUST_WATCH_NAMESPACES
  value: {{ join " " . }}
{{- end }}
{{- end }}

{{/* A Service for Prometheus: takes root and name. */}}
{{- define "zerotrust.metrics-service" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ .name }}-metrics
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "zerotrust.labels" .root | nindent 4 }}
    app.kubernetes.io/name: {{ .name }}
    app.kubernetes.io/component: metrics
  {{- include "zerotrust.annotations" .root | nindent 2 }}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector:
    app.kubernetes.io/name: {{ .name }}
  ports:
    - name: telemetry
      port: 8080
      targetPort: telemetry
      protocol: TCP
{{- end }}

{{/* A budget for evictions: takes root and name. */}}
{{- define "zerotrust.disruption-budget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "zerotrust.labels" .root | nindent 4 }}
  {{- include "zerotrust.annotations" .root | nindent 2 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels:
      app.kubernetes.io/name: {{ .name }}
{{- end }}
