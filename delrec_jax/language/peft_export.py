"""Writes our adapters as a directory that `peft` loads onto the same model in PyTorch, with the same outputs.

There are two forms, both checked against peft 0.21 in tests/parity:

* `adalora`: peft's own form of a finished AdaLoRA run. It represents ours exactly: triplets with E = 0 are left out and
  marked in `rank_pattern`, rank 0 included, and after loading peft still divides alpha by the initial rank. Note two
  properties of peft: it warns that the pattern's keys match no module (as it does for its own files), and a forward pass
  with `labels` needs `PeftModel.from_pretrained(..., is_trainable=True)`, because peft adds the orthogonality penalty to
  every loss and then looks for a trainable adapter.
* `lora`: the equivalent plain LoRA, with E and the scale folded into B, for programs that read only LoRA.

peft has no place for a soft prompt among an adapter's weights, so it is written next to them as `soft_prompt.safetensors`.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util
from jaxtyping import Array, Float
from safetensors.numpy import save_file

from delrec_jax.errors import UserError
from delrec_jax.language.adalora import scaling
from delrec_jax.language.adalora_config import AdaLoRAConfig
from delrec_jax.language.export import PROMPT_FILE
from delrec_jax.language.layer_stacking import unstack_layers
from delrec_jax.language.weight_names import Names

Tree = dict[str, Any]
# PyTorch's name of an adapted projection -> NumPy A [in, R], E [R], B [R, out].
Triplets = dict[str, dict[str, np.ndarray]]
Exported = tuple[dict[str, Any], dict[str, np.ndarray]]  # keys of the config, tensors

_README = """# Adapter of {base}

{modules} projections of {base} carry an adapter ({form}), made by delrec_jax, to be loaded with peft 0.21 or later:

```python
from peft import PeftModel
from transformers import {model_class}

base = {model_class}.from_pretrained({base!r})
model = PeftModel.from_pretrained(base, ".").eval()
```
"""
_PROMPT_README = """
It was trained with a soft prompt of {length} vectors, which peft does not load. Answers match those of delrec_jax only if
the prompt's rows are put in their places, which texts mark by ids from the vocabulary size on:

