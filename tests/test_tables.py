"""Promise 8, untouched: tables and databases that others made are used where they can be, else left as they were."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import MODELS, VERDICTS, Run, contents, execute, rows, some

RECORDS = {
    "users": [(1, "Ada", "ada@example.com"), (2, "Bo", "BO@example.com"), (3, "Zoë", "zoë@example.com")],
    "products": [(1, "Pen", 1.5), (2, "007", 1000.0), (3, "Désk", 0.1), (4, "1e3", 99.0)],
    "orders": [(1, 1, 2, 1), (2, 3, 4, 2**63 - 1), (3, 2, 1, 7)],
}
ALL = [word for model in MODELS for word in (f"--{model}", f"{model}.csv")]


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    """Write a file of good records of every model."""
    for model, records in RECORDS.items():
        (tmp_path / f"{model}.csv").write_text(
            "".join(",".join(map(str, row)) + "\n" for row in [MODELS[model], *records]), encoding="utf-8"
        )


def stored(database: Path, model: str) -> list[tuple]:
    """Return the fields of all records of a table whatever else it holds."""
    return execute(database, f"SELECT {', '.join(MODELS[model])} FROM {model} ORDER BY id")


def load(here: Run, *arguments: str) -> tuple[int, dict[str, list[str]], str]:
    """Return the exit status, the verdicts by model and what was said of a load; the counts have to add up."""
    result = here(*arguments, "--json")
    verdicts: dict[str, list[str]] = {}
    *lines, last = map(json.loads, result.stdout.splitlines())
    for line in lines:
        verdicts.setdefault(line["model"], []).append(line["verdict"])
    for model, counts in last["summary"].items():
        assert counts["read"] == len(verdicts.get(model, [])) == sum(counts[verdict] for verdict in VERDICTS)
    return result.returncode, verdicts, result.stderr + result.stdout


def kept(folder: Path) -> dict[str, bytes | None]:
    """Return the contents of a folder without what is shared memory of SQLite."""
    return {name: data for name, data in contents(folder).items() if not name.endswith("-shm")}


def journal_mode(database: Path) -> str:
    """Return what the file's header says: write-ahead logging, or a rollback journal."""
    return {1: "delete", 2: "wal"}[database.read_bytes()[18]]


# ------------------------------------------------------------------------------------------------- Tables that are used

