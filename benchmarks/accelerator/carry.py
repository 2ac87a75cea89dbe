"""A sentence encoder small enough to be carried to a machine without internet: bfloat16, and only the words in use.

    python benchmarks/accelerator/carry.py --weights=FOLDER --out=FOLDER WORKDIR [WORKDIR ...]

FOLDER of `--weights` is a Hugging Face directory of a BERT-type encoder with a WordPiece vocabulary. Each WORKDIR has been
prepared (`delrec prepare`); their titles and texts have the same tokens in both vocabularies, which is checked: WordPiece takes
the longest entry that fits, so entries that no text takes can go. Read no other corpus with the result, since its words would
fall into other pieces. `distill.init=vocabulary` draws from the smaller vocabulary.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from ml_collections import ConfigDict
from safetensors.numpy import load_file, save_file

from delrec_jax.config import from_config
from delrec_jax.language.hub import WEIGHTS_FILE, read_json
from delrec_jax.language.tokenizer import Tokenizer
from delrec_jax.p2rec.preference_text import PREFERENCE, TEMPLATE
from delrec_jax.stages.inputs import Inputs
from delrec_jax.workdir.language_model import make_pieces
from delrec_jax.workdir.workspace import Workspace

_TABLE = "embeddings.word_embeddings.weight"
_TOKENIZER, _SETTINGS = "tokenizer.json", ("tokenizer_config.json", "special_tokens_map.json")


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the directory and prints its size."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--weights", type=Path, required=True, help="directory of the encoder")
    options.add_argument("--out", type=Path, required=True, help="a directory that does not exist")
    options.add_argument("workdirs", type=Path, nargs="+", help="prepared workdirs")
    values = options.parse_args(argv)
    values.out.mkdir(parents=True)
    kept, total = cut(values.weights, values.out, values.workdirs)
    size = sum(path.stat().st_size for path in values.out.iterdir()) / 2**20
    print(f"{values.out}: {kept:,} of {total:,} words, {size:.1f} MiB")


def cut(weights: Path, out: Path, workdirs: Sequence[Path]) -> tuple[int, int]:
    """Writes the smaller encoder; returns the sizes of its vocabulary and of the original one.

    Raises:
        ValueError: a text is not the same in both vocabularies.
    """
    tokenizer = read_json(weights / _TOKENIZER)
    total = len(tokenizer["model"]["vocab"])
    read = {workdir: tokens_in_use(workdir, weights) for workdir in workdirs}
    special = [token["id"] for token in tokenizer["added_tokens"]]
    kept = np.unique(np.concatenate([special, *(ids for text in read.values() for ids in text)]))
    new = np.full(total, -1)
    new[kept] = np.arange(len(kept))
    _write(out, weights, with_vocabulary(tokenizer, new), kept)
    for workdir, texts in read.items():
        again = tokens_in_use(workdir, out)
        if not all(map(np.array_equal, [new[ids] for ids in texts], again)):
            raise ValueError(f"{workdir}: a text has other tokens in the smaller vocabulary")
    return len(kept), total


def tokens_in_use(workdir: Path, weights: Path) -> list[np.ndarray]:
    """The tokens of all titles, and of all that texts are made of, as a run of this workdir reads them with this encoder."""
    settings = ConfigDict(read_json(workdir / "config.json"), convert_dict=True)
    experiment, tokenizer = from_config(settings), Tokenizer(weights)
    inputs = Inputs(Workspace(workdir, experiment))
    titles = inputs.data.corpus.catalogue.titles
    templates = {**inputs.templates, PREFERENCE: TEMPLATE}
    pieces = make_pieces(experiment, tokenizer, titles, templates)
    parts = [
        part for task in pieces.tasks.values() for part in task if isinstance(part, np.ndarray)
    ]
    start = tokenizer.encode(experiment.distill.init_text)
    found = [*parts, pieces.separator, pieces.begin, pieces.end, pieces.codes, start]
    found += tokenizer.encode_many(titles)
    return [np.asarray(ids, np.int64) for ids in found]


def with_vocabulary(tokenizer: dict[str, Any], new: np.ndarray) -> dict[str, Any]:
    """The settings of a tokenizer with other ids.

    Args:
        tokenizer: what `tokenizer.json` holds.
        new: the new id of each old one, -1 for words that are left out.
    """
    vocabulary = tokenizer["model"]["vocab"]
    words = {word: int(new[old]) for word, old in vocabulary.items() if new[old] >= 0}
    changed = json.loads(json.dumps(tokenizer))
    changed["model"]["vocab"] = words
    for token in changed["added_tokens"]:
        token["id"] = words[token["content"]]
    named = (changed.get("post_processor") or {}).get("special_tokens", {})
    for token in named.values() if isinstance(named, dict) else ():
        token["ids"] = [words[word] for word in token["tokens"]]
    return changed


def _write(out: Path, weights: Path, tokenizer: dict[str, Any], kept: np.ndarray) -> None:
    tensors = load_file(weights / WEIGHTS_FILE)
    (table,) = [name for name in tensors if name.endswith(_TABLE)]
    tensors[table] = tensors[table][kept]
    floats = {name: x for name, x in tensors.items() if np.issubdtype(x.dtype, np.floating)}
    save_file(
        {name: x.astype(ml_dtypes.bfloat16) for name, x in floats.items()}, out / WEIGHTS_FILE
    )
    config = read_json(weights / "config.json") | {"vocab_size": len(kept)}
    for name, value in (("config.json", config), (_TOKENIZER, tokenizer)):
        (out / name).write_text(json.dumps(value))
    for name in _SETTINGS:
        if (weights / name).exists():
            (out / name).write_text((weights / name).read_text())


if __name__ == "__main__":
    main()
