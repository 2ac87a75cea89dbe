"""The corpora by name: the settings that each one reads, its raw files, and the builder that reads them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from delrec_jax.data.corpora import amazon, movielens, steam
from delrec_jax.data.corpora.atomic import AtomicCorpus, AtomicSettings, atomic_paths
from delrec_jax.data.corpora.builder import SequenceCorpusBuilder
from delrec_jax.data.corpora.csv_pair import CsvCorpus, CsvSettings, csv_paths
from delrec_jax.data.corpora.data_config import DataConfig
from delrec_jax.data.corpora.resource import Resource
from delrec_jax.data.corpora.storefront import StorefrontCorpus, StorefrontSettings
from delrec_jax.data.corpora.tables import RulesConfig
from delrec_jax.errors import UserError
from delrec_jax.files import expanded

CACHE = "~/.cache/delrec_jax"


@dataclasses.dataclass(frozen=True)
class Source:
    """A corpus that is ready to be read.

    Attributes:
      builder: The TFDS builder's class.
      settings: What its `parse` needs.
      content: Everything in `settings` that determines what is read, except the files; JSON.
      files: The raw files; the reader reports a missing one.
    """

    builder: type[SequenceCorpusBuilder[Any]]
    settings: Any
    content: Mapping[str, Any]
    files: tuple[Path, ...] = ()


def find_source(config: DataConfig, *, given: bool = False) -> Source:
    """Finds (or downloads) the raw files of a corpus.

    Args:
      config: Which corpus.
      given: Whether its own training, validation and test windows are asked for, as `split.kind=given` does.

    Raises:
      UserError: for an unknown corpus, a setting that it does not have, a file that cannot be obtained, or `given` for a
        corpus without windows of its own or with rules that would change them.
    """
    if config.corpus not in _SOURCES:
        raise UserError(f"data.corpus: {config.corpus!r} is none of {', '.join(_SOURCES)}")
    find, used = _SOURCES[config.corpus]
    _reject_unused(config, used)
    if given:
        _check_given(config)
        return _steam(config, given=True)
    return find(config)


def _storefront(config: DataConfig) -> Source:
    if config.storefront.min_length < config.min_length:
        raise UserError(
            f"data.storefront.min_length = {config.storefront.min_length} is below "
            f"data.min_length = {config.min_length}; raise it, the storefront drops no user"
        )
    settings = StorefrontSettings(config.storefront, config.seed)
    return Source(StorefrontCorpus, settings, dataclasses.asdict(settings))


def _atomic(config: DataConfig) -> Source:
    settings = AtomicSettings(config.path, _rules(config))
    return _with_rules(AtomicCorpus, settings, atomic_paths(config.path))


def _csv(config: DataConfig) -> Source:
    settings = CsvSettings(config.path, _rules(config))
    return _with_rules(CsvCorpus, settings, csv_paths(config.path))


def _movielens(config: DataConfig) -> Source:
    files = _fetched(config, movielens.resources(config.edition))
    settings = movielens.MovieLensSettings(config.edition, files[0], _rules(config))
    return _with_rules(movielens.MovieLensCorpus, settings, files, edition=config.edition)


def _steam(config: DataConfig, *, given: bool = False) -> Source:
    resources = steam.resources(config.edition, given=given)
    at_hand = config.edition == "llara" and config.manual_dir
    fetched = _fetched if not at_hand else partial(_frames_at_hand, every=given)
    files = fetched(config, resources)
    settings = steam.SteamSettings(config.edition, files, _rules(config), given)
    own = {"split": "given"} if given else {}
    return _with_rules(steam.SteamCorpus, settings, files, edition=config.edition, **own)


# What leaves a source's windows as they are: a filter or a sample would tear them apart, or change who is evaluated.
_WHOLE = {"min_rating": 0.0, "k_core": 0, "max_users": 0, "min_length": 2, "repeats": "keep"}


def _check_given(config: DataConfig) -> None:
    if (config.corpus, config.edition) != ("steam", "llara"):
        raise UserError(
            f"split.kind is 'given', but data.corpus={config.corpus!r} (data.edition={config.edition!r}) has no training, "
            "validation and test windows of its own: only data.corpus=steam with data.edition=llara has; use another split.kind"
        )
    for name, value in _WHOLE.items():
        if getattr(config, name) != value:
            raise UserError(
                f"data.{name} is {getattr(config, name)!r}, but split.kind=given takes the windows of the source as they are, "
                f"a history of at least one item and its target: set data.{name}={value!r}"
            )


def _amazon(config: DataConfig) -> Source:
    reviews, meta = _fetched(config, amazon.resources(config.edition, config.category))
    settings = amazon.AmazonSettings(config.edition, config.category, reviews, meta, _rules(config))
    names = {"edition": config.edition, "category": config.category}
    return _with_rules(amazon.AmazonCorpus, settings, (reviews, meta), **names)


_RULES = tuple(field.name for field in dataclasses.fields(RulesConfig))
_FILES = ("edition", "manual_dir", "download_dir")
_SOURCES: Mapping[str, tuple[Callable[[DataConfig], Source], tuple[str, ...]]] = {
    "storefront": (_storefront, ("storefront", "seed", "min_length")),
    "atomic": (_atomic, ("path", *_RULES)),
    "csv": (_csv, ("path", *_RULES)),
    "movielens": (_movielens, (*_FILES, *_RULES)),
    "steam": (_steam, (*_FILES, *_RULES)),
    "amazon": (_amazon, ("category", *_FILES, *_RULES)),
}


LOCAL = ("atomic", "csv")
"""Corpora that are read from the user's own files."""


