"""What a training is made of besides MMEngine's: hooks, samplers, loops and data sets, registered on import, and the
tools' way from a config to a Runner.

May import: ``checkpoint``, ``datasets``.
"""

from ..stack import installed

if installed():
    from ..datasets import transforms  # noqa: F401, to be found by name
    from . import checkpoint_hook, datasets, ema, hooks, loops, optim, progress, samplers  # noqa: F401
