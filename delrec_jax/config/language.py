"""The settings of the language model and of the stage `pretrain`."""

from dataclasses import dataclass

from delrec_jax.choices import one_of
from delrec_jax.config.tree import at_least
from delrec_jax.errors import UserError
from delrec_jax.language.bert_config import BertConfig
from delrec_jax.language.embedding_config import EmbeddingConfig
from delrec_jax.language.families import find_family
from delrec_jax.language.quantised import KINDS
from delrec_jax.language.t5_config import T5Config
from delrec_jax.language.verbalizers import find_verbalizer
from delrec_jax.training.loop_config import LoopConfig
from delrec_jax.training.optimizers import OptimizerConfig

_SPECIAL = 3  # padding, end of text, unknown


@dataclass(frozen=True)
class LMConfig:
    """The language model.

    Attributes:
      family: its kind: `t5`, `bert` (sentence encoders, always pretrained), or `FILE.py:NAME` of your own (an instance of a
        class that inherits `language.family.Family`).
      t5: the shape of a T5; the vocabulary's size is the tokenizer's if `pretrain` trains one.
      bert: how a BERT encoder runs; its sizes are those of `weights`.
      vocab_size: ids of a trained tokenizer at most, including sentinels.
      sentinels: number of `<extra_id_*>` of a trained tokenizer.
      verbalizer: `mean`, `first` or `embedding` (rank the whole catalogue from one pass), `sequence` or `index` (stated
        candidates only), or `FILE.py:NAME` of your own (an instance of a class that inherits `language.verbalizer.Verbalizer`).
      embedding: settings of the verbalizer `embedding`.
      weights: a directory or hub name of pretrained weights of this family, such as `google/flan-t5-small`; the sizes in `t5`
        are then ignored, and `pretrain` trains nothing. Empty = a small model of our own.
      read: `answers`, or `encoder` = only the token table and the encoder of a T5's `weights`: the decoder is not read, takes
        no memory, and no verbalizer or stage can ask for answers. A BERT has no more than its encoder, whatever this says.
      quantise: `int8` = from stage 1 on (and in `parse`), the frozen base keeps the kernels of its projections in 8 bits, one
        scale per output channel, and dequantizes them as it computes: half the memory of bfloat16. FSDP gathers them in the
        type that is computed in. Empty = as they are.
      tokenizer: a directory or hub name; empty = the one that comes with `weights`, or one of our own.
      prefix: words before every text and every title, as the pretrained model was trained to read them: `query: ` for E5.
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
    bert: BertConfig = BertConfig()
    vocab_size: int = 600
    sentinels: int = 32
    verbalizer: str = "mean"
    embedding: EmbeddingConfig = EmbeddingConfig()
    weights: str = ""
    read: str = "answers"
    quantise: str = ""
    tokenizer: str = ""
    prefix: str = ""

    def __post_init__(self) -> None:
        find_family(self.family)
        find_verbalizer(self.verbalizer)
        one_of("lm.read", self.read, ("answers", "encoder"))
        for name, shape in (("t5", self.t5), ("bert", self.bert)):
            if shape.adapters is not None:
                raise UserError(
                    f"lm.{name}.adapters is set, which no stage reads: set tune.adalora or parse.adalora"
                )
        if self.vocab_size <= self.sentinels + _SPECIAL:
            raise UserError(
                f"lm.vocab_size is {self.vocab_size}: it must be above lm.sentinels + {_SPECIAL} = "
                f"{self.sentinels + _SPECIAL}, and much more for words"
            )
        if self.quantise not in KINDS:
            raise UserError(f"lm.quantise is {self.quantise!r}: use 'int8', or '' for none")
        if self.read == "encoder" and not self.weights:
            raise UserError(
                "lm.read=encoder, but lm.weights is empty: `delrec pretrain` needs the decoder's answers; set lm.weights, or "
                "lm.read=answers"
            )
        if self.t5.num_decoder_layers < 1:
            raise UserError(
                f"lm.t5.num_decoder_layers is {self.t5.num_decoder_layers}: use at least 1; lm.read=encoder leaves out the "
                "decoder of pretrained weights"
            )
        if self.tokenizer and not self.weights:
            raise UserError(
                f"lm.tokenizer is {self.tokenizer!r}, but lm.weights is not set: without pretrained weights `delrec pretrain` "
                "trains its own tokenizer; leave it empty"
            )
        if self.prefix and not self.weights:
            raise UserError(
                f"lm.prefix is {self.prefix!r}, but lm.weights is not set: a model of our own is trained without one; leave it "
                "empty"
            )


@dataclass(frozen=True)
class GateConfig:
    """The lowest accuracies on held-out items at which a pre-trained LM is worth distilling into.

    Attributes:
      attributes: accuracy on attribute questions, whose options are all values of the attribute.
      next_in_series: top-1 accuracy on "the next volume" of a series, over the whole catalogue; needs known relations.
      next_item: HR@10 of the next item for validation users, over the whole catalogue.
    """

    attributes: float = 0.0
    next_in_series: float = 0.0
    next_item: float = 0.0


@dataclass(frozen=True)
class PretrainTextConfig:
    """Shares and sizes of the texts.

    Attributes:
      short, several, full, attributes, recent, cloze: shares of the batches; the first three need a catalogue with known
        relations (the storefront), `attributes` needs one with attributes, and the last two need interactions.
      queries: questions per text, at most.
      no_instruction: share of `full` texts without an instruction, which may ask for any behavior.
      history: longest history of `several` and `full`, in items.
      window: longest history of a `cloze` text, in items.
      recent_window: longest history of a `recent` text, in items.
      mask_rate: share of a cloze history's titles that are masked.
      heldout_items: share of items that are the answer to no question about the catalogue, for the gate.
      batch_tokens: tokens per batch, including padding.
      short_first: number of first batches that are only `short` or `recent`: look-ups are learned sooner from short texts.
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

    def __post_init__(self) -> None:
        shares = (self.short, self.several, self.full, self.attributes, self.recent, self.cloze)
        if min(shares) < 0 or sum(shares) <= 0:
            raise UserError(
                f"pretrain.text: the shares of short, several, full, attributes, recent, cloze are {shares}: at least one "
                "must be positive, and none negative"
            )


@dataclass(frozen=True)
class PretrainConfig:
    """Pre-training of a small language model on the catalogue's own text.

    Attributes:
      text: which texts, in which shares.
      loop: how long a round is, and how often it is evaluated and saved.
      rounds: rounds at most. While the gate fails, another round continues with the parameters of the one before, a new
        optimizer and its whole schedule, and new texts; the first round that passes is the last.
      bag_weight: weight of the loss on the answers' words.
      catalogue_weight: weight of the cross-entropy over all titles, for answers that are titles.
    """

    text: PretrainTextConfig = PretrainTextConfig()
    optimizer: OptimizerConfig = OptimizerConfig(
        learning_rate=3e-3, warmup_steps=60, weight_decay=0.01
    )
    loop: LoopConfig = LoopConfig(steps=1500, evaluate_every=250)
    rounds: int = 1
    bag_weight: float = 1.0
    catalogue_weight: float = 0.0
    gate: GateConfig = GateConfig()

    def __post_init__(self) -> None:
        at_least("pretrain.rounds", self.rounds, 1)
