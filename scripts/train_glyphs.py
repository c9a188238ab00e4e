"""Train the shipped diffusion pipeline and its judge on captioned digits, and put them into models/.

    python scripts/train_glyphs.py --work /somewhere --ship

Stages: pictures, judge (a classifier of pictures), vae, unet with its text encoder, ship. Each is seeded and kept in the
work folder; a killed run goes on with the stage, and within the last one with the step, where it stopped.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn
from torch.nn import functional as F  # noqa: N812, the field's name
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from edgekit.core.places import shipped
from edgekit.data.glyphs import CAPTIONS, DIGITS, INKS, PAPERS, draw_glyph
from edgekit.frames.tokens import byte_letters

TRAIN, VAL = 20_000, 1_000
TOKENS = 16
SCHEDULE = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000,
    "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1, "prediction_type": "epsilon",
}  # fmt: skip


def main() -> None:
    """Train what is not there yet, and say how good it is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=3_250, help="of the UNet")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ship", action="store_true", help="write into models/ when done")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    given.work.mkdir(parents=True, exist_ok=True)
    words = tokenizer(given.work / "tokenizer")
    train, val = pictures(given.work, "train", TRAIN), pictures(given.work, "val", VAL)
    judge = trained_judge(given.work, train, val, given.seed)
    vae = trained_vae(given.work, train, given.seed)
    report: dict[str, Any] = {
        "judge_top1": judge_score(judge, val),
        "seed": given.seed,
        "torch": torch.__version__,
    }
    unet, text, steps = trained_unet(given.work, vae, words, train, given)
    report["unet_steps"] = steps
    pipe = StableDiffusionPipeline(
        vae=vae, text_encoder=text, tokenizer=words, unet=unet, scheduler=DDIMScheduler(**SCHEDULE),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    report["samples_top1"] = samples_score(pipe, judge, given.work / "samples.png")
    print(json.dumps(report, indent=1))
    if given.ship:
        ship(pipe, judge, report)


def tokenizer(folder: Path) -> CLIPTokenizer:
    """Return a CLIP tokenizer whose merges make one token of every word of the captions."""
    texts = " ".join(CAPTIONS).format
    lexicon = sorted({*texts(ink="", digit="", paper="").split(), *DIGITS, *INKS, *PAPERS})
    letters = byte_letters()
    merges: list[tuple[str, str]] = []
    for word in lexicon:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            # Whatever earlier merges make of the word already, in their order.
            for left, right in merges:
                k = 0
                while k < len(parts) - 1:
                    if (parts[k], parts[k + 1]) == (left, right):
                        parts[k : k + 2] = [left + right]
                    k += 1
            if len(parts) > 1:
                merges.append((parts[0], parts[1]))
    names = [*letters, *(f"{c}</w>" for c in letters), *dict.fromkeys(a + b for a, b in merges)]
    names += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({n: k for k, n in enumerate(names)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(f"{a} {b}" for a, b in merges) + "\n")
    return CLIPTokenizer(
        str(folder / "vocab.json"),
        str(folder / "merges.txt"),
        model_max_length=TOKENS,
        pad_token="<|endoftext|>",
    )


def pictures(work: Path, split: str, count: int) -> dict[str, Any]:
    """Return pictures (N, 3, 32, 32) uint8 with captions and labels."""
    place = work / f"{split}.npz"
    if not place.exists():
        drawn = [draw_glyph(seed=0, split=split, index=k) for k in range(count)]
        np.savez(
            place, pictures=np.stack([d.picture.transpose(2, 0, 1) for d in drawn]),
            captions=np.array([d.caption for d in drawn]), labels=np.array([d.label for d in drawn]),
        )  # fmt: skip
    with np.load(place) as data:
        return dict(data)


class Judge(nn.Sequential):
    """Tells which digit a picture in [0, 1] shows."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 24, 3, 2, 1), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 48, 3, 2, 1), nn.BatchNorm2d(48),
            nn.ReLU(), nn.Conv2d(48, 96, 3, 2, 1), nn.BatchNorm2d(96), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2),
            nn.Linear(96 * 16, len(DIGITS)),
        )  # fmt: skip


def trained_judge(work: Path, train: dict[str, Any], val: dict[str, Any], seed: int) -> Judge:
    """Return the classifier, trained."""
    torch.manual_seed(seed)
    judge, place = Judge(), work / "judge.pt"
    if place.exists():
        judge.load_state_dict(torch.load(place, weights_only=True))
        return judge.eval()
    x, y = torch.from_numpy(train["pictures"]), torch.from_numpy(train["labels"])
    optimizer = torch.optim.AdamW(judge.parameters(), 2e-3, weight_decay=0.02)
    epochs, batch = 6, 128
    plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, epochs * (len(x) // batch))
    for epoch in range(epochs):
        order = torch.randperm(len(x))
        for k in range(len(x) // batch):
            at = order[k * batch : (k + 1) * batch]
            pixels = x[at].float() / 255
            # Generated pictures are softer and noisier than painted ones.
            pixels = pixels + 0.08 * torch.rand(()) * torch.randn_like(pixels)
            loss = F.cross_entropy(judge(pixels), y[at])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            plan.step()
        print(f"judge {epoch} {loss.item():.4f} {judge_score(judge.eval(), val):.4f}", flush=True)
        judge.train()
    torch.save(judge.state_dict(), place)
    return judge.eval()


def judge_score(judge: Judge, val: dict[str, Any]) -> float:
    """Return its share of right answers on pictures it has not seen."""
    with torch.no_grad():
        said = judge(torch.from_numpy(val["pictures"]).float() / 255).argmax(1).numpy()
    return float((said == val["labels"]).mean())


def trained_vae(work: Path, train: dict[str, Any], seed: int) -> AutoencoderKL:
    """Return encoder and decoder of the latents, trained."""
    torch.manual_seed(seed)
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 3, up_block_types=["UpDecoderBlock2D"] * 3, block_out_channels=[16, 32, 32],
        layers_per_block=1, latent_channels=4, norm_num_groups=8, sample_size=32, mid_block_add_attention=False,
    )  # fmt: skip
    place = work / "vae"
    if place.exists():
        return AutoencoderKL.from_pretrained(place).eval()
    x = torch.from_numpy(train["pictures"])
    optimizer = torch.optim.AdamW(vae.parameters(), 2e-3)
    steps, batch = 1500, 64
    plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    for k in range(steps):
        pixels = x[torch.randint(len(x), (batch,))].float() / 127.5 - 1
        posterior = vae.encode(pixels).latent_dist
        back = vae.decode(posterior.sample()).sample
        loss = F.l1_loss(back, pixels) + F.mse_loss(back, pixels) + 2e-6 * posterior.kl().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        plan.step()
        if k % 100 == 0:
            print(f"vae {k} {loss.item():.4f}", flush=True)
    vae.eval()
    with torch.no_grad():
        latents = vae.encode(x[:2000].float() / 127.5 - 1).latent_dist.mean
    # As Stable Diffusion has it: latents are scaled to a standard deviation of 1.
    vae.register_to_config(scaling_factor=float(1 / latents.std()))
    vae.save_pretrained(place)
    return vae


def new_unet(words: CLIPTokenizer) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """Return the network and its text encoder, untrained."""
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=64, attention_head_dim=4,
        norm_num_groups=16,
    )  # fmt: skip
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=TOKENS, bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
        )
    )  # fmt: skip
    return unet, text


@dataclass
class Learner:
    """A network and its text encoder while they learn."""

    both: nn.ModuleList
    average: nn.ModuleList
    optimizer: torch.optim.AdamW
    step: int = 0

    def save(self, place: Path) -> None:
        """Keep everything that the next step needs."""
        torch.save(
            {
                "both": self.both.state_dict(), "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(), "step": self.step,
            },
            place,
        )  # fmt: skip

    def load(self, place: Path) -> None:
        """Go on where `save` was."""
        kept = torch.load(place, weights_only=True)
        for name in ("both", "average", "optimizer"):
            getattr(self, name).load_state_dict(kept[name])
        self.step = kept["step"]

    def learn(self, loss: torch.Tensor, rate: float) -> None:
        """Take one step, and let the mean of the weights follow."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.both.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        weight = min(0.999, self.step / (self.step + 9))
        with torch.no_grad():
            for mean, own in zip(self.average.parameters(), self.both.parameters(), strict=True):
                mean.lerp_(own, 1 - weight)


def trained_unet(
    work: Path, vae: AutoencoderKL, words: CLIPTokenizer, train: dict[str, Any], given: argparse.Namespace
) -> tuple[UNet2DConditionModel, CLIPTextModel, int]:
    """Return both trained, the mean of their weights, with the steps it took."""
    torch.manual_seed(given.seed)
    unet, text = new_unet(words)
    both = nn.ModuleList([unet, text])
    learner = Learner(
        both,
        copy.deepcopy(both).requires_grad_(requires_grad=False),
        torch.optim.AdamW(both.parameters(), 1e-3, weight_decay=0.01),
    )
    noise, place, batch = DDIMScheduler(**SCHEDULE), work / "unet.pt", 64
    with torch.no_grad():
        x = torch.from_numpy(train["pictures"])
        z = torch.cat([vae.encode(part.float() / 127.5 - 1).latent_dist.mean for part in x.split(500)])
        z = z * vae.config.scaling_factor
    ids = words(
        [str(c) for c in train["captions"]], padding="max_length", truncation=True, return_tensors="pt"
    ).input_ids
    empty = words([""], padding="max_length", return_tensors="pt").input_ids[0]
    if place.exists():
        learner.load(place)
    while learner.step < given.steps:
        step = learner.step
        torch.manual_seed(given.seed * 1_000_003 + step)
        at = torch.randint(len(z), (batch,))
        tokens = torch.where(torch.rand(batch, 1) < 0.1, empty, ids[at])
        e, t = torch.randn(batch, *z.shape[1:]), torch.randint(0, 1000, (batch,))
        said = unet(noise.add_noise(z[at], e, t), t, text(tokens).last_hidden_state).sample
        loss = F.mse_loss(said, e)
        learner.learn(
            loss, float(1e-3 * min(1, (step + 1) / 200) * 0.5 * (1 + np.cos(np.pi * step / given.steps)))
        )
        if step % 100 == 0:
            print(f"unet {step} {loss.item():.4f}", flush=True)
        if learner.step % 500 == 0:
            learner.save(place)
    return learner.average[0].eval(), learner.average[1].eval(), learner.step


def samples_score(pipe: StableDiffusionPipeline, judge: Judge, sheet: Path) -> float:
    """Return how often the judge sees the digit that was asked for, over 200 samples."""
    pipe.set_progress_bar_config(disable=True)
    rng = np.random.default_rng(1)
    labels = [k % 10 for k in range(200)]
    prompts = [
        CAPTIONS[int(rng.integers(len(CAPTIONS)))].format(
            ink=list(INKS)[int(rng.integers(len(INKS)))],
            digit=DIGITS[k],
            paper=list(PAPERS)[int(rng.integers(2))],
        )
        for k in labels
    ]
    found = pipe(
        prompts, num_inference_steps=15, guidance_scale=3.0, generator=torch.Generator().manual_seed(7), output_type="np",
        height=32, width=32,
    ).images  # fmt: skip
    with torch.no_grad():
        said = judge(torch.from_numpy(found.transpose(0, 3, 1, 2)).float()).argmax(1).numpy()
    rows = found[:60].reshape(6, 10, 32, 32, 3).transpose(0, 2, 1, 3, 4).reshape(192, 320, 3)
    import cv2

    cv2.imwrite(
        str(sheet), cv2.resize((rows[..., ::-1] * 255).astype(np.uint8), None, fx=3, fy=3, interpolation=0)
    )
    return float((said == np.array(labels)).mean())


def ship(pipe: StableDiffusionPipeline, judge: Judge, report: dict[str, Any]) -> None:
    """Write the pipeline in half precision, and the judge as ONNX with its class names."""
    from edgekit.export.torch_onnx import to_onnx
    from edgekit.graph.onnx_file import save_onnx

    place = shipped("models") / "glyphs-ldm"
    shutil.rmtree(place, ignore_errors=True)
    pipe.to(torch.float16)
    pipe.save_pretrained(place, safe_serialization=True)
    # diffusers notes the folder that a part was loaded from.
    for file in place.glob("*/config.json"):
        kept = {k: v for k, v in json.loads(file.read_text()).items() if k != "_name_or_path"}
        file.write_text(json.dumps(kept, indent=2) + "\n")
    (place / "training.json").write_text(json.dumps(report, indent=1) + "\n")
    judge.append(nn.Softmax(1))
    model = to_onnx(judge.eval(), (1, 3, 32, 32), opset=17)
    for key, value in (("task", "classify"), ("names", str(dict(enumerate(DIGITS))))):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    save_onnx(model, place / "judge.onnx")
    (place / "prompts.txt").write_text(
        "# What the captioned digits are asked for: every wording, ink, digit and paper once.\n"
        + "\n".join(every_prompt())
        + "\n"
    )


def every_prompt() -> list[str]:
    """Return every caption there is, in an order without order."""
    found = [
        c.format(ink=i, digit=d, paper=p) for c in CAPTIONS for i in INKS for d in DIGITS for p in PAPERS
    ]
    random.Random(0).shuffle(found)
    return found


if __name__ == "__main__":
    main()
