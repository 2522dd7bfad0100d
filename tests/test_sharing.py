"""Two and four loaders, each a process of its own, on the same databases at once."""
from __future__ import annotations

import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from conftest import rows
from loads import (MODELS, PROGRAM, Load, Outcome, Running, check_complete, check_databases, run_load, wait_until, write_load)

VERDICTS = ("inserted", "unchanged", "rejected", "failed")
STARTING_GATE = "print('ready', flush=True); sys.stdin.readline()"


def run_together(folder: Path, *argument_lists: list[str], **options: object) -> list[Outcome]:
    """Run a loader for each list of arguments, all from the same moment on."""
    with ExitStack() as stack:
        loaders = [stack.enter_context(Running(folder, "--json", *arguments, patch=STARTING_GATE, stdin=subprocess.PIPE, **options))
                   for arguments in argument_lists]
        for loader in loaders:
            assert loader.line() == "ready\n"
        for loader in loaders:
            loader.feed("go\n")
        outcomes = [loader.end() for loader in loaders]
    for outcome in outcomes:
        outcome.output = outcome.output.partition("\n")[2]
    return outcomes


def check_shared(folder: Path, outcomes: list[Outcome]) -> dict[str, list[tuple]]:
    """Make sure that nothing failed, every count adds up, and what is stored is what was reported, once; return the rows."""
    stored = check_databases(folder)
    for outcome in outcomes:
        assert outcome.error == "" and outcome.status in (0, 1)
    for model in MODELS:
        counts = [outcome.summary[model] for outcome in outcomes if model in outcome.summary]
        for outcome, count in zip((outcome for outcome in outcomes if model in outcome.summary), counts):
            found = list(outcome.verdicts(model).values())
            assert {verdict: found.count(verdict) for verdict in VERDICTS} == {verdict: count[verdict] for verdict in VERDICTS}
            assert count["read"] == len(found) and count["failed"] == 0
        assert sum(count["inserted"] for count in counts) == len(stored[model])
    return stored


@pytest.mark.parametrize("loaders", [2, 4])
@pytest.mark.parametrize("batch_size", [1, 50])
def test_loaders_of_the_same_files_store_each_record_once(tmp_path, loaders, batch_size):
    load = write_load(tmp_path / "files", seed=loaders, users=300, orders=400)
    arguments = [*load.arguments, "--batch-size", str(batch_size)]
    outcomes = run_together(tmp_path / "databases", *[arguments] * loaders)
    assert check_shared(tmp_path / "databases", outcomes) == load.rows
    for outcome in outcomes:                # each has the verdicts that it would have alone, whoever stored it
        check_complete(tmp_path / "databases", load, outcome, again=True)


@pytest.mark.parametrize("loaders", [2, 4])
def test_loaders_of_different_files_that_clash_store_no_duplicate(tmp_path, loaders):
    loads = [write_load(tmp_path / f"files{seed}", seed=seed, users=200, orders=200) for seed in range(loaders)]
    for load in loads[1::2]:                # the same values under other ids
        for model in ("users", "products"):
            lines = load.path(model).read_text().splitlines()
            moved = [f"{int(line.partition(',')[0]) + 100_000},{line.partition(',')[2]}" for line in lines[1:]]
            load.path(model).write_text("\n".join([lines[0], *moved]) + "\n")
    outcomes = run_together(tmp_path / "databases", *[[*load.arguments, "--batch-size", "5"] for load in loads])
    check_shared(tmp_path / "databases", outcomes)


@pytest.mark.parametrize("attempt", [pytest.param(number, marks=pytest.mark.heavy if number >= 4 else ()) for number in range(50)])
def test_four_loaders_in_an_empty_folder_agree(tmp_path, attempt):
    folder = tmp_path / "not" / "there" / "yet"
    outcomes = run_together(tmp_path, *[["--db-dir", str(folder)]] * (2 + 2 * (attempt % 2)))
    stored = check_shared(folder, outcomes)
    assert {model: len(stored[model]) for model in MODELS} == {"users": 8, "products": 8, "orders": 6}


@pytest.mark.heavy
@pytest.mark.parametrize("seed", range(20))
def test_four_loaders_of_the_same_files_time_and_again(tmp_path, seed):
    load = write_load(tmp_path / "files", seed=seed, users=600, orders=900)
    outcomes = run_together(tmp_path / "databases", *[[*load.arguments, "--batch-size", str(size)] for size in (1, 3, 40, 900)])
    assert check_shared(tmp_path / "databases", outcomes) == load.rows


@pytest.mark.parametrize("attempt", range(3))
def test_a_loader_of_children_stores_none_whose_parents_another_one_has_not_committed(tmp_path, attempt):
    load = write_load(tmp_path / "files", seed=attempt, near=True)
    parents, children = load.arguments[:4], load.arguments[4:]
    outcomes = run_together(tmp_path / "databases", parents, *[[*children, "--batch-size", str(size)] for size in (1, 100)])
    check_shared(tmp_path / "databases", outcomes)


# Holds a loader back at its second transaction, the first one with records, until the file "go" is there.
HELD_BACK = """
real = program.Table.begin
calls = 0
def begin(self):
    global calls
    calls += 1
    if calls == 2:
        open("waiting", "w").close()
        while not os.path.exists("go"):
            time.sleep(0.005)
    return real(self)
program.Table.begin = begin
"""


def held_back_while(folder: Path, program: Path, held: str, first: str) -> tuple[Outcome, Outcome]:
    """Run a load of users that is held back where its transaction begins, and meanwhile another one."""
    folder.mkdir(parents=True)
    for name, text in (("held.csv", held), ("first.csv", first)):
        (folder / name).write_text(f"id,name,email\n{text}")
    with Running(folder, "--json", "--users", "held.csv", patch=HELD_BACK, program=program) as running:
        wait_until((folder / "waiting").exists)
        meanwhile = run_load(folder, "--users", "first.csv", program=program)
        (folder / "go").touch()
        return running.end(), meanwhile


def begin_after_another(folder: Path, program: Path = PROGRAM) -> None:
    """Have a loader begin its transaction just after another one took the same e-mail address under another id."""
    held, meanwhile = held_back_while(folder, program, "1,Ann,ann@example.com\n2,Bob,bob@example.com\n", "7,Ann,ANN@example.com\n")
    assert meanwhile.verdicts("users") == {2: "inserted"}
    check_databases(folder)
    assert held.verdicts("users") == {2: "rejected", 3: "inserted"}
    problem, = held.lines[0]["problems"]
    assert (problem["field"], problem["code"]) == ("email", "not_unique") and "user 7" in problem["message"]


def test_a_value_taken_just_before_the_transaction_began_is_taken(tmp_path):
    begin_after_another(tmp_path / "databases")


def test_an_id_taken_just_before_the_transaction_began_is_taken(tmp_path):
    folder = tmp_path / "databases"
    held, _ = held_back_while(folder, PROGRAM, "1,Ann,ann@example.com\n2,Bob,bob@example.com\n3,Cy,cy@example.com\n",
                              "1,Ann,ann@example.com\n2,Rob,rob@example.com\n")
    assert held.verdicts("users") == {2: "unchanged", 3: "rejected", 4: "inserted"}
    assert [problem["code"] for problem in held.lines[1]["problems"]] == ["conflict"]
    assert [row[0] for row in rows(folder / "users.db")] == [1, 2, 3]
