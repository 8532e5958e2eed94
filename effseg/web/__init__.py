"""An ONNX artifact as a page that segments in the browser: static files, nothing from elsewhere.

May import: ``deploy``.
"""
