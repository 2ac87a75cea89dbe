"""The demo: DELRec end to end on the embedded storefront."""

from ml_collections import ConfigDict

from delrec_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.corpus = "storefront"
    config.data.domain = "items"
    config.prompts.max_tokens = 256
    config.prompts.max_history = 8
    config.lm.t5.update(d_model=64, d_kv=16, num_heads=4, d_ff=128, num_layers=2, num_decoder_layers=1)
    return config