USED = {
    "sqlite-utils 4": {
        "users": 'CREATE TABLE "users" (\n   "id" INTEGER PRIMARY KEY,\n   "name" TEXT,\n   "email" TEXT\n)',
        "products": 'CREATE TABLE "products" (\n   "id" INTEGER PRIMARY KEY,\n   "name" TEXT,\n   "price" REAL\n)',
        "orders": 'CREATE TABLE "orders" (\n   "id" INTEGER PRIMARY KEY,\n   "user_id" INTEGER,\n   "product_id" '
        'INTEGER,\n   "quantity" INTEGER\n)',
    },
    "sqlite-utils 3": {
        "users": "CREATE TABLE [users] (\n   [id] INTEGER PRIMARY KEY,\n   [name] TEXT,\n   [email] TEXT\n)",
        "products": "CREATE TABLE [products] (\n   [id] INTEGER PRIMARY KEY,\n   [name] TEXT,\n   [price] FLOAT\n)",
    },
    "Django": {
        "users": 'CREATE TABLE "users" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "name" varchar(100) NOT NULL, '
        '"email" varchar(254) NOT NULL UNIQUE)',
        "products": 'CREATE TABLE "products" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "name" varchar(100) '
        "NOT NULL UNIQUE, "
        '"price" decimal NOT NULL)',
        "orders": 'CREATE TABLE "orders" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "user_id" bigint NOT NULL '
        'REFERENCES "users" ("id") '
        'DEFERRABLE INITIALLY DEFERRED, "product_id" bigint NOT NULL REFERENCES "products" ("id") DEFERRABLE '
        "INITIALLY DEFERRED, "
        '"quantity" integer unsigned NOT NULL CHECK ("quantity" >= 0))',
    },
    "SQLAlchemy": {
        "users": "CREATE TABLE users (\n\tid INTEGER NOT NULL, \n\tname VARCHAR(100) NOT NULL, \n\temail VARCHAR, \n"
        "\tPRIMARY KEY (id), \n\t"
        "UNIQUE (email)\n)",
        "products": "CREATE TABLE products (\n\tid BIGINT NOT NULL, \n\tname TEXT, \n\tprice NUMERIC(10, 2), \n"
        "\tPRIMARY KEY (id)\n)",
        "orders": "CREATE TABLE orders (\n\tid BIGINT NOT NULL, \n\tuser_id BIGINT, \n\tproduct_id SMALLINT, \n"
        "\tquantity BIGINT, \n\t"
        "PRIMARY KEY (id), \n\tFOREIGN KEY(user_id) REFERENCES users (id)\n)",
    },
    "a Rails schema": {
        "users": 'CREATE TABLE "users" ("id" integer PRIMARY KEY AUTOINCREMENT NOT NULL, "name" varchar, "email" '
        "varchar, "
        '"created_at" datetime(6), "updated_at" datetime(6))',
        "products": 'CREATE TABLE "products" ("id" integer PRIMARY KEY AUTOINCREMENT NOT NULL, "name" varchar, '
        '"price" float)',
    },
    "DOUBLE": {"products": "CREATE TABLE products (id INT PRIMARY KEY, name NVARCHAR(50), price DOUBLE)"},
    "DOUBLE PRECISION": {
        "products": "CREATE TABLE products (id INT8 PRIMARY KEY, name CHARACTER(20), price DOUBLE PRECISION)"
    },
    "MONEY": {"products": "CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT, price MONEY)"},
    "another order": {
        "users": "CREATE TABLE users (email TEXT, name TEXT, id INTEGER PRIMARY KEY)",
        "products": "CREATE TABLE products (price REAL, id INTEGER PRIMARY KEY, name TEXT)",
        "orders": "CREATE TABLE orders (quantity INTEGER, product_id INTEGER, user_id INTEGER, id INTEGER PRIMARY KEY)",
    },
    "capitals": {
        "users": "CREATE TABLE USERS (ID INTEGER PRIMARY KEY, Name TEXT, EMAIL TEXT)",
        "products": "CREATE TABLE Products (Id INTEGER PRIMARY KEY, NAME TEXT, Price REAL)",
        "orders": 'CREATE TABLE "Orders" (ID INTEGER PRIMARY KEY, User_ID INTEGER, PRODUCT_id INTEGER, Quantity '
        "INTEGER)",
    },
    "more columns": {
        "users": "CREATE TABLE users (note TEXT DEFAULT 'new', id INTEGER PRIMARY KEY, name TEXT, x BLOB, email TEXT,"
        " at TEXT DEFAULT CURRENT_TIMESTAMP)",
        "orders": "CREATE TABLE orders (id INTEGER PRIMARY KEY, user_id INTEGER, product_id INTEGER, quantity "
        'INTEGER, "select" TEXT)',
    },
    "a comment with the word unique": {
        "users": "CREATE TABLE users (id INTEGER PRIMARY KEY, -- unique, of course\n name TEXT, /* not UNIQUE, CHECK "
        "or FOREIGN KEY */ email TEXT)"
    },
    "constraints": {
        "users": "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL CHECK (name <> ''), email TEXT "
        "UNIQUE COLLATE NOCASE)",
        "products": "CREATE TABLE products (id INTEGER PRIMARY KEY CHECK (id > 0), name TEXT UNIQUE ON CONFLICT "
        "REPLACE, price REAL CHECK (price > 0))",
    },
    "WITHOUT ROWID": {"users": "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, email TEXT) WITHOUT ROWID"},
    "STRICT": {
        "users": "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, email TEXT) STRICT",
        "products": "CREATE TABLE products (id INT PRIMARY KEY, name TEXT, price REAL) STRICT",
    },
    "a generated column": {
        "users": "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, email TEXT, shown TEXT AS (name || ' <' || "
        "email || '>'))"
    },
    "other tables beside it": {
        "users": "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, email TEXT)",
        "users: more": "CREATE TABLE settings (name, value)",
    },
    "views and indexes beside it": {
        "users": "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, email TEXT)",
        "users: more": "CREATE VIEW people AS SELECT name FROM users",
        "users: index": "CREATE UNIQUE INDEX by_email ON users (email)",
    },
    "a trigger beside it": {
        "users": "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, email TEXT)",
        "users: log": "CREATE TABLE log (id INTEGER)",
        "users: trigger": "CREATE TRIGGER watch AFTER INSERT ON users BEGIN INSERT INTO log VALUES (NEW.id); END",
    },
    "UTF-16": {
        "users": "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, email TEXT)",
        "products": "CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT, price REAL)",
    },
}


