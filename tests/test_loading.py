"""Promise 3, deterministic: verdicts and rows are those of a slow sequential model, in any format, size and order.

Then --replace, --dry-run, which says the same and writes nothing, and --verify, which finds what others broke.
"""
from __future__ import annotations

import _thread
import csv
import functools
import io
import itertools
import json
import random
import re
import shutil
import sqlite3
import subprocess
import threading
import types
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

import distributed_inserts
import loads
from conftest import HEAVY, MODELS, VERDICTS, Run, contents
from loads import stored_rows as rows

FORMATS = ("csv", "tabs", "json", "jsonl")
SIZES = ("1", "7", "1000", None)
PEAK_MAX_BYTES = 256 * 2**20
measure = functools.partial(loads.measure, timeout_s=900)

Record = list[str] | None               # the cells as text; None is a record of the wrong shape
Verdict = tuple[str, list[tuple[str, str]]]
Load = Callable[..., tuple[int, dict[str, list[dict]]]]

# ------------------------------------------------------------ What is wrong with a cell, and what is stored of the rest
# The model looks cells up here; what is in no table is sound.  So it shares no rule with the program.

BAD_WHOLE = {"": "blank", "0": "not_positive", "-3": "not_positive", "0.0": "not_positive", "1.5": "not_integer",
             "1e3": "not_integer",
             "1_0": "not_integer", "٣": "not_integer", "²": "not_integer", "x7": "not_integer", "true": "not_integer",
             "0x1F": "not_integer", "1,000": "not_integer", "nan": "not_integer", str(2**63): "out_of_range",
             "9" * 40: "out_of_range"}
BAD_REFERENCE = {cell: code for cell, code in BAD_WHOLE.items() if code in ("blank", "not_integer")}
BAD_PRICE = {"": "blank", "0": "not_positive", "0.00": "not_positive", "-1": "not_positive", "-0.5e3": "not_positive",
             "nan": "not_number",
             "inf": "not_number", "-Infinity": "not_number", "1_0": "not_number", "1,5": "not_number",
             "free": "not_number", "$5": "not_number",
             "٣": "not_number", "1e999": "out_of_range", "1e-999": "out_of_range", "9" * 400: "out_of_range",
             "9007199254740993": "out_of_range"}
BAD_TEXT = {"": "blank", "   ": "blank", "\u200b": "blank", "\u3164": "blank", "\ufeff\u00ad": "blank",
            "\u3000": "blank",
            "be\x07ll": "bad_text", "tab\there": "bad_text", "line\nbreak": "bad_text", "\x1b[31mred": "bad_text",
            "c1\x9b": "bad_text"}
BAD_EMAIL = {**BAD_TEXT, "ann": "not_email", "ann@": "not_email", "@example.com": "not_email",
             "a@b@example.com": "not_email",
             "a..b@example.com": "not_email", ".a@example.com": "not_email", "a.@example.com": "not_email",
             "ann@localhost": "not_email",
             "ann@example.42": "not_email", "a n@example.com": "not_email", "a" * 65 + "@example.com": "not_email",
             "ann@-a.com": "not_email", "ann@a-.com": "not_email", "ann@" + "a" * 64 + ".com": "not_email",
             "a@" + "b." * 124 + "example.com": "not_email"}
NAMES = ("Ann", " Ann ", "Ann\n", "José", "Jose\u0301", "O'Neil", "x'); DROP TABLE users;--", '"quoted"', "a,b", "=1+1",
         "李雷", "عمر", "🦜", "7")
GOODS = ("Desk", "desk", "DESK ", "\uff24\uff45\uff53\uff4b", "Big  Desk", "big desk", "Big\u00a0DESK", "Straße",
         "STRASSE", "ﬁle", "FILE", "\u212a1", "k1", "Café", "Cafe\u0301", "CAFÉ", "İ", "i\u0307", "Σας", "ΣΑΣ", "½",
         "1⁄2", "5", "a\u0130  b", "Grid 10²", "Grid 102")
EMAILS = ("ann@example.com", "ANN@EXAMPLE.COM", "Ann@Example.com ", "josé@example.com", "jose\u0301@example.com",
          "JOSÉ@example.com", "straße@example.de", "STRASSE@example.de", "kate@example.com", "KATE@example.com",
          "用户@例子.广告", "a+b.c_d%e@sub.example.co", "x@1.example")


def check_whole(cell: str) -> tuple[int | None, str | None]:
    """Return the number of a cell and None, or None and the problem's code."""
    return (None, BAD_WHOLE[cell]) if cell in BAD_WHOLE else (int(cell.strip().removesuffix(".0")), None)


def check_reference(cell: str) -> tuple[int | None, str | None]:
    """As `check_whole`; whether there is such an id is for the parent's table to say."""
    return (None, BAD_REFERENCE[cell]) if cell in BAD_REFERENCE else (int(float(cell)), None)


def check_price(cell: str) -> tuple[float | None, str | None]:
    """Return the price of a cell and None, or None and the problem's code."""
    return (None, BAD_PRICE[cell]) if cell in BAD_PRICE else (float(cell), None)


def check_text(cell: str) -> tuple[str | None, str | None]:
    """Return the text of a cell and None, or None and the problem's code."""
    return (None, BAD_TEXT[cell]) if cell in BAD_TEXT else (cell.strip(), None)


def check_email(cell: str) -> tuple[str | None, str | None]:
    """Return the address of a cell and None, or None and the problem's code."""
    return (None, BAD_EMAIL[cell]) if cell in BAD_EMAIL else (cell.strip(), None)


CHECKS: dict[str, tuple[Callable, ...]] = {
    "users": (check_whole, check_text, check_email), "products": (check_whole, check_text, check_price),
    "orders": (check_whole, check_reference, check_reference, check_whole)}
UNIQUE = {"users": 2, "products": 1}
PARENTS = {"orders": {1: "users", 2: "products"}}


def key_of(text: str) -> str:
    """Return what two texts have in common that are one to uniqueness."""
    return unicodedata.normalize("NFC", text).casefold()


class Model:
    """The specification, one record after the other, in dicts.  It remembers what is stored from load to load."""

    def __init__(self) -> None:
        self.stored: dict[str, dict[int, tuple]] = {model: {} for model in MODELS}
        self._holders: dict[str, dict[str, int]] = {model: {} for model in MODELS}

    def load(self, model: str, records: Iterator[Record] | Sequence[Record],
             replace: bool = False) -> Iterator[Verdict]:
        """Yield the verdict on each record and its problems as (field, code); parents are to be loaded first."""
        stored, holders, unique = self.stored[model], self._holders[model], UNIQUE.get(model)
        for record in records:
            if record is None:
                yield "rejected", [("", "malformed")]
                continue
            checked = [check(cell) for check, cell in zip(CHECKS[model], record)]
            row = tuple(value for value, _ in checked)
            problems = [(field, code) for field, (_, code) in zip(MODELS[model], checked) if code]
            rival = stored.get(row[0])
            if rival == row:
                yield "unchanged", []
                continue
            if rival is not None and not replace:
                problems.append(("id", "conflict"))
            key = key_of(row[unique]) if unique and row[unique] is not None else None
            if holders.get(key, row[0]) != row[0]:
                problems.append((MODELS[model][unique], "not_unique"))
            for place, parent in PARENTS.get(model, {}).items():
                if row[place] is not None and row[place] not in self.stored[parent]:
                    problems.append((MODELS[model][place], "no_such_reference"))
            if problems:
                yield "rejected", sorted(problems)
                continue
            if rival is not None and unique:
                del holders[key_of(rival[unique])]
            stored[row[0]] = row
            if key is not None:
                holders[key] = row[0]
            yield "inserted" if rival is None else "replaced", []


