"""The files that DELRec's stages pass to one another through the workdir.

prompt/NAME/result.safetensors      soft prompts of stage 1: distilled, shuffled, true, random
adapter/NAME/result.safetensors     AdaLoRA's parameters of stage 2, named after the prompt they were tuned with (`none`: none)
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from delrec_jax.training.checkpoints import load_tree
from delrec_jax.workdir.language_model import Language
from delrec_jax.workdir.workspace import Workspace


def prompt_path(ws: Workspace, name: str) -> Path:
    """Where stage 1 stores a prompt."""
    return ws.folder("distill") / name / "result.safetensors"


def load_prompt(ws: Workspace, name: str) -> np.ndarray:
    """A soft prompt [K, D], on the host."""
    tree, _ = load_tree(prompt_path(ws, name))
    prompt: np.ndarray = tree["prompt"]
    return prompt


def place_prompt(ws: Workspace, language: Language, name: str) -> jax.Array:
    """A soft prompt [K, D], on the devices of the language model's parameters."""
    placed: jax.Array = language.put({"prompt": load_prompt(ws, name)})["prompt"]
    return placed


def adapter_path(ws: Workspace, name: str) -> Path:
    """Where stage 2 stores adapters."""
    return ws.folder("tune") / name / "result.safetensors"


def selected_step(path: Path) -> int:
    """The step at which validation selected the stored parameters; -1 if they were not trained (the random prompt)."""
    _, meta = load_tree(path)
    return int(meta.get("best_step", -1))


def load_adapters(ws: Workspace, name: str) -> Any:
    """AdaLoRA's parameters from one run of stage 2, on the host."""
    tree, _ = load_tree(adapter_path(ws, name))
    return tree
