"""What stands in the model's place in MMSegmentation's test loop: a network that gives labels alone, fused or not, or
an exported file.

May import: ``fusion``, ``deploy``.
"""
