"""Where a tensor of a Hugging Face model belongs in our tree: the package's tables, read the other way."""

import re


def our_path(names, name):
    """The path in the unrolled tree and whether the tensor is transposed there; None if the model has no such tensor."""
    known = names.canonical(name)
    for theirs, ours, transposed in names.table if known else ():
        literal = re.escape(theirs).replace(r"\{", "{").replace(r"\}", "}")
        fields = {field: f"(?P<{field}>{pattern})" for field, pattern in names.fields.items()}
        if found := re.fullmatch(literal.format(**fields), known):
            return tuple(ours.format(**found.groupdict()).split("/")), transposed
    return None
