"""The rules: every kind of field and every problem code, one value at a time and by the column, always with the same answer."""
from __future__ import annotations

import copy
import json
import random
import unicodedata
from pathlib import Path

import pytest

from loads import imported

program = imported()
Field, Kind, Numeral, check_column = program.Field, program.Kind, program.Numeral, program.check_column
validate_user, validate_product, validate_order = program.validate_user, program.validate_product, program.validate_order

GOOD = {
    validate_user: {"id": "1", "name": "Ann", "email": "ann@example.com"},
    validate_product: {"id": "1", "name": "Laptop", "price": "1000.00"},
    validate_order: {"id": "1", "user_id": "1", "product_id": "1", "quantity": "2"},
}
FIELDS = [(validate, name) for validate, record in GOOD.items() for name in record]
KINDS = {"id": Kind.ID, "name": Kind.TEXT, "email": Kind.EMAIL, "price": Kind.PRICE, "user_id": Kind.REFERENCE,
         "product_id": Kind.REFERENCE, "quantity": Kind.COUNT}
WHOLE_MAX = 2**63 - 1


class Refused(str):
    """The code that a value is refused with; anything else in the tables below is the value that is stored."""


MISSING, BLANK, MALFORMED = Refused("missing"), Refused("blank"), Refused("malformed")
NOT_INTEGER, NOT_NUMBER, NOT_POSITIVE, OUT_OF_RANGE = map(Refused, ("not_integer", "not_number", "not_positive", "out_of_range"))
NOT_TEXT, BAD_TEXT, NOT_EMAIL = map(Refused, ("not_text", "bad_text", "not_email"))
NO_NUMBER = ["x", "five", "1_000", "1,000", "1 000", "1'000", "+5", "+0", "--5", "-", "0x10", "0b1", "0o7", "1e", "e5", "1e+", "1.2.3", "5.",
             " 5", "5 ", "12\n", "\t12", "5\u00a0", "\ufeff5", "5\0", "5\u200b", "-5 ", "- 5", "5-", "5%", "$5", "١٢", "１２", "१२", "²", "½", "五",
             "Ⅷ", "1\u0662", "nan", "NaN", "-nan", "inf", "-inf", "Infinity", "-Infinity", "true", "None", "null", "'5'", '"5"', "=5", "5;", "\ud800"]
NO_TEXT = [0, 5, -1, 1.5, True, False, b"Ann", ["Ann"], [], {}, {"name": "Ann"}, (("a", "b"),), Numeral("5"), Numeral("NaN"), object]

# What each kind makes of a value.  Texts stand for CSV cells and JSON strings, numerals for JSON numbers.
WHOLE = [
    ("1", 1), ("5", 5), ("007", 7), ("0" * 30 + "5", 5), ("0" * 5000 + "5", 5), ("9" * 18, 10**18 - 1), ("1" + "0" * 18, 10**18),
    (str(WHOLE_MAX), WHOLE_MAX), (5, 5), (WHOLE_MAX, WHOLE_MAX), (Numeral("5"), 5), (Numeral(str(WHOLE_MAX)), WHOLE_MAX),
    (str(WHOLE_MAX + 1), OUT_OF_RANGE), (2**63, OUT_OF_RANGE), (2**64 + 5, OUT_OF_RANGE), (10**5000, OUT_OF_RANGE), ("1" + "0" * 19, OUT_OF_RANGE),
    ("9" * 5000, OUT_OF_RANGE), (Numeral("9" * 5000), OUT_OF_RANGE), (Numeral(str(2**63)), OUT_OF_RANGE),
    (None, MISSING), ("", BLANK), (" ", BLANK), ("\n", BLANK), ("\u00a0\u2003", BLANK),
    *((text, NOT_INTEGER) for text in NO_NUMBER),
    *((Numeral(text), NOT_INTEGER) for text in ("1.0", "1e3", "-1.5", "NaN", "Infinity", "-Infinity", "1E400", "0.0")),
    ("1.0", NOT_INTEGER), ("1e3", NOT_INTEGER), ("1.5", NOT_INTEGER), (".5", NOT_INTEGER), (1.0, NOT_INTEGER), (1e300, NOT_INTEGER),
    (float("nan"), NOT_INTEGER), (float("inf"), NOT_INTEGER), (True, NOT_INTEGER), (False, NOT_INTEGER), (b"5", NOT_INTEGER),
    ([5], NOT_INTEGER), ([], NOT_INTEGER), ((("id", "5"),), NOT_INTEGER), ((), NOT_INTEGER), ({}, NOT_INTEGER), (5j, NOT_INTEGER),
]
FROM_ONE = [("0", NOT_POSITIVE), ("-0", NOT_POSITIVE), ("000", NOT_POSITIVE), ("-1", NOT_POSITIVE), (0, NOT_POSITIVE), (-1, NOT_POSITIVE),
            (Numeral("0"), NOT_POSITIVE), (Numeral("-3"), NOT_POSITIVE), ("-" + "9" * 5000, NOT_POSITIVE), (-10**5000, NOT_POSITIVE)]
