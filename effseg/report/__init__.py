"""One file to judge a segmenter by: scores, confusions, images, the curve, and what was run.

What cannot be used is an error of :mod:`effseg.errors`.

May import: ``segmentors``, ``datasets``, ``engine``, ``apis``.
"""
