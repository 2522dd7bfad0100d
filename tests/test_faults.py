"""Databases that fail, for real: full, locked, damaged, gone, not what they should be; and threads that cannot be started.

Each fault has to end in the right verdicts, exit status 3 and a message with the database and the cause; records that
do not need the failed database come out as ever; and once the fault is mended, the same load completes.
"""
from __future__ import annotations

import itertools
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from conftest import rows
from loads import (MODELS, Load, Outcome, Running, check_complete, check_databases, check_failed, check_reported, locked, run_load,
                   wait_until, write_load)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="these faults are made with the means of POSIX systems")
TABLES = {
    "users": "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, email TEXT)",
    "products": "CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT, price REAL)",
    "orders": "CREATE TABLE orders (id INTEGER PRIMARY KEY, user_id INTEGER, product_id INTEGER, quantity INTEGER)",
}
HEAVY = pytest.mark.heavy
SMALL_GROUPS = "assert program.GROUP_RECORDS; program.GROUP_RECORDS = 30\n"


def some(first: int, *parts: Sequence[object]) -> list:
    """Return all combinations of the parts for `parametrize`, those after the first few as heavy ones."""
    combinations = itertools.product(*parts)
    return [pytest.param(*values, marks=HEAVY if number >= first else ()) for number, values in enumerate(combinations)]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """A load of a moment, its orders stored while users and products still come in."""
    return write_load(tmp_path_factory.mktemp("files"), seed=7, users=200, products=60, orders=120, near=True)


@pytest.fixture(scope="module")
def long_load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """A load with enough users to fill something, and few of the others."""
    return write_load(tmp_path_factory.mktemp("files"), seed=8, users=9000, products=30, orders=100)


def check_fault(folder: Path, load: Load, outcome: Outcome, *databases: str, cause: str = "",
                mend: Callable[[], object] = lambda: None) -> None:
    """Make sure that databases failed as they have to, and that the load completes when that is mended."""
    check_failed(folder, load, outcome, *databases, cause=cause)
    mend()
    check_reported(load, outcome, check_databases(folder))
    check_complete(folder, load, run_load(folder, *load.arguments), again=True)


def query(database: Path, *statements: str) -> None:
    """Run statements on a database."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


@contextmanager
def mounted(*options: str, target: Path) -> Iterator[None]:
    """Mount something at a path; skip the test where that is not allowed."""
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("only root can mount")
    made = subprocess.run(["mount", *options, str(target)], capture_output=True, text=True, timeout=10)
    if made.returncode:
        pytest.skip(f"cannot mount here: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(target)], check=True, timeout=10)


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    """Make a file or folder read-only, for root too."""
    if os.geteuid() == 0:
        with mounted("--bind", str(path), target=path):
            subprocess.run(["mount", "-o", "remount,bind,ro", str(path)], check=True, timeout=10)
            yield
        return
    mode = path.stat().st_mode
    path.chmod(mode & ~0o222)
    try:
        yield
    finally:
        path.chmod(mode)


# -------------------------------------------------------------------------------------------------- No room left

LIMIT_PAGES = """
real = sqlite3.connect
def connect(path, *arguments, **named):
    connection = real(path, *arguments, **named)
    if str(path).endswith("{database}"):
        connection.execute("PRAGMA max_page_count={pages}")
    return connection
