"""From a file of weights to a network's tensors: read it without running it, translate its names, load all or nothing.

May import: ``models.attention_bias``.
"""
