#!/usr/bin/env python3
# /// script
# requires-python = ">=3.10"
# dependencies = ["pillow", "pyte"]
# ///
"""Make the pictures beside this file, each from a real run of distributed_inserts.py in a temporary folder.

    python -m pip install pillow pyte
    python screenshots/make.py                  # or: uv run screenshots/make.py
    python screenshots/make.py timeline         # some of: sample, files, timeline

sample.png    the bare run, in a terminal
files.png     a load of three files with refusals: in mid-load with its progress bar, and at its end
timeline.png  what the sample's threads and insert workers did and when, drawn from the run's own --trace

The terminal is a real one (a pseudo-terminal: Linux or macOS); pyte keeps its screen and Pillow draws the cells.
"""
from __future__ import annotations

import csv
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
import textwrap
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyte
from PIL import Image, ImageColor, ImageDraw, ImageFont
from pyte.screens import Char

HERE = Path(__file__).resolve().parent
PROGRAM = HERE.parent / "distributed_inserts.py"
COLUMNS, ROWS = 100, 240  # of the terminal: taller than the longest report, so that nothing scrolls away
TAIL_ROWS = 35  # of a long report, what is shown
SETTLED_S = 0.01  # output that rests this long makes a frame
RUN_TIMEOUT_S = 120.0
BAD_SHARE = 0.01  # of the records in the files to load

# --------------------------------------------------------------------------------------- Fonts, colours, files
# All sizes are twice what a page shows, which keeps the text crisp.
TEXT_PX, LABEL_PX, MARGIN = 28, 22, 28
FONTS = (  # regular and bold; Pillow knows the font folders of each system
    ("DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf"), ("Menlo.ttc", "Menlo.ttc"), ("consola.ttf", "consolab.ttf"),
    ("LiberationMono-Regular.ttf", "LiberationMono-Bold.ttf"), ("NotoSansMono-Regular.ttf", "NotoSansMono-Bold.ttf"),
)
PAPER, INK, BAR, FAINT = "#1b1f27", "#d7dce5", "#2b313c", "#8a93a3"
ANSI = {"black": "#3b4252", "red": "#ff6b6b", "green": "#7bd88f", "brown": "#f2c14e",
        "blue": "#6cb2f7", "magenta": "#d59bf6", "cyan": "#5fd7d7", "white": INK}
BLOCKS = {"█": 1.0, "▓": 0.75, "▒": 0.5, "░": 0.25}  # drawn as areas: a font leaves gaps between them
WORK_COLOURS = ("#f6bd60", "#8ecae6", "#a7d3a6", "#cdb4db", "#f4a6a0", "#9fd8cb")
WAIT_COLOURS = ("#e3e6ea", "#fdebc8", "#dfe9d8", "#ece0f0")
COUNTER_COLOUR, BAND_COLOURS, ARROW_COLOURS = "#c9c9c9", ("#e8f0fa", "#faf1e6"), ("#1d4e89", "#b5460f", "#4a7c2c", "#7b2d8b")


def load_font(size: int, bold: bool = False) -> Any:
    """The first of FONTS that this system has, else Pillow's own."""
    for names in FONTS:
        try:
            return ImageFont.truetype(names[bold], size, index=int(bold and names[1].endswith(".ttc")))
        except OSError:
            continue
    return ImageFont.load_default(size)


def blend(front: str, back: str, share: float) -> tuple[int, ...]:
    """The colour that holds the given share of the front and the rest of the back."""
    pairs = zip(ImageColor.getrgb(front), ImageColor.getrgb(back))
    return tuple(round(a * share + b * (1 - share)) for a, b in pairs)


def save_picture(picture: Image.Image, name: str) -> None:
    """Write NAME.png beside this file, with a palette in place of full colour: a third of the size."""
    path = HERE / f"{name}.png"
    picture.quantize(128, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.name}: {picture.width} x {picture.height}, {path.stat().st_size / 1000:.0f} kB")


# -------------------------------------------------------------------------------------------------- A terminal
Frame = list[list[Char]]  # rows of cells


class DimScreen(pyte.Screen):
    """A pyte screen that keeps the attribute "dim", which pyte drops, in the place of "blink"."""

    def select_graphic_rendition(self, *attrs: int, **options: bool) -> None:
        """Set the attributes of what follows; a 2 inside an extended colour (38, 48) is no "dim"."""
        if 38 not in attrs and 48 not in attrs:
            attrs = tuple(code for attr in attrs for code in {2: (5,), 5: (), 22: (22, 25)}.get(attr, (attr,)))
        super().select_graphic_rendition(*attrs, **options)


