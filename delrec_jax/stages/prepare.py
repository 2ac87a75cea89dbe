"""`delrec prepare`: raw interactions to a corpus, its statistics, and stored candidates."""

from delrec_jax.data import splits
from delrec_jax.data.candidates import sampled_candidates, save_candidates
from delrec_jax.data.corpora import load_corpus
from delrec_jax.data.interactions import statistics
from delrec_jax.stages.workspace import Workspace, write_json
from delrec_jax.training.writers import say


def prepare(ws: Workspace) -> None:
    """Builds the corpus, checks that it can be split, and stores candidates with seed and hash."""
    config, folder = ws.experiment, ws.folder("prepare")
    corpus = load_corpus(config.data, folder / "corpus")
    split = splits.leave_one_out(corpus.interactions)
    cold = split.cold_items(corpus.catalogue.num_items)
    facts = statistics(corpus) | {
        "dropped": dict(corpus.dropped),
        "evaluated_users": len(split.users),
        "short_users": split.short_users,
        "cold_items": int(cold.sum()),
        "cold_test_targets": float(cold[split.test_target].mean()),
    }
    for part in splits.PARTS:
        sets = sampled_candidates(
            split,
            part,
            config.candidates.num,
            seed=config.seed,
            num_items=corpus.catalogue.num_items,
        )
        save_candidates(sets, folder / f"candidates_{part}.npz")
        facts[f"candidates_{part}"] = sets.hash
    write_json(folder / "statistics.json", facts)
    say(
        f"  {facts['users']} users, {facts['items']} items, {facts['interactions']} interactions, median length "
        f"{facts['length_median']:g}; {len(split.users)} users evaluated, {facts['cold_items']} cold items"
    )
    for reason, count in corpus.dropped.items():
        if count:
            say(f"  {reason}: {count}")
