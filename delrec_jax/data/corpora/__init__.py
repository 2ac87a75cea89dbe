"""Corpora by name: each is prepared once into records, and only these (or their copy) are read from then on.

What prepares and reads them (TFDS, a reader for each kind of source) is loaded when it is called: configs need none of it.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from delrec_jax.data import templates
from delrec_jax.data.corpora.data_config import DataConfig as DataConfig
from delrec_jax.data.corpora.quick_copy import FILE, load_copy, save_copy
from delrec_jax.data.interactions import Corpus
from delrec_jax.errors import UserError
from delrec_jax.files import file_hash, json_hash, write_text

if TYPE_CHECKING:
    from delrec_jax.data.corpora.sources import Source

_POINTER = "prepared.json"


def prepare_corpus(config: DataConfig, directory: Path, *, given: bool = False) -> Corpus:
    """The corpus of a configuration, written into `directory` unless it is already there.

    Each content has its own folder, named by a fingerprint of the settings and the source files, so a changed file or
    setting is never mistaken for the prepared one. `load_corpus` returns the corpus that was prepared last.

    Args:
      config: What to prepare.
      directory: Where prepared corpora live.
      given: Whether the source's own training, validation and test windows are asked for (`split.kind=given`).

    Raises:
      UserError: for a bad setting or anything wrong in the source files.
    """
    from delrec_jax.data.corpora.builder import read_corpus
    from delrec_jax.data.corpora.sources import find_source

    templates.domain(config.domain)
    source = find_source(config, given=given)
    builder = source.builder(settings=source.settings, data_dir=directory / _key(config, source))
    builder.prepare()
    pointer = {
        "records": str(builder.data_path.relative_to(directory)),
        "source": _key(config, source),
    }
    corpus = read_corpus(builder)
    save_copy(corpus, directory / pointer["source"] / FILE)
    write_text(directory / _POINTER, json.dumps(pointer))
    return corpus


def source_changed(config: DataConfig, directory: Path) -> bool:
    """Whether the user's own files have changed since the corpus was prepared from them.

    Files that no longer exist do not count as changed, and downloads are not examined. Files in `data.manual_dir` are.
    """
    from delrec_jax.data.corpora.sources import LOCAL, find_source

    if config.corpus not in LOCAL and not config.manual_dir:
        return False
    try:
        source = find_source(config)
        prepared = json.loads((directory / _POINTER).read_text())["source"]
    except (UserError, OSError, ValueError, KeyError, TypeError):
        return False
    return all(path.is_file() for path in source.files) and _key(config, source) != prepared


def load_corpus(directory: Path) -> Corpus:
    """The corpus that was prepared last; its source files are no longer needed.

    Raises:
      UserError: if there is none, or it is damaged.
    """
    try:
        pointer = json.loads((directory / _POINTER).read_text())
        copy = directory / pointer["source"] / FILE
        return load_copy(copy) if copy.exists() else _load_records(directory / pointer["records"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{directory}: no prepared corpus can be read ({error}); delete the folder and run `delrec prepare` again"
        ) from error


def _load_records(place: Path) -> Corpus:
    import tensorflow_datasets as tfds

    from delrec_jax.data.corpora.builder import read_corpus

    return read_corpus(tfds.builder_from_directory(place))


def _key(config: DataConfig, source: "Source") -> str:
    files = [(path.name, file_hash(path)) for path in source.files if path.is_file()]
    content: list[Any] = [config.corpus, dict(source.content), files]
    return json_hash(content)[:16]
