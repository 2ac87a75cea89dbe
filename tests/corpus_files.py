"""Raw files as publishers write them, with pickled frames put together opcode by opcode; and what a corpus has of them."""

import gzip
import io
import pickle
from pathlib import Path

import numpy as np


def python2_repr(value) -> str:
    """As Python 2 wrote Unicode text: u'...' in ASCII."""
    if isinstance(value, str):
        return "u" + ascii(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(python2_repr, value)) + "]"
    if isinstance(value, dict):
        pairs = (f"{python2_repr(key)}: {python2_repr(item)}" for key, item in value.items())
        return "{" + ", ".join(pairs) + "}"
    return repr(value)


def dump(path: Path, records, write) -> Path:
    """Packed lines; strings among the records stay as they are."""
    lines = [item if isinstance(item, str) else write(item) for item in records]
    path.write_bytes(gzip.compress("\n".join([*lines, ""]).encode()))
    return path


class Raw(bytes):
    """A piece of a pickle."""


def put(thing) -> bytes:
    """The opcodes that put a thing, which may have pieces in it, on the unpickler's stack."""
    if isinstance(thing, Raw):
        return thing
    if isinstance(thing, list | tuple):
        return b"(" + b"".join(map(put, thing)) + (b"l" if isinstance(thing, list) else b"t")
    if isinstance(thing, dict):
        return b"(" + b"".join(put(part) for pair in thing.items() for part in pair) + b"d"
    pickler = pickle.Pickler(file := io.BytesIO(), 3)
    pickler.fast = True  # no memo
    pickler.dump(thing)
    return file.getvalue()[2:-1]


def named(name: str) -> Raw:
    module, _, attribute = name.rpartition(".")
    return Raw(f"c{module}\n{attribute}\n".encode())


def call(name: str, *arguments, state=None) -> Raw:
    code = named(name) + put(arguments) + b"R"
    return Raw(code if state is None else code + put(state) + b"b")


def dtype(code: str, order: str = "<", parts=None) -> Raw:
    return call("numpy.dtype", code, False, True, state=(3, order, None, parts, None, -1, -1, 0))


def objects(cells, shape, *, kind=None, fortran=False) -> Raw:
    array = ("numpy._core.multiarray._reconstruct", named("numpy.ndarray"), (0,), b"b")
    return call(*array, state=(1, shape, kind or dtype("O8", "|"), fortran, cells))


def numbers(data: bytes, shape, kind=None) -> Raw:
    kind = kind or dtype("i8")
    return call("numpy._core.numeric._frombuffer", data, kind, shape, "C")


def block(values, *where) -> Raw:
    places = call("builtins.slice", *where) if len(where) == 3 else where[0]
    return call("pandas._libs.internals._unpickle_block", values, places, 2)


def index(*names) -> Raw:
    attributes = {"data": objects(list(names), (len(names),)), "name": None}
    new = ("pandas.core.indexes.base._new_Index", named("pandas.core.indexes.base.Index"))
    return call(*new, attributes)


def frame(blocks, names) -> Raw:
    manager = call("pandas.core.internals.managers.BlockManager", tuple(blocks), [names, 0])
    return call("pandas.core.frame.DataFrame", state={"_mgr": manager, "attrs": {}})


def save(path: Path, content: bytes) -> Path:
    whole = b"\x80\x03" + content + b"." if isinstance(content, Raw) else content
    path.write_bytes(whole)
    return path


def save_columns(path: Path, columns) -> Path:
    """Columns of lists or numbers as `DataFrame.to_pickle` writes them."""
    blocks = []
    for place, cells in enumerate(columns.values()):
        if any(isinstance(cell, list) for cell in cells):
            values = objects(cells, (1, len(cells)))
        else:
            array = np.asarray(cells)
            values = numbers(array.tobytes(), (1, len(cells)), dtype(array.dtype.str[1:]))
        blocks.append(block(values, place, place + 1, 1))
    return save(path, frame(blocks, index(*columns)))


def taken(corpus) -> dict[str, list[str]]:
    """Raw user id to raw item ids in order."""
    ids, rows = corpus.catalogue.ids, corpus.interactions
    return {
        name: [ids[item] for item in rows.history(user)] for user, name in enumerate(rows.user_ids)
    }


def nonzero(corpus) -> dict[str, int]:
    """What was dropped, by reason."""
    return {reason: count for reason, count in corpus.dropped.items() if count}
