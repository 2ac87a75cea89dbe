"""`delrec plan`: its figures against hand-worked ones, against arrays that were placed, and against steps that ran.

Whatever needs eight devices is done once, in a process of its own (`report`), because a plan sets JAX's platform.
"""

import json
import runpy
from dataclasses import asdict, replace
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest

from delrec_jax.config import METHODS, Experiment, from_config, read_config
from delrec_jax.errors import UserError
from delrec_jax.language.t5_config import T5Config
from delrec_jax.language.t5_model import T5Encoder
from delrec_jax.planning import devices as devices_module
from delrec_jax.planning import faster as faster_module
from delrec_jax.planning import fit
from delrec_jax.planning import memory as memory_module
from delrec_jax.planning import plan as plan_module
from delrec_jax.planning.chips import CHIPS, GIB, find_chips
from delrec_jax.planning.faster import Faster, faster
from delrec_jax.planning.fit import judge, remedies
from delrec_jax.planning.memory import StageMemory, Temporaries, stage_memory, with_compiled
from delrec_jax.planning.plan import plan
from delrec_jax.planning.shapes import Assumed, planned_model
from delrec_jax.planning.shardings import bytes_per_device, sharding_rows
from delrec_jax.planning.speed import speed_of
from delrec_jax.planning.tasks import planned_tasks
from delrec_jax.planning.work import Work, work_of
from delrec_jax.training.sharding import MeshConfig, place, place_batch
from delrec_jax.training.steps import state_shardings

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs" / "delrec"
STAGES = ("teach", "pretrain", "distill", "tune", "parse")
COMPILED = ("distill", "tune", "parse")
ASSUMED = Assumed(items=21, title_tokens=3)
TINY = T5Config(
    d_model=8,
    d_kv=4,
    d_ff=15,  # does not divide over mesh.tensor
    num_layers=2,
    num_decoder_layers=1,
    num_heads=2,
    dropout_rate=0.0,
)


def experiment(**mesh):
    """Eight rows, two parts; 48 tokens, three slots, five candidates; a vocabulary of 32. `parse`: 64 tokens, six groups."""
    base = Experiment()
    text = replace(base.pretrain.text, batch_tokens=8 * 48)
    return replace(
        base,
        mesh=MeshConfig(**mesh),
        lm=replace(base.lm, t5=TINY, vocab_size=32, sentinels=8),
        prompts=replace(base.prompts, max_tokens=40),
        pretrain=replace(base.pretrain, text=text),
        teacher=replace(base.teacher, batch_size=8),
        distill=replace(base.distill, length=3, top_h=4, num_candidates=5, batch_size=16),
        tune=replace(
            base.tune,
            batch_size=16,
            optimizer=replace(base.tune.optimizer, accumulate=2),
        ),
        parse=replace(base.parse, categories=6, max_tokens=60, batch_size=16),
    )


def loaded(name):
    return from_config(runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"]())


def error_of(function, *arguments, **options):
    try:
        function(*arguments, **options)
    except (UserError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


# --- what eight devices say


def placed(planned):
    """Zeros where the layout says, as the run would place them."""

    def zeros(tree):
        return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), tree)

    layout = planned.layout
    state = place(zeros(planned.state), state_shardings(planned.state, layout))
    frozen = place(zeros(planned.frozen), layout.of(planned.frozen))
    return state, frozen, place_batch(zeros(planned.batch), layout)


def held(tree):
    """Bytes of a tree on the first device."""
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))


def on_device(planned):
    """Bytes of the placed arrays on one device."""
    state, frozen, batch = placed(planned)
    parts = {"trains": state.params, "optimizer": state.opt_state, "frozen": frozen, "batch": batch}
    return {name: held(tree) for name, tree in parts.items()}


def ran(planned):
    """The memory of the very program that a step runs, with real arrays."""
    arrays = (*placed(planned), jax.random.key(0))
    compiled = planned.step.lower(*arrays).compile()
    used = compiled.memory_analysis()
    state, _ = compiled(*arrays)
    outputs = used.output_size_in_bytes - used.alias_size_in_bytes
    return {
        "steps": int(state.step),
        "temporaries": used.temp_size_in_bytes + used.generated_code_size_in_bytes + outputs,
        "arguments": used.argument_size_in_bytes,
    }


def compared(chosen, planned):
    """The plan of a stage beside what really happens; some stages are compiled."""
    tables = sharding_rows(planned)
    memory = stage_memory(chosen, planned, tables, ASSUMED)
    found = {
        "rows": {part: [vars(row) for row in rows] for part, rows in tables.items()},
        "planned": {part: bytes_per_device(rows) for part, rows in tables.items()},
        "held": on_device(planned),
        "estimated": [memory.estimated.step, memory.estimated.scoring],
        "resident": memory.resident,
    }
    if planned.stage in COMPILED:
        compiled = with_compiled(memory, planned, {}).compiled
        found |= {"compiled": [compiled.step, compiled.scoring], "ran": ran(planned)}
    return found


