#!/usr/bin/env bash
# dist.sh VERSION builds all parts of a release in dist/VERSION, without a registry and without a key: programs and images for
# two architectures, the chart, SBOMs, provenance, checksums. Then it checks what it built. It needs no root: the images are
# built from the programs, by the last stage of the Dockerfiles.
#
# A release has one number: for the tag v1.2.3, the programs report 1.2.3, the images have the tag 1.2.3, and the chart has
# 1.2.3 as its version and appVersion, which is the default tag of the images.
set -euo pipefail
cd "$(dirname "$0")/../../.."
cluster=${CLUSTER:-bin/cluster}
tool() { go tool -modfile=test/dev/tools/release/go.mod "$@"; }

version=${1:-}
version=${version#v}
if ! [[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$ ]]; then
	echo "dist.sh: \"${1:-}\" is not a version; write one such as v0.1.0: make dist VERSION=v0.1.0" >&2
	exit 2
fi
architectures="amd64 arm64"
declare -A sources=([log-bridge]=sidecar [log-bridge-webhook]=webhook)
out=dist/$version
time=$(git log -1 --format=%ct) # of what is packed, so that the same commit makes the same archives
rm -rf "$out"
mkdir -p "$out/programs"

for arch in $architectures; do
	for program in "${!sources[@]}"; do
		echo "$program for linux/$arch …"
		mkdir -p "$out/programs/$arch"
		CGO_ENABLED=0 GOOS=linux GOARCH=$arch go build -trimpath -ldflags "-s -w -X main.version=$version" \
			-o "$out/programs/$arch/$program" "./${sources[$program]}"
		# Its modification time is part of the image.
		touch --date="@$time" "$out/programs/$arch/$program"
		"$cluster" pack --file "Dockerfile.${sources[$program]}" --tag "ghcr.io/log-bridge/$program:$version" \
			--platform "linux/$arch" --output "$out/$program-image-$arch.tar" "$out/programs/$arch"
	done
	cp LICENSE README.md "$out/programs/$arch/"
	tar --create --sort=name --mtime="@$time" --owner=0 --group=0 --numeric-owner --directory "$out/programs/$arch" . |
		gzip --no-name > "$out/log-bridge_${version}_linux_$arch.tar.gz"
done

# The plugin of kubectl, for the machines of people. One archive for each, as krew has it (https://krew.sigs.k8s.io/docs/developer-guide/plugin-manifest/).
plugin=kubectl-log_bridge
platforms="linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64"
for platform in $platforms; do
	os=${platform%/*} arch=${platform#*/} suffix=
	[ "$os" = windows ] && suffix=.exe
	echo "$plugin for $platform …"
	dir=$out/programs/plugin-$os-$arch
	mkdir -p "$dir"
	CGO_ENABLED=0 GOOS=$os GOARCH=$arch go build -trimpath -ldflags "-s -w -X main.version=$version" -o "$dir/$plugin$suffix" ./webhook/$plugin
	cp LICENSE "$dir/"
	tar --create --sort=name --mtime="@$time" --owner=0 --group=0 --numeric-owner --directory "$dir" . |
		gzip --no-name > "$out/${plugin}_${version}_${os}_$arch.tar.gz"
done
{
	cat <<EOF
apiVersion: krew.googlecontainertools.github.com/v1alpha2
kind: Plugin
metadata:
  name: log-bridge
spec:
  version: v$version
  homepage: https://github.com/log-bridge/log-bridge
  shortDescription: Find log files of running pods and bridge them
  description: |
    Shows which log files the applications of running pods write, prints their lines
    without a restart, and bridges them to kubectl logs with the log-bridge sidecar.
  platforms:
EOF
	for platform in $platforms; do
		os=${platform%/*} arch=${platform#*/} suffix=
		[ "$os" = windows ] && suffix=.exe
		archive=${plugin}_${version}_${os}_$arch.tar.gz
		cat <<EOF
    - selector: {matchLabels: {os: $os, arch: $arch}}
      uri: https://github.com/log-bridge/log-bridge/releases/download/v$version/$archive
      sha256: $(sha256sum "$out/$archive" | cut -d' ' -f1)
      bin: $plugin$suffix
EOF
	done
} > "$out/krew.yaml"

echo "lists of components …"
for program in "${!sources[@]}"; do
	tool cyclonedx-gomod bin -json -std -version "v$version" -output "$out/$program.cdx.json" "$out/programs/amd64/$program"
done
tool cyclonedx-gomod bin -json -std -version "v$version" -output "$out/$plugin.cdx.json" "$out/programs/plugin-linux-amd64/$plugin"

echo "the chart …"
helm=$("$cluster" tool helm)
"$helm" package charts/log-bridge --version "$version" --app-version "$version" --destination "$out" > /dev/null

# Provenance, as SLSA defines it (https://slsa.dev/spec/v1.0/provenance): the predicate of an attestation whose subjects are an
# image, or SHA256SUMS. It is as credible as its signer: the release workflow, which identifies itself in BUILDER.
source=git+https://github.com/log-bridge/log-bridge@refs/tags/v$version
cat > "$out/provenance.json" <<EOF
{
  "buildDefinition": {
    "buildType": "https://github.com/log-bridge/log-bridge/blob/main/docs/releasing.md#provenance",
    "externalParameters": { "source": "$source", "version": "$version" },
    "internalParameters": { "go": "$(go env GOVERSION)", "clean": $(git diff --quiet HEAD && echo true || echo false) },
    "resolvedDependencies": [{ "uri": "$source", "digest": { "gitCommit": "$(git rev-parse HEAD)" } }]
  },
  "runDetails": {
    "builder": { "id": "${BUILDER:-https://github.com/log-bridge/log-bridge/blob/main/docs/releasing.md#without-github}" },
    "metadata": { "invocationId": "${INVOCATION:-by hand}" }
  }
}
EOF
(cd "$out" && sha256sum -- *.tar.gz *.tgz *.cdx.json *.tar provenance.json krew.yaml > SHA256SUMS)

# Check that each part is what its name says.
fail() {
	echo "dist.sh: $*" >&2
	exit 1
}
declare -A machines=([amd64]=x86-64 [arm64]=aarch64)
check=$(mktemp -d)
trap 'rm -rf "$check"' EXIT
for arch in $architectures; do
	mkdir "$check/$arch"
	tar --extract --gzip --file "$out/log-bridge_${version}_linux_$arch.tar.gz" --directory "$check/$arch"
	for program in "${!sources[@]}"; do
		go version -m "$check/$arch/$program" | grep -q "GOARCH=$arch$" || fail "$program for $arch is for another architecture"
		readelf --file-header "$check/$arch/$program" | grep -iq "Machine:.*${machines[$arch]}" || fail "$program for $arch is for another machine"
		readelf --program-headers "$check/$arch/$program" | grep -q INTERP && fail "$program for $arch needs shared libraries"
		layer=$(tar --extract --to-stdout --file "$out/$program-image-$arch.tar" manifest.json | sed 's/.*"Layers":\["\([^"]*\)".*/\1/')
		tar --extract --to-stdout --file "$out/$program-image-$arch.tar" "$layer" | tar --extract --to-stdout "bin/$program" |
			cmp --silent - "$check/$arch/$program" || fail "the image of $program for $arch holds another program"
		config=$(tar --extract --to-stdout --file "$out/$program-image-$arch.tar" manifest.json | sed 's/.*"Config":"\([^"]*\)".*/\1/')
		tar --extract --to-stdout --file "$out/$program-image-$arch.tar" "$config" | grep -q "\"architecture\":\"$arch\"" ||
			fail "the image of $program for $arch is for another architecture"
	done
done
here=$(go env GOARCH)
[ "$("$check/$here/log-bridge" version)" = "log-bridge $version" ] || fail "log-bridge does not say that it is $version"
[ "$("$check/$here/log-bridge-webhook" version)" = "$version" ] || fail "log-bridge-webhook does not say that it is $version"
mkdir "$check/plugin"
tar --extract --gzip --file "$out/${plugin}_${version}_linux_$here.tar.gz" --directory "$check/plugin"
[ "$("$check/plugin/$plugin" --version)" = "kubectl log-bridge $version" ] || fail "$plugin does not say that it is $version"
[ "$(grep -c "sha256: [0-9a-f]\{64\}$" "$out/krew.yaml")" = "$(wc -w <<< "$platforms")" ] || fail "krew.yaml does not name each archive"
"$helm" lint --quiet "$out/log-bridge-$version.tgz" || fail "the chart has faults"
rendered=$("$helm" template log-bridge "$out/log-bridge-$version.tgz")
for program in "${!sources[@]}"; do
	grep -q "ghcr.io/log-bridge/$program:$version\$" <<< "$rendered" || fail "the chart does not take $program:$version"
	grep -q 'fsnotify\|controller-runtime' "$out/$program.cdx.json" || fail "the list of components of $program has not its dependencies"
done
(cd "$out" && sha256sum --check --quiet SHA256SUMS) || fail "the checksums do not fit"
rm -r "$out/programs"
echo "dist/$version is complete:"
(cd "$out" && find . -type f -printf '  %s %P\n' | sort -k2)
