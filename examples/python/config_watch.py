#!/usr/bin/env python3
"""Configuration that is followed while it changes: config_watch.py ENDPOINTS PREFIX

Prints `set KEY VALUE` and `deleted KEY`, first for what is there, then for every change, and `read at revision N` when all was
read. Runs until it is ended.
"""

import sys
import time

from etcd import BROKEN, Etcd, Refused, decode, prefix_range


class Follower:
    """The configuration under a prefix, as far as it is known here."""

    def __init__(self, etcd, prefix):
        self.etcd, self.range = etcd, prefix_range(prefix)
        self.known = {}  # what was printed last
        self.next = None  # the first revision that is not seen yet; None: all has to be read

    def set(self, key, value):
        self.known[key] = value
        print("set", key, value, flush=True)

    def delete(self, key):
        self.known.pop(key, None)
        print("deleted", key, flush=True)

    def read(self):
        """Reads all, and prints what differs from what is known. This is right the first time as well as later: what happened in
        between shows in the difference."""
        answer = self.etcd.again("/v3/kv/range", self.range)
        found = {decode(kv["key"]): decode(kv.get("value", "")) for kv in answer.get("kvs", [])}
        for key in self.known.keys() - found.keys():
            self.delete(key)
        for key, value in found.items():
            if self.known.get(key) != value:
                self.set(key, value)
        # Of the whole store, not of these keys: the watch has to begin right behind what was read.
        revision = int(answer["header"]["revision"])
        self.next = revision + 1
        print("read at revision", revision, flush=True)

    def follow(self):
        """Follows from `self.next` until history from there on is compacted or the connection breaks."""
        # Progress says now and then how far the store is, so that we never fall behind a compaction while nothing changes here.
        create = {**self.range, "start_revision": self.next, "progress_notify": True}
        for result in self.etcd.stream("/v3/watch", {"create_request": create}):
            if "compact_revision" in result:
                self.next = None  # what happened since is forgotten: only what is there now can be read
                return
            if result.get("canceled"):
                raise Refused({"message": result.get("cancel_reason", "canceled")})
            events = result.get("events", [])
            for event in events:
                kv = event["kv"]
                if event.get("type") == "DELETE":
                    self.delete(decode(kv["key"]))
                else:
                    self.set(decode(kv["key"]), decode(kv.get("value", "")))
                self.next = int(kv["mod_revision"]) + 1
            # An answer without events that does not tell of the creation is progress: nothing is missing up to there.
            if not events and not result.get("created"):
                self.next = int(result["header"]["revision"]) + 1


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: config_watch.py ENDPOINTS PREFIX")
    follower = Follower(Etcd(sys.argv[1]), sys.argv[2])
    while True:
        # Reading and watching change nothing: both may be repeated whatever the error was.
        try:
            if follower.next is None:
                follower.read()
            follower.follow()
        except (Refused, *BROKEN) as error:
            print(f"{error}; going on from revision {follower.next}", file=sys.stderr)
            follower.etcd.next_endpoint()
            time.sleep(1)


if __name__ == "__main__":
    main()
