"""The steps of sections `lm` and `teachers` in PyTorch, with `transformers` and `peft`, on the same card.

Language models: the shapes, texts, losses and settings of `lm`, random weights in bfloat16, adapters in float32 as `peft` makes
them, attention by PyTorch's own choice of kernel, no `torch.compile`. Stage 1 has gradients to the soft prompt alone; stage 2
to AdaLoRA on q and v, with its penalty and rank allocation. `full` recomputes each block in the backward pass, as our `full`
does. SASRec: `../teacher_peer.py` in float32, a batch of full windows that is on the device. MFU is by the formula of `lm.py`.

Every case is a process of its own, so that its peak memory is its own. JAX is imported for shapes, but starts no device.
"""

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import lm
import numpy as np
from measuring import Record, brief, environment, experiment_of

from delrec_jax.planning.shapes import planned_model
from delrec_jax.workdir.language_scorer import text_shapes

_NEEDED = ("torch", "transformers", "peft")
_CORPORA = {"ml_100k": 1_682, "beauty": 12_101}  # items


class Case(NamedTuple):
    """What one process measures: steps of a stage, or of `sasrec` on a corpus."""

    shape: str
    stage: str
    remat: str = "none"

    @property
    def name(self) -> str:
        """Its name in the record."""
        end = "" if self.remat == "none" else f"+{self.remat}"
        return f"{self.shape} {self.stage} torch{end}"


def cases(tiny: bool) -> list[Case]:
    """The cases, most important first."""
    if tiny:
        return [Case("tiny", "distill", "full"), Case("tiny", "tune"), Case("tiny", "sasrec")]
    stages = ("distill", "tune")
    found = [Case(shape, stage) for shape in ("xl", "base", "small") for stage in stages]
    found += [Case(corpus, "sasrec") for corpus in _CORPORA]
    return found + [Case("xl", stage, "full") for stage in stages]


def run(record: Record, tiny: bool) -> None:
    """Measures one case after another, if the libraries are there."""
    for name in _NEEDED:
        try:
            importlib.import_module(name)
        except ImportError as error:
            record.keep("torch", {"skipped": f"{name} cannot be imported: {brief(error)}"})
            return
    record.measure("versions", lambda: {name: sys.modules[name].__version__ for name in _NEEDED})
    for case in cases(tiny):
        record.measure(case.name, _in_process, case, record.left)


def _in_process(case: Case, seconds: float) -> dict[str, Any]:
    """The answer of a process of this case alone."""
    command = [sys.executable, __file__, json.dumps(case)]
    answer = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=max(1.0, seconds)
    )
    said = answer.stdout.splitlines() or ['{"error": "the process ended without a word"}']
    found: dict[str, Any] = json.loads(said[-1])
    return found


