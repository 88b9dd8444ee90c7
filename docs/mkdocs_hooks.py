"""Make pages of README.md, ARCHITECTURE.md and CHANGELOG.md, which lie above ``docs/`` so that GitHub shows them.

Their links, and those of other pages to them, are rewritten for the site; on disk they stay as GitHub needs them.
"""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
PAGES = {"README.md": "index.md", "ARCHITECTURE.md": "architecture.md", "CHANGELOG.md": "changelog.md"}
_TARGET = re.compile(r"(?<=\]\()[^)\s]+(?=\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the three documents to the pages of the site."""
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Point links into the site, where ``docs/x.md`` is ``x.md`` and ``../README.md`` is ``index.md``."""
    return _TARGET.sub(lambda match: _on_the_site(match[0]), markdown)


def _on_the_site(target: str) -> str:
    path, mark, anchor = target.partition("#")
    path = path.removeprefix("../").removeprefix("docs/")
    return PAGES.get(path, path) + mark + anchor
