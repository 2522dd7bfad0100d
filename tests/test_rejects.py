"""--rejects: the rejected records as they were read, ready to be fixed, and why.  Promise 8: nobody's file is overwritten."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from conftest import Run, rows
from loads import commands, shell

GOOD, BAD, NONE = "inserted", "rejected", ""
ENCODINGS = {"utf-8": b"", "utf-8 with BOM": b"\xef\xbb\xbf", "utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}
HEAD = "id,name,email\n"


@pytest.fixture
def load(here: Run) -> Run:
    """Return a function that runs a load here, in an empty folder, with JSON output."""
    return lambda *arguments: here("--json", *arguments)


def verdicts(result: subprocess.CompletedProcess) -> list[str]:
    """Return the verdicts of a load in the order of its output."""
    return [line["verdict"] for line in map(json.loads, result.stdout.splitlines()) if "verdict" in line]


def errors(folder: Path) -> list[dict]:
    """Return the lines of errors.jsonl."""
    data = (folder / "errors.jsonl").read_bytes()
    assert data.isascii() and (not data or data.endswith(b"\n"))
    return [json.loads(line) for line in data.split(b"\n")[:-1]]


def encoded(text: str, name: str) -> bytes:
    """Return text in one of the ENCODINGS, without its mark."""
    return text.encode("utf-8" if name.startswith("utf-8") else name)


def check_lines(source: bytes, rejects: bytes, encoding: str, found: list[dict]) -> None:
    """Make sure that every problem leads to the same text in the source and in the rejects file, in input order."""
    above, below = (re.split("\r\n|\n", data.decode(encoding, "surrogateescape")) for data in (source, rejects))
    for error in found:
        assert above[error["line"] - 1].strip(" ,[]") == below[error["rejects_line"] - 1].strip(" ,[]") != "", error
    assert [error["line"] for error in found] == sorted(error["line"] for error in found)


# -------------------------------------------------------------------------- Byte for byte, in every format and encoding

CSV_RECORDS = [
    ("1,Ann,ann@example.com", GOOD),
    ("2,,ben@example.com", BAD),
    ('3,"Cat ""C"", Jr.",cat@example.com', GOOD),
    ("", NONE),
    ('4,"two\nlines",dan@example.com', BAD),
    ('"5"," Eve ","eve"', BAD),
    ("6,Füsun 李,füsun@例子.广告", GOOD),
    ("7,Füsun 李,not an address", BAD),
    ("8,too,many,cells", BAD),
    ("9", BAD),
    ('10,"A"nn,ann@example.org', BAD),
    ("x,Ann,ANN@example.com", BAD),
    ("11, Gus ,gus@example.com ", GOOD),
    (",,", NONE),
    ("=1+1,=2,@SUM(A1)", BAD),
    ('12,"one\r\nmore",ida@example.com', BAD),
    ("13,\x1b[31mred,red@example.com", BAD),
    ('14,"open,open@example.com', BAD),
    ("15,Jo,jo@example.com", GOOD),
    ("16,Kim,kim@example.com,", GOOD),
    ('  "17" , "", "x"', BAD),
]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("size", ["1", "5", "1000"])
def test_a_csv_file_of_rejects_is_the_header_and_the_rejected_rows_byte_for_byte(
    load: Run, tmp_path: Path, encoding: str, end: str, size: str
) -> None:
    bom = ENCODINGS[encoding]
    source = bom + encoded(
        "".join(f"{record}{end}" for record in ["id,name,email", *(record for record, _ in CSV_RECORDS)]), encoding
    )
    (tmp_path / "users.csv").write_bytes(source)
    result = load("--users", "users.csv", "--rejects", "rejected", "--batch-size", size)
    assert result.returncode == 1
    assert verdicts(result) == [verdict for _, verdict in CSV_RECORDS if verdict]
    rejected = "".join(
        f"{record}{end}" for record in ["id,name,email", *(record for record, verdict in CSV_RECORDS if verdict is BAD)]
    )
    written = (tmp_path / "rejected" / "users.csv").read_bytes()
    assert written == bom + encoded(rejected, encoding)
    assert sorted(path.name for path in (tmp_path / "rejected").iterdir()) == ["errors.jsonl", "users.csv"]
    check_lines(source, written, encoding.split()[0], errors(tmp_path / "rejected"))


@pytest.mark.parametrize("separator", ["\t", ";", "|"], ids=["tab", "semicolon", "bar"])
@pytest.mark.parametrize("above", ["", "sep=SEPARATOR\r\n", "\n\n"], ids=["", "sep", "blank"])
def test_the_separator_and_the_header_are_kept(load: Run, tmp_path: Path, separator: str, above: str) -> None:
    header, good, bad = (
        " Email ,ID,note,NAME\r\n",
        "ann@example.com,1,likes tea,Ann\r\n",
        'ben,2,"likes\r\nbeer",Ben\r\ncat@example.com,3,,\r\n4,5\r\n',
    )
    text = (above + header + good + bad).replace(",", separator).replace("SEPARATOR", separator)
    (tmp_path / "users.csv").write_bytes(text.encode())
    assert load("--users", "users.csv", "--rejects", "rejected").returncode == 1
    written = (tmp_path / "rejected" / "users.csv").read_bytes()
    assert written.decode().removeprefix(above.replace("SEPARATOR", separator)) == (header + bad).replace(
        ",", separator
    )
    first = above.count("\n") + 3
    assert [(error["line"], error["field"], error["code"]) for error in errors(tmp_path / "rejected")] == [
        (first, "email", "not_email"),
        (first + 2, "name", "blank"),
        (first + 3, None, "malformed"),
    ]
    check_lines(text.encode(), written, "utf-8", errors(tmp_path / "rejected"))
    again = load("--users", "rejected/users.csv", "--rejects", "again")
    assert verdicts(again) == [BAD] * 3 and (tmp_path / "again" / "users.csv").read_bytes() == written


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_lines_are_kept_byte_for_byte(load: Run, tmp_path: Path, encoding: str) -> None:
    good = '{"id": 1, "name": "Ann", "email": "ann@example.com"}\n'
    bad = (
        '{"email":"ben@example.com",  "name": "\\u0020", "id": 2 }\n', '{"id": 3, "name": "Füsun 李"}\r\n', "[1, 2]\n",
        '{"id": 4,\n', "nonsense\n", "null\n", '{"id": 5, "id": 6, "name": "Dan", "email": "dan@example.com"}\n',
        '{"id": 7, "extra": {"a": [1, 2]}, "name": "Eve", "email": null}',
    )
    source = ENCODINGS[encoding] + encoded(bad[0] + good + "\n" + "".join(bad[1:]), encoding)
    (tmp_path / "users.json").write_bytes(source)
    result = load("--users", "users.json", "--rejects", "rejected")
    assert (result.returncode, verdicts(result)) == (1, [BAD, GOOD] + [BAD] * 7)
    (written,) = (path.read_bytes() for path in (tmp_path / "rejected").iterdir() if path.name != "errors.jsonl")
    assert written == ENCODINGS[encoding] + encoded("".join(bad) + "\n", encoding)
    found = errors(tmp_path / "rejected")
    assert sorted({error["line"] for error in found}) == [1, 4, 5, 6, 7, 8, 9, 10]
    assert sorted({error["rejects_line"] for error in found}) == list(range(1, 9))
    check_lines(source, written, encoding.split()[0], found)


@pytest.mark.parametrize("wrapped", [False, True], ids=["array", "wrapped"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_json_array_of_rejects_holds_the_rejected_elements_as_they_were_written(
    load: Run, tmp_path: Path, encoding: str, wrapped: bool
) -> None:
    good = '{"id": 1, "name": "Ann", "email": "ann@example.com"}'
    bad = (
        '{"email":"ben@example.com",\n   "name": "\\u0020", "id": 2 }', '{"id": 3, "name": "Füsun 李"}', "[1, 2]", "7",
        '"text"', "null", '{"id": 5, "id": 6, "name": "Dan", "email": "dan@example.com"}',
        '{"id": 1e400, "name": "Eve", "email": "eve@example.com"}',
    )
    array = "[" + ",\n  ".join([bad[0], good, *bad[1:]]) + "]"
    source = ENCODINGS[encoding] + encoded(f'{{"users": {array}}}' if wrapped else array, encoding)
    (tmp_path / "users").write_bytes(source)
    assert load("--users", "users", "--rejects", "rejected").returncode == 1
    written = (tmp_path / "rejected" / "users.json").read_bytes()
    assert written.startswith(ENCODINGS[encoding])
    text = written[len(ENCODINGS[encoding]) :].decode(encoding if encoding.startswith("utf-16") else "utf-8")
    assert all(element in text for element in bad) and good not in text and len(json.loads(text)) == len(bad)
    found = errors(tmp_path / "rejected")
    begins = {error["line"]: error["rejects_line"] for error in found}
    assert len(begins) == len(bad)
    for line, rejects_line in begins.items():
        above = (
            source[len(ENCODINGS[encoding]) :]
            .decode(encoding.split()[0])
            .split("\n")[line - 1]
            .removeprefix('{"users": ')
            .strip(" ,[]}")
        )
        assert above == text.split("\n")[rejects_line - 1].strip(" ,[]}")


def element(number: int, email: str) -> str:
    """Return an element of an array on three lines."""
    return f'{{"id": {number},\n  "note": [{{"a": "}}, {{"}}],\n  "name": "Zoë", "email": "{email}"}}'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
def test_elements_of_several_lines_are_told_by_their_item_and_lines(load: Run, tmp_path: Path, encoding: str) -> None:
    source = (
        "[\n"
        + ",\n".join(
            [element(1, "a@example.com"), element(2, "b@example"), element(3, "c@example.com"), element(4, "d")]
        )
        + "]"
    )
    (tmp_path / "users").write_bytes(ENCODINGS[encoding] + source.encode(encoding))
    assert load("--users", "users", "--rejects", "rejected").returncode == 1
    written = (tmp_path / "rejected" / "users.json").read_bytes()
    text = written[len(ENCODINGS[encoding]) :].decode(encoding)
    assert (
        element(2, "b@example") in text
        and element(4, "d") in text
        and [each["id"] for each in json.loads(text)] == [2, 4]
    )
    for error in errors(tmp_path / "rejected"):
        assert error["item"] == error["id"] and error["line"] == 3 * error["id"] - 1
        assert f'"id": {error["id"]},' in text.splitlines()[error["rejects_line"] - 1]


def test_bytes_that_are_no_text_are_kept(load: Run, tmp_path: Path) -> None:
    bad = b"2,B\xffen,ben@example.com\n3,\xe4\xb8,cat@example.com\n\x80\n"
    (tmp_path / "users.csv").write_bytes(HEAD.encode() + b"1,Ann,ann@example.com\n" + bad + b"4,Dan,dan@example.com\n")
    result = load("--users", "users.csv", "--rejects", "rejected")
    assert verdicts(result) == [GOOD, BAD, BAD, BAD, GOOD]
    assert (tmp_path / "rejected" / "users.csv").read_bytes() == HEAD.encode() + bad


@pytest.mark.parametrize("half", ["\ud83d", "\ude00"])
def test_halves_of_pairs_are_kept(load: Run, tmp_path: Path, half: str) -> None:
    for order in ("le", "be"):
        text = f"\ufeffid,name,email\n1,Ann{half},ann@example.com\n2,B{half}en,b\n3,C{half}{half}{half}\n"
        (tmp_path / "users.csv").write_bytes(text.encode(f"utf-16-{order}", "surrogatepass"))
        assert verdicts(load("--users", "users.csv", "--rejects", order)) == [BAD] * 3
        assert (tmp_path / order / "users.csv").read_bytes() == (tmp_path / "users.csv").read_bytes()


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16-le", "cp037"])
def test_the_encoding_of_the_flag_is_kept_and_named_in_the_next_step(run: Run, tmp_path: Path, encoding: str) -> None:
    text = HEAD + "1,André,andre@example.com\n2,Zoë,\n3,Ü,x\n"
    (tmp_path / "users.csv").write_bytes(text.encode(encoding))
    result = run("--users", "users.csv", "--encoding", encoding, "--rejects", "rejected")
    assert (tmp_path / "rejected" / "users.csv").read_bytes() == (HEAD + "2,Zoë,\n3,Ü,x\n").encode(encoding)
    assert rows(tmp_path / "users.db") == [(1, "André", "andre@example.com")]
    fixed = (HEAD + "2,Zoë,zoe@example.com\n3,Ü,u@example.com\n").encode(encoding)
    (tmp_path / "rejected" / "users.csv").write_bytes(fixed)
    assert shell(tmp_path, commands(result.stdout)[-1]).returncode == 0
    assert [row[1] for row in rows(tmp_path / "users.db")] == ["André", "Zoë", "Ü"]


def test_the_rejects_of_a_compressed_file_can_be_loaded(load: Run, tmp_path: Path) -> None:
    (tmp_path / "users.csv.gz").write_bytes(gzip.compress((HEAD + "1,,a@example.com\n2,Ben,b@example.com\n").encode()))
    assert load("--users", "users.csv.gz", "--rejects", "rejected").returncode == 1
    (file,) = (path for path in (tmp_path / "rejected").iterdir() if path.name != "errors.jsonl")
    assert verdicts(load("--users", file, "--dry-run")) == [BAD]


def test_a_last_row_without_a_line_end_gets_one(load: Run, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_bytes(b"id,name,email\n1,,\n2,,x")
    load("--users", "users.csv", "--rejects", "rejected")
    assert (tmp_path / "rejected" / "users.csv").read_bytes() == b"id,name,email\n1,,\n2,,x\n"


def test_a_quote_that_is_never_closed_costs_its_own_line_only(load: Run, tmp_path: Path) -> None:
    good = "".join(f"{number},User,u{number}@example.com\n" for number in range(2, 3000))
    (tmp_path / "users.csv").write_text(HEAD + '1,"Ann,ann@example.com\n' + good, encoding="utf-8")
    result = load("--users", "users.csv", "--rejects", "rejected")
    assert verdicts(result) == [BAD] + [GOOD] * 2998
    assert (tmp_path / "rejected" / "users.csv").read_text(encoding="utf-8") == HEAD + '1,"Ann,ann@example.com\n'


@pytest.mark.parametrize("quote", ["", '"'], ids=["plain", "quoted"])
def test_the_rejects_of_a_long_file_are_in_input_order(load: Run, tmp_path: Path, quote: str) -> None:
    lines = [
        f"{number},{quote}{'User' if number % 7 else ''}{quote},{f'u{number}' if number % 11 else 'same'}@example.com\n"
        for number in range(1, 12_001)
    ]
    (tmp_path / "users.csv").write_text(HEAD + "".join(lines), encoding="utf-8")
    rejected = [
        line for number, line in enumerate(lines, start=1) if number % 7 == 0 or number % 11 == 0 and number > 11
    ]
    assert load("--users", "users.csv", "--rejects", "rejected", "-q").returncode == 1
    written = (tmp_path / "rejected" / "users.csv").read_bytes()
    assert written.decode() == HEAD + "".join(rejected)
    found = errors(tmp_path / "rejected")
    check_lines((tmp_path / "users.csv").read_bytes(), written, "utf-8", found)
    assert len({error["line"] for error in found}) == len(rejected)


def test_standard_input_has_its_rejects_too(run: Run, tmp_path: Path) -> None:
    text = '{"id": 1, "name": ""}\n{"id": 2, "name": "Ben", "email": "b@example.com"}\n'
    assert run("--users", "-", "--rejects", "rejected", stdin=text).returncode == 1
    (file,) = (path for path in (tmp_path / "rejected").iterdir() if path.name != "errors.jsonl")
    assert file.read_text(encoding="utf-8") == text.splitlines(keepends=True)[0]


def test_the_sample_has_its_rejects_too(load: Run, tmp_path: Path) -> None:
    assert load("--rejects", "rejected").returncode == 0
    assert (tmp_path / "rejected" / "users.csv").read_text(
        encoding="utf-8"
    ) == HEAD + "8,Alice,alice@example.com\n10,,jane@example.com\n"
    assert len((tmp_path / "rejected" / "orders.csv").read_text(encoding="utf-8").splitlines()) == 5
    assert {error["source"] for error in errors(tmp_path / "rejected")} == {"sample"}


# --------------------------------------------------------------------------------------------------------- errors.jsonl


@pytest.mark.parametrize("size", ["1", "2", "1000"])
def test_errors_has_a_line_for_every_problem_of_the_output_models_in_order(
    load: Run, tmp_path: Path, size: str
) -> None:
    texts = {
        "users.csv": HEAD + "1,Ann,ann@example.com\nx,,Ann@example.com\n1,\x07,y\n1,2\n",
        "products.csv": "id,name,price\n1,,0\n2,Pen,$5\n",
        "orders.csv": "id,user_id,product_id,quantity\n1,7,8,0\n2,1,9,1\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    result = load(
        "--orders", "orders.csv", "--products", "products.csv", "--users", "users.csv", "--rejects", "rejected",
        "--batch-size", size,
    )
    said = [
        (line["model"], line["source"], line["line"], line["id"], problem["field"], problem["code"], problem["message"])
        for line in map(json.loads, result.stdout.splitlines())
        if "model" in line
        for problem in line["problems"]
    ]
    found = errors(tmp_path / "rejected")
    assert [
        tuple(error[key] for key in ("model", "source", "line", "id", "field", "code", "message")) for error in found
    ] == sorted(said, key=lambda each: (["users", "products", "orders"].index(each[0]), each[2]))
    assert len(found) == 3 + 3 + 1 + 2 + 1 + 3 + 1
    for name, text in texts.items():
        check_lines(
            text.encode(),
            (tmp_path / "rejected" / name).read_bytes(),
            "utf-8",
            [error for error in found if error["source"] == name],
        )


def test_without_a_rejection_there_is_nothing_to_fix(load: Run, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text(HEAD + "1,Ann,ann@example.com\n", encoding="utf-8")
    assert load("--users", "users.csv", "--rejects", "rejected").returncode == 0
    assert errors(tmp_path / "rejected") == []
    file = tmp_path / "rejected" / "users.csv"
    assert not file.exists() or file.read_text(encoding="utf-8") == HEAD


def test_a_failed_record_is_no_reject(load: Run, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text(HEAD + "1,Ann,a@example.com\n2,,b@example.com\n", encoding="utf-8")
    (tmp_path / "users.db").write_bytes(b"this is no database" * 100)
    result = load("--users", "users.csv", "--rejects", "rejected")
    assert result.returncode == 3
    written = tmp_path / "rejected" / "users.csv"
    assert "1,Ann" not in (written.read_text(encoding="utf-8") if written.exists() else "")
    assert {error["id"] for error in errors(tmp_path / "rejected")} <= {2}


@pytest.mark.parametrize("model", ["users", "orders"])
def test_a_dry_run_writes_the_same_rejects(load: Run, tmp_path: Path, model: str) -> None:
    (tmp_path / "users.csv").write_text(
        HEAD + "1,,a@example.com\n2,Ben,b@example.com\n3,Cat,B@example.com\n", encoding="utf-8"
    )
    (tmp_path / "orders.csv").write_text("id,user_id,product_id,quantity\n1,1,1,1\n2,2,1,1\n", encoding="utf-8")
    inputs = ["--users", "users.csv", *(["--orders", "orders.csv"] if model == "orders" else [])]
    load(*inputs, "--rejects", "dry", "-n")
    assert not (tmp_path / "users.db").exists()
    load(*inputs, "--rejects", "real")
    for name in (f"{model}.csv", "errors.jsonl"):
        assert (tmp_path / "dry" / name).read_bytes() == (tmp_path / "real" / name).read_bytes()


# --------------------------------------------------------------------------------------------------- Fixing and loading


@pytest.mark.parametrize("kind", ["csv", "tabs", "array", "lines"])
def test_fixing_the_rejects_and_loading_them_finishes_the_job(load: Run, tmp_path: Path, kind: str) -> None:
    def as_text(records: list[dict]) -> str:
        if kind in ("csv", "tabs"):
            sign = "," if kind == "csv" else "\t"
            return "".join(
                sign.join(str(cell) for cell in line) + "\n"
                for line in [list(records[0]), *(record.values() for record in records)]
            )
        lines = [json.dumps(record) for record in records]
        return "".join(f"{line}\n" for line in lines) if kind == "lines" else "[" + ",".join(lines) + "]"

    users = [
        {"id": number, "name": "WRONG\u0007" if number == 7 else "User", "email": f"u{number}@example.com"}
        for number in range(1, 31)
    ]
    orders = [
        {"id": number, "user_id": number, "product_id": 1, "quantity": "none" if number == 9 else "1"}
        for number in range(1, 31)
    ]
    for name, records in (
        ("users", users),
        ("products", [{"id": 1, "name": "Desk", "price": 9.5}]),
        ("orders", orders),
    ):
        (tmp_path / name).write_text(as_text(records), encoding="utf-8")
    inputs = [word for name in ("users", "products", "orders") for word in (f"--{name}", name)]
    assert load(*inputs, "--rejects", "rejected").returncode == 1
    files = {}
    for name, wrong, right in (("users", "WRONG", "Fixed"), ("orders", "none", "3")):
        (files[name],) = (tmp_path / "rejected").glob(f"{name}.*")
        text = files[name].read_text(encoding="utf-8")
        assert wrong in text
        files[name].write_text(
            text.replace(wrong, right).replace("\u0007", "").replace("\\u0007", ""), encoding="utf-8"
        )
    result = load("--users", files["users"], "--orders", files["orders"], "--rejects", "rejected again")
    assert (result.returncode, verdicts(result)) == (0, [GOOD] * 3)
    assert [len(rows(tmp_path / f"{name}.db")) for name in ("users", "products", "orders")] == [30, 1, 30]
    assert errors(tmp_path / "rejected again") == []


@pytest.mark.parametrize("kind", ["csv", "array", "lines", "quotes", "null", "lists", "log"])
def test_loading_the_rejects_as_they_are_rejects_the_same_again(load: Run, tmp_path: Path, kind: str) -> None:
    person = '{"id": 1, "name": "Ann", "email": "a@example.com"}'
    text = {
        "quotes": 'id,name,notes,email\n1,Ada,"great scr,ada@example.com\n2,Bo,ok,bo@example.com\n,Cy,ok,cy@example.com\n'
        '3,Ed,ok,ed@example.com\nN/A,Dee,wants 15",dee@example.com\n',
        **{kind: f'{person}\n{line}\n{{"id": 3, "name": ""}}\n'
           for kind, line in (("null", "null"), ("lists", f"[{person}]"), ("log", "ERROR: time-out"))},
        "csv": HEAD + '1,,a@example.com\n2,Ben,"b\n1,2\n\n3,Cat,c@example.com\n',
        "lines": '{"id": 1, "name": "x"}\n[2]\n\nbroken\n',
        "array": '[{"id": 1, "name": "x"}, [2], {"id": 3, "name": "Cat", "email": "c@example.com"}, 4]',
    }[kind]
    (tmp_path / "users").write_text(text, encoding="utf-8")
    first = load("--users", "users", "--rejects", "one")
    (file,) = (tmp_path / "one").glob("users.*")
    second = load("--users", file, "--rejects", "two")
    assert verdicts(second) == [verdict for verdict in verdicts(first) if verdict == BAD] != []
    assert (tmp_path / "two" / file.name).read_bytes() == file.read_bytes()
    assert [(line["id"], line["code"]) for line in errors(tmp_path / "two")] == [
        (line["id"], line["code"]) for line in errors(tmp_path / "one")
    ]


@pytest.mark.parametrize(
    "text",
    [
        '[{"id": 1, "name": "Ann", "email": "a@example.com"}, {"id": 2, "name": "Ben" "email": "b@example.com"}, '
        '{"id": 3}]',
        '[{"id": 1, "name": "Ann", "email": "a@example.com"}, {"id": 2, "na',
        '[{"id": 1, "name": "Ann", "email": "a@example.com"},',
        '[{"id": 1, "name": ""}, {"id": 2, "na',
        "[nonsense, 1, {}]",
        "[,]",
        "[1] 2",
        "[",
    ],
    ids=range(8),
)
def test_the_rejects_of_an_array_that_breaks_off_are_an_array(load: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "users").write_text(text, encoding="utf-8")
    result = load("--users", "users", "--rejects", "rejected")
    assert result.returncode == 3 and BAD in verdicts(result)
    assert verdicts(result).count(GOOD) == len(rows(tmp_path / "users.db"))
    written = (tmp_path / "rejected" / "users.json").read_text(encoding="utf-8")
    assert written.startswith("[") and written.rstrip().endswith("]")
    assert len([error for error in errors(tmp_path / "rejected") if error["code"] == "malformed"]) >= 1


# -------------------------------------------------------------------------------------- The next step, as it is printed


NAMES = [
    "plain", "two words", "-dash", "--rejects", """it's "so\"""", "$HOME `x` \\", "ünï *? #(x)!", "a;b&c|d=e",
    "~{model}",
]


