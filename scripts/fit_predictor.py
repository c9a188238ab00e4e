"""Print the predictor's kernel weights: those that maximize the marginal likelihood of the fitted rows.

    python scripts/fit_predictor.py    # needs scipy, which edgekit[train] brings

Copy them into `TERMS` and `NOISE` of toolkit/edgekit/predict/process.py. Rows held out for judging
are not read.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from edgekit.predict.latency import point
from edgekit.predict.process import NOISE, TERMS, bases
from edgekit.predict.rows import held_out, rows, size_of


def main() -> None:
    """Fit and print."""
    kept = [r for r in rows() if not held_out(r) and size_of(r)]
    points = [point(r) for r in kept]
    logs = np.log([r.latency_ms for r in kept])
    logs -= logs.mean()
    terms = np.stack(bases(points, points))
    # A weak prior keeps terms that the rows say nothing about near a small variance.
    start = np.log([1.0, 0.5, *[0.03] * (len(TERMS) - 2), 0.01])

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        weights, noise = np.exp(theta[:-1]), float(np.exp(theta[-1]))
        kernel = np.tensordot(weights, terms, 1) + noise * np.eye(len(logs))
        inverse = np.linalg.inv(kernel)
        answer = inverse @ logs
        value = (
            0.5 * logs @ answer + 0.5 * np.linalg.slogdet(kernel)[1] + (((theta - start) / 3) ** 2).sum() / 2
        )
        slope = inverse - np.outer(answer, answer)
        grad = [0.5 * w * (slope * t).sum() for w, t in zip(weights, terms, strict=True)]
        return float(value), np.array([*grad, 0.5 * noise * np.trace(slope)]) + (theta - start) / 9

    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(-14, 3)] * len(start))
    for (keys, shape, old), new in zip(TERMS, np.exp(found.x[:-1]), strict=True):
        print(f"{'+'.join(keys) or 'all':<50} {shape:<6} {new:.2g} (in use: {old:g})")
    print(f"noise {np.exp(found.x[-1]):.2g} (in use: {NOISE:g})")


if __name__ == "__main__":
    main()
