"""A page read back, by other code than that which wrote it."""

import base64
import json
import re
import struct
import zlib

import numpy as np

LETTERS = {"u1": "B", "u2": "H", "u4": "I"}


def parts(html: str) -> tuple[dict, bytes]:
    """The JSON of a page, and the bytes of its arrays."""
    described = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1]
    packed = re.search(r'<script type="text/plain" id="numbers">(.*?)</script>', html, re.DOTALL)[1]
    return json.loads(described), zlib.decompress(base64.b64decode(packed))


def opened(value, stored: bytes):
    """The data with an array in the place of each description."""
    if isinstance(value, list):
        return [opened(one, stored) for one in value]
    if not isinstance(value, dict):
        return value
    if {"at", "type", "shape"} <= value.keys():
        return array(value, stored)
    return {name: opened(one, stored) for name, one in value.items()}


def array(described: dict, stored: bytes) -> np.ndarray:
    count = int(np.prod(described["shape"]))
    codes = struct.unpack_from(f"<{count}{LETTERS[described['type']]}", stored, described["at"])
    values = described.get("low", 0) + described.get("step", 1) * np.array(codes, np.float64)
    return (values**2 if described.get("root") else values).reshape(described["shape"])


def read(html: str) -> dict:
    """Everything on a page."""
    return opened(*parts(html))
