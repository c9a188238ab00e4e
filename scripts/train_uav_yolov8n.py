"""Train the shipped detector, YOLOv8n, on 320-px tiles of uav-mini; seeded and resumable.

    edgekit data make uav-mini -o work/uav-mini
    python scripts/train_uav_yolov8n.py --data work/uav-mini --work work/train-uav --out models

The network is ultralytics' (`yolov8n.yaml`, five classes) with its detection loss; the loop is this
file. Tiles keep the ground resolution of the 640-px images, so the net is validated and deployed at
640. On a CPU the forward pass runs in bfloat16, channels last: 36 images a second on two AVX512-BF16
cores, 19 in float32. Batches depend on the seed and the step alone, so a run that was killed goes on
where its last checkpoint stands.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from edgekit.core.lazy import need

TILE, CLASSES = 320, 5


def load_tiles(data: Path) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return tiles (N, 320, 320, 3) uint8 RGB and their labels, each (M, 5): class, x, y, w, h in [0, 1]."""
    tiles, labels = [], []
    for path in sorted((data / "images/train").glob("*.jpg")):
        image = cv2.imread(str(path))[..., ::-1]
        rows = np.loadtxt(data / "labels/train" / f"{path.stem}.txt", ndmin=2).reshape(-1, 5)
        side = image.shape[0]
        x1, y1 = ((rows[:, k] - rows[:, k + 2] / 2) * side for k in (1, 2))
        x2, y2 = ((rows[:, k] + rows[:, k + 2] / 2) * side for k in (1, 2))
        area = (x2 - x1) * (y2 - y1)
        for top in range(0, side, TILE):
            for left in range(0, side, TILE):
                cx1, cx2 = np.clip(x1 - left, 0, TILE), np.clip(x2 - left, 0, TILE)
                cy1, cy2 = np.clip(y1 - top, 0, TILE), np.clip(y2 - top, 0, TILE)
                keep = (cx2 - cx1) * (cy2 - cy1) >= 0.5 * area
                box = np.stack([(cx1 + cx2) / 2, (cy1 + cy2) / 2, cx2 - cx1, cy2 - cy1], 1) / TILE
                tiles.append(image[top : top + TILE, left : left + TILE])
                labels.append(np.hstack([rows[:, :1], box])[keep].astype(np.float32))
    return np.stack(tiles), labels


def make_batch(
    tiles: np.ndarray, labels: list[np.ndarray], step: int, size: int, seed: int
) -> dict[str, torch.Tensor]:
    """Return batch `step`: a seeded shuffle a pass, with flips, quarter turns and colour changes."""
    per_epoch = len(tiles) // size
    epoch, place = divmod(step, per_epoch)
    order = np.random.default_rng([seed, 7, epoch]).permutation(len(tiles))
    rng = np.random.default_rng([seed, 11, step])
    images, rows = [], []
    for k, index in enumerate(order[place * size : (place + 1) * size]):
        image, label = tiles[index].astype(np.float32) / 255, labels[index].copy()
        if rng.uniform() < 0.5:
            image, label[:, 1] = image[:, ::-1], 1 - label[:, 1]
        if rng.uniform() < 0.5:
            image, label[:, 2] = image[::-1], 1 - label[:, 2]
        if rng.uniform() < 0.5:
            image, label = image.transpose(1, 0, 2), label[:, [0, 2, 1, 4, 3]]
        image = np.clip(image * rng.uniform(0.75, 1.25, 3) ** [1, 0.4, 0.4] + rng.uniform(-0.06, 0.06), 0, 1)
        images.append(np.ascontiguousarray(image.transpose(2, 0, 1), np.float32))
        rows.append(np.hstack([np.full((len(label), 1), k, np.float32), label]))
    found = torch.from_numpy(np.concatenate(rows))
    return {
        "img": torch.from_numpy(np.stack(images)),
        "batch_idx": found[:, 0],
        "cls": found[:, 1:2],
        "bboxes": found[:, 2:],
    }


def build(seed: int) -> torch.nn.Module:
    """Return a fresh YOLOv8n for the five classes, the loss weights at ultralytics' defaults."""
    need("ultralytics", extra="train")
    from ultralytics.nn.tasks import DetectionModel
    from ultralytics.utils import DEFAULT_CFG

    torch.manual_seed(seed)
    model = DetectionModel("yolov8n.yaml", nc=CLASSES, verbose=False)
    model.args = DEFAULT_CFG
    return model


