"""The README's sessions are real: each is run in a folder of its own and must print what the README shows."""
from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PROGRAM, ROOT, TIMEOUT_S

README = (ROOT / "README.md").read_text(encoding="utf-8")


def steps(section: str) -> list[tuple[str, str]]:
    """Return the (command, output) pairs of the console blocks of a section."""
    text = README.split(f"## {section}\n")[1].split("\n## ")[0]
    blocks = "".join(re.findall(r"```console\n(.*?)```", text, re.DOTALL))
    return [(command, output) for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", blocks, re.MULTILINE)]


def without_seconds(text: str) -> str:
    """Return the text with the figures of the last column of the summary masked."""
    return re.sub(r"\d+\.\d\d$", "0.00", text, flags=re.MULTILINE)


@pytest.mark.skipif(sys.platform == "win32", reason="the sessions are of a POSIX shell")
def test_the_session_of_the_readme_is_real(tmp_path: Path) -> None:
    shutil.copy(PROGRAM, tmp_path)
    session = steps("Load your own files")
    assert len(session) == 7
    for command, output in session:
        name = command.partition("cat ")[2]
        if name and not (tmp_path / name).exists():
            (tmp_path / name).write_text(output, encoding="utf-8")      # the file that the reader has
            continue
        command = re.sub(r"^python ", f"{sys.executable} ", command)
        result = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", timeout=TIMEOUT_S)
        printed = result.stdout.replace(f"  {Path(sys.executable).name} ", "  python ")
        assert without_seconds(printed) == without_seconds(output), command
        assert result.stderr == ""


def test_the_pictures_of_the_readme_are_there() -> None:
    named = re.findall(r"\]\((screenshots/[^)]+)\)", README)
    assert named and all((ROOT / name).is_file() for name in named)


def test_every_heading_is_in_the_promised_order() -> None:
    assert re.findall(r"^## (.*)$", README, re.MULTILINE) == [
        "Run it", "Load your own files", "What it promises", "How it works", "Figures", "Add a model", "Run the tests"]


def test_the_model_of_the_readme_is_one_declaration(tmp_path: Path) -> None:
    declaration = re.search(r"```python\n(    Schema\(.*?\n    \)\),\n)```", README, re.DOTALL).group(1)
    module = PROGRAM.read_text(encoding="utf-8")
    end = "\n)\n\n\ndef check_schemas"
    assert module.count(end) == 1
    (tmp_path / "program.py").write_text(module.replace(end, "\n" + declaration.rstrip() + end), encoding="utf-8")
    (tmp_path / "reviews.csv").write_text("id,order_id,title,stars,contact\n1,1,Fine,5,a@example.com\n2,1,FINE,0,b@example.com\n"
                                          "3,99,Good,4,c@example.com\n", encoding="utf-8")
    (tmp_path / "orders.csv").write_text("id,user_id,product_id,quantity\n", encoding="utf-8")
    for arguments, status in ((), 0), (("--reviews", "reviews.csv"), 1):
        result = subprocess.run([sys.executable, "program.py", *arguments], cwd=tmp_path, capture_output=True, text=True,
                                encoding="utf-8", timeout=TIMEOUT_S)
        assert result.returncode == status, result.stderr
    assert 'reviews.csv:3: title: "FINE" is already taken by review 1 [not_unique]' in result.stdout
    assert "reviews.csv:3: stars: 0 is not greater than 0 [not_positive]" in result.stdout
    assert "reviews.csv:4: order_id: 99 is not in orders.db [no_such_reference]" in result.stdout
