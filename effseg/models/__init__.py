"""The networks, in training form. Importing this registers them with MMSegmentation."""
from .efficientformer import EfficientFormer

__all__ = ['EfficientFormer']
