"""The bare run: thirty records, a thread each, three databases, and the verdicts that the contract names."""
from __future__ import annotations

import json
import random
import sqlite3
import sys
import threading
import time
from pathlib import Path

import pytest

import distributed_inserts
from conftest import PROGRAM, ROOT, Run, rows

USERS = [(1, "Alice", "alice@example.com"), (2, "Bob", "bob@example.com"), (3, "Charlie", "charlie@example.com"),
         (4, "David", "david@example.com"), (5, "Eve", "eve@example.com"), (6, "Frank", "frank@example.com"),
         (7, "Grace", "grace@example.com"), (9, "Henry", "henry@example.com")]
PRODUCTS = [(1, "Laptop", 1000.0), (2, "Smartphone", 700.0), (3, "Headphones", 150.0), (4, "Monitor", 300.0),
            (5, "Keyboard", 50.0), (6, "Mouse", 30.0), (8, "Smartwatch", 250.0), (9, "Gaming Chair", 500.0)]
ORDERS = [(1, 1, 1, 2), (2, 2, 2, 1), (3, 3, 3, 5), (4, 4, 4, 1), (5, 5, 5, 3), (6, 6, 6, 4)]
STORED = {"users": USERS, "products": PRODUCTS, "orders": ORDERS}
REFUSED = {
    ("users", 8): {("email", "not_unique")},
    ("users", 10): {("name", "blank")},
    ("products", 7): {("name", "not_unique")},
    ("products", 10): {("price", "not_positive")},
    ("orders", 7): {("product_id", "no_such_reference")},
    ("orders", 8): {("user_id", "no_such_reference"), ("quantity", "not_positive")},
    ("orders", 9): {("quantity", "not_positive")},
    ("orders", 10): {("user_id", "no_such_reference"), ("product_id", "no_such_reference")},
}
RUNS = 20


def stored(directory: Path) -> dict[str, list[tuple]]:
    """Return all rows of the three databases."""
    return {table: rows(directory / f"{table}.db") for table in STORED}


def verdicts(text: str) -> tuple[dict[tuple[str, int], str], dict[tuple[str, int], set], dict]:
    """Return the verdicts and the problems by (model, id), and the summary line, of output in JSON."""
    *lines, summary = map(json.loads, text.splitlines())
    assert len({(line["model"], line["id"]) for line in lines}) == len(lines)
    problems = {(line["model"], line["id"]): {(problem["field"], problem["code"]) for problem in line["problems"]} for line in lines}
    return ({(line["model"], line["id"]): line["verdict"] for line in lines},
            {key: found for key, found in problems.items() if found}, summary)


def expected(good: str) -> dict[tuple[str, int], str]:
    """Return the contract's verdict on every record, where the good ones get `good`."""
    keys = [(table, number) for table in STORED for number in range(1, 11)]
    return {key: "rejected" if key in REFUSED else good for key in keys}


def run_here(capsys: pytest.CaptureFixture[str], directory: Path, *arguments: str) -> tuple[int, str]:
    """Return the exit status and the output of a run in this process, which must leave no thread and complain of nothing."""
    before = threading.enumerate()
    status = distributed_inserts.main(["--db-dir", str(directory), *arguments])
    out, err = capsys.readouterr()
    assert threading.enumerate() == before
    assert err == ""
    return status, out


def test_the_bare_run_stores_what_the_contract_says_and_exits_0(run: Run, tmp_path: Path) -> None:
    result = run()
    assert (result.returncode, result.stderr) == (0, "")
    assert stored(tmp_path) == STORED
    assert sorted(path.name for path in tmp_path.iterdir()) == ["orders.db", "products.db", "users.db"]


def test_every_record_gets_the_contracts_verdict_and_all_its_problems(run: Run) -> None:
    result = run("--json")
    assert (result.returncode, result.stderr) == (0, "")
    found, problems, summary = verdicts(result.stdout)
    assert found == expected("inserted")
    assert problems == REFUSED
    assert summary["exit_status"] == 0


