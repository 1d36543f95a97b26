"""Configuration of Sphinx."""

from jaxprob._version import __version__

project = html_title = "jaxprob"
author = "The jaxprob authors"
release = version = __version__
extensions = [
    "myst_parser",
    "docs._site.mathml",
    "docs._site.name_links",
    "docs._site.sidebar",
]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
html_math_renderer = "mathml"
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
python_maximum_signature_line_length = 60
python_display_short_literal_types = True
toc_object_entries = True
toc_object_entries_show_parents = "hide"
add_module_names = False
pygments_style = "default"
pygments_dark_style = "a11y-dark"
html_show_copyright = False
