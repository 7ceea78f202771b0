"""What the four programs share: etcd's HTTP/JSON with Python's standard library alone.

Keys and values are base64 in JSON, 64-bit numbers are texts, and fields that are zero or empty are left out.
"""

import base64
import http.client
import json
import socket
import threading
import time
import urllib.parse

TOO_LATE, NOT_FOUND, UNAVAILABLE = 4, 5, 14


class Refused(Exception):
    """The server answered, with an error of gRPC's."""

    def __init__(self, error):
        super().__init__(error.get("message", "refused without a reason"))
        self.code = error.get("code")

    def may_pass(self):
        return self.code in (UNAVAILABLE, TOO_LATE)


# What a broken connection shows itself by. (http.client.HTTPException: the answer ended too early.)
BROKEN = (OSError, http.client.HTTPException, ValueError)


class Etcd:
    """A client of one cluster; any member will do."""

    def __init__(self, endpoints):
        self.endpoints = endpoints.split(",")

    def _connect(self, timeout):
        """A connection to the first endpoint that takes one. Nothing is sent yet, so any may be tried."""
        for _ in self.endpoints:
            url = urllib.parse.urlsplit(self.endpoints[0])
            kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
            connection = kind(url.hostname, url.port or 2379, timeout=5)
            try:
                connection.connect()
            except OSError as error:
                last = error
                self.next_endpoint()
                continue
            # A host that is gone without a word is noticed by the operating system, though nothing is sent.
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connection.sock.settimeout(timeout)
            return connection
        raise last

    def next_endpoint(self):
        self.endpoints = self.endpoints[1:] + self.endpoints[:1]

    def _open(self, path, body, timeout):
        connection = self._connect(timeout)
        # A member that has lost the others is to end a stream: else it would be silent while they go on.
        headers = {"Content-Type": "application/json", "Grpc-Metadata-hasleader": "true"}
        connection.request("POST", path, json.dumps(body), headers)
        return connection.getresponse()

    def once(self, path, body, timeout=5):
        """Asks once. After an error other than `Refused` nobody knows what the server did."""
        with self._open(path, body, timeout) as response:
            answer = json.loads(response.read())
        if response.status != 200 or "error" in answer:
            raise Refused(answer.get("error", answer))
        return answer

    def again(self, path, body, timeout=5):
        """Asks until there is an answer. Only for what may be done twice. `timeout=None`: an answer may take for ever."""
        while True:
            try:
                return self.once(path, body, timeout)
            except Refused as error:
                if not error.may_pass():
                    raise
            except BROKEN:
                pass
            self.next_endpoint()
            time.sleep(1)

    def stream(self, path, body):
        """Results of an answer that goes on (one JSON value a line), until the connection breaks."""
        with self._open(path, body, timeout=None) as response:
            for line in response:
                message = json.loads(line)
                if "result" not in message:
                    raise Refused(message.get("error", message))
                yield message["result"]


class Lease:
    """A lease that is renewed by a thread until it is gone; then `lost` is called."""

    def __init__(self, etcd, ttl, lost=lambda: None):
        self.etcd, self.ttl, self.lost = etcd, ttl, lost
        # May be done twice: a lease that an answer was lost for runs out by itself.
        self.id = etcd.again("/v3/lease/grant", {"TTL": ttl})["ID"]
        threading.Thread(target=self._keep_alive, daemon=True).start()

    def _keep_alive(self):
        # A thread of its own, so endpoints of its own: threads do not share the list.
        etcd = Etcd(",".join(self.etcd.endpoints))
        expires = time.monotonic() + self.ttl
        while time.monotonic() < expires:
            sent = time.monotonic()
            try:
                answer = etcd.once("/v3/lease/keepalive", {"ID": self.id})
            except (Refused, *BROKEN):
                etcd.next_endpoint()
                time.sleep(1)
                continue
            if "TTL" not in answer["result"]:
                break  # there is no such lease
            # Counted from when it was asked for: the server may have renewed it right then.
            expires = sent + self.ttl
            time.sleep(self.ttl / 3)
        self.lost()

    def revoke(self):
        """Ends it; its keys go with it."""
        self.lost = lambda: None
        try:
            self.etcd.again("/v3/lease/revoke", {"ID": self.id})
        except Refused as error:
            if error.code != NOT_FOUND:  # it ran out, or this was the second try: gone is gone
                raise


def encode(text):
    return base64.b64encode(text.encode()).decode()


def decode(field):
    return base64.b64decode(field).decode(errors="replace")


def prefix_range(prefix):
    """Key and range_end of all keys with a prefix: the end is the prefix with its last byte one higher."""
    key = prefix.encode().rstrip(b"\xff")
    end = key[:-1] + bytes([key[-1] + 1])
    return {"key": encode(prefix), "range_end": base64.b64encode(end).decode()}
