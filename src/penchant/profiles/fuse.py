"""Source and action weights learned from data: those under which profiles best predict what each user does next.

Written for users at several cuts in time. A mass is bilinear in the weights, so the events before a cut are summed once, apart by
source and action, under equal weights (every source 1, every action 1, or −1 where the policy's weight is below 0), and a
weighting multiplies these sums. With s the source weights, a the action weights relative to equal ones, q the user's
interactions after the cut as shares of values, π the training users' shares before the cut and κ the shrinkage:

    mass(value)     = Σ s_source · a_action · M[value, source, action],   M = Σ ±score · rating_factor · 2^(−(T − t)/h)
    p(value | user) = (max(mass, 0) + κ·π(value)) / Σ over values
    loss            = mean over users of −Σ q(value) · ln p(value)        cross-entropy in nats

The weights' overall scale matters through κ alone. So every weighting that is compared gets the κ that suits it best on the
training users: a gain is of the weights, not of a luckier shrinkage. A policy's `daily_ceiling` isn't bilinear and is left out.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from scipy.optimize import minimize, minimize_scalar
from scipy.sparse import csr_matrix
from scipy.special import expit

from penchant import __version__
from penchant.errors import DataError
from penchant.files import write_text
from penchant.profiles.duck import connect
from penchant.profiles.fold import admitted, best_tags, days_of, decay, instant, joined, lookup, once_each, rating_factor
from penchant.profiles.inputs import read_inputs, usable
from penchant.profiles.policy import Policy
from penchant.taxonomy import Taxonomy

TOP = 3
CUTS = 3
WINDOW_DAYS = 14.0
HELD_OUT = 0.3
"""Share of the users who are judged by and never fitted on."""
VALIDATION = 0.3
"""Share of the training users on whom the ridge's strength is chosen."""
MINIMUM_USERS = 100
"""With fewer, the bootstrap over the held-out 30 is too narrow to be believed."""
RIDGES = (1.0, 0.1, 0.01, 0.001, 0.0001)
"""Nats that weights cost per squared distance from equal ones; of two that predict equally, the stronger counts."""
SOFTNESS = 0.002
"""Temperature of the softplus that stands in for max(mass, 0) while weights are fitted, in units of κ."""
SMOOTHING = 0.01
"""What part of π is dealt out evenly, so that a value nobody touched before the cut is not impossible."""
LEAST = 0.01
"""Least weight, relative to its equal one, of an action that must keep its sign: 0 has none."""
LARGEST_LOG = 7.0
"""How far a fitted source weight or shrinkage may go from its start, as a logarithm: a factor of about 1,100."""
DRAWS = 2000
CASES_AT_A_TIME = 4096
PAIR = ("source", "action")


@dataclass(frozen=True)
class Cases:
    """Users at cuts, each with a past and with next interactions: one *case* per user and cut.

    A *cell* is a value in a case's past, a *target* one among its next interactions, a *pair* a source with an action. Numbers
    are positions in the lists; cells and targets stand in the order of their cases.
    """

    users: list[str]
    held_out: Any
    """Whether a user is judged by. *Shape:* (users,)."""
    sources: list[str]
    actions: list[str]
    pair_source: Any
    pair_action: Any
    pair_events: Any
    """Tagged events before the cuts. *Shape:* (pairs,)."""
    action_rated: Any
    """Whether ratings count against the interest in some of an action's events. *Shape:* (actions,)."""
    case_user: Any
    case_cut: Any
    masses: Any
    """M, the masses under equal weights, sparse. *Shape:* (cells, pairs)."""
    cell_case: Any
    cell_value: Any
    target_case: Any
    target_value: Any
    target_cell: Any
    """The cell of the value that comes next; −1 where it is new to the user."""
    target_share: Any
    """q: adds up to 1 in each case. *Shape:* (targets,)."""
    prior: Any
    """π. *Shape:* (cuts, values)."""

    @property
    def target_prior(self) -> Any:
        """π of each target. *Shape:* (targets,)."""
        return self.prior[self.case_cut[self.target_case], self.target_value]

    def per_user(self, of_cases: Any) -> Any:
        """Means over each user's cases. *Shape:* (cases,) → (users,)."""
        count = len(self.users)
        return np.bincount(self.case_user, of_cases, count) / np.bincount(self.case_user, minlength=count)

    def weights(self, chosen: Any) -> Any:
        """What each case counts in a mean where each of the `chosen` users counts once. *Shape:* (users,) → (cases,)."""
        of_users = chosen / np.bincount(self.case_user) / chosen.sum()
        return of_users[self.case_user]


