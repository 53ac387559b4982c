#!/usr/bin/env bash
# Lists what the programs are built from, as CycloneDX 1.5 JSON: one file for each program, from cargo's own metadata.
#
#   deploy/images/sbom.sh [OUT]        # default: target/images
set -euo pipefail
out="$(realpath --canonicalize-missing -- "${1:-$(dirname "$0")/../../target/images}")"
cd "$(dirname "$0")/../.."
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}"
if ! cargo cyclonedx --version > /dev/null 2>&1; then
    cargo install cargo-cyclonedx --locked --version 0.5.9
fi
mkdir -p "$out"
machine="$(uname -m)"
for folder in scheduler-extender device-plugin; do
    # It writes beside each manifest of the workspace.
    cargo cyclonedx --format json --spec-version 1.5 --no-build-deps --manifest-path "$folder/Cargo.toml" \
        --target "$machine-unknown-linux-gnu" --override-filename sbom
    mv "$folder/sbom.json" "$out/stowage-$folder.cdx.json"
    git ls-files --others --exclude-standard -z -- '*/sbom.json' sbom.json | xargs -0 -r rm
    echo "$out/stowage-$folder.cdx.json"
done