# ------------------------------------------------------------------------------------------------- Records and files


def make_records(chance: random.Random, model: str, count: int, bad: float, known: int) -> Iterator[Record]:
    """Yield seeded records, a share of which is bad or clashes; some good ones come a second time.

    References go to ids up to `known`, most of which exist.
    """
    last: Record = None
    for number in range(1, count + 1):
        if model == "users":
            record: Record = [str(number), "Ann Miller", f"user{number}@example.com"]
        elif model == "products":
            record = [str(number), f"Product {number}", f"{chance.randrange(1, 10**6) / 100:.2f}"]
        else:
            record = [str(number), str(chance.randint(1, known)), str(chance.randint(1, known)),
                      str(chance.randint(1, 9))]
        if chance.random() < bad:
            record = last if last and chance.random() < 0.1 else spoil(chance, model, record, number, known)
        elif chance.random() < 0.1:
            last = record
        yield record


def spoil(chance: random.Random, model: str, record: list[str], number: int, known: int) -> Record:
    """Return the record with something in it that is bad, odd or a clash, or None."""
    def earlier() -> str:
        id_ = str(chance.randint(max(1, number - 50), number))
        return chance.choice((id_, f"00{id_}", f"{id_}.0", f" {id_} "))

    def pick(*pools: Sequence[str]) -> str:
        return chance.choice(list(chance.choice(pools)))

    if chance.random() < 0.04:
        return None
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        place = chance.randrange(len(record))
        if place == 0:
            record[0] = pick([earlier()], [earlier()], [str(number)], BAD_WHOLE)
        elif model == "orders" and place == 3:
            record[3] = pick(BAD_WHOLE, ["1", "2.0", "3"])
        elif model == "orders":
            record[place] = pick(BAD_REFERENCE, [str(known + 5), "0", "-2"], ["1", "2.0", f" {known}"])
        elif place == 1:
            pools = (BAD_TEXT, NAMES, NAMES) if model == "users" else (BAD_TEXT, GOODS, GOODS,
                                                                       [f"product {int(float(earlier()))}"])
            record[1] = pick(*pools)
        elif model == "users":
            record[2] = pick(BAD_EMAIL, EMAILS, EMAILS, [f"User{int(float(earlier()))}@EXAMPLE.com"])
        else:
            record[2] = pick(BAD_PRICE, ["1e2", "0.5", ".5", "1E-3", "007", "1.50", " 9.99 "])
    return record


def write_records(path: Path, kind: str, records: Iterator[Record] | Sequence[Record], model: str,
                  chance: random.Random) -> list[int]:
    """Write the records in a format; return each one's first line."""
    places, line = [], 1
    with open(path, "w", encoding="utf-8", newline="") as file:
        delimiter = {"csv": ",", "tabs": "\t"}.get(kind)
        if delimiter:
            file.write(delimiter.join(MODELS[model]) + "\n")
            line += 1
        for number, record in enumerate(records, start=1):
            if delimiter:
                part = io.StringIO()
                csv.writer(part, delimiter=delimiter, lineterminator="\n").writerow(record or ["1", "2"])
                written = part.getvalue()
            else:
                before, after = (("[\n" if number == 1 else ",\n"), "") if kind == "json" else ("", "\n")
                written = before + as_json(record, model, chance) + after
                line += before.count("\n")
            places.append(line)
            file.write(written)
            line += written.count("\n") - (0 if delimiter else before.count("\n"))
        if kind == "json":
            file.write("\n]\n" if places else "[]")
    return places


def as_json(record: Record, model: str, chance: random.Random) -> str:
    """Return a record as a JSON object, its numbers as numbers or as texts, in any order; None as something else."""
    if record is None:
        return "[1, 2]"
    pairs = []
    for name, check, cell in zip(MODELS[model], CHECKS[model], record):
        is_number = check not in (check_text, check_email) and re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?",
                                                                            cell, re.ASCII)
        value = cell if is_number and chance.random() < 0.5 else json.dumps(cell, ensure_ascii=chance.random() < 0.5)
        pairs.append(f"{json.dumps(name)}: {value}")
    chance.shuffle(pairs)
    return "{" + ", ".join(pairs) + "}"


def make_load(seed: int, count: int, bad: float = 0.5) -> dict[str, list[Record]]:
    """Return seeded records of all three models."""
    chance = random.Random(seed)
    made = {model: list(make_records(chance, model, count, bad, count)) for model in MODELS}
    if seed % 2:
        for records in made.values():
            chance.shuffle(records)
    return made


def write_load(folder: Path, kind: str, made: dict[str, list[Record]], seed: int = 0) -> tuple[dict[str, Path],
                                                                                               dict[str, list[int]]]:
    """Write the records of all models in one format; return the files and the lines."""
    files = {model: folder / f"{model}.{kind}" for model in made}
    return files, {model: write_records(files[model], kind, records, model, random.Random(seed)) for model,
                   records in made.items()}


# ------------------------------------------------------------------------------------------------------- The runs


@pytest.fixture
def load(here: Run, tmp_path: Path) -> Load:
    """Return a function that runs a load and checks its counts: its exit status and its JSON lines by model."""

    def run_load(files: dict[str, Path], place: Path, *arguments: str) -> tuple[int, dict[str, list[dict]]]:
        words = [word for model, path in files.items() for word in (f"--{model}", str(path.relative_to(tmp_path)))]
        result = here(*words, "--db", place, "--json", *arguments)
        assert result.stderr == "" or all(path.suffix == ".tabs" for path in files.values(
            )), result.stderr      # which is told
        *lines, summary = map(json.loads, result.stdout.splitlines())
        found = {model: [line for line in lines if line["model"] == model] for model in files}
        check_counts(found, summary, place if "-n" not in arguments else None)
        assert result.returncode == summary["exit_status"] == (1 if any(line["verdict"] == "rejected" for line in lines)
                                                               else 0)
        return result.returncode, found

    return run_load


def check_counts(found: dict[str, list[dict]], summary: dict, place: Path | None) -> None:
    """Fail unless the counts are those of the lines, add up, and what is stored is said to be."""
    assert list(summary["summary"]) == [model for model in MODELS if model in found]
    for model, lines in found.items():
        counts = summary["summary"][model]
        assert counts["database"] == f"{model}.db"
        assert counts["read"] == len(lines) == sum(counts[verdict] for verdict in VERDICTS)
        assert {verdict: counts[verdict] for verdict in VERDICTS} == {
            verdict: sum(line["verdict"] == verdict for line in lines) for verdict in VERDICTS}
        check_problems(lines, counts["problems"])
        assert all(bool(line["problems"]) == (line["verdict"] == "rejected") for line in lines)
        if place:
            good = {line["id"] for line in lines if line["verdict"] in ("inserted", "replaced", "unchanged")}
            assert good <= {row[0] for row in rows(place, model)}


