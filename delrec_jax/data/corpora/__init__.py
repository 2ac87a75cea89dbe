"""Corpora by name: prepared once into records, then read back from them."""

import hashlib
import json
from pathlib import Path
from typing import Any

from delrec_jax.data import templates
from delrec_jax.data.corpora.builder import read_corpus
from delrec_jax.data.corpora.data_config import DataConfig as DataConfig
from delrec_jax.data.corpora.sources import Source, find_source
from delrec_jax.data.interactions import Corpus


def load_corpus(config: DataConfig, directory: Path) -> Corpus:
    """The corpus of a configuration, prepared into `directory` if it is not there yet.

    Each content has a folder of its own, named by a fingerprint of the settings and of
    the source files, so a changed file or setting is never mistaken for a prepared one.

    Args:
      config: What to load.
      directory: Where prepared corpora live.

    Raises:
      UserError: for a bad setting or anything wrong in the source files.
    """
    templates.domain(config.domain)
    source = find_source(config)
    builder = source.builder(settings=source.settings, data_dir=directory / _key(config, source))
    builder.prepare()
    return read_corpus(builder)


def _key(config: DataConfig, source: Source) -> str:
    files = [(path.name, _digest(path)) for path in source.files if path.is_file()]
    content: list[Any] = [config.corpus, dict(source.content), files]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
