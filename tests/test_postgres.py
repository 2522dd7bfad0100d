"""PostgreSQL alone: the verdicts of SQLite, loaders at once, kills, restarts, faults, URLs, passwords, interrupts."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

import conftest
from conftest import HEAVY, MODELS, PROGRAM, ROOT, SAMPLE, TIMEOUT_S, Databases, PostgresDatabases, Server, some
from loads import (
    KILLED,
    Load,
    Outcome,
    Running,
    check_complete,
    check_databases,
    check_reported,
    check_summary,
    load_here,
    run_load,
    run_together,
    wait_until,
    write_load,
)


def load_into(databases: Databases, folder: Path, *arguments: object, timeout_s: float = TIMEOUT_S) -> Outcome:
    """Run the program here with --json on the databases."""
    return load_here(folder, "--db", databases.place, *arguments, timeout_s=timeout_s)


def check_converges(load: Load, databases: Databases, folder: Path) -> None:
    """Make sure that running the load again ends as an undisturbed load does."""
    outcome = load_into(databases, folder, *load.arguments)
    assert outcome.error == ""
    check_complete(databases, load, outcome, again=True)


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Three files with clashes of every kind."""
    return write_load(tmp_path_factory.mktemp("files"), seed=71)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Three small files with clashes."""
    return write_load(tmp_path_factory.mktemp("small"), seed=72, users=60, products=30, orders=80)


# ------------------------------------------------------------------------------------------ The same verdicts as SQLite


NAMES = [
    "NULL", "\\N", "\\", "\\\\.", "\\.", "a\\tb", '"', "''", "{}", "{1,2}", "{NULL}", '{"a": "b"}', "%s", "%(id)s",
    "$1", "$$x$$", "--", ";", "ﬁ", "fi", "ß", "ss", "SS", "ẞ", "İ", "i̇", "I", "ı", "Σ", "σ", "ς", "é", "e\u0301", "É",
    "Ⅷ", "ⅷ", "K", "\u212a", "Å", "\u212b", "ſ", "ΐ", "ГРАНАТ", "гранат", "日本", "\U0001f600", "\U00010400",
    "\U00010428", "²", "a  b", "a b", " a b ", "x\u00a0y", "x y", "", "   ", "\u200b", "a\u0000b", "a\tb", "a\x1bb",
    "\u202eabc", "tab", "C" * 300, "c" * 300,
]
LONG = ["z" * 90_000, "Z" * 90_000, "\\" * 90_000, '{"' * 45_000, "ö" * 45_000, "Ö" * 45_000, "Я" * 45_000]
PRICES = [
    5e-324, 1.7e308, 0.1, 0.10, 1e22, "1e22", "0.30", 123456789012345, 1234567890123456, 9007199254740993,
    "999999999999999e294", 1e-7, "1e400", "1e-400", 0, -0.0, -1, "nan", "5", 5, "5.0", " 5 ", "5.", ".5", True, None,
    [], "1,5", "1e5", 3.14159265358979, 2.2250738585072014e-308,
]
IDS = [1, 2**63 - 1, 2**63, 2**31, 2**32, 0, -1, "7", "8.0", 9.0, 9.5, "٣", None, True, "1e3"]


def generated(model: str, number: int, count: int, chance: random.Random) -> dict:
    """Return a record, most of them sound, many odd, many in a clash with another one."""
    id_ = (
        chance.choice(IDS)
        if chance.random() < 0.03
        else chance.randint(1, number)
        if chance.random() < 0.04
        else number + 10
    )
    if model == "orders":
        user, product = (
            chance.choice(IDS) if chance.random() < 0.02 else chance.randint(1, count + 20) for _ in range(2)
        )
        return {
            "id": id_,
            "user_id": user,
            "product_id": product,
            "quantity": chance.choice(IDS) if chance.random() < 0.1 else 3,
        }
    odd = chance.choice(LONG) if chance.random() < 0.004 else chance.choice(NAMES)
    name = odd + (str(number) if chance.random() < 0.5 else "") if chance.random() < 0.3 else f"Name {number}"
    if model == "products":
        price = chance.choice(PRICES) if chance.random() < 0.3 else round(chance.uniform(0.01, 9999), 2)
        return {"id": id_, "name": name, "price": price}
    local = chance.choice(
        ("User", "user", "straße", "STRASSE", "Ünal", "ünal", "σας", "ΣΑΣ", "a.b", ".a", "{x}", "a'b", "Я")
    )
    return {
        "id": id_,
        "name": name,
        "email": f"{local}{chance.randint(1, count * 2)}@example.{chance.choice(('com', 'COM', 'org'))}",
    }


def write_generated(folder: Path, count: int, seed: int, changed: float = 0.0) -> list[str]:
    """Write `count` records in all as JSON Lines; return the flags.  A share of `changed` has other contents."""
    flags = []
    for model, share in (("users", 0.4), ("products", 0.3), ("orders", 0.3)):
        chance, other = random.Random(f"{model}{seed}"), random.Random(f"{model}{seed}changed")
        path = folder / f"{model}.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for number in range(1, int(count * share) + 1):
                record = generated(model, number, int(count * 0.3), chance)
                if other.random() < changed:
                    record = {**generated(model, number, int(count * 0.3), other), "id": record["id"]}
                file.write(json.dumps(record) + "\n")
        flags += [f"--{model}", str(path)]
    return flags


def comparable(outcome: Outcome, databases: Databases) -> list[str]:
    """Return the verdict lines and the summary with neutral names of databases and no seconds."""
    lines = outcome.output
    for model in MODELS:
        lines = lines.replace(f" in {databases.name(model)}", f" in <{model}>")
    *verdicts, last = lines.splitlines()
    summary = json.loads(last)
    for model, counts in summary["summary"].items():
        assert counts.pop("database") == databases.name(model)
        counts.pop("seconds")
    return [*verdicts, json.dumps(summary, sort_keys=True)]


@pytest.mark.parametrize("count", [6_000, pytest.param(60_000, marks=HEAVY)])
def test_verdicts_and_rows_are_those_of_sqlite(sqlite, postgresql, tmp_path, count):
    def both(*arguments: object) -> list[str]:
        outcomes = [
            comparable(load_into(databases, tmp_path, *arguments, timeout_s=300), databases)
            for databases in (sqlite, postgresql)
        ]
        differ = [pair for pair in zip(*outcomes) if pair[0] != pair[1]]
        assert differ[:3] == [] and len(outcomes[0]) == len(outcomes[1])
        assert [sqlite.rows(model) for model in MODELS] == [postgresql.rows(model) for model in MODELS]
        return outcomes[0]

    flags = write_generated(tmp_path, count, seed=count)
    fresh = both(*flags)
    verdicts = Counter(json.loads(line)["verdict"] for line in fresh[:-1])
    assert verdicts["inserted"] > count / 4 and verdicts["rejected"] > count / 10 and verdicts["failed"] == 0
    codes = Counter(problem["code"] for line in fresh[:-1] for problem in json.loads(line).get("problems", ()))
    assert {
        "not_unique", "conflict", "no_such_reference", "blank", "bad_text", "out_of_range", "not_email", "not_positive",
        "not_number", "not_integer", "missing",
    } <= set(codes)
    again = both(*flags)
    assert json.loads(again[-1])["summary"]["users"]["inserted"] == 0
    write_generated(tmp_path, count, seed=count, changed=0.3)
    assert both(*flags, "--replace", "--dry-run")[:-1] == (replaced := both(*flags, "--replace"))[:-1]
    assert json.loads(replaced[-1])["summary"]["users"]["replaced"] > count / 20


def test_numbers_keep_every_digit_whatever_the_role_prefers(postgresql, tmp_path):
    prices = [5e-324, 1.79769313486231e308, 0.1, 1234567.12345678, 2.2250738585072e-308, 1e15, 3.3]
    postgresql.execute("postgres", "ALTER ROLE loader SET extra_float_digits = 0")
    (tmp_path / "products.jsonl").write_text(
        "\n".join(
            json.dumps({"id": 2**63 - 1 - number, "name": f"P{number}", "price": price})
            for number, price in enumerate(prices)
        )
    )
    for expected in ("inserted", "unchanged"):
        outcome = load_into(postgresql, tmp_path, "--products", "products.jsonl")
        assert set(outcome.verdicts("products").values()) == {expected}
    assert {row[2] for row in postgresql.rows("products")} == set(prices)


# ------------------------------------------------------------------------------------------------- Loaders at once


def together(databases: Databases, folder: Path, *argument_lists: list[object]) -> list[Outcome]:
    """Run a loader on the databases for each list of arguments, all from the same moment on."""
    return run_together(folder, *(["--db", databases.place, *arguments] for arguments in argument_lists))


@pytest.mark.parametrize(
    "loaders, attempt",
    [(2, 0), (4, 0), *(pytest.param(loaders, attempt, marks=HEAVY) for loaders in (2, 4) for attempt in range(1, 10))],
)
def test_loaders_on_empty_databases_store_each_record_once(postgresql, small, tmp_path, loaders, attempt):
    sizes = [("--batch-size", "1"), ("--batch-size", "3"), (), ("--batch-size", "20")]
    outcomes = together(
        postgresql, tmp_path, *[[*small.arguments, *sizes[(number + attempt) % 4]] for number in range(loaders)]
    )
    for outcome in outcomes:
        assert (outcome.error, outcome.status) == ("", 1)
        check_summary(outcome)
    assert check_databases(postgresql) == small.rows
    for model in MODELS:
        assert sum(outcome.summary[model]["inserted"] for outcome in outcomes) == len(small.rows[model])


def test_four_samples_at_once_make_the_tables_once(postgresql, tmp_path):
    outcomes = together(postgresql, tmp_path, [], [], [], [])
    assert [(outcome.status, outcome.error) for outcome in outcomes] == [(0, "")] * 4
    assert [sum(outcome.summary[model]["inserted"] for outcome in outcomes) for model in MODELS] == [8, 8, 6]
    assert check_databases(postgresql) == SAMPLE


@pytest.mark.parametrize("attempt", some(1, range(10)))
def test_loaders_of_files_that_clash_store_no_duplicate(postgresql, tmp_path, attempt):
    loads = [
        write_load(tmp_path / f"files{seed}", seed=attempt + seed, users=100, products=40, orders=100)
        for seed in range(2)
    ]
    for model in ("users", "products"):  # the same values under other ids
        lines = loads[1].path(model).read_text().splitlines()
        moved = [f"{int(line.partition(',')[0]) + 100_000},{line.partition(',')[2]}" for line in lines[1:]]
        loads[1].path(model).write_text("\n".join([lines[0], *moved]) + "\n")
    outcomes = together(postgresql, tmp_path, *[[*load.arguments, "--batch-size", "5"] for load in loads])
    found = check_databases(postgresql)
    for outcome in outcomes:
        assert outcome.error == "" and outcome.status == 1
        check_summary(outcome)
    for model in MODELS:
        assert sum(outcome.summary[model]["inserted"] for outcome in outcomes) == len(found[model])


# ---------------------------------------------------------------------------------- Kills, lost connections, restarts


# Small transactions, so that there are many of them, and a verdict that is printed when it is known.
MANY_COMMITS = "program.GROUP_RECORDS, program.GROUP_BATCHES = 20, 20"


def kill_loader(running: Running, databases: PostgresDatabases, chance: random.Random) -> None:
    """Kill the loader, as a crash of its machine would."""
    running.process.kill()


def terminate_connections(running: Running, databases: PostgresDatabases, chance: random.Random) -> None:
    """End the loader's connections to one of the databases."""
    databases.execute(
        "postgres",
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'loader' "
        f"AND datname = '{chance.choice(list(MODELS))}'",
    )


