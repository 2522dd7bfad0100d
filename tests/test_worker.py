"""The insert worker and the loader, in this process: groups, answers, failures, threads, and 200 schedules of the sample."""
from __future__ import annotations

import json
import queue
import random
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from conftest import rows
from loads import TIMEOUT_S, check_complete, check_databases, imported, in_time, run_load, write_load, Outcome

program = imported()
USERS, PRODUCTS, ORDERS = program.SCHEMAS
UNFORESEEN = (ValueError, KeyError, MemoryError, RecursionError, AttributeError)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable]:
    """Return a function that makes the worker of the users and its ledger, which orders wait on."""

    def make_worker(directory: Path = tmp_path, origin: str = "users.csv"):
        watch = program.Watch()
        patience = program.Patience(0.5, watch)
        ledger = program.Ledger(USERS, program.Origin(origin), lambda: program.Table.for_reading(USERS, str(directory), patience))
        ledger.needed = True
        ledgers.append(ledger)
        return program.InsertWorker(
            USERS, lambda: program.Table.for_writing(USERS, str(directory), patience), ledger, watch), ledger

    ledgers: list = []
    yield make_worker
    for ledger in ledgers:
        ledger.release()


def batch_of(number: int, *records: Sequence[object]):
    """Return a validated batch of users, the number-th of its input."""
    rows = [list(map(str, record)) for record in records]
    places = [number * len(rows) + place for place in range(len(rows))]
    batch = program.Batch(USERS, program.Origin("users.csv"), number, places, [",".join(row) for row in rows], rows)
    program.validate_batch(batch, 3, range(3))
    return batch


def users(first: int, count: int = 1) -> list[tuple[int, str, str]]:
    """Return so many users that clash with no other."""
    return [(id_, f"User {id_}", f"user{id_}@example.com") for id_ in range(first, first + count)]


def answered(batch) -> list[str]:
    """Wait for the answer to a batch and return its verdicts."""
    batch.answer.get(timeout=TIMEOUT_S)
    return [batch.verdict(position) for position in range(len(batch.places))]


def stored(folder: Path) -> list[int]:
    """Return the ids of all stored users."""
    return [row[0] for row in rows(folder / "users.db")]


def before(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, action: Callable[[object], object]) -> None:
    """Have a method call an action with its object before it does its work."""
    real = getattr(owner, name)

    def method(self, *arguments, **named):
        action(self)
        return real(self, *arguments, **named)

    monkeypatch.setattr(owner, name, method)


def limit_pages(monkeypatch: pytest.MonkeyPatch, database: str, pages: int) -> None:
    """Let a database grow to so many pages only: SQLite then says that it is full."""
    real = sqlite3.connect

    def connect(path, *arguments, **named):
        connection = real(path, *arguments, **named)
        if str(path).endswith(database):
            connection.execute(f"PRAGMA max_page_count={pages}")
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect)


# ----------------------------------------------------------------------------------------------------- Worker


@in_time
def test_batches_that_wait_become_one_transaction(make):
    worker, _ = make()
    batches = [batch_of(number, *users(number + 1)) for number in range(20)]
    worker.start()
    for batch in reversed(batches):         # the first one, without which nothing begins, comes last
        worker.submit(batch)
    assert len({batch.answer.get(timeout=TIMEOUT_S) for batch in batches}) == 1
    worker.finish(20)
    worker.join()


@in_time
def test_a_group_is_bounded(make, monkeypatch):
    monkeypatch.setattr(program, "GROUP_RECORDS", 10)
    worker, _ = make()
    worker.start()
    batches = [batch_of(number, *users(number * 4 + 1, 4)) for number in range(25)]
    for batch in reversed(batches):
        worker.submit(batch)
    for batch in batches:
        batch.answer.get(timeout=TIMEOUT_S)
    worker.finish(25)
    worker.join()
    numbers = [batch.transaction for batch in batches]
    assert numbers == sorted(numbers)
    assert max(numbers.count(number) for number in numbers) * 4 < 10 + 4


