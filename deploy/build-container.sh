#!/bin/sh
# Builds the container image without a container engine, on a base made here, and tries it out.
#
# It needs root, and Debian's packages buildah and debootstrap:
#
#     sudo apt-get install buildah debootstrap
#     sudo deploy/build-container.sh
#
# BASE=... builds on another image instead, and ARCHIVE=event-service.tar keeps the result, for
# `docker load` or `podman load`. The base is kept between runs under the name below; remove it
# with `buildah --storage-driver vfs rmi localhost/python-base`.
set -eu
cd "$(dirname "$0")/.."

BASE=${BASE:-}
ARCHIVE=${ARCHIVE:-}
SUITE=bookworm
OWN_BASE=localhost/python-base:$SUITE
IMAGE=localhost/event-service
CERTIFICATES=/etc/ssl/certs/ca-certificates.crt

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
buildah() { command buildah --storage-driver vfs "$@"; }

make_base() {
    echo "making a base of Debian $SUITE and its Python ..."
    debootstrap --variant=minbase --include=ca-certificates,python3-venv "$SUITE" "$work/root" \
        >"$work/debootstrap.log" 2>&1 || { tail "$work/debootstrap.log" >&2; exit 1; }
    rm -rf "$work/root/var/cache/apt" "$work/root/var/lib/apt/lists"
    base=$(buildah from scratch)
    buildah add --quiet "$base" "$work/root" / >/dev/null
    buildah commit --quiet "$base" "$OWN_BASE" >/dev/null
    buildah rm "$base" >/dev/null
    rm -rf "$work/root"
}

if [ -z "$BASE" ]; then
    BASE=$OWN_BASE
    buildah inspect --type image "$BASE" >/dev/null 2>&1 || make_base
fi

echo "building $IMAGE on $BASE ..."
buildah rmi "$IMAGE" >/dev/null 2>&1 || true # or it would stay without a name
# Where a proxy with a certificate of its own leads out, the build has to trust it like this machine.
printf '[global]\ncert = %s\n' "$CERTIFICATES" >"$work/pip.conf"
buildah build --quiet --format docker --isolation chroot --layers=false \
    --build-arg "BASE=$BASE" \
    --build-arg "REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)" \
    --volume "$CERTIFICATES:$CERTIFICATES:ro" --volume "$work/pip.conf:/etc/pip.conf:ro" \
    --tag "$IMAGE" --file deploy/Dockerfile . >/dev/null

container=$(buildah from --pull-never "$IMAGE")
trap 'buildah rm "$container" >/dev/null; rm -rf "$work"' EXIT
buildah inspect --type image "$IMAGE" >"$work/image.json"
root=$(buildah mount "$container")
du -sm "$root" | awk '{ print "the image has " $1 " MB" }'
python3 -m deploy.check_container "$root" "$work/image.json"

if [ -n "$ARCHIVE" ]; then
    buildah push --quiet "$IMAGE" "docker-archive:$ARCHIVE:event-service:latest"
    echo "written to $ARCHIVE"
fi
