"""P2Rec's evidence: what decides is read from validation, and every comparison finds its systems."""

import json

import pytest
from evidence_workdirs import ROOT, augmentations

from delrec_jax.config import from_config
from delrec_jax.config.files import read_config
from delrec_jax.evaluation.systems import BASELINES, TITLE_VECTORS, hybrid_parts
from delrec_jax.p2rec.cells import cells
from delrec_jax.results.pairs import expand, parse
from delrec_jax.results.sources import Key

VALUES = {
    "hybrid(markov+cease)": 0.3,
    "hybrid(markov+ease)": 0.1,
    "hybrid(markov+lm_cease)": 0.2,
    "hybrid(markov+lm_embeddings)": 0.1,
    "hybrid(teacher+markov)": 0.8,
    "hybrid(teacher_augmented+lm_cease)": 0.9,
}


def row(system, teacher, value, **weights):
    """What an evaluation writes of a hybrid."""
    found = dict.fromkeys(hybrid_parts(system), 1.0) | weights
    return {"system": system, "teacher": teacher, "valid_ndcg10": value, "weights": found}


def test_what_decides_is_the_best_on_validation_of_baselines_with_an_encoder_and_without(
    tmp_path,
):
    (tmp_path / "records").mkdir()
    rows = [row(name, "sasrec", value) for name, value in VALUES.items()]
    rows.append(row("hybrid(markov+cease+lm_cease)", "sasrec", 0.31, lm_cease=0.0))
    (tmp_path / "records" / "hybrids.json").write_text(json.dumps(rows))
    assert augmentations.deciding([tmp_path]) == "hybrid(markov+lm_cease),hybrid(markov+cease)"


def test_with_networks_the_best_on_validation_is_that_of_all_seeds(tmp_path):
    read, plain = "hybrid(teacher_augmented+lm_cease)", "hybrid(teacher+markov)"
    random = "hybrid(teacher_augmented_random_vectors+markov)"  # reads nothing
    of_seeds = {
        (read, "sasrec"): (0.9, 0.1),
        (read, "ease"): (0.6, 0.6),
        (plain, "sasrec"): (0.3, 0.3),
        (random, "ease"): (0.4, 0.5),
        ("hybrid(markov+cease)", "sasrec"): (0.44, 0.44),
    }
    for seed in (0, 1):
        (tmp_path / f"{seed}" / "records").mkdir(parents=True)
        rows = [
            row(system, teacher, values[seed]) for (system, teacher), values in of_seeds.items()
        ]
        (tmp_path / f"{seed}" / "records" / "hybrids.json").write_text(json.dumps(rows))
    found = augmentations.deciding([tmp_path / "0", tmp_path / "1"], networks=True)
    assert found == f"{read}@ease,{random}@ease"


@pytest.mark.parametrize("corpus", augmentations.CORPORA, ids=lambda corpus: corpus.name)
def test_each_comparison_finds_its_systems_in_the_corpus_own_config(corpus):
    config = from_config(read_config(ROOT / corpus.config))
    trained = [(cell.system, cell.name) for cell in cells(config)]
    there = {system for system, _ in trained} | set(BASELINES if corpus.encoder else ())
    there |= set(config.baselines.names) | set(TITLE_VECTORS)
    hybrids = [name for name, parts in config.baselines.hybrid_parts.items() if set(parts) <= there]
    keys = [Key("full", name, "", None) for name in there & set(BASELINES)]
    keys += [Key("full", *one, 0) for one in trained]
    keys += [Key("full", name, one, 0) for name in hybrids for one in config.augment.teachers]
    patterns = augmentations._COMPARE + augmentations._OF_ENCODERS * corpus.encoder
    for pattern in patterns:
        if pattern != "hybrids":
            assert expand(dict.fromkeys(keys), parse(pattern), "full"), pattern
