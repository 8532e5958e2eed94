"""A trained network beside the one in training: its logits teach a segmenter, its features a backbone.

Registered on import, for configs that name them. The teacher is no part of the model that trains: it is neither saved
nor trained, and what is saved loads where no teacher is.

May import: ``checkpoint``, ``engine``.
"""

from ..stack import installed

if installed():
    from . import features, logits  # noqa: F401, to be found by name
