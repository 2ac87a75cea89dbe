"""Our adapters as a directory that `peft` loads on the same T5 in PyTorch, with the same logits.

Two forms, both shown in tests/parity against peft 0.21:

* `adalora`: peft's own form of a finished AdaLoRA run. It holds ours faithfully: triplets with E = 0 are left out and
  named by `rank_pattern`, rank 0 included, and on loading peft keeps dividing alpha by the initial rank. Two things of
  peft to know: it warns that the pattern's keys match no module (it does so for its own files), and a forward pass with
  `labels` needs `PeftModel.from_pretrained(..., is_trainable=True)`, because peft adds the orthogonality penalty to
  every loss and looks for a trainable adapter then.
* `lora`: the equal plain LoRA, E and the scale folded into B. For programs that read LoRA alone.

peft has no place for a soft prompt among an adapter's weights; it lies beside as `soft_prompt.safetensors`.
"""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from jaxtyping import Array, Float
from safetensors.numpy import save_file

from delrec_jax.errors import UserError
from delrec_jax.language.adalora import scaling
from delrec_jax.language.adalora_config import AdaLoRAConfig
from delrec_jax.language.export import PROMPT_FILE
from delrec_jax.language.layers import unstack_layers
from delrec_jax.language.weight_names import hf_name

Tree = dict[str, Any]
# PyTorch's name of an adapted projection -> NumPy A [in, R], E [R], B [R, out].
Triplets = dict[str, dict[str, np.ndarray]]
Exported = tuple[dict[str, Any], dict[str, np.ndarray]]  # keys of the config, tensors

_README = """# Adapter of {base}

{modules} projections of {base} carry an adapter ({form}), made by delrec_jax, to be loaded with peft 0.21 or later:

```python
from peft import PeftModel
from transformers import T5ForConditionalGeneration

base = T5ForConditionalGeneration.from_pretrained({base!r})
model = PeftModel.from_pretrained(base, ".").eval()
```
"""
_PROMPT_README = """
It was trained with a soft prompt of {length} vectors, which peft does not load: the answers are those of delrec_jax only
with its rows in their places. Texts mark the places by the ids from the vocabulary's size on:

```python
import torch
from safetensors.torch import load_file

prompt = load_file("soft_prompt.safetensors")["prompt"]


def embed(ids):
    words = base.get_input_embeddings()(ids.clamp(max=base.config.vocab_size - 1))
    rows = prompt[(ids - base.config.vocab_size).clamp(min=0)]
    return torch.where((ids >= base.config.vocab_size)[..., None], rows, words)


# model(inputs_embeds=embed(ids), attention_mask=ids != 0, decoder_input_ids=...)
```
"""


def export_peft(
    path: Path,
    *,
    adapters: Tree,
    prompt: Float[Array, "K D"] | None,
    config: AdaLoRAConfig,
    base_name: str,
    form: str = "adalora",
) -> None:
    """Writes `adapter_config.json`, `adapter_model.safetensors`, a README.md and, if there is one, the soft prompt.

    Args:
      path: the directory; made with its parents.
      adapters: the triplets, in either layout of layers.py.
      prompt: the soft prompt that they were trained with.
      config: AdaLoRA's settings. Not its targets but the modules that do carry an adapter are written, by full name.
      base_name: directory or hub name of the base model, for `AutoPeftModel` and the reader.
      form: `adalora` or `lora`.

    Raises:
      UserError: unknown form.
    """
    forms = {"adalora": _adalora, "lora": _lora}
    if form not in forms:
        raise UserError(f"export form {form!r}: use one of {', '.join(forms)}")
    triplets = _by_module(adapters)
    settings, tensors = forms[form](triplets, config)
    shared = {
        "task_type": "SEQ_2_SEQ_LM",
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
    readme = _README.format(base=base_name, form=form, modules=len(triplets))
    # That of an earlier export must not stay beside another adapter.
    (path / PROMPT_FILE).unlink(missing_ok=True)
    if prompt is not None:
        _save(path / PROMPT_FILE, {"prompt": np.asarray(jax.device_get(prompt))})
        readme += _PROMPT_README.replace("{length}", str(len(prompt)))
    (path / "README.md").write_text(readme)
    text = json.dumps(shared | settings, indent=2, sort_keys=True)
    (path / "adapter_config.json").write_text(text + "\n")


def _by_module(adapters: Tree) -> Triplets:
    modules: Triplets = {}
    for path, value in traverse_util.flatten_dict(unstack_layers(adapters)).items():
        name, _ = hf_name((*path[:-1], "kernel"))
        module = name.removesuffix(".weight")
        modules.setdefault(module, {})[path[-1]] = np.asarray(jax.device_get(value), np.float32)
    return modules


def _adalora(triplets: Triplets, config: AdaLoRAConfig) -> Exported:
    """Triplets in use; the run is described as over, since its ranks are fixed."""
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
        "total_step": 1,  # peft wants a number above 0
    }
    return settings, tensors


def _lora(triplets: Triplets, config: AdaLoRAConfig) -> Exported:
    """One LoRA a module at the rank it uses, with peft's scale alpha / r set to 1."""
    ranks, tensors = {}, {}
    for name, parts in triplets.items():
        kept = parts["E"] != 0
        kept[0] |= not kept.any()  # peft's LoRA knows no rank 0; a triplet with E = 0 adds nothing
        ranks[name] = int(kept.sum())
        tensors[f"{name}.lora_A.weight"] = parts["A"].T[kept]
        folded = parts["B"].T * (scaling(config) * parts["E"])
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
    """Safetensors as PyTorch programs expect them; views must be laid out anew, else their bytes are written as stored."""
    ordered = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    save_file(ordered, file, metadata={"format": "pt"})
