"""The command line: `delrec COMMAND --config=FILE --workdir=DIR [--config.key=value ...]`; `delrec --help` lists commands."""

import gc
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from absl import flags

from delrec_jax import ready_configs
from delrec_jax.command_help import COMMANDS, USAGE, help_of
from delrec_jax.command_line import overridden, parse
from delrec_jax.endings import reported
from delrec_jax.errors import UserError
from delrec_jax.files import refuse_foreign
from delrec_jax.hub_commands import reads_shared, run_shared
from delrec_jax.workdir.bucket import split_url

# Everything else is imported late: JAX takes seconds to load, and neither help nor a typo in a flag should wait for it.
if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from delrec_jax.config import Experiment
    from delrec_jax.studies.runs import StudyFile

# They can use the workdir's own.
_WITHOUT_CONFIG = ("recommend", "rank", "app", "probe", "report", "evaluate", "export", "push")

_READERS = ("recommend", "rank", "app", "prompts", "histories", "export", "push", "probe")


def console() -> None:
    """The console script: a process that is this command alone."""
    main(process=True)


def main(argv: Sequence[str] | None = None, *, process: bool = False) -> None:
    """Runs a command; `endings.reported` says with which status it ends.

    Args:
      argv: the words after `delrec`; None = those of this process.
      process: whether nothing follows in this process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["recommend"]:
        gc.disable()  # one answer leaves little garbage, and looking for it takes an eighth of the time
    if getattr(sys.stdout, "errors", "") == "strict" and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that cannot show a letter
    try:
        with reported(process=process):
            _dispatch(arguments)
            if sys.stdout is not None:  # it may have been closed
                sys.stdout.flush()
    finally:
        gc.enable()


def _dispatch(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE)
        return
    command = arguments[0]
    if command not in COMMANDS:
        raise UserError(f"no command {command!r}: use one of {', '.join(COMMANDS)}")
    if {"-h", "--help"} & set(arguments):
        print(help_of(command))
        return
    values, overrides, folders = parse(command, arguments[1:], folders=command == "compare")
    if command == "compare":
        _compare(folders, values, overrides, shlex.join(["delrec", *arguments]))
        return
    if reads_shared(command, values):
        run_shared(command, values)
        return
    _check_given(command, values, overrides)
    if command == "plan":
        _plan(_experiment(values, overrides), values)
        return
    if command == "study":
        _study(values, overrides)
        return
    experiment = _experiment(values, overrides)
    from delrec_jax import distributed
    from delrec_jax.workdir.opening import opened
    from delrec_jax.workdir_commands import run_command

    if command == "rank":  # the one reader that several processes share
        distributed.join(experiment.distributed)
    with opened(
        values.workdir,
        experiment,
        cache=values.cache,
        update=values.update,
        reads=command in _READERS,
    ) as ws:
        run_command(command, ws, values)


def _check_urls(command: str, values: flags.FlagValues, words: Sequence[str] = ()) -> None:
    """Refuses folders that are named by a URL, but for a workdir in a bucket where a command can use it."""
    for name, folder in [
        ("--output=", values.output),
        *(("--prompt_from=", other) for other in values.prompt_from),
        *(("", word) for word in words),
    ]:
        if "://" in (folder or ""):
            raise UserError(f"{name}{folder}: give a folder; only --workdir may be in a bucket")
    if "://" not in values.workdir:
        if values.cache:
            raise UserError(
                f"--cache={values.cache}: only a workdir in a bucket has a copy; leave it out"
            )
        return
    split_url(values.workdir)
    if command in ("study", "compare"):
        raise UserError(
            f"--workdir={values.workdir}: {command} works in folders; only single runs may be in a bucket"
        )
    if command == "probe" and not values.output:
        raise UserError(
            f"--workdir={values.workdir}: probe leaves nothing in a bucket: give --output=DIR for its tables"
        )


def _check_given(command: str, values: flags.FlagValues, overrides: list[str]) -> None:
    """Checks what can be checked before anything is loaded.

    Raises:
      UserError: --workdir or --config is missing, there is no such config file, or a folder is named by a URL.
    """
    _check_urls(command, values)
    if command != "plan" and not values.workdir:
        raise UserError("--workdir is missing: give the folder that this run writes to (or reads)")
    if values.config is not None:
        path, _ = ready_configs.file_and_argument(values.config)
        if not path.is_file():
            raise UserError(
                f"--config={path}: there is no such file; give the path of a config file, or the name of one in "
                f"{ready_configs.folder()}/, such as --config=storefront"
            )
    elif command == "plan":
        raise UserError("--config is missing: delrec plan --config=FILE --devices=8")
    elif command not in _WITHOUT_CONFIG:
        ready = "configs/studies/components.py" if command == "study" else "configs/storefront.py"
        raise UserError(
            f"--config is missing: delrec {command} --config={ready} --workdir={values.workdir}"
        )
    elif overrides:
        raise UserError(f"{overrides[0]} changes a config: give --config=FILE too")


def _experiment(values: flags.FlagValues, overrides: list[str]) -> "Experiment":
    """Builds the experiment from the config file and its overrides, or else from the workdir's own config."""
    from delrec_jax.config import from_config, read_config

    if values.config is None:
        from delrec_jax.workdir.stored_settings import stored_experiment

        return stored_experiment(values.workdir)
    return from_config(
        overridden(read_config(*ready_configs.file_and_argument(values.config)), overrides)
    )


