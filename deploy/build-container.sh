#!/bin/sh
# Builds the two container images without a container engine, on a base made here, and tries them
# out: the service against the mock upstream.
#
#     sudo deploy/build-container.sh
#
# BASE=... builds on another image instead, and ARCHIVE=event-service.tar keeps the service's
# image, for `docker load` or `podman load`. The base is kept between runs under the name below;
# remove it with `buildah --storage-driver vfs rmi localhost/python-base`.
set -eu
cd "$(dirname "$0")/.."

BASE=${BASE:-}
ARCHIVE=${ARCHIVE:-}
SUITE=bookworm
OWN_BASE=localhost/python-base:$SUITE
CERTIFICATES=/etc/ssl/certs/ca-certificates.crt

packages=
for program in buildah debootstrap; do
    command -v "$program" >/dev/null || packages="$packages $program"
done
[ -z "$packages" ] || echo "missing programs: apt-get install$packages" >&2
[ "$(id -u)" = 0 ] || echo "missing rights: run it as root, with sudo make container" >&2
[ -z "$packages" ] && [ "$(id -u)" = 0 ] || exit 1

work=$(mktemp -d)
containers=
clean() {
    for each in $containers; do buildah rm "$each" >/dev/null; done
    rm -rf "$work"
}
trap clean EXIT
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

# build TARGET IMAGE: builds the image; leaves its description in IMAGE.json, its root in $root.
build() {
    echo "building $2 on $BASE ..."
    buildah rmi "localhost/$2" >/dev/null 2>&1 || true # or it would stay without a name
    buildah build --quiet --format docker --isolation chroot --layers=false \
        --build-arg "BASE=$BASE" --target "$1" \
        --build-arg "REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)" \
        --volume "$CERTIFICATES:$CERTIFICATES:ro" --volume "$work/pip.conf:/etc/pip.conf:ro" \
        --tag "localhost/$2" --file deploy/Dockerfile . >/dev/null
    container=$(buildah from --pull-never "localhost/$2")
    containers="$containers $container"
    buildah inspect --type image "localhost/$2" >"$work/$2.json"
    root=$(buildah mount "$container")
    du -sm "$root" | awk '{ print "the image has " $1 " MB" }'
}

if [ -z "$BASE" ]; then
    BASE=$OWN_BASE
    buildah inspect --type image "$BASE" >/dev/null 2>&1 || make_base
fi
# Where a proxy with a certificate of its own leads out, the build has to trust it like this machine.
printf '[global]\ncert = %s\n' "$CERTIFICATES" >"$work/pip.conf"

build mock event-mock-upstream
mock=$root
build service event-service
python3 -m deploy.check_container \
    "$root" "$work/event-service.json" "$mock" "$work/event-mock-upstream.json"

if [ -n "$ARCHIVE" ]; then
    buildah push --quiet localhost/event-service "docker-archive:$ARCHIVE:event-service:latest"
    echo "written to $ARCHIVE"
fi