def check_problems(lines: list[dict], counts: dict[str, int]) -> None:
    """Fail unless problems are counted by field and code, records that only wait for a rejected parent apart."""
    rejected = [line["problems"] for line in lines if line["problems"]]
    waiting = sum(all(" was rejected)" in problem["message"] for problem in problems) for problems in rejected)
    codes = [f"{problem['field']} {problem['code']}" for problems in rejected for problem in problems
             if problem["field"] and not all(" was rejected)" in each["message"] for each in problems)]
    others = {name: count for name, count in counts.items() if name not in codes}
    assert {name: count for name, count in counts.items() if name in codes} == Counter(codes)
    malformed = sum(problem["code"] == "malformed" for problems in rejected for problem in problems)
    assert sorted(others.values()) == sorted(count for count in (waiting, malformed) if count), counts


def outcomes(lines: Sequence[dict]) -> list[Verdict]:
    """Return the verdicts and problems of JSON lines as the model gives them."""
    return [(line["verdict"], sorted((problem["field"] or "", problem["code"]) for problem in line["problems"]))
            for line in lines]


def comparable(found: dict[str, list[dict]]) -> list[dict]:
    """Return JSON lines without what differs from format to format: source and place."""
    lines = [{key: value for key, value in line.items() if key not in ("source", "line", "item")}
             for lines in found.values() for line in lines]
    for line in lines:
        line["id"] = str(line["id"])                # which the input may have as a number or as a text
        for problem in line["problems"]:
            if problem["code"] == "malformed":
                line["id"], problem["message"] = "", ""
            message = re.sub(r"\(.*was rejected\)", "", problem["message"])
            problem["message"] = re.sub(r'" *(\d[\d.]*) *"', r"\1", message)         # spaces around a number, or none
    return lines


# ------------------------------------------------------------------------------------- The same, however it is loaded


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("seed", range(2))
def test_every_batch_size_gives_the_verdicts_and_rows_of_the_sequential_model(load: Load, tmp_path: Path, seed: int,
                                                                              kind: str) -> None:
    made = make_load(seed, 250)
    files, lines = write_load(tmp_path, kind, made, seed)
    model = Model()
    expected = {name: list(model.load(name, made[name])) for name in MODELS}
    assert {verdict for outcome in expected.values() for verdict, _ in outcome} == {"inserted", "unchanged", "rejected"}
    first = None
    for size in SIZES if kind == "csv" and seed == 0 else ("7", None):
        place = tmp_path / f"size {size}"
        _, found = load(files, place, *(["--batch-size", size] if size else []))
        for name in MODELS:
            assert [line["line"] for line in found[name]] == lines[name]
            assert [line.get("item") for line in found[name]] == [number if kind == "json" else None for number,
                                                                  _ in enumerate(lines[name], 1)]
            assert outcomes(found[name]) == expected[name]
            assert rows(place, name) == sorted(model.stored[name].values())
        assert first in (None, comparable(found))           # to the letter, messages too
        first = comparable(found)


@pytest.mark.parametrize("size", ["7", None])
def test_files_of_more_than_1000_records_have_the_same_verdicts(load: Load, tmp_path: Path, size: str | None) -> None:
    made = make_load(77, 2300, bad=0.3)
    files, _ = write_load(tmp_path, "csv", made, 77)
    model = Model()
    _, found = load(files, tmp_path / "db", *(["--batch-size", size] if size else []))
    for name in MODELS:
        assert outcomes(found[name]) == list(model.load(name, made[name]))
        assert rows(tmp_path / "db", name) == sorted(model.stored[name].values())


@pytest.mark.parametrize("seed", [5])
def test_the_formats_agree_to_the_message(load: Load, tmp_path: Path, seed: int) -> None:
    made = make_load(seed, 200)
    results = [comparable(load(write_load(tmp_path, kind, made, seed)[0], tmp_path / f"of {kind}")[1])
               for kind in FORMATS]
    for result in results[1:]:
        assert result == results[0]


@pytest.mark.parametrize("order", list(itertools.permutations(MODELS)), ids=" ".join)
def test_the_order_of_the_files_changes_nothing(load: Load, tmp_path: Path, order: tuple[str, ...]) -> None:
    made = make_load(6, 150)
    files, _ = write_load(tmp_path, "csv", made, 6)
    model = Model()
    expected = {name: list(model.load(name, made[name])) for name in MODELS}
    for size in ("1", "100"):
        _, found = load({name: files[name] for name in order}, tmp_path / size, "--batch-size", size)
        assert {name: outcomes(found[name]) for name in MODELS} == expected


@pytest.mark.parametrize("arguments", [(), ("--batch-size", "1"), ("--batch-size", "300")], ids=["default", "1", "300"])
def test_orders_find_parents_that_stand_anywhere_in_their_files(load: Load, tmp_path: Path,
                                                                arguments: tuple[str, ...]) -> None:
    count = 1500
    users: list[Record] = [[str(number), "Ann", f"u{number}@example.com"] for number in range(count, 0, -1)]
    products: list[Record] = [[str(number), f"Product {number}", "1"] for number in range(1, count + 1)]
    orders: list[Record] = [[str(number), str(number), str(count + 1 - number), "1"] for number in range(1, count + 1)]
    files, _ = write_load(tmp_path, "csv", {"orders": orders, "users": users, "products": products})
    status, found = load(files, tmp_path / "db", *arguments)
    assert status == 0
    assert {line["verdict"] for lines in found.values() for line in lines} == {"inserted"}


def test_load_after_load_gives_the_verdicts_of_the_model(load: Load, tmp_path: Path) -> None:
    model = Model()
    for number, (kind, size) in enumerate([("csv", None), ("jsonl", "40"), ("tabs", "1"), ("json", None),
                                           ("csv", "1000")]):
        made = make_load(100 + number, 120 + 60 * number)
        (tmp_path / str(number)).mkdir()
        files, _ = write_load(tmp_path / str(number), kind, made, number)
        _, found = load(files, tmp_path / "db", *(["--batch-size", size] if size else []))
        for name in MODELS:
            assert outcomes(found[name]) == list(model.load(name, made[name])), (number, name)
            assert rows(tmp_path / "db", name) == sorted(model.stored[name].values())


def test_a_model_at_a_time_gives_the_verdicts_of_all_at_once(load: Load, tmp_path: Path) -> None:
    made = make_load(1, 200)
    files, _ = write_load(tmp_path, "csv", made)
    _, together = load(files, tmp_path / "together")
    for name in MODELS:
        _, alone = load({name: files[name]}, tmp_path / "alone")
        assert outcomes(alone[name]) == outcomes(together[name])
        assert rows(tmp_path / "alone", name) == rows(tmp_path / "together", name)


def test_the_same_load_again_stores_nothing_and_says_unchanged(load: Load, tmp_path: Path) -> None:
    files, _ = write_load(tmp_path, "csv", make_load(11, 300))
    _, first = load(files, tmp_path / "db")
    before = {name: rows(tmp_path / "db", name) for name in MODELS}
    _, again = load(files, tmp_path / "db")
    assert {name: rows(tmp_path / "db", name) for name in MODELS} == before
    for name in MODELS:
        assert [line["verdict"] for line in again[name]] == [
            "unchanged" if line["verdict"] == "inserted" else line["verdict"] for line in first[name]]


