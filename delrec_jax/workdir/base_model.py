"""The base language model of a run: pretrained weights (`lm.weights`), or a small model that `pretrain` trains."""

from pathlib import Path
from typing import Any

from delrec_jax.config import Experiment
from delrec_jax.data.pipeline import make_buckets
from delrec_jax.distributed import on_main
from delrec_jax.errors import UserError
from delrec_jax.files import file_hash, read_object
from delrec_jax.language import hub
from delrec_jax.language.adalora import adapted_kernels
from delrec_jax.language.families import find_family
from delrec_jax.language.family import LanguageModel
from delrec_jax.language.quantised import quantise, quantised_shapes
from delrec_jax.language.tokenizer import Tokenizer
from delrec_jax.language.verbalizer import asked
from delrec_jax.language.verbalizers import find_verbalizer
from delrec_jax.training.checkpoints import load_tree
from delrec_jax.training.sharding import Layout, make_layout, place
from delrec_jax.training.writers import say
from delrec_jax.workdir.json_files import read_json, write_json
from delrec_jax.workdir.stage_table import STAGES
from delrec_jax.workdir.weight_files import check_unchanged, hashed
from delrec_jax.workdir.workspace import Workspace

OWN = "model/result.safetensors"
"""The path of our own model's parameters within the folder of `pretrain`: those of the round that passed the gate."""


def tokenizer_directory(ws: Workspace) -> Path:
    """Returns the tokenizer's directory: `lm.tokenizer`, else that of the pretrained weights, else where `pretrain` made it."""
    config = ws.experiment.lm
    if config.tokenizer or config.weights:
        return hub.resolve(config.tokenizer or config.weights)
    return ws.folder("pretrain") / "tokenizer"


def model_directory(experiment: Experiment) -> Path | None:
    """Returns the directory of the pretrained weights; None if `pretrain` trains a model of its own."""
    return hub.resolve(experiment.lm.weights) if experiment.lm.weights else None


def make_model(experiment: Experiment, tokenizer: Tokenizer) -> LanguageModel:
    """Returns the language model with the adapters of stage 2, in the sizes of the pretrained model or of the config.

    Raises:
      UserError: as in `model_of`.
    """
    return model_of(experiment, tokenizer, model_directory(experiment))


def model_of(experiment: Experiment, tokenizer: Tokenizer, directory: Path | None) -> LanguageModel:
    """Returns the language model whose weights are in a directory (None: nowhere yet), with the adapters of stage 2.

    Raises:
      UserError: the tokenizer has ids for which the pretrained embedding table has no rows, texts may be longer than the model
        can read, or it is to be quantized and cannot be.
    """
    config, family = experiment.lm, find_family(experiment.lm.family)
    model = family.model(config, directory=directory, vocab_size=tokenizer.vocab_size)
    if tokenizer.vocab_size > model.vocab_size:
        raise UserError(
            f"lm.weights={config.weights} has a table of {model.vocab_size} rows, but the tokenizer in "
            f"{tokenizer.name} has {tokenizer.vocab_size} ids: set lm.tokenizer to the model's own"
        )
    if config.quantise and not model.quantises:
        raise UserError(
            f"lm.quantise is {config.quantise!r}, but {model.description} reads no kernels in 8 bits: leave it empty"
        )
    _check_lengths(experiment, model)
    return model.with_adapters(experiment.tune.adalora)


def _check_lengths(experiment: Experiment, model: LanguageModel) -> None:
    """Rejects limits of texts beyond the positions that the model has."""
    sections = ["prompts"] + ["parse"] * ("parse" in STAGES[experiment.method])
    for section in sections if model.longest_text else ():
        limit = getattr(experiment, section).max_tokens
        if make_buckets(limit)[-1] > model.longest_text:
            raise UserError(
                f"{section}.max_tokens is {limit}, but this {model.description} reads at most {model.longest_text} tokens, "
                f"padding included: set {section}.max_tokens to at most {model.longest_text}"
            )


def check_adapters(experiment: Experiment, model: LanguageModel) -> None:
    """Refuses rules for adapters that do not fit the model, before a teacher and a prompt have been trained in vain.

    Raises:
      UserError: a rule of a stage that this method has matches no projection, or one that cannot be adapted.
    """
    stages, wanted = STAGES[experiment.method], []
    if "tune" in stages:
        wanted.append(experiment.tune.adalora)
    if "parse" in stages and experiment.parse.lm == "adalora":
        wanted.append(experiment.parse.adalora)
    for config in wanted:
        adapted_kernels(model.param_shapes(), config, model.closed)


def table_rows(experiment: Experiment, tokenizer: Tokenizer) -> int:
    """Returns the rows of the model's token table, for which pretrained weights need not be at hand."""
    config = experiment.lm
    if not config.weights:
        return make_model(experiment, tokenizer).vocab_size
    model, _ = find_family(config.family).planned(config)
    return model.vocab_size


