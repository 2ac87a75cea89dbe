import gzip
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from delrec_jax.data.corpora import record_lines
from delrec_jax.data.corpora.builder import read_corpus
from delrec_jax.data.corpora.steam import (
    SteamCorpus,
    SteamSettings,
    read_llara,
    read_ucsd,
    resources,
)
from delrec_jax.data.corpora.tables import NO_TITLE_ROW, RulesConfig
from delrec_jax.errors import UserError

DAY = 86_400
PAD = 3  # the number of games below
NAMES = "0::Portal\n1::Fear :: Knossos\n2::Half-Life &amp; Co\n"
VAL = {"seq": [[0, 1, PAD, PAD], [2, 0, 1, 0]], "next": [2, 1], "len_seq": [2, 4]}
# The second row has no history: LLaRA counts one item of padding there.
TEST = {"seq": [[1, PAD, PAD], [PAD, PAD, PAD]], "next": [0, 2], "len_seq": [1, 1]}

REVIEWS = [
    {"username": "Ann O'Nym", "hours": "0.1", "product_id": "70", "date": "2017-12-17"},
    {"username": "böb", "user_id": "765", "product_id": "50", "date": "2016-02-29", "text": "é'\""},
    # Text that quotes a review, in a string with double quotes.
    {"text": "it's u'product_id': u'666'", "product_id": "50", "username": "Ann O'Nym",
     "date": "1970-01-01", "early_access": False, "found_funny": None},
]  # fmt: skip
GAMES = [
    {"app_name": "Half-Life", "title": "Half-Life", "id": "70", "release_date": "1998-11-08",
     "genres": ["Action", "Free to Play"], "price": 9.99},
    {"app_name": "Opposing Force", "id": "50", "release_date": "soon", "price": "Free"},
    {"title": "No name, a title", "id": "51", "genres": []},
]  # fmt: skip


def pandas_stand_ins(monkeypatch):
    """Modules that let pickle write the names that pandas 2 writes; pandas is not installed."""
    parts = types.SimpleNamespace()
    for module, names in {
        "pandas": (),
        "pandas.core": (),
        "pandas.core.frame": ("DataFrame",),
        "pandas.core.internals": (),
        "pandas.core.internals.managers": ("BlockManager",),
        "pandas._libs": (),
        "pandas._libs.internals": ("_unpickle_block",),
        "pandas.core.indexes": (),
        "pandas.core.indexes.base": ("Index", "_new_Index"),
    }.items():
        made = types.ModuleType(module)
        for name in names:
            stand_in = type(name, (), {"__module__": module})
            setattr(made, name, stand_in)
            setattr(parts, name, stand_in)
        monkeypatch.setitem(sys.modules, module, made)
    return parts


class Call:
    """Pickles as a call of a class with arguments."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.fixture
def write_frame(monkeypatch):
    """Writes columns to a file as `DataFrame.to_pickle` of pandas 2 does."""
    parts = pandas_stand_ins(monkeypatch)

    def write(path: Path, columns):
        blocks = []
        for place, cells in enumerate(columns.values()):
            lists = any(isinstance(cell, list) for cell in cells)
            values = np.empty((1, len(cells)), object if lists else np.asarray(cells).dtype)
            values[0, :] = cells
            blocks.append(Call(parts._unpickle_block, values, slice(place, place + 1, 1), 2))

        def index(data):
            return Call(parts._new_Index, parts.Index, {"data": data, "name": None})

        rows = len(next(iter(columns.values())))
        axes = [index(np.array(list(columns), object)), index(np.arange(rows))]
        frame = parts.DataFrame()
        frame._mgr = Call(parts.BlockManager, tuple(blocks), axes)
        frame._typ, frame._metadata, frame.attrs = "dataframe", [], {}
        path.write_bytes(pickle.dumps(frame, protocol=5))
        return path

    return write


def write_names(folder: Path, text=NAMES):
    (folder / "id2name.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / "id2name.txt"


def python2_repr(value):
    if isinstance(value, str):
        return "u" + ascii(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(python2_repr, value)) + "]"
    if isinstance(value, dict):
        pairs = (f"{python2_repr(key)}: {python2_repr(item)}" for key, item in value.items())
        return "{" + ", ".join(pairs) + "}"
    return repr(value)


def dump(path: Path, records) -> Path:
    """A file as McAuley's lab packs it; strings among the records stay as they are."""
    lines = [item if isinstance(item, str) else python2_repr(item) for item in records]
    path.write_bytes(gzip.compress("\n".join([*lines, ""]).encode()))
    return path


def read_dump(folder: Path, reviews=REVIEWS, games=GAMES):
    return read_ucsd(dump(folder / "reviews.json.gz", reviews), dump(folder / "g.json.gz", games))


