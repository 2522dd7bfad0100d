"""--rejects: the refused records as they were read, ready to be mended and loaded, and errors.jsonl that says why."""
from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

import distributed_inserts
from conftest import Run, rows

GOOD, BAD = True, False
ENCODINGS = {"utf-8": b"", "utf-8 with BOM": b"\xef\xbb\xbf", "utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}
MALFORMED = {(None, "malformed")}


@pytest.fixture
def load(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs a load here, in an empty folder, with JSON output."""
    monkeypatch.chdir(tmp_path)

    def run_load(*arguments: object) -> subprocess.CompletedProcess:
        try:
            status = distributed_inserts.main(["--json", *map(str, arguments)])
        except SystemExit as exit_:
            status = exit_.code
        return subprocess.CompletedProcess(arguments, status, *capsys.readouterr())

    return run_load


def verdicts(result: subprocess.CompletedProcess) -> list[str]:
    """Return the verdicts of a load in the order of its output."""
    return [line["verdict"] for line in map(json.loads, result.stdout.splitlines()) if "verdict" in line]


def errors(folder: Path) -> list[dict]:
    """Return the lines of errors.jsonl."""
    return [json.loads(line) for line in (folder / "errors.jsonl").read_bytes().split(b"\n")[:-1]]


def encoded(text: str, name: str) -> bytes:
    """Return text in one of the ENCODINGS, without the BOM; `\\udc80` to `\\udcff` stand for bytes that are no UTF-8."""
    return text.encode("utf-8", "surrogateescape") if name.startswith("utf-8") else text.encode(name, "surrogatepass")


# ----------------------------------------------------------------------------- Byte for byte, in every format and encoding

CSV_RECORDS = [
    ("1,Ann,ann@example.com", GOOD), ("2,,ben@example.com", BAD), ('3,"Cat ""C"", Jr.",cat@example.com', GOOD),
    ('4,"two\nlines",dan@example.com', BAD), ('"5"," Eve ","eve"', BAD), ("6,Füsun 李,füsun@例子.广告", GOOD), ("7,Füsun 李,not an address", BAD),
    ("8,too,many,cells", BAD), ("9", BAD), ('10,"A"nn,ann@example.org', BAD), ("x,Ann,ANN@example.com", BAD), ("11, Gus ,gus@example.com ", GOOD),
    (",,", BAD), ("=1+1,=2,@SUM(A1)", BAD), ('12,"one\r\nmore",ida@example.com', BAD), ("13,\x1b[31mred,red@example.com", BAD)]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("size", ["1", "5", "1000"])
def test_a_csv_file_of_rejects_is_the_header_and_the_refused_rows_byte_for_byte(load: Run, tmp_path: Path, encoding: str, end: str, size: str) -> None:
    bom = ENCODINGS[encoding]
    text = "".join(f"{record}{end}" for record, _ in CSV_RECORDS)
    (tmp_path / "users.csv").write_bytes(bom + encoded(f"id,name,email{end}{text}", encoding))
    result = load("--users", "users.csv", "--rejects", "refused", "--batch-size", size)
    assert (result.returncode, result.stderr) == (1, "")
    assert verdicts(result) == ["inserted" if verdict else "rejected" for _, verdict in CSV_RECORDS]
    refused = "".join(f"{record}{end}" for record, verdict in CSV_RECORDS if verdict is BAD)
    assert (tmp_path / "refused" / "users.csv").read_bytes() == bom + encoded(f"id,name,email{end}{refused}", encoding)
    assert sorted(path.name for path in (tmp_path / "refused").iterdir()) == ["errors.jsonl", "users.csv"]


def test_a_tsv_file_of_rejects_keeps_its_tabs_and_quotes(load: Run, tmp_path: Path) -> None:
    good, bad = "1\tAnn\tann@example.com\n", '2\t"a\ttab"\tben@example.com\n3\t\tcat@example.com\n4,Dan,dan@example.com\n'
    (tmp_path / "users.tsv").write_text("id\tname\temail\n" + good + bad, encoding="utf-8")
    assert load("--users", "users.tsv", "--rejects", "refused").returncode == 1
    assert (tmp_path / "refused" / "users.tsv").read_text(encoding="utf-8") == "id\tname\temail\n" + bad


def test_columns_of_other_names_and_in_another_order_are_kept(load: Run, tmp_path: Path) -> None:
    header, good, bad = " Email ,ID,note,NAME\n", "ann@example.com,1,likes tea,Ann\n", "ben,2,likes beer,Ben\ncat@example.com,3,,\n4,5\n"
    (tmp_path / "users.csv").write_text(header + good + bad, encoding="utf-8")
    assert load("--users", "users.csv", "--rejects", "refused").returncode == 1
    assert (tmp_path / "refused" / "users.csv").read_text(encoding="utf-8") == header + bad
    assert {(line["line"], line["field"], line["code"]) for line in errors(tmp_path / "refused")} == {
        (3, "email", "not_email"), (4, "name", "blank"), (5, None, "malformed")}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_lines_are_kept_byte_for_byte(load: Run, tmp_path: Path, encoding: str) -> None:
    good = '{"id": 1, "name": "Ann", "email": "ann@example.com"}\n'
    bad = ('{"email":"ben@example.com",  "name": "\\u0020", "id": 2 }\n', '{"id": 3, "name": "Füsun 李"}\r\n', "[1, 2]\n", '{"id": 4,\n', "nonsense\n",
           '{"id": 5, "id": 6, "name": "Dan", "email": "dan@example.com"}\n', '{"id": 7, "extra": {"a": [1, 2]}, "name": "Eve", "email": null}')
    (tmp_path / "users.jsonl").write_bytes(ENCODINGS[encoding] + encoded(bad[0] + good + "\n" + "".join(bad[1:]), encoding))
    result = load("--users", "users.jsonl", "--rejects", "refused")
    assert result.returncode == 1
    assert verdicts(result) == ["rejected", "inserted"] + ["rejected"] * 6
    assert (tmp_path / "refused" / "users.jsonl").read_bytes() == ENCODINGS[encoding] + encoded("".join(bad) + "\n", encoding)
    assert [line["line"] for line in errors(tmp_path / "refused")] == [1, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_json_array_of_rejects_holds_the_refused_elements_as_they_were_written(load: Run, tmp_path: Path, encoding: str) -> None:
    good = '{"id": 1, "name": "Ann", "email": "ann@example.com"}'
    bad = ('{"email":"ben@example.com",\n   "name": "\\u0020", "id": 2 }', '{"id": 3, "name": "Füsun 李"}', "[1, 2]", "7", '"text"', "null",
           '{"id": 5, "id": 6, "name": "Dan", "email": "dan@example.com"}', '{"id": 1e400, "name": "Eve", "email": "eve@example.com"}')
    elements = [bad[0], good, *bad[1:]]
    (tmp_path / "users.json").write_bytes(ENCODINGS[encoding] + encoded("[" + ",\n  ".join(elements) + "]", encoding))
    result = load("--users", "users.json", "--rejects", "refused")
    assert result.returncode == 1
    written = (tmp_path / "refused" / "users.json").read_bytes()
    assert written.startswith(ENCODINGS[encoding])
    text = written[len(ENCODINGS[encoding]):].decode(encoding if encoding.startswith("utf-16") else "utf-8")
    for element in bad:
        assert element in text
    assert good not in text
    assert len(json.loads(text)) == len(bad)
    assert [line["item"] for line in errors(tmp_path / "refused")][:2] == [1, 3]


def test_bytes_that_are_no_text_are_kept(load: Run, tmp_path: Path) -> None:
    bad = b"2,B\xffen,ben@example.com\n3,\xe4\xb8,cat@example.com\n\x80\n5,NUL\0,nul@example.com\n"
    (tmp_path / "users.csv").write_bytes(b"id,name,email\n1,Ann,ann@example.com\n" + bad + b"4,Dan,dan@example.com\n")
    result = load("--users", "users.csv", "--rejects", "refused")
    assert verdicts(result) == ["inserted", "rejected", "rejected", "rejected", "rejected", "inserted"]
    assert (tmp_path / "refused" / "users.csv").read_bytes() == b"id,name,email\n" + bad
    assert {(line["field"], line["code"]) for line in errors(tmp_path / "refused")} == MALFORMED


def test_a_last_row_without_a_line_end_gets_one(load: Run, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_bytes(b"id,name,email\n1,,\n2,,")
    load("--users", "users.csv", "--rejects", "refused")
    assert (tmp_path / "refused" / "users.csv").read_bytes() == b"id,name,email\n1,,\n2,,\n"


def test_a_quote_that_is_never_closed_costs_its_own_line_only(load: Run, tmp_path: Path) -> None:
    good = "".join(f"{number},User,u{number}@example.com\n" for number in range(2, 3000))
    (tmp_path / "users.csv").write_text('id,name,email\n1,"Ann,ann@example.com\n' + good, encoding="utf-8")
    result = load("--users", "users.csv", "--rejects", "refused")
    assert verdicts(result) == ["rejected"] + ["inserted"] * 2998
    assert (tmp_path / "refused" / "users.csv").read_text(encoding="utf-8") == 'id,name,email\n1,"Ann,ann@example.com\n'


def test_the_rejects_of_a_long_file_are_in_input_order(load: Run, tmp_path: Path) -> None:
    lines = [f"{number},{'' if number % 7 == 0 else 'User'},{'same' if number % 11 == 0 else f'u{number}'}@example.com\n" for number in range(1, 20_001)]
    (tmp_path / "users.csv").write_text("id,name,email\n" + "".join(lines), encoding="utf-8")
    refused = [line for number, line in enumerate(lines, start=1) if number % 7 == 0 or number % 11 == 0 and number > 11]
    assert load("--users", "users.csv", "--rejects", "refused", "-q").returncode == 1
    assert (tmp_path / "refused" / "users.csv").read_text(encoding="utf-8") == "id,name,email\n" + "".join(refused)
    places = [line["line"] for line in errors(tmp_path / "refused")]
    assert places == sorted(places)
    assert len(set(places)) == len(refused)


def test_standard_input_has_its_rejects_too(run: Run, tmp_path: Path) -> None:
    result = run("--users", "-", "--input-format", "jsonl", "--rejects", "refused", stdin='{"id": 1}\n{"id": 2, "name": "Ben", "email": "b@example.com"}\n')
    assert result.returncode == 1
    assert (tmp_path / "refused" / "users.jsonl").read_text(encoding="utf-8") == '{"id": 1}\n'


def test_the_sample_has_its_rejects_too(load: Run, tmp_path: Path) -> None:
    assert load("--rejects", "refused").returncode == 0
    assert (tmp_path / "refused" / "users.csv").read_text(encoding="utf-8") == "id,name,email\n8,Alice,alice@example.com\n10,,jane@example.com\n"
    assert len(errors(tmp_path / "refused")) == 10


# ------------------------------------------------------------------------------------------------------- errors.jsonl


def test_errors_has_a_line_for_every_problem_of_the_output(load: Run, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("id,name,email\n1,Ann,ann@example.com\nx,,Ann@example.com\n1,\x07,y\n1,2\n", encoding="utf-8")
    (tmp_path / "orders.csv").write_text("id,user_id,product_id,quantity\n1,7,8,0\n", encoding="utf-8")
    result = load("--users", "users.csv", "--orders", "orders.csv", "--rejects", "refused")
    expected = [{"model": line["model"], "source": line["source"], "line": line["line"], "id": line["id"], **problem}
                for line in map(json.loads, result.stdout.splitlines()) if "model" in line for problem in line["problems"]]
    assert len(expected) == 3 + 3 + 1 + 3
    assert sorted(errors(tmp_path / "refused"), key=repr) == sorted(expected, key=repr)
    assert (tmp_path / "refused" / "errors.jsonl").read_bytes().isascii()


def test_without_a_refusal_there_is_nothing_to_mend(load: Run, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("id,name,email\n1,Ann,ann@example.com\n", encoding="utf-8")
    assert load("--users", "users.csv", "--rejects", "refused").returncode == 0
    assert errors(tmp_path / "refused") == []
    if (tmp_path / "refused" / "users.csv").exists():
        assert (tmp_path / "refused" / "users.csv").read_text(encoding="utf-8") == "id,name,email\n"


# ------------------------------------------------------------------------------------------------- Mending and loading


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl"])
def test_mending_the_rejects_and_loading_them_finishes_the_job(load: Run, tmp_path: Path, kind: str) -> None:
    def as_text(records: list[dict]) -> str:
        if kind in ("csv", "tsv"):
            sign = "," if kind == "csv" else "\t"
            return "".join(sign.join(str(cell) for cell in line) + "\n" for line in [list(records[0]), *(record.values() for record in records)])
        lines = [json.dumps(record) for record in records]
        return "".join(f"{line}\n" for line in lines) if kind == "jsonl" else "[" + ",".join(lines) + "]"

    users = [{"id": number, "name": "" if number == 7 else "User", "email": f"u{number}@example.com"} for number in range(1, 31)]
    orders = [{"id": number, "user_id": number, "product_id": 1, "quantity": "none" if number == 9 else 1} for number in range(1, 31)]
    for name, records in (("users", users), ("products", [{"id": 1, "name": "Desk", "price": 9.5}]), ("orders", orders)):
        (tmp_path / f"{name}.{kind}").write_text(as_text(records), encoding="utf-8")
    inputs = [word for name in ("users", "products", "orders") for word in (f"--{name}", f"{name}.{kind}")]
    assert load(*inputs, "--rejects", "refused").returncode == 1
    for name, wrong, right in (("users", '""' if "json" in kind else "7,," if kind == "csv" else "7\t\t",
                                '"Mended"' if "json" in kind else "7,Mended," if kind == "csv" else "7\tMended\t"), ("orders", "none", "3")):
        path = tmp_path / "refused" / f"{name}.{kind}"
        text = path.read_text(encoding="utf-8")
        assert wrong in text
        path.write_text(text.replace(f'"{wrong}"' if name == "orders" and "json" in kind else wrong, right), encoding="utf-8")
    result = load("--users", f"refused/users.{kind}", "--orders", f"refused/orders.{kind}", "--rejects", "refused again")
    assert (result.returncode, verdicts(result)) == (0, ["inserted"] * 3)
    assert [len(rows(tmp_path / f"{name}.db")) for name in ("users", "products", "orders")] == [30, 1, 30]
    assert errors(tmp_path / "refused again") == []


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl"])
def test_loading_the_rejects_unmended_refuses_the_same_again(load: Run, tmp_path: Path, kind: str) -> None:
    text = {"csv": 'id,name,email\n1,,a@example.com\n2,Ben,"b\n1,2\n\n3,Cat,c@example.com\n', "jsonl": '{"id": 1}\n[2]\n\nbroken\n',
            "json": '[{"id": 1}, [2], {"id": 3, "name": "Cat", "email": "c@example.com"}, 4]'}[kind]
    (tmp_path / f"users.{kind}").write_text(text, encoding="utf-8")
    first = load("--users", f"users.{kind}", "--rejects", "one")
    second = load("--users", f"one/users.{kind}", "--rejects", "two")
    assert verdicts(second) == [verdict for verdict in verdicts(first) if verdict == "rejected"]
    assert (tmp_path / "two" / f"users.{kind}").read_bytes() == (tmp_path / "one" / f"users.{kind}").read_bytes()
    assert [(line["id"], line["code"]) for line in errors(tmp_path / "two")] == [(line["id"], line["code"]) for line in errors(tmp_path / "one")]


@pytest.mark.parametrize("text", [
    '[{"id": 1, "name": "Ann" "email": "a@example.com"}, {"id": 2, "name": "Ben", "email": "b@example.com"}]',
    '[{"id": 1, "name": "Ann", "email": "a@example.com"} {"id": 2}, {"id": 3, "name": "Cat", "email": "c@example.com"}]',
    '[{"id": 1, "name": "Ann", "email": "a@example.com"}, {"id": 2, "na', '[{"id": 1, "name": "Ann", "email": "a@example.com"}',
    "[nonsense, 1, {}]", "[,]", "[1] 2", "[",
])
def test_a_broken_array_loses_no_sound_element_and_its_rejects_can_be_written(load: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "users.json").write_text(text, encoding="utf-8")
    result = load("--users", "users.json", "--rejects", "refused")
    assert result.returncode == 1
    assert "rejected" in verdicts(result)
    assert verdicts(result).count("inserted") == len(rows(tmp_path / "users.db"))
    assert len({line["item"] for line in errors(tmp_path / "refused")}) == verdicts(result).count("rejected")
    written = (tmp_path / "refused" / "users.json").read_text(encoding="utf-8")
    assert written.startswith("[") and written.rstrip().endswith("]")


# ----------------------------------------------------------------------------- What it overwrites and what it does not


@pytest.mark.parametrize("folder", [".", "sub/..", "link"])
@pytest.mark.parametrize("name", ["users.csv", "users.jsonl", "errors.jsonl"])
def test_an_input_is_never_overwritten(load: Run, tmp_path: Path, folder: str, name: str) -> None:
    (tmp_path / "sub").mkdir()
    if folder == "link":
        try:
            os.symlink(tmp_path, tmp_path / "link")
        except OSError as error:
            pytest.skip(f"no symbolic links here: {error}")
    text = '{"id": 1}\n' if name.endswith("jsonl") else "id,name,email\n1,,\n"
    (tmp_path / name).write_text(text, encoding="utf-8")
    before = sorted(tmp_path.iterdir())
    result = load("--users", name, "--rejects", folder)
    assert (result.returncode, result.stdout) == (2, "")
    assert name in result.stderr
    assert (tmp_path / name).read_text(encoding="utf-8") == text
    assert sorted(tmp_path.iterdir()) == before


def test_the_rejects_of_another_model_cannot_overwrite_an_input_either(load: Run, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("id,user_id,product_id,quantity\n1,1,1,1\n", encoding="utf-8")       # orders, called users
    (tmp_path / "people.csv").write_text("id,name,email\n1,,\n", encoding="utf-8")
    result = load("--users", "people.csv", "--orders", "users.csv", "--rejects", ".")
    assert result.returncode == 2
    assert (tmp_path / "users.csv").read_text(encoding="utf-8").startswith("id,user_id")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["people.csv", "users.csv"]


def test_a_hard_link_to_an_input_is_not_overwritten(load: Run, tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text("id,name,email\n1,,\n", encoding="utf-8")
    (tmp_path / "refused").mkdir()
    try:
        os.link(tmp_path / "people.csv", tmp_path / "refused" / "users.csv")
    except OSError as error:
        pytest.skip(f"no hard links here: {error}")
    assert load("--users", "people.csv", "--rejects", "refused").returncode == 2
    assert (tmp_path / "people.csv").read_text(encoding="utf-8") == "id,name,email\n1,,\n"


def test_a_second_run_leaves_no_stale_rejects(load: Run, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("id,name,email\n1,,a@example.com\n2,Ben,b\n", encoding="utf-8")
    load("--users", "users.csv", "--rejects", "refused")
    assert len(errors(tmp_path / "refused")) == 2
    (tmp_path / "users.csv").write_text("id,name,email\n1,Ann,a@example.com\n2,Ben,b\n", encoding="utf-8")
    load("--users", "users.csv", "--rejects", "refused")
    assert (tmp_path / "refused" / "users.csv").read_text(encoding="utf-8") == "id,name,email\n2,Ben,b\n"
    assert [line["id"] for line in errors(tmp_path / "refused")] == [2]
    (tmp_path / "users.csv").write_text("id,name,email\n1,Ann,a@example.com\n2,Ben,b@example.com\n", encoding="utf-8")
    assert load("--users", "users.csv", "--rejects", "refused").returncode == 0
    assert errors(tmp_path / "refused") == []
    assert not (tmp_path / "refused" / "users.csv").exists() or (tmp_path / "refused" / "users.csv").read_text(encoding="utf-8") == "id,name,email\n"


def test_the_folder_of_the_rejects_is_made_if_missing(load: Run, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("id,name,email\n1,,\n", encoding="utf-8")
    load("--users", "users.csv", "--rejects", "new/and/deep")
    assert len(errors(tmp_path / "new" / "and" / "deep")) == 2


def test_rejects_that_cannot_be_written_are_wrong_usage(load: Run, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("id,name,email\n1,,\n", encoding="utf-8")
    (tmp_path / "refused").write_text("a file", encoding="utf-8")
    result = load("--users", "users.csv", "--rejects", "refused")
    assert (result.returncode, result.stdout) == (2, "")
    assert "refused" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["refused", "users.csv"]


def test_a_failed_record_is_no_reject(load: Run, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("id,name,email\n1,Ann,a@example.com\n2,,b@example.com\n", encoding="utf-8")
    (tmp_path / "users.db").write_bytes(b"this is no database" * 100)
    result = load("--users", "users.csv", "--rejects", "refused")
    assert (result.returncode, verdicts(result)) == (3, ["failed", "rejected"])
    assert (tmp_path / "refused" / "users.csv").read_text(encoding="utf-8") == "id,name,email\n2,,b@example.com\n"


def test_the_text_output_says_where_the_rejects_are_and_how_to_load_them(run: Run, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("id,name,email\n1,,\n", encoding="utf-8")
    out = run("--users", "users.csv", "--rejects", "refused").stdout
    path = os.path.join("refused", "users.csv")
    assert f"--users {path}" in out and "errors.jsonl" in out


def test_a_dry_run_writes_the_same_rejects(load: Run, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("id,name,email\n1,,a@example.com\n2,Ben,b@example.com\n3,Cat,B@example.com\n", encoding="utf-8")
    load("--users", "users.csv", "--rejects", "dry", "-n")
    assert not (tmp_path / "users.db").exists()
    load("--users", "users.csv", "--rejects", "real")
    for name in ("users.csv", "errors.jsonl"):
        assert (tmp_path / "dry" / name).read_bytes() == (tmp_path / "real" / name).read_bytes()
