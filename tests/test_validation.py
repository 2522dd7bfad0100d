"""The rules: every field and every problem code, asked of the validators and then of a load, which has to agree."""
from __future__ import annotations

import copy
import csv
import json
import numbers
import re
import sqlite3
import unicodedata
from collections import ChainMap, OrderedDict, UserDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from conftest import Run, lacking, rows
from loads import imported

program = imported()
validate_user, validate_product, validate_order, unique_key = (
    program.validate_user, program.validate_product, program.validate_order, program.unique_key)

Validate = Callable[[object], list]
VALIDATE = {"users": validate_user, "products": validate_product, "orders": validate_order}
GOOD = {
    "users": {"id": "1", "name": "Ann", "email": "ann@example.com"},
    "products": {"id": "1", "name": "Laptop", "price": "1000.00"},
    "orders": {"id": "1", "user_id": "1", "product_id": "1", "quantity": "2"},
}
WHOLE_MAX = 2**63 - 1


class Code(str):
    """What a value is rejected with; anything else in the tables below is what is stored of it."""


MISSING, BLANK, NOT_TEXT, BAD_TEXT, NOT_EMAIL = map(Code, ("missing", "blank", "not_text", "bad_text", "not_email"))
NOT_INTEGER, NOT_NUMBER, NOT_POSITIVE, OUT_OF_RANGE = map(Code, ("not_integer", "not_number", "not_positive",
                                                                 "out_of_range"))
# What is no number in any field.  `int` and `float` of Python take some of these.
NO_NUMBER = [
    "x", "five", "1_000", "1,000", "1 000", "1'000", "1.000,00", "--5", "-", ".", "-.", "0x10", "0b1", "0o7", "1e",
    "e5", "1e+", "1.2.3", "5%", "$5", "5$", "€5", "5 EUR", "5\0", "5\u200b", "\ufeff5", "- 5", "5-", "١٢", "１２", "१२",
    "²", "½", "五", "Ⅷ", "1\u0662", "1٫5", "nan", "NaN", "-nan", "inf", "-inf", "Infinity", "-Infinity", "infinity",
    "true", "True", "None", "null", "'5'", '"5"', "=5", "5;", "0x1p3", "1.5f"]
NO_TEXT = [0, 5, -1, 1.5, True, False, ["Ann"], [], {}, {"name": "Ann"}]

# --------------------------------------------------------------------------------------------- What becomes of a value

WHOLE = [
    ("1", 1), ("5", 5), ("007", 7), ("0" * 30 + "5", 5), ("9" * 18, 10**18 - 1), (str(WHOLE_MAX), WHOLE_MAX), (5, 5),
    (WHOLE_MAX, WHOLE_MAX), ("5.0", 5), ("3.0", 3), ("1000000.0", 1_000_000), (5.0, 5), (1000000.0, 1_000_000),
    (f"{WHOLE_MAX}.0", WHOLE_MAX), (" 5", 5), ("5 ", 5), (" 5 ", 5), ("\t5\t", 5), ("5\n", 5), ("\r\n5\r\n", 5),
    (" 5.0 ", 5), (str(WHOLE_MAX + 1), OUT_OF_RANGE), (2**63, OUT_OF_RANGE), (2**64 + 5, OUT_OF_RANGE),
    ("1" + "0" * 19, OUT_OF_RANGE), ("9" * 5000, OUT_OF_RANGE), (None, MISSING), ("", BLANK), (" ", BLANK),
    ("\n", BLANK), ("\u00a0\u2003", BLANK), *((text, NOT_INTEGER) for text in NO_NUMBER), ("5.5", NOT_INTEGER),
    ("1.5", NOT_INTEGER), (".5", NOT_INTEGER), ("5.01", NOT_INTEGER), ("0.5", NOT_INTEGER), (5.5, NOT_INTEGER),
    (0.1, NOT_INTEGER), ("1.5e1", NOT_INTEGER), ("1e3", NOT_INTEGER), (True, NOT_INTEGER), (False, NOT_INTEGER),
    ([5], NOT_INTEGER), ([], NOT_INTEGER), ({"id": 5}, NOT_INTEGER), ({}, NOT_INTEGER)]
FROM_ONE = [("0", NOT_POSITIVE), ("-0", NOT_POSITIVE), ("000", NOT_POSITIVE), ("0.0", NOT_POSITIVE),
            ("-1", NOT_POSITIVE), ("-1.0", NOT_POSITIVE),
            (" -1 ", NOT_POSITIVE), (0, NOT_POSITIVE), (-1, NOT_POSITIVE), (0.0, NOT_POSITIVE), (-3.0, NOT_POSITIVE)]
REFERENCE = [pair for pair in WHOLE
             if pair[1] != OUT_OF_RANGE]             # whether there is such an id, the database says
