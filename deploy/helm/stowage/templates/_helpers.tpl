{{- /* Names are fixed: there is one Stowage in a cluster, and its admission policies and `kubectl stowage doctor` know them. */}}
{{- define "stowage.schedulerNamespace" }}{{ .Values.namespaces.scheduler.name }}{{ end }}
{{- define "stowage.pluginNamespace" }}{{ .Values.namespaces.devicePlugin.name }}{{ end }}

{{- define "stowage.labels" -}}
app.kubernetes.io/part-of: stowage
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* An image: `image` is its values, `tag` what it has where they name none. */}}
{{- define "stowage.image" }}
{{- $tag := .image.tag | default .tag }}
{{- printf "%s%s%s" .image.repository (hasPrefix "sha256:" $tag | ternary "@" ":") $tag }}
{{- end }}

{{- /* What a container of ours may do: nothing that it does not need. */}}
{{- define "stowage.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- /*
What the plugin's configurations ask for, as JSON. An environment variable comes before the file, and so does a value of this
chart before the files of config.map. What the files of config.name say is not known here.
*/}}
{{- define "stowage.asked" }}
{{- $mig := list }}
{{- $lists := list }}
{{- $mps := list }}
{{- $nodeFeature := .Values.gfd.useNodeFeatureAPI | default false }}
{{- range $name, $text := .Values.config.map }}
  {{- $file := $text | fromYaml }}
  {{- if hasKey $file "Error" }}
    {{- fail (printf "config.map.%s is not YAML: %s" $name $file.Error) }}
  {{- end }}
  {{- $flags := $file.flags | default dict }}
  {{- $plugin := $flags.plugin | default dict }}
  {{- $mig = append $mig ($flags.migStrategy | default "none") }}
  {{- $lists = append $lists (join "," $plugin.deviceListStrategy) }}
  {{- if ($file.sharing | default dict).mps }}{{ $mps = append $mps $name }}{{ end }}
  {{- if $flags.useNodeFeatureAPI }}{{ $nodeFeature = true }}{{ end }}
{{- end }}
{{- with .Values.migStrategy }}{{ $mig = list . }}{{ end }}
{{- with .Values.deviceListStrategy }}{{ $lists = list (join "," .) }}{{ end }}
{{- $unknown := ne .Values.config.name "" }}
{{- dict "mig" (without $mig "none" | uniq) "mps" $mps "cdi" (or $unknown (contains "cdi-" (join "," $lists)))
  "volumeMounts" (contains "volume-mounts" (join "," $lists)) "nodeFeature" (or $unknown $nodeFeature) | toJson }}
{{- end }}

{{- /*
How a new version reaches the nodes. MPS's daemons run in the plugin's container and end with it, and with them every CUDA program
that uses them: a rollout would end those on each node, so there it waits for whoever has drained a node.
*/}}
{{- define "stowage.updateStrategy" }}
{{- .Values.updateStrategy.type | default (.Values.mps.enabled | ternary "OnDelete" "RollingUpdate") }}
{{- end }}

{{- /* Where alerts and dashboards lie: a namespace that this chart's programs are in. */}}
{{- define "stowage.observabilityNamespace" }}
{{- .Values.scheduler.enabled | ternary .Values.namespaces.scheduler.name .Values.namespaces.devicePlugin.name }}
{{- end }}

{{- /* Whether the extender has a Lease: for what it does without being asked, and behind a Service to say who is asked. */}}
{{- define "stowage.lease" }}
{{- with .Values.scheduler.extender }}{{ if or .nominate .preemption .defrag .drainScaleDowns .service.enabled }}true{{ end }}{{ end }}
{{- end }}

{{- /* Whether there is a kube-scheduler of our own. */}}
{{- define "stowage.ownScheduler" }}
{{- with .Values.scheduler }}{{ if and .enabled (not .extender.service.enabled) }}true{{ end }}{{ end }}
{{- end }}

{{- define "stowage.hasConfigs" }}{{ if or .Values.config.name .Values.config.map }}true{{ end }}{{ end }}
{{- define "stowage.configMap" }}{{ .Values.config.name | default "stowage-device-plugin-config" }}{{ end }}

{{- /* A variable of the plugin's environment, where a value is given. */}}
{{- define "stowage.env" }}
{{- if not (kindIs "invalid" .value) }}
            - name: {{ .name }}
              value: {{ join "," .value | quote }}
{{- end }}
{{- end }}
