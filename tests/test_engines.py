"""What holds of either engine: the same tests of the command and of `open_databases`, SQLite and PostgreSQL."""

from __future__ import annotations

import csv
import importlib
import json
import random
import shlex
from collections.abc import Iterable
from pathlib import Path

import pytest

from conftest import MODELS, SAMPLE, SAMPLE_PROBLEMS, Databases, write_users
from loads import Load, Outcome, check_summary, load_here, run_load, write_load

program = importlib.import_module("distributed_inserts")

UNIQUE = {"users": 2, "products": 1}


def load_into(databases: Databases, folder: Path, *arguments: object) -> Outcome:
    """Run the program with --json; make sure that its counts add up, and that nothing went to standard error."""
    outcome = load_here(folder, "--db", databases.place, *arguments)
    assert outcome.error == ""
    check_summary(outcome)
    assert all(counts["database"] == databases.name(model) for model, counts in outcome.summary.items())
    return outcome


def stored(databases: Databases) -> dict[str, list[tuple]]:
    """Return all rows of all models."""
    return {model: databases.rows(model) for model in MODELS}


def problems_of(outcome: Outcome, model: str, key: str = "id") -> dict[int, set[tuple[str, str]]]:
    """Return the (field, code) pairs of the rejected records of a model."""
    return {
        line[key]: {(problem["field"], problem["code"]) for problem in line["problems"]}
        for line in outcome.lines
        if line.get("model") == model and line["verdict"] == "rejected"
    }


# ------------------------------------------------------------------------------------------------------ The sample


def test_the_sample_is_stored_with_its_verdicts(databases, tmp_path):
    outcome = load_into(databases, tmp_path)
    assert outcome.status == 0
    assert {
        (model, id_): problems for model in MODELS for id_, problems in problems_of(outcome, model).items()
    } == SAMPLE_PROBLEMS
    assert stored(databases) == SAMPLE
    messages = {
        problem["field"]: problem["message"]
        for line in outcome.lines
        if line.get("model") == "orders" and line["id"] == 10
        for problem in line["problems"]
    }
    assert databases.name("users") in messages["user_id"] and "was rejected" in messages["user_id"]
    assert databases.name("products") in messages["product_id"] and "was rejected" not in messages["product_id"]


def test_the_sample_again_is_unchanged(databases, tmp_path):
    load_into(databases, tmp_path)
    outcome = load_into(databases, tmp_path)
    assert outcome.status == 0
    for model in MODELS:
        found = [(line["verdict"], line["id"]) for line in outcome.lines if line.get("model") == model]
        assert [(verdict, id_) for verdict, id_ in found if verdict != "rejected"] == [
            ("unchanged", row[0]) for row in SAMPLE[model]
        ]
    assert stored(databases) == SAMPLE


def test_the_sample_goes_nowhere_but_where_only_the_sample_is(databases, tmp_path, here):
    (tmp_path / "users.csv").write_text("id,name,email\n77,Ann,ann@example.com\n")
    load_into(databases, tmp_path, "--users", "users.csv")
    before = stored(databases)
    result = here("--db", databases.place)
    assert result.returncode == 2 and databases.name("users") in result.stderr
    assert stored(databases) == before


# ------------------------------------------------------------------------------- Files against a plain sequential model


class PlainModel:
    """What has to become of records, found in the plainest way: one after the other, in dictionaries."""

    def __init__(self) -> None:
        self.stored: dict[str, dict[int, tuple]] = {model: {} for model in MODELS}

    def judge(self, model: str, record: tuple, replace: bool = False) -> tuple[str, set[str]]:
        """Return the verdict of a record and the codes of its problems, and store it if it is to be."""
        codes = {"not_email" if model == "users" else "not_positive"} if 0 in record[1:] else set()
        if model == "orders":
            codes |= {"no_such_reference" for parent, id_ in zip(MODELS, record[1:3]) if id_ not in self.stored[parent]}
        table, old = self.stored[model], self.stored[model].get(record[0])
        if old == record and not codes:
            return "unchanged", codes
        if model in UNIQUE and "not_email" not in codes:
            place = UNIQUE[model]
            codes |= {
                "not_unique"
                for id_, row in table.items()
                if id_ != record[0] and str(row[place]).casefold() == str(record[place]).casefold()
            }
        if old and old != record and not replace:
            codes.add("conflict")
        if codes:
            return "rejected", codes
        table[record[0]] = record
        return "replaced" if old else "inserted", codes

    def rows(self) -> dict[str, list[tuple]]:
        """Return what is stored now, in the order of the ids."""
        return {model: sorted(table.values()) for model, table in self.stored.items()}


