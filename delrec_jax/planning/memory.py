"""Bytes per device in each stage: what stays allocated (exact), and temporaries (compiled, or estimated).

The estimate of temporaries, in bytes per device, for b rows of a part of the batch, T tokens, width D, H heads of width K,
feed-forward width F (H and F divided by mesh.tensor), L layers, and a bytes per value (`language.family.Sizes`):

    block(b, T, S) = a b T (6 D + 4 H K + 4 F) + (4 + a) b H T S        all values of a block whose tokens attend to S positions
    step           = kept + 1.5 block + gathered + 2 trained + 4 scores
    scoring        = 0.6 block + gathered + 2 scores                    the batch of texts that a stage selects by
    kept           = L a b T D where blocks are recomputed (with `remat=dots`: 3 D + 6 H K + 2 F in place of D), else 1.2 L
                     blocks, of encoder and decoder
    gathered       = one block's weights where mesh.fsdp > 1
    scores         = 4 bytes for every item (or candidate, or category) of every row; in `pretrain` also for every word of
                     every question

`parse` does not use the decoder: only the encoder's blocks count.
The factors 1.5 (a block's values, and the gradients of some), 1.2, and 0.6 (no gradients, and values are freed) are fitted to
XLA's compilers for TPU v5e, v5p and H100. For the 28 steps that they are fitted to (`distill` and `tune` of encoder-decoders
with 77 million to 11 billion parameters, in bfloat16 and float32, with and without recomputing, along all axes of the mesh)
the estimate is 0.95 to 2.0 times the compilers' figure (median 1.15); XLA for CPU reports 1.6 to 4.3 times that figure in
bfloat16 and 0.8 times in float32. cuDNN's attention holds no [b, H, T, S]: a block then lacks its last term, and 1.5 blocks are
kept of each (fitted to one model of 3 billion parameters on one card, an H200: 47 GiB in `distill` and 52 in `tune`).
"""

import time
from dataclasses import dataclass, replace
from typing import Any

import jax

from delrec_jax.config import Experiment
from delrec_jax.errors import one_line
from delrec_jax.language.family import LanguageModel
from delrec_jax.language.verbalizers import find_verbalizer
from delrec_jax.planning.shapes import Assumed, planned_model
from delrec_jax.planning.shardings import Row, bytes_per_device
from delrec_jax.teachers.losses import rows_per_chunk
from delrec_jax.training.task import Task

_STEP_BLOCKS, _SCORING_BLOCKS, _KEPT_BLOCKS, _KEPT_FUSED = 1.5, 0.6, 1.2, 1.5


@dataclass(frozen=True)
class Temporaries:
    """Bytes per device that the train step and the scoring of a stage need while they run."""

    step: int
    scoring: int

    @property
    def most(self) -> int:
        """The larger of the two, as only one runs at a time."""
        return max(self.step, self.scoring)


@dataclass(frozen=True)
class StageMemory:
    """What one stage needs on one device, in bytes.

    Attributes:
      stage: its name.
      frozen, trains, optimizer, batch: exact sizes of what stays allocated.
      estimated: temporaries by the formula.
      compiled: temporaries by the compiler, if it was run and did not refuse.
      padding: bytes that the compiler's layout adds to what stays allocated.
      refused: the compiler's message if the program is too large for its chip.
      seconds: time for lowering and compiling.
    """

    stage: str
    frozen: int
    trains: int
    optimizer: int
    batch: int
    estimated: Temporaries
    compiled: Temporaries | None = None
    padding: int = 0
    refused: str = ""
    seconds: float = 0.0

    @property
    def resident(self) -> int:
        """Bytes that stay allocated while the step runs."""
        return self.frozen + self.trains + self.optimizer + self.batch + self.padding

    @property
    def by_estimate(self) -> int:
        """Total bytes by the formula."""
        return self.resident + self.estimated.most

    @property
    def by_compiler(self) -> int | None:
        """Total bytes by the compiler; None without its figures."""
        return None if self.compiled is None else self.resident + self.compiled.most