def _compare(runs: list[str], values: flags.FlagValues, overrides: list[str], command: str) -> None:
    """Prints the tables of finished runs, and writes them with a page if --output is given."""
    _check_urls("compare", values, runs)
    if not runs or overrides or values.workdir or values.config:
        raise UserError(
            "compare needs finished runs and no config: delrec compare runs/a full=runs/b --output=comparison"
        )
    from delrec_jax.results import comparing
    from delrec_jax.results.sources import sources

    if values.output:
        refuse_foreign(Path(values.output), "summary.json", "compare")
    asked = comparing.Asked(values.systems, values.reference, values.metric, values.protocol)
    found = sources(runs)
    summary = comparing.summarized(found, asked)
    print(comparing.as_markdown(summary, asked))
    if values.output:
        folder = Path(values.output)
        comparing.write(folder, summary, asked, found, command=command)
        print(f"comparison: {folder / 'index.html'}")


def _plan(experiment: "Experiment", values: flags.FlagValues) -> None:
    from delrec_jax.planning.plan import plan

    print(
        plan(
            experiment,
            devices=values.devices,
            chip=values.chip,
            items=values.items,
            compile_for=values.compile,
        )
    )


def _study(values: flags.FlagValues, overrides: list[str]) -> None:
    from delrec_jax.config import read_config
    from delrec_jax.studies import command
    from delrec_jax.studies.opening import open_study
    from delrec_jax.studies.runs import StudyFile

    path, base = ready_configs.file_and_argument(values.config)
    shard, file = command.parse_shard(values.shard), StudyFile.load(path)
    place = ready_configs.file_and_argument(base) if base else (file.base, None)
    config = overridden(read_config(*place), overrides)
    command.leave_devices(values.jobs)
    if values.search:
        _search(file, place, config, values)
        return
    if values.dry:
        _dry(file, config, values)
        return
    opened = open_study(file, config, Path(values.workdir), update=values.update)
    command.execute(opened, processes=values.jobs, shard=shard, show_test=values.show_test)


def _dry(file: "StudyFile", config: "ConfigDict", values: flags.FlagValues) -> None:
    """Says what a study would run, and leaves no trace in its workdir."""
    from delrec_jax.studies.command import told
    from delrec_jax.studies.opening import open_study

    with TemporaryDirectory() as folder:
        opened = open_study(file, config, Path(folder))
        print(told(opened))
    if values.chip:
        print(f"\nOne run of the reference, {opened.study.reference}, by `delrec plan`:\n")
        _plan(opened.reference, values)


def _search(
    file: "StudyFile", place: tuple[Path, str | None], base: "ConfigDict", values: flags.FlagValues
) -> None:
    from delrec_jax.studies.search import search, told

    if values.dry:
        print(told(file, base, total=values.search))
        return
    if values.shard != "0/1":
        raise UserError(
            f"--shard={values.shard}: a search is one process that starts others: use --jobs"
        )
    search(
        file,
        place,
        base,
        Path(values.workdir),
        total=values.search,
        at_once=values.jobs,
        update=values.update,
    )


if __name__ == "__main__":
    console()
