"""Data on their way to the network: image files and label maps as a person sees them, and the check of a data set.

In here: what reads or judges files of a data set. Not in here: what is drawn when (``engine``), and a data set's
classes, which are metainfo in its config and read by MMSegmentation's BaseSegDataset.

May import: nothing.
"""
