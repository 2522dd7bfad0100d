"""What goes wrong explains itself: mistakes in typing, files and folders, in up to three lines that say what to do."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import ROOT, Run, contents, execute, rows

USERS = "id,name,email\n1,Ada,ada@example.com\n2,Bo,bo@example.com\n"
PRODUCTS = "id,name,price\n1,Pen,1.5\n"
ORDERS = "id,user_id,product_id,quantity\n1,1,1,2\n"
FLAGS = ["--users", "--products", "--orders"]


def workbook(first: str = "[Content_Types].xml", text: str = "<Types/>") -> bytes:
    """Return the beginning of what Excel saves, or others who write its files: an archive with these names."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(first, text)
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return file.getvalue()


def archive() -> bytes:
    """Return a zip archive with a file of users."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zip_file:
        zip_file.writestr("users.csv", USERS)
    return file.getvalue()


FILES: dict[str, str | bytes] = {
    "users.csv": USERS,
    "products.csv": PRODUCTS,
    "orders.csv": ORDERS,
    "empty.csv": "",
    "blank.csv": "\n \r\n\n",
    "bom.csv": b"\xef\xbb\xbf",
    "headless.csv": "1,Ada,ada@example.com\n2,Bo,bo@example.com\n",
    "misspelt.csv": USERS.replace("email", "e_mail"),
    "swapped.csv": USERS.replace("name", "nmae"),
    "twice.csv": USERS.replace("name", "email"),
    "short.csv": "id,name\n1,Ada\n",
    "notes.txt": "Bring milk.\n",
    "spaces.csv": USERS.replace(",", " "),
    "book.xlsx": workbook(),
    "book.csv": workbook(),
    "openpyxl.xlsx": workbook("docProps/app.xml"),
    "book.ods": workbook("mimetype", "application/vnd.oasis.opendocument.spreadsheet"),
    "old.xls": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
    "users.zip": archive(),
    "users.csv.gz": gzip.compress(USERS.encode())[:40],
    "notes.gz": gzip.compress(b"Bring milk.\n"),
    "image.png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(99),
    "bytes.csv": bytes(range(256)) * 8,
    "zeros.csv": bytes(3000),
    "utf16.csv": USERS.encode("utf-16-le"),
    "page.html": "<!DOCTYPE html>\n<p>Sign in, please</p>\n",
    "objects.json": '{\n  "id": 1,\n  "name": "Ada",\n  "email": "ada@example.com"\n}\n',
    "number.json": "5\n",
    "text.json": '"users"\n',
    "open.json": "{",
    "products.json": '[{"id": 1, "name": "Pen", "price": 1.5}]',
    "dump.json": '[{"model": "shop.user", "pk": 1, "fields": {"name": "Ada"}}]',
    "mistyped.json": '[{"id": 1, "nmae": "Ada", "emial": "ada@example.com"}]',
    "trace.txt": '{"traceEvents": "not of ours"}',
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with files of all kinds, a database that is no input and a folder that is no file."""
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data.encode() if isinstance(data, str) else data)
    (tmp_path / "folder").mkdir()
    execute(tmp_path / "app.sqlite", "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, email TEXT)")
    return tmp_path


def check(result: subprocess.CompletedProcess, status: int, words: list[str]) -> None:
    """Make sure that a message says what is asked for, in at most three lines that show nothing raw."""
    lines = result.stderr.splitlines()
    assert result.returncode == status, result.stderr
    assert 1 <= len(lines) <= 3 and lines[0].startswith("distributed_inserts: "), result.stderr
    assert all(line.isprintable() for line in lines) and len(result.stderr) < 1500
    assert "internal error" not in result.stderr and "Traceback" not in result.stderr
    missing = [word for word in words if not any(each.lower() in result.stderr.lower() for each in word.split("|"))]
    assert not missing, (missing, result.stderr)


# ------------------------------------------------------------ Wrong usage: nothing is printed, written, made or touched

