"""The built-in set of drawn scenes: ``python -m effseg.demo data/demo``. Its classes are metainfo in
configs/_base_/datasets/demo.py.

May import: ``apis``.
"""