def adopt(ws: Workspace) -> None:
    """Does what `pretrain` does with pretrained weights: identifies them for every later stage by a hash of all their bytes."""
    name, folder = ws.experiment.lm.weights, ws.folder("pretrain")
    directory = hub.resolve(name)
    hub.weight_files(directory)  # refuses a directory without weights
    config = ws.experiment.lm
    model = make_model(ws.experiment, Tokenizer(tokenizer_directory(ws)))
    if ws.experiment.method != "p2rec" and find_verbalizer(config.verbalizer).asks_answers:
        asked(model, config.verbalizer)  # refused now, not after the teacher has been trained
    on_main(lambda: _write_name(ws, name, hashed(folder, directory)))
    say(f"  {name}: SHA-256 {fingerprint(ws)}")
    if (trained := _trained_pooling(directory)) not in ("", model.pooling):
        settable = hasattr(getattr(config, config.family, None), "pooling")
        say(
            f"  WARNING: {name} was trained with texts read by {_READ_BY[trained]} ({hub.POOLING_FILE}), and titles are "
            f"read by {_READ_BY[model.pooling]}: their vectors are not those of its authors"
            + f"; set lm.{config.family}.pooling={trained}, and lm.embedding.pooling too"
            * settable
        )


_READ_BY = {"mean": "the mean of their states", "first": "the state of the first token"}


def _trained_pooling(directory: Path) -> str:
    """Returns how the encoder's authors pool its states, a name of `pooling.POOLS`; empty if its folder does not say so."""
    path = directory / hub.POOLING_FILE
    if not path.is_file():
        return ""
    found = read_object(path, missing="", remedy="delete it: it is only looked at for a warning")
    ways = {"mean": "pooling_mode_mean_tokens", "first": "pooling_mode_cls_token"}
    return next((way for way, key in ways.items() if found.get(key) is True), "")


def name_own(ws: Workspace) -> None:
    """Identifies the model that `pretrain` has just trained, as `adopt` identifies pretrained weights."""
    on_main(lambda: _write_name(ws, "", file_hash(ws.folder("pretrain") / OWN)))


def _write_name(ws: Workspace, name: str, fingerprint: str) -> None:
    write_json(ws.folder("pretrain") / "base.json", {"weights": name, "fingerprint": fingerprint})


def fingerprint(ws: Workspace) -> str:
    """Returns what identifies the parameters of the run's language model."""
    found: str = read_json(ws.folder("pretrain") / "base.json")["fingerprint"]
    return found


def language_layout(experiment: Experiment, model: LanguageModel) -> Layout:
    """Returns the layout that places the language model on the devices.

    Raises:
      UserError: the mesh would split a part of the model that cannot be split.
    """
    layout = make_layout(experiment.mesh, model.axes_of)
    model.check_mesh(layout.mesh.shape["tensor"])
    return layout


def load_params(ws: Workspace, model: LanguageModel, layout: Layout) -> Any:
    """Loads the frozen parameters as the stages after `pretrain` hold them, each placed where the layout says.

    Raises:
      UserError: as in `stored_params`.
    """
    return as_held(ws.experiment, stored_params(ws, model, layout), model, layout)


def as_held(experiment: Experiment, params: Any, model: LanguageModel, layout: Layout) -> Any:
    """Returns stored parameters as the stages after `pretrain` hold them: in 8 bits with `lm.quantise`."""
    if not experiment.lm.quantise:
        return params
    return quantise(params, model.closed, layout.of(held_shapes(experiment, model)))


def stored_params(ws: Workspace, model: LanguageModel, layout: Layout) -> Any:
    """Loads the parameters as `pretrain` trained or adopted them.

    Raises:
      UserError: the pretrained weights are not those that this run started with.
    """
    folder, name = ws.folder("pretrain"), ws.experiment.lm.weights
    if not name:
        params, _ = load_tree(folder / OWN)
        return place(params, layout.of(params))
    directory = hub.resolve(name)
    check_unchanged(folder, directory, name=name, begun=fingerprint(ws))
    family = find_family(ws.experiment.lm.family)
    return family.load(directory, model, layout.of(model.param_shapes()))


def held_shapes(experiment: Experiment, model: LanguageModel) -> Any:
    """Returns the shapes of the frozen parameters as the stages after `pretrain` hold them."""
    shapes = model.param_shapes()
    return quantised_shapes(shapes, model.closed) if experiment.lm.quantise else shapes


def described_model(ws: Workspace) -> str:
    """Describes the language model: its kind, its size (that of the weights, if they are pretrained) and its origin."""
    model = make_model(ws.experiment, Tokenizer(tokenizer_directory(ws)))
    name = ws.experiment.lm.weights
    origin = f"pretrained weights {name}" if name else "pre-trained here"
    return f"{model.description}, {origin}"
