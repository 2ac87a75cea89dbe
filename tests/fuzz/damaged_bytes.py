"""What can happen to a file, whatever it holds: to its bytes, its lines, its numbers, its place."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from verdicts import choice

NUMBERS = (
    *(
        b"nan",
        b"inf",
        b"-inf",
        b"1e400",
        b"-1",
        b"-0.5",
        b"1.5",
        b"9" * 400,
        b"0x7f",
        b"1,5",
        b"",
        b" ",
        b"--3",
    ),
    *(
        "\u0661".encode(),
        "\uff11".encode(),
        b"1e3",
        b"NaN",
        b"Infinity",
        b"null",
        b"None",
        b"true",
        b"2" * 19,
    ),
)

OTHER_VALUE = "a value that became another valid value cannot be known for one"
OTHER_ROWS = (
    "a line that is missing or that comes again whole is a valid file, whose rows are counted"
)
OTHER_ORDER = "the order of lines is the order of equal times and of items, as the file says"

Damage = Callable[[bytes, np.random.Generator], bytes]


def truncated(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(0, max(1, len(data))))]


def bit_flipped(data: bytes, rng: np.random.Generator) -> bytes:
    if not data:
        return b"\x01"
    place = int(rng.integers(len(data)))
    return data[:place] + bytes([data[place] ^ 1 << int(rng.integers(8))]) + data[place + 1 :]


def bytes_overwritten(data: bytes, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(max(1, len(data))))
    noise = rng.integers(0, 256, int(rng.integers(1, 64)), np.uint8).tobytes()
    return data[:start] + noise + data[start + len(noise) :]


def zeros_inside(data: bytes, rng: np.random.Generator) -> bytes:
    """What a file system leaves after a crash: a block that was never written."""
    start = int(rng.integers(max(1, len(data))))
    size = int(rng.integers(1, 512))
    return data[:start] + bytes(len(data[start : start + size])) + data[start + size :]


def garbage_at_the_end(data: bytes, rng: np.random.Generator) -> bytes:
    return data + rng.integers(0, 256, int(rng.integers(1, 300)), np.uint8).tobytes()


def emptied(data: bytes, rng: np.random.Generator) -> bytes:
    return b""


def blank(data: bytes, rng: np.random.Generator) -> bytes:
    return choice(
        rng,
        (b"\n", b" ", b"\r\n\r\n", b"\xef\xbb\xbf", b"\t\n", b"\x00", b"{}", b"[]", b"null", b"0"),
    )


def in_utf16(data: bytes, rng: np.random.Generator) -> bytes:
    return data.decode("utf-8", "replace").encode(
        choice(rng, ("utf-16", "utf-16-le", "utf-16-be", "utf-32"))
    )


def with_byte_order_mark(data: bytes, rng: np.random.Generator) -> bytes:
    return b"\xef\xbb\xbf" + data


def with_windows_line_ends(data: bytes, rng: np.random.Generator) -> bytes:
    return data.replace(b"\n", b"\r\n")


def with_old_macintosh_line_ends(data: bytes, rng: np.random.Generator) -> bytes:
    return data.replace(b"\n", b"\r")


def blank_lines_at_the_end(data: bytes, rng: np.random.Generator) -> bytes:
    return data + choice(rng, (b"\n", b"\n\n\n", b"\r\n"))


def _in_a_line(data: bytes, rng: np.random.Generator, change: Callable[[bytes], bytes]) -> bytes:
    lines = data.split(b"\n")
    full = [number for number, line in enumerate(lines) if line]
    if not full:
        return data
    number = choice(rng, full)
    lines[number] = change(lines[number])
    return b"\n".join(lines)


def bad_byte(data: bytes, rng: np.random.Generator) -> bytes:
    wrong = choice(
        rng,
        (
            b"\xff",
            b"\xe9",
            b"\x00",
            b"\xed\xa0\x80",
            b"\xc0\xaf",
            b"\xf5\x80\x80\x80",
            b"\x1a",
            b"\x1b[2J",
        ),
    )
    place = rng.random()
    return _in_a_line(
        data, rng, lambda line: line[: (cut := int(place * len(line)))] + wrong + line[cut:]
    )


def unseen_letter(data: bytes, rng: np.random.Generator) -> bytes:
    letter = choice(
        rng, ("\u200b", "\u00a0", "\u202e", "\ufeff", "\u0430", "\u2028", "\x85", "\U000e0041")
    ).encode()
    place = rng.random()
    return _in_a_line(
        data, rng, lambda line: line[: (cut := int(place * len(line)))] + letter + line[cut:]
    )


def long_line(data: bytes, rng: np.random.Generator) -> bytes:
    return _in_a_line(data, rng, lambda line: line + b"x" * int(rng.integers(10_000, 2_000_000)))


def deep(data: bytes, rng: np.random.Generator) -> bytes:
    inside = choice(rng, (b"[", b'{"a":', b"(", b"{'a': "))
    return _in_a_line(data, rng, lambda line: inside * int(rng.integers(500, 200_000)))


def line_cut(data: bytes, rng: np.random.Generator) -> bytes:
    share = rng.random()
    return _in_a_line(data, rng, lambda line: line[: int(share * len(line))])


def line_removed(data: bytes, rng: np.random.Generator) -> bytes:
    lines = data.split(b"\n")
    del lines[int(rng.integers(len(lines)))]
    return b"\n".join(lines)


def line_twice(data: bytes, rng: np.random.Generator) -> bytes:
    lines = data.split(b"\n")
    place = int(rng.integers(len(lines)))
    return b"\n".join([*lines[:place], lines[place], *lines[place:]])


def lines_exchanged(data: bytes, rng: np.random.Generator) -> bytes:
    lines = data.split(b"\n")
    a, b = (int(place) for place in rng.integers(0, len(lines), 2))
    lines[a], lines[b] = lines[b], lines[a]
    return b"\n".join(lines)


def number_changed(data: bytes, rng: np.random.Generator) -> bytes:
    """One run of digits becomes something else."""
    runs, start = [], None
    for place, byte in enumerate(data + b" "):
        digit = 48 <= byte <= 57
        if digit and start is None:
            start = place
        if not digit and start is not None:
            runs.append((start, place))
            start = None
    if not runs:
        return bit_flipped(data, rng)
    start, stop = choice(rng, runs)
    return data[:start] + choice(rng, NUMBERS) + data[stop:]


def twice_over(data: bytes, rng: np.random.Generator) -> bytes:
    return data + data


TEXT_DAMAGES: dict[Damage, str] = {
    truncated: OTHER_ROWS,
    bit_flipped: OTHER_VALUE,
    bytes_overwritten: OTHER_VALUE,
    zeros_inside: "",
    garbage_at_the_end: OTHER_VALUE,
    emptied: "",
    blank: "",
    in_utf16: "",
    with_byte_order_mark: "",
    with_windows_line_ends: "",
    with_old_macintosh_line_ends: "",
    blank_lines_at_the_end: "",
    bad_byte: OTHER_VALUE,
    unseen_letter: OTHER_VALUE,
    long_line: OTHER_VALUE,
    deep: OTHER_VALUE,
    line_cut: OTHER_VALUE,
    line_removed: OTHER_ROWS,
    line_twice: OTHER_ROWS,
    lines_exchanged: OTHER_ORDER,
    number_changed: OTHER_VALUE,
    twice_over: OTHER_ROWS,
}
"""Damages of text files, and why what is accepted after them may be another content; "" = it never may."""

BINARY_DAMAGES = (
    truncated,
    bit_flipped,
    bytes_overwritten,
    zeros_inside,
    garbage_at_the_end,
    emptied,
    blank,
    twice_over,
)


def removed(path: Path) -> None:
    path.unlink()


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def link_to_nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nowhere"))


def pipe_without_end(path: Path) -> None:
    """Something that is no file at all."""
    path.unlink()
    path.symlink_to(os.devnull)


def replaced(path: Path, other: Path) -> None:
    """Puts another file in its place."""
    path.unlink()
    shutil.copyfile(other, path)


PLACE_DAMAGES = (removed, folder_instead, link_to_itself, link_to_nowhere, pipe_without_end)
