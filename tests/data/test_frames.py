"""Pickled frames: two that pandas wrote, and forged ones; pandas is not installed here."""

import base64
import gzip
import os
import pickle
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from corpus_files import Raw, block, call, dtype, frame, index, named, numbers, objects, put, save

from delrec_jax.data.corpora import frames
from delrec_jax.data.corpora.frames import load_frame
from delrec_jax.errors import UserError

# DataFrame.to_pickle of the columns below; the places of the three columns of int64 are an array.
PANDAS = {
    "pandas 1.5.3, numpy 1.26.4": (
        "c-nQ8&rjPh6vvY$X~#hOfiwme#A)j;l_qxBVG;<?#E8~O+$+mTUz>=;?Hor1X=qGS8A!hEjlXBoj@$kw_MD{90`tM|CHDLJ<7Ypgct5_nR?+n1As1bqwZ"
        "egfR!{O2P|xjf#oreGcYN^$kFlv;mi8s;)#>T6P#^_QvR29k?}N-xFKi`)@Zf#<P2o+wRE4l44zlYQ)DKxMhH-e101HeI&DM(|PlrdPJh>p_5cNFk$w3<"
        "Ay<RDK;gs-}ZP}>3B7|&L9Sse!t_3gg{OlX<W7BuE{R!Lc_TDA6qVp|<fp7cHDQbHg6;0Fkf;>)CEQrd>k~lOnzUS9{+o<?8(?|2sgXYD8b=5X3>*r_7I"
        "@!c%QP+B}rq_J)-!-EZvtqRBJHC5cez($|t8A^Z^~yRo{$Ez@ccc9NQ`x_jEzsiE*J#o6JHVVNFoIaVN^jZR8xR<+`_8xun9%DdQ%9HPlua%rr*m0g62g"
        "JVl*~g#d5s?F23?3^kg{xzaoY~C#Ivg$5%h;?=%rcc4T3)JV6$TeDa3_N5$ur#8l&u5Mr$U!o6(k8EZUh}YR?F1cNe%qUH>&+d$zWP?MkI)<gZl}nz_rf"
        "HPD4a$XWr<sB-Qz0VDR#{4+ZZwKwsL8tPJA;cbw{c!J?%@Da5u;E-TE6|00q>yp#e?4xcZAXqsg0}y16fXiaX6l2P@ou8V`f?m0cQF75Yko(3?fkmS>U3"
        "<l)qT?WKH5ejYVsd~SyU+yF(JMeTMh}G9$mFqLDJWj-tV7IPDS8HuiJJ8i-Y?vzJV^$ljCJ!N)fQL45*`3O0cTkrwEh9+d!xb"
    ),
    "pandas 3.1.1, numpy 2.4.6": (
        "c-n<jOKTKC5T4zg*_ek03B-Uwb5T~1C4n3~2r&;dW^sggUYefS-kl*cy<<-g$$}yAurYzYrOfXUJgWc1i#Knvx@R`~P_PHOx~HqY{;ImFPMyy`ZOaT*O("
        "<{C6x8$%mGq^cF@sBZ@)3@qrfd>-1gHnOPTlVcRu8#kg3~Ci$CT3!6KFfP6?OfCH~AjTYihADAyMe1LmN=@B;!fwA4H6J+6cAPBG2NaS0@HP&LSC7A!rY"
        "AiC})0r&46T)S8ab1T}@=M&%M3Rv)%Y9(;m*s5MIXRn8!oS58az677pBzkLQ5=lOX>l|F#$x_j3+%+%PB;9WGK*3`#nZnLHVa!@inQ@6Y<L{1#pJ82a9%"
        "-pK4(wL31o`YGnFzN-anFxJQv!pG$v6r>md1S73^T1ovg)A4cTFA=8|LbCWo67g!3;Cmv5G<*3IOgH=2@fsw0$sznsM0n_P4{W-YN@!OR7iV*2n4H*N*{"
        "uCIpU=@oU?AmhGl&@v8>Y<hDCdQ$Rb$#2Z#J^3}EmG8QJ3@)ZmpHRwaY!t&LzV{}<C~R3|X+1b20c1PkK{a$i5WvUeGkpsHW{E00&Uz}4@KC}o`pLlg;G"
        "cWJx|TI`6Wb&sYD)C}S5ki6Fa@QnjYIfJ#Sq83&bsD-hTFzJgKwM<CTI~o>+yR)fJwy1x=S~`1g7iI&4*>_Teyt7%P|K7vuFWWV~T7$ElLFQMJo(#GiUY"
        "-2Tqk5+G{))&{e-MvK%HD&rIXl9rI5LzGdRG+`v%iB?7cow9jg&EtqQ|H(MRJC9VsqU*+{|3Ukj~6L<sCK>ilFae2}vp>77&8SZUUIFxL~*_8B3-o>^$f"
        "LHYFXpwrNUgn#4>}6U!!&qf%n)IYxS<9np?i-lI{}Jxoa}OR!F<WF(><!?tstW?uad#w*Nv"
    ),
}
WRITTEN = {version: zlib.decompress(base64.b85decode(text)) for version, text in PANDAS.items()}
COLUMNS = {
    "seq": [[3, 1, 4], [1, 5], []],
    "next": np.array([9, 2, 6]),
    "title": ["Heat", "Å & B", None],
    "rating": np.array([0.5, np.nan, 4], np.float32),
    "len_seq": np.array([3, 2, -1]),
    "seen": np.array([True, False, True]),
    "year": np.array([1995, 1996, 1997]),
}


