"""TensorRT 11.4.1.5's shape."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import recording

recording.install(
    sys.modules[__name__],
    "11.4.1.5",
    flags="DEBUG GPU_FALLBACK REFIT DISABLE_TIMING_CACHE TF32 SPARSE_WEIGHTS VERSION_COMPATIBLE",
    creation="STRONGLY_TYPED",
    level=True,
    calibrator=False,
    parser_flags="ADJUST_FOR_DLA",
)
