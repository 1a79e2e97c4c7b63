# SPDX-License-Identifier: Apache-2.0
"""Fetch one `hgt.YYYY.nc` from NOAA PSL or a mirror: a base URL in, a verified file and its provenance out.

The mirrors of `ncep_r1.urls` (https, http, file:// or a plain folder) are tried in turn. Bytes go to
`hgt.YYYY.nc.part`; a cut transfer, or one that has become slower than SLOWEST_BYTES_PER_S, is resumed where
the server offers ranges and its file is still the same. Proxies come from the environment (requests).
Only a file that was read to its end as a complete year (`verify_ncep_file`) gets its final name; NOAA
publishes no checksums, so ours goes into `hgt.YYYY.nc.json` beside it.
"""

import os
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

import requests
from urllib3.exceptions import HTTPError

from isohypse import __version__
from isohypse.config.sections import NcepR1
from isohypse.data.sources.ncep import verify_ncep_file
from isohypse.data.sources.record import check_record, record_path, write_record
from isohypse.errors import DataError, DownloadError, StorageError
from isohypse.progress import Progress
from isohypse.storage import no_room, read_json, write_json

BLOCK_BYTES = 2**16
SLOWEST_BYTES_PER_S = 1024  # over timeout_seconds; less is a stall
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 2.0, 120.0
TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)
CUT = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError, HTTPError)


class _TryAgainError(Exception):
    """A failure that may pass. `pause_seconds` is what the server asked for, if it did."""

    def __init__(self, reason: str, pause_seconds: float = 0.0):
        super().__init__(reason)
        self.pause_seconds = pause_seconds


def download_year(ncep: NcepR1, year: int, destination: Path | str) -> None:
    """Fetch the file of `year` to `destination`.

    Raises DownloadError with what each mirror answered; then `destination` is as it was before, and a part
    that can be resumed waits beside it for the next call. Raises StorageError if the disk is full.
    """
    destination = Path(destination)
    destination.parent.mkdir(parents=True, exist_ok=True)
    problems = []
    with requests.Session() as session:
        # Compressed transfer would make the length and the ranges those of other bytes.
        session.headers.update({"Accept-Encoding": "identity", "User-Agent": f"isohypse/{__version__}"})
        for base in ncep.urls:
            url = f"{base.rstrip('/')}/hgt.{year}.nc"
            try:
                return _Transfer(url, year, destination, ncep, session).run()
            except DownloadError as error:
                problems.append(str(error))
    raise DownloadError(
        f"hgt.{year}.nc could not be fetched: {'; '.join(problems)}. "
        f"Run again, or put the file at {destination}"
    )


