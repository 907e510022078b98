"""Numbers in sentences, as people read them: no exponents, and never two that look alike where one is the larger."""

import math
from typing import Final

NOTHING: Final = 1e-9
"""What arithmetic leaves of nothing; shown as 0."""
SMALL: Final = 0.001
_DIGITS: Final = 3
_ENOUGH: Final = 17  # decimal digits that tell any two float64 numbers apart


def say_number(value: float, digits: int = _DIGITS) -> str:
    """A number with so many digits that say something, however small it is: `0.05`, `0.00012`, `12300`."""
    if not math.isfinite(value) or value == 0:
        return str(value) if value else "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    text = f"{round(value, places):.{max(0, places)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def say_beside(value: float, limit: float) -> tuple[str, str]:
    """A number and what it is compared with; where they differ, by however little, the texts tell which is larger."""
    if math.isfinite(limit) and 0 < abs(value) < NOTHING < limit / 10:
        return "0", say_number(limit)
    bound = min(SMALL, limit / 10)
    if 0 < value < bound and math.isfinite(limit) and limit >= SMALL:
        return f"< {say_number(bound)}", say_number(limit)
    for digits in range(_DIGITS, _ENOUGH + 1):
        texts = say_number(value, digits), say_number(limit, digits)
        if texts[0] != texts[1] or value == limit:
            break
    return texts


def say_over(value: float, limit: float) -> str:
    """Both of them, for a refusal: `0.0502, limit 0.05`."""
    return "{}, limit {}".format(*say_beside(value, limit))
