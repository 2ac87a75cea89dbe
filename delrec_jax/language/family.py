"""The interfaces of a language model and of a family of language models.

A `LanguageModel` has a fixed shape and holds no weights: weights are an argument of every call, as are adapters and prompt.
P2Rec needs only `encode`; verbalizers that read answers need an `AnsweringModel`. A `Family` makes models from the config
and reads or initializes their weights. `families` lists the built-in ones.

A user's class may inherit from these protocols, which implement what is marked as optional.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import jax
from jaxtyping import Array, Bool, Float, Int

from delrec_jax.errors import UserError
from delrec_jax.language.adalora_config import AdaLoRAConfig
from delrec_jax.language.logical_axes import Axes

Params = Any  # a tree of arrays


@dataclass(frozen=True)
class Sizes:
    """The sizes that the estimate of `delrec plan` depends on.

    Attributes:
      heads, head_width, feed_forward: sizes of one block; 0 if a model has no such part.
      encoder_blocks, decoder_blocks: number of blocks.
      opening: tokens that the decoder reads in addition to those of an answer: with 1, an answer of W tokens takes W + 1.
      activation_bytes: bytes of one activation.
      weight_bytes: bytes of one stored weight.
      remat: what of each block is recomputed in the backward pass, one of `compute_settings.REMAT`.
      fused: whether attention's weights are never in memory.
    """

    heads: int
    head_width: int
    feed_forward: int
    encoder_blocks: int
    decoder_blocks: int
    opening: int = 1
    activation_bytes: int = 4
    weight_bytes: int = 4
    remat: str = "none"
    fused: bool = False


class LanguageModel(Protocol):
    """A language model of one shape that reads texts.

    Texts are token ids, 0 where padded; ids from `vocab_size` on mark the slots of a soft prompt.
    """

    @property
    def width(self) -> int:
        """D, the width of the states and of the token table."""
        ...

    @property
    def vocab_size(self) -> int:
        """V, the number of rows of the token table."""
        ...

    @property
    def description(self) -> str:
        """The kind and size of the model in a few words, for the report."""
        ...

    @property
    def sizes(self) -> Sizes:
        """The sizes for the estimate of `delrec plan`."""
        ...

    @property
    def running(self) -> str:
        """How the model is stored and computed, for `delrec plan`; optional."""
        return "kept and computed in float32"

    @property
    def dropout_rate(self) -> float:
        """The dropout rate of the model itself (adapters have their own), for pre-training; optional."""
        return 0.0

    @property
    def longest_text(self) -> int:
        """The number of tokens that a padded text may have at most, 0 = any; optional."""
        return 0

    @property
    def pooling(self) -> str:
        """How the states of a title become its vector, a name of `pooling.POOLS`; optional."""
        return "mean"

    @property
    def quantises(self) -> bool:
        """Whether projections multiply by kernels in 8 bits with a `scale` beside them (`scaled_product`); optional."""
        return False

    @property
    def closed(self) -> tuple[str, ...]:
        """Top-level projections that no adapter may change, because their weights are read directly; optional."""
        return ()

    @abstractmethod
    def encode(
        self,
        params: Params,
        ids: Int[Array, "B T"],
        *,
        prompt: Float[Array, "K D"] | Float[Array, "B K D"] | None = None,
        adapters: Any = None,
        dropout_key: jax.Array | None = None,
    ) -> tuple[Float[Array, "B T D"], Bool[Array, "B T"]]:
        """Returns the states of each text, and where it is not padding; states at padding are meaningless.

        Args:
          params: the base parameters.
          ids: texts.
          prompt: the soft prompt, of all texts or of each, when texts have slots: embed by `soft_prompt.embed_with_prompt`.
          adapters: AdaLoRA's tree, when the model has adapters.
          dropout_key: given while training with dropout; None = deterministic.
        """
        ...

    @abstractmethod
    def table(self, params: Params) -> Float[Array, "V D"]:
        """Returns the token table, which a soft prompt extends with rows of its own."""
        ...

    @abstractmethod
    def with_adapters(self, adapters: AdaLoRAConfig | None) -> Self:
        """Returns the same model for calls with adapters of this config; None = plain."""
        ...

    @abstractmethod
    def param_shapes(self) -> Params:
        """Returns the tree of base parameters as `jax.ShapeDtypeStruct`s, without making weights."""
        ...

    @abstractmethod
    def axes_of(self, path: tuple[str, ...], shape: tuple[int, ...]) -> Axes:
        """Returns the names of a leaf's axes; see `logical_axes.named_axes`."""
        ...

    def check_mesh(self, tensor: int) -> None:
        """Rejects a mesh that would split an indivisible part of the model; optional.

        Args:
          tensor: number of devices that share the work on each example.

        Raises:
          UserError: the mesh would split such a part.
        """


