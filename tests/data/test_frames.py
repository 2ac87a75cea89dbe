"""Pickled frames, made by stand-ins that bear pandas' names while they are pickled: pandas is not here."""

import copyreg
import datetime
import gzip
import os
import pickle
import random
import struct
import sys
import types
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from delrec_jax.data.corpora import pickle_records
from delrec_jax.data.corpora.frames import load_frame
from delrec_jax.errors import UserError

SEQUENCES = [[3, 1, 4], [1, 5], []]
COLUMNS = {
    "seq": SEQUENCES,
    "next": np.array([9, 2, 6]),
    "title": ["Heat", "Å & B", None],
    "rating": np.array([0.5, np.nan, 4], np.float32),
    "len_seq": np.array([3, 2, -1]),
    "seen": np.array([True, False, True]),
}


STAND_INS: list = []


def known_as(module: str, name: str):
    """Lets pickle write a class or function of this file under one of pandas' names."""

    def rename(thing):
        thing.__module__, thing.__qualname__ = module, name
        STAND_INS.append(thing)
        return thing

    return rename


@known_as("pandas.core.frame", "DataFrame")
class DataFrame:
    pass


@known_as("pandas.core.internals.managers", "BlockManager")
class BlockManager:
    """pandas 1.3 and later: blocks and axes are arguments."""

    def __init__(self, blocks, axes):
        self.blocks, self.axes = blocks, axes

    def __reduce__(self):
        return BlockManager, (tuple(self.blocks), self.axes)


@known_as("pandas.core.internals", "BlockManager")
class OldBlockManager(BlockManager):
    """pandas up to 1.2: they are in the state, behind what still older versions read."""

    def __reduce__(self):
        blocks = [{"values": block.values, "mgr_locs": block.places} for block in self.blocks]
        state = (self.axes, [], [], {"0.14.1": {"axes": self.axes, "blocks": blocks}})
        return copyreg.__newobj__, (OldBlockManager,), state


class Block:
    def __init__(self, values, places):
        self.values, self.places = values, places

    def __reduce__(self):
        return unpickle_block, (self.values, self.places, 2)


@known_as("pandas._libs.internals", "_unpickle_block")
def unpickle_block(values, places, axes):
    return Block(values, places)


@known_as("pandas.core.indexes.base", "Index")
class Index:
    def __init__(self, **attributes):
        self.attributes = attributes

    def __reduce__(self):
        return new_index, (type(self), self.attributes), None


@known_as("pandas.core.indexes.numeric", "Int64Index")
class Int64Index(Index):
    pass


@known_as("pandas.core.indexes.range", "RangeIndex")
class RangeIndex(Index):
    pass


@known_as("pandas.core.indexes.base", "_new_Index")
def new_index(kind, attributes):
    return kind(**attributes)


@known_as("pandas.core.arrays.categorical", "Categorical")
class Categorical:
    pass


@pytest.fixture(autouse=True)
def pandas_modules(monkeypatch):
    for thing in STAND_INS:
        parts = thing.__module__.split(".")
        for size in range(1, len(parts) + 1):
            package = ".".join(parts[:size])
            if package not in sys.modules:
                monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
        monkeypatch.setattr(sys.modules[thing.__module__], thing.__qualname__, thing, raising=False)


def objects(cells) -> np.ndarray:
    array = np.empty(len(cells), object)
    for place, cell in enumerate(cells):
        array[place] = cell
    return array


def names_of(*names) -> Index:
    return Index(data=objects(names), name=None)


def blocks_of(columns) -> list[Block]:
    """One block an element type, as pandas keeps them: places as a slice where they allow it."""
    arrays = [
        column if isinstance(column, np.ndarray) else objects(column) for column in columns.values()
    ]
    blocks = []
    for dtype in dict.fromkeys(array.dtype for array in arrays):
        places = [place for place, array in enumerate(arrays) if array.dtype == dtype]
        step = places[1] - places[0] if len(places) > 1 else 1
        regular = places == list(range(places[0], places[-1] + 1, step))
        where = slice(places[0], places[-1] + 1, step) if regular else np.array(places)
        blocks.append(Block(np.stack([arrays[place] for place in places]), where))
    return blocks


