"""What the package asks of a language model, and of a family of them.

A `LanguageModel` is bound to a shape and holds no weights: they are an argument of every call, as adapters and prompt are.
`encode` is all that P2Rec needs; verbalizers that read answers need an `AnsweringModel`. A `Family` makes models from the
config, and knows how their weights are read or begun. `families` lists those of the package.

A class of one's own may inherit from these protocols and gets what is marked as optional.
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
    """What the estimate of `delrec plan` depends on.

    Attributes:
      heads, head_width, feed_forward: of one block; 0 where a model has no such part.
      encoder_blocks, decoder_blocks: how many there are.
      opening: tokens that the decoder reads before the answer's last one: with 1 an answer of W tokens is W + 1 tokens long.
      activation_bytes: of one value while computing.
      weight_bytes: of one stored value.
      recomputes: blocks are computed again in the backward pass.
    """

    heads: int
    head_width: int
    feed_forward: int
    encoder_blocks: int
    decoder_blocks: int
    opening: int = 1
    activation_bytes: int = 4
    weight_bytes: int = 4
    recomputes: bool = False


class LanguageModel(Protocol):
    """A language model of one shape that reads texts.

    Texts are token ids, 0 where padded; ids from `vocab_size` on mark the places of a soft prompt.
    """

    @property
    def width(self) -> int:
        """D, of the states and of the token table."""
        ...

    @property
    def vocab_size(self) -> int:
        """V, rows of the token table."""
        ...

    @property
    def description(self) -> str:
        """Kind and size in a few words, for the report."""
        ...

    @property
    def sizes(self) -> Sizes:
        """For the estimate of `delrec plan`."""
        ...

    @property
    def running(self) -> str:
        """How it is kept and computed, for `delrec plan`; optional."""
        return "kept and computed in float32"

    @property
    def dropout_rate(self) -> float:
        """Of the model itself (adapters have their own), for pre-training; optional."""
        return 0.0

    @property
    def closed(self) -> tuple[str, ...]:
        """Top-level projections that no adapter may change, because their weights are read directly; optional."""
        return ()

    def encode(
        self,
        params: Params,
        ids: Int[Array, "B T"],
        *,
        prompt: Float[Array, "K D"] | None = None,
        adapters: Any = None,
        dropout_key: jax.Array | None = None,
    ) -> tuple[Float[Array, "B T D"], Bool[Array, "B T"]]:
        """The states of each text, and where it is not padding; states at padding mean nothing.

        Args:
          params: the base parameters.
          ids: texts.
          prompt: the soft prompt, when texts have slots (the states are NaN otherwise).
          adapters: AdaLoRA's tree, when the model has adapters.
          dropout_key: given while training with dropout; None = deterministic.
        """
        ...

    def table(self, params: Params) -> Float[Array, "V D"]:
        """The token table, beside whose rows a soft prompt stands."""
        ...

    def with_adapters(self, adapters: AdaLoRAConfig | None) -> Self:
        """The same model, whose calls take adapters of this config; None = plain."""
        ...

    def param_shapes(self) -> Params:
        """The tree of the base parameters as `jax.ShapeDtypeStruct`s; no weights are made."""
        ...

    def axes_of(self, path: tuple[str, ...], shape: tuple[int, ...]) -> Axes:
        """Names of a leaf's axes; see `logical_axes.named_axes`."""
        ...

    def check_mesh(self, tensor: int) -> None:
        """Refuses a mesh that would cut through a part of the model; optional.

        Args:
          tensor: devices that share the work on each example.

        Raises:
          UserError: it would.
        """


@runtime_checkable
class AnsweringModel(LanguageModel, Protocol):
    """A language model that also says what belongs in the place of a MASK. Options of the calls are those of `encode`."""

    def answers(
        self, params: Params, ids: Int[Array, "B T"], sentinels: Int[Array, "B Q"], **options: Any
    ) -> Float[Array, "B Q D"]:
        """One state for each sentinel of a text, ready for the head; sentinels are 0 where a text asks fewer."""
        ...

    def forced_answers(
        self,
        params: Params,
        ids: Int[Array, "B T"],
        titles: Int[Array, "B N W"],
        sentinel: int,
        **options: Any,
    ) -> Float[Array, "B N W D"]:
        """States that predict each token of N given answers to one sentinel from the tokens before it, ready for the head."""
        ...

    def head(self, params: Params) -> Float[Array, "V D"]:
        """One row of output weights for each token: logits = states @ head.T."""
        ...

    def logits(self, params: Params, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Vocabulary logits in float32, for pre-training."""
        ...


def answering(model: LanguageModel, asked_by: str, *, remedy: str) -> AnsweringModel:
    """The model, if it can answer.

    Args:
      model: any.
      asked_by: who needs answers, for the message.
      remedy: what the user can do where the model only encodes, for the message.

    Raises:
      UserError: it only encodes.
    """
    if not isinstance(model, AnsweringModel):
        raise UserError(
            f"{asked_by} asks the language model for answers, but {model.description} only encodes texts: {remedy}"
        )
    return model


class Family(Protocol):
    """Models of one kind. `settings` is the section `lm` of the config (`config.LMConfig`) in every call.

    Attributes:
      name: for messages.
    """

    name: str

    @abstractmethod
    def model(self, settings: Any, *, directory: Path | None, vocab_size: int) -> LanguageModel:
        """The model of a run, without adapters.

        Args:
          settings: of the run.
          directory: of pretrained weights; None = the model begins here.
          vocab_size: ids of the tokenizer.

        Raises:
          UserError: `directory` holds another model.
        """
        ...

    @abstractmethod
    def planned(self, settings: Any) -> tuple[LanguageModel, str]:
        """The model without going online and without a tokenizer, fit to be compiled on CPU, and where its sizes were read.

        Raises:
          UserError: they are not known without the weights.
        """
        ...

    def begin(self, model: LanguageModel, key: jax.Array) -> Params:
        """Parameters that `pretrain` trains where `lm.weights` is empty; optional.

        Raises:
          UserError: this family needs pretrained weights.
        """
        raise UserError(f"lm.family={self.name} cannot be trained from scratch: set lm.weights")

    def load(self, directory: Path, model: LanguageModel, shardings: Any) -> Params:
        """Reads pretrained weights straight to where they belong; optional.

        Args:
          directory: see `hub.resolve`.
          model: of this directory.
          shardings: a tree like `model.param_shapes()`.

        Raises:
          UserError: the files cannot be read, or the family knows no pretrained weights.
        """
        raise UserError(
            f"lm.family={self.name} reads no pretrained weights: leave lm.weights empty"
        )

    def smaller(self, settings: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Settings that need less memory, as text, and as what they replace in `settings`; optional."""
        yield from ()

    def export_model(
        self, params: Params, model: LanguageModel, directory: Path, **more: Any
    ) -> None:
        """Writes a directory for `transformers`, as `export.export_model` does; optional.

        Raises:
          UserError: this family has no such form.
        """
        raise UserError(f"lm.family={self.name} can be exported by --format=adapter alone")

    def export_adapter(self, path: Path, **parts: Any) -> None:
        """Writes an adapter for `peft`, as `peft_export.export_peft` does; optional.

        Raises:
          UserError: this family has no such form.
        """
        raise UserError(f"lm.family={self.name} can be exported by --format=adapter alone")
