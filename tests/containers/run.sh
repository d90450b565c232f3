#!/usr/bin/env bash
# `make test-containers`: builds and runs docker-compose.yml as it is, and the service `checks` in it, which asks.
#
# It takes a Docker engine with Compose 2.24 or newer. On a machine without one, COMPOSE_RUNNER names a script that is
# called as `SCRIPT -f FILE -p PROFILE... -t SERVICE` and does the same: build, up --wait, run SERVICE, down -v.
#
# --secure: with docker-compose.secure.yml over it, and the checks of that alone.
set -euo pipefail
cd "$(dirname "$0")/../.."

# any free ports, beside a system that runs already; and what the checks rely on, whatever .env says by now
export FLICKER_ROUTER_PORT=0 FLICKER_GRAFANA_PORT=0 FLICKER_PROMETHEUS_PORT=0 FLICKER_LOCUST_PORT=0
export FLICKER_PAGE_PORT=0 FLICKER_PAGE_TOKEN= FLICKER_BIND=127.0.0.1
export FLICKER_RATE=100 FLICKER_REPLICAS=3 FLICKER_ROUTERS=2 FLICKER_DATA=
# two arms of ours, and the two of a user whose models lie in this folder
export FLICKER_CODE=$PWD FLICKER_MODELS=examples.two_tower:make
export FLICKER_ARMS="relu smelu:beta=2 torch:examples.two_tower:make torch:examples.two_tower:make,relu=smelu:beta=1"

secure=${1:-}
if [ "$secure" = --secure ]; then
    FLICKER_SECRETS=$(mktemp -d)
    export FLICKER_SECRETS COMPOSE_PROFILES=cpu
    # all of it once, and small: what the others have tested needs no more than to be reached
    export FLICKER_RATE=20 FLICKER_REPLICAS=2 FLICKER_ROUTERS=1 FLICKER_ARMS="relu smelu:beta=2" FLICKER_MODELS=
    chmod 755 "$FLICKER_SECRETS"
    forget() { rm -rf "$FLICKER_SECRETS"; }
    trap forget EXIT
fi
if [ -n "${COMPOSE_RUNNER:-}" ]; then
    file=docker-compose.yml
    [ -z "$secure" ] || file=tests/containers/secure.yml
    "$COMPOSE_RUNNER" -f "$file" -p cpu -p test -t checks
    exit
fi

compose() {
    docker compose --project-name flicker-checks --profile cpu \
        --file docker-compose.yml ${secure:+--file docker-compose.secure.yml} "$@"
}
end() {
    local code=$?
    [ $code = 0 ] || { compose ps --all; compose logs --no-color --tail 40; }
    if [ -n "$secure" ]; then  # the container has made it, and owns it
        compose run --rm --no-TTY --entrypoint sh secrets -c 'rm -rf /made/*' || true
        forget
    fi
    compose --profile test down --volumes --timeout 5
    exit $code
}
for profile in cpu gpu test; do docker compose --profile "$profile" config --quiet; done
trap end EXIT
compose --profile test build
compose up --detach --wait --no-build
compose run --rm --no-TTY checks