def test_a_second_run_finds_22_unchanged_and_the_same_8_refusals(run: Run, tmp_path: Path) -> None:
    first = run("--json")
    second = run("--json")
    found, problems, summary = verdicts(second.stdout)
    assert (second.returncode, second.stderr) == (0, "")
    assert found == expected("unchanged")
    assert list(found.values()).count("unchanged") == 22
    assert problems == verdicts(first.stdout)[1] == REFUSED
    assert stored(tmp_path) == STORED
    assert {table: (counts["read"], counts["inserted"], counts["unchanged"], counts["rejected"], counts["failed"])
            for table, counts in summary["summary"].items()} == {
        "users": (10, 0, 8, 2, 0), "products": (10, 0, 8, 2, 0), "orders": (10, 0, 6, 4, 0)}


def test_a_second_bare_run_says_the_same_in_text(run: Run) -> None:
    first, second = run(), run()
    assert second.returncode == 0
    refusals = [line for line in first.stdout.splitlines() if line.endswith("]")]
    assert refusals == [line for line in second.stdout.splitlines() if line.endswith("]")]
    assert (first.stdout.count(" inserted  "), second.stdout.count(" unchanged  ")) == (22 + 1, 22 + 1)     # and the table's heading


@pytest.mark.parametrize(("record", "line"), [
    (("users", 8), 'sample users:8: email: "alice@example.com" is already taken by user 1 [not_unique]'),
    (("users", 10), "sample users:10: name: is blank [blank]"),
    (("products", 7), 'sample products:7: name: "Laptop" is already taken by product 1 [not_unique]'),
    (("products", 10), "sample products:10: price: -50.00 is not greater than 0 [not_positive]"),
    (("orders", 7), "sample orders:7: product_id: 7 is not in products.db (sample products:7 was rejected) [no_such_reference]"),
    (("orders", 8), "sample orders:8: user_id: 8 is not in users.db (sample users:8 was rejected) [no_such_reference]"),
    (("orders", 8), "sample orders:8: quantity: 0 is not greater than 0 [not_positive]"),
    (("orders", 9), "sample orders:9: quantity: -1 is not greater than 0 [not_positive]"),
    (("orders", 10), "sample orders:10: user_id: 10 is not in users.db (sample users:10 was rejected) [no_such_reference]"),
    (("orders", 10), "sample orders:10: product_id: 11 is not in products.db [no_such_reference]"),
])
def test_the_text_names_each_refusal_with_its_reason(run: Run, record: tuple[str, int], line: str) -> None:
    table, number = record
    section = next(part for part in run().stdout.split("\n\n") if part.startswith(f"{table}.db "))
    lines = [text.strip() for text in section.splitlines()]
    head = next(text for text in lines if text.split()[1:3] == ["rejected", str(number)])
    following = lines[lines.index(head) + 1:lines.index(head) + 1 + len(REFUSED[record])]
    assert line in following


@pytest.mark.parametrize("flags", [
    ("-I",), ("-I", "-S"), ("-OO",), ("-bb",), ("-X", "dev", "-W", "error"), ("-X", "utf8=0"),
], ids=" ".join)
def test_the_bare_run_does_not_depend_on_how_python_is_started(run: Run, tmp_path: Path, flags: tuple[str, ...]) -> None:
    result = run(python=flags)
    assert (result.returncode, result.stderr) == (0, "")
    assert stored(tmp_path) == STORED


@pytest.mark.parametrize("arguments", [(), ("--json",), ("-q",), ("-v",), ("--dry-run",), ("--batch-size", "1"),
                                       ("--batch-size", "7"), ("--log-file", "log.txt", "--trace", "trace.json"),
                                       ("--rejects", "refused")], ids=lambda arguments: " ".join(arguments) or "bare")
def test_nothing_is_left_open_in_development_mode(run: Run, arguments: tuple[str, ...]) -> None:
    for _ in range(2):
        result = run(*arguments, python=("-X", "dev", "-W", "error"))
        assert (result.returncode, result.stderr) == (0, "")


def test_development_mode_finds_nothing_left_open_by_verify(run: Run) -> None:
    run()
    result = run("--verify", python=("-X", "dev", "-W", "error"))
    assert (result.returncode, result.stderr) == (0, "")


