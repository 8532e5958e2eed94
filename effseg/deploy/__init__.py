"""The network as a file: export it, prove it, run it.

``load(path)(image)`` needs numpy and the file's runtime; torch and MMSegmentation are imported by the exporting half
only.

May import: ``fusion``.
"""

from ..stack import require_packages
from .artifact import Artifact, load
from .host import label_map
from .spec import Spec

__all__ = ['Artifact', 'Spec', 'export', 'label_map', 'load']


def __getattr__(name: str):
    # on demand: exporting takes torch, running does not
    if name == 'export':
        require_packages('torch')
        from .exporting import export

        return export
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
