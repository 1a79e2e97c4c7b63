# SPDX-License-Identifier: Apache-2.0
"""The download against a server of our own that misbehaves in the ways servers do."""

import hashlib
import json
import re
import resource
import time

import pytest

from isohypse.config.sections import NcepR1
from isohypse.data.sources import download
from isohypse.data.sources.download import download_year
from isohypse.errors import DownloadError, StorageError

ETAG = '"one"'


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
    server.answers = [whole]
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
    server.answers = [whole]
    ncep = NcepR1(urls=(server.url,), attempts=1)
    with pytest.raises(
        DownloadError, match="sent a wrong file: it: starts at 2026-01-01T00:00, expected 2025"
    ):
        download_year(ncep, 2025, tmp_path / "data" / "hgt.2025.nc")
    assert names_in(tmp_path) == []


def silent(handler, content, **headers):
    """Some bytes, and then nothing for longer than the client waits."""
    send(handler, 200, content[:5000], len(content), **headers)
    time.sleep(0.4)


def trickle(handler, content, **headers):
    """A few bytes now and then, so that no single read ever times out."""
    send(handler, 200, content[:100], len(content), **headers)
    for place in range(100, 130):
        time.sleep(0.02)
        handler.wfile.write(content[place : place + 1])


@pytest.mark.parametrize("stall", [silent, trickle])
def test_a_stall_is_given_up_and_resumed(server, fetch, content, stall):
    server.answers = [ranges(stall), ranges()]
    assert_complete(fetch(timeout_seconds=0.2), content)
    assert int(re.fullmatch(r"bytes=(\d+)-", server.requests[1]["Range"])[1]) >= 100


def test_proxies_come_from_the_environment(server, fetch, content, monkeypatch):
    server.answers = [whole]
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert_complete(fetch("http://nowhere.invalid/data/"), content)
    assert server.requests[0]["path"] == "http://nowhere.invalid/data/hgt.2026.nc"


def test_a_mirror_of_our_own_is_checked_against_its_records(tmp_path, fetch, content):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    changed = content.replace(b"4x daily NMC", b"4x dayly NMC")  # nothing that could be seen in the heights
    for name, stored in (("right", content), ("wrong", changed)):
        (mirror / "hgt.2026.nc").write_bytes(stored)
        record = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        (mirror / "hgt.2026.nc.json").write_text(json.dumps(record))
        if name == "right":
            assert_complete(fetch(str(mirror)), content)
        else:
            with pytest.raises(DownloadError, match="has changed since its SHA-256 was recorded"):
                fetch(str(mirror))


def test_a_full_disk_is_told_and_no_other_mirror_is_asked(server, fetch, content, tmp_path):
    """A file size limit stands for a full disk."""
    server.answers = [whole]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, before[1]))
    try:
        with pytest.raises(StorageError, match=r"hgt\.2026\.nc: no room on this disk; make room"):
            fetch(server.url, server.url)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(server.requests) == 1
    assert "hgt.2026.nc" not in names_in(tmp_path)
    server.answers = [whole]
    assert_complete(fetch(), content)
