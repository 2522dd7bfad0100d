"""Promises 5, 6 and 8, isolated, honest and untouched: databases that fail, and files and databases that are refused.

The faults are real ones wherever they can be: full disks, limits on files, calls of the system that strace lets fail,
read-only, locked, deleted, damaged and foreign files, threads that cannot be started; only errors in the program itself
are put in from inside.  Each has to end in the right verdicts, exit status 3 and a message with the database and the
cause; records that do not need the failed database come out as ever; once the fault is fixed, the same load completes
(promise 4).  What is refused is afterwards what it was, byte for byte, with no file beside it that was not there.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import HEAVY, MODELS, PROGRAM, contents, execute, rows, some
from loads import (
    HOLD,
    SMALL_GROUPS,
    THREADS,
    Load,
    Outcome,
    Running,
    check_complete,
    check_databases,
    check_disturbed,
    check_failed,
    check_reported,
    load_here,
    locked,
    run_load,
    wait_until,
    write_load,
)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="these faults are made with the means of POSIX systems")
TABLES = {
    "users": "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, email TEXT)",
    "products": "CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT, price REAL)",
    "orders": "CREATE TABLE orders (id INTEGER PRIMARY KEY, user_id INTEGER, product_id INTEGER, quantity INTEGER)",
}


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """A load of a moment."""
    return write_load(tmp_path_factory.mktemp("files"), seed=7, users=200, products=60, orders=120)


@pytest.fixture(scope="module")
def long_load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """A load with enough users to fill something, and few of the others."""
    return write_load(tmp_path_factory.mktemp("files"), seed=8, users=9000, products=30, orders=100)


@pytest.fixture(scope="module")
def short_load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """A load that does not take for ever even if every thread has to be waited for."""
    return write_load(tmp_path_factory.mktemp("files"), seed=10, users=20, products=20, orders=30)


def check_fixed(folder: Path, load: Load, outcome: Outcome, fix: Callable[[], object] = lambda: None) -> None:
    """Make sure that what was reported is what is stored, and that the load completes when the fault is fixed."""
    fix()
    check_reported(load, outcome, check_databases(folder))
    check_complete(folder, load, load_here(folder, *load.arguments), again=True)


def check_fault(
    folder: Path,
    load: Load,
    outcome: Outcome,
    *databases: str,
    cause: str = "",
    fix: Callable[[], object] = lambda: None,
) -> None:
    """Make sure that databases failed as they have to, and that the load completes when that is fixed."""
    check_failed(load, outcome, *databases, cause=cause)
    check_fixed(folder, load, outcome, fix)


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
    if "{database}" in str(path):
        connection.execute("PRAGMA max_page_count={pages}")
    return connection
sqlite3.connect = connect
"""
LIMIT_FILES = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))"


@pytest.mark.parametrize("pages, model", some(3, [2, 1], MODELS))
def test_a_database_that_may_not_grow_fails_alone(tmp_path, model, pages):
    load = write_load(tmp_path / "files", seed=4, users=250, products=300, orders=800 if model == "orders" else 60)
    limit = LIMIT_PAGES.format(database=f"{model}.db", pages=pages)
    outcome = run_load(tmp_path, *load.arguments, "--batch-size", 10, patch=SMALL_GROUPS + limit)
    check_fault(tmp_path, load, outcome, f"{model}.db", cause="full")


@pytest.mark.parametrize("size", some(1, [200_000, 100_000, 300_000]))
def test_a_limit_on_the_size_of_files_fails_the_database_that_reaches_it(tmp_path, long_load, size):
    pytest.importorskip("resource")
    outcome = run_load(tmp_path, *long_load.arguments, "--batch-size", 200, patch=LIMIT_FILES.format(size=size))
    check_fault(tmp_path, long_load, outcome, "users.db")


