"""`delrec prompts`: prints complete examples of each task with label and target mask; reads no language model."""

import numpy as np

from delrec_jax.data.sequential_recommendation import lsr_text
from delrec_jax.delrec.material import PromptExample
from delrec_jax.delrec.prompt_examples import make_examples, make_lists, source_rows
from delrec_jax.errors import UserError
from delrec_jax.p2rec import files
from delrec_jax.p2rec.preference_text import preference_pieces, preference_text
from delrec_jax.p2rec.preferences import preference_targets
from delrec_jax.padding import PAD_TOKEN
from delrec_jax.printable import printable
from delrec_jax.stages.inputs import Inputs
from delrec_jax.workdir.fold_teachers import training_source
from delrec_jax.workdir.language_model import Texts
from delrec_jax.workdir.prepared import Data
from delrec_jax.workdir.workspace import Workspace

_SHOWN = 5  # categories per target


def show_prompts(ws: Workspace, inputs: Inputs, count: int) -> None:
    """Prints `count` examples of each task of the run's method, as the models read them.

    The target mask marks the one position that is asked for: `^` for the MASK token, `.` elsewhere.

    Raises:
      UserError: a stage that the texts are made from has not run.
    """
    _check_made(ws)
    if ws.experiment.method != "delrec":
        _show_preferences(ws, inputs.data, inputs.texts, count)
    if ws.experiment.method != "p2rec":
        _show_tasks(ws, inputs.data, inputs.texts, count)
        _show_next_items(inputs.data, inputs.texts, count)


def _check_made(ws: Workspace) -> None:
    pretrained = bool(ws.experiment.lm.weights)  # their tokenizer is enough
    for name in ws.spec("augment" if ws.experiment.method == "p2rec" else "distill").needs:
        if not ws.finished(name) and not (name == "pretrain" and pretrained):
            raise UserError(
                f"prompts needs the results of {name}, which are not in {ws.root}: run `delrec {name}` with the same "
                "flags first, or `delrec run` for all stages"
            )


def _show_preferences(ws: Workspace, data: Data, texts: Texts, count: int) -> None:
    """Prints users' texts with their target distributions, and texts of single items."""
    categories = files.load_categories(ws, ws.experiment.seed)
    train = data.split.train
    longest = int(train.lengths.max())
    pieces = preference_pieces(texts.pieces, ws.experiment.parse, longest)
    for user in data.split.training_users[:count]:
        text = preference_text(pieces, train.history(int(user)))
        (target,) = preference_targets([text.items], categories.of_item, categories.count)
        print(f"== Information reconstruction: {len(text.ids)} tokens, padding id {PAD_TOKEN}")
        print(" ".join(_token(texts, int(token)) for token in text.ids))
        best = np.argsort(-target, kind="stable")[:_SHOWN]
        print("target: " + ", ".join(f"category {k}: {target[k]:.3f}" for k in best))
        print()
    for item in range(min(count, data.num_items)):
        ids = preference_text(pieces, np.array([item])).ids
        print(f"== Information augmentation, item {item}: {len(ids)} tokens")
        print(" ".join(_token(texts, int(token)) for token in ids))
        print()


def _show_tasks(ws: Workspace, data: Data, texts: Texts, count: int) -> None:
    """Prints stage 1: for each user, one text of every task that their history allows."""
    config, rng = ws.experiment, np.random.default_rng(ws.experiment.seed)
    teacher = training_source(ws, data)
    for user in data.split.training_users[:count, None]:
        rows = source_rows(config, data.split, user, "teacher")
        lists = make_lists(config, data.split, data.num_items, rows, teacher)
        examples = make_examples(config, data, texts, user, "teacher", lists)
        for task, positions in examples.asked:
            example = task.example(examples.material, positions, len(examples) - 1, rng)
            _show(data, texts, task.title, example)


def _show_next_items(data: Data, texts: Texts, count: int) -> None:
    """Prints the texts of stage 2 and of evaluation."""
    for index, asked in enumerate(data.split.histories("valid")[:count]):
        candidates = data.candidates["valid"].items[index]
        ids = lsr_text(texts.pieces, asked, texts.slots, candidates).ids
        target = (candidates == data.split.target("valid")[index]).astype(np.float32)
        example = PromptExample(ids=ids, candidates=candidates, targets=target, task=np.int32(0))
        _show(data, texts, "Next item (LSR)", example)


def _show(data: Data, texts: Texts, name: str, example: PromptExample) -> None:
    ids, candidates, targets = example.ids, example.candidates, example.targets
    best = int(np.argmax(targets))
    tokens = [_token(texts, int(token)) for token in ids]
    mask = ["^" if token == texts.pieces.sentinel else "." for token in ids]
    titles = data.corpus.catalogue.titles
    print(f"== {name}: {len(ids)} tokens, padding id {PAD_TOKEN}")
    print(" ".join(tokens))
    print("target mask: " + "".join(mask))
    print(f"label: {printable(titles[candidates[best]])}  (weight {targets[best]:.3f})")
    print("candidates: " + "; ".join(printable(titles[item]) for item in candidates))
    print()


def _token(texts: Texts, token: int) -> str:
    slot = token - texts.table_rows
    return f"[P{slot}]" if slot >= 0 else printable(texts.tokenizer.decode([token])).strip() or "_"
