"""A BERT in PyTorch of any of our shapes, and the same weights as our tree."""

import jax.numpy as jnp
import torch
import transformers
from flax import traverse_util
from hf_paths import our_path

from delrec_jax.language.bert_config import BertConfig
from delrec_jax.language.bert_names import BERT_NAMES

# Every width differs and no kernel but those of attention is square.
TINY = BertConfig(
    vocab_size=96,
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=40,
    max_position_embeddings=64,
)
_SHAPE = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "layer_norm_eps",
)


def torch_bert(config=TINY, seed=0):
    """A `transformers` BERT of this shape in float32, without dropout; norms and biases are off their initial values."""
    torch.manual_seed(seed)
    hf_config = transformers.BertConfig(
        **{name: getattr(config, name) for name in _SHAPE},
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=config.hidden_size**-0.5,  # attention that is not uniform
    )
    model = transformers.BertModel(hf_config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "LayerNorm" in name or name.endswith("bias"):
                weight += 0.2 * torch.randn_like(weight)
    return model


def our_params(model):
    """The weights as our tree, without the pooler."""
    flat = {}
    for name, weight in model.named_parameters():
        if found := our_path(BERT_NAMES, name):
            value = weight.detach().numpy()
            flat[found[0]] = jnp.asarray(value.T if found[1] else value)
    return traverse_util.unflatten_dict(flat)
