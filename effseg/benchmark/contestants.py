"""Which segmenters a benchmark compares, and the mIoU that each is known to reach."""

import csv
import shlex
import statistics
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from ..apis import cli
from ..errors import ConfigError
from ..stack import resources

COLUMNS = ('name', 'config', 'options', 'iterations', 'lr', 'seed', 'mIoU')


@dataclass(frozen=True)
class Contestant:
    """A segmenter of a comparison.

    Attributes:
        name: short, for a table.
        config: path, or effseg::NAME.py.
        options: {'key.subkey': value} merged over the config.
        scores: mIoU in percent: the published one, or one per seed; empty where nothing is known.
        ours: whether the backbone is of this package.
        fused: whether it is fused, where it has a fused form.
    """

    name: str
    config: str
    options: dict
    scores: tuple[float, ...] = ()
    ours: bool = True
    fused: bool = True

    @property
    def score(self) -> float | None:
        """The mean of the scores."""
        return statistics.mean(self.scores) if self.scores else None


def rivals() -> list[Contestant]:
    """Segmenters of ours and MMSegmentation's own light ones, with the mIoU published for them on ADE20K."""
    import mmseg

    ours, theirs = resources() / 'configs', Path(mmseg.__file__).parent / '.mim/configs'
    published = {
        'fpn_effformer_l1': 38.9,
        'fpn_effformerv2_s0': 33.4,
        'fpn_effformerv2_s2': 42.4,
        'mlp_effformerv2_s0': None,
        'mlp_effformerv2_s1': None,
        'mlp_effformerv2_s2': None,
        'dwmlp_effformerv2_s0': None,
        'dwmlp_effformerv2_s1': None,
        'dwmlp_effformerv2_s2': None,
        'mlp_effformer_l1': None,
        'evit_effformer_l1': None,
        'evit_effformerv2_s0': None,
        'evit_effformerv2_s1': None,
        'evit_effformerv2_s2': None,
    }
    known = {name: (score,) if score else () for name, score in published.items()}
    segformer = theirs / 'segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py'
    segnext = theirs / 'segnext/segnext_mscan-t_1xb16-adamw-160k_ade20k-512x512.py'
    return [
        *(Contestant(name, str(ours / f'{name}_ade20k.py'), {}, scores) for name, scores in known.items()),
        Contestant('segformer_mit-b0', str(segformer), {}, (37.4,), ours=False),
        Contestant('segformer_mit-b0, as trained', str(segformer), {}, (37.4,), ours=False, fused=False),
        Contestant('segnext_mscan-t', str(segnext), {}, (41.1,), ours=False),
    ]


def of_runs(path: str) -> list[Contestant]:
    """Segmenters and the scores of their trainings, from a CSV file with one line per training.

    The columns are :data:`COLUMNS`; others are left alone. ``options`` are those of ``--cfg-options`` that change the
    network. Trainings of one name and number of iterations are one contestant, at the learning rate that has the most
    seeds, of several the best.

    Raises:
        ConfigError: for a file that cannot be read as one.
    """
    try:
        with open(path, newline='') as file:
            rows = list(csv.DictReader(file))
        if not rows:
            raise ValueError('it holds none')
        runs: dict[tuple[str, str], dict[str, list[dict]]] = defaultdict(lambda: defaultdict(list))
        for row in rows:
            runs[row['name'], row['iterations']][row['lr']].append(row | {'mIoU': float(row['mIoU'])})
        best = {
            key: max(rates.values(), key=lambda rows: (len(rows), statistics.mean(row['mIoU'] for row in rows)))
            for key, rates in runs.items()
        }
        equal = len({iterations for _, iterations in best}) == 1
        return [
            Contestant(
                name if equal else f'{name}, {iterations} iterations',
                same[0]['config'],
                _options(same[0]['options']),
                tuple(row['mIoU'] for row in same),
            )
            for (name, iterations), same in best.items()
        ]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError) as error:
        said = f'the column {error} is missing' if isinstance(error, KeyError) else str(error)
        raise ConfigError(f'{path} cannot be read as trainings, a CSV with {", ".join(COLUMNS)}: {said}') from error


def _options(text: str) -> dict:
    parser = cli.Parser(add_help=False)
    cli.add_cfg_options(parser)
    return parser.parse_args(['--cfg-options', *shlex.split(text)]).cfg_options if text else {}
