# The stand of a measurement that starts programs of its own: sourced by scripts beside it, after they set `run`, words that
# go before each command, which may be none. `$bin` has the programs of the profile, `$work` is a folder that goes with them.
profile=${PROFILE:-release}
bin=${CARGO_TARGET_DIR:-$PWD/target}/${profile/#dev/debug}
work=$(mktemp -d)
started=()
end() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait || true
    rm -r "$work"
}
trap end EXIT

# build NAME...: the gateway, and these examples.
build() {
    local examples=()
    for name in "$@"; do examples+=(--example "$name"); done
    cargo build --profile "$profile" --quiet --workspace --bin livepeer-gateway "${examples[@]}"
}

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
