"""Promise 3, deterministic, and the bare run: thirty records, a thread each, three databases, and their verdicts.

The sample is loaded under forced thread switches and random delays of every thread, 25 times, 200 with -m heavy.  Files
with many clashes are loaded under every size of batches, in any order of the files, into empty and into used databases,
and have to get the verdicts that a plain sequential model works out.  The sample goes only where nothing else is stored
(promise 8).
"""

from __future__ import annotations

import _thread
import json
import random
import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import HEAVY, MODELS, PROGRAM, ROOT, SAMPLE, SAMPLE_PROBLEMS, Run, contents, execute, rows, run_here, some
from loads import (
    SMALL_GROUPS,
    THREADS,
    Load,
    check_complete,
    check_counts,
    check_databases,
    load_here,
    run_load,
    write_load,
)

RUNS = 25


def stored(directory: Path) -> dict[str, list[tuple]]:
    """Return all rows of the three databases."""
    return {table: rows(directory / f"{table}.db") for table in MODELS}


def verdicts(text: str) -> tuple[dict[tuple[str, int], str], dict[tuple[str, int], set], dict]:
    """Return the verdicts and the problems by (model, id), and the summary line, of output in JSON."""
    *lines, summary = map(json.loads, text.splitlines())
    assert len({(line["model"], line["id"]) for line in lines}) == len(lines)
    problems = {
        (line["model"], line["id"]): {(problem["field"], problem["code"]) for problem in line["problems"]}
        for line in lines
    }
    return (
        {(line["model"], line["id"]): line["verdict"] for line in lines},
        {key: found for key, found in problems.items() if found},
        summary,
    )


def expected(good: str) -> dict[tuple[str, int], str]:
    """Return the specification's verdict on every record, where the good ones get `good`."""
    keys = [(table, number) for table in MODELS for number in range(1, 11)]
    return {key: "rejected" if key in SAMPLE_PROBLEMS else good for key in keys}


def run_apart(directory: Path, *arguments: str) -> tuple[int, str]:
    """Return exit status and output of a run in this process, which leaves no thread and complains of nothing."""
    before = threading.enumerate()
    result = run_here("--db", directory, *arguments)
    assert threading.enumerate() == before
    assert result.stderr == ""
    return result.returncode, result.stdout


def test_the_bare_run_stores_what_the_specification_says_and_exits_0(run: Run, tmp_path: Path) -> None:
    result = run()
    assert (result.returncode, result.stderr) == (0, "")
    assert stored(tmp_path) == SAMPLE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["orders.db", "products.db", "users.db"]


def test_every_record_gets_the_specifications_verdict_and_all_its_problems(run: Run) -> None:
    result = run("--json")
    assert (result.returncode, result.stderr) == (0, "")
    found, problems, summary = verdicts(result.stdout)
    assert found == expected("inserted")
    assert problems == SAMPLE_PROBLEMS
    assert summary["exit_status"] == 0


def test_a_second_run_finds_22_unchanged_and_the_same_8_rejected_records(run: Run, tmp_path: Path) -> None:
    first = run("--json")
    second = run("--json")
    found, problems, summary = verdicts(second.stdout)
    assert (second.returncode, second.stderr) == (0, "")
    assert found == expected("unchanged")
    assert list(found.values()).count("unchanged") == 22
    assert problems == verdicts(first.stdout)[1] == SAMPLE_PROBLEMS
    assert stored(tmp_path) == SAMPLE
    assert {
        table: (counts["read"], counts["inserted"], counts["unchanged"], counts["rejected"], counts["failed"])
        for table, counts in summary["summary"].items()
    } == {"users": (10, 0, 8, 2, 0), "products": (10, 0, 8, 2, 0), "orders": (10, 0, 6, 4, 0)}


