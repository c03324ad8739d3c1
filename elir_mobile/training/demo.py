"""Train the bundled demo models from nothing: ``python -m elir_mobile.training.demo train RUN_DIR``.

Stage by stage, each resumable and each with its own budget of minutes (:mod:`elir_mobile.training.stage`):

1. ``autoencoder``: on faces and photographs alike; afterwards its encoder is the teacher, and its decoder,
   frozen, is every task's.
2. ``TASK-coarse``: a copy of the encoder, and the coarse estimator, by squared error against the teacher's
   latents of the clean picture. What they estimate is the mean of all pictures that it may have been.
3. ``TASK-flow``: the velocity field alone, from there to the teacher's latents: flow matching, and from
   three tenths of the time on latent consistency flow matching beside it, and LPIPS (VGG) of where the
   sampled path leads.

No stage trains the whole chain against pixels: the best PSNR is the mean's, so that such a stage teaches
the flow to do nothing.

``export`` writes what has been trained so far in float16, from which another machine goes on with
``--resume-from``; ``bundle`` writes the weights files of the package.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
import typer
from PIL import Image
from torch import Tensor, nn

from elir_mobile.checkpoints import DEMO_AUTOENCODER, save_autoencoder, save_weights
from elir_mobile.core.errors import UserError, exits_with_2
from elir_mobile.core.files import written
from elir_mobile.core.machine import cpu_facts
from elir_mobile.data.crops import jittered_face, random_crop
from elir_mobile.data.faces import face_split, fetch_faces, load_faces
from elir_mobile.data.photos import photo_split
from elir_mobile.degradations import degrade_bfr, degrade_inpainting, degrade_photo_noise, degrade_sr
from elir_mobile.images import hstack_images, to_image, vstack_images
from elir_mobile.metrics.perceptual import lpips
from elir_mobile.models.coarse import RESIDUAL_SCALE
from elir_mobile.models.restorer import Architecture, Restorer, seeded_noise
from elir_mobile.realesrgan import degrade_bsr
from elir_mobile.tasks import ALIGNED_FACE, PHOTO, Degradation
from elir_mobile.training.autoencoder import Autoencoder, autoencoder_loss
from elir_mobile.training.lcfm import LcfmConfig, consistency_loss, flow_matching_loss, landing
from elir_mobile.training.pool import Pool
from elir_mobile.training.stage import Plan, averaged, read_state, train, write_state

ENC_WIDTH, DEC_WIDTH = 48, 64
AUTOENCODER = Plan(minutes=64, lr=1e-3, seed=1)
AUTOENCODER_BATCH, AUTOENCODER_CROP = 12, 112
COARSE_LR, COARSE_BATCH = 1e-3, 12
FLOW_LR, FLOW_BATCH = 1e-3, 32
POOL = 1536, 6144  # examples at first and at most
MORE = 4  # examples that are added at every step
# Share of the flow's training before a velocity is held to consistency and its landings are looked at: there
# is nothing to be consistent with yet.
LANDING_FROM = 0.3
PERCEPTUAL_WEIGHT = 2.0  # its gradient is then several times that of the flow-matching loss
PERCEPTUAL_IMAGES, PERCEPTUAL_CELLS = 6, 10  # of a batch, and of a latent's side: VGG is most of the cost
SHOWN = 6  # pictures in a strip


@dataclass(frozen=True)
class Recipe:
    """How one task is trained; ``domain`` goes into the metadata of its weights."""

    domain: str  # ALIGNED_FACE or PHOTO
    degrade: Degradation
    arch: Architecture
    steps: int  # K
    sigma_s: float  # of a latent whose spread is 1
    coarse_minutes: float
    flow_minutes: float
    side: int = 128  # of the training squares, pixels
    best_steps: int | None = None  # where it restores best with another K than it was trained with

    @property
    def use_side(self) -> int:
        """Of the squares or tiles that it restores."""
        return 128 if self.domain == ALIGNED_FACE else 256

    @property
    def use_steps(self) -> int:
        """K that it restores with."""
        return self.best_steps or self.steps


def _arch(coarse_width: int, n_rrdb: int, hid: int, ch_mult: tuple[int, ...], n_mid: int) -> Architecture:
    return Architecture(
        enc_width=ENC_WIDTH,
        dec_width=DEC_WIDTH,
        coarse_width=coarse_width,
        n_rrdb=n_rrdb,
        hid_channels=hid,
        n_mid_blocks=n_mid,
        ch_mult=ch_mult,
        t_emb_dim=32,
        autoencoder="half",
    )


# All five and the autoencoder are to fit into 30 MB of float16: faces get the largest share, since there is
# most to be invented in them.
RECIPES: dict[str, Recipe] = {
    "bfr": Recipe(
        ALIGNED_FACE, degrade_bfr, _arch(48, 2, 64, (1, 2, 1, 1), 2), 5, 0.25, 20, 122, best_steps=2
    ),
    "denoising": Recipe(PHOTO, degrade_photo_noise, _arch(48, 2, 64, (1, 2), 2), 3, 0.1, 20, 30),
    "bsr": Recipe(PHOTO, degrade_bsr, _arch(48, 2, 64, (1, 2), 2), 3, 0.1, 15, 45, best_steps=1),
    "sr": Recipe(ALIGNED_FACE, degrade_sr, _arch(32, 2, 32, (1, 2), 2), 5, 0.3, 8, 12),
    "inpainting": Recipe(ALIGNED_FACE, degrade_inpainting, _arch(32, 2, 32, (1, 2), 2), 5, 0.3, 8, 12),
}


Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True)
class Machine:
    """Where a run computes, in which precision of the forward pass."""

    device: torch.device
    half: bool

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.half)

    def place(self, net: Net) -> Net:
        """``net`` on the device, channels last, as convolutions are fastest in bfloat16."""
        for tensor in net.parameters():
            last = torch.channels_last if tensor.dim() == 4 else torch.contiguous_format
            tensor.data = tensor.data.to(self.device, memory_format=last)
        return net

    def images(self, squares: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) → float in [0, 1] on the device."""
        return squares.to(self.device).float().div(255).contiguous(memory_format=torch.channels_last)


