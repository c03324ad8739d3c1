"""Write the bundle of a job: files, time table, golden vectors, and the manifest that lists them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from elir_mobile.bundle import Bundle, file_entry, task_facts, write_golden, write_manifest, write_table
from elir_mobile.core.sampling import PROGRAMS
from elir_mobile.data.pairs import PairSets
from elir_mobile.harness.protocol import package_versions
from elir_mobile.runtimes.eager import eager_runner
from export.programs import Samples
from export.samples import collect_samples, digest
from quant.exporting import Artifact, export
from quant.job import Job, Stages


def write_bundle(job: Job, data: PairSets, exports: Path, folder: Path, stages: Stages) -> Bundle:
    """Calibrate, export and describe; all that a bundle has but parity budgets and the report.

    Args:
        exports: where files wait that were exported before.
        folder: of the bundle, existing and empty.

    Raises:
        UserError: an export failed.
    """
    samples: Samples = {}
    calibration: dict[str, Any] | None = None
    programs = job.programs()
    if any(recipe.needs_calibration or job.adjusts(recipe) for _, recipe in job.artifacts):
        with stages.stage("recording float trajectories", len(data.calibration)):
            samples = collect_samples(
                programs, (_ticking(pair.degraded, stages) for pair in data.calibration), job.seed
            )
        calibration = {
            "sha256": digest(samples),
            "images": [pair.name for pair in data.calibration],
            "calls": {name: len(inputs) for name, inputs in samples.items()},
        }
    artifacts = export(job, samples, calibration["sha256"] if calibration else "", exports, folder, stages)
    manifest = _manifest(job, artifacts, folder) | {"calibration": calibration}
    manifest["golden"] = write_golden(
        folder,
        eager_runner(job.restorer, programs.steps),
        data.evaluation[0].degraded,
        programs.steps,
        programs.sigma_s,
    )
    manifest["table"] = write_table(folder, programs.table)
    write_manifest(folder, manifest)
    return Bundle(folder, manifest, programs.table)


def _ticking(image: torch.Tensor, stages: Stages) -> torch.Tensor:
    stages.advance()
    return image


def _manifest(job: Job, artifacts: list[Artifact], folder: Path) -> dict:
    return {
        **task_facts(job.task, job.info.domain),
        "model": {
            "task": job.task.name,
            **asdict(job.info),
            "size": job.size,
            "parameters": sum(p.numel() for p in job.restorer.parameters()),
            "architecture": asdict(job.restorer.arch),
        },
        "size": job.size,
        "steps": job.info.steps,
        "sigma_s": job.info.sigma_s,
        "versions": package_versions(),
        "files": [
            file_entry(
                folder,
                artifact.path,
                **artifact.target.to_json(),
                precision=artifact.recipe.name,
                programs=list(PROGRAMS),
                recipe=artifact.recipe.to_json(),
                gptq=job.adjusts(artifact.recipe),
                delegation={name: asdict(d) for name, d in artifact.delegation.items()},
            )
            for artifact in artifacts
        ],
    }
