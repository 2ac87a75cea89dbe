"""`delrec prepare`: turns raw interactions into a corpus, its statistics, one split, and stored candidates."""

from delrec_jax.data import splits
from delrec_jax.data.candidates import sampled_candidates, save_candidates
from delrec_jax.data.corpora import prepare_corpus, source_changed
from delrec_jax.data.interactions import statistics
from delrec_jax.data.split_files import save_split
from delrec_jax.data.split_kinds import make_split
from delrec_jax.data.splits import Split
from delrec_jax.training.writers import say
from delrec_jax.workdir.json_files import write_json
from delrec_jax.workdir.workspace import Workspace


def is_outdated(ws: Workspace) -> bool:
    """Returns whether the source files have changed since they were prepared."""
    return source_changed(ws.experiment.data, ws.folder("prepare") / "corpus")


def prepare(ws: Workspace) -> None:
    """Builds the corpus, splits it, and stores the candidates of both parts with their seed and hash."""
    config, folder = ws.experiment, ws.folder("prepare")
    given = config.split.kind == "given"
    corpus = prepare_corpus(config.data, folder / "corpus", given=given)
    split = make_split(corpus, config.split)
    cold = split.cold_items(corpus.catalogue.num_items)
    facts = statistics(corpus) | {
        "dropped": dict(corpus.dropped),
        "split": split.kind,
        "split_hash": save_split(split, folder / "split.npz", config=config.split),
        "training_users": len(split.training_users),
        "training_interactions": len(split.train.items),
        "cold_items": int(cold.sum()),
    }
    for part in splits.PARTS:
        facts[f"{part}_users"] = len(split.users(part))
        facts[f"{part}_cold_targets"] = float(cold[split.target(part)].mean())
        sets = sampled_candidates(
            split,
            part,
            config.candidates.num,
            seed=config.candidates.seed,
            num_items=corpus.catalogue.num_items,
        )
        save_candidates(sets, folder / f"candidates_{part}.npz")
        facts[f"candidates_{part}"] = sets.hash
    write_json(folder / "statistics.json", facts)
    for name, value in facts.items():
        if name != "dropped":
            shown = f"{value:.4g}" if isinstance(value, float) else value
            say(f"  {name:<22} {shown}")
    for reason, count in corpus.dropped.items():
        if count:
            say(f"  left out or changed: {reason}: {count}")
    repeated = _repeated_targets(split)
    if repeated:
        say(
            f"  WARNING: {repeated} test users have had their target before (data.repeats=keep): `full` ranks it among unseen "
            "items, and `rerank-m` always misses it"
        )
    for warning in split.warnings():
        say(f"  WARNING: {warning}")


def _repeated_targets(split: Split) -> int:
    pairs = zip(split.target("test"), split.histories("test"), strict=True)
    return sum(int(target in history) for target, history in pairs)