def restart_server(running: Running, databases: PostgresDatabases, chance: random.Random) -> None:
    """Have the server crash and come up again."""
    databases.server.stop("immediate")
    databases.server.start()


@pytest.mark.parametrize("attempt", some(1, range(20)))
@pytest.mark.parametrize(
    "disturb", [kill_loader, terminate_connections, restart_server], ids=lambda function: function.__name__
)
def test_what_was_reported_survives_and_the_next_load_converges(postgresql, load, tmp_path, disturb, attempt):
    chance = random.Random(f"{disturb.__name__}{attempt}")
    with Running(
        tmp_path,
        "--json",
        "--db",
        postgresql.place,
        *load.arguments,
        "--batch-size",
        chance.choice("137"),
        patch=MANY_COMMITS,
    ) as running:
        for _ in range(chance.randint(1, 1200)):
            running.line()
        disturb(running, postgresql, chance)
        outcome = running.end()
    if disturb is kill_loader:
        assert outcome.status == KILLED
    else:
        assert outcome.status in (1, 3)  # all was over if the connections were not needed any more
        assert (outcome.status == 3) == (outcome.total("failed") > 0) == bool(outcome.error)
        check_summary(outcome)
    check_reported(load, outcome, check_databases(postgresql))
    check_converges(load, postgresql, tmp_path)


