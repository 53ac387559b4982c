#!/usr/bin/env bash
# The commands of docs/tour.md as a transcript, each with its exit code and how long it took; ends at the first that fails.
#
#   cargo xtask up tests/cluster/tour.sh
set -uo pipefail
cd "$(dirname "$0")/../.."

run() {
    printf '$ %s\n' "$1"
    local start code
    start="$(date +%s%N)"
    bash -o pipefail -c "$1" 2>&1
    code=$?
    printf '# exit code %s after %s ms\n\n' "$code" "$((($(date +%s%N) - start) / 1000000))"
    [ "$code" = 0 ] || exit "$code"
}

run 'kubectl get nodes'
run 'kubectl get gpunodes'
run 'kubectl get pods --all-namespaces'
run 'kubectl stowage what-if -f deploy/examples/mig.yaml'
run 'kubectl apply -f target/up/examples/mig.yaml'
run 'kubectl rollout status deployment ranker --timeout 60s'
run 'kubectl get pods -o wide'
run "kubectl get pods -o jsonpath='{range .items[*]}{.metadata.annotations.stowage\\.dev/plan}{\"\\n\"}{end}'"
run 'kubectl exec deployment/ranker -- env | grep NVIDIA_VISIBLE_DEVICES'
run 'kubectl stowage explain "$(kubectl get pods -o name | cut -d / -f 2 | head -n 1)"'
run 'kubectl scale deployment ranker --replicas 17'
run 'kubectl wait deployment ranker --for jsonpath={.status.readyReplicas}=16 --timeout 120s'
run 'kubectl stowage explain "$(kubectl get pods --field-selector status.phase=Pending -o name | cut -d / -f 2)"'
run 'kubectl stowage map'
run 'kubectl stowage audit'
run 'kubectl delete -f target/up/examples/mig.yaml'
