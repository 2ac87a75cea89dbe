import io
import json
from dataclasses import asdict

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from delrec_jax.analysis import blocks, tables
from delrec_jax.analysis.comparison_blocks import comparison_block
from delrec_jax.errors import UserError
from delrec_jax.evaluation.significance import compare_family
from delrec_jax.evaluation.systems import SYSTEMS
from delrec_jax.p2rec.comparison import compare_augmentations


def pick(rows, **wanted):
    found = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    assert len(found) == 1, (wanted, len(found))
    return found[0]


def test_rows_have_exactly_the_agreed_keys_and_every_part(rows):
    assert all(tuple(row) == tables.ROW_KEYS for row in rows)
    assert {row["protocol"] for row in rows} == {
        f"{name}{part}"
        for name in ("full", "sampled-20", "rerank-20")
        for part in ("", "@cold", "@warm")
    }
    assert {row["split"] for row in rows} == {"leave_one_out"}


def test_values_are_means_over_the_right_users(rows, records):
    ranks = records.filter(system="delrec", protocol="full")
    main = {"split": "leave_one_out", "system": "delrec", "metric": "HR@1"}
    for protocol, part in (
        ("full", ranks),
        ("full@cold", ranks.filter("cold")),
        ("full@warm", ranks.filter(~pl.col("cold"))),
    ):
        row = pick(rows, protocol=protocol, **main)
        assert row["value"] == pytest.approx((part["rank"] == 1).mean())
        assert row["users"] == len(part)
        assert row["ci_low"] <= row["value"] <= row["ci_high"]


def test_the_oracle_comes_from_expected_values_and_not_from_its_ranks(rows, records, expected):
    realised = records.filter(system="delrec").with_columns(
        pl.lit("oracle").alias("system"), pl.lit(1.0).alias("rank")
    )
    again = tables.metrics_rows(pl.concat([records, realised]), expected)
    assert again == rows
    row = pick(rows, protocol="full@cold", system="oracle", metric="MRR")
    cold = expected.filter(pl.col("cold") & (pl.col("metric") == "MRR"))
    assert row["value"] == pytest.approx(cold["value"].mean())
    without = tables.metrics_rows(pl.concat([records, realised]))
    assert "oracle" not in {row["system"] for row in without}


def test_no_cold_targets_means_no_parts(records):
    warm = records.with_columns(pl.lit(False).alias("cold"))
    assert not [row for row in tables.metrics_rows(warm) if "@" in row["protocol"]]


def test_by_popularity_head_and_tail_stand_in_the_place_of_warm(rows, records, expected):
    by_popularity = tables.metrics_rows(records, expected, by_popularity=True)
    protocols = {row["protocol"] for row in by_popularity}
    assert protocols == {
        f"{name}{part}"
        for name in ("full", "sampled-20", "rerank-20")
        for part in ("", "@head", "@tail", "@cold")
    }
    asked = {row["protocol"] for row in by_popularity if row["system"] == "oracle"}
    assert asked == {"full", "full@cold"}
    # The other rows are those of a call without: nothing else moves.
    same = [row for row in rows if not row["protocol"].endswith("@warm")]
    assert [row for row in by_popularity if not row["protocol"].endswith(("head", "tail"))] == same

    ranks = records.filter(system="delrec", protocol="full")
    main = {"split": "leave_one_out", "system": "delrec", "metric": "HR@1"}
    tail = ranks.filter(pl.col("user") % 10 > 2, pl.col("user") % 10 < 7)
    for protocol, part in (
        ("full@head", ranks.filter(pl.col("user") % 10 > 6)),
        ("full@tail", tail),
    ):
        row = pick(by_popularity, protocol=protocol, **main)
        assert row["value"] == pytest.approx((part["rank"] == 1).mean())
        assert row["users"] == len(part) == {"full@head": 36, "full@tail": 48}[protocol]


def test_without_cold_targets_head_and_tail_are_all(records):
    warm = records.with_columns(pl.lit(False).alias("cold"))
    found = tables.metrics_rows(warm, by_popularity=True)
    assert {row["protocol"] for row in found} >= {"full", "full@head", "full@tail"}
    assert not [row for row in found if row["protocol"].endswith(("cold", "warm"))]


def test_an_oracle_of_mixed_runs_is_refused(records, expected):
    mixed = pl.concat([records, records.with_columns(pl.lit(9, pl.Int64).alias("seed"))])
    with pytest.raises(UserError, match="mix 2 runs"):
        tables.metrics_rows(mixed, expected)
    with pytest.raises(UserError, match="no rows"):
        tables.metrics_rows(records.clear())


