"""The README's commands are real: all of them run in order, in one folder, and print what is shown."""

from __future__ import annotations

import doctest
import os
import re
import shutil
import subprocess
import sys

import pytest

from conftest import PROGRAM, ROOT, TIMEOUT_S

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
# What needs a network, a program of the reader's or a server that is not there; the tests of PostgreSQL have their own.
ELSEWHERE = re.compile(r"\b(uv|pip|git|curl|apt-get|brew|psql|createdb|docker)\b|postgres(ql)?://|-m venv|api\.py")


def steps() -> list[tuple[str, str]]:
    """Return the (command, output) pairs of all console blocks, in order."""
    text = "".join(block for language, block in BLOCKS if language == "console")
    return [
        (re.sub(r"\\\n(> )?", "", command), output)
        for command, output in re.findall(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE)
    ]


def neutral(text: str) -> str:
    """Return the text without what differs from run to run: seconds, and versions of Python and SQLite."""
    text = re.sub(r"(?<=[ |])\d+\.\d\d(?= s\b|$)", "0.00", text, flags=re.MULTILINE)
    text = re.sub(r'("seconds": ?)\d+\.\d+', r"\g<1>0.00", text)
    return re.sub(r"\b(Python|SQLite|PostgreSQL|psycopg) \d+(\.\d+)+", r"\1 0.0", text)


def shows(shown: str, printed: str) -> bool:
    """Whether the README shows what was printed; a line of `…` or `...` stands for any lines."""
    pattern = "".join(
        "(?s:.*)" if re.fullmatch(r" *(…|\.\.\.) *\n", line) else re.escape(line)
        for line in shown.splitlines(keepends=True)
    )
    return bool(re.fullmatch(pattern, printed))


@pytest.mark.skipif(sys.platform == "win32", reason="the sessions are of a POSIX shell")
def test_all_sessions_of_the_readme_are_real_in_order_and_in_one_folder(tmp_path):
    shutil.copy(PROGRAM, tmp_path)
    (tmp_path / "bin").mkdir()
    for name in ("python", "python3"):
        (tmp_path / "bin" / name).symlink_to(sys.executable)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {
        **os.environ,
        "PATH": path,
        "NO_COLOR": "1",
        "COLUMNS": "80",
        "PYTHONDONTWRITEBYTECODE": "1",
        "VIRTUAL_ENV": os.environ.get("VIRTUAL_ENV", sys.prefix),
    }
    ran = 0
    for command, output in steps():
        if ELSEWHERE.search(command):
            continue
        for name in re.findall(r"(?<=^cat )[\w./-]+$", command):
            if not (tmp_path / name).exists():
                (tmp_path / name).write_text(output, encoding="utf-8")  # the file that the reader has
        result = subprocess.run(
            command,
            shell=True,
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            timeout=TIMEOUT_S,
        )
        assert "Traceback" not in result.stdout and result.returncode in (0, 1), f"{command}\n{result.stdout}"
        if output.strip():  # a command alone, without what it prints, shows no more than itself
            assert shows(neutral(output), neutral(result.stdout)), f"$ {command}\n{result.stdout}\n--- shown:\n{output}"
        ran += 1
    assert ran >= 5


def python_blocks() -> list[str]:
    """Return the Python blocks that stand for themselves: no declaration to be put into the module, and no server."""
    return [
        block
        for language, block in BLOCKS
        if language == "python"
        and not block.startswith(" ")
        and not re.search(r"^(from|import) (flask|waitress)", block, re.MULTILINE)
    ]


@pytest.mark.parametrize("number", range(len(python_blocks())))
def test_the_python_blocks_of_the_readme_run(tmp_path, monkeypatch, number):
    monkeypatch.chdir(tmp_path)
    before = "import distributed_inserts\nfrom distributed_inserts import *\n"
    block, names = python_blocks()[number], {}
    exec(before, names)
    if ">>>" in block:
        test = doctest.DocTestParser().get_doctest(block, names, "README", "README.md", 0)
        assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test).failed == 0
        return
    exec(compile(block, "README.md", "exec"), names)
    tests = [value for name, value in names.items() if name.startswith("test_") and callable(value)]
    for test in tests:
        test()


def test_both_ways_into_the_module_are_in_the_readme():
    assert any("open_databases(" in block for block in python_blocks())
    assert any("validate_" in block and "def test_" in block for block in python_blocks())


def test_the_pictures_of_the_readme_are_there():
    named = re.findall(r"\]\((screenshots/[^)]+)\)", README)
    assert named and all((ROOT / name).is_file() for name in named)


def test_the_links_within_the_readme_lead_somewhere():
    anchors = {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= anchors
    assert all((ROOT / name).exists() for name in re.findall(r"\]\((?!https?:|#|screenshots/)([^)#]+)\)", README))


def test_every_heading_is_in_the_promised_order():
    headings = re.findall(r"^## (.*)$", README, re.MULTILINE)
    promised = [
        "Run it", "Load your own files", "What it promises", "Larger databases", "From your own program",
        "How it works", "Figures", "Add a model", "Run the tests",
    ]
    assert sorted(promised) == sorted(heading for heading in headings if heading in promised), headings


def test_the_test_command_is_the_one_that_ci_runs():
    commands = [block for language, block in BLOCKS if language == "sh" and "-m pytest" in block]
    assert commands and all(
        name in commands[0] for name in ("pytest", "hypothesis", "psycopg[binary]", "flask", "waitress")
    )


def test_the_model_of_the_readme_is_one_declaration(tmp_path):
    declaration = re.search(r"```python\n(    Schema\(.*?\n    \)\),\n)```", README, re.DOTALL).group(1)
    module = PROGRAM.read_text(encoding="utf-8")
    start = module.index("\nSCHEMAS")
    end = module.index("\n)\n", start)
    (tmp_path / "program.py").write_text(module[: end + 1] + declaration + module[end + 1 :], encoding="utf-8")
    (tmp_path / "reviews.csv").write_text(
        "id,order_id,title,stars,contact\n1,1,Fine,5,a@example.com\n2,1,FINE,0,b@example.com\n"
        "3,99,Good,4,c@example.com\n",
        encoding="utf-8",
    )
    for arguments, status in ((), 0), (("--reviews", "reviews.csv"), 1):
        result = subprocess.run(
            [sys.executable, "program.py", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=TIMEOUT_S,
            env={**os.environ, "NO_COLOR": "1"},
        )
        assert result.returncode == status, result.stderr
    printed = " ".join(result.stdout.split())
    assert 'reviews.csv:3: title: "FINE" is already taken by review 1' in printed and "[not_unique]" in printed
    assert "reviews.csv:3: stars: 0 is not greater than 0 [not_positive]" in printed
    assert "reviews.csv:4: order_id: 99 is not in orders.db [no_such_reference]" in printed
