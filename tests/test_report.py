"""What is printed: records, problems, the table, why, totals, next step; JSON lines; colour, wrapping and the bar."""
from __future__ import annotations

import json
import os
import random
import re
import select
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from conftest import MODELS, PROGRAM, Run, TIMEOUT_S, VERDICTS, write_users
from loads import LAUNCH, SMALL_GROUPS, commands, locked, wait_until

UNSAFE = re.compile(r"[^\x20-\x7e\n\u00a1-\ud7ff\uf900-\U000e0000]|[\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
RECORD = re.compile(rf"(?m)^\s*(\S) ({'|'.join(VERDICTS)}) +(\S+)(.*)$")
TOTALS = re.compile(r"(?m)^([\d,]+) records?: (.+), in ([\d,]+) transactions? by ([\d,]+) insert workers?, "
                    r"([\d,]+) threads?, ([\d.]+) s$")


def listed(text: str, verdict: str) -> list[int]:
    """Return the ids of the records that are listed with a verdict."""
    return [int(number) for _, found, number, _ in RECORD.findall(text) if found == verdict]


def table(text: str) -> dict[str, dict[str, str]]:
    """Return the cells of the table of a report, by database and column."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if re.match(r"database +read +inserted\b", line))
    heads = lines[start].split()
    found = {}
    for line in lines[start + 1:]:
        cells = line.split()
        if len(cells) != len(heads) or not re.fullmatch(r"[\d,]+", cells[1]):
            break
        found[cells[0]] = dict(zip(heads, cells))
    return found


def after_table(text: str) -> str:
    """Return what stands below the table."""
    found = text[re.search(r"(?m)^database +read ", text).start():].splitlines(keepends=True)
    return "".join(found[1 + len(table(text)):])


def numbered(text: str) -> dict[str, int]:
    """Return the counts of the line of totals by verdict."""
    return {name: int(count.replace(",", "")) for count, name in re.findall(r"([\d,]+) ([a-z]+)",
                                                                            TOTALS.search(text)[2])}


def write_products(path: Path, count: int, bad: Callable[[int], bool] = lambda number: False) -> None:
    """Write products 1 to `count`; the bad ones cost nothing."""
    path.write_text("id,name,price\n" + "".join(f"{number},P{number},{0 if bad(number) else 1}\n"
                                                for number in range(1, count + 1)), encoding="utf-8")


def write_orders(path: Path, count: int, user: Callable[[int], int] = lambda number: 1) -> None:
    """Write orders 1 to `count` of product 1."""
    path.write_text("id,user_id,product_id,quantity\n" + "".join(f"{number},{user(number)},1,1\n"
                                                                 for number in range(1, count + 1)), encoding="utf-8")


ALL = ("--users", "users.csv", "--products", "products.csv", "--orders", "orders.csv")


# ------------------------------------------------------------------------------------------------- Lists and limits


@pytest.mark.parametrize("count", [1, 999, 1000])
def test_up_to_1000_records_of_a_model_are_all_listed_in_input_order(here: Run, tmp_path: Path, count: int) -> None:
    write_users(tmp_path / "users.csv", count, lambda number: number % 2 == 0)
    out = here("--users", "users.csv").stdout
    assert listed(out, "inserted") == list(range(1, count + 1, 2))
    assert listed(out, "rejected") == list(range(2, count + 1, 2))
    assert [int(number) for _, _, number, _ in RECORD.findall(out)] == list(range(1, count + 1))


@pytest.mark.parametrize("arguments", [(), ("--batch-size", "1"), ("--batch-size", "20"), ("--batch-size", "999")],
                         ids=["default", "1", "20", "999"])
@pytest.mark.parametrize(("count", "every"), [(1001, 200), (1500, 1), (1200, 1200)])
def test_of_more_than_1000_the_first_5_rejected_are_listed(here: Run, tmp_path: Path, count: int, every: int,
                                                           arguments: tuple[str, ...]) -> None:
    write_users(tmp_path / "users.csv", count, lambda number: number % every == 0)
    out = here("--users", "users.csv", *arguments).stdout
    assert listed(out, "inserted") == []
    assert re.findall(r"users\.csv:(\d+): name: is blank \[blank\]", out) == [str(number + 1)
                                                                              for number in range(every, count + 1,
                                                                                                  every)][:5]


def test_the_limits_are_those_of_each_model(here: Run, tmp_path: Path) -> None:
    write_users(tmp_path / "users.csv", 1001, lambda number: number > 30)
    write_products(tmp_path / "products.csv", 1000, lambda number: number % 2 == 0)
    out = here("--users", "users.csv", "--products", "products.csv").stdout
    assert re.findall(r"users\.csv:(\d+): name:", out) == ["32", "33", "34", "35", "36"]
    assert re.findall(r"products\.csv:(\d+): price:", out) == list(map(str, range(3, 1002, 2)))
    assert listed(out, "inserted") == list(range(1, 1001, 2))


@pytest.mark.parametrize("arguments", [("-v",), ("-v", "--batch-size", "1"), ("--json",)], ids=" ".join)
def test_verbose_and_json_have_no_limit(here: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    write_users(tmp_path / "users.csv", 2000, lambda number: number % 2 == 0)
    out = here("--users", "users.csv", *arguments).stdout
    if "--json" in arguments:
        assert [json.loads(line)["id"] for line in out.splitlines()[:-1]] == list(range(1, 2001))
    else:
        assert [listed(out, verdict) for verdict in ("inserted", "rejected")] == [list(range(1, 2001, 2)),
                                                                                  list(range(2, 2001, 2))]


@pytest.mark.parametrize("arguments", [(), ("--json",), ("-v",), ("--json", "--batch-size", "50"),
                                       ("--batch-size", "9")], ids=" ".join)
def test_records_are_grouped_by_model_in_input_order_whatever_finishes_first(here: Run, tmp_path: Path,
                                                                             arguments: tuple[str, ...]) -> None:
    write_users(tmp_path / "users.csv", 40)
    write_products(tmp_path / "products.csv", 600)
    write_orders(tmp_path / "orders.csv", 600)
    out = here(*ALL, *arguments).stdout
    if "--json" in arguments:           # of users and products, whose loads run side by side, each in its order
        lines = [json.loads(line) for line in out.splitlines()[:-1]]
        by_model = [[line["id"] for line in lines if line["model"] == model] for model in MODELS]
        assert by_model == [list(range(1, 41)), list(range(1, 601)), list(range(1, 601))]
        assert {line["model"] for line in lines[640:]} == {"orders"}
    else:
        assert listed(out, "inserted") == [*range(1, 41), *range(1, 601), *range(1, 601)]
        assert [out.index(f"{model}.db") for model in MODELS] == sorted(out.index(f"{model}.db") for model in MODELS)


def test_quiet_prints_the_summary_only(here: Run, tmp_path: Path) -> None:
    write_users(tmp_path / "users.csv", 30, lambda number: number % 3 == 0)
    out = here("--users", "users.csv", "-q").stdout
    assert not RECORD.search(out) and "users.csv:" not in out
    assert {name: table(out)["users.db"][name] for name in ("read", "inserted", "rejected")} == {"read": "30",
                                                                                                 "inserted": "20",
                                                                                                 "rejected": "10"}
    assert json.loads(here("--users", "users.csv", "-q", "--json").stdout)["summary"]["users"]["unchanged"] == 20


# -------------------------------------------------------------------------------------------------- Lines of text


def test_a_rejected_record_reads_as_in_the_specification(here: Run, tmp_path: Path) -> None:
    write_users(tmp_path / "users.csv", 8)
    write_products(tmp_path / "products.csv", 1)
    write_orders(tmp_path / "orders.csv", 79, lambda number: 9 if number == 73 else 1)
    out = here(*ALL).stdout
    assert [line.strip() for line in out.splitlines() if "[no_such" in line] == [
        "orders.csv:74: user_id: 9 is not in users.db [no_such_reference]"]


@pytest.mark.parametrize(("row", "words"), [
    ("1,,a@example.com", "users.csv:2: name: is blank [blank]"),
    ("x,Ann,a@example.com", 'users.csv:2: id: "x" is not a whole number', ),
    ("0,Ann,a@example.com", "users.csv:2: id: 0 is not greater than 0 [not_positive]"),
    ("1,Ann,nobody", 'users.csv:2: email: "nobody" is not '),
    ("9223372036854775808,Ann,a@example.com", "users.csv:2: id: 9223372036854775808 is "), ("1,2", "users.csv:2: "),
    ('1,"A"nn,a@example.com', "users.csv:2: ")])
def test_every_rejection_says_where_which_field_which_value_and_why(here: Run, tmp_path: Path, row: str,
                                                                    words: str) -> None:
    (tmp_path / "users.csv").write_text(f"id,name,email\n{row}\n", encoding="utf-8")
    out = " ".join(here("--users", "users.csv").stdout.split())
    assert words in out
    assert re.search(r"\[\w+\]", out[out.index(words):])


def test_a_record_is_listed_with_its_fields_and_all_its_problems_below_it(here: Run, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("id,name,email\nx,,y\n1,Ann,ann@example.com\n", encoding="utf-8")
    out = here("--users", "users.csv").stdout
    first, second = RECORD.finditer(out)
    assert second[2] == "inserted" and "Ann" in second[4] and "ann@example.com" in second[4]
    assert re.findall(r"\[(\w+)\]", out[first.end():second.start()]) == ["not_integer", "blank", "not_email"]


def test_a_json_array_is_located_by_line_and_item(here: Run, tmp_path: Path) -> None:
    (tmp_path / "users").write_text('[{"id": 1, "name": "A", "email": "a@example.com"},\n\n{"id": 2}]',
                                    encoding="utf-8")
    lines = list(map(json.loads, here("--users", "users", "--json").stdout.splitlines()))[:-1]
    assert [(line["item"], line["line"], line["id"]) for line in lines] == [(1, 1, 1), (2, 3, 2)]


def test_each_verdict_has_a_mark_of_its_own(here: Run, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("id,name,email\n1,A,a@example.com\n2,B,b@example.com\n", encoding="utf-8")
    here("--users", "users.csv")
    (tmp_path / "users.csv").write_text("id,name,email\n1,A,a@example.com\n2,X,b@example.com\n"
                                        "3,C,c@example.com\n4,,d@example.com\n", encoding="utf-8")
    write_products(tmp_path / "products.csv", 1)
    (tmp_path / "products.db").write_bytes(b"no database" * 100)
    out = here("--users", "users.csv", "--products", "products.csv", "--replace").stdout
    marks = {(mark, verdict) for mark, verdict, _, _ in RECORD.findall(out)}
    assert sorted(verdict for _, verdict in marks) == sorted(VERDICTS)
    assert len({mark for mark, _ in marks}) == 5


# ------------------------------------------------------------------------------------ The table, why, totals, next step


def test_the_table_has_a_row_a_database_and_adds_up(here: Run, tmp_path: Path) -> None:
    write_users(tmp_path / "users.csv", 2500, lambda number: number % 5 == 0)
    write_products(tmp_path / "products.csv", 3)
    out = here("--users", "users.csv", "--products", "products.csv").stdout
    found = table(out)
    assert list(found) == ["users.db", "products.db"]
    assert list(found["users.db"])[:3] == ["database", "read", "inserted"] and list(found["users.db"])[-1] == "seconds"
    assert found["users.db"] == {**found["users.db"], "read": "2,500", "inserted": "2,000", "unchanged": "0",
                                 "rejected": "500", "failed": "0"}
    assert [name for name in found["users.db"] if name in VERDICTS] == [name for name in VERDICTS
                                                                        if name in found["users.db"]]
    assert float(found["users.db"]["seconds"]) >= 0
    assert out.count("database  ") == 1


def test_the_totals_of_the_sample_are_one_line_of_the_specification(here: Run) -> None:
    out = here().stdout
    assert re.search(r"(?m)^30 records: 22 inserted, 8 rejected, in \d transactions by 3 insert workers, "
                     r"30 threads, \d+\.\d\d s$", out)
    assert len(TOTALS.findall(out)) == 1
    again = here().stdout
    assert numbered(again) == {"unchanged": 22, "rejected": 8}


@pytest.mark.parametrize("arguments", [(), ("--batch-size", "1"), ("--batch-size", "100")], ids=["default", "1", "100"])
def test_the_totals_count_records_workers_and_threads(here: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    write_users(tmp_path / "users.csv", 1500, lambda number: number % 100 == 0)
    write_products(tmp_path / "products.csv", 20)
    total = TOTALS.search(out := here("--users", "users.csv", "--products", "products.csv", *arguments).stdout)
    assert (total[1], total[4]) == ("1,520", "2")
    assert numbered(out) == {"inserted": 1505, "rejected": 15}
    if arguments == ("--batch-size", "1"):
        assert total[5] == "1,520"
    if arguments == ("--batch-size", "100"):
        assert total[5] in ("16", "35")         # 20 products, in batches too or in threads of their own
    assert int(total[3].replace(",", "")) >= 2


def test_one_is_not_plural(here: Run, tmp_path: Path) -> None:
    write_users(tmp_path / "users.csv", 1)
    assert re.search(r"(?m)^1 record: 1 inserted, in 1 transaction by 1 insert worker, 1 thread, ",
                     here("--users", "users.csv").stdout)


def test_why_counts_rejected_records_by_field_and_code_those_of_rejected_parents_apart(here: Run,
                                                                                       tmp_path: Path) -> None:
    write_users(tmp_path / "users.csv", 2000, lambda number: number % 4 == 0)           # 500 rejected
    write_products(tmp_path / "products.csv", 7)
    write_orders(tmp_path / "orders.csv", 1200, lambda number: 4 if number <= 77 else 9999 if number <= 100 else 1)
    out = here(*ALL).stdout
    why = after_table(out)[:TOTALS.search(after_table(out)).start()]
    assert "why" in why
    counts = {tuple(re.findall(r"[a-z_]+", line)): int(line.split()[-1].replace(",", "")) for line in why.splitlines()
              if line[-1:].isdigit()}
    assert [count for words, count in counts.items() if {"name", "blank"} <= set(words)] == [500]
    assert [count for words, count in counts.items() if {"user_id", "no_such_reference"} <= set(words)] == [23]
    assert [count for words, count in counts.items() if {"rejected", "parent"} <= set(words)] == [77]
    assert len(counts) == 3


def test_a_load_without_rejections_has_no_why(here: Run, tmp_path: Path) -> None:
    write_users(tmp_path / "users.csv", 3)
    out = here("--users", "users.csv").stdout
    assert not re.search(r"\bwhy\b", out, re.IGNORECASE)
    assert TOTALS.search(out)


def test_the_next_step_after_the_sample_is_a_command(run: Run) -> None:
    assert "--users" in commands(after_table(run().stdout))[0]


# ------------------------------------------------------------------------------------------------------- Escapes

NASTY = {"escape": "\x1b[31mred\x1b[0m", "title": "\x1b]0;owned\x07", "carriage return": "a\rb", "backspace": "a\b\bb",
         "C1": "a\x9b31m", "bidi": "a\u202eb",
         "isolate": "a\u2066b", "line separator": "a\u2028b", "private use": "a\ue000b", "BOM inside": "a\ufeffb",
         "tag": "a\U000e0041b",
         "NEL": "a\x85b", "long": "x" * 100_000, "newlines": "a\nb\nc", "zero width": "a\u200bb"}


@pytest.mark.parametrize("value", NASTY.values(), ids=NASTY)
@pytest.mark.parametrize("arguments", [(), ("-v",), ("--json",), ("--verify",)], ids=["text", "-v", "json", "verify"])
def test_no_control_character_of_the_data_reaches_the_output(here: Run, tmp_path: Path, value: str,
                                                             arguments: tuple[str, ...]) -> None:
    lines = [{"id": value, "name": value, "email": value}, {"id": 1, "name": value, "email": "a@example.com", value: 1},
             {"id": 2, "name": value, "email": f"{value}@example.com"}, value, [value],
             {"id": [value], "name": {value: value}, "email": None}]
    (tmp_path / "users").write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines),
                                    encoding="utf-8")
    if arguments == ("--verify",):
        here("-q")
        with closing(sqlite3.connect(tmp_path / "users.db")) as connection, connection:
            connection.execute("INSERT INTO users VALUES (50, ?, ?)", (value, f"{value}@example.com"))
        result = here("--verify")
    else:
        result = here("--users", "users", *arguments)
    assert result.returncode in (0, 1) and result.stdout
    assert not UNSAFE.search(result.stdout), UNSAFE.search(result.stdout)
    assert not UNSAFE.search(result.stderr), UNSAFE.search(result.stderr)
    if arguments != ("--json",):
        assert max(map(len, result.stdout.splitlines())) < 500


def test_values_are_cut_in_text_and_the_cut_shows(here: Run, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text(f"id,name,email\n1,{'n' * 5000},{'e' * 5000}\n", encoding="utf-8")
    out = here("--users", "users.csv").stdout
    assert re.search(r"n{10}(…|\.\.\.)", out) and re.search(r"e{10}(…|\.\.\.)", out)
    assert "n" * 200 not in out


# ------------------------------------------------------------------------------------------------- JSON lines


def test_the_lines_of_json_are_exactly_the_specifications(here: Run, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text(
        'id,name,email\n1,Ann,ann@example.com\n2,"two\nlines",b@example.com\nx,Cat,Ann@example.com\n1,2\n',
        encoding="utf-8")
    out = here("--users", "users.csv", "--json").stdout
    *lines, last = map(json.loads, out.splitlines())
    assert lines[0] == {"model": "users", "source": "users.csv", "line": 2, "id": 1, "verdict": "inserted",
                        "problems": []}
    assert [list(line) for line in lines] == [["model", "source", "line", "id", "verdict", "problems"]] * 4
    assert [line["line"] for line in lines] == [2, 3, 5, 6]
    assert [[(each["field"], each["code"]) for each in line["problems"]] for line in lines] == [
        [], [("name", "bad_text")], [("id", "not_integer"), ("email", "not_unique")],
        [(lines[3]["problems"][0]["field"], "malformed")]]
    assert all(list(each) == ["field", "code", "message"] and each["message"] for line in lines
               for each in line["problems"])
    assert [line["id"] for line in lines[:2]] == [1, 2]
    seconds = last["summary"]["users"].pop("seconds")
    assert isinstance(seconds, float) and seconds >= 0
    problems = last["summary"]["users"].pop("problems")
    assert {name.strip(): count for name, count in problems.items() if "malformed" not in name} == {
        "name bad_text": 1, "id not_integer": 1, "email not_unique": 1}
    assert sum(problems.values()) == 4
    assert last == {"summary": {"users": {"database": "users.db", "read": 4, "inserted": 1, "replaced": 0,
                                          "unchanged": 0, "rejected": 3, "failed": 0}},
                    "exit_status": 1}
    assert list(last) == ["summary", "exit_status"]


def test_the_summary_has_a_part_for_every_model_in_order_with_the_keys_in_order(here: Run) -> None:
    summary = json.loads(here("--json", "-q").stdout)
    assert list(summary["summary"]) == list(MODELS)
    assert [list(counts) for counts in summary["summary"].values()] == [["database", "read", *VERDICTS, "seconds",
                                                                         "problems"]] * 3
    problems = [counts["problems"] for counts in summary["summary"].values()]
    assert problems[:2] == [{"email not_unique": 1, "name blank": 1}, {"name not_unique": 1, "price not_positive": 1}]
    assert problems[2]["quantity not_positive"] == 2 and problems[2]["user_id no_such_reference"] == 2
    assert summary["exit_status"] == 0


def test_the_summary_says_what_cut_the_reading_off(here: Run, tmp_path: Path) -> None:
    (tmp_path / "users").write_text('[{"id": 1, "name": "A", "email": "a@example.com"},\n{"id": 2, ]', encoding="utf-8")
    result = here("--users", "users", "--json")
    summary = json.loads(result.stdout.splitlines()[-1])
    cut = summary.get("cut") or summary["summary"]["users"].get("cut")
    assert isinstance(cut, str) and "users" in cut
    assert result.returncode == summary["exit_status"] == 3
    write_users(tmp_path / "users", 3)
    assert "cut" not in here("--users", "users", "--json", "--db", "other").stdout


def test_a_failed_record_says_so_in_json_with_the_reason(here: Run, tmp_path: Path) -> None:
    write_users(tmp_path / "users.csv", 2)
    (tmp_path / "users.db").write_bytes(b"no database" * 100)
    *lines, last = map(json.loads, here("--users", "users.csv", "--json").stdout.splitlines())
    assert [(line["id"], line["verdict"], line["problems"]) for line in lines] == [(1, "failed", []), (2, "failed", [])]
    assert all("users.db" in line["reason"] for line in lines)
    assert last["exit_status"] == 3


def test_the_source_of_the_sample_is_sample(here: Run) -> None:
    *lines, _ = map(json.loads, here("--json").stdout.splitlines())
    assert {line["source"] for line in lines} == {"sample"}
    assert [(line["model"], line["line"]) for line in lines if line["model"] == "orders"] == [("orders", number)
                                                                                              for number in range(1,
                                                                                                  11)]


# ------------------------------------------------------------------------------ Terminals: colour, wrapping, the bar


class Terminal:
    """A program whose output and error are pseudo-terminals of a width; what it writes there is collected."""

    def __init__(self, folder: Path, *arguments: object, stdin: int | None = None, out: bool = True, err: bool = True,
                 columns: int = 80,
                 patch: str = "", **environment: str) -> None:
        pty = pytest.importorskip("pty", reason="no pseudo-terminals here")
        import fcntl
        import termios
        self.texts = {"out": b"", "err": b""}
        self._masters: dict[int, str] = {}
        ends = {}
        for name, wanted in (("out", out), ("err", err)):
            master, ends[name] = pty.openpty() if wanted else os.pipe()
            if wanted:
                fcntl.ioctl(ends[name], termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
            self._masters[master] = name
        clean = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "TERM", "FORCE_COLOR",
                                                                                "COLUMNS")}
        start = ["-c", LAUNCH, str(PROGRAM), patch] if patch else [str(PROGRAM)]
        self.process = subprocess.Popen([sys.executable, *start, *map(str, arguments)], cwd=folder,
                                        stdin=stdin or subprocess.DEVNULL,
                                        stdout=ends["out"], stderr=ends["err"],
                                        env={**clean, "TERM": "xterm", **environment})
        for end in ends.values():
            os.close(end)

    def read(self, until: Callable[[], object] = lambda: False) -> None:
        """Collect output until a condition holds or the program has closed all of it."""
        deadline = time.monotonic() + TIMEOUT_S
        while self._masters and not until():
            assert time.monotonic() < deadline, self.texts
            for master in select.select(list(self._masters), [], [], 1)[0]:
                try:
                    text = os.read(master, 65536)
                except OSError:             # Linux says EIO where the other end of a terminal is closed
                    text = b""
                self.texts[self._masters[master]] += text
                if not text:
                    os.close(master)
                    del self._masters[master]

    def read_bar(self, pattern: str) -> None:
        """Collect output until the bar has shown this."""
        self.read(until=lambda: re.search(pattern, self.texts["err"].decode("utf-8", "replace")))
        assert re.search(pattern, self.texts["err"].decode("utf-8", "replace")), self.texts

    def finish(self) -> tuple[int, str, str]:
        """Return the exit status, the output and the error."""
        try:
            self.read()
            status = self.process.wait(TIMEOUT_S)
        finally:
            self.process.kill()
            for master in self._masters:
                os.close(master)
        return status, *(text.decode("utf-8").replace("\r\n", "\n") for text in self.texts.values())


def plain(text: str) -> str:
    """Return text without colour and the like."""
    return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", text)


def frames(err: str) -> list[str]:
    """Return what the bar showed, one picture after the other."""
    return [text for text in map(str.rstrip, re.split(r"[\r\n]+", plain(err))) if text]


def test_a_terminal_gets_colour(tmp_path: Path) -> None:
    status, out, _ = Terminal(tmp_path, columns=120).finish()
    assert status == 0
    assert re.search(r"\x1b\[[\d;]*m", out)
    coloured = {verdict: [line for line in out.splitlines() if f" {verdict} " in plain(line)
                          and RECORD.match(plain(line))]
                for verdict in ("inserted", "rejected")}
    assert list(map(len, coloured.values())) == [22, 8]
    colours = {verdict: {re.search(r"\x1b\[([\d;]+)m", line)[1] if "\x1b" in line else "" for line in lines}
               for verdict, lines in coloured.items()}
    assert len(colours["rejected"]) == 1 and colours["rejected"] != {""} and colours["rejected"].isdisjoint(
        colours["inserted"])
    assert not re.search(r"\x1b(?!\[[\d;]*m)", out)
    assert len(re.findall(r"\x1b\[0?m", out)) * 2 == out.count("\x1b[")


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["colour", "NO_COLOR", "dumb"])
def test_the_table_colours_counts_of_rejected_and_failed_that_are_not_0(tmp_path: Path,
                                                                        environment: dict[str, str]) -> None:
    write_users(tmp_path / "users.csv", 1200, lambda number: number <= 1100)
    write_products(tmp_path / "products.csv", 3)
    (tmp_path / "orders.csv").write_text("id,user_id,product_id,quantity\n1,1,1,0\n2,1150,2,2\n", encoding="utf-8")
    (tmp_path / "orders.db").write_bytes(b"no database" * 100)
    status, out, _ = Terminal(tmp_path, *ALL, columns=120, **environment).finish()
    assert status == 3
    lines = out.splitlines()
    start = next(number for number, line in enumerate(lines) if plain(line).startswith("database "))
    rows = dict(zip(MODELS, lines[start + 1:start + 4]))
    assert len({len(plain(line)) for line in lines[start:start + 4]}) == 1                 # still in columns
    assert table(plain(out))["users.db"]["rejected"] == "1,100" and table(plain(out))["orders.db"]["failed"] == "1"
    coloured = {model: re.findall(r"\x1b\[([\d;]+)m *([\d,]+)\x1b\[0?m", row) for model, row in rows.items()}
    marks = dict(re.findall(r"\x1b\[([\d;]+)m\S (rejected|failed) ", out))
    colours = {verdict: colour for colour, verdict in marks.items()}
    assert coloured == ({model: [] for model in MODELS} if environment else {
        "users": [(colours["rejected"], "1,100")], "products": [],
        "orders": [(colours["rejected"], "1"), (colours["failed"], "1")]})
    assert not environment or "\x1b[3" not in out


def test_colour_is_all_that_a_terminal_gets_more(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    _, coloured, _ = Terminal(tmp_path).finish()
    _, uncoloured, _ = Terminal(tmp_path / "other", NO_COLOR="1").finish()
    assert [re.sub(r"[\d.]+( s)?$", "", line) for line in plain(coloured).splitlines()] == [
        re.sub(r"[\d.]+( s)?$", "", line) for line in uncoloured.splitlines()]


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"NO_COLOR": "yes", "TERM": "xterm-256color"},
                                         {"TERM": "dumb"}, {"NO_COLOR": "0"},
                                         {"TERM": "dumb", "COLORTERM": "truecolor", "CLICOLOR_FORCE": "1"}], ids=str)
def test_a_terminal_without_colour_gets_none(tmp_path: Path, environment: dict[str, str]) -> None:
    write_users(tmp_path / "users.csv", 1500, lambda number: number % 3 == 0)
    for arguments in ((), ("--users", "users.csv", "--db", "db")):
        status, out, err = Terminal(tmp_path, *arguments, **environment).finish()
        assert status in (0, 1)
        assert not re.search(r"\x1b\[[\d;]*m", out + err)
        if environment.get("TERM") == "dumb":
            assert "\x1b" not in out + err


@pytest.mark.parametrize("arguments", [(), ("--json",), ("-q",), ("-v",)], ids=["text", "json", "-q", "-v"])
def test_a_pipe_gets_no_colour(run: Run, arguments: tuple[str, ...]) -> None:
    result = run(*arguments, NO_COLOR="", TERM="xterm-256color", COLORTERM="truecolor")
    assert "\x1b" not in result.stdout + result.stderr


def test_json_has_no_colour_on_a_terminal_either(tmp_path: Path) -> None:
    _, out, _ = Terminal(tmp_path, "--json").finish()
    assert [json.loads(line) for line in out.splitlines()][-1]["exit_status"] == 0


@pytest.mark.parametrize("columns", [80, 120])
def test_lines_wrap_at_words(tmp_path: Path, columns: int) -> None:
    folder = "a folder with a name of some length"
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "users.csv").write_text(
        "id,name,email\n1,Ann,ann@example.com\n1,A long name indeed,another.ann@example.com\n"
                                                 "2,Ben,ANN@Example.com\n3,,nobody at all\n", encoding="utf-8")
    status, out, _ = Terminal(tmp_path, "--users", f"{folder}/users.csv", "--db", folder, columns=columns).finish()
    assert status == 1
    _, unwrapped, _ = Terminal(tmp_path, "--users", f"{folder}/users.csv", "--db", "other", columns=1000).finish()
    lines = plain(out).splitlines()
    shown = [line for line in lines if "python" not in line and not TOTALS.match(
        line)]      # a command has to run as printed
    assert max(map(len, shown)) <= columns
    words = " ".join(plain(unwrapped).split())
    for message in re.findall(r"users\.csv:\d+: .*?\[\w+\]", words):
        assert message in " ".join(plain(out).split())


# The bar is looked at while the insert worker is held where its 5th transaction begins, until there is a file "go".
HELD = SMALL_GROUPS + """
real_begin, begun = program.SqliteTable.begin, 0
def begin(self, *arguments):
    global begun
    begun += 1
    end = time.monotonic() + 60
    while begun == 5 and not os.path.exists("go") and time.monotonic() < end:
        open("waiting", "w").close()
        time.sleep(0.005)
    return real_begin(self, *arguments)
program.SqliteTable.begin = begin
"""


def test_a_terminal_sees_the_progress_of_a_long_load(tmp_path: Path) -> None:
    write_users(tmp_path / "users.csv", 3000, lambda number: number % 7 == 0)
    terminal = Terminal(tmp_path, "--users", "users.csv", "--batch-size", "1", patch=HELD)
    terminal.read_bar(r"%[^\r]*/s[^\r]*left[^\r]*rejected")
    terminal.read(until=(tmp_path / "waiting").exists)
    assert (tmp_path / "waiting").exists()
    (tmp_path / "go").touch()
    status, out, err = terminal.finish()
    assert status == 1
    shown = [text for text in frames(err) if "%" in text]
    assert shown
    for text in shown:
        assert len(text) <= 70, text
        assert re.search(r"\b\d+ ?%", text) and re.search(r"\d[\d,]*", text)
    assert "%" not in out and "\r" not in out
    assert not plain(err.rpartition("\r")[2]).strip()             # it is taken away at the end


def test_the_bar_shows_even_where_standard_output_is_a_pipe(tmp_path: Path) -> None:
    write_users(tmp_path / "users.csv", 1000)
    terminal = Terminal(tmp_path, "--users", "users.csv", "--batch-size", "1", "--json", out=False, patch=HELD)
    terminal.read_bar("%[^\r]*/s")
    (tmp_path / "go").touch()
    _, out, _ = terminal.finish()
    assert [json.loads(line) for line in out.splitlines()][-1]["summary"]["users"]["inserted"] == 1000


@pytest.mark.parametrize("arguments", [(), ("-q",)], ids=["pipe", "quiet terminal"])
def test_without_a_terminal_or_quietly_there_is_no_bar(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    write_users(tmp_path / "users.csv", 1000)
    terminal = Terminal(tmp_path, "--users", "users.csv", "--batch-size", "1", *arguments, err=bool(arguments),
                        patch=HELD)
    wait_until((tmp_path / "waiting").exists)
    terminal.read(until=lambda end=time.monotonic() + 1.5: time.monotonic(
        ) > end)      # longer than a bar needs to show
    (tmp_path / "go").touch()
    status, _, err = terminal.finish()
    assert (status, err) == (0, "")


def test_the_bar_of_a_pipe_counts_without_a_share(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    terminal = Terminal(tmp_path, "--users", "-", "-v", stdin=reader)
    os.close(reader)
    stop = threading.Event()

    def feed() -> None:
        number = 0
        try:
            os.write(writer, b"id,name,email\n")
            while not stop.is_set() and number < 10**6:
                os.write(writer, b"".join(b"%d,User,u%d@example.com\n" % (n, n)
                                          for n in range(number + 1, number + 1001)))
                number += 1000
                time.sleep(0.05)
        except OSError:
            pass
        finally:
            os.close(writer)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        terminal.read_bar("rows[^\r]*/s")
    finally:
        stop.set()
        status, _, err = terminal.finish()
        feeder.join(TIMEOUT_S)
    assert status == 0
    shown = [text for text in frames(err) if "/s" in text]
    assert shown and not any("%" in text or "left" in text for text in shown)
    assert max(map(len, shown)) <= 70


@pytest.mark.parametrize("columns", [70, 120])
def test_the_bar_names_a_database_that_is_waited_for(tmp_path: Path, columns: int) -> None:
    write_users(tmp_path / "users.csv", 5)
    subprocess.run([sys.executable, str(PROGRAM), "--users", "users.csv", "-q"], cwd=tmp_path, timeout=TIMEOUT_S,
                   check=True, stdout=subprocess.DEVNULL)
    with locked(tmp_path / "users.db") as release:
        terminal = Terminal(tmp_path, "--users", "users.csv", columns=columns)
        terminal.read_bar(r"users\.db is locked by another program: [12] of 30 s")
        release()
        status, _, err = terminal.finish()
    assert status == 0
    told = [text for text in frames(err) if "locked" in text]
    assert told and max(map(len, told)) <= 70
    assert not plain(err.rpartition("\r")[2]).strip()


def test_verify_has_the_bar_too(tmp_path: Path) -> None:
    write_users(tmp_path / "users.csv", 12_000)
    subprocess.run([sys.executable, str(PROGRAM), "--users", "users.csv", "-q"], cwd=tmp_path, timeout=TIMEOUT_S,
                   check=True, stdout=subprocess.DEVNULL)
    slow = """
real_scan = program.SqliteTable.scan
def scan(self, *arguments):
    for part in real_scan(self, *arguments):
        time.sleep(0 if os.path.exists("go") else 0.2)
        yield part
program.SqliteTable.scan = scan
"""
    terminal = Terminal(tmp_path, "--verify", patch=slow)
    terminal.read_bar("rows[^\r]*/s")
    (tmp_path / "go").touch()
    status, out, err = terminal.finish()
    assert status == 0 and "%" not in out
    assert max(map(len, frames(err))) <= 70


# -------------------------------------------------------------------------------- Terminals that cannot show everything


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"},
                                         {"PYTHONIOENCODING": "cp437"},
                                         {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
                                         {"LC_ALL": "POSIX", "PYTHONUTF8": "0"}], ids=str)
@pytest.mark.parametrize("arguments", [(), ("--json",)], ids=["text", "json"])
def test_an_encoding_that_lacks_characters_loses_no_line(tmp_path: Path, environment: dict[str, str],
                                                         arguments: tuple[str, ...]) -> None:
    text = "id,name,email\n1,李雷 🦜,li@例子.广告\n2,Ω,nobody\n3,\udcff\n"
    (tmp_path / "Üsers.csv").write_text(text, encoding="utf-8", errors="surrogateescape")
    result = subprocess.run([sys.executable, str(PROGRAM), "--users", "Üsers.csv", *arguments], cwd=tmp_path,
                            capture_output=True, timeout=TIMEOUT_S,
                            env={**os.environ, "NO_COLOR": "1", **environment})
    assert result.returncode == 1
    assert b"Traceback" not in result.stderr + result.stdout
    assert result.stdout.count(b"inserted") >= 1 and result.stdout.count(b"rejected") >= 2


def test_an_ascii_terminal_gets_marks_that_it_can_show(run: Run) -> None:
    out = run(PYTHONIOENCODING="ascii").stdout
    marks = {verdict: mark for mark, verdict, _, _ in RECORD.findall(out)}
    assert len(set(marks.values())) == 2 == len(marks)
    assert "\\u" not in out and "?" not in marks.values()


def test_random_sizes_of_models_and_batches_keep_the_report_whole(here: Run, tmp_path: Path) -> None:
    chance = random.Random(3)
    for number in range(6):
        counts = [chance.choice((0, 1, 30, 200, 1001)) for _ in range(2)]
        write_users(tmp_path / "users.csv", counts[0])
        write_products(tmp_path / "products.csv", counts[1])
        out = here("--users", "users.csv", "--products", "products.csv", "--db", number, "--batch-size",
                   chance.choice((1, 7, 500)), "--json").stdout
        lines = [json.loads(line) for line in out.splitlines()]
        for model, count in (("users", counts[0]), ("products", counts[1])):
            assert [line["line"] for line in lines[:-1] if line["model"] == model] == list(range(2, count + 2))
