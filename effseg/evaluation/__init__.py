"""Scores and latencies: of an artifact by MMSegmentation's own metric, of networks and artifacts side by side."""