def frame(blocks, names, *, manager=BlockManager, key="_mgr", rows=None) -> DataFrame:
    whole = DataFrame()
    whole.__dict__.update(
        {
            key: manager(blocks, [names, rows or RangeIndex(start=0, stop=3, step=1, name=None)]),
            "_typ": "dataframe",
            "_metadata": [],
            "attrs": {},
            "_flags": {"allows_duplicate_labels": True},
        }
    )
    return whole


def save(folder: Path, thing, protocol: int = 5, pack=bytes) -> Path:
    path = folder / "data.df"
    content = thing if isinstance(thing, bytes) else pickle.dumps(thing, protocol)
    path.write_bytes(pack(content))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_frame(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def assert_columns(loaded, expected):
    assert list(loaded) == list(expected)
    for name, column in expected.items():
        if isinstance(column, np.ndarray):
            assert loaded[name].dtype == column.dtype
            np.testing.assert_array_equal(loaded[name], column)
        else:
            assert loaded[name].dtype == object
            assert loaded[name].shape == (len(column),)
            assert loaded[name].tolist() == column
            assert [type(cell) for cell in loaded[name]] == [type(cell) for cell in column]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize(
    ("manager", "key"),
    [(BlockManager, "_mgr"), (OldBlockManager, "_mgr"), (OldBlockManager, "_data")],
)
def test_a_frame_comes_back_in_each_layout(tmp_path, protocol, pack, manager, key):
    whole = frame(blocks_of(COLUMNS), names_of(*COLUMNS), manager=manager, key=key)
    assert_columns(load_frame(save(tmp_path, whole, protocol, pack)), COLUMNS)


@pytest.mark.parametrize("protocol", [2, 5])
def test_the_order_of_elements_and_bytes(tmp_path, protocol):
    block = np.arange(6, dtype=">i4").reshape(2, 3)
    cells = np.asfortranarray(np.array([["a", 1, 2.5], [None, True, "b"]], object))
    for values in (block, np.asfortranarray(block), block[:, ::-1][:, ::-1]):
        blocks = [Block(values, slice(0, 2, 1)), Block(cells, slice(2, 4, 1))]
        loaded = load_frame(save(tmp_path, frame(blocks, names_of("a", "b", "c", "d")), protocol))
        expected = {
            "a": np.array([0, 1, 2], np.int32),
            "b": np.array([3, 4, 5], np.int32),
            "c": ["a", 1, 2.5],
            "d": [None, True, "b"],
        }
        assert_columns(loaded, expected)


def test_columns_are_contiguous_and_writable(tmp_path):
    loaded = load_frame(save(tmp_path, frame(blocks_of(COLUMNS), names_of(*COLUMNS))))
    for column in loaded.values():
        assert column.flags.c_contiguous
        column[0] = column[1]


def test_the_names_of_numpy_1_are_known(tmp_path):
    """Only protocol 2 writes names without their lengths, so that they can be changed."""
    whole = frame(blocks_of(COLUMNS), names_of(*COLUMNS))
    content = pickle.dumps(whole, 2)
    assert content.count(b"numpy._core.") > 0
    old = content.replace(b"numpy._core.", b"numpy.core.")
    assert_columns(load_frame(save(tmp_path, old)), COLUMNS)


@pytest.mark.parametrize(
    "rows", [Int64Index(data=np.array([7, 8, 9]), name="user"), names_of("x", "y", "z")]
)
def test_any_plain_row_index_is_left_out(tmp_path, rows):
    whole = frame(blocks_of(COLUMNS), names_of(*COLUMNS), rows=rows)
    assert_columns(load_frame(save(tmp_path, whole)), COLUMNS)


def test_cells_of_pairs_and_of_numpy_numbers(tmp_path):
    """LLaRA's MovieLens keeps (item, rating) pairs; numbers taken from a column are numpy's."""
    columns = {"seq": [[(3, 5), (1, 4)], [np.int64(7), np.float32(0.5), np.bool_(True)]]}
    loaded = load_frame(save(tmp_path, frame(blocks_of(columns), names_of("seq"))))
    assert loaded["seq"].tolist() == [[(3, 5), (1, 4)], [7, 0.5, True]]
    assert [type(cell) for cell in loaded["seq"][1]] == [int, float, bool]


def test_a_frame_without_rows(tmp_path):
    columns = {"seq": [], "next": np.zeros(0, np.int64)}
    loaded = load_frame(save(tmp_path, frame(blocks_of(columns), names_of(*columns))))
    assert_columns(loaded, columns)


class Call:
    """Pickled, it is the call of a function, as pickles of ill will are made."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def call(module: str, name: str, argument: str) -> bytes:
    """The same by hand, for functions that are not to be imported here."""
    return f"c{module}\n{name}\n(V{argument}\ntR.".encode()


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("inside", [True, False])
def test_a_pickle_that_would_write_a_file_does_not(tmp_path, protocol, inside):
    mark = tmp_path / "mark"
    builtins = "__builtin__" if protocol == 2 else "builtins"
    attacks = {
        f"{os.system.__module__}.system": Call(os.system, f"touch {mark}"),
        f"{builtins}.eval": Call(eval, f"open({str(mark)!r}, 'w')"),
    }
    for name, attack in attacks.items():
        thing = frame(blocks_of({"seq": [attack]}), names_of("seq")) if inside else attack
        path = save(tmp_path, thing, protocol)
        assert f"the pickle wants '{name}'" in refusal(path)
        assert not mark.exists()
        pickle.loads(path.read_bytes())
        assert mark.exists(), "pickle itself would have run it"
        mark.unlink()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("numpy.f2py.crackfortran", "myeval"),
        ("numpy", "load"),
        ("numpy", "memmap"),
        ("numpy._core.multiarray", "fromfile"),
        ("numpy.core.multiarray", "_reconstruct.__globals__"),
        ("pandas.core.frame", "DataFrame.__setstate__"),
        ("pandas.core.computation.eval", "eval"),
        ("pandas.io.pickle", "read_pickle"),
        ("builtins", "getattr"),
        ("builtins", "list"),
        ("copyreg", "_reconstructor"),
        ("_codecs", "decode"),
        ("delrec_jax.data.corpora.frames", "load_frame"),
    ],
)
def test_every_other_name_is_refused_by_name(tmp_path, module, name):
    message = refusal(save(tmp_path, call(module, name, "1")))
    assert f"the pickle wants '{module}.{name}', which no table of arrays needs" in message


def test_a_column_of_pandas_own_element_type_is_refused_by_name(tmp_path):
    whole = frame([Block(Categorical(), slice(0, 1, 1))], names_of("genre"))
    assert "'pandas.core.arrays.categorical.Categorical'" in refusal(save(tmp_path, whole))


def test_nothing_of_a_pickle_stays_behind(tmp_path):
    """Attributes set on a class would last until the next file."""
    before = {name: dict(vars(kind)) for name, kind in pickle_records.ADMITTED.items()}
    for attributes in (b"}(Vargs\nVforged\nu", b"N}(Vargs\nVforged\nu\x86"):
        path = save(tmp_path, b"\x80\x02cpandas.core.frame\nDataFrame\n" + attributes + b"b.")
        assert "not a pickle, cut short or damaged" in refusal(path)
    assert {name: dict(vars(kind)) for name, kind in pickle_records.ADMITTED.items()} == before


OBJECT_POINTERS = struct.pack("3Q", 1 << 40, 1 << 41, 1 << 42)


def test_bytes_are_never_taken_for_objects(tmp_path):
    """numpy's own functions would read these as pointers and crash, or worse."""
    forged = Call(np.dtype, "O8", False, True)
    forged.reduced = (*forged.reduced, (3, "|", None, None, None, -1, -1, 0))
    array = Call(np._core.multiarray._reconstruct, np.ndarray, (0,), b"b")
    array.reduced = (*array.reduced, (1, (1, 24), forged, False, OBJECT_POINTERS))
    buffer = Call(np._core.numeric._frombuffer, bytearray(OBJECT_POINTERS), forged, (1, 24), "C")
    for values in (array, buffer):
        path = save(tmp_path, frame([Block(values, slice(0, 1, 1))], names_of("seq")))
        assert "an array of shape (1, 24) without objects for all its elements" in refusal(path)
    scalar = Call(np._core.multiarray.scalar, forged, OBJECT_POINTERS[:8])
    path = save(tmp_path, frame(blocks_of({"seq": [scalar]}), names_of("seq")))
    assert "a number of element type 'O'" in refusal(path)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 2), "shape (1, 2) without bytes for all"),
        ((1, 4), "shape (1, 4) without bytes for all"),
        ((1, 1 << 40), "without bytes for all"),
        ((1 << 62, 1 << 62), "without bytes for all"),
        ((-1, -3), "an array of impossible shape"),
        ((1, 3.0), "an array of impossible shape"),
        ((1 << 70, 0), "without bytes for all"),
    ],
)
def test_a_size_is_not_believed(tmp_path, shape, words):
    dtype = np.dtype(np.int64)
    values = Call(np._core.numeric._frombuffer, bytearray(24), dtype, shape, "C")
    path = save(tmp_path, frame([Block(values, slice(0, 1, 1))], names_of("next")))
    assert words in refusal(path)


