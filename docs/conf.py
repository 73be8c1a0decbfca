"""Settings of the documentation site: Sphinx with MyST pages and the Furo theme, built without a network."""

from importlib.metadata import version as find_version

project = "Cowbird"
author = "The Cowbird authors"
project_copyright = "The Cowbird authors"
version = release = find_version("cowbird")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
nitpicky = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = "Cowbird"