def test_a_bad_record_does_not_sink_its_neighbours(load: Load, tmp_path: Path) -> None:
    records: list[Record] = [[str(number), "Ann", f"u{number}@example.com"] for number in range(1, 3001)]
    flaws: list[Record] = [None, ["x", "", "y"], ["1", "Other", "z@example.com"], ["9999", "Ann", "U1@example.com"]]
    bad = dict(zip(range(3, 3000, 97), itertools.cycle(flaws)))
    files, _ = write_load(tmp_path, "csv", {"users": [bad.get(index, record) for index, record in enumerate(records)]})
    _, found = load(files, tmp_path / "db")
    assert {index for index, line in enumerate(found["users"]) if line["verdict"] != "inserted"} == set(bad)
    assert len(rows(tmp_path / "db", "users")) == 3000 - len(bad)


def test_values_reach_the_database_as_values_only(load: Load, tmp_path: Path) -> None:
    texts = ["'; DROP TABLE users; --", 'x"); DELETE FROM users; --', "?", ":name", "?1", "%s", "\\", "' OR 1=1 --",
             "NULL", "{0}", "x" * 10**5]
    files, _ = write_load(tmp_path, "jsonl", {"products": [[str(number), text, "1"] for number,
                                                           text in enumerate(texts, 1)]})
    assert load(files, tmp_path / "db")[0] == 0
    assert [name for _, name, _ in rows(tmp_path / "db", "products")] == texts
    assert [line["verdict"] for line in load(files, tmp_path / "db")[1]["products"]] == ["unchanged"] * len(texts)


# --------------------------------------------------------------------------------------------------------- References


def test_a_reference_may_go_to_a_model_that_is_not_loaded_with_it(load: Load, tmp_path: Path) -> None:
    files, _ = write_load(tmp_path, "csv", {
        "users": [["1", "Ann", "ann@example.com"]], "products": [["1", "Desk", "5"]],
        "orders": [["1", "1", "1", "1"], ["2", "9", "1", "1"]]})
    assert load({"users": files["users"]}, tmp_path / "db")[0] == 0
    _, found = load({"products": files["products"], "orders": files["orders"]}, tmp_path / "db")
    assert outcomes(found["orders"]) == [("inserted", []), ("rejected", [("user_id", "no_such_reference")])]
    assert found["orders"][1]["problems"][0]["message"] == "user_id 9 is not in users.db"
    assert rows(tmp_path / "db", "orders") == [(1, 1, 1, 1)]


@pytest.mark.parametrize("place", ["databses", "new/and deep"])
@pytest.mark.parametrize("arguments", [(), ("-n",)], ids=["load", "dry run"])
def test_where_there_is_no_such_database_the_message_says_so(load: Load, tmp_path: Path, place: str,
                                                             arguments: tuple[str, ...]) -> None:
    files, _ = write_load(tmp_path, "csv", {"products": [["1", "Desk", "5"]], "orders": [["1", "1", "1", "1"]]})
    _, found = load(files, Path(place), *arguments)
    (verdict, problems), = outcomes(found["orders"])
    assert (verdict, problems) == ("rejected", [("user_id", "no_such_reference")])
    assert f"there is no users.db in {place}" in found["orders"][0]["problems"][0]["message"]
    assert not (tmp_path / place / "users.db").exists()


def test_orders_without_parents_are_rejected_and_stored_once_the_parents_are(load: Load, tmp_path: Path) -> None:
    files, _ = write_load(tmp_path, "csv", {
        "users": [["1", "Ann", "ann@example.com"]], "products": [["1", "Desk", "5"]], "orders": [["1", "1", "1", "1"]]})
    _, found = load({"orders": files["orders"]}, tmp_path / "db")
    assert outcomes(found["orders"]) == [("rejected", [("product_id", "no_such_reference"),
                                                       ("user_id", "no_such_reference")])]
    assert load({"users": files["users"], "products": files["products"]}, tmp_path / "db")[0] == 0
    assert load({"orders": files["orders"]}, tmp_path / "db")[0] == 0
    assert rows(tmp_path / "db", "orders") == [(1, 1, 1, 1)]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("size", SIZES)
def test_a_rejected_parent_is_named_with_its_place(load: Load, tmp_path: Path, kind: str, size: str | None) -> None:
    users: list[Record] = [[str(number), "two\nlines" if number == 4 else "Ann", f"u{number}@example.com"]
                           for number in range(1, 21)]
    users[9][1] = ""
    orders: list[Record] = [["1", "10", "1", "1"], ["2", "4", "1", "1"], ["3", "99", "1", "1"], ["4", "9", "1", "1"]]
    files, lines = write_load(tmp_path, kind, {"users": users, "products": [["1", "Desk", "5"]], "orders": orders})
    _, found = load(files, tmp_path / "db", *(["--batch-size", size] if size else []))
    messages = [[problem["message"] for problem in line["problems"]] for line in found["orders"]]
    for (message,), id_ in zip(messages, (10, 4)):
        assert message.startswith(f"user_id {id_} is not in users.db (users.{kind}") and message.endswith(
            " was rejected)")
        assert re.search(rf"\b({lines['users'][id_ - 1]}|item {id_})\b", message.partition("(")[2])
    if kind == "csv":
        assert messages[0] == [f"user_id 10 is not in users.db (users.csv:{lines['users'][9]} was rejected)"]
    assert messages[2:] == [["user_id 99 is not in users.db"], []]


def test_of_several_rejected_parents_with_one_id_the_same_is_named_whatever_the_batch(load: Load,
                                                                                      tmp_path: Path) -> None:
    users: list[Record] = [["1", "Ann", "ann@example.com"], ["5", "Ben", "ANN@example.com"],
                           ["5", "Ben", "not an address"], ["5", "", "c@example.com"]]
    files, _ = write_load(tmp_path, "csv", {"users": users, "products": [["1", "Desk", "5"]],
                                            "orders": [["1", "5", "1", "1"]]})
    messages = {load(files, tmp_path / str(size), *(["--batch-size", size] if size
                                                    else []))[1]["orders"][0]["problems"][0]["message"]
                for size in ("1", "2", "3", "1000", None)}
    assert len(messages) == 1 and re.fullmatch(r"user_id 5 is not in users\.db \(users\.csv:[345] was rejected\)",
                                               messages.pop())


def test_a_rejected_parent_whose_id_a_later_record_takes_is_no_missing_reference(load: Load, tmp_path: Path) -> None:
    users: list[Record] = [["5", "", "a@example.com"], ["6", "Ann", "b@example.com"], ["5", "Ben", "c@example.com"]]
    files, _ = write_load(tmp_path, "csv", {"users": users, "products": [["1", "Desk", "5"]],
                                            "orders": [["1", "5", "1", "1"]]})
    for size in ("1", "2", "1000"):
        _, found = load(files, tmp_path / size, "--batch-size", size)
        assert [line["verdict"] for line in found["users"]] == ["rejected", "inserted", "inserted"]
        assert [line["verdict"] for line in found["orders"]] == ["inserted"]


# --------------------------------------------------------------------------------- unchanged, conflict and not_unique

