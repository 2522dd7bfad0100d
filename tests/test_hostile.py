"""Promise 6, honest, under hostile input: whatever a file, a header, a name or an argument holds, nothing breaks.

Random cells, bytes and JSON values, values and names that mean something elsewhere, huge and deep records, binary files
and archives: no traceback, no hang, bounded memory, a verdict for every record, counts that add up, reported is what is
stored, and nothing unprintable is printed.  The same files have the same verdicts in any batch (promise 3).

The property tests need hypothesis; EXAMPLES=2000 in the environment makes them look longer than the default of 12.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import math
import os
import re
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
import unicodedata
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest

import distributed_inserts
from conftest import HEAVY, MODELS, TIMEOUT_S, VERDICTS, Run, rows, run_here
from loads import measure, stored_rows

EXAMPLES = int(os.environ.get("EXAMPLES", "12"))
FORMATS = ("csv", "tsv", "json", "jsonl")
PEAK_MAX_BYTES = 192 * 2**20
HEAVY_TIMEOUT_S = 600


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder, the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def is_printable(text: str) -> bool:
    """Return whether each line of a text is; the tab in the csv module's own words has a test of its own."""
    return all(line.isprintable() for line in text.replace("'\t' expected", "").split("\n"))


def check_load(table: str, content: bytes, name: str, *arguments: object, again: bool = True) -> list[dict]:
    """Load a file into an empty database, in the current folder; fail if a promise is broken; return its lines of JSON.

    `again` also verifies what is stored and loads it once more, with output in text.
    """
    for folder in ("db", "rejects"):
        shutil.rmtree(folder, ignore_errors=True)
    Path(name).write_bytes(content)
    result = run_here(f"--{table}", name, "--db", "db", "--json", "--rejects", "rejects", *arguments)
    assert result.returncode in (0, 1, 2, 3), result
    assert is_printable(result.stderr), result.stderr
    assert "internal error" not in result.stderr and "Traceback" not in result.stderr + result.stdout
    assert Path(name).read_bytes() == content
    if result.returncode == 2:
        assert result.stdout == "" and 0 < len(result.stderr) < 3000
        assert not Path("db").exists()
        return []
    lines = check_lines(result, table)
    if again and Path("db", f"{table}.db").exists():  # a load of nothing makes no database
        assert run_here("--verify", "--db", "db", "-q").returncode == 0
        check_text(table, name)
    return lines


def check_lines(result: subprocess.CompletedProcess, table: str) -> list[dict]:
    """Fail unless the lines of JSON have one verdict each, add up, and agree with what is stored and rejected."""
    assert is_printable(result.stdout)
    *lines, summary = map(json.loads, result.stdout.splitlines())
    counts = summary["summary"][table]
    cut = "cut" in result.stdout.splitlines()[-1]  # the file could not be read to its end, which is told
    assert bool(result.stderr) >= cut
    assert summary["exit_status"] == result.returncode == (3 if cut else 1 if counts["rejected"] else 0)
    assert counts["read"] == len(lines) == sum(counts[verdict] for verdict in VERDICTS)
    for verdict in VERDICTS:
        assert counts[verdict] == sum(line["verdict"] == verdict for line in lines)
    assert counts["failed"] == counts["replaced"] == 0
    places = [(line["line"], line.get("item", 0)) for line in lines]
    assert places == sorted(set(places))
    assert {row[0] for row in stored_rows(Path("db"), table)} == {
        line["id"] for line in lines if line["verdict"] == "inserted"
    }
    assert len(stored_rows(Path("db"), table)) == counts["inserted"]
    assert all({problem["code"] for problem in line["problems"]} <= set(distributed_inserts.PROBLEMS) for line in lines)
    assert all(bool(line["problems"]) == (line["verdict"] == "rejected") for line in lines)
    with open(Path("rejects") / "errors.jsonl", encoding="utf-8") as errors:
        assert len([json.loads(line) for line in errors]) == sum(len(line["problems"]) for line in lines)
    return lines


def check_text(table: str, name: str) -> None:
    """Fail unless the second load, in text, finds all stored records unchanged and prints nothing unprintable."""
    before = stored_rows(Path("db"), table)
    result = run_here(f"--{table}", name, "--db", "db", "-v")
    assert result.returncode in (0, 1, 3)
    assert is_printable(result.stdout + result.stderr)
    assert not re.search(r"(?m)^ *\S (inserted|failed) ", result.stdout)
    assert stored_rows(Path("db"), table) == before


# ------------------------------------------------------------------------------------------------ Property tests


@pytest.fixture
def hypothesis() -> ModuleType:
    """Return hypothesis, or skip."""
    return pytest.importorskip("hypothesis", reason="hypothesis is not installed")


def for_all(hypothesis: ModuleType, check: Callable[..., None], **strategies: object) -> None:
    """Check what is to hold for all values of the strategies; the current folder is one of its own for each example."""

    def check_apart(**values: object) -> None:
        with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
            stack.callback(os.chdir, os.getcwd())
            os.chdir(directory)
            check(**values)

    settings = hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize="EXAMPLES" not in os.environ,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    settings(hypothesis.given(**strategies)(check_apart))()