PRICE = [
    ("1", 1.0), ("1000.00", 1000.0), ("0.01", 0.01), (".5", 0.5), (".50", 0.5), (" .5 ", 0.5), ("1e3", 1000.0),
    ("1E3", 1000.0), ("1.5e-3", 0.0015), ("1e+2", 100.0), ("007.50", 7.5), ("1e300", 1e300),
    ("0." + "0" * 20 + "1", 1e-21), (" 9.99", 9.99), ("9.99\n", 9.99), ("\t9.99 ", 9.99), (5, 5.0), (1.5, 1.5),
    (1e-7, 1e-7), (9.99, 9.99), ("5.0", 5.0), ("123456789012345", 123456789012345.0),
    ("1234567890.12345", 1234567890.12345), ("0.000123456789012345", 0.000123456789012345),
    ("000123456789012345", 123456789012345.0), ("1.23456789012345e20", 1.23456789012345e20),
    ("1234567890123456", OUT_OF_RANGE), ("9007199254740993", OUT_OF_RANGE), ("12345678901.23456", OUT_OF_RANGE),
    ("0.30000000000000004", OUT_OF_RANGE), ("1.234567890123456e-5", OUT_OF_RANGE), (9007199254740993, OUT_OF_RANGE),
    ("9" * 5000, OUT_OF_RANGE), ("1e999", OUT_OF_RANGE), ("1e309", OUT_OF_RANGE), ("1e-400", OUT_OF_RANGE),
    ("1e" + "9" * 5000, OUT_OF_RANGE), ("0", NOT_POSITIVE), ("0.00", NOT_POSITIVE), ("-0.0", NOT_POSITIVE),
    ("0e5", NOT_POSITIVE), ("-1", NOT_POSITIVE), ("-50.00", NOT_POSITIVE), ("-.5", NOT_POSITIVE), (0, NOT_POSITIVE),
    (0.0, NOT_POSITIVE), (-1.5, NOT_POSITIVE), (None, MISSING), ("", BLANK), (" \t", BLANK), ("\r\n", BLANK),
    *((text, NOT_NUMBER) for text in NO_NUMBER), ("1e5.5", NOT_NUMBER), ("1,50", NOT_NUMBER), ("12,50", NOT_NUMBER),
    ("1,299.00", NOT_NUMBER), (True, NOT_NUMBER), (False, NOT_NUMBER), ([5], NOT_NUMBER), ([], NOT_NUMBER),
    ({}, NOT_NUMBER), ({"price": 5}, NOT_NUMBER)]
CONTROLS = [chr(code) for code in (*range(0x20), *range(0x7f, 0xa0))]
INVISIBLE = ["\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u3164", "\u115f", "\u1160", "\uffa0", "\u2800",
             "\u00ad", "\u034f", "\u180e", "\ufe0f"]
KEPT = ["Ann", "x", "0", "5", "nan", "null", "Ann  Lee", "O'Brien", 'say "x"', "a,b;c", "<b>", "=1+1",
        "'; DROP TABLE users; --", "%s {0} \\n", "Zoë", "Zoe\u0308", "Ａｎｎ", "अमृता", "Ἀθῆναι", "李小龍", "🙂",
        "👩\u200d👩\u200d👧", "می\u200cخواهم", "a\u00adb", "e\u0301", "a\u00a0b", "a\u200bb", "☃\ufe0f", "ǅ", "ﬁ",
        "Grid 10²", "x" * 100_000]
TEXT = [
    *((text, text) for text in KEPT), *((f"{space}Ann Lee{space}{space}", "Ann Lee")
                                        for space in (" ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u3000")),
    *((text, BLANK) for text in ("", " ", "\t", "\n", "\u00a0\u3000", *INVISIBLE, "\u200b\u2060\ufeff", " \u200b ",
                                 "\u3164\u2800")),
    *((f"A{character}b", BAD_TEXT) for character in CONTROLS), ("A\x1b[31m", BAD_TEXT), ("two\nlines", BAD_TEXT),
    ("A\x00", BAD_TEXT),
    ("A\udfffb", BAD_TEXT), ("\ud83d\ude42", BAD_TEXT), ("A\udcff", BAD_TEXT), ("A\ud800", BAD_TEXT),
    (None, MISSING), *((value, NOT_TEXT) for value in NO_TEXT)]
