"""TensorRT 10.3.0.30's shape."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import recording

recording.install(
    sys.modules[__name__],
    "10.3.0.30",
    flags="FP16 INT8 DEBUG GPU_FALLBACK REFIT DISABLE_TIMING_CACHE TF32 SPARSE_WEIGHTS SAFETY_SCOPE OBEY_PRECISION_CONSTRAINTS PREFER_PRECISION_CONSTRAINTS FP8 VERSION_COMPATIBLE BF16 INT4",
    creation="EXPLICIT_BATCH STRONGLY_TYPED",
    level=True,
    calibrator=True,
)
