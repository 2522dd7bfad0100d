"""The command line: every flag, every exit status, usage errors, --verify, --dry-run and --max-errors."""
from __future__ import annotations

import json
import platform
import re
import shutil
import sqlite3
from pathlib import Path

import pytest

import distributed_inserts
from conftest import Run, rows

TABLES = ("users", "products", "orders")
FLAGS = ("--users", "--products", "--orders", "--input-format", "--db-dir", "--dry-run", "--verify", "--rejects", "--max-errors",
         "--batch-size", "--busy-timeout", "--json", "--verbose", "--quiet", "--log-file", "--trace", "--version", "--help")
GOOD_USERS = "id,name,email\n1,Ann,ann@example.com\n2,Ben,ben@example.com\n"
MIXED_USERS = GOOD_USERS + "3,,cat@example.com\n4,Dan,ann@example.com\n2,Ben,ben@example.com\n1,Other,other@example.com\n5,Eve,eve\n1,2\n"
PRODUCTS = "id,name,price\n1,Desk,99.50\n2,Lamp,0\n3,desk,5\n"
ORDERS = "id,user_id,product_id,quantity\n1,1,1,1\n2,3,1,1\n3,1,2,1\n4,1,1,0\n5,77,1,x\n6,2,1,9\n"
CREATE = {"users": "id INTEGER PRIMARY KEY, name TEXT, email TEXT", "products": "id INTEGER PRIMARY KEY, name TEXT, price REAL",
          "orders": "id INTEGER PRIMARY KEY, user_id INTEGER, product_id INTEGER, quantity INTEGER"}


def write_inputs(folder: Path, users: str = MIXED_USERS, products: str = PRODUCTS, orders: str = ORDERS) -> list[str]:
    """Write three CSV files and return the flags that name them."""
    folder.mkdir(exist_ok=True)
    for table, text in zip(TABLES, (users, products, orders)):
        (folder / f"{table}.csv").write_text(text, encoding="utf-8", newline="")
    return [word for table in TABLES for word in (f"--{table}", str(folder / f"{table}.csv"))]


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder with what is in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def parsed(text: str) -> tuple[list[dict], dict]:
    """Return the record lines and the summary line of output in JSON."""
    *lines, last = map(json.loads, text.splitlines())
    return lines, last


def verdicts(text: str) -> list[tuple]:
    """Return (model, line, verdict, codes) of every record."""
    return [(line["model"], line["line"], line["verdict"], sorted((each["field"] or "", each["code"]) for each in line["problems"]))
            for line in parsed(text)[0]]


# ------------------------------------------------------------------------------------------- --help and --version


def test_help_names_every_flag_every_model_and_every_exit_status(run: Run) -> None:
    result = run("--help")
    assert (result.returncode, result.stderr) == (0, "")
    for flag in (*FLAGS, "-n", "-v", "-q", "-h"):
        assert re.search(rf"(?<![\w-]){flag}(?![\w-])", result.stdout), flag
    for table in TABLES:
        assert f"{table}.db" in result.stdout
    statuses = result.stdout.lower().partition("exit status")[2]
    for status in ("0", "1", "2", "3", "130", "143"):
        assert re.search(rf"\b{status}\b", statuses), status


def test_h_is_help(run: Run) -> None:
    assert run("-h").stdout == run("--help").stdout


def test_the_examples_of_the_help_are_valid_command_lines(run: Run) -> None:
    examples = run("--help").stdout.partition("examples:")[2].partition("\n\n")[0]
    commands = [re.split(r"\s{2,}", line.strip())[0].split()[1:] for line in examples.splitlines() if line.strip()]
    assert len(commands) >= 3
    for arguments in commands:
        distributed_inserts.build_parser(distributed_inserts.SCHEMAS).parse_args(arguments)


