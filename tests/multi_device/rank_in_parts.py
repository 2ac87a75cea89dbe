"""`delrec rank` with small parts; tells which ones this process writes."""

import sys
from unittest import mock

from delrec_jax import cli
from delrec_jax.serving import bulk

PART = 20


def main():
    write = bulk._write

    def told(file, found):
        print(f"wrote {file.name}", file=sys.stderr)
        write(file, found)

    with mock.patch.object(bulk, "PART", PART), mock.patch.object(bulk, "_write", told):
        cli.main()


if __name__ == "__main__":
    main()
