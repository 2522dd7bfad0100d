"""The declarations: what is refused, what follows from them, and a fourth model that is one declaration and nothing else."""
from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from conftest import rows
from loads import PROGRAM, TIMEOUT_S, imported

program = imported()
Field, Kind, Schema, SCHEMAS = program.Field, program.Kind, program.Schema, program.SCHEMAS
ID = Field("id", Kind.ID)

# The one declaration: Python text, as it is put into a copy of the module and as it is evaluated here.
DECLARATION = """\
    Schema("reviews", "review", (
        Field("id", Kind.ID),
        Field("order_id", Kind.REFERENCE, references="orders"),
        Field("user_id", Kind.REFERENCE, references="users"),
        Field("title", Kind.TEXT, unique=True),
        Field("stars", Kind.COUNT),
        Field("price", Kind.PRICE),
        Field("contact", Kind.EMAIL, unique=True),
    )),
"""
REVIEWS = eval(DECLARATION.strip().rstrip(","), vars(program))
COLUMNS = {
    "users": [("id", "INTEGER", 1), ("name", "TEXT", 0), ("email", "TEXT", 0)],
    "products": [("id", "INTEGER", 1), ("name", "TEXT", 0), ("price", "REAL", 0)],
    "orders": [("id", "INTEGER", 1), ("user_id", "INTEGER", 0), ("product_id", "INTEGER", 0), ("quantity", "INTEGER", 0)],
    "reviews": [("id", "INTEGER", 1), ("order_id", "INTEGER", 0), ("user_id", "INTEGER", 0), ("title", "TEXT", 0),
                ("stars", "INTEGER", 0), ("price", "REAL", 0), ("contact", "TEXT", 0)],
}

# -------------------------------------------------------------------------------------------------- Declarations


@pytest.mark.parametrize("declared", [
    ("a b", "note", (ID,)), ("notes", "a note", (ID,)), ('no"tes', "note", (ID,)), ("", "note", (ID,)), ("nötes", "note", (ID,)),
    ("notes", "note", (ID, Field("a-b", Kind.TEXT))), ("notes", "note", (ID, Field("x); DROP TABLE users; --", Kind.TEXT))),
    ("notes", "note", ()), ("notes", "note", (Field("text", Kind.TEXT),)), ("notes", "note", (Field("text", Kind.TEXT), ID)),
    ("notes", "note", (Field("number", Kind.ID),)), ("notes", "note", (Field("id", Kind.COUNT),)),
    ("notes", "note", (ID, Field("stars", Kind.COUNT, unique=True))), ("notes", "note", (ID, Field("cost", Kind.PRICE, unique=True))),
    ("notes", "note", (ID, Field("text", Kind.TEXT), Field("text", Kind.TEXT))), ("notes", "note", (ID, Field("number", Kind.ID))),
    ("notes", "note", (ID, Field("text", Kind.TEXT), Field("TEXT", Kind.TEXT))),
    ("notes", "note", (ID, Field("user_id", Kind.REFERENCE))), ("notes", "note", (ID, Field("name", Kind.TEXT, references="users"))),
], ids=lambda declared: f"{declared[0]}({', '.join(each.name for each in declared[2])})")
def test_a_declaration_that_could_not_be_kept_is_refused(declared: tuple) -> None:
    with pytest.raises(ValueError):
        Schema(*declared)


