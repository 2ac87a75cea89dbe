"""How many damaged inputs are tried, and from which seed; what became of them, for benchmarks/evidence."""

import json
from collections import Counter
from pathlib import Path

import pytest
from verdicts import OUTCOMES, tally


@pytest.fixture
def fuzz(request):
    """(kind, number of cases, make(seed, number)) -> judges that many, or as many as `--fuzz-cases` says."""

    def run(kind, count, make, *, widened=True):
        seed = request.config.getoption("--fuzz-seed") if widened else 0
        asked = request.config.getoption("--fuzz-cases") if widened else 0
        count = asked or count
        cases = [lambda number=number: make(seed, number) for number in range(count)]
        counts = tally(cases, lambda number: f"{kind}, --fuzz-seed={seed}, number {number}")
        _note(request.config.getoption("--fuzz-tally"), kind, seed, counts)

    return run


def _note(file, kind, seed, counts):
    if not file:
        return
    path = Path(file)
    found = json.loads(path.read_text()) if path.exists() else {}
    seen = Counter(found.get(kind, {}).get("outcomes", {})) + counts
    seeds = sorted({seed, *found.get(kind, {}).get("seeds", [])})
    found[kind] = {"seeds": seeds, "outcomes": {name: seen[name] for name in OUTCOMES}}
    path.write_text(json.dumps(found, indent=1))