def p2rec(chosen, wide, devices):
    """What method and `parse.lm` change; nothing is compiled."""
    alone = replace(chosen, method="p2rec")
    (frozen,) = planned_tasks(
        replace(alone, parse=replace(chosen.parse, lm="frozen")), devices, ASSUMED
    )[-1:]
    long = replace(
        replace(wide, teacher=chosen.teacher, method="p2rec"),
        parse=replace(chosen.parse, max_tokens=4096, batch_size=64),
    )
    pretrained = replace(loaded("ml100k_flan_t5_xl"), mesh=MeshConfig(fsdp=8), method="p2rec")
    return {
        "stages": {
            method: [
                planned.stage
                for planned in planned_tasks(replace(chosen, method=method), devices, ASSUMED)
            ]
            for method in METHODS
        },
        "frozen trains": [row.name for row in sharding_rows(frozen)["trains"]],
        "frozen held": on_device(frozen),
        "frozen planned": {
            part: bytes_per_device(rows) for part, rows in sharding_rows(frozen).items()
        },
        "remedies": {
            method: str(remedies(replace(long, method=method), devices, ASSUMED)[1])
            for method in ("p2rec", "delrec_p2rec")
        },
        "text": uncounted(alone, items=21),
        "xl": uncounted(pretrained, items=10_000),
    }


def uncounted(chosen, items):
    """A plan without a compiler, whose work is not counted."""
    with mock.patch.object(plan_module, "work_of", return_value=Work(1e9, 0, {})):
        return plan(chosen, devices=8, items=items, compile_for="no")


def beside(chosen, wide, devices):
    """Stage 2 beside a teacher: what it holds, as planned and as placed, and whether it lowers; nothing is compiled."""
    tuned = replace(chosen, tune=replace(chosen.tune, beside="teacher"))
    planned = planned_tasks(tuned, devices, ASSUMED)[-1]
    tables = sharding_rows(planned)
    found = {
        "rows": {row.name: [row.spec, list(row.shape)] for row in tables["frozen"]},
        "planned": {part: bytes_per_device(rows) for part, rows in tables.items()},
        "held": on_device(planned),
        "batch": [[row.name, row.shape] for row in tables["batch"]],
    }
    planned.lower()
    unknown = replace(wide, tune=replace(wide.tune, beside="teacher"))
    return found | {"popularity": error_of(planned_tasks, unknown, devices, ASSUMED)}


def small_chip(name):
    del name
    return (replace(CHIPS["h100"], name="tiny", memory=800_000, available=700_000),)


def quick(memory, planned, options):
    """Instead of a compiler: what it was asked with, as the size of a step."""
    platform = planned.layout.mesh.devices.flat[0].platform
    assert platform == "cpu"
    return replace(memory, compiled=Temporaries(step=GIB + len(options), scoring=0))


def quicker(experiment, devices, works, *, chip, assumed):
    """Instead of trying meshes and batches."""
    del devices, assumed
    assert set(works) == {"pretrain", "distill", "tune"}
    return Faster("", {"tune": 1.0}, GIB), [Faster(f"{chip.name}'s", {"tune": 2.0}, GIB)]


def speeds(chosen, devices):
    """Seconds of stage 2 on two chips, and with which meshes and batches it would be faster."""
    planned = planned_tasks(chosen, devices, ASSUMED)
    works = {step.stage: work_of(step) for step in planned if step.stage != "teach"}
    chips, two = CHIPS["v5e"], replace(chosen, mesh=replace(chosen.mesh, dcn_data=2))
    apart = speed_of(two, planned[-1], works["tune"], chip=chips, assumed=ASSUMED)
    near = speed_of(chosen, planned[-1], works["tune"], chip=chips, assumed=ASSUMED)
    found = {"apart": asdict(apart.exchange), "near": asdict(near.exchange)}
    with mock.patch.object(faster_module, "_FACTORS", (1, 4)):
        now, better = faster(chosen, devices, works, chip=chips, assumed=ASSUMED)
    whole = replace(chosen, mesh=MeshConfig(data=1, fsdp=8))
    pairs = replace(CHIPS["h100"], speed=replace(CHIPS["h100"].speed, node=4))
    three = replace(chosen, mesh=replace(chosen.mesh, dcn_data=4))
    return found | {
        "now": [now.texts, near.texts],
        "faster": [[one.settings, one.texts, one.memory] for one in better],
        "too many slices": error_of(planned_tasks, three, devices, ASSUMED),
        "over nodes": error_of(faster, whole, devices, works, chip=pairs, assumed=ASSUMED),
    }


