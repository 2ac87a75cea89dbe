"""What reads a tokenizer's files: `tokenizers` alone for those that `train_tokenizer` wrote, `transformers` for all others.

`transformers` knows what each pretrained model's tokenizer does beyond its `tokenizer.json`, but takes a second to load, which
a small model of our own need not wait for. Both give the same ids.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

from tokenizers import Tokenizer

from delrec_jax.errors import UserError, one_line, without_panics
from delrec_jax.files import read_object

CONFIG = "tokenizer_config.json"
OWN = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
}
"""The config of a tokenizer that was trained here: `tokenizer.json` says all, and `transformers` can read it too."""


class Backend(Protocol):
    """A tokenizer as its library reads it."""

    @property
    def size(self) -> int:
        """Number of ids, added tokens included."""

    def special(self, name: str) -> int | None:
        """Returns the id of the special token `pad`, `eos`, `unk`, `mask`, `cls` or `sep`; None if there is none."""

    def id_of(self, token: str) -> int | None:
        """Returns the id of a token; None, or that of `unk`, if there is none."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text, without special tokens around it."""

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of ids, with special tokens."""


def open_backend(directory: Path) -> Backend:
    """Opens the tokenizer of a directory that has a `tokenizer.json`.

    Raises:
      UserError: its files are damaged, do not belong together, or name code that would have to be run.
    """
    config = directory / CONFIG
    remedy = "download the tokenizer again, or name another one by lm.tokenizer"
    own = config.is_file() and read_object(config, missing=remedy, remedy=remedy) == OWN
    try:
        with without_panics():
            return _tried(OwnBackend(directory) if own else TransformersBackend(directory))
    except Exception as error:  # both libraries raise many kinds, `tokenizers` bare ones
        raise UserError(
            f"{directory}: no tokenizer that can be read ({one_line(error, most=200)}); {remedy}"
        ) from error


def _tried(backend: Backend) -> Backend:
    """The same, after a first use: some damage shows only then."""
    for name in ("pad", "eos", "unk", "mask", "cls", "sep"):
        backend.special(name)
    backend.id_of("<extra_id_0>")
    backend.encode(["a"])
    return backend


class OwnBackend:
    """A tokenizer that was trained here."""

    def __init__(self, directory: Path):
        """Reads `tokenizer.json`."""
        self._tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))

    @property
    def size(self) -> int:
        """As in `Backend`."""
        return self._tokenizer.get_vocab_size()

    def special(self, name: str) -> int | None:
        """As in `Backend`."""
        token = OWN.get(f"{name}_token")
        return None if token is None else self.id_of(token)

    def id_of(self, token: str) -> int | None:
        """As in `Backend`."""
        return self._tokenizer.token_to_id(token)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """As in `Backend`."""
        found = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [each.ids for each in found]

    def decode(self, ids: Sequence[int]) -> str:
        """As in `Backend`."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)


class TransformersBackend:
    """A tokenizer as `transformers` reads it."""

    def __init__(self, directory: Path):
        """Reads the directory."""
        from transformers import AutoTokenizer

        # A directory, and never the hub: there is no revision to name.
        self._tokenizer = AutoTokenizer.from_pretrained(  # nosec B615
            str(directory),
            trust_remote_code=False,  # otherwise it asks on a terminal whether to run the directory's own code
            local_files_only=True,
        )

    @property
    def size(self) -> int:
        """As in `Backend`."""
        return len(self._tokenizer)

    def special(self, name: str) -> int | None:
        """As in `Backend`."""
        return cast(int | None, getattr(self._tokenizer, f"{name}_token_id"))

    def id_of(self, token: str) -> int | None:
        """As in `Backend`."""
        found = self._tokenizer.convert_tokens_to_ids(token)
        return found if isinstance(found, int) else None

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """As in `Backend`."""
        found = self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return cast(list[list[int]], found)

    def decode(self, ids: Sequence[int]) -> str:
        """As in `Backend`."""
        # Flan's own settings drop some spaces.
        text = self._tokenizer.decode(
            list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return cast(str, text)