def test_a_second_bare_run_says_the_same_in_text(run: Run) -> None:
    first, second = run(), run()
    assert second.returncode == 0
    rejections = [line for line in first.stdout.splitlines() if line.endswith("]")]
    assert rejections == [line for line in second.stdout.splitlines() if line.endswith("]")]
    assert (first.stdout.count(" inserted  "), second.stdout.count(" unchanged  ")) == (
        22 + 1,
        22 + 1,
    )  # and the table's heading


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (("users", 8), 'email: "alice@example.com" .*user 1 [not_unique]'),
        (("users", 10), "name: .*blank [blank]"),
        (("products", 7), 'name: "Laptop" .*product 1 [not_unique]'),
        (("products", 10), "price: -50.00 .*greater than 0 [not_positive]"),
        (("orders", 7), "product_id: 7 is not in products.db (.*products:7 was rejected) [no_such_reference]"),
        (("orders", 8), "user_id: 8 is not in users.db (.*users:8 was rejected) [no_such_reference]"),
        (("orders", 8), "quantity: 0 .*greater than 0 [not_positive]"),
        (("orders", 9), "quantity: -1 .*greater than 0 [not_positive]"),
        (("orders", 10), "user_id: 10 is not in users.db (.*users:10 was rejected) [no_such_reference]"),
        (("orders", 10), "product_id: 11 is not in products.db [no_such_reference]"),
    ],
)
def test_the_text_names_each_rejection_with_its_reason(here: Run, record: tuple[str, int], words: str) -> None:
    table, number = record
    section = next(part for part in here().stdout.split("\n\n") if part.startswith(f"{table}.db"))
    lines = [text.strip() for text in section.splitlines()]
    head = next(text for text in lines if text.split()[1:3] == ["rejected", str(number)])
    following = " ".join(lines[lines.index(head) + 1 :])
    assert re.search(".*".join(map(re.escape, words.split(".*"))), following), section


