"""Exported adapters in `peft` on PyTorch: the logits that ours gives. Run with `make parity`."""

import json
import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed here: run `make parity`")
peft = pytest.importorskip("peft", reason="peft is not installed here: run `make parity`")

from flax import traverse_util  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402
from torch_t5 import TINY, our_params, torch_t5  # noqa: E402

from delrec_jax.errors import UserError  # noqa: E402
from delrec_jax.language.adalora import init_adapters  # noqa: E402
from delrec_jax.language.adalora_config import AdaLoRAConfig, is_target  # noqa: E402
from delrec_jax.language.layer_stacking import stack_layers  # noqa: E402
from delrec_jax.language.peft_export import PeftBase, export_peft  # noqa: E402
from delrec_jax.language.t5 import T5, head_matrix  # noqa: E402
from delrec_jax.language.t5_answers import hidden_at_masks  # noqa: E402
from delrec_jax.language.t5_names import T5_NAMES  # noqa: E402

# Of its own pattern, whose keys end in `.lora_E`, peft says that it matched no module.
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore:The following rank_pattern")]

CONFIG = AdaLoRAConfig(init_rank=6, target_rank=3, alpha=7.0, dropout=0.05)
BASE = PeftBase(T5_NAMES, "T5ForConditionalGeneration", answers=True)
EVERYWHERE = ("q", "k", "v", "o", "wi_0", "wi_1", "wo")
PROMPT = np.random.default_rng(5).normal(size=(3, TINY.d_model)).astype(np.float32)
SLOT = TINY.vocab_size  # id of the first slot
IDS = np.array([[5, 9, 40, 7, 1, 0, 0], [3, 8, 39, 2, 30, 6, 1]])
DECODER_IDS = np.array([[0, 14, 9, 60], [0, 95, 3, 3]])


@pytest.fixture(scope="module")
def base():
    model = torch_t5()
    return model, our_params(model)


def trained(params, targets, ranks=(2, 0, 6, 5, 1)):
    """Adapters of visible size on the targets, the given ranks in turn, the masked triplets in changing places."""
    everywhere = init_adapters(params, replace(CONFIG, targets=EVERYWHERE), jax.random.key(0))
    draw = np.random.default_rng(1)
    flat, projection = {}, 0
    for path, value in sorted(traverse_util.flatten_dict(everywhere).items()):
        if not is_target(path[:-1], targets):
            continue
        flat[path] = jnp.asarray(0.3 * draw.normal(size=value.shape), jnp.float32)
        if path[-1] == "E":
            masked = draw.permutation(6)[ranks[projection % len(ranks)] :]
            flat[path] = flat[path].at[masked].set(0)
            projection += 1
    return traverse_util.unflatten_dict(flat)


def ours(params, adapters, config=CONFIG):
    variables = {"params": params, "adapters": adapters}
    return T5(replace(TINY, adapters=config)).apply(variables, IDS, DECODER_IDS)


def theirs(model):
    ids, decoder_ids = torch.tensor(IDS), torch.tensor(DECODER_IDS)
    with torch.no_grad():
        return model(
            input_ids=ids, attention_mask=ids != 0, decoder_input_ids=decoder_ids
        ).logits.numpy()


def loaded(path, **options):
    return peft.PeftModel.from_pretrained(torch_t5(), path, **options).eval()


def export(path, params, targets=("q", "v"), **changes):
    adapters = trained(params, targets)
    values = {
        "adapters": adapters,
        "prompt": None,
        "config": replace(CONFIG, targets=targets),
        "base_name": "tiny",
    }
    export_peft(path, BASE, **values | changes)
    return adapters


@pytest.mark.parametrize("form", ["adalora", "lora"])
@pytest.mark.parametrize(
    "targets",
    [
        ("q", "v"),
        EVERYWHERE,  # above 20 modules peft shortens their names
        ("decoder/*/EncDecAttention/v", "encoder/block_1/*/wo"),
    ],
    ids=["q-v", "everywhere", "rules"],
)
def test_peft_gives_the_same_logits(tmp_path, base, form, targets):
    model, params = base
    adapters = export(tmp_path, params, targets, form=form)
    other = loaded(tmp_path)
    expected = ours(params, adapters)
    np.testing.assert_allclose(theirs(other), expected, atol=1e-5)
    assert np.abs(expected - theirs(model)).max() > 0.1  # the adapters matter
    # Nothing beside the targets was touched, nothing of them forgotten.
    count = len(traverse_util.flatten_dict(adapters)) // 3
    assert sum("lora_A" in name for name, _ in other.named_parameters()) == count
    merged = other.merge_and_unload()
    np.testing.assert_allclose(theirs(merged), expected, atol=1e-5)


