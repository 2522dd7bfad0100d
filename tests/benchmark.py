#!/usr/bin/env python3
"""Measure distributed_inserts.py side by side with other ways to store the same records.

    python tests/benchmark.py               # bulk load: the program on several inputs, and its peers
    python tests/benchmark.py --scaling     # 32,000, 320,000 and 3,200,000 rows
    python tests/benchmark.py --single      # a thread per record, 1,000 records a model; and the bare run
    python tests/benchmark.py --program     # inserts of another program: 16 callers at once, and one alone
    python tests/benchmark.py --postgres    # bulk load into a PostgreSQL server that is started for it
    python tests/benchmark.py --rows 3200 --rounds 3 --lines inserts executemany    # small, and only such lines
    python tests/benchmark.py --single --other old/distributed_inserts.py           # another copy in the same rounds

The README quotes every line: seconds, peak MiB and multiples, of the bare run the difference. Python alone is enough:
a peer that is not installed is left out with a line. To have them all (the shell of SQLite from 3.32):

    python -m pip install django pydantic sqlite-utils "psycopg[binary]" && apt-get install sqlite3 postgresql

Each line of a table is a whole process (start of the interpreter included; of --program the calls alone) that gets the
same seeded files, in turn (A B C, A B C, ...), with fresh databases each time; what it stored is counted. Seconds are
medians; multiples are taken within each round first, so that a machine that is busy for a while favours nobody. On a
busy machine read the CPU: user + system of the process and its children (of --postgres without the server's). Peak MiB
is the sum of the processes that run at once; none shows less than what this script takes itself, about 19. All takes
place in TMPDIR, which should be on a disk: in memory commits cost nothing. For Linux and macOS.
"""
from __future__ import annotations

import csv
import os
import sqlite3
import sys
import time
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator

if __name__ == "__main__":  # the peers, processes that import this file, should not pay for what it needs itself
    import argparse
    import json
    import shlex
    import shutil
    import signal
    import subprocess
    import tempfile
    from contextlib import closing
    from glob import glob

PROGRAM = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "distributed_inserts.py")
COLUMNS = {"users": "id INTEGER PRIMARY KEY, name TEXT, email TEXT",
           "products": "id INTEGER PRIMARY KEY, name TEXT, price REAL",
           "orders": "id INTEGER PRIMARY KEY, user_id INTEGER, product_id INTEGER, quantity INTEGER"}
FIELDS = {model: [column.split()[0] for column in columns.split(", ")] for model, columns in COLUMNS.items()}
CREATE = {model: f"CREATE TABLE {model} ({columns})" for model, columns in COLUMNS.items()}
POSTGRES_CREATE = {model: CREATE[model].replace("INTEGER", "bigint").replace("REAL", "float8") for model in CREATE}
INSERT = {model: f"INSERT INTO {model} VALUES ({','.join('?' * len(fields))})" for model, fields in FIELDS.items()}
CALLERS, THREADS_ALIVE, CHUNK_ROWS, TIMEOUT_S = 16, 32, 1000, 30.0
MAXRSS_UNITS_PER_MIB = 1024 * (1024 if sys.platform == "darwin" else 1)  # getrusage(2) differs


# ---------------------------------------------------------------------------------------------------- The files
# Bad rows are such as a loader without checks stores without a word. Good orders refer to good records, so no bad row
# makes another one bad, and it is known how many rows have to be stored.

NAMES = "Alice Smith", "Bob García", "Chloé Okafor", "Dmitri Ivanov", "Emeka Nguyen", "Jürgen Müller", "Mei O'Neil"
GOODS = "Laptop", "Desk", "Café mug", "Monitor", "Lamp", "Keyboard", "Chair", "Cable, 2 m"
REPEATED, REJECTED, NOBODY = "(an earlier row's)", "(a rejected parent's)", "999999999999"
BAD_CELLS = {  # model: what a bad row has instead of a good cell, as (column, cell)
    "users": ((1, ""), (1, "Al\aice"), (2, ""), (2, "nobody"), (2, "a..b@example.com"), (2, "a@b"), (2, REPEATED)),
    "products": ((1, "  "), (1, REPEATED), (1, REPEATED), (2, "-5.00"), (2, "0"), (2, "12,50"), (2, "nan")),
    "orders": ((1, NOBODY), (1, REJECTED), (1, "1.5"), (2, NOBODY), (2, REJECTED), (2, "x7"), (3, "0"), (3, "two")),
}


