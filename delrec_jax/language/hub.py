"""Model directories in Hugging Face's layout: finds them by name, and lists their tensors."""

import hashlib
import re
import shlex
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from safetensors import SafetensorError, safe_open

from delrec_jax.addresses import watch_hub
from delrec_jax.errors import UserError, one_line
from delrec_jax.files import expanded, file_hash, read_object

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "spiece.model",
)
CONFIG_FILE = "config.json"
WEIGHTS_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
# How sentence-transformers makes a text's vector from its states.
POOLING_FILE = "1_Pooling/config.json"
# Repositories also hold the weights for other frameworks, which would triple the download.
FETCHED = (
    CONFIG_FILE,
    "generation_config.json",
    *TOKENIZER_FILES,
    "model*.safetensors",
    INDEX_FILE,
    POOLING_FILE,
)
MOST_BLOCKS = 512
"""Of a model; with more, a `config.json` is damaged, and a model of that depth would be traced for hours."""
Shape = TypeVar("Shape")
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_FILE_NAME = re.compile(r"[\w.-]+\.safetensors")  # nowhere else: an index is data from the hub
_DTYPES = ("F32", "F16", "BF16")
_INDICES = "I64"  # the type of stored positions, which no family reads
_CONVERT = (
    'python -c "import sys, transformers as t; d = sys.argv[1]; '
    "kind = t.AutoConfig.from_pretrained(d).architectures[0]; "
    'getattr(t, kind).from_pretrained(d).save_pretrained(d)" '
)


class StoredTensor(NamedTuple):
    """A tensor on disk: its name in `file` and its shape there (a kernel is [out, in])."""

    name: str
    file: Path
    shape: tuple[int, ...]


def resolve(name_or_dir: str | Path, revision: str | None = None) -> Path:
    """Returns the directory of a model, fetching the model if necessary.

    Args:
      name_or_dir: a directory, used as it is, or a name on the Hugging Face hub such as `google/flan-t5-small`, which
        is fetched unless the hub's cache has it. HF_HUB_OFFLINE, HF_HUB_CACHE and HF_ENDPOINT are respected.
      revision: a branch, tag or commit on the hub; None = its main branch.

    Raises:
      UserError: neither a directory nor a model that can be fetched.
    """
    path = expanded(name_or_dir)
    if path.is_dir():
        return path
    if path.exists():
        raise UserError(
            f"{name_or_dir}: a file; name the directory that holds config.json and the weights"
        )
    if not _HUB_NAME.fullmatch(str(name_or_dir)):
        raise UserError(
            f"{name_or_dir}: no such directory, and not a hub name (such as google/flan-t5-small) either"
        )
    return _fetch(str(name_or_dir), revision)


def commit_of(directory: Path) -> str | None:
    """Returns the commit that a directory of the hub's cache holds; None for any other directory."""
    return directory.name if directory.parent.name == "snapshots" else None


def _fetch(name: str, revision: str | None) -> Path:
    """Fetches a model through `huggingface_hub` and its cache."""
    # Imported late, because the import is slow and most runs name a directory.
    from huggingface_hub import errors, snapshot_download

    watch_hub()
    try:
        return Path(
            snapshot_download(name, revision=revision, allow_patterns=list(FETCHED)),
        )
    except (
        errors.HTTPError,  # type: ignore[attr-defined, unused-ignore]  # not exported explicitly
        errors.HFValidationError,
        OSError,
    ) as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"{name}: no such directory, and {_fault(error)} ({type(error).__name__}: {reason})"
        ) from None


def _fault(error: Exception) -> str:
    """Returns what went wrong at the hub, and the remedy."""
    from huggingface_hub import errors, is_offline_mode

    if isinstance(error, errors.GatedRepoError | errors.DisabledRepoError):
        return "the hub denies you access to this model: ask its owner, then run `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        return "no such model on the hub: check the name"
    if isinstance(error, errors.LocalEntryNotFoundError) and is_offline_mode():
        return "missing or incomplete in the hub's cache while HF_HUB_OFFLINE is set: unset it, or name a directory"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return "the hub cannot be reached: check the network, or name a directory"
    return "fetching it from the hub failed: try again, or name a directory"


def known_shape(
    name_or_dir: str, read: Callable[[Path], Shape], published: Mapping[str, Shape], kind: str
) -> tuple[Shape, str]:
    """Returns the sizes of a pretrained model, without using the network.

    Args:
      name_or_dir: the value of `lm.weights`.
      read: reads the shape from a model's directory.
      published: shapes that are known without files, by name.
      kind: what `published` holds, for messages.

    Returns:
      The shape, and where it was found: a directory, the hub's cache, or `published`.

    Raises:
      UserError: it was found in none of the three, or the directory cannot be read.
    """
    directory = expanded(name_or_dir)
    if directory.is_dir():
        return read(directory), str(directory)
    if (cached := _in_cache(name_or_dir, read)) is not None:
        return cached[1], f"the hub's cache ({cached[0]})"
    if name_or_dir in published:
        return published[name_or_dir], f"the table of published {kind} shapes"
    raise UserError(
        f"lm.weights={name_or_dir}: not a directory, not in the hub's cache, and not a known {kind} model; fetch it "
        f"(`hf download {name_or_dir}`), name a directory, or use one of {', '.join(published)}"
    )