def skip_unless_sqlite_knows(kind: str) -> None:
    """Skip what this SQLite is too old for."""
    if (
        kind == "STRICT"
        and sqlite3.sqlite_version_info < (3, 37)
        or "generated" in kind
        and sqlite3.sqlite_version_info < (3, 31)
    ):
        pytest.skip(f"SQLite {sqlite3.sqlite_version} has no such tables")


@pytest.mark.parametrize("mode, kind", [*some(len(USED), ["DELETE"], USED), *some(4, ["WAL"], USED)])
def test_tables_of_others_are_used_as_if_they_were_its_own(here: Run, tmp_path: Path, kind: str, mode: str) -> None:
    skip_unless_sqlite_knows(kind)
    for name, statement in USED[kind].items():
        encoding = "UTF-16le" if kind == "UTF-16" else "UTF-8"
        execute(
            tmp_path / f"{name.partition(':')[0]}.db",
            f"PRAGMA encoding = '{encoding}'",
            statement,
            f"PRAGMA journal_mode = {mode}",
        )
    made = [name for name in MODELS if name in USED[kind]]
    schema = {
        name: execute(tmp_path / f"{name}.db", "SELECT name, sql FROM sqlite_master WHERE type <> 'index'")
        for name in made
    }
    expected = {model: ["inserted"] * len(records) for model, records in RECORDS.items()}
    assert load(here, *ALL)[:2] == (0, expected)
    for model, records in RECORDS.items():
        assert stored(tmp_path / f"{model}.db", model) == records
    for name in made:
        assert (
            execute(tmp_path / f"{name}.db", "SELECT name, sql FROM sqlite_master WHERE type <> 'index'")
            == schema[name]
        )
        assert journal_mode(tmp_path / f"{name}.db") == mode.lower()
    assert load(here, *ALL)[:2] == (0, {model: ["unchanged"] * len(records) for model, records in RECORDS.items()})
    assert here("--verify").returncode == 0
    assert not [path.name for path in tmp_path.iterdir() if path.name.endswith(("-wal", "-shm", "-journal"))]


def make_tables(library: str, folder: Path) -> None:
    """Let a library make the three tables in three databases, one user stored in the first."""
    if library == "sqlite-utils":
        sqlite_utils = pytest.importorskip("sqlite_utils")
        for model, example in (
            ("users", (9, "Old", "old@example.com")),
            ("products", (9, "Old", 1.5)),
            ("orders", (9, 9, 9, 9)),
        ):
            database = sqlite_utils.Database(folder / f"{model}.db")
            database[model].insert(dict(zip(MODELS[model], example)), pk="id")
            database.conn.close()
    elif library == "SQLAlchemy":
        sa = pytest.importorskip("sqlalchemy")
        types = {"name": sa.String(80), "email": sa.String, "price": sa.Float}
        for model, fields in MODELS.items():
            metadata = sa.MetaData()
            sa.Table(
                model,
                metadata,
                sa.Column("id", sa.Integer, primary_key=True),
                *(sa.Column(name, types.get(name, sa.BigInteger), nullable=False) for name in fields[1:]),
            )
            engine = sa.create_engine(f"sqlite:///{folder / model}.db")
            metadata.create_all(engine)
            engine.dispose()
    else:
        pytest.importorskip("django")
        code = """
import sys
from django.conf import settings
engine = "django.db.backends.sqlite3"
settings.configure(DATABASES={name: {"ENGINE": engine, "NAME": f"{sys.argv[1]}/{model}.db"} for name, model in
                              (("default", "users"), ("products", "products"), ("orders", "orders"))},
                   DEFAULT_AUTO_FIELD="django.db.models.BigAutoField")
import django
django.setup()
from django.db import connections, models
class User(models.Model):
    name, email = models.CharField(max_length=100), models.EmailField(unique=True)
    class Meta: app_label, db_table = "shop", "users"
class Product(models.Model):
    name, price = models.CharField(max_length=100, unique=True), models.DecimalField(max_digits=20, decimal_places=2)
    class Meta: app_label, db_table = "shop", "products"
class Order(models.Model):
    user_id, product_id, quantity = models.BigIntegerField(), models.BigIntegerField(), models.PositiveBigIntegerField()
    class Meta: app_label, db_table = "shop", "orders"
for name, model in (("default", User), ("products", Product), ("orders", Order)):
    with connections[name].schema_editor() as editor:
        editor.create_model(model)
"""
        subprocess.run([sys.executable, "-c", code, str(folder)], check=True, timeout=60)


