"""The language model of a run with everything that turns items into texts for it, read back from the workdir."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from delrec_jax.config import Experiment
from delrec_jax.data.prompts import Pieces, tokenise_pieces
from delrec_jax.data.read_texts import with_owners, with_title_slots
from delrec_jax.data.templates import Template
from delrec_jax.errors import UserError
from delrec_jax.language.family import LanguageModel
from delrec_jax.language.ranker import Ranker
from delrec_jax.language.soft_prompt import slot_ids
from delrec_jax.language.tokenizer import Tokenizer
from delrec_jax.language.verbalizer import title_matrix
from delrec_jax.language.verbalizers import find_verbalizer
from delrec_jax.teachers.registry import display_name
from delrec_jax.training.sharding import Layout, place
from delrec_jax.workdir import base_model
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.title_vectors import TitleEncoder, TitleStore, title_room
from delrec_jax.workdir.workspace import Workspace


@dataclass(frozen=True)
class Texts:
    """What turns items into texts for a language model, without the model.

    Attributes:
      slots: ids that mark the positions of the soft prompt.
      table_rows: rows of the model's token table; slots are numbered from here on.
    """

    tokenizer: Tokenizer
    pieces: Pieces
    slots: np.ndarray
    table_rows: int


@dataclass(frozen=True)
class Language:
    """The frozen language model with everything that turns items into texts for it.

    Attributes:
      params: frozen parameters, on the devices.
      slots: ids that mark the positions of the soft prompt.
      layout: placement of the parameters, and of everything that is computed with them.
      title_store: where the vectors of titles are kept.
    """

    tokenizer: Tokenizer
    ranker: Ranker
    params: Any
    pieces: Pieces
    slots: np.ndarray
    layout: Layout
    title_store: TitleStore

    @property
    def model(self) -> LanguageModel:
        """The model itself."""
        return self.ranker.model

    def put(self, tree: Any) -> Any:
        """Places a prompt or adapters on the devices of the parameters."""
        return place(tree, self.layout.of(tree))

    @cached_property
    def vectors(self) -> jax.Array | None:
        """The verbalizer's item vectors [I, D], or None if titles have no vectors.

        The head is frozen from stage 1 on, so one matrix serves all batches and systems, but those that stage 2 tunes with
        `tune.refresh_vectors`. Rows of zeros follow where the mesh splits the catalogue and it does not divide: no device holds
        all rows of a large one.
        """
        if not self.ranker.ranks_catalogue:
            return None
        if self.ranker.verbalizer.encodes_titles:
            return self._placed(self.title_vectors)
        items, missing = len(self.ranker.title_tokens), self._missing
        rows = (items + missing, self.model.width)
        home = self.layout.of({"vectors": jax.ShapeDtypeStruct(rows, np.float32)})["vectors"]

        def padded(params: Any) -> jax.Array:
            return jnp.pad(self.ranker.item_vectors(params), ((0, missing), (0, 0)))

        with self.layout.active():
            vectors: jax.Array = jax.jit(padded, out_shardings=home)(self.params)
        return vectors

    @cached_property
    def title_vectors(self) -> np.ndarray:
        """The vector of each title, read alone with its special tokens: float32 [I, D], on the host."""
        return self.title_store.vectors(self._title_encoder, self.params)

    def tuned_vectors(self, adapters: Any, store: TitleStore | None = None) -> jax.Array:
        """Returns what `vectors` is with these adapters, on the devices; from a store if one is given.

        Args:
          adapters: AdaLoRA's tree, on the devices.
          store: keeps them.
        """
        read = self._title_encoder if store is None else partial(store.vectors, self._title_encoder)
        return self._placed(read(self.params, adapters))

    def _placed(self, titles: np.ndarray) -> jax.Array:
        found: jax.Array = self.put({"vectors": np.pad(titles, ((0, self._missing), (0, 0)))})[
            "vectors"
        ]
        return found

    @property
    def _missing(self) -> int:
        """Rows after those of the items, so that they divide over the devices."""
        items = len(self.ranker.title_tokens)
        return self.layout.padded("catalogue", items) - items

    @cached_property
    def _title_encoder(self) -> TitleEncoder:
        titles = [self.pieces.framed(row[row > 0]) for row in self.ranker.title_tokens]
        return TitleEncoder(self.model, self.layout, titles)

    @cached_property
    def readout(self) -> dict[str, Any]:
        """The start of the verbalizer's own parameters, on the devices; empty if it has none."""
        found: dict[str, Any] = self.put({"readout": self.ranker.readout()})["readout"]
        return found

    def ids(self, text: str) -> np.ndarray:
        """Returns the token ids of a text."""
        return np.array(self.tokenizer.encode(text), np.int32)


def text_with_slots(tokenizer: Tokenizer, ids: Sequence[int], first_slot: int) -> str:
    """Returns token ids as one text, in which the slots of the soft prompt are [P0], [P1] and so on.

    Args:
      tokenizer: the language model's.
      ids: ids of a text, without padding.
      first_slot: the id of slot 0; all higher ones are slots too.
    """
    parts: list[str] = []
    for slots, run in groupby(ids, key=lambda token: token >= first_slot):
        tokens = list(run)
        if slots:
            parts += [f"[P{token - first_slot}]" for token in tokens]
        else:
            parts.append(tokenizer.decode(tokens).strip())
    return " ".join(parts)


def code_count(config: Experiment) -> int:
    """Returns how many codes a verbalizer of listed candidates needs: one per candidate of the longest list."""
    lists = (config.candidates.num, config.candidates.rerank)
    return max(*lists, config.distill.num_candidates, config.tune.num_candidates)


