"""A trained segmenter made to fit a time: latency measured block by block, and a search for what it can do without.

May import: ``models``, ``checkpoint``, ``fusion``, ``deploy``, ``engine``, ``apis``, ``report``.
"""
