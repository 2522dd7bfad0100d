#!/usr/bin/env python3
"""Measure distributed_inserts.py side by side with other ways to load the same files.

    python tests/benchmark.py               # bulk load: the project and its peers
    python tests/benchmark.py --single      # a thread per record, 1,000 records a model
    python tests/benchmark.py --scaling     # 10k, 100k and 1M users
    python tests/benchmark.py --parts       # where the time of one load goes, from --trace
    python tests/benchmark.py --users 10000 --products 2000 --orders 20000 --peers plain pydantic

Python alone is enough; a peer that is not installed is left out with a line. To have them all:

    python -m pip install sqlite-utils pydantic django      # and the system's sqlite3 shell, 3.32 or later

Every candidate loads the very same seeded CSV files as a whole process (start of the interpreter included), in turn
(A B C A B C ...), into a fresh folder each time. Seconds are medians; ratios are taken within each round first, so that
a machine that is busy for a while favours nobody. Put --dir on a disk: in memory (tmpfs) commits cost nothing.

Bad rows are such as a loader without checks stores without a word: blank names, broken or repeated e-mails, repeated
product names, prices that are no number or not positive, references to nobody or to a refused record, quantities of 0.
What would stop such a loader (a wrong number of cells, a broken or repeated id) is for the tests, not for this file.
Good orders refer to good records, so a bad row makes no other bad.
"""

from __future__ import annotations

# Peers run inside this file (--as NAME): what one of them or the harness alone needs is imported where it is used, so
# that no other pays for it.
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

OURS = "distributed_inserts.py"
PROGRAM = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), OURS)

CREATE = {
    "users": "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, email TEXT)",
    "products": "CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT, price REAL)",
    "orders": "CREATE TABLE orders (id INTEGER PRIMARY KEY, user_id INTEGER, product_id INTEGER, quantity INTEGER)",
}
FIELDS = {"users": ("id", "name", "email"), "products": ("id", "name", "price"),
          "orders": ("id", "user_id", "product_id", "quantity")}
INSERT = {model: f"INSERT INTO {model} VALUES ({','.join('?' * len(fields))})" for model, fields in FIELDS.items()}
EMAIL_PATTERN = r"^[\w.!#$%&'*+/=?^`{|}~-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+$"

MIB_BYTES = 1024 * 1024
MAXRSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024  # getrusage(2) differs
BUSY_TIMEOUT_S = 30.0
DJANGO_CHUNK_ROWS = 1000
THREADS_ALIVE = 32
ERROR_TAIL_BYTES = 300


# ---------------------------------------------------------------------------------------------------- The files

FIRST_NAMES = ("Alice", "Bob", "Chloé", "Dmitri", "Emeka", "Fatima", "Grace", "Jürgen", "Mei", "Noor")
LAST_NAMES = ("Smith", "García", "Okafor", "Ivanova", "Nguyen", "Müller", "Kim", "Haddad", "O'Neil", "Silva")
GOODS = ("Laptop", "Desk", "Café mug", "Monitor", "Lamp", "Keyboard", "Chair", "Cable, 2 m")

REPEATED, REFUSED, NOBODY = "(an earlier row's)", "(a refused parent's)", "999999999999"
BAD_CELLS = {  # model: what a bad row has instead of a good cell, as (column, cell)
    "users": ((1, ""), (1, "   "), (1, "Al\aice"), (2, ""), (2, "nobody"), (2, "a@b@example.com"),
              (2, "a..b@example.com"), (2, "eve@localhost"), (2, REPEATED), (2, REPEATED)),
    "products": ((1, ""), (1, REPEATED), (1, REPEATED), (2, "-5.00"), (2, "0"), (2, "12,50"), (2, "nan"), (2, "free")),
    "orders": ((1, NOBODY), (1, REFUSED), (1, "1.0"), (1, ""), (2, NOBODY), (2, REFUSED), (2, "x7"),
               (3, "0"), (3, "-1"), (3, "two")),
}
SCRAMBLE = 0x9E3779B97F4A7C15  # odd: multiplying by it modulo 2**64 gives no value twice


