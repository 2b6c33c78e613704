"""Predictive coding by diffrax on JAX, in the environment of the peers: `make peers` installs it.

Run as `python benchmarks/peers.py PROBLEM.npz RESULT.npz SECONDS`. It shares no code with neurodyn, which its
environment does not have.
"""

import sys
import time

import diffrax
import jax
import jax.numpy as jnp
import numpy as np


def main(problem: str, result: str, seconds: float) -> None:
    data = np.load(problem)
    layers = [(jnp.asarray(data[f"w{i}"]), jnp.asarray(data[f"b{i}"])) for i in range(int(data["layers"]))]
    x, t = jnp.asarray(data["x"]), jnp.asarray(data["t"])

    def field(time, values, args):
        active = [x, *(jnp.tanh(v) for v in values)]
        errors = [v - (a @ w.T + b) for v, a, (w, b) in zip([*values, t], active, layers, strict=True)]
        return [-errors[i] + (1 - active[i + 1] ** 2) * (errors[i + 1] @ layers[i + 1][0]) for i in range(len(values))]

    start: list[jax.Array] = []
    for i, (w, b) in enumerate(layers[:-1]):
        start.append((jnp.tanh(start[-1]) if i else x) @ w.T + b)

    def solve(solver, duration, rtol, atol, event=None):
        @jax.jit
        def run(values):
            return diffrax.diffeqsolve(
                diffrax.ODETerm(field),
                solver,
                0.0,
                duration,
                None,
                values,
                stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
                event=event,
                max_steps=100_000,
                throw=False,
            ).ys

        return run

    def settled(time, values, args, **_):
        return jnp.max(jnp.stack([jnp.max(jnp.abs(s)) for s in field(time, values, args)])) < float(data["tolerance"])

    duration = float(data["duration"])
    ways = {
        "diffrax Heun relaxation": solve(diffrax.Heun(), duration, 1e-3, 1e-4),
        "diffrax Tsit5 relaxation": solve(diffrax.Tsit5(), duration, 1e-3, 1e-4),
        "diffrax Heun equilibrium": solve(diffrax.Heun(), 1000.0, 1e-4, 1e-5, diffrax.Event(settled)),
    }
    out = {}
    for name, way in ways.items():
        solution = jax.block_until_ready(way(start))
        times: list[float] = []
        end = time.perf_counter() + seconds / len(ways)
        while len(times) < 3 or time.perf_counter() < end:
            begin = time.perf_counter()
            jax.block_until_ready(way(start))
            times.append(time.perf_counter() - begin)
        out[f"{name} seconds"] = np.array(times)
        for i, value in enumerate(solution):
            out[f"{name} x{i + 1}"] = np.asarray(value)[0]
    np.savez(result, **out)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