def texts(chosen, wide, devices):
    """Whole plans, without a compiler; of one alone, the work is counted."""
    xxl = replace(loaded("ml100k_flan_t5_xxl"), mesh=MeshConfig(fsdp=8))
    found = {"xxl": plan(xxl, devices=8, compile_for="no")}
    with mock.patch.object(plan_module, "work_of", return_value=Work(1e9, 0, {})):
        return found | quick_texts(chosen, wide, devices)


def quick_texts(chosen, wide, devices):
    """Plans whose work is not counted."""
    with mock.patch.object(plan_module, "find_chips", small_chip):
        found = {"too small": plan(wide, devices=8, items=21, compile_for="no")}
    parts = replace(chosen.tune.optimizer, accumulate=8)
    odd = replace(chosen, tune=replace(chosen.tune, optimizer=parts))
    found["odd parts"] = plan(odd, devices=8, items=21, compile_for="no")
    get, described = "get_topology_desc", mock.Mock(devices=devices)
    with (
        mock.patch.object(plan_module, "with_compiled", quick),
        mock.patch.object(plan_module, "faster", quicker),
    ):
        found["cpu"] = plan(chosen, devices=8, items=21)
        with mock.patch.object(devices_module.topologies, get, return_value=described) as asked:
            for chip in ("v5e", "h100"):
                found[chip] = plan(chosen, devices=8, chip=chip, items=21, compile_for="chip")
            found["asked"] = str(asked.call_args_list)
    missing = RuntimeError("JAX TPU support not installed")
    with mock.patch.object(devices_module.topologies, get, side_effect=missing):
        found["no compiler"] = error_of(plan, chosen, devices=8, chip="v5e", compile_for="chip")
    found["odd slice"] = error_of(plan, chosen, devices=12, chip="v5e", compile_for="chip")
    return found


def report():
    jax.config.update("jax_disable_most_optimizations", True)  # quicker, and the same on both sides
    devices = devices_module.fake_devices(8)
    chosen = experiment(data=2, fsdp=2, tensor=2)
    wide = experiment(data=8)
    wide = replace(
        wide,
        teacher=replace(wide.teacher, name="popularity"),
        distill=replace(wide.distill, batch_size=64),
        tune=replace(wide.tune, batch_size=64, optimizer=Experiment().tune.optimizer),
    )
    parsing = replace(chosen, method="p2rec")
    uneven = replace(chosen, distill=replace(chosen.distill, batch_size=6))
    now, helps = remedies(wide, devices, ASSUMED)
    return {
        "stages": {
            planned.stage: compared(chosen, planned)
            for planned in [
                *planned_tasks(chosen, devices, ASSUMED),
                planned_tasks(parsing, devices, ASSUMED)[-1],
            ]
        },
        "p2rec": p2rec(chosen, wide, devices),
        "beside": beside(chosen, wide, devices),
        "texts": texts(chosen, wide, devices),
        "speeds": speeds(chosen, devices),
        "other devices": error_of(devices_module.fake_devices, 4),
        "odd batch": error_of(planned_tasks, uneven, devices, ASSUMED),
        "odd heads": error_of(planned_tasks, experiment(fsdp=1, tensor=8), devices, ASSUMED),
        "remedies": [now, [[remedy.settings, remedy.needed] for remedy in helps]],
    }


@pytest.fixture(scope="session")
def eight(tmp_path_factory, on_devices):
    from shared_runs import (
        shared,  # not at the top: this file is a script too, which does not see its folder
    )

    with shared(tmp_path_factory, "plan_on_eight") as (path, ready):
        if not ready:
            path.write_text(json.dumps(on_devices(__file__, count=None)))
    return json.loads(path.read_text())


def row(eight, stage, part, name):
    (found,) = [row for row in eight["stages"][stage]["rows"][part] if row["name"] == name]
    return found


def test_every_stage_of_the_method_that_trains_is_planned(eight):
    assert tuple(eight["stages"]) == STAGES
    assert eight["p2rec"]["stages"] == {
        "delrec": ["teach", "pretrain", "distill", "tune"],
        "p2rec": ["teach", "pretrain", "parse"],
        "delrec_p2rec": ["teach", "pretrain", "parse", "distill", "tune"],
    }


def test_tuning_beside_a_teacher_holds_a_copy_of_it_on_every_device(eight):
    found = eight["beside"]
    assert found["planned"] == found["held"]
    assert found["rows"]["teacher/params/items/embedding"] == ["P()", [21, 64]]
    assert found["rows"]["params/shared/embedding"][0] == "P(fsdp+tensor)"
    assert ["history", [16, 50]] in found["batch"]
    assert "tune.beside=teacher" in found["popularity"] and "sasrec" in found["popularity"]


