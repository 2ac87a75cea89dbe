"""A BERT encoder as a Hugging Face directory: its `config.json`, read and written, and its weights."""

from pathlib import Path
from typing import Any

from delrec_jax.errors import UserError
from delrec_jax.language import export, weights
from delrec_jax.language.bert_config import BertConfig
from delrec_jax.language.bert_names import BERT_NAMES, leaves
from delrec_jax.language.hub import CONFIG_FILE, MOST_BLOCKS, read_json, stated_number
from delrec_jax.padding import PAD_TOKEN

# Keys with the same names in our config and in theirs.
_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
)
# What we compute, by their keys; a file without a key means the same.
_FORM: dict[str, Any] = {
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
}


def read_config(directory: Path) -> BertConfig:
    """Returns the shape of the model in a directory; override `dtype`, `remat` etc. with `dataclasses.replace`.

    Raises:
      UserError: no config.json, one of another model, of another form of BERT, or one without the sizes.
    """
    file = directory / CONFIG_FILE
    raw = read_json(file)
    if raw.get("model_type") != "bert":
        raise UserError(
            f"{file}: model_type is {raw.get('model_type')!r}; lm.family=bert reads only bert (BERT, MiniLM, E5, BGE)"
        )
    for key, wanted in _FORM.items():
        if raw.get(key, wanted) != wanted:
            raise UserError(f"{file}: {key} is {raw[key]!r}; only {wanted!r} can be read")
    for key in _SIZES:
        if type(raw.get(key)) is not int or not 1 <= raw[key] <= 2**31 - 1:
            raise UserError(f"{file}: {key} is {raw.get(key)!r}; download the model's own file")
    if raw["hidden_size"] % raw["num_attention_heads"]:
        raise UserError(
            f"{file}: hidden_size is {raw['hidden_size']}, which {raw['num_attention_heads']} heads cannot share; "
            "download the model's own file"
        )
    stated_number(file, raw, "num_hidden_layers", 0, 1, MOST_BLOCKS)
    return BertConfig(
        **{key: raw[key] for key in _SIZES},
        layer_norm_eps=stated_number(file, raw, "layer_norm_eps", 1e-12, 1e-30, 0.1),
        dropout_rate=stated_number(file, raw, "hidden_dropout_prob", 0.1, 0, 0.99),
    )


def load(directory: Path, config: BertConfig, shardings: Any = None) -> dict[str, Any]:
    """Loads the parameters of `Bert(config)` from a model directory, as `weights.load` does.

    Args:
      directory: see `hub.resolve`.
      config: the result of `read_config`, with `param_dtype` as wanted.
      shardings: where the parameters are placed.
    """
    return weights.load(directory, leaves(config), BERT_NAMES, shardings)


def export_model(params: dict[str, Any], config: BertConfig, directory: Path, **more: Any) -> None:
    """Writes a `BertModel` without its pooler, as `export.export_model` does; `more` are its options."""
    export.export_model(
        params,
        directory,
        wanted=leaves(config),
        names=BERT_NAMES,
        settings={CONFIG_FILE: _description(config)},
        **more,
    )


def _description(config: BertConfig) -> dict[str, Any]:
    """Returns `config.json`."""
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        **{key: getattr(config, key) for key in _SIZES},
        **_FORM,
        "layer_norm_eps": config.layer_norm_eps,
        "hidden_dropout_prob": config.dropout_rate,
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": PAD_TOKEN,
        "dtype": config.param_dtype,
    }