def check_against(
    plain: PlainModel,
    databases: Databases,
    records: dict[str, dict[int, tuple]],
    outcome: Outcome,
    replace: bool = False,
) -> None:
    """Make sure that each record got the verdict and the problems, and the databases the rows, of the plain model."""
    rejected = False
    for model in MODELS:
        expected = {line: plain.judge(model, record, replace) for line, record in records[model].items()}
        assert outcome.verdicts(model) == {line: verdict for line, (verdict, _) in expected.items()}, model
        found = {line: {code for _, code in problems} for line, problems in problems_of(outcome, model, "line").items()}
        assert found == {line: codes for line, (verdict, codes) in expected.items() if verdict == "rejected"}, model
        rejected |= bool(found)
    assert outcome.status == int(rejected)
    assert stored(databases) == plain.rows()


SIZES = [("--batch-size", "1"), ("--batch-size", "7"), ()]


@pytest.mark.parametrize(
    "seed, size",
    [
        (1, SIZES[0]),
        (2, SIZES[1]),
        (3, SIZES[2]),
        *(pytest.param(seed, SIZES[seed % 3], marks=pytest.mark.heavy) for seed in range(4, 40)),
    ],
)
def test_files_that_clash_come_out_as_one_after_the_other_fresh_and_again(databases, tmp_path, seed, size):
    size_of_files = {"users": 150, "products": 60, "orders": 250, "flaws": 15} if seed < 4 else {}
    load = write_load(tmp_path / "files", seed=seed, **size_of_files)
    plain = PlainModel()
    check_against(plain, databases, load.lines, load_into(databases, tmp_path, *load.arguments, *size))
    assert plain.rows() == load.rows  # two plain models agree
    check_against(plain, databases, load.lines, load_into(databases, tmp_path, *load.arguments, *size))


def write_records(load: Load, model: str, records: Iterable[tuple]) -> None:
    """Write the file of a model anew."""
    with load.path(model).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(MODELS[model])
        writer.writerows(records)


def changed(rows: list[tuple], model: str, chance: random.Random) -> list[tuple]:
    """Return the rows with other contents here and there, some of them taken by another row, and one that is new."""
    records = [list(row) for row in rows]
    for record in records:
        kind = chance.randrange(6)
        if kind == 0:
            record[1 if model == "orders" else 2 if model == "products" else 1] = chance.randint(1, 130)
        elif kind == 1 and model in UNIQUE:
            record[UNIQUE[model]] = chance.choice(rows)[UNIQUE[model]].upper()
        elif kind == 2 and model == "users":
            record[2] = f"new{record[0]}@example.com"
        elif kind == 3 and chance.random() < 0.2:
            record[-1] = 0
    if model in UNIQUE and len(records) > 9:  # two that want to change places, and one that moves to a free one
        first, second = records[3], records[8]
        first[UNIQUE[model]], second[UNIQUE[model]] = rows[8][UNIQUE[model]], rows[3][UNIQUE[model]]
    chance.shuffle(records)
    text = {"users": ["New", "brand.new@example.com"], "products": ["Brand new", 1.5], "orders": [1, 1, 1]}[model]
    return [tuple(map(str, record)) for record in [*records, [10_000_000, *text]]]


