"""The peer of encoder_step.py: what a competent user writes in PyTorch with `transformers` and `peft`.

Attention by `scaled_dot_product_attention`, fused optimizers, one product for the whole catalogue. Whatever depends on the
data alone is made before the clock starts, as by a loader in the background: masks, weights of tokens, open items, vectors
of the latest titles, unit vectors of all items. Our steps make these from the owners of tokens, each time. Stage 1 leaves out
the map, which is still the identity; LoRA is `peft`'s, without AdaLoRA's E and penalty; for ranking it is merged beforehand.
`--compile` passes the model through `torch.compile`.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
import transformers
from torch.nn import functional as F

Case = tuple[Callable[[], Any], Callable[[], dict[str, Any]]]
_SHAPE = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "layer_norm_eps",
)
_NAMES = {"q": "query", "v": "value"}


def threads() -> int:
    """The number of threads that PyTorch uses: all cores that this process may use, as XLA does."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    return torch.get_num_threads()


def save_model(config: Any, directory: Path) -> None:
    """Saves a `transformers` BERT with random weights, so large that texts and their order matter."""
    torch.manual_seed(0)
    shape = {name: getattr(config, name) for name in _SHAPE}
    model = transformers.BertModel(
        transformers.BertConfig(
            **shape,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            initializer_range=config.hidden_size**-0.5,
        ),
        add_pooling_layer=False,
    )
    model.save_pretrained(directory)


def case(
    name: str, work: Any, directory: Path, experiment: Any, *, blocks: range, compiled: bool
) -> Case:
    """(what is timed, what must agree before) on the `Work` of encoder_step.py."""
    threads()
    ready = torch.compile if compiled else lambda model: model
    # A directory that encoder_step.py has just written: there is no revision to name.
    model = transformers.BertModel.from_pretrained(  # nosec B615
        directory, attn_implementation="sdpa", add_pooling_layer=False
    )
    model = model.requires_grad_(False).eval()
    if name == "stage1":
        stage = Stage1(ready(model), work, experiment)
        return stage.update, stage.check
    adapted = _adapted(model, work, experiment.tune.adalora, blocks)
    if name == "ranking":
        return _ranking(ready(adapted.merge_and_unload()), work, experiment)
    stage = Stage2(ready(adapted), work, experiment)
    return stage.update, stage.check


def _adapted(model: Any, work: Any, adalora: Any, blocks: range) -> Any:
    """LoRA on q and v of these blocks, equal to our adapters: A, and E times B."""
    config = peft.LoraConfig(
        r=adalora.init_rank,
        lora_alpha=adalora.alpha,
        target_modules=list(_NAMES.values()),
        layers_to_transform=list(blocks),
        layers_pattern="layer",
    )
    adapted = peft.get_peft_model(model, config)
    for layer, name in _layers(adapted, blocks):
        a, e, b = work.adapter(*name).values()
        with torch.no_grad():
            layer.lora_A["default"].weight.copy_(torch.tensor(a.T))
            layer.lora_B["default"].weight.copy_(torch.tensor((e[:, None] * b).T))
    return adapted


def _layers(adapted: Any, blocks: range) -> list[tuple[Any, tuple[int, str]]]:
    """The adapted projections with their names, in the order of our paths."""
    bert = adapted.base_model.model
    return [
        (getattr(bert.encoder.layer[block].attention.self, _NAMES[name]), (block, name))
        for block in blocks
        for name in "qv"
    ]


class Batch:
    """Texts as tensors, with all that a loader can make of them."""

    def __init__(self, work: Any, texts: Any, config: Any, rows: slice = slice(None)):
        """Takes some rows of the texts."""
        ids, slots = texts.ids[rows], work.shape.slots
        self.first = torch.tensor(ids[:, :1]).long()
        self.rest = torch.tensor(ids[:, 1 + slots :]).long()
        self.mask = torch.tensor(ids != 0)
        ages = texts.ages[rows]
        weights = np.where(ages >= 0, config.decay ** np.maximum(ages, 0), config.rest) * (ids != 0)
        weights = weights / weights.sum(1, keepdims=True)
        self.weights = torch.tensor(weights[:, None].astype(np.float32))  # [B, 1, T]
        center = torch.tensor(work.vectors.mean(0))
        self.center, self.items = center, F.normalize(torch.tensor(work.vectors) - center, dim=1)
        self.recent = self.items[torch.tensor(texts.shown[rows, -config.recent :])].mean(1)

    def scores(
        self, model: Any, prompt: Any, log_scale: Any, recent_weight: Any, map: Any = None
    ) -> torch.Tensor:
        """Scores of the catalogue [B, I]."""
        embed = model.get_input_embeddings()
        slots = prompt.expand(len(self.first), -1, -1)
        words = torch.cat([embed(self.first), slots, embed(self.rest)], 1)
        states = model(inputs_embeds=words, attention_mask=self.mask).last_hidden_state
        said = torch.bmm(self.weights, states)[:, 0] - self.center
        said = F.normalize(said if map is None else said @ map, dim=1)
        user = F.normalize(said + recent_weight * self.recent, dim=1)
        return (log_scale.exp() * user) @ self.items.T


