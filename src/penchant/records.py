"""The contracts: schemas of the Arrow tables that cross from room to room."""

from collections.abc import Sequence

import pyarrow as pa

INSTANT = pa.timestamp("us", tz="UTC")

EVENTS = pa.schema(
    [
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("occurred_at", INSTANT, nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("action", pa.string(), nullable=False),
        ("title", pa.string()),
        ("body", pa.string()),
        ("item_id", pa.string()),
        ("rating", pa.float64()),
        ("amount", pa.float64()),
        ("currency", pa.string()),
        ("language", pa.string()),
        pa.field("text_key", pa.string(), nullable=False),
    ]
)
"""One row per interaction event; texts are already cleaned and masked. `rating` is 1 to 5."""

REJECTS = pa.schema(
    [
        ("source", pa.string()),
        ("file", pa.string()),
        ("row", pa.int64()),
        ("column", pa.string()),
        ("value", pa.string()),
        ("reason", pa.string()),
    ]
)
"""One row per input row that became no event. `row` is the line of a text file (its header is line 1) or the 1-based row of a Parquet file."""

DOCUMENTS = pa.schema([pa.field("text_key", pa.string(), nullable=False), pa.field("text", pa.string(), nullable=False)])
"""One row per distinct text, cleaned and masked: what a tagger takes."""

TAGS = pa.schema(
    [
        pa.field("text_key", pa.string(), nullable=False),
        pa.field("dimension", pa.string(), nullable=False),
        pa.field("value", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        ("start", pa.int32()),
        ("end", pa.int32()),
    ]
)
"""One row per tag of a distinct text. `score` is calibrated, 0 to 1; `start` and `end` are character offsets, spans only."""

KEPT = EVENTS.append(pa.field("tagging", pa.int64()))
"""Events as profiles keep them; `tagging` is the version of the profiles with which their tags were given."""

KEPT_TAGS = pa.schema(
    [
        ("text_key", pa.string()),
        ("tagging", pa.int64()),
        ("dimension", pa.string()),
        ("value", pa.string()),
        ("score", pa.float64()),
        ("surfaces", pa.list_(pa.string())),
    ]
)
"""One row per tag of a kept event's text and dimension and value; `surfaces` are the forms in which the text has a span's value."""

EVIDENCE = pa.struct(
    [
        ("event_id", pa.string()),
        ("occurred_at", INSTANT),
        ("source", pa.string()),
        ("action", pa.string()),
        ("snippet", pa.string()),
        ("contribution", pa.float64()),
    ]
)
"""One event behind a weight. `contribution` is signed and undecayed."""


def state_schema(horizons: Sequence[str]) -> pa.Schema:
    """Profile state: one `mass_<horizon>` per horizon, valid at `as_of`; see `penchant.profiles.fold`.

    `last_at` is the last event's, `last_positive_at` that of the last event in favour of the value. What is behind a mass is
    read from the kept events.
    """
    return pa.schema(
        [
            ("user_id", pa.string()),
            ("dimension", pa.string()),
            ("value", pa.string()),
            *((f"mass_{horizon}", pa.float64()) for horizon in horizons),
            ("events", pa.int64()),
            ("first_at", INSTANT),
            ("last_at", INSTANT),
            ("last_positive_at", INSTANT),
            ("sources", pa.list_(pa.string())),
            ("as_of", INSTANT),
        ]
    )


POPULATION_KEY = (pa.field("dimension", pa.string()), pa.field("value", pa.string()))
"""What the masses of the whole population are summed by."""

SURFACES = pa.schema([("dimension", pa.string()), ("value", pa.string()), ("surface", pa.string()), ("events", pa.int64())])
"""How often a value of a span is written in which form."""
