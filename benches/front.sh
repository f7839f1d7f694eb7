#!/usr/bin/env bash
# Measures `serve` beside the bare hop to the orchestrator behind it: `benches/front.sh [SECONDS [ROUNDS]]`.
#
# Both share the machine with the load and are interleaved in one run. 20 seconds and 5 rounds make a figure; a run that
# tells of more than 5 % steal is thrown away. What is compared:
#
#   1  added latency, a kilobyte of JSON, one connection, no ticket
#   2  the same, each request with a ticket by an own key, and by a remote signer
#   3  requests a second within limits of the 99th of 100
#   4  streams of 64 chunks, 20 ms apart: first chunk, lateness, memory; 64 of them and 1,000
#   5  a prompt of 400 kB
#   6  a picture of 10 MB: memory of a single one, and processor time
#   7  a refused request
#
# On a machine that does other work, too, RUN='chrt -f 10' (as root) lets what is measured go first; FIRST_PORT moves the
# ports.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-20}
rounds=${2:-5}
first=${FIRST_PORT:-18935}
read -ra run <<<"${RUN:-}"

cargo build --release --quiet -p livepeer-gateway
cargo build --release --quiet -p livepeer-benches --example front_load --example front_mock
bin=${CARGO_TARGET_DIR:-$PWD/target}/release
work=$(mktemp -d)
started=()
end() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait || true
    rm -r "$work"
}
trap end EXIT

# begin PORT command...: starts it, waits until that port of loopback answers, and leaves its id in $begun.
begin() {
    local port=$1
    shift
    ${run[@]+"${run[@]}"} "$@" >"$work/$port.log" 2>&1 &
    begun=$!
    started+=("$begun")
    for _ in {1..100}; do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && return
        sleep 0.1
    done
    echo "nothing listens at port $port:"
    cat "$work/$port.log"
    exit 1
}

load() { ${run[@]+"${run[@]}"} "$bin/examples/front_load" "$@" seconds="$seconds"; }

# A request for words at this price is worth a ticket.
mock=$first
paying=$((first + 1))
signer=$((first + 5))
begin $mock "$bin/examples/front_mock" 127.0.0.1:$mock free
begin $paying "$bin/examples/front_mock" 127.0.0.1:$paying 31000000
head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$work/key"
begin $signer "$bin/livepeer-gateway" signer --static-chain --key-file "$work/key" --listen 127.0.0.1:$signer

serve() {
    local port=$1
    shift
    begin "$port" "$bin/livepeer-gateway" serve --listen "127.0.0.1:$port" --ops "127.0.0.1:$((port + 20))" \
        --objects memory --allow-private "$@"
}
free=https://127.0.0.1:$mock
paid=https://127.0.0.1:$paying
open=$((first + 15))
own=$((first + 16))
remote=$((first + 17))
picture=$((first + 18))
serve $open --orchestrator $free --offchain
free_pid=$begun
serve $picture --orchestrator $free --offchain
picture_pid=$begun
serve $own --orchestrator $paid --key-file "$work/key" --store "$work/store" --static-chain
own_pid=$begun
serve $remote --orchestrator $paid --signer http://127.0.0.1:$signer
signer_pid=$begun
chat() { echo "http://127.0.0.1:$1/v1/chat/completions"; }

echo "== 1: no ticket"
load pairs "$(chat $open)" $free/llm "$free_pid" rounds="$rounds"
echo "== 2: a ticket by an own key"
load pairs "$(chat $own)" $paid/llm "$own_pid" rounds="$rounds"
echo "== 2: a ticket by a remote signer"
load pairs "$(chat $remote)" $paid/llm "$signer_pid" rounds="$rounds"
echo "== 3: requests a second"
load frontier "$(chat $open)" $free/llm "$free_pid"
echo "== 4: 64 streams, then 1,000"
load streams "$(chat $open)" $free/llm "$free_pid" streams=64
load streams "$(chat $open)" $free/llm "$free_pid" streams=1000
echo "== 5: a prompt of 400 kB"
load pairs "$(chat $open)" $free/llm "$free_pid" rounds="$rounds" bytes=400000
echo "== 6: a picture of 10 MB"
load once http://127.0.0.1:$picture/image-to-image $free/image-to-image "$picture_pid" kind=image bytes=1000
load once http://127.0.0.1:$picture/image-to-image $free/image-to-image "$picture_pid" kind=image bytes=10000000
load pairs http://127.0.0.1:$open/image-to-image $free/image-to-image "$free_pid" rounds="$rounds" kind=image bytes=10000000
echo "== 7: a request that is refused"
load refused "$(chat $open)" $free/llm "$free_pid"
