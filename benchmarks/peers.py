"""Predictive coding by diffrax on JAX and by torchode, in the environment of the peers: `make peers` installs them.

Run as `python benchmarks/peers.py PROBLEM.npz RESULT.npz`, it solves the problem in every way, writes the results, and
prints the ways' names in a line; then, for each name that it reads, it solves in that way and prints a line. A peer
that is missing or fails is named and left out. It shares no code with neurodyn, which its environment does not have.
"""

import sys
from collections.abc import Callable
from functools import partial

import numpy as np

Way = Callable[[], list[np.ndarray]]


def by_diffrax(data: dict[str, np.ndarray]) -> dict[str, Way]:
    import diffrax
    import jax
    import jax.numpy as jnp

    layers = [(jnp.asarray(data[f"w{i}"]), jnp.asarray(data[f"b{i}"])) for i in range(int(data["layers"]))]
    x, t = jnp.asarray(data["x"]), jnp.asarray(data["t"])

    def field(time, values, args):
        active = [x, *(jnp.tanh(v) for v in values)]
        errors = [v - (a @ w.T + b) for v, a, (w, b) in zip([*values, t], active, layers, strict=True)]
        return [-errors[i] + (1 - active[i + 1] ** 2) * (errors[i + 1] @ layers[i + 1][0]) for i in range(len(values))]

    start: list[jax.Array] = []
    for i, (w, b) in enumerate(layers[:-1]):
        start.append((jnp.tanh(start[-1]) if i else x) @ w.T + b)

    def settled(time, values, args, **_):
        return jnp.max(jnp.stack([jnp.max(jnp.abs(s)) for s in field(time, values, args)])) < float(data["tolerance"])

    def way(solver, duration, rtol, atol, event=None) -> Way:
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

        return lambda: [np.asarray(value)[0] for value in jax.block_until_ready(run(start))]

    duration = float(data["duration"])
    return {
        "diffrax Heun relaxation": way(diffrax.Heun(), duration, 1e-3, 1e-4),
        "diffrax Tsit5 relaxation": way(diffrax.Tsit5(), duration, 1e-3, 1e-4),
        "diffrax Heun equilibrium": way(diffrax.Heun(), 1000.0, 1e-4, 1e-5, diffrax.Event(settled)),
    }


def by_torchode(data: dict[str, np.ndarray]) -> dict[str, Way]:
    import torch
    import torchode

    layers = [(torch.tensor(data[f"w{i}"]), torch.tensor(data[f"b{i}"])) for i in range(int(data["layers"]))]
    x, t = torch.tensor(data["x"]), torch.tensor(data["t"])
    widths = [len(b) for _, b in layers[:-1]]

    def field(time, y):
        values = y.split(widths, 1)
        active = [x, *map(torch.tanh, values)]
        errors = [v - (a @ w.T + b) for v, a, (w, b) in zip([*values, t], active, layers, strict=True)]
        slopes = [
            -errors[i] + (1 - active[i + 1] ** 2) * (errors[i + 1] @ layers[i + 1][0]) for i in range(len(widths))
        ]
        return torch.cat(slopes, 1)

    start: list[torch.Tensor] = []
    for i, (w, b) in enumerate(layers[:-1]):
        start.append((torch.tanh(start[-1]) if i else x) @ w.T + b)
    zero = torch.zeros(len(x))
    problem = torchode.InitialValueProblem(torch.cat(start, 1), zero, zero + float(data["duration"]))

    def way(method) -> Way:
        term = torchode.ODETerm(field)
        controller = torchode.IntegralController(atol=1e-4, rtol=1e-3, term=term)
        solver = torchode.AutoDiffAdjoint(method(term=term), controller)

        def run() -> list[np.ndarray]:
            with torch.no_grad():
                return [value.numpy() for value in solver.solve(problem).ys[:, -1].split(widths, 1)]

        return run

    return {"torchode Heun relaxation": way(torchode.Heun), "torchode Tsit5 relaxation": way(torchode.Tsit5)}


PEERS = {"diffrax with JAX": by_diffrax, "torchode": by_torchode}


def main(problem: str, result: str) -> None:
    data = dict(np.load(problem))
    ways: dict[str, Way] = {}
    found: dict[str, np.ndarray] = {}
    only = str(data.get("only", ""))
    for peer, declare in PEERS.items():
        if only not in ("", peer):
            continue
        try:
            own = declare(data)
            found |= {f"{name} x{i}": value for name, way in own.items() for i, value in enumerate(way(), start=1)}
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            print(f"Without {peer} ({reason}); `make peers` installs it anew.", file=sys.stderr)
        else:
            ways |= own
    np.savez(result, **found)  # type: ignore[arg-type]
    say = partial(print, flush=True)
    say("\t".join(ways))
    for line in sys.stdin:
        ways[line.strip()]()
        say()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