def frame_text(frame: Frame) -> str:
    """The frame's characters as lines of text."""
    return "\n".join("".join(cell.data for cell in row) for row in frame)


def copy_screen(screen: pyte.Screen) -> Frame:
    """The screen's cells, without the empty rows at its end."""
    frame = [[screen.buffer[y][x] for x in range(screen.columns)] for y in range(screen.lines)]
    while frame and not frame_text(frame[-1:]).strip():
        frame.pop()
    return frame


def format_prompt(arguments: list[str]) -> str:
    """A shell's prompt with the command on it, a long one in several lines."""
    command = " ".join(["python", *arguments])
    lines = textwrap.wrap(command, COLUMNS - 6, subsequent_indent="    ", break_on_hyphens=False)
    return "\x1b[32;1m$\x1b[0m \x1b[1m" + " \\\r\n".join(lines) + "\x1b[0m\r\n"


def read_terminal(terminal: int) -> Iterator[bytes]:
    """What is written to the terminal, chunk by chunk; an empty chunk each time the output has settled."""
    deadline, settled = time.monotonic() + RUN_TIMEOUT_S, True
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], SETTLED_S)[0]:
            try:
                chunk = os.read(terminal, 65536)
            except OSError:  # Linux's way to say that the other end is closed
                return
            if not chunk:
                return
            settled = False
            yield chunk
        elif not settled:
            settled = True
            yield b""
    raise TimeoutError(f"the program still runs after {RUN_TIMEOUT_S:.0f} s")


def record_run(arguments: list[str], folder: Path, exit_status: int) -> list[Frame]:
    """Run Python with the arguments in a terminal; the frames its screen went through, the last one at the end.

    Raises RuntimeError when the program ends with another exit status.
    """
    import fcntl, pty, termios  # not on Windows, where the timeline still works

    screen = DimScreen(COLUMNS, ROWS)
    stream, frames = pyte.ByteStream(screen), []
    stream.feed(format_prompt(arguments).encode())
    terminal, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    unwanted = {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"}
    environment = {name: value for name, value in os.environ.items() if name not in unwanted}
    environment |= {"TERM": "xterm-256color", "PYTHONUTF8": "1"}
    command = [sys.executable, *arguments]
    with subprocess.Popen(command, cwd=folder, env=environment, stdin=inner, stdout=inner, stderr=inner) as run:
        os.close(inner)
        try:
            for chunk in read_terminal(terminal):
                stream.feed(chunk)
                if not chunk:
                    frames.append(copy_screen(screen))
        except BaseException:
            run.kill()
            raise
        finally:
            os.close(terminal)
    frames.append(copy_screen(screen))
    if run.returncode != exit_status:
        raise RuntimeError(f"exit status {run.returncode}, not {exit_status}:\n{frame_text(frames[-1])}")
    return frames


def bar_distance(frame: Frame) -> float:
    """How far the frame's progress bar is from 50 %; infinite where there is none."""
    bars = [line for line in frame_text(frame).split("\n") if "█" in line or "░" in line]
    percent = re.search(r"(\d+(\.\d+)?) ?%", " ".join(bars))
    return abs(float(percent[1]) - 50) if percent else float("inf")


def draw_cell(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], cell: Char, fonts: tuple[Any, Any]) -> None:
    """Draw one cell of a terminal into its box."""
    # A colour is "default", a word, "bright" with a word ("bfight": pyte's own slip) or six hexadecimal digits.
    names = (re.sub("^b[rf]ight", "", name) for name in (cell.fg, cell.bg))
    ink, paper = (own if name == "default" else ANSI.get(name, f"#{name}") for name, own in zip(names, (INK, PAPER)))
    if cell.reverse:
        ink, paper = paper, ink
    strength = 0.6 if cell.blink else 1.0
    share = BLOCKS.get(cell.data, 0) * strength
    if share or paper != PAPER:
        draw.rectangle((box[0], box[1], box[2] - 1, box[3] - 1), blend(ink, paper, share))
    if not share and cell.data.strip():
        draw.text(box[:2], cell.data, blend(ink, paper, strength), fonts[cell.bold])


def draw_windows(windows: dict[str, Frame]) -> Image.Image:
    """A picture of terminal windows, one above the other, each with its title and frame."""
    fonts = load_font(TEXT_PX), load_font(TEXT_PX, bold=True)
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
        draw.text((width / 2, top + bar / 2), title, FAINT, fonts[0], anchor="mm")
        for y, row in enumerate(frame):
            cell_top = top + bar + MARGIN + y * cell_height
            for x, cell in enumerate(row):
                left, right = (MARGIN + round(column * cell_width) for column in (x, x + 1))
                draw_cell(draw, (left, cell_top, right, cell_top + cell_height), cell, fonts)
        top += height + MARGIN
    return picture


