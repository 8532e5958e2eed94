"""The charts, as plotly figures without colours of text and paper: the page gives them those of its light or dark form."""
from collections.abc import Sequence

import numpy as np

from ..errors import MissingRuntimeError
from .curve import Curve
from .recorder import iou

PALETTE = ('#2f7ed8', '#e8833a', '#2ca58d', '#b14aed', '#d64570', '#8a8d91')
BAR = 22  # pixels per class: a line of small text


def plotly():
    """The module.

    Raises:
        MissingRuntimeError: when it is not installed.
    """
    try:
        import plotly.graph_objects
    except ImportError as error:
        raise MissingRuntimeError("the report draws with plotly, which is not installed; pip install 'effseg[report]'") from error
    return plotly.graph_objects


def class_bars(classes: Sequence[str], confusions: dict[str, np.ndarray]) -> dict:
    """IoU of each class, best on top, with its share of the pixels: bars for the first candidate, marks for the others.

    Args:
        classes: names.
        confusions: by candidate.
    """
    go = plotly()
    scores = {name: 100 * iou(matrix) for name, matrix in confusions.items()}
    (first, values), *others = scores.items()
    matrix = confusions[first]
    shares = 100 * matrix.sum(1) / max(matrix.sum(), 1)
    order = sorted(range(len(classes)), key=lambda index: (-1 if np.isnan(values[index]) else values[index], -index))
    names = [classes[index] for index in order]
    texts = ['not in the data' if np.isnan(values[index]) else f'{values[index]:.1f}' for index in order]
    figure = go.Figure(go.Bar(x=np.nan_to_num(values[order]).tolist(), y=names, orientation='h', name=first, text=texts, textposition='auto',
                              marker_color=PALETTE[0], hovertemplate='%{y}: IoU %{x:.2f} %<extra></extra>', cliponaxis=False))
    for (name, other), colour in zip(others, _colours()):
        figure.add_scatter(x=other[order].tolist(), y=names, mode='markers', name=name, hovertemplate='%{y}: IoU %{x:.2f} %',
                           marker=dict(color=colour, symbol='line-ns', line=dict(width=3, color=colour), size=9))
    figure.add_bar(x=shares[order].tolist(), y=names, orientation='h', name='pixels', xaxis='x2', marker_color=PALETTE[5], showlegend=False,
                   hovertemplate='%{y}: %{x:.3g} % of the pixels<extra></extra>')
    figure.update_layout(
        height=80 + BAR * len(classes) + 22 * len(others), bargap=.25, barmode='overlay', showlegend=bool(others),
        margin=dict(l=8, r=16, t=44 + 22 * len(others), b=10), legend=dict(orientation='h', x=0, xref='container', y=1, yref='container', yanchor='top'),
        xaxis=dict(domain=[0, .7], range=[0, 100], side='top', title=dict(text='IoU %', standoff=4), fixedrange=True),
        xaxis2=dict(domain=[.76, 1], side='top', title=dict(text='pixels %', standoff=4), fixedrange=True, nticks=3, anchor='y', rangemode='tozero'),
        yaxis=dict(automargin=True, tickmode='array', tickvals=names, fixedrange=True))
    return _plain(figure)


def confusion_map(classes: Sequence[str], confusion: np.ndarray) -> dict:
    """Of the pixels of each true class (row), the share of each predicted class (column); zoomed into by dragging."""
    go = plotly()
    shares = row_shares(confusion)
    large = len(classes) > 30
    figure = go.Figure(go.Heatmap(
        z=np.round(shares, 5).tolist(), x=list(classes), y=list(classes), zmin=0, zmax=1, xgap=0 if large else 1, ygap=0 if large else 1,
        colorbar=dict(tickformat='.0%', thickness=10, len=.5), hovertemplate='true %{y}<br>predicted %{x}<br>%{z:.1%}<extra></extra>'))
    figure.update_layout(
        height=620, margin=dict(l=8, r=8, t=10, b=8),
        xaxis=dict(title=dict(text='predicted', standoff=6), automargin=True, tickangle=-60, showgrid=False),
        yaxis=dict(title=dict(text='true', standoff=6), automargin=True, autorange='reversed', showgrid=False))
    return _plain(figure)


def row_shares(confusion: np.ndarray) -> np.ndarray:
    """Each row divided by its sum; nan where a class is not in the truth."""
    totals = confusion.sum(1, keepdims=True).astype(np.float64)
    return np.divide(confusion, totals, out=np.full(confusion.shape, np.nan), where=totals > 0)


def training_curve(curve: Curve) -> dict:
    """Loss and validation mIoU over the iterations."""
    go = plotly()
    steps, losses = zip(*curve.loss)
    window = max(len(losses) // 50, 1)
    smooth = np.convolve(np.pad(losses, (window // 2, window - 1 - window // 2), mode='edge'), np.ones(window) / window, mode='valid')
    figure = go.Figure(go.Scatter(x=list(steps), y=np.round(smooth, 5).tolist(), name='training loss', mode='lines', line=dict(color=PALETTE[5], width=2)))
    if curve.miou:
        steps, scores = zip(*curve.miou)
        figure.add_scatter(x=list(steps), y=list(scores), name='validation mIoU %', yaxis='y2', mode='lines+markers', line=dict(color=PALETTE[0], width=3))
    figure.update_layout(
        height=340, margin=dict(l=8, r=8, t=10, b=8), legend=dict(orientation='h', y=1.12, x=0), hovermode='x unified',
        xaxis=dict(title=dict(text='iteration'), automargin=True), yaxis=dict(title=dict(text='loss'), rangemode='tozero', automargin=True),
        yaxis2=dict(title=dict(text='mIoU %'), overlaying='y', side='right', rangemode='tozero', automargin=True, showgrid=False, tickmode='auto', nticks=6))
    return _plain(figure)


def _colours():
    while True:
        yield from PALETTE[1:5]


def _plain(figure) -> dict:
    # the default template is 7 KB of colours for light pages per chart
    figure.update_layout(template='none', paper_bgcolor='rgba(0,0,0,0)', plot_bgcolor='rgba(0,0,0,0)')
    return figure.to_plotly_json()
