"""Values that programs often handle wrongly, by the type and the name of a field."""

from __future__ import annotations

import base64
import math

PROJECTS = ("fuzz-a", "fuzz-b")
PROFILES = ("gpt", "mlp", "conv")
ALIASES = ("prod", "canary", "a")
POLICIES = ("team", "other")
RECIPES = ("ours", "unused")
RUNS = ("one", "two", "three")

# Private-use code points, three bytes each in UTF-8, are replaced on the wire by three other bytes:
# a lone surrogate, bytes that UTF-8 never contains, and an overlong sequence.
UNENCODABLE = {"\ue000": b"\xed\xa0\x80", "\ue001": b"\xff\xfe\xfd", "\ue002": b"\xe0\x80\xaf"}

_INT64 = (-(2**63), -(2**53) - 1, -(2**31) - 1, -1, 0, 1, 2, 10, 11, 24, 25, 100, 2**31)
_LARGE = (2**32, 2**53 - 1, 2**53, 2**53 + 1, 2**62, 2**63 - 2, 2**63 - 1)
# The first and last second of a Timestamp, and the next ones outside its range.
_SECONDS = (-62_135_596_801, -62_135_596_800, 253_402_300_799, 253_402_300_800)
INTEGERS = (*_INT64, *_LARGE, *_SECONDS)
DOUBLES = (
    *(0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 1e-6, 1e-3, 1e3, 1e30, 1.0000001e30, 3.4e38, 3.5e38, 1e39),
    *(math.nan, -math.nan, math.inf, -math.inf, 5e-324, 1e-308, 2.2e-308, 1.7e308, -1e30, 1e-45),
)
FLOATS = (
    *(0.0, -0.0, 1.0, -1.0, 0.25, 3.0, 1e-7, 1e7, 1e29, 1e30, 1.1e30, 3.4e38, math.nan, math.inf),
    *(-math.inf, 1e-45, 1.2e-38, -1e-45, 1e-30),
)

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
WORDS = (
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

_PROJECT_NAMES = (*(f"projects/{project}" for project in PROJECTS), *_PATH_TRICKS)
_RESOURCES = (
    *(f"projects/{PROJECTS[0]}/profiles/gpt{suffix}" for suffix in _SUFFIXES),
    *(f"projects/{PROJECTS[0]}/profiles/{trick}" for trick in _PATH_TRICKS),
    *(f"projects/{trick}/profiles/gpt" for trick in _PATH_TRICKS),
    *(f"projects/{PROJECTS[0]}/runs/{name}" for name in (*RUNS, *_PATH_TRICKS)),
    *(f"projects/{PROJECTS[0]}/policies/{name}" for name in (*POLICIES, *_PATH_TRICKS)),
    *(f"projects/{PROJECTS[0]}/recipes/{name}" for name in (*RECIPES, *_PATH_TRICKS)),
    *("mup-adam", "mup-adma", "mup-adam@1"),
)
# Values for string fields by the name of the field.
BY_FIELD = {
    "name": _RESOURCES,
    "profile": _RESOURCES,
    "run": _RESOURCES,
    "policy_name": _RESOURCES,
    "recipe": _RESOURCES,
    "parent": _PROJECT_NAMES,
    "alias": (*ALIASES, *_PATH_TRICKS),
    "filter": _FILTERS,
    "page_token": _TOKENS,
    "after_id": _EVENT_IDS,
    "etag": _ETAGS,
    "key": ("team", "size", "a.b", "x_-", "a" * 63, "a" * 64, "A"),
}

METADATA = (
    ("fslr-actor", "somebody"),
    ("fslr-actor", ""),
    ("fslr-actor", "%"),
    ("fslr-actor", "%ff%fe%00%0a%1b[31m"),
    ("fslr-actor", "%ED%A0%80"),
    ("fslr-actor", "%zz%%%2"),
    ("fslr-actor", "a" * 256),
    ("fslr-actor", "a" * 257),
    ("fslr-actor", "%C3%A9" * 256),
    ("fslr-actor-bin", bytes(range(256))),
    ("fslr-actor-bin", b""),
    ("x-" + "k" * 200, "v"),
    ("authorization", "Bearer "),
    ("authorization", "Basic Og=="),
    ("traceparent", "00-" + "0" * 32 + "-" + "0" * 16 + "-00"),
    ("traceparent", "ff-zz"),
    ("grpc-previous-rpc-attempts", "-1"),
)
