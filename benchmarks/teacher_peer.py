"""The peer of `teacher.py`: a plain PyTorch SASRec of the same size, trained and evaluated efficiently.

Windows are sorted by length and padded only to the longest of their batch; the loss is computed at every labeled position
and nowhere else; batches hold as many labels as ours. It is the same function as ours: `same_weights` copies our parameters,
and the benchmark refuses to time two different functions.
"""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from delrec_jax.teachers.sasrec import SASRecConfig


class Block(nn.Module):
    """Pre-LN: causal self-attention, then the point-wise network."""

    def __init__(self, config: SASRecConfig):
        """Names the parts."""
        super().__init__()
        width = config.width
        self.heads, self.rate = config.heads, config.dropout
        self.attention_norm = nn.LayerNorm(width, eps=1e-6)
        self.feed_forward_norm = nn.LayerNorm(width, eps=1e-6)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wi, self.wo = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """[B, L, D] to [B, L, D]; mask [B, 1, L, L], True where a query may attend."""
        batch, length, width = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(batch, length, 3, self.heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + self.dropout(self.out(mixed.transpose(1, 2).reshape(batch, length, width)))
        inner = F.gelu(self.wi(self.feed_forward_norm(x)), approximate="tanh")
        return x + self.dropout(self.wo(inner))


class SASRec(nn.Module):
    """Item and position tables, blocks, final norm; scores by the item table."""

    def __init__(self, config: SASRecConfig, num_items: int):
        """Names the parts."""
        super().__init__()
        self.items = nn.Embedding(num_items, config.width)
        self.positions = nn.Embedding(config.max_length, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(config.width, eps=1e-6)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.normal_(self.items.weight, std=0.02)
        nn.init.normal_(self.positions.weight, std=0.02)

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        """Left-padded items [B, L] (-1 is padding) to states [B, L, D]."""
        length = items.shape[1]
        known = items >= 0
        x = self.items(items.clamp(min=0)) * self.items.embedding_dim**0.5
        x = x * known[..., None] + self.positions.weight[:length].flip(0)
        x = self.dropout(x)
        causal = torch.ones(length, length, dtype=torch.bool, device=items.device).tril()
        own = torch.eye(length, dtype=torch.bool, device=items.device)
        mask = ((causal & known[:, None, :]) | own)[:, None]
        for block in self.blocks:
            x = block(x, mask)
        return self.final_norm(x)


def same_weights(model: SASRec, params: Any) -> None:
    """Copies our parameters into the peer."""

    def set_linear(linear: nn.Linear, *ours: Any) -> None:
        width = linear.in_features
        kernels = [np.asarray(one["kernel"]).reshape(width, -1) for one in ours]
        linear.weight.copy_(torch.tensor(np.concatenate(kernels, 1).T))
        linear.bias.copy_(torch.tensor(np.concatenate([np.ravel(one["bias"]) for one in ours])))

    def set_norm(norm: nn.LayerNorm, ours: Any) -> None:
        norm.weight.copy_(torch.tensor(np.asarray(ours["scale"])))
        norm.bias.copy_(torch.tensor(np.asarray(ours["bias"])))

    with torch.no_grad():
        model.items.weight.copy_(torch.tensor(np.asarray(params["items"]["embedding"])))
        model.positions.weight.copy_(torch.tensor(np.asarray(params["positions"]["embedding"])))
        set_norm(model.final_norm, params["final_norm"])
        for number, block in enumerate(model.blocks):
            ours = params[f"blocks_{number}"]
            set_linear(block.qkv, ours["query"], ours["key"], ours["value"])
            set_linear(block.out, ours["out"])
            set_linear(block.wi, ours["wi"])
            set_linear(block.wo, ours["wo"])
            set_norm(block.attention_norm, ours["attention_norm"])
            set_norm(block.feed_forward_norm, ours["feed_forward_norm"])


def new_optimizer(model: SASRec) -> torch.optim.Optimizer:
    """Adam as our configs have it."""
    return torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.98))


