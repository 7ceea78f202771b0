#!/usr/bin/env python3
"""A lock that guards something outside etcd: lock.py ENDPOINTS NAME STORE TEXT

Takes the lock NAME, waits for Enter (the work), writes TEXT to the file STORE, gives the lock back. Prints `locked NAME, token T`,
then `wrote TEXT` or `refused: ...` (and ends with code 1), then `unlocked`.

No lock service can promise that two holders never overlap: a holder that stands still (a full disk, a paused machine) longer than
its lease lives wakes up and still believes that it holds the lock. So every write carries a *fencing token* that grows from holder
to holder, and the store refuses a token that is smaller than one it has seen.
"""

import fcntl
import os
import sys

from etcd import Etcd, Lease, encode

TTL = 60  # seconds that a holder may be silent before the lock is given to the next one


class Stale(Exception):
    pass


def write(store, token, text):
    """A store that others write, too: a file with the largest token seen in its first line and the text in its second.

    It stands for a database, a disk or a service of yours. What matters: comparing and writing are one step.
    """
    with os.fdopen(os.open(store, os.O_RDWR | os.O_CREAT, 0o666), "r+") as file:
        # Held until the file is closed. It makes this one step; it is not the lock of the example.
        fcntl.flock(file, fcntl.LOCK_EX)
        seen = int(file.readline() or 0)
        if token < seen:
            raise Stale(f"token {token} is older than {seen}")
        file.seek(0)
        file.truncate()
        file.write(f"{token}\n{text}\n")
        file.flush()
        os.fsync(file.fileno())


def main():
    if len(sys.argv) != 5:
        sys.exit("usage: lock.py ENDPOINTS NAME STORE TEXT")
    endpoints, name, store, text = sys.argv[1:]
    etcd = Etcd(endpoints)
    # Renewed while we work. That it ran out is no reason to stop in the middle: the store knows.
    lease = Lease(etcd, TTL)
    # The answer comes when we hold the lock. Our place in the queue has the lease's name, so asking again takes no second one.
    key = etcd.again("/v3/lock/lock", {"name": encode(name), "lease": lease.id}, timeout=None)["key"]
    # The revision at which the lock's key was created. Holders are served in this order, so it only grows; and every language can
    # read it, so all have the same tokens.
    found = etcd.again("/v3/kv/range", {"key": key}).get("kvs")
    if not found:
        sys.exit("the lease ran out")
    token = int(found[0]["create_revision"])
    print(f"locked {name}, token {token}", flush=True)
    sys.stdin.readline()
    # Asking etcd "do I still hold it?" here would prove nothing: we could stand still right after the answer.
    try:
        write(store, token, text)
    except Stale as refused:
        print(f"refused: {refused}", flush=True)
        sys.exit(1)
    print("wrote", text, flush=True)
    etcd.again("/v3/lock/unlock", {"key": key})  # deleting the key twice does no harm
    lease.revoke()
    print("unlocked", flush=True)


if __name__ == "__main__":
    main()