def unique_cell(model: str, number: int) -> str:
    """A user's e-mail or a product's name, in random order: multiplying by an odd number gives no value twice."""
    key = f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}"
    return f"{key}@example.com" if model == "users" else f"{GOODS[number % len(GOODS)]} {key}"


def make_files(folder: str, bad_share: str, one_email: str, with_json: str, *counts: str) -> None:
    """Write a .csv a model, if asked .jsonl and .json of the same records, and `good`: how many are (the first is)."""
    import json
    import random

    rng, good, bad = random.Random(1), {model: [] for model in FIELDS}, {model: [] for model in FIELDS}

    def make_rows(model: str, count: int) -> Iterator[list[str]]:
        for number in range(1, count + 1):
            if model == "users":
                cells = [rng.choice(NAMES), unique_cell(model, 1 if one_email else number)]
            elif model == "products":
                cells = [unique_cell(model, number), f"{rng.uniform(1, 2000):.2f}"]
            else:
                cells = [str(rng.choice(good["users"])), str(rng.choice(good["products"])), str(rng.randint(1, 9))]
            is_bad = number > 1 and rng.random() < float(bad_share)
            if is_bad and not one_email:
                column, cell = rng.choice(BAD_CELLS[model])
                if cell == REPEATED:  # in capitals: uniqueness ignores case
                    cell = unique_cell(model, rng.choice(good[model])).upper()
                elif cell == REJECTED:
                    cell = str(rng.choice(bad["users" if column == 1 else "products"] or [NOBODY]))
                cells[column - 1] = cell
            (bad if is_bad else good)[model].append(number)
            yield [str(number), *cells]

    def write(name: str, text: str) -> None:
        with open(f"{folder}/{name}", "w", encoding="utf-8") as file:
            file.write(text)

    for model, count in zip(FIELDS, counts):
        rows: Iterable[list[str]] = make_rows(model, int(count))
        if with_json:  # what reads as a number becomes one
            rows = list(rows)
            texts = [json.dumps({field: json.loads(cell) if cell.replace(".", "", 1).isdigit() else cell
                                 for field, cell in zip(FIELDS[model], row)}, ensure_ascii=False) for row in rows]
            write(f"{model}.jsonl", "\n".join(texts) + "\n")
            write(f"{model}.json", "[" + ",\n".join(texts) + "]\n")
        with open(f"{folder}/{model}.csv", "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerow(FIELDS[model])
            csv.writer(file).writerows(rows)
    write("good", str(sum(map(len, good.values()))))
    os.sync()  # or writing the input would fall into somebody's measured time


# -------------------------------------------------- The peers, each in a process of its own, in an empty folder

def read_rows(folder: str, model: str) -> Iterator[list[str]]:
    """The rows of a model's CSV file after its header."""
    with open(f"{folder}/{model}.csv", encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        next(rows)
        yield from rows


def connect(model: str, mode: str = "") -> sqlite3.Connection:
    """A connection that syncs its commits and waits for other writers; with a journal mode, it makes the table."""
    database = sqlite3.connect(f"{model}.db", timeout=TIMEOUT_S)
    database.execute("PRAGMA synchronous=FULL")
    if mode:
        database.execute(f"PRAGMA journal_mode={mode}")
        database.execute(CREATE[model])
    return database


def load_plain(folder: str, read: Callable[[str, str], Iterator] = read_rows) -> None:
    """What a Python programmer writes first: csv, executemany, a transaction a database, no check."""
    for model in FIELDS:
        with connect(model, "delete") as database:
            database.executemany(INSERT[model], read(folder, model))


def load_pydantic(folder: str) -> None:
    """The same with a pydantic model a row, for the valid ones; uniqueness and references unchecked."""
    from typing import Annotated

    from pydantic import Field, PositiveInt, StringConstraints, ValidationError, create_model

    email = r"^[\w.!#$%&'*+/=?^`{|}~-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+$"
    types = {"name": Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)],
             "email": Annotated[str, StringConstraints(max_length=254, pattern=email)],
             "price": Annotated[float, Field(gt=0, allow_inf_nan=False)]}

    def read_valid(folder: str, model: str) -> Iterator[tuple[object, ...]]:
        record_type = create_model(model, **{field: (types.get(field, PositiveInt), ...) for field in FIELDS[model]})
        for row in read_rows(folder, model):
            try:
                record = record_type.model_validate(dict(zip(FIELDS[model], row)))
            except ValidationError:
                continue
            yield tuple(record.__dict__.values())

    load_plain(folder, read_valid)


