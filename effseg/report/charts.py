"""The charts, as plotly figures without colors of text and paper: the page gives them those of its light or dark
form."""

import html
from collections.abc import Iterable, Sequence
from itertools import cycle, islice

import numpy as np

from .curve import Curve
from .recorder import iou

PALETTE, GREY = ('#2f7ed8', '#e8833a', '#2ca58d', '#b14aed', '#d64570', '#c9a227', '#3fb8d4'), '#8a8d91'
BAR = 22  # pixels per class: a line of small text
LABELLED = 20  # classes: more make cells too small for a number
ABSENT = '–'  # of a class that is in neither truth nor prediction


def class_bars(classes: Sequence[str], confusions: dict[str, np.ndarray]) -> dict:
    """IoU of each class, best on top, with its share of the pixels: bars for the first candidate, marks for the others.

    Args:
        classes: names.
        confusions: by candidate.
    """
    import plotly.graph_objects as go

    classes, confusions = _as_text(classes), dict(zip(_as_text(confusions), confusions.values()))
    scores = {name: 100 * iou(matrix) for name, matrix in confusions.items()}
    (first, values), *others = scores.items()
    matrix = confusions[first]
    shares = 100 * matrix.sum(1) / max(matrix.sum(), 1)
    order = sorted(range(len(classes)), key=lambda index: (-1 if np.isnan(values[index]) else values[index], -index))
    names = [classes[index] for index in order]
    # places, not names: two classes of one name stay two bars
    rows = dict(y=list(range(len(order))), customdata=names)
    hover = '%{customdata}: IoU %{x:.2f} %'
    bar = dict(orientation='h', **rows)
    texts = [ABSENT if np.isnan(values[index]) else f'{values[index]:.1f}' for index in order]
    figure = go.Figure(
        [
            go.Bar(
                x=np.nan_to_num(values[order]).tolist(),
                name=first,
                marker_color=PALETTE[0],
                hovertemplate=f'{hover}<extra></extra>',
                **bar,
            ),
            *(
                go.Scatter(
                    x=other[order].tolist(),
                    name=name,
                    mode='markers',
                    marker=dict(color=color, symbol='line-ns', line=dict(width=3, color=color), size=9),
                    hovertemplate=hover,
                    **rows,
                )
                for (name, other), color in zip(others, colors(len(scores))[1:])
            ),
            go.Scatter(
                x=[101] * len(order),
                y=rows['y'],
                text=texts,
                mode='text',
                textposition='middle right',
                cliponaxis=False,
                hoverinfo='skip',
            ),
            go.Bar(
                x=shares[order].tolist(),
                name='pixels',
                xaxis='x2',
                marker_color=GREY,
                hovertemplate='%{customdata}: %{x:.3g} % of the pixels<extra></extra>',
                **bar,
            ),
        ]
    )
    return _laid_out(figure, 54 + BAR * len(classes), **_layout_of_bars(names))


def _layout_of_bars(names: list[str]) -> dict:
    places = list(range(len(names)))
    return dict(
        bargap=0.25,
        barmode='overlay',
        showlegend=False,
        margin=dict(r=16, t=44),
        xaxis=_on_top('IoU %', [0, 0.76], range=[0, 112], tickvals=[0, 20, 40, 60, 80, 100]),
        xaxis2=_on_top('pixels %', [0.79, 1], nticks=3, anchor='y', rangemode='tozero'),
        yaxis=dict(
            tickmode='array',
            tickvals=places,
            ticktext=names,
            range=[-0.5, len(names) - 0.5],
            fixedrange=True,
            showgrid=False,
            zeroline=False,
        ),
    )


def _on_top(title: str, domain: list[float], **others) -> dict:
    return dict(
        domain=domain, side='top', title=dict(text=title, standoff=4), fixedrange=True, automargin=False, **others
    )


def confusion_map(classes: Sequence[str], confusion: np.ndarray) -> dict:
    """A heatmap of the shares that each predicted class (column) has of the pixels of each true class (row)."""
    import plotly.graph_objects as go

    shares, classes = row_shares(confusion), _as_text(classes)
    gap = 0 if len(classes) > 30 else 1
    named = {f'{index}': name for index, name in enumerate(classes)}
    figure = go.Figure(
        go.Heatmap(
            z=np.round(shares, 5).tolist(),
            x=list(named),
            y=list(named),
            zmin=0,
            zmax=1,
            xgap=gap,
            ygap=gap,
            colorbar=dict(tickformat='.0%', thickness=10, len=0.5),
            text=_cell_texts(shares) if len(classes) <= LABELLED else None,
            texttemplate='%{text}' if len(classes) <= LABELLED else None,
            hovertemplate='true %{y}<br>predicted %{x}<br>%{z:.1%}<extra></extra>',
        )
    )
    axis = dict(type='category', labelalias=named, showgrid=False, showline=True, mirror=True)
    return _laid_out(
        figure,
        620,
        margin_t=44,  # the zoom bar lies above the cells
        xaxis=dict(axis, title=dict(text='predicted', standoff=6), tickangle=-60),
        yaxis=dict(axis, title=dict(text='true', standoff=6), autorange='reversed'),
    )