LABEL = "a" * 63
ADDRESSES = [
    "a@b.c", "ann@example.com", "Ann.Lee@Example.COM", "a.b.c@d.e.f", "ann+tag@example.com",
    "!#$%&'*+/=?^_`{|}~-@example.com", "-@example.com",
    "1@example.com", "a@1.com", "a@1.2c", "a@b--c.com", "a@xn--bcher-kva.example", "a@b.c1", "a@b.1c",
    "ann@sub.sub.sub.example.co.uk",
    "zoë@example.com", "李@例子.公司", "ann@bücher.example", "अमृता@उदाहरण.भारत", "а.б@пример.рф", "θσυ@παράδειγμα.ελ",
    "e\u0301@example.com",
    "ทดสอบ@ตัวอย่าง.ไทย", "a" * 64 + "@example.com", f"a@{LABEL}.com", f"a@b.{LABEL}",
    "a" * 64 + "@" + ".".join([LABEL, LABEL, "b" * 61]), f"a@{'b.' * 125}cc"]                     # 254 characters
NO_ADDRESSES = [
    "ann", "@", "a@", "@b.c", "a@b", "a@@b.c", "a@b@c.d", "ann@localhost", "a b@c.d", "a@b c.d", "a@ b.c", "a @b.c",
    ".a@b.c", "a.@b.c", "a..b@c.d",
    ".@b.c", "a@.b.c", "a@b..c", "a@b.c.", "a@.", "a@b.", "a@-b.c", "a@b-.c", "a@b.-c", "a@b.c-", "a@b_c.d", "a@b.c_d",
    "a@b.1", "a@b.123", "a@1.2.3.4",
    "a@[1.2.3.4]", "a@[IPv6:::1]", '"a"@b.c', '"a b"@c.d', "a(b)@c.d", "a@b.c(d)", "<a@b.c>", "Ann <a@b.c>",
    "mailto:a@b.c", "a:b@c.d", "a;b@c.d",
    "a,b@c.d", "a@b,c", "a@b.c,d@e.f", "a\\b@c.d", "a[b]@c.d", "a@b.c/d", "a@b!.c", "a@b+c.d", "a@b'.c", "a\u200b@b.c",
    "a@b\u200b.c", "a\u202e@b.c",
    "a\u00a0b@c.d", "a@☃.c", "a@€.com", "“a”@b.c", "a\uff20b.c", "a" * 65 + "@example.com", f"a@{LABEL}a.com",
    f"a@b.{LABEL}a",
    "a" * 64 + "@" + ".".join([LABEL, LABEL, "b" * 62]), f"a@{'b.' * 125}ccc",
    "a@" + "b." * 5000 + "c"]         # 255 characters and more
EMAIL = [
    *((text, text) for text in ADDRESSES), *((text, NOT_EMAIL) for text in NO_ADDRESSES),
    ("  ann@example.com\r\n", "ann@example.com"), (None, MISSING), ("", BLANK), (" ", BLANK), ("\u200b", BLANK),
    ("a\0@b.c", BAD_TEXT), ("a\nb@c.d", BAD_TEXT), ("a@b\x07.c", BAD_TEXT), ("a@\ud800.c", BAD_TEXT),
    *((value, NOT_TEXT) for value in NO_TEXT)]
TABLES = {
    ("users", "id"): WHOLE + FROM_ONE, ("users", "name"): TEXT, ("users", "email"): EMAIL,
    ("products", "id"): WHOLE + FROM_ONE, ("products", "name"): TEXT, ("products", "price"): PRICE,
    ("orders", "id"): WHOLE + FROM_ONE, ("orders", "user_id"): REFERENCE, ("orders", "product_id"): REFERENCE,
    ("orders", "quantity"): WHOLE + FROM_ONE}
IDS = {"ids": "{0[0]}.{0[1]}".format}


def codes(problems: list) -> list[tuple[str | None, str]]:
    """Return the fields and the codes of problems."""
    return [(problem.field, problem.code) for problem in problems]


def judged(value: object, model: str = "products", name: str = "price") -> str:
    """Return the code with which a validator rejects a value, or "" where it takes it."""
    problems = VALIDATE[model]({**GOOD[model], name: value})
    assert len(problems) <= 1 and all(problem.field == name for problem in problems)
    return problems[0].code if problems else ""


def shown(value: object) -> str:
    """Return a short name for a value of the tables."""
    text = "a huge number" if isinstance(value, int) and abs(value) > 10**30 else ascii(value)
    text = "an object" if type(value) is object else text          # which is shown with an address of its own
    return text if len(text) < 40 else f"{text[:30]}({len(text)})"


