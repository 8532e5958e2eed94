"""Turns labels, as labelling tools write them, into the images and label maps that MMSegmentation reads.

``source`` says what all formats are read into; each format has a file; ``drawing`` makes label maps of it, ``split``
divides them, and :func:`effseg.apis.convert.convert` writes them.
"""
