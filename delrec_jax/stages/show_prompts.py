"""`delrec prompts`: whole examples of each task with label and target mask, for reading."""

from typing import Any

import numpy as np

from delrec_jax.data import prompts
from delrec_jax.delrec import prompt_examples
from delrec_jax.language.tokenizer import PAD
from delrec_jax.p2rec import files
from delrec_jax.p2rec.preferences import preference_targets
from delrec_jax.workdir import assets
from delrec_jax.workdir.assets import Data, Language
from delrec_jax.workdir.workspace import Workspace

_SHOWN = 5  # categories of a target


def show_prompts(ws: Workspace, count: int) -> None:
    """Prints `count` examples of each task of the run's method as the models read them.

    The target mask marks the one place of the text that is asked for: `^` under MASK's token, `.` elsewhere.
    """
    data = assets.load_data(ws)
    language = assets.load_language(ws, data)
    if ws.experiment.method != "delrec":
        _show_preferences(ws, data, language, count)
    if ws.experiment.method != "p2rec":
        _show_delrec(ws, data, language, count)


def _show_preferences(ws: Workspace, data: Data, language: Language, count: int) -> None:
    """A user's text and target distribution, and the text of one item alone."""
    categories = files.load_categories(ws, ws.experiment.seed)
    targets = preference_targets(data.split.train, categories.of_item, categories.count)
    train = data.split.train
    pieces = files.preference_pieces(ws, language, int(train.lengths.max()))
    for user in data.split.training_users[:count]:
        ids = prompts.preference(pieces, train.history(int(user)))
        print(f"== Information reconstruction: {len(ids)} tokens, padding id {PAD}")
        print(" ".join(_token(language, int(token)) for token in ids))
        best = np.argsort(-targets[user], kind="stable")[:_SHOWN]
        print("target: " + ", ".join(f"category {k}: {targets[user][k]:.3f}" for k in best))
        print()
    for item in range(count):
        ids = prompts.preference(pieces, np.array([item]))
        print(f"== Information augmentation, item {item}: {len(ids)} tokens")
        print(" ".join(_token(language, int(token)) for token in ids))
        print()


def _show_delrec(ws: Workspace, data: Data, language: Language, count: int) -> None:
    users = data.split.training_users[: max(count, 1)]
    positions = ws.experiment.distill.positions
    rows = prompt_examples.latest_rows(data, users, positions, labelled=False)
    lists = prompt_examples.make_lists(ws, data, rows, seed=ws.experiment.seed)
    texts = prompt_examples.make_texts(ws, language, users, "teacher", lists)
    rng = np.random.default_rng(ws.experiment.seed)
    for user in users[:count]:
        if user in texts.ta_users:
            _show(data, language, "Temporal Analysis (TA)", texts.temporal(int(user), rng))
        order = rng.permutation(lists.items.shape[1])
        example = texts.listed(int(np.flatnonzero(rows.users == user)[-1]), order, language.slots)
        _show(data, language, "Recommendation Pattern Simulating (RPS)", example)
    for index, asked in enumerate(data.split.histories("valid")[:count]):
        candidates = data.candidates["valid"].items[index]
        ids = prompts.recommendation(
            language.pieces, asked, pattern=language.slots, candidates=candidates
        )
        target = (candidates == data.split.target("valid")[index]).astype(np.float32)
        example = {"ids": ids, "candidates": candidates, "targets": target}
        _show(data, language, "Next item (LSR)", example)


def _show(data: Data, language: Language, name: str, example: dict[str, Any]) -> None:
    ids, candidates, targets = example["ids"], example["candidates"], example["targets"]
    best = int(np.argmax(targets))
    tokens = [_token(language, int(token)) for token in ids]
    mask = ["^" if token == language.pieces.sentinel else "." for token in ids]
    titles = data.corpus.catalogue.titles
    print(f"== {name}: {len(ids)} tokens, padding id {PAD}")
    print(" ".join(tokens))
    print("target mask: " + "".join(mask))
    print(f"label: {titles[candidates[best]]}  (weight {targets[best]:.3f})")
    print("candidates: " + "; ".join(titles[item] for item in candidates))
    print()


def _token(language: Language, token: int) -> str:
    slot = token - language.model.vocab_size
    return f"[P{slot}]" if slot >= 0 else language.tokenizer.decode([token]).strip() or "_"
