"""What a compile found out, as records: latencies, accuracy, receipts, verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgekit.core.records import LayerRun, Predicted


@dataclass(frozen=True, kw_only=True)
class Tail:
    """One percentile of a measured latency.

    Attributes:
        share: 0.9 for p90.
        plain_ms: The plain sample percentile.
        bound_ms: Upper bound with 99 % confidence (MLPerf early stopping); None where the sample
            cannot carry one.
        need: Runs a bound needs.
        have: Runs there are.
    """

    share: float
    plain_ms: float
    bound_ms: float | None
    need: int
    have: int


@dataclass(frozen=True, kw_only=True)
class Latency:
    """A measured latency of one span.

    Attributes:
        span: "model", "model+copies" or "frame_to_result".
        runs: Sample size.
        label: "stable", "noisy" or "unstable".
        tails: Percentiles, p50 first.
        samples_ms: Single runs in order, rounded to a microsecond.
    """

    span: str
    runs: int
    label: str
    tails: tuple[Tail, ...]
    samples_ms: tuple[float, ...] = ()

    @property
    def median_ms(self) -> float:
        """The plain median."""
        return self.tails[0].plain_ms

    def carried_ms(self, share: float) -> float | None:
        """Return a plain percentile, None where it was not asked for or the runs do not carry it."""
        return next((t.plain_ms for t in self.tails if t.share == share and t.bound_ms is not None), None)


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Accuracy of one artifact, judged by the code an app runs.

    Attributes:
        metric: map50, map50_95, top1 or macro_f1.
        value: A share from 0 to 1.
        drop: Of float32 on the same images, positive where this one is worse; None for the reference.
        interval: 95 % interval of the drop, paired bootstrap over images.
        scores: All scores by name.
        by_class: AP at IoU 0.5 by class, F1 of classifiers.
        by_size: AP at IoU 0.5 by object size in pixels.
        images: How many images were judged.
        where: What it was judged on, in words.
        simulated: Whether another engine stood in for the device's, so that no gate may rest on it.
    """

    metric: str
    value: float
    drop: float | None = None
    interval: tuple[float, float] | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    by_class: Mapping[str, float] = field(default_factory=dict)
    by_size: Mapping[str, float] = field(default_factory=dict)
    images: int = 0
    where: str = "this machine"
    simulated: bool = False


