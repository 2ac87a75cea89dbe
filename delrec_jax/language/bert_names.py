"""Hugging Face's names of BERT's tensors; heads for other tasks are left unread."""

from delrec_jax.language.bert import shapes
from delrec_jax.language.bert_config import BertConfig
from delrec_jax.language.weight_names import Leaf, Names, named_leaves

_LAYER, _BLOCK = "encoder.layer.{i}", "encoder/block_{i}"
# Theirs (after `encoder.layer.{i}`), ours (after `encoder/block_{i}`).
_PROJECTIONS = (
    ("attention.self.query", "SelfAttention/q"),
    ("attention.self.key", "SelfAttention/k"),
    ("attention.self.value", "SelfAttention/v"),
    ("attention.output.dense", "SelfAttention/o"),
    ("intermediate.dense", "FeedForward/wi"),
    ("output.dense", "FeedForward/wo"),
)
_NORMS = (("attention.output.LayerNorm", "attention_norm"), ("output.LayerNorm", "ff_norm"))

BERT_NAMES = Names(
    model="BERT",
    table=(
        ("embeddings.word_embeddings.weight", "words/embedding", False),
        ("embeddings.position_embeddings.weight", "positions/embedding", False),
        ("embeddings.token_type_embeddings.weight", "types/embedding", False),
        ("embeddings.LayerNorm.{part}", "embedding_norm/{part}", False),
        *((f"{_LAYER}.{a}.weight", f"{_BLOCK}/{b}/kernel", True) for a, b in _PROJECTIONS),
        *((f"{_LAYER}.{a}.bias", f"{_BLOCK}/{b}/bias", False) for a, b in _PROJECTIONS),
        *((f"{_LAYER}.{a}.{{part}}", f"{_BLOCK}/{b}/{{part}}", False) for a, b in _NORMS),
    ),
    fields={"i": r"\d+", "part": "weight|bias"},
    # The prefix of models with a head, and the names of norms in files from 2018.
    renamed=(
        (r"^bert\.", ""),
        (r"LayerNorm\.gamma$", "LayerNorm.weight"),
        (r"LayerNorm\.beta$", "LayerNorm.bias"),
    ),
    ignored=r"pooler\..*|cls\..*|embeddings\.position_ids",
)


def leaves(config: BertConfig) -> list[Leaf]:
    """Returns all leaves of this model, found by tracing the model without making weights."""
    return named_leaves(shapes(config), BERT_NAMES)
