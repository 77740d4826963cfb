"""python data/make_events.py: draw the sample interactions from the corpus, as three sources would deliver them.

Writes `data/events/`: a shop's CSV, reviews as JSON Lines, social events as Parquet, and the planted truth. Every text is
a corpus text (some social ones with a made-up contact appended, to be masked); what is drawn depends on the seed alone.
Needs pyarrow.
"""

import argparse
import csv
import json
import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta, timezone
from itertools import accumulate
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
SEED = 20260101
START = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = 180
CHANGE_DAY = 110
USERS = 900
CHANGED_SHARE = 0.25
INTERESTS_PER_USER = 3
ZIPF_EXPONENT = 1.0
SHARE_OFF_INTEREST, SHARE_NO_INTEREST = 0.10, 0.08
SOURCES = {"shop": ("title", 0.62), "social": ("post", 0.27), "reviews": ("review", 0.11)}
SENSITIVE = {"health.conditions", "society.politics", "society.religion"}
SHOP_EVENTS = {"pdp_view": 70, "add_to_basket": 14, "purchase": 14, "refund": 2}
SOCIAL_VERBS = {"like": 60, "post": 22, "share": 15, "unsave": 3}
CONTACTS = (
    "write to jo.smith@example.org",
    "call me on +44 20 7946 0958",
    "mail: best_finds@example.com",
    "card 4111 1111 1111 1111 was charged twice",
)
BROKEN_EVERY, DUPLICATE_EVERY, CONTACT_EVERY = 400, 150, 400


class Shelf:
    """The texts of one kind, popular ones drawn more often: the r-th most popular with weight 1/r (Zipf)."""

    def __init__(self, texts: list[dict[str, Any]], draw: random.Random) -> None:
        order = draw.sample(texts, len(texts))
        self.by_interest: defaultdict[str, tuple[list[dict[str, Any]], list[float]]] = defaultdict(lambda: ([], []))
        for rank, text in enumerate(order, 1):
            for interest in text["interests"] or [""]:
                self.by_interest[interest][0].append(text)
                self.by_interest[interest][1].append(rank**-ZIPF_EXPONENT)
        self.cumulative = {interest: list(accumulate(weights)) for interest, (_, weights) in self.by_interest.items()}

    def draw(self, interest: str, draw: random.Random) -> dict[str, Any]:
        """A text with this interest (without any, for an empty one)."""
        return draw.choices(self.by_interest[interest][0], cum_weights=self.cumulative[interest])[0]


def load_corpus() -> list[dict[str, Any]]:
    """All texts of all splits, each with an id of its own."""
    texts = [
        json.loads(line)
        for split in ("train", "validation", "test")
        for line in (HERE / "corpus" / f"{split}.jsonl").open(encoding="utf-8")
    ]
    return sorted(texts, key=lambda text: text["id"])


def plant(interests: list[str], draw: random.Random) -> list[dict[str, Any]]:
    """Users with their true interests: three each, of which a quarter of the users swap one on the change day."""
    users = []
    for n in range(1, USERS + 1):
        start = draw.sample(interests, INTERESTS_PER_USER)
        user: dict[str, Any] = {
            "user_id": f"u{n:04d}",
            "start": start,
            "interests": start,
            "changed_at": None,
            "dropped": None,
            "gained": None,
        }
        if draw.random() < CHANGED_SHARE:
            dropped, gained = draw.choice(start), draw.choice([each for each in interests if each not in start])
            user |= {"interests": [gained if each == dropped else each for each in start], "dropped": dropped, "gained": gained}
            user["changed_at"] = (START + timedelta(days=CHANGE_DAY)).isoformat()
        users.append(user)
    return users


def interactions(
    users: list[dict[str, Any]], shelves: dict[str, Shelf], draw: random.Random
) -> dict[str, list[tuple[datetime, str, dict[str, Any]]]]:
    """(time, user, text) per source, in order of time."""
    found: dict[str, list[tuple[datetime, str, dict[str, Any]]]] = {source: [] for source in SOURCES}
    for user in users:
        for _ in range(max(12, round(draw.lognormvariate(4.3, 0.45)))):
            moment = START + timedelta(seconds=draw.randrange(DAYS * 86_400))
            current = user["interests"] if user["changed_at"] and moment >= START + timedelta(days=CHANGE_DAY) else user["start"]
            source = draw.choices(list(SOURCES), [share for _, share in SOURCES.values()])[0]
            shelf = shelves[source]
            chance = draw.random()
            if chance < SHARE_NO_INTEREST:
                interest = ""
            elif chance < SHARE_NO_INTEREST + SHARE_OFF_INTEREST:
                interest = draw.choice(sorted(each for each in shelf.by_interest if each))
            else:
                interest = draw.choice(current)
            found[source].append((moment, user["user_id"], shelf.draw(interest, draw)))
    return {source: sorted(rows, key=lambda row: (row[0], row[1])) for source, rows in found.items()}


