"""Promise 7, shared: two and four loaders, each a process of its own, on the same databases at once.

They start at the same moment, on the same files or on files that clash, and in empty folders.  No duplicate is stored,
nothing fails, what is stored is what they reported, and each has the verdicts that it would have had alone.  One loader
is also held where its transaction begins, while another one takes what it is about to insert.
"""

from __future__ import annotations

import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from conftest import HEAVY, MODELS, SAMPLE, TIMEOUT_S, rows, some
from loads import (
    HOLD,
    Outcome,
    Running,
    check_complete,
    check_databases,
    check_summary,
    load_here,
    run_together,
    wait_until,
    write_load,
)


def check_shared(folder: Path, outcomes: list[Outcome]) -> dict[str, list[tuple]]:
    """Make sure that nothing failed, every count adds up, what was reported is stored, once; return the rows."""
    stored = check_databases(folder)
    for outcome in outcomes:
        assert outcome.error == "" and outcome.status in (0, 1)
        check_summary(outcome)
    for model in MODELS:
        counts = [outcome.summary[model] for outcome in outcomes if model in outcome.summary]
        assert [count["failed"] for count in counts] == [0] * len(counts)
        assert sum(count["inserted"] for count in counts) == len(stored[model])
    return stored


@pytest.mark.parametrize("loaders", [2, 4])
@pytest.mark.parametrize("batch_size", [1, 50])
def test_loaders_of_the_same_files_store_each_record_once(tmp_path, loaders, batch_size):
    load = write_load(tmp_path / "files", seed=loaders, users=300, orders=400)
    arguments = [*load.arguments, "--batch-size", str(batch_size)]
    outcomes = run_together(tmp_path / "databases", *[arguments] * loaders)
    assert check_shared(tmp_path / "databases", outcomes) == load.rows
    for outcome in outcomes:  # each has the verdicts that it would have alone, whoever stored it
        check_complete(tmp_path / "databases", load, outcome, again=True)


@pytest.mark.parametrize("loaders", [2, 4])
def test_loaders_of_different_files_that_clash_store_no_duplicate(tmp_path, loaders):
    loads = [write_load(tmp_path / f"files{seed}", seed=seed, users=200, orders=200) for seed in range(loaders)]
    for load in loads[1::2]:  # the same values under other ids
        for model in ("users", "products"):
            lines = load.path(model).read_text().splitlines()
            moved = [f"{int(line.partition(',')[0]) + 100_000},{line.partition(',')[2]}" for line in lines[1:]]
            load.path(model).write_text("\n".join([lines[0], *moved]) + "\n")
    outcomes = run_together(tmp_path / "databases", *[[*load.arguments, "--batch-size", "5"] for load in loads])
    check_shared(tmp_path / "databases", outcomes)


@pytest.mark.parametrize("attempt", some(4, range(50)))
def test_four_loaders_in_an_empty_folder_agree(tmp_path, attempt):
    folder = tmp_path / "not" / "there" / "yet"
    outcomes = run_together(tmp_path, *[["--db", str(folder)]] * (2 + 2 * (attempt % 2)))
    assert check_shared(folder, outcomes) == SAMPLE


@HEAVY
@pytest.mark.parametrize("seed", range(20))
def test_four_loaders_of_the_same_files_time_and_again(tmp_path, seed):
    load = write_load(tmp_path / "files", seed=seed, users=600, orders=900)
    outcomes = run_together(
        tmp_path / "databases", *[[*load.arguments, "--batch-size", str(size)] for size in (1, 3, 40, 900)]
    )
    assert check_shared(tmp_path / "databases", outcomes) == load.rows


@pytest.mark.parametrize("attempt", range(3))
def test_a_loader_of_children_stores_none_whose_parents_another_one_has_not_committed(tmp_path, attempt):
    load = write_load(tmp_path / "files", seed=attempt)
    parents, children = load.arguments[:4], load.arguments[4:]
    outcomes = run_together(
        tmp_path / "databases", parents, *[[*children, "--batch-size", str(size)] for size in (1, 100)]
    )
    check_shared(tmp_path / "databases", outcomes)