def typed(model: str, record: tuple) -> tuple:
    """Return a record of a file as the plain model has it."""
    if model == "orders":
        return tuple(map(int, record))
    last = float(record[2]) if model == "products" else 0 if record[2] == "0" else record[2]
    return int(record[0]), record[1], last


@pytest.mark.parametrize("size", SIZES, ids=["one", "seven", "default"])
def test_replace_comes_out_as_one_after_the_other(databases, tmp_path, size):
    load, chance = write_load(tmp_path / "files", seed=11, users=150, products=60, orders=200), random.Random(5)
    plain = PlainModel()
    check_against(plain, databases, load.lines, load_into(databases, tmp_path, *load.arguments))
    records = {model: changed(load.rows[model], model, chance) for model in MODELS}
    for model in MODELS:
        write_records(load, model, records[model])
    numbered = {
        model: {line: typed(model, record) for line, record in enumerate(records[model], start=2)} for model in MODELS
    }
    outcome = load_into(databases, tmp_path, *load.arguments, "--replace", *size)
    assert all(outcome.summary[model]["replaced"] > 5 for model in MODELS)
    check_against(plain, databases, numbered, outcome, replace=True)
    again = load_into(databases, tmp_path, *load.arguments, "--replace", *size)
    assert all(again.summary[model]["inserted"] == 0 for model in MODELS)


def test_without_replace_a_stored_record_stays_and_the_fields_that_differ_are_named(databases, tmp_path):
    users = tmp_path / "users.csv"
    users.write_text("id,name,email\n1,Ann,ann@example.com\n2,Bo,bo@example.com\n")
    load_into(databases, tmp_path, "--users", users)
    users.write_text("id,name,email\n1,Ann,anna@example.com\n2,Bob,bo@example.com\n")
    outcome = load_into(databases, tmp_path, "--users", users)
    assert outcome.verdicts("users") == {2: "rejected", 3: "rejected"}
    first, second = (line["problems"][0] for line in outcome.lines if "line" in line)
    assert first["code"] == second["code"] == "conflict"
    assert "email" in first["message"] and "--replace" in first["message"]
    assert "name" in second["message"] and "email" not in second["message"]
    assert databases.rows("users") == [(1, "Ann", "ann@example.com"), (2, "Bo", "bo@example.com")]


def test_records_of_one_id_in_one_file_have_the_same_verdicts_in_every_transaction(databases, tmp_path):
    records = [
        "1,Ann,ann@example.com", "1,Anna,ann@example.com", "2,Bo,bo@example.com", "2,Bo,bo@example.com",
        "1,Ann,ann@example.com", "3,Cy,BO@example.com", "2,Bob,cy@example.com", "3,Cy,bo@example.com",
    ]
    (tmp_path / "users.csv").write_text("\n".join(["id,name,email", *records, ""]))
    found = set()
    for size in (1, 3, 1000):
        for _ in range(2):
            outcome = load_into(databases, tmp_path, "--users", "users.csv", "--replace", "--batch-size", size)
            found.add((json.dumps(outcome.lines[:-1]), str(databases.rows("users"))))
        databases.clear()
        assert len(found) == 2, "fresh and again, whatever the size"


def test_orders_may_come_in_any_order_and_before_their_parents(databases, tmp_path):
    load = write_load(tmp_path / "files", seed=21, users=80, products=30, orders=90)
    order = [text for model in ("orders", "products", "users") for text in (f"--{model}", str(load.path(model)))]
    outcome = load_into(databases, tmp_path, *order)
    check_against(PlainModel(), databases, load.lines, outcome)


def test_references_are_looked_up_in_what_is_stored(databases, tmp_path):
    load = write_load(tmp_path / "files", seed=22, users=80, products=30, orders=90)
    for model in MODELS:
        load_into(databases, tmp_path, f"--{model}", load.path(model))
    assert stored(databases) == load.rows


