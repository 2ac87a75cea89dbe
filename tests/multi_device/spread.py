"""Ranks, best items and lists over meshes of eight fake devices, beside those of one; prints them as JSON.

Scores are sums of small whole numbers, exact in any order, with many ties; so whatever differs is a mistake.
"""

import json
import re
from types import SimpleNamespace
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from delrec_jax.evaluation import ranking, user_ranks
from delrec_jax.teachers import losses
from delrec_jax.teachers.best_items import _over_mesh, best_items
from delrec_jax.teachers.item_to_item import ItemToItem, VectorSimilarity, recency
from delrec_jax.teachers.lists import ListSettings, distillation_lists, top_lists
from delrec_jax.training.sharding import MeshConfig, make_layout
from delrec_jax.training.steps import EvalStep
from delrec_jax.workdir.best_lists import BestLists
from delrec_jax.workdir.spread_scores import SpreadScores, axes_of, spread_over

USERS, SEEN = 50, 7
_EXCHANGED = re.compile(r"= \(?\w+\[([\d,]*)\].*? (?:all-gather|all-reduce|all-to-all)")


def whole(rng, *shape):
    return rng.integers(0, 4, shape).astype(np.float32)


def asked(rng, items):
    """Histories, targets and candidates of users; some targets are in the history or no candidates."""
    histories = rng.integers(-1, items, (USERS, SEEN)).astype(np.int32)
    candidates = np.stack([rng.permutation(items)[:10] for _ in range(USERS)]).astype(np.int32)
    return histories, rng.integers(0, items, USERS).astype(np.int32), candidates


class Rows:
    """The histories of users by row, as `BestLists` reads them."""

    def __init__(self, histories):
        self._histories = histories

    def __len__(self):
        return len(self._histories)

    def __call__(self, rows):
        return self._histories[rows]


def ranks(score, items, rng):
    histories, targets, candidates = asked(rng, items)
    rankers = {
        "full": user_ranks.full_ranker(targets, histories),
        "with seen": user_ranks.full_ranker(targets),
        "some": user_ranks.candidate_ranker(targets, candidates, full_scores=True),
    }
    best = BestLists(Rows(histories), items)
    rankers["full"] = best.keeping(rankers["full"])
    # 50 users in batches of 20, which do not divide over eight devices either.
    found = user_ranks.rank_users(
        lambda rows: score(histories[rows]), rankers, num_users=USERS, batch_size=20
    )
    values = {name: [one.rank.tolist(), one.ties.tolist()] for name, one in found.items()}
    return values | {"best": best.collect().tolist()}


def lists(score, items, rng):
    histories, _, _ = asked(rng, items)
    allowed = np.arange(items) % 5 > 0
    top = top_lists(score, histories, top_h=9, allowed=allowed, seen=histories, batch_size=20)
    made = distillation_lists(
        score,
        histories,
        settings=ListSettings(3, 8),
        allowed=allowed,
        seen=histories,
        batch_size=20,
    )
    return [part.tolist() for part in (*top, made.items, made.scores)]


def found_by(score, items):
    return {
        "ranks": ranks(score, items, np.random.default_rng(2)),
        "lists": lists(score, items, np.random.default_rng(3)),
    }


def widest(scores, items):
    """The most numbers that any exchange of a ranking, or of finding best items, brings to a device."""
    seen, targets = np.zeros((len(scores), SEEN), np.int32), np.zeros(len(scores), np.int32)
    rows, columns = (*scores.sharding.spec, None)[:2]
    programs = [
        ranking.rank_unseen.lower(scores, targets, seen),
        ranking.gather_candidates.lower(scores, seen),
        _over_mesh(scores.sharding.mesh, rows, columns, 3).lower(
            scores, seen, np.ones(items, bool)
        ),
    ]
    sizes = [
        int(np.prod([int(size) for size in shape.split(",") if size]))
        for program in programs
        for shape in _EXCHANGED.findall(program.compile().as_text())
    ]
    return max(sizes, default=0)


