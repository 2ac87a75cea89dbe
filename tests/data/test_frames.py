"""Pickled frames: two that pandas wrote, and forged ones put together opcode by opcode; pandas is not installed here."""

import base64
import gzip
import io
import os
import pickle
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from delrec_jax.data.corpora import frames
from delrec_jax.data.corpora.frames import load_frame
from delrec_jax.errors import UserError

# DataFrame.to_pickle of the columns below; the places of the three columns of int64 are an array.
PANDAS = {
    "pandas 1.5.3, numpy 1.26.4": (
        "eNp1lM9P2zAUx5MmacdA+4E0BhfEaesulSZ22GESCNDEiNZJ3CvLSV+biMTtHEcFaWhMUxlIvu2Nv2fSjtv+Jvac"
        "pNAC88HvJfb7+uNnP594P766VtH04yEXXZ61woGEVk/yFFDP7XDF3xb+d3zxBY+xqV2W9iXq1enpsVAgBU+yVsoF"
        "74PMUC9sJYPw4H35TeFNvVSFsCQOsusY1A9ZLoZxeJAAC0wQzdaLIk+HR6U8uSDjEPU868lBGuS9Xil54ZTwlm3Z"
        "qL0ihGxXHQ0Nsa4FL/H87BvuY9N3tP0J2+323iW1ovMthYFv+84pansbFU3T94I8TlQsiMrLkjg0Mr7n133bqPg1"
        "00fz0YPmxYJ11TYs6+dnyzrZxGhR13qvptd88981oxWzYrTqO757W3630p6rbK2y9co6N/5fVu13o/z+U9m/lS3Q"
        "4tfXaNHzO8CcKTCCWL5Kb9ncGxAYrfvOuAqY0OsnU0eX5pRNLiWnc1lgEsKByJTMQ0V5jR7pBl2IYpCybI1x2w6w"
        "xLOrHBH0h2nopVnoDYI+72CzYwYpxIVOEeyRBRqj7FpGaya7m9GWWSzamV1qzwhpdxe4Ql3/NV57traF7UqlZuSv"
        "VRSaucuzNdCFQ8haAc+ocu4zASP2zvwzOw21N/GLGupSXeFtkMZ4guFk8BG1K+CQYDwVq4RE65LT1eyjbiQgWDkj"
        "AxBkjoDLYscUY8q1nZ+azYJeuYtRctE3kPvGToFFozZde8WlouMgbTUYIl1icoAcu9AE09ErQDVGD4TZyOSxYCko"
        "XuysQ8xcKXoGjoma9RLeL9ynPEkGo4x18yHVFlfAEh4APQFnWR60/gHme6PC"
    ),
    "pandas 3.1.1, numpy 2.4.6": (
        "eNqFVEtrFEEQnt2d2ZiHBgnEgEFzUVaQJYEcPAgxDzRmcYR4Xpqe2d6dITO9Y08PyYIh8bAxgb6lzO8RPKr/xIs3"
        "b7G6Zzb7ULAHurqnq77+qrqqTp3PP23LDFVNKG/RFNT0DpX0paAxg0t48hGOoaZsEncEqAe5Tt3vClYPuWSC0yit"
        "x5TTDhNoO7cVdf2DN/kezWtqsTAhUeilQxtQ8yTjSegfRIx42gi11SLP4qRXJwY/ziIZUiFoD3GJYH6Xp1JkvtSa"
        "jtEENYXgRuUSGlYftksefIJ9qDVK+FXOIJhXTkv2Eu2LKr99Bhfn+XlFlT6A67p71zjM1NiQ4F00odbUx2hus6YB"
        "clAyPFO3vCxEThzZO2kU+szcqq/SmI2ynoNZtTDqBa6ZCH1Qs6QturGXtdt5ZK5288Bb04UsF7JayMrE/+tifJvK"
        "998L+aOQECypcjjm4fMJDy30Al3DuKjSNkhN92ntaqm4oFRIe4IIBKuNSh+CdTnipTacs27GhmV9ObGs0xeGRXt9"
        "yCJY+weH/G0MYPAIGdnjIdTglRtWJYPprY1gLv8X02lUJzDvBHd1igQL4wlyXz+5sncZlaCqX/srj1e2wNXvjShl"
        "nQhDFAlad2m8ClrsiKV1j6YM1Azh7JC81v/wjQNLOYO1qaIWVhaohbGSMOmLGbVMSNI7GhaFu7OpT7aof8BaOntv"
        "F2YDg9l3UoS8s1mk/97D6i/bNb5ag7OdQeZXk54MuhxenfzOo3qm9f6KyFR/EI9Kyt6Dsjk7wqg4MpQRelcVFLO/"
        "g1UXMU5yjZQxjqLHqDBFcoZ1YnPdPNzMXMKQzsw+5R02Eoqg72IJSSokFhCCyG4CmLC4YLgoGUumJ+w86AM2JR26"
        "tmlKaprETFITyyaSo1Ji6zlGeqQd0Y5Z3qNR1D1MSStLsE6pZCSiHsO2c55mXv0PxivMeg=="
    ),
}
WRITTEN = {version: zlib.decompress(base64.b64decode(text)) for version, text in PANDAS.items()}
COLUMNS = {
    "seq": [[3, 1, 4], [1, 5], []],
    "next": np.array([9, 2, 6]),
    "title": ["Heat", "Å & B", None],
    "rating": np.array([0.5, np.nan, 4], np.float32),
    "len_seq": np.array([3, 2, -1]),
    "seen": np.array([True, False, True]),
    "year": np.array([1995, 1996, 1997]),
}


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


