"""Inserting from another program: `open_databases`, from many threads and processes, and the README's API."""

from __future__ import annotations

import importlib
import http.client
import itertools
import json
import os
import random
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
import tracemalloc
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import conftest
from conftest import HEAVY, MODELS, ROOT, TIMEOUT_S, Databases, execute, some
from loads import KILLED, Running, check_databases, locked, wait_until, write_load

program = importlib.import_module("distributed_inserts")

UNIQUE = {"users": ("email", 2), "products": ("name", 1)}
VALIDATE = {"users": program.validate_user, "products": program.validate_product, "orders": program.validate_order}
ANN = {"id": 1, "name": "Ann", "email": "ann@example.com"}
PEN = {"id": 1, "name": "Pen", "price": 1.5}


def pairs(outcome: object) -> set[tuple[str, str]]:
    """Return the (field, code) pairs of an outcome's problems."""
    return {(problem.field, problem.code) for problem in outcome.problems}


# ------------------------------------------------------------------------------------------------------ One caller


@pytest.mark.parametrize("model", ["user", "Users", "", "users; DROP TABLE users", None, 3])
def test_an_unknown_model_is_a_mistake_of_the_program(sqlite, model):
    with program.open_databases(sqlite.place) as shop:
        with pytest.raises(ValueError, match="users"):
            shop.insert(model, ANN)
        with pytest.raises(ValueError, match="users"):
            shop.find(model, 1)
        assert shop.insert("users", ANN).verdict == "inserted"


@pytest.mark.parametrize(
    "record", [None, 5, "id,name", b"x", ["id", 1], [("id", 1)], {1, 2}, object(), float("nan"), True]
)
def test_what_is_no_mapping_is_malformed(databases, record):
    with program.open_databases(databases.place) as shop:
        outcome = shop.insert("users", record)
        assert outcome.verdict == "rejected" and [problem.code for problem in outcome.problems] == ["malformed"]
        assert shop.insert("users", ANN).verdict == "inserted"


class Odd(Mapping):
    """A mapping that is no dict."""

    def __getitem__(self, name: str) -> object:
        return ANN[name]

    def __iter__(self) -> Iterator[str]:
        return iter(ANN)

    def __len__(self) -> int:
        return len(ANN)


def row_of_sqlite() -> sqlite3.Row:
    """Return a user as a program that reads another database has it."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute("SELECT 1 AS id, 'Ann' AS name, 'ann@example.com' AS email").fetchone()


@pytest.mark.parametrize(
    "record",
    [
        Odd(),
        row_of_sqlite(),
        {**ANN, "extra": object()},
        {**ANN, "id": "1"},
        {**ANN, "id": 1.0},
        {**ANN, "name": " Ann "},
    ],
    ids=["mapping", "row", "more fields", "text", "float", "spaces"],
)
def test_any_mapping_is_a_record(sqlite, record):
    with program.open_databases(sqlite.place) as shop:
        assert shop.insert("users", record).verdict == "inserted"
        assert shop.insert("users", ANN).verdict == "unchanged"
        assert shop.find("users", 1) == ANN


class Broken(Mapping):
    """A mapping that raises."""

    def __getitem__(self, name: str) -> object:
        raise OSError("the disk of another program")

    def __iter__(self) -> Iterator[str]:
        return iter(ANN)

    def __len__(self) -> int:
        return len(ANN)


def test_a_mapping_that_raises_harms_nobody_else(sqlite):
    with program.open_databases(sqlite.place) as shop:
        try:
            assert shop.insert("users", Broken()).verdict in ("failed", "rejected")
        except OSError as error:
            assert "another program" in str(error)
        assert shop.insert("users", ANN).verdict == "inserted"


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"id": None},
        {"id": 2**63, "name": "\ud800", "email": "x"},
        {"id": [], "name": {}, "email": b"\xff"},
        {"id": float("inf"), "name": float("nan"), "email": "a@" + "b" * 10_000},
    ],
)
def test_a_bad_record_never_raises_and_stores_nothing(databases, record):
    with program.open_databases(databases.place) as shop:
        outcome = shop.insert("users", record)
        assert outcome.verdict == "rejected" and len(outcome.problems) >= 2
        assert pairs(outcome) == {(problem.field, problem.code) for problem in program.validate_user(record)}
    assert databases.rows("users") == []


@pytest.mark.parametrize("id_", [0, -1, 2, 2**63 - 1, 2**63, 10**30, -(10**30)])
def test_what_is_not_stored_is_not_found(databases, id_):
    with program.open_databases(databases.place) as shop:
        assert shop.find("users", id_) is None
        shop.insert("users", ANN)
        assert shop.find("users", id_) is None
        assert shop.find("users", 1) == ANN


def test_a_record_is_not_changed_and_a_found_one_is_the_callers(sqlite):
    record = {"id": " 1 ", "name": " Ann", "email": "ann@example.com"}
    before = dict(record)
    with program.open_databases(sqlite.place) as shop:
        shop.insert("users", record)
        assert record == before
        shop.find("users", 1)["name"] = "changed"
        assert shop.find("users", 1) == ANN


def test_after_closing_the_databases_are_closed(databases):
    with program.open_databases(databases.place) as shop:
        shop.insert("users", ANN)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="closed"):
            shop.insert("users", ANN)
        with pytest.raises(RuntimeError, match="closed"):
            shop.find("users", 1)
    assert databases.rows("users") == [tuple(ANN.values())]


def test_a_call_that_an_interrupt_cut_off_does_not_keep_the_block_open(sqlite):
    """Whenever it comes: here it comes while the call is being left."""
    code = f"""
import contextlib, signal, sys
sys.path.insert(0, {str(ROOT)!r})
import distributed_inserts as program
def interrupt(frame, event, _):
    if event == "call" and frame.f_code.co_name == "__exit__" and frame.f_code.co_filename == contextlib.__file__:
        sys.setprofile(None)
        signal.raise_signal(signal.SIGINT)
try:
    with program.open_databases({sqlite.place!r}) as shop:
        sys.setprofile(interrupt)
        shop.find("users", 1)