def _cell_texts(shares: np.ndarray) -> list[list[str]]:
    """The shares in percent; nothing in the row of a class that is not in the truth."""
    return [['' if np.isnan(share) else f'{100 * share:.1f}' for share in row] for row in shares]


def row_shares(confusion: np.ndarray) -> np.ndarray:
    """Each row divided by its sum; nan where a class is not in the truth."""
    totals = confusion.sum(1, keepdims=True).astype(np.float64)
    return np.divide(confusion, totals, out=np.full(confusion.shape, np.nan), where=totals > 0)


def training_curve(curve: Curve) -> dict:
    """Loss and validation mIoU over the iterations."""
    import plotly.graph_objects as go

    steps, losses = zip(*curve.loss)
    window = max(len(losses) // 50, 1)
    smooth = np.convolve(
        np.pad(losses, (window // 2, window - 1 - window // 2), mode='edge'), np.ones(window) / window, mode='valid'
    )
    lines = dict(color=GREY, width=2)
    figure = go.Figure(
        go.Scatter(x=steps, y=np.round(smooth, 5).tolist(), name='training loss', mode='lines', line=lines)
    )
    if curve.miou:
        steps, scores = zip(*curve.miou)
        lines = dict(color=PALETTE[0], width=3)
        figure.add_scatter(x=steps, y=scores, name='validation mIoU %', yaxis='y2', mode='lines+markers', line=lines)
    return _laid_out(
        figure,
        340,
        legend=dict(orientation='h', y=1.12, x=0),
        hovermode='x unified',
        xaxis_title_text='iteration',
        yaxis=dict(title=dict(text='loss'), rangemode='tozero'),
        yaxis2=dict(
            title=dict(text='mIoU %'),
            overlaying='y',
            side='right',
            rangemode='tozero',
            automargin=True,
            showgrid=False,
            nticks=6,
        ),
    )


def path(ms: Sequence[float], accuracy: Sequence[float], texts: Sequence[str], target: float) -> dict:
    """Accuracy against milliseconds, the slowest first, and a line at those that were asked for.

    Args:
        ms, accuracy: of each point.
        texts: what to say of each.
        target: milliseconds.
    """
    import plotly.graph_objects as go

    figure = go.Figure(
        go.Scatter(
            x=ms,
            y=accuracy,
            mode='lines+markers',
            line=dict(color=PALETTE[0], width=2),
            marker=dict(size=9),
            customdata=_as_text(texts),
            hovertemplate='%{customdata}: %{y:.2f} %, %{x:.2f} ms<extra></extra>',
        )
    )
    figure.add_vline(x=target, line=dict(color=PALETTE[1], dash='dot'))
    return _laid_out(
        figure,
        340,
        showlegend=False,
        xaxis=dict(title=dict(text='predicted ms'), autorange='reversed'),
        yaxis_title_text='pixels right, %',
    )


def _as_text(names: Iterable[str]) -> list[str]:
    """Names as plotly shows them letter by letter: it takes HTML's tags and entities in every text."""
    return [html.escape(name, quote=False) for name in names]


def colors(count: int) -> list[str]:
    """A color for each of ``count`` candidates, in order."""
    return [PALETTE[0], *islice(cycle(PALETTE[1:]), count - 1)]


def _laid_out(figure, height: int, **layout) -> dict:
    """A figure as plain data: transparent, with narrow margins and room for the labels of its axes."""
    # the default template is 7 KB of colors for light pages per chart
    figure.update_layout(template='none', paper_bgcolor='rgba(0,0,0,0)', plot_bgcolor='rgba(0,0,0,0)')
    figure.update_layout(height=height, margin=dict(l=8, r=8, t=10, b=8))
    figure.update_layout(xaxis_automargin=True, yaxis_automargin=True)
    figure.update_layout(**layout)
    return figure.to_plotly_json()
