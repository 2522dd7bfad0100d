#!/usr/bin/env python3
# /// script
# requires-python = ">=3.10"
# dependencies = []
# ///
"""Insert records of several kinds into several databases at once and tell what became of every record.

    $ python distributed_inserts.py
    $ python distributed_inserts.py --users users.csv --products products.csv --orders orders.csv --db shop

    with open_databases("shop") as shop:
        shop.insert("users", {"id": 1, "name": "Ada", "email": "ada@example.com"}).verdict      # 'inserted'

Every check is made here and none by the databases.  The words used below:

record    one user, product or order: a row of a file, an element of a JSON array, a mapping of a program
schema    the declaration of one kind of record, of its table and of its database
field     one named value of a record; its kind fixes the rule that it obeys; its place counts from 0
problem   one reason to reject a record: a field, a stable code and a message
verdict   what became of a record: inserted, replaced, unchanged, rejected or failed
block     consecutive records as they were read from an input
batch     the part of a block that one thread carries: one record, or thousands; position counts in it
ticket    a batch's turn in the queue of its database's worker, taken before its thread starts
worker    the only thread that writes to a database, through its only connection
level     models that refer to none but models of the levels above; it is read when those have been

Threads: the main thread reads the inputs, hands every batch its ticket, starts a thread for it and prints.
A batch's thread validates the records, waits until the models they refer to are complete, looks references up
and waits for the verdicts.  A worker takes the tickets in order, decides and stores inside one transaction,
commits and answers.
"""
from __future__ import annotations

import _thread
import argparse
import codecs
import contextlib
import csv
import errno
import functools
import gc
import io
import itertools
import json
import numbers
import operator
import os
import queue
import re
import shlex
import signal
import sqlite3
import stat
import sys
import threading
import time
import unicodedata
import zlib
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

if sys.version_info < (3, 10):
    raise SystemExit("distributed_inserts needs Python 3.10 or later; this is " + sys.version.split()[0])

__version__ = "2.0.0"

# ---------------------------------------------------------------------------------------------------- Schemas
# What is stored.  The only place that names a model or a field: all the rest follows from these declarations.


class Kind:
    """What a field holds, as --help says it; RULES says how it is checked, the storages how it is stored."""

    ID = "whole number from 1 to 2^63-1, unique"
    COUNT = "whole number from 1"
    REFERENCE = "whole number, an id stored in {}"
    TEXT = "text, not blank"
    EMAIL = "e-mail address"
    PRICE = "number above 0, at most 15 significant digits"


class Field(NamedTuple):
    """A field of a schema: `unique` texts are compared by `unique_key`; `references` names another table."""

    name: str
    kind: str
    unique: bool = False
    references: str | None = None


class Schema:
    """One kind of record: its table (the model's name), what a record is called, its fields, the id first."""

    def __init__(self, table: str, record: str, fields: Sequence[Field]) -> None:
        self.table, self.record, self.fields = table, record, fields
        self.names = tuple([each.name for each in fields])
        # The unique texts' names and the tables that references refer to, by the place of the field.
        self.unique = {place: each.name for place, each in enumerate(fields) if each.unique}
        self.references = {place: each.references for place, each in enumerate(fields) if each.references}


# A schema stands after those that it refers to: parents are stored before their children.
SCHEMAS: tuple[Schema, ...] = (
    Schema("users", "user", (
        Field("id", Kind.ID),
        Field("name", Kind.TEXT),
        Field("email", Kind.EMAIL, unique=True),
    )),
    Schema("products", "product", (
        Field("id", Kind.ID),
        Field("name", Kind.TEXT, unique=True),
        Field("price", Kind.PRICE),
    )),
    Schema("orders", "order", (
        Field("id", Kind.ID),
        Field("user_id", Kind.REFERENCE, references="users"),
        Field("product_id", Kind.REFERENCE, references="products"),
        Field("quantity", Kind.COUNT),
    )),
)


def find_levels(schemas: Sequence[Schema]) -> list[list[Schema]]:
    """Return the schemas level by level: those of a level refer only to levels above."""
    depth: dict[str, int] = {}
    for schema in schemas:
        depth[schema.table] = max((depth[table] + 1 for table in schema.references.values()), default=0)
    return [[each for each in schemas if depth[each.table] == level] for level in sorted(set(depth.values()))]


# ------------------------------------------------------------------------------------- Verdicts and problems
# What is said of a record.  Plain data: any thread may make and read it.

INSERTED, REPLACED, UNCHANGED, REJECTED, FAILED = VERDICTS = (
    "inserted", "replaced", "unchanged", "rejected", "failed")

# Every problem code with the wording of its message: the field stands before it, `value` is the value found.
PROBLEMS: dict[str, str] = {
    "malformed": "{detail}",                                    # it could not be read as a record
    "missing": "is missing",                                    # no such key, a JSON null or MySQL's \N
    "blank": "is blank",                                        # nothing, or only what shows nothing
    "not_text": "is {value}, not a text",                       # a JSON number, true, an array …
    "bad_text": "{value} holds {detail}",                       # a control character, bytes that are no text
    "not_integer": "{value} is not a whole number{detail}",
    "not_number": "{value} is not a number{detail}",
    "not_positive": "{value} is not greater than 0",
    "out_of_range": "{value} {detail}",                         # cannot be stored exactly
    "not_email": "{value} is not an e-mail address",
    "not_unique": "{value} is already taken by {detail}",       # the record that holds the value
    "conflict": "{value} is already stored with another {detail}; --replace is for changes",
    "no_such_reference": "{value} is not in {detail}",          # and where its parent was rejected
}
NUMBER = re.compile(r"-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


class Problem(NamedTuple):
    """One reason to reject a record; two are equal if field and code are equal."""

    field: str | None                       # None: the whole record
    code: str
    value: object = None
    detail: str = ""
    waits: bool = False                     # nothing but a rejected parent is in the way

    @property
    def message(self) -> str:
        """One line for a person, behind the field's name; every value in it is escaped and cut."""
        text = PROBLEMS[self.code].format(value=format_value(self.value), detail=self.detail)
        return f"{self.field} {text}" if self.field else text

    def __str__(self) -> str:
        return self.message

    def __eq__(self, other: object) -> bool:
        return isinstance(other, tuple) and self[:2] == other[:2]

    def __hash__(self) -> int:
        return hash(self[:2])


class Outcome(NamedTuple):
    """What became of one record: a verdict, all problems of a rejected one, the reason of a failed one."""

    verdict: str
    problems: list[Problem]
    reason: str | None = None


def escape(text: str, limit: int = 4096) -> str:
    """Return a text for a terminal: what could move or hide something is escaped, what is too long cut."""
    shown = text[:limit] + ("..." if len(text) > limit else "")
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() else
                   f"\\x{ord(c) - 0xdc00:02x}" if "\udc80" <= c <= "\udcff" else       # see `_keep_bytes`
                   c.encode("unicode_escape").decode() for c in shown)


SECRET = re.compile(r"(?<=[?&])\w*(?:password|secret|scram)\w*=[^&\s]*&?|(?<=://)([^@/:\s]*):[^@/]*(?=@)")


def hide_secrets(text: str) -> str:
    """Return a text without the passwords of the URLs in it."""
    return SECRET.sub(lambda secret: secret[1] or "", text)


def describe(error: BaseException) -> str:
    """Return an error of the system in one line without the name of the file."""
    return escape(getattr(error, "strerror", None) or str(error) or type(error).__name__, 200)


def format_value(value: object, limit: int = 60) -> str:
    """Return a value as inputs have it: texts in quotes unless they are numbers, JSON in its notation."""
    if isinstance(value, str):
        is_number = isinstance(value, Numeral) or NUMBER.fullmatch(value[:limit])
        return escape(value, limit) if is_number else f'"{escape(value, limit)}"'
    if isinstance(value, bytes):
        return escape(f"x'{value.hex()}'", limit)
    try:
        return escape(json.dumps(value, ensure_ascii=False, default=str), limit)
    except Exception:                       # odd keys, 5,000 digits, nested too deeply, a broken __str__
        return f"a {type(value).__name__}"


def find_near(word: str, words: Sequence[str], likeness: float = 0.6) -> list[str]:
    """Return the one of the words that is most like this one, or none."""
    import difflib                          # only here: it takes a millisecond of the start
    return difflib.get_close_matches(word, words, 1, likeness)


# ------------------------------------------------------------------------------------------------- Validation
# Pure functions, run by the batches' threads.  A rule serves a whole column, and so one value as a column of
# one: its `judge` decides one value and knows the whole rule; its `convert` turns a column into the values
# to store with a few C calls and points at the odd ones, which are judged.

WHOLE_MAX = 2**63 - 1               # the largest integer of SQLite and of PostgreSQL's bigint
TOO_LARGE = f"is beyond {WHOLE_MAX}, the largest whole number that can be stored"
EMAIL_MAX = 254                     # RFC 5321, 4.5.3.1.3, without the angle brackets
LOCAL_MAX = 64                      # before the @: RFC 5321, 4.5.3.1.1
DIGITS_MAX = 15                     # decimal digits that a double keeps, whatever they are (IEEE 754)
KEY_PIECE = 1000                    # characters normalized at once: sorting marks takes quadratic time
NULL = r"\N"                        # how MySQL and PostgreSQL write a missing value into a text file
WHOLE = re.compile(r"-?[0-9]+(?:\.0*)?")
UNSTORABLE = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff]")
# White space, U+2800 and the code points that Unicode lists as Default_Ignorable_Code_Point.
SHOWS_NOTHING = re.compile(
    "[\\s\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]*")
# The HTML standard's pattern ("valid e-mail address") without stray dots and with RFC 6531's characters: what
# is not ASCII passes, see `_judge_email`.  Classes that name what they exclude compile 50 times faster.
_ATOM = r"""[^\x00-\x20"(),.:;<>@[\\\]\x7f]+"""
_LABEL = r"(?!-)[^\x00-,./:-@[-`{-\x7f]{1,63}(?<!-)"
EMAIL = re.compile(rf"{_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.(?![0-9]+\Z){_LABEL})+")


class Numeral(str):
    """The text of a JSON number that is no integer: a number by its text, but not a text."""


def _judge_number(field: str, value: object, pattern: re.Pattern[str], code: str,
                  is_signed: bool = False) -> str | Problem:
    """Return the text by which a number is judged, or why it is none."""
    text = value.strip() if isinstance(value, str) else ""
    if isinstance(value, numbers.Number) and not isinstance(value, bool):
        try:                                    # str() of 5,000 digits raises; a Decimal is no Real
            text = str(min(max(int(value), -10**400), 10**400) if isinstance(value, numbers.Integral) else
                       float(value) if isinstance(value, numbers.Real) else value)
        except OverflowError:
            text = "1e999"
    if pattern.fullmatch(text):
        is_positive = not text.startswith("-") and text.lower().partition("e")[0].strip("0.")
        return text if is_positive or is_signed else Problem(field, "not_positive", value)
    if value is None or text == NULL:
        return Problem(field, "missing", value)
    if isinstance(value, str) and not text:
        return Problem(field, "blank", value)
    number = pattern.match(text)
    rest = text[number.end() if number else 0:]
    in_the_way = re.search(r"[^\s0-9.]", rest) or re.search(r"[\s.]", rest)
    return Problem(field, code, value, f": it holds {format_value(in_the_way.group())}" if in_the_way else "")


def _judge_whole(field: str, value: object, is_signed: bool = False) -> int | Problem:
    text = _judge_number(field, value, WHOLE, "not_integer", is_signed)
    if isinstance(text, Problem):
        return text
    number = int(text.partition(".")[0].lstrip("-0")[:20] or 0)     # more digits would not change the answer
    if number <= WHOLE_MAX:
        return -number if text.startswith("-") else number
    return Problem(field, "out_of_range", value, TOO_LARGE)


def _judge_price(field: str, value: object) -> float | Problem:
    text = _judge_number(field, value, NUMBER, "not_number")
    if isinstance(text, Problem):
        return text
    digits = text.lower().partition("e")[0].replace(".", "").strip("0")
    is_float = isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral)
    if len(digits) > DIGITS_MAX and not is_float:       # which is what a double keeps
        detail = f"has more than the {DIGITS_MAX} significant digits that are kept"
    elif 0 < (number := float(text)) < float("inf"):
        return number
    else:
        detail = "is too large or too close to 0 to be stored"
    return Problem(field, "out_of_range", value, detail)


def _judge_text(field: str, value: object) -> str | Problem:
    if value is None or isinstance(value, str) and value.strip() == NULL:
        return Problem(field, "missing", value)
    if not isinstance(value, str) or isinstance(value, Numeral):
        return Problem(field, "not_text", value)
    text = value.strip()
    if found := UNSTORABLE.search(text):
        return Problem(field, "bad_text", value, _name_character(found.group()))
    return text if not SHOWS_NOTHING.fullmatch(text) else Problem(field, "blank", value)


def _name_character(character: str) -> str:
    if character >= "\ud800":                   # "\udc00" and above: see `_keep_bytes`
        return "half of a surrogate pair" if not "\udc00" <= character <= "\udcff" else (
            f"the byte 0x{ord(character) & 0xff:02X}, which is not text in the file's encoding")
    names = {"\n": "a line break", "\r": "a line break", "\t": "a tab"}
    return names.get(character, f"the control character U+{ord(character):04X}")


def _judge_email(field: str, value: object) -> str | Problem:
    text = _judge_text(field, value)
    if isinstance(text, Problem):
        return text
    # Letters, their marks and digits of any script, but no symbols.
    is_plain = text.isascii() or all(c <= "\x7f" or unicodedata.category(c)[0] in "LMN" for c in text)
    is_short = len(text) <= EMAIL_MAX and text.find("@") <= LOCAL_MAX
    return text if is_short and is_plain and EMAIL.fullmatch(text) else Problem(field, "not_email", value)


def _convert_number(values: Sequence[object], kinds: set[type], number: Callable[[str], float], plain: bytes,
                    longest: int) -> tuple[list, Collection[int]]:
    """Convert numbers; a text of other than `plain` bytes is odd: known in 20 ns, by a match in 120."""
    if kinds == {int} and 0 < min(values) and max(values) < 10**DIGITS_MAX:
        return list(map(number, values)), ()
    texts = list(values) if kinds == {str} else [
        value if isinstance(value, str) else str(value) if type(value) is int else "" for value in values]
    joined = "\n".join(texts).encode(errors="replace")
    rest = joined.translate(None, plain)
    if rest.count(b"\n") >= len(texts):         # a value holds a line break
        return texts, range(len(texts))
    odd = set(itertools.compress(itertools.count(), rest.split(b"\n"))) if rest.strip(b"\n") else set()
    if number is float or b"\n\n" in b"\n%b\n" % joined:      # a whole number is judged by its value
        odd.update(position for position, text in enumerate(texts) if not 0 < len(text) <= longest)
    for position in odd:
        texts[position] = "1"
    try:
        converted = list(map(number, texts))
    except ValueError:
        return texts, range(len(texts))
    if not all(converted) or max(converted) > WHOLE_MAX:
        odd.update(position for position, found in enumerate(converted) if not 0 < found <= WHOLE_MAX)
    return converted, odd


def _convert_text(values: Sequence[object], kinds: set[type]) -> tuple[list, Iterable[int]]:
    texts = list(map(str.strip, values if kinds == {str} else [
        value if type(value) is str else "" for value in values]))
    odd, joined = {"", NULL}, "".join(texts)
    if not joined.isprintable() or not joined.isascii():        # isprintable() passes some that show nothing
        odd.update(text for text in texts if not text.isprintable()
                   or not text.isascii() and SHOWS_NOTHING.fullmatch(text))
    return texts, positions_of(odd, texts)


def _convert_email(values: Sequence[object], kinds: set[type]) -> tuple[list, Iterable[int]]:
    texts = list(values) if kinds == {str} else [value if type(value) is str else "" for value in values]
    odd = set(itertools.filterfalse(EMAIL.fullmatch, texts))
    if max(map(len, texts)) > LOCAL_MAX or not "".join(texts).isascii():
        odd.update(text for text in texts if len(text) > LOCAL_MAX or not text.isascii())
    return texts, positions_of(odd, texts)


def positions_of(wanted: Collection[object], values: Iterable[object]) -> Iterator[int]:
    """Return the positions of the values that are among the wanted."""
    return itertools.compress(itertools.count(), map(wanted.__contains__, values)) if wanted else iter(())


_convert_whole = functools.partial(_convert_number, number=int, plain=b"0123456789", longest=18)
_convert_price = functools.partial(_convert_number, number=float, plain=b"0123456789.", longest=DIGITS_MAX)
RULES: dict[str, tuple[Callable, Callable]] = {
    Kind.ID: (_judge_whole, _convert_whole),
    Kind.COUNT: (_judge_whole, _convert_whole),
    Kind.REFERENCE: (functools.partial(_judge_whole, is_signed=True), _convert_whole),
    Kind.TEXT: (_judge_text, _convert_text),
    Kind.EMAIL: (_judge_email, _convert_email),
    Kind.PRICE: (_judge_price, _convert_price),
}
RECUR_OF, RECUR_MAX = 100, 25       # of so many values of a column so many differ: they recur


def check_columns(schema: Schema, columns: Sequence[Sequence[object]], are_texts: bool = False,
                  ) -> tuple[list[list], dict[int, list[Problem]]]:
    """Return the columns to store, with None for what is not, and all problems of records alone, by position.

    With `are_texts` every value is a str.
    """
    stored: list[list] = []
    problems: dict[int, list[Problem]] = {}
    for field, values in zip(schema.fields, columns):
        (rule, convert), kinds = RULES[field.kind], {str} if are_texts else set(map(type, values))
        judge = functools.partial(rule, field.name)
        judge = functools.cache(judge) if kinds == {str} and len(values) > 1 else judge     # bad texts recur
        converted, odd = [*values], (0,)    # to judge a single one takes half the time
        if kinds == {str} and len(values) > RECUR_OF and len(set(values[:RECUR_OF])) <= RECUR_MAX:
            known = {text: judge(text) for text in set(values)}     # 35 ns a value instead of 100
            converted = list(map(known.__getitem__, values))
            odd = positions_of({text for text, found in known.items() if isinstance(found, Problem)}, values)
        elif len(values) > 1:
            converted, odd = convert(values, kinds)
        for position in odd:
            found = converted[position] = judge(values[position])
            if isinstance(found, Problem):
                converted[position] = None
                problems.setdefault(position, []).append(found)
        stored.append(converted)
    return stored, problems


