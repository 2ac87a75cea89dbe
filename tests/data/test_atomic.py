import dataclasses
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from delrec_jax.data.corpora import DataConfig, atomic, load_corpus, prepare_corpus, tables
from delrec_jax.data.corpora.atomic import AtomicSettings, read_atomic, read_atomic_tables
from delrec_jax.data.interactions import fingerprint
from delrec_jax.errors import UserError

ITEM = """\
item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq
10\tMatrix, The\t1999\tAction Sci-Fi
11\tFish &amp;  Chips\t2001\tComedy
12\tFish & Chips\t2004\tComedy
13\t\t1990\t
14\tNever Sold\t1991\tDrama
"""
INTER = """\
item_id:token\tuser_id:token\trating:float\ttimestamp:float
11\tbob\t4\t300
10\tann\t5\t200
12\tann\t3\t100
10\tbob\t1\t300
13\tann\t4.5\t100
12\tbob\t2\t50
"""


def write(folder: Path, inter=INTER, item=ITEM, name="shop"):
    home = folder / name
    home.mkdir(parents=True, exist_ok=True)
    for ending, content in ((".inter", inter), (".item", item)):
        data = content if isinstance(content, bytes) else content.encode()
        (home / f"{name}{ending}").write_bytes(data)
    return AtomicSettings(path=str(home))


def sequences(corpus):
    """Raw user id to raw item ids in order."""
    ids, rows = corpus.catalogue.ids, corpus.interactions
    return {
        name: [ids[item] for item in rows.history(user)] for user, name in enumerate(rows.user_ids)
    }


def nonzero(corpus):
    return {reason: count for reason, count in corpus.dropped.items() if count}


def test_a_small_corpus_by_hand(tmp_path):
    corpus = read_atomic(write(tmp_path))
    assert corpus.name == "shop"
    assert corpus.catalogue.ids == ("10", "11", "12", "13")
    assert corpus.catalogue.titles == (
        "The Matrix",
        "Fish & Chips (2001)",
        "Fish & Chips (2004)",
        "untitled item 13",
    )
    assert corpus.catalogue.attributes == {
        "year": ("1999", "2001", "2004", "1990"),
        "class": ("Action Sci-Fi", "Comedy", "Comedy", ""),
    }
    # By time, and by line where times are equal: ann 12 before 13, bob 11 before 10.
    assert sequences(corpus) == {"bob": ["12", "11", "10"], "ann": ["12", "13", "10"]}
    assert corpus.interactions.times.tolist() == [50, 300, 300, 100, 100, 200]
    assert nonzero(corpus) == {
        tables.UNUSED_ITEM: 1,
        tables.EMPTY_TITLE: 1,
        tables.REPEATED_TITLE: 2,
    }


def test_neighbouring_epoch_seconds_stay_apart(tmp_path):
    # In float32 these four seconds are one number, and the file's order would win.
    lines = [f"u\t{10 + k}\t{881250949 - k}" for k in range(4)]
    inter = "user_id:token\titem_id:token\ttimestamp:float\n" + "\n".join(lines)
    corpus = read_atomic(write(tmp_path, inter))
    assert sequences(corpus) == {"u": ["13", "12", "11", "10"]}
    assert corpus.interactions.times.tolist() == [881250946, 881250947, 881250948, 881250949]


def test_fractions_of_seconds_order_and_are_stored_as_seconds(tmp_path):
    inter = "user_id:token\titem_id:token\ttimestamp:float\nu\t10\t7.9\nu\t11\t7.1\nu\t12\t8e0\n"
    corpus = read_atomic(write(tmp_path, inter))
    assert sequences(corpus) == {"u": ["11", "10", "12"]}
    assert corpus.interactions.times.tolist() == [7, 7, 8]


def test_windows_line_ends_a_byte_order_mark_and_quotes_are_taken(tmp_path):
    item = ITEM.replace("Never Sold", '"Big One').replace("\n", "\r\n")
    inter = INTER.replace("\n", "\r\n") + "14\tann\t4\t500\r\n\r\n"
    corpus = read_atomic(write(tmp_path, b"\xef\xbb\xbf" + inter.encode(), item))
    assert corpus.catalogue.titles[-1] == '"Big One'
    assert corpus.catalogue.attributes["class"][0] == "Action Sci-Fi"
    assert sequences(corpus)["ann"] == ["12", "13", "10", "14"]


def test_ratings_are_read_where_there_are_some(tmp_path):
    rated = read_atomic_tables(write(tmp_path).path).interactions
    assert rated["rating"].to_list() == [4.0, 5.0, 3.0, 1.0, 4.5, 2.0]
    inter = "user_id:token\titem_id:token\ttimestamp:float\nu\t10\t7\n"
    unrated = read_atomic_tables(write(tmp_path, inter).path).interactions
    assert unrated.columns == ["user", "item", "time"]


