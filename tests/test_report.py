"""What is printed: lists and their limits, marks, escapes, colour, the progress bar, and the lines of JSON."""
from __future__ import annotations

import json
import os
import random
import re
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import PROGRAM, Run, TIMEOUT_S, write_users

VERDICTS = ("inserted", "unchanged", "rejected", "failed")
UNSAFE = re.compile(r"[^\x20-\x7e\n\u00a1-\ud7ff\uf900-\U000e0000]|[\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


def listed(text: str, verdict: str) -> list[int]:
    """Return the ids of the records listed with a verdict."""
    return [int(number) for number in re.findall(rf"(?m)^  \S {verdict} +(\d+)\b", text)]


# ------------------------------------------------------------------------------------------------- Lists and limits


@pytest.mark.parametrize("count", [1, 999, 1000])
def test_up_to_1000_records_of_a_model_are_all_listed_in_input_order(here: Run, tmp_path: Path, count: int) -> None:
    write_users(tmp_path / "users.csv", count, lambda number: number % 2 == 0)
    out = here("--users", "users.csv").stdout
    assert listed(out, "inserted") == list(range(1, count + 1, 2))
    assert listed(out, "rejected") == list(range(2, count + 1, 2))
    numbers = [int(number) for number in re.findall(r"(?m)^  \S (?:inserted|rejected) +(\d+)", out)]
    assert numbers == list(range(1, count + 1))
    assert "more" not in out.partition("\ndatabase ")[0]


@pytest.mark.parametrize("arguments", [(), ("--batch-size", "1"), ("--batch-size", "20"), ("--batch-size", "999")],
                         ids=["default", "1", "20", "999"])
@pytest.mark.parametrize(("count", "every"), [(1001, 2), (1001, 40), (1500, 60), (3000, 1), (1020, 51), (2000, 2000)])
def test_of_more_than_1000_the_first_20_refused_are_listed_and_the_rest_counted(here: Run, tmp_path: Path, count: int, every: int,
                                                                               arguments: tuple[str, ...]) -> None:
    write_users(tmp_path / "users.csv", count, lambda number: number % every == 0)
    out = here("--users", "users.csv", *arguments).stdout
    bad = list(range(every, count + 1, every))
    assert listed(out, "inserted") == []
    assert listed(out, "rejected") == bad[:20]
    assert re.findall(r"([\d,]+) more", out) == ([f"{len(bad) - 20:,}"] if len(bad) > 20 else [])


def test_the_limits_are_those_of_each_model(here: Run, tmp_path: Path) -> None:
    write_users(tmp_path / "users.csv", 1001, lambda number: number > 30)
    (tmp_path / "products.csv").write_text("id,name,price\n" + "".join(f"{number},P{number},{number % 2}\n" for number in range(1, 1001)), encoding="utf-8")
    out = here("--users", "users.csv", "--products", "products.csv").stdout
    users, products = out.partition("\nproducts.db")[::2]
    assert listed(users, "rejected") == list(range(31, 51))
    assert "951 more" in users
    assert listed(products, "inserted") == list(range(1, 1001, 2))
    assert listed(products, "rejected") == list(range(2, 1001, 2))


@pytest.mark.parametrize("arguments", [("-v",), ("-v", "--batch-size", "1"), ("--json",)], ids=" ".join)
def test_verbose_and_json_have_no_limit(here: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    write_users(tmp_path / "users.csv", 2000, lambda number: number % 2 == 0)
    out = here("--users", "users.csv", *arguments).stdout
    if "--json" in arguments:
        assert [json.loads(line)["id"] for line in out.splitlines()[:-1]] == list(range(1, 2001))
    else:
        assert (len(listed(out, "inserted")), len(listed(out, "rejected"))) == (1000, 1000)


def test_the_records_of_each_model_are_listed_together_in_input_order_whatever_finishes_first(here: Run, tmp_path: Path) -> None:
    write_users(tmp_path / "users.csv", 40)
    (tmp_path / "products.csv").write_text("id,name,price\n" + "".join(f"{number},P{number},1\n" for number in range(1, 601)), encoding="utf-8")
    (tmp_path / "orders.csv").write_text("id,user_id,product_id,quantity\n" + "".join(
        f"{number},1,{number},1\n" for number in range(1, 601)), encoding="utf-8")
    for number, arguments in enumerate([("--json",), ("-v",), ("--json", "--batch-size", "50"), ("-v", "--batch-size", "9")]):
        out = here("--users", "users.csv", "--products", "products.csv", "--orders", "orders.csv", "--db-dir", number, *arguments).stdout
        if "-v" in arguments:
            found = [int(number) for number in re.findall(r"(?m)^  \S inserted +(\d+)", out)]
            assert found == [*range(1, 41), *range(1, 601), *range(1, 601)]
        else:
            lines = [json.loads(line) for line in out.splitlines()[:-1]]
            assert [(line["model"], line["id"]) for line in lines] == [
                *(("users", number) for number in range(1, 41)), *(("products", number) for number in range(1, 601)),
                *(("orders", number) for number in range(1, 601))]


# -------------------------------------------------------------------------------------------------- Lines of text


def test_a_refused_record_reads_as_in_the_contract(here: Run, tmp_path: Path) -> None:
    write_users(tmp_path / "users.csv", 8)
    (tmp_path / "products.csv").write_text("id,name,price\n1,Desk,5\n", encoding="utf-8")
    (tmp_path / "orders.csv").write_text("id,user_id,product_id,quantity\n" + "".join(
        f"{number},{9 if number == 73 else 1},1,1\n" for number in range(1, 80)), encoding="utf-8")
    out = here("--users", "users.csv", "--products", "products.csv", "--orders", "orders.csv").stdout
    assert [line.strip() for line in out.splitlines() if "[" in line] == ["orders.csv:74: user_id: 9 is not in users.db [no_such_reference]"]


@pytest.mark.parametrize(("row", "line"), [
    ("1,,a@example.com", "users.csv:2: name: is blank [blank]"),
    ("x,Ann,a@example.com", 'users.csv:2: id: "x" is not a whole number in the digits 0-9 [not_integer]'),
    ("0,Ann,a@example.com", "users.csv:2: id: 0 is not greater than 0 [not_positive]"),
    ("1,Ann,nobody", 'users.csv:2: email: "nobody" is not an e-mail address [not_email]'),
    ("9223372036854775808,Ann,a@example.com", "users.csv:2: id: 9223372036854775808 is too large"),
    ("1,2", "users.csv:2: 2 cells where the header has 3 [malformed]"),
    ('1,"A"nn,a@example.com', "users.csv:2: not a CSV record"),
])
def test_every_refusal_says_where_which_field_which_value_and_why(here: Run, tmp_path: Path, row: str, line: str) -> None:
    (tmp_path / "users.csv").write_text(f"id,name,email\n{row}\n", encoding="utf-8")
    out = here("--users", "users.csv").stdout
    found = [text.strip() for text in out.splitlines() if text.strip().startswith("users.csv:")]
    assert len(found) == 1
    assert found[0].startswith(line)


def test_all_problems_of_a_record_are_listed_below_it(here: Run, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("id,name,email\nx,,y\n1,Ann,ann@example.com\n", encoding="utf-8")
    lines = here("--users", "users.csv").stdout.splitlines()
    start = next(number for number, line in enumerate(lines) if " rejected " in line)
    assert [re.search(r"\[(\w+)\]$", line)[1] for line in lines[start + 1:start + 4]] == ["not_integer", "blank", "not_email"]
    assert " inserted " in lines[start + 4]


def test_a_json_array_is_located_by_item(here: Run, tmp_path: Path) -> None:
    (tmp_path / "users.json").write_text('[{"id": 1, "name": "A", "email": "a@example.com"},\n\n{"id": 2}]', encoding="utf-8")
    out = here("--users", "users.json", "--json").stdout
    assert [(json.loads(line)["item"], json.loads(line)["id"]) for line in out.splitlines()[:-1]] == [(1, 1), (2, 2)]
    assert "users.json item 2: name: is missing [missing]" in here("--users", "users.json").stdout


def test_each_verdict_has_a_mark_of_its_own(here: Run, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("id,name,email\n1,A,a@example.com\n", encoding="utf-8")
    here("--users", "users.csv")
    (tmp_path / "users.csv").write_text("id,name,email\n1,A,a@example.com\n2,B,b@example.com\n3,,c@example.com\n", encoding="utf-8")
    (tmp_path / "products.csv").write_text("id,name,price\n1,P,1\n", encoding="utf-8")
    (tmp_path / "products.db").write_bytes(b"no database" * 100)
    out = here("--users", "users.csv", "--products", "products.csv").stdout
    marks = dict(re.findall(rf"(?m)^  (\S) ({'|'.join(VERDICTS)}) ", out))
    assert sorted(marks.values()) == sorted(VERDICTS)
    assert len(marks) == 4


def test_the_summary_table_is_last_and_adds_up(here: Run, tmp_path: Path) -> None:
    write_users(tmp_path / "users.csv", 2500, lambda number: number % 5 == 0)
    out = here("--users", "users.csv").stdout
    head, row = next((line, below) for line, below in zip(out.splitlines(), out.splitlines()[1:]) if line.startswith("database"))
    assert head.split() == ["database", "read", *VERDICTS, "seconds"]
    assert row.split()[:6] == ["users.db", "2,500", "2,000", "0", "500", "0"]
    assert float(row.split()[6]) >= 0


@pytest.mark.parametrize(("arguments", "step"), [
    (("--users", "bad.csv"), "--rejects"), (("--users", "bad.csv", "--rejects", "refused"), "refused"), (("-n",), "dry run"), ((), "--users"),
], ids=["rejected", "rejects", "dry run", "sample"])
def test_the_next_step_is_named_where_there_is_one(here: Run, tmp_path: Path, arguments: tuple[str, ...], step: str) -> None:
    (tmp_path / "bad.csv").write_text("id,name,email\n1,,\n", encoding="utf-8")
    assert step in here(*arguments).stdout.rpartition("\ndatabase ")[2]


def test_a_good_load_needs_no_next_step(here: Run, tmp_path: Path) -> None:
    write_users(tmp_path / "users.csv", 3)
    assert here("--users", "users.csv").stdout.splitlines()[-1].startswith("users.db")


def test_extra_columns_are_told_once(here: Run, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("id,note,name,email,\x1b[31m\n" + "".join(f"{n},x,U,u{n}@example.com,y\n" for n in range(1, 30)), encoding="utf-8")
    result = here("--users", "users.csv")
    assert result.returncode == 0
    notices = [line for line in result.stderr.splitlines() if "note" in line]
    assert len(notices) == 1 and "users.csv" in notices[0] and notices[0].isprintable()


# ------------------------------------------------------------------------------------------------------- Escapes

NASTY = {"escape": "\x1b[31mred\x1b[0m", "title": "\x1b]0;owned\x07", "carriage return": "a\rb", "backspace": "a\b\bb", "C1": "a\x9b31m", "bidi": "a\u202eb",
         "isolate": "a\u2066b", "line separator": "a\u2028b", "private use": "a\ue000b", "BOM inside": "a\ufeffb", "tag": "a\U000e0041b",
         "NEL": "a\x85b", "long": "x" * 100_000, "newlines": "a\nb\nc", "soft hyphen": "a\u00adb", "zero width": "a\u200bb"}


@pytest.mark.parametrize("value", NASTY.values(), ids=NASTY)
@pytest.mark.parametrize("arguments", [(), ("-v",), ("--json",), ("--verify",)], ids=["text", "-v", "json", "verify"])
def test_no_control_character_of_the_data_reaches_the_output(here: Run, tmp_path: Path, value: str, arguments: tuple[str, ...]) -> None:
    lines = [{"id": value, "name": value, "email": value}, {"id": 1, "name": value, "email": "a@example.com", value: 1},
             {"id": 2, "name": value, "email": f"{value}@example.com"}, value, [value], {"id": [value], "name": {value: value}, "email": None}]
    (tmp_path / "users.jsonl").write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    result = here("--users", "users.jsonl")
    if arguments:
        result = here(*arguments, *([] if arguments == ("--verify",) else ["--users", "users.jsonl"]))
    assert not UNSAFE.search(result.stdout), UNSAFE.search(result.stdout)
    assert not UNSAFE.search(result.stderr)
    if arguments != ("--json",):
        assert max(map(len, result.stdout.splitlines())) < 500


def test_values_are_cut_in_text_and_the_cut_shows(here: Run, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text(f"id,name,email\n1,{'n' * 5000},{'e' * 5000}\n", encoding="utf-8")
    out = here("--users", "users.csv").stdout
    assert re.search(r"n{20}(…|\.\.\.)", out) and re.search(r"e{20}(…|\.\.\.)", out)
    assert "n" * 200 not in out


# ------------------------------------------------------------------------------------------------- JSON lines


def test_the_lines_of_json_are_exactly_the_contracts(here: Run, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text(
        'id,name,email\n1,Ann,ann@example.com\n2,"two\nlines",b@example.com\nx,Cat,Ann@example.com\n1,2\n', encoding="utf-8")
    out = here("--users", "users.csv", "--json").stdout
    *lines, last = map(json.loads, out.splitlines())
    assert lines[0] == {"model": "users", "source": "users.csv", "line": 2, "id": 1, "verdict": "inserted", "problems": []}
    assert [list(line) for line in lines] == [["model", "source", "line", "id", "verdict", "problems"]] * 4
    assert [line["line"] for line in lines] == [2, 3, 5, 6]
    assert [[(each["field"], each["code"]) for each in line["problems"]] for line in lines] == [
        [], [("name", "bad_text")], [("id", "not_integer"), ("email", "not_unique")], [(None, "malformed")]]
    assert all(list(each) == ["field", "code", "message"] and each["message"] for line in lines for each in line["problems"])
    assert [line["id"] for line in lines] == [1, 2, "x", None]
    seconds = last["summary"]["users"].pop("seconds")
    assert isinstance(seconds, float) and seconds >= 0
    assert last == {"summary": {"users": {"database": "users.db", "read": 4, "inserted": 1, "unchanged": 0, "rejected": 3, "failed": 0}}, "exit_status": 1}
    assert list(last) == ["summary", "exit_status"]
    assert list(last["summary"]["users"]) == ["database", "read", *VERDICTS]


def test_a_line_of_json_is_compact_ascii(here: Run, tmp_path: Path) -> None:
    (tmp_path / "Üsers\u202e.csv").write_text("id,name,email\n1,\x7fDEL\u2028,ü@example.com\n", encoding="utf-8")
    out = here("--users", "Üsers\u202e.csv", "--json").stdout
    assert re.fullmatch(r"[ -~\n]*", out)
    line = json.loads(out.splitlines()[0])
    assert line["source"] == "Üsers\u202e.csv"
    assert out.splitlines()[0] == json.dumps(line, separators=(",", ":")).replace("\x7f", "\\u007f")


def test_a_failed_record_says_so_in_json(here: Run, tmp_path: Path) -> None:
    write_users(tmp_path / "users.csv", 2)
    (tmp_path / "users.db").write_bytes(b"no database" * 100)
    lines = [json.loads(line) for line in here("--users", "users.csv", "--json").stdout.splitlines()]
    assert [(line["id"], line["verdict"], line["problems"]) for line in lines[:-1]] == [(1, "failed", []), (2, "failed", [])]
    assert lines[-1]["exit_status"] == 3


# ------------------------------------------------------------------------------ Terminals: colour and the progress bar


class Terminal:
    """A program whose output and error are pseudo-terminals; what it writes there is collected."""

    def __init__(self, folder: Path, *arguments: object, stdin: int | None = None, out: bool = True, err: bool = True, **environment: str) -> None:
        pty = pytest.importorskip("pty", reason="no pseudo-terminals here")
        self.texts = {"out": b"", "err": b""}
        self._masters: dict[int, str] = {}
        ends = {}
        for name, wanted in (("out", out), ("err", err)):
            master, ends[name] = pty.openpty() if wanted else os.pipe()
            self._masters[master] = name
        clean = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "TERM", "FORCE_COLOR", "COLUMNS")}
        self.process = subprocess.Popen([sys.executable, str(PROGRAM), *map(str, arguments)], cwd=folder, stdin=stdin or subprocess.DEVNULL,
                                        stdout=ends["out"], stderr=ends["err"], env={**clean, "TERM": "xterm", **environment})
        for end in ends.values():
            os.close(end)

    def read(self, until: Callable[[], bool] = lambda: False) -> None:
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


def test_a_terminal_gets_colour(tmp_path: Path) -> None:
    status, out, _ = Terminal(tmp_path).finish()
    assert status == 0
    assert re.search(r"\x1b\[[\d;]*m", out)
    colours = {verdict: re.findall(rf"\x1b\[([\d;]+)m\S {verdict} ", out) for verdict in ("inserted", "rejected")}
    assert (len(colours["inserted"]), len(colours["rejected"])) == (22, 8)
    assert set(colours["inserted"]).isdisjoint(colours["rejected"])
    assert not re.search(r"\x1b(?!\[[\d;]*m)", out)
    assert out.count("\x1b[0m") * 2 == out.count("\x1b[")


def test_colour_is_all_that_a_terminal_gets_more(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    _, coloured, _ = Terminal(tmp_path).finish()
    _, plain, _ = Terminal(tmp_path / "other", NO_COLOR="1").finish()
    shown = [re.sub(r"[\d.]+$", "", line) for line in re.sub(r"\x1b\[[\d;]*m", "", coloured).splitlines()]
    assert shown == [re.sub(r"[\d.]+$", "", line) for line in plain.splitlines()]


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"NO_COLOR": "yes", "TERM": "xterm-256color"}, {"TERM": "dumb"},
                                         {"NO_COLOR": "0"}, {"TERM": "dumb", "COLORTERM": "truecolor", "CLICOLOR_FORCE": "1"}], ids=str)
def test_a_terminal_without_colour_gets_none(tmp_path: Path, environment: dict[str, str]) -> None:
    write_users(tmp_path / "users.csv", 1500, lambda number: number % 3 == 0)
    for arguments in ((), ("--users", "users.csv", "--batch-size", "1")):
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


def test_a_terminal_sees_the_progress_of_a_long_load(tmp_path: Path) -> None:
    write_users(tmp_path / "users.csv", 4000, lambda number: number % 100 == 0)
    status, out, err = Terminal(tmp_path, "--users", "users.csv", "--batch-size", "1").finish()
    assert status == 1
    drawn = [text for text in err.split("\r") if "users " in text]
    assert drawn, err
    assert any("%" in text and re.search(r"[\d,]+/s", text) and "left" in text for text in drawn)
    assert all("\n" not in text for text in drawn)
    assert err.rstrip("\x1b[K").endswith("\r") or not err.rsplit("\r", 1)[1].replace("\x1b[K", "").strip()      # it is taken away at the end
    assert "%" not in out and "\r" not in out


def test_the_bar_shows_even_where_standard_output_is_a_pipe(tmp_path: Path) -> None:
    write_users(tmp_path / "users.csv", 4000)
    _, out, err = Terminal(tmp_path, "--users", "users.csv", "--batch-size", "1", "--json", out=False).finish()
    assert "users 3," in err
    assert [json.loads(line) for line in out.splitlines()][-1]["summary"]["users"]["inserted"] == 4000


@pytest.mark.parametrize("arguments", [(), ("-q",)], ids=["pipe", "quiet terminal"])
def test_without_a_terminal_or_quietly_there_is_no_bar(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    write_users(tmp_path / "users.csv", 4000)
    _, _, err = Terminal(tmp_path, "--users", "users.csv", "--batch-size", "1", *arguments, err=bool(arguments)).finish()
    assert err == ""


def test_the_bar_of_a_pipe_counts_without_a_total(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    terminal = Terminal(tmp_path, "--users", "-", "--batch-size", "1", "-v", stdin=reader)
    os.close(reader)
    stop = threading.Event()

    def feed() -> None:
        number = 0
        try:
            os.write(writer, b"id,name,email\n")
            while not stop.is_set() and number < 10**6:
                os.write(writer, b"".join(b"%d,User,u%d@example.com\n" % (n, n) for n in range(number + 1, number + 1001)))
                number += 1000
        except OSError:
            pass
        finally:
            os.close(writer)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        terminal.read(until=lambda: b"/s" in terminal.texts["err"])
    finally:
        stop.set()
    status, _, err = terminal.finish()
    feeder.join(TIMEOUT_S)
    assert status == 0
    drawn = [text for text in err.split("\r") if "users " in text]
    assert drawn
    assert not any("%" in text or "left" in text for text in drawn)


# --------------------------------------------------------------------------------- Terminals that cannot show everything


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}, {"PYTHONIOENCODING": "cp437"},
                                         {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0"}], ids=str)
@pytest.mark.parametrize("arguments", [(), ("-v",), ("--json",)], ids=["text", "-v", "json"])
def test_an_encoding_that_lacks_characters_loses_no_line(tmp_path: Path, environment: dict[str, str], arguments: tuple[str, ...]) -> None:
    (tmp_path / "Üsers.csv").write_text("id,name,email\n1,李雷 🦜,li@例子.广告\n2,Ω,nobody\n3,\udcff\n", encoding="utf-8", errors="surrogateescape")
    result = subprocess.run([sys.executable, str(PROGRAM), "--users", "Üsers.csv", *arguments], cwd=tmp_path, capture_output=True, timeout=TIMEOUT_S,
                            env={**os.environ, "NO_COLOR": "1", **environment})
    assert result.returncode == 1
    assert b"Traceback" not in result.stderr + result.stdout
    if "PYTHONIOENCODING" not in environment or environment["PYTHONIOENCODING"] == "ascii" or arguments == ("--json",):
        assert result.stdout.isascii() or environment.get("LC_ALL") == "POSIX"
    assert result.stdout.count(b"inserted") >= 1 and result.stdout.count(b"rejected") >= 2


def test_an_ascii_terminal_gets_marks_that_it_can_show(run: Run) -> None:
    out = run(PYTHONIOENCODING="ascii").stdout
    marks = dict(re.findall(r"(?m)^  (\S+) (inserted|rejected) ", out))
    assert len(marks) == 2
    assert all(len(mark) == 1 for mark in marks)
    assert "\\u" not in out


def test_an_ascii_terminal_gets_a_bar_that_it_can_show(tmp_path: Path) -> None:
    write_users(tmp_path / "users.csv", 4000)
    _, _, err = Terminal(tmp_path, "--users", "users.csv", "--batch-size", "1", PYTHONIOENCODING="ascii").finish()
    assert "#-" in err and "users " in err and "?" not in err and err.isascii()


def test_without_standard_streams_the_load_is_done_all_the_same(tmp_path: Path) -> None:
    write_users(tmp_path / "users.csv", 10)
    code = "import os, sys; os.close(1); os.close(2); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    result = subprocess.run([sys.executable, "-c", code, str(PROGRAM), "--users", "users.csv"], cwd=tmp_path, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL)
    assert result.returncode == 0
    assert (tmp_path / "users.db").exists()


def test_output_does_not_depend_on_the_width_of_the_terminal(run: Run) -> None:
    run()
    texts = {re.sub(r"\d+\.\d\d$", "", run(COLUMNS=columns).stdout, flags=re.MULTILINE) for columns in ("20", "80", "500")}
    assert len(texts) == 1


def test_random_sizes_of_models_and_batches_keep_the_report_whole(here: Run, tmp_path: Path) -> None:
    chance = random.Random(3)
    for number in range(6):
        counts = [chance.choice((0, 1, 30, 200, 1001)) for _ in range(2)]
        write_users(tmp_path / "users.csv", counts[0])
        (tmp_path / "products.csv").write_text("id,name,price\n" + "".join(f"{n},P{n},1\n" for n in range(1, counts[1] + 1)), encoding="utf-8")
        out = here("--users", "users.csv", "--products", "products.csv", "--db-dir", number, "--batch-size", chance.choice((1, 7, 500)), "--json").stdout
        lines = [json.loads(line) for line in out.splitlines()]
        assert sorted((line["model"], line["line"]) for line in lines[:-1]) == [
            (table, n + 1) for table, count in (("products", counts[1]), ("users", counts[0])) for n in range(1, count + 1)]
