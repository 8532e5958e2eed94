"""Segmenters side by side, timed in turn in one process: MMSegmentation's own, fused networks, exported files.

Every figure is a median of interleaved runs; what else the machine does meets all contestants alike, so their ratios
hold better than their milliseconds.

May import: ``apis``, ``datasets``, ``demo``, ``deploy``, ``engine``, ``fusion``.
"""
