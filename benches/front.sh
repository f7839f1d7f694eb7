#!/usr/bin/env bash
# Measures `serve` beside the bare hop to the orchestrator behind it: `benches/front.sh [SECONDS [ROUNDS]]`.
#
# Both share the machine with the load and are interleaved in one run. The usual 8 seconds and 3 rounds take about five
# minutes, builds aside; 20 and 5 make a figure to print. At the end there is a table of the goals and what was measured;
# a row with an exclamation mark is missed. A run that tells of more than 5 % steal is thrown away. What is compared:
#
#   1  added latency, a kilobyte of JSON, one connection, no ticket
#   2  the same, each request with a ticket by an own key, and by a remote signer
#   3  requests a second within limits of the 99th of 100
#   4  streams of 64 chunks, 20 ms apart: first chunk, lateness, memory; 64 of them and 1,000
#   5  a prompt of 400 kB
#   6  a picture of 10 MB: memory of a single one, and processor time
#   7  a refused request
#   8  memory at rest
#
# On a machine that does other work, too, RUN='chrt -f 10' (as root) lets what is measured go first; FIRST_PORT moves the
# ports. PROFILE=dist measures what is shipped.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-8}
rounds=${2:-3}
first=${FIRST_PORT:-18935}
read -ra run <<<"${RUN:-}"

source benches/stand.sh
build front_load front_mock

# load NAME WORDS arguments...: a run of the load, whose figures are kept under that name.
load() {
    local name=$1
    echo "== $2"
    shift 2
    ${run[@]+"${run[@]}"} "$bin/examples/front_load" "$@" seconds="$seconds" | tee "$work/$name.figures"
}

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

sleep 2
{
    echo "= rest $(awk '/^VmRSS/ { print $2 }' "/proc/$picture_pid/status")"
    echo "= anonymous $(awk '/^RssAnon/ { print $2 }' "/proc/$picture_pid/status")"
} | tee "$work/idle.figures"

load open "1: no ticket" pairs "$(chat $open)" $free/llm "$free_pid" rounds="$rounds"
load own "2: a ticket by an own key" pairs "$(chat $own)" $paid/llm "$own_pid" rounds="$rounds"
load remote "2: a ticket by a remote signer" pairs "$(chat $remote)" $paid/llm "$signer_pid" rounds="$rounds"
load frontier "3: requests a second" frontier "$(chat $open)" $free/llm "$free_pid" most=64
load few "4: 64 streams" streams "$(chat $open)" $free/llm "$free_pid" streams=64 begin=apart
load burst "4: 64 streams that begin at once" streams "$(chat $open)" $free/llm "$free_pid" streams=64
load many "4: 1,000 streams" streams "$(chat $open)" $free/llm "$free_pid" streams=1000
load prompt "5: a prompt of 400 kB" pairs "$(chat $open)" $free/llm "$free_pid" rounds="$rounds" bytes=400000
load small "6: a small picture" once http://127.0.0.1:$picture/image-to-image $free/image-to-image "$picture_pid" \
    kind=image bytes=1000
load large "6: a picture of 10 MB" once http://127.0.0.1:$picture/image-to-image $free/image-to-image "$picture_pid" \
    kind=image bytes=10000000
load pictures "6: pictures of 10 MB" pairs http://127.0.0.1:$open/image-to-image $free/image-to-image "$free_pid" \
    rounds="$rounds" kind=image bytes=10000000
load refused "7: a request that is refused" refused "$(chat $open)" $free/llm "$free_pid"

# row NAME FIGURE GOAL UNIT WORDS: a line of the table. The goal is the most, or the least if it begins with a plus.
row() {
    awk -v figure="$2" -v goal="$3" -v unit="$4" -v words="$5" '
        $1 == "=" && $2 == figure {
            least = goal ~ /^\+/
            bound = goal + 0
            missed = least ? $3 < bound : $3 > bound
            spread = NF > 3 ? "(" $4 " to " $5 ")" : ""
            printf "%s %-52s %s %8s  %8s %-4s %s\n", missed ? "!" : " ", words, least ? ">=" : "<=", bound, $3, unit, spread
        }' "$work/$1.figures"
}
echo
printf '  %-52s %11s  %8s\n' "what" "goal" "measured"
row open p50 250 us "added by a chat of 1 kB, p50"
row open p99 1000 us "added by a chat of 1 kB, p99"
row own p50 600 us "added with a ticket by an own key, p50"
row remote p50 1000 us "added with a ticket by a remote signer, p50"
row frontier rate +5000 /s "requests a second within a p99 of 5 ms"
row frontier share +0.3 "" "share of the bare hop"
row frontier cpu 120 us "CPU of a request at best"
row few first 500 us "added to the first chunk, 64 streams, p50"
row few late 1000 us "lateness added to a chunk, 64 streams, p99"
row few memory 40 KiB "memory of each of 64 streams"
row burst first 500 us "added to the first chunk, 64 that begin at once"
row many lost 0 "" "chunks or streams lost of 1,000 streams"
row many memory 40 KiB "memory of each of 1,000 streams"
row prompt p50 2000 us "added by a prompt of 400 kB, p50"
row large beyond 1024 KiB "memory of a picture of 10 MB beyond its size"
row pictures cpu 10000 us "CPU of a picture of 10 MB"
row refused cpu 60 us "CPU of a refused request"
row refused rate +20000 /s "refused requests a second"
row idle rest 15360 KiB "memory at rest"
row idle anonymous 15360 KiB "memory at rest that no file backs"
