#!/usr/bin/env python3
# /// script
# requires-python = ">=3.10"
# dependencies = []
# ///
"""Insert records of several kinds into several SQLite databases at once and tell what became of every record.

    $ python distributed_inserts.py
    $ python distributed_inserts.py --users users.csv --products products.csv --orders orders.csv --rejects refused

Every check is made here and none by the databases.  The words used below:

record    one user, product or order: a row of a file, an element of a JSON array, an entry of the sample
schema    the declaration of one kind of record, of its table and of its database
field     one named value of a record; its kind fixes the rule that it obeys
problem   one reason to refuse a record: a field, a stable code and a message
verdict   what became of a record: inserted, unchanged, rejected or failed
batch     the consecutive records that one thread carries from the input to their verdicts; often just one
group     the batches that an insert worker stores in one transaction
worker    the only thread, with the only connection, that writes to a database

Threads: the main thread reads the inputs, starts a thread per batch and prints.  A batch's thread validates its
records, waits until the records that they refer to are durable, hands them to the worker of its database and waits
for the verdicts.  A worker takes what waits in input order, checks it against the table, inserts, commits, answers.
"""
from __future__ import annotations

import argparse
import bisect
import codecs
import contextlib
import csv
import enum
import errno
import functools
import gc
import io
import itertools
import json
import operator
import os
import queue
import re
import signal
import sqlite3
import stat
import sys
import threading
import time
import unicodedata
import urllib.parse
from collections import defaultdict, deque, namedtuple
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

if sys.version_info < (3, 10):
    raise SystemExit("distributed_inserts needs Python 3.10 or later; this is " + sys.version.split()[0])

__version__ = "1.0.0"

# ---------------------------------------------------------------------------------------------------- Schemas


class Kind(enum.Enum):
    """What a field holds; RULES says how it is checked and COLUMN_TYPES how it is stored."""

    ID = "whole number from 1, the record's own"
    COUNT = "whole number from 1"
    REFERENCE = "whole number, the id of a stored record"
    TEXT = "text that shows something"
    EMAIL = "e-mail address"
    PRICE = "finite number above 0"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a schema.  `unique` texts are compared by `unique_key`; `references` names another table."""

    name: str
    kind: Kind
    unique: bool = False
    references: str | None = None


@dataclass(frozen=True, slots=True)
class Schema:
    """One kind of record: its table, what one record is called, and its fields, the id first.

    Raises ValueError for a declaration that could not be kept.
    """

    table: str
    record: str
    fields: tuple[Field, ...]

    def __post_init__(self) -> None:
        for name in (self.table, self.record, *self.names):
            if not (name.isascii() and name.isidentifier()):
                raise ValueError(f"{self.table}: {name!r} is no name for a table or a column")
        if [each.name for each in self.fields if each.kind is Kind.ID] != ["id"] or self.names[0] != "id":
            raise ValueError(f"{self.table}: the first field, and no other, has to be the id")
        if len({name.casefold() for name in self.names}) < len(self.names):
            raise ValueError(f"{self.table}: a field is declared twice")
        for each in self.fields:
            if each.unique and each.kind not in (Kind.TEXT, Kind.EMAIL):
                raise ValueError(f"{self.table}.{each.name}: only a text or an e-mail address can be unique")
            if (each.kind is Kind.REFERENCE) != (each.references is not None):
                raise ValueError(f"{self.table}.{each.name}: a reference names the table it refers to,"
                                 " and nothing else does")

    @property
    def database(self) -> str:
        """The file name of the database."""
        return f"{self.table}.db"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the fields, which are the columns of the table and of a file."""
        return tuple(each.name for each in self.fields)

    @property
    def unique(self) -> list[tuple[int, Field]]:
        """The position and the field of every unique text."""
        return [(position, each) for position, each in enumerate(self.fields) if each.unique]

    @property
    def references(self) -> list[tuple[int, Field]]:
        """The position and the field of every reference."""
        return [(position, each) for position, each in enumerate(self.fields) if each.references]


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


def check_schemas(schemas: Sequence[Schema]) -> None:
    """Raise ValueError unless the names of the schemas differ and each refers only to schemas before it."""
    seen: set[str] = set()
    for schema in schemas:
        for _, each in schema.references:
            if each.references not in seen:
                raise ValueError(f"{schema.table}.{each.name} refers to {each.references},"
                                 " which is not declared before it")
        if schema.table in seen:
            raise ValueError(f"{schema.table} is declared twice")
        seen.add(schema.table)


# -------------------------------------------------------------------------------- Records, verdicts, problems

INSERTED, UNCHANGED, REJECTED, FAILED = VERDICTS = ("inserted", "unchanged", "rejected", "failed")

# Every problem code with the wording of its message.  `field` stands before the wording, `value` is the value found.
PROBLEMS: dict[str, str] = {
    "malformed": "{detail}",                                    # the record could not be read as one
    "missing": "is missing",                                    # no such key, or a JSON null
    "blank": "is blank",                                        # nothing, white space or characters that show nothing
    "not_text": "is {value}, not a text",                       # a JSON number, true, an array …
    "bad_text": "{value} holds a control character or half of a surrogate pair{detail}",
    "not_integer": "{value} is not a whole number in the digits 0-9",
    "not_number": "{value} is not a number in the digits 0-9",
    "not_positive": "{value} is not greater than 0",
    "out_of_range": "{value} is too large or too close to 0 to be stored",
    "not_email": "{value} is not an e-mail address",
    "not_unique": "{value} is already taken by {detail}",       # names the record that holds the value
    "conflict": "{value} is already stored with other content: {detail}",
    "no_such_reference": "{value} is not in {detail}",          # and where the parent was refused in this run
}


PATH_MAX = 4096                     # characters of a path in a message


class Problem(namedtuple("Problem", "field code value detail", defaults=(None, ""))):
    """One reason to refuse a record: the field (None for the whole record), a code of PROBLEMS, the value found.

    A tuple, as a bad file makes millions and a frozen dataclass takes three times as long to make.
    """

    __slots__ = ()

    @property
    def wording(self) -> str:
        """The message without the field's name."""
        return PROBLEMS[self.code].format(value=printable(self.value), detail=self.detail)

    @property
    def message(self) -> str:
        """One line for a person, with the field's name; every value in it is escaped and cut."""
        return f"{self.field} {self.wording}" if self.field else self.wording


@dataclass(slots=True, eq=False)
class Batch:
    """Consecutive records of one input on their way to their verdicts.

    The main thread makes it, then it belongs to its thread, from `submit` on to its worker, and after the answer to
    the main thread again.  `columns` hold the values to store, None for those refused; `problems` and `unchecked`
    (why a record could not be checked) are keyed by a record's position in the columns.
    """

    schema: Schema
    origin: Origin
    number: int
    places: Sequence[int]
    raws: Sequence[str]
    rows: Sequence[Sequence[object] | Problem]
    first: int = 1                          # the number of its first record in the input
    cells: list[Sequence[object]] = field(default_factory=list)
    malformed: list[tuple[int, str, Problem]] = field(default_factory=list)
    columns: list[list] = field(default_factory=list)
    keys: dict[int, list[str]] = field(default_factory=dict)
    problems: dict[int, list[Problem]] = field(default_factory=dict)
    unchecked: dict[int, str] = field(default_factory=dict)
    unchanged: set[int] = field(default_factory=set)
    failure: str | None = None
    transaction: int | None = None          # its number in its database
    lock_s: float = 0.0                     # how long that waited for a lock
    thread: threading.Thread | None = None
    is_done: bool = False                   # it has its verdicts and waits to be reported; the main thread's alone
    answer: queue.SimpleQueue = field(default_factory=queue.SimpleQueue)
    size: int = field(init=False)           # the number of its records, the malformed ones included

    def __post_init__(self) -> None:
        self.size = len(self.rows)

    @property
    def name(self) -> str:
        """The name of its thread: `users#8`, `users#1001-2000`."""
        last = self.first + self.size - 1
        return f"{self.schema.table}#{self.first}" + (f"-{last}" if last > self.first else "")

    @property
    def counts(self) -> dict[str, int]:
        """How many of its records have each verdict."""
        rejected, unchanged = len(self.problems) + len(self.malformed), len(self.unchanged)
        unsettled = range(len(self.places)) if self.failure else self.unchecked
        failed = len(set(unsettled) - self.problems.keys())
        return dict(zip(VERDICTS, (self.size - unchanged - rejected - failed, unchanged, rejected, failed)))

    def verdict(self, position: int) -> str:
        """Return the verdict on the record at a position of the columns; of use after the answer only."""
        if position in self.problems:
            return REJECTED
        if self.failure or position in self.unchecked:
            return FAILED
        return UNCHANGED if position in self.unchanged else INSERTED


@dataclass(frozen=True, slots=True)
class Origin:
    """Where records come from: a name, whether a place in it is a line or an item, and what of it messages add."""

    name: str
    unit: str = "line"
    part: str = ""

    def place(self, number: int) -> str:
        """Return what a person needs to find a record: `users.csv:11`, `users.json item 10`, `sample users:8`."""
        name = printable(self.name, PATH_MAX, quote=False) + (self.part and f" {self.part}")
        return f"{name}:{number}" if self.unit == "line" else f"{name} {self.unit} {number}"


