"""An amount in a currency; never a float."""

from decimal import Decimal, InvalidOperation

from msgspec import Struct

MAX_DIGITS = 40  # a vendor's "1e999999" must not eat the memory when it is written out


class Money(Struct, frozen=True, gc=False):
    amount: Decimal
    currency: str  # ISO 4217


def decimal_of(value: object) -> Decimal:
    """Return the exact decimal of a number or numeric text.

    Raises:
        ValueError: not a finite number of at most 40 digits.
    """
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation as error:
        raise ValueError("not a number") from error
    if not number.is_finite() or abs(number.adjusted()) > MAX_DIGITS or -number.as_tuple().exponent > MAX_DIGITS:  # type: ignore[operator]
        raise ValueError("not a finite number of a sensible size")
    return number
