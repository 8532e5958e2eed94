"""The latency table: measured here, or written as files for another device and read back."""

import csv
import hashlib
import itertools
import json
import math
import random
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from .. import files
from ..deploy.backends import SUFFIXES
from ..engine.config import build_model, load_config
from ..errors import ConfigError
from ..outputs import OutputFolder
from ..report.facts import environment
from .chains import LENGTHS, chain_of, export, fused_of, milliseconds
from .evaluate import network_of
from .slicing import Network, Shape
from .space import Part, Space
from .table import Table, fingerprint

RUNTIMES = ('onnx', 'executorch', 'litert')
MANIFEST = 'manifest.json'
RUNS = 15


def original(config: str, cfg_options: dict | None = None) -> Network:
    """The network of a config, with random weights: its time does not depend on them."""
    torch.manual_seed(0)
    cfg = load_config(config, cfg_options)
    return network_of(build_model(cfg), cfg)


def measure(
    config: str,
    runtime: str,
    size: tuple[int, int],
    path: str,
    threads: int = 1,
    runs: int = RUNS,
    cfg_options: dict | None = None,
) -> Table:
    """Measures the parts of a config's fused network and of what slimming can make of it, and writes the table.

    Rows that the file has already are kept; the file is written after every row, so that an interrupted measurement
    goes on where it was.

    Args:
        config, cfg_options: path, or ``effseg::NAME.py``, and overrides of it.
        runtime: one of :data:`RUNTIMES`.
        size: (H, W) of the images, multiples of 32.
        path: of the table.
        threads: for the runtime.
        runs: of each file; the fastest counts.
    """
    _check(runtime, size, threads, runs)
    network = original(config, cfg_options)
    space, target = Space(network), Path(path)
    table = Table(runtime, device(), threads, size, fingerprint(network))
    if target.exists():
        read = Table.read(target)
        read.check(table.network, runtime, size, threads, table.device)
        table = read
    target.parent.mkdir(parents=True, exist_ok=True)
    parts = [part for part in space.all_parts() if part not in table.ms]
    print(
        f'{len(parts)} of {len(space.all_parts())} parts to measure, two files each, and the whole network', flush=True
    )
    with tempfile.TemporaryDirectory(prefix='effseg-latency-') as scratch:
        if table.whole is None:
            (table.whole,) = times_of(network, [space.original], table, runs)
            table.write(target)
        heads = [part for part in space.all_parts() if part.part == 'head']
        groups = [[part] for part in parts if part not in heads]
        # several differences of theirs count in one prediction, so they are measured in turn
        groups += [heads] if set(heads) & set(parts) else []
        for group in tqdm(groups, unit='part', desc='latency', disable=None):
            paths = [Path(scratch) / f'{number}{SUFFIXES[runtime]}' for number in range(2 * len(group))]
            for file, (part, length) in zip(paths, itertools.product(group, LENGTHS)):
                export(chain_of(part, network, size, length), runtime, size, file)
            times = milliseconds(paths, runtime, size, threads, runs)
            table.ms |= {part: _piece(times[2 * number :][:2]) for number, part in enumerate(group)}
            table.write(target)
    return table


def emit(config: str, runtime: str, size: tuple[int, int], folder: str, cfg_options: dict | None = None) -> Path:
    """Writes the chains as files for another device, and a manifest that says which is which; returns the manifest.

    The device's measurement is a CSV file of two columns, ``file`` and ``ms``: :func:`read_back`.

    Args:
        config, runtime, size, cfg_options: see :func:`measure`.
        folder: of the files; those of an earlier call are kept, so that an interrupted one goes on.
    """
    _check(runtime, size)
    network = original(config, cfg_options)
    space, target = Space(network), OutputFolder(folder)
    makers: dict[str, Callable] = {'whole': lambda: fused_of(network, space.original, size)}
    for number, part in enumerate(space.all_parts()):
        for length in LENGTHS:
            makers[f'{number:03}_{length}'] = lambda part=part, length=length: chain_of(part, network, size, length)
    names = {name: f'{name}{SUFFIXES[runtime]}' for name in makers}
    content = {
        'network': fingerprint(network),
        'runtime': runtime,
        'size': size,
        'parts': [list(vars(part).values()) for part in space.all_parts()],
    }
    manifest = target.path / MANIFEST
    target.check([MANIFEST, *names.values()])
    if manifest.is_file() and _manifest(manifest) != json.loads(json.dumps(content)):
        raise ConfigError(f'{manifest} is of another network, runtime or size: give another folder')
    target.claim([MANIFEST, *names.values()])
    files.write(manifest, json.dumps(content, indent=1) + '\n')
    for name, make in tqdm(makers.items(), unit='file', desc='chains', disable=None):
        file = target.path / names[name]
        if not file.exists():
            partial = file.with_name(f'partial{file.suffix}')
            export(make(), runtime, size, partial)
            partial.replace(file)
    return manifest