def test_metrics_json_is_bit_identical_for_equal_runs(tmp_path, records, expected):
    shuffled = records.sample(fraction=1, shuffle=True, seed=4)
    for name, table, step in (("a", records, 1), ("b", shuffled, -1)):
        rows = tables.metrics_rows(table, expected)[::step]
        tables.write_metrics_json(tmp_path / name, rows)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_metrics_json_round_trip_and_its_errors(tmp_path, rows):
    path = tmp_path / "metrics.json"
    tables.write_metrics_json(path, rows)
    assert tables.read_metrics_json(path) == rows == json.loads(path.read_text())
    with pytest.raises(UserError, match=r"row 0.*seed"):
        tables.write_metrics_json(path, [{k: v for k, v in rows[0].items() if k != "seed"}])
    with pytest.raises(UserError, match=r"row 1.*extra"):
        tables.write_metrics_json(path, [rows[0], rows[0] | {"extra": 1}])
    assert tables.read_metrics_json(path) == rows
    for text, message in (("[{]", "not JSON"), ("{}", "expected a list"), ("[3]", "row 0")):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            tables.read_metrics_json(path)
    with pytest.raises(UserError, match="no such file"):
        tables.read_metrics_json(tmp_path / "none.json")


def test_training_logs_name_the_broken_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"run": "a", "step": 1, "loss": 2}\n{"run": "a", "step": 2}\n')
    assert [row["step"] for row in tables.read_log(path)] == [1, 2]
    for broken in ('{"run": "a", "st', '{"run": "a"}', "7"):
        path.write_text('{"run": "a", "step": 1}\n' + broken)
        with pytest.raises(UserError, match=r"metrics\.jsonl, line 2"):
            tables.read_log(path)
    with pytest.raises(UserError, match="no such training log"):
        tables.read_log(tmp_path / "none")


def test_blocks_follow_the_order_of_parts_protocols_and_systems(rows):
    found = blocks.result_blocks(rows)
    names = [(block.part, block.title.split(" · ")[2]) for block in found]
    assert names[:4] == [
        ("headline", "full"),
        ("headline", "sampled-20"),
        ("headline", "rerank-20"),
        ("cold", "full@cold"),
    ]
    there = {row["system"] for row in rows}
    assert [line.name for line in found[0].lines] == [name for name in SYSTEMS if name in there]
    assert blocks.whole_protocols(rows) == ["full", "sampled-20", "rerank-20"]


def test_share_of_the_oracle_stands_only_where_there_is_one(rows):
    full, sampled = blocks.result_blocks(rows)[:2]
    assert full.columns[-1] == blocks.SHARE_COLUMN
    assert sampled.columns[-1] == "MRR"
    wanted = {"split": "leave_one_out", "protocol": "full", "metric": "HR@1"}
    share = (
        pick(rows, system="teacher", **wanted)["value"]
        / pick(rows, system="oracle", **wanted)["value"]
    )
    shares = {line.name: line.cells[-1].text for line in full.lines}
    assert shares["teacher"] == f"{100 * share:.0f} %"
    assert shares["oracle"] == "100 %"


def test_labels_say_the_selected_step_and_name_step_0_for_what_it_is(rows):
    labels = [line.label for line in blocks.result_blocks(rows)[0].lines]
    assert "DELRec (step 120)" in labels and "LM + distilled prompt (step 300)" in labels
    assert "Tuned LM + true-item prompt (not tuned: step 0)" in labels
    assert "Teacher (sasrec)" in labels and "LM, zero-shot (no prompt)" in labels
    row = next(row for row in rows if row["system"] == "delrec")
    (line,) = blocks.result_blocks([row | {"step": 0, "beside": "teacher"}])[0].lines
    assert line.label == "DELRec, tuned beside the teacher (not tuned: step 0)"
    row = next(row for row in rows if row["system"] == "lm_distilled_prompt")
    (line,) = blocks.result_blocks([row | {"step": 0}])[0].lines
    assert line.label == "LM + distilled prompt (not trained: step 0)"


def test_several_teachers_and_seeds_are_told_apart(rows):
    row = next(row for row in rows if row["system"] == "delrec" and row["protocol"] == "full")
    lines = blocks.result_blocks([row, row | {"teacher": "caser"}, row | {"seed": 7}])[0].lines
    assert [line.label for line in lines] == [
        "DELRec (caser) (step 120), seed 0",
        "DELRec (sasrec) (step 120), seed 0",
        "DELRec (sasrec) (step 120), seed 7",
    ]


