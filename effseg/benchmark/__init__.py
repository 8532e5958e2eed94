"""Segmenters side by side, timed in turn in one process: MMSegmentation's own, fused networks, exported files.

Every figure is a median of interleaved runs; what else the machine does meets all contestants alike, so their ratios
hold better than their milliseconds. What cannot be used is an error of :mod:`effseg.errors`.

May import: ``apis``, ``datasets``, ``demo``, ``deploy``, ``engine``, ``fusion``.
"""
