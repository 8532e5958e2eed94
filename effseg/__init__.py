"""EfficientFormer semantic segmentation for MMSegmentation, from training to the phone.

Importing this package registers its models with MMSegmentation, where one is installed; that is all a config needs
(``custom_imports = dict(imports=['effseg'])``). Without MMSegmentation it still fuses models, and without torch it
still runs exported files.
"""

import importlib

from . import stack

__version__ = '0.1.0'

_SUBPACKAGES = ('apis', 'checkpoint', 'datasets', 'deploy', 'engine', 'fusion', 'models', 'segmentors')

if stack.installed():
    stack.prepare()
    from .checkpoint import mmengine_loader
    from .models import efficientformer, efficientformer_v2, heads  # noqa: F401, what they register is their use

    mmengine_loader.take_over()


def open(config, weights=None, fused=False, cfg_options=None, device=None):  # noqa: A001, the verb of the package
    """A segmenter that labels images: ``effseg.open(config, weights)(image)``; see
    :func:`effseg.apis.opening.open_segmenter`."""
    stack.require()
    from .apis.opening import open_segmenter

    return open_segmenter(config, weights, fused, cfg_options, device)


def fuse(model, size=(512, 512)):
    """The fused form of a trained segmenter; see :func:`effseg.fusion.segmentor.fuse`."""
    stack.require_packages('torch')
    from .fusion.segmentor import fuse

    return fuse(model, size)


def export(config, checkpoint, to=None, **options):
    """Writes a segmenter as a file for a runtime and proves it; see :func:`effseg.apis.export.export`."""
    stack.require()
    from .apis.export import export

    return export(config, checkpoint, to, **options)


def __getattr__(name: str):
    # on demand: running an exported file must not import torch
    if name in _SUBPACKAGES:
        if name != 'deploy':
            stack.require_packages('torch')
        return importlib.import_module(f'.{name}', __name__)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
