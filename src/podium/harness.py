# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""A model of a run as EleutherAI's lm-evaluation-harness sees one (extra `lm-eval`).

The harness makes requests of its tasks; here they become batches. Text becomes tokens
as in the harness's own adapter for transformers: as documents begin, with what the
tokenizer puts in front, and cut on the left where it is longer than the model takes.
"""

import itertools
from collections.abc import Callable, Collection, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import (
    handle_stop_sequences,
    normalize_gen_kwargs,
    postprocess_generated_text,
)
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from podium.errors import ConfigError
from podium.generate import Generator, ids_of_draws
from podium.sampling import Sampling
from podium.scoring import Score, Scorer, Text
from podium.tokenizer import Tokenizer


class PodiumLM(TemplateLM):
    """Log-likelihoods and generation, batched, on the mesh of its scorer and generator."""

    def __init__(
        self,
        scorer: Scorer,
        make_generator: Callable[[], Generator],
        tokenizer: Tokenizer,
        *,
        end_ids: Collection[int],
        prefix_id: int,
        max_tokens: int,
        batch_seqs: int,
        seed: int = 0,
    ):
        """`prefix_id` stands for an empty context; `max_tokens` is the longest row the
        model takes; a generator, which holds the
        weights in a form of its own, is made when a task generates."""
        super().__init__()
        self._scorer, self._make_generator = scorer, make_generator
        self._generator: Generator | None = None
        self._podium_tokenizer, self._end_ids = tokenizer, frozenset(end_ids)
        self.max_length, self._batch_seqs, self._seed = max_tokens, batch_seqs, seed
        self._prefix_id = prefix_id
        self.has_begun = False  # whether a request has come: its tasks are loaded

    @property
    def eot_token_id(self) -> int:
        """The token that ends a document."""
        return self._podium_tokenizer.eos_id

    @property
    def prefix_token_id(self) -> int:
        """What an empty context is taken for."""
        return self._prefix_id

    @property
    def tokenizer_name(self) -> str:
        """For the harness's caches."""
        return self._podium_tokenizer.info.sha256

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """Ids of a text, begun as documents are unless it begins so itself."""
        tokens, bos_id = (
            self._podium_tokenizer.encode(string),
            self._podium_tokenizer.bos_id,
        )
        has_bos = tokens[:1] == [bos_id] and add_special_tokens is None
        if bos_id is None or add_special_tokens is False or has_bos:
            return tokens
        return [bos_id, *tokens]

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        self.has_begun = True
        scores: list[Score] = self._scorer.score(
            [
                Text((context + rest)[-(self.max_length + 1) :], len(rest))
                for _, context, rest in requests
            ]
        )
        out = [(score.logprob, bool(score.is_greedy)) for score in scores]
        for request, answer in zip(requests, out, strict=True):
            if (key := request[0]) is not None:
                self.cache_hook.add_partial("loglikelihood", key, answer)
        return out

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Of whole texts, in windows of the model's length, each token scored once."""
        windows = [
            [
                (None, *make_disjoint_window(window))
                for window in get_rolling_token_windows(
                    token_list=self.tok_encode(request.args[0]),
                    prefix_token=self.prefix_token_id,
                    max_seq_len=self.max_length,
                    context_len=1,
                )
            ]
            for request in requests
        ]
        answers = iter(self._loglikelihood_tokens([*itertools.chain(*windows)]))
        out = [
            sum(logprob for logprob, _ in itertools.islice(answers, len(each)))
            for each in windows
        ]
        for request, answer in zip(requests, out, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, answer)
        return out

    def generate_until(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[str]:
        """Continuations up to the first of each request's stop strings."""
        self.has_begun = True
        out = [""] * len(requests)
        asked: list[tuple[str, dict[str, Any]]] = [r.args for r in requests]  # pyright: ignore
        by_settings: dict[str, list[int]] = {}
        for i, (_, settings) in enumerate(asked):
            by_settings.setdefault(repr(settings), []).append(i)
        for members in by_settings.values():
            settings = _settings(asked[members[0]][1])
            room = self.max_length - settings["num_tokens"]
            if room < 1:
                raise ConfigError(
                    f"a task asks for {settings['num_tokens']} new tokens, but rows of "
                    f"this model have at most {self.max_length}; raise --max_tokens, or "
                    "set max_gen_toks in its generation_kwargs"
                )
            prompts = [self.tok_encode(asked[i][0])[-room:] for i in members]
            prompts = [prompt or [self.prefix_token_id] for prompt in prompts]
            draw_ids = ids_of_draws(prompts)
            order = sorted(range(len(members)), key=lambda j: -len(prompts[j]))
            for at in range(0, len(order), self._batch_seqs):
                part = order[at : at + self._batch_seqs]
                texts = self._generate(
                    [prompts[j] for j in part], [draw_ids[j] for j in part], **settings
                )
                for j, text in zip(part, texts, strict=True):
                    out[members[j]] = text
                    key = asked[members[j]]
                    self.cache_hook.add_partial("generate_until", key, text)
        return out

    def _generate(
        self,
        prompts: list[list[int]],
        draw_ids: list[int],
        *,
        num_tokens: int,
        until: list[str],
        sampling: Sampling,
    ) -> list[str]:
        if self._generator is None:
            self._generator = self._make_generator()
        stops = [stop for stop in until if stop]
        rows = self._generator.generate(
            prompts,
            num_tokens=num_tokens,
            sampling=sampling,
            seed=self._seed,
            end_ids=self._end_ids,
            draw_ids=draw_ids,
            is_done=lambda row: any(stop in self._text(row) for stop in stops),
        )
        return [postprocess_generated_text(self._text(r), until, None) for r in rows]

    def _text(self, row: list[int]) -> str:
        kept = itertools.takewhile(lambda t: t not in self._end_ids, row)
        return self._podium_tokenizer.decode(list(kept))


def _settings(asked: dict[str, Any]) -> dict[str, Any]:
    """A task's generation_kwargs in our words. Raises ConfigError for others."""
    settings: dict[str, Any] = dict(normalize_gen_kwargs(dict(asked)))
    until = handle_stop_sequences(settings.pop("until", None), eos=None)
    num_tokens = settings.pop("max_gen_toks")
    is_greedy = not settings.pop("do_sample", False)
    temperature = settings.pop("temperature", 1.0)
    sampling = Sampling(
        temperature=0.0 if is_greedy else temperature,
        top_k=settings.pop("top_k", None) or None,
        top_p=settings.pop("top_p", 1.0),
    )
    if settings:
        raise ConfigError(
            f"a task has generation_kwargs {', '.join(map(repr, settings))}, which are "
            "not supported; known: until, max_gen_toks, do_sample, temperature, top_k, "
            "top_p"
        )
    return {"num_tokens": num_tokens, "until": until, "sampling": sampling}
