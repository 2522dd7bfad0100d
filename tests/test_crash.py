"""Loads killed with SIGKILL at chosen points and at random: what was reported is there, and running again completes it.

`python -m pytest tests/test_crash.py -m "heavy or not heavy"` kills some 200 loads.
"""
from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from loads import (KILLED, MODELS, PROGRAM, Load, Outcome, Running, check_complete, check_databases, check_reported, copied,
                   run_load, write_load)
from test_sharing import begin_after_another

pytestmark = pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")

# Kills the process at the n-th call of a method of one model's table.  `before` waits a moment first, so that whoever
# acts too early has the time to do so; `inside` lets the call run and kills it after that many seconds.
KILL = """
assert program.GROUP_RECORDS                    # small groups, so that there are many commits
program.GROUP_RECORDS = 30
calls = 0
real = program.Table.{method}
def kill():
    os.kill(os.getpid(), signal.SIGKILL)
def method(self, *arguments):
    global calls
    calls += self.schema.table == "{model}"
    if self.schema.table != "{model}" or calls != {call}:
        return real(self, *arguments)
    if "{moment}" == "before":
        time.sleep({seconds})
        kill()
    if "{moment}" == "inside":
        threading.Thread(target=lambda: (time.sleep({seconds}), kill())).start()
    result = real(self, *arguments)
    if "{moment}" == "inside":
        time.sleep(10)
    kill()
program.Table.{method} = method
"""
EARLY_S = 0.2
POINTS = [
    # before a table is made, and with nothing in it yet
    ("before", "commit", "users", 1), ("inside", "commit", "users", 1), ("after", "commit", "users", 1),
    # before, inside and after the commit of a group
    ("before", "commit", "users", 2), ("inside", "commit", "users", 3), ("after", "commit", "users", 2),
    ("before", "commit", "products", 3), ("inside", "commit", "products", 2), ("after", "commit", "products", 2),
    # between parents and children: the parents are there, the children are not
    ("before", "begin", "orders", 2), ("after", "insert", "orders", 2),
    ("before", "commit", "orders", 2), ("inside", "commit", "orders", 4), ("after", "commit", "orders", 3),
    # when all records are stored and the indexes are made
    ("after", "build_indexes", "users", 1),
]


@pytest.fixture(scope="session")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """The files that all kills interrupt the load of; orders are stored while users and products still come in."""
    return write_load(tmp_path_factory.mktemp("files"), seed=5, near=True)


def test_an_undisturbed_load_ends_as_worked_out_in_the_plainest_way(tmp_path, load):
    check_complete(tmp_path, load, run_load(tmp_path, *load.arguments))
    check_complete(tmp_path, load, run_load(tmp_path, *load.arguments), again=True)


def check_after_kill(folder: Path, load: Load, outcome: Outcome) -> None:
    """Make sure of everything that has to hold of databases whose load was killed; they stay as they were left."""
    copy = copied(folder, folder.with_name(folder.name + "-copy"))
    check_reported(load, outcome, check_databases(copy))
    shutil.rmtree(copy)


def kill_at(folder: Path, load: Load, moment: str, method: str, model: str, call: int, seconds: float = EARLY_S,
            program: Path = PROGRAM, batch_size: int = 1) -> None:
    """Kill a load at a point, look at what it left, and end it; raises AssertionError for whatever is not as it must be."""
    patch = KILL.format(moment=moment, method=method, model=model, call=call, seconds=seconds)
    outcome = run_load(folder, *load.arguments, "--batch-size", batch_size, patch=patch, program=program)
    assert outcome.status == KILLED, f"the load never came to that point: {outcome.error}"
    check_after_kill(folder, load, outcome)
    check_complete(folder, load, run_load(folder, *load.arguments, program=program), again=True)


@pytest.mark.parametrize("moment, method, model, call", POINTS)
def test_a_load_killed_at_a_chosen_point_loses_nothing_and_can_be_ended(tmp_path, load, moment, method, model, call):
    kill_at(tmp_path / "databases", load, moment, method, model, call, seconds=EARLY_S if moment == "before" else 0.0005)


@pytest.mark.heavy
@pytest.mark.parametrize("seed", range(140))
def test_a_load_killed_at_any_point_loses_nothing_and_can_be_ended(tmp_path, load, seed):
    chance = random.Random(seed)
    moment, method = chance.choice(("before", "inside", "after")), chance.choice(("begin", "insert", "commit", "commit", "commit"))
    seconds = chance.choice((0, 0.02, EARLY_S)) if moment == "before" else chance.random() * 0.004
    kill_at(tmp_path / "databases", load, moment, method, chance.choice(list(MODELS)), chance.randint(1, 4), seconds,
            batch_size=chance.choice((1, 1, 7, 30)))


def kill_at_random(folder: Path, load: Load, chance: random.Random, *arguments: object) -> Outcome:
    """Kill a load after a random number of reported records, or after a random time if none is to be waited for."""
    with Running(folder, "--json", *load.arguments, *arguments) as running:
        if chance.random() < 0.5:
            for _ in range(chance.randint(1, 900)):
                running.line()
        else:
            with suppress(subprocess.TimeoutExpired):
                running.process.wait(chance.random() * 0.3)
        running.process.kill()
        return running.end()


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=pytest.mark.heavy if seed >= 4 else ()) for seed in range(40)])
def test_a_load_killed_again_and_again_loses_nothing_and_can_be_ended(tmp_path, load, seed):
    chance, folder = random.Random(seed), tmp_path / "databases"
    for _ in range(chance.randint(1, 3)):
        check_after_kill(folder, load, kill_at_random(folder, load, chance, "--batch-size", chance.choice((1, 10))))
    check_complete(folder, load, run_load(folder, *load.arguments), again=True)