@dataclass(frozen=True)
class Weighting:
    """Weights of all sources and actions that occur, in a policy's terms."""

    sources: dict[str, float]
    actions: dict[str, float]

    def of_pairs(self, cases: Cases, equal: Policy) -> Any:
        """What each pair's masses under `equal` weights are multiplied by. *Shape:* (pairs,)."""
        sources = np.array([self.sources[name] for name in cases.sources])
        actions = np.array([self.actions[name] / equal.action_weights.get(name, 1.0) for name in cases.actions])
        return sources[cases.pair_source] * actions[cases.pair_action]


def equal_weights(policy: Policy) -> Policy:
    """The policy with every source at 1 and every action at 1, or at −1 where its weight is below 0."""
    signs = {name: -1.0 if weight < 0 else 1.0 for name, weight in policy.action_weights.items()}
    return policy.model_copy(update={"source_weights": {}, "action_weights": signs})


def interest_rows(events: ir.Table, tags: ir.Table, policy: Policy, taxonomy: Taxonomy) -> ir.Table:
    """One row per event and interest that may enter profiles, with its `worth` under equal weights, and whether its rating counts against it."""
    events = once_each(events)
    best = best_tags(tags.filter(tags.dimension == "interest"), events)
    rows = admitted(joined(events, best, equal_weights(policy)), policy, taxonomy)
    columns = ("user_id", "dimension", "value", *PAIR, "occurred_at", "days", "score", "worth")
    return rows.select(*columns, rated_against=rating_factor(rows.rating, policy.rating_factors) < 0)


def masses_before(rows: ir.Table, policy: Policy, cut: datetime) -> ir.Table:
    """M at `cut` from `interest_rows`: `mass` under equal weights on the long horizon, per user, value, source and action; and how many events."""
    past = rows.filter(rows.occurred_at < instant(cut))
    faded = past.score * past.worth * decay(days_of(cut) - past.days, past.dimension, policy, policy.horizons[1])
    return past.group_by("user_id", "value", *PAIR).agg(mass=faded.sum(), events=past.count(), rated_against=past.rated_against.any())


def interactions_after(rows: ir.Table, policy: Policy, cut: datetime, window: timedelta) -> ir.Table:
    """How many `events` from `cut` until `window` later are in favour of each value, per user: action weight and rating factor above 0."""
    within = (rows.occurred_at >= instant(cut)) & (rows.occurred_at < instant(cut + window))
    after = rows.filter(within & (lookup(rows.action, policy.action_weights) > 0) & (rows.worth > 0))
    return after.group_by("user_id", "value").agg(events=after.count())


def cuts_of(rows: ir.Table, window_days: float) -> tuple[list[datetime], timedelta]:
    """Equally spaced instants in the last half of the events' time, and the window after each: as wished, or as long as fits without overlap."""
    found = rows.agg(first=rows.occurred_at.min(), last=rows.occurred_at.max()).to_pyarrow().to_pylist()[0]
    if found["first"] is None:
        raise DataError("no event has a tag of an interest that may enter profiles; were the tags made from other events?")
    half = (found["last"] - found["first"]) / 2
    cuts = [found["last"] - half + half * n / CUTS for n in range(CUTS)]
    return cuts, min(timedelta(days=window_days), half / CUTS)


def place(user: str) -> float:
    """A number from 0 to 1 that is a user's own, on every machine and in every run."""
    return int.from_bytes(hashlib.sha256(user.encode()).digest()[:8], "big") / 2**64


