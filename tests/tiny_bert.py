"""A tiny BERT whose every width differs, and its directory with a WordPiece tokenizer, their names spelled out here."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from flax import traverse_util
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from delrec_jax.language.bert import shapes
from delrec_jax.language.bert_config import BertConfig

TINY = BertConfig(
    vocab_size=40,
    hidden_size=12,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=20,
    max_position_embeddings=96,
    layer_norm_eps=1e-12,
)
RAW = {
    "model_type": "bert",
    "vocab_size": 40,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 20,
    "max_position_embeddings": 96,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "pad_token_id": 0,
}


def expected(raw=RAW):
    """Name in the file -> (path in our tree, shape in the file), as `transformers` has them."""
    width, inner = raw["hidden_size"], raw["intermediate_size"]
    found = {
        "embeddings.word_embeddings.weight": ("words/embedding", (raw["vocab_size"], width)),
        "embeddings.position_embeddings.weight": (
            "positions/embedding",
            (raw["max_position_embeddings"], width),
        ),
        "embeddings.token_type_embeddings.weight": ("types/embedding", (2, width)),
    }
    norms = {"embeddings.LayerNorm": "embedding_norm"}
    for i in range(raw["num_hidden_layers"]):
        theirs, ours = f"encoder.layer.{i}", f"encoder/block_{i}"
        for name, path, shape in (
            ("attention.self.query", "SelfAttention/q", (width, width)),
            ("attention.self.key", "SelfAttention/k", (width, width)),
            ("attention.self.value", "SelfAttention/v", (width, width)),
            ("attention.output.dense", "SelfAttention/o", (width, width)),
            ("intermediate.dense", "FeedForward/wi", (inner, width)),
            ("output.dense", "FeedForward/wo", (width, inner)),
        ):
            found[f"{theirs}.{name}.weight"] = (f"{ours}/{path}/kernel", shape)
            found[f"{theirs}.{name}.bias"] = (f"{ours}/{path}/bias", shape[:1])
        norms[f"{theirs}.attention.output.LayerNorm"] = f"{ours}/attention_norm"
        norms[f"{theirs}.output.LayerNorm"] = f"{ours}/ff_norm"
    for theirs, ours in norms.items():
        for part in ("weight", "bias"):
            found[f"{theirs}.{part}"] = (f"{ours}/{part}", (width,))
    return found


def random_tensors(raw=RAW):
    """Tensors of a file, with kernels so large that every path carries a signal."""
    generator = np.random.default_rng(0)
    return {
        name: (generator.normal(size=shape) * 0.5 + name.endswith("LayerNorm.weight")).astype("f4")
        for name, (_, shape) in expected(raw).items()
    }


def write_bert(directory: Path, raw=RAW, tensors=None) -> Path:
    """A model directory without a tokenizer."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(raw))
    save_file(random_tensors(raw) if tensors is None else tensors, directory / "model.safetensors")
    return directory


def visible_params(config=TINY, seed=0):
    """The same in our tree."""
    generator = np.random.default_rng(seed)
    flat = {}
    for path, leaf in sorted(traverse_util.flatten_dict(shapes(config)).items()):
        flat[path] = (0.5 * generator.normal(size=leaf.shape) + (path[-1] == "weight")).astype("f4")
    return traverse_util.unflatten_dict(flat)


def write_wordpiece(directory: Path, texts: Iterable[str], *, size: int = 400, first="[PAD]"):
    """A tokenizer of BERT's kind, trained on texts; `first` is the token with id 0."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    special.sort(key=lambda token: token != first)
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=special, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    directory.mkdir(parents=True, exist_ok=True)
    backend.save(str(directory / "tokenizer.json"))
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    (directory / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True, **names})
    )
    return backend.get_vocab_size()
