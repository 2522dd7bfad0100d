"""Table: one schema's table in a real file, found by id and by key, synced, refused when it is another's, and never lost in silence."""
from __future__ import annotations

import os
import sqlite3
import unicodedata
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from conftest import rows
from loads import TIMEOUT_S, imported, locked

program = imported()
USERS, PRODUCTS, ORDERS = program.SCHEMAS
EMAIL, NAME = USERS.fields[2], PRODUCTS.fields[1]
ERRORS = program.STORAGE_ERRORS
CREATED = "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, email TEXT)"
MODES = ("for_writing", "for_trial", "for_reading")
is_root = hasattr(os, "geteuid") and os.geteuid() == 0


def opened(mode: str, folder: Path, schema: object = USERS, timeout_s: float = 5) -> object:
    """Return the table of a schema, opened in one of the modes."""
    return getattr(program.Table, mode)(schema, str(folder), program.Patience(timeout_s, program.Watch()))


def fill(folder: Path, *records: tuple, schema: object = USERS) -> None:
    """Store records through a table of their own."""
    with opened("for_writing", folder, schema) as table:
        table.begin()
        table.insert(list(zip(*records)))
        table.build_indexes()
        table.commit()


def users(*ids: int) -> list[tuple]:
    """Return a user for every id."""
    return [(id_, f"User {id_}", f"User{id_}@example.com") for id_ in ids]