MISTAKES: list[tuple[str, list[str]]] = [
    # flags
    ("--usrs users.csv", ["--usrs", "--users"]),
    ("--user users.csv", ["--user", "--users"]),
    ("--Users users.csv", ["--users"]),
    ("-users users.csv", ["--users"]),
    ("--oders orders.csv", ["--orders"]),
    ("--product=products.csv", ["--products"]),
    ("--users users.csv --dryrun", ["--dryrun", "--dry-run"]),
    ("--users users.csv --reject bad", ["--rejects"]),
    ("--users users.csv --batchsize 5", ["--batch-size"]),
    ("--users users.csv --busy_timeout 5", ["--busy-timeout"]),
    ("--users users.csv --repalce", ["--replace"]),
    ("--verfy", ["--verify"]),
    ("--users users.csv --logfile log.txt", ["--log-file"]),
    ("--users users.csv --replaces", ["--replace"]),
    ("--users users.csv --batchsize=5", ["--batch-size"]),
    ("--users users.csv --encodign cp1252", ["--encoding"]),
    ("--users users.csv --josn", ["--json"]),
    ("--users users.csv --frobnicate", ["--frobnicate"]),
    ("-x", ["-x"]),
    # files without a flag
    ("users.csv", ["users.csv", "--users"]),
    ("users.csv products.csv orders.csv", ["users.csv", "--users"]),
    ("notes.txt", ["notes.txt", *FLAGS]),
    ("products.json", ["products.json", "--products"]),
    ("--users users.csv products.csv", ["products.csv", "--products"]),
    ("load users.csv", FLAGS),
    ("—users users.csv", ["--users"]),
    # values
    ("--users", ["--users"]),
    ("--users users.csv --db", ["--db"]),
    ("--users users.csv --db=", ["--db"]),
    ("--users users.csv --db=--", ["--db"]),
    ("--users=", ["--users"]),
    ("--users users.csv --batch-size 0", ["--batch-size", "0"]),
    ("--users users.csv --batch-size many", ["--batch-size", "many"]),
    ("--users users.csv --batch-size 1.5", ["--batch-size", "1.5"]),
    ("--users users.csv --busy-timeout soon", ["--busy-timeout", "soon"]),
    ("--users users.csv --busy-timeout -1", ["--busy-timeout"]),
    ("--users users.csv --busy-timeout nan", ["--busy-timeout"]),
    ("--users users.csv --encoding utf-9", ["--encoding", "utf-9"]),
    ("--users users.csv --users users.csv", ["--users", "twice|once|more than"]),
    ("--users - --products -", ["standard input", "only one|twice"]),
    ("--verify --users users.csv", ["--verify", "files|--users"]),
    # swapped files and columns
    ("--users products.csv --products users.csv", ["products.csv", "--products"]),
    ("--orders users.csv", ["users.csv", "--users"]),
    ("--products orders.csv", ["orders.csv", "--orders"]),
    ("--users products.json", ["products.json", "--products"]),
    ("--users misspelt.csv", ["misspelt.csv", "email", '"e_mail"']),
    ("--users swapped.csv", ["name", '"nmae"']),
    ("--users short.csv", ["email", '"id", "name"']),
    ("--users twice.csv", ["email", "twice|more than once"]),
    ("--users headless.csv", ["headless.csv", "header", '"Ada"']),
    ("--users spaces.csv", ["id", "name", "email", "id name email"]),
    ("--users notes.txt", ["notes.txt", "id", "name", "email"]),
    ("--users page.html", ["page.html"]),
    # what is no file of records
    ("--users folder", ["folder", "directory|is a folder"]),
    ("--users user.csv", ["user.csv", "no such file"]),
    ("--users folder/users.csv", ["folder/users.csv", "no such file"]),
    ("--users users.csv/users.csv", ["users.csv/users.csv", "not a directory"]),
    ("--users https://example.com/users.csv", ["https://example.com/users.csv", "URL|download|address"]),
    ("--users ftp://example.com/users.csv", ["ftp://example.com/users.csv", "URL|download|address"]),
    ("--users book.xlsx", ["book.xlsx", "Excel", "CSV"]),
    ("--users book.csv", ["book.csv", "Excel", "CSV"]),
    ("--users openpyxl.xlsx", ["openpyxl.xlsx", "Excel", "CSV"]),
    ("--users book.ods", ["book.ods", "OpenDocument", "CSV"]),
    ("--users old.xls", ["old.xls", "Excel", "CSV"]),
    ("--users users.zip", ["users.zip", "zip", "unpack|unzip"]),
    ("--users users.csv.gz", ["users.csv.gz"]),
    ("--users notes.gz", ["notes.gz", "id", "name", "email"]),
    ("--users image.png", ["image.png", "image"]),
    ("--users app.sqlite", ["app.sqlite", "SQLite", "sqlite3"]),
    ("--users bytes.csv", ["bytes.csv", "binary"]),
    ("--users zeros.csv", ["zeros.csv", "binary"]),
    ("--users utf16.csv", ["utf16.csv", "--encoding"]),
    ("--users empty.csv", ["empty.csv", "empty", "id"]),
    ("--users blank.csv", ["blank.csv", "empty", "id"]),
    ("--users bom.csv", ["bom.csv", "empty", "id"]),
    ("--users objects.json", ["objects.json", "jq -c"]),
    ("--users open.json", ["open.json"]),
    ("--users number.json", ["number.json"]),
    ("--users text.json", ["text.json"]),
    ("--users dump.json", ["dump.json", "fields", "jq"]),
    # places
    ("--users users.csv --db users.csv", ["users.csv", "folder|directory"]),
    ("--users users.csv --db users.csv/shop", ["users.csv", "folder|directory"]),
    ("--users users.csv --db app.sqlite", ["app.sqlite", "folder|directory"]),
    ("--users users.csv --db postgresql://loader:s3cret@db.example/shop", ["{model}"]),
    ("--users users.csv --db mysql://loader:s3cret@db.example/{model}", ["mysql", "postgresql"]),
    ("--users users.csv --db postgresql+psycopg://loader:s3cret@db.example/{model}", ["psycopg", "begins with"]),
    ("--users users.csv --db jdbc:postgresql://db.example/{model}?password=s3cret", ["jdbc", "begins with"]),
    ("--users users.csv --db '\"postgresql://loader:s3cret@db.example/{model}\"'", ["begins with"]),
    ("--users users.csv --db sqlite:///shop", ["sqlite", "folder"]),
    ("--verify --db databses", ["databses", "no such|there is no|not there|none"]),
    ("--verify --db folder", ["folder", "no users.db|none|users.db"]),
    # outputs that are something else
    ("--users users.csv --trace notes.txt", ["notes.txt"]),
    ("--users users.csv --trace trace.txt", ["trace.txt"]),
    ("--users users.csv --trace users.csv", ["users.csv"]),
    ("--users users.csv --log-file users.csv", ["users.csv"]),
    ("--users users.csv --log-file ./folder/../users.csv", ["users.csv"]),
    ("--users users.csv --log-file users.db", ["users.db"]),
    ("--users users.csv --trace users.db", ["users.db"]),
    ("--users users.csv --log-file both --trace both", ["--log-file", "--trace"]),
    ("--users users.csv --log-file folder", ["folder"]),
    ("--users users.csv --trace nowhere/trace.json", ["nowhere/trace.json"]),
    ("--users users.csv --rejects users.csv", ["users.csv", "folder|directory|exists"]),
    ("--users users.csv --rejects .", ["users.csv"]),
    ("--users users.csv --rejects=", ["--rejects"]),
]