@pytest.mark.parametrize("place", TABLES, **IDS)
def test_every_value_is_judged_as_the_rules_say(place: tuple[str, str]) -> None:
    wrong = [(shown(value), found, expected) for value, expected in TABLES[place]
             if (found := judged(value, *place)) != (expected if isinstance(expected, Code) else "")]
    assert wrong == []


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("size", [1, 500])
@pytest.mark.parametrize("model", GOOD)
def test_a_load_judges_values_as_the_validators_do(here: Run, tmp_path: Path, model: str, size: int, kind: str) -> None:
    made = [{**GOOD[model], "id": str(number), "name": f"Name {number}", "email": f"e{number}@example.com", name: value}
            for number, (name, value) in enumerate(
                ((name, value) for (table, name), values in TABLES.items() if table == model for value, _ in values
                 if kind == "jsonl" or isinstance(value, str) and not re.search("[\0-\x1f\ud800-\udfff]", value)),
                 start=10**6)]
    made = [{name: record[name] for name in GOOD[model]} for record in made]
    with open(tmp_path / "records", "w", encoding="utf-8", newline="") as file:
        if kind == "csv":
            writer = csv.DictWriter(file, list(GOOD[model]))
            writer.writeheader()
            writer.writerows(made)
        else:
            file.writelines(json.dumps(record) + "\n" for record in made)
    result = here(f"--{model}", "records", "-n", "--json", "--batch-size", size)
    *lines, _ = map(json.loads, result.stdout.splitlines())
    made = json.loads(json.dumps(made))                     # which joins the halves of a surrogate pair
    between = {"not_unique", "conflict", "no_such_reference"}           # what a record alone cannot have
    wrong = [(shown(record), found, expected) for record, line in zip(made, lines)
             if (found := [each for problem in line["problems"] if (each := (problem["field"],
                                                                             problem["code"]))[1] not in between])
             != (expected := codes(VALIDATE[model](record)))]
    assert len(lines) == len(made)
    assert wrong == []


@pytest.mark.parametrize("place", [("products", "price"), ("orders", "quantity"), ("users", "name"), ("users", "email"),
                                   ("users", "id")], **IDS)
def test_what_is_stored_is_the_value_without_the_white_space_around_it(here: Run, tmp_path: Path,
                                                                       place: tuple[str, str]) -> None:
    model, name = place
    good = [(value, stored) for value, stored in TABLES[place] if not isinstance(stored, Code)]
    if name in ("email", "id"):                     # the same one twice would not be unique
        good = list({str(stored).casefold(): (value, stored) for value, stored in good}.values())
    made = [{**GOOD[model], "id": number, "email": f"e{number}@example.com", name: value} for number,
            (value, _) in enumerate(good, start=1)]
    if model == "products":
        made = [{**record, "name": f"Product {record['id']}"} for record in made]
    if model == "orders":
        here("-q")                                  # the sample, for user 1 and product 1
        made = [{**record, "id": record["id"] + 100} for record in made]
    (tmp_path / "records").write_text("".join(json.dumps(record) + "\n" for record in made), encoding="utf-8")
    result = here(f"--{model}", "records")
    assert result.returncode == 0
    column = list(GOOD[model]).index(name)
    found = [row[column] for row in rows(tmp_path, model) if model != "orders" or row[0] > 100]
    expected = [stored for _, stored in good]
    assert found == (sorted(expected) if name == "id" else expected)
    assert list(map(type, found)) == [type(expected[0])] * len(expected)


# ------------------------------------------------------------------------------------------------------- Numbers


@pytest.mark.parametrize("name", ["id", "user_id", "quantity"])
@pytest.mark.parametrize("value", [5, "5", " 5 ", "5.0", 5.0, Decimal("5"), Decimal("5.0"), Fraction(5)], ids=repr)
def test_5_is_a_whole_number_however_it_is_written(name: str, value: object) -> None:
    assert validate_order({**GOOD["orders"], name: value}) == []
    assert validate_product({**GOOD["products"], "price": value}) == []


@pytest.mark.parametrize("value", [Decimal("9.99"), Decimal("1E+3"), Decimal("0.5"), Fraction(1, 2), Fraction(1, 3), 9.99,
                                   0.5, 10**14], ids=repr)
def test_a_price_may_be_any_number_of_python(value: object) -> None:
    assert judged(value) == ""


@pytest.mark.parametrize(("value", "code"), [
    (Decimal("NaN"), "not_number"), (Decimal("sNaN"), "not_number"), (Decimal("Infinity"), "not_number"),
    (float("nan"), "not_number"), (float("inf"), "not_number"), (float("-inf"), "not_number"),
    (Decimal("0"), "not_positive"), (Decimal("-9.99"), "not_positive"), (Fraction(-1, 2), "not_positive"),
    (Decimal("1E+999"), "out_of_range"), (Decimal("9007199254740993"), "out_of_range"), (10**5000, "out_of_range"),
    (True, "not_number"), (b"5", "not_number"), ((), "not_number"), (object(), "not_number")], ids=shown)
def test_a_number_of_python_that_is_no_price_is_rejected(value: object, code: str) -> None:
    assert judged(value) == code