def test_version_names_pythons_and_sqlites_too(run: Run, tmp_path: Path) -> None:
    result = run("--version")
    assert result.returncode == 0
    for version in (distributed_inserts.__version__, platform.python_version(), sqlite3.sqlite_version):
        assert version in result.stdout
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------------------- Usage errors


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if len(flag) > 5])
def test_an_abbreviated_flag_is_refused(here: Run, tmp_path: Path, flag: str) -> None:
    result = here(flag[:-1], "1")
    assert result.returncode == 2
    assert "usage:" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [
    ("-v", "-q"), ("--verbose", "--quiet"), ("--nonsense",), ("stray",), ("--users",), ("--db-dir",),
    ("--batch-size", "0"), ("--batch-size", "-1"), ("--batch-size", "1.5"), ("--batch-size", "x"), ("--batch-size", ""),
    ("--batch-size", "1_0"), ("--batch-size", "٣"), ("--batch-size", "9" * 5000), ("--batch-size", " 1"),
    ("--max-errors", "-1"), ("--max-errors", "many"), ("--max-errors", "1e3"),
    ("--busy-timeout", "-1"), ("--busy-timeout", "nan"), ("--busy-timeout", "inf"), ("--busy-timeout", "soon"),
    ("--busy-timeout", "1e999"), ("--busy-timeout", "9" * 400), ("--busy-timeout", ""),
    ("--input-format", "xml"), ("--input-format", ""), ("--input-format", "CSV"),
    ("--users", "-", "--orders", "-"), ("--users", ""), ("--users", "users"), ("--users", "users.txt"), ("--users", "missing.csv"),
    ("--users", "."), ("--users", ".", "--input-format", "csv"), ("--users", "missing/users.json"),
    ("--verify", "--dry-run"), ("--verify", "--max-errors", "3"), ("--verify", "--input-format", "csv"), ("--input-format", "csv"),
    ("--users", "a.csv", "--users", "b.csv"), ("--verify", "--users", "-"), ("--verify", "--rejects", "refused"),
    ("--log-file", "missing/log.txt"), ("--trace", "missing/trace.json"), ("--log-file", "."), ("--trace", "."),
], ids=lambda arguments: " ".join(arguments)[:40])
def test_wrong_usage_exits_2_says_why_and_writes_nothing(here: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    result = here(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.isprintable() or all(line.isprintable() for line in result.stderr.splitlines())
    assert len(result.stderr) < 2000
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [
    ("--log-file", "missing/log.txt"), ("--trace", "missing/trace.json"), ("--db-dir", "a file"), ("--db-dir", "a file/below"),
    ("--products", "missing.csv"), ("--products", "broken.csv"), ("--products", "binary.jsonl"), ("--max-errors", "x"),
], ids=" ".join)
def test_whatever_exits_2_leaves_earlier_rejects_alone(run: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "users.csv").write_text(GOOD_USERS, encoding="utf-8")
    (tmp_path / "broken.csv").write_text("id,name\n", encoding="utf-8")
    (tmp_path / "binary.jsonl").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "a file").write_text("", encoding="utf-8")
    (tmp_path / "refused").mkdir()
    (tmp_path / "refused" / "users.csv").write_text("id,name,email\n7,mended by hand,for@hours.example\n", encoding="utf-8")
    before = contents(tmp_path)
    result = run("--users", "users.csv", "--rejects", "refused", *arguments, timeout=5)
    assert result.returncode == 2
    assert contents(tmp_path) == before


@pytest.mark.parametrize(("name", "content", "complaint"), [
    ("users.csv", b"", "empty"),
    ("users.csv", b"\n\n \n", "name"),
    ("users.csv", b"id,name\n1,Ann\n", "email"),
    ("users.csv", b"id,name,name,email\n1,Ann,Ann,a@b.example\n", "name"),
    ("users.csv", b"id;name;email\n1;Ann;a@b.example\n", "id;name;email"),
    ("users.csv", b'"id,name,email\n1,Ann,a@b.example\n', "header"),
    ("users.csv", bytes(range(256)) * 40, "binary"),
    ("users.tsv", b"id,name,email\n", "id,name,email"),
    ("users.tsv", bytes(range(256)) * 40, "binary"),
    ("users.json", b"", "JSON array"),
    ("users.json", b'{"id":1,"name":"Ann","email":"a@b.example"}', "JSON array"),
    ("users.json", b"id,name,email", "JSON array"),
    ("users.json", bytes(range(256)) * 40, "binary"),
    ("users.jsonl", bytes(range(256)) * 40, "binary"),
    ("users.jsonl", b"SQLite format 3\0" + bytes(5000), "binary"),
], ids=lambda value: repr(value)[:30])
def test_an_input_that_cannot_be_read_exits_2_and_nothing_is_written(run: Run, tmp_path: Path, name: str, content: bytes,
                                                                     complaint: str) -> None:
    inputs = write_inputs(tmp_path / "inputs")
    (tmp_path / name).write_bytes(content)
    result = run(f"--{name.partition('.')[0]}", name, *inputs[2:], "--db-dir", "db", timeout=5)
    assert (result.returncode, result.stdout) == (2, "")
    assert name in result.stderr
    assert complaint in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inputs", name]


def test_a_message_about_a_wrong_argument_shows_it_escaped(run: Run) -> None:
    for arguments in (["--users", "\x1b[31m\u202e.csv"], ["--users", "\x1b.txt"], ["--batch-size", "\x1b[31m"], ["--input-format", "\x1b"],
                      ["\x1b]0;title\x07"], ["--\x1b"]):
        result = run(*arguments)
        assert result.returncode == 2
        assert all(line.isprintable() for line in result.stderr.splitlines()), arguments


