"""An object store in memory that speaks as much S3 as Delta Lake asks of one, so that no test needs a server or a package for it."""

import hashlib
import json
import multiprocessing
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from urllib.request import Request, urlopen
from xml.sax.saxutils import escape, unescape

WRITING = threading.Lock()
"""A put that must not replace anything looks and writes in one step."""


class Objects(BaseHTTPRequestHandler):
    """Puts (also those that must not replace anything, and uploads in pieces), gets (also of a range), lists and deletes."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet
    disable_nagle_algorithm = True
    kept: dict[str, bytes]
    """Contents by `bucket/key`."""
    pieces: dict[tuple[str, int], bytes]
    """Pieces of uploads that aren't complete yet, by `bucket/key` and number."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
        """Say nothing."""

    @property
    def place(self) -> str:
        """`bucket/key`."""
        return unquote(urlsplit(self.path).path).lstrip("/")

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send a whole answer."""
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body)), "Last-Modified": "Sun, 01 Mar 2026 12:00:00 GMT"} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            with suppress(ConnectionError):  # who asked has read enough
                self.wfile.write(body)

    def read(self) -> bytes:
        """The body of the request."""
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_PUT(self) -> None:
        body, query = self.read(), parse_qs(urlsplit(self.path).query)
        if "uploadId" in query:
            self.pieces[self.place, int(query["partNumber"][0])] = body
            self.answer(200, ETag=etag(body))
            return
        with WRITING:
            if self.headers.get("If-None-Match") == "*" and self.place in self.kept:
                self.answer(412)
                return
            self.kept[self.place] = body
        self.answer(200, ETag=etag(body))

    def do_GET(self) -> None:
        if self.path == "/":
            self.answer(200, json.dumps(sorted(self.kept)).encode())
            return
        query = parse_qs(urlsplit(self.path).query)
        if "list-type" in query:
            self.answer(200, self.listing(query), Content_Type="application/xml")
        elif self.place not in self.kept:
            self.answer(404)
        else:
            whole = self.kept[self.place]
            status, body, headers = 200, whole, {"ETag": etag(whole)}
            if wanted := self.headers.get("Range"):
                first, last = wanted.removeprefix("bytes=").split("-")
                begin, end = (int(first), int(last or len(whole) - 1)) if first else (len(whole) - int(last), len(whole) - 1)
                end = min(end, len(whole) - 1)
                status, body = 206, whole[begin : end + 1]
                headers["Content-Range"] = f"bytes {begin}-{end}/{len(whole)}"
            self.answer(status, body, **headers)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_DELETE(self) -> None:
        self.kept.pop(self.place, None)
        self.answer(204)

    def do_POST(self) -> None:
        """Begin or complete an upload in pieces, or delete the keys that the body lists."""
        query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        if "uploads" in query:
            self.answer(200, b"<R><UploadId>1</UploadId></R>", Content_Type="application/xml")
            return
        if "uploadId" in query:
            self.read()
            numbers = sorted(number for place, number in self.pieces if place == self.place)
            self.kept[self.place] = b"".join(self.pieces.pop((self.place, number)) for number in numbers)
            self.answer(200, f"<R><ETag>{escape(etag(self.kept[self.place]))}</ETag></R>".encode(), Content_Type="application/xml")
            return
        bucket = self.place.rstrip("/")
        keys = [unescape(each) for each in re.findall("<Key>(.*?)</Key>", self.read().decode())]
        for key in keys:
            self.kept.pop(f"{bucket}/{key}", None)
        gone = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
        self.answer(200, f"<DeleteResult>{gone}</DeleteResult>".encode(), Content_Type="application/xml")

    def listing(self, query: dict[str, list[str]]) -> bytes:
        """The keys below a prefix; up to a delimiter, if one is asked for."""
        bucket, prefix, delimiter = self.place.rstrip("/"), query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
        keys = sorted(each.removeprefix(f"{bucket}/") for each in self.kept if each.startswith(f"{bucket}/{prefix}"))
        keys = [each for each in keys if each > query.get("start-after", [""])[0]]
        folders = {
            prefix + each.removeprefix(prefix).split(delimiter)[0] + delimiter
            for each in keys
            if delimiter and delimiter in each.removeprefix(prefix)
        }
        found = [
            f"<Contents><Key>{escape(each)}</Key><Size>{len(self.kept[f'{bucket}/{each}'])}</Size><ETag>x</ETag>"
            "<LastModified>2026-03-01T12:00:00.000Z</LastModified></Contents>"
            for each in keys
            if not any(each.startswith(folder) for folder in folders)
        ]
        common = [f"<CommonPrefixes><Prefix>{escape(each)}</Prefix></CommonPrefixes>" for each in sorted(folders)]
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{''.join(found + common)}</ListBucketResult>".encode()


def etag(body: bytes) -> str:
    """What names a content."""
    return f'"{hashlib.md5(body).hexdigest()}"'


class Kept:
    """What a store keeps, by `bucket/key`."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __iter__(self) -> Iterator[str]:
        with urlopen(self.url) as answer:
            yield from json.load(answer)

    def __setitem__(self, place: str, content: bytes) -> None:
        with urlopen(Request(self.url + quote(place), content, method="PUT")):
            return


def serve(port: Connection) -> None:
    """Serve an empty store on this machine, and say where."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OwnObjects", (Objects,), {"kept": {}, "pieces": {}}))
    port.send(server.server_port)
    server.serve_forever()


@contextmanager
def object_store() -> Iterator[tuple[dict[str, str], Kept]]:
    """Serve an empty store; the environment variables that make `s3://` mean it, and what it keeps.

    By a process of its own: Delta Lake asks it while it holds this one's interpreter.
    """
    processes = multiprocessing.get_context("spawn")
    ours, theirs = processes.Pipe()
    server = processes.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    try:
        url = f"http://127.0.0.1:{ours.recv()}"
        settings = {
            "AWS_ENDPOINT_URL": url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_CONDITIONAL_PUT": "etag",
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_REGION": "us-east-1",
        }
        yield settings, Kept(f"{url}/")
    finally:
        server.terminate()
        server.join()