# [shape, axes, spec, leaves, bytes in all, bytes of a device] on a mesh of 2 x 2 x 2.
BY_HAND = {
    ("distill", "frozen", "params/encoder/block_*/SelfAttention/q/kernel"): (
        [8, 8],
        ["embed", "heads"],
        "P(fsdp, tensor)",
        *(2, 2 * 8 * 8 * 4, 2 * 4 * 4 * 4),
    ),
    ("distill", "frozen", "params/decoder/block_*/EncDecAttention/o/kernel"): (
        [8, 8],
        ["heads", "embed"],
        "P(tensor, fsdp)",
        *(1, 8 * 8 * 4, 4 * 4 * 4),
    ),
    ("distill", "frozen", "params/shared/embedding"): (
        [32, 8],
        ["vocab", None],
        "P(fsdp+tensor)",
        *(1, 32 * 8 * 4, 8 * 8 * 4),
    ),
    ("distill", "frozen", "params/encoder/block_*/self_norm/weight"): (
        [8],
        [None],
        "P()",
        *(2, 2 * 8 * 4, 2 * 8 * 4),
    ),
    ("distill", "trains", "prompt"): ([3, 8], [None, None], "P()", 1, 3 * 8 * 4, 3 * 8 * 4),
    ("distill", "batch", "ids"): (
        [16, 48],
        ["batch", None],
        "P(data+fsdp)",
        *(1, 16 * 48 * 4, 4 * 48 * 4),
    ),
    # A of rank 12 over embed; the optimizer keeps mu, nu, sensitivity and uncertainty of each of two.
    ("tune", "optimizer", "adapters/encoder/block_*/SelfAttention/q/A"): (
        [8, 12],
        ["embed", None],
        "P(fsdp)",
        *(8, 8 * 8 * 12 * 4, 8 * 4 * 12 * 4),
    ),
    ("parse", "trains", "projection/kernel"): (
        [8, 6],
        ["embed", None],
        "P(fsdp)",
        *(1, 8 * 6 * 4, 4 * 6 * 4),
    ),
    ("parse", "optimizer", "adapters/encoder/block_*/SelfAttention/v/B"): (
        [12, 8],
        [None, "heads"],
        "P(-, tensor)",
        *(8, 8 * 12 * 8 * 4, 8 * 12 * 4 * 4),
    ),
    ("parse", "batch", "targets"): (
        [16, 6],
        ["batch", None],
        "P(data+fsdp)",
        *(1, 16 * 6 * 4, 4 * 6 * 4),
    ),
    ("parse", "batch", "ids"): (
        [16, 64],
        ["batch", None],
        "P(data+fsdp)",
        *(1, 16 * 64 * 4, 4 * 64 * 4),
    ),
    ("pretrain", "batch", "answers"): (
        [8, 4, 3],
        ["batch", None, None],
        "P(data+fsdp)",
        *(1, 8 * 4 * 3 * 4, 2 * 4 * 3 * 4),
    ),
}


@pytest.mark.parametrize(("place", "expected"), BY_HAND.items(), ids=[p[2] for p in BY_HAND])
def test_rows_worked_by_hand(eight, place, expected):
    found = row(eight, *place)
    keys = ("shape", "axes", "spec", "count", "size", "per_device")
    assert tuple(found[key] for key in keys) == expected
    assert found["whole"] == []


def test_what_the_optimizer_keeps_is_named(eight):
    kept = row(eight, "tune", "optimizer", "adapters/encoder/block_*/SelfAttention/q/A")["kinds"]
    assert kept == ["mu", "nu", "sensitivity", "uncertainty"]


@pytest.mark.parametrize("stage", STAGES)
def test_bytes_of_a_device_are_those_of_placed_arrays(eight, stage):
    found = eight["stages"][stage]
    assert found["planned"] == found["held"]


@pytest.mark.parametrize("stage", COMPILED)
def test_the_compiled_memory_is_that_of_the_step_that_ran(eight, stage):
    found = eight["stages"][stage]
    assert found["ran"]["steps"] == 1
    assert found["compiled"][0] == found["ran"]["temporaries"] > 0
    assert found["compiled"][1] > 0
    # The compiler drops what a step does not read (the head, where titles have vectors; in `parse` the decoder); it lies
    # there all the same.
    dropped = ("lm_head", "decoder") if stage == "parse" else ("lm_head",)
    unread = [
        row["per_device"]
        for row in found["rows"]["frozen"]
        if any(part in row["name"] for part in dropped)
    ]
    assert found["resident"] - sum(unread) == pytest.approx(found["ran"]["arguments"], abs=64)


