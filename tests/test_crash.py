"""Promises 1, 2 and 4, durable, referential and convergent: loads killed with SIGKILL at chosen points and at random.

After each kill every record that was reported as stored is there, no order is without its user or product, nothing is
stored that an undisturbed load would not store, and the same load, run again, ends in the state of an undisturbed one.
strace tells that a commit returns after the sync of all that it wrote, which is what the loss of power asks for.  Three
wrong builds of the program, one a promise, have to be noticed by the same checks.

`python -m pytest tests/test_crash.py -m "heavy or not heavy"` kills more than 200 loads.
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

from conftest import HEAVY, MODELS, rows, some
from loads import (
    KILLED,
    SMALL_GROUPS,
    Load,
    Outcome,
    Running,
    check_complete,
    check_databases,
    check_reported,
    copied,
    load_here,
    run_load,
    write_load,
)
from test_sharing import begin_after_another

pytestmark = pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")

# Kills the process at the n-th call of a method of one model's table.  `before` waits a moment first, so that whoever
# acts too early has the time to do so; `inside` lets the call run and kills it after that many seconds.
KILL = (
    SMALL_GROUPS
    + """
calls = 0
real = program.SqliteTable.{method}
def kill():
    os.kill(os.getpid(), signal.SIGKILL)
def method(self, *arguments):
    global calls
    calls += model() == "{model}"
    if model() != "{model}" or calls != {call}:
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
program.SqliteTable.{method} = method
"""
)
EARLY_S = 0.2
POINTS = [
    # with nothing stored yet
    ("before", "begin", "users", 1),
    ("before", "insert", "users", 1),
    ("before", "commit", "users", 1),
    # before, inside and after the commit of a group
    ("inside", "commit", "users", 2),
    ("after", "commit", "users", 3),
    ("inside", "commit", "products", 2),
    # between parents and children: the parents are there, the children are not
    ("before", "begin", "orders", 1),
    ("after", "insert", "orders", 1),
    ("before", "commit", "orders", 2),
    ("after", "commit", "orders", 3),
    # when all records are stored and the file is put in order
    ("before", "close", "users", 1),
    ("inside", "close", "orders", 1),
]


@pytest.fixture(scope="session")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """The files that all kills interrupt the load of."""
    return write_load(tmp_path_factory.mktemp("files"), seed=5, users=160, products=70, orders=200)


def test_an_undisturbed_load_ends_as_worked_out_in_the_plainest_way(tmp_path, load):
    check_complete(tmp_path, load, load_here(tmp_path, *load.arguments))
    check_complete(tmp_path, load, load_here(tmp_path, *load.arguments), again=True)


def check_after_kill(folder: Path, load: Load, outcome: Outcome) -> None:
    """Make sure of everything that has to hold of databases whose load was killed; they stay as they were left."""
    copy = copied(folder, folder.with_name(folder.name + "-copy"))
    check_reported(load, outcome, check_databases(copy))
    shutil.rmtree(copy)


def kill_at(
    folder: Path,
    load: Load,
    moment: str,
    method: str,
    model: str,
    call: int,
    seconds: float = EARLY_S,
    wrong: str = "",
    batch_size: int = 1,
) -> None:
    """Kill a load at a point, look at what it left, and end it; raises AssertionError for what is not as it must be."""
    patch = KILL.format(moment=moment, method=method, model=model, call=call, seconds=seconds)
    outcome = run_load(folder, *load.arguments, "--batch-size", batch_size, patch=patch + wrong)
    assert outcome.status == KILLED, f"the load never came to that point: {outcome.error}"
    check_after_kill(folder, load, outcome)
    check_complete(folder, load, load_here(folder, *load.arguments), again=True)


@pytest.mark.parametrize("moment, method, model, call", POINTS)
def test_a_load_killed_at_a_chosen_point_loses_nothing_and_can_be_ended(tmp_path, load, moment, method, model, call):
    kill_at(
        tmp_path / "databases", load, moment, method, model, call, seconds=EARLY_S if moment == "before" else 0.0005
    )


@HEAVY
@pytest.mark.parametrize("seed", range(120))
def test_a_load_killed_at_any_point_loses_nothing_and_can_be_ended(tmp_path, load, seed):
    chance = random.Random(seed)
    moment = chance.choice(("before", "inside", "after"))
    method = chance.choice(("begin", "insert", "commit", "commit", "commit"))
    seconds = chance.choice((0, 0.02, EARLY_S)) if moment == "before" else chance.random() * 0.004
    model, batch_size = chance.choice(list(MODELS)), chance.choice((1, 1, 7, 20))
    kill_at(tmp_path / "databases", load, moment, method, model, chance.randint(1, 3), seconds, batch_size=batch_size)


def kill_at_random(folder: Path, chance: random.Random, records: int, *arguments: object) -> Outcome:
    """Kill a load after a random number of reported records, or after a random time if none is to be waited for."""
    with Running(folder, "--json", *arguments, "--batch-size", chance.choice((1, 10))) as running:
        if chance.random() < 0.5:
            for _ in range(chance.randint(1, records)):
                running.line()
        else:
            with suppress(subprocess.TimeoutExpired):
                running.process.wait(chance.random() * 0.3)
        running.process.kill()
        return running.end()


@pytest.mark.parametrize("seed", some(8, range(60)))
def test_a_load_killed_again_and_again_loses_nothing_and_can_be_ended(tmp_path, load, seed):
    chance, folder = random.Random(seed), tmp_path / "databases"
    for _ in range(chance.randint(1, 2)):
        check_after_kill(folder, load, kill_at_random(folder, chance, 430, *load.arguments))
    check_complete(folder, load, load_here(folder, *load.arguments), again=True)


def rename_users(folder: Path) -> tuple[dict[int, tuple], dict[int, tuple]]:
    """Write a file of users and a later one, in which some are new and some have other names."""
    before = {id_: (id_, f"User {id_}", f"u{id_}@example.com") for id_ in range(1, 161)}
    after = dict(before) | {id_: (id_, f"Renamed {id_}", f"u{id_}@example.com") for id_ in range(2, 200, 3)}
    for name, users in (("before.csv", before), ("after.csv", after)):
        lines = ["id,name,email", *(",".join(map(str, user)) for user in users.values())]
        (folder / name).write_text("\n".join(lines) + "\n")
    return before, after


@pytest.mark.parametrize("seed", some(2, range(20)))
def test_a_load_that_replaces_and_is_killed_leaves_each_record_old_or_new(tmp_path, seed):
    chance, folder = random.Random(seed), tmp_path / "databases"
    before, after = rename_users(tmp_path)
    load_here(folder, "--users", tmp_path / "before.csv")
    outcome = kill_at_random(folder, chance, 160, "--users", tmp_path / "after.csv", "--replace")
    stored = {row[0]: row for row in check_databases(copied(folder, tmp_path / "copy"))["users"]}
    assert before.keys() <= stored.keys() <= after.keys()
    assert [row for id_, row in stored.items() if row not in (before.get(id_), after[id_])] == []
    for line in outcome.lines:
        assert (
            line.get("verdict") not in ("inserted", "replaced", "unchanged") or stored[line["id"]] == after[line["id"]]
        )
    outcome = load_here(folder, "--users", tmp_path / "after.csv", "--replace")
    assert (outcome.status, outcome.error) == (0, "")
    assert rows(folder / "users.db") == sorted(after.values())


# Writes and syncs of the log, and the calls by which a file gets into the mode of such a log and out of it again.
CALLS = [(call, number, "wal") for number in range(3, 13) for call in ("pwrite64", "fdatasync")]
SWITCHES = [("unlink", 1, "journal"), ("unlink", 2, "journal")]
SWITCHES += [(call, number, "journal") for number in range(1, 5) for call in ("pwrite64", "fdatasync")]


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not here")
@pytest.mark.parametrize(
    "call, number, file",
    [
        *(pytest.param(*point, marks=HEAVY if place >= 3 else ()) for place, point in enumerate(CALLS)),
        *(pytest.param(*point, marks=HEAVY if place >= 2 else ()) for place, point in enumerate(SWITCHES)),
    ],
)
def test_a_load_killed_between_the_writes_of_a_file_loses_nothing_and_can_be_ended(tmp_path, load, call, number, file):
    folder, trace = tmp_path.resolve() / "databases", tmp_path.resolve() / "trace.txt"
    model = ("users", "orders")[number % 2]
    inject = f"inject={call}:signal=SIGKILL:when={number}"
    strace = ["strace", "-f", "-o", trace, "-P", folder / f"{model}.db-{file}", "-e", f"trace={call}", "-e", inject]
    outcome = run_load(folder, *load.arguments, "--batch-size", 10, wrap=list(map(str, strace)), patch=SMALL_GROUPS)
    if not trace.exists() or not trace.stat().st_size:
        pytest.skip(f"strace does not work here: {outcome.error[:200]}")
    assert outcome.status == KILLED, "the load never came to that call"
    check_after_kill(folder, load, outcome)
    check_complete(folder, load, load_here(folder, *load.arguments), again=True)


# ---------------------------------------------------------------------------------------------------- Power loss
# A kill leaves to the system what was written; the loss of power does not.  So every commit has to have been synced.

TELL_COMMITS = (
    SMALL_GROUPS
    + """
