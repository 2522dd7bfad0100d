"""Interrupted loads, and standard outputs that do not take what is printed."""
from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from conftest import rows
from loads import (MODELS, PROGRAM, TIMEOUT_S, Load, Outcome, Running, check_complete, check_databases, check_reported, locked,
                   run_load, wait_until, write_load)

if os.name != "posix":
    pytest.skip("signals and pipes as POSIX has them", allow_module_level=True)

import fcntl
import termios

INTERRUPT_S = 2                     # the contract's: how long an interrupted load may take to end
BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Three files."""
    return write_load(tmp_path_factory.mktemp("files"), seed=11)


def running(folder: Path, *arguments: object, **options: object) -> Running:
    """Start the program as users do: what it prints to a pipe is buffered."""
    return Running(folder, *arguments, "--log-file", "log.txt", python=(), **options)


def waiting_bytes(pipe: int) -> int:
    """Return how many bytes are in a pipe and not read yet."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4), sys.byteorder)


def wait_until_read(process: Running) -> None:
    """Wait until the program has taken all that was fed to it."""
    wait_until(lambda: waiting_bytes(process.process.stdin.fileno()) == 0)


def wait_for_log(folder: Path, words: str) -> None:
    """Wait until the log tells of something."""
    wait_until(lambda: (folder / "log.txt").exists() and words in (folder / "log.txt").read_text())


@contextmanager
def endless_users(folder: Path, load: Load, *arguments: object, **options: object) -> Iterator[Running]:
    """Run a load of three inputs of which the users, on standard input, never end; all of them are sound."""

    def feed() -> None:
        with suppress(OSError, ValueError):         # the program has ended
            load_.feed("id,name,email\n")
            for start in range(1, 1 << 40, 1000):
                load_.feed("".join(f"{id_},User {id_},user{id_}@example.com\n" for id_ in range(start, start + 1000)))

    with running(folder, *load.reading("users"), *arguments, stdin=subprocess.PIPE, **options) as load_:
        threading.Thread(target=feed, daemon=True).start()
        yield load_


def interrupted(process: Running, number: int) -> Outcome:
    """Send a signal and return what the program left, which has to end in time with the status of that signal."""
    process.process.send_signal(number)
    begin = time.monotonic()
    outcome = process.end(INTERRUPT_S + 1)
    assert time.monotonic() - begin < INTERRUPT_S
    assert outcome.status == 128 + number
    return outcome


def check_interrupted(folder: Path, outcome: Outcome) -> None:
    """Make sure that a load was interrupted in good order: counts add up, and what was reported is what is stored."""
    assert outcome.lines[-1]["exit_status"] == outcome.status
    stored = check_databases(folder)
    for model, counts in outcome.summary.items():
        reported = [line["id"] for line in outcome.lines if line.get("model") == model and line["verdict"] == "inserted"]
        assert sorted(reported) == [row[0] for row in stored[model]]
        assert counts["inserted"] == len(reported)
        assert counts["read"] == sum(counts[verdict] for verdict in ("inserted", "unchanged", "rejected", "failed")) == len(
            outcome.verdicts(model))


# ----------------------------------------------------------------------------------------------------- Signals


@BOTH
@pytest.mark.parametrize("arguments", [(), ("--batch-size", "50")], ids=["large batches", "small batches"])
def test_an_interrupted_load_commits_what_is_on_its_way_and_says_so(tmp_path, load, number, arguments):
    with endless_users(tmp_path, load, "--json", *arguments) as process:
        process.line()
        outcome = interrupted(process, number)
    check_interrupted(tmp_path, outcome)
    assert outcome.summary["users"]["inserted"] > 0 and outcome.summary["users"]["failed"] == 0


@BOTH
def test_an_interrupted_load_prints_its_summary_to_a_person_too(tmp_path, load, number):
    with endless_users(tmp_path, load) as process:
        wait_for_log(tmp_path, "users.db commit ends")
        outcome = interrupted(process, number)
    count = f"{len(rows(tmp_path / 'users.db')):,}"
    assert f"users.db {count} {count} 0 0 0" in " ".join(outcome.output.split())
    assert "interrupted" in outcome.output and "Run the same load again" in outcome.output


