import datetime
import os
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delrec_jax.data.corpora.csv_pair import csv_paths, read_csv_pair
from delrec_jax.data.corpora.csv_times import read_times
from delrec_jax.data.corpora.text_table import TextTable
from delrec_jax.errors import UserError

INTERACTIONS = """\
user,item,time,rating,note
ann,a,2020-01-02,5,
bob,b,2020-01-01,3.5,"quoted, with a comma"
ann,b,2020-01-01,4,
bob,a,2020-01-03,1,
"""
ITEMS = """\
item,title,year,shelf
a,"Bread, ""dark"" rye",1999,food
b,Rake,,garden
c,,2001,
"""
DAY = 86_400
NEW_YEAR_2020 = 18_262 * DAY


def write(folder: Path, interactions=INTERACTIONS, items=ITEMS):
    home = folder / "shop"
    home.mkdir(exist_ok=True)
    for name, text in (("interactions.csv", interactions), ("items.csv", items)):
        (home / name).write_text(text)
    return csv_paths(str(home))


def read_times_of(folder, *times, header="time"):
    rows = "".join(f"u,a,{time}\n" for time in times)
    return (
        read_csv_pair(*write(folder, f"user,item,{header}\n{rows}")).interactions["time"].to_list()
    )


def test_a_pair_by_hand(tmp_path):
    raw = read_csv_pair(*write(tmp_path))
    assert raw.name == "shop" and not any(raw.dropped.values())
    assert raw.interactions.columns == ["user", "item", "time", "rating"]
    assert raw.interactions.dtypes == [pl.String, pl.String, pl.Int64, pl.Float64]
    assert raw.interactions.rows() == [
        ("ann", "a", NEW_YEAR_2020 + DAY, 5.0),
        ("bob", "b", NEW_YEAR_2020, 3.5),
        ("ann", "b", NEW_YEAR_2020, 4.0),
        ("bob", "a", NEW_YEAR_2020 + 2 * DAY, 1.0),
    ]
    assert raw.items.columns == ["item", "title", "year", "shelf"]
    assert raw.items.rows() == [
        ("a", 'Bread, "dark" rye', "1999", "food"),
        ("b", "Rake", "", "garden"),
        ("c", "", "2001", ""),
    ]


@pytest.mark.parametrize(
    "header",
    ["userId,movieId,timestamp", "USER_ID,item_id,ts", "uid,product-id,date", "User,Item,Time"],
)
def test_usual_names_of_columns_are_understood(tmp_path, header):
    items = "movieId,name,release_year,title_length\na,Rake,1999,4\n"
    raw = read_csv_pair(*write(tmp_path, f"{header}\nann,a,2020-01-01\n", items))
    assert raw.interactions.rows() == [("ann", "a", NEW_YEAR_2020)]
    assert raw.items.columns == ["item", "title", "year", "title_length"]
    assert raw.items.rows() == [("a", "Rake", "1999", "4")]


def test_a_row_may_have_no_rating(tmp_path):
    raw = read_csv_pair(*write(tmp_path, "user,item,time,rating\nann,a,1,\nann,b,2, 4\n"))
    assert raw.interactions["rating"].to_list() == [None, 4.0]
    with pytest.raises(UserError, match=r"line 3, column 'rating': 'inf' is no rating"):
        read_csv_pair(*write(tmp_path, "user,item,time,rating\nann,a,1,\nann,b,2,inf\n"))


def test_the_plain_name_goes_before_its_aliases(tmp_path):
    files = write(
        tmp_path,
        "userid,user,item,asin,time,date,stars\n1,ann,a,B01,7,2020-01-01,5\n",
        "item,title,name\na,Rake,garden rake\n",
    )
    raw = read_csv_pair(*files)
    assert raw.interactions.rows() == [("ann", "a", 7, 5.0)]
    assert raw.interactions.schema["rating"] == pl.Float64  # a whole number of stars too
    assert raw.items.rows() == [("a", "Rake", "garden rake")]


@pytest.mark.parametrize(
    ("times", "seconds"),
    [
        (("0", "1", "2"), [0, 1, 2]),
        (("20200131", "20200199"), [20200131, 20200199]),  # eight digits, but one is no day
        (("881250949", "893286638"), [881250949, 893286638]),
        (("881250949.0", "893286638.0"), [881250949, 893286638]),
        (("881250949999", "893286638000"), [881250949, 893286638]),
        (("881250949999999",), [881250949]),
        (("881250949999999999",), [881250949]),
        (("2020-01-01", "2020-01-01T00:01", "2020-01-01 00:01:01.5"), [0, 60, 61]),
        (("2020-01-01T02:00:00+02:00", "2019-12-31T19:00-0530", "2020-01-01T00:00Z"), [0, 1800, 0]),
        (("2020-02-29", "1969-12-31"), [59 * DAY, -NEW_YEAR_2020 - DAY]),
    ],
)
def test_times_become_seconds(tmp_path, times, seconds):
    start = NEW_YEAR_2020 if "-" in times[0] else 0
    assert read_times_of(tmp_path, *times) == [start + second for second in seconds]