real = program.SqliteTable.commit
def commit(self, *arguments):
    real(self, *arguments)
    os.write(2, ("committed " + model() + ".db").encode())
program.SqliteTable.commit = commit
"""
)


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
# What a harness is worth shows in what it finds: three wrong builds of the program, each of which has to be noticed.

# Says that it has committed, and does so when the next transaction begins.
ANSWER_FIRST = """
commit_now, begin_now, owed = program.SqliteTable.commit, program.SqliteTable.begin, {}
def pay(table):
    if owed.pop(id(table), None):
        commit_now(table)
def begin(self, *arguments):
    pay(self)
    return begin_now(self, *arguments)
def commit(self):
    owed[id(self)] = model() == "users"
    if model() != "users":
        pay(self)
program.SqliteTable.begin, program.SqliteTable.commit = begin, commit
"""
# Begins its transaction when all has been looked up.
LOOK_FIRST = """
table, owed = program.SqliteTable, set()
begin_now, insert_now, commit_now = table.begin, table.insert, table.commit
def pay(table):
    if id(table) in owed:
        owed.discard(id(table))
        begin_now(table)
def begin(self):
    owed.add(id(self))
    return True
def insert(self, *arguments):
    pay(self)
    return insert_now(self, *arguments)
def commit(self):
    pay(self)
    return commit_now(self)