def test_no_thread_is_left_and_the_process_ends_by_itself(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run_here(capsys, tmp_path)[0] == 0       # which compares the threads
    assert run_here(capsys, tmp_path)[0] == 0
    assert stored(tmp_path) == STORED


def test_every_record_has_a_thread_and_every_database_a_worker(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
                                                               tmp_path: Path) -> None:
    started: list[str] = []
    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda thread: (started.append(thread.name), start(thread))[1])
    run_here(capsys, tmp_path)
    workers = [name for name in started if name.startswith("insert-worker ")]
    assert sorted(workers) == [f"insert-worker {table}.db" for table in sorted(STORED)]
    assert sorted(set(started) - set(workers)) == sorted(f"{table}#{number}" for table in STORED for number in range(1, 11))
    assert len(started) == 33


def check_schedules(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, directory: Path, seeds: range) -> None:
    """Run the sample under forced thread switches and random delays of every thread, once a seed, always from nothing."""
    run_thread = threading.Thread.run
    for seed in seeds:
        chance = random.Random(seed)
        monkeypatch.setattr(threading.Thread, "run", lambda thread: (time.sleep(chance.random() * 0.01), run_thread(thread)))
        status, out = run_here(capsys, directory / str(seed), "--json")
        found, problems, _ = verdicts(out)
        assert (status, found, problems) == (0, expected("inserted"), REFUSED), seed
        assert stored(directory / str(seed)) == STORED, seed


@pytest.fixture
def switching() -> object:
    """Make Python switch threads as often as it can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_the_verdicts_do_not_depend_on_the_schedule(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
                                                    tmp_path: Path, switching: None) -> None:
    check_schedules(capsys, monkeypatch, tmp_path, range(RUNS))


@pytest.mark.heavy
def test_the_verdicts_do_not_depend_on_the_schedule_in_200_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
                                                                tmp_path: Path, switching: None) -> None:
    check_schedules(capsys, monkeypatch, tmp_path, range(1000, 1200))


@pytest.mark.parametrize(("table", "columns"), [
    ("users", [("id", "INTEGER", 1), ("name", "TEXT", 0), ("email", "TEXT", 0)]),
    ("products", [("id", "INTEGER", 1), ("name", "TEXT", 0), ("price", "REAL", 0)]),
    ("orders", [("id", "INTEGER", 1), ("user_id", "INTEGER", 0), ("product_id", "INTEGER", 0), ("quantity", "INTEGER", 0)]),
])
def test_the_databases_have_the_contracts_columns_and_check_nothing_themselves(run: Run, tmp_path: Path, table: str,
                                                                               columns: list[tuple]) -> None:
    run()
    connection = sqlite3.connect(tmp_path / f"{table}.db")
    try:
        found = connection.execute(f"PRAGMA table_info({table})").fetchall()
        objects = connection.execute("SELECT type, upper(sql) FROM sqlite_master").fetchall()
        unique = [row for row in connection.execute(f"PRAGMA index_list({table})") if row[2]]
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    finally:
        connection.close()
    assert [(name, kind, key) for _, name, kind, notnull, default, key in found if not notnull and default is None] == columns
    assert {kind for kind, _ in objects} <= {"table", "index"}
    assert [kind for kind, _ in objects].count("table") == 1
    assert unique == []
    for word in ("UNIQUE", "CHECK", "NOT NULL", "REFERENCES", "FOREIGN", "TRIGGER"):
        assert not any(word in (sql or "") for _, sql in objects)


@pytest.mark.parametrize(("table", "number", "source"), [("users", 8, "sample"), ("orders", 10, "sample")])
def test_a_line_of_json_has_the_contracts_keys_in_its_order(run: Run, table: str, number: int, source: str) -> None:
    lines = [json.loads(line) for line in run("--json").stdout.splitlines()]
    line = next(line for line in lines if (line.get("model"), line.get("id")) == (table, number))
    assert list(line) == ["model", "source", "line", "id", "verdict", "problems"]
    assert (line["source"], line["line"]) == (source, number)
    assert all(list(problem) == ["field", "code", "message"] for problem in line["problems"])


def test_the_module_alone_in_a_folder_is_enough(tmp_path: Path, run: Run) -> None:
    assert sorted(path.name for path in ROOT.glob("*.py")) == [PROGRAM.name]
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    result = run(cwd=folder, python=("-I",))
    assert result.returncode == 0
    assert stored(folder) == STORED
