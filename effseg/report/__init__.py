"""One file to judge a segmenter by: scores, confusions, images, the curve, and what was run.

May import: ``segmentors``, ``datasets``, ``engine``, ``apis``.
"""
