"""python benchmarks/bert_base.py [--quick] [--texts N]: BERT-base, as big as published figures have it, on this GPU (or CPU).

The weights are random, which costs the same time. First the network alone, in batches of 128 word pieces a text and of the
lengths an event stream has, padded and packed; its share of what this device multiplies; and on one GPU the multiple of
NVIDIA's published 7,930 sequences a second (BERT-base, 128 pieces, TensorRT, FP16, one A100). Then `penchant tag`, from a
Parquet file of distinct texts to the written tags, and its tokenizer, which has to keep ahead.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from machine import describe
from tagging import texts, write_events
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from penchant.files import file_digest
from penchant.runners.local import PART_TEXTS, tag_file
from penchant.tagging.backends import MOST_READERS, Batch, TorchBackend, own_cores, own_device
from penchant.tagging.bundle import TaggerSpec, save_spec
from penchant.tagging.choice import SAMPLE_LENGTHS
from penchant.tagging.encoder import Reader, resolve
from penchant.tagging.packed import can_pack
from penchant.tagging.precision import matmul_gflops
from penchant.tagging.readers import Readers
from penchant.tagging.tagger import Tagger, length_batches
from penchant.taxonomy import Node, Taxonomy

LAYERS, WIDTH, LENGTH, LABELS = 12, 768, 128, 42
TENSORRT = 7_930
"""Sequences a second of 128 pieces, as published for TensorRT on one A100."""


def operations(lengths: Sequence[int]) -> float:
    """Floating-point operations of windows: two per weight of the layers (12·width² each) and piece, and the products of attention."""
    return float(sum(LAYERS * n * (2 * 12 * WIDTH**2 + 4 * n * WIDTH) for n in lengths))


def write_bundle(folder: Path) -> TaggerSpec:
    """A bundle with random weights; its tags mean nothing."""
    tokenizer = AutoTokenizer.from_pretrained(resolve("minilm"))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), num_labels=LABELS)).save_pretrained(folder)
    labels = tuple(f"interest{n}" for n in range(LABELS))
    nodes = Taxonomy(name="made up", nodes=tuple(Node(id=each, name=each) for each in labels))
    digest = file_digest(folder / "model.safetensors")
    spec = TaggerSpec(labels=labels, thresholds=(0.5,) * LABELS, max_length=LENGTH, taxonomy=nodes, weights_sha256=digest)
    save_spec(folder, spec)
    return spec


def batches(lengths: Sequence[int], budget: int) -> list[Batch]:
    """Windows of these lengths, in batches as the tagger makes them."""
    draw, made = np.random.default_rng(5), []
    for chosen in length_batches(lengths, budget):
        own = np.array([lengths[n] for n in chosen])
        mask = (np.arange(own.max()) < own[:, None]).astype(np.int64)
        made.append({"input_ids": mask * draw.integers(1_000, 30_000, mask.shape), "attention_mask": mask})
    return made


def rate(backend: TorchBackend, lengths: Sequence[int]) -> tuple[float, float]:
    """Windows, and operations in 10⁹, a second."""
    prepared = batches(lengths, backend.batch_tokens)
    backend.run(prepared[0])
    start = time.perf_counter()
    with ThreadPoolExecutor(backend.workers) as pool:
        list(pool.map(backend.run, prepared))
    seconds = time.perf_counter() - start
    return len(lengths) / seconds, operations(lengths) / seconds / 1e9


def pieces_per_second(reader: Reader | Readers) -> float:
    """Word pieces of a part's texts that are made ready in a second, in the best of four attempts."""
    sample, best = texts(PART_TEXTS), 0.0
    for _ in range(4):
        start = time.perf_counter()
        found = reader.read(sample)
        seconds = time.perf_counter() - start
        best = max(best, sum(len(each.input_ids) for each in found.windows) / seconds)
    return best


def main() -> None:
    """Measure, print a table, and the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, help="distinct texts to tag (100,000 on a GPU, else 200)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the texts")
    options = parser.parse_args()
    print(describe())
    device = own_device()
    count = (options.texts or (100_000 if device.type == "cuda" else 200)) // (10 if options.quick else 1)
    result: dict[str, float | str | None] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spec = write_bundle(folder / "bundle")
        kinds = {"128 pieces": [LENGTH] * count, "an event stream's": [SAMPLE_LENGTHS[n % len(SAMPLE_LENGTHS)] for n in range(count)]}
        print(f"\n{'network alone':44}{'texts/s':>10}{'GFLOP/s':>12}{'of ceiling':>12}")
        usual = TorchBackend(folder / "bundle", spec)
        ceiling = matmul_gflops(torch.bfloat16 if usual.precision == "bf16" else torch.float32, device)
        for pack in (False, True) if usual.pack or (device.type == "cpu" and can_pack(usual.model)) else (False,):
            backend = TorchBackend(folder / "bundle", spec, usual.precision, pack=pack)
            for kind, lengths in kinds.items():
                texts_a_second, gflops = rate(backend, lengths)
                print(f"{f'{backend.variant}, {kind}':44}{texts_a_second:10,.0f}{gflops:12,.0f}{gflops / ceiling:12.0%}")
                if kind == "128 pieces" and gflops / ceiling > float(result.get("share_of_ceiling") or 0):
                    result |= {"sequences_per_second": round(texts_a_second, 1), "share_of_ceiling": round(gflops / ceiling, 3)}
        distinct = texts(count)
        write_events(folder / "texts.parquet", distinct, np.arange(count))
        tagger = Tagger(folder / "bundle", backend="torch")
        tagger.score(distinct[:64])
        start = time.perf_counter()
        tag_file([folder / "bundle"], folder / "texts.parquet", folder / "tags.parquet", "torch", taggers=[tagger])
        whole = count / (time.perf_counter() - start)
        pieces = sum(len(each.input_ids) for each in tagger.reader.read(distinct).windows)
        print(f"{f'penchant tag, {usual.variant}, {pieces / count:.1f} pieces a text':44}{whole:10,.0f}")
        processes = min(MOST_READERS, own_cores())
        print(f"\n{'its tokenizer, pieces/s':44}{'one process':>12}{f'{processes} processes':>14}")
        for marked in (False, True):
            reader = replace(tagger.reader, mark_capitals=marked)
            with Readers(reader, processes) as readers:
                one, several = (pieces_per_second(each) for each in (reader, readers))
            print(f"{'capitals marked' if marked else 'plain':44}{one:12,.0f}{several:14,.0f}")
            result[f"pieces_per_second{'_marked' * marked}"] = round(several)
    result |= {"texts_per_second": round(whole, 1), "device": device.type}
    result["times_tensorrt"] = round(float(result["sequences_per_second"] or 0) / TENSORRT, 2) if device.type == "cuda" else None
    print(json.dumps(result))


if __name__ == "__main__":
    main()
