# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Chat templates of published models, the same with {% generation %}, conversations."""

_SMOL = """\
{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
{{ '<|im_start|>system
You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""

_SMOL_TAGGED = _SMOL.replace(
    """{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}""",
    """{{'<|im_start|>' + message['role'] + '
'}}{% if message['role'] == 'assistant' %}{% generation %}\
{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}\
{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '
' }}""",
)

_LLAMA = """\
{% set loop_messages = messages %}{% for message in loop_messages %}\
{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>

'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}\
{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>

' }}{% endif %}"""

_LLAMA_TAGGED = """\
{% for message in messages %}{% if loop.index0 == 0 %}{{ bos_token }}{% endif %}\
{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>

' }}{% if message['role'] == 'assistant' %}{% generation %}\
{{ message['content'] | trim + '<|eot_id|>' }}{% endgeneration %}{% else %}\
{{ message['content'] | trim + '<|eot_id|>' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>

' }}{% endif %}"""

_GEMMA = """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}\
{{ raise_exception('System role not supported') }}{% endif %}\
{% for message in messages %}\
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate user/assistant/user/...') }}\
{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}\
{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '
' + message['content'] | trim + '<end_of_turn>
' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model
'}}{% endif %}"""

_GEMMA_TAGGED = _GEMMA.replace(
    """{{ '<start_of_turn>' + role + '
' + message['content'] | trim + '<end_of_turn>
' }}""",
    """{{ '<start_of_turn>' + role + '
' }}{% if role == 'model' %}{% generation %}\
{{ message['content'] | trim + '<end_of_turn>' }}{% endgeneration %}{% else %}\
{{ message['content'] | trim + '<end_of_turn>' }}{% endif %}{{ '
' }}""",
)

_MISTRAL = """\
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Roles must alternate user and assistant') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {%- if loop.first and system_message is defined %}
            {{- ' [INST] ' + system_message + '\\n\\n' + message['content'] + ' [/INST]' }}
        {%- else %}
            {{- ' [INST] ' + message['content'] + ' [/INST]' }}
        {%- endif %}
    {%- elif message['role'] == 'assistant' %}
        {{- ' ' + message['content'] + eos_token}}
    {%- else %}
        {{- raise_exception('Only user and assistant roles are supported') }}
    {%- endif %}
{%- endfor %}
"""

_MISTRAL_TAGGED = _MISTRAL.replace(
    "        {{- ' ' + message['content'] + eos_token}}\n",
    "        {%- generation %}\n        {{- ' ' + message['content'] + eos_token}}\n"
    "        {%- endgeneration %}\n",
)

TEMPLATES = {  # as published, the same with tags, bos, eos
    "smollm2": (_SMOL, _SMOL_TAGGED, "<|im_start|>", "<|im_end|>"),
    "llama3": (_LLAMA, _LLAMA_TAGGED, "<|begin_of_text|>", "<|eot_id|>"),
    "gemma": (_GEMMA, _GEMMA_TAGGED, "<bos>", "<eos>"),
    "mistral": (_MISTRAL, _MISTRAL_TAGGED, "<s>", "</s>"),
}
SPECIAL_TOKENS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>"),
    *("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<bos>", "<eos>"),
    *("<start_of_turn>", "<end_of_turn>", "<s>", "</s>"),
)


def _turns(*contents: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)]


CONVERSATIONS = [
    _turns("What is a list?", "A sequence that can change.\n"),
    _turns("Zwölf größere Bäume 🌳?", " Ja – zwölf.", "Und 3.14?", "3.14\n\n\t🌳", "?"),
    _turns("Say nothing.", "", "Again", "  "),
    [{"role": "system", "content": "Be short."}, *_turns("a", "b", "c", "it's d")],
]
