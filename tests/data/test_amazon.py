import json
from pathlib import Path

import polars as pl
import pytest
from corpus_files import dump

from delrec_jax.data.corpora import amazon
from delrec_jax.data.corpora.amazon import (
    MARKUP_TITLE,
    AmazonCorpus,
    AmazonSettings,
    read_amazon,
    resources,
)
from delrec_jax.data.corpora.amazon_categories import CATEGORIES
from delrec_jax.data.corpora.builder import read_corpus
from delrec_jax.data.corpora.tables import NO_TITLE_ROW, RulesConfig
from delrec_jax.errors import UserError

OLD_REVIEWS = [
    {"reviewerID": "A1", "asin": "B01", "reviewerName": "J. \"Doe\"", "helpful": [0, 1],
     "reviewText": "Nice.\nVery.", "overall": 5.0, "summary": "é", "unixReviewTime": 1369699200,
     "reviewTime": "05 28, 2013"},
    {"reviewerID": "A2", "asin": "B02", "overall": 2.0, "unixReviewTime": 1369612800},
    {"reviewerID": "A1", "asin": "B02", "overall": 4, "unixReviewTime": 1369612800},
    {"reviewerID": "A2", "asin": "B01", "overall": 1.0, "unixReviewTime": 1369612799},
]  # fmt: skip
META_2014 = [
    {"asin": "B01", "description": "Mom's 'best'", "title": "Dr. Bronner's Soap", "price": 7.5,
     "salesRank": {"Beauty": 402875}, "related": {"also_bought": ["B02", "B09"]},
     "brand": "Bronner", "categories": [["Beauty", "Bath", "Soaps"], ["Home"]]},
    {"asin": "B02", "imUrl": "http://example.org/x.jpg", "categories": [["Beauty"]]},
    {"asin": "B01", "title": "Again"},
]  # fmt: skip
META_2018 = [
    {"asin": "B01", "title": "Soap &amp; Water <3", "brand": "Bronner", "main_cat": "All Beauty",
     "category": ["Beauty"], "also_buy": []},
    {"asin": "B02", "title": "var aPageStart = (new Date()).getTime();", "brand": "",
     "main_cat": '<img src="http://example.org/fashion.png" alt="AMAZON FASHION"/>'},
    {"asin": "B03", "title": "Comb<span id='x'>", "brand": ["not a name"], "main_cat": None},
]  # fmt: skip
REVIEWS_2023 = [
    {"rating": 5.0, "title": "Nice", "text": "", "images": [], "asin": "B0RED",
     "parent_asin": "B0", "user_id": "AE", "timestamp": 1588687728923, "verified_purchase": True},
    {"rating": 3.0, "asin": "B1", "parent_asin": "B1", "user_id": "AE", "timestamp": 1588687728100},
    {"rating": 1.0, "asin": "B1", "parent_asin": "B1", "user_id": "AF", "timestamp": 999},
]  # fmt: skip
META_2023 = [
    {"main_category": "All Beauty", "title": "Soap", "store": "Bronner", "parent_asin": "B0",
     "features": [], "price": None, "details": {"Color": "Red"}},
    {"main_category": None, "title": "Comb", "store": None, "parent_asin": "B1"},
]  # fmt: skip


def read(folder: Path, reviews, meta, *, edition, write=json.dumps, category="Home_and_Kitchen"):
    return read_amazon(
        dump(folder / "reviews.json.gz", reviews, json.dumps),
        dump(folder / "meta.json.gz", meta, write),
        edition=edition,
        category=category,
    )