sqlite3.connect = connect
"""
LIMIT_FILES = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))"


@pytest.mark.parametrize("pages, model", some(2, [2, 1], MODELS))
def test_a_database_that_may_not_grow_fails_alone(tmp_path, model, pages):
    load = write_load(tmp_path / "files", seed=4, users=250, products=300, orders=800 if model == "orders" else 60)
    outcome = run_load(tmp_path, *load.arguments, patch=SMALL_GROUPS + LIMIT_PAGES.format(database=f"{model}.db", pages=pages))
    assert bool(outcome.summary[model]["inserted"]) == (pages == 2)
    check_fault(tmp_path, load, outcome, f"{model}.db", cause="full")


@pytest.mark.parametrize("size", some(1, [200_000, 100_000, 500_000]))
def test_a_limit_on_the_size_of_files_fails_the_database_that_reaches_it(tmp_path, long_load, size):
    pytest.importorskip("resource")
    outcome = run_load(tmp_path, *long_load.arguments, "--batch-size", 200, patch=LIMIT_FILES.format(size=size))
    check_fault(tmp_path, long_load, outcome, "users.db")


@pytest.mark.parametrize("kilobytes", some(2, [200, 400, 64]))
def test_a_full_disk_fails_the_databases_that_found_no_room(tmp_path, long_load, kilobytes):
    small = tmp_path / "small"
    small.mkdir()
    with mounted("-t", "tmpfs", "-o", f"size={kilobytes}k", "none", target=small):
        outcome = run_load(small, *long_load.arguments, "--batch-size", 200)
        failed = [line.split(": ")[1] for line in outcome.error.splitlines()]
        assert "users.db" in failed

        def enlarge() -> None:
            subprocess.run(["mount", "-o", "remount,size=50m", str(small)], check=True, timeout=10)

        check_fault(small, long_load, outcome, *failed, mend=enlarge)


@pytest.fixture(scope="module")
def full_temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Load, Outcome]:
    """The folder of a load of which more waits to be printed than the folder for temporary files takes, and what it left."""
    folder = tmp_path_factory.mktemp("databases")
    load = write_load(folder / "files", seed=9, users=30_000, products=14_000, orders=10)
    small = folder / "small"
    small.mkdir()
    with mounted("-t", "tmpfs", "-o", "size=64k", "none", target=small):
        return folder, load, run_load(folder, *load.arguments, TMPDIR=str(small))


def test_a_full_folder_for_temporary_files_is_told(full_temporary_folder):
    _, _, outcome = full_temporary_folder
    assert outcome.status == 3 and outcome.error.startswith("distributed_inserts: ")
    assert "temporary" in outcome.error and "No space left" in outcome.error


def test_a_full_folder_for_temporary_files_loses_nothing(full_temporary_folder):
    folder, load, outcome = full_temporary_folder
    check_reported(load, outcome, check_databases(folder))
    check_complete(folder, load, run_load(folder, *load.arguments), again=True)


# ------------------------------------------------------------------------------- Calls of the system that fail once


def inject(folder: Path, fault: str, *arguments: object, name: str = "users.db-wal") -> tuple[Outcome, bool]:
    """Run a load with a fault that strace injects into one file; return what it left and whether the fault took place."""
    if not shutil.which("strace"):
        pytest.skip("strace is not here")
    folder, trace = folder.resolve(), folder.with_name("trace.txt").resolve()
    strace = ["strace", "-f", "-o", trace, "-P", folder / name, "-e", f"trace={fault.partition(':')[0]}", "-e", f"inject={fault}"]
    outcome = run_load(folder, *arguments, patch=SMALL_GROUPS, wrap=list(map(str, strace)))
    if not trace.exists() or not trace.stat().st_size:
        pytest.skip(f"strace does not work here: {outcome.error[:200]}")
    return outcome, "INJECTED" in trace.read_text()


def check_injected(folder: Path, load: Load, outcome: Outcome, happened: bool, cause: str) -> None:
    """Make sure that a fault failed its database, or that it hit nothing that a record depended on."""
    assert happened, "the load never came to that call"
    if outcome.total("failed") or outcome.error:
        check_fault(folder, load, outcome, "users.db", cause=cause)
    else:
        check_complete(folder, load, outcome)
        check_complete(folder, load, run_load(folder, *load.arguments), again=True)


@pytest.mark.parametrize("number", some(6, range(1, 13)))
def test_a_sync_that_fails_is_no_success(tmp_path, load, number):
    folder = tmp_path / "databases"
    outcome, happened = inject(folder, f"fdatasync:error=EIO:when={number}", *load.arguments, "--batch-size", 30)
    check_injected(folder, load, outcome, happened or number > 8, "I/O error")
    assert outcome.total("failed") or number > 6


@pytest.mark.parametrize("number", some(6, range(1, 21)))
def test_a_write_that_finds_no_room_is_no_success(tmp_path, load, number):
    folder = tmp_path / "databases"
    outcome, happened = inject(folder, f"pwrite64:error=ENOSPC:when={number}", *load.arguments, "--batch-size", 30)
    check_injected(folder, load, outcome, happened, "full")
    assert outcome.total("failed")


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["users.db", "products.db-wal", "orders.db-wal", "users.db-shm"])
@pytest.mark.parametrize("fault", ["fdatasync:error=EIO:when=1+", "pwrite64:error=EIO:when=2+", "pread64:error=EIO:when=3+",
                                   "ftruncate:error=ENOSPC:when=1+"])
def test_a_file_of_which_all_calls_fail_loses_nothing_that_was_reported(tmp_path, load, name, fault):
    folder = tmp_path / "databases"
    outcome, _ = inject(folder, fault, *load.arguments, "--batch-size", 30, name=name)
    if outcome.total("failed") or outcome.error:
        check_fault(folder, load, outcome, name.partition("-")[0])
    else:
        check_complete(folder, load, outcome)


# ------------------------------------------------------------------------------------------- Folders and files


def test_a_read_only_folder_fails_all_its_databases(tmp_path, load):
    folder = tmp_path / "databases"
    folder.mkdir()
    with read_only(folder):
        outcome = run_load(tmp_path, *load.arguments, "--db-dir", folder)
    check_failed(folder, load, outcome, "users.db", "products.db", "orders.db", cause="unable to open database file")
    assert list(folder.iterdir()) == []
    check_complete(folder, load, run_load(folder, *load.arguments))


def test_databases_in_a_folder_that_became_read_only_fail_and_stay_as_they_are(tmp_path, load):
    folder = tmp_path / "databases"
    run_load(folder, *load.arguments[:2])
    content = (folder / "users.db").read_bytes()
    with read_only(folder):
        outcome = run_load(tmp_path, *load.arguments, "--db-dir", folder)
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [("users.db", content)]
    assert outcome.status == 3 and outcome.total("inserted") == 0
    assert re.search("users.db: .*(readonly|unable to open)", outcome.error)
    check_complete(folder, load, run_load(folder, *load.arguments), again=True)


@pytest.mark.parametrize("model", some(2, ["users", "orders", "products"]))
def test_a_read_only_file_fails_alone(tmp_path, load, model):
    database = tmp_path / f"{model}.db"
    query(database, TABLES[model])
    with read_only(database):
        outcome = run_load(tmp_path, *load.arguments)
    check_fault(tmp_path, load, outcome, database.name, cause="readonly")


def test_a_read_only_file_to_which_nothing_is_to_be_added_does_no_harm(tmp_path, load):
    run_load(tmp_path, *load.arguments[:2])
    with read_only(tmp_path / "users.db"):
        check_complete(tmp_path, load, run_load(tmp_path, *load.arguments), again=True)


MOVES: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "renamed": lambda database: database.rename(database.with_suffix(".old")),
    "replaced by an empty file": lambda database: (database.with_suffix(".new").touch(), database.with_suffix(".new").replace(database)),
}


def disturb(folder: Path, load: Load, action: Callable[[], object]) -> Outcome:
    """Run a load and do something when the first users are committed and the last ones still to come."""
    lines = load.path("users").read_text().splitlines(keepends=True)

    def has_users() -> bool:
        with suppress(sqlite3.OperationalError), closing(sqlite3.connect(f"file:{folder}/users.db?mode=ro", uri=True)) as connection:
            return bool(connection.execute("SELECT count(*) FROM users").fetchone()[0])

    with Running(folder.parent, "--json", *load.reading("users"), "--db-dir", folder, stdin=subprocess.PIPE) as running:
        running.feed("".join(lines[:8500]))
        wait_until(has_users)
        action()
        running.feed("".join(lines[8500:]))
        running.process.stdin.close()
        return running.end()


@pytest.mark.parametrize("move", some(2, MOVES))
def test_a_database_that_goes_away_during_the_load_fails_alone(tmp_path, long_load, move):
    outcome = disturb(tmp_path, long_load, lambda: MOVES[move](tmp_path / "users.db"))
    check_failed(tmp_path, long_load, outcome, "users.db")
    assert re.search("replaced|No such file", outcome.error)
    check_complete(tmp_path, long_load, run_load(tmp_path, *long_load.arguments), again=True)


def test_a_folder_deleted_during_the_load_fails_its_databases(tmp_path, long_load):
    folder = tmp_path / "databases"
    outcome = disturb(folder, long_load, lambda: shutil.rmtree(folder))
    assert outcome.status == 3 and "users.db: " in outcome.error and outcome.summary["users"]["failed"] > 0
    check_complete(folder, long_load, run_load(tmp_path, *long_load.arguments, "--db-dir", folder), again=True)


# ------------------------------------------------------------------------------------------------------- Locks


@pytest.mark.parametrize("statement, model", some(2, ["BEGIN EXCLUSIVE", "BEGIN IMMEDIATE"], MODELS))
def test_a_lock_of_a_second_is_waited_for(tmp_path, load, model, statement):
    with locked(tmp_path / f"{model}.db", statement) as unlock:
        with Running(tmp_path, "--json", *load.arguments, "--log-file", "log.txt") as running:
            end = time.monotonic() + 1
            wait_until(lambda: (tmp_path / "log.txt").exists() and " locked " in (tmp_path / "log.txt").read_text())
            wait_until(lambda: time.monotonic() > end)
            unlock()
            check_complete(tmp_path, load, running.end())


@pytest.mark.parametrize("model", MODELS)
def test_a_lock_past_the_timeout_fails_its_database_alone(tmp_path, load, model):
    with locked(tmp_path / f"{model}.db"):
        outcome = run_load(tmp_path, *load.arguments, "--busy-timeout", "0.4")
    check_fault(tmp_path, load, outcome, f"{model}.db", cause="locked")


@pytest.mark.parametrize("statement", some(1, ["BEGIN EXCLUSIVE", "BEGIN IMMEDIATE"]))
def test_a_lock_past_the_timeout_on_a_database_in_use_fails_it_alone(tmp_path, load, statement):
    run_load(tmp_path, *load.arguments[:2])
    with locked(tmp_path / "users.db", statement):
        outcome = run_load(tmp_path, *load.arguments, "--busy-timeout", "0.4")
    assert outcome.status == 3 and re.search("^distributed_inserts: users.db: locked", outcome.error)
    assert set(outcome.verdicts("users").values()) <= {"failed", "rejected"}
    assert outcome.verdicts("products") == load.verdicts["products"]
    check_complete(tmp_path, load, run_load(tmp_path, *load.arguments), again=True)


def locked_parents(folder: Path, *arguments: str) -> Outcome:
    """Load ten orders while another process keeps everybody from reading the users that they refer to."""
    for name, text in (("products", "id,name,price\n1,Mouse,30\n"), ("users", "id,name,email\n1,Ann,ann@example.com\n"),
                       ("orders", "id,user_id,product_id,quantity\n" + "".join(f"{id_},1,1,1\n" for id_ in range(1, 11)))):
        (folder / f"{name}.csv").write_text(text)
    run_load(folder, "--users", "users.csv", "--products", "products.csv")
    query(folder / "users.db", "PRAGMA journal_mode=DELETE")
    with locked(folder / "users.db", "BEGIN EXCLUSIVE"):
        return run_load(folder, "--orders", "orders.csv", "--busy-timeout", "0.1", "--log-file", "log.txt", *arguments)


def test_a_database_that_cannot_be_looked_into_leaves_in_doubt_who_refers_to_it(tmp_path):
    outcome = locked_parents(tmp_path)
    assert outcome.status == 3 and outcome.verdicts("orders") == dict.fromkeys(range(2, 12), "failed")
    assert all("users.db: locked" in line["reason"] for line in outcome.lines[:-1])
    outcome = run_load(tmp_path, "--orders", "orders.csv")
    assert outcome.verdicts("orders") == dict.fromkeys(range(2, 12), "inserted")


def test_a_database_that_cannot_be_looked_into_is_named_in_a_message(tmp_path):
    assert "users.db: locked" in locked_parents(tmp_path, "-q").error


def test_a_lock_is_waited_for_once_and_not_by_each_record_anew(tmp_path):
    locked_parents(tmp_path)
    waits = re.findall(r"users\.db locked tries=1$", (tmp_path / "log.txt").read_text(), re.MULTILINE)
    assert len(waits) == 1


def test_a_record_in_doubt_keeps_its_id_from_a_later_one_that_clashes_with_it(tmp_path):
    for name, text in (("known", "id,name,email\n1,Ann,ann@example.com\n"), ("new", "id,name,email\n2,Bob,bob@example.com\n"),
                       ("products", "id,name,price\n1,Mouse,30\n"),
                       ("orders", "id,user_id,product_id,quantity\n1,2,1,5\n1,1,1,7\n")):
        (tmp_path / f"{name}.csv").write_text(text)
    run_load(tmp_path, "--users", "known.csv", "--products", "products.csv")
    arguments = ["--users", "new.csv", "--orders", "orders.csv"]
    with locked(tmp_path / "users.db"):
        outcome = run_load(tmp_path, *arguments, "--busy-timeout", "0.3")
    assert outcome.verdicts("orders") == {2: "failed", 3: "failed"}     # which one is to be stored is not known yet
    outcome = run_load(tmp_path, *arguments)
    assert outcome.verdicts("orders") == {2: "inserted", 3: "rejected"}
    assert rows(tmp_path / "orders.db") == [(1, 2, 1, 5)]


# -------------------------------------------------------------------------------- Databases that are something else


NO_DATABASES = {"text": b"this is no database\n" * 300, "zeros": b"\0" * 5000, "two bytes": b"no"}


@pytest.mark.parametrize("name, model", some(4, NO_DATABASES, MODELS))
def test_a_file_that_is_no_database_fails_alone_and_stays_as_it_is(tmp_path, load, name, model):
    database, content = tmp_path / f"{model}.db", NO_DATABASES[name]
    database.write_bytes(content)
    outcome = run_load(tmp_path, *load.arguments)
    assert database.read_bytes() == content
    check_fault(tmp_path, load, outcome, database.name, cause="not a database", mend=database.unlink)


def test_a_folder_in_the_place_of_a_database_fails_it_alone(tmp_path, load):
    (tmp_path / "users.db").mkdir()
    outcome = run_load(tmp_path, *load.arguments)
    check_fault(tmp_path, load, outcome, "users.db", cause="unable to open", mend=(tmp_path / "users.db").rmdir)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no such files here")
@pytest.mark.parametrize("arguments", [(), ("--dry-run",)], ids=["load", "dry run"])
@pytest.mark.parametrize("kind", ["pipe", "device", "link to itself", "link to nowhere"])
def test_what_is_no_regular_file_fails_alone_and_at_once(tmp_path, load, kind, arguments):
    database = tmp_path / "users.db"
    {"pipe": lambda: os.mkfifo(database), "device": lambda: database.symlink_to("/dev/zero"),
     "link to itself": lambda: database.symlink_to(database.name), "link to nowhere": lambda: database.symlink_to("no/where")}[kind]()
    outcome = run_load(tmp_path, *load.arguments, *arguments)
    assert outcome.status == 3 and "users.db" in outcome.error
    assert outcome.verdicts("products") == load.verdicts["products"]
    assert set(outcome.verdicts("users").values()) | set(outcome.verdicts("orders").values()) <= {"failed", "rejected"}


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="there are no links here")
@pytest.mark.parametrize("arguments", [(), ("--dry-run",)], ids=["load", "dry run"])
def test_a_parent_that_cannot_be_looked_at_refuses_no_child(tmp_path, load, arguments):
    run_load(tmp_path, *load.arguments[:4])
    (tmp_path / "users.db").rename(tmp_path / "moved.db")
    (tmp_path / "users.db").symlink_to("users.db")          # a loop: neither there nor not there
    outcome = run_load(tmp_path, *load.arguments[4:], *arguments)
    assert outcome.status == 3 and "users.db" in outcome.error
    assert set(outcome.verdicts("orders").values()) <= {"failed", "rejected"} and outcome.summary["orders"]["failed"] > 100
    (tmp_path / "users.db").unlink()
    (tmp_path / "moved.db").rename(tmp_path / "users.db")
    check_complete(tmp_path, load, run_load(tmp_path, *load.arguments), again=True)


DELETE_AFTER_THE_LAST_COMMIT = """
import os
leave = program.InsertWorker._leave
def leave_and_delete(worker, table):
    leave(worker, table)
    if worker.schema.table == "users":
        os.unlink(table.path)
