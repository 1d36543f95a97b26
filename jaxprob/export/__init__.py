"""Models for programs without jaxprob, and folders for others to load.

1. **Compiled programs.** `export_predictive` and `export_sampler` make a `Program`: a
   function of any number of rows and a key, as StableHLO with its weights inside. Its
   file runs in any process that has JAX, and gives the same bits as here.
2. **Folders.** `save_pretrained` writes a model, its configuration and a model card in
   the layout of the Hugging Face Hub; `from_pretrained` reads such a folder. Nothing is
   sent or downloaded.

```python
program = export_predictive(posterior, likelihood, x)
program.save("predictive.stablehlo")
```

and elsewhere, without jaxprob:

    program = jax.export.deserialize(open("predictive.stablehlo", "rb").read())
    program.call(jax.random.key(0), x)          # {"mean": ..., "std": ...}

Files of programs need flatbuffers (`pip install "jaxprob[export]"`), here and there.
"""

from .._exports import public_names as _public_names
from ._program import Program as Program
from ._predictive import export_predictive as export_predictive
from ._sampler import export_sampler as export_sampler
from ._pretrained import (
    from_pretrained as from_pretrained,
    save_pretrained as save_pretrained,
)

__all__ = _public_names(__name__)
