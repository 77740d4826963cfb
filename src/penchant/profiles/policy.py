"""What an event is worth and how fast it fades; see configs/policy.yaml for a complete example."""

from pydantic import Field, field_validator

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


class Policy(Settings):
    """The settings of the profile arithmetic. Snapshots carry its fingerprint."""

    half_life_days: dict[str, float] = Field({"recent": 7.0, "lasting": 90.0}, min_length=2, max_length=2)
    """Days after which an event counts half, per horizon: the short one (`recent`) first, then the one weights are shown on (`lasting`)."""
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
    """Events kept per user and value to explain its weight."""
    allowed_sensitive: tuple[str, ...] = ()
    """Sensitive interests that may enter profiles after all, which is logged; inferred, they are special-category data (GDPR art. 9)."""

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

    @property
    def fingerprint(self) -> str:
        """Changes with anything that changes a mass."""
        return fingerprint(self.model_dump(mode="json"))
