"""An amount in a currency; never a float."""

from decimal import Context, Decimal, InvalidOperation

from msgspec import Struct

MAX_DIGITS = 40  # a vendor's "1e999999" must not eat the memory when it is written out
_WIDE = Context(prec=3 * MAX_DIGITS)


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


# ISO 4217: currencies whose smallest unit is not a hundredth.
_DIGITS = dict.fromkeys(("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF", "XPF"), 0) | dict.fromkeys(
    ("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3
)  # fmt: skip


def of_amount(amount: Decimal, currency: str) -> Money:
    """Return money with the currency's decimals, however the system pads its numbers; finer amounts keep their own."""
    plain = amount.quantize(Decimal(1).scaleb(-_DIGITS.get(currency, 2)), context=_WIDE)
    return Money(plain if plain == amount else amount, currency)


def of_minor(count: Decimal, currency: str) -> Money:
    """Return the money that so many of the currency's smallest units are."""
    return Money(count.scaleb(-_DIGITS.get(currency, 2)), currency)


def in_minor(money: Money) -> Decimal:
    """Return how many of its currency's smallest units the money is."""
    return money.amount.scaleb(_DIGITS.get(money.currency, 2))
