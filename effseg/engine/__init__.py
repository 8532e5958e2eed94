"""MMEngine's Runner as our tools drive it: configs in, quiet terminal, one clear error out."""