@pytest.mark.parametrize(("value", "code"), [
    (Decimal("5.5"), "not_integer"), (Decimal("NaN"), "not_integer"), (Decimal("sNaN"), "not_integer"),
    (Fraction(11, 2), "not_integer"), (float("nan"), "not_integer"), (float("inf"), "not_integer"),
    (Decimal(-5), "not_positive"), (Decimal(2**63), "out_of_range"), (10**5000, "out_of_range"), (True, "not_integer"),
    (False, "not_integer"), (b"5", "not_integer"), ((), "not_integer"), (object(), "not_integer")], ids=shown)
def test_a_number_of_python_that_is_no_whole_number_is_rejected(value: object, code: str) -> None:
    assert judged(value, "orders", "quantity") == code


class Int64:
    """A whole number as numpy has them: known to `numbers`, no subclass of int, and shown as `np.int64(5)`."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"np.int64({self.value})"

    def __str__(self) -> str:
        return str(self.value)

    def __int__(self) -> int:
        return self.value

    def __float__(self) -> float:
        return float(self.value)

    __index__ = __int__


numbers.Integral.register(Int64)


def test_a_number_that_only_numbers_knows_is_one() -> None:
    assert validate_order({"id": Int64(1), "user_id": Int64(2), "product_id": Int64(3), "quantity": Int64(4)}) == []
    assert (judged(Int64(5)), judged(Int64(-5))) == ("", "not_positive")
    problem, = validate_order({**GOOD["orders"], "quantity": Int64(0)})
    assert problem.code == "not_positive" and "np" not in str(problem)


def test_numbers_of_numpy_are_numbers() -> None:
    numpy = pytest.importorskip("numpy", reason="numpy is missing: pip install numpy")
    for kind in (numpy.int64, numpy.int8, numpy.uint32, numpy.float64):
        assert validate_order({name: kind(5) for name in GOOD["orders"]}) == []
        assert judged(kind(5)) == ""
    assert judged(numpy.float32(1.1)) == ""
    assert judged(numpy.float64("nan")) == "not_number"
    assert judged(numpy.bool_(True)) == "not_number" and judged(numpy.bool_(True), "users", "id") == "not_integer"


@pytest.mark.parametrize(("value", "words"), [
    ("1,299.00", '"1,299.00" is not a number: it holds ","'), ("$5", '"$"'), ("5 EUR", '"5 EUR"'), ("12,50", '","'),
    ("1_000", '"_"'), ("5€", '"€"')])
def test_what_is_in_the_way_of_a_number_is_named(value: str, words: str) -> None:
    problem, = validate_product({**GOOD["products"], "price": value})
    assert words in problem.message


@pytest.mark.parametrize(("value", "words"), [("1e3", '"e"'), ("1,299", '","'), ("0x10", '"x"'), ("1.2.3", '"."')])
def test_what_is_in_the_way_of_a_whole_number_is_named(value: str, words: str) -> None:
    problem, = validate_user({**GOOD["users"], "id": value})
    assert problem.message.endswith(f"is not a whole number: it holds {words}")


# -------------------------------------------------------------------------------------------------------- Records


@pytest.mark.parametrize(("validate", "record", "expected"), [
    (validate_user, {}, ["id missing", "name missing", "email missing"]),
    (validate_user, {"email": "x", "name": "\0", "id": "0"}, ["id not_positive", "name bad_text", "email not_email"]),
    (validate_user, {"id": "1.5", "name": " ", "email": None}, ["id not_integer", "name blank", "email missing"]),
    (validate_user, {"e-mail": "x"}, ["id missing", "name missing", "email missing"]),
    (validate_product, {"id": 2**63, "name": 5, "price": "nan"}, ["id out_of_range", "name not_text",
                                                                  "price not_number"]),
    (validate_product, {"id": True, "name": "\u3164", "price": "1e-400"},
     ["id not_integer", "name blank", "price out_of_range"]),
    (validate_product, {"id": "", "name": "Mouse", "price": -50.0}, ["id blank", "price not_positive"]),
    (validate_order, {}, ["id missing", "user_id missing", "product_id missing", "quantity missing"]),
    (validate_order, {"id": "x", "user_id": "", "product_id": None, "quantity": "-1"},
     ["id not_integer", "user_id blank", "product_id missing", "quantity not_positive"]),
    (validate_order, {"id": 1, "user_id": 1.5, "product_id": [1], "quantity": 0},
     ["user_id not_integer", "product_id not_integer", "quantity not_positive"])])
def test_all_problems_of_a_record_are_told_at_once_in_the_order_of_its_fields(validate: Validate, record: dict,
                                                                              expected: list[str]) -> None:
    before = copy.deepcopy(record)
    assert [f"{problem.field} {problem.code}" for problem in validate(record)] == expected
    assert record == before


@pytest.mark.parametrize("model", GOOD)
def test_a_good_record_has_no_problem_whatever_else_it_has(model: str) -> None:
    assert VALIDATE[model](GOOD[model]) == []
    assert VALIDATE[model]({**GOOD[model], "extra": object(), "": None, None: ["surplus"], 5: "\0"}) == []


def sqlite_row(**values: object) -> sqlite3.Row:
    """Return a row as a query gives it."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute("SELECT " + ", ".join(f'? AS "{name}"' for name in values),
                                  list(values.values())).fetchone()