@BOTH
def test_a_load_that_waits_for_standard_input_can_be_interrupted(tmp_path, load, number):
    with running(tmp_path, "--json", *load.reading("orders"), stdin=subprocess.PIPE) as process:
        process.feed("id,user_id,product_id,quantity\n1,1,1,1\n")
        wait_for_log(tmp_path, "orders.db read begins")
        wait_until_read(process)
        outcome = interrupted(process, number)
    check_interrupted(tmp_path, outcome)
    assert outcome.summary["users"]["inserted"] > 0 and outcome.summary["products"]["inserted"] > 0


@BOTH
@pytest.mark.parametrize("text", ["", "id,na"], ids=["nothing", "half a header"])
def test_a_load_that_waits_for_a_header_can_be_interrupted(tmp_path, load, number, text):
    # What tells that the program waits is its import being done: the file before standard input is open then.
    fifo = tmp_path / "users.csv"
    os.mkfifo(fifo)
    with running(tmp_path, "--json", "--users", fifo, "--orders", "-", stdin=subprocess.PIPE) as process:
        with fifo.open("w") as file:                # opens when the program opens its end
            file.write("id,name,email\n1,Ann,ann@example.com\n")
        process.feed(text)
        wait_until_read(process)
        process.process.send_signal(number)
        begin = time.monotonic()
        outcome = process.end()
    assert time.monotonic() - begin < INTERRUPT_S
    assert outcome.status in (128 + number, -number)        # a shell shows both as 130 or 143
    assert outcome.error == "" or outcome.error.startswith("distributed_inserts: ")


@pytest.mark.parametrize("model, number", [
    ("users", signal.SIGINT), ("orders", signal.SIGTERM), pytest.param("products", signal.SIGINT, marks=pytest.mark.heavy)])
def test_a_load_that_waits_for_a_lock_can_be_interrupted(tmp_path, load, number, model):
    with locked(tmp_path / f"{model}.db"), running(tmp_path, "--json", *load.arguments) as process:
        wait_for_log(tmp_path, " locked ")
        outcome = interrupted(process, number)
    assert outcome.summary[model]["inserted"] == 0 and f"{model}.db" in outcome.error
    check_interrupted(tmp_path, outcome)
    check_complete(tmp_path, load, run_load(tmp_path, *load.arguments), again=True)


def test_a_group_that_waits_for_a_lock_can_be_interrupted(tmp_path, load):
    with endless_users(tmp_path, load, "--json", "--batch-size", "20") as process:
        process.line()
        with locked(tmp_path / "users.db"):
            wait_for_log(tmp_path, "users.db locked ")
            outcome = interrupted(process, signal.SIGINT)
    check_interrupted(tmp_path, outcome)
    assert outcome.summary["users"]["inserted"] > 0 and outcome.summary["users"]["failed"] > 0


def test_look_ups_that_wait_for_a_lock_can_be_interrupted(tmp_path, load):
    run_load(tmp_path, *load.arguments[2:4])
    with locked(tmp_path / "users.db", "BEGIN EXCLUSIVE"), running(tmp_path, "--json", *load.arguments[4:]) as process:
        wait_for_log(tmp_path, "users.db locked ")
        outcome = interrupted(process, signal.SIGINT)
    assert outcome.summary["orders"]["inserted"] == 0 and outcome.summary["orders"]["failed"] > 0


@BOTH
def test_a_second_signal_ends_at_once(tmp_path, load, number):
    with locked(tmp_path / "users.db"), running(tmp_path, "--json", *load.arguments) as process:
        wait_for_log(tmp_path, "users.db locked ")          # so the first signal alone leaves it a second to wait
        process.process.send_signal(signal.SIGINT)
        end_s = time.monotonic() + 0.9
        while process.process.poll() is None and time.monotonic() < end_s:
            process.process.send_signal(number)             # signals that come too close together count as one
            with suppress(subprocess.TimeoutExpired):
                process.process.wait(0.02)
        assert process.process.poll() == 128 + number
        assert "summary" not in process.end().output
    check_databases(tmp_path)
    check_complete(tmp_path, load, run_load(tmp_path, *load.arguments), again=True)