ANY_WHOLE = [("0", 0), ("-1", -1), (0, 0), (-7, -7), (Numeral("-3"), -3), ("-" + "9" * 5000, OUT_OF_RANGE), (-10**5000, OUT_OF_RANGE)]
PRICE = [
    ("1", 1.0), ("1000.00", 1000.0), ("0.01", 0.01), ("1e3", 1000.0), ("1E3", 1000.0), ("1.5e-3", 0.0015), ("1e+2", 100.0), ("007.50", 7.5),
    ("1e308", 1e308), ("5e-324", 5e-324), ("0." + "0" * 300 + "1", 1e-301), ("1" + "0" * 300, 1e300), ("9007199254740993", 9007199254740992.0),
    (5, 5.0), (1.5, 1.5), (1e22, 1e22), (1e-7, 1e-7), (2**63, 2.0**63), (Numeral("5"), 5.0), (Numeral("1.5e1"), 15.0),
    ("0", NOT_POSITIVE), ("0.00", NOT_POSITIVE), ("-0.0", NOT_POSITIVE), ("0e5", NOT_POSITIVE), ("0e-999", NOT_POSITIVE), ("-1", NOT_POSITIVE),
    ("-50.00", NOT_POSITIVE), ("-1e999", NOT_POSITIVE), ("-1e-999", NOT_POSITIVE), (0, NOT_POSITIVE), (0.0, NOT_POSITIVE), (-0.0, NOT_POSITIVE),
    (-1.5, NOT_POSITIVE), (-10**5000, NOT_POSITIVE), (Numeral("-5"), NOT_POSITIVE), (Numeral("0.0"), NOT_POSITIVE),
    ("1e999", OUT_OF_RANGE), ("1e-400", OUT_OF_RANGE), ("9" * 5000, OUT_OF_RANGE), ("0." + "0" * 400 + "1", OUT_OF_RANGE), ("1e309", OUT_OF_RANGE),
    ("1e" + "9" * 5000, OUT_OF_RANGE), (10**5000, OUT_OF_RANGE), (10**309, OUT_OF_RANGE), (Numeral("1e999"), OUT_OF_RANGE),
    (None, MISSING), ("", BLANK), (" \t", BLANK), ("\r\n", BLANK),
    *((text, NOT_NUMBER) for text in NO_NUMBER), ("-.", NOT_NUMBER), (".", NOT_NUMBER), ("1e5.5", NOT_NUMBER), ("1,50", NOT_NUMBER), ("1٫5", NOT_NUMBER),
    ("1_0.5", NOT_NUMBER), ("0x1p3", NOT_NUMBER), ("1.5f", NOT_NUMBER), ("infinity", NOT_NUMBER), ("1e5 ", NOT_NUMBER),
    *((Numeral(text), NOT_NUMBER) for text in ("NaN", "Infinity", "-Infinity")),
    (float("nan"), NOT_NUMBER), (float("inf"), NOT_NUMBER), (float("-inf"), NOT_NUMBER), (True, NOT_NUMBER), (False, NOT_NUMBER),
    (b"5", NOT_NUMBER), ([5], NOT_NUMBER), ({}, NOT_NUMBER), ((), NOT_NUMBER), (5j, NOT_NUMBER),
]
# Every character that shows nothing: white space, fillers, and Unicode's Default_Ignorable_Code_Point.
SPACES = [chr(code) for code in range(0x110000) if chr(code).isspace()]
INVISIBLE = [chr(code) for first, last in (
    (0xad, 0xad), (0x34f, 0x34f), (0x61c, 0x61c), (0x115f, 0x1160), (0x17b4, 0x17b5), (0x180b, 0x180f), (0x200b, 0x200f), (0x202a, 0x202e),
    (0x2060, 0x206f), (0x2800, 0x2800), (0x3164, 0x3164), (0xfe00, 0xfe0f), (0xfeff, 0xfeff), (0xffa0, 0xffa0), (0xfff0, 0xfff8),
    (0x1bca0, 0x1bca3), (0x1d173, 0x1d17a), (0xe0000, 0xe0fff)) for code in range(first, last + 1)]