class Record(Mapping):
    """A mapping of one's own."""

    def __init__(self, **values: object) -> None:
        self._values = values

    def __getitem__(self, name: str) -> object:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


@pytest.mark.parametrize("make", [sqlite_row, Record, OrderedDict, lambda **values: MappingProxyType(values),
                                  lambda **values: ChainMap({}, values),
                                  lambda **values: UserDict(values)],
                                  ids="sqlite3.Row Mapping OrderedDict MappingProxyType ChainMap UserDict".split())
def test_any_mapping_is_a_record(make: Callable[..., Any]) -> None:
    assert validate_user(make(id=1, name="Ann", email="ann@example.com")) == []
    assert codes(validate_user(make(id=0, name="Ann", email="ann"))) == [("id", "not_positive"), ("email", "not_email")]
    assert codes(validate_user(make(id=1, name="Ann"))) == [("email", "missing")]


@pytest.mark.parametrize("record", [None, [], ["1", "Ann", "a@b.c"], "1,Ann,a@b.c", 5, object(), [("id", 1)], b"", {1}],
                         ids=shown)
@pytest.mark.parametrize("model", GOOD)
def test_what_is_no_record_is_malformed(model: str, record: object) -> None:
    assert [problem.code for problem in VALIDATE[model](record)] == ["malformed"]


# ------------------------------------------------------------------------------------------------------- Problems


def test_a_problem_has_a_field_a_code_a_message_and_the_value_and_prints_as_its_message() -> None:
    for place, table in TABLES.items():
        for value, expected in table:
            if isinstance(expected, Code):
                problem, = VALIDATE[place[0]]({**GOOD[place[0]], place[1]: value})
                assert (problem.field, problem.code, problem.value) == (place[1], expected, value)
                assert str(problem) == problem.message
                assert problem.message.isprintable() and place[1] in problem.message and len(
                    problem.message) < 500, shown(value)
                assert problem.code in program.PROBLEMS


def test_problems_of_one_field_and_code_are_equal_and_others_are_not() -> None:
    def problem(**values: object) -> object:
        return validate_user({**GOOD["users"], **values})[0]

    assert problem(name="") == problem(name=" ") and problem(email="x") == problem(email="y") and problem(
        id="x") == problem(id=[])
    assert problem(name="") != problem(email="") and problem(name="") != problem(name=5)
    assert problem(name="") != "blank" and problem(name="") is not None
    assert validate_user({"id": 1}) == validate_user({"id": 2})
    assert len({problem(name=""), problem(name=" "), problem(name=5)}) == 2


def test_the_table_of_codes_is_the_specifications() -> None:
    assert set(program.PROBLEMS) == {
        "malformed", "missing", "blank", "not_text", "bad_text", "not_integer", "not_number", "not_positive",
        "out_of_range", "not_email",
        "not_unique", "conflict", "no_such_reference"}


@pytest.mark.parametrize(("model", "name", "value", "words"), [
    ("users", "email", "ann at home", '"ann at home"'), ("products", "price", "-50.00", "-50.00"),
    ("products", "name", True, "true"), ("products", "name", False, "false"),
    ("users", "name", {"first": "A"}, '{"first": "A"}'), ("users", "name", [1, None, "b"], '[1, null, "b"]'),
    ("users", "id", {"a": None}, '{"a": null}'), ("users", "id", True, "true"),
    ("orders", "quantity", [True], "[true]"), ("orders", "quantity", "5.5", "5.5"), ("users", "name", 5, "5"),
    ("users", "name", 1.5, "1.5")], ids=shown)
def test_a_value_is_shown_as_the_input_has_it(model: str, name: str, value: object, words: str) -> None:
    problem, = VALIDATE[model]({**GOOD[model], name: value})
    assert words in problem.message
    assert not re.search(r"\b(None|True|False)\b", problem.message)


def test_null_is_shown_as_null_in_a_load(here: Run, tmp_path: Path) -> None:
    (tmp_path / "users").write_text('{"id": null, "name": {"first": "A", "last": null}, "email": true}\n',
                                    encoding="utf-8")
    out = here("--users", "users").stdout
    assert '{"first": "A", "last": null}' in out and "true" in out
    assert not re.search(r"\b(None|True)\b|\('first'", out)


@pytest.mark.parametrize("value", ["A\x1b[31mB\x07", "two\nlines", "a\u202eb\0", "A\x9b1m"], ids=ascii)
def test_a_message_holds_no_control_character_of_its_value(value: str) -> None:
    for model, record in GOOD.items():
        for name in record:
            for problem in VALIDATE[model]({**record, name: value}):
                assert problem.message.isprintable() and problem.value == value


