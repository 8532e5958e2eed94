"""What the tools call: one function each, which takes paths and options and raises errors of :mod:`effseg.errors`."""