@in_time
def test_of_two_that_clash_the_first_in_input_order_wins_whichever_comes_first(make, tmp_path):
    worker, _ = make()
    worker.start()
    first, second = batch_of(0, (1, "Ann", "ann@example.com")), batch_of(1, (2, "Bob", "ANN@example.com"))
    worker.submit(second)
    worker.submit(first)
    assert (answered(first), answered(second)) == (["inserted"], ["rejected"])
    assert [(problem.field, problem.code) for problem in second.problems[0]] == [("email", "not_unique")]
    assert "user 1" in second.problems[0][0].message
    worker.finish(2)
    worker.join()
    assert stored(tmp_path) == [1]


@in_time
def test_a_clash_is_found_within_a_group_and_across_groups(make, tmp_path):
    worker, _ = make()
    worker.start()
    batches = [batch_of(number, (number + 1, "Ann", "ann@example.com")) for number in range(6)]
    for batch in batches[2::-1]:
        worker.submit(batch)
    verdicts = [answered(batch) for batch in batches[:3]]
    for batch in batches[3:]:
        worker.submit(batch)
        verdicts.append(answered(batch))
    worker.finish(6)
    worker.join()
    assert verdicts == [["inserted"]] + [["rejected"]] * 5
    assert stored(tmp_path) == [1]


@in_time
def test_a_bad_record_does_not_sink_its_group(make, tmp_path):
    worker, _ = make()
    worker.start()
    batch = batch_of(0, *users(1, 3), (4, " ", "jane@example.com"), (2, "Other", "other@example.com"),
                     (6, "Twin", "user1@example.com"), *users(2), *users(7))
    worker.submit(batch)
    assert answered(batch) == ["inserted"] * 3 + ["rejected"] * 3 + ["unchanged", "inserted"]
    worker.finish(1)
    worker.join()
    assert stored(tmp_path) == [1, 2, 3, 7]


@in_time
def test_an_answer_comes_after_the_commit_only(make, tmp_path, monkeypatch):
    worker, _ = make()
    worker.start()
    first = batch_of(0, *users(1))
    worker.submit(first)
    assert answered(first) == ["inserted"]
    batches = [batch_of(number, *users(number + 1)) for number in range(1, 4)]
    unanswered: list[int] = []
    before(monkeypatch, program.Table, "commit", lambda _: unanswered.append(sum(batch.answer.empty() for batch in batches)))
    for batch in reversed(batches):
        worker.submit(batch)
    batches[0].answer.get(timeout=TIMEOUT_S)
    assert stored(tmp_path)[:2] == [1, 2]           # another connection sees it at once
    assert [answered(batch) for batch in batches[1:]] == [["inserted"]] * 2
    worker.finish(4)
    worker.join()
    assert unanswered[0] == 3, "answered before the commit"
    assert stored(tmp_path) == [1, 2, 3, 4]


@in_time
def test_a_record_may_be_referred_to_after_its_commit_only(make, monkeypatch):
    worker, ledger = make()
    known = []
    worker.start()
    first, second = batch_of(0, *users(1)), batch_of(1, *users(2))
    worker.submit(first)
    assert answered(first) == ["inserted"]
    before(monkeypatch, program.Table, "commit", lambda _: known.append(ledger.awaited({1, 2})))
    worker.submit(second)
    assert answered(second) == ["inserted"]
    assert known[0] == {2}
    assert ledger.missing({1, 2}) == (set(), None)
    worker.finish(2)
    worker.join()


@in_time
def test_who_refers_to_a_record_that_never_comes_is_told_at_the_end(make):
    worker, ledger = make()
    worker.start()
    absent: queue.SimpleQueue = queue.SimpleQueue()
    asking = threading.Thread(target=lambda: absent.put(ledger.missing({1, 2, 9})))
    asking.start()
    batch = batch_of(0, *users(1), (2, "", "bob@example.com"))
    worker.submit(batch)
    assert answered(batch) == ["inserted", "rejected"]
    worker.finish(1)
    assert absent.get(timeout=TIMEOUT_S) == ({2, 9}, None)
    assert "users.csv:1 was rejected" in ledger.where(2) and ledger.where(9) == "users.db"
    worker.join()


