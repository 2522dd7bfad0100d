"""The declarations: what follows from them, and a fourth model that is one declaration and nothing else."""
from __future__ import annotations

import ast
import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from conftest import Run, TIMEOUT_S, execute, rows
from loads import PROGRAM, imported

program = imported()
Field, Kind, Schema, SCHEMAS = program.Field, program.Kind, program.Schema, program.SCHEMAS
# The kinds by the fields of the three models that have them.
NAMES = {kind: f"Kind.{name}" for name, kind in vars(Kind).items()}
KINDS = {f"{schema.table}.{field.name}": NAMES[field.kind] for schema in SCHEMAS for field in schema.fields}
ID, REFERENCE, COUNT = KINDS["users.id"], KINDS["orders.user_id"], KINDS["orders.quantity"]
TEXT, PRICE, EMAIL = KINDS["users.name"], KINDS["products.price"], KINDS["users.email"]
# The one declaration: Python text, as it is put into a copy of the program.
DECLARATION = f"""\
Schema("reviews", "review", (
        Field("id", {ID}),
        Field("order_id", {REFERENCE}, references="orders"),
        Field("user_id", {REFERENCE}, references="users"),
        Field("title", {TEXT}, unique=True),
        Field("stars", {COUNT}),
        Field("price", {PRICE}),
        Field("contact", {EMAIL}, unique=True),
    ))"""
COLUMNS = {
    "users": [("id", "INTEGER", 1), ("name", "TEXT", 0), ("email", "TEXT", 0)],
    "products": [("id", "INTEGER", 1), ("name", "TEXT", 0), ("price", "REAL", 0)],
    "orders": [("id", "INTEGER", 1), ("user_id", "INTEGER", 0), ("product_id", "INTEGER", 0),
               ("quantity", "INTEGER", 0)],
    "reviews": [("id", "INTEGER", 1), ("order_id", "INTEGER", 0), ("user_id", "INTEGER", 0), ("title", "TEXT", 0),
                ("stars", "INTEGER", 0), ("price", "REAL", 0), ("contact", "TEXT", 0)]}


def test_the_models_are_the_specifications() -> None:
    assert {schema.table: [(field.name, field.unique, field.references) for field in schema.fields]
            for schema in SCHEMAS} == {
        "users": [("id", False, None), ("name", False, None), ("email", True, None)],
        "products": [("id", False, None), ("name", True, None), ("price", False, None)],
        "orders": [("id", False, None), ("user_id", False, "users"), ("product_id", False, "products"),
                   ("quantity", False, None)]}
    assert [schema.record for schema in SCHEMAS] == ["user", "product", "order"]


# ------------------------------------------------------------------------------------------------ A fourth model

Main = Callable[..., tuple[int, str, str]]


def with_one_more(text: str, declaration: str) -> str:
    """Return the program's text with one more declaration behind the last of SCHEMAS, and nothing else."""
    tree = ast.parse(text)
    assignment = next(node for node in tree.body if isinstance(node, (ast.Assign, ast.AnnAssign))
                      and ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target) == "SCHEMAS")
    last = next(node for node in ast.walk(assignment.value) if isinstance(node, (ast.Tuple, ast.List))).elts[-1]
    lines = text.encode().splitlines(keepends=True)
    cut = sum(map(len, lines[:last.end_lineno - 1])) + last.end_col_offset
    return (text.encode()[:cut] + f",\n    {declaration}".encode() + text.encode()[cut:]).decode()


@pytest.fixture
def main(tmp_path: Path) -> Main:
    """Return a function that runs a copy of the program with four models: exit status, output and error."""
    (tmp_path / "program.py").write_text(with_one_more(PROGRAM.read_text(encoding="utf-8"), DECLARATION),
                                         encoding="utf-8")

    def run_copy(*arguments: str) -> tuple[int, str, str]:
        result = subprocess.run([sys.executable, "-X", "utf8", "program.py", *arguments], cwd=tmp_path,
                                capture_output=True, encoding="utf-8",
                                timeout=TIMEOUT_S)
        assert "Traceback" not in result.stderr
        return result.returncode, result.stdout, result.stderr

    return run_copy


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Write a file of orders and one of reviews, whose users and products are the sample's; return their flags."""
    (tmp_path / "orders.csv").write_text("id,user_id,product_id,quantity\n11,1,1,1\n12,8,1,1\n", encoding="utf-8")
    (tmp_path / "reviews.csv").write_text("title,id,order_id,user_id,stars,price,contact\n" + "".join(f"{line}\n"
        for line in (
        "Fine,1,1,1,5,1.50,a@example.com",          # its order was stored before
        "Great,2,11,2,4,2,b@example.com",           # its order is loaded with it
        "FINE,3,1,1,5,1,A@example.com",
        "Poor,4,12,3,0,-1,d@example",               # its order is rejected in this load
        "Odd,5,99,8,1,1,e@example.com",
        "Great,2,11,2,4,2.0,b@example.com")), encoding="utf-8")
    return ["--orders", "orders.csv", "--reviews", "reviews.csv"]


