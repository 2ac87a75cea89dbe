"""Prompts per second on one core: pieces tokenized once and gathered, compared with strings and the fast tokenizer.

    .venv/bin/python benchmarks/prompts.py [--quick] [--tokenizer PATH]

Our code assembles one text after another. The peers format the same texts as strings and encode them, all texts of a case in
one call, which is fastest for them: the `transformers` fast tokenizer, and the `tokenizers` object inside it (no Python around
it, no offsets). That all sides give the same ids is checked. No text is cut: cutting would slow down the peers, not ours.
Titles are the storefront's, lengthened to the spread of real shops (5 to 30 words, median 9); the tokenizer is trained on
them, or read from PATH (any Hugging Face T5 tokenizer, such as Flan-T5's).
"""

import argparse
import dataclasses
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
import numpy as np

from delrec_jax.data import prompts, templates
from delrec_jax.data.corpora.storefront_catalogue import build_catalogue
from delrec_jax.data.sequential_recommendation import lsr_ids
from delrec_jax.data.templates import Field
from delrec_jax.delrec.pattern_simulating import PatternSimulating, rps_text
from delrec_jax.delrec.temporal_analysis import TemporalAnalysis, ta_text
from delrec_jax.language.tokenizer import Tokenizer, train_tokenizer
from delrec_jax.language.tokenizer_backends import TransformersBackend

NAME = "prompts"
DOMAIN, TEACHER, PATTERN = "items", "SASRec", "prefer what continues the most recent series"
TASKS = ("lsr", "rps", "ta")
TEMPLATES = {
    "ta": TemporalAnalysis.template,
    "rps": PatternSimulating.template,
    "lsr": LSR_TEMPLATE,
}


@dataclass(frozen=True)
class Settings:
    """What is timed.

    Attributes:
      texts: texts per case and round.
      turns: how often our code builds them per round; one turn alone would take only some milliseconds.
      histories: items of a history (TA: of the complete sequence).
      listed: candidates listed in each text.
      items: size of the catalogue, in series of 10.
    """

    texts: int = 256
    turns: int = 16
    histories: tuple[int, ...] = (10, 50)
    listed: tuple[int, ...] = (0, 20)
    items: int = 4000
    rounds: int = 7
    warmup: int = 1


QUICK = Settings(texts=32, rounds=3)