NASTY = [
    "", " ", "0", "-1", "1.0", "1e3", "9" * 19, "9" * 5000, "nan", "inf", "1e999", "\0", "\x1b[31m", "\u202e", "\u200b",
    "\ufeff", "\ud800", "\udcff", "a@b.example", "A@B.EXAMPLE", "ａ@b.example", "a@b", "@", "'; DROP TABLE users; --",
    '"', '""', ",", "\t", "\n", "\r", "\r\n", "=1+1", "%s", "{0}", "İ", "ß", "ﬁ", "\u0301", "a\u0301", "🦜",
    "\U0010ffff", "x" * 300, "True", "null", "[]", "{}",
]


def texts(st: ModuleType) -> object:
    """Return a strategy of texts that gets to the nasty ones often; half of them are without surrogates."""
    return st.one_of(
        st.sampled_from(NASTY),
        st.text(max_size=20),
        st.text(st.characters(), max_size=8),
        st.tuples(st.sampled_from(NASTY), st.text(max_size=3)).map("".join),
        st.integers(-5, 60).map(str),
        st.integers(1, 20).map(lambda number: f"u{number}@example.com"),
        st.integers(1, 9).map(lambda number: f"Name {number}"),
    )


def json_values(st: ModuleType) -> object:
    """Return a strategy of anything that JSON can say."""
    leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.integers(1, 20), st.floats(), texts(st))
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts(st), inner, max_size=3), max_leaves=6
    )


class Odd:
    """A value that is nothing a record holds."""

    def __repr__(self) -> str:
        return "<odd \x1b[31m\ud800>"


@pytest.mark.parametrize("validate", ["validate_user", "validate_product", "validate_order"])
def test_any_mapping_has_a_list_of_problems_in_plain_words(hypothesis: ModuleType, validate: str) -> None:
    st = hypothesis.strategies
    values = st.one_of(
        json_values(st),
        st.binary(max_size=5),
        st.builds(Odd),
        st.just(10**5000),
        st.just(-(10**5000)),
        st.just(float("nan")),
        st.complex_numbers(),
        st.decimals(),
        st.sets(st.integers()),
        st.text(st.characters(categories=["Cs", "L"]), max_size=5),
    )
    names = st.one_of(
        st.sampled_from(["id", "name", "email", "price", "user_id", "product_id", "quantity", "ID", None, 7]),
        st.text(max_size=3),
    )

    def check(record: dict) -> None:
        before = dict(record)
        problems = getattr(distributed_inserts, validate)(record)
        for problem in problems:
            assert problem.code in distributed_inserts.PROBLEMS
            assert problem.message.isprintable() and len(problem.message) < 500
        assert problems == getattr(distributed_inserts, validate)(record)
        assert record == before

    for_all(hypothesis, check, record=st.dictionaries(names, values, max_size=6))


@pytest.mark.parametrize("table", ["users", "products"])
@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_any_cells_are_loaded_the_same_in_any_batch(hypothesis: ModuleType, table: str, kind: str) -> None:
    st = hypothesis.strategies

    def check(records: list[list[str]], quoting: int) -> None:
        part = io.StringIO()
        writer = csv.writer(
            part, quoting=quoting, delimiter="," if kind == "csv" else "\t", lineterminator="\n", escapechar="\\"
        )
        writer.writerow(MODELS[table])
        writer.writerows(records)
        content = part.getvalue().encode("utf-8", "replace")
        results = [
            check_load(table, content, f"{table}.{kind}", "--batch-size", size, again=size == 1000)
            for size in (1, 1000)
        ]
        assert results[0] == results[1]
        if not Path("db").exists():
            return  # a file with a control character among a dozen others may count as binary
        stored = stored_rows(Path("db"), table)
        unique = [unicodedata.normalize("NFC", row[2 if table == "users" else 1]).casefold() for row in stored]
        assert len(set(unique)) == len(unique)
        for row in stored:
            assert 1 <= row[0] < 2**63 and row[1].strip() == row[1] != ""
            assert not re.search("[\0-\x1f\x7f-\x9f]", "".join(cell for cell in row if isinstance(cell, str)))
            assert table == "users" or math.isfinite(row[2]) and row[2] > 0

    for_all(
        hypothesis,
        check,
        records=st.lists(
            st.one_of(st.tuples(texts(st), texts(st), texts(st)).map(list), st.lists(texts(st), max_size=5)),
            max_size=12,
        ),
        quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    )


@pytest.mark.parametrize("kind", ["json", "jsonl"])
@pytest.mark.parametrize("table", ["users", "products", "orders"])
def test_any_json_values_are_loaded_the_same_in_any_batch(hypothesis: ModuleType, kind: str, table: str) -> None:
    st = hypothesis.strategies
    sound = {
        "users": {"id": st.integers(1, 30), "name": st.just("Ann"), "email": texts(st)},
        "products": {"id": st.integers(1, 30), "name": texts(st)},
        "orders": {"id": st.integers(1, 30), "quantity": json_values(st)},
    }[table]
    records = st.one_of(
        json_values(st),
        st.fixed_dictionaries(sound, optional={name: json_values(st) for name in MODELS[table] if name not in sound}),
        st.fixed_dictionaries(
            {}, optional={name: json_values(st) for name in (*MODELS[table], "ID", " name ", "extra")}
        ),
    )

    def check(values: list[object], ascii_only: bool) -> None:
        lines = [json.dumps(value, ensure_ascii=ascii_only) for value in values]
        content = ("[" + ",\n".join(lines) + "]" if kind == "json" else "\n".join(lines)).encode(
            "utf-8", "surrogatepass"
        )
        results = [
            check_load(table, content, f"{table}.{kind}", "--batch-size", size, again=size == 1000)
            for size in (1, 1000)
        ]
        assert results[0] == results[1]
        if kind == "json" and b"\xed" not in content and results[0]:  # none if the first has no field of ours
            assert len(results[0]) == len(values)

    for_all(hypothesis, check, values=st.lists(records, max_size=10), ascii_only=st.booleans())


