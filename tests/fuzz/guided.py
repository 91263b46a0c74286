"""Coverage-guided fuzzing from bytes to an answer: ``python -m tests.fuzz.guided``.

Needs atheris, which is available only for some machines and Python versions. Without it, the
command prints a message and does nothing. Failing inputs are written to ``out/fuzz/``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

_FOLDER = Path("out/fuzz")
_MAX_BYTES = 4_096
_NAMES = (
    "ProfileService/RegisterProfile",
    "AdvisorService/RecommendLROnce",
    "ProfileService/ValidateLayout",
    "PolicyService/SetPolicy",
)


def main() -> None:
    """Run with the options of the command line; libFuzzer ends the process."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.guided", description=__doc__)
    parser.add_argument("--inputs", type=int, default=300_000, help="maximum number of inputs")
    parser.add_argument("--seconds", type=int, default=60, help="maximum time in seconds")
    parser.add_argument("--seed", type=int, default=1, help="seed of the mutations, above 0")
    options = parser.parse_args()
    try:
        import atheris
    except ImportError:
        print("skipped: atheris is not installed (it has no package for this Python or machine)")
        return
    with atheris.instrument_imports(include=["advisor.wire", "advisor.policy"]):
        # Modules that are already imported cannot be instrumented, so ours are imported here.
        from tests.fuzz import valid
        from tests.fuzz.decoding import TARGETS, take_bytes
    kinds = list(TARGETS)

    def take(data: bytes) -> None:
        if data:
            take_bytes(kinds[data[0] % len(kinds)], data[1:])

    _FOLDER.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="fslr-fuzz-") as seeds:
        _write_seeds(Path(seeds), valid)
        arguments = [
            *(sys.argv[0], seeds, f"-runs={options.inputs}", f"-max_total_time={options.seconds}"),
            *(f"-seed={options.seed}", f"-max_len={_MAX_BYTES}"),
            *(f"-artifact_prefix={_FOLDER}/guided-", "-timeout=20", "-rss_limit_mb=1024"),
        ]
        atheris.Setup(arguments, take)
        atheris.Fuzz()


def _write_seeds(folder: Path, valid: ModuleType) -> None:
    """Write valid requests, each with the number of its kind as the first byte."""
    for number, name in enumerate(_NAMES):
        for i, request in enumerate(valid.requests(name)):
            data = bytes([number]) + request.SerializeToString(deterministic=True)
            (folder / f"{number}-{i}").write_bytes(data)


if __name__ == "__main__":
    main()
