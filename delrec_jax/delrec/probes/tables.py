"""What the probes found, as short tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from delrec_jax.analysis.blocks import NOTHING, Block, Cell, Line, Row, agreement_block
from delrec_jax.analysis.labels import base_label
from delrec_jax.delrec.probes.prompt_transfer import OWN

_ORDERS = {
    "true": "true",
    "shuffled": "shuffled",
    "reversed": "reversed",
    "shuffled_read": "the shown items shuffled",
}
_PROMPTS = {OWN: "own", "random": "untrained", "shuffled": "of a shuffled teacher"}


def probe_blocks(found: Mapping[str, Any]) -> list[Block]:
    """Returns one table per probe.

    Args:
      found: the result of `run_probes`.
    """
    blocks = [agreement_block(found["agreement"]), _order(found)]
    if found["slots"] is not None:
        blocks.append(_slots(found))
    if found["words"] is not None:
        blocks.append(_words(found["words"]))
    if found["transfer"] is not None:
        blocks.append(_transfer(found))
    return blocks


def probe_sentence(found: Mapping[str, Any]) -> str:
    """Returns one sentence on the prompt that was probed.

    Args:
      found: the result of `run_probes`.
    """
    step = found["selected_step"]
    what = step if step else f"{step}, untrained: validation preferred none of its later steps"
    return f"The distilled prompt of step {what} (seed {found['seed']}, distill.prompt={found['prompt']})."


def _order(found: Mapping[str, Any]) -> Block:
    lines = [
        Line(
            name=row["system"],
            label=f"{base_label(row['system'])}: {_ORDERS[row['order']]}",
            cells=(
                Cell(f"{row['value']:.3f}"),
                *((Cell(NOTHING),) * 3 if row["order"] == "true" else _loss(row)),
            ),
        )
        for row in found["order"]
    ]
    return Block(
        title="Order of the history",
        note=f"{found['users']['valid']} validation users, {found['protocol']}: the same items in another order, shuffled by "
        "(seed, user). A recommender that uses order gets worse; one that does not moves no target. [95 % bootstrap interval "
        "of the paired difference].",
        columns=("System and order", _metric(found["order"]), "change", "relative", "moved"),
        lines=tuple(lines),
    )


def _loss(row: Row) -> tuple[Cell, ...]:
    return (_change(row), _relative(row), Cell(f"{100 * row['moved']:.0f} %"))


def _slots(found: Mapping[str, Any]) -> Block:
    rows: Sequence[Row] = found["slots"]
    measures = list(dict.fromkeys(row["measure"] for row in rows))
    replaced = list(dict.fromkeys(row["replaced_by"] for row in rows))
    by_place = {(row["slot"], row["measure"], row["replaced_by"]): row for row in rows}
    pairs = [(measure, by) for measure in measures for by in replaced]
    lines = [
        Line(
            name="",
            label=str(slot),
            cells=tuple(_change(by_place[(slot, *pair)]) for pair in pairs),
        )
        for slot in dict.fromkeys(row["slot"] for row in rows)
    ]
    users = " and ".join(
        f"{next(row['users'] for row in rows if row['measure'] == measure)} ({measure})"
        for measure in measures
    )
    return Block(
        title="The prompt without one of its slots",
        note=f"Change when a slot is replaced by the mean of the others or by zero; users: {users}. Agreement is on held-out "
        "users, the ranking on validation users. [95 % bootstrap interval of the paired difference, per slot: of many slots, "
        "one in twenty is outside by chance].",
        columns=("Slot", *(f"{measure}, {by}" for measure, by in pairs)),
        lines=tuple(lines),
    )


def _words(words: Mapping[str, Any]) -> Block:
    random = words["random"]
    lines = [
        Line(
            name="",
            label=str(row["slot"]),
            cells=(
                *(Cell(f"{_visible(word['text'])} {word['cosine']:.2f}") for word in row["words"]),
                Cell(f"{row['start']:.2f}"),
            ),
        )
        for row in words["slots"]
    ]
    count = max(len(row["words"]) for row in words["slots"])
    return Block(
        title="Nearest words of each slot",
        note=f"Cosine with {words['tokens']} rows of the token table; no users. The nearest word of {random['draws']} random "
        f"directions: {random['mean']:.2f} on average, 95 % below {random['p95']:.2f}; words that are no nearer mean nothing.",
        columns=("Slot", *(f"word {place + 1}" for place in range(count)), "before training"),
        lines=tuple(lines),
    )


def _transfer(found: Mapping[str, Any]) -> Block:
    transfer = found["transfer"]
    rows: Sequence[Row] = transfer["rows"]
    measures = list(dict.fromkeys(row["measure"] for row in rows))
    by_place = {(row["prompt"], row["measure"]): row for row in rows}
    lines = []
    for prompt in dict.fromkeys(row["prompt"] for row in rows):
        run = transfer["runs"].get(prompt)
        label = f"{prompt} ({run})" if run else _PROMPTS[prompt]
        cells = [_valued(by_place[prompt, measure], own=prompt == OWN) for measure in measures]
        lines.append(
            Line(name="", label=label, cells=(*cells, _alike(transfer["cosines"].get(prompt))))
        )
    return Block(
        title="Prompts of other runs in this language model",
        note=f"{found['users']['valid']} validation users, {found['protocol']}; agreement with this run's teacher on all "
        "held-out users. Value, and in brackets the 95 % bootstrap interval of the paired difference from the own prompt. "
        "Cosine: mean over slots of the same number / of different numbers.",
        columns=("Prompt", *measures, "cosine with own"),
        lines=tuple(lines),
    )


def _valued(row: Row, *, own: bool) -> Cell:
    interval = "" if own else f"[{row['change_low']:+.3f}, {row['change_high']:+.3f}]"
    return Cell(f"{row['value']:.3f}", interval)


def _alike(cosines: Row | None) -> Cell:
    if cosines is None:
        return Cell(NOTHING)
    shown = [cosines[name] for name in ("same", "different") if name in cosines]
    return Cell(" / ".join(f"{value:+.2f}" for value in shown))


def _change(row: Row) -> Cell:
    return Cell(f"{row['change']:+.3f}", f"[{row['change_low']:+.3f}, {row['change_high']:+.3f}]")


def _relative(row: Row) -> Cell:
    return Cell(NOTHING if row["relative"] is None else f"{100 * row['relative']:+.0f} %")


def _visible(word: str) -> str:
    """The word where it can be read in a table of markdown; a token of a space alone is an underscore."""
    return word.strip().replace("|", "\\|") or "_"


def _metric(rows: Sequence[Row]) -> str:
    return str(rows[0]["metric"])