CONTROLS = [chr(code) for code in (*range(0x20), *range(0x7f, 0xa0))]
KEPT = ["Ann", "x", "0", "Ann  Lee", "O'Brien", 'say "x"', "a,b;c", "<b>", "=1+1", "'; DROP TABLE users; --", "%s {0} \\n", "Zoë", "Zoe\u0308", "Ａｎｎ",
        "अमृता", "Ἀθῆναι", "李小龍", "🙂", "👩\u200d👩\u200d👧", "می\u200cخواهم", "a\u00adb", "e\u0301", "\u0301", "\U0010ffff", "\ue000", "a\u2028b",
        "a\u202eb",
        "5", "nan", "\ufffd", "x" * 100_000, "a\u00a0b", "\u200bAnn", "☃\ufe0f", "ǅ", "ﬁ", "\u0378"]
TEXT = [
    *((text, text) for text in KEPT),
    *((f"{space}Ann Lee{space}{space}", "Ann Lee") for space in SPACES),
    *((text, BLANK) for text in ("", " ", *SPACES, *INVISIBLE[:80], *INVISIBLE[-300::7], " \u200b\u2060 ", "\ufeff\u3164\u2800", "".join(INVISIBLE))),
    *((f"A{character}b", BAD_TEXT) for character in CONTROLS),
    *((character, BAD_TEXT) for character in CONTROLS if not character.isspace()),
    ("\ud800", BAD_TEXT), ("A\udfffb", BAD_TEXT), ("\ud83d\ude42", BAD_TEXT), ("A\udcff", BAD_TEXT), ("A\n", "A"), ("\tA", "A"), ("A\x1b[31m", BAD_TEXT),
    ("\u200b\0", BAD_TEXT), (None, MISSING), *((value, NOT_TEXT) for value in NO_TEXT),
]
LABEL = "a" * 63
ADDRESSES = [
    "a@b.c", "ann@example.com", "Ann.Lee@Example.COM", "a.b.c@d.e.f", "ann+tag@example.com", "!#$%&'*+/=?^_`{|}~-@example.com", "-@example.com",
    "1@example.com", "a@1.com", "a@1.2c", "a@b--c.com", "a@xn--bcher-kva.example", "a@b.c1", "a@b.1c", "ann@sub.sub.sub.example.co.uk",
    "zoë@example.com", "李@例子.公司", "ann@bücher.example", "अमृता@उदाहरण.भारत", "हिन्दी@example.com", "а.б@пример.рф", "მე@მაგალითი.გე",
    "θσυ@παράδειγμα.ελ", "e\u0301@example.com", "א@דוגמה.ישראל", "ทดสอบ@ตัวอย่าง.ไทย", "a@b.1२c", "a@b.x२",
    "a" * 64 + "@example.com", "é" * 64 + "@example.com", f"a@{LABEL}.com", f"a@b.{LABEL}",
    "a" * 64 + "@" + ".".join([LABEL, LABEL, "b" * 61]), f"a@{'b.' * 125}cc",                       # 254 characters
]
NO_ADDRESSES = [
    "ann", "@", "a@", "@b.c", "a@b", "a@@b.c", "a@b@c.d", "ann@localhost", "a b@c.d", "a@b c.d", "a@ b.c", "a @b.c", ".a@b.c", "a.@b.c", "a..b@c.d",
    ".@b.c",
    "a@.b.c", "a@b..c", "a@b.c.", "a@.", "a@b.", "a@-b.c", "a@b-.c", "a@b.-c", "a@b.c-", "a@b_c.d", "a@b.c_d", "a@b.1", "a@b.123", "a@1.2.3.4", "a@b.१२",
    "a@b.１２", "a@[1.2.3.4]", "a@[IPv6:::1]", '"a"@b.c', '"a b"@c.d', "a(b)@c.d", "a@b.c(d)", "<a@b.c>", "Ann <a@b.c>", "mailto:a@b.c", "a:b@c.d",
    "a;b@c.d",
    "a,b@c.d", "a@b,c", "a@b.c,d@e.f", "a\\b@c.d", "a[b]@c.d", "a@b.c/d", "a@b!.c", "a@b+c.d", "a@b'.c", "a\u200b@b.c", "a@b\u200b.c", "a@b\u00ad.c",
    "a\u202e@b.c",
    "a\u00a0b@c.d", "a@b\u3002c", "a@b\uff0ec", "a\uff20b.c", "☃@b.c", "a@☃.c", "a@b.☃", "a@€.com", "“a”@b.c", "a\u2028b@c.d", "a@\ue000.c",
    "a@b.c\u0378", "🙂@b.c",
    "a" * 65 + "@example.com", "é" * 65 + "@example.com", f"a@{LABEL}a.com", f"a@b.{LABEL}a", f"a@{'é' * 64}.com",
    "a" * 64 + "@" + ".".join([LABEL, LABEL, "b" * 62]), f"a@{'b.' * 125}ccc", "a@" + "b." * 5000 + "c",        # 255 characters and more
]
EMAIL = [
    *((text, text) for text in ADDRESSES), *((text, NOT_EMAIL) for text in NO_ADDRESSES), ("  ann@example.com\r\n", "ann@example.com"),
    (None, MISSING), ("", BLANK), (" ", BLANK), ("\u200b", BLANK), ("a\0@b.c", BAD_TEXT), ("a@b.c\n\x07", BAD_TEXT), ("a\nb@c.d", BAD_TEXT),
    ("a@\ud800.c", BAD_TEXT), *((value, NOT_TEXT) for value in NO_TEXT),
]
TABLES = {Kind.ID: WHOLE + FROM_ONE, Kind.COUNT: WHOLE + FROM_ONE, Kind.REFERENCE: WHOLE + ANY_WHOLE, Kind.TEXT: TEXT, Kind.EMAIL: EMAIL,
          Kind.PRICE: PRICE}


