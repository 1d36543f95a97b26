"""Integers as pixels, for images that are made without a plotting library."""

import numpy as np
from jaxtyping import Float

DIGIT_HEIGHT = 5
_WIDTH = 3

# Rows of three pixels, from the top; each octal digit is the bit pattern of a row.
_ROWS = {
    "-": "00700",
    "0": "75557",
    "1": "26227",
    "2": "71747",
    "3": "71717",
    "4": "55711",
    "5": "74717",
    "6": "74757",
    "7": "71122",
    "8": "75757",
    "9": "75717",
}


def draw_number(area: Float[np.ndarray, "height width channels"], number: int) -> None:
    """Write a number in black into the middle of an area, clipped to its width."""
    digits = [
        np.array([[int(row) >> bit & 1 for bit in (2, 1, 0)] for row in _ROWS[d]])
        for d in str(number)
    ]
    gap = np.zeros((DIGIT_HEIGHT, 1), int)
    ink = np.concatenate([part for d in digits for part in (d, gap)][:-1], axis=1)
    left = max(0, (area.shape[1] - ink.shape[1]) // 2)
    ink = ink[: area.shape[0], : area.shape[1] - left]
    area[: ink.shape[0], left : left + ink.shape[1]][ink == 1] = 0.0
