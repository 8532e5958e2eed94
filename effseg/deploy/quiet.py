"""Silences converters, which print pages of progress that no user can act on; what they raise is heard."""

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