# ----------------------------------------------------------------------------------------------- Files to load
USERS, PRODUCTS, ORDERS = 60_000, 12_000, 120_000


def write_table(path: Path, fields: list[str], rows: Iterable[list[Any]], faults: list[str], chance: random.Random) -> None:
    """Write rows as CSV; BAD_SHARE of them get one of the faults, each "field=value" in place of the row's own."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(fields)
        for row in rows:
            if chance.random() < BAD_SHARE:
                field, value = chance.choice(faults).split("=")
                row[fields.index(field)] = value
            writer.writerow(row)


def write_tables(folder: Path) -> None:
    """Write users.csv, products.csv and orders.csv, the same ones every time."""
    chance = random.Random(20)
    whole = chance.randint
    users = ([n, f"Person {n}", f"user{n}@example.com"] for n in range(1, USERS + 1))
    products = ([n, f"Thing {n}", f"{whole(100, 90_000) / 100:.2f}"] for n in range(1, PRODUCTS + 1))
    orders = ([n, whole(1, USERS), whole(1, PRODUCTS), whole(1, 9)] for n in range(1, ORDERS + 1))
    for name, header, rows, faults in (
        ("users.csv", "id,name,email", users, "name= email=nobody@ email=user1@example.com id=12a"),
        ("products.csv", "id,name,price", products, "price=-5.00 price=free price=0 name="),
        ("orders.csv", "id,user_id,product_id,quantity", orders, "quantity=0 quantity=2.5 user_id=999999 product_id="),
    ):
        write_table(folder / name, header.split(","), rows, faults.split(), chance)


# ------------------------------------------------------------------------------------------ A trace as a chart
Thread = tuple[int, int]  # process and thread, the trace's pid and tid
TRANSACTION = "transaction"  # the name of the spans that get a band
PICTURE_WIDTH, LANE, GAP, TITLE = 2200, 30, 6, 62  # and the heights of a span, between rows, of a process's title
ARROW_ROOM = 330  # at the right, for labels and arrows that go beyond the end


class Span(NamedTuple):
    """What a thread did from start to end (ms), its arguments in words, and how many other spans it lies in."""

    start: float
    end: float
    name: str
    words: list[str]
    depth: int


def nest_spans(events: list[dict[str, Any]]) -> list[Span]:
    """The complete events of one thread as spans, an outer one before those in it."""
    spans: list[Span] = []
    outer: list[float] = []  # ends of the spans around the next one
    for event in sorted(events, key=lambda event: (event["ms"], -event.get("dur", 0))):
        while outer and outer[-1] <= event["ms"] + 1e-6:
            outer.pop()
        end = event["ms"] + event.get("dur", 0) / 1000
        words = [value if isinstance(value, str) else f"{name} {value}" for name, value in event.get("args", {}).items()]
        words.sort(key=lambda word: "#" not in word)  # which records shared a transaction matters more than its number
        spans.append(Span(event["ms"], end, event["name"], words, len(outer)))
        outer.append(end)
    return spans


class Timeline:
    """A chart of a trace in the Chrome format: a row per thread, grouped by process, time from left to right."""

    def __init__(self, events: list[dict[str, Any]]) -> None:
        self.names: dict[Any, str] = {}  # of a process, of a thread
        self.counters: dict[int, list[tuple[float, float]]] = {}
        flows: dict[Any, dict[str, tuple[Thread, float]]] = {}
        complete: dict[Thread, list[dict[str, Any]]] = {}
        origin = min(event["ts"] for event in events if event["ph"] != "M")
        for event in events:
            thread, phase = (event["pid"], event.get("tid", 0)), event["ph"]
            event["ms"] = (event.get("ts", origin) - origin) / 1000
            if phase == "M" and event["name"] in ("process_name", "thread_name"):
                self.names[thread if event["name"] == "thread_name" else event["pid"]] = event["args"]["name"]
            elif phase == "X" and event["name"] != "thread":  # a thread is its row
                complete.setdefault(thread, []).append(event)
            elif phase == "C":
                self.counters.setdefault(event["pid"], []).append((event["ms"], sum(event["args"].values())))
            elif phase in "sf":
                flows.setdefault((event.get("cat"), event["id"]), {})[phase] = thread, event["ms"]
        self.rows = {thread: nest_spans(complete[thread]) for thread in sorted(complete, key=self.row_order)}
        pairs = [(ends["s"], ends["f"]) for ends in flows.values() if len(ends) == 2]
        self.arrows = [pair for pair in pairs if pair[0][0] in self.rows and pair[1][0] in self.rows]
        self.end = max(span.end for spans in self.rows.values() for span in spans)

    def row_order(self, thread: Thread) -> tuple:
        """A key that keeps a process together, its insert worker first, users#10 after users#9."""
        name = self.names.setdefault(thread, f"thread {thread[1]}")
        parts = re.split(r"(\d+)", name)  # text and digits in turn
        return thread[0], "worker" not in name, [int(part) if part.isdigit() else part for part in parts]

    def paint(self) -> Image.Image:
        """The chart as a picture: what is read lies above what is only followed."""
        self.font, self.bold = load_font(LABEL_PX), load_font(LABEL_PX, bold=True)
        self.place_rows()
        self.draw_axis()
        for pid in self.titles:
            self.draw_process(pid)
        for thread, spans in self.rows.items():
            self.draw.text((MARGIN, self.tops[thread] + LANE / 2), self.names[thread], "#333333", self.font, "lm")
            for span in spans:
                self.draw.rectangle(self.box(thread, span), self.colours[span.name], "#666666")
        for number, (source, target) in enumerate(sorted(self.arrows, key=lambda arrow: self.tops[arrow[1][0]])):
            self.draw_arrow(*source, *target, 30 + ARROW_ROOM // 36 * (number % 24))
        for thread, spans in self.rows.items():
            self.label_row(thread, spans)
        return self.picture

    def place_rows(self) -> None:
        """Give each span's name its colour, each process and thread its place, and make the picture to hold them."""
        names = list(dict.fromkeys(span.name for spans in self.rows.values() for span in spans))
        waits, works = [name for name in names if "wait" in name], [name for name in names if "wait" not in name]
        self.colours = {name: WAIT_COLOURS[index % len(WAIT_COLOURS)] for index, name in enumerate(waits)}
        self.colours |= {name: WORK_COLOURS[index % len(WORK_COLOURS)] for index, name in enumerate(works)}
        self.colours["(records waiting for the worker)"] = COUNTER_COLOUR
        self.titles: dict[int, int] = {}
        self.tops: dict[Thread, int] = {}
        self.top = bottom = 2 * MARGIN + 3 * LANE
        for thread, spans in self.rows.items():
            if thread[0] not in self.titles:
                self.titles[thread[0]] = bottom
                bottom += TITLE
            self.tops[thread] = bottom
            bottom += (1 + max(span.depth for span in spans)) * LANE + GAP
        self.left = 2 * MARGIN + max(self.font.getlength(self.names[thread]) for thread in self.rows)
        self.picture = Image.new("RGB", (PICTURE_WIDTH, bottom + MARGIN), "white")
        self.draw = ImageDraw.Draw(self.picture)

    def x(self, ms: float) -> float:
        """Where a time lies on the picture."""
        return self.left + ms / self.end * (PICTURE_WIDTH - ARROW_ROOM - self.left)

    def box(self, thread: Thread, span: Span) -> tuple[float, float, float, float]:
        """The area of a span, never too narrow to be seen."""
        left, top = self.x(span.start), self.tops[thread] + span.depth * LANE
        return left, top, max(self.x(span.end), left + 3), top + LANE - 3

    def draw_axis(self) -> None:
        """Draw the legend, and the milliseconds as lines through all rows."""
        x, y = MARGIN, MARGIN
        for name, colour in self.colours.items():
            if x + 36 + self.font.getlength(name) > PICTURE_WIDTH - MARGIN:
                x, y = MARGIN, y + LANE
            self.draw.rectangle((x, y, x + 22, y + 22), colour, "#666666")
            self.draw.text((x + 36, y + 11), name, "black", self.font, "lm")
            x += 70 + self.font.getlength(name)
        step = next(step for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1e9) if self.end / step <= 16)
        for index in range(int(self.end / step) + 1):
            x = self.x(index * step)
            self.draw.line((x, self.top - 8, x, self.picture.height - MARGIN), "#e3e3e3", 2)
            self.draw.text((x, self.top - 12), f"{index * step:g} ms", "#777777", self.font, "ms")

    def draw_process(self, pid: int) -> None:
        """Draw a process's title with its counter as an area, and a band behind its rows for each transaction."""
        threads, top = [thread for thread in self.rows if thread[0] == pid], self.titles[pid] + TITLE
        self.draw.text((MARGIN, top - 22), self.names.get(pid, f"process {pid}"), "black", self.bold, "lm")
        transactions = [span for thread in threads for span in self.rows[thread] if span.name == TRANSACTION]
        for number, span in enumerate(transactions):
            band = self.x(span.start), top, self.x(span.end), self.tops[threads[-1]] + LANE
            self.draw.rectangle(band, BAND_COLOURS[number % len(BAND_COLOURS)])
        steps = sorted(self.counters.get(pid, []))
        highest = max((value for _, value in steps), default=0)
        for (start, value), (end, _) in zip(steps, steps[1:] + [(self.end, 0)]):
            if value:
                self.draw.rectangle((self.x(start), top - 6 - 40 * value / highest, self.x(end), top - 6), COUNTER_COLOUR)

    def draw_arrow(self, source: Thread, start: float, target: Thread, end: float, bulge: int) -> None:
        """Draw a thin curve from a record to one that waited for it; bulges keep arrows of one moment apart."""
        x1, y1, x2, y2 = self.x(start), self.tops[source] + LANE / 2, self.x(end), self.tops[target] + LANE / 2
        far, points = max(x1, x2) + bulge, []
        for t in (step / 40 for step in range(41)):  # a Bezier curve
            a, b, c, d = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3
            points.append((a * x1 + (b + c) * far + d * x2, (a + b) * y1 + (c + d) * y2))
        colour = ARROW_COLOURS[list(self.titles).index(source[0]) % len(ARROW_COLOURS)]
        self.draw.line(points, colour, 2)
        self.draw.ellipse((x1 - 4, y1 - 4, x1 + 4, y1 + 4), colour)
        self.draw.polygon(((x2, y2), (x2 + 12, y2 - 5), (x2 + 12, y2 + 5)), colour)

    def label_row(self, thread: Thread, spans: list[Span]) -> None:
        """Write what each span says into it, or where its row is free behind it or before all; less where it does not fit."""
        width, before = self.font.getlength, self.x(spans[0].start) - 10
        for span in [span for span in spans if not span.depth]:
            left, top, right, _ = self.box(thread, span)
            later = [self.x(other.start) for other in spans if other.depth == span.depth and other.start >= span.end]
            inside, behind = right - left - 18, min(later, default=PICTURE_WIDTH) - right - 16
            words = [", ".join(span.words[:count]) for count in range(len(span.words), 0, -1)]
            full = ": ".join([span.name, *words[:1]])
            places = [(text, left + 14, inside) for text in (full, *words, span.name)]
            places += [(text, right + 8, behind) for text in (full, *words) if words]
            if span is spans[0]:
                places += [(text, before - width(text), before - self.left) for text in (full, *words) if words]
            for text, x in [(text, x) for text, x, room in places if width(text) <= room][:1]:
                halo = {} if left < x < right else {"stroke_width": 3, "stroke_fill": "white"}
                self.draw.text((x, top + LANE / 2 - 1), text, "black", self.font, "lm", **halo)


