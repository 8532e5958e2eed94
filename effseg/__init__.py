"""EfficientFormer semantic segmentation for MMSegmentation, from training to the phone.

Importing this package registers its models with MMSegmentation, where one is installed; that is all a config needs
(``custom_imports = dict(imports=['effseg'])``). Without MMSegmentation it still fuses, exports and runs models.
"""
import importlib

from . import stack

__version__ = '0.1.0'

_SUBPACKAGES = ('datasets', 'deploy', 'evaluation', 'fuse', 'models')

if stack.installed():
    stack.prepare()
    from . import models
    from .engine import reader
    reader.take_over()


def __getattr__(name: str):
    # on demand: running an exported file must not import torch
    if name in _SUBPACKAGES:
        return importlib.import_module(f'.{name}', __name__)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
