"""Values that programs get wrong, by the type and by the name of a field."""

from __future__ import annotations

import base64
import math
import random
import string

from google.protobuf.descriptor import FieldDescriptor

PROJECTS = ("fuzz-a", "fuzz-b")
PROFILES = ("gpt", "mlp", "conv")
ALIASES = ("prod", "canary", "a")
POLICIES = ("team", "other")
RUNS = ("one", "two", "three")

# Code points of the private use area, of three bytes each in UTF-8, that become other three bytes
# on the wire: a lone surrogate, bytes that no text has, and a sequence that is too long.
UNENCODABLE = {"\ue000": b"\xed\xa0\x80", "\ue001": b"\xff\xfe\xfd", "\ue002": b"\xe0\x80\xaf"}

_INT64 = (-(2**63), -(2**53) - 1, -(2**31) - 1, -1, 0, 1, 2, 10, 11, 24, 25, 100, 2**31)
_LARGE = (2**32, 2**53 - 1, 2**53, 2**53 + 1, 2**62, 2**63 - 2, 2**63 - 1)
INTEGERS = (*_INT64, *_LARGE)
SMALL_INTEGERS = (-(2**31), -1, 0, 1, 2, 3, 4, 5, 20, 100, 1_000, 1_001, 20_001, 2**31 - 1)
DOUBLES = (
    *(0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 1e-6, 1e-3, 1e3, 1e30, 1.0000001e30, 3.4e38, 3.5e38, 1e39),
    *(math.nan, -math.nan, math.inf, -math.inf, 5e-324, 1e-308, 2.2e-308, 1.7e308, -1e30, 1e-45),
)
FLOATS = (
    *(0.0, -0.0, 1.0, -1.0, 0.25, 3.0, 1e-7, 1e7, 1e29, 1e30, 1.1e30, 3.4e38, math.nan, math.inf),
    *(-math.inf, 1e-45, 1.2e-38, -1e-45, 1e-30),
)
BYTES = (b"", b"\x00", b"\xff" * 7, b"\x08\x96\x01", bytes(range(256)))
# Seconds of a Timestamp: the first and last that a datetime, and that the contract, can hold.
SECONDS = (-62_135_596_801, -62_135_596_800, -1, 0, 1_700_000_000, 253_402_300_799, 253_402_300_800)

_PATH_TRICKS = (
    *("..", ".", "*", "?", "", " ", "a" * 63, "a" * 64, "A", "é", "i\u0307", "{fuzz-a}", "}{", ":"),
    *("fuzz-a:profile:gpt", "gpt\x00x", "gpt\n", "gpt@prod@1", "-", "0", "a--", "\u202egpt", "%2e"),
    *("\ue000", "\ue001", "\ue002", "𝒈pt", "gpt\t", "'; FLUSHALL", "$(id)", "\\", '"'),
)
_SUFFIXES = (
    *("", "@1", "@2", "@3", "@prod", "@canary", "@0", "@01", "@-1", "@", "@999999999999999999"),
    *("@9223372036854775807", "@9223372036854775808", "@1.0", "@1e3", "@latest", "@٣", "@¹", "@@1"),
)
GROUP_NAMES = (
    *("embed.weight", "blocks.0.up.weight", "blocks.1.up.weight", "blocks.2.up.weight"),
    *("head.weight", "head.bias", "blocks.10.up.weight", "layers.0.attn.q.weight", "net.3.weight"),
    *("a.99999999999999999999.b", "blocks.9223372036854775808.up.weight", "a.1.2.3.4.5.6.7.8.9.b"),
    *("blocks.00.up.weight", "blocks.-1.up.weight", "blocks.٣.up.weight", "blocks.*.up.weight"),
    *("." * 40, "a..b", "/", "0", "module.module.x", "_orig_mod.x", "rnn.weight_hh_l0_reverse"),
    *("stages.2.0.w.weight", "experts.0.weight", "moe.experts.3.w1.weight", "Dense_0/kernel"),
    *("x" * 512, "x" * 513, "blocks." + "9" * 500, "\x00", "\x1b[31m", "\u202eabc", "ß", "ﬀ.0.w"),
    *("\ue000", "blocks.\ue001.w", "*", "**", "a.*.b", "(a+)+$", "[a-z]*", "\\", "a\nb", " "),
)
PATTERNS = (
    *("blocks_*/up/kernel", "blocks.*.up.weight", "encoder.s*.u*", "*", "**", "***", "*.*.*.*.*"),
    *("a**b", "**a**", "*0", "0*", "(*)", "[*", "\\*", "x" * 513, "", "." * 512, "*/" * 200),
)
_FILTERS = (
    *(
        "labels.team=nlp",
        "labels.team=nlp AND labels.size=small",
        'labels.team="nl\\"p"',
        "labels.",
    ),
    *(
        "labels.team=",
        "labels.team",
        "team=nlp",
        "labels.team=a AND labels.team=b",
        "labels.x=" * 50,
    ),
    *(
        'labels.team="' + "\\" * 99,
        "labels.team=nlp\n",
        "labels.a=b and labels.c=d",
        "labels.a=\x00",
    ),
    " AND ".join(f"labels.k{i}=v" for i in range(70)),
    "labels.team=" + " AND" * 200,
)
_WORDS = (
    *(
        "",
        "x",
        "Adam",
        "AdamW, fused",
        "cross-entropy",
        "char GPT",
        "a" * 255,
        "a" * 256,
        "a" * 1_025,
    ),
    *(
        "\x00",
        "\x1b]0;x\x07",
        "line\nbreak",
        "tab\t",
        "\x7f",
        "\u0085",
        "\ue000",
        "\ue001",
        "\ue002",
    ),
    *("🧪" * 64, "e\u0301", "\ufeff", "\ufffd", "%s%n{}", "{0.__class__}", "\u202e", "a" * 70_000),
)