@dataclass(frozen=True, kw_only=True)
class Check:
    """What was checked on the host in place of a build on the device.

    Attributes:
        name: Such as "lint".
        state: "pass", "warn", "accepted", "rejected", or "not checked".
        by: Tool and version that said so.
        detail: In words.
    """

    name: str
    state: str
    by: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class VariantOutcome:
    """What was found out about one variant; what was not measured stays None or empty.

    Attributes:
        name: Such as "openvino-int8".
        style: Which of the backend's ways to write int8.
        threads: Threads of the engine, 0 for its own choice.
        size_mb: Of its files.
        contest_ms: Median of the rounds in which all variants alternated: the figure to compare by.
        predicted: Latency that was not measured.
        memory_mb: Growth of the process's peak memory by loading and the first runs.
        parity: Largest relative output error against the float32 reference on real samples.
        share: Of the time spent in layers planned below float32, the part that ran as planned.
        note: Why it went no further, empty for a full measurement.
        checks: On the host, for an engine that is built on the device.
    """

    name: str
    backend: str
    precision: str
    style: str = ""
    threads: int = 0
    size_mb: float = 0.0
    latencies: tuple[Latency, ...] = ()
    contest_ms: float | None = None
    predicted: Predicted | None = None
    accuracy: Accuracy | None = None
    memory_mb: float | None = None
    load_ms: float | None = None
    first_ms: float | None = None
    steady: bool = True
    parity: float | None = None
    receipt: tuple[LayerRun, ...] = ()
    share: float | None = None
    note: str = ""
    checks: tuple[Check, ...] = ()

    def latency(self, span: str = "model") -> Latency | None:
        """Return the measured latency of a span, None where it was not measured."""
        return next((x for x in self.latencies if x.span == span), None)


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One rung of the parity ladder: outputs on golden frames, against the rung below.

    Attributes:
        name: Such as "ONNX", "board", "runtime".
        error: Largest |difference| of any output over that output's largest |value|; for "runtime" the share of
            answers that found no partner.
        limit: Allowed; None where the accuracy gate judges it, since int8 and half precision differ by design.
        where: What it ran on.
    """

    name: str
    error: float
    limit: float | None
    where: str = "this machine"

    @property
    def holds(self) -> bool:
        """Whether it is within its limit."""
        return self.limit is None or self.error <= self.limit


@dataclass(frozen=True, kw_only=True)
class Link:
    """What lies between a sensor and the model: a codec, its bytes, its times.

    Attributes:
        codec: The plug-in.
        curve: Of a table: gamma, linear, log, mu-law or none.
        bits: Of one value on the link.
        sensor_bits: Of one value in the sensor.
        bytes_per_frame: Packed.
        sensor_bytes_per_frame: Of the same frame in the sensor's bits, packed as tightly.
        frames_per_second: Where the sensor says so, else 0.
        front_share: Of the chosen variant's time, what the layers take that turn codes into values.
        numpy_ms: Median time to encode a frame with numpy; None where it was not measured.
        c_ms: The same with the C header.
        c_mb_s: What that is in megabytes of sensor values a second.
        runs: That the medians rest on.
        compiler: Of the C header.
        where: What the encoder was timed on.
        channels: Names, for the lists that follow.
        gamma: Learned exponents by channel.
        gain: Learned factors.
        mu: Learned middles of signed sensors.
        values: The smallest and largest value of the sensor.
        thresholds: Of each channel, the smallest value with a code of at least 1, 2, ….
        history: Of each epoch of the training, γ, gain and middle by channel.
    """

    codec: str
    curve: str
    bits: int
    sensor_bits: int
    bytes_per_frame: int
    sensor_bytes_per_frame: int
    frames_per_second: float = 0.0
    front_share: float | None = None
    numpy_ms: float | None = None
    c_ms: float | None = None
    c_mb_s: float | None = None
    runs: int = 0
    compiler: str = ""
    where: str = ""
    channels: tuple[str, ...] = ()
    gamma: tuple[float, ...] = ()
    gain: tuple[float, ...] = ()
    mu: tuple[float, ...] = ()
    values: tuple[int, int] = (0, 0)
    thresholds: tuple[tuple[int, ...], ...] = ()
    history: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Grows:
    """What was found out about a model that grows while it serves.

    Attributes:
        metric: Of `accuracy`, empty where nobody judged.
        masks: Of every step, "SSSS" to "TTTT".
        accuracy: Of every step on validation samples, by the files that serve; None where it was not judged.
        in_torch: The same after training.
        bytes: Of the segments by name, in the order in which they are loaded.
        first_bytes: What the first answer needs.
        whole_bytes: Of the whole model in one file, for the same engine.
        first_ms: From `load` to the first answer, hash checks included; None where it was not measured.
        whole_ms: From opening the whole model to its first answer.
        cold: Whether the files were dropped from the page cache before.
        hz: Requests a second in the trial.
        mb_s: To how many megabytes a second loading was slowed down, so that every step met requests.
        requests: While it was loading, and afterwards, held at each step in turn.
        stall_ms: 50th and 99th percentile and largest of how much longer requests took while it was loading than the
            median of their own step without.
        control_ms: The same of requests with nothing to load.
        changes: Seconds after the start and step, of every change.
        latency: Seconds after the start, milliseconds and step, of single requests.
        memory: Seconds after the start and resident MB.
        peak_mb: Of the process that grew.
        whole_peak_mb: Of a process that opened the whole model.
        runs: Fresh processes that the medians of first and whole rest on.
        where: What it was measured on.
    """

    metric: str
    masks: tuple[str, ...]
    accuracy: tuple[float | None, ...]
    in_torch: tuple[float, ...]
    bytes: Mapping[str, int]
    first_bytes: int
    whole_bytes: int
    first_ms: float | None = None
    whole_ms: float | None = None
    cold: bool = False
    hz: float = 0.0
    mb_s: float = 0.0
    requests: tuple[int, int] = (0, 0)
    stall_ms: tuple[float, float, float] | None = None
    control_ms: tuple[float, float, float] | None = None
    changes: tuple[tuple[float, int], ...] = ()
    latency: tuple[tuple[float, float, int], ...] = ()
    memory: tuple[tuple[float, float], ...] = ()
    peak_mb: float | None = None
    whole_peak_mb: float | None = None
    runs: int = 0
    where: str = ""


@dataclass(frozen=True, kw_only=True)
class Paints:
    """What was found out about a pipeline that makes pictures.

    Attributes:
        prompts: Held out: nothing was fitted to them.
        schedule: Sampler.
        steps: Of it.
        guidance: 1 for none.
        size: Height and width in pixels.
        errors: Relative squared error of the final latents of each held-out prompt, against the pipeline as it came, in float32
            by onnxruntime, from the same noise.
        judge: What judged pictures, empty where nobody did.
        judged: Pictures that it judged, of each.
        dense_right: Share of the pipeline as it came in which it saw what was asked for.
        right: The same of the chosen variant.
        image_ms: Median milliseconds of a picture, prompt to pixels, one process, one picture at a time.
        dense_image_ms: The same of the pipeline as it came, same engine.
        step_ratio: Of the network's time alone against the network as it came in float32 on the same engine, alternating runs,
            with the 5th and 95th percentile of blocks; None where it was not measured.
        scores: Further measures by name, such as clip_score.
        others: Mean error of further variants by name.
        why_no_scores: By measure, why it was not taken.
    """

    prompts: tuple[str, ...]
    schedule: str
    steps: int
    guidance: float
    size: tuple[int, int]
    errors: tuple[float, ...]
    judge: str = ""
    judged: int = 0
    dense_right: float | None = None
    right: float | None = None
    image_ms: float | None = None
    dense_image_ms: float | None = None
    step_ratio: tuple[float, float, float] | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    others: Mapping[str, float] = field(default_factory=dict)
    why_no_scores: Mapping[str, str] = field(default_factory=dict)

    @property
    def error(self) -> float:
        """Mean error of the final latents."""
        return sum(self.errors) / max(len(self.errors), 1)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One gate, judged.

    Attributes:
        gate: Its key in the recipe.
        limit: The recipe's limit.
        found: The value judged, in words.
        state: "pass", "fail", "not measured" or "not judged".
        detail: What was compared with what.
        exit_code: What a failure ends with, 3 or 4.
    """

    gate: str
    limit: float
    found: str
    state: str
    detail: str = ""
    exit_code: int = 3