def test_after_an_interrupt_the_same_load_completes(tmp_path):
    load = write_load(tmp_path / "files", seed=12, users=9000, orders=1000)
    lines = load.path("users").read_text().splitlines(keepends=True)
    with running(tmp_path, "--json", *load.reading("users"), stdin=subprocess.PIPE) as process:
        process.feed("".join(lines[:8500]))
        wait_for_log(tmp_path, "users.db commit ends")
        wait_until_read(process)
        outcome = interrupted(process, signal.SIGINT)
    check_interrupted(tmp_path, outcome)
    check_reported(load, outcome, check_databases(tmp_path))
    check_complete(tmp_path, load, run_load(tmp_path, *load.arguments), again=True)


def test_an_interrupt_lets_no_record_take_the_id_of_one_in_doubt(tmp_path):
    (tmp_path / "orders.csv").write_text("id,user_id,product_id,quantity\n1,2,1,5\n1,1,1,7\n")
    (tmp_path / "products.csv").write_text("id,name,price\n1,Mouse,30\n")
    (tmp_path / "known.csv").write_text("id,name,email\n1,Ann,ann@example.com\n")
    (tmp_path / "users.csv").write_text("id,name,email\n2,Bob,bob@example.com\n")
    run_load(tmp_path, "--users", "known.csv", "--products", "products.csv")
    arguments = ["--orders", "orders.csv", "--users"]
    with locked(tmp_path / "users.db"), running(tmp_path, "--json", *arguments, "users.csv") as process:
        wait_for_log(tmp_path, "orders#2 orders.db wait for references begins")
        interrupted(process, signal.SIGINT)
    run_load(tmp_path, *arguments, "users.csv")
    assert rows(tmp_path / "orders.db") == [(1, 2, 1, 5)]


# ------------------------------------------------------------------------------------------------ Standard output


def shell(folder: Path, command: str) -> subprocess.CompletedProcess:
    """Run a command line of the shell in which PROGRAM is the program."""
    folder.mkdir(parents=True, exist_ok=True)
    words = f"{shlex.quote(sys.executable)} {shlex.quote(str(PROGRAM))}"
    result = subprocess.run(["bash", "-c", command.replace("PROGRAM", words)], cwd=folder, capture_output=True, text=True,
                            timeout=TIMEOUT_S, env={**os.environ, "NO_COLOR": "1", "PYTHONUNBUFFERED": ""})
    assert "Traceback" not in result.stderr and "Exception ignored" not in result.stderr, result.stderr
    return result


@pytest.mark.parametrize("arguments", ["", "--json", "-q", "--help", "--version"])
def test_a_reader_that_takes_one_line_only_ends_it_quietly(tmp_path, arguments):
    result = shell(tmp_path, f"PROGRAM {arguments} | head -1; exit ${{PIPESTATUS[0]}}")
    assert result.stderr == "" and result.stdout.count("\n") == 1
    assert result.returncode in (0, 141)
    check_databases(tmp_path)


@pytest.mark.parametrize("arguments", ["--json", "-v", "-v --verify"])
def test_a_reader_that_leaves_during_the_output_ends_it_quietly(tmp_path, arguments):
    load = write_load(tmp_path / "files", seed=13, users=9000, products=2000, orders=10)
    files = "" if "verify" in arguments else shlex.join(load.arguments)
    if not files:
        shell(tmp_path, f"PROGRAM {shlex.join(load.arguments)} -q")
        for table in ("users", "products"):
            subprocess.run([sys.executable, "-c", "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute(sys.argv[2]);"
                            "c.commit()", tmp_path / f"{table}.db", f"UPDATE {table} SET name = ''"], check=True, timeout=TIMEOUT_S)
    result = shell(tmp_path, f"PROGRAM {files} {arguments} | head -1; exit ${{PIPESTATUS[0]}}")
    assert result.stderr == "" and result.returncode in (1, 141)        # 1 if all was stored by then
    if files:
        assert set(check_databases(tmp_path)["users"]) <= set(load.rows["users"])
        check_complete(tmp_path, load, run_load(tmp_path, *load.arguments), again=True)