@pytest.mark.parametrize("value", ["x" * 10**6, "9" * 10**6, "\x1b" * 10**5, ["x" * 10**5] * 10, {"x" * 10**5: 1}],
                         ids=shown)
def test_a_message_is_short_however_long_its_value(value: object) -> None:
    for model, record in GOOD.items():
        for name in record:
            assert all(len(problem.message) < 500 for problem in VALIDATE[model]({**record, name: value}))


def test_a_load_can_meet_every_code(here: Run, tmp_path: Path) -> None:
    texts = {
        "users": '{"id":1,"name":"Ann","email":"ann@b.c"}\n{"id":1,"name":"Lee","email":"lee@b.c"}\n'
                 '{"id":2,"name":"Bob","email":"ANN@b.c"}\n'
                 '{"id":3,"email":" "}\n{"id":"x","name":5,"email":"x"}\n'
                 '{"id":0,"name":"\\u0000","email":"a@b.c"}\n{"id":\n',
        "products": '{"id":9223372036854775808,"name":"A","price":"nan"}\n',
        "orders": '{"id":1,"user_id":2,"product_id":1,"quantity":1}\n'}
    for model, text in texts.items():
        (tmp_path / model).write_text(text, encoding="utf-8")
    result = here("--json", *(word for model in texts for word in (f"--{model}", model)))
    *lines, _ = map(json.loads, result.stdout.splitlines())
    problems = [problem for line in lines for problem in line["problems"]]
    assert {problem["code"] for problem in problems} == set(program.PROBLEMS)
    assert all(problem["message"].isprintable() for problem in problems)


# ---------------------------------------------------------------------------------------------------- Linear time


@pytest.mark.parametrize("unit", ["a", "a.", ".", "@", "a@", "a@b.", "a-", "-", "1", "1e", "0", "\u200b", " ", "a ",
                                  "\n", "é", "é.", "\ud800", "<", "a@b.c,"],
                         ids=ascii)
def test_a_huge_value_is_judged_at_all(unit: str) -> None:
    # A quadratic rule would take minutes on some of these, and an exponential one for ever.
    many = unit * (200_000 // len(unit))
    for text in (many, "a@" + many, many + "@b.c", "a@b." + many):
        for model, record in GOOD.items():
            found = VALIDATE[model](dict.fromkeys(record, text))
            assert {problem.field for problem in found} <= set(record) and found


# ------------------------------------------------------------------------------------------------------ Unique key


@pytest.mark.parametrize("texts", [
    ("straße", "STRASSE", "Strasse"), ("Kelvin", "\u212aelvin", "KELVIN"), ("Zoë", "Zoe\u0308", "ZOË", "ZOE\u0308"),
    ("ﬁne", "FINE", "fine"), ("Σίσυφος", "ΣΊΣΥΦΟΣ", "σίσυφοσ"), ("Å", "\u212b", "A\u030a", "å"), ("ǆ", "Ǆ", "ǅ"),
    ("ann@example.com", "ANN@Example.COM")], ids=lambda texts: ascii(texts[0]))
def test_texts_that_differ_in_case_or_composition_are_one(texts: tuple[str, ...]) -> None:
    assert len({unique_key(text) for text in texts}) == 1


@pytest.mark.parametrize("texts", [
    ("Grid 10²", "Grid 102"), ("Gaming Chair", "Gaming  Chair", "Gaming\u00a0Chair", "GamingChair"),
    ("Laptop", "Ｌaptop"), ("½", "1\u20442", "1/2"), ("カ", "ｶ", "ガ"), ("Ⅷ", "VIII"), ("a", "а", "α", "á", "ä"),
    ("i", "ı", "İ"), ("ab", "a\u200bb", "a\u00adb", "a-b"), ("it", "瑩"), ("5", "05", "５")],
    ids=lambda texts: ascii(texts[0]))
def test_texts_that_differ_in_more_are_several(texts: tuple[str, ...]) -> None:
    assert len({unique_key(text) for text in texts}) == len(texts)


def test_the_unique_key_of_every_character_is_the_folded_nfc() -> None:
    texts = [f"A{chr(code)}B" for code in range(0x20, 0x30000) if not 0xd800 <= code < 0xe000]
    assert [ascii(text) for text in texts if unique_key(text) != unicodedata.normalize("NFC", text).casefold()] == []


# ----------------------------------------------------------------------------------------------------- Properties


def for_any(strategies: Callable[[Any], tuple], examples: int = 150) -> Callable[[Callable], Callable[[Path], None]]:
    """Run a test with what hypothesis makes of the strategies, the same in every run; skip it without hypothesis."""

    def decorate(test: Callable) -> Callable[[Path], None]:
        def run_examples(tmp_path: Path) -> None:
            try:
                import hypothesis
                from hypothesis import configuration, strategies as st
            except ImportError:
                lacking("hypothesis is missing: pip install hypothesis")
            configuration.set_hypothesis_home_dir(tmp_path)
            settings = hypothesis.settings(max_examples=examples, deadline=None, database=None, derandomize=True,
                                           suppress_health_check=list(hypothesis.HealthCheck))
            settings(hypothesis.given(*strategies(st))(test))()

        run_examples.__name__, run_examples.__doc__ = test.__name__, test.__doc__
        return run_examples

    return decorate


def anything(st: Any) -> Any:
    """Return a strategy for values of all kinds, nested ones too."""
    plain = (st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.decimals(
        ) | st.fractions() | st.complex_numbers()
             | st.characters())
    return st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.text(max_size=5) | st.integers(), inner, max_size=3))


