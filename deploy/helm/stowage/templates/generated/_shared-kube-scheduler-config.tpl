{{- /* Made from deploy/scheduler/shared-kube-scheduler-config.yaml by `cargo xtask generate`. Do not edit. */}}
{{- define "stowage.sharedConfiguration" -}}
# For the cluster's own kube-scheduler, where the extender runs behind a Service (docs/install.md): pods with
# `schedulerName: stowage-scheduler` have a profile of their own, and all pods that ask for GPUs are placed with the extender.
#
# kube-scheduler is started with --config, beside which it ignores --kubeconfig and --leader-elect: they stand here.
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
clientConnection:
  kubeconfig: /etc/kubernetes/scheduler.conf
leaderElection:
  leaderElect: true

profiles:
  - schedulerName: default-scheduler
  # Why each of these is so: deploy/scheduler/kube-scheduler-config.yaml.
  - schedulerName: stowage-scheduler
    percentageOfNodesToScore: 100
    plugins:
      preScore:
        disabled:
          - name: NodeResourcesBalancedAllocation
      score:
        disabled:
          - name: NodeResourcesBalancedAllocation
          - name: ImageLocality
    pluginConfig:
      - name: PodTopologySpread
        args:
          defaultingType: List
          defaultConstraints: []

extenders:
  # The Service's cluster IP, since kube-scheduler is on the host's network, where cluster names are not known:
  # kubectl get service -n {{ include "stowage.schedulerNamespace" . }} stowage-scheduler-extender -o jsonpath={.spec.clusterIP}
  - urlPrefix: https://10.96.0.94:9412
    enableHTTPS: true
    tlsConfig:
      # What its certificate is for.
      serverName: stowage-scheduler-extender.{{ include "stowage.schedulerNamespace" . }}.svc
      # Without it kube-scheduler would believe any server, and say nothing.
      caFile: /etc/kubernetes/stowage/ca.crt
      # Who kube-scheduler is to the extender.
      certFile: /etc/kubernetes/stowage/client.crt
      keyFile: /etc/kubernetes/stowage/client.key
    filterVerb: filter
    prioritizeVerb: prioritize
    preemptVerb: preempt
    bindVerb: bind
    weight: 15
    nodeCacheCapable: true
    # Pods that ask for one of these are asked about; to all others the extender is nothing, the extender's own pods among
    # them. Name all that your nodes offer.
    managedResources:
      - name: nvidia.com/gpu
      - name: nvidia.com/gpu.shared
      - name: nvidia.com/mig-1g.5gb
      - name: nvidia.com/mig-2g.10gb
      - name: nvidia.com/mig-3g.20gb
      - name: nvidia.com/mig-7g.40gb
    ignorable: false
    httpTimeout: 30s
{{- end }}
