"""Damages that a corpus' files may have, each with the one right answer of a reader.

What no reader can know is left out: a time that became another valid time (a digit less in the middle of a file), a file
cut exactly at the end of a line, two columns of numbers whose names are exchanged.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from delrec_jax.data.corpora import tables
from delrec_jax.data.corpora.atomic import UNFINISHED_INTER, UNFINISHED_ITEM, read_atomic_tables
from delrec_jax.data.corpora.csv_pair import csv_paths, read_csv_pair

USERS, ITEMS = 8, 12
NO_NUMBERS = [
    "",
    "late",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "\u0661\u0662",
    "0x7f",
    "1,5",
    "12 34",
    "--3",
    "9" * 400,
]
NO_TIMES = [*NO_NUMBERS, "-1", "-0.5", "1e30"]


@dataclasses.dataclass(frozen=True)
class Form:
    """How one of the two kinds of corpora is written and read."""

    name: str
    separator: str
    files: tuple[str, str]
    headers: tuple[tuple[str, ...], tuple[str, ...]]
    read: Callable


FORMS = (
    Form(
        "atomic",
        "\t",
        ("shop.inter", "shop.item"),
        (
            ("user_id:token", "item_id:token", "rating:float", "timestamp:float"),
            ("item_id:token", "title:token_seq", "year:token"),
        ),
        lambda folder: read_atomic_tables(str(folder)),
    ),
    Form(
        "csv",
        ",",
        ("interactions.csv", "items.csv"),
        (("user", "item", "rating", "time"), ("item", "title", "year")),
        lambda folder: read_csv_pair(*csv_paths(str(folder))),
    ),
)


def healthy(form: Form) -> tuple[list[list[str]], list[list[str]]]:
    """Rows of both files, header first; each item is taken, nobody takes one twice, times differ."""
    rows = [
        [f"u{user}", f"i{(user + 2 * step) % ITEMS}", "4", str(1_400_000_000 + 60 * step + user)]
        for step in range(5)
        for user in range(USERS)
    ]
    items = [[f"i{n}", f"Caf\u00e9 {n}", str(1990 + n)] for n in range(ITEMS)]
    return [list(form.headers[0]), *rows], [list(form.headers[1]), *items]


def text(form: Form, rows: list[list[str]]) -> str:
    return "".join(form.separator.join(row) + "\n" for row in rows)


@dataclasses.dataclass
class Case:
    """One file about to be damaged: change `rows`, or return other content."""

    form: Form
    which: int  # 0: interactions, 1: items
    rows: list[list[str]]
    rng: np.random.Generator

    def __post_init__(self):
        self.row = int(self.rng.integers(1, len(self.rows)))

    @property
    def line(self) -> int:
        return self.row + 1

    @property
    def text(self) -> str:
        return text(self.form, self.rows)

    def cell(self, column: int, value: str) -> None:
        self.rows[self.row][column] = value

    def taken(self) -> int:
        """How many interactions have the item of the chosen row of items."""
        return sum(row[1] == self.rows[self.row][0] for row in healthy(self.form)[0])

    def choose(self, values):
        return values[int(self.rng.integers(len(values)))]


@dataclasses.dataclass(frozen=True)
class Error:
    """The right answer: an error that names the file and, if given, the line."""

    line: int | None = None


@dataclasses.dataclass(frozen=True)
class Counted:
    """The right answer: a corpus that says how many rows it lacks or changed, for which reason."""

    reasons: dict[str, int]


SAME = Counted({})


DAMAGES: list[Callable] = []
"""Each returns the file's content (None: that of the case's rows, ...: no file) and the right answer."""


def damage(function: Callable) -> Callable:
    DAMAGES.append(function)
    return function


@damage
def column_removed(case):
    column = case.choose([0, 1, 3] if case.which == 0 else [0, 1])
    for row in case.rows:
        del row[column]
    return None, Error(1)


@damage
def header_removed(case):
    del case.rows[0]
    return None, Error(1)


@damage
def header_type_unknown(case):
    column = int(case.rng.integers(len(case.rows[0])))
    if case.form.name == "csv":
        case.rows[0][column] = ""
    else:
        case.rows[0][column] = case.choose(["user_id", "rating:number", ":token", "x:"])
    return None, Error(1)


@damage
def header_names_twice(case):
    case.rows[0][-1] = case.rows[0][0]
    return None, Error(1)


@damage
def header_again(case):
    case.rows.insert(case.row, list(case.rows[0]))
    return None, Error(case.line)


@damage
def header_only(case):
    return text(case.form, case.rows[:1]), Error()


@damage
def nul_byte(case):
    cell = case.rows[case.row][0]
    case.cell(0, cell[:1] + "\0" + cell[1:])
    return None, Error(case.line)


@damage
def another_encoding_in_one_line(case):
    case.cell(0, "\u00e9")
    lines = case.text.encode().split(b"\n")
    lines[case.row] = lines[case.row].replace("\u00e9".encode(), b"\xe9")
    return b"\n".join(lines), Error(case.line)


@damage
def another_encoding_in_all(case):
    return case.text.encode(case.choose(["utf-16", "utf-16-le", "utf-32"])), Error(1)


@damage
def line_cut(case):
    keep = int(case.rng.integers(0, len(case.rows[0]) - 1)) + 1
    case.rows[case.row] = case.rows[case.row][:keep][: len(case.rows[0]) - 1]
    return None, Error(case.line)


@damage
def lines_joined(case):
    last = case.row == len(case.rows) - 1
    case.row -= last
    case.rows[case.row] += case.rows.pop(case.row + 1)
    return None, Error(case.line)


@damage
def field_too_many(case):
    case.rows[case.row] += [""] * int(case.rng.integers(1, 2000))
    return None, Error(case.line)


@damage
def blank_line(case):
    case.rows.insert(case.row, [""])
    return None, Error(case.line)


@damage
def separator_of_another_kind(case):
    lines = case.text.split("\n")
    lines[case.row] = lines[case.row].replace(case.form.separator, case.choose(["  ", ";", "|"]))
    return "\n".join(lines), Error(case.line)


@damage
def separator_of_another_kind_in_all(case):
    return case.text.replace(case.form.separator, ";"), Error(1)


@damage
def no_content(case):
    return case.choose(["", "\n", " \n\t\n", "\ufeff", "\r\n\r\n"]), Error()


@damage
def file_missing(case):
    return ..., Error()


@damage
def id_blank(case):
    case.cell(0, case.choose(["", " ", "\u00a0"]))
    return None, Error(case.line)


@damage
def no_time_or_row_already(case):
    if case.which == 0:
        value = case.choose(NO_TIMES)
        case.cell(3, f'"{value}"' if "," in value and case.form.name == "csv" else value)
    else:
        case.row = max(case.row, 2)
        case.cell(0, case.rows[case.row - 1][0])
    return None, Error(case.line)


@damage
def no_rating_or_row_already(case):
    if case.which == 1:
        return no_time_or_row_already(case)
    value = case.choose(NO_NUMBERS)
    case.cell(2, f'"{value}"' if "," in value and case.form.name == "csv" else value)
    empty = not value.strip()  # a row may have no rating
    return None, SAME if empty else Error(case.line)


@damage
def quote_in_a_field(case):
    cell = case.rows[case.row][0]
    if case.form.name == "csv":
        case.cell(0, case.choose([f'{cell[0]}"{cell[1:]}', f'"{cell}', f'"{cell}"x']))
        return None, Error(case.line)
    case.cell(0, f'"{cell}"')  # without rules for quotes it is another id
    if case.which == 0:
        return None, Counted({tables.SHORT_USER: 1})
    lost = sum(row[1] == cell for row in healthy(case.form)[0])
    return None, Counted({tables.NO_TITLE_ROW: lost, tables.UNUSED_ITEM: 1})


@damage
def old_macintosh_line_ends(case):
    return case.text.replace("\n", "\r"), Error(1)


@damage
def ids_exchanged_in_the_header(case):
    header = case.rows[0]
    header[0], header[1] = header[1], header[0]
    return None, Error()


@damage
def ids_exchanged_in_one_line(case):
    row = case.rows[case.row]
    if case.which == 0:
        row[0], row[1] = row[1], row[0]
        return None, Counted({tables.NO_TITLE_ROW: 1})
    lost = case.taken()
    row[0], row[1] = row[1], row[0]
    return None, Counted({tables.NO_TITLE_ROW: lost, tables.UNUSED_ITEM: 1})


@damage
def user_and_time_exchanged_or_item_lost(case):
    if case.which == 0:
        row = case.rows[case.row]
        row[0], row[3] = row[3], row[0]
        return None, Error(case.line)
    lost = case.taken()
    del case.rows[case.row]
    return None, Counted({tables.NO_TITLE_ROW: lost})


@damage
def id_huge(case):
    lost = case.taken() if case.which else 1
    column = 1 - case.which  # the item, in both files
    case.cell(column, case.choose(["9", "x", "\u4e2d"]) * int(case.rng.integers(300, 300_000)))
    unused = {tables.UNUSED_ITEM: 1} if case.which else {}
    return None, Counted({tables.NO_TITLE_ROW: lost} | unused)


@damage
def user_huge_or_title_huge(case):
    if case.which == 0:
        case.cell(0, "u" * int(case.rng.integers(300, 300_000)))
        return None, Counted({tables.SHORT_USER: 1})
    case.cell(1, "title " * int(case.rng.integers(300, 50_000)))
    return None, Counted({tables.LONG_TITLE: 1})


@damage
def row_twice_or_title_empty(case):
    if case.which == 0:
        case.rows.insert(case.row, list(case.rows[case.row]))
        return None, Counted({tables.REPEATED: 1})
    case.cell(1, case.choose(["", " ", "&nbsp;"]))
    return None, Counted({tables.EMPTY_TITLE: 1})


@damage
def file_cut(case):
    content = case.text.encode()
    start = len(text(case.form, case.rows[:1]).encode()) + 1
    place = int(case.rng.integers(start, len(content)))
    while content[place - 1 : place] == b"\n":
        place += 1
    return content[:place], None


@damage
def title_as_another_item_has_it(case):
    if case.which == 0:
        return windows_line_ends(case)
    case.row = max(case.row, 2)
    case.cell(1, case.rows[case.row - 1][1])
    return None, Counted({tables.REPEATED_TITLE: 2})


@damage
def windows_line_ends(case):
    return case.text.replace("\n", "\r\n"), SAME


@damage
def windows_line_ends_here_and_there(case):
    lines = case.text.split("\n")
    ends = ["\r\n" if case.rng.random() < 0.5 else "\n" for _ in lines[1:]]
    return "".join(line + end for line, end in zip(lines, ends, strict=False)), SAME


@damage
def byte_order_mark(case):
    return "\ufeff" + case.text, SAME


@damage
def blank_lines_at_the_end(case):
    return case.text + case.choose(["\n", "\r\n", "\n\n\n"]), SAME


@damage
def last_line_without_end(case):
    reason = (UNFINISHED_INTER, UNFINISHED_ITEM)[case.which]
    return case.text.rstrip("\n"), Counted({reason: 1})


@damage
def columns_in_another_order(case):
    order = case.rng.permutation(len(case.rows[0]))
    case.rows[:] = [[row[column] for column in order] for row in case.rows]
    return None, SAME


@damage
def numbers_written_in_another_way(case):
    if case.which == 0:
        time = case.rows[case.row][3]
        case.cell(3, case.choose([f" {time}", f"{time} ", f"+{time}", f"0{time}", f"{time}.0"]))
        case.rows[case.row][2] = case.choose(["-1", "4.50", "1e-3"])
    return None, SAME


@damage
def all_quoted(case):
    if case.form.name == "csv":
        case.rows[:] = [[f'"{cell}"' for cell in row] for row in case.rows]
    return None, SAME
