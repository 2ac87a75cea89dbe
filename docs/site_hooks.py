"""MkDocs hooks: pages that live beside docs/, and links from docs/ to files that are not pages.

CONTRIBUTING.md, CHANGELOG.md, SECURITY.md and launch/README.md become pages of the site. A link to any other file of the
repository (a config, a script) becomes its path, since the site does not have the file.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

BESIDE = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "launch/README.md": "launch.md",
}
"""Files of the repository that are pages, and where the site has them."""

_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
_ROOT = Path(__file__).parents[1]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that live beside docs/."""
    for source, place in BESIDE.items():
        files.append(File.generated(config, place, content=(_ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links to files beside docs/ into links to their pages, or into paths."""
    place = page.file.src_uri
    source = next((source for source, other in BESIDE.items() if other == place), f"docs/{place}")

    def moved(link: re.Match[str]) -> str:
        words, target, anchor = link[1], link[2], link[3] or ""
        if "://" in target or target.startswith("mailto:"):
            return link[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        inside = path.removeprefix("docs/") if path.startswith("docs/") else BESIDE.get(path)
        if inside is not None:
            return (
                f"[{words}]({posixpath.relpath(inside, posixpath.dirname(place) or '.')}{anchor})"
            )
        if not (_ROOT / path).exists():
            return link[0]  # stays dead, so that the strict build finds it
        return words if words.strip("`") == path else f"{words} (`{path}`)"

    return _LINK.sub(moved, markdown)
