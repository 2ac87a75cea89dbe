"""Five steps of DELRec's stages and of P2Rec's parsing under each mesh, for the tests that compare meshes; prints them as JSON.

Usage: python meshes.py WORKDIR DATAxFSDPxTENSOR ...   (WORKDIR: a finished tiny run)
"""

import dataclasses
import json
import re
import sys
from functools import partial
from pathlib import Path
from unittest import mock

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_storefront import open_workspace

from delrec_jax.delrec import distill, tune
from delrec_jax.delrec.prompt_examples import make_examples
from delrec_jax.delrec.rows import user_parts
from delrec_jax.language.t5_model import T5Model
from delrec_jax.p2rec import parse
from delrec_jax.p2rec.categories import Categories
from delrec_jax.stages.inputs import Inputs
from delrec_jax.training import task
from delrec_jax.training.sharding import MeshConfig, place, place_batch
from delrec_jax.training.steps import state_shardings
from delrec_jax.workdir.prepared import load_data
from delrec_jax.workdir.stage_table import STAGES

STEPS = 5
CATEGORIES = 4
_COLLECTIVE = re.compile(
    r"= \(?(\w+\[[\d,]*\]).*? (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)"
)


class Steps:
    """Stands in for `fit`: five steps, and what the compiled program of the step exchanges."""

    def __init__(self):
        self.found = {}

    def fit(self, run):
        shardings = state_shardings(run.state, run.layout)
        state, losses = place(run.state, shardings), []
        for number in range(STEPS):
            batch = place_batch(next(run.batches), run.layout, run.share)
            if number == 0:
                lowered = run.step.lower(state, run.frozen, batch, run.key)
            state, metrics = run.step(state, run.frozen, batch, run.key)
            losses.append(float(metrics["loss"]))
        split = [leaf for leaf in jax.tree.leaves(run.frozen) if not leaf.is_fully_replicated]
        self.found[run.name] = {
            "losses": losses,
            "exchanges": exchanges(lowered.compile().as_text()),
            "constraints": lowered.as_text().count("sharding_constraint"),
            "split leaves": len(split),
            "leaves": len(jax.tree.leaves(run.frozen)),
            "table": list(run.frozen["params"]["shared"]["embedding"].shape),
            "table piece": list(
                run.frozen["params"]["shared"]["embedding"].addressable_shards[0].data.shape
            ),
            "head": list(run.frozen["params"]["lm_head"]["kernel"].shape),
            "params": jax.tree.map(
                lambda leaf: float(np.abs(np.asarray(leaf)).sum()), jax.tree.leaves(state.params)
            ),
        }
        return state.params, {"best_step": 0, "steps": STEPS, "ranks": {}}


def exchanges(text):
    """Kind and result of every collective of a compiled program, such as ["all-gather", "f32[64,16]"]."""
    return sorted({(kind, shape) for shape, kind in _COLLECTIVE.findall(text)})


def with_even_table(language):
    """The same model with a table of a multiple of eight rows, as pretrained ones have: one that divides."""
    params = jax.tree.map(np.asarray, language.params)
    missing = -len(params["shared"]["embedding"]) % 8
    params["shared"]["embedding"] = np.pad(
        params["shared"]["embedding"], ((0, missing), (0, 0)), constant_values=1.0
    )
    params["lm_head"]["kernel"] = np.pad(params["lm_head"]["kernel"], ((0, 0), (0, missing)))
    shape = language.model.config
    shape = dataclasses.replace(shape, vocab_size=shape.vocab_size + missing)
    return dataclasses.replace(
        language,
        params=place(params, language.layout.of(params)),
        ranker=dataclasses.replace(language.ranker, model=T5Model(shape)),
        slots=language.slots + missing,
    )


def steps_under(workdir, mesh):
    """What `Steps` finds under one mesh."""
    opened = open_workspace(Path(workdir))
    parsing = dataclasses.replace(opened.experiment.parse, categories=CATEGORIES)
    opened.experiment = dataclasses.replace(
        opened.experiment, mesh=mesh, method="delrec_p2rec", parse=parsing
    )
    opened.stages = STAGES[opened.experiment.method]
    held = load_data(opened)
    language = with_even_table(Inputs(opened).language)
    steps = Steps()
    config, everybody = opened.experiment, held.split.training_users
    users = user_parts(everybody, config.distill, config.seed)["train"]
    make = partial(make_examples, config, held, language)
    texts = make(users, "true")
    with mock.patch.object(task, "fit", steps.fit):
        trained = distill.PromptTraining(opened, language, texts, make=make, guides=None)
        trained.fit("true", texts)
        tune.Tuning(opened, held, language).fit("distilled")
    known = held.split.known_items(held.num_items)
    categories = np.where(known, np.arange(held.num_items) % CATEGORIES, -1).astype(np.int32)
    with mock.patch.object(task, "fit", steps.fit):
        parse.Parsing(opened, held.split, language).fit(
            Categories(categories, np.zeros((CATEGORIES, 2), np.float32)), 0
        )
    return {"devices": jax.device_count(), **steps.found}


def main(workdir, *meshes):
    found = {name: steps_under(workdir, MeshConfig(*map(int, name.split("x")))) for name in meshes}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
