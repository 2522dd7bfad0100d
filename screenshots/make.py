#!/usr/bin/env python3
# /// script
# requires-python = ">=3.10"
# dependencies = ["pillow", "pyte"]
# ///
"""Make the pictures beside this file, each from real runs of distributed_inserts.py in a temporary folder.

    python -m pip install pillow pyte
    python screenshots/make.py                  # or: uv run screenshots/make.py
    python screenshots/make.py timeline         # some of: sample, files, timeline

sample.png    the bare run; a line tells how many rows are left out
files.png     a load of three million rows, 1 % of them rejected: half way with its progress bar, and at its end
timeline.png  what the threads and insert workers of twelve records did and when, drawn from a run's --trace:
              of ten runs the one with the fewest transactions, and of these the shortest

Needs pillow and pyte, Linux or macOS (the terminal is a real one: pyte keeps its screen and Pillow draws the
cells), and for files.png 200 MB of disk and half a minute.
"""
from __future__ import annotations

import contextlib
import json
import os
import random
import re
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pyte
from PIL import Image, ImageColor, ImageDraw, ImageFont
from pyte.screens import Char

HERE = Path(__file__).resolve().parent
PROGRAM = HERE.parent / "distributed_inserts.py"
PYTHON = shutil.which("python", path=os.path.dirname(sys.executable)) or sys.executable    # the program shows its name
COLUMNS, ROWS = 110, 120    # of the terminal: taller than the longest report, so that nothing scrolls away
SETTLED_S = 0.02            # output that rests this long makes a picture
RUN_TIMEOUT_S = 600.0

# ----------------------------------------------------------------------------------------- Fonts and colours
TEXT_PX, MARGIN = 28, 28    # twice what a page shows, which keeps the text crisp
FONTS = ("DejaVuSansMono{}.ttf", "LiberationMono{}.ttf", "Menlo.ttc")      # Pillow knows the font folders
PAPER, INK, BAR = "#1b1f27", "#d7dce5", "#2b313c"
ANSI = {"default": INK, "red": "#ff6b6b", "green": "#7bd88f", "brown": "#f2c14e", "blue": "#6cb2f7", "cyan": "#5fd7d7"}
BLOCKS = {"█": 1.0, "░": 0.25}      # drawn as areas: a font leaves gaps between them


def load_font(bold: bool = False) -> Any:
    """Return the first of FONTS that this system has, else Pillow's own."""
    for name in FONTS:
        with contextlib.suppress(OSError):
            return ImageFont.truetype(name.format("-Bold" * bold), TEXT_PX, index=int(bold and name.endswith(".ttc")))
    return ImageFont.load_default(TEXT_PX)


def blend(front: str, back: str, share: float) -> tuple[int, ...]:
    """Return the colour that holds the given share of the front and the rest of the back."""
    pairs = zip(ImageColor.getrgb(front), ImageColor.getrgb(back))
    return tuple(round(a * share + b * (1 - share)) for a, b in pairs)


# ------------------------------------------------------------------------------------------------ A terminal
Frame = list[list[Char]]    # rows of cells


def read_row(row: Iterable[Char]) -> str:
    """Return a row's text."""
    return "".join(cell.data for cell in row)


def copy_screen(screen: pyte.Screen) -> Frame:
    """Return the screen's cells, without the empty rows at its end."""
    used = max((row for row, line in enumerate(screen.display) if line.strip()), default=-1) + 1
    return [[screen.buffer[y][x] for x in range(screen.columns)] for y in range(used)]


def record_run(arguments: list[str], folder: Path, exit_status: int) -> tuple[Frame, Frame]:
    """Run the program in a terminal; return the screen when its bar was nearest to 50 %, and at the end.

    Raises RuntimeError if the program ends with another exit status, or not in time.
    """
    import fcntl, pty, termios      # not on Windows, where the timeline still works

    screen = pyte.Screen(COLUMNS, ROWS)
    stream, middle, distance = pyte.ByteStream(screen), [], 101
    stream.feed(f"\x1b[32;1m$\x1b[0m \x1b[1m{' '.join(['python', *arguments])}\x1b[0m\r\n".encode())
    terminal, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "PYTHONUTF8": "1"}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen([PYTHON, *arguments], cwd=folder, env=environment,
                          stdin=inner, stdout=inner, stderr=inner) as run:
        os.close(inner)
        deadline = time.monotonic() + RUN_TIMEOUT_S
        while time.monotonic() < deadline:
            if select.select([terminal], [], [], SETTLED_S)[0]:
                try:
                    chunk = os.read(terminal, 65536)
                except OSError:             # Linux's way to say that the other end is closed
                    chunk = b""
                if not chunk:
                    break
                stream.feed(chunk)
                continue
            line = read_row(screen.buffer[screen.cursor.y][x] for x in range(COLUMNS))
            if (percent := re.search(r"[█░] +(\d+)%", line)) and abs(int(percent[1]) - 50) < distance:
                middle, distance = copy_screen(screen), abs(int(percent[1]) - 50)
        else:
            run.kill()
    os.close(terminal)
    end = copy_screen(screen)
    if run.returncode != exit_status:
        raise RuntimeError(f"exit status {run.returncode}, not {exit_status}:\n" + "\n".join(map(read_row, end)))
    return middle, end


