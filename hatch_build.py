"""What the build puts into the package's metadata: the README without links that lead nowhere on a package index.

Its links are relative, for they lead to files of the repository. An index shows the page alone, and no address of the
repository is known here, so that there the links become plain text.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:)[^)]*\)")
"""A Markdown link, or a picture, whose address has no scheme."""
REMARK = "\n\nPages that this text names are in the repository and in the source archive, under `docs/`.\n"


def make_long_description(readme: str) -> str:
    """Return a README as a package index shows it: links to files are text, and pictures of files are left out."""
    return LINK.sub(lambda link: "" if link[1] else link[2], readme).rstrip() + REMARK


class ReadmeHook(MetadataHookInterface):
    """Sets the long description."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the field `readme`."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": make_long_description(text)}
