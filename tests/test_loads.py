"""Loads of files: the same verdicts and rows in every format, batch size and order, and those of a slow sequential model."""
from __future__ import annotations

import csv
import io
import itertools
import json
import random
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

import distributed_inserts
from conftest import PROGRAM, rows

TABLES = ("users", "products", "orders")
FIELDS = {"users": ("id", "name", "email"), "products": ("id", "name", "price"), "orders": ("id", "user_id", "product_id", "quantity")}
SINGULAR = {"users": "user", "products": "product", "orders": "order"}
FORMATS = ("csv", "tsv", "json", "jsonl")
SIZES = ("1", "7", "1000", None)
VERDICTS = ("inserted", "unchanged", "rejected", "failed")
PEAK_MAX_BYTES = 256 * 2**20
HEAVY_TIMEOUT_S = 900

Record = list[str] | None               # the cells as text; None is a record of the wrong shape
Outcome = tuple[str, list[tuple[str, str]]]


# ------------------------------------------------------------- What is wrong with a cell, and what is stored of the rest
# The model looks cells up here; what is in no table is sound.  So it shares no rule with the program.

BAD_WHOLE = {"": "blank", "0": "not_positive", "-3": "not_positive", "1.0": "not_integer", "1e3": "not_integer", "+5": "not_integer",
             "1_0": "not_integer", "٣": "not_integer", "²": "not_integer", "x7": "not_integer", "true": "not_integer",
             "0x1F": "not_integer", "1,000": "not_integer", str(2**63): "out_of_range", "9" * 40: "out_of_range"}
BAD_PRICE = {"": "blank", "0": "not_positive", "0.00": "not_positive", "-1": "not_positive", "-0.5e3": "not_positive", "nan": "not_number",
             "inf": "not_number", "-Infinity": "not_number", "1_0": "not_number", "1,5": "not_number", "free": "not_number",
             "٣": "not_number", "1e999": "out_of_range", "1e-999": "out_of_range", "9" * 400: "out_of_range"}
BAD_TEXT = {"": "blank", "   ": "blank", "\u200b": "blank", "\u3164": "blank", "\ufeff\u00ad": "blank", "\u3000": "blank",
            "be\x07ll": "bad_text", "tab\there": "bad_text", "line\nbreak": "bad_text", "\x1b[31mred": "bad_text", "c1\x9b": "bad_text"}
BAD_EMAIL = {**BAD_TEXT, "ann": "not_email", "ann@": "not_email", "@example.com": "not_email", "a@b@example.com": "not_email",
             "a..b@example.com": "not_email", ".a@example.com": "not_email", "a.@example.com": "not_email", "ann@localhost": "not_email",
             "ann@example.42": "not_email", "a n@example.com": "not_email", "a" * 65 + "@example.com": "not_email",
             "ann@-a.com": "not_email", "ann@a-.com": "not_email", "ann@" + "a" * 64 + ".com": "not_email",
             "a@" + "b." * 124 + "example.com": "not_email"}
NAMES = ("Ann", " Ann ", "Ann\n", "José", "Jose\u0301", "O'Neil", "x'); DROP TABLE users;--", '"quoted"', "a,b", "=1+1", "李雷", "عمر", "🦜", "7")
GOODS = ("Desk", "desk", "DESK ", "\uff24\uff45\uff53\uff4b", "Big  Desk", "big desk", "Big\u00a0DESK", "Straße", "STRASSE", "ﬁle", "FILE",
         "\u212a1", "k1", "Café", "Cafe\u0301", "CAFÉ", "İ", "i\u0307", "Σας", "ΣΑΣ", "½", "1⁄2", "5", "a\u0130  b")
EMAILS = ("ann@example.com", "ANN@EXAMPLE.COM", "Ann@Example.com ", "\uff41nn@example.com", "josé@example.com", "jose\u0301@example.com",
          "JOSÉ@example.com", "straße@example.de", "STRASSE@example.de", "\u212aate@example.com", "kate@example.com",
          "用户@例子.广告", "a+b.c_d%e@sub.example.co", "x@1.example")


def whole(cell: str) -> tuple[int | None, str | None]:
    """Return the number of a cell and None, or None and the problem's code."""
    return (None, BAD_WHOLE[cell]) if cell in BAD_WHOLE else (int(cell), None)


def reference(cell: str) -> tuple[int | None, str | None]:
    """As `whole`, but whether 0 and negative numbers are ids is for the parent's table to say."""
    return (int(cell), None) if BAD_WHOLE.get(cell) == "not_positive" else whole(cell)


def price(cell: str) -> tuple[float | None, str | None]:
    """Return the price of a cell and None, or None and the problem's code."""
    return (None, BAD_PRICE[cell]) if cell in BAD_PRICE else (float(cell), None)


def text(cell: str) -> tuple[str | None, str | None]:
    """Return the text of a cell and None, or None and the problem's code."""
    return (None, BAD_TEXT[cell]) if cell in BAD_TEXT else (cell.strip(), None)


