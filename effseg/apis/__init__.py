"""What the tools call: one function each, which takes paths and options and raises errors of :mod:`effseg.errors`.

``opening`` is the one way to a segmenter, for the tools, the side rooms and ``effseg.open``.

May import: ``checkpoint``, ``fusion``, ``deploy``, ``segmentors``, ``datasets``, ``engine``.
"""
