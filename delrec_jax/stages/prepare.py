"""`delrec prepare`: turns raw interactions into a corpus, its statistics, one split, and stored candidates."""

from delrec_jax.config import Experiment
from delrec_jax.config.p2rec import SOLVED
from delrec_jax.data import splits
from delrec_jax.data.candidates import sampled_candidates, save_candidates
from delrec_jax.data.corpora import prepare_corpus, source_changed
from delrec_jax.data.corpus_warnings import corpus_warnings
from delrec_jax.data.interactions import statistics
from delrec_jax.data.split_files import save_split
from delrec_jax.data.split_kinds import make_split
from delrec_jax.data.splits import Split
from delrec_jax.teachers.item_to_item import check_catalogue
from delrec_jax.teachers.registry import display_name
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
    if config.method == "p2rec" and SOLVED in config.augment.teachers:
        check_catalogue(display_name(SOLVED), corpus.catalogue.num_items)
    for name, value in facts.items():
        if name != "dropped":
            shown = f"{value:.4g}" if isinstance(value, float) else value
            say(f"  {name:<22} {shown}")
    for reason, count in corpus.dropped.items():
        if count:
            say(f"  left out or changed: {reason}: {count}")
    told = [
        *corpus_warnings(corpus, split),
        *_short_lists(config, split, len(cold)),
        *_short_rerank(config, split, len(cold)),
    ]
    for warning in told:
        say(f"  WARNING: {warning}")


def _short_rerank(config: Experiment, split: Split, num_items: int) -> list[str]:
    """Says if a test user has seen so much that `evaluate` could not rank the teacher's best for them."""
    left = num_items - int(split.seen_counts("test").max(initial=0))
    if config.method == "p2rec" or config.candidates.rerank <= left:
        return []
    return [
        f"`evaluate` will refuse candidates.rerank={config.candidates.rerank}: a test user leaves only {left} of {num_items} "
        f"items unseen; set it to at most {left}"
    ]


def _short_lists(config: Experiment, split: Split, num_items: int) -> list[str]:
    """Says if a user who trains leaves the teacher fewer items than stage 1's lists have."""
    if config.method != "delrec":
        return []
    taken = splits.different_items(split.train.lengths, split.train.items)
    known, worst = int((split.train_counts(num_items) > 0).sum()), int(taken.argmax())
    left = known - int(taken[worst])
    needed = max(config.distill.num_candidates, config.distill.top_h)
    if left >= needed:
        return []
    name = split.train.user_ids[worst]
    return [
        f"the stage distill will refuse this corpus: its lists have {needed} items, and user {name!r} leaves only {left} of "
        f"the {known} that training knows: set distill.num_candidates and distill.top_h to at most {left}"
    ]
