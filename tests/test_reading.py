"""Reading: encodings, headers, CSV, JSON; one bad record costs itself alone, wherever it stands."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

import distributed_inserts as program
from conftest import Run, rows

HEAD = "id,name,email\n"
BOMS = {"utf-8": b"", "utf-8-sig": codecs.BOM_UTF8, "utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}
MIB = 1 << 20
GOOD = "inserted"
Load = Callable[..., dict]


def user(number: int, name: str = "Ann") -> str:
    """Return a line of CSV with a good user."""
    return f"{number},{name},user{number}@example.com\n"


def element(number: int, **more: object) -> str:
    """Return the same user as a JSON object."""
    return json.dumps({"id": number, "name": "Ann", "email": f"user{number}@example.com", **more}, ensure_ascii=False)


def array(*elements: str) -> str:
    """Return the text of a JSON array, an element a line from the second line on."""
    return "[\n" + ",\n".join(elements) + "\n]\n"


def encoded(text: str, encoding: str) -> bytes:
    """Return text in an encoding with its byte order mark."""
    return BOMS[encoding] + text.encode(encoding.removesuffix("-sig"))


@pytest.fixture
def load(here: Run, tmp_path: Path) -> Load:
    """Return a function that loads a file of users into nothing: what became of it, by line.

    That is "inserted" or the codes of the problems.  "error" has what was complained about, if anything was, "cut"
    why the reading ended early, if it did; with `into` the records are stored in a folder of that name.
    """

    def load_file(text: str | bytes, *arguments: str, into: str = "") -> dict:
        (tmp_path / "users").write_bytes(text.encode() if isinstance(text, str) else text)
        result = here("--users", "users", "--json", *(["--db", into] if into else ["--dry-run"]), *arguments)
        assert into or not list(tmp_path.glob("*.db*"))
        if result.returncode == 2:
            assert (
                result.stdout == ""
                and result.stderr.startswith("distributed_inserts: ")
                and result.stderr.count("\n") <= 3
            )
            return {"error": result.stderr}
        *lines, last = map(json.loads, result.stdout.splitlines())
        places = [line["line"] for line in lines]
        assert places == sorted(places) and [line["item"] for line in lines if "item" in line] in (
            [],
            list(range(1, len(lines) + 1)),
        )
        found: dict = {}  # by line; where several elements of an array stand in one, by -item
        for line in lines:
            place = -line["item"] if line["line"] in found else line["line"]
            found[place] = " ".join(problem["code"] for problem in line["problems"]) or line["verdict"]
        assert len(found) == len(lines)
        assert result.returncode == (
            3 if "cut" in last else 1 if set(found.values()) - {"inserted", "unchanged"} else 0
        )
        assert last["summary"]["users"]["read"] == len(lines)
        return found | ({"cut": last["cut"]} if "cut" in last else {"error": result.stderr} if result.stderr else {})

    return load_file


# ------------------------------------------------------------------------------------------------------------ Encodings


@pytest.mark.parametrize("encoding", BOMS)
@pytest.mark.parametrize("kind", ["csv", "tabs", "array", "lines"])
def test_the_encoding_changes_nothing(tmp_path: Path, load: Load, kind: str, encoding: str) -> None:
    names = ["Ann", "Zoë", "李小龍", "🙂 \U0010ffff", "a\u2028b", "Ａ"]
    if kind in ("array", "lines"):
        texts = [element(id_, name=name, email=f"zoë{id_}@example.com") for id_, name in enumerate(names, 1)]
        text = array(*texts) if kind == "array" else "\n".join(texts)
    else:
        text = HEAD + "".join(f"{id_},{name},zoë{id_}@example.com\n" for id_, name in enumerate(names, 1))
        text = text.replace(",", "\t") if kind == "tabs" else text
    load(encoded(text, encoding), into="db")
    assert rows(tmp_path / "db" / "users.db") == [
        (id_, name, f"zoë{id_}@example.com") for id_, name in enumerate(names, 1)
    ]


@pytest.mark.parametrize(
    "piece",
    [b"\xff", b"Andr\xe9", b"\xc3", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80", b"\xfe\xff"],
    ids=repr,
)
@pytest.mark.parametrize("kind", ["csv", "tabs", "array", "lines"])
@pytest.mark.parametrize("size", ["1", "1000"])
def test_undecodable_bytes_cost_their_record_alone_and_only_where_they_are_used(
    load: Load, kind: str, piece: bytes, size: str
) -> None:
    for field in ("name", "note"):
        records = [
            dict(zip(("id", "name", "email", "note"), (*user(number).strip().split(","), ""))) for number in (1, 2, 3)
        ]
        records[1][field] = "PIECE"
        if kind in ("array", "lines"):
            text = (array if kind == "array" else lambda *lines: "\n".join(lines))(*map(json.dumps, records))
        else:
            text = "\n".join(
                ("\t" if kind == "tabs" else ",").join(row)
                for row in (records[0], *(each.values() for each in records))
            )
        first = 1 if kind == "lines" else 2
        found = load(text.encode().replace(b"PIECE", piece), "--batch-size", size)
        assert "--encoding" in found["error"] or field == "note"
        wrong = GOOD if field == "note" else "bad_text"
        assert {line: found[line] for line in found if line != "error"} == {
            first: GOOD,
            first + 1: wrong,
            first + 2: GOOD,
        }


def test_lone_surrogates_of_utf_16_cost_their_record_alone(load: Load) -> None:
    text = HEAD + user(1) + user(2, "\ud83d") + user(3, "\udc00x") + user(4, "\U0001f600")
    found = load(codecs.BOM_UTF16_LE + text.encode("utf-16-le", "surrogatepass"))
    found.pop("error", None)
    assert found[2] == found[5] == GOOD and {found[3], found[4]} <= {"malformed", "bad_text"} and len(found) == 4


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_an_odd_byte_at_the_end_of_utf_16_costs_at_most_its_record(load: Load, encoding: str) -> None:
    found = load(encoded(HEAD + user(1) + user(2), encoding) + b"\n")
    found.pop("error", None)
    assert (found[2], found[3]) == (GOOD, GOOD) and (len(found) == 2 or found[4] != GOOD)


@pytest.mark.parametrize(
    "data",
    [
        bytes(range(256)) * 20,
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(200),
        (HEAD + user(1)).encode("utf-16-le"),
        (HEAD + user(1)).encode("utf-16-be"),
        (HEAD + user(1)).encode("utf-32"),
        bytes(1000),
        b"[" + bytes(50),
        (HEAD + user(1)).encode() + b"\0" * 9,
    ],
    ids=[
        "bytes", "png", "utf-16-le without mark", "utf-16-be without mark", "utf-32", "zeros", "bracket", "NULs below",
    ],
)
def test_a_binary_file_is_one_error(load: Load, data: bytes) -> None:
    assert load(data).keys() == {"error"}


# --------------------------------------------------------------------------------------------------------------- Header


@pytest.mark.parametrize(
    "header",
    [
        "id,name,email", "ID,Name,EMail", " id , NAME ,\temail\t", '"id","name","email"', "\u00a0id,name\u3000,email",
        '" ID ",name,email', "\n\nid,name,email", "\r\n\nid,name,email", '"ID" , "name", "EMAIL"', "   \nid,name,email",
    ],
)
def test_the_header_is_matched_by_name(load: Load, header: str) -> None:
    first = header.count("\n") + 2
    assert load(f"{header}\n{user(1)}{user(2)}") == {first: GOOD, first + 1: GOOD}


@pytest.mark.parametrize("order", list(itertools.permutations(["id", "name", "email", "Note", ""]))[::7], ids=",".join)
def test_the_columns_come_in_any_order_and_others_are_ignored_with_one_notice(
    load: Load, order: tuple[str, ...]
) -> None:
    cells = {"id": "7", "name": "Ann", "email": "ann@example.com", "Note": "\x1b", "": "x"}
    found = load("".join(",".join(row) + "\n" for row in (order, [cells[name] for name in order], ["0"] * 5)))
    error = found.pop("error")
    assert error.startswith("distributed_inserts: users: ") and '"Note"' in error and error.count("\n") == 1
    assert found == {2: GOOD, 3: "not_positive not_email"}


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("id,name", ["email", '"id", "name"']),
        ("id,name,mail", ["email", '"mail"']),
        ("name", ["id", "email"]),
        ("id name email", ["id", "name", "email"]),
        ("1,Ann,ann@example.com", ["id", "name", "email", '"Ann"']),
        ("id,name,email,id", ["id", '"email", "id"']),
        ("id,name,email,EMAIL", ["email"]),
        ("id,name,email, Name ", ["name"]),
        ("id,name,e mail", ["email"]),
        (",,", ["id"]),
        ("   ", ["empty"]),
        ("\x1b]0;title of mine,id,other", ["name"]),
        ("", ["empty", "id, name, email"]),
        ("\n\r\n\n", ["empty"]),
        ('id,"name,email', ["header"]),
        ('id,"na"me,email', ["header"]),
        ("id,name," + "x" * 3 * MIB, ["users"]),
        ("id,name," + "x," * 10_000, ["email"]),
    ],
    ids=lambda part: ascii(part)[:30],
)
def test_a_missing_or_repeated_column_is_refused_with_what_was_found(load: Load, header: str, words: list[str]) -> None:
    for text in (header, f"{header}\n{user(1)}" if header.strip() else header):
        found = load(text)
        assert (
            found.keys() == {"error"} and "users" in found["error"] and all(word in found["error"] for word in words)
        ), found
        assert found["error"].replace("\n", "").isprintable() and len(found["error"]) < 2000


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n \n", "\n,,\n"])
def test_a_header_alone_is_a_file_of_no_records(load: Load, end: str) -> None:
    assert load(HEAD.strip() + end).keys() <= {"error"}


def test_a_header_of_10000_columns_is_read(load: Load) -> None:
    names, cells = [f"column number {number} of many" for number in range(10_000)], ["x"] * 10_000
    names[17], names[5000], names[-1] = "email", "name", "id"
    cells[17], cells[5000], cells[-1] = "ann@example.com", "Ann", "1"
    found = load(f"{','.join(names)}\n{','.join(cells)}\n{','.join(cells[:-1])}\n")
    assert len(found.pop("error")) < 2000 and found == {2: GOOD, 3: "malformed"}


# ------------------------------------------------------------------------------------------------------------------ CSV

CSV: dict[str, tuple[str, dict[int, str]]] = {
    "quotes": ('1,"Lee, Ann",a@b.cd\n"2","say ""x""","b@b.cd"\n', {2: GOOD, 3: GOOD}),
    "empty cells": (',,\n"","",""\n' + user(1), {4: GOOD}),
    "too few cells": (user(1) + "2,Ann\n3\n" + user(4), {2: GOOD, 3: "malformed", 4: "malformed", 5: GOOD}),
    "too many cells": (user(1) + user(2).strip() + ",x\n" + user(3), {2: GOOD, 3: "malformed", 4: GOOD}),
    "blank lines": ("\n" + user(1) + "\n\r\n\n" + user(2) + "\n", {3: GOOD, 7: GOOD}),
    "a line of spaces": (user(1) + "  \n" + user(2), {2: GOOD, 4: GOOD}),
    "a cell of several lines": (user(1) + '2,"A\nB\r\n\nC",b@b.cd\n' + user(3), {2: GOOD, 3: "bad_text", 7: GOOD}),
    "several of them": (
        '1,"\n",a@b.cd\n2,"x\r\ny",b@b.cd\n3,"x\n\n",c@b.cd\n' + user(4),
        {2: "blank", 4: "bad_text", 6: GOOD, 9: GOOD},
    ),
    "a stray quote": (user(1) + '2,"An"n,b@b.cd\n' + user(3), {2: GOOD, 3: "malformed", 4: GOOD}),
    "stray quotes in a row": (
        user(1) + '2,"An"n,b@b.cd\n3,""x,c@b.cd\n' + user(4),
        {2: GOOD, 3: "malformed", 4: "malformed", 5: GOOD},
    ),
    "quotes inside a cell": ('1,An"n,a@b.cd\n2,A ""n,b@b.cd\n' + user(3), {2: GOOD, 3: GOOD, 4: GOOD}),
    "an unclosed quote": (user(1) + '2,"Ann,b@b.cd\n' + user(3) + user(4), {2: GOOD, 3: "malformed", 4: GOOD, 5: GOOD}),
    "an unclosed quote above quoted cells": (
        '1,"Ann,a@b.cd\n2,"Bob",b@b.cd\n3,"Lee",c@b.cd\n',
        {2: "malformed", 3: GOOD, 4: GOOD},
    ),
    "an unclosed quote above a cell of several lines": (
        '1,"Ann,a@b.cd\n' + user(2) + '3,"B\nC",c@b.cd\n' + user(4),
        {2: "malformed", 3: GOOD, 4: "bad_text", 6: GOOD},
    ),
    "unclosed quotes in a row": (
        '1,"Ann,a@b.cd\n2,"Bob,b@b.cd\n3,"Lee,c@b.cd\n' + user(4),
        {2: "malformed", 3: "malformed", 4: "malformed", 5: GOOD},
    ),
    "an unclosed quote in the last line": (user(1) + '2,Ann,"b@b.cd', {2: GOOD, 3: "malformed"}),
    "a quote alone": (user(1) + '"\n' + user(2), {2: GOOD, 3: "malformed", 4: GOOD}),
    "an unclosed quote above blank lines": (
        '1,"Ann,a@b.cd\n\n\n' + user(2) + "\n" + user(3),
        {2: "malformed", 5: GOOD, 7: GOOD},
    ),
    "a record at the limit": (f"1,{'x' * (MIB - 20)},a@b.cd\n" + user(2), {2: GOOD, 3: GOOD}),
    "records above the limit": (
        f'1,{"x" * MIB},a@b.cd\n{user(2)}3,"{"x" * MIB}",c@b.cd\n{user(4)}',
        {2: "malformed", 3: GOOD, 4: "malformed", 5: GOOD},
    ),
    "other separators of lines": (
        "".join(user(id_, f"A{character}b") for id_, character in enumerate("\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029", 1)),
        {**dict.fromkeys(range(2, 8), "bad_text"), 8: GOOD, 9: GOOD},
    ),
    "no line end": (user(1) + user(2).strip(), {2: GOOD, 3: GOOD}),
    "a control Z": (user(1) + "\x1a", {2: GOOD, 3: "malformed"}),
    "another header": (user(1) + HEAD + user(2), {2: GOOD, 3: "not_integer not_email", 4: GOOD}),
    "tabs": ("1\tAnn\ta@b.cd\n" + user(2), {2: "malformed", 3: GOOD}),
    "an unclosed quote above 3,000 lines": (
        '1,"Ann,a@b.cd\n' + "".join(map(user, range(3, 3003))),
        {2: "malformed", **dict.fromkeys(range(3, 3003), GOOD)},
    ),
    "an unclosed quote above 3,000 lines that are no records": (
        '1,"Ann,a@b.cd\n' + "".join(f"x{'y' * 99}{number}\n" for number in range(3000)) + user(2),
        {**dict.fromkeys(range(2, 3003), "malformed"), 3003: GOOD},
    ),
}


