"""What the tests of the eight promises share: seeded files and what has to become of them, the program as a process,
and what has to hold of its output and its databases, whatever was done to it.

The verdicts that a load has to get are worked out one record after the other, in dictionaries: the plainest way there
is.  DISTRIBUTED_INSERTS in the environment names another copy of the program to try: a wrong one that has to fail, say.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import queue
import random
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest

import conftest
from conftest import MODELS, TIMEOUT_S, VERDICTS, Databases, run_here

PROGRAM = Path(os.environ.get("DISTRIBUTED_INSERTS") or conftest.PROGRAM).resolve()
INTERRUPT_S = 2  # the specification's: how long an interrupted load may take to end
STORED = ("inserted", "replaced", "unchanged")
KILLED = -getattr(signal, "SIGKILL", 9)
# Runs the program with a few lines of Python between its import and its start, for what cannot be done from outside.
# `model()` tells those lines whose insert worker is at work.
LAUNCH = """
import importlib.util, os, signal, sqlite3, sys, threading, time
spec = importlib.util.spec_from_file_location("distributed_inserts", sys.argv[1])
program = sys.modules["distributed_inserts"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(program)
def model(thread=None):
    name = (thread or threading.current_thread()).name
    return name[len("insert-worker "):].removesuffix(".db") if name.startswith("insert-worker") else None
exec(sys.argv[2])
raise SystemExit(program.main(sys.argv[3:]))
"""
# Calls `before_start(name)` before each thread is started and `in_thread(name)` in it, however Python is asked for it.
THREADS = """
import _thread
start_thread, run_thread, start_plain = threading.Thread.start, threading.Thread.run, _thread.start_new_thread
alive = []
before_start = in_thread = lambda name: None
def run_in_thread(name, run):
    alive.append(name)
    try:
        in_thread(name)
        run()
    finally:
        alive.remove(name)
def start(thread):
    before_start(thread.name)
    start_thread(thread)
def start_new_thread(function, arguments, *named):
    name = getattr(arguments[0], "name", "") if arguments else ""
    before_start(name)
    return start_plain(lambda: run_in_thread(name, lambda: function(*arguments, *named)), ())
threading.Thread.start, _thread.start_new_thread = start, start_new_thread
threading.Thread.run = lambda thread: run_in_thread(thread.name, lambda: run_thread(thread))
"""
# Little in flight, so that a load of some hundred records takes many transactions.
SMALL_GROUPS = """
assert program.GROUP_RECORDS and program.GROUP_BATCHES
program.GROUP_RECORDS = program.GROUP_BATCHES = 20
"""
# Holds the insert worker of a model back where its {call}th transaction begins, until the file "go" is there.
HOLD = """
real_begin, begun = program.SqliteTable.begin, 0
def begin(self, *arguments):
    global begun
    begun += model() == "{model}"
    if model() == "{model}" and begun == {call}:
        open("waiting", "w").close()
        end = time.monotonic() + 60
        while not os.path.exists("go") and time.monotonic() < end:
            time.sleep(0.005)
    return real_begin(self, *arguments)
program.SqliteTable.begin = begin
"""
STARTING_GATE = "print('ready', flush=True); sys.stdin.readline()"
LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
connection.execute(sys.argv[2])
print("locked", flush=True)
sys.stdin.read()
"""


def imported() -> ModuleType:
    """Return the program as a module, the one that DISTRIBUTED_INSERTS names if it names one."""
    if PROGRAM == conftest.PROGRAM.resolve():
        import distributed_inserts

        return distributed_inserts
    spec = importlib.util.spec_from_file_location("distributed_inserts", PROGRAM)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ------------------------------------------------------------------------------------------------------ Files


@dataclass
class Load:
    """Three files, the verdict that each line has to get in empty databases, and the rows that are stored then."""

    folder: Path
    lines: dict[str, dict[int, tuple]] = field(default_factory=dict)  # line number: the record as it is stored
    verdicts: dict[str, dict[int, str]] = field(default_factory=dict)
    rows: dict[str, list[tuple]] = field(default_factory=dict)
    invalid: dict[str, set[int]] = field(default_factory=dict)  # lines of records that no database is asked about

    def path(self, model: str) -> Path:
        """The file of a model's records."""
        return self.folder / f"{model}.csv"

    @property
    def arguments(self) -> list[str]:
        """The flags that load all three files."""
        return [text for model in MODELS for text in (f"--{model}", str(self.path(model)))]

    def reading(self, model: str) -> list[str]:
        """Return the flags that load all three files, that of one model from standard input."""
        return ["-" if text == str(self.path(model)) else text for text in self.arguments]


def write_load(
    folder: Path, seed: int = 1, users: int = 400, products: int = 120, orders: int = 800, flaws: int = 50
) -> Load:
    """Write three files of so many records, one in `flaws` bad in each way there is, and say what becomes of them."""
    load, chance = Load(folder), random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for model, count in (("users", users), ("products", products), ("orders", orders)):
        records: list[list] = []
        for number in range(1, count + 1):
            parents = [chance.randint(1, count + count // 100 + 1) for count in (users, products)]  # one is not there
            records.append(_record(model, number, records, parents, chance, flaws))
        with load.path(model).open("w", encoding="utf-8") as file:
            print(*MODELS[model], sep=",", file=file)
            for record in records:
                print(*record, sep=",", file=file)
        _judge(load, model, records)
    return load


def _record(
    model: str, number: int, earlier: list[list], parents: list[int], chance: random.Random, flaws: int
) -> list:
    """Return a record, some with a flaw: nothing in it, a value or an id that is taken, or all of an earlier one."""
    if model == "orders":
        record = [number, *parents, chance.randint(1, 9)]
    elif model == "users":
        record = [number, f"User {number}", f"user{number}@example.com"]
    else:
        record = [number, f"Product {number}", number + 0.5]
    flaw, rival = chance.randrange(flaws), chance.choice(earlier or [record])
    if flaw == 0:
        record[2 if model == "users" else -1] = 0
    elif flaw == 1:
        record[0] = rival[0]
    elif flaw == 2:
        record = list(rival)
    elif flaw in (3, 4) and model == "users":
        record[2] = rival[2].upper() if rival[2] else 0
    elif flaw in (3, 4) and model == "products":
        record[1] = rival[1].upper()
    return record


def _judge(load: Load, model: str, records: list[list]) -> None:
    """Note the verdicts and the stored rows, found in the plainest way: one record after the other, in dictionaries."""
    stored: dict[int, tuple] = {}
    taken: dict[str, int] = {}
    verdicts, unique = load.verdicts.setdefault(model, {}), {"users": 2, "products": 1}.get(model)
    parents = [{row[0] for row in load.rows[parent]} for parent in ("users", "products")] if model == "orders" else []
    load.lines[model] = {line: tuple(record) for line, record in enumerate(records, start=2)}
    load.invalid[model] = {line for line, record in load.lines[model].items() if 0 in record[1:]}
    for line, row in load.lines[model].items():
        key = str(row[unique]).casefold() if unique else None
        if line in load.invalid[model] or any(row[place] not in ids for place, ids in enumerate(parents, start=1)):
            verdicts[line] = "rejected"
        elif stored.get(row[0]) == row:
            verdicts[line] = "unchanged"
        elif row[0] in stored or key in taken:
            verdicts[line] = "rejected"
        else:
            verdicts[line] = "inserted"
            stored[row[0]] = row
            if unique:
                taken[key] = row[0]
    load.rows[model] = sorted(stored.values())


# -------------------------------------------------------------------------------------------- The program runs


@dataclass
class Outcome:
    """What a run of the program left: exit status, standard output and error."""

    status: int
    output: str
    error: str

    @functools.cached_property
    def lines(self) -> list[dict]:
        """The JSON lines that were written whole; `output` is not to be changed any more."""
        return [json.loads(line) for line in self.output.split("\n")[:-1]]

    @property
    def complaints(self) -> str:
        """Standard error without the lines which say that a lock is waited for."""
        lines = self.error.splitlines(keepends=True)
        return "".join(line for line in lines if "is locked by another program: " not in line)

    @property
    def failed(self) -> set[str]:
        """The databases of which standard error says that they failed."""
        return set(re.findall(r"^distributed_inserts: (\w+\.db): ", self.error, re.MULTILINE))

    @property
    def summary(self) -> dict[str, dict]:
        """The counts of every model, from the last line."""
        return self.lines[-1]["summary"]

    def verdicts(self, model: str) -> dict[int, str]:
        """Return the verdicts that were reported, by line."""
        return {line["line"]: line["verdict"] for line in self.lines if line.get("model") == model}

    def total(self, verdict: str) -> int:
        """Return how many records were reported with a verdict."""
        return sum(line.get("verdict") == verdict for line in self.lines)


class Running:
    """The program as a process, which ends with the `with` block at the latest; its output is read as it comes."""

    def __init__(
        self,
        folder: Path,
        *arguments: object,
        patch: str = "",
        wrap: Sequence[str] = (),
        program: Path = PROGRAM,
        stdout: int = subprocess.PIPE,
        stdin: int = subprocess.DEVNULL,
        python: Sequence[str] = ("-u",),
        **environment: str,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # As a module it is not compiled each time, which is a third of what a small load takes.
        as_module = ["-m", PROGRAM.stem] if program == PROGRAM else [program]
        start = ["-c", LAUNCH, program, patch] if patch else as_module
        command = [*wrap, sys.executable, *python, *start, *arguments]
        self.process = subprocess.Popen(
            list(map(str, command)),
            cwd=folder,
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env={
                **os.environ,
                "NO_COLOR": "1",
                "PYTHONUNBUFFERED": "",
                "PYTHONPATH": str(PROGRAM.parent),
                **environment,
            },
        )
        self._texts: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._readers = [
            threading.Thread(target=self._read, args=(name,), daemon=True)
            for name in self._texts
            if getattr(self.process, name)
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str) -> None:
        for line in getattr(self.process, name):
            self._texts[name].append(line)
            if name == "stdout":
                self._lines.put(line)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(TIMEOUT_S)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream:
                with suppress(OSError):  # what a closed pipe did not take
                    stream.close()

    def line(self) -> str:
        """Wait for the next line of standard output and return it."""
        try:
            return self._lines.get(timeout=TIMEOUT_S).decode()
        except queue.Empty:
            raise AssertionError(f"nothing was printed in {TIMEOUT_S} s") from None

    def wait_for_lock(self, model: str) -> None:
        """Wait until standard error tells that a database is locked."""
        locked = re.compile(rf"{model}\.db.*locked".encode())
        wait_until(lambda: any(locked.search(line) for line in list(self._texts["stderr"])))

    def feed(self, text: str) -> None:
        """Write to the standard input of the process, which stays open."""
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def interrupt(self, number: int = signal.SIGINT) -> Outcome:
        """Send a signal and return what the program left, which has to end in time with the status of that signal."""
        self.process.send_signal(number)
        begin = time.monotonic()
        outcome = self.end(INTERRUPT_S + 1)
        assert time.monotonic() - begin < INTERRUPT_S
        assert outcome.status == 128 + number
        return outcome

    def end(self, timeout_s: float = TIMEOUT_S) -> Outcome:
        """Wait for the end of the process and return what it left."""
        end = time.monotonic() + timeout_s
        for reader in self._readers:  # that is sooner known than the end of a process, which is polled for
            reader.join(end - time.monotonic())
        try:
            status = self.process.wait(max(end - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the program still runs after {timeout_s} s") from None
        output, error = (b"".join(self._texts[name]).decode() for name in ("stdout", "stderr"))
        assert "Traceback" not in output + error and "Exception ignored" not in error, error
        return Outcome(status, output, error)


def run_load(folder: Path, *arguments: object, timeout_s: float = TIMEOUT_S, **options: object) -> Outcome:
    """Run the program to its end in a folder, with --json, and return what it left."""
    with Running(folder, "--json", *arguments, **options) as running:
        return running.end(timeout_s)


def load_here(folder: Path, *arguments: object, timeout_s: float = TIMEOUT_S) -> Outcome:
    """Do what `run_load` does without a process of its own, which is faster."""
    folder.mkdir(parents=True, exist_ok=True)
    before = os.getcwd()
    os.chdir(folder)
    try:
        result = run_here("--json", *arguments, timeout=timeout_s)
    finally:
        os.chdir(before)
    assert "Traceback" not in result.stdout + result.stderr, result.stderr
    return Outcome(result.returncode, result.stdout, result.stderr)


def run_together(folder: Path, *argument_lists: Sequence[object]) -> list[Outcome]:
    """Run a loader for each list of arguments, all from the same moment on."""
    with ExitStack() as stack:
        loaders = [
            stack.enter_context(Running(folder, "--json", *arguments, patch=STARTING_GATE, stdin=subprocess.PIPE))
            for arguments in argument_lists
        ]
        for loader in loaders:
            assert loader.line() == "ready\n"
        for loader in loaders:
            loader.feed("go\n")
        outcomes = [loader.end() for loader in loaders]
    for outcome in outcomes:
        outcome.output = outcome.output.partition("\n")[2]
    return outcomes


def shell(folder: Path, command: str) -> subprocess.CompletedProcess:
    """Run a command line by bash: PROGRAM in it is the program, and `python` the Python of these tests."""
    folder.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    result = subprocess.run(
        ["bash", "-c", command.replace("PROGRAM", shlex.join([sys.executable, str(PROGRAM)]))],
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=TIMEOUT_S,
        env={**os.environ, "NO_COLOR": "1", "PYTHONUNBUFFERED": "", "PATH": path},
    )
    assert "Traceback" not in result.stderr and "Exception ignored" not in result.stderr, result.stderr
    return result


def commands(out: str) -> list[str]:
    """Return the commands that a report ends with."""
    return [line.strip() for line in out.splitlines() if line.startswith("  ") and PROGRAM.name in line]


def measure(folder: Path, *arguments: object, timeout_s: float = TIMEOUT_S) -> tuple[int, Path, str, int]:
    """Run the program; return exit status, the file with its output, complaints and peak memory in bytes."""
    pytest.importorskip("resource", reason="peak memory is measured by getrusage")
    wrapper = (
        "import resource, subprocess, sys\nstatus = subprocess.call(sys.argv[2:])\n"
        "peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss\n"
        "open(sys.argv[1], 'w').write(str(peak))\nraise SystemExit(status)\n"
    )
    with open(folder / "output", "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", wrapper, "peak", sys.executable, str(PROGRAM), *map(str, arguments)],
            cwd=folder,
            stdout=output,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            _, error = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the program too: it is the wrapper's child
            process.communicate()
            raise
    peak = int((folder / "peak").read_text()) * (1 if sys.platform == "darwin" else 1024)
    assert b"Traceback" not in error and b"internal error" not in error
    return process.returncode, folder / "output", error.decode("utf-8"), peak


def wait_until(condition: Callable[[], object], timeout_s: float = TIMEOUT_S) -> None:
    """Return as soon as the condition holds; fail if it does not in time."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"waited {timeout_s} s in vain for {condition}"
        time.sleep(0.005)


@contextmanager
def locked(database: Path, statement: str = "BEGIN IMMEDIATE") -> Iterator[Callable[[], None]]:
    """Let another process hold a lock on a database; yields a function that ends it sooner."""
    with subprocess.Popen(
        [sys.executable, "-c", LOCK, str(database), statement], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout.readline().strip() == b"locked"
            yield lambda: (process.stdin.close(), process.wait(TIMEOUT_S))
        finally:
            process.kill()


# ------------------------------------------------------------------------------------------ What has to hold


def stored_rows(folder: Path, model: str) -> list[tuple]:
    """Return all rows of a model, none where there is no database or table yet."""
    database = folder / f"{model}.db"
    if not database.exists():
        return []
    with closing(sqlite3.connect(database, timeout=10)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        if not connection.execute("SELECT * FROM sqlite_master").fetchall():
            return []
    return conftest.rows(database)


def check_rows(rows: dict[str, list[tuple]]) -> dict[str, list[tuple]]:
    """Return the rows after making sure that they are sound: no duplicate, no order without its parents."""
    for model, places in (("users", (0, 2)), ("products", (0, 1)), ("orders", (0,))):
        for place in places:
            keys = Counter(str(row[place]).casefold() for row in rows[model])
            assert [key for key, count in keys.items() if count > 1] == [], f"{model}: stored more than once"
    users, products = ({row[0] for row in rows[model]} for model in ("users", "products"))
    assert [row for row in rows["orders"] if row[1] not in users or row[2] not in products] == [], (
        "orders without parents"
    )
    return rows


def check_databases(place: Path | Databases) -> dict[str, list[tuple]]:
    """Return all rows, in a folder or of either engine, after making sure that the databases are sound."""
    # orders first, so that what they refer to has to be there already
    found = {
        model: stored_rows(place, model) if isinstance(place, Path) else place.rows(model) for model in reversed(MODELS)
    }
    return check_rows({model: found[model] for model in MODELS})


def check_reported(load: Load, outcome: Outcome, rows: dict[str, list[tuple]]) -> None:
    """Make sure that what was reported as stored is, and that nothing is stored that an undisturbed load would not."""
    for model in MODELS:
        found = set(rows[model])
        assert found <= set(load.rows[model]), f"{model}: stored what should not be"
        for line, verdict in outcome.verdicts(model).items():
            assert verdict not in STORED or load.lines[model][line] in found, (
                f"{model}.csv:{line} was reported {verdict} and is not stored"
            )


def check_summary(outcome: Outcome) -> None:
    """Make sure that the summary counts just the verdicts that were reported."""
    assert outcome.status == outcome.lines[-1]["exit_status"]
    for model, counts in outcome.summary.items():
        found = [line["verdict"] for line in outcome.lines if line.get("model") == model]
        assert {verdict: counts[verdict] for verdict in VERDICTS} == {
            verdict: found.count(verdict) for verdict in VERDICTS
        }
        assert counts["read"] == len(found) == len(outcome.verdicts(model))


def check_counts(load: Load, outcome: Outcome) -> None:
    """Make sure that every record of every file has one verdict, and that the summary counts just those."""
    check_summary(outcome)
    for model in MODELS:
        assert outcome.verdicts(model).keys() == load.verdicts[model].keys(), f"{model}: a verdict for every record"
        assert outcome.summary[model]["read"] == len(load.verdicts[model])


def check_complete(place: Path | Databases, load: Load, outcome: Outcome, again: bool = False) -> None:
    """Make sure that a load had the verdicts and left the rows that it has to; `again` if some were stored before."""
    assert outcome.complaints == ""
    check_counts(load, outcome)
    stored = {"inserted", "unchanged"}
    for model in MODELS:
        expected = load.verdicts[model]
        odd = {
            line: (verdict, expected[line])
            for line, verdict in outcome.verdicts(model).items()
            if verdict != expected[line] and not (again and {verdict, expected[line]} <= stored)
        }
        assert odd == {}, f"{model}: verdicts by line, found and expected: {odd}"
    assert check_databases(place) == load.rows
    assert outcome.status == (1 if outcome.total("rejected") else 0)


def check_disturbed(
    load: Load, outcome: Outcome, touched: Sequence[str] = tuple(MODELS), validated: bool = True
) -> None:
    """Make sure that a load in which something failed is honest about it.

    Exit status 3 and a message; every record has a verdict, which of the touched models is the one of an undisturbed
    load or `failed`, with the reason, but not of a record that is invalid by itself, if it could be `validated`; the
    other models are as ever.
    """
    assert outcome.status == 3 == outcome.lines[-1]["exit_status"], outcome.error
    assert outcome.error.startswith("distributed_inserts: "), outcome.error
    check_counts(load, outcome)
    for model in MODELS:
        expected = load.verdicts[model]
        odd = {
            line: (verdict, expected[line])
            for line, verdict in outcome.verdicts(model).items()
            if verdict != expected[line]
            and not (verdict == "failed" and model in touched and not (validated and line in load.invalid[model]))
        }
        assert odd == {}, f"{model}: verdicts by line, found and expected: {odd}"
    assert all(line["reason"] for line in outcome.lines if line.get("verdict") == "failed")


def check_failed(load: Load, outcome: Outcome, *databases: str, cause: str = "") -> None:
    """Make sure that databases failed as they have to: alone, but for the orders, with a message that names the cause.

    The reason of every record that failed names a database that did.
    """
    check_disturbed(load, outcome, [*(database.removesuffix(".db") for database in databases), "orders"])
    assert outcome.failed == set(databases), outcome.error
    told = [line for line in outcome.error.splitlines() if any(f": {database}: " in line for database in databases)]
    assert all(re.search(cause, line) for line in told), outcome.error
    reasons = {line["reason"] for line in outcome.lines if line.get("verdict") == "failed"}
    assert reasons and [reason for reason in reasons if not any(name in reason for name in databases)] == []


def copied(folder: Path, target: Path) -> Path:
    """Return a copy of databases that nobody has open, to look at without mending the originals."""
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(folder, target))
