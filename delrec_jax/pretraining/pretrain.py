"""`delrec pretrain`: trains a tokenizer and a small language model on the corpus, and tests what the model learned."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from delrec_jax import prng
from delrec_jax.config import Experiment, PretrainConfig
from delrec_jax.data.corpora.storefront_world import BEHAVIOUR_WORDS, behaviours
from delrec_jax.data.pipeline import make_buckets
from delrec_jax.data.prompts import Pieces
from delrec_jax.data.templates import Template, all_words, worded
from delrec_jax.data.templates import domain as domain_words
from delrec_jax.distributed import as_main_sees, on_main
from delrec_jax.errors import UserError
from delrec_jax.language.families import find_family
from delrec_jax.language.family import answering
from delrec_jax.language.mean_scoring import MEAN
from delrec_jax.language.ranker import Ranker
from delrec_jax.language.ranking_losses import catalogue_cross_entropy
from delrec_jax.language.tokenizer import CODE_NAMES, Tokenizer, train_tokenizer
from delrec_jax.language.verbalizers import find_verbalizer
from delrec_jax.precision import EXACT
from delrec_jax.pretraining import batches
from delrec_jax.pretraining.bag_loss import bag_loss
from delrec_jax.pretraining.batches import QuestionText
from delrec_jax.pretraining.gate import Gate
from delrec_jax.pretraining.rounds import train_until_passed
from delrec_jax.pretraining.texts import Material
from delrec_jax.teachers.registry import display_name
from delrec_jax.training.gradients import LossFn, Metrics, mean_loss_gradients
from delrec_jax.training.optimizers import make_optimizer
from delrec_jax.training.sharding import Layout
from delrec_jax.training.task import Task
from delrec_jax.training.writers import say
from delrec_jax.workdir import base_model
from delrec_jax.workdir.json_files import write_json
from delrec_jax.workdir.language_model import code_count, make_pieces, make_ranker
from delrec_jax.workdir.language_scorer import text_shapes
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.title_vectors import title_room
from delrec_jax.workdir.workspace import Workspace

_QUESTION_TEXTS = ("The {name} of", "is :")
_JOINTS = (".", ":")
_TEMPLATE_REPEATS = 20  # makes single tokens of the few template words, despite thousands of titles


def pretrain(ws: Workspace, data: Data, templates: Mapping[str, Template]) -> None:
    """Trains a tokenizer and a language model, or adopts pretrained ones; then reports titles that always tie."""
    if ws.experiment.lm.weights:
        base_model.adopt(ws)
        tokenizer = Tokenizer(base_model.tokenizer_directory(ws))
    else:
        tokenizer = _tokenizer(ws, data, templates)
    titles = data.corpus.catalogue.titles
    pieces = make_pieces(ws.experiment, tokenizer, titles, templates)
    ranker = make_ranker(ws.experiment, data, tokenizer, pieces)
    base_model.check_adapters(ws.experiment, ranker.model)
    if not ws.experiment.lm.weights:
        # The templates of stages 1 and 2, without what they list: there are no candidates yet, and no teacher's ranks.
        plain, prompts = pieces, ws.experiment.prompts
        if pieces.lists_candidates or prompts.show_ranks:
            plain = make_pieces(ws.experiment, tokenizer, titles, templates, lists=False)
        material = make_material(ws.experiment, data, tokenizer, plain)
        _train(ws, data, material, ranker)
    _report_long_titles(tokenizer, titles, ranker, pieces)
    _report_shared_titles(ws, titles, ranker)


def _train(ws: Workspace, data: Data, material: Material, ranker: Ranker) -> None:
    """Trains the language model on no validation or test item, like the tokenizer, nor, on the storefront, on any row.

    Raises:
      UserError: the gate failed in every round: what the LM learned is below the marks of `pretrain.gate`.
    """
    config = ws.experiment
    layout = base_model.language_layout(config, ranker.model)
    gate = Gate.build(config, data, material, ranker, layout)
    width = batches.answer_width(material)
    shapes = batches.batch_shapes(
        material, max_tokens=config.prompts.max_tokens, seed=config.seed, ways=layout.ways
    )
    say("  batches: " + ", ".join(f"{s.name} {s.rows} x {s.tokens} tokens" for s in shapes))
    task = pretraining_task(config, ranker, layout, answer_tokens=width)

    def make_batch(index: int, rng: np.random.Generator) -> QuestionText:
        return batches.make_batch(material, shapes, width, index=index, rng=rng)

    train_until_passed(ws, task, gate, make_batch)
    base_model.name_own(ws)


def pretraining_task(
    experiment: Experiment, ranker: Ranker, layout: Layout, *, answer_tokens: int
) -> Task:
    """The training of a small language model; its largest batch has texts of full length with all their questions.

    Args:
      experiment: the config.
      ranker: the language model and the catalogue's titles.
      layout: how the model is placed on the devices.
      answer_tokens: tokens of the longest answer.
    """
    config, family = experiment.pretrain, find_family(experiment.lm.family)
    longest = make_buckets(experiment.prompts.max_tokens)[-1]
    rows = batches.batch_rows(config.text, longest, ways=layout.ways)
    asked = jax.ShapeDtypeStruct((rows, config.text.queries), np.int32)

    def start(frozen: Any, seed: int) -> Any:
        """Random parameters."""
        return family.begin(ranker.model, prng.key(seed, "lm/init"))

    return Task(
        stage="pretrain",
        config=config,
        layout=layout,
        gradients=mean_loss_gradients(pretrain_loss(ranker, config), config.optimizer.accumulate),
        optimizer=make_optimizer(config.optimizer, config.loop.steps),
        start=start,
        frozen=None,
        batch=QuestionText(
            ids=text_shapes(experiment.prompts.max_tokens, rows),
            sentinels=asked,
            answers=jax.ShapeDtypeStruct((*asked.shape, answer_tokens), np.int32),
            items=asked,
        ),
    )


def _report_long_titles(
    tokenizer: Tokenizer, titles: tuple[str, ...], ranker: Ranker, pieces: Pieces
) -> None:
    room, lengths = title_room(ranker.model, pieces), (ranker.title_tokens > 0).sum(axis=1)
    # What the ranker has is cut already: only titles that fill the room can have been longer.
    full = [titles[item] for item in np.flatnonzero(lengths == room)]
    read = zip(full, tokenizer.encode_many(full), strict=True)
    if long := [(title, len(ids)) for title, ids in read if len(ids) > room]:
        first, count = long[0]
        say(
            f"  {len(long)} titles have more tokens than the language model can read and are cut to {room}; the first is "
            f"{first[:80]!r}, with {count}"
        )


def _report_shared_titles(ws: Workspace, titles: tuple[str, ...], ranker: Ranker) -> None:
    groups = ranker.shared_titles
    named = [[titles[item] for item in group] for group in groups]
    on_main(lambda: write_json(ws.folder("pretrain") / "shared_titles.json", named))
    if groups:
        count, kind = sum(map(len, groups)), ws.experiment.lm.verbalizer
        say(
            f"  {count} items in {len(groups)} groups have titles that lm.verbalizer={kind} cannot tell apart (listed in "
            "lm/shared_titles.json): they tie, and ties get their mean rank"
        )


def _tokenizer(ws: Workspace, data: Data, templates: Mapping[str, Template]) -> Tokenizer:
    """The tokenizer, trained on titles, attributes and the words of templates and instructions unless it exists."""
    folder = ws.folder("pretrain") / "tokenizer"
    if not as_main_sees((folder / "tokenizer_config.json").exists):
        on_main(lambda: _make_tokenizer(ws.experiment, data, templates, folder))
    return Tokenizer(folder)


def _make_tokenizer(
    config: Experiment, data: Data, templates: Mapping[str, Template], folder: Path
) -> None:
    catalogue = data.corpus.catalogue
    words = all_words(
        [worded(template, config.prompts.wording) for template in templates.values()],
        domain_words(config.data.domain),
        display_name(config.teacher.name),
    )
    words += [text.format(name=name) for name in catalogue.attributes for text in _QUESTION_TEXTS]
    words += list(_JOINTS)
    if find_verbalizer(config.lm.verbalizer).lists_codes:
        words += CODE_NAMES[: code_count(config)]
    if data.world is not None:
        words += [phrase for phrases in BEHAVIOUR_WORDS.values() for phrase in phrases]
    # Descriptions and links, which differ from item to item, are no attributes: their words would take the place of titles'.
    columns = [
        column
        for column in catalogue.attributes.values()
        if config.pretrain.text.attributes > 0 or 2 * len(set(column)) <= len(column)
    ]
    values = [value for column in columns for value in column if value]
    train_tokenizer(
        [*catalogue.titles, *values, *words * _TEMPLATE_REPEATS],
        catalogue.titles,
        vocab_size=config.lm.vocab_size,
        sentinels=config.lm.sentinels,
        directory=folder,
    )


def make_material(
    experiment: Experiment, data: Data, tokenizer: Tokenizer, pieces: Pieces
) -> Material:
    """Tokenizes what pre-training texts are made from.

    Raises:
      UserError: a share asks for texts that cannot be made from this corpus.
    """
    config = experiment.pretrain.text
    if data.world is None and config.short + config.several + config.full > 0:
        raise UserError(
            "pretrain.text: short, several and full need a catalogue with known relations, which only the storefront has; "
            "set them to 0 and use recent, cloze and attributes"
        )

    def ids(text: str) -> np.ndarray:
        return np.array(tokenizer.encode(text), np.int32)

    catalogue = data.corpus.catalogue
    maps = {} if data.world is None else behaviours(data.world)
    heldout = np.zeros(data.num_items, bool)
    count = int(config.heldout_items * data.num_items)
    heldout[prng.generator(experiment.seed, "lm/heldout").permutation(data.num_items)[:count]] = (
        True
    )
    return Material(
        pieces=pieces,
        sentinels=[tokenizer.sentinel(index) for index in range(config.queries)],
        maps=maps,
        joints=(ids(_JOINTS[0]), ids(_JOINTS[1])),
        words={name: [ids(phrase) for phrase in BEHAVIOUR_WORDS[name]] for name in maps},
        attribute_heads={
            name: (ids(_QUESTION_TEXTS[0].format(name=name)), ids(_QUESTION_TEXTS[1]))
            for name in catalogue.attributes
        },
        attribute_values={
            name: [ids(value) if value else np.zeros(0, np.int32) for value in column]
            for name, column in catalogue.attributes.items()
        },
        train=data.split.train,
        heldout=heldout,
        config=config,
    )


def pretrain_loss(ranker: Ranker, config: PretrainConfig) -> LossFn:
    """The loss of a batch's questions: over the answer's words, and over all titles where the answer is a title."""
    model = answering(ranker.model, "pretrain", remedy="set lm.weights")
    own = ranker.ranks_catalogue and not ranker.verbalizer.encodes_titles
    titles_as = ranker.verbalizer if own else MEAN  # a title that is encoded is no answer

    def loss(
        params: Any, frozen: Any, batch: QuestionText, key: jax.Array
    ) -> tuple[jax.Array, jax.Array, Metrics]:
        """Losses [B, Q] of the questions, their weights [B, Q], and metrics."""
        dropout = key if model.dropout_rate > 0 else None
        hidden = model.answers(params, batch.ids, batch.sentinels, dropout_key=dropout)  # [B, Q, D]
        losses = weights = jnp.zeros(batch.items.shape)
        metrics: Metrics = {}
        if config.bag_weight:
            logits = model.logits(params, hidden)  # [B, Q, V]
            losses, weights = bag_loss(logits, batch.answers)
            losses = config.bag_weight * losses
        if config.catalogue_weight:
            vectors = titles_as.item_vectors(model, params, ranker.titles)  # [I, D]
            scores = jnp.einsum("bqd,id->bqi", hidden, vectors, precision=EXACT)  # [B, Q, I]
            ranking, asked = catalogue_cross_entropy(scores, batch.items)
            losses, weights = (
                losses + config.catalogue_weight * ranking,
                jnp.maximum(weights, asked),
            )
            metrics["loss/catalogue"] = ranking.sum() / jnp.maximum(asked.sum(), 1)
        return losses, weights, metrics

    return loss
