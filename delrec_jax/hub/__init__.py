"""Finished runs as folders that are shared through the Hugging Face hub, and read back by safetensors and JSON alone.

    delrec export --workdir=DIR --format=hub --output=FOLDER     writes such a folder
    delrec push   --workdir=DIR --repo=USER/NAME [--private]     writes and uploads one (or --folder=FOLDER)
    delrec recommend --from=USER/NAME --history="Title; Title"   asks one; in Python `delrec_jax.load("USER/NAME")`

What such a folder holds is in `folder`; nothing in it is a pickle or code, and nothing of either kind is fetched or opened.

**Titles travel.** A language model reads titles, so those of the whole catalogue are part of the folder, with the ids of the
items; interactions and users are not. Whether the data's terms let you share titles is for you to find out. With `--titles=no`
the folder has ids and a hash of the titles, and whoever opens it has to bring the titles (`load(..., titles=...)`).
"""