def malformed(detail: str, value: object = None) -> Problem:
    """Return the problem of what could not be read as a record."""
    return Problem(None, "malformed", value, detail)


def record_cells(schema: Schema, record: object) -> tuple[list[list], dict[int, Problem]]:
    """Return a record as columns of one value, and what is wrong with it if it is no mapping."""
    try:
        names = set(record.keys())              # a sqlite3.Row is no Mapping, but has keys
        return [[record[name] if name in names else None] for name in schema.names], {}
    except Exception:                           # it may be unhashable
        what = f"{format_value(record)} is not an object with named fields"
        return [[None]] * len(schema.names), {0: malformed(what, record)}


def validate_record(schema: Schema, record: Mapping[str, object]) -> list[Problem]:
    """Return all problems that a record has by itself, in the order of its fields: no look-up, no I/O."""
    cells, unread = record_cells(schema, record)
    return list(unread.values()) or check_columns(schema, cells)[1].get(0, [])


def validate_user(record: Mapping[str, object]) -> list[Problem]:
    """Return all problems of a user by itself; whether its id and e-mail are free, its database knows."""
    return validate_record(SCHEMAS[0], record)


def validate_product(record: Mapping[str, object]) -> list[Problem]:
    """Return all problems of a product by itself; whether its id and name are free, its database knows."""
    return validate_record(SCHEMAS[1], record)


def validate_order(record: Mapping[str, object]) -> list[Problem]:
    """Return all problems of an order by itself; whether its user and product exist, their databases know."""
    return validate_record(SCHEMAS[2], record)


def unique_key(text: str) -> str:
    """Return what unique texts are compared by: the case-folded NFC form (Unicode 3.13, UAX #15)."""
    if text.isascii():
        return text.lower()
    pieces = (text[start:start + KEY_PIECE] for start in range(0, len(text), KEY_PIECE))
    return "".join(unicodedata.normalize("NFC", piece) for piece in pieces).casefold()


# ---------------------------------------------------------------------------------------------- Reading files
# From bytes to blocks of cells, all of it in the main thread.  It knows the names of fields, and nothing of
# rules or databases.  What cannot be read becomes a problem in its place, and the reading goes on below it.