def test_terminal_and_markdown_show_the_same_numbers(rows):
    block = blocks.result_blocks(rows)[0]
    stream = io.StringIO()
    blocks.print_blocks([block], console=Console(file=stream))
    printed, markdown = stream.getvalue(), blocks.to_markdown(block)
    teacher = next(line for line in block.lines if line.name == "teacher")
    assert teacher.cells[0].interval.startswith("[0.")
    row = next(line for line in printed.splitlines() if "Teacher (sasrec)" in line)
    for cell in teacher.cells:
        assert cell.text in row
        assert cell.interval.replace(", ", ",") in row
    expected = " | ".join(f"{cell.text} {cell.interval}".strip() for cell in teacher.cells)
    assert f"| Teacher (sasrec) | {expected} |" in markdown


def test_brackets_in_names_are_not_markup_of_the_terminal():
    line = blocks.Line("", "[red]label", (blocks.Cell("[b]1[/b]", "[bold]"),))
    stream = io.StringIO()
    block = blocks.Block("[u]title", "[i]note", ("[b]name", "[b]value"), (line,))
    blocks.print_blocks([block], console=Console(file=stream))
    for said in ("[red]label", "[b]1[/b] [bold]", "[u]title", "[i]note", "[b]name"):
        assert said in stream.getvalue()


def test_comparisons_read_better_worse_and_tie(records):
    pairs = [("delrec", "popularity"), ("lm_no_prompt", "teacher"), ("delrec", "delrec")]
    family = compare_family(records, pairs, "HR@1", resamples=999)
    lines = comparison_block([asdict(one) for one in family]).lines
    assert [line.cells[-1].text for line in lines] == ["better", "worse", "tie"]
    assert lines[0].label == "DELRec (step 120) vs Popularity"
    assert lines[0].cells[2].text.startswith("+")


def test_small_p_values_are_not_printed_as_zero(records):
    one = asdict(compare_family(records, [("delrec", "teacher")], "HR@1", resamples=99)[0])
    cells = comparison_block([one | {"p_adjusted": 0.0001}]).lines[0].cells
    assert cells[3].text == "< 0.001"


def test_tables_by_popularity_follow_the_headline_in_the_order_head_tail_cold(p2rec_rows):
    found = blocks.result_blocks(p2rec_rows)
    assert [(block.part, block.title.split(" · ")[2]) for block in found] == [
        ("headline", "full"),
        ("popularity", "full@head"),
        ("popularity", "full@tail"),
        ("popularity", "full@cold"),
    ]
    assert "36 test users" in found[1].note and "most popular fifth" in found[1].note


def test_comparisons_of_several_teachers_name_them_and_their_parts(p2rec_records):
    family = compare_augmentations(p2rec_records, "HR@1", parts=("all", "tail"), resamples=99)
    block = comparison_block([asdict(one) for one in family])
    assert block.lines[0].label == "caser: Teacher + P2Rec vs Teacher"
    assert [line.cells[0].text for line in block.lines[::4]] == ["full", "full@tail"] * 3
    for said in ("averaged over 3 seeds", "over all rows of one metric", "@tail"):
        assert said in block.note
    own = [asdict(one) for one in family if (one.teacher, one.protocol) == ("caser", "full")]
    alone = comparison_block(own)
    assert alone.lines[0].label == "Teacher + P2Rec vs Teacher"
    assert "(protocol and metric)" in alone.note and "@tail" not in alone.note
    assert f"{own[0]['difference']:+.4f}" == alone.lines[0].cells[2].text


def test_agreement_leaves_a_dash_where_nothing_was_measured(agreement):
    assert np.all([row["users"] == 200 for row in agreement])
    block = blocks.agreement_block(agreement[:-1])
    assert block.columns == ("Prompt", "top-1 agreement", "Kendall tau")
    assert [line.label for line in block.lines][-1] == "distilled"
    assert [cell.text for cell in block.lines[-1].cells] == ["0.610", "–"]


def test_main_values_are_those_of_all_users_of_one_protocol():
    def row(protocol, system, teacher, seed, value):
        told = {"protocol": protocol, "system": system, "teacher": teacher, "seed": seed}
        return {**told, "metric": "HR@1", "value": value}

    rows = [
        row("full", "popularity", "", 0, 0.125),
        row("full", "ease", "sasrec", 0, 0.25),
        row("full@cold", "ease", "sasrec", 0, 0.125),
        row("full", "ease", "sasrec", 1, 0.5),
        row("sampled-20", "ease", "sasrec", 0, 0.75),
    ]
    assert tables.main_values(rows, "full") == {"popularity/HR@1": 0.125, "ease/HR@1": 0.375}
    rows.append(row("full", "teacher", "caser", 0, 1.0))
    assert tables.main_values(rows, "full") == {
        "popularity/HR@1": 0.125,
        "ease/sasrec/HR@1": 0.375,
        "teacher/caser/HR@1": 1.0,
    }