def leave_out(frame: Frame, first: int, next_line: str) -> Frame:
    """Return the frame without the rows from `first` up to the one that starts with `next_line`, and say so there."""
    last = next(row for row, cells in enumerate(frame) if read_row(cells).startswith(next_line))
    note = f"  ... {last - first} rows of the report are left out of this picture ..."
    return [*frame[:first], [], [Char(letter, fg="cyan") for letter in note], [], *frame[last:]]


def draw_cell(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], cell: Char, fonts: tuple[Any, Any]) -> None:
    """Draw one cell of a terminal into its box."""
    ink = ANSI.get(cell.fg, INK)
    if cell.data in BLOCKS:
        draw.rectangle((box[0], box[1], box[2] - 1, box[3] - 1), blend(ink, PAPER, BLOCKS[cell.data]))
    elif cell.data.strip():
        draw.text(box[:2], cell.data, ink, fonts[cell.bold])


def draw_windows(windows: dict[str, Frame]) -> Image.Image:
    """Return a picture of terminal windows, one above the other, each with its title and frame."""
    fonts = load_font(), load_font(bold=True)
    cell_width, cell_height, bar = fonts[0].getlength("M"), round(TEXT_PX * 1.25), 56
    heights = [bar + 2 * MARGIN + len(frame) * cell_height for frame in windows.values()]
    width, top = round(COLUMNS * cell_width) + 2 * MARGIN, 0
    picture = Image.new("RGB", (width, sum(heights) + MARGIN * (len(heights) - 1)), "white")
    draw = ImageDraw.Draw(picture)
    for (title, frame), height in zip(windows.items(), heights):
        draw.rounded_rectangle((0, top, width - 1, top + height - 1), 20, PAPER)
        draw.rounded_rectangle((0, top, width - 1, top + bar), 20, BAR, corners=(True, True, False, False))
        for index, colour in enumerate((ANSI["red"], ANSI["brown"], ANSI["green"])):
            draw.ellipse((MARGIN + index * 40, top + 18, MARGIN + index * 40 + 22, top + 40), colour)
        draw.text((width / 2, top + bar / 2), title, INK, fonts[0], anchor="mm")
        for y, row in enumerate(frame):
            cell_top = top + bar + MARGIN + y * cell_height
            for x, cell in enumerate(row):
                left, right = (MARGIN + round(column * cell_width) for column in (x, x + 1))
                draw_cell(draw, (left, cell_top, right, cell_top + cell_height), cell, fonts)
        top += height + MARGIN
    return picture


# --------------------------------------------------------------------------------------------- Files to load
FLAGS = "--users users.csv --products products.csv --orders orders.csv".split()
BAD_SHARE = 0.006           # of the records by themselves: with the orders that refer to them 1 % are rejected
TWELVE = {
    "users": "id,name,email\n1,Ada,ada@example.com\n2,Alan,alan@example.com\n3,Grace,grace@example.com\n"
             "4,Ada,ada@example.com\n",
    "products": "id,name,price\n1,Laptop,1000.00\n2,Mouse,30.00\n3,Monitor,300.00\n4,Keyboard,50.00\n",
    "orders": "id,user_id,product_id,quantity\n1,1,1,2\n2,2,2,1\n3,3,3,5\n4,4,4,1\n",
}