program.InsertWorker._leave = leave_and_delete
"""


DELETE_AFTER_THE_FIRST_LOOK_UP = """
import os
find_ids = program.Table.find_ids
def find_and_delete(table, ids):
    found = find_ids(table, ids)
    if os.path.exists(table.path):
        os.unlink(table.path)
    return found
program.Table.find_ids = find_and_delete
"""


def test_a_parent_database_deleted_while_it_is_looked_into_lets_no_child_in(tmp_path, load):
    run_load(tmp_path, *load.arguments[:4])
    outcome = run_load(tmp_path, *load.arguments[4:], patch=DELETE_AFTER_THE_FIRST_LOOK_UP)
    assert outcome.status == 3 and ".db: " in outcome.error
    assert outcome.summary["orders"]["inserted"] == 0


def test_a_database_deleted_after_its_last_commit_is_told(tmp_path, load):
    outcome = run_load(tmp_path, *load.arguments, patch=DELETE_AFTER_THE_LAST_COMMIT)
    assert outcome.status == 3 and "users.db: " in outcome.error
    check_complete(tmp_path, load, run_load(tmp_path, *load.arguments), again=True)


OTHERS = {
    "other columns": "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, mail TEXT)",
    "another order": "CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT, name TEXT)",
    "a unique column": "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, email TEXT UNIQUE)",
    "a column that may not be null": "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT)",
    "a view": "CREATE VIEW users AS SELECT 1 AS id, 'x' AS name, 'y' AS email",
    "a virtual table": "CREATE VIRTUAL TABLE users USING fts5(id, name, email)",
    "a column more": "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, email TEXT, phone TEXT)",
    "a column less": "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)",
    "another type": "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, email BLOB)",
    "no key": "CREATE TABLE users (id INTEGER, name TEXT, email TEXT)",
    "a check": "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, email TEXT CHECK (email <> ''))",
    "a default": "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT DEFAULT 'x', email TEXT)",
    "a view in other letters": "CREATE VIEW Users AS SELECT 1 AS id, 'x' AS name, 'y' AS email",
}
ADDITIONS = {
    "a trigger that refuses": "CREATE TRIGGER t BEFORE INSERT ON users BEGIN SELECT RAISE(ABORT, 'no'); END",
    "a trigger that drops": "CREATE TRIGGER t BEFORE INSERT ON users BEGIN SELECT RAISE(IGNORE); END",
    "a trigger that changes": "CREATE TRIGGER t AFTER INSERT ON users BEGIN UPDATE users SET name = 'x' WHERE id = new.id; END",
    "a unique index": "CREATE UNIQUE INDEX i ON users (email)",
}


@pytest.mark.parametrize("other", some(3, OTHERS))
def test_a_database_with_another_schema_fails_alone(tmp_path, load, other):
    database = tmp_path / "users.db"
    try:
        query(database, OTHERS[other])
    except sqlite3.OperationalError as error:
        pytest.skip(str(error))
    outcome = run_load(tmp_path, *load.arguments)
    check_fault(tmp_path, load, outcome, "users.db", cause="not the expected table", mend=database.unlink)


@pytest.mark.parametrize("addition", some(2, ADDITIONS))
def test_a_database_that_decides_for_itself_fails_alone(tmp_path, load, addition):
    database = tmp_path / "users.db"
    query(database, TABLES["users"], ADDITIONS[addition])
    outcome = run_load(tmp_path, *load.arguments)
    kind = "INDEX i" if "index" in addition else "TRIGGER t"
    check_fault(tmp_path, load, outcome, "users.db", cause="not the expected table", mend=lambda: query(database, f"DROP {kind}"))


def test_other_tables_and_plain_indexes_do_no_harm(tmp_path, load):
    query(tmp_path / "users.db", TABLES["users"], "CREATE INDEX i ON users (name)", "CREATE TABLE other (x UNIQUE)",
          "CREATE TRIGGER t AFTER INSERT ON other BEGIN DELETE FROM other; END", "CREATE VIEW v AS SELECT * FROM users")
    check_complete(tmp_path, load, run_load(tmp_path, *load.arguments))


DAMAGES: dict[str, Callable[[bytearray], object]] = {
    "the header": lambda content: content.__setitem__(slice(0, 100), b"\xff" * 100),
    "the root of the table": lambda content: content.__setitem__(slice(4096, 4196), b"\xff" * 100),
    "all pages but the first": lambda content: content.__setitem__(slice(4096, None), b"\xff" * (len(content) - 4096)),
    "the end, cut off": lambda content: content.__delitem__(slice(8192, None)),
}


@pytest.mark.parametrize("damage", some(3, DAMAGES))
def test_a_damaged_database_fails_alone(tmp_path, load, damage):
    database = tmp_path / "users.db"
    run_load(tmp_path, *load.arguments[:2])
    sound = database.read_bytes()
    content = bytearray(sound)
    DAMAGES[damage](content)
    database.write_bytes(content)
    outcome = run_load(tmp_path, *load.arguments)
    assert outcome.status == 3 and re.search("^distributed_inserts: users.db: .*(malformed|not a database)", outcome.error)
    assert set(outcome.verdicts("users").values()) <= {"failed", "rejected"}
    assert outcome.verdicts("products") == load.verdicts["products"]
    database.write_bytes(sound)
    check_reported(load, outcome, check_databases(tmp_path))
    check_complete(tmp_path, load, run_load(tmp_path, *load.arguments), again=True)


# ------------------------------------------------------------------------------------------------------ Threads

REFUSE_THREADS = """
import random
chance = random.Random(3)
real = threading.Thread.start
def alive():
    return sum("#" in thread.name for thread in threading.enumerate())