class Load(NamedTuple):
    """The size and the nature of one set of input files."""

    users: int
    products: int
    orders: int
    bad: float
    emails: str
    seed: int

    @property
    def rows(self) -> int:
        """How many records the three files hold."""
        return self.users + self.products + self.orders


def make_rows(model: str, load: Load, rng: Any, ids: dict[tuple[str, bool], list[int]]) -> Iterator[list[str]]:
    """The rows of a model's file; `ids` holds those of the good and of the bad ones of each model, and grows."""
    good, bad = ids[model, True], ids[model, False]

    def unique_cell(number: int) -> str:
        key = f"{number * SCRAMBLE % 2**64:016x}"
        if model == "users":
            return f"{key if load.emails == 'random' else f'user{number:010}'}@example.com"
        return f"{GOODS[number % len(GOODS)]} {key}"

    for number in range(1, getattr(load, model) + 1):
        if model == "users":
            cells = (f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}", unique_cell(number))
        elif model == "products":
            cells = (unique_cell(number), f"{rng.uniform(1, 2000):.2f}")
        else:
            cells = (rng.choice(ids["users", True]), rng.choice(ids["products", True]), rng.randint(1, 9))
        row = [str(number), *map(str, cells)]
        is_good = not good or rng.random() >= load.bad
        if not is_good:
            column, cell = rng.choice(BAD_CELLS[model])
            if cell == REPEATED:  # in capitals: uniqueness ignores case
                cell = unique_cell(rng.choice(good)).upper()
            elif cell == REFUSED:
                cell = str(rng.choice(ids["users" if column == 1 else "products", False] or [NOBODY]))
            row[column] = cell
        (good if is_good else bad).append(number)
        yield row


