{{- define "jeton.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "jeton.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "jeton.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "jeton.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "jeton.selectorLabels" -}}
app.kubernetes.io/name: {{ include "jeton.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "jeton.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "jeton.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "jeton.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "jeton.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "jeton.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- define "jeton.onNodes" -}}
{{- if eq .Values.mode "DaemonSet" }}true{{ end }}
{{- end }}

{{/* A probe: the listener of metrics at that path, or the command line. */}}
{{- define "jeton.probe" -}}
{{- if .root.Values.metrics.enabled -}}
httpGet:
  path: {{ .path }}
  port: metrics
{{- else -}}
exec:
  command: [/usr/bin/jeton, status, --alive, --data-dir, /var/lib/jeton]
{{- end }}
timeoutSeconds: 5
{{- end }}

{{/* The pods, the same in both modes. */}}
{{- define "jeton.pod" -}}
metadata:
  annotations:
    {{- if .Values.restartOnConfigChange }}
    checksum/config: {{ .Values.config | sha256sum }}
    {{- end }}
    kubectl.kubernetes.io/default-container: jeton
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  labels:
    {{- include "jeton.labels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "jeton.serviceAccountName" . }}
  automountServiceAccountToken: {{ .Values.tokenReview.enabled }}
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    # Of the sealing key, and of the claim.
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
  containers:
    - name: jeton
      image: {{ include "jeton.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [serve, --config, /etc/jeton/config/jeton.toml]
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        privileged: false
        capabilities:
          drop: [ALL]
      env:
        - name: JETON__DATA_DIR
          value: /var/lib/jeton
        - name: JETON__SEALING__KEY_FILE
          value: /etc/jeton/sealing/sealing.key
        {{- if include "jeton.onNodes" . }}
        - name: JETON__DATA__SOCKET
          value: /run/jeton/data.sock
        - name: JETON__DATA__SOCKET_MODE
          value: {{ .Values.socket.mode | quote }}
        # In principals the node is named, not the pod.
        - name: JETON__NODE__NAME
          valueFrom:
            fieldRef:
              fieldPath: spec.nodeName
        {{- else }}
        - name: JETON__NODE__NAME
          value: {{ include "jeton.fullname" . }}
        {{- end }}
        {{- if .Values.tls.enabled }}
        - name: JETON__DATA__TLS_LISTEN
          value: {{ printf "%s:%d" .Values.listenAddress (int .Values.tls.port) | quote }}
        - name: JETON__DATA__TLS__CERT_FILE
          value: /etc/jeton/tls/tls.crt
        - name: JETON__DATA__TLS__KEY_FILE
          value: /etc/jeton/tls/tls.key
        {{- end }}
        {{- if .Values.metrics.enabled }}
        - name: JETON__TELEMETRY__METRICS_LISTEN
          value: {{ printf "%s:%d" .Values.listenAddress (int .Values.metrics.port) | quote }}
        {{- end }}
        {{- with .Values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- if or .Values.tls.enabled .Values.metrics.enabled }}
      ports:
        {{- if .Values.tls.enabled }}
        - name: grpc-tls
          containerPort: {{ .Values.tls.port }}
          protocol: TCP
        {{- end }}
        {{- if .Values.metrics.enabled }}
        - name: metrics
          containerPort: {{ .Values.metrics.port }}
          protocol: TCP
        {{- end }}
      {{- end }}
      # Many sealed tokens are read at the start.
      startupProbe:
        {{- include "jeton.probe" (dict "root" . "path" "/livez") | nindent 8 }}
        periodSeconds: 5
        failureThreshold: 60
      livenessProbe:
        {{- include "jeton.probe" (dict "root" . "path" "/livez") | nindent 8 }}
        periodSeconds: 20
        failureThreshold: 3
      readinessProbe:
        {{- include "jeton.probe" (dict "root" . "path" "/readyz") | nindent 8 }}
        periodSeconds: 10
        failureThreshold: 2
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      volumeMounts:
        - name: data
          mountPath: /var/lib/jeton
        - name: config
          mountPath: /etc/jeton/config
          readOnly: true
        - name: sealing
          mountPath: /etc/jeton/sealing
          readOnly: true
        {{- if .Values.tls.enabled }}
        - name: tls
          mountPath: /etc/jeton/tls
          readOnly: true
        {{- end }}
        {{- if .Values.tls.trustConfigMap }}
        - name: trust
          mountPath: /etc/jeton/trust
          readOnly: true
        {{- end }}
        {{- if include "jeton.onNodes" . }}
        - name: socket
          mountPath: /run/jeton
        {{- end }}
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: config
      configMap:
        name: {{ include "jeton.fullname" . }}
    - name: sealing
      secret:
        secretName: {{ required "sealing.existingSecret: name the secret that has the sealing key" .Values.sealing.existingSecret }}
        defaultMode: 0440
        items:
          - key: {{ .Values.sealing.key }}
            path: sealing.key
    {{- if .Values.tls.enabled }}
    - name: tls
      secret:
        secretName: {{ required "tls.secretName: name the secret that has the server's certificate" .Values.tls.secretName }}
        defaultMode: 0440
    {{- end }}
    {{- if .Values.tls.trustConfigMap }}
    - name: trust
      configMap:
        name: {{ .Values.tls.trustConfigMap }}
    {{- end }}
    - name: data
      {{- if include "jeton.onNodes" . }}
      hostPath:
        path: {{ .Values.persistence.hostPath }}
        type: Directory
      {{- else }}
      persistentVolumeClaim:
        claimName: {{ default (include "jeton.fullname" .) .Values.persistence.existingClaim }}
      {{- end }}
    {{- if include "jeton.onNodes" . }}
    - name: socket
      hostPath:
        path: {{ .Values.socket.hostPath }}
        type: Directory
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
