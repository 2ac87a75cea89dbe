"""The T5 family: v1.0, v1.1 and Flan, pretrained or trained from scratch."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast

import jax

from delrec_jax.language import t5_files, t5_shapes
from delrec_jax.language.compute_settings import in_less_memory
from delrec_jax.language.family import Family, LanguageModel, Params
from delrec_jax.language.peft_export import PeftBase, export_peft
from delrec_jax.language.t5_config import T5Config
from delrec_jax.language.t5_model import T5Encoder, T5Model
from delrec_jax.language.t5_names import names_of
from delrec_jax.language.t5_start import init_for_copying

# How the model runs follows the config, even if a pretrained model determines the sizes.
_RUNNING = (
    *("dtype", "param_dtype", "precision", "remat", "scan_layers", "attention", "dropout_rate"),
)


class _Settings(Protocol):
    """What is read from the section `lm` of the config."""

    @property
    def t5(self) -> T5Config: ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def weights(self) -> str: ...

    @property
    def read(self) -> str: ...


class T5Family(Family):
    """Models of `lm.t5`; pretrained weights override its sizes, and `lm.read` says how much of them is read."""

    name = "t5"

    def model(self, settings: _Settings, *, directory: Path | None, vocab_size: int) -> T5Encoder:
        if directory is None:
            return T5Model(replace(settings.t5, vocab_size=vocab_size))
        return _as_read(_as_configured(t5_files.read_config(directory), settings), settings)

    def planned(self, settings: _Settings) -> tuple[T5Encoder, str]:
        if settings.weights:
            sizes, source = t5_shapes.pretrained_shape(settings.weights)
            shape = _as_configured(sizes, settings)
        else:
            # A trained tokenizer has at most this many ids.
            shape = replace(settings.t5, vocab_size=settings.vocab_size)
            source = "lm.t5 and lm.vocab_size"
        # cuDNN's kernel can only be compiled where there is a GPU.
        model = _as_read(replace(shape, attention="xla"), settings)
        return replace(model, fused=shape.attention == "cudnn"), source

    def begin(self, model: LanguageModel, key: jax.Array) -> Params:
        return init_for_copying(cast(T5Model, model).module, key)

    def load(self, directory: Path, model: LanguageModel, shardings: Any) -> Params:
        return t5_files.load(directory, cast(T5Encoder, model).config, shardings)

    def smaller(self, settings: _Settings) -> Iterator[tuple[str, Mapping[str, Any]]]:
        return in_less_memory("t5", settings.t5)

    def export_model(
        self, params: Params, model: LanguageModel, directory: Path, **more: Any
    ) -> None:
        t5_files.export_model(params, cast(T5Encoder, model).config, directory, **more)

    def export_adapter(self, path: Path, *, model: LanguageModel, **parts: Any) -> None:
        config = cast(T5Encoder, model).config
        names, model_class = names_of(config), t5_files.model_class(config)
        base = PeftBase(names, model_class, answers=not config.encoder_alone)
        export_peft(path, base, **parts)


def _as_configured(sizes: T5Config, settings: _Settings) -> T5Config:
    """Returns the sizes with the config's choices for running the model: types, precision, remat, scan, attention, dropout."""
    return replace(sizes, **{name: getattr(settings.t5, name) for name in _RUNNING})


def _as_read(config: T5Config, settings: _Settings) -> T5Encoder:
    """Returns the model, or its encoder alone."""
    if settings.read == "encoder":
        return T5Encoder(replace(config, num_decoder_layers=0))
    return T5Model(config)
