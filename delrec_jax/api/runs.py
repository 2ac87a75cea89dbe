"""Running the stages of a config from Python, as `delrec run` and `delrec STAGE` do, and opening what they leave."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from ml_collections import ConfigDict

from delrec_jax import ready_configs
from delrec_jax.api.frames import Place, given
from delrec_jax.config import (
    Experiment,
    from_config,
    leaf_keys,
    read_config,
    unknown_key,
)
from delrec_jax.errors import UserError, one_line
from delrec_jax.hub.fetched import is_shared, open_shared
from delrec_jax.serving.recommender import Recommender
from delrec_jax.stages import pipeline
from delrec_jax.workdir.opening import opened
from delrec_jax.workdir.stored_settings import stored_experiment
from delrec_jax.workdir.workspace import Workspace


def load_config(path: Place, **overrides: Any) -> ConfigDict:
    """Reads a config file, and changes some of its values.

    Args:
      path: a file, or the name of a ready config (`storefront`, `minilm/office`); `PATH:NAME` takes the file's ablation NAME.
      **overrides: values by key, with two underscores for each dot: `distill__length=20`, or `**{"distill.length": 20}`.

    Returns:
      The config, which may be changed further until it is run.

    Raises:
      UserError: no such file, an unknown key (the nearest is named), or a bad value.
    """
    config = read_config(*ready_configs.file_and_argument(str(path)))
    known = leaf_keys(config.to_dict())
    for key, value in overrides.items():
        dotted = key.replace("__", ".")
        if dotted not in known:
            raise UserError(unknown_key(dotted, known))
        try:
            config.update_from_flattened_dict({dotted: value})
        except (TypeError, ValueError) as error:
            raise UserError(f"{dotted}={value!r}: {one_line(error)}") from error
    from_config(config)
    return config


def run(config: ConfigDict | Experiment, workdir: Place, *, update: bool = False) -> Recommender:
    """Runs all stages of a config's method: finished ones are skipped, an interrupted one resumes.

    Args:
      config: from `load_config`.
      workdir: the folder that holds the run, or `gs://BUCKET/PATH`.
      update: run the stages of a workdir again that a changed config affects.

    Returns:
      The run, ready to be asked.

    Raises:
      UserError: bad input, as the command line tells it.
    """
    with _opened(config, workdir, update=update) as workspace:
        pipeline.run_all(workspace)
    return Recommender(workspace)


def run_stage(
    config: ConfigDict | Experiment, workdir: Place, stage: str, *, update: bool = False
) -> None:
    """Runs one stage, such as `prepare` or `teach`, unless it is finished.

    Args:
      config: from `load_config`.
      workdir: the folder that holds the run, or `gs://BUCKET/PATH`.
      stage: its name.
      update: run it again if a changed config affects it.

    Raises:
      UserError: no such stage, one that it needs is not finished, or bad input, as the command line tells it.
    """
    with _opened(config, workdir, update=update) as workspace:
        pipeline.run_stage(workspace, stage)


def load(
    place: Place,
    *,
    revision: str | None = None,
    base: Place = "",
    titles: Mapping[str, str] | None = None,
) -> Recommender:
    """Opens a finished run, or a model that somebody shared; nothing in its folder is changed.

    A shared model is read by safetensors and JSON alone: no pickle and no code of the repository is fetched or opened.

    Args:
      place: the folder of the run, or `gs://BUCKET/PATH`; or `USER/NAME` of a model that `delrec push` put on the hub, or a
        folder that `delrec export --format=hub` wrote.
      revision: a branch, tag or commit on the hub; None = its main branch.
      base: a folder or hub name of a shared model's language model, where it is not where the model says.
      titles: titles by item id, for a model that was shared without titles.

    Raises:
      UserError: there is no finished run; or no such model, or it cannot be fetched, or it is damaged or of another version.
    """
    given(place, "place", "the folder of a run, or USER/NAME")
    if is_shared(str(place)):
        return open_shared(str(place), revision=revision, base=str(base), titles=titles)
    if revision or base or titles:
        raise UserError(f"{place}: revision, base and titles are for shared models, USER/NAME")
    with opened(str(place), stored_experiment(place), reads=True) as workspace:
        return Recommender(workspace)


def _opened(
    config: ConfigDict | Experiment, workdir: Place, *, update: bool
) -> AbstractContextManager[Workspace]:
    if not isinstance(config, Experiment | ConfigDict):
        raise UserError(f"config is {config!r}: give what load_config returns")
    given(workdir, "workdir", "the folder that the run writes to")
    experiment = config if isinstance(config, Experiment) else from_config(config)
    return opened(str(workdir), experiment, update=update, reads=False)