def printable(value: object, limit: int = 60, quote: bool = True) -> str:
    """Return a value for a terminal or a message: escaped, cut to about `limit` characters, texts in quotes."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = min(max(value, -10**limit), 10**limit)      # str() of a huge int raises ValueError
    try:
        text = value if isinstance(value, str) else repr(value)
    except RecursionError:                  # a JSON value that is nested as deep as the decoder just takes
        text = "a deeply nested value"
    shown = text[:limit]
    if not shown.isprintable():
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in shown)
    shown += "..." if len(text) > limit else ""
    return f'"{shown}"' if quote and type(value) is str and not NUMBER.fullmatch(text) else shown


# ------------------------------------------------------------------------------------------------- Validation
# Pure functions.  A rule serves a whole column, and so one value as a column of one: its `convert` turns a column into
# the values to store with a handful of C calls and points at the odd ones, of which `judge` says what is wrong.

WHOLE_MAX = 2**63 - 1               # SQLite's largest integer
KEY_PLAIN_MAX = 1000                # characters of a unique text in which any marks are sorted in no time
EMAIL_MAX = 254                     # RFC 5321, 4.5.3.1.3, without the angle brackets
INTEGER = re.compile(r"-?[0-9]+")
PLAIN_INTEGER = re.compile(r"[0-9]{1,18}")
INT_TAKES_TOO = "+_ \t\n\r\v\f\x1c\x1d\x1e\x1f"     # in ASCII, beside the digits 0-9 and a minus
ODD_MAX = 100                       # odd values in a column that are found one by one
NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
UNSTORABLE = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff]")
# White space, U+2800 and the code points that Unicode lists as Default_Ignorable_Code_Point.
SHOWS_NOTHING = re.compile(
    "[\\s\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]*")
# Those of them that str.isprintable() lets pass.
PRINTABLE_BLANKS = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0" + "".join(
    map(chr, (*range(0xfe00, 0xfe10), *range(0xe0100, 0xe01f0))))
# The pattern of the HTML standard ("valid e-mail address"), without its stray dots and with RFC 6531's characters.
_ATOM = r"[a-zA-Z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]+"
_ALNUM = r"a-zA-Z0-9\x80-\U0010ffff"
_LABEL = rf"(?!-)[{_ALNUM}-]{{1,63}}(?<!-)"
EMAIL = re.compile(rf"(?=[^@]{{1,64}}@){_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.(?!\d+\Z){_LABEL})+")


class Numeral(str):
    """The text of a JSON number: a number by its text, but not a text."""

    __slots__ = ()


def _judge_numeral(value: object, pattern: re.Pattern[str], code: str) -> tuple[str, str | None]:
    """Return the text of a number and None, or its problem code."""
    if value is None:
        return "", "missing"
    if type(value) is int:
        text = str(min(max(value, -10**400), 10**400))      # beyond both kinds' range; str() of more digits raises
    elif isinstance(value, (str, float)):
        text = str(value)
    else:
        return "", code
    if not text.strip():
        return "", "blank"
    return text, None if pattern.fullmatch(text) else code


def _as_texts(values: Sequence[object]) -> tuple[Sequence[str], str]:
    """Return the values with "" for those that are no text, and all of them joined."""
    try:
        return values, "".join(values)
    except TypeError:
        texts = [value if isinstance(value, str) else "" for value in values]
        return texts, "".join(texts)


def _convert_whole(values: Sequence[object]) -> tuple[list, Sequence[int]]:
    texts, joined = _as_texts(values)
    if len(joined) > 18 * len(texts) or not joined.isascii() or any(map(joined.__contains__, INT_TAKES_TOO)):
        texts = [text if PLAIN_INTEGER.fullmatch(text) else "" for text in texts]
    numbers: list[int] = []
    odd: list[int] = []
    left = iter(texts)
    while len(numbers) < len(texts):
        try:
            numbers.extend(map(int, left))      # list.extend keeps what came before an error
        except ValueError:
            odd.append(len(numbers))
            numbers.append(1)
            if len(odd) == ODD_MAX:             # an error for each of the others would cost more than this
                left = iter([text if text.isdigit() else "0" for text in left])
    if min(numbers) < 1 or max(numbers) > WHOLE_MAX:
        odd += [position for position, number in enumerate(numbers) if not 1 <= number <= WHOLE_MAX]
    return numbers, odd


def _positions(values: Iterable[object], wanted: Iterable[object]) -> Iterator[int]:
    """Return the positions of the values that are among the wanted."""
    wanted = set(wanted)
    return itertools.compress(itertools.count(), map(wanted.__contains__, values)) if wanted else iter(())


def _failing(test: Callable[[object], object], values: Iterable[object]) -> list[int]:
    """Return the positions of the values that fail a test, which best is a C function."""
    return list(itertools.compress(itertools.count(), map(operator.not_, map(test, values))))


def _judge_whole(value: object, lowest: int = 1) -> tuple[int | None, str | None]:
    text, code = _judge_numeral(value, INTEGER, "not_integer")
    if code:
        return None, code
    digits = text.lstrip("-0")
    number = int(digits or "0") if len(digits) <= 19 else WHOLE_MAX + 1
    number = -number if text.startswith("-") else number
    if number < lowest:
        return None, "not_positive" if lowest == 1 else "out_of_range"
    return (number, None) if number <= WHOLE_MAX else (None, "out_of_range")


def _convert_price(values: Sequence[object]) -> tuple[list, Sequence[int]]:
    numbers = [float(text) if NUMBER.fullmatch(text) else 0.0 for text in _as_texts(values)[0]]
    return numbers, [position for position, number in enumerate(numbers) if not 0 < number < float("inf")]


def _judge_price(value: object) -> tuple[float | None, str | None]:
    text, code = _judge_numeral(value, NUMBER, "not_number")
    if code:
        return None, code
    mantissa = text.lower().partition("e")[0]
    if mantissa.startswith("-") or not mantissa.strip("0."):
        return None, "not_positive"
    number = float(text)
    return (number, None) if 0 < number < float("inf") else (None, "out_of_range")


def _convert_text(values: Sequence[object]) -> tuple[list, Sequence[int]]:
    texts = list(map(str.strip, _as_texts(values)[0]))
    joined = "".join(texts)
    odd: set[int] = set()
    if set(map(type, values)) != {str}:
        odd.update(position for position, value in enumerate(values) if type(value) is not str)
    if "" in texts:
        odd.update(_failing(bool, texts))
    if not joined.isprintable():
        odd.update(_failing(str.isprintable, texts))
    if not joined.isascii() and any(map(joined.__contains__, PRINTABLE_BLANKS)):
        odd.update(_failing(str.isascii, texts))
    return texts, odd


def _judge_text(value: object) -> tuple[str | None, str | None]:
    if value is None:
        return None, "missing"
    if not isinstance(value, str) or isinstance(value, Numeral):
        return None, "not_text"
    text = value.strip()
    if not (text.isascii() and text.isprintable()) and UNSTORABLE.search(text):
        return None, "bad_text"
    return (None, "blank") if not text or not text.isascii() and SHOWS_NOTHING.fullmatch(text) else (text, None)


def _convert_email(values: Sequence[object]) -> tuple[list, Sequence[int]]:
    texts, odd = _convert_text(values)
    wrong = set(itertools.filterfalse(EMAIL.fullmatch, texts))
    if max(map(len, texts)) > EMAIL_MAX or not "".join(texts).isascii():
        wrong.update(text for text in texts if len(text) > EMAIL_MAX or not text.isascii())
    return texts, odd.union(_positions(texts, wrong))


def _judge_email(value: object) -> tuple[str | None, str | None]:
    text, code = _judge_text(value)
    if code:
        return None, code
    # Letters, their marks and digits of any script, but no symbols: the pattern's range is wider than that.
    has_symbol = not text.isascii() and any(
        character > "\x7f" and unicodedata.category(character)[0] not in "LMN" for character in text)
    return (None, "not_email") if has_symbol or len(text) > EMAIL_MAX or not EMAIL.fullmatch(text) else (text, None)


# How a kind is checked: `convert` returns the values of a column to store and the positions of the odd ones, `judge`
# the value to store and None, or None and the code of a problem.
RULES: dict[Kind, tuple[Callable, Callable]] = {
    Kind.ID: (_convert_whole, _judge_whole),
    Kind.COUNT: (_convert_whole, _judge_whole),
    Kind.REFERENCE: (_convert_whole, functools.partial(_judge_whole, lowest=-WHOLE_MAX)),
    Kind.TEXT: (_convert_text, _judge_text),
    Kind.EMAIL: (_convert_email, _judge_email),
    Kind.PRICE: (_convert_price, _judge_price),
}


def check_column(column: Field, values: Sequence[object]) -> tuple[list, dict[int, Problem]]:
    """Return the values to store, None where one is refused, and the problems by position."""
    convert, judge = RULES[column.kind]
    converted, odd = convert(values) if values else ([], ())
    problems = {}
    for position in odd:
        converted[position], code = judge(values[position])
        if code:
            problems[position] = Problem(column.name, code, values[position])
    return converted, problems


def check_columns(schema: Schema, columns: Sequence[Sequence[object]]) -> tuple[list[list], dict[int, list[Problem]]]:
    """Return the columns to store and, by position, all problems that a record has on its own."""
    converted: list[list] = []
    problems: dict[int, list[Problem]] = {}
    for column, values in zip(schema.fields, columns):
        stored, found = check_column(column, values)
        converted.append(stored)
        for position, problem in found.items():
            problems.setdefault(position, []).append(problem)
    return converted, problems


def validate_record(schema: Schema, record: Mapping[str, object]) -> list[Problem]:
    """Return all problems that a record has on its own, in the order of its fields: no look-up, no I/O."""
    if not isinstance(record, Mapping):
        return [Problem(None, "malformed", detail="the record is not an object with named fields")]
    return check_columns(schema, [[record.get(name)] for name in schema.names])[1].get(0, [])


def validate_user(record: Mapping[str, object]) -> list[Problem]:
    """Return all problems of a user on its own; whether its id and e-mail are free, its database knows."""
    return validate_record(SCHEMAS[0], record)


def validate_product(record: Mapping[str, object]) -> list[Problem]:
    """Return all problems of a product on its own; whether its id and name are free, its database knows."""
    return validate_record(SCHEMAS[1], record)


def validate_order(record: Mapping[str, object]) -> list[Problem]:
    """Return all problems of an order on its own; whether its user and product exist, their databases know."""
    return validate_record(SCHEMAS[2], record)


def unique_key(text: str) -> str:
    """Return what unique texts are compared by: the case-folded NFKC form, inner white space collapsed."""
    if text.isascii() and "  " not in text:
        return text.lower()
    if len(text) > KEY_PLAIN_MAX:
        text = _stream_safe(text)
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _stream_safe(text: str) -> str:
    """Return a text with at most 30 marks in a row (UAX #15, Stream-Safe Text Process), as sorting is quadratic."""
    pieces, marks = [], 0
    for character in itertools.chain.from_iterable(unicodedata.normalize("NFKD", character) for character in text):
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks > 30:
            pieces.append("\u034f")         # COMBINING GRAPHEME JOINER
            marks = 1
        pieces.append(character)
    return "".join(pieces)


def unique_keys(texts: Sequence[str | None]) -> list[str]:
    """Return the `unique_key` of every text, "" for None."""
    present = [text or "" for text in texts] if None in texts else texts
    joined = "".join(present)
    # What is normal as a whole is so in all its parts; printable white space is the space alone.
    is_plain = "  " not in joined and joined.isprintable() and (
        joined.isascii() or max(map(len, present)) <= KEY_PLAIN_MAX and unicodedata.is_normalized("NFKC", joined))
    return list(map(str.casefold if is_plain else unique_key, present))


def validate_batch(batch: Batch, width: int, picks: Sequence[int]) -> None:
    """Turn the rows of a batch into columns to store, keys and problems.

    A row that is no row of `width` cells becomes malformed; `picks` are the positions of the fields in a row.
    """
    if set(map(type, batch.rows)) != {list} or set(map(len, batch.rows)) != {width}:
        sound = [type(row) is list and len(row) == width for row in batch.rows]
        for place, raw, row, is_sound in zip(batch.places, batch.raws, batch.rows, sound):
            if not is_sound:
                problem = row if isinstance(row, Problem) else Problem(
                    None, "malformed", detail=f"{len(row)} cell{'s' * (len(row) != 1)} where the header has {width}")
                batch.malformed.append((place, raw, problem))
        batch.places, batch.raws, batch.rows = (list(itertools.compress(part, sound)) for part in (
            batch.places, batch.raws, batch.rows))
    columns = list(zip(*batch.rows)) or [()] * width
    batch.rows, batch.cells = (), [columns[pick] for pick in picks]
    batch.columns, batch.problems = check_columns(batch.schema, batch.cells)
    batch.keys = {position: unique_keys(batch.columns[position]) for position, _ in batch.schema.unique}


# ---------------------------------------------------------------------------------------------- Reading files
# The main thread runs all of it.  Bytes become text a chunk at a time, text becomes lines or JSON elements, and these
# become blocks of records; what cannot be read as a record is a Problem in its row's place, and the rest goes on.

CHUNK_BYTES = 1 << 16
BATCH_RECORDS = 5000                # records a thread carries of a longer input: a batch costs some 20 thread switches
LINE_MAX = 1 << 20                  # characters in a line or a JSON element; what is longer is refused, not kept
CELL_MAX = 131_072                  # characters in a CSV cell, the csv module's own limit
RECORD_LINES_MAX = 10_000           # lines in a CSV record
REACH_MIN = 8                       # lines that an open quote is followed at least
BINARY_SHARE = 0.05                 # control characters in the first chunk above which a file is no text
FORMATS = {".csv": "csv", ".tsv": "tsv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl"}
BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
CUT = "\ud800"                      # ends a line that was cut at LINE_MAX; no decoder below yields it in UTF-8 text
UNREADABLE = re.compile("[\0\ud800-\udfff]")
NEXT_ELEMENT = re.compile(r"(?=,\s*\{)")
NEXT_CHARS = 1024                   # in which what begins like a record is looked for where brackets do not match
NO_COMMA = "a comma or the end of the array was expected"
JSON_BRACKET = re.compile(r'"[^"\\\0-\x1f]*(?:\\.[^"\\\0-\x1f]*)*"?|[{}\[\]]')
ERROR_CHARS = 1 << 15               # a JSONDecodeError counts the lines above it each time: no more of them than this
JSON_SPACE = re.compile(r"[ \t\n\r]*")
# An object becomes a tuple of pairs, so that repeated keys show; a number stays text.  All of it runs in C.
JSON = json.JSONDecoder(object_pairs_hook=tuple, parse_int=Numeral, parse_float=Numeral, parse_constant=Numeral)


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive records as they were read: places, texts, and cells in the input's order (or a Problem)."""

    places: Sequence[int]
    raws: Sequence[str]
    rows: Sequence[Sequence[object] | Problem]

    def __len__(self) -> int:
        return len(self.rows)

    def split(self, size: int) -> Iterator[Block]:
        """Yield it in blocks of `size` records, the last one shorter."""
        for start in range(0, len(self.rows), size):
            end = start + size
            yield Block(self.places[start:end], self.raws[start:end], self.rows[start:end])


class Source:
    """An input of one schema's records, opened and its header checked: a file, or a `text` in memory.

    Lines of a text are counted from below its header.  `picks` are the positions of the schema's fields in a row.
    Raises OSError or ValueError when opened if it cannot be read or lacks a column; reading on raises OSError alone.
    """

    def __init__(self, schema: Schema, path: str, input_format: str | None = None, text: str | None = None) -> None:
        self.schema = schema
        self.name = "standard input" if path == "-" else path
        self.format = input_format or ("csv" if path == "-" else FORMATS.get(os.path.splitext(path)[1].lower()))
        if self.format is None:
            raise ValueError(f"{printable(path)}: the suffix tells no format; name it with --input-format")
        unit = "item" if self.format == "json" else "line"
        self.origin = Origin(self.name, unit, schema.table if text is not None else "")
        self.encoding, self._errors, self.bom, self.header = "utf-8", "surrogateescape", b"", ""
        self.width, self.picks, self.extra = len(schema.names), tuple(range(len(schema.names))), []
        self._positions = {name.casefold(): position for position, name in enumerate(schema.names)}
        self._delimiter = "\t" if self.format == "tsv" else ","
        self._reach, self._in_cell = RECORD_LINES_MAX, False
        self.identity, self.total_bytes = None, None
        self._first_line = 1 if text is None else 0
        self._file = io.BytesIO(text.encode()) if text is not None else open(
            0 if path == "-" else path, "rb", buffering=0, closefd=path != "-")
        try:
            if text is None:
                status = os.fstat(self._file.fileno())
                self.identity = (status.st_dev, status.st_ino)
                self.total_bytes = status.st_size if stat.S_ISREG(status.st_mode) else None
            chunks = self._decode()
            chunks = itertools.chain([next(chunks, "")], chunks)    # a file that is no text is refused now
            if self.format == "json":
                array = ArrayReader(chunks, self._positions)
                if found := array.open():
                    raise ValueError(
                        f"{printable(self.name)}: not a JSON array, it begins with {printable(found, quote=False)};"
                        " JSON Lines are loaded with --input-format jsonl")
                self._blocks = self._read_elements(array.elements())
            elif self.format == "jsonl":
                self._blocks = self._read_lines(chunks, self._parse_json_lines, BATCH_RECORDS)
            else:
                self._blocks = self._read_lines(chunks, self._parse_csv, 1)
                self._read_header()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def blocks(self) -> Iterator[Block]:
        """Yield all records in order, some BATCH_RECORDS at a time."""
        return self._blocks

    def _read_elements(self, elements: Iterator[tuple[str, object, Exception | None]]) -> Iterator[Block]:
        numbered = enumerate(elements, start=1)
        while part := [(number, raw, self._row(raw, value, error))
                       for number, (raw, value, error) in itertools.islice(numbered, BATCH_RECORDS)]:
            places, raws, rows = map(list, zip(*part))
            yield _refuse_unreadable(Block(places, raws, rows))

    def _read_lines(self, chunks: Iterable[str], parse: Callable[..., tuple[Block, list[str]]],
                    first: int) -> Iterator[Block]:
        """Yield the records in the lines of the text; `first` is how many lines are read at first."""
        source = itertools.chain.from_iterable(lines_of(chunks))
        number, lines, fresh, usual = self._first_line, [], first, first
        while True:
            taken = list(itertools.islice(source, fresh))
            lines += taken
            if not lines:
                return
            block, kept = parse(lines, number, at_end=not taken)
            number += len(lines) - len(kept)
            if len(block):
                usual = BATCH_RECORDS
                yield block
            # A record that goes on beyond these lines waits for twice as many: parsing it again stays linear.
            lines, fresh = kept, max(usual, len(kept))

    def _decode(self) -> Iterator[str]:
        """Yield the text of the file in chunks; bytes that are no text become lone surrogates."""
        first = b""
        while len(first) < 4 and (more := self._file.read(CHUNK_BYTES)):    # a pipe may deliver a byte at a time
            first += more
        for bom, encoding in BOMS:
            if first.startswith(bom):
                self.encoding, self.bom = encoding, bom
        self._errors = "surrogateescape" if self.encoding == "utf-8" else "surrogatepass"
        # Holds a CR at the end of a chunk back until it is known whether an LF follows.
        bare = codecs.getincrementaldecoder(self.encoding)(self._errors)
        decoder = io.IncrementalNewlineDecoder(bare, translate=False)
        chunk = first
        while chunk:
            text = decoder.decode(chunk[len(self.bom):] if chunk is first else chunk)
            if chunk is first and len(re.findall("[\0-\x08\x0e-\x1f]", text)) > max(8, BINARY_SHARE * len(text)):
                raise ValueError(f"{printable(self.name)}: a binary file,"
                                 " not text in UTF-8 or, with a byte order mark, UTF-16")
            yield text
            chunk = self._file.read(CHUNK_BYTES)
        try:
            yield decoder.decode(b"", final=True)
        except UnicodeDecodeError:          # half of a UTF-16 code unit
            yield "\udc80"

    def encode(self, text: str) -> bytes:
        """Return text that was read as the bytes it was read from."""
        return text.encode(self.encoding, self._errors)

    def _read_header(self) -> None:
        block = next(self._blocks, None)
        if block is None:
            raise ValueError(f"{printable(self.name)}: empty; expected a header with {', '.join(self.schema.names)}")
        if len(block) > 1:
            self._blocks = itertools.chain([Block(block.places[1:], block.raws[1:], block.rows[1:])], self._blocks)
        if isinstance(block.rows[0], Problem):
            place = self.origin.place(block.places[0])
            raise ValueError(f"{place}: the header cannot be read: {block.rows[0].message}")
        self.header = block.raws[0]
        found = [cell.strip().casefold() for cell in block.rows[0]]
        names = list(self._positions)
        wrong = [f"no column {name}" for name in names if name not in found]
        wrong += [f"{found.count(name)} columns {name}" for name in names if found.count(name) > 1]
        if wrong:
            shown = ", ".join(map(printable, block.rows[0][:20]))
            raise ValueError(f"{printable(self.name)}: the header has {' and '.join(wrong)}; found: {shown}")
        self.picks = tuple(map(found.index, names))
        self.width = len(found)
        self.extra = [cell for cell, name in zip(block.rows[0], found) if name not in names]

    def _parse_csv(self, lines: list[str], number: int, at_end: bool) -> tuple[Block, list[str]]:
        """Return the records of the lines, and the lines of a last one that goes on below them.

        The csv module reads strictly.  After an error it starts again on the line below the one where the broken
        record began, so a quote that is never closed costs one line and not the rest of the file.  Each such quote
        halves how far the next one is followed: lines that all open one would be read again and again.
        """
        places, raws, rows, start = [], [], [], self._end_of_cell(lines)
        while start < len(lines):
            parsed, error, used = _parse_strictly(lines, start, self._delimiter, self._reach)
            is_long = error is not None and "field limit" in error
            if is_long:                     # where does its record end?
                parsed, error, used = _parse_strictly(lines, start, self._delimiter, self._reach, LINE_MAX + len(CUT))
            begins = _first_lines(parsed, start, used - (error is not None))
            raws += _texts(lines, begins)
            places += [number + begin for begin in begins[:-1]]
            rows += map(_within_limit, parsed) if is_long else parsed
            is_open = error is not None and ("end of data" in error or "field limit" in error)
            at_last_line, at_first, start = start + used == len(lines), not parsed, begins[-1]
            if error is None:
                self._reach = min(self._reach * 2, RECORD_LINES_MAX)
                continue
            may_go_on = at_last_line and not at_end and len(lines) - start < self._reach
            if is_open and may_go_on and sum(map(len, lines[start:])) < LINE_MAX:
                break
            if is_open and not at_first:
                continue                    # once more, so that it is followed as far as any
            places.append(number + start)
            raws.append(lines[start])
            reason = printable(error, 120, quote=False)
            rows.append(Problem(None, "malformed", detail=f"not a {self.format.upper()} record: {reason}"))
            start += 1
            if is_open:
                is_followed = self._reach == RECORD_LINES_MAX       # else it is too early to call it a cell
                self._reach = max(self._reach // 2, REACH_MIN)
                if is_followed and not at_end and self._is_one_cell(lines[start - 1:start - 1 + used]):
                    self._in_cell = True
                    start += self._end_of_cell(lines[start:])
        return _refuse_unreadable(Block(places, raws, rows)), lines[start:]

    def _is_one_cell(self, lines: list[str]) -> bool:
        """Return whether the lines from an open quote on are a huge cell: none below the first has several cells."""
        has_cells = any(self._delimiter in line for line in lines[1:])
        return self.header != "" and not lines[0].endswith(CUT) and not has_cells

    def _is_record(self, line: str) -> bool:
        """Return whether a line is a record by itself."""
        rows, error, _ = _parse_strictly([line], 0, self._delimiter, 1)
        return error is None and [len(row) for row in rows] == [self.width]

    def _closes_cell(self, line: str) -> bool:
        """Return whether a quote in a line ends the cell that the line begins in."""
        error = _parse_strictly(['"' + line], 0, self._delimiter, 1, LINE_MAX + len(CUT))[1]
        return "end of data" not in (error or "")

    def _end_of_cell(self, lines: list[str]) -> int:
        """Return how many lines to skip to get out of a huge cell, or to a record, 0 where the reading is in none."""
        for index, line in enumerate(lines if self._in_cell else ()):
            if self._delimiter in line and self._is_record(line):       # so it was no cell after all
                self._in_cell = False
                return index
            if line.endswith(CUT) or '"' in line and self._closes_cell(line):
                self._in_cell = False
                return index + 1
        return len(lines) if self._in_cell else 0

    def _parse_json_lines(self, lines: list[str], number: int, at_end: bool) -> tuple[Block, list[str]]:
        """Return the records of the lines; none goes on below them."""
        rows = [self._row(line, *_parse_json(line)) if line.strip(" \t\r\n") else () for line in lines]
        return _refuse_unreadable(Block(range(number, number + len(lines)), lines, rows)), []

    def _row(self, raw: str, element: object, error: Exception | None) -> Sequence[object] | Problem:
        """Return a JSON object's values in the order of the schema's fields, or why it is no record."""
        if error is not None:
            return Problem(None, "malformed", detail=f"not JSON: {getattr(error, 'msg', error)}")
        if type(element) is not tuple:
            return Problem(None, "malformed", detail=f"{printable(raw.strip(), quote=False)} is not a JSON object")
        row: list[object] = [None] * len(self.picks)
        seen: set[str] = set()
        for key, value in element:
            name = key if key in self._positions else key.strip().casefold()
            if name in seen:
                return Problem(None, "malformed", detail=f"the key {printable(key)} is there more than once")
            seen.add(name)
            if name in self._positions:
                row[self._positions[name]] = value
            elif key not in self.extra and len(self.extra) < 20:
                self.extra.append(key)
        return row


def _parse_strictly(lines: list[str], start: int, delimiter: str, reach: int,
                    limit: int = CELL_MAX) -> tuple[list[list[str]], str | None, int]:
    """Return the rows from the line at `start` to the first error, what it says, and how many lines were used.

    No more than `reach` lines are looked at, and a cell of more than `limit` characters is an error.
    """
    cursor = iter(lines)
    cursor.__setstate__(start)              # what unpickling does: a slice after every error would take quadratic time
    reader = csv.reader(itertools.islice(cursor, reach), strict=True, delimiter=delimiter)
    rows: list[list[str]] = []
    previous = csv.field_size_limit(limit)  # one for all readers
    try:
        rows.extend(reader)                 # list.extend keeps what came before an error
    except csv.Error as error:
        return rows, str(error), reader.line_num
    finally:
        csv.field_size_limit(previous)
    return rows, None, reader.line_num


def _within_limit(row: list[str]) -> list[str] | Problem:
    longest = max(map(len, row), default=0)
    if longest <= CELL_MAX:
        return row
    return Problem(None, "malformed", detail=f"a cell of {longest:,} characters, more than {CELL_MAX:,}")


def _first_lines(rows: list[list[str]], start: int, used: int) -> Sequence[int]:
    """Return the index of each row's first line, and last that of the line below them all.

    `used` lines were read for the rows if each took one; else the line breaks in their cells are counted.
    """
    if used == len(rows):
        return range(start, start + used + 1)
    breaks = (sum(cell.count("\n") + cell.count("\r") - cell.count("\r\n") for cell in row) for row in rows)
    return list(itertools.accumulate((1 + count for count in breaks), initial=start))


def _texts(lines: list[str], begins: Sequence[int]) -> list[str]:
    """Return the text of every record that begins at these lines; the last one is the line below them all."""
    if begins[-1] - begins[0] == len(begins) - 1:
        return lines[begins[0]:begins[-1]]
    return ["".join(lines[begin:below]) for begin, below in zip(begins, begins[1:])]


def _refuse_unreadable(block: Block) -> Block:
    """Return the block without its blank lines and with a problem where a line holds no text."""
    try:
        is_text = b"\0" not in "".join(block.raws).encode()         # ten times faster than a search
    except UnicodeEncodeError:              # it holds surrogates
        is_text = False
    if not is_text:
        found = map(UNREADABLE.search, block.raws)
        rows = [_unreadable(raw, each.group()) if each else row
                for raw, row, each in zip(block.raws, block.rows, found)]
        raws = [raw[:LINE_MAX] + "\n" if len(raw) > LINE_MAX else raw for raw in block.raws]
        block = Block(block.places, raws, rows)
    if all(block.rows):
        return block
    return Block(*(list(itertools.compress(part, block.rows)) for part in (block.places, block.raws, block.rows)))


def _unreadable(raw: str, found: str) -> Problem:
    if found == "\0":
        detail = "a NUL character"
    elif raw.endswith(CUT):
        detail = f"a line of more than {LINE_MAX:,} characters"
    else:
        detail = f"bytes that are not text in the file's encoding, the first one 0x{ord(found) & 0xff:02X}"
    return Problem(None, "malformed", detail=detail)


def _parse_json(text: str) -> tuple[object, Exception | None]:
    """Return the value of a JSON text and None, or None and what is wrong with it."""
    try:
        return JSON.decode(text), None
    except (ValueError, RecursionError) as error:
        return None, error


def lines_of(chunks: Iterable[str]) -> Iterator[list[str]]:
    """Yield the lines that end in each chunk, which never ends between a CR and its LF; last, a line without an end.

    Lines end as Python's universal newlines do and keep their ends.  A longer one than LINE_MAX is cut, marked by CUT.
    """
    tail = ""                               # the beginning of a line whose end is in a later chunk
    for chunk in chunks:
        lines = []
        if tail.endswith(CUT):              # what follows in a line that was cut is dropped
            end = re.search("\r\n?|\n", chunk)
            if end is None:
                continue
            lines, tail, chunk = [tail], "", chunk[end.end():]
        lines += io.StringIO(tail + chunk, newline="")
        tail = lines.pop() if lines and not lines[-1].endswith(("\r", "\n", CUT)) else ""
        if len(chunk) > LINE_MAX or lines and len(lines[0]) > LINE_MAX:
            lines = [line[:LINE_MAX] + CUT if len(line) > LINE_MAX and not line.endswith(CUT) else line
                     for line in lines]
        if len(tail) > LINE_MAX:
            tail = tail[:LINE_MAX] + CUT
        yield lines
    if tail:
        yield [tail]


class ArrayReader:
    """The elements of a JSON array that comes in chunks, of which no more than LINE_MAX characters are kept."""

    def __init__(self, chunks: Iterator[str], names: Iterable[str]) -> None:
        """`names` are the keys of a record, in lower case."""
        self._chunks, self._text, self._position = chunks, "", 0
        self._next_record = re.compile(rf',\s*\{{\s*"\s*(?:{"|".join(names)})\s*"', re.IGNORECASE)
        self._dropped = 0                   # characters before the text
        self._open_until = 0                # up to there a search for a closing bracket went in vain

    def open(self) -> str:
        """Step over the opening bracket and return "", or what the text begins with instead."""
        if self._peek() != "[":
            return self._text[self._position:self._position + 20] or "nothing at all"
        self._position += 1
        return ""

    def elements(self) -> Iterator[tuple[str, object, Exception | None]]:
        """Yield each element's text, value and, where it is broken, what is wrong with it.

        Below a broken element the reading goes on at the next sound one, so it costs itself alone.
        """
        error, after_comma = None, False
        while (character := self._peek()) not in ("]", ""):
            text, element, error = self._element()
            if self._peek() not in (",", "]", "{", ""):     # what follows belongs to it
                junk, element, error = self._skip(error or ValueError(NO_COMMA))
                text += junk
            yield text, element, error
            if self._peek() == "{":
                yield self._skip(ValueError(NO_COMMA))
            after_comma = self._peek() == ","
            self._position += after_comma
        self._position += 1
        if character == "" and error is None:
            yield "", None, ValueError("the array is not closed")
        elif character and after_comma:
            yield "", None, ValueError("an element was expected below the last comma")
        elif character and self._peek():
            yield "", None, ValueError("text below the end of the array")

    def _more(self) -> bool:
        """Read the next chunk; False at the end."""
        chunk = next(self._chunks, None)
        self._drop_read()
        self._text += chunk or ""
        return chunk is not None

    def _drop_read(self) -> None:
        self._dropped += self._position
        self._text, self._position = self._text[self._position:], 0

    def _peek(self) -> str:
        """Return the next character that is no white space, "" at the end."""
        while True:
            self._position = JSON_SPACE.match(self._text, self._position).end()
            if self._position < len(self._text):
                return self._text[self._position]
            if not self._more():
                return ""

    def _element(self) -> tuple[str, object, Exception | None]:
        while True:
            try:
                element, end = JSON.raw_decode(self._text, self._position)
                # What no separator follows may be a number that goes on, in the next chunk or as something broken.
                if self._text[end:end + 1] in tuple(",] \t\r\n") or not self._more():
                    raw, self._position = self._text[self._position:end], end
                    return raw, element, None
            except (ValueError, RecursionError) as error:
                if len(self._text) - self._position >= LINE_MAX or not self._more():
                    return self._skip(error)

    def _balanced_end(self) -> int | None:
        """Return where the brackets of an element that begins with one close; None if they do not match.

        What was searched in vain is not searched again for the elements in it: that would take quadratic time.
        """
        expected: list[str] = []
        has_bracket = self._text[self._position:self._position + 1] in tuple("{[")
        if not has_bracket or self._dropped + self._position < self._open_until:
            return None
        end = len(self._text)
        for token in JSON_BRACKET.finditer(self._text, self._position):
            character = token.group()
            if character in "{[":
                expected.append("}" if character == "{" else "]")
            elif character in "]}" and expected.pop() != character:
                end = token.start()
                break
            if not expected:
                return token.end()
        self._open_until = self._dropped + end
        return None

    def _skip(self, error: Exception) -> tuple[str, None, Exception]:
        """Return the text of a broken element, and the error.

        It ends where its brackets close, but above what begins like another record, as a stray quote makes that a
        part of it; or else where the next element begins.
        """
        while len(self._text) - self._position < LINE_MAX and self._more():
            pass
        if self._position > ERROR_CHARS:
            self._drop_read()
        end = self._balanced_end()
        found = self._next_record.search(self._text, self._position, end or self._position + NEXT_CHARS)
        if found:
            end = found.start()
        if end is not None:
            raw, self._position = self._text[self._position:end], end
            return raw, None, error
        raw, found = "", None
        while not found:
            found = NEXT_ELEMENT.search(self._text, self._position)
            end = found.start() if found else max(self._position, len(self._text) - 1000)
            raw = (raw + self._text[self._position:end])[:LINE_MAX]
            self._position = end
            if not found and not self._more():
                # The bracket at the very end, if there is one, is the array's.
                rest = self._text.rstrip(" \t\r\n").removesuffix("]")
                self._position = len(rest)
                return (raw + rest)[:LINE_MAX], None, error
        return raw, None, error


# ---------------------------------------------------------------------------------------------------- Storage
# The only code that knows SQLite.  Another database could stand behind the public methods of `Table`.

LOCK_POLL_S = 0.05                  # how long one try waits in SQLite; `Patience` goes on trying
VALUES_MAX = 999                    # bound values in a statement, SQLITE_MAX_VARIABLE_NUMBER before 3.32
CHECKPOINT_PAGES = 4000             # pages in the write-ahead log before they are moved into the database
COLUMN_TYPES = {Kind.ID: "INTEGER PRIMARY KEY", Kind.COUNT: "INTEGER", Kind.REFERENCE: "INTEGER",
                Kind.TEXT: "TEXT", Kind.EMAIL: "TEXT", Kind.PRICE: "REAL"}
CREATE_TABLE = 'CREATE TABLE IF NOT EXISTS "{table}" ({columns})'
INSERT = 'INSERT INTO "{table}" ({names}) VALUES {rows}'
SELECT_ROWS = 'SELECT {names} FROM "{table}" WHERE id IN ({marks})'
SELECT_IDS = 'SELECT id FROM "{table}" WHERE id IN ({marks})'
SELECT_LAST_ID = 'SELECT max(id) FROM "{table}"'
SELECT_ALL = 'SELECT {names} FROM "{table}" ORDER BY id'
# Look-ups by unique key.  For a regular text SQLite's lower(), which knows ASCII alone, is the unique key; the
# irregular ones have an index of their own and are read whole, as no SQL function folds like `unique_key`.  Regular is
# what has no two spaces in a row and no character but ASCII and these, which stay what they are in NFKC and when case
# is folded.
STABLE = (
    "à-öø-ÿāăąćĉċčďđēĕėęěĝğġģĥħĩīĭįıĵ"            # Latin
    "ķĺļľłńņňŋōŏőœŕŗřśŝşšţťŧũūŭůűųŵŷźżž"
    "ά-ία-ρσ-ώа-џא-תء-غف-ي"                       # Greek, Cyrillic, Hebrew, Arabic
    "ก-ฮぁ-ゖァ-ヺー一-鿿가-힣")                           # Thai, Kana, Han, Hangul
IRREGULAR = ("""(length("{column}") <> length(CAST("{column}" AS BLOB)) AND "{column}" GLOB '*[^ -~""" + STABLE
             + """]*' OR instr("{column}", '  '))""")
IRREGULAR_TEXT = re.compile(f"[^ -~{STABLE}]|  ")
CREATE_KEY_INDEX = 'CREATE INDEX IF NOT EXISTS "{table}_{column}_key" ON "{table}" (lower("{column}"))'
CREATE_IRREGULAR_INDEX = ('CREATE INDEX IF NOT EXISTS "{table}_{column}_irregular" ON "{table}" ("{column}") WHERE '
                          + IRREGULAR)
SELECT_HOLDERS = 'SELECT "{column}", id FROM "{table}" WHERE lower("{column}") IN ({marks})'
SELECT_IRREGULAR = 'SELECT "{column}", id FROM "{table}" WHERE ' + IRREGULAR
STORAGE_ERRORS = (sqlite3.Error, OSError)


class Patience:
    """Tries again what fails on a lock, for `timeout_s` seconds; an interrupt, at `hurry_from`, allows one more.

    All threads share it: the signal's handler sets `hurry_from`, whoever waits looks at it.
    """

    def __init__(self, timeout_s: float, watch: Watch) -> None:
        self.timeout_s = timeout_s
        self.hurry_from: float | None = None        # when an interrupt came
        self.waited_s: dict[str, float] = {}        # by database
        self._watch = watch

    def insist(self, database: str, action: Callable[[], object]) -> object:
        """Return what the action returns, or raise its error."""
        begin, tries = time.monotonic(), 0
        while True:
            try:
                result = action()
            except sqlite3.OperationalError as error:
                now = time.monotonic()
                if "locked" not in str(error):
                    raise
                if now - begin >= self.timeout_s or self.hurry_from is not None and now - self.hurry_from >= 1:
                    raise sqlite3.OperationalError(f"locked by another process for {now - begin:.1f} s") from error
                tries += 1
                self._watch.note("locked", database, tries=tries)
                time.sleep(0.001)       # in case the try did not wait by itself: some locks ignore the timeout
            else:
                if tries:
                    waited_s = time.monotonic() - begin
                    self.waited_s[database] = self.waited_s.get(database, 0.0) + waited_s
                    self._watch.note("lock taken", database, tries=tries, waited_s=round(waited_s, 3))
                return result


def _connect(path: str, **options: object) -> sqlite3.Connection:
    # Statements wait for locks in short turns, so that an interrupt is never far; transactions begin by hand.
    return sqlite3.connect(path, timeout=LOCK_POLL_S, isolation_level=None, check_same_thread=False, **options)


def _is_there(path: str) -> bool:
    """Return whether there is a database; raise OSError if that cannot be told or what is there is no file."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        if os.path.islink(path):            # what it leads to may be on a disk that is not there now
            raise OSError(errno.ENOENT, "unable to open: a link that leads nowhere") from None
        return False
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "unable to open what is no regular file")
    return True


def _connect_for_reading(path: str) -> sqlite3.Connection:
    """Return a connection that writes nothing, not even the file.

    In write-ahead logging a reader makes a log and a file of shared memory beside the database, and the last one to
    leave takes them away: it has to be allowed to write for that.  Where it may not, it does without them, as long as
    no log or journal shows that somebody writes.
    """
    name = urllib.parse.quote(os.fsencode(os.path.abspath(path).replace(os.sep, "/")))
    is_in_use = os.path.exists(path + "-wal") or os.path.exists(path + "-journal")
    may_write = os.access(path, os.W_OK) and os.access(os.path.dirname(os.path.abspath(path)), os.W_OK)
    mode = "ro" if is_in_use else "rw" if may_write else "ro&immutable=1"
    connection = _connect(f"file:{'' if name.startswith('/') else '/'}{name}?mode={mode}", uri=True)
    connection.execute("PRAGMA query_only=1")
    return connection


def _column_names(schema: Schema) -> str:
    return ", ".join(f'"{name}"' for name in schema.names)


@functools.lru_cache(maxsize=64)
def _insert_statement(schema: Schema, count: int) -> str:
    row = f"({','.join('?' * len(schema.names))})"
    return INSERT.format(table=schema.table, names=_column_names(schema), rows=",".join([row] * count))


class Table:
    """One schema's table in its database, through one connection, for one thread at a time.

    Its worker writes through one of its own, batches' threads look ids up in turns through another one, and --verify
    reads in the main thread.  Methods raise one of STORAGE_ERRORS.  Open it `for_writing`, `for_trial` or
    `for_reading`; close it by `with`.
    """

    def __init__(self, schema: Schema, path: str, connection: sqlite3.Connection, patience: Patience) -> None:
        self.schema, self.path = schema, path
        self._connection, self._patience = connection, patience
        self.was_empty = False              # when it was opened for writing
        self._file: os.stat_result | None = None
        self._version: int | None = None

    @classmethod
    def for_writing(cls, schema: Schema, directory: str, patience: Patience) -> Table:
        """Return the table, made if it is missing, in write-ahead logging with a sync at every commit."""
        path = os.path.join(os.path.abspath(directory), schema.database)     # some SQLites take `file:…` for a URI
        _is_there(path)
        table = cls(schema, path, _connect(path), patience)
        return table._prepared(table._log_ahead)

    @classmethod
    def for_trial(cls, schema: Schema, directory: str, patience: Patience) -> Table:
        """Return a private copy of the table that is gone when it is closed."""
        table = cls(schema, os.path.join(directory, schema.database), _connect(""), patience)
        return table._prepared(table._copy_stored)

    @classmethod
    def for_reading(cls, schema: Schema, directory: str, patience: Patience) -> Table | None:
        """Return the table, which must not be written to, or None where there is none; see _connect_for_reading."""
        path = os.path.join(directory, schema.database)
        if not _is_there(path):
            return None
        with contextlib.ExitStack() as stack:
            table = stack.enter_context(cls(schema, path, _connect_for_reading(path), patience))
            if not patience.insist(schema.database, table._check_shape):
                return None
            table._file = os.stat(path)
            stack.pop_all()                 # it stays open
        return table

    def _prepared(self, prepare: Callable[[], None]) -> Table:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self)
            prepare()
            self.begin()
            columns = ", ".join(f'"{each.name}" {COLUMN_TYPES[each.kind]}' for each in self.schema.fields)
            if not self._check_shape():
                self._connection.execute(CREATE_TABLE.format(table=self.schema.table, columns=columns))
            self.was_empty = self.last_id() == 0
            if not self.was_empty:
                self.build_indexes()
            self.commit()
            stack.pop_all()
        return self

    def _log_ahead(self) -> None:
        execute = self._connection.execute
        mode = self._patience.insist(self.schema.database, lambda: execute("PRAGMA journal_mode=WAL").fetchone()[0])
        if mode != "wal":
            raise sqlite3.OperationalError(f"cannot use write-ahead logging here (the journal mode stays {mode})")
        pragmas = ("synchronous=FULL", "fullfsync=1", "checkpoint_fullfsync=1",
                   f"wal_autocheckpoint={CHECKPOINT_PAGES}")
        for pragma in pragmas:
            execute(f"PRAGMA {pragma}")
        self._file = os.stat(self.path)

    def _copy_stored(self) -> None:
        if _is_there(self.path):
            with contextlib.closing(_connect_for_reading(self.path)) as stored:
                self._patience.insist(self.schema.database, lambda: stored.backup(self._connection))

    def _check_shape(self) -> bool:
        """Return whether the table is there; raise if something else has its name or it does checks of its own."""
        table = self.schema.table
        query = self._connection.execute
        found = query("SELECT type, name, sql FROM sqlite_master WHERE tbl_name = ? COLLATE NOCASE",
                      (table,)).fetchall()
        if not found:
            return False
        expected = [(each.name, COLUMN_TYPES[each.kind].split()[0], 0, each.kind is Kind.ID)
                    for each in self.schema.fields]
        actual = [(name, kind.upper(), notnull or default is not None, bool(key))
                  for _, name, kind, notnull, default, key, _ in query(f'PRAGMA table_xinfo("{table}")')]
        words = set(re.findall(r'"[^"]*"|\w+', " ".join(sql.lower() for kind, _, sql in found if kind == "table")))
        words -= {name.lower() for name in (table, *self.schema.names)}
        telling = {"check", "unique", "references", "collate", "generated", "strict", "without"}
        own_checks = telling.intersection(words) or [
            kind for kind, _, sql in found
            if kind == "trigger" or kind == "index" and (sql or "create unique").lower().split()[1] == "unique"]
        if actual != expected or own_checks or "view" in (kind for kind, _, _ in found):
            names = ", ".join(self.schema.names)
            raise sqlite3.DatabaseError(f"its {table} is not the expected table ({names}; no constraints)")
        return True

    def __enter__(self) -> Table:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; what was not committed is undone."""
        self._connection.close()

    def begin(self) -> bool:
        """Begin a transaction, alone among all writers; return whether another connection wrote since the last one."""
        self._patience.insist(self.schema.database, lambda: self._connection.execute("BEGIN IMMEDIATE"))
        before, self._version = self._version, self._connection.execute("PRAGMA data_version").fetchone()[0]
        return before not in (None, self._version)

    def commit(self) -> None:
        """Commit and sync; raise if that is in doubt or the file is no longer where it was."""
        self._connection.execute("COMMIT")
        self.check_file()

    def check_file(self) -> None:
        """Raise if the file was deleted or replaced: its rows are gone with it, and SQLite would not tell."""
        if self._file is not None:
            now = os.stat(self.path)
            if (now.st_dev, now.st_ino) != (self._file.st_dev, self._file.st_ino):
                raise FileNotFoundError(errno.ENOENT, "the file was replaced while it was open")

    @property
    def waited_s(self) -> float:
        """How long it has waited for locks so far."""
        return self._patience.waited_s.get(self.schema.database, 0.0)

    def last_id(self) -> int:
        """Return the largest id, 0 if there is none."""
        return self._connection.execute(SELECT_LAST_ID.format(table=self.schema.table)).fetchone()[0] or 0

    def find_rows(self, ids: Iterable[int]) -> dict[int, tuple]:
        """Return the stored ones of these records by id."""
        return {row[0]: row for row in self._select(SELECT_ROWS, ids, names=_column_names(self.schema))}

    def find_ids(self, ids: Iterable[int]) -> set[int]:
        """Return which of these ids are stored."""
        return {row[0] for row in self._select(SELECT_IDS, ids)}

    def find_holders(self, column: Field, keys: Iterable[str]) -> dict[str, int]:
        """Return the ids of the records that hold these unique keys, of the regular texts only."""
        return {unique_key(text): id_ for text, id_ in self._select(SELECT_HOLDERS, keys, column=column.name)}

    def irregular_holders(self, column: Field) -> dict[str, int]:
        """Return the ids of all records with irregular texts by unique key."""
        sql = SELECT_IRREGULAR.format(table=self.schema.table, column=column.name)
        with self._interruptible():
            return {unique_key(text): id_ for text, id_ in self._connection.execute(sql)}

    @staticmethod
    def are_irregular(texts: Iterable[str]) -> bool:
        """Return whether any of the texts is one that `find_holders` leaves out."""
        return any(map(IRREGULAR_TEXT.search, texts))

    def _select(self, sql: str, values: Iterable[object], **names: str) -> Iterator[tuple]:
        values = list(values)
        for start in range(0, len(values), VALUES_MAX):
            part = values[start:start + VALUES_MAX]
            size = min(1 << (len(part) - 1).bit_length(), VALUES_MAX)       # few sizes: few statements to prepare
            part += part[-1:] * (size - len(part))
            query = sql.format(table=self.schema.table, marks=",".join("?" * len(part)), **names)
            yield from self._patience.insist(
                self.schema.database, lambda: self._connection.execute(query, part).fetchall())

    def insert(self, columns: Sequence[Sequence[object]]) -> None:
        """Insert records, given by columns, in as few statements as SQLite allows: each gives up the GIL once."""
        step = VALUES_MAX // len(columns)
        for start in range(0, len(columns[0]), step):
            part = [column[start:start + step] for column in columns]
            values = list(itertools.chain.from_iterable(zip(*part)))
            self._connection.execute(_insert_statement(self.schema, len(part[0])), values)

    def build_indexes(self) -> None:
        """Make the indexes for look-ups by unique key where they are missing; it takes a second per million records."""
        with self._interruptible():
            for _, column in self.schema.unique:
                for sql in (CREATE_KEY_INDEX, CREATE_IRREGULAR_INDEX):
                    self._connection.execute(sql.format(table=self.schema.table, column=column.name))

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Let an interrupt break off, with an error, what takes long: 10,000 steps of SQLite take some milliseconds."""
        self._connection.set_progress_handler(lambda: self._patience.hurry_from is not None, 10_000)
        try:
            yield
        finally:
            self._connection.set_progress_handler(None, 0)

    def scan(self, size: int) -> Iterator[list[tuple]]:
        """Yield all stored records by id, `size` rows at a time; text that is not UTF-8 holds lone surrogates."""
        self._connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
        cursor = self._connection.execute(SELECT_ALL.format(table=self.schema.table, names=_column_names(self.schema)))
        while rows := cursor.fetchmany(size):
            yield rows


# ---------------------------------------------------------------------------------------------- Insert worker
# One thread per database runs all of it but `submit`, which batches' threads call, and `start`, `finish` and `join`,
# which the main thread calls.

GATHER_S = 0.005                    # how long single records wait for others to share their commit
GATHER_BATCHES = 32                 # and how many are enough
GROUP_RECORDS = 10_000              # records in a transaction, so that a commit and its answers are never far


class KeyHolders:
    """Which record holds which unique key: the worker's own knowledge, used inside its transactions.

    While the worker has been the table's only writer since it was empty, every key is in memory, as {hash: id}: an
    index kept up row by row would cost more than all the rest.  Otherwise look-ups go to the table's indexes.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._memory: dict[int, dict[int, int]] | None = {position: {} for position, _ in table.schema.unique}
        self._hashes: dict[int, list[int]] = {}         # of the keys that were looked up last
        self._irregular: dict[int, dict[str, int]] = {}
        # As it was inside the transaction that opened it; `Table.begin` tells if anybody wrote since.
        if not table.was_empty:
            self.use_indexes()

    def use_indexes(self) -> None:
        """Forget what is in memory, as another connection wrote to the table or two keys have the same hash."""
        self._memory = None
        self._table.build_indexes()
        self._irregular = {position: self._table.irregular_holders(column)
                           for position, column in self._table.schema.unique}

    def find(self, position: int, keys: Sequence[str]) -> dict[str, int]:
        """Return {key: id} for those of the keys that a stored record holds."""
        column = self._table.schema.fields[position]
        if self._memory is None:
            wanted = set(filter(None, keys))
            irregular = self._irregular[position]
            holders = {key: irregular[key] for key in wanted & irregular.keys()}
            return {**holders, **self._table.find_holders(column, wanted)}
        held = self._memory[position]
        hashes = self._hashes[position] = list(map((2**60 - 1).__and__, map(hash, keys)))      # 32 bytes each, not 48
        if held.keys().isdisjoint(hashes):
            return {}
        found = {key: held[number] for key, number in zip(keys, hashes) if number in held}
        stored = self._table.find_rows(set(found.values()))
        if all(unique_key(stored[id_][position]) == key for key, id_ in found.items()):
            return found
        self.use_indexes()
        return self.find(position, keys)

    def add(self, group: Group, dropped: Sequence[int]) -> None:
        """Take in the group whose keys were looked up last, without the records at the dropped positions."""
        ids = _without(group.columns[0], dropped)
        for position, _ in self._table.schema.unique:
            if self._memory is not None:
                self._memory[position].update(zip(_without(self._hashes[position], dropped), ids))
                continue
            texts, keys = (_without(part, dropped) for part in (group.columns[position], group.keys[position]))
            if self._table.are_irregular(texts):
                self._irregular[position].update(zip(keys, ids))


class Group:
    """The batches of one transaction seen as one: their columns and keys joined, what is found by position in them."""

    def __init__(self, schema: Schema, batches: list[Batch]) -> None:
        self._batches = batches
        self.columns = [self._joined(batch.columns[position] for batch in batches)
                        for position in range(len(schema.fields))]
        self.keys = {position: self._joined(batch.keys[position] for batch in batches) for position, _ in schema.unique}
        self._offsets = list(itertools.accumulate((len(batch.places) for batch in batches), initial=0))
        pairs = list(zip(batches, self._offsets))
        self.refused = {offset + position for batch, offset in pairs for position in batch.problems}
        self.unchecked = {offset + position for batch, offset in pairs for position in batch.unchecked}
        self.clashes: dict[int, list[Problem]] = {}
        self.doubts: dict[int, str] = {}
        self.unchanged: set[int] = set()

    def _joined(self, parts: Iterator[list]) -> list:
        return next(parts) if len(self._batches) == 1 else list(itertools.chain.from_iterable(parts))

    def row(self, position: int) -> tuple:
        """Return the values of the record at a position."""
        return tuple(column[position] for column in self.columns)

    def share_out(self) -> None:
        """Give every batch what was found of its records."""
        for position in (*self.clashes, *self.doubts, *self.unchanged):
            number = bisect.bisect_right(self._offsets, position) - 1
            batch, local = self._batches[number], position - self._offsets[number]
            if position in self.unchanged:
                batch.unchanged.add(local)
            elif position in self.doubts:
                batch.unchecked[local] = self.doubts[position]
            else:
                batch.problems.setdefault(local, []).extend(self.clashes[position])


def _without(values: list, dropped: Iterable[int]) -> list:
    """Return the values without those at the dropped positions, which grow."""
    kept, start = [], 0
    for position in dropped:
        kept += values[start:position]
        start = position + 1
    return kept + values[start:] if start else values


def _repeated(values: Sequence[object], blank: object) -> set[object]:
    """Return the values that occur more than once; `blank` stands for none."""
    if len(set(values)) == len(values) - max(values.count(blank) - 1, 0):
        return set()
    seen: set[object] = set()
    return {value for value in values if value != blank and (value in seen or seen.add(value))}


def _describe(schema: Schema, error: Exception) -> str:
    kind = "" if isinstance(error, STORAGE_ERRORS) else f"{type(error).__name__}: "
    cause = getattr(error, "strerror", None) or str(error)
    return f"{schema.database}: {kind}{printable(cause, 200, quote=False)}"


class InsertWorker:
    """The only thread that writes to one database; it answers every batch it is given, whatever happens.

    Batches are stored in the order of their numbers, from 0 without a gap.  The first error ends the writing, as the
    transaction it hit is neither certain nor to be jumped over: that group and all later batches get the failure.
    """

    def __init__(self, schema: Schema, open_table: Callable[[], Table], ledger: Ledger, watch: Watch) -> None:
        self.schema = schema
        self.failure: str | None = None     # set before `_has_ended`, read after it
        self._open_table, self._ledger, self._watch = open_table, ledger, watch
        # Guards the five names below; notified when the batch that is next has come, or no more will.
        self._changed = threading.Condition()
        self._waiting: dict[int, Batch] = {}
        self._next = 0
        self._total: int | None = None
        self._has_ended = False
        self._cut: str | None = None
        self._dismissed = threading.Event()
        # What the records in doubt hold: ids, and keys by the position of their field.
        self._doubtful: dict[int, set] = {0: set(), **{place: set() for place, _ in schema.unique}}
        self._number = 0                    # of the transaction
        self._waited_s = 0.0                # for locks, up to the transaction
        self._thread = threading.Thread(target=self._run, name=f"insert-worker {schema.database}")

    def start(self) -> None:
        """Start the thread; where that is impossible, the failure answers every batch."""
        try:
            self._thread.start()
        except RuntimeError as error:
            self.failure, self._has_ended = _describe(self.schema, error), True
            self._ledger.close(self.failure)

    def submit(self, batch: Batch) -> None:
        """Hand a batch over, from any thread; its `answer` gets a word when its verdicts are final."""
        with self._changed:
            if self._has_ended:
                batch.failure = batch.failure or self.failure or f"{self.schema.database}: the load is over"
                batch.answer.put(None)
                return
            self._waiting[batch.number] = batch
            self._watch.count(self.schema.database, self._waiting)
            if batch.number == self._next or self._is_enough():
                self._changed.notify()

    def finish(self, total: int, cut: str | None = None) -> None:
        """Say that there are `total` batches and no more; `cut` is why there are fewer than the input has."""
        with self._changed:
            self._total, self._cut = total, cut
            self._changed.notify()

    def join(self) -> None:
        """Wait until all is stored and the database closed; call it after `finish`, when nobody reads it any more."""
        self._dismissed.set()
        if self._thread.ident:
            self._thread.join()

    def _take(self) -> list[Batch]:
        """Return the batches that wait, in order and without a gap; none when there will be no more."""
        with self._changed:
            while self._next not in self._waiting and self._next != self._total:
                self._changed.wait()
            # A sync takes so long that a few more records cost nothing; without this a group would be one or two.
            self._changed.wait_for(self._is_enough, GATHER_S)
            group: list[Batch] = []
            records = 0
            while self._next in self._waiting and records < GROUP_RECORDS:
                group.append(self._waiting.pop(self._next))
                records += group[-1].size
                self._next += 1
            self._watch.count(self.schema.database, self._waiting)
            return group

    def _is_enough(self) -> bool:
        """Return whether it is no use to wait for more; the lock is held."""
        return (len(self._waiting) >= GATHER_BATCHES or self._next + len(self._waiting) == self._total
                or self._next in self._waiting and self._waiting[self._next].size > 1)

    def _run(self) -> None:
        with self._watch.span("thread", self.schema.database):
            self._work()

    def _work(self) -> None:
        group: list[Batch] = []
        try:
            with self._watch.span("open", self.schema.database):
                table = self._open_table()
            with table:
                self._holders, self._last_id = KeyHolders(table), table.last_id()
                while group := self._take():
                    self._store(table, group)
                    group = []
                self._leave(table)
                # The last connection to leave moves the log into the database, which a reader could not.
                self._dismissed.wait()
                table.check_file()
        except Exception as error:          # a broken database or a broken program: nobody may be left waiting
            self.failure = _describe(self.schema, error)
            self._watch.note("database failed", self.schema.database, error=self.failure)
            while group := group or self._take():
                for batch in group:
                    batch.failure = batch.failure or self.failure
                    batch.answer.put(None)
                group = []
        with self._changed:
            self._has_ended = True
        self._ledger.close(self.failure or self._cut)

    def _leave(self, table: Table) -> None:
        """Make the indexes that the next load looks keys up in; all records are safe already."""
        self._ledger.close(self._cut)
        if self._cut is None:
            try:
                with self._watch.span("index", self.schema.database):
                    table.begin()
                    table.build_indexes()
                    table.commit()
            except STORAGE_ERRORS as error:     # the next load makes them
                self._watch.note("no index", self.schema.database, error=str(error))

    def _store(self, table: Table, batches: list[Batch]) -> None:
        """Check a group against the table, insert it, commit, and only then answer."""
        group = Group(self.schema, [batch for batch in batches if batch.failure is None])
        self._number += 1
        with self._watch.span("transaction", self.schema.database, number=self._number, group=batches):
            other_wrote = table.begin()
            waited_s, self._waited_s = self._waited_s, table.waited_s
            for batch in batches:
                batch.transaction, batch.lock_s = self._number, self._waited_s - waited_s
            if other_wrote:
                self._watch.note("another writer", self.schema.database)
                self._holders.use_indexes()
                self._last_id = table.last_id()
            with self._watch.span("check", self.schema.database):
                dropped = self._settle(table, group)
                columns = [_without(column, dropped) for column in group.columns]
            with self._watch.span("insert", self.schema.database, records=len(columns[0])):
                table.insert(columns)
            with self._watch.span("commit", self.schema.database):
                table.commit()
        self._holders.add(group, dropped)
        self._last_id = max(self._last_id, max(columns[0], default=0))
        group.share_out()
        self._watch.settled(batches)
        self._ledger.record(batches)
        for batch in batches:
            batch.answer.put(None)

    def _settle(self, table: Table, group: Group) -> list[int]:
        """Decide all records; return the positions of those not to be inserted.

        Only those whose id or key is taken, or there more than once, are looked at one by one, in input order.
        """
        suspects: set[int] = set()
        stored = self._find_stored(table, group.columns[0], suspects)
        held = {}
        for position, keys in group.keys.items():
            held[position] = self._holders.find(position, keys)
            suspects.update(_positions(keys, held[position].keys() | _repeated(keys, "")))
        suspects |= group.unchecked
        if self._doubtful[0]:
            for place, doubtful in self._doubtful.items():
                suspects.update(_positions(group.keys.get(place, group.columns[0]), doubtful))
        dropped = group.refused | group.unchecked
        dropped.update([position for position in sorted(suspects) if not self._accept(group, position, stored, held)])
        return sorted(dropped)

    def _find_stored(self, table: Table, ids: list[int | None], suspects: set[int]) -> dict[int, tuple]:
        """Return the stored rows with these ids, and add the positions of ids that are not new to the suspects."""
        present = [id_ for id_ in ids if id_ is not None] if None in ids else ids
        followers = itertools.islice(present, 1, None)
        if not present or present[0] > self._last_id and all(map(operator.lt, present, followers)):
            return {}                       # ids that only grow need no look-up
        stored = table.find_rows(sorted(set(present)))
        suspects.update(_positions(ids, stored.keys() | _repeated(ids, None)))
        return stored

    def _accept(self, group: Group, position: int, stored: dict[int, tuple], held: dict[int, dict[str, int]]) -> bool:
        """Return whether a suspect is to be inserted; if it is, its id and keys are taken from now on."""
        id_, is_barred = group.columns[0][position], position in group.refused or position in group.unchecked
        rival, clashes = stored.get(id_), []
        is_same = rival is not None and rival == group.row(position)
        if is_same and not is_barred:
            group.unchanged.add(position)
            return False
        if rival and not is_same:
            content = ", ".join(f"{name} {printable(value)}" for name, value in zip(self.schema.names[1:], rival[1:]))
            clashes.append(Problem("id", "conflict", id_, content))
        for place, column in self.schema.unique:
            holder = held[place].get(group.keys[place][position])
            if holder not in (None, id_):
                value = group.columns[place][position]
                clashes.append(Problem(column.name, "not_unique", value, f"{self.schema.record} {holder}"))
        if clashes:
            group.clashes[position] = clashes
        if clashes or position in group.refused:
            return False
        # A record in doubt may be the one that an undisturbed load stores; in this one nobody else gets its id or keys.
        taken = {0: id_, **{place: group.keys[place][position] for place, _ in self.schema.unique}}
        if not is_barred and any(value in self._doubtful[place] for place, value in taken.items()):
            group.doubts[position] = "it may clash with a record that could not be checked"
        if is_barred or position in group.doubts:
            for place, value in taken.items():
                self._doubtful[place].add(value)
            return False
        stored[id_] = group.row(position)
        for place, _ in self.schema.unique:
            held[place][group.keys[place][position]] = id_
        return True


# -------------------------------------------------------------------------------------------------- Inserting
# `Loader` is the main thread's, but for `_carry`, `_check` and `_check_reference`, which a batch's own thread runs (the
# main thread for a batch that no thread can be had for).  `Ledger` says itself who calls what.

SINGLE_MAX = 1000                   # records of a model up to which each has a thread of its own
THREADS_MAX = 64                    # batches of a model on their way at once, each with its thread
IN_FLIGHT_MAX = 10_000              # records of a model on their way at once
PROGRESS_S = 0.1
BAR_WIDTH = 20                      # characters
STACK_BYTES = 512 * 1024            # of a thread: the C library keeps small stacks for the next one, unmaps large ones


class Ledger:
    """What is known of one model's ids, for the records that refer to them.

    Workers write it, batches' threads read it and wait on it.
    """

    def __init__(self, schema: Schema, origin: Origin | None, open_table: Callable[[], Table | None]) -> None:
        """`origin` is the model's input in this run, None if it has none: then nothing is to be waited for."""
        self._schema, self._origin, self._open_table = schema, origin, open_table
        # Guards the six names below.  `doubt` and `where` read without it, of ids that `missing` has returned: those
        # are final.
        self._lock = threading.Lock()
        self._durable: set[int] = set()             # inserted or found unchanged in this run
        self._refused: dict[int, int] = {}          # id: place
        self._unsure: dict[int, str] = {}           # id of a failed record: why it failed
        self._awaited: dict[int, list[queue.SimpleQueue]] = {}      # who waits for an id: waking all would cost more
        self._closed = origin is None
        self._doubt: str | None = None
        self._reading = threading.Lock()            # guards the connection that looks stored ids up, and `failure`
        self._table: Table | None = None
        self.failure: str | None = None             # why the stored records cannot be read; set once
        self.needed = False                         # whether any input refers to the model: set before threads start

    def record(self, batches: Iterable[Batch]) -> None:
        """Take in the answered batches of the model; called by its worker after the commit."""
        if not self.needed:
            return
        with self._lock:
            for batch in batches:
                if batch.failure is not None:
                    self._doubt = batch.failure
                else:
                    self._unsure.update((batch.columns[0][position], reason)
                                        for position, reason in batch.unchecked.items())
                    ids, refused = batch.columns[0], batch.problems.keys() | batch.unchecked.keys()
                    self._durable.update(_without(ids, sorted(refused)))
                    for position in sorted(batch.problems):
                        self._refused.setdefault(ids[position], batch.places[position])
            self._wake(self._awaited.keys() & self._durable)

    def close(self, doubt: str | None) -> None:
        """Say that no more will come; `doubt` is why a record that is not there may still exist."""
        with self._lock:
            if not self._closed:
                self._closed, self._doubt = True, doubt or self._doubt
                self._wake(list(self._awaited))

    def _wake(self, ids: Iterable[int]) -> None:
        for id_ in ids:
            for turn in self._awaited.pop(id_):
                turn.put(None)

    def missing(self, ids: Iterable[int | None]) -> tuple[set[int], str | None]:
        """Wait until each of the ids is durable or no more will come; return those not stored, and any doubt."""
        absent: Iterable[int | None] = ids
        while True:
            with self._lock:
                absent, doubt = set(itertools.filterfalse(self._durable.__contains__, absent)), self._doubt
                absent.discard(None)
                if not absent or self._closed:
                    break
                turn: queue.SimpleQueue = queue.SimpleQueue()
                self._awaited.setdefault(max(absent), []).append(turn)      # most likely the last one to come
            turn.get()
        if absent:
            absent -= self._find_stored(absent)
        return absent, doubt or (self.failure if absent else None)

    def awaited(self, ids: Iterable[int | None]) -> set[int]:
        """Return the ids that `missing` would wait for."""
        with self._lock:
            return set() if self._closed else set(ids) - self._durable - {None}

    def doubt(self, id_: int) -> str | None:
        """Return why a record that is missing may yet come to exist, None if it can't."""
        return self._unsure.get(id_)

    def where(self, id_: int) -> str:
        """Return the database of the model and, if a record with the id was refused in this run, where."""
        place = self._refused.get(id_)
        return self._schema.database + (f" ({self._origin.place(place)} was rejected)" if place is not None else "")

    def _find_stored(self, ids: set[int]) -> set[int]:
        with self._reading:
            # What cannot be read is not tried again: everybody would wait for a lock in turn.
            if self.failure is None:
                try:
                    if self._table is None:
                        self._table = self._open_table()
                    if self._table is None:
                        return set()
                    found = self._table.find_ids(ids)
                    self._table.check_file()
                    return found
                except STORAGE_ERRORS as error:
                    self.failure = _describe(self._schema, error)
            return set()

    def release(self) -> None:
        """Close the connection; fail if the database is no longer where it was."""
        with self._reading:
            if self._table is None:
                return
            try:
                with self._table:
                    self._table.check_file()
            except STORAGE_ERRORS as error:
                self.failure = self.failure or _describe(self._schema, error)


def batches_of(source: Source, size: int | None) -> Iterator[Block]:
    """Yield the input in blocks of at most `size` records, which a thread each will carry.

    Without a `size` that is one record for up to SINGLE_MAX records and BATCH_RECORDS of a longer input.
    """
    blocks = source.blocks()
    if size is None:
        held: list[Block] = []
        while sum(map(len, held)) <= SINGLE_MAX and (block := next(blocks, None)):
            held.append(block)
        size = 1 if sum(map(len, held)) <= SINGLE_MAX else BATCH_RECORDS
        blocks = itertools.chain(held, blocks)
    for block in blocks:
        yield from block.split(size)


@dataclass(slots=True)
class Stream:
    """One input on its way: the main thread's bookkeeping."""

    source: Source
    worker: InsertWorker
    blocks: Iterator[Block]
    started: int = 0                                # batches with a thread
    records: int = 0                                # and the records in them
    on_the_way: deque[Batch] = field(default_factory=deque)         # those not yet reported, in order
    in_flight: int = 0                              # the records in these
    held: Batch | None = None                       # a batch for which no thread could be started
    ended: bool = False

    def start(self, batch: Batch) -> None:
        """Count a batch as on its way."""
        self.held = None
        self.started += 1
        self.records += batch.size
        self.in_flight += batch.size
        self.on_the_way.append(batch)

    def ready(self) -> Iterator[Batch]:
        """Yield the batches that can be reported now, in order."""
        while self.on_the_way and self.on_the_way[0].is_done:
            batch = self.on_the_way.popleft()
            self.in_flight -= batch.size
            yield batch

    @property
    def has_room(self) -> bool:
        """Whether one more batch may be on its way."""
        return not self.ended and len(self.on_the_way) < THREADS_MAX and self.in_flight < IN_FLIGHT_MAX


class Loader:
    """One load: reads the sources in turns, starts a thread per batch, passes the answered batches on in order.

    `report` gets every batch, in input order within its model; `cut` is, afterwards, why the reading ended early.
    """

    def __init__(self, schemas: Sequence[Schema], sources: Sequence[Source], options: argparse.Namespace,
                 report: Report, watch: Watch, interrupts: Interrupts) -> None:
        self.cut: str | None = None
        self.unreadable: str | None = None
        self._broken: dict[str, str] = {}           # by table, the last error of the program itself
        self._options, self._report, self._watch, self._interrupts = options, report, watch, interrupts
        self._done: queue.SimpleQueue[Batch] = queue.SimpleQueue()
        self._ended: deque[threading.Thread] = deque()
        patience = interrupts.patience
        origins = {source.schema.table: source.origin for source in sources}
        self.ledgers = {schema.table: Ledger(schema, origins.get(schema.table), functools.partial(
            Table.for_reading, schema, options.db_dir, patience)) for schema in schemas}
        for source in sources:
            for _, each in source.schema.references:
                self.ledgers[each.references].needed = True
        open_table = Table.for_trial if options.dry_run else Table.for_writing
        self._streams = {source.schema.table: Stream(source, InsertWorker(
            source.schema, functools.partial(open_table, source.schema, options.db_dir, patience),
            self.ledgers[source.schema.table], watch), batches_of(source, options.batch_size)) for source in sources}

    @property
    def failures(self) -> list[str]:
        """What each failed database reported."""
        found = {table: self._broken.get(table) or ledger.failure for table, ledger in self.ledgers.items()}
        found.update((table, stream.worker.failure) for table, stream in self._streams.items() if stream.worker.failure)
        return [failure for failure in found.values() if failure]

    def run(self) -> None:
        """Load everything; returns when every record read has its verdict and no thread is left."""
        previous = threading.stack_size(STACK_BYTES)
        for stream in self._streams.values():
            stream.worker.start()
        try:
            while self.cut is None and not all(stream.ended for stream in self._streams.values()):
                started = [self._start_next(stream) for stream in self._streams.values() if stream.has_room]
                if not all(started):
                    self._carry_held()
                self._collect(wait=not any(started))
        finally:
            threading.stack_size(previous)
            self._finish()

    def _finish(self) -> None:
        """See what is on its way to its end, and all threads to theirs."""
        for stream in self._streams.values():
            if not stream.ended:
                stream.worker.finish(stream.started, self.cut or "the load broke off")
        try:
            while any(stream.on_the_way for stream in self._streams.values()):
                self._collect(wait=True)
            for thread in self._ended:
                thread.join()
        finally:                            # even if the report is broken, no worker may be left waiting
            for ledger in self.ledgers.values():
                ledger.release()
            for stream in self._streams.values():
                stream.worker.join()

    def _start_next(self, stream: Stream) -> bool:
        """Start a thread for the next batch of an input; return False if none can be started now."""
        batch = stream.held or self._read(stream)
        if batch is None:
            return True
        batch.thread = threading.Thread(target=self._carry, args=(batch,), name=batch.name)
        try:
            batch.thread.start()
        except RuntimeError as error:               # the machine has no more threads: later, or in this one
            self._watch.note("no thread", stream.source.schema.database, error=str(error))
            stream.held = batch
            return False
        stream.start(batch)
        return True

    def _read(self, stream: Stream) -> Batch | None:
        """Return the next batch of an input, None at its end."""
        schema = stream.source.schema
        try:
            with self._watch.span("read", schema.database), self._interrupts.allowed():
                block = next(stream.blocks, None)
        except KeyboardInterrupt:
            self.cut = "the load was interrupted"
            return None
        except OSError as error:
            self.cut = self.unreadable = f"{printable(stream.source.origin.name, quote=False)}: {error.strerror}"
            return None
        if block is None:
            stream.ended = True
            stream.worker.finish(stream.started)
            return None
        return Batch(schema, stream.source.origin, stream.started, block.places, block.raws, block.rows,
                     stream.records + 1)

    def _carry(self, batch: Batch) -> None:
        """Take a batch to its verdicts: the whole life of its thread."""
        with self._watch.span("thread", batch.schema.database):
            self._check(batch)
            with self._watch.span("wait for the worker", batch.schema.database) as told:
                self._streams[batch.schema.table].worker.submit(batch)
                batch.answer.get()
                if told is not None:
                    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in batch.counts.items() if count)
                    told.update(transaction=batch.transaction, verdicts=verdicts)
        self._done.put(batch)

    def _check(self, batch: Batch) -> None:
        """Validate a batch's records and look up what they refer to."""
        stream = self._streams[batch.schema.table]
        try:
            with self._watch.span("validate", batch.schema.database):
                validate_batch(batch, stream.source.width, stream.source.picks)
            for position, each in batch.schema.references:
                self._check_reference(batch, position, each)
        except Exception as error:          # a broken program: the batch fails, and the batches behind it go on
            batch.failure = self._broken[batch.schema.table] = _describe(batch.schema, error)

    def _check_reference(self, batch: Batch, position: int, column: Field) -> None:
        """Wait for the records that a column refers to; note the references to none."""
        values, ledger = batch.columns[position], self.ledgers[column.references]
        awaited = ledger.awaited(values) if self._watch.active else ()
        names = ", ".join(f"{column.references} {id_}" for id_ in sorted(awaited)[:5])
        names += f" and {len(awaited) - 5:,} more" if len(awaited) > 5 else ""
        name, details = ("wait for references", {"to": names}) if awaited else ("look up references", {})
        with self._watch.span(name, batch.schema.database, **details):
            absent, doubt = ledger.missing(values)
            self._watch.arrows(column.references, awaited, batch)
        for row in _positions(values, absent):
            reason = doubt or ledger.doubt(values[row])
            if reason:
                batch.unchecked[row] = f"{column.name} {values[row]} could not be looked up: {reason}"
            else:
                batch.problems.setdefault(row, []).append(
                    Problem(column.name, "no_such_reference", values[row], ledger.where(values[row])))

    def _carry_held(self) -> None:
        """Carry a batch for which there is no thread in the main thread: of a model that has no other to wait for."""
        for stream in self._streams.values():
            if stream.held:
                batch = stream.held
                batch.thread = threading.current_thread()
                stream.start(batch)
                self._carry(batch)
            if not stream.ended or stream.on_the_way:
                return                      # the models behind it may refer to it

    def _collect(self, wait: bool) -> None:
        """Report the batches that are done, after waiting for one if asked to, for a moment at most."""
        with contextlib.suppress(queue.Empty):
            while True:
                batch = self._done.get(timeout=PROGRESS_S) if wait else self._done.get_nowait()
                wait = False
                if batch.thread is not threading.current_thread():
                    self._ended.append(batch.thread)
                if len(self._ended) > THREADS_MAX:      # not at once: it may still be on its way out
                    self._ended.popleft().join()
                batch.is_done = True
                for ready in self._streams[batch.schema.table].ready():
                    self._report.add(ready)
                    self._watch.verdicts(ready)
        self._report.progress([stream.source for stream in self._streams.values()])
        for stream in self._streams.values():
            if stream.ended and not stream.on_the_way:
                self._report.close(stream.source.schema)
        limit = self._options.max_errors
        if all(stream.ended for stream in self._streams.values()):
            return                          # nothing is cut short any more
        if self._interrupts.number is not None:
            self.cut = "the load was interrupted"
        elif limit is not None and self._report.total(REJECTED) > limit:
            self.cut = f"the reading stopped after more than {limit} refused records"
        elif self._report.out.closed:
            self.cut = "standard output was closed"


# -------------------------------------------------------------------------------------------------- Reporting
# All printing; the main thread's alone.

WORD_WIDTH = len("would insert")
LISTED_MAX = 1000                   # records of a model up to which every one is listed
REFUSED_LISTED_MAX = 20             # refused ones that are listed of a longer input
VERIFY_WORDS = {UNCHANGED: "sound", REJECTED: "broken", FAILED: "failed"}
MARKS = {INSERTED: "✓", UNCHANGED: "=", REJECTED: "✗", FAILED: "!"}
ASCII_MARKS = {INSERTED: "+", UNCHANGED: "=", REJECTED: "x", FAILED: "!"}
COLOURS = {INSERTED: "32", UNCHANGED: "36", REJECTED: "31", FAILED: "35"}


def can_show(text: str, stream: io.TextIOBase | None) -> bool:
    """Return whether the stream's encoding has all characters of a text."""
    try:
        text.encode(getattr(stream, "encoding", None) or "ascii")
        return True
    except (ValueError, LookupError):
        return False


class Output:
    """Standard output that survives its reader: a closed pipe is noted, and any other error is kept to be told."""

    def __init__(self, stream: io.TextIOBase | None) -> None:
        self.closed = False
        self.error: str | None = None
        self._stream = stream
        if hasattr(stream, "reconfigure"):
            try:
                stream.reconfigure(errors="backslashreplace")       # which flushes
            except OSError as error:
                self._fail(error)
        self.marks = MARKS if can_show("".join(MARKS.values()), stream) else ASCII_MARKS
        wants_colour = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self.has_colour = wants_colour and bool(stream and stream.isatty())

    def paint(self, text: str, colour: str) -> str:
        """Return the text in a colour, given by its SGR number, where colours are shown."""
        return f"\x1b[{colour}m{text}\x1b[0m" if self.has_colour else text

    def write(self, text: str, flush: bool = False) -> None:
        """Write, unless the reader has gone or an error came before."""
        if self._stream is None or self.closed or self.error:
            return
        try:
            self._stream.write(text)
            if flush:
                self._stream.flush()
        except (OSError, ValueError) as error:      # ValueError of an encoding that cannot show everything escaped
            self._fail(error)

    def _fail(self, error: OSError | ValueError) -> None:
        if isinstance(error, BrokenPipeError):
            self.closed = True
        else:
            self.error = f"cannot write to standard output: {getattr(error, 'strerror', None) or error}"
        # What is left in the stream's buffer would be flushed, and fail again, at exit.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@dataclass(slots=True)
class Section:
    """What the report keeps of one model."""

    schema: Schema
    origin: Origin
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(VERDICTS, 0))
    seconds: float = 0.0
    characters: int = 0                                 # in the texts of its records, for the progress
    held: list[Entry] = field(default_factory=list)     # listed at the end, as it depends on how many there are
    spool: io.TextIOBase | None = None                  # lines that wait until the models before it are done
    titled: bool = False
    widths: Sequence[int] = ()                          # of the columns listed so far
    closed: bool = False

    @property
    def read(self) -> int:
        """The number of its records."""
        return sum(self.counts.values())

    @property
    def not_stored(self) -> int:
        """The number of those rejected or failed."""
        return self.counts[REJECTED] + self.counts[FAILED]


