"""Numbers that identify a person or an account: cards, phones, IBAN, ids of the region.

They are searched in text with Latin digits (`latin_digits`), which has the length of the original.
"""

import re
from collections.abc import Iterator

__all__ = [
    "DIGITS",
    "FOREIGN_NUMBERS_HINT",
    "LABELS_HINT",
    "LOCAL_PHONE",
    "NUMBERS_HINT",
    "is_kept",
    "latin_digits",
    "numbers",
]

_ARABIC = re.compile("[٠-٩۰-۹]")
_LATIN = str.maketrans("٠١٢٣٤٥٦٧٨٩۰۱۲۳۴۵۶۷۸۹", "0123456789" * 2)
DIGITS = re.compile(r"[0-9٠-٩۰-۹][0-9٠-٩۰-۹ ().\u00a0–-]{6}|[A-Z]{2}[0-9]{2}")
"""What every card, phone number and account contains."""

_CARD = re.compile(
    r"(?<![0-9A-Za-z.])(?<![0-9][ -])"
    r"(?:[2-9][0-9]{3}(?:[0-9]{12}|([ .\u00a0–-])[0-9]{4}\1[0-9]{4}\1[0-9]{4}(?:\1[0-9]{3})?)"
    r"|[4-6][0-9]{16,18}|3[0-9]{3}(?:([ .\u00a0–-])[0-9]{6}\2[0-9]{4,5}|[0-9]{10,11}))"
    r"(?![0-9A-Za-z_])(?!-[0-9])(?!\.[0-9])"
)
_NETWORKS = re.compile(  # who issues a card, by its first digits, and how many it has
    r"(?:4[0-9]{15}|5[1-5][0-9]{14}|(?:222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]"
    r"|2720)[0-9]{12}"
    r"|220[0-4][0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[689][0-9])[0-9]{11}|35(?:2[89]"
    r"|[3-8][0-9])[0-9]{12}"
    r"|(?:6011|64[4-9][0-9]|65[0-9]{2}|62[0-9]{2}|60[0-9]{2}|8[12][0-9]{2}|5018|50[0-9]{2}|5893"
    r"|6304|6759|676[1-3]"
    r"|9682|9792)[0-9]{12}|(?:62|50|67)[0-9]{15,17})"
)
_PHONE = re.compile(
    r"(?<![\w+.])\+[1-9](?:[ ()\u00a0-]{0,2}[0-9]){7,14}(?![0-9A-Za-z_])(?!\.[0-9])"
    r"|(?<![\w.+-])(?<![0-9] )(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}-)[0-9]{3}-[0-9]{4}"
    r"(?![\w-])(?!\.[0-9])"
    # 05…, 00966… and 9665…: how the region writes them
    r"|(?<![\w.+-])(?<![0-9] )(?:05[0-9](?:[ -]?[0-9]{7}|[ -][0-9]{3}[ -][0-9]{4}"
    r"|[ -][0-9]{4}[ -][0-9]{3})"
    r"|00(?:20|21[1238]|249|96[0-8]|97[0-4])(?:[ ()-]{0,2}[0-9]){7,10}|(?:966[ -]?5|971[ -]?5"
    r"|967[ -]?7)(?:[ -]?[0-9]){8})"
    r"(?![\w-])(?!\.[0-9])",
    re.ASCII,
)
LOCAL_PHONE = re.compile(r"\+?\(?[0-9](?:[ ().\u00a0-]{0,2}[0-9]){6,14}")
"""A number as people write it: only if a name says that it is a phone number."""
_LABELLED_PHONE = re.compile(
    r"(?:(?<![^\W\d_])(?:tele)?(?:phone|mobile|msisdn|whatsapp|telefono?|fax"
    r"|tel)(?:[ _-]?(?:number|no))?"
    r"|(?:هاتف|جوال|موبايل|واتساب|телефон|电话|手机)\w{0,10})"
    rf"\\*[\"']?[ \t]*[:=：]?[ \t]*\\*[\"']?({LOCAL_PHONE.pattern})(?![0-9A-Za-z_])(?!\.[0-9])",
    re.IGNORECASE,
)
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]){11,30}(?![A-Za-z0-9])")
_EMIRATES_ID = re.compile(r"(?<![\w-])784-?[0-9]{4}-?[0-9]{7}-?[0-9](?![\w-])", re.ASCII)
_LABELLED_ID = re.compile(
    r"(?:\b(?:iqama|national[ _-]?id|id[ _-]?card|identity|resident(?:ce)?[ _-]?id|absher|ssn"
    r"|social security)"
    r"(?:[ _-]?(?:number|no|id)\.?)?|(?:هوي[ةه]|[إا]قام[ةه]|بطاق[ةه])\w{0,12}(?:[ ]\w{2,12}){0,2})"
    r"\\*[\"']?[ \t]*[:=：#]?[ \t]*(?:is|رقم|هو|هي)?[ \t]*[:#]?[ \t]*\\*[\"']?"
    r"([0-9]{10}|[0-9]{3}-[0-9]{2}-[0-9]{4})(?![0-9A-Za-z_-])",
    re.IGNORECASE,
)
_PHONE_LABELS = (
    "phone",
    "mobile",
    "msisdn",
    "whatsapp",
    "telefon",
    "fax",
    "tel",
    "هاتف",
    "جوال",
    "موبايل",
    "واتساب",
    "телефон",
    "电话",
    "手机",
)
_ID_LABELS = ("iqama", "national", "id", "absher", "ssn", "social", "هوي", "قام", "بطاق")
_KEPT = re.compile(
    r"(?:tenant|field|farmer)[_ .-]?id[\"'\\]*[ \t]*[:= ]?[ \t]*[\"'\\]*$", re.IGNORECASE
)

