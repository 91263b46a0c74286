"""What is to be said of single cases: why they miss the target, and how sure that is."""

from __future__ import annotations

_NOISE = (
    "A step of the big model sees eight times the characters, so its gradients are less noisy and "
    "larger steps pay, plain and advised alike. Matching keeps the outputs' change at the size "
    "that was right for the base's noise. To raise it by the square root of how much more a step "
    "sees is no remedy: on four other such cases that loses (see Beyond the paper)."
)

NOTES: dict[str, str] = {
    "width char_gpt_post_mod Adam": (
        "The base's losses at three learning rates an octave apart are within 0.035 nats, so its "
        "best one is hardly determined; two of three seeds alone show a shift of -1. Why the "
        "advised model prefers the lower end of that range was not found out. Two octaves below "
        "the base's best, advised is better than the best of the plain sweep (2.318 and 2.336)."
    ),
    "width char_gpt_pre Adagrad": (
        "The regret is one seed's: it ends at 3.141 nats, the other two at 2.358 and 2.367. An "
        "octave lower, where the base loses 0.007 nats, the mean of all three is 0.014 nats below "
        "the best of the plain sweep. Advice does not keep a learning rate at the edge of "
        "stability from falling over it."
    ),
    "width conv_net SGD": (
        "The base's losses at its best learning rate and two octaves below are within 0.021 nats, "
        "less than the 0.036 by which the advised model's regret differs between seeds; an octave "
        "below the base's best the advised model loses 0.010 nats more than at its own."
    ),
    "sequence_length char_gpt_pre Adam": (
        f"{_NOISE} The base's two best learning rates are within 0.001 nats; from the other one "
        "the shift is one octave."
    ),
    "batch_size char_gpt_pre Adam": (
        f"{_NOISE} The base's two best learning rates are within 0.002 nats; from the other one "
        "the shift is one octave."
    ),
}
"""By a case's name."""