@pytest.mark.parametrize("size", ["1", "3", "5000"])
@pytest.mark.parametrize("name", CSV)
def test_a_broken_csv_record_costs_itself_alone_and_has_its_line(load: Load, name: str, size: str) -> None:
    text, expected = CSV[name]
    if size != "1" or len(text) < 10_000:
        assert load(HEAD + text, "--batch-size", size) == expected


@pytest.mark.parametrize("end", ["\r\n", "\r"], ids=ascii)
@pytest.mark.parametrize("name", [name for name, (text, _) in CSV.items() if "\r" not in text])
def test_the_line_ends_change_nothing(load: Load, name: str, end: str) -> None:
    text, expected = CSV[name]
    assert load((HEAD + text).replace("\n", end)) == expected


@pytest.mark.parametrize("separator", ["\t", ";", "|"], ids=["tab", "semicolon", "bar"])
@pytest.mark.parametrize(
    "name", [name for name, (text, _) in CSV.items() if "\t" not in text and ", " not in text and len(text) < 10_000]
)
def test_the_separator_changes_nothing(load: Load, name: str, separator: str) -> None:
    text, expected = CSV[name]
    found = load((HEAD + text).replace(",", separator))
    assert "separated" in found.pop("error") and found == expected


@pytest.mark.parametrize("text", ["2,A\0,b@b.cd\n", '2,"A\0\nB",b@b.cd\n', "\0\0\0\n"], ids=ascii)
def test_a_nul_far_down_costs_its_record(load: Load, text: str) -> None:
    above = "".join(map(user, range(10, 1000)))
    found = load(HEAD + above + text + user(3) + user(4))
    bad = [line for line, what in found.items() if what != GOOD]
    assert bad and set(bad) <= {992, 993} and {found[line] for line in bad} <= {"bad_text", "malformed"}
    assert list(found.values()).count(GOOD) == 992