@in_time
def test_the_first_error_ends_the_writing_and_answers_everybody(make, tmp_path, monkeypatch):
    limit_pages(monkeypatch, "users.db", 6)
    monkeypatch.setattr(program, "GROUP_RECORDS", 100)
    worker, ledger = make()
    worker.start()
    sizes = [100] * 8 + [1] * 12                    # the small ones would still fit, and leave a hole
    firsts = [sum(sizes[:number]) + 1 for number in range(20)]
    batches = [batch_of(number, *users(first, size)) for number, (first, size) in enumerate(zip(firsts, sizes))]
    for batch in reversed(batches):
        worker.submit(batch)
    verdicts = [verdict for batch in batches for verdict in answered(batch)]
    worker.finish(20)
    worker.join()
    count = verdicts.count("inserted")
    assert 100 <= count < 800 and verdicts == ["inserted"] * count + ["failed"] * (len(verdicts) - count)
    assert stored(tmp_path) == list(range(1, count + 1))
    assert "users.db" in worker.failure and "full" in worker.failure
    assert {batch.failure for batch in batches} == {None, worker.failure}
    absent, doubt = ledger.missing({1, count + 1})
    assert absent == {count + 1} and "users.db" in doubt


@in_time
def test_a_refusal_found_before_the_failure_stays_a_refusal(make, tmp_path):
    worker, _ = make(tmp_path / "nowhere")
    worker.start()
    batch = batch_of(0, *users(1), (2, "", "bob@example.com"))
    worker.submit(batch)
    assert answered(batch) == ["failed", "rejected"]
    worker.finish(1)
    worker.join()


@in_time
def test_a_database_that_cannot_be_opened_answers_at_once(make, tmp_path):
    worker, ledger = make(tmp_path / "nowhere")
    worker.start()
    for number in range(3):
        batch = batch_of(number, *users(number + 1))
        worker.submit(batch)
        assert answered(batch) == ["failed"]        # long before the input's end
        assert "users.db" in batch.failure and "unable to open" in batch.failure
    worker.finish(3)
    worker.join()
    assert ledger.missing({1})[0] == {1} and "unable to open" in ledger.missing({1})[1]


@in_time
def test_a_worker_whose_thread_cannot_start_answers_at_once(make, monkeypatch):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    worker, ledger = make()
    before(monkeypatch, threading.Thread, "start", refuse)
    worker.start()
    batch = batch_of(0, *users(1))
    worker.submit(batch)
    assert answered(batch) == ["failed"]
    assert "users.db" in batch.failure and "can't start new thread" in batch.failure
    worker.finish(1)
    worker.join()
    assert ledger.missing({1})[1] == worker.failure


@pytest.mark.parametrize("error", UNFORESEEN)
@pytest.mark.parametrize("place", ["Table.begin", "Table.insert", "Table.commit", "KeyHolders.find", "KeyHolders.add",
                                   "Group.share_out", "Ledger.record"])
@in_time
def test_a_worker_that_raises_something_unforeseen_answers_everybody(make, tmp_path, monkeypatch, place, error):
    owner, name = place.split(".")
    worker, ledger = make()
    worker.start()
    first = batch_of(0, *users(1))
    worker.submit(first)
    assert answered(first) == ["inserted"]

    def fail(_):
        raise error("unforeseen")

    before(monkeypatch, getattr(program, owner), name, fail)
    batches = [batch_of(number, *users(number + 1)) for number in range(1, 5)]
    for batch in reversed(batches):
        worker.submit(batch)
    assert [answered(batch) for batch in batches] == [["failed"]] * 4
    assert "users.db" in worker.failure and error.__name__ in worker.failure and "unforeseen" in worker.failure
    worker.finish(5)
    worker.join()
    assert ledger.missing({1})[0] == set() and set(stored(tmp_path)) <= {1, 2, 3, 4, 5}