def test_an_axis_that_does_not_divide_is_marked_in_table_and_text(eight):
    for name in ("wi_0", "wi_1", "wo"):
        found = row(
            eight, "distill", "frozen", f"params/encoder/block_*/DenseReluDense/{name}/kernel"
        )
        assert found["whole"] == ["mlp 15 does not divide over 2: stays whole"]
        assert found["per_device"] == found["size"] / 2  # embed alone is split
    lines = eight["texts"]["cpu"].splitlines()
    marked = [line for line in lines if "/wi_0/kernel" in line and "encoder" in line]
    assert marked and marked[0].endswith("! mlp 15 does not divide over 2: stays whole")
    assert not [line for line in lines if "q/kernel" in line and "stays whole" in line]


def test_item_vectors_are_padded_until_they_divide(eight):
    found = row(eight, "distill", "frozen", "vectors")
    assert found["size"] == 4 * 24 * 8, "of 21 items"
    assert (found["whole"], found["per_device"]) == ([], found["size"] / 4)


def test_the_estimate_worked_by_hand(eight):
    rows, tokens, keys = 4, 48, 48  # of 16 over data x fsdp = 4; tune in two parts
    block = 4 * rows * tokens * (6 * 8 + 4 * 1 * 4 + 4 * 7.5) + 8 * rows * 1 * tokens * keys
    decoder = 4 * rows * 2 * (6 * 8 + 4 * 4 + 4 * 7.5) + 8 * rows * 1 * 2 * (48 + 2)
    weights = 4 * (8 * 8 * 8 + 3 * 8 * 15) // 2
    kept, trains = 1.2 * (2 * block + decoder), 3 * 8 * 4
    step = kept + 1.5 * block + weights + 2 * trains + 4 * (4 * rows * 5)
    scoring = 0.6 * (32 / rows) * block + weights + 2 * (4 * 128 * 5)
    assert eight["stages"]["distill"]["estimated"] == [int(step), int(scoring)]


@pytest.mark.parametrize(
    ("remat", "fused", "kept"),
    [
        ("none", False, 1.2 * (2 * 4 * 192 * (48 + 32 + 60) + 2 * 8 * 4 * 2 * 48 * 48)),
        ("none", True, 1.5 * 2 * 4 * 192 * (48 + 32 + 60)),
        ("dots", True, 2 * 4 * 192 * (3 * 8 + 6 * 8 + 2 * 15)),
        ("full", False, 2 * 4 * 192 * 8),
    ],
)
def test_what_an_encoder_keeps_by_hand(remat, fused, kept):
    """Two blocks of 4 texts of 48 tokens, two heads of width 4."""
    config = T5Config(d_model=8, d_kv=4, d_ff=15, num_heads=2, num_layers=2, remat=remat)
    part = memory_module.Part(T5Encoder(config, fused=fused), 1, (0, 0), 4)
    assert part.kept(4, 48) == pytest.approx(kept)


def test_the_kernel_that_a_device_would_have_is_planned_though_xla_is_compiled():
    config = from_config(read_config(CONFIGS / "ml100k.py", "xl"))
    t5 = replace(config.lm.t5, attention="cudnn")
    model, _ = planned_model(replace(config, lm=replace(config.lm, t5=t5)))
    assert model.sizes.fused and model.config.attention == "xla"
    assert model.running.endswith("remat full, scan_layers True, attention cudnn")


def test_the_estimate_of_an_encoder_worked_by_hand(eight):
    rows, tokens = 4, 64  # of 16 over data x fsdp = 4
    block = 4 * rows * tokens * (6 * 8 + 4 * 1 * 4 + 4 * 7.5) + 8 * rows * 1 * tokens * tokens
    weights = 4 * (4 * 8 * 8 + 3 * 8 * 15) // 2
    # The kernel [8, 6] in halves, the bias whole; of q and v in two blocks A [8, 12] and B [12, 8] in halves, E [12] whole.
    trains = 4 * (8 * 6 // 2 + 6 + 4 * (8 * 12 // 2 + 12 + 12 * 8 // 2))
    step = 1.2 * 2 * block + 1.5 * block + weights + 2 * trains + 4 * (4 * rows * 6)
    scoring = 0.6 * (32 / rows) * block + weights + 2 * (4 * 128 * 6)
    assert eight["stages"]["parse"]["planned"]["trains"] == trains
    assert eight["stages"]["parse"]["estimated"] == [int(step), int(scoring)]


def test_a_frozen_language_model_trains_the_projection_alone(eight):
    found = eight["p2rec"]
    assert found["frozen trains"] == ["projection/bias", "projection/kernel"]
    assert found["frozen planned"] == found["frozen held"]


def test_the_text_of_p2rec(eight):
    text = eight["p2rec"]["text"]
    assert "48 tokens (prompts.max_tokens=40) and 64 tokens (parse.max_tokens=60)" in text
    assert [line[11:] for line in text.splitlines() if line.startswith("SHARDINGS")] == [
        "teach",
        "pretrain",
        "parse",
    ]
    rows = text.split("BYTES PER DEVICE")[1].split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in rows[1:]] == ["stage", "teach", "pretrain", "parse"]
    pretrained = eight["p2rec"]["xl"]
    assert "SHARDINGS  pretrain" not in pretrained and "SHARDINGS  parse" in pretrained
    assert "largest bucket, 512 tokens (parse.max_tokens=512)\n" in pretrained


