"""How the Python blocks of docstrings and documents are run, with few steps."""

import re

import jax

from . import scene

FENCE = re.compile(r"```python\n(.*?)```", re.DOTALL)

SHORTER = {
    r"num_epochs=\d+": "num_epochs=1",
    r"max_epochs=\d+": "max_epochs=1",
    r"Trainer\(callbacks=\[Save": "Trainer(max_epochs=1, callbacks=[Save",
    r"num_steps=\d[\d_]*": "num_steps=2",
    r"num_warmup=[1-9]\d*": "num_warmup=50",
    r"num_draws=[\d *]+": "num_draws=8",
    r"num_null=\d+": "num_null=2",
    r"num_leapfrog=\d+": "num_leapfrog=2",
    r"NUTS\(log_joint\)": "NUTS(log_joint, num_warmup=50, num_draws=8)",
    r"BNN(\w+)\((effort=.fast., )?((noise=.constant., )?random)": (
        r"BNN\1('map', num_steps=20, \3"
    ),
    r"num_samples=\d{4,}": "num_samples=200",
    r"UNet\(\(2, 8, 8\)": "UNet((2, 8, 8), widths=(4,)",
    r"length=\d+": "length=8",
    r"thin=\d+": "thin=1",
    r"\(1, 28, 28\)": "(1, 8, 8)",
    r"\(3, 32, 32\)": "(3, 8, 8)",
    r"attention_at=\(7,\)": "attention_at=(4,)",
}
"""What takes long in earnest, and what a test needs of it."""


def run(codes: list[str], names: scene.Names) -> None:
    """Run blocks in order, in one scope, as a user without strict promotion does."""
    scope: dict = {}
    for code in map(shortened, codes):
        scene.bind(code, names, scope)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            exec(code, scope)


def shortened(code: str) -> str:
    for pattern, short in SHORTER.items():
        code = re.sub(pattern, short, code)
    return code