@in_time
def test_closing_stores_what_waits_and_answers_everybody(make, tmp_path):
    worker, _ = make()
    batches = [batch_of(number, *users(number + 1)) for number in range(50)]
    handing = [threading.Thread(target=worker.submit, args=(batch,)) for batch in batches]
    worker.start()
    worker.finish(50)                               # said before any of them has come
    for thread in handing:
        thread.start()
    worker.join()
    assert [batch.answer.empty() for batch in batches] == [False] * 50
    assert [answered(batch) for batch in batches] == [["inserted"]] * 50
    assert stored(tmp_path) == list(range(1, 51))
    assert not (tmp_path / "users.db-wal").exists(), "the database was not closed"


@in_time
def test_closing_without_a_record_ends(make, tmp_path):
    worker, ledger = make()
    worker.start()
    worker.finish(0)
    worker.join()
    assert worker.failure is None and stored(tmp_path) == [] and ledger.missing({1}) == ({1}, None)


@in_time
def test_a_batch_handed_over_after_the_end_does_not_wait_for_ever(make):
    worker, _ = make()
    worker.start()
    worker.finish(0)
    worker.join()
    batch = batch_of(0, *users(1))
    try:
        worker.submit(batch)
    except (RuntimeError, ValueError):
        return                                      # refused: that is an answer too
    batch.answer.get(timeout=1)
    assert batch.failure


@in_time
def test_what_another_writer_committed_in_between_counts(make, tmp_path):
    worker, _ = make()
    worker.start()
    first = batch_of(0, *users(1, 3))
    worker.submit(first)
    assert answered(first) == ["inserted"] * 3
    with sqlite3.connect(tmp_path / "users.db") as other:
        other.execute("INSERT INTO users VALUES (9, 'Zoë', 'zoë@example.com'), (8, 'Bob', 'bob@example.com')")
    other.close()
    second = batch_of(1, (4, "Zoe", "ZOË@example.com"), (5, "Bob", "Bob@Example.com"), (9, "Zoë", "zoë@example.com"),
                      (8, "Rob", "rob@example.com"), *users(6))
    worker.submit(second)
    assert answered(second) == ["rejected", "rejected", "unchanged", "rejected", "inserted"]
    assert [second.problems[place][0].code for place in (0, 1, 3)] == ["not_unique", "not_unique", "conflict"]
    worker.finish(2)
    worker.join()


# ----------------------------------------------------------------------------------------------------- Loader


def run_main(capsys: pytest.CaptureFixture, folder: Path, *arguments: object) -> Outcome:
    """Run the program in this process and return what it left."""
    status = program.main(["--json", "--db-dir", str(folder), *map(str, arguments)])
    output, error = capsys.readouterr()
    return Outcome(status, output, error)