def judged(kind: object, values: list) -> list:
    """Return what a column of these values becomes: the value to store or the code it is refused with, of each."""
    stored, problems = check_column(Field("x", kind), values)
    assert len(stored) == len(values)
    for position, problem in problems.items():
        assert (problem.field, stored[position]) == ("x", None)
        assert problem.value is values[position]
    return [Refused(problems[position].code) if position in problems else value for position, value in enumerate(stored)]


def same(found: object, expected: object) -> bool:
    """Return whether an outcome is the expected one, its type included."""
    return found == expected and type(found) is type(expected)


def shown(value: object) -> str:
    """Return a short name for a value of the tables."""
    text = ascii(value) if not isinstance(value, int) else f"{value:.3e}" if value > 10**30 and value < 10**300 else "int"
    return text if len(text) < 40 else f"{text[:30]}({len(text)})"


# ------------------------------------------------------------------------------------------------ One value, a column


@pytest.mark.parametrize("kind", TABLES, ids=lambda kind: kind.name)
def test_every_value_is_judged_as_the_table_says(kind: object) -> None:
    wrong = [(shown(value), found, expected) for value, expected in TABLES[kind]
             if not same(found := judged(kind, [value])[0], expected)]
    assert wrong == []


@pytest.mark.parametrize("kind", TABLES, ids=lambda kind: kind.name)
@pytest.mark.parametrize("share", [0, 0.01, 0.3, 1], ids="odd {}".format)
def test_a_column_is_judged_as_its_values_one_by_one(kind: object, share: float) -> None:
    chance = random.Random(f"{kind} {share}")
    good, odd = ([pair for pair in TABLES[kind] if isinstance(pair[1], Refused) is refused] for refused in (False, True))
    plain = [pair for pair in good if type(pair[0]) is str and pair[0].isascii() and len(pair[0]) < 18] or good
    for size in [1, 2, 3, 10, 100] * 15:
        pairs = [chance.choice(odd if chance.random() < share else chance.choice([good, plain])) for _ in range(size)]
        found = judged(kind, [value for value, _ in pairs])
        assert [(shown(value), a, b) for (value, b), a in zip(pairs, found) if not same(a, b)] == []
        for value, expected in pairs:                   # one of them alone among plain ones
            among = [chance.choice(plain) for _ in range(3)]
            among.insert(chance.randrange(4), (value, expected))
            assert all(map(same, judged(kind, [value for value, _ in among]), [expected for _, expected in among])), shown(value)