class _Transfer:
    """One file from one mirror."""

    def __init__(self, url: str, year: int, destination: Path, ncep: NcepR1, session: requests.Session):
        self.url, self.year, self.destination = url, year, destination
        self.ncep, self.session = ncep, session
        self.part = destination.with_name(destination.name + ".part")
        self.validator_path = destination.with_name(destination.name + ".part.json")

    def run(self) -> None:
        fetch = self._copy if _local_path(self.url) else self._get
        for attempt in range(1, self.ncep.attempts + 1):
            try:
                self._accept(fetch())
                return
            except _TryAgainError as error:
                if attempt == self.ncep.attempts:
                    raise DownloadError(f"{self.url}: {error} ({attempt} attempts)") from None
                time.sleep(max(_pause_seconds(attempt), error.pause_seconds))

    def _accept(self, answer: dict[str, str | None]) -> None:
        """Verify the complete part, give it its name; or throw it away."""
        try:
            verify_ncep_file(self.part, self.year)
        except DataError as error:
            self._forget()
            raise _TryAgainError(f"sent a wrong file: {str(error).replace(str(self.part), 'it')}") from None
        origin = {
            "url": self.url,
            "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
            "etag": answer.get("etag"),
            "last_modified": answer.get("last_modified"),
        }
        # The record first: whoever sees the file under its name finds both.
        write_record(self.destination, self.part, origin)
        os.replace(self.part, self.destination)
        self._forget()

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.validator_path.unlink(missing_ok=True)

    def _copy(self) -> dict[str, str | None]:
        source = _local_path(self.url)
        self._forget()
        try:
            with source.open("rb") as file:
                total = source.stat().st_size
                self._write(iter(lambda: file.read(BLOCK_BYTES), b""), "wb", 0, total)
        except OSError as error:
            raise DownloadError(f"{self.url}: {error.strerror}") from None
        try:
            check_record(self.part, record_path(source))  # of a folder that Isohypse filled
        except DataError as error:
            self._forget()
            raise DownloadError(f"{self.url}: {str(error).replace(str(self.part), 'it')}") from None
        modified = datetime.fromtimestamp(source.stat().st_mtime, UTC)
        return {"last_modified": modified.isoformat(timespec="seconds")}

    def _get(self) -> dict[str, str | None]:
        """Fetch the part to its end. Raises _TryAgainError, or DownloadError if the answer is final."""
        resumed = self._resumable_bytes()
        headers = {}
        if resumed:
            headers = {"Range": f"bytes={resumed}-", "If-Range": read_json(self.validator_path)["validator"]}
        try:
            with self.session.get(
                self.url, headers=headers, stream=True, timeout=self.ncep.timeout_seconds
            ) as response:
                self._check_status(response)
                return self._receive(response, resumed if response.status_code == 206 else 0)
        except CUT as error:  # total silence among them: the timeout is that of one read
            raise _TryAgainError(f"connection failed or was cut ({type(error).__name__})") from None
        except requests.RequestException as error:
            raise DownloadError(f"{self.url}: {error}") from None

    def _resumable_bytes(self) -> int:
        """Bytes that need not be sent again: those of this URL, from a server that offers ranges."""
        try:
            same = read_json(self.validator_path)["url"] == self.url
            return self.part.stat().st_size if same else 0
        except (OSError, ValueError, KeyError):
            return 0

    def _check_status(self, response: requests.Response) -> None:
        status = f"HTTP {response.status_code} {response.reason}".strip()
        if response.status_code == 416:  # the part is not a beginning of the file
            self._forget()
            raise _TryAgainError(status)
        if response.status_code in TRY_AGAIN:
            raise _TryAgainError(status, _asked_pause(response))
        if response.status_code not in (200, 206):
            raise DownloadError(f"{self.url}: {status}")

    def _receive(self, response: requests.Response, resumed: int) -> dict[str, str | None]:
        if response.status_code == 206 and not _starts_at(response, resumed):
            self._forget()
            raise _TryAgainError("sent another range than asked for")
        if not resumed:
            self._remember(response)
        length = response.headers.get("Content-Length")
        expected = resumed + int(length) if length and length.isdigit() else None
        self._write(self._arriving(response), "ab" if resumed else "wb", resumed, expected)
        received = self.part.stat().st_size
        if expected is not None and received != expected:
            raise _TryAgainError(f"sent {received} of {expected} bytes")
        return {"etag": response.headers.get("ETag"), "last_modified": response.headers.get("Last-Modified")}

    def _arriving(self, response: requests.Response) -> Iterator[bytes]:
        """What has come, at once: a cut loses nothing then. Raises _TryAgainError if too little comes."""
        since, received = time.monotonic(), 0
        while block := response.raw.read1(BLOCK_BYTES):
            yield block
            received += len(block)
            waited = time.monotonic() - since
            if waited > self.ncep.timeout_seconds:
                if received < SLOWEST_BYTES_PER_S * waited:
                    raise _TryAgainError(f"stalled: {received} bytes in {waited:.0f} s")
                since, received = time.monotonic(), 0

    def _remember(self, response: requests.Response) -> None:
        """Note what makes a later resumption safe, or that there is none."""
        self._forget()
        etag = response.headers.get("ETag", "")
        strong = etag if etag and not etag.startswith("W/") else None  # RFC 9110, 13.1.5
        validator = strong or response.headers.get("Last-Modified")
        if validator and response.headers.get("Accept-Ranges", "none").lower() == "bytes":
            write_json(self.validator_path, {"url": self.url, "validator": validator})

    def _write(self, blocks: Iterator[bytes], mode: str, resumed: int, total: int | None) -> None:
        label = f"hgt.{self.year}.nc"
        try:
            with self.part.open(mode) as file, Progress(total or 0, label, "B", initial=resumed) as progress:
                _pour(blocks, file, progress)
        except OSError as error:
            if no_room(error, self.part.parent):
                raise StorageError(
                    f"{self.destination}: no room on this disk; make room and run the same command again"
                ) from error
            raise


def _pour(blocks: Iterator[bytes], file: IO[bytes], progress: Progress) -> None:
    for block in blocks:
        file.write(block)
        progress.advance(len(block))


def _local_path(url: str) -> Path | None:
    """The path that a file:// URL or a plain path means; None for http and https."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return None if parts.scheme in ("http", "https") else Path(url).expanduser()


def _starts_at(response: requests.Response, offset: int) -> bool:
    return response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")


def _asked_pause(response: requests.Response) -> float:
    asked = response.headers.get("Retry-After", "")
    return min(float(asked), LONGEST_PAUSE_SECONDS) if asked.isdigit() else 0.0


def _pause_seconds(attempt: int) -> float:
    """Exponential, with jitter, so that many jobs do not come back at the same moment."""
    longest = min(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1), LONGEST_PAUSE_SECONDS)
    return longest * random.uniform(0.5, 1.0)