def _token(cursor: str) -> str:
    return base64.urlsafe_b64encode(cursor.encode()).decode()


_TOKENS = (
    *("", "x", "====", "A", "AAAA", "é", "\x00", _token("gpt"), _token("a"), _token("z" * 63)),
    *map(
        _token, ("1:one", "0:one", "999999999999999:z", "1e3:one", "-1:one", ":", "1:", "1:two\n")
    ),
    *map(_token, ("1-0", "0-0", "0-1", "9999999999999999999-9999999999999999999", "1-", "+", "-")),
    *map(
        _token, ("18446744073709551616-0", "gpt\x00", "\xff", "[gpt", "(gpt", "gpt\n", "..", "٣-0")
    ),
)
_EVENT_IDS = (
    *("", "0", "0-0", "1-1", "$", "+", "-", "(1-1", "1", "999999999999999999-999999999999999999"),
    *("1-1-1", "-1-0", "1e3-0", "٣-٣", "1-1\n", "99999999999999999999-0", " 1-1"),
)
_ETAGS = ("", "0", "1", "2", "-1", "x", "9" * 15, "9" * 16, "٣", "1.0", " 1", "\x00", "+1")


def text(chance: random.Random, service: str, field: FieldDescriptor) -> str:
    """Return a text for a field.

    Args:
        chance: Where it comes from.
        service: The service whose request it stands in; tells what a name names.
        field: The field.
    """
    kind = field.containing_type.name if field.containing_type else ""
    match field.name:
        case "name" if kind == "Group":
            return group_name(chance)
        case "role" | "frozen_names" if kind in {"Group", "Layout"}:
            return group_name(chance) if chance.random() < 0.7 else chance.choice(PATTERNS)
        case "role_templates" | "pattern" | "target":
            return chance.choice(PATTERNS)
        case "name" | "profile" | "run" | "policy_name":
            return resource(chance, _collection(service, field))
        case "parent":
            return f"projects/{_identifier(chance, PROJECTS)}"
        case "alias":
            return _identifier(chance, ALIASES)
        case "filter":
            return chance.choice(_FILTERS)
        case "page_token":
            return chance.choice(_TOKENS)
        case "after_id":
            return chance.choice(_EVENT_IDS)
        case "etag":
            return chance.choice(_ETAGS)
        case "request_id" if chance.random() < 0.5:
            return f"request-{chance.randrange(1_000_000)}"
        case "key" if _is_of_map(field) and chance.random() < 0.7:
            return chance.choice(("team", "size", "a.b", "x_-", "a" * 63, "a" * 64, "A", ""))
    return any_text(chance)


def any_text(chance: random.Random) -> str:
    """Return a text of any kind."""
    if chance.random() < 0.7:
        return chance.choice(_WORDS)
    alphabet = chance.choice((string.printable, string.ascii_lowercase, "a.0*/", "é\u4e2d🧪\x00"))
    return "".join(chance.choices(alphabet, k=chance.choice((1, 2, 5, 30, 300))))


def group_name(chance: random.Random) -> str:
    """Return the name of a group."""
    if chance.random() < 0.8:
        return chance.choice(GROUP_NAMES)
    parts = chance.choices(("blocks", "layers", "0", "1", "12", "w", "experts", "*", "Net_3"), k=5)
    return chance.choice("./").join(parts)


def resource(chance: random.Random, collection: str) -> str:
    """Return the name of a resource, more often than not a good one."""
    known = {"profiles": PROFILES, "policies": POLICIES, "runs": RUNS}.get(collection, PROFILES)
    name = f"projects/{_identifier(chance, PROJECTS)}/{collection}/{_identifier(chance, known)}"
    if collection != "runs" or chance.random() < 0.05:
        name += chance.choice(_SUFFIXES[:5]) if chance.random() < 0.7 else chance.choice(_SUFFIXES)
    if chance.random() < 0.05:
        name = chance.choice((
            name.upper(),
            name + "/",
            "/" + name,
            name * 9,
            name.replace("/", ""),
        ))
    return name


def _is_of_map(field: FieldDescriptor) -> bool:
    kind = field.containing_type
    return kind is not None and kind.GetOptions().map_entry


def _identifier(chance: random.Random, known: tuple[str, ...]) -> str:
    return chance.choice(known) if chance.random() < 0.9 else chance.choice(_PATH_TRICKS)


def _collection(service: str, field: FieldDescriptor) -> str:
    match field.name:
        case "profile":
            return "profiles"
        case "policy_name":
            return "policies"
        case "run":
            return "runs"
    return {"RunService": "runs", "PolicyService": "policies"}.get(service, "profiles")