def make_pieces(
    config: Experiment,
    tokenizer: Tokenizer,
    titles: tuple[str, ...],
    templates: Mapping[str, Template],
    *,
    lists: bool = True,
) -> Pieces:
    """Tokenizes the catalogue, and the templates in the words of the config's domain.

    Args:
      config: the config.
      tokenizer: the language model's.
      titles: titles of the catalogue.
      templates: the template of each task by name.
      lists: whether texts list candidates and ranks where the config says so; False = in no text.
    """
    verbalizer = find_verbalizer(config.lm.verbalizer)
    codes = tokenizer.codes(code_count(config)) if lists and verbalizer.lists_codes else []
    begin, end = tokenizer.frame(end_of_text=config.prompts.end_of_text)
    begin = (*begin, *tokenizer.encode(config.lm.prefix))
    limits = config.prompts
    if not lists:
        limits = replace(limits, show_candidates=False, show_ranks=False)
    pieces = tokenise_pieces(
        tokenizer.encode_many,
        titles,
        templates,
        domain=config.data.domain,
        teacher=display_name(config.teacher.name),
        sentinel=tokenizer.sentinel(0),
        codes=codes,
        begin=begin,
        end=end,
        config=limits,
    )
    return with_owners(pieces) if verbalizer.reads_owners else pieces


def _with_slots(config: Experiment, pieces: Pieces, first: int) -> tuple[Pieces, np.ndarray]:
    """The slots of the config's prompt, numbered from `first` on: K, or one for each item, which texts then place."""
    count = len(pieces.titles) if config.distill.titled else config.distill.length
    slots = np.array(slot_ids(first, count), np.int32)
    return with_title_slots(pieces, slots) if config.distill.titled else pieces, slots


def make_ranker(config: Experiment, data: Data, tokenizer: Tokenizer, pieces: Pieces) -> Ranker:
    """Returns a ranker: the language model with the catalogue's titles."""
    model = base_model.make_model(config, tokenizer)
    return _ranker(config, data.corpus.catalogue.titles, model, tokenizer, pieces)


def _ranker(
    config: Experiment,
    titles: tuple[str, ...],
    model: LanguageModel,
    tokenizer: Tokenizer,
    pieces: Pieces,
) -> Ranker:
    cut = pieces.config.max_title_tokens > 0
    ids = tokenizer.encode_many(titles) if cut else [title.tolist() for title in pieces.titles]
    if empty := [item for item, tokens in enumerate(ids) if not len(tokens)]:
        raise UserError(
            f"title {titles[empty[0]]!r}: this language model's tokenizer makes no token of it ({len(empty)} such titles); "
            "correct it in the file of the items, or take another language model"
        )
    room = title_room(model, pieces)
    tokens, weights = title_matrix([title[:room] for title in ids] if room else ids)
    verbalizer = find_verbalizer(config.lm.verbalizer)
    verbalizer = verbalizer.configured(config.lm, pieces.begin.tolist(), pieces.end.tolist())
    return Ranker(model, tokens, weights, pieces.sentinel, verbalizer, pieces.codes)


def load_texts(ws: Workspace, data: Data, templates: Mapping[str, Template]) -> Texts:
    """Returns what `load_language` does without the model: pretrained weights need a tokenizer's directory alone."""
    tokenizer = Tokenizer(base_model.tokenizer_directory(ws))
    pieces = make_pieces(ws.experiment, tokenizer, data.corpus.catalogue.titles, templates)
    rows = base_model.table_rows(ws.experiment, tokenizer)
    pieces, slots = _with_slots(ws.experiment, pieces, rows)
    return Texts(tokenizer, pieces, slots, rows)


@dataclass(frozen=True)
class Base:
    """Where a base model is.

    Attributes:
      tokenizer: directory of its tokenizer.
      weights: directory of pretrained weights; None if they are our own.
      load: loads the frozen parameters, placed as a layout says.
      titles: where the vectors of titles are kept.
    """

    tokenizer: Path
    weights: Path | None
    load: Callable[[LanguageModel, Layout], Any]
    titles: TitleStore


def load_language(ws: Workspace, data: Data, templates: Mapping[str, Template]) -> Language:
    """Loads the base model that `pretrain` made or adopted, with its tokenizer and texts."""
    name = base_model.fingerprint(ws) + ws.experiment.lm.quantise
    base = Base(
        base_model.tokenizer_directory(ws),
        base_model.model_directory(ws.experiment),
        partial(base_model.load_params, ws),
        TitleStore(ws.folder("pretrain") / "title_vectors.npz", name),
    )
    return language_on(base, ws.experiment, data.corpus.catalogue.titles, templates)


def language_on(
    base: Base, config: Experiment, titles: tuple[str, ...], templates: Mapping[str, Template]
) -> Language:
    """Loads a base model with its tokenizer and texts.

    Args:
      base: where it is.
      config: the config.
      titles: titles of the catalogue.
      templates: the template of each task by name.
    """
    tokenizer = Tokenizer(base.tokenizer)
    pieces = make_pieces(config, tokenizer, titles, templates)
    model = base_model.model_of(config, tokenizer, base.weights)
    ranker = _ranker(config, titles, model, tokenizer, pieces)
    # Slots are numbered from the table's size on: a pretrained table has more rows than its tokenizer has ids.
    pieces, slots = _with_slots(config, pieces, model.vocab_size)
    layout = base_model.language_layout(config, model)
    params = base.load(model, layout)
    return Language(tokenizer, ranker, params, pieces, slots, layout, base.titles)
