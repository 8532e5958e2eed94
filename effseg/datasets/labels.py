"""Which class number a value of a label map becomes."""

import numpy as np


def class_numbers(reduce_zero_label: bool, label_map: dict[int, int] | None) -> np.ndarray:
    """The class number of every raw value, as MMSegmentation's LoadAnnotations has it: (256,) uint8.

    Args:
        reduce_zero_label: whether 0 is ignored, and the classes count from 1.
        label_map: new numbers by old ones, applied behind that, for a subset of the classes; None for all.
    """
    numbers = np.arange(256)
    if reduce_zero_label:
        numbers = np.where(np.isin(numbers, (0, 255)), 255, numbers - 1)
    return np.array([(label_map or {}).get(number, number) % 256 for number in numbers.tolist()], np.uint8)
