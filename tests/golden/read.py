"""Reads the golden vectors as PROTOCOL.md says it, with the standard library alone, and writes them again.

Usage: read.py FOLDER. Exits with 1 when a vector means something else here.
"""
import pathlib
import struct
import sys

WIDE = {251: "<H", 252: "<I", 253: "<Q"}


def number(data, at):
    if data[at] in WIDE:
        form = WIDE[data[at]]
        return struct.unpack_from(form, data, at + 1)[0], at + 1 + struct.calcsize(form)
    assert data[at] < 251, "a number of 128 bits"
    return data[at], at + 1


def write_number(value):
    if value < 251:
        return bytes([value])
    marker = 251 if value < 1 << 16 else 252 if value < 1 << 32 else 253
    return bytes([marker]) + struct.pack(WIDE[marker], value)


def read(form, data, at):
    """Reads one value of the form: number, bool, text, a count of bytes, [form], ?form as a pair, {variant: forms} or a tuple of forms."""
    if form == "number":
        return number(data, at)
    if form == "bool":
        assert data[at] < 2, "neither true nor false"
        return data[at] == 1, at + 1
    if form == "text":
        length, at = number(data, at)
        assert at + length <= len(data), "a text that ends too late"
        return data[at:at + length].decode(), at + length
    if isinstance(form, int):
        assert at + form <= len(data), "bytes that end too late"
        return data[at:at + form], at + form
    if isinstance(form, list):
        count, at = number(data, at)
        values = []
        for _ in range(count):
            value, at = read(form[0], data, at)
            values.append(value)
        return values, at
    if isinstance(form, dict):
        variant, at = number(data, at)
        value, at = read(form[variant], data, at)
        return (variant, value), at
    values = []
    for part in form:
        value, at = read(part, data, at)
        values.append(value)
    return tuple(values), at


def write(form, value):
    if form in ("number", "bool"):
        return write_number(int(value))
    if form == "text":
        return write_number(len(value.encode())) + value.encode()
    if isinstance(form, int):
        return value
    if isinstance(form, list):
        return write_number(len(value)) + b"".join(write(form[0], item) for item in value)
    if isinstance(form, dict):
        return write_number(value[0]) + write(form[value[0]], value[1])
    return b"".join(write(part, item) for part, item in zip(form, value, strict=True))


def maybe(form):
    return {0: (), 1: form}


