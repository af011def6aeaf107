#!/usr/bin/env bash
# msgspec 0.22.0: an escaped lone surrogate at the end of a string gives "Input data was truncated".
#
# Expected: complete JSON is never reported as truncated. A field of type msgspec.Raw is passed on as it is,
# so the content of its strings does not matter. For a field that is decoded, the error names the escape.
#
# Observed: both fail with "Input data was truncated", while Python's json module reads the input. If another
# character follows the escape, the error names the surrogate instead.
#
# Consequence: JavaScript writes such escapes when it cuts a string in the middle of an emoji. A person who
# reads the error looks for a message that was truncated on its way, and finds none.
source "$(dirname "$0")/lib.sh"
install msgspec==0.22.0
try "msgspec 0.22.0" <<'PYTHON'
import json, sys
import msgspec

class Passed(msgspec.Struct):
    name: str
    data: msgspec.Raw

class Read(msgspec.Struct):
    name: str
    data: list[str]

def says(kind, body):
    json.loads(body)  # it is complete
    try:
        msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        return str(error)
    return "no error"

last = b'{"name": "x", "data": ["\\ud83d"]}'
inner = b'{"name": "x", "data": ["\\ud83d, and more"]}'
said = {(kind.__name__, where): says(kind, body) for kind in (Passed, Read) for where, body in (("last", last), ("inner", inner))}
for (kind, where), words in said.items():
    print(f"{kind:6} surrogate {where:5}: {words}")
sys.exit(0 if all(("truncated" in words) is (where == "last") for (_, where), words in said.items()) else 1)
PYTHON