def test_orders_without_databases_to_refer_to_are_rejected(databases, tmp_path):
    (tmp_path / "orders.csv").write_text("id,user_id,product_id,quantity\n1,1,1,1\n")
    outcome = load_into(databases, tmp_path, "--orders", "orders.csv")
    assert outcome.status == 1
    assert problems_of(outcome, "orders") == {
        1: {("user_id", "no_such_reference"), ("product_id", "no_such_reference")}
    }
    assert not databases.exists("users") and not databases.exists("products")


# Users fail when some of them are stored.
USERS_FAIL = """
program.GROUP_RECORDS = program.GROUP_BATCHES = 4
real = program.{table}.begin
def begin(self):
    begun = real(self)
    if self.schema.table == "users" and self.last_id:
        raise program.StorageError("out of order")
    return begun
program.{table}.begin = begin
"""


def test_who_could_not_be_checked_leaves_its_id_to_no_later_record(databases, tmp_path):
    write_users(tmp_path / "users.csv", 20)
    (tmp_path / "products.csv").write_text("id,name,price\n1,Pen,2\n")
    (tmp_path / "orders.csv").write_text("id,user_id,product_id,quantity\n1,20,1,1\n1,1,1,9\n2,1,1,1\n")
    files = [text for model in MODELS for text in (f"--{model}", f"{model}.csv")]
    patch = USERS_FAIL.format(table="SqliteTable" if databases.engine == "sqlite" else "PostgresTable")
    outcome = run_load(tmp_path, "--db", databases.place, *files, patch=patch)
    assert outcome.status == 3 and 0 < outcome.summary["users"]["inserted"] < 20
    assert set(databases.rows("orders")) <= {(1, 20, 1, 1), (2, 1, 1, 1)}
    outcome = load_into(databases, tmp_path, *files)
    assert outcome.status == 1 and databases.rows("orders") == [(1, 20, 1, 1), (2, 1, 1, 1)]


@pytest.mark.parametrize("size", [2, 3, 6])
def test_a_record_that_stands_twice_does_not_make_another_one_exist(databases, tmp_path, size):
    ids = [1, 1, 3, 5, 7, 7]
    (tmp_path / "users.csv").write_text("id,name,email\n" + "".join(f"{id_},Ann,ann{id_}@example.com\n" for id_ in ids))
    (tmp_path / "products.csv").write_text("id,name,price\n1,Pen,2\n")
    (tmp_path / "orders.csv").write_text(
        "id,user_id,product_id,quantity\n" + "".join(f"{number},{number},1,1\n" for number in range(1, 9))
    )
    files = [text for model in MODELS for text in (f"--{model}", f"{model}.csv")]
    outcome = load_into(databases, tmp_path, *files, "--batch-size", size)
    assert [id_ for id_, _, _, _ in databases.rows("orders")] == [1, 3, 5, 7]
    assert set(problems_of(outcome, "orders")) == {2, 4, 6, 8}


def test_an_invalid_record_is_told_all_its_problems_and_claims_nothing(databases, tmp_path):
    (tmp_path / "users.csv").write_text(
        "id,name,email\n1,Ann,ann@example.com\n2,,ANN@example.com\n3,,cy@example.com\n3,Cy,cy@example.com\n"
    )
    outcome = load_into(databases, tmp_path, "--users", "users.csv")
    assert outcome.verdicts("users") == {2: "inserted", 3: "rejected", 4: "rejected", 5: "inserted"}
    assert problems_of(outcome, "users", "line") == {
        3: {("name", "blank"), ("email", "not_unique")},
        4: {("name", "blank")},
    }


UNUSUAL = [
    ("Ann Lee", "İ@example.com"),
    ("\\N'\"{}", "back@example.com"),
    ('{"a": 1}', "brace@example.com"),
    ("%s %(x)s $1", "per@example.com"),
    ("O'Neil; DROP TABLE users; --", "drop@example.com"),
    ("\U0001f600 smile", "smile@example.com"),
    ("e\u0301tude", "nfd@example.com"),
    ("NULL", "null@example.com"),
    ("a\\b\\", "slash@example.com"),
    ("你好", "你好@example.com"),
    (',;|""', "marks@example.com"),
]


