"""Files: encodings, headers, CSV, TSV, JSON; one bad record costs itself alone, wherever chunks and batches begin and end."""
from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
import random
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Run, rows
from loads import imported

program = imported()
USERS, Numeral, Problem = program.SCHEMAS[0], program.Numeral, program.Problem
HEAD = "id,name,email\n"
LIMIT = csv.field_size_limit()
BOMS = {"utf-8": b"", "utf-8-sig": codecs.BOM_UTF8, "utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}
Load = Callable[..., dict]


def user(number: int, name: str = "Ann") -> str:
    """Return a line of CSV with a good user."""
    return f"{number},{name},user{number}@example.com\n"


def element(number: int, **more: object) -> str:
    """Return the same user as a JSON object."""
    return json.dumps({"id": number, "name": "Ann", "email": f"user{number}@example.com", **more})


def encoded(text: str, encoding: str) -> bytes:
    """Return text in an encoding with its byte order mark."""
    return BOMS[encoding] + text.encode(encoding.removesuffix("-sig"))


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Load:
    """Return a function that loads a file of users into nothing: what became of it, by line or item.

    That is "inserted" or the codes of the problems; "error" has what was complained about, if anything was.
    """
    monkeypatch.chdir(tmp_path)

    def load_file(text: str | bytes, name: str = "users.csv", *arguments: str) -> dict:
        Path(name).write_bytes(text.encode() if isinstance(text, str) else text)
        status = program.main(["--users", name, "--dry-run", "--json", *arguments])
        out, err = capsys.readouterr()
        assert not list(tmp_path.glob("*.db*"))
        if status == 2:
            assert out == "" and err.startswith("distributed_inserts: ") and err.count("\n") == 1
            return {"error": err}
        *lines, _ = map(json.loads, out.splitlines())
        found = {line[place]: " ".join(problem["code"] for problem in line["problems"]) or line["verdict"]
                 for line in lines for place in ("line", "item") if place in line}
        assert len(found) == len(lines) and list(found) == sorted(found)
        assert status == (1 if set(found.values()) - {"inserted", "unchanged"} else 0)
        return {**found, "error": err} if err else found

    return load_file


def read(path: Path, data: str | bytes | None = None) -> list[tuple]:
    """Return (place, text, cells or a Problem) of every record of a file, which is written first."""
    if data is not None:
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    source = program.Source(USERS, str(path))
    try:
        return [record for block in source.blocks() for record in zip(block.places, block.raws, block.rows)]
    finally:
        source.close()


# ------------------------------------------------------------------------------------------------------ Encodings


@pytest.mark.parametrize("encoding", BOMS)
@pytest.mark.parametrize("suffix", ["csv", "tsv", "json", "jsonl"])
def test_the_encoding_changes_nothing(tmp_path: Path, load: Load, suffix: str, encoding: str) -> None:
    names = ["Ann", "Zoë", "李小龍", "🙂 \U0010ffff", "a\u2028b", "Ａ"]
    if suffix.startswith("json"):
        texts = [json.dumps({"id": id_, "name": name, "email": f"zoë{id_}@example.com"}, ensure_ascii=False) for id_, name in enumerate(names, 1)]
        text = f"[{','.join(texts)}]" if suffix == "json" else "\n".join(texts)
    else:
        text = (HEAD + "".join(f"{id_},{name},zoë{id_}@example.com\n" for id_, name in enumerate(names, 1))).replace(
            ",", "\t" if suffix == "tsv" else ",")
    assert set(load(encoded(text, encoding), f"users.{suffix}").values()) == {"inserted"}
    assert [cells[1] for _, _, cells in read(tmp_path / f"users.{suffix}")] == names


@pytest.mark.parametrize("piece", [b"\xff", b"Andr\xe9", b"\xc3", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80", b"\xfe\xff"], ids=repr)
@pytest.mark.parametrize("suffix", ["csv", "tsv", "json", "jsonl"])
def test_undecodable_bytes_cost_their_record_alone(load: Load, suffix: str, piece: bytes) -> None:
    for field in ("name", "note"):                          # also where nobody would look at them
        records = [dict(zip(("id", "name", "email", "note"), (*user(number).strip().split(","), ""))) for number in (1, 2, 3)]
        records[1][field] = "PIECE"
        if suffix.startswith("json"):
            text = ("[" if suffix == "json" else "") + (",\n" if suffix == "json" else "\n").join(map(json.dumps, records)) + (
                "]" if suffix == "json" else "")
        else:
            text = "\n".join(("\t" if suffix == "tsv" else ",").join(row) for row in (records[0], *(each.values() for each in records)))
        first = 2 if suffix in ("csv", "tsv") else 1
        found = load(text.encode().replace(b"PIECE", piece), f"users.{suffix}")
        found.pop("error")                                  # the notice on the column `note`
        assert found == {first: "inserted", first + 1: "malformed", first + 2: "inserted"}


def test_lone_surrogates_of_utf_16_cost_their_record_alone(load: Load) -> None:
    text = HEAD + user(1) + user(2, "\ud83d") + user(3, "\udc00x") + user(4, "\U0001f600")
    data = codecs.BOM_UTF16_LE + text.encode("utf-16-le", "surrogatepass")
    assert load(data) == {2: "inserted", 3: "malformed", 4: "malformed", 5: "inserted"}


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", ""])
def test_an_odd_byte_at_the_end_of_utf_16_is_told(load: Load, encoding: str, end: str) -> None:
    found = load(encoded(HEAD + user(1) + user(2).strip() + end, encoding) + b"\n")
    assert found == ({2: "inserted", 3: "inserted", 4: "malformed"} if end else {2: "inserted", 3: "malformed"})


@pytest.mark.parametrize("data", [
    bytes(range(256)) * 20, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(200), b"PK\x03\x04\x14\0\0\0\x08\0" + bytes(100), b"\x1f\x8b\x08\0" + bytes(100),
    (HEAD + user(1)).encode("utf-16-le"), (HEAD + user(1)).encode("utf-16-be"), (HEAD + user(1)).encode("utf-32"), bytes(1000),
], ids=["bytes", "png", "zip", "gzip", "utf-16-le without mark", "utf-16-be without mark", "utf-32", "zeros"])
@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl"])
def test_a_binary_file_is_one_error(load: Load, suffix: str, data: bytes) -> None:
    assert "binary" in load(data, f"users.{suffix}")["error"]


def test_a_database_is_no_input(tmp_path: Path, load: Load) -> None:
    connection = sqlite3.connect(tmp_path / "other")
    connection.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, email TEXT)")
    connection.close()
    assert "binary" in load((tmp_path / "other").read_bytes())["error"]


# --------------------------------------------------------------------------------------------------------- Header


@pytest.mark.parametrize("header", [
    "id,name,email", "ID,Name,EMail", " id , NAME ,\temail\t", '"id","name","email"', "\u00a0id,name\u3000,email",
    '" ID ",name,email', "\n\nid,name,email",
    "\r\n\nid,name,email"])
def test_the_header_is_matched_by_name(tmp_path: Path, load: Load, header: str) -> None:
    first = header.count("\n") + 2
    assert load(f"{header}\n{user(1)}{user(2)}") == {first: "inserted", first + 1: "inserted"}


@pytest.mark.parametrize("order", list(itertools.permutations(["id", "name", "email", "Note", ""]))[::7], ids=",".join)
def test_the_columns_come_in_any_order_and_others_are_ignored_with_one_notice(load: Load, order: tuple[str, ...]) -> None:
    cells = {"id": "7", "name": "Ann", "email": "ann@example.com", "Note": "\x1b", "": "x"}
    found = load("".join(",".join(row) + "\n" for row in (order, [cells[name] for name in order], ["0"] * 5)))
    assert found.pop("error").startswith("distributed_inserts: users.csv: ") and found == {2: "inserted", 3: "not_positive not_email"}


@pytest.mark.parametrize(("header", "words"), [
    ("id,name", ["email", '"id", "name"']), ("id,name,mail", ["email", '"mail"']), ("name", ["id", "email"]), ("id name email", ["id", "name", "email"]),
    ("id\tname\temail", ["id", "email"]), ("id;name;email", ["id", "email"]), ("1,Ann,ann@example.com", ["id", "name", "email", '"Ann"']),
    ("id,name,email,id", ["id", '"email", "id"']), ("id,name,email,EMAIL", ["email"]), ("id,name,email, Name ", ["name"]), ("id,name,e mail", ["email"]),
    (",,", ["id"]), ("   ", ["id"]), ("\x1b]0;title of mine,id,other", ["\\x1b]0;title of mine", "name"]), ("", ["empty", "id, name, email"]),
    ("\n\r\n\n", ["empty"]),
    ('id,"name,email', ["header"]), ('id,"na"me,email', ["header"]), ("id,name,email,and a note\0", ["NUL"]), ("id,name,email,\udcff", ["0xFF"]),
    ("id,name,email," + "x" * (LIMIT + 1), ["header"]),
], ids=lambda part: ascii(part)[:30])
def test_a_missing_or_repeated_column_is_refused_with_what_was_found(load: Load, header: str, words: list[str]) -> None:
    for text in (header, f"{header}\n{user(1)}" if header.strip() else header):
        error = load(text.encode("utf-8", "surrogateescape"))["error"]
        assert "users.csv" in error and all(word in error for word in words), error
        assert error[:-1].isprintable() and len(error) < 2000


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n \n"[:2]])
def test_a_header_alone_is_a_file_of_no_records(load: Load, end: str) -> None:
    assert load(HEAD.strip() + end) == {}


def test_a_header_of_10000_columns_is_read(load: Load) -> None:
    names, cells = [f"column{number}" for number in range(10_000)], ["x"] * 10_000
    names[17], names[5000], names[-1] = "email", "name", "id"
    cells[17], cells[5000], cells[-1] = "ann@example.com", "Ann", "1"
    found = load(f"{','.join(names)}\n{','.join(cells)}\n{','.join(cells[:-1])}\n")
    assert len(found.pop("error")) < 2000 and found == {2: "inserted", 3: "malformed"}


# ------------------------------------------------------------------------------------------------------------ CSV

GOOD = "inserted"
CSV = {
    "quotes": ('1,"Lee, Ann",a@b.c\n"2","say ""x""","b@b.c"\n', {2: GOOD, 3: GOOD}),
    "empty cells": (',,\n"","",""\n', {2: "blank blank blank", 3: "blank blank blank"}),
    "too few cells": (user(1) + "2,Ann\n3\n" + user(4), {2: GOOD, 3: "malformed", 4: "malformed", 5: GOOD}),
    "too many cells": (user(1) + user(2).strip() + ",\n" + user(3), {2: GOOD, 3: "malformed", 4: GOOD}),
    "blank lines": ("\n" + user(1) + "\n\r\n\n" + user(2) + "\n", {3: GOOD, 7: GOOD}),
    "a line of spaces": (user(1) + "  \n" + user(2), {2: GOOD, 3: "malformed", 4: GOOD}),
    "a cell of several lines": (user(1) + '2,"A\nB\r\n\nC",b@b.c\n' + user(3), {2: GOOD, 3: "bad_text", 7: GOOD}),
    "several of them": ('1,"\n",a@b.c\n2,"\r\r",b@b.c\n3,"x\n\n",c@b.c\n' + user(4), {2: "blank", 4: "blank", 7: GOOD, 10: GOOD}),
    "a stray quote": (user(1) + '2,"An"n,b@b.c\n' + user(3), {2: GOOD, 3: "malformed", 4: GOOD}),
    "stray quotes in a row": (user(1) + '2,"An"n,b@b.c\n3,""x,c@b.c\n4,"" ,d@b.c\n' + user(5),
    {2: GOOD, 3: "malformed", 4: "malformed", 5: "malformed", 6: GOOD}),
    "an unclosed quote": (user(1) + '2,"Ann,b@b.c\n' + user(3) + user(4), {2: GOOD, 3: "malformed", 4: GOOD, 5: GOOD}),
    "an unclosed quote above quoted cells": ('1,"Ann,a@b.c\n2,"Bob",b@b.c\n3,"Lee",c@b.c\n', {2: "malformed", 3: GOOD, 4: GOOD}),
    "an unclosed quote above a cell of several lines": ('1,"Ann,a@b.c\n' + user(2) + '3,"B\nC",c@b.c\n' + user(4),
    {2: "malformed", 3: GOOD, 4: "bad_text", 6: GOOD}),
    "unclosed quotes in a row": ('1,"Ann,a@b.c\n2,"Bob,b@b.c\n3,"Lee,c@b.c\n' + user(4), {2: "malformed", 3: "malformed", 4: "malformed", 5: GOOD}),
    "an unclosed quote in the last line": (user(1) + '2,Ann,"b@b.c', {2: GOOD, 3: "malformed"}),
    "a quote alone": (user(1) + '"\n' + user(2), {2: GOOD, 3: "malformed", 4: GOOD}),
    "a cell at the limit": (f"1,{'x' * LIMIT},a@b.c\n", {2: GOOD}),
    "a cell above the limit": (f'1,{"x" * (LIMIT + 1)},a@b.c\n{user(2)}3,"{"x" * (LIMIT + 1)}",c@b.c\n{user(4)}',
    {2: "malformed", 3: GOOD, 4: "malformed", 5: GOOD}),
    "an unclosed quote and more than the limit below": ('1,"Ann,a@b.c\n' + "".join(f"x{'y' * 99}{number}\n" for number in range(2000)) + user(2),
                                                        {**dict.fromkeys(range(2, 2003), "malformed"), 2003: GOOD}),
    "a NUL": (user(1) + user(2, "A\0") + "\0\n" + user(3), {2: GOOD, 3: "malformed", 4: "malformed", 5: GOOD}),
    "other separators of lines": ("".join(user(id_, f"A{character}b") for id_, character in enumerate("\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029", 1)),
                                  {**dict.fromkeys(range(2, 8), "bad_text"), 8: GOOD, 9: GOOD}),
    "no line end": (user(1) + user(2).strip(), {2: GOOD, 3: GOOD}),
    "a control Z": (user(1) + "\x1a", {2: GOOD, 3: "malformed"}),
    "another header": (user(1) + HEAD + user(2), {2: GOOD, 3: "not_integer not_email", 4: GOOD}),
    "tabs": ("1\tAnn\ta@b.c\n" + user(2), {2: "malformed", 3: GOOD}),
}


@pytest.mark.parametrize("name", CSV)
def test_a_broken_csv_record_costs_itself_alone_and_has_its_line(load: Load, name: str) -> None:
    text, expected = CSV[name]
    assert load(HEAD + text) == expected


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name", CSV)
def test_the_line_ends_change_nothing(load: Load, name: str, end: str) -> None:
    text, expected = CSV[name]
    if "\r" not in text:
        assert load((HEAD + text).replace("\n", end)) == expected


@pytest.mark.parametrize("name", [name for name, (text, _) in CSV.items() if "\t" not in text and ", " not in text])
def test_tsv_is_csv_with_tabs(load: Load, name: str) -> None:
    text, expected = CSV[name]
    assert load((HEAD + text).replace(",", "\t"), "users.tsv") == expected


def test_a_comma_is_text_in_tsv(tmp_path: Path, load: Load) -> None:
    assert load('name\tid\temail\nLee, Ann\t1\ta@b.c\n"a\tb\t2\tb@b.c\n', "users.tsv") == {2: "inserted", 3: "malformed"}
    assert read(tmp_path / "users.tsv")[0][2] == ["Lee, Ann", "1", "a@b.c"]


@pytest.mark.parametrize("text", ['2,"A\0\nB",b@b.c\n', '2,"A\nB\0",b@b.c\n'], ids=ascii)
@pytest.mark.xfail(sys.version_info < (3, 11), strict=True, reason="csv raises at a NUL before 3.11, and the reading goes on inside the cell")
def test_a_nul_in_a_cell_of_several_lines_costs_one_record(load: Load, text: str) -> None:
    assert load(HEAD + user(1) + text + user(3)) == {2: "inserted", 3: "malformed", 5: "inserted"}


HUGE_CELL = "".join(f"line {number} of a text\n" for number in range(program.RECORD_LINES_MAX * 2))


@pytest.mark.parametrize("end", ['"', '"" and ""more"', '","b@b.c"', '"x', '" ,"', 'x""y"'], ids=ascii)
def test_a_huge_cell_of_text_is_one_refused_record(load: Load, end: str) -> None:
    below = HUGE_CELL.count("\n") + 4
    assert load(HEAD + user(1) + f'2,"{HUGE_CELL}{end}\n{user(below)}') == {2: GOOD, 3: "malformed", below: GOOD}


def test_an_open_quote_above_many_records_costs_itself_alone(load: Load) -> None:
    places = range(3, program.RECORD_LINES_MAX * 2)
    found = load(HEAD + '2,"Ann,a@b.c\n' + "".join(map(user, places)))
    assert found == {2: "malformed", **dict.fromkeys(places, GOOD)}


@pytest.mark.parametrize("below", [
    "".join(f"{number},Ann,a{number}@b.c\n\n" for number in range(25_000)),                       # as after a copy that doubled the line ends
    "".join(f"{number},Ann,a{number}@b.c,\n" for number in range(6000)) + "".join(map(user, range(9000))),
    "".join(f"{number},Ann\n" for number in range(15_000)) + "".join(map(user, range(500))),
    "".join(f"{number},Ann,a{number}@b.c,\n" for number in range(12_000)) + '1,"Ann",a@b.c\n'.replace('"', "") * 9,
], ids=["blank lines", "a comma too many", "a cell too few", "many with a comma too many"])
def test_an_open_quote_above_odd_lines_hides_no_sound_record(tmp_path: Path, below: str) -> None:
    rows = [row for _, _, row in read(tmp_path / "users.csv", HEAD + '1,"Ann,a@b.c\n' + below)]
    assert [row for row in rows if type(row) is list and len(row) == 3] == [line.split(",") for line in below.split("\n") if line.count(",") == 2]


def test_what_lies_below_many_open_quotes_is_counted_line_by_line(tmp_path: Path) -> None:
    text = '1,x","y\n' * program.RECORD_LINES_MAX * 2 + "no record\n" * 20 + user(1)
    found = [row for _, _, row in read(tmp_path / "users.csv", HEAD + text)]
    assert len(found) == program.RECORD_LINES_MAX * 2 + 20 + 1 and found[-1] == ["1", "Ann", "user1@example.com"]


def test_a_huge_cell_that_is_never_closed_ends_the_file(load: Load) -> None:
    assert load(HEAD + user(1) + f'2,"{HUGE_CELL}') == {2: GOOD, 3: "malformed"}


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_line_above_the_limit_costs_itself_alone(load: Load, suffix: str, end: str) -> None:
    long = program.LINE_MAX * 2 + 10
    lines = [element(1), element(2, name="x" * long), element(3)] if suffix == "jsonl" else (
        HEAD + user(1) + user(2, ",".join(["x" * 100] * (long // 100))) + user(3)).replace(",", "\t" if suffix == "tsv" else ",").splitlines()
    first = 1 if suffix == "jsonl" else 2
    assert load(end.join([*lines, ""]), f"users.{suffix}") == {first: "inserted", first + 1: "malformed", first + 2: "inserted"}


def test_a_sound_file_is_read_as_the_csv_module_reads_it(tmp_path: Path) -> None:
    chance = random.Random(1)
    cells = ["", "x", "Ann Lee", "a,b", 'say "x"', "two\nlines", "three\r\n\r\nlines", '"', "\n", "é", "\u2028", "5"]
    for _ in range(50):
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator=chance.choice(["\n", "\r\n"]))
        writer.writerow(["id", "name", "email"])
        writer.writerows([chance.choice(cells) for _ in range(3)] for _ in range(30))
        reader = csv.reader(io.StringIO(text.getvalue(), newline=""))
        expected, begin = [], 1
        for row in reader:
            expected.append((begin, row))
            begin = reader.line_num + 1
        found = read(tmp_path / "users.csv", text.getvalue())
        assert [(place, row) for place, _, row in found] == expected[1:]


# ----------------------------------------------------------------------------------------------------------- JSON

WRONG = ["5", "-1.5e3", "null", "true", "false", '"text"', '"[{"', "[]", '[1, {"id": 2}, {"id": 3}]', '["}, {"]', "NaN", "Infinity", "-Infinity"]
ODD = {
    "{}": "missing missing missing", '{"id": 9}': "missing missing", '{"id": 9, "name": null, "email": "a@b.c"}': "missing",
    '{"id": 9, "name": "Ann", "email": "a@b.c", "id": 9}': "malformed", '{"id": 9, "name": "Ann", "email": "a@b.c", "ID": 9}': "malformed",
    '{"id": 9, "name": "Ann", "email": "a@b.c", "note": 1, " Note ": 1}': "malformed", '{"id": 9.0, "name": "Ann", "email": "a@b.c"}': "not_integer",
    '{"id": 9, "name": 5, "email": []}': "not_text not_text", '{"id": true, "name": {"a": {}}, "email": "a"}': "not_integer not_text not_email",
    '{"id": NaN, "name": NaN, "email": "a@b.c"}': "not_integer not_text", f'{{"id": {"9" * 5000}, "name": "Ann", "email": "a@b.c"}}': "out_of_range",
    f'{{"id": -{"9" * 5000}, "name": {"9" * 5000}, "email": "a@b.c"}}': "not_positive not_text",
    '{"id": 9, "name": "\\ud800", "email": "a@b.c"}': "bad_text", '{"id": 9, "name": "\\u0000", "email": "a@b.c"}': "bad_text",
    '{"id": "9", "name": "Ann", "email": "a@b.c"}': GOOD, '{"Email": "b@b.c", " ID ": 8, "NAME": "Ann"}': GOOD,
}
BROKEN = ["{", "}", '{"id": 9', '{"id": 9,}', '{"id" 9}', "{id: 9}", "{'id': 9}", '{"id": 9 "name": "Ann"}', '{"id": 09}', '{"id": +9}', '{"id": .9}',
          '{"id": 9_0}',
          '{"id": 0x9}', '{"id": tru}', '{"id": True}', '{"id": }', '{"id": "x}', '{"id": "\\x"}', '{"id": "\\u12"}', "x", "nul", "'", "# 9", "{,}",
          '{"a": "\t"}']
# What the search for the next element in an array may stumble over.
TRAPS = ['{"id": tru, "lines": [{"a": 1}, {"a": 2}]}', '{"id": 9 "note": ", {"}', '{"id": 9 "x"},\n5', '{"id": 9 "x": "]}"}', '[[{"a" 1}], {"b": "["}]']
UNBALANCED = ['[{"a": 1}, {"a": 2]', '{"id": 9}}', '"id": 9, "name": "x"}', '{"id": 9} x']
DEEP = ["[" * 100_000 + "]" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000, '{"id": ' + "[" * 100_000 + "]" * 100_000 + "}", "[" * 100_000]


def array(*elements: str) -> str:
    """Return the text of a JSON array."""
    return "[\n" + ",\n".join(elements) + "\n]\n"


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
@pytest.mark.parametrize(("text", "expected"), [*((text, "malformed") for text in [*WRONG, *BROKEN, *DEEP]), *ODD.items()],
                         ids=lambda part: part if len(part) < 40 else f"{part[:20]}({len(part)})")
def test_an_odd_element_costs_itself_alone(load: Load, suffix: str, text: str, expected: str) -> None:
    lines = [element(1), text, element(3), text, element(5)]
    found = load(array(*lines) if suffix == "json" else "\n".join(lines), f"users.{suffix}")
    found.pop("error", None)                                # a notice on what is no field
    again = "unchanged" if expected == GOOD else expected
    assert found == {1: GOOD, 2: expected, 3: GOOD, 4: again, 5: GOOD}


@pytest.mark.parametrize(("suffix", "text"), [*itertools.product(["json", "jsonl"], TRAPS + UNBALANCED), ("jsonl", '{"id": 9} {"id": 9}')])
def test_a_broken_element_is_told_from_its_neighbours_and_its_parts(load: Load, suffix: str, text: str) -> None:
    lines = [element(1), text, element(3)]
    last = text.count("\n") + 3
    found = load(array(*lines) if suffix == "json" else "\n".join(lines).replace("},\n", "}\n"), f"users.{suffix}")
    assert found == {1: GOOD, **dict.fromkeys(range(2, last), "malformed"), last: GOOD}


@pytest.mark.parametrize("broken", ['{"id": 9, "name": "u"9", "email": "a@b.c"}', '{"id": 9, "name": "u9, "email": "a@b.c"}', '{"id": 9, "name": u9", "email": ""}',
                                    '{"id": 9, "name": "x\\", "email": "a@b.c"}', '{"id": 9, "name": ["x", {"y"], "email": "a@b.c"}'])
@pytest.mark.parametrize("separator", [", ", ",", ",\n"])
def test_a_stray_quote_in_an_array_costs_its_element_alone(load: Load, broken: str, separator: str) -> None:
    lines = [element(1), broken, element(3), element(4), broken, broken, element(7)]
    assert load(f"[{separator.join(lines)}]", "users.json") == {place: "malformed" if line is broken else GOOD for place, line in enumerate(lines, start=1)}


def test_json_and_json_lines_of_the_same_records_agree(tmp_path: Path) -> None:
    chance = random.Random(2)
    for _ in range(30):
        elements = [chance.choice([element(chance.randrange(9)), element(1, note=[{"a": 1}]), chance.choice(WRONG), *ODD]) for _ in range(20)]
        separator = chance.choice([",", ", ", ",\n", "\n  ,\t\r\n "])
        as_array = read(tmp_path / "users.json", f" [ {separator.join(elements)} ] \n")
        as_lines = read(tmp_path / "users.jsonl", chance.choice(["\n", "\r\n"]).join(elements))
        assert [(place, row) for place, _, row in as_array] == [(place, row) for place, _, row in as_lines]
        assert [text for _, text, _ in as_array] == [text.strip() for _, text, _ in as_lines] == elements


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_a_number_is_kept_as_its_text(tmp_path: Path, suffix: str) -> None:
    numbers = ["5", "0", "-0", "1.50", "1E5", "1e-400", "1e999", "0.1000000000000000055", str(2**63), "9" * 5000, "NaN", "Infinity", "-Infinity"]
    lines = [f'{{"id":{number},"name":"{number}","email":[{number}]}}' for number in numbers]
    found = read(tmp_path / f"users.{suffix}", array(*lines) if suffix == "json" else "\n".join(lines))
    assert [(row[0], row[1]) for _, _, row in found] == [(number, number) for number in numbers]
    assert {(type(row[0]), type(row[1]), type(row[2][0])) for _, _, row in found} == {(Numeral, str, Numeral)}


@pytest.mark.parametrize(("text", "expected"), [
    ("[]", {}), (" [ \n ] \n", {}), ("[", {1: "malformed"}), (f"[{element(1)}", {1: GOOD, 2: "malformed"}),
    (f"[{element(1)},", {1: GOOD, 2: "malformed"}), (f"[{element(1)},]", {1: GOOD, 2: "malformed"}), ("[,]", {1: "malformed"}),
    (f'[{element(1)}, {{"id": 2, "na', {1: GOOD, 2: "malformed"}), (f"[{element(1)}, {element(2)[:-1]}]", {1: GOOD, 2: "malformed"}),
    (f"[{element(1)},, {element(3)}]", {1: GOOD, 2: "malformed", 3: GOOD}), (f"[, {element(2)}]", {1: "malformed", 2: GOOD}),
    (f"[{element(1)} {element(2)}, {element(3)}]", {1: GOOD, 2: "malformed", 3: GOOD}), (f"[{element(1)}] x", {1: GOOD, 2: "malformed"}),
    (f"[{element(1)}] [{element(2)}]", {1: GOOD, 2: "malformed"}), (f"[{element(1)}]]", {1: GOOD, 2: "malformed"}),
    ("[" * 100_000, {1: "malformed"}), ('[{"id": 1, "name": "' + '\\"' * 200_000, {1: "malformed"}), (f"[{element(1)}, {DEEP[1]}, {element(3)}]", {1: GOOD, 2: "malformed", 3: GOOD}),
], ids=lambda part: ascii(part)[:40])
def test_a_broken_array_is_told_and_its_sound_elements_are_loaded(load: Load, text: str, expected: dict) -> None:
    assert load(text, "users.json") == expected


@pytest.mark.parametrize("note", ["]}[", {"a": [1, 2], "b": {}}, pytest.param([{"a": "}, {"}, {}], marks=pytest.mark.xfail(
    strict=True, reason="what is in the last element is taken for records"))], ids=repr)
def test_an_array_cut_anywhere_keeps_its_whole_elements_and_tells_the_cut(tmp_path: Path, note: object) -> None:
    elements = [element(1), element(2, note=note), element(3)]
    text = array(*elements).rstrip()
    ends = [text.index(part) + len(part) for part in elements]
    whole = [row for _, _, row in read(tmp_path / "users.json", text)]
    for cut in range(text.index("[") + 1, len(text)):
        found = [row for _, _, row in read(tmp_path / "users.json", text[:cut])]
        count = sum(end <= cut for end in ends)
        assert found[:count] == whole[:count] and len(found) > count, cut
        assert {type(row) for row in found[count:]} == {Problem}, cut


@pytest.mark.parametrize("text", ["", " \n", "{}", element(1), '"["', "5", "null", HEAD + user(1), "x[]", "\ufeff\ufeff[]"], ids=ascii)
def test_what_is_no_array_is_refused_as_a_whole(load: Load, text: str) -> None:
    assert "users.json" in load(text, "users.json")["error"]


@pytest.mark.parametrize(("text", "expected"), [
    ("", {}), ("\n \n\t\r\n", {}), (f"\n{element(1)}\n\n \r\n{element(2)}", {2: GOOD, 5: GOOD}),
    (f"{element(1)}\r{element(2)}\r\n{element(3)}", {1: GOOD, 2: GOOD, 3: GOOD}),
    (f"{element(1)},\n{element(2)}", {1: "malformed", 2: GOOD}), (f"{element(1)} {element(2)}\n{element(3)}", {1: "malformed", 2: GOOD}),
    ('{"id": 1, "name": "a\u2028\u2029b", "email": "a@b.c"}\n' + element(2), {1: GOOD, 2: GOOD}),
    (f"[{element(1)}]\n{element(2)}", {1: "malformed", 2: GOOD}),
    ('{"id": 1,\n"name": "x", "email": "a@b.c"}\n' + element(3), {1: "malformed", 2: "malformed", 3: GOOD}),
    (f"{element(1)}\0\n{element(2)}", {1: "malformed", 2: GOOD}),
    ('{"id": 1, "name": "\x85", "email": "a@b.c"}\n' + element(2), {1: "blank", 2: GOOD}),
    (f"\u00a0{element(1)}\n{element(2)}", {1: "malformed", 2: GOOD}),
    (f"\u00a0\n\x0c\n{element(3)}\n\u2003\n", {1: "malformed", 2: "malformed", 3: GOOD, 4: "malformed"}),
], ids=lambda part: ascii(part)[:40])
def test_json_lines_are_read_line_by_line(load: Load, text: str, expected: dict) -> None:
    assert load(text, "users.jsonl") == expected


def test_keys_that_are_no_field_are_ignored_with_one_notice(load: Load) -> None:
    found = load(array(element(1, note=1), element(2, **{"note": 2, "\x1b": 3})), "users.json")
    error = found.pop("error")
    assert found == {1: GOOD, 2: GOOD} and error.count("\n") == 1 and error[:-1].isprintable() and error.count("note") == 1


# ---------------------------------------------------------------------------------------- Chunks, batches, texts

PIECES = [user(1), user(2, "Zoë 李🙂"), '3,"B\nb",b@b.c\n', '4,"C""c",c@b.c\r\n', '5,"x"y,c@b.c\n', '6,"open,c@b.c\n', "7,z\r", "\n", "\r\n",
          '8,"m\r\nn\ro",é@b.c\r\n', '"\n', '""\n',
          "9,\u2028,z\n", "10,\x85\x0b,z\r", '"a"b,"c\nd",e\n', "11,Ann,a@b.c", "   \n", '12,"' + "\n" * 9 + '",x\n', "13," + "y" * 90 + ",x\n"]
ELEMENTS = [element(1), element(2, name="Zoë 李🙂"), element(3, note=[{"a": "}, {"}, {"b": "]"}]), '{"id":1 "b"}', "null", '[1,{"a":2},{"b":3}]',
            '"a, {b"', "tru", "{", "}", "-", '"open', " "]
SIZES = [*itertools.product((1, 2, 3, 5, 16, 64, 333), (8000, 1)), (1, 2), (7, 3), (1 << 18, 2), (1 << 18, 3), (1 << 18, 7)]


def csv_text(chance: random.Random) -> str:
    """Return a file of CSV with anything in it."""
    return HEAD + "".join(chance.choices(PIECES, k=chance.randint(1, 12)))


def lines_text(chance: random.Random) -> str:
    """Return a file of JSON Lines with anything in it."""
    return "".join(chance.choice(ELEMENTS) + chance.choice(["\n", "\n", "\r\n", "\r"]) for _ in range(chance.randint(1, 9)))


def array_text(chance: random.Random) -> str:
    """Return a file with a JSON array, of anything and perhaps broken."""
    elements = chance.choices(ELEMENTS[:chance.choice([3, len(ELEMENTS)])], k=chance.randint(1, 9))
    return "[" + chance.choice([",", ", ", ",\n  "]).join(elements) + chance.choice(["]", "]\n", "", " ] x", "}"])


def check_sizes(monkeypatch: pytest.MonkeyPatch, path: Path, data: bytes) -> None:
    """Make sure that a file is read alike however it is cut into chunks and batches."""
    expected = read(path, data)
    for chunk, batch in SIZES:
        with monkeypatch.context() as patch:
            patch.setattr(program, "CHUNK_BYTES", chunk)
            patch.setattr(program, "BATCH_RECORDS", batch)
            assert read(path) == expected, (chunk, batch, data)


@pytest.mark.parametrize(("name", "make"), [("users.csv", csv_text), ("users.jsonl", lines_text), ("users.json", array_text)])
def test_chunks_and_batches_change_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, make: Callable) -> None:
    chance = random.Random(3)
    for _ in range(40):
        check_sizes(monkeypatch, tmp_path / name, make(chance).encode())


@pytest.mark.parametrize("name", CSV)
def test_chunks_and_batches_change_nothing_in_odd_csv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    text = HEAD + CSV[name][0]
    if len(text) < 1000 and "\0" not in text:               # a NUL is many in a chunk of few bytes
        for end in ("\n", "\r\n"):
            check_sizes(monkeypatch, tmp_path / "users.csv", text.replace("\n", end).encode())


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16-le", "utf-16-be"])
def test_a_byte_order_mark_may_come_in_two_chunks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encoding: str) -> None:
    check_sizes(monkeypatch, tmp_path / "users.csv", encoded(HEAD + user(1, "Zoë 🙂"), encoding))


def test_a_number_may_come_in_two_chunks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    check_sizes(monkeypatch, tmp_path / "users.json", array(element(1), "1e5", "-1.25E+10", element(2), "123").encode())


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_line_below_one_that_was_cut_keeps_its_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, end: str) -> None:
    monkeypatch.setattr(program, "LINE_MAX", 50)
    text = (HEAD + user(1) + user(2, "x" * 1000) + user(3)).replace("\n", end)
    for chunk in (*range(1, 30), 64, 333):
        monkeypatch.setattr(program, "CHUNK_BYTES", chunk)
        assert [(place, type(row)) for place, _, row in read(tmp_path / "users.csv", text)] == [(2, list), (3, Problem), (4, list)], chunk


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_whether_a_line_is_too_long_does_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, suffix: str) -> None:
    monkeypatch.setattr(program, "LINE_MAX", 100)
    for length in (20, 98, 99, 100, 101, 110, 150):
        text = HEAD + user(1) + f"{'x,' * (length // 2)}\n"[-length:] + user(3) if suffix == "csv" else f'{element(1)}\n{"5" * length}\n{element(3)}'
        check_sizes(monkeypatch, tmp_path / f"users.{suffix}", text.encode())


@pytest.mark.parametrize("encoding", BOMS)
def test_the_texts_of_the_records_are_the_bytes_that_were_read(tmp_path: Path, encoding: str) -> None:
    chance = random.Random(4)
    for name, make in ("users.csv", csv_text), ("users.jsonl", lines_text):
        for _ in range(30):
            text, path = make(chance), tmp_path / name
            data = encoded(text, encoding)
            if encoding == "utf-8":
                data = data.replace(b"Ann", b"A\xff\xc3n")
            found = [text for _, text, _ in read(path, data)]
            source = program.Source(USERS, str(path))
            parts = [source.bom, source.encode(source.header), *map(source.encode, found)]
            source.close()
            blank = (b"\n", b"\r\n", b"\r", b" \n", b" \r\n", b" \r")         # those are no records
            rest = data
            for part in parts:
                while not rest.startswith(part) and rest:
                    ends = [mark.decode().encode(source.encoding) for mark in blank]
                    rest = next(rest[len(mark):] for mark in sorted(ends, key=len, reverse=True) if rest.startswith(mark))
                rest = rest[len(part):]
            assert rest.decode(source.encoding, "ignore").strip() == ""


def test_the_text_of_an_element_is_what_was_read(tmp_path: Path) -> None:
    elements = [element(1), '{ "id" :\n2,\t"name":"\\u005a\\/","email": "Zoë" }', "5", '{"id": 3 "x"}', element(6)]
    for encoding in BOMS:
        found = read(tmp_path / "users.json", encoded(array(*elements), encoding))
        assert [text.strip() for _, text, _ in found] == elements


# ----------------------------------------------------------------------------------------------------- Linear work


@pytest.mark.parametrize(("text", "count"), [
    (HEAD + 'x,"y\n' * 3000, 3000), (HEAD + '1,"open\n' + user(2) * 3000, 3000), (HEAD + '1,"a"b,c\n' * 3000, 3000),
    (HEAD + '1,"a\nb"c,d\n' * 3000, 6000),
    (HEAD + user(1, '"A\nb"') * 3000, 6000),
    (HEAD + 'x","y\n' * 3000, 3000), (HEAD + '1,x","y\n' * 3000, 3000),
    ('"id,name,email\n' + "x\n" * 3000, 3000), ('"id","\n' + '","\n' * 3000, 3000),
], ids=lambda part: ascii(part)[:40])
def test_a_line_is_read_a_few_times_whatever_is_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, count: int) -> None:
    work, reader = itertools.count(), csv.reader
    monkeypatch.setattr(csv, "reader", lambda lines, **options: reader((line for line in lines if next(work) >= 0), **options))
    try:
        read(tmp_path / "users.csv", text)
    except ValueError:                                      # of the header
        pass
    assert next(work) < 20 * count


