"""P2Rec's item embeddings: the language model encodes each item alone, as the text of a virtual user."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from delrec_jax import prng
from delrec_jax.config import Experiment
from delrec_jax.data.prompts import Pieces
from delrec_jax.distributed import on_main
from delrec_jax.p2rec import files
from delrec_jax.p2rec.cells import RANDOM, SHUFFLED, UNTUNED, cells, seeds
from delrec_jax.p2rec.preference_examples import PooledTexts, counted_tokens, pooled
from delrec_jax.p2rec.preference_parser import preference_parser
from delrec_jax.p2rec.preference_text import (
    PREFERENCE,
    TEMPLATE,
    preference_pieces,
    preference_text,
)
from delrec_jax.p2rec.text_vectors import same_spectrum
from delrec_jax.training.steps import EvalStep
from delrec_jax.workdir.language_model import Language, make_pieces
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.recommenders import AUGMENTED
from delrec_jax.workdir.workspace import Workspace


class ItemEmbedder:
    """Pools the encoder's output over each item's text, as `parse` does over a user's."""

    def __init__(self, config: Experiment, titles: tuple[str, ...], language: Language):
        """Makes the text of every item: its title in the template, without any interactions."""
        self.language, self._config = language, config
        parser = preference_parser(language.ranker, config.parse)
        self._pooled = EvalStep(
            lambda held, texts: parser.pooled(ids=texts.ids, counted=texts.counted, **held),
            language.layout,
        )
        pieces = preference_pieces(_pieces(config, titles, language), config.parse, 1)
        texts = [preference_text(pieces, np.array([item])) for item in range(len(titles))]
        self._texts = [
            PooledTexts(ids=text.ids, counted=counted_tokens(text, config.parse)) for text in texts
        ]

    def embed(self, adapters: Any) -> np.ndarray:
        """The embeddings of all items.

        Args:
          adapters: AdaLoRA's tree of a tuned model; None for the base model.

        Returns:
          float32 [I, E], where E is the model's width.
        """
        placed = None if adapters is None else self.language.put(adapters)
        held = {"params": self.language.params, "adapters": placed}
        return pooled(
            partial(self._pooled, held),
            self._texts,
            batch_size=self._config.augment.batch_size,
            longest=self._config.parse.max_tokens,
        )


def _pieces(config: Experiment, titles: tuple[str, ...], language: Language) -> Pieces:
    """What texts of one item are made of: those of users, or the same with longer (or shorter) titles."""
    most = config.augment.max_title_tokens
    if not most:
        return language.pieces
    changed = replace(config, prompts=replace(config.prompts, max_title_tokens=most))
    return make_pieces(changed, language.tokenizer, titles, {PREFERENCE: TEMPLATE}, lists=False)


def shuffled_owner(count: int, seed: int) -> np.ndarray:
    """For each item, the item whose title it gets in the control: its predecessor in a random circle of all items."""
    circle = prng.generator(seed, "augment/shuffled-titles").permutation(count)
    others = np.empty(count, np.int64)
    others[circle] = np.roll(circle, 1)
    return others


def make_embeddings(ws: Workspace, data: Data, language: Language) -> None:
    """Stores the embeddings of all systems that are compared, and of all seeds.

    Shuffled titles need no second pass: the embedding of a title does not depend on the item that it belongs to.
    """
    embedder = ItemEmbedder(ws.experiment, data.corpus.catalogue.titles, language)
    ids, base = data.corpus.catalogue.ids, ws.content("pretrain")

    def save(system: str, seed: int, vectors: np.ndarray, origin: str) -> None:
        path = files.embeddings_path(ws, system, seed)
        on_main(lambda: files.save_embeddings(path, vectors, ids=ids, origin=origin))

    repeated, wanted = seeds(ws.experiment), {cell.system for cell in cells(ws.experiment)}
    if UNTUNED in wanted:
        save(UNTUNED, repeated[0], embedder.embed(None), f"base model {base}")
    for seed in repeated:
        trained, _ = files.load_parser(ws, seed)
        vectors = embedder.embed(trained.get("adapters"))
        save(AUGMENTED, seed, vectors, f"base model {base}, tuned by parse under seed {seed}")
        if SHUFFLED in wanted:
            others = shuffled_owner(data.num_items, seed)
            save(SHUFFLED, seed, vectors[others], f"seed {seed}, titles of other items")
        if RANDOM in wanted:
            drawn = same_spectrum(vectors, seed)
            save(RANDOM, seed, drawn, f"seed {seed}, random vectors of the same spectrum")