def shop_rows(rows: list[tuple[datetime, str, dict[str, Any]]], draw: random.Random) -> list[list[str]]:
    """The shop's export: German local times without offset, prices as in the catalogue, a few broken rows."""
    price: dict[str, str] = {}
    table = []
    for moment, user, text in rows:
        sku = f"SKU-{text['id']}"
        price.setdefault(sku, f"{draw.lognormvariate(3.2, 0.8):.2f}")
        event = draw.choices(list(SHOP_EVENTS), list(SHOP_EVENTS.values()))[0]
        local = moment.astimezone(ZoneInfo("Europe/Berlin"))
        row = [local.strftime("%d.%m.%Y %H:%M:%S"), user, event, sku, text["text"], price[sku] if event in ("purchase", "refund") else ""]
        if draw.randrange(BROKEN_EVERY) == 0:
            column, value = draw.choice(
                [(0, "31.02.2026 10:00:00"), (0, ""), (1, ""), (2, "hover_test"), (4, "  "), (5, "-9.99"), (5, "12,50 EUR")]
            )
            row[column] = value
        table.append(row)
        if draw.randrange(DUPLICATE_EVERY) == 0:
            table.append(list(row))
    return table


def write_shop(path: Path, table: list[list[str]]) -> None:
    """CSV with semicolons, three rows of it cut off or unclosed."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter=";", lineterminator="\n")
        writer.writerow(["clicked_at", "customer_no", "event", "sku", "product_name", "price_eur"])
        for n, row in enumerate(table):
            if n in (1000, 9000):
                stream.write(f"{row[0]};{row[1]}\n")
            if n == 5000:
                stream.write(f'{row[0]};{row[1]};pdp_view;SKU-0;"never closed;\n')
            writer.writerow(row)


def write_reviews(path: Path, rows: list[tuple[datetime, str, dict[str, Any]]], draw: random.Random) -> None:
    """JSON Lines from a site in New York, times with their offset; broken and repeated lines among them."""
    lines = []
    for n, (moment, user, text) in enumerate(rows):
        review: dict[str, Any] = {
            "review_id": f"r{n:06d}",
            "author": {"id": user, "country": "US"},
            "stars": text["rating"],
            "text": text["text"],
            "posted": moment.astimezone(timezone(timedelta(hours=-5))).isoformat(timespec="seconds"),
        }
        if draw.randrange(BROKEN_EVERY) == 0:
            review |= draw.choice([{"stars": 11}, {"stars": "many"}, {"text": ""}, {"posted": "yesterday"}, {"author": {}}])
        line = json.dumps(review, ensure_ascii=False)
        lines.append(line)
        if n % 900 == 450:
            lines.append(line[: len(line) // 2])
        if draw.randrange(DUPLICATE_EVERY) == 0:
            lines.append(line)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_social(path: Path, rows: list[tuple[datetime, str, dict[str, Any]]], draw: random.Random) -> None:
    """Parquet with UTC times; some texts carry a contact to be masked, some rows are broken or repeated."""
    table: list[dict[str, Any]] = []
    for n, (moment, user, text) in enumerate(rows):
        words = text["text"]
        if draw.randrange(CONTACT_EVERY) == 0:
            words = f"{words} {draw.choice(CONTACTS)}"
        row = {
            "post_id": 700_000 + n,
            "user": user,
            "at": moment,
            "verb": draw.choices(list(SOCIAL_VERBS), list(SOCIAL_VERBS.values()))[0],
            "text": words,
            "lang": "en",
        }
        if draw.randrange(BROKEN_EVERY) == 0:
            row |= draw.choice(
                [{"user": None}, {"text": None}, {"at": datetime(1970, 1, 1, tzinfo=UTC)}, {"at": datetime(9999, 1, 1, tzinfo=UTC)}]
            )
        table.append(row)
        if draw.randrange(DUPLICATE_EVERY) == 0:
            table.append(dict(row))
    schema = pa.schema(
        [
            ("post_id", pa.int64()),
            ("user", pa.string()),
            ("at", pa.timestamp("ms", tz="UTC")),
            ("verb", pa.string()),
            ("text", pa.string()),
            ("lang", pa.string()),
        ]
    )
    pq.write_table(pa.Table.from_pylist(table, schema), path, compression="zstd")


def main() -> None:
    """Write the four files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=HERE / "events", help="folder to write to")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    draw = random.Random(SEED)
    corpus = load_corpus()
    shelves = {source: Shelf([text for text in corpus if text["kind"] == kind], draw) for source, (kind, _) in SOURCES.items()}
    interests = sorted(set.intersection(*(set(shelf.by_interest) for shelf in shelves.values())) - SENSITIVE - {""})
    users = plant(interests, draw)
    rows = interactions(users, shelves, draw)
    write_shop(output / "shop.csv", shop_rows(rows["shop"], draw))
    write_reviews(output / "reviews.jsonl", rows["reviews"], draw)
    write_social(output / "social.parquet", rows["social"], draw)
    (output / "truth.jsonl").write_text("".join(json.dumps(user) + "\n" for user in users), encoding="utf-8")
    print(", ".join(f"{source}: {len(each):,} interactions" for source, each in rows.items()), f"by {len(users)} users")


if __name__ == "__main__":
    main()