def column(values) -> Raw:
    """A frame whose one column is a block's only row."""
    return frame([block(values, 0, 1, 1)], index("a"))


def cells(*values) -> Raw:
    return column(objects(list(values), (1, len(values))))


def save(folder: Path, content: bytes) -> Path:
    path = folder / "data.df"
    whole = b"\x80\x03" + content + b"." if isinstance(content, Raw) else content
    path.write_bytes(whole)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_frame(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("version", WRITTEN)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_what_pandas_wrote_comes_back(tmp_path, version, pack):
    loaded = load_frame(save(tmp_path, pack(WRITTEN[version])))
    assert list(loaded) == list(COLUMNS)
    for name, expected in COLUMNS.items():
        found = loaded[name]
        assert found.flags.c_contiguous and found.flags.writeable
        if isinstance(expected, list):
            assert found.dtype == object and found.shape == (3,)
            assert found.tolist() == expected
            assert [type(cell) for cell in found] == [type(cell) for cell in expected]
        else:
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)


def test_the_order_of_bytes_and_elements(tmp_path):
    """Numbers are in the order that the array says, objects always in C order."""
    big = np.arange(6, dtype=">i4").reshape(2, 3)
    as_columns = objects(big.tobytes("F"), (2, 3), kind=dtype("i4", ">"), fortran=True)
    text = objects(["a", "b", 1, None, 2.5, True], (2, 3), fortran=True)
    blocks = [block(as_columns, 0, 2, 1), block(text, 2, 4, 1)]
    loaded = load_frame(save(tmp_path, frame(blocks, index(*"abcd"))))
    assert {name: found.tolist() for name, found in loaded.items()} == {
        "a": [0, 1, 2],
        "b": [3, 4, 5],
        "c": ["a", "b", 1],
        "d": [None, 2.5, True],
    }
    assert loaded["a"].dtype == np.int32


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("name", [f"{os.system.__module__}.system", "builtins.eval"])
def test_a_pickle_that_would_run_code_does_not(tmp_path, inside, name):
    mark = tmp_path / "mark"
    command = f"open({str(mark)!r}, 'w')" if "eval" in name else f"touch {mark}"
    attack = call(name, command)
    path = save(tmp_path, cells(1, attack) if inside else attack)
    assert f"it wants '{name}', which no table needs); nothing of it was run" in refusal(path)
    assert not mark.exists()
    pickle.loads(save(tmp_path, attack).read_bytes())
    assert mark.exists(), "pickle itself would have run it"


