"""The peer of lm_step.py: what one would write in PyTorch with `transformers` and `peft`, full vocabulary head included.

PyTorch is imported inside the functions, so that a process that times only our side does not hold it in memory.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from delrec_jax.language.adalora_config import AdaLoRAConfig
from delrec_jax.language.t5_config import T5Config


class Plan(NamedTuple):
    """How stage 2 trains."""

    adalora: AdaLoRAConfig
    learning_rate: float
    steps: int


def save_model(config: T5Config, directory: Path) -> None:
    """Saves a `transformers` T5 with random weights and a separate head, as Flan-T5 has."""
    import ranking_peer

    ranking_peer.random_model(config).save_pretrained(directory)


def stages(work: Any, plan: Plan, directory: Path) -> dict[str, Callable[[], Any]]:
    """Steps of both stages on the `Work` of lm_step.py."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    loss_of = _loss(work)
    return {
        "stage1": _stage1(work, loss_of, _load(directory)),
        "stage2": _stage2(work, loss_of, _load(directory), plan),
    }


def _load(directory: Path) -> Any:
    import transformers

    # A directory that lm_step.py has just written: there is no revision to name.
    model = transformers.T5ForConditionalGeneration.from_pretrained(directory)  # nosec B615
    return model.requires_grad_(False).train()  # all dropout rates of the base are 0


def _loss(work: Any) -> Callable[[Any, Any], Any]:
    """(model, prompt) -> cross-entropy of the first candidate by the mean log-probability of its title's tokens."""
    import torch

    ids = torch.tensor(np.where(work.ids >= work.config.vocab_size, 0, work.ids)).long()
    mask = torch.tensor(work.ids != 0)
    decoder_ids = torch.tensor([[0, work.sentinel]] * work.batch)
    tokens = torch.tensor(work.items[work.chosen]).long().flatten(1)
    labels = torch.zeros(work.batch, dtype=torch.long)

    def loss_of(model: Any, prompt: Any) -> Any:
        """Mean cross-entropy of each text's first candidate."""
        words = model.get_input_embeddings()(ids[:, work.slots :])
        embeds = torch.cat([prompt.expand(work.batch, -1, -1), words], dim=1)
        output = model(inputs_embeds=embeds, attention_mask=mask, decoder_input_ids=decoder_ids)
        logp = torch.log_softmax(output.logits[:, 1], dim=-1)
        found = logp.gather(1, tokens).view(work.batch, work.candidates, -1)
        return torch.nn.functional.cross_entropy(found.mean(-1), labels)

    return loss_of


def _stage1(work: Any, loss_of: Callable, model: Any) -> Callable[[], Any]:
    import torch

    prompt = torch.tensor(work.prompt, requires_grad=True)

    def step() -> tuple[float, np.ndarray]:
        """Loss, and gradient to the prompt."""
        prompt.grad = None
        loss = loss_of(model, prompt)
        loss.backward()
        return loss.item(), prompt.grad.numpy()

    return step


def adapted_model(model: Any, plan: Plan) -> Any:
    """The model with `peft`'s AdaLoRA, whose adapters alone train."""
    import peft

    ours = plan.adalora
    theirs = peft.AdaLoraConfig(
        target_modules=list(ours.targets),
        init_r=ours.init_rank,
        target_r=ours.target_rank,
        lora_alpha=ours.alpha,
        lora_dropout=ours.dropout,
        tinit=int(ours.warmup * plan.steps),
        tfinal=int(ours.final * plan.steps),
        deltaT=ours.interval,
        total_step=plan.steps,
        orth_reg_weight=ours.orthogonality,
    )
    return peft.get_peft_model(model, theirs).train()


def penalty_of(adapted: Any) -> Any:
    """The penalty that `peft` adds only to a loss computed by the model itself; here the loss is ours."""
    import torch

    norms = []
    for name, weight in adapted.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            gram = weight @ weight.T if "lora_A" in name else weight.T @ weight
            norms.append(torch.norm(gram - torch.eye(len(gram), device=gram.device)))
    return torch.stack(norms).mean()


def _stage2(work: Any, loss_of: Callable, model: Any, plan: Plan) -> Callable[[], Any]:
    import torch

    adapted = adapted_model(model, plan)
    trained = [weight for weight in adapted.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=plan.learning_rate)
    prompt, steps = torch.tensor(work.prompt), 0

    def step() -> float:
        """One update of the adapters; the loss before it."""
        nonlocal steps
        steps += 1
        loss = loss_of(adapted, prompt) + plan.adalora.orthogonality * penalty_of(adapted)
        loss.backward()
        optimizer.step()
        adapted.base_model.update_and_allocate(steps)
        optimizer.zero_grad()
        return loss.item()

    return step
