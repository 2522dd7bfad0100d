"""--replace: a stored record with the same id gives way after the same checks, one record after the other."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import MODELS, PROGRAM, VERDICTS, Run, execute, rows

UNIQUE = {"users": 2, "products": 1, "orders": None}
SIZES = ["1", "7", "1000"]
A, B, C, D = (f"{name}@example.com" for name in "abcd")
INSERTED, REPLACED, UNCHANGED, TAKEN, CONFLICT = "inserted", "replaced", "unchanged", "not_unique", "conflict"
Record = tuple


def write(path: Path, model: str, records: list[Record]) -> None:
    """Write a file of records."""
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in [MODELS[model], *records]), encoding="utf-8")


def load(here: Run, tmp_path: Path, model: str, records: list[Record], *arguments: str) -> list[str]:
    """Load records and return the verdict of each, or the codes of its problems."""
    write(tmp_path / f"{model}.csv", model, records)
    result = here(f"--{model}", f"{model}.csv", "--json", *arguments)
    *lines, last = map(json.loads, result.stdout.splitlines())
    found = [" ".join(problem["code"] for problem in line["problems"]) or line["verdict"] for line in lines]
    counts = last["summary"][model]
    verdicts = [line["verdict"] for line in lines]
    assert [verdicts.count(verdict) for verdict in VERDICTS] == [counts[verdict] for verdict in VERDICTS]
    assert result.returncode == (1 if "rejected" in verdicts else 0)
    assert result.stderr == "" if records else "holds no record" in result.stderr
    return found


# ----------------------------------------------------------------------------------------------------------- One by one

STORED = [(1, "Ann", A), (2, "Ben", B)]
CASES: dict[str, tuple[list[Record], list[str], list[Record]]] = {
    "other content": ([(1, "Anne", A)], [REPLACED], [(1, "Anne", A), (2, "Ben", B)]),
    "the same content": ([(1, "Ann", A), (2, "Ben", B)], [UNCHANGED, UNCHANGED], STORED),
    "the same content otherwise written": ([("1.0", " Ann ", f" {A}")], [UNCHANGED], STORED),
    "another case": ([(1, "Ann", A.upper())], [REPLACED], [(1, "Ann", A.upper()), (2, "Ben", B)]),
    "a new one": ([(3, "Cat", C)], [INSERTED], [*STORED, (3, "Cat", C)]),
    "an address that another one holds": ([(1, "Ann", B.upper())], [TAKEN], STORED),
    "two users who swap their addresses directly": ([(1, "Ann", B), (2, "Ben", A)], [TAKEN, TAKEN], STORED),
    "through a third value": (
        [(1, "Ann", C), (2, "Ben", A), (1, "Ann", B)],
        [REPLACED, REPLACED, REPLACED],
        [(1, "Ann", B), (2, "Ben", A)],
    ),
    "an id that comes twice": ([(3, "Cat", C), (3, "Cat", D)], [INSERTED, REPLACED], [*STORED, (3, "Cat", D)]),
    "thrice": (
        [(3, "Cat", C), (3, "Cat", C), (3, "Kit", C), (3, "Kit", C)],
        [INSERTED, UNCHANGED, REPLACED, UNCHANGED],
        [*STORED, (3, "Kit", C)],
    ),
    "there and back": ([(1, "Ann", C), (1, "Ann", A)], [REPLACED, REPLACED], STORED),
    "a freed address": (
        [(1, "Ann", C), (3, "Cat", A)],
        [REPLACED, INSERTED],
        [(1, "Ann", C), (2, "Ben", B), (3, "Cat", A)],
    ),
    "an address that is freed too late": (
        [(3, "Cat", A), (1, "Ann", C)],
        [TAKEN, REPLACED],
        [(1, "Ann", C), (2, "Ben", B)],
    ),
    "an address of this file that was freed": (
        [(3, "Cat", C), (3, "Cat", D), (4, "Dan", C)],
        [INSERTED, REPLACED, INSERTED],
        [*STORED, (3, "Cat", D), (4, "Dan", C)],
    ),
    "a taken address": ([(1, "Ann", C), (3, "Cat", C.upper())], [REPLACED, TAKEN], [(1, "Ann", C), (2, "Ben", B)]),
    "an invalid record frees nothing": ([(1, "", C), (3, "Cat", A)], ["blank", TAKEN], STORED),
    "nor does one that was rejected": ([(1, "Ann", B), (3, "Cat", A)], [TAKEN, TAKEN], STORED),
    "a chain": (
        [(2, "Ben", C), (1, "Ann", B), (3, "Cat", A)],
        [REPLACED, REPLACED, INSERTED],
        [(1, "Ann", B), (2, "Ben", C), (3, "Cat", A)],
    ),
    "all at once": (
        [(1, "", "x"), ("x", "Ann", A), (2, "Ben", B), (1, "Bo", A)],
        ["blank not_email", "not_integer not_unique", UNCHANGED, REPLACED],
        [(1, "Bo", A), (2, "Ben", B)],
    ),
}


@pytest.mark.parametrize("size", ["1", "7"])
@pytest.mark.parametrize("kind", CASES)
def test_a_record_gives_way_to_one_with_its_id_in_input_order(here: Run, tmp_path: Path, kind: str, size: str) -> None:
    records, expected, after = CASES[kind]
    load(here, tmp_path, "users", STORED)
    assert load(here, tmp_path, "users", records, "--replace", "--batch-size", size, "--dry-run") == expected
    assert rows(tmp_path / "users.db") == STORED
    assert load(here, tmp_path, "users", records, "--replace", "--batch-size", size) == expected
    assert rows(tmp_path / "users.db") == after
    assert here("--verify").returncode == 0


@pytest.mark.parametrize("size", SIZES)
def test_running_again_says_unchanged(here: Run, tmp_path: Path, size: str) -> None:
    load(here, tmp_path, "users", [(id_, "Old", f"u{id_}@example.com") for id_ in range(1, 31)])
    records = [(id_, "New" if id_ % 3 else "Old", f"u{id_}@example.com") for id_ in range(1, 41)]
    first = load(here, tmp_path, "users", records, "--replace", "--batch-size", size)
    assert first == [INSERTED if id_ > 30 else REPLACED if id_ % 3 else UNCHANGED for id_ in range(1, 41)]
    assert load(here, tmp_path, "users", records, "--replace", "--batch-size", size) == [UNCHANGED] * 40
    assert load(here, tmp_path, "users", records) == [UNCHANGED] * 40


def test_without_the_flag_nothing_gives_way_and_the_message_names_it_and_the_fields(here: Run, tmp_path: Path) -> None:
    load(here, tmp_path, "users", STORED)
    write(
        tmp_path / "users.csv", "users", [(1, "Anne", A), (2, "Ben", "New@example.com"), (2, "Bo", "new@example.com")]
    )
    result = here("--users", "users.csv", "--json")
    *lines, _ = map(json.loads, result.stdout.splitlines())
    messages = [line["problems"][0]["message"] for line in lines]
    assert result.returncode == 1 and [line["problems"][0]["code"] for line in lines] == [CONFLICT] * 3
    assert all("--replace" in message for message in messages)
    assert [[field in message for field in ("name", "email")] for message in messages] == [
        [True, False],
        [False, True],
        [True, True],
    ]
    assert rows(tmp_path / "users.db") == STORED


def test_a_price_or_a_quantity_is_replaced_and_the_fields_that_differ_are_named(here: Run, tmp_path: Path) -> None:
    load(here, tmp_path, "users", STORED)
    load(here, tmp_path, "products", [(1, "Pen", "1.50"), (2, "Ink", 2)])
    load(here, tmp_path, "orders", [(1, 1, 1, 5), (2, 2, 2, 5)])
    assert load(here, tmp_path, "products", [(1, "Pen", "1.500"), (2, "Ink", "2.01")], "--replace") == [
        UNCHANGED,
        REPLACED,
    ]
    assert load(here, tmp_path, "orders", [(1, 1, 1, 6), (2, 2, 1, "5.0")]) == [CONFLICT, CONFLICT]
    assert load(here, tmp_path, "orders", [(1, 1, 1, 6), (2, 2, 1, "5.0")], "--replace") == [REPLACED, REPLACED]
    assert rows(tmp_path / "orders.db") == [(1, 1, 1, 6), (2, 2, 1, 5)] and rows(tmp_path / "products.db") == [
        (1, "Pen", 1.5),
        (2, "Ink", 2.01),
    ]


def test_an_order_is_not_replaced_by_one_that_refers_to_nothing(here: Run, tmp_path: Path) -> None:
    load(here, tmp_path, "users", STORED)
    load(here, tmp_path, "products", [(1, "Pen", 1)])
    load(here, tmp_path, "orders", [(1, 1, 1, 5)])
    assert load(here, tmp_path, "orders", [(1, 9, 1, 5), (1, 1, 1, 0), (1, 2, 8, 1)], "--replace") == [
        "no_such_reference",
        "not_positive",
        "no_such_reference",
    ]
    assert rows(tmp_path / "orders.db") == [(1, 1, 1, 5)]


def test_the_three_models_are_replaced_in_one_load(here: Run, tmp_path: Path) -> None:
    for turn in (1, 2, 3):
        write(
            tmp_path / "users.csv",
            "users",
            [(1, f"Ann {turn}", A), (2, "Ben", f"{turn}@example.com"), *([(3, "Cat", C)] if turn > 1 else [])],
        )
        write(tmp_path / "products.csv", "products", [(1, "Pen", turn), (2, "Ink", 2)])
        write(tmp_path / "orders.csv", "orders", [(1, 3 if turn > 1 else 1, 1, turn), (2, 2, 2, 2)])
        result = here(
            "--users", "users.csv", "--products", "products.csv", "--orders", "orders.csv", "--replace", "--json", "-q"
        )
        summary = json.loads(result.stdout)["summary"]
        counts = [
            [summary[model][verdict] for verdict in ("read", "inserted", "replaced", "unchanged")] for model in MODELS
        ]
        assert counts == (
            [[2, 2, 0, 0]] * 3 if turn == 1 else [[3, turn == 2, 2, turn == 3], [2, 0, 1, 1], [2, 0, 1, 1]]
        )
        assert result.returncode == 0
    assert rows(tmp_path / "orders.db") == [(1, 3, 1, 3), (2, 2, 2, 2)]


def test_the_report_shows_what_was_replaced(here: Run, tmp_path: Path) -> None:
    load(here, tmp_path, "users", STORED)
    write(tmp_path / "users.csv", "users", [(1, "Anne", A), (2, "Ben", B), (3, "Cat", C)])
    out = here("--users", "users.csv", "--replace").stdout
    assert any("replaced" in line and "Anne" in line for line in out.splitlines())
    assert "3 records: 1 inserted, 1 replaced, 1 unchanged" in out


@pytest.mark.parametrize("size", SIZES)
def test_columns_that_are_no_fields_are_kept(here: Run, tmp_path: Path, size: str) -> None:
    execute(
        tmp_path / "users.db",
        "CREATE TABLE users (id INTEGER PRIMARY KEY, note TEXT, email TEXT, name TEXT)",
        *(f"INSERT INTO users VALUES ({id_}, 'note {id_}', 'u{id_}@example.com', 'Old')" for id_ in range(1, 21)),
    )
    records = [(id_, "New", f"u{id_}@example.com") for id_ in range(1, 22)]
    assert load(here, tmp_path, "users", records, "--replace", "--batch-size", size) == [REPLACED] * 20 + [INSERTED]
    assert rows(tmp_path / "users.db") == [
        (id_, f"note {id_}" if id_ < 21 else None, email, name) for id_, name, email in records
    ]


def test_a_replacement_that_a_constraint_refuses_is_failed_and_the_stored_record_stays(
    here: Run, tmp_path: Path
) -> None:
    execute(
        tmp_path / "users.db",
        "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT CHECK (name <> 'Bo'), email TEXT)",
        *(f"INSERT INTO users VALUES {row}" for row in STORED),
    )
    write(tmp_path / "users.csv", "users", [(1, "Anne", A), (2, "Bo", D), (3, "Cat", C)])
    result = here("--users", "users.csv", "--replace", "--json")
    *lines, _ = map(json.loads, result.stdout.splitlines())
    assert [line["verdict"] for line in lines] == [REPLACED, "failed", INSERTED]
    assert result.returncode == 3 and "CHECK" in result.stdout + result.stderr
    assert rows(tmp_path / "users.db") == [(1, "Anne", A), (2, "Ben", B), (3, "Cat", C)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("records", "found"), [
    ([(1, "Bo", D), (3, "Cat", A)], ["failed", TAKEN]),  # Ann's address is not free
    ([(3, "Bo", C), (4, "Cat", C)], ["failed", INSERTED]),  # nobody holds it
])
def test_what_a_constraint_refuses_neither_takes_nor_frees_an_address(
    here: Run, tmp_path: Path, records: list[Record], found: list[str], size: str
) -> None:
    execute(
        tmp_path / "users.db",
        "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT CHECK (name <> 'Bo'), email TEXT)",
        *(f"INSERT INTO users VALUES {row}" for row in STORED),
    )
    write(tmp_path / "users.csv", "users", records)
    result = here("--users", "users.csv", "--replace", "--json", "--batch-size", size)
    *lines, _ = map(json.loads, result.stdout.splitlines())
    assert [line["problems"][0]["code"] if line["problems"] else line["verdict"] for line in lines] == found
    assert here("--verify").returncode == 0


@pytest.mark.parametrize("size", SIZES)
def test_of_records_with_one_id_those_are_stored_that_no_constraint_refuses(
    here: Run, tmp_path: Path, size: str
) -> None:
    execute(
        tmp_path / "users.db",
        "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT CHECK (name <> 'Bo'), email TEXT)",
        f"INSERT INTO users VALUES {STORED[1]}",
    )
    write(tmp_path / "users.csv", "users", [(1, "Ann", A), (1, "Bo", A), (2, "Bea", B), (2, "Bo", B), (3, "Cat", C)])
    result = here("--users", "users.csv", "--replace", "--json", "--batch-size", size)
    *lines, _ = map(json.loads, result.stdout.splitlines())
    assert [line["verdict"] for line in lines] == [INSERTED, "failed", REPLACED, "failed", INSERTED]
    assert result.returncode == 3 and "CHECK" in result.stdout + result.stderr
    assert rows(tmp_path / "users.db") == [(1, "Ann", A), (2, "Bea", B), (3, "Cat", C)]


# --------------------------------------------------------------------------------------------------- A sequential model


def settle(
    model: str, held: dict[int, Record], records: list[Record], replace: bool, parents: tuple[set[int], set[int]]
) -> list[str]:
    """Settle the records one after the other, the plainest way; change what is held and return the verdicts."""
    place, verdicts = UNIQUE[model], []
    for record in records:
        if held.get(record[0]) == record:
            verdicts.append(UNCHANGED)
            continue
        problems = ["blank"] if record[1] == "" else []
        if model == "orders":
            problems += ["no_such_reference" for reference, ids in zip(record[1:3], parents) if reference not in ids]
        if record[0] in held and not replace:
            problems.append(CONFLICT)
        if place and any(
            each[place].casefold() == record[place].casefold() for id_, each in held.items() if id_ != record[0]
        ):
            problems.append(TAKEN)
        verdicts.append(" ".join(sorted(problems)) or (REPLACED if record[0] in held else INSERTED))
        if not problems:
            held[record[0]] = record
    return verdicts


def some(chance: random.Random, model: str, count: int) -> list[Record]:
    """Return random records of few ids and few values, so that they clash."""
    if model == "orders":
        return [
            (chance.randint(1, 9), chance.randint(1, 5), chance.randint(1, 5), chance.randint(1, 2))
            for _ in range(count)
        ]
    name = [chance.choice(["Ann", "Ben", "Ann", "Cat", "", "Dan"][: chance.choice([4, 6])]) for _ in range(count)]
    if model == "users":
        return [
            (chance.randint(1, 9), each, chance.choice(["a", "A", "b", "c", "d", "é", "É", "f"]) + "@example.com")
            for each in name
        ]
    return [
        (
            chance.randint(1, 9),
            each and chance.choice([each, each.upper(), f"{each}é", f"{each}É", "Fox", "Elk", "Gnu"]),
            float(chance.randint(1, 2)),
        )
        for each in name
    ]


@pytest.mark.parametrize("replace", [True, False], ids=["replace", "as it is"])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("seed", range(2))
def test_any_records_become_what_they_would_one_after_the_other(
    here: Run, tmp_path: Path, seed: int, model: str, replace: bool
) -> None:
    chance = random.Random(f"{seed} {model}")
    load(here, tmp_path, "users", [(id_, "U", f"u{id_}@x.example") for id_ in (1, 2, 3)] if model == "orders" else [])
    load(here, tmp_path, "products", [(id_, f"P{id_}", 1) for id_ in (1, 2, 4)] if model == "orders" else [])
    parents = ({1, 2, 3}, {1, 2, 4})
    for size in SIZES:
        for path in tmp_path.glob(f"{model}.db*"):
            path.unlink()
        held: dict[int, Record] = {}
        records: list[Record] = []
        for turn in range(4):  # the last one loads the same again
            records = some(chance, model, 40) if turn < 3 else records
            expected = settle(model, held, records, replace, parents)
            found = load(here, tmp_path, model, records, "--batch-size", size, *(["--replace"] if replace else []))
            assert [" ".join(sorted(each.split())) for each in found] == expected, (size, turn)
            assert rows(tmp_path / f"{model}.db") == [held[id_] for id_ in sorted(held)], (size, turn)
    assert here("--verify").returncode == 0


# ------------------------------------------------------------------------------------------------- A kill in the middle


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL there")
@pytest.mark.parametrize("after", [1, 500])
def test_a_load_that_was_killed_ends_where_an_undisturbed_one_does(tmp_path: Path, here: Run, after: int) -> None:
    count = 900
    old = [(id_, f"Old{id_}", f"u{id_}@example.com") for id_ in range(1, count + 1)]
    # everybody passes the address on to the next one: 1 frees it first, the others follow
    new = [
        (1, "New1", "spare@example.com"),
        *((id_, f"New{id_}", f"u{id_ - 1}@example.com") for id_ in range(2, count + 1)),
        (count + 1, "Last", f"u{count}@example.com"),
    ]
    for folder in ("killed", "whole"):
        load(here, tmp_path, "users", old, "--db", folder)
    write(tmp_path / "users.csv", "users", new)
    command = [sys.executable, str(PROGRAM), "--users", "users.csv", "--replace", "--json", "--batch-size", "1", "--db"]
    process = subprocess.Popen([*command, "killed"], cwd=tmp_path, stdout=subprocess.PIPE)
    told = [json.loads(process.stdout.readline()) for _ in range(after)]
    process.kill()
    process.communicate(timeout=60)
    survived = {row[0]: row for row in rows(tmp_path / "killed" / "users.db")}
    assert all(survived[line["id"]] == new[line["id"] - 1] for line in told if line["verdict"] in (INSERTED, REPLACED))
    verdicts = load(here, tmp_path, "users", new, "--replace", "--db", "killed")
    assert verdicts[:after] == [UNCHANGED] * after and set(verdicts) <= {UNCHANGED, REPLACED, INSERTED}
    assert set(load(here, tmp_path, "users", new, "--replace", "--db", "whole")) == {REPLACED, INSERTED}
    assert rows(tmp_path / "killed" / "users.db") == rows(tmp_path / "whole" / "users.db") == sorted(new)


# ------------------------------------------------------------------------------------------------- From another program


def test_another_program_replaces_too(tmp_path: Path) -> None:
    import distributed_inserts

    with distributed_inserts.open_databases(str(tmp_path / "shop")) as shop:
        for record, replace, expected in [
            ((1, "Ann", A), True, INSERTED),
            ((1, "Anne", A), False, "rejected"),
            ((1, "Anne", C), True, REPLACED),
            ((1, "Anne", C), True, UNCHANGED),
            ((2, "Ben", A), False, INSERTED),
            ((1, "Anne", A), True, "rejected"),
        ]:
            outcome = shop.insert("users", dict(zip(MODELS["users"], record)), replace=replace)
            assert outcome.verdict == expected, (record, outcome)
        assert shop.find("users", 1) == {"id": 1, "name": "Anne", "email": C}


@pytest.mark.parametrize("size", ["1", "2", "4", "8"])
def test_what_a_refused_neighbour_has_undone_takes_and_frees_nothing(here, tmp_path, size):
    """Of the second batch of four all is stored, undone for the refused one and stored again, one by one."""
    check = "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT CHECK (name <> 'Bo'), email TEXT)"
    execute(tmp_path / "users.db", check)
    (tmp_path / "users.csv").write_text(
        "id,name,email\n1,A,a@x.org\n2,B,b@x.org\n5,E,e@x.org\n6,F,f@x.org\n"
        "3,D,a@x.org\n1,A,x@x.org\n2,B,a@x.org\n4,Bo,bo@x.org\n"
    )
    result = here("--users", "users.csv", "--replace", "--json", "--batch-size", size)
    verdicts = [json.loads(line).get("verdict") for line in result.stdout.splitlines()[:-1]]
    assert verdicts == ["inserted"] * 4 + ["rejected", "replaced", "replaced", "failed"]
    assert execute(tmp_path / "users.db", "SELECT id, email FROM users ORDER BY id") == [
        (1, "x@x.org"), (2, "a@x.org"), (5, "e@x.org"), (6, "f@x.org")
    ]