except KeyboardInterrupt:
    print("left")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("left\n", "")


@pytest.mark.parametrize("name", ["insert", "find"])
def test_a_call_in_which_the_block_is_closed_ends(sqlite, name):
    """As a signal's handler closes it: here whatever the call looks at does."""

    class Closing(dict):
        def __getitem__(self, key):
            shop.close()
            return super().__getitem__(key)

    class Text(str):
        def strip(self, *_):
            shop.close()
            return "1"

    with program.open_databases(sqlite.place) as shop, pytest.raises(RuntimeError, match="closed"):
        shop.insert("users", Closing(ANN)) if name == "insert" else shop.find("users", Text("1"))


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1, 1e12])
def test_a_busy_timeout_that_is_none_is_told_at_once(databases, seconds):
    with pytest.raises(ValueError, match="seconds"):
        program.open_databases(databases.place, busy_timeout=seconds)


@pytest.mark.skipif(os.name != "posix", reason="Windows keeps open files where they are")
def test_a_file_that_was_taken_away_is_noticed_by_look_ups_too(sqlite):
    with program.open_databases(sqlite.place) as shop:
        assert shop.insert("users", ANN).verdict == "inserted"
        assert shop.insert("products", {"id": 1, "name": "Pen", "price": 1}).verdict == "inserted"
        for path in Path(sqlite.place).glob("users.db*"):
            path.unlink()
        order = {"id": 1, "user_id": ANN["id"], "product_id": 1, "quantity": 1}
        made = [shop.insert("orders", order).verdict for _ in range(2)]
        assert made == ["failed", "rejected"]  # the next call opens what is there now: nothing
        assert shop.find("users", ANN["id"]) is None


def test_an_exception_in_the_block_passes_and_closes(databases):
    alive = set(threading.enumerate())
    with pytest.raises(KeyError, match="of the program"), program.open_databases(databases.place) as shop:
        shop.insert("users", ANN)
        raise KeyError("of the program")
    assert set(threading.enumerate()) == alive
    assert databases.rows("users") == [tuple(ANN.values())]


def test_the_workers_have_a_thread_each_and_leave_none(databases):
    alive = set(threading.enumerate())
    with program.open_databases(databases.place) as shop:
        for _ in range(20):
            shop.insert("users", ANN)
            shop.find("products", 1)
        assert len(set(threading.enumerate()) - alive) <= 2 * len(MODELS)
    assert set(threading.enumerate()) == alive


def test_sqlite_files_are_left_as_a_load_leaves_them(sqlite):
    with program.open_databases(sqlite.place) as shop:
        shop.insert("users", ANN)
        shop.insert("products", PEN)
    assert {path.name for path in Path(sqlite.place).iterdir()} <= {"users.db", "products.db", "orders.db"}


def test_several_blocks_on_the_same_databases_get_along(databases):
    with program.open_databases(databases.place) as first, program.open_databases(databases.place) as second:
        for number in range(1, 21):
            one, other = (first, second) if number % 2 else (second, first)
            record = {"id": number, "name": "Ann", "email": f"ann{number}@example.com"}
            assert one.insert("users", record).verdict == "inserted"
            assert other.insert("users", record).verdict == "unchanged"
            assert pairs(other.insert("users", {**record, "id": 100 + number})) == {("email", "not_unique")}
            assert other.find("users", number) == record


def test_a_fourth_model_is_inserted_as_the_three(databases):
    if databases.engine == "postgresql":
        place = f"postgresql:///users?host={databases.server.folder}&user=loader&options=-csearch_path%3D{{model}}"
        databases.execute(
            "users", "; ".join(f"CREATE SCHEMA {model} AUTHORIZATION loader" for model in (*MODELS, "reviews"))
        )
    else:
        place = databases.place
    schemas = (
        *program.SCHEMAS,
        program.Schema(
            "reviews",
            "review",
            (
                program.Field("id", program.Kind.ID),
                program.Field("order_id", program.Kind.REFERENCE, references="orders"),
                program.Field("title", program.Kind.TEXT, unique=True),
            ),
        ),
    )
    with program.open_databases(place, schemas=schemas) as shop:
        shop.insert("users", ANN), shop.insert("products", PEN)
        assert shop.insert("orders", {"id": 7, "user_id": 1, "product_id": 1, "quantity": 1}).verdict == "inserted"
        assert shop.insert("reviews", {"id": 1, "order_id": 7, "title": "Fine"}).verdict == "inserted"
        assert pairs(shop.insert("reviews", {"id": 2, "order_id": 8, "title": "FINE"})) == {
            ("order_id", "no_such_reference"),
            ("title", "not_unique"),
        }


@pytest.mark.parametrize("kind", ["file", "below a file"])
def test_a_place_that_can_be_none_is_told_at_once(tmp_path, kind):
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises((ValueError, OSError), match="file"),
        program.open_databases(str(tmp_path / "file" / "shop" if kind == "below a file" else tmp_path / "file")),
    ):
        pass
    assert (tmp_path / "file").read_text() == "mine"


# --------------------------------------------------------------------------------------------- A database that fails


@contextmanager
def out_of_order(databases: Databases, model: str) -> Iterator[None]:
    """Lock a database for as long as the block lasts."""
    if databases.engine == "sqlite":
        with locked(Path(databases.place, f"{model}.db"), "BEGIN IMMEDIATE"):
            yield
    else:
        with closing(databases.server.connect(model)) as holder:
            holder.execute("BEGIN")
            holder.execute(f"LOCK TABLE {model} IN EXCLUSIVE MODE")
            yield


def test_a_failed_database_is_tried_anew_by_the_next_call(databases):
    with program.open_databases(databases.place, busy_timeout=0.3) as shop:
        shop.insert("users", ANN)
        shop.insert("products", PEN)
        with out_of_order(databases, "users"):
            for _ in range(2):
                outcome = shop.insert("users", {**ANN, "id": 2, "email": "bo@example.com"})
                assert (
                    outcome.verdict == "failed"
                    and "locked" in outcome.reason
                    and databases.name("users") in outcome.reason
                )
                assert "\n" not in outcome.reason and list(outcome.problems) == []
            assert shop.insert("products", {**PEN, "id": 2, "name": "Ink"}).verdict == "inserted"
        assert shop.insert("users", {**ANN, "id": 2, "email": "bo@example.com"}).verdict == "inserted"
        assert shop.insert("orders", {"id": 1, "user_id": 2, "product_id": 2, "quantity": 1}).verdict == "inserted"