def child(case: Case) -> dict[str, Any]:
    """Makes a model with random weights and measures its step."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    measured = _teacher if case.stage == "sasrec" else _language_model
    return measured(case, device)


def _language_model(case: Case, device: Any) -> dict[str, Any]:
    import torch

    settings = lm.Case(case.shape, case.stage, "xla", case.remat)
    experiment = lm.experiment_of_case(settings)
    shape = planned_model(experiment)[0].config
    config = getattr(experiment, case.stage)
    ids = _texts(experiment, config.batch_size, shape.vocab_size)
    step = lm_step(case, experiment, shape, ids, device)
    found = _timed(step, device, tiny=case.shape == "tiny")
    card = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    return found | lm.rates(shape, *ids.shape, ms=found["step ms"], device=card)


def lm_step(
    case: Case, experiment: Any, shape: Any, ids: np.ndarray, device: Any
) -> Callable[[], Any]:
    """A function that takes one step of a stage on these texts [B, T] and returns its loss."""
    import lm_step_peer
    import ranking_peer
    import torch

    with device:
        model = ranking_peer.random_model(shape).to(torch.bfloat16).train()
        prompt = torch.randn(experiment.distill.length, shape.d_model)
    if case.remat == "full":
        model.gradient_checkpointing_enable({"use_reentrant": False})
    loss_of = _loss(case, experiment, shape, ids, device)
    if case.stage == "distill":
        trained = [prompt.requires_grad_()]
        optimizer = torch.optim.Adam(trained, lr=experiment.distill.optimizer.learning_rate)
        return _step(lambda: loss_of(model, prompt), optimizer, lambda: None)
    config = experiment.tune
    plan = lm_step_peer.Plan(config.adalora, config.optimizer.learning_rate, config.loop.steps)
    adapted, done = lm_step_peer.adapted_model(model, plan), iter(range(1, plan.steps))
    trained = [weight for weight in adapted.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=plan.learning_rate)

    def loss() -> Any:
        """The next item's loss and AdaLoRA's penalty."""
        penalty = lm_step_peer.penalty_of(adapted)
        return loss_of(adapted, prompt) + config.adalora.orthogonality * penalty

    return _step(loss, optimizer, lambda: adapted.base_model.update_and_allocate(next(done)))


def _step(loss_of: Callable[[], Any], optimizer: Any, after: Callable[[], None]) -> Any:
    def step() -> Any:
        """One update; the loss before it."""
        loss = loss_of()
        loss.backward()
        optimizer.step()
        after()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def _loss(case: Case, experiment: Any, shape: Any, ids: np.ndarray, device: Any) -> Any:
    """(model, prompt) -> cross-entropy of the mean log-probabilities of titles: each text's candidates, or the catalogue."""
    import torch
    from torch.nn import functional

    random, rows = np.random.default_rng(0), len(ids)
    count, tokens = lm.ASSUMED.items, lm.ASSUMED.title_tokens
    titles = random.integers(2, shape.vocab_size, (count, tokens))
    listed = getattr(experiment, case.stage).loss_over == "candidates"
    if listed:
        number = getattr(experiment, case.stage).num_candidates
        asked = titles[random.integers(0, count, (rows, number))]
        target = torch.full((rows, number), 1 / number, device=device)
    else:
        asked = np.broadcast_to(titles, (rows, *titles.shape))
        target = torch.tensor(random.integers(0, count, rows), device=device)
    wanted = torch.tensor(asked.reshape(rows, -1), device=device)
    length = experiment.distill.length
    words = torch.tensor(ids[:, length:].astype(np.int64), device=device)
    mask = torch.tensor(ids != 0, device=device)
    decoder_ids = torch.tensor([[0, shape.vocab_size - 1]] * rows, device=device)

    def loss_of(model: Any, prompt: Any) -> Any:
        """The mean over the texts."""
        embedded = model.get_input_embeddings()(words)
        slots = prompt.to(embedded.dtype).expand(rows, -1, -1)
        output = model(
            inputs_embeds=torch.cat([slots, embedded], dim=1),
            attention_mask=mask,
            decoder_input_ids=decoder_ids,
            use_cache=False,
        )
        logp = torch.log_softmax(output.logits[:, 1].float(), dim=-1)
        scores = logp.gather(1, wanted).view(rows, -1, tokens).mean(-1)
        return functional.cross_entropy(scores, target)

    return loss_of


def _texts(experiment: Any, rows: int, words: int) -> np.ndarray:
    """Texts as those of `lm`, [B, T]: slots first (any number above 0), the shortest a quarter shorter than the longest."""
    shape = text_shapes(experiment.prompts.max_tokens, rows).shape
    ids = np.random.default_rng(0).integers(2, words, shape)
    ends = np.linspace(shape[1], 0.75 * shape[1], rows).astype(int)
    return np.where(np.arange(shape[1]) < ends[:, None], ids, 0)


def _teacher(case: Case, device: Any) -> dict[str, Any]:
    """SASRec: a step on a batch that is on the device, as in `teachers`."""
    import teacher_peer
    import torch

    tiny = case.shape == "tiny"
    corpus = "ml_100k" if tiny else case.shape
    config, items = experiment_of(f"teachers/{corpus}.py").teacher, _CORPORA[corpus]
    size = (4, 8) if tiny else (config.batch_size, config.sasrec.max_length)
    model = teacher_peer.SASRec(config.sasrec, items).to(device).train()
    optimizer = teacher_peer.new_optimizer(model)
    drawn = np.random.default_rng(0).integers(0, items, (2, *size))
    batch = torch.tensor(drawn, device=device)
    found = _timed(
        lambda: teacher_peer.update(model, optimizer, *batch), device, tiny=tiny, steps=50
    )
    labels = size[0] * size[1]
    return found | {"labels a step": labels, "labels/s": labels / found["step ms"] * 1e3}


def _timed(step: Callable[[], Any], device: Any, *, tiny: bool, steps: int = 3) -> dict[str, Any]:
    """Milliseconds per step (median over rounds of steps dispatched without waiting), peak memory, and the first value."""
    import torch

    cuda = device.type == "cuda"
    wait = torch.cuda.synchronize if cuda else lambda: None
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    first = float(step())
    warm, rounds = time.perf_counter() - start, []
    for _ in range(2 if tiny else 5):
        began = time.perf_counter()
        for _ in range(2 if tiny else steps):
            step()
        wait()
        rounds.append((time.perf_counter() - began) / (2 if tiny else steps) * 1e3)
        if time.perf_counter() - start > 20:
            break
    return {
        "step ms": float(np.median(rounds[1:] or rounds)),
        "rounds": [round(ms, 3) for ms in rounds],
        "first": first,
        "warm-up seconds": round(warm, 1),
        "peak memory, GiB": lm.gib(torch.cuda.max_memory_allocated()) if cuda else None,
    }


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    try:
        answer = child(Case(*json.loads(sys.argv[1])))
    except Exception as error:  # the parent records it
        answer = {"error": brief(error)}
    print(json.dumps(answer), flush=True)
