import zipfile
from pathlib import Path

import polars as pl
import pytest

from delrec_jax.data.corpora.movielens import read_movielens, resources
from delrec_jax.errors import UserError

# One more than float32 can tell apart: 874965758 and 874965759 are one number to it.
U_DATA = "7\t2\t5\t874965759\n9\t1\t3\t874965758\n7\t1\t4\t874965758\n9\t3\t1\t874965700\n"
RATINGS_DAT = "1::2::5::978300760\n1::1::3::978302109\n2::2::4::978298413\n"
MOVIES_DAT = (
    "1::Bienvenue, M. Élan (1985)::Animation|Children's|Comedy\n2::Plain: A Story (1961)::Drama\n"
)


def flags(*genres):
    """The 19 columns of u.item: unknown, Action, Adventure, Animation, ..., Western."""
    return "|".join("1" if number in genres else "0" for number in range(19))


U_ITEM = (
    f"1|Élan, The (1995)|01-Jan-1995||http://example.org/?q=1|{flags(3, 4, 15)}\n"
    f"2|Late, Le|14-Feb-1997|||{flags(18)}\n"
    f"3|unknown||||{flags(0)}\n"
)


def pack(folder: Path, edition: str, **changes) -> Path:
    """An archive in the layout of GroupLens', with some members changed."""
    texts = {
        "100k": {"u.data": U_DATA, "u.item": U_ITEM, "README": "Read me."},
        "1m": {"ratings.dat": RATINGS_DAT, "movies.dat": MOVIES_DAT, "README": "Read me."},
    }[edition]
    path = folder / f"ml-{edition}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in (texts | changes).items():
            archive.writestr(f"ml-{edition}/{name}", text.encode("latin-1"))
    return path


def test_100k_by_hand(tmp_path):
    raw = read_movielens(pack(tmp_path, "100k"), "100k")
    assert raw.name == "ml-100k" and not raw.dropped
    assert raw.interactions.dtypes == [pl.String, pl.String, pl.Int64, pl.Float64]
    assert raw.interactions.rows() == [
        ("7", "2", 874965759, 5.0),
        ("9", "1", 874965758, 3.0),
        ("7", "1", 874965758, 4.0),
        ("9", "3", 874965700, 1.0),
    ]
    assert raw.items.columns == ["item", "title", "genre", "year"]
    assert raw.items.rows() == [
        ("1", "Élan, The (1995)", "Animation Children's Sci-Fi", "1995"),
        ("2", "Late, Le", "Western", "1997"),
        ("3", "unknown", "", ""),
    ]


def test_1m_by_hand(tmp_path):
    raw = read_movielens(pack(tmp_path, "1m"), "1m")
    assert raw.name == "ml-1m"
    assert raw.interactions.rows() == [
        ("1", "2", 978300760, 5.0),
        ("1", "1", 978302109, 3.0),
        ("2", "2", 978298413, 4.0),
    ]
    assert raw.items.rows() == [
        ("1", "Bienvenue, M. Élan (1985)", "Animation Children's Comedy", "1985"),
        ("2", "Plain: A Story (1961)", "Drama", "1961"),
    ]


@pytest.mark.parametrize(
    ("edition", "changes", "words"),
    [
        ("100k", {"u.data": U_DATA.replace("\t3\t", "\tx\t")}, ("u.data, line 2", "rating", "'x'")),
        ("100k", {"u.data": U_DATA + "9\t\t1\t5\n"}, ("u.data, line 5", "item", "empty")),
        ("100k", {"u.item": U_ITEM + "4|Short\n"}, ("u.item, line 4", "2 '|'-separated")),
        ("100k", {"u.item": U_ITEM.replace("3|", "2|")}, ("u.item, line 3", "'2'", "already")),
        ("100k", {"u.item": f"4|T|||u|{flags()[:-1]}2\n"}, ("line 1", "Western", "'2'")),
        ("1m", {"ratings.dat": "1::2::5::soon\n"}, ("ratings.dat, line 1", "time", "'soon'")),
        ("1m", {"movies.dat": MOVIES_DAT + "3:Cut\n"}, ("movies.dat, line 3", "'::'-separated")),
    ],
)
def test_faults_are_named_by_member_and_line(tmp_path, edition, changes, words):
    archive = pack(tmp_path, edition, **changes)
    with pytest.raises(UserError) as error:
        read_movielens(archive, edition)
    for word in (str(archive), *words):
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_the_archive_of_the_other_edition_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no member 'ml-1m/ratings.dat'"):
        read_movielens(pack(tmp_path, "100k"), "1m")


def test_resources_are_grouplens_archives_with_checksums():
    digests = set()
    for edition in ("100k", "1m"):
        (resource,) = resources(edition)
        assert resource.file_name == f"ml-{edition}.zip"
        assert resource.url == f"https://files.grouplens.org/datasets/movielens/ml-{edition}.zip"
        digests.add(bytes.fromhex(resource.sha256))
    assert [len(digest) for digest in digests] == [32, 32]
