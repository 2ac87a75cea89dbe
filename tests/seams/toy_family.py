"""Language models of one's own, as a fork would bring them: `lm.family=tests/seams/toy_family.py:BAG`.

A text is the mean of its words' embeddings behind one projection, which adapters may change; an answer adds the embedding
of what was read last. `ENCODER` is the same without answers, from pretrained weights.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from safetensors.numpy import load_file

from delrec_jax.language.adalora import scaling
from delrec_jax.language.adalora_config import AdaLoRAConfig
from delrec_jax.language.family import AnsweringModel, Family, LanguageModel, Sizes
from delrec_jax.language.logical_axes import named_axes
from delrec_jax.language.soft_prompt import embed_with_prompt

WIDTH = 16
AXES = named_axes(kernels={"mix": ("embed", "mlp")}, tables={"words": ("vocab", None)})


@dataclass(frozen=True)
class Encoder(LanguageModel):
    rows: int
    lora: AdaLoRAConfig | None = None

    width = WIDTH
    description = "a bag of words"
    sizes = Sizes(heads=0, head_width=0, feed_forward=0, encoder_blocks=1, decoder_blocks=0)

    @property
    def vocab_size(self):
        return self.rows

    def encode(self, params, ids, *, prompt=None, adapters=None, dropout_key=None):
        words = embed_with_prompt(self.table(params), prompt, ids)
        states = words @ params["mix"]["kernel"]
        if adapters is not None:
            a, e, b = (adapters["mix"][name] for name in "AEB")
            states += scaling(self.lora) * ((words @ a) * e) @ b
        return states, ids != 0

    def table(self, params):
        return params["words"]["embedding"]

    def with_adapters(self, adapters):
        return replace(self, lora=adapters)

    def param_shapes(self):
        shapes = {"words/embedding": (self.rows, WIDTH), "mix/kernel": (WIDTH, WIDTH)}
        return nested({k: jax.ShapeDtypeStruct(shape, jnp.float32) for k, shape in shapes.items()})

    def axes_of(self, path, shape):
        return AXES(path, shape)


@dataclass(frozen=True)
class Bag(Encoder, AnsweringModel):
    def answers(self, params, ids, sentinels, **options):
        states, mask = self.encode(params, ids, **options)
        pooled = jnp.where(mask[..., None], states, 0).sum(1) / jnp.maximum(
            mask.sum(1, keepdims=True), 1
        )
        return pooled[:, None] + self.table(params)[sentinels]

    def forced_answers(self, params, ids, titles, sentinel, **options):
        first = jnp.full((*titles.shape[:-1], 1), sentinel)
        read = jnp.concatenate([first, titles[..., :-1]], -1)
        found = self.answers(params, ids, read.reshape(len(read), -1), **options)
        return found.reshape(*titles.shape, WIDTH)

    def head(self, params):
        return self.table(params)

    def logits(self, params, hidden):
        return hidden @ self.table(params).T


class BagFamily(Family):
    name = "bag"

    def model(self, settings, *, directory, vocab_size):
        return Bag(vocab_size)

    def planned(self, settings):
        return Bag(settings.vocab_size), "lm.vocab_size"

    def begin(self, model, key):
        table, mix = jax.random.split(key)
        return {
            "words": {"embedding": 0.3 * jax.random.normal(table, (model.rows, WIDTH))},
            "mix": {"kernel": 0.3 * jax.random.normal(mix, (WIDTH, WIDTH))},
        }


class EncoderFamily(Family):
    name = "encoder"

    def model(self, settings, *, directory, vocab_size):
        rows = vocab_size if directory is None else len(stored(directory)["words/embedding"])
        return Encoder(rows)

    def planned(self, settings):
        return Encoder(settings.vocab_size), "lm.vocab_size"

    def load(self, directory, model, shardings):
        return jax.device_put(nested(stored(directory)), shardings)


def stored(directory):
    return load_file(directory / "model.safetensors")


def nested(flat):
    return {name.split("/")[0]: {name.split("/")[1]: leaf} for name, leaf in flat.items()}


BAG, ENCODER = BagFamily(), EncoderFamily()
