"""Sentence encoders of the BERT family (MiniLM, E5, BGE), always pretrained: without answers nothing trains them here."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast

from delrec_jax.language import bert_files, peft_export
from delrec_jax.language.bert_config import BertConfig
from delrec_jax.language.bert_model import BertModel
from delrec_jax.language.bert_names import BERT_NAMES
from delrec_jax.language.compute_settings import in_less_memory
from delrec_jax.language.family import Family, LanguageModel, Params
from delrec_jax.language.hub import known_shape

# How the model runs follows the config, even if a pretrained model determines the sizes.
_RUNNING = ("dtype", "param_dtype", "precision", "remat", "attention", "dropout_rate", "pooling")
_PEFT = peft_export.PeftBase(BERT_NAMES, "BertModel", answers=False)


def _shape(width: int, layers: int) -> BertConfig:
    """A shape with heads of width 32 (MiniLM and its kin) or 64, and feed-forwards of four times the width."""
    heads = 12 if width <= 768 else 16
    return BertConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
    )


PUBLISHED = {
    "sentence-transformers/all-MiniLM-L6-v2": _shape(384, 6),
    "sentence-transformers/all-MiniLM-L12-v2": _shape(384, 12),
    **{
        name: _shape(*sizes)
        for size, sizes in (("small", (384, 12)), ("base", (768, 12)), ("large", (1024, 24)))
        for name in (f"intfloat/e5-{size}-v2", f"BAAI/bge-{size}-en-v1.5")
    },
}
"""The shapes of English sentence encoders, for `delrec plan` without their files; all read lower case, by one vocabulary."""


class _Settings(Protocol):
    """What is read from the section `lm` of the config."""

    @property
    def bert(self) -> BertConfig: ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def weights(self) -> str: ...


class BertFamily(Family):
    """Models of `lm.bert`; pretrained weights override its sizes."""

    name = "bert"

    def model(self, settings: _Settings, *, directory: Path | None, vocab_size: int) -> BertModel:
        if directory is None:
            return BertModel(replace(settings.bert, vocab_size=vocab_size))
        return BertModel(_as_configured(bert_files.read_config(directory), settings))

    def planned(self, settings: _Settings) -> tuple[BertModel, str]:
        if not settings.weights:
            # A trained tokenizer has at most this many ids.
            shape = replace(settings.bert, vocab_size=settings.vocab_size)
            source = "lm.bert and lm.vocab_size"
        else:
            sizes, source = known_shape(
                settings.weights, bert_files.read_config, PUBLISHED, "sentence encoder"
            )
            shape = _as_configured(sizes, settings)
        # cuDNN's kernel can only be compiled where there is a GPU.
        fused = shape.attention == "cudnn"
        return BertModel(replace(shape, attention="xla"), fused=fused), source

    def load(self, directory: Path, model: LanguageModel, shardings: Any) -> Params:
        return bert_files.load(directory, cast(BertModel, model).config, shardings)

    def smaller(self, settings: _Settings) -> Iterator[tuple[str, Mapping[str, Any]]]:
        return in_less_memory("bert", settings.bert)

    def export_model(
        self, params: Params, model: LanguageModel, directory: Path, **more: Any
    ) -> None:
        bert_files.export_model(params, cast(BertModel, model).config, directory, **more)

    def export_adapter(self, path: Path, *, model: LanguageModel, **parts: Any) -> None:
        peft_export.export_peft(path, _PEFT, **parts)


def _as_configured(sizes: BertConfig, settings: _Settings) -> BertConfig:
    """Returns the sizes with the config's choices for running the model, which no file has."""
    return replace(sizes, **{name: getattr(settings.bert, name) for name in _RUNNING})
