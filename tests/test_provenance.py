# SPDX-License-Identifier: Apache-2.0
"""Provenance names code, libraries, settings, device and kernels, and nothing that equal runs differ in."""

import json
import platform
import subprocess
from importlib.metadata import version

import isohypse
from isohypse import provenance as module
from isohypse.provenance import git_commit, provenance


def test_record_is_complete_and_repeatable():
    record = provenance("abc", "a processor", {"kda": "closed"})
    assert record == provenance("abc", "a processor", {"kda": "closed"})
    assert (record["settings_digest"], record["device"]) == ("abc", "a processor")
    assert record["kernels"] == {"kda": "closed"}
    assert record["versions"]["python"] == platform.python_version()
    assert record["versions"]["isohypse"] == isohypse.__version__
    assert record["versions"]["torch"] == version("torch")
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_what_does_not_apply_is_left_out():
    assert provenance("abc").keys() == {"settings_digest", "commit", "versions"}


def test_commit_is_that_of_the_checkout(tmp_path, monkeypatch):
    """None outside a checkout, also below somebody else's; marked once a tracked file differs."""

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init")
    source = tmp_path / "workflow" / "isohypse" / "provenance.py"
    source.parent.mkdir(parents=True)
    source.write_text("")
    monkeypatch.setattr(module, "__file__", str(source))
    assert git_commit() is None
    git("add", ".")
    git("commit", "-m", "first")
    assert git_commit() == git("rev-parse", "HEAD")
    source.write_text("# changed")
    assert git_commit() == git("rev-parse", "HEAD") + "+changes"
    inner = source.parent / "lib" / "site-packages" / "isohypse" / "provenance.py"
    monkeypatch.setattr(module, "__file__", str(inner))
    assert git_commit() is None
