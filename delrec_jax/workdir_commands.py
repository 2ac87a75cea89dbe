"""The commands on a workdir that is open: those that run stages, and those that ask a finished run."""

from pathlib import Path

from absl import flags

from delrec_jax.errors import UserError
from delrec_jax.stages.inputs import Inputs
from delrec_jax.workdir.workspace import Workspace


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
    elif command == "recommend":
        from delrec_jax.serving.printing import recommend
        from delrec_jax.serving.recommender import Recommender

        recommend(Recommender(ws), values.history, values.k)
    elif command == "rank":
        _rank(ws, values)
    elif command == "probe":
        from delrec_jax.stages.probe import probe

        output = Path(values.output) if values.output else None
        probe(ws, Inputs(ws), others=values.prompt_from, users=values.users, output=output)
    elif command in ("export", "histories"):
        from delrec_jax.stages.export import export
        from delrec_jax.stages.histories import histories

        if not values.output:  # Path("") would be the current directory
            raise UserError(f"--output is missing: give the directory that {command} writes to")
        if command == "histories":
            histories(ws, Path(values.output))
        else:
            export(ws, Inputs(ws), values.format, Path(values.output))
    else:
        from delrec_jax.stages import pipeline

        whole = {"run": pipeline.run_all, "baseline": pipeline.run_baseline}
        whole[command](ws) if command in whole else pipeline.run_stage(ws, command)


def _rank(ws: Workspace, values: flags.FlagValues) -> None:
    from delrec_jax.serving.bulk import rank_file
    from delrec_jax.serving.recommender import Recommender

    if not values.input or not values.output:
        raise UserError(
            "rank needs --input=FILE.parquet with a column of histories, and --output=DIR"
        )
    rank_file(
        Recommender(ws),
        Path(values.input),
        Path(values.output),
        k=values.k,
        system=values.system,
        by=values.by,
    )
