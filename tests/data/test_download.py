# SPDX-License-Identifier: Apache-2.0
"""The download against a server of our own that misbehaves in the ways servers do."""

import hashlib
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from isohypse.config.sections import NcepR1
from isohypse.data.sources import download
from isohypse.data.sources.download import download_year
from isohypse.errors import DownloadError

ETAG = '"one"'


class Server:
    """Answers the n-th request by the n-th of `answers` (the last one again and again); notes the headers."""

    def __init__(self, content: bytes):
        self.content = content
        self.answers: list[Callable] = [whole]
        self.requests: list[dict[str, str]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.requests.append({"path": self.path, **self.headers})
                answer = server.answers[min(len(server.requests), len(server.answers)) - 1]
                answer(self, server.content)

            def log_message(self, *_arguments):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/data/"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


def send(handler, status: int, body: bytes = b"", length: int | None = None, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body)


def whole(handler, content, **headers):
    send(handler, 200, content, **headers)


def cut(handler, content, **headers):
    """Half of the file, and the promise of all of it."""
    send(handler, 200, content[: len(content) // 2], len(content), **headers)


def status(code: int, **headers):
    return lambda handler, content: send(handler, code, b"no", **headers)


def ranges(answer=whole, etag=ETAG):
    """A server that offers ranges, and honours If-Range."""

    def serve(handler, content):
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        if asked and handler.headers.get("If-Range") == etag:
            first = int(asked[1])
            span = f"bytes {first}-{len(content) - 1}/{len(content)}"
            send(handler, 206, content[first:], Content_Range=span, ETag=etag)
        else:
            answer(handler, content, ETag=etag, Accept_Ranges="bytes")

    return serve


@pytest.fixture(scope="module")
def content(tmp_path_factory, write_ncep) -> bytes:
    path = tmp_path_factory.mktemp("source") / "hgt.2026.nc"
    write_ncep(path, steps=2)
    return path.read_bytes()


@pytest.fixture
def server(content, monkeypatch):
    monkeypatch.setattr(download, "FIRST_PAUSE_SECONDS", 0.001)
    server = Server(content)
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def fetch(server, tmp_path):
    """Fetch hgt.2026.nc into an empty folder; returns its path."""

    def run(*urls, attempts=3):
        ncep = NcepR1(urls=urls or (server.url,), attempts=attempts, timeout_seconds=5)
        download_year(ncep, 2026, tmp_path / "data" / "hgt.2026.nc")
        return tmp_path / "data" / "hgt.2026.nc"

    return run


def assert_complete(path, content):
    assert path.read_bytes() == content
    assert sorted(found.name for found in path.parent.iterdir()) == ["hgt.2026.nc", "hgt.2026.nc.json"]


def assert_resumed_near_the_cut(request, content):
    start = int(re.fullmatch(r"bytes=(\d+)-", request["Range"])[1])
    assert 0 <= len(content) // 2 - start <= download.BLOCK_BYTES


def names_in(tmp_path) -> list[str]:
    return sorted(found.name for found in (tmp_path / "data").iterdir())


def test_a_plain_download_with_its_provenance(server, fetch, content):
    server.answers = [ranges()]
    path = fetch()
    assert_complete(path, content)
    assert server.requests[0]["path"] == "/data/hgt.2026.nc"
    noted = json.loads((path.parent / "hgt.2026.nc.json").read_text())
    assert noted["sha256"] == hashlib.sha256(content).hexdigest()
    assert noted["bytes"] == len(content)
    assert noted["etag"] == ETAG
    assert noted["url"] == server.url + "hgt.2026.nc"


FAILURES = {
    "503": status(503),
    "429": status(429, Retry_After="0"),
    "cut": cut,
    "wrong length": lambda handler, content: send(handler, 200, content[:-100]),
    "HTML": lambda handler, content: send(handler, 200, b"<html>Down for maintenance</html>"),
    "empty": lambda handler, content: send(handler, 200),
    "hung up": lambda handler, content: handler.connection.close(),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_failures_that_pass_are_tried_again(server, fetch, content, failure):
    server.answers = [FAILURES[failure], FAILURES[failure], whole]
    assert_complete(fetch(), content)
    assert len(server.requests) == 3


@pytest.mark.parametrize("failure", FAILURES)
def test_failures_that_last_leave_no_file(server, fetch, tmp_path, failure):
    server.answers = [FAILURES[failure]]
    with pytest.raises(
        DownloadError, match=r"hgt\.2026\.nc could not be fetched: http.*\(3 attempts\)"
    ) as caught:
        fetch()
    assert "\n" not in str(caught.value)
    assert len(server.requests) == 3
    assert not {"hgt.2026.nc", "hgt.2026.nc.json"} & set(names_in(tmp_path))


def test_404_is_final(server, fetch, tmp_path):
    server.answers = [status(404)]
    with pytest.raises(DownloadError, match="HTTP 404"):
        fetch()
    assert len(server.requests) == 1
    assert names_in(tmp_path) == []


def test_the_next_mirror_is_asked(server, fetch, content):
    server.answers = [status(404), whole]
    assert_complete(fetch(server.url + "old", server.url), content)
    assert [request["path"] for request in server.requests] == ["/data/old/hgt.2026.nc", "/data/hgt.2026.nc"]


def test_nobody_listens(fetch, tmp_path):
    with pytest.raises(DownloadError, match=r"ConnectionError.*3 attempts"):
        fetch("http://127.0.0.1:9/")
    assert names_in(tmp_path) == []


def test_a_redirect_is_followed(server, fetch, content):
    server.answers = [status(302, Location=server.url + "elsewhere"), whole]
    assert_complete(fetch(), content)


def test_a_cut_transfer_is_resumed(server, fetch, content):
    server.answers = [ranges(cut), ranges()]
    assert_complete(fetch(), content)
    assert_resumed_near_the_cut(server.requests[1], content)
    assert server.requests[1]["If-Range"] == ETAG


def test_resumption_outlives_the_process(server, fetch, content):
    server.answers = [ranges(cut), ranges()]
    with pytest.raises(DownloadError):
        fetch(attempts=1)
    assert_complete(fetch(attempts=1), content)
    assert_resumed_near_the_cut(server.requests[1], content)


def test_a_file_that_changed_meanwhile_is_fetched_anew(server, fetch, content):
    server.answers = [ranges(cut, etag='"before"'), ranges()]
    assert_complete(fetch(), content)
    assert server.requests[1]["If-Range"] == '"before"'


def test_without_offered_ranges_everything_is_sent_again(server, fetch, content):
    server.answers = [cut, whole]
    assert_complete(fetch(), content)
    assert "Range" not in server.requests[1]


def test_a_weak_validator_is_not_trusted(server, fetch, content):
    server.answers = [ranges(cut, etag='W/"one"'), ranges()]
    assert_complete(fetch(), content)
    assert "Range" not in server.requests[1]


@pytest.mark.parametrize("span", ["bytes 0-9/10", ""])
def test_another_range_than_asked_for_is_thrown_away(server, fetch, content, span):
    def wrong(handler, content):
        send(handler, 206, content[:10], Content_Range=span)

    server.answers = [ranges(cut), wrong, ranges()]
    assert_complete(fetch(), content)


def test_416_starts_anew(server, fetch, content):
    server.answers = [ranges(cut), status(416), ranges()]
    assert_complete(fetch(), content)
    assert "Range" not in server.requests[2]


def test_a_corrupt_resumed_file_is_fetched_anew(server, fetch, content):
    def corrupt(handler, content, **headers):
        cut(handler, bytes(len(content)), **headers)

    server.answers = [ranges(corrupt), ranges(), ranges()]
    assert_complete(fetch(), content)
    assert "Range" in server.requests[1]
    assert "Range" not in server.requests[2]


def test_a_failed_download_keeps_the_file_that_was_there(server, fetch, content):
    path = fetch()
    server.answers = [status(500)]
    with pytest.raises(DownloadError, match="HTTP 500"):
        fetch()
    assert_complete(path, content)


@pytest.mark.parametrize("scheme", ["file://", ""])
def test_local_folders_are_copied(tmp_path, fetch, content, scheme):
    mirror = tmp_path / "my mirror"
    mirror.mkdir()
    with pytest.raises(DownloadError, match=r"hgt\.2026\.nc: No such file"):
        fetch(f"{scheme}{mirror}")
    (mirror / "hgt.2026.nc").write_bytes(content)
    assert_complete(fetch(f"{scheme}{mirror}"), content)
    assert (mirror / "hgt.2026.nc").exists()


def test_the_wrong_year_is_refused(tmp_path, server, content):
    ncep = NcepR1(urls=(server.url,), attempts=1)
    with pytest.raises(
        DownloadError, match="sent a wrong file: it: starts at 2026-01-01T00:00, expected 2025"
    ):
        download_year(ncep, 2025, tmp_path / "data" / "hgt.2025.nc")
    assert names_in(tmp_path) == []
