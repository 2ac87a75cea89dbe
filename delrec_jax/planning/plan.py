"""`delrec plan`: where every array of every training stage would be placed on the given devices, whether it fits, and how fast.

Nothing is downloaded, no corpus is read and no accelerator is touched: there are only shapes. They are compiled by XLA for
fake devices of this CPU or (`--compile=chip`) by XLA's own compiler for the chip, which needs the package but not the chip.
"""

import textwrap
from collections.abc import Sequence

import jax
import numpy as np

from delrec_jax.config import Experiment
from delrec_jax.config.tree import at_least
from delrec_jax.errors import UserError
from delrec_jax.planning.chips import Chip, find_chips
from delrec_jax.planning.closed_forms import closed_forms_line
from delrec_jax.planning.devices import chip_devices, compiler_options, fake_devices
from delrec_jax.planning.faster import Faster, faster
from delrec_jax.planning.fit import Remedy, in_units, judge, remedies
from delrec_jax.planning.memory import StageMemory, stage_memory, with_compiled
from delrec_jax.planning.shapes import Assumed, planned_model
from delrec_jax.planning.shardings import Row, sharding_rows
from delrec_jax.planning.speed import StageSpeed, speed_of
from delrec_jax.planning.tasks import planned_tasks
from delrec_jax.planning.work import work_of
from delrec_jax.training.mesh import mesh_sizes
from delrec_jax.training.task import Task

_SPEEDS = (
    *("", "stage", "useful", "again", "computing", "weights", "gradients", "activations"),
    *("step", "MFU", "texts/s"),
)
COMPILERS = ("cpu", "chip", "no")

_NOTES = {
    "cpu": "Temporaries are the figures of XLA's compiler for CPU. It widens bfloat16 and fuses less of it, and so reports 1.6 "
    "to 4.3 times what XLA's compilers for TPU and GPU report (0.8 times in float32). Therefore `fits` means that the larger "
    "of its figure and the estimate fits, and `likely fits` that only the estimate does.",
    "chip": "Temporaries are the figures of XLA's own compiler for this chip (on a GPU, cuBLAS computes matrix products, and "
    "the memory that it takes for itself is not counted).",
    "no": "Nothing was compiled: temporaries are an estimate.",
}
_ESTIMATE = (
    "The estimate of a step, for b rows per device and part, T tokens, and a bytes per value: kept + 1.5 block + a block's "
    "weights where mesh.fsdp > 1 + 2 x what trains + 4 x scores, with block = a b T (6 width + 4 heads x their width + 4 "
    "feed-forward) + (4 + a) b heads T T and kept = layers x a b T width where blocks are recomputed (remat=dots: (3 width + 6 "
    "heads x their width + 2 feed-forward) in place of width), else 1.2 layers x block. With attention=cudnn: 1.5 instead of "
    "1.2, and no b heads T T. "
    "Scoring: 0.6 block. It is 0.95 to 2.0 times (median 1.15) what XLA's compilers for TPU and H100 report for the 28 steps "
    "of encoder-decoders that it is fitted to."
)
_SPEED = (
    "Seconds are estimates: computing = operations of matrix products / (0.76 x peak) + 2.3 x the bytes of all blocks' values, "
    "in each pass, / (0.675 x memory bandwidth), as fitted to 10 steps on one H200 (0.80 to 1.19 times their time); exchanges "
    "= bytes / advertised bandwidth, which nobody measured. Half of the exchange of weights and gradients is assumed to be "
    "hidden behind computing, that of activations not at all. MFU = useful operations / (step x devices x peak in bfloat16); "
    "what is computed again is not useful. Formulas: planning/speed.py, planning/exchange.py. Steps of `teach` take about a "
    "millisecond, and it is the host that limits them."
)
_REST = (
    "Not counted: the gate of `pretrain`; `augment`, during which the language model stays loaded; ranking (a few [texts, "
    "items] float32 arrays, split over the devices); batches on their way to the devices; the teacher's "
    "training rows, 12 bytes per position on every device; the profiler."
)


_TITLES = ("", "leaf", "shape", "type", "axes", "goes to", "total", "per device", "")
_PARTS = (
    *("frozen", "trains", "optimizer", "batch", "padding"),
    *("step", "scoring", "total", "estimate", "compiled"),
)


