#!/usr/bin/env python3
"""Where a service is to be found: registry.py ENDPOINTS SERVICE [NAME ADDRESS]

With a name: registers an instance for as long as this runs, prints `registered NAME ADDRESS`, and takes it back when Enter is
pressed (`deregistered`). Without: prints `+ NAME ADDRESS` and `- NAME`, first for all that are there, then as they come and go.

Keys and values are those of etcd's Go client (naming/endpoints), by which gRPC finds addresses:
    SERVICE/NAME = {"Op":0,"Addr":"ADDRESS","Metadata":null}
"""

import json
import sys
import threading
import time

from etcd import BROKEN, Etcd, Lease, Refused, decode, encode, prefix_range

TTL = 15  # seconds until an instance that died without a word is forgotten


def stay_registered(etcd, service, name, address):
    """Registers; again whenever the lease is lost; until Enter is pressed."""
    changed = threading.Event()
    enter = threading.Event()

    def wait_for_enter():
        sys.stdin.readline()
        enter.set()
        changed.set()

    threading.Thread(target=wait_for_enter, daemon=True).start()
    value = json.dumps({"Op": 0, "Addr": address, "Metadata": None}, separators=(",", ":"))
    while True:
        changed.clear()
        lease = Lease(etcd, TTL, changed.set)
        # The same value at the same key: putting it twice does no harm. It is refused if the lease ran out meanwhile.
        put = {"key": encode(f"{service}/{name}"), "value": encode(value), "lease": lease.id}
        try:
            etcd.again("/v3/kv/put", put)
            print("registered", name, address, flush=True)
        except Refused as error:
            print(f"{error}; registering again", file=sys.stderr)
        if not enter.is_set():
            changed.wait()
        if enter.is_set():
            lease.revoke()
            print("deregistered", flush=True)
            return


class Watcher:
    """As in config_watch.py: read all, follow from there, read again where history was compacted."""

    def __init__(self, etcd, service):
        self.etcd, self.prefix = etcd, service + "/"
        self.known = {}  # what was printed last: name -> address
        self.next = None  # the first revision that is not seen yet; None: all has to be read

    def note(self, kv):
        """An endpoint that is there; without a value, or with one that is no endpoint's, one that is not."""
        name = decode(kv["key"]).removeprefix(self.prefix)
        try:
            address = json.loads(decode(kv.get("value", "")))["Addr"]
        except (ValueError, KeyError, TypeError):
            self.forget(name)
            return
        if self.known.get(name) != address:
            self.known[name] = address
            print("+", name, address, flush=True)

    def forget(self, name):
        if self.known.pop(name, None) is not None:
            print("-", name, flush=True)

    def read(self):
        answer = self.etcd.again("/v3/kv/range", prefix_range(self.prefix))
        kvs = answer.get("kvs", [])
        for name in self.known.keys() - {decode(kv["key"]).removeprefix(self.prefix) for kv in kvs}:
            self.forget(name)
        for kv in kvs:
            self.note(kv)
        self.next = int(answer["header"]["revision"]) + 1

    def follow(self):
        create = {**prefix_range(self.prefix), "start_revision": self.next, "progress_notify": True}
        for result in self.etcd.stream("/v3/watch", {"create_request": create}):
            if "compact_revision" in result:
                self.next = None
                return
            if result.get("canceled"):
                raise Refused({"message": result.get("cancel_reason", "canceled")})
            events = result.get("events", [])
            for event in events:
                self.note(event["kv"])  # that of a deletion has no value
                self.next = int(event["kv"]["mod_revision"]) + 1
            if not events and not result.get("created"):
                self.next = int(result["header"]["revision"]) + 1

    def run(self):
        while True:
            try:
                if self.next is None:
                    self.read()
                self.follow()
            except (Refused, *BROKEN) as error:
                print(f"{error}; watching again", file=sys.stderr)
                self.etcd.next_endpoint()
                time.sleep(1)


def main():
    if len(sys.argv) not in (3, 5):
        sys.exit("usage: registry.py ENDPOINTS SERVICE [NAME ADDRESS]")
    endpoints, service, *instance = sys.argv[1:]
    etcd = Etcd(endpoints)
    if instance:
        stay_registered(etcd, service, *instance)
    else:
        Watcher(etcd, service).run()


if __name__ == "__main__":
    main()