def stacked(squares: list[np.ndarray]) -> Tensor:
    """(H, W, 3) uint8 squares → (N, 3, H, W) uint8."""
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).contiguous()


def heldout_photos() -> Tensor:
    """Two clean squares of each held-out photograph, one after the other: (2 N, 3, 256, 256) uint8."""
    paths = photo_split()[1]
    return stacked([centre_square(np.load(path), 256, place) for path in paths for place in (0.3, 0.7)])


class Pictures:
    """The clean training pictures and the held-out ones."""

    def __init__(self) -> None:
        names, heldout = face_split()
        folder = fetch_faces()
        self.faces = [
            np.asarray(Image.open(folder / name, formats=["JPEG"]).convert("RGB")) for name in names
        ]
        self.photos = [np.load(path, mmap_mode="r") for path in photo_split()[0]]
        self.heldout_faces = load_faces(heldout, 128)
        self.heldout_photos = heldout_photos()

    def square(self, domain: str, side: int, rng: np.random.Generator) -> np.ndarray:
        """A clean training square (side, side, 3)."""
        if domain == ALIGNED_FACE:
            return jittered_face(self.faces[int(rng.integers(len(self.faces)))], side, rng)
        return random_crop(self.photos[int(rng.integers(len(self.photos)))], side, rng)

    def heldout(self, domain: str) -> Tensor:
        """Clean held-out squares (N, 3, side, side) uint8."""
        return self.heldout_faces if domain == ALIGNED_FACE else self.heldout_photos

    def autoencoder_batch(self, rng: np.random.Generator) -> Tensor:
        """Crops of faces and of photographs in turn."""
        side = AUTOENCODER_CROP
        crops = []
        for index in range(AUTOENCODER_BATCH):
            if index % 2:
                crops.append(self.square(PHOTO, side, rng))
                continue
            face = self.square(ALIGNED_FACE, 128, rng)
            top, left = (int(rng.integers(128 - side + 1)) for _ in range(2))
            crops.append(face[top : top + side, left : left + side])
        return stacked(crops)


def centre_square(picture: np.ndarray, side: int, place: float) -> np.ndarray:
    """A square of ``picture``, at ``place`` (0..1) of the way along both sides."""
    top, left = (int((length - side) * place) for length in picture.shape[:2])
    return picture[top : top + side, left : left + side]


def degraded(clean: Tensor, degrade: Degradation, seed: int) -> Tensor:
    """uint8 squares (N, 3, H, W), degraded; square ``i`` by the generator of ``(seed, i)``."""
    return stacked(
        [
            np.asarray(degrade(to_image(image.float() / 255), np.random.default_rng([seed, index])))
            for index, image in enumerate(clean)
        ]
    )


@torch.no_grad()
def in_batches(function: Callable[[Tensor], Tensor], x: Tensor, size: int = 16) -> Tensor:
    """``function`` on so many at a time: pictures of 256 pixels take a lot of memory."""
    return torch.cat([function(part) for part in x.split(size)])


