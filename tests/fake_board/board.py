"""The one driver of such a process."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from fake_cuda import Driver

DRIVER = Driver(integrated=True)