SAME_OR_NOT = [
    ("users", ["1", "Ann", "ann@example.com"], ["1", "Ann", "ann@example.com"], "unchanged", []),
    ("users", ["1", "Ann", "ann@example.com"], ["001", " Ann\n", "ann@example.com "], "unchanged", []),
    ("users", ["1", "Ann", "ann@example.com"], ["1.0", "Ann", "ann@example.com"], "unchanged", []),
    ("users", ["1", "Ann", "ann@example.com"], ["1", "ann", "ann@example.com"], "rejected", [("id", "conflict")]),
    ("users", ["1", "Ann", "ann@example.com"], ["1", "Ann", "ANN@example.com"], "rejected", [("id", "conflict")]),
    ("users", ["1", "Ann", "ann@example.com"], ["1", "Ann", "other@example.com"], "rejected", [("id", "conflict")]),
    ("users", ["1", "José", "ann@example.com"], ["1", "Jose\u0301", "ann@example.com"], "rejected",
     [("id", "conflict")]),
    ("users", ["1", "Ann", "ann@example.com"], ["1", "", "ann@example.com"], "rejected",
     [("id", "conflict"), ("name", "blank")]),
    ("users", ["1", "Ann", "ann@example.com"], ["2", "Ann", "ann@example.com"], "rejected", [("email", "not_unique")]),
    ("users", ["1", "Ann", "ann@example.com"], ["2", "", "Ann@Example.Com"], "rejected",
     [("email", "not_unique"), ("name", "blank")]),
    ("users", ["1", "Ann", "ann@example.com"], ["x", "Ann", "ann@example.com"], "rejected",
     [("email", "not_unique"), ("id", "not_integer")]),
    ("users", ["1", "Ann", "straße@example.de"], ["2", "Ann", "STRASSE@example.de"], "rejected",
     [("email", "not_unique")]),
    ("users", ["1", "Ann", "jose\u0301@example.com"], ["2", "Ann", "José@example.com"], "rejected",
     [("email", "not_unique")]),
    ("users", ["1", "Ann", "ann@example.com"], ["2", "Ann", "ann@example.org"], "inserted", []),
    ("products", ["1", "Desk", "1000.00"], ["1", "Desk", "1e3"], "unchanged", []),
    ("products", ["1", "Desk", "0.5"], ["1", "Desk", ".50"], "unchanged", []),
    ("products", ["1", "Desk", "5"], ["1", "Desk", "5.01"], "rejected", [("id", "conflict")]),
    ("products", ["1", "Desk", "5"], ["1", "desk", "5"], "rejected", [("id", "conflict")]),
    ("products", ["1", "Big Desk", "5"], ["2", "BIG desk", "5"], "rejected", [("name", "not_unique")]),
    ("products", ["1", "Big Desk", "5"], ["2", "Big  Desk", "5"], "inserted", []),
    ("products", ["1", "Big Desk", "5"], ["2", "BigDesk", "5"], "inserted", []),
    ("products", ["1", "Grid 10²", "5"], ["2", "Grid 102", "5"], "inserted", []),
    ("products", ["1", "Desk", "5"], ["2", "\uff24\uff45\uff53\uff4b", "5"], "inserted", []),
    ("products", ["1", "it", "5"], ["2", "瑩", "5"], "inserted", []),
    ("products", ["1", "ﬁle", "5"], ["2", "FILE", "5"], "rejected", [("name", "not_unique")]),
    ("products", ["1", "\u212aelvin", "5"], ["2", "kelvin", "5"], "rejected", [("name", "not_unique")]),
    ("products", ["1", "МОСКВА", "5"], ["2", "москва", "5"], "rejected", [("name", "not_unique")]),
]


@pytest.mark.parametrize(("model", "stored", "new", "verdict", "problems"), SAME_OR_NOT)
@pytest.mark.parametrize("together", [("--batch-size", "9"), None], ids=["one load", "two loads"])
def test_a_record_is_compared_with_what_is_there(load: Load, tmp_path: Path, model: str, stored: list[str],
                                                 new: list[str], verdict: str,
                                                 problems: list, together: tuple[str, ...] | None) -> None:
    made: list[list[Record]] = [[stored], [new]] if together is None else [[stored, new]]
    for records in made:
        files, _ = write_load(tmp_path, "csv", {model: records})
        _, found = load(files, tmp_path / "db", *together or ())
    assert outcomes(found[model])[-1] == (verdict, problems)
    assert len(rows(tmp_path / "db", model)) == (2 if verdict == "inserted" else 1)


@pytest.mark.parametrize("size", ["1", "2", "1000"])
def test_a_duplicate_names_the_record_that_holds_the_value_and_its_text_where_that_differs(load: Load, tmp_path: Path,
                                                                                           size: str) -> None:
    users: list[Record] = [["41", "Ann", "ann@example.com"], ["7", "Ben", "ANN@example.com"],
                           ["8", "Cat", "ann@example.com"]]
    files, _ = write_load(tmp_path, "csv", {"users": users})
    for _ in range(2):
        _, found = load(files, tmp_path / "db", "--batch-size", size)
        (other,), (same,) = ([problem["message"] for problem in line["problems"]] for line in found["users"][1:])
        assert other.startswith('email "ANN@example.com" ') and "user 41" in other and "ann@example.com" in other
        assert same.startswith('email "ann@example.com" ') and "user 41" in same and same.count("ann@example.com") == 1


def test_a_conflict_names_the_fields_that_differ_and_the_flag_that_replaces(load: Load, tmp_path: Path) -> None:
    products: list[Record] = [["1", "Desk", "5"], ["1", "Desk", "6"], ["1", "Chair", "5"], ["1", "Chair", "6"]]
    files, _ = write_load(tmp_path, "csv", {"products": products})
    for _ in range(2):
        _, found = load(files, tmp_path / "db")
        messages = [line["problems"][0]["message"] for line in found["products"][1:]]
        assert [[name for name in ("name", "price") if re.search(rf"\b{name}\b", message)] for message in messages] == [
            ["price"], ["name"], ["name", "price"]]
        assert all("--replace" in message for message in messages)


@pytest.mark.parametrize("size", ["1", "2", "1000"])
def test_a_rejected_record_takes_neither_its_id_nor_its_address(load: Load, tmp_path: Path, size: str) -> None:
    users: list[Record] = [["1", "", "ann@example.com"], ["1", "Ben", "ben@example.com"],
                           ["2", "Ann", "ann@example.com"],
                           ["3", "Cat", "ANN@example.com"], ["3", "Cat", "cat@example.com"]]
    files, _ = write_load(tmp_path, "csv", {"users": users})
    _, found = load(files, tmp_path / "db", "--batch-size", size)
    assert [line["verdict"] for line in found["users"]] == ["rejected", "inserted", "inserted", "rejected", "inserted"]


# ---------------------------------------------------------------------------------------------------------- --replace


@pytest.mark.parametrize("size", ["7", None])
@pytest.mark.parametrize("seed", range(2))
def test_replacing_gives_the_verdicts_and_rows_of_the_sequential_model(load: Load, tmp_path: Path, seed: int,
                                                                       size: str | None) -> None:
    model, arguments = Model(), ["--batch-size", size] if size else []
    for number in range(2):
        made = make_load(10 * seed + number, 250)
        files, _ = write_load(tmp_path, "csv", made)
        _, dry = load(files, tmp_path / "db", "--replace", "-n", *arguments)
        _, found = load(files, tmp_path / "db", "--replace", *arguments)
        for name in MODELS:
            expected = list(model.load(name, made[name], replace=True))
            assert "replaced" in {verdict for verdict, _ in expected}
            assert outcomes(found[name]) == outcomes(dry[name]) == expected
            assert rows(tmp_path / "db", name) == sorted(model.stored[name].values())


