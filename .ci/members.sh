# For scripts that run another project's tests against our members. Wants $server; gives $work (removed at the end, as the
# members are), $etcdctl, and what follows. Sourced.
work=$(mktemp -d)
etcdctl=$(dirname "$server")/etcdctl
pids=
trap 'for pid in $pids; do kill "$pid" 2>/dev/null || true; done; rm -rf "$work"' EXIT

# Free ports, eleven: url N is one's address.
ports=$(python3 -c 'import socket
all = [socket.socket() for _ in range(11)]
for s in all: s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in all))')
port() { echo "$ports" | cut -d" " -f"$1"; }
url() { echo "http://127.0.0.1:$(port "$1")"; }

# start NAME CLIENT-URL PEER-URL FLAG...
start() {
    name=$1 client=$2 peer=$3
    shift 3
    "$server" --name "$name" --data-dir "$work/$name" --listen-client-urls "$client" --advertise-client-urls "$client" \
        --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" "$@" >"$work/$name.log" 2>&1 &
    pids="$pids $!"
}

# until_true SECONDS COMMAND...
until_true() {
    tries=$(($1 * 5))
    shift
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        if [ "$tries" -lt 0 ]; then
            echo "in vain: $*" >&2
            tail -n 20 "$work"/*.log >&2
            exit 1
        fi
        sleep 0.2
    done
}