def make_titles(items: int) -> list[str]:
    """The storefront's titles, lengthened by words from one another."""
    catalogue = build_catalogue(genres=20, series=items // 200, volumes=10, seed=0)
    words = [word for title in catalogue.titles for word in title.split()]
    rng = np.random.default_rng(0)
    wanted = np.clip(rng.lognormal(np.log(9), 0.45, items).astype(int), 5, 30)
    return [
        " ".join([title, *rng.choice(words, max(0, length - len(title.split())))])
        for title, length in zip(catalogue.titles, wanted, strict=True)
    ]


def make_tokenizer(titles: list[str], directory: Path) -> Tokenizer:
    """A tokenizer trained on the titles and the words of the templates."""
    words = [*templates.all_words(TEMPLATES.values(), templates.domain(DOMAIN), TEACHER), PATTERN]
    return train_tokenizer(
        [*titles, *words], titles, vocab_size=4000, sentinels=100, directory=directory
    )


class Strings:
    """The texts that `prompts` builds, as strings without the final MASK."""

    def __init__(self, titles: list[str], listed: bool):
        words = templates.domain(DOMAIN)
        self.titles = titles
        hidden = {Field.RANKED} if listed else {Field.RANKED, Field.CANDIDATES}
        self.tasks = {
            name: [
                part if isinstance(part, Field) else templates.fill(part, words, TEACHER)
                for part in templates.without(template, hidden)
                if part is not Field.MASK
            ]
            for name, template in TEMPLATES.items()
        }

    def text(self, task: str, items: list[int], candidates: list[int]) -> str:
        """One text."""
        titles, a = self.titles, prompts.PromptConfig().ta_example
        fields = {Field.PATTERN: PATTERN, Field.CANDIDATES: self._join(candidates)}
        if task == "ta":
            fields[Field.EARLIER] = self._join(items[: a - 2])
            fields[Field.GAP_EARLIER], fields[Field.AFTER_EARLIER] = map(
                titles.__getitem__, items[a - 2 : a]
            )
            fields[Field.AFTER] = titles[items[-1]]
            items = items[a - 1 : -2]
        fields[Field.HISTORY] = self._join(items)
        return " ".join(
            [fields[part] if isinstance(part, Field) else part for part in self.tasks[task]]
        )

    def _join(self, items: list[int]) -> str:
        return f" {templates.SEPARATOR} ".join([self.titles[item] for item in items])


class Case:
    """One task, length of history and number of listed candidates, built in three ways."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        titles: list[str],
        *,
        settings: Settings,
        task: str,
        shape: tuple[int, int],
    ):
        history, listed = shape
        rng = np.random.default_rng([history, listed])
        draw = [
            rng.choice(len(titles), history + listed, replace=False) for _ in range(settings.texts)
        ]
        self.task, self.peer = task, TransformersBackend(Path(tokenizer.name))
        # Each side gets the items in the form that suits it best: arrays as they are stored, or lists.
        self.rows = [np.split(row.astype(np.int32), [history]) for row in draw]
        self.lists = [(row[:history].tolist(), row[history:].tolist()) for row in draw]
        self.strings = Strings(titles, listed > 0)
        self.pattern = np.array(tokenizer.encode(PATTERN), np.int32)
        self.pieces = prompts.tokenise_pieces(
            tokenizer.encode_many,
            titles,
            TEMPLATES,
            domain=DOMAIN,
            teacher=TEACHER,
            sentinel=tokenizer.sentinel(0),
            config=prompts.PromptConfig(max_tokens=1 << 14, show_candidates=listed > 0),
        )

    def gathered(self) -> list[np.ndarray]:
        """Our side: pieces gathered into texts."""
        build: Callable[..., np.ndarray] = {
            "lsr": lsr_ids,
            "rps": rps_text,
            "ta": ta_text,
        }[self.task]
        return [
            build(self.pieces, items, pattern=self.pattern, candidates=candidates)
            for items, candidates in self.rows
        ]

    def formatted(self) -> list[str]:
        """The texts as strings."""
        return [self.strings.text(self.task, *row) for row in self.lists]

    def tokenised(self) -> list[list[int]]:
        """The peer: strings, then the fast tokenizer."""
        return self.peer.encode(self.formatted())

    def tokenised_bare(self) -> list[list[int]]:
        """The stronger peer: strings, then the object inside the fast tokenizer."""
        backend = self.peer._tokenizer.backend_tokenizer
        found = backend.encode_batch_fast(self.formatted(), add_special_tokens=False)
        return [one.ids for one in found]

    def check(self) -> float:
        """Checks that all three give the same ids; the mean length of a text in tokens."""
        ours = [ids.tolist() for ids in self.gathered()]
        for theirs in (self.tokenised(), self.tokenised_bare()):
            if ours != [[*ids, self.pieces.sentinel] for ids in theirs]:
                raise SystemExit(f"{self.task}: the peer's ids are not ours, nothing to compare")
        return float(np.mean([len(ids) for ids in ours]))


def run(case: Case, settings: Settings) -> dict[str, Any]:
    """Times one case."""
    tokens = case.check()
    ways = {
        "ours": lambda: [len(case.gathered()) for _ in range(settings.turns)],
        "tokenizer": lambda: len(case.tokenised()),
        "bare tokenizer": lambda: len(case.tokenised_bare()),
    }
    seconds = harness.interleave(ways, settings.rounds, settings.warmup)
    built = {way: settings.texts * (settings.turns if way == "ours" else 1) for way in ways}
    rates = {way: built[way] / time for way, time in harness.medians(seconds).items()}
    return {"tokens": tokens, "prompts_per_second": rates, "seconds": seconds}


def one_core() -> None:
    """Restricts this process to a single core, and the tokenizers library to a single thread."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def lines(label: str, found: dict[str, Any]) -> list[str]:
    """The lines that are printed for one case."""
    rates = found["prompts_per_second"]
    return [
        harness.ratio_line(
            NAME,
            f"{label}, {peer}",
            ours=round(rates["ours"]),
            peer=round(rates[peer]),
            unit="prompts/s",
            digits=5,
        )
        for peer in ("tokenizer", "bare tokenizer")
    ]


def main() -> None:
    """Runs, stores and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a quick look, half a minute")
    parser.add_argument("--tokenizer", type=Path, help="a Hugging Face T5 tokenizer directory")
    arguments = parser.parse_args()
    settings = QUICK if arguments.quick else Settings()
    one_core()
    titles = make_titles(settings.items)
    with tempfile.TemporaryDirectory() as directory:
        tokenizer = (
            Tokenizer(arguments.tokenizer)
            if arguments.tokenizer
            else make_tokenizer(titles, Path(directory))
        )
    results: dict[str, Any] = {}
    said = []
    for task in TASKS:
        for history in settings.histories:
            for listed in settings.listed:
                case = Case(
                    tokenizer, titles, settings=settings, task=task, shape=(history, listed)
                )
                label = f"{task} of {history} items, {listed} listed"
                results[label] = run(case, settings)
                said += lines(f"{label} ({results[label]['tokens']:.0f} tokens)", results[label])
    name = arguments.tokenizer.resolve().name if arguments.tokenizer else "trained on the titles"
    path = harness.save(
        f"{NAME}.quick" if arguments.quick else NAME,
        dataclasses.asdict(settings) | {"tokenizer": name},
        results,
    )
    print(f"written: {path.name}", *said, sep="\n")


if __name__ == "__main__":
    main()
