"""Writes rope_parameters.json: what transformers computes from the RoPE settings that published models carry.

    pip install torch==2.13.0 transformers==5.24.0  # in an environment of its own; no weights are loaded
    python tests/golden/rope_parameters.py

Each model's fields stand as in its config.json, as far as they concern RoPE; where only a class is given, its defaults
mirror the checkpoint that the class documents. transformers itself turns them into `rope_parameters`, and computes the
frequencies by the functions that its models use. 2026-11-27, Python 3.11, 20 s on 2 cores.
"""

import copy
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import transformers  # pyright: ignore[reportMissingImports]
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS  # pyright: ignore[reportMissingImports]
from transformers.models.ministral3.modeling_ministral3 import (  # pyright: ignore[reportMissingImports]
    get_llama_4_attn_scale,
)

LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA31 = LLAMA3 | {"original_max_position_embeddings": 8192}
QWEN_YARN = {"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"}
DEEPSEEK_YARN = {"type": "yarn", "beta_fast": 32, "beta_slow": 1, "original_max_position_embeddings": 4096}
HUNYUAN = {"alpha": 1000.0, "beta_fast": 32, "beta_slow": 1, "factor": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0}
OLMO3 = {"rope_type": "yarn", "attention_factor": 1.2079441541679836, "beta_fast": 32, "beta_slow": 1, "factor": 8.0}

PHI35_LONG = """
1.0800000429153442 1.1100000143051147 1.1399999856948853 1.340000033378601 1.5899999141693115 1.600000023841858
1.6200000047683716 2.620000123977661 3.2300000190734863 3.2300000190734863 4.789999961853027 7.400000095367432
7.700000286102295 9.09000015258789 12.199999809265137 17.670000076293945 24.46000099182129 28.57000160217285
30.420001983642578 30.840002059936523 32.590003967285156 32.93000411987305 42.320003509521484 44.96000289916992
50.340003967285156 50.45000457763672 57.55000305175781 57.93000411987305 58.21000289916992 60.1400032043457
62.61000442504883 62.62000274658203 62.71000289916992 63.1400032043457 63.1400032043457 63.77000427246094
63.93000411987305 63.96000289916992 63.970001220703125 64.02999877929688 64.06999969482422 64.08000183105469
64.12000274658203 64.41000366210938 64.4800033569336 64.51000213623047 64.52999877929688 64.83999633789062"""
PHI35_SHORT = """
1.0 1.0199999809265137 1.0299999713897705 1.0299999713897705 1.0499999523162842 1.0499999523162842 1.0499999523162842
1.0499999523162842 1.0499999523162842 1.0699999332427979 1.0999999046325684 1.1099998950958252 1.1599998474121094
1.1599998474121094 1.1699998378753662 1.2899998426437378 1.339999794960022 1.679999828338623 1.7899998426437378
1.8199998140335083 1.8499997854232788 1.8799997568130493 1.9099997282028198 1.9399996995925903 1.9899996519088745
2.0199997425079346 2.0199997425079346 2.0199997425079346 2.0199997425079346 2.0199997425079346 2.0199997425079346
2.0299997329711914 2.0299997329711914 2.0299997329711914 2.0299997329711914 2.0299997329711914 2.0299997329711914
2.0299997329711914 2.0299997329711914 2.0299997329711914 2.0799996852874756 2.0899996757507324 2.189999580383301
2.2199995517730713 2.5899994373321533 2.729999542236328 2.749999523162842 2.8399994373321533"""
PHI4_LONG = """
1 1.118320672 1.250641126 1.398617824 1.564103225 1.74916897 1.956131817 2.187582649 2.446418898 2.735880826 3.059592084
3.421605075 3.826451687 4.279200023 4.785517845 5.351743533 5.984965424 6.693110555 7.485043894 8.370679318 9.36110372
10.4687158 11.70738129 13.09260651 14.64173252 16.37415215 18.31155283 20.47818807 22.90118105 25.61086418 28.64115884
32.03 32.1 32.13 32.23 32.6 32.61 32.64 32.66 32.7 32.71 32.93 32.97 33.28 33.49 33.5 44.16 47.77"""
MINICPM4 = """
0.9977997200264581 1.014658295992452 1.0349680404997148 1.059429246056193 1.0888815016813513 1.1243301355211495
1.166977103606075 1.2182568066927284 1.2798772354275727 1.3538666751582975 1.4426259039919596 1.5489853358570191
1.6762658237220625 1.8283407612492941 2.0096956085876183 2.225478927469756 2.481536379650452 2.784415934557119
3.1413289096347365 3.560047844772632 4.048719380066383 4.752651957515948 5.590913044973868 6.584005926629993
7.7532214876576155 9.119754865903639 10.704443927019176 12.524994176518703 14.59739595363613 16.93214476166354
19.53823297353041 22.417131025031697 25.568260840911098 28.991144156566317 32.68408069090375 36.65174474170465
40.90396065611201 45.4664008671033 50.37147343433591 55.6804490772103 61.470816952306556 67.8622707390618
75.00516023410414 83.11898235973767 92.50044360202462 103.57086856690864 116.9492274587385 118.16074567836519
119.18497548708795 120.04810876261652 120.77352815196981 121.38182790207875 121.89094985353891 122.31638758099915
122.6714244963338 122.9673822552567 123.21386397019609 123.41898278254268 123.58957065488238 123.73136519024158
123.84917421274221 123.94701903496814 124.02825801299717 124.09569231686116"""
PHI35_MOE_LONG = """
1.0199999809265137 1.0299999713897705 1.0399999618530273 1.0499999523162842 1.0499999523162842 1.0499999523162842
1.059999942779541 1.059999942779541"""
PHI35_MOE_SHORT = """
1.0 1.0399999618530273 1.0399999618530273 1.0399999618530273 1.0499999523162842 1.0499999523162842 1.0499999523162842
1.0499999523162842"""