@dataclass(frozen=True, kw_only=True)
class WayIn:
    """Something that would be nearer to a missed latency gate.

    Attributes:
        what: Such as "imgsz 416".
        latency: In words, with "measured" or "predicted".
        ms: The same as a number.
        accuracy: In words, empty where it was not measured.
        fits: Whether it keeps the gate.
    """

    what: str
    ms: float
    latency: str
    accuracy: str = ""
    fits: bool = False


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Everything one compile found out.

    Attributes:
        name: Of the bundle.
        device: Profile asked for.
        measured_on: Passport of the machine that was measured; empty where nothing was.
        model: Facts of the network: source, parameters, GFLOPs, inputs.
        variants: All that were tried, the chosen one first.
        chosen: Name of the default variant.
        reference: Name of the float32 variant of the same engine.
        verdicts: Every gate.
        ways_in: What would be nearer, where a latency gate failed.
        speedup: Ratio of medians against the reference on alternating runs, with its spread.
        passes: Facts of each pass by name.
        notes: What a person should know: units without a backend, warnings of the data lint.
        recipe: The recipe as it was used, as JSON knows it.
        bench: Mode.
        require_measured: Whether a gate that was not measured or not judged fails.
        ladder: Parity from the model as it came to the bundle on the device.
        link: The codec between a sensor and the model, None where there is none.
        grows: How the chosen variant grows while it serves, None where it is loaded whole.
        paints: The pictures that the chosen variant makes, None where it makes none.
    """

    name: str
    device: str
    title: str
    measured_on: Mapping[str, Any]
    model: Mapping[str, Any]
    variants: tuple[VariantOutcome, ...]
    chosen: str
    reference: str
    verdicts: tuple[Verdict, ...]
    ways_in: tuple[WayIn, ...] = ()
    speedup: tuple[float, float, float] | None = None
    passes: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    bench: str = ""
    when: str = ""
    require_measured: bool = False
    ladder: tuple[Rung, ...] = ()
    link: Link | None = None
    grows: Grows | None = None
    paints: Paints | None = None

    @property
    def exit_code(self) -> int:
        """The exit code the verdicts ask for: 4 before 3, 0 where none failed."""
        codes = {v.exit_code for v in self.verdicts if v.state == "fail"}
        if self.require_measured and any(v.state.startswith("not") for v in self.verdicts):
            codes.add(3)
        return max(codes, default=0)

    @property
    def words(self) -> str:
        """The verdict in one word or two."""
        if any(v.state == "fail" for v in self.verdicts):
            return "fail"
        if self.exit_code:
            return "fail, not measured"
        if not self.verdicts:
            return "no gates"
        open_ones = sum(v.state.startswith("not") for v in self.verdicts)
        passed = len(self.verdicts) - open_ones
        return (
            f"{passed} of {len(self.verdicts)} gates passed, {open_ones} not measured"
            if open_ones
            else "pass"
        )
