"""Describe the files of a job: time table, golden vectors, and the manifest that lists them all."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from elir_mobile.bundle import Bundle, file_entry, task_facts, write_golden, write_manifest, write_table
from elir_mobile.core.sampling import PROGRAMS
from elir_mobile.harness.protocol import package_versions
from elir_mobile.runtimes.eager import eager_runner
from quant.exporting import Artifact
from quant.job import Job


def describe(
    job: Job,
    table: Tensor,
    artifacts: list[Artifact],
    calibration: dict[str, Any],
    image: Tensor,
    folder: Path,
) -> Bundle:
    """Make a bundle of exported files; it then lacks parity budgets and the report alone.

    Args:
        table: of time biases.
        artifacts: files in ``folder``.
        calibration: what the manifest says of it; empty where nothing was calibrated.
        image: degraded, of the golden vectors.
        folder: of the bundle.
    """
    info = job.info
    manifest = {
        **task_facts(job.task, info.domain),
        "model": {
            "task": job.task.name,
            **asdict(info),
            "size": job.size,
            "parameters": sum(p.numel() for p in job.restorer.parameters()),
            "architecture": asdict(job.restorer.arch),
        },
        "size": job.size,
        "steps": info.steps,
        "sigma_s": info.sigma_s,
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
        "calibration": calibration or None,
        "golden": write_golden(
            folder, eager_runner(job.restorer, info.steps), image, info.steps, info.sigma_s
        ),
        "table": write_table(folder, table),
    }
    write_manifest(folder, manifest)
    return Bundle(folder, manifest, table)
