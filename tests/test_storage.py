# SPDX-License-Identifier: Apache-2.0
"""A result is there and whole, or not there."""

import argparse
import errno

import pytest

from isohypse import cli
from isohypse.errors import StorageError
from isohypse.storage import atomic_path, read_json, write_json


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_its_writer_has_finished(tmp_path):
    with atomic_path(tmp_path / "deep" / "a.txt") as path:
        path.write_text("new")
        assert not (tmp_path / "deep" / "a.txt").exists()
        assert path.suffix == ".txt"
    assert (tmp_path / "deep" / "a.txt").read_text() == "new"
    assert listing(tmp_path / "deep") == ["a.txt"]


def test_a_failure_leaves_the_old_result_and_nothing_else(tmp_path):
    (tmp_path / "a.txt").write_text("old")

    def write():
        with atomic_path(tmp_path / "a.txt") as path:
            path.write_text("half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        write()
    assert listing(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_folder_is_replaced_whole(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "stale").write_text("old")
    with atomic_path(tmp_path / "store") as path:
        path.mkdir()
        (path / "fresh").write_text("new")
    assert listing(tmp_path) == ["store"]
    assert listing(tmp_path / "store") == ["fresh"]


def test_a_file_never_takes_the_place_of_a_folder(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "precious").write_text("old")
    with (
        pytest.raises(StorageError, match="runs is a folder and stays one"),
        atomic_path(tmp_path / "runs") as path,
    ):
        path.write_text("new")
    assert listing(tmp_path) == ["runs"]
    assert listing(tmp_path / "runs") == ["precious"]


@pytest.mark.parametrize("folder", [True, False], ids=["in a folder", "a file"])
def test_others_may_read_what_a_library_wrote_for_its_owner(tmp_path, folder):
    (tmp_path / "usual").touch()
    with atomic_path(tmp_path / "result") as path:
        file = path / "weights" if folder else path
        file.parent.mkdir(exist_ok=True)
        file.touch(0o600)
    written = tmp_path / "result" / "weights" if folder else tmp_path / "result"
    assert written.stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_writing_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing was written"), atomic_path(tmp_path / "a.txt"):
        pass
    assert listing(tmp_path) == []


def test_json_goes_round_and_has_no_nan(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1, 2.5, None]})
    assert read_json(tmp_path / "a.json") == {"b": [1, 2.5, None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"b": float("nan")})
    assert read_json(tmp_path / "a.json") == {"b": [1, 2.5, None]}


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "error", [FULL, caused(RuntimeError("HDF error"), FULL), PermissionError(13, "denied")]
)
def test_a_full_disk_is_one_clear_error_and_the_earlier_file_stays(tmp_path, monkeypatch, error):
    target = tmp_path / "a.json"
    target.write_text("before")
    if isinstance(error, PermissionError):  # what netCDF calls it
        monkeypatch.setattr("isohypse.storage.FULL_BYTES", 1 << 60)
    with pytest.raises(StorageError, match=r"a\.json: no room .* before is intact"), atomic_path(target):
        raise error
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert target.read_text() == "before"


def test_a_full_disk_under_a_log_is_one_line_too(monkeypatch, capsys):
    def fail(_args):
        raise FULL

    parser = argparse.ArgumentParser()
    parser.set_defaults(command=fail)
    monkeypatch.setattr(cli, "build_parser", lambda: parser)
    assert cli.main([]) == StorageError.exit_code
    assert capsys.readouterr().err.startswith("isohypse: a log: no room on this disk; ")
