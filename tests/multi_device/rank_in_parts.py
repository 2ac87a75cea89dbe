"""`delrec rank` with small parts and weights whose loading all processes agree on; tells which parts this one writes."""

import sys
from unittest import mock

from delrec_jax import cli
from delrec_jax.distributed import wait_for_all
from delrec_jax.serving import bulk
from delrec_jax.workdir import base_model

PART = 20


def main():
    write, load = bulk._write, base_model.load_params

    def told(file, found):
        print(f"wrote {file.name}", file=sys.stderr)
        write(file, found)

    def agreed(*asked):  # as `check_unchanged` does with pretrained weights
        wait_for_all()
        return load(*asked)

    with (
        mock.patch.multiple(bulk, PART=PART, _write=told),
        mock.patch.object(base_model, "load_params", agreed),
    ):
        cli.main()


if __name__ == "__main__":
    main()
