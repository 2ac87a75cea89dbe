"""Damaged model directories, adapters and shared folders: one file damaged, and the directory read as a run reads it."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from damaged_bytes import BINARY_DAMAGES, PLACE_DAMAGES, TEXT_DAMAGES
from safetensors.numpy import load_file, save_file
from tiny_bert import RAW, write_bert, write_wordpiece
from tiny_t5 import GATED, visible_params
from verdicts import Case, choice, generator

from delrec_jax.config import Experiment, LMConfig
from delrec_jax.data.prompts import PromptConfig
from delrec_jax.language import bert_files, t5_files, weights
from delrec_jax.language.adalora_config import AdaLoRAConfig
from delrec_jax.language.adapter_files import load_adapter, save_adapter
from delrec_jax.language.hub import fingerprint
from delrec_jax.language.tokenizer import Tokenizer, train_tokenizer
from delrec_jax.workdir import base_model

UNKNOWN = (
    "no hash is known of weights that are read for the first time; from then on a run knows theirs"
)
SETTING = "another valid size of dropout or epsilon, or a key that the model does not read"
TEXTS = [
    f"The {word} Harbor: Volume {number}"
    for word in ("First", "Second", "Late")
    for number in range(9)
]

Change = Callable[[Path, np.random.Generator], str]


@dataclass(frozen=True)
class Kind:
    """What is read from a directory.

    Attributes:
      write: makes the directory.
      read: reads it; what it returns is compared.
      rules: for a file's name, why other content may be read from it; files that are not named never may.
    """

    write: Callable[[Path], None]
    read: Callable[[Path], Any]
    rules: Mapping[str, str]


def write_t5(folder: Path, *, parts: int = 1) -> None:
    limit = 1 << 30 if parts == 1 else 4000
    t5_files.export_model(visible_params(GATED), GATED, folder, max_shard_bytes=limit)
    train_tokenizer(TEXTS, TEXTS, vocab_size=GATED.vocab_size, sentinels=4, directory=folder)


def read_t5(folder: Path) -> Any:
    tokenizer, config = opened(folder, "t5"), t5_files.read_config(folder)
    params = t5_files.load(folder, config)
    return config, _content(params), tokenizer.encode_many(TEXTS), fingerprint(folder)


def write_small_bert(folder: Path) -> None:
    write_bert(folder, RAW | {"vocab_size": 64})
    write_wordpiece(folder, TEXTS, size=40)


def read_bert(folder: Path) -> Any:
    tokenizer, config = opened(folder, "bert"), bert_files.read_config(folder)
    params = bert_files.load(folder, config)
    return config, _content(params), tokenizer.encode_many(TEXTS), fingerprint(folder)


def opened(folder: Path, family: str) -> Tokenizer:
    """The tokenizer, if the model of a run can be made with it."""
    lm = LMConfig(
        family=family, weights=str(folder), verbalizer="mean" if family == "t5" else "embedding"
    )
    config = Experiment(lm=lm, prompts=PromptConfig(max_tokens=64))
    tokenizer = Tokenizer(folder)
    base_model.model_of(config, tokenizer, folder)
    return tokenizer


def _content(params: Any) -> str:
    return weights.params_hash(params)


ADAPTER = AdaLoRAConfig(targets=("q",), init_rank=4, target_rank=2)


def write_adapter(folder: Path) -> None:
    rng = np.random.default_rng(0)
    triplets = {
        "A": rng.normal(size=(12, 4)),
        "E": rng.normal(size=4),
        "B": rng.normal(size=(4, 15)),
    }
    held = {
        "encoder": {"block_0": {"q": {name: part.astype("f4") for name, part in triplets.items()}}}
    }
    save_adapter(
        folder,
        adapters=held,
        prompt=np.ones((3, 12), np.float32),
        config=ADAPTER,
        base_hash="0" * 64,
        base_name="tiny",
        rank_pattern={"encoder/block_0/q": 4},
    )


def read_adapter(folder: Path) -> Any:
    found = load_adapter(folder, base_hash="0" * 64)
    leaves = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(found.adapters)]
    return leaves, None if found.prompt is None else found.prompt.tobytes(), found.config


_WEIGHTS = {
    "model.safetensors": UNKNOWN,
    "config.json": SETTING,
    "generation_config.json": "not read: nothing is generated",
    "tokenizer.json": UNKNOWN,
    "tokenizer_config.json": UNKNOWN,
}
KINDS: Mapping[str, Kind] = {
    "t5": Kind(write_t5, read_t5, _WEIGHTS),
    "t5 in parts": Kind(partial(write_t5, parts=4), read_t5, _WEIGHTS),
    "bert": Kind(write_small_bert, read_bert, _WEIGHTS),
    "adapter": Kind(write_adapter, read_adapter, {}),
}


def header_lies(path: Path, rng: np.random.Generator) -> str:
    """The header of a safetensors file, rewritten: other shapes, types, places, names, or a length that is not its own."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    names = [name for name in header if name != "__metadata__"]
    name = choice(rng, names)
    entry, lie = (
        header[name],
        choice(
            rng,
            (
                "shape",
                "dtype",
                "begin",
                "end",
                "negative",
                "huge",
                "name",
                "twice",
                "length",
                "deep",
            ),
        ),
    )
    if lie == "shape":
        entry["shape"] = [*entry["shape"], 1] if rng.random() < 0.5 else entry["shape"][::-1]
    elif lie == "dtype":
        entry["dtype"] = choice(rng, ("F16", "I32", "BOOL", "F64", "nonsense", 3, None))
    elif lie in ("begin", "end"):
        entry["data_offsets"][lie == "end"] += int(rng.integers(1, 64))
    elif lie == "negative":
        entry["shape"] = [-1, *entry["shape"][1:]]
    elif lie == "huge":
        entry["shape"] = [2**62, 2**62]
    elif lie == "name":
        header[f"{name}.of_another"] = header.pop(name)
    elif lie == "deep":
        header["__metadata__"] = json.loads("[" * 100 + "]" * 100)
    text = json.dumps(header)
    if lie == "twice":
        text = text[:-1] + f', "{name}": {json.dumps(entry)}}}'
    encoded = text.encode()
    length = 2**60 if lie == "length" else len(encoded)
    path.write_bytes(length.to_bytes(8, "little") + encoded + data[8 + size :])
    return f"header: {lie} of {name}"