def stage_memory(
    experiment: Experiment, planned: Task, tables: dict[str, list[Row]], assumed: Assumed
) -> StageMemory:
    """Returns the exact sizes and the estimate; `with_compiled` adds the compiler's figures."""
    sizes = {name: bytes_per_device(rows) for name, rows in tables.items()}
    return StageMemory(
        stage=planned.stage,
        frozen=sizes["frozen"],
        trains=sizes["trains"],
        optimizer=sizes["optimizer"],
        batch=sizes["batch"],
        estimated=_estimate(experiment, planned, sizes["trains"], assumed),
    )


def with_compiled(memory: StageMemory, planned: Task, options: dict[str, Any]) -> StageMemory:
    """Compiles step and scoring; a compiler for a real chip may refuse them as too large."""
    start = time.perf_counter()
    try:
        step = planned.lower().compile(options).memory_analysis()
        scoring = None
        if planned.scoring is not None:
            scoring = planned.scoring.lower().compile(options).memory_analysis()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return replace(memory, refused=one_line(error))
    return replace(
        memory,
        compiled=Temporaries(_temporaries(step), 0 if scoring is None else _temporaries(scoring)),
        padding=max(0, step.argument_size_in_bytes - memory.resident),
        seconds=time.perf_counter() - start,
    )


def _temporaries(found: Any) -> int:
    """Returns the bytes of temporaries, code, and outputs that do not reuse an argument's memory."""
    outputs: int = found.output_size_in_bytes - found.alias_size_in_bytes
    own: int = found.temp_size_in_bytes + found.generated_code_size_in_bytes
    return own + outputs


