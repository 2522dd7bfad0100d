"""The command line: help, version, usage errors and what they advise, exit statuses, what nothing may overwrite."""
from __future__ import annotations

import json
import os
import platform
import re
import shlex
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import distributed_inserts
from conftest import MODELS, PROGRAM, Run, TIMEOUT_S, contents, rows

FLAGS = ("--users", "--products", "--orders", "--db", "--encoding", "--replace", "--dry-run", "--verify", "--rejects",
         "--batch-size",
         "--busy-timeout", "--json", "--log-file", "--trace", "--version", "--help")
DROPPED = ("--db-dir", "--max-errors", "--input-format")
GOOD_USERS = "id,name,email\n1,Ann,ann@example.com\n2,Ben,ben@example.com\n"
MIXED_USERS = GOOD_USERS + ("3,,cat@example.com\n4,Dan,ann@example.com\n2,Ben,ben@example.com\n"
                            "1,Other,other@example.com\n5,Eve,eve\n1,2\n")
PRODUCTS = "id,name,price\n1,Desk,99.50\n2,Lamp,0\n3,desk,5\n"
ORDERS = "id,user_id,product_id,quantity\n1,1,1,1\n2,3,1,1\n3,1,2,1\n4,1,1,0\n5,77,1,x\n6,2,1,9\n"


def write_inputs(folder: Path, users: str = MIXED_USERS, products: str = PRODUCTS, orders: str = ORDERS) -> list[str]:
    """Write three CSV files and return the flags that name them."""
    folder.mkdir(exist_ok=True)
    for model, text in zip(MODELS, (users, products, orders)):
        (folder / f"{model}.csv").write_text(text, encoding="utf-8", newline="")
    return [word for model in MODELS for word in (f"--{model}", str(folder / f"{model}.csv"))]


def parsed(text: str) -> tuple[list[dict], dict]:
    """Return the record lines and the summary line of output in JSON."""
    *lines, last = map(json.loads, text.splitlines())
    return lines, last


# -------------------------------------------------------------------------------------------------------- The file


def test_the_file_can_be_run_by_its_name_and_by_uv() -> None:
    text = PROGRAM.read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env ")
    block = re.search(r"(?m)^# /// script\n((?:#(?: .*)?\n)+?)# ///$", text)          # as PEP 723 says
    assert block
    lines = [line[2:] for line in block[1].splitlines()]
    assert 'requires-python = ">=3.10"' in lines
    assert "dependencies = []" in lines
    if sys.version_info >= (3, 11):
        import tomllib
        assert tomllib.loads("\n".join(lines)) == {"requires-python": ">=3.10", "dependencies": []}


@pytest.mark.skipif(os.name == "nt", reason="files have no run bit there")
def test_the_file_has_its_run_bit(tmp_path: Path) -> None:
    assert os.access(PROGRAM, os.X_OK)
    result = subprocess.run([str(PROGRAM), "--version"], capture_output=True, timeout=TIMEOUT_S, cwd=tmp_path)
    assert result.returncode == 0