@dataclass(frozen=True, slots=True)
class Entry:
    """One record as the report shows it."""

    place: int
    raw: str
    cells: Sequence[object]
    verdict: str
    problems: Sequence[Problem] = ()
    reason: str | None = None               # of a failed one


def entries_of(batch: Batch, everything: bool) -> list[Entry]:
    """Return the records of an answered batch in input order, or only those neither inserted nor unchanged."""
    entries = [Entry(place, raw, (raw.rstrip("\r\n"),), REJECTED, (problem,))
               for place, raw, problem in batch.malformed]
    names = batch.schema.names
    has_all = everything or batch.failure
    for position in range(len(batch.places)) if has_all else batch.problems.keys() | batch.unchecked.keys():
        problems = sorted(batch.problems.get(position, ()), key=lambda problem: names.index(problem.field))
        cells, reason = [column[position] for column in batch.cells], batch.failure or batch.unchecked.get(position)
        place, raw = batch.places[position], batch.raws[position]
        entries.append(Entry(place, raw, cells, batch.verdict(position), problems, reason))
    return sorted(entries, key=lambda entry: entry.place)


class Report:
    """Tells of every record, of the progress and of the end; to a person, or as JSON Lines to a program."""

    def __init__(self, origins: Mapping[Schema, Origin], options: argparse.Namespace, out: Output,
                 rejects: Rejects | None, progress: Progress) -> None:
        self.out = out
        self._options, self._rejects, self._progress = options, rejects, progress
        self._sections = {schema.table: Section(schema, origin) for schema, origin in origins.items()}
        self._order = deque(self._sections.values())    # those not closed; the first one writes, the others spool
        self._begin = time.monotonic()
        self._words = VERIFY_WORDS if options.verify else {verdict: verdict for verdict in VERDICTS}
        self._shown_words = {**self._words, INSERTED: "would insert"} if options.dry_run else self._words

    def add(self, batch: Batch) -> None:
        """Take in an answered batch."""
        section = self._sections[batch.schema.table]
        for verdict, count in batch.counts.items():
            section.counts[verdict] += count
        section.seconds = time.monotonic() - self._begin
        if self._progress.is_on:
            section.characters += sum(map(len, batch.raws)) + sum(len(raw) for _, raw, _ in batch.malformed)
        if self._rejects and (batch.problems or batch.malformed):
            self._rejects.add(entries_of(batch, everything=False), batch)
        if not self._options.quiet:
            self._list(section, batch)

    def _list(self, section: Section, batch: Batch) -> None:
        everything = not self._options.verify
        if self._options.json:
            self._write(section, "".join(self._json_line(section, entry) for entry in entries_of(batch, everything)))
        elif self._options.verify:
            self._write(section, self._lines(section, entries_of(batch, everything)))
        elif section.read <= LISTED_MAX:
            section.held += entries_of(batch, everything)
        elif self._options.verbose:
            self._write(section, self._lines(section, [*section.held, *entries_of(batch, everything)]))
            section.held = []
        elif len(section.held) != REFUSED_LISTED_MAX:
            listed = itertools.chain(section.held, entries_of(batch, everything=False))
            bad = (entry for entry in listed if entry.verdict in (REJECTED, FAILED))
            section.held = list(itertools.islice(bad, REFUSED_LISTED_MAX))

    def _write(self, section: Section, text: str) -> None:
        if section is self._order[0]:
            self._progress.clear()
            self.out.write(text)
            return
        if section.spool is None:
            import tempfile                 # seldom needed and slow to import
            section.spool = tempfile.SpooledTemporaryFile(1 << 20, "w+", encoding="utf-8", errors="surrogatepass")
        try:
            section.spool.write(text)
        except OSError as error:
            self.out.error = f"cannot keep the list in the temporary folder: {error.strerror}"

    def close(self, schema: Schema) -> None:
        """List what is held of a model that is done, and let the next one write."""
        self._sections[schema.table].closed = True
        while self._order and self._order[0].closed:
            section = self._order.popleft()
            self._progress.clear()
            if not self._options.json and not self._options.quiet:
                self.out.write(self._lines(section, section.held) + self._left_out(section))
            self.out.write("", flush=True)
            if self._order and (spool := self._order[0].spool):     # what waited until its model is the first one
                spool.seek(0)
                for text in iter(lambda: spool.read(1 << 16), ""):
                    self.out.write(text)
                spool.close()

    def _lines(self, section: Section, entries: Iterable[Entry]) -> str:
        """Return a line per record and one per problem, the cells in columns, and a heading the first time."""
        shown = [(entry, [printable(cell, quote=False) for cell in entry.cells]) for entry in entries]
        rows = [cells for _, cells in shown if len(cells) > 1]      # what could not be read as a record has no columns
        columns = itertools.zip_longest(section.schema.names, *rows, fillvalue="")
        pairs = itertools.zip_longest(columns, section.widths, fillvalue=0)
        widths = section.widths = [max(min(max(map(len, column)), 40), width) for column, width in pairs]
        lines = []
        if not section.titled and (shown or not self._options.verify):
            section.titled = True
            names = "  ".join(f"{name:{width}}" for name, width in zip(section.schema.names, widths))
            origin = "" if self._options.verify else f" from {printable(section.origin.name, quote=False)}"
            lines.append(self.out.paint(section.schema.database + origin, "1"))
            lines.append(self.out.paint(f"\n    {'':{WORD_WIDTH}}  {names}".rstrip(), "2") + "\n")
        for entry, cells in shown:
            mark = f"{self.out.marks[entry.verdict]} {self._shown_words[entry.verdict]:{WORD_WIDTH}}"
            mark = self.out.paint(mark, COLOURS[entry.verdict])
            lines.append(f"  {mark}  {'  '.join(f'{cell:{width}}' for cell, width in zip(cells, widths)).rstrip()}\n")
            place = section.origin.place(entry.place)
            for problem in entry.problems:
                field_name = f"{problem.field}: " if problem.field else ""
                code = self.out.paint(f"[{problem.code}]", "2")
                lines.append(f"      {place}: {field_name}{problem.wording} {code}\n")
            if entry.verdict == FAILED:
                lines.append(f"      {place}: {printable(entry.reason, 200, quote=False)}\n")
        return "".join(lines)

    def _left_out(self, section: Section) -> str:
        """Return a line on the refused records that are not listed."""
        lists_all = section.read <= LISTED_MAX or self._options.verbose or self._options.verify
        if lists_all or section.not_stored <= REFUSED_LISTED_MAX:
            return "\n" if section.titled else ""
        left_out = section.not_stored - REFUSED_LISTED_MAX
        return f"  ... and {left_out:,} more that were not stored (-v lists everything)\n\n"

    def _json_line(self, section: Section, entry: Entry) -> str:
        problems = [{"field": each.field, "code": each.code, "message": each.message} for each in entry.problems]
        line = {"model": section.schema.table, "source": section.origin.name, section.origin.unit: entry.place,
                "id": id_of(entry), "verdict": self._words[entry.verdict], "problems": problems}
        if entry.verdict == FAILED:
            line["reason"] = entry.reason
        return json_line({**line, "dry_run": True} if self._options.dry_run else line)

    def summarize(self, exit_status: int, next_steps: Iterable[str]) -> None:
        """Print the table of counts and what to do next, or the summary line of JSON."""
        for section in list(self._order):           # those that an early end left open
            self.close(section.schema)
        self._progress.clear()
        totals = self.totals()
        if self._options.json:
            line = {"summary": totals, "exit_status": exit_status}
            self.out.write(json_line({**line, "dry_run": True} if self._options.dry_run else line), flush=True)
            return
        rows = [[self._shown_words.get(name, name) for name in next(iter(totals.values()))]]
        rows += [[database, *(f"{count:,}" for count in counts), f"{seconds:.2f}"]
                 for database, *counts, seconds in map(dict.values, totals.values())]
        widths = [max(map(len, column)) for column in zip(*rows)]
        for number, row in enumerate(rows):
            cells = enumerate(zip(row, widths))
            line = "  ".join(f"{cell:>{width}}" if place else f"{cell:{width}}" for place, (cell, width) in cells)
            self.out.write((self.out.paint(line, "1") if number == 0 else line) + "\n")
        self.out.write("" if self._options.quiet else "".join(f"\n{step}\n" for step in next_steps), flush=True)

    def progress(self, sources: Sequence[Source]) -> None:
        """Show how far the load is, where somebody looks."""
        if self._progress.is_due():
            self._progress.show(list(self._sections.values()), sources)

    def totals(self) -> dict[str, dict[str, object]]:
        """Return what the summary says of every model."""
        verdicts = (UNCHANGED, REJECTED, FAILED) if self._options.verify else VERDICTS
        return {table: {"database": section.schema.database, "read": section.read,
                        **{self._words[verdict]: section.counts[verdict] for verdict in verdicts},
                        "seconds": round(section.seconds, 3)} for table, section in self._sections.items()}

    def total(self, verdict: str) -> int:
        """Return how many records have a verdict so far."""
        return sum(section.counts[verdict] for section in self._sections.values())