@pytest.mark.parametrize("shape", [(1, 2), (1, 4), (1, -1), (3, 1 << 62), (1 << 70, 3)])
def test_a_size_of_an_array_of_objects_is_not_believed(tmp_path, shape):
    values = Call(np._core.multiarray._reconstruct, np.ndarray, (0,), b"b")
    values.reduced = (*values.reduced, (1, shape, np.dtype(object), False, [1, 2, 3]))
    path = save(tmp_path, frame([Block(values, slice(0, 1, 1))], names_of("seq")))
    assert "data.df" in refusal(path)


def test_a_size_beyond_numpys_beside_a_zero(tmp_path):
    values = Call(np._core.numeric._frombuffer, bytearray(), np.dtype(int), (1 << 70, 0), "C")
    path = save(tmp_path, frame([Block(values, slice(0, 1, 1))], names_of("next")))
    assert "data.df" in refusal(path)


def test_an_element_type_that_numpy_does_not_know(tmp_path):
    dtype = Call(np.dtype, "i7", False, True)
    values = Call(np._core.numeric._frombuffer, bytearray(21), dtype, (1, 3), "C")
    path = save(tmp_path, frame([Block(values, slice(0, 1, 1))], names_of("next")))
    assert "'i7'" in refusal(path)


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ({1: 2}, "a cell holds 'dict', 0 lists deep"),
        ([{1}], "a cell holds 'set', 1 lists deep"),
        (b"x", "a cell holds 'bytes'"),
        (np.zeros(3), "a cell holds 'Buffer'"),
        (np.dtype(int), "a cell holds 'Dtype'"),
        ([[[[[1]]]]], "a cell holds 'list', 4 lists deep"),
        (slice(1, 2), "a cell holds 'Slice'"),
        (Fraction(1, 2), "'fractions.Fraction'"),
        (datetime.date(2026, 11, 21), "'datetime.date'"),
        (1j, "complex'"),
    ],
)
def test_strange_cells_are_told(tmp_path, cell, words):
    path = save(tmp_path, frame(blocks_of({"seq": [1, cell]}), names_of("seq")))
    assert words in refusal(path)