def numbers(text: str) -> list[float]:
    return [float(number) for number in text.split()]


def longrope(short: str, long: str, **more: Any) -> dict[str, Any]:
    return {"type": "longrope", "short_factor": numbers(short), "long_factor": numbers(long)} | more


PHI35 = longrope(PHI35_SHORT, PHI35_LONG, original_max_position_embeddings=4096)
PHI4 = longrope("1 " * 48, PHI4_LONG, original_max_position_embeddings=4096)
PHI35_MOE = longrope(
    PHI35_MOE_SHORT,
    PHI35_MOE_LONG,
    original_max_position_embeddings=4096,
    short_mscale=1.243163121016122,
    long_mscale=1.243163121016122,
)


def fields(width: int, heads: int, length: int, theta: float, scaling: Any = None, **more: Any) -> dict[str, Any]:
    """The fields of a config.json."""
    shape = {"hidden_size": width, "num_attention_heads": heads, "max_position_embeddings": length}
    return shape | {"rope_theta": theta, "rope_scaling": copy.deepcopy(scaling)} | more


# model -> (module and class of the config, its fields, lengths of sequences)
MODELS: dict[str, tuple[str, dict[str, Any], tuple[int | None, ...]]] = {
    "huggyllama/llama-7b": ("llama.Llama", fields(4096, 32, 2048, 1e4), (None,)),
    "meta-llama/Meta-Llama-3-8B": ("llama.Llama", fields(4096, 32, 8192, 5e5), (None,)),
    "meta-llama/Llama-3.1-8B": ("llama.Llama", fields(4096, 32, 131072, 5e5, LLAMA31 | {"factor": 8.0}), (None,)),
    "meta-llama/Llama-3.2-1B": (
        "llama.Llama",
        fields(2048, 32, 131072, 5e5, LLAMA31 | {"factor": 32.0}, head_dim=64),
        (None,),
    ),
    "meta-llama/Llama-3.2-3B": (
        "llama.Llama",
        fields(3072, 24, 131072, 5e5, LLAMA31 | {"factor": 32.0}, head_dim=128),
        (None,),
    ),
    "meta-llama/Llama-4-Scout-17B-16E": (
        "llama.Llama",
        fields(5120, 40, 10485760, 5e5, LLAMA31 | {"factor": 16.0, "high_freq_factor": 1.0}, head_dim=128),
        (None,),
    ),
    "codellama/CodeLlama-7b-hf": ("llama.Llama", fields(4096, 32, 16384, 1e6), (None,)),
    "01-ai/Yi-6B": ("llama.Llama", fields(4096, 32, 4096, 5e6), (None,)),
    "HuggingFaceTB/SmolLM2-135M": ("llama.Llama", fields(576, 9, 8192, 1e5), (None,)),
    "HuggingFaceTB/SmolLM2-1.7B": ("llama.Llama", fields(2048, 32, 8192, 130000), (None,)),
    "lmsys/vicuna-7b-v1.5-16k": (
        "llama.Llama",
        fields(4096, 32, 4096, 1e4, {"factor": 4.0, "type": "linear"}),
        (None, 16384),
    ),
    "lmsys/longchat-7b-v1.5-32k": (
        "llama.Llama",
        fields(4096, 32, 4096, 1e4, {"factor": 8.0, "type": "linear"}),
        (None,),
    ),
    "deepseek-ai/deepseek-coder-6.7b-base": (
        "llama.Llama",
        fields(4096, 32, 16384, 1e5, {"type": "linear", "factor": 4.0}),
        (None,),
    ),
    "NousResearch/Yarn-Llama-2-7b-64k": (
        "llama.Llama",
        fields(
            4096,
            32,
            65536,
            1e4,
            {"factor": 16.0, "original_max_position_embeddings": 4096, "type": "yarn", "finetuned": True},
        ),
        (None,),
    ),
    "NousResearch/Yarn-Mistral-7b-128k": (
        "mistral.Mistral",
        fields(
            4096,
            32,
            131072,
            1e4,
            {"factor": 16.0, "original_max_position_embeddings": 8192, "type": "yarn", "finetuned": True},
        ),
        (None,),
    ),
    "internlm/internlm2-chat-7b": (
        "llama.Llama",
        fields(4096, 32, 32768, 1e6, {"type": "dynamic", "factor": 2.0}),
        (None, 40000, 200000),
    ),
    "internlm/internlm3-8b-instruct": (
        "llama.Llama",
        fields(4096, 32, 32768, 5e7, {"factor": 6.0, "rope_type": "dynamic"}, head_dim=128),
        (32768, 65536),
    ),
    "openbmb/MiniCPM4-8B": (
        "llama.Llama",
        fields(4096, 32, 32768, 1e4, longrope(MINICPM4, MINICPM4, original_max_position_embeddings=32768)),
        (None, 100000),
    ),
    "mistralai/Mistral-7B-v0.1": ("mistral.Mistral", fields(4096, 32, 32768, 1e4), (None,)),
    "mistralai/Mistral-7B-Instruct-v0.3": ("mistral.Mistral", fields(4096, 32, 32768, 1e6), (None,)),
    "mistralai/Mistral-Nemo-Base-2407": ("mistral.Mistral", fields(5120, 32, 131072, 1e6, head_dim=128), (None,)),
    "mistralai/Ministral-8B-Instruct-2410": ("mistral.Mistral", fields(4096, 32, 32768, 1e8, head_dim=128), (None,)),
    "mistralai/Ministral-3-8B-Base-2512": ("ministral3.Ministral3", {}, (None,)),
    "Qwen/Qwen2-0.5B": ("qwen2.Qwen2", fields(896, 14, 131072, 1e6), (None,)),
    "Qwen/Qwen2.5-7B-Instruct, YaRN of its card": (
        "qwen2.Qwen2",
        fields(3584, 28, 32768, 1e6, QWEN_YARN),
        (None, 131072),
    ),
    "Qwen/Qwen2.5-7B-Instruct-1M": ("qwen2.Qwen2", fields(3584, 28, 1010000, 1e7), (None,)),
    "Qwen/Qwen3-8B": ("qwen3.Qwen3", fields(4096, 32, 40960, 1e6, head_dim=128), (None,)),
    "Qwen/Qwen3-8B, YaRN of its card": (
        "qwen3.Qwen3",
        fields(4096, 32, 131072, 1e6, QWEN_YARN | {"type": "yarn"}, head_dim=128),
        (None,),
    ),
    "Qwen/Qwen3-Next-80B-A3B-Instruct": (
        "qwen3_next.Qwen3Next",
        fields(2048, 16, 262144, 1e7, head_dim=256, partial_rotary_factor=0.25),
        (None,),
    ),
    "Qwen/Qwen2-VL-7B-Instruct": (
        "qwen2_vl.Qwen2VLText",
        fields(3584, 28, 32768, 1e6, {"type": "mrope", "mrope_section": [16, 24, 24]}),
        (None,),
    ),
    "Qwen/Qwen3-VL-8B-Instruct": (
        "qwen3_vl.Qwen3VLText",
        fields(
            4096,
            32,
            262144,
            5e6,
            {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
            head_dim=128,
        ),
        (None,),
    ),
    "Qwen/Qwen3-Omni-30B-A3B-Instruct, thinker": (
        "qwen3_omni_moe.Qwen3OmniMoeText",
        fields(
            2048,
            32,
            65536,
            1e6,
            {
                "interleaved": True,
                "mrope_interleaved": True,
                "mrope_section": [24, 20, 20],
                "rope_type": "default",
                "type": "default",
            },
            head_dim=128,
        ),
        (None,),
    ),
    "zai-org/GLM-4.1V-9B-Thinking": (
        "glm4v.Glm4vText",
        fields(4096, 32, 65536, 1e4, {"type": "default", "mrope_section": [8, 12, 12]}, partial_rotary_factor=0.5),
        (None,),
    ),
    "zai-org/GLM-4-9B-0414": (
        "glm4.Glm4",
        fields(4096, 32, 32768, 1e4, head_dim=128, partial_rotary_factor=0.5),
        (None,),
    ),
    "zai-org/GLM-4.5": (
        "glm4_moe.Glm4Moe",
        fields(5120, 96, 131072, 1e6, head_dim=128, partial_rotary_factor=0.5),
        (None,),
    ),
    "microsoft/phi-2": ("phi.Phi", fields(2560, 32, 2048, 1e4, partial_rotary_factor=0.4), (None,)),
    "microsoft/phi-1_5": ("phi.Phi", fields(2048, 32, 2048, 1e4, partial_rotary_factor=0.5), (None,)),
    "microsoft/Phi-3-mini-4k-instruct": ("phi3.Phi3", fields(3072, 32, 4096, 1e4), (None,)),
    "microsoft/Phi-3.5-mini-instruct": (
        "phi3.Phi3",
        fields(3072, 32, 131072, 1e4, PHI35, original_max_position_embeddings=4096),
        (None, 4096, 4097),
    ),
    "microsoft/Phi-3.5-mini-instruct, older name": (
        "phi3.Phi3",
        fields(3072, 32, 131072, 1e4, PHI35 | {"type": "su"}, original_max_position_embeddings=4096),
        (None, 131072),
    ),
    "microsoft/Phi-3.5-MoE-instruct, cut to 8 pairs": (
        "phimoe.Phimoe",
        fields(128, 8, 131072, 1e4, PHI35_MOE, original_max_position_embeddings=4096),
        (4096, 4097),
    ),
    "microsoft/Phi-4-mini-instruct": (
        "phi3.Phi3",
        fields(3072, 24, 131072, 1e4, PHI4, original_max_position_embeddings=4096, partial_rotary_factor=0.75),
        (None, 131072),
    ),
    "stabilityai/stablelm-3b-4e1t": (
        "stablelm.StableLm",
        fields(2560, 32, 4096, 1e4, partial_rotary_factor=0.25),
        (None,),
    ),
    "stabilityai/stablelm-2-1_6b": (
        "stablelm.StableLm",
        fields(2048, 32, 4096, 1e4, partial_rotary_factor=0.25),
        (None,),
    ),
    "EleutherAI/pythia-410m": (
        "gpt_neox.GPTNeoX",
        {"hidden_size": 1024, "num_attention_heads": 16, "rotary_pct": 0.25, "rotary_emb_base": 10000},
        (None,),
    ),
    "EleutherAI/gpt-neox-20b": ("gpt_neox.GPTNeoX", {}, (None,)),
    "adept/persimmon-8b-base": (
        "persimmon.Persimmon",
        fields(4096, 64, 16384, 25000.0, partial_rotary_factor=0.5),
        (None,),
    ),
    "nvidia/Minitron-8B-Base": (
        "nemotron.Nemotron",
        fields(4096, 32, 4096, 1e4, head_dim=128, partial_rotary_factor=0.5),
        (None,),
    ),
    "CohereForAI/c4ai-command-r-v01": ("cohere.Cohere", fields(8192, 64, 131072, 8e6), (None,)),
    "CohereForAI/c4ai-command-r7b-12-2024": ("cohere2.Cohere2", fields(4096, 32, 8192, 50000, head_dim=128), (None,)),
    "tiiuae/Falcon3-7B-Base": ("llama.Llama", fields(3072, 12, 32768, 1000042, head_dim=256), (None,)),
    "bigcode/starcoder2-3b": ("starcoder2.Starcoder2", fields(3072, 24, 16384, 999999.4420358813), (None,)),
    "deepseek-ai/DeepSeek-V2-Lite": (
        "deepseek_v2.DeepseekV2",
        fields(2048, 16, 163840, 1e4, DEEPSEEK_YARN | {"factor": 40, "mscale": 0.707, "mscale_all_dim": 0.707}),
        (None,),
    ),
    "deepseek-ai/DeepSeek-V3": (
        "deepseek_v3.DeepseekV3",
        fields(7168, 128, 163840, 1e4, DEEPSEEK_YARN | {"factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0}),
        (None,),
    ),
    "moonshotai/Kimi-K2-Instruct": (
        "deepseek_v3.DeepseekV3",
        fields(
            7168,
            64,
            131072,
            5e4,
            DEEPSEEK_YARN | {"beta_fast": 1.0, "beta_slow": 1.0, "factor": 32.0, "mscale": 1.0, "mscale_all_dim": 1.0},
        ),
        (None,),
    ),
    "deepseek-ai/DeepSeek-V4-Flash-Base": (
        "deepseek_v4.DeepseekV4",
        {"rope_scaling": DEEPSEEK_YARN | {"factor": 16, "original_max_position_embeddings": 65536}},
        (None,),
    ),
    "openai/gpt-oss-20b": ("gpt_oss.GptOss", {}, (None,)),
    "tencent/Hunyuan-7B-Instruct": (
        "hunyuan_v1_dense.HunYuanDenseV1",
        fields(4096, 32, 32768, 1e4, HUNYUAN | {"type": "dynamic"}, head_dim=128),
        (None, 100000),
    ),
    "tencent/Hunyuan-A13B-Instruct": (
        "hunyuan_v1_moe.HunYuanMoEV1",
        fields(4096, 32, 32768, 1e4, {"alpha": 1000.0, "factor": 1.0, "type": "dynamic"}, head_dim=128),
        (None,),
    ),
    "tencent/HunyuanOCR": (
        "hunyuan_vl.HunYuanVLText",
        fields(
            1024,
            16,
            32768,
            1e4,
            HUNYUAN | {"type": "xdrope", "xdrope_section": [16, 16, 16, 16]},
            head_dim=128,
        ),
        (None,),
    ),
    "LGAI-EXAONE/EXAONE-3.5-2.4B-Instruct": (
        "llama.Llama",
        fields(2560, 32, 32768, 1e6, LLAMA31 | {"factor": 8.0}, head_dim=80),
        (None,),
    ),
    "LGAI-EXAONE/EXAONE-4.0-32B": (
        "exaone4.Exaone4",
        fields(5120, 40, 131072, 1e6, LLAMA31 | {"factor": 16.0}, head_dim=128),
        (None,),
    ),
    "allenai/OLMo-2-1124-7B": ("olmo2.Olmo2", fields(4096, 32, 4096, 5e5), (None,)),
    "allenai/Olmo-3-1025-7B": (
        "olmo3.Olmo3",
        fields(4096, 32, 65536, 5e5, OLMO3 | {"original_max_position_embeddings": 8192}),
        (None,),
    ),
    "google/gemma-7b": ("gemma.Gemma", fields(3072, 16, 8192, 1e4, head_dim=256), (None,)),
    "google/gemma-3-4b-it": (
        "gemma3.Gemma3Text",
        fields(
            2560, 8, 131072, 1e6, {"factor": 8.0, "rope_type": "linear"}, head_dim=256, rope_local_base_freq=10000.0
        ),
        (None,),
    ),
    "google/gemma-3n-E4B": ("gemma3n.Gemma3nText", {}, (None,)),
    "google/gemma-4-e2b-it": ("gemma4.Gemma4Text", {}, (None,)),
    "LiquidAI/LFM3-1.7B": ("lfm3.Lfm3", {}, (None,)),
    "answerdotai/ModernBERT-base": ("modernbert.ModernBert", {}, (None,)),
    "XiaomiMiMo/MiMo-V2-Flash": ("mimo_v2_flash.MiMoV2Flash", {}, (None,)),
    "swiss-ai/Apertus-8B-Instruct-2509": ("apertus.Apertus", {}, (None,)),
    "bosonai/higgs-audio-v2-generation-3B-base": ("higgs_audio_v2.HiggsAudioV2", {}, (None,)),
    "mistralai/Mistral-Small-4-119B-2603": ("mistral4.Mistral4", {}, (None,)),
    "mistralai/Mistral-Large-4-1T-A52B": ("mistral_large4.MistralLarge4Text", {}, (None,)),
    "HuggingFaceTB/SmolLM3-3B": ("smollm3.SmolLM3", {}, (None,)),
    "UsefulSensors/moonshine-tiny": ("moonshine.Moonshine", {}, (None,)),
    "MiniMaxAI/MiniMax-M2": ("minimax_m2.MiniMaxM2", {}, (None,)),
    "LiquidAI/LFM2-1.2B": ("lfm2.Lfm2", {}, (None,)),
    "jinaai/jina-embeddings-v3-hf": ("jina_embeddings_v3.JinaEmbeddingsV3", {}, (None,)),
    "nomic-ai/nomic-embed-text-v1.5": ("nomic_bert.NomicBert", {}, (None,)),
    "google/recurrentgemma-2b": ("recurrent_gemma.RecurrentGemma", {}, (None,)),
    "Qwen/Qwen2-VL-7B-Instruct, vision": ("qwen2_vl.Qwen2VLVision", {}, (None,)),
    "Qwen/Qwen3-VL-4B-Instruct, vision": ("qwen3_vl.Qwen3VLVision", {}, (None,)),
    "google/gemma-4-e2b-it, vision": ("gemma4.Gemma4Vision", {}, (None,)),
    "zai-org/GLM-4.1V-9B-Thinking, vision": ("glm4v.Glm4vVision", {}, (None,)),
}


def rotary_class(module: Any, config: Any) -> Any:
    """The rotary embedding of a config's class: a model of pictures and sounds has several, the first for text."""
    of_pictures = "Vision" in type(config).__name__
    names = [name for name in vars(module) if name.endswith("RotaryEmbedding") and ("Vision" in name) == of_pictures]
    return getattr(module, names[0])


def computed(config: Any, module: Any, layer: str | None, seq_len: int | None) -> tuple[Any, float]:
    """Inverse frequencies and attention factor, by the function that the model would use."""
    parameters = config.rope_parameters[layer] if layer else config.rope_parameters
    rope_type = parameters["rope_type"]
    if rope_type in ROPE_INIT_FUNCTIONS and "alpha" not in parameters:
        per_layer = config.per_layer_config[layer] if "Gemma4" in type(config).__name__ else config
        frequencies, factor = ROPE_INIT_FUNCTIONS[rope_type](per_layer, "cpu", seq_len=seq_len, layer_type=layer)
    else:
        embedding = rotary_class(module, config)(config)
        prefix = f"{layer}_" if layer else ""
        frequencies = getattr(embedding, f"{prefix}inv_freq")
        factor = getattr(embedding, f"{prefix}attention_scaling")
    if "short_mscale" in parameters:
        embedding = rotary_class(module, config)(config)
        cosines, _ = embedding(torch.zeros(1), torch.tensor([[0, seq_len - 1]]))  # those of position 0 are the factor
        factor = cosines[0, 0, 0].item()
    return frequencies, factor


def width_of_heads(config: Any, layer: str | None) -> int:
    if layer and "Gemma4" in type(config).__name__:
        config = config.per_layer_config[layer]
    width = getattr(config, "head_dim", None)
    return width or getattr(config, "embed_dim", config.hidden_size) // getattr(config, "num_attention_heads", 0)


def cases() -> list[dict[str, Any]]:
    """One case per model, type of layer and length."""
    found = []
    for model, (path, settings, lengths) in MODELS.items():
        name, kind = path.split(".")
        module = importlib.import_module(f"transformers.models.{name}.modeling_{name}")
        configuration = importlib.import_module(f"transformers.models.{name}.configuration_{name}")
        config = getattr(configuration, f"{kind}Config")(**copy.deepcopy(settings))
        parameters = copy.deepcopy(config.rope_parameters)
        nested = [key for key, value in parameters.items() if isinstance(value, dict)]
        if model.endswith("older name"):
            parameters["rope_type"] = "su"
        for layer in nested or [None]:
            for seq_len in lengths:
                frequencies, factor = computed(config, module, layer, seq_len)
                found.append(
                    {
                        "model": model,
                        "rope_parameters": parameters,
                        "layer_type": layer,
                        "head_dim": width_of_heads(config, layer),
                        "max_position_embeddings": getattr(config, "max_position_embeddings", 1) or 1,
                        "seq_len": seq_len,
                        "attention_factor": factor,
                        # The shortest digits that give the float32 back.
                        "inv_freq": [float(str(np.float32(x))) for x in frequencies.tolist()],
                    }
                )
    return found


def growth() -> dict[str, Any]:
    """The factors of Ministral 3's queries."""
    positions = torch.tensor([[0, 1, 16383, 16384, 32767, 32768, 100_000, 262_143]])
    factors = get_llama_4_attn_scale(positions, 0.1, 16384).flatten().tolist()
    return {"beta": 0.1, "length": 16384, "positions": positions[0].tolist(), "factors": factors}


if __name__ == "__main__":
    source = f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}, float32"
    head = json.dumps({"source": source, "query_growth": growth()})[:-1]
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases())
    Path(__file__).with_suffix(".json").write_text(f'{head}, "cases": [\n{lines}\n]}}\n')