program.SqliteTable.begin, program.SqliteTable.insert, program.SqliteTable.commit = begin, insert, commit
program.SqliteTable.all_or_none = program.contextlib.nullcontext
"""
# Says of the users that they are committed, and does so when all orders are.
CHILDREN_FIRST = """
table, owed = program.SqliteTable, set()
begin_now, commit_now, close_now = table.begin, table.commit, table.close
def begin(self, *arguments):
    return False if id(self) in owed else begin_now(self, *arguments)
def commit(self):
    if model() == "users":
        owed.add(id(self))
    else:
        commit_now(self)
def close(self):
    if id(self) in owed:
        commit_now(self)
    close_now(self)
table.begin, table.commit, table.close = begin, commit, close
"""


def orders_before_parents(folder: Path, wrong: str = "") -> None:
    """Kill a load just before users are committed, late enough for orders that do not wait for that."""
    load = write_load(folder / "files", seed=5, users=60, products=30, orders=60)
    kill_at(folder / "databases", load, "before", "commit", "users", 1, wrong=wrong)


def answers_before_commit(folder: Path, wrong: str = "") -> None:
    """Kill a load just before a commit, late enough for what is answered before it to be reported."""
    load = write_load(folder / "files", seed=5, users=160, products=30, orders=30)
    kill_at(folder / "databases", load, "before", "commit", "users", 3, wrong=wrong)


@pytest.mark.parametrize(
    "wrong, attempt, complaint",
    [
        pytest.param(CHILDREN_FIRST, orders_before_parents, "orders without parents", id="children before parents"),
        pytest.param(
            ANSWER_FIRST,
            answers_before_commit,
            "was reported inserted and is not stored",
            id="answers before the commit",
        ),
        pytest.param(LOOK_FIRST, begin_after_another, "stored more than once", id="uniqueness outside the transaction"),
    ],
)
def test_a_wrong_build_is_noticed(tmp_path, wrong, attempt, complaint):
    attempt(tmp_path / "right")
    with pytest.raises(AssertionError, match=complaint):
        attempt(tmp_path / "wrong", wrong)
