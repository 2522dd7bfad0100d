"""Files as people have them: what spreadsheets, databases and scripts export, in the notations that people use."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import random
import re
import shlex
import shutil
import string
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import MODELS, PROGRAM, TIMEOUT_S, VERDICTS, Run, rows

GOOD = "inserted"
PEOPLE = [(1, "Ada", "ada@example.com"), (2, "Bo Li", "bo@example.com"), (3, "Zoë", "zoe@example.com")]
GOODS = [(1, "Pen, red", 1.2), (2, 'TV 15"', 250.0), (3, "Désk", 99.5)]
Load = Callable[..., SimpleNamespace]


@pytest.fixture
def load(here: Run, tmp_path: Path) -> Load:
    """Return a function that loads one file into a database of its own and tells what became of it.

    `found` has by line the verdict, or the codes of the problems; `messages` the messages; `rows` what is stored.
    Whatever the file, the counts add up, and as many rows are stored as were reported so.
    """
    numbers = itertools.count(1)

    def load_file(data: str | bytes, *arguments: str, model: str = "users", name: str = "export") -> SimpleNamespace:
        (tmp_path / name).write_bytes(data.encode() if isinstance(data, str) else data)
        folder = f"databases {next(numbers)}"
        result = here(f"--{model}", name, "--db", folder, "--json", *arguments)
        database = tmp_path / folder / f"{model}.db"
        stored = rows(database) if database.exists() else []
        loaded = SimpleNamespace(
            status=result.returncode, error=result.stderr, rows=stored, found={}, messages={}, cut=None
        )
        if result.returncode == 2:
            assert result.stdout == "" and not stored and 0 < result.stderr.count("\n") <= 3, result.stderr
            return loaded
        *lines, last = map(json.loads, result.stdout.splitlines())
        counts = last["summary"][model]
        assert counts["read"] == len(lines) == sum(counts[verdict] for verdict in VERDICTS)
        assert len(stored) == counts["inserted"] and counts["failed"] == 0
        assert last["exit_status"] == result.returncode
        for line in lines:
            loaded.found[line["line"]] = " ".join(each["code"] for each in line["problems"]) or line["verdict"]
            loaded.messages[line["line"]] = " ".join(each["message"] for each in line["problems"])
        assert len(loaded.found) == len(lines) or any("item" in line for line in lines)
        loaded.cut = last.get("cut")
        return loaded

    return load_file


def notices(loaded: SimpleNamespace) -> list[str]:
    """Return what was said of the file, without the program's name."""
    return [line.removeprefix("distributed_inserts: ") for line in loaded.error.splitlines()]


def separator_told(data: str | bytes) -> bool:
    """Whether the separator of a file is to be told: it is none of JSON and not a comma."""
    text = data.decode("utf-16" if data[:2] == b"\xff\xfe" else "utf-8-sig") if isinstance(data, bytes) else data
    return text.lstrip()[0] not in "[{" and "," not in text.splitlines()[-1]


# ------------------------------------------------------------------------------- What programs export, as they write it

USERS_AS = {
    "pandas to_csv": (",id,name,email\n0,1,Ada,ada@example.com\n1,2,Bo Li,bo@example.com\n2,3,Zoë,zoe@example.com\n"),
    "pandas to_csv without index": "id,name,email\n1,Ada,ada@example.com\n2,Bo Li,bo@example.com\n3,Zoë,"
    "zoe@example.com\n",
    "pandas to_csv with ids that were nullable": "id,name,email\n1.0,Ada,ada@example.com\n2.0,Bo Li,bo@example.com\n"
    "3.0,Zoë,zoe@example.com\n",
    "pandas to_json records": '[{"id":1,"name":"Ada","email":"ada@example.com"},{"id":2,"name":"Bo Li",'
    '"email":"bo@example.com"},'
    '{"id":3,"name":"Zo\\u00eb","email":"zoe@example.com"}]',
    "pandas to_json lines": '{"id":1,"name":"Ada","email":"ada@example.com"}\n{"id":2,"name":"Bo Li",'
    '"email":"bo@example.com"}\n'
    '{"id":3,"name":"Zo\\u00eb","email":"zoe@example.com"}\n',
    "pandas to_json records of nullable ids": '[{"id":1.0,"name":"Ada","email":"ada@example.com"},{"id":2.0,'
    '"name":"Bo Li","email":"bo@example.com"},'
    '{"id":3.0,"name":"Zo\\u00eb","email":"zoe@example.com"}]',
    "Excel CSV UTF-8": b"\xef\xbb\xbfid,name,email\r\n1,Ada,ada@example.com\r\n2,Bo Li,bo@example.com\r\n"
    b"3,Zo\xc3\xab,zoe@example.com\r\n",
    "Excel CSV UTF-8 with rows that were emptied": b"\xef\xbb\xbfid,name,email,,\r\n1,Ada,ada@example.com,,\r\n,,,,\r\n"
    b"2,Bo Li,bo@example.com,,\r\n3,Zo\xc3\xab,zoe@example.com,,\r\n,,,,\r\n,,,,\r\n",
    "Excel CSV (semicolon)": b"\xef\xbb\xbfid;name;email\r\n1;Ada;ada@example.com\r\n2;Bo Li;bo@example.com\r\n"
    b"3;Zo\xc3\xab;zoe@example.com\r\n",
    "Excel CSV with sep=": b"\xef\xbb\xbfsep=;\r\nid;name;email\r\n1;Ada;ada@example.com\r\n2;Bo Li;bo@example.com\r\n"
    b"3;Zo\xc3\xab;zoe@example.com\r\n",
    "a sheet whose table begins at B3": ",,,\r\n,,,\r\n,id,name,email\r\n,1,Ada,ada@example.com\r\n"
    ",2,Bo Li,bo@example.com\r\n,3,Zoë,zoe@example.com\r\n",
    "Windows PowerShell Export-Csv": '#TYPE System.Management.Automation.PSCustomObject\r\n"id","name","email"\r\n'
    '"1","Ada","ada@example.com"\r\n"2","Bo Li","bo@example.com"\r\n"3","Zoë","zoe@example.com"\r\n',
    "Excel Unicode text": "\ufeffid\tname\temail\r\n1\tAda\tada@example.com\r\n2\tBo Li\tbo@example.com\r\n"
    "3\tZoë\tzoe@example.com\r\n".encode("utf-16-le"),
    "Google Sheets": "id,name,email\r\n1,Ada,ada@example.com\r\n2,Bo Li,bo@example.com\r\n3,Zoë,zoe@example.com",
    "psql copy csv header": "id,name,email\n1,Ada,ada@example.com\n2,Bo Li,bo@example.com\n3,Zoë,zoe@example.com\n",
    "psql copy csv header force quote": '"id","name","email"\n"1","Ada","ada@example.com"\n"2","Bo Li",'
    '"bo@example.com"\n"3","Zoë","zoe@example.com"\n',
    "MySQL INTO OUTFILE after a UNION with its header": "id\tname\temail\n1\tAda\tada@example.com\n2\tBo "
    "Li\tbo@example.com\n3\tZoë\tzoe@example.com\n",
    "mysql --batch with a note that is NULL": "id\tname\temail\tnote\n1\tAda\tada@example.com\t\\N\n2\tBo "
    "Li\tbo@example.com\tNULL\n3\tZoë\tzoe@example.com\t\n",
    "sqlite3 -csv -header": 'id,name,email\r\n1,Ada,ada@example.com\r\n2,"Bo Li",bo@example.com\r\n3,"Zoë",'
    "zoe@example.com\r\n",
    "sqlite3 -json": '[{"id":1,"name":"Ada","email":"ada@example.com"},\n{"id":2,"name":"Bo Li",'
    '"email":"bo@example.com"},\n'
    '{"id":3,"name":"Zoë","email":"zoe@example.com"}]\n',
    "jq": '[\n  {\n    "id": 1,\n    "name": "Ada",\n    "email": "ada@example.com"\n  },\n  {\n    "id": 2,\n    '
    '"name": "Bo Li",\n'
    '    "email": "bo@example.com"\n  },\n  {\n    "id": 3,\n    "name": "Zoë",\n    "email": "zoe@example.com"\n  '
    "}\n]\n",
    "jq of an answer": '{\n  "users": [\n    {\n      "id": 1,\n      "name": "Ada",\n      "email": '
    '"ada@example.com"\n    },\n    {\n'
    '      "id": 2,\n      "name": "Bo Li",\n      "email": "bo@example.com"\n    },\n    {\n      "id": 3,\n'
    '      "name": "Zoë",\n      "email": "zoe@example.com"\n    }\n  ]\n}\n',
    "jq -c": '{"id":1,"name":"Ada","email":"ada@example.com"}\n{"id":2,"name":"Bo Li","email":"bo@example.com"}\n'
    '{"id":3,"name":"Zoë","email":"zoe@example.com"}\n',
    "jq -c of an array": '[{"id":1,"name":"Ada","email":"ada@example.com"},{"id":2,"name":"Bo Li",'
    '"email":"bo@example.com"},'
    '{"id":3,"name":"Zoë","email":"zoe@example.com"}]\n',
    "PowerShell Export-Csv": '"id","name","email"\r\n"1","Ada","ada@example.com"\r\n"2","Bo Li","bo@example.com"\r\n'
    '"3","Zoë","zoe@example.com"\r\n',
    "a wide table with bars": "id | name | email\n1 | Ada | ada@example.com\n2 | Bo Li | bo@example.com\n3 | Zoë | "
    "zoe@example.com\n",
}
PRODUCTS_AS = {
    "pandas to_csv": ',id,name,price\n0,1,"Pen, red",1.2\n1,2,"TV 15""",250.0\n2,3,Désk,99.5\n',
    "pandas to_csv without index": 'id,name,price\n1,"Pen, red",1.2\n2,"TV 15""",250.0\n3,Désk,99.5\n',
    "pandas to_json records": '[{"id":1,"name":"Pen, red","price":1.2},{"id":2,"name":"TV 15\\"","price":250.0},'
    '{"id":3,"name":"D\\u00e9sk","price":99.5}]',
    "pandas to_json lines": '{"id":1,"name":"Pen, red","price":1.2}\n{"id":2,"name":"TV 15\\"","price":250.0}\n'
    '{"id":3,"name":"D\\u00e9sk","price":99.5}\n',
    "Excel CSV UTF-8": b'\xef\xbb\xbfid,name,price\r\n1,"Pen, red",1.2\r\n2,"TV 15""",250\r\n3,D\xc3\xa9sk,99.5\r\n',
    "Excel Unicode text": "\ufeffid\tname\tprice\r\n"
    '1\t"Pen, red"\t1.2\r\n2\t"TV 15"""\t250\r\n3\tDésk\t99.5\r\n'.encode("utf-16-le"),
    "Google Sheets": 'id,name,price\r\n1,"Pen, red",1.2\r\n2,"TV 15""",250\r\n3,Désk,99.5',
    "psql copy csv header": 'id,name,price\n1,"Pen, red",1.20\n2,"TV 15""",250.00\n3,Désk,99.50\n',
    "sqlite3 -csv -header": 'id,name,price\r\n1,"Pen, red",1.2\r\n2,"TV 15""",250.0\r\n3,"Désk",99.5\r\n',
    "jq -c": '{"id":1,"name":"Pen, red","price":1.2}\n{"id":2,"name":"TV 15\\"","price":250}\n{"id":3,"name":"Désk",'
    '"price":99.5}\n',
}
NAMES = ["export", "export.csv", "export.json", "export.jsonl", "export.tsv", "export.xlsx", "export.csv.gz"]


