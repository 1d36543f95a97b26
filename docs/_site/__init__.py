"""The site of the documentation: `python -m docs._site` builds it, offline.

    guides, docstrings, examples -> Markdown pages (`sources`) -> Sphinx -> `links`

Docstrings are Markdown, so that each public name becomes a Markdown page (`reference`)
and one parser, MyST, reads everything. Formulas become MathML (`mathml`): a page needs
no script and no network to show them.
"""