@pytest.mark.parametrize("kilobytes", some(1, [400, 200, 64]))
def test_a_full_disk_fails_the_databases_that_found_no_room(tmp_path, long_load, kilobytes):
    small = tmp_path / "small"
    small.mkdir()
    with mounted("-t", "tmpfs", "-o", f"size={kilobytes}k", "none", target=small):
        outcome = load_here(small, *long_load.arguments, "--batch-size", 200)
        assert "users.db" in outcome.failed

        def enlarge() -> None:
            subprocess.run(["mount", "-o", "remount,size=50m", str(small)], check=True, timeout=10)

        check_fault(small, long_load, outcome, *outcome.failed, fix=enlarge)


# ------------------------------------------------------------------------------- Calls of the system that fail once


def inject(folder: Path, fault: str, *arguments: object, name: str = "users.db-wal") -> tuple[Outcome, bool]:
    """Run a load with a fault that strace injects into one file; return what it left and whether that took place."""
    if not shutil.which("strace"):
        pytest.skip("strace is not here")
    folder, trace = folder.resolve(), folder.with_name("trace.txt").resolve()
    strace = [
        "strace", "-f", "-o", trace, "-P", folder / name, "-e", f"trace={fault.partition(':')[0]}", "-e",
        f"inject={fault}",
    ]
    outcome = run_load(folder, *arguments, "--batch-size", 20, patch=SMALL_GROUPS, wrap=list(map(str, strace)))
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
        check_complete(folder, load, load_here(folder, *load.arguments), again=True)


@pytest.mark.parametrize("number", some(4, range(1, 13)))
def test_a_sync_that_fails_is_no_success(tmp_path, load, number):
    folder = tmp_path / "databases"
    outcome, happened = inject(folder, f"fdatasync:error=EIO:when={number}", *load.arguments)
    check_injected(folder, load, outcome, happened or number > 6, "I/O error")
    assert outcome.total("failed") or number > 4


@pytest.mark.parametrize("number", some(4, range(1, 21)))
def test_a_write_that_finds_no_room_is_no_success(tmp_path, load, number):
    folder = tmp_path / "databases"
    outcome, happened = inject(folder, f"pwrite64:error=ENOSPC:when={number}", *load.arguments)
    check_injected(folder, load, outcome, happened, "full")
    assert outcome.total("failed")


@HEAVY
@pytest.mark.parametrize("name", ["users.db", "products.db-wal", "orders.db-wal", "users.db-shm"])
@pytest.mark.parametrize(
    "fault",
    [
        "fdatasync:error=EIO:when=1+",
        "pwrite64:error=EIO:when=2+",
        "pread64:error=EIO:when=3+",
        "ftruncate:error=ENOSPC:when=1+",
    ],
)
def test_a_file_of_which_all_calls_fail_loses_nothing_that_was_reported(tmp_path, load, name, fault):
    folder = tmp_path / "databases"
    outcome, _ = inject(folder, fault, *load.arguments, name=name)
    if outcome.total("failed") or outcome.error:
        check_fault(folder, load, outcome, name.partition("-")[0])
    else:
        check_complete(folder, load, outcome)


# ------------------------------------------------------------------------------------------- Folders and files


def test_a_read_only_folder_is_named_and_nothing_is_loaded(tmp_path, load):
    folder = tmp_path / "databases"
    folder.mkdir()
    with read_only(folder):
        outcome = load_here(tmp_path, *load.arguments, "--db", folder)
    assert (outcome.status, outcome.output) == (2, "")
    assert str(folder) in outcome.error and list(folder.iterdir()) == []
    check_complete(folder, load, load_here(folder, *load.arguments))


def test_databases_in_a_folder_that_became_read_only_stay_as_they_are(tmp_path, load):
    folder = tmp_path / "databases"
    load_here(folder, *load.arguments)
    before = contents(folder)
    with read_only(folder):
        outcome = load_here(tmp_path, *load.arguments, "--db", folder)
    assert contents(folder) == before
    assert (outcome.status, outcome.output) == (2, "") and str(folder) in outcome.error
    check_complete(folder, load, load_here(folder, *load.arguments), again=True)


