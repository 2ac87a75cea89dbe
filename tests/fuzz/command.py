"""A command in this process: what it printed, or what the user is told instead."""

import contextlib
import io

from tiny_storefront import delrec
from verdicts import Mistake


def printed(*arguments: str) -> str:
    """Runs `delrec` and returns its standard output.

    Raises:
      Mistake: it ended with status 2 and one line.
    """
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            delrec(*arguments)
    except SystemExit as ended:
        said = err.getvalue().strip().splitlines()
        assert ended.code == 2, f"status {ended.code}: {said}"
        assert said and said[-1].startswith("delrec: "), f"no last word: {said}"
        raise Mistake(said[-1]) from None
    return out.getvalue()