def test_a_list_in_itself_ends(tmp_path):
    loop: list = [1]
    loop.append(loop)
    path = save(tmp_path, frame(blocks_of({"seq": [loop]}), names_of("seq")))
    assert "a cell holds 'list', 4 lists deep" in refusal(path)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((1, 3), "M8[ns]"), "elements of type 'M8'"),
        (np.full((1, 3), "Heat"), "elements of type 'U4'"),
        (np.full((1, 3), b"Heat"), "elements of type 'S4'"),
        (np.zeros((1, 3), complex), "elements of type 'c16'"),
        (np.zeros((1, 3), [("a", int)]), "element type has parts"),
    ],
)
def test_element_types_that_are_not_read_are_told(tmp_path, values, words):
    path = save(tmp_path, frame([Block(values, slice(0, 1, 1))], names_of("seq")))
    assert words in refusal(path)


NUMBERS = np.array([[1, 2, 3]])


@pytest.mark.parametrize(
    ("blocks", "names", "words"),
    [
        ([Block(NUMBERS, slice(0, 1))], names_of("a", "b"), "column 'b' has no values"),
        ([Block(NUMBERS, slice(0, 2))], names_of("a", "b"), "shape (1, 3) for 2 columns"),
        ([Block(NUMBERS[0, :1], slice(0, 1))], names_of("a"), "shape (1,) for 1 columns"),
        ([Block(NUMBERS[0, 0, None, None, None], slice(0, 1))], names_of("a"), "shape (1, 1, 1)"),
        ([Block(NUMBERS, slice(0, 1, 0))], names_of("a"), "places among the columns"),
        ([Block(NUMBERS, slice("a"))], names_of("a"), "places among the columns"),
        ([Block(NUMBERS, np.array([1]))], names_of("a"), "places among the columns"),
        ([Block(NUMBERS, np.array([-1]))], names_of("a"), "places among the columns"),
        ([Block(NUMBERS, np.array([0.0]))], names_of("a"), "places among the columns"),
        ([Block(NUMBERS, 0)], names_of("a"), "places among the columns"),
        ([Block(NUMBERS, slice(0, 1))] * 2, names_of("a"), "column 'a' is given twice"),
        (
            [Block(NUMBERS, slice(0, 1)), Block(NUMBERS[:, :2], slice(1, 2))],
            names_of("a", "b"),
            "columns of unequal lengths",
        ),
        ([Block([1, 2, 3], slice(0, 1))], names_of("a"), "'list' where an array should be"),
        ([3], names_of("a"), "a block of columns of an unknown layout"),
        ([Block(NUMBERS, slice(0, 1))], names_of(5), "names are not distinct texts"),
        ([Block(NUMBERS, slice(0, 1))], names_of("a", "a"), "names are not distinct texts"),
        (
            [Block(NUMBERS, slice(0, 1))],
            RangeIndex(start=0, stop=1),
            "names are not distinct texts",
        ),
        ([Block(NUMBERS, slice(0, 1))], ["a"], "names are not distinct texts"),
    ],
)
def test_a_frame_that_makes_no_sense_is_told(tmp_path, blocks, names, words):
    assert words in refusal(save(tmp_path, frame(blocks, names)))