def cases_of(rows: ir.Table, policy: Policy, cuts: Sequence[datetime], window: timedelta) -> Cases:
    """The cases of `interest_rows`. Raises `DataError` where they are too few, or have nothing that weights could tell apart."""
    past, after = (
        ibis.union(*(table.mutate(cut=ibis.literal(n, "int64")) for n, table in enumerate(tables))).to_pyarrow()
        for tables in (
            [masses_before(rows, policy, cut) for cut in cuts],
            [interactions_after(rows, policy, cut, window) for cut in cuts],
        )
    )
    past, after = with_both_sides(past, after)
    users, sources, actions = (sorted(past[name].unique().to_pylist()) for name in ("user_id", *PAIR))
    require_learnable(users, sources, actions, cuts, window)
    values = sorted({*past["value"].unique().to_pylist(), *after["value"].unique().to_pylist()})
    past_case, after_case = (each["cut"].to_numpy() * len(users) + numbers(each["user_id"], users) for each in (past, after))
    case_keys = np.unique(past_case)
    past_case, target_case = (np.searchsorted(case_keys, each) for each in (past_case, after_case))
    case_cut, case_user = np.divmod(case_keys, len(users))
    cell_keys, cell = np.unique(past_case * len(values) + numbers(past["value"], values), return_inverse=True)
    cell_case, cell_value = np.divmod(cell_keys, len(values))
    action = numbers(past["action"], actions)
    pair_keys, pair = np.unique(numbers(past["source"], sources) * len(actions) + action, return_inverse=True)
    pair_source, pair_action = np.divmod(pair_keys, len(actions))
    masses = csr_matrix((past["mass"].to_numpy(), (cell, pair)), shape=(len(cell_keys), len(pair_keys)))
    target_value, counts = numbers(after["value"], values), after["events"].to_numpy().astype(float)
    held_out = np.array([place(user) < HELD_OUT for user in users])
    return Cases(
        users=users,
        held_out=held_out,
        sources=sources,
        actions=actions,
        pair_source=pair_source,
        pair_action=pair_action,
        pair_events=np.bincount(pair, past["events"].to_numpy()),
        action_rated=np.bincount(action, past["rated_against"].to_numpy()) > 0,
        case_user=case_user,
        case_cut=case_cut,
        masses=masses,
        cell_case=cell_case,
        cell_value=cell_value,
        target_case=target_case,
        target_value=target_value,
        target_cell=positions(cell_keys, target_case * len(values) + target_value),
        target_share=counts / np.bincount(target_case, counts)[target_case],
        prior=shares(masses, case_cut[cell_case], cell_value, ~held_out[case_user[cell_case]], (len(cuts), len(values))),
    )