def plan(
    experiment: Experiment,
    *,
    devices: int,
    chip: str = "",
    items: int = Assumed.items,
    compile_for: str = "cpu",
) -> str:
    """Returns the plan as text.

    Must be called before anything else starts JAX's devices in this process.

    Args:
      experiment: the config.
      devices: number of devices, over all processes.
      chip: one of `chips.CHIPS`; empty = all.
      items: assumed size of the catalogue.
      compile_for: `cpu`, `chip` (the named one) or `no`.

    Raises:
      UserError: a flag is invalid, or the run itself would be refused at its start.
    """
    at_least("--items", items, experiment.distill.num_candidates)
    chips, for_chip = find_chips(chip), compile_for == "chip"
    if compile_for not in COMPILERS or (for_chip and not chip):
        raise UserError(
            f"--compile={compile_for} --chip={chip}: use --compile={', '.join(COMPILERS)}; `chip` needs a --chip"
        )
    found = chip_devices(chips[0], devices) if for_chip else fake_devices(devices)
    assumed = Assumed(items=items)
    steps = planned_tasks(experiment, found, assumed)
    tables = {planned.stage: sharding_rows(planned) for planned in steps}
    stages = [stage_memory(experiment, s, tables[s.stage], assumed) for s in steps]
    if compile_for != "no":
        options = compiler_options(chips[0]) if for_chip else {}
        pairs = zip(stages, steps, strict=True)
        stages = [with_compiled(memory, planned, options) for memory, planned in pairs]
    sizes = mesh_sizes(experiment.mesh, devices)
    verdicts = [judge(one, stages, sizes=sizes, for_chip=for_chip) for one in chips]
    lines = _head(experiment, steps, assumed)
    lines += _shardings(tables) + _memory(stages)
    lines += ["", f"ON {devices} OF THESE CHIPS", *(f"  {verdict}" for verdict in verdicts)]
    if any(verdict.fits != "yes" for verdict in verdicts):
        nodes = chips[0].nodes(devices) if chip else 1
        lines += _remedies(*remedies(experiment, found, assumed, nodes=nodes), chips)
    works = {planned.stage: work_of(planned) for planned in steps if planned.stage != "teach"}
    lines += _speeds(
        [
            speed_of(experiment, planned, works[planned.stage], chip=one, assumed=assumed)
            for one in chips
            for planned in steps
            if planned.stage in works
        ]
    )
    if chip:
        lines += _faster(
            chips[0], *faster(experiment, found, works, chip=chips[0], assumed=assumed)
        )
    notes = (_NOTES[compile_for], _ESTIMATE, _SPEED, _REST)
    return "\n".join([*lines, "", "NOTES", *(line for note in notes for line in _wrapped(note))])


def _head(experiment: Experiment, steps: list[Task], assumed: Assumed) -> list[str]:
    model, source = planned_model(experiment)
    sizes = model.sizes
    mesh = steps[-1].layout.mesh
    count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(model.param_shapes()))
    kept = f"; its frozen kernels in {experiment.lm.quantise}" if experiment.lm.quantise else ""
    blocks = f"{sizes.encoder_blocks} + {sizes.decoder_blocks} blocks of width {model.width}"
    lines = [
        "MESH  " + " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items()),
        f"LANGUAGE MODEL  {count / 1e6:,.1f} million parameters, {blocks}, from {source}; "
        f"{model.running}{kept}",
        f"ASSUMED  {assumed.items:,} items (--items); the longest title {assumed.title_tokens} tokens; every text fills the "
        f"largest bucket, {_lengths(experiment, steps)}",
    ]
    if forms := closed_forms_line(experiment, assumed.items):
        lines.append(forms)
    for planned in steps:
        rows, ways = planned.rows // planned.parts, planned.layout.ways
        if planned.rows % planned.parts or rows % ways:
            lines.append(
                f"!  {planned.stage}: {planned.rows} rows in optimizer.accumulate={planned.parts} parts do not divide over "
                f"{ways} devices: rows move between devices, or the run is refused"
            )
    return lines


def _lengths(experiment: Experiment, steps: list[Task]) -> str:
    """Returns the tokens per text, with the setting that each limit comes from."""
    tokens = {
        "parse" if planned.stage == "parse" else "prompts": planned.batch.ids.shape[1]
        for planned in steps
        if planned.stage != "teach"  # reads items
    }
    return " and ".join(
        f"{count} tokens ({section}.max_tokens={getattr(experiment, section).max_tokens})"
        for section, count in tokens.items()
    )