UNIT = {0: (), 1: (), 2: (), 3: (), 4: ()}
BESIDE = (maybe("text"), [("number", "text")])
ERROR = ("number", "text", maybe("text"), maybe("text"), maybe("number"), maybe("text"))
FORMS = {
    0x01: ("number", "number", "number", "text"),
    0x02: ("number", "number", "number", "number", "number", "number", "number", "text"),
    0x03: ("number", "text"),
    0x10: BESIDE,
    0x11: BESIDE,
    0x13: ("text", "number"),
    0x20: BESIDE,
    0x21: BESIDE,
    0x22: ("number", "number", "number"),
    0x30: ("text", "text"),
    0x32: ("text", UNIT, "bool", [("text", "text")]),
    0x34: ("text",),
    0x35: ("number",),
    0x36: ("text", UNIT),
    0x40: ("text",),
    0x41: ("text", UNIT, "number", "number"),
    0x42: ("number",),
    0x60: ("number", {0: ("number", "number", "number"), 1: ("text", "text")}),
    0x61: ("text",),
    0x62: (UNIT,),
    0x63: (UNIT, "number", "text"),
    0x72: ("number", "number", "number", "number"),
}
DURABILITY = maybe(UNIT)
CLAIM = ("bool", "number", "number", "number", DURABILITY)
CONDITION = {0: (), 1: (), 2: ("number",)}
FENCE = maybe(("text", "number"))
STEP = {0: (), 1: ("number", "number", "number", "number"), 2: ()}
SELECTION = {0: ("text",), 1: ("text",)}
STATE = ("number", "number", "number", "number")
LISTED = ("bool", [(UNIT, "text", "number", "number", STATE)])
CHANGED = ("number", UNIT)
GRANTED = ("number", "number", UNIT)
# What a `coordinate` holds depends on its operation, and so does its `outcome`; a `notice` says what it tells.
ASKED = {
    1: (UNIT, "number", DURABILITY),
    2: ("number",),
    3: ("number",),
    4: (16,),
    16: ("text", UNIT, CLAIM),
    17: ("text", "number", "number", CLAIM),
    18: ("text", CLAIM),
    19: ("number",),
    20: ("text",),
    21: ("number",),
    22: ("text", "number", "bool"),
    32: ("text", CONDITION, "number", "number", FENCE, DURABILITY),
    33: ("text",),
    34: ("text", CONDITION, FENCE, DURABILITY),
    35: (SELECTION, "text", "number"),
    36: (SELECTION, maybe("number")),
    37: ("number",),
    38: (SELECTION, "number", "number"),
    39: ([("text", CONDITION, STEP)], FENCE, DURABILITY),
    40: ("text", "text", "text", "number"),
    48: ("text", maybe("text"), "number", "number", "number", "number", UNIT, FENCE, DURABILITY),
    49: ("text", UNIT, "number", "number", "bool", FENCE),
    50: ("text", "number", FENCE),
    51: ("text", "number", "number", "text", "bool", FENCE),
    52: ("text", "number"),
    53: ("text",),
    54: ("text", FENCE),
    55: ("text", "number", "number", "number"),
    56: ("number",),
}
CAME = {1: GRANTED, 2: GRANTED, 4: ("number",), 16: GRANTED, 17: GRANTED, 18: GRANTED, 20: ("number",), 22: ("number", "number")}
CAME |= {32: CHANGED, 33: ("text", STATE), 34: CHANGED, 35: LISTED, 36: ("number",), 38: LISTED}
CAME |= {39: (["number"], UNIT), 40: LISTED}
IDENTITY = {0: ("number", "number", "number"), 1: ("text", "text")}
DELIVERED = ("text", "number", "text", *("number",) * 5, IDENTITY, maybe("text"))
PEEKED = ("text", "number", UNIT, *("number",) * 4, IDENTITY, maybe("text"), "number", "number")
CAME |= {48: ("number", "text", "bool", "number", UNIT), 49: DELIVERED, 51: ("bool",), 52: ("bool", [PEEKED])}
CAME |= {53: ("number",) * 14, 54: ("number",)}
TOLD = {6: DELIVERED, 1: ("number", "number", "text"), 2: ("number",), 4: (UNIT, "text", STATE)}
TOLD |= {8: ("number", "number", "text", "number", UNIT)}
NUMBERED = {0x70: ASKED, 0x71: CAME, 0x73: TOLD}
# What a `done` holds depends on the operation that it answers.
DONE = {"done_registered": ("number", "bool"), "done_subscribed": ("number",), "done_published": ("number", "number")}
HEADER = struct.Struct("<BBBBIHHIQIIQ")


def check(name, data):
    kind, flags, _, descriptors, payload_len, envelope_len, _, handle, *_ = HEADER.unpack_from(data)
    assert descriptors == 0 and len(data) == HEADER.size + envelope_len + payload_len, "lengths"
    if envelope_len == 0:
        return
    envelope = data[HEADER.size:HEADER.size + envelope_len]
    if flags & 1:
        form = ERROR
    elif kind in NUMBERED:
        form = NUMBERED[kind][handle]
    else:
        form = DONE[name] if kind == 0x50 else FORMS[kind]
    value, end = read(form, envelope, 0)
    assert end == envelope_len, "bytes behind the last field"
    assert write(form, value) == envelope, f"{value} is written differently"


def main():
    files = sorted(pathlib.Path(sys.argv[1]).glob("*.hex"))
    for file in files:
        lines = file.read_text().splitlines()
        data = bytes.fromhex("".join(line.split("#")[0] for line in lines))
        try:
            check(file.stem, data)
        except (AssertionError, KeyError, IndexError, UnicodeDecodeError, struct.error) as error:
            sys.exit(f"{file.name}: {error!r}")
    print(f"{len(files)} vectors")


main()