def execute(database: Path, *statements: str) -> None:
    """Run statements on a database as somebody else would."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[sqlite3.Connection]:
    """Return the list of all connections that are made from now on."""
    made: list[sqlite3.Connection] = []
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *arguments, **options: made.append(connect(*arguments, **options)) or made[-1])
    return made


# ------------------------------------------------------------------------------------------------ Rows by id, by key


@pytest.mark.parametrize("mode", MODES)
def test_records_are_found_by_id(tmp_path: Path, mode: str) -> None:
    ids = [*range(1, 5000, 2), 2**63 - 1]
    fill(tmp_path, *users(*ids))
    with opened(mode, tmp_path) as table:
        assert table.find_rows(range(4000)) == {user[0]: user for user in users(*range(1, 4000, 2))}
        assert table.find_ids(range(-5, 6000)) == set(ids[:-1])
        assert table.find_ids([2**63 - 1, 2, -1]) == {2**63 - 1}
        assert (table.find_ids([]), table.find_rows([]), table.find_ids([4]), table.find_rows([4])) == (set(), {}, set(), {})
        assert table.last_id() == 2**63 - 1


@pytest.mark.parametrize("count", [1, 2, 3, 248, 249, 250, 332, 333, 334, 335, 998, 999, 1000, 1001, 5000])
@pytest.mark.parametrize("schema", [USERS, ORDERS], ids=lambda schema: schema.table)
def test_any_number_of_records_is_inserted_in_one_call(tmp_path: Path, schema: object, count: int) -> None:
    records = [(id_, id_ + 1, id_ + 2, id_ + 3) for id_ in range(count, 0, -1)] if schema is ORDERS else users(*range(count, 0, -1))
    fill(tmp_path, *records, schema=schema)
    assert rows(tmp_path / schema.database) == records[::-1]
    with opened("for_reading", tmp_path, schema) as table:
        assert table.find_rows(range(1, count + 1)) == {record[0]: record for record in records}


# Texts that are stored, each with others that are the same to `unique_key`.
REGULAR = [("Laptop", "LAPTOP", "laptop", "ｌａｐｔｏｐ"), ("Gaming Chair", "gaming chair", "GAMING  CHAIR", "Gaming\u00a0Chair"), ("Kelvin", "\u212aELVIN"),
           ("it's 100% \"x\" ; -- [a] *?_", "IT'S 100% \"X\" ; -- [A] *?_"), ("office", "oﬃce", "OFFICE"), ("strasse", "straße", "STRASSE"), ("~", "～"),
           ("5", "５")]
IRREGULAR = [("Zoë", "ZOË", "Zoe\u0308"), ("Maße", "MASSE", "masse"), ("\u212aarl", "karl", "KARL"), ("Full  Width", "full width", "FULL WIDTH"),
             ("ＡＢＣ", "abc", "ABC"), ("李小龍", "李小龍"), ("ΣΊΣΥΦΟΣ", "σίσυφος"), ("a\u2028b", "A b"), ("ǅ", "dž"), ("a\u200bb", "A\u200bB"), ("🙂", "🙂")]


@pytest.mark.parametrize("mode", ["for_writing", "for_trial"])
def test_records_are_found_by_unique_key_whatever_the_form_of_the_text(tmp_path: Path, mode: str) -> None:
    texts = [group[0] for group in REGULAR + IRREGULAR]
    fill(tmp_path, *((id_, text, 1.0) for id_, text in enumerate(texts, start=1)), schema=PRODUCTS)
    with opened(mode, tmp_path, PRODUCTS) as table:
        for id_, group in enumerate(REGULAR + IRREGULAR, start=1):
            for text in group:
                key = program.unique_key(text)
                found = {**table.irregular_holders(NAME), **table.find_holders(NAME, [key])}
                assert found.get(key) == id_, ascii(text)
        keys = [program.unique_key(text) for text in texts]
        assert {**table.irregular_holders(NAME), **table.find_holders(NAME, keys)} == {key: id_ for id_, key in enumerate(keys, start=1)}
        assert table.find_holders(NAME, ["nobody", "zo", "lapto", "laptop "]) == {}
        assert table.find_holders(NAME, []) == {}
        assert table.irregular_holders(NAME).keys() == {program.unique_key(text) for text in texts if table.are_irregular([text])}


def test_a_reader_sees_what_is_stored_after_it_was_opened(tmp_path: Path) -> None:
    fill(tmp_path, *users(1))
    with opened("for_reading", tmp_path) as table:
        assert table.find_ids([1, 2]) == {1}
        fill(tmp_path, *users(2))
        assert table.find_ids([1, 2]) == {1, 2}
        assert [row[0] for part in table.scan(10) for row in part] == [1, 2]


@pytest.mark.parametrize("mode", ["for_trial", "for_reading"])
def test_a_reader_leaves_the_folder_as_it_was(tmp_path: Path, mode: str) -> None:
    fill(tmp_path, *users(*range(1, 50)))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with opened(mode, tmp_path) as table:
        assert table.find_ids([1, 99]) == {1}
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    fill(tmp_path, *users(1))
    with opened("for_reading", tmp_path) as table, pytest.raises(sqlite3.OperationalError):
        table.insert(list(zip(*users(2))))


def test_an_interrupt_breaks_the_building_of_an_index_off(tmp_path: Path) -> None:
    patience = program.Patience(5, program.Watch())
    with program.Table.for_writing(USERS, str(tmp_path), patience) as table:
        table.begin()
        table.insert(list(zip(*users(*range(1, 30_000)))))
        table.commit()
        patience.hurry_from = 0.0
        table.begin()
        with pytest.raises(sqlite3.OperationalError, match="interrupted"):
            table.build_indexes()
    assert len(rows(tmp_path / "users.db")) == 29_999


def test_regular_characters_are_what_they_are_in_every_form() -> None:
    regular = [chr(code) for code in range(0x20, 0x110000) if not program.IRREGULAR_TEXT.search(chr(code))]
    assert len(regular) > 30_000
    parts = {part for code in range(0x110000) if (form := unicodedata.decomposition(chr(code))) and "<" not in form
             for part in form.split()[1:]}                                                          # these may join what stands before them
    assert not parts & {f"{ord(character):04X}" for character in regular}
    for character in regular:
        assert unicodedata.normalize("NFKC", character) == character and unicodedata.combining(character) == 0
        assert program.unique_key(f"A{character}B") == f"a{character.lower() if character.isascii() else character}b".replace("  ", " ")


def test_many_keys_are_looked_up_in_one_call(tmp_path: Path) -> None:
    fill(tmp_path, *users(*range(1, 3000)))
    with opened("for_reading", tmp_path) as table:
        keys = [f"user{id_}@example.com" for id_ in range(2000, 5000)]
        assert table.find_holders(EMAIL, keys) == {f"user{id_}@example.com": id_ for id_ in range(2000, 3000)}


def test_look_ups_use_an_index(tmp_path: Path, connections: list[sqlite3.Connection]) -> None:
    fill(tmp_path, *users(*range(1, 2000)), (5000, "ZOË", "ZOË@example.com"))
    with opened("for_writing", tmp_path) as table:
        connection = connections[-1]
        for action, words in ((lambda: table.find_holders(EMAIL, ["user5@example.com", "x"]), "SEARCH users USING INDEX"),
                              (lambda: table.irregular_holders(EMAIL), "INDEX users_email_irregular"),
                              (lambda: table.find_rows([1, 5]), "SEARCH users USING INTEGER PRIMARY KEY"),
                              (lambda: table.find_ids([1, 5]), "SEARCH users USING INTEGER PRIMARY KEY"), (table.last_id, "SEARCH users")):
            statements: list[str] = []
            connection.set_trace_callback(statements.append)
            assert action()
            connection.set_trace_callback(None)
            statement, = statements
            with closing(sqlite3.connect(tmp_path / "users.db")) as other:
                plan = other.execute(f"EXPLAIN QUERY PLAN {statement}", ["x"] * statement.count("?")).fetchall()
            text = "; ".join(row[3] for row in plan).replace(" TABLE ", " ")        # as SQLite says before 3.36
            assert words.removeprefix("SEARCH users ") in text and ("SEARCH" in text) == ("SEARCH" in words), text


def test_all_records_are_scanned_in_the_order_of_their_ids(tmp_path: Path) -> None:
    fill(tmp_path, *users(5, 3, 1, 4, 2))
    with opened("for_reading", tmp_path) as table:
        for size, sizes in ((1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (9, [5])):
            parts = list(table.scan(size))
            assert list(map(len, parts)) == sizes and sum(parts, []) == users(1, 2, 3, 4, 5)


def test_a_stored_text_that_is_no_text_is_scanned_and_its_neighbours_too(tmp_path: Path) -> None:
    fill(tmp_path, *users(1, 2, 3))
    execute(tmp_path / "users.db", "UPDATE users SET name = CAST(x'41FF42' AS TEXT) WHERE id = 2", "UPDATE users SET email = x'00FF' WHERE id = 3")
    with opened("for_reading", tmp_path) as table:
        found = sum(table.scan(2), [])
    assert [row[0] for row in found] == [1, 2, 3]
    assert (found[1][1], found[2][2]) == ("A\udcffB", b"\x00\xff")


def test_values_reach_sql_as_values_only(tmp_path: Path) -> None:
    texts = ["'; DROP TABLE users; --", 'x"); DELETE FROM users; --', "?", ":name", "%s", "\\", "' OR 1=1 --", "NULL", "x" * 10**6]
    fill(tmp_path, *((id_, text, f"{text}@x") for id_, text in enumerate(texts, start=1)))
    assert [name for _, name, _ in rows(tmp_path / "users.db")] == texts
    with opened("for_writing", tmp_path) as table:
        for id_, text in enumerate(texts, start=1):
            assert table.find_holders(EMAIL, [program.unique_key(f"{text}@x")]) == {program.unique_key(f"{text}@x"): id_}


# --------------------------------------------------------------------------------------------------- Transactions


def test_a_commit_is_logged_ahead_and_synced(tmp_path: Path, connections: list[sqlite3.Connection]) -> None:
    for _ in range(2):                              # a new file, and an old one
        with opened("for_writing", tmp_path):
            values = {name: connections[-1].execute(f"PRAGMA {name}").fetchone()[0]
                      for name in ("journal_mode", "synchronous", "fullfsync", "checkpoint_fullfsync")}
            assert values == {"journal_mode": "wal", "synchronous": 2, "fullfsync": 1, "checkpoint_fullfsync": 1}


def test_a_database_with_another_journal_is_changed_to_the_log(tmp_path: Path, connections: list[sqlite3.Connection]) -> None:
    execute(tmp_path / "users.db", "PRAGMA journal_mode=DELETE", CREATED, "INSERT INTO users VALUES (1, 'Ann', 'a@b.c')")
    with opened("for_writing", tmp_path) as table:
        assert connections[-1].execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert table.find_ids([1]) == {1}


def test_what_was_committed_stays_and_what_was_not_is_undone(tmp_path: Path) -> None:
    fill(tmp_path, *users(1))
    with opened("for_writing", tmp_path) as table:
        table.begin()
        table.insert(list(zip(*users(2, 3))))
        assert table.find_ids([1, 2, 3]) == {1, 2, 3}
        with opened("for_reading", tmp_path) as reader:
            assert reader.find_ids([1, 2, 3]) == {1}
    assert rows(tmp_path / "users.db") == users(1)


def test_begin_tells_whether_another_connection_wrote(tmp_path: Path) -> None:
    with opened("for_writing", tmp_path) as table:
        told = []
        for write in (False, True, False):
            if write:
                execute(tmp_path / "users.db", "INSERT INTO users VALUES (9, 'Ann', 'a@b.c')")
            told.append(table.begin())
            table.insert(list(zip(*users(len(told)))))
            table.commit()
        assert list(map(bool, told)) == [False, True, False]


def test_a_writer_waits_for_the_other(tmp_path: Path) -> None:
    fill(tmp_path, *users(1))
    with opened("for_writing", tmp_path) as table, locked(tmp_path / "users.db") as release:
        timer = threading.Timer(0.3, release)
        timer.start()
        table.begin()
        table.insert(list(zip(*users(2))))
        table.commit()
        timer.join(TIMEOUT_S)
    assert rows(tmp_path / "users.db") == users(1, 2)


@pytest.mark.parametrize("mode", ["for_writing", "begin"])
def test_a_lock_that_stays_is_an_error_after_the_timeout(tmp_path: Path, mode: str) -> None:
    fill(tmp_path, *users(1))
    if mode == "begin":
        with opened("for_writing", tmp_path, timeout_s=0.2) as table, locked(tmp_path / "users.db"):
            with pytest.raises(ERRORS, match="locked"):
                table.begin()
            assert table.find_ids([1, 2]) == {1}    # readers do not wait
    else:
        with locked(tmp_path / "users.db", "BEGIN EXCLUSIVE"), pytest.raises(ERRORS, match="locked"):
            opened(mode, tmp_path, timeout_s=0.2)
    assert rows(tmp_path / "users.db") == users(1)


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be replaced there")
@pytest.mark.parametrize("replace", [
    lambda path: path.unlink(), lambda path: path.rename(path.with_name("gone.db")), lambda path: os.replace(path.with_name("other.db"), path),
    lambda path: [part.unlink() for part in path.parent.glob("users.db*")], lambda path: path.parent.rename(path.parent.with_name("moved")),
], ids=["deleted", "renamed", "replaced", "deleted with its log", "its folder renamed"])
def test_a_file_that_was_replaced_is_noticed_at_the_commit(tmp_path: Path, replace: Callable[[Path], object]) -> None:
    folder = tmp_path / "databases"
    folder.mkdir()
    (folder / "other.db").write_bytes(b"")
    with opened("for_writing", folder) as table:
        for id_ in (1, 2):
            table.begin()
            table.insert(list(zip(*users(id_))))
            if id_ == 2:
                replace(folder / "users.db")
                with pytest.raises(ERRORS):
                    table.commit()
            else:
                table.commit()


# ------------------------------------------------------------------------------------------------------- Refusals

FOREIGN = {
    "other columns": "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, mail TEXT)",
    "a column less": "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)",
    "a column more": CREATED.replace("email TEXT", "email TEXT, age INTEGER"),
    "another order": "CREATE TABLE users (name TEXT, id INTEGER PRIMARY KEY, email TEXT)",
    "another type": CREATED.replace("email TEXT", "email BLOB"), "no type": "CREATE TABLE users (id INTEGER PRIMARY KEY, name, email)",
    "no key": CREATED.replace(" PRIMARY KEY", ""), "another key": "CREATE TABLE users (id INTEGER, name TEXT PRIMARY KEY, email TEXT)",
    "two keys": "CREATE TABLE users (id INTEGER, name TEXT, email TEXT, PRIMARY KEY (id, name))",
    "a key that is no row id": CREATED.replace("INTEGER PRIMARY", "INT PRIMARY"),
    "UNIQUE": CREATED.replace("email TEXT", "email TEXT UNIQUE"), "UNIQUE at the end": CREATED.replace("email TEXT", "email TEXT, UNIQUE (name, email)"),
    "CHECK": CREATED.replace("email TEXT", "email TEXT CHECK (email LIKE '%@%')"), "NOT NULL": CREATED.replace("name TEXT", "name TEXT NOT NULL"),
    "DEFAULT": CREATED.replace("name TEXT", "name TEXT DEFAULT 'x'"), "REFERENCES": CREATED.replace("name TEXT", "name TEXT REFERENCES names(name)"),
    "FOREIGN KEY": CREATED.replace("email TEXT", "email TEXT, FOREIGN KEY (name) REFERENCES names(name)"),
    "COLLATE": CREATED.replace("email TEXT", "email TEXT COLLATE NOCASE"),
    "GENERATED": CREATED.replace("email TEXT", "email TEXT GENERATED ALWAYS AS (name)"), "WITHOUT ROWID": CREATED + " WITHOUT ROWID",
    "a view": "CREATE VIEW users AS SELECT 1 AS id, 'Ann' AS name, 'a@b.c' AS email",
    "another case": "CREATE TABLE Users (id INTEGER PRIMARY KEY, nom TEXT)",
    "a trigger": f"{CREATED}; CREATE TRIGGER t BEFORE INSERT ON users BEGIN SELECT RAISE(IGNORE); END",
    "a trigger after": f"{CREATED}; CREATE TRIGGER t AFTER INSERT ON users BEGIN DELETE FROM users; END",
    "a unique index": f"{CREATED}; CREATE UNIQUE INDEX i ON users (email)",
    "a unique index of a part": f"{CREATED}; CREATE  unique\nINDEX i ON users (lower(email)) WHERE id > 5",
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FOREIGN)
def test_a_table_that_is_not_ours_is_refused_and_left_alone(tmp_path: Path, name: str, mode: str) -> None:
    with closing(sqlite3.connect(tmp_path / "users.db")) as connection:
        connection.executescript(FOREIGN[name])
        before = list(connection.iterdump())
    with pytest.raises(ERRORS, match="users"):
        opened(mode, tmp_path)
    with closing(sqlite3.connect(tmp_path / "users.db")) as connection:
        assert list(connection.iterdump()) == before


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("statements", [
    (CREATED.replace("users", '"users"').replace("TEXT", "text"),), (CREATED.replace("CREATE TABLE users", "create  table\n[users]"),),
    (CREATED, "CREATE INDEX i ON users (name)"), (CREATED, "CREATE TABLE other (id INTEGER PRIMARY KEY, x TEXT UNIQUE NOT NULL CHECK (x > 1))"),
    (CREATED, "CREATE TABLE log (x)", "CREATE TRIGGER t AFTER INSERT ON log BEGIN DELETE FROM log; END", "CREATE UNIQUE INDEX i ON log (x)"),
    (CREATED, "CREATE VIEW names AS SELECT name FROM users"), ("PRAGMA page_size=512", CREATED), ("PRAGMA encoding='UTF-16'", CREATED),
], ids=lambda statements: statements[-1][:40])
def test_what_stands_beside_the_table_is_no_harm(tmp_path: Path, statements: tuple[str, ...], mode: str) -> None:
    execute(tmp_path / "users.db", *statements, "INSERT INTO users VALUES (1, 'Zoë', 'Zoë@b.c')")
    with opened(mode, tmp_path) as table:
        assert table.find_rows([1]) == {1: (1, "Zoë", "Zoë@b.c")}


NO_DATABASE = {"text": b"id,name,email\n" * 100, "bytes": bytes(range(256)) * 64, "a header alone": b"SQLite format 3\0" + b"\xff" * 4080,
               "a few bytes": b"SQLite format 3\0"}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NO_DATABASE)
def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, name: str, mode: str) -> None:
    (tmp_path / "users.db").write_bytes(NO_DATABASE[name])
    with pytest.raises(ERRORS):
        opened(mode, tmp_path)
    assert (tmp_path / "users.db").read_bytes() == NO_DATABASE[name]


@pytest.mark.parametrize("mode", MODES)
def test_a_folder_is_no_database(tmp_path: Path, mode: str) -> None:
    (tmp_path / "users.db").mkdir()
    with pytest.raises(ERRORS):
        opened(mode, tmp_path)


def test_no_folder_is_an_error_for_a_writer(tmp_path: Path) -> None:
    with pytest.raises(ERRORS):
        opened("for_writing", tmp_path / "nowhere")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(is_root or sys.platform == "win32", reason="needs a user who cannot write everywhere")
def test_a_read_only_folder_is_an_error_for_a_writer_and_none_for_a_reader(tmp_path: Path) -> None:
    fill(tmp_path, *users(1))
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ERRORS), opened("for_writing", tmp_path) as table:
            table.begin()
            table.insert(list(zip(*users(2))))
            table.commit()
        with opened("for_reading", tmp_path) as table:
            assert table.find_ids([1, 2]) == {1}
    finally:
        tmp_path.chmod(0o700)


# --------------------------------------------------------------------------------------------- Reading, trying out


@pytest.fixture(params=["plain", "a b", "100%", "%41?x=1#y", "é 李", "it's;--", 'q"uote', "a&mode=rwc", "file:x"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Return an empty folder whose name would mean something in a URI or a statement."""
    if sys.platform == "win32" and set(request.param) & set('?":'):
        pytest.skip("no such name there")
    path = tmp_path / request.param
    path.mkdir()
    return path


