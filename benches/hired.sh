#!/usr/bin/env bash
# Holds 1,000 streams of events and 1,000 WebSockets of `devnet`'s echo programs open at once through `serve`:
# `benches/hired.sh [STREAMS [EACH]]`. None may lose, repeat or disorder anything; the run fails if one does.
#
# The usual 1,000 streams of 64 take about a minute, builds aside. The times are round trips on this machine, which the load
# and the development network share with the gateway. FIRST_PORT moves the ports. PROFILE=dist measures what is shipped.
set -euo pipefail
cd "$(dirname "$0")/.."
streams=${1:-1000}
each=${2:-64}
first=${FIRST_PORT:-18955}
# A connection on each side of everybody.
ulimit -n $((8 * streams + 1000)) 2>/dev/null || ulimit -n "$(ulimit -Hn)"

run=()
source benches/stand.sh
build hired_load

cat >"$work/gateway.toml" <<TOML
[apps]
allow = ["devnet/*"]
[[models.backend]]
name = "events"
surfaces = ["chat"]
byoc = { capability = "echo", path = "/events", timeout = "300s" }
TOML
# network PORT PAUSE: a network whose programs pause so long between two events, and a gateway ten ports further on.
network() {
    begin "$1" "$bin/livepeer-gateway" devnet --offchain --polite --listen "127.0.0.1:$1" \
        --signer-listen "127.0.0.1:$(($1 + 12))" --capacity "$((2 * streams))" --work-time 1ms --token-time "$2"
    begin $(($1 + 10)) "$bin/livepeer-gateway" serve --config "$work/gateway.toml" --listen "127.0.0.1:$(($1 + 10))" \
        --ops "127.0.0.1:$(($1 + 11))" --offchain --allow-private --orchestrator "127.0.0.1:$1"
}
slow=$((first + 20))
network "$first" 20ms
network "$slow" 1s
door=http://127.0.0.1:$((first + 10))
bare=https://127.0.0.1:$first/apps/echo/app
sleep 1

echo "== events of an app"
"$bin/examples/hired_load" events "$door/apps/devnet/echo/events" bare="$bare/events" streams="$streams" each="$each"
echo "== events of an app that says one a second, beside the same at the orchestrator itself"
"$bin/examples/hired_load" events "http://127.0.0.1:$((slow + 10))/apps/devnet/echo/events" \
    bare="https://127.0.0.1:$slow/apps/echo/app/events" streams="$streams" each=16 pause=1000
echo "== sockets of an app"
"$bin/examples/hired_load" sockets "$door/apps/devnet/echo/ws" streams="$streams" each="$each"
echo "== sockets of an app, each of which says something once a second, beside the same at the orchestrator itself"
"$bin/examples/hired_load" sockets "$door/apps/devnet/echo/ws" bare="$bare/ws" streams="$streams" each=16 pause=1000
echo "== sockets of an app that is held in a session"
"$bin/examples/hired_load" sockets "$door/apps/devnet/session/ws" streams="$((streams / 20))" each="$each"
