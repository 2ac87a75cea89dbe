import io
import re

import pytest
from rich.console import Console

from delrec_jax.analysis import blocks, plots
from delrec_jax.analysis.seed_blocks import seed_mean_blocks, seed_means
from delrec_jax.errors import UserError


def row(system, value, *, teacher="sasrec", seed=0, **changed):
    return {
        "corpus": "toy",
        "split": "leave_one_out",
        "protocol": "full",
        "system": system,
        "teacher": teacher,
        "metric": "NDCG@10",
        "value": value,
        "ci_low": 0.0,
        "ci_high": 1.0,
        "users": 50,
        "seed": seed,
    } | changed


def cells(block):
    place = block.columns.index("NDCG@10") - 1
    return {line.label: " ".join(line.cells[place]).strip() for line in block.lines}


def test_means_and_sample_deviations_by_hand():
    values = {0: 0.10, 1: 0.20, 2: 0.60}
    rows = [row("teacher", value, seed=seed) for seed, value in values.items()]
    (mean,) = seed_means(rows)
    # Mean 0.3; deviations -0.2 -0.1 0.3: (0.04 + 0.01 + 0.09) / 2 = 0.07, its root 0.2646.
    assert mean.values == pytest.approx({"NDCG@10": 0.3})
    assert mean.spreads == pytest.approx({"NDCG@10": 0.07**0.5})
    assert mean.seeds == 3
    (block,) = seed_mean_blocks(rows)
    assert cells(block) == {"Teacher (sasrec)": "0.3000 ± 0.2646"}
    assert block.lines[0].cells[0] == blocks.Cell("–")
    assert "50 test users" in block.note and "3 seeds" in block.note
    assert "sample standard deviation over seeds" in block.note


def test_one_seed_has_no_spread_and_says_so():
    (block,) = seed_mean_blocks([row("teacher", 0.25)])
    assert cells(block) == {"Teacher (sasrec)": "0.2500"}
    assert block.note.endswith("one seed.")


def test_lines_stand_teacher_by_teacher_with_popularity_first_and_the_oracle_last():
    rows = [
        row(system, value + seed / 10, teacher=teacher, seed=seed)
        for teacher in ("sasrec", "caser")
        for seed in (1, 0)
        for system, value in (("teacher_augmented", 0.4), ("teacher", 0.2))
    ]
    rows += [row("oracle", 0.5, teacher="", seed=seed) for seed in (0, 1)]
    # One row for each teacher and seed, as a run writes them: popularity knows neither.
    rows += [
        row("popularity", 0.1, teacher=teacher, seed=seed)
        for teacher in ("sasrec", "caser")
        for seed in (0, 1)
    ]
    (block,) = seed_mean_blocks(rows)
    assert list(cells(block).items()) == [
        ("Popularity", "0.1000"),
        ("Teacher (caser)", "0.2500 ± 0.0707"),
        ("Teacher + P2Rec (caser)", "0.4500 ± 0.0707"),
        ("Teacher (sasrec)", "0.2500 ± 0.0707"),
        ("Teacher + P2Rec (sasrec)", "0.4500 ± 0.0707"),
        ("Oracle", "0.5000"),
    ]
    assert "2 seeds" in block.note


def test_popularity_that_does_differ_by_seed_is_averaged_and_says_so():
    rows = [row("popularity", 0.1 + seed / 10, seed=seed) for seed in (0, 1)]
    assert cells(seed_mean_blocks(rows)[0]) == {"Popularity": "0.1500 ± 0.0707"}


def test_every_protocol_has_its_table_in_the_order_of_the_page(p2rec_rows):
    found = seed_mean_blocks(p2rec_rows[::-1])
    assert [(block.part, block.title) for block in found] == [
        ("headline", "toys · leave_one_out · full"),
        ("popularity", "toys · leave_one_out · full@head"),
        ("popularity", "toys · leave_one_out · full@tail"),
        ("popularity", "toys · leave_one_out · full@cold"),
    ]
    assert [len(block.lines) for block in found] == [1 + 3 * 5] * 4


def test_lines_fit_the_width_of_a_file_and_keep_their_spread(p2rec_rows):
    stream = io.StringIO()
    blocks.print_blocks(seed_mean_blocks(p2rec_rows)[:1], console=Console(file=stream))
    lines = [text for text in stream.getvalue().splitlines() if "shuffled text (gru4rec)" in text]
    assert len(lines) == 1
    assert len(re.findall(r"\d ±0\.\d{4}", lines[0])) == 6


def test_bars_show_every_line_of_the_table_with_its_teacher(p2rec_rows):
    means = seed_means([row for row in p2rec_rows if row["protocol"] == "full"])
    svg = plots.seed_bars(means, metric="NDCG@10", title="t")
    label = svg.split(">")[0]
    for one in means:
        assert f"{one.label} {one.values['NDCG@10']:.4f}" in label
    assert svg == plots.seed_bars(means, metric="NDCG@10", title="t")
    with pytest.raises(UserError, match="no rows with metric 'AUC'"):
        plots.seed_bars(means, metric="AUC", title="t")