def _closed(work: Any, chosen: np.ndarray) -> torch.Tensor:
    """The items that do not compete: those that are unknown or shown, unless chosen. bool [B, I]"""
    closed = np.repeat(~work.known[None], len(chosen), 0)
    np.put_along_axis(closed, work.training.shown, True, 1)
    np.put_along_axis(closed, chosen, False, 1)
    return torch.tensor(closed)


def _scalars(config: Any) -> dict[str, torch.Tensor]:
    return {
        "log_scale": torch.tensor(float(np.log(config.scale))),
        "recent_weight": torch.tensor(float(config.recent_weight)),
    }


class Stage1:
    """Trains the prompt and the two scalars."""

    def __init__(self, model: Any, work: Any, experiment: Any):
        """Makes the tensors of the batch, and the optimizer."""
        config, settings = experiment.lm.embedding, experiment.distill.optimizer
        self.model, self.clip = model, settings.clip
        self.batch = Batch(work, work.training, config)
        self.closed = _closed(work, work.candidates)
        self.candidates = torch.tensor(work.candidates).long()
        self.targets = torch.tensor(work.targets)
        self.trained = {"prompt": torch.tensor(work.prompt), **_scalars(config)}
        leaves = [value.requires_grad_() for value in self.trained.values()]
        self.optimizer = torch.optim.Adam(
            leaves, settings.learning_rate, (settings.b1, settings.b2), fused=True
        )

    def loss(self) -> torch.Tensor:
        """Mean cross-entropy over the open items to the listed distribution."""
        scores = self.batch.scores(self.model, **self.trained)
        log_p = scores.masked_fill(self.closed, -torch.inf).log_softmax(1)
        return -(self.targets * log_p.gather(1, self.candidates)).sum(1).mean()

    def update(self) -> float:
        """One update; the loss before it."""
        return _update(self.loss(), list(self.trained.values()), self.optimizer, self.clip)

    def check(self) -> dict[str, Any]:
        """Loss and gradients."""
        loss = self.loss()
        grads = torch.autograd.grad(loss, list(self.trained.values()))
        named = dict(zip(self.trained, (grad.numpy() for grad in grads), strict=True))
        return {"loss": loss.item(), **named}


class Stage2:
    """Trains LoRA, the map and the two scalars."""

    def __init__(self, adapted: Any, work: Any, experiment: Any):
        """Makes the tensors of the batch, and the optimizer."""
        config, settings = experiment.lm.embedding, experiment.tune.optimizer
        self.model, self.work, self.clip = adapted, work, settings.clip
        self.batch = Batch(work, work.training, config)
        self.closed = _closed(work, work.labels[:, None].astype(np.int64))
        self.labels, self.prompt = torch.tensor(work.labels).long(), torch.tensor(work.prompt)
        width = work.shape.model.hidden_size
        self.readout = {**_scalars(config), "map": torch.eye(width)}
        self.lora = [weight for weight in adapted.parameters() if weight.requires_grad]
        self.leaves = [value.requires_grad_() for value in self.readout.values()] + self.lora
        self.optimizer = torch.optim.AdamW(
            self.leaves,
            settings.learning_rate,
            (settings.b1, settings.b2),
            weight_decay=settings.weight_decay,
            fused=True,
        )

    def loss(self) -> torch.Tensor:
        """Mean cross-entropy of the labels over the open items."""
        scores = self.batch.scores(self.model, self.prompt, **self.readout)
        return F.cross_entropy(scores.masked_fill(self.closed, -torch.inf), self.labels)

    def update(self) -> float:
        """One update; the loss before it."""
        return _update(self.loss(), self.leaves, self.optimizer, self.clip)

    def check(self) -> dict[str, Any]:
        """Loss and gradients; that of our E is what reaches E times B, times B."""
        blocks = sorted(self.model.peft_config["default"].layers_to_transform)
        named = _layers(self.model, blocks)
        products = [layer.lora_B["default"].weight for layer, _ in named]
        loss = self.loss()
        found = torch.autograd.grad(loss, [*self.readout.values(), *products])
        grads = [grad.numpy() for grad in found]
        count = len(self.readout)
        inner = [
            (grad.T * self.work.adapter(*name)["B"]).sum(1)
            for grad, (_, name) in zip(grads[count:], named, strict=True)
        ]
        return {
            "loss": loss.item(),
            **dict(zip(self.readout, grads[:count], strict=True)),
            "E": np.stack(inner),
        }


def _update(loss: torch.Tensor, leaves: list[Any], optimizer: Any, clip: float) -> float:
    loss.backward()
    torch.nn.utils.clip_grad_norm_(leaves, clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()


def _ranking(merged: Any, work: Any, experiment: Any) -> Case:
    """Scores of the catalogue for all users, in batches."""
    config, size = experiment.lm.embedding, work.shape.at_once
    starts = range(0, work.shape.users, size)
    batches = [Batch(work, work.asked, config, slice(at, at + size)) for at in starts]
    prompt, readout = torch.tensor(work.prompt), _scalars(config)
    readout["map"] = torch.eye(work.shape.model.hidden_size)

    @torch.inference_mode()
    def scores() -> np.ndarray:
        """[N, I]"""
        found = [batch.scores(merged, prompt, **readout) for batch in batches]
        return torch.cat(found).numpy()

    return scores, lambda: {"scores": scores()}