def test_unusual_texts_are_stored_exactly_and_compared_by_their_folding(databases, tmp_path):
    lines = [
        json.dumps({"id": number, "name": name, "email": email})
        for number, (name, email) in enumerate(UNUSUAL, start=1)
    ]
    twins = [
        ("STRASSE@example.com", "straße@example.com"),
        ("ΣΊΣΥΦΟΣ@example.com", "σίσυφος@example.com"),
        ("\u00c9a@example.com", "e\u0301A@example.com"),
        ("ÅB@example.com", "\u212bb@example.com"),
    ]
    for number, pair in enumerate(twins):
        lines += [
            json.dumps({"id": 100 + 2 * number + place, "name": "Twin", "email": email})
            for place, email in enumerate(pair)
        ]
    (tmp_path / "users.jsonl").write_text("\n".join(lines))
    for expected in ("inserted", "unchanged"):
        outcome = load_into(databases, tmp_path, "--users", "users.jsonl")
        verdicts = {line["id"]: line["verdict"] for line in outcome.lines if "id" in line}
        assert {id_ for id_, verdict in verdicts.items() if verdict == "rejected"} == {101, 103, 105, 107}
        assert set(verdicts.values()) == {expected, "rejected"}
    assert databases.rows("users")[: len(UNUSUAL)] == [
        (number, *texts) for number, texts in enumerate(UNUSUAL, start=1)
    ]


# ------------------------------------------------------------------------------------------- What is stored already


OWN_TABLES = {
    "sqlite": "CREATE TABLE users (email VARCHAR(254) NOT NULL, id INTEGER PRIMARY KEY, "
    "name TEXT CHECK (name <> 'Eve'), note TEXT)",
    "postgresql": "CREATE TABLE users (email text NOT NULL, id bigint PRIMARY KEY, "
    "name text CHECK (name <> 'Eve'), note text)",
}


def own_table(databases: Databases, statement: str) -> None:
    """Make a table of users as another program would."""
    if databases.engine == "sqlite":
        Path(databases.place).mkdir()
    databases.execute("users", statement)
    if databases.engine == "postgresql":
        databases.execute("users", "GRANT ALL ON users TO loader; ALTER TABLE users OWNER TO loader")


def test_a_table_with_other_columns_in_another_order_is_used(databases, tmp_path):
    own_table(databases, OWN_TABLES[databases.engine])
    databases.execute(
        "users", "INSERT INTO users (id, name, email, note) VALUES (1, 'Ann', 'ann@example.com', 'first')"
    )
    (tmp_path / "users.csv").write_text(
        "id,name,email\n1,Ann,ann@example.com\n2,Bo,ANN@example.com\n3,Cy,cy@example.com\n"
    )
    outcome = load_into(databases, tmp_path, "--users", "users.csv")
    assert outcome.verdicts("users") == {2: "unchanged", 3: "rejected", 4: "inserted"}
    assert databases.execute("users", "SELECT id, name, email, note FROM users ORDER BY id") == [
        (1, "Ann", "ann@example.com", "first"),
        (3, "Cy", "cy@example.com", None),
    ]


def test_replacing_leaves_the_columns_alone_that_are_not_ours(databases, tmp_path):
    own_table(databases, OWN_TABLES[databases.engine])
    databases.execute(
        "users", "INSERT INTO users (id, name, email, note) VALUES (1, 'Ann', 'ann@example.com', 'first')"
    )
    (tmp_path / "users.csv").write_text("id,name,email\n1,Anna,ann@example.com\n")
    outcome = load_into(databases, tmp_path, "--users", "users.csv", "--replace")
    assert outcome.verdicts("users") == {2: "replaced"}
    assert databases.execute("users", "SELECT id, name, email, note FROM users") == [
        (1, "Anna", "ann@example.com", "first")
    ]