def _estimate(experiment: Experiment, planned: Task, trained: int, assumed: Assumed) -> Temporaries:
    ways = planned.layout.ways
    rows = -(-planned.rows // (planned.parts * ways))
    scored = 0 if planned.scoring is None else _rows(planned.scoring.rows)
    if planned.stage == "teach":
        passes = _teacher(experiment, rows, assumed.items) + 2 * trained
        return Temporaries(passes, 4 * assumed.items * 3 * scored // ways)
    part = part_of(experiment, planned, assumed)
    gathered = float(part.weights()) if planned.layout.mesh.shape["fsdp"] > 1 else 0.0
    tokens = planned.batch.ids.shape[1]
    scores = _scores(experiment, planned, assumed, batch=planned.batch, rows=rows)
    step = gathered + part.kept(rows, tokens) + _STEP_BLOCKS * part.largest(rows, tokens)
    step += 2 * trained + 4 * scores
    if planned.scoring is None:
        return Temporaries(int(step), 0)
    scoring = gathered + _SCORING_BLOCKS * part.largest(-(-scored // ways), tokens)
    # Rows whose scores a device gets.
    kept = scored if planned.scoring.axes is None else -(-scored // ways)
    scoring += 2 * _scores(experiment, planned, assumed, batch=planned.scoring.rows, rows=kept)
    return Temporaries(int(step), int(scoring))


def part_of(experiment: Experiment, planned: Task, assumed: Assumed) -> "Part":
    """Returns one device's part of the language model in a stage that uses it."""
    model, _ = planned_model(experiment)
    answers = _answers(experiment, planned, assumed, opening=model.sizes.opening)
    size = model.sizes.weight_bytes
    if experiment.lm.quantise and planned.stage != "pretrain":
        size = model.sizes.activation_bytes  # converted before they are gathered
    return Part(model, planned.layout.mesh.shape["tensor"], answers, size)


@dataclass(frozen=True)
class Part:
    """One device's part of the language model.

    Attributes:
      model: the language model.
      tensor: devices that share the work on each text.
      answers: how many each text has (0: no decoder), and the tokens of each.
      kernel_bytes: bytes of one weight of a block as it is gathered.
    """

    model: LanguageModel
    tensor: int
    answers: tuple[int, int]
    kernel_bytes: int

    def blocks(self, rows: int, tokens: int) -> tuple[float, float]:
        """Returns the bytes of all values of one encoder block, and of one decoder block."""
        count, length = self.answers
        return self._block(rows, tokens, tokens), self._block(rows, count * length, tokens + length)

    def largest(self, rows: int, tokens: int) -> float:
        """Returns the larger of the two."""
        return max(self.blocks(rows, tokens))

    def kept(self, rows: int, tokens: int) -> float:
        """Returns the bytes that the forward pass keeps for the backward pass."""
        sizes, (count, length) = self.model.sizes, self.answers
        encoder, decoder = self.blocks(rows, tokens)
        if sizes.remat != "none":
            size = sizes.activation_bytes * rows * self._kept_width()
            return size * (sizes.encoder_blocks * tokens + sizes.decoder_blocks * count * length)
        factor = _KEPT_FUSED if sizes.fused else _KEPT_BLOCKS
        return factor * (sizes.encoder_blocks * encoder + sizes.decoder_blocks * decoder)

    def weights(self) -> int:
        """Returns the bytes of the largest block's weights on one device while the block is computed."""
        sizes, width = self.model.sizes, self.model.width
        attentions = 2 if self.answers[0] else 1
        attention = 4 * attentions * width * sizes.heads * sizes.head_width
        return self.kernel_bytes * (attention + 3 * width * sizes.feed_forward) // self.tensor

    def _kept_width(self) -> float:
        """Returns the values per token that the forward pass keeps of a block where blocks are recomputed."""
        sizes, width = self.model.sizes, float(self.model.width)
        # With "dots" also q, k, v, both adapters of an attention, what it attends to; gates and hidden values.
        if sizes.remat == "dots":
            products = 6 * sizes.heads * sizes.head_width + 2 * sizes.feed_forward
            width += 2 * self.model.width + products / self.tensor
        return width

    def _block(self, rows: int, tokens: int, keys: int) -> float:
        sizes = self.model.sizes
        heads, size = sizes.heads / self.tensor, sizes.activation_bytes
        width = 6 * self.model.width + 4 * heads * sizes.head_width
        width += 4 * sizes.feed_forward / self.tensor
        weights = 0 if sizes.fused else (4 + size) * rows * heads * tokens * keys
        return size * rows * tokens * width + weights


def _answers(
    experiment: Experiment, planned: Task, assumed: Assumed, *, opening: int
) -> tuple[int, int]:
    """Returns the number of answers per text, and the tokens that the decoder reads for each."""
    if planned.stage == "parse":
        return 0, 0
    if planned.stage == "pretrain":
        return experiment.pretrain.text.queries, 1 + opening
    batch, verbalizer = planned.batch, find_verbalizer(experiment.lm.verbalizer)
    listed = _listed(batch)
    count, tokens = verbalizer.answers(listed, assumed.title_tokens)
    return count, (tokens + opening if count else 0)


def _scores(
    experiment: Experiment, planned: Task, assumed: Assumed, *, batch: Any, rows: int
) -> int:
    """Returns the bytes of the scores of `rows` rows of a batch."""
    if planned.stage == "parse":
        return 4 * rows * experiment.parse.categories
    if planned.stage == "pretrain":
        config = experiment.pretrain
        words = experiment.lm.vocab_size if config.bag_weight else 0
        items = assumed.items if config.catalogue_weight else 0
        return 4 * rows * config.text.queries * (words + items)
    # Of the teacher that the language model is tuned beside.
    beside = 4 * rows * assumed.items if getattr(batch, "history", None) is not None else 0
    if not _listed(batch):
        return beside + 4 * rows * assumed.items
    logits = find_verbalizer(experiment.lm.verbalizer).max_logits
    return beside + 4 * (rows * _listed(batch) + logits)


def _listed(batch: Any) -> int:
    """Returns the number of candidates per text; 0 if none are listed."""
    candidates = getattr(batch, "candidates", None)
    return 0 if candidates is None else int(candidates.shape[1])


def _rows(batch: Any) -> int:
    rows: int = jax.tree.leaves(batch)[0].shape[0]
    return rows


def _teacher(experiment: Experiment, rows: int, items: int) -> int:
    """Estimates 16 values per position, layer and channel, attention, and three chunks of scores, all in float32."""
    config: Any = experiment.teacher.shape
    length: int = config.max_length
    width: int = max(config.width, getattr(config, "hidden", 0))
    values: int = 16 * width + 2 * getattr(config, "heads", 0) * length
    layers: int = getattr(config, "layers", 1)
    scores = rows_per_chunk(items, config.width) * items
    return 4 * (rows * length * layers * values + 3 * scores)