def test_a_huge_cell_of_text_is_one_rejected_record(load: Load) -> None:
    cell = "".join(f"line {number} of a text\n" for number in range(60_000))
    assert len(cell) > MIB
    found = load(HEAD + user(1) + f'2,"{cell}",b@b.cd\n{user(3)}')
    assert found == {2: GOOD, 3: "malformed", 60_004: GOOD}


def test_a_sound_file_is_read_as_the_csv_module_reads_it(tmp_path: Path, load: Load) -> None:
    chance = random.Random(1)
    cells = ["x", "Ann Lee", "a,b", 'say "x"', '"', "é", "\u2028", "5", "a;b", "'q'", '""', ",", '"a","b"', "x|y"]
    for turn in range(12):
        text, ids = io.StringIO(newline=""), iter(range(1, 100))
        writer = csv.writer(
            text,
            lineterminator=chance.choice(["\n", "\r\n"]),
            quoting=chance.choice([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
        )
        writer.writerow(["note", "id", "name", "email", "more"])
        expected = [
            (next(ids), chance.choice(cells).strip() or "x", f"e{turn}@x{number}.example") for number in range(40)
        ]
        writer.writerows(
            [
                chance.choice([*cells, "", "two\nlines", "three\r\n\r\nlines", "\n"]),
                *row,
                chance.choice([*cells, "", "\n"]),
            ]
            for row in expected
        )
        reader = csv.reader(io.StringIO(text.getvalue(), newline=""))
        starts = [1, *(reader.line_num + 1 for _ in reader)][1:-1]
        found = load(text.getvalue(), "--batch-size", chance.choice(["1", "7", "1000"]), into=f"db{turn}")
        found.pop("error")
        stored = [row for row in expected if row[1] not in ("\u2028",)]
        assert list(found) == starts
        assert rows(tmp_path / f"db{turn}" / "users.db") == stored


# ----------------------------------------------------------------------------------------------------------------- JSON

WRONG = [
    "5", "-1.5e3", "null", "true", "false", '"text"', '"[{"', "[]", '[1, {"id": 2}, {"id": 3}]', '["}, {"]', "NaN",
    "Infinity", "-Infinity",
]
ODD = {
    "{}": "missing missing missing",
    '{"id": 9}': "missing missing",
    '{"id": 9, "name": null, "email": "a@b.cd"}': "missing",
    '{"id": 9, "name": "Ann", "email": "a@b.cd", "id": 9}': "malformed",
    '{"id": 9.0, "name": "Ann", "email": "a@b.cd"}': GOOD,
    '{"id": 9.5, "name": "Ann", "email": "a@b.cd"}': "not_integer",
    '{"id": 9, "name": 5, "email": []}': "not_text not_text",
    '{"id": true, "name": {"a": {}}, "email": "a"}': "not_integer not_text not_email",
    '{"id": NaN, "name": NaN, "email": "a@b.cd"}': "not_integer not_text",
    '{"id": 9, "name": "\\ud800", "email": "a@b.cd"}': "bad_text",
    '{"id": 9, "name": "\\u0000", "email": "a@b.cd"}': "bad_text",
    '{"id": "9", "name": "Ann", "email": "a@b.cd"}': GOOD,
    '{"Email": "b@b.cd", " ID ": 8, "NAME": "Ann"}': GOOD,
    '{"id": 9, "name": "Ann \\ud83d\\ude42", "email": "a@b.cd"}': GOOD,
    '{"id": 9, "name": "\\u00e9\\/", "email": "a@b.cd"}': GOOD,
}
BROKEN = [
    "{", "}", '{"id": 9', '{"id": 9,}', '{"id" 9}', "{id: 9}", "{'id': 9}", '{"id": 9 "name": "Ann"}', '{"id": 09}',
    '{"id": +9}', '{"id": .9}', '{"id": 9_0}', '{"id": 0x9}', '{"id": tru}', '{"id": True}', '{"id": }', '{"id": "x}',
    '{"id": "\\x"}', '{"id": "\\u12"}', "x", "nul", "'", "# 9", "{,}", '{"a": "\t"}', '[{"a": 1}, {"a": 2]',
    '{"id": 9}}', '"id": 9, "name": "x"}', '{"id": 9} x',
]
DEEP = [
    "[" * 100_000 + "]" * 100_000,
    '{"a":' * 100_000 + "1" + "}" * 100_000,
    '{"id": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "[" * 100_000,
]
short = lambda part: part if len(part) < 40 else f"{part[:20]}({len(part)})"  # noqa: E731


@pytest.mark.parametrize("kind", ["array", "lines"])
@pytest.mark.parametrize(("text", "expected"), [*((text, "malformed") for text in WRONG), *ODD.items()], ids=short)
def test_an_odd_element_costs_itself_alone(load: Load, kind: str, text: str, expected: str) -> None:
    lines = [element(1), text, element(3), text, element(5)]
    found = load(array(*lines) if kind == "array" else "\n".join(lines))
    found.pop("error", None)  # a notice on what is no field
    again = "unchanged" if expected == GOOD else expected
    assert list(found.values()) == [GOOD, expected, GOOD, again, GOOD] and list(found)[0] == (
        2 if kind == "array" else 1
    )


@pytest.mark.parametrize("text", [*BROKEN, *DEEP], ids=short)
def test_a_broken_line_of_json_costs_itself_alone(load: Load, text: str) -> None:
    found = load("\n".join([element(1), text, element(3), text, element(5)]))
    found.pop("error", None)
    assert found == {1: GOOD, 2: "malformed", 3: GOOD, 4: "malformed", 5: GOOD}


@pytest.mark.parametrize("text", [*BROKEN, *DEEP], ids=short)
def test_a_broken_element_ends_the_reading_of_an_array_and_all_above_it_is_loaded(load: Load, text: str) -> None:
    found = load(array(element(1), element(2), text, element(4)))
    assert found.pop("cut").startswith("users")
    verdicts = list(found.values())  # an element that is whole, with something odd behind it, is judged
    assert (
        list(found)[:2] == [2, 3] and verdicts[:2] == [GOOD, GOOD] and verdicts[-1] == "malformed" and len(found) <= 4
    )
    assert list(found)[2] in ((4, 5) if len(text) < 100 else (4,))  # where the element begins, or the error stands


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("[", 0),
        (f"[{element(1)}", 1),
        (f"[{element(1)},", 1),
        (f"[{element(1)},]", 1),
        ("[,]", 0),
        (f'[{element(1)}, {{"id": 2, "na', 1),
        (f"[{element(1)}] x", 1),
        (f"[{element(1)},, {element(3)}]", 1),
        (f"[{element(1)} {element(2)}, {element(3)}]", 1),
        (f"[{element(1)}] [{element(2)}]", 1),
        (f"[{element(1)}]]", 1),
        ('{"users": [' + element(1), 1),
        (f'{{"users": [{element(1)}]', 1),
        (f'{{"users": [{element(1)}], "x": [}}', 1),
    ],
    ids=lambda part: ascii(part)[:40],
)
def test_an_array_that_is_cut_or_goes_on_is_told(here: Run, tmp_path: Path, text: str, good: int) -> None:
    (tmp_path / "users").write_text(text, encoding="utf-8")
    result = here("--users", "users", "--json")
    *lines, last = map(json.loads, result.stdout.splitlines())
    assert (
        [line["verdict"] for line in lines] == [GOOD] * good + ["rejected"] and result.returncode == 3 and last["cut"]
    )
    assert len(rows(tmp_path / "users.db")) == good


