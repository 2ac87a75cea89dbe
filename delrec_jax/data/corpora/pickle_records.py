"""A pickle of strangers as inert records: what it would call, with what, and nothing called.

A pickle is a program: it may name any function and call it. Here every name that it may use stands for a record of our
own, which only keeps what it is given; another name is refused and never looked up. numpy's own functions are not
admitted either, because a forged element type makes them take bytes for pointers.
"""

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any

from delrec_jax.data.corpora.archives import open_lines
from delrec_jax.errors import UserError

REMEDY = "export the table as CSV where pandas is at hand, or fetch the file again"
_MEMO_OPCODES = {"PUT", "LONG_BINPUT"}


class Record:
    """Stands in a pickle for a class or function: keeps arguments and state, and does nothing."""

    __match_args__ = ("args", "state")
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> "Record":
        """Keeps the arguments; a subclass needs no more."""
        record = super().__new__(cls)
        record.args, record.state = args, None
        return record

    # Without it a pickle could set attributes of its choice, on the class too.
    def __setstate__(self, state: Any) -> None:
        self.state = state


class Frame(Record):
    """`DataFrame`; state: {"_mgr" or, before pandas 1.1, "_data": manager, ...}."""


class Manager(Record):
    """`BlockManager(blocks, axes)`; before pandas 1.3 state: (..., {"0.14.1": {axes, blocks}})."""


class Block(Record):
    """`_unpickle_block(values [columns, rows], placement, 2)`."""


class NewIndex(Record):
    """`_new_Index(class, {"data": array, ...})`."""


class Class(Record):
    """`ndarray` or a class of indices, only ever an argument."""


class Slice(Record):
    """`slice(start, stop, step)`."""


class Array(Record):
    """`_reconstruct(...)`; state: (version, shape, dtype, is Fortran order, bytes or list)."""


class Buffer(Record):
    """`_frombuffer(bytes, dtype, shape, order)`."""


class Scalar(Record):
    """`scalar(dtype, bytes)`."""


class Dtype(Record):
    """`dtype(code, align, copy)`; state: (version, byte order, subarray, names, fields, ...)."""


class Encoded(Record):
    """`_codecs.encode(text, "latin1")`: how protocol 2 writes bytes."""


ADMITTED: dict[tuple[str, str], type[Record]] = {
    ("pandas.core.frame", "DataFrame"): Frame,
    ("pandas.core.internals.managers", "BlockManager"): Manager,
    ("pandas.core.internals", "BlockManager"): Manager,
    ("pandas._libs.internals", "_unpickle_block"): Block,
    ("pandas.core.indexes.base", "_new_Index"): NewIndex,
    ("pandas.core.indexes.base", "Index"): Class,
    ("pandas.core.indexes.range", "RangeIndex"): Class,
    ("pandas.core.indexes.numeric", "Int64Index"): Class,
    ("pandas.core.indexes.numeric", "UInt64Index"): Class,
    ("pandas.core.indexes.numeric", "Float64Index"): Class,
    ("builtins", "slice"): Slice,
    ("__builtin__", "slice"): Slice,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): Array for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): Buffer for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): Scalar for core in ("core", "_core")},
    ("numpy", "ndarray"): Class,
    ("numpy", "dtype"): Dtype,
    ("_codecs", "encode"): Encoded,
}


class _RefusedName(Exception):
    """The name of a function or class that no table of arrays needs."""


class _Unpickler(pickle.Unpickler):
    """Knows no module: a name gives a record class or an error."""

    def find_class(self, module: str, name: str) -> type[Record]:
        if (module, name) not in ADMITTED:
            raise _RefusedName(f"{module}.{name}")
        return ADMITTED[module, name]


def load_records(path: Path) -> Any:
    """What a pickle holds: plain values, lists, tuples, sets, dicts and records.

    Args:
      path: The pickle, gzipped or not.

    Raises:
      UserError: if the file is missing, is not a pickle, is cut short or damaged, or names anything but the arrays and
        tables of numpy and pandas.
    """
    with open_lines(path) as file:
        content = file.read()
    try:
        _check_memo(content)
        return _Unpickler(io.BytesIO(content)).load()
    except _RefusedName as refused:
        raise UserError(
            f"{path}: the pickle wants {str(refused)!r}, which no table of arrays needs; nothing of it was run; {REMEDY}"
        ) from refused
    # Damaged opcodes raise whatever they come upon: no list of exceptions is complete (see the manual of `pickle`).
    except Exception as error:
        raise UserError(
            f"{path}: not a pickle, cut short or damaged ({error}); {REMEDY}"
        ) from error


def _check_memo(content: bytes) -> None:
    """Reads the opcodes without doing them; one flipped bit could have the unpickler reserve many gigabytes."""
    for opcode, argument, _ in pickletools.genops(content):
        # An opcode fills one place, and places are counted up: none is beyond the number of bytes.
        place = argument if opcode.name in _MEMO_OPCODES else 0
        if place is not None and place > len(content):
            raise ValueError(f"place {place} of its memory, in {len(content)} bytes")
