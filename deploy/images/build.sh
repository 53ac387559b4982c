#!/usr/bin/env bash
# Builds the two container images as OCI archives, with cargo, tar and sha256sum alone: no Docker, no registry, no base image.
#
#   deploy/images/build.sh [--programs FOLDER] [--tag TAG] [OUT]
#
# OUT (default: target/images) gets stowage-scheduler-extender.tar and stowage-device-plugin.tar, for `ctr images import`,
# `skopeo copy oci-archive:…` and `docker load`. --programs takes programs that are built already. REGISTRY says where the
# images will be (default: ghcr.io/stowage). The same commit on the same toolchain gives the same bytes, in whichever folder:
# times are SOURCE_DATE_EPOCH (default: the commit's), names are sorted, owners are root.
set -euo pipefail
# Whoever builds: not root runs the extender, and must be able to reach it.
umask 022

programs="" out=target/images tag=""
while [ $# -gt 0 ]; do
    case "$1" in
        --programs) programs="$(realpath -- "$2")"; shift 2 ;;
        --tag) tag=$2; shift 2 ;;
        -*) echo "build.sh: unknown option $1" >&2; exit 2 ;;
        *) out="$(realpath --canonicalize-missing -- "$1")"; shift ;;
    esac
done
cd "$(dirname "$0")/../.."
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}"
export LC_ALL=C TZ=UTC
# Names of images are in small letters, owners on a forge need not be.
registry="${REGISTRY:-ghcr.io/stowage}"
registry="${registry,,}"
version="$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)"
tag="${tag:-$version}"
machine="$(uname -m)"
case "$machine" in
    x86_64) architecture=amd64 ;;
    aarch64) architecture=arm64 ;;
    *) echo "build.sh: no image is made for $machine" >&2; exit 1 ;;
esac
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

# The extender needs nothing of its system: glibc is linked into it, which since 2.34 resolves names without libraries of its own
# (the check below), and whose allocator is the one that the benchmarks measure. The plugin loads the driver's library, which is
# made for a glibc that is loaded.
build() {
    # Paths of this machine do not belong into a program. Those of the standard library are there only where its source is
    # installed as well, and then get the name that they have without it.
    local standard_library commit
    standard_library="$(rustc --print sysroot)/lib/rustlib/src/rust"
    commit="$(rustc --version --verbose | sed -n 's/^commit-hash: //p')"
    unset RUSTFLAGS
    CARGO_ENCODED_RUSTFLAGS="$(printf -- '--remap-path-prefix=%s\x1f' "$PWD=/stowage" \
        "${CARGO_HOME:-$HOME/.cargo}=/cargo" "$standard_library=/rustc/$commit")"
    export CARGO_ENCODED_RUSTFLAGS="${CARGO_ENCODED_RUSTFLAGS%$'\x1f'}"
    local glibc have target="${CARGO_TARGET_DIR:-target}" triple="$machine-unknown-linux-gnu"
    glibc="$(getconf GNU_LIBC_VERSION)"
    have="${glibc#glibc }"
    if [ "$(printf '%s\n' 2.34 "$have" | sort -V | head -1)" != 2.34 ]; then
        echo "build.sh: $glibc is older than 2.34: a program that it is linked into would resolve no names" >&2
        exit 1
    fi
    cargo build --release --locked --package stowage-device-plugin --target "$triple"
    CARGO_ENCODED_RUSTFLAGS+=$'\x1f'"-Ctarget-feature=+crt-static" \
        cargo build --release --locked --package stowage-scheduler-extender --target "$triple" --target-dir "$target/static"
    programs="$work/programs"
    mkdir "$programs"
    cp "$target/static/$triple/release/stowage-scheduler-extender" "$target/$triple/release/stowage-device-plugin" "$programs"
}

# Puts a program into a root folder, and with it the libraries that it is linked with, where the loader looks for them.
install_program() { # ROOT PROGRAM
    mkdir -p "$1/usr/bin"
    install -m 0755 "$programs/$2" "$1/usr/bin/$2"
    local library
    for library in $(ldd "$programs/$2" 2> /dev/null | grep -o '/[^ ]*' || true); do
        install_library "$1" "$library"
    done
}