@pytest.mark.parametrize("size", ["1", "2", "1000"])
def test_two_may_swap_their_addresses_through_a_third_value(load: Load, tmp_path: Path, size: str) -> None:
    first: list[Record] = [["1", "Ann", "a@example.com"], ["2", "Ben", "b@example.com"]]
    swap: list[Record] = [["1", "Ann", "B@example.com"], ["1", "Ann", "c@example.com"], ["2", "Ben", "A@example.com"],
                          ["1", "Ann", "B@example.com"]]
    files, _ = write_load(tmp_path, "csv", {"users": first})
    load(files, tmp_path / "db")
    files, _ = write_load(tmp_path, "csv", {"users": swap})
    _, found = load(files, tmp_path / "db", "--replace", "--batch-size", size)
    assert outcomes(found["users"]) == [("rejected", [("email", "not_unique")]), ("replaced", []), ("replaced", []),
                                        ("replaced", [])]
    assert rows(tmp_path / "db", "users") == [(1, "Ann", "B@example.com"), (2, "Ben", "A@example.com")]


def test_an_order_is_replaced_only_by_one_whose_parents_exist(load: Load, tmp_path: Path) -> None:
    files, _ = write_load(tmp_path, "csv", {"users": [["1", "Ann", "a@example.com"]], "products": [["1", "Desk", "5"]],
                                            "orders": [["1", "1", "1", "1"]]})
    load(files, tmp_path / "db")
    files, _ = write_load(tmp_path, "csv", {"orders": [["1", "9", "1", "1"], ["1", "1", "1", "0"],
                                                       ["1", "1", "1", "7"]]})
    _, found = load(files, tmp_path / "db", "--replace")
    assert outcomes(found["orders"]) == [("rejected", [("user_id", "no_such_reference")]),
                                         ("rejected", [("quantity", "not_positive")]), ("replaced", [])]
    assert rows(tmp_path / "db", "orders") == [(1, 1, 1, 7)]


# ---------------------------------------------------------------------------------------------------------- --dry-run


def as_told(result: subprocess.CompletedProcess) -> list[dict]:
    """Return the JSON lines of a run without what differs from run to run."""
    lines = list(map(json.loads, result.stdout.splitlines()))
    return [*lines[:-1], {model: {**counts, "seconds": 0} for model, counts in lines[-1]["summary"].items()}]


@pytest.mark.parametrize("filled", [False, True], ids=["fresh", "filled"])
@pytest.mark.parametrize(("flag", "size"), [("-n", ()), ("--dry-run", ("--batch-size", "3"))],
                         ids=["single", "batches"])
def test_a_dry_run_says_what_the_real_run_does_and_writes_nothing(here: Run, tmp_path: Path, filled: bool, flag: str,
                                                                  size: tuple[str, ...]) -> None:
    if filled:
        files, _ = write_load(tmp_path, "csv", make_load(3, 150))
        here(*(word for model, path in files.items() for word in (f"--{model}", path)), "--db", "db")
    files, _ = write_load(tmp_path, "csv", make_load(4, 200))
    words = [word for model, path in files.items() for word in (f"--{model}", path)]
    before = contents(tmp_path)
    dry = here(*words, "--db", "db", flag, "--json", *size)
    assert contents(tmp_path) == before and (tmp_path / "db").exists() == filled
    real = here(*words, "--db", "db", "--json", *size)
    assert dry.returncode == real.returncode == 1
    assert as_told(dry) == as_told(real)


USERS = "id,name,email\n1,Ann,ann@example.com\n2,Ben,ben@example.com\n"


@pytest.mark.parametrize(("users", "status"), [(USERS, 0), (USERS + "3,,cat@example.com\n", 1), ("id,name\n", 2)],
                         ids=["good", "mixed", "unreadable"])
def test_a_dry_run_exits_as_the_real_run(here: Run, tmp_path: Path, users: str, status: int) -> None:
    (tmp_path / "users.csv").write_text(users, encoding="utf-8")
    assert here("--users", "users.csv", "-n").returncode == status
    assert [path.name for path in tmp_path.iterdir()] == ["users.csv"]
    assert here("--users", "users.csv").returncode == status


def test_a_dry_run_exits_3_as_the_real_run_where_a_database_is_none(here: Run, tmp_path: Path) -> None:
    files, _ = write_load(tmp_path, "csv", make_load(4, 30))
    words = [word for model, path in files.items() for word in (f"--{model}", path)]
    (tmp_path / "users.db").write_bytes(b"no database" * 100)
    before = contents(tmp_path)
    dry = here(*words, "-n", "--json")
    assert contents(tmp_path) == before
    real = here(*words, "--json")
    assert dry.returncode == real.returncode == 3
    assert [line.get("verdict") for line in as_told(dry)] == [line.get("verdict") for line in as_told(real)]
    assert (tmp_path / "users.db").read_bytes() == b"no database" * 100


def test_a_dry_run_of_the_sample_writes_nothing_and_says_so(here: Run, tmp_path: Path) -> None:
    result = here("-n")
    assert result.returncode == 0 and "othing was written" in result.stdout + result.stderr
    assert list(tmp_path.iterdir()) == []


# ----------------------------------------------------------------------------------------------------------- --verify

CREATE = {"users": "id INTEGER PRIMARY KEY, name TEXT, email TEXT",
          "products": "id INTEGER PRIMARY KEY, name TEXT, price REAL",
          "orders": "id INTEGER PRIMARY KEY, user_id INTEGER, product_id INTEGER, quantity INTEGER"}
SOUND = {"users": [(1, "Ann", "ann@example.com"), (2, "Ben", "ben@example.com")],
         "products": [(1, "Desk", 99.5), (2, "Lamp", 5)],
         "orders": [(1, 1, 1, 1), (2, 2, 2, 2**63 - 1)]}
USER, PRODUCT = "INSERT INTO users VALUES (?,?,?)", "INSERT INTO products VALUES (?,?,?)"
ORDER = "INSERT INTO orders VALUES (?,?,?,?)"


def fill(folder: Path, *statements: tuple[str, tuple]) -> None:
    """Make three databases with two sound records each, by plain sqlite3, and do to them what is asked."""
    for model in MODELS:
        with closing(sqlite3.connect(folder / f"{model}.db")) as connection, connection:
            connection.execute(f"CREATE TABLE {model} ({CREATE[model]})")
            connection.executemany(f"INSERT INTO {model} VALUES ({','.join('?' * len(SOUND[model][0]))})", SOUND[model])
            for sql, values in statements:
                if f" {model} " in sql:
                    connection.execute(sql, values)


def broken(here: Run, *arguments: object) -> tuple[subprocess.CompletedProcess,
                                                   dict[tuple[str, int], set[tuple[str, str]]]]:
    """Verify, and return what was printed and the problems of each record that breaks a rule."""
    result = here("--verify", "--json", *arguments)
    *lines, summary = map(json.loads, result.stdout.splitlines())
    assert summary["exit_status"] == result.returncode
    return result, {(line["model"], line["id"]): {(problem["field"], problem["code"]) for problem in line["problems"]}
                    for line in lines if line["problems"]}


def test_verify_finds_nothing_wrong_with_sound_databases_and_changes_nothing(here: Run, tmp_path: Path) -> None:
    fill(tmp_path)
    before = contents(tmp_path)
    result, found = broken(here)
    assert (result.returncode, result.stderr, found) == (0, "", {})
    summary = json.loads(result.stdout.splitlines()[-1])["summary"]
    assert {model: counts["read"] for model, counts in summary.items()} == dict.fromkeys(MODELS, 2)
    assert here("--verify").returncode == 0
    assert contents(tmp_path) == before