def test_a_bad_record_is_rejected_though_its_database_fails(databases):
    with program.open_databases(databases.place, busy_timeout=0.3) as shop:
        shop.insert("users", ANN)
        with out_of_order(databases, "users"):
            assert shop.insert("users", {"id": "x", "name": "", "email": ""}).verdict == "rejected"


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signal can be sent to a thread here")
def test_after_an_interrupted_call_the_next_one_works(databases):
    caller = threading.get_ident()

    def interrupt() -> None:
        """Send SIGINT to the caller once it is inside the program."""
        wait_until(lambda: "in insert\n" in "".join(traceback.format_stack(sys._current_frames()[caller])))
        signal.pthread_kill(caller, signal.SIGINT)

    record = {**ANN, "id": 2, "email": "bo@example.com"}
    with program.open_databases(databases.place, busy_timeout=60) as shop:
        shop.insert("users", ANN)
        with out_of_order(databases, "users"), pytest.raises(KeyboardInterrupt):
            (thread := threading.Thread(target=interrupt)).start()
            shop.insert("users", record)
        thread.join()
        assert shop.insert("users", record).verdict in ("inserted", "unchanged")  # nobody was told of the first
    assert databases.rows("users") == [tuple(ANN.values()), tuple(record.values())]


def test_a_database_that_is_none_fails_until_it_is_put_right(sqlite):
    (blocked := Path(sqlite.place, "users.db")).mkdir(parents=True)
    with program.open_databases(sqlite.place) as shop:
        for _ in range(2):
            outcome = shop.insert("users", ANN)
            assert outcome.verdict == "failed" and "users.db" in outcome.reason
        assert shop.insert("products", PEN).verdict == "inserted"
        order = {"id": 1, "user_id": 1, "product_id": 1, "quantity": 1}
        outcome = shop.insert("orders", order)
        assert outcome.verdict == "failed" and "users.db" in outcome.reason
        assert shop.insert("orders", {**order, "quantity": 0}).verdict == "rejected"
        blocked.rmdir()
        assert shop.insert("users", ANN).verdict == "inserted"
        assert shop.insert("orders", order).verdict == "inserted"


def test_a_lost_connection_costs_at_most_the_calls_that_used_it(postgresql):
    with program.open_databases(postgresql.place) as shop:
        assert shop.insert("users", ANN).verdict == "inserted"
        for number in range(2, 6):
            postgresql.execute(
                "postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'loader'"
            )
            record = {"id": number, "name": "Bo", "email": f"bo{number}@example.com"}
            verdicts = [shop.insert("users", record).verdict for _ in range(2)]
            assert verdicts in (["failed", "inserted"], ["inserted", "unchanged"], ["failed", "unchanged"])
            assert shop.find("users", number) == record


def test_a_server_that_comes_back_is_used_again(postgresql):
    with program.open_databases(postgresql.place, busy_timeout=1) as shop:
        shop.insert("users", ANN)
        postgresql.server.stop("immediate")
        try:
            outcome = shop.insert("users", {**ANN, "id": 2, "email": "bo@example.com"})
            assert outcome.verdict == "failed" and "users" in outcome.reason
        finally:
            postgresql.server.start()
        outcomes = [shop.insert("users", {**ANN, "id": 2, "email": "bo@example.com"}).verdict for _ in range(2)]
        assert outcomes[-1] in ("inserted", "unchanged")


def wait_together(databases: Databases, shop: object, pool: ThreadPoolExecutor) -> list[Future]:
    """Have 30 callers wait for a database that is locked."""
    users = [{"id": number, "name": "Ann", "email": f"ann{number}@example.com"} for number in range(2, 32)]
    calls = [pool.submit(shop.insert, "users", record) for record in users]
    wait_until(lambda: all(call.running() for call in calls))
    time.sleep(0.1)  # they are in the worker's queue, most likely
    return calls


def test_leaving_the_block_answers_all_who_wait(databases):
    with ThreadPoolExecutor(30) as pool, ExitStack() as holder:
        with program.open_databases(databases.place) as shop:
            shop.insert("users", ANN)
            holder.enter_context(out_of_order(databases, "users"))
            calls = wait_together(databases, shop, pool)
            threading.Timer(0.2, holder.close).start()
        assert {call.result(TIMEOUT_S).verdict for call in calls} == {"inserted"}
    assert len(databases.rows("users")) == 31


def test_all_who_wait_for_a_lock_together_wait_for_it_once(databases):
    with ThreadPoolExecutor(30) as pool:
        with program.open_databases(databases.place, busy_timeout=1) as shop:
            shop.insert("users", ANN)
            with out_of_order(databases, "users"):
                calls = wait_together(databases, shop, pool)
                wait_until(lambda: all(call.done() for call in calls), timeout_s=15)  # not one second after the other
                assert {call.result().verdict for call in calls} == {"failed"}
            assert shop.insert("users", {**ANN, "id": 50, "email": "bo@example.com"}).verdict == "inserted"
    assert len(databases.rows("users")) == 2


def test_a_block_that_is_left_before_a_database_could_be_opened_ends_in_peace(databases, monkeypatch):
    errors: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", errors.append)
    with program.open_databases(databases.place) as shop:
        shop.insert("users", ANN)
    for table in ("users", "products", "orders"):
        databases.execute(table, f"DROP TABLE IF EXISTS {table}")
        databases.execute(table, f"CREATE TABLE {table} (id text)")  # it cannot be used
    for _ in range(20):  # the end comes sometimes before the error and sometimes after it
        program.open_databases(databases.place).close()
    assert not errors


