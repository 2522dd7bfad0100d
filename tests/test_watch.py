"""--log-file and --trace: what happened to every record, thread and transaction, for a reader and for Perfetto."""
from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

import distributed_inserts
from conftest import PROGRAM, ROOT, Run, TIMEOUT_S, rows, write_users

TABLES = ("users", "products", "orders")
LINE = re.compile(r"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z) (?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) "
                  r"(?P<thread>MainThread|insert-worker \w+\.db|\w+#\d+(-\d+)?) (?P<database>\w+\.db|-) (?P<event>\S.*)")
RECORDS = {f"{table}#{number}" for table in TABLES for number in range(1, 11)}
WORKERS = {f"insert-worker {table}.db" for table in TABLES}
SLACK_US = 0.2                          # times are rounded to tenths


# ------------------------------------------------------------------------------------------------------------ Log


def log_lines(path: Path) -> list[dict[str, str]]:
    """Return the parts of every line of a log; each has to have them all."""
    lines = path.read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    matches = [LINE.fullmatch(line) for line in lines]
    assert None not in matches, lines[matches.index(None)]
    return [match.groupdict() for match in matches]


def test_every_line_of_the_log_has_time_level_thread_database_and_event(here: Run, tmp_path: Path) -> None:
    before = time.time()
    assert here("--log-file", "log.txt").returncode == 0
    lines = log_lines(tmp_path / "log.txt")
    times = [datetime.fromisoformat(line["time"].replace("Z", "+00:00")).timestamp() for line in lines]
    assert all(before - 1 <= moment <= time.time() + 1 for moment in times)        # in UTC, whatever the zone here
    assert {line["database"] for line in lines} == {"users.db", "products.db", "orders.db"}
    assert all(line["event"].isprintable() for line in lines)


def test_the_log_is_in_utc(run: Run, tmp_path: Path) -> None:
    before = time.time()
    run("--log-file", "log.txt", "-q", TZ="Asia/Kathmandu")
    moment = datetime.fromisoformat(log_lines(tmp_path / "log.txt")[0]["time"].replace("Z", "+00:00")).timestamp()
    assert before - 1 <= moment <= time.time() + 1


def test_every_thread_and_every_transaction_begins_and_ends_in_the_log(here: Run, tmp_path: Path) -> None:
    here("--log-file", "log.txt")
    lines = log_lines(tmp_path / "log.txt")
    events: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        events[line["thread"]].append(line["event"])
    assert RECORDS | WORKERS <= set(events)
    for thread in RECORDS | WORKERS:
        begins = [event.partition(" begins")[0] for event in events[thread] if " begins" in event]
        ends = [event.partition(" ends")[0] for event in events[thread] if " ends" in event]
        assert sorted(begins) == sorted(ends) and begins
        assert events[thread][0] == "thread begins" and events[thread][-1].startswith("thread ends")
    for worker in WORKERS:
        assert any(event.startswith("transaction begins") for event in events[worker])
        assert any(event.startswith("commit ends") for event in events[worker])


def test_the_log_says_of_each_record_once_what_became_of_it(here: Run, tmp_path: Path) -> None:
    out = here("--log-file", "log.txt", "--json").stdout
    lines = log_lines(tmp_path / "log.txt")
    for record in map(json.loads, out.splitlines()[:-1]):
        found = [line for line in lines if f"{record['model']} id={record['id']} " in line["event"]]
        assert len(found) == 1, record
        assert record["verdict"] in found[0]["event"]
        assert found[0]["database"] == f"{record['model']}.db"
        for problem in record["problems"]:
            assert problem["message"] in found[0]["event"] and problem["code"] in found[0]["event"]
        assert (found[0]["level"] == "DEBUG") == (record["verdict"] == "inserted")


