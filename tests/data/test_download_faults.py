# SPDX-License-Identifier: Apache-2.0
"""100 random sequences of faults, drawn from the ways in which servers misbehave."""

import hashlib
import json
import random
import re
import time
from collections.abc import Callable

import pytest

from isohypse.errors import DownloadError

ETAG = '"one"'


def send(handler, status: int, body: bytes = b"", length: int | None = None, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body)


class Fault:
    """One answer: what is sent of the file, and whether the server offers ranges."""

    def __init__(self, rng: random.Random):
        faults = (self.whole, self.cut, self.corrupt, self.too_long, self.silent, self.redirect, self.page)
        self.answer: Callable = rng.choice([*faults, self.hang_up, self.refuse, self.refuse])
        self.status = rng.choice([500, 502, 503, 504, 429, 404, 403])
        self.place, self.noise = rng.random(), random.Random(rng.random())
        self.headers = {"ETag": ETAG, "Accept_Ranges": "bytes"} if rng.random() < 0.6 else {}

    def __call__(self, handler, content: bytes) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        if self.answer == self.whole and self.headers and asked and handler.headers.get("If-Range") == ETAG:
            span = f"bytes {asked[1]}-{len(content) - 1}/{len(content)}"
            send(handler, 206, content[int(asked[1]) :], Content_Range=span, ETag=ETAG)
        else:
            self.answer(handler, content)

    def whole(self, handler, content):
        send(handler, 200, content, **self.headers)

    def cut(self, handler, content):
        send(handler, 200, content[: int(self.place * len(content))], len(content), **self.headers)

    def corrupt(self, handler, content):
        # Not the header: the library may hang on one whose inner addresses go round in a circle.
        damaged = bytearray(content)
        for _ in range(2000):
            place = self.noise.randrange(len(content) // 4, len(content) * 3 // 4)
            damaged[place] ^= 1 << self.noise.randrange(8)
        send(handler, 200, bytes(damaged), **self.headers)

    def too_long(self, handler, content):
        send(handler, 200, content, len(content) + 1 + int(self.place * 1000), **self.headers)

    def silent(self, handler, content):
        self.cut(handler, content)
        time.sleep(0.4)

    def redirect(self, handler, content):
        if handler.path.startswith("/again"):
            self.whole(handler, content)
        else:
            send(handler, 302, Location=f"/again{handler.path}")

    def page(self, handler, content):
        send(handler, 200, b"<html>Down for maintenance</html>")

    def hang_up(self, handler, content):
        handler.connection.close()

    def refuse(self, handler, content):
        send(handler, self.status, b"no")


@pytest.mark.parametrize("block", range(4))
def test_100_random_sequences_of_faults(server, fetch, content, tmp_path, block):
    """The file is right at the end, or there is an error and no file; one that was there stays."""
    right = 0
    for seed in range(25 * block, 25 * block + 25):
        rng = random.Random(seed)
        server.requests.clear()
        server.answers = [Fault(rng) for _ in range(4)]
        folder = tmp_path / "data"
        for leftover in folder.glob("*") if seed % 2 else ():
            leftover.unlink()
        before = {path.name for path in folder.iterdir()} if folder.exists() else set()
        refusal = None
        try:
            fetch(attempts=4, timeout_seconds=0.2)
            right += 1
        except DownloadError as error:
            refusal = str(error)
        if refusal is not None:
            assert "hgt.2026.nc could not be fetched" in refusal
            assert ("hgt.2026.nc" in before) == (folder / "hgt.2026.nc").exists()
        if (folder / "hgt.2026.nc").exists():
            assert (folder / "hgt.2026.nc").read_bytes() == content, f"seed {seed}"
            noted = json.loads((folder / "hgt.2026.nc.json").read_text())
            assert noted["sha256"] == hashlib.sha256(content).hexdigest(), f"seed {seed}"
    assert 5 < right < 25