VALID = {
    "csv": b'id,name,email\r\n1,Ann,ann@example.com\r\n2,"Ben ""B"" Beta",ben@example.com\n'
    b'3,"two\nlines",cat@example.com\n4,D\xc3\xa4n,dan@example.com\n',
    "tsv": b'id\tname\temail\n1\tAnn\tann@example.com\n2\t"Ben\t"\tben@example.com\n\n4\tD\xc3\xa4n\tdan@example.com',
    "json": b'[{"id": 1, "name": "Ann", "email": "ann@example.com"},\n'
    b' {"id": 2, "name": "B\\u00e9n", "email": "ben@example.com"},\n[3], {"id": 4}]\n',
    "jsonl": b'{"id": 1, "name": "Ann", "email": "ann@example.com"}\n'
    b'{"id": 2, "name": "B\\u00e9n", "email": "ben@example.com"}\n\n[3]\n{"id": 4}',
}
VALID_UTF_16 = {kind: b"\xff\xfe" + content.decode("utf-8").encode("utf-16-le") for kind, content in VALID.items()}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("base", [VALID, VALID_UTF_16], ids=["utf-8", "utf-16"])
def test_a_file_with_any_bytes_changed_breaks_nothing(
    hypothesis: ModuleType, kind: str, base: dict[str, bytes]
) -> None:
    st = hypothesis.strategies
    pieces = st.one_of(
        st.binary(max_size=4),
        st.sampled_from(
            [
                b'"', b"\n", b"\r", b",", b"\0", b"\xff", b"{", b"}", b"[", b"]", b"\\", b'"id"', b"\xef\xbb\xbf",
                b"\xed\xa0\x80",
            ]
        ),
    )

    def check(edits: list[tuple[float, int, bytes]]) -> None:
        content = base[kind]
        for where, cut, piece in edits:
            at = int(where * len(content))
            content = content[:at] + piece + content[at + cut :]
        check_load("users", content, f"users.{kind}")

    for_all(hypothesis, check, edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 4), pieces), max_size=5))


@pytest.mark.parametrize("kind", FORMATS)
def test_any_bytes_at_all_break_nothing(hypothesis: ModuleType, kind: str) -> None:
    st = hypothesis.strategies
    begins = st.sampled_from(
        [
            b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"id,name,email\n", b"id\tname\temail\n", b"[",
            b'{"id":1}\n', b"\xff\xfei\0d\0",
        ]
    )

    def check(begin: bytes, content: bytes) -> None:
        check_load("users", begin + content, f"users.{kind}")

    for_all(hypothesis, check, begin=begins, content=st.binary(max_size=200))


def test_any_value_of_a_flag_is_taken_or_refused_with_exit_status_2(hypothesis: ModuleType) -> None:
    st = hypothesis.strategies
    words = st.one_of(st.sampled_from([word for word in NASTY if "\0" not in word]), st.text(max_size=10)).filter(
        lambda word: word != "-"
    )
    flags = st.sampled_from(["--users", "--batch-size", "--encoding", "--busy-timeout", "--db=db/"])

    def check(pairs: list[tuple[str, str]]) -> None:
        os.mkdir("here")
        os.chdir("here")
        arguments = [
            word
            for flag, value in pairs
            for word in ([flag + re.sub(r"[/\\:]|\.\.", "_", value)] if flag.endswith("/") else [flag, value])
        ]
        result = run_here("-q", *arguments)
        assert result.returncode in (0, 1, 2)
        assert "Traceback" not in result.stderr and "internal error" not in result.stderr
        assert all(line.isprintable() for line in result.stderr.split("\n"))

    for_all(hypothesis, check, pairs=st.lists(st.tuples(flags, words), max_size=3))


# ------------------------------------------------------------------------ Values, headers and names that mean something

MEANINGS = [
    "'; DROP TABLE users; --", "Robert'); DELETE FROM users WHERE ('1'='1", '"users"', "`users`", "[users]", "?", ":id",
    "?1", "$name", "@name", "NULL", "x' OR 1=1", "sqlite_master", "rowid", "%s", "%(asctime)s", "%", "{0}", "{value}",
    "{detail!r}", "{", "\\", "\\t", "\\u0000", "$(rm -rf x)", "`id`", "| cat", "; ls", "=1+1", "=cmd|' /C calc'!A0",
    "+1", "-1+1", "@SUM(A1)", "<script>alert(1)</script>", "&amp;", "../../etc/passwd", "file:///etc/passwd", "-n",
    "--help", "__proto__", "*", "~",
]


