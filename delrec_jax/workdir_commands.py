"""The commands on a workdir that is open: those that run stages, and those that ask a finished run."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from absl import flags

from delrec_jax.errors import UserError
from delrec_jax.stages.inputs import Inputs
from delrec_jax.workdir.workspace import Workspace

if TYPE_CHECKING:
    from delrec_jax.serving.recommender import Recommender


def run_command(command: str, ws: Workspace, values: flags.FlagValues) -> None:
    """Runs one command on an opened workdir.

    Args:
      command: its name.
      ws: the workdir.
      values: the flags.

    Raises:
      UserError: a flag that it needs is missing, or what the command itself says.
    """
    if command == "prompts":
        from delrec_jax.stages.show_prompts import show_prompts

        show_prompts(ws, Inputs(ws), values.n)
    elif command in ("recommend", "rank"):
        from delrec_jax.serving.recommender import Recommender

        ask(command, Recommender(ws), values)
    elif command == "app":
        from delrec_jax.app.command import serve

        serve(ws, values.host, values.port)
    elif command == "probe":
        from delrec_jax.stages.probe import probe

        output = Path(values.output) if values.output else None
        probe(ws, Inputs(ws), others=values.prompt_from, users=values.users, output=output)
    elif command in ("export", "histories"):
        if not values.output:  # Path("") would be the current directory
            raise UserError(f"--output is missing: give the directory that {command} writes to")
        if command == "histories":
            from delrec_jax.stages.histories import histories

            histories(ws, Path(values.output))
        else:
            _export(ws, values, Path(values.output))
    elif command == "push":
        from delrec_jax.hub.push import check_repo, push

        check_repo(values.repo)
        with TemporaryDirectory() as folder:
            _share(ws, values, Path(folder))
            push(Path(folder), values.repo, private=values.private)
    else:
        from delrec_jax.stages import pipeline

        whole = {"run": pipeline.run_all, "baseline": pipeline.run_baseline}
        whole[command](ws) if command in whole else pipeline.run_stage(ws, command)


def _export(ws: Workspace, values: flags.FlagValues, output: Path) -> None:
    from delrec_jax.stages.export import SHARED, export

    if values.format == SHARED:
        _share(ws, values, output)
    elif values.titles or values.base or values.license:
        raise UserError(
            f"--format={values.format}: --titles, --base and --license are for --format={SHARED}"
        )
    else:
        export(ws, Inputs(ws), values.format, output)


def _share(ws: Workspace, values: flags.FlagValues, output: Path) -> None:
    from delrec_jax.hub.folder import Choices, export_shared

    if values.titles not in ("", "yes", "no"):
        raise UserError(f"--titles={values.titles}: use yes or no")
    titles = values.titles != "no"
    export_shared(ws, output, Choices(titles=titles, base=values.base, license=values.license))


def ask(command: str, recommender: "Recommender", values: flags.FlagValues) -> None:
    """Asks an opened run: `recommend` or `rank`.

    Raises:
      UserError: a flag that it needs is missing, or what the command itself says.
    """
    if command == "recommend":
        from delrec_jax.serving.printing import recommend

        recommend(recommender, values.history, values.k)
        return
    from delrec_jax.serving.bulk import rank_file

    if not values.input or not values.output:
        raise UserError(
            "rank needs --input=FILE.parquet with a column of histories, and --output=DIR"
        )
    rank_file(
        recommender,
        Path(values.input),
        Path(values.output),
        k=values.k,
        system=values.system,
        by=values.by,
    )
