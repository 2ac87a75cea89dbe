"""What `delrec --help` and `delrec COMMAND --help` print, and the names of all commands."""

from delrec_jax.command_flags import FLAGS
from delrec_jax.workdir import stage_table

STAGE_NAMES = tuple(stage for stage in stage_table.ALL if stage != "baseline")
COMMANDS = (
    *("run", *STAGE_NAMES, "baseline", "histories", "prompts", "recommend", "rank", "probe"),
    *("app", "export", "push", "plan", "study", "compare"),
)

USAGE = f"""delrec: distill a sequential recommender into a language model, or improve one with the model's item embeddings

  delrec run       --config=configs/storefront.py --workdir=runs/storefront   every stage of the config's method, in order
  delrec STAGE     --config=FILE --workdir=DIR      one of {", ".join(STAGE_NAMES)}
  delrec baseline  --config=FILE --workdir=DIR      prepare, teach, and rank teacher, baselines and hybrids: no language model
  delrec histories --config=FILE --workdir=DIR --output=DIR   which lists teacher.name=lists needs of another system
  delrec prompts   --config=FILE --workdir=DIR --n=2          print complete examples of each task
  delrec recommend --workdir=DIR --history="Title; Title" -k 10
  delrec rank      --workdir=DIR --input=histories.parquet --output=DIR -k 10 [--system=ease] [--by=title]   lists in bulk
  delrec app       --workdir=DIR [--port=7860]      a page to try the run in a browser (pip install ".[app]")
  delrec probe     --workdir=DIR [--prompt_from=OTHER]        what the soft prompt learned, in a few tables

  delrec export    --workdir=DIR --format=hf --output=DIR     the tuned model for other programs: hf, peft, lora or adapter
  delrec export    --workdir=DIR --format=hub --output=DIR [--titles=no] [--license=ID] [--base=NAME]   a folder to share
  delrec push      --workdir=DIR --repo=USER/NAME [--private]   the same, put on the Hugging Face hub (or --folder=DIR)
  delrec recommend --from=USER/NAME [--revision=TAG] [--base=DIR] --history="Title; Title"   ask it there; also rank

  delrec plan      --config=FILE --devices=64 [--chip=h100] [--compile=cpu]   shardings and memory, without touching a device

  delrec study     --config=configs/studies/NAME.py[:BASE] --workdir=DIR [--jobs=2] [--shard=0/4]   arms with seeds
                   [--dry [--chip=h100 --devices=8]]   only say what would run, what is shared, and what a run needs
  delrec study     --config=configs/studies/search.py --workdir=DIR --search=40 [--jobs=2]   search the ranges, by validation
  delrec compare   RUN [RUN ...] [--output=DIR]   tables and paired tests of finished runs; RUN is WORKDIR or LABEL=WORKDIR
                   [--reference=LABEL_OR_SYSTEM] [--systems=delrec,hybrid*] [--metric=NDCG@10] [--protocol=full]

  --config=FILE:NAME   an ablation that the file offers, for example configs/storefront.py:no_anchor
  --config.KEY=VALUE   change a value of the config, for example --config.distill.loop.steps=300
  --update             run the stages of a workdir again that a changed config affects
  --workdir=gs://BUCKET/PATH [--cache=DIR]   a workdir in a bucket, with a copy in DIR (pip install ".[gcs]")
"""


def help_of(command: str) -> str:
    """Returns the lines of `USAGE` about one command, and the flags that it reads beside those of all."""
    name = "STAGE" if command in STAGE_NAMES else command
    paragraphs = [part for part in USAGE.split("\n  delrec ")[1:] if part.split()[0] == name]
    lines = ["  delrec " + part.rstrip() for part in paragraphs]
    own = [flag for flag in FLAGS if command in flag.commands]
    told = [f"  --{flag.name:<12} {flag.meaning} (default: {flag.default!r})" for flag in own]
    common = USAGE[USAGE.index("  --config=FILE:NAME") :].rstrip()
    if not any(flag.name == "update" for flag in own):
        common = "\n".join(line for line in common.splitlines() if "--update" not in line)
    return "\n".join([*lines, *([""] if told else []), *told, "", common])