# ------------------------------------------------------------------------------------------------ The pictures
def make_sample(folder: Path) -> Image.Image:
    """The bare run in a terminal."""
    return draw_windows({"the sample": record_run([PROGRAM.name], folder, 0)[-1]})


def make_files(folder: Path) -> Image.Image:
    """A load of three files with refusals: the screen in mid-load, and at the end."""
    write_tables(folder)
    flags = "--users users.csv --products products.csv --orders orders.csv --rejects rejects"
    arguments = [PROGRAM.name, *flags.split()]
    frames = record_run(arguments, folder, 1)
    head, ended = format_prompt(arguments).count("\n"), frames[-1]
    if (cut := len(ended) - head - TAIL_ROWS) > 1:
        note = [Char(letter, blink=True) for letter in f"… {cut} more lines …"]
        ended = ended[:head] + [note] + ended[-TAIL_ROWS:]
    middle = min(frames, key=bar_distance)
    if bar_distance(middle) > 40:
        raise RuntimeError("no progress bar was seen between 10 and 90 %: was the load too short?")
    return draw_windows({"in mid-load": middle, "at the end": ended})


def make_timeline(folder: Path) -> Image.Image:
    """What each thread of the bare run did, and when."""
    command = [sys.executable, PROGRAM.name, "--trace", "trace.json"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=RUN_TIMEOUT_S)
    return Timeline(json.loads((folder / "trace.json").read_bytes())["traceEvents"]).paint()


def main() -> int:
    """Make the pictures that the command line names, or all of them."""
    makers = {"sample": make_sample, "files": make_files, "timeline": make_timeline}
    if unknown := set(sys.argv[1:]) - set(makers):
        print(f"no such picture: {', '.join(unknown)}; there are {', '.join(makers)}", file=sys.stderr)
        return 2
    for name in sys.argv[1:] or makers:
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(PROGRAM, folder)
            save_picture(makers[name](Path(folder)), name)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
