"""The numbers that make a network of the family: a published name, or a dict that any config can write."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import ConfigError

STAGES = 4
MLP_RATIO = 4  # hidden channels per channel where an arch says nothing


@dataclass(frozen=True)
class Arch:
    """An architecture, every number written out.

    Attributes:
        depths: blocks per stage.
        embed_dims: channels per stage.
        num_vit: how many of each stage's last blocks attend.
        hidden_dims: channels inside each block's MLP, a tuple per stage.
    """

    depths: tuple[int, ...]
    embed_dims: tuple[int, ...]
    num_vit: tuple[int, ...]
    hidden_dims: tuple[tuple[int, ...], ...]

    def attends(self, stage: int, block: int) -> bool:
        """Whether a block has attention, by its place in its stage."""
        return block >= self.depths[stage] - self.num_vit[stage]

    def as_config(self) -> dict:
        """The dict that a config names as ``arch``."""
        return dict(depths=self.depths, embed_dims=self.embed_dims, num_vit=self.num_vit, hidden_dims=self.hidden_dims)


def resolve_arch(arch: str | Mapping, known: Mapping[str, Mapping], attention_stages: Sequence[int]) -> Arch:
    """The architecture that a config names.

    Args:
        arch: a name in ``known``, or a dict of ``depths`` and ``embed_dims`` (four numbers each), ``num_vit`` (one
            number for each of ``attention_stages``, or four, one per stage), and at most one of ``mlp_ratios`` and
            ``hidden_dims`` (per stage one number per block; hidden channels per channel, and hidden channels).
        known: arch dicts by name.
        attention_stages: the stages whose last blocks may attend.

    Raises:
        ConfigError: for an unknown name, missing or unknown keys, or numbers that make no network.
    """
    if isinstance(arch, str):
        if arch not in known:
            raise ConfigError(
                f'arch={arch!r} is unknown; use one of {", ".join(map(repr, known))} or a dict of depths, embed_dims, '
                'num_vit and hidden_dims or mlp_ratios'
            )
        arch = known[arch]
    if not isinstance(arch, Mapping):
        raise ConfigError(f'arch={arch!r} came; a name ({", ".join(map(repr, known))}) or a dict was expected')
    needed, optional = {'depths', 'embed_dims', 'num_vit'}, {'mlp_ratios', 'hidden_dims'}
    if not needed <= set(arch) <= needed | optional or optional <= set(arch):
        raise ConfigError(
            f'arch has the keys {sorted(map(str, arch))}; depths, embed_dims, num_vit and at most one of mlp_ratios '
            'and hidden_dims were expected'
        )
    depths = _integers(arch, 'depths', 0)
    dims = _integers(arch, 'embed_dims', 2)  # the stem's first conv has half of the first one's
    return Arch(depths, dims, _attention(arch['num_vit'], depths, attention_stages), _hidden(arch, depths, dims))


def _integers(arch: Mapping, key: str, least: int) -> tuple[int, ...]:
    values = arch[key]
    if not isinstance(values, (list, tuple)) or len(values) != STAGES or not all(_integer(v, least) for v in values):
        raise ConfigError(
            f'arch.{key}={values!r} came; {STAGES} whole numbers of {least} or more were expected, one per stage'
        )
    return tuple(values)


def _attention(num_vit, depths: tuple[int, ...], attention_stages: Sequence[int]) -> tuple[int, ...]:
    counts = num_vit
    if _integer(num_vit, 0):
        counts = [num_vit if stage in attention_stages else 0 for stage in range(STAGES)]
    highest = [depth if stage in attention_stages else 0 for stage, depth in enumerate(depths)]
    if (
        not isinstance(counts, (list, tuple))
        or len(counts) != STAGES
        or not all(_integer(count, 0) and count <= most for count, most in zip(counts, highest))
    ):
        raise ConfigError(
            f'arch.num_vit={num_vit!r} came; how many of the last blocks attend was expected, one number or one per '
            f'stage, at most {tuple(highest)} by stage'
        )
    return tuple(counts)


def _hidden(arch: Mapping, depths: tuple[int, ...], dims: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    key = next((key for key in ('hidden_dims', 'mlp_ratios') if key in arch), None)
    values = arch[key] if key else [[MLP_RATIO] * depth for depth in depths]
    if not isinstance(values, (list, tuple)) or [
        len(stage) if isinstance(stage, (list, tuple)) else None for stage in values
    ] != list(depths):
        raise ConfigError(f'arch.{key}={values!r} came; one number per block was expected: the lengths {depths}')
    whole = key == 'hidden_dims'
    wrong = [
        value
        for stage, dim in zip(values, dims)
        for value in stage
        if not (_integer(value, 1) if whole else _number(value) and 1 <= dim * value < 2**31)
    ]
    if wrong:
        raise ConfigError(
            f'arch.{key or "embed_dims"} holds {wrong[0]!r}; '
            + ('whole numbers of 1 or more were expected' if whole else 'ratios that leave a channel were expected')
        )
    # rounded: 176 * (240 / 176) is 239.99999999999997
    return tuple(tuple(value if whole else round(dim * value) for value in stage) for stage, dim in zip(values, dims))


def _integer(value, least: int) -> bool:
    return type(value) is int and value >= least


def _number(value) -> bool:
    return type(value) in (int, float)
