"""A folder in which the commands of README.md can be run as they stand there, and flags that make their models tiny.

`PATH/TO/...` holds the tiny storefront's titles and users as files, `google/flan-t5-small` its language model, and
`runs/storefront` its finished run. The commands are run with this folder as the current directory.
"""

import csv
import io
import re
import shutil
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from readme_text import PROSE, ROOT, only, spans
from tiny_bert import RAW, write_bert, write_wordpiece
from tiny_p2rec import PARSING
from tiny_storefront import TINY, delrec, open_workspace

from delrec_jax.workdir.prepared import load_data

DEMO = Path("runs/storefront")
GATE = "--config.pretrain.gate.next_item"
_USERS = 48  # of the tiny storefront


def said(*arguments, status=0):
    """What a command prints, both streams as a terminal mixes them; it must end with this status."""
    screen, ended = io.StringIO(), 0
    with redirect_stdout(screen), redirect_stderr(screen):
        try:
            delrec(*arguments)
        except SystemExit as left:
            ended = left.code
    text = screen.getvalue()
    assert ended == status, f"delrec {' '.join(arguments)} ended with {ended}:\n{text}"
    return text


def make_place(root, run):
    """Fills the folder from a finished tiny run."""
    (root / "runs").mkdir(parents=True)
    (root / "configs").symlink_to(ROOT / "configs")
    shutil.copytree(run, root / DEMO)
    _write_corpora(root / "PATH" / "TO", load_data(open_workspace(run)).corpus)
    said("export", f"--workdir={run}", f"--output={root / 'google' / 'flan-t5-small'}")
    encoder = root / "sentence-transformers" / "all-MiniLM-L6-v2"
    titles = load_data(open_workspace(run)).corpus.catalogue.titles
    write_bert(encoder, RAW | {"vocab_size": write_wordpiece(encoder, titles)})


def _write_corpora(folder, corpus):
    """Items that nobody has go to somebody, so that none is left out; one more user has too few."""
    users = [items.tolist() for items in map(corpus.interactions.history, range(_USERS))]
    unused = set(range(corpus.catalogue.num_items)) - {item for items in users for item in items}
    for user, item in enumerate(unused):
        users[user][0] = item
    rows = [
        (user, item, time, 5)
        for user, items in enumerate([*users, [0]])
        for time, item in enumerate(items)
    ]
    items = [(item, title, "new") for item, title in enumerate(corpus.catalogue.titles)]
    for name, told in re.findall(r"`(\w+\.csv)` \(([^)]+)\)", PROSE):
        names = told.replace("optionally ", "").replace("any further columns", "shelf").split(", ")
        _write_table(folder / "FOLDER" / name, names, rows if "user" in names else items)
    atomic = folder / "ml-100k" / "ml-100k"
    names = ("user_id:token", "item_id:token", "timestamp:float", "rating:float")
    _write_table(atomic.with_suffix(".inter"), names, rows, separator="\t")
    names = ("item_id:token", "movie_title:token_seq", "class:token_seq")
    _write_table(atomic.with_suffix(".item"), names, items, separator="\t")


def _write_table(path, names, rows, *, separator=","):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=separator, lineterminator="\n").writerows([names, *rows])


def run_for(workdir):
    """Runs README.md's command that makes this workdir; returns what was printed."""
    words = (*only(f"--workdir={workdir}", but="export").words[1:], *FLAGS[workdir])
    if workdir == "runs/p2rec_storefront":  # these stages are the demo's
        for stage in ("data", "lm"):
            shutil.copytree(DEMO / stage, Path(workdir) / stage, dirs_exist_ok=True)
    if workdir == "runs/mine":  # first it fails the gate, then it goes on as README.md says
        failed = said(*words, f"{GATE}=1.0", status=2)
        assert not Path(workdir, "teacher").exists()
        (goes_on,) = spans(f"{GATE}=0")
        return failed + said(*words, *goes_on.split())
    return said(*words)


_POPULARITY = ("--config.teacher.name=popularity",)
_SASREC = ("--config.teacher.sasrec.max_length=16", "--config.teacher.optimizer.warmup_steps=2")
_P2REC = (
    *TINY,
    *(flag for flag in PARSING if "augment.way" not in flag),
    "--config.parse.seeds=1",
    "--config.augment.teachers=('sasrec',)",
)
FLAGS = {
    "runs/flan": (
        *TINY,
        *_POPULARITY,
        "--config.prompts.max_tokens=512",  # the storefront's tokenizer spells out what is said of movies
        "--config.distill.optimizer.warmup_steps=2",
        "--config.tune.optimizer.warmup_steps=2",
        "--config.tune.controls=()",
    ),
    "runs/minilm": (
        *TINY,
        *_SASREC,
        "--config.data.corpus=atomic",  # the same items, as if they had been fetched
        "--config.data.path=PATH/TO/ml-100k",
        "--config.data.edition=",
        "--config.data.category=",
        "--config.data.k_core=0",
        "--config.distill.tasks.ta.share=0.0",  # this tokenizer spells its words out
        "--config.distill.optimizer.warmup_steps=2",
        "--config.tune.optimizer.warmup_steps=2",
        "--config.tune.adalora.targets=('q',)",
        "--config.tune.controls=()",
        "--config.baselines.names=('popularity',)",
        "--config.baselines.hybrids=('delrec+teacher',)",
    ),
    "runs/mine": (*TINY, *_POPULARITY, "--config.prompts.max_title_tokens=0"),
    "runs/ml100k_sasrec": (*TINY, *_SASREC),
    "runs/p2rec_storefront": _P2REC,
    "runs/p2rec_ml100k": (
        *_P2REC,
        *_SASREC,
        "--config.lm.weights=google/flan-t5-small",
        "--config.augment.controls=()",
    ),
}
"""What follows README.md's own flags, by workdir."""
