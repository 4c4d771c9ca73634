"""Tiny random vision-language models of several families, saved with a tokenizer and an image processor."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForImageTextToText, CLIPImageProcessorPil, PreTrainedTokenizerFast
from transformers.models.llava import LlavaProcessor
from transformers.models.qwen2_vl import Qwen2VLImageProcessorPil

from foredraft.engines.noise import sample
from foredraft.engines.torch_model import LoadedModel
from foredraft.protocol.sampling import Sampling

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava")
EOS, START, END, VIDEO, IMAGE = 256, 257, 258, 259, 260
VOCABULARY = 261
MARKS = ("<eos>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>", "<|image_pad|>")
TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {% if message.content is string %}{{ message.content }}"
    "{% else %}{% for part in message.content %}{% if part.type == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}\n"
    "{% endfor %}assistant: "
)

_TEXT: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512,
    "initializer_range": 0.3, "bos_token_id": None, "eos_token_id": EOS, "pad_token_id": None,
}  # fmt: skip
_MROPE: dict[str, Any] = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
_EYES: dict[str, dict[str, Any]] = {
    "qwen2_vl": {"depth": 2, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "patch_size": 14, "mlp_ratio": 2},
    "qwen2_5_vl": {
        "depth": 2, "hidden_size": 16, "out_hidden_size": 32, "intermediate_size": 24, "num_heads": 2,
        "patch_size": 14, "fullatt_block_indexes": [1], "window_size": 56,
    },
    "qwen3_vl": {
        "depth": 2, "hidden_size": 16, "out_hidden_size": 32, "intermediate_size": 24, "num_heads": 2,
        "patch_size": 14, "deepstack_visual_indexes": [0, 1], "num_position_embeddings": 64,
    },
    "llava": {
        "model_type": "clip_vision_model", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3,
        "num_attention_heads": 2, "image_size": 56, "patch_size": 14,
    },
}  # fmt: skip


def tiny(family: str) -> Any:
    """A random model, by transformers alone."""
    eyes = _EYES[family]
    if family == "llava":
        text = _TEXT | {"model_type": "llama"}
        marks: dict[str, Any] = {"image_token_id": IMAGE, "vision_feature_layer": -2}
    else:
        text = _TEXT | {"rope_parameters": _MROPE}
        marks = {"image_token_id": IMAGE, "video_token_id": VIDEO}
        marks |= {"vision_start_token_id": START, "vision_end_token_id": END}
    config = AutoConfig.for_model(family, text_config=text, vision_config=eyes, **marks)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForImageTextToText.from_config(config, attn_implementation="eager").eval().float()
        for name, weight in model.named_parameters():  # so that what it sees matters to what it says
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, std=0.3 if "language" in name or "lm_head" in name else 0.5)
    model.generation_config.eos_token_id = EOS
    return model.requires_grad_(False)


def save(folder: Path, family: str = "qwen2_vl") -> Path:
    """Write a tiny model, its tokenizer and its image processor into ``folder``."""
    tiny(family).save_pretrained(folder)
    save_tokenizer(folder)
    if family == "llava":
        processor = CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        LlavaProcessor(
            image_processor=processor, tokenizer=tokenizer, patch_size=14, vision_feature_select_strategy="default",
            image_token=MARKS[-1], num_additional_image_tokens=1, chat_template=TEMPLATE,
        ).save_pretrained(folder)  # fmt: skip
    else:
        sides = {"min_pixels": 28 * 28, "max_pixels": 28 * 28 * 16}
        Qwen2VLImageProcessorPil(patch_size=14, merge_size=2, **sides).save_pretrained(folder)
    return folder


def save_tokenizer(folder: Path) -> None:
    """Write a tokenizer whose tokens are the bytes and the marks of images."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={character: index for index, character in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(MARKS))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=MARKS[0], chat_template=TEMPLATE)
    fast.save_pretrained(folder)


def picture(width: int = 84, height: int = 56, seed: int = 0, kind: str = "PNG") -> bytes:
    """An encoded image of coloured noise."""
    pixels = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(file, kind)
    return file.getvalue()


class Plain:
    """The same model, by transformers alone: the whole of it, over the whole text, for each token."""

    def __init__(self, model: LoadedModel, images: Sequence[bytes]) -> None:
        """``model``: loaded from a folder that is named after its family."""
        self._model = tiny(model.folder.name)
        assert model.sight is not None
        inputs = [model.sight.read(image) for image in images]
        self._given = {name: torch.cat([one[name] for one in inputs]) for name in inputs[0]}
        self._is_qwen = model.folder.name != "llava"

    @torch.inference_mode()
    def next_token(self, text: Sequence[int], sampling: Sampling) -> int:
        ids = torch.tensor([text])
        given = dict(self._given)
        if self._is_qwen:
            given["mm_token_type_ids"] = (ids == IMAGE).int()
        logits = self._model(input_ids=ids, use_cache=False, **given).logits[0, -1:]
        return int(sample(logits, torch.tensor([len(text)]), sampling))

    @torch.inference_mode()
    def generated(self, prompt: Sequence[int], count: int) -> list[int]:
        """Greedily, by transformers' own ``generate``."""
        ids = torch.tensor([prompt])
        given = dict(self._given)
        if self._is_qwen:
            given["mm_token_type_ids"] = (ids == IMAGE).int()
        limits = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False, "eos_token_id": None}
        said = self._model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **given, **limits)
        return list(said[0, len(prompt) :].tolist())

    def text(self, prompt: Sequence[int], count: int, sampling: Sampling) -> list[int]:
        text = list(prompt)
        for _ in range(count):
            text.append(self.next_token(text, sampling))
        return text[len(prompt) :]