def test_rounding_to_seconds_keeps_the_order_within_one(tmp_path):
    rows = "ann,b,2020-01-01T00:00:00.9\nann,a,2020-01-01T00:00:00.12\n"
    raw = read_csv_pair(*write(tmp_path, "user,item,time\n" + rows))
    assert raw.interactions.rows() == [("ann", "a", NEW_YEAR_2020), ("ann", "b", NEW_YEAR_2020)]


@given(
    moment=st.datetimes(datetime.datetime(1900, 1, 2), datetime.datetime(2099, 12, 30)),
    minutes=st.integers(-14 * 60, 14 * 60),
    form=st.sampled_from(["T", " "]),
)
def test_dates_read_as_the_standard_library_reads_them(moment, minutes, form):
    zone = datetime.timezone(datetime.timedelta(minutes=minutes))
    written = [moment.isoformat(form), moment.isoformat(form, "minutes"), moment.date().isoformat()]
    epoch, microsecond = (
        datetime.datetime.fromtimestamp(0, datetime.UTC),
        datetime.timedelta(0, 0, 1),
    )
    for cells in (written, [moment.replace(tzinfo=zone).isoformat(form)]):
        frame, lines = pl.DataFrame({"t": cells}), pl.Series(range(2, 2 + len(cells)))
        table = TextTable("x.csv", frame, lines=lines, unfinished=False)
        moments = [datetime.datetime.fromisoformat(cell) for cell in cells]
        moments = [m if m.tzinfo else m.replace(tzinfo=datetime.UTC) for m in moments]
        micros, per_second = read_times(table, "t", is_date=True)
        assert per_second == 10**6
        assert micros.to_list() == [(m - epoch) // microsecond for m in moments]


@pytest.mark.parametrize(
    ("header", "times", "words"),
    [
        ("time", ("1", "2020-01-01"), ("line 3", "'time'", "'2020-01-01'")),
        ("time", ("2020-01-01", "1577836800"), ("line 3", "'1577836800'", "not a date")),
        ("time", ("2020-01-01", "2020-02-30"), ("line 3", "'2020-02-30'", "not a date")),
        ("time", ("2020-01-01T24:00",), ("line 2", "not a date")),
        ("time", ("2010", "2013"), ("line 2", "a date without separators")),
        ("time", ("202401", "202312"), ("line 2", "a date without separators")),
        ("time", ("2020-01-01", "0001-01-01T00:00:00"), ("line 3", "not a time from 1900")),
        ("time", ("9999-12-31", "2020-01-01"), ("line 2", "not a time from 1900 to 2099")),
        ("time", ("2020-01-01T10:00", "2020-01-01T10:00Z"), ("line 3", "time zone")),
        ("ts", ("881250949", "881250949000"), ("line 3", "'ts'", "in seconds")),
        ("ts", ("881250949000", "881250949"), ("line 3", "1973 to 2099 in milliseconds")),
        ("ts", ("5000000000",), ("line 2", "milliseconds")),
        ("ts", ("1", "-1"), ("line 3", "'-1'", "1970")),
        ("ts", ("1", "nan"), ("line 3", "'nan'", "finite")),
        ("ts", ("20200131", "19991231"), ("line 2", "a date without separators")),
        ("time", ("28012020", "11082020"), ("line 2", "a date without separators")),
        ("time", ("8012020", "11082020"), ("line 2", "a date without separators")),
        ("time", ("202001011200", "202001011230"), ("line 2", "a date without separators")),
        ("time", ("311220", "010120"), ("line 3", "a date without separators")),
        ("date", ("2019", "2020"), ("line 2", "'2019'", "1973")),
        ("ts", ("9" * 30,), ("line 2", "nanoseconds")),
        ("ts", ("01/02/2020",), ("line 2", "'01/02/2020'")),
        ("ts", ("1", ""), ("line 3", "empty cell")),
    ],
)
def test_a_time_that_could_mean_two_things_is_refused(tmp_path, header, times, words):
    with pytest.raises(UserError) as error:
        read_times_of(tmp_path, *times, header=header)
    for word in (str(tmp_path / "shop" / "interactions.csv"), *words):
        assert word in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("interactions", "items", "words"),
    [
        ("user,item\na,b\n", ITEMS, ("interactions.csv, line 1", "no column 'time'")),
        ("user;item;time\na;b;1\n", ITEMS, ("interactions.csv, line 1", "commas")),
        ("user,item,ts,date\na,b,1,2\n", ITEMS, ("line 1", "'ts', 'date'", "right one 'time'")),
        ("user,item,time\na,b,1,2\n", ITEMS, ("interactions.csv, line 2", "4 comma-")),
        ("user,item,time,stars\na,b,1,x\n", ITEMS, ("line 2", "'stars'", "'x'")),
        (INTERACTIONS, "item,shelf\na,x\n", ("items.csv, line 1", "no column 'title'")),
        (INTERACTIONS, ITEMS + "a,Twice,,\n", ("items.csv, line 5", "'a'", "already")),
        ("user,item,time\na,b,1\na ,b,2\n", ITEMS, ("line 3, column 'user': 'a '", "white space")),
        (INTERACTIONS, ITEMS + " a,Twice,,\n", ("line 5, column 'item': ' a'", "white space")),
    ],
)
def test_faults_are_named_by_file_and_line(tmp_path, interactions, items, words):
    files = write(tmp_path, interactions, items)
    with pytest.raises(UserError) as error:
        read_csv_pair(*files)
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_the_path_must_be_a_folder_with_both_files(tmp_path):
    for path in ("", str(tmp_path / "missing")):
        with pytest.raises(UserError, match=r"not a folder; .* interactions\.csv and items\.csv"):
            csv_paths(path)
    files = write(tmp_path)
    files[1].unlink()
    with pytest.raises(UserError, match=r"items\.csv: no such file"):
        read_csv_pair(*files)