def test_nothing_but_the_standard_library_is_imported_for_sqlite(tmp_path: Path) -> None:
    code = (f"import sys; sys.path.insert(0, {str(PROGRAM.parent)!r}); import distributed_inserts\n"
            "assert distributed_inserts.main(['-q', '--trace', 'trace.json', '--log-file', 'log.txt']) == 0\n"
            "assert distributed_inserts.main(['-q', '--verify']) == 0\n"
            "known = sys.stdlib_module_names | {'__main__', 'distributed_inserts'}\n"
            "foreign = {name.partition('.')[0] for name in sys.modules} - known\n"
            "assert not foreign, foreign")
    result = subprocess.run([sys.executable, "-I", "-S", "-X", "dev", "-W", "error", "-c", code], cwd=tmp_path,
                            capture_output=True,
                            timeout=TIMEOUT_S, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_main_takes_arguments_and_returns_the_status(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "users.csv").write_text(MIXED_USERS, encoding="utf-8")
    assert distributed_inserts.main(["--db", "sample", "-q"]) == 0
    capsys.readouterr()
    status = distributed_inserts.main(["--users", "users.csv", "--json"])
    assert status == 1 and type(status) is int
    assert parsed(capsys.readouterr().out)[1]["exit_status"] == 1
    monkeypatch.setattr(sys, "argv", ["distributed_inserts.py", "--db", "sample", "-q"])
    assert distributed_inserts.main() == 0


# ------------------------------------------------------------------------------------------- --help and --version


def test_help_names_every_flag_every_model_and_every_exit_status(run: Run) -> None:
    result = run("--help")
    assert (result.returncode, result.stderr) == (0, "")
    for flag in (*FLAGS, "-n", "-v", "-q", "-h"):
        assert re.search(rf"(?<![\w-]){flag}(?![\w-])", result.stdout), flag
    assert not any(re.search(rf"{flag}(?![\w-])", result.stdout) for flag in DROPPED)
    statuses = result.stdout[result.stdout.lower().rindex("exit status"):]
    assert all(re.search(rf"\b{status}\b", statuses) for status in ("0", "1", "2", "3", "130", "143"))
    assert "postgresql://" in result.stdout and "{model}" in result.stdout


@pytest.mark.parametrize("environment", [{}, {"COLUMNS": "80"}, {"COLUMNS": "200"}], ids=["unset", "80", "200"])
def test_help_fits_80_columns(run: Run, environment: dict[str, str]) -> None:
    lines = run("--help", **environment).stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert not any(line != line.rstrip() for line in lines)


def test_help_has_examples_first_then_models_with_their_rules_then_options_in_groups_then_exit_statuses(
    run: Run) -> None:
    text = run("--help").stdout
    places = [text.lower().index("examples"), text.lower().index("models"), text.index("\n  --users FILE"),
              text.lower().rindex("exit status")]
    assert places == sorted(places)
    assert text.startswith("usage:") and len(text[:places[0]].strip().splitlines()) <= 5
    models = text[places[1]:places[2]]
    for schema in distributed_inserts.SCHEMAS:
        assert schema.table in models and all(re.search(rf"\b{field.name}\b", models) for field in schema.fields)
    for rule in ("unique", "blank", "ignoring case", "15", "e-mail", "whole number"):
        assert rule in models
    groups = re.findall(r"(?m)^(\w[^\n]*):\n(?=  -)", text[places[1]:])
    assert len(groups) >= 2


def test_h_is_help(run: Run) -> None:
    assert run("-h").stdout == run("--help").stdout


def test_the_examples_of_the_help_are_valid_command_lines(run: Run) -> None:
    text = run("--help").stdout
    examples = text[text.lower().index("examples"):text.lower().index("models")]
    commands = [shlex.split(re.split(r"\s{2,}#?", line.strip())[0]) for line in examples.splitlines()[1:]
                if "distributed_inserts.py" in line]
    assert len(commands) >= 3
    for words in commands:
        at = next(number for number, word in enumerate(words) if word.endswith("distributed_inserts.py"))
        result = run(*words[at + 1:], "--version")                 # which ends the program when all is understood
        assert (result.returncode, result.stderr) == (0, ""), words


def test_version_names_pythons_and_sqlites_too(run: Run, tmp_path: Path) -> None:
    result = run("--version")
    assert result.returncode == 0
    for version in (distributed_inserts.__version__, platform.python_version(), sqlite3.sqlite_version):
        assert version in result.stdout
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------------------- Usage errors


@pytest.mark.parametrize("arguments", [
    ("-v", "-q"), ("--batch-size", "-1"), ("--batch-size", ""), ("--batch-size", "9" * 5000),
    ("--busy-timeout", "1e999"), ("--busy-timeout", ""), ("--users", "-", "--orders", "-"), ("--users", "."),
    ("--verify", "--dry-run"), ("--verify", "--replace"), ("--verify", "--users", "-"),
    ("--verify", "--rejects", "rejects"), ("--users", "-", "--encoding", "klingon"), ("--log-file", "missing/log.txt"),
    ("--log-file", "."), ("--trace", "."), *((flag, "1") for flag in DROPPED),
], ids=lambda arguments: " ".join(arguments)[:40])
def test_wrong_usage_exits_2_says_why_and_writes_nothing(here: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    result = here(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert all(line.isprintable() for line in result.stderr.splitlines())
    assert 10 < len(result.stderr) < 2000 and "Error(" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_message_about_a_wrong_argument_shows_it_escaped(run: Run) -> None:
    for arguments in (["--users", "\x1b[31m\u202e.csv"], ["--batch-size", "\x1b[31m"], ["\x1b]0;title\x07"], ["--\x1b"],
                      ["--encoding", "\x1b", "--users", "-"],
                      ["--db", "\x1b\u202e", "--verify"]):
        result = run(*arguments)
        assert result.returncode == 2
        assert all(line.isprintable() for line in result.stderr.splitlines()), arguments


@pytest.mark.skipif(os.name == "nt", reason="a surrogate is what POSIX makes of bytes that are no text")
def test_an_argument_that_is_no_text_is_wrong_usage_and_no_traceback(run: Run, tmp_path: Path) -> None:
    for arguments in (["--users", "\udcff\udcfe"], ["--verify", "--db", "\udcff"], ["\udcff"],
                      ["--batch-size", "\udcff"]):
        assert run(*arguments).returncode == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [
    ("--log-file", "missing/log.txt"), ("--trace", "missing/trace.json"), ("--db", "a file"), ("--db", "a file/below"),
    ("--products", "missing.csv"), ("--products", "broken.csv"), ("--products", "binary.jsonl"), ("--batch-size", "x")],
    ids=" ".join)
def test_whatever_exits_2_leaves_everything_as_it_was(here: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "users.csv").write_text(GOOD_USERS + "3,,\n", encoding="utf-8")
    (tmp_path / "broken.csv").write_text("id,name\n", encoding="utf-8")
    (tmp_path / "binary.jsonl").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "a file").write_text("", encoding="utf-8")
    here("--users", "users.csv", "--rejects", "rejects", "--db", "earlier")
    before = contents(tmp_path)
    result = here("--users", "users.csv", "--rejects", "rejects", *arguments)
    assert (result.returncode, result.stdout) == (2, "") and result.stderr
    assert contents(tmp_path) == before


# ------------------------------------------------------------------------------------------------ Exit statuses


@pytest.mark.parametrize(("users", "status"), [
    (GOOD_USERS, 0), ("id,name,email\n", 0), (MIXED_USERS, 1), ("id,name,email\nx,,\n", 1), ("id,name\n", 2)],
    ids=["good", "no record", "some rejected", "all rejected", "no column"])
def test_the_exit_status_says_what_became_of_the_load(run: Run, tmp_path: Path, users: str, status: int) -> None:
    (tmp_path / "users.csv").write_text(users, encoding="utf-8")
    result = run("--users", "users.csv", "--json")
    assert result.returncode == status
    if status != 2:
        lines, summary = parsed(result.stdout)
        assert summary["exit_status"] == status
        assert sum(counts["read"] for counts in summary["summary"].values()) == len(lines)
        assert not (stored := summary["summary"]["users"]["inserted"]) or len(rows(tmp_path, "users")) == stored


def test_a_failed_database_exits_3_names_it_and_the_others_finish(run: Run, tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path)
    (tmp_path / "users.db").write_bytes(b"this is no database " * 100)
    result = run(*inputs, "--json")
    assert result.returncode == 3
    lines, summary = parsed(result.stdout)
    assert summary["exit_status"] == 3
    assert {line["verdict"] for line in lines if line["model"] == "users"} == {"failed", "rejected"}
    assert summary["summary"]["products"]["inserted"] == len(rows(tmp_path, "products")) == 1
    orders = {line["id"]: line["verdict"] for line in lines if line["model"] == "orders"}
    assert orders.pop(3) in ("rejected", "failed")              # its product was rejected, its user cannot be looked up
    assert orders == {1: "failed", 2: "failed", 4: "rejected", 5: "rejected", 6: "failed"}
    assert "users.db" in result.stderr
    assert (tmp_path / "users.db").read_bytes() == b"this is no database " * 100


@pytest.mark.parametrize("seconds", ["0", "0.5", "30", "1e3"])
def test_a_busy_timeout_in_seconds_is_taken(here: Run, seconds: str) -> None:
    assert here("--busy-timeout", seconds, "-q").returncode == 0


def test_a_locked_database_fails_after_the_busy_timeout_and_the_load_can_be_repeated(here: Run, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text(GOOD_USERS, encoding="utf-8")
    here("--users", "users.csv")
    (tmp_path / "more.csv").write_text(GOOD_USERS + "3,Cat,cat@example.com\n", encoding="utf-8")
    with closing(sqlite3.connect(tmp_path / "users.db", isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        result = here("--users", "more.csv", "--busy-timeout", "0.2", "--json")
    assert result.returncode == 3
    assert {line["verdict"] for line in parsed(result.stdout)[0]} == {"failed"}
    assert "users.db" in result.stderr and "locked" in result.stderr and result.stderr.count("\n") <= 3
    again = here("--users", "more.csv", "--json")
    assert [line["verdict"] for line in parsed(again.stdout)[0]] == ["unchanged", "unchanged", "inserted"]


@pytest.mark.parametrize("size", ["1", "2", "1000", "1000000"])
def test_any_batch_size_loads_the_same(here: Run, tmp_path: Path, size: str) -> None:
    inputs = write_inputs(tmp_path)
    default, other = here(*inputs, "--json", "--db", "default"), here(*inputs, "--json", "--db", "other",
                                                                      "--batch-size", size)
    assert other.returncode == default.returncode == 1
    for model in MODELS:
        assert [line for line in parsed(default.stdout)[0] if line["model"] == model] == [
            line for line in parsed(other.stdout)[0] if line["model"] == model]


# ---------------------------------------------------------------------------------------- Inputs, and where things go


def test_standard_input_can_be_any_one_of_the_files(run: Run, tmp_path: Path) -> None:
    write_inputs(tmp_path)
    result = run("--users", "users.csv", "--products", "products.csv", "--orders", "-", "--json", stdin=ORDERS)
    assert result.returncode == 1
    lines, _ = parsed(result.stdout)
    assert [line["verdict"] for line in lines if line["model"] == "orders"] == ["inserted"] + ["rejected"] * 4 + [
        "inserted"]
    assert [(row[0], row[1]) for row in rows(tmp_path, "orders")] == [(1, 1), (6, 2)]


@pytest.mark.parametrize("folder", ["new", "new/and/deep", "with space and ü", "100%", "a&b", "file:x", "%41?x=1#y",
                                    "{users}"])
def test_the_folder_of_the_databases_is_made_if_missing(here: Run, tmp_path: Path, folder: str) -> None:
    assert here("--db", folder).returncode == 0
    assert sorted(path.name for path in (tmp_path / folder).iterdir()) == [f"{model}.db" for model in sorted(MODELS)]
    assert [path.name for path in tmp_path.iterdir()] == [folder.partition("/")[0]]
    assert here("--db", folder, "--verify").returncode == 0


def test_only_the_databases_of_the_named_files_are_made(here: Run, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text(GOOD_USERS, encoding="utf-8")
    here("--users", "users.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["users.csv", "users.db"]


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="there is no /dev/null here")
def test_the_log_may_go_to_a_device(here: Run) -> None:
    assert here("-q", "--log-file", "/dev/null").returncode == 0
