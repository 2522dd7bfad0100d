"""--log-file and --trace: what happened to records, threads and transactions, for a reader and for Perfetto."""
from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest

from conftest import MODELS, PROGRAM, ROOT, Run, TIMEOUT_S, execute, rows, write_users
from loads import Running, locked, wait_until

LINE = re.compile(r"(?P<time>\d{4}-\d\d-\d\dT\S+) (?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) +"
                  r"(?P<thread>\S+) +(?P<database>\w+\.db|-) +(?P<event>\S.*)")
SLACK_US = 0.2                          # times are rounded to tenths


# ------------------------------------------------------------------------------------------------------------ Log


def log_lines(path: Path) -> list[dict[str, str]]:
    """Return the parts of every line of a log; each has to have them all."""
    lines = path.read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    matches = [LINE.fullmatch(line) for line in lines]
    assert None not in matches, lines[matches.index(None)]
    return [match.groupdict() for match in matches]


def moment(line: dict[str, str]) -> float:
    """Return the time of a line of a log as seconds since the epoch."""
    return datetime.fromisoformat(line["time"].replace("Z", "+00:00").replace(",", ".")).timestamp()


def about(lines: list[dict[str, str]], *words: str) -> list[dict[str, str]]:
    """Return the lines of a log whose event has all these words in it."""
    return [line for line in lines if all(re.search(rf"(?<![\w.]){re.escape(word)}(?!\w)", line["event"])
                                          for word in words)]


def test_every_line_of_the_log_has_time_level_thread_database_and_event(here: Run, tmp_path: Path) -> None:
    before = time.time()
    assert here("--log-file", "log.txt", "-v").returncode == 0
    lines = log_lines(tmp_path / "log.txt")
    assert all(before - 1 <= moment(line) <= time.time() + 1 for line in lines)
    assert {line["database"] for line in lines} - {"-"} == {f"{model}.db" for model in MODELS}
    assert all(line["event"].isprintable() for line in lines)
    assert {f"{model}#{number}" for model in MODELS for number in range(1, 11)} <= {
        *(line["thread"] for line in lines), *re.findall(r"\w+#\d+", " ".join(line["event"] for line in lines))}


def test_the_log_says_its_zone_or_is_in_utc(run: Run, tmp_path: Path) -> None:
    before = time.time()
    run("--log-file", "log.txt", "-q", TZ="Asia/Kathmandu")
    line = log_lines(tmp_path / "log.txt")[0]
    assert re.search(r"(Z|[+-]\d\d:?\d\d)$", line["time"])
    assert before - 1 <= moment(line) <= time.time() + 1


@pytest.mark.parametrize("arguments", [(), ("--batch-size", "1"), ("-q",), ("--json",)],
                         ids=["default", "1", "-q", "json"])
def test_the_log_has_a_line_for_every_transaction_and_every_rejected_record(here: Run, tmp_path: Path,
                                                                            arguments: tuple[str, ...]) -> None:
    write_users(tmp_path / "users.csv", 2000, lambda number: number % 100 == 0)
    out = here("--users", "users.csv", "--log-file", "log.txt", "--trace", "trace.json", *arguments).stdout
    lines = log_lines(tmp_path / "log.txt")
    transactions = sum(event["ph"] == "X" and event["name"].startswith("transaction")
                       for event in read_trace(tmp_path / "trace.json"))
    told = [line for line in lines if re.search(r"\btransaction[ =]\d", line["event"])]
    assert len(told) == transactions >= 1 and {line["database"] for line in told} == {"users.db"}
    assert "--json" in arguments or re.search(rf"in {transactions} transactions? by 1 insert worker\b", out)
    rejected = about(lines, "blank")
    assert len(rejected) == 20
    assert all(line["database"] == "users.db" and "rejected" in line["event"] and "name" in line["event"]
               for line in rejected)
    assert [int(re.search(r"users\.csv:(\d+)", line["event"])[1]) for line in rejected] == list(range(101, 2002, 100))
    assert len(lines) < 20 + transactions + 20                  # and not one for each record that was inserted