@pytest.mark.parametrize(
    "name",
    [
        "numpy.f2py.crackfortran.myeval",
        "numpy.load",
        "numpy.memmap",
        "numpy._core.multiarray.fromfile",
        "numpy._core.multiarray.scalar",
        "numpy.core.multiarray._reconstruct.__globals__",
        "pandas.core.frame.DataFrame.__setstate__",
        "pandas.core.computation.eval.eval",
        "pandas.io.pickle.read_pickle",
        "pandas.core.arrays.categorical.Categorical",
        "builtins.getattr",
        "builtins.list",
        "copyreg._reconstructor",
        "_codecs.encode",
        "delrec_jax.data.corpora.frames.load_frame",
    ],
)
def test_every_other_name_is_refused_by_name(tmp_path, name):
    assert f"it wants '{name}', which no table needs" in refusal(save(tmp_path, call(name, "1")))


def test_a_pickle_leaves_nothing_behind(tmp_path):
    """Attributes set on a class would last until the next file."""
    before = dict(vars(frames.Record))
    for attributes in (b"}(Vargs\nVforged\nu", b"N}(Vargs\nVforged\nu\x86"):
        path = save(tmp_path, Raw(named("pandas.core.frame.DataFrame") + attributes + b"b"))
        assert "not a pickled table" in refusal(path)
    assert dict(vars(frames.Record)) == before


POINTERS = struct.pack("3Q", 1 << 40, 1 << 41, 1 << 42)
NUMBERS = numbers(struct.pack("3q", 1, 2, 3), (1, 3))


@pytest.mark.parametrize(
    "values",
    [
        objects(POINTERS, (1, 24)),
        objects(POINTERS, (1, 3)),
        numbers(POINTERS, (1, 24), dtype("O8", "|")),
        numbers(POINTERS, (1, 3), dtype("O8", "|")),
        numbers(POINTERS, (1, 3), dtype("O", "|")),
        objects([1, 2, 3], (1, 3), kind=dtype("i8")),
    ],
)
def test_bytes_are_never_taken_for_objects(tmp_path, values):
    """numpy's own functions would read these as pointers and crash, or worse."""
    assert "not as many numbers or objects" in refusal(save(tmp_path, column(values)))


SHAPES = [(1, 2), (1, 4), (1, 1 << 40), (1 << 62, 1 << 62), (-1, -3), (1, 3.0), (1 << 70, 0)]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_size_is_not_believed(tmp_path, shape):
    for values in (numbers(bytes(24), shape), objects([1, 2, 3], shape)):
        message = refusal(save(tmp_path, column(values)))
        assert "not as many" in message or "impossible shape" in message
    for nothing in (numbers(b"", (1 << 70, 0)), objects([], (1 << 70, 0))):
        refusal(save(tmp_path, column(nothing)))


@pytest.mark.parametrize(
    ("cell", "word"),
    [
        ({1: 2}, "dict"),
        (b"x", "bytes"),
        ([1, [2]], "list"),
        ([(1, 2)], "tuple"),
        (NUMBERS, "_frombuffer"),
        (dtype("i8"), "dtype"),
        (call("builtins.slice", 1), "slice"),
    ],
)
def test_a_strange_cell_is_named(tmp_path, cell, word):
    assert f"a cell holds {word})" in refusal(save(tmp_path, cells(1, cell)))


def test_a_list_in_itself_ends(tmp_path):
    loop = Raw(b"]q\x00(K\x01h\x00e")
    assert "a cell holds list" in refusal(save(tmp_path, cells(loop)))


@pytest.mark.parametrize("code", ["M8", "U4", "S4", "c16", "V8", "i7", "f16", "object", ["i8"]])
def test_an_element_type_that_is_not_read_is_an_error(tmp_path, code):
    refusal(save(tmp_path, column(numbers(bytes(48), (1, 3), dtype(code)))))


