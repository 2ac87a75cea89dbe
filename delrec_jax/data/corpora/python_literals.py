"""Selected fields of a dict that was written with Python's `repr`, read without running anything.

The older dumps of McAuley's lab have one such dict per line. `ast.literal_eval` reads them safely but builds a syntax tree
of the entire line, review text included: 185 microseconds per line against 34 here. One regular expression, strict enough
to accept only what `literal_eval` accepts, picks out the fields that are wanted; any other line is left to `literal_eval`.
"""

import ast
import re
from collections.abc import Callable, Sequence
from typing import Any

_ESCAPE = (
    r"\\(?:[\\'\"abfnrtv]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U00(?:0[0-9a-fA-F]|10)[0-9a-fA-F]{4})"
)
_STRING = (
    rf"u?(?:'[^'\\\r\n\0]*+(?:{_ESCAPE}[^'\\\r\n\0]*+)*+'"
    rf'|"[^"\\\r\n\0]*+(?:{_ESCAPE}[^"\\\r\n\0]*+)*+")'
)
_SCALAR = (
    rf"(?:{_STRING}|-?(?:0|[1-9][0-9]{{0,17}}+)(?:\.[0-9]++)?+(?:e[-+]?[0-9]++)?+"
    r"|True|False|None)"
)
_NEXT = r"(?:, |(?=[\]}]))"


def field_reader(names: Sequence[str]) -> Callable[[str], dict[str, Any]]:
    """Makes a function that reads some fields of a dict literal.

    Args:
      names: Keys wanted, each a plain word.

    Returns:
      A function of one text, such as "{u'id': u'7', 'tags': ['a', 'b']}", that returns those of
      the named fields that the dict has, with the values `ast.literal_eval` gives. It raises
      ValueError if the text is not the literal of a dict.
    """
    pattern = _dict_pattern(names)

    def read(text: str) -> dict[str, Any]:
        match = pattern.fullmatch(text)
        if match is None:
            record = _evaluate(text)
            return {name: record[name] for name in names if name in record}
        found = zip(names, match.groups(), strict=True)
        return {name: _value(literal) for name, literal in found if literal is not None}

    return read


def _dict_pattern(names: Sequence[str]) -> re.Pattern[str]:
    """A whole dict of words to values; a key written twice counts last, as in Python."""
    value = _nested(_nested(_SCALAR))
    wanted = "|".join(rf"u?'{name}': (?P<{name}>{value})" for name in names)
    other = rf"u?'\w++': {value}"
    return re.compile(rf"\{{(?:(?:{wanted}|{other}){_NEXT})*+\}}")


def _nested(value: str) -> str:
    """The pattern of a value, or of a list or dict of such values."""
    items = rf"\[(?:{value}{_NEXT})*+\]"
    pairs = rf"\{{(?:{_STRING}: {value}{_NEXT})*+\}}"
    return rf"(?:{value}|{items}|{pairs})"


def _value(literal: str) -> Any:
    if literal.endswith("'") and "\\" not in literal:
        return literal[literal.index("'") + 1 : -1]
    return ast.literal_eval(literal)


def _evaluate(text: str) -> dict[str, Any]:
    try:
        record = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(f"not a Python literal: {error}") from error
    if not isinstance(record, dict):
        raise ValueError("not a dict")
    return record