def test_a_fourth_model_loads_with_references_uniqueness_rules_and_summary(main: Main, files: list[str],
                                                                           tmp_path: Path) -> None:
    assert main("-q")[0] == 0
    status, output, error = main(*files, "--json")
    *lines, last = map(json.loads, output.splitlines())
    found = {line["line"]: (line["verdict"], [(problem["field"], problem["code"]) for problem in line["problems"]])
             for line in lines if line["model"] == "reviews"}
    assert (status, error) == (1, "")
    assert {line: (verdict, sorted(problems)) for line, (verdict, problems) in found.items()} == {
        2: ("inserted", []), 3: ("inserted", []), 4: ("rejected", [("contact", "not_unique"), ("title", "not_unique")]),
        5: ("rejected", [("contact", "not_email"), ("order_id", "no_such_reference"), ("price", "not_positive"),
                         ("stars", "not_positive")]),
        6: ("rejected", [("order_id", "no_such_reference"), ("user_id", "no_such_reference")]), 7: ("unchanged", [])}
    counts = last["summary"]["reviews"]
    assert list(last["summary"]) == ["orders", "reviews"]
    assert [counts[name] for name in ("database", "read", "inserted", "unchanged", "rejected",
                                      "failed")] == ["reviews.db", 6, 2, 1, 3, 0]
    assert rows(tmp_path, "reviews") == [(1, 1, 1, "Fine", 5, 1.5, "a@example.com"),
                                         (2, 11, 2, "Great", 4, 2.0, "b@example.com")]
    (tmp_path / "reviews.csv").write_text(
        "id,order_id,user_id,title,stars,price,contact\n1,1,1,Fine,2,1.5,a@example.com\n", encoding="utf-8")
    assert main("--reviews", "reviews.csv", "--replace")[0] == 0
    assert rows(tmp_path, "reviews")[0] == (1, 1, 1, "Fine", 2, 1.5, "a@example.com")


def test_a_fourth_model_is_reported_and_gives_its_rejects_back(main: Main, files: list[str], tmp_path: Path) -> None:
    main("-q")
    status, output, _ = main(*files, "--rejects", "rejects")
    told = " ".join(output.split())
    assert status == 1
    for words in ('reviews.csv:4: title: "FINE" is already taken by review 1',
                  "reviews.csv:5: stars: 0 is not greater than 0 [not_positive]",
                  "reviews.csv:5: order_id: 12 is not in orders.db (orders.csv:3 was rejected) [no_such_reference]",
                  "reviews.csv:6: user_id: 8 is not in users.db [no_such_reference]"):
        assert words in told
    assert re.search(r"^reviews\.db +6 +2 ", output, re.MULTILINE)
    rejected = (tmp_path / "rejects" / "reviews.csv").read_text(encoding="utf-8").splitlines()
    assert rejected[0] == "title,id,order_id,user_id,stars,price,contact" and len(rejected) == 4


def test_a_fourth_model_is_verified(main: Main, files: list[str], tmp_path: Path) -> None:
    main("-q")
    main(*files, "-q")
    assert main("--verify")[0] == 0
    execute(tmp_path / "reviews.db", "INSERT INTO reviews VALUES (9, 77, 1, 'fine', 1, 1, 'x@example.com')")
    status, output, _ = main("--verify", "--json")
    assert status == 1
    broken, = [line for line in map(json.loads, output.splitlines()[:-1]) if line["problems"]]
    assert (broken["model"], broken["id"]) == ("reviews", 9)
    assert {(problem["field"], problem["code"]) for problem in broken["problems"]} == {("order_id",
                                                                                        "no_such_reference"),
                                                                                        ("title", "not_unique")}


def test_a_fourth_model_has_its_flag_and_its_rules_in_the_help(main: Main) -> None:
    status, output, _ = main("--help")
    assert status == 0
    assert "--reviews FILE" in output
    assert max(map(len, output.splitlines())) <= 80
    rules = output[output.rindex("reviews"):] if "reviews.db" not in output else output[output.index("reviews"):]
    assert all(re.search(rf"\b{name}\b", output) for name in ("order_id", "stars", "contact")) and rules


