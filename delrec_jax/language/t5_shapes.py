"""The shape of a pretrained T5 without its weights, for `delrec plan`.

The table holds the published Flan-T5 models. They have the shapes of T5 v1.1, taken from the files
`t5x/examples/t5/t5_1_1/{small,base,large,xl,xxl}.gin` of google-research/t5x; the resulting numbers of parameters
(77M, 248M, 783M, 2.85B and 11.1B) are checked in tests/language/test_flan.py.
"""

from delrec_jax.language.hub import known_shape
from delrec_jax.language.t5_config import T5Config
from delrec_jax.language.t5_files import read_config


def _shape(d_model: int, d_ff: int, layers: int, heads: int) -> T5Config:
    return T5Config(
        vocab_size=32128,
        d_model=d_model,
        d_kv=64,
        d_ff=d_ff,
        num_layers=layers,
        num_decoder_layers=layers,
        num_heads=heads,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        scale_decoder_outputs=False,
    )


FLAN_T5 = {
    "google/flan-t5-small": _shape(512, 1024, 8, 6),
    "google/flan-t5-base": _shape(768, 2048, 12, 12),
    "google/flan-t5-large": _shape(1024, 2816, 24, 16),
    "google/flan-t5-xl": _shape(2048, 5120, 24, 32),
    "google/flan-t5-xxl": _shape(4096, 10240, 24, 64),
}


def pretrained_shape(name_or_dir: str) -> tuple[T5Config, str]:
    """Returns the sizes of a pretrained T5 and their source, as `hub.known_shape` does."""
    return known_shape(name_or_dir, read_config, FLAN_T5, "Flan-T5")
