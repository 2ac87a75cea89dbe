import re
from dataclasses import asdict, replace

import numpy as np
import pytest

from delrec_jax.analysis.embedding_map import EmbeddingMap
from delrec_jax.analysis.report import ReportData, render_report
from delrec_jax.analysis.seed_blocks import seed_means
from delrec_jax.p2rec.comparison import compare_augmentations


@pytest.fixture(scope="module")
def data(p2rec_records, p2rec_rows):
    parts = ("all", "head", "tail", "cold")
    family = compare_augmentations(p2rec_records, "NDCG@10", parts=parts, resamples=999)
    generator = np.random.default_rng(0)
    groups = np.arange(300) % 8
    points = generator.normal(0, 1, (300, 2)) + 5 * generator.normal(0, 1, (8, 2))[groups]
    return ReportData(
        title="P2Rec on toys",
        summary={"Corpus": "toys", "Teachers": "sasrec, gru4rec, caser", "Seeds": "0, 1, 2"},
        metrics=p2rec_rows,
        command="delrec run --config=configs/p2rec/toys.py --workdir=runs/toys",
        config={"parse": {"categories": 8}},
        comparisons=[asdict(one) for one in family],
        categories=[
            {"category": k, "size": 40 - k, "share": 0.3 - k / 30, "titles": ["A <b> & c", f"T{k}"]}
            for k in range(8)
        ],
        maps=[EmbeddingMap("Teacher's items", points, groups, note="t-SNE of sasrec's <items>")],
        over_seeds=True,
    )


@pytest.fixture(scope="module")
def page(data):
    return render_report(data)


def section(page, name):
    return page[page.index(f'<h2 id="{name}">') :].split("<h2 ", 2)[1]


def test_headline_tables_come_before_those_by_popularity_then_tests_and_categories(page):
    assert re.findall(r'<h2 id="(\w+)">', page) == [
        "headline",
        "popularity",
        "tests",
        "categories",
        "reproduce",
    ]
    links = re.findall(r'<a href="#(\w+)">', page)
    assert links == ["headline", "popularity", "tests", "categories", "reproduce"]
    assert section(page, "popularity").count("<h3>") == 3


def test_tables_and_the_one_picture_of_bars_are_of_means_over_seeds(page, p2rec_rows):
    table = section(page, "headline")
    assert table.count("<svg ") == 1 and "± 0.0" in table
    mean = seed_means([row for row in p2rec_rows if row["protocol"] == "full"])[2]
    assert mean.label == "Teacher + P2Rec (caser)"
    assert f"{mean.label} {mean.values['NDCG@10']:.4f}" in table
    assert f"<td>{mean.values['NDCG@10']:.4f}<span" in table


def test_categories_have_their_map_their_titles_and_no_markup_of_the_user(page):
    text = section(page, "categories")
    assert text.count("<svg ") == 1
    assert "t-SNE of sasrec&#39;s &lt;items&gt;</figcaption>" in text
    rows = re.findall(
        r"<tr><th scope=\"row\">(\d+)</th><td>(\d+)</td><td>(.*?)</td><td>(.*?)</td></tr>", text
    )
    assert rows[0] == ("0", "40", "30.0 %", "A &lt;b&gt; &amp; c · T0")
    assert rows[7] == ("7", "33", "6.7 %", "A &lt;b&gt; &amp; c · T7")


def test_a_page_without_categories_and_maps_has_no_word_of_them(data):
    page = render_report(replace(data, categories=(), maps=())).split("</style>")[1]
    assert "categories" not in page.split('<h2 id="reproduce">')[0]
    only_map = render_report(replace(data, categories=()))
    assert "<figcaption" in only_map and "Share of training" not in only_map
    only_table = render_report(replace(data, maps=()))
    assert "<figcaption" not in only_table and "Share of training" in only_table


def test_the_page_of_one_run_is_not_touched(report_data):
    page = render_report(report_data).split("</style>")[1]
    for stranger in ("teacher_augmented", "P2Rec", "categories", "±"):
        assert stranger not in page