def test_ranks_are_cut_to_those_in_use(tmp_path, base):
    adapters = export(tmp_path, base[1])
    ranks = {
        "encoder.block.0.layer.0.SelfAttention.q": adapters["encoder"]["block_0"]["SelfAttention"]["q"],
        "decoder.block.1.layer.1.EncDecAttention.v": adapters["decoder"]["block_1"]["EncDecAttention"]["v"],
    }  # fmt: skip
    pattern = json.loads((tmp_path / "adapter_config.json").read_text())["rank_pattern"]
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    other = loaded(tmp_path)
    for name, triplet in ranks.items():
        rank = int((triplet["E"] != 0).sum())
        assert 0 < rank < 6
        assert pattern[f"{name}.lora_E"] == (np.asarray(triplet["E"]) != 0).tolist()
        assert tensors[f"base_model.model.{name}.lora_A"].shape == (rank, 32)
        module = other.base_model.model.get_submodule(name)
        assert module.lora_A["default"].shape[0] == rank
        assert module.ranknum["default"].item() == 6  # the scale stays that of the initial rank
    assert {sum(kept) for kept in pattern.values()} == {0, 1, 2, 5, 6}


def test_scanned_layers_are_exported_as_the_unrolled_ones(tmp_path, base):
    adapters = export(tmp_path / "unrolled", base[1])
    export(tmp_path / "scanned", base[1], adapters=stack_layers(adapters))
    for file in (tmp_path / "unrolled").iterdir():
        assert file.read_bytes() == (tmp_path / "scanned" / file.name).read_bytes()


@pytest.mark.parametrize("form", ["adalora", "lora"])
def test_adapters_before_their_first_step_change_nothing(tmp_path, base, form):
    model, params = base
    fresh = init_adapters(params, CONFIG, jax.random.key(0))
    export(tmp_path, params, adapters=fresh, form=form)
    np.testing.assert_array_equal(theirs(loaded(tmp_path)), theirs(model))


def test_both_forms_give_the_same_loss(tmp_path, base):
    """Of labels peft's AdaLoRA makes a loss with its penalty, which needs an adapter that can be trained."""
    labels = {"input_ids": torch.tensor(IDS), "labels": torch.tensor(DECODER_IDS[:, 1:])}
    export(tmp_path / "adalora", base[1])
    export(tmp_path / "lora", base[1], form="lora")
    model = loaded(tmp_path / "adalora", is_trainable=True)
    assert model.peft_config["default"].orth_reg_weight == CONFIG.orthogonality
    model.peft_config["default"].orth_reg_weight = 0.0
    other = loaded(tmp_path / "lora")
    assert model(**labels).loss.item() == pytest.approx(other(**labels).loss.item(), abs=1e-5)


def test_the_readme_places_the_prompt_as_we_do(tmp_path, base, monkeypatch):
    """Runs the commands of the exported README.md, in its directory."""
    model, params = base
    model.save_pretrained(tmp_path / "base")
    path = tmp_path / "adapter"
    adapters = export(path, params, prompt=PROMPT, base_name=str(tmp_path / "base"))
    monkeypatch.chdir(path)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", (path / "README.md").read_text(), re.DOTALL):
        exec(block, names)

    ids = np.array([[5, SLOT, SLOT + 1, SLOT + 2, 7, 1, 0], [SLOT + 2, SLOT, 9, 30, 6, 8, 1]])
    sentinel = 95
    with torch.no_grad():
        logits = names["model"](
            inputs_embeds=names["embed"](torch.tensor(ids)),
            attention_mask=torch.tensor(ids != 0),
            decoder_input_ids=torch.tensor([[0, sentinel]] * 2),
        ).logits[:, 1]
    module = T5(replace(TINY, adapters=CONFIG))
    hidden = hidden_at_masks(
        module,
        params,
        jnp.asarray(ids),
        jnp.full((2, 1), sentinel),
        prompt=jnp.asarray(PROMPT),
        adapters=adapters,
    )[:, 0]
    np.testing.assert_allclose(hidden @ head_matrix(params, TINY).T, logits, atol=1e-5)


def test_an_earlier_prompt_does_not_stay(tmp_path, base):
    export(tmp_path, base[1], prompt=PROMPT)
    np.testing.assert_array_equal(load_file(tmp_path / "soft_prompt.safetensors")["prompt"], PROMPT)
    assert "soft prompt of 3 vectors" in (tmp_path / "README.md").read_text()
    export(tmp_path, base[1])
    assert not (tmp_path / "soft_prompt.safetensors").exists()
    assert "soft prompt" not in (tmp_path / "README.md").read_text()


def test_an_unknown_form_is_named(tmp_path, base):
    with pytest.raises(UserError, match="export form 'dora': use one of adalora, lora"):
        export(tmp_path, base[1], form="dora")
