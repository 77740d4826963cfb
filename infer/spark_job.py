"""spark-submit --archives bundle.zip#bundle infer/spark_job.py EVENTS TAGS --bundle bundle; docs/spark.md says how on a cluster."""

import click
from pyspark.sql import SparkSession

from penchant.errors import PenchantError
from penchant.runners.spark import tag_parquet


@click.command()
@click.argument("events")
@click.argument("tags")
@click.option("--bundle", "bundles", multiple=True, required=True, help="Name of a shipped archive, or a path that every machine has.")
@click.option("--overwrite", is_flag=True, help="Replace TAGS; what was there is deleted before the first new file is written.")
@click.option("--partitions", type=click.IntRange(min=1), help="Tasks to share the texts out to; absent: spark.sql.shuffle.partitions.")
@click.option("--backend", default="auto", show_default=True, help="As for penchant tag; picked by one worker for all.")
@click.option(
    "--precision", type=click.Choice(["auto", "no", "bf16"]), default="auto", show_default=True, help="PyTorch's number format; likewise."
)
def main(events: str, tags: str, bundles: tuple[str, ...], overwrite: bool, partitions: int | None, backend: str, precision: str) -> None:
    """Tag each distinct text of EVENTS (an ingested folder, or Parquet) once and write the folder TAGS."""
    with SparkSession.builder.appName("penchant tag").getOrCreate() as spark:
        try:
            count = tag_parquet(
                spark, events, tags, bundles, overwrite=overwrite, partitions=partitions, backend=backend, precision=precision
            )
        except PenchantError as error:
            raise click.ClickException(str(error)) from error
    click.echo(f"{count:,} tags: {tags}")


if __name__ == "__main__":
    main()