def test_what_a_constraint_refuses_is_failed_with_its_message(databases, tmp_path):
    own_table(databases, OWN_TABLES[databases.engine])
    (tmp_path / "users.csv").write_text("id,name,email\n1,Eve,eve@example.com\n")
    outcome = load_here(tmp_path, "--db", databases.place, "--users", "users.csv")
    assert outcome.status == 3 and outcome.verdicts("users") == {2: "failed"}
    assert "constraint" in next(line["reason"] for line in outcome.lines if "reason" in line).lower()
    assert databases.rows("users") == []


FOREIGN = {
    "a table of other columns": "CREATE TABLE users (id {key}, login {text})",
    "an id that is no key": "CREATE TABLE users (id {key0}, name {text}, email {text})",
    "an id that is text": "CREATE TABLE users (id {text} PRIMARY KEY, name {text}, email {text})",
    "a name that is a number": "CREATE TABLE users (id {key}, name {real}, email {text})",
    "only the tables of others": "CREATE TABLE people (id {key}, name {text})",
}
TYPES = {
    "sqlite": {"key": "INTEGER PRIMARY KEY", "key0": "INTEGER", "text": "TEXT", "real": "REAL"},
    "postgresql": {"key": "bigint PRIMARY KEY", "key0": "bigint", "text": "text", "real": "double precision"},
}


@pytest.mark.parametrize("what", FOREIGN)
def test_what_is_not_ours_fails_its_records_and_is_left_alone(databases, tmp_path, what):
    statement = FOREIGN[what].format(**TYPES[databases.engine])
    if databases.engine == "sqlite":
        Path(databases.place).mkdir()
        databases.execute("users", statement)
    else:
        databases.execute("users", f"SET ROLE loader; {statement}")
    load = write_load(tmp_path / "files", seed=31, users=30, products=20, orders=40)
    outcome = load_here(tmp_path, "--db", databases.place, *load.arguments)
    assert outcome.status == 3 and databases.name("users") in outcome.error
    assert set(outcome.verdicts("users").values()) == {"failed"}
    assert outcome.verdicts("products") == load.verdicts["products"]
    assert set(outcome.verdicts("orders").values()) <= {"failed", "rejected"}
    assert databases.rows("products") == load.rows["products"] and databases.rows("orders") == []
    table = "people" if "people" in statement else "users"
    assert databases.execute("users", f"SELECT * FROM {table}") == []
    if table == "people":
        assert (
            not databases.execute("users", "SELECT 1 FROM sqlite_master WHERE name = 'users'")
            if (databases.engine == "sqlite")
            else not databases.exists("users")
        )


# ------------------------------------------------------------------------------------- Rejects, verify, dry run, report


def write_small_files(folder: Path) -> list[str]:
    """Write three files of which the user 2 is bad, and so the order 2; return the flags that load them."""
    (folder / "users.csv").write_text(
        "id,name,email\n1,Ada,ada@example.com\n2,Grace,grace@example\n3,Edsger,ed@example.com\n"
    )
    (folder / "products.csv").write_text("id,name,price\n1,Slide rule,24.50\n")
    (folder / "orders.csv").write_text("id,user_id,product_id,quantity\n1,1,1,2\n2,2,1,1\n")
    return ["--users", "users.csv", "--products", "products.csv", "--orders", "orders.csv"]


def test_rejects_can_be_fixed_and_loaded(databases, tmp_path):
    flags = write_small_files(tmp_path)
    assert load_into(databases, tmp_path, *flags, "--rejects", "bad").status == 1
    assert sorted(path.name for path in (tmp_path / "bad").iterdir()) == ["errors.jsonl", "orders.csv", "users.csv"]
    assert (tmp_path / "bad" / "users.csv").read_text() == "id,name,email\n2,Grace,grace@example\n"
    assert (tmp_path / "bad" / "orders.csv").read_text() == "id,user_id,product_id,quantity\n2,2,1,1\n"
    errors = [json.loads(line) for line in (tmp_path / "bad" / "errors.jsonl").read_text().splitlines()]
    assert [(error["model"], error["code"]) for error in errors] == [
        ("users", "not_email"),
        ("orders", "no_such_reference"),
    ]
    (tmp_path / "bad" / "users.csv").write_text("id,name,email\n2,Grace,grace@example.com\n")
    outcome = load_into(databases, tmp_path, "--users", "bad/users.csv", "--orders", "bad/orders.csv")
    assert outcome.status == 0 and [len(databases.rows(model)) for model in MODELS] == [3, 1, 2]


