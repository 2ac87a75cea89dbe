"""P2Rec's claim of efficiency: tuning the LM on one example per user, compared with one example per interaction.

    .venv/bin/python benchmarks/parsing.py --workdir=RUN [--quick]

RUN is the workdir of a run with `prepare` and `pretrain` finished. All cases tune its language model with the same adapters
and batch size on the same training part:

    user         `parse`: a user's complete training sequence as one text (`parse.max_tokens`), and the distribution of the
                 user's items over categories.
    whole        one text and next item for each interaction but a user's first: everything before it, cut at the same
                 number of tokens; cross-entropy over the catalogue from one decoder position, as in `tune`.
    latest       the same with the `prompts.max_history` latest items, as stage 2 of DELRec reads them.

An epoch is all examples once. Its time is extrapolated from that of some batches, drawn as in training (shuffled, padded to
buckets; every bucket compiled beforehand).
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import harness
import jax
import numpy as np

from delrec_jax.data.pipeline import PER_TOKEN, collate, make_buckets, training_iterator
from delrec_jax.data.sequential_recommendation import lsr_ids
from delrec_jax.delrec.labelled_texts import LabelledText
from delrec_jax.delrec.rows import latest_rows, next_items
from delrec_jax.delrec.tuning_task import ranking_loss
from delrec_jax.language.adalora import init_adapters
from delrec_jax.language.rank_allocation import with_rank_allocation
from delrec_jax.p2rec.parsing_task import parsing_loss, parsing_optimizer
from delrec_jax.p2rec.preference_examples import PreferenceText, counted_tokens
from delrec_jax.p2rec.preference_parser import init_projection, preference_parser
from delrec_jax.p2rec.preference_text import preference_pieces, preference_text
from delrec_jax.stages.inputs import Inputs
from delrec_jax.training.gradients import mean_loss_gradients
from delrec_jax.training.optimizers import make_optimizer
from delrec_jax.training.sharding import place_batch
from delrec_jax.training.steps import TrainStep, create_state
from delrec_jax.workdir.language_model import Language
from delrec_jax.workdir.prepared import Data, load_data
from delrec_jax.workdir.stored_settings import stored_experiment
from delrec_jax.workdir.workspace import Workspace

NAME = "parsing"
PLANNED = 1000  # steps of the optimizer's schedule, which do not affect the time


class Tuning:
    """One kind of tuning: its steps, on batches of its own."""

    def __init__(
        self, examples: int, make: Callable, *, step: Any, state: Any, frozen: Any, held: Any
    ):
        """Batches are drawn from `examples` examples, made by `make`."""
        self.examples, self.batch_size = examples, held["batch_size"]
        self._step, self._state, self._frozen = step, state, frozen
        self._make, self._layout, self._buckets = make, held["layout"], held["buckets"]
        self._batches = training_iterator(
            make, examples, batch_size=self.batch_size, buckets=self._buckets, seed=0
        )
        self._key = jax.random.key(0)
        self.tokens: list[int] = []

    def compile(self) -> None:
        """Takes a step in every length bucket, so that all of them are compiled."""
        rng = np.random.default_rng(0)
        example = self._make(0, rng)
        for bucket in self._buckets:
            tokens = [field for field in PER_TOKEN if hasattr(example, field)]
            full = {field: np.resize(getattr(example, field), bucket) for field in tokens}
            filled = example.replace(**full)
            self._take(collate([filled] * self.batch_size, (bucket,)))

    def run(self, steps: int) -> Any:
        """Takes `steps` steps on the next batches."""
        for _ in range(steps):
            batch = next(self._batches)
            self.tokens.append(batch.ids.shape[1])
            self._take(batch)
        return self._state.params

    def _take(self, batch: Any) -> None:
        placed = place_batch(batch, self._layout)
        self._state, _ = self._step(self._state, self._frozen, placed, self._key)

    @property
    def epoch(self) -> int:
        """Number of batches per epoch."""
        return math.ceil(self.examples / self.batch_size)


def user_level(ws: Workspace, data: Data, language: Language, held: Any) -> Tuning:
    """The training of `parse`."""
    config = ws.experiment.parse
    parser, train = preference_parser(language.ranker, config), data.split.train
    pieces = preference_pieces(language.pieces, config, int(train.lengths.max()))
    users = data.split.training_users
    target = np.full(config.categories, 1 / config.categories, np.float32)

    def example(index: int, _: Any) -> PreferenceText:
        text = preference_text(pieces, train.history(int(users[index])))
        counted = counted_tokens(text, config)
        return PreferenceText(ids=text.ids, counted=counted, targets=target)

    width = language.model.width
    trained = {
        "projection": init_projection(width, config.categories, jax.random.key(0)),
        "adapters": init_adapters(language.params, config.adalora, jax.random.key(1)),
    }
    optimizer = parsing_optimizer(config)
    gradients = mean_loss_gradients(parsing_loss(parser, config))
    return Tuning(
        len(users),
        example,
        step=TrainStep(gradients, optimizer, language.layout),
        state=create_state(trained, optimizer),
        frozen={"params": language.params, "unit": jax.numpy.ones([])},
        held=held,
    )


def instance_level(
    ws: Workspace, data: Data, language: Language, held: Any, *, whole: bool
) -> Tuning:
    """One example per interaction, with the loss of `tune` and the adapters of `parse`."""
    adalora, train = ws.experiment.parse.adalora, data.split.train
    longest = int(train.lengths.max())
    rows = latest_rows(train, data.split.training_users, longest, labelled=True)
    labels, pieces = next_items(train, rows), language.pieces
    if whole:
        pieces = preference_pieces(pieces, ws.experiment.parse, longest)
    nothing = np.zeros(0, np.int32)

    def example(index: int, _: Any) -> LabelledText:
        shown = train.history(int(rows.users[index]))[: rows.ends[index]]
        text = lsr_ids(pieces, shown, pattern=nothing)
        return LabelledText(ids=text, label=np.int32(labels[index]))

    ranker = replace(language.ranker, model=language.model.with_adapters(adalora))
    known = data.split.known_items(data.num_items)
    config = replace(ws.experiment.tune, adalora=adalora, loss_over="catalogue", anchor=0.0)
    optimizer = with_rank_allocation(
        make_optimizer(ws.experiment.parse.optimizer, PLANNED), adalora, PLANNED
    )
    gradients = mean_loss_gradients(ranking_loss(ranker, known, config))
    adapters = init_adapters(language.params, adalora, jax.random.key(1))
    return Tuning(
        len(labels),
        example,
        step=TrainStep(gradients, optimizer, language.layout),
        state=create_state({"adapters": adapters}, optimizer),
        frozen={"params": language.params, "prompt": None, "vectors": language.vectors},
        held=held,
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--workdir", required=True)
    options.add_argument("--quick", action="store_true")
    values = options.parse_args()
    steps, rounds = (2, 2) if values.quick else (8, 3)
    ws = Workspace(Path(values.workdir), stored_experiment(values.workdir))
    data = load_data(ws)
    language = Inputs(ws).language
    held = {
        "layout": language.layout,
        "batch_size": ws.experiment.parse.batch_size,
        "buckets": make_buckets(ws.experiment.parse.max_tokens),
    }
    cases = {
        "user": user_level(ws, data, language, held),
        "whole": instance_level(ws, data, language, held, whole=True),
        "latest": instance_level(ws, data, language, held, whole=False),
    }
    for case in cases.values():
        case.compile()
    seconds = harness.interleave(
        {name: lambda case=case: case.run(steps) for name, case in cases.items()}, rounds
    )
    report(ws, data.corpus.name, cases, seconds, steps=steps, quick=values.quick)


def report(
    ws: Workspace, corpus: str, cases: dict[str, Tuning], seconds: Any, *, steps: int, quick: bool
):
    """Saves everything, and prints the ratios of examples and of time per epoch."""
    each = {name: value / steps for name, value in harness.medians(seconds).items()}
    found = {
        name: {
            "examples": case.examples,
            "batches": case.epoch,
            "seconds_a_batch": each[name],
            "padded_tokens_a_text": float(np.mean(case.tokens)),
            "epoch_seconds": each[name] * case.epoch,
            "repeats": seconds[name],
        }
        for name, case in cases.items()
    }
    settings = {
        "corpus": corpus,
        "batch_size": ws.experiment.parse.batch_size,
        "max_tokens": ws.experiment.parse.max_tokens,
        "steps": steps,
    }
    harness.save(f"{NAME}_{corpus}" + (".quick" if quick else ""), settings, found)
    ours = found["user"]
    for name in ("whole", "latest"):
        peer = found[name]
        for case, key, unit in (("examples", "examples", ""), ("epoch", "epoch_seconds", "s")):
            print(
                harness.ratio_line(
                    NAME, f"{corpus} {case}, user/{name}", ours=ours[key], peer=peer[key], unit=unit
                )
            )


if __name__ == "__main__":
    main()