```python
import torch
from safetensors.torch import load_file

prompt = load_file("soft_prompt.safetensors")["prompt"]


def embed(ids):
    words = base.get_input_embeddings()(ids.clamp(max=base.config.vocab_size - 1))
    rows = prompt[(ids - base.config.vocab_size).clamp(min=0)]
    return torch.where((ids >= base.config.vocab_size)[..., None], rows, words)


# model(inputs_embeds=embed(ids), attention_mask=ids != 0{rest_of_call})
```
"""


class PeftBase(NamedTuple):
    """The kind of model that an adapter belongs to.

    Attributes:
      names: the family's names.
      model_class: its class in `transformers`.
      answers: whether that class has a decoder, which is asked for answers.
    """

    names: Names
    model_class: str
    answers: bool


def export_peft(
    path: Path,
    base: PeftBase,
    *,
    adapters: Tree,
    prompt: Float[Array, "K D"] | None,
    config: AdaLoRAConfig,
    base_name: str,
    form: str = "adalora",
) -> None:
    """Writes `adapter_config.json`, `adapter_model.safetensors`, a README.md and, if there is one, the soft prompt.

    Args:
      path: the directory; created along with its parents.
      base: the kind of the base model.
      adapters: the triplets, in either layout of `layer_stacking`.
      prompt: the soft prompt that they were trained with.
      config: AdaLoRA's settings. Instead of its targets, the full names of the adapted modules are written.
      base_name: directory or hub name of the base model, for `AutoPeftModel` and human readers.
      form: `adalora` or `lora`.

    Raises:
      UserError: the form is unknown.
    """
    forms = {"adalora": _adalora, "lora": _lora}
    if form not in forms:
        raise UserError(f"export form {form!r}: use one of {', '.join(forms)}")
    triplets = _by_module(adapters, base.names)
    settings, tensors = forms[form](triplets, config)
    shared = {
        "task_type": "SEQ_2_SEQ_LM" if base.answers else "FEATURE_EXTRACTION",
        "base_model_name_or_path": base_name,
        "inference_mode": True,
        "target_modules": sorted(triplets),
        "lora_dropout": config.dropout,
        "bias": "none",
    }
    path.mkdir(parents=True, exist_ok=True)
    _save(
        path / "adapter_model.safetensors",
        {f"base_model.model.{name}": value for name, value in tensors.items()},
    )
    readme = _README.format(
        base=base_name, form=form, modules=len(triplets), model_class=base.model_class
    )
    # The prompt of an earlier export must not remain next to another adapter.
    (path / PROMPT_FILE).unlink(missing_ok=True)
    if prompt is not None:
        _save(path / PROMPT_FILE, {"prompt": np.asarray(jax.device_get(prompt))})
        rest_of_call = ", decoder_input_ids=..." if base.answers else ""
        readme += _PROMPT_README.replace("{length}", str(len(prompt))).replace(
            "{rest_of_call}", rest_of_call
        )
    (path / "README.md").write_text(readme, encoding="utf-8")
    text = json.dumps(shared | settings, indent=2, sort_keys=True)
    (path / "adapter_config.json").write_text(text + "\n")


def _by_module(adapters: Tree, names: Names) -> Triplets:
    modules: Triplets = {}
    for path, value in traverse_util.flatten_dict(unstack_layers(adapters)).items():
        name, _ = names.hf_name((*path[:-1], "kernel"))
        module = name.removesuffix(".weight")
        modules.setdefault(module, {})[path[-1]] = np.asarray(jax.device_get(value), np.float32)
    return modules


def _adalora(triplets: Triplets, config: AdaLoRAConfig) -> Exported:
    """Returns the settings of a finished run, since its ranks are fixed, and the triplets in use.

    With r triplets in use, A is [r, in], E [r, 1] and B [out, r].
    """
    pattern, tensors = {}, {}
    for name, parts in triplets.items():
        kept = parts["E"] != 0
        pattern[f"{name}.lora_E"] = kept.tolist()
        tensors[f"{name}.lora_A"] = parts["A"].T[kept]
        tensors[f"{name}.lora_E"] = parts["E"][kept, None]
        tensors[f"{name}.lora_B"] = parts["B"].T[:, kept]
    settings = {
        "peft_type": "ADALORA",
        "init_r": config.init_rank,
        "target_r": config.target_rank,
        "lora_alpha": config.alpha,
        "rank_pattern": pattern,
        "beta1": config.beta1,
        "beta2": config.beta2,
        "orth_reg_weight": config.orthogonality,
        "deltaT": config.interval,
        "tinit": 0,
        "tfinal": 0,
        "total_step": 1,  # peft requires a positive number
    }
    return settings, tensors


def _lora(triplets: Triplets, config: AdaLoRAConfig) -> Exported:
    """Returns one LoRA per module at the rank it uses, with peft's scale alpha / r set to 1."""
    ranks, tensors = {}, {}
    for name, parts in triplets.items():
        kept = parts["E"] != 0
        kept[0] |= not kept.any()  # peft's LoRA has no rank 0; a triplet with E = 0 adds nothing
        ranks[name] = int(kept.sum())
        tensors[f"{name}.lora_A.weight"] = parts["A"].T[kept]
        folded = parts["B"].T * (scaling(config) * parts["E"])  # [out, R]
        tensors[f"{name}.lora_B.weight"] = folded[:, kept].astype(np.float32)
    settings = {
        "peft_type": "LORA",
        "r": config.target_rank,
        "lora_alpha": config.target_rank,
        "rank_pattern": ranks,
        "alpha_pattern": ranks,
    }
    return settings, tensors


def _save(file: Path, tensors: dict[str, np.ndarray]) -> None:
    """Writes safetensors for PyTorch; arrays must be contiguous, because their buffers are written as they are."""
    ordered = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    save_file(ordered, file, metadata={"format": "pt"})
