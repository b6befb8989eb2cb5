# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""The tasks of tests/lm_eval_tasks: podium.lm_eval beside lm-eval's own `hf` model.

python benchmarks/lm_eval.py --workdir=smol --hf=smol-hf --peer=ENV

docs/models.md says how to get SmolLM2-135M as the run folder `smol`, and its export
`smol-hf`. ENV: python -m venv ENV && ENV/bin/pip install torch==2.13.0 \\
"transformers>=5,<6" safetensors accelerate lm-eval. Both in float32, on the same texts;
run it from the repository's root. Also compares every request's answer.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import report

FOLDER = "tests/lm_eval_tasks"
TASKS = "podium_choice,podium_complete,podium_text"


def podium(workdir: str, tasks: str, folder: Path) -> tuple[dict, dict]:
    samples = folder / "podium.jsonl"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "podium.lm_eval", f"--workdir={workdir}"),
            *(f"--tasks={tasks}", f"--include_path={FOLDER}", "--dtype=float32"),
            *(f"--samples={samples}", "--json"),
        ],
        stdout=subprocess.PIPE,
        check=True,
    )
    found = json.loads(done.stdout)["tasks"]
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    answers = {(row["task"], row["doc_id"]): row["resps"] for row in rows}
    return {name: task["metrics"] for name, task in found.items()}, answers


def transformers(model: str, tasks: str, env: str, folder: Path) -> tuple[dict, dict]:
    out = folder / "hf"
    subprocess.run(
        [
            *(str(Path(env) / "bin" / "lm_eval"), "run", "--model=hf"),
            *(f"--tasks={tasks}", f"--include_path={FOLDER}", "--log_samples"),
            *(f"--model_args=pretrained={model},dtype=float32", "--device=cpu"),
            *("--batch_size=8", f"--output_path={out}"),
        ],
        stdout=sys.stderr,
        check=True,
    )
    (found,) = out.rglob("results_*.json")
    results = json.loads(found.read_text())["results"]
    answers = {}
    for path in out.rglob("samples_*.jsonl"):
        task = next(name for name in tasks.split(",") if name in path.name)
        for line in path.read_text().splitlines():
            row = json.loads(line)
            answers[task, row["doc_id"]] = row["resps"]
    return results, answers


def numbers(answer: object) -> list[float]:
    """The log-likelihoods in an answer; the harness's files hold them as text."""
    if isinstance(answer, list):
        return [n for each in answer for n in numbers(each)]
    if isinstance(answer, bool):
        return []
    try:
        return [float(answer)]  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        return []


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", required=True, help="run folder of the model")
    parser.add_argument("--hf", required=True, help="its export")
    parser.add_argument("--peer", required=True, help="environment with lm-eval, torch")
    parser.add_argument("--tasks", default=TASKS, help="names, with commas between")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ours, our_answers = podium(args.workdir, args.tasks, Path(folder))
        theirs, their_answers = transformers(
            args.hf, args.tasks, args.peer, Path(folder)
        )
    print("| task | metric | podium.lm_eval | lm-eval's hf | difference |")
    print("|---|---|--:|--:|--:|")
    for task, metrics in ours.items():
        for metric, value in metrics.items():
            other = theirs[task][metric]
            print(
                f"| {task} | {metric.split(',')[0]} | {value:.5f} | {other:.5f} | "
                f"{abs(value - other):.1e} |"
            )
    assert our_answers.keys() == their_answers.keys()
    print("\n| task | requests' answers | largest difference |\n|---|--:|--:|")
    for task in args.tasks.split(","):
        keys = [key for key in our_answers if key[0] == task]
        if task == "podium_complete":
            same = sum(our_answers[key] == their_answers[key] for key in keys)
            print(f"| {task} | {len(keys)} | {same} texts the same |")
            continue
        pairs = [
            (a, b)
            for key in keys
            for a, b in zip(
                numbers(our_answers[key]), numbers(their_answers[key]), strict=True
            )
        ]
        worst = max(abs(a - b) / max(abs(b), 1.0) for a, b in pairs)
        print(f"| {task} | {len(pairs)} | {worst:.1e} of a log-likelihood |")
    print()
    for line in report.lines(report.provenance()):
        print(line)


if __name__ == "__main__":
    main()
