"""The data, the network and the tools of the engine's tests, and a browser."""

from browser import browser  # noqa: F401
from engine.conftest import checkpoint, scenes, segmentor, tool  # noqa: F401
