"""Latency, memory and work, side by side."""