def json_line(value: object) -> str:
    """Return a value as a line of ASCII without any control character."""
    return json.dumps(value, separators=(",", ":")).replace("\x7f", "\\u007f") + "\n"


def id_of(entry: Entry) -> int | str | None:
    """Return the id of a record as far as it has one: a number where it is one, else its text, cut."""
    value = entry.cells[0] if len(entry.cells) > 1 else None
    number, code = _judge_whole(value)
    return number if not code else None if value is None else printable(value, quote=False)


class Rejects:
    """The refused records in their inputs' own formats, and `errors.jsonl` with a line per problem.

    Raises OSError when made if the folder cannot be written, ValueError if one of the files there is somebody else's.
    """

    def __init__(self, directory: str, sources: Sequence[Source]) -> None:
        self.counts: dict[str, int] = {}
        self.error: str | None = None
        self._sources = {source.schema.table: source for source in sources}
        self.paths = self.paths_of(directory, sources)
        self._stack = contextlib.ExitStack()
        paths = {**self.paths, None: os.path.join(directory, "errors.jsonl")}
        for path in self.paths.values():
            if os.path.exists(path) and not os.path.exists(paths[None]):
                raise ValueError(f"{printable(path)} is there already, without an errors.jsonl:"
                                 " not what --rejects wrote")
        self._files = {table: self._stack.enter_context(open(path, "wb")) for table, path in paths.items()}
        for table, source in self._sources.items():
            self._write(table, source.bom + source.encode("[\n" if source.format == "json" else _line(source.header)))

    @staticmethod
    def paths_of(directory: str, sources: Sequence[Source]) -> dict[str, str]:
        """Return the file of each table's refused records."""
        return {source.schema.table: os.path.join(directory, f"{source.schema.table}.{source.format}")
                for source in sources}

    def add(self, entries: Iterable[Entry], batch: Batch) -> None:
        """Add the rejected ones of a batch's records."""
        table, source = batch.schema.table, self._sources[batch.schema.table]
        for entry in entries:
            if entry.verdict != REJECTED:
                continue
            count = self.counts[table] = self.counts.get(table, 0) + 1
            text = (",\n" if count > 1 else "") + entry.raw if source.format == "json" else _line(entry.raw)
            self._write(table, source.encode(text))
            for problem in entry.problems:
                line = {"model": table, "source": source.origin.name, source.origin.unit: entry.place,
                        "id": id_of(entry), "field": problem.field, "code": problem.code, "message": problem.message}
                self._write(None, json_line(line).encode())

    def _write(self, table: str | None, text: bytes) -> None:
        if self.error is None:
            try:
                self._files[table].write(text)
            except OSError as error:
                self.error = f"cannot write the rejected records: {error.strerror}"

    def close(self) -> None:
        """Finish the files."""
        for table, source in self._sources.items():
            if source.format == "json":
                self._write(table, source.encode("\n]\n"))
        try:
            self._stack.close()
        except OSError as error:
            self.error = f"cannot write the rejected records: {error.strerror}"


