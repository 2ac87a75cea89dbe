"""The base language model of a run: pretrained weights (`lm.weights`), or the small T5 that `pretrain` trains."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from flax import traverse_util
from jax.sharding import NamedSharding

from delrec_jax.config import Experiment
from delrec_jax.distributed import on_main
from delrec_jax.errors import UserError
from delrec_jax.files import file_hash
from delrec_jax.language import hub, weights
from delrec_jax.language.logical_axes import axes_of
from delrec_jax.language.t5_config import T5Config
from delrec_jax.language.tokenizer import Tokenizer
from delrec_jax.language.weight_names import leaves
from delrec_jax.training.checkpoints import load_tree
from delrec_jax.training.sharding import Layout, make_layout, place
from delrec_jax.training.writers import say
from delrec_jax.workdir.workspace import Workspace, read_json, write_json

OWN = "model/result.safetensors"
"""The parameters of a T5 of our own, within the folder of `pretrain`."""

# How the model runs is the config's to say, whatever the sizes are.
_SETTINGS = ("dtype", "param_dtype", "remat", "scan_layers", "attention", "dropout_rate")


def tokenizer_directory(ws: Workspace) -> Path:
    """Where the tokenizer stands: `lm.tokenizer`, else beside the pretrained weights, else where `pretrain` made it."""
    config = ws.experiment.lm
    if config.tokenizer or config.weights:
        return hub.resolve(config.tokenizer or config.weights)
    return ws.folder("pretrain") / "tokenizer"


def model_shape(ws: Workspace, tokenizer: Tokenizer) -> T5Config:
    """The T5's shape with this run's adapters: sizes of the pretrained model, or of the config and its tokenizer.

    Raises:
      UserError: the tokenizer has ids that the pretrained table has no rows for.
    """
    config = ws.experiment
    if not config.lm.weights:
        shape = replace(config.lm.t5, vocab_size=tokenizer.vocab_size)
    else:
        shape = as_configured(config, weights.read_config(hub.resolve(config.lm.weights)))
        if tokenizer.vocab_size > shape.vocab_size:
            raise UserError(
                f"lm.weights={config.lm.weights} has a table of {shape.vocab_size} rows, but the tokenizer in "
                f"{tokenizer.name} has {tokenizer.vocab_size} ids: set lm.tokenizer to the model's own"
            )
    return replace(shape, adapters=config.tune.adalora)


def as_configured(config: Experiment, sizes: T5Config) -> T5Config:
    """Pretrained sizes, run as the config says: types, remat, scan, attention, dropout."""
    return replace(sizes, **{name: getattr(config.lm.t5, name) for name in _SETTINGS})


def adopt(ws: Workspace) -> None:
    """What `pretrain` does with pretrained weights: names them by a hash of all their bytes, for every later stage."""
    name = ws.experiment.lm.weights
    fingerprint = weights.fingerprint(hub.resolve(name))
    _write_name(ws, name, fingerprint)
    say(f"  {name}: SHA-256 {fingerprint}")


def name_own(ws: Workspace) -> None:
    """Names the T5 that `pretrain` has just trained, as `adopt` names pretrained weights."""
    _write_name(ws, "", file_hash(ws.folder("pretrain") / OWN))


def _write_name(ws: Workspace, name: str, fingerprint: str) -> None:
    found = {"weights": name, "fingerprint": fingerprint}
    on_main(lambda: write_json(ws.folder("pretrain") / "base.json", found))


def language_layout(ws: Workspace, shape: T5Config) -> Layout:
    """Where the language model lies.

    Raises:
      UserError: the heads do not divide over the mesh.
    """
    layout = make_layout(ws.experiment.mesh, axes_of)
    check_heads(shape, layout.mesh.shape["tensor"])
    return layout


def check_heads(shape: T5Config, tensor: int) -> None:
    """Refuses a mesh that would cut through a head.

    Raises:
      UserError: so.
    """
    if shape.num_heads % tensor:
        raise UserError(
            f"mesh.tensor is {tensor}, but the language model has {shape.num_heads} heads, which do not divide over it: use a "
            "divisor, and mesh.fsdp for the rest"
        )


def load_params(ws: Workspace, shape: T5Config, layout: Layout) -> Any:
    """The frozen parameters, each where the layout says.

    Raises:
      UserError: the pretrained weights are not those that this run began with.
    """
    folder, name = ws.folder("pretrain"), ws.experiment.lm.weights
    if not name:
        params, _ = load_tree(folder / OWN)
        return place(params, layout.of(params))
    directory, begun = hub.resolve(name), read_json(folder / "base.json")["fingerprint"]
    if (found := weights.fingerprint(directory)) != begun:
        raise UserError(
            f"lm.weights={name}: {directory} has SHA-256 {found}, but {folder / 'base.json'} says {begun}: bring the same "
            "weights back, or give another --workdir"
        )
    homes = {
        leaf.path: NamedSharding(layout.mesh, layout.spec(leaf.path, leaf.shape))
        for leaf in leaves(shape)
    }
    return weights.load(directory, shape, traverse_util.unflatten_dict(homes))


def language_model(ws: Workspace) -> str:
    """Its size (that of the weights, where they were not made here) and where it comes from."""
    shape = model_shape(ws, Tokenizer(tokenizer_directory(ws)))
    origin = (
        f"pretrained weights {name}" if (name := ws.experiment.lm.weights) else "pre-trained here"
    )
    return f"T5, d_model {shape.d_model}, {shape.num_layers}+{shape.num_decoder_layers} layers, {origin}"