@pytest.mark.parametrize("model", some(2, ["users", "orders", "products"]))
def test_a_read_only_file_fails_alone(tmp_path, load, model):
    database = tmp_path / f"{model}.db"
    execute(database, TABLES[model])
    with read_only(database):
        outcome = load_here(tmp_path, *load.arguments)
    check_fault(tmp_path, load, outcome, database.name, cause="read-?only")


MOVES: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "renamed": lambda path: path.rename(path.with_suffix(".old")),
    "replaced by an empty file": lambda path: (
        path.with_suffix(".new").touch(),
        path.with_suffix(".new").replace(path),
    ),
}


def disturb(folder: Path, load: Load, action: Callable[[], object], *arguments: object) -> Outcome:
    """Run a load and do something when the first users are committed and the last ones still to come."""
    patch = SMALL_GROUPS + HOLD.format(model="users", call=3)
    with Running(folder, "--json", *load.arguments, "--batch-size", 10, *arguments, patch=patch) as running:
        wait_until((folder / "waiting").exists)
        action()
        (folder / "go").touch()
        outcome = running.end()
    (folder / "go").unlink()
    return outcome


@pytest.mark.parametrize("move", MOVES)
def test_a_database_that_goes_away_during_the_load_fails_alone(tmp_path, load, move):
    outcome = disturb(tmp_path, load, lambda: MOVES[move](tmp_path / "users.db"))
    check_failed(load, outcome, "users.db")
    check_complete(tmp_path, load, load_here(tmp_path, *load.arguments), again=True)


def test_a_folder_deleted_during_the_load_fails_its_databases(tmp_path, load):
    folder = tmp_path / "databases"
    outcome = disturb(tmp_path, load, lambda: shutil.rmtree(folder), "--db", folder)
    assert outcome.status == 3 and "users.db: " in outcome.error and outcome.summary["users"]["failed"] > 0
    check_complete(folder, load, load_here(tmp_path, *load.arguments, "--db", folder), again=True)


# ------------------------------------------------------------------------------------------------------- Locks


@pytest.mark.parametrize("statement, model", some(2, ["BEGIN EXCLUSIVE", "BEGIN IMMEDIATE"], MODELS))
def test_a_lock_is_waited_for(tmp_path, load, model, statement):
    with locked(tmp_path / f"{model}.db", statement) as unlock:
        with Running(tmp_path, "--json", *load.arguments, "--log-file", "log.txt") as running:
            running.wait_for_lock(model)
            unlock()
            check_complete(tmp_path, load, running.end())
    log = (tmp_path / "log.txt").read_text().splitlines()
    assert any(f"{model}.db" in line and "locked" in line for line in log)


@pytest.mark.parametrize("model", MODELS)
def test_a_lock_past_the_timeout_fails_its_database_alone(tmp_path, load, model):
    with locked(tmp_path / f"{model}.db"):
        outcome = load_here(tmp_path, *load.arguments, "--busy-timeout", "0.4")
    check_fault(tmp_path, load, outcome, f"{model}.db", cause="locked")


@pytest.mark.parametrize("statement", some(1, ["BEGIN EXCLUSIVE", "BEGIN IMMEDIATE"]))
def test_a_lock_past_the_timeout_on_a_database_in_use_fails_it_alone(tmp_path, load, statement):
    load_here(tmp_path, *load.arguments[:2])
    with locked(tmp_path / "users.db", statement):
        outcome = load_here(tmp_path, *load.arguments, "--busy-timeout", "0.4")
    check_fault(tmp_path, load, outcome, "users.db", cause="locked")


def locked_parents(folder: Path, *arguments: str) -> Outcome:
    """Load ten orders while another process keeps everybody from reading the users that they refer to."""
    texts = {
        "products": "id,name,price\n1,Mouse,30\n",
        "users": "id,name,email\n1,Ann,ann@example.com\n",
        "orders": "id,user_id,product_id,quantity\n" + "".join(f"{id_},1,1,1\n" for id_ in range(1, 11)),
    }
    for name, text in texts.items():
        (folder / f"{name}.csv").write_text(text)
    load_here(folder, "--users", "users.csv", "--products", "products.csv")
    execute(folder / "users.db", "PRAGMA journal_mode=DELETE")
    with locked(folder / "users.db", "BEGIN EXCLUSIVE"):
        return load_here(folder, "--orders", "orders.csv", "--busy-timeout", "0.1", *arguments)


