"""What a finished run leaves behind, and what commands say to it."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file
from tiny_storefront import CONFIG, TINY, delrec, open_workspace

from delrec_jax.config import BaselinesConfig
from delrec_jax.delrec import first_screen, systems
from delrec_jax.evaluation.beyond_accuracy import NOT_RECORDED
from delrec_jax.evaluation.records import read_records
from delrec_jax.evaluation.top_lists import read_lists
from delrec_jax.stages.inputs import Inputs
from delrec_jax.workdir.language_scorer import LanguageScorer
from delrec_jax.workdir.prepared import load_data

SYSTEMS = {
    "popularity", "itemknn", "markov", "ease", "tfidf", "cease", "lm_embeddings", "lm_cease", "teacher",
    "lm_no_prompt", "lm_random_prompt", "lm_shuffled_prompt",
    "lm_distilled_prompt", "lm_true_prompt", "lm_tuned_no_prompt", "lm_tuned_random_prompt",
    "lm_tuned_shuffled_prompt", "lm_tuned_true_prompt", "delrec", "lm_words", "oracle",
    *BaselinesConfig().hybrid_parts,
}  # fmt: skip
# With tune.controls=('random',) and FEW_BASELINES.
FEWER_SYSTEMS = {
    "popularity", "tfidf", "lm_embeddings", "teacher", "lm_no_prompt", "lm_random_prompt",
    "lm_shuffled_prompt", "lm_distilled_prompt", "lm_true_prompt", "lm_tuned_random_prompt", "delrec",
    "lm_words", "oracle", "hybrid(teacher+tfidf)", "hybrid(delrec+teacher)",
}  # fmt: skip


@pytest.fixture
def metrics(tiny_run):
    return json.loads((tiny_run / "report" / "metrics.json").read_text())


def test_every_system_stands_in_the_table_under_every_protocol(metrics):
    for protocol in ("full", "sampled-8", "rerank-8"):
        assert {row["system"] for row in metrics if row["protocol"] == protocol} == SYSTEMS


def test_rows_have_the_promised_keys_and_intervals_hold_their_value(metrics):
    keys = {
        "corpus",
        "split",
        "protocol",
        "system",
        "teacher",
        "metric",
        "value",
        "ci_low",
        "ci_high",
        "users",
        "seed",
        "step",
        "beside",
    }
    for row in metrics:
        assert set(row) == keys
        assert row["ci_low"] <= row["value"] <= row["ci_high"]


def test_rows_say_the_step_that_was_selected(tiny_run, metrics):
    def selected(folder, name):
        return json.loads((tiny_run / folder / name / "result.json").read_text())["best_step"]

    found = {row["system"]: row["step"] for row in metrics}
    assert found["delrec"] == selected("adapter", "distilled")
    assert found["lm_tuned_no_prompt"] == selected("adapter", "none")
    assert found["lm_true_prompt"] == selected("prompt", "true")
    rest = ("popularity", "teacher", "oracle", "lm_no_prompt", "lm_random_prompt", "lm_words")
    assert {found[name] for name in rest} == {-1}
    step = f"(step {found['delrec']})" if found["delrec"] else "(not tuned: step 0)"
    assert f"DELRec {step}" in (tiny_run / "report" / "tables.md").read_text()


def test_tuning_without_a_prompt_shows_no_slots_and_reads_no_prompt(tiny_run):
    ws = open_workspace(tiny_run)
    inputs = Inputs(ws)
    slots, scorer = set(inputs.language.slots.tolist()), LanguageScorer(inputs.language)
    bare = systems.tuned(ws, inputs.language, "none", None)
    text = scorer.texts(bare, [np.array([1, 5])])
    assert not slots & set(text.ids[0].tolist())
    # What no text refers to changes nothing.
    other = replace(bare, prompt=bare.prompt + 1.0)
    before, after = (np.asarray(scorer.catalogue(one, text)) for one in (bare, other))
    np.testing.assert_array_equal(before, after)
    shown = scorer.texts(systems.tuned(ws, inputs.language, "true", None), [np.array([1, 5])])
    assert slots <= set(shown.ids[0].tolist())


def test_a_list_holds_the_target_where_its_rank_says_so(tiny_run):
    lists, _ = read_lists(tiny_run / "records")
    records = read_records(tiny_run / "records" / "records.parquet").filter(protocol="full")
    both = records.join(lists, on=["system", "teacher", "seed", "user"], how="left")
    assert set(lists["system"]) == SYSTEMS and both["items"].null_count() == 0
    # A tie may fall on either side of the end of a list; without one there are no two answers.
    alone = both.filter(ties=0)
    listed = alone.select(pl.col("items").arr.contains(pl.col("target"))).to_series()
    assert listed.to_list() == (alone["rank"] <= 10).to_list()
    assert 0 < listed.mean() < 1
    tables = (tiny_run / "report" / "tables.md").read_text()
    assert "Jaccard with teacher" in tables and NOT_RECORDED not in tables


def test_records_name_the_candidates_that_were_ranked(tiny_run):
    records = pl.read_parquet(tiny_run / "records" / "records.parquet")
    statistics = json.loads((tiny_run / "data" / "statistics.json").read_text())
    sampled = records.filter(pl.col("protocol") == "sampled-8")
    assert sampled["candidate_hash"].unique().to_list() == [statistics["candidates_test"]]
    assert sampled["candidates"].unique().to_list() == [8]
    assert records.filter(pl.col("protocol") == "rerank-8")["candidate_hash"].n_unique() == 1
    assert "" not in records.filter(pl.col("protocol") == "rerank-8")["candidate_hash"]


def test_the_language_model_is_no_part_of_what_stages_one_and_two_store(tiny_run):
    prompt = load_file(tiny_run / "prompt" / "distilled" / "result.safetensors")
    assert set(prompt) == {"prompt"} and prompt["prompt"].shape == (3, 16)
    adapters = load_file(tiny_run / "adapter" / "distilled" / "result.safetensors")
    assert {name.rsplit("/", 1)[1] for name in adapters} == {"A", "E", "B"}


def test_ranks_have_moved_to_the_target_budget(tiny_run):
    meta = json.loads((tiny_run / "adapter" / "distilled" / "result.json").read_text())
    ranks = list(meta["ranks_at_the_end"].values())
    assert np.mean(ranks) <= 8 and max(ranks) <= 12
    assert len(set(ranks)) > 1, "an even pattern means that importance played no part"


def test_the_ranks_that_are_told_are_those_of_the_adapters_that_are_kept(tiny_run):
    """Here those of step 0, which use nothing yet."""
    results = list((tiny_run / "adapter").glob("*/result.json"))
    assert results
    for folder in results:
        meta, kept = json.loads(folder.read_text()), load_file(folder.with_suffix(".safetensors"))
        used = {
            name.removesuffix("/E"): int((value != 0).sum())
            for name, value in kept.items()
            if name.endswith("/E")
        }
        assert {name.removeprefix("adapters/"): rank for name, rank in used.items()} == meta[
            "ranks"
        ]


def test_agreement_is_reported_for_four_prompts(tiny_run):
    rows = json.loads((tiny_run / "prompt" / "agreement.json").read_text())
    assert [row["prompt"] for row in rows[::2]] == ["none", "random", "shuffled", "distilled"]
    assert {row["measure"] for row in rows} == {"top-1 agreement", "Kendall tau"}


def test_worked_examples_have_the_ranks_of_the_records(tiny_run):
    ws = open_workspace(tiny_run)
    inputs = Inputs(ws)
    data = inputs.data
    ranked = read_records(tiny_run / "records" / "records.parquet").filter(protocol="sampled-8")
    shown = first_screen.examples(ws, data, inputs.language)
    assert [one.cold for one in shown] == [True, False]
    for one in shown:
        row = int(one.user)
        assert one.target == data.corpus.catalogue.titles[data.split.target("test")[row]]
        place, user = one.candidates.index(one.target), int(data.split.users("test")[row])
        for system, ranks in one.ranks.items():
            (wanted,) = ranked.filter(system=system, user=user)["rank"]
            assert ranks[place] == wanted, system
            assert sum(ranks) == len(ranks) * (len(ranks) + 1) / 2


def test_the_page_is_self_contained(tiny_run):
    page = (tiny_run / "report" / "index.html").read_text()
    assert "DELRec" in page and 'src="http' not in page and 'href="http' not in page


def test_a_second_run_skips_all_stages_and_gives_the_same_bytes(tiny_run, capsys):
    before = (tiny_run / "report" / "metrics.json").read_bytes()
    delrec("run", CONFIG, f"--workdir={tiny_run}", *TINY)
    assert capsys.readouterr().err.count("finished before, skipped") == 7
    assert (tiny_run / "report" / "metrics.json").read_bytes() == before


def test_prompts_prints_whole_examples(tiny_run, capsys):
    delrec("prompts", CONFIG, f"--workdir={tiny_run}", *TINY, "--n=2")
    out = capsys.readouterr().out
    assert out.count("(RPS)") == 2 and out.count("(LSR)") == 2
    for line in out.splitlines():
        if line.startswith("target mask:"):
            assert line.count("^") == 1 and line.endswith("^")
    assert "[P0] [P1] [P2]" in out and "The user has purchased these items in order" in out


def test_recommend_answers_titles_typed_in(tiny_run, capsys):
    titles = load_data(open_workspace(tiny_run)).corpus.catalogue.titles
    history = f"--history={titles[0]}; {titles[1].lower()}"
    delrec("recommend", f"--workdir={tiny_run}", history, "-k", "3")
    out = capsys.readouterr().out
    assert "DELRec" in out and "SASRec" in out
    assert not any(title in out for title in titles[:2]), "what the user has is not recommended"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["recommend", "--history=Tangled Stone Mistery Book One"],
            ["no item is called", "nearest", "Tangled Stone Mystery Book One"],
        ),
        (["recommend", "--history=1234"], ["no item is called '1234'", "no title is similar"]),
        (["recommend", "--history="], ["--history is empty"]),
        (["recommend", "--history=x", "-k", "0"], ["--k=0: 0 is not an integer in the range"]),
        (
            ["run", CONFIG, *TINY, "--config.distill.lenght=4"],
            ["distill.lenght does not exist", "distill.length"],
        ),
        (
            ["run", CONFIG, *TINY, "--config.distill.length=4"],
            ["another config", "distill.length", "--update"],
        ),
        (
            ["run", CONFIG, *TINY, "--config.distill.top_h=30"],
            ["distill.top_h", "distill.num_candidates"],
        ),
        (["run", "--config=configs/none.py"], ["no such file", "configs/"]),
        (["fly"], ["no command 'fly'"]),
        (["run", CONFIG, "--config.distill.length=many"], ["distill.length"]),
    ],
)
def test_mistakes_are_one_clear_line(tiny_run, capsys, arguments, words):
    with pytest.raises(SystemExit) as ended:
        delrec(*arguments, f"--workdir={tiny_run}")
    assert ended.value.code == 2
    err = capsys.readouterr().err.strip()
    assert len(err.splitlines()) == 1
    for word in words:
        assert word in err


def test_a_stage_before_its_time_names_what_is_missing(tmp_path, capsys):
    with pytest.raises(SystemExit):
        delrec("tune", CONFIG, f"--workdir={tmp_path}", *TINY)
    assert "run `delrec distill`" in capsys.readouterr().err


def test_a_missing_corpus_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        delrec(
            "prepare",
            CONFIG,
            f"--workdir={tmp_path / 'w'}",
            "--config.data.corpus=atomic",
            f"--config.data.path={tmp_path / 'nowhere'}",
        )
    assert "nowhere" in capsys.readouterr().err


def test_a_prompt_longer_than_the_limit_is_refused(tmp_path, tiny_run, capsys):
    with pytest.raises(SystemExit):
        delrec("run", CONFIG, f"--workdir={tmp_path}", *TINY, "--config.prompts.max_tokens=20")
    assert "prompts.max_tokens" in capsys.readouterr().err
