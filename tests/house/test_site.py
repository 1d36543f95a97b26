"""The generated pages of the documentation; `make docs` builds the site itself."""

import ast
import inspect
import pathlib

import pytest

from docs._site import gallery, links, reference, sources
from docs._site.latex import rewritten
from docs._site.names import PACKAGES, page_of_literal, public_names
from docs._site.signatures import signature_of
from jaxprob import bnn, diffusion, metrics

from . import test_names

ROOT = pathlib.Path(__file__).parents[2]
NAMES = {item.full: item for package in PACKAGES for item in public_names(package)}


def test_every_package_has_a_page():
    assert set(PACKAGES) == set(test_names.PACKAGES) == set(reference.TITLES)


def test_names_that_differ_in_case_alone_have_no_common_file():
    # macOS and Windows would write one page over the other.
    pages = [item.page.lower() for item in NAMES.values()]
    assert sorted(pages) == sorted(set(pages))


def test_a_page_has_signature_docstring_and_methods_of_its_name():
    page = reference.name_page(NAMES["jaxprob.bnn.DeepEnsemble"])
    assert "{py:class} DeepEnsemble(" in page
    assert inspect.getdoc(bnn.DeepEnsemble).partition("\n")[0] in page
    assert "{py:method} posterior(state: " in page
    # The override has no docstring: it has that of the abstract class.
    overridden = inspect.getdoc(bnn.AbstractInference.posterior)
    assert overridden.partition("\n")[0] in page


def test_every_page_begins_with_the_sentence_of_its_docstring():
    undocumented = [name for name, item in NAMES.items() if not item.summary]
    assert not undocumented
    assert NAMES["jaxprob.bnn.Likelihood"].summary.startswith("`likelihood(output)")


class Pair:
    """Stand-in with a written constructor."""

    def __init__(self, x: float, /, y: list[str] = ["a"], *, z=len):  # noqa: B006
        self.x, self.y, self.z = x, y, z


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (
            bnn.KnownNoise.__call__,
            "(self, x: Any, *, key: PRNGKey | None = None)"
            " -> tuple[Float[Array, '*out'], Float[Array, '*out']]",
        ),
        (diffusion.nn.Sinusoids.__call__, "(self, c: Float[Array, ''])"),
        (Pair, "(x: float, /, y: list[str] = ['a'], *, z=len)"),
        (metrics.mae, "(y: "),
        (bnn.MeanFieldVI, "(log_joint: LogJoint, optimizer: optax.Grad"),
        (bnn.MeanFieldVI, "*, random: Where | None = None, point: Where = True"),
    ],
)
def test_a_signature_reads_as_in_the_source(value, text):
    assert text in signature_of(value)


def parameters_of(value):
    try:
        return inspect.signature(value).parameters.values()
    except ValueError:  # a class in C
        return None


WITH_PARAMETERS = {
    name: item.value
    for name, item in NAMES.items()
    if reference.kind_of(item.value) != "data" and parameters_of(item.value) is not None
}


def test_a_signature_names_all_parameters_in_order():
    assert len(WITH_PARAMETERS) > 400
    for name, value in WITH_PARAMETERS.items():
        written, parameters = written_parameters(value), parameters_of(value)
        assert written == [(p.name, p.kind) for p in parameters], name


def written_parameters(value):
    """Return names and kinds in the text of a signature, which is Python."""
    given = ast.parse(f"def f{signature_of(value)}: ...").body[0].args
    return [
        *((a.arg, inspect.Parameter.POSITIONAL_ONLY) for a in given.posonlyargs),
        *((a.arg, inspect.Parameter.POSITIONAL_OR_KEYWORD) for a in given.args),
        *((a.arg, inspect.Parameter.VAR_POSITIONAL) for a in [given.vararg] if a),
        *((a.arg, inspect.Parameter.KEYWORD_ONLY) for a in given.kwonlyargs),
        *((a.arg, inspect.Parameter.VAR_KEYWORD) for a in [given.kwarg] if a),
    ]


@pytest.mark.parametrize(
    ("text", "docname", "page"),
    [
        ("bnn.MAP", "docs/inference", "reference/jaxprob.bnn/MAP"),
        ("MAP", "docs/inference", "reference/jaxprob.bnn/MAP"),
        ("jaxprob.fit", "index", "reference/jaxprob/fit"),
        ("jaxprob.metrics", "index", "reference/jaxprob.metrics/index"),
        ("ExpAB(18)", "docs/diffusion", "reference/jaxprob.diffusion/ExpAB"),
        ("nn.UNet", "docs/diffusion", None),
        ("diffusion.nn.UNet", "index", "reference/jaxprob.diffusion.nn/UNet"),
        ("sample", "docs/inference", None),
        (
            "sample",
            "reference/jaxprob.diffusion/DDIM",
            "reference/jaxprob.diffusion/sample",
        ),
        ("no_such_name", "index", None),
    ],
)
def test_a_literal_is_linked_where_it_can_mean_one_name(text, docname, page):
    assert page_of_literal(text, docname) == page


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"-\tfrac12 \beta_t", r"-\tfrac{1}{2} \beta_t"),
        (r"\frac 1 n \sum", r"\frac{1}{n} \sum"),
        (r"\frac{1}2 + \frac1{K - 1}", r"\frac{1}{2} + \frac{1}{K - 1}"),
        (r"\frac{\mu}{2} x", r"\frac{\mu}{2} x"),
        (r"\Big[0, \dots, L\bigr]", r"[0, \ldots, L]"),
    ],
)
def test_formulas_in_the_dialect_of_the_translator(text, expected):
    assert rewritten(text) == expected


def test_bare_addresses_become_links():
    text = reference.prepared(
        "2015, https://a.org/b; [c](https://d.org), <https://e.org>."
    )
    assert text == "2015, <https://a.org/b>; [c](https://d.org), <https://e.org>."


def test_every_guide_and_example_is_in_the_sidebar():
    listed = {name for names in sources.guides().values() for name in names}
    assert {f"docs/{p.stem}" for p in (ROOT / "docs").glob("*.md")} <= listed
    assert {path.stem for path in gallery.RECORDS.glob("*.*")} <= {
        path.stem for path in gallery.examples()
    }


def test_links_to_files_become_links_to_their_pages(tmp_path):
    sources.put(
        tmp_path / "a.md", "[a](examples/01_x.py) [b](examples) [c](../README.md#d)"
    )
    expected = "[a](examples/01_x.md) [b](examples/index.md) [c](../index.md#d)"
    assert (tmp_path / "a.md").read_text() == expected


def test_progress_bars_are_no_figures():
    bars = "GPU available: False\n\x1b[1mEpoch 3\x1b[0m train_loss: 1.0\n   1.3  \n"
    printed = f"one  2.0\n{bars}\nRMSE: 2\n"
    assert gallery.figures(printed) == "one  2.0\n\nRMSE: 2\n"


def test_broken_links_are_found(tmp_path):
    (tmp_path / "b.html").write_text('<h1 id="here">b</h1>')
    (tmp_path / "a.html").write_text(
        '<a href="b.html#here"></a><a href="https://else.org/x">elsewhere</a>'
        '<a href="b.html#gone"></a><a href="c.html"></a><img src="d.png">'
        '<a href="#top"></a><script src="https://cdn.org/x.js"></script>'
    )
    assert list(links.broken(tmp_path)) == [
        "a.html loads https://cdn.org/x.js",
        "a.html names b.html#gone",
        "a.html names c.html",
        "a.html names d.png",
        "a.html names #top",
    ]
