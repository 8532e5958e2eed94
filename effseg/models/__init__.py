"""The networks in training form, one file per architecture and its blocks, and the offset table of the attention bias.

``effseg`` registers the networks with MMSegmentation; the offset table needs torch alone. A block's ``fuse()`` returns
layers of ``fusion``, and a backbone initialises itself by ``checkpoint``: those two stand below.

May import: ``checkpoint``, ``fusion``.
"""

import importlib

_NETWORKS = {
    'EfficientFormer': 'efficientformer',
    'EfficientFormerV2': 'efficientformer_v2',
    'DepthwiseSegformerHead': 'heads',
    'EfficientViTHead': 'heads',
}
__all__ = ['DepthwiseSegformerHead', 'EfficientFormer', 'EfficientFormerV2', 'EfficientViTHead']


def __getattr__(name: str):
    # on demand: the fused network reads the attention bias where MMSegmentation is not installed
    if name in _NETWORKS:
        return getattr(importlib.import_module(f'.{_NETWORKS[name]}', __name__), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