def _in_cache(name: str, read: Callable[[Path], Shape]) -> tuple[Path, Shape] | None:
    """Returns the directory of a model in the hub's cache and its shape; None if it is missing or incomplete."""
    from huggingface_hub import errors, snapshot_download

    try:
        # Nothing is downloaded, so no revision need be named.
        found = Path(
            snapshot_download(name, allow_patterns=list(FETCHED), local_files_only=True)  # nosec B615
        )
        return found, read(found)
    except (errors.LocalEntryNotFoundError, errors.HFValidationError, UserError):
        return None


def read_json(file: Path) -> dict[str, Any]:
    """Reads the object in a JSON file of a model directory.

    Raises:
      UserError: no such file, or no JSON object in it.
    """
    return read_object(
        file,
        missing=f"name a directory with {CONFIG_FILE} and {WEIGHTS_FILE}",
        remedy="download it again",
    )


def stated_number(
    file: Path, raw: Mapping[str, Any], key: str, default: float, low: float, high: float
) -> Any:
    """Returns a number of a `config.json`, or the default where the file leaves it out.

    Raises:
      UserError: it is no number from `low` to `high`, or has a fraction where the default has none.
    """
    value = raw.get(key, default)
    kinds = (int,) if isinstance(default, int) else (int, float)
    if type(value) not in kinds or not low <= value <= high:
        raise UserError(f"{file}: {key} is {value!r}; download the model's own file")
    return value


def stored_tensors(directory: Path) -> dict[str, StoredTensor]:
    """Returns the tensors of a model directory by name, reading only the headers of its files.

    Args:
      directory: holds `model.safetensors`, or `model.safetensors.index.json` and the files that it names.

    Raises:
      UserError: no safetensors there, a damaged file, or an index that does not match the files.
    """
    if (directory / WEIGHTS_FILE).is_file():
        return _header(directory / WEIGHTS_FILE)
    if not (directory / INDEX_FILE).is_file():
        raise UserError(_no_safetensors(directory))
    index = directory / INDEX_FILE
    files = read_json(index).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise UserError(f"{index}: no weight_map of tensor names to files; download it again")
    found: dict[str, StoredTensor] = {}
    for shard in sorted(set(files.values())):
        if not _FILE_NAME.fullmatch(shard):
            raise UserError(
                f"{index}: names {shard!r}, which is no .safetensors file beside it; download it again"
            )
        if not (directory / shard).is_file():
            raise UserError(f"{index}: names {shard}, which is not there; download it too")
        found |= {
            name: tensor
            for name, tensor in _header(directory / shard).items()
            if files.get(name, shard) == shard
        }
    if absent := sorted(set(files) - set(found)):
        raise UserError(
            f"{index}: names {absent[0]} in {files[absent[0]]}, which does not hold it ({len(absent)} such tensors); "
            "download index and files again"
        )
    return found


def fingerprint(directory: Path) -> str:
    """Returns a hash that identifies a model on disk, of config.json and every byte of its safetensors.

    The same weights saved differently (another type, other shards) get another hash; see also `weights.params_hash`.

    Returns:
      A SHA-256 in hexadecimal.

    Raises:
      UserError: no config.json, or no safetensors that can be read.
    """
    files = weight_files(directory)
    with ThreadPoolExecutor() as pool:  # hashing releases the interpreter's lock
        digests = list(pool.map(file_hash, files))
    lines = [f"{digest} {file.name}\n" for digest, file in zip(digests, files, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def weight_files(directory: Path) -> list[Path]:
    """Returns the files that make up a model: config.json and its safetensors.

    Raises:
      UserError: as in `fingerprint`.
    """
    read_json(directory / CONFIG_FILE)
    return [
        directory / CONFIG_FILE,
        *sorted({tensor.file for tensor in stored_tensors(directory).values()}),
    ]


def _header(file: Path) -> dict[str, StoredTensor]:
    """Returns the names and shapes of the tensors in one file."""
    found = {}
    try:
        with safe_open(file, framework="np") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (not a mapping: cannot be iterated)
                part = tensors.get_slice(name)
                if part.get_dtype() not in (*_DTYPES, _INDICES):
                    raise UserError(
                        f"{file}: {name} is {part.get_dtype()}; only {', '.join(_DTYPES)} can be read, so name an "
                        "unquantized model"
                    )
                found[name] = StoredTensor(name, file, tuple(part.get_shape()))
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{file}: damaged ({one_line(error, most=300)}; {file.stat().st_size} bytes); download it again "
            "(after `git clone`: `git lfs pull`)"
        ) from None
    return found


def _no_safetensors(directory: Path) -> str:
    """Returns the message for a directory without safetensors, with a command that makes them from a pickle."""
    command = _CONVERT + shlex.quote(str(directory))
    if any(directory.glob("pytorch_model*.bin*")):
        return (
            f"{directory}: only pytorch_model.bin there, a pickle, which can run code when it is read; if you trust it "
            f"and torch is installed, write {WEIGHTS_FILE} next to it: {command}"
        )
    return f"{directory}: no {WEIGHTS_FILE} and no {INDEX_FILE} there; download them (or pytorch_model.bin, then: {command})"