def test_who_only_reads_is_answered_though_a_writer_waited_for_a_lock_in_vain(sqlite):
    with ThreadPoolExecutor(4) as pool, program.open_databases(sqlite.place, busy_timeout=1) as shop:
        shop.insert("users", ANN)
        shop.insert("products", {"id": 1, "name": "Pen", "price": 1})
        with out_of_order(sqlite, "users"):
            written = pool.submit(shop.insert, "users", {**ANN, "id": 2, "email": "bo@example.com"})
            wait_until(lambda: shop._place._patience.waits)  # for the lock
            found = [pool.submit(shop.find, "users", 1) for _ in range(2)]
            order = pool.submit(shop.insert, "orders", {"id": 1, "user_id": 1, "product_id": 1, "quantity": 1})
            assert written.result(TIMEOUT_S).verdict == "failed"
            assert [each.result(TIMEOUT_S)["name"] for each in found] == ["Ann", "Ann"]
            assert order.result(TIMEOUT_S).verdict == "inserted"


def test_all_who_read_while_nobody_can_wait_for_it_once(sqlite):
    with program.open_databases(sqlite.place) as shop:
        shop.insert("users", ANN)  # in the end there is no write-ahead log, so a lock keeps readers out, too
    with ThreadPoolExecutor(10) as pool, program.open_databases(sqlite.place, busy_timeout=1) as shop:
        shop.find("users", 1)
        with locked(Path(sqlite.place, "users.db"), "BEGIN EXCLUSIVE"):
            calls = [pool.submit(shop.find, "users", 1) for _ in range(10)]
            wait_until(lambda: all(call.done() for call in calls), timeout_s=6)  # not one second after the other
            assert all(isinstance(call.exception(), program.StorageError) for call in calls)
        assert shop.find("users", 1) == ANN