@pytest.mark.parametrize("library", ["sqlite-utils", "SQLAlchemy", "Django"])
def test_tables_that_the_library_itself_makes_are_used(here: Run, tmp_path: Path, library: str) -> None:
    make_tables(library, tmp_path)
    old = {model: stored(tmp_path / f"{model}.db", model) for model in MODELS}
    assert load(here, *ALL)[:2] == (0, {model: ["inserted"] * len(records) for model, records in RECORDS.items()})
    for model, records in RECORDS.items():
        assert stored(tmp_path / f"{model}.db", model) == sorted(old[model] + records)
    assert set(sum(load(here, *ALL)[1].values(), [])) == {"unchanged"}


def test_what_is_stored_in_a_table_of_others_counts(here: Run, tmp_path: Path) -> None:
    execute(
        tmp_path / "users.db",
        USED["another order"]["users"],
        "INSERT INTO users (id, name, email) VALUES (1, 'Ada', 'ada@example.com'), "
        "(3, 'Zoe', 'zoe@example.com'), (8, 'Bob', 'bo@EXAMPLE.com')",
    )
    status, verdicts, said = load(here, "--users", "users.csv")
    assert (status, verdicts["users"]) == (1, ["unchanged", "rejected", "rejected"])
    assert "not_unique" in said and "conflict" in said and "--replace" in said


def test_defaults_of_more_columns_are_kept_and_filled_by_the_database(here: Run, tmp_path: Path) -> None:
    execute(tmp_path / "users.db", USED["more columns"]["users"])
    assert load(here, "--users", "users.csv")[0] == 0
    assert execute(tmp_path / "users.db", "SELECT DISTINCT note, x, at IS NULL FROM users") == [("new", None, 0)]


def test_an_empty_database_and_an_empty_file_are_filled(here: Run, tmp_path: Path) -> None:
    (tmp_path / "users.db").write_bytes(b"")
    execute(tmp_path / "products.db", "CREATE TABLE x (y)", "DROP TABLE x")
    assert load(here, *ALL)[0] == 0
    assert all(stored(tmp_path / f"{model}.db", model) == records for model, records in RECORDS.items())


# -------------------------------------------------------------------------------------------- What a constraint refuses


@pytest.mark.parametrize("size", ["1", "1000"])
@pytest.mark.parametrize(
    ("statements", "word", "refused"),
    [
        (["CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT CHECK (name <> 'Bo'), email TEXT)"], "CHECK", {2}),
        (
            [
                "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT UNIQUE COLLATE NOCASE, email TEXT)",
                "INSERT INTO users VALUES (9, 'ada', 'x@y.z')",
            ],
            "UNIQUE",
            {1},
        ),
        (
            [
                "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, email TEXT)",
                "CREATE TRIGGER no BEFORE INSERT ON users WHEN NEW.name LIKE 'B%' BEGIN SELECT RAISE(ABORT, 'no B "
                "here, please'); END",
            ],
            "no B here, please",
            {2},
        ),
        (
            ["CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, email TEXT, tenant INTEGER NOT NULL)"],
            "users.tenant",
            {1, 2, 3},
        ),
    ],
    ids=["check", "unique", "trigger", "not null"],
)
def test_what_a_constraint_refuses_is_failed_with_its_message_and_takes_no_neighbour(
    here: Run, tmp_path: Path, statements: list[str], word: str, refused: set[int], size: str
) -> None:
    execute(tmp_path / "users.db", *statements)
    before = {row[0] for row in stored(tmp_path / "users.db", "users")}
    status, verdicts, said = load(here, *ALL, "--batch-size", size)
    assert status == 3 and word in said
    assert verdicts["users"] == ["failed" if id_ in refused else "inserted" for id_ in (1, 2, 3)]
    assert {row[0] for row in stored(tmp_path / "users.db", "users")} == before | {1, 2, 3} - refused
    assert verdicts["products"] == ["inserted"] * 4
    kept = {row[0] for row in stored(tmp_path / "users.db", "users")}
    orders = stored(tmp_path / "orders.db", "orders") if (tmp_path / "orders.db").exists() else []
    assert all(order[1] in kept for order in orders) and len(orders) == verdicts["orders"].count("inserted")
    assert "rejected" not in verdicts["orders"]


# ----------------------------------------------------------------------------- Databases and tables that cannot be used

