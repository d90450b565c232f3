"""Figures 1 and 2: what smoothness buys and costs, one curve per activation, and SmeLU's beta from sharp to linear."""

from __future__ import annotations

from simulator.figures.claims import below_rivals, halving, limit, u_shape
from simulator.figures.sweep import AGAIN, Sweep, family, has, relative, swept
from simulator.measures.intervals import exact
from simulator.report.charts import Axis, Figure, Line, Panel, Point, chart
from simulator.result import Arm
from simulator.words import NAMES, label, number

CURVES = ("smelu", "swish", "softplus")
"""Activations that are swept in beta."""
SINGLE = ("gelu", "linear", "gsmelu", AGAIN)
"""Arms that are one point; the last shows what chance makes of ReLU's own."""
LOOKS = {"relu": 0, "smelu": 1, "swish": 2, "softplus": 3, "gelu": 4, "linear": 5, AGAIN: 6, "gsmelu": 7}
PLANES = (("pd", "log_loss", "PD"), ("pair", "log_loss", "pair swaps"), ("pd", "ranking_loss", "PD"))
"""Measures up and across, and the word of the one up."""
BETAS = (("pd", "PD"), ("pair", "Pair swaps"), ("log_loss", "Log loss: lower is better"))
"""Measure and heading of the beta sweep."""


def plane(sweep: Sweep) -> Figure:
    """Figure 1: instability against accuracy loss."""
    arms = sweep.arms()
    smelu = [arm for _, arm in swept(arms, "smelu") if has(arm, "pd", "log_loss")]
    if len(smelu) < 2:
        return Figure(1, "plane", "No SmeLU beside ReLU in one condition: nothing to put in the plane")
    panels = [_plane(arms, *what) for what in PLANES]
    legend = [
        (LOOKS[name], _name(arms, name)) for name in LOOKS if name == "relu" or _others(arms, name) or swept(arms, name)
    ]
    compared = below_rivals(arms)
    claim = halving(arms).say if compared.verdict == "not measured" else compared.say
    note = (
        "Both axes are relative to ReLU, at (0, 1), with 95 % intervals paired with it; the lower left is better. "
        "Numbers are SmeLU's beta; intervals may run out of the picture and are in the CSV file. "
        + sweep.drawn(sweep.compared())
    )
    return Figure(1, "plane", claim, [panel for panel in panels if panel], legend, note)


def beta(sweep: Sweep) -> Figure:
    """Figure 2: SmeLU from beta = 0 (ReLU) towards the linear model."""
    arms = sweep.arms()
    found = swept(arms, "smelu")
    if len(found) < 3:
        return Figure(2, "beta", "Fewer than two SmeLU settings in one condition: no sweep of beta")
    panels = [_over_beta(found, arms.get("linear"), *what) for what in BETAS]
    legend = (
        [(1, "SmeLU"), (LOOKS["linear"], "Linear model, with its interval")] if "linear" in arms else [(1, "SmeLU")]
    )
    claims = [u_shape(arms).say, limit(arms).say] if "linear" in arms else [u_shape(arms).say]
    note = "Ratios to ReLU, which is beta = 0, with intervals paired with it; settings of beta are spaced evenly. "
    note += sweep.drawn(sweep.compared())
    return Figure(2, "beta", ". ".join(claims), panels, legend, note)


def _others(arms: dict[str, Arm], name: str) -> list[Arm]:
    """The arms of an activation other than SmeLU."""
    found = _single(arms, name) if name in SINGLE else [arm for _, arm in swept(arms, name)]
    return [arm for arm in found if has(arm, "pd", "log_loss")]


def _single(arms: dict[str, Arm], name: str) -> list[Arm]:
    """The one arm of an activation that is not swept; of several gSmeLUs the first."""
    found = [arm for spec, arm in arms.items() if spec == name or (name == "gsmelu" and family(spec)[0] == name)]
    return found[:1]


def _plane(arms: dict[str, Arm], up: str, across: str, word: str) -> Panel | None:
    lines = []
    for name in (*CURVES, *SINGLE, "relu"):
        found = swept(arms, name) if name in CURVES else [(None, arm) for arm in _single(arms, name)]
        points = [
            Point(
                relative(arm, across).moved(lambda ratio: 100 * (ratio - 1)),
                relative(arm, up),
                f"{beta:g}" if beta and name == "smelu" else "",
                "" if beta is None else f"beta={beta:g}",
            )
            for beta, arm in found
            if has(arm, up, across)
        ]
        if points:
            lines.append(Line(_name(arms, name), points, LOOKS[name], strength=0.35))
    if len(lines) < 2:
        return None
    loss = across.replace("_", " ")
    axes = Axis(f"change of {loss}, %", air=0.2), Axis(f"{word} / ReLU's", zero=True, air=0.1)
    return chart(f"plane-{up}-{across}".replace("_", "-"), f"{word[0].upper()}{word[1:]} against {loss}", lines, *axes)


def _over_beta(found: list[tuple[float, Arm]], linear: Arm | None, measure: str, heading: str) -> Panel:
    places = [(i, beta, arm) for i, (beta, arm) in enumerate(found) if has(arm, measure)]
    points = [Point(exact(i), relative(arm, measure), key=f"beta={beta:g}") for i, beta, arm in places]
    lines = [Line("SmeLU", points, 1)]
    if linear and has(linear, measure):
        lines.insert(0, Line("Linear", [Point(exact(0), relative(linear, measure))], LOOKS["linear"], level=True))
    marks = {float(i): number(value, _places(value)) for i, (value, _) in enumerate(found)}
    up = Axis("ratio to ReLU", zero=measure != "log_loss", air=1.0)
    note = "" if up.zero else "This axis does not start at 0."
    return chart(f"beta-{measure}".replace("_", "-"), heading, lines, Axis("beta", marks), up, note)


def _places(value: float) -> int:
    return len(f"{value:g}".partition(".")[2])


def _name(arms: dict[str, Arm], name: str) -> str:
    if name == "gsmelu":
        return label(_single(arms, name)[0].spec)
    return "ReLU again (A/A)" if name == AGAIN else NAMES.get(name, label(name))