def _reject_unused(config: DataConfig, used: Sequence[str]) -> None:
    """Refuses settings without effect, which are misunderstandings."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        # The storefront's own settings have no effect elsewhere, but every config has them.
        if field.name in ("corpus", "domain", "storefront", *used) or value == field.default:
            continue
        raise UserError(
            f"data.{field.name} = {value!r} has no effect on data.corpus = {config.corpus!r}; leave it out "
            f"(this corpus reads {', '.join(used)})"
        )


def _rules(config: DataConfig) -> RulesConfig:
    if config.seed and not config.max_users:
        raise UserError(
            f"data.seed = {config.seed} has no effect without data.max_users, whose sample it draws; leave it out"
        )
    return RulesConfig(**{name: getattr(config, name) for name in _RULES})


def _with_rules(
    builder: type[SequenceCorpusBuilder[Any]],
    settings: Any,
    files: Sequence[Path],
    **content: str,
) -> Source:
    rules = dataclasses.asdict(settings.rules)
    return Source(builder, settings, {**content, "rules": rules}, tuple(files))


def _fetched(config: DataConfig, resources: Sequence[Resource]) -> tuple[Path, ...]:
    """The user's files, or those of the cache, which has a folder per edition because their files share names."""
    from delrec_jax.data.corpora.download import fetch  # its libraries are for downloads alone

    cache = expanded(config.download_dir or CACHE) / f"{config.corpus}-{config.edition}"
    manual = expanded(config.manual_dir) if config.manual_dir else None
    return tuple(fetch(resource, cache, manual_dir=manual) for resource in resources)


def _frames_at_hand(
    config: DataConfig, resources: Sequence[Resource], *, every: bool
) -> tuple[Path, ...]:
    """The LLaRA frames that the user has, gzipped or not, and the file of names; one frame is enough unless `every`."""
    folder = expanded(config.manual_dir)
    names = [resource.file_name for resource in resources]
    found = [
        path for name in names for path in (folder / name, folder / f"{name}.gz") if path.is_file()
    ]
    missing = [name for name in names if not any(path.name.startswith(name) for path in found)]
    if every and missing:
        raise UserError(
            f"data.manual_dir = {config.manual_dir!r}: split.kind=given needs {', '.join(names)}, but {', '.join(missing)} "
            f"is not there (gzipped or not); fetch it from {resources[0].url.rpartition('/')[0]}, or use another split.kind"
        )
    if len(found) < 2 or not found[-1].name.startswith(names[-1]):
        raise UserError(
            f"data.manual_dir = {config.manual_dir!r}: LLaRA's Steam needs {names[-1]} and at least one of "
            f"{', '.join(names[:-1])} in it (gzipped or not); fetch them from {resources[0].url} and the folder that it is in"
        )
    return tuple(found)
