#!/usr/bin/env python3
"""One of several is the leader: election.py ENDPOINTS NAME [CANDIDATE]

With a candidate: stands for election, prints `elected CANDIDATE` when it leads, waits for Enter, resigns (`resigned`). If its
session is lost it prints `lost` and ends at once. Without: prints `leader CANDIDATE` for each new leader, for ever.
"""

import os
import sys
import time

from etcd import BROKEN, Etcd, Lease, Refused, decode, encode

TTL = 30  # seconds that a leader may be silent before another one is elected


def lost():
    """A leader without a session is none: others may lead already. It must stop all that only a leader does; here, everything."""
    print("lost", flush=True)
    os._exit(1)  # sys.exit would end this thread only


def stand(etcd, name, candidate):
    lease = Lease(etcd, TTL, lost)
    # The answer comes when all that stood before us are gone. Our place has the lease's name: asking again takes no second one.
    campaign = {"name": encode(name), "lease": lease.id, "value": encode(candidate)}
    leader = etcd.again("/v3/election/campaign", campaign, timeout=None)["leader"]
    print("elected", candidate, flush=True)
    sys.stdin.readline()
    # The next one leads at once. Without this it would wait for the lease to run out. What we give back is what was given to us:
    # name, key, revision and lease.
    etcd.again("/v3/election/resign", {"leader": leader})
    lease.revoke()
    print("resigned", flush=True)


def observe(etcd, name):
    last = None
    while True:
        # Observing changes nothing and may be repeated whatever the error was.
        try:
            for result in etcd.stream("/v3/election/observe", {"name": encode(name)}):
                kv = result["kv"]
                # After a reconnect the same leader is told once more.
                proposal = (kv["key"], kv["mod_revision"])
                if proposal != last:
                    print("leader", decode(kv.get("value", "")), flush=True)
                last = proposal
        except (Refused, *BROKEN) as error:
            print(f"{error}; observing again", file=sys.stderr)
        etcd.next_endpoint()
        time.sleep(1)


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: election.py ENDPOINTS NAME [CANDIDATE]")
    endpoints, name, *candidate = sys.argv[1:]
    etcd = Etcd(endpoints)
    if candidate:
        stand(etcd, name, candidate[0])
    else:
        observe(etcd, name)


if __name__ == "__main__":
    main()
