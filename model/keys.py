"""The two keys people are recognised by, in one spelling: e-mail addresses and phone numbers."""

import re
import unicodedata
from functools import lru_cache

import phonenumbers

_EMAIL = re.compile(r"[^@\s\x00-\x1f,;<>\"]{1,64}@[^@\s\x00-\x1f,;<>\"]{1,253}")
_E164 = re.compile(r"\+[1-9]\d{7,14}")


def normal_email(text: str) -> str | None:
    """Return the address in lower case and one Unicode form, None when it is none.

    Nothing provider-specific (dots, plus tags) is touched: two addresses that differ in them are two addresses.
    """
    address = unicodedata.normalize("NFKC", text).strip().lower()
    return address if _EMAIL.fullmatch(address) else None


@lru_cache(maxsize=65_536)
def normal_phone(text: str, region: str) -> str | None:
    """Return the number in E.164 ("+14155550123"), None when it is no possible number.

    Args:
        region: ISO country whose national spelling is read.
    """
    if _E164.fullmatch(text):
        return text
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_possible_number(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
