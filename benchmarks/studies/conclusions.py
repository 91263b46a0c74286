"""What the regrets of several choices say about a default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.studies.gains import Gain, Regrets, gain


@dataclass(frozen=True, slots=True)
class Conclusion:
    """How a default compares with the other choices of its question.

    Attributes:
        diverged: Whether a training with the default diverged; nothing is compared then.
        best: The other choice with the lowest regret, if that is lower than the default's.
        gain: How much lower the regret of ``best`` is than the default's.
        worse: The choices with a significantly higher regret than the default.
    """

    diverged: bool = False
    best: str | None = None
    gain: Gain | None = None
    worse: tuple[str, ...] = ()

    @property
    def is_default_beaten(self) -> bool:
        """Whether another choice has a significantly lower regret than the default."""
        return self.gain is not None and self.gain.is_significant

    def __str__(self) -> str:
        """Return the conclusion as a sentence without a full stop."""
        if self.diverged:
            return "the default diverged"
        if self.gain is None:
            found = self._worse if self.worse else "no difference is significant"
            return f"the default has the lowest regret; {found}"
        amount = f"{self.gain.mean:.3f}"
        if self.gain.standard_error is not None:
            amount += f" ± {self.gain.standard_error:.3f}"
        significance = "significant" if self.is_default_beaten else "not significant"
        text = f"{self.best} has a regret {amount} nats below the default's ({significance})"
        return f"{text}; {self._worse}" if self.worse else text

    @property
    def _worse(self) -> str:
        return f"significantly worse: {', '.join(self.worse)}"


def conclude(regrets: Mapping[str, Regrets], default: str) -> Conclusion:
    """Compare a default with the other choices, seed by seed, by Welch's t-test.

    Args:
        regrets: The regrets of each choice.
        default: The choice that is the default.
    """
    if not all(regrets[default]):
        return Conclusion(diverged=True)
    gains: dict[str, Gain] = {}
    for name, others in regrets.items():
        found = None if name == default else gain(others, regrets[default])
        if found is not None:
            gains[name] = found
    worse = tuple(name for name, g in gains.items() if g.is_significant and g.mean < 0)
    best = max(gains, key=lambda name: gains[name].mean, default=None)
    if best is None or gains[best].mean <= 0:
        return Conclusion(worse=worse)
    return Conclusion(best=best, gain=gains[best], worse=worse)
