"""python data/make_people.py: draws identities.csv, what a shop knows of the 900 made-up users beside what they read, and choices.csv.

Every name is made up, every address ends in a domain reserved for examples (RFC 2606), every number is one of those kept free
for fiction (555-0100 to 555-0199 in North America). As in real tables, some rows are broken: no at sign, a number that is too
short, an address that a family shares, an address twice.
"""

import argparse
import csv
import json
import random
from pathlib import Path

HERE = Path(__file__).parent
SEED = 20260629
FIRST = [
    "Ada",
    "Ben",
    "Carla",
    "Dev",
    "Elif",
    "Femi",
    "Greta",
    "Hiro",
    "Ines",
    "Jonas",
    "Keisha",
    "Lars",
    "Mei",
    "Noor",
    "Olga",
    "Pablo",
    "Quinn",
    "Rosa",
    "Sven",
    "Tara",
    "Umar",
    "Vera",
    "Wanda",
    "Xavi",
    "Yara",
    "Zeno",
]
LAST = [
    "Abbott",
    "Bauer",
    "Costa",
    "Diaz",
    "Eriksen",
    "Fofana",
    "Gupta",
    "Hoang",
    "Ivanova",
    "Jensen",
    "Kaya",
    "Lopez",
    "Mbeki",
    "Nguyen",
    "Okafor",
    "Petrov",
    "Quist",
    "Rossi",
    "Sato",
    "Tanaka",
    "Usman",
    "Vogel",
    "Weber",
    "Yilmaz",
]
AREAS = (202, 212, 303, 312, 404, 415, 503, 617, 702, 713, 808, 907)
AGES = {"18-24": 18, "25-34": 26, "35-49": 30, "50-64": 18, "65+": 8}
COLUMNS = ("user_id", "email", "phone", "first_name", "last_name", "country", "zip", "age_band")


def people(users: list[str], draw: random.Random) -> list[dict[str, str]]:
    """One row a user, and now and then a second."""
    found: list[dict[str, str]] = []
    for n, user in enumerate(users):
        first, last = draw.choice(FIRST), draw.choice(LAST)
        email = f"{first}.{last}{n}@example.{draw.choice(['com', 'net', 'org'])}"
        number = f"{AREAS[n // 100 % len(AREAS)]}-555-01{n % 100:02}"
        row = {
            "user_id": user,
            "email": draw.choice([email, email.lower(), email.upper(), f" {email}"]),
            "phone": draw.choice([number, f"+1 {number}", f"({number[:3]}) {number[4:]}", ""]),
            "first_name": first,
            "last_name": last,
            "country": "US",
            "zip": f"{draw.randrange(501, 99951):05}",
            "age_band": draw.choices(list(AGES), list(AGES.values()))[0],
        }
        if n % 53 == 7:
            row["email"] = email.replace("@", " at ")
        if n % 67 == 11:
            row["phone"] = "555"
        if n % 97 in (20, 21):
            row["email"] = f"family{n // 97}@example.com"
        found.append(row)
        if n % 31 == 3:
            found.append(row | {"email": f"{first}{n}@example.net", "phone": ""})
        if n % 211 == 5:
            found.append(dict(row))
    return found


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=HERE, help="folder to write to")
    output = parser.parse_args().output
    draw = random.Random(SEED)
    users = [json.loads(line)["user_id"] for line in (HERE / "events" / "truth.jsonl").read_text(encoding="utf-8").splitlines()]
    with (output / "identities.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(people(users, draw))
    with (output / "choices.csv").open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(["user_id", "purpose", "status", "at", "reason"])
        for user in sorted(draw.sample(users, 24)):
            purpose, status = draw.choice(
                [("*", "opt-out"), ("advertising", "denied"), ("newsletter", "denied"), ("advertising", "granted")]
            )
            rows.writerow(
                [
                    user,
                    purpose,
                    status,
                    f"2026-06-{draw.randrange(1, 29):02}T{draw.randrange(24):02}:00:00Z",
                    draw.choice(["web form", "e-mail", "phone"]),
                ]
            )


if __name__ == "__main__":
    main()
