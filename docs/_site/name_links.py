"""Links from each public name in a text to its page."""

from docutils import nodes

from .names import page_of_literal


def link_names(app, doctree: nodes.document, docname: str) -> None:
    """Make a link of each literal that is a public name, outside of its own page."""
    for literal in list(doctree.findall(nodes.literal)):
        parent = literal.parent
        if isinstance(parent, nodes.reference | nodes.title):
            continue
        page = page_of_literal(literal.astext(), docname)
        if page is None or page == docname:
            continue
        address = app.builder.get_relative_uri(docname, page)
        link = nodes.reference(
            "", "", literal.deepcopy(), internal=True, refuri=address
        )
        parent.replace(literal, link)


def setup(app) -> dict[str, bool]:
    app.connect("doctree-resolved", link_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