def column(values) -> Raw:
    """A frame whose one column is a block's only row."""
    return frame([block(values, 0, 1, 1)], index("a"))


def cells(*values) -> Raw:
    return column(objects(list(values), (1, len(values))))


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
    loaded = load_frame(save(tmp_path / "data.df", pack(WRITTEN[version])))
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
    loaded = load_frame(save(tmp_path / "data.df", frame(blocks, index(*"abcd"))))
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
    path = save(tmp_path / "data.df", cells(1, attack) if inside else attack)
    assert f"it wants '{name}', which no table needs); nothing of it was run" in refusal(path)
    assert not mark.exists()
    pickle.loads(save(tmp_path / "data.df", attack).read_bytes())
    assert mark.exists(), "pickle itself would have run it"


@pytest.mark.parametrize(
    "name",
    [
        *("numpy.f2py.crackfortran.myeval", "numpy.load", "numpy.memmap", "builtins.getattr"),
        *("numpy._core.multiarray.fromfile", "numpy._core.multiarray.scalar", "builtins.list"),
        *("numpy.core.multiarray._reconstruct.__globals__", "copyreg._reconstructor"),
        *("pandas.core.frame.DataFrame.__setstate__", "pandas.core.computation.eval.eval"),
        *("pandas.io.pickle.read_pickle", "pandas.core.arrays.categorical.Categorical"),
        *("_codecs.encode", "delrec_jax.data.corpora.frames.load_frame"),
    ],
)
def test_every_other_name_is_refused_by_name(tmp_path, name):
    assert f"it wants '{name}', which no table needs" in refusal(
        save(tmp_path / "data.df", call(name, "1"))
    )


def test_a_pickle_leaves_nothing_behind(tmp_path):
    """Attributes set on a class would last until the next file."""
    before = dict(vars(frames.Record))
    for attributes in (b"}(Vargs\nVforged\nu", b"N}(Vargs\nVforged\nu\x86"):
        path = save(
            tmp_path / "data.df", Raw(named("pandas.core.frame.DataFrame") + attributes + b"b")
        )
        assert "not a pickled table" in refusal(path)
    assert dict(vars(frames.Record)) == before


POINTERS = struct.pack("3Q", 1 << 40, 1 << 41, 1 << 42)
NUMBERS = numbers(struct.pack("3q", 1, 2, 3), (1, 3))
TWO = numbers(bytes(16), (1, 2))
ONE = block(NUMBERS, 0, 1, 1)


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
    assert "not as many numbers or objects" in refusal(save(tmp_path / "data.df", column(values)))


SHAPES = [(1, 2), (1, 4), (1, 1 << 40), (1 << 62, 1 << 62), (-1, -3), (1, 3.0), (1 << 70, 0)]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_size_is_not_believed(tmp_path, shape):
    for values in (numbers(bytes(24), shape), objects([1, 2, 3], shape)):
        message = refusal(save(tmp_path / "data.df", column(values)))
        assert "not as many" in message or "impossible shape" in message
    for nothing in (numbers(b"", (1 << 70, 0)), objects([], (1 << 70, 0))):
        refusal(save(tmp_path / "data.df", column(nothing)))


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
        (Raw(b"]q\x00(K\x01h\x00e"), "list"),  # a list in itself
    ],
)
def test_a_strange_cell_is_named(tmp_path, cell, word):
    assert f"a cell holds {word})" in refusal(save(tmp_path / "data.df", cells(1, cell)))


