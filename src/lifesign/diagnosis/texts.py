"""Figures as the texts of issues have them."""

from decimal import ROUND_HALF_UP, Decimal


def percent(share: float) -> str:
    """Whole percents, half up."""
    # By way of its shortest decimal form: 0.145 is a little less than that in binary, and would go down.
    return str((Decimal(repr(share)) * 100).quantize(Decimal(1), rounding=ROUND_HALF_UP))