def tensor_changed(path: Path, rng: np.random.Generator) -> str:
    """One tensor of a file: not finite, of another type or shape, missing, or one more."""
    tensors = load_file(path)
    name = choice(rng, sorted(tensors))
    value, how = (
        tensors[name],
        choice(rng, ("nan", "inf", "int8", "float64", "wider", "flat", "missing", "more", "empty")),
    )
    if how in ("nan", "inf"):
        tensors[name] = value.copy()
        tensors[name].flat[int(rng.integers(value.size))] = np.nan if how == "nan" else np.inf
    elif how in ("int8", "float64"):
        tensors[name] = value.astype(how)
    elif how == "wider":
        tensors[name] = np.concatenate([value, value])
    elif how == "flat":
        tensors[name] = value.reshape(-1)
    elif how == "missing":
        del tensors[name]
    elif how == "empty":
        tensors[name] = np.zeros((0, *value.shape[1:]), value.dtype)
    else:
        tensors["one.more.weight"] = value
    save_file(tensors, path, metadata={"format": "pt"})
    return f"{name}: {how}"


WRONG = (
    None,
    True,
    False,
    -1,
    0,
    1.5,
    2**40,
    "",
    "x",
    [],
    [1],
    {},
    {"a": 1},
    1e308,
    -1e308,
    float("nan"),
    "12",
)


def value_of_another_kind(path: Path, rng: np.random.Generator) -> str:
    """One key of a JSON object with a value of another type or range, removed, or one more."""
    found = json.loads(path.read_text())
    at, key = found, choice(rng, sorted(found))
    while isinstance(at[key], dict) and at[key] and rng.random() < 0.7:
        at = at[key]
        key = choice(rng, sorted(at))
    if rng.random() < 0.2:
        del at[key]
        how = "removed"
    else:
        at[key] = choice(rng, WRONG)
        how = f"= {at[key]!r}"
    path.write_text(json.dumps(found))
    return f"key {key} {how}"


def larger_vocabulary(path: Path, rng: np.random.Generator) -> str:
    """A tokenizer with more ids than the table has rows."""
    found = json.loads(path.read_text())
    last = max((token["id"] for token in found["added_tokens"]), default=0) + 500
    found["added_tokens"].append(
        {
            "id": last,
            "content": "<new>",
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
    )
    path.write_text(json.dumps(found))
    return "one more token"


def damaged_directory(
    seed: int, number: int, folder: Path, wholes: Mapping[str, tuple[Path, Any]]
) -> Case:
    """One file of a directory, damaged.

    Args:
      seed: of the case.
      number: of the case.
      folder: where it is made.
      wholes: for each kind an undamaged directory, and what is read from it.
    """
    rng = generator(seed, "weights", number)
    kind = list(KINDS)[number % len(KINDS)]
    whole, expected = wholes[kind]
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    path = folder / choice(rng, files)
    what = _damage(path, rng)
    rule = KINDS[kind].rules.get(
        path.name, UNKNOWN if path.suffix == ".safetensors" and kind != "adapter" else ""
    )
    finite = not what.endswith((": nan", ": inf"))
    return Case(
        label=f"{kind}, {path.name}: {what}",
        attempt=lambda: KINDS[kind].read(folder),
        names=[str(folder)],
        same=lambda found: found == expected,
        rule=rule if finite else "",
    )


def _damage(path: Path, rng: np.random.Generator) -> str:
    own: list[Change] = (
        [header_lies, tensor_changed] if path.suffix == ".safetensors" else [value_of_another_kind]
    )
    if path.name == "tokenizer.json":
        own.append(larger_vocabulary)
    how = choice(rng, ("own",) * 5 + ("bytes",) * 2 + ("text",) + ("place",))
    if how == "own":
        return choice(rng, own)(path, rng)
    if how == "place":
        damage: Callable[..., Any] = choice(rng, PLACE_DAMAGES)
        damage(path)
        return str(damage.__name__)
    damage = choice(rng, BINARY_DAMAGES if how == "bytes" else list(TEXT_DAMAGES))
    path.write_bytes(damage(path.read_bytes(), rng))
    return str(damage.__name__)


def wholes(folder: Path) -> dict[str, tuple[Path, Any]]:
    """An undamaged directory of each kind, and what is read from it."""
    found = {}
    for number, (name, kind) in enumerate(KINDS.items()):
        place = folder / f"whole-{number}"
        kind.write(place)
        found[name] = (place, kind.read(place))
    return found
