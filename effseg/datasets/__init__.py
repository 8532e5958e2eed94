"""Data: the small built-in set of drawn scenes.

Its classes are plain metainfo in configs/_base_/datasets/demo.py: MMSegmentation's BaseSegDataset reads it as it is.
"""
