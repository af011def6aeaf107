"""The words and shapes in the steps for messages (`template_steps`)."""

import re

from sahool_dlq.deadletter.fingerprint.template_languages import KEPT

__all__ = [
    "CLOCK",
    "CODE_KEY",
    "CODE_PREFIX",
    "COUNTED",
    "DATA_FILE",
    "DAY",
    "DOMAIN",
    "FEW_WORDS",
    "IPV6",
    "MAILBOX",
    "MINUTES",
    "MONTH",
    "NAMED",
    "NAMER",
    "NOT_THERE",
    "NUMBER_WORD",
    "PREFIX",
    "THING",
    "TIME_UNIT",
    "TYPE",
    "UNIT",
    "UUID",
    "VALUE",
    "VALUE_OF",
    "any_case",
]


def any_case(words: str) -> str:
    """Any of the ASCII words, in any case: `(?i)` folds differently in each engine."""
    return "(?:" + "|".join(re.sub("[A-Za-z]", _both_cases, w) for w in words.split()) + ")"


def _both_cases(letter: re.Match[str]) -> str:
    return f"[{letter[0].upper()}{letter[0].lower()}]"


# Words after which a quoted name belongs to the code or the schema, not to this one message.
NAMER = (
    "(?:"
    + any_case(
        "constraint relation table columns? attribute operation index schema sequence view "
        "function method class module type field argument parameter property variable option "
        "named? reading invoke because import extension directive filter codec keyword "
        "model entity object enum package"
    )
    + "|(?:for|in|array|[Mm]issing|[Rr]equired|[Uu]nknown|[Uu]nexpected|[Dd]uplicate) key"
    "|value of|at path)"
)
# … and before which.
NAMED = (
    "(?: object |:? (?:is |was |are )?(?:a |the )?(?:"
    + any_case(
        "required missing unexpected field column attribute property parameter argument option "
        "method function table relation command"
    )
    + "))"
)
# Words after which a quoted text is a value, blanks and all.
VALUE_OF = (
    "(?:"
    + any_case(
        "value string input literal integer float numeric number uuid date timestamp boolean token "
        "text parse parsing invalid received got found entry convert file to for of from by"
    )
    + "|base [0-9]+|time data|enum [A-Za-z0-9_.]+:)"
)
# Words that have a value or an id, and words about one.
THING = any_case(
    "value string literal input text token got received number id order user customer tenant "
    "account device sensor invoice product item sku session job task message event host email "
    "address url file topic subject bucket"
)
NOT_THERE = (
    "(?:not found|invalid|(?:is )?not (?:a )?valid|unknown|does not exist|already exists|expired"
    "|not allowed|rejected|could not be)"
)
TYPE = (
    "(?:NoneType|int|str|float|bool|bytes|bytearray|list|dict|tuple|set|frozenset|object|type|"
    "function|method|coroutine|generator|undefined|null|datetime|date|Decimal|UUID)"
)
CODE_KEY = (
    f"(?:[A-Za-z]*_|{any_case('err error exit status http reply response return')})?"
    + any_case("code status errno sqlstate error")
)
# Before the numbers of errors that somebody lists: AADSTS50011, IDX10223, CS8602, AMQ9202E.
CODE_PREFIX = (
    "(?:AADSTS|AADB2C|IDX|MSIS|NETSDK|MSB|SYSLIB|CS|TS|BC|FS|NU|LNK|AMQ|CSQ|SQL|DPY|DPI|TNS|PLS"
    "|RMAN|OCI)"
)
NUMBER_WORD = "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
TIME_UNIT = "second|minute|hour|day|week|month"
MONTH = "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*"
DAY = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? +"
_ZONE = "(?: ?(?:Z|UTC|GMT|AM|PM|[+-][0-9]{2}:?[0-9]{2}))?"
CLOCK = "[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:[.,][0-9]+)?" + _ZONE
MINUTES = "[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?" + _ZONE
UUID = r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
_HEX4 = "[0-9a-fA-F]{1,4}"
IPV6 = (
    f"(?:(?:::1|::):[0-9]{{4,5}}|(?:{_HEX4}:){{7}}{_HEX4}|(?:{_HEX4}:){{1,6}}(?::{_HEX4}){{1,6}}|::{_HEX4}(?::{_HEX4}){{0,6}}"
    f"|(?:{_HEX4}:){{1,7}}:)"
)
VALUE = (
    r"(?:[A-Za-z_.]+\([^()]*\)|[A-Za-z_.]+\[[^\[\]]*\]|[bru]?'[^']*'|[bru]?\"[^\"]*\"|\{(?:[^{}]|\{[^{}]*\})*\}|\[(?:[^\[\]]|\[[^\[\]]*\])*\]"
    r"|[^ ,;()\[\]{}'\"<>" + KEPT + r"-][^ ,;()\[\]{}'\"<>]*|-[0-9]+)"
)
FEW_WORDS = "'(?:[^': X]+ )?[^': X]*[0-9][^': X]*(?: [^': X]*)?'".replace("X", KEPT)
UNIT = (
    "(?:[hd]|[Bb]|%| ?(?:s|m|[mun]s|milliseconds?|seconds?|minutes?|hours?|days?|weeks?|bytes?|"
    "secs?|mins?|hrs?|[KMGTkmgt]i?[Bb]))"
)
COUNTED = (
    "(?:attempt|argument|broker|byte|character|column|document|element|error|event|feature|field"
    "|file|item|key|line|message|node|part|partition|point|record|request|row|sample|sub-exception"
    "|task|time|value|worker)"
)
DATA_FILE = (
    "csv|tsv|jsonl?|ndjson|geojson|parquet|avro|orc|tiff?|jp2|nc|grib2?|shp|gpkg|kml|zip|t?gz|bz2"
    "|zst|txt|log|pdf|png|jpe?g|xlsx?"
)
PREFIX = "(^|[^0-9A-Za-z_" + KEPT + "])"

# Of any script, as addresses may be, but for those that are written without blanks.
_IN_WORD = "A-Za-z0-9\u00c0-\u1fff"
MAILBOX = f"[{_IN_WORD}._%+-]+(?:'[{_IN_WORD}._%+-]+)*"
DOMAIN = (
    rf"(?:[{_IN_WORD}_-]+(?:\.[{_IN_WORD}_-]+)*\."
    "(?:[A-Za-z]{2,}|[\u00c0-\uffff]{2,}|xn--[a-z0-9]+)"
    r"|localhost|\[[0-9A-Fa-f.:]+\])"
)
