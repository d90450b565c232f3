#!/bin/sh
# Prometheus with these rules and alerts beside `flicker up`, without containers; Ctrl-C ends it:
#   deploy/prometheus/local.sh results/2026-11-23-101500-up [PORT]
# Each process has said in its log where its metrics are. Start this once traffic flows; Prometheus must be on PATH.
set -eu
run=${1:?which folder? The one that flicker up names}
address=127.0.0.1:${2:-9090}
here=$(cd "$(dirname "$0")" && pwd)
config=$run/prometheus.yml

ports_of() {  # of all processes with this name: [127.0.0.1:1234, 127.0.0.1:1235]
    sed -En 's|.*metrics[^0-9]*(127\.0\.0\.1:[0-9]+).*|\1|p' "$run/$1"*.log | sort -u | paste -sd, - | sed 's/.*/[&]/'
}

{
    echo "global: {scrape_interval: 5s, scrape_timeout: 4s, evaluation_interval: 5s}"
    echo "rule_files: ['$here/rules.yml', '$here/alerts.yml']"
    echo "scrape_configs:"
    for job in trainer replica router load; do
        echo "  - {job_name: $job, static_configs: [{targets: $(ports_of $job)}]}"
    done
    echo "  - {job_name: prometheus, static_configs: [{targets: ['$address']}]}"
} > "$config"

exec prometheus --config.file="$config" --storage.tsdb.path="$run/prometheus" --web.listen-address="$address"