def test_the_report_names_the_databases_and_the_next_step_runs_as_printed(databases, tmp_path, run):
    flags = write_small_files(tmp_path)
    result = run("--db", databases.place, *flags, "--rejects", "bad")
    text = " ".join(result.stdout.split())
    assert result.returncode == 1 and result.stderr == ""
    assert 'users.csv:3: email: "grace@example" is not' in text
    assert (
        f"orders.csv:3: user_id: 2 is not in {databases.name('users')} (users.csv:3 was rejected) [no_such_reference]"
        in text
    )
    assert "6 records: 4 inserted, 2 rejected" in text
    step = result.stdout.strip().splitlines()[-1]
    words = shlex.split(step)
    position = next(place for place, word in enumerate(words) if word.endswith("distributed_inserts.py"))
    assert f"--db {databases.place}" in " ".join(words)
    assert run(*words[position + 1 :]).returncode == 1  # nothing was fixed


def test_verify_finds_sound_databases_sound(databases, tmp_path, here):
    load = write_load(tmp_path / "files", seed=41)
    load_into(databases, tmp_path, *load.arguments)
    before = stored(databases)
    result = here("--db", databases.place, "--verify")
    assert (result.returncode, result.stderr) == (0, "")
    assert stored(databases) == before == load.rows


DAMAGE = [
    ("users", "UPDATE users SET name = '  ' WHERE id = 1", {("users", 1, "blank")}),
    ("users", "UPDATE users SET email = 'BO@example.com' WHERE id = 1", {("users", 2, "not_unique")}),
    ("users", "UPDATE users SET email = NULL WHERE id = 3", {("users", 3, "missing")}),
    (
        "users",
        "DELETE FROM users WHERE id = 1",
        {("orders", 1, "no_such_reference"), ("orders", 2, "no_such_reference")},
    ),
    ("products", "UPDATE products SET price = -1 WHERE id = 1", {("products", 1, "not_positive")}),
    ("products", "DELETE FROM products", {("orders", 1, "no_such_reference"), ("orders", 2, "no_such_reference")}),
    ("orders", "UPDATE orders SET quantity = 0 WHERE id = 2", {("orders", 2, "not_positive")}),
]