@pytest.mark.parametrize("kind", [Kind.TEXT, Kind.EMAIL], ids=lambda kind: kind.name)
@pytest.mark.parametrize("form", ["{}", "a{}b", "{}a@b.c", "a@b{}.c", "a@b.c{}"])
def test_every_character_is_judged_alike_alone_and_in_a_column(kind: object, form: str) -> None:
    codes = [code for first, last in ((0, 0x700), (0x1150, 0x1170), (0x1670, 0x1690), (0x17b0, 0x1820), (0x1fff, 0x2120), (0x2460, 0x2470),
             (0x27ff, 0x2802),
                                      (0x2fff, 0x3200), (0xd7fe, 0xd802), (0xdbfe, 0xdc82), (0xdffe, 0xe002), (0xfb00, 0xfb10), (0xfdf0, 0x10002),
                                      (0x1bca0, 0x1bca5),
                                      (0x1d170, 0x1d17c), (0x1f640, 0x1f644), (0xe0000, 0xe0130), (0x10fffe, 0x110000)) for code in range(first, last)]
    texts = [form.format(chr(code)) for code in codes]
    alone = [judged(kind, [text])[0] for text in texts]
    assert [hex(code) for code, one, many in zip(codes, alone, judged(kind, texts)) if one != many] == []
    in_pairs = [judged(kind, ["a@b.c", text])[1] for text in texts]
    assert [hex(code) for code, one, two in zip(codes, alone, in_pairs) if one != two] == []
    if form == "a{}b" and kind is Kind.TEXT:
        refused = [code for code, found in zip(codes, alone) if found == "bad_text"]
        assert refused == [code for code in codes if unicodedata.category(chr(code)) in ("Cc", "Cs")]


def test_the_values_handed_in_are_left_alone() -> None:
    for kind, table in TABLES.items():
        values = [value for value, _ in table]
        before = list(values)
        check_column(Field("x", kind), values)
        check_column(Field("x", kind), tuple(values))
        assert all(map(lambda a, b: a is b, values, before))


@pytest.mark.parametrize("kind", TABLES, ids=lambda kind: kind.name)
def test_a_column_may_be_empty(kind: object) -> None:
    assert check_column(Field("x", kind), []) == ([], {})


# ------------------------------------------------------------------------------------------------------- Numbers


@pytest.mark.parametrize("kind", [Kind.ID, Kind.COUNT, Kind.REFERENCE, Kind.PRICE], ids=lambda kind: kind.name)
def test_a_number_is_judged_by_its_text(kind: object) -> None:
    for text in ["5", "0", "-5", "1.0", "1e3", "1E-400", "1e999", "9" * 19, str(2**63), "9" * 5000, "0.1", "-0.0"]:
        cell, number, string = text, json.loads(text, parse_int=Numeral, parse_float=Numeral), json.loads(f'"{text}"')
        outcomes = [judged(kind, [value])[0] for value in (cell, number, string)]
        assert outcomes[0] == outcomes[1] == outcomes[2], text
        assert judged(kind, [cell, number, string, "5"])[:3] == outcomes, text