@pytest.mark.parametrize(
    "flags", [("-I", "-S"), ("-OO",), ("-bb",), ("-X", "dev", "-W", "error"), ("-X", "utf8=0")], ids=" ".join
)
def test_the_bare_run_does_not_depend_on_how_python_is_started(
    run: Run, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    result = run(python=flags)
    assert (result.returncode, result.stderr) == (0, "")
    assert stored(tmp_path) == SAMPLE


@pytest.mark.parametrize(
    "arguments",
    [
        ("--json",),
        ("-v", "--rejects", "rejects"),
        ("--dry-run",),
        ("--batch-size", "7"),
        ("--log-file", "log.txt", "--trace", "trace.json"),
    ],
    ids=" ".join,
)
def test_nothing_is_left_open_in_development_mode(run: Run, arguments: tuple[str, ...]) -> None:
    for _ in range(2):
        result = run(*arguments, python=("-X", "dev", "-W", "error"))
        assert (result.returncode, result.stderr) == (0, "")


def test_development_mode_finds_nothing_left_open_by_verify(run: Run) -> None:
    run()
    result = run("--verify", python=("-X", "dev", "-W", "error"))
    assert (result.returncode, result.stderr) == (0, "")


def test_no_thread_is_left_and_the_process_ends_by_itself(tmp_path: Path) -> None:
    assert run_apart(tmp_path)[0] == 0  # which compares the threads
    assert run_apart(tmp_path)[0] == 0
    assert stored(tmp_path) == SAMPLE


def test_every_record_has_a_thread_and_every_database_a_worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started: list[str] = []
    start, start_plain = threading.Thread.start, _thread.start_new_thread
    monkeypatch.setattr(threading.Thread, "start", lambda thread: (started.append(thread.name), start(thread))[1])
    monkeypatch.setattr(
        _thread,
        "start_new_thread",
        lambda function, arguments: (started.append(arguments[0].name), start_plain(function, arguments))[1],
    )
    _, out = run_apart(tmp_path)
    workers = [f"insert-worker {table}.db" for table in MODELS]
    records = [f"{table}#{number}" for table in MODELS for number in range(1, 11)]
    assert sorted(started) == sorted(workers + records)
    assert "by 3 insert workers, 30 threads" in out


@pytest.fixture
def switching() -> object:
    """Make Python switch threads as often as it can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.parametrize(
    "seeds", [range(RUNS), pytest.param(range(1000, 1200), marks=HEAVY)], ids=["25 runs", "200 runs"]
)
def test_the_verdicts_do_not_depend_on_the_schedule(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, switching: None, seeds: range
) -> None:
    run_thread, start_plain, chance = threading.Thread.run, _thread.start_new_thread, random.Random()

    def sleep() -> None:
        time.sleep(chance.random() * 0.01)

    def start_new_thread(function: Callable, arguments: tuple) -> int:
        return start_plain(lambda: (sleep(), function(*arguments)), ())

    monkeypatch.setattr(threading.Thread, "run", lambda thread: (sleep(), run_thread(thread)))
    monkeypatch.setattr(_thread, "start_new_thread", start_new_thread)
    for seed in seeds:
        chance.seed(seed)
        status, out = run_apart(tmp_path / str(seed), "--json")
        found, problems, _ = verdicts(out)
        assert (status, found, problems) == (0, expected("inserted"), SAMPLE_PROBLEMS), seed
        assert stored(tmp_path / str(seed)) == SAMPLE, seed


# ------------------------------------------------------------------------------------------- Files with many clashes

DELAYS = (
    SMALL_GROUPS
    + THREADS
    + """
import random
sys.setswitchinterval(1e-6)
chance = random.Random({seed})
in_thread = lambda name: time.sleep(chance.choice((0, 0, 0, 0.001, 0.02)))
"""
)
SIZES = [1, 2, 3, 7, 10, 64, 1000, 100_000]


def write_clashes(folder: Path, seed: int) -> Load:
    """Write files in which ids, unique values and whole records come again and again, and say what becomes of them."""
    return write_load(folder, seed=seed, users=100, products=50, orders=100, flaws=9)


@pytest.mark.parametrize(
    ("size", "seed"),
    [(size, SIZES.index(size)) for size in SIZES]
    + [pytest.param(size, seed, marks=HEAVY) for size in SIZES for seed in range(100, 105)],
)
def test_verdicts_under_any_batch_size_and_schedule_are_those_of_one_record_after_the_other(
    tmp_path: Path, size: int, seed: int
) -> None:
    load = write_clashes(tmp_path / "files", seed)
    assert sum(list(load.verdicts[model].values()).count("rejected") for model in MODELS) > 60
    flags = ["orders", "products", "users"]
    random.Random(seed).shuffle(flags)
    arguments = [word for model in flags for word in (f"--{model}", load.path(model))]
    outcome = run_load(tmp_path, *arguments, "--batch-size", size, patch=DELAYS.format(seed=seed))
    check_complete(tmp_path, load, outcome)


@pytest.mark.parametrize("seed", some(1, range(3)))
@pytest.mark.parametrize("arguments", [(), ("--replace",), ("--dry-run",)], ids=["load", "replace", "dry run"])
def test_verdicts_beside_stored_records_are_the_same_under_any_batch_size(
    tmp_path: Path, seed: int, arguments: tuple[str, ...]
) -> None:
    first, second = (write_clashes(tmp_path / f"files{number}", number) for number in (seed + 20, seed + 40))
    found = {}
    for size in (1, 7, 1000):
        folder = tmp_path / f"{size}"
        load_here(folder, *first.arguments)
        outcome = run_load(folder, *second.arguments, *arguments, "--batch-size", size, patch=SMALL_GROUPS)
        assert outcome.status == 1 and outcome.error == ""
        check_counts(second, outcome)
        lines = {}
        for line in outcome.lines[:-1]:
            codes = sorted((problem["field"], problem["code"]) for problem in line["problems"])
            lines[line["model"], line["line"]] = line["verdict"], codes
        found[size] = lines, check_databases(folder)
    for size, (lines, stored_rows) in found.items():
        odd = [(place, line, lines[place]) for place, line in found[1][0].items() if lines[place] != line]
        assert odd == [], f"batches of one and of {size}"
        assert stored_rows == found[1][1]
    if arguments == ("--dry-run",):
        assert found[1][1] == first.rows
    replaced = [line for line in found[1][0].values() if line[0] == "replaced"]
    assert (len(replaced) > 5) == (arguments == ("--replace",))


# ------------------------------------------------------------------------------------------- Where the sample may go

ELSEWHERE = {
    "another user": ("users", "INSERT INTO users VALUES (77, 'Zoe', 'zoe@example.com')"),
    "a user of the sample that was changed": ("users", "UPDATE users SET name = 'Alicia' WHERE id = 1"),
    "another product": ("products", "INSERT INTO products VALUES (77, 'Lamp', 1.5)"),
    "an order of the sample that was changed": ("orders", "UPDATE orders SET quantity = 7 WHERE id = 1"),
    "another table": ("users", "CREATE TABLE people (id INTEGER PRIMARY KEY)", "DROP TABLE users"),
}


@pytest.mark.parametrize("arguments", [(), ("--dry-run", "--json")], ids=["bare", "dry run"])
@pytest.mark.parametrize("other", ELSEWHERE)
def test_the_sample_goes_only_where_nothing_else_is_stored(
    here: Run, tmp_path: Path, other: str, arguments: tuple[str, ...]
) -> None:
    here("-q")
    model, *statements = ELSEWHERE[other]
    execute(tmp_path / f"{model}.db", *statements)
    before = contents(tmp_path)
    result = here(*arguments)
    assert (result.returncode, result.stdout) == (2, "") and result.stderr.count("\n") <= 3
    assert f"{model}.db" in result.stderr and result.stderr.startswith("distributed_inserts: ")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("arguments", [(), ("--dry-run", "--json")], ids=["bare", "dry run"])
@pytest.mark.parametrize("model", MODELS)
def test_the_sample_makes_no_database_beside_one_of_other_records(
    here: Run, tmp_path: Path, model: str, arguments: tuple[str, ...]
) -> None:
    fields = ", ".join(MODELS[model])
    execute(
        tmp_path / f"{model}.db",
        f"CREATE TABLE {model} (id INTEGER PRIMARY KEY{fields.removeprefix('id')})",
        f"INSERT INTO {model} VALUES (77{', 1' * fields.count(',')})",
    )
    before = contents(tmp_path)
    result = here(*arguments)
    assert (result.returncode, result.stdout) == (2, "") and f"{model}.db" in result.stderr
    assert result.stderr.count("\n") <= 3
    assert contents(tmp_path) == before


def test_the_sample_completes_where_a_part_of_it_is_stored(here: Run, tmp_path: Path) -> None:
    here("-q")
    (tmp_path / "orders.db").unlink()
    execute(tmp_path / "users.db", "DELETE FROM users WHERE id > 4")
    result = here("-q")
    assert (result.returncode, result.stderr) == (0, "")
    assert stored(tmp_path) == SAMPLE


@pytest.mark.parametrize("model", MODELS)
def test_the_sample_leaves_a_file_that_is_no_database_alone(here: Run, tmp_path: Path, model: str) -> None:
    (tmp_path / f"{model}.db").write_bytes(b"no database" * 100)
    result = here()
    assert result.returncode in (2, 3) and f"{model}.db" in result.stderr
    assert (tmp_path / f"{model}.db").read_bytes() == b"no database" * 100
    (tmp_path / f"{model}.db").unlink()
    assert here().returncode == 0
    assert stored(tmp_path) == SAMPLE


# ------------------------------------------------------------------------------------------------- What it is made of


def test_the_module_alone_in_a_folder_is_enough(tmp_path: Path, run: Run) -> None:
    assert sorted(path.name for path in ROOT.glob("*.py")) == [PROGRAM.name]
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    result = run(cwd=folder, python=("-I",))
    assert result.returncode == 0
    assert stored(folder) == SAMPLE
