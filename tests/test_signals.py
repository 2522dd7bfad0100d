"""Promises 1, 4 and 6, durable, convergent and honest, where a load is interrupted or its output is not taken.

SIGINT and SIGTERM at a load of which the end is not in sight, at one that waits for standard input, for a lock or for a
reader: exit status 130 or 143 within 2 s, counts that add up, what was reported is what is stored, and the same load
completes.  A standard output that is closed, full or refuses what is printed stops the printing alone.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from conftest import HEAVY, SAMPLE, execute, rows, some
from loads import (
    HOLD,
    INTERRUPT_S,
    SMALL_GROUPS,
    Load,
    Outcome,
    Running,
    check_complete,
    check_databases,
    check_reported,
    check_summary,
    locked,
    load_here,
    shell,
    stored_rows,
    wait_until,
    write_load,
)

if os.name != "posix":
    pytest.skip("signals and pipes as POSIX has them", allow_module_level=True)

import fcntl
import termios

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
ONE = pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=HEAVY)], ids=["SIGINT", "SIGTERM"]
)


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Three files."""
    return write_load(tmp_path_factory.mktemp("files"), seed=11, users=200, products=60, orders=200)


def running(folder: Path, *arguments: object, **options: object) -> Running:
    """Start the program as users do: what it prints to a pipe is buffered."""
    return Running(folder, *arguments, "--log-file", "log.txt", python=(), **options)


