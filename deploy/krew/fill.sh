#!/usr/bin/env bash
# Fills krew's manifest: the version, the forge's address of the repository, and the checksum of each archive that it names.
#
#   deploy/krew/fill.sh v0.1.0 https://github.com/stowage/stowage FOLDER > stowage.yaml
#
# FOLDER has the archives kubectl-stowage-OS-ARCHITECTURE.tar.gz.
set -euo pipefail
version=$1 repository=$2 folder=$3
manifest="$(sed "/^#/d; s|https://github.com/stowage/stowage|$repository|; s|VERSION|$version|g" "$(dirname "$0")/stowage.yaml")"
for platform in $(grep -o 'SHA256-[a-z0-9-]*' <<< "$manifest" | sed 's/SHA256-//'); do
    sum="$(sha256sum "$folder/kubectl-stowage-$platform.tar.gz" | cut -d ' ' -f 1)"
    manifest="${manifest//SHA256-$platform/$sum}"
done
printf '%s\n' "$manifest"