def test_remedies_name_the_stages_of_the_method_alone(eight):
    found = eight["p2rec"]["remedies"]
    assert "settings='parse.optimizer.accumulate=8'" in found["p2rec"]
    assert "distill" not in found["p2rec"] and "tune" not in found["p2rec"]
    assert (
        "'parse.optimizer.accumulate=8 distill.optimizer.accumulate=8 tune.optimizer.accumulate=8'"
        in found["delrec_p2rec"]
    )


def test_parts_halve_what_an_estimated_step_keeps(eight):
    whole, halves = (eight["stages"][stage]["estimated"][0] for stage in ("distill", "tune"))
    assert halves < 0.7 * whole


def test_the_text_states_mesh_assumptions_and_compiler(eight):
    text = eight["texts"]["cpu"]
    assert text.startswith("MESH  data 2 x fsdp 2 x tensor 2\n")
    assert "21 items (--items)" in text and "48 tokens (prompts.max_tokens=40)" in text
    rows = len(eight["stages"]["distill"]["rows"]["frozen"])
    assert f"  frozen     {rows} rows as in distill" in text
    for chip in CHIPS:
        assert f"  {chip:8} fits: " in text
    assert "XLA's compiler for CPU" in text and "The estimate of a step" in text
    assert "WHAT WOULD HELP" not in text


def test_parts_that_do_not_divide_over_the_devices_are_marked(eight):
    marks = {
        name: [line for line in eight["texts"][name].splitlines() if line.startswith("!")]
        for name in ("cpu", "odd parts")
    }
    assert marks["cpu"] == []
    (mark,) = marks["odd parts"]
    assert mark.startswith("!  tune: 16 rows in optimizer.accumulate=8 parts do not divide over 4 ")


def test_a_chip_too_small_is_said_and_what_would_help(eight):
    text = eight["texts"]["too small"]
    judged = text.split("SECONDS PER STEP")[0].splitlines()
    (line,) = [line for line in judged if line.startswith("  tiny")]
    assert "does not fit: " in line and "of 683.6 KiB that a program gets" in line
    helps = text.split("WHAT WOULD HELP")[1]
    assert (
        "distill.optimizer.accumulate=4 tune.optimizer.accumulate=4: 645.5 KiB, enough for tiny"
        in helps
    )
    for setting in ("lm.t5.remat=full", "lm.t5.dtype=bfloat16", "lm.t5.param_dtype=bfloat16"):
        (line,) = [line for line in helps.splitlines() if line.startswith(f"  {setting}: ")]
        assert line.endswith("iB, not enough")
    assert "  mesh.data=1 mesh.fsdp=8 mesh.tensor=1: " in helps and "more devices" in helps
    assert "Nothing was compiled" in text


def test_remedies_are_smaller_and_in_order(eight):
    now, found = eight["remedies"]
    needed = [size for _, size in found]
    assert needed and needed == sorted(needed) and max(needed) < now
    assert "mesh.tensor=4" not in str(found), "two heads cannot be shared by four"
    parts = [name for name, _ in found if "accumulate" in name]
    assert len(parts) == 3 and "=16" not in str(parts), "64 rows over 8 devices are 8 parts at most"


@pytest.mark.parametrize(("chip", "options"), [("v5e", 0), ("h100", 1)])
def test_a_chips_own_compiler_is_asked_for_it_alone(eight, chip, options):
    text = eight["texts"][chip]
    judged = text.split("ON 8 OF THESE CHIPS\n")[1].split("\n\n")[0]
    assert judged.startswith(f"  {chip:8} fits: 1.0 GiB (") and "\n" not in judged
    assert "XLA's own compiler for this chip" in text
    asked = eight["texts"]["asked"]
    assert "call('v5e:2x4', 'tpu')" in asked and "topology='1x1x8'" in asked
    assert "device_memory_size: 84942979072" in asked
    assert devices_module.compiler_options(CHIPS[chip]) == (
        {"xla_gpu_enable_triton_gemm": False} if options else {}
    )


def test_a_compiler_that_is_not_installed_is_a_users_matter(eight):
    said = eight["texts"]["no compiler"]
    assert said.startswith("UserError: --compile=chip: XLA's compiler for TPU v5e")
    assert "install the extra [tpu]" in said
    assert "slices of 4, 8, 16, 32, 64, 128, 256 chips" in eight["texts"]["odd slice"]


