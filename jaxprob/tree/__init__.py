"""Trees by path: choose leaves, freeze them, cut a tree in two, swap parts of it.

Every function takes a `where`, which says which leaves are meant:

- a **path**, `"layers.0.weight"`; the path of a part means all leaves of that part;
  `*` stands for anything, `"*.bias"`;
- a **type** of module, `eqx.nn.Linear`: all leaves of modules of that type;
- a **predicate** `(path, leaf) -> bool`;
- a **tree of bools** like the model (or a prefix of it), as in `eqx.partition`;
- `True` or `False`: all or none;
- a **tuple** of these: whatever one of them means.

Only inexact (floating or complex) arrays are ever chosen: nothing else has a gradient.
Running statistics, the leaves of an `eqx.nn.State`, are never chosen: they are no
parameters.
"""

from .._exports import public_names as _public_names
from ._paths import get as get, paths as paths
from ._select import freeze as freeze, partition as partition, select as select
from ._swap import swap as swap
from ._activations import activations as activations
from ._vector import count as count, ravel as ravel
from ._summary import summary as summary

__all__ = _public_names(__name__)