def test_values_that_mean_something_elsewhere_are_stored_as_they_are(folder: Path) -> None:
    numbered = list(enumerate(MEANINGS, start=1))
    with open("users.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows(
            [
                ["id", "name", "email"],
                *([number, f"{meaning} {number}", f"u{number}@example.com"] for number, meaning in numbered),
            ]
        )
    records = [{"id": number, "name": meaning, "price": number} for number, meaning in numbered]
    (folder / "products.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    for status in ("inserted", "unchanged"):
        result = run_here(
            "--users", "users.csv", "--products", "products.jsonl", "--json", "--log-file", "log.txt", "--trace",
            "trace.json",
        )
        assert result.returncode == 0
        assert {json.loads(line)["verdict"] for line in result.stdout.splitlines()[:-1]} == {status}
    assert [row[1] for row in rows(folder / "users.db")] == [f"{meaning} {number}" for number, meaning in numbered]
    assert [row[1] for row in rows(folder / "products.db")] == MEANINGS
    (folder / "same.jsonl").write_text(
        "".join(
            json.dumps({**record, "id": record["id"] + 100, "name": record["name"].upper()}) + "\n"
            for record in records
        ),
        encoding="utf-8",
    )
    (folder / "users.csv").write_text(
        (folder / "users.csv").read_text(encoding="utf-8").replace("@", " at "), encoding="utf-8"
    )
    result = run_here("--users", "users.csv", "--products", "same.jsonl", "--json", "--rejects", "rejects")
    lines = [json.loads(line) for line in result.stdout.splitlines()[:-1]]
    codes = {(line["model"], line["problems"][-1]["code"]) for line in lines}
    assert codes == {("users", "not_email"), ("products", "not_unique")}
    assert (folder / "rejects" / "users.csv").read_bytes() == (folder / "users.csv").read_bytes()
    assert len(rows(folder / "products.db")) == len(MEANINGS)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_headers_that_mean_something_are_extra_columns(folder: Path, kind: str) -> None:
    names = ["id", *MEANINGS, "\x1b[31m", "\x1b]0;x\x07", "\u202e", "a\nb", "name", "email"]
    record = dict(zip(names, [1, *"x" * (len(names) - 3), "Ann", "ann@example.com"]))
    record.update(name="Ann", email="ann@example.com")
    with open(f"users.{kind}", "w", encoding="utf-8", newline="") as file:
        if kind == "csv":
            csv.writer(file).writerows([record, record.values()])
        else:
            file.write(json.dumps(record))
    result = run_here("--users", f"users.{kind}")
    assert is_printable(result.stdout + result.stderr) and len(result.stderr) < 5000
    assert (result.returncode, rows(folder / "users.db")) == (0, [(1, "Ann", "ann@example.com")])


@pytest.mark.skipif(os.name != "posix", reason="such names of files are for POSIX alone")
@pytest.mark.parametrize(
    "name",
    [
        "'; DROP TABLE users; --", "\x1b[31mred", "\x1b]0;title\x07", "a\nb", "a\rb", "\u202e", "%s", "{0}", "`id`",
        "$(id)", "a b", " ", "?mode=memory", "#", "%41", "file:x", ":memory:", "--help", "-", "\udcff", "🦜", "\u200b",
        "x" * 200,
    ],
    ids=repr,
)
def test_any_name_of_a_file_or_a_folder_works(folder: Path, name: str) -> None:
    try:
        (folder / f"{name}.csv").write_text("id,name,email\n1,Ann,ann@example.com\n2,,x\n", encoding="utf-8")
    except (OSError, UnicodeError) as error:
        pytest.skip(f"no such name here: {error}")
    arguments = (f"--users={name}.csv", f"--db={name}.d", f"--rejects={name}.r")
    for extra in ((), ("--json",), ("-n", "--trace=t.json", "--log-file=l.txt")):
        result = run_here(*arguments, *extra)
        assert result.returncode == 1
        assert all(line.isprintable() for line in (result.stdout + result.stderr).split("\n"))
        assert rows(folder / f"{name}.d" / "users.db") == [(1, "Ann", "ann@example.com")]
    assert run_here("--verify", f"--db={name}.d", "-q").returncode == 0
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [f"{name}.csv", f"{name}.d", f"{name}.r", "t.json", "l.txt"]
    )
    assert (folder / f"{name}.r" / "users.csv").read_text(encoding="utf-8") == "id,name,email\n2,,x\n"


@pytest.mark.skipif(os.name != "posix", reason="such names of files are for POSIX alone")
@pytest.mark.parametrize("name", ["\x1b[31mred", "\u202e", "a\nb", "\udcff"], ids=repr)
def test_a_name_in_a_complaint_is_escaped(folder: Path, name: str) -> None:
    for arguments in (
        [f"--users={name}.csv"],
        [f"--users={name}"],
        [f"--db=/dev/null/{name}"],
        [f"--log-file={name}/x"],
        [f"--trace={name}/x"],
        [f"--rejects=/dev/null/{name}"],
        ["--verify", f"--db={name}"],
    ):
        result = run_here(*arguments)
        assert result.returncode == 2, arguments
        assert all(line.isprintable() for line in result.stderr.split("\n"))
        assert list(folder.iterdir()) == []


# ----------------------------------------------------------------------------------------------------- Large things


def measured(folder: Path, *arguments: object, timeout_s: float = TIMEOUT_S) -> tuple[int, list[dict], str, int]:
    """Run the program on its own; return exit status, lines of JSON, complaints and peak memory in bytes."""
    status, output, err, peak = measure(folder, "--json", *arguments, timeout_s=timeout_s)
    return status, [json.loads(line) for line in output.read_bytes().splitlines()], err, peak


