"""Predict the latencies of a network on a device that is not this machine."""

from __future__ import annotations

from edgekit.core.records import Predicted
from edgekit.devices.profiles import Profile
from edgekit.jobs.model import Loaded
from edgekit.predict.latency import Question, known_models, predict
from edgekit.predict.rows import Size


def predictions(profile: Profile, loaded: Loaded, *, scale: float = 1.0) -> dict[str, Predicted]:
    """Return a prediction for each engine and precision of a device, by variant name.

    Args:
        profile: The device.
        loaded: The model.
        scale: Factor on GFLOPs and activations, for other image sizes.
    """
    size = Size(
        gflops=max(loaded.gflops * scale, 1e-6), activations_m=max(loaded.activations_m * scale, 1e-6)
    )
    what = loaded.network.source.get("what", "")
    model = next((n for n in known_models() if n in what), "")
    return {
        f"{backend}-{precision}": predict(
            Question(device=profile.published, backend=backend, precision=precision, size=size, model=model)
        )
        for backend, precisions in profile.backends.items()
        for precision in precisions
    }
