"""Measured times, part by part, as a CSV file; and the time that they predict of an architecture."""

import csv
import hashlib
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .. import files
from ..errors import ConfigError
from .slicing import Network, Shape
from .space import Part, Space

COLUMNS = ('runtime', 'device', 'threads', 'size', 'part', 'stage', 'kind', 'dim_in', 'dim', 'hidden', 'ms')


@dataclass
class Table:
    """The times of parts, measured on one device."""

    runtime: str  # 'onnx', 'executorch' or 'litert'
    device: str  # its name
    threads: int  # that the runtime had
    size: tuple[int, int]  # (H, W) of the images
    network: str  # the fingerprint of the network that the parts are of
    whole: float | None = None  # milliseconds of the whole fused network, None until it is measured
    ms: dict[Part, float] = field(default_factory=dict)  # milliseconds by part

    def predict(self, space: Space, shape: Shape) -> float:
        """Milliseconds of an architecture: the measured original minus the differences of the parts.

        Raises:
            ConfigError: naming parts that the table lacks.
        """
        difference = space.parts(shape)
        difference.subtract(space.parts(space.original))
        self.require([part for part, times in difference.items() if times])
        assert self.whole is not None
        return self.whole + sum(times * self.ms[part] for part, times in difference.items() if times)

    def require(self, parts: list[Part]) -> None:
        """Raises ConfigError, naming the ones without a time."""
        missing = [str(part) for part in parts if part not in self.ms]
        missing += [] if self.whole is not None else [f'whole {self.network}']
        if missing:
            raise ConfigError(
                f'the table lacks {len(missing)} rows: {", ".join(missing[:5])}{", ..." if len(missing) > 5 else ""}; '
                'tools/latency.py with the same -o measures those alone'
            )

    def check(
        self,
        network: str,
        runtime: str | None = None,
        size: tuple[int, int] | None = None,
        threads: int | None = None,
        device: str | None = None,
    ) -> None:
        """Raises ConfigError for a table of another network, and of another runtime, size, thread count or device where
        they are given."""
        for what, own, expected in (
            ('network', self.network, network),
            ('runtime', self.runtime, runtime),
            ('size', self.size, size),
            ('number of threads', self.threads, threads),
            ('device', self.device, device),
        ):
            if expected is not None and own != expected:
                raise ConfigError(
                    f'the table is of another {what}: {own} in the table, {expected} was expected; measure one with '
                    'tools/latency.py'
                )

    def write(self, path: Path) -> None:
        """Writes the CSV file whole."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator='\n')
        writer.writerow(COLUMNS)
        first = (self.runtime, self.device, self.threads, f'{self.size[0]}x{self.size[1]}')
        if self.whole is not None:
            writer.writerow((*first, 'whole', '', self.network, '', '', '', f'{self.whole:.6g}'))
        for part, ms in sorted(self.ms.items()):
            row = (part.part, part.stage, part.kind, part.dim_in, part.dim, part.hidden)
            writer.writerow((*first, *row, f'{ms:.6g}'))
        files.write(path, text.getvalue())

    @classmethod
    def read(cls, path: str | Path) -> 'Table':
        """The table of a file. Raises ConfigError for a file that is none."""
        try:
            with Path(path).open(newline='', encoding='utf-8') as stream:
                rows = list(csv.DictReader(stream))
            if not rows or tuple(rows[0]) != COLUMNS:
                raise ValueError(f'its columns must be {",".join(COLUMNS)}, and it must have rows')
            tables = {(row['runtime'], row['device'], row['threads'], row['size']) for row in rows}
            if len(tables) != 1:
                raise ValueError('its rows are of several runtimes, devices, thread counts or sizes')
            ((runtime, device, threads, size),) = tables
            height, width = map(int, size.split('x'))
            table = cls(runtime, device, int(threads), (height, width), '')
            for row in rows:
                ms = float(row['ms'])
                if not math.isfinite(ms):
                    raise ValueError(f'a time of {row["ms"]} ms')
                if row['part'] == 'whole':
                    if ms <= 0:
                        raise ValueError(f'the whole network takes {row["ms"]} ms')
                    table.network, table.whole = row['kind'], ms
                else:
                    numbers = (int(row[key]) for key in ('dim_in', 'dim', 'hidden'))
                    table.ms[Part(row['part'], int(row['stage']), row['kind'], *numbers)] = ms
        except (OSError, ValueError, TypeError, csv.Error) as error:
            raise ConfigError(f'{path} is no latency table: {error}; tools/latency.py writes one') from error
        return table


def fingerprint(network: Network) -> str:
    """Names a network by what its time depends on: the types of its parts, and a digest of its numbers."""
    model: Mapping = network.model
    shape = network.shape
    names = [model['backbone']['type'], *([model['decode_head']['type']] if shape.head else [])]
    options = {key: model['backbone'].get(key) for key in ('act', 'resolution', 'bias_resize', 'out_indices')}
    head = model.get('decode_head') or {}
    numbers = [network.arch.as_config(), options, shape.head or None, shape.neck or None, head.get('num_classes')]
    digest = hashlib.sha256(json.dumps(numbers, sort_keys=True, default=list).encode()).hexdigest()[:8]
    return f'{"-".join(names)}-{digest}'