@pytest.mark.parametrize("code", ["M8", "U4", "S4", "c16", "V8", "i7", "f16", "object", ["i8"]])
def test_an_element_type_that_is_not_read_is_an_error(tmp_path, code):
    refusal(save(tmp_path / "data.df", column(numbers(bytes(48), (1, 3), dtype(code)))))


@pytest.mark.parametrize(
    ("blocks", "names", "words"),
    [
        ([ONE], index("a", "b"), "columns missing"),
        ([block(NUMBERS, 0, 2, 1)], index("a", "b"), "shape (1, 3) for the columns ['a', 'b']"),
        ([block(numbers(bytes(24), (3,)), 0, 1, 1)], index("a"), "shape (3,)"),
        ([block(numbers(bytes(8), (1, 1, 1)), 0, 1, 1)], index("a"), "shape (1, 1, 1)"),
        ([block(NUMBERS, 0, 1, 0)], index("a"), "step"),
        ([block(NUMBERS, "a", 1, 1)], index("a"), "slice indices"),
        ([block(NUMBERS, numbers(struct.pack("q", 1), (1,)))], index("a"), "out of range"),
        ([block(NUMBERS, 0)], index("a"), "int where an array should be"),
        ([ONE] * 2, index("a"), "for the columns ['a']"),
        ([block(numbers(bytes(16), (2, 1)), numbers(bytes(16), (2,)))], index("a"), "['a', 'a']"),
        ([ONE, block(TWO, 1, 2, 1)], index("a", "b"), "unequal lengths"),
        ([block([1, 2, 3], 0, 1, 1)], index("a"), "list where an array should be"),
        ([3], index("a"), "a block of columns of an unknown layout"),
        ([ONE], index(5), "names are not distinct texts"),
        ([ONE], index("a", "a"), "names are not distinct texts"),
        ([ONE], ["a"], "names are not distinct texts"),
    ],
)
def test_a_frame_that_makes_no_sense_is_an_error(tmp_path, blocks, names, words):
    assert words in refusal(save(tmp_path / "data.df", frame(blocks, names)))


@pytest.mark.parametrize("thing", [[1, 2], {"seq": [1]}, None, index("a"), "text", NUMBERS])
def test_a_pickle_of_something_else_is_an_error(tmp_path, thing):
    assert "does not hold a DataFrame" in refusal(save(tmp_path / "data.df", Raw(put(thing))))


@pytest.mark.parametrize("content", [b"seq,next\n1,2\n", bytes(100), b"."])
def test_a_file_that_is_no_pickle_is_an_error(tmp_path, content):
    assert "not a pickled table, cut short or damaged" in refusal(
        save(tmp_path / "data.df", content)
    )


def test_a_missing_file_and_a_cut_gzip_file_are_named(tmp_path):
    assert "cannot be read" in refusal(tmp_path / "none.df")
    packed = gzip.compress(next(iter(WRITTEN.values())))
    assert "the gzip data are cut short" in refusal(save(tmp_path / "data.df", packed[:-9]))


@pytest.mark.parametrize("memo", [b"r" + struct.pack("<I", 1_000_000), b"p1000000\n"])
def test_a_place_of_the_memo_is_not_believed(tmp_path, memo):
    """A flipped bit made pickle reserve and fill 10 GB like this."""
    assert "place 1000000 of its memo, in " in refusal(save(tmp_path / "data.df", Raw(b"N" + memo)))


@pytest.mark.parametrize("version", WRITTEN)
def test_a_frame_cut_anywhere_is_an_error(tmp_path, version):
    content = WRITTEN[version]
    for size in (*range(0, len(content) - 1, 5), len(content) - 1):
        refusal(save(tmp_path / "data.df", content[:size]))


@pytest.mark.parametrize("version", WRITTEN)
def test_a_flipped_bit_gives_columns_or_an_error(tmp_path, version):
    content, rng = WRITTEN[version], random.Random(0)
    for place in range(len(content) % 3, len(content), 3):
        changed = bytes([content[place] ^ 1 << rng.randrange(8)])
        path = save(tmp_path / "data.df", content[:place] + changed + content[place + 1 :])
        try:
            loaded = load_frame(path)
        except UserError as error:
            assert str(error).startswith(f"{path}: ")
        else:
            assert len({len(found) for found in loaded.values()}) == 1