def tied_at_infinity(layout):
    """Best items where everything but one item is -inf or closed: the order of the index, as on one device."""
    scores = np.full((8, 16), -np.inf, np.float32)
    scores[:, 11] = 1.0
    step = EvalStep(lambda held, rows: rows + held["zero"], layout, ("users", "catalogue"))
    seen = np.full((8, 1), -1, np.int32)
    split = best_items(step({"zero": np.float32(0)}, scores), seen, np.ones(16, bool), count=16)
    alone = best_items(jnp.asarray(scores), seen, np.ones(16, bool), count=16)
    return [np.asarray(one).tolist() for one in split] == [
        np.asarray(one).tolist() for one in alone
    ]


def report(mesh, items):
    rng = np.random.default_rng(items)
    teacher = ItemToItem(recency=recency(1.0), matrix=jnp.asarray(whole(rng, items, items)))
    layout = make_layout(mesh, axes_of)
    spread = SpreadScores(teacher, layout)
    example = spread(np.zeros((spread.rows(20), SEEN), np.int32))
    vectors = SpreadScores(
        VectorSimilarity(recency=recency(1.0), vectors=jnp.asarray(whole(rng, items, 4))), layout
    )
    columns = EvalStep(lambda held, rows: rows @ held["vectors"].T, layout, ("users", "catalogue"))
    wide = columns({"vectors": whole(rng, items, 4)}, whole(rng, 24, 4))
    return {
        "equal": found_by(spread, items) == found_by(teacher.scores, items),
        "vectors equal": lists(vectors, items, np.random.default_rng(3))
        == lists(vectors._held["teacher"].scores, items, np.random.default_rng(3)),
        "piece": example.addressable_shards[0].data.shape,
        "rows": len(example),
        "matrix": spread._held["teacher"].matrix.addressable_shards[0].data.shape,
        "wide piece": wide.addressable_shards[0].data.shape,
        "exchanged": max(widest(example, items), widest(wide, items)),
        "infinite": tied_at_infinity(layout),
    }


def teacher_loss(mesh):
    """What devices exchange in a teacher's loss of 400 rows, as often as they have chunks or once, and the rows of a chunk."""
    layout = make_layout(mesh, axes_of)

    def gradients(states, table, labels):
        def summed(states, table):
            flat = states.reshape(-1, 4)
            return losses.cross_entropy_sum(flat, table, labels.reshape(-1), layout.ways)

        return jax.grad(summed, (0, 1))(states, table)

    shapes = (
        jax.ShapeDtypeStruct(shape, kind)
        for shape, kind in (((40, 10, 4), "f4"), ((61, 4), "f4"), ((40, 10), "i4"))
    )
    placed = (layout.batch, layout.whole, layout.batch)
    with mock.patch.object(losses, "CHUNK_ROWS", 20):
        text = jax.jit(gradients, in_shardings=placed).lower(*shapes).compile().as_text()
    once = text[text.index("ENTRY") :]
    return {
        "gathered": len(re.findall(r"all-gather\(", text)),
        "sums of every chunk": len(re.findall(r"all-reduce\(", text.replace(once, ""))),
        "tables summed": len(re.findall(r"f32\[61,4\]\S* all-reduce\(", once)),
        "rows": sorted(set(re.findall(r"f32\[(?:1,)?(\d+),61\]", text))),
    }


if __name__ == "__main__":
    meshes = {"8x1x1": MeshConfig(), "2x2x2": MeshConfig(2, 2, 2), "1x4x2": MeshConfig(1, 4, 2)}
    found = {
        f"{name} {items}": report(mesh, items)
        for name, mesh in meshes.items()
        for items in (64, 61)
    }
    layout = spread_over(SimpleNamespace(mesh=MeshConfig()))
    found["loss"] = {name: teacher_loss(mesh) for name, mesh in meshes.items()}
    print(json.dumps(found | {"devices": jax.device_count(), "mesh": dict(layout.mesh.shape)}))
