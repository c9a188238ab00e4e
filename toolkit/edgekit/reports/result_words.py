"""Say in words what a bench result holds."""

from __future__ import annotations

from edgekit.core.result import Energy, Result, Telemetry


def subject_words(result: Result) -> str:
    """Return what ran where, in one line."""
    one = result.subject
    how = " ".join(filter(None, (one.variant or f"{one.backend} {one.precision}", _cores(result))))
    machine = result.passport.get("board") or result.passport.get("cpu", "")
    where = "this machine" if result.device == "local" else result.device
    return f"{one.name} ({how}) on {where} ({machine}), mode {result.mode}"


def _cores(result: Result) -> str:
    pinned = ",".join(map(str, result.subject.cpus))
    threads = f"{result.subject.threads} threads" if result.subject.threads else ""
    return " ".join(filter(None, (threads, f"on cores {pinned}" if pinned else "")))


def telemetry_words(found: Telemetry | None) -> str:
    """Return what the sensors said, in one line."""
    if found is None:
        return "off"
    parts = [f"throttled: {found.throttled}" + (f" ({'; '.join(found.reasons)})" if found.reasons else "")]
    for kind, unit in (("temperature", "°C"), ("clock", "MHz")):
        values = [v for k, c in found.columns.items() if k.startswith(kind) for v in c if v is not None]
        if values:
            parts.append(f"{kind} {min(values):.0f} to {max(values):.0f} {unit}")
        else:
            parts.append(f"{kind} unknown ({found.missing.get(kind, 'not read')})")
    if found.spin is not None:
        parts.append(f"fixed loop {100 * (found.spin - 1):+.1f} %")
    return ", ".join(parts)


def energy_words(found: Energy) -> str:
    """Return the energy of a run, in one line."""
    if found.state != "measured" or found.gross_j is None or found.mean_w is None:
        return f"n/a: {found.why}"
    error = f" ± {found.error_j * 1e3:.2f}" if found.error_j else ""
    net = f", {found.net_j * 1e3:.2f} mJ above idle" if found.net_j is not None else ""
    return f"{found.gross_j * 1e3:.2f}{error} mJ a run{net}, mean {found.mean_w:.2f} W ({found.method})"
