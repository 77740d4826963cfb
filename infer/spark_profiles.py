"""spark-submit infer/spark_profiles.py EVENTS TAGS OUTPUT --policy configs/policy.yaml; docs/spark.md says how on a cluster."""

from datetime import datetime
from pathlib import Path

import click
from pyspark.sql import SparkSession

from penchant import taxonomy as taxonomies
from penchant.cli import Instant
from penchant.config import load
from penchant.errors import PenchantError
from penchant.profiles.policy import Policy
from penchant.runners.spark_profiles import profile_parquet


@click.command()
@click.argument("events")
@click.argument("tags")
@click.argument("output")
@click.option("--policy", type=click.Path(exists=True, path_type=Path), help="Policy file (YAML); absent: the defaults.")
@click.option("--taxonomy", type=click.Path(exists=True, path_type=Path), help="Taxonomy of the tags; by default the one they came with.")
@click.option("--as-of", type=Instant(), help="The instant the profiles are valid at; absent: the last event's.")
@click.option("--overwrite", is_flag=True, help="Replace what is in OUTPUT.")
def main(events: str, tags: str, output: str, policy: Path | None, taxonomy: Path | None, as_of: datetime | None, overwrite: bool) -> None:
    """Fold EVENTS with their TAGS (Parquet) into profiles: the folders state, population, surface, view and rejects of OUTPUT."""
    with SparkSession.builder.appName("penchant profiles").getOrCreate() as spark:
        try:
            rule = load(Policy, policy) if policy is not None else Policy()
            nodes = taxonomies.load(taxonomy) if taxonomy is not None else None
            written = profile_parquet(spark, events, tags, output, rule, nodes, as_of, overwrite=overwrite)
        except PenchantError as error:
            raise click.ClickException(str(error)) from error
    click.echo(", ".join(f"{count:,} rows of {part}" for part, count in written.items()) + f": {output}")


if __name__ == "__main__":
    main()
