"""TensorRT 8.6.2.3's shape."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import recording

recording.install(
    sys.modules[__name__],
    "8.6.2.3",
    flags="FP16 INT8 DEBUG GPU_FALLBACK REFIT DISABLE_TIMING_CACHE TF32 SPARSE_WEIGHTS SAFETY_SCOPE OBEY_PRECISION_CONSTRAINTS PREFER_PRECISION_CONSTRAINTS FP8 VERSION_COMPATIBLE",
    creation="EXPLICIT_BATCH",
    level=True,
    calibrator=True,
)