def test_each_row_of_a_frame_is_a_window(tmp_path, write_frame):
    frames = [
        write_frame(tmp_path / "Val_data.df", VAL),
        write_frame(tmp_path / "Test_data.df", TEST),
    ]
    raw = read_llara(frames, write_names(tmp_path))
    assert raw.name == "steam-llara" and not raw.dropped
    assert raw.interactions.schema == {"user": pl.String, "item": pl.String, "time": pl.Int64}
    assert raw.interactions.rows() == [
        ("val-0000000", "0", 0),
        ("val-0000000", "1", 1),
        ("val-0000000", "2", 2),
        ("val-0000001", "2", 0),
        ("val-0000001", "0", 1),
        ("val-0000001", "1", 2),
        ("val-0000001", "0", 3),
        ("val-0000001", "1", 4),
        ("test-0000000", "1", 0),
        ("test-0000000", "0", 1),
        ("test-0000001", "2", 0),
    ]
    assert raw.items.rows() == [
        ("0", "Portal"),
        ("1", "Fear :: Knossos"),
        ("2", "Half-Life &amp; Co"),
    ]


def test_the_builder_stores_llaras_windows_as_an_order_without_times(tmp_path, write_frame):
    files = (
        write_frame(tmp_path / "Test_data.df", TEST),
        write_frame(tmp_path / "Val_data.df", VAL),
        write_names(tmp_path),
    )
    settings = SteamSettings("llara", files, RulesConfig(min_length=1))
    builder = SteamCorpus(settings=settings, data_dir=tmp_path / "prepared")
    builder.prepare()
    corpus = read_corpus(builder)
    assert corpus.interactions.user_ids == (
        "test-0000000",
        "test-0000001",
        "val-0000000",
        "val-0000001",
    )
    assert corpus.interactions.items.tolist() == [1, 0, 2, 0, 1, 2, 2, 0, 1]
    assert corpus.catalogue.titles[2] == "Half-Life & Co"
    assert corpus.ordered_only


@pytest.mark.parametrize(
    "changes",
    [
        {"seq": [[0, PAD, 1], [0, 1, 2, 0]]},  # padding inside the window
        {"len_seq": [2, 5]},
        {"len_seq": [1, 4]},
        {"seq": [[PAD, PAD], [0, 1, 2, 0]]},
        {"len_seq": [2, -1]},
        {"len_seq": [2.0, 4.0]},
        {"next": [2, PAD]},
        {"seq": [["a", 1], [0, 1, 2, 0]]},
        {"seq": [7, 7]},
    ],
)
def test_a_row_that_is_no_window_is_named(tmp_path, write_frame, changes):
    path = write_frame(tmp_path / "Val_data.df", VAL | changes)
    with pytest.raises(
        UserError, match=r"Val_data\.df, row [01]: .*numbers from 0 to 2, "
    ) as error:
        read_llara([path], write_names(tmp_path))
    assert "\n" not in str(error.value)


def test_frames_must_have_their_columns_and_a_name_that_tells_the_split(tmp_path, write_frame):
    names = write_names(tmp_path)
    short = write_frame(tmp_path / "Val_data.df", {"seq": [[0]], "next": [1]})
    with pytest.raises(UserError, match=r"Val_data\.df: no column 'len_seq' among"):
        read_llara([short], names)
    other = write_frame(tmp_path / "frame.df", VAL)
    with pytest.raises(UserError, match=r"frame\.df: .* val, test, then"):
        read_llara([other], names)
    training = write_frame(tmp_path / "train_data.df", VAL)
    with pytest.raises(UserError, match=r"train_data\.df: .* overlapping windows .* leak"):
        read_llara([training], names)
    for frames in ([], [short, short]):
        with pytest.raises(UserError, match="one for each of val, test"):
            read_llara(frames, names)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0::Portal\n2::Half-Life\n", "line 2: .* '1::'"),
        ("0::Portal\n1 Half-Life\n", "line 2: .* '1::'"),
        (b"0::Portal\n1::\xff\n", "line 2: line that is not UTF-8"),
        ("", "empty"),
    ],
)
def test_faults_in_the_names_are_named_by_line(tmp_path, text, words):
    with pytest.raises(UserError, match=rf"id2name\.txt.*{words}"):
        read_llara([tmp_path / "Val_data.df"], write_names(tmp_path, text))


def test_reviews_and_games_by_hand(tmp_path):
    raw = read_dump(tmp_path)
    assert raw.name == "steam-ucsd" and not any(raw.dropped.values())
    assert raw.interactions.schema == {"user": pl.String, "item": pl.String, "time": pl.Int64}
    assert raw.interactions.rows() == [
        ("Ann O'Nym", "70", 17_517 * DAY),
        ("böb", "50", 16_860 * DAY),
        ("Ann O'Nym", "50", 0),
    ]
    assert raw.items.columns == ["item", "title", "genre", "year"]
    assert raw.items.rows() == [
        ("70", "Half-Life", "Action, Free to Play", "1998"),
        ("50", "Opposing Force", "", ""),
        ("51", "No name, a title", "", ""),
    ]


