"""The network in inference form: the same labels from the same weights for less work. Needs torch alone.

May import: ``models.attention_bias``.
"""

from .segmentor import FusedSegmentor, fuse

__all__ = ['FusedSegmentor', 'fuse']