def _line(text: str) -> str:
    return text if not text or text.endswith(("\n", "\r")) else text + "\n"


# --------------------------------------------------------------------------------------- Trace, log, progress

TRACE_EVENTS_MAX = 200_000          # some 30 MB; what comes after is counted and left out
# The levels of the log, as `logging` numbers them: whatever else happens is told for debugging.
LEVELS = {"ends": 10, INSERTED: 10, UNCHANGED: 10, REJECTED: 20, "totals": 20, "another writer": 20, "locked": 30,
          "lock taken": 30, "no thread": 30, "no index": 30, "fails": 40, FAILED: 40, "database failed": 40}


class Watch:
    """Tells a log and a timeline what happens, from any thread; without either of them it does nothing.

    The timeline is in the Chrome trace format: a process per database, a row per thread, complete events in µs.
    """

    def __init__(self, log_file: str | None = None, trace_file: str | None = None) -> None:
        """Raises OSError if a file cannot be written."""
        self.active = bool(log_file or trace_file)
        self._log = open_log(log_file) if log_file else None
        self._trace = open(trace_file, "w", encoding="utf-8") if trace_file else None
        self._events: list[dict] = []
        self._left_out = 0
        self._begin = time.perf_counter()
        self._numbers = itertools.count(1)
        self._processes: defaultdict[str, int] = defaultdict(self._numbers.__next__)
        self._threads: defaultdict[tuple[str, str], int] = defaultdict(self._numbers.__next__)
        self._settled_at: dict[tuple[str, int | None], tuple[float, str, str]] = {}

    def span(self, name: str, database: str, **details: object) -> contextlib.AbstractContextManager:
        """Return a context whose begin, end and duration are told; it yields the details, None when nobody listens."""
        return self._span(name, database, details) if self.active else NOTHING

    @contextlib.contextmanager
    def _span(self, name: str, database: str, details: dict[str, object]) -> Iterator[dict[str, object]]:
        if batches := details.get("group"):     # they are consecutive
            first, last = batches[0], batches[-1]
            details["group"] = f"{first.schema.table}#{first.first}-{last.first + last.size - 1}"
        begin, ending = self._now(), "ends"
        self._tell(database, f"{name} begins", details)
        try:
            yield details
        except BaseException as error:
            details["error"], ending = str(error) or type(error).__name__, "fails"
            raise
        finally:
            duration = self._now() - begin
            self._tell(database, f"{name} {ending}", {**details, "ms": round(duration / 1000, 3)})
            self._add("X", name, database, begin, dur=round(duration, 1), args=details)

    def note(self, event: str, database: str, **details: object) -> None:
        """Tell of something that has no duration."""
        if self.active:
            self._tell(database, event, details)
            self._add("i", event, database, self._now(), s="t", args=details)

    def count(self, database: str, waiting: Mapping[int, Batch]) -> None:
        """Tell how many records wait for a database's worker."""
        if self._trace:
            records = sum(batch.size for batch in waiting.values())
            self._add("C", "waiting", database, self._now(), args={"records": records})

    def settled(self, batches: Sequence[Batch]) -> None:
        """Remember when single records were settled, for the arrows to those that waited for them."""
        if self._trace:
            for batch in batches:
                is_single = batch.size == len(batch.places) == 1
                if batch.failure is None and is_single and len(self._settled_at) < TRACE_EVENTS_MAX:
                    end = (self._now(), batch.schema.database, batch.name)
                    self._settled_at[batch.schema.table, batch.columns[0][0]] = end

    def arrows(self, table: str, ids: Iterable[int], batch: Batch) -> None:
        """Draw an arrow from each of the records waited for to the batch that waited."""
        for id_ in ids if self._trace else ():
            if len(self._events) + 2 > TRACE_EVENTS_MAX:
                self._left_out += 2         # half an arrow would break the format
            elif (table, id_) in self._settled_at:
                moment, database, name = self._settled_at[table, id_]
                number = next(self._numbers)
                self._add("s", "refers to", database, moment, thread=name, cat="reference", id=number)
                self._add("f", "refers to", batch.schema.database, self._now(), cat="reference", id=number, bp="e")

    def verdicts(self, batch: Batch) -> None:
        """Log the verdict on every record of a batch, one line each: search for `users id=8 `."""
        if not self._log:
            return
        for entry in entries_of(batch, everything=True):
            reasons = "; ".join(f"{problem.message} [{problem.code}]" for problem in entry.problems)
            reasons = reasons or entry.reason or ""
            id_ = id_of(entry)
            shown = id_ if isinstance(id_, int) else json.dumps(id_)
            words = [f"{batch.schema.table} id={shown}", batch.origin.place(entry.place),
                     entry.verdict + (reasons and f": {reasons}")]
            if batch.thread:
                words.append(f"thread={batch.thread.name} transaction={batch.transaction}")
            if batch.lock_s:
                words.append(f"after waiting for a lock for {batch.lock_s:.1f} s")
            self._log.log(LEVELS[entry.verdict], " ".join(words), extra={"database": batch.schema.database})

    def _now(self) -> float:
        return round((time.perf_counter() - self._begin) * 1e6, 1)

    def _tell(self, database: str, event: str, details: Mapping[str, object]) -> None:
        if self._log:
            words = " ".join(f"{key}={printable(value, 200, quote=False)}" for key, value in details.items())
            level = LEVELS.get(event, LEVELS["fails" if event.endswith(" fails") else "ends"])
            self._log.log(level, "%s%s", event, words and f" {words}", extra={"database": database})

    def _add(self, kind: str, name: str, database: str, moment: float, thread: str | None = None,
             **more: object) -> None:
        if not self._trace:
            return
        if len(self._events) >= TRACE_EVENTS_MAX:
            self._left_out += 1
            return
        row = self._threads[database, thread or threading.current_thread().name]
        process = self._processes[database]
        self._events.append({"ph": kind, "name": name, "ts": moment, "pid": process, "tid": row, **more})

    def close(self) -> list[str]:
        """Write the timeline and close the files; return what there is to say about them."""
        notices = []
        for handler in self._log.handlers if self._log else ():
            try:
                handler.close()
            except OSError as error:
                notices.append(f"cannot write the log: {error.strerror}")
        if self._trace:
            notices += self._write_trace()
        return notices

    def _write_trace(self) -> Iterator[str]:
        if self._left_out and self._events:
            name = f"cut here: {self._left_out:,} more events are left out"
            self._events.append({**self._events[-1], "ph": "i", "s": "g", "name": name})
        if self._left_out:
            yield f"the timeline leaves out {self._left_out:,} events after the first {TRACE_EVENTS_MAX:,}"
        names = [("process_name", process, 0, database) for database, process in self._processes.items()]
        names += [("thread_name", self._processes[database], row, thread)
                  for (database, thread), row in self._threads.items()]
        events = [{"ph": "M", "name": kind, "pid": process, "tid": row, "args": {"name": name}}
                  for kind, process, row, name in names]
        try:
            with self._trace:
                text = ",\n".join(json.dumps(event) for event in itertools.chain(events, self._events))
                self._trace.write(f'{{"displayTimeUnit":"ms","traceEvents":[\n{text}\n]}}\n')
        except OSError as error:
            yield f"cannot write the timeline: {error.strerror}"


