"""What an app uses: open a bundle, pick the variant, run it."""

from edgekit.runtime.growing import Limits
from edgekit.runtime.load import Model, load

__all__ = ["Limits", "Model", "load"]
