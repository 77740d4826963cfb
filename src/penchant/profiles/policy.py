"""What an event is worth and how fast it fades; see configs/policy.yaml for a complete example."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from penchant.config import Settings
from penchant.files import fingerprint

ACTION_WEIGHTS = {
    "view": 0.5,
    "click": 1.0,
    "like": 2.0,
    "share": 3.0,
    "save": 3.0,
    "unsave": -3.0,
    "search": 2.0,
    "review": 4.0,
    "post": 3.0,
    "purchase": 5.0,
    "refund": -5.0,
}


class Permit(Settings):
    """One sensitive interest that may be used after all; named in full, so that nothing below it comes along."""

    interest: str
    """Its id."""
    purpose: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """What it may be used for, as segments name their purpose."""
    ground: str = Field(min_length=10)
    """Why that is lawful, with the place where it can be looked up: inferred, it is special-category data (GDPR art. 9)."""


class Policy(Settings):
    """The settings of the profile arithmetic. Profiles carry its fingerprint, and are updated under it alone."""

    half_life_days: dict[str, float] = Field({"recent": 7.0, "lasting": 90.0}, min_length=2, max_length=2)
    """Days after which an event counts half, per horizon: the short one (`recent`) first, then the one weights are shown on (`lasting`)."""
    dimension_half_life_days: dict[str, dict[str, float]] = {}
    """Half-lives of a dimension's own, such as `{brand: {lasting: 180}}`; its other horizons keep those above."""
    source_weights: dict[str, float] = {}
    """How much a source's events count; 1 where a source isn't named."""
    action_weights: dict[str, float] = ACTION_WEIGHTS
    """How much an action counts, below 0 for one that speaks against the interest. Those not named keep these; an action that isn't here counts 1."""
    rating_factors: dict[int, float] = {1: -1.0, 2: -0.5, 3: 0.5, 4: 1.0, 5: 1.2}
    """Factor of each whole rating; between two it is read off the line. An event without a rating has factor 1."""
    minimum_score: float = Field(0.0, ge=0, le=1)
    """Tags that score less are left out of profiles."""
    shrinkage: float = Field(5.0, gt=0)
    """κ: how much mass the population's shares weigh in everybody's weights."""
    evidence_kept: int = Field(5, ge=1, le=100)
    """Events listed per user and value to explain its weight, strongest first; the others stay among the kept events."""
    daily_ceiling: float | None = Field(None, gt=0)
    """Most |contribution| that one user's events of one day (UTC) add to one value, in the unit of mass, against bots: what is above is scaled down. None: no ceiling."""
    deduplication_days: float = Field(90.0, gt=0)
    """An event id that comes back changes nothing if the first one occurred within this many days of it."""
    habits: bool = False
    """Whether profiles hold consumption habits too: hours, weekdays, sources, actions, spending."""
    habit_utc_offset_hours: float = Field(0.0, ge=-12, le=14)
    """Hours from UTC to the clock that hours and weekdays are read from; a zone's summer time is not followed."""
    spend_actions: dict[str, Literal[1, -1]] = {"purchase": 1, "refund": -1}
    """Actions whose amount is money spent (1) or given back (-1)."""
    allowed_sensitive: tuple[Permit, ...] = ()
    """Sensitive interests that may enter profiles after all, which is logged, and segments of the purpose named beside each."""

    @field_validator("action_weights")
    @classmethod
    def with_defaults(cls, value: dict[str, float]) -> dict[str, float]:
        """A policy that names one action must not turn refunds into purchases."""
        return ACTION_WEIGHTS | value

    @field_validator("half_life_days")
    @classmethod
    def positive(cls, value: dict[str, float]) -> dict[str, float]:
        """Half-lives are days, more than 0, and their names fit a column."""
        for name, days in value.items():
            if not name.isidentifier() or days <= 0:
                raise ValueError(f"half-life {name!r}: {days}: expected a plain name and more than 0 days")
        return value

    @model_validator(mode="after")
    def known_horizons(self) -> Self:
        """A dimension has half-lives for horizons that there are."""
        for dimension, days in self.dimension_half_life_days.items():
            for name, half_life in days.items():
                if name not in self.half_life_days or half_life <= 0:
                    raise ValueError(
                        f"dimension_half_life_days: {dimension}.{name}: {half_life}: "
                        f"expected more than 0 days for {' or '.join(self.half_life_days)}"
                    )
        return self

    @field_validator("rating_factors")
    @classmethod
    def complete(cls, value: dict[int, float]) -> dict[int, float]:
        """Every whole rating has a factor."""
        if sorted(value) != [1, 2, 3, 4, 5]:
            raise ValueError(f"expected the ratings 1, 2, 3, 4, 5, got {sorted(value)}")
        return value

    @property
    def horizons(self) -> tuple[str, str]:
        """Names of the short and the long horizon."""
        short, long = self.half_life_days
        return short, long

    def half_lives(self, horizon: str) -> tuple[float, dict[str, float]]:
        """Days after which an event counts half on a horizon, and those of dimensions with their own."""
        own = {dimension: days[horizon] for dimension, days in self.dimension_half_life_days.items() if horizon in days}
        return self.half_life_days[horizon], own

    @property
    def permitted(self) -> frozenset[str]:
        """Sensitive interests that may enter profiles."""
        return frozenset(each.interest for each in self.allowed_sensitive)

    def permits(self, purpose: str) -> tuple[Permit, ...]:
        """What segments of a purpose may use."""
        return tuple(each for each in self.allowed_sensitive if each.purpose == purpose)

    @property
    def fingerprint(self) -> str:
        """Changes with anything that changes a mass."""
        return fingerprint(self.model_dump(mode="json"))
