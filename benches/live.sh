#!/usr/bin/env bash
# Measures live entry of `serve`: `benches/live.sh [SECONDS [STREAMS [MINUTES]]]`.
#
# Senders by WHIP with sound, each with a viewer by WHEP, a model between them that returns what it gets, all on loopback
# and on this machine. The usual 20 seconds and 50 streams take about a minute, builds aside. Then the same with 5 streams
# by RTMP, and with MINUTES (0 without) senders and viewers that come and go, with a goodbye and without, after which nothing
# may remain. At the end there is a table of the goals and what was measured; a row with an exclamation mark is missed. A
# run that tells of more than 5 % steal is thrown away.
#
# On a machine that does other work, too, RUN='chrt -f 10' (as root) lets what is measured go first; FIRST_PORT moves the
# ports, THREADS gives `serve` more than one. PROFILE=dist measures what is shipped.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-20}
streams=${2:-50}
minutes=${3:-0}
read -ra run <<<"${RUN:-}"

profile=${PROFILE:-release}
cargo build --profile "$profile" --quiet --workspace --bin livepeer-gateway --example live_load
bin=${CARGO_TARGET_DIR:-$PWD/target}/$profile
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT

# load NAME WORDS arguments...: a run of the load, whose figures are kept under that name. It ends what it starts.
load() {
    local name=$1
    echo "== $2"
    shift 2
    ${run[@]+"${run[@]}"} "$bin/examples/live_load" "$bin/livepeer-gateway" "$@" port="${FIRST_PORT:-18970}" \
        threads="${THREADS:-1}" | tee "$work/$name.figures"
}
load few "2 streams by WHIP" streams streams=2 seconds="$seconds"
load many "$streams streams by WHIP" streams streams="$streams" seconds="$seconds"
load rtmp "5 streams by RTMP" streams way=rtmp streams=5 seconds="$seconds"
if ((minutes > 0)); then
    load churn "senders and viewers come and go" churn minutes="$minutes"
fi

# row NAME FIGURE GOAL UNIT WORDS: a line of the table. The goal is the most.
row() {
    [[ -e $work/$1.figures ]] || return 0
    awk -v figure="$2" -v goal="$3" -v unit="$4" -v words="$5" '
        $1 == "=" && $2 == figure {
            printf "%s %-56s <= %8s  %8s %s\n", $3 > goal + 0 ? "!" : " ", words, goal, $3, unit
        }' "$work/$1.figures"
}
echo
printf '  %-56s %11s  %8s\n' "what" "goal" "measured"
row few idle 15360 KiB "memory at rest"
row few anonymous 15360 KiB "memory at rest that no file backs"
row few answer50 20000 us "answer to a sender by WHIP, p50"
row few first99 250000 us "first picture of a viewer, the longest"
row few wire50 3000 us "picture to the wire of a job, p50"
row few wire99 10000 us "picture to the wire of a job, p99"
row many gaps 0 "" "pictures missing of $streams streams of 2 Mbit/s"
row many behind 0 "" "pictures of them that did not come at the end"
row many memory 2048 KiB "memory of each of them with its viewer"
row many cpu 2 % "of a core for each of them"
row many answer99 20000 us "answer to a sender by WHIP among them, p99"
row many first99 250000 us "first picture of a viewer among them, p99"
row many wire50 3000 us "picture to the wire among them, p50"
row many wire99 10000 us "picture to the wire among them, p99"
row rtmp gaps 0 "" "pictures missing of 5 streams by RTMP"
row rtmp wire50 3000 us "picture to the wire by RTMP, p50"
row rtmp wire99 10000 us "picture to the wire by RTMP, p99"
row rtmp memory 2048 KiB "memory of a stream by RTMP with its viewer"
row rtmp cpu 2 % "of a core for a stream by RTMP"
row churn growth 2048 KiB "memory that grew from the second quarter to the last"
row churn files 0 "" "files left open by those who came and went"
