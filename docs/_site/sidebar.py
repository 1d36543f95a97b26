"""A sidebar that is open at the current page alone.

The theme asks for the whole table of contents on each page: 500 entries on 500 pages
are most of a build, and nine tenths of each page.
"""


def close_others(app, pagename, templatename, context, doctree) -> None:
    whole = context["toctree"]
    context["toctree"] = lambda **settings: whole(**{**settings, "collapse": True})


def setup(app) -> dict[str, bool]:
    app.connect("html-page-context", close_others, priority=400)  # the theme's is 500
    return {"parallel_read_safe": True, "parallel_write_safe": True}
