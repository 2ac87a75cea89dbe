"""Every command that only reads a workdir, one after another in one process; prints the list that `delrec.load` gives, as JSON.

python reading.py WORKDIR OUTPUT CONFIG FLAG...
"""

import json
import sys
from pathlib import Path

import polars as pl

import delrec_jax
from delrec_jax.cli import main


def delrec(*arguments):
    sys.argv = ["delrec", *arguments]
    main()


def own_config(workdir, output):
    """A config file that says what the workdir was made with, for the commands that are given one."""
    file = output / "own.py"
    stored = json.loads((Path(workdir) / "config.json").read_text())
    file.write_text(
        "from ml_collections import ConfigDict\n\n\n"
        f"def get_config():\n    return ConfigDict({stored!r}, convert_dict=True)\n"
    )
    return f"--config={file}"


def read(workdir, output):
    recommender = delrec_jax.load(workdir)
    history = [recommender.titles[item] for item in (3, 1)]
    found = recommender.recommend(history, k=3)
    asked = output / "asked.parquet"
    pl.DataFrame({"history": [list(recommender.item_ids[2:4])]}).write_parquet(asked)
    here = f"--workdir={workdir}"
    made = own_config(workdir, output)
    delrec("recommend", here, f"--history={'; '.join(history)}", "-k", "3")
    delrec("rank", here, f"--input={asked}", f"--output={output / 'lists'}", "-k", "3")
    delrec("prompts", here, "--n=1", made)
    delrec("histories", here, f"--output={output / 'histories'}", made)
    for kind in ("hf", "adapter", "hub"):
        delrec("export", here, f"--format={kind}", f"--output={output / kind}")
    delrec("compare", workdir, f"--output={output / 'compared'}")
    return found.select("item", "score").to_dicts()


if __name__ == "__main__":
    rows = read(sys.argv[1], Path(sys.argv[2]))
    print(json.dumps(rows))