@pytest.mark.parametrize("loaders", [2, 4])
def test_loaders_that_replace_the_same_records_store_no_duplicate(tmp_path, loaders):
    files = []
    for number in range(loaders):  # every loader has another name for each user, and e-mails that move about
        users = [f"{id_},Name {number},u{(id_ + 10 * number) % 150}@example.com" for id_ in range(1, 151)]
        files.append(tmp_path / f"users{number}.csv")
        files[-1].write_text("\n".join(["id,name,email", *users]) + "\n")
    outcomes = run_together(
        tmp_path / "databases", *[["--users", str(file), "--replace", "--batch-size", "5"] for file in files]
    )
    stored = check_databases(tmp_path / "databases")["users"]
    assert all(outcome.error == "" and outcome.status in (0, 1) for outcome in outcomes)
    assert sum(outcome.summary["users"]["inserted"] for outcome in outcomes) == len(stored) == 150
    texts = "".join(file.read_text() for file in files)
    assert all(f"{id_},{name},{email}\n" in texts for id_, name, email in stored)


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_a_reader_that_stays_from_beginning_to_end_is_no_error(tmp_path, journal):
    load = write_load(tmp_path / "files", seed=3, users=100, orders=100)
    load_here(tmp_path, *load.arguments[:2])
    with closing(sqlite3.connect(tmp_path / "users.db", isolation_level=None)) as reader:
        reader.execute(f"PRAGMA journal_mode={journal}")
        count = "SELECT count(*) FROM users"
        reader.execute("BEGIN" if journal == "WAL" else "SELECT 1")
        before = reader.execute(count).fetchone()
        check_complete(tmp_path, load, load_here(tmp_path, *load.arguments, "--busy-timeout", 5), again=True)
        assert reader.execute(count).fetchone() == before


def held_back_while(folder: Path, held: str, first: str, wrong: str = "") -> tuple[Outcome, Outcome]:
    """Run a load of users that is held back where its transaction begins, and meanwhile another one."""
    folder.mkdir(parents=True)
    for name, text in (("held.csv", held), ("first.csv", first)):
        (folder / name).write_text(f"id,name,email\n{text}")
    with Running(folder, "--json", "--users", "held.csv", patch=HOLD.format(model="users", call=1) + wrong) as running:
        wait_until((folder / "waiting").exists)
        meanwhile = load_here(folder, "--users", "first.csv")
        (folder / "go").touch()
        return running.end(), meanwhile


def begin_after_another(folder: Path, wrong: str = "") -> None:
    """Have a loader begin its transaction just after another one took the same e-mail address under another id."""
    held, meanwhile = held_back_while(
        folder, "1,Ann,ann@example.com\n2,Bob,bob@example.com\n", "7,Ann,ANN@example.com\n", wrong
    )
    assert meanwhile.verdicts("users") == {2: "inserted"}
    check_databases(folder)
    assert held.verdicts("users") == {2: "rejected", 3: "inserted"}
    (problem,) = held.lines[0]["problems"]
    assert (problem["field"], problem["code"]) == ("email", "not_unique") and "user 7" in problem["message"]


def test_a_value_taken_just_before_the_transaction_began_is_taken(tmp_path):
    begin_after_another(tmp_path / "databases")


def test_an_id_taken_just_before_the_transaction_began_is_taken(tmp_path):
    folder = tmp_path / "databases"
    held, _ = held_back_while(
        folder,
        "1,Ann,ann@example.com\n2,Bob,bob@example.com\n3,Cy,cy@example.com\n",
        "1,Ann,ann@example.com\n2,Rob,rob@example.com\n",
    )
    assert held.verdicts("users") == {2: "unchanged", 3: "rejected", 4: "inserted"}
    assert [problem["code"] for problem in held.lines[1]["problems"]] == ["conflict"]
    assert [row[0] for row in rows(folder / "users.db")] == [1, 2, 3]


def are_stored(database: Path) -> bool:
    """Return whether others see any record there."""
    try:
        return database.exists() and bool(rows(database.parent, database.stem))
    except sqlite3.OperationalError:  # there is no table yet
        return False


def test_a_pipe_that_is_waited_for_locks_nobody_out(tmp_path):
    """Neither its own database nor that of another input: what came is committed before more is read."""
    (tmp_path / "products.csv").write_text("id,name,price\n1,Pen,1\n")
    (tmp_path / "later.csv").write_text("id,name,email\n1000000,Zoe,zoe@example.com\n")
    (tmp_path / "more.csv").write_text("id,name,price\n2,Ink,1\n")
    arguments = "--users", "-", "--products", "products.csv"
    with Running(tmp_path, *arguments, stdin=subprocess.PIPE) as paused:
        pipe = paused.process.stdin
        people = "".join(f"{n},{'Ann' * 30},ann{n}@example.com\n" for n in range(1, 6001))
        pipe.write(f"id,name,email\n{people}".encode())
        pipe.flush()
        wait_until(lambda: all(are_stored(tmp_path / f"{name}.db") for name in ("users", "products")))
        for name, file in (("users", "later.csv"), ("products", "more.csv")):
            assert load_here(tmp_path, f"--{name}", file).status == 0
        pipe.close()
        paused.process.wait(TIMEOUT_S)
    assert len(rows(tmp_path / "users.db")) == 6001 and len(rows(tmp_path / "products.db")) == 2