NOTHING = contextlib.nullcontext()


def open_log(path: str) -> logging.Logger:
    """Return a logger to a file, `-` for standard error: time (RFC 3339, UTC), level, thread, database, event."""
    import logging                          # only here: it takes a tenth of the start
    logger = logging.Logger("distributed_inserts")
    if path == "-":
        handler = logging.StreamHandler()
    else:
        handler = logging.FileHandler(path, "w", encoding="utf-8", errors="backslashreplace")
    form = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(threadName)s %(database)s %(message)s",
                             "%Y-%m-%dT%H:%M:%S")
    form.converter = time.gmtime
    handler.setFormatter(form)
    logger.addHandler(handler)
    logging.raiseExceptions = False         # a full disk must not print a traceback per line
    return logger


class Progress:
    """A line on standard error, redrawn in place: only on a terminal, at most every PROGRESS_S."""

    def __init__(self, quiet: bool) -> None:
        is_seen = sys.stderr and sys.stderr.isatty() and not quiet and os.environ.get("TERM") != "dumb"
        self._stream = sys.stderr if is_seen else None
        self._begin = self._last = time.monotonic()
        self._shows_blocks = can_show("█░", self._stream)
        self._drawn = False

    @property
    def is_on(self) -> bool:
        """Whether somebody looks."""
        return self._stream is not None

    def is_due(self) -> bool:
        """Return whether it is time to draw."""
        return self.is_on and time.monotonic() - self._last >= PROGRESS_S

    def show(self, sections: Sequence[Section], sources: Sequence[Source]) -> None:
        """Draw how many records every database has had, and how much of the input that is."""
        self._last = time.monotonic()
        elapsed = self._last - self._begin
        done = sum(section.characters * len(source.encode(" ")) for section, source in zip(sections, sources))
        sizes = [source.total_bytes for source in sources]
        rate = f"{sum(section.read for section in sections) / max(elapsed, 1e-9):,.0f}/s"
        counts = [f"{section.schema.table} {section.read:,}" for section in sections]
        counts.append(f"{sum(section.not_stored for section in sections):,} refused")
        if None not in sizes and (total := sum(sizes)):
            share = min(done / total, 1)
            left = elapsed / share - elapsed if share else 0
            words = [f"{share:4.0%}", f"of {total / 1e6:.1f} MB", rate, f"{left:.0f} s left", *counts]
        else:
            share, words = None, [f"{done / 1e6:.1f} MB", rate, *counts]
        self._draw(share, words)

    def clear(self) -> None:
        """Take the line away before something else is printed."""
        if self._drawn:
            self._draw(None, [])

    def _draw(self, share: float | None, words: list[str]) -> None:
        """Draw the words in place, with a bar in what room is left of the terminal's width.

        The last words are left out if there is no room for them.
        """
        with contextlib.suppress(OSError, ValueError):
            room = (os.get_terminal_size(self._stream.fileno()).columns or 80) - 1
            while words and len("  ".join(words)) > room:
                words.pop()
            width = min(room - len("  ".join(words)) - 2, BAR_WIDTH) if share is not None else 0
            done, ahead = "█░" if self._shows_blocks else "#-"
            bar = done * round(share * width) + ahead * (width - round(share * width)) + " " if width > 3 else ""
            self._stream.write("\r\x1b[K" + bar + "  ".join(words))
            self._stream.flush()
        self._drawn = bool(words)