@pytest.mark.parametrize("value", [5, "5", Numeral("5")], ids=repr)
def test_5_is_5_in_every_form(value: object) -> None:
    assert [judged(kind, [value]) for kind in (Kind.ID, Kind.COUNT, Kind.REFERENCE, Kind.PRICE)] == [[5], [5], [5], [5.0]]
    assert validate_order(dict.fromkeys(GOOD[validate_order], value)) == []


def test_a_json_number_is_no_text_and_a_json_string_of_digits_is() -> None:
    record = {"id": Numeral("1"), "price": Numeral("5")}
    assert codes(validate_product({**record, "name": Numeral("5")})) == [("name", "not_text")]
    assert validate_product({**record, "name": "5"}) == []


# -------------------------------------------------------------------------------------------------------- Records


def codes(problems: list) -> list[tuple[str | None, str]]:
    """Return the fields and the codes of problems."""
    return [(problem.field, problem.code) for problem in problems]


@pytest.mark.parametrize(("validate", "name"), FIELDS, ids=lambda part: getattr(part, "__name__", part))
def test_a_record_with_one_odd_value_has_one_problem(validate: object, name: str) -> None:
    for value, expected in TABLES[KINDS[name]]:
        found = codes(validate({**GOOD[validate], name: value}))
        assert found == ([(name, expected)] if isinstance(expected, Refused) else []), shown(value)


@pytest.mark.parametrize(("validate", "record", "expected"), [
    (validate_user, {}, ["id missing", "name missing", "email missing"]),
    (validate_user, {"email": "x", "name": "\0", "id": "0"}, ["id not_positive", "name bad_text", "email not_email"]),
    (validate_user, {"id": "1.0", "name": " ", "email": None}, ["id not_integer", "name blank", "email missing"]),
    (validate_user, {"ID": 1, "Name": "x", "e-mail": "x"}, ["id missing", "name missing", "email missing"]),
    (validate_product, {"id": 2**63, "name": 5, "price": "nan"}, ["id out_of_range", "name not_text", "price not_number"]),
    (validate_product, {"id": True, "name": "\u3164", "price": "1e-400"}, ["id not_integer", "name blank", "price out_of_range"]),
    (validate_product, {"id": "", "name": "Mouse", "price": -50.0}, ["id blank", "price not_positive"]),
    (validate_order, {}, ["id missing", "user_id missing", "product_id missing", "quantity missing"]),
    (validate_order, {"id": "x", "user_id": "", "product_id": None, "quantity": "-1"},
     ["id not_integer", "user_id blank", "product_id missing", "quantity not_positive"]),
    (validate_order, {"id": 1, "user_id": 1.0, "product_id": [1], "quantity": 0},
     ["user_id not_integer", "product_id not_integer", "quantity not_positive"]),
])
def test_all_problems_of_a_record_are_told_at_once_in_the_order_of_its_fields(validate: object, record: dict, expected: list[str]) -> None:
    before = copy.deepcopy(record)
    assert [f"{problem.field} {problem.code}" for problem in validate(record)] == expected
    assert record == before


@pytest.mark.parametrize("validate", GOOD)
def test_a_good_record_has_no_problem_whatever_else_it_has(validate: object) -> None:
    assert validate(GOOD[validate]) == []
    assert validate({**GOOD[validate], "extra": object(), "": None, 5: "\0"}) == []


@pytest.mark.parametrize("record", [None, [], ["1", "Ann", "a@b.c"], "1,Ann,a@b.c", 5, object()], ids=repr)
@pytest.mark.parametrize("validate", GOOD)
def test_what_is_no_record_is_malformed(validate: object, record: object) -> None:
    assert codes(validate(record)) == [(None, "malformed")]


def test_a_load_meets_every_problem_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    texts = {
        "users": '{"id":1,"name":"Ann","email":"ann@b.c"}\n{"id":1,"name":"Lee","email":"lee@b.c"}\n{"id":2,"name":"Bob","email":"ANN@b.c"}\n'
                 '{"id":3,"email":" "}\n{"id":"x","name":5,"email":"x"}\n{"id":0,"name":"\\u0000","email":"a@b.c"}\n{"id":\n',
        "products": '{"id":9223372036854775808,"name":"A","price":"nan"}\n',
        "orders": '{"id":1,"user_id":2,"product_id":1,"quantity":1}\n',
    }
    for table, text in texts.items():
        (tmp_path / f"{table}.jsonl").write_text(text, encoding="utf-8")
    assert program.main(["--json", *(word for table in texts for word in (f"--{table}", f"{table}.jsonl"))]) == 1
    *lines, _ = map(json.loads, capsys.readouterr().out.splitlines())
    problems = [problem for line in lines for problem in line["problems"]]
    assert {problem["code"] for problem in problems} == set(program.PROBLEMS)
    assert all(problem["message"].isprintable() and "{" not in problem["message"] for problem in problems)
    assert all(problem["message"].startswith(f"{problem['field']} ") for problem in problems if problem["field"])


