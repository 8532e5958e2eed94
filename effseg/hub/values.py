"""The kinds of value that a config may hold, each a function of a value and where it stands that raises ValueError."""

from collections.abc import Callable, Mapping

Check = Callable[[object, str], None]


def integer(low: int, high: int) -> Check:
    """A whole number; a boolean is none."""

    def holds(value, where):
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f'{where} is {short(value)}; an integer from {low} to {high} was expected')

    return holds


def number(low: float, high: float) -> Check:
    """A finite number."""

    def holds(value, where):
        if type(value) not in (int, float) or not low <= value <= high:  # NaN is in no interval
            raise ValueError(f'{where} is {short(value)}; a number from {low:g} to {high:g} was expected')

    return holds


def one_of(*values) -> Check:
    """One of these values, of the same type."""

    def holds(value, where):
        if not any(type(value) is type(known) and value == known for known in values):
            raise ValueError(f'{where} is {short(value)}; one of {", ".join(map(repr, values))} was expected')

    return holds


def text(value, where: str) -> None:
    """One line that can be shown."""
    if not isinstance(value, str) or not value.isprintable() or len(value) > 256:
        raise ValueError(f'{where} is {short(value)}; one line of at most 256 printable characters was expected')


def sequence(kind: Check, low: int, high: int) -> Check:
    """A list of ``low`` to ``high`` values of a kind."""

    def holds(value, where):
        if not isinstance(value, (list, tuple)) or not low <= len(value) <= high:
            raise ValueError(f'{where} is {short(value)}; a list of {low} to {high} values was expected')
        for index, item in enumerate(value):
            kind(item, f'{where}[{index}]')

    return holds


def either(first: Check, second: Check) -> Check:
    """One of two kinds."""

    def holds(value, where):
        try:
            first(value, where)
        except ValueError as error:
            try:
                second(value, where)
            except ValueError as other:
                raise ValueError(f'{error}, or: {other}') from other

    return holds


def optional(kind: Check) -> Check:
    """A kind, or None."""
    return lambda value, where: None if value is None else kind(value, where)


def mapping(**kinds: Check) -> Check:
    """A dict of these keys alone, each with its kind."""

    def holds(value, where):
        if not isinstance(value, Mapping):
            raise ValueError(f'{where} is {short(value)}; a dict was expected')
        for key, item in value.items():
            if key not in kinds:
                raise ValueError(
                    f'{where}: {short(key)} cannot be given, it has no place in the layout ({", ".join(kinds)})'
                )
            kinds[key](item, f'{where}.{key}')

    return holds


def short(value) -> str:
    """A value as it stands in a message."""
    text = ascii(value)
    return text if len(text) <= 60 else f'{text[:57]}...'