def load_django(folder: str) -> None:
    """Django multi-database: clean_fields a row, bulk_create in chunks, a transaction a database."""
    from itertools import islice

    import django
    from django.conf import settings

    settings.configure(DATABASES={"default": {}, **{
        model: {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{model}.db"} for model in FIELDS}})
    django.setup()
    from django.core.exceptions import ValidationError
    from django.core.validators import MinValueValidator
    from django.db import models, transaction

    def column(field: str) -> models.Field:
        if field in ("name", "email"):
            return models.EmailField() if field == "email" else models.CharField(max_length=1000)
        if field == "price":
            return models.FloatField(validators=[MinValueValidator(0.01)])
        return models.IntegerField(primary_key=field == "id", validators=[MinValueValidator(1)])

    def is_valid(record: models.Model) -> bool:
        try:
            record.clean_fields()
        except ValidationError:
            return False
        return True

    for model, fields in FIELDS.items():
        connect(model, "delete").close()
        meta = type("Meta", (), {"app_label": "benchmark", "db_table": model})
        members = {"__module__": __name__, "Meta": meta, **{field: column(field) for field in fields}}
        record_type, rows = type(model, (models.Model,), members), read_rows(folder, model)
        with transaction.atomic(using=model):
            while chunk := list(islice(rows, CHUNK_ROWS)):
                valid = [record for row in chunk if is_valid(record := record_type(*row))]
                record_type.objects.using(model).bulk_create(valid)


def load_psycopg(folder: str, url: str) -> None:
    """csv and executemany of psycopg, a transaction a database, no check."""
    import psycopg

    for model in FIELDS:
        with psycopg.connect(url.format(model=model)) as connection:
            connection.execute(POSTGRES_CREATE[model])
            connection.cursor().executemany(INSERT[model].replace("?", "%s"), read_rows(folder, model))


def start_threads(folder: str, empty: str = "") -> None:
    """A thread for each record, parents first, with a connection and a commit of its own, or with nothing to do."""
    import threading

    alive = threading.BoundedSemaphore(THREADS_ALIVE)

    def work(model: str, row: list[str]) -> None:
        try:
            if not empty:
                with (database := connect(model)):
                    database.execute(INSERT[model], row)
                database.close()
        finally:
            alive.release()

    kept_open = [] if empty else [connect(model, "wal") for model in FIELDS]  # the last one to close would checkpoint
    for models in (("users", "products"), ("orders",)):
        threads = [threading.Thread(target=work, args=(model, row))
                   for model in models for row in read_rows(folder, model)]
        for thread in threads:
            alive.acquire()
            thread.start()
        for thread in threads:
            thread.join()
    kept_open.clear()


def time_calls(callers: str, calls: str, mode: str, copy: str = "") -> None:
    """Leave in `seconds` the wall and CPU time of calls, made by several threads, that return when a user is committed.

    They go to `open_databases` of a copy of the program, or else to a connection a thread and a journal of this mode.
    """
    import importlib
    import threading
    from concurrent.futures import ThreadPoolExecutor

    ready = threading.Barrier(int(callers) + 1, timeout=TIMEOUT_S)

    def call(first: int) -> None:
        database = None if copy else connect("users")
        ready.wait()
        for number in range(first, int(calls) + 1, int(callers)):
            row = (number, NAMES[number % len(NAMES)], unique_cell("users", number))
            if database is None:
                place.insert("users", dict(zip(FIELDS["users"], row)))
            else:
                with database:
                    database.execute(INSERT["users"], row)

    sys.path.insert(0, os.path.dirname(copy))
    program = importlib.import_module(os.path.basename(copy)[:-3]) if copy else None
    with program.open_databases(".") if program else connect("users", mode) as place:
        with ThreadPoolExecutor(int(callers)) as pool:
            pool.map(call, range(1, int(callers) + 1))
            ready.wait()
            started_s, started_cpu_s = time.perf_counter(), time.process_time()
        times = time.perf_counter() - started_s, time.process_time() - started_cpu_s
    with open("seconds", "w", encoding="utf-8") as file:
        print(*times, file=file)


# ---------------------------------------------------------------------------------------------------- Measuring

# A line of a table: commands that run at once, the least and most rows that they have to leave, the labels of lines to
# compare with, and commands that run before and are not measured.
Line = namedtuple("Line", "label rows commands stored bases before", defaults=((0, 0), (), ()))
Run = namedtuple("Run", "seconds cpu_s peak_mib stored", defaults=(0,))


class Server:
    """A PostgreSQL server of its own, on a Unix socket in its folder."""

    def __init__(self, home: str) -> None:
        found = shutil.which("pg_ctl") or max(glob("/usr/lib/postgresql/*/bin/pg_ctl"), default="")
        if not found:
            sys.exit("PostgreSQL is not installed: pg_ctl is neither in PATH nor in /usr/lib/postgresql/*/bin")
        self.home, self.binaries = home, os.path.dirname(os.path.realpath(found))
        self.url = f"postgresql://postgres@{home.replace('/', '%2F')}/{{model}}"
        os.mkdir(home)
        if os.getuid() == 0:  # as whom PostgreSQL does not run
            shutil.chown(home, "nobody")
        self.control("initdb", "-o", "-U postgres -A trust -E UTF8 --locale=C --no-sync")
        self.control("start", "-w", "-l", f"{home}/log", "-o", f"-k {home} -c listen_addresses=''")

    def control(self, *arguments: str) -> None:
        """Start or stop it."""
        subprocess.run([f"{self.binaries}/pg_ctl", "-D", f"{self.home}/data", *arguments], check=True, cwd=self.home,
                       stdout=subprocess.DEVNULL, user="nobody" if os.getuid() == 0 else None)

    def psql(self, database: str, *statements: str) -> list[str]:
        """The command that executes statements in a database."""
        flags = [part for statement in ("SET client_min_messages = error", *statements) for part in ("-c", statement)]
        return [f"{self.binaries}/psql", "-XAtq", "-v", "ON_ERROR_STOP=1", *flags, self.url.format(model=database)]


def count_rows(folder: str, server: Server | None) -> int:
    """How many rows a run has stored."""
    if server:
        commands = [server.psql(model, f"SELECT count(*) FROM {model}") for model in FIELDS]
        return sum(int(subprocess.check_output(command)) for command in commands)
    count = 0
    for path in glob(f"{folder}/*.db"):
        with closing(sqlite3.connect(path)) as database:
            count += database.execute(f"SELECT count(*) FROM {os.path.basename(path)[:-3]}").fetchone()[0]
    return count


def run_commands(commands: Iterable[list[str]], folder: str) -> Run:
    """What commands took that ran at once; ValueError if one failed."""
    with open(f"{folder}/errors", "w+", encoding="utf-8", errors="replace") as errors:
        started_s = time.perf_counter()
        processes = [subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                      stderr=errors) for command in commands]
        usages = []
        for process in processes:
            _, process.returncode, usage = os.wait4(process.pid, 0)
            usages.append(usage)
        seconds = time.perf_counter() - started_s
        errors.seek(0)
        message = errors.read().strip()
    if message and any(process.returncode for process in processes):  # rejected records give a status without a word
        raise ValueError(message.splitlines()[-1])
    return Run(seconds, sum(usage.ru_utime + usage.ru_stime for usage in usages),
               sum(usage.ru_maxrss for usage in usages) / MAXRSS_UNITS_PER_MIB)


def run_line(line: Line, args: argparse.Namespace) -> Run:
    """What one run took and stored; ValueError if it failed or did not store what it should."""
    folder = tempfile.mkdtemp(dir=args.temp)
    if args.server:
        statements = [f"{verb} {model}" for model in FIELDS for verb in ("DROP DATABASE IF EXISTS", "CREATE DATABASE")]
        subprocess.run(args.server.psql("postgres", *statements), check=True)
    run_commands(line.before, folder)
    run = run_commands(line.commands, folder)
    if os.path.exists(f"{folder}/seconds"):
        with open(f"{folder}/seconds", encoding="utf-8") as file:
            run = Run(*map(float, file.read().split()), run.peak_mib)
    least, most = line.stored
    stored = count_rows(folder, args.server) if most else 0
    shutil.rmtree(folder)
    if not least <= stored <= most:
        raise ValueError(f"it stored {stored:,} rows, not {least:,} to {most:,}")
    return run._replace(stored=stored)


def measure(lines: list[Line], args: argparse.Namespace) -> int:
    """Run the lines in turn, leaving out what fails, and print their table; 1 if the program itself failed."""
    runs: dict[str, list[Run]] = {line.label: [] for line in lines}
    for turn in range(args.rounds):
        for line in (line for line in lines if line.label in runs):
            try:
                runs[line.label].append(run_line(line, args))
                print(f"round {turn + 1} {runs[line.label][-1].seconds:9.3f} s  {line.label}", file=sys.stderr)
            except (ValueError, OSError, sqlite3.Error, subprocess.SubprocessError) as error:
                print(f"{line.label} is left out: {error}\n")
                del runs[line.label]
    from statistics import median  # not before: the peak of a child begins at the size of this process

    print("| | seconds | CPU s | rows/s | peak MiB | rows stored | time and CPU as multiples (difference) |")
    print("|---|---:|---:|---:|---:|---:|---|")
    for line in (line for line in lines if line.label in runs):
        seconds, cpu_s, peak_mib, stored = map(median, zip(*runs[line.label]))
        multiples = []
        for base in filter(runs.get, (*line.bases, line.label + OTHER)):
            pairs = list(zip(runs[line.label], runs[base]))
            multiples.append(f"{median(run.seconds / other.seconds for run, other in pairs):.2f} and "
                             f"{median(run.cpu_s / other.cpu_s for run, other in pairs):.2f} of {base} "
                             f"({median(run.seconds - other.seconds for run, other in pairs):+.3f} s)")
        print(f"| {line.label} | {seconds:.3f} | {cpu_s:.3f} | {line.rows / seconds:,.0f} | {peak_mib:.0f} "
              f"| {stored:,.0f} | {'; '.join(multiples)} |")
    return int(any(PROGRAM in str(line.commands) and line.label not in runs for line in lines))


# ------------------------------------------------------------------------------------- The comparisons, by mode

OURS, OTHER, PLAIN = "`distributed_inserts.py`", ", the other copy", "`csv` + `executemany`, no checks"


def role(name: str, *arguments: object) -> list[str]:
    """The command that calls a function of this file; by import, so that nobody pays for compiling it."""
    code = f"import sys; sys.path.insert(0, sys.argv[1]); import benchmark; benchmark.{name}(*sys.argv[2:])"
    return [sys.executable, "-c", code, os.path.dirname(os.path.abspath(__file__)), *map(str, arguments)]


class Input:
    """The files of so many rows, in a folder of their own; `shares` of users, products and orders, or of users only."""

    def __init__(self, args: argparse.Namespace, rows: int, bad: float = 0.01, *, shares: tuple[int, ...] = (10, 2, 20),
                 one_email: str = "", with_json: str = "") -> None:
        counts = [rows * share // sum(shares) for share in shares]
        self.folder, self.rows, self.models = tempfile.mkdtemp(dir=args.temp), sum(counts), list(FIELDS)[:len(counts)]
        run_commands([role("make_files", self.folder, bad, one_email, with_json, *counts)], self.folder)
        with open(f"{self.folder}/good", encoding="utf-8") as file:
            self.good = int(file.read())

    def line(self, label: str, *flags: str, bases: tuple[str, ...] = (), suffix: str = "csv", again: bool = False
             ) -> Line:
        """A line of the program that loads these files, into the current folder unless flags say --db."""
        files = [part for model in self.models for part in (f"--{model}", f"{self.folder}/{model}.{suffix}")]
        command = [sys.executable, PROGRAM, *files, "-q", *flags]
        return Line(label, self.rows, [command], (self.good, self.good), bases, [command] if again else [])

    def peer(self, label: str, *commands: list[str]) -> Line:
        """A line of others, who check less or nothing."""
        return Line(label, self.rows, commands, (self.good, self.rows), (OURS,))


def compare_bulk(args: argparse.Namespace, rows: int = 320_000) -> list[Line]:
    """bulk load: the program on several inputs, and its peers"""
    given, users = Input(args, rows, with_json="yes"), rows * 20 // 32
    good_users, models = f"{users:,} good users", (1,)
    first = Input(args, users, 0, shares=models).line(good_users)
    both = Input(args, 2 * users, 0, shares=models).line("as many again beside them", bases=(good_users,))
    tables = [(f"{model}.db", model, f"{given.folder}/{model}.csv") for model in FIELDS]
    imports = [["sqlite3", database, CREATE[model], f".import --csv --skip 1 '{file}' {model}"]
               for database, model, file in tables]
    inserts = [[sys.executable, "-m", "sqlite_utils", "insert", *table, "--csv", "--pk", "id"] for table in tables]
    return [
        given.line(OURS, bases=(PLAIN,)),
        given.peer(PLAIN, role("load_plain", given.folder)),
        given.peer("`sqlite3 .import`, three at once, no checks", *imports),
        given.peer("`csv` + pydantic + `executemany`", role("load_pydantic", given.folder)),
        given.peer("Django `clean_fields` + `bulk_create`", role("load_django", given.folder)),
        given.peer("`sqlite-utils insert`, no checks", ["sh", "-c", " && ".join(map(shlex.join, inserts))]),
        Input(args, rows, 0).line("a clean file", bases=(OURS, PLAIN)),
        Input(args, rows, 0.2).line("20 % bad", bases=(OURS, PLAIN)),
        given.line("the same files again, all unchanged", bases=(OURS,), again=True),
        given.line("JSON Lines of the same records", bases=(OURS,), suffix="jsonl"),
        given.line("a JSON array of the same records", bases=(OURS,), suffix="json"),
        given.line("with `--log-file`", "--log-file", "log.txt", bases=(OURS,)),
        first,
        both._replace(rows=users, before=first.commands),  # half of its file is stored already
        Input(args, users, 1, shares=models).line(f"{users:,} users, all bad", bases=(good_users,)),
        Input(args, users, 1, shares=models, one_email="yes").line(f"{users:,} users, one e-mail", bases=(good_users,)),
    ]


def compare_sizes(args: argparse.Namespace, rows: int = 320_000) -> list[Line]:
    """a tenth of 320,000 rows, as many, and ten times as many"""
    return [Input(args, size).line(f"{size:,} rows", bases=(f"{size // 10:,} rows",))
            for size in (rows // 10, rows, rows * 10)]


def compare_single(args: argparse.Namespace, rows: int = 3000) -> list[Line]:
    """a thread per record, 1,000 records a model; and the bare run beside an interpreter that imports as much"""
    given, empty = Input(args, rows, shares=(1, 1, 1)), "empty threads"
    imports = "import sqlite3, csv, json, argparse, threading"
    return [given.line(OURS, "--batch-size", "1", bases=(empty,)),
            given.peer("a thread, connection and commit per record, no checks", role("start_threads", given.folder)),
            Line(empty, given.rows, [role("start_threads", given.folder, "empty")]),
            Line("the bare run", 30, [[sys.executable, PROGRAM]], (22, 22), (imports,)),
            Line(imports, 30, [[sys.executable, "-c", imports]])]


def compare_calls(args: argparse.Namespace, rows: int = 3200) -> list[Line]:
    """users inserted by another program: by 16 callers at once, and by one alone"""
    lines = []
    for callers, text in ((CALLERS, f"{CALLERS} callers"), (1, "one caller")):
        ours, plain = f"{text}, `open_databases`", f"{text}, plain `sqlite3`, a connection and commits each"
        logged = f"{plain}, write-ahead log"
        lines += [Line(ours, rows, [role("time_calls", callers, rows, "wal", PROGRAM)], (rows, rows), (plain, logged)),
                  Line(plain, rows, [role("time_calls", callers, rows, "delete")], (rows, rows)),
                  Line(logged, rows, [role("time_calls", callers, rows, "wal")], (rows, rows))]
    return lines


def compare_postgres(args: argparse.Namespace, rows: int = 320_000) -> list[Line]:
    """bulk load into PostgreSQL of a clean file, as its peers stop at a bad row, and of ten times as many rows"""
    args.server = Server(f"{args.temp}/server")
    clean, to = Input(args, rows, 0), ("--db", args.server.url)
    copy, plain = "`psql \\copy`, three at once, no checks", "`csv` + `executemany` of psycopg, no checks"
    copies = [args.server.psql(model, POSTGRES_CREATE[model],
                               f"\\copy {model} FROM '{clean.folder}/{model}.csv' CSV HEADER")
              for model in FIELDS]
    return [clean.line(OURS, *to, bases=(copy, plain)),
            clean.peer(copy, *copies),
            clean.peer(plain, role("load_psycopg", clean.folder, args.server.url)),
            Input(args, rows).line("1 % bad", *to, bases=(OURS,)),
            clean.line("the same files again, all unchanged", *to, bases=(OURS,), again=True),
            Input(args, rows * 10).line(f"{rows * 10:,} rows, 1 % bad", *to, bases=(OURS,))]


def main() -> int:
    """Print the table of one comparison; 1 if the program failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    mode = parser.add_mutually_exclusive_group()
    for flag, compare in (("--scaling", compare_sizes), ("--single", compare_single), ("--program", compare_calls),
                          ("--postgres", compare_postgres)):
        mode.add_argument(flag, dest="compare", action="store_const", const=compare, default=compare_bulk,
                          help=compare.__doc__)
    parser.add_argument("--rows", type=int, metavar="N", help="instead of the mode's own number of rows or calls")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="default: 7")
    parser.add_argument("--lines", nargs="+", default=[""], metavar="WORD", help="only lines with one of these words")
    parser.add_argument("--other", type=os.path.abspath, metavar="FILE", help="another copy of the program")
    args = parser.parse_args()
    print(f"Python {sys.version.split()[0]}, SQLite {sqlite3.sqlite_version}, {os.cpu_count()} cores, "
          f"load {os.getloadavg()[0]:.1f}; medians of {args.rounds} rounds\n")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    args.server, args.temp = None, tempfile.mkdtemp(prefix="benchmark-")
    os.chmod(args.temp, 0o755)  # for a server that runs as somebody else
    try:
        lines = args.compare(args, args.rows) if args.rows else args.compare(args)
        if args.other:
            others = json.dumps([line for line in lines if PROGRAM in str(line.commands)]).replace(PROGRAM, args.other)
            lines += [Line(*other)._replace(label=other[0] + OTHER, bases=()) for other in json.loads(others)]
        return measure([line for line in lines if any(word in line.label for word in args.lines)], args)
    finally:
        if args.server:
            args.server.control("stop", "-m", "immediate")
        shutil.rmtree(args.temp)


if __name__ == "__main__":
    raise SystemExit(main())