@pytest.mark.parametrize(("validate", "record", "message"), [
    (validate_user, {"email": "ann at home"}, 'email "ann at home" is not an e-mail address'),
    (validate_user, {"name": "A\x1b[31mB\x07"}, 'name "A\\x1b[31mB\\x07" holds a control character or half of a surrogate pair'),
    (validate_user, {"name": None}, "name is missing"), (validate_user, {"name": "\u200b"}, "name is blank"),
    (validate_product, {"price": "-50.00"}, "price -50.00 is not greater than 0"),
    (validate_product, {"name": True}, "name is True, not a text"),
    (validate_order, {"quantity": "1.0"}, "quantity 1.0 is not a whole number in the digits 0-9"),
    (validate_order, {"user_id": "\u202e5"}, 'user_id "\\u202e5" is not a whole number in the digits 0-9'),
])
def test_a_message_names_the_field_and_the_value_it_found(validate: object, record: dict, message: str) -> None:
    assert [problem.message for problem in validate({**GOOD[validate], **record})] == [message]


# ---------------------------------------------------------------------------------------------------- Linear time


@pytest.mark.parametrize("kind", TABLES, ids=lambda kind: kind.name)
@pytest.mark.parametrize("unit", ["a", "a.", ".", "@", "a@", "a@b.", "a-", "-", "1", "1e", "0", "\u200b", " ", "a ", "\n", "é", "é.", "\ud800", "<",
    "a@b.c,"])
