"""PyTorch: record a profile, or train with an advisor's multipliers.

Record the base model::

    recorder = fslr.torch.Recorder(model, optimizer, every=25)
    ...  # the training loop
    content = recorder.profile(fslr.Provenance("char GPT", width=32))

Train the big model::

    attachment = fslr.torch.attach(model, optimizer, profile="char-gpt@prod")
    ...  # the training loop
    attachment.close()
"""

from fslr.optional_dependencies import install_command

try:
    import torch  # noqa: F401 - only to say what is missing
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ImportError(f"fslr.torch needs PyTorch: {install_command('torch')}") from error

from fslr.torch.attachment import Attachment, attach
from fslr.torch.estimators import (
    ESTIMATORS,
    Estimator,
    FullEstimator,
    IidEstimator,
    KroneckerEstimator,
    PerExampleEstimator,
    RateEstimate,
    exact_unit_rates,
)
from fslr.torch.measuring_options import MeasuringOptions
from fslr.torch.model.batch import Batch
from fslr.torch.model.groups import ModelGroups, ParameterGroup
from fslr.torch.model.update import Update
from fslr.torch.recorder import Recorder

__all__ = [
    "ESTIMATORS",
    "Attachment",
    "Batch",
    "Estimator",
    "FullEstimator",
    "IidEstimator",
    "KroneckerEstimator",
    "MeasuringOptions",
    "ModelGroups",
    "ParameterGroup",
    "PerExampleEstimator",
    "RateEstimate",
    "Recorder",
    "Update",
    "attach",
    "exact_unit_rates",
]
