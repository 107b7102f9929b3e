"""POST /tokenize and /detokenize."""

from __future__ import annotations

import msgspec

from trimtab_sim.engine_sim import chat_route, exchange, protocol, service, tokens

_encode = msgspec.json.encode


async def tokenize(call: exchange.Exchange, shared: service.Service) -> None:
    """Answer with the token ids of a `prompt` or of `messages` under the chat template."""
    body = await call.json_object()
    fields = protocol.Fields(body)
    if "messages" not in body:
        fields.required("prompt")
    prompt, messages = fields.text("prompt"), fields.items("messages")
    model, with_texts = fields.text("model"), fields.flag("return_token_strs")
    generation_prompt = fields.raw("add_generation_prompt") is not False
    fields.finish()
    shared.check_model(model)
    if messages is None:
        ids = tokens.encode(prompt or "")
    else:
        conversation = [chat_route.conversation_text(message, model=shared.config.names[0]) for message in messages]
        ids = tokens.encode_chat(conversation, generation_prompt=generation_prompt)
    texts = [tokens.token_text(token) for token in ids] if with_texts else None
    answer = {"count": len(ids), "max_model_len": shared.config.context_tokens, "tokens": ids, "token_strs": texts}
    await call.reply(_encode(answer))


async def detokenize(call: exchange.Exchange, shared: service.Service) -> None:
    """Answer with the text of token ids."""
    body = await call.json_object()
    fields = protocol.Fields(body)
    fields.required("tokens")
    ids, model = fields.items("tokens"), fields.text("model")
    fields.finish()
    shared.check_model(model)
    try:
        text = tokens.decode(ids or [])
    except (TypeError, ValueError) as error:
        raise protocol.ApiError(str(error)) from error
    await call.reply(_encode({"prompt": text}))