def with_both_sides(past: pa.Table, after: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The rows of those users and cuts that both tables have, in an order that no thread decides: sums depend on it in their last digit."""
    keys = ["cut", "user_id"]
    order = [(name, "ascending") for name in (*keys, "value")]
    both = past.join(after.select(keys), keys, join_type="left semi"), after.join(past.select(keys), keys, join_type="left semi")
    return both[0].sort_by([*order, *((name, "ascending") for name in PAIR)]), both[1].sort_by(order)


def require_learnable(users: list[str], sources: list[str], actions: list[str], cuts: Sequence[datetime], window: timedelta) -> None:
    """Raise `DataError` for fewer than `MINIMUM_USERS`, or for a single source and action."""
    if len(users) < MINIMUM_USERS:
        raise DataError(
            f"{len(users)} users have interests both before one of {', '.join(f'{cut:%Y-%m-%d}' for cut in cuts)} and within "
            f"{window / timedelta(days=1):.3g} days after it; at least {MINIMUM_USERS} are needed: "
            "give events of more users, of a longer time, or a longer --window-days"
        )
    if len(sources) == len(actions) == 1:
        raise DataError(
            f"all interests before the cuts come from the source {sources[0]!r} by the action {actions[0]!r}: there are no weights to learn; "
            "give events of several sources or actions"
        )


def numbers(column: pa.ChunkedArray, names: list[str]) -> Any:
    """Positions in `names`."""
    return pc.index_in(column, pa.array(names, pa.string())).to_numpy().astype(np.int64)


def positions(ordered: Any, wanted: Any) -> Any:
    """Where each of `wanted` stands in `ordered`; −1 where it doesn't."""
    found = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    return np.where(ordered[found] == wanted, found, -1)


def shares(masses: Any, cell_cut: Any, cell_value: Any, counted: Any, shape: tuple[int, int]) -> Any:
    """π: the shares of values among the positive masses of the `counted` cells under equal weights, `SMOOTHING` of them even. *Shape:* (cuts, values)."""
    positive = np.maximum(np.asarray(masses.sum(axis=1)).ravel(), 0) * counted
    found = np.bincount(cell_cut * shape[1] + cell_value, positive, shape[0] * shape[1]).reshape(shape)
    total = found.sum(axis=1, keepdims=True)
    even = 1 / shape[1]
    return (1 - SMOOTHING) * np.divide(found, total, out=np.full(shape, even), where=total > 0) + SMOOTHING * even


def positive_masses(cases: Cases, of_pairs: Any) -> Any:
    """max(mass, 0), with the masses under equal weights multiplied pair by pair. *Shape:* (pairs,) → (cells,)."""
    return np.maximum(cases.masses @ of_pairs, 0)


def losses(cases: Cases, positive: Any, kappa: float) -> Any:
    """Cross-entropy in nats of each case's next interactions, from its max(mass, 0). *Shape:* (cells,) → (cases,)."""
    total = np.bincount(cases.cell_case, positive, len(cases.case_user)) + kappa
    chance = at_targets(cases, positive) + kappa * cases.target_prior
    return np.log(total) - np.bincount(cases.target_case, cases.target_share * np.log(chance), len(total))


def at_targets(cases: Cases, of_cells: Any) -> Any:
    """Each target's cell, 0 where it has none. *Shape:* (cells,) → (targets,)."""
    return np.where(cases.target_cell >= 0, of_cells[cases.target_cell], 0.0)


def objective(parameters: Any, cases: Cases, case_weights: Any, ridge: float, temperature: float) -> tuple[float, Any]:
    """Mean loss with its ridge, and the gradient.

    `parameters` are the logarithms of the source weights, the action weights relative to equal ones, and the logarithm of
    κ. The ridge pulls all but κ towards equal weights. max(mass, 0) is softened to temperature · ln(1 + e^(mass/temperature)).
    *Shape:* parameters and gradient (sources + actions + 1,), case_weights (cases,).
    """
    count = len(cases.sources)
    logs, actions, kappa = parameters[:count], parameters[count:-1], np.exp(parameters[-1])
    of_pairs = multipliers(parameters, cases)
    mass = cases.masses @ of_pairs
    positive = temperature * np.logaddexp(0, mass / temperature)
    value = case_weights @ losses(cases, positive, kappa) + ridge * (logs @ logs + (actions - 1) @ (actions - 1))

    total = np.bincount(cases.cell_case, positive, len(case_weights)) + kappa
    weighed = case_weights[cases.target_case] * cases.target_share
    of_targets = weighed / (at_targets(cases, positive) + kappa * cases.target_prior)
    known = cases.target_cell >= 0
    of_positive = (case_weights / total)[cases.cell_case] - np.bincount(cases.target_cell[known], of_targets[known], len(mass))
    slopes = cases.masses.T @ (of_positive * expit(mass / temperature))
    of_sources = np.bincount(cases.pair_source, slopes * of_pairs, count) + 2 * ridge * logs
    of_actions = np.bincount(cases.pair_action, slopes * np.exp(logs)[cases.pair_source], len(actions)) + 2 * ridge * (actions - 1)
    of_kappa = kappa * ((case_weights / total).sum() - of_targets @ cases.target_prior)
    return float(value), np.concatenate([of_sources, of_actions, [of_kappa]])


def multipliers(parameters: Any, cases: Cases) -> Any:
    """What `parameters` multiply the masses under equal weights by. *Shape:* (pairs,)."""
    count = len(cases.sources)
    return np.exp(parameters[:count])[cases.pair_source] * parameters[count:-1][cases.pair_action]


def fit(cases: Cases, policy: Policy, chosen: Any, ridge: float) -> Any:
    """The `parameters` of the least `objective` over the `chosen` users, from equal weights on.

    The anchors stay at 1: κ takes the scale. Actions are free in sign, but for those whose sign means more: one with
    ratings that count against the interest (the fold takes them by their size where the weight is below 0, so that a change
    of sign would change M), and one of `spend_actions` (money given back speaks for nothing).
    """
    source, action = anchors(cases, policy)
    kappa = policy.shrinkage / policy.action_weights.get(cases.actions[action], 1.0)
    start = np.concatenate([np.zeros(len(cases.sources)), np.ones(len(cases.actions)), [np.log(kappa)]])
    least, most = start - LARGEST_LOG, start + LARGEST_LOG
    of_actions = slice(len(cases.sources), -1)
    keeps_sign = cases.action_rated | np.isin(cases.actions, list(policy.spend_actions))
    least[of_actions], most[of_actions] = np.where(keeps_sign, LEAST, -np.inf), np.inf
    fixed = [source, len(cases.sources) + action]
    least[fixed] = most[fixed] = start[fixed]
    given = (cases, cases.weights(chosen), ridge, SOFTNESS * kappa)
    options = {"maxiter": 1000, "ftol": 1e-12, "gtol": 1e-6}
    return minimize(objective, start, given, method="L-BFGS-B", jac=True, bounds=list(zip(least, most, strict=True)), options=options).x


def anchors(cases: Cases, policy: Policy) -> tuple[int, int]:
    """The source, and the action of a weight above 0, with the most events: what the others are measured by.

    Raises `DataError` where no action has a weight above 0.
    """
    in_favour = np.array([policy.action_weights.get(name, 1.0) > 0 for name in cases.actions])
    if not in_favour.any():
        raise DataError(f"no action before the cuts ({', '.join(cases.actions)}) has a weight above 0 in the policy; give it one")
    of_sources, of_actions = (np.bincount(pair, cases.pair_events) for pair in (cases.pair_source, cases.pair_action))
    return int(of_sources.argmax()), int(np.where(in_favour, of_actions, -1).argmax())


def best_shrinkage(cases: Cases, positive: Any, chosen: Any, kappa: float) -> float:
    """The κ around `kappa` under which masses predict best over the `chosen` users."""
    case_weights = cases.weights(chosen)
    found = minimize_scalar(
        lambda log: case_weights @ losses(cases, positive, np.exp(log)),
        bounds=(np.log(kappa) - LARGEST_LOG, np.log(kappa) + LARGEST_LOG),
        method="bounded",
    )
    return float(np.exp(found.x))


def learn(cases: Cases, policy: Policy) -> tuple[Weighting, float]:
    """Weights fitted on the training users, to 4 digits, and the ridge that suits them best.

    The most frequent source gets 1, and the most frequent action in favour keeps the policy's weight.
    """
    training = ~cases.held_out
    validation = training & np.array([place(user) >= 1 - (1 - HELD_OUT) * VALIDATION for user in cases.users])

    def validation_loss(ridge: float) -> float:
        """Loss on the training users kept aside, of weights fitted on the others."""
        parameters = fit(cases, policy, training & ~validation, ridge)
        of_cases = losses(cases, positive_masses(cases, multipliers(parameters, cases)), np.exp(parameters[-1]))
        return float(cases.weights(validation) @ of_cases)

    ridge = min(RIDGES, key=validation_loss)
    parameters = fit(cases, policy, training, ridge)
    start = equal_weighting(cases, policy)
    sources, actions = np.exp(parameters[: len(cases.sources)]), parameters[len(cases.sources) : -1]
    return Weighting(
        {name: digits(weight) for name, weight in zip(cases.sources, sources, strict=True)},
        {name: digits(weight * start.actions[name]) for name, weight in zip(cases.actions, actions, strict=True)},
    ), ridge


def equal_weighting(cases: Cases, policy: Policy) -> Weighting:
    """Equal weights, on the scale on which the most frequent action in favour has the policy's weight."""
    unit = policy.action_weights.get(cases.actions[anchors(cases, policy)[1]], 1.0)
    signs = equal_weights(policy).action_weights
    return Weighting(dict.fromkeys(cases.sources, 1.0), {name: unit * signs.get(name, 1.0) for name in cases.actions})


def digits(weight: float) -> float:
    """The number to 4 significant digits."""
    return float(f"{weight:.4g}")


def recalls(cases: Cases, positive: Any, kappa: float) -> Any:
    """Share of each case's next interactions that are among its `TOP` likeliest values. *Shape:* (cells,) → (cases,)."""
    hit = np.zeros(len(cases.target_case))
    for start in range(0, len(cases.case_user), CASES_AT_A_TIME):
        scores = kappa * cases.prior[cases.case_cut[start : start + CASES_AT_A_TIME]]
        own, next_ones = (slice(*np.searchsorted(each, (start, start + len(scores)))) for each in (cases.cell_case, cases.target_case))
        scores[cases.cell_case[own] - start, cases.cell_value[own]] += positive[own]
        among = np.zeros(scores.shape, dtype=bool)
        np.put_along_axis(among, np.argsort(-scores, axis=1, kind="stable")[:, :TOP], values=True, axis=1)
        hit[next_ones] = among[cases.target_case[next_ones] - start, cases.target_value[next_ones]]
    return np.bincount(cases.target_case, cases.target_share * hit, len(cases.case_user))


def interval(differences: Any) -> list[float]:
    """95% percentile bootstrap (Efron 1979) of the mean over users. *Shape:* (users,)."""
    draw = np.random.default_rng(0)
    means = [draw.choice(differences, len(differences)).mean() for _ in range(DRAWS)]
    return [float(np.percentile(means, each)) for each in (2.5, 97.5)]


def judged(cases: Cases, policy: Policy, weightings: dict[str, Weighting]) -> dict[str, Any]:
    """Figures on the held-out users: each weighting's, and what the last one gains over each of the others."""
    rows: dict[str, dict[str, float]] = {}
    of_users: dict[str, Any] = {}
    for name, weighting in weightings.items():
        positive = positive_masses(cases, weighting.of_pairs(cases, equal_weights(policy)))
        kappa = best_shrinkage(cases, positive, ~cases.held_out, policy.shrinkage)
        of_users[name] = cases.per_user(losses(cases, positive, kappa))[cases.held_out]
        kept = cases.per_user(losses(cases, positive, policy.shrinkage))[cases.held_out]
        recall = cases.per_user(recalls(cases, positive, kappa))[cases.held_out]
        rows[name] = {
            "log_loss": float(of_users[name].mean()),
            "recall_at_3": float(recall.mean()),
            "shrinkage": digits(kappa),
            "log_loss_at_policy_shrinkage": float(kept.mean()),
        }
    *others, last = weightings
    gains = {name: of_users[name] - of_users[last] for name in others}
    return {"held_out": rows} | {
        f"gain_over_{name}": {"nats": float(each.mean()), "interval": interval(each)} for name, each in gains.items()
    }


def fused(
    events: ir.Table, tags: ir.Table, policy: Policy, taxonomy: Taxonomy, window_days: float = WINDOW_DAYS
) -> tuple[Policy, dict[str, Any]]:
    """The policy with the weights of all sources and actions that occur learned from `events` and their `tags`, and the figures of `fuse`."""
    rows = interest_rows(events, tags, policy, taxonomy)
    cuts, window = cuts_of(rows, window_days)
    cases = cases_of(rows, policy, cuts, window)
    weighting, ridge = learn(cases, policy)
    given = Weighting(
        {name: policy.source_weights.get(name, 1.0) for name in cases.sources},
        {name: policy.action_weights.get(name, 1.0) for name in cases.actions},
    )
    weightings = {"equal": equal_weighting(cases, policy), "policy": given, "fitted": weighting}
    sources, actions = policy.source_weights | weighting.sources, policy.action_weights | weighting.actions
    return policy.model_copy(update={"source_weights": sources, "action_weights": actions}), {
        "users": {"training": int((~cases.held_out).sum()), "held_out": int(cases.held_out.sum())},
        "cuts": [cut.isoformat() for cut in cuts],
        "window_days": window / timedelta(days=1),
        "ridge": ridge,
        "policy_shrinkage": policy.shrinkage,
        **judged(cases, policy, weightings),
        "source_weights": weighting.sources,
        "action_weights": weighting.actions,
        "turned": sorted(name for name in cases.actions if given.actions[name] * weighting.actions[name] < 0),
    }


def fuse(
    events: Path, tags: Path, policy: Policy, output: Path, taxonomy: Path | Taxonomy | None = None, window_days: float = WINDOW_DAYS
) -> dict[str, Any]:
    """Learn source and action weights and write `output`: the policy with them, and the figures at its head.

    Gives `users` (training, held_out), `cuts`, `window_days`, `ridge`, `policy_shrinkage`; `held_out`, per weighting (equal, policy, fitted) the
    mean `log_loss` per user in nats and `recall_at_3` under its own best `shrinkage`, and the log-loss under the policy's;
    `gain_over_equal` and `gain_over_policy`: how many `nats` the fitted weights save, with the 95% `interval` over held-out
    users (paired); `source_weights`, `action_weights`; and the actions that `turned`, whose sign is not the policy's.
    """
    inputs = read_inputs(connect(), events, tags, taxonomy)
    rows = usable(inputs.events, None)
    if not rows.count().to_pyarrow().as_py():
        raise DataError(f"{events}: no events")
    learned, figures = fused(rows, inputs.tags, policy, inputs.taxonomy, window_days)
    head = (
        f"Weights learned by penchant profile fuse (penchant {__version__}); the policy's other settings are kept.\n{fusion_text(figures)}"
    )
    content = yaml.safe_dump(learned.model_dump(), sort_keys=False, allow_unicode=True, default_flow_style=None, width=140)
    comment = ("".join(each if each.isprintable() else "�" for each in line) for line in head.splitlines())
    write_text(output, "".join(f"# {line}\n" for line in comment) + content)
    return figures


def fusion_text(figures: dict[str, Any]) -> str:
    """The figures of `fuse` for a terminal."""
    users = figures["users"]
    kept = f"with shrinkage {figures['policy_shrinkage']:g}"
    lines = [
        f"{users['training']:,} training users, {users['held_out']:,} held-out users; what comes within {figures['window_days']:.3g} days after "
        + ", ".join(each[:10] for each in figures["cuts"]),
        f"{'weights':8}{'log-loss':>10}{'recall@3':>10}{'best shrinkage':>16}{kept:>{len(kept) + 3}}",
    ]
    for name, row in figures["held_out"].items():
        lines.append(
            f"{name:8}{row['log_loss']:10.4f}{row['recall_at_3']:10.3f}{row['shrinkage']:16.4g}{row['log_loss_at_policy_shrinkage']:{len(kept) + 3}.4f}"
        )
    for other, called in (("equal", "equal weights"), ("policy", "the given policy")):
        gain = figures[f"gain_over_{other}"]
        low, high = gain["interval"]
        lines.append(f"gain over {called}: {gain['nats']:+.4f} nats (95% {low:+.4f} to {high:+.4f})")
    lines += [
        f"{kind} weights: " + ", ".join(f"{name} {weight:g}" for name, weight in figures[f"{kind}_weights"].items())
        for kind in ("source", "action")
    ]
    if figures["turned"]:
        lines.append(f"of the other sign than in the policy: {', '.join(figures['turned'])}")
    return "\n".join([*lines, verdict(figures["gain_over_equal"]["interval"])])


def verdict(gain: Sequence[float]) -> str:
    """What the interval of the gain over equal weights says."""
    low, high = gain
    if low > 0:
        return "the fitted weights predict better than equal ones"
    if high < 0:
        return "the fitted weights predict worse than equal ones: keep equal ones"
    return "the fitted weights are not better than equal ones beyond chance"