def floats(value: object) -> object:
    """Return nested predictions in float32: the loss is not computed in bfloat16."""
    if isinstance(value, torch.Tensor):
        return value.float()
    if isinstance(value, dict):
        return {k: floats(v) for k, v in value.items()}
    return type(value)(floats(v) for v in value) if isinstance(value, list | tuple) else value


def groups(model: torch.nn.Module) -> list[dict[str, object]]:
    """Return parameter groups: weight decay on convolution weights only."""
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    plain = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    return [{"params": decayed, "weight_decay": 5e-4}, {"params": plain, "weight_decay": 0.0}]


def rate(step: int, total: int, peak: float) -> float:
    """Return the learning rate: 300 warm-up steps, then half a cosine down to a hundredth."""
    if step < 300:
        return peak * (step + 1) / 300
    share = (step - 300) / max(total - 300, 1)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


def update_average(average: dict[str, torch.Tensor], model: torch.nn.Module, step: int) -> None:
    """Move the weight average towards the model: decay 0.999, less at the start."""
    decay = 0.999 * (1 - math.exp(-(step + 1) / 500))
    for name, value in model.state_dict().items():
        if value.dtype.is_floating_point:
            average[name].mul_(decay).add_(value.detach().cpu(), alpha=1 - decay)
        else:
            average[name].copy_(value)


def learn(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: dict[str, torch.Tensor], device: str
) -> dict[str, torch.Tensor]:
    """Do one step of gradient descent in bfloat16; return the parts of the loss."""
    batch = {k: v.to(device) for k, v in batch.items()}
    images = batch["img"].to(memory_format=torch.channels_last)
    with torch.autocast(device, torch.bfloat16):
        found = model(images)
    loss, parts = model.loss(batch, floats(found))
    optimizer.zero_grad()
    loss.sum().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
    optimizer.step()
    return parts


def train(args: argparse.Namespace) -> dict[str, torch.Tensor]:
    """Train, or go on from the last checkpoint; return the averaged weights."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tiles, labels = load_tiles(args.data)
    total = args.epochs * (len(tiles) // args.batch)
    model = build(args.seed).to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(groups(model), lr=args.lr)
    average = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
    first, spent = 0, 0.0
    last = args.work / "last.pt"
    if last.exists():
        state = torch.load(last, weights_only=True)  # our own file, tensors and numbers only
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average, first, spent = state["average"], state["step"], state["seconds"]
        print(f"going on at step {first} of {total}", flush=True)
    began = time.perf_counter()
    for step in range(first, total):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, total, args.lr)
        parts = learn(model, optimizer, make_batch(tiles, labels, step, args.batch, args.seed), device)
        update_average(average, model, step)
        seconds = spent + time.perf_counter() - began
        if step % 50 == 0 or step == total - 1:
            line = {
                "step": step,
                "of": total,
                "seconds": round(seconds),
                "loss": {k: round(float(v), 4) for k, v in parts.items()},
            }
            print(json.dumps(line), flush=True)
        if step % 250 == 249 or step == total - 1:
            state = {
                "model": model.state_dict(), "optimizer": optimizer.state_dict(), "average": average,
                "step": step + 1, "seconds": seconds,
            }  # fmt: skip
            torch.save(state, last.with_suffix(".tmp"))
            os.replace(last.with_suffix(".tmp"), last)
    return average


def main() -> None:
    """Train, then write the averaged weights as fp16 safetensors with the training record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder made by `edgekit data make uav-mini`"
    )
    parser.add_argument("--work", type=Path, required=True, help="checkpoints")
    parser.add_argument("--out", type=Path, required=True, help="where uav-yolov8n.safetensors goes")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for folder in (args.work, args.out):
        folder.mkdir(parents=True, exist_ok=True)
    average = train(args)
    from safetensors.torch import save_file

    half = {k: (v.half() if v.dtype == torch.float32 else v).contiguous() for k, v in average.items()}
    record = {k: str(v) for k, v in vars(args).items() if k in {"epochs", "batch", "lr", "seed"}}
    save_file(
        half,
        args.out / "uav-yolov8n.safetensors",
        metadata={"architecture": "yolov8n", "nc": str(CLASSES)} | record,
    )


if __name__ == "__main__":
    main()