@pytest.mark.parametrize(("sql", "values", "problems"), [
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
    (USER, (3, None, "ANN@Example.COM"), {("name", "missing"), ("email", "not_unique")}),
    (PRODUCT, (3, "DESK", 1), {("name", "not_unique")}),
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
    (ORDER, (3, 9, 9, 0), {("user_id", "no_such_reference"), ("product_id", "no_such_reference"),
                           ("quantity", "not_positive")}),
    (ORDER, (3, None, 1, 1), {("user_id", "missing")}),
    (ORDER, (3, "Ann", 1, 1), {("user_id", "not_integer")}),
    ("DELETE FROM users WHERE id = ?", (2,), {("user_id", "no_such_reference")}),
    ("UPDATE users SET id = ? WHERE id = 2", (7,), {("user_id", "no_such_reference")}),
    ("UPDATE products SET name = ? WHERE id = 2", ("desk",), {("name", "not_unique")}),
    ("UPDATE users SET email = ? WHERE id = 2", ("ANN@example.com",), {("email", "not_unique")}),
    ("UPDATE orders SET product_id = ? WHERE id = 2", (5,), {("product_id", "no_such_reference")}),
], ids=lambda value: ascii(value)[:60] if isinstance(value, tuple) else "")
def test_verify_finds_a_planted_record_that_breaks_a_rule(here: Run, tmp_path: Path, sql: str, values: tuple,
                                                          problems: set) -> None:
    fill(tmp_path, (sql, values))
    before = contents(tmp_path)
    result, found = broken(here)
    assert result.returncode == 1
    assert list(found.values()) == [problems]
    assert contents(tmp_path) == before


def test_verify_tells_what_is_broken_in_words_too(here: Run, tmp_path: Path) -> None:
    fill(tmp_path, (USER, (3, "", "zed@example.com")), (USER, (4, "Ann", "ANN@example.com")), (ORDER, (3, 9, 1, 0)))
    out = " ".join(here("--verify").stdout.split())
    for words in ("name: is blank [blank]", "is already taken by user 1", "[not_unique]",
                  "user_id: 9 is not in users.db [no_such_reference]",
                  "quantity: 0 is not greater than 0 [not_positive]"):
        assert words in out


@pytest.mark.parametrize("texts", [("it", "瑩"), ("Grid 10²", "Grid 102"), ("Desk\u00a0top", "Desk top")])
def test_verify_takes_two_different_names_for_two(here: Run, tmp_path: Path, texts: tuple[str, str]) -> None:
    fill(tmp_path, *((PRODUCT, (id_, text, 1)) for id_, text in enumerate(texts, start=3)))
    assert broken(here)[1] == {}


def test_verify_lists_every_broken_record_and_no_other(here: Run, tmp_path: Path) -> None:
    fill(tmp_path, *((USER, (number, "Zed", "ann@example.com" if number % 3 else f"z{number}@example.com"))
                     for number in range(3, 3003)),
         *((ORDER, (number, number, 1, 1)) for number in range(3, 3103)))
    result, found = broken(here)
    assert set(found) == {("users", number) for number in range(3, 3003) if number % 3} | {("orders", number)
                                                                                           for number in range(3003,
                                                                                               3103)}
    summary = json.loads(result.stdout.splitlines()[-1])["summary"]
    assert [counts["read"] for counts in summary.values()] == [3002, 2, 3102]


def test_verify_accepts_what_loads_stored(here: Run, load: Load, tmp_path: Path) -> None:
    for seed in (1, 2):
        files, _ = write_load(tmp_path, "csv", make_load(seed, 400))
        load(files, tmp_path / "db", "--replace")
    assert broken(here, "--db", "db")[1] == {}


def test_verify_works_without_the_databases_that_nothing_refers_to(here: Run, tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "orders.db").unlink()
    assert here("--verify").returncode == 0
    (tmp_path / "only").mkdir()
    shutil.copy(tmp_path / "users.db", tmp_path / "only")
    assert here("--verify", "--db", "only").returncode == 0
    assert [path.name for path in (tmp_path / "only").iterdir()] == ["users.db"]


def test_verify_finds_that_a_whole_database_is_missing(here: Run, tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "products.db").unlink()
    result, found = broken(here)
    assert result.returncode == 1
    assert found == {("orders", 1): {("product_id", "no_such_reference")},
                     ("orders", 2): {("product_id", "no_such_reference")}}


@pytest.mark.parametrize("arguments", [(), ("--db", "missing")], ids=["empty", "missing"])
def test_verify_of_a_folder_without_databases_exits_2_and_makes_none(here: Run, tmp_path: Path,
                                                                     arguments: tuple[str, ...]) -> None:
    result = here("--verify", *arguments)
    assert (result.returncode, result.stdout) == (2, "") and result.stderr
    assert list(tmp_path.iterdir()) == []


def test_verify_of_a_damaged_database_exits_3_looks_at_the_others_and_calls_no_order_broken(here: Run,
                                                                                            tmp_path: Path) -> None:
    fill(tmp_path, (PRODUCT, (3, "Chair", 0)))
    (tmp_path / "users.db").write_bytes(b"no database" * 100)
    before = contents(tmp_path)
    result, found = broken(here)
    assert result.returncode == 3 and "users.db" in result.stderr
    assert found == {("products", 3): {("price", "not_positive")}}
    assert contents(tmp_path) == before


def test_a_load_does_not_take_up_what_verify_finds_broken(here: Run, tmp_path: Path) -> None:
    fill(tmp_path, (USER, (3, "Zed", "zed")))
    (tmp_path / "users.csv").write_text("id,name,email\n3,Zed,zed\n4,Yan,yan@example.com\n", encoding="utf-8")
    *lines, _ = map(json.loads, here("--users", "users.csv", "--json").stdout.splitlines())
    assert [line["verdict"] for line in lines] == ["rejected", "inserted"]


# ------------------------------------------------------------------------------- The files of SQLite, and the threads


