"""One file to judge a segmenter by: scores, confusions, pictures, the curve, and what was run."""