def make_files(folder: str, *texts: str) -> None:
    """Write users.csv, products.csv and orders.csv of a load, given as texts; the same load gives the same files."""
    import csv
    import random

    load = Load(*map(int, texts[:3]), float(texts[3]), texts[4], int(texts[5]))
    rng, ids = random.Random(load.seed), {(model, good): [] for model in FIELDS for good in (True, False)}
    for model, fields in FIELDS.items():
        with open(os.path.join(folder, f"{model}.csv"), "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerow(fields)
            csv.writer(file).writerows(make_rows(model, load, rng, ids))
            file.flush()
            os.fsync(file.fileno())  # or writing the input would fall into somebody's measured time


# ---------------------------------------------------------------------- The peers, each in a process of its own

def read_rows(folder: str, model: str) -> Iterator[list[str]]:
    """The rows of a model's file after its header."""
    import csv

    with open(os.path.join(folder, f"{model}.csv"), encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        next(reader)
        yield from reader


def make_tables(out: str) -> dict[str, Any]:
    """Three open databases by model, each with its empty table."""
    import sqlite3

    databases = {model: sqlite3.connect(os.path.join(out, f"{model}.db")) for model in FIELDS}
    for model, database in databases.items():
        database.execute(CREATE[model])
    return databases


def load_plain(folder: str, out: str) -> None:
    """What a Python programmer writes first: csv, executemany, a transaction a database, no check."""
    for model, database in make_tables(out).items():
        with database:
            database.executemany(INSERT[model], read_rows(folder, model))


def load_pydantic(folder: str, out: str) -> None:
    """csv, a pydantic model a row, executemany of the valid ones; uniqueness and references unchecked."""
    from typing import Annotated

    from pydantic import Field, PositiveInt, StringConstraints, ValidationError, create_model

    name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    email = Annotated[str, StringConstraints(max_length=254, pattern=EMAIL_PATTERN)]
    price = Annotated[float, Field(gt=0, allow_inf_nan=False)]
    types = {"users": (PositiveInt, name, email), "products": (PositiveInt, name, price), "orders": (PositiveInt,) * 4}

    def valid_rows(model: str) -> Iterator[tuple[Any, ...]]:
        record_type = create_model(model, **{f: (t, ...) for f, t in zip(FIELDS[model], types[model])})
        for row in read_rows(folder, model):
            try:
                record = record_type.model_validate(dict(zip(FIELDS[model], row)))
            except ValidationError:
                continue
            yield tuple(record.__dict__.values())

    for model, database in make_tables(out).items():
        with database:
            database.executemany(INSERT[model], valid_rows(model))


def load_django(folder: str, out: str) -> None:
    """Django multi-database: clean_fields a row, bulk_create in chunks, a transaction a database."""
    from itertools import islice

    import django
    from django.conf import settings

    databases = {model: {"ENGINE": "django.db.backends.sqlite3", "NAME": os.path.join(out, f"{model}.db")}
                 for model in make_tables(out)}
    settings.configure(DATABASES={"default": {}, **databases})
    django.setup()
    from django.core.exceptions import ValidationError
    from django.db import transaction

    for model, record_type in make_django_models().items():
        rows = read_rows(folder, model)
        with transaction.atomic(using=model):
            while chunk := list(islice(rows, DJANGO_CHUNK_ROWS)):
                valid = []
                for row in chunk:
                    record = record_type(*row)
                    try:
                        record.clean_fields()
                    except ValidationError:
                        continue
                    valid.append(record)
                record_type.objects.using(model).bulk_create(valid)


def make_django_models() -> dict[str, Any]:
    """The three models as Django's classes; only after django.setup()."""
    from django.core.validators import MinValueValidator
    from django.db.models import CharField, EmailField, FloatField, IntegerField, Model

    def number(field_type: Any, **options: Any) -> Any:
        least = 0.01 if field_type is FloatField else 1
        return field_type(validators=[MinValueValidator(least)], **options)

    def model_type(model: str, *columns: Any) -> Any:  # Django orders columns as they were made: the key first
        meta = type("Meta", (), {"app_label": "benchmark", "db_table": model})
        return type(model, (Model,), {**dict(zip(FIELDS[model], columns)), "__module__": __name__, "Meta": meta})

    return {
        "users": model_type("users", number(IntegerField, primary_key=True), CharField(max_length=1000), EmailField()),
        "products": model_type("products", number(IntegerField, primary_key=True), CharField(max_length=1000),
                               number(FloatField)),
        "orders": model_type("orders", number(IntegerField, primary_key=True), *(number(IntegerField) for _ in "123")),
    }


def load_connections(folder: str, out: str) -> None:
    """A thread, a connection and a durable commit of its own for each record, parents first; no check."""
    import sqlite3
    import threading

    alive = threading.BoundedSemaphore(THREADS_ALIVE)

    def insert(model: str, row: list[str]) -> None:
        database = sqlite3.connect(os.path.join(out, f"{model}.db"), timeout=BUSY_TIMEOUT_S)
        try:
            database.execute("PRAGMA synchronous=FULL")
            with database:
                database.execute(INSERT[model], row)
        finally:
            database.close()
            alive.release()

    databases = make_tables(out)  # kept open: the last connection to close would checkpoint the WAL each time
    for database in databases.values():
        database.execute("PRAGMA journal_mode=WAL")
    for models in (("users", "products"), ("orders",)):
        threads = []
        for model in models:
            for row in read_rows(folder, model):
                alive.acquire()
                threads.append(threading.Thread(target=insert, args=(model, row)))
                threads[-1].start()
        for thread in threads:
            thread.join()


def run_empty_threads(folder: str, out: str) -> None:
    """Start and join a thread that does nothing for each row of the files; nothing is stored."""
    import threading

    count = sum(1 for model in FIELDS for _ in read_rows(folder, model))
    for first in range(0, count, THREADS_ALIVE):
        threads = [threading.Thread(target=int) for _ in range(min(THREADS_ALIVE, count - first))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


ROLES: dict[str, Callable[..., None]] = {
    "plain": load_plain, "pydantic": load_pydantic, "django": load_django,
    "connections": load_connections, "threads": run_empty_threads, "files": make_files,
}


# ---------------------------------------------------------------------------------------------------- Measuring

Step = list[list[str]]  # commands that run at once


class Candidate(NamedTuple):
    """One line of a table: how to run it, and the line it is compared with."""

    label: str
    rows: int
    steps: Callable[[str], list[Step]]  # of the folder for the databases
    base: str
    statuses: tuple[int, ...] = (0,)
    stores: bool = True


class Run(NamedTuple):
    """What one run took, and the rows it left in the databases."""

    seconds: float
    peak_mib: float
    stored: int


def wait_for(process: Any) -> float:
    """Peak memory (MiB) of a process, once it has ended; 0 where the system does not tell (Windows)."""
    if not hasattr(os, "wait4"):
        process.wait()
        return 0.0
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_maxrss * MAXRSS_UNIT_BYTES / MIB_BYTES


def run_steps(steps: list[Step], statuses: tuple[int, ...] = (0,)) -> tuple[float, float]:
    """Seconds and peak memory (MiB) of the steps, one after another; ValueError if a command fails."""
    import subprocess
    import tempfile

    with tempfile.TemporaryFile() as errors:
        processes, peak_mib, started_s = [], 0.0, time.perf_counter()
        for step in steps:
            running = [subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors)
                       for command in step]
            peak_mib = max(peak_mib, sum([wait_for(process) for process in running]))
            processes += running
        seconds = time.perf_counter() - started_s
        for process in processes:
            if process.returncode not in statuses:
                errors.seek(max(0, errors.seek(0, os.SEEK_END) - ERROR_TAIL_BYTES))
                message = errors.read().decode(errors="replace").strip()
                raise ValueError(f"exit status {process.returncode}: {message}")
    return seconds, peak_mib


def run_candidate(candidate: Candidate, out: str) -> Run:
    """One run into a fresh folder, removed afterwards; ValueError if it fails or stores nothing."""
    import shutil
    import sqlite3
    from contextlib import closing

    os.mkdir(out)
    seconds, peak_mib = run_steps(candidate.steps(out), candidate.statuses)
    stored = 0
    for model in FIELDS if candidate.stores else ():
        with closing(sqlite3.connect(os.path.join(out, f"{model}.db"))) as database:
            if not database.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (model,)).fetchone():
                raise ValueError(f"it made no table {model}")
            stored += database.execute(f"SELECT count(*) FROM {model}").fetchone()[0]
    shutil.rmtree(out, ignore_errors=True)
    return Run(seconds, peak_mib, stored)


def measure(candidates: list[Candidate], rounds: int, temp: str, ratio: str) -> None:
    """Run the candidates in turn and print their table, `ratio` heading its last column; who fails gets a line."""
    from statistics import median

    runs: dict[str, list[Run]] = {candidate.label: [] for candidate in candidates}
    for turn in range(1, rounds + 1):
        for position, candidate in enumerate(candidates):
            if candidate.label in runs:
                try:
                    run = run_candidate(candidate, os.path.join(temp, f"out-{turn}-{position}"))
                except ValueError as error:
                    print(f"{candidate.label} is left out: {error}\n")
                    del runs[candidate.label]
                else:
                    runs[candidate.label].append(run)
                    print(f"round {turn}/{rounds}  {run.seconds:8.3f} s  {candidate.label}", file=sys.stderr)
    print(f"| | median s | min–max s | rows/s | peak MiB | rows stored | {ratio} |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for label, rows, _, base, *_ in candidates:
        if mine := runs.get(label):
            seconds = [run.seconds for run in mine]
            ratios = [run.seconds / other.seconds for run, other in zip(mine, runs.get(base, []))]
            print(f"| {label} | {median(seconds):.3f} | {min(seconds):.3f}–{max(seconds):.3f}"
                  f" | {rows / median(seconds):,.0f} | {median(run.peak_mib for run in mine):.0f}"
                  f" | {mine[-1].stored:,} | {f'{median(ratios):.2f}' if ratios else '–'} |")
    print("\nPeak MiB: of processes that run at once the sum; one smaller than this script shows as large as it.")


# ----------------------------------------------------------------------------------------- The four comparisons

PEERS = {  # name: its label, and the module that has to be installed
    "plain": ("csv + executemany, unvalidated", "sqlite3"),
    "import": ("sqlite3 .import, three at once, unvalidated", ""),
    "sqlite-utils": ("sqlite-utils insert, unvalidated", "sqlite_utils"),
    "pydantic": ("csv + pydantic + executemany", "pydantic"),
    "django": ("Django clean_fields + bulk_create", "django"),
}


def role_command(role: str, *arguments: str) -> list[str]:
    """A command that runs one of ROLES in a process of its own."""
    return [sys.executable, os.path.abspath(__file__), "--as", role, *arguments]


def make_input(load: Load, temp: str) -> dict[str, str]:
    """A load's files by model; made by another process, for a child's peak starts at its parent's size."""
    folder = os.path.join(temp, f"input-{load.users}")
    os.mkdir(folder)
    run_steps([[role_command("files", folder, *map(str, load))]])
    return {model: os.path.join(folder, f"{model}.csv") for model in FIELDS}


def our_command(program: str, files: dict[str, str], out: str, *flags: str) -> list[str]:
    """The project's own command line."""
    inputs = [part for model, file in files.items() for part in (f"--{model}", file)]
    return [sys.executable, program, *inputs, "--db-dir", out, "-q", *flags]


def our_candidate(program: str, files: dict[str, str], load: Load, *flags: str) -> Candidate:
    """The project's line; exit status 1, some records rejected, is what it is for."""
    label = " ".join((OURS, *flags))
    return Candidate(label, load.rows, lambda out: [[our_command(program, files, out, *flags)]], label, (0, 1))


def peer_steps(name: str, files: dict[str, str], out: str) -> list[Step]:
    """How a peer of that name loads the files."""
    databases = {model: os.path.join(out, f"{model}.db") for model in files}
    if name == "import":
        return [[["sqlite3", databases[model], CREATE[model], f".import --csv --skip 1 '{file}' {model}"]
                 for model, file in files.items()]]
    if name == "sqlite-utils":
        return [[[sys.executable, "-m", "sqlite_utils", "insert", databases[model], model, file, "--csv", "--pk", "id"]]
                for model, file in files.items()]
    return [[role_command(name, os.path.dirname(files["users"]), out)]]


def compare_peers(load: Load, args: Any, temp: str) -> None:
    """bulk load beside the peers (the default)"""
    import importlib.util
    import shutil

    print(f"{load.rows:,} rows: {load}; {args.runs} runs in turn\n")
    files = make_input(load, temp)
    candidates = [our_candidate(args.program, files, load)]
    for name in args.peers:
        label, module = PEERS[name]
        if importlib.util.find_spec(module) if module else shutil.which("sqlite3"):
            candidates.append(Candidate(label, load.rows, lambda out, name=name: peer_steps(name, files, out), OURS))
        else:
            print(f"{name} is left out: it is not installed\n")
    measure(candidates, args.runs, temp, "time ÷ ours")


def compare_single(load: Load, args: Any, temp: str) -> None:
    """a thread per record, beside a thread with a commit of its own per record and beside empty threads"""
    load = load._replace(users=args.records, products=args.records, orders=args.records)
    print(f"A thread per record, {load.rows:,} rows: {load}; {args.runs} runs in turn\n")
    files = make_input(load, temp)
    ours = our_candidate(args.program, files, load, "--batch-size", "1")
    own = Candidate("a thread, connection and commit per record, unvalidated", load.rows,
                    lambda out: peer_steps("connections", files, out), ours.label)
    empty = Candidate("as many empty threads", load.rows,
                      lambda out: peer_steps("threads", files, out), ours.label, stores=False)
    measure([ours, own, empty], args.runs, temp, "time ÷ ours")


def compare_sizes(load: Load, args: Any, temp: str) -> None:
    """the project alone at growing sizes"""
    print(f"Growing sizes, {load.bad:.2%} bad, {load.emails} e-mails; {args.runs} runs in turn\n")
    candidates: list[Candidate] = []
    for users in args.sizes:
        load = load._replace(users=users, products=max(1, users // 5), orders=users * 2)
        ours = our_candidate(args.program, make_input(load, temp), load)
        candidates.append(ours._replace(label=f"{users:,} users, {load.rows:,} rows",
                                        base=candidates[-1].label if candidates else ""))
    measure(candidates, args.runs, temp, "time ÷ line above")


def print_parts(load: Load, args: Any, temp: str) -> None:
    """the spans of one traced load, summed by process and name (of spans that nest, each counts in full)"""
    import json
    from collections import defaultdict

    trace = os.path.join(temp, "trace.json")
    command = our_command(args.program, make_input(load, temp), os.path.join(temp, "out"), "--trace", trace)
    seconds, _ = run_steps([[command]], (0, 1))
    with open(trace, encoding="utf-8") as file:
        events = json.load(file)["traceEvents"]
    processes = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    spans_s: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event["ph"] == "X" and event["name"] != "thread":  # a thread is the sum of its parts and its waits
            spans_s[processes.get(event["pid"], str(event["pid"])), event["name"]].append(event["dur"] / 1e6)
    print(f"Parts of a traced load of {seconds:.3f} s, {load.rows:,} rows: {load}\n")
    print("| process | span | count | seconds | of wall time |\n|---|---|---:|---:|---:|")
    for (process, name), spans in sorted(spans_s.items(), key=lambda entry: -sum(entry[1])):
        print(f"| {process} | {name} | {len(spans):,} | {sum(spans):.3f} | {sum(spans) / seconds:.0%} |")


# ------------------------------------------------------------------------------------------------- Command line

def positive(text: str) -> int:
    """a whole number from 1; raises ValueError for anything else, which argparse turns into a message"""
    if int(text) < 1:
        raise ValueError(text)
    return int(text)


def build_parser() -> Any:
    """The command line; its defaults are the bulk load that the README speaks of."""
    import argparse

    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--users", type=positive, default=100_000, metavar="N")
    add("--products", type=positive, default=20_000, metavar="N")
    add("--orders", type=positive, default=200_000, metavar="N")
    add("--bad", type=float, default=0.01, metavar="SHARE", help="share of bad rows (default 0.01)")
    add("--emails", choices=("ordered", "random"), default="random", help="order of the addresses (default random)")
    add("--seed", type=int, default=1, metavar="N")
    add("--runs", type=positive, default=5, metavar="N", help="rounds (default 5)")
    add("--peers", nargs="*", choices=PEERS, default=list(PEERS), help="default all")
    add("--records", type=positive, default=1000, metavar="N", help="--single: records a model (default 1000)")
    add("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], metavar="N", help="--scaling: users")
    add("--program", default=PROGRAM, metavar="FILE", help="another copy of the program to measure")
    add("--dir", metavar="DIR", help="where to make the temporary folder")
    add("--keep", action="store_true", help="keep the temporary folder and say where it is")
    mode = parser.add_mutually_exclusive_group()
    for flag, compare in (("--single", compare_single), ("--scaling", compare_sizes), ("--parts", print_parts)):
        mode.add_argument(flag, dest="mode", action="store_const", const=compare, help=compare.__doc__)
    parser.set_defaults(mode=compare_peers)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one comparison, or one of ROLES in this process; exit status 1 where the program is missing."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] == ["--as"]:
        ROLES[arguments[1]](*arguments[2:])
        return 0
    import platform
    import shutil
    import sqlite3
    import tempfile

    args = build_parser().parse_args(arguments)
    load = Load(args.users, args.products, args.orders, args.bad, args.emails, args.seed)
    print(f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {os.cpu_count()} cores, "
          f"{platform.system()} {platform.machine()}\n")
    if missing := not os.path.exists(args.program):
        print(f"{args.program} is missing\n")
    temp = os.path.abspath(tempfile.mkdtemp(prefix="benchmark-", dir=args.dir))
    try:
        if not missing or args.mode in (compare_peers, compare_single):
            args.mode(load, args, temp)
    finally:
        if args.keep:
            print(f"The files are in {temp}")
        else:
            shutil.rmtree(temp, ignore_errors=True)
    return int(missing)


if __name__ == "__main__":
    raise SystemExit(main())