def figures(out: Tensor, ref: Tensor) -> str:
    """Mean PSNR and LPIPS (AlexNet) of pictures in [0, 1]."""
    mse = (out - ref).square().mean((1, 2, 3)).clamp(min=1e-10)
    distance = torch.cat([lpips(a, b) for a, b in zip(out.split(16), ref.split(16), strict=True)])
    return f"{float((-10 * mse.log10()).mean()):.2f} dB {float(distance.mean()):.4f}"


def save_rows(columns: list[Tensor], path: Path) -> None:
    """A picture with one row for each of the first few images, the columns beside each other."""
    rows = zip(*(column[:: max(1, len(column) // SHOWN)][:SHOWN] for column in columns), strict=True)
    with written(path) as staged:
        vstack_images([hstack_images([to_image(x) for x in row]) for row in rows]).save(staged)


class Run:
    """A folder of stages."""

    def __init__(self, folder: Path, start: Path | None, machine: Machine) -> None:
        self.folder = folder
        self.start = start
        self.machine = machine
        self.pictures = Pictures()

    def weights_to_start(self, name: str) -> Path | None:
        path = self.start / f"{name}.safetensors" if self.start else None
        return path if path and path.is_file() else None

    def autoencoder(self, plan: Plan) -> Autoencoder:
        """Stage one."""
        torch.manual_seed(plan.seed)
        machine = self.machine
        net = machine.place(Autoencoder(ENC_WIDTH, DEC_WIDTH))
        heldout = {domain: machine.images(self.pictures.heldout(domain)) for domain in (ALIGNED_FACE, PHOTO)}

        def loss(rng: np.random.Generator, progress: float) -> dict[str, Tensor]:
            images = machine.images(self.pictures.autoencoder_batch(rng))
            return autoencoder_loss(net, images, progress, rng, machine.autocast())

        def show(path: Path) -> str:
            parts = []
            for domain, clean in heldout.items():
                z = in_batches(net.encoder, clean)
                out = in_batches(net.decoder, z).clamp(0, 1)
                parts.append(f"{domain} {figures(out, clean)}, spread {float(z.std()):.3f}")
                save_rows([clean, out], path.with_stem(f"{path.stem}-{domain}"))
            return " | ".join(parts)

        name = "autoencoder"
        train(net, loss, show, self.folder / name, plan, start=self.weights_to_start(name))
        return net.eval().requires_grad_(False)

    def student(self, recipe: Recipe, teacher: Autoencoder) -> Restorer:
        """The task's network before its training: random but for the teacher's encoder and decoder.

        Its skips make the untrained estimator enlarge a latent: the encoder's last layer is divided by
        that, so that the training begins with about the teacher's latent of the degraded picture.
        """
        torch.manual_seed(0)
        student = Restorer(recipe.arch)
        student.enc.load_state_dict(teacher.encoder.state_dict())
        student.dec.load_state_dict(teacher.decoder.state_dict())
        for parameter in student.enc.layers[-1].parameters():
            parameter.data /= 1 + (1 + RESIDUAL_SCALE) ** recipe.arch.n_rrdb
        student.requires_grad_(False).eval()
        self.machine.place(student)
        # Half of the flow's time is group norms, which are twice as slow channels last.
        for parameter in student.fmir.parameters():
            parameter.data = parameter.data.contiguous()
        return student

    def pairs(
        self, recipe: Recipe, teacher: Autoencoder, count: int, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Degraded squares (N, 3, side, side) uint8 and the teacher's latents of the clean ones."""
        clean = [self.pictures.square(recipe.domain, recipe.side, rng) for _ in range(count)]
        spoiled = [np.asarray(recipe.degrade(Image.fromarray(image), rng)) for image in clean]
        with torch.no_grad(), self.machine.autocast():
            z_hq = teacher.encoder(self.machine.images(stacked(clean)))
        return stacked(spoiled), z_hq.float().cpu()

    def coarse(self, task: str, recipe: Recipe, teacher: Autoencoder, student: Restorer, plan: Plan) -> None:
        """Stage two of a task."""
        machine = self.machine
        student.enc.requires_grad_(True)
        student.mmse.requires_grad_(True)
        net = nn.ModuleDict({"enc": student.enc, "mmse": student.mmse})
        pool = Pool(lambda rng, count: self.pairs(recipe, teacher, count, rng), *POOL, plan.seed)
        clean = self.pictures.heldout(recipe.domain)
        x_lq, x_hq = machine.images(degraded(clean, recipe.degrade, 0)), machine.images(clean)

        def loss(rng: np.random.Generator, progress: float) -> dict[str, Tensor]:
            pool.add(rng, MORE)
            squares, z_hq = pool.draw(rng, COARSE_BATCH)
            with machine.autocast():
                z = student.encode(machine.images(squares))
            return {"loss": F.mse_loss(z.float(), z_hq.to(machine.device))}

        def show(path: Path) -> str:
            z = in_batches(student.encode, x_lq)
            out = in_batches(student.decode, z)
            error = F.mse_loss(z, in_batches(teacher.encoder, x_hq))
            save_rows([x_lq, out, x_hq], path)
            return (
                f"degraded {figures(x_lq, x_hq)} | coarse {figures(out, x_hq)}, latent mse {float(error):.4f}"
            )

        name = f"{task}-coarse"
        train(net, loss, show, self.folder / name, plan, start=self.weights_to_start(name))
        net.requires_grad_(False)

    def flow(self, task: str, recipe: Recipe, teacher: Autoencoder, student: Restorer, plan: Plan) -> None:
        """Stage three of a task."""
        machine = self.machine
        config = LcfmConfig(steps=recipe.steps, sigma_s=recipe.sigma_s)
        student.fmir.requires_grad_(True)

        def latents(rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
            squares, z_hq = self.pairs(recipe, teacher, count, rng)
            with torch.no_grad(), machine.autocast():
                z_mmse = student.encode(machine.images(squares))
            return z_mmse.float().cpu(), z_hq

        pool = Pool(latents, *POOL, plan.seed)
        clean = self.pictures.heldout(recipe.domain)
        x_hq = machine.images(clean)
        z_mmse = in_batches(student.encode, machine.images(degraded(clean, recipe.degrade, 0)))
        noise = seeded_noise(tuple(z_mmse.shape), 0).to(z_mmse)

        def velocity(z: Tensor, t: Tensor) -> Tensor:
            with machine.autocast():
                return student.velocity(z, t).float()

        def path_lpips(source: Tensor, target: Tensor, rng: np.random.Generator) -> Tensor:
            """LPIPS (VGG) of the pictures that one step from a random point of the sampled path leads to."""
            z = landing(velocity, source[:PERCEPTUAL_IMAGES], int(rng.integers(config.steps)), config.steps)
            top, left = (int(rng.integers(z.shape[-1] - PERCEPTUAL_CELLS + 1)) for _ in range(2))
            window = (..., slice(top, top + PERCEPTUAL_CELLS), slice(left, left + PERCEPTUAL_CELLS))
            with machine.autocast():
                out, ref = student.decode(z[window]), student.decode(target[:PERCEPTUAL_IMAGES][window])
                return lpips(out, ref, "vgg16").mean()

        def loss(rng: np.random.Generator, progress: float) -> dict[str, Tensor]:
            pool.add(rng, MORE)
            coarse, target = (z.to(machine.device) for z in pool.draw(rng, FLOW_BATCH))
            source = coarse + config.sigma_s * torch.randn_like(coarse)
            t = torch.rand(len(source), 1, 1, 1, device=source.device)
            n = FLOW_BATCH // 2 if progress > LANDING_FROM else 0
            flow, _ = flow_matching_loss(velocity, source[n:], target[n:], t[n:], config.sigma_min)
            if not n:
                return {"loss": flow}
            landed, _, _ = consistency_loss(velocity, source[:n], target[:n], (1 - config.dt) * t[:n], config)
            # A landing is off by the velocity's error times at most a segment: in the velocity's unit.
            consistency = config.steps**2 * landed
            look = path_lpips(source, target, rng)
            total = flow + consistency + PERCEPTUAL_WEIGHT * look
            return {"loss": total, "flow": flow, "consistency": consistency, "lpips_vgg": look}

        def sampled(steps: int) -> Tensor:
            z = student.trajectory(z_mmse, noise, steps=steps, sigma_s=recipe.sigma_s)[-1]
            return in_batches(student.decode, z)

        def show(path: Path) -> str:
            out = {steps: sampled(steps) for steps in (0, 1, 2, recipe.steps)}
            save_rows([in_batches(student.decode, z_mmse), *out.values(), x_hq], path)
            return " | ".join(f"K {steps}: {figures(image, x_hq)}" for steps, image in out.items())

        name = f"{task}-flow"
        train(student.fmir, loss, show, self.folder / name, plan, start=self.weights_to_start(name))
        student.fmir.requires_grad_(False)


def load_stage(run_dir: Path, name: str) -> dict[str, Tensor]:
    """Averaged weights of a stage, from its checkpoints or from a folder that ``export`` wrote.

    Raises:
        UserError: it has not begun.
    """
    if (found := averaged(run_dir / name)) is not None:
        return found[0]
    exported = run_dir / f"{name}.safetensors"
    if not exported.is_file():
        raise UserError(f"{run_dir} has no stage {name}: train it first")
    return read_state(exported)[0]


def assemble_autoencoder(run_dir: Path) -> Autoencoder:
    """Teacher and decoder, frozen."""
    net = Autoencoder(ENC_WIDTH, DEC_WIDTH)
    net.load_state_dict(load_stage(run_dir, "autoencoder"))
    return net.eval().requires_grad_(False)


def assemble(run_dir: Path, task: str) -> Restorer:
    """The task's network, frozen, with what its stages have learned so far."""
    restorer = Restorer(RECIPES[task].arch)
    decoder = assemble_autoencoder(run_dir).decoder.state_dict()
    state = {f"dec.{name}": x for name, x in decoder.items()}
    state |= load_stage(run_dir, f"{task}-coarse")
    state |= {f"fmir.{name}": x for name, x in load_stage(run_dir, f"{task}-flow").items()}
    restorer.load_state_dict(state)
    return restorer.eval().requires_grad_(False)


app = typer.Typer(add_completion=False, help=__doc__)

EVERY_TASK = ",".join(RECIPES)
RunDir = Annotated[Path, typer.Argument(help="Folder of checkpoints and strips; give it again to resume.")]
Tasks = Annotated[str, typer.Option(help="Comma-separated, in this order.")]
Target = Annotated[Path, typer.Argument(help="Folder to write to.")]


@app.command("train")
@exits_with_2
def train_stages(
    run_dir: RunDir,
    tasks: Tasks = EVERY_TASK,
    resume_from: Annotated[
        Path | None,
        typer.Option(help="Folder that 'export' wrote: where RUN_DIR has nothing, go on from there."),
    ] = None,
    longer: Annotated[float, typer.Option(help="Multiply every stage's minutes by this.")] = 1.0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(help="Threads of the CPU; 0: all.")] = 0,
    bf16: Annotated[
        bool | None,
        typer.Option(help="bfloat16 in the forward pass. Default: where the processor multiplies in it."),
    ] = None,
) -> None:
    """Train stage after stage."""
    chosen = tasks.split(",")
    if unknown := set(chosen) - set(RECIPES):
        raise UserError(f"no recipe for {min(unknown)}: choose among {', '.join(RECIPES)}")
    if threads:
        torch.set_num_threads(threads)
    if bf16 is None:
        bf16 = device != "cpu" or "avx512_bf16" in str(cpu_facts()["cpu_flags"])
    run = Run(run_dir, resume_from, Machine(torch.device(device), bf16))
    teacher = run.autoencoder(replace(AUTOENCODER, minutes=AUTOENCODER.minutes * longer))
    for task in chosen:
        recipe, seed = RECIPES[task], 10 + 2 * list(RECIPES).index(task)
        student = run.student(recipe, teacher)
        run.coarse(task, recipe, teacher, student, Plan(recipe.coarse_minutes * longer, COARSE_LR, seed))
        run.flow(task, recipe, teacher, student, Plan(recipe.flow_minutes * longer, FLOW_LR, seed + 1))


@app.command()
@exits_with_2
def export(run_dir: RunDir, to: Target) -> None:
    """Write every stage's averaged weights so far in float16, for --resume-from."""
    to.mkdir(parents=True, exist_ok=True)
    for folder in sorted(path for path in run_dir.iterdir() if path.is_dir()):
        if (found := averaged(folder)) is not None:
            path = to / f"{folder.name}.safetensors"
            write_state(*found, path)
            typer.echo(f"wrote {path}, {path.stat().st_size / 1e6:.2f} MB, {found[1]:.1f} minutes")


@app.command()
@exits_with_2
def bundle(run_dir: RunDir, to: Target, tasks: Tasks = EVERY_TASK) -> None:
    """Write the weights files that the package bundles: one for each task, and the autoencoder once."""
    to.mkdir(parents=True, exist_ok=True)
    autoencoder = assemble_autoencoder(run_dir)
    save_autoencoder(autoencoder.encoder, autoencoder.decoder, to / DEMO_AUTOENCODER)
    for task in tasks.split(","):
        restorer, recipe = assemble(run_dir, task), RECIPES[task]
        path = to / f"demo-{task}.safetensors"
        save_weights(
            restorer,
            path,
            task=task,
            size=recipe.use_side,
            steps=recipe.use_steps,
            sigma_s=recipe.sigma_s,
            domain=recipe.domain,
            shared_decoder=True,
        )
        typer.echo(f"wrote {path}, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    app()