# ------------------------------------------------------------------------------------------------- The fault table


def check_failed(outcome: Outcome, databases: Databases, *failed: str, cause: str = "") -> str:
    """Make sure that these models failed, with one line each that names database and cause; return the lines."""
    assert outcome.status == 3
    check_summary(outcome)
    lines = outcome.error.splitlines()
    for model in failed:
        named = [line for line in lines if databases.name(model) in line]
        assert named and all(cause.lower() in line.lower() for line in named), outcome.error
        assert "failed" in set(outcome.verdicts(model).values())
    for model in MODELS:
        if model not in failed and model != "orders":
            assert "failed" not in outcome.verdicts(model).values()
    for unwanted in ("DETAIL", "CONTEXT", "LINE 1", "psycopg", "SELECT ", "STDIN", "FATAL", databases.server.PASSWORD):
        assert unwanted not in outcome.error, outcome.error
    reasons = [line.get("reason") for line in outcome.lines if line.get("verdict") == "failed"]
    assert all(reasons) and not any("\n" in reason for reason in reasons)
    return outcome.error


@contextmanager
def locked(
    databases: PostgresDatabases, model: str, mode: str = "ACCESS EXCLUSIVE"
) -> Iterator[Callable[[str], object]]:
    """Hold a lock on a model's table; yields a function that runs statements in that transaction."""
    with closing(databases.server.connect(model)) as holder:
        holder.execute("BEGIN")
        holder.execute(f"LOCK TABLE {model} IN {mode} MODE")
        yield holder.execute


def wait_for_waiter(databases: PostgresDatabases, model: str) -> None:
    """Wait until the loader waits for a lock in a model's database."""
    wait_until(
        lambda: databases.execute(
            model,
            "SELECT 1 FROM pg_stat_activity WHERE usename = 'loader' AND datname = "
            "current_database() AND wait_event_type = 'Lock'",
        )
    )


def make_empty_tables(databases: PostgresDatabases, folder: Path) -> None:
    """Have the program make its tables, and empty them."""
    load_into(databases, folder)
    for model in MODELS:
        databases.execute(model, f"DELETE FROM {model}")


@pytest.mark.parametrize("mode", ["ROW EXCLUSIVE", "ACCESS EXCLUSIVE"])
def test_a_lock_past_the_time_out_fails_that_database_alone(postgresql, small, tmp_path, mode):
    make_empty_tables(postgresql, tmp_path)
    with locked(postgresql, "products", mode):
        outcome = load_into(postgresql, tmp_path, *small.arguments, "--busy-timeout", "0.6")
    check_failed(outcome, postgresql, "products", cause="locked")
    assert outcome.verdicts("users") == small.verdicts["users"]
    check_reported(small, outcome, check_databases(postgresql))
    check_converges(small, postgresql, tmp_path)


def test_a_lock_that_ends_in_time_does_no_harm(postgresql, small, tmp_path):
    make_empty_tables(postgresql, tmp_path)
    with (
        locked(postgresql, "users") as holder,
        Running(tmp_path, "--json", "--db", postgresql.place, *small.arguments) as running,
    ):
        wait_for_waiter(postgresql, "users")
        time.sleep(0.7)  # longer than one slice of waiting
        holder("COMMIT")
        outcome = running.end()
    assert (outcome.status, outcome.error) == (1, "")
    assert check_databases(postgresql) == small.rows