@pytest.mark.parametrize("arguments", [(), ("--batch-size", "1"), ("-q",), ("--dry-run",)], ids=["default", "1", "-q", "dry"])
def test_one_search_finds_any_record_of_a_long_load(here: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    write_users(tmp_path / "users.csv", 2000, lambda number: number == 1234)
    here("--users", "users.csv", "--log-file", "log.txt", *arguments)
    lines = log_lines(tmp_path / "log.txt")
    for number, words in ((1, ("inserted",)), (1999, ("inserted",)), (1234, ("rejected", "name is blank", "users.csv:1235"))):
        found = [line["event"] for line in lines if f"users id={number} " in line["event"]]
        assert len(found) == 1
        assert all(word in found[0] for word in words)


def test_a_value_cannot_forge_a_line_of_the_log(here: Run, tmp_path: Path) -> None:
    forged = "1\n2026-01-01T00:00:00.000Z INFO MainThread users.db users id=7 x:1 inserted\r\x1b[31m\u2028\x85"
    records = [{"id": forged, "name": forged, "email": forged}, {"id": 7, "name": forged, "email": "a@example.com"}, forged,
               {"id": 8, "name": "A", "email": "b@example.com", forged: forged}]
    name = "users\n\x1b[31m.jsonl" if os.name == "posix" else "users.jsonl"
    (tmp_path / name).write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    here("--users", name, "--log-file", "log.txt")
    lines = log_lines(tmp_path / "log.txt")
    assert all(line["event"].isprintable() for line in lines)
    assert not any(line["event"].startswith("users id=7 x:1") for line in lines)


def test_the_log_goes_to_standard_error_for_a_dash(run: Run, tmp_path: Path) -> None:
    result = run("--log-file", "-", "--json")
    assert result.returncode == 0
    assert all(LINE.fullmatch(line) for line in result.stderr.splitlines())
    assert len(result.stdout.splitlines()) == 31
    assert sorted(path.name for path in tmp_path.iterdir()) == ["orders.db", "products.db", "users.db"]


def test_the_log_holds_the_totals(here: Run, tmp_path: Path) -> None:
    here("--log-file", "log.txt")
    lines = log_lines(tmp_path / "log.txt")
    for table, counts in {"users": (10, 8, 2), "products": (10, 8, 2), "orders": (10, 6, 4)}.items():
        assert any(line["database"] == f"{table}.db" and all(
            re.search(rf"\b{name}\W{count}\b|\b{count} {name}\b", line["event"]) for name, count in zip(("read", "inserted", "rejected"), counts))
            for line in lines), table


def test_the_log_of_verify_tells_something_and_is_closed(run: Run, tmp_path: Path) -> None:
    run("-q")
    result = run("--verify", "--log-file", "log.txt", python=("-X", "dev", "-W", "error"))
    assert (result.returncode, result.stderr) == (0, "")
    assert log_lines(tmp_path / "log.txt")


def test_the_log_tells_of_a_lock_and_of_what_became_of_those_that_waited(tmp_path: Path) -> None:
    write_users(tmp_path / "users.csv", 3)
    connection = sqlite3.connect(tmp_path / "users.db", isolation_level=None)
    log = tmp_path / "log.txt"
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("BEGIN IMMEDIATE")
        process = subprocess.Popen([sys.executable, str(PROGRAM), "--users", "users.csv", "--log-file", "log.txt", "-q"], cwd=tmp_path,
                                   stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + TIMEOUT_S
            while not (log.exists() and "locked" in log.read_text(encoding="utf-8")):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            connection.execute("ROLLBACK")
            assert process.wait(TIMEOUT_S) == 0
        finally:
            process.kill()
    finally:
        connection.close()
    lines = log_lines(log)
    assert any("locked" in line["event"] and line["database"] == "users.db" for line in lines)
    assert any("lock taken" in line["event"] for line in lines)
    assert {line["level"] for line in lines if "lock" in line["event"] and "id=" not in line["event"]} == {"WARNING"}
    found = [line["event"] for line in lines if "users id=2 " in line["event"]]
    assert len(found) == 1
    assert re.search(r" inserted thread=users#2 transaction=\d+ after waiting for a lock for \d+\.\d s$", found[0])


def test_the_log_tells_why_a_record_failed_on_a_lock(here: Run, tmp_path: Path) -> None:
    write_users(tmp_path / "users.csv", 3)
    here("--users", "users.csv")
    connection = sqlite3.connect(tmp_path / "users.db", isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        assert here("--users", "users.csv", "--log-file", "log.txt", "--busy-timeout", "0").returncode == 3
    finally:
        connection.close()
    found = [line for line in log_lines(tmp_path / "log.txt") if "users id=2 " in line["event"]]
    assert len(found) == 1
    assert "failed" in found[0]["event"] and "locked" in found[0]["event"]


def test_the_log_tells_why_a_record_failed_on_a_full_disk(tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="the size of files is limited by setrlimit")
    write_users(tmp_path / "users.csv", 6000)
    code = ("import os, resource, sys\nresource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))\n"
            "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])")
    result = subprocess.run([sys.executable, "-c", code, str(PROGRAM), "--users", "users.csv", "--log-file", "-", "-q"], cwd=tmp_path,
                            capture_output=True, timeout=TIMEOUT_S)
    assert result.returncode == 3
    text = result.stderr.decode("utf-8")
    assert "Traceback" not in text
    found = re.findall(r"users id=5999 .*", text)
    assert len(found) == 1
    assert "failed: users.db: " in found[0]


def test_an_interrupted_log_is_whole_to_its_last_line(here: Run, tmp_path: Path) -> None:
    write_users(tmp_path / "users.csv", 5000, lambda number: True)
    here("--users", "users.csv", "--max-errors", "3", "--batch-size", "1", "--log-file", "log.txt")
    assert log_lines(tmp_path / "log.txt")


def test_nothing_is_imported_for_a_log_that_nobody_wants(tmp_path: Path) -> None:
    code = (f"import sys; sys.path.insert(0, {str(ROOT)!r}); import distributed_inserts\n"
            "status = distributed_inserts.main(['-q'])\n"
            "unwanted = {'logging', 'tempfile', 'random', 'subprocess', 'asyncio'} & set(sys.modules)\n"
            "assert not unwanted, unwanted\nraise SystemExit(status)")
    result = subprocess.run([sys.executable, "-I", "-S", "-c", code], cwd=tmp_path, capture_output=True, timeout=TIMEOUT_S, text=True)
    assert (result.returncode, result.stderr) == (0, "")


# ---------------------------------------------------------------------------------------------------------- Trace


def read_trace(path: Path) -> list[dict]:
    """Return the events of a timeline, checked against the rules of the Chrome trace format."""
    trace = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))
    assert trace["displayTimeUnit"] in ("ms", "ns")
    events = trace["traceEvents"]
    for event in events:
        assert event["ph"] in "XMCisf", event
        assert type(event["pid"]) is int and type(event["tid"]) is int and type(event["name"]) is str, event
        assert isinstance(event.get("args", {}), dict), event
        if event["ph"] != "M":
            assert type(event["ts"]) in (int, float) and event["ts"] >= 0, event
        if event["ph"] == "X":
            assert type(event["dur"]) in (int, float) and event["dur"] >= 0, event
        if event["ph"] == "i":
            assert event["s"] in ("t", "p", "g"), event
        if event["ph"] == "C":
            assert event["args"] and all(type(number) in (int, float) for number in event["args"].values()), event
        if event["ph"] in "sf":
            assert type(event["id"]) in (int, str) and type(event["cat"]) is str, event
    check_names(events)
    check_nesting(events)
    check_arrows(events)
    return events


def named(events: list[dict], kind: str) -> dict[tuple[int, int], str]:
    """Return the names that metadata events of a kind give, by pid and tid."""
    return {(event["pid"], event["tid"]): event["args"]["name"] for event in events if (event["ph"], event["name"]) == ("M", kind)}


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
    """Fail unless every row and every process has one name, and every process is a database."""
    metadata = [(event["name"], event["pid"], event["tid"]) for event in events if event["ph"] == "M"]
    assert {name for name, _, _ in metadata} <= {"process_name", "thread_name", "process_sort_index", "thread_sort_index", "process_labels"}
    assert len(set(metadata)) == len(metadata)
    processes = {pid: name for (pid, _), name in named(events, "process_name").items()}
    assert len(set(processes.values())) == len(processes)
    assert all(name.endswith(".db") for name in processes.values())
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


def check_arrows(events: list[dict]) -> None:
    """Fail unless every arrow has one begin and one end after it."""
    begins = {(event["cat"], event["id"]): event for event in events if event["ph"] == "s"}
    ends = {(event["cat"], event["id"]): event for event in events if event["ph"] == "f"}
    assert begins.keys() == ends.keys()
    assert len(begins) + len(ends) == sum(event["ph"] in "sf" for event in events)
    for key, begin in begins.items():
        assert begin["ts"] <= ends[key]["ts"] + SLACK_US
        assert begin["name"] == ends[key]["name"]


def test_the_timeline_keeps_the_rules_of_its_format(here: Run, tmp_path: Path) -> None:
    assert here("--trace", "trace.json").returncode == 0
    events = read_trace(tmp_path / "trace.json")
    assert set(named(events, "process_name").values()) == {f"{table}.db" for table in TABLES}
    assert here("--trace", "trace.json").returncode == 0
    read_trace(tmp_path / "trace.json")


def test_the_timeline_has_a_row_for_every_thread(here: Run, tmp_path: Path) -> None:
    here("--trace", "trace.json")
    events = read_trace(tmp_path / "trace.json")
    processes = {pid: name for (pid, _), name in named(events, "process_name").items()}
    assert {(processes[pid], name) for (pid, _), name in threads(events).items()} >= {
        *((f"{name.partition('#')[0]}.db", name) for name in RECORDS), *((name.split()[1], name) for name in WORKERS)}


def test_the_timeline_shows_every_stage_of_a_record(here: Run, tmp_path: Path) -> None:
    here("--trace", "trace.json")
    events = read_trace(tmp_path / "trace.json")
    names = {event["name"] for event in events if event["ph"] == "X"}
    for stage in ("read", "validat", "worker", "transaction", "commit"):
        assert any(stage in name for name in names), stage
    rows_ = {threads(events)[row]: {span["name"] for span in found} for row, found in spans(events).items()}
    for record in RECORDS:
        assert len(rows_[record]) >= 2, record


def test_the_timeline_says_which_records_shared_a_transaction(here: Run, tmp_path: Path) -> None:
    here("--trace", "trace.json")
    events = read_trace(tmp_path / "trace.json")
    transactions = [event for event in events if event["ph"] == "X" and event["name"].startswith("transaction")]
    for record in RECORDS:
        table, _, number = record.partition("#")
        holding = [event for event in transactions if (match := re.fullmatch(rf"{table}#(\d+)-(\d+)", event["args"]["group"]))
                   and int(match[1]) <= int(number) <= int(match[2])]
        assert len(holding) == 1, record
        row = next(row for row, name in threads(events).items() if name == record)
        waiting = next(span for span in spans(events)[row] if "worker" in span["name"])
        assert waiting["args"]["transaction"] == holding[0]["args"]["number"]
        assert waiting["ts"] + waiting["dur"] + SLACK_US >= holding[0]["ts"] + holding[0]["dur"] or waiting["dur"] > 0
    commits = [event for event in events if event["ph"] == "X" and event["name"].startswith("commit")]
    assert len(commits) == len(transactions)


def test_the_counters_tell_what_waits_for_each_worker_and_end_at_0(here: Run, tmp_path: Path) -> None:
    write_users(tmp_path / "users.csv", 200)
    for arguments in ((), ("--users", "users.csv")):
        here("--trace", "trace.json", *arguments)
        counters: dict[tuple[int, str], list[tuple[float, dict]]] = defaultdict(list)
        for event in read_trace(tmp_path / "trace.json"):
            if event["ph"] == "C":
                counters[event["pid"], event["name"]].append((event["ts"], event["args"]))
        assert len(counters) == (1 if arguments else 3)
        for found in counters.values():
            assert all(number >= 0 for _, counts in found for number in counts.values())
            assert any(number > 0 for _, counts in found for number in counts.values())
            assert all(number == 0 for number in found[-1][1].values())


@pytest.fixture
def orders_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the workers of users and products from starting until ten orders wait for what they refer to."""
    waiting: set[str] = set()
    all_wait = threading.Event()
    span, run_thread = distributed_inserts.Watch.span, threading.Thread.run

    def told(watch: object, name: str, *details: object, **more: object) -> object:
        if "reference" in name:
            waiting.add(threading.current_thread().name)
            if len(waiting) == 10:
                all_wait.set()
        return span(watch, name, *details, **more)

    def held(thread: threading.Thread) -> None:
        if thread.name in ("insert-worker users.db", "insert-worker products.db"):
            assert all_wait.wait(TIMEOUT_S)
        run_thread(thread)

    monkeypatch.setattr(distributed_inserts.Watch, "span", told)
    monkeypatch.setattr(threading.Thread, "run", held)


def test_every_order_that_waited_has_an_arrow_from_its_parent(here: Run, tmp_path: Path, orders_first: None) -> None:
    here("--trace", "trace.json")
    events = read_trace(tmp_path / "trace.json")
    names = threads(events)
    begins = {event["id"]: names[event["pid"], event["tid"]] for event in events if event["ph"] == "s"}
    arrows = {(begins[event["id"]], names[event["pid"], event["tid"]]) for event in events if event["ph"] == "f"}
    assert {(f"users#{number}", f"orders#{number}") for number in range(1, 11)} <= arrows
    waits = {(names[row], target) for row, found in spans(events).items() for event in found if "reference" in event["name"]
             for target in re.findall(r"(?:users|products) \d+", json.dumps(event["args"]))}
    assert {f"orders#{number}" for number in range(1, 11)} == {name for name, _ in waits}
    for order, target in waits - {("orders#10", "products 11")}:
        assert (target.replace(" ", "#"), order) in arrows


def test_both_ends_of_an_arrow_are_within_spans_for_else_no_viewer_draws_it(here: Run, tmp_path: Path, orders_first: None) -> None:
    here("--trace", "trace.json")
    events = read_trace(tmp_path / "trace.json")
    arrows = [event for event in events if event["ph"] in "sf"]
    assert len(arrows) >= 20
    for event in arrows:
        assert event["ph"] == "s" or event["bp"] == "e"
        assert any(span["ts"] - SLACK_US <= event["ts"] <= span["ts"] + span["dur"] + SLACK_US
                   for span in spans(events)[event["pid"], event["tid"]]), event


def test_no_order_has_an_arrow_from_a_record_that_it_does_not_refer_to(here: Run, tmp_path: Path, orders_first: None) -> None:
    here("--trace", "trace.json")
    events = read_trace(tmp_path / "trace.json")
    names = threads(events)
    begins = {event["id"]: names[event["pid"], event["tid"]] for event in events if event["ph"] == "s"}
    referred = {(f"users#{number}", f"orders#{number}") for number in range(1, 11)} | {
        (f"products#{1 if number == 9 else number}", f"orders#{number}") for number in range(1, 10)}
    assert {(begins[event["id"]], names[event["pid"], event["tid"]]) for event in events if event["ph"] == "f"} <= referred


@pytest.mark.parametrize("arguments", [("--batch-size", "1"), ("--batch-size", "9"), ()], ids=["1", "9", "default"])
def test_the_timeline_of_a_long_load_keeps_the_rules_too(here: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    write_users(tmp_path / "users.csv", 1200, lambda number: number % 10 == 0)
    (tmp_path / "products.csv").write_text("id,name,price\n1,Desk,1\n", encoding="utf-8")
    (tmp_path / "orders.csv").write_text("id,user_id,product_id,quantity\n" + "".join(
        f"{number},{1201 - number},1,1\n" for number in range(1, 1201)), encoding="utf-8")
    here("--users", "users.csv", "--products", "products.csv", "--orders", "orders.csv", "--trace", "trace.json", "-q", *arguments)
    events = read_trace(tmp_path / "trace.json")
    assert any(event["name"] == "commit" for event in events)


def test_the_timeline_of_a_dry_run_keeps_the_rules_too(here: Run, tmp_path: Path) -> None:
    here("-n", "--trace", "trace.json")
    assert read_trace(tmp_path / "trace.json")
    assert [path.name for path in tmp_path.iterdir()] == ["trace.json"]


@pytest.mark.parametrize("most", [0, 1, 10, 50, 100, 150])
def test_a_long_timeline_is_cut_and_says_so(here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(distributed_inserts, "TRACE_EVENTS_MAX", most)
    result = here("--trace", "trace.json")
    assert result.returncode == 0
    trace = json.loads((tmp_path / "trace.json").read_text(encoding="utf-8"))
    assert sum(event["ph"] != "M" for event in trace["traceEvents"]) <= most + 40       # as many threads may add at once
    assert re.search(r"timeline.*\b\d+ events", result.stderr)
    assert result.stderr.count("\n") == 1


def test_a_cut_timeline_keeps_the_rules(here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, orders_first: None) -> None:
    for most in range(90, 190, 2):
        monkeypatch.setattr(distributed_inserts, "TRACE_EVENTS_MAX", most)
        here("--trace", "trace.json", "--db-dir", most)
        read_trace(tmp_path / "trace.json")


def test_a_whole_timeline_says_nothing_of_a_cut(here: Run) -> None:
    assert here("--trace", "trace.json").stderr == ""


def test_values_in_the_timeline_are_bounded(here: Run, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text(f"id,name,email\n1,{'n' * 100_000},a@example.com\n{'2' * 100_000},N,b@example.com\n", encoding="utf-8")
    here("--users", "users.csv", "--trace", "trace.json", "--log-file", "log.txt", "-q")
    assert read_trace(tmp_path / "trace.json")
    assert (tmp_path / "trace.json").stat().st_size < 50_000
    assert (tmp_path / "log.txt").stat().st_size < 50_000


def test_the_timeline_is_whole_where_the_reader_of_the_output_has_gone(tmp_path: Path) -> None:
    write_users(tmp_path / "users.csv", 900)
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run([sys.executable, str(PROGRAM), "--users", "users.csv", "--trace", "trace.json", "--log-file", "log.txt"], cwd=tmp_path,
                            stdout=writer, stderr=subprocess.PIPE, timeout=TIMEOUT_S)
    os.close(writer)
    assert b"Traceback" not in result.stderr
    assert read_trace(tmp_path / "trace.json")
    assert log_lines(tmp_path / "log.txt")


def test_verify_writes_a_timeline_or_refuses_to(here: Run, tmp_path: Path) -> None:
    here("-q")
    result = here("--verify", "--trace", "trace.json")
    if result.returncode == 2:
        assert "--trace" in result.stderr
    else:
        assert read_trace(tmp_path / "trace.json")


def test_log_and_timeline_change_no_verdict(here: Run, tmp_path: Path) -> None:
    plain = here("--json", "--db-dir", "plain").stdout.splitlines()
    watched = here("--json", "--db-dir", "watched", "--log-file", "log.txt", "--trace", "trace.json").stdout.splitlines()
    assert plain[:-1] == watched[:-1]
    assert all(rows(tmp_path / "plain" / f"{table}.db") == rows(tmp_path / "watched" / f"{table}.db") for table in TABLES)