# ------------------------------------------------------------------------------------------------- The sample

SAMPLE: dict[str, str] = {
    "users": """\
id,name,email
1,Alice,alice@example.com
2,Bob,bob@example.com
3,Charlie,charlie@example.com
4,David,david@example.com
5,Eve,eve@example.com
6,Frank,frank@example.com
7,Grace,grace@example.com
8,Alice,alice@example.com
9,Henry,henry@example.com
10,,jane@example.com
""",
    "products": """\
id,name,price
1,Laptop,1000.00
2,Smartphone,700.00
3,Headphones,150.00
4,Monitor,300.00
5,Keyboard,50.00
6,Mouse,30.00
7,Laptop,1000.00
8,Smartwatch,250.00
9,Gaming Chair,500.00
10,Earbuds,-50.00
""",
    "orders": """\
id,user_id,product_id,quantity
1,1,1,2
2,2,2,1
3,3,3,5
4,4,4,1
5,5,5,3
6,6,6,4
7,7,7,2
8,8,8,0
9,9,1,-1
10,10,11,2
""",
}


# --------------------------------------------------------------------------------------------------- Verifying
# In the main thread alone, through connections that cannot write.


def stored_origin(schema: Schema) -> Origin:
    """Return the database of a schema as where records come from; they are found by their ids."""
    return Origin(schema.database, "id")