def write_lines(path: Path, header: str, count: int, make: Callable[[int], str], faults: list[str]) -> None:
    """Write `count` lines of CSV below a header; BAD_SHARE of them get a fault in place of what `make` returns."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(header + "\n")
        for number in range(1, count + 1):
            file.write(f"{number},{random.choice(faults) if random.random() < BAD_SHARE else make(number)}\n")


def write_files(folder: Path, count: int) -> None:
    """Write users.csv, products.csv and orders.csv with `count` records each, the same ones every time."""
    random.seed(14)
    whole = random.randrange
    write_lines(folder / "users.csv", "id,name,email", count, lambda number: f"Person {number},p{number}@example.com",
                [",nobody@example.com", "Ada,ada@example", "Grace,", "Alan,P1@example.com"])
    write_lines(folder / "products.csv", "id,name,price", count,
                lambda number: f"Thing {number},{whole(1, 900)}.50", ["Mug,-5.00", "Lamp,free", "thing 1,9.50"])
    write_lines(folder / "orders.csv", "id,user_id,product_id,quantity", count,
                lambda _: f"{whole(1, count)},{whole(1, count)},{whole(1, 10)}", ["1,1,0", "1,1,2.5", "9999999,1,1"])


# ---------------------------------------------------------------------------------------- A trace as a chart
SHADES = {"users": "#2f7ed8", "products": "#2e9e5b", "orders": "#8250df"}
WAIT, COMMIT, TEXT, FADED, GRID, RED = "#ffd068", "#24292f", "#1f2328", "#57606a", "#e1e4e8", "#cf222e"
CHART_WIDTH, ROW, SPAN, END = 1900, 50, 40, 180     # heights of a row and of a span; what is free at the right


class Span(NamedTuple):
    """What a thread of a model did from start to end (ms after the first span), how many records got which verdict."""

    model: str
    thread: str
    name: str
    start: float
    end: float
    counts: str


def read_trace(path: Path) -> list[Span]:
    """Return the spans of a trace in the Chrome format, those that others lie in first."""
    events = json.loads(path.read_bytes())["traceEvents"]
    names = {(event["pid"], event["tid"]): event["args"]["name"] for event in events if event["ph"] == "M"}
    events, spans = [event for event in events if event["ph"] == "X"], []
    first = min(event["ts"] for event in events)
    for event in events:
        model, start = names[event["pid"], 0].partition(".")[0], (event["ts"] - first) / 1000
        counts = [f"{event['args'][word]} {word}" for word in ("inserted", "rejected") if word in event["args"]]
        spans.append(Span(model, names[event["pid"], event["tid"]], event["name"],
                          start, start + event["dur"] / 1000, ", ".join(counts)))
    return sorted(spans, key=lambda span: (span.start, -span.end))


class Chart:
    """A picture of spans: a row a thread, the records above and the workers below, time from left to right."""

    def __init__(self, spans: list[Span]) -> None:
        """Give every thread its row and make the picture to hold them."""
        self.font, self.spans, self.tops, self.titles = load_font(), spans, {}, []
        top = 160
        for is_worker, what in enumerate(("threads, one per record", "insert workers, one per database")):
            rows = sorted({(list(SHADES).index(span.model), span.thread) for span in spans
                           if span.thread.startswith("insert-worker") == is_worker})
            self.titles.append((top, f"{len(rows)} {what}"))
            top += 54
            for model, thread in rows:
                top += 16 * (model > 0 and thread.endswith("#1"))
                self.tops[thread], top = top, top + ROW
            top += 28
        self.left = 2 * MARGIN + max(map(self.font.getlength, self.tops))
        self.last = max(span.end for span in spans)
        self.picture = Image.new("RGB", (CHART_WIDTH, top), "white")
        self.draw = ImageDraw.Draw(self.picture)

    def x(self, ms: float) -> float:
        """Return where a time lies."""
        return self.left + ms / self.last * (CHART_WIDTH - END - self.left)

    def write(self, x: float, y: float, text: str, colour: str = TEXT, anchor: str = "lm", edge: int = 4,
              font: Any = None) -> None:
        """Write a text, outside the spans with a white edge: no line of the grid goes through it."""
        self.draw.text((x, y), text, colour, font or self.font, anchor, stroke_width=edge, stroke_fill="white")

    def paint(self) -> Image.Image:
        """Draw the axis, behind the records a band while their transaction runs, the spans and the names."""
        self._draw_axis()
        for span in self.spans:
            if span.name.startswith("transaction"):
                tops = [top for thread, top in self.tops.items() if thread.startswith(span.model + "#")]
                self.draw.rectangle((self.x(span.start), min(tops) - 8, self.x(span.end), max(tops) + SPAN + 8),
                                    blend(SHADES[span.model], "#ffffff", 0.2))
        for thread, top in self.tops.items():
            self.write(MARGIN, top + SPAN / 2, thread)
        for top, title in self.titles:
            self.write(MARGIN, top + 18, title, font=load_font(bold=True))
        for span in self.spans:
            self._draw_span(span)
        return self.picture

    def _draw_axis(self) -> None:
        x, y = MARGIN, MARGIN + 18
        tints = [(name[:-1], [blend(shade, "#ffffff", 0.45)]) for name, shade in SHADES.items()]
        for text, colours in [*tints, ("wait for users, products", [WAIT]), ("transaction", SHADES.values()),
                              ("its commit", [COMMIT])]:
            for colour in colours:
                self.draw.rectangle((x, y - 14, x + 27, y + 14), colour)
                x += 28
            self.write(x + 12, y, text)
            x += 54 + self.font.getlength(text)
        step = next(step for step in (0.5, 1, 2, 5, 10, 20, 50, 100, 1e9) if self.last / step <= 8)
        for index in range(int(self.last / step) + 1):
            self.draw.line((self.x(index * step), 138, self.x(index * step), self.picture.height - MARGIN), GRID, 2)
            self.write(self.x(index * step), 130, f"{index * step:g} ms" if index else "0", FADED, "ms")

    def _draw_span(self, span: Span) -> None:
        top, left, right = self.tops[span.thread], self.x(span.start), max(self.x(span.end), self.x(span.start) + 4)
        middle, kind, verdict = top + SPAN / 2, span.name.partition(" ")[0], span.counts.partition(" ")[2]
        shades = {"wait": WAIT, "commit": COMMIT, "transaction": SHADES[span.model]}
        self.draw.rectangle((left, top, right, top + SPAN),
                            shades.get(kind, blend(SHADES[span.model], "#ffffff", 0.45)))
        if kind == "wait" and right - left > self.font.getlength(span.name):
            self.write((left + right) / 2, middle, span.name, anchor="mm", edge=0)
        elif kind == "transaction":
            is_behind = right + 14 + self.font.getlength(span.counts) < CHART_WIDTH - MARGIN
            self.write(right + 14 if is_behind else left - 14, middle, span.counts, anchor="lm" if is_behind else "rm")
        elif verdict:
            self.write(right + 14, middle, verdict, RED if verdict == "rejected" else TEXT)


# ---------------------------------------------------------------------------------------------- The pictures
def make_sample(folder: Path) -> Image.Image:
    """Return the bare run in a terminal."""
    _, end = record_run([PROGRAM.name], folder, 0)
    return draw_windows({"the bare run": leave_out(end, 4, "orders.db from")})


def make_files(folder: Path) -> Image.Image:
    """Return a load of three files with rejected records: half way, and at its end."""
    write_files(folder, 1_000_000)
    middle, end = record_run([PROGRAM.name, *FLAGS, "--rejects", "bad"], folder, 1)
    if not middle:
        raise RuntimeError("no progress bar was seen")
    return draw_windows({"three million rows: half way": middle,
                         "three million rows: at the end": leave_out(end, 1, "orders.db from")})


def make_timeline(folder: Path) -> Image.Image:
    """Return what each thread of a load of twelve records did, and when."""
    runs = []
    for name, text in TWELVE.items():
        (folder / f"{name}.csv").write_text(text)
    for number in map(str, range(10)):
        command = [PYTHON, PROGRAM.name, *FLAGS, "--db", number, "--trace", number + ".json"]
        subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, timeout=RUN_TIMEOUT_S)
        runs.append(read_trace(folder / f"{number}.json"))
    return Chart(min(runs, key=lambda spans: (len(spans), max(span.end for span in spans)))).paint()


def main() -> int:
    """Make the pictures that the command line names, or all of them."""
    makers = {"sample": make_sample, "files": make_files, "timeline": make_timeline}
    if unknown := set(sys.argv[1:]) - set(makers):
        print(f"no such picture: {', '.join(unknown)}; there are {', '.join(makers)}", file=sys.stderr)
        return 2
    for name in sys.argv[1:] or makers:
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(PROGRAM, folder)
            picture, path = makers[name](Path(folder)), HERE / f"{name}.png"
        # A palette in place of full colour takes a third of the size.
        picture.quantize(128, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)
        print(f"{path.name}: {picture.width} x {picture.height}, {path.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
