"""The base model's predictions without an injection, for the KL term of the loss.

They are computed once for all epochs, and kept as the hidden states before the unembedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from introspection.injection.patching import patch_forward, start_at_layer
from introspection.injection.plan import make_plan, use_plan
from introspection.models.loaded_model import LoadedModel
from introspection.training.data.activation_cache import ActivationCache


class Teacher:
    """Final hidden states [tokens, D] of distinct sequences, where their last tokens are predicted.

    ``wanted`` are pairs (token ids, how many of the last are predicted); ``mixed`` is the autocast
    context of the training.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        cache: ActivationCache,
        wanted: Sequence[tuple[tuple[int, ...], int]],
        batch_tokens: int,
        mixed: Any,
    ) -> None:
        self.model = loaded.model
        self.places: dict[tuple[tuple[int, ...], int], slice] = {}
        weight = self.model.get_input_embeddings().weight
        device, decoder = weight.device, self.model.get_decoder()
        distinct = sorted(set(wanted), key=lambda pair: len(pair[0]))
        states_of, at, done = [], 0, 0
        while done < len(distinct):
            shortest = len(distinct[done][0])
            chunk = distinct[done : done + max(1, batch_tokens // shortest)]
            done += len(chunk)
            ids = pad_sequence([torch.tensor(ids) for ids, _ in chunk], batch_first=True)
            width = ids.shape[1]
            spans, base_rows = [(0, None)] * len(chunk), [False] * len(chunk)
            no_injection = make_plan(None, spans, base_rows, device, weight.dtype)
            hidden = cache.batch([sequence for sequence, _ in chunk], width)
            with (
                torch.no_grad(),
                mixed,
                start_at_layer(self.model, loaded.layer, hidden),
                use_plan(no_injection),
            ):
                states = decoder(
                    input_ids=ids.to(device),
                    position_ids=torch.arange(width, device=device).expand(len(chunk), -1),
                    use_cache=False,
                )[0]
            for row, (sequence, count) in enumerate(chunk):
                states_of.append(states[row, len(sequence) - count - 1 : len(sequence) - 1].clone())
                self.places[sequence, count] = slice(at, at + count)
                at += count
        self.states = torch.cat(states_of) if states_of else weight.new_zeros(0, weight.shape[1])

    @torch.no_grad()
    def logits(self, wanted: Sequence[tuple[tuple[int, ...], int]]) -> Tensor:
        """[tokens, V]: what the base model predicts, one sequence after the other."""
        states = torch.cat([self.states[self.places[pair]] for pair in wanted])[None]
        decoder = self.model.get_decoder()

        def kept_states(*_args: Any, **_kwargs: Any) -> Any:
            return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=states)

        # The model's own way from hidden states to logits: some scale or cap them.
        with patch_forward(decoder, kept_states):
            ids = torch.zeros(states.shape[:2], dtype=torch.long, device=states.device)
            logits: Tensor = self.model(input_ids=ids, use_cache=False).logits[0]
        return logits
