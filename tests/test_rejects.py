"""Promise 8 and --rejects: rejected records come back as they were read, and nothing of somebody else's is overwritten.

Files in all formats and encodings are loaded through the command; what is in the folder of rejects is compared byte for byte.
"""
from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import PROGRAM, TIMEOUT_S, Run, rows

GOOD, BAD = "1,Ann,ann@example.com", '2,"Bo, ""the"" Li",bo@example'
ENCODINGS = {"utf-8": b"", "utf-8 with mark": b"\xef\xbb\xbf", "utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}


def errors(folder: Path) -> list[dict]:
    """Return the lines of errors.jsonl."""
    return [json.loads(line) for line in (folder / "errors.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("size", ["1", "7"])
def test_a_csv_file_of_rejects_has_the_header_and_the_rows_byte_for_byte(here: Run, tmp_path: Path, encoding: str, end: str, size: str) -> None:
    lines = [" ID ,name,EMAIL", GOOD, BAD, "", "3,Zoë \t , zoe@example.com ", "4,  ,\u00a0jane@example.com", "x,,", "5,Ä\x07,a@example.com"]
    mark, codec = ENCODINGS[encoding], encoding.partition(" ")[0]
    (tmp_path / "in.csv").write_bytes(mark + end.join([*lines, ""]).encode(codec))
    assert here("--users", "in.csv", "--rejects", "back", "--batch-size", size).returncode == 1
    expected = [lines[0], lines[2], *lines[5:]]
    assert (tmp_path / "back/users.csv").read_bytes() == mark + end.join([*expected, ""]).encode(codec)
    assert [(each["line"], each["rejects_line"]) for each in errors(tmp_path / "back")] == [(3, 2), (6, 3), (7, 4), (7, 4), (7, 4), (8, 5)]


def test_bytes_that_are_no_text_stray_quotes_and_cells_of_several_lines_come_back_as_they_were(here: Run, tmp_path: Path) -> None:
    raws = [b'1,"two\nlines",a@example\n', b"2,Andr\xe9,b@example.com\n", b'3,"open,c@example.com\n', b"4,Dee\n", b'5,Eve "x",e@example\n']
    (tmp_path / "in.csv").write_bytes(b"id,name,email\n" + b"".join(raws) + b"6,Fay,fay@example.com\n")
    assert here("--users", "in.csv", "--rejects", "back").returncode == 1
    assert (tmp_path / "back/users.csv").read_bytes() == b"id,name,email\n" + b"".join(raws)
    assert rows(tmp_path / "users.db") == [(6, "Fay", "fay@example.com")]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt", ".csv.gz"])
def test_separators_and_compression_of_the_input_do_not_matter(here: Run, tmp_path: Path, suffix: str) -> None:
    text = "id;name;email\n1;Ann;ann@example.com\n2;Bo;bo@example"            # without an end of its last line
    data = text.encode()
    (tmp_path / f"in{suffix}").write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
    assert here("--users", f"in{suffix}", "--rejects", "back").returncode == 1
    assert (tmp_path / "back/users.csv").read_text() == "id;name;email\n2;Bo;bo@example\n"


def element(number: int, email: str, end: str = ",") -> str:
    """Return an element of an array on three lines."""
    return f'{{"id": {number},\n  "note": [{{"a": "}}, {{"}}],\n  "name": "Zoë", "email": "{email}"}}{end}\n'


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_json_array_of_rejects_holds_the_elements_as_they_were_written(here: Run, tmp_path: Path, encoding: str, wrapped: bool) -> None:
    mark, codec = ENCODINGS[encoding], encoding.partition(" ")[0]
    array = f"[\n{element(1, 'a@example.com')}{element(2, 'b@example')}{element(3, 'c@example', '')}]"
    (tmp_path / "in.json").write_bytes(mark + (f'{{"users": {array}}}' if wrapped else array).encode(codec))
    assert here("--users", "in.json", "--rejects", "back").returncode == 1
    data = (tmp_path / "back/users.json").read_bytes()
    text = data[len(mark):].decode(codec)
    assert data.startswith(mark) and element(2, "b@example", "").strip() in text and element(3, "c@example", "").strip() in text
    assert [each["id"] for each in json.loads(text)] == [2, 3]
    for each in errors(tmp_path / "back"):      # where it stands in both files
        place = text.splitlines()[each["rejects_line"] - 1]
        assert f'"id": {each["id"]},' in place and each["item"] == each["id"] and each["line"] == 3 * each["id"] - 1
    assert here("--users", "back/users.json", "--db", "other", "--rejects", "again").returncode == 1
    assert (tmp_path / "again/users.json").read_bytes() == data


def test_json_lines_and_standard_input_have_their_rejects_too(run: Run, tmp_path: Path) -> None:
    lines = ['{"id":1,"name":"Ann","email":"ann@example.com"}', '{"id":2, "name":"Bo"}', "nonsense", '{"id":3,"name":"Cy","email":"cy@example.com"}']
    assert run("--users", "-", "--rejects", "back", stdin="\n".join(lines)).returncode == 1
    assert (tmp_path / "back/users.jsonl").read_text() == f"{lines[1]}\n{lines[2]}\n"


def test_errors_have_the_models_in_order_and_all_problems_of_the_output(here: Run, tmp_path: Path) -> None:
    here("--rejects", "back")
    found = errors(tmp_path / "back")
    assert [each["model"] for each in found] == sorted((each["model"] for each in found), key=["users", "products", "orders"].index)
    assert [(each["model"], each["line"], each["field"], each["code"]) for each in found][-5:] == [
        ("orders", 8, "user_id", "no_such_reference"), ("orders", 8, "quantity", "not_positive"), ("orders", 9, "quantity", "not_positive"),
        ("orders", 10, "user_id", "no_such_reference"), ("orders", 10, "product_id", "no_such_reference")]
    assert len(found) == 10 and all(each["message"] for each in found)


def load_bad(here: Run, *more: str) -> subprocess.CompletedProcess:
    """Load a good and a bad user with rejects in `back`."""
    Path("in.csv").write_text(f"id,name,email\n{GOOD}\n2,Bo,bo@example\n")
    return here("--users", "in.csv", "--rejects", "back", *more)


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_rejects_that_were_edited_since_are_not_overwritten(here: Run, tmp_path: Path, more: tuple[str, ...]) -> None:
    assert load_bad(here).returncode == 1 and load_bad(here).returncode == 1        # its own are
    path = tmp_path / "back/users.csv"
    path.write_text("id,name,email\n2,Bo,bo@example.com\n")
    younger = os.stat(path.with_name("errors.jsonl")).st_mtime_ns + 1_000_000
    os.utime(path, ns=(younger, younger))
    result = load_bad(here, *more)
    assert result.returncode == 2 and "edited" in result.stderr and "users.csv" in result.stderr
    assert path.read_text() == "id,name,email\n2,Bo,bo@example.com\n"


@pytest.mark.parametrize("name", ["users.csv", "errors.jsonl"])
def test_a_file_of_somebody_else_is_not_overwritten(here: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / name).write_text("mine")
    assert load_bad(here).returncode == 2
    assert (tmp_path / "back" / name).read_text() == "mine" and not (tmp_path / "users.db").exists()


def test_the_input_is_not_overwritten_by_its_rejects(here: Run, tmp_path: Path) -> None:
    load_bad(here)
    before = (tmp_path / "back/users.csv").read_bytes()
    result = here("--users", "back/users.csv", "--rejects", "back")
    assert result.returncode == 2 and (tmp_path / "back/users.csv").read_bytes() == before


def test_a_model_without_rejects_has_no_file_and_an_earlier_one_goes(here: Run, tmp_path: Path) -> None:
    load_bad(here)
    (tmp_path / "in.csv").write_text(f"id,name,email\n{GOOD}\n")
    assert here("--users", "in.csv", "--rejects", "back").returncode == 0
    assert not (tmp_path / "back/users.csv").exists() and errors(tmp_path / "back") == []


@pytest.mark.skipif(sys.platform == "win32", reason="the command is printed for a POSIX shell")
@pytest.mark.parametrize("folder, back, db", [("plain", "back", "shop"), ("with a space", "it's fixed", "my shop"), ("-dash", "-back", "-db"), ("ü $x;y", 'a"b', "ü")])
def test_the_next_step_runs_as_printed_and_finishes_the_job(tmp_path: Path, folder: str, back: str, db: str) -> None:
    place = tmp_path / folder
    place.mkdir()
    shutil.copy(PROGRAM, place)
    (place / "users.csv").write_text("id,name,email\n1,Ann,ann@example.com\n2,Bo,bo@example\n")
    (place / "products.csv").write_text("id,name,price\n1,Pen,1.20\n")
    (place / "orders.csv").write_text("id,user_id,product_id,quantity\n1,1,1,1\n2,2,1,1\n")
    files = [f"--{model}={model}.csv" for model in ("users", "products", "orders")]
    command = [sys.executable, PROGRAM.name, *files, f"--rejects={back}", f"--db={db}"]
    first = subprocess.run(command, cwd=place, capture_output=True, text=True, encoding="utf-8", timeout=TIMEOUT_S, env={**os.environ, "NO_COLOR": "1"})
    assert first.returncode == 1, first.stderr
    rejects = place / back / "users.csv"
    rejects.write_text(rejects.read_text().replace("bo@example", "bo@example.com"))
    step = re.search(r"^  .*--users.*$", first.stdout, re.MULTILINE).group()
    second = subprocess.run(["bash", "-c", step], cwd=place, capture_output=True, text=True, encoding="utf-8", timeout=TIMEOUT_S)
    assert second.returncode == 0, (step, second.stderr)
    assert [row[0] for row in rows(place / db / "orders.db")] == [1, 2]
