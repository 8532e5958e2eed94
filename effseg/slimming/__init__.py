"""A trained segmenter made to fit a time: latency measured block by block, and a search for what it can do without.

What cannot be used is an error of :mod:`effseg.errors`.

May import: ``models``, ``checkpoint``, ``fusion``, ``deploy``, ``engine``, ``apis``, ``report``.
"""
