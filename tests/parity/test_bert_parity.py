"""Our BERT against `transformers` and `peft` on PyTorch: states, prompts, gradients, files, adapters, MiniLM itself."""

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed here: run `make parity`")
transformers = pytest.importorskip("transformers", reason="transformers is not installed here")
peft = pytest.importorskip("peft", reason="peft is not installed here: run `make parity`")

from flax import traverse_util  # noqa: E402
from torch_bert import TINY, our_params, torch_bert  # noqa: E402

from delrec_jax.language.adalora import init_adapters  # noqa: E402
from delrec_jax.language.adalora_config import AdaLoRAConfig  # noqa: E402
from delrec_jax.language.bert_config import BertConfig  # noqa: E402
from delrec_jax.language.bert_family import BertFamily  # noqa: E402
from delrec_jax.language.bert_files import export_model, load, read_config  # noqa: E402
from delrec_jax.language.bert_model import BertModel  # noqa: E402
from delrec_jax.language.pooling import mean_pooled  # noqa: E402
from delrec_jax.language.soft_prompt import slot_ids  # noqa: E402
from delrec_jax.language.tokenizer import Tokenizer  # noqa: E402

# Of its own pattern, whose keys end in `.lora_E`, peft says that it matched no module.
pytestmark = [
    pytest.mark.parity,
    pytest.mark.usefixtures("compile_quickly"),
    pytest.mark.filterwarnings("ignore:The following rank_pattern"),
]

SLOTS = 4
CONFIGS = {"tiny": TINY, "MiniLM-L6": BertConfig()}


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request):
    config = CONFIGS[request.param]
    model = torch_bert(config)
    return BertModel(config), model, our_params(model)


def texts(config, length, *, slots=False, left=False):
    """Three texts of lengths from `length` down, padded with 0; the second begins with the slots of a prompt."""
    generator = np.random.default_rng(length)
    ids = generator.integers(1, config.vocab_size, (3, length)).astype(np.int32)
    for row, kept in enumerate((length, max(SLOTS, int(0.7 * length)), max(1, int(0.3 * length)))):
        ids[row, kept:] = 0
    if slots:
        ids[1, :SLOTS] = slot_ids(config.vocab_size, SLOTS)
    return ids[:, ::-1].copy() if left else ids


def torch_states(model, ids, prompt=None):
    """Their states; ids from the vocabulary's size on are rows of the prompt, in the place of word embeddings."""
    rows = model.config.vocab_size
    words = model.get_input_embeddings()(torch.tensor(np.where(ids >= rows, 0, ids)))
    if prompt is not None:
        slots = prompt[torch.tensor(np.clip(ids - rows, 0, SLOTS - 1))]
        words = torch.where(torch.tensor(ids >= rows)[..., None], slots, words)
    mask = torch.tensor(ids != 0)
    return model(inputs_embeds=words, attention_mask=mask).last_hidden_state


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("length", [7, 50, 512])
def test_states_of_texts_with_padding_and_slots(pair, length, left):
    model, theirs, params = pair
    ids = texts(model.config, min(length, model.longest_text), slots=True, left=left)
    prompt = np.random.default_rng(1).normal(size=(SLOTS, model.width)).astype(np.float32)
    states, mask = jax.jit(model.encode)(params, ids, prompt=prompt)
    np.testing.assert_array_equal(mask, ids != 0)
    with torch.no_grad():
        expected = torch_states(theirs, ids, torch.tensor(prompt)).numpy()
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(states[ids != 0], expected[ids != 0], atol=2e-5)


@pytest.mark.parametrize("remat", ["none", "full"])
def test_the_gradient_of_a_soft_prompt(pair, remat):
    model, theirs, params = pair
    model = replace(model, config=replace(model.config, remat=remat))
    ids = texts(model.config, 40, slots=True)
    generator = np.random.default_rng(2)
    start = generator.normal(size=(SLOTS, model.width)).astype(np.float32)
    wanted = generator.normal(size=(3, model.width)).astype(np.float32)

    def loss(prompt):
        return (mean_pooled(*model.encode(params, ids, prompt=prompt)) * wanted).sum()

    leaf = torch.tensor(start, requires_grad=True)
    mask = torch.tensor(ids != 0)[..., None]
    states = (torch_states(theirs, ids, leaf) * mask).sum(1) / mask.sum(1)
    (states * torch.tensor(wanted)).sum().backward()
    assert leaf.grad.abs().max() > 1e-3
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(start), leaf.grad.numpy(), atol=1e-5)


