"""Tables that someone pickled with pandas, read without pandas and without trust.

The records that `pickle_records.py` makes of the pickle are checked and built into arrays: Booleans, numbers, and cells
of text, numbers and lists of them. No function of numpy's is called that takes bytes for pointers.

Read are the layouts of `DataFrame.to_pickle` in pandas 1 and 2, with plain column and row indices (text, numbers or a
range). Columns of pandas' own element types (time zones, categories, nullable numbers) are refused by name.
"""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from delrec_jax.data.corpora.pickle_records import (
    REMEDY,
    Array,
    Block,
    Buffer,
    Dtype,
    Encoded,
    Frame,
    Manager,
    NewIndex,
    Scalar,
    Slice,
    load_records,
)
from delrec_jax.errors import UserError

_MAX_NESTING = 4
_NUMBER_CODE = re.compile(r"[biuf]\d{1,2}")


def load_frame(path: Path) -> dict[str, np.ndarray]:
    """The columns of a pickled pandas DataFrame.

    Args:
      path: The file that `DataFrame.to_pickle` wrote, gzipped or not.

    Returns:
      Column names to arrays [R] of R rows in the file's order; the row index is left out. Columns of Python objects
      have dtype object and hold None, bool, int, float, str, and lists and tuples of these.

    Raises:
      UserError: if the file is missing, is not a pickle of a DataFrame, is cut short or damaged, names anything but
        the arrays and tables of numpy and pandas (nothing of it is run), or holds cells of another kind.
    """
    frame = load_records(path)
    try:
        return _columns(frame)
    except ValueError as error:  # raised here, or by numpy for sizes that do not fit
        raise UserError(f"{path}: {error}; {REMEDY}") from error


def _columns(frame: Any) -> dict[str, np.ndarray]:
    """Puts the blocks' rows, each a column, in the places that their placements name."""
    names, blocks = _names_and_blocks(frame)
    columns: dict[str, np.ndarray] = {}
    for values, placement in blocks:
        block = _array(values)
        positions = _positions(placement, len(names))
        if block.ndim != 2 or len(block) != len(positions):
            raise ValueError(f"a block of shape {block.shape} for {len(positions)} columns")
        for position, column in zip(positions, block, strict=True):
            if names[position] in columns:
                raise ValueError(f"column {names[position]!r} is given twice")
            columns[names[position]] = column
    missing = [name for name in names if name not in columns]
    if missing:
        raise ValueError(f"column {missing[0]!r} has no values")
    if len({len(column) for column in columns.values()}) > 1:
        raise ValueError("columns of unequal lengths")
    return {name: columns[name] for name in names}


def _names_and_blocks(frame: Any) -> tuple[list[str], list[tuple[Any, Any]]]:
    """The column names, and values with placement of each block."""
    match frame:
        case Frame(_, {"_mgr": Manager() as manager} | {"_data": Manager() as manager}):
            pass
        case _:
            raise ValueError("the pickle holds something else than a DataFrame")
    match manager:
        case Manager(([*blocks], [names, _]), _):
            pass
        case Manager(_, [_, _, _, {"0.14.1": {"axes": [names, _], "blocks": [*blocks]}}]):
            pass
        case _:
            raise ValueError("a DataFrame of an unknown layout")
    return _column_names(names), [_values_and_placement(block) for block in blocks]


def _values_and_placement(block: Any) -> tuple[Any, Any]:
    match block:
        case Block([values, placement, 2], _) | {"values": values, "mgr_locs": placement}:
            return values, placement
    raise ValueError("a block of columns of an unknown layout")


def _column_names(index: Any) -> list[str]:
    match index:
        case NewIndex([_, {"data": data}], _):
            names = list(_array(data).flat)
            if all(isinstance(name, str) for name in names) and len(set(names)) == len(names):
                return names
    raise ValueError("the columns' names are not distinct texts")


def _positions(placement: Any, columns: int) -> list[int]:
    """The columns that a block's rows are."""
    match placement:
        case Slice([int() | None as start, int() | None as stop, int() | None as step], _) if (
            step != 0
        ):
            return list(range(columns))[start:stop:step]
        case Array() | Buffer():
            positions = _array(placement)
            if positions.dtype.kind in "iu" and all(0 <= row < columns for row in positions.flat):
                return positions.ravel().tolist()
    raise ValueError("a block's places among the columns make no sense")


def _array(record: Any) -> np.ndarray:
    """Builds what numpy would have built, with every size checked first."""
    match record:
        case Array(_, [_, [*shape], dtype, fortran, data]):
            order = "F" if fortran else "C"
        case Buffer([data, dtype, [*shape], ("C" | "F") as order], _):
            pass
        case _:
            raise ValueError(f"{_kind(record)} where an array should be")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError("an array of impossible shape")
    element = _dtype(dtype)
    if element.kind == "O":
        return _objects(data, shape)
    return _numbers(data, element, shape, order)


def _numbers(data: Any, dtype: np.dtype, shape: list[int], order: str) -> np.ndarray:
    if dtype.hasobject:  # numpy would take the bytes for pointers
        raise ValueError("a number of element type 'O'")
    match data:
        case Encoded([str() as text, "latin1"], _):
            data = text.encode("latin1")
    if not isinstance(data, bytes | bytearray) or len(data) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"an array of shape {tuple(shape)} without bytes for all its elements")
    array = np.ndarray(shape, dtype, buffer=data, order="F" if order == "F" else "C")
    return array.astype(dtype.newbyteorder("="), order="C")


def _objects(data: Any, shape: list[int]) -> np.ndarray:
    """An array of objects; their list is in C order whatever the array's own was."""
    if not isinstance(data, list):
        raise ValueError(f"an array of shape {tuple(shape)} without objects for all its elements")
    array = np.empty(len(data), object)
    for place, value in enumerate(data):  # one by one: numpy would make lists into further axes
        array[place] = _cell(value)
    return array.reshape(shape)


def _cell(value: Any, nesting: int = 0) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) in (list, tuple) and nesting < _MAX_NESTING:
        return type(value)(_cell(part, nesting + 1) for part in value)
    match value:
        case Scalar([dtype, data], _):
            return _numbers(data, _dtype(dtype), [], "C").item()
    raise ValueError(f"a cell holds {_kind(value)}, {nesting} lists deep")


def _dtype(record: Any) -> np.dtype:
    """The element type of a code such as "i8"; only kinds that no bytes can make dangerous."""
    match record:
        case Dtype([str() as code, *_], None):
            order = "="
        case Dtype([str() as code, *_], [_, "<" | ">" | "=" | "|" as order, None, None, None, *_]):
            pass
        case _:
            raise ValueError("an array whose element type has parts")
    if re.fullmatch(r"O\d?", code):
        return np.dtype(object)
    if not _NUMBER_CODE.fullmatch(code):
        raise ValueError(f"an array with elements of type {code!r}, not numbers or objects")
    try:
        return np.dtype(code).newbyteorder(order)  # type: ignore[arg-type]
    except TypeError as error:
        raise ValueError(str(error)) from error


def _kind(value: Any) -> str:
    return repr(type(value).__name__)