def email(cell: str) -> tuple[str | None, str | None]:
    """Return the address of a cell and None, or None and the problem's code."""
    return (None, BAD_EMAIL[cell]) if cell in BAD_EMAIL else (cell.strip(), None)


CHECKS: dict[str, tuple[Callable, ...]] = {"users": (whole, text, email), "products": (whole, text, price),
                                           "orders": (whole, reference, reference, whole)}
UNIQUE = {"users": 2, "products": 1}
PARENTS = {"orders": {1: "users", 2: "products"}}


class Model:
    """The contract, one record after the other, in dicts.  It remembers what is stored from load to load."""

    def __init__(self) -> None:
        self.stored: dict[str, dict[int, tuple]] = {table: {} for table in TABLES}
        self._holders: dict[str, dict[str, int]] = {table: {} for table in TABLES}

    def load(self, table: str, records: Sequence[Record]) -> Iterator[Outcome]:
        """Yield the verdict on each record and its problems as (field, code); parents are to be loaded before children."""
        for record in records:
            if record is None:
                yield "rejected", [("", "malformed")]
                continue
            checked = [check(cell) for check, cell in zip(CHECKS[table], record)]
            row, codes = tuple(value for value, _ in checked), [code for _, code in checked]
            problems = [(field, code) for field, code in zip(FIELDS[table], codes) if code]
            rival = self.stored[table].get(row[0])
            if rival == row:
                yield "unchanged", []
                continue
            if rival is not None:
                problems.append(("id", "conflict"))
            if table in UNIQUE and row[UNIQUE[table]] is not None:
                key = " ".join(unicodedata.normalize("NFKC", row[UNIQUE[table]]).casefold().split())
                if self._holders[table].get(key, row[0]) != row[0]:
                    problems.append((FIELDS[table][UNIQUE[table]], "not_unique"))
            for position, parent in PARENTS.get(table, {}).items():
                if row[position] is not None and row[position] not in self.stored[parent]:
                    problems.append((FIELDS[table][position], "no_such_reference"))
            if problems:
                yield "rejected", sorted(problems)
                continue
            self.stored[table][row[0]] = row
            if table in UNIQUE:
                self._holders[table][key] = row[0]
            yield "inserted", []


# ------------------------------------------------------------------------------------------------- Records and files


def make_records(chance: random.Random, table: str, count: int, bad: float, known: int) -> Iterator[Record]:
    """Yield seeded records, a share of which is bad or clashes; references go to ids up to `known`, most of which exist.

    Some good records come a second time.
    """
    last: Record = None
    for number in range(1, count + 1):
        record: Record = {"users": lambda: [str(number), "Ann Miller", f"user{number}@example.com"],
                  "products": lambda: [str(number), f"Product {number}", f"{chance.randrange(1, 10**6) / 100:.2f}"],
                  "orders": lambda: [str(number), str(chance.randint(1, known)), str(chance.randint(1, known)), str(chance.randint(1, 9))],
                  }[table]()
        if chance.random() < bad:
            record = last if last and chance.random() < 0.1 else spoil(chance, table, record, number, known)
        elif chance.random() < 0.1:
            last = record
        yield record


def spoil(chance: random.Random, table: str, record: list[str], number: int, known: int) -> Record:
    """Return the record with something in it that is bad, odd or a clash, or None."""
    def earlier() -> str:
        return chance.choice(("", "0", "00")) + str(chance.randint(max(1, number - 50), number))

    def pick(*pools: Sequence[str]) -> str:
        return chance.choice(list(chance.choice(pools)))

    if chance.random() < 0.04:
        return None
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        position = chance.randrange(len(record))
        if position == 0:
            record[0] = pick([earlier()], [earlier()], [str(number)], BAD_WHOLE)
        elif table == "orders":
            pools = (BAD_WHOLE, ["1", "2", "3"]) if position == 3 else (BAD_WHOLE, [str(known + 5), "0"], ["1", "2", str(known)])
            record[position] = pick(*pools)
        elif position == 1:
            record[1] = pick(BAD_TEXT, NAMES, NAMES) if table == "users" else pick(BAD_TEXT, GOODS, GOODS, [f"product {earlier()}"])
        else:
            record[2] = pick(BAD_EMAIL, EMAILS, EMAILS, [f"User{int(earlier())}@EXAMPLE.com"]) if table == "users" else pick(
                BAD_PRICE, ["1e2", "0.5", "1E-3", "007", "1.50"])
    return record


