"""A T5 in PyTorch of any of our shapes, and the same weights as our tree."""

from dataclasses import replace

import jax.numpy as jnp
import torch
import transformers
from flax import traverse_util
from hf_paths import our_path

from delrec_jax.language.t5_config import T5Config
from delrec_jax.language.t5_names import T5_NAMES

# Every width differs and no kernel is square, so that a transposed or exchanged tensor fails.
TINY = T5Config(
    vocab_size=96, d_model=32, d_kv=5, d_ff=40, num_layers=2, num_decoder_layers=2, num_heads=3
)
TINY_V10 = replace(
    TINY,
    num_layers=3,
    feed_forward_proj="relu",
    tie_word_embeddings=True,
)
# Names that our config shares with theirs.
_SHAPE = (
    "vocab_size",
    "d_model",
    "d_kv",
    "d_ff",
    "num_layers",
    "num_decoder_layers",
    "num_heads",
    "feed_forward_proj",
    "relative_attention_num_buckets",
    "relative_attention_max_distance",
    "layer_norm_epsilon",
)


def torch_t5(config=TINY, seed=0):
    """A `transformers` T5 of this shape in float32, without dropout, norms and biases off their initial values."""
    torch.manual_seed(seed)
    hf_config = transformers.T5Config(
        **{name: getattr(config, name) for name in _SHAPE},
        dropout_rate=0.0,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=config.tie_word_embeddings,
    )
    model = transformers.T5ForConditionalGeneration(hf_config).eval()
    if not config.tie_word_embeddings:
        # transformers 5 ties the head of a fresh model whatever its config says.
        head = config.d_model**-0.5 * torch.randn(config.vocab_size, config.d_model)
        model.lm_head.weight = torch.nn.Parameter(head)
        model.config.tie_word_embeddings = model.config.scale_decoder_outputs = False
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "layer_norm" in name:
                weight += 0.1 * torch.randn_like(weight)
            elif "relative_attention_bias" in name:
                weight += 0.5 * torch.randn_like(weight)
    assert (model.lm_head.weight is model.shared.weight) == config.tie_word_embeddings
    assert model.config.scale_decoder_outputs == config.tie_word_embeddings
    return model


def our_params(model):
    """The base weights as our tree; shared tensors once."""
    flat = {}
    for name, weight in model.named_parameters():  # names a shared tensor once
        path, transposed = our_path(T5_NAMES, name)
        value = weight.detach().numpy()
        flat[path] = jnp.asarray(value.T if transposed else value)
    return traverse_util.unflatten_dict(flat)
