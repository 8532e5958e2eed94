"""The page: one HTML file that takes nothing from anywhere."""

import importlib.util
import json
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import files
from ..errors import MissingRuntimeError
from . import charts
from .candidates import Row
from .curve import Curve
from .images import Layers
from .recorder import iou

WORST_PAIRS = 15


@dataclass(frozen=True)
class Content:
    """What a report says.

    Attributes:
        config: as given.
        data: the data set's root.
        images: how many were scored.
        classes: names, by label.
        rows: candidates; the first is shown in full.
        confusion: the first one's.
        confusions: all, by name.
        worst, best: images of lowest and of highest IoU.
        curve: of the training, if known.
        environment: versions and machine, by name.
        command: that made the report.
        setting: variables of the environment that the config reads, by name.
        options: overrides of the config.
    """

    config: str
    data: str
    images: int
    classes: list[str]
    rows: list[Row]
    confusion: np.ndarray
    confusions: dict[str, np.ndarray]
    worst: list[Layers]
    best: list[Layers]
    curve: Curve | None
    environment: dict[str, str]
    command: str
    setting: dict[str, str]
    options: dict


def check_packages() -> None:
    """Raises MissingRuntimeError when what the page is made with is not installed."""
    for package in ('plotly', 'jinja2'):
        if not importlib.util.find_spec(package):
            raise MissingRuntimeError(
                f"the report is made with {package}, which is not installed; pip install 'effseg[report]'"
            )


def write(content: Content, path: Path) -> None:
    """Writes the file whole, or leaves what was there."""
    figures = {
        'bars': charts.class_bars(content.classes, content.confusions),
        'confusion': charts.confusion_map(content.classes, content.confusion),
    }
    if content.curve:
        figures['curve'] = charts.training_curve(content.curve)
    render(
        'report/page.html',
        path,
        figures,
        content=content,
        title=Path(content.config.rpartition('::')[2]).stem,
        first=content.rows[0],
        pairs=worst_pairs(content.confusion, content.classes),
        weakest=weakest(content),
        never=never_predicted(content),
        series=list(zip((row.name for row in content.rows), charts.colors(len(content.rows)))),
        commands=commands(content),
    )


def render(template: str, path: Path, figures: dict[str, dict], **values) -> None:
    """Writes a page whole, or leaves what was there.

    Args:
        template: by its path in the package; extends ``report/base.html``.
        path: of the page.
        figures: of plotly, by the names that the template places them by.
        values: of the template.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
    from plotly.offline import get_plotlyjs
    from plotly.utils import PlotlyJSONEncoder

    templates = Environment(
        loader=PackageLoader('effseg', '.'),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # inside a script element nothing may end it
    data = json.dumps(figures, cls=PlotlyJSONEncoder, separators=(',', ':')).replace('<', '\\u003c')
    text = templates.get_template(template).render(figures=data, plotly=get_plotlyjs(), **values)
    files.write(path, text)


def worst_pairs(confusion: np.ndarray, classes: list[str]) -> list[tuple[str, str, float, float]]:
    """The largest confusions: true class, predicted class, percent of the true class's pixels, percent of all
    pixels."""
    wrong = confusion.astype(np.float64)
    np.fill_diagonal(wrong, 0)
    shares, total = charts.row_shares(confusion), max(confusion.sum(), 1)
    order = np.argsort(-wrong, axis=None)[:WORST_PAIRS]
    rows, columns = np.unravel_index(order, wrong.shape)
    return [
        (classes[r], classes[c], 100 * shares[r, c], 100 * wrong[r, c] / total)
        for r, c in zip(rows, columns)
        if wrong[r, c]
    ]


def weakest(content: Content) -> list[str]:
    """The classes of lowest IoU among those that are in the truth: up to three, and fewer than half of them."""
    scores = iou(content.confusion)
    known = [index for index in np.argsort(scores) if content.confusion[index].sum()]
    return [content.classes[index] for index in known[: min(3, len(known) // 2)]]


def never_predicted(content: Content) -> list[str]:
    """The classes that are in the truth and that no pixel was labelled as."""
    truth, predicted = content.confusion.sum(1), content.confusion.sum(0)
    return [name for name, pixels, own in zip(content.classes, truth, predicted) if pixels and not own]


def commands(content: Content) -> list[str]:
    """The commands that print these numbers again."""
    setting = ''.join(f'{name}={shlex.quote(value)} ' for name, value in content.setting.items())
    pairs = [shlex.quote(f'{key}={_text(value)}') for key, value in content.options.items()]
    options = f' --cfg-options {" ".join(pairs)}' if pairs else ''
    lines = [f'{setting}{content.command}']
    for row in content.rows:
        fused = ' --fused' if row.candidate.fused else ''
        lines.append(
            f'{setting}python tools/test.py {shlex.quote(content.config)} '
            f'{shlex.quote(str(row.candidate.path))}{fused}{options}'
        )
    return lines


def _text(value) -> str:
    # as MMEngine's DictAction reads it: no blanks, no quotes inside brackets
    return value if isinstance(value, str) else str(value).replace(' ', '').replace("'", '')
