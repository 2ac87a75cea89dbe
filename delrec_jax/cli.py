"""The command line: `delrec run|STAGE|prompts|recommend --config=FILE --workdir=DIR [--config.key=value ...]`."""

import errno
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from delrec_jax import config as configuration
from delrec_jax.errors import Preempted, UserError, one_line
from delrec_jax.workdir import stage_table

STAGES = tuple(stage for stage in stage_table.ALL if stage != "baseline")
COMMANDS = ("run", *STAGES, "baseline", "prompts", "recommend", "export", "plan")

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)

USAGE = f"""delrec: distil a sequential recommender into a language model, and take its item embeddings back

  delrec run       --config=configs/storefront.py --workdir=runs/storefront   every stage of the config's method, in order
  delrec STAGE     --config=FILE --workdir=DIR      one of {", ".join(STAGES)}
  delrec baseline  --config=FILE --workdir=DIR      prepare, teach, and rank popularity and the teacher: no language model
  delrec prompts   --config=FILE --workdir=DIR --n=2          whole examples of each task, for reading
  delrec recommend --workdir=DIR --history="Title; Title" -k 10

  delrec export    --workdir=DIR --format=hf --output=DIR     the tuned model for others: hf, peft, lora or adapter

  delrec plan      --config=FILE --devices=64 [--chip=h100] [--compile=cpu]   shardings and bytes, touching no device

  --config.KEY=VALUE   change a value of the config, for example --config.distill.loop.steps=300
  --update             make the stages of a workdir anew that a changed config touches
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command; what ends it early is one line on stderr and an exit status of its own.

    0 done; 2 a mistake of the user's, or a disk that takes no more; 69 another process of the run was lost; 75 told to end
    (SIGTERM); 130 interrupted. After 69, 75 and 130 the same command goes on from the last checkpoint.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        _dispatch(arguments)
    except UserError as error:
        _end(str(error), error.status)
    except KeyboardInterrupt:
        _end("interrupted; the same command goes on from the last checkpoint", 130)
    except Preempted as notice:
        _end(f"told to end; {notice}; the same command goes on from there", 75)
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        _end(
            f"{error}: nothing more can be written; make room, then start the same command again", 2
        )
    except Exception as error:
        from delrec_jax.distributed import lost_another

        if not lost_another(error):
            raise
        said = one_line(error, most=300)
        _end(
            f"another process of this run was lost ({said}); start all of them again: the run goes on from the last checkpoint",
            69,
        )


def _end(message: str, status: int) -> None:
    print(f"delrec: {message}", file=sys.stderr, flush=True)
    if "jax" in sys.modules:
        from delrec_jax.distributed import leave

        leave(status)
    sys.exit(status)


def _dispatch(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE)
        return
    command = arguments[0]
    if command not in COMMANDS:
        raise UserError(f"no command {command!r}: use one of {', '.join(COMMANDS)}")
    values = _parse(command, [_long(argument) for argument in arguments[1:]])
    if command == "plan":
        _plan(values)
        return
    # Imported late: JAX takes seconds to load, and a typo in a flag should not wait for it.
    from delrec_jax.workdir.session import keep_compiled, session
    from delrec_jax.workdir.workspace import Workspace, stored_settings

    if not values.workdir:
        raise UserError("--workdir is missing: give the folder that this run writes to (or reads)")
    workdir = Path(values.workdir)
    if values.config is None:
        if command not in ("recommend", "report", "evaluate", "export"):
            raise UserError(
                f"--config is missing: delrec {command} --config=configs/storefront.py --workdir={workdir}"
            )
        settings = ConfigDict(stored_settings(workdir), convert_dict=True)
    else:
        settings = values.config
    experiment = configuration.from_config(settings)
    keep_compiled(workdir)
    if command in ("recommend", "prompts", "export"):  # they only read
        _run(command, Workspace(workdir, experiment, update=values.update), values)
        return
    with session(workdir, experiment):
        _run(command, Workspace(workdir, experiment, update=values.update), values)


def _plan(values: flags.FlagValues) -> None:
    from delrec_jax.planning.plan import plan

    if values.config is None:
        raise UserError("--config is missing: delrec plan --config=FILE --devices=8")
    experiment = configuration.from_config(values.config)
    print(
        plan(
            experiment,
            devices=values.devices,
            chip=values.chip,
            items=values.items,
            compile_for=values.compile,
        )
    )


def _run(command: str, ws, values: flags.FlagValues) -> None:
    if command == "prompts":
        from delrec_jax.stages.inputs import Inputs
        from delrec_jax.stages.show_prompts import show_prompts

        show_prompts(ws, Inputs(ws), values.n)
    elif command == "recommend":
        from delrec_jax.stages.inputs import Inputs
        from delrec_jax.stages.recommend import recommend

        recommend(ws, Inputs(ws), values.history, values.k)
    elif command == "export":
        from delrec_jax.stages.export import export
        from delrec_jax.stages.inputs import Inputs

        if not values.output:  # Path("") would be the directory that the user happens to be in
            raise UserError("--output is missing: give the directory that export writes to")
        export(ws, Inputs(ws), values.format, Path(values.output))
    else:
        from delrec_jax.stages import pipeline

        whole = {"run": pipeline.run_all, "baseline": pipeline.run_baseline}
        whole[command](ws) if command in whole else pipeline.run_stage(ws, command)


def _long(argument: str) -> str:
    """`-k` as absl wants it."""
    return "--k" if argument == "-k" else argument


def _parse(command: str, arguments: list[str]) -> flags.FlagValues:
    """Reads flags into a set of their own: no global state.

    Raises:
      UserError: an unknown flag or key, a bad value, a config file that cannot be read.
    """
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config", None, "config file", flag_values=values, sys_argv=["delrec", *arguments]
    )
    flags.DEFINE_string("workdir", "", "folder of the run", flag_values=values)
    flags.DEFINE_bool("update", False, "remake what a changed config touches", flag_values=values)
    flags.DEFINE_integer("n", 2, "prompts: examples a task", flag_values=values)
    flags.DEFINE_string("history", "", "recommend: titles, separated by ;", flag_values=values)
    flags.DEFINE_integer("k", 10, "recommend: length of the list", flag_values=values)
    flags.DEFINE_string("format", "hf", "export: hf, peft, lora or adapter", flag_values=values)
    flags.DEFINE_integer("devices", 1, "plan: of all processes together", flag_values=values)
    flags.DEFINE_string("chip", "", "plan: the chip; empty = all known ones", flag_values=values)
    flags.DEFINE_integer("items", 10_000, "plan: assumed catalogue", flag_values=values)
    flags.DEFINE_string("compile", "cpu", "plan: cpu, chip or no", flag_values=values)
    flags.DEFINE_string("output", "", "export: directory to write", flag_values=values)
    path = _config_path(arguments)
    if path is not None:
        _check_overrides(path, arguments)
    try:
        rest = values(["delrec", *arguments])[1:]
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, SyntaxError) as error:
        raise UserError(f"{command}: {one_line(error)}") from error
    if rest:
        raise UserError(
            f"{command}: {rest[0]!r} is no flag; flags start with --, see delrec --help"
        )
    return values


def _config_path(arguments: list[str]) -> Path | None:
    for place, argument in enumerate(arguments):
        if argument.startswith("--config="):
            return Path(argument.removeprefix("--config="))
        if argument == "--config" and place + 1 < len(arguments):
            return Path(arguments[place + 1])
    return None


def _check_overrides(path: Path, arguments: list[str]) -> None:
    """Names the nearest key before ml_collections trips over an unknown one."""
    if not path.is_file():
        raise UserError(f"--config={path}: there is no such file; the ready ones are in configs/")
    spec = importlib.util.spec_from_file_location("delrec_config", path)
    if spec is None or spec.loader is None:
        raise UserError(f"--config={path}: is no Python file; the ready ones are in configs/")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        known = configuration.leaf_keys(module.get_config().to_dict())
    except UserError:
        raise
    except Exception as error:
        # A config file is the user's code: whatever it raises is theirs to read, in one line.
        raise UserError(f"--config={path}: {type(error).__name__}: {one_line(error)}") from error
    for argument in arguments:
        if argument.startswith("--config."):
            key = argument.removeprefix("--config.").split("=")[0]
            if key not in known:
                raise UserError(configuration.unknown_key(key, known))


if __name__ == "__main__":
    main()