class Proxy:
    """A way to a server over TCP that is cut at the first COMMIT of a transaction that wrote, before or in it."""

    def __init__(self, port: int, when: str) -> None:
        self.port, self.when, self.cuts = port, when, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                server = socket.create_connection(("127.0.0.1", self.port))
                threading.Thread(target=self._up, args=(client, server), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        """Carry what the client says to the server, and look for the commit in it."""
        swallow = threading.Event()
        threading.Thread(target=self._down, args=(client, server, swallow), daemon=True).start()
        wrote = False
        with suppress(OSError):
            while piece := client.recv(65536):
                wrote = wrote or b"COPY" in piece
                if wrote and b"COMMIT" in piece.upper() and self.when:
                    if self.when == "in":  # the server hears of it, the client never hears back
                        swallow.set()
                        server.sendall(piece)
                        time.sleep(0.3)
                    self.cuts += 1
                    break
                server.sendall(piece)
        for end in (client, server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _down(self, client: socket.socket, server: socket.socket, swallow: threading.Event) -> None:
        """Carry what the server says to the client."""
        with suppress(OSError):
            while piece := server.recv(65536):
                if not swallow.is_set():
                    client.sendall(piece)


@pytest.mark.parametrize("when", ["before", "in"])
def test_a_connection_cut_at_the_commit_leaves_doubt_that_the_next_load_settles(tcp, tmp_path, when):
    conftest.write_users(tmp_path / "users.csv", 50)
    with Proxy(tcp.server.port, when) as proxy:
        place = tcp.place.replace(f":{tcp.server.port}/", f":{proxy.address}/")
        outcome = load_here(tmp_path, "--db", place, "--users", "users.csv")
        assert proxy.cuts == 1
    assert outcome.status == 3 and set(outcome.verdicts("users").values()) == {"failed"}
    check_summary(outcome)
    assert tcp.server.PASSWORD not in outcome.error + outcome.output
    arrived = len(tcp.rows("users"))
    assert arrived == (50 if when == "in" else 0)
    outcome = load_into(tcp, tmp_path, "--users", "users.csv")
    assert Counter(outcome.verdicts("users").values()) == {"unchanged" if arrived else "inserted": 50}
    assert len(tcp.rows("users")) == 50


def test_a_commit_that_the_server_rolls_back_is_failed(postgresql, tmp_path):
    postgresql.execute("users", "SET ROLE loader; CREATE TABLE users (id bigint PRIMARY KEY, name text, email text)")
    postgresql.execute(
        "users",
        """
        CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not today'; END $$;
        CREATE CONSTRAINT TRIGGER never AFTER INSERT ON users DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION never()""",
    )
    conftest.write_users(tmp_path / "users.csv", 5)
    outcome = load_into(postgresql, tmp_path, "--users", "users.csv")
    check_failed(outcome, postgresql, "users", cause="not today")
    assert postgresql.rows("users") == []


def make_read_only(databases: PostgresDatabases) -> None:
    databases.execute("postgres", "ALTER ROLE loader SET default_transaction_read_only = on")


def take_privilege(databases: PostgresDatabases) -> None:
    databases.execute("users", "ALTER TABLE users OWNER TO postgres; GRANT SELECT ON users TO loader")


def take_creation(databases: PostgresDatabases) -> None:
    databases.execute(
        "users", "DROP TABLE users; ALTER SCHEMA public OWNER TO postgres; GRANT USAGE ON SCHEMA public TO loader"
    )


def make_unlogged(databases: PostgresDatabases) -> None:
    databases.execute("users", "ALTER TABLE users SET UNLOGGED")


def secure_rows(databases: PostgresDatabases) -> None:
    databases.execute("users", "ALTER TABLE users ENABLE ROW LEVEL SECURITY")


def make_view(databases: PostgresDatabases) -> None:
    databases.execute(
        "users",
        "ALTER TABLE users RENAME TO people; CREATE VIEW users AS SELECT * FROM people; GRANT ALL ON users TO loader",
    )


def change_type(databases: PostgresDatabases) -> None:
    databases.execute("users", "ALTER TABLE users ALTER name TYPE bigint USING 0")


def drop_key(databases: PostgresDatabases) -> None:
    databases.execute("users", "ALTER TABLE users DROP CONSTRAINT users_pkey")


def no_connections(databases: PostgresDatabases) -> None:
    databases.execute("postgres", "ALTER DATABASE users CONNECTION LIMIT 0")


FAULTS = [
    (make_read_only, "read-only"),
    (take_privilege, "permission denied"),
    (take_creation, "permission denied"),
    (make_unlogged, "unlogged"),
    (secure_rows, "row-level security"),
    (make_view, "table"),
    (change_type, "name"),
    (drop_key, "id"),
    (no_connections, "too many connections"),
]


@pytest.mark.parametrize("fault, cause", FAULTS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_fault_fails_its_database_and_says_what_it_is(postgresql, small, tmp_path, fault, cause):
    make_empty_tables(postgresql, tmp_path)
    fault(postgresql)
    try:
        outcome = load_into(postgresql, tmp_path, *small.arguments)
        failed = ("users", "products") if fault is make_read_only else ("users",)
        check_failed(outcome, postgresql, *failed, cause=cause)
        assert set(outcome.verdicts("users").values()) == {"failed"}
        if fault is not make_read_only:
            assert outcome.verdicts("products") == small.verdicts["products"]
            assert postgresql.rows("products") == small.rows["products"]
        assert postgresql.rows("orders") == []
    finally:
        postgresql.execute("postgres", "ALTER DATABASE users CONNECTION LIMIT -1")
    if fault is make_read_only:
        dry = load_into(postgresql, tmp_path, *small.arguments, "--dry-run")
        assert dry.status == 1 and dry.verdicts("orders") == small.verdicts["orders"]
    if fault in (make_read_only, no_connections):
        postgresql.execute("postgres", "ALTER ROLE loader RESET ALL")
        check_converges(small, postgresql, tmp_path)


def test_a_table_that_is_dropped_meanwhile_fails_its_database(postgresql, small, tmp_path):
    load_into(postgresql, tmp_path)
    with (
        locked(postgresql, "users") as holder,
        Running(tmp_path, "--json", "--db", postgresql.place, *small.arguments) as running,
    ):
        wait_for_waiter(postgresql, "users")
        holder("DROP TABLE users")
        holder("COMMIT")
        outcome = running.end()
    check_failed(outcome, postgresql, "users", cause="users")
    assert not postgresql.exists("users")


def test_a_database_that_is_missing_fails_and_the_others_do_not(postgresql, small, tmp_path):
    for model in ("users", "orders"):
        postgresql.execute("postgres", f"DROP DATABASE IF EXISTS {model}_of_some")
        postgresql.execute("postgres", f"CREATE DATABASE {model}_of_some OWNER loader")
    outcome = load_here(tmp_path, "--db", postgresql.server.url("{model}_of_some"), *small.arguments)
    assert outcome.status == 3 and "products_of_some" in outcome.error and "does not exist" in outcome.error
    assert (
        set(outcome.verdicts("products").values()) == {"failed"}
        and outcome.verdicts("users") == small.verdicts["users"]
    )
    assert postgresql.execute("users_of_some", "SELECT * FROM users ORDER BY id") == small.rows["users"]
    for model in ("users", "orders"):
        postgresql.execute("postgres", f"DROP DATABASE {model}_of_some")


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_of_another_encoding_is_refused(postgresql, tmp_path, encoding):
    conftest.write_users(tmp_path / "users.csv", 3)
    postgresql.execute("postgres", "DROP DATABASE IF EXISTS users_encoded")
    postgresql.execute(
        "postgres", f"CREATE DATABASE users_encoded OWNER loader TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'"
    )
    try:
        outcome = load_here(tmp_path, "--db", postgresql.server.url("{model}_encoded"), "--users", "users.csv")
        assert outcome.status == 3 and set(outcome.verdicts("users").values()) == {"failed"}
        assert "users_encoded" in outcome.error and encoding in outcome.error and "UTF8" in outcome.error
        assert postgresql.execute("users_encoded", "SELECT to_regclass('users')") == [(None,)]
    finally:
        postgresql.execute("postgres", "DROP DATABASE users_encoded")


def test_a_wrong_password_is_told_and_never_shown(tcp, small, tmp_path):
    outcome = load_here(tmp_path, "--db", tcp.server.url(password="wr0ng-one"), *small.arguments)
    check_failed(outcome, tcp, "users", "products", cause="password authentication failed")
    assert "wr0ng-one" not in outcome.error + outcome.output


def test_no_password_where_one_is_needed_is_told(tcp, small, tmp_path):
    place = tcp.place.replace(f":{tcp.server.PASSWORD}@", "@")
    outcome = run_load(tmp_path, "--db", place, *small.arguments, PGPASSFILE=str(tmp_path / "none"))
    check_failed(outcome, tcp, "users", "products", cause="password")


def test_the_password_of_the_environment_is_used(tcp, small, tmp_path):
    place = tcp.place.replace(f":{tcp.server.PASSWORD}@", "@")
    outcome = run_load(tmp_path, "--db", place, *small.arguments, PGPASSWORD=tcp.server.PASSWORD)
    assert (outcome.status, outcome.error) == (1, "")
    assert check_databases(tcp) == small.rows


def test_a_port_that_refuses_is_told(postgresql, small, tmp_path):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, so that no one else takes it, and not listening
        place = f"postgresql://loader@127.0.0.1:{nobody.getsockname()[1]}/{{model}}"
        outcome = load_here(tmp_path, "--db", place, *small.arguments)
    assert outcome.status == 3 and "refused" in outcome.error.lower()
    assert {line["verdict"] for line in outcome.lines if "verdict" in line} <= {"failed", "rejected"}


def test_a_server_that_is_not_there_is_told_by_its_socket(tmp_path, small):
    conftest.need_psycopg()
    outcome = load_here(tmp_path, "--db", f"postgresql:///{{model}}?host={tmp_path}", *small.arguments)
    assert outcome.status == 3 and str(tmp_path) in outcome.error
    check_summary(outcome)


def test_verify_of_a_server_that_is_not_there_is_no_finding(tmp_path, run):
    conftest.need_psycopg()
    result = run("--db", f"postgresql:///{{model}}?host={tmp_path}", "--verify")
    assert result.returncode == 3 and str(tmp_path) in result.stderr


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="a small tmpfs is mounted by root")
def test_a_full_disk_fails_its_database_and_the_next_load_converges(postgresql, tmp_path):
    full = write_load(tmp_path / "files", seed=81, users=20_000, products=50, orders=100)
    with full.path("users").open("a") as file:
        file.writelines(f"{number},{'x' * 900},x{number}@example.com\n" for number in range(50_001, 62_001))
    folder = postgresql.server.folder / "small"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m,mode=777", "tmpfs", folder], capture_output=True
    ).returncode:
        conftest.lacking("a tmpfs may not be mounted here")
    place = postgresql.server.url("{model}_small")
    try:
        (folder / "space").mkdir()
        shutil.chown(folder / "space", user=postgresql.server.data.stat().st_uid)
        postgresql.execute("postgres", f"CREATE TABLESPACE small LOCATION '{folder / 'space'}'")
        for model in MODELS:
            space = "TABLESPACE small" if model == "users" else ""
            postgresql.execute("postgres", f"CREATE DATABASE {model}_small OWNER loader {space}")
        outcome = load_here(tmp_path, "--db", place, *full.arguments)
        assert outcome.status == 3 and "users_small" in outcome.error and "No space left" in outcome.error
        subprocess.run(["mount", "-o", "remount,size=200m", folder], check=True)
        reported = [line for line, verdict in outcome.verdicts("users").items() if verdict == "inserted"]
        found = postgresql.execute("users_small", "SELECT id FROM users")
        assert len(found) >= len(reported) and outcome.summary["users"]["failed"] > 0
        assert outcome.verdicts("products") == full.verdicts["products"]
        assert set(outcome.verdicts("orders").values()) <= {"failed", "rejected"}
        outcome = load_here(tmp_path, "--db", place, *full.arguments)
        assert (outcome.status, outcome.error) == (1, "") and outcome.summary["users"]["failed"] == 0
        assert outcome.summary["users"]["unchanged"] >= len(reported)
        assert len(postgresql.execute("users_small", "SELECT id FROM users")) == len(full.rows["users"]) + 12_000
        assert postgresql.execute("orders_small", "SELECT * FROM orders ORDER BY id") == full.rows["orders"]
    finally:
        for model in MODELS:
            postgresql.execute("postgres", f"DROP DATABASE IF EXISTS {model}_small WITH (FORCE)")
        postgresql.execute("postgres", "DROP TABLESPACE IF EXISTS small")
        subprocess.run(["umount", folder], check=True)


# -------------------------------------------------------------------------------------------------------- The URL


SECRET = "s3cr%65t-w0rd"
PLAIN = "s3cret-w0rd"
BAD_URLS = [
    # no place for the model's name
    ("postgresql://loader@127.0.0.1/users", "{model}"),
    ("postgres://loader@127.0.0.1/users", "{model}"),
    (f"postgresql://loader:{PLAIN}@127.0.0.1/shop", "{model}"),
    ("postgresql://", "{model}"),
    # what libpq cannot read, and tells with the secret in it
    (f"postgresql://loader:100%{PLAIN}@127.0.0.1/{{model}}", "%"),
    (f"postgresql://loader:{PLAIN}%zz@127.0.0.1/{{model}}", "%"),
    (f"postgresql://loader:{PLAIN}%@127.0.0.1/{{model}}", "%"),
    (f"postgresql://loader:p@{PLAIN}@127.0.0.1/{{model}}", "%"),
    (f"postgresql://loader:p/{PLAIN}@127.0.0.1/{{model}}", "%"),
    (f"postgresql://loader:{PLAIN}@[::1/{{model}}", ""),
    (f"postgresql://loader:{PLAIN}@127.0.0.1:54x/{{model}}", ""),
    (f"postgresql://loader:{PLAIN}@127.0.0.1/{{model}}?nonsense=1", "nonsense"),
    (f"postgresql:///{{model}}?password=100%{PLAIN}", "%"),
    (f"postgresql:///{{model}}?password={PLAIN}&nonsense=1", "nonsense"),
    (f"postgresql:///{{model}}?sslpassword=%zz{PLAIN}", "%"),
    (f"postgresql://loader:{PLAIN} x@127.0.0.1/{{model}}", ""),
    (f"postgresql://loader:{PLAIN}@127.0.0.1/{{model}}?port", ""),
    (f"postgresql://loader:{PLAIN}\x01@127.0.0.1/{{model}}", ""),
    (f"mysql://loader:{PLAIN}@127.0.0.1/{{model}}", ""),
]


@pytest.mark.parametrize("url, word", BAD_URLS)
def test_a_url_that_cannot_be_used_is_wrong_usage_and_shows_no_secret(tmp_path, small, capfd, url, word):
    conftest.need_psycopg()
    outcome = load_here(tmp_path, "--db", url, *small.arguments, "--log-file", "log.txt", "--trace", "trace.json", "-v")
    assert outcome.status == 2, outcome.error
    assert word in outcome.error and "postgresql" in outcome.error.lower() or "url" in outcome.error.lower()
    shown = outcome.output + outcome.error + "".join(path.read_text() for path in tmp_path.iterdir() if path.is_file())
    shown += "".join(capfd.readouterr())  # what libpq may have written past Python
    assert PLAIN not in shown
    assert not [path for path in tmp_path.rglob("*.db")]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://loader:{secret}@127.0.0.1:{port}/{{model}}",
        "postgresql://127.0.0.1:{port}/{{model}}?user=loader&password={secret}",
        "postgresql://loader:other@127.0.0.1:{port}/{{model}}?password={secret}",
        "postgres://loader:{secret}@localhost:{port}/{{model}}?sslpassword={secret}",
    ],
)
@pytest.mark.parametrize("secret", [SECRET, PLAIN, Server.PASSWORD])
def test_no_password_is_shown_anywhere(tcp, here, tmp_path, capfd, url, secret):
    place = url.format(secret=secret, port=tcp.server.port)
    (tmp_path / "users.csv").write_text("id,name,email\n1,Ann,ann@example.com\n2,Bo,\n")
    (tmp_path / "orders.csv").write_text("id,user_id,product_id,quantity\n1,1,1,1\n")
    files = ["--users", "users.csv", "--orders", "orders.csv"]
    results = []
    for more in (["--rejects", "bad", "-v", *files], ["--json", *files], ["--verify"], ["--dry-run", *files]):
        number = len(results)
        results.append(here("--db", place, *more, "--log-file", f"log{number}.txt", "--trace", f"trace{number}.json"))
    assert [result.returncode for result in results] == ([1, 1, 0, 1] if secret == Server.PASSWORD else [3] * 4)
    shown = "".join(result.stdout + result.stderr for result in results)
    shown += "".join(capfd.readouterr())  # what libpq may have written past Python
    shown += "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert (tmp_path / "log0.txt").exists() and (tmp_path / "trace0.json").exists()
    for text in (secret, "s3cret-w0rd", "s3cr%65t"):
        assert text not in shown
    if secret == Server.PASSWORD:
        assert "--db" in results[0].stdout  # the next step, which names the place


