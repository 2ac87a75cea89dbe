"""Corpora by name: prepared once into records, then read back from them."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from delrec_jax.data import templates
from delrec_jax.data.corpora.atomic import AtomicConfig, AtomicCorpus, atomic_paths
from delrec_jax.data.corpora.builder import SequenceCorpusBuilder, read_corpus
from delrec_jax.data.corpora.storefront import StorefrontCorpus, StorefrontSettings
from delrec_jax.data.corpora.storefront_world import StorefrontConfig
from delrec_jax.data.interactions import Corpus
from delrec_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which corpus, and what is kept of it.

    Attributes:
      corpus: "storefront" (generated) or "atomic" (RecBole atomic files).
      path: For "atomic": a folder NAME with NAME.inter and NAME.item, or their prefix.
      domain: What the items are called in prompts: movies, games, items or home.
      min_rating: For "atomic": rows rated lower are left out; 0 keeps all.
      k_core: For "atomic": users and items with fewer interactions are left out until
        none is; 0 is off.
      min_length: Users with fewer interactions are left out.
      max_users: For "atomic": a seeded sample of so many users; 0 takes all.
      storefront: For "storefront": size and process of the world.
      seed: Of the world, or of the sample of users.
    """

    corpus: str = "storefront"
    path: str = ""
    domain: str = "items"
    min_rating: float = 0.0
    k_core: int = 0
    min_length: int = 3
    max_users: int = 0
    storefront: StorefrontConfig = dataclasses.field(default_factory=StorefrontConfig)
    seed: int = 0


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
    if config.corpus not in _BUILDERS:
        raise UserError(f"data.corpus: {config.corpus!r} is none of {', '.join(_BUILDERS)}")
    builder = _BUILDERS[config.corpus](config, directory)
    builder.prepare()
    return read_corpus(builder)


def _atomic_builder(config: DataConfig, directory: Path) -> SequenceCorpusBuilder:
    names = [field.name for field in dataclasses.fields(AtomicConfig)]
    settings = AtomicConfig(**{name: getattr(config, name) for name in names})
    _reject_negative(settings)
    files = [path for path in atomic_paths(config.path) if path.is_file()]
    content = [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]
    kept = dataclasses.asdict(dataclasses.replace(settings, path=""))
    return AtomicCorpus(settings=settings, data_dir=directory / _key(["atomic", kept, content]))


def _storefront_builder(config: DataConfig, directory: Path) -> SequenceCorpusBuilder:
    unused = [
        name for name in ("path", "min_rating", "k_core", "max_users") if getattr(config, name)
    ]
    if unused:
        raise UserError(
            f"data.{unused[0]} = {getattr(config, unused[0])!r} has no effect on the generated "
            "storefront; leave it out, or set data.corpus = 'atomic' (data.storefront.users sets "
            "the storefront's size)"
        )
    if config.storefront.min_length < config.min_length:
        raise UserError(
            f"data.storefront.min_length = {config.storefront.min_length} is below "
            f"data.min_length = {config.min_length}; raise it, the storefront drops no user"
        )
    settings = StorefrontSettings(config.storefront, config.seed)
    key = _key(["storefront", dataclasses.asdict(settings)])
    return StorefrontCorpus(settings=settings, data_dir=directory / key)


_BUILDERS: Mapping[str, Callable[[DataConfig, Path], SequenceCorpusBuilder]] = {
    "storefront": _storefront_builder,
    "atomic": _atomic_builder,
}


def _key(content: list) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _reject_negative(config: AtomicConfig) -> None:
    for name in ("min_rating", "k_core", "min_length", "max_users"):
        if getattr(config, name) < 0:
            raise UserError(f"data.{name} = {getattr(config, name)}: must be at least 0")