@pytest.mark.parametrize(("line", "words"), MISTAKES, ids=lambda part: part if isinstance(part, str) else "")
def test_a_mistake_is_told_with_what_to_do_and_touches_nothing(
    here: Run, place: Path, line: str, words: list[str]
) -> None:
    before = contents(place)
    result = here(*line.split(" "))
    check(result, 2, words)
    assert result.stdout == "" and "s3cret" not in result.stderr
    assert contents(place) == before


@pytest.mark.parametrize(
    "name",
    ["users\x1b[31m.csv", "users\n.csv", "users\u202e.csv", "x" * 3000 + ".csv"],
    ids=["escape", "line break", "bidi", "long"],
)
def test_names_are_escaped_and_cut_in_messages(here: Run, place: Path, name: str) -> None:
    before = contents(place)
    for arguments in (
        ["--users", name],
        [name],
        ["--users", "users.csv", "--encoding", name],
        ["--users", "users.csv", f"--{name}"],
    ):
        result = here(*arguments)
        assert result.returncode == 2 and result.stderr.count("\n") <= 3
        assert all(line.isprintable() for line in result.stderr.splitlines()), ascii(result.stderr)
    assert contents(place) == before


def test_misspelt_keys_of_json_are_told_and_missing(here: Run, place: Path) -> None:
    result = here("--users", "mistyped.json", "--json")
    check(result, 1, ["mistyped.json", '"nmae"', '"emial"'])
    assert [each["code"] for each in json.loads(result.stdout.splitlines()[0])["problems"]] == ["missing", "missing"]


