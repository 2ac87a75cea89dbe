"""The peer of `ranking.py`: the straightforward way to rank with a T5 in PyTorch, on the same weights as ours.

`loop` is what one writes first: log-softmax over the whole vocabulary, then every item's label words in a Python loop.
`gather` is what OpenPrompt does, which is better: all label words of all items by one index. `sequence` decodes one candidate
after another on an encoding made once.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
import transformers
from flax import traverse_util
from transformers.modeling_outputs import BaseModelOutput

from delrec_jax.language.t5_config import T5Config
from delrec_jax.language.t5_names import T5_NAMES
from delrec_jax.language.weight_names import named_leaves

START = 0
_SHAPE = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads")


def random_model(config: T5Config) -> torch.nn.Module:
    """A `transformers` T5 of Flan-T5's kind with random weights."""
    torch.manual_seed(0)
    shape = {name: getattr(config, name) for name in _SHAPE}
    model = transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            **shape,
            feed_forward_proj=config.feed_forward_proj,
            dropout_rate=config.dropout_rate,
            tie_word_embeddings=False,
            decoder_start_token_id=START,
            pad_token_id=0,
        )
    ).eval()
    # transformers 5 ties the head of a fresh model, whatever its config says.
    head = config.d_model**-0.5 * torch.randn(config.vocab_size, config.d_model)
    model.lm_head.weight = torch.nn.Parameter(head)
    model.config.tie_word_embeddings = model.config.scale_decoder_outputs = False
    return model.requires_grad_(False)


def same_weights(model: torch.nn.Module, shapes: Any) -> dict[str, Any]:
    """The model's weights as our parameter tree.

    Args:
      model: from `random_model`.
      shapes: our tree, as shapes.
    """
    tensors, flat = dict(model.named_parameters()), {}
    for leaf in named_leaves(shapes, T5_NAMES):
        value = tensors[leaf.names[0]].numpy()
        flat[leaf.path] = jnp.asarray(value.T if leaf.transposed else value)
    return traverse_util.unflatten_dict(flat)


class TorchRanker:
    """Ranks one batch of texts; the scoring methods return [B, items] and run the encoder unless its output is given."""

    def __init__(self, model: torch.nn.Module, ids: np.ndarray, sentinel: int):
        """Keeps the batch as tensors."""
        self.model, self.sentinel = model, sentinel
        self.ids = torch.tensor(ids)
        self.mask = self.ids != 0

    def padded(self, length: int) -> "TorchRanker":
        """The same texts padded to a fixed length, as the authors' code pads all texts."""
        wider = torch.nn.functional.pad(self.ids, (0, length - self.ids.shape[1]))
        return TorchRanker(self.model, wider.numpy(), self.sentinel)

    @torch.inference_mode()
    def encode(self) -> BaseModelOutput:
        """The encoder's output."""
        return self.model.get_encoder()(input_ids=self.ids, attention_mask=self.mask)

    def _logits(self, decoder_ids: torch.Tensor, encoded: BaseModelOutput | None) -> torch.Tensor:
        text = {"input_ids": self.ids} if encoded is None else {"encoder_outputs": encoded}
        return self.model(**text, attention_mask=self.mask, decoder_input_ids=decoder_ids).logits

    def _at_mask(self, encoded: BaseModelOutput | None) -> torch.Tensor:
        pairs = torch.tensor([[START, self.sentinel]]).expand(len(self.ids), 2)
        return self._logits(pairs, encoded)[:, 1].log_softmax(-1)

    @torch.inference_mode()
    def mean_loop(
        self,
        words: Sequence[torch.Tensor],
        items: Sequence[Sequence[int]],
        encoded: BaseModelOutput | None = None,
    ) -> torch.Tensor:
        """`mean` by a Python loop over each text's items (`items[row]`) and their label words."""
        log_probabilities = self._at_mask(encoded)
        return torch.stack(
            [
                torch.stack([row[words[item]].mean() for item in chosen])
                for row, chosen in zip(log_probabilities, items, strict=True)
            ]
        )

    @torch.inference_mode()
    def mean_gather(
        self,
        words: torch.Tensor,
        weights: torch.Tensor,
        candidates: torch.Tensor | None = None,
        encoded: BaseModelOutput | None = None,
    ) -> torch.Tensor:
        """`mean` by one index over all label words [I, W] of the catalogue (or of the candidates [B, C])."""
        log_probabilities = self._at_mask(encoded)
        if candidates is None:
            return (log_probabilities[:, words] * weights).sum(-1)
        flat = words[candidates].flatten(1)
        picked = log_probabilities.gather(1, flat).view(*candidates.shape, -1)
        return (picked * weights[candidates]).sum(-1)

    @torch.inference_mode()
    def sequence(
        self,
        words: torch.Tensor,
        weights: torch.Tensor,
        candidates: torch.Tensor,
        encoded: BaseModelOutput | None = None,
    ) -> torch.Tensor:
        """`sequence`, one candidate of every text at a time; the encoder runs once."""
        encoded = self.encode() if encoded is None else encoded
        opening = torch.tensor([[START, self.sentinel]]).expand(len(self.ids), 2)
        columns = []
        for items in candidates.T:
            titles = words[items]
            logits = self._logits(torch.cat([opening, titles[:, :-1]], 1), encoded)[:, 1:]
            picked = logits.log_softmax(-1).gather(2, titles[..., None])[..., 0]
            columns.append((picked * weights[items]).sum(-1))
        return torch.stack(columns, 1)

    @torch.inference_mode()
    def index(self, codes: Sequence[int], encoded: BaseModelOutput | None = None) -> torch.Tensor:
        """`index`: the codes' log-probabilities."""
        return self._at_mask(encoded)[:, list(codes)]