def test_calls_while_the_block_is_left_are_answered_or_told(databases):
    answers: list[str] = []

    def call(start: int) -> None:
        for number in itertools.count(start):
            try:
                outcome = shop.insert("users", {"id": number, "name": "Ann", "email": f"ann{number}@example.com"})
            except RuntimeError:
                answers.append("closed")
                return
            answers.append(outcome.verdict)

    with program.open_databases(databases.place) as shop:
        threads = [threading.Thread(target=call, args=(1 + 100_000 * number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(answers) > 100)
    for thread in threads:
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()
    assert set(answers) == {"inserted", "closed"}
    assert answers.count("inserted") == len(databases.rows("users"))


def test_what_cannot_even_be_shown_is_a_bad_record(sqlite):
    class Broken:
        def __str__(self) -> str:
            raise LookupError

    with program.open_databases(sqlite.place) as shop:
        for record in (Broken(), [Broken()], {**ANN, "id": Broken()}, {**ANN, "name": Broken()}):
            outcome = shop.insert("users", record)
            assert outcome.verdict == "rejected" and all(map(str, outcome.problems))
        with pytest.raises(ValueError, match="no model"):
            shop.insert([], ANN)


# --------------------------------------------------------------------------------------------- Many callers at once


@dataclass
class Call:
    """One call of insert: what was given and answered, and its begin and end in the order of all calls."""

    model: str
    record: dict
    verdict: str = ""
    problems: frozenset[tuple[str, str]] = frozenset()
    begin: int = 0
    end: int = 0

    @property
    def row(self) -> tuple:
        """The record as it would be stored."""
        return tuple(self.record.values())

    @property
    def id(self) -> object:
        """The record's id."""
        return self.record["id"]


def random_calls(seed: int, count: int) -> list[Call]:
    """Return calls with clashes of ids and of unique values, the same record twice, unknown parents and bad fields."""
    chance, size = random.Random(seed), count // 4
    calls: list[Call] = []
    for _ in range(count):
        id_, number = chance.randint(1, size), chance.randint(1, size)
        model = chance.choice(("users", "products", "orders", "orders"))
        if model == "users":
            email = f"{chance.choice(('user', 'User', 'USER'))}{number}@example.com"
            record = {"id": id_, "name": f"User {id_}", "email": email}
        elif model == "products":
            record = {"id": id_, "name": f"{chance.choice(('pen', 'Pen'))} {number}", "price": 0.5 + number % 7}
        else:
            record = {
                "id": chance.randint(1, 3 * size),
                "user_id": chance.randint(1, size + 30),
                "product_id": number,
                "quantity": 1 + number % 3,
            }
        if chance.random() < 0.06:
            record[chance.choice(list(record)[1:])] = chance.choice(("", None, -1, "@"))
        elif calls and chance.random() < 0.1:
            twin = chance.choice(calls)
            model, record = twin.model, dict(twin.record)
        calls.append(Call(model, record))
    return calls


def call_from_threads(shop: object, calls: list[Call], threads: int) -> None:
    """Make the calls from so many threads, and note what came of them."""
    clock, start, errors = itertools.count(), threading.Barrier(threads), []

    def work(mine: list[Call]) -> None:
        try:
            start.wait(TIMEOUT_S)
            for call in mine:
                call.begin = next(clock)
                outcome = shop.insert(call.model, call.record)
                call.end = next(clock)
                call.verdict, call.problems = outcome.verdict, frozenset(pairs(outcome))
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work, args=(calls[number::threads],)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(TIMEOUT_S * 3)
        assert not worker.is_alive()
    assert errors == []


def check_sound(databases: Databases) -> dict[str, dict[int, tuple]]:
    """Return all rows by model and id after making sure of no duplicate and no order without its parents."""
    return {model: {row[0]: row for row in rows} for model, rows in check_databases(databases).items()}


def check_calls(calls: list[Call], databases: Databases, strangers: bool = False) -> None:
    """Make sure that some order of the calls allows every verdict; `strangers` may have inserted too.

    Nothing is ever deleted, so what is stored at the end tells who came first: a record is there from some moment of
    the call that inserted it, or, if that was a stranger's, from an unknown one.
    """
    stored = check_sound(databases)
    makers: dict[tuple[str, object], Call] = {}
    for call in calls:
        if call.verdict == "inserted":
            assert (call.model, call.id) not in makers, f"inserted twice: {call}"
            makers[call.model, call.id] = call
            assert stored[call.model][call.id] == call.row, f"inserted and not stored: {call}"
    if not strangers:
        assert set(makers) == {(model, id_) for model in MODELS for id_ in stored[model]}
    holders = {
        model: {row[place].casefold(): id_ for id_, row in stored[model].items()}
        for model, (_, place) in UNIQUE.items()
    }
    for call in calls:
        _check_call(call, stored, makers, holders)


def _check_call(call: Call, stored: dict, makers: dict, holders: dict) -> None:
    """Make sure of a call's verdict: what it says may have been so in its time, and what was so all along is said."""

    def may_be(model: str, id_: object) -> bool:
        maker = makers.get((model, id_))
        return id_ in stored[model] and (maker is None or maker.begin < call.end)

    def has_to_be(model: str, id_: object) -> bool:
        maker = makers.get((model, id_))
        return maker is not None and maker.end < call.begin

    wrong = {(problem.field, problem.code) for problem in VALIDATE[call.model](call.record)}
    same = stored[call.model].get(call.id) == call.row
    possible, certain = set(wrong), set(wrong)
    if call.id in stored[call.model] and not same:
        possible |= {("id", "conflict")} if may_be(call.model, call.id) else set()
        certain |= {("id", "conflict")} if has_to_be(call.model, call.id) and not wrong else set()
    if call.model in UNIQUE:
        field, place = UNIQUE[call.model]
        holder = holders[call.model].get(str(call.record[field]).casefold())
        if holder not in (None, call.id):
            possible |= {(field, "not_unique")} if may_be(call.model, holder) else set()
            certain |= {(field, "not_unique")} if has_to_be(call.model, holder) else set()
    else:
        for field, parent in (("user_id", "users"), ("product_id", "products")):
            id_ = call.record[field]
            if type(id_) is int:
                possible |= {(field, "no_such_reference")} if not has_to_be(parent, id_) else set()
                certain |= {(field, "no_such_reference")} if id_ not in stored[parent] else set()
    if call.verdict == "inserted":
        assert certain == set(), f"inserted in spite of {certain}: {call}"
        if call.model == "orders":
            assert may_be("users", call.record["user_id"]) and may_be("products", call.record["product_id"]), call
    elif call.verdict == "unchanged":
        assert same and may_be(call.model, call.id) and wrong == set(), call
    else:
        assert call.verdict == "rejected", call
        assert call.problems and certain <= call.problems <= possible, f"{call}: possible {possible}, certain {certain}"


@pytest.mark.parametrize("seed", some(1, range(1, 12)))
def test_every_verdict_is_one_that_some_order_of_the_calls_allows(databases, seed):
    calls = random_calls(seed, 3200)
    with program.open_databases(databases.place) as shop:
        call_from_threads(shop, calls, 64)
    check_calls(calls, databases)
    verdicts = Counter(call.verdict for call in calls)
    assert (
        sum(verdicts.values()) == 3200
        and verdicts["inserted"] > 300
        and verdicts["unchanged"] > 30
        and verdicts["rejected"] > 300
    )
    codes = Counter(code for call in calls for _, code in call.problems)
    assert (
        min(
            codes[code]
            for code in ("conflict", "not_unique", "no_such_reference", "not_email", "not_number", "not_positive")
        )
        > 0
    )


@pytest.mark.parametrize("count", [600, pytest.param(3200, marks=HEAVY)])
def test_callers_and_a_load_on_the_same_databases_get_along(databases, tmp_path, count):
    load = write_load(tmp_path / "files", seed=7, users=count, products=count // 2, orders=count)
    calls = random_calls(8, count)
    for call in calls:  # the load's names, so that they clash
        if call.model == "products" and call.record["name"]:
            call.record["name"] = str(call.record["name"]).replace("pen", "product").replace("Pen", "Product")
    with (
        program.open_databases(databases.place) as shop,
        Running(tmp_path, "--json", "--db", databases.place, *load.arguments, "--batch-size", "5") as running,
    ):
        running.line()
        call_from_threads(shop, calls, 16)
        outcome = running.end(TIMEOUT_S * 3)
    assert (outcome.status, outcome.error) == (1, "") and outcome.total("failed") == 0
    check_calls(calls, databases, strangers=True)
    inserted = Counter(call.model for call in calls if call.verdict == "inserted")
    for model in MODELS:
        assert inserted[model] + outcome.summary[model]["inserted"] == len(databases.rows(model))


def serve_calls(place: str, seed: int, count: int) -> None:
    """Make calls in a process of its own and print what came of them."""
    calls = random_calls(seed, count)
    with program.open_databases(place) as shop:
        print("ready", flush=True)
        sys.stdin.readline()
        call_from_threads(shop, calls, 16)
    print(json.dumps([[call.model, call.record, call.verdict, sorted(call.problems)] for call in calls]), flush=True)


def in_a_process(call: str, folder: Path, **options: object) -> subprocess.Popen:
    """Start a process that makes one call of this module."""
    script = f"import sys; sys.path[:0] = [{str(ROOT / 'tests')!r}]; import test_program; test_program.{call}"
    return subprocess.Popen(
        [sys.executable, "-c", script], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options
    )


@pytest.mark.parametrize("count", [600, pytest.param(3200, marks=HEAVY)])
def test_callers_of_two_processes_on_the_same_databases_get_along(databases, tmp_path, count):
    calls = random_calls(9, count)
    with in_a_process(f"serve_calls({databases.place!r}, 10, {count})", tmp_path) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            with program.open_databases(databases.place) as shop:
                process.stdin.write("go\n")
                process.stdin.flush()
                call_from_threads(shop, calls, 16)
            output, _ = process.communicate(timeout=TIMEOUT_S * 3)
        finally:
            process.kill()
    others = [
        Call(model, record, verdict, frozenset(map(tuple, problems)))
        for model, record, verdict, problems in json.loads(output)
    ]
    check_calls(calls, databases, strangers=True)
    for call in others:  # of another clock: all at once, as far as this one knows
        call.begin, call.end = -1, 1 << 60
    check_calls(others, databases, strangers=True)
    inserted = Counter((call.model, call.id) for call in (*calls, *others) if call.verdict == "inserted")
    assert set(inserted.values()) == {1}
    assert set(inserted) == {(model, row[0]) for model in MODELS for row in databases.rows(model)}


def test_callers_that_wait_at_the_same_time_share_a_commit_and_a_lonely_one_waits_for_nobody(sqlite, monkeypatch):
    commits, first, go_on = [], threading.Event(), threading.Event()
    real = program.SqliteTable.commit

    def commit(table: object) -> object:
        commits.append(threading.current_thread().name)
        if len(commits) == 1:
            first.set()
            assert go_on.wait(TIMEOUT_S)
        return real(table)

    with program.open_databases(sqlite.place) as shop, ThreadPoolExecutor(64) as pool:
        shop.insert("users", ANN)
        monkeypatch.setattr(program.SqliteTable, "commit", commit)
        users = [{"id": number, "name": "Bo", "email": f"bo{number}@example.com"} for number in range(2, 60)]
        calls = [pool.submit(shop.insert, "users", users[0])]
        assert first.wait(TIMEOUT_S)
        calls += [pool.submit(shop.insert, "users", record) for record in users[1:]]
        wait_until(lambda: all(call.running() for call in calls))
        time.sleep(0.3)  # so that all of them are in the queue
        go_on.set()
        assert {call.result(TIMEOUT_S).verdict for call in calls} == {"inserted"}
        assert len(commits) <= 4  # the one that was held, and one or few for all others
        commits.clear()
        commits.append("none is held any more")
        for number in range(100, 130):
            assert (
                shop.insert("users", {"id": number, "name": "Bo", "email": f"bo{number}@example.com"}).verdict
                == "inserted"
            )
        assert len(commits) - 1 == 30  # each at once, for itself


@pytest.mark.parametrize("calls", [600, pytest.param(30_000, marks=HEAVY)])
def test_memory_does_not_grow_with_the_number_of_calls(sqlite, calls):
    def make(count: int) -> int:
        for number in range(count):
            shop.insert("users", ANN)
            shop.insert("users", {**ANN, "id": number + 2})
            shop.insert("orders", {"id": number, "user_id": number + 2, "product_id": 1, "quantity": 1})
            shop.find("users", number)
        return tracemalloc.get_traced_memory()[0]

    with program.open_databases(sqlite.place) as shop:
        shop.insert("users", ANN)
        tracemalloc.start()
        try:
            make(600)  # what Python keeps for later use is there after that
            before = make(200)
            assert make(calls) - before < 200_000  # bytes
        finally:
            tracemalloc.stop()


RESIDENT = """
import resource, sys, threading
sys.path[:0] = [{root!r}]
import distributed_inserts as program
def insert(start):
    for number in range(start, start + {share}):
        assert shop.insert("products", {{"id": number, "name": f"{name} {{number}}", "price": 1}}).verdict == "inserted"
with program.open_databases("shop") as shop:
    for turn in range({turns}):
        threads = [threading.Thread(target=insert, args=(1 + (turn * 16 + number) * {share},)) for number in range(16)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True)
"""


@HEAVY
@pytest.mark.skipif(sys.platform != "linux", reason="what a process takes, as Linux counts it")
@pytest.mark.parametrize("name", ["pen", "Ёж"])  # the index finds the one, a database that folds ASCII not the other
def test_memory_does_not_grow_with_the_records_that_were_inserted(tmp_path, name):
    script = RESIDENT.format(root=str(ROOT), share=2_500, turns=12, name=name)
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=1200)
    assert done.stderr == ""
    peaks = list(map(int, done.stdout.split()))
    assert len(peaks) == 12 and peaks[-1] - peaks[5] < 8 * 1024  # KiB, for 240,000 records more


def test_texts_that_no_database_folds_are_unique_call_after_call(databases):
    """What is kept of them is bounded: it tells which may be taken, the database which are, and by whom."""
    with program.open_databases(databases.place) as shop:
        for number in range(1, 201):
            assert shop.insert("products", {"id": number, "name": f"Стол {number}", "price": 1}).verdict == "inserted"
    with program.open_databases(databases.place) as shop:
        for number in range(1, 201):
            taken = shop.insert("products", {"id": 1000 + number, "name": f"СТОЛ {number}", "price": 1})
            assert [str(problem) for problem in taken.problems] == [
                f'name "СТОЛ {number}" is already taken by product {number} (Стол {number})'
            ]
        for number, name, verdict in (
            (1, "Стол 1", "replaced"),  # the price alone
            (2, "стол 3", "rejected"),
            (3, "Ёж", "replaced"),
            (2, "стол 3", "replaced"),  # which is free now
            (201, "Стол 2", "inserted"),
            (202, "ЁЖ", "rejected"),
        ):
            made = shop.insert("products", {"id": number, "name": name, "price": 2}, replace=True)
            assert (number, made.verdict) == (number, verdict)
    check_sound(databases)


def serve_until_killed(place: str) -> None:
    """Insert from many threads for ever, and print each id that is stored as soon as that is known."""
    lock = threading.Lock()

    def work(start: int) -> None:
        for number in range(start, start + 100_000):
            made = [
                shop.insert("users", {"id": number, "name": "Ann", "email": f"ann{number}@example.com"}),
                shop.insert("products", {"id": number, "name": f"Pen {number}", "price": 1}),
                shop.insert("orders", {"id": number, "user_id": number, "product_id": number, "quantity": 1}),
            ]
            assert [outcome.verdict for outcome in made] == ["inserted"] * 3
            with lock:
                print(number, flush=True)

    with program.open_databases(place) as shop:
        threads = [threading.Thread(target=work, args=(1 + 100_000 * number,), daemon=True) for number in range(16)]
        for thread in threads:
            thread.start()
        threads[0].join()


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
@pytest.mark.parametrize("attempt", some(1, range(20)))
def test_what_was_answered_is_stored_though_the_process_is_killed(databases, tmp_path, attempt):
    with in_a_process(f"serve_until_killed({databases.place!r})", tmp_path) as process:
        try:
            answered = [int(process.stdout.readline()) for _ in range(random.Random(attempt).randint(50, 300))]
        finally:
            process.kill()
        answered += [int(line) for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    stored = check_sound(databases)
    for model in MODELS:
        assert set(answered) <= set(stored[model])
    with program.open_databases(databases.place) as shop:
        assert shop.find("orders", answered[0])["user_id"] == answered[0]
        assert (
            shop.insert("users", {"id": 5_000_000, "name": "Late", "email": "late@example.com"}).verdict == "inserted"
        )


# ------------------------------------------------------------------------------------------------- The README's API


TOKENS = {"writer-of-all-5f2c": list(MODELS), "writer-of-orders-77aa": ["orders"], "reader-1b": []}
WRITER, ORDERS, READER = TOKENS
NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def api_source() -> str:
    """Return the one Python block of the README that imports flask."""
    blocks = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    found = [block for block in blocks if re.search(r"^(from|import) flask", block, re.MULTILINE)]
    assert len(found) == 1
    return found[0]


class Api:
    """The README's API as a process of its own, and calls to it over HTTP."""

    def __init__(self, folder: Path) -> None:
        for name in ("flask", "waitress"):
            if not importlib.util.find_spec(name):
                conftest.lacking(f"{name} is missing: pip install flask waitress")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        (folder / "api.py").write_text(api_source(), encoding="utf-8")
        self.running = Running(
            folder, program=folder / "api.py", TOKENS=json.dumps(TOKENS), LISTEN=self.address, PYTHONPATH=str(ROOT)
        )

    def __enter__(self) -> Api:
        wait_until(self._answers)
        return self

    def __exit__(self, *rest: object) -> None:
        self.running.__exit__(*rest)

    def _answers(self) -> bool:
        assert self.running.process.poll() is None, self.running.end()
        try:
            return self("GET", "/users/1", token=READER)[0] in (200, 404)
        except OSError:
            return False

    def __call__(
        self,
        method: str,
        path: str,
        body: object = None,
        token: str | None = WRITER,
        raw: bytes | None = None,
        **headers: str,
    ) -> tuple[int, dict]:
        """Make a call and return the status and what was answered, as JSON if it is JSON."""
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if body is not None or raw is not None:
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(
            f"http://{self.address}{path}",
            method=method,
            headers=headers,
            data=raw if raw is not None else json.dumps(body).encode() if body is not None else None,
        )
        try:
            with NO_PROXY.open(request, timeout=TIMEOUT_S) as response:
                status, text, given = response.status, response.read(), response.headers
        except urllib.error.HTTPError as error:
            with error:
                status, text, given = error.code, error.read(), error.headers
        assert b"Traceback" not in text
        if status == 401:
            assert given["WWW-Authenticate"].startswith("Bearer")
        return status, json.loads(text) if "json" in given.get("Content-Type", "") else {}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    """The README's API on a free port, its databases in the folder `shop` of the test's folder."""
    with Api(tmp_path) as running:
        yield running


def test_the_api_is_short_and_compares_tokens_in_constant_time():
    source = api_source()
    assert len(source.splitlines()) <= 35 and max(map(len, source.splitlines())) <= 120
    assert "compare_digest" in source and "waitress" in source
    compile(source, "api.py", "exec")


def codes(answer: tuple[int, dict]) -> tuple[int, set[tuple[str, str]]]:
    """Return the status and the (field, code) pairs of an answer."""
    return answer[0], {(problem["field"], problem["code"]) for problem in answer[1]["problems"]}


def test_the_api_answers_as_http_has_it(api, tmp_path):
    order = {"id": 1, "user_id": 1, "product_id": 1, "quantity": 2}
    # POST: created, there already, taken, wrong
    assert api("POST", "/users", ANN)[0] == 201
    assert api("POST", "/users", ANN)[0] == 200
    assert api("POST", "/products", PEN)[0] == 201
    assert api("POST", "/orders", order)[0] == 201
    assert codes(api("POST", "/users", {**ANN, "name": "Anna"})) == (409, {("id", "conflict")})
    assert codes(api("POST", "/users", {**ANN, "id": 2, "email": "ANN@example.com"})) == (
        409,
        {("email", "not_unique")},
    )
    status, answer = api("POST", "/orders", {"id": 2, "user_id": 8, "product_id": 9, "quantity": 0})
    assert status == 422 and answer["verdict"] == "rejected"
    assert codes((status, answer)) == (
        422,
        {("user_id", "no_such_reference"), ("product_id", "no_such_reference"), ("quantity", "not_positive")},
    )
    assert all(problem["message"] for problem in answer["problems"])
    assert codes(api("POST", "/users", {"id": 3, "name": "", "email": "ann@example.com"}))[0] == 422
    assert api("POST", "/users", raw=b"[" * 100_000)[0] == 422
    for raw in (b"", b"{", b"[]", b"null", b"5", b'"text"', b"\xff\xfe"):
        status, answer = api("POST", "/users", raw=raw)
        assert status == 422 and [problem["code"] for problem in answer["problems"]] == ["malformed"], raw
    # GET: found, or not
    assert api("GET", "/users/1", token=READER) == (200, ANN)
    assert api("GET", "/products/1", token=READER) == (200, PEN)
    assert api("GET", "/users/2", token=READER)[0] == 404
    assert api("GET", f"/users/{10**30}", token=READER)[0] == 404
    # PUT: replaced, unchanged, created; the path names the record
    assert api("PUT", "/orders/1", {**order, "quantity": 5})[0] == 200
    assert api("GET", "/orders/1")[1]["quantity"] == 5
    assert api("PUT", "/orders/1", {**order, "quantity": 5})[0] == 200
    assert api("PUT", "/users/4", {"name": "Di", "email": "di@example.com"})[0] == 201
    assert api("PUT", "/users/4", {"id": 1, "name": "Di", "email": "dina@example.com"})[0] == 200
    assert api("GET", "/users/4")[1]["email"] == "dina@example.com" and api("GET", "/users/1")[1] == ANN
    assert codes(api("PUT", "/users/4", {"name": "Di", "email": "ANN@example.com"})) == (409, {("email", "not_unique")})
    assert api("PUT", "/users/4", [1])[0] == 422
    assert codes(api("PUT", "/users/0", {"name": "Di", "email": "zero@example.com"}))[0] == 422
    assert [row[0] for row in conftest.rows(tmp_path / "shop" / "users.db")] == [1, 4]


def test_the_api_refuses_what_is_not_allowed(api, tmp_path):
    order = {"id": 1, "user_id": 1, "product_id": 1, "quantity": 2}
    for method, path in (
        ("POST", "/users"),
        ("GET", "/users/1"),
        ("PUT", "/users/1"),
        ("GET", "/nothing/1"),
        ("DELETE", "/users/1"),
        ("GET", "/"),
    ):
        for token in (
            None,
            "wrong",
            WRITER[:-1],
            WRITER + "x",
            WRITER.upper(),
            "",
            " ",
            "writer-of-all-5f2c,reader-1b",
            "\u00e4",
        ):
            with_header = {"Authorization": f"Bearer {token}".encode().decode("latin-1")} if token is not None else {}
            assert api(method, path, ANN if method != "GET" else None, token=None, **with_header)[0] == 401, (
                method,
                path,
                token,
            )
    assert api("POST", "/users", ANN, token=None, Authorization=WRITER)[0] == 401
    assert api("POST", "/users", ANN, token=None, Authorization=f"Basic {WRITER}")[0] == 401
    for token, model in ((READER, "users"), (READER, "orders"), (ORDERS, "users"), (ORDERS, "products")):
        assert api("POST", f"/{model}", ANN, token=token)[0] == 403
        assert api("PUT", f"/{model}/1", ANN, token=token)[0] == 403
    assert api("POST", "/orders", order, token=ORDERS)[0] == 422  # allowed, and its parents are not there
    for path in ("/nothing/1", "/users/x", "/users/-1", "/users/1/2", "/", "/Users/1", "/users.db"):
        assert api("GET", path)[0] == 404, path
    assert api("POST", "/nothing", ANN)[0] == 404
    for method, path in (
        ("DELETE", "/users/1"),
        ("PATCH", "/users/1"),
        ("POST", "/users/1"),
        ("GET", "/users"),
        ("PUT", "/users"),
    ):
        assert api(method, path, ANN if method != "GET" else None)[0] == 405, (method, path)
    users = tmp_path / "shop" / "users.db"
    assert not execute(users, "SELECT name FROM sqlite_master WHERE type = 'table'") or conftest.rows(users) == []


def test_the_api_says_when_a_database_fails(tmp_path):
    (tmp_path / "shop" / "products.db").mkdir(parents=True)
    with Api(tmp_path) as api:
        status, answer = api("POST", "/products", PEN)
        assert (status, answer["verdict"]) == (503, "failed") and "products.db" in answer["reason"]
        assert api("GET", "/products/1")[0] == 503
        assert api("POST", "/users", ANN)[0] == 201
        assert api("POST", "/orders", {"id": 1, "user_id": 1, "product_id": 1, "quantity": 1})[0] == 503
        (tmp_path / "shop" / "products.db").rmdir()
        assert api("POST", "/products", PEN)[0] == 201


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
@pytest.mark.parametrize("attempt", some(1, range(10)))
def test_every_201_is_stored_though_the_api_is_killed(tmp_path, attempt):
    created: list[int] = []

    def post(start: int) -> None:
        for number in range(start, start + 10_000):
            try:
                status, _ = api("POST", "/users", {"id": number, "name": "Ann", "email": f"ann{number}@example.com"})
            except (OSError, EOFError, ValueError, urllib.error.URLError, http.client.HTTPException) as error:
                assert killed.is_set(), error
                return
            assert status == 201
            created.append(number)

    killed = threading.Event()
    with Api(tmp_path) as api, ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(post, 1 + 10_000 * number) for number in range(8)]
        wait_until(lambda: len(created) > random.Random(attempt).randint(30, 200) or any(call.done() for call in calls))
        killed.set()
        api.running.process.kill()
        for call in calls:
            call.result(TIMEOUT_S)
        assert api.running.process.wait(TIMEOUT_S) == KILLED
    assert len(created) > 30
    stored = {row[0] for row in conftest.rows(tmp_path / "shop" / "users.db")}
    assert set(created) <= stored and len(stored) <= len(created) + 8


def test_orders_that_look_their_users_up_while_the_block_is_left_get_verdicts(databases):
    with ThreadPoolExecutor(8) as pool, ExitStack() as holder:
        with program.open_databases(databases.place) as shop:
            shop.insert("users", ANN)
            holder.enter_context(out_of_order(databases, "users"))
            users = [pool.submit(shop.insert, "users", {"id": 2, "name": "Bo", "email": "bo@example.com"})]
            orders = [pool.submit(shop.insert, "orders", {"id": number, "user_id": 1, "product_id": 7, "quantity": 1})
                      for number in range(1, 6)]
            wait_until(lambda: all(call.running() for call in users + orders))
            threading.Timer(0.2, holder.close).start()
        assert users[0].result(TIMEOUT_S).verdict == "inserted"
        assert {call.result(TIMEOUT_S).verdict for call in orders} == {"rejected"}  # there is no product 7
    assert databases.rows("orders") == []


@pytest.mark.parametrize("record", [dict, type("Odd", (), {"keys": 5})(), type("Odd", (), {"keys": lambda self: 1 / 0})()],
                         ids=["a class", "keys is a number", "keys raises"])
def test_what_only_looks_like_a_mapping_is_malformed(databases, record):
    with program.open_databases(databases.place) as shop:
        assert [problem.code for problem in shop.insert("users", record).problems] == ["malformed"]
    assert [problem.code for problem in program.validate_user(record)] == ["malformed"]


def test_an_id_is_what_insert_takes_for_one_and_nothing_else(databases):
    with program.open_databases(databases.place) as shop:
        shop.insert("users", ANN)
        assert shop.find("users", 1)["name"] == shop.find("users", 1.0)["name"] == shop.find("users", "1")["name"] == "Ann"
        assert shop.find("users", True) is None and shop.find("users", 1.5) is None and shop.find("users", "x") is None