def test_a_last_line_without_line_end_is_taken_and_told(tmp_path):
    whole = read_atomic(write(tmp_path))
    corpus = read_atomic(write(tmp_path, INTER.rstrip("\n"), ITEM.rstrip("\n")))
    assert fingerprint(corpus) == fingerprint(whole)
    told = {atomic.UNFINISHED_INTER: 1, atomic.UNFINISHED_ITEM: 1}
    assert nonzero(corpus) == nonzero(whole) | told


def test_a_column_named_year_is_the_year_beside_the_release_year(tmp_path):
    item = ITEM.replace("class:token_seq", "year:token")
    corpus = read_atomic(write(tmp_path, item=item))
    assert list(corpus.catalogue.attributes) == ["release_year", "year"]
    assert corpus.catalogue.titles[1:3] == ("Fish & Chips (11)", "Fish & Chips (12)")


def test_the_path_may_be_a_prefix(tmp_path):
    config = write(tmp_path)
    prefix = dataclasses.replace(config, path=str(Path(config.path) / "shop"))
    assert fingerprint(read_atomic(prefix)) == fingerprint(read_atomic(config))


def test_rows_are_dropped_for_counted_reasons(tmp_path):
    extra = "99\tann\t5\t10\n10\tann\t5\t400\n12\tann\t5\t90\n10\tcat\t5\t1\n14\tcat\t5\t2\n"
    corpus = read_atomic(write(tmp_path, INTER + extra))
    # ann's first 10 and 12 in time count: 12 at 90 (a later line), 10 at 200.
    assert sequences(corpus) == {"bob": ["12", "11", "10"], "ann": ["12", "13", "10"]}
    assert corpus.interactions.times[3:].tolist() == [90, 100, 200]
    assert nonzero(corpus) == {
        tables.NO_TITLE_ROW: 1,
        tables.REPEATED: 2,
        tables.SHORT_USER: 2,
        tables.UNUSED_ITEM: 1,
        tables.EMPTY_TITLE: 1,
        tables.REPEATED_TITLE: 2,
    }


LINE = r"\.inter, line 4"


@pytest.mark.parametrize(
    ("inter", "message"),
    [
        (INTER.replace("timestamp:float", "when:float"), r"line 1: no column 'timestamp'.*add it"),
        (INTER.replace("user_id:token", "user_id"), r"line 1, column 'user_id'.*'user_id:token'"),
        (INTER.replace("user_id:token", "user_id:text"), r"line 1, column 'user_id:text'.*TYPE"),
        (INTER.replace("rating:float", "user_id:token"), "line 1: column 'user_id' occurs twice"),
        (INTER.replace("12\tann\t3\t100", "12\tann\t3"), LINE + ": 3 .* header has 4; correct"),
        (INTER.replace("12\tann\t3\t100", "12\tann\t3\t1\t0"), LINE + ": 5 tab-separated"),
        (INTER.replace("12\tann\t3\t100", ""), LINE + ": 1 tab-separated"),
        (
            INTER.replace("ann\t3\t100", "ann\t3\tlate"),
            LINE + ", column 'timestamp': 'late' is not",
        ),
        (INTER.replace("ann\t3\t100", "ann\t3\tnan"), LINE + ", column 'timestamp': 'nan' is not"),
        (INTER.replace("ann\t3\t100", "ann\tgood\t100"), LINE + ", column 'rating': 'good' is not"),
        (INTER.replace("ann\t3\t100", "\t3\t100"), LINE + ", column 'user_id': empty cell; fill"),
        (INTER.replace("ann\t3\t100", "a\0n\t3\t100"), LINE + ": a NUL byte.*UTF-8"),
        (INTER.encode().replace(b"ann\t3", b"\xe9nn\t3"), LINE + r": byte 0xe9 .*iconv"),
        (
            INTER.replace("ann\t3\t100", "ann\t3\t-1"),
            LINE + ", column 'timestamp': '-1' is not a t",
        ),
        (
            INTER.replace("12\tann\t3\t100\n", INTER.split("\n")[0] + "\n"),
            LINE + ": the header again",
        ),
        ("", r"\.inter: the file is empty"),
        ("\n \n", r"\.inter: the file is empty"),
        (INTER.split("\n")[0] + "\n", r"\.inter, line 1: no rows below the header"),
        (
            INTER.replace("1", "7"),
            "corpus shop: no interaction is left of 6 .*without title row: 6.*same item ids",
        ),
    ],
)
def test_bad_interactions_are_named_by_place_and_remedy(tmp_path, inter, message):
    with pytest.raises(UserError, match=message) as caught:
        read_atomic(write(tmp_path, inter))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (ITEM.replace("movie_title", "label"), r"shop\.item, line 1: no title .*name one of them"),
        (ITEM.replace("item_id", "id"), r"shop\.item, line 1: no column 'item_id'"),
        (ITEM.replace("12\t", "10\t"), r"shop\.item, line 4, column 'item_id': '10' has a row"),
        (ITEM.replace("12\t", "\t"), r"shop\.item, line 4, column 'item_id': empty"),
        (ITEM.replace("class", "item"), r"shop\.item, line 1: column 'item' beside 'item_id'"),
    ],
)
def test_bad_items_are_named_by_place_and_remedy(tmp_path, item, message):
    with pytest.raises(UserError, match=message):
        read_atomic(write(tmp_path, item=item))