def test_a_plan_never_looks_at_other_devices_than_it_says(eight):
    assert eight["other devices"].startswith("RuntimeError")


def test_the_plan_refuses_what_the_run_would_refuse(eight):
    assert eight["odd batch"].startswith("UserError: distill: a batch of 6 rows does not divide")
    assert "mesh.tensor is 8, but the language model has 2 heads" in eight["odd heads"]


def test_a_model_of_billions_is_planned_without_weights(eight):
    text = eight["texts"]["xxl"]
    assert "11,135.3 million parameters" in text and "table of published Flan-T5 shapes" in text
    assert "SHARDINGS  pretrain" not in text
    line = next(line for line in text.splitlines() if "encoder/blocks/SelfAttention/q" in line)
    assert "[24, 4096, 4096]   bfloat16" in line and "P(-, fsdp)" in line
    assert "768.0 MiB  96.0 MiB" in line


def test_seconds_and_mfu_follow_from_one_another(eight):
    lines = eight["texts"]["xxl"].split("SECONDS PER STEP")[1].split("\n\n")[0].splitlines()[2:]
    rows = [line.split() for line in lines]
    assert [row[:2] for row in rows] == [[chip, s] for chip in CHIPS for s in ("distill", "tune")]
    for chip, _, *figures in rows:
        useful, again, computing, weights, gradients, activations, step = (
            float(figure.replace(",", "")) for figure in figures[:-2]
        )
        speed, both = CHIPS[chip].speed, weights + gradients
        hidden = min(both / 2, computing)
        assert abs(step - (computing + both + activations - hidden)) < 0.003
        assert computing > (useful + again) * 1e12 / (8 * speed.operations)
        assert (
            abs(float(figures[-2][:-1]) - 100 * useful * 1e12 / (8 * step * speed.operations)) < 0.3
        )
        assert weights > 0


def test_slices_exchange_gradients_alone_over_the_network(eight):
    found = eight["speeds"]
    assert found["apart"].pop("gradients") > 5 * found["near"].pop("gradients") > 0
    assert found["apart"]["weights"] == found["near"]["weights"] > 0
    assert found["apart"]["activations"] > 0
    assert "does not divide over 4 slices" in found["too many slices"]
    assert (
        "data 1 x fsdp 8 x tensor 1 does not divide over 2 slices or nodes" in found["over nodes"]
    )


def test_what_is_faster_is_tried_on_the_same_chips(eight):
    now, planned = eight["speeds"]["now"]
    assert now["tune"] == planned
    found = eight["speeds"]["faster"]
    assert 0 < len(found) <= 3
    slowness = [sum(1 / texts for texts in one.values()) for _, one, _ in found]
    assert slowness == sorted(slowness) and slowness[-1] < sum(1 / one for one in now.values())
    for settings, _, memory in found:
        assert settings.startswith("mesh.data=") and memory < CHIPS["v5e"].available
    text = eight["texts"]["h100"]
    assert "WHAT WOULD BE FASTER ON h100  (now tune 1.0 texts/s, 1.0 GiB; larger" in text
    assert "\n  h100's: tune 2.0 texts/s, 1.0 GiB" in text
    assert "WHAT WOULD BE FASTER" not in eight["texts"]["cpu"], "no chip was named"


# --- without devices


def memory(**parts):
    sizes = {"frozen": 0, "trains": 0, "optimizer": 0, "batch": 0} | parts
    return StageMemory("tune", **sizes)


def test_a_stage_needs_what_stays_and_the_larger_of_its_two_programs():
    stage = memory(
        frozen=1000, trains=100, optimizer=20, batch=3, padding=7, estimated=Temporaries(400, 900)
    )
    assert (stage.by_estimate, stage.by_compiler) == (1130 + 900, None)
    compiled = replace(stage, compiled=Temporaries(5000, 50))
    assert (compiled.by_estimate, compiled.by_compiler) == (1130 + 900, 1130 + 5000)


@pytest.mark.parametrize(
    ("estimated", "compiled", "for_chip", "fits"),
    [
        (10, None, False, "yes"),
        (16, None, False, "no"),
        (10, 15, False, "yes"),
        (10, 16, False, "likely"),
        (16, 10, False, "no"),
        (16, 10, True, "yes"),
        (10, 16, True, "no"),
    ],
)
def test_verdicts_weigh_the_estimate_and_the_compiler(estimated, compiled, for_chip, fits):
    stage = memory(
        estimated=Temporaries(estimated * GIB, 0),
        compiled=None if compiled is None else Temporaries(compiled * GIB, 0),
    )
    small = memory(estimated=Temporaries(GIB, 0), compiled=stage.compiled and Temporaries(GIB, 0))
    found = judge(CHIPS["v5e"], [small, stage, small], sizes=(1, 1, 1), for_chip=for_chip)
    assert found.fits == fits
    words = {"yes": " fits: ", "likely": " likely fits: ", "no": " does not fit: "}
    assert words[fits] in str(found) and "(tune)" in str(found) and "15.8 GiB" in str(found)
    assert ("use --compile=chip --chip=v5e to find out" in str(found)) == (fits == "likely")