def test_a_parent_database_that_cannot_be_looked_into_fails_who_refers_to_it(tmp_path):
    outcome = locked_parents(tmp_path)
    assert outcome.status == 3 and outcome.verdicts("orders") == dict.fromkeys(range(2, 12), "failed")
    assert all("users.db" in line["reason"] and "locked" in line["reason"] for line in outcome.lines[:-1])
    outcome = load_here(tmp_path, "--orders", "orders.csv")
    assert outcome.verdicts("orders") == dict.fromkeys(range(2, 12), "inserted")


def test_a_parent_database_that_cannot_be_looked_into_is_told_once(tmp_path):
    error = locked_parents(tmp_path, "-q").error
    assert error.count("users.db") == 1 and "locked" in error


def test_a_record_that_failed_keeps_its_id_from_a_later_one_that_clashes_with_it(tmp_path):
    for name, text in (
        ("known", "id,name,email\n1,Ann,ann@example.com\n"),
        ("new", "id,name,email\n2,Bob,bob@example.com\n"),
        ("products", "id,name,price\n1,Mouse,30\n"),
        ("orders", "id,user_id,product_id,quantity\n1,2,1,5\n1,1,1,7\n"),
    ):
        (tmp_path / f"{name}.csv").write_text(text)
    load_here(tmp_path, "--users", "known.csv", "--products", "products.csv")
    arguments = ["--users", "new.csv", "--orders", "orders.csv"]
    with locked(tmp_path / "users.db"):
        outcome = load_here(tmp_path, *arguments, "--busy-timeout", "0.3")
    assert outcome.verdicts("orders") == {2: "failed", 3: "failed"}  # which one is to be stored is not known yet
    outcome = load_here(tmp_path, *arguments)
    assert outcome.verdicts("orders") == {2: "inserted", 3: "rejected"}
    assert rows(tmp_path / "orders.db") == [(1, 2, 1, 5)]


# -------------------------------------------------------------------------------- Databases that are something else


NO_DATABASES = {
    "text": b"this is no database\n" * 300,
    "broken": b"SQLite format 3\0" + b"\xff" * 5000,
    "zeros": b"\0" * 5000,
    "csv": b"id,name\n1,x\n",
    "two bytes": b"no",
}


@pytest.mark.parametrize(
    "model, name", [*some(5, ["users"], NO_DATABASES), *some(1, ["products", "orders"], NO_DATABASES)]
)
def test_a_file_that_is_no_database_fails_alone_and_stays_as_it_is(tmp_path, load, name, model):
    database, content = tmp_path / f"{model}.db", NO_DATABASES[name]
    database.write_bytes(content)
    outcome = load_here(tmp_path, *load.arguments)
    assert database.read_bytes() == content and list(tmp_path.glob(f"{model}.db*")) == [database]
    check_fault(tmp_path, load, outcome, database.name, cause="not a database", fix=database.unlink)


def test_a_folder_in_the_place_of_a_database_fails_it_alone(tmp_path, load):
    (tmp_path / "users.db").mkdir()
    outcome = load_here(tmp_path, *load.arguments)
    check_fault(tmp_path, load, outcome, "users.db", fix=(tmp_path / "users.db").rmdir)


