#!/usr/bin/env bash
# push.sh VERSION pushes what dist.sh built to a registry, REGISTRY=ghcr.io/log-bridge: each image under one name for both
# architectures, and the chart. It writes the digests to dist/VERSION/PUSHED, to be signed.
# PLAIN_HTTP=1 is for a test registry without TLS.
set -euo pipefail
cd "$(dirname "$0")/../../.."
version=${1:?want a version, as for dist.sh}
version=${version#v}
registry=${REGISTRY:-ghcr.io/log-bridge}
out=dist/$version
[ -e "$out/SHA256SUMS" ] || { echo "push.sh: dist/$version is not there; run: make dist VERSION=v$version" >&2; exit 2; }
(cd "$out" && sha256sum --check --quiet SHA256SUMS)
helm=${HELM:-helm}
crane() { go tool -modfile=test/dev/tools/release/go.mod crane ${PLAIN_HTTP:+--insecure} "$@"; }

: > "$out/PUSHED"
for program in log-bridge log-bridge-webhook; do
	name=$registry/$program
	parts=()
	for arch in amd64 arm64; do
		digest=$(crane push "$out/$program-image-$arch.tar" "$name:$version-$arch" | tail -1)
		parts+=(--manifest "$name@${digest##*@}")
	done
	crane index append "${parts[@]}" --tag "$name:$version" > /dev/null
	echo "$name@$(crane digest "$name:$version")" >> "$out/PUSHED"
done
"$helm" push ${PLAIN_HTTP:+--plain-http} "$out/log-bridge-$version.tgz" "oci://$registry/charts" > "$out/chart.push" 2>&1 ||
	{ cat "$out/chart.push" >&2; exit 1; }
echo "$registry/charts/log-bridge@$(sed -n 's/^Digest: //p' "$out/chart.push")" >> "$out/PUSHED"
rm "$out/chart.push"
cat "$out/PUSHED"
