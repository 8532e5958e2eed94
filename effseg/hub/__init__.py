"""Trained models in the layout of the Hugging Face Hub: ``hub.save``, ``hub.load`` and ``hub.push``.

May import: ``checkpoint``, ``datasets``, ``apis``, ``report``.
"""

from .model import CARD, CONFIG, WEIGHTS, load, push, save

__all__ = ['CARD', 'CONFIG', 'WEIGHTS', 'load', 'push', 'save']
