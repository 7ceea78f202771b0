# What the four scripts share: etcd's HTTP/JSON in plain bash and curl. To be read into a script by `source`.
#
# Keys and values are base64 in JSON, and numbers are texts: no value holds a quote or a brace, so grep is enough to take answers
# apart. Where there is jq, use that.

# "http://a:2379,http://b:2379" as a list.
IFS=, read -ra ENDPOINTS <<<"${1:-}"
next_endpoint() { ENDPOINTS=("${ENDPOINTS[@]:1}" "${ENDPOINTS[0]}"); }

encode() { printf %s "$1" | base64 | tr -d '\n'; }
decode() { printf %s "$1" | base64 -d; }

# The end of the range of all keys with a prefix, encoded: the prefix with its last byte (ASCII here) one higher.
prefix_end() {
    local last
    printf -v last '\\x%x' $(($(printf %d "'${1: -1}") + 1))
    printf '%s%b' "${1%?}" "$last" | base64 | tr -d '\n'
}

# field NAME: the first field of that name in the JSON on standard input; nothing if there is none.
field() { { grep -oE "\"$1\": ?\"[^\"]*\"" || true; } | head -n 1 | cut -d '"' -f 4; }

# post PATH BODY [CURL'S OPTIONS]: one request; the answer on standard output. It is sent once at most: curl's code 7 says that
# there was no connection, so another endpoint may be asked; after any other failure nobody knows what the server did.
post() {
    local endpoint code=7
    for endpoint in "${ENDPOINTS[@]}"; do
        code=0
        curl --silent --show-error --fail-with-body --no-buffer --connect-timeout 5 \
            "$endpoint$1" --data "$2" "${@:3}" || code=$?
        [ "$code" = 7 ] || break
    done
    return "$code"
}

# again PATH BODY [CURL'S OPTIONS]: the same until it is answered. Only for what may be done twice.
again() {
    local answer
    until answer=$(post "$@"); do
        # An answer is final, unless it is 14 (unavailable) or 4 (too late).
        if [ -n "$answer" ] && ! grep -qE '"code": ?(14|4)[,}]' <<<"$answer"; then
            printf '%s\n' "$answer" >&2
            return 1
        fi
        next_endpoint
        sleep 1
    done
    printf '%s\n' "$answer"
}

# stream PATH BODY: an answer that goes on, one JSON value a line, until the connection breaks. A member that has lost the others is
# to end it: else it would be silent while they go on.
stream() { post "$1" "$2" --header 'Grpc-Metadata-hasleader: true'; }

# A new lease of so many seconds. (One that an answer was lost for runs out by itself.)
grant() { again /v3/lease/grant "{\"TTL\":\"$1\"}" --max-time 5 | field ID; }

# renew LEASE TTL: renews once. Fails when the lease is gone, or may be: there was no answer for as long as it lives.
renew() {
    local since=$SECONDS answer
    until answer=$(post /v3/lease/keepalive "{\"ID\":\"$1\"}" --max-time 5); do
        ((SECONDS - since < $2)) || return 1
        next_endpoint
        sleep 1
    done
    # No TTL: there is no such lease.
    [ -n "$(field TTL <<<"$answer")" ]
}

# keep_alive LEASE TTL: renews until the lease is gone.
keep_alive() { while renew "$1" "$2"; do sleep $(($2 / 3)); done; }

# Ends a lease; its keys go with it. (Refused: it ran out, or this was the second try. Gone is gone.)
revoke() { again /v3/lease/revoke "{\"ID\":\"$1\"}" --max-time 5 >/dev/null || true; }