def test_a_header_alone_is_a_load_of_no_records(here: Run, place: Path) -> None:
    (place / "users.csv").write_text(USERS.splitlines()[0], encoding="utf-8")
    result = here("--users", "users.csv")
    assert result.returncode == 0 and "0 records" in result.stdout
    assert result.stderr == "distributed_inserts: users.csv holds no record\n"


# ------------------------------------------------------------------------------------------ The folder of the databases


@pytest.mark.parametrize("stored", [("users",), ("products",), ()], ids=lambda stored: "+".join(stored) or "nothing")
def test_orders_for_a_mistyped_folder_are_told_that_there_is_no_such_database(
    here: Run, place: Path, stored: tuple[str, ...]
) -> None:
    if stored:
        here(*(word for model in stored for word in (f"--{model}", f"{model}.csv")), "--db", "databses")
    result = here("--orders", "orders.csv", "--db", "databses", "--json", "--dry-run")
    line = json.loads(result.stdout.splitlines()[0])
    messages = {
        problem["field"]: problem["message"] for problem in line["problems"] if problem["code"] == "no_such_reference"
    }
    missing = {f"{model[:-1]}_id": model for model in ("users", "products") if model not in stored}
    assert messages.keys() == missing.keys() and result.returncode == 1
    for field, model in missing.items():
        assert f"there is no {model}.db in databses" in messages[field]
    assert (place / "databses").exists() == bool(stored)


def test_the_sample_where_something_else_is_stored_is_refused_with_the_flags(here: Run, place: Path) -> None:
    here("--users", "users.csv", "--db", "shop")
    before = contents(place)
    result = here("--db", "shop")
    check(result, 2, ["users.db", "sample", "--users|--db|--help"])
    assert result.stdout == "" and contents(place) == before


def test_verify_of_a_part_says_which_databases_there_are(here: Run, place: Path) -> None:
    here("--users", "users.csv", "--db", "shop")
    result = here("--verify", "--db", "shop")
    assert result.returncode == 0 and "users.db" in result.stdout


@pytest.fixture
def unprivileged() -> Iterator[Callable[..., tuple[subprocess.CompletedProcess, Path]]]:
    """Return a function that runs the program in a folder of its own as somebody who is not root."""
    if os.name == "nt":
        pytest.skip("permissions of POSIX")
    folder = Path(tempfile.mkdtemp(prefix="unprivileged-"))
    folder.chmod(0o777)
    code = (
        "import os, sys, difflib, gzip, urllib.parse, tempfile, shlex, shutil, random, json, logging, locale, gettext, textwrap\n"
        "sys.path.insert(0, sys.argv[1])\nimport distributed_inserts\n"
        "if os.geteuid() == 0:\n    os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "raise SystemExit(distributed_inserts.main(sys.argv[2:]))"
    )

    def run_unprivileged(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-B", "-c", code, str(ROOT), *arguments],
            cwd=folder,
            text=True,
            encoding="utf-8",
            capture_output=True,
            timeout=60,
            env={**os.environ, "NO_COLOR": "1"},
        )

    run_unprivileged.folder = folder
    yield run_unprivileged
    for path in [folder, *folder.rglob("*")]:
        with contextlib.suppress(OSError):
            path.chmod(0o755)
    shutil.rmtree(folder, ignore_errors=True)


def test_a_file_that_may_not_be_read_is_named(unprivileged: Callable) -> None:
    file = unprivileged.folder / "users.csv"
    file.write_text(USERS, encoding="utf-8")
    file.chmod(0)
    check(unprivileged("--users", "users.csv"), 2, ["users.csv", "permission denied"])
    assert [path.name for path in unprivileged.folder.iterdir()] == ["users.csv"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--users", "users.csv", "--db", "closed"],
        ["--db", "closed"],
        ["--users", "users.csv", "--db", "closed/new"],
        ["--users", "users.csv", "--db", "closed", "--replace"],
    ],
    ids=" ".join,
)
def test_a_folder_that_may_not_be_written_is_named(unprivileged: Callable, arguments: list[str]) -> None:
    (unprivileged.folder / "users.csv").write_text(USERS, encoding="utf-8")
    (unprivileged.folder / "closed").mkdir()
    (unprivileged.folder / "closed").chmod(0o555)
    result = unprivileged(*arguments)
    check(result, 2, ["closed", "permission denied"])
    assert result.stdout == "" and list((unprivileged.folder / "closed").iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--verify", "--db", "closed"],
        ["--users", "users.csv", "--db", "closed", "--dry-run"],
        ["--users", "users.csv", "--db", "closed"],
    ],
    ids=" ".join,
)
def test_a_folder_that_may_not_be_read_is_named(unprivileged: Callable, arguments: list[str]) -> None:
    (unprivileged.folder / "users.csv").write_text(USERS, encoding="utf-8")
    (unprivileged.folder / "closed").mkdir()
    execute(unprivileged.folder / "closed" / "users.db", "CREATE TABLE users (id INTEGER PRIMARY KEY)")
    (unprivileged.folder / "closed").chmod(0o700 if os.geteuid() == 0 else 0)
    check(unprivileged(*arguments), 2, ["closed", "permission denied"])