def test_an_array_cut_anywhere_keeps_its_whole_elements_and_tells_the_cut(load: Load) -> None:
    elements = [element(1), element(2, note=[{"a": "}, {"}, {}]), element(3, name="Zoë \\")]
    text = array(*elements).rstrip()
    ends = [text.index(part) + len(part) for part in elements]
    for cut in range(text.index("[") + 1, len(text)):
        found = load(text[:cut])
        found.pop("error", None)
        assert found.pop("cut")
        assert list(found.values()) == [GOOD] * sum(end <= cut for end in ends) + ["malformed"], cut


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"\n{element(1)}\n\n \r\n{element(2)}", {2: GOOD, 5: GOOD}),
        (f"{element(1)}\r\n{element(2)}\r\n{element(3)}", {1: GOOD, 2: GOOD, 3: GOOD}),
        (f"{element(1)},\n{element(2)}", {1: "malformed", 2: GOOD}),
        (f"{element(1)} {element(2)}\n{element(3)}", {1: "malformed", 2: GOOD}),
        (element(1, name="a\u2028\u2029b") + "\n" + element(2), {1: GOOD, 2: GOOD}),
        (element(2) + f"\n[{element(1)}]\n", {1: GOOD, 2: "malformed"}),
        (
            element(2) + '\n{"id": 1,\n"name": "x", "email": "a@b.cd"}\n' + element(3),
            {1: GOOD, 2: "malformed", 3: "malformed", 4: GOOD},
        ),
        (element(2) + "\n" + element(1, name="\x85".encode().decode()), {1: GOOD, 2: "blank"}),
    ],
    ids=lambda part: ascii(part)[:40],
)
def test_json_lines_are_read_line_by_line(load: Load, text: str, expected: dict) -> None:
    assert load(text) == expected