install_library() { # ROOT FILE
    local target
    # Where /lib is a link to /usr/lib, as on all newer systems, it is here too.
    case "$2" in
        /usr/*) target="$1$2" ;;
        *) target="$1/usr$2" ;;
    esac
    mkdir -p "$(dirname "$target")"
    install -m 0755 "$2" "$target"
    local folder
    for folder in lib lib64; do
        mkdir -p "$1/usr/$folder"
        ln -sfn "usr/$folder" "$1/$folder"
    done
}

blob() { # FILE: moves it to its place, and prints its digest and its size
    local digest size
    digest="$(sha256sum "$1" | cut -d ' ' -f 1)"
    size="$(stat -c %s "$1")"
    mv "$1" "$work/image/blobs/sha256/$digest"
    echo "$digest $size"
}

archive() { # ROOT FILE
    # shellcheck disable=SC2046 # names of our own, without blanks
    tar --create --file "$2" --directory "$1" --format ustar --sort name --mtime "@$SOURCE_DATE_EPOCH" \
        --owner 0 --group 0 --numeric-owner --mode u+w,go-w $(ls -A "$1")
}

image() { # NAME ROOT USER: writes an OCI archive with one layer
    local name="$1" root="$2" user="$3" created layer config manifest
    created="$(date --date "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)"
    rm -rf "$work/image"
    mkdir -p "$work/image/blobs/sha256"
    archive "$root" "$work/layer.tar"
    read -r -a layer <<< "$(blob "$work/layer.tar")"
    cat > "$work/config.json" << END
{"created":"$created","architecture":"$architecture","os":"linux","config":{"User":"$user","Env":["PATH=/usr/local/nvidia/bin:/usr/bin:/usr/sbin"],"Entrypoint":["/usr/bin/$name"],"Labels":{"org.opencontainers.image.title":"$name","org.opencontainers.image.version":"$version","org.opencontainers.image.licenses":"Apache-2.0"}},"rootfs":{"type":"layers","diff_ids":["sha256:${layer[0]}"]},"history":[{"created":"$created","created_by":"deploy/images/build.sh"}]}
END
    read -r -a config <<< "$(blob "$work/config.json")"
    cat > "$work/manifest.json" << END
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:${config[0]}","size":${config[1]}},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:${layer[0]}","size":${layer[1]}}]}
END
    read -r -a manifest <<< "$(blob "$work/manifest.json")"
    cat > "$work/image/index.json" << END
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:${manifest[0]}","size":${manifest[1]},"platform":{"architecture":"$architecture","os":"linux"},"annotations":{"org.opencontainers.image.ref.name":"$tag","io.containerd.image.name":"$registry/$name:$tag"}}]}
END
    echo '{"imageLayoutVersion":"1.0.0"}' > "$work/image/oci-layout"
    # What `docker load` reads, of the same blobs; everybody else reads index.json.
    cat > "$work/image/manifest.json" << END
[{"Config":"blobs/sha256/${config[0]}","RepoTags":["$registry/$name:$tag"],"Layers":["blobs/sha256/${layer[0]}"]}]
END
    mkdir -p "$out"
    archive "$work/image" "$out/$name.tar"
    echo "$out/$name.tar $registry/$name:$tag sha256:${manifest[0]} $(stat -c %s "$out/$name.tar") bytes"
}

if [ -z "$programs" ]; then
    build
fi

extender="$work/extender"
install_program "$extender" stowage-scheduler-extender
image stowage-scheduler-extender "$extender" 65532:65532

plugin="$work/plugin"
# Where NVIDIA's container runtime puts what the driver brings.
mkdir -p "$plugin"/{etc,dev,proc,sys,tmp,run,usr/bin,usr/sbin}
ln -s usr/bin "$plugin/bin"
ln -s usr/sbin "$plugin/sbin"
install_program "$plugin" stowage-device-plugin
# The driver's library, and the programs of MPS, are linked with these of glibc's, which the plugin itself may not be.
libc="$(ldd "$programs/stowage-device-plugin" | grep -o '/[^ ]*/libc\.so\.6')"
for library in libpthread.so.0 libdl.so.2 librt.so.1 libm.so.6 libgcc_s.so.1; do
    for folder in "$(dirname "$libc")" "/usr$(dirname "$libc")"; do
        if [ -e "$folder/$library" ]; then
            install_library "$plugin" "$folder/$library"
            break
        fi
    done
done
# The kubelet's sockets and folders are root's.
image stowage-device-plugin "$plugin" 0:0