@pytest.mark.parametrize("arguments", ["", "--json", "-q", "--help", "--version"])
def test_a_closed_standard_output_is_no_reason_to_fail(tmp_path, arguments):
    result = shell(tmp_path, f"PROGRAM {arguments} >&-")
    assert (result.stdout, result.returncode) == ("", 0)
    if arguments in ("", "--json", "-q"):
        assert result.stderr == ""
        assert {model: len(stored) for model, stored in check_databases(tmp_path).items()} == {"users": 8, "products": 8, "orders": 6}


@pytest.mark.parametrize("streams", [">&- 2>&-", "<&-", "<&- >&- 2>&-", "2>&-", "2>/dev/full"])
def test_other_closed_streams_do_no_harm(tmp_path, streams):
    assert shell(tmp_path, f"PROGRAM {streams}").returncode == 0
    assert {model: len(stored) for model, stored in check_databases(tmp_path).items()} == {"users": 8, "products": 8, "orders": 6}


@pytest.mark.parametrize("arguments", ["", "--json", "--json --verify"])
def test_an_encoding_that_refuses_everything_fails_the_output_and_hangs_nothing(tmp_path, arguments):
    shell(tmp_path, "PROGRAM -q")
    result = shell(tmp_path, f"PYTHONIOENCODING=undefined:strict PROGRAM {arguments} 2>&1 >/dev/null")
    assert result.returncode == 3
    assert {model: len(stored) for model, stored in check_databases(tmp_path).items()} == {"users": 8, "products": 8, "orders": 6}


def test_standard_input_that_is_closed_is_refused(tmp_path):
    load = write_load(tmp_path / "files")
    result = shell(tmp_path, f"PROGRAM --users - {shlex.join(load.arguments[2:4])} <&-")
    assert result.returncode == 2 and "standard input is closed" in result.stderr
    assert not list(tmp_path.glob("*.db"))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
@pytest.mark.parametrize("arguments", ["", "--json", "-q", "-v"])
def test_a_full_device_as_standard_output_is_told_and_the_records_are_stored(tmp_path, arguments):
    result = shell(tmp_path, f"PROGRAM {arguments} >/dev/full")
    assert result.returncode == 3 and result.stderr.count("\n") == 1
    assert result.stderr.startswith("distributed_inserts: ") and "standard output" in result.stderr and "No space left" in result.stderr
    assert {model: len(stored) for model, stored in check_databases(tmp_path).items()} == {"users": 8, "products": 8, "orders": 6}


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
    """Run a load whose standard output is a pipe that nobody reads, until it is full; yields the pipe's other end too."""
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


@BOTH
@pytest.mark.parametrize("unbuffered", ["", pytest.param("1", marks=pytest.mark.xfail(
    strict=True, reason="Python's unbuffered output forgets what an interrupted write did not take"))])
def test_an_interrupt_loses_no_line_of_a_reader_that_is_slow(tmp_path, load, number, unbuffered):
    with stuck(tmp_path, load, PYTHONUNBUFFERED=unbuffered) as (process, reading):
        process.process.send_signal(number)
        output = b"".join(iter(lambda: os.read(reading, 1 << 16), b"")).decode()
        outcome = process.end()
    assert outcome.status == 128 + number
    outcome.output = output
    check_interrupted(tmp_path, outcome)


@pytest.mark.xfail(strict=True, reason="a blocked write to standard output is tried again after the signal, for ever")
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.heavy)])
def test_a_load_whose_output_nobody_reads_can_be_interrupted(tmp_path, load, number):
    with stuck(tmp_path, load) as (process, _):
        interrupted(process, number)
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