@pytest.mark.parametrize(("schemas", "message"), [
    ((*SCHEMAS, SCHEMAS[0]), "users"), ((SCHEMAS[2], *SCHEMAS[:2]), "orders.user_id"), ((REVIEWS,), "reviews.order_id"),
    ((Schema("notes", "note", (ID, Field("reply_to", Kind.REFERENCE, references="notes"))),), "notes.reply_to"),
], ids=["twice", "child first", "no parent", "itself"])
def test_a_schema_refers_only_to_those_before_it_and_is_there_once(schemas: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        program.check_schemas(schemas)


def test_the_models_are_the_contracts() -> None:
    program.check_schemas(SCHEMAS)
    assert [(schema.table, schema.database, schema.names) for schema in SCHEMAS] == [
        ("users", "users.db", ("id", "name", "email")), ("products", "products.db", ("id", "name", "price")),
        ("orders", "orders.db", ("id", "user_id", "product_id", "quantity"))]
    assert [[each.name for _, each in schema.unique] for schema in SCHEMAS] == [["email"], ["name"], []]
    assert [[(each.name, each.references) for _, each in schema.references] for schema in SCHEMAS] == [
        [], [], [("user_id", "users"), ("product_id", "products")]]


# ------------------------------------------------------------------------------------------------ A fourth model

Main = Callable[..., tuple[int, str]]


@pytest.fixture(params=["here", "copy"])
def main(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Main:
    """Return a function that runs the program with four models in an empty folder: status, and output of both kinds.

    Once in this process, and once as a copy of the module's text into which nothing but the declaration was put.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("PYTHONUTF8", "1")
    monkeypatch.setattr(program, "SCHEMAS", (*SCHEMAS, REVIEWS))

    def main_here(*arguments: str) -> tuple[int, str]:
        try:
            status = program.main(arguments)
        except SystemExit as end:
            status = end.code
        return status, "".join(capsys.readouterr())

    def main_of_copy(*arguments: str) -> tuple[int, str]:
        result = subprocess.run([sys.executable, "program.py", *arguments], capture_output=True, encoding="utf-8", timeout=TIMEOUT_S)
        return result.returncode, result.stdout + result.stderr

    if request.param == "copy":
        text, count = re.subn(r"(?ms)^(SCHEMAS\b.*?\n)(\)\n)", lambda found: found[1] + DECLARATION + found[2],
                              PROGRAM.read_text(encoding="utf-8"), count=1)
        assert count == 1
        (tmp_path / "program.py").write_text(text, encoding="utf-8")
        return main_of_copy
    return main_here


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Write a file of orders and one of reviews, whose users and products are the sample's; return their flags."""
    (tmp_path / "orders.csv").write_text("id,user_id,product_id,quantity\n11,1,1,1\n12,8,1,1\n", encoding="utf-8")
    (tmp_path / "reviews.csv").write_text("title,id,order_id,user_id,stars,price,contact\n" + "".join(f"{line}\n" for line in (
        "Fine,1,1,1,5,1.50,a@example.com",          # its order was stored before
        "Great,2,11,2,4,2,b@example.com",           # its order is loaded with it
        "ＦＩＮＥ,3,1,1,5,1,A@example.com",
        "Poor,4,12,3,0,-1,d@example",               # its order is refused in this load
        "Odd,5,99,8,1,1,e@example.com",
        "Great,2,11,2,4,2.0,b@example.com")), encoding="utf-8")
    return ["--orders", "orders.csv", "--reviews", "reviews.csv"]


def test_a_fourth_model_loads_with_references_uniqueness_report_and_summary(main: Main, files: list[str], tmp_path: Path) -> None:
    assert main()[0] == 0
    status, output = main(*files, "--json")
    *lines, last = map(json.loads, output.splitlines())
    found = {line["line"]: (line["verdict"], [(problem["field"], problem["code"]) for problem in line["problems"]])
             for line in lines if line["model"] == "reviews"}
    assert status == 1
    assert found == {
        2: ("inserted", []), 3: ("inserted", []),
        4: ("rejected", [("title", "not_unique"), ("contact", "not_unique")]),
        5: ("rejected", [("order_id", "no_such_reference"), ("stars", "not_positive"), ("price", "not_positive"),
                         ("contact", "not_email")]),
        6: ("rejected", [("order_id", "no_such_reference"), ("user_id", "no_such_reference")]),
        7: ("unchanged", [])}
    counts = last["summary"]["reviews"]
    assert [counts[name] for name in ("database", "read", "inserted", "unchanged", "rejected", "failed")] == ["reviews.db", 6, 2, 1, 3, 0]
    assert rows(tmp_path / "reviews.db") == [(1, 1, 1, "Fine", 5, 1.5, "a@example.com"), (2, 11, 2, "Great", 4, 2.0, "b@example.com")]

    status, output = main(*files, "--rejects", "refused")
    assert status == 1
    for line in ('reviews.csv:4: title: "ＦＩＮＥ" is already taken by review 1 [not_unique]',
                 "reviews.csv:5: order_id: 12 is not in orders.db (orders.csv:3 was rejected) [no_such_reference]",
                 "reviews.csv:6: user_id: 8 is not in users.db [no_such_reference]"):
        assert line in output
    assert re.search(r"^reviews\.db +6 +0 +3 +3 +0 ", output, re.MULTILINE)
    assert (tmp_path / "refused" / "reviews.csv").read_text(encoding="utf-8").splitlines()[0] == "title,id,order_id,user_id,stars,price,contact"
    assert len((tmp_path / "refused" / "reviews.csv").read_text(encoding="utf-8").splitlines()) == 4
    assert main("--verify")[0] == 0


def test_a_fourth_model_has_its_flag_and_its_line_in_the_help(main: Main) -> None:
    status, output = main("--help")
    assert status == 0
    assert "--reviews FILE" in output
    assert re.search(r"^ +reviews +reviews\.db +id, order_id, user_id, title, stars, price, contact$", output, re.MULTILINE)


def test_the_header_of_a_fourth_model_is_checked(main: Main, tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text("id,order_id,title,stars,price,contact\n", encoding="utf-8")
    status, output = main("--reviews", "reviews.csv")
    assert status == 2
    assert "user_id" in output and not (tmp_path / "reviews.db").exists()


@pytest.mark.parametrize("name", ["order", "values", "select", "group_by", "is_key", "unique", "unique_code", "check", "check_in", "references_to",
                                  "strict", "collate", "generated", "without", "trigger", "view"])
def test_a_name_may_be_a_word_of_sql(tmp_path: Path, name: str) -> None:
    schema = Schema(name, name, (ID, Field(f"{name}_id", Kind.COUNT), Field(name, Kind.TEXT, unique=True)))
    for id_ in (1, 2):
        with program.Table.for_writing(schema, str(tmp_path), program.Patience(1, program.Watch())) as table:
            table.begin()
            table.insert([[id_], [5], [f"Text {id_}"]])
            table.commit()
            assert table.find_holders(schema.fields[2], ["text 1"]) == {"text 1": 1}
    assert sqlite_rows(tmp_path / schema.database, f'SELECT * FROM "{name}"') == [(1, 5, "Text 1"), (2, 5, "Text 2")]


@pytest.mark.parametrize("name", ["notes.csv", "notes.jsonl", "notes.json"])
def test_a_declared_name_may_have_capitals(tmp_path: Path, name: str) -> None:
    record = '{"ID": 1, "TEXT": "x"}'
    (tmp_path / name).write_text({"notes.csv": "ID,TEXT\n1,x\n", "notes.jsonl": record, "notes.json": f"[{record}]"}[name], encoding="utf-8")
    source = program.Source(Schema("notes", "note", (ID, Field("Text", Kind.TEXT))), str(tmp_path / name))
    row, = next(source.blocks()).rows
    assert [row[pick] for pick in source.picks] == ["1", "x"]
    source.close()


# ------------------------------------------------------------------------------------------------- Stored tables


def sqlite_rows(database: Path, query: str) -> list[tuple]:
    """Return the answer of a database to a query."""
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.parametrize("schema", [*SCHEMAS, REVIEWS], ids=lambda schema: schema.table)
def test_a_stored_table_has_the_contracts_columns_and_decides_nothing(tmp_path: Path, schema: object) -> None:
    with program.Table.for_writing(schema, str(tmp_path), program.Patience(1, program.Watch())) as table:
        table.build_indexes()
    database = tmp_path / schema.database
    columns = sqlite_rows(database, f"PRAGMA table_xinfo({schema.table})")
    assert [(name, kind, key) for _, name, kind, _, _, key, _ in columns] == COLUMNS[schema.table]
    assert {(notnull, default, hidden) for _, _, _, notnull, default, _, hidden in columns} == {(0, None, 0)}
    assert {kind for kind, in sqlite_rows(database, "SELECT type FROM sqlite_master")} <= {"table", "index"}
    assert [name for _, name, unique, *_ in sqlite_rows(database, f"PRAGMA index_list({schema.table})") if unique] == []
    assert sqlite_rows(database, f"PRAGMA foreign_key_list({schema.table})") == []
    # What the application would refuse, the database takes.
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        marks = ",".join("?" * (len(schema.names) - 1))
        for id_, value in enumerate(["same", "same", None, b"", -1], start=1):
            connection.execute(f"INSERT INTO {schema.table} VALUES (?, {marks})", [id_] + [value] * (len(schema.names) - 1))
