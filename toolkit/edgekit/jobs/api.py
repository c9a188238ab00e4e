"""The Python API: what the command line can do, as functions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgekit.core.cache import StepCache
from edgekit.core.errors import RecipeError
from edgekit.core.files import resource_errors, write_bytes, write_json
from edgekit.core.places import cache_home, shipped
from edgekit.devices.profiles import profile_of
from edgekit.jobs.ask import Ask
from edgekit.jobs.before import refuse_early
from edgekit.jobs.compile import Compiled, compile_for
from edgekit.jobs.init import recipe_text
from edgekit.jobs.remote import reached
from edgekit.jobs.train import Trained, trained
from edgekit.machine.probe import passport
from edgekit.recipe.check import Checked, check_recipe, read_recipe

MODELS = frozenset({".onnx", ".pt"})


def find_recipe(what: str | Path) -> Path:
    """Return the file of a recipe: a path, or the name of a shipped one.

    Raises:
        RecipeError: There is neither.
    """
    path = Path(what)
    own = shipped("recipes") / f"{Path(what).stem}.yaml"
    # `recipes/hierlight-yolo-n-mini.yaml` works outside a checkout, too.
    if not path.exists() and str(what) in {own.stem, f"recipes/{own.name}"} and own.is_file():
        return own
    return path


def checked_recipe(
    what: str | Path,
    *,
    data: str = "",
    device: str = "local",
    latency_ms: float | None = None,
    max_drop: float | None = None,
    trust: bool = False,
) -> Checked:
    """Return the recipe in a file, or the one `edgekit init` would write for a model file.

    Args:
        what: A recipe, its shipped name, or a model (`.onnx`, `.pt`).
        data: A data.yaml or COCO file for a model.
        device: What the recipe of a model is written for.
        latency_ms: Its latency gate.
        max_drop: Its accuracy gate.
        trust: Allow a `.pt` pickle.

    Raises:
        RecipeError: The recipe has faults, or a recipe was given with words for a model.
    """
    if Path(what).suffix in MODELS:
        text = recipe_text(
            str(what),
            data=data,
            device=device,
            latency_ms=latency_ms,
            max_drop=max_drop,
            trust=trust,
            folder=Path(),
        )
        return check_recipe(text, path=Path(f"{Path(what).stem}.yaml"), folder=Path())
    if data or latency_ms is not None or max_drop is not None or trust:
        raise RecipeError(
            f"{what}: is a recipe; --data, --latency-ms, --max-drop and --trust go with a model file",
            hint="Set them in the recipe.",
        )
    return read_recipe(find_recipe(what))


def ask_for(
    checked: Checked,
    *,
    device: str = "local",
    output: str | Path = "out",
    precision: str = "",
    imgsz: int = 0,
    quick: bool = False,
    require_measured: bool = False,
    work_dir: str | Path | None = None,
    no_cache: bool = False,
    sign_key: str | Path | None = None,
    jetpack: str = "",
    tensorrt: str = "",
    dla: int | None = None,
    weak: bool = False,
) -> Ask:
    """Return what a compile is asked for; the arguments are those of `compile_recipe`."""
    if imgsz and not 32 <= imgsz <= 4096:
        raise RecipeError(f"--imgsz: {imgsz} is not 32 to 4096 pixels", hint="Take 640, 512, 416 or 320.")
    profile = profile_of(device)
    return Ask(
        checked=checked,
        profile=profile,
        host=passport(),
        board=reached(profile),
        cache=StepCache(root=Path(work_dir) if work_dir else cache_home(), reuse=not no_cache),
        out=Path(output),
        precision=precision,
        imgsz=imgsz,
        quick=quick,
        require_measured=require_measured,
        sign_key=Path(sign_key) if sign_key else None,
        jetpack=jetpack,
        tensorrt=tensorrt,
        dla=dla,
        weak=weak,
    )


def train_recipe(
    recipe: str | Path,
    *,
    output: str | Path = "trained",
    work_dir: str | Path | None = None,
    no_cache: bool = False,
) -> Trained:
    """Train the model of a recipe and return its weights.

    Args:
        recipe: A recipe file with a `train` part, or a shipped recipe's name.
        output: Folder that gets `<recipe>.safetensors` and the record of all epochs, `<recipe>.json`.
        work_dir: Folder of checkpoints and step cache.
        no_cache: Train anew.

    Raises:
        EdgekitError: See its kinds and exit codes.
    """
    checked = checked_recipe(recipe)
    if checked.recipe.train is None:
        raise RecipeError(f"{checked.path}: has no `train` part", hint="Add `train: {epochs: 100}`.")
    ask = ask_for(checked, output=output, work_dir=work_dir, no_cache=no_cache)
    refuse_early(ask)
    done = trained(ask)
    folder = Path(output)
    with resource_errors(folder):
        weights = folder / f"{checked.name}.safetensors"
        write_bytes(weights, done.weights.read_bytes())
        write_json(weights.with_suffix(".json"), done.record)
    return replace(done, weights=weights)


def compile_recipe(
    recipe: str | Path,
    *,
    device: str = "local",
    output: str | Path = "out",
    precision: str = "",
    imgsz: int = 0,
    quick: bool = False,
    require_measured: bool = False,
    work_dir: str | Path | None = None,
    no_cache: bool = False,
    sign_key: str | Path | None = None,
    jetpack: str = "",
    tensorrt: str = "",
    dla: int | None = None,
    weak: bool = False,
    data: str = "",
    trust: bool = False,
) -> Compiled:
    """Compile a recipe (or a model file) for a device and return bundle, report and outcome.

    A failed gate does not raise: read `outcome.exit_code` and `outcome.verdicts`.

    Args:
        recipe: A recipe file, a shipped recipe's name, or a model (`.onnx`, `.pt`).
        device: Profile name.
        output: Folder that gets `<recipe>-<device>/`.
        precision: Only variants of this precision.
        imgsz: Image side in pixels instead of the recipe's.
        quick: 200 validation images and the smoke bench.
        require_measured: What was not measured fails.
        work_dir: Folder of the step cache.
        no_cache: Repeat every step.
        sign_key: PEM file with an Ed25519 private key.
        jetpack: JetPack release of a Jetson, such as "6.2"; empty for the board's own or the usual one.
        tensorrt: Version of TensorRT instead of the release's.
        dla: Core of the deep-learning accelerator to use.
        weak: Leave types to TensorRT 10's flags.
        data: A data.yaml or COCO file, for a model file.
        trust: Allow a `.pt` pickle.

    Raises:
        EdgekitError: See its kinds and exit codes.
    """
    checked = checked_recipe(recipe, data=data, device=device, trust=trust)
    return compile_for(
        ask_for(
            checked, device=device, output=output, precision=precision, imgsz=imgsz, quick=quick,
            require_measured=require_measured, work_dir=work_dir, no_cache=no_cache, sign_key=sign_key,
            jetpack=jetpack, tensorrt=tensorrt, dla=dla, weak=weak,
        )
    )  # fmt: skip
