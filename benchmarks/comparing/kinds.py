"""The kinds of figures: which direction is better, and how much change is noise.

The path of a figure is its keys. Entries of lists are named by the values that identify them
(``measuring/8, 128, 36/step_ratio``). The first pattern that matches the end of a path decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Final

Path = tuple[str, ...]


class Better(Enum):
    """The direction in which a figure gets better."""

    LOWER = auto()
    HIGHER = auto()
    NEARER_ZERO = auto()
    NEITHER = auto()  # a baseline or a fact: changes are shown but not judged
    SETTING = auto()  # a setting: figures with different settings are not compared
    IGNORED = auto()  # covered by other figures


@dataclass(frozen=True, slots=True)
class Kind:
    """The kind of a figure.

    Attributes:
        better: The direction in which it gets better.
        relative: Tolerance if no spread is known, relative to the smaller of the two values.
        absolute: Tolerance in the unit of the figure; the larger of both tolerances counts.
        is_time: Whether it depends on the machine, so that it is compared only on the same one.
        is_worst_if_missing: Whether null means that every training diverged.
    """

    better: Better
    relative: float = 0.0
    absolute: float = 0.0
    is_time: bool = False
    is_worst_if_missing: bool = False


_CACHED_PATHS = 65_536  # more than all stored files have
_NEITHER = Kind(Better.NEITHER)
_SETTING = Kind(Better.SETTING)
_IGNORED = Kind(Better.IGNORED)
_TIME = Kind(Better.LOWER, relative=0.25, is_time=True)
_SPEED = Kind(Better.HIGHER, relative=0.25, is_time=True)
_SPEED_RATIO = Kind(Better.HIGHER, relative=0.1)
_RATIO = Kind(Better.LOWER, relative=0.1)
_BYTES = Kind(Better.LOWER, relative=0.1)
_NATS = Kind(Better.LOWER, absolute=0.02, is_worst_if_missing=True)
_OCTAVES = Kind(Better.NEARER_ZERO, absolute=1.0, is_worst_if_missing=True)
_OTHERS_TIME = Kind(Better.NEITHER, is_time=True)

KINDS: Final[tuple[tuple[str, Kind], ...]] = (
    # Spreads are read with their figures.
    ("*_spread/*", _IGNORED),
    ("regret_spread", _IGNORED),
    ("regrets/*", _IGNORED),
    ("*_by_seed/*", _IGNORED),
    ("by_seed/*", _IGNORED),
    ("standard_error", _IGNORED),
    ("spread/*", _IGNORED),
    ("spread/*/*", _IGNORED),
    ("sweep/*/*", _IGNORED),
    ("*_interval/*", _IGNORED),
    ("*_interval", _IGNORED),  # null with a single seed
    ("at_edge/*", _IGNORED),
    ("rows/*/noise/*", _IGNORED),
    ("rows/*/worst_seed", _IGNORED),
    ("rows/*/losses/*/*", _IGNORED),
    ("rows/*/losses/*/*/*", _IGNORED),
    ("worst_regret", Kind(Better.LOWER, absolute=0.05, is_worst_if_missing=True)),
    # How it was measured.
    ("rows/*/definition/*", _SETTING),
    ("rows/*/definition/*/*", _SETTING),
    ("ours/measurements", _NEITHER),
    ("paper/measurements", _NEITHER),
    ("measurements", _SETTING),
    ("parameters", _SETTING),
    ("groups", _SETTING),
    ("streams", _SETTING),
    ("sse_clients", _SETTING),
    ("points", _SETTING),
    ("steps", _SETTING),
    ("seed", _SETTING),
    ("blocks", _SETTING),
    ("width", _SETTING),
    ("base_width", _SETTING),
    ("big_width", _SETTING),
    ("profiles", _SETTING),
    ("cases/*/base", _SETTING),
    ("cases/*/big", _SETTING),
    ("bases/*/base", _SETTING),
    ("bases/*/big", _SETTING),
    ("base_steps", _SETTING),
    ("weight_decay", _SETTING),
    ("seeds", _NEITHER),
    ("seeds/*", _NEITHER),
    ("cores", _NEITHER),
    ("processes", _NEITHER),
    ("measured_steps/*", _NEITHER),
    # Baselines, settings other than the defaults, and properties of the machine.
    *(
        (pattern, _NEITHER)
        for method in ("standard", "mup", "depth_mup", "completep", "flerm")
        for pattern in (
            f"cases/*, {method}/*",
            f"cases/*, {method}/octaves/*",
            f"methods/{method}/*",
            f"methods/{method}/*/*",
        )
    ),
    ("methods/*/cases", _NEITHER),
    ("methods/*/*/cases", _NEITHER),
    # They follow from the cases.
    ("pairs/*/*", _NEITHER),
    ("axes/*/*", _NEITHER),
    ("axes/*/*/*", _NEITHER),
    ("choice/*", _NEITHER),
    ("choice/*/*", _NEITHER),
    ("choice/*/*/*", _NEITHER),
    ("told", Kind(Better.HIGHER, absolute=2.0)),
    ("within", Kind(Better.HIGHER, absolute=2.0)),
    ("verdict", _NEITHER),
    ("figures_of", _NEITHER),
    ("base_octave", _NEITHER),
    ("octaves/base", _NEITHER),
    ("seconds/run", _TIME),
    ("max_difference", Kind(Better.LOWER, absolute=1e-12)),
    ("with_rule", Kind(Better.HIGHER)),
    ("tensors", _NEITHER),  # null for a recipe without rules
    ("rows/*, other/*", _NEITHER),
    ("rows/*, other/cases/*/*", _NEITHER),
    ("kronecker/*", _NEITHER),
    ("full/*", _NEITHER),
    ("iid/*", _NEITHER),
    ("paper/*", _NEITHER),
    ("echo_per_second", _OTHERS_TIME),
    ("plain_ms", _OTHERS_TIME),
    ("plain_seconds", _OTHERS_TIME),
    ("seconds/*", _OTHERS_TIME),
    ("rows/*/seconds", _NEITHER),
    ("rows/*/base", _NEITHER),
    ("rows/*/plain_same_lr", _NEITHER),
    ("rows/*/best_plain", _NEITHER),
    ("*_multiplier", _NEITHER),
    ("base_loss", _NEITHER),
    ("plain_loss", _NEITHER),
    ("best_plain_loss", _NEITHER),
    ("sweep/*", _NEITHER),
    ("plain_sweep/*", _NEITHER),
    ("*learning_rate", _NEITHER),
    ("multiplier_*", _NEITHER),
    # Across frameworks.
    ("torch_jax_rate_gap", Kind(Better.LOWER, absolute=1e-5)),
    ("rmse_torch", _NEITHER),
    ("rmse_jax", _NEITHER),
    ("rmse_ratio", _RATIO),
    ("abs_log_bias_jax", Kind(Better.LOWER, absolute=0.01)),
    ("recompiles", Kind(Better.LOWER)),
    ("probe_cost_jax", _RATIO),
    ("probe_costs_jax/*", _RATIO),
    ("timed_width", _SETTING),
    ("cross_framework/plain", _NEITHER),
    ("cross_framework/advised", Kind(Better.LOWER, absolute=0.05)),  # one seed
    # Transfer.
    ("operations", _NEITHER),
    ("faults", _NEITHER),
    ("inputs", _NEITHER),
    ("methods", _NEITHER),
    ("lost", Kind(Better.LOWER)),
    ("doubled", Kind(Better.LOWER)),
    ("wrong_version", Kind(Better.LOWER)),
    ("non_finite", Kind(Better.LOWER)),
    ("blocked", Kind(Better.LOWER)),
    ("logged_defects", Kind(Better.LOWER)),
    ("internal", Kind(Better.LOWER)),
    ("crashes", Kind(Better.LOWER)),
    ("unexpected", Kind(Better.LOWER)),
    ("kib_growth", Kind(Better.LOWER, absolute=16 * 1024)),
    ("regret_error", _IGNORED),
    ("chance", _IGNORED),
    ("recordings", _SETTING),
    ("base_warm_up", _SETTING),
    ("warm_up", _SETTING),
    ("warm_ups/*/change", _NEITHER),
    ("warm_ups/*/error", _IGNORED),
    ("ranks/*", _SETTING),
    ("adapters/*/octave", _SETTING),
    ("adapters/*/scale", _SETTING),
    ("adapters/*/base", _NATS),
    ("adapters/*/plain", _NATS),
    ("separate", _NATS),
    ("joint", _NATS),
    ("adapters/*/change", _NEITHER),
    ("adapters/*/error", _IGNORED),
    ("noise/*/signal_of_*", _NEITHER),
    ("noise/*/predicted", _NEITHER),
    ("base_widths/*/octave", _NEITHER),
    ("smoothing", _SETTING),
    ("distance", Kind(Better.LOWER, absolute=0.05)),
    ("worst", _NATS),
    ("loss", _NATS),
    ("advised", _NATS),
    ("harmed", Kind(Better.LOWER)),
    ("failures", Kind(Better.LOWER)),
    ("wins", _NEITHER),
    ("kept", _NEITHER),
    ("diverged", Kind(Better.LOWER)),
    ("with", _NATS),
    ("without", _NEITHER),
    ("within_one_octave", Kind(Better.HIGHER, absolute=0.05)),
    ("median_regret", Kind(Better.LOWER, absolute=0.01, is_worst_if_missing=True)),
    ("shift", _OCTAVES),
    ("regret", _NATS),
    ("regret_*", _NATS),
    ("advised_loss", Kind(Better.LOWER, absolute=0.05)),  # one seed
    ("gain", Kind(Better.HIGHER, absolute=0.05)),
    ("search_saved_with_base", Kind(Better.HIGHER, absolute=0.05)),
    ("search_saved", Kind(Better.HIGHER, absolute=0.05)),
    ("unanswered", Kind(Better.LOWER)),
    ("extra_cost_percent", Kind(Better.LOWER, absolute=2.0)),
    # Optimizers.
    ("deviation", Kind(Better.LOWER, absolute=0.01)),
    ("tolerance", _SETTING),
    # Measuring.
    ("rmse", _RATIO),
    ("stated_error", _NEITHER),
    ("abs_log_bias", Kind(Better.LOWER, absolute=0.01)),
    ("noise", _NEITHER),
    ("worst_bias", Kind(Better.NEARER_ZERO, absolute=0.05)),
    ("probes", _NEITHER),
    ("variance_times_cost", Kind(Better.LOWER, relative=0.25)),
    ("control/*", _NEITHER),  # the noise of the others
    ("overhead", Kind(Better.LOWER, absolute=0.01)),
    ("*_overhead", Kind(Better.LOWER, absolute=0.01)),
    ("stepping_ms*", _NEITHER),  # below what a busy machine shows
    ("extra_memory_ratio", Kind(Better.LOWER, absolute=0.05)),
    ("relative_error", _RATIO),
    ("time_ratio", _RATIO),
    ("time_ratio_k4", _RATIO),
    ("step_ratio", _RATIO),
    ("rounded_ratio", _RATIO),
    ("slow", Kind(Better.LOWER)),
    ("first", Kind(Better.LOWER, relative=0.25)),
    ("later", Kind(Better.LOWER, relative=0.25)),
    ("step_s", _OTHERS_TIME),
    ("variance_between_examples", _NEITHER),
    ("regrouped_ratio", _NEITHER),  # the optimizer's own
    # The service.
    ("sent", _NEITHER),
    ("groups/*", _SPEED),
    ("peers/*", Kind(Better.HIGHER, relative=0.25)),
    ("throughput_ratio", _SPEED_RATIO),
    ("profiles_ratio", _SPEED_RATIO),
    ("workers_*_ratio", _SPEED_RATIO),
    ("p99_ratio", Kind(Better.LOWER, relative=0.25)),
    ("get_ratio", _RATIO),
    ("alias_ratio", _RATIO),
    ("list_ratio", _RATIO),
    ("filter_ratio", _RATIO),
    ("bytes", _BYTES),
    ("first_view_*ms", _TIME),
    ("draw_ms_10k_groups", _TIME),
    ("web_mib_without_pages", _NEITHER),
    ("web_mib_*", _BYTES),
    ("rpc_ratio", _SPEED_RATIO),
    ("rpc_per_s_without_pages", _OTHERS_TIME),
    ("rpc_per_s_with_pages", _SPEED),
    ("sse_events_per_s", _SPEED),
    ("bytes_per_*", _BYTES),
    ("redis_bytes_per_*", _BYTES),
    # By unit.
    ("per_second", _SPEED),
    ("us_per_group", _TIME),
    ("ns_per_parameter", _TIME),
    ("*_ms", _TIME),
    ("*seconds", _TIME),
    ("*_s", _TIME),
)


@lru_cache(_CACHED_PATHS)
def kind_of(path: Path) -> Kind | None:
    """Return the kind of a figure, or None if it is unknown.

    Args:
        path: Path of the figure.
    """
    return next((kind for pattern, kind in KINDS if _matches(path, pattern.split("/"))), None)


def _matches(path: Path, pattern: list[str]) -> bool:
    ends = path[-len(pattern) :]
    return len(ends) == len(pattern) and all(map(fnmatchcase, ends, pattern))