def update(
    model: SASRec, optimizer: torch.optim.Optimizer, items: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """One update on a batch [B, L]; the loss before it, on its device."""
    known = labels >= 0
    scores = model(items)[known] @ model.items.weight.T
    loss = F.cross_entropy(scores, labels[known])
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.detach()


class Trainer:
    """Trains on batches of about `labels` labels, whose windows are of similar length."""

    def __init__(self, model: SASRec, windows: list[tuple[np.ndarray, np.ndarray]], labels: int):
        """Sorts and pads the windows once."""
        self.model = model
        self.optimizer = new_optimizer(model)
        ordered = sorted(windows, key=lambda window: len(window[0]))
        self.batches, batch, count = [], [], 0
        for window in ordered:
            batch.append(window)
            count += len(window[0])
            if count >= labels:
                self.batches.append(_padded(batch))
                batch, count = [], 0
        if batch:
            self.batches.append(_padded(batch))
        self.order = np.random.default_rng(0).permutation(len(self.batches))

    @torch.no_grad()
    def mean_loss(self, model: SASRec) -> float:
        """The mean loss of another model over all labels of the windows, without dropout."""
        model.eval()
        total, count = 0.0, 0
        for items, labels in self.batches:
            known = labels >= 0
            scores = model(items)[known] @ model.items.weight.T
            total += float(F.cross_entropy(scores, labels[known], reduction="sum"))
            count += int(known.sum())
        return total / count

    def run(self, steps: int) -> int:
        """Trains on this many batches; the number of labels seen."""
        self.model.train()
        seen = 0
        for number in range(steps):
            items, labels = self.batches[self.order[number % len(self.order)]]
            update(self.model, self.optimizer, items, labels)
            seen += int((labels >= 0).sum())
        return seen


def _padded(windows: list[tuple[np.ndarray, np.ndarray]]) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(len(items) for items, _ in windows)
    table = torch.full((2, len(windows), longest), -1, dtype=torch.long)
    for row, (items, labels) in enumerate(windows):
        table[0, row, longest - len(items) :] = torch.tensor(items)
        table[1, row, longest - len(labels) :] = torch.tensor(labels)
    return table[0], table[1]


class Evaluator:
    """Ranks all users' targets over the whole catalogue, seen items excluded."""

    def __init__(self, model: SASRec, histories: list[np.ndarray], targets: np.ndarray):
        """Orders the users by length of history; `run` pads the histories batch by batch."""
        self.model, self.length = model, model.positions.num_embeddings
        self.order = np.argsort([len(history) for history in histories], kind="stable")
        self.histories, self.targets = histories, torch.tensor(targets.astype(np.int64))
        self.batch_size = 256

    @torch.no_grad()
    def run(self) -> np.ndarray:
        """The rank of each user's target; ties take their mean rank."""
        self.model.eval()
        ranks = np.empty(len(self.order))
        for start in range(0, len(self.order), self.batch_size):
            rows = self.order[start : start + self.batch_size]
            whole = [self.histories[row] for row in rows]
            longest = min(self.length, max(map(len, whole)))
            items = np.full((len(rows), longest), -1, np.int64)
            for place, history in enumerate(whole):
                recent = history[-longest:]
                items[place, longest - len(recent) :] = recent
            scores = self.model(torch.from_numpy(items))[:, -1] @ self.model.items.weight.T
            target = scores.gather(1, self.targets[rows][:, None])
            where = np.repeat(np.arange(len(rows)), [len(history) for history in whole])
            scores[
                torch.from_numpy(where), torch.from_numpy(np.concatenate(whole).astype(int))
            ] = -torch.inf
            greater, tied = (scores > target).sum(1), (scores == target).sum(1)
            ranks[rows] = (greater + 1 + (tied - 1).clamp(min=0) / 2).numpy()
        return ranks