def waiting_bytes(pipe: int) -> int:
    """Return how many bytes are in a pipe and not read yet."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4), sys.byteorder)


def wait_until_read(process: Running) -> None:
    """Wait until the program has taken all that was fed to it."""
    wait_until(lambda: waiting_bytes(process.process.stdin.fileno()) == 0)


def wait_for_rows(folder: Path, model: str) -> None:
    """Wait until something is committed; nothing is written meanwhile, or the look at it may find a lock."""

    def has_rows() -> bool:
        with (
            suppress(sqlite3.OperationalError),
            closing(sqlite3.connect(f"file:{folder}/{model}.db?mode=ro", uri=True)) as connection,
        ):
            return bool(connection.execute(f"SELECT count(*) FROM {model}").fetchone()[0])

    wait_until(has_rows)


@contextmanager
def endless_users(folder: Path, load: Load, *arguments: object, **options: object) -> Iterator[Running]:
    """Run a load of three inputs of which the users, on standard input, never end; all of them are sound."""

    def feed() -> None:
        with suppress(OSError, ValueError):  # the program has ended
            load_.feed("id,name,email\n")
            for start in range(1, 1 << 40, 1000):
                load_.feed("".join(f"{id_},User {id_},user{id_}@example.com\n" for id_ in range(start, start + 1000)))

    with running(folder, *load.reading("users"), *arguments, stdin=subprocess.PIPE, **options) as load_:
        threading.Thread(target=feed, daemon=True).start()
        yield load_


def check_interrupted(folder: Path, outcome: Outcome) -> None:
    """Make sure that a load was interrupted in good order: counts add up, and what was reported is what is stored."""
    check_summary(outcome)
    stored = check_databases(folder)
    for model in outcome.summary:
        reported = [
            line["id"] for line in outcome.lines if line.get("model") == model and line["verdict"] == "inserted"
        ]
        assert sorted(reported) == [row[0] for row in stored[model]]


# ----------------------------------------------------------------------------------------------------- Signals


@pytest.mark.parametrize("arguments, number", some(3, [("--batch-size", "50"), ()], [signal.SIGINT, signal.SIGTERM]))
def test_an_interrupted_load_commits_what_is_on_its_way_and_says_so(tmp_path, load, number, arguments):
    with endless_users(tmp_path, load, "--json", *arguments) as process:
        process.line()
        outcome = process.interrupt(number)
    check_interrupted(tmp_path, outcome)
    assert outcome.summary["users"]["inserted"] > 0 and outcome.summary["users"]["failed"] == 0


@ONE
def test_an_interrupted_load_prints_its_summary_to_a_person_too(tmp_path, load, number):
    with endless_users(tmp_path, load) as process:
        wait_for_rows(tmp_path, "users")
        outcome = process.interrupt(number)
    count = f"{len(rows(tmp_path / 'users.db')):,}"
    assert re.search(rf"users\.db +{count} +{count} ", outcome.output), outcome.output
    assert "interrupted" in outcome.output + outcome.error


MANY_ORDERS = "".join(f"{id_},1,1,1\n" for id_ in range(1, 30_001))  # more than is read at once


@ONE
def test_a_load_that_waits_for_standard_input_can_be_interrupted(tmp_path, load, number):
    with running(tmp_path, "--json", *load.reading("orders"), stdin=subprocess.PIPE) as process:
        process.feed("id,user_id,product_id,quantity\n" + MANY_ORDERS)
        wait_for_rows(tmp_path, "users")
        wait_for_rows(tmp_path, "products")
        wait_until_read(process)
        outcome = process.interrupt(number)
    check_interrupted(tmp_path, outcome)
    assert outcome.summary["users"]["inserted"] > 0 and outcome.summary["products"]["inserted"] > 0


@ONE
@pytest.mark.parametrize("text", ["", "id,na"], ids=["nothing", "half a header"])
def test_a_load_that_waits_for_a_header_can_be_interrupted(tmp_path, load, number, text):
    # What tells that the program waits is its import being done: the file before standard input is open then.
    fifo = tmp_path / "users.csv"
    os.mkfifo(fifo)
    with running(tmp_path, "--json", "--users", fifo, "--orders", "-", stdin=subprocess.PIPE) as process:
        with fifo.open("w") as file:  # opens when the program opens its end
            file.write("id,name,email\n1,Ann,ann@example.com\n")
        process.feed(text)
        wait_until_read(process)
        process.process.send_signal(number)
        begin = time.monotonic()
        outcome = process.end()
    assert time.monotonic() - begin < INTERRUPT_S
    assert outcome.status in (128 + number, -number)  # a shell shows both as 130 or 143
    assert outcome.error == "" or outcome.error.startswith("distributed_inserts: ")


@pytest.mark.parametrize(
    "model, number",
    [
        ("users", signal.SIGINT),
        ("orders", signal.SIGTERM),
        pytest.param("products", signal.SIGINT, marks=HEAVY),
    ],
)
def test_a_load_that_waits_for_a_lock_can_be_interrupted(tmp_path, load, number, model):
    with locked(tmp_path / f"{model}.db"), running(tmp_path, "--json", *load.arguments) as process:
        process.wait_for_lock(model)
        outcome = process.interrupt(number)
    assert outcome.summary[model]["inserted"] == 0
    check_interrupted(tmp_path, outcome)
    check_reported(load, outcome, check_databases(tmp_path))
    check_complete(tmp_path, load, load_here(tmp_path, *load.arguments), again=True)


def test_a_group_that_waits_for_a_lock_can_be_interrupted(tmp_path, load):
    with endless_users(tmp_path, load, "--json", "--batch-size", "20") as process:
        process.line()
        with locked(tmp_path / "users.db"):
            process.wait_for_lock("users")
            outcome = process.interrupt(signal.SIGINT)
    check_interrupted(tmp_path, outcome)
    assert outcome.summary["users"]["inserted"] > 0 and outcome.summary["users"]["failed"] > 0


def test_look_ups_that_wait_for_a_lock_can_be_interrupted(tmp_path, load):
    load_here(tmp_path, *load.arguments[:4])
    with locked(tmp_path / "users.db", "BEGIN EXCLUSIVE"), running(tmp_path, "--json", *load.arguments[4:]) as process:
        process.wait_for_lock("users")
        outcome = process.interrupt(signal.SIGINT)
    assert outcome.summary["orders"]["inserted"] == 0 and outcome.summary["orders"]["failed"] > 0


@BOTH
def test_a_second_signal_ends_at_once(tmp_path, load, number):
    held = HOLD.format(model="users", call=1)  # so the first signal alone does not end it
    with running(tmp_path, "--json", *load.arguments, patch=held) as process:
        wait_until((tmp_path / "waiting").exists)
        process.process.send_signal(signal.SIGINT)
        end_s = time.monotonic() + 0.9
        while process.process.poll() is None and time.monotonic() < end_s:
            process.process.send_signal(number)  # signals that come too close together count as one
            with suppress(subprocess.TimeoutExpired):
                process.process.wait(0.02)
        assert process.process.poll() == 128 + number
        assert "summary" not in process.end().output
    check_databases(tmp_path)
    check_complete(tmp_path, load, load_here(tmp_path, *load.arguments), again=True)


def test_after_an_interrupt_the_same_load_completes(tmp_path, load):
    held = SMALL_GROUPS + HOLD.format(model="users", call=3)
    with running(tmp_path, "--json", *load.arguments, "--batch-size", 10, patch=held) as process:
        wait_until((tmp_path / "waiting").exists)
        process.process.send_signal(signal.SIGINT)
        (tmp_path / "go").touch()
        outcome = process.end(INTERRUPT_S + 1)
    assert outcome.status == 130
    check_interrupted(tmp_path, outcome)
    check_reported(load, outcome, check_databases(tmp_path))
    check_complete(tmp_path, load, load_here(tmp_path, *load.arguments), again=True)


def test_a_dry_run_that_is_interrupted_wrote_nothing(tmp_path, load):
    with running(tmp_path, "--json", "--dry-run", *load.reading("orders"), stdin=subprocess.PIPE) as process:
        process.feed("id,user_id,product_id,quantity\n" + MANY_ORDERS)
        wait_until_read(process)
        outcome = process.interrupt(signal.SIGINT)
    assert list(tmp_path.glob("*.db*")) == []
    assert outcome.lines == [] or outcome.lines[-1]["exit_status"] == 130


SLOW_SCAN = """
real = program.SqliteTable.scan
def scan(self, *arguments):
    for part in real(self, *arguments):
        open("waiting", "w").close()
        time.sleep(1)
        yield part
