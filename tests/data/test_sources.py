import gzip
import hashlib
import zipfile
from dataclasses import replace

import pytest

from delrec_jax.data.corpora import DataConfig, download, movielens, prepare_corpus
from delrec_jax.data.corpora.resource import Resource
from delrec_jax.data.corpora.sources import find_source
from delrec_jax.errors import UserError


def movielens_zip(path):
    """Three users of five films each, in the layout of ml-1m.zip."""
    movies = "".join(f"{n}::Film {n} ({1990 + n})::Drama|War\n" for n in range(1, 6))
    ratings = "".join(
        f"{u}::{n}::{1 + n % 5}::{1000 * u + n}\n" for u in (1, 2, 3) for n in range(1, 6)
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ml-1m/movies.dat", movies)
        archive.writestr("ml-1m/ratings.dat", ratings)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def movielens_at_hand(tmp_path, monkeypatch):
    folder = tmp_path / "raw"
    folder.mkdir()
    digest = movielens_zip(folder / "ml-1m.zip")
    resource = Resource("http://127.0.0.1:9/ml-1m.zip", "ml-1m.zip", digest)
    monkeypatch.setattr(movielens, "resources", lambda edition: (resource,))
    return DataConfig(corpus="movielens", edition="1m", manual_dir=str(folder))


def test_movielens_from_files_at_hand_to_a_corpus(tmp_path, movielens_at_hand):
    corpus = prepare_corpus(movielens_at_hand, tmp_path / "data")
    assert corpus.name == "ml-1m"
    assert corpus.catalogue.titles[0] == "Film 1 (1991)"
    assert corpus.interactions.lengths.tolist() == [5, 5, 5]
    rated = replace(movielens_at_hand, min_rating=3, min_length=1)
    assert prepare_corpus(rated, tmp_path / "data").interactions.lengths.tolist() == [3, 3, 3]


def test_each_edition_has_a_cache_of_its_own(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        download, "fetch", lambda resource, cache, manual_dir: asked.append(cache) or cache / "x"
    )
    for edition in ("2014", "2018"):
        config = DataConfig(
            corpus="amazon", edition=edition, category="Books", download_dir=str(tmp_path)
        )
        find_source(config)
    assert set(asked) == {tmp_path / "amazon-2014", tmp_path / "amazon-2018"}


def test_llara_takes_the_frames_that_are_at_hand(tmp_path):
    config = DataConfig(corpus="steam", edition="llara", manual_dir=str(tmp_path))
    (tmp_path / "id2name.txt").write_text("0::Chess\n")
    with pytest.raises(UserError, match=r"data\.manual_dir = .* at least one of Val_data\.df"):
        find_source(config)
    with gzip.open(tmp_path / "Val_data.df.gz", "wb") as file:
        file.write(b"frame")
    source = find_source(config)
    assert [path.name for path in source.files] == ["Val_data.df.gz", "id2name.txt"]
    (tmp_path / "id2name.txt").unlink()
    with pytest.raises(UserError, match=r"needs id2name\.txt"):
        find_source(config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"corpus": "movielens"}, r"data\.edition: '' is none of 100k, 1m"),
        ({"corpus": "steam", "edition": "2018"}, r"data\.edition: '2018' is none of llara, ucsd"),
        ({"corpus": "amazon", "edition": "2019"}, r"'2019' is none of 2014, 2018, 2023"),
        (
            {"corpus": "amazon", "edition": "2014", "category": "Beuty"},
            r"data\.category: 'Beuty' .* nearest is 'Beauty'",
        ),
        (
            {"corpus": "movielens", "edition": "1m", "category": "Books"},
            r"data\.category = 'Books' has no effect on data\.corpus = 'movielens'",
        ),
        ({"corpus": "csv", "path": "nowhere"}, r"data\.path: 'nowhere' is not a folder"),
        (
            {"corpus": "atomic", "path": "x", "repeats": "frist"},
            r"data\.repeats = 'frist': is none of first, last, keep",
        ),
        (
            {"corpus": "movielens", "edition": "1m", "manual_dir": "nowhere"},
            r"nowhere.*ml-1m\.zip",
        ),
    ],
)
def test_settings_that_lead_to_no_files_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        find_source(DataConfig(**settings))


def test_a_csv_pair_to_a_corpus(tmp_path):
    home = tmp_path / "shop"
    home.mkdir()
    (home / "items.csv").write_text('item,title\na,"Bolts, short"\nb,Nuts\nc,Glue\n')
    rows = [f"{user},{item},{1_600_000_000 + n}" for user in "uv" for n, item in enumerate("abc")]
    (home / "interactions.csv").write_text("user,item,time\n" + "\n".join(rows) + "\n")
    corpus = prepare_corpus(DataConfig(corpus="csv", path=str(home)), tmp_path / "data")
    assert corpus.catalogue.titles == ("Bolts, short", "Nuts", "Glue")
    assert corpus.interactions.history(1).tolist() == [0, 1, 2]