def _shardings(tables: dict[str, dict[str, list[Row]]]) -> list[str]:
    """Formats one table per stage; frozen weights that an earlier table shows are not repeated."""
    lines, shown = [], dict[Row, str]()
    for stage, parts in tables.items():
        lines += ["", f"SHARDINGS  {stage}"]
        cells: list[Sequence[str]] = [_TITLES]
        for part, rows in parts.items():
            new = [row for row in rows if row not in shown or part != "frozen"]
            if len(new) < len(rows):
                before = shown[next(row for row in rows if row not in new)]
                cells.append((part, f"{len(rows) - len(new)} rows as in {before}", *[""] * 7))
            cells += [(part, *_cells(row)) for row in new]
            shown |= {row: stage for row in new if part == "frozen"}
        lines += _columns(cells)
    return lines


def _cells(row: Row) -> tuple[str, ...]:
    name = f"{', '.join(row.kinds)} of {row.name}" if row.kinds else row.name
    name += f" x{row.count}" if row.count > 1 else ""
    axes = ", ".join(axis or "-" for axis in row.axes)
    marks = "; ".join(f"! {mark}" for mark in row.whole)
    sizes = in_units(row.size), in_units(row.per_device)
    return name, str(list(row.shape)), row.dtype, axes, row.spec, *sizes, marks


def _memory(stages: list[StageMemory]) -> list[str]:
    """Formats the bytes per device; the estimate is shown next to the compiler's figures."""
    cells: list[Sequence[str]] = [("stage", *_PARTS)]
    for stage in stages:
        exact = (stage.frozen, stage.trains, stage.optimizer, stage.batch, stage.padding)
        used = stage.compiled or stage.estimated
        total = stage.by_compiler or stage.by_estimate
        estimate = f"{in_units(stage.estimated.step)} + {in_units(stage.estimated.scoring)}"
        compiled = (
            f"{stage.seconds:.0f} s" if stage.compiled else ("refused" if stage.refused else "no")
        )
        cells.append(
            (
                stage.stage,
                *map(in_units, (*exact, used.step, used.scoring, total)),
                estimate,
                compiled,
            )
        )
    return [
        "",
        "BYTES PER DEVICE  (step, scoring: temporaries, one at a time)",
        *_columns(cells),
    ]


def _remedies(now: int, helps: list[Remedy], chips: Sequence[Chip]) -> list[str]:
    title = f"the largest stage by the estimate, now {in_units(now)}; each change alone"
    lines = ["", f"WHAT WOULD HELP  ({title})"]
    for remedy in helps:
        enough = [chip.name for chip in chips if remedy.needed <= chip.available]
        named = f"enough for {', '.join(enough)}" if enough else "not enough"
        lines.append(f"  {remedy.settings}: {in_units(remedy.needed)}, {named}")
    return [*lines, "  more devices, with mesh.fsdp over them: each holds less of the weights"]


def _speeds(speeds: list[StageSpeed]) -> list[str]:
    """Formats operations and seconds per step, one line per chip and stage."""
    cells: list[Sequence[str]] = [_SPEEDS]
    for one in speeds:
        seconds = (one.computing, *vars(one.exchange).values(), one.step)
        cells.append(
            (
                *(one.chip, one.stage, f"{one.work.useful / 1e12:,.1f}"),
                *(f"{one.work.again / 1e12:,.1f}", *(f"{each:.3f}" for each in seconds)),
                *(f"{one.mfu:.1%}", f"{one.texts:,.1f}"),
            )
        )
    title = "SECONDS PER STEP  (operations in TFLOP, over all devices; exchanges if nothing else went on)"
    return ["", title, *_columns(cells)]


def _faster(chip: Chip, now: Faster, found: list[Faster]) -> list[str]:
    """Formats what the estimate recommends."""

    def texts(one: Faster) -> str:
        each = ", ".join(f"{stage} {value:.1f}" for stage, value in one.texts.items())
        return f"{each} texts/s, {in_units(one.memory)}"

    lines = [
        "",
        f"WHAT WOULD BE FASTER ON {chip.name}  (now {texts(now)}; larger batches train differently)",
    ]
    lines += [f"  {one.settings}: {texts(one)}" for one in found]
    return lines if found else [*lines, "  no mesh and no batch that was tried, by 5 % or more"]


def _wrapped(note: str) -> list[str]:
    return textwrap.wrap(note, 120, initial_indent="  - ", subsequent_indent="    ")


def _columns(cells: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  "
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