KINDS: dict[str, Callable[[Path], object]] = {
    "pipe": lambda path: os.mkfifo(path),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to nowhere": lambda path: path.symlink_to("no/where"),
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no such files here")
@pytest.mark.parametrize("arguments", [(), ("--dry-run",)], ids=["load", "dry run"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_regular_file_fails_alone_and_at_once(tmp_path, load, kind, arguments):
    KINDS[kind](tmp_path / "users.db")
    check_failed(load, load_here(tmp_path, *load.arguments, *arguments), "users.db")


@pytest.mark.parametrize("arguments", [(), ("--dry-run",)], ids=["load", "dry run"])
def test_a_parent_that_cannot_be_looked_at_rejects_no_child(tmp_path, load, arguments):
    load_here(tmp_path, *load.arguments[:4])
    (tmp_path / "users.db").rename(tmp_path / "moved.db")
    (tmp_path / "users.db").symlink_to("users.db")  # a loop: neither there nor not there
    outcome = load_here(tmp_path, *load.arguments[4:], *arguments)
    assert outcome.status == 3 and "users.db" in outcome.error
    verdicts = outcome.verdicts("orders")
    assert {verdicts[line] for line, verdict in load.verdicts["orders"].items() if verdict == "inserted"} == {"failed"}
    assert set(verdicts.values()) == {"failed", "rejected"}
    (tmp_path / "users.db").unlink()
    (tmp_path / "moved.db").rename(tmp_path / "users.db")
    check_complete(tmp_path, load, load_here(tmp_path, *load.arguments), again=True)


def test_a_database_with_two_names_fails_alone_and_stays_as_it_is(tmp_path, load):
    folder, database = tmp_path / "databases", tmp_path / "databases" / "users.db"
    load_here(folder, *load.arguments[:2])
    os.link(database, tmp_path / "other.db")
    before = database.read_bytes()
    outcome = load_here(folder, *load.arguments)
    assert database.read_bytes() == before and not list(folder.glob("users.db-*"))
    check_fault(folder, load, outcome, "users.db", cause="link", fix=(tmp_path / "other.db").unlink)


def test_nothing_is_reported_inserted_that_a_trigger_kept_from_being_stored(tmp_path, load):
    execute(
        tmp_path / "users.db",
        TABLES["users"],
        "CREATE TRIGGER t BEFORE INSERT ON users BEGIN SELECT RAISE(IGNORE); END",
    )
    outcome = load_here(tmp_path, *load.arguments)
    assert rows(tmp_path / "users.db") == []
    assert set(outcome.verdicts("users").values()) == {"failed", "rejected"}
    assert outcome.verdicts("products") == load.verdicts["products"]


DAMAGES: dict[str, Callable[[bytearray], object]] = {
    "the header": lambda content: content.__setitem__(slice(0, 100), b"\xff" * 100),
    "the root of the table": lambda content: content.__setitem__(slice(4096, 4196), b"\xff" * 100),
    "all pages but the first": lambda content: content.__setitem__(slice(4096, None), b"\xff" * (len(content) - 4096)),
    "the end, cut off": lambda content: content.__delitem__(slice(8192, None)),
}


@pytest.mark.parametrize("damage", some(2, DAMAGES))
def test_a_damaged_database_fails_alone(tmp_path, load, damage):
    database = tmp_path / "users.db"
    load_here(tmp_path, *load.arguments[:2])
    sound = database.read_bytes()
    content = bytearray(sound)
    DAMAGES[damage](content)
    database.write_bytes(content)
    outcome = load_here(tmp_path, *load.arguments)
    check_fault(
        tmp_path, load, outcome, "users.db", cause="malformed|not a database", fix=lambda: database.write_bytes(sound)
    )


# --------------------------------------------------------------------------- Outputs that would overwrite something


def write_inputs(folder: Path) -> None:
    """Write three small files, the databases of an earlier load of the users, and files of somebody else."""
    (folder / "users.csv").write_text("id,name,email\n1,Ann,ann@example.com\n2,,ben@example.com\n")
    (folder / "products.csv").write_text("id,name,price\n1,Mouse,30\n")
    (folder / "notes.txt").write_text("Dear diary\n")
    (folder / "list.json").write_text('[{"id": 1}]\n')
    for name in ("rejects", "foreign", "shop"):
        (folder / name).mkdir()
    (folder / "foreign" / "users.csv").write_text("id,name,email\n7,Gus,gus@example.com\n")
    os.link(folder / "users.csv", folder / "linked.csv")
    (folder / "pointer.txt").symlink_to("users.csv")
    load_here(folder, "--users", "users.csv")


OVERWRITING = [
    "--rejects .", "--rejects foreign", "--log-file users.csv", "--log-file linked.csv", "--log-file pointer.txt",
    "--log-file users.db", "--log-file users.db-wal", "--log-file users.db-journal", "--log-file products.db",
    "--log-file orders.db", "--trace users.csv", "--trace ./users.csv", "--trace pointer.txt", "--trace users.db",
    "--trace users.db-wal", "--trace users.db-journal", "--trace products.db-shm", "--trace orders.db",
    "--trace notes.txt", "--trace list.json", "--log-file new.txt --trace new.txt",
    "--log-file rejects/users.csv --rejects rejects", "--log-file new/users.csv --rejects new",
    "--trace rejects/errors.jsonl --rejects rejects", "--trace new/errors.jsonl --rejects new",
    "--trace shop/products.db --db shop",
]


@pytest.mark.parametrize("arguments", ["--trace users.db", "--log-file orders.db"])
def test_no_output_of_a_check_overwrites_a_database(tmp_path, here, arguments):
    here("-q")
    before = contents(tmp_path)
    outcome = here("--verify", *arguments.split())
    assert (outcome.returncode, outcome.stdout) == (2, "") and outcome.stderr.count("\n") <= 3
    assert contents(tmp_path) == before


@pytest.mark.parametrize("arguments", OVERWRITING)
def test_no_output_overwrites_what_is_not_its_own(tmp_path, here, arguments):
    write_inputs(tmp_path)
    before = contents(tmp_path)
    for dry in ([], ["--dry-run"]):
        outcome = here("--users", "users.csv", "--products", "products.csv", "--json", *arguments.split(), *dry)
        assert (outcome.returncode, outcome.stdout) == (2, ""), outcome
        assert outcome.stderr.startswith("distributed_inserts: ") and outcome.stderr.count("\n") <= 3
        assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "arguments", ["", "--dry-run", "--replace", "--rejects rejects --log-file log.txt --trace trace.json"]
)
def test_a_load_leaves_its_inputs_as_they_were(tmp_path, load, arguments):
    before = contents(load.folder)
    load_here(tmp_path, *load.arguments, *arguments.split())
    assert contents(load.folder) == before


@pytest.mark.parametrize(
    "content",
    ["id,name\n1,Ann\n", "id,name,id,email\n1,Ann,1,a@example.com\n", "[\n", "%PDF-1.7\n\0\0\0"],
    ids=["a column less", "a column twice", "half an array", "binary"],
)
def test_a_file_that_is_refused_and_all_databases_stay_as_they_were(tmp_path, load, content):
    load_here(tmp_path, *load.arguments[:2])
    (tmp_path / "refused").write_text(content)
    before = contents(tmp_path)
    outcome = load_here(tmp_path, *load.arguments[2:], "--users", "refused")
    if content != "[\n":  # an array that breaks off is not refused, but cut
        assert (outcome.status, outcome.output) == (2, "")
        assert contents(tmp_path) == before
    assert (tmp_path / "refused").read_text() == content


# ------------------------------------------------------------------------------------------------------ Threads

REFUSE_THREADS = (
    THREADS
    + """
import random
chance = random.Random(3)
def before_start(name):
    others = [each for each in alive if "#" in each]
    if {condition}:
        raise RuntimeError("can't start new thread")
"""
)
FEW_THREADS = """
import resource
threading.stack_size(1 << 30)
threading.stack_size = lambda size=0: 0
used = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
limit = used + ({count} << 30) + (500 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
"""
REFUSALS = {
    "none of a record": "'#' in name", "none of a user": "'users#' in name", "none of a product": "'products#' in name",
    "none of an order": "'orders#' in name", "one at a time": "'#' in name and len(others) >= 1",
    "two at a time": "'#' in name and len(others) >= 2", "every other": "'#' in name and chance.random() < 0.5",
    "the tenth user": "name == 'users#10'",
}


def check_short_of_threads(folder: Path, load: Load, outcome: Outcome) -> None:
    """Make sure that a load for which there were not enough threads completed, or is honest and completes now.

    Where there are not even those of the insert workers, it may say so and leave everything alone.
    """
    if outcome.status in (2, 3) and outcome.output == "":
        assert "thread" in outcome.error and "internal error" not in outcome.error
        assert not any(check_databases(folder).values())
        check_complete(folder, load, load_here(folder, *load.arguments))
        return
    if outcome.status != 3:
        check_complete(folder, load, outcome)
        return
    check_disturbed(load, outcome, validated=False)
    check_fixed(folder, load, outcome)


@pytest.mark.parametrize("refusal", REFUSALS)
def test_threads_that_cannot_be_started_lose_nothing_and_hang_nothing(tmp_path, short_load, refusal):
    patch = REFUSE_THREADS.format(condition=REFUSALS[refusal])
    check_short_of_threads(tmp_path, short_load, run_load(tmp_path, *short_load.arguments, patch=patch, timeout_s=15))


@pytest.mark.parametrize("models", some(2, [("users",), tuple(MODELS), ("orders",)]))
def test_an_insert_worker_that_cannot_be_started_is_told_and_hangs_nothing(tmp_path, load, models):
    condition = f"name in {[f'insert-worker {model}.db' for model in models]}"
    outcome = run_load(tmp_path, *load.arguments, patch=REFUSE_THREADS.format(condition=condition), timeout_s=20)
    assert outcome.status != 1
    check_short_of_threads(tmp_path, load, outcome)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc and a limit on memory that holds")
@pytest.mark.parametrize("count", some(3, [0, 3, 5, 1, 2, 4, 6]))
def test_memory_for_a_few_threads_only_loses_nothing_and_hangs_nothing(tmp_path, short_load, count):
    outcome = run_load(
        tmp_path, *short_load.arguments, patch=FEW_THREADS.format(count=count), timeout_s=15, MALLOC_ARENA_MAX="1"
    )
    check_short_of_threads(tmp_path, short_load, outcome)


@pytest.mark.skipif(
    os.name != "posix" or not shutil.which("setpriv") or not shutil.which("prlimit") or os.geteuid() != 0,
    reason="needs setpriv and prlimit, and root to be somebody else",
)
@pytest.mark.parametrize("count", some(3, [1, 4, 6, 2, 3, 5, 10]))
def test_a_user_who_may_have_a_few_threads_only_loses_nothing_and_hangs_nothing(count):
    # Somebody who owns no other process, and is root as far as files are concerned.
    wrap = [
        "setpriv",
        f"--ruid={random.randrange(61_000, 64_000)}",
        "--bounding-set=-sys_resource,-sys_admin",
        "prlimit",
        f"--nproc={count}",
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        load = write_load(folder / "files", seed=10, users=20, products=20, orders=30)
        check_short_of_threads(folder, load, run_load(folder, *load.arguments, wrap=wrap, timeout_s=15))


# ---------------------------------------------------------------------------------------------- Programs that break

BREAK_WORKER = (
    SMALL_GROUPS
    + """
real, calls = program.SqliteTable.{method}, 0
def method(self, *arguments):
    global calls
    calls += model() == "{model}"
    if model() == "{model}" and calls == {call}:
        raise {error}
    return real(self, *arguments)
program.SqliteTable.{method} = method
"""
)
# Raises an error in the threads of some records, where the program calls a function of its own for the n-th time there.
BREAK_RECORD = (
    THREADS
    + """
calls = {{}}
def in_thread(name):
    def trace(frame, event, argument):
        if event == "call" and frame.f_code.co_filename == program.__file__:
            calls[name] = calls.get(name, 0) + 1
            if calls[name] == {call}:
                open("raised", "w").close()
                raise {error}
    if {condition}:
        sys.settrace(trace)
"""
)


@pytest.mark.parametrize(
    "method, model, error",
    [
        ("insert", "users", 'ZeroDivisionError("unforeseen")'),
        ("commit", "products", 'MemoryError("unforeseen")'),
        ("begin", "orders", 'RuntimeError("unforeseen")'),
        *some(0, ["insert", "commit", "begin"], MODELS, ['KeyError("unforeseen")', 'OSError(5, "unforeseen")']),
    ],
)
def test_a_worker_that_raises_something_unforeseen_fails_its_database_alone(tmp_path, load, model, method, error):
    patch = BREAK_WORKER.format(method=method, model=model, call=2, error=error)
    outcome = run_load(tmp_path, *load.arguments, "--batch-size", 5, patch=patch, timeout_s=20)
    check_fault(tmp_path, load, outcome, f"{model}.db", cause="unforeseen")


BROKEN = """
import os, sys, threading, time
sys.path.insert(0, {folder!r})
import distributed_inserts as program
look_up = program.Databases._look_up
def look_up_late(self, batch, place, parent):
    while any(thread.name == "insert-worker users.db" for thread in threading.enumerate()):
        time.sleep(0.01)
    look_up(self, batch, place, parent)
program.Databases._look_up = look_up_late
program.Report.add = lambda *_: 1 / 0
os._exit(program.main())
"""


def test_an_error_in_the_report_ends_the_program_with_a_word(tmp_path: Path) -> None:
    """What still waits for a worker then, as this order does for a look-up, is left behind."""
    (tmp_path / "users.csv").write_text("id,name,email\n1,Ada,ada@example.com\n")
    (tmp_path / "orders.csv").write_text("id,user_id,product_id,quantity\n1,7,7,1\n")
    command = [sys.executable, "-c", BROKEN.format(folder=str(Path(PROGRAM).parent)), "--users", "users.csv"]
    command += ["--orders", "orders.csv"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "distributed_inserts: internal error: ZeroDivisionError: division by zero\n"


@pytest.mark.parametrize("call", some(6, [2, 3, 4, 6, 9, 13, 5, 7, 8, 10, 11, 12, *range(14, 50)]))
@pytest.mark.parametrize("batch_size", [1, 7])
def test_an_error_anywhere_in_a_record_s_thread_fails_its_batch_and_hangs_nothing(
    tmp_path, short_load, call, batch_size
):
    condition = "name in ('users#3', 'users#1-7', 'products#7', 'products#8-14', 'orders#2', 'orders#22-28')"
    patch = BREAK_RECORD.format(condition=condition, call=call, error='ZeroDivisionError("unforeseen")')
    outcome = run_load(tmp_path, *short_load.arguments, "--batch-size", batch_size, patch=patch, timeout_s=15)
    check_short_of_threads(tmp_path, short_load, outcome)
    assert (tmp_path / "raised").exists() or call > 13


@pytest.mark.parametrize("fault", ["thread", "error"])
def test_a_record_that_failed_leaves_its_value_to_no_later_one(tmp_path, fault):
    """Or the load, run again, would end otherwise than an undisturbed one."""
    (tmp_path / "users.csv").write_text(
        "id,name,email\n1,Ann,ann@example.com\n2,Amy,ann@example.com\n3,Cy,cy@example.com\n"
    )
    condition = "name == 'users#1'"
    patch = (
        BREAK_RECORD.format(condition=condition, call=2, error='ZeroDivisionError("unforeseen")')
        if fault == "error"
        else REFUSE_THREADS.format(condition=condition)
    )
    outcome = run_load(tmp_path, "--users", "users.csv", patch=patch, timeout_s=15)
    assert outcome.verdicts("users")[3] != "inserted"
    assert load_here(tmp_path, "--users", "users.csv").status == 1
    assert rows(tmp_path / "users.db") == [(1, "Ann", "ann@example.com"), (3, "Cy", "cy@example.com")]


@pytest.mark.parametrize("arguments", [[], ["--verify"]])
def test_a_lock_at_the_start_of_a_verification_or_of_the_sample_is_waited_for(tmp_path, arguments):
    load_here(tmp_path, "-q")
    execute(tmp_path / "users.db", "PRAGMA journal_mode=DELETE")
    with locked(tmp_path / "users.db", "BEGIN EXCLUSIVE") as unlock, Running(tmp_path, "-q", *arguments) as running:
        time.sleep(0.5)  # longer than one slice of waiting
        unlock()
        outcome = running.end()
    assert (outcome.status, outcome.error) == (0, "")