@pytest.mark.parametrize("text", [element(1) + ", ", "5, ", '{"id": 1 "x"}, ', "}, ", "x, ", '"x, ', "[{", "[{ ", '{"a", ', '{"id": 1 "b", '], ids=ascii)
def test_an_array_takes_work_in_proportion_to_its_length(tmp_path: Path, text: str) -> None:
    work = []
    for count in (200, 400):
        lines, before = itertools.count(), sys.gettrace()

        def trace(*_: object) -> Callable:
            next(lines)
            return trace

        path = tmp_path / f"{count}.json"
        path.write_text("[" + text * count, encoding="utf-8")
        sys.settrace(trace)
        try:
            read(path)
        finally:
            sys.settrace(before)
        work.append(next(lines))
    assert work[1] < 3 * work[0]


# ----------------------------------------------------------------------------------------------------------- Files


@pytest.mark.parametrize("name", ["users", "users.txt", "users.csv.gz", "users.xlsx", "csv", ".csv"])
def test_an_unknown_suffix_asks_for_the_format(load: Load, name: str) -> None:
    assert "--input-format" in load(HEAD + user(1), name)["error"]


@pytest.mark.parametrize(("name", "text", "arguments"), [
    ("users.CSV", HEAD + user(1), ()), ("users.TSV", (HEAD + user(1)).replace(",", "\t"), ()), ("users.Json", array(element(1)), ()),
    ("users.JSONL", element(1), ()),
    ("users.ndjson", element(1), ()), ("users.txt", HEAD + user(1), ("--input-format", "csv")),
    ("users.csv", array(element(1)), ("--input-format", "json")),
    ("users.json", element(1), ("--input-format", "jsonl")), ("users", (HEAD + user(1)).replace(",", "\t"), ("--input-format", "tsv")),
    ("a b 'c\"%; é.csv", HEAD + user(1), ()), ("-users.csv", HEAD + user(1), ()),
], ids=ascii)
def test_the_suffix_or_the_flag_names_the_format(load: Load, monkeypatch: pytest.MonkeyPatch, name: str, text: str, arguments: tuple) -> None:
    if name.startswith("-"):
        name = f"./{name}"
    assert load(text, name, *arguments) == {1 if "json" in f"{name} {arguments}".lower() else 2: GOOD}


@pytest.mark.parametrize(("text", "arguments"), [(HEAD + user(1), ()), (element(1) + "\n", ("--input-format", "jsonl")),
    (array(element(1)), ("--input-format", "json"))])
def test_standard_input_is_read(run: Run, tmp_path: Path, text: str, arguments: tuple) -> None:
    result = run("--users", "-", "--json", *arguments, stdin=text)
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout.splitlines()[0])["source"] == "standard input"
    assert rows(tmp_path / "users.db") == [(1, "Ann", "user1@example.com")]


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: None], ids=["folder", "nothing"])
def test_a_file_that_cannot_be_opened_is_wrong_usage(run: Run, tmp_path: Path, make: Callable) -> None:
    make(tmp_path / "users.csv")
    result = run("--users", "users.csv")
    assert (result.returncode, result.stdout) == (2, "") and "users.csv: " in result.stderr and result.stderr.count("\n") == 1
    assert not list(tmp_path.glob("*.db*"))
