"""Write the shipped detector as ONNX from its safetensors: free height and width, fp16 storage.

python scripts/export_uav_yolov8n.py
"""

from __future__ import annotations

from pathlib import Path

from edgekit.core.places import shipped
from edgekit.data.uav_mini import CLASSES
from edgekit.export.torch_onnx import to_onnx
from edgekit.graph.half import store_half
from edgekit.graph.onnx_file import save_onnx
from edgekit.graph.static import slim
from edgekit.models.find import find_by_name
from edgekit.models.torch_models import build, for_export


def main() -> None:
    """Write `models/uav-yolov8n.onnx`."""
    folder: Path = shipped("models")
    source = find_by_name("yolov8n", weights=folder / "uav-yolov8n.safetensors", nc=len(CLASSES))
    module = for_export(build(source).module)
    model = slim(to_onnx(module, (1, 3, 640, 640), opset=17, free_size=True), where="uav-yolov8n")
    names = dict(enumerate(CLASSES))
    facts = {
        "task": "detect",
        "names": str(names),
        "license": "AGPL-3.0 (trained with ultralytics)",
        "stride": "32",
    }
    del model.metadata_props[:]
    for key, value in facts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    save_onnx(store_half(model), folder / "uav-yolov8n.onnx")


if __name__ == "__main__":
    main()