@pytest.mark.parametrize(
    ("blocks", "names", "words"),
    [
        ([block(NUMBERS, 0, 1, 1)], index("a", "b"), "columns missing"),
        ([block(NUMBERS, 0, 2, 1)], index("a", "b"), "shape (1, 3) for the columns ['a', 'b']"),
        ([block(numbers(bytes(24), (3,)), 0, 1, 1)], index("a"), "shape (3,)"),
        ([block(numbers(bytes(8), (1, 1, 1)), 0, 1, 1)], index("a"), "shape (1, 1, 1)"),
        ([block(NUMBERS, 0, 1, 0)], index("a"), "step"),
        ([block(NUMBERS, "a", 1, 1)], index("a"), "slice indices"),
        ([block(NUMBERS, numbers(struct.pack("q", 1), (1,)))], index("a"), "out of range"),
        ([block(NUMBERS, 0)], index("a"), "int where an array should be"),
        ([block(NUMBERS, 0, 1, 1)] * 2, index("a"), "for the columns ['a']"),
        ([block(numbers(bytes(16), (2, 1)), numbers(bytes(16), (2,)))], index("a"), "['a', 'a']"),
        (
            [block(NUMBERS, 0, 1, 1), block(numbers(bytes(16), (1, 2)), 1, 2, 1)],
            index("a", "b"),
            "unequal lengths",
        ),
        ([block([1, 2, 3], 0, 1, 1)], index("a"), "list where an array should be"),
        ([3], index("a"), "a block of columns of an unknown layout"),
        ([block(NUMBERS, 0, 1, 1)], index(5), "names are not distinct texts"),
        ([block(NUMBERS, 0, 1, 1)], index("a", "a"), "names are not distinct texts"),
        ([block(NUMBERS, 0, 1, 1)], ["a"], "names are not distinct texts"),
    ],
)
def test_a_frame_that_makes_no_sense_is_an_error(tmp_path, blocks, names, words):
    assert words in refusal(save(tmp_path, frame(blocks, names)))


@pytest.mark.parametrize("thing", [[1, 2], {"seq": [1]}, None, index("a"), "text", NUMBERS])
def test_a_pickle_of_something_else_is_an_error(tmp_path, thing):
    assert "does not hold a DataFrame" in refusal(save(tmp_path, Raw(put(thing))))


@pytest.mark.parametrize(
    "content", [b"", b"\x80", b"seq,next\n1,2\n", bytes(100), b"\x80\x05", b"."]
)
def test_a_file_that_is_no_pickle_is_an_error(tmp_path, content):
    assert "not a pickled table, cut short or damaged" in refusal(save(tmp_path, content))


def test_a_missing_file_and_a_cut_gzip_file_are_named(tmp_path):
    assert "cannot be read" in refusal(tmp_path / "none.df")
    packed = gzip.compress(next(iter(WRITTEN.values())))
    assert "the gzip data are cut short" in refusal(save(tmp_path, packed[:-9]))


@pytest.mark.parametrize("memo", [b"r" + struct.pack("<I", 1_000_000), b"p1000000\n"])
def test_a_place_of_the_memo_is_not_believed(tmp_path, memo):
    """A flipped bit made pickle reserve and fill 10 GB like this."""
    assert "place 1000000 of its memo, in " in refusal(save(tmp_path, Raw(b"N" + memo)))


@pytest.mark.parametrize("version", WRITTEN)
def test_a_frame_cut_anywhere_is_an_error(tmp_path, version):
    content = WRITTEN[version]
    for size in (*range(0, len(content) - 1, 5), len(content) - 1):
        refusal(save(tmp_path, content[:size]))


@pytest.mark.parametrize("version", WRITTEN)
def test_a_flipped_bit_gives_columns_or_an_error(tmp_path, version):
    content, rng = WRITTEN[version], random.Random(0)
    for place in range(len(content) % 3, len(content), 3):
        changed = bytes([content[place] ^ 1 << rng.randrange(8)])
        path = save(tmp_path, content[:place] + changed + content[place + 1 :])
        try:
            loaded = load_frame(path)
        except UserError as error:
            assert str(error).startswith(f"{path}: ")
        else:
            assert len({len(found) for found in loaded.values()}) == 1
