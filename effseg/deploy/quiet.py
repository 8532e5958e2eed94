"""Converters that print pages of progress, and nothing a user can act on, are heard only when they raise."""

import contextlib
import io
import logging
import warnings


@contextlib.contextmanager
def quiet():
    """Silences prints, warnings and logging below ERROR of the code inside; exceptions pass."""
    disabled = logging.root.manager.disable
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter('ignore')
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(disabled)