def test_a_huge_value_is_judged_like_a_small_one(kind: object, unit: str) -> None:
    # A quadratic rule would take minutes on some of these, and an exponential one all day.
    for text in (unit * (200_000 // len(unit)), "a@" + unit * (200_000 // len(unit)), unit * (200_000 // len(unit)) + "@b.c"):
        assert judged(kind, ["x", text, "5"])[1] == judged(kind, [text])[0]


# ------------------------------------------------------------------------------------------------------ Unique key


@pytest.mark.parametrize("texts", [
    ("straße", "STRASSE", "Strasse", "ＳＴＲＡSSE"), ("Kelvin", "\u212aelvin", "KELVIN", "ｋｅｌｖｉｎ"), ("Laptop", "LAPTOP", "ｌａｐｔｏｐ"),
    ("Gaming Chair", "gaming  chair", "GAMING\u00a0CHAIR", "Gaming\u3000 \u2003Chair"), ("Zoë", "Zoe\u0308", "ZOË"), ("ﬁne", "FINE", "fine"),
    ("Σίσυφος", "ΣΊΣΥΦΟΣ", "σίσυφοσ"), ("Ⅷ", "VIII", "viii"), ("a²", "A2"), ("ǆ", "Ǆ", "DŽ", "dz\u030c"), ("½", "1\u20442"), ("カ", "ｶ"),
    ("Å", "\u212b", "A\u030a"),
    ("ann@example.com", "ANN@Example.COM", "ann@ｅｘａｍｐｌｅ.com"), ("x", "X"),
    ("Zoë " * 500 + "x", "Zoe\u0308 " * 500 + "X"), ("Zo" + "e\u0308" * 500 + "\u0301" * 500, "zo" + "ë" * 500 + "\u0301" * 500),
], ids=lambda texts: ascii(texts[0])[:20])
def test_texts_that_differ_in_case_form_or_spaces_are_one(texts: tuple[str, ...]) -> None:
    assert {program.unique_key(text) for text in texts} == {program.unique_key(texts[0])}
    assert len(set(program.unique_keys(list(texts)))) == 1
    assert [program.unique_keys([text, "x"])[0] for text in texts] == program.unique_keys(texts)


def test_texts_that_read_differently_stay_different() -> None:
    texts = ["a", "b", "ab", "a b", "a-b", "ä", "á", "á b", "ı", "i", "o", "ø", "0", "l", "1", "а", "α", "a\u200bb", "a\u00adb", "A.B", "strase", "カ",
             "ガ", "5", "05"]
    assert len({program.unique_key(text) for text in texts}) == len(texts)


def test_the_unique_key_is_the_folded_normal_form_with_single_spaces() -> None:
    texts = [text for text, stored in TEXT + EMAIL if isinstance(stored, str) and not isinstance(stored, Refused)]
    texts = [text.strip() for text in texts] + [f"A{chr(code)}B" for code in range(0xa1, 0x3400)]
    expected = [" ".join(unicodedata.normalize("NFKC", text).casefold().split()) for text in texts]
    chance = random.Random(1)
    for size in [1, 2, 3, 20] * 100 + [len(texts)]:
        picks = chance.sample(range(len(texts)), size)
        found = program.unique_keys([texts[pick] for pick in picks])
        assert [ascii(texts[pick])[:40] for pick, key in zip(picks, found) if key != expected[pick]] == []
    assert [ascii(text)[:40] for text, key in zip(texts, expected) if program.unique_key(text) != key] == []


@pytest.mark.parametrize("texts", [["A", None, "b"], [None], ["straße", None]], ids=ascii)
def test_a_text_that_was_refused_has_no_key(texts: list) -> None:
    assert program.unique_keys(texts) == [program.unique_key(text) if text else "" for text in texts]


# ------------------------------------------------------------------------------------------------------- Printable


@pytest.mark.parametrize(("value", "text"), [
    ("Ann", '"Ann"'), ("", '""'), ("a b", '"a b"'), ("Zoë 李 🙂", '"Zoë 李 🙂"'), ("5", "5"), ("-50.00", "-50.00"), ("1e3", "1e3"), (" 5", '" 5"'),
    ("12\n", '"12\\n"'),
    ("\x1b[31m", '"\\x1b[31m"'), ("a\0b", '"a\\x00b"'), ("a\rb\tc", '"a\\rb\\tc"'), ("\x85\x9b", '"\\x85\\x9b"'), ("a\u202eb", '"a\\u202eb"'),
    ("\u2066\u200f", '"\\u2066\\u200f"'),
    ("\u2028", '"\\u2028"'), ("\ufeff", '"\\ufeff"'), ("\ud800", '"\\ud800"'), ("\udcff", '"\\udcff"'), ("\ue000", '"\\ue000"'),
    ("\U000e0001", '"\\U000e0001"'),
    (None, "None"), (True, "True"), (5, "5"), (-5, "-5"), (1.5, "1.5"), ([1, "a"], "[1, 'a']"), (b"\x1b", "b'\\x1b'"), (["\x1b"], "['\\x1b']"),
    (Numeral("5"), "5"),
], ids=ascii)
def test_what_is_printed_is_escaped(value: object, text: str) -> None:
    assert program.printable(value) == text
    assert program.printable(value).isprintable()


@pytest.mark.parametrize("value", ["x" * 61, "x" * 10**6, "9" * 5000, 10**5000, -10**5000, "\x1b" * 10**5, ["x" * 10**5], "é" * 100, 2**500], ids=shown)
def test_what_is_printed_is_cut(value: object) -> None:
    for limit in (10, 60, 200):
        shown_text = program.printable(value, limit)
        assert shown_text.isprintable() and len(shown_text) <= 12 * limit
        assert len(program.printable(value, limit, quote=False)) <= 12 * limit
    if isinstance(value, str) and value.isprintable():
        cut = program.printable(value, 60, quote=False)
        assert cut.startswith(value[:60]) and not cut.startswith(value[:61])


def test_what_just_fits_is_not_cut() -> None:
    assert program.printable("x" * 60) == f'"{"x" * 60}"'
    assert program.printable("x" * 61) != f'"{"x" * 61}"'
    assert program.printable("a\nb", quote=False) == "a\\nb"
