"""Seconds and memory needed to prepare 100 thousand, 1 million and 10 million interactions.

    .venv/bin/python benchmarks/prepare.py [--quick]

There are a tenth as many users and a fiftieth as many items as interactions; items follow Zipf's law (exponent 0.9), so that
pairs repeat; ids of 9 characters, ratings, times in seconds, rows in random order, a title and a year per item. The files are
generated first, in a separate process, and this is not timed. Each size then runs the real path in a fresh process, whose peak
memory is reported: atomic files read, rules (5-core, repeats, titles), records written, records read, statistics with the
fingerprint, and split and 20 candidates per user for validation and test, both stored. `--quick` runs the smallest size only.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import harness
import numpy as np
import polars as pl

from delrec_jax.data.candidates import sampled_candidates, save_candidates
from delrec_jax.data.corpora.atomic import AtomicSettings, read_atomic_tables
from delrec_jax.data.corpora.builder import SequenceCorpusBuilder, read_corpus
from delrec_jax.data.corpora.tables import RulesConfig, make_corpus
from delrec_jax.data.interactions import Corpus, statistics
from delrec_jax.data.split_files import save_split
from delrec_jax.data.split_kinds import SplitConfig, leave_one_out
from delrec_jax.data.splits import PARTS

NAME = "prepare"
SIZES = (100_000, 1_000_000, 10_000_000)
RULES = RulesConfig(k_core=5)
CANDIDATES = 20
EXPONENT = 0.9
LEAST = 5  # interactions of every user; the rest are dealt at random
FIRST_SECOND, LAST_SECOND = 1_400_000_000, 1_600_000_000


class Stopwatch:
    """Measures the seconds of named steps."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Times the code inside."""
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


class TimedCorpus(SequenceCorpusBuilder[AtomicSettings]):
    """An `AtomicCorpus` with a stopwatch in it."""

    watch: Stopwatch

    def parse(self) -> Corpus:
        """Reads the files and applies the rules."""
        with self.watch.step("read"):
            raw = read_atomic_tables(self.settings.path)
        with self.watch.step("rules"):
            return make_corpus(raw, self.settings.rules)


def generate(folder: Path, rows: int) -> None:
    """Writes `folder`/NAME.inter and NAME.item."""
    rng = np.random.default_rng(0)
    users, items = rows // 10, rows // 50
    user = np.concatenate([np.repeat(np.arange(users), LEAST), rng.integers(0, users, rows // 2)])
    rng.shuffle(user)
    weights = np.arange(1, items + 1) ** -EXPONENT
    places = np.searchsorted(np.cumsum(weights) / weights.sum(), rng.random(rows))
    item = rng.permutation(items)[np.minimum(places, items - 1)]
    inter = pl.DataFrame(
        {
            "user_id:token": names("U", user),
            "item_id:token": names("B", item),
            "rating:float": rng.integers(1, 6, rows),
            "timestamp:float": rng.integers(FIRST_SECOND, LAST_SECOND, rows),
        }
    )
    numbers = np.arange(items)
    titles = pl.DataFrame({"number": numbers // 2 * 2}).select(  # two items per title
        pl.format("Gadget number {} of the series, The", "number")
    )
    item_table = pl.DataFrame(
        {
            "item_id:token": names("B", numbers),
            "title:token_seq": titles.to_series(),
            "release_year:token": 1990 + numbers % 30,
        }
    )
    for ending, table in (("inter", inter), ("item", item_table)):
        table.write_csv(folder / f"{folder.name}.{ending}", separator="\t")


def names(letter: str, numbers: np.ndarray) -> pl.Series:
    return letter + pl.Series(numbers).cast(pl.String).str.zfill(8)


def run(folder: Path) -> dict:
    """Runs the real path once; seconds, peak memory, and what was kept."""
    watch = Stopwatch()
    builder = TimedCorpus(settings=AtomicSettings(str(folder), RULES), data_dir=folder / "prepared")
    builder.watch = watch
    with watch.step("prepare"):
        builder.prepare()
    parsed = watch.seconds["read"] + watch.seconds["rules"]
    watch.seconds["write"] = watch.seconds.pop("prepare") - parsed
    with watch.step("read back"):
        corpus = read_corpus(builder)
    with watch.step("statistics"):
        facts = statistics(corpus)
    with watch.step("split"):
        split = leave_one_out(corpus.interactions)
        save_split(split, folder / "split.npz", config=SplitConfig())
    with watch.step("candidates"):
        for part in PARTS:
            sets = sampled_candidates(
                split, part, CANDIDATES, seed=0, num_items=corpus.catalogue.num_items
            )
            save_candidates(sets, folder / f"{part}.npz")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # from KiB
    kept = {name: facts[name] for name in ("users", "items", "interactions")}
    return {"seconds": watch.seconds, "peak_gib": peak, "kept": kept}


def in_fresh_process(*arguments: str) -> str:
    """Runs this script with these arguments in a fresh process; its standard output."""
    command = [sys.executable, __file__, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def measure(rows: int, folder: Path) -> dict:
    folder = folder / f"shop{rows}"
    folder.mkdir()
    in_fresh_process("--generate", str(rows), "--folder", str(folder))
    return json.loads(in_fresh_process("--run", "--folder", str(folder)))


def print_table(results: dict[int, dict]) -> None:
    steps = list(next(iter(results.values()))["seconds"])
    print(" ".join(f"{title:>12}" for title in ("rows", *steps, "total", "rows/s", "peak GiB")))
    for rows, result in results.items():
        seconds = [result["seconds"][step] for step in steps]
        cells = [f"{value:.2f}" for value in (*seconds, sum(seconds))]
        cells += [f"{rows / sum(seconds):,.0f}", f"{result['peak_gib']:.2f}"]
        print(" ".join(f"{cell:>12}" for cell in (f"{rows:,}", *cells)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the smallest size only")
    parser.add_argument("--generate", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.generate:
        generate(chosen.folder, chosen.generate)
        return
    if chosen.run:
        print(json.dumps(run(chosen.folder)))
        return
    sizes = SIZES[:1] if chosen.quick else SIZES
    with tempfile.TemporaryDirectory() as folder:
        results = {rows: measure(rows, Path(folder)) for rows in sizes}
    print_table(results)
    name = f"{NAME}.quick" if chosen.quick else NAME
    harness.save(
        name, {"rules": RULES.__dict__, "sizes": sizes}, {str(k): v for k, v in results.items()}
    )
    for rows, result in results.items():
        total = sum(result["seconds"].values())
        print(harness.ratio_line(NAME, f"{rows:,} rows", ours=total, peer=None, unit="s"))


if __name__ == "__main__":
    main()
