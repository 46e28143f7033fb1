"""Sphinx configuration. `make docs` builds the pages into docs/_build/html, offline, with warnings as errors."""

from hub import __version__

project = "Integration Hub"
author = "The Integration Hub authors"
copyright = "the Integration Hub authors"
version = release = __version__

extensions = ["myst_parser"]
exclude_patterns = ["_build"]
nitpicky = True

myst_enable_extensions = ["deflist", "colon_fence"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"Integration Hub {__version__}"
html_static_path = ["_static"]
html_copy_source = False
html_show_sphinx = False
