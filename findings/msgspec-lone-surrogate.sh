#!/usr/bin/env bash
# msgspec 0.22.0: an escaped lone surrogate at the end of a string is "Input data was truncated".
#
# One would guess: complete JSON is never called truncated. A field of type msgspec.Raw is handed on as it
# is, so what its strings say does not matter; where a string is read, the error names the escape.
#
# What happens: both fail with "Input data was truncated", though Python's json module reads the input.
# With another character behind the escape the error names the surrogate, and no longer the length.
#
# Why it matters: JavaScript writes such escapes (it cuts a string in the middle of an emoji). Whoever
# reads the error looks for a message that was cut on its way, and there is none.
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