def test_a_load_writes_ahead_and_syncs_and_leaves_no_log_beside_a_new_file(here: Run, tmp_path: Path,
                                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[sqlite3.Connection] = []
    found: list[tuple[str, str, int]] = []
    connect, commit = sqlite3.connect, distributed_inserts.SqliteTable.commit

    def look_and_commit(table: object) -> None:
        for connection in made:
            try:
                file = connection.execute("PRAGMA database_list").fetchone()[2]
                if connection.in_transaction:
                    found.append((Path(file).name, *(connection.execute(f"PRAGMA {name}").fetchone()[0]
                                                     for name in ("journal_mode", "synchronous"))))
            except sqlite3.ProgrammingError:                # it is another thread's, or closed
                pass
        commit(table)

    monkeypatch.setattr(sqlite3, "connect", lambda *arguments, **options: made.append(connect(*arguments, **options))
                        or made[-1])
    monkeypatch.setattr(distributed_inserts.SqliteTable, "commit", look_and_commit)
    assert here("-q").returncode == 0
    assert set(found) == {(f"{model}.db", "wal", 2) for model in MODELS}
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{model}.db" for model in sorted(MODELS)]


def test_threads_are_one_a_record_and_those_alive_at_once_are_bounded(here: Run, tmp_path: Path,
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[int] = []
    start, before, lock = _thread.start_new_thread, threading.active_count(), threading.Lock()
    running = [0]

    def start_counted(function: Callable, arguments: tuple) -> int:

        def count_and_run(*given: object) -> None:
            with lock:
                running[0] += 1
                alive.append(running[0])
            function(*given)
            with lock:
                running[0] -= 1

        return start(count_and_run, arguments)

    monkeypatch.setattr("distributed_inserts._thread", types.SimpleNamespace(start_new_thread=start_counted))
    made: dict[str, list[Record]] = {"users": [[str(number), "Ann", f"u{number}@example.com"] for number in range(900)],
                                     "products": [[str(number), f"P{number}", "1"] for number in range(900)]}
    files, _ = write_load(tmp_path, "csv", made)
    here(*(word for model, path in files.items() for word in (f"--{model}", path)), "--batch-size", "1", "-q")
    assert len(alive) == 2 * 900
    assert max(alive) <= 4 * distributed_inserts.GROUP_BATCHES  # some of them are about to end
    assert threading.active_count() == before


# ------------------------------------------------------------------------------------------------- Memory, large loads


def last_line(output: Path) -> dict:
    """Return the last line of output in JSON."""
    with open(output, "rb") as file:
        file.seek(-min(output.stat().st_size, 4000), 2)
        return json.loads(file.read().splitlines()[-1])


HEAVY_COUNTS = {"users": 1_000_000, "products": 200_000, "orders": 2_000_000}


def heavy_records(model: str) -> Iterator[Record]:
    """Yield the records of the million-user load, 1 % of which is bad or clashes."""
    return make_records(random.Random(model), model, HEAVY_COUNTS[model], 0.01, HEAVY_COUNTS["products"])


@HEAVY
@pytest.mark.parametrize("kind", ["csv", "json", "jsonl"])
def test_a_load_of_3_million_records_gives_the_verdicts_of_the_model_within_256_mib(tmp_path: Path, kind: str) -> None:
    files = {model: tmp_path / f"{model}.{kind}" for model in MODELS}
    for name, path in files.items():
        write_records(path, kind, heavy_records(name), name, random.Random(0))
    status, output, err, peak = measure(tmp_path, *(word for model, path in files.items()
                                                    for word in (f"--{model}", path)), "--json")
    assert (status, err) == (1, "")
    assert peak <= PEAK_MAX_BYTES
    model = Model()
    with open(output, encoding="utf-8") as text:
        lines = map(json.loads, text)
        pending: dict[str, list[dict]] = {name: [] for name in MODELS}         # lines of other models in between
        for name in MODELS:
            for expected in model.load(name, heavy_records(name)):
                while not pending[name]:
                    line = next(lines)
                    pending[line["model"]].append(line)
                assert outcomes([pending[name].pop(0)]) == [expected]
        summary = next(lines)
    assert {name: counts["read"] for name, counts in summary["summary"].items()} == HEAVY_COUNTS
    for name in MODELS:
        assert rows(tmp_path, name) == sorted(model.stored[name].values())
    status, output, err, peak = measure(tmp_path, "--verify", "--json", "-q")
    assert (status, err) == (0, "") and peak <= PEAK_MAX_BYTES


ALL_BAD = {
    "bad cells": ("id,name,email\n", lambda number: f"{number},,nobody\n"),
    "wrong number of cells": ("id,name,email\n", lambda number: f"{number},Ann\n"),
    "stray quotes": ("id,name,email\n", lambda number: f'{number},"A"nn,u{number}@example.com\n'),
    "unclosed quotes": ("id,name,email\n", lambda number: f'{number},"Ann,u{number}@example.com\n'),
    "broken JSON lines": ("", lambda number: '{"id": 0}\n' if number == 1 else '{"id": 1, "name": "Ann", \n'),
    "elements of the wrong type": ("[0", lambda number: f",{number}\n"),
    "ids that conflict": ("id,name,email\n", lambda number: f"1,Ann {number},ann@example.com\n"),
    "one and the same e-mail": ("id,name,email\n", lambda number: f"{number},Ann,ann@example.com\n"),
    "one e-mail in two forms": ("id,name,email\n",
                                lambda number: f"{number},Ann,{'ANN' if number % 2 else 'ann'}@example.com\n"),
}


def check_all_bad(folder: Path, name: str, count: int) -> None:
    """Load a file of bad records; fail unless all but the first are rejected, within bounds of memory and output."""
    begin, line = ALL_BAD[name]
    with open(folder / "users", "w", encoding="utf-8", newline="") as file:
        file.write(begin)
        file.writelines(map(line, range(1, count + 1)))
        file.write("]" if begin == "[0" else "")
    read, kept = count + (begin == "[0"), 1 if "e-mail" in name or "conflict" in name else 0
    status, output, err, peak = measure(folder, "--users", "users", "--db", "text", "--rejects", "rejects")
    assert (status, err) == (1, "")
    assert output.stat().st_size < 20_000 and peak <= PEAK_MAX_BYTES
    status, output, err, peak = measure(folder, "--users", "users", "--db", "json", "--json", "-q")
    assert (status, err) == (1, "") and peak <= PEAK_MAX_BYTES
    counts = last_line(output)["summary"]["users"]
    assert [counts[verdict] for verdict in ("read", *VERDICTS)] == [read, kept, 0, 0, read - kept, 0]


@pytest.mark.parametrize("name", ["unclosed quotes", "one e-mail in two forms"])
def test_a_file_of_bad_records_only_is_rejected_record_by_record(tmp_path: Path, name: str) -> None:
    check_all_bad(tmp_path, name, 5000)


@HEAVY
@pytest.mark.parametrize("name", ALL_BAD)
def test_a_million_bad_records_are_rejected_within_256_mib(tmp_path: Path, name: str) -> None:
    check_all_bad(tmp_path, name, 1_000_000)


@HEAVY
def test_a_thousand_records_are_appended_to_a_million(tmp_path: Path) -> None:
    def write(name: str, numbers: range) -> Path:
        with open(tmp_path / name, "w", encoding="utf-8") as file:
            file.write("id,name,email\n")
            file.writelines(f"{number},Ann,user{number}@example.com\n" for number in numbers)
        return tmp_path / name

    status, _, err, _ = measure(tmp_path, "--users", write("million.csv", range(1, 1_000_001)))
    assert (status, err) == (0, "")
    more = write("more.csv", range(1_000_001, 1_001_001))
    for inserted, unchanged in ((1000, 0), (0, 1000)):
        status, output, err, peak = measure(tmp_path, "--users", more, "--json", "-q")
        counts = last_line(output)["summary"]["users"]
        assert (status, err, counts["inserted"], counts["unchanged"]) == (0, "", inserted, unchanged)
        assert peak <= PEAK_MAX_BYTES
    with open(more, "a", encoding="utf-8") as file:
        file.write("2000000,Eve,USER500000@EXAMPLE.COM\n500000,Eve,eve@example.com\n")
    status, output, _, _ = measure(tmp_path, "--users", more, "--json")
    *_, taken, conflict, _ = map(json.loads, output.read_text(encoding="utf-8").splitlines())
    assert (status, outcomes([taken, conflict])) == (1, [("rejected", [("email", "not_unique")]),
                                                         ("rejected", [("id", "conflict")])])