def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path):
    interactions, items = write(tmp_path)
    interactions.unlink()
    os.mkfifo(interactions)
    with pytest.raises(UserError, match=r"interactions\.csv: a pipe or a device; give a file"):
        read_csv_pair(interactions, items)


def test_a_home_that_nobody_has_is_told():
    with pytest.raises(UserError, match="~nobody-here/shop: there is no such home directory"):
        csv_paths("~nobody-here/shop")


def test_further_names_count_where_no_usual_one_is_there(tmp_path):
    raw = read_csv_pair(
        *write(
            tmp_path,
            "user_id,artist_id,created_at\nu,a,2020-01-01\n",
            "artist_id,artist_name\na,Abba\n",
        )
    )
    assert raw.interactions["item"].to_list() == ["a"] and raw.items["title"].to_list() == ["Abba"]
    songs = "item_id,title,artist_id\na,Waterloo,abba\n"
    raw = read_csv_pair(*write(tmp_path, "user_id,item_id,time\nu,a,2020-01-01\n", songs))
    assert raw.items.columns == ["item", "title", "artist_id"]  # an attribute there


@pytest.mark.parametrize("odd", ["ann\u200b", "\ufeffann", "a\u00adnn", "a\u2060nn"])
def test_a_character_that_nobody_sees_makes_no_other_user(tmp_path, odd):
    rows = f"user,item,time\nann,a,1\n{odd},b,2\n"
    with pytest.raises(UserError, match=r"line 3, column 'user': .*that cannot be seen"):
        read_csv_pair(*write(tmp_path, rows))


def test_two_ids_of_an_item_are_not_chosen_from(tmp_path):
    reviews = "user_id,asin,parent_asin,timestamp\nu,red,shirt,1600000000\n"
    with pytest.raises(UserError, match="could each be the item"):
        read_csv_pair(*write(tmp_path, reviews, "parent_asin,title\nshirt,Shirt\n"))


@pytest.mark.parametrize(
    ("name", "marks"),
    [
        *(("label", "01"), ("is_click", "10"), ("Clicked", "00"), ("label", ("1.0", "0.0"))),
        *(("clicked", ("True", "False")), ("click", ("no", "no")), ("label", ("T", "f"))),
    ],
)
def test_items_that_were_only_shown_are_refused(tmp_path, name, marks):
    rows = "".join(
        f"u,{item},{day},{mark}\n" for day, (item, mark) in enumerate(zip("ab", marks, strict=True))
    )
    with pytest.raises(UserError, match=rf"column '{name}' marks rows with (0|0\.0|false|no|f),"):
        read_csv_pair(*write(tmp_path, f"user,item,time,{name}\n{rows}"))


@pytest.mark.parametrize(
    ("name", "marks"), [("label", "11"), ("label", "02"), ("shown", "01"), ("label", "ab")]
)
def test_other_marks_are_left_alone(tmp_path, name, marks):
    rows = "".join(
        f"u,{item},{day},{mark}\n" for day, (item, mark) in enumerate(zip("ab", marks, strict=True))
    )
    assert len(read_csv_pair(*write(tmp_path, f"user,item,time,{name}\n{rows}")).interactions) == 2
