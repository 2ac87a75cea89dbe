"""The language model's own vectors of all titles: each title is read once per run, whatever reads the vectors.

They are what the verbalizer `embedding` compares texts with, and what `lm_embeddings` and `lm_cease` recommend by.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from delrec_jax.data.pipeline import bucket_length, make_buckets
from delrec_jax.data.prompts import Pieces
from delrec_jax.data.stored_arrays import content_hash, load_arrays, save_arrays
from delrec_jax.distributed import as_main_sees, on_main
from delrec_jax.errors import UserError
from delrec_jax.language.embedding_scoring import title_vectors
from delrec_jax.language.family import LanguageModel, Params
from delrec_jax.training.sharding import Layout
from delrec_jax.training.steps import EvalStep

_BATCH = 128


@dataclass(frozen=True)
class TitleStore:
    """Where the vectors of one language model are kept.

    Attributes:
      file: the file; None = they are kept nowhere, and made when they are asked for.
      base: fingerprint of the language model.
    """

    file: Path | None
    base: str

    def vectors(
        self, encoder: "TitleEncoder", params: Params, adapters: Any = None
    ) -> Float[np.ndarray, "I D"]:
        """Returns the stored vectors of these titles; makes and stores them first if the file holds others or none.

        Args:
          encoder: reads the titles.
          params: parameters of the language model.
          adapters: AdaLoRA's tree, if `base` is a tuned model.
        """
        file, key = self.file, {"base": self.base, "titles": encoder.digest}
        if file is None:
            return encoder(params, adapters)
        if not as_main_sees(lambda: _read(file, key) is not None):
            found = encoder(params, adapters)
            on_main(lambda: _write(file, key, found))
            return found
        stored = _read(file, key)
        assert stored is not None
        return stored


def title_room(model: LanguageModel, pieces: Pieces) -> int:
    """Returns how many tokens of a title the model can read alone, beside the special tokens of a text; 0 = any."""
    special = len(pieces.begin) + len(pieces.end)
    return max(1, model.longest_text - special) if model.longest_text else 0


class TitleEncoder:
    """Reads all titles, in batches of similar length; compiled once, with and without adapters."""

    def __init__(self, model: LanguageModel, layout: Layout, titles: list[np.ndarray]):
        """Reads nothing yet.

        Args:
          model: the language model.
          layout: where its parameters are placed.
          titles: the tokens of each text, no more than the model can read.
        """
        self._titles, self._width = titles, model.width
        self._pooling = model.pooling
        self._most = model.longest_text  # 0 = any
        self._step = EvalStep(
            lambda held, ids: title_vectors(model, held["params"], ids, held["adapters"]), layout
        )

    @property
    def digest(self) -> str:
        """Fingerprint of the titles and of how they are pooled."""
        pooling = self._pooling
        digest = hashlib.sha256(b"" if pooling == "mean" else pooling.encode())
        for title in self._titles:
            digest.update(len(title).to_bytes(8, "little") + title.tobytes())
        return digest.hexdigest()

    def __call__(self, params: Params, adapters: Any = None) -> Float[np.ndarray, "I D"]:
        """Returns what the model makes of each title, on the host."""
        held = {"params": params, "adapters": adapters}
        lengths = np.array([len(title) for title in self._titles])
        buckets = make_buckets(int(lengths.max()), smallest=16)
        found = np.zeros((len(lengths), self._width), np.float32)
        order, batch = np.argsort(lengths, kind="stable"), min(_BATCH, len(lengths))
        for start in range(0, len(order), batch):
            # The last batch reads some titles again, so that it has the shape of the others.
            rows = order[max(0, min(start, len(order) - batch)) :][:batch]
            length = bucket_length(int(lengths[rows].max()), buckets)
            ids = np.zeros((batch, min(length, self._most or length)), np.int32)
            for line, row in zip(ids, rows, strict=True):
                line[: lengths[row]] = self._titles[row]
            found[rows] = np.asarray(self._step(held, ids))
        return found


def _read(file: Path, key: dict[str, str]) -> np.ndarray | None:
    """Returns what the file holds under this key; None if it is missing, damaged or of something else."""
    try:
        header, arrays, _ = load_arrays(
            file, "file of title vectors", header=tuple(key), arrays=("vectors",)
        )
    except UserError:
        return None
    return arrays["vectors"] if header == key else None


def _write(file: Path, key: dict[str, str], vectors: np.ndarray) -> None:
    arrays = {"vectors": vectors}
    save_arrays(file, key, arrays, stated_hash=content_hash(key, arrays))