def test_a_compilers_refusal_counts():
    stage = memory(estimated=Temporaries(0, 0), refused="RESOURCE_EXHAUSTED: 17G of 15.75G hbm")
    found = judge(CHIPS["v5e"], [stage], sizes=(1, 1, 1), for_chip=True)
    assert found.fits == "no" and "refuses tune (RESOURCE_EXHAUSTED" in str(found)


@pytest.mark.parametrize(
    ("sizes", "nodes", "fits"),
    [((1, 16, 1), 2, "no"), ((2, 8, 1), 2, "yes"), ((1, 8, 1), 1, "yes")],
)
def test_weights_stay_within_a_node_of_gpus(sizes, nodes, fits):
    """What the run refuses does not fit, and what is proposed is what it takes."""
    stage = memory(estimated=Temporaries(GIB, 0))
    found = judge(CHIPS["h100"], [stage], sizes=sizes, for_chip=False)
    assert found.fits == fits and ("make mesh.data a multiple of 2" in str(found)) == (fits == "no")
    meshes = [changed.mesh for _, changed in fit._meshes(experiment(), 8 * nodes, nodes)]
    assert meshes and all(mesh.data == nodes for mesh in meshes)
    assert all(mesh.data * mesh.fsdp * mesh.tensor == 8 * nodes for mesh in meshes)


def test_a_gpu_may_give_more_than_jax_takes_by_itself():
    stage = memory(estimated=Temporaries(70 * GIB, 0))
    found = judge(CHIPS["h100"], [stage], sizes=(1, 1, 1), for_chip=False)
    assert found.fits == "no" and "it would fit with XLA_CLIENT_MEM_FRACTION=0.92" in str(found)
    more = judge(
        CHIPS["h100"], [memory(estimated=Temporaries(73 * GIB, 0))], sizes=(1, 1, 1), for_chip=False
    )
    assert "MEM_FRACTION=0.92" not in str(more)


@pytest.mark.parametrize(
    ("name", "sold"), [("v5e", 16), ("v5p", 95), ("v6e", 32), ("a100-40", 39), ("h100", 79)]
)
def test_chips_have_the_memory_that_they_are_sold_with(name, sold):
    (chip,) = find_chips(name)
    assert int(chip.memory / GIB) == sold
    assert 0.7 * chip.memory < chip.available <= chip.memory


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"chip": "v4"}, "--chip=v4: not known; use one of v5e, v5p"),
        ({"devices": 0}, "--devices=0"),
        ({"items": 3}, "--items is 3: it must be at least 20"),
        ({"compile_for": "gpu"}, "--compile=gpu"),
        ({"compile_for": "chip"}, "`chip` needs a --chip"),
    ],
)
def test_flags_that_cannot_be_are_refused_before_anything_starts(flags, said):
    started = mock.patch.object(devices_module.jax, "devices", side_effect=AssertionError)
    with started, pytest.raises(UserError) as error:
        plan(Experiment(), **{"devices": 8} | flags)
    assert said in str(error.value)


@pytest.mark.parametrize("name", ["ml100k_flan_t5_xl", "ml100k_flan_t5_xxl"])
def test_the_large_configs_load_and_say_that_nobody_trained_them(name):
    lm = loaded(name).lm
    assert lm.weights == "google/flan-t5-" + name.rsplit("_", 1)[1]
    assert (lm.t5.dtype, lm.t5.param_dtype) == ("bfloat16", "bfloat16")
    assert lm.t5.remat == "full" and lm.t5.scan_layers
    text = (CONFIGS / f"{name}.py").read_text()
    assert "NOT TRAINED BY US" in text and "Only the plan was computed" in text


@pytest.mark.parametrize("size", ["small", "base", "large", "xl", "xxl"])
@pytest.mark.parametrize("corpus", ["ml100k", "steam", "beauty", "home_and_kitchen"])
def test_each_size_is_known_without_its_weights_on_each_of_the_papers_corpora(corpus, size):
    chosen = from_config(read_config(CONFIGS / f"{corpus}.py", f"{size},sequence"))
    model, source = planned_model(chosen)
    assert source == "the table of published Flan-T5 shapes"
    model.check_mesh(from_config(read_config(CONFIGS / f"{corpus}.py", f"{size},pod")).mesh.tensor)
    assert chosen.tune.adalora.init_rank <= model.config.num_heads * model.config.d_kv


if __name__ == "__main__":
    print(json.dumps(report()))