def start(self):
    if {condition}:
        raise RuntimeError("can't start new thread")
    real(self)
threading.Thread.start = start
"""
FEW_THREADS = """
import resource
threading.stack_size(1 << 30)
threading.stack_size = lambda size=0: 0
used = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
limit = used + ({count} << 30) + (500 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
"""
REFUSALS = {
    "none of a record": "'#' in self.name",
    "none of a user": "'users#' in self.name",
    "none of a product": "'products#' in self.name",
    "none of an order": "'orders#' in self.name",
    "no user, as long as an order has one": "'users#' in self.name and any('orders#' in each.name for each in threading.enumerate())",
    "one at a time": "'#' in self.name and alive() >= 1",
    "two at a time": "'#' in self.name and alive() >= 2",
    "every other": "'#' in self.name and chance.random() < 0.5",
}


@pytest.fixture(scope="module")
def short_load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """A load that does not take for ever even if every thread has to be waited for."""
    return write_load(tmp_path_factory.mktemp("files"), seed=10, users=20, products=20, orders=30, near=True)


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_load_without_enough_threads_takes_its_time_and_completes(tmp_path, short_load, refusal):
    patch = REFUSE_THREADS.format(condition=REFUSALS[refusal])
    outcome = run_load(tmp_path, *short_load.arguments, patch=patch, timeout_s=15)
    check_complete(tmp_path, short_load, outcome)


@pytest.mark.parametrize("models", some(2, [("users",), tuple(MODELS), ("orders",)]))
def test_an_insert_worker_that_cannot_be_started_fails_its_database(tmp_path, load, models):
    condition = f"self.name in {[f'insert-worker {model}.db' for model in models]}"
    outcome = run_load(tmp_path, *load.arguments, patch=REFUSE_THREADS.format(condition=condition), timeout_s=20)
    check_fault(tmp_path, load, outcome, *[f"{model}.db" for model in models], cause="can't start new thread")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc and a limit on memory that holds")
@pytest.mark.parametrize("count", some(3, [0, 3, 4, 2, 6]))
def test_a_machine_without_room_for_threads_is_told_or_waited_for(tmp_path, short_load, count):
    outcome = run_load(tmp_path, *short_load.arguments, patch=FEW_THREADS.format(count=count), timeout_s=15, MALLOC_ARENA_MAX="1")
    if count < 3:
        failed = [f"{model}.db" for model in MODELS][count:]
        check_fault(tmp_path, short_load, outcome, *failed, cause="can't start new thread")
    else:
        check_complete(tmp_path, short_load, outcome)


# ---------------------------------------------------------------------------------------------- Programs that break


@pytest.mark.parametrize("place, model", some(3, ["Table.insert", "Table.commit", "Group.share_out"], MODELS))
def test_a_worker_that_raises_something_unforeseen_fails_its_database_alone(tmp_path, load, model, place):
    owner, name = place.split(".")
    patch = SMALL_GROUPS + f"""
real = program.{place}
def method(self, *arguments):
    if threading.current_thread().name == "insert-worker {model}.db":
        method.calls += 1
        if method.calls == 3:
            raise ZeroDivisionError("unforeseen")
    return real(self, *arguments)
method.calls = 0
program.{owner}.{name} = method
"""
    outcome = run_load(tmp_path, *load.arguments, patch=patch, timeout_s=20)
    check_fault(tmp_path, load, outcome, f"{model}.db", cause="ZeroDivisionError: unforeseen")


@pytest.mark.parametrize("model", MODELS)
def test_one_database_of_three_that_fails_leaves_the_sample_s_others_alone(tmp_path, model):
    (tmp_path / f"{model}.db").write_bytes(b"no database" * 100)
    outcome = run_load(tmp_path)
    assert outcome.status == 3 and f"{model}.db: file is not a database" in outcome.error
    counts = {table: outcome.summary[table] for table in MODELS}
    for table in {"users", "products"} - {model}:
        assert (counts[table]["inserted"], counts[table]["failed"]) == (8, 0)
    assert counts[model]["inserted"] == counts["orders"]["inserted"] == 0
    for table in MODELS:
        assert counts[table]["read"] == 10 == sum(counts[table][key] for key in ("inserted", "unchanged", "rejected", "failed"))
    (tmp_path / f"{model}.db").unlink()
    assert run_load(tmp_path).status == 0
    assert {table: len(stored) for table, stored in check_databases(tmp_path).items()} == {"users": 8, "products": 8, "orders": 6}