REFUSED = {
    "pandas to_sql": (
        ['CREATE TABLE "users" (\n"id" INTEGER,\n  "name" TEXT,\n  "email" TEXT\n)'],
        ["id", "primary key"],
    ),
    "pandas to_sql with its index": (
        [
            'CREATE TABLE "users" (\n"index" INTEGER,\n  "id" INTEGER,\n  "name" TEXT,\n  "email" TEXT\n)',
            'CREATE INDEX "ix_users_index"ON "users" ("index")',
        ],
        ["id", "primary key"],
    ),
    ".import": (['CREATE TABLE IF NOT EXISTS "users"(\n"id" TEXT, "name" TEXT, "email" TEXT)'], ["id"]),
    ".import of newer versions": (['CREATE TABLE IF NOT EXISTS "users"(\n"id" ANY, "name" ANY, "email" ANY)'], ["id"]),
    "a text as id": (["CREATE TABLE users (id TEXT PRIMARY KEY, name TEXT, email TEXT)"], ["id", "TEXT"]),
    "an id of two columns": (
        ["CREATE TABLE users (id INTEGER, tenant INTEGER, name TEXT, email TEXT, PRIMARY KEY (tenant, id))"],
        ["id", "primary key"],
    ),
    "another primary key": (
        ["CREATE TABLE users (uuid TEXT PRIMARY KEY, id INTEGER UNIQUE, name TEXT, email TEXT)"],
        ["primary key"],
    ),
    "a column less": (["CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)"], ["email"]),
    "other names": (
        ["CREATE TABLE users (user_id INTEGER PRIMARY KEY, full_name TEXT, mail TEXT)"],
        ["id", "name", "email"],
    ),
    "numbers for texts": (
        ["CREATE TABLE users (id INTEGER PRIMARY KEY, name INTEGER, email TEXT)"],
        ["name", "INTEGER"],
    ),
    "a decimal for texts": (
        ["CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, email DECIMAL)"],
        ["email", "DECIMAL"],
    ),
    "a generated column": (
        ["CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, email TEXT AS (name || '@example.com'))"],
        ["email"],
    ),
    "a view": (
        [
            "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, email TEXT)",
            "CREATE VIEW users AS SELECT * FROM people",
        ],
        ["view"],
    ),
    "a view in other letters": (["CREATE VIEW Users AS SELECT 1 AS id, 'x' AS name, 'y' AS email"], ["view"]),
    "a virtual table": (["CREATE VIRTUAL TABLE users USING fts5(id, name, email)"], ["primary key"]),
    "somebody else's": (
        ["CREATE TABLE settings (name TEXT PRIMARY KEY, value)", "INSERT INTO settings VALUES ('a', 1)"],
        ["settings"],
    ),
    "a view of somebody else's": (["CREATE TABLE t1 (x)", "CREATE VIEW accounts AS SELECT x FROM t1"], ["t1"]),
    "a table of almost that name": (["CREATE TABLE user (id INTEGER PRIMARY KEY, name TEXT, email TEXT)"], ["user"]),
}


@pytest.mark.parametrize("mode, kind", [*some(len(REFUSED), ["DELETE"], REFUSED), *some(4, ["WAL"], REFUSED)])
def test_what_is_refused_is_left_byte_for_byte_and_the_message_says_why(
    here: Run, tmp_path: Path, kind: str, mode: str
) -> None:
    skip_unless_sqlite_knows(kind)
    statements, words = REFUSED[kind]
    database = tmp_path / "users.db"
    execute(database, f"PRAGMA journal_mode = {mode}", *statements)
    os.utime(database, (1_000_000_000, 1_000_000_000))
    before, status = kept(tmp_path), database.stat()
    for arguments in ([], ["--dry-run"], ["--replace"]):
        status_, verdicts, said = load(here, *ALL, *arguments)
        after = kept(tmp_path)
        assert {name: data for name, data in after.items() if name in before} == before
        assert {name for name in after if name.startswith("users")} == {
            name for name in before if name.startswith("users")
        }
        assert database.stat().st_mtime_ns == status.st_mtime_ns
        assert status_ == 3
        assert verdicts["users"] == ["failed"] * 3 and verdicts["orders"] == ["failed"] * 3
        assert set(verdicts["products"]) <= {"inserted", "unchanged"}
        assert "users.db" in said and all(word.lower() in said.lower() for word in words), said
    result = here("--verify")
    assert result.returncode == 3 and "users.db" in result.stderr + result.stdout
    assert database.read_bytes() == before["users.db"]


