#!/usr/bin/env bash
# Measures live entry of `serve`: `benches/live.sh [SECONDS [MINUTES [STREAMS...]]]`.
#
# Senders by WHIP with sound, each with a viewer by WHEP, a model between them that returns what it gets, all on loopback
# and on this machine: 4, 10, 25 and 50 of them, or STREAMS, for 12 seconds each, and then 5 by RTMP. The usual takes three
# minutes, builds aside. With MINUTES (0 without) senders and viewers come and go then, with a goodbye and without, after which
# nothing may remain. At the end there is the table of `docs/measured.md`, in which what is missed is bold, and whatever says how
# far the machine can be believed. A run that tells of more than 5 % steal is thrown away.
#
# On a machine that does other work, too, RUN='chrt -f 10' (as root) lets what is measured go first; FIRST_PORT moves the
# ports, THREADS gives `serve` more than one. PROFILE=dist measures what is shipped.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-12}
minutes=${2:-0}
counts=("${@:3}")
((${#counts[@]} > 0)) || counts=(4 10 25 50)
read -ra run <<<"${RUN:-}"

source benches/stand.sh
build live_load

# load NAME WORDS arguments...: a run of the load, whose figures are kept under that name. It ends what it starts.
load() {
    local name=$1
    echo "== $2"
    shift 2
    ${run[@]+"${run[@]}"} "$bin/examples/live_load" "$bin/livepeer-gateway" "$@" port="${FIRST_PORT:-18970}" \
        threads="${THREADS:-1}" | tee "$work/$name.figures"
}
names=()
titles=()
for count in "${counts[@]}"; do
    names+=("whip$count")
    titles+=("$count streams")
    load "whip$count" "$count streams by WHIP" streams streams="$count" seconds="$seconds"
done
names+=(rtmp)
titles+=("5 by RTMP")
load rtmp "5 streams by RTMP" streams way=rtmp streams=5 seconds="$seconds"
if ((minutes > 0)); then
    load churn "senders and viewers come and go" churn minutes="$minutes"
fi

# cell NAME FIGURE GOAL DIVISOR: what was measured, bold if it is above the goal, which may be empty. Nothing if it was not.
cell() {
    awk -v figure="$2" -v goal="$3" -v divisor="$4" '
        $1 == "=" && $2 == figure {
            value = $3 / divisor
            text = sprintf(value == int(value) || value >= 10 ? "%.0f" : "%.1f", value)
            if (goal != "" && value > goal + 0) text = "**" text "**"
            print text
        }' "$work/$1.figures"
}
# row WORDS FIGURE GOAL DIVISOR [SECOND GOAL]: a line of the table, of one figure or of two.
row() {
    local line="| $1 | $3${6:+ and $6} |" name first second
    for name in "${names[@]}"; do
        first=$(cell "$name" "$2" "$3" "$4")
        second=${5:+$(cell "$name" "$5" "${6:-}" "$4")}
        line+=" $first${second:+ and $second} |"
    done
    echo "$line"
}
echo
printf '| what | goal |'
printf ' %s |' "${titles[@]}"
printf '\n|---|---|'
printf -- '---|%.0s' "${names[@]}"
echo
row "pictures missing" gaps 0 1
row "pictures that did not come at the end" behind 0 1
row "answer to a sender by WHIP, p50 and p99 in ms" answer50 20 1000 answer99
row "a sender is connected, p99 in ms" connect99 50 1000
row "first picture of a viewer, p99 in ms" first99 250 1000
row "picture to the wire of a job, p50 and p99 in ms" wire50 3 1000 wire99 10
row "picture to the viewer, p50 and p99 in ms" shown50 "" 1000 shown99
row "of a core for each stream with its viewer, in %" cpu 2 1
row "memory for each further stream with its viewer, in MiB" memory 2 1024
row "memory of the first, with what a process that works has once, in MiB" alone "" 1024
row "memory at rest that no file backs, in MiB" anonymous 15 1024
if ((minutes > 0)); then
    names=(churn)
    echo
    row "memory that grew from the second quarter of $minutes minutes to the last, in MiB" growth 2 1024
    row "files left open by those who came and went" files 0 1
fi
echo
uptime
grep -h steal "$work"/*.figures
