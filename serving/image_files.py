"""Images as clients get them: PNG, JPEG or WebP, with the parameters they were drawn by in the form A1111 reads."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from addiffusion import __version__
from serving.messages import Drawn, Order
from serving.model import ServedFacts

SAMPLERS: Final[Mapping[str, str]] = {
    "DDIM": "ddim",
    "DPM++ 2M": "dpm++2m",
    "DPM++ 3M": "dpm++3m",
    "Euler": "euler",
    "Euler a": "euler_ancestral",
    "UniPC": "unipc2",
    "UniPC 3": "unipc3",
    "PLMS": "pndm",
    "LCM": "lcm",
    "Euler (flow)": "flow_euler",
}
"""Solvers by the names that front ends show."""
Format = Literal["png", "jpeg", "webp"]
_EXIF, _USER_COMMENT = 0x8769, 0x9286
"""Tags of the EXIF standard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileStyle:
    """How images are encoded."""

    format: Format = "png"
    compression: int = 100
    """Quality of JPEG and WebP, 0 to 100."""


def encoded(pixels: NDArray[np.uint8], style: FileStyle, parameters: str = "") -> bytes:
    """A file of an image.

    Args:
        pixels: (H, W, 3).
        style: format and compression.
        parameters: kept in the file, where given.
    """
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    if style.format == "png":
        info = PngImagePlugin.PngInfo()
        if parameters:
            info.add_text("parameters", parameters)
        image.save(buffer, format="PNG", pnginfo=info)
        return buffer.getvalue()
    exif = Image.Exif()
    if parameters:
        exif.get_ifd(_EXIF)[_USER_COMMENT] = b"UNICODE\0" + parameters.encode("utf-16-be")
    image.save(buffer, format=style.format.upper(), quality=style.compression, exif=exif)
    return buffer.getvalue()


def parameters_of(order: Order, drawn: Drawn, facts: ServedFacts) -> str:
    """The parameters of an image, as AUTOMATIC1111's web UI writes them.

    Args:
        order: the request.
        drawn: its image.
        facts: what the server draws with.
    """
    setting = order.setting
    solver = setting.solver or facts.solver
    scale = facts.guidance_scale if setting.guidance_scale is None else setting.guidance_scale
    height, width, _ = drawn.pixels.shape
    named: dict[str, object] = {
        "Steps": setting.num_steps or facts.num_steps,
        "Sampler": next((name for name, one in SAMPLERS.items() if one == solver), solver),
        **({"Schedule type": "Karras"} if setting.spacing == "karras" else {}),
        "CFG scale": f"{scale:g}",
        "Seed": drawn.seed,
        "Size": f"{width}x{height}",
        "Model": facts.model,
        "Policy": facts.policy,
        "Price": f"{drawn.c_nfe:g}",
        "NFE": drawn.nfe,
        "Version": f"addiffusion {__version__}",
    }
    away = f"\nNegative prompt: {setting.negative_prompt}" if setting.negative_prompt else ""
    return f"{order.prompt}{away}\n{', '.join(f'{name}: {value}' for name, value in named.items())}"
