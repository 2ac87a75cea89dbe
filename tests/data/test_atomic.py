import dataclasses
import shutil
import sys
from pathlib import Path

import pytest
from corpus_files import nonzero, taken

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
    assert taken(corpus) == {"bob": ["12", "11", "10"], "ann": ["12", "13", "10"]}
    assert corpus.interactions.times.tolist() == [50, 300, 300, 100, 100, 200]
    assert nonzero(corpus) == {
        tables.UNUSED_ITEM: 1,
        tables.EMPTY_TITLE: 1,
        tables.REPEATED_TITLE: 2,
    }


@pytest.mark.parametrize(
    ("times", "order", "seconds"),
    [
        # In float32 these three seconds are one number, and the file's order would win.
        (("881250949", "881250948", "881250947"), "12 11 10", [881250947, 881250948, 881250949]),
        (("7.9", "7.1", "8e0"), "11 10 12", [7, 7, 8]),
    ],
    ids=["neighbouring seconds", "fractions"],
)
def test_times_order_and_are_stored_as_seconds(tmp_path, times, order, seconds):
    rows = "".join(f"u\t{10 + row}\t{time}\n" for row, time in enumerate(times))
    inter = "user_id:token\titem_id:token\ttimestamp:float\n" + rows
    corpus = read_atomic(write(tmp_path, inter))
    assert taken(corpus) == {"u": order.split()}
    assert corpus.interactions.times.tolist() == seconds


def test_ratings_are_read_where_there_are_some(tmp_path):
    rated = read_atomic_tables(write(tmp_path).path).interactions
    assert rated["rating"].to_list() == [4.0, 5.0, 3.0, 1.0, 4.5, 2.0]
    inter = "user_id:token\titem_id:token\ttimestamp:float\nu\t10\t7\n"
    unrated = read_atomic_tables(write(tmp_path, inter).path).interactions
    assert unrated.columns == ["user", "item", "time"]


def test_a_column_named_year_is_the_year_beside_the_release_year(tmp_path):
    item = ITEM.replace("class:token_seq", "year:token")
    corpus = read_atomic(write(tmp_path, item=item))
    assert list(corpus.catalogue.attributes) == ["release_year", "year"]
    assert corpus.catalogue.titles[1:3] == ("Fish & Chips (11)", "Fish & Chips (12)")


def test_items_may_be_called_what_they_are(tmp_path):
    inter = "user_id:token\tproduct_id:token\ttimestamp:float\nu\t10\t1\nu\t20\t2\n"
    item = "app_name:token_seq\tid:token\tgenres:token_seq\nPortal\t10\tpuzzle\nDoom\t20\tshooter\n"
    raw = read_atomic_tables(write(tmp_path, inter, item).path)
    assert raw.interactions["item"].to_list() == ["10", "20"]
    assert dict(zip(raw.items["item"], raw.items["title"], strict=True)) == {
        "10": "Portal",
        "20": "Doom",
    }


def test_rows_that_were_only_shown_are_refused(tmp_path):
    inter = (
        "user_id:token\titem_id:token\ttimestamp:float\tlabel:float\nu\ta\t1\t1.0\nu\tb\t2\t0.0\n"
    )
    with pytest.raises(UserError, match="column 'label' marks rows with 0"):
        read_atomic_tables(write(tmp_path, inter).path)


def test_the_path_may_be_a_prefix(tmp_path):
    config = write(tmp_path)
    prefix = dataclasses.replace(config, path=str(Path(config.path) / "shop"))
    assert fingerprint(read_atomic(prefix)) == fingerprint(read_atomic(config))


LINE = r"\.inter, line 4"
NOTHING = "corpus shop: no interaction is left of 6 .*without title row: 6.*same item ids"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("timestamp:float", "when:float", r"line 1: no column 'timestamp'.*add it"),
        ("user_id:token", "user_id", r"line 1, column 'user_id'.*'user_id:token'"),
        ("user_id:token", "user_id:text", r"line 1, column 'user_id:text'.*TYPE"),
        ("rating:float", "user_id:token", "line 1: column 'user_id' occurs twice"),
        ("12\tann\t3\t100", "12\tann\t3", LINE + ": 3 .* header has 4; correct"),
        ("ann\t3\t100", "ann\t3\tlate", LINE + ", column 'timestamp': 'late' is not"),
        ("ann\t3\t100", "ann\t3\t-1", LINE + ", column 'timestamp': '-1' is not a time; give"),
        (
            "ann\t3\t100",
            "ann\tgood\t100",
            LINE + ", column 'rating': 'good' is no rating: correct it",
        ),
        ("ann\t3\t100", "\t3\t100", LINE + ", column 'user_id': empty cell; fill"),
        ("ann\t3\t100", "ann \t3\t100", LINE + ", column 'user_id': 'ann ' has white space"),
        ("1", "7", NOTHING),
    ],
)
def test_bad_interactions_are_named_by_place_and_remedy(tmp_path, old, new, message):
    with pytest.raises(UserError, match=message) as caught:
        read_atomic(write(tmp_path, INTER.replace(old, new)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (ITEM.replace("movie_title", "label"), r"shop\.item, line 1: no title .*name one of them"),
        (ITEM.replace("item_id", "number"), r"shop\.item, line 1: no column 'item_id'"),
        (ITEM.replace("12\t", "10\t"), r"shop\.item, line 4, column 'item_id': '10' has a row"),
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


def same(found, corpus):
    fields = ("name", "dropped", "catalogue", "ordered_only")
    alike = all(getattr(found, name) == getattr(corpus, name) for name in fields)
    return alike and fingerprint(found) == fingerprint(corpus)


def test_prepare_corpus_reuses_the_same_source_and_sees_a_changed_one(tmp_path, monkeypatch):
    config = write(tmp_path)
    data = DataConfig(corpus="atomic", path=config.path)
    assert same(prepare_corpus(data, tmp_path / "data"), read_atomic(config))
    reads = []
    monkeypatch.setattr(atomic, "read_atomic", lambda c: reads.append(c) or read_atomic(c))
    assert same(prepare_corpus(data, tmp_path / "data"), read_atomic(config))
    prepare_corpus(dataclasses.replace(data, domain="movies"), tmp_path / "data")
    assert reads == [] and "tensorflow" not in sys.modules
    write(tmp_path, item=ITEM.replace("Matrix", "Tractrix"))
    changed = prepare_corpus(data, tmp_path / "data")
    assert changed.catalogue.titles[0] == "The Tractrix"
    rated = dataclasses.replace(data, min_rating=4, min_length=1)
    assert len(prepare_corpus(rated, tmp_path / "data").interactions.items) == 3
    assert len(reads) == 2


def test_a_prepared_corpus_needs_its_sources_no_more(tmp_path):
    data = DataConfig(corpus="atomic", path=write(tmp_path).path)
    with pytest.raises(UserError, match=r"data: no prepared corpus .*`delrec prepare`"):
        load_corpus(tmp_path / "data")
    prepare_corpus(data, tmp_path / "data")
    write(tmp_path, item=ITEM.replace("Matrix", "Tractrix"))
    changed = prepare_corpus(data, tmp_path / "data")
    shutil.rmtree(tmp_path / "shop")
    assert same(load_corpus(tmp_path / "data"), changed)
    assert changed.catalogue.titles[0] == "The Tractrix"


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
    assert taken(corpus) == expected