def test_the_header_of_a_fourth_model_is_checked_and_told_from_others(main: Main, tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text("id,order_id,title,stars,price,contact\n", encoding="utf-8")
    status, _, error = main("--reviews", "reviews.csv")
    assert status == 2 and "user_id" in error and not (tmp_path / "reviews.db").exists()
    (tmp_path / "reviews.csv").write_text("id,order_id,user_id,title,stars,price,contact\n", encoding="utf-8")
    status, _, error = main("--products", "reviews.csv")
    assert status == 2 and "reviews" in error.replace("reviews.csv", "")


# -------------------------------------------------------------------------------------- Models of another program


def declare(text: str) -> object:
    """Return the schema that a declaration makes."""
    return eval(text, vars(program))


def test_another_program_may_have_a_fourth_model_too(tmp_path: Path) -> None:
    review = {"id": 1, "order_id": 1, "user_id": 1, "title": "Fine", "stars": 5, "price": "1.50",
              "contact": "a@example.com"}
    with program.open_databases(str(tmp_path), schemas=(*SCHEMAS, declare(DECLARATION))) as databases:
        outcome = databases.insert("reviews", review)
        assert (outcome.verdict, sorted((problem.field, problem.code) for problem in outcome.problems)) == (
            "rejected", [("order_id", "no_such_reference"), ("user_id", "no_such_reference")])
        for model, record in (("users", {"id": 1, "name": "Ann", "email": "ann@example.com"}),
                              ("products", {"id": 1, "name": "Desk", "price": 5}),
                              ("orders", {"id": 1, "user_id": 1, "product_id": 1, "quantity": 1}), ("reviews", review)):
            assert databases.insert(model, record).verdict == "inserted"
        outcome = databases.insert("reviews", {**review, "id": 2, "title": "FINE", "contact": "b@example.com"})
        assert [(problem.field, problem.code) for problem in outcome.problems] == [("title", "not_unique")]
        assert databases.find("reviews", 1) == {**review, "price": 1.5}


@pytest.mark.parametrize("name", ["order", "values", "select", "group_by", "references", "trigger"])
def test_a_name_may_be_a_word_of_sql(tmp_path: Path, name: str) -> None:
    fields = f'Field("id", {ID}), Field("check", {COUNT}), Field("{name}", {TEXT}, unique=True)'
    schema = declare(f'Schema("{name}", "{name}", ({fields}))')
    with program.open_databases(str(tmp_path), schemas=(schema,)) as databases:
        assert databases.insert(name, {"id": 1, "check": 5, name: "Text 1"}).verdict == "inserted"
        assert databases.insert(name, {"id": 2, "check": 5, name: "TEXT 1"}).problems[0].code == "not_unique"
        assert databases.insert(name, {"id": 1, "check": 6, name: "Text 1"}, replace=True).verdict == "replaced"
        assert databases.find(name, 1) == {"id": 1, "check": 6, name: "Text 1"}


# ------------------------------------------------------------------------------------------------- Stored tables


def check_table(folder: Path, model: str) -> None:
    """Fail unless a table has the specification's columns and decides nothing."""
    database = folder / f"{model}.db"
    columns = execute(database, f"PRAGMA table_xinfo({model})")
    assert [(name, kind, key) for _, name, kind, _, _, key, _ in columns] == COLUMNS[model]
    assert {(notnull, default, hidden) for _, _, _, notnull, default, _, hidden in columns} == {(0, None, 0)}
    assert {kind for kind, in execute(database, "SELECT type FROM sqlite_master")} <= {"table", "index"}
    assert [name for _, name, unique, *_ in execute(database, f"PRAGMA index_list({model})") if unique] == []
    assert execute(database, f"PRAGMA foreign_key_list({model})") == []
    # What the application would reject, the database takes.
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        marks = ",".join("?" * (len(columns) - 1))
        for id_, value in enumerate(["same", "same", None, b"", -1], start=1001):
            connection.execute(f"INSERT INTO {model} VALUES (?, {marks})", [id_] + [value] * (len(columns) - 1))


def test_a_stored_table_has_the_specifications_columns_and_decides_nothing(here: Run, tmp_path: Path) -> None:
    here("-q")
    for model in ("users", "products", "orders"):
        check_table(tmp_path, model)


def test_so_has_that_of_a_fourth_model(main: Main, files: list[str], tmp_path: Path) -> None:
    main("-q")
    main(*files, "-q")
    check_table(tmp_path, "reviews")
