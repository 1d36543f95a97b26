"""Formulas as MathML, which browsers draw without a script.

docutils translates LaTeX; a macro that it does not know is a warning, which is an error
of the build.
"""

import re

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

from .latex import rewritten

LOGGER = logging.getLogger(__name__)


def formula(self, node: nodes.Element, *, block: bool) -> None:
    try:
        markup = tex2mathml(rewritten(node.astext()), as_block=block)
    except MathError as error:
        LOGGER.warning("formula: %s in %s", error, node.astext(), location=node)
        markup = node.astext()
    markup = re.sub(r">\s+<", "><", markup)
    self.body.append(f'<div class="formula">{markup}</div>' if block else markup)
    raise nodes.SkipNode


def inline(self, node: nodes.Element) -> None:
    formula(self, node, block=False)


def display(self, node: nodes.Element) -> None:
    formula(self, node, block=True)


def setup(app) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
