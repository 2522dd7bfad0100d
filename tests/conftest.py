"""What all tests share: the module, the program as a process of its own, and the marker of the heavy tests."""
from __future__ import annotations

import importlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "distributed_inserts.py"
TIMEOUT_S = 60
sys.path.insert(0, str(ROOT))
sys.dont_write_bytecode = True


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker of tests that take minutes: `python -m pytest -m heavy` runs them."""
    config.addinivalue_line("markers", "heavy: takes minutes; left out unless asked for with -m heavy")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the heavy tests out unless -m says something about them."""
    if "heavy" in (config.option.markexpr or ""):
        return
    heavy = [item for item in items if item.get_closest_marker("heavy")]
    config.hook.pytest_deselected(items=heavy)
    items[:] = [item for item in items if item not in heavy]


Run = Callable[..., subprocess.CompletedProcess]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that runs the program in an empty folder, as a user would, with its output as text."""

    def run_program(*arguments: object, stdin: str | bytes = b"", cwd: Path = tmp_path, timeout: float = TIMEOUT_S,
                    python: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        result = subprocess.run([sys.executable, *python, str(PROGRAM), *map(str, arguments)], input=data, cwd=cwd,
                                capture_output=True, timeout=timeout, env={**os.environ, "NO_COLOR": "1", **environment})
        result.stdout, result.stderr = result.stdout.decode("utf-8"), result.stderr.decode("utf-8")
        assert "Traceback" not in result.stderr + result.stdout, result.stderr
        return result

    return run_program


@pytest.fixture
def here(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that does what `run` does without a process of its own, which is faster."""
    monkeypatch.chdir(tmp_path)

    def run_here(*arguments: object) -> subprocess.CompletedProcess:
        try:
            status = importlib.import_module("distributed_inserts").main(list(map(str, arguments)))
        except SystemExit as exit_:
            status = exit_.code
        return subprocess.CompletedProcess(arguments, status, *capsys.readouterr())

    return run_here


def write_users(path: Path, count: int, bad: Callable[[int], bool] = lambda number: False) -> None:
    """Write users 1 to `count`; the bad ones have no name."""
    with open(path, "w", encoding="utf-8") as file:
        file.write("id,name,email\n")
        file.writelines(f"{number},{'' if bad(number) else 'User'},u{number}@example.com\n" for number in range(1, count + 1))


def rows(database: Path) -> list[tuple]:
    """Return all rows of the one table of a database, in the order of their ids."""
    connection = sqlite3.connect(database)
    try:
        return connection.execute(f"SELECT * FROM {database.stem} ORDER BY id").fetchall()
    finally:
        connection.close()