@pytest.mark.parametrize("setting", ["sslmode=perhaps", "connect_timeout=soon", "target_session_attrs=any%20one"])
def test_a_setting_that_libpq_refuses_is_told_without_the_secret(tmp_path, small, setting):
    conftest.need_psycopg()
    url = f"postgresql://loader:{PLAIN}@127.0.0.1:1/{{model}}?{setting}"
    outcome = load_here(tmp_path, "--db", url, *small.arguments)
    assert outcome.status in (2, 3) and outcome.error  # libpq judges values when it connects
    assert PLAIN not in outcome.error + outcome.output


@pytest.mark.parametrize("url", [url for url, _ in BAD_URLS if PLAIN in url])
def test_no_traceback_of_another_program_shows_the_secret(url, tmp_path, monkeypatch):
    conftest.need_psycopg()
    monkeypatch.chdir(tmp_path)
    import distributed_inserts as program

    with pytest.raises(ValueError) as caught, program.open_databases(url):
        pass
    assert PLAIN not in "".join(traceback.format_exception(caught.type, caught.value, caught.tb))
    assert not list(tmp_path.iterdir())


def test_a_failed_insert_of_another_program_shows_no_secret(tcp):
    import distributed_inserts as program

    with program.open_databases(tcp.server.url(password=PLAIN)) as shop:
        outcome = shop.insert("users", {"id": 1, "name": "Ann", "email": "ann@example.com"})
        assert outcome.verdict == "failed" and "password authentication failed" in outcome.reason
        assert PLAIN not in repr(outcome) + repr(shop) + str(shop)
        with pytest.raises(Exception) as caught:
            shop.find("users", 1)
        assert PLAIN not in "".join(traceback.format_exception(caught.type, caught.value, caught.tb))


