"""The network in inference form: the same labels from the same weights for less work. Needs torch alone.

The package is also the function: ``fused = effseg.fuse(model, size=(512, 512))``, see :func:`effseg.fuse.segmentor.fuse`.
"""
import sys
from types import ModuleType

from .segmentor import FusedSegmentor, fuse

__all__ = ['FusedSegmentor', 'fuse']


class _CallablePackage(ModuleType):
    def __call__(self, model, size=(512, 512)) -> FusedSegmentor:
        return fuse(model, size)


sys.modules[__name__].__class__ = _CallablePackage
