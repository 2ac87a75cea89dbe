"""What the first screen says: never more than the tests do."""

import re
from dataclasses import asdict, replace

import pytest

from delrec_jax.analysis.claims import Claim
from delrec_jax.analysis.headline import Headline
from delrec_jax.analysis.standing_bars import is_control, picture
from delrec_jax.evaluation.standings import best_baseline, compare_with_baseline, standings
from delrec_jax.evaluation.systems import SYSTEMS
from delrec_jax.p2rec.comparison import compare_augmentations


def plain(text):
    return text.replace("\u00a0", " ")


def row_of(difference, low, high, p, **more):
    names = {"system": "delrec", "reference": "markov", "protocol": "full", "metric": "NDCG@10"}
    numbers = {"difference": difference, "ci_low": low, "ci_high": high, "p_adjusted": p}
    return names | {"teacher": "sasrec"} | numbers | more


BETTER = row_of(0.131, 0.11, 0.15, 0.0004)
WORSE = row_of(-0.131, -0.15, -0.11, 0.0123)
OPEN = row_of(0.006, -0.01, 0.02, 0.41)


@pytest.mark.parametrize(
    ("row", "said", "turned"),
    [
        (BETTER, "0.131 more than it (95 % interval 0.110 to 0.150, p < 0.001)", "0.131 less than it"),
        (WORSE, "0.131 less than it (95 % interval 0.110 to 0.150, p = 0.012)", "0.131 more than it"),
        (
            OPEN,
            "no difference from it (0.475) can be shown (difference +0.006, 95 % interval −0.010 to +0.020, p = 0.410)",
            "no difference from it can be shown (difference +0.006",
        ),
    ],
)  # fmt: skip
def test_a_claim_says_more_less_or_that_nothing_can_be_shown(row, said, turned):
    claim = Claim(row, 0.475, 3)
    assert plain(claim.against("it")) == said
    assert plain(claim.turned("it")).startswith(turned)


@pytest.mark.parametrize(
    "row",
    [
        row_of(
            0.02, 0.001, 0.04, 0.06
        ),  # the interval leaves out zero, the test is not significant
        row_of(0.02, -0.001, 0.04, 0.01),  # and the other way round
        row_of(0.02, 0.0, 0.04, 0.01),
        row_of(-0.02, -0.04, -0.001, 0.05),
        row_of(0.0, 0.0, 0.0, 1.0),
    ],
)
def test_both_the_test_and_the_interval_must_agree(row):
    claim = Claim(row, 0.475, 3)
    assert claim.outcome == "open"
    for said in (claim.against("it"), claim.turned("it"), claim.between("A", "it")):
        assert " more " not in said and " less " not in said and "can be shown" in said


def numbers(text):
    return [float(one.replace("−", "-")) for one in re.findall(r"[−+]?\d+\.\d+", text)]


def test_the_sentences_have_the_numbers_of_the_tests(headline):
    ((first, *rest),) = headline.sentences()
    values = {row["system"]: row["value"] for row in headline.standings}
    tests = {row["reference"]: row for row in headline.tests}
    best = tests[headline.baseline]
    assert best["p_adjusted"] < 0.05, "the made-up DELRec beats its baselines"
    ends = sorted((abs(best["ci_low"]), abs(best["ci_high"])))
    told = numbers(first.replace("DELRec has", "").replace("NDCG@10", ""))
    assert told[:4] == pytest.approx([values["delrec"], best["difference"], *ends], abs=6e-4)
    assert "more than the best simple baseline, " in first and "SASRec" in rest[0]
    (controls,) = [said for said in rest if said.startswith("Tuned alike with no prompt, a random")]
    strongest = max(
        (f"lm_tuned_{name}_prompt" for name in ("no", "random", "shuffled")), key=values.get
    )
    assert f"has {values[strongest]:.3f} at most" in controls
    assert f"{abs(tests[strongest]['difference']):.3f} less than DELRec" in controls
    (true,) = [said for said in rest if "true next items" in said]
    assert "can be shown" in true and true.endswith(
        "this run does not show that the teacher is needed."
    )


def lost(row):
    flipped = {
        "difference": -row["difference"],
        "ci_low": -row["ci_high"],
        "ci_high": -row["ci_low"],
    }
    return {**row, **flipped}


def test_a_method_that_loses_is_told_so(headline):
    ((first, *rest),) = replace(headline, tests=list(map(lost, headline.tests))).sentences()
    assert " less than the best simple baseline" in first and " more " not in first
    (controls,) = [said for said in rest if said.startswith("Tuned alike")]
    assert "more than DELRec" in controls
    assert controls.endswith("so this run does not show that the distilled prompt is what counts.")


def test_differences_that_are_not_significant_are_no_gains(headline):
    tests = [{**row, "p_adjusted": 0.2} for row in headline.tests]
    ((first, *rest),) = replace(headline, tests=tests).sentences()
    said = " ".join((first, *rest))
    assert first.startswith("DELRec has 0.") and "; no difference from the best simple" in first
    assert " more than" not in said and " less than" not in said
    assert said.count("so this run does not show that") == 2


