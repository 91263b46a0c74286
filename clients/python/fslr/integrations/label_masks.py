"""The mask of Hugging Face models: which outputs have a label that counts for the loss."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import pad

from fslr.errors import MeasurementError
from fslr.integrations.requirements import required
from fslr.torch.model.mask import Mask

with required("transformers", "5.0", extra="transformers"):
    from transformers.loss.loss_utils import LOSS_MAPPING, ForCausalLMLoss

IGNORED = -100
"""The label that losses ignore, in PyTorch and in all of transformers."""

_REMEDY = (
    "pass ignored_labels=False to count every output, or a mask of your own in options=fslr.torch."
    "MeasuringOptions(output='logits', mask=...), such as mask='attention_mask'"
)


def label_mask(model: nn.Module) -> Mask:
    """Return a mask that leaves out the outputs whose label is -100.

    The labels are the argument ``labels`` of the model's call. The logits of a causal language
    model at one position predict the label of the next, so its labels are shifted. Labels that are
    not integers ignore nothing.

    Args:
        model: The model, a ``PreTrainedModel`` or one inside of PEFT's wrapper.
    """
    shifts = shifts_labels(model)

    def without_ignored_labels(inputs: Mapping[str, Any], result: Any) -> Tensor | None:
        labels = inputs.get("labels")
        if labels is None:
            raise MeasurementError(
                "the model is called without labels (its arguments are "
                f"{', '.join(map(repr, inputs)) or 'none'}), so which outputs are ignored is not "
                f"known; {_REMEDY}"
            )
        if not isinstance(labels, Tensor) or labels.is_floating_point():
            return None  # targets of a regression, or a list of boxes
        logits = getattr(result, "logits", None)
        if isinstance(logits, Tensor) and labels.shape != logits.shape[: labels.dim()]:
            raise MeasurementError(
                f"labels of shape {tuple(labels.shape)} do not say which of the logits of shape "
                f"{tuple(logits.shape)} are ignored; {_REMEDY}"
            )
        counted = labels != IGNORED
        return pad(counted[:, 1:], (0, 1)) if shifts else counted

    return without_ignored_labels


def shifts_labels(model: nn.Module) -> bool:
    """Return whether a model compares the logits of each position with the label of the next.

    Args:
        model: The model, a ``PreTrainedModel`` or one inside of PEFT's wrapper.
    """
    model = without_adapters(model)
    # Models that compute their loss by themselves (BART, T5, XLNet) expect labels that are aligned
    # with the logits. All others call the function that their loss's name stands for.
    forward = inspect.unwrap(type(model).forward)
    if "loss_function" not in getattr(getattr(forward, "__code__", None), "co_names", ()):
        return False
    name = getattr(model, "loss_type", None)
    used = getattr(model, "_loss_function", LOSS_MAPPING.get(str(name), ForCausalLMLoss))
    return used is ForCausalLMLoss


def without_adapters(model: nn.Module) -> nn.Module:
    """Return the model that PEFT has put adapters into; without PEFT, the model itself.

    Args:
        model: The model.
    """
    base: Any = getattr(model, "get_base_model", None)
    if not callable(base) or not hasattr(model, "peft_config"):
        return model
    found: nn.Module = base()
    return found
