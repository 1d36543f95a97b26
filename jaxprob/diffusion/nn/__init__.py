"""Networks for denoisers, plain Equinox modules: `net(x, c, cond=None, *, key=None)`.

They use nothing of diffusion: `c` is a number that measures the noise in `x`. Any other
callable of this form serves as well.

- `Sinusoids`, `Embedding`: the number and the condition become a vector.
- `Condition`: a condition that may be absent; a user's network reads it by
  `when_present`. `check_condition` rejects rows that a network does not have.
- `ClassCondition`, `VectorCondition`, `ImageCondition`, `SequenceCondition`: kinds of
  conditions, alone or in a dictionary.
- `Encoded`: a network whose condition goes through an encoder first.
- `ResidualMLP`: vectors.
- `Mixer2d`: images, as in Equinox's diffusion example. `AdaptiveMixer2d` reads the
  noise in its norms and takes conditions.
- `UNet`, `DiT`: signals, images and volumes, by convolutions and by attention.
- `SelfConditioned`: any of them, given its own estimate.
- `LowPrecision`: any of them in bfloat16, with its parameters in float32.

Each is a function of one example, whose `jax.vmap` is plain products of matrices.
"""

from ..._exports import public_names as _public_names
from ._embedding import Embedding as Embedding, Sinusoids as Sinusoids
from ._condition import (
    AbstractConditioned as AbstractConditioned,
    AbstractReader as AbstractReader,
    Condition as Condition,
    GuidedCondition as GuidedCondition,
    as_condition as as_condition,
    masked_condition as masked_condition,
    no_condition as no_condition,
    null_is_untrained as null_is_untrained,
    reader_of as reader_of,
    when_present as when_present,
)
from ._condition_checks import (
    check_condition as check_condition,
    check_given as check_given,
)
from ._entrance import (
    evaluate_network as evaluate_network,
    read_condition as read_condition,
    with_checked_tables as with_checked_tables,
)
from ._kinds import (
    AbstractKind as AbstractKind,
    ClassCondition as ClassCondition,
    ImageCondition as ImageCondition,
    SequenceCondition as SequenceCondition,
    VectorCondition as VectorCondition,
)
from ._parts import ConditionReader as ConditionReader
from ._encoded import Encoded as Encoded
from ._mlp import ResidualBlock as ResidualBlock, ResidualMLP as ResidualMLP
from ._mixing import Mixing as Mixing
from ._mixer import Mixer2d as Mixer2d, MixerBlock as MixerBlock
from ._adaptive_mixer import (
    AdaptiveMixer2d as AdaptiveMixer2d,
    AdaptiveMixerBlock as AdaptiveMixerBlock,
)
from ._attention import (
    CrossAttention as CrossAttention,
    SelfAttention as SelfAttention,
)
from ._unet_block import UNetBlock as UNetBlock
from ._unet import UNet as UNet
from ._dit import DiT as DiT, DiTBlock as DiTBlock
from ._self_conditioned import SelfConditioned as SelfConditioned
from ._low_precision import LowPrecision as LowPrecision

__all__ = _public_names(__name__)