def test_keys_that_are_no_field_are_ignored_with_one_notice(load: Load) -> None:
    found = load(array(element(1, note=1), element(2, **{"note": 2, "\x1b": 3})))
    error = found.pop("error")
    assert (
        found == {2: GOOD, 3: GOOD} and error.count("\n") == 1 and error[:-1].isprintable() and error.count("note") == 1
    )


def test_json_and_json_lines_and_csv_of_the_same_records_agree(load: Load, tmp_path: Path) -> None:
    chance = random.Random(2)
    for turn in range(8):
        records = [
            {
                "id": chance.choice(["5", "5.0", "x", "0", str(number)]),
                "name": chance.choice(["Ann", "", " Zoë ", "a\tb", "x" * 300]),
                "email": chance.choice([f"{number}@b.cd", "", "x", "A@b.cd"]),
            }
            for number in range(10, 40)
        ]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
        found, stored = [], []
        for kind, data in enumerate(
            (text.getvalue(), json.dumps(records, indent=chance.choice([None, 1])), "\n".join(map(json.dumps, records)))
        ):
            (tmp_path / "users").write_text(data, encoding="utf-8", newline="")
            loaded = program_lines(tmp_path, f"{turn}.{kind}")
            found.append([(line["verdict"], [problem["message"] for problem in line["problems"]]) for line in loaded])
            stored.append(rows(tmp_path / f"{turn}.{kind}" / "users.db"))
        strip = [
            [(verdict, [message.split(" is already")[0] for message in messages]) for verdict, messages in each]
            for each in found
        ]
        assert strip[0] == strip[1] == strip[2] and stored[0] == stored[1] == stored[2]