def test_a_control_that_is_not_beaten_is_told_of_even_if_another_has_more(headline):
    values = {row["system"]: row["value"] for row in headline.standings}
    names = [f"lm_tuned_{name}_prompt" for name in ("no", "random", "shuffled")]
    weakest = min(names, key=values.get)
    tests = [
        {**row, "p_adjusted": 0.3} if row["reference"] == weakest else row for row in headline.tests
    ]
    ((_, *rest),) = replace(headline, tests=tests).sentences()
    (controls,) = [said for said in rest if said.startswith("Tuned alike")]
    assert f"has {values[weakest]:.3f} with " in controls and "at most" not in controls
    assert controls.endswith("so this run does not show that the distilled prompt is what counts.")


def test_what_was_not_run_is_told(headline):
    only = [row for row in headline.tests if row["reference"] == "teacher"]
    ((first, *rest),) = replace(headline, tests=only, baseline="").sentences()
    assert "than its teacher, SASRec (" in first
    assert rest == [
        "No control was tuned: this run cannot tell what the distilled prompt contributes."
    ]
    (bare,) = replace(headline, tests=[], baseline="").sentences()
    assert "nothing that it could be compared with" in bare[0]


def test_what_the_method_is_is_told(headline):
    changed = [
        {**row, "step": 0, "beside": "teacher"} if row["system"] == "delrec" else row
        for row in headline.standings
    ]
    ((first, *rest),) = replace(headline, standings=changed).sentences()
    assert first.startswith("DELRec, tuned beside the teacher's scores, has 0.")
    assert "step 0" in rest[-1]
    assert "step 0" not in " ".join(headline.sentences()[0])


def test_the_small_print_tells_users_seeds_and_what_is_generated(headline, p2rec_headline):
    said = headline.small_print()
    assert "120 test users. One training seed: " in said and "generated" in said
    assert "Popularity, ItemKNN, Markov, EASE, TF-IDF and CEASE." in said
    several = p2rec_headline.small_print()
    assert "Means over 3 training seeds: " in several and "generated" not in several


@pytest.fixture(scope="module")
def p2rec_headline(p2rec_records):
    family = compare_augmentations(p2rec_records, "NDCG@10", parts=("all", "head"), resamples=999)
    found = standings(p2rec_records, "NDCG@10", protocol="full")
    baseline = best_baseline(found)
    against = compare_with_baseline(
        p2rec_records, "teacher_augmented", baseline, "NDCG@10", resamples=999
    )
    return Headline(
        metric="NDCG@10",
        protocol="full",
        standings=[asdict(one) for one in found],
        tests=[asdict(one) for one in (*family, *against)],
        method="teacher_augmented",
        baseline=baseline,
        recommenders={"sasrec": "SASRec", "gru4rec": "GRU4Rec", "caser": "Caser"},
        digits=4,
    )


def test_p2rec_has_sentences_for_every_recommender(p2rec_headline):
    said = p2rec_headline.sentences()
    assert [one[0].split(" has ")[0] for one in said] == [
        f"{name} + P2Rec" for name in ("Caser", "GRU4Rec", "SASRec")
    ]
    for teacher, (first, baseline, controls) in zip(
        ("caser", "gru4rec", "sasrec"), said, strict=True
    ):
        own = {
            (row["system"]): row["value"]
            for row in p2rec_headline.standings
            if row["teacher"] in ("", teacher)
        }
        (tested,) = [
            row
            for row in p2rec_headline.tests
            if (row["teacher"], row["reference"], row["protocol"]) == (teacher, "teacher", "full")
        ]
        assert (
            f"has {own['teacher_augmented']:.4f} NDCG@10, {tested['difference']:.4f} more" in first
        )
        assert "the best simple baseline, Popularity" in baseline
        reached = max(value for name, value in own.items() if name.startswith("teacher_augmented_"))
        assert f"has {reached:.4f} at most (with " in controls


def test_the_picture_holds_every_system_best_first_and_marks_what_it_is(headline):
    made = picture(headline)
    ((title, bars),) = made.groups
    assert title == "" and len(bars) == len(headline.standings)
    values = [float(bar.value) for bar in bars]
    assert values == sorted(values, reverse=True)
    kinds = {bar.label: bar.kind for bar in bars}
    assert kinds["DELRec"] == "method" and kinds["Tuned LM + random prompt"] == "control"
    assert list(kinds.values()).count("baseline") == 1 and kinds["LM + distilled prompt"] == ""
    ends = [place for bar in bars for place in (bar.length, bar.low, bar.high)]
    assert all(0 <= place <= 100 for place in ends) and 0 < made.oracle <= 100
    (delrec,) = [bar for bar in bars if bar.label == "DELRec"]
    assert delrec.length / made.oracle == pytest.approx(
        float(delrec.value) / headline.oracle, rel=0.01
    )


def test_recommenders_stand_in_groups_of_their_own(p2rec_headline):
    made = picture(p2rec_headline)
    assert [name for name, _ in made.groups] == [
        "Same for all recommenders",
        "Caser",
        "GRU4Rec",
        "SASRec",
    ]
    assert [len(bars) for _, bars in made.groups] == [1, 5, 5, 5]
    assert made.oracle is None and made.oracle_value == ""


def test_controls_are_what_tells_where_a_gain_comes_from():
    controls = {name for name in SYSTEMS if is_control(name)}
    assert {"lm_no_prompt", "lm_tuned_true_prompt", "teacher_augmented_random_vectors"} <= controls
    assert not controls & {
        "delrec",
        "teacher",
        "teacher_augmented",
        "lm_embeddings",
        "lm_cease",
        "lm_distilled_prompt",
        "oracle",
    }
