"""The whole look at a config's data, before a training that takes days."""

import time

from ..datasets.check.findings import ERROR
from ..datasets.check.report import table, write_json
from ..datasets.check.split import find_splits
from ..datasets.check.survey import compare, survey
from ..engine.config import load_config
from ..errors import ConfigError


def check_data(
    config: str,
    split: str | None = None,
    workers: int | None = None,
    json_file: str | None = None,
    cfg_options: dict | None = None,
) -> bool:
    """Reads every image and label map of a config's data sets, and prints what is wrong with them.

    Args:
        config, cfg_options: path, or ``effseg::NAME.py``, and overrides of it.
        split: ``'train'``, ``'val'`` or ``'test'``; all of them when None.
        workers: processes; one per core when None.
        json_file: where to write the report for programs.

    Returns:
        Whether training would go right; warnings do not count.
    """
    if workers is not None and workers < 0:
        raise ConfigError(f'workers={workers} must be 0 or more')
    started = time.perf_counter()
    surveys = [
        survey(found, workers, progress=True)
        for found in find_splits(load_config(config, cfg_options), (split,) if split else ('train', 'val', 'test'))
    ]
    seconds = time.perf_counter() - started
    findings = [finding for found in surveys for finding in found.findings] + compare(surveys)
    print(table(surveys, findings))
    if json_file:
        write_json(json_file, surveys, findings)
    pairs = sum(found.pairs for found in surveys)
    print(f'\n{pairs} pairs read in {seconds:.1f} s ({pairs / seconds:.0f} a second)')
    errors = sum(finding.severity == ERROR for finding in findings)
    print(f'\n{errors} errors: training would go wrong' if errors else '\nno errors')
    return not errors