@runtime_checkable
class AnsweringModel(LanguageModel, Protocol):
    """A language model that also predicts what a MASK stands for; `options` of its calls are those of `encode`."""

    @abstractmethod
    def answers(
        self, params: Params, ids: Int[Array, "B T"], sentinels: Int[Array, "B Q"], **options: Any
    ) -> Float[Array, "B Q D"]:
        """Returns one state for each sentinel, ready for the head; sentinels are 0 where a text has fewer."""
        ...

    @abstractmethod
    def forced_answers(
        self,
        params: Params,
        ids: Int[Array, "B T"],
        titles: Int[Array, "B N W"],
        sentinel: int,
        **options: Any,
    ) -> Float[Array, "B N W D"]:
        """Returns states, ready for the head, that predict each token of N given answers from the tokens before it."""
        ...

    @abstractmethod
    def head(self, params: Params) -> Float[Array, "V D"]:
        """Returns one row of output weights per token: logits = states @ head.T."""
        ...

    @abstractmethod
    def logits(self, params: Params, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Returns vocabulary logits in float32, for pre-training."""
        ...


def answering(model: LanguageModel, asked_by: str, *, remedy: str) -> AnsweringModel:
    """Returns the model if it can answer.

    Args:
      model: any language model.
      asked_by: what needs answers, for the message.
      remedy: what the user can do if the model only encodes, for the message.

    Raises:
      UserError: the model only encodes.
    """
    if not isinstance(model, AnsweringModel):
        raise UserError(
            f"{asked_by} asks the language model for answers, but {model.description} only encodes texts: {remedy}"
        )
    return model


class Family(Protocol):
    """Models of one kind. In every call, `settings` is the section `lm` of the config (`config.LMConfig`).

    Attributes:
      name: the family's name, for messages.
    """

    name: str

    @abstractmethod
    def model(self, settings: Any, *, directory: Path | None, vocab_size: int) -> LanguageModel:
        """Returns the model of a run, without adapters.

        Args:
          settings: the settings of the run.
          directory: directory of pretrained weights; None = the model is trained from scratch.
          vocab_size: number of ids of the tokenizer.

        Raises:
          UserError: `directory` holds another kind of model.
        """
        ...

    @abstractmethod
    def planned(self, settings: Any) -> tuple[LanguageModel, str]:
        """Returns a model to compile on CPU and the source of its sizes, without using the network or a tokenizer.

        Raises:
          UserError: the sizes are not known without the weights.
        """
        ...

    def begin(self, model: LanguageModel, key: jax.Array) -> Params:
        """Returns the initial parameters for `pretrain` if `lm.weights` is empty; optional.

        Raises:
          UserError: this family needs pretrained weights.
        """
        raise UserError(f"lm.family={self.name} cannot be trained from scratch: set lm.weights")

    def load(self, directory: Path, model: LanguageModel, shardings: Any) -> Params:
        """Reads pretrained weights directly onto their devices; optional.

        Args:
          directory: see `hub.resolve`.
          model: the model of this directory.
          shardings: the parameters' shardings, in a tree like `model.param_shapes()`.

        Raises:
          UserError: the files cannot be read, or the family knows no pretrained weights.
        """
        raise UserError(
            f"lm.family={self.name} reads no pretrained weights: leave lm.weights empty"
        )

    def smaller(self, settings: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yields settings that need less memory, each as text and as its replacements in `settings`; optional."""
        yield from ()

    def export_model(
        self, params: Params, model: LanguageModel, directory: Path, **more: Any
    ) -> None:
        """Writes a directory for `transformers`, as `export.export_model` does; optional.

        Raises:
          UserError: this family has no such format.
        """
        raise UserError(f"lm.family={self.name} can only be exported with --format=adapter")

    def export_adapter(self, path: Path, *, model: LanguageModel, **parts: Any) -> None:
        """Writes an adapter of a model for `peft`, as `peft_export.export_peft` does; optional.

        Raises:
          UserError: this family has no such format.
        """
        raise UserError(f"lm.family={self.name} can only be exported with --format=adapter")
