"""A T5 as a Hugging Face directory: its `config.json`, read and written, and its weights."""

from functools import partial
from pathlib import Path
from typing import Any

from delrec_jax.errors import UserError
from delrec_jax.language import export, weights
from delrec_jax.language.hub import (
    CONFIG_FILE,
    MOST_BLOCKS,
    read_json,
    stated_number,
    stored_tensors,
)
from delrec_jax.language.t5_config import T5Config
from delrec_jax.language.t5_names import HEAD_NAME, leaves, names_of
from delrec_jax.padding import END_TOKEN, PAD_TOKEN

_SIZES = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")
_LARGEST = 2**31 - 1
_ACTIVATION = {"gated-gelu": "gelu_new", "relu": "relu"}
# Keys with the same names in our config and in theirs.
_KEYS = (
    "vocab_size",
    "d_model",
    "d_kv",
    "d_ff",
    "num_layers",
    "num_decoder_layers",
    "num_heads",
    "relative_attention_num_buckets",
    "relative_attention_max_distance",
    "dropout_rate",
    "layer_norm_epsilon",
    "feed_forward_proj",
    "tie_word_embeddings",
)
_TOKENS = {
    "decoder_start_token_id": PAD_TOKEN,
    "eos_token_id": END_TOKEN,
    "pad_token_id": PAD_TOKEN,
}


def read_config(directory: Path) -> T5Config:
    """Returns the shape of the model in a directory; override `dtype`, `remat` etc. with `dataclasses.replace`.

    Reads the raw `config.json`, because `transformers` 5 changes `tie_word_embeddings` on reading. The weights determine
    whether the head is tied (no `lm_head.weight`: tied); the file determines whether the decoder's output is scaled.

    Raises:
      UserError: no config.json, one of another model, or one without the sizes.
    """
    file = directory / CONFIG_FILE
    raw = read_json(file)
    if raw.get("model_type", "t5") != "t5":
        raise UserError(
            f"{file}: model_type is {raw['model_type']!r}; lm.family=t5 reads only t5 (T5 v1.0, v1.1, Flan-T5)"
        )
    for key in _SIZES:
        if type(raw.get(key)) is not int or not 1 <= raw[key] <= _LARGEST:
            raise UserError(f"{file}: {key} is {raw.get(key)!r}; download the model's own file")
    number = partial(stated_number, file, raw)
    blocks = number("num_layers", 0, 1, MOST_BLOCKS)
    raw["num_decoder_layers"] = raw.get("num_decoder_layers") or blocks
    # v1.0 files lack `tie_word_embeddings`, which then counts as true. `transformers` 5 has its own key.
    scaled = raw.get("scale_decoder_outputs", raw.get("tie_word_embeddings") is not False)
    return T5Config(
        **{key: raw[key] for key in _SIZES},
        num_decoder_layers=number("num_decoder_layers", blocks, 1, MOST_BLOCKS),
        relative_attention_num_buckets=number("relative_attention_num_buckets", 32, 4, _LARGEST),
        relative_attention_max_distance=number("relative_attention_max_distance", 128, 4, _LARGEST),
        dropout_rate=number("dropout_rate", 0.1, 0, 0.99),
        layer_norm_epsilon=number("layer_norm_epsilon", 1e-6, 1e-30, 0.1),
        feed_forward_proj=_feed_forward(file, raw),
        tie_word_embeddings=HEAD_NAME not in stored_tensors(directory),
        scale_decoder_outputs=bool(scaled),
    )


def _feed_forward(file: Path, raw: dict[str, Any]) -> str:
    """`relu` or `gated-gelu`; a file without the key means `relu` unless it says `is_gated_act`."""
    form: str = raw.get("feed_forward_proj", "gated-gelu" if raw.get("is_gated_act") else "relu")
    activation = _ACTIVATION.get(form) if isinstance(form, str) else None
    if activation is None or raw.get("dense_act_fn", activation) != activation:
        raise UserError(
            f"{file}: feed_forward_proj is {form!r} with dense_act_fn {raw.get('dense_act_fn')!r}; only 'relu' with 'relu' "
            "(T5 v1.0) and 'gated-gelu' with 'gelu_new' (v1.1, Flan) can be read"
        )
    return form


def load(directory: Path, config: T5Config, shardings: Any = None) -> dict[str, Any]:
    """Loads the parameters of `T5(config)` from a model directory, as `weights.load` does; only the encoder's if it is alone.

    Args:
      directory: see `hub.resolve`.
      config: the result of `read_config`, with `param_dtype`, `scan_layers` and decoder as wanted.
      shardings: where the parameters are placed.
    """
    return weights.load(directory, leaves(config), names_of(config), shardings)


def export_model(params: dict[str, Any], config: T5Config, directory: Path, **more: Any) -> None:
    """Writes a model for `transformers`, as `export.export_model` does; `more` are its options."""
    settings = {CONFIG_FILE: _description(config)}
    if not config.encoder_alone:
        settings["generation_config.json"] = _TOKENS
    export.export_model(
        params,
        directory,
        wanted=leaves(config),
        names=names_of(config),
        settings=settings,
        **more,
    )


def model_class(config: T5Config) -> str:
    """Returns the class of `transformers` that loads such a model."""
    return "T5EncoderModel" if config.encoder_alone else "T5ForConditionalGeneration"


def _description(config: T5Config) -> dict[str, Any]:
    """Returns `config.json`; before version 5, `transformers` derived the output scale from `tie_word_embeddings`."""
    return {
        "architectures": [model_class(config)],
        "model_type": "t5",
        "is_encoder_decoder": not config.encoder_alone,
        **{key: getattr(config, key) for key in _KEYS},
        "scale_decoder_outputs": config.output_scale != 1,
        **_TOKENS,
        "dtype": config.param_dtype,
    }