def test_the_builder_stores_reviews(tmp_path):
    files = (
        dump(tmp_path / "steam_reviews.json.gz", [*REVIEWS, REVIEWS[0] | {"product_id": "99"}]),
        dump(tmp_path / "steam_games.json.gz", GAMES),
    )
    settings = SteamSettings("ucsd", files, RulesConfig(min_length=2))
    builder = SteamCorpus(settings=settings, data_dir=tmp_path / "prepared")
    builder.prepare()
    corpus = read_corpus(builder)
    assert corpus.interactions.user_ids == ("Ann O'Nym",)
    assert [corpus.catalogue.titles[i] for i in corpus.interactions.items] == [
        "Opposing Force",
        "Half-Life",
    ]
    assert corpus.dropped[NO_TITLE_ROW] == 1 and not corpus.ordered_only


def test_a_few_useless_lines_are_counted_by_reason(tmp_path):
    bad = [
        "{u'username': u'cut",
        "['a list']",
        {"product_id": "70", "date": "2017-12-17"},
        {"username": " ", "product_id": "70", "date": "2017-12-17"},
        {"username": "ann", "date": "2017-12-17"},
        {"username": "ann", "product_id": "70", "date": "Posted 17 December"},
        {"username": "ann", "product_id": "70", "date": "2017-02-30"},
        {"username": "ann", "product_id": "70", "date": "2017-W01-1"},
    ]
    raw = read_dump(tmp_path, [*REVIEWS, *bad, "", *REVIEWS], [*GAMES, {"title": "?"}, GAMES[0]])
    assert len(raw.interactions) == 2 * len(REVIEWS)
    assert raw.dropped == {
        "interactions: line that is no Python dict": 2,
        "interactions: line without username": 2,
        "interactions: line without product_id": 1,
        "interactions: line without a date YYYY-MM-DD": 3,
        "items: line without id": 1,
        "items: repeated id": 1,
    }
    assert raw.items["title"].to_list() == ["Half-Life", "Opposing Force", "No name, a title"]


def test_a_file_of_something_else_is_an_error_that_names_its_first_line(tmp_path):
    for line in ('{"username": "a", "product_id": "7", "date": null}', "user,item,time"):
        with pytest.raises(UserError, match=r"reviews\.json\.gz, line 1: .*9 lines after it"):
            read_dump(tmp_path, [line] * 10 + REVIEWS * 1000)
    with pytest.raises(UserError, match=r"line 1: .*; 2 of 2 lines"):
        read_dump(tmp_path, ["oops"] * 2)
    with pytest.raises(UserError, match="no lines"):
        read_dump(tmp_path, [""])


@pytest.mark.parametrize(
    ("bad", "good", "accepted"), [(10, 30, True), (11, 1088, False), (11, 1090, True)]
)
def test_more_than_ten_and_one_in_a_hundred_useless_lines_are_too_many(
    tmp_path, bad, good, accepted
):
    lines = [*REVIEWS[:1] * good, *["oops"] * bad]
    if accepted:
        assert len(read_dump(tmp_path, lines).interactions) == good
    else:
        with pytest.raises(UserError, match=rf"line {good + 1}: .*; {bad} of {good + bad} lines"):
            read_dump(tmp_path, lines)


def test_long_files_are_read_in_chunks_without_a_seam(tmp_path, monkeypatch):
    reviews = [REVIEWS[0] | {"product_id": str(number)} for number in range(7)]
    for chunk in (1, 2, 7, 8):
        monkeypatch.setattr(record_lines, "_CHUNK", chunk)
        raw = read_dump(tmp_path, reviews)
        assert raw.interactions["item"].to_list() == [str(number) for number in range(7)]


def test_no_line_is_run(tmp_path):
    made = tmp_path / "made"
    line = f"{{u'username': open({str(made)!r}, 'w'), u'product_id': u'7', u'date': u'2017-12-17'}}"
    raw = read_dump(tmp_path, [*REVIEWS, line])
    assert raw.dropped["interactions: line that is no Python dict"] == 1 and not made.exists()


def test_half_a_surrogate_pair_does_not_stop_the_reading(tmp_path):
    record = r"{u'username': u'\ud83d', u'product_id': u'7', u'date': u'2017-12-17'}"
    whole = record.replace(r"\ud83d", r"\ud83d\ude00")
    assert read_dump(tmp_path, [record, whole]).interactions["user"].to_list() == ["\ufffd", "😀"]


def test_resources_name_what_the_readers_take():
    frames = [resource.file_name for resource in resources("llara")]
    assert frames == ["Val_data.df", "Test_data.df", "id2name.txt"]
    assert [resource.url for resource in resources("ucsd")] == [
        "https://cseweb.ucsd.edu/~wckang/steam_reviews.json.gz",
        "https://cseweb.ucsd.edu/~wckang/steam_games.json.gz",
    ]
    assert all(resource.url.endswith(resource.file_name) for resource in resources("llara"))
    with pytest.raises(UserError, match="'2018' is none of llara, ucsd"):
        resources("2018")