program.SqliteTable.scan = scan
"""


def test_a_check_of_what_is_stored_can_be_interrupted(tmp_path, load):
    load_here(tmp_path, *load.arguments)
    with running(tmp_path, "--json", "--verify", patch=SLOW_SCAN) as process:
        wait_until((tmp_path / "waiting").exists)
        process.interrupt(signal.SIGINT)
    assert check_databases(tmp_path) == load.rows


# ------------------------------------------------------------------------------------------------ Standard output


@pytest.mark.parametrize("arguments", ["", "--json", "-q", "--help", "--version"])
def test_a_reader_that_takes_one_line_only_ends_the_printing_alone(tmp_path, arguments):
    result = shell(tmp_path, f"PROGRAM {arguments} | head -1; exit ${{PIPESTATUS[0]}}")
    assert result.stderr == "" and result.stdout.count("\n") == 1 and result.returncode == 0
    if arguments in ("", "--json", "-q"):
        assert check_databases(tmp_path) == SAMPLE


@pytest.mark.parametrize("arguments", ["--json", "-v"])
@pytest.mark.parametrize("reader", ["head -1", "true"])
def test_a_reader_that_leaves_during_the_load_ends_the_printing_alone(tmp_path, arguments, reader):
    load = write_load(tmp_path / "files", seed=13, users=4000, products=2000, orders=10)
    result = shell(tmp_path, f"PROGRAM {shlex.join(load.arguments)} {arguments} | {reader}; exit ${{PIPESTATUS[0]}}")
    assert result.stderr == "" and result.returncode == 1  # as ever: some of the records are rejected
    assert check_databases(tmp_path) == load.rows


def test_a_reader_that_leaves_during_a_check_changes_nothing_of_its_exit_status(tmp_path):
    load = write_load(tmp_path / "files", seed=13, users=4000, products=10, orders=10)
    load_here(tmp_path, *load.arguments)
    execute(tmp_path / "users.db", "UPDATE users SET name = ''")
    result = shell(tmp_path, "PROGRAM -v --verify | head -1; exit ${PIPESTATUS[0]}")
    assert result.stderr == "" and result.returncode == 1


@pytest.mark.parametrize("output", ["| true", "| head -1", ">&-", ">/dev/full"])
@pytest.mark.parametrize("arguments", ["", "--json"])
def test_an_output_that_nobody_takes_hides_no_failed_database(tmp_path, load, arguments, output):
    (tmp_path / "users.db").write_bytes(b"this is no database\n" * 300)
    result = shell(tmp_path, f"PROGRAM {shlex.join(load.arguments)} {arguments} {output}; exit ${{PIPESTATUS[0]}}")
    assert result.returncode == 3
    assert re.search("^distributed_inserts: users.db: .*not a database", result.stderr, re.MULTILINE)
    assert stored_rows(tmp_path, "products") == load.rows["products"]


@pytest.mark.parametrize("arguments", ["", "--json", "-q", "--help", "--version"])
def test_a_closed_standard_output_is_told_and_no_reason_to_fail(tmp_path, arguments):
    result = shell(tmp_path, f"PROGRAM {arguments} >&-")
    assert (result.stdout, result.returncode) == ("", 0)
    if arguments in ("", "--json", "-q"):
        assert "standard output" in result.stderr and result.stderr.count("\n") == 1
        assert check_databases(tmp_path) == SAMPLE


@pytest.mark.parametrize("streams", [">&- 2>&-", "<&-", "<&- >&- 2>&-", "2>&-", "2>/dev/full"])
def test_other_closed_streams_do_no_harm(tmp_path, streams):
    assert shell(tmp_path, f"PROGRAM {streams}").returncode == 0
    assert check_databases(tmp_path) == SAMPLE


@pytest.mark.parametrize("arguments", ["", "--json", "--json --verify"])
def test_an_encoding_that_refuses_everything_fails_the_output_and_hangs_nothing(tmp_path, arguments):
    shell(tmp_path, "PROGRAM -q")
    result = shell(tmp_path, f"PYTHONIOENCODING=undefined:strict PROGRAM {arguments} 2>&1 >/dev/null")
    assert result.returncode == 3
    assert check_databases(tmp_path) == SAMPLE


def test_standard_input_that_is_closed_is_refused(tmp_path, load):
    result = shell(tmp_path, f"PROGRAM --users - {shlex.join(load.arguments[2:4])} <&-")
    assert result.returncode == 2 and "standard input" in result.stderr
    assert not list(tmp_path.glob("*.db"))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
@pytest.mark.parametrize("arguments", ["", "--json", "-q", "-v"])
def test_a_full_device_as_standard_output_is_told_and_the_records_are_stored(tmp_path, arguments):
    result = shell(tmp_path, f"PROGRAM {arguments} >/dev/full")
    assert result.returncode == 3 and result.stderr.count("\n") == 1
    assert result.stderr.startswith("distributed_inserts: ")
    assert "standard output" in result.stderr and "No space left" in result.stderr
    assert check_databases(tmp_path) == SAMPLE


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
@pytest.mark.parametrize("arguments", ["--help", "--version"])
def test_help_on_a_full_device_shows_no_traceback(tmp_path, arguments):
    shell(tmp_path, f"PROGRAM {arguments} >/dev/full")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_a_load_goes_on_when_its_standard_output_is_full(tmp_path):
    load = write_load(tmp_path / "files", seed=14, users=3000, products=2000, orders=2000)
    result = shell(tmp_path, f"PROGRAM {shlex.join(load.arguments)} --json >/dev/full")
    assert result.returncode == 3 and "standard output" in result.stderr
    assert check_databases(tmp_path) == load.rows


@contextmanager
def stuck(folder: Path, load: Load, **environment: str) -> Iterator[tuple[Running, int]]:
    """Run a load whose standard output is a pipe that nobody reads, until that is full; yields its other end too."""
    reading, writing = os.pipe()
    try:
        with endless_users(folder, load, "--json", stdout=writing, **environment) as process:
            os.close(writing)
            filled: list[int] = []

            def is_stuck() -> bool:
                filled.append(waiting_bytes(reading))
                return filled[-1] > 30_000 and len(filled) > 40 and len(set(filled[-40:])) == 1

            wait_until(is_stuck)
            yield process, reading
    finally:
        os.close(reading)


@ONE
@pytest.mark.parametrize(
    "unbuffered",
    [
        "",
        pytest.param(
            "1",
            marks=pytest.mark.xfail(
                strict=True, reason="Python's unbuffered output forgets what an interrupted write did not take"
            ),
        ),
    ],
    ids=["buffered", "unbuffered"],
)
def test_an_interrupt_loses_no_line_of_a_reader_that_is_slow(tmp_path, load, number, unbuffered):
    with stuck(tmp_path, load, PYTHONUNBUFFERED=unbuffered) as (process, reading):
        process.process.send_signal(number)
        output = b"".join(iter(lambda: os.read(reading, 1 << 16), b"")).decode()
        outcome = process.end()
    assert outcome.status == 128 + number
    outcome.output = output
    check_interrupted(tmp_path, outcome)


@pytest.mark.xfail(strict=True, reason="a blocked write to standard output is tried again after the signal, for ever")
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=HEAVY)])
def test_a_load_whose_output_nobody_reads_can_be_interrupted(tmp_path, load, number):
    with stuck(tmp_path, load) as (process, _):
        process.interrupt(number)
    check_databases(tmp_path)


def test_a_load_whose_output_nobody_reads_ends_at_the_second_signal(tmp_path, load):
    with stuck(tmp_path, load) as (process, _):

        def end() -> bool:
            process.process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.process.wait(0.05)
            return process.process.poll() is not None

        wait_until(end, timeout_s=INTERRUPT_S)
        assert process.process.poll() == 130
    check_databases(tmp_path)