BLOCK_CHARS = 4 << 16               # read at once: some thousand records
RECORD_MAX = 1 << 20                # characters of a record; a longer one is rejected
ROWS_MAX = 1 << 14
FOLLOW_MAX = 1 << 22                # characters in which the end of a record is looked for
BOMS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
READ_ERRORS = (OSError, EOFError, zlib.error)       # the last two: a gzip file that was cut or damaged
FOREIGN = {                         # how files begin that are none of ours, what they are, and the way out
    b"\xd0\xcf\x11\xe0": "an Excel workbook: save it as CSV UTF-8",
    b"PK\x03\x04": "a zip archive (unpack it), or an Excel or OpenDocument workbook (save it as CSV UTF-8)",
    b"SQLite format 3\0": "an SQLite database: sqlite3 -csv -header FILE 'SELECT * FROM …' makes CSV of it",
    **dict.fromkeys((b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf", b"Rar!"),
                    "compressed or an archive: unpack it")}
TOO_LONG = f"a record of more than {RECORD_MAX:,} characters"
EXPECTED = "a comma or the end of the array was expected"
OPEN_QUOTE = "a quote is opened and not closed"
# Blank lines, rows of empty cells, Excel's line with the separator, that of PowerShell's Export-Csv.
ABOVE_HEADER = re.compile(r'(?:[,;|]|"?sep=."?|"?#TYPE.*|\s)*', re.IGNORECASE)
SPACE_AFTER_QUOTE = re.compile(r'" +(?=[,;|\t\r\n]|$)')
LIST = re.compile(r"\[\s*[{\]]")
LISTS_MAX = 20                      # of an object that are looked at
COMMA = re.compile(r"[ \t\n\r]*,[ \t\n\r]*")
LIST_END = re.compile(r"[ \t\n\r]*\][ \t\n\r]*")


def _make_object(pairs: Sequence[tuple[str, object]]) -> dict | Problem:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    (key, _), = Counter(key for key, _ in pairs).most_common(1)
    return malformed(f"the key {format_value(key)} is there more than once")


# A number that is no integer stays text.
JSON = json.JSONDecoder(object_pairs_hook=_make_object, parse_float=Numeral, parse_constant=Numeral)
JSON_FLAT = json.JSONDecoder(parse_float=Numeral, parse_constant=Numeral)
KEY_END = re.compile(r'"[ \t\n\r]*:')


def decode_flat(text: str) -> list[dict]:
    """Return the objects of a JSON array, if none holds another or a key twice, else []: half the time.

    There are as many keys as ends of keys then; a text may look like one, which makes these more.
    """
    with contextlib.suppress(ValueError, RecursionError):
        values = JSON_FLAT.decode(text) if len(text) <= RECORD_MAX else []
        if set(map(type, values)) == {dict} and text.count("{") == len(values):
            count = sum(map(len, values))
            return values if count == text.count(":") or count == len(KEY_END.findall(text)) else []
    return []


def decode_elements(text: str) -> tuple[list[object], list[int], list[int]]:
    """Return the whole JSON values that a text begins with, a comma before each, where they begin and end."""
    comma, last = COMMA.match(text), text.rfind("}") + 1
    if objects := decode_flat(f"[{text[comma.end():last]}]") if comma else []:
        ends = list(itertools.accumulate(len(piece) + 1 for piece in text.split("}")[:-1]))
        if len(ends) == len(objects):       # none in a text
            return objects, [text.index("{", end) for end in [0, *ends[:-1]]], ends
    values, begins, ends, end, size = [], [], [], 0, len(text)
    match, scan = COMMA.match, JSON.scan_once       # a tenth of the time
    with contextlib.suppress(StopIteration, ValueError, RecursionError):
        while comma := match(text, end):
            begin = comma.end()
            value, end = scan(text, begin)
            if end == size and text[-1] not in '}]"':
                break                       # a number may go on in the next text
            values.append(value if end - begin <= RECORD_MAX else malformed(TOO_LONG))
            begins.append(begin)
            ends.append(end)
    return values, begins, ends


def find_error(text: str, begin: int = 0) -> tuple[str, int]:
    """Return what is wrong with the JSON value that begins there, or behind it, and where that is."""
    try:
        return EXPECTED, JSON.raw_decode(text, begin)[1]
    except (ValueError, RecursionError) as error:
        return getattr(error, "msg", "nested too deeply, or a number too long"), getattr(error, "pos", begin)


def decode_line(line: str) -> object:
    """Return the value of a line of JSON, or what is wrong with it as a Problem."""
    if len(line) > RECORD_MAX:
        return malformed(TOO_LONG)
    line = line.strip("\ufeff \t\r\n")       # a mark is where files were joined
    try:
        value, end = JSON.scan_once(line, 0)
    except (StopIteration, ValueError, RecursionError):
        message, column = find_error(line)
        return malformed(f"not JSON: {message}, column {column + 1}")
    if end == len(line):
        return value
    rest = format_value(line[end:].strip(), 20)
    return malformed("not JSON: " + ("a comma at the end" if rest == '","' else f"{rest} follows"))


def _keep_bytes(error: UnicodeError) -> tuple[str | bytes, int]:
    """Decode bytes that are no text as U+DC00 + byte; encode these as they were, half of a unit as "?"."""
    if isinstance(error, UnicodeDecodeError):
        return "".join(chr(0xDC00 + byte) for byte in error.object[error.start:error.end]), error.end
    is_utf_16 = "16" in error.encoding      # which has two bytes a unit, and tells of one character at a time
    kept = re.match("[\udc00-\udcff]+", error.object[error.start:error.start + 2 if is_utf_16 else error.end])
    if not kept:
        raise error
    encoded = bytes(ord(character) & 0xff for character in kept[0])
    return "?" if is_utf_16 and len(encoded) == 1 else encoded, error.start + len(encoded)


codecs.register_error("keep_bytes", _keep_bytes)


class Block(NamedTuple):
    """Consecutive records as they were read: their cells by field, in the schema's order, and their lines.

    `raws` returns the text of every record; `unread` says by position which could not be read: their cells
    are blank.  `first_item` is the number of the first one in a JSON array.
    """

    columns: Sequence[Sequence[object]]
    lines: Sequence[int]
    raws: Callable[[], Sequence[str]] = tuple
    unread: Mapping[int, Problem] = {}
    first_item: int | None = None
    are_texts: bool = False


class Source:
    """An input of one schema's records, opened and its header checked: a file, `-`, or a `text` in memory.

    `cut` says why the reading ended early, `notices` what is odd about the file as a whole.
    Raises OSError or ValueError when opened, if it cannot be read or lacks a column; later it raises nothing.
    """

    unit, abort = "line", None
    delimiter, format, bom, header = ",", "csv", b"", ""
    cut: str | None = None
    total: int | None = None

    def __init__(self, schema: Schema, path: str, encoding: str | None = None,
                 text: str | None = None) -> None:
        self.schema, self.encoding, self.is_file = schema, encoding or "utf-8", text is None
        self.name = "standard input" if path == "-" else path
        self._quoted = escape(shlex.quote(path))
        self.notices: list[str] = []
        self._extra: list[str] | None = None            # names that are no field, once names were looked at
        self._places = {name.casefold(): place for place, name in enumerate(schema.names)}
        self._line, self._column = int(self.is_file), 0         # of a text counted from below its header
        self._bytes = io.BufferedReader(io.BytesIO(text.encode())) if text is not None else open(
            0 if path == "-" else path, "rb", BLOCK_CHARS, closefd=path != "-")
        self.close, self.done = self._bytes.close, self._bytes.tell     # how many of the `total` are read
        if self.is_file and stat.S_ISREG((status := os.fstat(self._bytes.fileno())).st_mode):
            self.total = status.st_size
        try:
            self._text = self._open_text()
            text = self._text.read(BLOCK_CHARS // 2)    # less is lost if it breaks off here
            blocks = filter(operator.attrgetter("lines"), self._read_any(text))
            first = list(itertools.islice(blocks, 1))
            self._blocks = itertools.chain(first, blocks)
            if not first:
                self.notices.append(f"{escape(self.name)} holds no record")
        except (*READ_ERRORS, UnicodeError) as error:
            raise ValueError(f"{escape(self.name)}: cannot be read: {describe(error)}") from error

    def place(self, line: int) -> str:
        """Return what a person needs to find a record: `users.csv:11`."""
        return f"{escape(self.name)}:{line}" if self.is_file else f"{self.name} {self.schema.table}:{line}"

    def blocks(self) -> Iterator[Block]:
        """Yield all records in order, some thousand at a time; when the file breaks off, `cut` tells."""
        try:
            yield from self._blocks
        except READ_ERRORS as error:
            self.cut = f"{escape(self.name)} broke off at line {self._line}: {describe(error)}"
        if self._extra:
            notice = f"{escape(self.name)}: ignored what is no field of {self.schema.table}: "
            self.notices.append(notice + ", ".join(map(format_value, self._extra[:20])))

    def _open_text(self) -> io.TextIOWrapper:
        """Return the file as text, decompressed; raises ValueError for what is none."""
        stream, name = self._bytes, escape(self.name)
        if stream.peek(2)[:2] == b"\x1f\x8b":
            import gzip
            stream = gzip.GzipFile(fileobj=stream)
        head = stream.peek(4096)[:4096]
        for magic, what in FOREIGN.items():
            if head.startswith(magic):
                raise ValueError(f"{name} is not CSV or JSON but {what}")
        for bom, encoding in BOMS.items():
            if head.startswith(bom):
                self.bom, self.encoding = stream.read(len(bom)), encoding
        try:                                # one that can keep bytes, which idna cannot
            b"\xff".decode(self.encoding, "keep_bytes")
            text = io.TextIOWrapper(stream, self.encoding, "keep_bytes", newline="")
        except (LookupError, ValueError):
            raise ValueError(f"--encoding: {format_value(self.encoding)} is no encoding that Python knows:"
                             " try cp1252, latin-1 or utf-16-le") from None
        if b"\0" in head and not re.match("utf.?16", self.encoding, re.IGNORECASE):
            raise ValueError(f"{name} is a binary file, not CSV or JSON; if it is text in UTF-16 without a"
                             " mark, add --encoding utf-16-le")
        return text

    def _read_any(self, text: str) -> Iterator[Block]:
        """Return the reader of what the text begins like; raises ValueError if it cannot hold records."""
        are_lines = re.match(r"\s*.*[^\s,[{]\s*\n\s*\{", text) is not None        # an object a line
        begins = "{" if are_lines else text.lstrip()[:1]
        start = 0 if begins != "{" or are_lines else self._find_list(text)
        if begins == "[" or start:
            self.format, self.header = "json", "["
            return self._read_array(text, start or text.index("[") + 1)
        text = self._next_lines(text)
        if begins != "{":
            return self._read_csv(self._read_header(text))
        if not are_lines and not re.match(r"\s*(?:.*\n)?\s*\{.*\}\s*,?\s*$", text, re.MULTILINE):
            raise ValueError(
                f"{escape(self.name)} begins with {{ but is neither JSON Lines nor an object with one list in"
                f" it: `jq -c . {self._quoted}` makes JSON Lines of objects, `jq .LIST` takes a list out")
        self.format = "jsonl"
        return self._read_json_lines(text)

    def _fields_in(self, value: object) -> set[str]:
        """Return the names of the fields that a JSON value has."""
        keys = value if isinstance(value, dict) else ()
        return self._places.keys() & {key.strip().casefold() for key in keys}

    def _find_list(self, text: str) -> int:
        """Return where the list of objects begins that an object holds, 0 if it is a record or has none."""
        line = decode_line(text.lstrip().partition("\n")[0])
        lists = itertools.islice(LIST.finditer(text), LISTS_MAX)
        fits = [(self._fit_of(text, match.end() - 1), match[0][-1], match) for match in lists]
        for _, _, match in sorted(fits, key=lambda fit: fit[:2], reverse=True):         # empty ones last
            above = decode_line(text[:match.start()] + "0}")
            found = self._fields_in(above) | self._fields_in(line)
            if isinstance(above, dict) and len(found) < 2:
                return match.start() + 1
        return 0

    def _fit_of(self, text: str, begin: int) -> int:
        """Return how many fields the JSON value that begins there has."""
        with contextlib.suppress(ValueError, RecursionError):
            return len(self._fields_in(JSON.raw_decode(text, begin)[0]))
        return 0

    def _next_lines(self, text: str | None = None, size: int = BLOCK_CHARS) -> str:
        """Return the next whole lines, "" at the end; of a line above RECORD_MAX only its beginning."""
        text = self._text.read(size) if text is None else text
        if text and not text.endswith("\n"):
            text += self._text.readline(RECORD_MAX)
            while not text.endswith(("\n", "\r")) and (more := self._text.readline(RECORD_MAX)):
                text += "\n" * more.endswith(("\n", "\r"))
        return text

    def _check_names(self, found: Sequence[str]) -> list[str]:
        """Return the names folded; raises ValueError if a column is not among them, or more than once.

        Of JSON objects any may lack a key: they are refused if they have none, or fit another model.
        """
        names, is_csv = [each.strip().casefold() for each in found], self.format == "csv"
        missing = [name for name in self._places if name not in names]
        wrong = [f"no column {name}" for name in missing]
        wrong += [f"the column {name} twice" for name in self._places if names.count(name) > 1]
        others = [f"the columns of {other.table} (load it with --{other.table})" for other in SCHEMAS
                  if other is not self.schema and {name.casefold() for name in other.names} <= set(names)]
        if not wrong or not is_csv and (not names or len(missing) < len(self._places) and not others):
            return names
        near = [f"; {name} could be {format_value(match)}" for name in missing for match in find_near(
            name, [name for name in names if name not in self._places], 0.54)]          # qty is quantity
        if is_csv and (len(names) == 1 or not near and len(missing) == len(self._places)):
            near = ["; the first line has to name the columns, with , ; | or a tab between them"]
        if self.format == "jsonl" and not near:
            near = [f"; jq .LIST {self._quoted} takes a list out of an object"]
        if {"pk", "fields"} <= set(names):  # what Django's dumpdata writes
            way = "[.[] | {id: .pk} + .fields]" if self.format == "json" else "{id: .pk} + .fields"
            near = [f"; jq -c '{way}' {self._quoted} makes records of it"]
        raise ValueError(f"{escape(self.name)}: {'the header has' if is_csv else 'the objects have'}"
                         f" {' and '.join(others[-1:] or wrong)}; found: "
                         + ", ".join(map(format_value, found[:20])) + "".join(near))

    # CSV

    def _reader(self, lines: Iterable[str]) -> Any:
        csv.field_size_limit(FOLLOW_MAX)    # one for all readers; a record's size is judged here
        return csv.reader(lines, strict=True, skipinitialspace=True, delimiter=self.delimiter)

    @staticmethod
    def _lines(text: str) -> list[str]:
        return list(io.StringIO(text, newline=""))      # cut at \n, \r\n and \r

    def _read_header(self, text: str) -> str:
        """Return the text below the header; raises ValueError if a column is missing."""
        name, lines, found = escape(self.name), self._lines(text), {}
        above = len([*itertools.takewhile(ABOVE_HEADER.fullmatch, lines)])
        if above == len(lines):
            raise ValueError(f"{name} is empty: expected a header with {', '.join(self.schema.names)}")
        for self.delimiter in DELIMITERS:
            reader = self._reader(SPACE_AFTER_QUOTE.sub('"', line) for line in lines[above:])
            with contextlib.suppress(csv.Error):
                cells = [cell.strip() for cell in next(reader)]
                hits = sum(cell.casefold() in self._places for cell in cells)
                found.setdefault(hits, (self.delimiter, cells, above + reader.line_num))
        if not found:
            raise ValueError(f"{name}:1: the header cannot be read: {OPEN_QUOTE}")
        self.delimiter, cells, below = found[max(found)]
        names = self._check_names(cells)
        self.picks, self.width = list(map(names.index, self._places)), len(cells)
        self._extra = [cell for cell, name in zip(cells, names) if cell and name not in self._places]
        if self.delimiter != ",":
            self.notices.append(f"{name}: the columns are separated by {DELIMITERS[self.delimiter]}")
        self.header, self._line = "".join(lines[above:below]), self._line + below
        return "".join(lines[below:]) or self._next_lines()

    def _read_csv(self, text: str) -> Iterator[Block]:
        """Yield the records of the text and of all that follows it."""
        blanks, comma = " \xa0" if self.delimiter == "\t" else " \t\xa0", re.escape(self.delimiter)
        hidden = re.compile(rf'(?m)(?:^|(?<={comma}))[{blanks}]+(?="[^"{comma}\r\n])')
        kept = ""                           # of a record that goes on in the next block
        while text or kept:
            text, at_end = kept + text, not text or len(kept) > FOLLOW_MAX
            if '"' in text and ("\t" in text or "\xa0" in text):
                text = hidden.sub("", text)             # csv skips spaces alone before a quote
            if block := self._split_plain(text):
                kept = ""
                yield block
            else:
                lines, end = self._lines(text), 0
                rows = self._read_rows(lines, at_end)
                while part := list(itertools.islice(rows, ROWS_MAX)):
                    yield self._rows_block(part, lines, len(text) <= RECORD_MAX)
                    end = part[-1][2]
                self._line, kept = self._line + end, "".join(lines[end:])
            text = self._next_lines(size=max(BLOCK_CHARS, len(kept)))

    def _split_plain(self, text: str) -> Block | None:
        """Return the records of a text in which every line is one, as wide as the header, else None.

        Where nothing is quoted, without the csv module: 200 instead of 350 ns a row.  Each line's end becomes
        a cell of its own; where these stand at a fixed stride, every line has as many cells as the header.
        """
        stride, comma, rows = self.width, self.delimiter, []
        if '"' in text:
            lines = self._lines(text)
            with contextlib.suppress(csv.Error):
                rows.extend(self._reader(lines))
            cells, count = list(itertools.chain.from_iterable(rows)), len(lines)
            is_plain = len(rows) == count and set(map(len, rows)) == {stride}
        else:
            ended, stride = text.replace("\r\n", "\n") + "\n" * (not text.endswith("\n")), stride + 1
            marked = ended.replace("\n", f"{comma}\n{comma}")
            cells, count = marked.split(comma)[:-1], (len(marked) - len(ended)) // 2
            is_plain = ("\r" not in ended and len(cells) == count * stride
                        and cells[self.width::stride].count("\n") == count)
        ids = cells[self.picks[0]::stride]      # where one is blank, it is perhaps a row of empty cells
        joined = "".join(ids)
        has_ids = all(ids) and (joined.split() == [joined] or all(map(str.strip, ids)))
        if not (is_plain and has_ids) or len(text) > RECORD_MAX:
            return None
        self._line += count
        return Block([cells[pick::stride] for pick in self.picks], range(self._line - count, self._line),
                     lambda: self._lines(text), are_texts=True)

    def _rows_block(self, rows: Sequence[tuple[list[str] | Problem, int, int]], lines: Sequence[str],
                    is_short: bool) -> Block:
        """Return rows, each with the lines from which to which it stands, as a block."""
        cells, spans, unread, pick = [], [], {}, self.picks[0]
        for row, start, end in rows:
            if type(row) is list and not (is_short and len(row) == self.width and row[pick].strip()):
                row = self._fit(row, lines[start:end])      # most need no closer look
            if type(row) is Problem:
                unread[len(spans)], row = row, [""] * self.width
            if row:
                cells += row
                spans.append((start, end))
        return Block([cells[pick::self.width] for pick in self.picks],
                     [self._line + start for start, _ in spans],
                     lambda: ["".join(lines[start:end]) for start, end in spans], unread, are_texts=True)

    def _fit(self, row: list[str], lines: Sequence[str]) -> list[str] | Problem:
        """Return a row with as many cells as the header has, why it has not, or [] for a blank one."""
        if not any(map(str.strip, row)):
            return []
        if sum(map(len, lines)) > RECORD_MAX:
            return malformed(TOO_LONG)
        if max(self.picks) < len(row) and not any(map(str.strip, row[self.width:])):
            return (row + [""] * self.width)[:self.width]           # what is ignored does no harm
        return malformed(f"{len(row)} cell{'s' * (len(row) != 1)} where the header has {self.width}")

    def _read_rows(self, lines: list[str], at_end: bool) -> Iterator[tuple[list[str] | Problem, int, int]]:
        """Yield each row, or why it is none, with the lines from which to which it stands.

        A quote that was never meant as one would swallow the records below it.  So a record ends where a line
        could be a record by itself, see `_record_lines`; a line whose quote finds no end is rejected alone,
        and those that it was followed over are read each by itself: no line is read more than four times.
        """
        reader, rows = self._reader(lines), []
        with contextlib.suppress(csv.Error):
            rows.extend(reader)
        if reader.line_num == len(rows) == len(lines):  # a record each: five times as fast as one by one
            yield from zip(rows, itertools.count(), itertools.count(1))
            return
        below = alone = 0
        while below < len(lines):
            stop = below + 1 if below < alone else len(lines)
            reader = self._reader(self._record_lines(lines, below, stop, self.width))
            row: list[str] | Problem = []
            try:
                row, end = next(reader), below + reader.line_num
                if end > below + 1 and len(row) < self.width:   # records in it may be as short
                    reader = self._reader(self._record_lines(lines, below, end, len(row)))
                    row, end = next(reader), below + reader.line_num
            except csv.Error as error:
                is_open, reached = "end of data" in str(error), below + reader.line_num
                if is_open and reached == len(lines) and not at_end:
                    return
                row = malformed(OPEN_QUOTE if is_open else "text follows a closing quote" if (
                    "expected after" in str(error)) else f"not a CSV record: {escape(str(error), 120)}")
                alone, end = max(alone, reached - (not is_open)), below + 1
                with contextlib.suppress(csv.Error):
                    row = next(self._reader([SPACE_AFTER_QUOTE.sub('"', lines[below])]))
            yield row, below, end
            below = end

    def _record_lines(self, lines: list[str], start: int, stop: int, width: int) -> Iterator[str]:
        """Yield a record's first line, and those below as far as none of them is a record by itself.

        The last line of a cell, which closes the quote, may look like one by chance.  It counts only if the
        first line reaches all fields, and the id stands left of the quote or that line is a record.  No id is
        asked for within a cell if the first line is as wide as a record, and its quote not in the last cell.
        """
        first = lines[start]
        yield first
        cells = next(csv.reader([first], delimiter=self.delimiter, skipinitialspace=True))
        is_stray = first.count(self.delimiter) >= max(self.picks) and (
            self.picks[0] < len(cells) - 1 or self._is_row(first.split(self.delimiter), width))
        is_part = len(cells) == width or first.count(self.delimiter) + 1 != width
        for line in map(lines.__getitem__, range(start + 1, stop)):
            is_last = line.count('"') % 2 == 1
            if (is_stray or not is_last) and self._is_record(line, width, is_last, is_last or is_part):
                return
            yield line

    def _is_record(self, line: str, width: int, is_last: bool, needs_id: bool) -> bool:
        """Return whether a line could be a record; unless it `is_last`, also with its quotes as letters."""
        row = line.split(self.delimiter)
        try:
            rows = [next(self._reader([line])) if '"' in line else row, *[row] * (not is_last)]
        except csv.Error:                   # its first quote opens a cell: it is a stray one, too
            is_opening = (self.delimiter + line.partition('"')[0]).rstrip(" ").endswith(self.delimiter)
            rows = [row] * is_opening
        return any(self._is_row(row, width, needs_id) for row in rows)

    def _is_row(self, row: Sequence[str], width: int, needs_id: bool = True) -> bool:
        """Return whether a row has so many cells and, if it needs one, a whole number as id."""
        is_wide = len(row) >= max(width, self.picks[0] + 1) and not any(map(str.strip, row[self.width:]))
        return is_wide and (not needs_id or WHOLE.fullmatch(row[self.picks[0]].strip()) is not None)

    # JSON

    def _read_json_lines(self, text: str) -> Iterator[Block]:
        """Yield the records of the text and of all that follows it, a line each."""
        while text:
            ended = text.removesuffix("\n")
            lines, values = dict(enumerate(ended.split("\n"), self._line)), []
            if ended.count("\n{") == len(lines) - 1:            # an object begins on each
                values = decode_flat("[" + ended.replace("\n", ",\n") + "]")
            if len(values) != len(lines):
                lines = {number: line for number, line in lines.items() if line.strip()}
                values = list(map(decode_line, lines.values()))
            yield self._objects_block(values, list(lines), lambda lines=lines: [
                line + "\n" for line in lines.values()])
            self._pass(text, len(text))
            text = self._next_lines()

    def _read_array(self, text: str, start: int) -> Iterator[Block]:
        """Yield the elements from `start` on; after a syntax error nobody knows where the next one begins."""
        above = "{}" if text[:start].strip() == "[" else '{"":0'        # of what it was wrapped in
        if not LIST_END.match(text, start):             # a comma before each element, the first one too
            text, start = f"{text[:start - 1]},{text[start:]}", start - 1
        text, item, more, values = self._pass(text, start), 1, " ", []
        while more or values:
            values, begins, ends = decode_elements(text)
            steps = map(text.count, itertools.repeat("\n"), [0, *begins], begins)
            yield self._objects_block(values, list(itertools.accumulate(steps, initial=self._line))[1:],
                                      lambda text=text, begins=begins, ends=ends: [
                                          text[begin:end] for begin, end in zip(begins, ends)], item)
            item, text = item + len(values), self._pass(text, ends[-1] if ends else 0)
            ended = LIST_END.match(text)
            more = "" if ended or len(text) > FOLLOW_MAX else self._text.read(max(BLOCK_CHARS, len(text)))
            text += more
        if ended:                           # nothing may follow but the end of what it was wrapped in
            way, where = "'.LIST[]'" if ":" in above else "'.[]'", ended.end()
            below = text[where:] + self._text.read(RECORD_MAX)
            rest, message = decode_line(above + below), "the end of the object is missing"
            if isinstance(rest, dict) and not any(self._fields_in(record) for each in rest.values()
                                                  if isinstance(each, list) for record in each):
                return
            if below.strip():
                message = f"more follows the list: jq -c {way} {self._quoted} makes JSON Lines of it"
        else:
            comma = COMMA.match(text)
            message, where = find_error(text, comma.end()) if comma else (EXPECTED, 0)
        self._pass(text, where)
        message = f"not JSON at line {self._line}, column {self._column + 1}: {message}"
        self.cut = f"{escape(self.name)}: {message}"
        yield Block([[""]] * len(self._places), [self._line], lambda: [""], {0: malformed(message)}, item)

    def _pass(self, text: str, end: int) -> str:
        """Count the lines up to an end, and the characters of the last one; return the rest."""
        newline = text.rfind("\n", 0, end)
        self._column = end - newline - 1 if newline >= 0 else self._column + end
        self._line += text.count("\n", 0, end)
        return text[end:]

    def _objects_block(self, values: list[object], numbers: Sequence[int], raws: Callable[[], Sequence[str]],
                       first_item: int | None = None) -> Block:
        """Return JSON values as a block; those that are no objects, or have a key twice, are malformed."""
        if not values:
            return Block((), ())
        keys = dict.fromkeys(itertools.chain.from_iterable(value for value in values if type(value) is dict))
        names = {key: key.strip().casefold() for key in keys}
        if list(names) != list(names.values()):
            values = [_make_object([(names[key], cell) for key, cell in value.items()])
                      if type(value) is dict else value for value in values]
        unread = {position: value if isinstance(value, Problem) else record_cells(self.schema, value)[1][0]
                  for position, value in enumerate(values) if type(value) is not dict}
        for position in unread:
            values[position] = {}
        if self._extra is None:             # looked at once, as a header is
            self._check_names(list(names))
            self._extra = []
        self._extra += [key for key, name in names.items()
                        if name not in self._places and key not in self._extra][:20]
        columns = [[value.get(name) for value in values] for name in self._places]
        return Block(columns, numbers, raws, unread, first_item)


# -------------------------------------------------------------------------------------- Storage: both engines
# The seam: all that the rest of the program knows of a database.  A place makes tables; a table is one
# connection, for one thread at a time; it raises StorageError.  An engine knows no batch, thread or verdict.

# No database folds as `unique_key` does, so keys are looked up by an index on the ASCII lower case.  That is
# the key of a text of these characters alone, which stay what they are when composed and case-folded.  All
# other texts are irregular: they have an index of their own, and their keys are kept in memory.
STABLE = ("à-öø-ÿāăąćĉċčďđēĕėęěĝğġģĥħĩīĭįıĵķĺļľłńņňŋōŏőœŕŗřśŝşšţťŧũūŭůűųŵŷźżž"      # Latin
          "ά-ία-ρσ-ώа-џא-תء-غف-ي" "ก-ฮぁ-ゖァ-ヺー一-鿿가-힣")      # Greek to Arabic, Thai to Hangul
IRREGULAR_TEXT = f"[^ -~{STABLE}]"      # compiled where it is needed: it takes 2 ms


class StorageError(Exception):
    """What a storage could not do, in one line without values, statements or passwords."""


class ConstraintError(StorageError):
    """A constraint of the table refused a record; the transaction goes on without the statement's rows."""


class LockedError(StorageError):
    """Another program holds a lock: trying again may help."""


class Patience:
    """Tries again what fails on a lock, for `timeout_s` seconds; after an interrupt for a second more."""

    def __init__(self, timeout_s: float) -> None:
        """Raises ValueError for what is no time."""
        if not 0 <= timeout_s <= 1e6:
            raise ValueError(f"--busy-timeout is in seconds, not {timeout_s}")
        self.timeout_s, self.tell = timeout_s, lambda name, event: None
        self.interrupted_at = float("inf")  # set by the handler of a signal
        self.waits: dict[str, float] = {}

    def hurried(self) -> bool:
        """Return whether an interrupt came more than a second ago."""
        return time.monotonic() - self.interrupted_at >= 1

    def insist(self, name: str, attempt: Callable[..., Any], *values: object) -> Any:
        """Return what the attempt returns, made again while it raises LockedError; raises StorageError."""
        begin = time.monotonic()
        try:
            while True:
                try:
                    return attempt(*values)             # waits a moment by itself, but not for every lock
                except LockedError:
                    waited_s = time.monotonic() - begin
                if waited_s >= self.timeout_s or self.hurried():
                    raise StorageError(f"locked by another program for {waited_s:.1f} s")
                self.waits[name] = begin
                time.sleep(0.001)
        finally:
            if self.waits.pop(name, None):
                self.tell(name, f"locked by another program for {time.monotonic() - begin:.1f} s")


class Traces(dict[str, int]):
    """What keys leave behind in 16 MiB: it has those that may be held (of a million 1 in 100,000 is not)."""

    def __init__(self) -> None:
        import mmap                         # only here; it takes no memory before it is written to
        self._bits = mmap.mmap(-1, 1 << 24)             # a Bloom filter

    def __contains__(self, key: object) -> bool:
        number = hash(key)
        return all(self._bits[number >> shift & 0xffffff] >> (number & 7) & 1 for shift in (3, 21, 40))

    def update(self, pairs: Iterable[tuple[str, int]]) -> None:
        """Let keys leave their traces, which stay."""
        for key, _ in pairs:
            number = hash(key)
            for shift in (3, 21, 40):
                self._bits[number >> shift & 0xffffff] |= 1 << (number & 7)


class Table:
    """One schema's table, through one connection, for one thread at a time: what the engines share.

    An engine has SQL: TYPES (what else is FITTING), LOOK, CREATE, LOWER, IRREGULAR, INDEXES; and methods that
    wait for locks: _execute, _select, _read (row by row), _begin (return what differs after others wrote),
    _insert, _update (return how many rows); commit, abort (from any thread: what waits fails), close.
    """

    NOTICES = True                          # whatever others write, or irregular texts alone
    is_trial, beneath, rivals = False, None, None       # see `open_trial`

    def __init__(self, schema: Schema, name: str, patience: Patience, serves: bool = False) -> None:
        """If it `serves` a program, memory is bounded; else the keys of a table that was empty are kept."""
        self.schema, self.last_id, self._version = schema, 0, None
        self._name, self._patience, self._serves = name, patience, serves
        self._held: dict[int, dict[str, int]] = {}      # by place: who holds which keys, or once held them,
        self._holds_all = self.NOTICES      # all keys, or those of irregular texts, which no index finds
        self._types = {each.name: self.TYPES[each.kind] for each in schema.fields}
        self._table, self._columns = f'"{schema.table}"', ", ".join(f'"{name}"' for name in schema.names)

    def opened(self, creates: bool = False) -> Any:
        """Return the table, made if it is missing and it `creates`; else None, and it is closed."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.close)
            is_there = self._check_shape()
            if creates and not is_there:
                columns = ", ".join(f'"{name}" {kind}' for name, kind in self._types.items())
                self._execute(self.CREATE.format(table=self._table, columns=columns))
            return self if (is_there or creates) and stack.pop_all() else None

    def _check_shape(self) -> bool:
        """Return whether the table is there; raises StorageError with what makes it unusable."""
        self._found = found = dict(self._execute(self.LOOK.format(table=self.schema.table)))
        it = found.get("it")
        wrong = [f"it is {it}"] if it not in (None, "a table") else [
            f"{name} is {found.get(name, 'missing')}, not {kind}" for name, kind in self._types.items()
            if it and not re.fullmatch(self.FITTING.get(kind, kind), found.get(name, "missing"))]
        if wrong:
            raise StorageError(f"table {self.schema.table} cannot be used: {escape('; '.join(wrong), 300)}")
        return bool(it)

    def find_last_id(self) -> int:
        """Return the largest stored id, 0 if there is none."""
        # In SQLite an id that is a text, which others may have stored, is above all numbers.
        return self._execute(f"SELECT coalesce(max(id), 0) FROM {self._table} WHERE id <= {WHOLE_MAX}")[0][0]

    def begin(self) -> None:
        """Begin a transaction, alone among all writers and seeing all that was committed."""
        version = self._begin()
        if version == self._version:
            return
        self._version, self._held, self.last_id = version, {}, self.find_last_id()
        self._holds_all = self.NOTICES and not self._serves and not self.last_id
        self.last_id = WHOLE_MAX if self.rivals else self.last_id
        for name, (kind, use) in itertools.product(self.schema.unique.values(), self.INDEXES.items()):
            index = f"{self.schema.table}_{name}_{kind}"
            if not self._holds_all and index not in self._found:        # it takes a second a million records
                self._execute(f'CREATE INDEX IF NOT EXISTS "{index}" ON {self._table} {use.format(name)}')

    def find_rows(self, ids: Collection[int]) -> dict[int, tuple]:
        """Return the stored ones of these records by id."""
        beneath = self.beneath.find_rows(ids) if self.beneath else {}
        return beneath | {row[0]: row for row in self._select(self._columns, "id", ids)} if ids else {}

    def find_holders(self, place: int, keys: Collection[str]) -> dict[str, int]:
        """Return {key: id} of the keys that stored records hold in the field at `place`, or once held."""
        name, held = self.schema.names[place], self._held.get(place)
        if held is None:
            held = self._held[place] = Traces() if self._serves else {}
            held.update(self._read_keys(name))
        found = () if self._holds_all else self._select(f'"{name}", id', self.LOWER.format(name), keys)
        kept = set(filter(held.__contains__, keys))
        if kept and self._serves:
            held = {key: id_ for key, id_ in self._read_keys(name) if key in kept}
        rivals = self.rivals.find_holders(place, keys) if self.rivals else {}
        rivals |= {key: held[key] for key in kept if key in held}
        return rivals | {unique_key(text): id_ for text, id_ in found if isinstance(text, str)}

    def _read_keys(self, name: str) -> Iterator[tuple[str, int]]:
        where = "" if self._holds_all else f"WHERE {self.IRREGULAR.format(name)}"
        rows = self._read(f'SELECT "{name}", id FROM {self._table} {where}')
        return ((unique_key(text), id_) for text, id_ in rows if isinstance(text, str))

    @contextlib.contextmanager
    def all_or_none(self, replaces: bool = False) -> Iterator[None]:
        """Undo what is stored in here where it raises ConstraintError, even if a part `replaces` records."""
        self._execute("SAVEPOINT part")
        try:
            yield
        except ConstraintError:
            self._execute("ROLLBACK TO part")
            self._held = {} if replaces else self._held         # it knows what was replaced in here
            raise
        self._execute("RELEASE part")

    def insert(self, columns: Sequence[Sequence], keys: Mapping[int, Sequence[str]],
               replaces: bool = False) -> None:
        """Insert records with these unique keys by place, or put them in place of those with their ids."""
        if (self._update if replaces else self._insert)(columns) < len(columns[0]):
            raise ConstraintError("a trigger of the table skipped a record")
        self.last_id = max(self.last_id, max(columns[0]))
        for place, held in self._held.items():
            pairs = zip(keys[place], columns[0])
            if not self._holds_all:
                pairs = itertools.compress(pairs, map(re.compile(IRREGULAR_TEXT).search, columns[place]))
            held.update(pairs)

    def scan(self, size: int) -> Iterator[list[tuple]]:
        """Yield all stored records by id, `size` rows at a time, as they were at one moment."""
        rows = self._read(f"SELECT {self._columns} FROM {self._table} ORDER BY id")
        return iter(lambda: list(itertools.islice(rows, size)), [])


# -------------------------------------------------------------------------------------------- Storage: SQLite
# A folder with a database file per model.  The only section that knows sqlite3.  A table is used by its
# worker, or by the main thread that verifies; abort() by any.


def _sqlite_errors(function: Callable) -> Callable:
    """Return the function with errors of SQLite and of the system turned into StorageErrors."""
    @functools.wraps(function)
    def _try(*values: object) -> Any:
        try:
            return function(*values)
        except (sqlite3.Error, OSError, OverflowError, UnicodeError) as error:
            kind = (ConstraintError if isinstance(error, sqlite3.IntegrityError) else
                    LockedError if "locked" in str(error) else StorageError)
            raise kind(describe(error)) from error
    return _try


def _reading_uri(path: str) -> str:
    """Return the URI by which a database is read without the change of a byte; raises OSError."""
    status = os.stat(path)                  # raises for a link that leads nowhere: a disk may be missing
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is no regular file")
    if status.st_nlink > 1:                 # the log belongs to a name: two names would be two databases
        raise OSError(f"the file has {status.st_nlink} names (hard links): one too many for safety")
    may_write = os.access(path, os.W_OK) and os.access(os.path.dirname(path), os.W_OK)
    # The last reader to leave takes the log away that the first one made, for which it has to write, as has
    # who undoes what a writer that died left half done.  Who may not does without, if nobody seems to write.
    has_log, has_journal = os.path.exists(path + "-wal"), os.path.exists(path + "-journal")
    mode = "ro" if has_log or has_journal and not may_write else "rw" if may_write else "ro&immutable=1"
    import urllib.parse                     # a first load does without
    name = urllib.parse.quote(os.fsencode(path.replace(os.sep, "/")))
    return f"file://{'' if name.startswith('/') else '/'}{name}?mode={mode}"


class SqlitePlace:
    """A folder, `shown`, of SQLite files, one a model."""

    def __init__(self, folder: str, patience: Patience) -> None:
        self.shown, self.where, self._patience = folder, f" in {escape(folder, 200)}", patience

    def prepare(self, writes: bool = True) -> None:
        """Make the folder if it `writes`; raises ValueError or OSError if it cannot be used."""
        if os.path.exists(self.shown) and not os.path.isdir(self.shown):
            raise ValueError(f"{escape(self.shown)} is a file; --db takes the folder of the databases")
        if writes:
            os.makedirs(self.shown, exist_ok=True)
        needed, what = (os.W_OK, "written") if writes else (os.R_OK, "read")
        if os.path.isdir(self.shown) and not os.access(self.shown, needed | os.X_OK):
            raise PermissionError(errno.EACCES, f"Permission denied: it may not be {what}", self.shown)

    def name(self, schema: Schema) -> str:
        """Return what reports call the database."""
        return f"{schema.table}.db"

    def paths(self, schemas: Iterable[Schema]) -> list[str]:
        """Return the files of the databases; absolute, as some SQLites take `file:…` for a URI."""
        return [os.path.join(os.path.abspath(self.shown), self.name(schema)) for schema in schemas]

    @_sqlite_errors
    def open(self, schema: Schema, writes: bool = False, serves: bool = False) -> SqliteTable | None:
        """Return the table, made if it is missing and it `writes`, else None where there is none."""
        path, = self.paths([schema])
        found = os.path.lexists(path) and SqliteTable(schema, path, self._patience, False, True).opened()
        if writes and found:                # nothing is changed before it is known to be ours
            found.close()
        return SqliteTable(schema, path, self._patience, serves).opened(True) if writes else found or None


class SqliteTable(Table):
    """A table in a file of SQLite; an empty path means a private one, which is gone when it is closed."""

    TYPES = {Kind.ID: "INTEGER PRIMARY KEY", Kind.COUNT: "INTEGER", Kind.REFERENCE: "INTEGER",
             Kind.TEXT: "TEXT", Kind.EMAIL: "TEXT", Kind.PRICE: "REAL"}
    # What keeps a field's values as they are, whatever it is called (sqlite.org/datatype3.html, 3.1).
    INTEGER = r"(.*INT.*|(?!.*(CHAR|CLOB|TEXT|REAL|FLOA|DOUB|missing)).*)"
    FITTING = {"INTEGER": INTEGER, "INTEGER PRIMARY KEY": INTEGER + " PRIMARY KEY",
               "TEXT": "(.*(CHAR|CLOB|TEXT|BLOB).*)?", "REAL": ".*INT.*|(?!.*(CHAR|CLOB|TEXT|missing)).*"}
    # What `it` is (the last row counts), and its columns without generated ones.
    LOOK = """
        WITH there AS (SELECT name, type FROM sqlite_master
            WHERE type IN ('table', 'view') AND name NOT GLOB 'sqlite_*'),
            columns AS (SELECT name, type, pk FROM pragma_table_info('{table}'))
        SELECT 'it', 'missing in somebody else''s database (name another --db), which holds ' ||
            group_concat(name, ', ') FROM there
        UNION ALL SELECT 'it', 'a ' || type FROM there WHERE lower(name) = '{table}'
        UNION ALL SELECT type, name FROM sqlite_master WHERE type = 'trigger' AND lower(tbl_name) = '{table}'
        UNION ALL SELECT lower(name), upper(type) || CASE WHEN pk AND pk = (SELECT sum(pk) FROM columns)
            THEN ' PRIMARY KEY' ELSE '' END FROM columns"""
    CREATE = "CREATE TABLE IF NOT EXISTS {table} ({columns})"
    LOWER = 'lower("{0}")'
    # Only what has more bytes than characters is looked at closely.
    IRREGULAR = f"""length("{{0}}") <> length(CAST("{{0}}" AS BLOB)) AND "{{0}}" GLOB '*[^ -~{STABLE}]*'"""
    INDEXES = {"lookup": f"({LOWER})", "irregular": f'("{{0}}") WHERE {IRREGULAR}'}

    def __init__(self, schema: Schema, path: str, patience: Patience, serves: bool = False,
                 reads: bool = False) -> None:
        super().__init__(schema, f"{schema.table}.db", patience, serves)
        self._path, self._mode = path, None             # the journal mode it had
        self._connection = sqlite3.connect(_reading_uri(path) if reads else path, uri=reads,
                                           timeout=0.25, isolation_level=None, check_same_thread=False)
        self._file = os.stat(path) if path else None    # its identity
        self._connection.text_factory = lambda text: text.decode("utf-8", "keep_bytes")     # whatever it is

    def _execute(self, sql: str, values: Sequence[object] = ()) -> Any:
        return self._patience.insist(self._name, self._try, sql, values)

    @_sqlite_errors
    def _try(self, sql: str, values: Sequence[object]) -> Any:
        cursor = self._connection.execute(sql, values)
        return cursor.fetchall() if cursor.description else cursor.rowcount

    def _read(self, sql: str) -> Iterator[tuple]:
        cursor = self._patience.insist(self._name, _sqlite_errors(self._connection.execute), sql)
        fetch = functools.partial(_sqlite_errors(cursor.fetchmany), 1000)
        return itertools.chain.from_iterable(iter(fetch, []))

    def _select(self, what: str, value: str, among: Iterable[object]) -> list[tuple]:
        self._check_file()
        sql = f"SELECT {what} FROM {self._table} WHERE {value} IN (SELECT value FROM json_each(?))"
        return self._execute(sql, [json.dumps(list(among), ensure_ascii=False, default=str)])

    def _begin(self) -> object:
        if self._version is None:           # log ahead and sync at every commit (sqlite.org/wal.html)
            (mode,), = self._execute("PRAGMA journal_mode")
            found = [self._execute(f"PRAGMA {pragma}") for pragma in (
                "journal_mode=WAL", "synchronous=FULL", "fullfsync=1", "checkpoint_fullfsync=1")]
            if self._path and found[0] != [("wal",)]:
                raise StorageError(f"no write-ahead logging here: the journal mode stays {mode}")
            self._mode = mode
            if self.find_last_id():         # keys lie all over an index: 6 instead of 14 s for 400,000
                self._execute("PRAGMA cache_size=-65536")           # KiB
        self._execute("BEGIN IMMEDIATE")
        return self._execute("PRAGMA data_version")

    def _insert(self, columns: Sequence[Sequence], conflict: str | None = None) -> int:
        width, count = len(columns), 0
        marks, size = f"({','.join('?' * width)})", 900 // width     # 999 values: SQLite 3.31's limit
        sql = f"INSERT {conflict or self._or_abort()} INTO {self._table} ({self._columns}) VALUES "
        for start in range(0, len(columns[0]), size):   # each gives the GIL up once, executemany once a row
            part = [column[start:start + size] for column in columns]
            values: list[object] = [None] * (width * len(part[0]))
            for place, column in enumerate(part):
                values[place::width] = column           # half the time of zip and chain
            count += self._execute(sql + ",".join([marks] * len(part[0])), values)
        return count

    def _update(self, columns: Sequence[Sequence]) -> int:
        if self.is_trial:                   # some stand in the table beneath
            return self._insert(columns, "OR REPLACE")
        settings = self._columns.replace(",", " = ?,")
        sql = f"UPDATE {self._or_abort()} {self._table} SET {settings} = ? WHERE id = ?"
        return sum(self._execute(sql, values) for values in zip(*columns, columns[0]))

    def _or_abort(self) -> str:
        """Return what overrules an ON CONFLICT of the table, and of its triggers: so not if it has any."""
        return "" if "trigger" in self._found else "OR ABORT"

    def commit(self) -> None:
        """Commit and sync; raises if that is in doubt, or the file is no longer where readers look for it."""
        self._execute("COMMIT")
        self._check_file()

    @_sqlite_errors
    def _check_file(self) -> None:
        if self._file and not os.path.samestat(self._file, os.stat(self._path)):
            raise StorageError("the file was replaced while it was open")       # SQLite would not tell

    def abort(self) -> None:
        """Make the call that is waiting in another thread fail."""
        if self.beneath:
            self.beneath.abort()
        with contextlib.suppress(sqlite3.Error):
            self._connection.interrupt()

    def close(self) -> None:
        """Close the connection; undo what is not committed, and the journal mode unless others look."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.rollback()
            if self._mode:
                self._connection.execute(f"PRAGMA journal_mode={self._mode}")
        self._connection.close()
        if self.beneath:
            self.beneath.close()


def open_trial(place: Any, patience: Patience, is_source: bool, schema: Schema, *_: object) -> SqliteTable:
    """Return a private table over the stored one, which is only read: a dry run inserts into it.

    If the stored records are themselves the source (--verify), they count only where others refer to them.
    """
    stored = place.open(schema)
    table = SqliteTable(schema, "", patience).opened(True)
    table.is_trial, table.beneath, table.rivals = True, stored, None if is_source else stored
    return table


# ---------------------------------------------------------------------------------------- Storage: PostgreSQL
# A URL with a database per model.  The only section that knows PostgreSQL and psycopg, which it imports once
# there is a URL.  abort() is for any thread, the rest for one.  A reader makes no index: slow, but right.

# Where the URL says nothing else: a server that no longer answers is noticed in half a minute, not in hours.
CONNECTION = {"connect_timeout": "10", "keepalives_idle": "10", "keepalives_interval": "5",
              "keepalives_count": "3", "tcp_user_timeout": "25000", "client_encoding": "utf8"}
# Stricter than libpq, to which `u:1/s@h` is port 1, database `s@h`: no piece of a password may be shown.
URL_FORM = re.compile(r"\w+://([^@/?\x00-\x20\x7f]*@)?[^@\x00-\x20\x7f]*")
IN_DOUBT = "the commit is in doubt, the next load settles it: "


@contextlib.contextmanager
def _postgres_errors(prefix: str = "") -> Iterator[None]:
    """Turn psycopg's errors into ours: the first line alone, as values and statements stand further down."""
    import psycopg
    try:
        yield
    except (psycopg.Error, ValueError) as error:
        text = "a setting of the URL or of the environment is not valid"        # the error would quote it
        if isinstance(error, psycopg.OperationalError) or getattr(error, "sqlstate", None):
            text = error.diag.message_primary or re.split(
                "connection failed: |connection is bad: |FATAL: +", str(error))[-1]
        refusals = (psycopg.IntegrityError, psycopg.DataError, psycopg.errors.RaiseException,   # of a trigger
                    psycopg.errors.ProgramLimitExceeded)        # a text too long for an index of others
        kind = ConstraintError if isinstance(error, refusals) else StorageError
        if isinstance(error, psycopg.errors.LockNotAvailable):
            kind, text = LockedError, "locked by another program"
        raise kind(prefix + " ".join(text.partition("\n")[0].split())) from error


class PostgresPlace:
    """Databases of PostgreSQL: a URL in which {model} stands for what differs, `shown` without secrets."""

    def __init__(self, url: str, patience: Patience) -> None:
        self._url, self._patience, self._settings = url, patience, {}
        self.shown, self.where = hide_secrets(url).rstrip("?&"), " on the server"

    def prepare(self, writes: bool = True) -> None:
        """Import psycopg and check the URL; raises ValueError with what to do, never with a secret."""
        if "{model}" not in self._url:
            raise ValueError("write {model} where the name of the model belongs: postgresql://host/{model}")
        try:
            import logging
            import psycopg
            logging.getLogger("psycopg").addHandler(logging.NullHandler())      # else on standard error
            self._settings = CONNECTION | psycopg.conninfo.conninfo_to_dict(URL_FORM.fullmatch(self._url)[0])
            list(map(int, filter(None, self._settings.get("port", "").split(","))))
        except ImportError:
            raise ValueError('a postgresql:// URL needs psycopg 3: pip install "psycopg[binary]"') from None
        except (TypeError, ValueError, psycopg.Error):      # a TypeError where it does not match
            raise ValueError("the URL cannot be read: in a password @ is written %40, / %2F, : %3A") from None

    def name(self, schema: Schema) -> str:
        """Return what reports call the database: `db.example/users`, `users` on a socket, `service users`."""
        host, port, name = (self._settings.get(key, "") for key in ("host", "port", "dbname"))
        name = name or f"service {self._settings.get('service', '{model}')}"
        if host and not host.startswith("/"):
            name = f"{host}{':' * bool(port)}{port}/{name}".replace(":5432/", "/")
        name = name.replace("{model}", schema.table)    # or one database holds all, in schemas or by roles
        return escape(name if schema.table in name else f"{name} ({schema.table})", 200)

    def paths(self, schemas: Iterable[Schema]) -> list[str]:
        """Return the files that no output may overwrite: none."""
        return []

    def open(self, schema: Schema, writes: bool = False, serves: bool = False) -> PostgresTable | None:
        """Return the table, made if it is missing and it `writes`, else None where there is none."""
        import concurrent.futures
        settings = {name: value.replace("{model}", schema.table) for name, value in self._settings.items()}
        # Nothing interrupts libpq while it connects: the thread that does it is left behind instead.
        pool = concurrent.futures.ThreadPoolExecutor(1)
        answer = pool.submit(lambda: PostgresTable(
            schema, self.name(schema), self._patience, settings, serves).opened(writes))
        pool.shutdown(wait=False)
        while not concurrent.futures.wait([answer], 0.05).done:
            if self._patience.hurried():
                raise StorageError("interrupted while it was opened")
        return answer.result()


class PostgresTable(Table):
    """A table in a database of PostgreSQL."""

    TYPES = {Kind.ID: "bigint PRIMARY KEY", Kind.COUNT: "bigint", Kind.REFERENCE: "bigint",
             Kind.PRICE: "double precision", Kind.TEXT: "text", Kind.EMAIL: "text"}
    NOTICES, FITTING = False, {}            # these alone fit
    # What `it` is (the last row counts), its columns in the words of TYPES, and its indexes.
    LOOK = """
        WITH it AS (SELECT * FROM pg_class WHERE oid = to_regclass('"{table}"'))
        SELECT 'it', 'missing in somebody else''s database (name another --db), which holds ' || min(relname)
            FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'v')
            AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'e') -- extension's
        UNION ALL SELECT 'it', CASE
            WHEN relkind NOT IN ('r', 'p') OR relispartition THEN 'a view or partition'
            WHEN relpersistence <> 'p' OR EXISTS (SELECT FROM pg_partition_tree(it.oid) AS tree JOIN pg_class
                AS part ON part.oid = relid WHERE part.relpersistence <> 'p') THEN 'unlogged or temporary'
            WHEN relrowsecurity THEN 'under row-level security' ELSE 'a table' END FROM it
        UNION ALL SELECT 'it', 'in the encoding ' || current_setting('server_encoding') || ' and not UTF8'
            WHERE current_setting('server_encoding') <> 'UTF8'
        UNION ALL SELECT attname, concat(format_type(atttypid, atttypmod), (SELECT ' PRIMARY KEY'
            FROM pg_index WHERE indrelid = attrelid AND indisprimary AND indkey::text = attnum::text))
            FROM it JOIN pg_attribute ON attrelid = it.oid WHERE attnum > 0 AND attgenerated = ''
        UNION ALL SELECT indexrelid::regclass::text, 'an index' FROM it JOIN pg_index ON indrelid = it.oid"""
    # One after the other: IF NOT EXISTS alone fails for all but one.
    CREATE = "SELECT pg_advisory_xact_lock(5432); CREATE TABLE IF NOT EXISTS {table} ({columns})"
    LOWER, IRREGULAR = 'lower("{0}" COLLATE "C")', f""""{{0}}" COLLATE "C" ~ '{IRREGULAR_TEXT}'"""
    # A hash takes texts of any length.
    INDEXES = {"lookup": f"USING hash ({LOWER})", "irregular": f"(id) WHERE {IRREGULAR}"}
    # A number that differs when the irregular texts do.
    MARK = f'(SELECT bit_xor(hashtextextended("{{0}}" COLLATE "C", id)) FROM {{1}} WHERE {IRREGULAR})'
    # Settings end with the transaction, as a connection may be pooled.  Without statistics the planner would
    # read whole tables, 20 times slower; floats come back exactly; `Patience` waits for locks in slices.
    SETTINGS = ("SET LOCAL enable_seqscan=off; SET LOCAL jit=off; SET LOCAL extra_float_digits=1;"
                " SET LOCAL lock_timeout=500; ")
    BEGIN = ("BEGIN ISOLATION LEVEL READ COMMITTED; LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE;"
             " SET LOCAL lock_timeout={timeout_ms}; SET CONSTRAINTS ALL IMMEDIATE;"
             " SELECT set_config('synchronous_commit', 'on', true)"
             " WHERE current_setting('synchronous_commit') = 'off'; ")

    def __init__(self, schema: Schema, name: str, patience: Patience, settings: Mapping[str, str],
                 serves: bool) -> None:
        import psycopg
        super().__init__(schema, name, patience, serves)
        self._timeout_ms = max(int(patience.timeout_s * 1000), 1)
        marks = [self.MARK.format(each, self._table) for each in schema.unique.values()]
        self._state = f"SELECT {', '.join(['coalesce(max(id), 0)', *marks])} FROM {self._table}"
        with _postgres_errors():
            self._db = psycopg.connect(autocommit=True, prepare_threshold=None, **settings)
        self._warnings: list[str] = []
        self._db.add_notice_handler(lambda notice: notice.severity_nonlocalized == "WARNING"
                                    and self._warnings.append(notice.message_primary))

    @_postgres_errors()
    def _try(self, statements: str, is_first: bool = False) -> list[tuple]:
        """Return the rows of the last statement; without BEGIN they are one transaction and round trip."""
        if is_first:
            self._db.rollback()
        cursor = self._db.execute(statements)
        while cursor.nextset():
            pass
        return cursor.fetchall() if cursor.description else []

    def _execute(self, statements: str) -> list[tuple]:
        if self._db.info.transaction_status:
            return self._try(statements)
        return self._patience.insist(self._name, self._try, self.SETTINGS + statements, True)

    def _select(self, what: str, value: str, among: Iterable[object]) -> list[tuple]:
        lines = "\n".join(map(str, among)).replace("\\", "\\\\").replace("'", "''")
        array = f"string_to_array(E'{lines}', E'\\n')::{'bigint' if value == 'id' else 'text'}[]"
        return self._execute(f"SELECT {what} FROM {self._table} WHERE {value} = ANY ({array})")

    def _read(self, sql: str) -> Iterator[tuple]:
        with _postgres_errors(), self._db.transaction(), self._db.cursor("all", binary=True) as cursor:
            self._db.execute(f"SET LOCAL lock_timeout={self._timeout_ms}")
            cursor.itersize = 2000
            yield from cursor.execute(sql)

    def _begin(self) -> object:
        return self._execute(self.BEGIN.format(table=self._table, timeout_ms=self._timeout_ms) + self._state)

    def _insert(self, columns: Sequence[Sequence]) -> int:
        with _postgres_errors(), self._db.cursor() as cursor:
            with cursor.copy(f"COPY {self._table} ({self._columns}) FROM STDIN (FORMAT binary)") as copy:
                copy.set_types([kind.removesuffix(" PRIMARY KEY") for kind in self._types.values()])
                for row in zip(*columns):   # 12-30 times as fast as executemany
                    copy.write_row(row)
            return cursor.rowcount

    def _update(self, columns: Sequence[Sequence]) -> int:
        settings = ", ".join(f'"{name}" = n."{name}"' for name in self.schema.names[1:])
        arrays = ", ".join(f"%s::{kind.removesuffix(' PRIMARY KEY')}[]" for kind in self._types.values())
        sql = (f"UPDATE {self._table} AS t SET {settings} FROM unnest({arrays}) AS n ({self._columns})"
               " WHERE t.id = n.id")
        with _postgres_errors(), self._db.cursor() as cursor:
            return cursor.execute(sql, list(map(list, columns))).rowcount

    def commit(self) -> None:
        """Return when the server has said that the transaction is committed, and on its disk."""
        self._version = self._execute(self._state)
        self._warnings.clear()
        with _postgres_errors(IN_DOUBT):
            status = self._db.execute("COMMIT").statusmessage
        if status != "COMMIT" or self._warnings:        # ROLLBACK; or a standby was not waited for
            raise StorageError(IN_DOUBT + ", ".join([f"the server said {status}", *self._warnings]))

    def abort(self) -> None:
        """Make the call that is waiting in another thread fail."""
        import socket
        with contextlib.suppress(Exception), socket.socket(fileno=os.dup(self._db.fileno())) as connection:
            connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; what is not committed is undone."""
        self._db.close()


def find_place(text: str, patience: Patience) -> Any:
    """Return the place that --db names; raises ValueError for what is none."""
    if re.match(r"postgres(ql)?:", text):
        return PostgresPlace(text, patience)
    # libpq's other form and other libraries' URLs may hold a password
    other = re.match(r"\W{0,3}([\w+:]{1,40}?)(?:://| *=.*\{model\})", text)
    if other and not os.path.exists(text):
        raise ValueError(f"--db takes a folder, or a URL that begins with postgresql://, not {other[1]}")
    return SqlitePlace(text, patience)


# ---------------------------------------------------------------------------------------------- Insert worker
# A thread a database, which alone uses the table: it decides, stores and answers.
# It knows batches and the seam, nothing of files, engines or output.  What other threads call says so.


class Gate:
    """What happens once: a lock that is held until then, which costs a tenth of a threading.Event."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self.open = self._lock.release

    def wait(self, timeout_s: float = -1) -> bool:
        """Block until it is open; return whether it is."""
        is_open = not self._lock.locked()       # then not taken: Ctrl-C could come before it is given back
        if not is_open and (is_open := self._lock.acquire(timeout=timeout_s)):
            self._lock.release()
        return is_open


class Batch:
    """Consecutive records of one input on their way to their verdicts.

    It belongs to its own thread until it is `ready`, to its worker until `answered`, then to the main thread.
    By position: `problems` of a record and its references, these with its `clashes` with other records, and
    why it is `unsettled` (not decided).  `failure` is the reason why nothing of the batch is stored.
    """

    def __init__(self, schema: Schema, block: Block, part: range, first: int, replaces: bool = False) -> None:
        """`part` are its positions in the block, `first` is the number of its first record in the input."""
        self.schema, self.block, self.part, self.replaces = schema, block, part, replaces
        self.size, self.cells = len(part), [column[part.start:part.stop] for column in block.columns]
        self.name = f"{schema.table}#{first}" + (f"-{first + self.size - 1}" if self.size > 1 else "")
        self.columns: list[list] = []                   # to store, see `check_columns`
        self.keys: dict[int, list[str]] = {}            # the unique keys by place, "" where there is none
        self.problems = {at - part.start: [problem] for at, problem in block.unread.items() if at in part}
        self.clashes: dict[int, list[Problem]] = {}
        self.unsettled: dict[int, str] = {}
        self.verdicts: dict[int, str] = {}              # by position, where it is not INSERTED
        self.failure: str | None = None
        self.transaction = 0
        self.began_at = self.ended_at = time.perf_counter()
        self.ready, self.answered, self.begins = Gate(), Gate(), threading.Lock()

    def validate(self) -> None:
        """Turn the cells into columns to store, keys and problems."""
        self.columns, problems = check_columns(self.schema, self.cells, self.block.are_texts)
        self.problems = problems | self.problems        # what could not be read has no more
        for place in self.schema.unique:
            texts = [text or "" for text in self.columns[place]]
            joined = "".join(texts)
            is_folded = joined.isascii() and joined == joined.lower()   # most keys are the texts themselves
            self.keys[place] = texts if is_folded else list(map(unique_key, texts))

    def line(self, position: int) -> int:
        """Return where a record begins."""
        return self.block.lines[self.part.start + position]

    def answer(self) -> None:
        """Tell the verdicts to who waits; of a batch that failed, only what a record is by itself counts."""
        if self.failure:
            self.clashes, self.verdicts = {}, dict.fromkeys(range(self.size), FAILED)
        self.problems |= self.clashes
        self.verdicts |= dict.fromkeys(self.unsettled, FAILED) | dict.fromkeys(self.problems, REJECTED)
        self.counts = Counter(self.verdicts.values())
        self.counts += {INSERTED: self.size - len(self.verdicts)}       # unless there are none
        self.ended_at = time.perf_counter()
        self.answered.open()

    def outcome(self, position: int) -> Outcome:
        """Return what became of a record, its problems in the order of the fields; after the answer."""
        verdict, order = self.verdicts.get(position, INSERTED), (None, *self.schema.names)
        problems = sorted(self.problems.get(position, ()), key=lambda problem: order.index(problem.field))
        reason = self.failure or self.unsettled.get(position)
        return Outcome(verdict, problems, reason if verdict == FAILED else None)


def _repeated(values: Iterable) -> set:
    """Return the values, but None and "", that stand there more than once."""
    values = list(filter(None, values))
    several = Counter(values).items() if len(set(values)) < len(values) else ()
    return {value for value, count in several if count > 1}


def pick(columns: Iterable[Sequence], positions: Sequence[int]) -> list[Sequence]:
    """Return the values of columns at these positions."""
    if isinstance(positions, range):
        return [*columns]
    take = operator.itemgetter(*positions)      # half the time of a loop; it makes no sequence of one
    return [take(column) if len(positions) > 1 else [take(column)] for column in columns]


def settle(batch: Batch, table: Any) -> None:
    """Decide and store a batch in the worker's transaction; one by one where a constraint refuses."""
    try:
        with table.all_or_none(batch.replaces and batch.size > 1):
            _settle(batch, table)
    except ConstraintError:
        batch.verdicts, batch.clashes = {}, {}
        _settle(batch, table, one_by_one=True)


def _settle(batch: Batch, table: Any, one_by_one: bool = False) -> None:
    """Decide every record of a batch, and store those that are to be stored.

    Is this e-mail taken?  The transaction began alone among all writers, so what is read here stays true
    until it ends, and it sees its own earlier batches.  First the ids: a stored record that is the same makes
    this one unchanged.  Of the others, one look-up a unique field tells which of their keys stored records
    hold.  A record is suspect if its id is stored, if one of its keys is held, or if its id or a key stands
    twice in the batch.  All others can clash with nothing: the sound ones are inserted together.  The
    suspects are decided one by one, in input order: what each takes or frees counts for the next.  So the
    first in input order wins, whatever the threads did; and a record that was rejected for itself is told its
    clashes too, but claims neither an id nor a key.
    """
    ids, gone = batch.columns[0], {*batch.problems, *batch.unsettled}
    rows, same = {}, set()
    twice = _repeated(ids) if len(set(ids)) < len(ids) else set()
    if None in ids or min(ids) <= table.last_id:        # ids that only grow need no look-up at all
        rows = table.find_rows({id_ for id_ in ids if id_ and id_ <= table.last_id})
        same = {position for position, row in enumerate(zip(*batch.columns))
                if rows.get(row[0]) == row and row[0] not in twice and position not in gone}
        batch.verdicts.update(dict.fromkeys(same, UNCHANGED))
    suspects = set(range(batch.size) if one_by_one else positions_of({*rows, *twice}, ids))
    others = [rows[ids[position]] for position in positions_of(rows, ids) if position not in same]
    holders: dict[int, dict[str, int]] = {}             # of the batch's keys, by place
    for place, keys in batch.keys.items():
        own = {unique_key(row[place]): row[0] for row in others if isinstance(row[place], str)}
        left = [key for position, key in enumerate(keys)
                if position not in same and key not in own] if rows else keys
        holders[place] = own | table.find_holders(place, list(filter(None, left)))
        suspects.update(positions_of({*holders[place], *_repeated(keys)}, keys))
    gone |= same
    if suspects := sorted(suspects - same - batch.unsettled.keys()):
        rows |= table.find_rows({id_ for held in holders.values() for id_ in held.values()} - rows.keys())
        gone |= _judge_suspects(batch, suspects, rows, holders, table, one_by_one)
    new: Sequence[int] = range(batch.size)
    _store(batch, list(itertools.filterfalse(gone.__contains__, new)) if gone else new, table)


def _judge_suspects(batch: Batch, suspects: list[int], rows: dict[int, tuple],
                    holders: dict[int, dict[str, int]], table: Any, one_by_one: bool) -> set[int]:
    """Decide the suspects in input order; return the positions of those that are not to be inserted.

    `rows` and `holders` are kept as they are after each record.  What replaces a stored row is stored here,
    before anything that may need its key; `one_by_one` everything is, and what is refused takes nothing.
    """
    inserted, replaced = {}, {}             # the position of what is to stand there, by id
    for position, row in zip(suspects, zip(*pick(batch.columns, suspects))):
        id_, before, is_sound = row[0], rows.get(row[0]), position not in batch.problems
        if row == before and is_sound:
            batch.verdicts[position] = UNCHANGED
        elif problems := _find_clashes(batch, position, row, before, rows, holders):
            batch.clashes[position] = problems if is_sound else problems + batch.problems[position]
        elif is_sound:
            try:
                if one_by_one:
                    with table.all_or_none():
                        _store(batch, [position], table, before is not None)
            except ConstraintError as error:
                batch.unsettled[position] = f"a constraint of the table refuses it: {error}"
                continue
            rows[id_] = row
            for place, keys in batch.keys.items():
                holders[place][keys[position]] = id_
            if before:
                batch.verdicts[position] = REPLACED
            if not one_by_one:
                (replaced if before and id_ not in inserted else inserted)[id_] = position
    _store(batch, [*replaced.values()], table, True)
    return set(suspects).difference(inserted.values())


def _find_clashes(batch: Batch, position: int, row: tuple, before: tuple | None, rows: Mapping[int, tuple],
                  holders: Mapping[int, Mapping[str, int]]) -> list[Problem]:
    """Return why a record cannot stand beside the others: its id has other content, a key another holder."""
    problems = []
    if before and before != row and not batch.replaces:
        differing = [name for name, old, new in zip(batch.schema.names, before, row) if old != new]
        problems.append(Problem("id", "conflict", row[0], " and ".join(differing)))
    for place, keys in batch.keys.items():
        holder = holders[place].get(keys[position], row[0])
        text = rows.get(holder, row)[place]
        is_same = text == row[place]
        if holder != row[0] and (is_same or unique_key(text) == keys[position]):    # it still holds it
            detail = f"{batch.schema.record} {holder}" + ("" if is_same else f" ({escape(str(text), 60)})")
            problems.append(Problem(batch.schema.names[place], "not_unique", row[place], detail))
    return problems


def _store(batch: Batch, positions: Sequence[int], table: Any, replaces: bool = False) -> None:
    if positions:
        keys = dict(zip(batch.keys, pick(batch.keys.values(), positions)))
        table.insert(pick(batch.columns, positions), keys, replaces)


IDS_MAX = 1 << 25                   # ids of a model that are known without asking its database
REJECTED_MAX = 500_000              # rejected records of a model whose lines are kept, at 100 bytes each


class InsertWorker:
    """The only thread that uses one database's table; it answers every ticket, whatever happens.

    A ticket is what it has to call: `take` a batch, `commit`, answer a look-up.  The first error fails the
    transaction it hits and all records to come; a worker that `serves` another program opens its table anew
    for what is asked after that.  It commits as soon as nothing else waits; one that loads, only when it has
    a ticket to, so that its transactions depend on the input alone.
    """

    def __init__(self, schema: Schema, name: str, open_table: Callable[[], Any], watch: Watch, serves: bool,
                 is_parent: bool) -> None:
        self.schema, self.name = schema, name
        self.complete = Gate()              # all of this load's records are stored, or will not be
        self.failure: str | None = None
        self._failed_at = self._unread_at = 0.0         # what began before fails alike: batches, look-ups
        self.is_absent = self._was_aborted = False      # there is no such table, and none is made
        # Of a parent's records, by id: the line of a rejected one, None if a constraint refused it.
        self.rejected: dict[int | None, int | None] = {}
        self._first, self._is_stored = 0, bytearray()   # a byte each, from this id on: whether it is stored
        self.transactions = 0
        self._open_table, self._watch, self._serves = open_table, watch, serves
        self._is_asked = is_parent and not serves       # by children, once it is complete
        self._table: Any = None
        self._group, self._begun_at = [], None          # batches of the open transaction, and its begin
        self._queue: queue.SimpleQueue = queue.SimpleQueue()
        self.submit = self._queue.put       # gives a ticket its place, from any thread; None is the last
        self._thread = threading.Thread(target=self._run, name=f"insert-worker {name}", daemon=True)
        self.join = self._thread.join       # returns when all tickets are answered and the table is closed
        try:
            self._thread.start()
        except (RuntimeError, MemoryError) as error:
            raise OSError(f"no thread could be started for {name}: {error}") from error

    def find(self, ids: Collection[int]) -> dict[int, tuple]:
        """Return the committed rows with these ids, to any thread; raises StorageError."""
        answered, found = Gate(), []
        self.submit(functools.partial(self._look_up, ids, time.perf_counter(), found, answered))
        self.wait(answered)
        if not found:
            raise StorageError(self.failure)
        return found[0]

    def wait(self, answered: Gate) -> None:
        """Wait for an answer; raises RuntimeError if the worker had ended before it was asked."""
        while not answered.wait(1):
            if not self._thread.is_alive() and not answered.wait(0):
                raise RuntimeError("the databases are closed")

    def missing(self, ids: Sequence[int | None]) -> dict[int, int]:
        """Tell any thread by position which ids are not stored, once it is complete; raises StorageError."""
        if self.failure and not self._serves:
            raise StorageError(self.failure)
        first, is_stored = self._first, self._is_stored
        stop = first + len(is_stored)
        unknown = {position: id_ for position, id_ in enumerate(ids)
                   if id_ is not None and not (first <= id_ < stop and is_stored[id_ - first])}
        stored = self.find(set(unknown.values())) if unknown else {}
        return {position: id_ for position, id_ in unknown.items() if id_ not in stored}

    def abort(self) -> None:
        """Make what waits in the database fail, from any thread."""
        self._was_aborted = True
        if table := self._table:
            table.abort()

    def _run(self) -> None:
        opens = functools.partial(self._look_up, (), time.perf_counter(), [], Gate())       # at once
        for ticket in itertools.chain([opens], iter(self._queue.get, None), [self.commit]):
            ticket()
            if self._serves and self._queue.empty():
                self.commit()
        if self._table:
            self._table.close()

    def take(self, batch: Batch) -> None:
        """Wait until a batch is ready, then store it in the transaction, which is begun if there is none."""
        batch.ready.wait()
        self._group.append(batch)
        try:
            if batch.began_at < self._failed_at:        # while it waited
                batch.failure = self.failure
            elif batch.failure and not self._serves:    # a later record must not take what it may claim
                raise StorageError(batch.failure)
            elif not batch.failure:
                table = self._opened()
                if self._begun_at is None:
                    self._begun_at = time.perf_counter()
                    table.begin()           # here a lock is waited for
                settle(batch, table)
                batch.transaction = self.transactions + 1
        except Exception as error:
            self._fail(error)

    def _look_up(self, ids: Collection[int], began_at: float, found: list[dict], answered: Gate) -> None:
        """Answer `find`; what waited while another look-up failed fails alike, without a try."""
        self.commit()                       # it sees nothing that is not durable
        try:
            if began_at >= self._unread_at:
                table = self._opened()
                found.append(table.find_rows(ids) if table else {})
        except Exception as error:
            self._fail(error)
            self._unread_at = self._failed_at
        answered.open()

    def _opened(self) -> Any:
        if self._table is None and not self.is_absent:
            self._table = self._open_table()
            self.is_absent = self._table is None
        return self._table

    def commit(self) -> None:
        """Commit what there is, synced, and only then answer."""
        group, began_at = self._group, self._begun_at
        try:
            if began_at is not None:
                with self._watch.span("commit", self.name):
                    self._table.commit()
                self.transactions += 1
        except Exception as error:
            self._fail(error)
            began_at = None
        self._group, self._begun_at = [], None
        for batch in group:
            batch.answer()
            self._remember(batch)
        if began_at is not None and not self._table.is_trial:
            self._watch.transaction(self.name, self.transactions, group, began_at)

    def _remember(self, batch: Batch) -> None:
        """Keep what children will ask about a parent's records."""
        if not self._is_asked or batch.failure:
            return
        ids, gone = batch.columns[0], {*batch.problems, *batch.unsettled}
        for position in sorted(batch.problems) if len(self.rejected) < REJECTED_MAX else ():
            self.rejected.setdefault(ids[position], batch.line(position))
        self.rejected.update(dict.fromkeys(ids[position] for position in batch.unsettled))
        stored = [id_ for position, id_ in enumerate(ids) if position not in gone] if gone else ids
        first = self._first = self._first or min(stored, default=0)
        stop = first + min(max(stored, default=0) - first + 1, IDS_MAX)
        self._is_stored.extend(bytes(max(stop - first - len(self._is_stored), 0)))
        for id_ in stored:
            if first <= id_ < stop:
                self._is_stored[id_ - first] = 1

    def _fail(self, error: Exception) -> None:
        """Fail the open transaction, what waits behind it and, unless it serves, all that is to come."""
        kind = "" if isinstance(error, StorageError) else f"{type(error).__name__}: "
        text = "interrupted" if self._was_aborted else kind + escape(str(error), 300)
        self._watch.log("ERROR", self.name, text)
        self.failure = f"{self.name}: {text}"
        for batch in self._group:
            batch.failure = self.failure
        if self._table:
            self._table.close()
        self._table = self._begun_at = None
        self._failed_at = time.perf_counter() if self._serves else float("inf")


# ------------------------------------------------------------------------------------------------- Inserting
# The way of a batch: its own thread, or a caller of another program, carries it to its verdicts.  A loader's
# main thread makes batches of files and reports what is answered.


class Databases(contextlib.AbstractContextManager):
    """The insert workers of all models, for any number of threads; made by `open_databases`.

    Deleting is not offered: a user cannot be taken away safely from one database while an order that refers
    to it may be on its way into another.
    """

    def __init__(self, schemas: Sequence[Schema], place: Any, watch: Watch,
                 sources: Sequence[Any] | None = None, open_table: Callable[..., Any] | None = None) -> None:
        """Only references to models without a source are looked up; without sources, it serves a program."""
        self.schemas, self._place, self._watch = schemas, place, watch
        self._sources = {source.schema.table: source for source in sources or ()}
        self.workers: dict[str, InsertWorker] = {}
        self._calls, self._is_closed = set(), False     # calls in progress: one enters before it looks
        serves = sources is None
        written = {schema.table for schema in schemas if serves or schema.table in self._sources}
        parents = {table for schema in schemas if schema.table in written
                   for table in schema.references.values()}
        for schema in [schema for schema in schemas if schema.table in written | parents]:
            writes = schema.table in written
            opens = open_table if open_table and writes else place.open
            worker = self.workers[schema.table] = InsertWorker(
                schema, place.name(schema), functools.partial(opens, schema, writes, serves), watch, serves,
                schema.table in parents)
            if serves or not writes:
                worker.complete.open()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not (kind and self._sources):    # a load that broke may wait for what will never come
            self.close()

    def insert(self, model: str, record: Mapping[str, object], *, replace: bool = False) -> Outcome:
        """Return what became of one record, after its commit; never raises for a bad one or a database.

        With `replace` a stored record with the same id and other content is replaced.  Calls that wait at the
        same time share a commit.  After a failure the next call opens the database again.
        Raises ValueError for an unknown model, RuntimeError after closing.
        """
        with self._calling(model) as worker:
            cells, unread = record_cells(worker.schema, record)
            batch = Batch(worker.schema, Block(cells, [1], tuple, unread), range(1), 1, replace)
            self.check(batch)
            batch.began_at = time.perf_counter()        # from now on it waits for this database
            worker.submit(functools.partial(worker.take, batch))
            worker.wait(batch.answered)
            return batch.outcome(0)

    def find(self, model: str, id: int) -> dict[str, object] | None:
        """Return the stored record, or None; raises ValueError for an unknown model, StorageError."""
        with self._calling(model) as worker:
            number = _judge_whole("id", id)
            rows = {} if isinstance(number, Problem) else worker.find([number])
            return dict(zip(worker.schema.names, rows[number])) if rows else None

    @contextlib.contextmanager
    def _calling(self, model: str) -> Iterator[InsertWorker]:
        if model not in [*self.workers]:    # it may be unhashable
            raise ValueError(f"{format_value(model)} is no model; there are {', '.join(self.workers)}")
        call = threading.get_ident(), object()
        try:
            if not self._is_closed:         # or those who call again and again would keep it open
                self._calls.add(call)       # before it looks again, as `close` marks before it counts
            if self._is_closed:
                raise RuntimeError("the databases are closed")
            yield self.workers[model]
        finally:
            self._calls.discard(call)

    def carry(self, batch: Batch) -> None:
        """Bring a batch that has its ticket to its verdicts; a batch's thread runs it."""
        try:
            batch.began_at = time.perf_counter()
            self.check(batch)
            batch.answered.wait()
        except Exception:                   # whatever it was, the batch is ready after this
            self.check(batch)

    def check(self, batch: Batch) -> None:
        """Validate a batch and look its references up, once; whatever happens, it is ready after that."""
        if not batch.begins.acquire(blocking=False):
            return
        batch.failure = "its thread ended early"        # unless it comes to the end of this
        try:
            references = batch.schema.references
            batch.validate()
            if references:
                name = f"wait for {', '.join(references.values())}"
                with self._watch.span(name, self.workers[batch.schema.table].name, batch.name):
                    for table in references.values():
                        self.workers[table].complete.wait()     # an order waits for users and products here
            for place, table in references.items():
                self._look_up(batch, place, self.workers[table])
            batch.failure = None
        except Exception as error:
            batch.failure = f"{type(error).__name__}: {escape(str(error), 200)}"
        finally:
            batch.ready.open()               # a lost thread would hold the load up for ever

    def _look_up(self, batch: Batch, place: int, parent: InsertWorker) -> None:
        """Find the references of one field that do not exist, in what the load stored and in the database."""
        ids, name = batch.columns[place], batch.schema.names[place]
        source = self._sources.get(parent.schema.table)
        try:
            missing, reason = parent.missing(ids), source and source.cut
        except StorageError as error:       # all: a later order must not take the id of an undecided one
            missing, reason = dict(enumerate(ids)), str(error)
        for position, id_ in missing.items():
            line, where = parent.rejected.get(id_, 0), parent.name
            if reason or line is None:
                batch.unsettled[position] = f"whether its {name} exists is not known: {reason or where}"
                continue
            if parent.is_absent:
                where += f": there is no {where}{self._place.where}"
            elif line:
                where += f" ({source.place(line)} was rejected)"
            problem = Problem(name, "no_such_reference", batch.cells[place][position], where, line != 0)
            batch.problems.setdefault(position, []).append(problem)

    def close(self) -> None:
        """Answer everybody who waits, and close the databases."""
        self._is_closed = True
        # Not a Condition: Ctrl-C in its code leaves it locked.  A call of this thread is over or waits below.
        while any(thread != threading.get_ident() for thread, _ in [*self._calls]):
            time.sleep(0.005)
        for worker in self.workers.values():
            worker.submit(None)
        for worker in self.workers.values():
            worker.join()


def open_databases(place: str, *, busy_timeout: float = 30.0,
                   schemas: Sequence[Schema] = SCHEMAS) -> Databases:
    """Return the databases of a folder or a PostgreSQL URL, made if missing, to insert single records into.

    Use it in a `with` block: it starts an insert worker a database; its end answers everybody and closes.
    `busy_timeout` is how many seconds a lock of another program is waited for.
    Raises ValueError for a place that cannot be used, OSError for a folder that may not be written.
    """
    the_place = find_place(os.fspath(place), Patience(busy_timeout))
    the_place.prepare()
    return Databases(schemas, the_place, Watch())


GROUP_RECORDS = 10_000              # that share their transactions; two groups are on their way
GROUP_BATCHES = 128                 # and their threads
SINGLE_MAX = 1000                   # records of a model up to which each has its own thread and is listed
START_S = 10                        # after which the main thread carries a batch whose thread has not begun


class Loader:
    """One load: reads the sources level by level, starts a thread a batch, reports the answers in order."""

    def __init__(self, databases: Databases, sources: Sequence[Any], report: Report, interrupts: Interrupts,
                 batch_size: int | None = None, replaces: bool = False) -> None:
        self.threads = 0
        self._databases, self._sources, self._report = databases, sources, report
        self._interrupts, self._batch_size, self._replaces = interrupts, batch_size, replaces
        self._group_before, self._group = [], []        # batches on their way; the last group is not full yet

    def run(self) -> None:
        """Load everything; an interrupt ends the reading, and what was read is brought to its verdicts."""
        with contextlib.ExitStack() as stack:           # puts back what it was
            stack.callback(threading.stack_size, threading.stack_size(1 << 18))     # 3,000 in 0.9, not 1.2 s
            stack.callback(sys.setswitchinterval, sys.getswitchinterval())
            sys.setswitchinterval(0.05)     # saves 4 %
            for level in find_levels(self._databases.schemas):
                self._read_level([source for source in self._sources if source.schema in level])
            self._report_all([*self._group_before, *self._group])

    def _read_level(self, sources: Sequence[Any]) -> None:
        """Read the sources in turns, a batch of each, until all have ended."""
        turns = deque((source, self._batches(source)) for source in sources)
        while turns:
            source, batches = turns.popleft()
            try:
                with self._interrupts.allowed(source.abort):
                    batch = next(batches, None)
                if not batch and self._interrupts.number is not None:
                    raise KeyboardInterrupt
            except KeyboardInterrupt:
                batch, source.cut = None, f"the reading of {escape(source.name)} was interrupted"
            if batch:
                turns.append((source, batches))
                self._start(batch)
            else:
                worker = self._databases.workers[source.schema.table]
                worker.submit(worker.commit)
                worker.submit(worker.complete.open)

    def _batches(self, source: Any) -> Iterator[Batch]:
        """Yield the records of a source: one a batch up to SINGLE_MAX, of more as they were read."""
        blocks, ahead, count, first = source.blocks(), [], 0, 1
        while count <= SINGLE_MAX and (block := next(blocks, None)):
            ahead.append(block)
            count += len(block.lines)
        size = self._batch_size or (1 if count <= SINGLE_MAX else RECORD_MAX)
        for block in itertools.chain(ahead, blocks):
            for start in range(0, len(block.lines), size):
                part = range(start, min(start + size, len(block.lines)))
                yield Batch(source.schema, block, part, first, self._replaces)
                first += len(part)
            if source.is_file and source.total is None:         # while a pipe is waited for, nothing is open
                self._commit()

    def _start(self, batch: Batch) -> None:
        """Give a batch its ticket, then start its thread: the order is decided here and nowhere else."""
        worker = self._databases.workers[batch.schema.table]
        worker.submit(functools.partial(worker.take, batch))
        self._group.append(batch)
        try:                                # half the cost of threading.Thread, which waits until it runs
            _thread.start_new_thread(self._databases.carry, (batch,))
            self.threads += 1
        except (RuntimeError, MemoryError):
            self._databases.check(batch)
        if len(self._group) >= min(GROUP_BATCHES, GROUP_RECORDS / batch.size):
            self._commit()                  # and report the group before, while they do
            self._report_all(self._group_before)
            self._group_before, self._group = self._group, []

    def _commit(self) -> None:
        for worker in self._databases.workers.values():
            worker.submit(worker.commit)

    def _report_all(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            begin = time.monotonic()
            while not batch.answered.wait(PROGRESS_S):
                self._report.progress()
                if time.monotonic() - begin > START_S:  # its thread may have died of want of memory
                    self._databases.check(batch)
                for worker in self._databases.workers.values() if self._interrupts.patience.hurried() else ():
                    worker.abort()
            self._report.add(batch)


# ---------------------------------------------------------------------------------------- Reporting
# All printing, and the files of rejected records.  The main thread alone runs it, on answered batches.

REJECTED_LISTED_MAX = 5             # of a model's records that are not listed each
CELL_WIDTH = 40
LINE_END = re.compile("\r\n?|\n")
PROGRESS_S = 0.1                    # between two looks at how far it is
BAR_COLUMNS = 69                    # what is longer loses the rate
COLOURS = dict(zip(VERDICTS, ("32", "32", "2", "31", "1;31")))
KIND = operator.attrgetter("field", "code", "waits")    # of a problem, to be counted
VERIFY_WORDS = {INSERTED: "sound", REJECTED: "broken", FAILED: FAILED}


class Output:
    """Standard output, and a bar on standard error; a reader who leaves ends nothing but the printing."""

    def __init__(self, stream: Any) -> None:
        self.error = None if stream else "standard output is closed"
        self._stream, self._is_terminal, self._bar = stream, bool(stream) and stream.isatty(), ""
        is_dumb = os.environ.get("TERM") == "dumb"
        self._has_colour = self._is_terminal and not is_dumb and "NO_COLOR" not in os.environ
        self.has_bar = bool(sys.stderr) and sys.stderr.isatty() and not is_dumb
        is_unicode = (getattr(stream, "encoding", None) or "utf-8").lower().startswith("utf")
        self.marks = dict(zip(VERDICTS, "✓↻=✗!" if is_unicode else "+~=x!"))
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

    def paint(self, text: str, colour: str = "1") -> str:
        """Return a text in a colour (an SGR code), where colours are shown."""
        return f"\x1b[{colour}m{text}\x1b[0m" if self._has_colour else text

    def wrap(self, line: str) -> str:
        """Return a line, on a terminal wrapped at words."""
        if not self._is_terminal:
            return line
        import textwrap
        return textwrap.fill(line, os.get_terminal_size().columns or 80, subsequent_indent=" " * 8,
                             break_long_words=False, break_on_hyphens=False)

    def table(self, rows: Sequence[Sequence[str]], left: int, colours: Mapping[int, str]) -> list[str]:
        """Return rows as lines, the first a heading, `left` columns to the left; counts but 0 get colours."""
        widths, lines = [max(map(len, column)) for column in zip(*rows)], []
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row[:left], widths)]
            cells += [cell.rjust(width) for cell, width in zip(row[left:], widths[left:])]
            for place in [place for place in colours if lines and row[place] != "0"]:
                cells[place] = self.paint(cells[place], colours[place])
            lines.append("  ".join(cells).rstrip())
        return [self.paint(lines[0]), *lines[1:]]

    def draw(self, bar: str) -> None:
        """Show a bar in place of the last one, where standard error is a terminal."""
        if self.has_bar and bar != self._bar:
            self._bar = bar
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.write(f"\r\x1b[K{bar}")
                sys.stderr.flush()

    def write(self, text: str) -> None:
        """Print, in place of the bar; an error ends all printing."""
        if text:
            self.draw("")
        try:
            if self._stream:
                self._stream.write(text)
                self._stream.flush()
        except (OSError, ValueError) as error:
            self._stream = None
            if not isinstance(error, BrokenPipeError):
                self.error = f"standard output: {describe(error)}"


def complain(*messages: str | None) -> None:
    """Print messages on standard error."""
    for message in filter(None, messages):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(f"distributed_inserts: {hide_secrets(message)}\n")


def json_line(value: object) -> str:
    """Return a value as a line of ASCII without any control character."""
    return json.dumps(value, separators=(",", ":")).replace("\x7f", "\\u007f") + "\n"


class Section:
    """One model's input, and what became of its records so far."""

    def __init__(self, source: Any, name: str, words: Mapping[str, str]) -> None:
        self.source, self.name, self.table, self._words = source, name, source.schema.table, words
        self.seconds = 0.0                  # until the last of its records was answered
        self.counts, self.why = Counter(), Counter()    # by verdict; rejected ones by field and code
        self.held: list[tuple[list, str, Outcome]] = []
        self.failure: str | None = None     # the first reason why records failed
        self._tells_bytes = source.is_file  # if one is met that is no text

    def count(self, batch: Batch) -> None:
        """Count an answered batch's records, and why some of them were rejected."""
        self.counts.update(batch.counts)
        self.failure = self.failure or batch.failure or next(iter(batch.unsettled.values()), None)
        for kinds, count in Counter([tuple(map(KIND, each)) for each in batch.problems.values()]).items():
            reasons = sorted({f"{field or 'record'} {code}" for field, code, _ in kinds})
            if all(waits for _, _, waits in kinds):
                reasons = ["only waits for a rejected parent"]
            self.why.update(dict.fromkeys(reasons, count))
        if self._tells_bytes and "bad_text" in " ".join(self.why):
            found = [(batch.line(position), problem.detail) for position, problems in batch.problems.items()
                     for problem in problems if problem.detail.startswith("the byte")]
            for line, detail in sorted(found)[:1]:
                self._tells_bytes, encoding = False, self.source.encoding.upper()
                name = "cp1252 if it comes from Windows" if encoding == "UTF-8" else "and another name"
                self.source.notices.append(f"{self.source.place(line)}: {detail[:13]} is not {encoding}:"
                                           f" load it with --encoding {name}")

    def describe(self, batch: Batch, position: int) -> dict[str, Any]:
        """Return what a line of JSON says of a record."""
        told = {"model": self.table, "source": self.source.name, self.source.unit: batch.line(position)}
        if batch.block.first_item is not None:
            told["item"] = batch.block.first_item + batch.part.start + position
        id_ = batch.columns[0][position] if batch.columns else None
        id_ = batch.cells[0][position] if id_ is None else id_
        told["id"] = id_ if id_ is None or isinstance(id_, (int, str)) else format_value(id_)
        verdict, problems, reason = batch.outcome(position)
        told["verdict"], told["problems"] = self._words[verdict], [
            {"field": each.field, "code": each.code, "message": each.message} for each in problems]
        return {**told, "reason": reason} if reason else told


class Report:
    """Lists records, prints the summary, shows how far it is."""

    def __init__(self, sources: Sequence[Any], place: Any, options: argparse.Namespace, out: Output,
                 rejects: Rejects | None, watch: Watch, patience: Patience) -> None:
        self._options, self._out, self._rejects, self._watch = options, out, rejects, watch
        self._patience, self._begin, self._looked_at = patience, time.monotonic(), time.monotonic()
        self._words = VERIFY_WORDS if options.verify else {
            word: word for word in VERDICTS if word != REPLACED or options.replace or options.json}
        self.sections = {source.schema.table: Section(source, place.name(source.schema), self._words)
                         for source in sources}
        self.counts: Counter[str] = Counter()

    def add(self, batch: Batch) -> None:
        """Report an answered batch; those of a model come in input order."""
        section, options = self.sections[batch.schema.table], self._options
        section.count(batch)
        section.seconds = time.monotonic() - self._begin
        self.counts.update(batch.counts)
        self._watch.event(batch.name, section.name, batch.began_at, batch.ended_at, batch.name,
                          lines=f"{batch.line(0)}-{batch.line(batch.size - 1)}",
                          transaction=batch.transaction, **batch.counts)
        everything, is_short = range(batch.size), section.counts.total() <= SINGLE_MAX
        bad = everything if batch.failure else sorted({*batch.problems, *batch.unsettled})
        if self._rejects and batch.problems:
            self._rejects.add(section, batch)
        if self._watch.is_logging:
            self._log(section, batch, everything if options.verbose else bad)
        is_full = options.verbose or not options.verify and (options.json or is_short)
        listed: Sequence[int] = () if options.quiet else everything if is_full else bad
        if options.json:
            self._out.write("".join(json_line(section.describe(batch, position)) for position in listed))
        else:
            few = None if options.verbose or is_short else REJECTED_LISTED_MAX
            section.held += [([column[position] for column in batch.cells], section.source.place(
                batch.line(position)), batch.outcome(position)) for position in listed[:few]]
            if few:
                section.held = [each for each in section.held if each[-1].verdict in (REJECTED, FAILED)][:few]
            elif len(section.held) > SINGLE_MAX:
                self._list(section)
        self.progress()

    def _log(self, section: Section, batch: Batch, positions: Iterable[int]) -> None:
        """Log records, a line each: search for `users id=8 `."""
        for position in positions:
            told, source = section.describe(batch, position), section.source
            why = "; ".join(f"{each['message']} [{each['code']}]" for each in told["problems"])
            why = why or told.get("reason", "").removeprefix(f"{section.name}: ")
            place = source.place(batch.line(position)) if source.unit == "line" else ""  # else the id says it
            words = told["verdict"], section.table, f"id={format_value(told['id'])}", place, why
            text = " ".join(filter(None, words))
            self._watch.log("WARNING" if why else "INFO", section.name, text, batch.name)

    def _list(self, section: Section) -> None:
        """Print the held records in columns under a heading, the problems of each below it."""
        out, rows, reasons = self._out, [section.source.schema.names], {None}
        for cells, _, _ in section.held:
            rows.append(["" if cell is None else escape(cell if isinstance(cell, str) else format_value(cell),
                                                        CELL_WIDTH) for cell in cells])
        head, *rows = out.table(rows, len(rows[0]), {})
        both = dict.fromkeys([section.name, escape(section.source.name)])       # one of --verify
        lines = [out.paint(" from ".join(both)), f"{'':15}{head}"]
        for row, (_, place, (verdict, problems, reason)) in zip(rows, section.held):
            mark = out.paint(f"{out.marks[verdict]} {self._words[verdict]:9}", COLOURS[verdict])
            why = [f"{each.message.replace(' ', ': ' if each.field else ' ', 1)} [{each.code}]"
                   for each in problems] + list({reason} - reasons)
            reasons.add(reason)
            lines += [f"  {mark}  {row}".rstrip(), *(out.wrap(f"      {place}: {each}") for each in why)]
        out.write("\n".join([*lines, "", ""]))
        section.held = []

    def summarize(self, exit_status: int, cut: str, threads: int, transactions: Sequence[int],
                  next_step: str) -> None:
        """Print what is still held, the counts, why records were rejected, the totals and the next step."""
        words, options, out, models = self._words, self._options, self._out, {}
        counts = [["database", "read", *words.values(), "seconds"]]
        why = [[words[REJECTED], "why", "records"]]
        for table, section in self.sections.items():
            numbers = {"read": section.counts.total()} | {words[each]: section.counts[each] for each in words}
            models[table] = {"database": section.name, **numbers, "seconds": round(section.seconds, 3),
                             "problems": section.why}
            counts.append([section.name, *map("{:,}".format, numbers.values()), f"{section.seconds:.2f}"])
            why += [[section.name, reason, f"{count:,}"] for reason, count in section.why.most_common()]
            if section.held:
                self._list(section)
        if options.json:
            reason = {"cut": cut} if cut else {}
            out.write(json_line({"summary": models, **reason, "exit_status": exit_status}))
            return
        verdicts = [f"{self.counts[each]:,} {word}" for each, word in words.items() if self.counts[each]]
        how = "nothing was written" if options.verify or options.dry_run else (
            f"in {sum(transactions):,} transactions by {len(transactions)} insert workers")
        totals = re.sub(r"\b(1 (?:record|transaction|insert worker|thread))s\b", r"\1", (
            f"{self.counts.total():,} records: {', '.join(verdicts) or 'none'}, {how}, {threads:,} threads, "
            f"{time.monotonic() - self._begin:.2f} s"))
        bad = {place: COLOURS[each] for place, each in enumerate(words, 2) if each in (REJECTED, FAILED)}
        blocks = [out.table(counts, 1, bad), [out.wrap(totals)]]
        if not options.quiet:
            blocks[1:1] = [out.table(why, 2, {})] * (len(why) > 1)
            blocks += [[next_step]] * bool(next_step)
        out.write("\n\n".join(map("\n".join, blocks)) + "\n")

    def progress(self) -> None:
        """Show how far it is, or which database is waited for, ten times a second at most."""
        now, last = time.monotonic(), self._looked_at
        if self._options.quiet or now - last < PROGRESS_S:
            return
        self._looked_at, elapsed_s = now, now - self._begin
        sources = [section.source for section in self.sections.values()]
        counts, total = self.counts, sum(source.total or 0 for source in sources)
        words = [f"{counts.total():,} rows", f"{counts.total() / elapsed_s:,.0f}/s",
                 f"{counts[REJECTED]:,} {self._words[REJECTED]}"]
        if total and all(source.total is not None for source in sources):       # else more may come by a pipe
            share = min(sum(source.done() for source in sources) / total, 1)
            left = f"{elapsed_s / max(share, 0.001) - elapsed_s:,.0f} s left"
            words = [f"{share:.0%}", *words[:2], *[left] * bool(counts), words[2]]
            if len("  ".join(words)) > BAR_COLUMNS:
                del words[2]
            if (size := min(BAR_COLUMNS - len("  ".join(words)) - 2, 10)) > 2:
                words.insert(0, f"{'█' * round(share * size):░<{size}}")
        for name, begin in list(self._patience.waits.items()):      # which the workers change meanwhile
            if now - begin >= 1:
                waited = f"{now - begin:.0f} of {self._patience.timeout_s:.0f} s"
                shown = name if len(name) < 30 else f"…{name[-28:]}"
                words = [f"{shown} is locked by another program: {waited}"]
                if last - begin < 1 and not self._out.has_bar:
                    complain(*words)
        self._out.draw("  ".join(words))


class Rejects:
    """The rejected records in their inputs' own formats, and `errors.jsonl` with a line per problem.

    All is gathered first and written at the end, errors.jsonl last: what is younger was edited since.
    """

    def __init__(self, folder: str, sources: Sequence[Source], watch: Watch,
                 stack: contextlib.ExitStack) -> None:
        """Raises OSError if the folder cannot be written, ValueError if others wrote a file there."""
        import tempfile
        self._sources, age = {source.schema.table: source for source in sources}, -1
        self._noting = functools.partial(watch.noting, "the rejected records cannot be written")
        self.paths = {table: os.path.join(folder, f"{table}.{source.format}")
                      for table, source in self._sources.items()}
        self._errors_path = os.path.join(folder, "errors.jsonl")
        with contextlib.suppress(FileNotFoundError), open(self._errors_path, "rb") as file:
            if b'{"model":'.startswith(file.read(9)):
                age = os.fstat(file.fileno()).st_mtime_ns
        names = [each.table + end for each in SCHEMAS for end in (".csv", ".json", ".jsonl")]
        paths = [os.path.join(folder, name) for name in ("errors.jsonl", *names)]
        self._old = list(filter(os.path.lexists, paths))
        for path in self._old:              # of all models: errors.jsonl gets younger than all
            status = os.stat(path)          # `mv` and `cp -p` keep the first of these
            if max(status.st_mtime_ns, status.st_ctime_ns) > age:
                raise ValueError(f"{escape(path)} is no rejects file, or was edited since it was written:"
                                 " load it and delete it, or name another folder")
        os.makedirs(folder, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, "Permission denied: it may not be written", folder)
        self._spools = {table: stack.enter_context(tempfile.TemporaryFile("w+", dir=folder))
                        for table in self.paths}

    def add(self, section: Section, batch: Batch) -> None:
        """Add the rejected ones of an answered batch's records, as they were read."""
        raws, begin = batch.block.raws(), batch.part.start
        with self._noting():
            self._spools[section.table].writelines(
                json_line([raws[begin + position], section.describe(batch, position)])
                for position in sorted(batch.problems))

    def close(self) -> None:
        """Write the files in the place of an earlier load's."""
        with self._noting():
            for path in self._old:
                if os.path.splitext(os.path.basename(path))[0] in self.paths:
                    os.remove(path)
            with open(self._errors_path, "w", newline="") as errors:
                for table in filter(lambda table: self._spools[table].tell(), self.paths):
                    errors.writelines(self._write(table))
            os.utime(self._errors_path)     # it is the youngest

    def _write(self, table: str) -> Iterator[str]:
        """Write a model's rejected records; yield a line for each of their problems."""
        source, spool, comma = self._sources[table], self._spools[table], ""
        is_array = source.format == "json"
        text = "\ufeff" * bool(source.bom) + source.header + "\n" * is_array
        with open(self.paths[table], "w", encoding=source.encoding, errors="keep_bytes", newline="") as file:
            file.write(text)
            line = 1 + len(LINE_END.findall(text))
            spool.seek(0)
            for raw, told in map(json.loads, spool):
                text = raw if is_array or raw.endswith(("\r", "\n")) else raw + "\n"
                file.write(comma * bool(text) + text)   # of where an array broke off there is no text
                problems, _ = told.pop("problems"), told.pop("verdict")
                yield from (json_line({**told, "rejects_line": line, **each}) for each in problems)
                line, comma = line + len(LINE_END.findall(text)) + is_array, ",\n" * is_array
            file.write("\n]\n" * is_array)


# --------------------------------------------------------------------------------------- Trace and log
# What happens, for those who look.  Any thread tells the Watch, which costs next to nothing if nobody does.

TRACE_EVENTS_MAX = 200_000          # the last ones: some 30 MB
TRACE_HEAD = '{"displayTimeUnit":"ms","otherData":{"made by":"distributed_inserts"},"traceEvents":['


class Watch:
    """A log, and a timeline (Chrome trace format: a process a database, a row a thread, times in µs)."""

    def __init__(self, log_file: str | None = None, trace_file: str | None = None,
                 databases: Sequence[str] = ()) -> None:
        """Raises OSError if a file cannot be written, ValueError if the timeline's is none of ours."""
        self.is_logging, self._databases = bool(log_file), list(databases)
        self._events: deque[dict] = deque(maxlen=TRACE_EVENTS_MAX)
        self.errors: dict[str, str] = {}    # the first one by what it made impossible
        self._trace = open(trace_file, "a+", encoding="utf-8", errors="replace") if trace_file else None
        if self._trace and (self._trace.seek(0) or self._trace.read(len(TRACE_HEAD))) not in ("", TRACE_HEAD):
            raise ValueError(f"{escape(trace_file)} is there already and is no timeline of this program")
        # Not buffered, each line is one call of the system: those of several threads do not mix.
        self._log = open(log_file, "ab", buffering=0) if log_file else None

    @contextlib.contextmanager
    def noting(self, what: str) -> Iterator[None]:
        """Note an error of the system, by what it made impossible, instead of raising it."""
        try:
            yield
        except OSError as error:
            self.errors.setdefault(what, f"{what}: {describe(error)}")

    def event(self, name: str, database: str, begin: float, end: float, work: str | None = None,
              **details: object) -> None:
        """Put what happened on the timeline; `work` is the thread, if it is not this one."""
        if self._trace:
            thread = work or threading.current_thread().name
            first = re.search(r"#(\d+)", thread)        # of a batch's records; the insert worker has row 1
            self._events.append({
                "ph": "X", "name": name, "pid": self._databases.index(database) + 1,
                "tid": int(first[1]) + 1 if first else 1, "ts": round(begin * 1e6, 1),
                "dur": round((end - begin) * 1e6, 1), "args": details, "thread": thread})

    @contextlib.contextmanager
    def span(self, name: str, database: str, work: str | None = None) -> Iterator[None]:
        """Put what happens inside on the timeline."""
        begin = time.perf_counter()
        yield
        self.event(name, database, begin, time.perf_counter(), work)

    def log(self, level: str, database: str, text: str, work: str | None = None) -> None:
        """Write a line into the log: `work` is the thread that it is about, if not this one."""
        if self._log:
            seconds, milliseconds = divmod(time.time_ns() // 1_000_000, 1000)
            moment = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{milliseconds:03}Z"
            thread = (work or threading.current_thread().name).replace(" ", "-")
            with self.noting("the log cannot be written"):
                line = f"{moment} {level} {thread} {database} {text}\n"
                self._log.write(line.encode(errors="backslashreplace"))

    def transaction(self, database: str, number: int, group: Sequence[Batch], begin: float) -> None:
        """Tell of a transaction that was committed."""
        if self._log or self._trace:
            counts, end = sum((batch.counts for batch in group), Counter()), time.perf_counter()
            details = {"first": group[0].name, "last": group[-1].name, **counts}
            self.event(f"transaction {number}", database, begin, end, **details)
            words = " ".join(f"{name}={value}" for name, value in details.items())
            self.log("INFO", database, f"transaction={number} {words} s={end - begin:.4f}")

    def close(self) -> None:
        """Write the timeline and close the files."""
        if self._log:
            self._log.close()
        if self._trace:
            processes = {each["pid"] for each in self._events}
            names = {("process_name", number, 0): self._databases[number - 1] for number in processes}
            names |= {("thread_name", each["pid"], each["tid"]): each.pop("thread") for each in self._events}
            meta = [{"ph": "M", "name": kind, "pid": process, "tid": row, "args": {"name": name}}
                    for (kind, process, row), name in sorted(names.items())]
            if len(self._events) == TRACE_EVENTS_MAX:
                complain(f"the timeline has no more than the last {TRACE_EVENTS_MAX:,} events")
            with self.noting("the timeline cannot be written"), self._trace:
                self._trace.truncate(0)
                events = ",\n".join(map(json.dumps, [*meta, *self._events]))
                self._trace.write(f"{TRACE_HEAD}\n{events}\n]}}\n")


# ---------------------------------------------------------------------------------------------- Other sources
# The built-in sample, small enough to be read, with a record for most reasons to be rejected; and what is
# stored: --verify is a load of it that inserts nowhere, see `open_trial`.  The main thread's, as all below.

SAMPLE: dict[str, str] = {table: "\n".join(lines) + "\n" for table, *lines in zip(*(
    re.split("  +", row) for row in """\
users                          products               orders
id,name,email                  id,name,price          id,user_id,product_id,quantity
1,Alice,alice@example.com      1,Laptop,1000.00       1,1,1,2
2,Bob,bob@example.com          2,Smartphone,700.00    2,2,2,1
3,Charlie,charlie@example.com  3,Headphones,150.00    3,3,3,5
4,David,david@example.com      4,Monitor,300.00       4,4,4,1
5,Eve,eve@example.com          5,Keyboard,50.00       5,5,5,3
6,Frank,frank@example.com      6,Mouse,30.00          6,6,6,4
7,Grace,grace@example.com      7,Laptop,1000.00       7,7,7,2
8,Alice,alice@example.com      8,Smartwatch,250.00    8,8,8,0
9,Henry,henry@example.com      9,Gaming Chair,500.00  9,9,1,-1
10,,jane@example.com           10,Earbuds,-50.00      10,10,11,2
""".splitlines()))}


class StoredSource:
    """The stored records of one schema as a source; `cut` tells if they cannot be read, or no longer."""

    unit, is_file, notices, abort = "id", False, (), None

    def __init__(self, place: Any, schema: Schema, stack: contextlib.ExitStack) -> None:
        self.schema, self.name, self.cut, self.table = schema, place.name(schema), None, None
        self.place = lambda id_: f"{self.name} id {format_value(id_)}"      # to find a record
        self.total = self._last_id = 0
        self.done = lambda: self._last_id   # how far the reading is, out of `total`
        try:
            if table := place.open(schema):
                stack.callback(table.close)
                self.table, self.total, self.abort = table, table.find_last_id(), table.abort
        except StorageError as error:
            self.cut = f"{self.name}: {error}"

    def blocks(self) -> Iterator[Block]:
        """Yield all records by id."""
        try:
            for rows in self.table.scan(2000) if not self.cut else ():
                self._last_id = rows[-1][0]
                yield Block(list(zip(*rows)), [row[0] for row in rows], tuple)
        except StorageError as error:
            self.cut = f"{self.name}: {error}"


def open_stored(place: Any, schemas: Iterable[Schema], stack: contextlib.ExitStack) -> list[StoredSource]:
    """Return what is stored, and closed by the stack; what is there and cannot be read has its `cut`."""
    sources = [StoredSource(place, schema, stack) for schema in schemas]
    return [source for source in sources if source.table or source.cut]


def open_sample(place: Any) -> list[Source]:
    """Return the sample; raises ValueError if anything else is stored: it does not go beside real records."""
    sources = [Source(each, "sample", text=SAMPLE[each.table]) for each in SCHEMAS if each.table in SAMPLE]
    with contextlib.ExitStack() as stack:
        for stored in open_stored(place, [source.schema for source in sources], stack):
            block, = Source(stored.schema, "sample", text=SAMPLE[stored.schema.table]).blocks()
            sample = set(zip(*check_columns(stored.schema, block.columns)[0]))
            if not all(sample.issuperset(zip(*block.columns)) for block in stored.blocks()) or stored.cut:
                reason = stored.cut or f"{stored.name} holds other records"
                raise ValueError(f"{reason}: the sample is not inserted{place.where}; name files to load"
                                 f" (--{SCHEMAS[0].table} FILE, see --help) or another folder (--db sample)")
    return sources


# ----------------------------------------------------------------------------------------------- Command line
# From arguments to an exit status.  What is wrong with them is told before anything is written.

EXAMPLES = """\
Load CSV or JSON into SQLite or PostgreSQL from many threads: every row checked
across databases, a verdict on each.

examples:
  %(prog)s                      # the sample
  %(prog)s --users users.csv --db shop --rejects rejected
  %(prog)s --users users.csv --db postgresql://db/{model}
  %(prog)s --verify --db shop   # check what is stored

models and their rules:
"""
EXIT_STATUSES = """\
exit status:
  0         every record is stored; always so with the bare sample
  1         some records were rejected, or --verify found a broken rule
  2         wrong usage or unreadable input; nothing was written
  3         a database failed, or an input or output broke off
  130, 143  interrupted by Ctrl-C or SIGTERM: what was reported is stored"""


class Interrupts:
    """SIGINT and SIGTERM during a load: the first one ends the reading, a second one the process."""

    def __init__(self, patience: Patience, stack: contextlib.ExitStack) -> None:
        self.patience, self.number = patience, None
        self._end_reading: Callable[..., object] | None = None
        if threading.current_thread() is threading.main_thread():       # no other thread may set them
            for number in (signal.SIGINT, signal.SIGTERM):
                stack.callback(signal.signal, number, signal.signal(number, self._receive))

    @contextlib.contextmanager
    def allowed(self, abort: Callable[[], None] | None) -> Iterator[None]:
        """Let a signal raise KeyboardInterrupt in here, or `abort` what may wait for ever."""
        self._end_reading = abort or functools.partial(signal.default_int_handler, 0, None)
        try:
            if self.number is not None:
                raise KeyboardInterrupt
            yield
        finally:
            self._end_reading = None

    def _receive(self, number: int, frame: object) -> None:
        if self.number is not None:
            os._exit(128 + number)          # no thread, lock or database is waited for
        self.number, self.patience.interrupted_at = number, time.monotonic()
        if self._end_reading:
            self._end_reading()


def build_parser(schemas: Sequence[Schema]) -> argparse.ArgumentParser:
    """Return the parser of the command line; each schema has the flag that names its input file."""
    rules = [f"  {'' if place else schema.table:10} {field.name:10} "
             f"{field.kind.format(field.references)}{', unique ignoring case' * field.unique}"
             for schema in schemas for place, field in enumerate(schema.fields)]
    parser = argparse.ArgumentParser(
        prog=f"python {os.path.basename(sys.argv[0])}", usage="%(prog)s [option ...]", allow_abbrev=False,
        exit_on_error=False, description=EXAMPLES + "\n".join(rules), epilog=EXIT_STATUSES,
        formatter_class=functools.partial(argparse.RawDescriptionHelpFormatter, width=80))
    add = parser.add_argument_group("input").add_argument
    for schema in schemas:
        add(f"--{schema.table}", metavar="FILE", action="append", default=[],
            help=f"{schema.table} to load: CSV, JSON, JSON Lines, gzip of these; - for standard input")
    add("--encoding", metavar="NAME", help="of the files, if not UTF-8 or UTF-16 with a mark: cp1252")
    add = parser.add_argument_group("databases").add_argument
    add("--db", metavar="PLACE", default=".", help="a folder of SQLite files (default: the current one), made"
        " if missing, or a PostgreSQL URL in which {model} stands for the database's name")
    add("--replace", action="store_true", help="replace stored records of the same id and other content")
    add("-n", "--dry-run", action="store_true", help="check everything, write nothing into the databases")
    add("--verify", action="store_true", help="check what is stored: rules, uniqueness, references")
    add("--busy-timeout", metavar="SECONDS", type=float, default=30, help="to wait for locks (default: 30)")
    add("--batch-size", metavar="N", type=int, help=f"of a thread (default: 1 up to {SINGLE_MAX:,} records)")
    add = parser.add_argument_group("output").add_argument
    add("--rejects", metavar="DIR", help="write rejected records there, ready to be fixed and loaded")
    add("--json", action="store_true", help="JSON Lines: one a record and a summary; with -q only that")
    add("-v", "--verbose", action="store_true", help="list every record, however many")
    add("-q", "--quiet", action="store_true", help="print the summary only")
    add("--log-file", metavar="FILE", help="append what happens to a log")
    add("--trace", metavar="FILE", help="write a timeline of all threads, which opens in Perfetto")
    versions = f"{__version__} (Python {sys.version.split()[0]}, SQLite {sqlite3.sqlite_version})"
    add("--version", action="version", version=f"%(prog)s {versions}")
    return parser


def parse_arguments(argv: Sequence[str], schemas: Sequence[Schema]) -> argparse.Namespace:
    """Return the options, `files` by table among them; raises ValueError and ArgumentError."""
    parser = build_parser(schemas)
    options, others = parser.parse_known_args(argv)
    flags = " or ".join(f"--{schema.table}" for schema in schemas)
    if others:
        near = find_near(others[0].partition("=")[0], re.findall(r"--[\w-]+", parser.format_help()))
        hint = f"{near[0]} is" if near else "--help lists them"
        hint = hint if others[0].startswith("-") else f"put {flags} before a file"
        raise ValueError(f"{format_value(others[0])} is no option: {hint}")
    given = [(schema.table, path) for schema in schemas for path in vars(options).pop(schema.table)]
    for name, value in (*vars(options).items(), *given):
        if value in ("", [], "--"):         # [] is what some Pythons make of `--db=--`
            raise ValueError(f"--{name.replace('_', '-')} needs a value (a file that is called -- is ./--)")
    options.files = dict(given)
    paths = list(options.files.values())
    urls = [path for path in paths if re.match("[a-z]+://", path) and not os.path.exists(path)]
    checks = {
        "--verify looks at what is stored: it takes no files, --dry-run, --replace or --rejects":
            options.verify and (paths or options.dry_run or options.rejects or options.replace),
        "--encoding and --replace are for files: name some, see --help":
            not paths and not options.verify and (options.encoding or options.replace),
        "-v lists everything and -q nothing: give one of them": options.verbose and options.quiet,
        f"{flags} can be given once each: load several files one by one": len(given) > len(paths),
        f"--batch-size is a whole number from 1, not {options.batch_size}": (
            options.batch_size is not None and options.batch_size < 1),
        "standard input (-) can be only one of the files": paths.count("-") > 1,
        "standard input is closed": "-" in paths and sys.stdin is None,     # 0 is then another file's number
        f"{''.join(urls[:1])} is a URL: download it first, or pipe it: curl URL | {parser.prog} … -": urls,
    }
    for message in [message for message, is_wrong in checks.items() if is_wrong]:
        raise ValueError(message)
    return options


def check_outputs(options: argparse.Namespace, sources: Sequence[Any], databases: Iterable[str]) -> None:
    """Raise ValueError if a file to be written is an input, a database or another file to be written."""
    rejects = ["errors.jsonl", *(f"{each.schema.table}.{each.format}" for each in sources if options.rejects)]
    taken: dict[object, str] = {}
    for what, path in (
            *(("an input", "/dev/stdin" if path == "-" else path) for path in options.files.values()),
            *(("a database", path + end) for path in databases for end in ("", "-wal", "-shm", "-journal")),
            ("--log-file", options.log_file), ("--trace", options.trace),
            *(("--rejects", os.path.join(options.rejects, name)) for name in rejects if options.rejects)):
        if path and (os.path.isfile(path) or not os.path.exists(path)):     # a device may be all of them
            file: object = os.path.realpath(path)
            with contextlib.suppress(OSError):          # it is not there, else only this inode of this device
                file = os.stat(path)[1:3]
            if what.startswith("--") and file in taken:
                raise ValueError(f"{what} would overwrite {escape(path)} ({taken[file]}): name another file")
            taken[file] = what


def format_next_step(options: argparse.Namespace, db: str, report: Report, rejects: Rejects | None,
                     cut: str) -> str:
    """Return what the user may want to do now, with a command that runs as printed, or nothing."""
    what, files, folder = "", options.files, options.rejects
    flags = ["--replace"] * options.replace + ["--dry-run"] * options.dry_run
    reasons = {reason for section in report.sections.values() for reason in section.why}
    rejected = [table for table, section in report.sections.items() if section.counts[REJECTED]]
    folders = itertools.chain(["rejected"], map("rejected{}".format, itertools.count(2)))
    new = next(itertools.filterfalse(os.path.lexists, folders))
    if "-" in files.values():
        return ""                           # what it held is not there any more
    if files and (report.counts[FAILED] or cut):
        what = "Run it again when the cause is gone"
    elif files and options.dry_run:
        what, flags, folder = "This was a dry run. Load the files", flags[:-1], folder or new
    elif files and reasons == {"id conflict"}:
        what, flags = "If these are changes, store them", ["--replace"]
    elif not files and not options.verify:
        what, db, folder = "This was the sample. Load your own files", "shop", None
        files = {table: f"{table}.csv" for table in report.sections}
    elif rejects and rejected:
        what, folder = "Fix the rejected records (errors.jsonl has the reasons) and load them", None
        files = {table: rejects.paths[table] for table in rejected}
    elif files and rejected:
        what, folder = "Get the rejected records in files, to be fixed", new
    import shutil                           # which a start without an answer does without
    python = os.path.basename(sys.executable)
    words = [python if shutil.which(python) == sys.executable else sys.executable, sys.argv[0]]
    for flag, value in {**files, "db": db, "encoding": options.encoding, "rejects": folder}.items():
        if value and (flag, value) != ("db", "."):
            words += [f"--{flag}={value}"] if value.startswith("-") else [f"--{flag}", value]
    quote = shlex.join
    if os.name == "nt":
        from subprocess import list2cmdline as quote
    return what and f"{what}:\n  {escape(quote([*words, *flags]))}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status; see EXIT_STATUSES."""
    out = Output(sys.stdout)
    try:
        with contextlib.ExitStack() as stack:
            gc.disable()                    # millions of tuples, hardly a cycle: it costs a tenth of a load
            stack.callback(gc.enable)
            status = _run(parse_arguments(sys.argv[1:] if argv is None else argv, SCHEMAS), out, stack)
    except SystemExit:
        status = 0
    except KeyboardInterrupt:
        complain("interrupted before the load began: nothing was stored")
        status = 130
    except (OSError, ValueError, argparse.ArgumentError) as error:
        name = f"{error.filename}: " if getattr(error, "filename", None) else ""
        complain(escape(name + (getattr(error, "strerror", None) or str(error)), 1000))
        status = 2
    except Exception as error:              # a broken program; what was reported so far is as reported
        complain(f"internal error: {type(error).__name__}: {escape(str(error), 300)}")
        status = 3
    out.write("")                           # --help is not flushed yet
    complain(out.error)
    return 3 if out.error and sys.stdout and status < 2 else status


def _run(options: argparse.Namespace, out: Output, stack: contextlib.ExitStack) -> int:
    """Load or verify; raises OSError and ValueError before it has begun."""
    is_trial = options.verify or options.dry_run
    patience = Patience(options.busy_timeout)
    place = find_place(options.db, patience)
    sources: list[Any] = [stack.enter_context(contextlib.closing(
        Source(schema, options.files[schema.table], options.encoding)))
        for schema in SCHEMAS if schema.table in options.files]
    place.prepare(writes=not is_trial)
    if options.verify and not (sources := open_stored(place, SCHEMAS, stack)):
        raise ValueError(f"there is no {', '.join(map(place.name, SCHEMAS))}{place.where}; see --db")
    sources = sources or open_sample(place)
    check_outputs(options, sources, place.paths(SCHEMAS))
    watch = Watch(options.log_file, options.trace, databases=list(map(place.name, SCHEMAS)))
    patience.tell = functools.partial(watch.log, "WARNING")
    rejects = Rejects(options.rejects, sources, watch, stack) if options.rejects else None
    report = Report(sources, place, options, out, rejects, watch, patience)
    interrupts = Interrupts(patience, stack)
    opens = functools.partial(open_trial, place, patience, options.verify) if is_trial else None
    with Databases(SCHEMAS, place, watch, sources, opens) as databases:
        loader = Loader(databases, sources, report, interrupts, options.batch_size, options.replace)
        loader.run()
    if rejects:
        rejects.close()
    watch.close()
    failures = sorted({worker.failure for worker in databases.workers.values()} - {None}) or [
        f"{each.name}: {each.failure}" for each in report.sections.values() if each.failure]
    cuts = [source.cut for source in sources if source.cut]
    status = 1 if report.counts[REJECTED] and (options.files or options.verify) else 0
    if failures or cuts or report.counts[FAILED] or watch.errors:
        status = 3
    status = 128 + interrupts.number if interrupts.number else status
    transactions = [databases.workers[table].transactions for table in report.sections]
    cut = "".join(cuts[:1])
    report.summarize(status, cut, loader.threads, transactions,
                     format_next_step(options, place.shown, report, rejects, cut))
    complain(*[note for source in sources for note in source.notices], *failures,
             *[f"not all was read: {each}" for each in cuts if each not in failures], *watch.errors.values())
    return status


if __name__ == "__main__":
    exit_status = main()
    if sys.flags.dev_mode:                  # it tells what is still open
        raise SystemExit(exit_status)
    os._exit(exit_status)   # all is flushed and closed; to free the memory piece by piece is 4 % of a load