def program_lines(tmp_path: Path, folder: str) -> list[dict]:
    """Load the file `users` into a folder and return the records' lines of JSON."""
    out = io.StringIO()
    from contextlib import redirect_stdout

    with redirect_stdout(out):
        program.main(["--users", str(tmp_path / "users"), "--json", "--db", str(tmp_path / folder)])
    return list(map(json.loads, out.getvalue().splitlines()))[:-1]


# ------------------------------------------------------------------------ Wherever what is read at once begins and ends

PIECES = [
    user(1),
    user(2, "Zoë 李🙂"),
    '3,"B\nb",b@b.cd\n',
    '4,"C""c",c@b.cd\r\n',
    '5,"x"y,c@b.cd\n',
    '6,"open,c@b.cd\n',
    "7,z\n",
    "\n",
    "\r\n",
    '8,"m\r\nn\no",é@b.cd\r\n',
    '"\n',
    '""\n',
    "9,\u2028,z\n",
    "10,\x85\x0b,z\n",
    '"a"b,"c\nd",e\n',
    "   \n",
    ",,\n",
    '12,"' + "\n" * 9 + '",x\n',
    "13," + "y" * 90 + ",x\n",
    "14,Ann,x@b.cd,\n",
    "15,Ann,x@b.cd,y\n",
]
ELEMENTS = [
    element(1),
    element(2, name="Zoë 李🙂"),
    element(3, note=[{"a": "}, {"}, {"b": "]"}]),
    "null",
    '[1,{"a":2},{"b":3}]',
    '"a, {b"',
    "5",
    "1.5e3",
    "{}",
    "true",
]
TORN = [*ELEMENTS, '{"id":1 "b"}', "tru", "{", "}", "-", '"open', " ", "[", "]"]


