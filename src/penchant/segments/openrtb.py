"""People as OpenRTB 2.6 user objects: data segments of an outside taxonomy, and extended ids."""

import json
from typing import Any

from penchant.config import Settings


class Bidstream(Settings):
    """What an OpenRTB user object says beside the person's segments."""

    provider: str | None = None
    """Your domain, as the provider of the data; without it there is no such export."""
    data_id: str | None = None
    """The provider's id at the exchange; absent: the provider."""
    segtax: int = 4
    """The taxonomy of the segments by OpenRTB's number: 4 is the IAB Audience Taxonomy 1.1, 500 and more are vendors'."""
    eid_source: str | None = None
    """Domain that the extended ids belong to; absent: the provider."""
    atype: int = 3
    """What an extended id stands for by AdCOM's number: 3 is a person."""


def user_object(settings: Bidstream, user: str, interests: list[dict[str, Any]]) -> str:
    """One line of JSON. `interests` are ids of the outside taxonomy with `name` and `value` (0 to 1), of which either may be None."""
    provider = settings.provider
    segments = [
        {"id": each["id"]}
        | ({"name": each["name"]} if each["name"] is not None else {})
        | ({"value": f"{round(each['value'], 4):g}"} if each["value"] is not None else {})
        for each in interests
    ]
    data = {"id": settings.data_id or provider, "name": provider, "ext": {"segtax": settings.segtax}, "segment": segments}
    eid = {"source": settings.eid_source or provider, "uids": [{"id": user, "atype": settings.atype}]}
    return json.dumps({"user": {"data": [data], "eids": [eid]}}, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