@for_any(lambda st: (st.sampled_from(sorted(GOOD)), st.dictionaries(st.sampled_from(sorted({name for _,
                                                                                            name in TABLES})),
                                                                                            anything(st)) | anything(
                                                                                                st)))
def test_no_value_makes_a_validator_raise(model: str, record: object) -> None:
    problems = VALIDATE[model](record)
    assert all(problem.code in program.PROBLEMS and problem.message.isprintable() and len(problem.message) < 500
               for problem in problems)
    assert len({problem.field for problem in problems}) == len(problems)
    assert problems == VALIDATE[model](record)


@for_any(lambda st: (st.integers(-2**64, 2**64) | st.integers(),))
def test_a_whole_number_is_judged_alike_as_a_number_as_a_text_and_with_a_zero_behind_its_point(number: int) -> None:
    expected = "" if 1 <= number < 2**63 else "not_positive" if number < 1 else "out_of_range"
    for value in (number, str(number), f" {number} ", f"{number}.0", Decimal(number), Int64(number)):
        assert judged(value, "orders", "quantity") == expected, value


@for_any(lambda st: (st.decimals(allow_nan=False, allow_infinity=False) | st.decimals(-10**6, 10**6, places=2),))
def test_a_price_of_up_to_15_digits_is_taken_and_kept(number: Decimal) -> None:
    found = judged(number)
    assert found == judged(str(number)) == judged(f"\t{number} ")
    digits = "".join(map(str, number.as_tuple().digits)).strip("0")
    if number <= 0:
        assert found in ("not_positive", "out_of_range") and (found == "not_positive" or number < 0)
    elif len(digits) > 15:
        assert found == "out_of_range"
    elif len(number.as_tuple().digits) <= 15 and 10**-300 < number < 10**300:
        assert found == ""
        assert Decimal(f"{float(number):.15g}") == number


@for_any(lambda st: (st.text(max_size=40) | st.from_regex(r"\A[a-zé.]{1,5}@[a-z0-9.-]{1,9}\Z"),))
def test_what_is_taken_as_an_address_looks_like_one(text: str) -> None:
    if judged(text, "users", "email"):
        return
    local, _, domain = text.strip().partition("@")
    labels = domain.split(".")
    assert 1 <= len(local) <= 64 and "@" not in domain and len(text.strip()) <= 254
    assert "" not in local.split(".") and len(labels) >= 2 and not labels[-1].isdigit()
    assert all(label and label[0] != "-" != label[-1] and len(label) <= 63 for label in labels)
    assert not any(character.isspace() for character in text.strip())


@for_any(lambda st: (st.text(max_size=20),))
def test_a_text_is_taken_unless_it_is_blank_or_holds_a_control_character_or_half_a_pair(text: str) -> None:
    found, kept = judged(text, "users", "name"), text.strip()
    if kept == r"\N":  # which MySQL writes for no value
        assert found == "missing"
        return
    odd = {unicodedata.category(character) for character in kept} & {"Cc", "Cs"}
    assert found == ("bad_text" if odd else "blank" if not kept or found == "blank" and not any(map(str.isalnum, kept))
                     else "")


@for_any(lambda st: (st.text(max_size=30) | st.lists(st.sampled_from("aÅ\u030aß\u1e9eσςıİi\u0307ﬁ \u00a0\u0301e"),
                                                     max_size=8).map("".join),))
def test_the_unique_key_is_the_folded_nfc_of_any_text(text: str) -> None:
    assert unique_key(text) == unicodedata.normalize("NFC", text).casefold()


def test_a_fraction_beyond_all_floats_is_out_of_range() -> None:
    from fractions import Fraction

    record = {"id": 1, "name": "Pen", "price": Fraction(10**400)}
    assert [problem.code for problem in program.validate_product(record)] == ["out_of_range"]
