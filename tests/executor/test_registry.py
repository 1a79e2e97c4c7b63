# SPDX-License-Identifier: Apache-2.0
"""Entries survive a crash at any point, and what an earlier client left is found and judged."""

import os
import stat
import subprocess
import threading

import pytest

from snakemake_executor_plugin_isohypse_pbs.pbs import Server, ServerSilent
from snakemake_executor_plugin_isohypse_pbs.recovery import find_survivors
from snakemake_executor_plugin_isohypse_pbs.registry import Entry, Registry

OPTIONS = ["-A", "p", "-l", "walltime=00:10:00", "-l", "filesystems=home"]


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "registry")


@pytest.fixture
def server(site, monkeypatch):
    for name, value in site.environment().items():
        monkeypatch.setenv(name, value)
    return Server(timeout_seconds=20)


def submit(server, tmp_path, name, script="sleep 60"):
    path = tmp_path / "script"
    path.write_text(script)
    return server.submit(["qsub", "-N", name, *OPTIONS, "-j", "oe", "-o", f"{tmp_path}/", str(path)])


def write_long_ago(registry, entry):
    """An entry whose qsub must have come through by now, if it was ever begun."""
    registry.write(entry)
    os.utime(registry.folder / f"{entry.name}.json", (0, 0))


def entry(name, **fields):
    return Entry(name, f"base-{name}", {f"key-{name}": "made from"}, "logs", **fields)


def test_entries_come_back_as_written(registry):
    written = entry("a", id="1.h", continued=2, doubtful=True)
    registry.write(written)
    (registry.folder / "torn.json").write_text('{"name": ')
    assert registry.entries() == [written]


def test_the_folder_is_closed_to_others(registry):
    assert stat.S_IMODE(os.stat(registry.folder).st_mode) == 0o700


def test_clear_leaves_nothing(registry):
    one = entry("a")
    registry.write(one)
    registry.script(one.base).write_text("")
    registry.script(one.base).with_suffix(".sh.waitforfilesfile.txt").write_text("")
    registry.marker(one.base).touch()
    registry.clear(one)
    assert list(registry.folder.iterdir()) == []


def test_live_jobs_survive_and_others_do_not(registry, server, site, tmp_path):
    site.set("queue_seconds", 60)
    registry.write(entry("live", id=submit(server, tmp_path, "live")))
    registry.write(entry("deleted-queued", id=submit(server, tmp_path, "x")))
    server.delete(["2.fake-pbs-01"])
    write_long_ago(registry, entry("never-submitted"))
    found = find_survivors(registry, server)
    assert [e.name for e in found.live] == ["live"]
    assert found.ended == []
    assert [e.name for e in registry.entries()] == ["live"]
    server.delete(["1.fake-pbs-01"])


def test_a_job_submitted_just_before_the_client_died_is_found_by_its_name(registry, server, site, tmp_path):
    site.set("queue_seconds", 60)
    registry.write(entry("orphan.123456"))
    older, newer = (submit(server, tmp_path, "orphan.123456") for _ in range(2))
    (found,) = find_survivors(registry, server).live
    assert found.id == newer
    assert registry.entries()[0].id == newer
    assert site.states() == "FQ", f"the older copy {older} goes"
    server.delete([newer])


def test_a_qsub_that_outlives_its_client_is_waited_for(registry, server, site, tmp_path):
    site.set("hang")
    registry.write(entry("late.123456"))
    path = tmp_path / "script"
    path.write_text("sleep 60")
    qsub = subprocess.Popen(
        ["qsub", "-N", "late.123456", *OPTIONS, "-o", f"{tmp_path}/", str(path)], cwd=tmp_path
    )
    threading.Timer(1, site.clear, ["hang"]).start()
    (found,) = find_survivors(registry, server).live
    assert (found.id, qsub.wait(20)) == ("1.fake-pbs-01", 0)
    server.delete([found.id])


def test_a_job_that_was_being_deleted_is_not_adopted(registry, server, site, tmp_path):
    registry.write(entry("dying", id=submit(server, tmp_path, "dying"), deleted=True))
    found = find_survivors(registry, server)
    assert found.live == []
    assert registry.entries() == []
    assert site.states() == "F"


def test_claims_need_the_same_job_from_the_same(registry, server, site, tmp_path):
    site.set("queue_seconds", 60)
    registry.write(entry("a", id=submit(server, tmp_path, "a")))
    found = find_survivors(registry, server)
    assert found.claim({"key-b": "made from"}) is None
    assert found.claim({"key-a": "other"}) is None
    assert [e.name for e in found.clashes({"key-a": "other"})] == ["a"]
    assert found.clashes({"key-a": ""}) == [], "a fingerprint not known yet is no clash"
    assert found.claim({"key-a": "made from"}).name == "a"
    assert found.claim({"key-a": "made from"}) is None
    server.delete(["1.fake-pbs-01"])


def test_a_silent_server_is_not_taken_for_an_answer(registry, server, site):
    registry.write(entry("a", id="1.fake-pbs-01"))
    site.set("down")
    with pytest.raises(ServerSilent):
        find_survivors(registry, server)
    assert [e.name for e in registry.entries()] == ["a"]
