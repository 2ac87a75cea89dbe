from pathlib import Path

import polars as pl
import pytest
from corpus_files import dump, python2_repr, save_columns

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


def write_names(folder: Path, text=NAMES):
    (folder / "id2name.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / "id2name.txt"


def read_dump(folder: Path, reviews=REVIEWS, games=GAMES):
    return read_ucsd(
        dump(folder / "reviews.json.gz", reviews, python2_repr),
        dump(folder / "games.json.gz", games, python2_repr),
    )


def stored(folder: Path, edition: str, files, *, min_length: int):
    settings = SteamSettings(edition, files, RulesConfig(min_length=min_length))
    builder = SteamCorpus(settings=settings, data_dir=folder / "prepared")
    builder.prepare()
    return read_corpus(builder)


def test_each_row_of_a_frame_is_a_window(tmp_path):
    columns = {"Val_data.df": VAL, "Test_data.df": TEST}
    frames = [save_columns(tmp_path / name, frame) for name, frame in columns.items()]
    raw = read_llara(frames, write_names(tmp_path))
    assert raw.name == "steam-llara" and not raw.dropped
    assert raw.interactions.schema == {"user": pl.String, "item": pl.String, "time": pl.Int64}
    windows = {
        "val-0000000": "012",
        "val-0000001": "20101",
        "test-0000000": "10",
        "test-0000001": "2",
    }
    assert raw.interactions.rows() == [
        (user, item, place) for user, items in windows.items() for place, item in enumerate(items)
    ]
    assert raw.items["item"].to_list() == ["0", "1", "2"]
    assert raw.items["title"].to_list() == ["Portal", "Fear :: Knossos", "Half-Life &amp; Co"]


def test_the_builder_stores_llaras_windows_as_an_order_without_times(tmp_path):
    files = (
        save_columns(tmp_path / "Test_data.df", TEST),
        save_columns(tmp_path / "Val_data.df", VAL),
        write_names(tmp_path),
    )
    corpus = stored(tmp_path, "llara", files, min_length=1)
    users = [f"{split}-000000{row}" for split in ("test", "val") for row in (0, 1)]
    assert list(corpus.interactions.user_ids) == users
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
def test_a_row_that_is_no_window_is_named(tmp_path, changes):
    path = save_columns(tmp_path / "Val_data.df", VAL | changes)
    with pytest.raises(
        UserError, match=r"Val_data\.df, row [01]: .*numbers from 0 to 2, "
    ) as error:
        read_llara([path], write_names(tmp_path))
    assert "\n" not in str(error.value)


def test_frames_must_have_their_columns_and_a_name_that_tells_the_split(tmp_path):
    names = write_names(tmp_path)
    short = save_columns(tmp_path / "Val_data.df", {"seq": [[0]], "next": [1]})
    with pytest.raises(UserError, match=r"Val_data\.df: no column 'len_seq' among"):
        read_llara([short], names)
    other = save_columns(tmp_path / "frame.df", VAL)
    with pytest.raises(UserError, match=r"frame\.df: .* val, test, then"):
        read_llara([other], names)
    training = save_columns(tmp_path / "train_data.df", VAL)
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
    reviews = [*REVIEWS, REVIEWS[0] | {"product_id": "99"}]
    files = (
        dump(tmp_path / "steam_reviews.json.gz", reviews, python2_repr),
        dump(tmp_path / "steam_games.json.gz", GAMES, python2_repr),
    )
    corpus = stored(tmp_path, "ucsd", files, min_length=2)
    assert corpus.interactions.user_ids == ("Ann O'Nym",)
    titles = [corpus.catalogue.titles[item] for item in corpus.interactions.items]
    assert titles == ["Opposing Force", "Half-Life"]
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
