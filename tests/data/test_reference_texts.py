"""The texts of configs/delrec with Flan-T5's true tokenizer: no user of any data set at hand is refused for length.

`pytest -s` prints how many texts lose history or the ends of titles; no row of the data leaves the test. DELREC_SHARED names
the folder of the data, else it is looked for beside the repository.
"""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prompt_templates import TASKS

from delrec_jax.config import from_config, read_config
from delrec_jax.data import prompts
from delrec_jax.data.corpora.atomic import AtomicSettings, read_atomic
from delrec_jax.data.corpora.tables import RulesConfig
from delrec_jax.data.sequential_recommendation import lsr_ids
from delrec_jax.delrec.pattern_simulating import rps_text
from delrec_jax.delrec.temporal_analysis import ta_min_length, ta_text
from delrec_jax.language.soft_prompt import slot_ids
from delrec_jax.language.tokenizer import Tokenizer
from delrec_jax.padding import END_TOKEN
from delrec_jax.workdir.language_model import make_pieces

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("DELREC_SHARED") or ROOT.parent / "shared")
FLAN = SHARED / "models" / "flan-t5-small-tokenizer"
ABSENT = "not beside the repository; DELREC_SHARED names the folder that has models/ and data/"
CONFIGS = {
    "ml-100k": "ml100k",
    "steam": "steam",
    "beauty": "beauty",
    "office-products": "reference",
}

# As measured: users, texts that lose their oldest items, texts whose longest titles are cut. All others are whole.
MEASURED = {
    ("beauty", "ta"): (15201, 448, 275),
    ("beauty", "rps"): (22363, 4164, 1142),
    ("beauty", "lsr"): (22363, 523, 2),
    ("office-products", "ta"): (1763, 158, 0),
    ("office-products", "rps"): (3228, 2243, 390),
    ("office-products", "lsr"): (3228, 37, 0),
}

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(
        not (FLAN / "tokenizer.json").is_file(), reason=f"Flan-T5's tokenizer: {ABSENT}"
    ),
]


@pytest.fixture(scope="module", params=CONFIGS)
def name(request):
    if not (SHARED / "data" / request.param).is_dir():
        pytest.skip(f"{request.param}: {ABSENT}")
    return request.param


@pytest.fixture(scope="module")
def experiment(name):
    return from_config(read_config(ROOT / "configs" / "delrec" / f"{CONFIGS[name]}.py"))


@pytest.fixture(scope="module")
def corpus(name, experiment):
    # Without the filter: its users and titles are more.
    rules = RulesConfig(min_length=experiment.data.min_length)
    return read_atomic(AtomicSettings(str(SHARED / "data" / name), rules))


@pytest.fixture(scope="module")
def strict(experiment, corpus):
    """Pieces whose texts are refused where titles would have to be cut."""
    config = replace(experiment.prompts, cut_to_fit=False)
    settings = replace(experiment, prompts=config)
    return make_pieces(settings, Tokenizer(FLAN), corpus.catalogue.titles, TASKS)


@pytest.fixture(scope="module")
def pieces(experiment, strict):
    assert experiment.prompts.cut_to_fit
    return replace(strict, config=experiment.prompts)


def text(pieces, task, history, candidates):
    """The longest text of a task: all items that come in question, with the reference's slots."""
    slots = np.array(slot_ids(32128, 100), np.int32)
    if task == "rps":
        ranked = candidates[1:10]
        return rps_text(pieces, history, pattern=slots, candidates=candidates, ranked=ranked)
    build = {"ta": ta_text, "lsr": lsr_ids}[task]
    return build(pieces, history, pattern=slots, candidates=candidates)


def fits(pieces, ids):
    """Whether it is complete: slots, one MASK before `</s>`, `</s>` at the end alone."""
    return (
        len(ids) <= 1065
        and (ids >= 32128).sum() == 100
        and ids[-2:].tolist() == [pieces.sentinel, END_TOKEN]
        and np.isin(ids, [pieces.sentinel, END_TOKEN]).sum() == 2
    )


@pytest.mark.parametrize("task", TASKS)
def test_no_user_is_refused(name, experiment, corpus, strict, pieces, task):
    train, rng = corpus.interactions, np.random.default_rng(0)
    least = ta_min_length(experiment.prompts) if task == "ta" else 1
    users = np.flatnonzero(train.lengths >= least)
    whole = replace(strict, config=replace(strict.config, max_tokens=10_000))
    cut = shortened = 0
    for user in users:
        history = train.history(int(user))
        drawn = rng.choice(corpus.catalogue.num_items, 20, replace=False)
        try:
            ids = text(strict, task, history, drawn)
            shortened += len(ids) < len(text(whole, task, history, drawn))
        except prompts.TooLong:
            cut += 1
            ids = text(pieces, task, history, drawn)
        assert fits(pieces, ids)
    print(
        f"\n{name} {task}: of {len(users)} texts {shortened} lose history, {cut} the ends of titles"
    )
    assert (len(users), shortened, cut) == MEASURED.get((name, task), (len(users), 0, 0))


@pytest.mark.parametrize("task", TASKS)
def test_the_longest_titles_of_all_fit_together(pieces, task):
    lengths = np.array([len(title) for title in pieces.titles])
    longest = np.argsort(-lengths, kind="stable")[:40]
    ids = text(pieces, task, longest[20:], longest[:20])
    assert fits(pieces, ids) and len(ids) > 700 * (lengths.max() > 60)