def test_2014_by_hand(tmp_path):
    raw = read(tmp_path, OLD_REVIEWS, META_2014, edition="2014", write=repr, category="Beauty")
    assert raw.name == "amazon-2014-Beauty"
    assert raw.interactions.select("user", "item", "time", "rating").rows() == [
        ("A1", "B01", 1369699200, 5.0),
        ("A2", "B02", 1369612800, 2.0),
        ("A1", "B02", 1369612800, 4.0),
        ("A2", "B01", 1369612799, 1.0),
    ]
    assert raw.interactions.schema["time"] == pl.Int64
    assert raw.items.columns == ["item", "title", "brand", "category"]
    assert raw.items.rows() == [
        ("B01", "Dr. Bronner's Soap", "Bronner", "Beauty > Bath > Soaps"),
        ("B02", "", "", "Beauty"),
    ]
    assert raw.dropped == {"items: repeated id": 1}


def test_2018_by_hand_with_titles_that_are_script_emptied(tmp_path):
    raw = read(tmp_path, OLD_REVIEWS, META_2018, edition="2018")
    assert len(raw.interactions) == 4
    assert raw.items.rows() == [
        ("B01", "Soap &amp; Water <3", "Bronner", "All Beauty"),
        ("B02", "", "", ""),
        ("B03", "", "", ""),
    ]
    assert raw.dropped == {"items: repeated id": 0, MARKUP_TITLE: 2}


def test_2023_by_hand_in_seconds_of_parent_products(tmp_path):
    raw = read(tmp_path, REVIEWS_2023, META_2023, edition="2023")
    # Within one second B1 came first.
    assert raw.interactions.select("user", "item", "time", "rating").rows() == [
        ("AE", "B1", 1588687728, 3.0),
        ("AE", "B0", 1588687728, 5.0),
        ("AF", "B1", 0, 1.0),
    ]
    assert raw.items.rows() == [("B0", "Soap", "Bronner", "All Beauty"), ("B1", "Comb", "", "")]


def test_ratings_without_text_are_read_too(tmp_path):
    ratings = tmp_path / "ratings_Beauty.csv"
    lines = ["A1,B01,5.0,1369699200", "A2,B02,x,1", "A2,B02,3", "A2,B02,3.0,1,9", ",B02,3.0,1"]
    ratings.write_text("\n".join([*lines, "A3,B02,1.0,1369699201\r\n"]))
    meta = dump(tmp_path / "meta.json.gz", META_2014, repr)
    raw = read_amazon(ratings, meta, edition="2014", category="Beauty")
    assert raw.interactions.select("user", "item", "rating", "time").rows() == [
        ("A1", "B01", 5.0, 1369699200),
        ("A3", "B02", 1.0, 1369699201),
    ]
    assert raw.dropped["interactions: line that is not user,item,rating,time"] == 4


def test_useless_lines_are_counted_by_reason(tmp_path):
    good = OLD_REVIEWS[0]
    bad = [
        '{"reviewerID": "cut',
        "[" * 100_000,
        '"text"',
        good | {"reviewerID": None},
        good | {"asin": ""},
        good | {"overall": "5"},
        good | {"overall": True},
        json.dumps(good).replace("5.0", "NaN"),
        good | {"unixReviewTime": "1369699200"},
        good | {"unixReviewTime": 1369699200000},
    ]
    raw = read(tmp_path, [*OLD_REVIEWS, *bad], META_2018, edition="2018")
    assert len(raw.interactions) == 4
    assert {reason: n for reason, n in raw.dropped.items() if reason.startswith("inter")} == {
        "interactions: line that is no JSON": 2,
        "interactions: line that is no JSON object": 1,
        "interactions: line without reviewerID": 1,
        "interactions: line without asin": 1,
        "interactions: line without a rating": 3,
        "interactions: line without a time": 2,
    }


def test_files_of_another_edition_are_refused(tmp_path):
    for edition, reviews, meta, words in (
        ("2018", OLD_REVIEWS, [repr(row) for row in META_2014], r"meta\.json\.gz, line 1: .*JSON"),
        ("2023", OLD_REVIEWS, META_2023, r"reviews\.json\.gz, line 1: line without user_id"),
        ("2014", REVIEWS_2023, META_2014, r"reviews\.json\.gz, line 1: line without reviewerID"),
    ):
        with pytest.raises(UserError, match=words):
            read(tmp_path, reviews, meta, edition=edition)


