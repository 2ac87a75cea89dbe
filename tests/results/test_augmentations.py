"""P2Rec's evidence: what decides is read from validation, and every comparison finds its systems."""

import json

import pytest
from evidence_workdirs import ROOT, augmentations

from delrec_jax.config import from_config
from delrec_jax.config.files import read_config
from delrec_jax.evaluation.systems import BASELINES, TITLE_VECTORS
from delrec_jax.p2rec.cells import cells
from delrec_jax.results.pairs import expand, parse
from delrec_jax.results.sources import Key

WITHOUT = {"hybrid(markov+cease)": 0.3, "hybrid(teacher+markov)": 0.2}
WITH = {"hybrid(markov+lm_cease)": 0.1, "hybrid(teacher_augmented+markov)": 0.4}


def evaluated(path, teacher, values):
    (path / "records").mkdir(parents=True)
    rows = [{"system": k, "teacher": teacher, "valid_ndcg10": v} for k, v in values.items()]
    (path / "records" / "hybrids.json").write_text(json.dumps(rows))
    return path


def test_what_decides_has_the_best_mean_on_validation_with_a_language_model_and_without(tmp_path):
    first = evaluated(tmp_path / "0", "sasrec", WITHOUT | WITH)
    one = "hybrid(teacher_augmented+markov)@sasrec,hybrid(markov+cease)"
    assert augmentations.deciding([first]) == one
    other = evaluated(
        tmp_path / "1", "sasrec", {name: 0.5 - value for name, value in (WITHOUT | WITH).items()}
    )
    flat = evaluated(
        tmp_path / "2",
        "sasrec",
        {name: 0.25 for name in WITHOUT | WITH} | {"hybrid(markov+lm_cease)": 0.9},
    )
    assert augmentations.deciding([first, other, flat]).split(",")[0] == "hybrid(markov+lm_cease)"


@pytest.mark.parametrize("corpus", augmentations.CORPORA, ids=lambda corpus: corpus.name)
def test_each_comparison_finds_its_systems_in_the_corpus_own_config(corpus):
    config = from_config(read_config(ROOT / corpus.config))
    trained = [(cell.system, cell.name) for cell in cells(config)]
    there = {system for system, _ in trained} | set(BASELINES if corpus.encoder else ())
    there |= set(config.baselines.names) | set(TITLE_VECTORS)
    hybrids = [name for name, parts in config.baselines.hybrid_parts.items() if set(parts) <= there]
    keys = [Key("full", name, "", None) for name in there & set(BASELINES)]
    keys += [Key("full", *one, 0) for one in trained]
    keys += [Key("full", name, "sasrec", 0) for name in hybrids]
    patterns = augmentations._COMPARE + augmentations._OF_ENCODERS * corpus.encoder
    for pattern in patterns:
        if pattern != "hybrids":
            assert expand(dict.fromkeys(keys), parse(pattern), "full"), pattern