def test_a_foreign_database_with_a_log_beside_it_is_left_with_its_log(run: Run, tmp_path: Path) -> None:
    script = (
        "import sqlite3, os; c = sqlite3.connect('users.db', isolation_level=None); c.execute('PRAGMA journal_mode = "
        "WAL'); "
        "c.execute('CREATE TABLE mine (x)'); c.execute('INSERT INTO mine VALUES (1)'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=60)
    before = kept(tmp_path)
    assert before["users.db-wal"]
    for arguments in (ALL, [*ALL, "--dry-run"], ["--verify"]):
        result = run(*arguments)
        assert result.returncode == 3 and "mine" in result.stderr
        after = kept(tmp_path)
        assert {name: data for name, data in after.items() if name.startswith("users")} == {
            name: data for name, data in before.items() if name.startswith("users")
        }
    assert execute(tmp_path / "users.db", "SELECT x FROM mine") == [(1,)]


def test_a_foreign_database_stays_readable_for_those_who_may_not_write(here: Run, tmp_path: Path, shared: Path) -> None:
    shutil.copy(tmp_path / "users.csv", shared)
    execute(shared / "users.db", "CREATE TABLE mine (x)", "INSERT INTO mine VALUES (1)")
    assert load(here, "--users", "users.csv", "--db", str(shared))[0] == 3
    assert read_without_permission(shared, "SELECT x FROM mine") == "[(1,)]"


# ----------------------------------------------------------------------------------------------------------- Hard links


def test_a_database_with_two_names_is_refused_under_both(here: Run, tmp_path: Path) -> None:
    load(here, *ALL)
    (tmp_path / "other").mkdir()
    try:
        os.link(tmp_path / "users.db", tmp_path / "other" / "users.db")
    except OSError as error:
        pytest.skip(f"no hard links here: {error}")
    before = (tmp_path / "users.db").read_bytes()
    (tmp_path / "users.csv").write_text("id,name,email\n7,New,new@example.com\n", encoding="utf-8")
    for folder in (".", "other"):
        status, verdicts, said = load(here, "--users", "users.csv", "--db", folder)
        assert (status, verdicts["users"]) == (3, ["failed"]) and "link" in said
        assert (tmp_path / "users.db").read_bytes() == before
    (tmp_path / "other" / "users.db").unlink()
    assert load(here, "--users", "users.csv")[:2] == (0, {"users": ["inserted"]})


# ------------------------------------------------------------------------------------------ The journal mode at the end


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that everybody may read."""
    folder = Path(tempfile.mkdtemp(prefix="shared-"))
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def read_without_permission(folder: Path, statement: str) -> str:
    """Return what someone sees in the users who may write neither the database nor its folder."""
    if os.name == "nt":
        pytest.skip("permissions of POSIX")
    (folder / "users.db").chmod(0o444)
    folder.chmod(0o555)
    script = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute(sys.argv[2]).fetchall())"
    other = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    python = "/usr/bin/python3" if other and os.path.exists("/usr/bin/python3") else sys.executable
    if other and subprocess.run([python, "-c", "import sqlite3"], cwd="/", capture_output=True, **other).returncode:
        pytest.skip("no Python here that another user may run")
    try:
        done = subprocess.run(
            [python, "-c", script, str(folder / "users.db"), statement],
            cwd="/",
            capture_output=True,
            timeout=30,
            **other,
        )
    finally:
        folder.chmod(0o755)
        (folder / "users.db").chmod(0o644)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


@pytest.mark.parametrize("arguments", [(), ("--replace",)], ids=" ".join)
@pytest.mark.parametrize("bad", [False, True], ids=["good", "some rejected"])
def test_readers_without_permission_to_write_can_open_what_was_loaded(
    here: Run, tmp_path: Path, shared: Path, arguments: tuple[str, ...], bad: bool
) -> None:
    if bad:
        with open(tmp_path / "users.csv", "a", encoding="utf-8") as file:
            file.write("4,,\n")
    for _ in range(2):  # a new database, and one that was there
        load(here, "--users", "users.csv", "--db", str(shared), *arguments)
        assert [path.name for path in shared.iterdir()] == ["users.db"]
        assert read_without_permission(shared, "SELECT count(*) FROM users") == "[(3,)]"


KINDS = ["inserted", "unchanged", "rejected", "refused", "verify", "dry run", "program"]


@pytest.mark.parametrize(
    "mode, kind", [*some(14, ["DELETE", "WAL"], KINDS), *some(1, ["TRUNCATE"], KINDS), *some(1, ["PERSIST"], KINDS)]
)
def test_the_journal_mode_is_what_it_was(here: Run, tmp_path: Path, mode: str, kind: str) -> None:
    load(here, *ALL)
    database = tmp_path / "users.db"
    execute(
        database,
        f"PRAGMA journal_mode = {mode}",
        "UPDATE users SET name = name",
        *(["CREATE TABLE x (y)", "DROP TABLE users"] if kind == "refused" else []),
    )
    before = journal_mode(database)
    assert before == ("wal" if mode == "WAL" else "delete")
    id_, name = {"unchanged": (1, "Ada"), "rejected": (1, "Other")}.get(kind, (9, "New"))
    (tmp_path / "users.csv").write_text(f"id,name,email\n{id_},{name},{name.lower()}@example.com\n", encoding="utf-8")
    if kind == "program":
        import distributed_inserts

        with distributed_inserts.open_databases(str(tmp_path)) as shop:
            assert shop.insert("users", {"id": 9, "name": "New", "email": "new@example.com"}).verdict == "inserted"
            assert shop.find("users", 9)
    else:
        here(*(["--verify"] if kind == "verify" else ["--users", "users.csv", *(["-n"] if kind == "dry run" else [])]))
    assert journal_mode(database) == before
    assert [path.name for path in tmp_path.glob("users.db?*") if not path.name.endswith("-journal")] == []


def test_a_new_file_ends_without_a_log_beside_it(here: Run, tmp_path: Path) -> None:
    load(here, *ALL)
    assert sorted(path.name for path in tmp_path.glob("*.db*")) == ["orders.db", "products.db", "users.db"]
    assert {journal_mode(tmp_path / f"{model}.db") for model in MODELS} == {"delete"}


def test_somebody_else_who_is_connected_keeps_reading_and_the_load_is_whole(run: Run, tmp_path: Path) -> None:
    run(*ALL)
    with contextlib.closing(sqlite3.connect(tmp_path / "users.db", isolation_level=None)) as reader:
        assert reader.execute("SELECT count(*) FROM users").fetchone() == (3,)
        (tmp_path / "users.csv").write_text("id,name,email\n7,New,new@example.com\n", encoding="utf-8")
        assert run("--users", "users.csv").returncode == 0
        assert reader.execute("SELECT count(*) FROM users").fetchone() == (4,)
        reader.execute("PRAGMA journal_mode = WAL")  # in which who reads is in nobody's way
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM users").fetchone() == (4,)
        result = run("--users", "users.csv", "--busy-timeout", "2")
        assert result.returncode == 0 and "unchanged" in result.stdout
    assert stored(tmp_path / "users.db", "users") == [*RECORDS["users"], (7, "New", "new@example.com")]


# ---------------------------------------------------------------------------------------- Stored text that is not UTF-8


LATIN = "CAST(X'416E6472E9' AS TEXT)"  # André, as Latin-1 has it


@pytest.mark.parametrize("size", ["7", "1000"])
@pytest.mark.parametrize("column", ["name", "email"])
@pytest.mark.parametrize(
    "value",
    [LATIN, "CAST(X'FF00FE' AS TEXT)", "X'416E6472E9'", "NULL", "5", "CAST(X'EDA080' AS TEXT)"],
    ids=["latin-1", "NUL", "blob", "NULL", "number", "surrogate"],
)
def test_a_stored_text_that_is_no_text_fails_nothing_but_a_comparison_with_itself(
    here: Run, tmp_path: Path, value: str, column: str, size: str
) -> None:
    load(here, *ALL)
    execute(tmp_path / "users.db", f"UPDATE users SET {column} = {value} WHERE id = 1")
    lines = [f"{number},User{number},user{number}@example.com\n" for number in range(4, 60)]
    (tmp_path / "users.csv").write_text(
        "id,name,email\n"
        + "".join(lines[:28])
        + "1,Ada,ada@example.com\n"
        + "".join(lines[28:])
        + "2,Bo,BO@example.com\n"
        "70,Zoe,ZOË@example.com\n",
        encoding="utf-8",
    )
    status, verdicts, said = load(here, "--users", "users.csv", "--batch-size", size)
    assert (
        verdicts["users"] == ["inserted"] * 28 + ["rejected"] + ["inserted"] * 28 + ["unchanged", "rejected"]
        and status == 1
    )
    assert '"field":"id","code":"conflict"' in said and column in said
    assert execute(tmp_path / "users.db", "SELECT count(*) FROM users") == [(3 + 56,)]


def test_a_product_whose_stored_name_is_no_text_is_like_that(here: Run, tmp_path: Path) -> None:
    load(here, *ALL)
    execute(
        tmp_path / "products.db",
        f"INSERT INTO products VALUES (8, {LATIN}, 2.0), (9, {LATIN.replace('41', '61')}, 3.0)",
    )
    (tmp_path / "products.csv").write_text("id,name,price\n5,André,1\n6,Andr,1\n8,André,2\n", encoding="utf-8")
    status, verdicts, _ = load(here, "--products", "products.csv")
    assert (status, verdicts["products"]) == (1, ["inserted", "inserted", "rejected"])
    (tmp_path / "orders.csv").write_text("id,user_id,product_id,quantity\n8,1,8,1\n", encoding="utf-8")
    assert load(here, "--orders", "orders.csv")[1]["orders"] == ["inserted"]


def test_a_stored_text_that_is_no_text_can_be_replaced_and_found(here: Run, tmp_path: Path) -> None:
    load(here, *ALL)
    execute(tmp_path / "users.db", f"UPDATE users SET name = {LATIN} WHERE id = 1")
    import distributed_inserts

    with distributed_inserts.open_databases(str(tmp_path)) as shop:
        assert shop.find("users", 1)["email"] == "ada@example.com"
        assert shop.insert("users", {"id": 7, "name": "New", "email": "new@example.com"}).verdict == "inserted"
    assert here("--verify").returncode == 1
    assert load(here, "--users", "users.csv", "--replace")[1]["users"] == ["replaced", "unchanged", "unchanged"]
    assert (
        rows(tmp_path / "users.db") == [*RECORDS["users"], (7, "New", "new@example.com")]
        and here("--verify").returncode == 0
    )


@pytest.mark.parametrize(("model", "columns", "row"), [
    ("products", "id INTEGER PRIMARY KEY, name, price", "50, 5, 1.0"),
    ("users", "id INTEGER PRIMARY KEY, name TEXT, email TEXT", "50, 'Z', CAST('zoë@x.org' AS BLOB)"),
    ("users", "id INT PRIMARY KEY, name TEXT, email TEXT", "x'01', 'Z', 'z@x.org'"),
])
def test_a_stored_value_of_another_type_fails_nothing(
    here: Run, tmp_path: Path, model: str, columns: str, row: str
) -> None:
    execute(tmp_path / f"{model}.db", f"CREATE TABLE {model} ({columns})", f"INSERT INTO {model} VALUES ({row})")
    text = {"users": "id,name,email\n1,5,a@x.org\n2,Zoë,zoë@x.org\n", "products": "id,name,price\n1,5,1\n2,Pen,2\n"}
    (tmp_path / "new.csv").write_text(text[model], encoding="utf-8")
    for flags in (["-n"], []):
        assert load(here, f"--{model}", "new.csv", *flags)[:2] == (0, {model: ["inserted"] * 2})
    (tmp_path / "new.csv").write_text("id,name,email\n3,Z,Z@x.org\n")
    if "INT PRIMARY" in columns:
        assert load(here, "--users", "new.csv")[:2] == (1, {"users": ["rejected"]})


@pytest.mark.parametrize("conflict", ["IGNORE", "REPLACE"])
def test_triggers_keep_their_own_conflict_clauses(here: Run, tmp_path: Path, conflict: str) -> None:
    execute(tmp_path / "users.db", "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, email TEXT)",
            "CREATE TABLE seen (what TEXT PRIMARY KEY)",
            *(f"CREATE TRIGGER t{each} AFTER {each} ON users BEGIN INSERT OR {conflict} INTO seen VALUES ('{each}'); END"
              for each in ("INSERT", "UPDATE")))
    assert load(here, "--users", "users.csv")[:2] == (0, {"users": ["inserted"] * 3})
    text = (tmp_path / "users.csv").read_text(encoding="utf-8")
    (tmp_path / "users.csv").write_text(text.replace("@example.com", "@x.org"), encoding="utf-8")
    assert load(here, "--users", "users.csv", "--replace")[:2] == (0, {"users": ["replaced"] * 3})


def test_ids_and_names_that_are_none_fail_nothing_and_are_shown_as_sql_has_them(run: Run, tmp_path: Path) -> None:
    execute(tmp_path / "users.db", "CREATE TABLE users (id INT PRIMARY KEY, name TEXT, email TEXT)",
            "INSERT INTO users VALUES ('abc', 'Y', 'y@example.com'), (NULL, x'416e6e', 'z@example.com')")
    (tmp_path / "users.csv").write_text("id,name,email\n1,Ann,a@example.com\n")
    assert run("--users", "users.csv", cwd=tmp_path).returncode == 0
    told = run("--verify", cwd=tmp_path).stdout
    assert "users.db id null: name: is x'416e6e', not a text" in told and 'id "abc"' in told and "1 sound, 2 broken" in told