@pytest.mark.skipif(os.name == "nt", reason="bash and such names are of POSIX")
@pytest.mark.parametrize("name", NAMES)
def test_the_next_steps_run_as_printed_until_all_is_loaded(run: Run, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    (folder / name).mkdir(parents=True)
    (folder / name / f"{name}.csv").write_text(
        HEAD + "1,Ann,a@example.com\n2,,b@example.com\n3,Cat,c@example.com,\n", encoding="utf-8"
    )
    first = run(
        f"--users=./{name}/{name}.csv" if name[0] == "~" else f"--users={name}/{name}.csv",
        f"--db={name}/shop {name}",
        f"--rejects={name} rejected",
        cwd=folder,
    )
    assert first.returncode == 1
    step = commands(first.stdout)[-1]
    again = shell(folder, step)
    assert again.returncode == 1 and not again.stderr, again.stderr  # not fixed yet
    file = folder / f"{name} rejected" / "users.csv"
    file.write_text(file.read_text(encoding="utf-8").replace("2,,", "2,Ben,"), encoding="utf-8")
    last = shell(folder, step)
    assert last.returncode == 0, last.stderr + last.stdout
    assert [row[0] for row in rows(folder / name / f"shop {name}" / "users.db")] == [1, 2, 3]


@pytest.mark.skipif(os.name == "nt", reason="bash is of POSIX")
@pytest.mark.parametrize("name", ['it\'s "two" words', "-dash", "a&b;c"])
def test_without_rejects_the_next_step_is_to_ask_for_them(run: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.csv").write_text(HEAD + "1,Ann,a@example.com\n2,,b@example.com\n", encoding="utf-8")
    out = run(f"--users={name}.csv", f"--db={name}").stdout
    for _ in range(2):  # the printed command prints the next one
        step = [command for command in commands(out) if "replace" not in command][-1]
        done = shell(tmp_path, step)
        assert done.returncode in (0, 1) and not done.stderr, (step, done.stderr)
        out = done.stdout
        for file in tmp_path.glob("*/users.csv"):
            file.write_text(file.read_text(encoding="utf-8").replace("2,,", "2,Ben,"), encoding="utf-8")
    assert done.returncode == 0 and len(rows(tmp_path / name / "users.db")) == 2


@pytest.mark.skipif(os.name == "nt", reason="bash is of POSIX")
def test_the_next_step_keeps_what_the_load_was_told(run: Run, tmp_path: Path) -> None:
    run("--db", "shop")
    (tmp_path / "users.csv").write_text(HEAD + "1,Alicia,alice@example.com\n2,,b@example.com\n", encoding="utf-8")
    out = run(
        "--users", "users.csv", "--db", "shop", "--replace", "--rejects", "rejected", "--busy-timeout", "7"
    ).stdout
    file = tmp_path / "rejected" / "users.csv"
    file.write_text(file.read_text(encoding="utf-8").replace("2,,b", "2,Robert,bob"), encoding="utf-8")
    assert shell(tmp_path, commands(out)[-1]).returncode == 0
    assert rows(tmp_path / "shop" / "users.db")[:2] == [
        (1, "Alicia", "alice@example.com"),
        (2, "Robert", "bob@example.com"),
    ]


# ------------------------------------------------------------------------------ What it overwrites and what it does not


@pytest.mark.parametrize("folder", [".", "sub/..", "link"])
@pytest.mark.parametrize("name", ["users.csv", "users.jsonl", "errors.jsonl"])
def test_an_input_is_never_overwritten(load: Run, tmp_path: Path, folder: str, name: str) -> None:
    (tmp_path / "sub").mkdir()
    if folder == "link":
        try:
            os.symlink(tmp_path, tmp_path / "link")
        except OSError as error:
            pytest.skip(f"no symbolic links here: {error}")
    text = '{"id": 1, "name": "x"}\n' if name.endswith("jsonl") else HEAD + "1,,\n"
    (tmp_path / name).write_text(text, encoding="utf-8")
    before = sorted(tmp_path.iterdir())
    result = load("--users", name, "--rejects", folder)
    assert (result.returncode, result.stdout) == (2, "") and name in result.stderr
    assert (tmp_path / name).read_text(encoding="utf-8") == text
    assert sorted(tmp_path.iterdir()) == before


def test_the_rejects_of_another_model_cannot_overwrite_an_input_either(load: Run, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text(
        "id,user_id,product_id,quantity\n1,1,1,1\n", encoding="utf-8"
    )  # orders, called users
    (tmp_path / "people.csv").write_text(HEAD + "1,,\n", encoding="utf-8")
    assert load("--users", "people.csv", "--orders", "users.csv", "--rejects", ".").returncode == 2
    assert (tmp_path / "users.csv").read_text(encoding="utf-8").startswith("id,user_id")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["people.csv", "users.csv"]


@pytest.mark.parametrize("name", ["users.csv", "errors.jsonl"])
def test_a_hard_link_to_an_input_is_not_overwritten(load: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / "people.csv").write_text(HEAD + "1,,\n", encoding="utf-8")
    (tmp_path / "rejected").mkdir()
    try:
        os.link(tmp_path / "people.csv", tmp_path / "rejected" / name)
    except OSError as error:
        pytest.skip(f"no hard links here: {error}")
    assert load("--users", "people.csv", "--rejects", "rejected").returncode == 2
    assert (tmp_path / "people.csv").read_text(encoding="utf-8") == HEAD + "1,,\n"


@pytest.mark.parametrize("name", ["users.csv", "errors.jsonl"])
@pytest.mark.parametrize(
    "text",
    ["mine\n", HEAD + "1,Mine,mine@example.com\n", '{"level": "error", "message": "mine"}\n'],
    ids=["text", "csv", "jsonl"],
)
def test_a_file_that_is_not_its_own_is_not_overwritten(load: Run, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "rejected").mkdir()
    (tmp_path / "rejected" / name).write_text(text, encoding="utf-8")
    (tmp_path / "people.csv").write_text(HEAD + "1,,\n", encoding="utf-8")
    result = load("--users", "people.csv", "--rejects", "rejected")
    assert (tmp_path / "rejected" / name).read_text(encoding="utf-8") == text
    assert (
        (result.returncode, result.stdout) == (2, "") and name in result.stderr and not (tmp_path / "users.db").exists()
    )


@pytest.fixture
def rejected(load: Run, tmp_path: Path) -> Path:
    """Return the folder with the rejects of a load of a user and an order."""
    (tmp_path / "users.csv").write_text(HEAD + "1,,a@example.com\n2,Ben,b\n", encoding="utf-8")
    (tmp_path / "orders.csv").write_text("id,user_id,product_id,quantity\n1,7,7,1\n", encoding="utf-8")
    load("--users", "users.csv", "--orders", "orders.csv", "--rejects", "rejected")
    return tmp_path / "rejected"


def edit(path: Path) -> bytes:
    """Edit a file as a person would, a moment after it was written."""
    time.sleep(0.02)
    path.write_bytes(path.read_bytes().replace(b"1,,", b"1,Ann,").replace(b"7,7", b"2,2"))
    return path.read_bytes()


@pytest.mark.parametrize("arguments", [[], ["--dry-run"], ["--replace"], ["-q"]], ids=" ".join)
@pytest.mark.parametrize("name", ["users.csv", "orders.csv"])
def test_rejects_that_were_edited_are_not_overwritten(
    load: Run, tmp_path: Path, rejected: Path, name: str, arguments: list[str]
) -> None:
    edited, others = edit(rejected / name), {path.name: path.read_bytes() for path in rejected.iterdir()}
    stored = {path.name: path.read_bytes() for path in tmp_path.glob("*.db")}
    result = load("--users", "users.csv", "--orders", "orders.csv", "--rejects", "rejected", *arguments)
    assert (
        (result.returncode, result.stdout) == (2, "")
        and name in result.stderr
        and "edited" in result.stderr
        and result.stderr.count("\n") <= 3
    )
    assert (rejected / name).read_bytes() == edited and {
        path.name: path.read_bytes() for path in rejected.iterdir()
    } == others
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.db")} == stored


def test_a_file_that_was_moved_into_the_folder_is_not_overwritten_however_old_it_is(
    load: Run, tmp_path: Path, rejected: Path
) -> None:
    (mine := tmp_path / "mine.csv").write_text("id,name,email\n7,My,own@example.com\n")
    os.utime(mine, (0, 0))
    edit(tmp_path / "users.csv")  # a moment later
    os.replace(mine, rejected / "users.csv")
    result = load("--users", "users.csv", "--rejects", "rejected")
    assert result.returncode == 2 and "edited" in result.stderr and "own@example.com" in (rejected / "users.csv").read_text()


def test_edited_rejects_survive_a_load_of_another_model_into_the_same_folder(
    load: Run, tmp_path: Path, rejected: Path
) -> None:
    edited = edit(rejected / "users.csv")
    time.sleep(0.02)
    load("--orders", "orders.csv", "--rejects", "rejected")
    time.sleep(0.02)
    load("--users", "users.csv", "--rejects", "rejected")
    assert (rejected / "users.csv").read_bytes() == edited


def test_edited_rejects_can_be_loaded_and_what_is_left_goes_elsewhere(
    load: Run, tmp_path: Path, rejected: Path
) -> None:
    edited = edit(rejected / "users.csv")
    assert load("--users", "rejected/users.csv", "--rejects", "rejected").returncode == 2
    assert (rejected / "users.csv").read_bytes() == edited
    assert verdicts(load("--users", "rejected/users.csv", "--rejects", "again")) == [GOOD, BAD]
    assert (tmp_path / "again" / "users.csv").read_text(encoding="utf-8") == HEAD + "2,Ben,b\n"


def test_a_second_run_leaves_no_stale_rejects(load: Run, tmp_path: Path, rejected: Path) -> None:
    assert len(errors(rejected)) == 4
    for users, left in (
        (HEAD + "1,Ann,a@example.com\n2,Ben,b\n", HEAD + "2,Ben,b\n"),
        (HEAD + "1,Ann,a@example.com\n2,Ben,b@example.com\n", HEAD),
    ):
        (tmp_path / "users.csv").write_text(users, encoding="utf-8")
        load("--users", "users.csv", "--rejects", "rejected")
        assert (
            not (rejected / "users.csv").exists()
            and left == HEAD
            or (rejected / "users.csv").read_text(encoding="utf-8") == left
        )
        assert [line["id"] for line in errors(rejected) if line["model"] == "users"] == ([] if left == HEAD else [2])


def test_the_folder_of_the_rejects_is_made_if_missing(load: Run, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text(HEAD + "1,,\n", encoding="utf-8")
    load("--users", "users.csv", "--rejects", "new/and/deep")
    assert len(errors(tmp_path / "new" / "and" / "deep")) == 2


def test_rejects_that_cannot_be_written_are_wrong_usage(load: Run, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text(HEAD + "1,,\n", encoding="utf-8")
    (tmp_path / "rejected").write_text("a file", encoding="utf-8")
    result = load("--users", "users.csv", "--rejects", "rejected")
    assert (result.returncode, result.stdout) == (2, "") and "rejected" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rejected", "users.csv"]


def test_the_report_says_where_the_rejects_are_and_how_to_load_them(run: Run, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text(HEAD + "1,,\n", encoding="utf-8")
    out = run("--users", "users.csv", "--rejects", "rejected").stdout
    assert f"--users {os.path.join('rejected', 'users.csv')}" in out and "errors.jsonl" in out


def test_after_a_dry_run_the_next_step_loads_all_of_the_files(here: Run, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("id,name,email\n1,Ada,a@x.org\n2,Bo,no\n", encoding="utf-8")
    for folder in ([], ["--rejects", "own"]):
        step = here("--users", "users.csv", "--dry-run", *folder).stdout.splitlines()[-1]
        assert step.endswith(f"--users users.csv --rejects {folder[-1] if folder else 'rejected'}")
    assert not (tmp_path / "users.db").exists()


def test_the_folder_that_a_next_step_names_is_a_new_one(here: Run, tmp_path: Path) -> None:
    (tmp_path / "rejected").mkdir()
    (tmp_path / "rejected" / "users.csv").write_text("id,name,email\n2,Bo,no\n", encoding="utf-8")
    step = here("--users", "rejected/users.csv").stdout.splitlines()[-1]
    assert step.endswith("--users rejected/users.csv --rejects rejected2")
    assert here("--users", "rejected/users.csv", "--rejects", "rejected2").returncode == 1