NUMBERS_HINT = (
    r"[2-9][0-9]{3}(?:[0-9]{10}|[ .-][0-9]{4}[ .-][0-9]{4}|[ .-][0-9]{6}[ .-])"
    r"|\(?[2-9][0-9]{2}(?:\) ?|-)[0-9]{3}-[0-9]{4}"
    r"|05[0-9][ -]?[0-9]{3}|00(?:2|96|97)[0-9][ ()0-9-]{6}|9(?:66|71)[ -]?5[ -]?[0-9]{2}"
    r"|967[ -]?7[ -]?[0-9]{2}|784-?[0-9]{4}-?[0-9]|\+[1-9][ ()0-9-]{7}"
    r"|[A-Z]{2}[0-9]{2}[ -]?(?:[A-Z0-9]{4}[ -]?){2}[A-Z0-9]{3}"
)
"""For Rust, after `BEGIN`: personal numbers."""
LABELS_HINT = (
    r"(?:phone|mobile|msisdn|whatsapp|telefon|fax|(?:^|[\x00-@\[-`{-\x7f])tel)"
    r"[A-Za-z0-9_. -]{0,40}[\\\"']*[ \t\r\n]*[:=]?"
    r"(?:[ \t\r\n\\\"'+(]*[0-9]|[ \t\r\n]*\[)"  # of an array, any may be one
    r"|(?:iqama|national[ _.-]?id|id[ _.-]?card|identity|residen[a-z]*[ _.-]?id|absher|ssn"
    r"|social[ _.-]security)[ -~]{0,12}[0-9]"
)
"""For Rust: ASCII words, in any case, before a number."""
FOREIGN_NUMBERS_HINT = (
    r"(?:[٠-٩۰-۹]|\\u06[6fF][0-9])(?:[ ().–-]{0,2}(?:[0-9٠-٩۰-۹]|\\u06[6fF][0-9])){6}"
    r"|[0-9][\x{a0}–][()]?[0-9]|(?:[^\x00-\x7f]|\\u[0-9a-fA-F]{4})[ \t]*[:#]?[ \t\\\"']*[+(]?[0-9]"
    r"|هاتف|جوال|موبايل|واتساب|телефон|电话|手机|هوي|قام|بطاق"
    r"|\\u06(?:47\\u062[aA]\\u0641|2[cC]\\u0648\\u0627\\u0644)"
)
"""For Rust: where one may be in text that is not ASCII."""


def latin_digits(text: str) -> str:
    """`text` with Latin digits, with the same length."""
    return text.translate(_LATIN) if not text.isascii() and _ARABIC.search(text) else text


def numbers(text: str) -> Iterator[tuple[int, int, str]]:
    """Start, end and kind of each; they may overlap."""
    lower = text.lower()
    if any(map(lower.__contains__, _PHONE_LABELS)):
        for match in _LABELLED_PHONE.finditer(text):
            yield *match.span(1), "phone"
    if any(map(lower.__contains__, _ID_LABELS)):
        for match in _LABELLED_ID.finditer(text):
            yield *match.span(1), "national_id"
    if text.islower() and text.isalnum() and text.isascii():
        return  # a letter sticks to every number
    for match in _CARD.finditer(text):
        if _is_card(match[0]) and not is_kept(text, match.start()):
            yield *match.span(), "card"
    for match in _IBAN.finditer(text):
        if end := _iban_end(match[0]):
            yield match.start(), match.start() + end, "iban"
    for match in _EMIRATES_ID.finditer(text):
        if not is_kept(text, match.start()):
            yield *match.span(), "national_id"
    for match in _PHONE.finditer(text):
        if not is_kept(text, match.start()):
            yield *match.span(), "phone"


def is_kept(text: str, start: int) -> bool:
    """Whether an id of a tenant, field or farmer begins there; these are never masked."""
    return bool(_KEPT.search(text, max(0, start - 30), start))


def _is_card(text: str) -> bool:
    """Whether a card network has such numbers, and the check digit (Luhn) is right."""
    digits = re.sub("[^0-9]", "", text)
    if not _NETWORKS.fullmatch(digits):
        return False
    doubled = [sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2]]
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


def _iban_end(text: str) -> int | None:
    """The end of the account number in `text`; None if its check digits are wrong.

    Words in capitals may follow it.
    """
    ends = [place + 1 for place, sign in enumerate(text) if sign.isalnum()]
    for end in reversed(ends):
        plain = re.sub("[^A-Z0-9]", "", text[:end])
        if len(plain) < 15:
            return None
        if end == len(text) or not text[end].isalnum():
            number = "".join(str(int(sign, 36)) for sign in plain[4:] + plain[:4])
            if int(number) % 97 == 1:
                return end
    return None