@pytest.mark.parametrize(
    "form", ["socket in the authority", "schemas of one database", "service file", "host list", "model twice"]
)
def test_what_libpq_understands_keeps_working(postgresql, tcp, tmp_path, form):
    folder, port, password = postgresql.server.folder, tcp.server.port, tcp.server.PASSWORD
    environment = {}
    if form == "socket in the authority":
        place = f"postgresql://loader@{str(folder).replace('/', '%2F')}/{{model}}"
    elif form == "schemas of one database":
        place = f"postgresql:///users?host={folder}&user=loader&options=-csearch_path%3D{{model}}"
        postgresql.execute("users", "; ".join(f"CREATE SCHEMA {model} AUTHORIZATION loader" for model in MODELS))
    elif form == "service file":
        (tmp_path / "services.conf").write_text(
            "".join(f"[shop-{model}]\nhost={folder}\nuser=loader\ndbname={model}\n" for model in MODELS)
        )
        place, environment = "postgresql:///?service=shop-{model}", {"PGSERVICEFILE": str(tmp_path / "services.conf")}
    elif form == "host list":
        place = f"postgresql://loader:{password}@127.0.0.1:1,127.0.0.1:{port}/{{model}}"
    else:
        place = f"postgresql:///{{model}}?host={folder}&user=loader&application_name=load-{{model}}"
    outcome = run_load(tmp_path, "--db", place, **environment)
    assert (outcome.status, outcome.error) == (0, "")
    assert [outcome.summary[model]["inserted"] for model in MODELS] == [8, 8, 6]
    if form == "schemas of one database":
        assert [postgresql.execute("users", f"SELECT count(*) FROM {model}.{model}") for model in MODELS] == [
            [(8,)],
            [(8,)],
            [(6,)],
        ]
    else:
        assert len((tcp if form == "host list" else postgresql).rows("users")) == 8