@pytest.mark.parametrize("kind", ["BertModel", "BertForMaskedLM"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_files_both_ways(tmp_path, kind, dtype):
    theirs = torch_bert()
    whole = theirs
    if kind == "BertForMaskedLM":  # names begin with `bert.`, and a head is stored
        whole = transformers.BertForMaskedLM(theirs.config)
        whole.bert.load_state_dict(theirs.state_dict(), strict=False)
    whole.to(getattr(torch, dtype)).save_pretrained(tmp_path / "theirs")
    config = replace(read_config(tmp_path / "theirs"), param_dtype=dtype)
    assert replace(config, param_dtype="float32") == TINY
    params = load(tmp_path / "theirs", config)
    export_model(params, config, tmp_path / "ours")
    again, said = transformers.AutoModel.from_pretrained(
        tmp_path / "ours", output_loading_info=True, dtype="auto", add_pooling_layer=False
    )
    assert not any(said[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    stored = dict(whole.named_parameters())
    for name, weight in again.named_parameters():
        assert weight.dtype == getattr(torch, dtype)
        assert torch.equal(weight, stored.get(name, stored.get(f"bert.{name}"))), name
    ids = texts(TINY, 20)
    with torch.no_grad():
        expected = torch_states(again.float().eval(), ids).numpy()[ids != 0]
    states, _ = BertModel(config).encode(params, ids)
    np.testing.assert_allclose(states[ids != 0], expected, atol=1e-5)


ADAPTERS = AdaLoRAConfig(
    targets=("q", "encoder/block_1/*/*"), init_rank=6, target_rank=3, alpha=7.0, dropout=0.05
)


def trained(params):
    """Adapters of visible size, some of whose triplets are masked."""
    draw, flat = np.random.default_rng(1), {}
    tree = traverse_util.flatten_dict(init_adapters(params, ADAPTERS, jax.random.key(0)))
    for number, (path, value) in enumerate(sorted(tree.items())):
        flat[path] = jnp.asarray(0.3 * draw.normal(size=value.shape), jnp.float32)
        if path[-1] == "E":
            flat[path] = flat[path].at[draw.permutation(6)[number % 7 :]].set(0)
    return traverse_util.unflatten_dict(flat)


@pytest.mark.parametrize("form", ["adalora", "lora"])
def test_peft_gives_the_same_states(tmp_path, monkeypatch, form):
    """As the exported README says, prompt included."""
    base = torch_bert()
    params, ids = our_params(base), texts(TINY, 20, slots=True)
    base.save_pretrained(tmp_path / "base")
    adapters = trained(params)
    prompt = np.random.default_rng(3).normal(size=(SLOTS, TINY.hidden_size)).astype(np.float32)
    BertFamily().export_adapter(
        tmp_path / "adapter",
        model=BertModel(TINY),
        adapters=adapters,
        prompt=prompt,
        config=ADAPTERS,
        base_name=str(tmp_path / "base"),
        form=form,
    )
    described = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert described["task_type"] == "FEATURE_EXTRACTION"
    assert "encoder.layer.0.attention.self.query" in described["target_modules"]
    monkeypatch.chdir(tmp_path / "adapter")
    names = {}
    for block in Path("README.md").read_text().split("```python\n")[1:]:
        exec(block.split("```")[0], names)
    with torch.no_grad():
        mask = torch.tensor(ids != 0)
        embedded = names["embed"](torch.tensor(ids))
        output = names["model"](inputs_embeds=embedded, attention_mask=mask)
        plain = torch_states(base, ids, torch.tensor(prompt)).numpy()
    expected = output.last_hidden_state.numpy()
    assert np.abs(expected - plain)[ids != 0].max() > 0.1
    model = BertModel(replace(TINY, adapters=ADAPTERS))
    states, _ = model.encode(params, ids, prompt=prompt, adapters=adapters)
    np.testing.assert_allclose(states[ids != 0], expected[ids != 0], atol=2e-5)


MINILM = os.environ.get("DELREC_MINILM", "")
TITLES = [
    f"{kind} {word}, {number} {unit} ({mark})"
    for kind, word, unit, mark in (
        ("Post-it® Super Sticky Notes", "3 in x 3 in", "pads", "654-12SSCY"),
        ("Toy Story 2", "résumé & café", "DVD", "1999"),
        ("HP 60XL Black Ink Cartridge", "high-yield", "pages", "CC641WN"),
        ("The Lord of the Rings: The Two Towers", "指輪物語", "discs", "Extended Edition"),
        (
            "Sharpie",
            "unbelievably-long-compoundwords and antidisestablishmentarianism",
            "pcs",
            "#$%",
        ),
    )
    for number in range(1, 11)
]


@pytest.mark.skipif(not MINILM, reason="DELREC_MINILM names no folder of all-MiniLM-L6-v2")
def test_vectors_of_titles_by_minilm_itself():
    """As `sentence-transformers` makes them: special tokens included in the mean, then unit length."""
    directory = Path(MINILM)
    tokenizer = Tokenizer(directory)
    theirs_read = transformers.AutoTokenizer.from_pretrained(directory)
    read = theirs_read(TITLES, padding=True, return_tensors="pt")
    begin, end = tokenizer.frame(end_of_text=False)
    framed = [[*begin, *ids, *end] for ids in tokenizer.encode_many(TITLES)]
    ids = np.zeros(read["input_ids"].shape, np.int32)
    for row, text in zip(ids, framed, strict=True):
        row[: len(text)] = text
    np.testing.assert_array_equal(ids, read["input_ids"].numpy())
    model = transformers.AutoModel.from_pretrained(directory).eval()
    with torch.no_grad():
        states = model(**read).last_hidden_state
    mask = read["attention_mask"][..., None]
    expected = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1)).numpy()
    config = read_config(directory)
    params = load(directory, config)
    encode = partial(BertModel(config).encode, params)
    vectors = jax.jit(lambda ids: mean_pooled(*encode(ids)))(ids)
    ours = vectors / jnp.linalg.norm(vectors, axis=1, keepdims=True)
    worst = np.abs(np.asarray(ours) - expected).max()
    print(f"{len(TITLES)} titles, largest difference {worst:.2e}")
    assert worst <= 1e-5
