"""LLaRA's pandas DataFrames, read from their pickles without pandas and without running code of the file's choosing.

A pickle is a program that may call any function. Here each name that it may use leads to a record, which keeps what it is
given and does nothing; any other name is refused and never looked up. Not even numpy's own functions are called: a forged
element type makes them take bytes for pointers. Arrays are built from the records, with every size checked. The layouts are
those that `DataFrame.to_pickle` writes by default in pandas 1.3 to 3.
"""

import io
import math
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np

from delrec_jax.data.corpora.archives import read_whole
from delrec_jax.errors import UserError, one_line

ADMITTED = {
    *("pandas.core.frame.DataFrame", "pandas.DataFrame"),
    *("pandas.core.internals.managers.BlockManager", "pandas._libs.internals._unpickle_block"),
    *("pandas.core.indexes.base._new_Index", "pandas.core.indexes.base.Index", "pandas.Index"),
    *("pandas.core.indexes.range.RangeIndex", "pandas.RangeIndex", "pandas.arrays.StringArray"),
    *("pandas._libs.arrays.__pyx_unpickle_NDArrayBacked", "pandas.StringDtype"),
    *("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
    *("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer"),
    *("numpy.ndarray", "numpy.dtype", "builtins.slice"),
}
_NUMBERS = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}
_PLAIN = (type(None), bool, int, float, str)


class Record:
    """What a pickle names; each name makes a subclass of its own, so that no change to one outlasts the reading."""

    __match_args__ = ("name", "args", "state")
    name: str
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> "Record":
        """Keeps the arguments of the call."""
        record = super().__new__(cls)
        record.name, record.args, record.state = cls.__name__, args, None
        return record

    # Without it, a pickle could set any attribute.
    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type[Record]:
        if (full := f"{module}.{name}") not in ADMITTED:
            raise pickle.UnpicklingError(f"it wants {full!r}, which no table needs")
        return type(name, (Record,), {})


def load_frame(path: Path) -> dict[str, np.ndarray]:
    """Reads the columns of a pickled pandas DataFrame, gzipped or not.

    Returns:
      Column names to arrays [R] of R rows in the file's order; the row index is left out. Columns of Python objects
      have dtype object and hold None, bool, int, float, str, and lists and tuples of these.

    Raises:
      UserError: if the file is missing, is not a pickle of a DataFrame, is cut short or damaged, or names or holds
        anything but tables of numbers and such objects; nothing of it is run.
    """
    content = read_whole(path)
    try:
        _check_sizes(content)
        return _columns(_Unpickler(io.BytesIO(content)).load())
    except Exception as error:  # a damaged pickle may raise any, says the manual of `pickle`
        raise UserError(
            f"{path}: not a pickled table, cut short or damaged ({one_line(error, most=200)}); nothing of it was run; "
            "export the table as CSV with pandas, or download the file again"
        ) from error


def _check_sizes(content: bytes) -> None:
    """Without this pass, one flipped bit could have the unpickler reserve many gigabytes for a string or for its memo."""
    for opcode, argument, _ in pickletools.genops(content):  # checks the lengths of strings
        # Places of the memo are counted up, at most one for each opcode.
        if opcode.name in ("PUT", "LONG_BINPUT") and (argument or 0) > len(content):
            raise ValueError(f"place {argument} of its memo, in {len(content)} bytes")


def _columns(frame: Any) -> dict[str, np.ndarray]:
    """Gives each row of the blocks, which is a column, its name."""
    match frame:
        case Record("DataFrame", _, {"_mgr": Record("BlockManager", [[*blocks], [index, _]])}):
            names = _column_names(index)
        case _:
            raise ValueError("it does not hold a DataFrame of a known layout")
    columns: dict[str, np.ndarray] = {}
    for record in blocks:
        match record:
            case Record("_unpickle_block", [values, Record("slice", where), 2]):
                block, placed = _array(values), names[slice(*where)]
            case Record("_unpickle_block", [values, where, 2]):
                block, placed = _array(values), [names[place] for place in _array(where)]
            case _:
                raise ValueError("a block of columns of an unknown layout")
        if block.ndim != 2 or len({*columns, *placed}) != len(columns) + len(block):
            raise ValueError(f"a block of shape {block.shape} for the columns {placed}")
        columns |= zip(placed, block, strict=True)
    if columns.keys() != set(names) or len({len(column) for column in columns.values()}) > 1:
        raise ValueError(f"columns missing or of unequal lengths, of {names}")
    return {name: columns[name] for name in names}


def _column_names(index: Any) -> list[str]:
    match index:
        case Record("_new_Index", [_, {"data": data}]):
            if isinstance(data, Record) and data.name == "__pyx_unpickle_NDArrayBacked":
                _, data = data.state  # pandas 3: a StringArray of a type and an array
            names = list(_array(data))
            if all(isinstance(name, str) for name in names) and len(set(names)) == len(names):
                return names
    raise ValueError("the columns' names are not distinct texts")


def _array(record: Any) -> np.ndarray:
    """Builds what numpy would have built."""
    match record:
        case Record("_reconstruct", _, [_, [*shape], dtype, fortran, data]):
            order = "F" if fortran else "C"
        case Record("_frombuffer", [data, dtype, [*shape], order]):
            pass
        case _:
            raise ValueError(f"{type(record).__name__} where an array should be")
    if any(type(size) is not int or size < 0 for size in shape):
        raise ValueError("an array of impossible shape")
    code = dtype.args[0]
    if code == "O8" and type(data) is list and len(data) == math.prod(shape):
        # In C order, even if the pickled array was not.
        return np.fromiter(map(_cell, data), object, len(data)).reshape(shape)
    number = np.dtype(code if code in _NUMBERS else object).newbyteorder(dtype.state[1])
    if number.hasobject or len(data) != math.prod(shape) * number.itemsize:
        raise ValueError(f"not as many numbers or objects of type {code!r} as in {tuple(shape)}")
    array = np.ndarray(shape, number, memoryview(data), order="F" if order == "F" else "C")
    return array.astype(number.newbyteorder("="), order="C")


def _cell(value: Any) -> Any:
    """Checks a cell; it stays as it is, so that one list in many cells does not fill the memory."""
    for part in value if type(value) in (list, tuple) else (value,):
        if type(part) not in _PLAIN:
            raise ValueError(f"a cell holds {type(part).__name__}")
    return value