def write_records(path: Path, records: Sequence[Record], table: str, chance: random.Random) -> list[int]:
    """Write the records in the format that the suffix names; return each one's place, its first line or its item."""
    kind, places, line = path.suffix[1:], [], 1
    with open(path, "w", encoding="utf-8", newline="") as file:
        if kind in ("csv", "tsv"):
            file.write(("," if kind == "csv" else "\t").join(FIELDS[table]) + "\n")
            line += 1
        for number, record in enumerate(records, start=1):
            places.append(number if kind == "json" else line)
            if kind in ("csv", "tsv"):
                part = io.StringIO()
                csv.writer(part, delimiter="," if kind == "csv" else "\t", lineterminator="\n").writerow(record or ["1", "2"])
                written = part.getvalue()
            else:
                before, after = (("[\n" if number == 1 else ",\n"), "") if kind == "json" else ("", "\n")
                written = before + as_json(record, table, chance) + after
            file.write(written)
            line += written.count("\n")
        if kind == "json":
            file.write("\n]\n" if records else "[]")
    return places


def as_json(record: Record, table: str, chance: random.Random) -> str:
    """Return a record as a JSON object, its numbers as numbers or as texts, in any order; None as something else."""
    if record is None:
        return "[1, 2]"
    numeric = [check in (whole, reference, price) for check in CHECKS[table]]
    pairs = [f"{json.dumps(field)}: " + (cell if is_number and chance.random() < 0.5 and re.fullmatch(
        r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", cell) else json.dumps(cell, ensure_ascii=chance.random() < 0.5))
        for field, cell, is_number in zip(FIELDS[table], record, numeric)]
    chance.shuffle(pairs)
    return "{" + ", ".join(pairs) + "}"


# ------------------------------------------------------------------------------------------------------- The runs


@pytest.fixture
def load(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[int, dict[str, list[dict]]]]:
    """Return a function that runs a load here and returns its exit status and its JSON lines by model, after checking the counts."""
    monkeypatch.chdir(tmp_path)

    def run_load(files: dict[str, Path], db_dir: Path, *arguments: str) -> tuple[int, dict[str, list[dict]]]:
        words = [word for table, path in files.items() for word in (f"--{table}", str(path.relative_to(tmp_path)))]
        status = distributed_inserts.main([*words, "--db-dir", str(db_dir), "--json", *arguments])
        out, err = capsys.readouterr()
        assert err == ""
        *lines, summary = map(json.loads, out.splitlines())
        # That the lines come in input order is for test_report.py to say; here it is what they say.
        by_table = {table: sorted((line for line in lines if line["model"] == table), key=place_of) for table in files}
        check_counts(by_table, summary, db_dir)
        assert status == summary["exit_status"] == (1 if any(line["verdict"] == "rejected" for line in lines) else 0)
        return status, by_table

    return run_load


def place_of(line: dict) -> int:
    """Return where a record of JSON output stands in its input."""
    return line["item"] if "item" in line else line["line"]


def check_counts(by_table: dict[str, list[dict]], summary: dict, db_dir: Path) -> None:
    """Fail unless the counts are those of the lines, add up, and what is inserted or unchanged is stored."""
    for table, lines in by_table.items():
        counts = summary["summary"][table]
        assert counts["database"] == f"{table}.db"
        assert counts["read"] == len(lines) == sum(counts[verdict] for verdict in VERDICTS)
        for verdict in VERDICTS:
            assert counts[verdict] == sum(line["verdict"] == verdict for line in lines)
        good = {line["id"] for line in lines if line["verdict"] in ("inserted", "unchanged")}
        assert good <= {row[0] for row in rows(db_dir / f"{table}.db")}
        assert all(bool(line["problems"]) == (line["verdict"] == "rejected") for line in lines)


def outcomes(lines: Sequence[dict]) -> list[Outcome]:
    """Return the verdicts and problems of JSON lines as the model gives them."""
    return [(line["verdict"], sorted((problem["field"] or "", problem["code"]) for problem in line["problems"])) for line in lines]


def make_load(seed: int, count: int, bad: float = 0.5) -> dict[str, list[Record]]:
    """Return seeded records of all three models."""
    chance = random.Random(seed)
    made = {table: list(make_records(chance, table, count, bad, count)) for table in TABLES}
    if seed % 2:
        for records in made.values():
            chance.shuffle(records)
    return made


def write_load(folder: Path, kind: str, load_: dict[str, list[Record]], seed: int) -> tuple[dict[str, Path], dict[str, list[int]]]:
    """Write the records of all models in one format; return the files and the places."""
    files = {table: folder / f"{table}.{kind}" for table in load_}
    return files, {table: write_records(files[table], records, table, random.Random(seed)) for table, records in load_.items()}


def comparable(found: dict[str, list[dict]]) -> list[dict]:
    """Return JSON lines without what differs from format to format: source and place."""
    lines = [{key: value for key, value in line.items() if key not in ("source", "line", "item")} for lines in found.values() for line in lines]
    for line in lines:
        for problem in line["problems"]:
            problem["message"] = re.sub(r"\(.*was rejected\)", "(… was rejected)", problem["message"])
            if problem["code"] == "malformed":
                problem["message"] = ""
    return lines


# --------------------------------------------------------------------------------------- The same, however it is loaded


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("seed", range(4))
def test_every_batch_size_gives_the_verdicts_and_rows_of_the_sequential_model(load: Callable, tmp_path: Path, seed: int, kind: str) -> None:
    made = make_load(seed, 250)
    files, places = write_load(tmp_path, kind, made, seed)
    model = Model()
    expected = {table: list(model.load(table, made[table])) for table in TABLES}
    assert {verdict for outcome in expected.values() for verdict, _ in outcome} == {"inserted", "unchanged", "rejected"}
    first = None
    for size in SIZES:
        db_dir = tmp_path / f"size {size}"
        _, found = load(files, db_dir, *(["--batch-size", size] if size else []))
        for table in TABLES:
            assert list(map(place_of, found[table])) == places[table]
            assert outcomes(found[table]) == expected[table]
            assert rows(db_dir / f"{table}.db") == sorted(model.stored[table].values())
        assert first in (None, comparable(found))           # to the letter, messages too
        first = comparable(found)


@pytest.mark.parametrize("kind", FORMATS)
def test_files_of_more_than_1000_records_are_loaded_in_batches_with_the_same_verdicts(load: Callable, tmp_path: Path, kind: str) -> None:
    made = make_load(77, 2300, bad=0.3)
    files, _ = write_load(tmp_path, kind, made, 77)
    model = Model()
    expected = {table: list(model.load(table, made[table])) for table in TABLES}
    for size in SIZES if kind == "csv" else (None, "1000"):
        _, found = load(files, tmp_path / f"size {size}", *(["--batch-size", size] if size else []))
        for table in TABLES:
            assert outcomes(found[table]) == expected[table], (table, size)
            assert rows(tmp_path / f"size {size}" / f"{table}.db") == sorted(model.stored[table].values())


@pytest.mark.parametrize("seed", [5, 8])
def test_the_formats_agree_to_the_message(load: Callable, tmp_path: Path, seed: int) -> None:
    made = make_load(seed, 300)
    results = []
    for kind in FORMATS:
        files, _ = write_load(tmp_path, kind, made, seed)
        results.append(comparable(load(files, tmp_path / kind)[1]))
    for result in results[1:]:
        assert result == results[0]


@pytest.mark.parametrize("order", list(itertools.permutations(TABLES)), ids=" ".join)
@pytest.mark.parametrize("size", ["1", "100"])
def test_the_order_of_the_files_changes_nothing(load: Callable, tmp_path: Path, order: tuple[str, ...], size: str) -> None:
    made = make_load(6, 150)
    files, _ = write_load(tmp_path, "csv", made, 6)
    model = Model()
    expected = {table: list(model.load(table, made[table])) for table in TABLES}
    _, found = load({table: files[table] for table in order}, tmp_path / "db", "--batch-size", size)
    assert {table: outcomes(lines) for table, lines in found.items()} == expected


@pytest.mark.parametrize("arguments", [(), ("--batch-size", "1"), ("--batch-size", "300")], ids=["default", "1", "300"])
@pytest.mark.parametrize("backwards", [False, True])
def test_orders_that_come_long_before_their_parents_wait_for_them(load: Callable, tmp_path: Path, backwards: bool, arguments: tuple) -> None:
    count = 1500
    users: list[Record] = [[str(number), "Ann", f"u{number}@example.com"] for number in range(1, count + 1)]
    products: list[Record] = [[str(number), f"Product {number}", "1"] for number in range(1, count + 1)]
    orders: list[Record] = [[str(number), str(count + 1 - number), str(count + 1 - number), "1"] for number in range(1, count + 1)]
    if backwards:
        users.reverse()
    files, _ = write_load(tmp_path, "csv", {"orders": orders, "users": users, "products": products}, 0)
    status, found = load(files, tmp_path / "db", *arguments)
    assert status == 0
    assert {line["verdict"] for lines in found.values() for line in lines} == {"inserted"}


@pytest.mark.parametrize("seed", range(3))
def test_load_after_load_gives_the_verdicts_of_the_model(load: Callable, tmp_path: Path, seed: int) -> None:
    model = Model()
    for number, (kind, size) in enumerate([("csv", None), ("jsonl", "40"), ("tsv", "1"), ("json", None), ("csv", "1000")]):
        made = make_load(100 * seed + number, 120 + 60 * number)
        (tmp_path / str(number)).mkdir()
        files, _ = write_load(tmp_path / str(number), kind, made, seed)
        _, found = load(files, tmp_path / "db", *(["--batch-size", size] if size else []))
        for table in TABLES:
            assert outcomes(found[table]) == list(model.load(table, made[table])), (number, table)
            assert rows(tmp_path / "db" / f"{table}.db") == sorted(model.stored[table].values())


@pytest.mark.parametrize("seed", [1, 2])
def test_a_model_at_a_time_gives_the_verdicts_of_all_at_once(load: Callable, tmp_path: Path, seed: int) -> None:
    made = make_load(seed, 200)
    files, _ = write_load(tmp_path, "csv", made, seed)
    _, together = load(files, tmp_path / "together")
    for table in TABLES:
        _, alone = load({table: files[table]}, tmp_path / "alone")
        assert outcomes(alone[table]) == outcomes(together[table])
        assert rows(tmp_path / "alone" / f"{table}.db") == rows(tmp_path / "together" / f"{table}.db")


def test_the_same_load_again_stores_nothing_and_says_unchanged(load: Callable, tmp_path: Path) -> None:
    made = make_load(11, 300)
    files, _ = write_load(tmp_path, "csv", made, 11)
    _, first = load(files, tmp_path / "db")
    before = {table: rows(tmp_path / "db" / f"{table}.db") for table in TABLES}
    _, again = load(files, tmp_path / "db")
    assert {table: rows(tmp_path / "db" / f"{table}.db") for table in TABLES} == before
    for table in TABLES:
        for one, two in zip(first[table], again[table]):
            assert two["verdict"] == ("unchanged" if one["verdict"] == "inserted" else one["verdict"])
            if one["verdict"] == "unchanged":
                assert two["verdict"] == "unchanged"


def test_orders_without_parents_are_refused_and_stored_once_the_parents_are(load: Callable, tmp_path: Path) -> None:
    files, _ = write_load(tmp_path, "csv", {"users": [["1", "Ann", "ann@example.com"]], "products": [["1", "Desk", "5"]],
                                            "orders": [["1", "1", "1", "1"]]}, 0)
    _, found = load({"orders": files["orders"]}, tmp_path / "db")
    assert outcomes(found["orders"]) == [("rejected", [("product_id", "no_such_reference"), ("user_id", "no_such_reference")])]
    assert load({"users": files["users"], "products": files["products"]}, tmp_path / "db")[0] == 0
    assert load({"orders": files["orders"]}, tmp_path / "db")[0] == 0
    assert rows(tmp_path / "db" / "orders.db") == [(1, 1, 1, 1)]


# ------------------------------------------------------------------------------------------- Places of refused parents


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("size", SIZES)
def test_a_refused_parent_is_named_with_its_place(load: Callable, tmp_path: Path, kind: str, size: str | None) -> None:
    users: list[Record] = [[str(number), "two\nlines" if number == 4 else "Ann", f"u{number}@example.com"] for number in range(1, 21)]
    users[9][1] = ""
    orders: list[Record] = [["1", "10", "1", "1"], ["2", "4", "1", "1"], ["3", "99", "1", "1"], ["4", "9", "1", "1"]]
    files, places = write_load(tmp_path, kind, {"users": users, "products": [["1", "Desk", "5"]], "orders": orders}, 0)
    _, found = load(files, tmp_path / "db", *(["--batch-size", size] if size else []))
    messages = [[problem["message"] for problem in line["problems"]] for line in found["orders"]]

    def where(index: int) -> str:
        name, place = files["users"].name, places["users"][index]
        return f"{name} item {place}" if kind == "json" else f"{name}:{place}"

    assert messages == [[f"user_id 10 is not in users.db ({where(9)} was rejected)"], [f"user_id 4 is not in users.db ({where(3)} was rejected)"],
                        ["user_id 99 is not in users.db"], []]


def test_of_several_refused_parents_with_one_id_the_same_is_named_whatever_the_batch(load: Callable, tmp_path: Path) -> None:
    users: list[Record] = [["1", "Ann", "ann@example.com"], ["5", "Ben", "ANN@example.com"], ["5", "Ben", "not an address"], ["5", "", "c@example.com"]]
    files, _ = write_load(tmp_path, "csv", {"users": users, "products": [["1", "Desk", "5"]], "orders": [["1", "5", "1", "1"]]}, 0)
    messages = {load(files, tmp_path / str(size), *(["--batch-size", size] if size else []))[1]["orders"][0]["problems"][0]["message"]
                for size in ("1", "2", "3", "1000", None)}
    assert messages == {f"user_id 5 is not in users.db (users.csv:3 was rejected)"}


def test_a_file_in_a_deep_folder_is_still_named(load: Callable, tmp_path: Path) -> None:
    folder = tmp_path / "a folder with a long name" / "and another one in it" / "and the export of the month"
    folder.mkdir(parents=True)
    files, _ = write_load(folder, "csv", {"users": [["1", "", "a@example.com"]], "products": [["1", "Desk", "5"]],
                                          "orders": [["1", "1", "1", "1"]]}, 0)
    _, found = load(files, tmp_path / "db")
    assert "users.csv:2 was rejected" in found["orders"][0]["problems"][0]["message"]


def test_a_refused_parent_whose_id_a_later_record_takes_is_no_refused_reference(load: Callable, tmp_path: Path) -> None:
    users: list[Record] = [["5", "", "a@example.com"], ["6", "Ann", "b@example.com"], ["5", "Ben", "c@example.com"]]
    for size in ("1", "2", "1000"):
        files, _ = write_load(tmp_path, "csv", {"users": users, "products": [["1", "Desk", "5"]], "orders": [["1", "5", "1", "1"]]}, 0)
        _, found = load(files, tmp_path / size, "--batch-size", size)
        assert [line["verdict"] for line in found["users"]] == ["rejected", "inserted", "inserted"]
        assert [line["verdict"] for line in found["orders"]] == ["inserted"]


# --------------------------------------------------------------------------------------------- unchanged and conflict

SAME_OR_NOT = [
    ("users", ["1", "Ann", "ann@example.com"], ["1", "Ann", "ann@example.com"], "unchanged", []),
    ("users", ["1", "Ann", "ann@example.com"], ["001", " Ann\n", "ann@example.com "], "unchanged", []),
    ("users", ["1", "Ann", "ann@example.com"], ["1", "ann", "ann@example.com"], "rejected", [("id", "conflict")]),
    ("users", ["1", "Ann", "ann@example.com"], ["1", "Ann", "ANN@example.com"], "rejected", [("id", "conflict")]),
    ("users", ["1", "Ann", "ann@example.com"], ["1", "Ann", "other@example.com"], "rejected", [("id", "conflict")]),
    ("users", ["1", "José", "ann@example.com"], ["1", "Jose\u0301", "ann@example.com"], "rejected", [("id", "conflict")]),
    ("users", ["1", "Ann", "ann@example.com"], ["1", "", "ann@example.com"], "rejected", [("id", "conflict"), ("name", "blank")]),
    ("users", ["1", "Ann", "ann@example.com"], ["2", "Ann", "ann@example.com"], "rejected", [("email", "not_unique")]),
    ("users", ["1", "Ann", "ann@example.com"], ["2", "", "Ann@Example.Com"], "rejected", [("email", "not_unique"), ("name", "blank")]),
    ("users", ["1", "Ann", "ann@example.com"], ["x", "Ann", "ann@example.com"], "rejected", [("email", "not_unique"), ("id", "not_integer")]),
    ("users", ["1", "Ann", "straße@example.de"], ["2", "Ann", "STRASSE@example.de"], "rejected", [("email", "not_unique")]),
    ("users", ["1", "Ann", "jose\u0301@example.com"], ["2", "Ann", "José@example.com"], "rejected", [("email", "not_unique")]),
    ("users", ["1", "Ann", "ann@example.com"], ["2", "Ann", "ann@example.org"], "inserted", []),
    ("products", ["1", "Desk", "1000.00"], ["1", "Desk", "1e3"], "unchanged", []),
    ("products", ["1", "Desk", "0.1"], ["1", "Desk", "0.10000000000000001"], "unchanged", []),
    ("products", ["1", "Desk", "5"], ["1", "Desk", "5.01"], "rejected", [("id", "conflict")]),
    ("products", ["1", "Desk", "5"], ["1", "desk", "5"], "rejected", [("id", "conflict")]),
    ("products", ["1", "Big Desk", "5"], ["2", "BIG \u00a0 desk", "5"], "rejected", [("name", "not_unique")]),
    ("products", ["1", "Big Desk", "5"], ["2", "BigDesk", "5"], "inserted", []),
    ("products", ["1", "ﬁle", "5"], ["2", "FILE", "5"], "rejected", [("name", "not_unique")]),
]


@pytest.mark.parametrize(("table", "stored", "new", "verdict", "problems"), SAME_OR_NOT)
@pytest.mark.parametrize("together", [False, True], ids=["two loads", "one load"])
def test_a_record_is_compared_with_what_is_stored(load: Callable, tmp_path: Path, table: str, stored: list[str], new: list[str],
                                                  verdict: str, problems: list, together: bool) -> None:
    made: list[list[Record]] = [[stored, new]] if together else [[stored], [new]]
    for records in made:
        write_records(tmp_path / f"{table}.csv", records, table, random.Random(0))
        _, found = load({table: tmp_path / f"{table}.csv"}, tmp_path / "db")
    assert outcomes(found[table])[-1] == (verdict, problems)
    assert len(rows(tmp_path / "db" / f"{table}.db")) == (2 if verdict == "inserted" else 1)


def test_a_duplicate_names_the_record_that_holds_the_value(load: Callable, tmp_path: Path) -> None:
    users: list[Record] = [["41", "Ann", "ann@example.com"], ["7", "Ben", "ANN@example.com"], ["8", "Cat", "ann@EXAMPLE.com"]]
    write_records(tmp_path / "users.csv", users, "users", random.Random(0))
    for _ in range(2):
        _, found = load({"users": tmp_path / "users.csv"}, tmp_path / "db")
        for line in found["users"][1:]:
            assert [problem["message"].endswith(" user 41") for problem in line["problems"]] == [True]


def test_a_refused_record_takes_neither_its_id_nor_its_address(load: Callable, tmp_path: Path) -> None:
    users: list[Record] = [["1", "", "ann@example.com"], ["1", "Ben", "ben@example.com"], ["2", "Ann", "ann@example.com"]]
    for size in ("1", "2", "1000"):
        write_records(tmp_path / "users.csv", users, "users", random.Random(0))
        _, found = load({"users": tmp_path / "users.csv"}, tmp_path / size, "--batch-size", size)
        assert [line["verdict"] for line in found["users"]] == ["rejected", "inserted", "inserted"]


def test_a_bad_record_does_not_sink_its_neighbours(load: Callable, tmp_path: Path) -> None:
    records: list[Record] = [[str(number), "Ann", f"u{number}@example.com"] for number in range(1, 5001)]
    bad = dict(zip(range(3, 5000, 97), itertools.cycle([None, ["x", "", "y"], ["1", "Other", "z@example.com"], ["9999", "Ann", "U1@example.com"]])))
    records = [bad.get(index, record) for index, record in enumerate(records)]
    write_records(tmp_path / "users.csv", records, "users", random.Random(0))
    _, found = load({"users": tmp_path / "users.csv"}, tmp_path / "db")
    assert {index for index, line in enumerate(found["users"]) if line["verdict"] != "inserted"} == set(bad)
    assert len(rows(tmp_path / "db" / "users.db")) == 5000 - len(bad)


# ----------------------------------------------------------------------------------------------------- Large, heavy


def measure(folder: Path, arguments: Sequence[object]) -> tuple[int, Path, str, int]:
    """Run the program on its own; return its exit status, the file with its output, its complaints and its peak memory in bytes."""
    pytest.importorskip("resource", reason="peak memory is measured by getrusage")
    wrapper = ("import resource, subprocess, sys\n"
               "status = subprocess.call(sys.argv[2:])\n"
               "open(sys.argv[1], 'w').write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))\n"
               "raise SystemExit(status)\n")
    with open(folder / "output", "wb") as output:
        result = subprocess.run([sys.executable, "-c", wrapper, str(folder / "peak"), sys.executable, str(PROGRAM), *map(str, arguments)],
                                stdout=output, stderr=subprocess.PIPE, cwd=folder, timeout=HEAVY_TIMEOUT_S)
    peak = int((folder / "peak").read_text()) * (1 if sys.platform == "darwin" else 1024)
    return result.returncode, folder / "output", result.stderr.decode(), peak


def read_summary(output: Path) -> dict:
    """Return the last line of output in JSON."""
    with open(output, "rb") as file:
        file.seek(-min(output.stat().st_size, 4000), 2)
        return json.loads(file.read().splitlines()[-1])


def counted(summary: dict) -> dict[str, tuple[int, ...]]:
    """Return (read, inserted, unchanged, rejected, failed) by model."""
    return {table: tuple(counts[name] for name in ("read", *VERDICTS)) for table, counts in summary["summary"].items()}


HEAVY_COUNTS = {"users": 1_000_000, "products": 200_000, "orders": 2_000_000}


def heavy_records(table: str) -> Iterator[Record]:
    """Yield the records of the million-user load, 1 % of which is bad or clashes."""
    return make_records(random.Random(table), table, HEAVY_COUNTS[table], 0.01, HEAVY_COUNTS["products"])


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["csv", "json", "jsonl"])
def test_a_load_of_3_million_records_gives_the_verdicts_of_the_model_within_256_mib(tmp_path: Path, kind: str) -> None:
    files = {table: tmp_path / f"{table}.{kind}" for table in TABLES}
    for table, path in files.items():
        write_records(path, heavy_records(table), table, random.Random(0))
    words = [word for table, path in files.items() for word in (f"--{table}", path)]
    status, output, err, peak = measure(tmp_path, [*words, "--db-dir", tmp_path / "text"])
    text_counts = [line.split()[:6] for line in output.read_text(encoding="utf-8").splitlines() if line.split()[1:2] and ".db " in line and "," in line]
    assert (status, err) == (1, "")
    assert peak <= PEAK_MAX_BYTES
    assert output.stat().st_size < 100_000
    status, output, err, peak = measure(tmp_path, [*words, "--db-dir", tmp_path / "json", "--json"])
    assert (status, err) == (1, "")
    assert peak <= PEAK_MAX_BYTES
    model, seen = Model(), dict.fromkeys(TABLES, 0)
    with open(output, encoding="utf-8") as lines:
        for table in TABLES:
            totals = dict.fromkeys(VERDICTS, 0)
            for (verdict, problems), line in zip(model.load(table, heavy_records(table)), map(json.loads, lines)):
                assert line["model"] == table
                assert outcomes([line]) == [(verdict, problems)], line
                totals[verdict] += 1
                seen[table] += 1
            assert [f"{table}.db", f"{seen[table]:,}", *(f"{totals[verdict]:,}" for verdict in VERDICTS)] in text_counts
            assert totals["rejected"] > 1000
        assert json.loads(next(lines))["exit_status"] == 1
    assert seen == HEAVY_COUNTS
    for folder in ("text", "json"):
        for table in TABLES:
            assert rows(tmp_path / folder / f"{table}.db") == sorted(model.stored[table].values())


ALL_BAD = {
    "bad cells": ("csv", "id,name,email\n", lambda number: f"{number},,nobody\n"),
    "wrong number of cells": ("csv", "id,name,email\n", lambda number: f"{number},Ann\n"),
    "stray quotes": ("csv", "id,name,email\n", lambda number: f'{number},"A"nn,u{number}@example.com\n'),
    "unclosed quotes": ("csv", "id,name,email\n", lambda number: f'{number},"Ann,u{number}@example.com\n'),
    "bytes that are no text": ("csv", "id,name,email\n", lambda number: f"{number},\udcff,u{number}@example.com\n"),
    "broken JSON lines": ("jsonl", "", lambda number: '{"id": 1, "name": "Ann", \n'),
    "JSON lines of the wrong type": ("jsonl", "", lambda number: f"{number}\n"),
    "elements of the wrong type": ("json", "[0", lambda number: f",{number}\n"),
    "ids that conflict": ("csv", "id,name,email\n", lambda number: f"1,Ann {number},ann@example.com\n"),
    "one and the same e-mail": ("csv", "id,name,email\n", lambda number: f"{number},Ann,ann@example.com\n"),
    "one e-mail in two forms": ("csv", "id,name,email\n", lambda number: f"{number},Ann,{'ANN' if number % 2 else 'ａnn'}@example.com\n"),
}


def check_all_bad(folder: Path, name: str, count: int) -> None:
    """Load a file of bad records; fail unless all but the first are refused, within bounds of memory and output."""
    kind, begin, line = ALL_BAD[name]
    path = folder / f"users.{kind}"
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.write(begin)
        file.writelines(map(line, range(1, count + 1)))
        file.write("]" if kind == "json" else "")
    status, output, err, peak = measure(folder, ["--users", path, "--db-dir", "db"])
    assert (status, err) == (1, "")
    assert output.stat().st_size < 50_000
    assert peak <= PEAK_MAX_BYTES
    status, output, err, peak = measure(folder, ["--users", path, "--db-dir", "db2", "--json", "-q", "--rejects", "refused"])
    assert (status, err) == (1, "")
    assert peak <= PEAK_MAX_BYTES
    read = count + (kind == "json")
    kept = 1 if "e-mail" in name or "conflict" in name else 0
    assert counted(read_summary(output)) == {"users": (read, kept, 0, read - kept, 0)}
    with open(folder / "refused" / f"users.{kind}", "rb") as file:
        assert sum(1 for _ in file) == read - kept + (1 if kind == "csv" else 2 if kind == "json" else 0)


@pytest.mark.parametrize("name", ALL_BAD)
def test_a_file_of_bad_records_only_is_refused_record_by_record(tmp_path: Path, name: str) -> None:
    check_all_bad(tmp_path, name, 9000)


@pytest.mark.heavy
@pytest.mark.parametrize("name", ALL_BAD)
def test_a_million_bad_records_are_refused_within_256_mib(tmp_path: Path, name: str) -> None:
    check_all_bad(tmp_path, name, 1_000_000)


@pytest.mark.heavy
def test_a_thousand_records_are_appended_to_a_million(tmp_path: Path) -> None:
    def write(name: str, numbers: range) -> Path:
        with open(tmp_path / name, "w", encoding="utf-8") as file:
            file.write("id,name,email\n")
            file.writelines(f"{number},Ann,user{number}@example.com\n" for number in numbers)
        return tmp_path / name

    status, _, err, _ = measure(tmp_path, ["--users", write("million.csv", range(1, 1_000_001))])
    assert (status, err) == (0, "")
    more = write("more.csv", range(1_000_001, 1_001_001))
    for inserted, unchanged in ((1000, 0), (0, 1000)):
        status, output, err, peak = measure(tmp_path, ["--users", more, "--json", "-q"])
        assert (status, err) == (0, "")
        assert counted(read_summary(output)) == {"users": (1000, inserted, unchanged, 0, 0)}
        assert peak <= PEAK_MAX_BYTES
    assert len(rows(tmp_path / "users.db")) == 1_001_000
    with open(more, "a", encoding="utf-8") as file:
        file.write("2000000,Eve,USER500000@EXAMPLE.COM\n500000,Eve,eve@example.com\n")
    status, output, _, _ = measure(tmp_path, ["--users", more, "--json"])
    *_, taken, conflict, _ = map(json.loads, output.read_text(encoding="utf-8").splitlines())
    assert (status, outcomes([taken, conflict])) == (1, [("rejected", [("email", "not_unique")]), ("rejected", [("id", "conflict")])])