# ------------------------------------------------------------------------------------------------ Exit statuses


@pytest.mark.parametrize(("users", "status"), [
    (GOOD_USERS, 0), ("id,name,email\n", 0), (MIXED_USERS, 1), ("id,name,email\nx,,\n", 1), ("id,name\n", 2),
], ids=["good", "no record", "some rejected", "all rejected", "no column"])
def test_the_exit_status_says_what_became_of_the_load(run: Run, tmp_path: Path, users: str, status: int) -> None:
    (tmp_path / "users.csv").write_text(users, encoding="utf-8")
    result = run("--users", "users.csv", "--json")
    assert result.returncode == status
    if status != 2:
        lines, summary = parsed(result.stdout)
        assert summary["exit_status"] == status
        assert sum(counts["read"] for counts in summary["summary"].values()) == len(lines)
        assert len(rows(tmp_path / "users.db")) == summary["summary"]["users"]["inserted"]


def test_loading_the_same_good_file_again_exits_0(here: Run, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text(GOOD_USERS, encoding="utf-8")
    assert here("--users", "users.csv").returncode == 0
    result = here("--users", "users.csv", "--json")
    assert result.returncode == 0
    assert [line["verdict"] for line in parsed(result.stdout)[0]] == ["unchanged", "unchanged"]


def test_a_failed_database_exits_3_names_it_and_the_others_finish(run: Run, tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path)
    (tmp_path / "users.db").write_bytes(b"this is no database " * 100)
    result = run(*inputs, "--json")
    assert result.returncode == 3
    lines, summary = parsed(result.stdout)
    assert summary["exit_status"] == 3
    assert {line["verdict"] for line in lines if line["model"] == "users"} <= {"failed", "rejected"}
    assert summary["summary"]["products"]["inserted"] == len(rows(tmp_path / "products.db")) == 1
    assert rows(tmp_path / "orders.db") == []
    assert {line["verdict"] for line in lines if line["model"] == "orders"} == {"failed", "rejected"}
    assert "users.db" in result.stderr
    assert (tmp_path / "users.db").read_bytes() == b"this is no database " * 100


# -------------------------------------------------------------------------------- Inputs, formats, where things go


@pytest.mark.parametrize(("name", "text"), [
    ("u.csv", "id,name,email\n1,Ann,ann@example.com\n"), ("U.CSV", "id,name,email\n1,Ann,ann@example.com\n"),
    ("u.tsv", "id\tname\temail\n1\tAnn\tann@example.com\n"), ("u.v2.Tsv", "id\tname\temail\n1\tAnn\tann@example.com\n"),
    ("u.json", '[{"id": 1, "name": "Ann", "email": "ann@example.com"}]'),
    ("u.jsonl", '{"id": 1, "name": "Ann", "email": "ann@example.com"}\n'),
    ("Ü ser.JSONL", '{"email": "ann@example.com", "name": "Ann", "id": "1"}'),
])
def test_the_suffix_tells_the_format(here: Run, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert here("--users", name).returncode == 0
    assert rows(tmp_path / "users.db") == [(1, "Ann", "ann@example.com")]


FORMATS = [("csv", "id,name,email\n1,Ann,ann@example.com\n"), ("tsv", "id\tname\temail\n1\tAnn\tann@example.com\n"),
           ("json", '[{"id": 1, "name": "Ann", "email": "ann@example.com"}]'),
           ("jsonl", '{"id": 1, "name": "Ann", "email": "ann@example.com"}\n')]


@pytest.mark.parametrize(("input_format", "text"), FORMATS)
@pytest.mark.parametrize("name", ["users", "users.csv", "users.json", "users.txt"])
def test_input_format_overrides_the_suffix(here: Run, tmp_path: Path, name: str, input_format: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert here("--users", name, "--input-format", input_format).returncode == 0
    assert rows(tmp_path / "users.db") == [(1, "Ann", "ann@example.com")]


@pytest.mark.parametrize(("input_format", "text"), FORMATS)
def test_a_dash_is_standard_input(run: Run, tmp_path: Path, input_format: str, text: str) -> None:
    assert run("--users", "-", "--input-format", input_format, stdin=text).returncode == 0
    assert rows(tmp_path / "users.db") == [(1, "Ann", "ann@example.com")]


def test_standard_input_can_be_any_one_of_the_files(run: Run, tmp_path: Path) -> None:
    write_inputs(tmp_path)
    result = run("--users", "users.csv", "--products", "products.csv", "--orders", "-", "--json", stdin=ORDERS)
    assert result.returncode == 1
    lines, _ = parsed(result.stdout)
    assert [line["verdict"] for line in lines if line["model"] == "orders"] == ["inserted"] + ["rejected"] * 4 + ["inserted"]
    assert [(row[0], row[1]) for row in rows(tmp_path / "orders.db")] == [(1, 1), (6, 2)]


@pytest.mark.parametrize("folder", ["new", "new/and/deep", "with space and ü"])
def test_the_folder_of_the_databases_is_made_if_missing(here: Run, tmp_path: Path, folder: str) -> None:
    assert here("--db-dir", folder).returncode == 0
    assert sorted(path.name for path in (tmp_path / folder).iterdir()) == [f"{table}.db" for table in sorted(TABLES)]
    assert [path.name for path in tmp_path.iterdir()] == [folder.partition("/")[0]]


def test_only_the_databases_of_the_named_files_are_made(here: Run, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text(GOOD_USERS, encoding="utf-8")
    here("--users", "users.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["users.csv", "users.db"]


@pytest.mark.parametrize("size", ["1", "2", "1000"])
def test_any_batch_size_loads_the_same(here: Run, tmp_path: Path, size: str) -> None:
    inputs = write_inputs(tmp_path)
    default = here(*inputs, "--json", "--db-dir", "default")
    other = here(*inputs, "--json", "--db-dir", "other", "--batch-size", size)
    assert other.returncode == default.returncode == 1
    assert parsed(other.stdout)[0] == parsed(default.stdout)[0]


@pytest.mark.parametrize("seconds", ["0", "0.5", "30", "1e3"])
def test_a_busy_timeout_in_seconds_is_taken(here: Run, seconds: str) -> None:
    assert here("--busy-timeout", seconds, "-q").returncode == 0


def test_a_locked_database_fails_after_the_busy_timeout_and_the_load_can_be_repeated(here: Run, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text(GOOD_USERS, encoding="utf-8")
    here("--users", "users.csv")
    (tmp_path / "more.csv").write_text(GOOD_USERS + "3,Cat,cat@example.com\n", encoding="utf-8")
    connection = sqlite3.connect(tmp_path / "users.db", isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        result = here("--users", "more.csv", "--busy-timeout", "0.2", "--json")
    finally:
        connection.close()
    assert result.returncode == 3
    assert {line["verdict"] for line in parsed(result.stdout)[0]} == {"failed"}
    assert "users.db" in result.stderr and "locked" in result.stderr
    again = here("--users", "more.csv", "--json")
    assert [line["verdict"] for line in parsed(again.stdout)[0]] == ["unchanged", "unchanged", "inserted"]


# ---------------------------------------------------------------------------------------------- -v, -q and --json


def test_quiet_prints_the_summary_only(here: Run, tmp_path: Path) -> None:
    result = here(*write_inputs(tmp_path), "-q")
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["database", "read", "inserted", "unchanged", "rejected", "failed", "seconds"]
    assert [line.split()[:6] for line in lines[1:]] == [["users.db", "8", "2", "1", "5", "0"], ["products.db", "3", "1", "0", "2", "0"],
                                                        ["orders.db", "6", "2", "0", "4", "0"]]


def test_quiet_json_is_the_summary_line_alone(here: Run, tmp_path: Path) -> None:
    result = here(*write_inputs(tmp_path), "-q", "--json")
    lines, summary = parsed(result.stdout)
    assert lines == []
    assert list(summary) == ["summary", "exit_status"]
    assert {table: [counts[name] for name in ("read", "inserted", "unchanged", "rejected", "failed")]
            for table, counts in summary["summary"].items()} == {"users": [8, 2, 1, 5, 0], "products": [3, 1, 0, 2, 0], "orders": [6, 2, 0, 4, 0]}


def test_verbose_lists_every_record_however_many(here: Run, tmp_path: Path) -> None:
    records = "".join(f"{number},User {number},u{number}@example.com\n" for number in range(1, 1502))
    (tmp_path / "users.csv").write_text("id,name,email\n" + records, encoding="utf-8")
    result = here("--users", "users.csv", "-v")
    assert len(re.findall(r"inserted +\d+ +User \d+", result.stdout)) == 1501


# ---------------------------------------------------------------------------------------------------- --max-errors


@pytest.mark.parametrize("limit", [0, 1, 5, 99])
@pytest.mark.parametrize("size", ["1", "10"])
def test_max_errors_stops_the_reading_and_what_was_read_adds_up(run: Run, tmp_path: Path, limit: int, size: str) -> None:
    good = "".join(f"{number},User,u{number}@example.com\n" for number in range(1, 50))
    bad = "x,,\n" * 40_000
    (tmp_path / "users.csv").write_text("id,name,email\n" + good + bad, encoding="utf-8")
    result = run("--users", "users.csv", "--max-errors", limit, "--batch-size", size, "--json")
    assert result.returncode == 1
    lines, summary = parsed(result.stdout)
    counts = summary["summary"]["users"]
    assert limit < counts["rejected"] < 40_000
    assert counts["read"] == len(lines) == sum(counts[name] for name in ("inserted", "unchanged", "rejected", "failed"))
    assert [line["line"] for line in lines] == list(range(2, 2 + len(lines)))
    assert counts["inserted"] == len(rows(tmp_path / "users.db")) == 49


def test_as_many_errors_as_allowed_stop_nothing(here: Run, tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path)
    result = here(*inputs, "--max-errors", "11", "--json")
    assert verdicts(result.stdout) == verdicts(here(*inputs, "--json", "--db-dir", "other").stdout)
    assert sum(counts["read"] for counts in parsed(result.stdout)[1]["summary"].values()) == 8 + 3 + 6


def test_a_load_stopped_by_max_errors_says_so_and_what_to_do(here: Run, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("id,name,email\n" + "x,,\n" * 30_000, encoding="utf-8")
    result = here("--users", "users.csv", "--max-errors", "3")
    assert result.returncode == 1
    assert "more than 3" in result.stdout + result.stderr


# ------------------------------------------------------------------------------------------------------- --dry-run

SECOND_USERS = GOOD_USERS + "7,Gil,GIL@example.com\n8,Hal,gil@Example.com\n1,Ann Again,ann@example.com\n9,Ida,Ben@example.com\n"
SECOND_ORDERS = ORDERS + "7,7,1,1\n8,8,1,1\n1,1,1,1\n6,2,1,8\n9,2,1,1\n"


@pytest.mark.parametrize("filled", [False, True], ids=["fresh", "filled"])
@pytest.mark.parametrize("flag", ["-n", "--dry-run"])
@pytest.mark.parametrize("size", [(), ("--batch-size", "3")], ids=["single", "batches"])
def test_a_dry_run_says_what_the_real_run_does_and_writes_nothing(here: Run, tmp_path: Path, filled: bool, flag: str,
                                                                  size: tuple[str, ...]) -> None:
    first = write_inputs(tmp_path / "first")
    second = write_inputs(tmp_path / "second", SECOND_USERS, PRODUCTS + "4,Shelf,1\n", SECOND_ORDERS)
    if filled:
        assert here(*first, "--db-dir", "db").returncode == 1
    before = contents(tmp_path)
    dry = here(*second, "--db-dir", "db", flag, "--json", *size)
    assert contents(tmp_path) == before
    assert (tmp_path / "db").exists() == filled
    real = here(*second, "--db-dir", "db", "--json", *size)
    assert dry.returncode == real.returncode == 1

    def comparable(text: str) -> list[dict]:
        lines = [{key: value for key, value in line.items() if key != "dry_run"} for line in map(json.loads, text.splitlines())]
        return [{**line, "summary": {table: {**counts, "seconds": 0} for table, counts in line["summary"].items()}}
                if "summary" in line else line for line in lines]

    assert comparable(dry.stdout) == comparable(real.stdout)


@pytest.mark.parametrize(("users", "status"), [(GOOD_USERS, 0), (MIXED_USERS, 1), ("id,name\n", 2)], ids=["good", "mixed", "unreadable"])
def test_a_dry_run_exits_as_the_real_run(here: Run, tmp_path: Path, users: str, status: int) -> None:
    (tmp_path / "users.csv").write_text(users, encoding="utf-8")
    assert here("--users", "users.csv", "-n").returncode == status
    assert [path.name for path in tmp_path.iterdir()] == ["users.csv"]
    assert here("--users", "users.csv").returncode == status


def test_a_dry_run_exits_3_as_the_real_run_where_a_database_is_none(here: Run, tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path)
    (tmp_path / "users.db").write_bytes(b"no database" * 100)
    before = contents(tmp_path)
    dry = here(*inputs, "-n", "--json")
    assert contents(tmp_path) == before
    real = here(*inputs, "--json")
    assert dry.returncode == real.returncode == 3
    assert verdicts(dry.stdout) == verdicts(real.stdout)


def test_a_dry_run_says_of_what_it_would_insert_that_it_would(here: Run) -> None:
    result = here("-n")
    assert result.returncode == 0
    assert result.stdout.count("would insert") >= 22
    assert not re.search(r"(?m)^ +\S inserted ", result.stdout)
    assert "othing was written" in result.stdout


def test_a_dry_run_of_the_sample_writes_nothing(here: Run, tmp_path: Path) -> None:
    here("-n")
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------------------------- --verify


def fill(folder: Path, *statements: tuple[str, tuple]) -> None:
    """Make three databases with two sound records each, by plain sqlite3, and do to them what is asked."""
    sound = {"users": [(1, "Ann", "ann@example.com"), (2, "Ben", "ben@example.com")], "products": [(1, "Desk", 99.5), (2, "Lamp", 5)],
             "orders": [(1, 1, 1, 1), (2, 2, 2, 2**63 - 1)]}
    for table in TABLES:
        connection = sqlite3.connect(folder / f"{table}.db")
        try:
            connection.execute(f"CREATE TABLE {table} ({CREATE[table]})")
            connection.executemany(f"INSERT INTO {table} VALUES ({','.join('?' * len(sound[table][0]))})", sound[table])
            for sql, values in statements:
                if f" {table} " in sql:
                    connection.execute(sql, values)
            connection.commit()
        finally:
            connection.close()


USER, PRODUCT, ORDER = "INSERT INTO users VALUES (?,?,?)", "INSERT INTO products VALUES (?,?,?)", "INSERT INTO orders VALUES (?,?,?,?)"


def test_verify_finds_nothing_wrong_with_sound_databases_and_changes_nothing(here: Run, tmp_path: Path) -> None:
    fill(tmp_path)
    before = contents(tmp_path)
    result = here("--verify", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    lines, summary = parsed(result.stdout)
    assert lines == []
    assert {table: counts["read"] for table, counts in summary["summary"].items()} == dict.fromkeys(TABLES, 2)
    assert summary["exit_status"] == 0
    assert contents(tmp_path) == before
    assert here("--verify").returncode == 0


@pytest.mark.parametrize(("sql", "values", "broken"), [
    (USER, (0, "Zed", "zed@example.com"), {("id", "not_positive")}),
    (USER, (-5, "Zed", "zed@example.com"), {("id", "not_positive")}),
    (USER, (3, None, "zed@example.com"), {("name", "missing")}),
    (USER, (3, "", "zed@example.com"), {("name", "blank")}),
    (USER, (3, " \t\u3000", "zed@example.com"), {("name", "blank")}),
    (USER, (3, "\u200b\u3164", "zed@example.com"), {("name", "blank")}),
    (USER, (3, b"Zed", "zed@example.com"), {("name", "not_text")}),
    (USER, (3, "Z\x1bed", "zed@example.com"), {("name", "bad_text")}),
    (USER, (3, "Z\0ed", "zed@example.com"), {("name", "bad_text")}),
    ("INSERT INTO users VALUES (?,CAST(? AS TEXT),?)", (3, b"Z\xffd", "zed@example.com"), {("name", "bad_text")}),
    (USER, (3, "Zed", None), {("email", "missing")}),
    (USER, (3, "Zed", "zed"), {("email", "not_email")}),
    (USER, (3, "Zed", "zed..zed@example.com"), {("email", "not_email")}),
    (USER, (3, "Zed", "z" * 65 + "@example.com"), {("email", "not_email")}),
    (USER, (3, "Zed", "ann@example.com"), {("email", "not_unique")}),
    (USER, (3, "Zed", "ANN@Example.COM"), {("email", "not_unique")}),
    (USER, (3, "Zed", "\uff41nn@example.com"), {("email", "not_unique")}),
    (USER, (3, None, "ANN@Example.COM"), {("name", "missing"), ("email", "not_unique")}),
    (PRODUCT, (3, "DESK", 1), {("name", "not_unique")}),
    (PRODUCT, (3, "\uff24\uff45\uff53\uff4b", 1), {("name", "not_unique")}),
    (PRODUCT, (3, "Chair", None), {("price", "missing")}),
    (PRODUCT, (3, "Chair", 0), {("price", "not_positive")}),
    (PRODUCT, (3, "Chair", -0.01), {("price", "not_positive")}),
    (PRODUCT, (3, "Chair", "cheap"), {("price", "not_number")}),
    (PRODUCT, (3, "Chair", b"\x05"), {("price", "not_number")}),
    (PRODUCT, (3, "Chair", float("inf")), {("price", "not_number")}),
    (ORDER, (3, 1, 1, 0), {("quantity", "not_positive")}),
    (ORDER, (3, 1, 1, -1), {("quantity", "not_positive")}),
    (ORDER, (3, 1, 1, 1.5), {("quantity", "not_integer")}),
    (ORDER, (3, 1, 1, "many"), {("quantity", "not_integer")}),
    (ORDER, (3, 1, 1, None), {("quantity", "missing")}),
    (ORDER, (3, 9, 1, 1), {("user_id", "no_such_reference")}),
    (ORDER, (3, 1, 9, 1), {("product_id", "no_such_reference")}),
    (ORDER, (3, 9, 9, 0), {("user_id", "no_such_reference"), ("product_id", "no_such_reference"), ("quantity", "not_positive")}),
    (ORDER, (3, None, 1, 1), {("user_id", "missing")}),
    (ORDER, (3, "Ann", 1, 1), {("user_id", "not_integer")}),
    ("DELETE FROM users WHERE id = ?", (2,), {("user_id", "no_such_reference")}),
    ("UPDATE users SET id = ? WHERE id = 2", (7,), {("user_id", "no_such_reference")}),
    ("UPDATE products SET name = ? WHERE id = 2", ("desk",), {("name", "not_unique")}),
], ids=lambda value: repr(value)[:60] if isinstance(value, tuple) else None)
def test_verify_finds_a_planted_record_that_breaks_a_rule(here: Run, tmp_path: Path, sql: str, values: tuple, broken: set) -> None:
    fill(tmp_path, (sql, values))
    before = contents(tmp_path)
    result = here("--verify", "--json")
    assert result.returncode == 1
    lines, summary = parsed(result.stdout)
    if (problem := {(each["field"], each["code"]) for line in lines for each in line["problems"]}) == {("price", "out_of_range")}:
        problem = {("price", "not_number")}     # infinity is either
    assert problem == broken
    assert len(lines) == 1
    assert summary["exit_status"] == 1
    text = here("--verify")
    assert text.returncode == 1
    for _, code in broken:
        assert f"[{code}]" in text.stdout or code == "not_number"
    assert contents(tmp_path) == before


def test_verify_lists_every_broken_record_and_no_other(here: Run, tmp_path: Path) -> None:
    fill(tmp_path, *[(USER, (number, "Zed", "ann@example.com" if number % 3 else f"z{number}@example.com")) for number in range(3, 3003)],
         *[(ORDER, (number, number, 1, 1)) for number in range(3, 3103)])
    result = here("--verify", "--json")
    lines, summary = parsed(result.stdout)
    assert {(line["model"], line["id"]) for line in lines} == {("users", number) for number in range(3, 3003) if number % 3} | {
        ("orders", number) for number in range(3003, 3103)}
    assert [counts["read"] for counts in summary["summary"].values()] == [3002, 2, 3102]


def test_verify_works_without_the_databases_that_nothing_refers_to(here: Run, tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "orders.db").unlink()
    assert here("--verify").returncode == 0
    fill_only = tmp_path / "only"
    fill_only.mkdir()
    shutil.copy(tmp_path / "users.db", fill_only)
    assert here("--verify", "--db-dir", "only").returncode == 0


def test_verify_finds_that_a_whole_database_is_missing(here: Run, tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "products.db").unlink()
    result = here("--verify", "--json")
    assert result.returncode == 1
    assert {(each["field"], each["code"]) for line in parsed(result.stdout)[0] for each in line["problems"]} == {("product_id", "no_such_reference")}


def test_verify_of_a_folder_without_databases_exits_2_and_makes_none(here: Run, tmp_path: Path) -> None:
    for arguments in ((), ("--db-dir", "missing")):
        result = here("--verify", *arguments)
        assert (result.returncode, result.stdout) == (2, "")
        assert list(tmp_path.iterdir()) == []


def test_verify_of_a_damaged_database_exits_3_and_looks_at_the_others(here: Run, tmp_path: Path) -> None:
    fill(tmp_path, (PRODUCT, (3, "Chair", 0)))
    (tmp_path / "users.db").write_bytes(b"no database" * 100)
    result = here("--verify", "--json")
    assert result.returncode == 3
    assert "users.db" in result.stderr
    assert ("products", 3) in {(line["model"], line["id"]) for line in parsed(result.stdout)[0]}


def damage(database: Path) -> None:
    """Make a database something that no table can be read from."""
    database.write_bytes(b"no database" * 100)


def constrain(database: Path) -> None:
    """Give a table a check of its own."""
    connection = sqlite3.connect(database)
    with connection:
        connection.execute("CREATE UNIQUE INDEX mine ON users (email)")
    connection.close()


@pytest.mark.parametrize("spoil", [damage, constrain])
def test_verify_calls_no_order_broken_whose_user_could_not_be_looked_up(here: Run, tmp_path: Path, spoil: object) -> None:
    here("-q")
    spoil(tmp_path / "users.db")
    result = here("--verify", "--json")
    lines, last = parsed(result.stdout)
    assert result.returncode == 3 and "users.db" in result.stderr
    assert {line["verdict"] for line in lines} == {"failed"} and all("users.db: " in line["reason"] for line in lines)
    assert {key: last["summary"]["orders"][key] for key in ("read", "sound", "broken", "failed")} == {"read": 6, "sound": 0, "broken": 0, "failed": 6}


@pytest.mark.parametrize("name, email", [(" Ann", "ann@example.com"), ("Ann\n", "ann@example.com"), ("Ann", "ann@example.com "), ("Ann", "\u3000ann@example.com")])
def test_verify_finds_white_space_that_no_load_would_have_stored(here: Run, tmp_path: Path, name: str, email: str) -> None:
    here("-q")
    connection = sqlite3.connect(tmp_path / "users.db")
    with connection:
        connection.execute("INSERT INTO users VALUES (50, ?, ?)", (name, email))
    connection.close()
    lines, _ = parsed(here("--verify", "--json").stdout)
    assert [(line["id"], [problem["code"] for problem in line["problems"]]) for line in lines] == [(50, ["bad_text"])]


def test_verify_accepts_what_a_load_stored(here: Run, tmp_path: Path) -> None:
    here(*write_inputs(tmp_path))
    result = here("--verify", "--json")
    assert (result.returncode, parsed(result.stdout)[0]) == (0, [])


def test_a_load_does_not_take_up_what_verify_finds_broken(here: Run, tmp_path: Path) -> None:
    fill(tmp_path, (USER, (3, "Zed", "zed")))
    (tmp_path / "users.csv").write_text("id,name,email\n3,Zed,zed\n4,Yan,yan@example.com\n", encoding="utf-8")
    result = here("--users", "users.csv", "--json")
    assert [line["verdict"] for line in parsed(result.stdout)[0]] == ["rejected", "inserted"]


# ------------------------------------------------------------------------------------- Files that must not be overwritten


@pytest.mark.parametrize("arguments", [
    ("--log-file", "users.csv"), ("--trace", "users.csv"), ("--trace", "./users.csv"), ("--log-file", "link.csv"), ("--rejects", "."), ("--log-file", "users.db"),
    ("--trace", "orders.db"), ("--trace", "users.db-wal"), ("--log-file", "users.db-journal"), ("--log-file", "new.txt", "--trace", "new.txt"), ("--rejects", "new", "--trace", "new/errors.jsonl"),
    ("--rejects", "new", "--log-file", "new/users.csv"), ("--db-dir", "new", "--trace", "new/products.db"), ("--verify", "--trace", "users.db"),
    ("--verify", "--log-file", "orders.db"), ("--dry-run", "--log-file", "products.db")], ids=" ".join)
def test_nothing_that_is_written_overwrites_an_input_or_a_database(here: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    here("-q")
    write_inputs(tmp_path)
    (tmp_path / "link.csv").symlink_to("users.csv")
    before = contents(tmp_path)
    result = here(*arguments, *([] if "--verify" in arguments else ["--users", "users.csv"]))
    assert result.returncode == 2 and result.stderr.count("\n") == 1 and " would overwrite " in result.stderr
    assert contents(tmp_path) == before


def test_rejects_take_no_file_of_somebody_else(here: Run, tmp_path: Path) -> None:
    write_inputs(tmp_path / "export")
    (tmp_path / "users.csv").write_text("mine")
    before = contents(tmp_path)
    result = here("--users", "export/users.csv", "--rejects", ".")
    assert result.returncode == 2 and "users.csv" in result.stderr
    assert contents(tmp_path) == before


def test_devices_may_take_several_outputs(here: Run, tmp_path: Path) -> None:
    assert here("-q", "--log-file", "/dev/null", "--trace", "/dev/null").returncode == 0


@pytest.mark.parametrize("flag", ["--log-file", "--trace"])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_log_or_timeline_that_finds_no_room_is_told_and_changes_no_status(here: Run, tmp_path: Path, flag: str) -> None:
    result = here("-q", flag, "/dev/full")
    assert result.returncode == 0 and "No space left" in result.stderr and result.stderr.count("\n") == 1


def test_a_load_that_is_cut_short_has_no_failed_database(here: Run, tmp_path: Path) -> None:
    users = "id,name,email\n" + "".join(f"{number},{'' if number < 4 else 'Ann'},a{number}@example.com\n" for number in range(1, 2001))
    orders = "id,user_id,product_id,quantity\n" + "".join(f"{number},{2001 - number},1,1\n" for number in range(1, 2001))
    result = here(*write_inputs(tmp_path, users, "id,name,price\n1,Desk,9\n", orders), "--max-errors", "1", "--batch-size", "1", "-q")
    assert result.returncode == 1 and result.stderr == ""
