"""The files that DELRec's stages pass to one another through the workdir.

prompt/NAME/result.safetensors      soft prompts of stage 1: distilled, shuffled, true, random; with them what stage 1 trains of
                                    the verbalizer's readout, and in `readout` what it trains of that without a prompt
prompt/slot_vectors.safetensors     the items' vectors that the slots of titles are made from, with distill.prompt=titles
prompt/agreement.json               how well the distilled prompt's answers agree with the teacher's, on held-out users
adapter/NAME/result.safetensors     AdaLoRA's parameters of stage 2, named after the prompt they were tuned with (`none`: none),
                                    the verbalizer's readout, and (`tune.train_prompt`) that prompt as stage 2 left it
"""

from pathlib import Path
from typing import Any

from delrec_jax.files import file_hash
from delrec_jax.training.checkpoints import load_tree
from delrec_jax.workdir.title_vectors import TitleStore
from delrec_jax.workdir.workspace import Workspace

READOUT = "readout"
"""The name of the control that distills into the verbalizer's scalars alone."""


def prompt_path(ws: Workspace, name: str) -> Path:
    """Where stage 1 stores a prompt."""
    return ws.folder("distill") / name / "result.safetensors"


def slot_vectors_path(ws: Workspace) -> Path:
    """Where stage 1 stores the vectors of `title_slots`."""
    return ws.folder("distill") / "slot_vectors.safetensors"


def load_distilled(ws: Workspace, name: str) -> dict[str, Any]:
    """What stage 1 trained under this name, on the host: the `prompt` (`PromptStart`), and parts of the `readout`, if any."""
    tree, _ = load_tree(prompt_path(ws, name))
    return {"prompt": tree["prompt"], "readout": tree.get("readout", {})}


def adapter_path(ws: Workspace, name: str) -> Path:
    """Where stage 2 stores adapters."""
    return ws.folder("tune") / name / "result.safetensors"


def tuned_titles(ws: Workspace, base: TitleStore, name: str) -> TitleStore:
    """Where the vectors of all titles with these adapters are kept.

    Args:
      ws: the workdir.
      base: where those of the frozen model are kept.
      name: as for `adapter_path`.
    """
    path = adapter_path(ws, name)
    return TitleStore(path.with_name("title_vectors.npz"), f"{base.base}+{file_hash(path)}")


def selected_step(path: Path) -> int:
    """The step at which validation selected the stored parameters; -1 if they were not trained (the random prompt)."""
    _, meta = load_tree(path)
    return int(meta.get("best_step", -1))


def load_tuned(ws: Workspace, name: str) -> dict[str, Any]:
    """What one run of stage 2 trained, on the host.

    Returns:
      `adapters`; the whole `readout`, empty if the verbalizer has none; and the `prompt` if it trained too.
    """
    tree, _ = load_tree(adapter_path(ws, name))
    return {"readout": {}, **tree}
