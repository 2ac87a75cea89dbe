"""The settings of the language model and of the stage `pretrain`."""

from dataclasses import dataclass

from delrec_jax.errors import UserError
from delrec_jax.language.families import find_family
from delrec_jax.language.t5_config import T5Config
from delrec_jax.language.verbalizers import find_verbalizer
from delrec_jax.training.loop import LoopConfig
from delrec_jax.training.optimizers import OptimizerConfig


@dataclass(frozen=True)
class LMConfig:
    """The language model.

    Attributes:
      family: its kind: `t5`, or `FILE.py:NAME` of your own (an object of a class that inherits `language.family.Family`).
      t5: the shape of a T5; the vocabulary's size is the tokenizer's when `pretrain` makes one.
      vocab_size: ids of a trained tokenizer, sentinels included, at most.
      sentinels: number of `<extra_id_*>` of a trained tokenizer.
      verbalizer: `mean` or `first` (rank the whole catalogue from one pass), `sequence` or `index` (stated candidates only), or
        `FILE.py:NAME` of your own (an object of a class that inherits `language.verbalizer.Verbalizer`).
      weights: a directory or hub name of pretrained weights of this family, such as `google/flan-t5-small`; the sizes in `t5`
        do not count then, and `pretrain` trains nothing. Empty = a small model of our own.
      tokenizer: directory or hub name; empty = the one beside `weights`, or one of our own.
    """

    family: str = "t5"
    t5: T5Config = T5Config(
        d_model=64,
        d_kv=32,
        d_ff=128,
        num_layers=2,
        num_decoder_layers=1,
        num_heads=2,
        dropout_rate=0.0,
    )
    vocab_size: int = 600
    sentinels: int = 32
    verbalizer: str = "mean"
    weights: str = ""
    tokenizer: str = ""

    def __post_init__(self):
        find_family(self.family)
        find_verbalizer(self.verbalizer)
        if self.tokenizer and not self.weights:
            raise UserError(
                f"lm.tokenizer is {self.tokenizer!r}, but lm.weights is not set: without pretrained weights `delrec pretrain` "
                "trains its own tokenizer; leave it empty"
            )


@dataclass(frozen=True)
class GateConfig:
    """What the pre-trained LM must have learned before it is worth distilling into: least accuracies on held-out items.

    Attributes:
      attributes: attribute questions, best word of all the attribute's values.
      next_in_series: "the next volume" of a series, top-1 of the whole catalogue; needs known relations.
      next_item: HR@10 of the next item for validation users, over the whole catalogue.
    """

    attributes: float = 0.0
    next_in_series: float = 0.0
    next_item: float = 0.0


@dataclass(frozen=True)
class PretrainTextConfig:
    """Shares and shapes of the texts.

    Attributes:
      short, several, full, attributes, recent, cloze: shares of the batches; the first three need a catalogue with known
        relations (the storefront), `attributes` one with attributes, the last two
        interactions.
      queries: questions a text, at most.
      no_instruction: share of `full` texts whose instruction is left out: any behaviour may be meant.
      history: longest history of `several` and `full`, in items.
      window: longest history of a `cloze` text, in items.
      recent_window: longest history of a `recent` text, in items.
      mask_rate: share of a cloze history's titles that are masked.
      heldout_items: share of items that no question on the catalogue has as its answer, for the gate.
      batch_tokens: tokens of a batch, padding included.
      short_first: batches at the start that are `short` or `recent` only: look-ups are found sooner in short texts.
    """

    short: float = 0.4
    several: float = 0.2
    full: float = 0.3
    attributes: float = 0.1
    recent: float = 0.0
    cloze: float = 0.0
    queries: int = 4
    no_instruction: float = 0.2
    history: int = 6
    window: int = 32
    recent_window: int = 8
    mask_rate: float = 0.3
    heldout_items: float = 0.1
    batch_tokens: int = 4096
    short_first: int = 0

    def __post_init__(self):
        shares = (self.short, self.several, self.full, self.attributes, self.recent, self.cloze)
        if min(shares) < 0 or sum(shares) <= 0:
            raise UserError(
                f"pretrain.text: the shares of short, several, full, attributes, recent, cloze are {shares}: one must be "
                "positive, none negative"
            )


@dataclass(frozen=True)
class PretrainConfig:
    """Pre-training of a small language model on the catalogue's own text.

    Attributes:
      text: which texts, in which shares.
      bag_weight: weight of the words' loss.
      catalogue_weight: weight of the cross-entropy over all titles, for answers that are titles.
    """

    text: PretrainTextConfig = PretrainTextConfig()
    optimizer: OptimizerConfig = OptimizerConfig(
        learning_rate=3e-3, warmup_steps=60, weight_decay=0.01
    )
    loop: LoopConfig = LoopConfig(steps=1500, evaluate_every=250)
    bag_weight: float = 1.0
    catalogue_weight: float = 0.0
    gate: GateConfig = GateConfig()