@pytest.mark.parametrize(
    ("model", "tool"), [*(("users", tool) for tool in USERS_AS), *(("products", tool) for tool in PRODUCTS_AS)]
)
def test_what_other_programs_export_loads_as_it_is(load: Load, model: str, tool: str) -> None:
    data = (USERS_AS if model == "users" else PRODUCTS_AS)[tool]
    loaded = load(data, model=model)
    assert loaded.status == 0 and set(loaded.found.values()) == {GOOD}
    assert loaded.rows == (PEOPLE if model == "users" else GOODS)
    assert len(notices(loaded)) == (separator_told(data) + ("note" in str(data)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "tool", ["Excel CSV (semicolon)", "Excel Unicode text", "jq", "jq -c", "jq of an answer", "psql copy csv header"]
)
def test_the_suffix_says_nothing(load: Load, tool: str, name: str) -> None:
    assert load(USERS_AS[tool], name=name).rows == PEOPLE


@pytest.mark.parametrize("tool", ["Excel CSV (semicolon)", "Excel Unicode text", "jq", "jq -c", "Google Sheets"])
def test_gzip_is_read_as_what_it_holds(load: Load, tool: str) -> None:
    data = USERS_AS[tool]
    for name in ("export.csv.gz", "export"):
        loaded = load(gzip.compress(data if isinstance(data, bytes) else data.encode()), name=name)
        assert (loaded.status, loaded.rows) == (0, PEOPLE)


@pytest.mark.parametrize(
    "data",
    [
        "id,user_id,product_id,quantity\n1,1.0,1.0,2.0\n2,,2.0,1.0\n3,2.0,,\n",
        "id,user_id,product_id,quantity\n1,1.0,1.0,2\n2,,2.0,1\n3,2.0,,\n",
        "id\tuser_id\tproduct_id\tquantity\n1\t1\t1\t2\n2\t\\N\t2\t1\n3\t2\t\\N\t\\N\n",
        '[{"id":1,"user_id":1.0,"product_id":1.0,"quantity":2.0},{"id":2,"user_id":null,"product_id":2.0,'
        '"quantity":1.0},\n'
        '{"id":3,"user_id":2.0,"product_id":null,"quantity":null}]',
    ],
    ids=["pandas to_csv", "the same of integers", "MySQL", "pandas to_json"],
)
def test_columns_that_may_be_null_cost_the_records_that_are_null_there(here: Run, tmp_path: Path, data: str) -> None:
    (tmp_path / "users.csv").write_text(USERS_AS["pandas to_csv without index"], encoding="utf-8")
    (tmp_path / "products.csv").write_text(PRODUCTS_AS["pandas to_csv without index"], encoding="utf-8")
    (tmp_path / "orders").write_text(data, encoding="utf-8")
    result = here("--users", "users.csv", "--products", "products.csv", "--orders", "orders", "--json")
    found = [
        (line["id"], [(each["field"], each["code"]) for each in line["problems"]])
        for line in map(json.loads, result.stdout.splitlines())
        if line.get("model") == "orders"
    ]
    empty = "blank" if data[:3] == "id," else "missing"
    assert found == [(1, []), (2, [("user_id", empty)]), (3, [("product_id", empty), ("quantity", empty)])]
    assert result.returncode == 1 and rows(tmp_path / "orders.db") == [(1, 1, 1, 2)]


def test_the_committed_texts_are_what_pandas_writes() -> None:
    pandas = pytest.importorskip("pandas")
    users, goods = (
        pandas.DataFrame(PEOPLE, columns=MODELS["users"]),
        pandas.DataFrame(GOODS, columns=MODELS["products"]),
    )
    for frame, texts in ((users, USERS_AS), (goods, PRODUCTS_AS)):
        assert frame.to_csv() == texts["pandas to_csv"]
        assert frame.to_csv(index=False) == texts["pandas to_csv without index"]
        assert frame.to_json(orient="records") == texts["pandas to_json records"]
        assert frame.to_json(orient="records", lines=True) == texts["pandas to_json lines"]
    users["id"] = users["id"].astype(float)
    assert users.to_csv(index=False) == USERS_AS["pandas to_csv with ids that were nullable"]
    assert users.to_json(orient="records") == USERS_AS["pandas to_json records of nullable ids"]


def test_the_committed_texts_are_what_sqlite3_and_jq_write(tmp_path: Path, load: Load) -> None:
    if not shutil.which("sqlite3") or not shutil.which("jq"):
        pytest.skip("the programs sqlite3 and jq are not both here")

    def output(*arguments: str) -> bytes:
        return subprocess.run(arguments, cwd=tmp_path, capture_output=True, check=True, timeout=30).stdout

    load(USERS_AS["jq -c"], name="users.jsonl")
    database = next(tmp_path.glob("*/users.db"))
    for flags, tool in (("-csv", "-header"), "sqlite3 -csv -header"), (("-json",), "sqlite3 -json"):
        written = output("sqlite3", *flags, str(database), "SELECT * FROM users ORDER BY id")
        assert load(written).rows == PEOPLE
        assert written.replace(b"\r", b"").replace(b'"', b"") == USERS_AS[tool].encode().replace(b"\r", b"").replace(
            b'"', b""
        )
    assert output("jq", "-s", ".", "users.jsonl").decode() == USERS_AS["jq"]
    assert output("jq", "-s", "{users: .}", "users.jsonl").decode() == USERS_AS["jq of an answer"]
    assert output("jq", "-c", ".", "users.jsonl").decode() == USERS_AS["jq -c"]


# -------------------------------------------------------------------------- What is no file of records says the way out

DUMPDATA = json.dumps(
    [{"model": "shop.user", "pk": id_, "fields": {"name": name, "email": email}} for id_, name, email in PEOPLE]
)
MONGO = json.dumps({"_id": {"$oid": "5f"}, "name": "Ada", "address": {"email": "ada@example.com"}})
NO_RECORDS = {
    "jq prints objects": (
        '{\n  "id": 1,\n  "name": "Ada",\n  "email": "ada@example.com"\n}\n{\n  "id": 2,\n  "name": "Bo",\n'
        '  "email": "bo@example.com"\n}\n'
    ),
    "one object over several lines": '{\n  "id": 1,\n  "name": "Ada",\n  "email": "ada@example.com"\n}\n',
    "one with a list in it": '{\n  "id": 1,\n  "name": "Ada",\n  "tags": ["a", "b"],\n  "email": "ada@example.com"\n'
    "}\n",
    "pandas to_json": '{"id":{"0":1,"1":2},"name":{"0":"Ada","1":"Bo"},"email":{"0":"ada@example.com",'
    '"1":"bo@example.com"}}',
    "pandas to_json split": '{"columns":["id","name","email"],"index":[0,1],"data":[[1,"Ada","ada@example.com"],[2,'
    '"Bo","bo@example.com"]]}',
    "two lists": '{"users": [{"id": 1, "name": "Ada", "email": "ada@example.com"}], "products": [{"id": 1, "name": '
    '"Pen", "price": 1}]}',
    "Django dumpdata": DUMPDATA,
    "rows without keys": '[["id","name","email"],[1,"Ada","ada@example.com"]]',
    "MongoDB": MONGO,
}


@pytest.mark.parametrize("kind", NO_RECORDS)
def test_json_that_is_not_records_stores_nothing_and_says_so(load: Load, kind: str) -> None:
    loaded = load(NO_RECORDS[kind])
    told = loaded.error + " ".join(loaded.messages.values())
    assert loaded.status in (1, 2, 3) and "export" in loaded.error + "export" * bool(loaded.messages) and told.strip()
    if kind != "two lists":  # what stands above the second list has been read when that comes
        assert loaded.rows == []


@pytest.mark.parametrize("kind", ["jq prints objects", "one object over several lines", "one with a list in it"])
def test_objects_over_several_lines_are_refused_with_the_command_that_helps(
    load: Load, tmp_path: Path, kind: str
) -> None:
    loaded = load(NO_RECORDS[kind])
    assert loaded.status == 2 and "jq -c" in loaded.error
    if shutil.which("jq"):
        command = re.search(r"jq -c '?\.'?", loaded.error).group()
        lines = subprocess.run(
            [*shlex.split(command), "export"], cwd=tmp_path, capture_output=True, check=True, timeout=30
        ).stdout
        assert set(load(lines).found.values()) == {GOOD}


def test_a_django_dump_is_refused_with_the_command_that_helps(load: Load, tmp_path: Path) -> None:
    loaded = load(DUMPDATA)
    assert loaded.status == 2 and "fields" in loaded.error
    assert "jq" in loaded.error
    if shutil.which("jq"):
        command = re.search(r"jq -c '[^']+' export", loaded.error).group()
        records = subprocess.run(
            shlex.split(command), cwd=tmp_path, capture_output=True, check=True, timeout=30
        ).stdout
        assert load(records).rows == PEOPLE


def test_objects_without_any_field_are_refused_with_what_they_have(load: Load) -> None:
    loaded = load('[{"_id":{"$oid":"5f"},"nmae":"Ada"},{"_id":{"$oid":"6f"},"nmae":"Bo"}]')
    assert loaded.status == 2 and "no column id" in loaded.error and '"nmae"' in loaded.error


# --------------------------------------------------------------------------------------- A list that is wrapped in JSON

WRAPPED = {
    "alone": '{"users": LIST}', "called otherwise": '{"data": LIST}',
    "after values": '{"count": 3, "next": null, "ok": true, "users": LIST}',
    "before values": '{"users": LIST, "count": 3, "next": null}', "pretty": '{\n  "users":\n  LIST\n}\n',
    "spaces": '\n\n { "users" : LIST } \n', "after an object": '{"meta": {"page": 1, "pages": 9}, "users": LIST}',
    "before an object": '{"users": LIST, "meta": {"page": 1}}', "a text like a list": '{"note": "[{", "users": LIST}',
}


@pytest.mark.parametrize("name", ["export.json", "export.jsonl", "export"])
@pytest.mark.parametrize("kind", WRAPPED)
def test_an_object_with_one_list_in_it_is_that_list(load: Load, kind: str, name: str) -> None:
    for array in (USERS_AS["sqlite3 -json"], USERS_AS["jq"], USERS_AS["jq -c of an array"]):
        loaded = load(WRAPPED[kind].replace("LIST", array.strip()), name=name)
        assert (loaded.status, loaded.rows) == (0, PEOPLE), loaded.error


@pytest.mark.parametrize("text", [
    '{"columns": [{"name": "id"}, {"name": "name"}], "rows": LIST}', '{"errors": [{"code": 5}], "users": LIST}',
    '{"users": LIST, "errors": [{"code": 5}]}', '{"tags": [], "users": LIST}',
])
def test_of_several_lists_that_of_the_records_is_read(load: Load, text: str) -> None:
    loaded = load(text.replace("LIST", USERS_AS["jq -c of an array"].strip()))
    assert (loaded.status, loaded.rows) == (0, PEOPLE), loaded.error


def test_a_list_whose_first_element_is_empty_goes_before_one_without_any(load: Load) -> None:
    person = '{"id": 3, "name": "Zoe", "email": "zoe@example.com"}'
    loaded = load(f'{{"tags": [], "users": [{{}}, {person}]}}')
    assert loaded.status == 1 and loaded.rows == [(3, "Zoe", "zoe@example.com")]


@pytest.mark.parametrize("text", ['{"users": []}', "[]", " [ ]\n", '{"users": [\n]}', "id,name,email\n"], ids=ascii)
def test_a_list_of_no_records_is_loaded(load: Load, text: str) -> None:
    loaded = load(text)
    assert (loaded.status, loaded.found, loaded.rows) == (0, {}, [])


def test_json_lines_with_lists_in_them_are_lines(load: Load) -> None:
    lines = [
        json.dumps({"tags": ["a", {"b": [1]}], "id": id_, "name": name, "email": email}) for id_, name, email in PEOPLE
    ]
    for text in ("\n".join(lines), "\n".join(lines[:1]), "\n\n" + "\r\n".join(lines) + "\r\n"):
        loaded = load(text)
        assert loaded.status == 0 and loaded.rows == PEOPLE[: text.count("tags")] and "tags" in loaded.error


# --------------------------------------------------------------------------------------------------- Quotes gone astray

INCHES = [(1, "Ada", '"great scr'), (2, "Bo", "ok"), (3, "Cy", 'wants 15"'), (4, "Dee", "fine")]
FEET = [
    (1, "Ada", '"Best of" show'),
    (2, "Bo", '6" or 7"'),
    (3, "Cy", ""),
    (5, "Eve", '""x'),
    (6, "Fay", 'said "no"'),
    (7, "Gus", 'ok"'),
]


def table(records: list[tuple], order: tuple[str, ...], separator: str, end: str = "\n") -> str:
    """Return lines of users with a note, as a program writes them that knows nothing of quotes."""
    cells = [
        dict(zip(("id", "name", "notes"), map(str, record)), email=f"{record[1].lower()}@example.com")
        for record in records
    ]
    return "".join(
        separator.join(row[name] for name in order) + end for row in [{name: name for name in order}, *cells]
    )


@pytest.mark.parametrize(
    "order",
    [
        ("id", "name", "notes", "email"),
        ("id", "name", "email", "notes"),
        ("notes", "id", "name", "email"),
        ("name", "notes", "id", "email"),
        ("notes", "name", "email", "id"),
    ],
    ids="-".join,
)
@pytest.mark.parametrize("separator", [",", "\t", ";", "|"], ids=["comma", "tab", "semicolon", "bar"])
@pytest.mark.parametrize("size", ["1", "1000"])
def test_a_stray_quote_in_an_ignored_column_swallows_nobody(
    load: Load, order: tuple[str, ...], separator: str, size: str
) -> None:
    loaded = load(table(INCHES, order, separator), "--batch-size", size)
    stored = {row[0]: row for row in loaded.rows}
    assert {2, 3, 4} <= stored.keys()
    assert all(
        row == (id_, name, f"{name.lower()}@example.com") for id_, name, _ in INCHES for row in [stored.get(id_)] if row
    )
    assert loaded.found == {2: loaded.found[2], 3: GOOD, 4: GOOD, 5: GOOD}
    assert loaded.status == (0 if 1 in stored else 1)


@pytest.mark.parametrize("separator", [",", "\t", ";"], ids=["comma", "tab", "semicolon"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_stray_quotes_of_all_kinds_cost_their_own_lines_at_most(load: Load, separator: str, end: str) -> None:
    for order in (("id", "name", "notes", "email"), ("id", "name", "email", "notes"), ("id", "notes", "name", "email")):
        chance = random.Random(str(order))
        for _ in range(2):
            records = [(id_, *chance.choice(FEET)[1:]) for id_ in range(1, 40)]
            records = [(id_, f"{name}{id_}", note) for id_, name, note in records]
            loaded = load(table(records, order, separator, end))
            stored = {row[0]: row for row in loaded.rows}
            for id_, name, note in records:
                assert stored.get(id_, (id_, name, f"{name.lower()}@example.com")) == (
                    id_,
                    name,
                    f"{name.lower()}@example.com",
                )
                assert id_ in stored or '"' in note, (id_, note)
            assert set(loaded.found) == set(range(2, 41))


@pytest.mark.parametrize("separator", [",", "\t", ";"], ids=["comma", "tab", "semicolon"])
def test_ditto_marks_below_one_another_swallow_nobody(load: Load, separator: str) -> None:
    text = (
        'id,name,notes,email\n1,Ada,as last year,ada@example.com\n2,Bo,",bo@example.com\n3,Cy,",cy@example.com\n'
        '4,Dee,",dee@example.com\n'
    )
    loaded = load(text.replace(",", separator))
    assert set(loaded.found) == {2, 3, 4, 5}
    assert set(loaded.rows) <= {
        (id_, name, f"{name.lower()}@example.com") for id_, name in enumerate(("Ada", "Bo", "Cy", "Dee"), start=1)
    }


def test_a_stray_quote_in_a_name_costs_its_own_line(load: Load) -> None:
    text = 'id,name,price\n1,"TV 15 inch,300\n2,Lamp,20\n3,Screen 17",250\n4,"Pen, red",2\n5,"Ink ""blue""",3\n'
    loaded = load(text, model="products")
    assert loaded.found == {2: "malformed", 3: GOOD, 4: loaded.found[4], 5: GOOD, 6: GOOD}
    assert {(2, "Lamp", 20.0), (4, "Pen, red", 2.0), (5, 'Ink "blue"', 3.0)} <= set(loaded.rows)
    assert loaded.messages[2] == "a quote is opened and not closed"


@pytest.mark.parametrize("below", [0, 1, 3000])
def test_an_open_quote_is_called_that_wherever_it_stands(load: Load, below: int) -> None:
    good = "".join(f"{number},Ann,a{number}@example.com\n" for number in range(3, 3 + below))
    loaded = load(f'id,name,email\n1,Ann,a1@example.com\n2,"Bo,b@example.com\n{good}')
    assert loaded.messages[3] == "a quote is opened and not closed"
    assert [line for line, what in loaded.found.items() if what != GOOD] == [3] and len(loaded.rows) == 1 + below


def test_cells_of_several_lines_are_kept_together(load: Load) -> None:
    text = (
        'id,name,note,email\n1,Ada,"first, second\nthird; 1,2\n\n""fourth""",ada@example.com\n2,Bo Li,"1,2,3\r\n9,9,'
        '9,9,9",bo@example.com\n'
        "3,Zoë,,zoe@example.com\n"
    )
    loaded = load(text)
    assert loaded.found == {2: GOOD, 6: GOOD, 8: GOOD} and loaded.rows == PEOPLE


# ----------------------------------------------------------------------------------------------------------- Separators


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"], ids=["comma", "semicolon", "tab", "bar"])
@pytest.mark.parametrize("above", ["", "sep=SEPARATOR", '"sep=SEPARATOR"', "SEP=SEPARATOR"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_the_separator_is_the_headers(load: Load, separator: str, above: str, end: str) -> None:
    others = ",;\t|".replace(separator, "")
    lines = [*([above.replace("SEPARATOR", separator)] if above else []), "email;id;name;more".replace(";", separator)]
    for id_, _, email in PEOPLE:
        lines.append(
            separator.join(
                [email, str(id_), f'"A{others}{separator}b"' if separator != "\t" else f"A{others.strip()}b", others]
            )
        )
    loaded = load(end.join([*lines, ""]).replace("\t,", "\t").replace(f"{others}{end}", f'"{others}"{end}'))
    name = f"A{others}{separator}b" if separator != "\t" else f"A{others.strip()}b"
    first = 3 if above else 2
    assert set(loaded.found) == {first, first + 1, first + 2}
    if "\t" in name:
        assert set(loaded.found.values()) == {"bad_text"}
    else:
        assert [row[1] for row in loaded.rows] == [name] * 3
    told = [line for line in notices(loaded) if "more" not in line]
    assert len(told) == (separator != ",")


def test_a_decimal_comma_is_told_as_what_it_is(load: Load) -> None:
    loaded = load('id;name;price\r\n1;Pen;12,50\r\n2;Ink;12.50\r\n3;Lamp;"1.299,00"\r\n', model="products")
    assert loaded.found == {2: "not_number", 3: GOOD, 4: "not_number"}
    assert loaded.messages[2] == 'price "12,50" is not a number: it holds ","' and '","' in loaded.messages[4]


@pytest.mark.parametrize("header", ["id,name;email", "id name email", "id:name:email", "id;name,email|note"])
def test_a_header_that_no_separator_completes_is_refused(load: Load, header: str) -> None:
    loaded = load(f"{header}\n1,Ada;ada@example.com\n")
    assert loaded.status == 2 and "email" in loaded.error


def test_the_separator_of_most_cells_is_not_the_headers(load: Load) -> None:
    loaded = load("id;name;email;a,b,c,d\n1;Ada;ada@example.com;1,2,3,4\n")
    assert loaded.rows == PEOPLE[:1]


# ------------------------------------------------------------------------------------------- Blank, short and long rows

SHORT_AND_LONG = {
    "rows of commas": (
        "id,name,email,note\n1,Ada,ada@example.com,x\n,,,\n2,Bo Li,bo@example.com,\n,,,\n,,,\n",
        {2: GOOD, 4: GOOD},
    ),
    "rows of quotes": ('id,name,email\n1,Ada,ada@example.com\n"","",""\n2,Bo Li,bo@example.com\n', {2: GOOD, 4: GOOD}),
    "rows of spaces between commas": (
        "id,name,email\n1,Ada,ada@example.com\n , ,\t\n2,Bo Li,bo@example.com\n",
        {2: GOOD, 4: GOOD},
    ),
    "fewer commas than columns": (
        "id,name,email\n1,Ada,ada@example.com\n,\n2,Bo Li,bo@example.com\n,,,,,,,\n",
        {2: GOOD, 4: GOOD},
    ),
    "lines of spaces": (
        "id,name,email\n1,Ada,ada@example.com\n   \n2,Bo Li,bo@example.com\n \t \n",
        {2: GOOD, 4: GOOD},
    ),
    "blank lines": ("\n\nid,name,email\n\n1,Ada,ada@example.com\n\r\n\n2,Bo Li,bo@example.com\n\n", {5: GOOD, 8: GOOD}),
    "a separator at each end": (
        "id,name,email,\n1,Ada,ada@example.com,\n2,Bo Li,bo@example.com,\n",
        {2: GOOD, 3: GOOD},
    ),
    "a separator at the end of rows alone": (
        "id,name,email\n1,Ada,ada@example.com,\n2,Bo Li,bo@example.com,,,\n",
        {2: GOOD, 3: GOOD},
    ),
    "quoted and empty surplus": (
        'id,name,email\n1,Ada,ada@example.com,""\n2,Bo Li,bo@example.com, \n',
        {2: GOOD, 3: GOOD},
    ),
    "short of ignored columns": (
        "id,name,email,note,tag\n1,Ada,ada@example.com\n2,Bo Li,bo@example.com,x\n",
        {2: GOOD, 3: GOOD},
    ),
    "short of a used column": (
        "id,note,name,email\n1,x,Ada,ada@example.com\n2,x,Bo\n3\n",
        {2: GOOD, 3: "malformed", 4: "malformed"},
    ),
    "too long": (
        "id,name,email\n1,Ada,ada@example.com\n2,Bo,bo@example.com,x\n3,Cy,,cy@example.com\n",
        {2: GOOD, 3: "malformed", 4: "malformed"},
    ),
    "too long after ignored columns": (
        "id,name,email,note\n1,Ada,ada@example.com,a,b\n2,Bo Li,bo@example.com,a,\n",
        {2: "malformed", 3: GOOD},
    ),
}


@pytest.mark.parametrize("separator", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
@pytest.mark.parametrize("kind", SHORT_AND_LONG)
def test_rows_that_are_empty_short_or_long_do_no_harm_where_it_does_not_matter(
    load: Load, kind: str, separator: str
) -> None:
    text, expected = SHORT_AND_LONG[kind]
    if separator == "\t" and "\t" in text:
        return
    loaded = load(text.replace(",", separator))
    assert loaded.found == expected and loaded.status == (0 if set(expected.values()) == {GOOD} else 1)
    assert loaded.rows == [
        row for row in PEOPLE[:2] if row[0] - 1 < len(expected) and list(expected.values())[row[0] - 1] == GOOD
    ]


def test_a_row_of_another_length_is_told_with_both_numbers(load: Load) -> None:
    loaded = load("id,name,email\n1,Ada\n2,Bo,bo@example.com,x,y\n")
    assert "2 cells" in loaded.messages[2] and "5 cells" in loaded.messages[3]
    assert all("3" in message for message in loaded.messages.values())


def test_spaces_around_cells_and_before_quotes_are_dropped(load: Load) -> None:
    loaded = load('id, name, price\n1, "Pen, red", 1.20\n 2 ,\t"TV 15""" , 250\n3,  Désk  , 99.5 \n', model="products")
    assert (loaded.status, loaded.rows) == (0, GOODS)
    loaded = load(
        'id, name, email\n1, Ada, ada@example.com\n2, "Bo Li", "bo@example.com"\n3,\u00a0Zoë\u3000, zoe@example.com\n'
    )
    assert (loaded.status, loaded.rows) == (0, PEOPLE)


# ------------------------------------------------------------------------------------------------------------ Encodings

ACCENTS = [
    (1, "André", "andre@example.com"),
    (2, "Bo", "bo@example.com"),
    (3, "Zoë", "zoe@example.com"),
    (4, "Dee", "dee@example.com"),
]


def accents(encoding: str, separator: str = ",") -> bytes:
    """Return these four users in an encoding."""
    return "".join(separator.join(map(str, row)) + "\r\n" for row in [MODELS["users"], *ACCENTS]).encode(encoding)


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "cp850", "mac-roman", "ISO-8859-15"])
@pytest.mark.parametrize("separator", [",", ";"])
def test_bytes_that_are_no_text_cost_their_records_and_one_notice_says_what_helps(
    load: Load, encoding: str, separator: str
) -> None:
    data = accents(encoding, separator)
    loaded = load(data)
    assert loaded.found == {2: "bad_text", 3: GOOD, 4: "bad_text", 5: GOOD} or loaded.found == {
        2: "malformed",
        3: GOOD,
        4: "malformed",
        5: GOOD,
    }
    told = [line for line in notices(loaded) if "separated" not in line]
    assert len(told) == 1 and "UTF-8" in told[0] and "--encoding" in told[0]
    assert f"0x{'é'.encode(encoding)[0]:02X}" in told[0]
    helped = load(data, "--encoding", encoding)
    assert helped.rows == ACCENTS and helped.status == 0 and "--encoding" not in helped.error


def test_the_notice_names_a_flag_that_loads_what_windows_wrote(load: Load) -> None:
    data = "id,name,email\n1,O’Neill – €,a@example.com\n2,Andr\u00e9,b@example.com\n".encode("cp1252")
    flag = re.search(r"--encoding \S+", load(data).error).group().rstrip(".,;:)").split()
    loaded = load(data, *flag)
    assert [row[1] for row in loaded.rows] == ["O’Neill – €", "André"]


def test_bytes_in_an_ignored_column_do_no_harm(load: Load) -> None:
    data = "id,note,name,email\n1,André,Ada,ada@example.com\n2,\x80\xff,Bo Li,bo@example.com\n".encode("latin-1")
    loaded = load(data)
    assert loaded.status == 0 and loaded.rows == PEOPLE[:2] and len(notices(loaded)) == 1
    lines = (
        b'{"id":1,"name":"Ada","email":"ada@example.com","note":"\xe9"}\n{"id":2,"name":"Bo Li",'
        b'"email":"bo@example.com","note":""}\n'
    )
    assert load(lines).rows == PEOPLE[:2]


@pytest.mark.parametrize(
    ("encoding", "flag"),
    [
        ("utf-16-le", "utf-16-le"),
        ("utf-16-be", "utf-16-be"),
        ("cp037", "cp037"),
        ("cp1252", "CP1252"),
        ("utf-8-sig", "utf-8"),
        ("utf-16", "cp1252"),
        ("utf-8", "utf_8"),
    ],
)
def test_an_encoding_may_be_named_and_a_mark_is_stronger(load: Load, encoding: str, flag: str) -> None:
    loaded = load(accents(encoding), "--encoding", flag)
    assert (loaded.status, loaded.rows) == (0, ACCENTS)


def test_utf_16_without_a_mark_is_told_how_to_be_loaded(load: Load) -> None:
    loaded = load(accents("utf-16-le"))
    assert loaded.status == 2
    flag = re.search(r"--encoding [\w-]+", loaded.error).group().split()
    assert load(accents("utf-16-le"), *flag).rows == ACCENTS


@pytest.mark.parametrize("name", ["utf-9", "", "é", "base64", "rot13", "idna", "undefined", "unicode_escape\0"])
def test_an_encoding_that_is_none_is_wrong_usage(load: Load, name: str) -> None:
    loaded = load(accents("utf-8"), "--encoding", name)
    assert loaded.status == 2 and "--encoding" in loaded.error


def test_control_characters_are_judged_by_the_record_and_make_no_file_binary(
    load: Load, here: Run, tmp_path: Path
) -> None:
    lines = [
        f"{number},{'Bell' + chr(7) if number % 9 == 0 else 'Ann'},u{number}@example.com,{chr(27)}[31mred{chr(27)}[0m\n"
        for number in range(1, 91)
    ]
    loaded = load("id,name,email,note\n" + "".join(lines), "--rejects", "rejected")
    assert list(loaded.found.values()).count("bad_text") == 10 and loaded.status == 1
    assert all("U+0007" in message for message in loaded.messages.values() if message)
    again = load((tmp_path / "rejected" / "users.csv").read_bytes())
    assert again.status == 1 and list(again.found.values()) == ["bad_text"] * 10


# -------------------------------------------------------------------------------------------------------------- Numbers

WHOLE = {"5": 5, "5.0": 5, "5.000": 5, "007": 7, "9223372036854775807": 2**63 - 1, "1.0": 1}
NOT_WHOLE = {
    "5.5": "not_integer", "0": "not_positive", "-3": "not_positive", "-3.0": "not_positive",
    "9223372036854775808": "out_of_range", "1_000": "not_integer", "1,000": "not_integer", "5 EUR": "not_integer",
    "#5": "not_integer", "٣": "not_integer", "１２": "not_integer", "0x10": "not_integer", "five": "not_integer",
    "true": "not_integer", "5²": "not_integer", "5.0.0": "not_integer", "1 000": "not_integer",
}
PRICES = {
    "5": 5.0, ".5": 0.5, "5.": 5.0, ".50": 0.5, "1e3": 1000.0, "1E-2": 0.01, "2.5e+2": 250.0, "0.1": 0.1,
    "123456789012345": 123456789012345.0, "0.123456789012345": 0.123456789012345, "12345678.9012345": 12345678.9012345,
    "1e300": 1e300, "9.99": 9.99, "1000.00": 1000.0,
}
NOT_PRICES = {
    "1,299.00": ",", "$5": "$", "5 EUR": "E", "12,50": ",", "€5": "€", "5€": "€", "1'000": "'", "10%": "%",
    "1_000": "_", "0x10": "x", "nan": "n", "inf": "i", "Infinity": "I", "-inf": None, "NaN": "N", "USD 5": "U",
    "(5)": "(", "5/2": "/", "~5": "~", "٣": "٣", "１２": "１", "5.0.0": ".", "1e5e5": "e", "1\u202f000": None,
    "1 000": None,
}
OUT_OF_RANGE = [
    "9007199254740993", "9007199254740992.5", "9007199254740991", "1234567890123456", "0.30000000000000004", "1e400",
    "9e999", "1.234567890123456",
]


def as_csv(model: str, field: str, values: list[str]) -> str:
    """Return a file with these values of one field, the other fields good, all cells quoted."""
    records = [
        {
            name: {"id": id_, "name": f"N{id_}", "email": f"e{id_}@example.com", "price": 1}.get(name, 1)
            for name in MODELS[model]
        }
        for id_ in range(1, len(values) + 1)
    ]
    rows_ = [
        [value if name == field else str(record[name]) for name in MODELS[model]]
        for record, value in zip(records, values)
    ]
    return "".join(
        ",".join('"{}"'.format(cell.replace('"', '""')) for cell in row) + "\n" for row in [list(MODELS[model]), *rows_]
    )


def as_json(model: str, field: str, values: list[str], bare: bool) -> str:
    """Return the same as JSON Lines, the values as numbers or as texts."""
    names, *cells = csv.reader(as_csv(model, field, values).splitlines())
    return "".join(
        "{%s}\n"
        % ", ".join(
            f'"{name}": '
            f"{cell if name == field and bare or name in ('price', 'id') and name != field else json.dumps(cell)}"
            for name, cell in zip(names, row)
        )
        for row in cells
    )


@pytest.mark.parametrize("values", [[value] for value in (*WHOLE, *NOT_WHOLE)], ids=lambda values: ascii(values[0]))
def test_a_whole_number_is_judged_by_its_text_alike_in_all_notations(load: Load, values: list[str]) -> None:
    expected = {**NOT_WHOLE, **dict.fromkeys(WHOLE, GOOD)}[values[0]]
    stored = [(WHOLE[values[0]], "N1", "e1@example.com")] if values[0] in WHOLE else []
    texts = [
        as_csv("users", "id", values),
        as_csv("users", "id", [f" {values[0]}\t"]),
        as_json("users", "id", values, bare=False),
    ]
    if re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?|true", values[0]):
        texts.append(as_json("users", "id", values, bare=True))
    for text in texts:
        loaded = load(text)
        assert (list(loaded.found.values()), loaded.rows) == ([expected], stored), text


@pytest.mark.parametrize("size", ["1", "1000"])
def test_prices_as_people_and_programs_write_them_are_taken(load: Load, size: str) -> None:
    values = list(PRICES)
    expected = [(id_, f"N{id_}", price) for id_, price in enumerate(PRICES.values(), start=1)]
    for text in (
        as_csv("products", "price", values),
        as_csv("products", "price", [f"  {value} " for value in values]),
        as_json("products", "price", values, bare=False),
    ):
        assert load(text, "--batch-size", size, model="products").rows == expected
    bare = [value for value in values if re.fullmatch(r"(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", value)]
    assert [row[2] for row in load(as_json("products", "price", bare, bare=True), model="products").rows] == [
        PRICES[value] for value in bare
    ]


@pytest.mark.parametrize("value", NOT_PRICES, ids=ascii)
def test_a_price_that_is_no_number_is_rejected_with_what_is_in_the_way(load: Load, value: str) -> None:
    for text in (
        as_csv("products", "price", ["1", value, "2"]),
        as_json("products", "price", ["1", value, "2"], bare=False),
    ):
        loaded = load(text, model="products")
        assert list(loaded.found.values()) == [GOOD, "not_number", GOOD] and loaded.rows[1][0] == 3
        (message,) = filter(None, loaded.messages.values())
        if NOT_PRICES[value]:
            assert message == f'price "{value}" is not a number: it holds "{NOT_PRICES[value]}"'
        assert "it holds" in message and message.isprintable(), message


@pytest.mark.parametrize("value", OUT_OF_RANGE)
def test_a_price_of_more_digits_than_are_kept_is_never_stored_as_another_one(load: Load, value: str) -> None:
    for text in (
        as_csv("products", "price", [value]),
        as_json("products", "price", [value], bare=True),
        as_json("products", "price", [value], bare=False),
    ):
        loaded = load(text, model="products")
        assert (list(loaded.found.values()), loaded.rows) == (["out_of_range"], [])


def test_every_price_of_up_to_15_digits_is_stored_as_it_is(load: Load) -> None:
    chance = random.Random(7)
    values = []
    for _ in range(900):
        digits = "".join(chance.choices(string.digits, k=chance.randint(1, 15)))
        digits = chance.choice("123456789") + digits[1:]
        point = chance.randint(0, len(digits))
        values.append(
            chance.choice(
                [digits, f"{digits[:point]}.{digits[point:]}", f"0.{digits}", f"{digits}e{chance.randint(-20, 20)}"]
            )
        )
    stored = load(as_csv("products", "price", values), "--batch-size", "100", model="products").rows
    assert [row[2] for row in stored] == [float(value) for value in values]
    assert all(f"{float(value):.15g}" == f"{row[2]:.15g}" for value, row in zip(values, stored))


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("0", "not_positive"),
        ("0.0", "not_positive"),
        ("-0", "not_positive"),
        ("-5", "not_positive"),
        ("-.5", "not_positive"),
        ("0e9", "not_positive"),
        ("", "blank"),
        ("  ", "blank"),
        (r"\N", "missing"),
    ],
)
def test_a_price_that_is_none_is_rejected(load: Load, value: str, code: str) -> None:
    assert list(load(as_csv("products", "price", [value]), model="products").found.values()) == [code]


# ---------------------------------------------------------------------------------------------------------------- Texts


def test_mysqls_null_is_missing_in_every_column(load: Load) -> None:
    loaded = load(
        "id\tname\temail\n1\t\\N\tada@example.com\n2\tBo\t\\N\n\\N\tCy\tcy@example.com\n4\t\\n\td@example.com\n"
    )
    assert loaded.found == {2: "missing", 3: "missing", 4: "missing", 5: GOOD} and loaded.rows == [
        (4, "\\n", "d@example.com")
    ]


def test_names_that_only_look_alike_are_different(load: Load) -> None:
    names = [
        "Grid 102", "Grid 10²", "Grid 10₂", "fi", "ﬁ", "１", "1", "№", "No", "it", "瑩", "Ⅳ", "IV", "A B", "A  B",
        "A\u00a0B",
    ]
    loaded = load(
        "id,name,price\n" + "".join(f"{id_},{name},1\n" for id_, name in enumerate(names, start=1)), model="products"
    )
    # "fi" and its ligature are the same when their case is folded; all the others differ
    assert [line - 2 for line, found in loaded.found.items() if found != GOOD] == [names.index("ﬁ")]
    assert [row[1] for row in loaded.rows] == [name for name in names if name != "ﬁ"]


@pytest.mark.parametrize(
    ("first", "second"),
    [("Café", "Cafe\u0301"), ("straße", "STRASSE"), ("ΣΊΣΥΦΟΣ", "σίσυφος"), ("Pen", " PEN "), ("Å", "\u212b")],
    ids=ascii,
)
def test_names_that_differ_in_case_or_form_alone_are_the_same(load: Load, first: str, second: str) -> None:
    loaded = load(f"id,name,price\n1,{first},1\n2,{second},1\n3,other,1\n", model="products")
    assert loaded.found == {2: GOOD, 3: "not_unique", 4: GOOD}
    assert "1" in loaded.messages[3] and loaded.rows[0] == (1, first, 1.0)


@pytest.mark.parametrize("batch", ["1", "1000"])
def test_different_names_that_are_stored_are_sound(here: Run, load: Load, tmp_path: Path, batch: str) -> None:
    names = ["it", "瑩", "Grid 102", "Grid 10²", "ı", "I", "ss", "ẞt", "ſ", "K", "k\u0301"]
    loaded = load(
        "id,name,price\n" + "".join(f"{id_},{name},1\n" for id_, name in enumerate(names, start=1)),
        "--batch-size",
        batch,
        model="products",
    )
    assert len(loaded.rows) == len(names)
    assert here("--verify", "--db", "databases 1").returncode == 0


@pytest.mark.parametrize(
    ("character", "name"),
    [
        ("\n", "line break"),
        ("\r\n", "line break"),
        ("\t", "tab"),
        ("\x07", "U+0007"),
        ("\x1b", "U+001B"),
        ("\x9f", "U+009F"),
    ],
    ids=ascii,
)
def test_a_character_that_no_text_may_hold_is_named(load: Load, character: str, name: str) -> None:
    loaded = load(f'id,name,email\n1,"A{character}b",a@example.com\n')
    assert list(loaded.found.values()) == ["bad_text"] and name in list(loaded.messages.values())[0]
    loaded = load(json.dumps({"id": 1, "name": f"A{character}b", "email": "a@example.com"}))
    assert list(loaded.found.values()) == ["bad_text"] and name in loaded.messages[1]


# ----------------------------------------------------------------------------------------------------------------- JSON


@pytest.mark.parametrize(
    ("value", "shown", "code"),
    [
        ("null", None, "missing"),
        ("true", "true", "not_text"),
        ("false", "false", "not_text"),
        ("5", "5", "not_text"),
        ("5.50", "5.50", "not_text"),
        ('{"first": "A"}', '{"first": "A"}', "not_text"),
        ('{"first": {"b": [true, null]}}', '{"first": {"b": [true, null]}}', "not_text"),
        ('["a", null]', '["a", null]', "not_text"),
        ("[]", "[]", "not_text"),
        ("{}", "{}", "not_text"),
        ('""', None, "blank"),
        ('" "', None, "blank"),
    ],
)
@pytest.mark.parametrize("array", [False, True], ids=["lines", "array"])
def test_values_are_shown_as_the_input_has_them(
    load: Load, value: str, shown: str | None, code: str, array: bool
) -> None:
    text = f'{{"id": 1, "name": {value}, "email": "a@example.com"}}'
    loaded = load(f"[{text}]" if array else text)
    assert list(loaded.found.values()) == [code]
    assert shown is None or shown in loaded.messages[1], loaded.messages
    assert not re.search(r"None|True|False|\(\(", loaded.messages[1])


@pytest.mark.parametrize(
    ("value", "shown"), [("true", "true"), ("[1]", "[1]"), ('{"a": 1}', '{"a": 1}'), ("false", "false")]
)
def test_numbers_that_are_none_are_shown_as_the_input_has_them(load: Load, value: str, shown: str) -> None:
    loaded = load(f'{{"id": {value}, "name": "Pen", "price": {value}}}', model="products")
    assert loaded.found == {1: "not_integer not_number"} and loaded.messages[1].count(shown) == 2


@pytest.mark.parametrize("value", ["null", "5", '"text"', "true", "[1, 2]"])
def test_an_element_that_is_no_object_is_shown_as_the_input_has_it(load: Load, value: str) -> None:
    good = '{"id": 1, "name": "Ada", "email": "ada@example.com"}'
    for text, line in ((f"[{good},\n{value}]", 2), (f"{good}\n{value}\n", 2)):
        loaded = load(text)
        assert loaded.found == {1: GOOD, line: "malformed"} and value in loaded.messages[line]


def test_a_comma_at_the_end_of_a_line_of_json_is_told(load: Load) -> None:
    lines = USERS_AS["jq -c"].splitlines()
    loaded = load(f"{lines[0]}\n{lines[1]},\n{lines[2]}\n")
    assert loaded.found == {1: GOOD, 2: "malformed", 3: GOOD} and "comma at the end" in loaded.messages[2]
    every = load("".join(f"{line},\n" for line in lines))
    assert set(every.found.values()) <= {"malformed"} and every.rows == [] and every.status in (1, 2)


@pytest.mark.parametrize(
    ("tail", "line", "column"),
    [
        ('  {"id": 2 "name": "Bo"},\n  {"id": 3}\n]', 3, 12),
        ('  {"id": 2, "name": Bo}]', 3, 21),
        ("  {'id': 2}]", 3, 4),
        ("  ]", 3, 3),
        ("", 3, 1),
        ("  x]", 3, 3),
    ],
)
def test_a_syntax_error_in_an_array_ends_the_reading_there(load: Load, tail: str, line: int, column: int) -> None:
    loaded = load('[\n  {"id": 1, "name": "Ada", "email": "ada@example.com"},\n' + tail)
    assert loaded.status == 3 and loaded.rows == PEOPLE[:1] and loaded.cut
    assert list(loaded.found.values()) == [GOOD, "malformed"]
    message = list(loaded.messages.values())[1]
    assert f"line {line}" in message and f"column {column}" in message, message


# -------------------------------------------------------------------------------------- Large records and repeated keys


@pytest.mark.parametrize("kind", ["csv", "quoted", "lines", "array", "wrapped"])
def test_a_record_above_a_mebibyte_is_one_rejected_record(load: Load, kind: str) -> None:
    names = ["Ada", "x" * (1 << 20), "Cy"]
    if kind in ("csv", "quoted"):
        quote = '"' if kind == "quoted" else ""
        text = "id,name,email\n" + "".join(
            f"{id_},{quote}{name}{quote},u{id_}@example.com\n" for id_, name in enumerate(names, start=1)
        )
    else:
        lines = [
            json.dumps({"id": id_, "name": name, "email": f"u{id_}@example.com"})
            for id_, name in enumerate(names, start=1)
        ]
        text = "\n".join(lines) if kind == "lines" else "[\n" + ",\n".join(lines) + "]"
        text = f'{{"users": {text}}}' if kind == "wrapped" else text
    loaded = load(text)
    first = 1 if kind == "lines" else 2
    assert loaded.found == {first: GOOD, first + 1: "malformed", first + 2: GOOD}
    assert [row[0] for row in loaded.rows] == [1, 3] and len(loaded.messages[first + 1]) < 300


def test_a_repeated_key_is_told(load: Load) -> None:
    loaded = load(
        '{"id": 1, "name": "Ada", "email": "ada@example.com"}\n{"id": 2, "name": "Bo", "id": 3, "email": '
        '"bo@example.com"}\n'
    )
    assert loaded.found == {1: GOOD, 2: "malformed"} and '"id"' in loaded.messages[2]


@pytest.mark.parametrize("order", [("name", "id", "notes", "email"), ("notes", "id", "email", "name"), ("id", "notes", "name", "email")])
def test_two_stray_quotes_on_lines_that_follow_each_other_swallow_nobody(load: Load, order: tuple[str, ...]) -> None:
    people = {"id": "1 2 3", "name": "Ada Bo Cy", "email": "ada@x.org bo@x.org cy@x.org", "notes": '"great 15" ok'}
    cells = {field: texts.split() for field, texts in people.items()}
    lines = [",".join(order), *(",".join(cells[field][row] for field in order) for row in range(3))]
    loaded = load("\n".join(lines) + "\n")
    if order[0] != "notes":  # with the id to the right of the quote nobody knows
        assert loaded.found == {2: "malformed", 3: GOOD, 4: GOOD}
    assert set(loaded.rows) <= {(1, "Ada", "ada@x.org"), (2, "Bo", "bo@x.org"), (3, "Cy", "cy@x.org")}


@pytest.mark.parametrize(("end", "line"), [(",\n]\n", 7), ("\n", 6), (" {}]\n", 6)])
@pytest.mark.parametrize("many", [5, 4000])
def test_the_place_where_an_array_breaks_is_told(load: Load, many: int, end: str, line: int) -> None:
    records = [f'{{"id": {n:4}, "name": "A", "email": "a{n:04}@x.org"}}' for n in range(1, many + 1)]
    loaded = load("[\n" + ",\n".join(records) + end)
    column = 1 if line == 7 else len(records[0]) + 1  # behind the last whole element, if that is all that is known
    assert loaded.status == 3 and f"line {line + many - 5}, column {column}: " in loaded.cut
    assert len(loaded.rows) == many


@pytest.mark.parametrize("header", ["id,name,email,email", "id,ID,name,email"])
def test_a_column_that_is_there_twice_is_called_that(load: Load, header: str) -> None:
    assert f"the column {'email' if header.endswith('email,email') else 'id'} twice" in load(header + "\n1,2,3,4\n").error


@pytest.mark.parametrize("above", [
    '"meta": {"pagination": {"page": 1}}', '"links": {"self": "http://x/users?page[number]=2"}', '"name": "all", "count": 2',
])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_list_is_found_behind_objects_and_texts(load: Load, above: str, indent: int | None) -> None:
    people = [dict(zip(MODELS["users"], row)) for row in PEOPLE]
    loaded = load(f'{{{above}, "data": {json.dumps(people, indent=indent)}}}\n')
    assert (loaded.status, loaded.rows) == (0, PEOPLE)


def test_commas_behind_lines_of_json_are_called_that(load: Load) -> None:
    loaded = load(",\n".join(json.dumps(dict(zip(MODELS["users"], row))) for row in PEOPLE) + "\n")
    assert list(loaded.found.values()) == ["malformed", "malformed", GOOD]
    assert "a comma at the end" in loaded.messages[1]


@pytest.mark.parametrize("price", ["1 299.00", "1\u00a0299.00"])
def test_a_space_between_digits_is_what_is_in_the_way(load: Load, price: str) -> None:
    loaded = load(f"id,name,price\n1,Pen,{price}\n", model="products")
    assert loaded.messages[2].endswith(f"it holds {json.dumps(price[1])}" if price[1] == " " else 'it holds "\\xa0"')


def test_rows_of_blanks_are_no_records_beside_quotes_or_not(load: Load) -> None:
    for note in ("plain", '"quoted"'):
        assert load(f"id,name,email,note\n1,Ada,a@x.org,{note}\n   ,  ,  , \n").found == {2: GOOD}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp932"])
def test_rejects_in_any_encoding_load_again(here: Run, tmp_path: Path, encoding: str) -> None:
    (tmp_path / "users.csv").write_bytes("id,name,email\n1,山田,no\n2,鈴木,no\n3,田中,c@x.org\n".encode(encoding))
    named = ("--encoding", encoding)
    assert here("--users", "users.csv", "--rejects", "bad", *named).returncode == 1
    fixed = (tmp_path / "bad" / "users.csv").read_bytes().decode(encoding).replace(",no", ",{}@x.org")
    assert fixed.count("\ufeff") == 0 and fixed.count("{}") == 2
    (tmp_path / "fixed.csv").write_bytes(fixed.format("a", "b").encode(encoding))
    assert here("--users", "fixed.csv", *named).returncode == 0 and len(rows(tmp_path / "users.db")) == 3


@pytest.mark.parametrize("header", ["name,notes,email,id", "notes,id,name,email", "name,email,notes,id"])
def test_stray_quotes_on_neighbouring_lines_swallow_nobody_wherever_the_id_stands(load: Load, header: str) -> None:
    notes = {1: '"great scr', 2: 'wants 15"', 3: "fine"}
    people = [{"id": id_, "name": f"P{id_}", "email": f"p{id_}@example.com", "notes": notes[id_]} for id_ in notes]
    loaded = load(header + "\n" + "".join(",".join(str(each[name]) for name in header.split(",")) + "\n" for each in people))
    assert len(loaded.found) == 3 and [id_ for id_, *_ in loaded.rows][-2:] == [2, 3]
    assert all(row == (row[0], f"P{row[0]}", f"p{row[0]}@example.com") for row in loaded.rows)


@pytest.mark.parametrize(("header", "lines"), [
    ("id,name,email,notes", ['1,Ada,ada@example.com,"x,', '2,Bo,bo@example.com,y,', '3,Cy,cy@example.com,15",']),
    ("id,name,email,notes", ['1,Ada,ada@example.com,"x,,', '2,Bo,bo@example.com,y', '3,Cy,cy@example.com,15",,,']),
    ("id,name,email,notes,", ['1,Ada,ada@example.com,"x', '2,Bo,bo@example.com,y', '3,Cy,cy@example.com,15"']),
    ("id,name,email,notes,fax", ['1,Ada,ada@example.com,"x', '2,Bo,bo@example.com,y', '3,Cy,cy@example.com,15"']),
    ("id,name,email,notes,fax", ['1,Ada,ada@example.com,"x,1', '2,Bo,bo@example.com', '3,Cy,cy@example.com,15"']),
    ("id,name,email,notes,fax", ['1,Ada,ada@example.com,"x', '2,Bo,bo@example.com,y', '3,Cy,cy@example.com,15",5']),
])
def test_stray_quotes_in_rows_of_another_length_swallow_nobody(load: Load, header: str, lines: list[str]) -> None:
    loaded = load("\n".join([header, *lines, "4,Dee,dee@example.com,z"]) + "\n")
    assert len(loaded.found) == 4 and {2, 3, 4} <= {id_ for id_, *_ in loaded.rows}


@pytest.mark.parametrize(("separator", "header", "lines", "stored"), [
    (",", "id,name,notes,size,email", ['1,Ada,"great scr,ok,ada@example.com', '2,Bo,",wants 15",bo@example.com'], {3}),
    (",", "id,notes,name,size,email", ['1,"great scr,Ada,ok,ada@example.com', '2,",Bo,wants 15",bo@example.com'], {3}),
    ("\t", "name,email,size,notes,id", ['Ada,ada@example.com,a "b" c,"great,1', 'Bo,bo@example.com,ok,15",2'], {2, 3}),
    (",", "id,name,notes,email", ['1,Ada,"great scr,ada@example.com', ',Bo,ok,bo@example.com',
                                  'N/A,Dee,wants 15",dee@example.com'], {3}),
])
def test_stray_quotes_in_several_columns_or_beside_bad_ids_swallow_nobody(
    load: Load, separator: str, header: str, lines: list[str], stored: set[int]
) -> None:
    cells = {"id": "3", "name": "Cy", "email": "cy@example.com"}
    last = ",".join(cells.get(name, "fine") for name in header.split(","))
    loaded = load("\n".join([header, *lines, last]).replace(",", separator) + "\n")
    assert set(loaded.found) == set(range(2, len(lines) + 3))
    assert loaded.rows == [
        (id_, name, f"{name.lower()}@example.com") for id_, name in ((2, "Bo"), (3, "Cy")) if id_ in stored
    ]


def test_cells_of_several_lines_with_separators_and_quotes_are_kept_together(load: Load) -> None:
    notes = ["12 High St, London", "Flat 4\nUK, EU", "a, b, c\nd, e", 'say ""hi"", Bo\n5, 6\n', "7\n8, 9, 10, 11", "x"]
    people = [f'{id_},"{note}",Ann{id_},"{note}",a{id_}@example.com\n' for id_, note in enumerate(notes, 1)]
    loaded = load("id,home,name,work,email\n" + "".join(people))
    assert loaded.status == 0 and len(loaded.rows) == len(notes)


def test_a_stray_quote_above_a_cell_that_begins_with_a_line_break_costs_its_own_line(load: Load) -> None:
    rows_of_it = '1,Ada,"ok,ada@example.com', '2,Bo,"\nlater",bo@example.com', "3,Cy,ok,cy@example.com"
    loaded = load("\n".join(["id,name,notes,email", *rows_of_it]) + "\n")
    assert loaded.found == {2: "malformed", 3: GOOD, 5: GOOD}


def test_a_short_row_of_several_lines_stands_above_the_id_s_column(load: Load) -> None:
    loaded = load('notes,id,name,email\n"a\nb\nc"\nx,2,Bo,bo@example.com\n')
    assert loaded.found == {2: "malformed", 5: GOOD} and loaded.rows == [(2, "Bo", "bo@example.com")]


@pytest.mark.parametrize("last", ["5", "null", '"x"', "[]", '{"id":2,"id":3}'])
@pytest.mark.parametrize("end", ["]", "\n]\n"])
def test_the_last_element_of_an_array_counts_whatever_it_is(load: Load, last: str, end: str) -> None:
    loaded = load(f'[{{"id":1,"name":"Ada","email":"ada@example.com"}},\n{last}{end}')
    assert loaded.found == {1: GOOD, 2: "malformed"} and loaded.status == 1


@pytest.mark.parametrize(("text", "found"), [
    ('{"id":1,"name":"Ada","email":"ada@example.com","at":"12:30"}', GOOD),
    ('{"id":1,"name":"Ada","email":"ada@example.com","at":"\\":"}', GOOD),
    ('{"id":1,"name":"Ada","email":"ada@example.com","at":"}"}', GOOD),
    ('{"id":1,"name":"Ada","email":"ada@example.com","at":{"at":1}}', GOOD),
    ('{"id":1,"name":"Ada","email":"ada@example.com","name" :"Bo"}', "malformed"),
    ('{"id":1,"name":"Ada","email":"ada@example.com","name"\t:"Bo"}', "malformed"),
    ('{"id":1,"name":"\\":","name":"Ada","email":"ada@example.com"}', "malformed"),
])
@pytest.mark.parametrize("is_array", [False, True])
def test_a_key_that_comes_twice_is_seen_whatever_stands_in_texts(
    load: Load, text: str, found: str, is_array: bool
) -> None:
    other = '{"id":2,"name":"Bo","email":"bo@example.com"}'
    loaded = load(f"[{text},\n{other}]" if is_array else f"{text}\n{other}\n")
    assert loaded.found == {1: found, 2: GOOD}


@pytest.mark.parametrize(("row", "name"), [
    ('1,"Ada,\t""L""",a@example.com', None), ('1,\t\t"Bo, Li",a@example.com', "Bo, Li"),
    ('1, \t"Bo, Li",a@example.com', "Bo, Li"), ('1,\u00a0"Bo, Li",a@example.com', "Bo, Li"),
    ('\t"1","Bo, Li", "a@example.com"', "Bo, Li"), ('1,"Bo, ""Li""",a@example.com', 'Bo, "Li"')])
def test_white_space_before_a_quote_hides_it_and_within_one_is_kept(load: Load, row: str, name: str | None) -> None:
    loaded = load(f"id,name,email\n{row}\n")
    assert loaded.rows == ([(1, name, "a@example.com")] if name else [])


@pytest.mark.parametrize("above", [
    '"meta":{"a":{"b":{"c":1}}},', '"meta":{"tags":["a"]},', '"errors":[],', '"columns":["id","name"],', '"id":"export-1",',
    f'"note":"{"x" * 1000}[",', '"a":[[1],{"b":[]}],'])
@pytest.mark.parametrize("indent", [None, 2])
def test_the_list_of_objects_is_found_whatever_stands_above_it(load: Load, above: str, indent: int | None) -> None:
    text = f'{{{above}"users":[{{"id":1,"name":"Ada","email":"ada@example.com"}}]}}'
    loaded = load(json.dumps(json.loads(text), indent=indent))
    assert loaded.rows == [(1, "Ada", "ada@example.com")] and loaded.status == 0


def test_json_lines_that_begin_with_broken_ones_are_json_lines(load: Load) -> None:
    loaded = load('{"id":1,"name":\n{"id":2,"name":\n{"id":3,"name":"Cy","email":"cy@example.com"}\n')
    assert loaded.rows == [(3, "Cy", "cy@example.com")] and loaded.found == {1: "malformed", 2: "malformed", 3: GOOD}


def test_an_open_quote_above_a_million_short_lines_takes_no_gigabyte(tmp_path: Path) -> None:
    Path(tmp_path, "users.csv").write_text('id,name,email\n1,"' + "x\n" * 400_000 + "2,B,b@example.com")
    limited = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29)); " \
        f"sys.argv = ['x', '--users', 'users.csv', '-q', '--json']; runpy.run_path({str(PROGRAM)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", limited], cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT_S)
    summary = json.loads(done.stdout.splitlines()[-1])["summary"]["users"]
    assert (summary["inserted"], summary["rejected"], done.stderr) == (1, 400_000, "")


def test_a_file_whose_line_ends_change_far_below_is_read_whole(load: Load) -> None:
    lines = [f"{number},N{number},u{number}@example.com" for number in range(1, 60_001)]
    loaded = load("id,name,email\n" + "\n".join(lines[:400]) + "\n" + "\r".join(lines[400:]) + "\r")
    assert len(loaded.rows) == 60_000 and loaded.status == 0


def test_no_record_is_made_of_pieces_of_two_lines_of_json(load: Load) -> None:
    loaded = load('{"id":9,"name":"Z","email":"z@example.com"}\n{"id":1,"name":"x\ny","email":"a@example.com"}\n'
                  '{"id":2,"name":"B","email":"b@example.com"},{"id":3,"name":"C","email":"c@example.com"}\n')
    assert loaded.found == {1: GOOD, 2: "malformed", 3: "malformed", 4: "malformed"}


@pytest.mark.parametrize("first", ['{"id":1,"tags":[{"a":1}],"name":"A","email":"a@example.com"',
                                   '{"email":"a@example.com","tags":[{"x":1}]}', '{"comment":"","columns":[{"name":"id"}]}'])
def test_a_line_with_a_list_in_it_above_lines_of_json_is_a_line(load: Load, first: str) -> None:
    loaded = load(first + '\n{"id":2,"tags":[{"a":1}],"name":"B","email":"b@example.com"}\n')
    assert loaded.rows == [(2, "B", "b@example.com")] and len(loaded.found) == 2


@pytest.mark.parametrize("more", ['"errors":[]', '"links":["a"]', '"data":[1,[{}]]'])
def test_a_list_without_objects_behind_the_records_does_no_harm(load: Load, more: str) -> None:
    loaded = load('{"users":[{"id":1,"name":"Ada","email":"ada@example.com"}],' + more + "}")
    assert (loaded.status, loaded.rows) == (0, [(1, "Ada", "ada@example.com")])


@pytest.mark.parametrize(("text", "names"), [
    ('id,name,price,n1,n2\n1,Pen,2,"a\n10, 20, 30, 4\nc",y\n2,Q,3\n', ["Pen", "Q"]),
    ('id,notes,name,price\n1,"1, wash\n2, dry",Pen,2\n2,x,Q,3\n', ["Pen", "Q"]),
    ('notes,id,name,price\n "Ada, the\n5 z",1,Pen,2\nx,2,Q,3\n', ["Pen", "Q"])])
def test_lists_of_numbers_in_a_quoted_cell_stay_in_it(load: Load, text: str, names: list[str]) -> None:
    assert [row[1] for row in load(text, model="products").rows] == names


@pytest.mark.parametrize("text", ['{"data":{"users":[{"id":1,"name":"Ada","email":"ada@example.com"}]}}', '{"next":null}\n'])
def test_an_object_on_one_line_without_fields_is_refused_as_on_several(load: Load, text: str) -> None:
    for written in (text, json.dumps(json.loads(text), indent=1)):
        assert load(written).status == 2


def test_a_single_line_of_json_with_a_key_twice_is_a_rejected_record(load: Load) -> None:
    loaded = load('{"id":1,"name":"Ann","name":"B","email":"a@example.com"}\n')
    assert (loaded.status, loaded.found) == (1, {1: "malformed"})


def test_lists_of_other_things_behind_the_records_do_no_harm(load: Load) -> None:
    loaded = load('{"current_page":1,"data":[{"id":1,"name":"A","email":"a@example.com"}],"links":[{"url":null}]}')
    assert (loaded.status, loaded.rows) == (0, [(1, "A", "a@example.com")])


def test_a_number_that_json_does_not_have_is_shown_as_written(load: Load) -> None:
    assert load('{"id":1,"name":NaN,"email":"a@example.com"}\n').messages == {1: "name is NaN, not a text"}


def test_a_mark_where_files_of_json_lines_were_joined_does_no_harm(load: Load) -> None:
    lines = [json.dumps({"id": id_, "name": name, "email": email}) for id_, name, email in PEOPLE]
    assert load("\n\ufeff".join(lines)).rows == PEOPLE
