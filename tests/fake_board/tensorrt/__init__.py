"""TensorRT 10.3's shape whose engines are their ONNX files, run by onnxruntime on the driver in plain memory."""

import sys
from pathlib import Path

import board

import fake_cuda

sys.path.append(str(Path(__file__).resolve().parents[2] / "fake_trt"))
import recording

recording.install(
    sys.modules[__name__],
    "10.3.0",
    flags="FP16 INT8 GPU_FALLBACK TF32 SPARSE_WEIGHTS PREFER_PRECISION_CONSTRAINTS",
    creation="EXPLICIT_BATCH STRONGLY_TYPED",
    level=True,
    calibrator=True,
    engine=lambda path: Path(path).read_bytes(),
)
globals().update(vars(fake_cuda.tensorrt(board.DRIVER, layers=fake_cuda.layers_of)))