# ------------------------------------------------------------------------------------------------------ Interrupts


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_a_table_is_locked_ends_in_time(postgresql, small, tmp_path, number):
    load_into(postgresql, tmp_path)
    with (
        locked(postgresql, "users"),
        Running(tmp_path, "--json", "--db", postgresql.place, *small.arguments) as running,
    ):
        wait_for_waiter(postgresql, "users")
        outcome = running.interrupt(number)
    check_summary(outcome)
    assert set(outcome.verdicts("users").values()) <= {"failed"}
    check_databases(postgresql)


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_an_interrupt_while_the_server_never_answers_ends_in_time(tmp_path, small):
    conftest.need_psycopg()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"postgresql://loader@127.0.0.1:{silent.getsockname()[1]}/{{model}}"
        with Running(tmp_path, "--json", "--db", place, *small.arguments) as running:
            silent.settimeout(TIMEOUT_S)
            connection, _ = silent.accept()
            with connection:
                outcome = running.interrupt()
    check_summary(outcome)


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_an_interrupt_while_the_network_is_dead_ends_in_time(tcp, tmp_path):
    conftest.write_users(tmp_path / "users.csv", 50)
    dead = threading.Event()

    class Dead(Proxy):
        """Never answers a commit."""

        def _down(self, client: socket.socket, server: socket.socket, swallow: threading.Event) -> None:
            with suppress(OSError):
                while piece := server.recv(65536):
                    if not dead.is_set():
                        client.sendall(piece)

        def _up(self, client: socket.socket, server: socket.socket) -> None:
            threading.Thread(target=self._down, args=(client, server, dead), daemon=True).start()
            wrote = False
            with suppress(OSError):
                while piece := client.recv(65536):
                    wrote = wrote or b"COPY" in piece
                    if wrote and b"COMMIT" in piece.upper():
                        dead.set()
                    server.sendall(piece)

    with Dead(tcp.server.port, "") as proxy:
        place = tcp.place.replace(f":{tcp.server.port}/", f":{proxy.address}/")
        with Running(tmp_path, "--json", "--db", place, "--users", "users.csv") as running:
            assert dead.wait(TIMEOUT_S)
            outcome = running.interrupt()
    check_summary(outcome)
    assert set(outcome.verdicts("users").values()) == {"failed"}
    assert len(tcp.rows("users")) in (0, 50)
    outcome = load_into(tcp, tmp_path, "--users", "users.csv")
    assert outcome.status == 0 and len(tcp.rows("users")) == 50


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize("attempt", some(1, range(8)))
def test_an_interrupted_load_commits_what_is_on_its_way_and_says_so(postgresql, tmp_path, attempt):
    load = write_load(tmp_path / "files", seed=91 + attempt, users=3000, products=500, orders=4000)
    with Running(
        tmp_path, "--json", "--db", postgresql.place, *load.arguments, "--batch-size", "20", patch=MANY_COMMITS
    ) as running:
        for _ in range(random.Random(attempt).randint(1, 2000)):
            running.line()
        outcome = running.interrupt()
    check_summary(outcome)
    assert outcome.summary["users"]["failed"] == 0
    found = check_databases(postgresql)
    for model in MODELS:
        assert [row[0] for row in found[model]] == sorted(
            line["id"] for line in outcome.lines if line.get("model") == model and line["verdict"] == "inserted"
        )
    check_converges(load, postgresql, tmp_path)


