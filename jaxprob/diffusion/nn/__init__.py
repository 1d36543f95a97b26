"""Networks for denoisers, plain Equinox modules: `net(x, c, cond=None, *, key=None)`.

They know nothing of diffusion but that `c` is a number that says how much noise there
is in `x`, and can be used alone. Any other callable of this form serves as well.

- `Sinusoids`, `Embedding`: the number and the condition become a vector;
  `no_condition` is how a row of a batch says that it has none.
- `ResidualMLP`: vectors.
- `Mixer2d`: images, that of Equinox's diffusion example.
"""

from ._condition import no_condition as no_condition
from ._embedding import Embedding as Embedding, Sinusoids as Sinusoids
from ._mlp import ResidualBlock as ResidualBlock, ResidualMLP as ResidualMLP
from ._mixer import Mixer2d as Mixer2d, MixerBlock as MixerBlock
