# SPDX-License-Identifier: Apache-2.0
"""The desk: no ticket is lost, none is served twice, and a silent server is mentioned once."""

import logging

import pytest

from snakemake_executor_plugin_isohypse_pbs.pbs import Server
from snakemake_executor_plugin_isohypse_pbs.registry import Entry, Registry
from snakemake_executor_plugin_isohypse_pbs.submission import Desk, Ticket

OPTIONS = ["-A", "p", "-l", "walltime=00:10:00", "-l", "filesystems=home", "-j", "oe"]


class Counter:
    """A desk on the double, and what became of the tickets."""

    def __init__(self, folder, timeout_seconds, patience_seconds):
        self.folder, self.accepted, self.refused = folder, [], []
        (folder / "script").write_text("sleep 60")
        self.registry = Registry(folder / "registry")
        server, logger = Server(timeout_seconds), logging.getLogger("desk")
        self.desk = Desk(
            server,
            self.registry,
            patience_seconds,
            logger,
            self.accepted.append,
            lambda *two: self.refused.append(two),
        )

    def hand_in(self, name, *options):
        argv = ["qsub", "-N", name, *OPTIONS, *options, "-o", f"{self.folder}/", str(self.folder / "script")]
        self.desk.hand_in(Ticket(None, Entry(name, name, {}, ""), argv))

    def served(self):
        """Wait for all that was handed in."""
        self.desk.worker.submit(lambda: None).result()
        return len(self.accepted), len(self.refused), len(self.desk.waiting)


@pytest.fixture
def counter(site, monkeypatch, tmp_path):
    made = []

    def make(timeout_seconds=20, patience_seconds=60):
        for name, value in site.environment().items():
            monkeypatch.setenv(name, value)
        site.set("queue_seconds", 60)
        made.append(Counter(tmp_path, timeout_seconds, patience_seconds))
        return made[-1]

    yield make
    for one in made:
        one.desk.close()
        site.clear("down")
        Server(20).delete([f"{n}.fake-pbs-01" for n in range(1, len(site.jobs()) + 1)])


def test_the_intent_is_written_before_qsub_and_the_id_after(counter):
    c = counter()
    c.hand_in("a")
    assert c.served() == (1, 0, 0)
    (entry,) = c.registry.entries()
    assert (entry.name, entry.id) == ("a", "1.fake-pbs-01")


def test_a_server_that_is_down_is_asked_again_and_mentioned_once(counter, site, caplog):
    c = counter()
    site.set("down")
    for name in "abc":
        c.hand_in(name)
    assert c.served() == (0, 0, 3)
    assert len(caplog.records) == 1
    assert len(site.calls("qsub")) == 1, "the others wait without asking"
    site.clear("down")
    c.desk.connection.back()
    c.desk.try_again()
    assert c.served() == (3, 0, 0)


def test_patience_ends(counter, site):
    c = counter(patience_seconds=0)
    site.set("down")
    c.hand_in("a")
    assert c.served() == (0, 1, 0)
    assert "no answer for 0 s" in str(c.refused[0][1])
    assert c.registry.entries() == []


def test_a_qsub_without_an_answer_is_not_repeated_blindly(counter, site):
    c = counter(timeout_seconds=1, patience_seconds=0)
    site.set("hang")
    c.hand_in("a")
    assert c.served() == (0, 0, 1), "PBS may have it: patience does not end"
    assert c.registry.entries()[0].doubtful
    site.clear("hang")
    c.desk.server = Server(20)
    c.desk.connection.back()
    c.desk.try_again()
    assert c.served() == (1, 0, 0)
    assert len(site.jobs()) == 1
    assert c.accepted[0].entry.id == "1.fake-pbs-01"


def test_of_two_copies_the_newer_stays(counter, site):
    c = counter()
    c.hand_in("a")
    c.served()
    entry = Entry("a", "a", {}, "", doubtful=True)
    ticket = c.accepted[0]
    c.desk.server.submit(ticket.argv)
    c.desk.hand_in(Ticket(None, entry, ticket.argv))
    assert c.served() == (2, 0, 0)
    assert entry.id == "2.fake-pbs-01"
    assert site.states() == "FQ"


def test_a_full_queue_is_waited_for_and_a_refusal_is_not(counter, site):
    c = counter()
    c.hand_in("a", "-q", "debug-scaling")
    c.hand_in("b", "-q", "debug-scaling")
    c.hand_in("c", "-q", "nowhere")
    assert c.served() == (1, 1, 1)
    c.desk.server.delete(["1.fake-pbs-01"])
    c.desk.try_again()
    assert c.served() == (2, 1, 0)


def test_a_refused_job_that_pbs_has_all_the_same_is_deleted(counter, site):
    c = counter()
    c.hand_in("a")
    c.served()
    c.accepted[0].entry.id = None
    c.desk.hand_in(Ticket(None, c.accepted[0].entry, ["qsub", "-N", "a", "no-such-script"]))
    assert c.served() == (1, 1, 0)
    assert site.states() == "F"
    assert c.registry.entries() == []


def test_after_closing_nothing_is_submitted(counter, site):
    c = counter()
    site.set("slow_qsub", 1)
    for name in "abcd":
        c.hand_in(name)
    c.desk.close()
    assert len(c.accepted) == len(site.jobs()) <= 2