@pytest.mark.parametrize("flag", ["--rejects", "--log-file", "--trace"])
def test_an_output_that_may_not_be_written_is_named_before_anything_is_stored(
    unprivileged: Callable, flag: str
) -> None:
    (unprivileged.folder / "users.csv").write_text(USERS + "3,,\n", encoding="utf-8")
    (unprivileged.folder / "closed").mkdir()
    (unprivileged.folder / "closed").chmod(0o555)
    result = unprivileged("--users", "users.csv", flag, "closed/output", "--db", "shop")
    check(result, 2, ["closed/output", "permission denied"])
    assert result.stdout == "" and not (unprivileged.folder / "shop" / "users.db").exists()


def test_a_database_that_may_not_be_written_fails_with_its_name_and_the_others_load(unprivileged: Callable) -> None:
    for name, text in (("users.csv", USERS), ("products.csv", PRODUCTS)):
        (unprivileged.folder / name).write_text(text, encoding="utf-8")
    assert unprivileged("--users", "users.csv", "--db", "shop").returncode == 0
    os.chown(unprivileged.folder / "shop" / "users.db", 0, 0) if os.geteuid() == 0 else None
    (unprivileged.folder / "shop" / "users.db").chmod(0o444)
    (unprivileged.folder / "users.csv").write_text("id,name,email\n9,New,new@example.com\n", encoding="utf-8")
    result = unprivileged("--users", "users.csv", "--products", "products.csv", "--db", "shop")
    check(result, 3, ["users.db", "read|permission|written"])
    assert (
        len(rows(unprivileged.folder / "shop" / "users.db")) == 2
        and len(rows(unprivileged.folder / "shop" / "products.db")) == 1
    )


# --------------------------------------------------------------------------------------------------------------- A lock


@pytest.mark.parametrize("count", [1, 500])
def test_a_locked_database_is_told_once_with_the_time_that_was_waited(here: Run, place: Path, count: int) -> None:
    here("--users", "users.csv")
    (place / "users.csv").write_text(
        "id,name,email\n" + "".join(f"{id_},New,n{id_}@example.com\n" for id_ in range(10, 10 + count)),
        encoding="utf-8",
    )
    with contextlib.closing(sqlite3.connect(place / "users.db", isolation_level=None)) as owner:
        owner.execute("BEGIN EXCLUSIVE")
        result = here("--users", "users.csv", "--busy-timeout", "0.4", "-q")
    check(result, 3, ["users.db", "locked"])
    assert result.stderr.count("for 0.4") + result.stderr.count("for 0.5") <= 1
    assert f"{count} failed" in result.stdout
    assert here("--users", "users.csv").returncode == 0


# -------------------------------------------------------------------------------------------------------------- Outputs


def test_an_empty_file_may_become_a_trace(here: Run, place: Path) -> None:
    assert here("--users", "users.csv", "--trace", "empty.csv").returncode == 0
    assert json.loads((place / "empty.csv").read_text(encoding="utf-8"))["traceEvents"]


@pytest.mark.parametrize("words", [
    ["postgresql://u:hush-hush@h/{model}"], ["--dbx=postgresql://u:hush-hush@h/{model}"],
    ["--users", "postgresql://u:hush-hush@h/{model}"], ["--log-file", "postgresql://u:hush-hush@h/{model}"],
])
def test_a_password_is_not_shown_wherever_the_url_stands(here: Run, words: list[str]) -> None:
    result = here(*words)
    assert result.returncode == 2 and "hush-hush" not in result.stderr and "u" in result.stderr
