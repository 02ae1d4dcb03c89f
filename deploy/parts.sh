# Starts the parts of a system, waits for what they do, and ends exactly those it started.
# Sourced by the scripts beside it, after need.sh.

# What the parts write: their logs, their data. Gone when the script ends.
scratch=$(mktemp -d "${TMPDIR:-/tmp}/valtronics.XXXXXX")
declare -A part=() # name -> process group

# start NAME COMMAND...: in the background, in a process group of its own, its output in NAME.log.
start() {
    local name=$1
    shift
    set -m
    "$@" >>"$scratch/$name.log" 2>&1 </dev/null &
    part[$name]=$!
    set +m
}

# Whether a part still runs.
runs() { kill -0 "${part[$1]}" 2>/dev/null; }

# end NAME: asks, waits 10 s, then insists. Fails when the part had failed, or had to be killed.
end() {
    local group=${part[$1]} status=0 deadline=$((SECONDS + 10))
    unset "part[$1]"
    kill -TERM -- "-$group" 2>/dev/null || true
    while kill -0 -- "-$group" 2>/dev/null; do
        [ "$SECONDS" -lt "$deadline" ] || kill -KILL -- "-$group" 2>/dev/null || true
        sleep 0.1
    done
    wait "$group" 2>/dev/null || status=$?
    # 143: it knows no soft stop, and went as it was told.
    [ "$status" = 0 ] || [ "$status" = 143 ]
}

end_parts() {
    local name
    for name in "${!part[@]}"; do end "$name" || true; done
    rm -rf "$scratch"
}
trap end_parts EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Prints what a part said last, and stops.
failed() {
    local log
    echo "FAILED: $*" >&2
    for log in "$scratch"/*.log; do
        printf -- '--- %s\n' "${log##*/}" >&2
        tail -n 15 "$log" >&2
    done
    exit 1
}

# wait_for SECONDS WHAT COMMAND...: until COMMAND succeeds.
wait_for() {
    local until=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$until" ] || failed "waited in vain for $what"
        sleep 0.2
    done
}

# Whether something listens on a port of this machine.
answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Prints a port on which nothing listens, below those that outgoing connections are given.
free_port() {
    local port
    while port=$((20000 + RANDOM % 12000)) && answers "$port"; do :; done
    echo "$port"
}

# start_server PROGRAM PORT [ARGUMENT...]: data in $scratch/server, whose secret signs the tokens.
start_server() {
    local program=$1 port=$2
    shift 2
    start server "$program" run --listen "127.0.0.1:$port" --data "$scratch/server" "$@"
    wait_for 20 "the server on port $port" curl -sf "http://127.0.0.1:$port/readyz"
}

# token PROGRAM SUB [SCOPE]: prints a token for a day; without a scope it reads everything.
token() { "$1" token --sub "$2" ${3:+--scope "$3"} --ttl 1d --data "$scratch/server"; }