def test_reading_never_makes_a_file(folder: Path) -> None:
    assert opened("for_reading", folder) is None
    assert opened("for_reading", folder / "nowhere") is None
    assert not list(folder.iterdir())
    (folder / "users.db").write_bytes(b"")
    assert opened("for_reading", folder) is None
    assert (folder / "users.db").stat().st_size == 0


def test_a_reader_finds_what_a_writer_stored_and_cannot_write(folder: Path) -> None:
    fill(folder, *users(1, 2))
    with opened("for_reading", folder) as table:
        assert table.find_ids([1, 2, 3]) == {1, 2}
        with pytest.raises(ERRORS):
            table.insert(list(zip(*users(3))))
    assert rows(folder / "users.db") == users(1, 2)


def test_a_reader_sees_what_is_committed_while_it_is_open(tmp_path: Path) -> None:
    fill(tmp_path, *users(1))
    with opened("for_reading", tmp_path) as reader, opened("for_writing", tmp_path) as writer:
        for id_ in (2, 3):
            writer.begin()
            writer.insert(list(zip(*users(id_))))
            assert reader.find_ids([id_]) == set()
            writer.commit()
            assert reader.find_ids([id_]) == {id_}


def test_a_trial_starts_from_what_is_stored_and_leaves_no_trace(folder: Path) -> None:
    with opened("for_trial", folder) as table:
        assert table.last_id() == 0
    assert not list(folder.iterdir())
    fill(folder, *users(1, 2))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with opened("for_trial", folder) as table:
        table.begin()
        table.insert(list(zip(*users(3))))
        table.commit()
        assert table.find_ids([1, 2, 3]) == {1, 2, 3}
        assert table.find_holders(EMAIL, ["user1@example.com", "user3@example.com"]) == {"user1@example.com": 1, "user3@example.com": 3}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_an_interrupted_transaction_of_another_process_is_not_seen(tmp_path: Path) -> None:
    fill(tmp_path, *users(1))
    with locked(tmp_path / "users.db", "BEGIN IMMEDIATE") as release:
        with opened("for_reading", tmp_path) as table, opened("for_trial", tmp_path) as trial:
            assert table.find_ids([1]) == trial.find_ids([1]) == {1}
        release()