def delay_everywhere(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Sleep for random moments before threads, inside them and around all that they share."""
    chance = random.Random(seed)

    def pause(_):
        if chance.random() < 0.3:
            time.sleep(chance.random() * 0.002)

    for owner, names in ((threading.Thread, ("start", "run")), (program.InsertWorker, ("submit", "finish")),
                         (program.Table, ("begin", "insert", "commit")), (program.Ledger, ("missing", "record", "close"))):
        for name in names:
            before(monkeypatch, owner, name, pause)


# What the contract says of the sample: the refused records, each with all its problems, and the rows.
REFUSED = {
    ("users", 8): {("email", "not_unique", "user 1")},
    ("users", 10): {("name", "blank", "")},
    ("products", 7): {("name", "not_unique", "product 1")},
    ("products", 10): {("price", "not_positive", "-50.00")},
    ("orders", 7): {("product_id", "no_such_reference", "product_id 7 is not in products.db (sample products:7 was rejected)")},
    ("orders", 8): {("user_id", "no_such_reference", "user_id 8 is not in users.db (sample users:8 was rejected)"),
                    ("quantity", "not_positive", "")},
    ("orders", 9): {("quantity", "not_positive", "")},
    ("orders", 10): {("user_id", "no_such_reference", "user_id 10 is not in users.db (sample users:10 was rejected)"),
                     ("product_id", "no_such_reference", "product_id 11 is not in products.db")},
}
STORED = {
    "users": [(id_, name, f"{name.lower()}@example.com") for id_, name in enumerate(
        "Alice Bob Charlie David Eve Frank Grace - Henry".split(), start=1) if id_ != 8],
    "products": [(1, "Laptop", 1000.0), (2, "Smartphone", 700.0), (3, "Headphones", 150.0), (4, "Monitor", 300.0),
                 (5, "Keyboard", 50.0), (6, "Mouse", 30.0), (8, "Smartwatch", 250.0), (9, "Gaming Chair", 500.0)],
    "orders": [(1, 1, 1, 2), (2, 2, 2, 1), (3, 3, 3, 5), (4, 4, 4, 1), (5, 5, 5, 3), (6, 6, 6, 4)],
}


def check_sample(folder: Path, outcome: Outcome, verdict: str) -> None:
    """Make sure that a run of the sample is what the contract says of it."""
    assert (outcome.status, outcome.error) == (0, "")
    lines = outcome.lines[:-1]
    assert sorted((line["model"], line["line"], line["id"]) for line in lines) == sorted(
        (model, number, number) for model in STORED for number in range(1, 11))
    for line in lines:
        expected = REFUSED.get((line["model"], line["line"]), set())
        assert line["verdict"] == ("rejected" if expected else verdict), line
        problems = {(problem["field"], problem["code"]): problem["message"] for problem in line["problems"]}
        assert problems.keys() == {(name, code) for name, code, _ in expected}, line
        assert all(words in problems[name, code] for name, code, words in expected), line
    assert {model: rows(folder / f"{model}.db") for model in STORED} == STORED


@pytest.mark.parametrize("form", ["--json", "--verbose"])
@in_time
def test_records_are_listed_in_input_order_when_a_model_ends_between_those_of_the_next(tmp_path, capsys, monkeypatch, form):
    listed, closed = threading.Event(), threading.Event()
    add, close, submit = program.Report.add, program.Report.close, program.InsertWorker.submit
    order = {"users#10": listed, "products#10": closed}     # who waits for what

    def note(event, is_it, real):
        def method(self, subject):
            real(self, subject)
            if is_it(subject):
                event.set()
        return method

    def submit_in_turn(self, batch):
        assert batch.name not in order or order[batch.name].wait(TIMEOUT_S)
        submit(self, batch)

    monkeypatch.setattr(program.Report, "add", note(listed, lambda batch: batch.name == "products#9", add))
    monkeypatch.setattr(program.Report, "close", note(closed, lambda schema: schema.table == "users", close))
    monkeypatch.setattr(program.InsertWorker, "submit", submit_in_turn)
    assert program.main([form, "--db-dir", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    names = ["Laptop", "Smartphone", "Headphones", "Monitor", "Keyboard", "Mouse", "Laptop", "Smartwatch", "Chair", "Earbuds"]
    if form == "--json":
        assert [line["line"] for line in map(json.loads, output.splitlines()) if line.get("model") == "products"] == list(range(1, 11))
    else:
        listed_names = [name for line in output.splitlines() for name in set(names) if line.startswith("  ") and f" {name} " in line]
        assert listed_names == names


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=pytest.mark.heavy if seed >= 20 else ()) for seed in range(200)])
@in_time
def test_the_sample_comes_out_the_same_under_any_schedule(tmp_path, capsys, monkeypatch, seed):
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        delay_everywhere(monkeypatch, seed)
        check_sample(tmp_path, run_main(capsys, tmp_path), "inserted")
        check_sample(tmp_path, run_main(capsys, tmp_path), "unchanged")
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=pytest.mark.heavy if seed >= 2 else ()) for seed in range(20)])
@in_time
def test_files_come_out_the_same_under_any_schedule(tmp_path, capsys, monkeypatch, seed):
    load = write_load(tmp_path / "files", seed, users=60, products=30, orders=80)
    delay_everywhere(monkeypatch, seed)
    outcome = run_main(capsys, tmp_path / "databases", *load.arguments, "--batch-size", seed % 4 + 1)
    check_complete(tmp_path / "databases", load, outcome)


@pytest.mark.parametrize("arguments", [(), ("--dry-run",), ("--batch-size", "3")])
@in_time
def test_no_thread_is_left_alive(tmp_path, capsys, arguments):
    alive = set(threading.enumerate())
    load = write_load(tmp_path / "files", users=50, products=20, orders=60)
    run_main(capsys, tmp_path, *load.arguments, *arguments)
    assert set(threading.enumerate()) == alive


@in_time
def test_no_thread_is_left_alive_after_a_failure(tmp_path, capsys):
    alive = set(threading.enumerate())
    (tmp_path / "users.db").write_bytes(b"no database" * 100)
    assert run_main(capsys, tmp_path).status == 3
    assert set(threading.enumerate()) == alive


def test_each_record_has_a_thread_and_they_carry_its_name(tmp_path):
    outcome = run_load(tmp_path, "--log-file", "log.txt")
    log = (tmp_path / "log.txt").read_text()
    assert outcome.status == 0
    for model in STORED:
        assert f"insert-worker {model}.db" in log
        assert all(f" {model}#{number} " in log for number in range(1, 11))


@in_time
def test_threads_alive_at_once_are_bounded(tmp_path, capsys, monkeypatch):
    peaks = []
    for count in (150, 900):
        load = write_load(tmp_path / f"files{count}", users=count, products=count, orders=count)
        with monkeypatch.context() as patch:
            alive: list[int] = []
            before(patch, threading.Thread, "run", lambda _: alive.append(threading.active_count()))
            outcome = run_main(capsys, tmp_path / f"databases{count}", *load.arguments)
        check_complete(tmp_path / f"databases{count}", load, outcome)
        assert len(alive) == 3 * count + 3
        peaks.append(max(alive))
    assert max(peaks) <= threading.active_count() + 3 + 4 * program.THREADS_MAX


def break_validation(monkeypatch: pytest.MonkeyPatch, batch_name: str) -> None:
    """Have the validation of one batch raise what nobody foresaw."""
    real = program.validate_batch

    def validate(batch, *rest):
        if batch.name == batch_name:
            raise ZeroDivisionError("unforeseen")
        return real(batch, *rest)

    monkeypatch.setattr(program, "validate_batch", validate)


@pytest.mark.parametrize("arguments", [(), ("--log-file", "log.txt"), ("--trace", "trace.json")])
@in_time
def test_a_record_that_breaks_its_own_thread_does_not_sink_its_neighbours(tmp_path, capsys, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        break_validation(patch, "users#3")
        outcome = run_main(capsys, tmp_path, *arguments)
    assert outcome.status == 3
    assert [line["line"] for line in outcome.lines if (line.get("model"), line.get("verdict")) == ("users", "failed")] == [3]
    assert "ZeroDivisionError: unforeseen" in json.dumps(outcome.lines)
    assert [row[0] for row in check_databases(tmp_path)["users"]] == [1, 2, 4, 5, 6, 7, 9]
    run_main(capsys, tmp_path)
    assert check_databases(tmp_path) == STORED


@in_time
def test_who_refers_to_a_record_that_failed_is_in_doubt_and_not_refused(tmp_path, capsys, monkeypatch):
    break_validation(monkeypatch, "users#3")
    outcome = run_main(capsys, tmp_path)
    assert [(line["model"], line["line"]) for line in outcome.lines if line.get("verdict") == "failed"] == [
        ("users", 3), ("orders", 3)]