@pytest.mark.parametrize("parts", [(3, []), ((), [1]), (), ((), [1, 2], 3)])
def test_a_manager_of_unknown_layout_is_told(tmp_path, parts):
    whole = DataFrame()
    whole._mgr = Call(BlockManager, *parts)
    assert "a DataFrame of an unknown layout" in refusal(save(tmp_path, whole))


@pytest.mark.parametrize("thing", [[1, 2], {"seq": [1]}, None, DataFrame(), names_of("a"), "text"])
def test_a_pickle_of_something_else_is_told(tmp_path, thing):
    assert "something else than a DataFrame" in refusal(save(tmp_path, thing))


@pytest.mark.parametrize(
    "content", [b"", b"\x80", b"seq,next\n1,2\n", b"\0" * 100, "Å".encode(), b"\x80\x05", b"."]
)
def test_a_file_that_is_no_pickle_is_told(tmp_path, content):
    assert "not a pickle, cut short or damaged" in refusal(save(tmp_path, content))


def test_a_missing_file_is_named(tmp_path):
    assert "cannot be read" in refusal(tmp_path / "none.df")


def test_a_cut_gzip_file_is_named(tmp_path):
    whole = frame(blocks_of(COLUMNS), names_of(*COLUMNS))
    path = save(tmp_path, whole, pack=lambda content: gzip.compress(content)[:-9])
    assert "the gzip data are cut short" in refusal(path)


@pytest.mark.parametrize("memo", [b"r" + struct.pack("<I", 1_000_000), b"p1000000\n"])
def test_a_place_of_the_pickles_memory_is_not_believed(tmp_path, memo):
    """A flipped bit made pickle reserve and fill 10 GB like this."""
    path = save(tmp_path, b"\x80\x02N" + memo + b".")
    assert "damaged (place 1000000 of its memory, in " in refusal(path)


def small(protocol: int) -> bytes:
    columns = {"seq": [[3], [1, 5]], "next": np.array([9, 2])}
    return pickle.dumps(frame(blocks_of(columns), names_of(*columns)), protocol)


@pytest.mark.parametrize("protocol", [2, 5])
def test_a_pickle_cut_anywhere_is_told(tmp_path, protocol):
    content = small(protocol)
    for size in range(len(content)):
        assert "not a pickle, cut short or damaged" in refusal(save(tmp_path, content[:size]))


@pytest.mark.parametrize("protocol", [2, 5])
def test_a_changed_byte_gives_columns_or_an_error(tmp_path, protocol):
    content = small(protocol)
    rng = random.Random(protocol)
    for place, byte in enumerate(content):
        changed = bytes([byte ^ 1 << rng.randrange(8)])
        path = save(tmp_path, content[:place] + changed + content[place + 1 :])
        try:
            loaded = load_frame(path)
        except UserError as error:
            assert str(error).startswith(f"{path}: ")
        else:
            assert len({len(column) for column in loaded.values()}) == 1
