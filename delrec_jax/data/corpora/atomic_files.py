"""The header of RecBole's atomic files, and their text format.

Format: tab-separated UTF-8 without quoting, the first line naming the columns as `field:type` with the types token,
token_seq, float and float_seq.
"""

from pathlib import Path

from delrec_jax.data.corpora.text_table import TextTable, read_text_table, shown
from delrec_jax.errors import UserError

_TYPES = ("token", "token_seq", "float", "float_seq")


def read_atomic_table(path: Path) -> TextTable:
    """Reads a `.inter` or `.item` file as text columns named by field, without the types.

    Raises:
      UserError: as `read_text_table`, or for a header that does not name fields with types.
    """
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; data.path must name a folder NAME with NAME.inter and NAME.item in it, or their common "
            "prefix"
        )
    return read_text_table(path, parse_header=_field_names)


def _field_names(name: str, cells: list[str]) -> list[str]:
    names = []
    for cell in cells:
        field, colon, kind = cell.strip().rpartition(":")
        if not colon or not field or kind not in _TYPES:
            example = field or cell.strip()[:20] or "item_id"
            raise UserError(
                f"{name}, line 1, column {shown(cell)}: a header's field is NAME:TYPE with TYPE one of {', '.join(_TYPES)}; "
                f"write for example '{example}:token'"
            )
        names.append(field)
    return names