def read_back(
    config: str, folder: str, measured: str, path: str, device: str, threads: int = 1, cfg_options: dict | None = None
) -> Table:
    """Makes the table of what another device measured of the files of :func:`emit`.

    Args:
        config, cfg_options: see :func:`measure`.
        folder: of :func:`emit`.
        measured: a CSV file with the columns ``file`` and ``ms``.
        path: of the table.
        device: its name, for the table.
        threads: that it measured with.

    Raises:
        ConfigError: for files that contradict each other, and times that are missing.
    """
    if Path(path).exists():
        Table.read(path)  # nothing else is replaced
    try:
        content = _manifest(Path(folder) / MANIFEST) or {}
        with Path(measured).open(newline='', encoding='utf-8') as stream:
            times = {Path(row['file']).stem: float(row['ms']) for row in csv.DictReader(stream)}
        parts = [Part(*values) for values in content['parts']]
        table = Table(content['runtime'], device, threads, tuple(content['size']), content['network'])
        _check(table.runtime, table.size)
        table.ms = dict.fromkeys(parts, 0.0)  # or they are no parts
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise ConfigError(
            f'{folder} and {measured} give no table ({type(error).__name__}: {error}); the folder is of --emit, the '
            'file has the columns file and ms'
        ) from error
    table.check(fingerprint(original(config, cfg_options)))
    needed = ['whole', *(f'{number:03}_{length}' for number in range(len(parts)) for length in LENGTHS)]
    missing = [name for name in needed if name not in times]
    if missing:
        raise ConfigError(f'{measured} lacks {len(missing)} of {len(needed)} files: {", ".join(missing[:5])}')
    wrong = [name for name in needed if not 0 < times[name] < math.inf]
    if wrong:
        raise ConfigError(f'{measured} says that {wrong[0]} takes {times[wrong[0]]} ms; a time above 0 was expected')
    table.whole = times['whole']
    for number, part in enumerate(parts):
        table.ms[part] = _piece([times[f'{number:03}_{length}'] for length in LENGTHS])
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    table.write(Path(path))
    return table


def verify(config: str, table: Table, count: int, runs: int = RUNS, cfg_options: dict | None = None) -> list[float]:
    """Measures random architectures and prints each beside its prediction, then the median and the largest error.

    Each is measured in turn with the original, and its prediction is scaled by what the original takes at the time.

    Args:
        config, cfg_options: see :func:`measure`.
        table: of this device.
        count: how many.
        runs: of each.

    Returns:
        The relative errors.

    Raises:
        ConfigError: for a table of another network or device, or without some rows.
    """
    network, generator = original(config, cfg_options), random.Random(0)
    table.check(fingerprint(network), device=device())
    space, errors = Space(network), []
    print(f'{"predicted, ms":>14}{"measured, ms":>14}{"error":>9}  architecture')
    with tempfile.TemporaryDirectory(prefix='effseg-latency-') as scratch:
        for _ in range(count):
            shape = space.random(generator)
            found = facts(network, shape, table, runs, Path(scratch))
            errors.append(1 / (1 + found['gap']) - 1)
            measured = found['measured_ms']
            predicted = measured * (1 + errors[-1])
            print(f'{predicted:>14.2f}{measured:>14.2f}{errors[-1]:>+9.1%}  {describe(shape)}', flush=True)
    sizes = [abs(error) for error in errors]
    print(f'median error {statistics.median(sizes):.1%}, largest {max(sizes):.1%}, {count} random architectures')
    return errors