@pytest.mark.parametrize("model, statement, broken", DAMAGE)
def test_verify_lists_what_breaks_a_rule(databases, tmp_path, here, model, statement, broken):
    (tmp_path / "users.csv").write_text(
        "id,name,email\n1,Ann,ann@example.com\n2,Bo,bo@example.com\n3,Cy,cy@example.com\n"
    )
    (tmp_path / "products.csv").write_text("id,name,price\n1,Pen,1.5\n")
    (tmp_path / "orders.csv").write_text("id,user_id,product_id,quantity\n1,1,1,1\n2,1,1,5\n")
    load_into(databases, tmp_path, "--users", "users.csv", "--products", "products.csv", "--orders", "orders.csv")
    databases.execute(model, statement)
    before = stored(databases)
    result = here("--db", databases.place, "--verify", "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.returncode == 1 == lines[-1]["exit_status"]
    assert {
        (line["model"], line["id"], problem["code"]) for line in lines[:-1] for problem in line.get("problems", ())
    } == broken
    text = here("--db", databases.place, "--verify")
    assert text.returncode == 1 and all(f"[{code}]" in text.stdout for _, _, code in broken)
    assert stored(databases) == before


def test_a_dry_run_has_the_verdicts_of_a_load_and_writes_nothing(databases, tmp_path):
    load = write_load(tmp_path / "files", seed=51, users=200, products=60, orders=300)
    dry = load_into(databases, tmp_path, *load.arguments, "--dry-run")
    assert not any(databases.exists(model) for model in MODELS)
    assert databases.engine == "postgresql" or not Path(databases.place).exists()
    real = load_into(databases, tmp_path, *load.arguments)
    assert [dry.lines[:-1], dry.status] == [real.lines[:-1], real.status]
    before = stored(databases)
    dry = load_into(databases, tmp_path, *load.arguments, "-n")
    real = load_into(databases, tmp_path, *load.arguments)
    assert [dry.lines[:-1], dry.status] == [real.lines[:-1], real.status]
    assert stored(databases) == before == load.rows


def test_a_dry_run_of_a_replacement_replaces_nothing(databases, tmp_path):
    flags = write_small_files(tmp_path)
    load_into(databases, tmp_path, *flags)
    before = stored(databases)
    (tmp_path / "users.csv").write_text(
        "id,name,email\n1,Ada L.,ada@example.com\n3,Edsger,ADA@example.com\n9,Nine,nine@example.com\n"
    )
    (tmp_path / "orders.csv").write_text("id,user_id,product_id,quantity\n1,9,1,2\n")
    dry = load_into(databases, tmp_path, *flags, "--replace", "--dry-run")
    assert dry.verdicts("users") == {2: "replaced", 3: "rejected", 4: "inserted"} and dry.verdicts("orders") == {
        2: "replaced"
    }
    assert stored(databases) == before
    real = load_into(databases, tmp_path, *flags, "--replace")
    assert real.lines[:-1] == dry.lines[:-1]


# ----------------------------------------------------------------------------------------------- From another program


def test_another_program_inserts_finds_and_replaces(databases):
    with program.open_databases(databases.place) as shop:
        assert shop.find("users", 1) is None
        assert shop.insert("users", {"id": 1, "name": " Ann ", "email": "ann@example.com"}).verdict == "inserted"
        assert shop.insert("products", {"id": "1", "name": "Pen", "price": "1.50"}).verdict == "inserted"
        order = {"id": 1, "user_id": 1, "product_id": 1, "quantity": 2}
        outcome = shop.insert("orders", order)
        assert (outcome.verdict, list(outcome.problems)) == ("inserted", [])
        assert shop.insert("orders", order).verdict == "unchanged"
        outcome = shop.insert("orders", {**order, "quantity": 3})
        assert outcome.verdict == "rejected" and [problem.code for problem in outcome.problems] == ["conflict"]
        assert shop.find("orders", 1) == order
        assert shop.insert("orders", {**order, "quantity": 3}, replace=True).verdict == "replaced"
        assert shop.find("orders", 1) == {**order, "quantity": 3}
        outcome = shop.insert("orders", {"id": 2, "user_id": 2, "product_id": 1, "quantity": 0})
        assert {(problem.field, problem.code) for problem in outcome.problems} == {
            ("user_id", "no_such_reference"),
            ("quantity", "not_positive"),
        }
        assert shop.find("users", 1) == {"id": 1, "name": "Ann", "email": "ann@example.com"}
        assert shop.find("products", 1) == {"id": 1, "name": "Pen", "price": 1.5}
    assert stored(databases) == {
        "users": [(1, "Ann", "ann@example.com")],
        "products": [(1, "Pen", 1.5)],
        "orders": [(1, 1, 1, 3)],
    }


def test_what_another_program_inserts_is_what_a_load_would_have(databases, tmp_path):
    load = write_load(tmp_path / "files", seed=61, users=60, products=25, orders=80)
    with program.open_databases(databases.place) as shop:
        for model in MODELS:
            found = {}
            for line, record in load.lines[model].items():
                found[line] = shop.insert(model, dict(zip(MODELS[model], record))).verdict
            assert found == load.verdicts[model]
    assert stored(databases) == load.rows
    outcome = load_into(databases, tmp_path, *load.arguments)
    assert all(outcome.summary[model]["inserted"] == 0 for model in MODELS)