@pytest.mark.parametrize("arguments", [(), ("--batch-size", "1"), ("--dry-run",)], ids=["default", "1", "dry"])
def test_with_v_the_log_has_one_line_for_every_record(here: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    write_users(tmp_path / "users.csv", 1500, lambda number: number == 1234)
    here("--users", "users.csv", "--log-file", "log.txt", "-v", *arguments)
    lines = log_lines(tmp_path / "log.txt")
    places = [int(line) for event in lines for line in re.findall(r"users\.csv:(\d+)", event["event"])]
    assert sorted(places) == list(range(2, 1502))
    for line, words in ((2, "inserted"), (1501, "inserted"), (1235, "rejected")):
        found = about(lines, f"users.csv:{line}")
        assert len(found) == 1 and words in found[0]["event"] or "--dry-run" in arguments and words == "inserted"


def test_the_log_of_the_sample_names_each_rejected_record_once_with_all_its_problems(here: Run, tmp_path: Path) -> None:
    out = here("--log-file", "log.txt", "--json").stdout
    lines = log_lines(tmp_path / "log.txt")
    told = [line["event"] for line in lines if "rejected" in line["event"] and "[" in line["event"]
            or "rejected" in line["event"].split()]
    for record in map(json.loads, out.splitlines()[:-1]):
        for problem in record["problems"]:
            words = problem["message"].removeprefix(problem["field"]).strip()
            assert any(words in event and problem["code"] in event for event in told), problem


def test_the_log_is_appended_to(here: Run, tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("what was there before\n", encoding="utf-8")
    here("--log-file", "log.txt", "-q")
    first = (tmp_path / "log.txt").read_text(encoding="utf-8")
    here("--log-file", "log.txt", "-q")
    second = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert first.startswith("what was there before\n") and len(first) > 30
    assert second.startswith(first) and len(second) > len(first)


def test_a_value_cannot_forge_a_line_of_the_log(here: Run, tmp_path: Path) -> None:
    forged = "1\n2026-01-01T00:00:00.000Z INFO MainThread users.db users id=7 x:1 inserted\r\x1b[31m\u2028\x85"
    records = [{"id": forged, "name": forged, "email": forged}, {"id": 7, "name": forged, "email": "a@example.com"},
               forged,
               {"id": 8, "name": "A", "email": "b@example.com", forged: forged}]
    name = "users\n\x1b[31m" if os.name == "posix" else "users"
    (tmp_path / name).write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    here("--users", name, "--log-file", "log.txt", "-v")
    lines = log_lines(tmp_path / "log.txt")
    assert all(line["event"].isprintable() and not line["time"].startswith("2026-01-01") for line in lines)


def test_the_log_of_verify_tells_what_is_broken_and_is_closed(run: Run, tmp_path: Path) -> None:
    run("-q")
    execute(tmp_path / "users.db", "UPDATE users SET name = '' WHERE id = 3")
    result = run("--verify", "--log-file", "log.txt", python=("-X", "dev", "-W", "error"))
    assert (result.returncode, result.stderr) == (1, "")
    assert about(log_lines(tmp_path / "log.txt"), "blank")


@pytest.mark.parametrize("arguments", [("--verify",), ("--users", "users.csv", "--dry-run")], ids=" ".join)
def test_what_writes_nothing_logs_no_transaction(here: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    write_users(tmp_path / "users.csv", 3)
    assert here("--users", "users.csv").returncode == 0
    here(*arguments, "-v", "--log-file", "log.txt")
    text = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert text.count("users#") == 3 and "transaction=" not in text


def test_the_log_tells_of_a_lock(tmp_path: Path) -> None:
    write_users(tmp_path / "users.csv", 3)
    execute(tmp_path / "users.db", "PRAGMA journal_mode=WAL",
            "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, email TEXT)")
    told = ("real = program.SqlitePlace.open\ndef open_table(self, *arguments):\n"
            "    open('opens', 'w').close()\n    return real(self, *arguments)\n"
            "program.SqlitePlace.open = open_table")
    with locked(tmp_path / "users.db") as release:
        with Running(tmp_path, "--users", "users.csv", "--log-file", "log.txt", "-q", patch=told) as running:
            wait_until((tmp_path / "opens").exists)
            time.sleep(0.7)                             # it is about to wait, for a lock that nothing else tells of
            release()
            assert running.end().status == 0
    lines = about(log_lines(tmp_path / "log.txt"), "locked")
    assert len(lines) == 1 and lines[0]["database"] == "users.db" and lines[0]["level"] == "WARNING"


def test_the_log_tells_each_record_that_failed_on_a_lock(here: Run, tmp_path: Path) -> None:
    write_users(tmp_path / "users.csv", 3)
    here("--users", "users.csv")
    with closing(sqlite3.connect(tmp_path / "users.db", isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        assert here("--users", "users.csv", "--log-file", "log.txt", "--busy-timeout", "0").returncode == 3
    failed = [line for line in log_lines(tmp_path / "log.txt") if "failed" in line["event"]
              and "users.csv:" in line["event"]]
    assert [re.search(r"users\.csv:(\d+)", line["event"])[1] for line in failed] == ["2", "3", "4"]
    assert any("locked" in line["event"] for line in log_lines(tmp_path / "log.txt"))


@pytest.mark.parametrize("flag", ["--log-file", "--trace"])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_log_or_timeline_that_finds_no_room_is_told_and_the_load_is_done(here: Run, tmp_path: Path,
                                                                           flag: str) -> None:
    (tmp_path / "watch").symlink_to("/dev/full")
    result = here("-q", flag, "watch")
    if result.returncode == 2:                          # a timeline replaces no file that is not its own
        assert flag == "--trace" and "watch" in result.stderr and not (tmp_path / "users.db").exists()
    else:
        assert result.returncode == 3 and "o space left" in result.stderr
        assert len(rows(tmp_path, "users")) == 8


def test_nothing_is_imported_for_a_log_that_nobody_wants(tmp_path: Path) -> None:
    code = (f"import sys; sys.path.insert(0, {str(ROOT)!r}); import distributed_inserts\n"
            "status = distributed_inserts.main(['-q'])\n"
            "unwanted = {'logging', 'random', 'subprocess', 'asyncio', 'psycopg'} & set(sys.modules)\n"
            "assert not unwanted, unwanted\nraise SystemExit(status)")
    result = subprocess.run([sys.executable, "-I", "-S", "-c", code], cwd=tmp_path, capture_output=True,
                            timeout=TIMEOUT_S, text=True)
    assert (result.returncode, result.stderr) == (0, "")


# ---------------------------------------------------------------------------------------------------------- Trace


def read_trace(path: Path) -> list[dict]:
    """Return the events of a timeline, checked against the rules of the Chrome trace format."""
    trace = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))
    events = trace["traceEvents"] if isinstance(trace, dict) else trace
    assert isinstance(trace, list) or trace.get("displayTimeUnit", "ms") in ("ms", "ns")
    for event in events:
        assert event["ph"] in "XMCi", event
        assert type(event["pid"]) is int and type(event["name"]) is str and isinstance(event.get("args", {}),
                                                                                       dict), event
        assert type(event["tid"]) is int or event["ph"] in "CM" and "tid" not in event, event
        if event["ph"] != "M":
            assert type(event["ts"]) in (int, float) and event["ts"] >= 0, event
        if event["ph"] == "X":
            assert type(event["dur"]) in (int, float) and event["dur"] >= 0, event
        if event["ph"] == "i":
            assert event["s"] in ("t", "p", "g"), event
        if event["ph"] == "C":
            assert event["args"] and all(type(number) in (int, float) for number in event["args"].values()), event
    check_names(events)
    check_nesting(events)
    return events


def named(events: list[dict], kind: str) -> dict[tuple[int, int], str]:
    """Return the names that metadata events of a kind give, by pid and tid."""
    return {(event["pid"], event.get("tid", 0)): event["args"]["name"] for event in events
            if (event["ph"], event["name"]) == ("M", kind)}


def threads(events: list[dict]) -> dict[tuple[int, int], str]:
    """Return the name of the thread of each row."""
    return named(events, "thread_name")


def spans(events: list[dict]) -> dict[tuple[int, int], list[dict]]:
    """Return the complete events of each row."""
    found: dict[tuple[int, int], list[dict]] = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            found[event["pid"], event["tid"]].append(event)
    return found


def check_names(events: list[dict]) -> None:
    """Fail unless every row and every process has one name."""
    metadata = [(event["name"], event["pid"], event.get("tid")) for event in events if event["ph"] == "M"]
    assert {name for name, _, _ in metadata} <= {"process_name", "thread_name", "process_sort_index",
                                                 "thread_sort_index", "process_labels"}
    assert len(set(metadata)) == len(metadata)
    processes = {pid: name for (pid, _), name in named(events, "process_name").items()}
    assert len(set(processes.values())) == len(processes)
    rows_ = threads(events)
    for event in events:
        assert event["pid"] in processes, event
        assert event["ph"] in "MC" or (event["pid"], event["tid"]) in rows_, event


def check_nesting(events: list[dict]) -> None:
    """Fail unless the complete events of each row nest or are disjoint."""
    for row in spans(events).values():
        ends: list[float] = []
        for event in sorted(row, key=lambda event: (event["ts"], -event["dur"])):
            end = event["ts"] + event["dur"]
            while ends and ends[-1] <= event["ts"] + SLACK_US:
                ends.pop()
            assert not ends or end <= ends[-1] + SLACK_US, event
            ends.append(end)


def test_the_timeline_names_the_databases_and_has_a_row_for_every_thread(here: Run, tmp_path: Path) -> None:
    assert here("--trace", "trace.json").returncode == 0
    events = read_trace(tmp_path / "trace.json")
    assert {f"{model}.db" for model in MODELS} <= set(named(events, "process_name").values())
    assert {f"{model}#{number}" for model in MODELS for number in range(1, 11)} <= set(threads(events).values())
    assert all(any("insert-worker" in name and model in name for name in threads(events).values()) for model in MODELS)
    rows_ = {threads(events)[row]: found for row, found in spans(events).items()}
    assert all(rows_[f"{model}#{number}"] for model in MODELS for number in range(1, 11))


def test_rows_have_the_same_numbers_in_every_run(here: Run, tmp_path: Path) -> None:
    found = []
    for _ in range(3):
        here("--trace", "trace.json")
        events = read_trace(tmp_path / "trace.json")
        found.append((threads(events), named(events, "process_name")))
    assert found[0] == found[1] == found[2]


def test_the_timeline_shows_every_transaction_with_its_records_and_its_commit(here: Run, tmp_path: Path) -> None:
    out = here("--trace", "trace.json").stdout
    events = read_trace(tmp_path / "trace.json")
    transactions = [(threads(events)[row], event) for row, found in spans(events).items() for event in found
                    if event["name"].startswith("transaction")]
    assert f"in {len(transactions)} transactions" in out
    assert all("insert-worker" in name and event["args"] for name, event in transactions)
    assert any("commit" in event["name"] for found in spans(events).values() for event in found)


def test_every_order_waits_for_users_and_products_in_the_timeline(here: Run, tmp_path: Path) -> None:
    here("--trace", "trace.json")
    events = read_trace(tmp_path / "trace.json")
    waits = {threads(events)[row]: [event for event in found if event["name"] == "wait for users, products"] for row,
             found in spans(events).items()}
    assert {name: len(found) for name, found in waits.items() if found} == {f"orders#{number}": 1
                                                                            for number in range(1, 11)}
    done = max(event["ts"] + event["dur"] for row, found in spans(events).items() for event in found
               if event["name"].startswith("transaction") and re.search("users|products", threads(events)[row]))
    assert all(event["ts"] + event["dur"] >= done - 1000 for found in waits.values()
               for event in found)        # no order before


@pytest.mark.parametrize("arguments", [("--batch-size", "1"), ("--batch-size", "9"), (), ("-n",)],
                         ids=["1", "9", "default", "dry run"])
def test_the_timeline_of_a_long_load_keeps_the_rules_too(here: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    write_users(tmp_path / "users.csv", 1200, lambda number: number % 10 == 0)
    (tmp_path / "products.csv").write_text("id,name,price\n1,Desk,1\n", encoding="utf-8")
    (tmp_path / "orders.csv").write_text("id,user_id,product_id,quantity\n" + "".join(
        f"{number},{1201 - number},1,1\n" for number in range(1, 1201)), encoding="utf-8")
    here("--users", "users.csv", "--products", "products.csv", "--orders", "orders.csv", "--trace", "trace.json", "-q",
         *arguments)
    assert len(read_trace(tmp_path / "trace.json")) > 10
    assert not list(tmp_path.glob("*.db")) if "-n" in arguments else True


def test_a_timeline_replaces_a_timeline(here: Run, tmp_path: Path) -> None:
    for number in (30, 3):                              # the longer one first
        write_users(tmp_path / "users.csv", number)
        assert here("--users", "users.csv", "--trace", "trace.json").returncode == 0
        assert f"users#{number}" in threads(read_trace(tmp_path / "trace.json")).values()
    assert "users#30" not in (tmp_path / "trace.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("content", [
    b"my notes\n", b"{}", b"[]", b'{"traceEvents": "mine"}', b'[{"id": 1, "name": "Ann", "email": "a@example.com"}]',
    b"id,name,email\n", b"\0\1\2" * 100, b'{"name": "a package", "version": "1.0"}'], ids=ascii)
@pytest.mark.parametrize("arguments", [(), ("-n",)], ids=["load", "dry run"])
def test_a_timeline_replaces_no_file_that_is_not_its_own(here: Run, tmp_path: Path, content: bytes,
                                                         arguments: tuple[str, ...]) -> None:
    (tmp_path / "trace.json").write_bytes(content)
    result = here("--trace", "trace.json", *arguments)
    assert result.returncode == 2 and "trace.json" in result.stderr and result.stderr.count("\n") <= 3
    assert [path.name for path in tmp_path.iterdir()] == ["trace.json"]
    assert (tmp_path / "trace.json").read_bytes() == content


def test_values_in_log_and_timeline_are_bounded(here: Run, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text(f"id,name,email\n1,{'n' * 100_000},a@example.com\n"
                                        f"{'2' * 100_000},N,b@example.com\n", encoding="utf-8")
    here("--users", "users.csv", "--trace", "trace.json", "--log-file", "log.txt", "-v")
    assert read_trace(tmp_path / "trace.json")
    assert (tmp_path / "trace.json").stat().st_size < 50_000
    assert (tmp_path / "log.txt").stat().st_size < 50_000


def test_log_and_timeline_are_whole_where_the_reader_of_the_output_has_gone(tmp_path: Path) -> None:
    write_users(tmp_path / "users.csv", 900)
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run([sys.executable, str(PROGRAM), "--users", "users.csv", "--trace", "trace.json",
                             "--log-file", "log.txt"], cwd=tmp_path,
                            stdout=writer, stderr=subprocess.PIPE, timeout=TIMEOUT_S)
    os.close(writer)
    assert b"Traceback" not in result.stderr
    assert read_trace(tmp_path / "trace.json") and log_lines(tmp_path / "log.txt")
    assert len(rows(tmp_path, "users")) == 900


def test_verify_writes_a_timeline(here: Run, tmp_path: Path) -> None:
    here("-q")
    assert here("--verify", "--trace", "trace.json").returncode == 0
    assert read_trace(tmp_path / "trace.json")


def test_log_and_timeline_change_no_verdict(here: Run, tmp_path: Path) -> None:
    def by_model(text: str) -> dict[str, list[dict]]:
        lines = list(map(json.loads, text.splitlines()[:-1]))
        return {model: [line for line in lines if line["model"] == model] for model in MODELS}

    unwatched = here("--json", "--db", "plain").stdout
    watched = here("--json", "--db", "watched", "--log-file", "log.txt", "--trace", "trace.json").stdout
    assert by_model(unwatched) == by_model(watched)
    assert all(rows(tmp_path / "plain", model) == rows(tmp_path / "watched", model) for model in MODELS)