def times_of(
    network: Network, shapes: Sequence[Shape], table: Table, runs: int = RUNS, folder: Path | None = None
) -> list[float]:
    """Milliseconds of the fused networks of shapes, measured here in turn under a table's runtime, size and threads.

    Files that ``folder`` has of an earlier call are measured again; without one nothing is kept.
    """
    with tempfile.TemporaryDirectory(prefix='effseg-latency-') as scratch:
        names = [hashlib.sha256(repr(shape).encode()).hexdigest() for shape in shapes]
        paths = [(folder or Path(scratch)) / f'{name}{SUFFIXES[table.runtime]}' for name in names]
        for shape, path in zip(shapes, paths):
            if not path.exists():
                export(fused_of(network, shape, table.size), table.runtime, table.size, path)
        return milliseconds(paths, table.runtime, table.size, table.threads, runs)


def facts(network: Network, shape: Shape, table: Table, runs: int = RUNS, folder: Path | None = None) -> dict:
    """What a table says of the time of a shape, and what is measured where the table is of this device.

    Args:
        network: the original.
        shape: another architecture.
        table: of one runtime.
        runs: of the original and of the shape, in turn.
        folder: see :func:`times_of`.

    Returns:
        Plain data; ``gap`` is by how much the measured share of the original's time lies above the predicted one,
        relatively: how fast the machine is at the time cancels.
    """
    space = Space(network)
    whole, predicted = table.predict(space, space.original), table.predict(space, shape)
    original, measured, gap = None, None, None
    if table.device == device():
        original, measured = times_of(network, (space.original, shape), table, runs, folder)
        gap = measured / original / (predicted / whole) - 1
    return dict(
        runtime=table.runtime,
        device=table.device,
        threads=table.threads,
        size=table.size,
        original_ms=whole,
        predicted_ms=predicted,
        measured_original_ms=original,
        measured_ms=measured,
        gap=gap,
    )


def in_words(found: dict) -> str:
    """A line about what :func:`facts` returned."""
    text = f'{found["runtime"]}: {found["original_ms"]:.2f} ms become {found["predicted_ms"]:.2f}, predicted; '
    if found['gap'] is None:
        return text + f'not measured, since the table is of {found["device"]}'
    text += f'{found["measured_original_ms"]:.2f} become {found["measured_ms"]:.2f}, measured, '
    return text + f'{found["measured_ms"] / found["measured_original_ms"]:.1%} ({found["gap"]:+.1%} to the prediction)'


def device() -> str:
    """This machine's processor, as a table names it."""
    return environment()['processor'].split(', ')[0]


def describe(shape: Shape) -> str:
    """An architecture in one line: depth and width by stage, attention, hidden widths, head and FPN."""
    arch = shape.arch
    text = f'{"-".join(map(str, arch.depths))} blocks, {"-".join(map(str, arch.embed_dims))} wide, '
    text += f'{sum(arch.num_vit)} attend, {sum(map(sum, arch.hidden_dims))} hidden'
    text += f', head {shape.head}' if shape.head else ''
    return text + (f', FPN {shape.neck}' if shape.neck else '')


def _manifest(path: Path) -> dict | None:
    """What :func:`emit` said of its files; None of a file that it did not write whole."""
    try:
        content = json.loads(path.read_text())
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _piece(times: list[float]) -> float:
    short, long = times
    return (long - short) / (LENGTHS[1] - LENGTHS[0])


def _check(runtime: str, size: tuple[int, int], threads: int | None = None, runs: int = 1) -> None:
    """Refuses what no table is of; with ``threads`` also what cannot be measured here."""
    if runtime not in RUNTIMES:
        raise ConfigError(f'--runtime {runtime} cannot be measured here; one of {", ".join(RUNTIMES)} was expected')
    if len(size) != 2 or any(side < 32 or side % 32 for side in size):
        raise ConfigError(f'--size {" ".join(map(str, size))} came; two multiples of 32 were expected')
    if threads is None:
        return
    if threads < 1 or runs < 1:
        raise ConfigError(f'{threads} threads and {runs} runs were asked for; each takes a number of 1 or more')
