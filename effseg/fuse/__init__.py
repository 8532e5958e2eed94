"""The network in inference form: the same labels from the same weights for less work. Needs torch alone."""