def csv_text(chance: random.Random) -> str:
    """Return a file of CSV with anything in it."""
    return HEAD + "".join(chance.choices(PIECES, k=chance.randint(1, 12)))


def lines_text(chance: random.Random) -> str:
    """Return a file of JSON Lines with anything in it."""
    return (
        element(9)
        + "\n"
        + "".join(chance.choice(TORN) + chance.choice(["\n", "\n", "\r\n"]) for _ in range(chance.randint(1, 9)))
    )


def array_text(chance: random.Random) -> str:
    """Return a file with a JSON array, of anything and perhaps broken."""
    elements = chance.choices(chance.choice([ELEMENTS, ELEMENTS, TORN]), k=chance.randint(1, 9))
    return (
        chance.choice(["[", '{"users": ['])
        + chance.choice([",", ", ", ",\n  "]).join([element(9), *elements])
        + chance.choice(["]", "]\n", "", " ] x", "}", "]}"])
    )


@pytest.mark.parametrize("make", [csv_text, lines_text, array_text], ids=lambda make: make.__name__)
def test_the_size_of_what_is_read_at_once_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, here: Run, make: Callable
) -> None:
    """Looks inside: no file that a test can write has a record across every border of every size."""
    chance = random.Random(3)
    for _ in range(25):
        (tmp_path / "users").write_bytes(make(chance).encode())
        seen = []
        for size in (
            program.BLOCK_CHARS,
            *(chance.randint(low, 2 * low) for low in (25, 60, 150)),
        ):  # the header has to fit
            monkeypatch.setattr(program, "BLOCK_CHARS", size)
            result = here("--users", "users", "--json", "--dry-run", "--batch-size", chance.choice(["1", "3", "1000"]))
            monkeypatch.undo()
            monkeypatch.chdir(tmp_path)
            assert result.returncode != 2 and "internal error" not in result.stderr, (
                result.stderr,
                (tmp_path / "users").read_bytes(),
            )
            *lines, last = map(json.loads, result.stdout.splitlines())
            last["summary"]["users"].pop("seconds")
            seen.append((size, result.returncode, lines, last))
        assert all(each[1:] == seen[0][1:] for each in seen), (tmp_path / "users").read_bytes()


