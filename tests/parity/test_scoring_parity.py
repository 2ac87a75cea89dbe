"""Item scores against `transformers` on PyTorch: both T5 kinds, both paddings. Run with `make parity`."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed here: run `make parity`")
transformers = pytest.importorskip("transformers", reason="transformers is not installed here")

from torch_t5 import TINY, TINY_V10, our_params, torch_t5  # noqa: E402

from delrec_jax.language.ranker import Ranker  # noqa: E402
from delrec_jax.language.t5_model import T5Model  # noqa: E402
from delrec_jax.language.verbalizer import title_matrix  # noqa: E402
from delrec_jax.language.verbalizers import VERBALIZERS  # noqa: E402

pytestmark = pytest.mark.parity

CONFIGS = {"tiny-v1.1": TINY, "tiny-v1.0": TINY_V10}
SENTINEL = 95
CODES = (60, 41, 77, 52)
GENERATOR = np.random.default_rng(0)
TITLES = [GENERATOR.integers(2, 90, length).tolist() for length in (1, 2, 12, 5, 5, 8)]
CANDIDATES = np.array([[5, 0, 2, 1], [3, 4, 0, 5], [2, 1, 3, 4]])


def texts(side):
    """Three texts of 40, 25 and 6 tokens, padded with 0 on one side."""
    rows = np.zeros((3, 40), np.int64)
    for row, length in zip(rows, (40, 25, 6), strict=True):
        place = slice(40 - length, None) if side == "left" else slice(length)
        row[place] = np.random.default_rng(length).integers(2, 90, length)
    return rows


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request):
    """Our config, a `transformers` T5 of that shape with random weights, and the same weights as our tree."""
    config = CONFIGS[request.param]
    model = torch_t5(config)
    return config, model, our_params(model)


def our_scores(pair, kind, ids):
    config, _, params = pair
    ranker = Ranker(T5Model(config), *title_matrix(TITLES), SENTINEL, VERBALIZERS[kind], CODES)
    return np.asarray(jax.jit(ranker.candidate_scores)(params, ids, CANDIDATES))


@pytest.mark.parametrize("side", ["left", "right"])
def test_sequence_is_torchs_own_loss(pair, side):
    """Labels <extra_id_0> t1 .. tn with the first ignored: torch shifts, decodes and averages by itself."""
    ids, model = texts(side), pair[1]
    wanted = np.zeros(CANDIDATES.shape)
    for row, place in np.ndindex(*CANDIDATES.shape):
        text = torch.tensor(ids[row : row + 1])
        labels = torch.tensor([[SENTINEL, *TITLES[CANDIDATES[row, place]]]])
        decoder_ids = model.prepare_decoder_input_ids_from_labels(labels)
        labels[0, 0] = -100
        with torch.no_grad():
            output = model(
                input_ids=text,
                attention_mask=text != 0,
                decoder_input_ids=decoder_ids,
                labels=labels,
            )
        wanted[row, place] = -output.loss.item()
    assert wanted.std(axis=1).min() > 0.05
    np.testing.assert_allclose(our_scores(pair, "sequence", ids), wanted, atol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_first_mean_and_index_read_torchs_distribution_at_mask(pair, side):
    ids, model = texts(side), pair[1]
    with torch.no_grad():
        logits = model(
            input_ids=torch.tensor(ids),
            attention_mask=torch.tensor(ids != 0),
            decoder_input_ids=torch.tensor([[0, SENTINEL]] * len(ids)),
        ).logits[:, 1]
    logp = torch.log_softmax(logits.double(), -1).numpy()
    wanted = {kind: np.zeros(CANDIDATES.shape) for kind in ("first", "mean", "index")}
    for row, place in np.ndindex(*CANDIDATES.shape):
        title = TITLES[CANDIDATES[row, place]]
        wanted["first"][row, place] = logp[row, title[0]]
        wanted["mean"][row, place] = logp[row, title].mean()
        wanted["index"][row, place] = logp[row, CODES[place]]
    partition = torch.logsumexp(logits.double(), -1).numpy()[:, None]  # ours are logits
    for kind, scores in wanted.items():
        assert scores.std(axis=1).min() > 0.05
        np.testing.assert_allclose(our_scores(pair, kind, ids), scores + partition, atol=1e-4)