# -------------------------------------------------------------------------------------------------- Without psycopg


@pytest.fixture
def without_psycopg(tmp_path: Path) -> dict[str, str]:
    """The environment of a Python in which psycopg cannot be imported."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "psycopg.py").write_text("raise ImportError('no pq wrapper available')\n")
    return {"PYTHONPATH": str(tmp_path / "path")}


@pytest.mark.parametrize("arguments", [[], ["--verify"], ["--dry-run"], ["--users", "users.csv"]])
def test_without_psycopg_a_url_is_wrong_usage_with_the_way_out(run, tmp_path, without_psycopg, arguments):
    conftest.write_users(tmp_path / "users.csv", 3)
    result = run("--db", f"postgresql://loader:{PLAIN}@127.0.0.1/{{model}}", *arguments, **without_psycopg)
    assert result.returncode == 2 and result.stdout == ""
    assert re.search(r'pip install (-U )?"psycopg\[binary\]"', result.stderr) and PLAIN not in result.stderr


def test_without_psycopg_sqlite_does_not_miss_it(run, tmp_path, without_psycopg):
    assert run("--db", tmp_path / "shop", **without_psycopg).returncode == 0
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import distributed_inserts as d\n"
        "with d.open_databases('shop') as shop: print(shop.find('users', 1)['name'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, **without_psycopg},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("Alice\n", "")


def test_a_load_into_sqlite_does_not_import_psycopg(tmp_path):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", PROGRAM, "-q"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0 and "sqlite3" in done.stderr and "psycopg" not in done.stderr


def test_who_only_reads_waits_for_a_lock_no_longer_than_told(postgresql, small, tmp_path):
    load_into(postgresql, tmp_path, *small.arguments)
    with locked(postgresql, "users"):
        begin = time.monotonic()
        (tmp_path / "more.csv").write_text("id,user_id,product_id,quantity\n9000,1,1,1\n")
        outcome = load_into(postgresql, tmp_path, "--orders", "more.csv", "--busy-timeout", "0.6")
        assert outcome.status == 3 and "locked by another program" in outcome.error
        outcome = load_into(postgresql, tmp_path, "--verify", "--busy-timeout", "0.6")
        assert outcome.status == 3 and "locked by another program" in outcome.error
        import distributed_inserts as program
        with program.open_databases(postgresql.place, busy_timeout=0.6) as shop:
            with pytest.raises(program.StorageError, match="locked by another program"):
                shop.find("users", 1)
        assert time.monotonic() - begin < 20


def test_what_a_server_tells_beside_warnings_is_no_doubt(postgresql, small, tmp_path):
    postgresql.execute("users", "ALTER ROLE loader SET client_min_messages = 'debug1'")
    try:
        outcome = load_into(postgresql, tmp_path, *small.arguments)
        assert outcome.status == 1 and check_databases(postgresql) == small.rows
    finally:
        postgresql.execute("users", "ALTER ROLE loader RESET client_min_messages")


@pytest.mark.parametrize("statements", [
    """SET ROLE loader; CREATE TABLE products (id bigint PRIMARY KEY, name text, price double precision);
       CREATE FUNCTION not_three() RETURNS trigger LANGUAGE plpgsql AS
       $$ BEGIN IF NEW.id = 3 THEN RAISE EXCEPTION 'not three'; END IF; RETURN NEW; END $$;
       CREATE TRIGGER not_three BEFORE INSERT ON products FOR EACH ROW EXECUTE FUNCTION not_three()""",
    """SET ROLE loader; CREATE TABLE products (id bigint PRIMARY KEY, name text, price double precision,
       UNIQUE (price) DEFERRABLE INITIALLY DEFERRED)""",
    """SET ROLE loader; CREATE TABLE products (id bigint PRIMARY KEY, name text, price double precision,
       CHECK (1 / (id - 3) < 9))""",
    """SET ROLE loader; CREATE TABLE products (id bigint PRIMARY KEY, name text, price double precision);
       CREATE INDEX ON products (repeat(name, CASE WHEN id = 3 THEN 1000000 ELSE 1 END))""",
], ids=["trigger", "deferred", "division by zero", "too long for an index"])
def test_what_a_trigger_a_constraint_or_an_index_refuses_fails_alone(postgresql, tmp_path, statements):
    postgresql.execute("products", statements)
    (tmp_path / "products.csv").write_text("id,name,price\n1,A,1\n2,B,2\n3,C,2\n4,D,4\n")
    outcome = load_into(postgresql, tmp_path, "--products", "products.csv")
    assert outcome.status == 3 and sorted(outcome.verdicts("products").values()) == ["failed"] + ["inserted"] * 3