@pytest.mark.parametrize("kind", ["csv", "quoted", "lines", "array", "CRLF", "one line"])
def test_lines_are_counted_to_the_end_of_a_long_file(here: Run, tmp_path: Path, kind: str) -> None:
    count, bad = 12_000, {1, 2, 131, 1000, 1001, 5000, 8191, 11_999, 12_000}
    names = ["" if number in bad else "Ann" for number in range(1, count + 1)]
    if kind in ("lines", "array", "one line"):
        lines = [
            json.dumps({"id": number, "name": name, "email": f"u{number}@example.com"})
            for number, name in enumerate(names, 1)
        ]
        text = (
            "\n".join(lines) if kind == "lines" else array(*lines) if kind == "array" else "[" + ", ".join(lines) + "]"
        )
    else:
        quote = '"' if kind == "quoted" else ""
        text = HEAD + "".join(
            f"{number},{quote}{name}{quote},u{number}@example.com\n" for number, name in enumerate(names, 1)
        )
        text = text.replace("\n", "\r\n") if kind == "CRLF" else text
    (tmp_path / "users").write_text(text, encoding="utf-8", newline="")
    result = here("--users", "users", "--json", "--dry-run")
    *lines, last = map(json.loads, result.stdout.splitlines())
    rejected = [line for line in lines if line["verdict"] == "rejected"]
    assert [line["id"] for line in rejected] == sorted(bad) and last["summary"]["users"]["read"] == count
    assert [line["line"] for line in rejected] == [
        1 if kind == "one line" else number + (kind != "lines") for number in sorted(bad)
    ]
    if kind in ("array", "one line"):
        assert [line["item"] for line in rejected] == sorted(bad)


# ---------------------------------------------------------------------------------------------------------- Linear work


@pytest.mark.parametrize(
    "line",
    [
        'x,"y\n', '1,"open\n', '1,"a"b,c\n', '1,"a\nb"c,d\n', '1,x","y\n', '","\n', '1,"A\nb",x@b.cd\n',
        '1,"",",x@b.cd\n',
    ],
    ids=ascii,
)
def test_a_line_is_read_a_few_times_whatever_is_broken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, here: Run, line: str
) -> None:
    """Looks inside: counts the lines that the csv module is given, as no test may assert a time."""
    work, reader = itertools.count(), csv.reader
    monkeypatch.setattr(
        csv, "reader", lambda lines, **options: reader((each for each in lines if next(work) >= 0), **options)
    )
    (tmp_path / "users").write_text(HEAD + line * 3000 + user(1), encoding="utf-8")
    result = here("--users", "users", "--json", "--dry-run", "-q")
    assert json.loads(result.stdout)["summary"]["users"]["inserted"] >= 1
    assert next(work) < 12 * (line.count("\n") * 3000 + 2)


# ---------------------------------------------------------------------------------------------------------------- Files


@pytest.mark.parametrize(
    "text",
    [HEAD + user(1), element(1) + "\n", array(element(1)), '{"users": [' + element(1) + "]}"],
    ids=["csv", "lines", "array", "wrapped"],
)
def test_standard_input_is_read(run: Run, tmp_path: Path, text: str) -> None:
    result = run("--users", "-", "--json", stdin=text)
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout.splitlines()[0])["source"] == "standard input"
    assert rows(tmp_path / "users.db") == [(1, "Ann", "user1@example.com")]


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: None], ids=["folder", "nothing"])
def test_a_file_that_cannot_be_opened_is_wrong_usage(here: Run, tmp_path: Path, make: Callable) -> None:
    make(tmp_path / "users.csv")
    result = here("--users", "users.csv")
    assert (
        (result.returncode, result.stdout) == (2, "")
        and "users.csv" in result.stderr
        and result.stderr.count("\n") == 1
    )
    assert not list(tmp_path.glob("*.db*"))