CALLS = [(call, number) for number in range(3, 13) for call in ("pwrite64", "fdatasync")]


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not here")
@pytest.mark.parametrize("call, number", [pytest.param(*point, marks=pytest.mark.heavy if place >= 4 else ())
                                          for place, point in enumerate(CALLS)])
def test_a_load_killed_between_the_writes_of_a_commit_loses_nothing_and_can_be_ended(tmp_path, load, call, number):
    folder, trace = tmp_path.resolve() / "databases", tmp_path.resolve() / "trace.txt"
    model = ("users", "orders")[number % 2]
    strace = ["strace", "-f", "-o", trace, "-P", folder / f"{model}.db-wal", "-e", f"trace={call}", "-e",
              f"inject={call}:signal=SIGKILL:when={number}"]
    outcome = run_load(folder, *load.arguments, "--batch-size", 15, wrap=list(map(str, strace)),
                       patch="assert program.GROUP_RECORDS; program.GROUP_RECORDS = 30")
    if not trace.exists() or not trace.stat().st_size:
        pytest.skip(f"strace does not work here: {outcome.error[:200]}")
    assert outcome.status == KILLED, "the load never came to that call"
    check_after_kill(folder, load, outcome)
    check_complete(folder, load, run_load(folder, *load.arguments), again=True)


# ---------------------------------------------------------------------------------------------------- Power loss
# A kill leaves to the system what was written; the loss of power does not.  So every commit has to have been synced.

TELL_COMMITS = """
real = program.Table.commit
def commit(self):
    real(self)
    os.write(2, ("committed " + self.schema.database).encode())
program.Table.commit = commit
"""


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not here")
def test_a_commit_returns_after_everything_it_wrote_was_synced(tmp_path, load):
    trace = tmp_path / "trace.txt"
    strace = ["strace", "-f", "-y", "-o", trace, "-e", "trace=write,pwrite64,pwritev,fsync,fdatasync"]
    outcome = run_load(tmp_path / "databases", *load.arguments, "--batch-size", 20, patch=TELL_COMMITS, wrap=strace)
    if "ptrace" in outcome.error or not trace.exists():
        pytest.skip(f"strace does not work here: {outcome.error[:200]}")
    unsynced: dict[str, int] = {}
    commits = dict.fromkeys(MODELS, 0)
    call = re.compile(r"\d+ +(\w+)\(\d+<([^>]*)>(.*)")
    for line in trace.read_text().splitlines():
        found = call.match(line)
        if not found:
            continue
        name, path, rest = found.groups()
        if "committed " in rest:
            model = rest.partition("committed ")[2].partition(".db")[0]
            commits[model] += 1
            dirty = [path for path in unsynced if path.endswith((f"/{model}.db-wal", f"/{model}.db-journal"))]
            assert dirty == [], f"commit {commits[model]} of {model}.db returned before its sync"
        elif "sync" in name:
            unsynced.pop(path, None)
        elif ".db" in path:
            unsynced[path] = unsynced.get(path, 0) + 1
    assert all(count >= 3 for count in commits.values()), commits


# -------------------------------------------------------------------------------------------------- Wrong builds
# What a harness is worth shows in what it finds: three wrong copies of the program, each of which has to be noticed.

COMMIT = """            with self._watch.span("commit", self.schema.database):
                table.commit()
"""
BEGIN = "            other_wrote = table.begin()\n"
SETTLE = "                dropped = self._settle(table, group)\n"
WRONG: dict[str, list[tuple[str, str]]] = {
    "children are stored before their parents are durable": [
        (COMMIT, "            group.share_out()\n            self._ledger.record(batches)\n" + COMMIT)],
    "answers come before the commit": [
        (COMMIT, "            group.share_out()\n            for batch in batches:\n                batch.answer.put(self._number)\n"
         + COMMIT)],
    "uniqueness is checked outside the transaction": [
        (BEGIN, "            dropped = self._settle(table, group)\n" + BEGIN), (SETTLE, "")],
}


def wrong_build(folder: Path, name: str) -> Path:
    """Write a wrong copy of the program."""
    source = PROGRAM.read_text(encoding="utf-8")
    for right, wrong in WRONG[name]:
        assert source.count(right) == 1, f"the program was rewritten: where is this now?\n{right}"
        source = source.replace(right, wrong)
    path = folder / "wrong.py"
    path.write_text(source, encoding="utf-8")
    return path


def orders_before_parents(folder: Path, program: Path) -> None:
    """Kill a load just before users are committed, late enough for orders that do not wait for that."""
    kill_at(folder / "databases", write_load(folder / "files", seed=5, near=True), "before", "commit", "users", 2, program=program)


def answers_before_commit(folder: Path, program: Path) -> None:
    """Kill a load just before a commit, late enough for what is answered before it to be reported."""
    for call in (2, 3, 4):
        kill_at(folder / f"databases{call}", write_load(folder / "files", seed=5, near=True), "before", "commit", "users", call, program=program)


@pytest.mark.heavy
@pytest.mark.parametrize("name, attempt, complaint", [
    ("children are stored before their parents are durable", orders_before_parents, "orders without parents"),
    ("answers come before the commit", answers_before_commit, "was reported inserted and is not stored"),
    ("uniqueness is checked outside the transaction", begin_after_another, "stored more than once"),
])
def test_a_wrong_build_is_noticed(tmp_path, name, attempt, complaint):
    attempt(tmp_path / "right", PROGRAM)
    with pytest.raises(AssertionError, match=complaint):
        attempt(tmp_path / "wrong", wrong_build(tmp_path, name))