def test_the_builder_stores_what_the_reader_reads(tmp_path):
    reviews = [*OLD_REVIEWS, OLD_REVIEWS[0] | {"asin": "B77"}]
    settings = AmazonSettings(
        edition="2014",
        category="Beauty",
        reviews=dump(tmp_path / "reviews_Beauty_5.json.gz", reviews, json.dumps),
        meta=dump(tmp_path / "meta_Beauty.json.gz", META_2014, repr),
        rules=RulesConfig(min_length=2),
    )
    builder = AmazonCorpus(settings=settings, data_dir=tmp_path / "prepared")
    builder.prepare()
    corpus = read_corpus(builder)
    assert corpus.catalogue.ids == ("B01", "B02")
    assert corpus.catalogue.attributes["brand"] == ("Bronner", "")
    assert corpus.interactions.user_ids == ("A1", "A2")
    assert corpus.interactions.items.tolist() == [1, 0, 0, 1]
    assert corpus.dropped[NO_TITLE_ROW] == 1 and corpus.dropped["items: repeated id"] == 1


@pytest.mark.parametrize(
    ("edition", "category", "base", "names"),
    [
        (
            "2014",
            "Beauty",
            "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/",
            ("reviews_Beauty_5.json.gz", "meta_Beauty.json.gz"),
        ),
        (
            "2018",
            "Luxury_Beauty",
            "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2/",
            ("categoryFilesSmall/Luxury_Beauty_5.json.gz", "metaFiles2/meta_Luxury_Beauty.json.gz"),
        ),
        (
            "2023",
            "All_Beauty",
            "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/raw/",
            ("review_categories/All_Beauty.jsonl.gz", "meta_categories/meta_All_Beauty.jsonl.gz"),
        ),
    ],
)
def test_resources_are_the_files_of_each_edition(edition, category, base, names):
    found = resources(edition, category)
    assert [resource.url for resource in found] == [base + name for name in names]
    assert [resource.file_name for resource in found] == [Path(name).name for name in names]


def test_every_category_of_every_edition_is_a_named_config():
    names = [config.name for config in AmazonCorpus.BUILDER_CONFIGS]
    assert len(set(names)) == len(names) == 24 + 29 + 34
    assert {"beauty-2014", "home-and-kitchen-2014", "home-and-kitchen-2018"} <= set(names)
    for edition, categories in CATEGORIES.items():
        assert "Home_and_Kitchen" in categories
        assert all(len(resources(edition, category)) == 2 for category in categories)


@pytest.mark.parametrize(
    ("edition", "category", "nearest"),
    [
        ("2018", "Beauty", "All_Beauty"),
        ("2014", "BABY", "Baby"),
        ("2014", "Phones", "Cell_Phones_and_Accessories"),
        ("2014", "Home & Kitchen", "Home_and_Kitchen"),
        ("2023", "Ofice_Products", "Office_Products"),
        ("2018", "Amazon_Fashion", "AMAZON_FASHION"),
    ],
)
def test_an_unknown_category_is_answered_with_the_nearest(edition, category, nearest):
    with pytest.raises(UserError, match=f"'{category}' is not a category .*nearest is '{nearest}'"):
        resources(edition, category)
    with pytest.raises(UserError, match="nearest"):
        read_amazon(Path("a"), Path("b"), edition=edition, category=category)


def test_a_function_of_a_thing_is_no_script():
    for title in (
        "Rain Shower Head, Multi-Function (Chrome)",
        "Dysfunction (Explicit)",
        "TI-84 Graphing Calculator with Function (Black)",
        "Get Time <3",
    ):
        assert not amazon._MARKUP.search(title), title
    for title in ("(function () { return 1; })", "new Date().getTime()", "function a(b) {}"):
        assert amazon._MARKUP.search(title), title