def verify(schemas: Sequence[Schema], directory: str, interrupts: Interrupts, report: Report,
           watch: Watch) -> list[str]:
    """Check every stored record as if it were read from a file; report what breaks a rule, return what failed.

    An interrupt ends it early.
    """
    failures: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        tables: dict[str, Table] = {}

        def find_table(name: str) -> Table | None:
            """Return a table, opened for reading, None where there is none or none that can be read."""
            if name not in tables and name not in failures:         # a load may make it while this one looks
                schema = next(schema for schema in schemas if schema.table == name)
                if table := Table.for_reading(schema, directory, interrupts.patience):
                    tables[name] = stack.enter_context(table)
            return tables.get(name)

        for schema in schemas:
            if interrupts.number is not None:
                break
            try:
                table = find_table(schema.table)
                if table is not None:
                    with watch.span("verify", schema.database):
                        for batch in _stored_batches(schema, table, find_table, failures):
                            report.add(batch)
                            watch.verdicts(batch)
                            if interrupts.number is not None:
                                break
            except STORAGE_ERRORS as error:
                failures[schema.table] = _describe(schema, error)
            report.close(schema)
    return list(failures.values())


def _stored_batches(schema: Schema, table: Table, find_parent: Callable[[str], Table | None],
                    failures: Mapping[str, str]) -> Iterator[Batch]:
    """Yield all stored records with their problems; those with none have the verdict `unchanged`.

    `find_parent` returns a table that they refer to, `failures` say why one of those could not be read.
    """
    holders: dict[int, dict[int, int]] = {position: {} for position, _ in schema.unique}
    for rows in table.scan(BATCH_RECORDS):
        # A number is judged by its text: by the column in one go, as in a file.
        texts = [[repr(cell) if type(cell) in (int, float) else cell for cell in column] for column in zip(*rows)]
        places, raws = [row[0] for row in rows], [""] * len(rows)
        batch = Batch(schema, stored_origin(schema), 0, places, raws, list(map(list, zip(*texts))))
        validate_batch(batch, len(texts), range(len(texts)))
        for position, column in schema.unique:
            for row, key in enumerate(batch.keys[position]):
                holder = holders[position].setdefault(hash(key), batch.places[row]) if key else batch.places[row]
                if holder != batch.places[row]:
                    batch.problems.setdefault(row, []).append(
                        Problem(column.name, "not_unique", batch.columns[position][row], f"{schema.record} {holder}"))
        for position, column in enumerate(schema.fields):
            if column.kind not in (Kind.TEXT, Kind.EMAIL):
                continue
            for row, (text, sound) in enumerate(zip(texts[position], batch.columns[position])):
                if sound not in (None, text):
                    batch.problems.setdefault(row, []).append(
                        Problem(column.name, "bad_text", text, ", or begins or ends with white space"))
        for position, column in schema.references:
            values, parent = batch.columns[position], find_parent(column.references)
            if column.references in failures:
                reason = f"{column.name} could not be looked up: {failures[column.references]}"
                batch.unchecked.update((row, reason) for row, value in enumerate(values) if value is not None)
                continue
            ids = {value for value in values if value is not None}
            for row in _positions(values, ids - (parent.find_ids(ids) if parent else set())):
                batch.problems.setdefault(row, []).append(
                    Problem(column.name, "no_such_reference", values[row], f"{column.references}.db"))
        batch.unchanged = set(range(len(rows))) - batch.problems.keys() - batch.unchecked.keys()
        yield batch


# ------------------------------------------------------------------------------------------------ Command line

EXIT_STATUSES = """\
exit status:
  0        every record is stored (the sample's refusals do not count)
  1        some records were rejected, or --verify found a broken rule
  2        wrong usage or unreadable input; nothing was written
  3        a database failed: some records have the verdict failed; or an input or output did after the first record
  130, 143 interrupted by Ctrl-C or SIGTERM; what was reported as stored is stored"""
EXAMPLES = """\
examples:
  %(prog)s                                  insert the built-in sample into the current folder
  %(prog)s --users users.csv --products products.csv --orders orders.csv --rejects refused
  %(prog)s --orders refused/orders.csv      load the mended ones
  %(prog)s --users users.csv --dry-run      say what would happen, write nothing
  %(prog)s --verify --db-dir databases      check what is stored
"""


class Interrupts:
    """SIGINT and SIGTERM while a load or --verify runs: the first one ends the reading, a second one the process."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self.number: int | None = None
        self._is_reading = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def allowed(self) -> Iterator[None]:
        """Let the first signal raise KeyboardInterrupt in here, where the main thread may wait for input for ever."""
        self._is_reading = True
        try:
            if self.number is not None:
                raise KeyboardInterrupt
            yield
        finally:
            self._is_reading = False

    def _receive(self, number: int, frame: object) -> None:
        if self.number is not None:
            os._exit(128 + number)
        self.number = number
        self.patience.hurry_from = time.monotonic()
        if self._is_reading:
            raise KeyboardInterrupt


def _whole(text: str, lowest: int, highest: int) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not lowest <= int(text) <= highest:
        raise argparse.ArgumentTypeError(f"{printable(text)} is not a whole number from {lowest} to {highest}")
    return int(text)


def _path(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("the name is empty")
    return text


def _seconds(text: str) -> float:
    if not NUMBER.fullmatch(text) or not 0 <= float(text) <= 1e6:
        raise argparse.ArgumentTypeError(f"{printable(text)} is not a number of seconds")
    return float(text)


class Parser(argparse.ArgumentParser):
    """An argument parser whose messages show what was typed without control characters."""

    def error(self, message: str) -> None:
        """Print the usage and the message, and exit with 2."""
        super().error(printable(message, PATH_MAX, quote=False))


class Once(argparse.Action):
    """Stores a value, but not a second one over it."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: str,
                 option_string: str) -> None:
        """Raise argparse.ArgumentError the second time."""
        if getattr(namespace, self.dest) is not None:
            raise argparse.ArgumentError(self, "given twice; load one file after the other")
        setattr(namespace, self.dest, values)


def build_parser(schemas: Sequence[Schema]) -> argparse.ArgumentParser:
    """Return the parser of the command line; each schema has the flag that names its input file."""
    models = "\n".join(f"  {schema.table:10} {schema.database:13} {', '.join(schema.names)}" for schema in schemas)
    parser = Parser(
        description="Insert records of several kinds into several SQLite databases at once, with every check\n"
                    "made by this program, and tell what became of every record.  Without a file it inserts\n"
                    "its built-in sample.",
        epilog=f"models:\n{models}\n\n{EXAMPLES}\n{EXIT_STATUSES}",
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    for schema in schemas:
        parser.add_argument(
            f"--{schema.table}", metavar="FILE", type=_path, action=Once,
            help=f"{schema.table} to load: .csv, .tsv, .json (an array) or .jsonl by its suffix, - for standard input")
    add = parser.add_argument
    add("--input-format", choices=("csv", "tsv", "json", "jsonl"),
        help="of all files, whatever their suffixes (of -: csv)")
    add("--db-dir", metavar="DIR", type=_path, default=".",
        help="where the databases live (default: the current folder; made if missing)")
    add("-n", "--dry-run", action="store_true", help="check everything, write nothing into the databases")
    add("--verify", action="store_true", help="check the stored records: every rule, uniqueness, every reference")
    add("--rejects", metavar="DIR", type=_path,
        help="write the refused records there, ready to be mended and loaded, and errors.jsonl")
    add("--max-errors", metavar="N", type=lambda text: _whole(text, 0, 10**9 - 1),
        help="stop reading once more than N records were refused")
    add("--batch-size", metavar="N", type=lambda text: min(_whole(text, 1, 10**9 - 1), BATCH_RECORDS),
        help="records that a thread carries at most"
        f" (default: 1 for up to {SINGLE_MAX:,} records of a model, {BATCH_RECORDS:,} above)")
    add("--busy-timeout", metavar="SECONDS", type=_seconds, default=30.0,
        help="how long to wait for a locked database (default: 30)")
    add("--json", action="store_true",
        help="JSON Lines: a line per record and a summary line; with -q the summary alone")
    volume = parser.add_mutually_exclusive_group()
    volume.add_argument("-v", "--verbose", action="store_true", help="list every record, however many")
    volume.add_argument("-q", "--quiet", action="store_true", help="print the summary only")
    add("--log-file", metavar="FILE", type=_path, help="write a detailed log, - for standard error")
    add("--trace", metavar="FILE", type=_path,
        help="write a timeline of all threads and transactions, to be opened in Perfetto")
    add("--version", action="version",
        version=f"%(prog)s {__version__} (Python {sys.version.split()[0]}, SQLite {sqlite3.sqlite_version})")
    return parser


def open_sources(schemas: Sequence[Schema], options: argparse.Namespace, stack: contextlib.ExitStack) -> list[Source]:
    """Return the inputs that the options name, opened, or the sample; raises OSError or ValueError."""
    paths = [(schema, getattr(options, schema.table)) for schema in schemas]
    if [path for _, path in paths].count("-") > 1:
        raise ValueError("standard input can be only one of the files")
    if "-" in [path for _, path in paths] and sys.stdin is None:
        raise ValueError("standard input is closed")    # or descriptor 0 would be the next file that is opened
    sources = [stack.enter_context(contextlib.closing(Source(schema, path, options.input_format)))
               for schema, path in paths if path is not None]
    return sources or [Source(schema, "sample", "csv", SAMPLE[schema.table])
                       for schema in schemas if schema.table in SAMPLE]


def _identify(path: str) -> object:
    try:
        status = os.stat(path)
        return status.st_dev, status.st_ino
    except OSError:
        return os.path.realpath(path)


def check_outputs(options: argparse.Namespace, sources: Sequence[Source]) -> None:
    """Raise ValueError if a file to be written is an input, a database or another file to be written."""
    taken: dict[object, str] = {source.identity: f"an input, {printable(source.name)}" for source in sources}
    taken.update((_identify(os.path.join(options.db_dir, schema.database + suffix)), f"the database {schema.database}")
                 for schema in SCHEMAS for suffix in ("", "-wal", "-shm", "-journal"))
    outputs = [(options.log_file, "--log-file"), (options.trace, "--trace")]
    if options.rejects:
        paths = (*Rejects.paths_of(options.rejects, sources).values(), os.path.join(options.rejects, "errors.jsonl"))
        outputs += [(path, "--rejects") for path in paths]
    for path, flag in outputs:
        if path is not None and (os.path.isfile(path) or not os.path.exists(path)):
            if _identify(path) in taken:
                raise ValueError(f"{flag} would overwrite {taken[_identify(path)]}")
            taken[_identify(path)] = f"what {flag} writes"


def next_steps(options: argparse.Namespace, report: Report, rejects: Rejects | None, cut: str | None,
               is_sample: bool) -> Iterator[str]:
    """Yield what the user may want to know and do now."""
    python, script = os.path.basename(sys.executable) or "python", sys.argv[0] or "distributed_inserts.py"
    program = f"  {python} {_shell_word(script)} "
    folder = "" if options.db_dir == "." else f" --db-dir {_shell_word(options.db_dir)}"
    if cut:
        yield f"This is not all: {cut}.\nRun the same load again: what is stored already is found unchanged."
    elif report.total(FAILED):
        yield "Mend the cause of the failure and run the same load again: what is stored already is found unchanged."
    if options.dry_run:
        yield "This was a dry run: nothing was written into the databases."
    elif is_sample:
        yield ("This was the built-in sample; its refusals show the checks. To load your own files:\n"
               f"{program}--users users.csv --products products.csv --orders orders.csv{folder}")
    if report.total(REJECTED) and rejects:
        mended = " ".join(f"--{table} {_shell_word(path)}"
                          for table, path in rejects.paths.items() if table in rejects.counts)
        folder_name = printable(options.rejects, 200, quote=False)
        yield (f"Mend the refused records in {folder_name} (errors.jsonl has the reasons),"
               f" then load them:\n{program}{mended}{folder}")
    elif report.total(REJECTED) and not is_sample:
        yield "To get the refused records back in files to mend and load, run it again with --rejects DIR."


def _shell_word(path: str) -> str:
    import shlex
    return shlex.quote(printable(path, PATH_MAX, quote=False))


def _complain(*messages: str | None) -> None:
    for message in filter(None, messages):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(f"distributed_inserts: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status; see EXIT_STATUSES."""
    check_schemas(SCHEMAS)
    parser = build_parser(SCHEMAS)
    try:
        options = parser.parse_args(argv)
    except SystemExit as ending:            # after --help, --version or a wrong usage
        out = Output(sys.stdout)
        out.write("", flush=True)
        _complain(out.error)
        return 3 if out.error else ending.code
    has_files = any(getattr(options, schema.table) is not None for schema in SCHEMAS)
    loads = has_files or options.dry_run or options.rejects or options.input_format or options.max_errors is not None
    if options.verify and loads:
        parser.error("--verify looks at what is stored: it takes no files and no flags that say how to load them")
    if options.input_format and not has_files:
        parser.error("--input-format is for files, and none is named")
    collecting = gc.isenabled()
    gc.disable()        # millions of tuples and hardly a cycle: the collector would only cost
    try:
        with contextlib.ExitStack() as stack:
            return _verify(options) if options.verify else _load(options, stack)
    except (OSError, ValueError) as error:
        name = f"{printable(error.filename, 200, quote=False)}: " if getattr(error, "filename", None) else ""
        _complain(f"{name}{getattr(error, 'strerror', None) or error}")
        return 2
    except KeyboardInterrupt:
        return 130
    except Exception as error:              # a broken program; the records reported so far are as reported
        _complain(f"internal error: {type(error).__name__}: {printable(str(error), 200, quote=False)}")
        return 3
    finally:
        if collecting:
            gc.enable()


def _load(options: argparse.Namespace, stack: contextlib.ExitStack) -> int:
    sources = open_sources(SCHEMAS, options, stack)
    check_outputs(options, sources)
    for folder in (options.rejects, None if options.dry_run else options.db_dir):
        if folder is not None:
            os.makedirs(folder, exist_ok=True)
    watch = Watch(options.log_file, options.trace)
    # Last, as it empties earlier ones.
    rejects = Rejects(options.rejects, sources) if options.rejects is not None else None
    out = Output(sys.stdout)
    origins = {source.schema: source.origin for source in sources}
    report = Report(origins, options, out, rejects, Progress(options.quiet or options.log_file == "-"))
    with Interrupts(Patience(options.busy_timeout, watch)) as interrupts:
        loader = Loader(SCHEMAS, sources, options, report, watch, interrupts)
        loader.run()
        if rejects:
            rejects.close()
        is_sample = sources[0].identity is None         # it is no file
        status = 1 if report.total(REJECTED) and not is_sample else 0
        # A record that was cut off from one it refers to has failed too, but no database did.
        if loader.failures or report.total(FAILED) and not loader.cut or out.error or rejects and rejects.error:
            status = 3
        if loader.unreadable:               # after the first records were stored it is no longer just a wrong input
            status = 3 if report.total(INSERTED) else 2
        status = 128 + interrupts.number if interrupts.number else status
        cut = loader.cut or ("the load was interrupted" if interrupts.number else None)
        report.summarize(status, next_steps(options, report, rejects, cut, is_sample))
    for counts in report.totals().values():
        watch.note("totals", **counts)
    notices = watch.close()
    if out.closed:
        return status if loader.cut is None else 128 + 13       # as if SIGPIPE had ended it
    for source in sources:
        if source.extra:
            names = ", ".join(printable(name) for name in source.extra[:20])
            source_name = printable(source.origin.name, quote=False)
            _complain(f"{source_name}: ignored what is no field of {source.schema.table}: {names}")
    _complain(*loader.failures, loader.unreadable, out.error, rejects and rejects.error, *notices)
    return 3 if out.error else status


def _verify(options: argparse.Namespace) -> int:
    if not any(os.path.lexists(os.path.join(options.db_dir, schema.database)) for schema in SCHEMAS):
        raise ValueError(f"{printable(options.db_dir, 200)}: none of the databases is there")
    check_outputs(options, ())
    out = Output(sys.stdout)
    origins = {schema: stored_origin(schema) for schema in SCHEMAS}
    report = Report(origins, options, out, None, Progress(options.quiet or options.log_file == "-"))
    watch = Watch(options.log_file, options.trace)
    with Interrupts(Patience(options.busy_timeout, watch)) as interrupts:
        failures = verify(SCHEMAS, options.db_dir, interrupts, report, watch)
        status = 3 if failures or out.error else 1 if report.total(REJECTED) else 0
        status = 128 + interrupts.number if interrupts.number else status
        report.summarize(status, ("Not everything was looked at: it was interrupted.",) if interrupts.number else ())
    for counts in report.totals().values():
        watch.note("totals", **counts)
    _complain(*failures, out.error, *watch.close())
    return status


if __name__ == "__main__":
    raise SystemExit(main())
