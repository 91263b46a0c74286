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
        "The base's losses at three learning rates an octave apart are within 0.034 nats, so its "
        "best one is hardly determined; two of three seeds alone show a shift of -1. Why the "
        "advised model prefers the lower end of that range was not found out. Two octaves below "
        "the base's best, advised is as good as the best of the plain sweep (2.330 and 2.336)."
    ),
    "width char_gpt_pre Adagrad": (
        "The regret is one seed's: it ends at 3.154 nats, the other two at 2.410 and 2.382. An "
        "octave lower, where the base loses 0.008 nats, the mean of all three is 0.008 nats below "
        "the best of the plain sweep. Advice does not keep a learning rate at the edge of "
        "stability from falling over it."
    ),
    "depth res_mlp Adam": (
        "The depth rule `sum` takes it that the blocks' changes point the same way; `sqrt`, which "
        "takes them to be orthogonal, fits this model better: of the four octaves tried the best "
        "is then the base's, with 0.134 nats, a regret of 0.007. With `measured` it is one octave "
        "above. Near the optimum seeds differ by as much as octaves do."
    ),
    "sequence_length char_gpt_pre Adam": (
        f"{_NOISE} With as many characters a step in both (base: 128 sequences of 16) the advised "
        "shift is 0 and the regret 0.008 nats, with the same seeds."
    ),
    "batch_size char_gpt_pre Adam": _NOISE,
    "width res_mlp Adam": (
        "Regret: advice nearly halves the loss at the transferred rate but does not reach the "
        "plain optimum. With multipliers frozen from step 26 on the loss is 0.049 nats, a regret "
        "of 0.007; the same makes the deep residual MLP worse (0.197 instead of 0.171), so it is "
        "no rule."
    ),
}
"""By a case's name."""
