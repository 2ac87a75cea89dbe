"""`delrec export`: writes a tuned model for other programs, or only its adapter for this one."""

from pathlib import Path

import jax.numpy as jnp

from delrec_jax.delrec import files, systems
from delrec_jax.errors import UserError
from delrec_jax.language.adalora import merge, rank_pattern
from delrec_jax.language.adapter_files import save_adapter
from delrec_jax.language.families import find_family
from delrec_jax.language.quantised import dequantised
from delrec_jax.language.weights import params_hash
from delrec_jax.stages.inputs import Inputs
from delrec_jax.training.checkpoints import save_tree
from delrec_jax.training.writers import say
from delrec_jax.workdir import base_model
from delrec_jax.workdir.workspace import Workspace

READOUT_FILE = "readout.safetensors"
"""The verbalizer's own parameters, next to every format."""

FORMATS = {
    "adapter": "only adapter and soft prompt, for `language.adapter_files.load_adapter`",
    "peft": "an AdaLoRA adapter for `peft`, with the soft prompt next to it (and the base model, if it was trained here)",
    "lora": "the equivalent LoRA adapter for `peft`, with the same files next to it",
    "hf": "the merged model for `transformers`, with the soft prompt next to it",
}

SHARED = "hub"
"""The format of a folder that others open with this package: `hub.folder` writes it."""


def export(ws: Workspace, inputs: Inputs, kind: str, output: Path) -> None:
    """Writes DELRec's adapter and prompt (those named `distilled`) in one of `FORMATS`.

    Raises:
      UserError: the run is not finished, the format is unknown, or the directory is in use.
    """
    if kind not in FORMATS:
        raise UserError(f"--format={kind}: use one of {', '.join(FORMATS)}, {SHARED}")
    check_exportable(ws, output)
    language = inputs.language
    tuned = files.load_tuned(ws, "distilled")
    adapters, readout = tuned["adapters"], tuned["readout"]
    prompt = jnp.asarray(systems.tuned(ws, language, "distilled", None).prompt)
    # With lm.quantise, the plain weights that compute what was evaluated.
    params = dequantised(language.params, language.model.table(language.params).dtype)
    config, base = ws.experiment.tune.adalora, ws.experiment.lm.weights or str(ws.root)
    family, tokenizer = find_family(ws.experiment.lm.family), base_model.tokenizer_directory(ws)
    if kind == "adapter":
        stored = language.params
        if ws.experiment.lm.quantise:  # an adapter belongs to the weights that it was named after
            stored = base_model.stored_params(ws, language.model, language.layout)
        save_adapter(
            output,
            adapters=adapters,
            prompt=prompt,
            config=config,
            base_hash=params_hash(stored),
            base_name=base,
            rank_pattern=rank_pattern(adapters),
        )
    elif kind == "hf":
        merged = merge(params, adapters, config)
        family.export_model(merged, language.model, output, prompt=prompt, tokenizer_dir=tokenizer)
    else:
        if not ws.experiment.lm.weights:
            # `peft` needs a base that `transformers` can load, and this one exists nowhere else.
            base = "base"
            family.export_model(params, language.model, output / base, tokenizer_dir=tokenizer)
        form = "adalora" if kind == "peft" else "lora"
        family.export_adapter(
            output,
            model=language.model,
            adapters=adapters,
            prompt=prompt,
            config=config,
            base_name=base,
            form=form,
        )
    if readout:
        # The cosine's scale, map and so on, without which the tuned model's states rank nothing.
        save_tree(output / READOUT_FILE, readout, {})
    say(f"{output}: {FORMATS[kind]}")


def check_exportable(ws: Workspace, output: Path) -> None:
    """Checks what all formats need.

    Raises:
      UserError: the run is not finished, its prompts cannot leave it, or the directory is in use.
    """
    if not ws.finished("tune"):
        raise UserError(f"export needs a finished `delrec tune` in {ws.root}")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"--output={output}: give a directory that does not exist yet or is empty")
    if ws.experiment.distill.guided:
        raise UserError(
            f"export writes prompts that are the same for all users, but distill.prompt={ws.experiment.distill.prompt}: its "
            "slots need the teacher; use distill.prompt=shared"
        )