def test_missing_files_are_named(tmp_path):
    config = write(tmp_path)
    (tmp_path / "shop" / "shop.inter").unlink()
    with pytest.raises(UserError, match=r"shop\.inter: no such file; data\.path"):
        read_atomic(config)
    with pytest.raises(UserError, match=r"nowhere\.item: no such file"):
        read_atomic(AtomicSettings(path=str(tmp_path / "nowhere")))
    with pytest.raises(UserError, match=r"data\.path: empty"):
        read_atomic(AtomicSettings(path=""))


def test_prepare_corpus_gives_back_what_was_parsed_and_needs_no_tensorflow(tmp_path):
    config = write(tmp_path)
    parsed = read_atomic(config)
    data = DataConfig(corpus="atomic", path=config.path)
    for _ in range(2):  # prepared, then reused
        corpus = prepare_corpus(data, tmp_path / "data")
        assert corpus.name == "shop"
        assert corpus.dropped == parsed.dropped
        assert corpus.catalogue == parsed.catalogue
        assert fingerprint(corpus) == fingerprint(parsed)
        assert corpus.interactions.items.dtype == np.int32
        assert corpus.interactions.times.dtype == np.int64
    assert "tensorflow" not in sys.modules


def test_prepare_corpus_reuses_the_same_source_and_sees_a_changed_one(tmp_path, monkeypatch):
    config = write(tmp_path)
    data = DataConfig(corpus="atomic", path=config.path)
    prepare_corpus(data, tmp_path / "data")
    reads = []
    monkeypatch.setattr(atomic, "read_atomic", lambda c: reads.append(c) or read_atomic(c))
    prepare_corpus(data, tmp_path / "data")
    prepare_corpus(dataclasses.replace(data, domain="movies"), tmp_path / "data")
    assert reads == []
    write(tmp_path, item=ITEM.replace("Matrix", "Tractrix"))
    changed = prepare_corpus(data, tmp_path / "data")
    assert changed.catalogue.titles[0] == "The Tractrix"
    shorter = prepare_corpus(
        dataclasses.replace(data, min_rating=4, min_length=1), tmp_path / "data"
    )
    assert len(shorter.interactions.items) == 3
    assert len(reads) == 2


def test_a_prepared_corpus_needs_its_sources_no_more(tmp_path):
    data = DataConfig(corpus="atomic", path=write(tmp_path).path)
    with pytest.raises(UserError, match=r"data: no prepared corpus .*`delrec prepare`"):
        load_corpus(tmp_path / "data")
    prepare_corpus(data, tmp_path / "data")
    write(tmp_path, item=ITEM.replace("Matrix", "Tractrix"))
    changed = prepare_corpus(data, tmp_path / "data")
    shutil.rmtree(tmp_path / "shop")
    corpus = load_corpus(tmp_path / "data")
    assert corpus.catalogue == changed.catalogue
    assert corpus.catalogue.titles[0] == "The Tractrix"
    assert fingerprint(corpus) == fingerprint(changed)
    assert (corpus.name, corpus.dropped) == (changed.name, changed.dropped)
    assert corpus.ordered_only is changed.ordered_only


def test_a_failed_preparation_is_not_taken_for_a_corpus(tmp_path, capsys):
    bad = write(tmp_path, inter=INTER.replace("\t50", "\tx"))
    data = DataConfig(corpus="atomic", path=bad.path)
    for _ in range(2):
        with pytest.raises(UserError, match="line 7, column 'timestamp'"):
            prepare_corpus(data, tmp_path / "data")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corpus": "spotify"}, r"data\.corpus: 'spotify' is none of storefront, atomic, csv"),
        ({"domain": "songs"}, r"data\.domain is .songs.: use one of movies"),
        ({"corpus": "atomic", "k_core": -1, "path": "x"}, r"data\.k_core = -1"),
        ({"k_core": 5}, r"data\.k_core = 5 has no effect"),
        ({"path": "x"}, r"data\.path = 'x' has no effect"),
        ({"min_length": 9}, r"data\.storefront\.min_length = 5 is below"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        prepare_corpus(DataConfig(**change), tmp_path)


@pytest.mark.real_data
def test_movielens_test_targets_by_an_independent_reading():
    path = Path(__file__).parents[2].parent / "shared" / "data" / "ml-100k"
    if not path.is_dir():
        pytest.skip(f"{path.name} is not at hand next to the repository")
    corpus = read_atomic(AtomicSettings(path=str(path)))
    assert (corpus.interactions.num_users, corpus.catalogue.num_items) == (943, 1682)
    lines = (path / "ml-100k.inter").read_text().splitlines()[1:]
    rows = {}
    for user, item, _, time in (line.split("\t") for line in lines):
        rows.setdefault(user, []).append((int(time), item))
    expected = {u: [item for _, item in sorted(row, key=lambda r: r[0])] for u, row in rows.items()}
    assert sequences(corpus) == expected
