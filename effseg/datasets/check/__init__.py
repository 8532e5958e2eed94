"""The check of a data set: what would make a training go wrong, found before it starts.

From the config inwards: ``split`` finds the pairs of files, ``pair`` reads one of them, ``survey`` reads all and
compares them, ``findings`` is the table of what can be found, ``report`` what is printed, ``quick`` what every training
looks at first. It imports nothing of ours but the room above it.
"""