GOOD = {
    "csv": b"%d,Ann,u%d@example.com\n",
    "tsv": b"%d\tAnn\tu%d@example.com\n",
    "jsonl": b'{"id":%d,"name":"Ann","email":"u%d@example.com"}\n',
    "json": b'{"id":%d,"name":"Ann","email":"u%d@example.com"}',
}
HUGE = {
    "one cell": ("csv", [b"2,", b"x", b",b@example.com\n"]),
    "one quoted cell": ("csv", [b'2,"', b"x" * 1023 + b"\n", b'",b@example.com\n']),
    "cells": ("csv", [b"2", b",", b"\n"]),
    "quotes": ("csv", [b"2,", b'""', b"\n"]),
    "an unclosed quote": ("csv", [b'2,"', b"x", b"\n"]),
    "no line end": ("tsv", [b"", b"x", b"\n"]),
    "wide characters": ("csv", [b"", "🦜".encode(), b"\n"]),
    "no UTF-8": ("csv", [b"", b"\xff", b"\n"]),
    "carriage returns in it": ("csv", [b'2,"', b"x" * 1022 + b"\r\n", b'",b@example.com\n']),
    "a text of JSON Lines": ("jsonl", [b'{"id":2,"name":"', b"x", b'","email":"b@example.com"}\n']),
    "a number of JSON Lines": ("jsonl", [b'{"id":', b"7", b"}\n"]),
    "brackets": ("jsonl", [b"", b"[", b"\n"]),
    "keys": ("jsonl", [b'{"id":2', b',"k":1', b"}\n"]),
    "a text in an array": ("json", [b'{"id":2,"name":"', b"x", b'","email":"b@example.com"}']),
    "brackets in an array": ("json", [b"", b"[", b"]"]),
    "keys in an array": ("json", [b'{"id":2', b',"k":1', b"}"]),
    "spaces in an array": ("json", [b'{"id":2', b" ", b"}"]),
}
FOLLOWED_MAX = 4 * 2**20  # characters in which the end of an element is looked for


def check_huge(folder: Path, name: str, size: int) -> None:
    """Load a file with one huge record between good ones; fail unless those are stored and memory is bounded."""
    kind, (begin, middle, end) = HUGE[name]
    header = {"csv": b"id,name,email\n", "tsv": b"id\tname\temail\n", "json": b"[", "jsonl": b""}[kind]
    comma = b",\n" if kind == "json" else b""
    with open(folder / f"users.{kind}", "wb") as file:
        file.write(header + GOOD[kind] % (1, 1) + comma + begin)
        for _ in range(size // 2**20):
            file.write(middle * (2**20 // len(middle)))
        file.write(end + comma + GOOD[kind] % (3, 3) + (b"]" if kind == "json" else b""))
    status, lines, err, peak = measured(
        folder,
        "--users",
        f"users.{kind}",
        "--rejects",
        "rejects",
        timeout_s=HEAVY_TIMEOUT_S if size > 10**8 else TIMEOUT_S,
    )
    counts = lines[-1]["summary"]["users"]
    # Brackets that are not closed are a syntax error, which ends the array; so does an element that is not followed.
    is_cut = kind == "json" and (name == "brackets in an array" or size > FOLLOWED_MAX)
    assert status == (3 if is_cut else 1)
    assert len(err) < 5000
    assert [row[0] for row in rows(folder / "users.db")] == ([1] if is_cut else [1, 3])
    assert counts["read"] == len(lines) - 1 == counts["inserted"] + counts["rejected"]
    assert peak <= PEAK_MAX_BYTES


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if number % 2 else HEAVY) for number, name in enumerate(HUGE)]
)
def test_a_record_of_2_mb_is_rejected_and_its_neighbours_are_stored(folder: Path, name: str) -> None:
    check_huge(folder, name, 2 * 2**20)


@HEAVY
@pytest.mark.parametrize("name", HUGE)
def test_a_record_of_100_mb_is_rejected_and_its_neighbours_are_stored(folder: Path, name: str) -> None:
    check_huge(folder, name, 100 * 2**20)


