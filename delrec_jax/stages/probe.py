"""`delrec probe`: asks a finished run what its soft prompt learned, and writes and prints the answers."""

from collections.abc import Sequence
from pathlib import Path

from delrec_jax.analysis.blocks import print_blocks, to_markdown
from delrec_jax.delrec.probes.probing import run_probes
from delrec_jax.delrec.probes.prompt_transfer import open_other
from delrec_jax.delrec.probes.tables import probe_blocks, probe_sentence
from delrec_jax.distributed import on_main
from delrec_jax.errors import UserError
from delrec_jax.files import write_text
from delrec_jax.stages.inputs import Inputs
from delrec_jax.training.writers import say
from delrec_jax.workdir.json_files import write_json
from delrec_jax.workdir.workspace import Workspace


def probe(
    ws: Workspace, inputs: Inputs, *, others: Sequence[str], users: int, output: Path | None
) -> None:
    """Probes the distilled prompt of a run: `probes.json`, `tables.md`, and the same tables on the terminal.

    Nothing is chosen by what probes find, and none of them looks at a test user.

    Args:
      ws: a run whose `distill` is finished; DELRec itself is probed where `tune` is finished too.
      inputs: its corpus and language model.
      others: workdirs of other runs, whose prompts take the place of its own.
      users: number of validation users that are asked, at most.
      output: the folder to write; None = `probes` in the workdir.

    Raises:
      UserError: the run has no finished prompt, or cannot read that of another run.
    """
    if users < 1:
        raise UserError(f"--users={users}: ask at least 1 validation user")
    if ws.experiment.method == "p2rec" or not ws.finished("distill"):
        raise UserError(
            f"probe needs a finished `delrec distill` in {ws.root}: run `delrec run` of a config with method=delrec first"
        )
    # A directory may be called as one of the run's own prompts is.
    opened = {f"from {directory}": open_other(ws, directory) for directory in others}
    found = run_probes(ws, inputs.data, inputs.language, others=opened, users=users)
    folder, blocks = output or ws.root / "probes", probe_blocks(found)

    def write() -> None:
        write_json(folder / "probes.json", found)
        write_text(
            folder / "tables.md",
            "\n\n".join([probe_sentence(found), *map(to_markdown, blocks)]) + "\n",
        )
        print(f"{probe_sentence(found)}\n")
        print_blocks(blocks)
        say(f"probes: {folder}")

    on_main(write)