@pytest.mark.parametrize("inside", [b"x", b"\n", b"id,name,email\n", b"[", b'"'], ids=repr)
def test_a_small_archive_of_something_huge_takes_no_memory(folder: Path, inside: bytes) -> None:
    with gzip.open(folder / "users.csv", "wb") as file:
        file.write(b"id,name,email\n1,Ann,ann@example.com\n2,")
        for _ in range(24 if inside in b"x[" else 2):  # lines are records, and take their time
            file.write(inside * (2**20 // len(inside)))
        file.write(b"\n3,Cy,cy@example.com\n")
    status, lines, err, peak = measured(folder, "--users", "users.csv", "-q")
    assert status in (0, 1) and peak <= PEAK_MAX_BYTES and len(err) < 5000
    assert [row[0] for row in rows(folder / "users.db")] == [1, 3]


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl"])
def test_10000_columns_are_ignored_with_one_short_notice(folder: Path, kind: str) -> None:
    sign, names = {"csv": ",", "tsv": "\t"}.get(kind), [f"extra {number}" for number in range(9997)]
    if sign:
        lines = [
            sign.join(["id", *names, "name", "email"]),
            *(sign.join([str(n), *["x"] * 9997, "Ann", f"u{n}@example.com"]) for n in (1, 2)),
            sign.join(["3"] * 10_001),
        ]
        text = "\n".join(lines)
    else:
        records = [
            {"id": n, **dict.fromkeys(names, "x"), "name": "Ann", "email": f"u{n}@example.com"} for n in (1, 2)
        ] + [dict.fromkeys(names, 1)]
        text = json.dumps(records) if kind == "json" else "\n".join(map(json.dumps, records))
    (folder / f"users.{kind}").write_text(text, encoding="utf-8")
    result = run_here("--users", f"users.{kind}")
    assert result.returncode == 1
    assert [row[0] for row in rows(folder / "users.db")] == [1, 2]
    assert result.stderr.count("\n") == (2 if kind == "tsv" else 1) and len(result.stderr) < 1000
    assert max(map(len, result.stdout.splitlines())) < 500


def test_a_header_of_10000_columns_without_ours_is_refused_in_few_words(folder: Path) -> None:
    (folder / "users.csv").write_text(
        ",".join(f"column {number}" for number in range(10_000)) + "\n1\n", encoding="utf-8"
    )
    result = run_here("--users", "users.csv")
    assert (result.returncode, result.stdout) == (2, "")
    assert len(result.stderr) < 2000


def check_nesting(run: Run, folder: Path, kind: str, depths: Sequence[int]) -> None:
    """Load records nested so deep, between good ones; fail unless these are rejected and those are stored."""
    deep = []
    for depth in depths:
        brackets, objects = "[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth
        mixed = '[{"a":' * (depth // 2) + "1" + "}]" * (depth // 2)
        deep += [
            brackets,
            objects,
            *(f'{{"id": 2, "name": "Ben", "email": {value}}}' for value in (brackets, objects, mixed)),
            f'{{"id": {objects}, "name": "B"}}',
            *(f'{{"id": 2, "name": "", "email": "b@example.com", "extra": {value}}}' for value in (brackets, objects)),
        ]
        if kind == "jsonl":
            deep += ["[" * depth, '{"a":' * depth]
    good = [
        json.dumps({"id": number, "name": "Ann", "email": f"u{number}@example.com"})
        for number in range(100, 101 + len(deep))
    ]
    lines = [line for pair in zip(good, deep) for line in pair] + good[-1:]
    (folder / f"users.{kind}").write_text(
        "\n".join(lines) if kind == "jsonl" else f"[{', '.join(lines)}]", encoding="utf-8"
    )
    for arguments, verdict in (
        (("--json",), "inserted"),
        (("-v", "--log-file", "log.txt", "--rejects", "out"), "unchanged"),
    ):
        result = run("--users", f"users.{kind}", *arguments, timeout=10)
        assert result.returncode == 1 or kind == "json" and result.returncode == 3
        assert "internal error" not in result.stderr
        found = (
            [json.loads(line)["verdict"] for line in result.stdout.splitlines()[:-1]]
            if "--json" in arguments
            else re.findall(r"(?m)^ *\S (inserted|unchanged|rejected|failed)\b", result.stdout)
        )
        expected = [word for _ in deep for word in (verdict, "rejected")] + [verdict]
        if result.returncode == 1:
            assert found == expected
        else:  # what Python cannot read ends an array as a syntax error does
            assert found == expected[: len(found)] and found[-1] == "rejected"


@pytest.mark.parametrize("depth", [480, 100_000])
@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_records_nested_however_deep_are_rejected_one_by_one(run: Run, tmp_path: Path, kind: str, depth: int) -> None:
    check_nesting(run, tmp_path, kind, [depth])


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_records_nested_as_deep_as_python_just_reads_are_rejected_too(run: Run, tmp_path: Path, kind: str) -> None:
    depths = [600, 700, 900, 950, 980, 990, 1400, 6000, 9000]  # where that is, depends on the version
    check_nesting(run, tmp_path, kind, depths)


DIGITS = "7" * 5000


@pytest.mark.parametrize(
    ("record", "codes"),
    [
        ({"id": DIGITS}, {"id": "out_of_range"}),
        ({"id": "-" + DIGITS}, {"id": "not_positive"}),
        ({"id": "0" * 5000 + "1"}, {}),
        ({"id": DIGITS + ".0"}, {"id": "out_of_range"}),
        ({"id": DIGITS + ".5"}, {"id": "not_integer"}),
        ({"user_id": DIGITS}, {"user_id": "out_of_range"}),
        ({"quantity": DIGITS}, {"quantity": "out_of_range"}),
        ({"quantity": "0" * 5000}, {"quantity": "not_positive"}),
    ],
    ids=[
        "id", "negative id", "zeros before an id", "decimal id", "id with a half", "reference", "quantity",
        "many zeros",
    ],
)
@pytest.mark.parametrize("kind", ["csv", "json text"])
def test_5000_digits_are_judged_like_any_number(
    folder: Path, kind: str, record: dict[str, str], codes: dict[str, str]
) -> None:
    (folder / "users.csv").write_text("id,name,email\n1,Ann,ann@example.com\n", encoding="utf-8")
    (folder / "products.csv").write_text("id,name,price\n1,Desk,1\n", encoding="utf-8")
    cells = {"id": "1", "user_id": "1", "product_id": "1", "quantity": "1", **record}
    if kind == "csv":
        (folder / "orders.csv").write_text(",".join(cells) + "\n" + ",".join(cells.values()) + "\n", encoding="utf-8")
    else:
        pairs = ", ".join(
            f'"{name}": {json.dumps(cell)}' for name, cell in cells.items()
        )
        (folder / "orders.json").write_text(f"[{{{pairs}}}]", encoding="utf-8")
    result = run_here(
        "--users",
        "users.csv",
        "--products",
        "products.csv",
        "--orders",
        "orders.csv" if kind == "csv" else "orders.json",
        "--json",
    )
    line = json.loads(result.stdout.splitlines()[-2])
    assert {problem["field"]: problem["code"] for problem in line["problems"]} == codes


@pytest.mark.parametrize(
    ("price", "code"),
    [
        (DIGITS, "out_of_range"),
        ("0." + "0" * 5000 + "1", "out_of_range"),
        ("1." + "0" * 5000, None),
        ("1e" + "9" * 5000, "out_of_range"),
        ("1e-" + "9" * 5000, "out_of_range"),
        ("0e" + "9" * 5000, "not_positive"),
        ("-1e-" + "9" * 5000, "not_positive"),
        ("0" * 5000, "not_positive"),
    ],
)
def test_prices_of_5000_digits_are_judged_like_any_number(folder: Path, price: str, code: str | None) -> None:
    (folder / "products.csv").write_text(f"id,name,price\n1,Desk,{price}\n2,Lamp,2\n", encoding="utf-8")
    lines = [json.loads(line) for line in run_here("--products", "products.csv", "--json").stdout.splitlines()]
    assert [problem["code"] for problem in lines[0]["problems"]] == ([code] if code else [])
    assert lines[1]["verdict"] == "inserted"


@pytest.mark.parametrize("sign", [1, -1])
def test_the_validators_take_an_integer_of_5000_digits(sign: int) -> None:
    number = sign * 10**5000
    assert [
        (each.field, each.code)
        for each in distributed_inserts.validate_order(
            {"id": number, "user_id": number, "product_id": 1, "quantity": number}
        )
    ] == [
        ("id", "out_of_range" if sign > 0 else "not_positive"),
        ("user_id", "out_of_range"),
        ("quantity", "out_of_range" if sign > 0 else "not_positive"),
    ]
    assert [
        (each.field, each.code)
        for each in distributed_inserts.validate_product({"id": 1, "name": "Desk", "price": number})
    ] == [("price", "out_of_range" if sign > 0 else "not_positive")]


SLOW = {
    "no address": "a" * 60_000 + "@", "dots": "a." * 30_000 + "@example.com", "signs": "@" * 60_000,
    "labels": "a@" + "b." * 30_000, "hyphens": "a@b" + "-" * 60_000 + ".com",
    "spaces": " " * 60_000 + "x" + " " * 60_000, "wide spaces": "x" + "\u3000" * 60_000 + "x",
    "fillers": "\u3164" * 60_000 + "\x07", "zeros": "0" * 120_000, "exponents": "1e" * 60_000, "minus": "-" * 120_000,
    "ligatures": "\ufdfa" * 30_000, "accents": "a" + "\u0301" * 60_000, "quotes": '"' * 60_000,
}


def test_no_cell_takes_a_rule_long(folder: Path) -> None:
    for table, names in MODELS.items():
        with open(folder / f"{table}.jsonl", "w", encoding="utf-8") as file:
            for value in SLOW.values():
                records = [dict.fromkeys(names, value)]
                records += [{name: value if name == field else "1" for name in names} for field in names]
                file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    status, lines, _, _ = measured(folder, *(word for table in MODELS for word in (f"--{table}", f"{table}.jsonl")))
    assert status == 1
    assert len(lines) == (4 + 4 + 5) * len(SLOW) + 1


def test_accents_in_disorder_take_no_time_that_grows_with_their_square(folder: Path) -> None:
    (folder / "products.jsonl").write_text(
        "".join(
            json.dumps({"id": number, "name": name, "price": 1}, ensure_ascii=False) + "\n"
            for number, name in ((1, "a" + "\u0301\u0316" * 250_000), (2, "Desk"))
        ),
        encoding="utf-8",
    )
    status, lines, _, _ = measured(folder, "--products", "products.jsonl", timeout_s=5)
    assert status in (0, 1)
    assert lines[1]["verdict"] == "inserted"


@pytest.mark.parametrize("lines", [3, 2000])
def test_records_in_an_open_quote_are_read_and_the_quote_costs_its_own_line(folder: Path, lines: int) -> None:
    inside = [f"{number},Ned,n{number}@example.com" for number in range(100, 100 + lines)]
    text = "\n".join(
        [
            "id,name,email",
            "1,Ann,ann@example.com",
            '2,"Ben,ben@example.com',
            *inside,
            '3,Cy",cy@example.com',
            "4,Di,di@example.com",
        ]
    )
    found = check_load("users", text.encode(), "users.csv")
    stored = [row[0] for row in rows(folder / "db" / "users.db")]
    assert [number for number in (1, 4, *range(100, 100 + lines)) if number not in stored] == []
    assert len(found) == lines + 4 and 2 not in stored


@pytest.mark.parametrize("arguments", [(), ("--json",)], ids=["text", "json"])
def test_a_broken_row_of_tabs_is_told_without_a_raw_tab(folder: Path, arguments: tuple[str, ...]) -> None:
    (folder / "users.tsv").write_text('id\tname\temail\n1\t"A"nn\tann@example.com\n', encoding="utf-8")
    result = run_here("--users", "users.tsv", *arguments)
    assert result.returncode == 1
    assert "\t" not in result.stdout + result.stderr
    (folder / "users.tsv").write_text('"id"x\tname\temail\n', encoding="utf-8")
    result = run_here("--users", "users.tsv", *arguments)
    assert result.returncode == 2
    assert "\t" not in result.stdout + result.stderr


@pytest.mark.parametrize("name", ["\x07", "\x1b[31m", "\x01\x02\x03"], ids=repr)
def test_a_small_file_with_one_row_of_control_characters_is_no_binary_file(folder: Path, name: str) -> None:
    (folder / "users.csv").write_text(f"id,name,email\n1,{name},a@b.example\n2,Ben,b@b.example\n", encoding="utf-8")
    result = run_here("--users", "users.csv", "--json")
    assert result.returncode == 1
    assert [row[0] for row in rows(folder / "users.db")] == [2]


# ------------------------------------------------------------------------------------------------------ Binary files


def make_png() -> bytes:
    """Return a picture of noise, 100 by 100."""
    chunk = lambda kind, content: (
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    )
    noise = b"".join(b"\0" + bytes((x * y * 7919 + x * x) % 251 for x in range(300)) for y in range(100))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 100, 100, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(noise))
        + chunk(b"IEND", b"")
    )


def make_database() -> bytes:
    """Return a SQLite database with a thousand rows."""
    with tempfile.TemporaryDirectory() as directory:
        connection = sqlite3.connect(os.path.join(directory, "x"))
        connection.execute("CREATE TABLE t (a, b)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", [(number, f"text {number}\n") for number in range(1000)])
        connection.commit()
        connection.close()
        return Path(directory, "x").read_bytes()


BINARY: dict[str, Callable[[], bytes]] = {
    "picture": make_png,
    "database": make_database,
    "gzip": lambda: b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + zlib.compress(bytes(range(256)) * 99),
    "zeros": lambda: bytes(10_000),
    "every byte": lambda: bytes(range(256)) * 100,
    "program": lambda: Path(sys.executable).read_bytes()[:200_000],
    "UTF-16 without BOM": lambda: ("id,name,email\n" * 99).encode("utf-16-le"),
}


@pytest.mark.parametrize("kind", ["csv", "json"])
@pytest.mark.parametrize("name", BINARY)
def test_a_binary_file_is_one_error(folder: Path, kind: str, name: str) -> None:
    (folder / f"users.{kind}").write_bytes(BINARY[name]())
    result = run_here("--users", f"users.{kind}")
    assert (result.returncode, result.stdout) == (2, "")
    assert is_printable(result.stderr) and 0 < len(result.stderr) < 500
    assert [path.name for path in folder.iterdir()] == [f"users.{kind}"]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("part", [bytes(range(1, 256)), bytes(range(256))], ids=["without NUL", "with NUL"])
def test_a_text_with_a_binary_part_far_down_loses_that_part_alone(folder: Path, kind: str, part: bytes) -> None:
    good = [GOOD[kind] % (number, number) for number in range(1, 8001)]  # more than is read at once
    content = (
        (b"id,name,email\n" if kind == "csv" else b"") + b"".join(good[:7800]) + part + b"\n" + b"".join(good[7800:])
    )
    lines = check_load("users", content, f"users.{kind}", again=False)
    stored = {row[0] for row in rows(folder / "db" / "users.db")}
    assert stored >= set(range(1, 8001)) - {7800, 7801}
    assert 1 <= sum(line["verdict"] == "rejected" for line in lines) <= 5


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("kept", [0.5, 0.99])
def test_an_archive_that_breaks_off_is_loaded_as_far_as_it_goes_and_told(folder: Path, kind: str, kept: float) -> None:
    comma = b",\n" if kind == "json" else b""
    header = {"csv": b"id,name,email\n", "tsv": b"id\tname\temail\n", "json": b"[", "jsonl": b""}[kind]
    content = gzip.compress(
        header
        + comma.join(GOOD[kind] % (number, number) for number in range(1, 20_001))
        + (b"]" if kind == "json" else b"")
    )
    (folder / "users").write_bytes(content[: int(len(content) * kept)])
    result = run_here("--users", "users", "-q", "--json")
    summary = json.loads(result.stdout.splitlines()[-1])
    assert result.returncode == 3 == summary["exit_status"] and "users" in result.stderr and "cut" in result.stdout
    counts, stored = summary["summary"]["users"], [row[0] for row in rows(folder / "users.db")]
    assert counts["read"] == sum(counts[verdict] for verdict in VERDICTS)
    assert len(stored) == counts["inserted"] > 1000 and stored == list(range(1, len(stored) + 1))


@pytest.mark.parametrize("size", [2**exponent for exponent in (0, 3, 10, 13, 14, 15, 16, 17, 18)])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "json"])
def test_records_across_the_borders_of_what_is_read_at_once_stay_whole(folder: Path, kind: str, size: int) -> None:
    names = ["n" * (size + shift) for shift in (-1, 0, 1)] * 3
    records: Sequence[dict] = [
        {"id": number, "name": name + str(number), "email": f"u{number}@example.com"}
        for number, name in enumerate(names, start=1)
    ]
    if kind == "csv":
        content = "id,name,email\r\n" + "".join(
            f"{record['id']},{record['name']},{record['email']}\r\n" for record in records
        )
    else:
        content = json.dumps(records) if kind == "json" else "\n".join(map(json.dumps, records))
    (folder / f"users.{kind}").write_text(content, encoding="utf-8", newline="")
    result = run_here("--users", f"users.{kind}", "-q")
    expected = [tuple(record.values()) for record in records]
    assert result.returncode == 0
    assert rows(folder / "users.db") == expected
